"""The n-th allocation fails, for every n of a scenario: `python tests/helpers/faults.py SCENARIO|all [EACH]`.

Allocations are Python's and the engine's alike (CPython's own hook, `_testcapi.set_nomemory`).  Each n has a process of
its own, forked from one in which the scenario has run before, so that caches are full and a crash is seen.  There the
scenario ends with MemoryError or with the right result; after it the tape is whole, and the same work gives the same
numbers.  EACH: only every so many n.  The last line says how many failed and how many ended in which way.
"""

from __future__ import annotations

import collections
import dis
import faulthandler
import gc
import io
import linecache
import os
import re
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import fastscalar as fs
from fastscalar.engine import testing

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 4))
Y = np.arange(12) % 3
PATIENCE = 100  # seconds for one n

LOST = "an error of NumPy's or Python's"
CRASHED = "a crash of Python 3.11's"
GOOD = ("MemoryError", "the right result", LOST, CRASHED)
OF_NUMBERS_ALONE = {"scalar_graph", "attributes", "second_order", "own_operation", "no_grad", "a_collection",
                    "an_exception"}  # fmt: skip

Work = Callable[[], Any]
SCENARIOS: dict[str, Callable[[], Work]] = {}


def scenario(make: Callable[[], Work]) -> Callable[[], Work]:
    SCENARIOS[make.__name__] = make
    return make


@scenario
def scalar_graph() -> Work:
    x, y = fs.Tensor(1.5), fs.Tensor(-0.5)

    def work() -> Any:
        kept = [x * y]
        for _ in range(60):  # more than there are free Tensors to be had without an allocation
            kept.append((kept[-1] * y).exp() + x / y - abs(y) ** 1.5)
        kept[-1].backward()
        return kept[-1].data, x.grad, y.grad

    return work


@scenario
def attributes() -> Work:
    def work() -> Any:
        x = fs.Tensor(2.0)
        x.note = [1, 2]
        y = x * x
        y.other = "b"
        y.backward()
        return x.grad, x.note, y.other

    return work


@scenario
def second_order() -> Work:
    x = fs.Tensor(0.7)

    def work() -> Any:
        y = x.sin() * x
        y.backward(create_graph=True)
        return y.data

    return work


@scenario
def own_operation() -> Work:
    def work() -> Any:
        x = fs.Tensor(3.0)
        out = fs.Tensor(x.data**2, (x,))

        def step() -> None:
            x.grad += 2.0 * x.data * out.grad

        out._backward = step
        (out * 2.0).backward()
        return x.grad

    return work


@scenario
def no_grad() -> Work:
    x = fs.Tensor(3.0)

    def work() -> Any:
        with fs.no_grad():
            y = x * x
        return y.data, bool((x * x)._parents)

    return work


@scenario
def a_collection() -> Work:
    kept = [fs.Tensor(float(k)) * 2.0 for k in range(50)]

    def work() -> Any:
        for k in range(200):
            fs.Tensor(float(k)) * 2.0
        testing.collect()
        return [t.data for t in kept]

    return work


@scenario
def arrays() -> Work:
    a, w = fs.to_tensor(X), fs.to_tensor(RNG.normal(size=(4, 3)))

    def work() -> Any:
        loss = (a @ w).tanh().sum() + (a[2:5, ::2] * 2.0).mean()
        loss.backward()
        return loss.data, a.grad.tolist(), w.grad.tolist()

    return work


@scenario
def softmax_and_selections() -> Work:
    a = fs.to_tensor(X[0])

    def work() -> Any:
        total = fs.softmax(a)[1] + fs.logsumexp(a) + fs.max(list(a)) + fs.where(a[0] > a[1], a[2], a[3])
        total.backward()
        return total.data, a.grad.tolist()

    return work


@scenario
def cross_entropy_of_a_net() -> Work:
    net = fs.MLP(4, [5, 3], seed=0)

    def work() -> Any:
        loss = fs.cross_entropy(net(X[0]), 1)
        loss.backward()
        return loss.data, net.linears[0].w.grad.tolist()

    return work


def _program() -> fs.Program:
    w = fs.to_tensor(np.linspace(-1.0, 1.0, 4))
    return fs.compile(lambda x: (w[0] * x[0]).tanh() + w[1] * x[1] if x[2] > 0.0 else w[2] * x[3] * x[3])


@scenario
def recording_of_a_program() -> Work:
    return lambda: _program().map(X).tolist()


@scenario
def a_replay() -> Work:
    program = _program()
    program.map(X)
    return lambda: program.map(X).tolist()


@scenario
def gradients_of_a_program() -> Work:
    program = _program()

    def work() -> Any:
        values, slopes = program.value_and_grad(X)
        return values.tolist(), slopes.tolist()

    return work


@scenario
def a_program_in_single_precision() -> Work:
    program = _program()
    return lambda: program.map(X, dtype="float32", threads=2).tolist()


@scenario
def a_saved_program() -> Work:
    program = _program()
    program.map(X)
    path = os.path.join(tempfile.mkdtemp(), "program.npz")

    def work() -> Any:
        program.save(path)
        return fs.load_program(path).map(X).tolist()

    return work


@scenario
def an_epoch() -> Work:
    def work() -> Any:
        net = fs.MLP(4, [5, 3], seed=0)
        fs.fit(net, X, Y, optimizer=fs.Adam(lr=0.01), epochs=1, batch_size=5, progress=False)
        return fs.predict_proba(net, X).tolist()

    return work


@scenario
def an_eager_epoch() -> Work:
    def work() -> Any:
        net = fs.MLP(4, [5, 3], seed=0)
        fs.fit(net, X[:4], Y[:4], epochs=1, progress=False, compile=False)
        return fs.predict_proba(net, X[:4]).tolist()

    return work


@scenario
def a_saved_net() -> Work:
    net = fs.MLP(4, [5, 3], seed=0)
    path = os.path.join(tempfile.mkdtemp(), "net.npz")

    def work() -> Any:
        net.save(path)
        return fs.predict(fs.load(path), X).tolist()

    return work


@scenario
def derivatives_of_a_function() -> Work:
    def f(x: Any) -> Any:
        return x[0] * x[1] ** 2 + fs.math.sin(x[2])

    return lambda: (fs.grad(f)([1.0, 2.0, 3.0]), np.asarray(fs.hessian(f)([1.0, 2.0, 3.0])).tolist())


@scenario
def an_idx_file() -> Work:
    path = os.path.join(tempfile.mkdtemp(), "images.idx")
    images = (np.arange(2 * 5 * 5) % 251).astype(np.uint8).reshape(2, 5, 5)

    def work() -> Any:
        fs.datasets.save_idx(path, images)
        return fs.datasets.load_idx(path).tolist()

    return work


@scenario
def an_exception() -> Work:
    zero = fs.Tensor(0.0)

    def work() -> Any:
        try:
            zero.log()
        except ValueError as error:
            return str(error)
        return None

    return work


def optimizer(name: str, make: Callable[[], Any]) -> None:
    def an_epoch() -> Work:
        def work() -> Any:
            net = fs.MLP(4, [3, 3], seed=0)
            fs.fit(net, X[:6], Y[:6], optimizer=make(), epochs=1, batch_size=3, progress=False)
            return net.linears[0].w.data.tolist()

        return work

    SCENARIOS[f"an_epoch_of_{name}"] = an_epoch


for its_name, make_it in {
    "sgd": lambda: fs.SGD(lr=0.01),
    "momentum": lambda: fs.SGD(lr=0.01, momentum=0.9, nesterov=True),
    "adamw": lambda: fs.AdamW(lr=0.01, weight_decay=0.1),
    "rmsprop": lambda: fs.RMSprop(lr=0.01),
}.items():
    optimizer(its_name, make_it)


@scenario
def loops_in_a_program() -> Work:
    w = fs.Tensor(0.5)

    def work() -> Any:
        program = fs.compile(lambda x: fs.loop(3, lambda s: (w * s + x[0]).tanh(), x[1])
                             + fs.while_loop(lambda s: s < 4.0, lambda s: s * 2.0, x[2].exp()))  # fmt: skip
        values, slopes = program.value_and_grad(X)
        return values.tolist(), slopes.tolist()

    return work


@scenario
def an_equation_that_is_solved() -> Work:
    a = fs.Tensor(2.0)

    def work() -> Any:
        root = fs.implicit(lambda x, a: x * x - a)(1.0, a)
        root.backward()
        return root.data, a.grad

    return work


@scenario
def a_jacobian() -> Work:
    return lambda: fs.jacobian(lambda x: [x[0] * x[1], x[1].sin()])([1.0, 2.0])


@scenario
def products_with_vectors() -> Work:
    def f(x: Any) -> Any:
        return x[0] * x[1] * x[1]

    return lambda: (fs.jvp(f, ([1.0, 2.0],), ([1.0, 0.0],)), fs.hvp(f, ([1.0, 2.0],), ([0.0, 1.0],)))


@scenario
def own_functions_in_a_program() -> Work:
    w = fs.Tensor(0.5)
    area = fs.custom_op(lambda r: 3.0 * r * r, lambda r: 6.0 * r, name="area")

    def work() -> Any:
        program = fs.compile(lambda x: area(w * x[0]) * x[1])
        w.grad = 0.0
        return program.map(X).tolist(), program.backward(X).tolist(), w.grad

    return work


@scenario
def random_numbers() -> Work:
    def work() -> Any:
        with fs.random.stream(seed=3, row=1):
            plain = fs.random.normal() + fs.random.uniform()
        return plain, fs.compile(lambda x: x[0] * fs.random.normal()).map(X, seed=7).tolist()

    return work


@scenario
def threads() -> Work:
    program = _program()
    rows = np.tile(X, (40, 1))
    return lambda: (program.map(rows, threads=2).tolist(), program.backward(rows, threads=2).tolist())


@scenario
def a_module() -> Work:
    net = fs.nn.Sequential(fs.Linear(4, 3), fs.nn.LayerNorm(3), fs.relu)

    def work() -> Any:
        loss = fs.mse_loss(net(X[0]), [0.0, 1.0, 0.0])
        loss.backward()
        fs.sgd(list(net.parameters()), 0.0)
        return loss.data

    return work


NUMBER = re.compile(r"-?\d+\.\d+(?:e[-+]\d+)?")


def the_same(found: str, expected: str) -> bool:
    """To rounding: where a step cannot be compiled, it is done without."""
    if NUMBER.sub("", found) != NUMBER.sub("", expected):
        return False
    return bool(np.allclose(*(list(map(float, NUMBER.findall(text))) for text in (found, expected)), 1e-12, 1e-15))


def lost_on_the_way(error: BaseException) -> bool:
    """NumPy's indexing, reductions and buffers lose a MemoryError; Python's locks and os.fspath say something else."""
    text = str(error)
    if isinstance(error, SystemError):  # of a function of Cython's the message has the name
        return "without" in text and "cyfunction" not in text
    ends = {ValueError: "invalid field name", RuntimeError: " lock", TypeError: "not PosixPath"}
    return type(error) in ends and text.endswith(ends[type(error)])


def another(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(last.filename)}:{last.lineno}"
    return re.sub(" at 0x[0-9a-f]+", "", f"another exception: {type(error).__name__}: {str(error)[:200]} ({where})")


def one(name: str, work: Work, expected: str, n: int) -> str:
    """In the child: what became of it, "end" if there were not so many allocations."""
    import _testcapi  # not everywhere

    sys.stderr = io.StringIO()  # what destructors could not do is told there
    failed = lost = False
    _testcapi.set_nomemory(n, n + 1)
    try:
        found = work()
    except MemoryError:
        failed = True
    except BaseException as error:
        _testcapi.remove_mem_hooks()
        if name in OF_NUMBERS_ALONE or not lost_on_the_way(error):
            return another(error)
        failed, lost = True, True
    finally:
        _testcapi.remove_mem_hooks()
    if not failed and not the_same(repr(found), expected):
        return f"a wrong result: {found!r}"[:300]
    gc.collect()
    testing.check()
    again = repr(work())
    if not the_same(again, expected):
        return f"another result afterwards: {again}"[:300]
    testing.check()
    return LOST if lost else "MemoryError" if failed else "the right result"


def crashed(signal_name: str, trace: str) -> str:
    """Where, by faulthandler's trace.  Python 3.11 itself crashes without memory in `dict.items()` (dictiter_new drops
    an iterator that the collector does not know yet), and in `dis`."""
    inner = re.search(r'File "(.*)", line (\d+)', trace)
    if inner is None:
        return f"a crash: {signal_name}"
    path, line = inner[1], int(inner[2])
    if sys.version_info < (3, 12) and (path == dis.__file__ or ".items()" in linecache.getline(path, line)):
        return CRASHED
    return f"a crash: {signal_name} ({os.path.basename(path)}:{line})"


def forked(name: str, work: Work, expected: str, n: int) -> str:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(PATIENCE)
            faulthandler.enable(write, all_threads=False)
            warnings.simplefilter("ignore")
            said = one(name, work, expected, n)
            os.write(write, said.encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return crashed(signal.Signals(os.WTERMSIG(status)).name, said)
    return said or "no word"


def begun(name: str) -> tuple[Work, str]:
    """The scenario's work after it has filled the caches, and what it gives."""
    work = SCENARIOS[name]()
    for _ in range(3):
        expected = repr(work())
    gc.collect()
    gc.freeze()  # a collection in a child looks at what the scenario made, not at all of NumPy
    return work, expected


def run(name: str, each: int = 1, first: int = 0, patience: int = 200_000) -> tuple[int, dict[str, list[int]]]:
    """How many allocations failed, and by what became of it, for which n."""
    work, expected = begun(name)
    ways: dict[str, list[int]] = collections.defaultdict(list)
    calm = 0  # so many in a row had the right result: the scenario has fewer allocations
    n = first
    while calm < 60 and n < patience:
        became = forked(name, work, expected, n)
        ways[became].append(n)
        calm = calm + 1 if became == "the right result" else 0
        n += each
    return sum(map(len, ways.values())), dict(ways)


def main(words: list[str]) -> int:
    names = list(SCENARIOS) if words[0] == "all" else [words[0]]
    each = int(words[1]) if len(words) > 1 else 1
    bad = total = 0
    for name in names:
        count, ways = run(name, each)
        total += count
        wrong = {way: at[:20] for way, at in ways.items() if way not in GOOD}
        bad += sum(len(at) for way, at in ways.items() if way in wrong)
        print(f"{name}: {count} allocations failed; {({way: len(at) for way, at in ways.items()})}", flush=True)
        for way, at in wrong.items():
            print(f"    {way}: n = {at}", flush=True)
    print(f"{total} allocations of {len(names)} scenarios failed, {bad} of them badly")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
