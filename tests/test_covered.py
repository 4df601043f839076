"""`tools/covered.py`: what a report makes of the lines that ran."""

from __future__ import annotations

import collections
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tools"))
covered = importlib.import_module("covered")


def about(ran: int, there: int) -> dict[str, Any]:
    missing = list(range(3, 3 + there - ran))
    return {"summary": {"covered_lines": ran, "num_statements": there}, "missing_lines": missing}


def test_files_are_counted_by_room_and_kind() -> None:
    files = {
        "src/fastscalar/nn/fit.py": about(9, 10),
        "src/fastscalar/nn/init.py": about(1, 10),
        "src/fastscalar/_core.pyx": about(20, 20),
        "src/fastscalar/engine/tape.pxd": about(3, 4),
    }
    sums = covered.counted(files)
    assert sums["nn", "Python"] == (10, 20)
    assert sums["the package's own", "Cython"] == (20, 20)
    assert sums["all", "Cython"] == (23, 24)
    table = covered.table(sums).splitlines()
    assert "| nn | 20 | 50.0 % | 0 | - |" in table
    assert table[-1] == "| all | 20 | 50.0 % | 24 | 95.8 % |"


def test_lines_are_named_in_spans() -> None:
    assert covered.spans([1, 2, 3, 7, 9, 10]) == "1-3, 7, 9-10"
    assert covered.spans([]) == ""


C = """\
static int a(void) {
  /* "fastscalar/engine/tape.pxd":10
 * cdef int a():             # <<<<<<<<<<<<<<
 */
  begin();
  /* "fastscalar/engine/tape.pxd":11
 *     return 1
 */
  one();
  goto end;
  other();
  /* function exit code */
  end:;
}
static int wrapper(void) {
  /* "stringsource":3 */
  made();
}
"""


def test_lines_of_c_are_lines_of_cython() -> None:
    files = covered.of_cython([(C, {5: 0, 9: 0, 13: 7, 17: 1}), (C, {5: 2, 9: 0, 11: 0, 13: 1})])
    (name, found), = files.items()
    assert name.endswith("src/fastscalar/engine/tape.pxd")
    assert found == {"summary": {"covered_lines": 1, "num_statements": 2}, "missing_lines": [11]}


@pytest.mark.parametrize(("ran", "status"), [(95, 0), (94, 1)])
def test_below_95_percent_is_a_failure(
    ran: int, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {str(tmp_path / "src/fastscalar/math.py"): about(ran, 100)}
    monkeypatch.setattr(covered, "HERE", tmp_path)
    monkeypatch.setattr(covered, "KEPT", tmp_path)
    monkeypatch.setattr(covered, "coverage", lambda *words, **more: 0)
    monkeypatch.setattr(covered, "counted_by_gcc", lambda: [])
    (tmp_path / "all.json").write_text(covered.json.dumps({"files": files}))
    assert covered.report() == status
    assert capsys.readouterr().out.splitlines()[-1] == f"{ran}.0 % of 100 lines of Python; - of 0 lines of Cython"
    assert (tmp_path / "missing.txt").read_text() == f"src/fastscalar/math.py: 3-{102 - ran}\n"


def test_of_each_test_there_are_so_many_cases_at_most() -> None:
    file = "tests/program/test_truths.py"
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", file]
    listed = []
    for given in ({}, {"FASTSCALAR_CASES": "3"}):
        env = {**os.environ, **given, "NO_COLOR": "1"}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True, timeout=300)
        names = [line.partition("[") for line in done.stdout.splitlines() if "::" in line]
        listed.append(collections.Counter(test for test, _, _ in names))
    whole, some = listed
    assert max(whole.values()) > 3
    assert some == {test: min(count, 3) for test, count in whole.items()}
