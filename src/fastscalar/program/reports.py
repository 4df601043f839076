"""What there is to say of the recordings of a program.

The boundary: reads recordings; `api` has what a user calls.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from fastscalar.program._graph import line_of
from fastscalar.program.rolled import places_in
from fastscalar.program.rows import shared_inputs
from fastscalar.program.specializations import Specialization, where_they_part

MOST = 8  # kinds of recordings, and decisions of one, that are listed one by one


def report(program: Any, details: bool) -> str:
    """A line for each kind of recording; with details, what each decides on, served and takes."""
    specializations = program._specializations()
    if not specializations:
        fallen_back = any(cache.eager for cache in list(program._caches.values()))
        return f"{program.__name__}: {'every row runs in Python' if fallen_back else 'nothing was recorded yet'}"
    some = _details(specializations) if details else _lines(specializations)
    if len(specializations) > 1:
        where = where_they_part([specialization for _, specialization in specializations])
        some += [where.removeprefix("; ")] if where else []
    return "\n".join(some)


def summary(signature: Any, specialization: Specialization) -> str:
    return str(specialization.plan(shared_inputs(signature)).summary)


def _lines(specializations: list[tuple[Any, Specialization]]) -> list[str]:
    lines: dict[str, int] = {}
    for signature, specialization in specializations:
        line = summary(signature, specialization)
        lines[line] = lines.get(line, 0) + 1
    order = sorted(lines.items(), key=lambda pair: -pair[1])
    out = [line if n == 1 else f"{n} times: {line}" for line, n in order[:MOST]]
    more = sum(n for _, n in order[MOST:])
    return [*out, f"{more} more recordings"] if more else out


def _details(specializations: list[tuple[Any, Specialization]]) -> list[str]:
    order = sorted(specializations, key=lambda pair: -pair[1].served)
    out = []
    for signature, one in order[:MOST]:
        out += [
            f"{one.served:,} rows: {summary(signature, one)}",
            f"    decides on {_decisions(one)}; {_bytes(memory(one))}",
        ]
    rest = [one for _, one in order[MOST:]]
    if rest:
        rows, size = sum(one.served for one in rest), sum(map(memory, rest))
        out.append(f"{len(rest)} more recordings: {rows:,} rows, {_bytes(size)}")
    return out


def memory(one: Specialization) -> int:
    """Bytes that the graph of a recording takes."""
    graph = one.graph
    columns = (graph.op, graph.a, graph.b, graph.value, graph.stopped, graph.results, graph.guards)
    arrays = {id(part): part.nbytes for item in graph.items for part in item if isinstance(part, np.ndarray)}
    return sum(column.nbytes for column in columns) + sum(arrays.values())


def _decisions(one: Specialization) -> str:
    places: dict[tuple[str, int], int] = {}
    for place, count in places_in(one.graph):
        file, line = line_of(place)
        places[os.path.basename(file), line] = places.get((os.path.basename(file), line), 0) + count
    if not places:
        return "nothing"
    shown = [f"{file}:{line}" + (f" ({n} times)" if n > 1 else "") for (file, line), n in list(places.items())[:MOST]]
    more = len(places) - len(shown)
    return ", ".join(shown) + (f" and {more} more lines" if more else "")


def _bytes(n: int) -> str:
    return f"{n / 1e6:,.1f} MB" if n >= 1e5 else f"{n / 1e3:,.1f} kB"
