"""Whole numbers that select an operand of a list: one recording for all values that were seen, and none for others."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from compiled import close, compiled_only, eager_backward, eager_gradients, eager_values

W = np.random.default_rng(5).normal(size=(3, 4))


def by_hand(softmax: bool) -> tuple[Any, Any]:
    w = fs.to_tensor(W)

    def f(x: Any, label: Any) -> Any:
        logits = [sum(x[i] * w[i][j] for i in range(3)) for j in range(4)]
        if not softmax:
            return logits[label] * logits[label] - logits[0]
        e = [fs.math.exp(v) for v in logits]
        total = fs.sum(e)
        probs = [v / total for v in e]
        return -fs.math.log(probs[label])

    return f, w


SELECTIONS = {
    "probabilities": lambda: by_hand(True),
    "an operand twice": lambda: by_hand(False),
    "two lists": lambda: (lambda x, k: [x[0], x[1], x[2]][k % 3] * [x[2], x[0] + x[1], x[1]][k % 3] + x[0], None),
    "from the end": lambda: (lambda x, k: [x[0], x[1] * x[2], x[2], x[0] - x[1]][-1 - k] * 2.0 + x[1], None),
    "a loop": lambda: (lambda x, k: sum((x[0] * x[j % 3] for j in range(k + 1)), 0.0), None),
    "beside a branch": lambda: (lambda x, k: [x[0], x[1], x[2], x[0]][k] * (2.0 if x[0] > 0.0 else x[1]), None),
    "numbers": lambda: (lambda x, k: x[0] * [1.0, 2.0, 4.0, 8.0][k] + x[1], None),
    "other operations": lambda: (lambda x, k: x[0] * x[1] if k == 2 else [x[2], x[1], x[0], x[0]][k] + x[1], None),
}


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 0, 2, 1], [2, 2, 2, 0], [1, 3]])
def test_a_selection_is_that_of_the_function(name: str, order: list[int]) -> None:
    f, w = SELECTIONS[name]()
    rng = np.random.default_rng(7)
    X, k = rng.normal(size=(40, 3)), np.array([order[i % len(order)] for i in range(40)])
    program = fs.compile(f)
    few = slice(0, 2)                             # not all values at once: a recording that is there takes others in
    close(program.map(X[few], k[few]), eager_values(f, X[few], k[few]))
    for some in (slice(0, 40), slice(13, 20), slice(39, 40)):
        close(program.map(X[some], k[some]), eager_values(f, X[some], k[some]))
        close(program.value_and_grad(X[some], k[some])[1], eager_gradients(f, (X[some], k[some]), 0))
    if w is not None:
        (expected,), absolute = eager_backward(f, [w], (X, k))
        program.backward(X, k)
        close(np.asarray(w.grad), expected, scale=absolute[0])


def test_a_selection_is_one_recording() -> None:
    f, _ = SELECTIONS["probabilities"]()
    program = fs.compile(f)
    X, k = np.random.default_rng(8).normal(size=(60, 3)), np.arange(60) % 4
    program.map(X, k)
    assert len(program.report().splitlines()) == 1
    assert "1 gather" in program.report()


def test_a_value_that_was_not_seen_is_recorded_and_one_that_is_out_of_range_raises() -> None:
    f, _ = SELECTIONS["probabilities"]()
    program = fs.compile(f)
    X = np.random.default_rng(9).normal(size=(30, 3))
    k = np.arange(30) % 3
    for _ in range(2):
        program.value_and_grad(X, k)
    last = k.copy()
    last[7] = 3                                   # in the table's range of values, and not known
    for _ in range(2):
        close(program.map(X, last), eager_values(f, X, last))
        close(program.value_and_grad(X, last)[1], eager_gradients(f, (X, last), 0))
    last[11] = 4
    for call in (program.map, program.value_and_grad, program.backward):
        with pytest.raises(IndexError, match="row 11"):
            call(X, last)


@pytest.mark.parametrize("batch_size", [1, 4, 32])
@pytest.mark.parametrize("optimizer", [fs.SGD, fs.Adam])
def test_fit_with_a_selection_is_fit_with_cross_entropy(batch_size: int, optimizer: Any) -> None:
    rng = np.random.default_rng(10)
    X, y = rng.normal(size=(64, 6)), rng.integers(0, 5, 64)
    found = []
    for loss in (fs.cross_entropy, lambda z, label: -fs.math.log(list(fs.softmax(z))[label])):
        net = fs.MLP(6, [8, 5], seed=3)
        history = fs.fit(
            net, X, y, loss=loss, epochs=3, batch_size=batch_size, optimizer=optimizer(lr=0.05), progress=False
        )
        found.append((history.loss[-1], net.linears[0].w.numpy()))
    assert math.isclose(found[0][0], found[1][0], rel_tol=1e-10)
    close(found[1][1], found[0][1], tolerance=1e-9)


# --- lists that are known: two recordings, and a third to see whether it is so ----------------------------------------

CLASSES = 24


class Kept:
    """What a net keeps in an attribute; `other` gives another list at each second look."""

    def __init__(self, probs: Any) -> None:
        self.probs, self.looks = probs, 0

    @property
    def other(self) -> Any:
        self.looks += 1
        return self.probs if self.looks % 2 else self.probs[::-1]


def kept(probs: Any) -> Any:
    return Kept(probs)


PLACES = list(range(CLASSES))
PLACES[12], PLACES[20] = 20, 12

# what is done with the shares of the classes and the label; how often the function is called at most
TAKEN: dict[str, tuple[Any, int]] = {
    "a variable": (lambda p, k, x: -fs.math.log(p[k]), 4),
    "as an int": (lambda p, k, x: -fs.math.log(p[int(k)]), 4),
    "the result itself": (lambda p, k, x: p[k], 4),
    "a cell": (lambda p, k, x: fs.sum([x[0] * p[k] for _ in range(3)]), 4),
    "a tuple": (lambda p, k, x: (lambda q: q[k] * 2.0)(tuple(p)), 4),
    "beside the first": (lambda p, k, x: p[k] * p[k] - p[0], 4),
    "nobody else reads them": (lambda p, k, x: (lambda q: q[k] * 2.0)([x[0] * j for j in range(CLASSES)]), 4),
    "two lists": (lambda p, k, x: (lambda q: q[k] - p[k])([v * x[1] for v in p] + [x[2]]), 4),
    "some of them twice": (lambda p, k, x: (lambda q: q[k] * 2.0)([p[0], p[0], p[1], p[1], *p[4:]]), 5),
    "counted from one": (lambda p, k, x: p[k - 1] * 2.0, 4),
    "from the end": (lambda p, k, x: p[-1 - k] * 2.0, 4),
    "the class opposite": (lambda p, k, x: p[CLASSES - 1 - int(k)] * 2.0, 4),
    "two classes are one": (lambda p, k, x: p[k // 2] * x[1], 5),
    "around": (lambda p, k, x: p[(k + 7) % CLASSES] * x[1], 4),
    "an attribute": (lambda p, k, x: (lambda o: o.probs[k] * 2.0)(kept(p)), 4),
    "of an object": (lambda p, k, x: (lambda o: o.probs[int(k) - 1] * 2.0)(kept(p)), 4),
    "in a dictionary": (lambda p, k, x: (lambda d: d["probs"][k] * 2.0)({"probs": p}), 4),
    "the last of several": (lambda p, k, x: (lambda o: o[-1][k] * 2.0)([x, p]), 4),
    "a list of it": (lambda p, k, x: list(p)[k] * 2.0, 4),
    "an array": (lambda p, k, x: (lambda q: q[int(k)] * 2.0)(fs.softmax(p)), 4),
    "an array, counted": (lambda p, k, x: (lambda q: q[k - 1] * 2.0)(fs.softmax(p)), 4),
    "one class apart": (lambda p, k, x: p[k] * x[0] if k != 7 else p[3] * 2.0, 6),
    # nothing is known of these lists: a call for each class, and never a guess
    "another order": (lambda p, k, x: p[PLACES[k]] * 2.0, CLASSES + 2),
    "one of two lists": (lambda p, k, x: (p if x is None else p[::-1])[k] * 2.0, CLASSES + 2),
    "an index of two": (lambda p, k, x: p[k if x is not None else 0] * 2.0, CLASSES + 2),
    "nameless": (lambda p, k, x: [e * 2.0 for e in p][k], CLASSES + 2),
    "an attribute that is computed": (lambda p, k, x: (lambda o: o.other[k] * 2.0)(kept(p)), CLASSES + 2),
    "another number": (lambda p, k, x: (lambda i: p[i] * 2.0)(int(k)), CLASSES + 2),
    "a dictionary": (lambda p, k, x: dict(enumerate(p))[k] * 2.0, CLASSES + 2),
    "numbers beside": (lambda p, k, x: (lambda q: q[k] * x[0])([1.0, *p[1:]]), CLASSES + 2),
    "the length too": (lambda p, k, x: p[k] * float(len(p[k:])), CLASSES + 2),
}


def as_the_function(f: Any, w: Any, calls: list[Any], most: int, n: int, order: str) -> Any:
    """The program of f for n rows, whose labels come up, down or drawn: its values and gradients are those of f, and f
    was called `most` times at most."""
    rng = np.random.default_rng(12)
    X, k = rng.normal(size=(n, 3)), np.arange(n) % CLASSES
    k = {"up": k, "down": k[::-1].copy(), "drawn": rng.permutation(k)}[order]
    program = fs.compile(f)
    with compiled_only():
        values, slopes = program.value_and_grad(X, k)
        assert len(calls) <= most
        close(values, eager_values(f, X, k))
        close(slopes, eager_gradients(f, (X, k), 0))
        (expected,), absolute = eager_backward(f, [w], (X, k))
        program.backward(X, k)
        close(np.asarray(w.grad), expected, scale=absolute[0])
    return program


@pytest.mark.dear
@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.parametrize("order", ["up", "down", "drawn"])
def test_what_a_list_says_of_other_labels(name: str, order: str) -> None:
    take, most = TAKEN[name]
    w = fs.to_tensor(np.random.default_rng(11).normal(size=(3, CLASSES)))
    calls = []

    def f(x: Any, k: Any) -> Any:
        calls.append(k)
        powers = [fs.math.exp(x[0] * w[0, j] + x[1] * w[1, j]) for j in range(CLASSES)]
        total = fs.sum(powers)
        return take([e / total for e in powers], k, x)

    as_the_function(f, w, calls, most, 2 * CLASSES, order)


def test_labels_out_of_the_list_are_what_they_are() -> None:
    f = lambda x, k: (lambda p: p[k] * 2.0)([x[0], x[1] * x[0], x[2]])
    X, k = np.random.default_rng(13).normal(size=(30, 3)), np.arange(30) % 3
    program = fs.compile(f)
    program.map(X, k)
    k[[4, 9]] = -1, -3
    close(program.map(X, k), eager_values(f, X, k))
    k[20] = 3
    with pytest.raises(IndexError, match="row 20"):
        program.map(X, k)


def test_leaves_in_a_list_are_parameters_only_where_they_are_read() -> None:
    leaves = [fs.Tensor(1.0), fs.Tensor(2.0), fs.Tensor(3.0)]
    program = fs.compile(lambda x, k: leaves[k] * x)
    program.backward(np.ones(4), np.array([0, 1, 0, 1]))
    assert [leaf.grad for leaf in leaves] == [2.0, 2.0, 0.0]
    assert {id(p) for p in program.parameters} == {id(leaves[0]), id(leaves[1])}


# --- numbers that are known -------------------------------------------------------------------------------------------

RATES = [0.5 + (7 * j % CLASSES) / CLASSES for j in range(CLASSES)]
RATES[5], RATES[9], RATES[11], RATES[17] = 0.0, -0.0, 2.0, RATES[16]
ARRAY, TWO = np.array(RATES), fs.Linear(3, 2, seed=3)
WHOLES = [j // 2 for j in range(CLASSES)]


class Rated:
    rates = ARRAY


# what is done with the row, the label and some leaves; how often the function is called at most
NUMBERS: dict[str, tuple[Any, int]] = {
    "a list": (lambda x, k, w: (x[0] * w[0] - RATES[k]) ** 2, CLASSES + 2),
    "a tuple": (lambda x, k, w: (lambda q: x[0] * w[0] * q[k])(tuple(RATES)), CLASSES + 2),
    "an array": (lambda x, k, w: x[0] * ARRAY[k] + w[1], CLASSES + 2),
    "an attribute": (lambda x, k, w: (lambda o: x[0] * o.rates[int(k)] + w[1])(Rated()), CLASSES + 2),
    "whole numbers": (lambda x, k, w: x[0] * w[0] ** WHOLES[k], CLASSES + 2),
    "truths": (lambda x, k, w: x[0] * [j % 3 == 0 for j in range(CLASSES)][k] + w[0], CLASSES + 2),
    "float32": (lambda x, k, w: (lambda q: x[0] * float(q[k]) + w[1])(ARRAY.astype(np.float32)), CLASSES + 2),
    "a loss": (lambda x, k, w: fs.squared_loss([x[0] * w[0], x[1]], [RATES[k], 1.0]), CLASSES + 2),
    "a label": (lambda x, k, w: fs.mse_loss(x * w[0], [RATES[k], 0.0, RATES[k]]), CLASSES + 2),
    "a weight of a loss": (lambda x, k, w: RATES[k] * fs.cross_entropy(x * w[0], 1), CLASSES + 2),
    "a number and a Tensor": (lambda x, k, w: (RATES[k] - x[0]) * ([w[0], w[1]] * CLASSES)[k], CLASSES + 3),
    "two lists": (lambda x, k, w: x[0] * RATES[k] + w[0] * [*RATES[::-1], 1.0][k], CLASSES + 2),
    "two known lists": (lambda x, k, w: (lambda q: x[0] * RATES[k] + w[0] * q[k])(RATES[::-1]), CLASSES + 2),
    "on both sides of a decision": (lambda x, k, w: x[0] * RATES[k] if x[0] > RATES[k] else w[0] * x[1], 80),
    "beside the same number": (lambda x, k, w: (x[0] - RATES[k]) * 2.0 + 0.0 * w[0] + RATES[3], CLASSES + 2),
    "computed": (lambda x, k, w: x[0] * (2.0 * RATES[k] + 1.0) * w[0], CLASSES + 2),
    "a table of tables": (lambda x, k, w: x[0] * [(r, 2.0 * r) for r in RATES][k][1] + w[0], CLASSES + 2),
    "a row of an array": (lambda x, k, w: fs.squared_loss(x * w[0], np.outer(ARRAY, [1.0, 2.0, 3.0])[k]), CLASSES + 2),
    "a dictionary": (lambda x, k, w: x[0] * dict(enumerate(RATES))[k] + w[0], CLASSES + 2),
    "a formula": (lambda x, k, w: x[0] * math.sqrt(int(k)) + w[0] * 0.5 ** int(k), CLASSES + 2),
    "a constant that counts twice": (lambda x, k, w: x[0] * RATES[k] + w[0] * RATES[k - 1], CLASSES + 2),
    "what a layer is given": (lambda x, k, w: fs.sum(TWO([x[0], RATES[k], w[0]])), CLASSES + 2),
}


@pytest.mark.parametrize(
    "f",
    [
        lambda x, rate: x * 2.0 if rate > 5.0 else x,
        lambda x, rate: x * rate * 2.0 if rate > 5.0 else x * rate,
        lambda x, rate: x + 0.0 * math.acos(min(rate, 2.0)) if rate > 5.0 else x,
        lambda x, rate: [x, x * 3.0][int(rate) // 9] * rate,
    ],
)
def test_what_is_done_with_a_plain_number_is_done_with_each(f: Any) -> None:
    """The one that decides otherwise is in the middle, where lists would say what it selects."""
    rates = [1.0, -1.0, 0.5, 9.0, 0.25, 0.75, 0.125]
    X, k = np.ones(7), np.arange(7)
    for program in (fs.compile(lambda x, k: f(x, rates[k])), fs.compile(lambda x, k: f(x, rates[int(k)]))):
        for some in (slice(None), slice(None, None, -1)):
            try:
                expected = [float(f(1.0, rates[j])) for j in k[some]]
            except ValueError:
                with pytest.raises(ValueError, match="math domain"):
                    program.map(X, k[some])
            else:
                assert program.map(X, k[some]).tolist() == expected


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("order", ["up", "down", "drawn"])
def test_numbers_that_a_label_selects_are_one_recording(name: str, order: str) -> None:
    take, most = NUMBERS[name]
    w = fs.to_tensor(np.array([0.75, -1.25]))
    calls = []

    def f(x: Any, k: Any) -> Any:
        calls.append(k)
        return take(x, k, w)

    program = as_the_function(f, w, calls, most, 3 * CLASSES, order)
    if most < 27:                                # else there may be two families of them
        assert len(program.report().splitlines()) == 1


def test_what_is_divided_by_a_number_that_is_selected_raises_where_it_is_zero() -> None:
    program = fs.compile(lambda x, k: x / [1.0, 2.0, 0.0, 4.0][k])
    x = np.arange(8.0)
    assert program.map(x, np.array([0, 1, 3, 1, 0, 3, 3, 1])).tolist() == [0.0, 0.5, 0.5, 1.5, 4.0, 1.25, 1.5, 3.5]
    for call in (program.map, program.value_and_grad):
        with pytest.raises(ZeroDivisionError, match="row 4"):
            call(x, np.array([0, 1, 3, 1, 2, 2, 3, 1]))


@pytest.mark.parametrize("scale", [lambda w, k: RATES[k], lambda w, k: [w[0, 0], w[0, 1]][k % 2]])
@pytest.mark.parametrize("what", ["w", "b"])
def test_weights_of_a_layer_that_a_label_selects_are_not_one_for_all_rows(scale: Any, what: str) -> None:
    layer = fs.Linear(3, 2, seed=1)
    own = getattr(layer, what)

    def f(x: Any, k: Any) -> Any:
        setattr(layer, what, own * scale(layer.w if what == "b" else own, k))
        try:
            return fs.sum(layer(x))
        finally:
            setattr(layer, what, own)

    X, k = np.random.default_rng(1).normal(size=(40, 3)), np.arange(40) % 8
    program = fs.compile(f)
    for _ in range(2):
        close(program.map(X, k), eager_values(f, X, k))
        close(program.value_and_grad(X, k)[1], eager_gradients(f, (X, k), 0))


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("optimizer", [fs.SGD, fs.Adam])
def test_fit_with_targets_from_a_table_is_one_replay(batch_size: int, optimizer: Any) -> None:
    rng = np.random.default_rng(15)
    X, y = rng.normal(size=(48, 4)), rng.integers(0, 6, 48)
    found, calls = [], []

    def loss(z: Any, label: Any) -> Any:
        calls.append(label)
        return fs.squared_loss(z, RATES[label])

    for way in (True, False):
        net = fs.MLP(4, [5, 1], seed=3)
        calls.clear()
        with compiled_only():
            fs.fit(net, X, y, loss=loss, epochs=3, batch_size=batch_size, optimizer=optimizer(lr=0.01), compile=way,
                   progress=False)  # fmt: skip
        assert way is False or len(calls) < 12
        found.append(net.linears[0].w.numpy())
    close(found[0], found[1], tolerance=1e-9)


@pytest.mark.parametrize("classes", [10, 1000])
def test_a_softmax_written_out_is_recorded_a_few_times(classes: int) -> None:
    net = fs.Linear(4, classes, seed=1)
    calls = []

    def loss(x: Any, label: Any) -> Any:
        calls.append(label)
        z = net(x)
        largest = fs.max(z)
        powers = [fs.math.exp(v - largest) for v in z]
        total = fs.sum(powers)
        probs = [e / total for e in powers]
        return -fs.math.log(probs[label])

    rng = np.random.default_rng(14)
    X, y = rng.normal(size=(2 * classes, 4)), rng.permutation(2 * classes) % classes
    program = fs.compile(loss)
    with compiled_only():
        values = program.backward(X, y)
    found = net.w.grad.copy()
    assert len(calls) <= 4
    assert f"1 max({classes})" in program.report()
    by_name = fs.compile(lambda x, label: fs.cross_entropy(net(x), label))
    close(values, by_name.backward(X, y))
    close(found, np.asarray(net.w.grad))


@pytest.mark.parametrize("equal", [lambda k, x: x == k, lambda k, x: k == x, lambda k, x: x - k == 0.0])
def test_a_whole_number_that_is_equal_to_something_computed_is_a_decision(equal):
    """Two recordings of other numbers that took the same branch do not say that all rows of these numbers take it."""

    def f(k, x):
        table = [1.0, 2.0, 3.0][abs(k) :]  # reads it
        return x * 2.0 if equal(k, x * 1.5) else x * table[0]

    program = fs.compile(f)
    assert program.map(np.array([2, 0]), np.array([2.0 / 1.5, 0.0])).tolist() == [4.0 / 1.5, 0.0]
    assert program.map(np.array([0, 2, 1, 2]), np.array([5.0, 5.0, 5.0, 2.0])).tolist() == [5.0, 15.0, 10.0, 6.0]


@pytest.mark.parametrize("used", [sum, lambda v: v[3], lambda v: v[0] + v[3]], ids=["all", "last", "two"])
@pytest.mark.parametrize(
    "outputs", [fs.softmax, fs.log_softmax, lambda x: [a * a for a in x]], ids=["softmax", "log_softmax", "own"]
)
@pytest.mark.parametrize("values", [[2, 0], [0, 2], [1, 0, 2], [3, 1]], ids=str)
def test_what_some_numbers_select_does_not_part_the_outputs_of_one_operation(used, outputs, values):
    """A gather from a few of its outputs was put between them: rows of another operation were read, or none."""

    def f(x, k):
        v = list(outputs(x))
        return fs.math.expm1(0.25 * v[k % 4]) * x[0] + used(v)

    def dead(x, k):
        v = list(outputs(x))
        fs.math.expm1(0.25 * v[k % 4])
        return x[3] * used(v)

    X = np.array([[-0.1, -0.29, 1.0, 2.0], [0.5, 0.25, -1.0, 3.0]])
    for function in (f, dead):
        program = fs.compile(function)
        for k in values * 2:
            expected = [float(function(list(map(fs.Tensor, row)), k)) for row in X.tolist()]
            np.testing.assert_allclose(program.map(X, np.full(2, k)), expected, rtol=1e-12)


SLOPES: dict[str, Any] = {
    "grad": lambda f, x, k: fs.grad(f)(x, k),
    "value_and_grad": lambda f, x, k: sum(fs.value_and_grad(f)(x, k)),
    "jvp": lambda f, x, k: fs.jvp(lambda y: f(y, k), (x,), (2.0,))[1],
    "vjp": lambda f, x, k: fs.vjp(lambda y: f(y, k), x)[1](3.0)[0],
    "hessian": lambda f, x, k: fs.hessian(lambda y: f(y, k))(x),
    "of a slope": lambda f, x, k: fs.grad(lambda y: fs.grad(f)(y, k) * y)(x),
}


@pytest.mark.parametrize("name", SLOPES)
@pytest.mark.parametrize("order", [(1, 2, 0, 3), (0, 2, 3, 1), (2, 0, 1, 3), (3, 0, 1, 2)])
def test_a_derivative_depends_on_what_was_selected(name: str, order: tuple[int, ...]) -> None:
    """Two elements that do not depend on x say nothing of a third one, which does."""
    w = fs.Tensor(1.0)

    def of(x: Any, k: int) -> Any:
        some = [fs.clip(w, 0, 2), x * x * x, w * 2.0, 1.0 * x]
        return some[k]

    def f(x: Any, k: int) -> Any:
        selected = of(x, k)
        return SLOPES[name](of, x, k) * 0.7 + selected

    xs, ks = np.array([1.0, 1.5, -1.0, 0.5]), np.array(order)
    program = fs.compile(f)
    right = [float(f(fs.Tensor(x), int(k))) for x, k in zip(xs, ks, strict=True)]
    for _ in range(2):
        np.testing.assert_allclose(program.map(xs, ks), right, rtol=1e-14)
        for i in range(4):
            np.testing.assert_allclose(program.backward(xs[i : i + 1], ks[i : i + 1]), right[i : i + 1], rtol=1e-14)


def _doubled(t: Any, y: Any) -> Any:
    return t * 2.0 if t is y else t


def _is(x: Any, k: int) -> Any:
    y = x * 2.0
    some = [x * x, x + 1.0, y, x * 3.0]
    t = some[k]
    return t * (2.0 if t is y else 1.0)


def _is_not(x: Any, k: int) -> Any:
    y = x * 2.0
    some = [x * x, x + 1.0, y, x * 3.0]
    t = some[k]
    return t if t is not y else t * 2.0


def _in_a_helper(x: Any, k: int) -> Any:
    y = x * 2.0
    some = [x * x, x + 1.0, y, x * 3.0]
    return _doubled(some[k], y)


def _by_id(x: Any, k: int) -> Any:
    y = x * 2.0
    some = [x * x, x + 1.0, y, x * 3.0]
    t = some[k]
    return t * (2.0 if id(t) == id(y) else 1.0)


def _as_a_key(x: Any, k: int) -> Any:
    y = x * 2.0
    some = [x * x, x + 1.0, y, x * 3.0]
    t = some[k]
    return t * {y: 2.0}.get(t, 1.0)


@pytest.mark.parametrize("f", [_is, _is_not, _in_a_helper, _by_id, _as_a_key])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 3, 1, 2), (2, 0, 1, 3), (1, 3, 2, 0)])
def test_which_tensor_was_selected_is_asked_of_each(f: Any, order: tuple[int, ...]) -> None:
    xs, ks = np.array([1.0, 1.5, -1.0, 0.5]), np.array(order)
    right = [float(f(fs.Tensor(x), k)) for x, k in zip(xs, order, strict=True)]
    np.testing.assert_allclose(fs.compile(f).map(xs, ks), right, rtol=1e-14)
