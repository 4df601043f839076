"""Elements of arrays of bools are bools in the function, in every mode, as in the plain call."""

from __future__ import annotations

import copy
import functools
import json
import warnings

import numpy as np
import pytest

import fastscalar as fs
from fastscalar.program import recorded


def matched(b):
    match b:
        case True:
            return 2.0
        case False:
            return 3.0
    return 5.0


X, B = np.array([0.5, 2.0, -1.0, 3.0, 0.25]), np.array([True, False, False, True, True])
FUNCTIONS = {
    "is": lambda x, b: x if b is True else 2.0 * x,
    "is not": lambda x, b: x if b is not False else 2.0 * x,
    "the other way round": lambda x, b: x if True is b else 2.0 * x,
    "match": lambda x, b: x * matched(b),
    "not": lambda x, b: x if not b else 2.0 * x,
    "decided": lambda x, b: x if b else -x,
    "isinstance": lambda x, b: x * (isinstance(b, bool) + 2 * isinstance(b, int)),
    "type": lambda x, b: x * (type(b) is bool),
    "text": lambda x, b: x * (len(str(b)) + len(f"{b!r:>7}") + len(f"{b}")),
    "json": lambda x, b: x * len(json.dumps(b)),
    "logic": lambda x, b: x * len(f"{b & True} {b | False} {b ^ b} {True & b} {(x > 1.0) ^ b}"),
    "signs": lambda x, b: x * (-b + ~int(b) + abs(b) + (+b)),
    "types of signs": lambda x, b: x * len(f"{-b} {+b} {abs(b)} {round(b)} {int(b)} {b + b} {b * 2}"),
    "whole": lambda x, b: x * (b // 2 + 3 // (b + 1) + b % 2 + divmod(b, 2)[1] + 2**b + b**2 + (b << 2) + (8 >> b)),
    "parts": lambda x, b: x * (b.real + b.imag + b.numerator + b.bit_length()),
    "arithmetic": lambda x, b: x * b + b / 2.0 - x**b + (b - x),
    "where": lambda x, b: fs.where(b, x, 2.0 * x),
    "list": lambda x, b: [x, 2.0 * x][b] + {True: x, False: 3.0}[b],
    "compared": lambda x, b: (x if b == 1 else 3.0 * x) + (b >= x),
    "of NumPy": lambda x, b: x * np.array([b, True]).sum() * (np.array([b, b]).dtype == bool),
    "index": lambda x, b: fs.sum(fs.to_tensor([1.0, 2.0])[b]) * x,
    "label": lambda x, b: fs.cross_entropy([x, 2.0 * x], b),
    "functions": lambda x, b: fs.maximum(x, b) + fs.sum([x, b]) + sum([b, b]) + fs.sum(fs.to_tensor([b, x])),
    "copy": lambda x, b: x * len(f"{copy.copy(b)} {copy.deepcopy(b)}"),
    "loop": lambda x, b: fs.loop(100, lambda s: s * 0.99 + b, x),
}


def plainly(f, x, b):
    return [fs.Tensor(f(fs.Tensor(v), k)).data for v, k in zip(x.tolist(), b.tolist(), strict=True)]


@pytest.mark.filterwarnings("ignore::fastscalar.CompileWarning")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_bool_of_a_row_is_one(monkeypatch, name):
    f = FUNCTIONS[name]
    for some in ([0, 1, 2, 3, 4], [2, 0, 1], [1], [3]):
        x, b = X[some], B[some]
        right = pytest.approx(plainly(f, x, b), rel=1e-14)
        program = fs.compile(f)
        assert program.map(x, b).tolist() == right
        assert program.map(x, b).tolist() == right
        assert program.value_and_grad(x, b)[0].tolist() == right
        assert [program(v, k) for v, k in zip(x.tolist(), b, strict=True)] == right          # NumPy's bool,
        assert [program(v, k) for v, k in zip(x.tolist(), b.tolist(), strict=True)] == right         # Python's
        assert fs.compile(lambda x, q: f(x, q["b"][0])).map(x, {"b": b[:, None]}).tolist() == right
        assert fs.compile(f, shared=[1]).map(x, b[0]).tolist() == pytest.approx(plainly(f, x, b[:1].repeat(len(x))))
    monkeypatch.setattr(recorded, "SPECIALIZATIONS", 0)
    assert fs.compile(f).map(X, B).tolist() == pytest.approx(plainly(f, X, B), rel=1e-14)


@pytest.mark.filterwarnings("error")
def test_a_program_that_another_one_calls_gets_them_as_they_are():
    inner = fs.compile(lambda x, b, k: x * (2.0 if b else 3.0) + k * x)
    program, k = fs.compile(lambda x, b, k: inner(x, b, k) * 2.0), np.array([0, 3, 1, 2, 0])
    right = [2.0 * (x * (2.0 if b else 3.0) + i * x) for x, b, i in zip(X.tolist(), B, k, strict=True)]
    assert program.map(X, B, k) == pytest.approx(right)
    assert program.map(X[::-1], B[::-1], k[::-1]) == pytest.approx(right[::-1])
    assert len(program.report().splitlines()) == 2


def test_a_bool_is_no_result():
    for call in (lambda p: p.map(X, B), lambda p: p(1.0, np.True_), lambda p: p(1.0, True)):
        with pytest.raises(TypeError, match=r"as result.*got bool"):
            call(fs.compile(lambda x, b: b))


def asks(x, b):
    return x * (2.0 if b is True else 7.0) + x[0] * x[1]


class Holder:
    def __init__(self):
        self.parts, self.other = [asks], asks

    def __call__(self, x, b):
        return self.parts[0](x, b) * 0.5 + self.other(x, b) * 0.5


HELD = {"asks": asks}
WAYS = {
    "by name": asks,
    "in a dictionary": lambda x, b: HELD["asks"](x, b),
    "in a local name": lambda x, b: (lambda f: f(x, b))(HELD["asks"]),
    "in an object": Holder(),
    "a method": Holder().__call__,
    "a partial": functools.partial(asks),
    "a program": fs.compile(asks),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("way", WAYS)
def test_what_asks_for_a_bool_is_found(way):
    f, x = WAYS[way], np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    program, b = fs.compile(f), B[:3]
    right = np.array([asks(fs.to_tensor(v), k).tolist() for v, k in zip(x, b.tolist(), strict=True)])
    slopes = np.array([fs.jacobian(lambda v, k=k: asks(v, k))(v) for v, k in zip(x, b.tolist(), strict=True)])
    assert program.map(x, b).tolist() == right.tolist()
    assert program.jacobian(x, b).tolist() == slopes.tolist()
    sparse, dense = program.jacobian(x, b, sparse=True), np.zeros((3, 2, 2))
    dense[:, sparse.rows, sparse.columns] = sparse.values        # its function is an object that has this one
    assert dense.tolist() == slopes.tolist()
    assert program.jvp(x, b, tangents=(x, None))[1] == pytest.approx((slopes @ x[..., None])[..., 0])
    assert fs.compile(fs.jacobian(f)).map(x, b).tolist() == slopes.tolist()
    total = fs.compile(lambda x, b: fs.sum(f(x, b)))
    assert total.hessian(x, b).tolist() == [[[0.0, 2.0], [2.0, 0.0]]] * 3


def test_bools_that_nothing_asks_for_tie_no_recording():
    program = fs.compile(lambda x, b: sum(x * k for k in b))
    b = np.random.default_rng(0).random((200, 12)) < 0.5
    x = np.linspace(-1.0, 1.0, 200)
    assert program.map(x, b) == pytest.approx(x * b.sum(axis=1))
    assert len(program.report().splitlines()) == 1


@pytest.mark.parametrize("name", ["is", "where", "text", "decided"])
def test_fit_gives_the_function_bools(name):
    f, losses = FUNCTIONS[name], {}
    for how in ({"compile": False}, {"compile": False, "batch_size": 2}, {}, {"batch_size": 2}):
        w = fs.Tensor(0.5)
        program = fs.compile(lambda x, b, w=w: (f(x, b) - w) ** 2)
        fs.fit(program, X, B, optimizer=fs.SGD(lr=0.1), epochs=2, progress=False, shuffle=False, **how)
        losses.setdefault(how.get("batch_size"), []).append(w.data)
    for found in losses.values():
        assert found[0] == pytest.approx(found[1], rel=1e-12)


def test_bools_in_kept_programs(tmp_path):
    program = fs.compile(lambda x, b, m: (x * 2.0 if b else x * 3.0) + sum(x for k in m if k is True))
    m = np.stack([B, ~B], axis=1)
    right = program.map(X, B, m)
    assert right.tolist() == [x * (2.0 if b else 3.0) + x for x, b in zip(X.tolist(), B, strict=True)]
    program.save(tmp_path / "p.npz")
    program.export_c(tmp_path / "p.c")
    assert ", 0 or 1" in (tmp_path / "p.c").read_text()
    loaded = fs.load_program(tmp_path / "p.npz")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loaded.map(X, B, m).tolist() == right.tolist()
    with pytest.raises(fs.UnrecordedPath):       # whole numbers are another kind of argument
        loaded.map(X, B.astype(int), m)
