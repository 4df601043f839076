"""`.data` written after an operation whose derivative reads it is a RuntimeError; what reads nothing does not mind."""

from __future__ import annotations

import gc
import itertools
import math
import random

import numpy as np
import pytest

import fastscalar
from fastscalar import _core, reference
from fastscalar.engine import testing
from operations import ROWS

OPERATORS = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b,
    "**": lambda a, b: a**b, "%": lambda a, b: a % b, "//": lambda a, b: a // b, "neg": lambda a: -a,
}  # fmt: skip
MODULES = [fastscalar, reference]
POINTS = [0.3, 0.7, 1.6, 2.5, -0.4, -1.7, 3.0, 0.0]


def operation(name):
    return OPERATORS.get(name) or (lambda *xs: getattr(xs[0], name)(*xs[1:]))


def reads(name):
    """What the derivatives of an operation depend on, found by trying: (by the left: "abv"...), (by the right: ...)."""
    _code, arity = ROWS[name]
    found = ["", ""]
    if name == "polygamma":
        return ["ab", ""]
    for a, b, v in itertools.product(POINTS, POINTS if arity == 2 else [0.0], [None, *POINTS]):
        for k in range(arity):
            slope = twin_slope(name, k, a, b, v)
            for letter, other in itertools.product("abv"[: arity] + "v", POINTS):
                changed = {"a": a, "b": b, "v": v} | {letter: other}
                if (arity == 1 and letter == "b") or letter in found[k]:
                    continue
                if v is None and letter == "v":
                    continue
                moved = twin_slope(name, k, changed["a"], changed["b"], changed["v"])
                if slope is None or moved is None or (slope != slope and moved != moved):
                    continue
                if slope != moved:
                    found[k] += letter
    return ["".join(sorted(f)) for f in found]


def twin_slope(name, k, a, b, v):
    try:
        operands = (a, b) if ROWS[name][1] == 2 else (a,)
        return reference._DERIVATIVES[name](*operands, 0.9 if v is None else v)[k]
    except (ValueError, ArithmeticError):
        return None


def domain(name):
    return (1.25, 0.75) if name == "acosh" else (0.25, 2.0)


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("name", ROWS)
def test_every_operation_of_the_table(module, name):
    """Raises exactly where a derivative that somebody wants reads what was written."""
    found = reads(name)
    arity = ROWS[name][1]
    tensors = dict(zip("ab", domain(name), strict=True))
    for written, constant in itertools.product("abv" if arity == 2 else "av", "-ab" if arity == 2 else "-"):
        if constant == written or (constant == "a" and name.isidentifier()):
            continue
        given = {k: x if k == constant else module.Tensor(x) for k, x in tensors.items()}
        y = operation(name)(*[given[k] for k in "ab"[:arity]])
        wanted = "".join(f for k, f in zip("ab"[:arity], found, strict=False) if k != constant)
        target = y if written == "v" else given[written]
        root = y + 1.0
        root.backward()
        target.data = 0.625
        for call in (root.backward, y._backward, lambda r=root: r.backward(accumulate=True)):
            if written in wanted:
                with pytest.raises(RuntimeError, match=r"backward of .*: \.data of .* was written after"):
                    call()
            else:
                call()
        assert target.data == 0.625


@pytest.mark.parametrize("module", MODULES)
def test_the_message_names_the_operation(module):
    w = module.Tensor(0.5)
    z = w.sin() * w.sqrt()
    w.data = 2.0
    with pytest.raises(RuntimeError, match=r"backward of (sin|sqrt)"):
        z.backward()
    (w.sin() * w.sqrt()).backward()
    assert w.grad == pytest.approx(math.cos(2.0) * math.sqrt(2.0) + math.sin(2.0) * 0.5 / math.sqrt(2.0))


@pytest.mark.parametrize("module", MODULES)
def test_what_is_not_reached_and_what_is_younger(module):
    a, b, c = module.Tensor(2.0), module.Tensor(3.0), module.Tensor(5.0)
    ab, bc = a * b, b * c
    a.data = 7.0
    bc.backward()
    assert (b.grad, c.grad) == (5.0, 3.0)
    (a * bc).backward()
    assert (a.grad, b.grad) == (15.0, 35.0)
    with pytest.raises(RuntimeError, match=r"backward of \*"):
        (ab + bc).backward()
    (ab.detach() + bc).backward()
    d = ab + 1.0  # younger than the write, but what it was made of is not
    with pytest.raises(RuntimeError):
        d.backward()


@pytest.mark.parametrize("module", MODULES)
def test_written_twice_and_before(module):
    x = module.Tensor(2.0)
    x.data = 3.0
    y = x * x
    y.backward()
    assert x.grad == 6.0
    x.data = 4.0
    x.data = 3.0  # the old value again: it was written all the same
    with pytest.raises(RuntimeError):
        y.backward()
    y = x * x
    x.data = 3.0  # no change
    x.grad = 0.0
    module.sgd([x], 0.1)
    y.backward()
    assert x.grad == 6.0


@pytest.mark.parametrize("module", MODULES)
def test_a_training_loop_has_no_false_alarm(module):
    w = [module.Tensor(0.5), module.Tensor(-1.0)]
    losses = []
    for k in range(50):
        loss = (w[0] * w[0] + w[1] * 2.0 - 1.0) ** 2
        loss.backward()
        losses.append(loss)  # held
        if k % 2:
            module.sgd(w, 0.05)
        else:
            for p in w:
                p.data -= 0.05 * p.grad
    assert losses[-1].data < 1e-6
    for loss in losses[:10]:
        with pytest.raises(RuntimeError):
            loss.backward()


# --- arrays ---------------------------------------------------------------------------------------


def test_arrays_of_leaves():
    fs = fastscalar
    for write in (
        lambda a: setattr(a, "data", 9.0),
        lambda a: a.data.__setitem__((0, 1), 9.0),
        lambda a: a.data.__setitem__(0, [9.0, 9.0]),
        lambda a: setattr(a[0][1], "data", 9.0),
        lambda a: setattr(a[0], "data", [1.0, 9.0]),
        lambda a: setattr(a, "data", a.data - 1.0),
        lambda a: fs.sgd([a], 0.1),
        lambda a: fs.sgd([a[0]], 0.1),
        lambda a: fs.sgd([a[0][1]], 0.1),
        lambda a: fs.SGD([a], 0.1).step(),
        lambda a: fs.Adam([a], 0.1).step(),
    ):
        a = fs.to_tensor([[1.0, 2.0], [3.0, 4.0]])
        a.grad = 1.0
        quiet = [a.sum(), (a + a).sum(), (-a).sum(), (a - 1.0)[0][0] + 1.0, fs.mean(a), a[0][1] + 1.0]
        loud = [(a * a).sum(), a.sin().sum() * 0.5, fs.dot(a[0], a[0]), a[0][1] * a[0][1], fs.norm(a[0]),
                fs.Linear(2, 2, seed=0)(a).sum()]  # fmt: skip
        alone = [f._backward for f in loud[:1]]
        write(a)
        for y in quiet:
            y.backward()
        alone[0]()  # a sum reads nothing
        for y in loud:
            with pytest.raises(RuntimeError, match="was written after the operation"):
                y.backward()
            with pytest.raises(RuntimeError, match="was written after the operation"):
                y.backward(create_graph=True)
        (a * a).sum().backward()
        np.testing.assert_array_equal(a.grad, 2.0 * a.data)


def test_results_of_arrays():
    fs = fastscalar
    a = fs.to_tensor([1.0, 2.0])
    e, double = a.exp(), a * 2.0
    e.data = 0.0
    double.data[1] = 7.0
    double.sum().backward()
    assert a.grad.tolist() == [2.0, 2.0]
    with pytest.raises(RuntimeError, match=r"backward of exp: \.data of its result"):
        e.sum().backward()
    squares = (a * a)
    products = squares * double
    squares[0].data = 3.0
    with pytest.raises(RuntimeError, match=r"backward of \*: .data of an operand"):
        products.sum().backward()


def test_layers():
    fs = fastscalar
    net = fs.MLP(3, [4, 2], seed=0)
    x = [0.5, -1.0, 2.0]
    loss = fs.cross_entropy(net(x), 1)
    net.linears[1].b.data += 1.0
    loss.backward()  # nobody reads a bias
    net.linears[0].w.data *= 2.0
    loss.backward()  # nor, when the inputs are numbers, the first weights
    net.linears[1].w.data *= 2.0
    with pytest.raises(RuntimeError, match="backward of linear"):
        loss.backward()
    inputs = fs.to_tensor(x)
    loss = fs.squared_loss(net(inputs), [0.0, 1.0])
    inputs.data = 0.0
    with pytest.raises(RuntimeError, match="backward of linear"):
        loss.backward()
    y_hat = fs.to_tensor([1.0, 2.0])
    loss = fs.squared_loss(y_hat, [0.0, 0.0])
    first = [loss.backward(), y_hat.grad.tolist()][1]
    y_hat.data = 5.0  # a loss keeps its differences, as the twin has them in its nodes
    loss.backward()
    assert y_hat.grad.tolist() == first


def test_a_step_between_two_losses_of_one_net():
    """As PyTorch says of `optimizer.step()` between two backward passes of one forward pass."""
    fs = fastscalar
    net = fs.MLP(2, [3, 2], seed=0)
    h = net([1.0, 2.0])
    first, second = fs.cross_entropy(h, 0), fs.cross_entropy(h, 1)
    first.backward()
    fs.sgd(net.parameters(), 0.1)
    with pytest.raises(RuntimeError):
        second.backward()
    assert all(math.isfinite(v) for v in np.ravel(h.numpy()))


def test_other_functions_that_differentiate():
    fs = fastscalar
    w = fs.Tensor(2.0)

    def f(x):
        y = x * w
        w.data = w.data + 1.0
        return y

    for call in (lambda: fs.grad(f)(3.0), lambda: fs.jvp(f, 3.0, 1.0), lambda: fs.hessian(f)(3.0)):
        with pytest.raises(RuntimeError):
            call()
    w.grad = 4.0
    _, back = fs.vjp(lambda x: x * w, 3.0)
    w.data = 10.0
    with pytest.raises(RuntimeError, match=r"backward of \*"):
        back(1.0)
    assert w.grad == 4.0


def test_operations_of_the_users_own():
    fs = fastscalar
    cube = fs.custom_op(lambda x: x**3, lambda x: 3 * x**2, name="cube")
    x = fs.Tensor(2.0)
    y = cube(x)
    x.data = 5.0
    for call in (y.backward, y._backward, lambda: y.backward(create_graph=True)):
        with pytest.raises(RuntimeError, match="backward of cube"):
            call()
    out = fs.Tensor(8.0, (x,), "mine")

    def step():
        x.grad += 12.0 * out.grad

    out._backward = step
    x.data = 6.0
    out.backward()  # what a step reads is its own affair
    assert x.grad == 12.0
    testing.check()


def test_gradients_after_the_error():
    """The pass ends in order: the next one works, and the tape is whole."""
    fs = fastscalar
    x = [fs.Tensor(float(k + 1)) for k in range(100)]
    y = x[0]
    for a in x[1:]:
        y = y * a + a.sin()
    x[50].data = 0.5
    with pytest.raises(RuntimeError):
        y.backward()
    testing.check()
    z = fs.sum([a * a for a in x])
    z.backward()
    assert [a.grad for a in x] == [2.0 * a.data for a in x]


# --- the tape -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_against_the_twin_with_collections(seed):
    """Random graphs, writes, deletions and collections: the engine raises exactly where the twin does."""
    rng = random.Random(seed)
    pairs = [[m.Tensor(1.0 + k / 8) for m in MODULES] for k in range(6)]
    for step in range(400):
        kind = rng.random()
        if kind < 0.62 or len(pairs) < 6:
            a, b = rng.choice(pairs), rng.choice(pairs)
            op = rng.choice([lambda s, t: s * t, lambda s, t: s + t, lambda s, t: (s * 0.25).exp(), lambda s, t: s - t,
                             lambda s, t: s.tanh() * t, lambda s, t: s / (t * t + 1.0)])  # fmt: skip
            pairs.append([op(s, t) for s, t in zip(a, b, strict=True)])
        elif kind < 0.72:
            value = rng.uniform(0.5, 2.0)
            for t in rng.choice(pairs):
                t.data = value
        elif kind < 0.85:
            del pairs[rng.randrange(len(pairs))]
        elif kind < 0.9:
            testing.collect()
        outcomes = []
        for t in rng.choice(pairs):
            try:
                t.backward()
                outcomes.append(t.data)
            except RuntimeError as error:
                outcomes.append(str(error).split(":")[0])
        assert outcomes[0] == outcomes[1] or str(outcomes) == "[nan, nan]", step
        if step % 50 == 0:
            testing.check()


@pytest.mark.dear
def test_writes_cost_no_memory():
    """The table of moments holds what lives between writes, not every write."""
    x, kept = fastscalar.Tensor(1.0), []
    for k in range(200_000):
        x.data = k
        y = x * x
        if k % 50_000 == 0:
            kept.append(y)
    gc.collect()
    testing.collect()
    testing.check()
    assert _core.tape_info()["writes"] < 50
    with pytest.raises(RuntimeError):
        kept[0].backward()
    y.backward()
    assert x.grad == 2.0 * 199_999


def test_the_numbers_of_writes_begin_again():
    x, old = fastscalar.Tensor(1.0), fastscalar.Tensor(2.0)
    a = fastscalar.to_tensor([1.0, 2.0])
    fine, stale = old * old, x * x
    wide = (a * a).sum()
    result = x.exp()
    result.data = 5.0
    x.data = 3.0
    a.data = 4.0
    before = testing.set_moment(0x7FFFFFFF)
    assert before > 0
    y = x * x
    x.data = 4.0  # the number after the last
    z = x * old
    testing.check()
    for t in (stale, y, wide, result):
        with pytest.raises(RuntimeError):
            t.backward()
    fine.backward()
    z.backward()
    assert (x.grad, old.grad) == (2.0, 4.0)


def test_a_refused_allocation_leaves_the_value():
    x, kept = fastscalar.Tensor(1.0), []
    try:
        for k in range(200_000):
            kept.append(x + 1.0)
            before = x.data
            testing.fail_after(0)
            try:
                x.data = float(k + 2)
            except MemoryError:
                assert x.data == before
                break
            finally:
                testing.fail_after(-1)
        else:
            pytest.fail("no request was refused")
    finally:
        testing.fail_after(-1)
    x.data = 7.0
    testing.check()


def test_fit_writes_too():
    fs = fastscalar
    net = fs.Linear(2, 2, seed=0)
    x = fs.to_tensor([1.0, 2.0])
    loss = fs.cross_entropy(net(x), 1)
    fs.fit(net, np.ones((8, 2)), np.zeros(8, int), epochs=1, batch_size=2, progress=False)
    with pytest.raises(RuntimeError, match="backward of linear"):
        loss.backward()
    fs.cross_entropy(net(x), 1).backward()
