"""Every row of the operation table: engine and twin bit for bit, derivatives against differences, errors as `math`."""

import math
import struct

import pytest

import fastscalar
from fastscalar import _core, reference

ROWS = {name: (code, arity) for code, name, arity, _ in _core.operations()}
UNARY = [name for name, (_, arity) in ROWS.items() if arity == 1 and name != "neg"]
BINARY = [name for name, (_, arity) in ROWS.items() if arity == 2]
METHODS = [name for name in BINARY if name.isidentifier()]
OPERATORS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "**": lambda a, b: a**b,
    "%": lambda a, b: a % b,
    "//": lambda a, b: a // b,
}
POINTS = [
    0.3, -0.7, 0.9, 1.5, -2.5, 3.0, 7.75, -11.3, 40.0, -40.0, 1e-8, -1e-8, 1e-300, -1e-300, 1e8, -1e8, 1e200, -1e200,
    0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, math.inf, -math.inf, math.nan, 700.0, 710.0, -745.2,
]  # fmt: skip
# CPython has an lgamma and a hypot of its own: the last bit can differ from the C library's
LAST_BITS = {"lgamma": 8, "hypot": 1, "atan2": 2, "digamma": 0}


def bits(x):
    return "nan" if math.isnan(x) else struct.unpack("<q", struct.pack("<d", x))[0]


def agree(x, y, name):
    ulps = LAST_BITS.get(name, 0)
    if isinstance(bits(x), str) or isinstance(bits(y), str) or not ulps:
        return bits(x) == bits(y)
    return abs(bits(x) - bits(y)) <= ulps or math.isclose(x, y, rel_tol=1e-15 * ulps, abs_tol=1e-15)


def apply(module, name, *points):
    """Value and gradients, or the type of the error."""
    tensors = [module.Tensor(x) for x in points]
    try:
        result = OPERATORS[name](*tensors) if name in OPERATORS else getattr(tensors[0], name)(*tensors[1:])
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        return type(error)
    result.backward()
    return [result.data, *(t.grad for t in tensors)]


def same(name, *points):
    engine, twin = apply(fastscalar, name, *points), apply(reference, name, *points)
    if isinstance(engine, type) or isinstance(twin, type):
        assert engine is twin, (name, points, engine, twin)
    else:
        assert all(agree(x, y, name) for x, y in zip(engine, twin, strict=True)), (name, points, engine, twin)


@pytest.mark.parametrize("name", UNARY)
def test_engine_and_twin_agree_on_unary_functions(name):
    for x in POINTS:
        same(name, x)


@pytest.mark.parametrize("name", BINARY)
def test_engine_and_twin_agree_on_binary_functions(name):
    for x in POINTS:
        for y in POINTS:
            same(name, x, y)


# Away from kinks, poles and the ends of the domain; the step is a part of the point's size.
SMOOTH = {
    "asin": [0.3, -0.7, 0.9],
    "acos": [0.3, -0.7, 0.9],
    "atanh": [0.3, -0.7, 0.9],
    "acosh": [1.5, 3.0, 70.0],
    "log": [0.3, 2.0, 900.0],
    "log2": [0.3, 2.0, 900.0],
    "log10": [0.3, 2.0, 900.0],
    "sqrt": [0.3, 2.0, 900.0],
    "log1p": [-0.5, 0.3, 7.0],
    "tan": [0.37, -0.73, 1.2],
    "lgamma": [0.3, 2.5, 12.0, -1.4],
    "digamma": [0.3, 2.5, 12.0, -1.4],
}


def difference(f, x):
    h = 1e-3 * max(1e-2, min(abs(x), 1.0))
    return (f(x - 2 * h) - 8 * f(x - h) + 8 * f(x + h) - f(x + 2 * h)) / (12 * h)


@pytest.mark.parametrize("name", UNARY)
def test_unary_derivatives_against_fourth_order_differences(name):
    code = ROWS[name][0]
    for x in SMOOTH.get(name, [0.37, -0.73, 1.61, -2.42, 3.3]):
        _, slope = _core._value_and_slopes(code, x)
        expected = difference(lambda t: _core._value_and_slopes(code, t)[0], x)
        assert slope == pytest.approx(expected, rel=1e-8, abs=1e-9), (name, x)


@pytest.mark.parametrize("name", BINARY)
def test_binary_derivatives_against_fourth_order_differences(name):
    code = ROWS[name][0]
    for x, y in [(0.37, 1.31), (2.61, 0.73), (1.7, 2.3)]:
        _, by_left, by_right = _core._value_and_slopes(code, x, y)
        left = difference(lambda t, y=y: _core._value_and_slopes(code, t, y)[0], x)
        right = difference(lambda t, x=x: _core._value_and_slopes(code, x, t)[0], y)
        assert by_left == pytest.approx(left, rel=1e-8, abs=1e-9), (name, x, y)
        assert by_right == pytest.approx(right, rel=1e-8, abs=1e-9), (name, x, y)


def test_a_wrong_derivative_is_caught(monkeypatch):
    """The comparison of derivatives with differences can fail."""
    real = _core._value_and_slopes
    monkeypatch.setattr(_core, "_value_and_slopes", lambda *a: (real(*a)[0], real(*a)[1] * 1.0001))
    with pytest.raises(AssertionError):
        test_unary_derivatives_against_fourth_order_differences("sin")


@pytest.mark.parametrize("name", [n for n in UNARY if hasattr(math, n) and n not in ("floor", "ceil", "trunc")])
def test_values_and_errors_are_those_of_python(name):
    """Bit for bit where Python calls the C library; lgamma is Python's own."""
    for x in POINTS:
        try:
            expected = getattr(math, name)(x)
        except (ValueError, OverflowError) as error:
            with pytest.raises(type(error)):
                getattr(fastscalar.Tensor(x), name)()
        else:
            assert agree(getattr(fastscalar.Tensor(x), name)().data, expected, name), (name, x)


def test_every_row_is_a_method_of_tensors_and_arrays():
    for name in [*UNARY, *METHODS]:
        for cls in (fastscalar.Tensor, fastscalar.TensorArray, reference.Tensor):
            if not (cls is reference.TensorArray if hasattr(reference, "TensorArray") else False):
                assert hasattr(cls, name), (cls, name)


def test_an_array_gives_the_bits_of_its_elements():
    x = [0.3, 1.7, 2.5]
    for name in UNARY:
        if name not in ("asin", "acos", "atanh"):
            array = getattr(fastscalar.to_tensor([v + 1.0 for v in x]), name)()
            single = [getattr(fastscalar.Tensor(v + 1.0), name)().data for v in x]
            assert array.tolist() == single, name


def test_special_functions_at_known_points():
    """Against values of Abramowitz and Stegun, and of the functional equations."""
    t = fastscalar.Tensor
    assert t(1.0).digamma().data == pytest.approx(-0.57721566490153286, rel=1e-15)
    assert t(0.5).digamma().data == pytest.approx(-1.9635100260214235, rel=1e-15)
    assert t(0.0).ndtr().data == 0.5
    assert t(-40.0).ndtr().data == pytest.approx(3.655893540915029e-350, abs=5e-324)
    assert t(40.0).sigmoid().data == 1.0
    assert t(-800.0).sigmoid().data == 0.0
    assert t(-800.0).softplus().data == 0.0
    assert t(800.0).softplus().data == 800.0
    x = t(1.0)
    x.digamma().backward()
    assert x.grad == pytest.approx(math.pi**2 / 6, rel=1e-15)
