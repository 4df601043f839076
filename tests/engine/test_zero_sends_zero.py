"""A gradient that is exactly zero contributes nothing, whatever the slope: in every pass, for every operation."""

from __future__ import annotations

import math
import struct
import warnings

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import _core, debug, reference
from fastscalar import math as fmath
from fastscalar.engine import _functions, testing
from operations import BY_SERIES

ROWS = {name: arity for _, name, arity, _ in _functions.operations()}
OPERATORS = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b,
    "**": lambda a, b: a**b, "%": lambda a, b: a % b, "//": lambda a, b: a // b, "neg": lambda a: -a,
}  # fmt: skip
NUMBERS = [0.0, -0.0, 1.0, -1.0, 0.5, -2.0, 3.0, 1e-320, 1e200, -1e200, math.inf, -math.inf, math.nan]


def operation(name):
    return OPERATORS.get(name) or (lambda *xs: getattr(xs[0], name)(*xs[1:]))


def harsh_points():
    """Every operation at the points where a slope of it is infinite or NaN although it has a value."""
    for code, name, arity, _ in _functions.operations():
        for x in NUMBERS:
            for y in NUMBERS if arity == 2 else [None]:
                point = (x,) if y is None else (x, y)
                try:
                    value = operation(name)(*[fs.Tensor(p) for p in point]).data
                except (ValueError, ArithmeticError):
                    continue
                slopes = testing.value_and_partials(code, *point)[1:]
                if not all(map(math.isfinite, slopes)):
                    yield name, point, value


HARSH = list(harsh_points())


# What may stand behind an operation so that it has no influence: f(y), with y the operation's value.
def above(y):
    return y.data + 1.0 + abs(y.data) if math.isfinite(y.data) else math.inf


IRRELEVANT = {
    "where": lambda m, y: m.where(y.data != y.data, y, m.Tensor(2.0) * 1.0),
    "relu": lambda m, y: (-abs(m.Tensor(y.data)) * 0.0 - 1.0 + (y - y.detach())).relu(),
    "maximum": lambda m, y: m.maximum(m.Tensor(above(y)), y),
    "minimum": lambda m, y: m.minimum(m.Tensor(-above(-y)), y),
    "clip": lambda m, y: m.clip(y, above(y), above(y) + 1.0),
    "detach": lambda m, y: y.detach() * 2.0,
    "times zero": lambda m, y: y * 0.0,
    "times minus zero": lambda m, y: y * -0.0,
    "floor": lambda m, y: y.floor(),
}
FINITE_ONLY = {"relu", "maximum", "minimum", "clip", "times zero", "times minus zero", "floor"}


def points(name, how):
    for other, point, value in HARSH:
        if other != name or (how in FINITE_ONLY and not math.isfinite(value)) or (how == "where" and value != value):
            continue
        yield point


def function(module, name, how):
    return lambda *xs: IRRELEVANT[how](module, operation(name)(*xs))


def test_there_are_many_such_points():
    assert len(HARSH) > 100
    assert {"sqrt", "log", "/", "**", "asin", "atanh", "cbrt", "*"} & {name for name, _, _ in HARSH} >= {"sqrt", "**"}


@pytest.mark.parametrize("name", sorted({name for name, _, _ in HARSH}))
@pytest.mark.parametrize("how", IRRELEVANT)
def test_what_has_no_influence_has_the_derivative_zero(name, how):
    f = function(fs, name, how)
    for point in points(name, how):
        zeros = [0.0] * len(point)
        for module in (fs, reference):
            xs = [module.Tensor(x) for x in point]
            y = function(module, name, how)(*xs)
            for x in xs:
                x.grad = 7.0
            y.backward()
            # what is not reached keeps what it had
            assert [x.grad for x in xs] == ([7.0] * len(xs) if how in ("detach", "where") else zeros), (module, point)

        xs = [fs.Tensor(x) for x in point]
        f(*xs).backward(create_graph=True)
        assert [float(x.grad) for x in xs] == zeros, point

        every = tuple(range(len(point)))
        assert list(fs.grad(f, every)(*point)) == zeros, point
        assert fs.jvp(f, point, tuple([1.0] * len(point)))[1] == 0.0, point
        assert fs.jvp(f, point, tuple(zeros))[1] == 0.0, point


@pytest.mark.parametrize("name", sorted({name for name, _, _ in HARSH}))
def test_a_zero_tangent_and_a_zero_weight(name):
    f = operation(name)
    for other, point, _ in HARSH:
        if other == name:
            zeros = [0.0] * len(point)
            assert fs.jvp(f, point, tuple(zeros))[1] == 0.0, point
            assert list(fs.vjp(f, *point)[1](0.0)) == zeros, point


CANCEL = {
    "t - t": lambda t: t - t,
    "t + -t": lambda t: t + -t,
    "t + (1 - t)": lambda t: t + (1.0 - t),
    "2 t - t - t": lambda t: 2.0 * t - t - t,
    "sum": lambda t: fs.sum([t, -t]),
    "dot": lambda t: fs.dot([t, t], [0.5, -0.5]),
    "through a custom operation": lambda t: ITSELF(t) - t,
}
ITSELF = fs.custom_op(lambda t: t * 1.0, lambda t: 1.0, name="itself")


@pytest.mark.dear
@pytest.mark.parametrize("name", sorted({name for name, _, _ in HARSH}))
@pytest.mark.parametrize("how", CANCEL)
def test_paths_that_cancel_before_a_steep_place(name, how):
    """Every mode says 0: adjoints cancel before they meet the slope, tangents would be inf - inf."""
    for other, point, _ in HARSH:
        if other != name:
            continue
        f = lambda *xs: CANCEL[how](operation(name)(*xs))
        every = tuple(range(len(point)))
        zeros = [0.0] * len(point)
        assert list(fs.grad(f, every)(*point)) == zeros, point
        for direction in (1.0, -3.0, 0.0):
            assert fs.jvp(f, point, (direction,) * len(point))[1] == 0.0, point
        # beside a path of its own, in one of several results, and where jvp is itself recorded
        f = lambda *xs: [xs[0] * 2.0, CANCEL[how](operation(name)(*xs)) + xs[0] * 5.0, operation(name)(*xs)]
        along = fs.jvp(f, point, (3.0,) * len(point))[1]
        assert along[:2] == [6.0, 15.0], point
        tensors = tuple(map(fs.Tensor, point))
        slope = fs.jvp(f, tensors, (fs.Tensor(3.0),) * len(point))[1][1]
        assert isinstance(slope, fs.Tensor)
        assert slope.data == 15.0, point


@pytest.mark.parametrize("name", sorted({name for name, _, _ in HARSH}))
def test_arrays_do_the_same(name):
    """One element has the harsh point, and a weight of zero; the other an ordinary one."""
    ordinary = [3.0, 2.0]
    for other, point, _ in HARSH:
        if other != name:
            continue
        columns = [fs.to_tensor([x, z]) for x, z in zip(point, ordinary, strict=False)]
        xs = [fs.Tensor(z) for _, z in zip(point, ordinary, strict=False)]
        if name in ("asin", "acos", "atanh"):
            columns, xs = [fs.to_tensor([point[0], 0.5])], [fs.Tensor(0.5)]
        operation(name)(*xs).backward()
        y = operation(name)(*columns)
        for whole in (fs.dot(y, [0.0, 1.0]), 0.0 * y[0] + y[1], fs.dot(y, [-0.0, 1.0])):
            whole.backward()
            assert [c.grad[0] for c in columns] == [0.0] * len(xs), point
            for c, x in zip(columns, xs, strict=True):
                assert abs(c.grad[1] - x.grad) <= BY_SERIES.get(name, 0) * math.ulp(max(1.0, abs(x.grad))), point


SECOND = [
    (lambda x: x * fmath.sin(x), 0.0, 2.0),
    (lambda x: fmath.sin(x) * fmath.sin(x), 0.0, 2.0),
    (lambda x: fs.relu(fmath.sqrt(x) - 1.0), 0.0, 0.0),
    (lambda x: fs.maximum(fmath.sqrt(x) - 1.0, x * x), 0.0, 2.0),
    (lambda x: fs.where(x > 0, x**0.5, 2 * x), 0.0, 0.0),
    (lambda x: fs.clip(fmath.sqrt(x), 1.0, 2.0) + x * x * x, 0.0, 0.0),
    (lambda x: x * x + fmath.sqrt(x) * 0.0, 0.0, 2.0),
    (lambda x: x * x * fmath.sqrt(x).detach(), 0.0, 0.0),
    (lambda x: fmath.exp(x) * x * x, 0.0, 2.0),
    (lambda x: x * (1.0 - fmath.cos(x)), 0.0, 0.0),
    (lambda x: (x * fmath.sin(x)) * (x * fmath.sin(x)) + x * x, 0.0, 2.0),
]


@pytest.mark.parametrize(("f", "x", "second"), SECOND)
def test_second_derivatives(f, x, second):
    """A numerical zero keeps its edge: it may change with x; only what is zero by structure is left out."""
    assert fs.hessian(f)(x) == second
    assert fs.grad(fs.grad(f))(x) == second
    assert fs.hvp(f, x, 3.0) == 3.0 * second
    t = fs.Tensor(x)
    f(t).backward(create_graph=True)
    slope = t.grad
    t.grad = 0.0  # what is not reached keeps what it has
    slope.backward()
    assert t.grad == second


def test_third_and_fourth_derivatives_through_zeros():
    f = lambda x: x * fmath.sin(x)
    assert fs.grad(fs.grad(fs.grad(f)))(0.0) == 0.0
    assert fs.grad(fs.grad(fs.grad(fs.grad(f))))(0.0) == -4.0


def test_the_documented_cases():
    for f, x, slope in [
        (lambda x: fs.where(x > 0, x**0.5, 2 * x), 0.0, 2.0),
        (lambda x: max(fmath.sqrt(x) - 1, x), 0.0, 1.0),
        (lambda x: x * fmath.sqrt(x).detach(), 0.0, 0.0),
        (lambda x: fs.relu(fmath.sqrt(x) - 1.0), 0.0, 0.0),
        (lambda x: fs.clip(fmath.log(x + 1.0), 1.0, 2.0) + 3.0 * x, 0.0, 3.0),
        (lambda x: fs.minimum(x * 5.0, fmath.sqrt(x) + 1.0), 0.0, 5.0),
    ]:
        assert fs.grad(f)(x) == slope
        t = fs.Tensor(x)
        f(t).backward()
        assert t.grad == slope
        f(t).backward(create_graph=True)
        assert t.grad.data == slope
        assert fs.jvp(f, x, 1.0)[1] == slope


def test_what_is_not_zero_still_meets_infinity():
    for module in (fs, reference):
        x = module.Tensor(0.0)
        (x.sqrt() * 1e-300).backward()
        assert x.grad == math.inf
        a, b = module.Tensor(math.nan), module.Tensor(1.0)
        (a * b).backward()
        assert math.isnan(b.grad)
        g = module.Tensor(3.0)
        (g * math.nan).backward()
        assert math.isnan(g.grad)
        y = g * 2.0  # NaN from above is not zero
        z = y * math.nan
        z.backward()
        assert math.isnan(g.grad)
        assert math.isnan(y.grad)


# --- layers: zeros in the gradient of an output against weights and inputs that are not finite -----


@pytest.mark.parametrize("kernels", _core.kernel_sets())
@pytest.mark.parametrize("cols", [1, 3, 8, 10, 31, 32, 45])
@pytest.mark.parametrize("rows", [0, 1, 4])
@pytest.mark.parametrize("kind", ["arrays", "lists"])
def test_a_linear_layer(kernels, cols, rows, kind):
    """Against the definition, element by element: sum of send(g, slope); x has no zero entry."""
    rng = np.random.default_rng(cols)
    inner = 5
    W, b = rng.normal(size=(inner, cols)), rng.normal(size=cols)
    X = rng.normal(size=(max(rows, 1), inner))
    G = rng.normal(size=(max(rows, 1), cols))
    G[:, ::2] = 0.0
    W[1, 0], W[2, 0] = math.inf, math.nan
    X[0, 3], X[-1, 4] = math.inf, -math.inf
    if cols > 5:
        W[3, 1], W[0, 5] = -math.inf, math.nan

    def send(g, s):
        return 0.0 if g == 0.0 else g * s

    dW = [[sum(send(G[r, i], X[r, j]) for r in range(len(X))) for i in range(cols)] for j in range(inner)]
    dX = [[sum(send(G[r, i], W[j, i]) for i in range(cols)) for j in range(inner)] for r in range(len(X))]
    _core._select_kernels(kernels)
    try:
        linear = fs.Linear(inner, cols, seed=0)
        linear.w.data, linear.b.data = W, b
        x = fs.to_tensor(X if rows else X[0])
        if kind == "lists":
            linear.w = [[t + 0.0 for t in row] for row in linear.w]
            given = [[t + 0.0 for t in row] for row in x] if rows else [t + 0.0 for t in x]
        else:
            given = x
        y = linear(given)
        weights = fs.to_tensor(G if rows else G[0])
        for root in ((y * weights.detach()).sum(), one_by_one(y, G if rows else G[0])):
            root.backward()
            w_grad = linear.w.grad if kind == "arrays" else [[t.grad for t in row] for row in linear.w]
            same(w_grad, dW)
            same(x.grad, dX if rows else dX[0])
            same(linear.b.grad, G.sum(axis=0))
        if kind == "arrays":
            (y * weights.detach()).sum().backward()
            before = linear.w.numpy()
            fs.sgd([linear.w], 1.0)  # of the factored gradient, where there is one
            with np.errstate(invalid="ignore"):  # inf - inf
                same(linear.w.data, before - np.array(dW))
    finally:
        _core._select_kernels(None)


def one_by_one(y, G):
    """The same number, each output reached alone."""
    total = 0.0
    for out, g in zip(y, G, strict=True):
        if isinstance(out, fs.Tensor):
            total = total + out * float(g)
        else:
            total = total + one_by_one(out, g)
    return total


def same(found, expected):
    np.testing.assert_allclose(np.array(found), np.array(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_sums_and_losses(bad):
    a = fs.to_tensor([bad, 1.0, 2.0])
    for f in (
        lambda: fs.dot(a, a), lambda: fs.dot(a, [1.0, 2.0, 3.0]), lambda: fs.logsumexp(a), lambda: fs.softmax(a)[1],
        lambda: fs.softmax(a).sum(), lambda: fs.squared_loss(a, [0.0, 0.0, 0.0]), lambda: fs.cross_entropy(a, 1),
        lambda: fs.norm(a), lambda: fs.log_softmax(a)[0], lambda: fs.prod(a), lambda: fs.mean(a),
    ):  # fmt: skip
        y = f()
        kept = fs.where(False, y, fs.Tensor(1.0))
        assert kept.data == 1.0
        chosen = fs.Tensor(2.0)
        for root in (y.detach() + chosen, y.sign() + chosen):
            a.grad = 3.0
            root.backward()
            assert np.all(np.isin(a.grad, [0.0, 3.0])), root  # what is not reached keeps what it had
        assert chosen.grad == 1.0


# --- an infinite gradient meets a slope of zero -------------------------------------------------------------------

# By the value that they have at 0 or 1: operations whose slope there is zero, and ones whose slope is infinite.
FLAT = {
    "times 0": (lambda m, x: x * 0.0, 3.0, 0.0),
    "0 times": (lambda m, x: 0.0 * x, -2.0, 0.0),
    "by a Tensor that is 0": (lambda m, x: x * m.Tensor(0.0), 1.5, 0.0),
    "square": (lambda m, x: x * x, 0.0, 0.0),
    "power": (lambda m, x: x**3, 0.0, 0.0),
    "power of a difference": (lambda m, x: (x - 2.0) ** 2, 2.0, 0.0),
    "cos": (lambda m, x: x.cos(), 0.0, 1.0),
    "cosh": (lambda m, x: x.cosh(), 0.0, 1.0),
    "relu": (lambda m, x: x.relu(), -1.0, 0.0),
    "floor": (lambda m, x: x.floor(), 1.5, 1.0),
    "sign": (lambda m, x: x.sign(), 2.0, 1.0),
    "maximum": (lambda m, x: m.maximum(x, m.Tensor(1.0)), 0.5, 1.0),
    "tanh": (lambda m, x: x.tanh(), 40.0, 1.0),
    "sigmoid": (lambda m, x: x.sigmoid(), -800.0, 0.0),
    "quotient": (lambda m, x: x / math.inf, 2.0, 0.0),
    "of infinity": (lambda m, x: (-x).exp(), math.inf, 0.0),
    "dot": (lambda m, x: m.dot([x, x], [0.0, -0.0]), 2.0, 0.0),
    "two factors": (lambda m, x: (x * 0.0) * x, 2.0, 0.0),
}
STEEP = {
    "sqrt": (lambda m, y: y.sqrt(), 0.0),
    "power": (lambda m, y: y**0.25, 0.0),
    "cbrt": (lambda m, y: y.cbrt(), 0.0),
    "asin": (lambda m, y: y.asin(), 1.0),
    "acos": (lambda m, y: y.acos(), 1.0),
    "acosh": (lambda m, y: y.acosh(), 1.0),
    "times infinity": (lambda m, y: y * math.inf, None),
    "weighted": (lambda m, y: (y - y.data).sqrt() * m.Tensor(-2.0), None),
}
PAIRS = [(s, f) for s, (_, at) in STEEP.items() for f, (_, _, value) in FLAT.items() if at in (None, value)]


def is_defined(f, v):
    try:
        return math.isfinite(fs.grad(f)(v))
    except (ValueError, ArithmeticError):
        return False


@pytest.mark.parametrize(("steep", "flat"), PAIRS)
def test_nothing_passes_a_slope_of_zero(steep, flat):
    inner, point, _ = FLAT[flat]
    outer = STEEP[steep][0]
    for module in (fs, reference):
        x = module.Tensor(point)
        x.grad = 7.0
        outer(module, inner(module, x)).backward()
        assert x.grad == 0.0, module
    if steep == "weighted":  # reads a number
        return
    f = lambda t: outer(fs, inner(fs, t))
    x = fs.Tensor(point)
    f(x).backward(create_graph=True)
    assert x.grad.data == 0.0
    assert fs.grad(f)(point) == 0.0
    assert fs.jvp(f, point, 1.0)[1] == 0.0
    assert fs.jvp(f, point, -3.0)[1] == 0.0
    leaf = fs.Tensor(point)
    for n in (1, 40):
        with warnings.catch_warnings():
            warnings.simplefilter("error", fs.CompileWarning)
            _, gradients = fs.compile(f).value_and_grad(np.full(n, point))
            fs.compile(lambda s: f(leaf) * s).backward(np.ones(n))
        assert not gradients.any()
        assert leaf.grad == 0.0
        # beside rows to which nothing happens
        other = next((v for v in (0.7, 0.0, 1.7, 40.5) if is_defined(f, v)), point)
        both = np.where(np.arange(n) % 3, other, point)
        right = [fs.grad(f)(v) for v in both]
        np.testing.assert_allclose(fs.compile(f).value_and_grad(both)[1], right, rtol=1e-12)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_nothing_passes_weights_and_inputs_that_are_zero(bad):
    w = fs.to_tensor([[0.0, 1.0], [2.0, 0.0], [-0.0, -1.0]])
    net = fs.Linear(3, 2)
    net.w.data, net.b.data = w.numpy(), 0.0
    x = fs.to_tensor([1.0, 0.0, 2.0])
    (net(x)[0] * bad).backward()
    assert x.grad[0] == x.grad[2] == 0.0
    assert not math.isfinite(x.grad[1])
    assert net.w.grad[1, 0] == 0.0
    assert np.isfinite(net.w.grad).tolist() == [[False, True], [True, True], [False, True]]
    f = lambda row: (sum(row[i] * w[i][0] for i in range(3)) + sum(row[i] * w[i][1] for i in range(3)) * 0.0) * bad
    g = lambda row: net(row)[0] * bad
    for function, leaf in ((f, w), (g, net.w)):
        p = fs.compile(function)
        with np.errstate(invalid="ignore"):
            _, gradients = p.value_and_grad(np.array([[1.0, 0.0, 2.0], [0.5, 0.0, 0.0]]))
        p.backward(np.array([[1.0, 0.0, 2.0]]))
        assert (gradients[:, [0, 2]] == 0.0).all()
        assert not np.isfinite(gradients[:, 1]).any()
        assert leaf.grad[1, 0] == 0.0


@pytest.mark.parametrize("name", [name for name, arity in ROWS.items() if arity == 1])
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_arrays_programs_and_scalars_pass_the_same_on(name, bad):
    """Of an infinite or NaN gradient, at every point, slopes of zero among them."""
    f = operation(name)
    numbers = []
    for x in NUMBERS:
        try:
            if math.isfinite(f(fs.Tensor(x)).data):
                numbers.append(x)
        except (ValueError, ArithmeticError):
            continue
    right = []
    for module in (fs, reference):
        xs = [module.Tensor(x) for x in numbers]
        for x in xs:
            (f(x) * bad).backward()
        right.append([x.grad for x in xs])
    np.testing.assert_array_equal(*right)
    row = fs.to_tensor(numbers)
    for weighted in (fs.dot(f(row), [bad] * len(numbers)), fs.sum(f(row) * bad), fs.sum([f(e) * bad for e in row])):
        weighted.backward()
        np.testing.assert_array_equal(row.grad, right[0])
    of_number, of_row = fs.compile(lambda x: f(x) * bad), fs.compile(lambda x: fs.sum(f(x) * bad))
    np.testing.assert_array_equal(of_number.value_and_grad(np.array(numbers))[1], right[0])
    np.testing.assert_array_equal(of_row.value_and_grad(np.array([numbers] * 3))[1], [right[0]] * 3)
    np.testing.assert_array_equal([fs.grad(lambda x: f(x) * bad)(x) for x in numbers], right[0])
    np.testing.assert_array_equal([fs.jvp(lambda x: f(x) * bad, x, 1.0)[1] for x in numbers], right[0])


def test_paths_are_added_up_as_numbers_are():
    for module in (fs, reference):
        x = module.Tensor(0.0)
        ((x * 2.0).sqrt() - (x * 3.0).sqrt()).backward()
        assert math.isnan(x.grad)
        y = module.Tensor(1.0)
        (y * 0.0 + y).sqrt().backward()
        assert y.grad == 0.5


def test_softmax_with_some_zero_gradients():
    x = fs.to_tensor([0.0, 1.0, -1.0])
    p = fs.softmax(x)
    (p[0] * 0.0 + p[1]).backward()
    one = np.array(x.grad)
    fs.softmax(x)[1].backward()
    np.testing.assert_array_equal(one, x.grad)


# --- operations of the user's own -----------------------------------------------------------------


def test_a_custom_operation_is_not_asked():
    calls = []

    def derivatives(x):
        calls.append(x)
        return 1.0 / x if isinstance(x, fs.Tensor) or x else math.inf

    root = fs.custom_op(lambda x: x**0.5, derivatives, name="root")
    x = fs.Tensor(0.0)
    x.grad = 5.0
    (root(x) * 0.0).backward()
    assert x.grad == 0.0
    fs.relu(root(x) - 1.0).backward()
    assert x.grad == 0.0
    fs.relu(root(x) - 1.0).backward(create_graph=True)
    assert x.grad.data == 0.0
    (root(x) * 0.0).backward(create_graph=True)
    assert x.grad.data == 0.0
    assert fs.jvp(lambda t: root(t), 0.0, 0.0)[1] == 0.0
    root(x).backward()
    assert x.grad == math.inf
    assert calls
    flat = fs.custom_op(lambda x: x * 0.0, lambda x: 0.0, name="flat")
    for how in ({}, {"create_graph": True}):
        root(flat(x)).backward(**how)
        assert float(x.grad) == 0.0
    calls.clear()                                # Tensors whose gradients are Tensors: nobody would see that they went


@pytest.mark.parametrize("module", [fs, reference])
def test_a_handwritten_step_still_runs(module):
    seen = []
    x = module.Tensor(3.0)
    out = module.Tensor(9.0, (x,), "mine")

    def step():
        seen.append(out.grad)
        x.grad += 6.0 * out.grad

    out._backward = step
    x.grad = 8.0
    (out * 0.0).backward()
    assert seen == [0.0]
    assert x.grad == 0.0


# --- detect_anomaly -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: fs.Tensor(0.0).sqrt() * 0.0, "sqrt"),
        (lambda: fs.relu(fs.Tensor(0.0).cbrt() - 1.0), "cbrt"),
        (lambda: (fs.Tensor(0.0) ** 0.5) * 0.0, r"\*\*"),
        (lambda: (fs.Tensor(math.inf) * fs.Tensor(2.0)).sign(), r"\*"),
        (lambda: (fs.to_tensor([0.0, 1.0]).sqrt() * 0.0).sum(), "sqrt"),
        (lambda: fs.dot(fs.to_tensor([0.0, math.inf]), fs.to_tensor([1.0, 1.0])).sign(), "dot"),
        (lambda: (fs.Linear(2, 3, seed=0)(fs.to_tensor([math.inf, 1.0])) * 0.0).sum(), "linear"),
    ],
)
def test_detect_anomaly_reports_it(make, name):
    with debug.detect_anomaly():
        y = make()
        with pytest.warns(RuntimeWarning, match=f"backward of {name}: a gradient of 0 met a slope of"):
            y.backward()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(RuntimeWarning, match="test_zero_sends_zero"):
                y.backward()
    testing.check()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y.backward()


def test_detect_anomaly_has_nothing_to_report_of_constants():
    with debug.detect_anomaly(), warnings.catch_warnings():
        warnings.simplefilter("error")
        x = fs.Tensor(0.0)
        ((x + 1.0) ** 2.0 * 0.0).backward()
        fs.relu(x - 1.0).backward()


def test_minus_zero_is_zero():
    x = fs.Tensor(0.0)
    y = x.sqrt() * -1.0 * 0.0
    y.backward()
    assert struct.pack("<d", x.grad) == struct.pack("<d", 0.0)


# --- and the sign of a zero that a user has set ---


def of_leaves(module, a):
    return [module.Tensor(a), module.Tensor(1.0)]


def of_results(module, a):
    return [x * 1.0 for x in of_leaves(module, a)]


def of_elements(module, a):
    return list(module.to_tensor([a, 1.0]))


def one_twice(module, a):
    return [module.Tensor(a)] * 2


@pytest.mark.parametrize("make", [of_leaves, of_results, of_elements, one_twice])
@pytest.mark.parametrize("passed", [0.0, -0.0, 2.0, -2.0, -1e-320])
@pytest.mark.parametrize("name", sorted(ROWS))
def test_what_is_added_to_has_no_minus_zero(name, passed, make):
    """-0.0 in `.grad` becomes 0.0 by any contribution: by the step of one operation, and by a pass that accumulates."""
    found = []
    for module in (fs, reference):
        operands = make(module, {"acosh": 1.5, "gamma": 1.5, "polygamma": 1.0}.get(name, 0.5))[: ROWS[name]]
        y = operation(name)(*operands)
        for x in operands:
            x.grad = -0.0
        y.grad = passed
        y._backward()
        found.append([struct.pack("<d", x.grad) for x in operands])
        for x in operands:
            x.grad = -0.0
        (y * passed).backward(accumulate=True)
        found[-1] += [struct.pack("<d", x.grad) for x in operands]
        assert struct.pack("<d", -0.0) not in found[-1]
    assert found[0] == found[1]
