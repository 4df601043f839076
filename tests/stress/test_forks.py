"""Child processes that are forked at any moment: while other threads record, sweep, replay, are in blocks, hold locks.

FASTSCALAR_FORKS is the number of forks in each state (`make forks`: 200).
"""

import io
import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import _core, _imports
from fastscalar._imports import importing
from fastscalar.engine import _anomaly, _modes, testing
from fastscalar.program import _replay

FORKS = int(os.environ.get("FASTSCALAR_FORKS", "10"))
TIMEOUT = 300

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def in_child(work, patience=TIMEOUT):
    """Fork; what is wrong after work() in the child, as text, "" if nothing is."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)     # Python's own, of forks beside threads
        pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(patience)
            os.close(read)
            try:
                work()
            except BaseException:
                os.write(write, traceback.format_exc().encode()[-60000:])
                os._exit(1)
            os._exit(0)
        finally:
            os._exit(2)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    status = os.waitpid(pid, 0)[1]
    return said or ("" if status == 0 else f"the child ended with status {status}")


class Terminal(io.StringIO):
    """Where a progress bar is shown."""

    def isatty(self):
        return True


class Model:
    """What parent and child both use, and what the threads of the parent are at."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.w = fs.to_tensor(rng.normal(size=6))
        self.net = fs.MLP(6, [8, 3], seed=0)
        self.X, self.y = rng.normal(size=(600, 6)), rng.integers(0, 3, size=600)
        self.slow = 0.0                          # seconds that a function rests while it is recorded
        self.program = fs.compile(self.f)
        self.process, self.helpers = os.getpid(), _replay._helpers()     # tests before may have asked for many
        self.expected = float(self.f(self.X[0]).data)

    def f(self, x):
        s = 0.0
        for k in range(6):
            s = s + self.w[k] * x[k]
            if self.slow:
                time.sleep(self.slow / 6)
        return s * s

    # --- what the other thread is at, over and over ---

    def recording(self):
        self.slow = 0.003
        self.program.reset()
        self.program(self.X[0])

    def sweeping(self):
        x = fs.Tensor(1.0)
        rest = fs.custom_op(lambda v: v, lambda v: time.sleep(0.001) or 1.0, name="rest")
        (rest(x * 2.0) * 3.0).backward()

    def replaying(self):
        self.program.map(self.X, threads=2)
        self.program.backward(self.X, threads=2)

    def fitting(self):
        fs.fit(self.net, self.X, self.y, epochs=1, batch_size=64, threads=2, progress=False)

    def fitting_with_a_bar(self):
        fs.fit(self.net, self.X, self.y, epochs=1, batch_size=64, threads=2)

    def not_recording(self):
        with fs.no_grad():
            for _ in range(20):
                self.w[0] * 2.0
                time.sleep(0.0001)

    def watching(self):
        with fs.debug.detect_anomaly():
            for _ in range(20):
                self.w[0] * 2.0
                time.sleep(0.0001)

    def differentiating(self):
        fs.grad(lambda v: time.sleep(0.002) or v * v)(1.0)

    def planning(self):
        fs.compile(lambda x: fs.sum([self.w[k % 6] * x[k % 6] for k in range(2000)])).backward(self.X[:4])

    def building(self):
        fs.sum([self.w[k % 6] * 2.0 for k in range(500)]).backward()

    def starting_helpers(self):
        _replay._begin_in_child()                # as if there were none: the next run starts some

    # --- what a child does ---

    def works(self):
        """Everything, with the results that it has elsewhere."""
        self.slow = 0.0
        assert (fs.Tensor(1.0) * 2.0)._parents, "this thread records"
        assert not _anomaly.detects_anomalies()
        assert not _modes.is_recording()
        assert abs(self.program(self.X[0]) - self.expected) < 1e-12
        values = self.program.map(self.X, threads=2)
        assert abs(values[0] - self.expected) < 1e-12
        assert isinstance(self.program.report(), str)
        assert np.isfinite(self.program.backward(self.X, threads=2)).all()
        again = fs.compile(self.f)
        assert again.map(self.X, threads=2).tobytes() == values.tobytes()
        x = fs.Tensor(3.0)
        (x * x).backward()
        assert x.grad == 6.0
        assert fs.grad(lambda v: v * v)(3.0) == 6.0
        net = fs.MLP(6, [8, 3], seed=1)
        fs.fit(net, self.X, self.y, epochs=1, batch_size=64, threads=2)
        found = []
        thread = threading.Thread(target=lambda: found.append(bool((fs.Tensor(1.0) * 2.0)._parents)))
        thread.start()
        thread.join(TIMEOUT)
        assert found == [True], "other threads record"
        before = _core.tape_info()["nodes"]
        for _ in range(40):
            fs.sum([self.w[0] * 2.0 for _ in range(2000)])
        assert _core.tape_info()["nodes"] < before + 80_000, "nothing is collected"
        assert _replay._helpers() == (max(1, self.helpers) if os.getpid() == self.process else 1)
        testing.check()


STATES = [
    "recording", "sweeping", "replaying", "fitting", "fitting_with_a_bar", "not_recording", "watching",
    "differentiating", "planning", "building",
]  # fmt: skip


@needs_fork
@pytest.mark.parametrize("state", STATES)
def test_a_child_that_is_forked_while_another_thread_is_at_work(state, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    model = Model()
    work, stop, errors = getattr(model, state), threading.Event(), []

    def run():
        try:
            while not stop.is_set():
                work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    generator = random.Random(0)
    try:
        for k in range(FORKS):
            time.sleep(generator.uniform(0.0, 0.006))
            assert not errors, errors[0]
            said = in_child(model.works)
            assert not said, f"fork {k}: {said}"
    finally:
        stop.set()
        thread.join(TIMEOUT)
    assert not thread.is_alive()
    model.works()                                # and the parent goes on as before


@needs_fork
def test_a_child_that_dies_while_it_draws_a_bar_stops_nobody():
    tqdm = pytest.importorskip("tqdm").tqdm

    def draw():
        tqdm(total=1, file=Terminal()).close()

    def die():
        tqdm.get_lock().acquire()
        os._exit(0)

    draw()
    assert not in_child(die)
    thread = threading.Thread(target=draw, daemon=True)
    thread.start()
    thread.join(120)
    assert not thread.is_alive()


class Slow(io.RawIOBase):
    """A terminal that takes its time, in which the lock of the stream is held."""

    def writable(self):
        return True

    def isatty(self):
        return True

    def write(self, data):
        time.sleep(0.02)
        return len(data)


@needs_fork
@pytest.mark.parametrize("by", ["a bar", "a log"])
def test_a_child_writes_where_another_thread_was_writing(monkeypatch, by):
    stream = io.TextIOWrapper(io.BufferedWriter(Slow()), encoding="utf-8", write_through=True)
    model, done = Model(), threading.Event()
    if by == "a bar":
        monkeypatch.setattr(sys, "stderr", stream)
    else:
        log = logging.getLogger("fastscalar")
        monkeypatch.setattr(log, "handlers", [logging.StreamHandler(stream)])
        monkeypatch.setattr(log, "level", logging.INFO)

    def draw():
        while not done.is_set():
            (model.fitting_with_a_bar if by == "a bar" else model.fitting)()

    def child():
        stream.write("x")
        stream.flush()

    thread = threading.Thread(target=draw, daemon=True)
    thread.start()
    try:
        for _ in range(10):
            assert not in_child(child, patience=20)
    finally:
        done.set()
        thread.join(TIMEOUT)


@needs_fork
def test_a_fork_waits_for_an_import(tmp_path, monkeypatch):
    """The child would find the module half made, and its lock held by a thread that is not there."""
    (tmp_path / "module_that_takes_its_time.py").write_text("import time; time.sleep(0.3); whole = True")
    monkeypatch.syspath_prepend(tmp_path)
    started = threading.Event()

    def load():
        with importing():
            started.set()
            import module_that_takes_its_time
        return module_that_takes_its_time

    def child():
        assert load().whole

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    assert started.wait(TIMEOUT)
    said = in_child(child, patience=20)
    thread.join(TIMEOUT)
    assert not said, said
    assert not in_child(child, patience=20)


FIRST_BAR = """
import sys, threading, time
import test_forks as forks

sys.stderr = forks.Terminal()
model = forks.Model()
threading.Thread(target=model.fitting_with_a_bar, daemon=True).start()
while "tqdm" not in sys.modules:
    time.sleep(0.0001)
time.sleep({delay})
print(forks.in_child(model.works, patience=60))
"""


@needs_fork
@pytest.mark.parametrize("delay", [0.0, 0.005, 0.02, 0.05])
def test_a_fork_while_the_first_bar_is_made(delay):
    """A new process, since a bar imports things once."""
    pytest.importorskip("tqdm")
    path = os.pathsep.join(filter(None, sys.path))
    run = subprocess.run(
        [sys.executable, "-c", FIRST_BAR.format(delay=delay)], env={**os.environ, "PYTHONPATH": path},
        cwd=os.path.dirname(__file__), capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert run.stdout.strip() == "", run.stdout + run.stderr
    assert run.returncode == 0, run.stderr


FIRST_FIT = """
import sys, threading
import numpy as np
import fastscalar as fs, test_forks as forks
from fastscalar import _imports

class Listening:  # asked for each module that is imported for the first time
    def find_spec(self, name, path=None, target=None):
        if not _imports._lock._is_owned():
            print(name)

net, X, y = fs.MLP(6, [8, 3], seed=0), np.ones((600, 6)), np.zeros(600, int)
sys.stderr = forks.Terminal()
for name in [name for name in sys.modules if name.startswith("numpy.random")]:
    del sys.modules[name]
vars(np).pop("random", None)
sys.meta_path.insert(0, Listening())
for threads in (1, 2):
    thread = threading.Thread(target=lambda: fs.fit(net, X, y, epochs=2, batch_size=64, threads=threads))
    thread.start()
    thread.join(60)
"""


@needs_fork
def test_what_a_first_fit_imports_is_what_a_fork_waits_for():
    run = subprocess.run(
        [sys.executable, "-c", FIRST_FIT], env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        cwd=os.path.dirname(__file__), capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []


@needs_fork
def test_a_fork_in_the_middle_of_an_import_of_ones_own(monkeypatch):
    with importing():
        assert not in_child(lambda: importing().__enter__())
    monkeypatch.setattr(_imports, "PATIENCE", 0.05)
    inside, go_on = threading.Event(), threading.Event()

    def stay():
        with importing():
            inside.set()
            go_on.wait(TIMEOUT)

    thread = threading.Thread(target=stay, daemon=True)
    thread.start()
    assert inside.wait(TIMEOUT)
    try:
        said = in_child(lambda: importing().__enter__(), patience=20)    # it has waited long enough
    finally:
        go_on.set()
        thread.join(TIMEOUT)
    assert not said, said
    with importing():
        pass


@needs_fork
@pytest.mark.parametrize("context", [fs.no_grad, fs.debug.detect_anomaly])
def test_a_child_keeps_the_blocks_of_the_thread_that_forks(context):
    def child():
        x = fs.Tensor(1.0) * 2.0
        assert bool(x._parents) == (context is not fs.no_grad)
        assert _anomaly.detects_anomalies() == (context is not fs.no_grad)
        block.__exit__(None, None, None)
        assert (fs.Tensor(1.0) * 2.0)._parents
        assert not _anomaly.detects_anomalies()
        testing.check()

    inside, go_on = threading.Event(), threading.Event()

    def other():
        with fs.no_grad(), fs.debug.detect_anomaly():
            inside.set()
            go_on.wait(TIMEOUT)

    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    assert inside.wait(TIMEOUT)
    block = context()
    try:
        with block:
            said = in_child(child)
    finally:
        go_on.set()
        thread.join(TIMEOUT)
    assert not said, said
    assert not thread.is_alive()


@needs_fork
@pytest.mark.parametrize("where", ["recording", "sweep"])
def test_a_thread_that_forks_in_the_middle_of_its_own_work(where):
    """Parent and child both go on with it, to the same result."""
    model, said = Model(), []

    def fork_here():
        pid = os.fork()
        if pid == 0:
            signal.alarm(TIMEOUT)
        said.append(pid)

    def record():
        def f(x):
            fork_here()
            return x * x

        program = fs.compile(f)
        assert program(3.0) == 9.0

    def sweep():
        x = fs.Tensor(3.0)
        step = fs.custom_op(lambda v: v, lambda v: fork_here() or 1.0, name="fork")
        (step(x * x) * 1.0).backward()
        assert x.grad == 6.0

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            record() if where == "recording" else sweep()
            status = 0
            model.works()
        except BaseException:
            status = 1
            traceback.print_exc()
        for pid in said:
            if pid == 0:
                os._exit(status)
    assert status == 0
    for pid in said:
        assert os.waitpid(pid, 0)[1] == 0


# --- pools of processes, the end of the interpreter -----------------------------------------------------------


def run_script(path, text):
    path.write_text(text)
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[-4000:]
    return done.stdout


POOL = """
import multiprocessing, sys
import numpy as np
import fastscalar as fs

w = fs.to_tensor(np.arange(1.0, 5.0))
program = fs.compile(lambda x: fs.dot(w, x) ** 2)
X = np.random.default_rng(0).normal(size=(2000, 4))

def work(seed):
    values = program.map(X, threads=2)
    net = fs.MLP(4, [8, 2], seed=seed)
    fs.fit(net, X, np.arange(2000) % 2, epochs=1, batch_size=64, threads=2, progress=False)
    return float(values.sum()), float(np.sum(net.linears[0].w.numpy()))

if __name__ == "__main__":
    expected = [work(seed) for seed in range(4)]
    with multiprocessing.get_context(sys.argv[1] if len(sys.argv) > 1 else "METHOD").Pool(2) as pool:
        assert pool.map_async(work, range(4)).get(250) == expected
    print("fine")
"""


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_pools_of_processes(tmp_path, method):
    assert run_script(tmp_path / "pool.py", POOL.replace("METHOD", method)) == "fine\n"


ENDS = {
    "a pool that sleeps": "program.map(X, threads=2)",
    "a thread that replays": "start(lambda: program.map(X, threads=2))",
    "a thread that trains": (
        "start(lambda: fs.fit(net, X, y, epochs=1, batch_size=64, threads=2, progress=False)); time.sleep(0.05)"
    ),
    "a thread that records": "start(lambda: fs.compile(lambda x: time.sleep(0.2) or x * x)(1.0)); time.sleep(0.05)",
    "a thread in no_grad": "start(lambda: fs.no_grad().__enter__() and time.sleep(5))",
    "a thread in detect_anomaly": "start(lambda: fs.debug.detect_anomaly().__enter__() and time.sleep(5))",
    "this thread in no_grad": "fs.no_grad().__enter__()",
    "this thread in detect_anomaly": "fs.debug.detect_anomaly().__enter__()",
    "a generator in no_grad": "g = suspended(fs.no_grad); next(g)",
    "a sweep": "start(lambda: fs.sum([w[0] * 2.0 for _ in range(1000)]).backward())",
    "at exit": "atexit.register(lambda: program.map(X, threads=2))",
    "at exit, for the first time": "atexit.register(lambda: fs.compile(lambda x: fs.dot(w, x)).backward(X, threads=2))",
    "a destructor": "class D:\n    def __del__(self, w=w, sum=fs.sum): sum([w[0] * 2.0, w[1]]).backward()\nd = D()",
}

END = """
import atexit, threading, time
import numpy as np
import fastscalar as fs

w = fs.to_tensor(np.arange(1.0, 5.0))
program = fs.compile(lambda x: fs.dot(w, x) ** 2)
X, y = np.random.default_rng(0).normal(size=(4000, 4)), np.arange(4000) % 2
net = fs.MLP(4, [8, 2], seed=0)

def start(work):
    def loop():
        while True:
            work()
    threading.Thread(target=loop, daemon=True).start()
    time.sleep(0.02)

def suspended(context):
    with context():
        yield

WORK
"""


@pytest.mark.parametrize("state", ENDS)
def test_the_interpreter_ends_in_every_state(tmp_path, state):
    assert run_script(tmp_path / "end.py", END.replace("WORK", ENDS[state])) == ""
