"""Python code in every place where it can run inside the engine; signals, threads, refused memory."""

import gc
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import _core
from fastscalar.engine import testing
from interrupts import seconds_of
from threads import side_by_side

STRESS = _core.tape_info()["stress"]
MANY = 200 if STRESS else 100_000  # nodes: enough to collect and to grow

needs_signals = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers here")


def use_the_engine():
    """Emit, collect, run backward, drop handles: everything that a callback can do to the tape."""
    x = fs.Tensor(3.0)
    y = x
    for _ in range(MANY):
        y = y * 1.0 + x
    y.backward()
    assert x.grad == MANY + 1
    held = [fs.Tensor(k) for k in range(100)]
    del held[::2], x, y
    testing.collect()
    fs.Linear(3, 2, seed=0)([1.0, 2.0, 3.0])[0].backward()


class Evil:
    """A number whose conversion uses the engine."""

    calls = 0

    def __init__(self, value=2.0):
        self.value = value

    def __float__(self):
        Evil.calls += 1
        use_the_engine()
        return self.value


class EvilReal(Evil, float):
    """The same as an operand: operators take subclasses of float by their value, so nothing runs."""

    def __new__(cls, value=2.0):
        return float.__new__(cls, value)


@pytest.fixture
def real():
    """Evil numbers that count as real numbers, as a user's own numeric class does."""
    import numbers

    numbers.Real.register(Evil)
    before = Evil.calls
    yield Evil
    assert Evil.calls > before


# --- __float__ ----------------------------------------------------------------------------------------------


def test_a_conversion_that_uses_the_engine_in_the_constructor(real):
    below = [fs.Tensor(1.0) for _ in range(100)]
    a = fs.Tensor(Evil(2.5))
    del below
    testing.collect()
    assert a.data == 2.5
    a.data = Evil(1.5)
    a.grad = Evil(0.5)
    assert (a.data, a.grad) == (1.5, 0.5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "operation", [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / b, lambda a, b: a**b]
)
def test_a_conversion_that_uses_the_engine_in_an_operator(real, operation, side):
    below = [fs.Tensor(1.0) for _ in range(1000)]
    a = fs.Tensor(3.0)
    del below  # the first collection moves `a`
    y = operation(a, Evil()) if side == "right" else operation(Evil(), a)
    assert y.data == (operation(3.0, 2.0) if side == "right" else operation(2.0, 3.0))
    assert y._parents[0 if side == "right" else 1] is a
    y.backward()
    assert a.grad != 0.0


def test_a_conversion_that_uses_the_engine_in_a_comparison(real):
    below = [fs.Tensor(9.0) for _ in range(1000)]
    a = fs.Tensor(3.0)
    del below
    assert a > Evil(2.0)
    assert a == Evil(3.0)


def test_a_conversion_that_uses_the_engine_in_lists(real):
    net = fs.Linear(3, 2, seed=0)
    expected = net([1.0, 2.0, 3.0]).tolist()
    a = fs.Tensor(1.0)
    for x in (
        [1.0, Evil(), 3.0],
        [a, Evil(), 3.0],
        (Evil(1.0), 2.0, Evil(3.0)),
        np.array([1.0, Evil(), 3], dtype=object),
    ):
        out = net(x)
        assert out.tolist() == expected
        fs.squared_loss(out, [Evil(), a]).backward()
    assert fs.to_tensor([[Evil(), 1.0], [2.0, Evil(7.0)]]).tolist() == [[2.0, 1.0], [2.0, 7.0]]
    assert fs.to_tensor([a, Evil(5.0)])[1].data == 5.0
    y = fs.to_tensor([1.0, 2.0]) * [Evil(), 3.0]
    assert y.tolist() == [2.0, 6.0]
    assert fs.cross_entropy(fs.to_tensor([0.0, 0.0, 0.0]), Evil(2.0)).data == pytest.approx(np.log(3))
    assert fs.cross_entropy(net([[1.0, 2.0, 3.0]] * 2), [Evil(1.0), 0]).data > 0


def test_a_conversion_that_raises_leaves_everything_as_it_was():
    class Refuses:
        def __float__(self):
            raise LookupError("no")

    import numbers

    numbers.Real.register(Refuses)
    a = fs.Tensor(3.0)
    for use in (
        lambda: fs.Tensor(Refuses()),
        lambda: a * Refuses(),
        lambda: Refuses() * a,
        lambda: a < Refuses(),
        lambda: setattr(a, "data", Refuses()),
        lambda: fs.to_tensor([1.0, Refuses()]),
        lambda: fs.Linear(2, 1)([a, Refuses()]),
        lambda: fs.cross_entropy(fs.to_tensor([1.0, 2.0]), Refuses()),
        lambda: fs.cross_entropy(fs.to_tensor([[1.0, 2.0]] * 2), [0, Refuses()]),
    ):
        with pytest.raises(LookupError):
            use()
    assert (a.data, a.grad) == (3.0, 0.0)


def test_a_tensor_that_is_initialised_while_it_is_initialised():
    held = [fs.Tensor.__new__(fs.Tensor)]

    class Twice:
        def __float__(self):
            held[0].__init__(1.0)
            return 2.0

    with pytest.raises(TypeError, match="second time"):
        held[0].__init__(Twice())
    assert held[0].data == 1.0
    with pytest.raises(TypeError, match="second time"):
        held[0].__init__(3.0)
    y = held[0] * 2
    held.clear()
    testing.check()
    assert y._parents[0].data == 1.0


def test_a_list_that_changes_while_it_is_converted(real):
    net = fs.Linear(3, 2, seed=0)

    class Shrinks(Evil):
        def __float__(self):
            x.clear()
            return super().__float__()

    for x in ([Shrinks(), 2.0, 3.0], [1.0, Shrinks(), fs.Tensor(3.0)], [[Shrinks(), 2.0, 3.0], [1.0, 2.0, 3.0]]):
        try:
            out = net(x)
        except ValueError as error:  # shorter when it is looked at again: refused, or taken as it was
            assert "ragged" in str(error) or "empty" in str(error)  # noqa: PT017
        else:
            assert out.shape[-1] == 2

    class Grows(Evil):
        def __float__(self):
            y.append(1.0)
            return super().__float__()

    y = [Grows(), 2.0]
    assert fs.to_tensor(y).shape == (2,)


def test_iterables_that_use_the_engine(real):
    def numbers_that_work():
        for k in range(3):
            use_the_engine()
            yield float(k)

    assert fs.to_tensor(numbers_that_work()).tolist() == [0.0, 1.0, 2.0]
    assert fs.Linear(3, 1, seed=0)(numbers_that_work()).shape == (1,)
    assert fs.Tensor(Evil()).data == 2.0


def test_an_index_that_uses_the_engine():
    class Index:
        def __index__(self):
            use_the_engine()
            return 1

    below = [fs.Tensor(1.0) for _ in range(1000)]
    a = fs.to_tensor([[1.0, 2.0], [3.0, 4.0]])
    del below
    assert a[Index()].tolist() == [3.0, 4.0]
    assert a[Index(), Index()].data == 4.0
    assert a[Index() :].tolist() == [[3.0, 4.0]]


def test_a_subclass_of_float_counts_by_its_value():
    a = fs.Tensor(3.0)
    assert (a * EvilReal(2.0)).data == 6.0


# --- attributes ---------------------------------------------------------------------------------------------


def churn(n=MANY):
    for k in range(n):
        fs.Tensor(k)
    testing.collect()


def test_attributes_of_a_dropped_handle_come_back_with_the_same_object():
    a = fs.Tensor(2.0)
    y = a * 3
    a.name, a.tags = "input", ["x"]
    identity = id(a)
    del a
    churn()
    a = y._parents[0]
    assert id(a) == identity
    assert (a.name, a.tags) == ("input", ["x"])
    del a.name
    with pytest.raises(AttributeError, match="name"):
        a.name
    with pytest.raises(AttributeError, match="nothing"):
        del a.nothing


def test_a_dictionary_keyed_by_a_pinned_tensor_finds_it_again():
    a = fs.Tensor(2.0)
    y = a * 3
    a.name = "a"
    table = {hash(a): "found"}
    del a
    churn()
    assert table[hash(y._parents[0])] == "found"


def test_attributes_of_array_elements_live_with_the_array():
    w = fs.to_tensor([[1.0, 2.0], [3.0, 4.0]])
    w[1][0].name = "w10"
    w[0][1].name = "w01"
    churn()
    assert (w[1][0].name, w[0][1].name) == ("w10", "w01")
    assert not hasattr(w[0][0], "name")


def test_attributes_die_with_their_node():
    class Value:
        pass

    import weakref

    testing.collect()
    before = _core.tape_info()["pinned"]
    held = []
    for make in (lambda: fs.Tensor(1.0), lambda: fs.to_tensor([1.0, 2.0])[1], lambda: fs.Tensor(2.0) * 3):
        t = make()
        t.value = Value()
        held.append((weakref.ref(t.value), t * 2))
        del t
        churn()
        assert held[-1][0]() is not None  # its node is alive: something was computed from it
    assert _core.tape_info()["pinned"] == before + 3
    references = [reference for reference, _ in held]
    held.clear()
    testing.collect()
    assert [reference() for reference in references] == [None] * 3
    assert _core.tape_info()["pinned"] == before


def test_attributes_of_old_nodes_and_many_of_them():
    tensors = [fs.Tensor(k) for k in range(300)]
    for k, t in enumerate(tensors):
        t.number = k
    products = [t * 2 for t in tensors]
    del tensors, t
    churn()
    churn()
    assert [p._parents[0].number for p in products] == list(range(300))
    del products[::2]
    churn()
    assert [p._parents[0].number for p in products] == list(range(1, 300, 2))


def test_a_destructor_of_an_attribute_that_uses_the_engine():
    log = []

    class Value:
        def __init__(self, k):
            self.k = k

        def __del__(self):
            use_the_engine()
            log.append(self.k)

    for k in range(5):
        t = fs.Tensor(k)
        t.value = Value(k)
        t.again = fs.Tensor(1.0)
        del t
    churn()
    assert sorted(log) == [0, 1, 2, 3, 4]
    a = fs.Tensor(1.0)
    a.value = Value(9)
    a.value = None  # replaced
    assert log[-1] == 9
    a.value = Value(8)
    del a.value
    assert log[-1] == 8


def test_a_destructor_that_sets_attributes_and_keeps_the_node_s_number():
    revived = []

    class Value:
        def __del__(self):
            t = fs.Tensor(7.0)
            t.mark = "from a destructor"
            revived.append(t)

    t = fs.Tensor(1.0)
    t.value = Value()
    del t
    churn()
    churn()
    assert [t.mark for t in revived] == ["from a destructor"]
    assert revived[0].data == 7.0


def test_attribute_names_of_the_class_are_not_attributes_of_the_user():
    a = fs.Tensor(1.0)
    for name in ("backward", "relu", "_parents", "_op", "item"):
        with pytest.raises(AttributeError):
            setattr(a, name, 1)
        with pytest.raises(AttributeError):
            delattr(a, name)
    pinned = _core.tape_info()["pinned"]
    a.data = 3.0
    assert a.data == 3.0
    assert _core.tape_info()["pinned"] == pinned


# --- Python's own collector ---------------------------------------------------------------------------------


def test_finalizers_of_python_s_collector_that_use_the_engine():
    """They run at any allocation that the collector tracks: between any two steps of the engine that are not safe."""
    ran = []

    class Cycle:
        def __init__(self):
            self.me = self
            self.tensor = fs.Tensor(1.0) * 2

        def __del__(self):
            ran.append(self.tensor.data)
            x = fs.Tensor(3.0)
            y = x * x + self.tensor
            y.backward()
            assert x.grad == 6.0
            testing.collect()

    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        net = fs.MLP(3, [4, 2], seed=1)
        expected = None
        for _ in range(20):
            Cycle()
            x = [fs.Tensor(1.0), 2.0, fs.Tensor(-1.0)]
            loss = fs.cross_entropy(net(x), 1) + (x[0] * x[2]) ** 2
            parents = loss._parents
            loss.backward()
            found = (loss.data, x[0].grad, net.linears[0].w.grad.tolist(), len(parents[0]._parents), loss._op)
            expected = expected or found
            assert found == expected
            fs.to_tensor([[1.0, x[0]], [2.0, 3.0]])
            (net.linears[0].w[::2] * [[1.0] * 4, [2.0] * 4]).sum().backward()
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    assert len(ran) == 20


# --- threads ------------------------------------------------------------------------------------------------


def test_threads_that_build_and_differentiate_their_own_graphs():
    done = []

    def work(seed):
        rng = np.random.default_rng(seed)
        net = fs.MLP(6, [5, 3], seed=seed)
        alone = []
        for _ in range(60 if not STRESS else 6):
            x = rng.normal(size=6)
            loss = fs.cross_entropy(net(x), seed % 3)
            a = fs.Tensor(float(seed))
            for k in range(30):
                loss = loss + a * (k * 1e-3)
            loss.backward()
            assert abs(a.grad - sum(k * 1e-3 for k in range(30))) < 1e-12
            fs.sgd(net.parameters(), 0.1)
            alone.append(loss.data)
        done.append((seed, alone))

    assert not side_by_side(work, 6, interval=1e-5)
    together = dict(done)
    done.clear()
    for seed in range(6):
        work(seed)
    assert together == dict(done)


def test_two_threads_in_backward_over_one_graph():
    x = fs.Tensor(1.0)
    y = x
    for _ in range(MANY):
        y = y + x
    seen = []

    def work():
        for _ in range(10):
            y.backward()
        seen.append(x.grad)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(300)
    assert seen == [MANY + 1.0] * 3


# --- signals ------------------------------------------------------------------------------------------------


def long_chain(n=3_000_000):
    x = fs.Tensor(1.0)
    y = x
    for _ in range(n):
        y = y + x
    return x, y


class Alarm:
    """Calls `handler` from a signal, again and again, while a block runs; `count` of the calls inside backward."""

    def __init__(self, handler, interval=0.002):
        self.handler, self.interval, self.inside = handler, interval, 0

    def __enter__(self):
        self.before = signal.signal(signal.SIGALRM, self._call)
        signal.setitimer(signal.ITIMER_REAL, self.interval, self.interval)
        return self

    def _call(self, number, frame):
        self.inside += self.handler()

    def __exit__(self, *exc):
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, self.before)


def in_backward():
    """Whether the engine is in a backward pass of this thread: then another one is refused."""
    t = fs.Tensor(1.0)
    try:
        t.backward()
    except RuntimeError as error:
        assert "inside a backward pass" in str(error)  # noqa: PT017
        return True
    return False


needs_big = pytest.mark.skipif(STRESS, reason="a backward long enough for a signal has three million nodes")


@needs_signals
@needs_big
def test_a_signal_handler_that_uses_the_engine_during_backward():
    x, y = long_chain()
    net = fs.Linear(3, 2, seed=0)
    held = []

    def handler():
        inside = in_backward()
        held.append(fs.Tensor(1.0) * 2)
        held.extend(net([1.0, 2.0, 3.0]))
        held.append(fs.to_tensor(np.ones(1000)))
        fs.sgd(net.parameters(), 0.1)
        held[-1][3].name = "x"
        if len(held) > 200:
            del held[::2]
        return inside

    with Alarm(handler) as alarm:
        for _ in range(200):
            y.backward()
            assert x.grad == 3_000_001.0
            if alarm.inside >= 5:
                break
    assert alarm.inside >= 5
    assert all(t.data == 2.0 for t in held if isinstance(t, fs.Tensor) and t._op == "*")


@needs_signals
@needs_big
def test_a_signal_handler_that_calls_backward_gets_a_runtime_error():
    x, y = long_chain()
    z = fs.Tensor(2.0) * 3
    parent = z._parents[0]

    def many_times():
        for _ in range(500):
            y.backward()

    with Alarm(lambda: z.backward() or 0), pytest.raises(RuntimeError, match="inside a backward pass"):
        many_times()
    testing.check()
    y.backward()
    z.backward()
    assert (x.grad, parent.grad) == (3_000_001.0, 3.0)


@needs_signals
@needs_big
def test_a_signal_handler_that_steps_the_weights_in_the_middle_of_their_backward():
    """It takes gradients away that are not complete: what they are is unspecified, but later ones are right."""
    w = fs.to_tensor(np.ones((4, 3)))
    y = w[1][1] * 2.0  # the last to be differentiated, after the handler has run
    first = (w[2] * 3.0).sum()
    x = fs.Tensor(1.0)
    for _ in range(3_000_000):
        y = y + x
    loss = y + first + (w[1] * 5.0).sum() + w[2][0] * w[3][1]

    def handler():
        fs.sgd([w], 0.0)
        return in_backward()

    with Alarm(handler) as alarm:
        for _ in range(200):
            loss.backward()
            if alarm.inside >= 5:
                break
    assert alarm.inside >= 5
    testing.check()
    (w[0][0] * 3.0).backward()
    fs.sgd([w], 0.0)
    assert not np.asarray(w.grad).any()
    loss.backward()
    assert w.grad.tolist() == [[0.0, 0.0, 0.0], [5.0, 7.0, 5.0], [4.0, 3.0, 3.0], [0.0, 1.0, 0.0]]


@needs_signals
@needs_big
def test_an_exception_in_a_signal_handler_ends_the_backward_and_nothing_else():
    x, y = long_chain()
    net = fs.Linear(3, 2, seed=0)

    class Stop(Exception):
        pass

    def stop():
        if in_backward():
            raise Stop
        return 0

    stopped = 0
    for _ in range(200):
        try:
            with Alarm(stop):
                (y + net([1.0, 2.0, 3.0])[0]).backward()
        except Stop:
            stopped += 1
            assert x.grad < 3_000_001.0  # it was in the middle
            testing.check()
            if stopped == 3:
                break
    assert stopped == 3
    y.backward()
    assert x.grad == 3_000_001.0


INTERRUPTED = """
    import sys, time
    import numpy as np
    import fastscalar as fs
    from fastscalar import _core
    from fastscalar.engine import testing

    def chain():
        x = fs.Tensor(1.0)
        y = x
        for _ in range(10_000_000):
            y = y + x
        return y.backward

    def layer():
        net, X = fs.Linear(784, 256, seed=0), np.random.default_rng(0).normal(size=(40_000, 784))
        return lambda: net(X)

    def layer_backward():
        net, X = fs.Linear(784, 256, seed=0), np.random.default_rng(0).normal(size=(40_000, 784))
        y = net(X)
        return y.sum().backward

    work = {what}()
    a = fs.Tensor(3.0)
    try:
        print("ready", flush=True)
        while True:
            work()
    except KeyboardInterrupt:
        print("stopped", flush=True)
        input()
    testing.check()
    y = a * a
    y.backward()
    assert a.grad == 6.0
    print("works", flush=True)
"""


def run_python(code, **keywords):
    folder = pathlib.Path(fs.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(folder), "FASTSCALAR_STRESS": "0"}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, env=environment, **keywords
    )


@pytest.mark.big
@pytest.mark.parametrize("what", ["chain", "layer", "layer_backward"])
def test_ctrl_c_stops_long_native_work_within_a_second(what):
    assert any(seconds_until_it_stops(what) < 1.0 for _ in range(3)), "three times it was not"


def seconds_until_it_stops(what):
    """Seconds of the processor: others that use it do not count."""
    process = run_python(INTERRUPTED.replace("{what}", what), stdin=subprocess.PIPE)
    give_up = threading.Timer(120, process.kill)  # reading has no time-out
    give_up.start()
    try:
        assert process.stdout.readline() == "ready\n"
        begin = seconds_of(process.pid)
        while (start := seconds_of(process.pid)) < begin + 0.3 and process.poll() is None:
            time.sleep(0.01)  # until it is in the middle of its work
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "stopped\n"
        seconds = seconds_of(process.pid) - start
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.read() == "works\n"  # not communicate(), which passes over what readline() has read ahead
        process.wait(timeout=300)
    finally:
        give_up.cancel()
        process.kill()
    assert process.returncode == 0
    return seconds


@needs_signals
@needs_big
@pytest.mark.parametrize("quiet", [False, True], ids=["recording", "no_grad"])
def test_a_signal_handler_that_uses_the_engine_during_a_large_layer(quiet):
    """A large batch is computed in portions, and the same bits come out whatever a handler does in between."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 784))
    net = fs.Linear(784, 256, seed=0)
    g = rng.normal(size=(3000, 256))
    held = []

    def handler():
        held.append(fs.Tensor(1.0) * 2)
        held.extend(fs.Linear(3, 2, seed=0)([1.0, 2.0, 3.0]))
        return in_backward()

    def run():
        if quiet:
            with fs.no_grad():
                return net(X).numpy().tobytes(), b""
        x = fs.to_tensor(X)
        out = net(x)
        (out * g).sum().backward()
        return out.numpy().tobytes(), *(np.asarray(p.grad).tobytes() for p in (net.w, net.b, x))

    expected = run()
    with fs.no_grad():
        assert np.array([net(x).numpy() for x in X[::500]]).tobytes() == net(X[::500]).numpy().tobytes()
        assert np.frombuffer(expected[0]).reshape(3000, 256)[::500].tobytes() == net(X[::500]).numpy().tobytes()
    if not quiet:
        np.testing.assert_allclose(np.frombuffer(expected[1]).reshape(784, 256), X.T @ g, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(np.frombuffer(expected[2]), g.sum(axis=0), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(
            np.frombuffer(expected[3]).reshape(3000, 784), g @ net.w.numpy().T, rtol=1e-9, atol=1e-9
        )
    with Alarm(handler, 0.001) as alarm:
        for _ in range(20):
            assert run() == expected
            if quiet or alarm.inside >= 3:
                break
    assert len(held) >= 3
    assert quiet or alarm.inside >= 3
    assert _core.tape_info()["nodes"] < 10_000_000


# --- memory that is refused ---------------------------------------------------------------------------------


class Model:
    """Some of everything, and what it looks like."""

    def __init__(self):
        self.net = fs.MLP(3, [4, 2], seed=1)
        self.x = fs.to_tensor([1.0, 0.0, -2.0])
        self.a = fs.Tensor(2.0)
        self.a.name = "a"
        self.hidden = self.net.linears[0](self.x).relu()
        self.out = self.net.linears[1](self.hidden)
        self.loss = fs.cross_entropy(self.out, 1) + self.a * self.out[0] ** 2
        self.loss.backward()
        self.kept = [*self.loss._parents, self.out[1], self.net.linears[0].w[1][2]]

    def look(self):
        arrays = [self.x, self.hidden, self.out, *(p for layer in self.net.linears for p in (layer.w, layer.b))]
        return (
            [(p.numpy().tobytes(), np.asarray(p.grad).tobytes()) for p in arrays],
            [(t.data, t.grad, t._op, len(t._parents)) for t in [self.a, self.loss, *self.kept]],
            self.a.name,
            [p is q for p, q in zip(self.loss._parents, self.kept, strict=False)],
        )


OPERATIONS = {
    "a new Tensor": lambda m: fs.Tensor(1.0),
    "a + b": lambda m: m.a + m.loss,
    "a * number": lambda m: m.a * 3.0,
    "number / a": lambda m: 1 / m.a,
    "-a": lambda m: -m.a,
    "relu": lambda m: m.a.relu(),
    "detach": lambda m: m.a.detach(),
    "to_tensor": lambda m: fs.to_tensor(np.ones((50, 20))),
    "to_tensor of a list": lambda m: fs.to_tensor([1.0, 2.0]),
    "to_tensor of a mixed list": lambda m: fs.to_tensor([1.0, m.a]),
    "Linear of numbers": lambda m: m.net.linears[0]([1.0, 0.0, 2.0]),
    "Linear of an array": lambda m: m.net.linears[0](np.ones((4, 3))),
    "Linear of leaves": lambda m: m.net.linears[0](m.x),
    "Linear of a list": lambda m: m.net.linears[0]([m.a, 1.0, m.loss]),
    "a new Linear": lambda m: fs.Linear(5, 40, seed=0)(np.ones(5)),
    "relu of an array": lambda m: m.out.relu(),
    "map of two arrays": lambda m: m.out * m.out,
    "map with a list": lambda m: m.out[::-1] * [1.0, m.a],
    "sum": lambda m: m.hidden[::2].sum(),
    "squared_loss": lambda m: fs.squared_loss(m.out, [1.0, m.a]),
    "cross_entropy": lambda m: fs.cross_entropy(m.out, 0),
    "cross_entropy of rows": lambda m: fs.cross_entropy(m.net([[1.0, 2.0, 3.0]] * 2), [0, 1]),
    "element": lambda m: m.hidden[2],
    "slice": lambda m: m.net.linears[0].w[::2, 1:],
    "parents": lambda m: m.hidden[1]._parents,
    "attribute": lambda m: setattr(m.out[0], "name", "out"),
    "loop": lambda m: sum([m.a * k for k in range(50)], fs.Tensor(0.0)),
}
WRITING = {
    "backward": lambda m: m.loss.backward(),
    "accumulate": lambda m: m.loss.backward(accumulate=True),
    "local step": lambda m: m.loss._backward(),
    "sgd": lambda m: fs.sgd(m.net.parameters(), 0.1),
    "data": lambda m: setattr(m.x, "data", [5.0, 6.0, 7.0]),
    "grad": lambda m: setattr(m.net.linears[0].w[2][1], "grad", 5.0),
}


@pytest.mark.parametrize("quiet", [False, True], ids=["recording", "no_grad"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_refused_memory_is_a_memory_error_and_leaves_everything_as_it_was(stress, name, quiet):
    """In stress mode every safepoint asks for all columns anew, so that every operation has something to be refused."""
    model = Model()
    before = model.look()
    outcomes = []
    for k in range(40):
        testing.fail_after(k)
        try:
            if quiet:
                with fs.no_grad():
                    OPERATIONS[name](model)
            else:
                OPERATIONS[name](model)
            outcomes.append("done")
        except MemoryError:
            outcomes.append("refused")
        finally:
            testing.fail_after(-1)
        testing.check()
        assert model.look() == before
    if name not in ("element", "slice", "parents", "attribute"):
        assert "refused" in outcomes
    OPERATIONS[name](model)  # and it still works
    assert model.look()[0] == before[0]
    model.loss.backward()
    assert model.look() == before


@pytest.mark.parametrize("name", WRITING)
def test_backward_and_writing_ask_for_no_memory(stress, name):
    model, other = Model(), Model()
    WRITING[name](other)
    testing.fail_after(0)
    try:
        WRITING[name](model)
    finally:
        testing.fail_after(-1)
    assert model.look() == other.look()


def test_refused_memory_when_tables_grow():
    """Array operations, attributes: each table asks for room in several pieces, any of which may be refused."""
    arrays, tensors, refused = [], [], 0
    for k in range(300):
        for what in ("array", "attribute"):
            for at in (0, 1, 2, 3, None):
                if at is not None:
                    testing.fail_after(at)
                try:
                    if what == "array":
                        arrays.append(fs.to_tensor([float(k), 1.0]))
                    else:
                        t = fs.Tensor(k)
                        t.number = k
                        tensors.append(t)
                except MemoryError:
                    refused += 1
                    if what == "attribute" and "t" in locals():
                        assert not hasattr(t, "number") or t in tensors
                finally:
                    testing.fail_after(-1)
    assert refused > 300
    testing.check()
    assert all(t.number == t.data for t in tensors)
    assert all(a.data[1] == 1.0 for a in arrays)


def test_growth_that_is_refused_and_what_a_collection_before_it_did():
    """A collection may give room back; when the growth after it is refused, the engine knows the room that is left."""
    size = 600_000 if not STRESS else 2000
    big = [fs.Tensor(k) for k in range(size)]
    kept = big[::1000]
    del big
    for k in range(40):
        dead = [fs.Tensor(j) for j in range(size // 2)]
        del dead
        testing.fail_after(k % 20)
        try:
            fs.to_tensor(np.ones(3 * size))
        except MemoryError:
            pass
        finally:
            testing.fail_after(-1)
        testing.check()
        more = [fs.Tensor(j) for j in range(1000)]
        assert [t.data for t in more[::100]] == list(range(0, 1000, 100))
    assert [t.data for t in kept] == list(range(0, size, 1000))


def test_a_collection_that_is_refused_its_scratch_is_skipped():
    held = [fs.Tensor(k) for k in range(1000)]
    size = 400_000 if not STRESS else 400
    more = [fs.Tensor(k) * 2 for k in range(size)]  # more than any collection before had to look at
    del held[::2], more[::3]
    nodes = _core.tape_info()["nodes"]
    testing.fail_after(0)
    testing.collect()
    testing.fail_after(-1)
    testing.check()
    after = _core.tape_info()["nodes"]
    testing.collect()
    assert _core.tape_info()["nodes"] <= after <= nodes
    assert [t.data for t in held[:3]] == [1.0, 3.0, 5.0]


@pytest.mark.skipif(STRESS, reason="stress mode takes room beyond the limit")
def test_the_limit_of_the_tape_is_a_clear_memory_error():
    nodes = _core.tape_info()["capacity"] + 1000
    before = testing.set_max_nodes(nodes)
    a = fs.Tensor(3.0)
    held = []
    try:
        with pytest.raises(MemoryError, match=rf"at most {nodes:,} nodes"):
            held.extend(fs.Tensor(k) if k % 2 else a * 2 for k in range(nodes + 10))
        with pytest.raises(MemoryError, match=rf"at most {nodes:,} nodes"):
            fs.to_tensor(np.ones(nodes))
        with pytest.raises(MemoryError, match="nodes"):
            fs.Linear(1, 10, seed=0)(np.ones((nodes, 1)))
        assert held[-1].data in (6.0, len(held) - 1)
        del held[: len(held) // 2]
        y = a * 2  # a full collection finds room before the limit is an error
        y.backward()
        assert (y.data, a.grad) == (6.0, 2.0)
    finally:
        testing.set_max_nodes(before)
    fs.Tensor(1.0)


# Nothing that runs Python code: CPython 3.12 and 3.13 crash when a generator or a frame is refused its memory.
NO_MEMORY = """
    import _testcapi
    import fastscalar as fs
    from fastscalar import _core
    from fastscalar.engine import testing

    net = fs.Linear(3, 2, seed=0)
    x = [fs.Tensor(1.0), fs.Tensor(2.0), 3.0]
    a, b = fs.Tensor(2.0), fs.Tensor(3.0)
    operations = {
        "tensor": lambda: fs.Tensor(1.5),
        "scalar": lambda: a * b + 1.0,
        "layer": lambda: net(x),
        "constants": lambda: net([1.0, 2.0, 3.0]),
        "array": lambda: fs.to_tensor([1.0, 2.0]),
        "loss": lambda: fs.squared_loss(x[:2], [1.0, 2.0]),
        "entropy": lambda: fs.cross_entropy(x[:2], 1),
        "parents": lambda: (a * b)._parents,
        "element": lambda: net.w[1][1],
        "attribute": lambda: setattr(a, "name", "a"),
    }
    refused = dict.fromkeys(operations, 0)
    for name, operation in operations.items():
        for k in range(60):
            kept = []
            try:
                _testcapi.set_nomemory(k, k + 1)
                try:
                    kept.append(operation())
                finally:
                    _testcapi.remove_mem_hooks()
            except MemoryError:
                refused[name] += 1
            testing.check()
            assert (a.data, b.data, [float(t) for t in x]) == (2.0, 3.0, [1.0, 2.0, 3.0])
    y = a * b
    y.backward()
    assert (a.grad, b.grad) == (3.0, 2.0)
    assert all(refused[name] for name in ("layer", "array", "loss", "entropy")), refused
    print("works")
"""


def test_memory_that_python_itself_is_refused(monkeypatch):
    pytest.importorskip("_testcapi", reason="this Python has no _testcapi")
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # it needs memory of Python's own
    process = run_python(NO_MEMORY)
    assert process.communicate(timeout=300)[0] == "works\n"
    assert process.returncode == 0
