"""What a package index shows needs whole addresses: `python tools/addresses.py https://HOST/OWNER/NAME [VERSION]`.

Run on a copy that is about to be built (the release does): relative links and pictures of README.md become addresses of
the files at VERSION ("main" if left out), and pyproject.toml gets the project's addresses.  The repository itself knows
no address, so that a fork's are right too.
"""

from __future__ import annotations

import pathlib
import re
import sys

URLS = {
    "Homepage": "{base}",
    "Documentation": "{base}/blob/{version}/docs/README.md",
    "Source": "{base}",
    "Issues": "{base}/issues",
    "Changelog": "{base}/blob/{version}/CHANGELOG.md",
}


def absolute(text: str, base: str, version: str, folder: pathlib.Path) -> str:
    """The text with its links to files as addresses; what is in blocks of code stays."""

    def link(match: re.Match[str]) -> str:
        picture, shown, target = match.groups()
        if "://" in target or target.startswith(("#", "mailto:")):
            return match[0]
        kind = "raw" if picture else "tree" if (folder / target.partition("#")[0]).is_dir() else "blob"
        return f"{picture}[{shown}]({base}/{kind}/{version}/{target})"

    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(
        part if k % 2 else re.sub(r"(!?)\[([^\[\]]*)\]\(([^)\s]+)\)", link, part) for k, part in enumerate(parts)
    )


def main(words: list[str], folder: pathlib.Path) -> int:
    if not words or "://" not in words[0]:
        raise SystemExit(__doc__)
    base, version = words[0].rstrip("/"), words[1] if len(words) > 1 else "main"
    readme, project = folder / "README.md", folder / "pyproject.toml"
    readme.write_text(absolute(readme.read_text(), base, version, folder))
    lines = [f'{name} = "{address.format(base=base, version=version)}"' for name, address in URLS.items()]
    text = project.read_text()
    if "[project.urls]" in text:
        raise SystemExit(f"{project} has its addresses already")
    urls = "\n".join(["[project.urls]", *lines, "", "[project.scripts]"])
    project.write_text(text.replace("[project.scripts]", urls))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], pathlib.Path.cwd()))
