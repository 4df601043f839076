"""Steps of a case for programs of any shape: nests, arguments that all rows share, derivatives of programs.

Each makes another function of the case's, whose values and derivatives follow from those of the case.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

import fastscalar as fs

from . import judge
from .cases import Unstable


def floats_of(case: Any) -> list[int]:
    return [k for k, a in enumerate(case.arguments) if np.asarray(a).dtype.kind == "f"]


def made(run: Any, key: Any, make: Any) -> Any:
    """A program that belongs to the run's, made once."""
    known = run.program.__dict__.setdefault("_of_the_fuzzer", {})
    if key not in known:
        known[key] = make()
    return known[key]


def nest(run: Any, some: Sequence[int] | None, threads: int) -> None:
    """A function of a dictionary that returns its result twice, with weights by which one counts half."""
    case, function = run.case, run.case.function

    def nested(given: Any, *, more: str = "and") -> Any:
        result = function(*given["arguments"][0])
        return {"value": result, more: (2.0, [result])}

    program = made(run, "nest", lambda: fs.compile(nested))
    some, where = case.at(some)
    rows = range(case.rows) if some is None else some
    given = {"arguments": (tuple(_leaf(a) for a in case.chosen(some)),)}
    weights = {"value": 0.5, "and": (np.ones(len(rows)), [0.5])}
    floats = floats_of(case)
    found = run.attempt("nest", rows, lambda: program.map(given, threads=threads, rows=len(rows), **where))
    if found is None:
        return
    run.values("nest", found["value"], rows)
    run.values("nest", found["and"][1][0], rows)
    if not floats:
        return
    found = run.attempt(
        "nest:vjp",
        rows,
        lambda: program.vjp(given, cotangents=weights, argnums=0, threads=threads, rows=len(rows), **where),
    )
    if found is not None:
        _gradients(run, "nest", rows, {k: found[1]["arguments"][0][k] for k in floats})


def _leaf(a: Any) -> Any:
    return np.asarray(a) if np.ndim(a) else a


def _gradients(run: Any, what: str, rows: Sequence[int], found: dict[int, Any]) -> None:
    case = run.case
    for k, gradient in found.items():
        if np.ndim(case.arguments[k]) == 0:
            judge.compare(case, f"{what}:shared", gradient, rows, lambda o, k=k: o.arguments[k])
            continue
        for row, i in enumerate(rows):
            judge.compare(case, f"{what}:argument", gradient[row], [i], lambda o, k=k: o.arguments[k])


def shared(run: Any, i: int, per_row: bool, threads: int) -> None:
    """All arguments are those of one row, for three rows."""
    case, floats = run.case, floats_of(run.case)
    if case.draws:
        return                                   # rows that are the same draw other numbers
    program = made(run, "shared", lambda: fs.compile(case.function, shared=tuple(range(len(case.arguments)))))
    given = [a if np.ndim(a) == 0 else np.asarray(a)[i] for a in case.arguments]
    rows = [i, i, i]
    if not floats:
        found = run.attempt("shared", rows, lambda: program.map(*given, rows=3, threads=threads))
        if found is not None:
            run.values("shared", found, rows)
        return
    found = run.attempt(
        "shared",
        rows,
        lambda: program.value_and_grad(*given, argnums=tuple(floats), rows=3, threads=threads, per_row=per_row),
    )
    if found is None:
        return
    run.values("shared", found[0], rows)
    for k, gradient in zip(floats, found[1], strict=True):
        if not per_row:
            judge.compare(case, "shared:argument", gradient, rows, lambda o, k=k: o.arguments[k])
            continue
        for row in range(3):
            judge.compare(case, "shared:argument", gradient[row], [i], lambda o, k=k: o.arguments[k])


def derive(run: Any, some: Sequence[int] | None, composed: bool, threads: int) -> None:
    """The derivatives as a program, by `fs.grad` of the function or by `jacobian` of its program."""
    case, floats = run.case, tuple(floats_of(run.case))
    some, where = case.at(some)
    rows = range(case.rows) if some is None else some
    if not floats or any(isinstance(case.truth(i).error, TypeError) for i in rows):
        return
    given = [np.broadcast_to(a, (case.rows,)) if np.ndim(a) == 0 else np.asarray(a) for a in case.arguments]
    given = [a if some is None else a[list(some)] for a in given]
    if composed:
        program = made(run, "grad", lambda: fs.compile(fs.grad(case.function, floats)))
    else:
        program = run.program

    def call() -> Any:
        with warnings.catch_warnings():          # another program, which falls back by itself
            warnings.simplefilter("ignore", fs.CompileWarning)
            if composed:
                return program.map(*given, threads=threads, **where)
            return program.jacobian(*given, argnums=floats, threads=threads, **where)

    try:
        found = run.attempt("derive", rows, call)
    except judge.Difference as difference:
        if "NotImplementedError" in difference.kind or "single number" in difference.detail:
            raise Unstable from None             # of the user's own operation, or of what is no number
        raise
    if found is None:
        return
    run.losses("derive", rows, False, complete=False)
    for k, gradient in zip(floats, found, strict=True):
        for row, i in enumerate(rows):
            judge.compare(case, "derive:argument", gradient[row], [i], lambda o, k=k: o.arguments[k])


MADE_OF_IT = {
    "second": """
def second(*given):
    total = 0.0
    for k, slope in enumerate(fs.grad(_function, _floats)(*given)):
        total = total + (0.5 + 0.25 * k) * (np.sum(slope) if isinstance(slope, fs.TensorArray) else slope)
    return total
""",
}


def of_it(run: Any, what: str, some: Sequence[int] | None, threads: int) -> None:
    """The slope of the function as another case, whose slopes are second derivatives."""
    case, floats = run.case, floats_of(run.case)
    if not floats or case.reads or any(isinstance(case.truth(i).error, TypeError) for i in range(case.rows)):
        return

    def make() -> Any:
        names = case.function.__globals__
        names["_function"], names["_floats"] = case.function, tuple(floats)
        exec(compile(MADE_OF_IT[what], case.file, "exec"), names)
        return fs.compile(names[what])

    program = made(run, what, make)
    inner = judge.Run(case.like(program.function))
    inner.program = program
    try:
        inner.step("grad", floats, some, threads)
        inner.step("backward", False, some, threads)
    except judge.Difference as difference:
        if "NotImplementedError" in difference.kind + difference.detail:
            raise Unstable from None             # of the user's own operation
        raise judge.Difference(f"{what}:{difference.kind}", difference.detail) from None


def second(run: Any, some: Sequence[int] | None, threads: int) -> None:
    of_it(run, "second", some, threads)


STEPS = {"nest": nest, "shared": shared, "derive": derive, "second": second}
