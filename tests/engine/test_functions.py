"""Every row of the operation table: engine and twin bit for bit, derivatives against differences, errors as `math`."""

import math
import struct
from fractions import Fraction

import pytest

import fastscalar
from fastscalar import reference
from fastscalar.engine import testing
from operations import BY_SERIES, ROWS, difference, operation

UNARY = [name for name, (_, arity) in ROWS.items() if arity == 1 and name != "neg"]
BINARY = [name for name, (_, arity) in ROWS.items() if arity == 2]
METHODS = [name for name in BINARY if name.isidentifier()]
POINTS = [
    0.3, -0.7, 0.9, 1.5, -2.5, 3.0, 7.75, -11.3, 40.0, -40.0, 1e-8, -1e-8, 1e-300, -1e-300, 1e8, -1e8, 1e200, -1e200,
    0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, math.inf, -math.inf, math.nan, 700.0, 710.0, -745.2,
]  # fmt: skip
# CPython has an lgamma and a gamma of its own: the last bits can differ from the C library's
LAST_BITS = {"lgamma": 8, "gamma": 8}


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
        result = operation(name)(*tensors)
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


def step(x):
    return 1e-3 * max(1e-2, min(abs(x), 1.0))


@pytest.mark.parametrize("name", UNARY)
def test_unary_derivatives_against_fourth_order_differences(name):
    code = ROWS[name][0]
    for x in SMOOTH.get(name, [0.37, -0.73, 1.61, -2.42, 3.3]):
        _, slope = testing.value_and_partials(code, x)
        expected = difference(lambda t: testing.value_and_partials(code, t)[0], x, step(x))
        assert slope == pytest.approx(expected, rel=1e-8, abs=1e-9), (name, x)


@pytest.mark.parametrize("name", [name for name in BINARY if name != "polygamma"])  # its order is a whole number
def test_binary_derivatives_against_fourth_order_differences(name):
    code = ROWS[name][0]
    for x, y in [(0.37, 1.31), (2.61, 0.73), (1.7, 2.3)]:
        _, by_left, by_right = testing.value_and_partials(code, x, y)
        left = difference(lambda t, y=y: testing.value_and_partials(code, t, y)[0], x, step(x))
        right = difference(lambda t, x=x: testing.value_and_partials(code, x, t)[0], y, step(y))
        assert by_left == pytest.approx(left, rel=1e-8, abs=1e-9), (name, x, y)
        assert by_right == pytest.approx(right, rel=1e-8, abs=1e-9), (name, x, y)


def test_a_wrong_derivative_is_caught(monkeypatch):
    """The comparison of derivatives with differences can fail."""
    real = testing.value_and_partials
    monkeypatch.setattr(testing, "value_and_partials", lambda *a: (real(*a)[0], real(*a)[1] * 1.0001))
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
            assert hasattr(cls, name), (cls, name)


def test_an_array_gives_the_bits_of_its_elements_or_a_series_of_them():
    x = [0.3, 1.7, 2.5]
    for name in UNARY:
        if name not in ("asin", "acos", "atanh"):
            array = getattr(fastscalar.to_tensor([v + 1.0 for v in x]), name)()
            for found, v in zip(array.tolist(), x, strict=True):
                single = getattr(fastscalar.Tensor(v + 1.0), name)().data
                assert abs(found - single) <= BY_SERIES.get(name, 0) * math.ulp(single), name


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


# --- sequences: one instruction here, a loop on the twin -------------------------------------------

XS = [0.3, -1.7, 2.5, 0.0, -0.25]
YS = [1.1, 0.7, -0.3, 2.0, 0.6]


@pytest.mark.parametrize("name", ["sum", "mean", "prod", "logsumexp", "norm", "softmax", "log_softmax"])
def test_reductions_have_the_bits_of_the_loop(name):
    for values in (XS, [800.0, 801.0], [3.0]):
        ours = [fastscalar.Tensor(x) for x in values]
        theirs = [reference.Tensor(x) for x in values]
        a = getattr(fastscalar, name)(ours)
        b = getattr(reference, name)(theirs)
        one, other = (a[0], b[0]) if isinstance(b, list) else (a, b)
        assert [t.data for t in a] == [t.data for t in b] if isinstance(b, list) else a.data == b.data
        one.backward()
        other.backward()
        for x, y in zip(ours, theirs, strict=True):
            assert x.grad == pytest.approx(y.grad, rel=1e-12, abs=1e-15), name


def test_dot_has_the_bits_of_the_loop(fs):
    xs, ys = [fs.Tensor(x) for x in XS], [fs.Tensor(y) for y in YS]
    expected = 0.0
    for x, y in zip(XS, YS, strict=True):
        expected = expected + x * y
    result = fs.dot(xs, ys)
    result.backward()
    assert result.data == expected
    assert [x.grad for x in xs] == YS
    assert [y.grad for y in ys] == XS


def test_reductions_of_arrays_and_of_nothing():
    a = fastscalar.to_tensor(XS)
    assert fastscalar.sum(a).data == a.sum().data
    assert fastscalar.mean(a).data == fastscalar.mean(list(a)).data
    assert fastscalar.max(a).data == 2.5
    assert fastscalar.min(a) is a[1]
    assert fastscalar.sum([]).data == 0.0
    for name in ("mean", "max", "min", "norm", "log_softmax"):
        with pytest.raises(ValueError, match="at least one"):
            getattr(fastscalar, name)([])
    with pytest.raises(ValueError, match="same length"):
        fastscalar.dot(a, [1.0])


def test_softmax_backward_as_a_whole_and_one_by_one():
    x = fastscalar.to_tensor(XS)
    weights = [1.0, -2.0, 0.5, 3.0, 0.25]
    p = fastscalar.softmax(x)
    (p * weights).sum().backward()
    whole = x.grad.tolist()
    q = fastscalar.softmax(x)
    (q[0] * 1.0 + q[1] * -2.0 + q[2] * 0.5 + q[3] * 3.0 + q[4] * 0.25).backward()
    assert x.grad.tolist() == pytest.approx(whole, rel=1e-13, abs=1e-16)


@pytest.mark.parametrize("name", ["sigmoid", "softplus", "silu", "gelu", "sign", "leaky_relu", "elu", "relu"])
def test_activations_take_tensors_arrays_and_numbers(name):
    f = getattr(fastscalar, name)
    expected = [f(fastscalar.Tensor(x)).data for x in XS]
    for found, single in zip(f(fastscalar.to_tensor(XS)).tolist(), expected, strict=True):
        assert abs(found - single) <= BY_SERIES.get(name, 0) * math.ulp(single)
    if name != "relu":
        assert [f(x) for x in XS] == expected
        assert [getattr(reference, name)(x) for x in XS] == expected


def test_clip_where_minimum_maximum(fs):
    x = fs.Tensor(7.0)
    y = fs.clip(x, 0, 5) + fs.where(x > 3, x * 2.0, 1.0) + fs.maximum(0, x) + fs.minimum(x, 100.0)
    y.backward()
    assert (y.data, x.grad) == (33.0, 4.0)
    a, b = fs.Tensor(2.0), fs.Tensor(2.0)
    fs.maximum(a, b).backward()
    assert (a.grad, b.grad) == (1.0, 0.0)
    with pytest.raises(TypeError, match="str"):
        fs.maximum(a, "2")


def test_the_number_protocol(fs):
    t = fs.Tensor(-2.75)
    assert sum([t, t, 1]).data == -4.5
    assert (int(t), round(t), round(t, 1), math.floor(t), math.ceil(t), math.trunc(t)) == (-2, -3, -2.8, -3, -2, -2)
    assert (f"{t:.1f}", f"{t}", abs(t).data, bool(t), bool(fs.Tensor(0.0))) == ("-2.8", repr(t), 2.75, True, False)
    assert [x.data for x in divmod(t, 2)] == list(divmod(-2.75, 2))
    assert [x.data for x in divmod(7, t)] == list(divmod(7, -2.75))
    assert ((t % 2).data, (t // 2).data, (7 % t).data, (7 // t).data) == (-2.75 % 2, -2.75 // 2, 7 % -2.75, 7 // -2.75)


def test_numpy_on_either_side():
    import numpy as np

    t = fastscalar.Tensor(0.5)
    assert isinstance(np.float64(2) * t, fastscalar.Tensor)
    assert isinstance(t * np.float32(2), fastscalar.Tensor)
    assert isinstance(np.int64(2) + t, fastscalar.Tensor)
    assert [x.data for x in np.array([1.0, 2.0]) * t] == [0.5, 1.0]
    assert [x.data for x in t * np.array([1.0, 2.0])] == [0.5, 1.0]
    objects = np.array([t, t * 2])
    assert (objects @ objects).data == 1.25
    assert np.dot(objects, objects).data == 1.25
    assert np.sum(objects).data == 1.5
    assert [x.data for x in np.exp(objects)] == [math.exp(0.5), math.exp(1.0)]
    assert np.exp(t).data == math.exp(0.5)
    assert np.maximum(objects, 0.75)[1] is objects[1]
    for name in ("arcsin", "arccos", "arctan", "arcsinh", "arctanh", "sqrt", "log", "sin", "tanh"):
        assert getattr(np, name)(t).data == pytest.approx(float(getattr(np, name)(0.5)), rel=1e-15), name
    assert np.arccosh(t + 1).data == math.acosh(1.5)


# --- fastscalar.math -------------------------------------------------------------------------------


def test_math_is_a_drop_in_for_numbers():
    ours = fastscalar.math
    for name in dir(math):
        if not name.startswith("_"):
            assert hasattr(ours, name), name
    for name in ("exp", "log", "sin", "sqrt", "floor", "lgamma", "gamma", "degrees", "fabs"):
        assert getattr(ours, name)(2.5) == getattr(math, name)(2.5)
        assert type(getattr(ours, name)(2.5)) is type(getattr(math, name)(2.5))
    assert ours.log(8, 2) == 3.0
    assert ours.pow(2, 3) == 8.0
    assert ours.hypot(3, 4, 12) == 13.0
    assert ours.atan2(1, -1) == math.atan2(1, -1)
    with pytest.raises(ValueError):
        ours.log(0.0)
    with pytest.raises(TypeError):
        ours.exp("1")


def test_math_records_tensors():
    ours, t = fastscalar.math, fastscalar.Tensor
    cases = [
        (lambda x: ours.log(x, 3.0), lambda x: math.log(x) / math.log(3.0)),
        (lambda x: ours.pow(x, 2.5), lambda x: x**2.5),
        (lambda x: ours.pow(2.0, x), lambda x: 2.0**x),
        (ours.gamma, math.gamma),
        (ours.fabs, math.fabs),
        (lambda x: ours.hypot(x, 2.0, 3.0), lambda x: math.hypot(x, 2.0, 3.0)),
        (lambda x: ours.dist([x, 1.0], [0.0, 3.0]), lambda x: math.dist([x, 1.0], [0.0, 3.0])),
        (lambda x: ours.fsum([x, x, 1.0]), lambda x: 2 * x + 1),
        (lambda x: ours.modf(x)[0], lambda x: math.modf(x)[0]),
        (lambda x: ours.ldexp(x, 3), lambda x: math.ldexp(x, 3)),
        (lambda x: ours.remainder(x, 0.7), lambda x: math.remainder(x, 0.7)),
        (lambda x: ours.atan2(x, 2.0), lambda x: math.atan2(x, 2.0)),
        (lambda x: ours.atan2(2.0, x), lambda x: math.atan2(2.0, x)),
    ]
    for k, (recorded, plain) in enumerate(cases):
        for x in (1.3, 2.6):
            leaf = t(x)
            y = recorded(leaf)
            y.backward()
            assert y.data == pytest.approx(plain(x), rel=1e-14), k
            assert leaf.grad == pytest.approx(difference(plain, x, step(x)), rel=1e-8), k
    assert [x.data for x in ours.exp(fastscalar.to_tensor([0.0, 1.0]))] == [1.0, math.e]
    x = t(-1.5)
    assert ours.gamma(x).data == pytest.approx(math.gamma(-1.5), rel=1e-14)


def test_polygamma_against_its_recurrence_in_exact_arithmetic():
    """psi_n(x) = psi_n(x + k) - (-1)^n n! (x^-(n+1) + ... + (x+k-1)^-(n+1)), also left of zero."""
    for n in (1, 2, 3, 5):
        for x in (0.3, 2.5, -0.53, -2.5075, -7.4786, 1e-3):
            y, so_far, scale = Fraction(x), Fraction(0), 0.0
            while y <= 40:
                term = -((-1) ** n) * math.factorial(n) / y ** (n + 1)
                so_far, y, scale = so_far + term, y + 1, max(scale, abs(float(term)))
            expected = float(so_far) + fastscalar.Tensor(float(y)).polygamma(n).data
            assert abs(fastscalar.Tensor(x).polygamma(n).data - expected) <= 4e-15 * scale, (n, x)
    assert fastscalar.Tensor(1.0).polygamma(3).data == pytest.approx(math.pi**4 / 15, rel=1e-15)
