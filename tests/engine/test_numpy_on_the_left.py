"""NumPy's scalars as left operands: to Tensors they leave operators at once, with all else they do what they did."""

from __future__ import annotations

import operator
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import clock
import fastscalar as fs

OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow]
COMPARISONS = [operator.lt, operator.le, operator.eq, operator.ne, operator.gt, operator.ge]
SCALARS = [np.dtype(code).type for code in np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"]


@pytest.mark.parametrize("kind", SCALARS, ids=lambda kind: np.dtype(kind).char)
def test_every_operator_with_every_scalar(kind: Any) -> None:
    t, x = fs.Tensor(1.5), kind(1)
    for op in OPERATORS:
        assert type(op(x, t)) is fs.Tensor
        assert op(x, t).data == op(1.0, 1.5)
        y = fs.Tensor(1.5)
        op(x, y).backward()
        slope = y.grad
        op(1.0, y).backward()
        assert slope == y.grad
    for compare in COMPARISONS:
        assert compare(x, t) is compare(1.0, 1.5)


def test_a_numpy_scalar_costs_what_a_float_costs() -> None:
    t, x, y = fs.Tensor(2.0), 3.0, np.float64(3.0)

    def times(x: Any) -> None:
        for _ in range(20_000):
            x * t

    assert clock.ratio(lambda: times(y), lambda: times(x), limit=1.5) < 1.5  # 6 to 17 without


WITH_ALL_ELSE = """
import fractions, operator, sys
import numpy as np
if sys.argv[1] == "after":
    import fastscalar

names = "add sub mul truediv floordiv mod pow lt gt eq le ge ne".split()
def deferring(**more):
    own = {f"__{name}__" if len(name) == 2 else f"__r{name}__": lambda self, *rest: "mine" for name in names}
    return type("Deferring", (), {**own, **more})()

others = [deferring(__array_ufunc__=None), deferring(__array_priority__=10.0), deferring(), 2, 2.0, 2j, True,
          np.float64(3), np.float32(3), np.int8(3), np.complex64(1), np.array([1.0, 2.0]), [1, 2], "a", None,
          fractions.Fraction(1, 2), type("Half", (float,), {})(0.5), type("Own", (np.float64,), {})(0.5)]
for x in (np.float64(2), np.float32(2), np.int64(2), np.uint8(2), np.bool_(True), np.longdouble(2), np.float16(2)):
    for y in others:
        for op in [getattr(operator, name) for name in names] + [divmod]:
            for a, b in ((x, y), (y, x)):
                try:
                    found = op(a, b)
                    found = type(found).__name__, repr(found)
                except Exception as error:
                    found = type(error).__name__, str(error)
                print(type(x).__name__, type(y).__name__, op.__name__, *found)
"""


def test_with_all_else_they_do_what_they_did() -> None:
    before, after = (
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", WITH_ALL_ELSE, when],
            capture_output=True, text=True, timeout=300, check=True,
        ).stdout
        for when in ("before", "after")
    )  # fmt: skip
    assert before.count("mine") > 300
    assert before == after
