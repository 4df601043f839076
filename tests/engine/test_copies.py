"""copy, deepcopy and pickle: leaves, arrays of leaves and nets carry their values; a computed Tensor is refused."""

import contextlib
import copy
import pickle

import numpy as np
import pytest

import fastscalar as fs

WAYS = [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]


@pytest.mark.parametrize("way", WAYS)
def test_a_leaf(way):
    t = fs.Tensor(2.5)
    t.grad = 7.0
    other = way(t)
    assert other is not t
    assert (other.data, other.grad, other._parents) == (2.5, 7.0, ())
    other.grad = 1.0
    assert t.grad == 7.0
    other.data = 1.0
    assert t.data == 2.5


@pytest.mark.parametrize("way", WAYS)
def test_an_array_of_leaves(way):
    a = fs.to_tensor(np.arange(6.0).reshape(2, 3))
    b = way(a)
    assert b.numpy().tolist() == a.numpy().tolist()
    b.data[0, 0] = 9.0
    assert a.data[0, 0] == 0.0
    assert way(a[:, 1]).tolist() == [1.0, 4.0]
    a.grad = [[0.0, 1.0, 2.0], [0.0, 0.0, 5.0]]
    c, part = way(a), way(a[:, 2])
    assert (c.grad.tolist(), part.grad.tolist()) == (a.grad.tolist(), [2.0, 5.0])
    c.grad = 0.0
    assert a.grad[1, 2] == 5.0


@pytest.mark.parametrize("way", WAYS)
def test_attributes(way):
    t = fs.Tensor(2.5, label="w")
    t.moment = 0.25
    other = way(t)
    assert (other.label, other.moment, other.grad) == ("w", 0.25, 0.0)
    other.moment = 1.0
    assert t.moment == 0.25
    element = fs.to_tensor([1.0, 2.0])[1]
    element.grad = 3.0
    assert (way(element).data, way(element).grad) == (2.0, 3.0)


def test_the_recorded_gradient_is_copied_as_a_number():
    t = fs.Tensor(2.0)
    (t * t).backward(create_graph=True)
    assert isinstance(t.grad, fs.Tensor)
    assert copy.deepcopy(t).grad == 4.0


@pytest.mark.parametrize("way", WAYS[1:])
def test_a_net(way):
    net = fs.MLP(4, [3, 2], seed=0)
    other = way(net)
    x = [0.1, 0.2, 0.3, 0.4]
    assert other(x).tolist() == net(x).tolist()
    fs.cross_entropy(other(x), 1).backward()
    fs.sgd(other.parameters(), lr=0.5)
    assert other(x).tolist() != net(x).tolist()


@pytest.mark.parametrize("way", WAYS)
def test_what_was_computed_is_refused_and_detach_is_named(way):
    t, a = fs.Tensor(2.0), fs.to_tensor([1.0, 2.0])
    for computed in (t * 3, a * 2.0, (a * 2.0)[0]):
        with pytest.raises(TypeError, match="detach"):
            way(computed)
        assert way(computed.detach()) is not None


# --- arguments of functions that are differentiated, or a program's -------------------------------------------------

COPIES = [copy.copy, copy.deepcopy]
OF_A_NUMBER = {
    "one": lambda way: lambda x: way(x) * x,
    "twice": lambda way: lambda x: way(way(x)) * x,
    "in a list": lambda way: lambda x: copy.deepcopy([x, x])[0] * way(x),
    "beside a leaf": lambda way: lambda x: way(x) * x + way(LEAF) * 0.0 + LEAF * 0.0,
}
OF_AN_ARRAY = {
    "all": lambda way: lambda x: fs.sum(way(x) * x),
    "an element": lambda way: lambda x: way(x[0]) * x[0] + way(x[1:])[0] * x[1] + x[2] * way(x)[2],
    "a row replaced": lambda way: lambda x: replaced(way(x)) + fs.sum(x * x) - x[1] * x[1],
    "twice": lambda way: lambda x: fs.sum(way(way(x)) * way(copy.copy(x))),
    "in a nest": lambda way: lambda x: fs.sum(copy.deepcopy({"a": [x]})["a"][0] * x) + 0.0 * way(x)[0],
}
LEAF = fs.Tensor(2.0)


def replaced(x):
    x[1] = x[1] * x[1]
    return x[1]


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("kind", OF_A_NUMBER)
def test_a_copy_of_a_number_that_a_function_got_passes_gradients(way, kind):
    f, X = OF_A_NUMBER[kind](way), np.array([3.0, -2.0, 0.5])
    assert fs.grad(f)(3.0) == fs.grad(fs.compile(f))(3.0) == 6.0
    assert fs.grad(fs.grad(f))(3.0) == fs.hessian(f)(3.0) == 2.0
    assert fs.jacobian(f)(3.0) == 6.0
    assert fs.jvp(f, 3.0, 2.0) == (9.0, 12.0)
    assert fs.vjp(f, 3.0)[1](1.0) == (6.0,)
    program = fs.compile(f)
    for n in (1, 2, 3):
        assert program.value_and_grad(X[:n])[1].tolist() == (2 * X[:n]).tolist()
        assert program.jacobian(X[:n]).tolist() == (2 * X[:n]).tolist()
        assert program.jvp(X[:n], tangents=1.0)[1].tolist() == (2 * X[:n]).tolist()
        assert program.hessian(X[:n]).tolist() == [2.0] * n
    assert fs.compile(fs.grad(f)).map(X).tolist() == (2 * X).tolist()


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("kind", OF_AN_ARRAY)
def test_a_copy_of_an_array_that_a_function_got_passes_gradients(way, kind):
    f, x = OF_AN_ARRAY[kind](way), np.array([3.0, -2.0, 0.5])
    assert fs.grad(f)(x).tolist() == (2 * x).tolist()
    assert fs.jacobian(f)(x).tolist() == (2 * x).tolist()
    assert fs.hessian(f)(x).tolist() == (2 * np.eye(3)).tolist()
    assert fs.jvp(f, x, np.ones(3))[1] == 2 * x.sum()
    X = np.stack([x, 2 * x, -x])
    program = fs.compile(f)
    for n in (1, 3):
        assert program.value_and_grad(X[:n])[1].tolist() == (2 * X[:n]).tolist()
        assert program.jacobian(X[:n]).tolist() == (2 * X[:n]).tolist()
        assert program.hessian(X[:n]).tolist() == [(2 * np.eye(3)).tolist()] * n
    if kind != "a row replaced":                 # of what is shared no element can be replaced
        both = fs.compile(lambda s, p: f(p) * s, shared="p")
        assert both.value_and_grad(np.ones(2), x, argnums="p")[1].tolist() == (4 * x).tolist()


@pytest.mark.filterwarnings("ignore::fastscalar.CompileWarning")
def test_copies_in_rows_that_run_eagerly():
    def f(x, a):                                 # a number is read from every row
        return copy.copy(x) * copy.deepcopy(a)[0] + float(x) * 0.0

    X = np.linspace(1.0, 2.0, 200)
    A = np.stack([X, X], axis=1)
    program = fs.compile(f)
    for _ in range(2):
        with pytest.warns(fs.GradientLossWarning) if _ == 0 else contextlib.nullcontext():
            by = program.value_and_grad(X, A, argnums=(0, 1))[1]
        assert by[0].tolist() == X.tolist()
        assert by[1][:, 0].tolist() == X.tolist()


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_of_a_leaf_is_a_leaf_in_functions_too(way):
    w = fs.to_tensor([1.0, 2.0])

    def f(x):
        return x * (way(LEAF) + way(w)[1]) + way(x)

    assert fs.grad(f)(3.0) == 5.0
    LEAF.grad = 0.0
    f(fs.Tensor(1.0)).backward()
    assert LEAF.grad == 0.0
    with pytest.warns(fs.CompileWarning, match=r"reading \.grad"):
        fs.compile(f).backward(np.array([1.0, 2.0]))
    assert (LEAF.grad, w.grad.tolist()) == (0.0, [0.0, 0.0])


def test_an_attribute_that_leads_back_is_copied_once():
    t = fs.Tensor(1.0)
    t.mine = [t]
    other = copy.deepcopy(t)
    assert other.mine[0] is other
    assert copy.copy(t).mine[0] is t
