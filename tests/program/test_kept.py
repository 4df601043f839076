"""Programs that are saved, loaded, pickled and exported to C."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import json
import pickle
import re
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections import namedtuple

import numpy as np
import pytest

import fastscalar as fs
import fuzzing_programs
from fastscalar import math

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(30, 4))
K = np.arange(30) % 3
Point = namedtuple("Point", "x y")
NET = fs.MLP(4, [6, 3], seed=0)
TABLE = fs.to_tensor([1.0, 2.0, 4.0])
SCALE = fs.Tensor(1.5)


def everything(x, k, p, how="a", flag=True):
    """A bit of all that a recording may hold."""
    s = fs.cross_entropy(NET(x), k) * TABLE[k] * SCALE
    if x[0] > 0:
        s = s * x[1] ** 2 + p["a"] * fs.max([x[0], x[1], x[2]])
    else:
        s = s + math.exp(x[2]) * p["b"][1] + fs.where(x[1] < x[2], x[1], x[2])
    try:
        s = s + math.log(x[3]) * 0.1
    except ValueError:
        s = s - x[3]
    if int(x[1] * 2) == 1:
        s = s + x[fs.argmin([x[0], x[1]])]
    return {"s": s, "all": [fs.softmax(list(x)), Point(s * 2, fs.logsumexp([x[0], x[1]]))]}


P = {"a": 0.3, "b": np.array([1.0, 2.0])}


def leaves(x):
    if isinstance(x, dict):
        return [leaf for v in x.values() for leaf in leaves(v)]
    if isinstance(x, (list, tuple)):
        return [leaf for v in x for leaf in leaves(v)]
    return [] if x is None else [np.asarray(x)]


def same(a, b, tolerance=0.0):
    one, other = leaves(a), leaves(b)
    assert len(one) == len(other)
    for u, v in zip(one, other, strict=True):
        np.testing.assert_allclose(u, v, rtol=tolerance, atol=tolerance)


def made():
    program = fs.compile(everything, shared="p")
    program.map(X, K, P)
    return program


def test_a_saved_program_does_what_it_did(tmp_path):
    program = made()
    expected = program.map(X, K, P), program.jacobian(X, K, P, argnums=(0, 2))
    weights = {"s": 1.0, "all": [np.ones(4), (0.5, 0.25)]}
    program.save(tmp_path / "p.npz")
    loaded = fs.load_program(tmp_path / "p.npz")
    same(loaded.map(X, K, P), expected[0])
    same(loaded.jacobian(X, K, P, argnums=(0, 2)), expected[1])
    same(loaded.map(X, K, P, threads=2), expected[0])
    same(loaded(X[0], int(K[0]), P), program(X[0], int(K[0]), P))
    same(loaded.vjp(X, K, P, cotangents=weights), program.vjp(X, K, P, cotangents=weights))
    assert type(loaded.map(X, K, P)["all"][1])._fields == ("x", "y")
    assert loaded.report() == program.report()
    assert sorted(p.size if isinstance(p, fs.TensorArray) else 1 for p in loaded.parameters) == sorted(
        p.size if isinstance(p, fs.TensorArray) else 1 for p in program.parameters
    )


def test_leaves_stay_trainable(tmp_path):
    w, b = fs.to_tensor([0.0, 0.0]), fs.Tensor(0.0)

    def loss(x, y):
        return (x[0] * w[0] + x[1] * w[1] + b - y) ** 2

    program = fs.compile(loss)
    x = RANDOM.normal(size=(50, 2))
    y = x @ [2.0, -1.0] + 0.5
    program.map(x, y)
    program.save(tmp_path / "loss.npz")
    loaded = fs.load_program(tmp_path / "loss.npz")
    optimizer = fs.SGD(loaded.parameters, lr=0.1)
    for _ in range(300):
        loaded.backward(x, y)
        for p in loaded.parameters:
            p.grad = np.asarray(p.grad) / 50 if isinstance(p, fs.TensorArray) else p.grad / 50
        optimizer.step()
    assert loaded.map(x, y).max() < 1e-6
    assert w.tolist() == [0.0, 0.0]
    loaded.save(tmp_path / "again.npz")
    np.testing.assert_array_equal(fs.load_program(tmp_path / "again.npz").map(x, y), loaded.map(x, y))


READER = """
import sys
import numpy as np
import fastscalar as fs
program = fs.load_program(sys.argv[1])
X = np.load(sys.argv[2])
values, gradients = program.value_and_grad(X)
np.savez(sys.argv[3], values=values, gradients=gradients)
try:
    program.map(np.array([[1.0, 1.0], [-1.0, 50.0]]))
except fs.UnrecordedPath as error:
    print(error)
"""


def test_a_process_without_the_source_reads_it(tmp_path):
    def f(x):
        s = x[0] * 2
        while s < 3.0:
            s = s * 1.5 + abs(x[1]) + 0.1
        if x[1] > 10.0:
            s = s * x[1]
        return s * SCALE

    program = fs.compile(f)
    rows = np.abs(RANDOM.normal(size=(40, 2)))
    values, gradients = program.value_and_grad(rows)
    program.save(tmp_path / "f.npz")
    np.save(tmp_path / "rows.npy", rows)
    (tmp_path / "read.py").write_text(READER)
    names = [str(tmp_path / name) for name in ("read.py", "f.npz", "rows.npy", "out.npz")]
    done = subprocess.run([sys.executable, *names], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(names[3]) as found:
        np.testing.assert_array_equal(found["values"], values)
        np.testing.assert_array_equal(found["gradients"], gradients)
    assert done.stdout.startswith("row 1: f was loaded without its function, and no saved recording fits")


def test_what_was_not_recorded_is_said(tmp_path):
    program = fs.compile(lambda x: x * 2.0 if x > 0 else math.log(x + 5.0))
    program.map(np.array([1.0, -1.0]))
    program.save(tmp_path / "p.npz")
    loaded = fs.load_program(tmp_path / "p.npz")
    with pytest.raises(fs.UnrecordedPath, match=r"row 1: .* no saved recording fits"):
        loaded.map(np.array([1.0, -7.0]))
    with pytest.raises(fs.UnrecordedPath, match="no saved recording fits"):
        loaded(-7.0)
    with pytest.raises(fs.UnrecordedPath):
        loaded.map(np.ones((3, 2)))
    with pytest.raises(fs.UnrecordedPath, match="hessian was not called before the program was saved"):
        loaded.hessian(np.array([1.0]))
    w = fs.Tensor(1.0)
    with pytest.raises(fs.UnrecordedPath):
        loaded(w)


def test_what_cannot_be_saved_is_said(tmp_path):
    program = fs.compile(lambda x: x * 2.0)
    with pytest.raises(ValueError, match="save: nothing was recorded yet"):
        program.save(tmp_path / "p.npz")
    with pytest.raises(ValueError, match="export_c: nothing was recorded yet"):
        program.export_c(tmp_path / "p.c")
    own = fs.custom_op(lambda x: x * 3.0, lambda x: 3.0)
    callback = fs.compile(lambda x: own(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        callback.map(np.array([1.0, 2.0]))
    if not any(cache.all() for cache in callback._caches.values()):
        with pytest.raises((ValueError, TypeError), match=r"save: .*(Python|callback)"):
            callback.save(tmp_path / "p.npz")
    program(1.0)
    program.map(np.ones((2, 2)))
    with pytest.raises(ValueError, match="called with 2 kinds of arguments"):
        program.export_c(tmp_path / "p.c")
    assert list(tmp_path.iterdir()) == []


def rewritten(path, change):
    """The file with another header, or with other arrays."""
    with np.load(path) as file:
        members = {name: file[name] for name in file.files}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in members.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def test_mutated_files_are_refused_or_called(tmp_path):
    assert 30 < fuzzing_programs.fuzz_programs(tmp_path / "fuzz", 300, 11) < 200


def test_damaged_files_are_refused(tmp_path):
    """Whatever number of the graph is changed: the file is refused, or what it computes is of this process's memory."""
    program = fs.compile(everything, shared="p")
    program.map(X[:6], K[:6], P)
    path, copied = tmp_path / "p.npz", tmp_path / "q.npz"
    program.save(path)
    with np.load(path) as file:
        count = len(file["ints"])
    refused = 0
    random = np.random.default_rng(1)
    for _ in range(150):
        shutil.copy(path, copied)
        at, value = int(random.integers(count)), int(random.choice([-7, -1, 0, 3, 10**6, 2**31 - 1]))

        def change(members, at=at, value=value):
            members["ints"] = members["ints"].copy()
            members["ints"][at] = value

        rewritten(copied, change)
        try:
            loaded = fs.load_program(copied)
        except ValueError:
            refused += 1
            continue
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            with contextlib.suppress(fs.UnrecordedPath, ValueError, ArithmeticError, TypeError):
                loaded.map(X[:6], K[:6], P)
    assert refused > 50


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.update(version=99),
        lambda h: h.update(version="1"),
        lambda h: h.update(format="a net"),
        lambda h: h["program"]["caches"][0]["recordings"][0]["graph"].update(names={"1": "no such operation"}),
        lambda h: h["program"]["caches"][0].update(kinds=[["number"]]),
        lambda h: h["program"]["caches"][0].update(result={"tuple": [None, None]}),
        lambda h: h["program"].pop("caches"),
        lambda h: h["program"]["caches"][0]["recordings"][0]["graph"]["columns"].pop(),
        lambda h: h["leaves"].clear(),
    ],
)
def test_headers_that_say_something_else_are_refused(tmp_path, change):
    program = fs.compile(lambda x: x[0] * SCALE + x[1] * math.sin(x[0]))
    program.map(X)
    program.save(tmp_path / "p.npz")

    def other(members):
        header = json.loads(str(members["header"]))
        change(header)
        members["header"] = np.array(json.dumps(header))

    rewritten(tmp_path / "p.npz", other)
    with pytest.raises(ValueError, match=r"p\.npz: not a program written by save\(\)"):
        fs.load_program(tmp_path / "p.npz")


def test_files_that_are_no_programs(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        fs.load_program(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="expected the file"):
        fs.load_program(tmp_path)
    (tmp_path / "text.npz").write_text("no archive")
    fs.MLP(2, [2], seed=0).save(tmp_path / "net.npz")
    program = made()
    program.save(tmp_path / "whole.npz")
    (tmp_path / "half.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:2000])
    for name in ("text.npz", "net.npz", "half.npz"):
        with pytest.raises(ValueError, match="not a program written by save"):
            fs.load_program(tmp_path / name)


# --- pickles --------------------------------------------------------------------------------------------

CALLS = []


def counted(x):
    CALLS.append(1)
    return x[0] * SCALE * x[1] if x[0] > 0 else x[1] + TABLE[0]


def test_a_pickle_has_the_recordings():
    program = fs.compile(counted)
    expected = program.map(X)
    for other in (pickle.loads(pickle.dumps(program)), copy.copy(program), copy.deepcopy(program)):
        CALLS.clear()
        np.testing.assert_array_equal(other.map(X), expected)
        assert len(CALLS) == 2                   # the first row again, and one that reads a leaf which that does not
        SCALE.grad = 0.0
        other.backward(X)
        assert SCALE.grad != 0.0
        SCALE.grad = 0.0


ARGUMENTS = {
    "number": (2.0, lambda x, p: x * p),
    "whole": (3, lambda x, p: x * p),
    "rows": (np.array([1.0, 2.0]), lambda x, p: x * p[0] + p[1]),
    "wholes": (np.array([1, 2]), lambda x, p: x * p[0] + p[1]),
    "array": (np.eye(2), lambda x, p: x * p[1][0] + p[1][1]),
    "nest": ({"a": 1.5, "b": np.array([1.0, 2.0])}, lambda x, p: x * p["a"] + p["b"][1]),
}


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_a_pickle_knows_shared_arguments_of_every_kind(kind):
    """Of its example too, which is recorded once more in the other process."""
    shared, f = ARGUMENTS[kind]
    x = np.array([1.0, 2.0])
    program = fs.compile(f, shared="p")
    expected = program.map(x, shared)
    other = copy.copy(program)
    assert "operation" in other.report()
    np.testing.assert_array_equal(other.map(x, shared), expected)


def test_a_pickle_of_a_loaded_program(tmp_path):
    program = made()
    program.save(tmp_path / "p.npz")
    loaded = pickle.loads(pickle.dumps(fs.load_program(tmp_path / "p.npz")))
    same(loaded.map(X, K, P), program.map(X, K, P))
    with pytest.raises(fs.UnrecordedPath):
        loaded.map(X[:, :3], K, P)


# --- C --------------------------------------------------------------------------------------------------

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")


def compiled(path):
    library = path.with_suffix(".so")
    flags = ["-O1", "-std=c99", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-shared", "-fPIC"]
    done = subprocess.run([COMPILER, *flags, "-o", str(library), str(path), "-lm"], capture_output=True, text=True,
                          timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = re.findall(r"\bfs_\w+", path.read_text())
    assert all(names.count(name) > 1 for name in names)          # clang warns of functions that are not used
    return ctypes.CDLL(str(library))


def run(library, name, rows, results):
    """Results, derivatives and status of each row, by the functions for a batch, which are those for a row."""
    doubles, ints = ctypes.POINTER(ctypes.c_double), ctypes.POINTER(ctypes.c_int)
    rows = np.ascontiguousarray(rows, float)
    n, size = rows.shape
    y, d, again = np.full((n, results), np.nan), np.full((n, results, size), np.nan), np.full((n, results), np.nan)
    status = np.full((2, n), 9, np.int32)

    def at(a):
        return a.ctypes.data_as(ints if a.dtype == np.int32 else doubles)

    batch, derivatives = getattr(library, f"{name}_batch"), getattr(library, f"{name}_derivatives_batch")
    batch.restype = derivatives.restype = ctypes.c_long
    missed = derivatives(ctypes.c_long(n), at(rows), at(y), at(d), at(status[0]))
    assert batch(ctypes.c_long(n), at(rows), at(again), at(status[1])) == (status[1] != 0).sum()
    assert missed == (status[0] != 0).sum()
    good = (status == 0).all(axis=0)
    np.testing.assert_array_equal(again[good], y[good])
    one, one_d = np.full(results, np.nan), np.full((results, size), np.nan)
    for k in np.flatnonzero(good)[:3]:
        row = rows[k].copy()
        assert getattr(library, name)(at(row), at(one)) == 0
        np.testing.assert_array_equal(one, y[k])
        assert getattr(library, f"{name}_derivatives")(at(row), at(one), at(one_d)) == 0
        np.testing.assert_array_equal(one_d, d[k])
    return y, d, status


@pytest.mark.dear
@needs_compiler
def test_exported_c_does_what_the_program_does(tmp_path):
    program = made()
    program.export_c(tmp_path / "pricer.c")
    library = compiled(tmp_path / "pricer.c")
    rows = np.column_stack([X, K, np.full(30, P["a"]), np.tile(P["b"], (30, 1))])
    y, d, status = run(library, "pricer", rows, 7)
    assert not status.any()
    values, jacobian = program.map(X, K, P), program.jacobian(X, K, P, argnums=(0, 2))
    np.testing.assert_allclose(y[:, 0], values["s"], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(y[:, 1:5], values["all"][0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(y[:, 6], values["all"][1].y, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(d[:, 0, :4], jacobian["s"][0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(d[:, 1:5, :4], jacobian["all"][0][0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(d[:, 0, 5], jacobian["s"][1]["a"], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(d[:, 0, 6:], jacobian["s"][1]["b"], rtol=1e-12, atol=1e-12)
    assert not d[:, :, 4].any()


FORMULAS = {
    "powers": lambda x: abs(x[0]) ** x[1] + x[2] ** 3 - x[3] % 0.7 + x[0] // 0.3,
    "logarithms": lambda x: math.log(abs(x[0]) + 0.1) + math.log1p(abs(x[1])) + math.log2(x[2] ** 2 + 1)
    + math.log10(x[3] ** 2 + 1) + math.expm1(x[0] * 0.1) + math.exp2(x[1]),
    "trigonometry": lambda x: math.sin(x[0]) + math.cos(x[1]) * math.tan(x[2] * 0.3) + math.asin(math.tanh(x[3]))
    + math.acos(math.tanh(x[0])) + math.atan(x[1]) + math.atan2(x[2], x[3]) + math.hypot(x[0], x[1]),
    "hyperbolic": lambda x: math.sinh(x[0]) + math.cosh(x[1]) + math.asinh(x[2]) + math.acosh(abs(x[3]) + 1.1)
    + math.atanh(math.tanh(x[0])),
    "special": lambda x: math.erf(x[0]) + math.erfc(x[1]) + math.lgamma(abs(x[2]) + 0.5) + math.gamma(abs(x[3]) + 0.5),
    "units": lambda x: fs.relu(x[0]) + fs.sigmoid(x[1]) + fs.softplus(x[2]) + fs.silu(x[3]) + fs.gelu(x[0])
    + fs.elu(x[1]) + fs.leaky_relu(x[2]),
    "rounding": lambda x: math.floor(x[0]) * x[1] + round(x[2]) * x[3] + math.copysign(x[0], x[1])
    + math.fmod(x[2], 0.4) + math.cbrt(x[3]) + math.degrees(x[0]) + math.radians(x[1]),
    "extremes": lambda x: fs.maximum(x[0], x[1]) + fs.minimum(x[2], x[3]) + max(x[0], x[2]) * fs.min([x[1], x[3]]),
    "one of them": lambda x: x[2],
    "constant": lambda x: 2.5,
}  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("name", FORMULAS)
def test_exported_formulas(tmp_path, name):
    program = fs.compile(FORMULAS[name])
    values, gradients = program.value_and_grad(X)
    path = tmp_path / "double.c"                 # a word of C's
    program.export_c(path)
    y, d, status = run(compiled(path), "p_double", X, 1)
    assert not status.any()
    np.testing.assert_allclose(y[:, 0], values, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(d[:, 0], gradients, rtol=1e-12, atol=1e-12)


class Stream(ctypes.Structure):
    _fields_ = (("seed", ctypes.c_uint64), ("epoch", ctypes.c_uint64), ("row", ctypes.c_int64),
                ("antithetic", ctypes.c_int))  # fmt: skip


def drawing(x):
    noise = fs.random.normal(3)
    s = fs.loop(70, lambda s: s + 0.1 * x[0] * fs.random.uniform(), x[1])
    return s * noise[0] + fs.random.bernoulli(0.3) * x[2] + noise[2]


@needs_compiler
@pytest.mark.parametrize("antithetic", [False, True])
def test_exported_random_numbers(tmp_path, antithetic):
    """Each row draws what the program draws, in loops too."""
    program = fs.compile(drawing)
    stream = {"seed": 9, "epoch": 2, "row_offset": 4, "antithetic": antithetic}
    values, gradients = program.value_and_grad(X, **stream)
    program.export_c(tmp_path / "walk.c")
    library = compiled(tmp_path / "walk.c")
    rows = np.ascontiguousarray(X, dtype=float)
    y, d, given = np.full(len(X), np.nan), np.full(X.shape, np.nan), Stream(9, 2, 4, antithetic)
    function = library.walk_derivatives_batch
    function.restype = ctypes.c_long
    place = [a.ctypes.data_as(ctypes.POINTER(ctypes.c_double)) for a in (rows, y, d)]
    assert function(ctypes.c_long(len(X)), *place, None, ctypes.byref(given)) == 0
    np.testing.assert_allclose(y, values, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(d, gradients, rtol=1e-12, atol=1e-12)


def doubled(x, y=1.0):
    return fs.while_loop(lambda s: s[0] < x[1], lambda s: (s[0] * 2.0 + x[0] * y, s[1] + y), (1.0, y))[0]


def slope_of_doubled(x):
    return fs.grad(lambda y: doubled(x, y))(x[0] + 1.5)


@needs_compiler
def test_exported_loops(tmp_path):
    """Each row has its own number of steps, with derivatives too: also one that no row before had."""
    for k, f in enumerate((doubled, slope_of_doubled)):
        program = fs.compile(f)
        rows = np.array([[0.5, 10.0], [0.6, 10.0], [0.1, 1e6]])
        program.map(rows[:2])
        program.export_c(tmp_path / f"{k}.c", name="loops")
        y, d, status = run(compiled(tmp_path / f"{k}.c"), "loops", rows, 1)
        assert not status.any()
        values, slopes = program.value_and_grad(rows)
        np.testing.assert_allclose(y[:, 0], values, rtol=1e-12)
        np.testing.assert_allclose(d[:, 0], slopes, rtol=1e-12)


def test_derivatives_of_an_own_operation_are_kept(tmp_path):
    """One whose value and derivatives are operations of Tensors: of what is given as its derivative, not of how its
    value is computed."""
    odd = fs.custom_op(lambda a, b: a * a * b, lambda a, b: (a * a * a, math.sin(b)), name="odd")

    def f(x):
        return odd(odd(x[0], x[1]) + x[2], x[0] * x[3]) * x[1]

    program, slopes = fs.compile(f), fs.compile(lambda x: fs.sum(fs.grad(f)(x) ** 2))
    second, (values, gradients) = program.hessian(X), slopes.value_and_grad(X)
    for k, row in enumerate(X[:5]):
        np.testing.assert_allclose(second[k], fs.hessian(f)(row), rtol=1e-11, atol=1e-12)
        x = fs.to_tensor(row)
        y = fs.sum(fs.grad(f)(x) ** 2)
        y.backward()
        assert y.data == pytest.approx(values[k], rel=1e-12)
        np.testing.assert_allclose(gradients[k], x.grad, rtol=1e-11, atol=1e-12)
    program.map(X)
    program.save(tmp_path / "f.npz")
    np.testing.assert_array_equal(fs.load_program(tmp_path / "f.npz").hessian(X), second)


W = fs.to_tensor([0.3, -0.2, 0.9])


def several_loops(x):
    """A loop in a loop, its number in it, leaves, a decision; plain loops that are found, with what they collect."""
    def step(k, s):
        h, n = s
        h = np.tanh(h * W + 0.1 * k * x[0])
        return h, fs.loop(n=9, step=lambda t: t * 0.9 if t > x[1] else t + 0.3, state=n)

    h, s = fs.loop(75, step, (fs.to_tensor([0.1, 0.2, 0.3]), x[2]))
    states = [s]
    for k in range(200):
        states.append(states[-1] * 0.99 + 0.01 * math.sin(states[-1] * k) * W[1])
    total = x[3]
    for k, state in enumerate(states):
        total = total + state * state * math.cos(0.1 * k) + 0.1 * state
    return {"total": total, "some": (states[40], fs.sum(h))}


@pytest.mark.dear
@needs_compiler
def test_exported_loops_are_loops(tmp_path):
    rows = np.random.default_rng(1).normal(size=(6, 4)) * 0.2 + np.array([0.0, -5.0, 0.0, 0.0])
    program = fs.compile(several_loops)
    values, jacobian = program.map(rows), program.jacobian(rows)
    program.export_c(tmp_path / "f.c")
    y, d, status = run(compiled(tmp_path / "f.c"), "f", rows, 3)
    assert not status.any()
    assert (tmp_path / "f.c").read_text().count("loop of") > 4
    assert (tmp_path / "f.c").stat().st_size < 120_000
    np.testing.assert_allclose(y, np.stack([values["total"], *values["some"]], 1), rtol=1e-12, atol=1e-12)
    found = np.stack([jacobian["total"], *jacobian["some"]], 1)
    np.testing.assert_allclose(d, found, rtol=1e-11, atol=1e-12)


@needs_compiler
def test_the_status_of_rows_that_are_not_computed(tmp_path):
    program = fs.compile(lambda x: math.log(x[0]) if x[1] > 0 else x[0] * x[1])
    program.map(np.array([[1.0, 1.0], [2.0, 3.0]]))
    program.export_c(tmp_path / "f.c", name="own name")
    y, _, status = run(compiled(tmp_path / "f.c"), "own_name", [[1.0, 2.0], [-1.0, 2.0], [1.0, -2.0]], 1)
    assert status.tolist() == [[0, 2, 1], [0, 2, 1]]
    assert y[0, 0] == 0.0
    assert np.isnan(y[1:]).all()


SPECIAL = (0.0, -0.0, math.inf, -math.inf, math.nan, 1e300, -1e300, 1e-310, 1.0, -1.5, 2.0)
RAISING = [
    lambda x, y: x / y, lambda x, y: x % y, lambda x, y: x // y, lambda x, y: x**y, math.fmod, math.remainder,
    lambda x, y: math.floor(x) * y, lambda x, y: math.ceil(x) + y, lambda x, y: math.exp(x) + math.log(y),
    lambda x, y: math.sqrt(x) * math.acosh(y), lambda x, y: math.gamma(x) - math.lgamma(y),
    lambda x, y: (math.tan(x), y % 3.0)[1],
]  # fmt: skip


@needs_compiler
def test_exported_c_raises_where_the_function_does(tmp_path):
    rows = np.array([(x, y, k) for k in range(len(RAISING)) for x in SPECIAL for y in SPECIAL])
    wanted = np.full(len(rows), np.nan)
    raises = np.zeros(len(rows), int)
    program = fs.compile(lambda x, y, k: RAISING[k](x, y))
    for i, (x, y, k) in enumerate(rows.tolist()):
        try:
            wanted[i] = RAISING[int(k)](fs.Tensor(x), fs.Tensor(y)).data
        except (ValueError, ArithmeticError):
            raises[i] = 2
    some = raises == 0
    program.map(rows[some, 0], rows[some, 1], rows[some, 2].astype(int))
    program.export_c(tmp_path / "f.c")
    y, _, status = run(compiled(tmp_path / "f.c"), "f", rows, 1)
    np.testing.assert_array_equal(status, [raises, raises])
    np.testing.assert_allclose(y[some, 0], wanted[some], rtol=1e-12)


LISTED = [3.0, 1.0, -2.0, 7.0, 5.0]
OF_WHOLE_NUMBERS = {
    "of a list": lambda x, k: LISTED[k] * x,
    "of a dictionary": lambda x, k: dict(enumerate(LISTED))[int(k)] * x,
    "computed": lambda x, k: (k * k + 1) * x,
    "steps": lambda x, k: sum((x * i for i in range(abs(k))), x),
    "taken among Tensors": lambda x, k: [x, x * x, 2.0 * x, 1.0 + x, -x][k],
}


@needs_compiler
@pytest.mark.parametrize("known", [(0, 3), (2,), (1, 2, 4)])
@pytest.mark.parametrize("name", OF_WHOLE_NUMBERS)
def test_exported_c_knows_the_whole_numbers_that_were_recorded(tmp_path, name, known):
    """No others: a row of one that was not is unrecorded, or right."""
    f = OF_WHOLE_NUMBERS[name]
    program = fs.compile(f)
    for k in known:
        program.map(np.array([1.5]), np.array([k]))
    program.export_c(tmp_path / "f.c")
    rows = np.array([(0.5 + k, k) for k in range(-5, 8)])
    y, d, status = run(compiled(tmp_path / "f.c"), "f", rows, 1)
    for k, found, (by_x, _), own in zip(rows[:, 1].astype(int).tolist(), y[:, 0], d[:, 0], status.T, strict=True):
        assert (own == 0).all() if k in known else (own != 0).any() or k in range(-5, 5)
        x = fs.Tensor(0.5 + k)
        if own[1] == 0:
            assert found == f(x, k).data
        if own[0] == 0:
            assert by_x == fs.grad(f)(0.5 + k, k)


@needs_compiler
def test_exported_derivatives_go_all_ways_that_were_recorded(tmp_path):
    """Of a loop too whose bodies were recorded of several rows."""
    solve = fs.implicit(lambda t, a: t * t * t + t - a)
    program = fs.compile(lambda x: solve(0.5, x))
    rows = np.linspace(-3.0, 3.0, 7)[:, None]
    for row in rows:
        program.map(row)
    program.export_c(tmp_path / "f.c")
    y, d, status = run(compiled(tmp_path / "f.c"), "f", rows, 1)
    assert not status.any()
    values, slopes = program.value_and_grad(rows[:, 0])
    np.testing.assert_allclose(y[:, 0], values, rtol=1e-12)
    np.testing.assert_allclose(d[:, 0, 0], slopes, rtol=1e-9)


# --- single precision, reports --------------------------------------------------------------------------


def test_single_precision():
    program = fs.compile(lambda x: math.exp(x[0]) * x[1] + x[2] * SCALE)
    rows = X[:, :3].copy()
    along = {"tangents": rows}
    methods: dict = {name: {} for name in ("map", "value_and_grad", "jacobian", "hessian", "backward")}
    methods |= {"jvp": along, "hvp": along}
    for method, more in (*methods.items(), ("vjp", {"cotangents": 1.0})):
        wide = leaves(getattr(program, method)(rows, **more))
        narrow = leaves(getattr(program, method)(rows, dtype="float32", **more))
        assert all(a.dtype == np.float32 for a in narrow)
        for a, b in zip(wide, narrow, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6)
        with pytest.raises(ValueError, match="dtype: expected 'float64' or 'float32', got 'float16'"):
            getattr(program, method)(rows, dtype="float16", **more)


def test_details_of_a_report():
    program = fs.compile(lambda x: x * 2.0 if x > 0 else (x if x > -1 else x * x))
    program.map(np.array([1.0, 2.0, 3.0, -0.5, -0.7, -2.0]))
    lines = program.report(details=True).splitlines()
    assert lines[0].startswith("3 rows: 1 operations -> 1 *")
    assert "decides on test_kept.py:" in lines[1]
    assert lines[1].endswith("kB")
    assert len(lines) == 7
    many = fs.compile(lambda x: x * float(int(x)))
    many.map(np.arange(40.0) + 0.5)
    lines = many.report(details=True).splitlines()
    assert len(lines) == 18
    assert lines[16].startswith("32 more recordings: 32 rows, ")
    assert fs.compile(lambda x: x).report(details=True).endswith("nothing was recorded yet")
