"""Whole numbers of the row, and floats of them, beside numbers that have a type of their own: what NumPy, or Python,
rounds or refuses in the plain call, a program does not compute in 64 bits."""

import operator
from fractions import Fraction

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import math

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::fastscalar.CompileWarning")
K = np.array([3, 0, -1, 200, 7])
X = np.array([1.0, 0.3, 2.0, 1.5, 1.0])
VALUES = {
    **{kind: getattr(np, kind)(100) for kind in ("int8", "int16", "int32", "int64", "uint8", "uint64")},
    **{kind: getattr(np, kind)(0.1) for kind in ("float16", "float32", "float64", "longdouble")},
    "bool_": np.True_, "Fraction": Fraction(1, 10), "a large int": 2**53 + 1, "a float": 0.1,
    "float32 without axes": np.array(0.1, np.float32),
    **{f"an array of {kind}": np.array([100, 1], kind) for kind in ("int8", "int64", "uint8", "bool")},
    **{f"an array of {kind}": np.array([0.1, 0.7], kind) for kind in ("float16", "float32", "float64", "longdouble")},
}  # fmt: skip
OPERATIONS = [operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow,
              operator.and_, operator.lt, operator.eq, operator.ge]  # fmt: skip
WHOLE = {"k op v": lambda op, k, v: op(k, v), "v op k": lambda op, k, v: op(v, k)}
FLOATS = {
    "k/4 op v": lambda op, k, v: op(k / 4, v),
    "v op k/4": lambda op, k, v: op(v, k / 4),
    "sin(k) op v": lambda op, k, v: op(math.sin(k), v),
    "in another function": lambda op, k, v: fs.maximum(op(k, v), 0.5),
}


def rows(f, call):
    found = []
    for x, k in zip(X, K, strict=True):
        try:
            found.append(float(call(f, x, k)))
        except Exception as error:
            found.append(type(error))
    return found


def check(f):
    program = fs.compile(f)
    plain = rows(f, lambda f, x, k: f(fs.Tensor(x), int(k)))
    found = rows(program, lambda f, x, k: f.map(np.array([x]), np.array([k]))[0])
    for a, b in zip(plain, found, strict=True):
        numbers = isinstance(a, float) and isinstance(b, float)
        assert b == (pytest.approx(a, rel=1e-14, nan_ok=True) if numbers else a), (plain, found)


def function(form, op, v):
    if getattr(v, "ndim", 0):
        def f(x, k):
            r = form(op, k, v)
            return x * (r[0] * 1.0 + r[1] * 3.0)
    else:
        def f(x, k):
            return x * form(op, k, v)
    return f


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("form", [*WHOLE, *FLOATS])
def test_as_in_the_plain_call(form, value):
    for op in OPERATIONS:
        if value != "a large int" or op is not operator.pow:     # 3 ** (2**53 + 1)
            check(function({**WHOLE, **FLOATS}[form], op, VALUES[value]))


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("form", WHOLE)
def test_wherever_it_comes_from(form, value):
    """Not only where the function's names say what it is."""
    kept = {"a": [[VALUES[value]]]}
    for op in OPERATIONS:
        if value != "a large int" or op is not operator.pow:
            def f(x, k, op=op):
                r = WHOLE[form](op, k, kept["a"][0][0])
                return x * (r[0] * 1.0 + r[1] * 3.0 if getattr(VALUES[value], "ndim", 0) else r)

            check(f)


class Scaled:
    scale = np.float32(0.1)

    def __call__(self, x, k):
        return x * (k / 4 * self.scale)


SCALES = [np.float32(0.1), np.float32(0.3)]
W = np.array([0.1, 0.7], np.float32)


@pytest.mark.parametrize("f", [
    Scaled(), lambda x, k: x * (k / 4 * SCALES[1]), lambda x, k: x * (math.sin(k) * W[0]),
    lambda x, k: x * (k / 4 * np.float32(0.7)), lambda x, k: x * (W * (k / 4))[1], lambda x, k: x * (k / 4 * W)[0],
    lambda x, k: x * float((k / 4 * np.array([0.1, 0.2]).astype("f4"))[1]), lambda x, k: x * np.multiply(W, k)[1],
], ids=["attribute", "list", "element", "made there", "array", "array on the right", "astype", "ufunc"])  # fmt: skip
def test_floats_of_whole_numbers_beside_single_precision(f):
    check(f)


def test_a_comparison_with_single_precision():
    tenth = np.float32(0.1)
    check(lambda x, k: x if k / 2000 < tenth else 2.0 * x)
    check(lambda x, k: x if 0.1 * k / 3 == tenth or k / 30 == tenth else 2.0 * x)


@pytest.mark.parametrize("f", [
    lambda x, k: np.multiply(k, x), lambda x, k: np.maximum(x, k), lambda x, k: k * x, lambda x, k: x / (k + 0.5),
    lambda x, k: fs.to_tensor(k * np.array([x[0], x[1]])), lambda x, k: x * (k * 0.5) * (np.float64(0.1) * k),
    lambda x, k: x * (k < np.int64(4)),
], ids=["ufunc", "ufunc on the right", "operator", "float", "array of Tensors", "float64", "comparison"])  # fmt: skip
def test_beside_others_nothing_is_read(f):
    rows, k = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30)
    program = fs.compile(lambda x, k: fs.sum(f(x, k)))
    plain = [fs.sum(f(fs.to_tensor(row), int(i))).data for row, i in zip(rows, k, strict=True)]
    assert program.map(rows, k).tolist() == pytest.approx(plain, rel=1e-14)
    assert len(program._specializations()) <= 2
