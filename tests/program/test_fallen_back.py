"""Programs that have fallen back: a call goes to the function nearly at once, and is what it was on the long way."""

from __future__ import annotations

import gc
import threading
from functools import cache
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from compiled import bits
from fastscalar.engine import testing
from fastscalar.engine._random import default_seed
from fastscalar.program import api, recorded, rows

pytestmark = pytest.mark.filterwarnings("ignore::fastscalar.CompileWarning")

N = 260                                           # more than are differentiated at once
RNG = np.random.default_rng(0)
X, Y, XA, K = RNG.normal(size=N), RNG.normal(size=N), RNG.normal(size=(N, 3)), RNG.integers(0, 4, N)
W, V = fs.Tensor(1.5), fs.to_tensor([0.5, -1.0, 2.0])


def reads(x: Any) -> Any:
    """Something that no recording holds for a second row of."""
    return round(float(x.data), 3)


# a function and the arguments of its rows
FALLEN: dict[str, tuple[Any, tuple[np.ndarray, ...]]] = {
    "a number": (lambda x: x * reads(x) * W, (X,)),
    "two numbers": (lambda x, y: (x * reads(x) * W - y).exp() * y, (X, Y)),
    "an array": (lambda x: (x[0] * V[0] + x[1] * V[1]) * reads(x[2]) + x[2], (XA,)),
    "a number, an array, a label": (lambda y, x, k: (x[k % 3] - y) * reads(y) * W + V[k % 3], (Y, XA, K)),
    "a whole array of leaves": (lambda x: fs.sum(x * V) * reads(x[0]), (XA,)),
    "the leaf itself": (lambda x: W if reads(x) > 0.5 else x, (X,)),
    "plain numbers at times": (lambda x: reads(x) if x.data > 1.0 else x * reads(x) * W, (X,)),
    "an operation by hand": (lambda x: doubled(x) * W + x, (X,)),
    "what is assigned to": (lambda x: overwritten(x) * reads(x[1]), (XA,)),
    "random numbers": (lambda x: x * fs.random.normal() * reads(x), (X,)),
    "an older Tensor": (lambda x: x * OLDER * reads(x), (X,)),
    "in no_grad": (lambda x: x * reads(x) * without_gradient(x) + W, (X,)),
}
OLDER = W * 2.0


def doubled(x: Any) -> Any:
    out = fs.Tensor(2.0 * x.data, (x,))

    def step() -> None:
        x.grad += 2.0 * out.grad

    out._backward = step
    return out


def overwritten(x: Any) -> Any:
    x[0] = x[1] * V[2]
    return x[0] * x[2]


def without_gradient(x: Any) -> Any:
    with fs.no_grad():
        return x * 3.0


def long_way(monkeypatch: pytest.MonkeyPatch, program: Any, call: Any) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(api, "in_a_plain_way", lambda *_: None)
        patch.setattr(program, "_plain_ways", ())
        return call(program)


@cache
def fallen_back(name: str) -> tuple[Any, tuple[np.ndarray, ...]]:
    f, arguments = FALLEN[name]
    program = fs.compile(f)
    program.map(*arguments)
    program.map(*arguments)
    assert program._plain_ways, "calls go the long way"
    return program, arguments


def state(*arrays: Any) -> Any:
    return [np.array(leaf.grad).tobytes() for leaf in (W, V)], [np.asarray(a).tobytes() for a in arrays]


CALLS: dict[str, Any] = {
    "map": lambda p, a: p.map(*a),
    "value_and_grad": lambda p, a: p.value_and_grad(*a),
    "by all that is real": lambda p, a: p.value_and_grad(
        *a, argnums=tuple(k for k in range(len(a)) if a[k].dtype == np.float64)
    ),
    "by the first, as one of several": lambda p, a: p.value_and_grad(*a, argnums=(0,)),
    "backward": lambda p, a: p.backward(*a),
    "backward, added": lambda p, a: p.backward(*a, accumulate=True),
    "in no_grad": lambda p, a: inside_no_grad(lambda: p.value_and_grad(*a)),
}


def inside_no_grad(call: Any) -> Any:
    with fs.no_grad():
        return call()


def flat(found: Any) -> list[np.ndarray]:
    return [a for part in found for a in flat(part)] if isinstance(found, (tuple, list)) else [found]


@pytest.mark.parametrize("count", [1, 7, N])
@pytest.mark.parametrize("how", CALLS)
@pytest.mark.parametrize("name", FALLEN)
def test_rows_are_what_they_are_on_the_long_way(name: str, how: str, count: int, monkeypatch: Any) -> None:
    program, arguments = fallen_back(name)
    some = tuple(a[:count] for a in arguments)
    found = []
    for way in (lambda call: call(program), lambda call: long_way(monkeypatch, program, call)):
        W.grad, V.grad = 0.25, np.array([0.0, 1.0, -2.0])
        result = way(lambda p: CALLS[how](p, some))
        parts = flat(result)
        assert all(part.dtype == np.float64 and part.shape[0] == count for part in parts)
        found.append((type(result), [part.shape for part in parts], state(*parts)))
    assert found[0] == found[1]


ASSIGNED: dict[str, Any] = {
    "of itself": lambda x: assigned(x, 0, x[0] * reads(x[1])),
    "of another": lambda x: assigned(x, 1, x[2] * reads(x[0]) * W),
    "a number": lambda x: assigned(x, 2, 3.0) * reads(x[0]),
    "a slice": lambda x: assigned(x, slice(0, 2), x[1:] * reads(x[0])),
    "in a view": lambda x: assigned(x[::-1], 0, x[0] * reads(x[1])) * x[2],
    "in a dictionary": None,
}


def assigned(x: Any, at: Any, value: Any) -> Any:
    x[at] = value
    return x[0] * x[1] + x[2] * x[1]


@pytest.mark.dear
@pytest.mark.parametrize("count", [1, 5, 130])
@pytest.mark.parametrize("name", ASSIGNED)
def test_what_a_function_assigns_in_its_argument_keeps_the_gradients_of_what_was_there(name: str, count: int) -> None:
    """By the argument and by leaves, as the function's own, whichever way the rows go."""
    f, nested = ASSIGNED[name], name == "in a dictionary"
    if nested:
        f = ASSIGNED["of itself"]
    program = fs.compile((lambda d: f(d["x"])) if nested else f)
    rows_ = {"x": XA} if nested else XA
    some = {"x": XA[:count]} if nested else XA[:count]
    expected = [fs.value_and_grad(f)(row) for row in XA[:count]]
    for _ in range(3):
        values, slopes = program.value_and_grad(some)
        np.testing.assert_allclose(values, [v for v, _ in expected], rtol=1e-13)
        np.testing.assert_allclose(slopes["x"] if nested else slopes, [g for _, g in expected], rtol=1e-13)
        np.testing.assert_allclose(program.backward(some), values, rtol=1e-13)
        program.map(rows_)


@pytest.fixture(scope="module")
def collected() -> None:
    """Where gradients are Tensors, `backward` goes the long way: what others have left is gone."""
    gc.collect()
    testing.collect()


@pytest.mark.usefixtures("collected")
@pytest.mark.parametrize("name", FALLEN)
def test_rows_go_to_the_function_and_nowhere_else(name: str, monkeypatch: Any) -> None:
    f, arguments = FALLEN[name]
    count = 0

    def counted(*some: Any) -> Any:
        nonlocal count
        count += 1
        return f(*some)

    program = fs.compile(counted)
    program.map(*(a[:120] for a in arguments))
    program(*(a[0] for a in arguments))

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("the long way")

    monkeypatch.setattr(rows.Rows, "_enter", never)
    for how in CALLS:
        for n in (1, 7):
            count = 0
            CALLS[how](program, tuple(a[:n] for a in arguments))
            assert count == n
    count = 0
    assert type(program(*(a[3].tolist() for a in arguments))) is float
    assert count == 1


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("leaf", ["of the program", "another"])
def test_gradients_that_are_tensors(leaf: str, accumulate: bool) -> None:
    """They end where the pass leaves another number, and stay where it does not come to."""
    program, arguments = fallen_back("a number")
    count = 7
    t = W if leaf == "of the program" else fs.Tensor(2.0)
    W.grad = 0.0
    (t * t * t).backward(create_graph=True)
    recorded = t.grad
    before = float(W.grad)
    program.backward(*(a[:count] for a in arguments), accumulate=accumulate)
    wanted = sum(float(x) * reads(fs.Tensor(x)) for x in X[:count])
    assert float(W.grad) == pytest.approx(wanted + (before if accumulate else 0.0))
    if leaf == "another":
        assert t.grad is recorded
        recorded.backward()
        assert t.grad == pytest.approx(12.0)
    else:
        assert type(W.grad) is float
    W.grad = 0.0


def test_a_single_call_takes_what_the_long_way_takes(monkeypatch: Any) -> None:
    program = fs.compile(lambda y, x, k: (x[k % 3] - y) * reads(y) * W + V[k % 3])
    program.map(Y, XA, K)
    program.map(Y, XA, K)
    forms = [
        (0.5, [1.0, 2.0, 3.0], 2), (np.float64(0.5), np.array([1.0, 2.0, 3.0]), np.int64(2)), (0.5, (1.0, 2.0, 3.0), 2),
        (np.float32(0.5), XA[::2][3], 2), (0.5, [1.0, np.float64(2.0), 3.0], 2), (0.5, np.arange(6.0)[::2], 2),
        (0.5, [1, 2, 3], 2), (1, [1.0, 2.0, 3.0], 2), (0.5, [1.0, 2.0], 1), (True, [1.0, 2.0, 3.0], True),
    ]  # fmt: skip

    def outcome(p: Any, form: Any, named: bool) -> Any:
        try:
            found = p(**dict(zip("yxk", form, strict=True))) if named else p(*form)
        except Exception as error:
            return type(error), str(error)
        return type(found), found

    for form in forms:
        expected = long_way(monkeypatch, program, lambda p, form=form: outcome(p, form, False))
        for named in (False, True):
            assert outcome(program, form, named) == expected
    assert program(0.5, k=2, x=[1.0, 2.0, 3.0]) == program(0.5, [1.0, 2.0, 3.0], 2)
    for wrong in (lambda: program(0.5), lambda: program(0.5, [1.0, 2.0, 3.0], 2, z=1), lambda: program(0.5, y=1.0)):
        with pytest.raises(TypeError):
            wrong()


@pytest.mark.parametrize("how", CALLS)
@pytest.mark.parametrize("row", [0, 130, N - 1])
def test_a_row_that_raises_is_named_and_nothing_has_changed(how: str, row: int) -> None:
    wrong = [np.inf]

    def f(x: Any) -> Any:
        if x.data == wrong[0]:
            raise KeyError("here")
        return x * reads(x) * W

    program = fs.compile(f)
    program.map(X[:80])
    program.map(X[:80])
    before = program.value_and_grad(X)
    wrong[0] = X[row]
    for _ in range(2):
        W.grad = 0.75
        with pytest.raises(KeyError) as caught:
            CALLS[how](program, (X,))
        assert f"row {row}" in str(caught.value) + str(getattr(caught.value, "__notes__", ""))
        assert W.grad == 0.75
    wrong[0] = np.inf
    assert [bits(a) for a in program.value_and_grad(X)] == [bits(a) for a in before]


def test_an_error_on_the_way_back_names_no_row_and_keeps_gradients() -> None:
    broken = []

    def f(x: Any) -> Any:
        out = doubled(x * reads(x) * W)

        def step() -> None:
            if broken:
                raise LookupError("in the step")

        out._backward = step
        return out

    program = fs.compile(f)
    program.map(X[:80])
    program.map(X[:80])
    broken.append(1)
    for call in (program.value_and_grad, program.backward):
        W.grad = 0.75
        with pytest.raises(LookupError) as caught:
            call(X[:3])
        assert "row" not in str(caught.value) + str(getattr(caught.value, "__notes__", ""))
        assert W.grad == 0.75


def test_the_function_may_call_its_own_program() -> None:
    def f(x: Any) -> Any:
        inner = 0.0
        if x.data > 1.0:                          # with rows, one, and Tensors
            inner = program.map(np.array([0.25, 0.5])).sum() + program(x * 0.25)
            program.value_and_grad(np.array([0.25]))
            program.backward(np.array([0.125]), accumulate=True)
        return x * reads(x) * W + inner

    program = fs.compile(f)
    program.map(np.linspace(0.0, 0.9, 100))
    program.map(np.linspace(0.0, 0.9, 100))
    assert program._plain_ways
    expected = [f(fs.Tensor(x)).data for x in X.tolist()]
    assert program.map(X).tolist() == expected
    assert [program(x) for x in X.tolist()] == expected
    assert program.value_and_grad(X)[0].tolist() == expected


@pytest.mark.dear
def test_from_several_threads_at_once() -> None:
    program, arguments = fallen_back("random numbers")
    expected = [bits(a) for a in program.value_and_grad(*arguments)]
    start, found = threading.Barrier(4), []

    def work() -> None:
        start.wait(120)
        for _ in range(5):
            found.append([bits(a) for a in program.value_and_grad(*arguments)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(300)
    assert found == [expected] * 20


def test_recordings_that_remain_are_used_where_that_is_worth_it() -> None:
    def f(x: Any) -> Any:
        return x * 2.0 * W if x < 100.0 else x * reads(x)

    program = fs.compile(f)
    rows_ = np.concatenate([np.zeros(5), 100.0 + np.arange(80.0), X])
    expected = [f(fs.Tensor(x)).data for x in rows_.tolist()]
    for _ in range(3):
        np.testing.assert_allclose(program.map(rows_), expected, rtol=1e-14)
        assert program(3.0) == 9.0
        assert program.map(np.array([3.0])).tolist() == [9.0]
    program.reset()
    assert not program._plain_ways
    assert program(3.0) == 9.0


@pytest.mark.parametrize("details", [False, True])
def test_the_report_says_that_rows_run_in_python(details: bool) -> None:
    program = fs.compile(lambda x: reads(x) * x)
    assert program.report(details).endswith("nothing was recorded yet")
    program.map(X)
    assert program.report(details).endswith("every row runs in Python")


@pytest.mark.parametrize("seed", [0, 7])
def test_rows_draw_the_numbers_of_their_rows(seed: int) -> None:
    program, arguments = fallen_back("random numbers")
    before = default_seed()
    fs.random.seed(seed)
    try:
        assert bits(program.map(*arguments)) == bits(program.map(*arguments, seed=seed))
        one = program.map(X[5:6])
        with fs.random.stream(seed, 0):
            assert one[0] == FALLEN["random numbers"][0](fs.Tensor(X[5])).data
    finally:
        fs.random.seed(before)


# rows as a user may have them: of a program of (number, array)
ROWS: dict[str, tuple[Any, ...]] = {
    "every other": (Y[:20:2], XA[:20:2]),
    "the other way round": (Y[9::-1], XA[9::-1]),
    "columns first": (Y[:9], np.asfortranarray(XA[:9])),
    "lists": (Y[:4].tolist(), XA[:4].tolist()),
    "float32": (Y[:4].astype(np.float32), XA[:4]),
    "one number for all": (0.5, XA[:4]),
    "an array of no axis for all": (np.array(0.5), XA[:4]),
    "numbers of no rows": (Y[:0], XA[:0]),
    "other lengths": (Y[:5], XA[:4]),
    "wider rows": (Y[:4], np.ones((4, 4))),
    "an axis more": (Y[:4], np.ones((4, 3, 1))),
    "numbers for arrays": (Y[:4], Y[:4]),
    "whole numbers": (np.arange(4), XA[:4]),
    "big endian": (Y[:4].astype(">f8"), XA[:4]),
    "too few": (Y[:4],),
    "too many": (Y[:4], XA[:4], Y[:4]),
}


@pytest.mark.parametrize("how", CALLS)
def test_rows_of_any_form_are_what_they_are_on_the_long_way(how: str, monkeypatch: Any) -> None:
    program = fs.compile(lambda y, x: (x[1] - y) * reads(y) * W + V[0] * x[2])
    program.map(Y, XA)
    program.map(Y, XA)

    def outcome(p: Any, arguments: Any) -> Any:
        try:
            found = CALLS[how](p, arguments)
        except Exception as error:
            return type(error), str(error)
        return [(part.shape, bits(part)) for part in map(np.asarray, flat(found))], state()

    for arguments in ROWS.values():
        if how == "by all that is real" and not all(isinstance(a, np.ndarray) for a in arguments):
            continue
        found = []
        for way in (lambda call: call(program), lambda call: long_way(monkeypatch, program, call)):
            W.grad, V.grad = 0.25, np.array([0.0, 1.0, -2.0])
            found.append(way(lambda p, arguments=arguments: outcome(p, arguments)))
        assert found[0] == found[1]


READ = fs.to_tensor(np.ones(3))
BESIDE = fs.Tensor(1.0)
OF_ELEMENTS = {
    "an element": lambda x: READ[1] * x,
    "an element of a map": lambda x: np.tanh(READ)[1] * x,
    "beside a number": lambda x: (READ * [1.0, BESIDE, 2.0])[1] * x,
    "beside a number that is not reached": lambda x: (READ * [1.0, BESIDE, 2.0])[0] * x,
    "all of it, by zero": lambda x: fs.softmax(READ * [1.0, BESIDE, 2.0])[0] * 0.0 * x,
    "which one a row says": lambda x: (READ * [1.0, BESIDE, 2.0])[int(x)] * x,
    "in some rows": lambda x: READ[1] * x if x < 1.5 else READ[0] * BESIDE,
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("cotangents", [None, [1.0, 0.0, 2.0]], ids=str)
@pytest.mark.parametrize("limit", [1, 2, 64])
@pytest.mark.parametrize("name", OF_ELEMENTS)
def test_gradients_that_nothing_reaches_stay(name, limit, cotangents, threads, monkeypatch):
    """Of arrays too, however many rows run in Python: those that the plain loop leaves alone."""
    monkeypatch.setattr(recorded, "SPECIALIZATIONS", limit)

    def f(x):
        sorted([x, 0.5, 1.5, 0.7])
        return OF_ELEMENTS[name](x)

    def left_by(call):
        READ.grad, BESIDE.grad = np.full(3, 0.5), 0.25
        call()
        return [*READ.grad.tolist(), BESIDE.grad]

    x, seeds = np.array([1.0, 2.0, 0.0]), cotangents or [1.0, 1.0, 1.0]
    right = left_by(lambda: fs.sum([f(fs.Tensor(a)) * s for a, s in zip(x.tolist(), seeds, strict=True)]).backward())
    program = fs.compile(f)
    given = {"threads": threads} if cotangents is None else {"threads": threads, "cotangents": np.array(cotangents)}
    for _ in range(3):
        assert left_by(lambda: program.backward(x, **given)) == pytest.approx(right, rel=1e-12)
