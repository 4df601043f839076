"""A fixed tour of the engine, of programs and of training, small enough for valgrind: `make memcheck`.

`memcheck.py` takes the tour; `memcheck.py --valgrind` lets valgrind watch it.  What the interpreter, the dynamic loader
and NumPy do among themselves is theirs: a report counts if a frame of it is in one of the package's modules.
"""

from __future__ import annotations

import gc
import os
import pathlib
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET

import numpy as np

import fastscalar as fs
from fastscalar.engine import testing


def scalars() -> None:
    x, y = fs.Tensor(1.5), fs.Tensor(-0.25)
    for name in ("exp", "tanh", "sigmoid", "softplus", "relu", "sin", "cos"):
        getattr(x * y + 2.0, name)().backward()
    z = fs.math.hypot(x, y) ** 2 + x / y - abs(y) % 0.1
    z.backward()
    assert np.isfinite([x.grad, y.grad]).all()
    chain = x
    for _ in range(3000):
        chain = chain * 0.999 + y
    chain.backward()
    x.note = "kept"
    (x * x).backward(create_graph=True)


def collections() -> None:
    kept = []
    for k in range(20_000):
        t = fs.Tensor(float(k)) * 2.0
        if k % 97 == 0:
            kept.append(t + 1.0)
        if k % 5000 == 0:
            testing.collect()
    del kept[::2]
    gc.collect()
    testing.collect()
    fs.sum(kept).backward()


def arrays() -> None:
    a = fs.to_tensor(np.linspace(-1.0, 1.0, 60).reshape(5, 12))
    w = fs.to_tensor(np.linspace(0.1, 0.9, 48).reshape(12, 4))
    out = (a @ w).tanh()
    fs.softmax(out[0]).sum().backward()
    (out * out).sum().backward()
    a[1:4, ::3].sum().backward()
    a.T.max().backward()
    assert a.grad.shape == (5, 12)
    with fs.no_grad():
        a @ w


def errors() -> None:
    for wrong in (lambda: fs.Tensor(0.0).log(), lambda: fs.Tensor("x"), lambda: fs.Tensor(1.0) / 0.0,
                  lambda: fs.to_tensor([[1.0], [2.0, 3.0]])):  # fmt: skip
        try:
            wrong()
        except (ValueError, TypeError, ZeroDivisionError):
            continue
        raise AssertionError("no error")


def programs() -> None:
    w = fs.to_tensor(np.linspace(-0.5, 0.5, 24).reshape(6, 4))
    net = fs.MLP(6, [5, 3])

    def formula(x: list[fs.Tensor]) -> fs.Tensor:
        total = x[0] * 0.0
        for k in range(6):
            total += (x[k] * w[k, k % 4]).tanh() if x[k] > 0.0 else x[k] * x[k]
        return total

    def loss(x: fs.TensorArray, label: int) -> fs.Tensor:
        return fs.cross_entropy(net(x), label)

    X = np.random.default_rng(0).normal(size=(37, 6))
    labels = np.arange(37) % 3
    program, losses = fs.compile(formula), fs.compile(loss)
    for dtype in ("float64", "float32"):
        for threads in (1, 2):
            program.map(X, dtype=dtype, threads=threads)
            program.value_and_grad(X, dtype=dtype, threads=threads)
            program.backward(X, dtype=dtype, threads=threads)
            losses.backward(X, labels, dtype=dtype, threads=threads)
    with tempfile.TemporaryDirectory() as folder:
        program.save(os.path.join(folder, "program.npz"))
        fs.load_program(os.path.join(folder, "program.npz")).map(X)


def training() -> None:
    X = np.random.default_rng(1).normal(size=(40, 6))
    y = (X[:, 0] > 0).astype(int)
    net = fs.MLP(6, [8, 2])
    for optimizer in (fs.SGD(lr=0.1, momentum=0.9), fs.AdamW(lr=0.01), fs.RMSprop(lr=0.01)):
        for dtype in ("float64", "float32"):
            fs.fit(net, X, y, optimizer=optimizer, epochs=1, batch_size=7, dtype=dtype, progress=False)
    fs.fit(net, X, y, epochs=1, compile=False, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "net.npz")
        net.save(path)
        assert np.array_equal(fs.predict(fs.load(path), X), fs.predict(net, X))


def tour() -> None:
    for part in (scalars, collections, arrays, errors, programs, training):
        part()
        gc.collect()
        testing.check()
        print(f"{part.__name__}: done", flush=True)


def watched() -> int:
    """The tour under valgrind: 0 if no report is ours."""
    package = str(pathlib.Path(fs.__file__).resolve().parent)
    with tempfile.TemporaryDirectory() as folder:
        reports = pathlib.Path(folder, "reports.xml")
        # Reports as XML include what is left at the end, much of it the interpreter's; leaks.py looks for leaks.
        valgrind = ["valgrind", "-q", "--num-callers=40", "--xml=yes", f"--xml-file={reports}"]
        command = [*valgrind, sys.executable, __file__]
        env = {**os.environ, "PYTHONMALLOC": "malloc", "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(command, env=env, check=False)
        found = [one for one in ET.parse(reports).iter("error") if not one.findtext("kind", "").startswith("Leak_")]
    ours = [error for error in found if any(package in (obj.text or "") for obj in error.iter("obj"))]
    for error in ours:
        print(error.findtext("what") or error.findtext("xwhat/text"))
        for frame in list(error.iter("frame"))[:20]:
            print("   ", frame.findtext("fn"), frame.findtext("file"), frame.findtext("line"))
    print(f"{len(ours)} reports of ours, {len(found) - len(ours)} of others; the tour ended with {done.returncode}")
    return bool(ours or done.returncode)


if __name__ == "__main__":
    if sys.argv[1:] == ["--valgrind"]:
        sys.exit(watched())
    tour()
