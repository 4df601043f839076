"""The pool of threads that share the work of replays: threads that do not start, waiting without a core."""

import os
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest

import fastscalar as fs
from fastscalar.program import _replay
from fastscalar.program import threads as program_threads

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core: there are no helpers")


@pytest.fixture
def program():
    """Enough work for many chunks, with gradients of leaves by every route: ports, weights, gathered rows."""
    rng = np.random.default_rng(0)
    w, table = fs.to_tensor(rng.normal(size=8)), fs.to_tensor(rng.normal(size=(3, 8)))
    layer = fs.Linear(8, 40, seed=0)
    X, k = rng.normal(size=(3000, 8)), rng.integers(0, 3, size=3000)

    def f(x, k):
        return fs.sum([a.tanh() for a in layer(x)]) * fs.dot(x, w) + fs.dot(table[k], x)

    return fs.compile(f), [w, table, layer.w, layer.b], X, k


def outcome(program, threads):
    f, leaves, X, k = program
    values = f.backward(X, k, threads=threads)
    return values.tobytes(), [np.asarray(p.grad).tobytes() for p in leaves]


def cpu_seconds():
    """Of all threads of this process."""
    return time.process_time()


def test_bits_do_not_depend_on_threads(program):
    expected = outcome(program, 1)
    for _ in range(30):
        assert outcome(program, 2) == expected


def test_helpers_that_do_not_start(program):
    """Fewer threads, the same results, and none that waits for one that is not there."""
    expected = outcome(program, 1)
    there = _replay._helpers(refuse=1000)
    try:
        for _ in range(3):
            assert outcome(program, 2) == expected
        assert _replay._helpers(refuse=1000) == there
    finally:
        _replay._helpers(refuse=0)
    assert outcome(program, 2) == expected
    assert _replay._helpers() >= 1


NO_THREADS = """
import os, resource
import numpy as np
import fastscalar as fs
from fastscalar.program import _replay

w = fs.to_tensor(np.arange(1.0, 5.0))
program = fs.compile(lambda x: fs.dot(w, x) ** 2)
X = np.random.default_rng(0).normal(size=(3000, 4))
expected = program.map(X)
if os.getuid() == 0:
    os.setresuid(65534, 65534, 65534)            # limits are not for root
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
assert program.map(X, threads=2).tobytes() == expected.tobytes()
print(_replay._helpers(), len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="Linux only")
def test_a_system_that_gives_no_threads(monkeypatch):
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # it opens files when the child ends
    command = [sys.executable, "-c", NO_THREADS]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert (done.returncode, done.stdout) == (0, "0 1\n")
    if "FASTSCALAR_LINES_COUNTED" not in os.environ:     # GCC's counters have no files left, and say so
        assert done.stderr == ""


def test_idle_helpers_take_no_time(program):
    for _ in range(20):
        outcome(program, 2)
    before = cpu_seconds()
    time.sleep(0.5)
    assert cpu_seconds() - before < 0.1


def test_many_runs_at_once_share_one_pool(program):
    """More threads that ask for help than there are helpers."""
    expected = outcome(program, 1)[0]
    before = _replay._helpers()
    f, _, X, k = program
    wrong = []

    def work():
        for _ in range(10):
            if f.map(X, k, threads=2).tobytes() != expected:
                wrong.append(1)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(300)
        assert not t.is_alive()
    assert not wrong
    assert _replay._helpers() == max(before, 1)


# --- how many ------------------------------------------------------------------------------------------------

CALLS = {
    "map": lambda program, X, k, **threads: program.map(X, k, **threads),
    "backward": lambda program, X, k, **threads: program.backward(X, k, **threads),
    "value_and_grad": lambda program, X, k, **threads: program.value_and_grad(X, k, **threads)[0],
    "fit": lambda program, X, k, **threads: np.array(
        fs.fit(program, X, k, epochs=1, batch_size=256, optimizer=fs.SGD(lr=1e-300), progress=False, **threads).loss
    ),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("threads", [3, 100_000, 2**31 - 1, 2**31, 2**64, 10**30, np.int64(2**40)])
def test_more_threads_than_cores_are_not_used(program, monkeypatch, call, threads):
    monkeypatch.setattr(program_threads, "cores", lambda: 2)
    f, _, X, k = program
    expected = CALLS[call](f, X, k, threads=2)
    said = f"threads: {threads} are asked for, and this process may use 2 cores"
    with pytest.warns(RuntimeWarning, match=said) as caught:
        assert CALLS[call](f, X, k, threads=threads).tobytes() == expected.tobytes()
    assert [w.filename for w in caught] == [__file__]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("threads", [0, -1, -(2**31), -(2**70), 1.5, "2", None, True, [2], np.float64(2)], ids=repr)
def test_what_is_no_number_of_threads(program, call, threads):
    f, leaves, X, k = program
    outcome(program, 1)
    before = [np.asarray(p.grad).tobytes() for p in leaves]
    with pytest.raises(ValueError, match="threads: expected a whole number of at least 1"):
        CALLS[call](f, X, k, threads=threads)
    assert [np.asarray(p.grad).tobytes() for p in leaves] == before


def test_a_warning_of_threads_is_shown_once_for_each_line(program, monkeypatch):
    monkeypatch.setattr(program_threads, "cores", lambda: 2)
    f, _, X, k = program
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(5):
            f.map(X, k, threads=1000)
    assert len(caught) == 1


def test_as_many_cores_as_the_process_may_use(monkeypatch):
    monkeypatch.undo()
    cores = program_threads.cores()
    assert cores == len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if hasattr(os, "sched_setaffinity"):
        all_of_them = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {min(all_of_them)})
            assert program_threads.cores() == 1
        finally:
            os.sched_setaffinity(0, all_of_them)


@pytest.mark.parametrize("threads", [2**31, 0, -1, "2"])
def test_a_replay_that_is_refused_says_so_and_nothing_else(program, threads):
    f, _, X, _ = program
    f.map(X, np.zeros(len(X), int))
    plan = next(iter(f._specializations()))[1].plan(frozenset())
    unraisable = []
    before, sys.unraisablehook = sys.unraisablehook, unraisable.append
    try:
        with pytest.raises((TypeError, OverflowError, ValueError)):
            _replay.Replay(plan, 256, True, threads)
    finally:
        sys.unraisablehook = before
    assert not unraisable


# --- who is asked --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alone", "factor", "least", "most"),
    [
        (2e-5, 0.6, 0.9, 1.0), (1e-3, 0.6, 0.9, 1.0), (0.1, 0.6, 0.9, 1.0),
        (2e-5, 1.3, 0.0, 0.1), (1e-3, 1.3, 0.0, 0.1), (0.1, 1.3, 0.0, 0.15),
        (2e-5, 12.0, 0.0, 0.02), (1e-3, 12.0, 0.0, 0.02),
    ],
)  # fmt: skip
def test_helpers_are_asked_where_that_is_faster(alone, factor, least, most):
    """The better way is found, and the other is tried for a small part of the time."""
    batches = min(int(100 / alone), 200_000)
    assert least <= _replay._shared_of(alone, alone * factor, batches) / batches <= most


@pytest.mark.parametrize("alone", [2e-5, 4e-4, 2e-3, 8e-3])
def test_helpers_that_cost_much_cost_a_run_little(alone):
    """A run of half a second on a machine where a helper lets others wait for 4 ms: at most 1.2 times."""
    batches = int(0.5 / alone)
    shared = _replay._shared_of(alone, alone + 4e-3, batches)
    assert (batches * alone + shared * 4e-3) / (batches * alone) < 1.2
