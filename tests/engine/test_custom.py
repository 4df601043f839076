"""The reader's own operation, `Tensor(value, (a, b))` with `out._backward = step`, on engine and twin; custom_op."""

import math

import numpy as np
import pytest

import fastscalar
import fastscalar as fs
from fastscalar import _core
from fastscalar.engine import testing


def multiply(fs, a, b):
    """As the article and micrograd write an operation: a closure that holds its own result."""
    out = fs.Tensor(a.data * b.data, (a, b), "times")

    def step():
        a.grad += b.data * out.grad
        b.grad += a.data * out.grad

    out._backward = step
    return out


def test_an_operation_written_by_hand(fs):
    x, y = fs.Tensor(3.0), fs.Tensor(4.0, label="y")
    z = multiply(fs, multiply(fs, x, x), y) + x
    z.backward()
    assert (z.data, x.grad, y.grad) == (39.0, 25.0, 9.0)
    product = z._parents[0]
    assert (product._op, product._prev[1] is y, y.label, x.label) == ("times", True, "y", "")
    z.backward()
    assert (x.grad, y.grad) == (25.0, 9.0)


def test_it_mixes_with_everything_else(fs):
    x = fs.Tensor(0.5)
    loss = fs.squared_loss([multiply(fs, x.exp(), x), multiply(fs, x, x) * 2.0], [1.0, 2.0])
    loss.backward()
    e = math.exp(0.5)
    expected = (0.5 * e - 1) * (1.5 * e) + (0.5 - 2) * 2.0
    assert x.grad == pytest.approx(expected, rel=1e-12)


def test_backward_by_hand_calls_the_step(fs):
    x = fs.Tensor(3.0)
    z = multiply(fs, x, x)
    z.grad = 1.0
    z._backward()
    assert x.grad == 6.0


def test_without_a_step_nothing_flows(fs):
    x = fs.Tensor(3.0)
    x.grad = 7.0
    fs.Tensor(1.0, [x]).backward()
    assert x.grad == 0.0


def test_under_no_grad_it_is_a_leaf(fs):
    x = fs.Tensor(3.0)
    with fs.no_grad():
        assert fs.Tensor(1.0, (x,))._parents == ()


def test_what_cannot_be_a_step_or_a_parent():
    x = fastscalar.Tensor(1.0)
    with pytest.raises(AttributeError, match="its parents"):
        x._backward = print
    out = fastscalar.Tensor(1.0, (x,))
    with pytest.raises(TypeError, match="callable"):
        out._backward = 3
    with pytest.raises(TypeError, match="int"):
        fastscalar.Tensor(1.0, (x, 2))


def test_a_chain_of_closures_that_hold_their_own_nodes_is_released_at_once():
    testing.collect()
    before = _core.tape_info()
    w = fastscalar.Tensor(1.0)
    s = w
    for _ in range(20_000 if not before["stress"] else 50):
        s = multiply(fastscalar, s, w)
    s.backward()
    del s
    testing.collect()
    after = _core.tape_info()
    assert after["nodes"] <= before["nodes"] + 1  # less, if another test's garbage went too
    assert after["pinned"] <= before["pinned"]
    testing.check()


def test_what_a_living_closure_holds_stays():
    """The captured Tensor is no parent; its node must live as long as the closure can use it."""
    x = fastscalar.Tensor(2.0)
    seen = []

    def operation():
        extra = x * 21.0
        out = fastscalar.Tensor(x.data, (x,))

        def step():
            seen.append(extra.data)
            x.grad += out.grad

        out._backward = step
        return out + 0.0

    z = operation()
    for _ in range(3):
        testing.collect()
        fastscalar.Tensor(0.0)
    z.backward()
    assert seen == [42.0]
    testing.check()


def test_a_step_that_somebody_else_holds_keeps_its_tensors():
    x = fastscalar.Tensor(2.0)
    out = multiply(fastscalar, x, x)
    step = out._backward
    number = id(out)
    del out
    testing.collect()
    assert _core.tape_info()["pinned"] >= 1
    out = step.__closure__[-1].cell_contents
    assert id(out) == number
    assert out.data == 4.0
    del out, step
    testing.collect()


def test_a_step_that_is_replaced_or_raises():
    x = fastscalar.Tensor(2.0)
    out = multiply(fastscalar, x, x)

    def broken():
        raise KeyError("mine")

    out._backward = broken
    z = out * 3.0
    with pytest.raises(KeyError, match="mine"):
        z.backward()
    testing.check()
    out._backward = lambda: None
    z.backward()
    assert x.grad == 0.0


def test_backward_inside_a_step_is_refused():
    x = fastscalar.Tensor(2.0)
    out = fastscalar.Tensor(4.0, (x,))
    out._backward = x.backward
    with pytest.raises(RuntimeError, match="inside"):
        out.backward()
    x.backward()
    assert x.grad == 1.0


def test_a_step_may_make_nodes_and_grow_the_tape():
    x = fastscalar.Tensor(2.0)
    out = fastscalar.Tensor(4.0, (x,))
    kept = []

    def step():
        kept.extend(fastscalar.Tensor(float(i)) for i in range(200_000 if not _core.tape_info()["stress"] else 50))
        x.grad += out.grad * 2.0

    out._backward = step
    (out * 5.0).backward()
    assert x.grad == 10.0
    assert kept[-1].data == len(kept) - 1.0


# --- custom_op -------------------------------------------------------------------------------------


def test_custom_op():
    power = fastscalar.custom_op(lambda a, b: a**b, lambda a, b: (b * a ** (b - 1), a**b * math.log(a)), name="power")
    a, b = fastscalar.Tensor(2.0), fastscalar.Tensor(3.0)
    z = power(a, b) * 2.0
    z.backward()
    assert (z.data, a.grad, b.grad) == (16.0, 24.0, 16.0 * math.log(2.0))
    assert z._parents[0]._op == "power"
    assert power(2.0, 3).data == 8.0
    with fastscalar.no_grad():
        assert power(a, b)._parents == ()


def test_custom_op_as_a_decorator():
    @fastscalar.custom_op(derivatives=lambda a: 3.0 * a * a)
    def cube(a):
        """The third power."""
        return a**3

    x = fastscalar.Tensor(2.0)
    cube(x).backward()
    assert (x.grad, cube(x)._op, cube.__doc__) == (12.0, "cube", "The third power.")
    with pytest.raises(TypeError, match="derivatives"):
        fastscalar.custom_op(lambda a: a)


def test_custom_op_checks_its_derivatives():
    wrong = fastscalar.custom_op(lambda a, b: a + b, lambda a, b: (1.0,))
    x = fastscalar.Tensor(1.0)
    with pytest.raises(ValueError, match="2 operands but 1 derivatives"):
        wrong(x, x).backward()


def test_custom_ops_leave_nothing_behind():
    double = fastscalar.custom_op(lambda a: 2.0 * a, lambda a: 2.0)
    x = fastscalar.Tensor(1.0)
    testing.collect()
    before = _core.tape_info()
    for _ in range(100):
        double(double(x)).backward()
    assert x.grad == 4.0
    testing.collect()
    after = _core.tape_info()
    assert after["nodes"] <= before["nodes"]
    assert after["pinned"] <= before["pinned"]


FORMS = {
    "float": (lambda a, b: a * b, lambda a, b: (b, a)),
    "list": (lambda a, b: a * b, lambda a, b: [b, a]),
    "array": (lambda a, b: a * b, lambda a, b: np.array([b, a])),
    "ints": (lambda a, b: 3, lambda a, b: (0, 0)),
    "arrays of no dimension": (lambda a, b: a + b, lambda a, b: (np.asarray(1.0), np.float32(1.0))),
    "bools": (lambda a, b: a + b, lambda a, b: (True, np.True_)),
}
METHODS = {
    "value_and_grad": lambda f, x: fs.compile(f).value_and_grad(x)[1],
    "jacobian": lambda f, x: fs.compile(f).jacobian(x),
    "grad": lambda f, x: [fs.grad(f)(v) for v in x],
    "compiled grad": lambda f, x: fs.compile(fs.grad(f)).map(x),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", FORMS)
def test_derivatives_in_all_forms(form, method):
    value, derivatives = FORMS[form]
    op = fs.custom_op(derivatives=derivatives)(value)
    x = np.linspace(0.1, 1.0, 5)
    wanted = 2.0 * x + 1.0 if value(2.0, 5.0) == 10.0 else 0.0 * x + (0.0 if form == "ints" else 2.0)
    np.testing.assert_allclose(METHODS[method](lambda a: op(a, a + 1.0), x), wanted)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("given", [None, "x", (1.0, None), (1.0,), (1.0, 2.0, 3.0), np.ones((2, 2)), 1j])
def test_derivatives_that_are_none(given, method):
    op = fs.custom_op(derivatives=lambda a, b: given)(lambda a, b: a * b)
    with pytest.raises((TypeError, ValueError), match=r"2 operands but|expected a number for each derivative"):
        METHODS[method](lambda a: op(a, a), np.array([1.0, 2.0]))
