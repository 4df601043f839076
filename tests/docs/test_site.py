"""The site: built without a warning, no dead link, a search, and every public name on a page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastscalar

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site() -> Path:
    for needed in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(needed, reason="the extra `docs` is not installed")
    done = subprocess.run(
        [sys.executable, "tools/site.py"], cwd=ROOT, capture_output=True, text=True, timeout=550, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / "build" / "site" / "html"


def test_every_public_name_is_there(site: Path) -> None:
    text = (site / "api" / "fastscalar.html").read_text()
    missing = [
        name
        for name in fastscalar.__all__
        if not name.startswith("__")
        and not re.search(rf'id="fastscalar\.{name}"', text)
        and not (site / "api" / f"fastscalar.{name}.html").exists()
    ]
    assert not missing


def test_the_search_finds(site: Path) -> None:
    index = (site / "searchindex.js").read_text()
    titles = json.loads(index[index.index("(") + 1 : index.rindex(")")])["alltitles"]
    assert {"Stability", "Training"} <= set(titles)
