"""Subinterpreters: refused with a clear ImportError, and the tape of the main interpreter is as it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters")

PROGRAM = r"""
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
FIRST = {first}
if FIRST:
    import fastscalar as fs
    x = fs.Tensor(3.0)
    y = x * x
other = interpreters.create()
code = '''
import sys
for name in {names}:
    try:
        __import__(name)
    except ImportError as error:
        assert "subinterpreter" in str(error) and "main interpreter" in str(error), error
    else:
        raise AssertionError(name + " was imported")
    assert not [one for one in sys.modules if one.startswith(("fastscalar._core", "numpy"))], name
open({told!r}, "w").write("refused")
'''
failed = interpreters.run_string(other, code)
assert failed is None, failed
interpreters.destroy(other)
import fastscalar as fs
if not FIRST:
    x = fs.Tensor(3.0)
    y = x * x
y.backward()
assert x.grad == 6.0
print("as it was")
"""


@pytest.mark.parametrize("first", [True, False], ids=["imported before", "not imported before"])
def test_a_subinterpreter_is_refused(first: bool, tmp_path: Path) -> None:
    names = ["fastscalar", "fastscalar._core", "fastscalar.nn", "fastscalar.program._replay"]
    told = tmp_path / "told"
    program = PROGRAM.format(first=first, names=names, told=str(told))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "as it was\n"), done.stderr
    assert told.read_text() == "refused"
