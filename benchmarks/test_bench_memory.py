"""Bytes for each node: resident memory of a process before and after it builds one graph."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

NODES = 10_000_000

CODE = """
import json, resource, sys
import fastscalar as fs

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

count, held = int(sys.argv[1]), sys.argv[2] == "held"
handles = [None] * count if held else None
x, w = fs.Tensor(1.0), fs.Tensor(1e-9)
at_first = resident()
before = fs.tape_info()["nodes"]
for k in range(count):
    x = x + w
    if held:
        handles[k] = x
nodes = fs.tape_info()["nodes"] - before
after = resident()
x.backward()
swept = resident()
info = fs.tape_info()
print(json.dumps({
    "built": after - at_first, "swept": swept - at_first, "nodes": nodes, "grad": w.grad,
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - at_first,
    "capacity": info["capacity"], "columns": info["bytes_per_node"],
}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
@pytest.mark.parametrize("handles", ["dropped", "held"])
def test_bytes_per_node(benchmark: Any, bar: Any, small: bool, handles: str) -> None:
    """A chain of ten million additions; `held`: the Python object of every node is kept as well."""
    count = NODES // 100 if small else NODES

    def run() -> dict[str, float]:
        command = [sys.executable, "-c", CODE, str(count), handles]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    report = benchmark.pedantic(run, rounds=1)
    assert report["nodes"] == count
    assert report["grad"] == count
    benchmark.extra_info["report"] = report
    bar(f"memory: built, handles {handles}", report["built"] / count, "bytes/node")
    bar(f"memory: after backward, handles {handles}", report["swept"] / count, "bytes/node")
    bar(f"memory: peak, handles {handles}", report["peak"] / count, "bytes/node")
    if handles == "dropped":
        bar("memory: columns of the tape", report["columns"], "bytes/node", at_most=48)
