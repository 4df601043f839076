"""Mutated programs and checkpoints: `python tests/helpers/fuzzing_programs.py FOLDER [N] [SEED]` reads N of each kind.

As in `fuzzing.py`, and beyond: a program that is accepted is called, in all ways that were saved, and one that says
nonsense may raise, or take long (it is stopped then), but not crash, nor say what is not one clear exception; a
checkpoint that is accepted is trained on with, and one that is refused has changed nothing.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import random
import signal
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fastscalar as fs
from fuzzing import HUGE, RATIO, ROOM, SECONDS, mutate, mutate_json

DRAW = np.random.default_rng(0)
X, K = DRAW.normal(size=(6, 4)), np.arange(6) % 3
NUMBERS = (0, -1, 1e308, float("nan"), float("inf"), 1e-320, 2.0**31, -0.5)
OF_ITS_OWN = (fs.UnrecordedPath, ValueError, ArithmeticError, TypeError)     # a call of a strange program


class TooLong(Exception): ...


@contextlib.contextmanager
def at_most(seconds: float) -> Any:
    def stop(*_: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def members(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def packed(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def other_header(arrays: dict[str, np.ndarray], draw: random.Random) -> dict[str, np.ndarray]:
    return arrays | {"header": np.array(json.dumps(mutate_json(json.loads(str(arrays["header"])), draw)))}


def clear(error: Exception, path: Path) -> None:
    text = str(error)
    assert str(path) in text, text[:2000]
    assert "\n" not in text, text[:2000]
    assert len(text) < 1000 + len(str(path)), text[:2000]


# --- programs -------------------------------------------------------------------------------------------


def branches(x: Any, k: Any) -> Any:
    net, table = NETS[0], fs.to_tensor([1.0, 2.0, 4.0])
    s = fs.cross_entropy(net(x), k) * table[k]
    s = s + (x[1] ** 2 * fs.max([x[0], x[1], x[2]]) if x[0] > 0 else fs.where(x[1] < x[2], x[1], x[2]))
    return {"s": s, "all": [fs.softmax(list(x)), s * 2]}


def loops(x: Any) -> Any:
    s = x[0]
    for i in range(40):
        s = s * x[1] + i
    return fs.while_loop(lambda c: c < 100.0, lambda c: c * 1.5 + 1, abs(s))


def noise(x: Any) -> Any:
    return x[0] * fs.random.normal() + fs.random.uniform() * x[1].sin()


NETS = [fs.MLP(4, [5, 3], seed=0)]
CALLS: dict[str, tuple[Callable[..., Any], Callable[[Any], Any]]] = {
    "branches": (branches, lambda f: f.map(X, K)),
    "loops": (loops, lambda f: f.map(X)),
    "derivatives": (lambda x: x[0] * fs.math.sin(x[1]) + (x[0] * x[0] if x[0] > 0 else x[1]),
                    lambda f: (f(X[0]), f.value_and_grad(X), f.hessian(X))),
    "losses": (lambda x, k: fs.cross_entropy(NETS[0](x), k), lambda f: f.backward(X, K)),
    "noise": (noise, lambda f: f.map(X, seed=1)),
}  # fmt: skip


def other_program(name: str, sound: dict[str, dict[str, np.ndarray]], folder: Path, draw: random.Random) -> bytes:
    """One of these changed: bytes of the file, the header, whole numbers, numbers."""
    if draw.random() < 0.25:
        return mutate((folder / name).read_bytes(), draw)
    arrays = dict(sound[name])
    if draw.random() < 0.5:
        return packed(other_header(arrays, draw))
    if draw.random() < 0.7:
        ints = arrays["ints"] = arrays["ints"].copy()
        for _ in range(draw.choice((1, 1, 2, 5))):
            value = draw.choice((*HUGE, -7, 2, 3, 17, draw.randrange(1 << 32), int(draw.choice(ints))))
            ints[draw.randrange(len(ints))] = (value + (1 << 31)) % (1 << 32) - (1 << 31)
    else:
        numbers = arrays["numbers"] = arrays["numbers"].copy()
        numbers[draw.randrange(len(numbers))] = draw.choice(NUMBERS)
    return packed(arrays)


def fuzz_programs(folder: Path, n: int, seed: int) -> int:
    """How many of n were accepted."""
    draw = random.Random(f"programs {seed}")
    folder.mkdir(parents=True)
    for name, (function, call) in CALLS.items():
        program = fs.compile(function)
        call(program)
        program.save(folder / name)
    sound = {name: members(folder / name) for name in CALLS}
    path, accepted = folder / "mutated", 0
    for k in range(n):
        name = draw.choice(list(CALLS))
        path.write_bytes(other_program(name, sound, folder, draw))
        try:
            with at_most(60.0):
                program = _load(path)
            if program is None:
                continue
            accepted += 1
            with contextlib.suppress(TooLong, *OF_ITS_OWN), np.errstate(all="ignore"), at_most(SECONDS):
                CALLS[name][1](program)
        except BaseException:
            print(f"programs: number {k} of seed {seed}, of {name}, is kept in {path}", file=sys.stderr)
            raise
    return accepted


def _load(path: Path) -> Any:
    """The program; None if it is refused, as it should be."""
    size = path.stat().st_size
    tracemalloc.reset_peak()
    before, start = tracemalloc.get_traced_memory()[0], time.process_time()
    try:
        program = fs.load_program(path)
    except (ValueError, OSError) as error:
        program = None
        clear(error, path)
    seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1] - before
    assert seconds < SECONDS, f"{seconds:.1f} s"
    assert peak < ROOM + RATIO * size, f"{peak:,} bytes for a file of {size:,}"
    return program


# --- checkpoints ----------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd": lambda: fs.SGD(lr=0.1, momentum=0.5), "adam": lambda: fs.Adam(lr=0.1), "plain": lambda: fs.SGD(lr=0.1),
}  # fmt: skip


def train(path: Path, optimizer: str, callbacks: Any = ()) -> None:
    net = fs.MLP(4, [3], seed=0)
    start = [p.numpy().copy() for p in net.parameters()]
    looking = [fs.EarlyStopping(patience=5, monitor="loss"), *callbacks]
    made = OPTIMIZERS[optimizer]()
    state = None
    try:
        made.bind(net.parameters())
        state = made.state_dict()
        made = OPTIMIZERS[optimizer]()
        fs.fit(net, X, K, optimizer=made, epochs=3, batch_size=4, progress=False, checkpoint=path, callbacks=looking)
    except ValueError:
        for p, before in zip(net.parameters(), start, strict=True):
            np.testing.assert_array_equal(p.numpy(), before)
        if made.parameters is not None:
            np.testing.assert_equal(made.state_dict(), state)
        raise


def other_checkpoint(content: bytes, arrays: dict[str, np.ndarray], draw: random.Random) -> bytes:
    if draw.random() < 0.35:
        return mutate(content, draw)
    if draw.random() < 0.7:
        return packed(other_header(arrays, draw))
    name = draw.choice([name for name in arrays if name != "header"])
    array = arrays[name]
    other: Any = draw.choice((
        None, array.ravel()[:-1], array[None], np.zeros(0), np.full(array.shape, draw.choice(NUMBERS)),
        array.astype(draw.choice(("f4", "i8", "U5", "c16", "?", ">f8"))),
    ))  # fmt: skip
    return packed({k: v for k, v in arrays.items() if k != name} | ({} if other is None else {name: other}))


def fuzz_checkpoints(folder: Path, n: int, seed: int) -> int:
    draw = random.Random(f"checkpoints {seed}")
    folder.mkdir(parents=True)

    def stop(epoch: Any) -> None:
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    for name in OPTIMIZERS:
        with contextlib.suppress(KeyboardInterrupt):
            train(folder / name, name, [stop])
    sound = {name: ((folder / name).read_bytes(), members(folder / name)) for name in OPTIMIZERS}
    path, accepted = folder / "mutated", 0
    for k in range(n):
        name = draw.choice(list(OPTIMIZERS))
        path.write_bytes(other_checkpoint(*sound[name], draw))
        start = time.process_time()
        try:
            try:
                with at_most(60.0), contextlib.suppress(FloatingPointError):     # of a rate of 1e308
                    train(path, name)
                accepted += 1
            except (ValueError, OSError) as error:
                clear(error, path)
            assert time.process_time() - start < SECONDS
        except BaseException:
            print(f"checkpoints: number {k} of seed {seed}, of {name}, is kept in {path}", file=sys.stderr)
            raise
    return accepted


def main(folder: Path, n: int = 10_000, seed: int = 0) -> None:
    faulthandler.enable()
    warnings.simplefilter("ignore")
    tracemalloc.start()
    programs = fuzz_programs(folder / "programs", n, seed)
    tracemalloc.stop()
    checkpoints = fuzz_checkpoints(folder / "checkpoints", n, seed)
    print(f"{n:,} programs ({programs:,} accepted), {n:,} checkpoints ({checkpoints:,} accepted)")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), *map(int, sys.argv[2:]))
