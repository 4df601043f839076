"""What belongs to a thread: blocks that it dies in or that another one leaves; programs that several threads use."""

import gc
import threading
import time

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import _core
from fastscalar.engine import testing
from fastscalar.engine._anomaly import detects_anomalies
from fastscalar.transforms.watch import Watch, tracing

TIMEOUT = 300


def in_thread(work, *args):
    """What work(*args) returns or raises in a thread of its own, which has ended."""
    found = []

    def run():
        try:
            found.append((work(*args), None))
        except BaseException as error:
            found.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    result, error = found[0]
    if error is not None:
        raise error
    return result


def records():
    """Whether this thread's operations are recorded."""
    return bool((fs.Tensor(1.0) * 2.0)._parents)


BLOCKS = {
    "no_grad": (fs.no_grad, lambda: not records()),
    "detect_anomaly": (fs.debug.detect_anomaly, detects_anomalies),
}


@pytest.fixture(params=BLOCKS)
def block(request):
    """A context, and whether it is in force in this thread."""
    return BLOCKS[request.param]


def suspended(context):
    """A generator that stops inside a block."""

    def run():
        with context():
            yield
        yield

    return run()


def test_a_thread_that_dies_inside_a_block_takes_it_along(block):
    context, is_on = block
    g = suspended(context)
    in_thread(next, g)
    assert not is_on()
    for _ in range(20):                          # threads that may have its number
        assert not in_thread(is_on)
    del g
    gc.collect()
    assert not is_on()


def test_a_thread_that_dies_inside_a_block_that_it_opened_by_hand(block):
    context, is_on = block
    blocks = [context() for _ in range(3)]
    in_thread(lambda: [b.__enter__() for b in blocks])
    assert not is_on()
    assert not in_thread(is_on)


def test_a_block_that_is_left_in_another_thread(block):
    """A clear error there, and the first thread is out of the block."""
    context, is_on = block
    g = suspended(context)
    next(g)
    assert is_on()
    with pytest.raises(RuntimeError, match="another thread"):
        in_thread(next, g)
    assert not is_on()
    assert not in_thread(is_on)


def test_a_block_of_a_thread_that_has_ended_is_left_in_another(block):
    context, is_on = block
    g = suspended(context)
    in_thread(next, g)
    with pytest.raises(RuntimeError, match="another thread"):
        next(g)
    assert not is_on()


def test_the_generator_of_a_dead_thread_is_collected_in_silence(block, recwarn):
    context, is_on = block
    unraisable = []
    g = suspended(context)
    in_thread(next, g)
    import sys

    before, sys.unraisablehook = sys.unraisablehook, unraisable.append
    try:
        del g
        gc.collect()
    finally:
        sys.unraisablehook = before
    assert not unraisable
    assert not is_on()


def test_a_block_that_was_not_entered(block):
    context, is_on = block
    with pytest.raises(RuntimeError, match="without having been entered"):
        context().__exit__(None, None, None)
    assert not is_on()


def test_one_block_object_for_all(block):
    """Nested in itself, and in several threads at once."""
    context, is_on = block
    shared = context()
    inside, go_on = threading.Event(), threading.Event()

    def other():
        with shared, shared:
            inside.set()
            assert go_on.wait(TIMEOUT)
            assert is_on()

    thread = threading.Thread(target=other, daemon=True)
    with shared:
        with shared:
            thread.start()
            assert inside.wait(TIMEOUT)
            assert is_on()
        assert is_on()
    if context is fs.no_grad:
        assert not is_on()
    go_on.set()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert not is_on()


def test_blocks_left_in_any_order(block):
    context, is_on = block
    first, second = suspended(context), suspended(context)
    next(first), next(second)
    next(first)
    assert is_on()
    next(second)
    assert not is_on()


def test_a_block_around_a_recording_that_is_left_inside_it():
    """A generator that was in no_grad goes on inside a function that is recorded, and the other way round."""
    g = suspended(fs.no_grad)
    next(g)
    f = fs.compile(lambda x: (next(g), x * x)[1])
    assert f(3.0) == 9.0
    assert records()
    kept = []

    def h(x):
        kept.append(suspended(fs.no_grad))
        next(kept[-1])
        return x * x

    assert fs.compile(h)(3.0) == 9.0
    assert records()
    for inner in kept:
        next(inner)
    assert records()
    testing.check()


def test_what_a_thread_traced_ends_with_it():
    def work():
        Watch([fs.Tensor(1.0)]).__enter__()
        assert tracing()

    in_thread(work)
    assert not tracing()
    testing.check()


def test_collection_goes_on_after_threads_that_died_in_blocks():
    testing.collect()
    before, n = _core.tape_info()["nodes"], 2_000 if _core.tape_info()["stress"] else 50_000
    for _ in range(50):
        in_thread(next, suspended(fs.no_grad))
    for _ in range(3):
        s = fs.Tensor(0.0)
        for _ in range(n):
            s = s + 1.0
        del s
    testing.collect()
    assert _core.tape_info()["nodes"] < before + n


# --- programs -----------------------------------------------------------------------------------------------


def test_everything_public_while_others_record_and_replay():
    w = fs.to_tensor(np.arange(1.0, 5.0))
    table = fs.to_tensor(np.ones((4, 4)))

    def f(x):
        s = fs.dot(w, x)
        for k in range(4):
            if x[k] > 0.0:
                s = s + table[k, k] * x[k]
        return s

    program = fs.compile(f)
    X = np.random.default_rng(0).normal(size=(64, 4))
    expected = np.array([float(f(fs.to_tensor(x)).data) for x in X])
    wrong, end = [], time.monotonic() + 2.0

    def loop(work):
        def run():
            try:
                while time.monotonic() < end and not wrong:
                    work()
            except BaseException as error:
                wrong.append(error)

        return threading.Thread(target=run, daemon=True)

    def mapped():
        assert np.allclose(program.map(X, threads=2), expected, rtol=1e-12)

    def one():
        assert abs(program(X[5]) - expected[5]) < 1e-12

    def gradients():
        values, _ = program.value_and_grad(X, threads=2)
        assert np.allclose(values, expected, rtol=1e-12)

    def backward():
        assert np.allclose(program.backward(X, threads=2), expected, rtol=1e-12)

    def look():
        assert isinstance(program.report(), str)
        assert all(p.size in (4, 16) for p in program.parameters)
        assert isinstance(repr(program), str)

    def recorded_again():
        program.reset()
        time.sleep(0.001)

    threads = [loop(work) for work in (mapped, one, gradients, backward, look, look, recorded_again)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(TIMEOUT)
        assert not t.is_alive()
    assert not wrong, wrong[0]
    testing.check()


def test_a_report_need_not_wait_for_a_recording():
    inside, go_on = threading.Event(), threading.Event()

    def f(x):
        inside.set()
        assert go_on.wait(TIMEOUT)
        return x * x

    program = fs.compile(f)
    thread = threading.Thread(target=program, args=(2.0,), daemon=True)
    thread.start()
    try:
        assert inside.wait(TIMEOUT)
        assert in_thread(program.report).endswith("nothing was recorded yet")
        assert in_thread(lambda: program.parameters) == []
    finally:
        go_on.set()
    thread.join(TIMEOUT)
    assert program.report() != ""


@pytest.mark.parametrize("method", ["map", "backward", "value_and_grad", "__call__"])
def test_threads_that_come_together_record_once(method):
    """Also where the function waits in the middle, so that others come."""
    w = fs.to_tensor(np.arange(1.0, 5.0))
    calls = []

    def f(x):
        calls.append(1)
        time.sleep(0.005)
        return fs.dot(w, x) ** 2

    X = np.random.default_rng(0).normal(size=(30, 4))
    for _ in range(3):
        program, barrier, found = fs.compile(f), threading.Barrier(6), []
        calls.clear()

        def run(program=program, barrier=barrier, found=found):
            barrier.wait(TIMEOUT)
            result = getattr(program, method)(X[0] if method == "__call__" else X)
            found.append(np.asarray(result[0] if method == "value_and_grad" else result).tobytes())

        threads = [threading.Thread(target=run, daemon=True) for _ in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(TIMEOUT)
            assert not t.is_alive()
        assert len(found) == 6
        assert len(set(found)) == 1
        assert len(calls) <= 2                   # the second call asks whether the function repeats itself


def test_a_method_that_two_threads_ask_for_is_one_program():
    class Model:
        @fs.compile
        def loss(self, x):
            return x * x

    for _ in range(20):
        model, barrier, found = Model(), threading.Barrier(4), []

        def ask(model=model, barrier=barrier, found=found):
            barrier.wait(TIMEOUT)
            found.append(model.loss)

        threads = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(TIMEOUT)
        assert len(set(map(id, found))) == 1
