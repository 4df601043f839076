"""What this CPU can do at best, one thread, and what a training sample of 784-256-10 asks of it.

    python benchmarks/ceiling.py --json ceiling.json

The rates are those of NumPy: matrix products for multiplications with additions, copies for reading and writing, each
of a size that stays in one level of the cache.  The best of many repetitions counts, since it is a limit that is looked
for.  The demands are counted from the shapes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from contestants.base import limit_blas
from fastscalar.cli.console import cpu
from nets import MLP
from scaling import amount, caches, digits, markdown, products
from workloads import rows

HIDDEN = MLP.widths[1]
UNKNOWN = {"L2": 2**20, "L3": 2**25}  # where the system does not tell


def best(run: Callable[[], Any], seconds: float) -> float:
    """Of one call, in seconds."""
    run()
    start = time.perf_counter()
    run()
    count = max(1, round(0.002 / max(time.perf_counter() - start, 1e-7)))
    found, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(count):
            run()
        found = min(found, (time.perf_counter() - start) / count)
    return found


def arithmetic(dtype: str, size: int, seconds: float) -> float:
    """Multiplications with additions in a second."""
    a, b = np.random.default_rng(0).random((2, size, size)).astype(dtype)
    out = np.empty_like(a)
    rate = size**3 / best(lambda: np.matmul(a, b, out=out), seconds)
    np.testing.assert_allclose(out[0], a[0].astype(float) @ b.astype(float), rtol=1e-4)
    return rate


def traffic(size: int, seconds: float) -> float:
    """Bytes read and written in a second by a copy; `size` is that of all that is touched.

    What a call takes for next to nothing is subtracted.
    """
    a = np.zeros(size // 4, dtype="float32")
    half = len(a) // 2
    copied = best(lambda: np.copyto(a[:half], a[half : 2 * half]), seconds)
    copied -= best(lambda: np.copyto(a[:8], a[8:16]), seconds)
    return 8 * half / max(copied, 1e-9)


def demands(filled: float) -> dict[str, dict[str, Any]]:
    """Products and bytes of one sample of 784-256-10, `filled` of its inputs not zero.

    What counts is the first layer's matrix: a row of it for each input that is not zero, all of the second layer's.
    """
    work = products(MLP.widths, filled)
    taken = filled * HIDDEN + HIDDEN * MLP.widths[-1]  # weights
    all_weights = MLP.products
    return {
        # Read forward; the gradient written; the step reads both and writes one.
        "eager, float64": {"products": work, "bytes": 8 * 5 * taken, "dtype": "float64", "level": "L3"},
        # Read forward; read and written by the step, which needs no gradient in memory.
        "compiled, batch 1, float64": {"products": work, "bytes": 8 * 3 * taken, "dtype": "float64", "level": "L3"},
        "compiled, batch 1, float32": {"products": work, "bytes": 4 * 3 * taken, "dtype": "float32", "level": "L2"},
        # A row of weights forward and a row of slopes backward for each input; the weights three times a batch.
        "compiled, batch 256, float32": {
            "products": work,
            "bytes": 4 * (2 * taken + 3 * all_weights / 256),
            "dtype": "float32",
            "level": "L2",
        },
    }


def measured(quick: bool) -> dict[str, Any]:
    limit_blas(1)
    seconds = 0.02 if quick else 0.5
    levels = UNKNOWN | caches()
    sizes = {"L2": levels["L2"] // 2, "L3": levels["L3"] // 4}  # the first level is faster than any call from Python
    if not quick:
        sizes["memory"] = 8 * levels["L3"]
    X, _, source = rows("sparse", 200 if quick else 5_000)
    filled = np.count_nonzero(X) / len(X)
    return {
        "cpu": cpu(),
        "data": source,
        "filled": filled,
        "products_per_s": {
            dtype: arithmetic(dtype, 256 if quick else 1_024, seconds) for dtype in ("float64", "float32")
        },
        "bytes_per_s": {level: {"size": size, "copied": traffic(size, seconds)} for level, size in sizes.items()},
        "demands": demands(filled),
    }


def ceiling_table(figures: dict[str, Any]) -> str:
    body = [
        [f"products, {dtype}", f"{rate / 1e9:.1f} thousand million a second"]
        for dtype, rate in figures["products_per_s"].items()
    ]
    body += [
        [f"copies in {level}, {amount(rates['size'])}", f"{rates['copied'] / 1e9:.0f} GB a second, read and written"]
        for level, rates in figures["bytes_per_s"].items()
    ]
    return markdown(["", "at best, one thread"], body)


def limits_table(figures: dict[str, Any], microseconds: dict[str, float]) -> str:
    """For each way of training what it would take at the limits, beside the microseconds that it takes."""
    head = ["784-256-10, a sample", "products", "us at the peak", "bytes", "from", "us at the peak", "us measured"]
    body = []
    for name, demand in figures["demands"].items():
        work, size = demand["products"], demand["bytes"]
        rate = figures["bytes_per_s"][demand["level"]]["copied"]
        at_peak = [work / figures["products_per_s"][demand["dtype"]] * 1e6, size / rate * 1e6]
        took = digits(microseconds[name]) if name in microseconds else ""
        body.append([name, f"{work:,.0f}", digits(at_peak[0]), amount(size), demand["level"], digits(at_peak[1]), took])
    return markdown(head, body)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="ceiling.py", description="What this CPU can do at best.")
    parser.add_argument("--quick", action="store_true", help="less than a second; no figures to keep")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    args = parser.parse_args(arguments)
    figures = measured(args.quick)
    print(f"{figures['cpu']}; {figures['filled']:.0f} of 784 inputs are not zero ({figures['data']})\n")
    print(ceiling_table(figures))
    print()
    print(limits_table(figures, {}))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
