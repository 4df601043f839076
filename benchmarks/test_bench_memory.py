"""Bytes for each node or operation: resident memory of a process before and after it builds one graph."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

import fastscalar as fs
from contestants import programs
from contestants.base import absent

pytestmark = pytest.mark.benchmark(group="memory")
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


PEER = """
import importlib, json, resource, sys

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

module, count = sys.argv[1], int(sys.argv[2])
if module == "torch":
    import torch
    number = lambda v: torch.tensor(v, dtype=torch.float64, requires_grad=True)
    (number(1.0) + number(1.0)).backward()
else:
    number = {"article": "Tensor", "fastscalar.reference": "Tensor", "micrograd.engine": "Value"}[module]
    number = getattr(importlib.import_module(module), number)
x, w = number(1.0), number(1e-9)
before = resident()
for k in range(count):
    x = x + w
print(json.dumps({"built": resident() - before, "value": float(x.data)}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("twin", "fastscalar.reference"),
        ("the article's classes", "article"),
        ("micrograd", "micrograd.engine"),
        ("PyTorch, tensors of one number", "torch"),
    ],
)
def test_bytes_per_node_of_others(benchmark: Any, bar: Any, small: bool, skipped: Any, name: str, module: str) -> None:
    """The same chain, shorter; not followed by a backward pass, for which micrograd would recurse a million deep."""
    if why := absent(module.partition(".")[0]) if module != "article" else None:
        skipped(name, why)
        pytest.skip(why)
    count = 1_000 if small else 300_000
    report = benchmark.pedantic(measured, (PEER, module, count), rounds=1)
    assert report["value"] == pytest.approx(1.0 + count * 1e-9, rel=1e-9)
    bar(f"memory: built, {name}", report["built"] / count, "bytes/node")


RECORDING = """
import json, sys
import numpy as np
import fastscalar as fs
from contestants.programs import TENSORS, predators, samples

def kilobytes(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))

steps = int(sys.argv[1])
X = samples("ode", 1)
warm = fs.compile(lambda x: predators(x, TENSORS, 5))
warm.value_and_grad(X, argnums=0)
program = fs.compile(lambda x: predators(x, TENSORS, steps))
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak so far is forgotten
before = kilobytes("VmRSS")
value = program(X[0])
recorded = kilobytes("VmHWM") - before, kilobytes("VmRSS") - before
program.value_and_grad(X, argnums=0)
print(json.dumps({
    "peak": 1024 * recorded[0], "kept": 1024 * recorded[1], "value": float(value),
    "replayed": 1024 * (kilobytes("VmHWM") - before),
}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
def test_recording(benchmark: Any, bar: Any, small: bool, skipped: Any) -> None:
    """A program of a million operations that is recorded and run once: the tape and the program together."""
    if not hasattr(fs, "compile"):
        skipped("fastscalar compiled", "this version has no fs.compile")
        pytest.skip("this version has no fs.compile")
    steps = 200 if small else 20_000
    each = (programs.operations("ode") - 5) / 40
    report = benchmark.pedantic(measured, (RECORDING, steps), rounds=1)
    x = programs.samples("ode", 1)[0].tolist()
    assert report["value"] == pytest.approx(programs.predators(x, programs.PLAIN, steps), rel=1e-6)
    operations = each * steps
    benchmark.extra_info.update(report=report, operations=operations)
    bar("memory: recording a program, at its peak", report["peak"] / operations, "bytes/op", at_most=100)
    bar("memory: a recorded program, kept", report["kept"] / operations, "bytes/op")
    bar("memory: value and gradient of one row by it, peak", report["replayed"] / operations, "bytes/op")


def measured(code: str, *arguments: Any) -> dict[str, float]:
    """What this code prints in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    here = str(pathlib.Path(__file__).resolve().parent)
    paths = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    env = os.environ | {"PYTHONPATH": paths}
    return json.loads(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)
