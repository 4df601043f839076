"""Somebody else's scalar code from Python: a training step of a small GPT, and functions of single numbers.

The program is `examples/porting/small_gpt.py` as it stands, at another size: its vectors are lists of Tensors, its
sums run over generators, and Adam is a Python loop over the parameters that keeps its moments as their attributes.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import itertools
import math
import random
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fastscalar as fs
from contestants.base import absent, torch_number
from contestants.entries import deep
from fastscalar import reference
from fastscalar.engine import testing
from workloads import SEED, Turns, collector, in_turn

# --- a training step of a small GPT ---

pytestmark = pytest.mark.benchmark(group="scalar_gpt")
STEPS = 10  # of ours in one timer, and of the check before; the twin does one
VOCABULARY = 27
SIZE = {"context": 8, "width": 16, "heads": 4, "seed": SEED}
SMALLEST = SIZE | {"context": 2}
PARTS = ("forward", "backward", "Adam")


@pytest.fixture(scope="module")
def gpt() -> ModuleType:
    path = Path(__file__).resolve().parent.parent / "examples" / "porting" / "small_gpt.py"
    spec = importlib.util.spec_from_file_location("small_gpt", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def documents(context: int) -> list[list[int]]:
    """Of the length of the context, so that every step is the same work."""
    rng = random.Random(SEED)
    return [[0, *(rng.randrange(1, VOCABULARY) for _ in range(context - 1)), 0] for _ in range(STEPS)]


class Training:
    """One side: its model, and steps that go on where the last ones ended."""

    def __init__(self, gpt: ModuleType, tensor: Any, small: bool) -> None:
        size = SMALLEST if small else SIZE
        self.gpt, self.documents = gpt, documents(size["context"])
        self.model = gpt.Model(tensor, VOCABULARY, **size)
        self.done = 0

    def run(self, steps: int) -> list[float]:
        losses = self.gpt.train(self.model, self.documents, steps, rate=0.01, done=self.done)
        self.done += steps
        return losses

    def parts(self) -> dict[str, float]:
        """Seconds of the parts of one more step; freeing the graph is in none of them."""
        self.done += 1
        times = [time.perf_counter()]
        loss = self.model.loss(self.documents[self.done % len(self.documents)])
        times.append(time.perf_counter())
        loss.backward()
        times.append(time.perf_counter())
        self.gpt.adam(self.model.parameters, self.done, 0.01)
        times.append(time.perf_counter())
        return {part: b - a for part, (a, b) in zip(PARTS, itertools.pairwise(times), strict=True)}


def graph_of(training: Training) -> int:
    """How many nodes a step makes."""
    testing.collect()
    before = fs.tape_info()["nodes"]
    loss = training.model.loss(training.documents[0])
    testing.collect()
    made = fs.tape_info()["nodes"] - before
    assert loss.data > 0
    return made


@pytest.mark.parametrize(("on", "factor"), [(True, 10), (False, 6)])
def test_a_step_of_a_small_gpt(benchmark: Any, bar: Any, small: bool, gpt: ModuleType, on: bool, factor: float) -> None:
    """Forward, backward, Adam and freeing: the twin with the collector on or off, ours always with it on."""
    ours, theirs = Training(gpt, fs.Tensor, small), Training(gpt, reference.Tensor, small)
    first = 2 if small else STEPS
    assert repr(ours.run(first)) == repr(theirs.run(first))
    nodes = graph_of(ours)
    assert small or 45_000 <= nodes <= 75_000
    benchmark.extra_info.update(nodes=nodes, parameters=len(ours.model.parameters), twin_collector=on)
    steps = 1 if small else STEPS

    def twin() -> None:
        with collector(on):
            theirs.run(1)

    def engine() -> float:
        """All that a step leaves behind is freed within the timer, that of the last one too."""
        start = time.perf_counter()
        ours.run(steps)
        testing.collect()
        return time.perf_counter() - start

    turns = in_turn(benchmark, engine, {"twin": twin}, rounds=1 if small else 9)
    what = f"scalar_gpt: a step, twin with collector {'on' if on else 'off'}"
    bar(what, turns.median("twin") * 1e3, "ms")
    bar(f"{what}, ours beside it", turns.median("fastscalar") / steps * 1e3, "ms")
    bar(f"{what} / ours", steps * turns.ratio("twin", "fastscalar"), "x", at_least=factor)


def test_parts_of_a_step(benchmark: Any, bar: Any, small: bool, gpt: ModuleType) -> None:
    """Where the time of a step goes, both sides with the collector on; no bar."""
    sides = {"fastscalar": Training(gpt, fs.Tensor, small), "twin": Training(gpt, reference.Tensor, small)}
    assert repr(sides["fastscalar"].run(2)) == repr(sides["twin"].run(2))
    parts = {(side, part): [] for side in sides for part in PARTS}

    def one_step_each() -> None:
        for side, training in sides.items():
            gc.collect()
            for part, seconds in training.parts().items():
                parts[side, part].append(seconds)

    benchmark.pedantic(one_step_each, rounds=1 if small else 5)
    turns = Turns({f"{side} {part}": seconds for (side, part), seconds in parts.items()})
    for part in PARTS:
        for side in sides:
            bar(f"scalar_gpt: {part}, {side}", turns.median(f"{side} {part}") * 1e3, "ms")


def micrograd_with_functions() -> Any:
    """Its Value, with the exp and log that the program needs and micrograd has not."""
    value = importlib.import_module("micrograd.engine").Value

    def function(name: str, compute: Any, slope: Any) -> None:
        def method(self: Any) -> Any:
            out = value(compute(self.data), (self,), name)

            def _backward() -> None:
                self.grad += slope(self.data, out.data) * out.grad

            out._backward = _backward
            return out

        setattr(value, name, method)

    function("exp", math.exp, lambda x, y: y)
    function("log", math.log, lambda x, y: 1.0 / x)
    return value


class Accumulating(Training):
    """A library whose gradients add up until somebody resets them."""

    def run(self, steps: int) -> list[float]:
        losses = []
        for _ in range(steps):
            self.reset()
            losses += [float(loss) for loss in super().run(1)]
        return losses

    def reset(self) -> None:
        for p in self.model.parameters:
            p.grad = 0.0


class Torch(Accumulating):
    def reset(self) -> None:
        for p in self.model.parameters:
            p.grad = p.new_zeros(())  # those of letters that do not occur would stay None


def test_peers(benchmark: Any, bar: Any, small: bool, gpt: ModuleType, skipped: Any) -> None:
    """The same program on the numbers of others; no bar.  The article's classes know neither exp nor division."""
    ours = Training(gpt, fs.Tensor, small)
    checked = 1 if small else 2
    expected = ours.run(checked)
    makers = {
        "micrograd": ("micrograd", lambda: Accumulating(gpt, micrograd_with_functions(), small)),
        "PyTorch, tensors of one number": ("torch", lambda: Torch(gpt, torch_number, small)),
    }
    with deep():
        others = {}
        for name, (module, make) in makers.items():
            if why := absent(module):
                skipped(name, why)
                continue
            side = make()
            assert side.run(checked) == pytest.approx(expected, rel=1e-9), name
            others[name] = lambda side=side: side.run(1) and None
        turns = in_turn(benchmark, lambda: ours.run(1) and None, others, rounds=1 if small else 3)
    for name in turns.seconds:
        bar(f"scalar_gpt: peers, a step, {name}", turns.median(name) * 1e3, "ms")


# --- functions of single numbers ---

HELD = 1000  # results held until the last is made
LISTS = 1000  # in one timer: a million calls
fs_math = fs.math  # as after `from fastscalar import math`
FORMS = {
    "math": {
        "exp": lambda xs: [math.exp(x) for x in xs],
        "log": lambda xs: [math.log(x) for x in xs],
        "tanh": lambda xs: [math.tanh(x) for x in xs],
    },
    "t.f()": {
        "exp": lambda ts: [t.exp() for t in ts],
        "log": lambda ts: [t.log() for t in ts],
        "tanh": lambda ts: [t.tanh() for t in ts],
    },
    "fs.math.f(t)": {
        "exp": lambda ts: [fs_math.exp(t) for t in ts],
        "log": lambda ts: [fs_math.log(t) for t in ts],
        "tanh": lambda ts: [fs_math.tanh(t) for t in ts],
    },
}


@pytest.mark.parametrize("function", ["exp", "log", "tanh"])
@pytest.mark.parametrize("form", ["t.f()", "fs.math.f(t)"])
def test_a_function_from_python(benchmark: Any, bar: Any, small: bool, form: str, function: str) -> None:
    """A list of 1,000 results made and dropped, 1,000 times; the same of floats through Python's `math`."""
    rng = random.Random(SEED)
    xs = [rng.uniform(0.1, 3.0) for _ in range(HELD)]
    ts = [fs.Tensor(x) for x in xs]
    plain, recorded = FORMS["math"][function], FORMS[form][function]
    assert [y.data for y in recorded(ts)] == plain(xs)
    recorded(ts)[-1].backward()
    slope = {"exp": math.exp(xs[-1]), "log": 1 / xs[-1], "tanh": 1 - math.tanh(xs[-1]) ** 2}[function]
    assert math.isclose(ts[-1].grad, slope, rel_tol=1e-14)
    lists = 10 if small else LISTS
    gc.collect()
    testing.collect()
    nodes = fs.tape_info()["nodes"]

    def ours() -> float:
        before = fs.tape_info()["collections"]
        start = time.perf_counter()
        for _ in range(lists):
            recorded(ts)
        testing.collect()
        seconds = time.perf_counter() - start
        after = fs.tape_info()
        assert after["nodes"] == nodes  # freed
        assert small or after["collections"] - before >= 15  # in a steady state
        return seconds

    def theirs() -> float:
        start = time.perf_counter()
        for _ in range(lists):
            plain(xs)
        return time.perf_counter() - start

    turns = in_turn(benchmark, ours, {"math": theirs}, rounds=1 if small else 15)
    name = form.replace("f(", f"{function}(")
    unit = 1e9 / (lists * HELD)
    bar(f"scalar_functions: {name}", turns.median("fastscalar") * unit, "ns/call")
    bar(f"scalar_functions: {name}, Python's beside it", turns.median("math") * unit, "ns/call")
    ratio = turns.ratio("fastscalar", "math")
    bar(f"scalar_functions: {name} / math.{function}(x)", ratio, "x", at_most=1.6)
