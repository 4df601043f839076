"""Array operations as instructions: on the tape, in programs, of higher orders, with arrays of other libraries."""

from __future__ import annotations

import itertools
import math
import statistics
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastscalar as fs
from fastscalar.engine import testing
from idioms import IDIOMS, number, points

PAIRS = hnp.mutually_broadcastable_shapes(num_shapes=2, min_dims=1, max_dims=4, min_side=1, max_side=4)
OPERATORS = [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / b, lambda a, b: a ** (b * b),
             np.maximum, np.hypot, np.arctan2]  # fmt: skip


def drawn(shape, k):
    return np.random.default_rng(k).uniform(0.5, 2.0, shape)


def of_objects(f, *arrays):
    """Values and gradients of NumPy with arrays of Tensors: each element by itself."""
    tensors = [np.vectorize(fs.Tensor, otypes=[object])(a) for a in arrays]
    out = np.asarray(f(*tensors), dtype=object)
    loss = sum((t * math.cos(k) for k, t in enumerate(out.ravel().tolist())), fs.Tensor(0.0))
    loss.backward()
    value = np.vectorize(lambda t: t.data, otypes=[float])
    return value(out), [np.vectorize(lambda t: t.grad, otypes=[float])(t) for t in tensors]


def of_arrays(f, *arrays):
    leaves = [fs.to_tensor(a) for a in arrays]
    out = f(*leaves)
    (out * np.cos(np.arange(out.size)).reshape(out.shape)).sum().backward()
    return out.numpy(), [np.asarray(x.grad) for x in leaves]


@settings(max_examples=120, deadline=None)
@given(PAIRS, st.sampled_from(OPERATORS), st.permutations(range(4)), st.booleans())
def test_broadcast_operations_are_those_of_the_elements(shapes, operator, order, turned):
    a, b = (drawn(shape, k) for k, shape in enumerate(shapes.input_shapes))

    def f(a, b):
        if turned:
            a = a.transpose([d for d in order if d < a.ndim])[::-1]
            if a.shape != shapes.input_shapes[0]:
                a = a.reshape(shapes.input_shapes[0])
        return operator(a, b)

    value, gradients = of_objects(f, a, b)
    found, slopes = of_arrays(f, a, b)
    assert found == pytest.approx(value, rel=1e-15, abs=0.0)
    for got, wanted in zip(slopes, gradients, strict=True):
        assert got == pytest.approx(wanted, rel=1e-12, abs=1e-13)


@settings(max_examples=80, deadline=None)
@given(hnp.array_shapes(min_dims=1, max_dims=4, max_side=3), st.data())
def test_sums_along_axes_are_those_of_the_elements(shape, data):
    every = range(len(shape))
    axes = data.draw(st.sampled_from([c for n in range(1, len(shape) + 1) for c in itertools.combinations(every, n)]))
    keep = data.draw(st.booleans())
    name = data.draw(st.sampled_from(["sum", "prod", "max", "min"]))
    order = data.draw(st.permutations(range(len(shape))))
    x = np.random.default_rng(len(shape)).permutation(np.linspace(0.5, 2.0, int(np.prod(shape)))).reshape(shape)

    def f(x):
        return getattr(x.transpose(order), name)(axis=axes, keepdims=keep)

    wanted = f(x)
    leaf = fs.to_tensor(x)
    found = f(leaf)
    assert np.shape(wanted) == getattr(found, "shape", ())
    assert (found.numpy() if wanted.ndim else found.data) == pytest.approx(wanted, rel=1e-14)
    _value, (slopes,) = of_objects(f, x)
    weights = np.cos(np.arange(wanted.size)).reshape(wanted.shape)
    (found * weights).sum().backward() if wanted.ndim else (found * 1.0).backward()
    assert np.asarray(leaf.grad) == pytest.approx(slopes, rel=1e-12, abs=1e-13)


@pytest.mark.parametrize("kept", [1, 2, 5])
def test_some_outputs_of_an_operation_reach_what_they_were_computed_from_alone(kept):
    n = drawn((6, 4), 3)
    for make in (lambda x: x.sum(axis=1), lambda x: x @ np.ones((4, 2)), lambda x: x.T @ np.ones(6),
                 lambda x: np.prod(x, axis=1), lambda x: np.cumsum(x, axis=1), lambda x: x[[0, 1, 5]],
                 lambda x: x * np.ones(4), lambda x: x - x[:, :1]):  # fmt: skip
        x, objects = fs.to_tensor(n), np.vectorize(fs.Tensor, otypes=[object])(n)
        x.grad = 7.0
        for t in objects.flat:
            t.grad = 7.0
        fs.sum(list(make(x).flat)[:kept]).backward()
        fs.sum(make(objects).ravel().tolist()[:kept]).backward()
        wanted = np.vectorize(lambda t: t.grad, otypes=[float])(objects)
        assert np.asarray(x.grad) == pytest.approx(wanted, rel=1e-13)
        testing.check()


@pytest.mark.parametrize(
    "spec", ["ij,ij->", "ji,j->i", "ji,ji->", "ij,ji->", "ji,jk->ik", "ij,ij->j", "j,ji->i", "ijk,j->ik"]
)
def test_products_in_every_order_of_their_axes(spec):
    lengths = {"i": 3, "j": 4, "k": 2}
    left, right = ([lengths[c] for c in part] for part in spec.partition("->")[0].split(","))
    a, b = drawn(left, 1), drawn(right, 2)
    value, gradients = of_objects(lambda a, b: np.einsum(spec, a, b), a, b)
    x, y = fs.to_tensor(a), fs.to_tensor(b)
    out = np.einsum(spec, x, y)
    (out * np.cos(np.arange(value.size)).reshape(value.shape)).sum().backward() if value.ndim else out.backward()
    assert (out.numpy() if value.ndim else out.data) == pytest.approx(value, rel=1e-14)
    for leaf, wanted in zip((x, y), gradients, strict=True):
        assert np.asarray(leaf.grad) == pytest.approx(wanted, rel=1e-12)


def test_an_array_operation_is_one_instruction_and_its_elements_are_scalars():
    X, W = fs.to_tensor(drawn((5, 4), 1)), fs.to_tensor(drawn((4, 3), 2))
    for make in (lambda: X @ W, lambda: W.T @ X.T, lambda: X.sum(axis=0), lambda: X + X[0], lambda: X.max(axis=1),
                 lambda: np.einsum("ij,jk->k", X, W), lambda: X[X > 1.0], lambda: np.stack([X, X]),
                 lambda: np.cumsum(X, axis=0), lambda: X[:, ::-1].T.copy(), lambda: X[:, None] * X):  # fmt: skip
        testing.collect()
        before = fs.tape_info()["wide_instructions"]
        made = make()
        assert fs.tape_info()["wide_instructions"] == before + 1
        assert made.size > 1
    y = (X @ W)[1, 2]
    assert y._op == "@"
    assert y._parents == (*X[1], *W[:, 2])
    s = X.sum(axis=0)[1]
    assert all(p is q for p, q in zip(s._parents, X[:, 1], strict=True))
    m = (X + X[0])[2, 1]
    assert m._parents[0] is X[2, 1]
    assert m._parents[1] is X[0, 1]
    y.backward()
    assert X[1, 0].grad == W[0, 2].data
    assert W[3, 2].grad == X[1, 3].data


def loops(x, W):
    out = []
    for i in range(x.shape[0]):
        for j in range(W.shape[1]):
            s = 0.0
            for k in range(x.shape[1]):
                s = s + x[i, k] * W[k, j]
            out.append(s)
    return fs.sum([fs.math.tanh(s) for s in out])


def test_a_product_and_three_loops_give_the_same_program():
    W = fs.to_tensor(drawn((6, 4), 5) - 1.0)
    rows = drawn((7, 2, 6), 6)
    by_loops = fs.compile(lambda x: loops(x, W))
    by_product = fs.compile(lambda x: fs.sum(np.tanh(x @ W).ravel()))
    by_einsum = fs.compile(lambda x: np.tanh(np.einsum("ij,jk->ik", x, W)).sum())
    values = by_loops.map(rows)
    for program in (by_product, by_einsum):
        assert program.map(rows) == pytest.approx(values, rel=1e-13)
        assert program.report() == by_loops.report()
    by_product.backward(rows)
    slopes = W.grad.copy()
    by_loops.backward(rows)
    assert np.asarray(W.grad) == pytest.approx(slopes, rel=1e-12)


def test_zero_times_infinity_is_nan_in_a_product_as_in_loops():
    W = np.array([[np.inf, 1.0], [2.0, 3.0]])
    x = np.array([0.0, 1.0])
    for product in (fs.to_tensor(x) @ W, x @ fs.to_tensor(W), fs.to_tensor(x) @ fs.to_tensor(W), fs.to_tensor(W).T @ x):
        value = product.numpy()
        assert np.isnan(value[0])
        assert value[1] == 3.0


@pytest.mark.parametrize("name", ["variance", "transposed_product", "product_axis", "softmax_rows", "einsum_three",
                                  "determinant", "solved_vector", "running_sum_axis_0", "norm_of_rows", "maximum_axis",
                                  "by_list", "assigned_in_a_copy", "gaussian"])  # fmt: skip
def test_second_derivatives(name):
    f, (A, S, v) = number(IDIOMS[name]), points(9)
    H = fs.hessian(lambda A: f(A, S, v))(A)
    slope = fs.grad(lambda A: f(A, S, v))
    step = 1e-5
    for at in ((0, 0), (2, 3)):
        high, low = A.copy(), A.copy()
        high[at] += step
        low[at] -= step
        assert H[at] == pytest.approx((slope(high) - slope(low)) / (2 * step), rel=1e-5, abs=1e-7)


def test_the_determinant_of_a_singular_matrix_has_its_derivatives():
    for n in (2, 3, 4, 5):
        a = np.eye(n)
        a[n - 1, n - 1] = 0.0
        assert fs.grad(np.linalg.det)(a) == pytest.approx(np.diag([0.0] * (n - 1) + [1.0]))
    with pytest.raises(np.linalg.LinAlgError, match="singular"):
        np.linalg.solve(fs.to_tensor(np.ones((2, 2))), fs.to_tensor([1.0, 2.0]))


@pytest.mark.parametrize(("call", "says"), [
    (lambda x: np.unique(x), "np.unique"), (lambda x: np.fft.fft(x), "np.cos"), (lambda x: np.put(x, 1, 0), r"a\.copy"),
    (lambda x: np.linalg.svd(x[None]), "svd"), (lambda x: np.unwrap(x), "unwrap"),
    (lambda x: x.astype(int), "numpy"),
    (lambda x: np.add.at(x, [0], 1.0), r"a\.copy"), (lambda x: np.exp(x, out=np.empty(3)), "cannot hold"),
    (lambda x: np.sum(x, dtype=np.float32), "dtype"), (lambda x: np.copyto(np.zeros(3), x), "cannot hold"),
    (lambda x: np.quantile(x, x), "numbers q"), (lambda x: np.histogram(x), "histogram"),
])  # fmt: skip
def test_what_is_not_there_is_a_type_error_that_names_what_to_write(call, says):
    with pytest.raises(TypeError, match=says):
        call(fs.to_tensor([1.0, 2.0, 3.0]))


def test_arrays_are_keys_and_members_by_identity():
    a, b = fs.to_tensor([1.0, 2.0]), fs.to_tensor([1.0, 2.0])
    assert len({a, b, a}) == 2
    assert {a: 1, b: 2}[a] == 1
    optimizer = fs.Adam([a, b], lr=0.1)
    (a * b).sum().backward()
    optimizer.step()
    assert a.tolist() == pytest.approx([0.9, 1.9])


# --- numbers --------------------------------------------------------------------------------------


def test_what_numpy_asks_of_a_number():
    t = fs.Tensor(2.5)
    for f, slope in ((np.rint, 0.0), (np.fabs, 1.0), (np.deg2rad, math.pi / 180), (np.rad2deg, 180 / math.pi),
                     (lambda t: np.round(t, 1), 0.0), (lambda t: np.logaddexp(t, 1.0), 1 / (1 + math.exp(-1.5))),
                     (lambda t: np.interp(t, [0.0, 3.0], [0.0, 6.0]), 2.0), (np.exp, math.exp(2.5))):  # fmt: skip
        y = f(t)
        assert type(y) is fs.Tensor
        assert y.data == pytest.approx(float(f(2.5)), rel=1e-14)
        y.backward()
        assert t.grad == pytest.approx(slope, rel=1e-14)
    assert (np.isnan(t), np.isfinite(t), np.isinf(fs.Tensor(math.inf))) == (False, True, True)
    assert (t.real is t, t.imag, t.conjugate() is t) == (True, 0.0, True)
    assert (t.is_integer(), fs.Tensor(3).is_integer()) == (False, True)
    assert (t.as_integer_ratio(), t.hex()) == ((5, 2), 2.5.hex())
    with pytest.warns(fs.GradientLossWarning):
        assert statistics.mean([t, fs.Tensor(3.5)]) == 3.0
    assert (np.array([1.0, 2.0]) * t).dtype == object
    assert [x.data for x in np.logaddexp(np.array([1.0]), t)] == [np.logaddexp(1.0, 2.5)]


def test_the_statistics_module_says_what_keeps_the_gradient():
    x = [fs.Tensor(v) for v in (1.0, 2.0, 6.0)]
    with pytest.warns(fs.GradientLossWarning, match="fs.mean"):
        assert float(statistics.mean(x)) == 3.0
    assert x[0].as_integer_ratio() == (1, 1)
    y = fs.mean(x)
    y.backward()
    assert x[1].grad == pytest.approx(1 / 3)


def test_the_second_argument_has_the_names_of_other_libraries():
    a, b = fs.Tensor(2.0), fs.Tensor(3.0)
    for made in (fs.Tensor(6.0, (a, b), "*"), fs.Tensor(6.0, _children=(a, b)), fs.Tensor(6.0, _prev=(a, b))):
        assert made._prev == (a, b)
    with pytest.raises(TypeError):
        type("Own", (fs.Tensor,), {})


# --- other libraries ------------------------------------------------------------------------------


class Other:
    """What says of itself that it is an array."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


class Exchanged:
    """What only knows DLPack."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def __dlpack__(self, **options):
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


def kinds():
    yield Other
    yield Exchanged
    yield from (("torch", "tensor"), ("pandas", "Series"), ("pyarrow", "array"))


@pytest.mark.parametrize("kind", list(kinds()), ids=str)
def test_arrays_of_other_libraries_are_taken_wherever_arrays_are(kind):
    make = kind if isinstance(kind, type) else getattr(pytest.importorskip(kind[0]), kind[1])
    n = np.array([1.0, 2.0, 4.0])
    x = fs.to_tensor([2.0, 3.0, 5.0])
    other = make(n)
    assert fs.to_tensor(other).tolist() == n.tolist()
    assert (x + other).tolist() == [3.0, 5.0, 9.0]
    assert (x * other).tolist() == [2.0, 6.0, 20.0]
    assert (x @ other).data == 28.0
    assert fs.dot(x, other).data == 28.0
    assert type(other * x) is fs.TensorArray  # a Series would take the values alone
    assert x[make(np.array([2, 0]))].tolist() == [5.0, 2.0]
    assert x[make(np.array([True, False, True]))].tolist() == [2.0, 5.0]
    assert fs.grad(lambda v: (v * v).sum())(other).tolist() == (2.0 * n).tolist()
    with pytest.raises(TypeError):
        fs.to_tensor(make(np.array([1j, 2.0])) if kind in (Other, Exchanged) else make(np.array(["a", "b"])))


def test_no_warning_in_plain_use():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = fs.to_tensor(drawn((3, 3), 1))
        (np.linalg.inv(x) @ x + np.exp(x).mean(axis=0)).sum().backward()


ONE_FOR_ALL = [
    lambda x: np.einsum("ij->j", x) @ np.array([2.0, 3.0]),
    lambda x: np.einsum("ij->", x) * x[0, 0],
    lambda x: (x @ np.array([[2.0], [3.0]])).sum() * x[1, 1],
    lambda x: (x * x[:1, :1]).sum(),
    lambda x: np.tensordot(x[:, :1], x[:1, :], 1)[1] @ np.array([1.0, 2.0]),
    lambda x: np.einsum("i,j->ij", x[0], x[:1, 0]).sum() + np.maximum(x, x[1, :1]).prod(),
]


@pytest.mark.parametrize("f", ONE_FOR_ALL)
def test_an_operand_of_one_element_is_read_by_every_way_of_differentiating(f):
    """Derivatives that are recorded, of second order, of a program, forwards; parents and what debug looks at."""
    x = np.array([[1.5, 1.0], [0.0, -2.0]])
    plain = fs.to_tensor(x)
    y = f(plain)
    y.backward()
    wanted = plain.grad.copy()
    recorded = fs.to_tensor(x)
    z = f(recorded)
    z.backward(create_graph=True)
    assert recorded.grad == pytest.approx(wanted)
    assert fs.grad(f)(fs.to_tensor(x)).numpy() == pytest.approx(wanted)
    assert fs.jvp(f, (x,), (np.ones((2, 2)),))[1] == pytest.approx(wanted.sum())
    assert fs.compile(f).value_and_grad(x[None])[1][0] == pytest.approx(wanted)
    steps = [fs.grad(f)(x + 1e-6 * e.reshape(2, 2)) - fs.grad(f)(x - 1e-6 * e.reshape(2, 2)) for e in np.eye(4)]
    assert np.reshape(fs.hessian(f)(x), (4, 4)) == pytest.approx(np.reshape(steps, (4, 4)) / 2e-6, abs=1e-6)
    fs.debug.summary(y)
    seen, todo = set(), [y]
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo += node._parents
    assert {t for row in plain for t in row if t.grad != 0.0} <= seen


# --- larger matrices, by LAPACK in plain code -----------------------------------------------------

LARGE = np.random.default_rng(3).normal(size=(11, 11)) + 2.0 * np.eye(11)
SIDES = np.random.default_rng(4).normal(size=(11, 3))
LAPACK = {
    "solve": lambda A, t: np.linalg.solve(A, SIDES[:, 0] * t[:1] + SIDES[:, 1]),
    "solve_matrix": lambda A, t: np.linalg.solve(A, SIDES * t[1:2]),
    "solve_numbers": lambda A, t: np.linalg.solve(LARGE, A[0] * t[0]),
    "inv": lambda A, t: np.linalg.inv(A) * t[2],
    "det": lambda A, t: np.linalg.det(A) * t[0] * 1e-4,
    "slogdet": lambda A, t: np.linalg.slogdet(A)[1] * t[0],
    "power": lambda A, t: np.linalg.matrix_power(A, -2) * t[0],
}


def of_few(f):
    """A function of three numbers in which the whole matrix moves."""
    D = np.random.default_rng(5).normal(size=(2, 11, 11))
    weights = np.cos(np.arange(121.0))

    def g(t):
        y = f(LARGE + t[:1] * D[0] + t[1:2] ** 2 * D[1], t)
        return (y.ravel() * weights[: y.size]).sum() if getattr(y, "size", 1) > 1 else y

    return g


@pytest.mark.parametrize("name", LAPACK)
def test_larger_matrices_have_the_derivatives_of_elimination(name, monkeypatch):
    """Of the first three orders, also of derivatives of derivatives and along directions."""
    f, t, d = of_few(LAPACK[name]), np.array([0.1, -0.2, 1.3]), np.array([1.0, 0.5, -0.5])
    found = []
    for large in (10, 1000):
        monkeypatch.setattr("fastscalar.arrays.linalg.LARGE", large)
        third = fs.grad(lambda t: (fs.grad(lambda u: (fs.grad(f)(u) * d).sum())(t) * d).sum())(t)
        found.append([fs.grad(f)(t), fs.hessian(f)(t), third, *fs.jvp(f, (t,), (d,)), fs.hvp(f, (t,), (d,))])
    for ours, wanted in zip(*found, strict=True):
        np.testing.assert_allclose(np.asarray(ours, float), np.asarray(wanted, float), rtol=1e-9, atol=1e-10)
    program = fs.compile(f)
    assert program(t) == pytest.approx(f(t), rel=1e-10)


def test_larger_matrices_have_the_values_of_lapack():
    A, b = fs.to_tensor(LARGE), fs.to_tensor(SIDES)
    before = fs._core.tape_info()["nodes"]
    x = np.linalg.solve(A, b)
    assert fs._core.tape_info()["nodes"] - before < 121 * 3
    assert np.array_equal(x.numpy(), np.linalg.solve(LARGE, SIDES))
    assert np.array_equal(np.linalg.inv(A).numpy(), np.linalg.inv(LARGE))
    assert np.linalg.det(A).data == np.linalg.det(LARGE)
    assert np.linalg.slogdet(A)[1].data == np.linalg.slogdet(LARGE)[1]
    x.sum().backward()
    inverse = np.linalg.inv(LARGE)
    np.testing.assert_allclose(b.grad, np.repeat(inverse.sum(0)[:, None], 3, 1), rtol=1e-12)
    np.testing.assert_allclose(A.grad, -np.outer(inverse.sum(0), x.numpy().sum(1)), rtol=1e-11, atol=1e-13)
    with pytest.raises(np.linalg.LinAlgError, match="singular"):
        np.linalg.solve(fs.to_tensor(np.ones((11, 11))), b)
    y = (np.linalg.inv(A) * 1.0).sum()
    A.data[0, 0] = 7.0
    with pytest.raises(RuntimeError, match=r"inv: .* was written"):
        y.backward(create_graph=True)


@pytest.mark.parametrize("options", [{}, {"create_graph": True}])
def test_a_determinant_just_below_infinity_has_derivatives(options):
    """Which are its product with the inverse; the trace of A with these is eleven determinants, and infinite."""
    A = LARGE * (1e308 / abs(np.linalg.det(LARGE))) ** (1.0 / 11.0)
    a = fs.to_tensor(A)
    y = np.linalg.det(a)
    assert y.data == np.linalg.det(A)
    assert abs(y.data) > 1.7e307  # an eleventh of the largest number
    y.backward(**options)
    np.testing.assert_allclose(np.asarray(a.grad, float), np.linalg.inv(A).T * y.data, rtol=1e-9)


def test_a_matrix_whose_elements_are_replaced_later():
    """The derivatives are of what was inverted."""
    A = fs.to_tensor(LARGE)
    B = A.copy()
    y = (np.linalg.inv(B) * 1.0).sum()
    B[0, 0] = 7.0
    y.backward(create_graph=True)
    inverse = np.linalg.inv(LARGE)
    np.testing.assert_allclose(A.grad, -np.outer(inverse.sum(0), inverse.sum(1)), rtol=1e-11, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.0, -0.0, 1.5, -2.0, 1e-200, 1e200, math.inf, -math.inf, math.nan]), max_size=4))
def test_a_product_passes_back_what_its_loop_passes(numbers):
    """Zero sends zero at each of its steps, in all modes."""
    numbers = [*numbers, 1.5]

    def in_a_loop(x):
        p = x[0]
        for k in range(1, len(numbers)):
            p = p * x[k]
        return p

    def gradient(f, **options):
        x = fs.to_tensor(numbers)
        f(x).backward(**options)
        return np.array(x.grad, dtype=float)

    rows = np.array([numbers, numbers])
    found = [gradient(np.prod), gradient(np.prod, create_graph=True), fs.compile(np.prod).value_and_grad(rows)[1][0],
             fs.compile(np.prod).jacobian(rows)[1]]  # fmt: skip
    for some in found:
        np.testing.assert_array_equal(some, gradient(in_a_loop))


@pytest.mark.parametrize("n", [63, 64, 65, 66, 129, 200])
def test_a_long_product_passes_back_the_bits_of_its_loop(n):
    x, y = (fs.to_tensor(drawn(n, n)) for _ in range(2))
    np.prod(x).backward()
    fs.prod(y).backward()
    assert x.grad.tolist() == y.grad.tolist()


@pytest.mark.parametrize("function", [np.fmax, np.fmin], ids=["fmax", "fmin"])
@pytest.mark.parametrize("nans", ["none", "left", "right", "both"])
@pytest.mark.parametrize("other", ["array", "columns", "number"])
def test_the_larger_where_one_is_nan(function, nans, other):
    a, b = np.random.default_rng(0).normal(size=(2, 6, 4))
    if nans in ("left", "both"):
        a[1, 2] = np.nan
    if nans in ("right", "both"):
        b[1, 2] = b[3, 0] = np.nan
    x, y = fs.to_tensor(a), fs.to_tensor(b)
    if other == "columns":
        x, y, a, b = x[:, ::2], y[:, ::2], a[:, ::2], b[:, ::2]
    elif other == "number":
        y = b = float(b[1, 2])
    found, expected = function(x, y), function(a, b)
    assert np.array_equal(found.data, expected, equal_nan=True)
    fs.sum(found).backward()
    assert np.array_equal(np.asarray(x.grad), np.where(expected == a, 1.0, 0.0))     # of two that are NaN: the other's
