"""The n-th allocation fails, Python's and the engine's alike; `tests/helpers/faults.py` does more of it."""

import gc
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("_testcapi", reason="this Python cannot refuse an allocation")
if not hasattr(os, "fork"):
    pytest.skip("no fork on this system", allow_module_level=True)

import fastscalar as fs
import faults
from fastscalar import _core
from fastscalar.program import _data

SOURCES = Path(fs.__file__).parent

pytestmark = pytest.mark.skipif(_core.tape_info()["stress"], reason="every step allocates, in stress mode")

# In those that record programs, NumPy and Cython have faults of their own here and there.
SCENARIOS = {"no_grad": (0, 12), "own_operation": (0, 8), "second_order": (0, 12), "a_jacobian": (136, 144)}


@pytest.mark.parametrize("name", SCENARIOS)
def test_an_allocation_that_fails(name: str) -> None:
    work, expected = faults.begun(name)
    for n in range(*SCENARIOS[name]):
        became = faults.forked(name, work, expected, n)
        assert became in faults.GOOD, f"allocation {n}: {became}"


@pytest.mark.parametrize("make", [faults.fs.no_grad, faults.fs.debug.detect_anomaly])
def test_blocks_of_one_context_are_left_from_the_inside(make: type) -> None:
    context, x = make(), faults.fs.Tensor(2.0)
    with context:
        with context:
            pass
        assert bool((x * x)._parents) == (make is not faults.fs.no_grad)
    assert (x * x)._parents
    with pytest.raises(RuntimeError, match="left without having been entered"):
        context.__exit__()


def test_a_list_that_cannot_grow_releases_its_element_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Cython writes for a comprehension releases it twice (setup.py): who else holds it loses it."""

    def lists() -> faults.Work:
        tensors = [fs.Tensor(float(k)) for k in range(20)]

        def work() -> list[int]:
            fs.to_tensor(tensors)
            return [sys.getrefcount(tensor) for tensor in tensors]

        return work

    monkeypatch.setitem(faults.SCENARIOS, "lists", lists)
    count, ways = faults.run("lists")
    assert count > 60
    assert set(ways) <= {"MemoryError", "the right result"}


def test_sparse_rows_are_found_or_memory_is_not() -> None:
    """NumPy's indexing by arrays loses a MemoryError: here none is used."""
    rows = np.where(np.arange(600).reshape(60, 10) % 3, 0.0, 1.5)

    def work() -> list[Any]:
        return [part.tolist() for part in _data.sparse_rows(rows, True, 0.5, 3)]

    expected = repr(work())
    gc.collect()
    gc.freeze()  # a collection in a child looks at what is new, not at all that 27,000 tests have left: 0.4 s each
    for n in range(200):
        became = faults.forked("sparse_rows", work, expected, n)
        assert became in faults.GOOD, f"allocation {n}: {became}"


def test_no_extension_has_what_releases_an_element_twice() -> None:
    written = [path for path in SOURCES.rglob("*.c") if path.with_suffix(".pyx").exists()]
    if not written:
        pytest.skip("this build kept no C of the extensions")
    released = [path for path in written if "__Pyx_ListComp_AppendAndDecref(PyObject* list" in path.read_text("utf-8")]
    assert len(released) > 10, "Cython writes something else now: is mended() in setup.py still needed?"
    for path in released:
        assert "PyList_Append(list, x);\n    Py_DECREF(x);" not in path.read_text("utf-8"), path.name
