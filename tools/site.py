"""`make docs`: the pages of docs/, the README and the interface as a site with a search, in build/site/html.

The repository's files are laid out as they are in build/site/source, so that their links hold; added are a page for
each public module, the course's notebooks as pages, and lists of what folders have.  Warnings are errors; links are
checked.
"""

from __future__ import annotations

import argparse
import inspect
import json
import pathlib
import re
import shutil
import subprocess
import sys

import fastscalar

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md", "benchmarks/results/README.md")
FOLDERS = ("docs/design", "examples", "examples/porting", "tests/article")  # that pages link to as folders
KEPT = (".md", ".py", ".svg", ".png", ".ipynb", ".pgm", ".json")

MODULES = {
    "fastscalar": "Tensors, arrays, programs, training",
    "fastscalar.math": "Python's `math`, of Tensors",
    "fastscalar.nn": "Layers, initialisers, callbacks",
    "fastscalar.optim": "Optimisers",
    "fastscalar.schedules": "Learning rates",
    "fastscalar.datasets": "Data sets",
    "fastscalar.random": "Random numbers of programs",
    "fastscalar.debug": "Looking inside",
    "fastscalar.testing": "A check for Tensors of your own",
    "fastscalar.plot": "Pictures",
    "fastscalar.article": "The article's names",
    "fastscalar.reference": "The specification, in Python",
}

TREE = {
    "Use": ("docs/porting", "docs/compile", "docs/derivatives", "docs/training", "docs/runs", "docs/data",
            "docs/estimators", "docs/scale-out", "docs/play", "docs/debug", "docs/functions"),
    "Learn": ("docs/from-the-article", "docs/from-the-article.zh-CN", "docs/course/README", "examples/index",
              "examples/porting/index"),
    "Decide": ("docs/which-tool", "docs/performance", "docs/reliability", "docs/stability", "SECURITY", "CHANGELOG"),
    "Interface": tuple(f"api/{name}" for name in MODULES),
    "Inside": ("docs/README", "docs/architecture", "docs/design/index", "CONTRIBUTING", "benchmarks/README",
               "benchmarks/results/README", "tests/article/index"),
}  # fmt: skip


def page_of_module(name: str, shown: dict[str, str]) -> str:
    """shown: by where an object is from, the page that has it already."""
    module = __import__(name, fromlist=["_"])
    names = getattr(module, "__all__", None) or [
        key for key, value in vars(module).items()
        if not key.startswith("_") and getattr(value, "__module__", "").startswith("fastscalar")
    ]  # fmt: skip
    lines = [f"# {name}", "", MODULES[name] + ".", ""]
    for key in names:
        value = getattr(module, key, None)
        if inspect.ismodule(value) or key.startswith("__") or value is None:
            continue
        home = f"{getattr(value, '__module__', name)}.{getattr(value, '__qualname__', key)}"
        if home in shown and shown[home] != name and not name.startswith("fastscalar.reference"):
            lines += [f"`{key}`: see [{shown[home]}]({shown[home]}.md).", ""]
            continue
        shown.setdefault(home, name)
        kind = "autoclass" if inspect.isclass(value) else "autofunction" if callable(value) else "autodata"
        lines += ["```{eval-rst}", f".. {kind}:: {name}.{key}"]
        if kind == "autoclass" and not issubclass(value, BaseException):
            lines += ["   :members:", "   :show-inheritance:"]
        lines += ["```", ""]
    return "\n".join(lines)


def page_of_notebook(path: pathlib.Path) -> str:
    """The cells in turn, code with what it printed."""
    out: list[str] = []
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            out.append(text)
        elif text:
            out.append(f"```python\n{text}\n```")
            said = ["".join(one.get("text", one.get("data", {}).get("text/plain", ""))) for one in cell["outputs"]]
            if any(said):
                out.append("```text\n" + "".join(said).rstrip() + "\n```")
    return "\n\n".join(out) + "\n"


def links(text: str, here: pathlib.Path) -> str:
    """Links to folders go to their lists, links to notebooks to their pages; a file that is no page stays a file."""

    def other(match: re.Match[str]) -> str:
        target, _, anchor = match[1].partition("#")
        if "://" in target or not target:
            return match[0]
        path = (here / target).resolve()
        if path.suffix == ".ipynb":
            target = target.removesuffix(".ipynb") + ".md"
        elif path.is_dir():
            target = target.rstrip("/") + "/index.md"
        elif path == ROOT / "README.md":
            target = target.removesuffix("README.md") + "index.md"
        return f"]({target}{'#' + anchor if anchor else ''})"

    fences = re.split(r"(^```.*?^```$|`[^`\n]*`)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if k % 2 else re.sub(r"\]\(([^)\s]+)\)", other, part) for k, part in enumerate(fences))


def prepare(source: pathlib.Path) -> None:
    shutil.rmtree(source, ignore_errors=True)
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    folders = ["docs", "examples", "benchmarks", "tests/article"]
    done = subprocess.run([*command, *folders], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    for name in [*done.stdout.splitlines(), *PAGES, "LICENSE"]:
        path, target = ROOT / name, source / name
        if not path.is_file() or name.startswith("docs/site/") or path.suffix not in (*KEPT, ""):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            target.write_text(links(path.read_text(), path.parent))
        elif path.suffix == ".ipynb":
            target.with_suffix(".md").write_text(links(page_of_notebook(path), path.parent))
        else:
            shutil.copy(path, target)
    for folder in FOLDERS:
        files = sorted(path for path in (ROOT / folder).iterdir() if path.suffix in (".md", ".py"))
        lines = [f"# {folder}", ""]
        if folder == "docs/design":
            lines += ["```{toctree}", ":titlesonly:", "", *(path.stem for path in files), "```", ""]
        else:
            lines += [f"- [{path.name}]({path.name})" for path in files]
        (source / folder / "index.md").write_text("\n".join(lines) + "\n")
    shown: dict[str, str] = {}
    for name in MODULES:
        path = source / "api" / f"{name}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(page_of_module(name, shown))
    lessons = source / "docs" / "course" / "README.md"
    names = [path.stem for path in sorted(lessons.parent.glob("[0-9]*.md"))]
    lessons.write_text(lessons.read_text() + "\n" + "\n".join(["```{toctree}", ":hidden:", "", *names, "```", ""]))
    index = links((ROOT / "README.md").read_text(), ROOT)
    for caption, names_of in TREE.items():
        there = [name for name in names_of if (source / f"{name}.md").exists()]
        tree = ["```{toctree}", ":hidden:", ":titlesonly:", f":caption: {caption}", "", *there, "```"]
        index += "\n".join(["", *tree, ""])
    (source / "index.md").write_text(index)


def broken(html: pathlib.Path) -> list[str]:
    """Links of the built pages within the site that lead nowhere, anchors included."""
    ids: dict[pathlib.Path, set[str]] = {}
    texts = {path: path.read_text() for path in html.rglob("*.html")}
    for path, text in texts.items():
        ids[path.resolve()] = set(re.findall(r'\bid="([^"]+)"', text))
    found = []
    for path, text in texts.items():
        for target in re.findall(r'(?:href|src)="([^"]+)"', text):
            file, _, anchor = target.partition("#")
            if "://" in target or target.startswith(("data:", "mailto:")):
                continue
            there = (path.parent / file.partition("?")[0]).resolve() if file else path.resolve()
            if not there.exists() or (anchor and there.suffix == ".html" and anchor not in ids.get(there, {anchor})):
                found.append(f"{path.relative_to(html)}: {target}")
    return found


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="site.py", description=__doc__.splitlines()[0])
    parser.add_argument("--links", action="store_true", help="ask each address of the network too")
    options = parser.parse_args(words)
    place = ROOT / "build" / "site"
    prepare(place / "source")
    shutil.copy(ROOT / "docs" / "site" / "conf.py", place / "source" / "conf.py")
    for old in ("html", "doctrees"):
        shutil.rmtree(place / old, ignore_errors=True)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(place / "doctrees")]
    done = subprocess.run([*command, "-b", "html", str(place / "source"), str(place / "html")], check=False)
    if done.returncode:
        return done.returncode
    wrong = broken(place / "html")
    print("\n".join(wrong))
    if options.links:
        more = ["-D", "linkcheck_ignore=", "-b", "linkcheck"]
        done = subprocess.run([*command, *more, str(place / "source"), str(place / "links")], check=False)
    pages = len(list((place / "html").rglob("*.html")))
    print(f"{pages} pages of fastscalar {fastscalar.__version__}: {(place / 'html').relative_to(ROOT)}")
    return bool(wrong) or done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
