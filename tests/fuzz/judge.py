"""Whether a compiled function says what the function says: the plain call, row by row with Tensors, is the truth.

`judge(text)` runs a case as `generate` writes it.  Numbers agree to 1e-11 of the absolute terms that were added up; if
they do not, the plain function is run again in other directions of rounding (`rounding`), and they have to lie among
what comes out.  Where even the plain function raises, or chooses, another way under rounding, the case is "unstable"
and says nothing.  Exact cases agree to the bit unless the plain function itself rounds.
"""

from __future__ import annotations

import gc
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import fastscalar as fs
from fastscalar.engine import testing
from fastscalar.program import found as found_loops
from fastscalar.program import recorded, rolling

from . import shapes
from .cases import SAMPLES, Case, Outcome, Unstable, WrongResult, gradient_of, set_gradient
from .rounding import AVAILABLE, noisy, scattered

TOLERANCE = 1e-11  # of the absolute terms
SPREAD = 16.0  # times what rounding in other directions changes
CHAOS = 1e-4  # of the absolute terms: a result that rounding changes by more says nothing
ROUNDING = 2.0**-48  # of the absolute terms along all paths through the graph: `Case.absolute`
NAMED = (ValueError, ZeroDivisionError, OverflowError, IndexError, FloatingPointError, ArithmeticError)


class Difference(Exception):
    """The compiled function says something else; `kind` groups what is likely to have one cause."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail = kind, detail


@dataclass
class Verdict:
    status: str  # "agrees", "differs", "unstable", "useless"
    kind: str = ""
    detail: str = ""


LARGE, SMALLER = 1e300, 2.0**-400

# --- comparing --------------------------------------------------------------------------------------------------------


def compare(
    case: Case, what: str, found: Any, rows: Sequence[int], part: Callable[[Outcome], Any], more: Any = 0.0
) -> None:
    """found is the sum over the rows of a part of their outcomes, and of `more`."""
    with np.errstate(all="ignore"):
        parts = [np.asarray(part(case.truth(i)), dtype=float) for i in rows]
        expected, absolute = more + sum(parts), abs(more) + sum(map(np.abs, parts))
        found = np.asarray(found, dtype=float)
        if found.shape != expected.shape:
            raise Difference(what, f"shape {found.shape}, right {expected.shape}")
        if agree(found, expected, TOLERANCE * absolute if case.kind != "exact" else 0.0):
            return
        every = zip(*map(case.samples, rows), strict=True)
        samples = [more + sum(np.asarray(part(s), dtype=float) for s in some) for some in every]
        spread = np.max([abs(s - expected) for s in samples], axis=0)
        terms = absolute + sum(part(case.absolute(i)) for i in rows)
        if np.any(np.where(np.isfinite(expected), spread, 0.0) > CHAOS * terms + 1e-300):
            raise Unstable  # it takes another branch, or is nothing but rounding
        bound = TOLERANCE * absolute + ROUNDING * terms
        if case.kind == "exact" and not any(map(case.rounds, rows)):
            bound = 0.0
        if not agree(found, expected, bound + SPREAD * np.where(np.isfinite(spread), spread, 0.0)):
            raise Difference(what, f"{found!r}, right {expected!r} (spread {spread!r})")


def agree(found: np.ndarray, expected: np.ndarray, bound: Any) -> bool:
    finite = np.isfinite(expected)
    same = np.where(
        finite, abs(found - expected) <= bound + 1e-300, (found == expected) | (np.isnan(found) & np.isnan(expected))
    )
    return bool(np.all(same))


def values_of(x: Any) -> Any:
    """The numbers in nested lists, Tensors and TensorArrays."""
    if isinstance(x, (list, tuple)):
        return np.array([values_of(e) for e in x], dtype=float)
    return x.data if isinstance(x, fs.Tensor) else x.numpy() if isinstance(x, fs.TensorArray) else x


def recordings(program: Any) -> int:
    """How often a program has recorded its function."""
    return sum(cache.recorded + cache.misfits for cache in program._caches.values())


def sentinels(case: Case) -> list[np.ndarray]:
    """Gradients that somebody left in the leaves."""
    found = [np.full(np.shape(leaf.grad), 0.75 + 0.5 * k) for k, leaf in enumerate(case.leaves)]
    for leaf, gradient in zip(case.leaves, found, strict=True):
        set_gradient(leaf, gradient)
    return found


class Run:
    """One case, step by step."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.program = fs.compile(case.function)
        self.said: list[tuple[str, str]] = []
        self.lost: set[int] = set()  # lines where it said that a gradient gets lost,
        self.losing: set[int] = set()  # and where one did when gradients were asked for

    def step(self, name: str, *how: Any) -> None:
        if name in shapes.STEPS:
            shapes.STEPS[name](self, *how)
        else:
            getattr(self, "_" + name)(*how)

    def attempt(self, what: str, rows: Sequence[int], call: Callable[[], Any], named: bool = True) -> Any:
        """The result of a call; None if it raised what the lowest row raises, and nothing has changed."""
        case = self.case
        raised = next(((k, case.truth(i).error) for k, i in enumerate(rows) if case.truth(i).error is not None), None)
        if raised is not None and _of_plain_numbers(raised[1]):
            raise Unstable  # where the plain call has numbers a program may have Tensors
        before, gradients = case.data(), sentinels(case)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                result = call()
        except Exception as error:
            self.error(what, rows, error, raised, named)
            self.unchanged(what, before, gradients)
            return None
        finally:
            self.listen([w.message for w in caught], shape if (shape := what.partition(":")[0]) in shapes.STEPS else "")
        if raised is not None:
            k, right = raised
            kind = f"{what}:error: none, right {type(right).__name__}"
            self.unless_unstable(rows[: k + 1], kind, f"{result!r}; right {type(right).__name__}: {right} (row {k})")
        self.before, self.gradients = before, gradients
        return result

    def error(self, what: str, rows: Sequence[int], error: Exception, raised: Any, named: bool) -> None:
        """Whether an error is the right one, and says which row it was."""
        found = f"{type(error).__name__}: {error}"
        if raised is None:
            kind = f"{what}:error: {type(error).__name__}, right a value"
            self.unless_unstable(rows, kind, f"{found}; right a value")
        k, right = raised
        if type(error) is not _type(right):
            kind = f"{what}:error: {type(error).__name__}, right {type(right).__name__}"
            self.unless_unstable(rows[: k + 1], kind, f"{found}; right {type(right).__name__}: {right} (row {k})")
        if type(right) in NAMED:
            said = f"row {k}: {right}" if named else str(right)
            if str(error) != said:
                self.unless_unstable(rows[: k + 1], f"{what}:message", f"{error}; right {said}")
        elif named and f"row {k}" not in getattr(error, "__notes__", ()):
            self.unless_unstable(rows[: k + 1], f"{what}:message", f"no note of row {k} at {found}")

    def listen(self, messages: list[Any], program: str = "") -> None:
        """program: "" for that of the run, else which of those that belong to it; each says a thing once."""
        for message in messages:
            if isinstance(message, fs.CompileWarning):
                if (program, str(message)) in self.said and recorded.SPECIALIZATIONS > 1:  # else more fall back
                    raise Difference("warning", f"said again: {message}")
                self.said.append((program, str(message)))
            elif isinstance(message, fs.GradientLossWarning):
                line = re.match(r"(.*):(\d+): ", str(message))
                if line is not None and line[1] == self.case.file:
                    self.lost.add(int(line[2]))
            elif not isinstance(message, RuntimeWarning):
                raise Difference("warning", f"{type(message).__name__}: {message}")

    def losses(self, what: str, rows: Sequence[int], by_leaves: bool, complete: bool = True) -> None:
        """Gradients that get lost are said, once, when they are asked for; those that do not are not.

        complete: all are asked for."""
        if not self.case.reads:
            return
        lost = [self.case.lost(i) for i in rows]
        right = set().union(*(leaves if by_leaves else arguments for arguments, leaves in lost))
        if right and complete and not self.case.stops and not right & self.lost:
            raise Difference(f"{what}:lost", f"a gradient gets lost at lines {right} and nothing was said")
        every = self.case.reading_lines.union(*(a | b for a, b in (self.case.lost(i) for i in range(self.case.rows))))
        self.losing |= every  # said before leaves changed, when it was so
        if self.lost - self.losing:
            raise Difference(f"{what}:lost", f"lines {self.lost - self.losing} were named, and nothing gets lost there")

    def unless_unstable(self, rows: Sequence[int], kind: str, detail: str) -> None:
        for i in rows:
            self.case.samples(i)
        raise Difference(kind, detail)

    def unchanged(self, what: str, data: list[np.ndarray], gradients: list[np.ndarray] | None) -> None:
        for leaf, before, now in zip(self.case.leaves, data, self.case.data(), strict=True):
            if before.tobytes() != now.tobytes():
                raise Difference(f"{what}:state", f"data of {type(leaf).__name__} {before} became {now}")
        for leaf, before in zip(self.case.leaves, gradients or (), strict=False):
            if before.tobytes() != gradient_of(leaf).tobytes():
                raise Difference(f"{what}:state", f"gradient of {type(leaf).__name__} {before} became {leaf.grad}")

    def values(self, what: str, found: Any, rows: Sequence[int]) -> None:
        if np.shape(found) != (len(rows),):
            raise Difference(f"{what}:value", f"shape {np.shape(found)}")
        for k, i in enumerate(rows):
            compare(self.case, f"{what}:value", found[k], [i], lambda o: o.value)

    # --- steps ---

    def _map(self, some: Sequence[int] | None, threads: int) -> None:
        some, where = self.case.at(some)
        rows = range(self.case.rows) if some is None else some
        found = self.attempt("map", rows, lambda: self.program.map(*self.case.chosen(some), threads=threads, **where))
        if found is not None:
            self.values("map", found, rows)
            self.unchanged("map", self.before, self.gradients)

    def _call(self, i: int) -> None:
        given = [a if np.ndim(a) == 0 else np.asarray(a)[i] for a in self.case.arguments]
        with self.case.stream(i):
            found = self.attempt("call", [i], lambda: self.program(*given), named=False)
        if found is not None:
            if type(found) is not float:
                raise Difference("call:value", f"a {type(found).__name__}")
            self.values("call", [found], [i])
            self.unchanged("call", self.before, self.gradients)

    def _grad(self, argnums: list[int], some: Sequence[int] | None, threads: int) -> None:
        case = self.case
        some, where = case.at(some)
        rows = range(case.rows) if some is None else some
        found = self.attempt(
            "grad",
            rows,
            lambda: self.program.value_and_grad(*case.chosen(some), argnums=tuple(argnums), threads=threads, **where),
        )
        if found is None:
            return
        self.values("grad", found[0], rows)
        complete = len(argnums) == sum(np.asarray(a).dtype.kind == "f" for a in case.arguments)
        self.losses("grad", rows, False, complete)
        self.unchanged("grad", self.before, self.gradients)
        for k, gradient in zip(argnums, found[1], strict=True):
            if np.ndim(case.arguments[k]) == 0:
                compare(case, "grad:shared", gradient, rows, lambda o, k=k: o.arguments[k])
                continue
            if np.shape(gradient)[:1] != (len(rows),):
                raise Difference("grad:argument", f"shape {np.shape(gradient)}")
            for row, i in enumerate(rows):
                compare(case, "grad:argument", gradient[row], [i], lambda o, k=k: o.arguments[k])

    def _backward(self, accumulate: bool, some: Sequence[int] | None, threads: int) -> None:
        case = self.case
        some, where = case.at(some)
        rows = range(case.rows) if some is None else some
        found = self.attempt(
            "backward",
            rows,
            lambda: self.program.backward(*case.chosen(some), accumulate=accumulate, threads=threads, **where),
        )
        if found is None:
            return
        now = [gradient_of(leaf) for leaf in case.leaves]
        self.values("backward", found, rows)
        self.losses("backward", rows, True)
        self.unchanged("backward", self.before, None)
        for k, (gradient, before) in enumerate(zip(now, self.gradients, strict=True)):
            if accumulate:
                compare(case, "backward:accumulate", gradient, rows, lambda o, k=k: o.leaves[k], more=before)
                continue
            touched = np.any(
                [case.truth(i).leaves[k] != 0 for i in rows], axis=0
            )  # what no row reaches may keep its own
            gradient = np.where(~touched & (gradient == before), 0.0, gradient)
            compare(case, "backward:leaf", gradient, rows, lambda o, k=k: o.leaves[k])

    def _modes(self, i: int) -> None:
        """`fs.grad` of function and program, a recorded backward pass, and the forward mode."""
        case, truth = self.case, self.case.truth(i)
        given = case.row(i)
        floats = tuple(k for k, g in enumerate(given) if isinstance(g, (fs.Tensor, fs.TensorArray)))
        if not floats or truth.error is not None:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, function in (("fs.grad", case.function), ("fs.grad of a program", self.program)):
                _, found = self.mode(name, i, lambda f=function: fs.value_and_grad(f, argnums=floats)(*case.row(i)))
                for k, gradient in zip(floats, found, strict=True):
                    compare(case, f"{name}:argument", values_of(gradient), [i], lambda o, k=k: o.arguments[k])
            given = case.row(i)

            def recorded() -> None:
                result = case.called(i, given)
                if isinstance(result, fs.Tensor):
                    result.backward(create_graph=True)

            self.mode("create_graph", i, recorded)
            for k in floats:
                compare(case, "create_graph:argument", gradient_of(given[k]), [i], lambda o, k=k: o.arguments[k])
            self.forward(i, floats)
            for leaf in case.leaves:
                set_gradient(leaf, 0.0)

    def mode(self, name: str, i: int, call: Callable[[], Any]) -> Any:
        try:
            with self.case.stream(i):
                return call()
        except NotImplementedError:
            raise Unstable from None  # a custom operation that cannot be differentiated again
        except Exception as error:
            return self.unless_unstable([i], f"{name}:error: {type(error).__name__}", str(error))

    def forward(self, i: int, floats: Sequence[int]) -> None:
        case, given = self.case, self.case.row(i)
        draw = np.random.default_rng(i)
        steps = [draw.choice([-1.0, 0.0, 1.0, 2.0], size=np.shape(case.truth(i).arguments[k])) for k in floats]

        def f(*numbers: Any) -> Any:
            arguments = list(given)
            for k, x in zip(floats, numbers, strict=True):
                arguments[k] = x
            return case.called(i, arguments)

        points, tangents = tuple(given[k] for k in floats), tuple(map(fs.to_tensor, steps))
        _, slope = self.mode("jvp", i, lambda: fs.jvp(f, points, tangents))

        def along(o: Outcome) -> Any:
            terms = [np.where(step == 0.0, 0.0, o.arguments[k] * step) for k, step in zip(floats, steps, strict=True)]
            return sum(np.sum(t) for t in terms)

        with np.errstate(all="ignore"):
            sizes = [np.abs(case.truth(i).arguments[k] * step) for k, step in zip(floats, steps, strict=True)]
        if np.isfinite(sum(map(np.sum, sizes))):  # else inf - inf along a direction
            absolute = case.absolute(i)
            scale = sum(np.sum(np.abs(absolute.arguments[k] * step)) for k, step in zip(floats, steps, strict=True))
            found, right = np.asarray(values_of(slope), dtype=float), along(case.truth(i))
            if not agree(found, np.asarray(right), 1e-11 * scale):
                compare(case, "jvp:argument", found, [i], along)

    def _threads(self) -> None:
        """Results do not depend on their number, to the bit, once the recordings are there; and there they are: rows
        that have been mapped are recorded no more."""
        arguments = self.case.arguments
        floats = tuple(k for k, a in enumerate(arguments) if np.asarray(a).dtype.kind == "f")
        if any(self.case.truth(i).error is not None for i in range(self.case.rows)):
            return
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.program.map(*arguments)
            found, recorded = [], recordings(self.program)
            for threads in (1, 2, 3):
                some = [self.program.map(*arguments, threads=threads)]
                some.append(self.program.backward(*arguments, threads=threads))
                some += [gradient_of(leaf) for leaf in self.case.leaves]
                if floats:
                    some += self.program.value_and_grad(*arguments, argnums=floats, threads=threads)[1]
                found.append([np.asarray(x).tobytes() for x in some])
        self.listen([w.message for w in caught])
        if found[1:] != found[:-1]:
            raise Difference("threads", "other bits with another number of threads")
        if recordings(self.program) != recorded:
            raise Difference("recorded", f"{recordings(self.program) - recorded} more times when they are mapped again")

    def _change(self, seed: int) -> None:
        draw = np.random.default_rng(seed)
        if self.case.kind == "exact":
            self.case.set_data(
                [value + draw.choice([-1.0, -0.5, 0.0, 1.0], size=value.shape) for value in self.case.data()]
            )
        else:
            self.case.set_data([value * 0.75 + draw.normal(size=value.shape) for value in self.case.data()])

    def _new(self) -> None:
        self.program, self.said, self.lost, self.losing = fs.compile(self.case.function), [], set(), set()

    def _rolled(self) -> None:
        """Loops of any number of steps are instructions."""
        rolling.UNROLLED = 0

    def _found(self) -> None:
        """What repeats three times is a loop."""
        found_loops.LEAST, found_loops.BODY, found_loops.FEWEST, found_loops.MUCH = 16, 6, 3, 1

    def _limited(self) -> None:
        """Most rows run in Python: there are hardly any recordings."""
        recorded.SPECIALIZATIONS = 1

    def _collect(self) -> None:
        gc.collect()
        testing.collect()

    def _fit(self, optimizer: str, batch: int, epochs: int, threads: int) -> None:
        case = self.case
        begin = case.data()

        def options() -> Any:
            return getattr(fs, optimizer)(lr=0.125 if optimizer == "SGD" else 0.01)

        states, losses, failure = by_hand(case, options(), batch, epochs)
        case.epoch = 0
        if isinstance(failure, tuple) and _of_plain_numbers(failure[1]):
            case.set_data(begin)
            raise Unstable
        if optimizer == "Adam" and late(case, batch):
            case.set_data(begin)
            raise Unstable  # a leaf that is read later begins with moments of its own
        for state in states if case.reads else ():         # what gets lost on the way may be said later
            case.set_data(state)
            self.losing |= set().union(*(lines for i in range(case.rows) for lines in case.lost(i)))
        trained = any(a.tobytes() != b.tobytes() for a, b in zip(states[0], states[-1], strict=True))
        try:
            case.set_data(begin)
            for leaf in case.leaves:
                set_gradient(leaf, 0.0)
            error = history = None
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    history = fs.fit(
                        self.program, *case.arguments, epochs=epochs, optimizer=options(), shuffle=False,
                        progress=False, seed=0, batch_size=batch, schedule=None, threads=threads if batch > 1 else 1,
                    )  # fmt: skip
            except Exception as raised:
                error = raised
            finally:
                self.listen([w.message for w in caught])
            after = case.data()
            if not trained and isinstance(error, ValueError) and "nothing to train" in str(error):
                return  # nothing is read that could be trained
            wrong = fit_differs(states, losses, failure, after, history, error, 0.0, 0.0)
            if wrong is not None:
                if not AVAILABLE:
                    raise Unstable
                spread, loss_spread = 0.0, 0.0
                for seed in range(SAMPLES):
                    case.set_data(begin)
                    with scattered(seed, case.file), noisy(seed, case.function.__globals__):
                        some, some_losses, some_failure = by_hand(case, options(), batch, epochs, seed)
                    case.epoch = 0
                    if type(some_failure) is not type(failure) or len(some) != len(states):
                        raise Unstable
                    with np.errstate(all="ignore"):
                        spread = np.maximum(spread, abs(np.array(_flat(some[-1])) - _flat(states[-1])))
                        loss_spread = np.maximum(loss_spread, abs(np.array(some_losses) - losses)) if losses else 0.0
                if np.any(spread > CHAOS * abs(_flat(states[-1]))):
                    raise Unstable
                wrong = fit_differs(states, losses, failure, after, history, error, spread, loss_spread)
                if wrong is not None:
                    raise Difference(*wrong)
        finally:
            case.set_data(begin)
            for leaf in case.leaves:
                set_gradient(leaf, 0.0)


def _type(error: Exception) -> type[Exception]:
    return TypeError if isinstance(error, WrongResult) else type(error)


def _of_plain_numbers(error: Exception) -> bool:
    """Whether an error came of a number that is a Tensor in a program: it has no methods, its roots may be complex."""
    complex_root = isinstance(error, TypeError) and "complex" in str(error)
    return complex_root or isinstance(error, (AttributeError, WrongResult))


def _words(error: Any) -> str:
    """A message without its numbers: after some steps they are those of other roundings."""
    return re.sub(r"[-+]?\d+\.?\d*(e[-+]?\d+)?", "#", str(error))


def _flat(data: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(d) for d in data]) if data else np.zeros(0)


def by_hand(
    case: Case, optimizer: Any, batch: int, epochs: int, seed: int | None = None
) -> tuple[list[list[np.ndarray]], list[float], Any]:
    """The loop that fit stands for: leaves at the beginning and after each step, losses by epoch, what stopped it.

    With a seed gradients and losses err as much as rounding may make them err."""
    draw = np.random.default_rng(seed)
    if case.leaves:
        optimizer.bind(case.leaves)
    states, losses = [case.data()], []
    for epoch in range(epochs):
        case.epoch = epoch + 1
        total = 0.0
        for first in range(0, case.rows, batch):
            outcomes = [case.plainly(i) for i in range(first, min(first + batch, case.rows))]
            for k, o in enumerate(outcomes):
                if o.error is not None:
                    return states, losses, (first + k, o.error)
            if not all(math.isfinite(o.value) for o in outcomes):
                return states, losses, FloatingPointError()
            try:
                sizes = [] if seed is None else [case.absolute(first + i) for i in range(len(outcomes))]
            except ArithmeticError as error:     # of the function, called once more, with other errors than before
                return states, losses, (first, error)
            with np.errstate(all="ignore"):
                for k, leaf in enumerate(case.leaves):
                    gradient = sum(o.leaves[k] for o in outcomes)
                    if sizes:
                        terms = sum(size.leaves[k] for size in sizes)
                        gradient = gradient + ROUNDING * terms * draw.uniform(-1.0, 1.0, size=np.shape(terms))
                    set_gradient(leaf, gradient / len(outcomes))
                if case.leaves:
                    optimizer.step()
            total += sum(o.value for o in outcomes)
            total += sum(ROUNDING * size.value * draw.uniform(-1.0, 1.0) for size in sizes)
            states.append(case.data())
        losses.append(total / case.rows)
    return states, losses, None


def late(case: Case, batch: int) -> bool:
    """Whether some step has no gradient for a leaf that another step has one for."""
    reached = []
    for first in range(0, case.rows, batch):
        some = [case.truth(i) for i in range(first, min(first + batch, case.rows))]
        reached.append([any(o.error is None and np.any(o.leaves[k]) for o in some) for k in range(len(case.leaves))])
    return any(step != reached[0] for step in reached)


def fit_differs(
    states: list[list[np.ndarray]], losses: list[float], failure: Any, after: list[np.ndarray], history: Any,
    error: Exception | None, spread: Any, loss_spread: Any,
) -> tuple[str, str] | None:  # fmt: skip
    """What is wrong with what fit did, if anything."""
    if not np.all(np.abs(_flat(states[-1])) <= 1e154):
        return None  # a step that overflowed, or as good as did
    if failure is not None:
        right = failure[1] if isinstance(failure, tuple) else failure
        if type(error) is not _type(right):
            return f"fit:error: {type(error).__name__}, right {type(right).__name__}", f"{error!r}; right {right!r}"
        if (
            isinstance(failure, tuple)
            and type(right) in NAMED
            and _words(error) != _words(f"row {failure[0]}: {right}")
        ):
            return "fit:message", f"{error}; right: row {failure[0]}: {right}"
        return None
    if error is not None:
        return f"fit:error: {type(error).__name__}, right: none", f"{error!r}; right: no error"
    found, expected = _flat(after), _flat(states[-1])
    scale = np.max([abs(_flat(s)) for s in states], axis=0) if len(found) else 0.0
    if not agree(found, expected, 1e-9 * scale + SPREAD * spread):
        return "fit:leaf", f"{found!r}, right {expected!r}"
    if not agree(np.array(history.loss), np.array(losses), 1e-9 * abs(np.array(losses)) + SPREAD * loss_spread):
        return "fit:loss", f"{history.loss!r}, right {losses!r}"
    return None


def judge(text: str, plainly: bool = False) -> Verdict:
    """Run a case; plainly: no more than its plain calls."""
    try:
        case = Case.of(text)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for i in range(case.rows):
                case.truth(i)
    except Exception as error:
        return Verdict("useless", "case", f"{type(error).__name__}: {error}")
    if plainly:
        return Verdict("agrees")
    try:
        unstable = follow(case)
    except Difference as difference:
        if re.search("inf|nan", difference.detail.partition("(spread")[0]) and agrees_below_overflow(text):
            return Verdict("unstable")
        return Verdict("differs", difference.kind, difference.detail)
    except Exception as error:
        return Verdict("differs", "judge", f"{type(error).__name__}: {error}")
    try:
        testing.check()
    except AssertionError:
        return Verdict("differs", "tape", "an invariant of the tape does not hold")
    return Verdict("unstable" if unstable else "agrees")


def agrees_below_overflow(text: str) -> bool:
    """Whether a case has finite numbers whose sums overflow in some orders, and all is right with smaller ones.

    An array's operation adds to one operand, then to the other; a program adds element by element: of
    -inf + 1e308 + 1e308 one is -inf, the other NaN.  Numbers are compared with sums whose terms are so large without
    any bound; this is the same where they are infinite."""
    case = Case.of(text)
    large = [np.isfinite(a) & (abs(a) > LARGE) for a in map(np.asarray, case.arguments)]
    if not any(map(np.any, large)):
        return False
    case.arguments = [np.where(which, a * SMALLER, a) if which.any() else a
                      for a, which in zip(case.arguments, large, strict=True)]  # fmt: skip
    try:
        follow(case)
    except Difference:
        return False
    return True


def follow(case: Case) -> bool:
    """Do what a case's plan says; whether a step was unstable.  Raises the Difference of the first that is wrong."""
    run, unstable, before, most = Run(case), False, rolling.UNROLLED, recorded.SPECIALIZATIONS
    sizes = found_loops.LEAST, found_loops.BODY, found_loops.FEWEST, found_loops.MUCH
    try:
        for step in case.plan:
            try:
                run.step(*step)
            except Unstable:
                unstable = True
            except Difference as difference:
                raise Difference(difference.kind, f"{difference.detail} {step}") from None
    finally:
        rolling.UNROLLED, recorded.SPECIALIZATIONS = before, most
        found_loops.LEAST, found_loops.BODY, found_loops.FEWEST, found_loops.MUCH = sizes
    return unstable


def agrees(function: Callable[..., Any], *arguments: Any, leaves: Sequence[Any] = (), kind: str = "tame") -> None:
    """Every method of the compiled function says what the function says, for rows in several orders and numbers.

    For tests: raises a Difference, or AssertionError if rounding decides and nothing was compared.
    """
    case = Case(function, arguments, leaves, kind=kind)
    floats = [k for k, a in enumerate(arguments) if np.asarray(a).dtype.kind == "f"]
    backwards, some = list(range(case.rows))[::-1], list(range(0, case.rows, 2))
    for rows in (None, backwards):
        for threads in (1, 2):
            plan: list[tuple[Any, ...]] = [
                ("new",),
                ("map", rows, threads),
                ("map", some, threads),
                ("backward", False, rows, threads),
            ]
            plan += [("call", 0), ("call", case.rows - 1), ("backward", True, some, threads), ("new",)]
            plan += [("grad", floats, rows, threads), ("grad", floats[:1], some, threads)] if floats else []
            plan += [("map", [i], 1) for i in range(min(case.rows, 5))] + [
                ("new",),
                ("backward", False, some[::-1], threads),
            ]
            case.plan = plan
            assert not follow(case), "rounding decides: nothing was compared"
