"""Random sequences of operations on engine and twin in lockstep: `python tests/helpers/fuzzing_engine.py [N] [FIRST]`.

A sequence is what its seed says: some dozens of steps on a few variables, a small net among them in some.  Beside the
operations: variables that go, values and gradients that are written, misuse that has to raise the same and change
nothing, blocks of `no_grad`, users' own operations whose steps raise, destructors that compute, collections, and Ctrl-C
in the engine's calls, after which everything that had been done before is as the twin has it.  One sequence of twenty
runs in stress mode.
"""

from __future__ import annotations

import contextlib
import gc
import math
import random
import signal
import struct
import sys
import traceback
from typing import Any

import fastscalar
from fastscalar import _core, reference
from fastscalar.engine import testing
from interrupts import ctrl_c

VALUES = [0.0, -0.0, 1.0, -1.0, 0.5, 3.0, -2.25, 1e-3, 7e5, 1e200, -1e200, 1e-300, math.inf, -math.inf, math.nan]
TAME = [0.0, -0.0, 1.0, -1.0, 0.5, 0.3, -2.25, 1e-3, 1.7, -0.9]

BINARY = [
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: a * b,
    lambda a, b: a / b,
    lambda a, b: a**b,
]
UNARY = [lambda a: -a, lambda a: a.relu(), lambda a: a.exp(), lambda a: a.log()]


def bits(x):
    return "nan" if math.isnan(x) else struct.pack("<d", x)


def attempt(operation, *operands):
    """The result, or the type of the error that it raised."""
    try:
        return operation(*operands)
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        return type(error)


class Machine:
    """One side of a program: its variables, and the steps it can do."""

    def __init__(self, module, values):
        self.module, self.values = module, values
        self.variables = [module.Tensor(v) for v in (1.5, -0.5)]

    def run(self, step):
        """Do one step; what there is to compare afterwards."""
        what, i, j, k = step
        v = self.variables
        a, b = v[i % len(v)], v[j % len(v)]
        number = self.values[k % len(self.values)]
        what %= 16
        if what < 5:
            return self.keep(attempt(BINARY[what], a, b))
        if what == 5:
            return self.keep(attempt(UNARY[k % len(UNARY)], a))
        if what == 6:
            return self.keep(attempt(BINARY[j % len(BINARY)], a, number))
        if what == 7:
            return self.keep(attempt(BINARY[j % len(BINARY)], number, a))
        if what == 8:
            return self.keep(self.module.Tensor(number))
        if what == 9:
            if len(v) > 2:
                del v[i % len(v)]
            return None
        if what == 10:
            a.data = number
            return self.settle()
        if what == 11:
            a.grad = number
            return None
        if what == 12:
            a._backward()
            return self.everything()
        if what == 13:  # elements of an array, by slice and by index list
            array = self.module.to_tensor([float(x) for x in (number, i, -j)])
            v.extend(array[: 1 + i % 3])
            return None
        if what == 14:
            self.module.sgd([a, [b]], 0.125)
            return self.settle()
        a.backward(accumulate=bool(k % 2))
        return self.everything()

    def settle(self):
        """After a write what was computed before is only a number: backward might have to read what was written (that
        is in test_changed_values)."""
        self.variables[:] = [t.detach() if t._parents else t for t in self.variables]

    def keep(self, result):
        if isinstance(result, type):
            return result
        self.variables.append(result)
        return self.value(result.data)

    def value(self, x):
        return bits(x)

    def everything(self):
        seen = [(bits(t.data), bits(t.grad), t._op, len(t._parents)) for t in self.variables]
        for t in self.variables:
            seen += [(bits(p.data), bits(p.grad)) for p in t._parents]
        return seen


# --- layers and losses among the scalar code: values bit for bit, gradients to 1e-12 --------------


class Layered(Machine):
    """Adds array operations; variables stay scalars, and rows of them are operands."""

    def __init__(self, module, values):
        super().__init__(module, values)
        self.net = module.MLP(3, [4, 2], seed=1)
        self.exact = True  # until a gradient of a layer has gone into a value
        self.variables.extend(self.net.linears[0].w[1])
        self.variables.extend([self.net.linears[1].b[0], self.net.linears[0].w[2][3]])

    def run(self, step):
        what, i, j, k = step
        v = self.variables
        row = [v[(i + n * j) % len(v)] for n in range(3)]
        numbers = [self.values[(k + n) % len(self.values)] for n in range(3)]
        what %= 32
        if what == 12:  # the local step of a layer's output goes to its inputs; the twin has nodes in between
            return None
        if what in (14, 25, 30):
            self.exact = False
        if what == 16:
            return self.row(self.net(numbers))
        if what == 17:
            return self.row(self.net(row))
        if what == 18:
            return self.row(self.net([row[0], numbers[1], row[2]]))
        if what == 19:
            return self.row(self.net(self.module.to_tensor(numbers)))
        if what == 20:
            return self.keep(self.module.squared_loss(row, numbers))
        if what == 21:
            return self.keep(self.module.squared_loss(row[:2], [v[0], v[-1]]))
        if what == 22:
            return self.keep(self.module.cross_entropy(row, k % 3))
        if what == 23:
            return self.keep(self.module.cross_entropy(self.net(row), k % 2))
        if what == 24:
            return self.row(self.module.relu(self.net.linears[0](row))[1:3])
        if what == 25:
            self.module.sgd(self.net.parameters(), 0.0625)
            return self.settle()
        if what == 26:
            loss = self.module.cross_entropy(self.net(numbers), k % 2) + self.net.linears[0].w[0][1] * row[0]
            loss.backward(accumulate=bool(j % 2))
            return self.everything()
        if what == 27:
            self.net.linears[0].w[i % 3][j % 4].grad = numbers[0]
            return None
        if what == 28:
            self.net.linears[0].w[i % 3][j % 4].data = numbers[0]
            return self.settle()
        if what == 29:
            rows = [numbers, [*numbers[1:], numbers[0]]]
            return self.keep(self.module.cross_entropy(self.net(rows), [0, 1]))
        return super().run((what, i, j, k))

    def row(self, tensors):
        tensors = list(tensors)
        self.variables.extend(tensors)
        return [self.value(t.data) for t in tensors]

    def value(self, x):
        return bits(x) if self.exact else Close([x])

    def everything(self):
        nodes = list(self.variables)
        for linear in self.net.linears:
            nodes += [t for row in linear.w for t in row] + list(linear.b)
        return [self.value(t.data) for t in nodes], Close([t.grad for t in nodes])


class Close:
    """Numbers that are equal if they agree to 1e-12 of the largest one about."""

    def __init__(self, numbers):
        self.numbers = numbers

    def __eq__(self, other):
        finite = [abs(x) for x in self.numbers + other.numbers if math.isfinite(x)]
        scale = 1e-12 * max([1.0, *finite])
        return all(
            a == b or (math.isnan(a) and math.isnan(b)) or abs(a - b) <= scale
            for a, b in zip(self.numbers, other.numbers, strict=True)
        )

    def __repr__(self):
        return f"{self.numbers}"


# --- sequences: everything that may come between the operations -----------------------------------

STRESSED = 20                                    # one sequence of so many
DELAYS = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4)          # of Ctrl-C, at most, in seconds
METHODS = sorted((set(reference.functions._UNARY) | {"relu"}) - {"gamma", "lgamma"})     # Python has its own of these

MISUSE = (
    lambda m, a, b: a + "x",
    lambda m, a, b: None * a,
    lambda m, a, b: a ** [b],
    lambda m, a, b: a < "x",
    lambda m, a, b: a.sqrt(b),
    lambda m, a, b: a.backward(3, 4),
    lambda m, a, b: m.Tensor("x"),
    lambda m, a, b: m.Tensor(1.0, (a, 5.0)),
    lambda m, a, b: setattr(a, "data", "x"),
    lambda m, a, b: setattr(a, "grad", [b]),
    lambda m, a, b: m.max([]),
    lambda m, a, b: m.squared_loss([a, b], [1.0]),
    lambda m, a, b: m.cross_entropy([a, b], 2),
    lambda m, a, b: m.cross_entropy([a, b], 0.5),
    lambda m, a, b: m.MLP(2, [1], seed=0)([a]),
    lambda m, a, b: m.to_tensor(["x"]),
    lambda m, a, b: m.sgd([a, "x"], 0.1),
)


class Wrong(Exception):
    """What a user's own step raises."""


class Computing:
    """What has a destructor that uses the engine."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __del__(self) -> None:
        x = self.module.Tensor(2.0)
        (x * x + x).backward()


class Side:
    """A machine, and what may come between its steps."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.module = machine, machine.module
        self.raises: list[type[BaseException]] = []         # what the steps of own operations hold must not hold them

    def nodes(self) -> list[Any]:
        """Everything that can be reached."""
        found = list(self.machine.variables)
        if isinstance(self.machine, Layered):
            found += parameters(self.machine)
        seen = set(found)
        for t in found:
            for parent in t._parents:
                if parent not in seen:
                    seen.add(parent)
                    found.append(parent)
        return found

    def forget(self) -> None:
        """Gradients are unspecified after a pass that was broken off."""
        for t in self.nodes():
            t.grad = 0.0

    def pick(self, i: int) -> Any:
        return self.machine.variables[i % len(self.machine.variables)]

    def own_operation(self, i: int, k: int) -> Any:
        """With a step by hand, which is told to raise at times."""
        a, raises = self.pick(i), self.raises
        out = self.module.Tensor(3.0 * a.data, (a,), "mine")

        def step() -> None:
            if raises:
                raise raises[0]
            a.grad += 3.0 * out.grad

        out._backward = step
        return self.machine.keep(out)

    def broken_pass(self, i: int, k: int) -> bool:
        """A pass in which the step of a user's own operation raises, and whether that was said."""
        self.own_operation(i, k)
        root = self.pick(-1) * self.pick(k) + self.pick(i)
        self.raises.append((Wrong, KeyboardInterrupt)[k % 2])
        try:
            root.backward(accumulate=bool(k & 2))
        except (Wrong, KeyboardInterrupt):
            return True
        finally:
            self.raises.clear()
            self.forget()
        return False

    def method(self, i: int, k: int) -> Any:
        return self.machine.keep(attempt(getattr(self.pick(i), METHODS[k % len(METHODS)])))

    def no_grad(self, step: tuple[int, ...]) -> Any:
        with self.module.no_grad():
            return self.machine.run(step)

    def noted(self, i: int, k: int) -> None:
        """An attribute, at times one that computes when it goes."""
        self.pick(i).note = Computing(self.module) if k % 3 else [self.module.Tensor(float(k))]


def parameters(machine: Layered) -> list[Any]:
    return [t for linear in machine.net.linears for row in [*linear.w, linear.b] for t in row]


MAKES = (*range(9), 13)                          # of Machine's steps: what only makes something
MAKES_LAYERED = (*MAKES, *range(16, 25), 29)


class Large(Exception):
    """Behind layers rounding is all that would be seen; and 0 * NaN counts as 0 in layers (documented)."""


class Sequence:
    """The steps of a seed, on both sides."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        kind = seed % 5
        values, machine = (VALUES, Machine) if kind < 2 else (TAME, Machine if kind == 2 else Layered)
        self.layered = machine is Layered
        self.engine, self.twin = (Side(machine(module, values)) for module in (fastscalar, reference))
        self.steps: list[tuple[str, tuple[int, ...]]] = []
        self.interrupted = self.broken = 0       # how often Ctrl-C came, and a user's step raised

    def run(self) -> None:
        with contextlib.suppress(Large):
            self.all()

    def all(self) -> None:
        for _ in range(self.draw.randint(3, 60)):
            step = tuple(self.draw.getrandbits(8) for _ in range(4))
            self.one(self.draw.choices(EVENTS, WEIGHTS)[0], step)
        self.one("step", (15, 255, 0, 0))
        for t, other in zip(self.engine.machine.variables, self.twin.machine.variables, strict=True):
            t.backward()
            other.backward()
        self.compare()

    def one(self, event: str, step: tuple[int, ...]) -> None:
        self.steps.append((event, step))
        _, i, _, k = step
        if event in ("misuse", "interrupt", "collect"):
            getattr(self, event)(step)
            return
        how = {
            "step": lambda side: side.machine.run(step),
            "method": lambda side: side.method(i, k),
            "own operation": lambda side: side.own_operation(i, k),
            "broken pass": lambda side: side.broken_pass(i, k),
            "no_grad": lambda side: side.no_grad(self.making(step)),
            "noted": lambda side: side.noted(i, k),
        }[event]
        one, other = how(self.engine), how(self.twin)
        self.agree(one, other)
        self.broken += event == "broken pass" and one

    def making(self, step: tuple[int, ...]) -> tuple[int, ...]:
        """A step that makes something, and writes nothing."""
        makes = MAKES_LAYERED if self.layered else MAKES
        return (makes[step[0] % len(makes)], *step[1:])

    def compare(self) -> None:
        self.agree(self.engine.machine.everything(), self.twin.machine.everything())

    def agree(self, one: Any, other: Any) -> None:
        twin = self.twin.machine
        if self.layered and not all(
            abs(t.data) < 1e6 and abs(t.grad) < 1e6 for t in [*twin.variables, *parameters(twin)]
        ):
            raise Large
        assert one == other, f"{one} on the engine, {other} on the twin"

    def misuse(self, step: tuple[int, ...]) -> None:
        """Raises, and changes nothing."""
        _, i, j, k = step
        side = self.engine
        try:
            MISUSE[k % len(MISUSE)](side.module, side.pick(i), side.pick(j))
        except (TypeError, ValueError):
            self.compare()
        else:
            raise AssertionError(f"misuse {k % len(MISUSE)} raised nothing")

    def interrupt(self, step: tuple[int, ...]) -> None:
        """Ctrl-C in the engine's call.  Then the twin does not do it, and a pass leaves any gradients."""
        what, i, j, k = step
        passes = what % 3 == 0
        step = (15, i, j, k) if passes else self.making((what // 3, i, j, k))
        machine, found = self.engine.machine, None
        before = list(machine.variables)
        delay = max(self.draw.random() * self.draw.choice(DELAYS), 1e-6)
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                found = machine.run(step)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            self.interrupted += 1
            machine.variables[:] = before
            if passes:
                self.engine.forget()
                self.twin.forget()
            testing.check()
        else:
            self.agree(found, self.twin.machine.run(step))

    def collect(self, step: tuple[int, ...]) -> None:
        (testing.collect, lambda: gc.collect(0))[step[3] % 2]()


EVENTS = ("step", "method", "own operation", "broken pass", "no_grad", "noted", "misuse", "interrupt", "collect")
WEIGHTS = (70, 6, 4, 3, 4, 3, 4, 4, 2)


def sequence(seed: int) -> Sequence:
    """That of a seed, which has been run.  AssertionError with the steps, where the sides differ."""
    before = _core.tape_info()["stress"]
    testing.set_stress(before or seed % STRESSED == 0)
    made = Sequence(seed)
    try:
        made.run()
        testing.check()
    except Exception as error:
        steps = "\n".join(f"  {event}: {step}" for event, step in made.steps)
        raise AssertionError(f"sequence {seed}: {type(error).__name__}: {error}\n{steps}") from error
    finally:
        testing.set_stress(before)
    return made


def left() -> int:
    """How many nodes there are, once what nobody has is gone: destructors may have made some."""
    for _ in range(3):
        gc.collect()
        testing.collect()
    return _core.tape_info()["nodes"]


def main(words: list[str]) -> int:
    n, first = (int(word) for word in [*words, *("1000", "0")[len(words) :]])
    signal.signal(signal.SIGALRM, ctrl_c)
    before, interrupted, broken = left(), 0, 0
    for seed in range(first, first + n):
        try:
            made = sequence(seed)
            interrupted, broken = interrupted + made.interrupted, broken + made.broken
            del made
        except AssertionError:
            traceback.print_exc()
            return 1
    if (there := left()) != before:
        print(f"{there - before:,} nodes are left of {n:,} sequences from {first:,}")
        return 1
    print(f"{n:,} sequences agree, {interrupted:,} interrupts and {broken:,} passes whose step raised among them")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
