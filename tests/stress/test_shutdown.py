"""The interpreter ends, whatever is alive then and however it ends: the status that was asked for, and not a word more.

Each case is a process.  FASTSCALAR_SHUTDOWN=N ends each state in each way, N times.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BEGIN = """
import atexit, gc, os, sys, threading, time, warnings
import numpy as np
import fastscalar as fs

warnings.filterwarnings("ignore", message="threads: ")
X = np.linspace(-1.0, 1.0, 4000).reshape(1000, 4)
Y = np.arange(1000) % 3
begun = threading.Event()

def thread(work, daemon=True):
    it = threading.Thread(target=work, daemon=daemon)
    it.start()
    assert begun.wait(60)
    return it

def for_ever(work):
    def loop():
        while True:
            work()
            begun.set()
    return loop

def curve(x):
    return (x[0] * x[1]).tanh() + x[2].exp() if x[3] > 0.0 else x[3] * x[0]

def last(*ignored):
    '''What is at work in a handler, a finalizer or a destructor.'''
    a = fs.Tensor(2.0)
    b = a * a
    b.backward()
    assert a.grad == (4.0 if b._parents else 0.0)            # or within a `no_grad` that was not left

class Dropped:
    __del__ = last
"""

# What is alive.  `end()` is called at the very end of the text, or where the state says so.
STATES = {
    "numbers": "x = fs.Tensor(2.0); y = x * x + x.exp(); y.backward()",
    "a deep graph": "y = fs.Tensor(0.5)\nfor _ in range(100_000): y = y * 0.999 + 0.001",
    "numbers in a cycle": "x = fs.Tensor(2.0); x.own = [x * x]; x.own.append(x.own)",
    "destructors": "x = fs.Tensor(2.0); x.own = Dropped(); sys.own = Dropped(); own = [Dropped()]; own.append(own)",
    "arrays and views": "a = fs.to_tensor(X); b = a[::2, 1:]; s = (a @ fs.to_tensor(X[:4].T)).sum(); s.backward()",
    "a net and its optimizer": "net = fs.MLP(4, [5, 3], seed=0); o = fs.Adam(net.parameters())\n"
    "fs.cross_entropy(net(X[0]), 1).backward(); o.step()",
    "a trained net": "net = fs.MLP(4, [5, 3], seed=0); fs.fit(net, X, Y, epochs=1, batch_size=50, progress=False)",
    "programs": "p = fs.compile(curve); p.map(X); q = fs.compile(curve); q.value_and_grad(X); sys.kept = p",
    "a pool of threads": "p = fs.compile(curve); kept = p.map(X, threads=4), p.backward(X, threads=4)",
    "an own operation": "x = fs.Tensor(3.0); y = fs.Tensor(9.0, (x,))\n"
    "def step(): x.grad += 6.0 * y.grad\ny._backward = step; (y * 2.0).backward()",
    "an own function": "square = fs.custom_op(lambda r: r * r, lambda r: 2 * r, name='square')\n"
    "p = fs.compile(lambda x: square(x[0])); p.map(X)",
    "a block that is not left": "block = fs.no_grad(); other = fs.debug.detect_anomaly()\n"
    "block.__enter__(); other.__enter__()",
    "a generator within no_grad": "def some():\n"
    "    with fs.no_grad():\n        yield fs.Tensor(1.0)\ng = some(); next(g)",
    "an exception that is kept": "try: fs.Tensor(0.0).log()\nexcept ValueError as error: kept = error",
    "a finalizer": "import weakref\nx = fs.MLP(4, [3], seed=0); weakref.finalize(x, last)",
    "a handler": "atexit.register(last)",
    "a handler that compiles": "atexit.register(lambda: fs.compile(curve).value_and_grad(X, threads=2))",
    # what is imported for the first time may `exec`, after which Python forgets that it ends by Ctrl-C
    "a handler that trains": "net = fs.MLP(4, [3], seed=0)\n"
    "train = lambda: fs.fit(net, X, Y, epochs=1, batch_size=100, threads=2, progress=False)\n"
    "train(); atexit.register(train)",
    "a thread that makes graphs": "thread(for_ever(last))",
    "a thread that collects": "thread(for_ever(lambda: (last(), gc.collect())))",
    "a thread within no_grad": "def rest():\n"
    "    with fs.no_grad():\n        begun.set(); time.sleep(3600)\nthread(rest)",
    "a thread that records": "thread(for_ever(lambda: fs.compile(curve).map(X[:50])))",
    "threads in a replay": "p = fs.compile(curve); p.map(X); big = np.tile(X, (50, 1))\n"
    "for _ in range(3): thread(for_ever(lambda: p.backward(big, threads=3)))",
    "a thread in training": "net = fs.MLP(4, [8, 3], seed=0)\n"
    "thread(for_ever(lambda: fs.fit(net, X, Y, epochs=2, progress=False)))",
    "a thread that is waited for": "def some():\n    begun.set(); time.sleep(0.2); last()\nthread(some, daemon=False)",
    "in the middle of a recording": "def f(x):\n    y = x[0] * 2.0\n    end()\n    return y\nfs.compile(f).map(X)",
    "in the middle of a sweep": "x = fs.Tensor(3.0); y = fs.Tensor(9.0, (x,))\n"
    "y._backward = lambda: end()\n"
    "def last(): assert (fs.Tensor(2.0) * 2.0).data == 4.0  # a pass in another thread waits for this one\n"
    "(y * 2.0).backward()",
    "in the middle of training": "net = fs.MLP(4, [3], seed=0)\n"
    "fs.fit(net, X, Y, epochs=2, progress=False, on_epoch=lambda e: end())",
    "in the middle of a derivative": "fs.grad(lambda x: (x * x, end())[0])(2.0)",
    "in a handler": "sys.own = fs.compile(curve); sys.own.map(X); atexit.register(lambda: sys.own.map(X, threads=2))",
}  # fmt: skip

# How it ends: what `end` does, the status, and what each traceback ends with.
WAYS = {
    "at its end": ("pass", 0, ""),
    "sys.exit": ("sys.exit(3)", 3, ""),
    "an exception": ("raise LookupError('on purpose')", 1, "LookupError: on purpose"),
    "os._exit": ("os._exit(4)", 4, ""),
    "Ctrl-C": ("raise KeyboardInterrupt", -2, "KeyboardInterrupt"),
    "sys.exit in a thread": ("t = threading.Thread(target=lambda: (last(), sys.exit(5))); t.start(); t.join()", 0, ""),
    "an exception at exit": ("atexit.register(lambda: (last(), [][0]))", 0, "IndexError: list index out of range"),
    "without streams": ("sys.stdout = sys.stderr = None", 0, ""),
}

LONG = int(os.environ.get("FASTSCALAR_SHUTDOWN", "0"))
CASES = [(state, way) for way in WAYS for state in STATES]
if not LONG:  # each state, and each way on some
    CASES = [(state, way) for k, (state, way) in enumerate(CASES) if way == "at its end" or k % 5 == 0]


def ended(state: str, way: str, folder: Path) -> None:
    does, status, error = WAYS[way]
    program = folder / "program.py"
    program.write_text(f"{BEGIN}\ndef end():\n    {does}\n\n{STATES[state]}\nend()\n", encoding="utf-8")
    command = [sys.executable, "-X", "faulthandler", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=folder)
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    if not error:
        assert lines == []
    else:
        assert 1 <= done.stderr.count("Traceback") == lines.count(error), done.stderr
        assert "Fatal" not in done.stderr


@pytest.mark.parametrize(("state", "way"), CASES, ids=lambda text: text)
def test_the_interpreter_ends(state: str, way: str, tmp_path: Path) -> None:
    for _ in range(max(1, LONG)):
        ended(state, way, tmp_path)


def test_a_word_too_many_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STATES, "a fault", "class Bad:\n    def __del__(self): raise ValueError\nown = Bad()")
    with pytest.raises(AssertionError, match="ValueError"):
        ended("a fault", "at its end", tmp_path)
