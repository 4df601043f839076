"""A release's README and metadata have whole addresses, each of a file that is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BASE = "https://example.org/someone/fastscalar"


def test_a_copy_has_addresses_of_files_that_are_there(tmp_path: Path) -> None:
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("examples", "tests"):  # which links are to folders is asked of the copy
        (tmp_path / name).mkdir()
    command = [sys.executable, str(ROOT / "tools" / "addresses.py"), BASE, "v1.2.3"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    text = (tmp_path / "README.md").read_text()
    prose = re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", prose)
    assert len([target for target in targets if target.startswith(BASE)]) > 10
    for target in targets:
        assert target.startswith(("https://", "#")), target
        if target.startswith(BASE):
            kind, version, file = target.removeprefix(BASE + "/").partition("#")[0].split("/", 2)
            assert kind in ("blob", "tree", "raw")
            assert version == "v1.2.3"
            assert (ROOT / file).exists(), target
    urls = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]["urls"]
    assert {"Homepage", "Documentation", "Source", "Issues", "Changelog"} <= set(urls)
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=60).returncode != 0
