"""NumPy's scalars as left operands: to Tensors they leave operators at once, with all else they do what they did."""

from __future__ import annotations

import contextlib
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


@pytest.mark.dear
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


UFUNCS = [u for name, u in vars(np).items()
          if isinstance(u, np.ufunc) and u.__name__ == name and "d->" in "".join(u.types) and u.signature is None
          and u not in (np.frexp, np.ldexp, np.nextafter, np.spacing)]  # fmt: skip


@pytest.mark.parametrize("ufunc", UFUNCS, ids=lambda u: u.__name__)
@pytest.mark.parametrize("x", [0.5, 1.5, 0.0, -1.5, float("nan")])
@pytest.mark.filterwarnings("ignore")
def test_ufuncs_of_a_tensor_beside_numbers_and_arrays(ufunc, x):
    """On each side of numbers, ndarrays and TensorArrays the numbers are those of NumPy, where floats have them."""
    t, v = fs.Tensor(x), np.array([1.0, 2.0])
    cases = [((t,), (x,))]
    if ufunc.nin == 2:
        a = fs.to_tensor(v)
        others = [(2.0, 2.0), (fs.Tensor(0.7), 0.7), (v, v), (a, v)]
        cases = [pair for o, w in others for pair in (((t, o), (x, w)), ((o, t), (w, x)))]
    for ours, plain in cases:
        try:
            found, wanted = ufunc(*ours), ufunc(*plain)
        except (ArithmeticError, ValueError):
            continue                             # as of floats and of math
        for r, w in zip(*((part if ufunc.nout == 2 else (part,)) for part in (found, wanted)), strict=True):
            values = r.numpy() if isinstance(r, fs.TensorArray) else np.asarray(r, dtype=float)
            np.testing.assert_allclose(values, np.asarray(w, dtype=float), rtol=1e-14)
            assert values.shape == np.shape(w)


@pytest.mark.parametrize("ufunc", [np.frexp, np.spacing, np.nextafter, np.ldexp])
def test_what_is_not_there_names_what_is(ufunc):
    for x in (fs.Tensor(1.5), fs.to_tensor([1.5])):
        with pytest.raises(TypeError, match=r"not there for a Tensor.*; (fastscalar\.math\.|x \* 2)"):
            ufunc(*[x, 2][: ufunc.nin])


@pytest.mark.parametrize("on_the_left", [False, True])
@pytest.mark.parametrize("kind", ["longdouble", "clongdouble", "complex128", "float32", "int8", "bool_"])
@pytest.mark.parametrize("op", [operator.and_, operator.or_, operator.xor, operator.lshift, operator.rshift, divmod,
                                operator.mod, operator.add, operator.pow, operator.lt, operator.matmul])  # fmt: skip
def test_what_is_refused_is_a_type_error(op, kind, on_the_left):
    """As of Python's own numbers; not one operation that calls the other for ever."""
    for number in (getattr(np, kind)(1), np.array(1, getattr(np, kind)), np.array([1, 2], getattr(np, kind))):
        for t in (fs.Tensor(2.0), fs.to_tensor([1.0, 2.0])):
            with contextlib.suppress(TypeError, ValueError):
                op(*((number, t) if on_the_left else (t, number)))


@pytest.mark.parametrize("op", [operator.and_, operator.add, operator.mul, operator.lt])
def test_complex_numbers_of_extended_precision_are_refused(op):
    for pair in ((np.clongdouble(1j), fs.Tensor(2.0)), (fs.Tensor(2.0), np.clongdouble(1j))):
        with pytest.raises(TypeError):
            op(*pair)
