"""`make prove`: a run of which every test was skipped has proved nothing, and its row says why."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tools"))
prove = importlib.import_module("prove")
CHECKS = set(prove.CHECKS)

FILES = {
    "passes": "def test_it(): pass",
    "skips": "import pytest\n@pytest.mark.skip(reason='no MPI')\ndef test_it(): pass",
    "all": "import pytest\npytest.skip('no fork | here', allow_module_level=True)",
    "some": "import pytest\ndef test_it(): pass\ndef test_other(): pytest.skip('no file')",
    "fails": "import pytest\ndef test_it(): assert False\ndef test_other(): pytest.skip('no file')",
}




@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What is kept of a run of each."""
    folder = tmp_path_factory.mktemp("tests")
    for name, text in FILES.items():
        (folder / f"test_{name}.py").write_text(text)
    python = ["env", "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1", sys.executable, "-m", "pytest", "-qra"]
    command = [*python, "-p", "no:cacheprovider", f"{folder}/test_{{}}.py"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prove, "CHECKS", {"tried": prove.Check("the one of this test", command, tuple(FILES))})
        patch.setattr(prove, "ROOT", folder)
        yield {part: prove.run("tried", part, "abc") for part in FILES}


@pytest.mark.parametrize(
    ("part", "passed", "why"),
    [("passes", True, ""), ("skips", False, "no MPI"), ("all", False, "no fork | here"), ("some", True, ""),
     ("fails", False, "")],
)  # fmt: skip
def test_what_skips_all_has_not_passed(part: str, passed: bool, why: str, lines: Any) -> None:
    line = lines[part]
    assert (line["passed"], line.get("skipped", "")) == (passed, why)
    row = prove.row("tried", [line])
    assert ("**skipped " in row) == bool(why)
    assert ("passed;" in row) == passed
    assert ("**failed**" in row) == (part == "fails")
    assert row.count("|") == 5  # whatever a reason says
    kept = {**line, "passed": part != "fails"}  # as such a line was kept before
    kept.pop("skipped", None)
    assert ("**skipped " in prove.row("tried", [kept])) == bool(why)


def test_several_parts_are_told_apart(lines: Any) -> None:
    row = prove.row("tried", [lines[part] for part in ("passes", "all", "fails")])
    assert "**failed** fails; **skipped all**: no fork / here; not run yet: skips, some" in row


def test_a_skipped_part_is_no_failure_of_a_run(
    lines: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{prove.MARK}\n{prove.MARK}\n")
    monkeypatch.setattr(prove, "PAGE", page)
    monkeypatch.setattr(prove, "KEPT", tmp_path / "kept.jsonl")
    monkeypatch.setattr(prove, "commit", lambda: "abc")
    monkeypatch.setattr(prove, "run", lambda name, part, here: lines[part])
    monkeypatch.chdir(tmp_path)
    assert not prove.main(["--part", "skips", "--part", "passes"])
    assert "tried skips: skipped" in capsys.readouterr().out
    assert prove.main(["--part", "fails"])
    assert "**skipped skips**: no MPI" in page.read_text()


def test_every_result_that_is_kept_has_its_row() -> None:
    assert {json.loads(line)["check"] for line in prove.KEPT.read_text().splitlines()} <= CHECKS
