"""fs.compile: what it takes and gives, what is captured, guards and versions, errors, threads, interruptions."""

import gc
import math
import signal
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import clock
import fastscalar as fs
from compiled import (
    bits,
    check,
    clear,
    close,
    compiled_only,
    counted,
    eager_backward,
    eager_gradients,
    eager_values,
    gradients_of,
    tables,
)
from fastscalar import _core
from fastscalar.engine import testing
from interrupts import Interrupt

STRESS = _core.tape_info()["stress"]
needs_signals = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers here")
FEW = 4  # calls of a function that one version may take: to record it, and to look at it again


def classifier(seed=1, widths=(4, (6, 3))):
    net = fs.MLP(*widths, seed=seed)
    return net, lambda x, y: fs.cross_entropy(net(x), y)


def parameters_of(net):
    return [p for layer in net.linears for p in (layer.w, layer.b)]


# --- what it takes and gives ------------------------------------------------------------------------------------------


def test_the_example_of_the_documentation():
    net = fs.MLP(4, [6, 3], seed=1)
    X, y = tables(20, 4, 3)

    @fs.compile
    def sample_loss(x, y):
        """The loss of one sample."""
        return fs.cross_entropy(net(x), y)

    def plain(x, y):
        return fs.cross_entropy(net(x), y)

    assert sample_loss.__name__ == "sample_loss"
    assert sample_loss.__doc__ == "The loss of one sample."
    expected = eager_values(plain, X, y)
    one = sample_loss(X[0], y[0])
    assert type(one) is float
    close(one, expected[0])
    values = sample_loss.map(X, y)
    assert values.shape == (20,)
    assert values.dtype == np.float64
    close(values, expected)
    values, gradients = sample_loss.value_and_grad(X, y, argnums=0)
    assert gradients.shape == (20, 4)
    close(gradients, eager_gradients(plain, (X, y), 0))
    sums, absolute = eager_backward(plain, parameters_of(net), (X[:16], y[:16]))
    values = sample_loss.backward(X[:16], y[:16])
    close(values, expected[:16])
    for p, s, a in zip(parameters_of(net), sums, absolute, strict=True):
        close(gradients_of(p), s, scale=a)
    assert "2 matrix products" in sample_loss.report()
    sample_loss.reset()
    close(sample_loss.map(X, y), expected)


def test_the_first_call_records_and_later_ones_replay():
    _, f = classifier()
    X, y = tables(30, 4, 3)
    g, calls = counted(f)
    p = fs.compile(g)
    assert not calls
    p(X[0], y[0])
    assert len(calls) == 1
    for x, k in zip(X, y, strict=True):
        p(x, k)
    p.map(X, y)
    p.backward(X, y)
    p.value_and_grad(X, y)
    assert len(calls) <= FEW
    calls.clear()
    p.reset()
    assert not calls
    p.map(X, y)
    assert 1 <= len(calls) <= FEW


def test_recorded_under_no_grad_it_still_has_gradients():
    """What is around the call does not change what the function means: its derivative is asked for by name."""
    net, f = classifier()
    X, y = tables(6, 4, 3)
    p = fs.compile(f)
    with fs.no_grad():
        close(p(X[0], y[0]), eager_values(f, X[:1], y[:1])[0])
        values = p.map(X, y)
    close(values, eager_values(f, X, y))
    close(p.value_and_grad(X, y)[1], eager_gradients(f, (X, y), 0))
    sums, absolute = eager_backward(f, parameters_of(net), (X, y))
    p.backward(X, y)
    for q, s, a in zip(parameters_of(net), sums, absolute, strict=True):
        close(gradients_of(q), s, scale=a)


def test_the_decorator_with_an_argument():
    @fs.compile()
    def f(x):
        return fs.sum([x[k] * x[k] for k in range(7)])

    X, _ = tables(5, 7, 2)
    close(f.map(X), eager_values(lambda x: fs.sum([x[k] * x[k] for k in range(7)]), X))
    with pytest.raises(TypeError):
        fs.compile("no function")


def test_the_function_gets_tensors_for_floats_and_something_like_an_int_for_integers():
    seen = []

    def f(vector, matrix, number, label):
        seen.append((type(vector), vector.shape, type(matrix), matrix.shape, type(number), type(label)))
        return vector[0] * matrix[1][0] + number * label

    p = fs.compile(f)
    given = np.ones((2, 3)), np.ones((2, 2, 2)), np.array([1.5, 2.5]), np.array([1, 2])
    assert p.map(*given).tolist() == [2.5, 6.0]
    for vector, first, matrix, second, scalar, label in seen:
        assert (vector, first) == (matrix, (3,)) == (fs.TensorArray, (3,))
        assert (second, scalar) == ((2, 2), fs.Tensor)
        assert label is int


@pytest.mark.parametrize("kind", [int, np.int64, np.int8, np.uint8, np.uint64])
def test_every_kind_of_integer_is_one(kind):
    table = fs.to_tensor([1.0, 2.0, 4.0])
    f, calls = counted(lambda y: table[y] * 3.0)
    p = fs.compile(f)
    assert [p(kind(k)) for k in (2, 0, 1)] == [12.0, 3.0, 6.0]
    if kind is not int:
        assert p.map(np.array([1, 1, 2, 0], dtype=kind)).tolist() == [6.0, 6.0, 12.0, 3.0]
    assert len(calls) <= FEW


def test_a_bool_is_an_integer_and_an_if_on_it_a_guard():
    p = fs.compile(lambda x, flag: x * 2.0 if flag else x * 3.0)
    assert p.map(np.array([1.0, 2.0, 3.0]), np.array([True, False, True])).tolist() == [2.0, 6.0, 6.0]
    assert (p(1.0, False), p(1.0, True), p(1.0, np.True_)) == (3.0, 2.0, 2.0)


def test_an_integer_and_a_float_in_the_same_place_are_two_things():
    table = fs.to_tensor([1.0, 2.0, 4.0])

    def f(k):
        return k * 1.5 if isinstance(k, fs.Tensor) else table[k] * 10.0

    p = fs.compile(f)
    assert [p(2), p(2.0), p(1), p(1.0)] == [40.0, 3.0, 20.0, 1.5]
    assert p.map(np.array([0, 2])).tolist() == [10.0, 40.0]
    assert p.map(np.array([0.0, 2.0])).tolist() == [0.0, 3.0]


def test_an_integer_row_is_a_list_of_integers():
    table = fs.to_tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    seen = []

    def f(tokens):
        seen.append(type(tokens))
        return sum(table[t][0] * table[t, 1] for t in tokens)

    rows = np.array([[0, 1, 1], [2, 2, 0], [1, 0, 2]])
    g, calls = counted(f)
    p = fs.compile(g)
    assert p.map(rows).tolist() == eager_values(f, rows).tolist() == [26.0, 62.0, 44.0]
    assert len(calls) <= FEW
    assert set(seen) == {list}


def test_float32_and_strided_arguments_are_read_by_value():
    f = lambda x: x[0] * x[1] + x[2]
    X, _ = tables(12, 3, 2)
    p = fs.compile(f)
    expected = p.map(X)
    assert bits(p.map(np.asfortranarray(X))) == bits(expected)
    assert bits(p.map(X[::-1])[::-1]) == bits(expected)
    assert bits(p.map(np.repeat(X, 2, axis=1)[:, ::2])) == bits(expected)
    narrow = X.astype(np.float32)
    assert bits(p.map(narrow)) == bits(p.map(narrow.astype(np.float64)))
    X.flags.writeable = False
    assert bits(p.map(X)) == bits(expected)


def test_a_number_is_shared_by_all_rows_and_its_gradient_summed():
    f = lambda x, a, k: (x[0] * a + x[1]).tanh() * k
    X, _ = tables(9, 2, 2)
    for a in (0.7, np.float64(0.7), np.array(0.7)):
        values, (by_x, by_a) = fs.compile(f).value_and_grad(X, a, 3, argnums=(0, 1))
        close(values, eager_values(f, X, a, 3))
        close(by_x, eager_gradients(f, (X, a, 3), 0))
        assert np.shape(by_a) == ()
        close(by_a, eager_gradients(f, (X, a, 3), 1), scale=np.ones(9).sum())
    p = fs.compile(f)
    assert bits(p.map(X, 0.7, 3)) == bits(p.map(X, np.full(9, 0.7), np.full(9, 3)))


def test_argnums():
    f = lambda a, b: a * b + a
    a, b = np.array([1.0, 2.0]), np.array([3.0, 5.0])
    p = fs.compile(f)
    values, by_a = p.value_and_grad(a, b)
    assert (values.tolist(), by_a.tolist()) == ([4.0, 12.0], [4.0, 6.0])
    _, by_b = p.value_and_grad(a, b, argnums=1)
    assert by_b.tolist() == [1.0, 2.0]
    _, alone = p.value_and_grad(a, b, argnums=(1,))
    assert isinstance(alone, tuple)
    assert [g.tolist() for g in alone] == [[1.0, 2.0]]
    _, both = p.value_and_grad(a, b, argnums=(1, 0))
    assert [g.tolist() for g in both] == [[1.0, 2.0], [4.0, 6.0]]
    for wrong in (2, (0, 7)):
        with pytest.raises((ValueError, IndexError, TypeError)):
            p.value_and_grad(a, b, argnums=wrong)


def test_value_and_grad_leaves_the_gradients_of_captured_parameters_alone():
    net, f = classifier()
    X, y = tables(5, 4, 3)
    p = fs.compile(f)
    p.backward(X, y)
    before = [bits(gradients_of(q)) for q in parameters_of(net)]
    p.value_and_grad(X[:2], y[:2])
    p.map(X, y)
    p(X[0], y[0])
    assert [bits(gradients_of(q)) for q in parameters_of(net)] == before


def test_rows_that_do_not_agree_are_value_errors():
    p = fs.compile(lambda x, y: x[0] * y)
    for _ in range(2):  # before anything is recorded, and after
        with pytest.raises(ValueError):
            p.map(np.ones((3, 2)), np.ones(4))
        with pytest.raises(ValueError):
            p.backward(np.ones((3, 2)), np.ones(2))
        with pytest.raises(ValueError):
            p.value_and_grad(np.ones((3, 2)), np.ones(2))
        assert p.map(np.ones((3, 2)), np.ones(3)).tolist() == [1.0] * 3


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: None,
        lambda x: "1.0",
        lambda x: True,
        lambda x: [x[0], "1.0"],
        lambda x: {"a": x, "b": {1.0}},
        lambda x: (None, None),
        lambda x: np.array([1j]),
        lambda x: np.array([x[0], None]),
        lambda x: [],
    ],
)
def test_a_result_that_holds_anything_but_numbers_is_a_type_error(wrong):
    p = fs.compile(wrong)
    for call in (p.map, p.backward, p.value_and_grad):
        with pytest.raises(TypeError):
            call(np.ones((3, 2)))
    with pytest.raises(TypeError):
        p(np.ones(2))
    testing.check()


def test_a_result_that_is_a_number_a_parameter_or_an_argument():
    w = fs.Tensor(0.5)
    x = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert fs.compile(lambda x: 3).map(x).tolist() == [3.0, 3.0]
    assert fs.compile(lambda x: 2.5)(x[0]) == 2.5
    values, gradients = fs.compile(lambda x: 2.5).value_and_grad(x)
    assert (values.tolist(), gradients.tolist()) == ([2.5, 2.5], [[0.0, 0.0], [0.0, 0.0]])
    values, gradients = fs.compile(lambda x: x[1]).value_and_grad(x)
    assert (values.tolist(), gradients.tolist()) == ([2.0, 4.0], [[0.0, 1.0], [0.0, 1.0]])
    p = fs.compile(lambda x: w)
    assert p.backward(x).tolist() == [0.5, 0.5]
    assert w.grad == 2.0


@pytest.mark.parametrize("how", ["data", "grad", "array", "array_grad", "element", "backward", "sgd"])
def test_writing_inside_is_a_runtime_error(how):
    w, a = fs.Tensor(2.0), fs.to_tensor([1.0, 2.0])

    def f(x):
        t = x[0] * w + a[0]
        if how == "data":
            w.data = 3.0
        elif how == "grad":
            w.grad = 3.0
        elif how == "array":
            a.data = [5.0, 5.0]
        elif how == "array_grad":
            a.grad = [5.0, 5.0]
        elif how == "element":
            a.data[0] = 5.0
        elif how == "backward":
            t.backward()
        else:
            fs.sgd([w, a], 0.1)
        return t

    p = fs.compile(f)
    for call in (lambda: p(np.ones(1)), lambda: p.map(np.ones((3, 1))), lambda: p.backward(np.ones((3, 1)))):
        with pytest.raises(RuntimeError):
            call()
    assert (w.data, a.tolist()) == (2.0, [1.0, 2.0])
    assert (w.grad, a.grad.tolist()) == (0.0, [0.0, 0.0])
    w.data = 4.0  # outside everything is as it was
    (w * a[0]).backward()
    assert (w.grad, a.grad.tolist()) == (1.0, [4.0, 0.0])


# --- what is captured -------------------------------------------------------------------------------------------------


def test_a_replay_takes_the_values_that_parameters_have_then():
    net, f = classifier()
    X, y = tables(7, 4, 3)
    g, calls = counted(f)
    p = fs.compile(g)
    seen = []
    for step in range(4):
        values = p.backward(X, y)
        close(values, eager_values(f, X, y))
        gradients = [gradients_of(q) for q in parameters_of(net)]
        sums, absolute = eager_backward(f, parameters_of(net), (X, y))
        for found, s, a in zip(gradients, sums, absolute, strict=True):
            close(found, s, scale=a)
        seen.append(values.tolist())
        for q, gradient in zip(parameters_of(net), gradients, strict=True):
            q.data = q.numpy() - 0.1 * gradient
        net.linears[0].w.data[0, step] = 0.25 * step
    assert len(calls) <= FEW
    assert len({tuple(v) for v in seen}) == 4


def test_a_replaced_parameter_is_kept_until_reset():
    class Scale(fs.Module):
        def __init__(self):
            self.w = fs.Tensor(2.0)

        def forward(self, x):
            return x * self.w

    net = Scale()
    p = fs.compile(lambda x: net(x))
    x = np.array([1.0, 3.0])
    for _ in range(2):                            # the second call looks whether it does the same
        assert p.map(x).tolist() == [2.0, 6.0]
    old, net.w = net.w, fs.Tensor(10.0)
    assert p.map(x).tolist() == [2.0, 6.0]
    old.data = 3.0
    p.backward(x)
    assert (p.map(x).tolist(), old.grad, net.w.grad) == ([3.0, 9.0], 4.0, 0.0)
    p.reset()
    assert p.map(x).tolist() == [10.0, 30.0]
    p.backward(x)
    assert net.w.grad == 4.0


def test_parameters_that_nobody_else_holds_stay_alive():
    X, y = tables(6, 4, 3)
    net, f = classifier()
    expected = eager_values(f, X, y)
    holder = {"net": net}
    p = fs.compile(lambda x, y: fs.cross_entropy(holder["net"](x), y))
    p.map(X, y)
    p.map(X, y)                                   # by now it is known to repeat itself
    del holder["net"], net, f
    rubbish = [fs.to_tensor(np.full((9, 9), math.nan)) for _ in range(50)]
    gc.collect()
    testing.collect()
    del rubbish
    testing.collect()
    close(p.map(X, y), expected)
    p.backward(X, y)
    close(p(X[1], y[1]), expected[1])


def test_a_program_that_is_gone_keeps_nothing():
    X, y = tables(6, 4, 3)
    net, f = classifier()
    testing.collect()
    before = _core.tape_info()["nodes"]
    p = fs.compile(f)
    p.backward(X, y)
    del p
    gc.collect()
    testing.collect()
    assert _core.tape_info()["nodes"] <= before + 1
    del net, f
    gc.collect()
    testing.collect()
    assert _core.tape_info()["nodes"] < before


def test_the_memory_of_replays_is_flat():
    X, y = tables(50, 4, 3)
    _, f = classifier()
    p = fs.compile(f)
    p.backward(X, y)
    p.value_and_grad(X, y)
    p(X[0], y[0])
    testing.collect()
    before = _core.tape_info()["nodes"]
    for _ in range(20):
        p.backward(X, y, accumulate=True)
        p.value_and_grad(X, y)
        p.map(X, y)
        p(X[0], y[0])
    testing.collect()
    assert _core.tape_info()["nodes"] <= before + 1


def test_two_programs_share_parameters():
    net = fs.MLP(4, [6, 3], seed=1)
    one = lambda x, y: fs.cross_entropy(net(x), y)
    other = lambda x: fs.squared_loss(net(x), [1.0, 0.0, -1.0])
    X, y = tables(8, 4, 3)
    ps = fs.compile(one), fs.compile(other)
    ps[0].backward(X, y)
    ps[1].backward(X, accumulate=True)
    found = [gradients_of(q) for q in parameters_of(net)]
    first, a = eager_backward(one, parameters_of(net), (X, y))
    second, b = eager_backward(other, parameters_of(net), (X,))
    for g, s, t, u, v in zip(found, first, second, a, b, strict=True):
        close(g, s + t, scale=u + v)
    ps[1].backward(X)  # resets what the first left
    for q, s, v in zip(parameters_of(net), second, b, strict=True):
        close(gradients_of(q), s, scale=v)


def test_compiled_and_eager_gradients_add_up():
    net, f = classifier()
    X, y = tables(8, 4, 3)
    sums, absolute = eager_backward(f, parameters_of(net), (X, y))
    clear(parameters_of(net))
    for k in range(3):
        f(fs.to_tensor(X[k]), int(y[k])).backward(accumulate=True)
    fs.compile(f).backward(X[3:], y[3:], accumulate=True)
    for q, s, a in zip(parameters_of(net), sums, absolute, strict=True):
        close(gradients_of(q), s, scale=a)


def test_a_view_of_a_parameter_is_the_parameter():
    """A row, a slice with a step, single elements: one array behind them, and its gradient is complete."""
    w = fs.to_tensor(np.arange(12.0).reshape(3, 4) / 7)
    f = lambda x: fs.dot(w[1], x) + fs.sum(w[::2, 1]) * x[0] + w[2][3] * w[1, 0] + (w[:, 0] * w[:, 3]).sum() * x[3]
    X, _ = tables(6, 4, 2)
    check(f, [w], X)


def test_numbers_from_outside_are_frozen_until_reset():
    factor, log = [2.0], []

    def f(x):
        log.append(None)
        return x * factor[0]

    p = fs.compile(f)
    x = np.array([1.0, 2.0])
    for _ in range(3):
        assert p.map(x).tolist() == [2.0, 4.0]
    factor[0] = 5.0
    assert p.map(x).tolist() == [2.0, 4.0]
    assert len(log) <= FEW
    p.reset()
    assert p.map(x).tolist() == [5.0, 10.0]


# --- integers ---------------------------------------------------------------------------------------------------------


def test_an_index_of_an_array_is_a_gather_and_no_guard():
    table, pairs = fs.to_tensor(np.arange(100.0)), fs.to_tensor(np.arange(200.0).reshape(100, 2) / 10)
    cube = fs.to_tensor(np.arange(24.0).reshape(2, 3, 4))

    def f(x, k, j):
        row = pairs[k]
        return table[k] * x + row[0] * row[1] + pairs[k, 1] + cube[1, j, 2] * x + cube[0][j][3]

    k = np.r_[np.arange(100), -np.arange(1, 100)]
    x = np.linspace(-1, 1, len(k))
    given = x, k, k % 3
    g, calls = counted(f)
    with compiled_only():
        p = fs.compile(g)
        close(p.map(*given), eager_values(f, *given))
        gradient = p.value_and_grad(*given)[1]
        p.backward(*given)
    found = [gradients_of(t) for t in (table, pairs, cube)]
    assert len(calls) <= FEW
    close(gradient, eager_gradients(f, given, 0))
    sums, absolute = eager_backward(f, [table, pairs, cube], given)
    for a, s, scale in zip(found, sums, absolute, strict=True):
        close(a, s, scale=scale)
        assert np.any(s)


def test_a_gather_from_what_the_row_computed():
    """The array that is indexed is an argument, or a result."""
    w = fs.to_tensor([[0.5, -1.0, 0.3], [0.2, 0.4, -0.6]])

    def f(x, k):
        h = x * w[0] + w[1]
        return x[k] * h.tanh()[k] + h[k]

    X, k = tables(9, 3, 3)
    g, calls = counted(f)
    check(g, [w], X, k)
    calls.clear()
    fs.compile(g).map(X, k)
    assert len(calls) <= FEW


def test_a_label_and_a_number_are_no_guards():
    net = fs.MLP(2, [3, 5], seed=0)

    def f(x, y):
        out = net(x)
        loss = fs.cross_entropy(out, y) + fs.squared_loss(out[:1], y)
        return loss + (x[0] - y) ** 2 + y * x[1] + y / (x[0] * x[0] + 1.0)

    X, _ = tables(15, 2, 5)
    y = np.arange(15) % 5
    g, calls = counted(f)
    with compiled_only():
        close(fs.compile(g).map(X, y), eager_values(f, X, y), scale=30.0)
    assert len(calls) <= FEW


@pytest.mark.parametrize(
    "use",
    [
        lambda x, y: x * 2.0 if y == 3 else x * 5.0,
        lambda x, y: x * 2.0 if y != 3 else x * 5.0,
        lambda x, y: x * 2.0 if y < 2 else x * 5.0,
        lambda x, y: x * 2.0 if 1 <= y <= 3 else x * 5.0,
        lambda x, y: x * 2.0 if y else x * 5.0,
        lambda x, y: x * [1.0, 4.0, 9.0, 16.0, 25.0][y],
        lambda x, y: sum((x * (k + 1.0) for k in range(y)), x),
        lambda x, y: x * float([2, 3, 5, 7, 11][int(y)]),
        lambda x, y: x * {0: 1.0, 1: 3.0, 2: 5.0, 3: 7.0, 4: 2.0}[y],
        lambda x, y: x * (1.5 if y in (1, 4) else 2.5),
        lambda x, y: x * (hash(y) + 1.0),
        lambda x, y: x * [0.5, 1.5, 2.5, 3.5, 4.5, 5.5][y + 1],
        lambda x, y: x * (2.0 if (2 * y - 1) // 2 % 2 else 3.0),
        lambda x, y: x * len("ab" * y + "c"),
        lambda x, y: x * float(f"{y:d}.5"),
    ],
)
def test_what_an_integer_decides_is_a_guard(use):
    """Every row has the value of its own branch, whichever was recorded first."""
    y = np.array([3, 0, 1, 2, 3, 4, 4, 0, 2])
    x = np.linspace(1.0, 2.0, 9)
    expected = eager_values(use, x, y)
    assert len({round(v / t, 9) for v, t in zip(expected, x, strict=True)}) > 1
    with compiled_only():
        p = fs.compile(use)
        assert [p(a, b) for a, b in zip(x, y, strict=True)] == pytest.approx(expected.tolist(), rel=1e-12)
        close(p.map(x, y), expected)
        close(fs.compile(use).value_and_grad(x[::-1], y[::-1])[1], eager_gradients(use, (x, y), 0)[::-1])


def test_arithmetic_of_an_integer_with_integers_gives_a_plain_int():
    seen = []

    def f(x, y):
        seen.extend([y + 1, 1 + y, y - 1, 2 * y, y // 2, y % 2, -y, int(y)])
        return x * 1.0

    assert fs.compile(f)(1.0, 7) == 1.0
    assert {type(k) for k in seen} == {int}
    assert seen[:8] == [8, 8, 6, 14, 3, 1, -7, 7]


def test_a_comparison_of_an_integer_guards_the_comparison_and_not_the_value():
    f, calls = counted(lambda x, y: x * 2.0 if y == 3 else x * 5.0)
    p = fs.compile(f)
    y = np.arange(200)
    assert p.map(np.ones(200), y).tolist() == [2.0 if k == 3 else 5.0 for k in y]
    assert len(calls) <= 2 * FEW


# --- guards -----------------------------------------------------------------------------------------------------------


def warnings_of(work):
    """What the compile warnings said that came up, every time that they did."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    return [str(c.message) for c in caught if issubclass(c.category, fs.CompileWarning)]


def warnings_of_both(work):
    """The same; those of lost gradients are passed on."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    for c in caught:
        if not issubclass(c.category, fs.CompileWarning):
            warnings.warn_explicit(c.message, c.category, c.filename, c.lineno)
    return [str(c.message) for c in caught if issubclass(c.category, fs.CompileWarning)]


def huber(x):
    return x * x / 2.0 if abs(x) < 1.0 else abs(x) - 0.5


@pytest.mark.parametrize("pattern", ["+-", "--++", "-+++++++", "+++++++-", "-" * 40 + "+" * 41, "+-" * 40])
def test_branches_that_flip_inside_a_batch(pattern):
    w = fs.Tensor(0.8)
    f = lambda x: huber(x * w) * w
    x = np.array([2.5 if c == "+" else 0.3 for c in pattern]) * np.linspace(1.0, 1.1, len(pattern))
    g, calls = counted(f)
    with compiled_only():
        p = fs.compile(g)
        close(p.map(x), eager_values(f, x))
        close(p.value_and_grad(x)[1], eager_gradients(f, (x,), 0))
        p.backward(x)
    assert len(calls) <= 2 * FEW
    found = gradients_of(w)
    (s,), (a,) = eager_backward(f, [w], (x,))
    close(found, s, scale=a)


@pytest.mark.filterwarnings("ignore::fastscalar.GradientLossWarning")
@pytest.mark.parametrize(
    "decide",
    [
        lambda t: t > 0.0, lambda t: t >= 0.0, lambda t: t < 0.0, lambda t: t <= 0.0, lambda t: 0.0 < t,
        lambda t: t == 0.0, lambda t: t != 0.0, lambda t: bool(t.relu()), lambda t: not t.sign(),
        lambda t: float(t.sign()) > 0, lambda t: t.sign().data > 0, lambda t: t.sign().item() > 0,
        lambda t: int(t) > 0, lambda t: round(t) > 0, lambda t: math.floor(t) > 0,
        lambda t: math.copysign(1, t.sign()) > 0, lambda t: t in (0.0, 2.0), lambda t: max(t, 0.5) is t,
        lambda t: f"{t.sign():.0f}" == "1", lambda t: sorted([t, fs.Tensor(0.0)])[0] is t,
        lambda t: fs.math.isclose(t, 2.0), lambda t: bool(fs.where(t > 0, 1.0, 0.0)),
    ],
)  # fmt: skip
def test_every_way_to_decide_on_a_value_is_a_guard(decide):
    f = lambda x: x * 3.0 if decide(x * 2.0) else x * 7.0
    x = np.array([1.0, -1.0, 0.0, 2.0, -0.0, -3.0, 0.25])
    expected = eager_values(f, x)
    for order in (slice(None), slice(None, None, -1)):
        with compiled_only():
            p = fs.compile(f)
            assert p.map(x[order]).tolist() == expected[order].tolist()
            assert [p(v) for v in x] == expected.tolist()
            assert p.value_and_grad(x)[1].tolist() == eager_gradients(f, (x,), 0).tolist()


def test_reading_the_values_of_an_array_is_a_guard():
    def f(x):
        h = x * 2.0
        return h[int(np.argmax(h.data))] * 3.0 + h[int(np.argmin(h.numpy()))] + h.tolist().index(max(h.tolist()))

    X, _ = tables(12, 2, 2)  # two orders
    X = np.round(X, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fs.CompileWarning)  # reading all values may well be a version for each row
        close(fs.compile(f).map(X), eager_values(f, X))


def test_decisions_on_parameters_are_taken_again():
    w = fs.Tensor(2.0)
    f = lambda x: x * w if w > 0 else x - w
    x = np.array([1.0, 3.0])
    p = fs.compile(f)
    for value in (2.0, -2.0, 4.0, -1.0):
        w.data = value
        assert p.map(x).tolist() == eager_values(f, x).tolist()
        assert p(5.0) == f(fs.Tensor(5.0)).data
        p.backward(x)
        assert w.grad == (4.0 if value > 0 else -2.0)


def test_nan_takes_the_branch_that_it_takes():
    f = lambda x: x * 0.0 + 1.0 if x > 0.0 else (x * 0.0 + 2.0 if x <= 0.0 else fs.Tensor(3.0))
    p = fs.compile(f)
    assert p.map(np.array([1.0, -1.0, math.nan, 2.0])).tolist() == [1.0, 2.0, 3.0, 1.0]


def test_shapes_of_arguments_are_guarded():
    f = lambda x: fs.sum([x[k] * (k + 1.0) for k in range(len(x))])
    p = fs.compile(f)
    for n in (3, 5, 3, 2, 5):
        X, _ = tables(4, n, 2)
        close(p.map(X), eager_values(f, X))
        close(p(X[2]), eager_values(f, X)[2])
        assert p.value_and_grad(X)[1].shape == (4, n)


def test_a_loop_whose_length_depends_on_the_row():
    w = fs.Tensor(0.5)

    def f(x):
        steps = 0
        while x > 1.0:
            x, steps = x * w, steps + 1
        return x + steps * w

    x = np.array([100.0, 0.5, 3.0, 7.0, 1e6, 2.0, 55.0])
    p = check(f, [w], x)
    w.data = 0.25
    close(p.map(x), eager_values(f, x))


def signs(x):
    """One of 2**len(x) branches."""
    total = x[0]
    for t in x:
        if t > 0.0:
            total = total + t * t
        else:
            total = total - t
    return total


def test_up_to_64_versions_and_no_warning():
    X = np.array([[1.0 if k >> j & 1 else -1.0 for j in range(6)] for k in range(64)]) * np.arange(1, 7)
    f, calls = counted(signs)
    with compiled_only():
        p = fs.compile(f)
        assert p.map(X).tolist() == eager_values(signs, X).tolist()
        for _ in range(2):
            calls.clear()
            assert p.map(X[::-1]).tolist() == eager_values(signs, X[::-1]).tolist()
    assert not calls, "all 64 are recorded"


@pytest.mark.dear
def test_more_than_64_versions_run_eagerly_with_one_warning_that_names_the_line():
    X = np.array([[1.0 if k >> j & 1 else -1.0 for j in range(7)] for k in range(128)]) * np.arange(1, 8)
    w = fs.Tensor(1.5)
    f = lambda x: signs(x) * w
    p = fs.compile(f)

    def work():
        for _ in range(3):
            assert p.map(X).tolist() == eager_values(f, X).tolist()
        assert p.value_and_grad(X)[1].tolist() == eager_gradients(f, (X,), 0).tolist()
        p.backward(X)

    (said,) = warnings_of(work)
    assert gradients_of(w) == eager_backward(f, [w], (X,))[0][0]
    line = signs.__code__.co_firstlineno + 4
    assert "test_compile.py" in said
    assert f"{line}" in said
    assert "maximum" in said
    assert "where" in said
    assert p(X[77]) == f(fs.to_tensor(X[77])).data


def test_a_number_read_from_every_row_runs_eagerly_with_one_warning():
    def f(x):
        k = float(x[0])
        return x[1] * k

    X, _ = tables(150, 2, 2)
    p = fs.compile(f)

    def work():
        close(p.map(X), eager_values(f, X))
        close(p.value_and_grad(X)[1], eager_gradients(f, (X,), 0))

    with pytest.warns(fs.GradientLossWarning, match=rf"test_compile.py:{f.__code__.co_firstlineno + 1}: "):
        (said,) = warnings_of_both(work)
    assert "test_compile.py" in said
    assert f"{f.__code__.co_firstlineno + 1}" in said


def test_after_reset_versions_are_counted_anew():
    X = np.array([[1.0 if k >> j & 1 else -1.0 for j in range(6)] for k in range(64)])
    p = fs.compile(signs)
    with compiled_only():
        for scale in (1.0, 2.0, 3.0):
            assert p.map(X * scale).tolist() == eager_values(signs, X * scale).tolist()
            p.reset()


def test_an_operation_of_the_users_runs_eagerly_and_is_named():
    w = fs.Tensor(0.5)

    def op(r):
        out = fs.Tensor(3.0 * r.data**2, (r,), "area_of_a_disc")

        def step():
            (parent,) = out._parents
            parent.grad += out.grad * 6.0 * parent.data

        out._backward = step
        return out

    f = lambda x: op(x * w) + x
    x = np.array([1.0, 2.0, 3.0])
    p = fs.compile(f)

    def work():
        for _ in range(2):
            assert p.map(x).tolist() == eager_values(f, x).tolist()
        assert p(2.0) == f(fs.Tensor(2.0)).data
        assert p.value_and_grad(x)[1].tolist() == eager_gradients(f, (x,), 0).tolist()
        p.backward(x)

    (said,) = warnings_of(work)
    assert "area_of_a_disc" in said
    assert gradients_of(w) == eager_backward(f, [w], (x,))[0][0]


# --- errors -----------------------------------------------------------------------------------------------------------

W = 0.5
LOG = lambda x, w: x.log() * w
FAILING = {  # what fails, on which row, with which error
    "log": (LOG, [1.0, 2.0, 3.0, -1.0, 1.0, -2.0], 3, ValueError),
    "sqrt": (lambda x, w: x.sqrt() * w, [1.0, 2.0, -4.0, 1.0], 2, ValueError),
    "division": (lambda x, w: w / x, [1.0, 2.0, 4.0, 0.0, 0.0], 3, ZeroDivisionError),
    "power": (lambda x, w: x**-2 * w, [1.0, 0.0, 4.0], 1, ZeroDivisionError),
    "a complex power": (lambda x, w: x**0.5 * w, [1.0, 2.0, -1.0], 2, ValueError),
    "exp": (lambda x, w: x.exp() * w, [1.0, 2.0, 3.0, 4.0, 800.0], 4, OverflowError),
    "two kinds": (lambda x, w: x.exp() * x.log() * w, [1.0, 800.0, -1.0], 1, OverflowError),
    "two kinds, turned": (lambda x, w: x.exp() * x.log() * w, [1.0, -1.0, 800.0], 1, ValueError),
    "the first row": (LOG, [-1.0, 2.0, 3.0], 0, ValueError),
    "the only row": (LOG, [-1.0], 0, ValueError),
    "in a branch": (lambda x, w: x.log() * w if x < 1.0 else x * w, [2.0, 0.5, 3.0, -1.0, 0.0], 3, ValueError),
    "another branch": (lambda x, w: x.log() * w if x < 1 else (x - 2).sqrt() * w, [3.0, 1.5, -1.0], 1, ValueError),
    "wide": (lambda x, w: fs.sum([(x - k).log() for k in range(8)]) * w, [9.0, 10.0, 6.5, 3.0], 2, ValueError),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILING)
def test_an_error_is_that_of_the_lowest_row_and_commits_nothing(case):
    f, x, row, error = FAILING[case]
    x = np.array(x)
    w = fs.Tensor(W)
    g = lambda x: f(x, w)
    for k in range(row):
        assert math.isfinite(g(fs.Tensor(x[k])).data)
    with pytest.raises(error) as theirs:
        g(fs.Tensor(x[row]))
    assert theirs.type is error
    fresh, used = fs.compile(g), fs.compile(g)
    good = np.array([3.5, 4.5]) if case != "wide" else np.array([9.0, 11.0])
    expected = eager_values(g, good)
    close(used.map(good), expected)
    for p in (fresh, used):
        w.grad = 42.0
        for call in (p.map, p.value_and_grad, p.backward, lambda x, p=p: p.backward(x, accumulate=True)):
            with pytest.raises(error, match=rf"\brow {row}\b") as ours:
                call(x)
            assert ours.type is error
            assert w.grad == 42.0
            assert w.data == W
        with pytest.raises(error):
            p(x[row])
        close(p.map(good), expected)  # it goes on working
        p.backward(good)
        assert math.isfinite(w.grad)
        assert w.grad != 42.0


def test_the_row_named_is_the_one_of_the_whole_table():
    x = np.ones(5000 if not STRESS else 50)
    x[[len(x) - 20, len(x) - 3]] = -1.0
    p = fs.compile(lambda x: x.log())
    with pytest.raises(ValueError, match=rf"row {len(x) - 20}: "):
        p.map(x)


def test_derivatives_do_not_raise():
    """As in the eager engine: an infinite slope is a number."""
    x = np.array([4.0, 0.0])
    f = lambda x: x.sqrt()
    assert fs.compile(f).value_and_grad(x)[1].tolist() == eager_gradients(f, (x,), 0).tolist() == [0.25, math.inf]


@pytest.mark.parametrize("bad", [3, 7, -1])
def test_a_label_out_of_range(bad):
    net, f = classifier()
    X, y = tables(6, 4, 3)
    y[4:] = bad
    with pytest.raises(ValueError):
        f(fs.to_tensor(X[4]), int(y[4]))
    p = fs.compile(f)
    for call in (p.map, p.backward, p.value_and_grad):
        with pytest.raises(ValueError, match=r"\brow 4\b"):
            call(X, y)
    assert not any(np.any(gradients_of(q)) for q in parameters_of(net))
    close(p.map(X[:4], y[:4]), eager_values(f, X[:4], y[:4]))


@pytest.mark.parametrize("bad", [3, 100, -4])
def test_an_index_out_of_range(bad):
    table = fs.to_tensor([1.0, 2.0, 3.0])
    k = np.array([0, 2, -3, bad, 1, bad])
    p = fs.compile(lambda x, k: table[k] * x)
    for call in (p.map, p.backward):
        with pytest.raises(IndexError, match=r"\brow 3\b"):
            call(np.ones(6), k)
    assert table.grad.tolist() == [0.0, 0.0, 0.0]
    assert p.map(np.ones(3), k[:3]).tolist() == [1.0, 3.0, 1.0]


def test_an_exception_of_the_users_leaves_everything_as_it_was():
    w = fs.Tensor(2.0)

    class Mine(Exception):
        pass

    def f(x):
        if x > 10.0:
            raise Mine("too large")
        return x * w

    p = fs.compile(f)
    x = np.array([1.0, 2.0, 11.0, 3.0])
    for data in (x, x[2:]):
        w.grad = 5.0
        for call in (p.map, p.backward, p.value_and_grad):
            with pytest.raises(Mine):
                call(data)
        assert w.grad == 5.0
    assert p.map(x[:2]).tolist() == [2.0, 4.0]
    assert p.backward(x[:2]).tolist() == [2.0, 4.0]
    assert w.grad == 3.0
    y = w * w  # and the eager engine records again
    y.backward()
    assert (w.grad, y._op) == (4.0, "*")


def test_not_a_number_is_no_error():
    x = np.array([1.0, math.nan, math.inf, -1.0])
    f = lambda x: x * 2.0 + fs.maximum(x, 0.0)
    assert bits(fs.compile(f).map(x)) == bits(eager_values(f, x))


# --- threads ----------------------------------------------------------------------------------------------------------


def test_one_program_from_four_threads_while_another_works_eagerly():
    _, f = classifier(widths=(4, (12, 3)))
    X, y = tables(60 if not STRESS else 6, 4, 3)
    serial = fs.compile(f)
    expected, gradients = serial.value_and_grad(X, y)
    p = fs.compile(f)
    start, done = threading.Barrier(5), threading.Event()
    rounds = 30 if not STRESS else 2
    mine = fs.Tensor(1.0)

    def compiled():
        start.wait()
        for _ in range(rounds):
            values, g = p.value_and_grad(X, y)
            if bits(values) != bits(expected) or bits(g) != bits(gradients) or bits(p.map(X, y)) != bits(expected):
                return False
            if abs(p(X[3], y[3]) - expected[3]) > 1e-12:
                return False
        return True

    def eager():
        start.wait()
        count = 0
        while not done.is_set() or count < 3:
            s = mine
            for _ in range(50):
                s = s + mine * 2.0
            s.backward()
            if (s.data, mine.grad) != (101.0, 101.0):
                return False
            count += 1
        return True

    with ThreadPoolExecutor(5) as pool:
        other = pool.submit(eager)
        results = [pool.submit(compiled) for _ in range(4)]
        try:
            assert all(r.result() for r in results)
        finally:
            done.set()
        assert other.result()
    close(expected, eager_values(f, X, y))


def test_backward_from_four_threads_adds_up():
    """Each call adds its whole sum; small whole numbers, so that the order does not matter."""
    w = fs.to_tensor([0.0, 0.0])
    p = fs.compile(lambda x: x[0] * w[0] + x[1] * w[1])
    X = np.arange(20.0).reshape(10, 2)
    p.backward(X)
    w.grad = [0.0, 0.0]
    rounds = 25 if not STRESS else 2
    with ThreadPoolExecutor(4) as pool:
        for r in [pool.submit(lambda: [p.backward(X, accumulate=True) for _ in range(rounds)]) for _ in range(4)]:
            r.result()
    assert w.grad.tolist() == (4 * rounds * X.sum(axis=0)).tolist()


def test_a_parameter_is_written_while_another_thread_replays():
    """A replay works on a copy: every call sees one state of the parameters and never a mixture."""
    w = fs.to_tensor([1.0, 1.0])
    p = fs.compile(lambda x: x[0] * w[0] - x[1] * w[1])
    X = np.ones((2000 if not STRESS else 20, 2))
    p.map(X)
    done = threading.Event()

    def write():
        k = 1.0
        while not done.is_set():
            w.data = [k, k]
            k += 1.0

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(50 if not STRESS else 3):
            assert not p.map(X).any()
    finally:
        done.set()
        writer.join(300)


def test_recording_in_one_thread_does_not_see_the_work_of_another():
    """The eager code of another thread is neither recorded nor refused while a function is being recorded."""
    inside, go_on = threading.Event(), threading.Event()

    def f(x):
        t = x * 2.0
        inside.set()
        go_on.wait(10)
        return t + 1.0

    p = fs.compile(f)
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(p, 3.0)
        assert inside.wait(10)
        w = fs.Tensor(4.0)
        (w * w).backward()
        w.data = 5.0
        go_on.set()
        assert result.result() == 7.0
    assert w.grad == 8.0
    assert p.map(np.array([1.0, 2.0])).tolist() == [3.0, 5.0]


# --- interruptions ----------------------------------------------------------------------------------------------------


@needs_signals
@pytest.mark.skipif(STRESS, reason="many rows, in stress mode")
def test_ctrl_c_in_the_middle_of_backward_commits_nothing_or_everything():
    net, f = classifier(widths=(4, (12, 3)))
    batches = [tables(300, 4, 3, seed) for seed in (1, 2)]
    p = fs.compile(f)
    sums = []
    for X, y in batches:
        p.backward(X, y)
        sums.append([bits(gradients_of(q)) for q in parameters_of(net)])
    assert sums[0] != sums[1]
    stopped = 0
    for k in range(12):
        try:
            with Interrupt(0.003 + 0.0017 * k):
                while True:
                    for X, y in batches:
                        p.backward(X, y)
        except KeyboardInterrupt:
            stopped += 1
        assert [bits(gradients_of(q)) for q in parameters_of(net)] in sums
        testing.check()
    assert stopped == 12
    close(p.map(*batches[0]), eager_values(f, *batches[0]))


@needs_signals
@pytest.mark.skipif(STRESS, reason="many rows, in stress mode")
def test_ctrl_c_stops_a_long_map():
    w = fs.Tensor(0.5)

    def f(x):
        for _ in range(200):
            x = (x * w).sin() + w
        return x

    x = np.linspace(-1, 1, 3_000_000)
    p = fs.compile(f)
    expected = p.map(x[:100])
    some = [20.0 * clock.seconds(lambda: p.map(x[:150_000])) for _ in range(3)]
    found = []

    def again_and_again():
        try:
            with Interrupt(0.1):
                while True:  # whoever is fast needs more than one
                    p.map(x)
        except KeyboardInterrupt:
            found.append("stopped")

    seconds = [clock.seconds(again_and_again) for _ in range(3)]
    assert found == ["stopped"] * 3
    assert min(seconds) < 0.2 + 0.5 * max(some), "it was not stopped but done"
    assert bits(p.map(x[:100])) == bits(expected)


@needs_signals
@pytest.mark.skipif(STRESS, reason="many rows, in stress mode")
def test_ctrl_c_while_a_function_is_recorded():
    w = fs.Tensor(0.5)

    def f(x):
        for _ in range(100_000):
            x = x * w + 1.0
        return x

    def again_and_again(p):
        while True:
            p(1.0)
            p.reset()

    for k in range(4):
        p = fs.compile(f)
        with pytest.raises(KeyboardInterrupt), Interrupt(0.002 + 0.004 * k):
            again_and_again(p)
        (w * w).backward()
        assert w.grad == 1.0
        w.data = 0.5
        assert p(1.0) == 2.0


# --- report -----------------------------------------------------------------------------------------------------------


def test_a_report_is_text_at_any_time():
    p = fs.compile(lambda x: x * 2.0)
    assert isinstance(p.report(), str)
    p(1.0)
    assert isinstance(p.report(), str)
    p.map(np.ones(3))
    assert "operation" in p.report()
    p.reset()
    assert isinstance(p.report(), str)


@pytest.mark.dear
def test_divisions_by_more_constants_than_there_was_room_for():
    """Each becomes a product with a new constant: what lowering knows of nodes grows."""

    def f(x):
        total = x * 0.0
        for k in range(1000):
            total = total + x / (k + 2.5) * (x / (k + 3.7))
        return total

    x = np.linspace(-1.0, 1.0, 9)
    expected, slopes = [f(v) for v in x.tolist()], [fs.grad(f)(v) for v in x.tolist()]
    for dtype, error in (("float64", 1e-14), ("float32", 1e-5)):
        values, gradients = fs.compile(f).value_and_grad(x, dtype=dtype)
        np.testing.assert_allclose(values, expected, rtol=error)
        np.testing.assert_allclose(gradients, slopes, rtol=error, atol=error)
    np.testing.assert_allclose(fs.compile(fs.grad(f)).map(x), slopes, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("how", ["layer", "product"])
def test_constants_that_are_mostly_zeros_and_weights_of_the_row(how):
    data = np.zeros(40)
    data[[3, 17, 30]] = 1.5, -2.0, 0.25
    w, b = fs.to_tensor(np.random.default_rng(0).normal(size=(40, 3))), fs.to_tensor(np.array([0.1, 0.2, 0.3]))

    def f(x):
        layer = fs.Linear(40, 3, seed=0)
        layer.w, layer.b = w * x, b * x
        z = layer(data) if how == "layer" else data @ (w * x)
        return z[0] * z[1] - z[2]

    x = np.linspace(-1.0, 1.0, 7)
    values, gradients = fs.compile(f).value_and_grad(x)
    np.testing.assert_allclose(values, [f(fs.Tensor(v)).data for v in x], rtol=1e-14)
    np.testing.assert_allclose(gradients, [fs.grad(f)(v) for v in x.tolist()], rtol=1e-14)
