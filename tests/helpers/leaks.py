"""Nothing grows: `python tests/helpers/leaks.py steps|exceptions|calls|programs|threads [N]`.

Half of the work first, so that caches and the allocator have what they want; then the rest.  Memory may have grown by
GROWTH bytes then, and what is alive of the package not at all.  The last line printed says how much of each.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

import fastscalar as fs
import living

GROWTH = 3_000_000  # bytes
X = np.linspace(-1.0, 1.0, 40).reshape(10, 4)


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def steps() -> Callable[[int], None]:
    """Training steps of single numbers."""
    w, b = fs.Tensor(0.3), fs.Tensor(-0.1)
    optimizer = fs.Adam([w, b], lr=1e-4)

    def work(n: int) -> None:
        for k in range(n):
            x = (k % 17) / 17.0
            ((w * x + b).tanh() - 0.5 * x).relu().backward()
            optimizer.step()

    return work


def exceptions() -> Callable[[int], None]:
    zero, one = fs.Tensor(0.0), fs.Tensor(1.0)
    a = fs.to_tensor([1.0, 2.0])
    wrong: list[Callable[[], Any]] = [
        lambda: zero.log(),
        lambda: one / zero,
        lambda: fs.Tensor("x"),
        lambda: one + "x",
        lambda: a[5],
        lambda: a @ [1.0, 2.0, 3.0],
        lambda: (one * 1000.0).exp(),
        lambda: fs.Tensor(1.0, 2, 3, 4),
    ]

    def work(n: int) -> None:
        for k in range(n):
            try:
                wrong[k % len(wrong)]()
            except (ValueError, TypeError, ArithmeticError, IndexError):
                continue
            raise AssertionError(k % len(wrong))

    return work


def _program(k: int = 0) -> fs.Program:
    w = fs.to_tensor(np.linspace(-1.0, 1.0, 4) + k)
    return fs.compile(lambda x: (w[0] * x[0]).tanh() + w[1] * x[1] if x[2] > 0.0 else w[2] * x[3])


def calls() -> Callable[[int], None]:
    program = _program()

    def work(n: int) -> None:
        for k in range(n):
            if k % 3 == 0:
                program.map(X)
            elif k % 3 == 1:
                program.value_and_grad(X)
            else:
                program.backward(X)

    return work


def programs() -> Callable[[int], None]:
    def work(n: int) -> None:
        for k in range(n):
            _program(k % 5).backward(X)

    return work


def threads() -> Callable[[int], None]:
    x = fs.Tensor(2.0)

    def one() -> None:
        with fs.no_grad():
            x * x
        y = fs.Tensor(3.0)
        (y * y).backward()

    def work(n: int) -> None:
        for _ in range(n):
            thread = threading.Thread(target=one)
            thread.start()
            thread.join()

    return work


NUMBERS = {steps: 1_000_000, exceptions: 1_000_000, calls: 100_000, programs: 10_000, threads: 10_000}


def main(words: list[str]) -> int:
    make = {kind.__name__: kind for kind in NUMBERS}[words[0]]
    n = int(words[1]) if len(words) > 1 else NUMBERS[make]
    work = make()
    work(n // 2)
    counts, memory = living.counted(), resident()
    work(n - n // 2)
    left, grown = living.more(counts, living.counted()), resident() - memory
    beside = left or "nothing"
    print(f"{n:,} {make.__name__}: memory grew by {grown:,} bytes in the second half, alive beside what was: {beside}")
    return grown > GROWTH or bool(left)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
