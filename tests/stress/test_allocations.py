"""The n-th allocation fails, Python's and the engine's alike; `tests/helpers/faults.py` does more of it."""

import os

import pytest

pytest.importorskip("_testcapi", reason="this Python cannot refuse an allocation")
if not hasattr(os, "fork"):
    pytest.skip("no fork on this system", allow_module_level=True)

import faults
from fastscalar import _core

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
