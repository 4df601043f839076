"""Loops in files of C: a function for each body, and the statements that call them again and again.

The boundary: writes what a loop is; `c_code` writes the graphs of bodies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastscalar.program.c_prelude import number as number_of
from fastscalar.program.c_prelude import wrapped
from fastscalar.program.differentiated import (
    Pullback,
    active_columns,
    active_results,
    along,
    places_of_tangents,
    smooth_operands,
)

REPEATS = 256  # operations of what repeats, to be a loop: a compiler takes long for long functions
Lines = list[str]


def loop_statements(
    way: Any, item: tuple[Any, ...], body_function: Callable[[Any, list[int], dict[int, int], dict[int, int]], str]
) -> Lines:
    """The statements of a loop in a way: what it gives is in an array of the name of its first node.

    body_function: writes a function of a body, of where its inputs begin in the numbers it is given, likewise its
    leaves by capture, and which of these counts what a draw has drawn; its name."""
    nodes = item[3].tolist()
    names = [way.name(i) for i in nodes]
    if isinstance(item[4], Pullback):
        return _pullback_statements(way, item, names, body_function)
    return _statements(way, item[4], item[1], names, nodes, body_function)


def _pullback_statements(way: Any, item: tuple[Any, ...], names: list[str], body_function: Any) -> Lines:
    """Forwards, once for each number that is sent: no states are to be kept so."""
    pullback, first = item[4], item[1]
    loop, adjoint = pullback.loop, names[pullback.loop.operands :]
    lines = [f"double o{first}[{pullback.outputs}];"]
    for k, operand in enumerate(smooth_operands(loop)):
        if not loop.decides and not any(operand in some for some in loop.sources):
            lines.append(f"o{first}[{k}] = 0.0;")
            continue
        directions: list[str | None] = [None] * loop.operands
        directions[operand] = "1.0"
        made, both = along(loop, names, directions, "0.0")
        lines += ["{", *_statements(way, made, f"{first}_{k}", both, [], body_function), f"o{first}[{k}] = 0.0;"]
        for at, j in places_of_tangents(loop, made, active_results(loop, active_columns(loop, directions))):
            lines.append(f"if ({adjoint[at]} != 0.0) o{first}[{k}] += {adjoint[at]} * o{first}_{k}[{j}];")
        lines.append("}")
    return lines


def _statements(
    way: Any, loop: Any, first: Any, operands: list[str], nodes: list[int], body_function: Any
) -> Lines:
    """first: what names end with.  nodes: of the operands, where they are nodes."""
    width, state = loop.width, loop.state
    own = loop.own + (loop.table.shape[1] if loop.table is not None else 0)
    number = width + loop.captured
    leaves = number + 1 + own
    x, y, o = f"x{first}", f"y{first}", f"o{first}"
    offsets = [0, *([width] if loop.captured else []), *([number] if loop.numbered else []),
               *([number + 1] if own else [])]  # fmt: skip
    places = {site: state + k for k, site in enumerate(loop.sites)}
    functions = [
        body_function(
            body.graph, offsets, {at: leaves + k for at, k in enumerate(body.leaves)},
            {k: places[draw[3]] for k, draw in enumerate(body.graph.draws)},
        )
        for body in loop.bodies
    ]  # fmt: skip
    second = state + loop.captured
    own_from = second + loop.leaves
    begin = [*operands[:state], *(f"{n}.0" for n in loop.sites.values()), *operands[state:second],
             *["0.0"] * (1 + own), *operands[second:own_from]]  # fmt: skip
    lines = [f"double {x}[{len(begin)}] = {{", *wrapped(", ".join(begin)), "};",
             f"double {y}[{width + loop.collected}], {o}[{loop.outputs}];"]  # fmt: skip
    after = own_from + loop.own * (loop.count or 0)
    steps = _columns(way, np.array(nodes[own_from:after]), operands[own_from:after], loop, lines, first)
    if loop.kind == "while_loop":
        head = f"for (long k{first} = 0; ; k{first}++) {{"
    elif loop.count is not None:
        head = f"for (long k{first} = 0; k{first} < {loop.count}; k{first}++) {{"
    else:
        last = operands[-1]
        lines.append(f"if ({last} < 0.0) return FS_ERROR;")
        head = f"for (long k{first} = 0; k{first} < (long){last}; k{first}++) {{"
    lines += [head, f"    int s, worst = FS_OK;    /* {loop.said} */"]
    lines += [f"    {x}[{number}] = (double)k{first};"] if loop.numbered else []
    lines += [f"    {x}[{number + 1 + k}] = {of};" for k, of in enumerate(steps)]
    for body, name in zip(loop.bodies, functions, strict=True):
        goes_on = f"goto over{first};" if body.ends else f"goto step{first};"
        lines += [f"    if ((s = {name}({x}, {y}{way.stream})) == FS_OK) {goes_on}", "    if (s > worst) worst = s;"]
    lines.append("    return worst;")
    if any(not body.ends for body in loop.bodies):
        lines += [f"step{first}:", f"    for (int i = 0; i < {width}; i++) {x}[i] = {y}[i];"]
    if loop.collected:
        lines.append(f"    for (int i = 0; i < {loop.collected}; i++) "
                     f"{o}[{state} + k{first} * {loop.collected} + i] = {y}[{width} + i];")  # fmt: skip
    lines.append("}")
    if any(body.ends for body in loop.bodies):
        lines.append(f"over{first}: ;")
    lines.append(f"for (int i = 0; i < {state}; i++) {o}[i] = {x}[i];")
    lines.append(f"(void){o};")                  # what may raise is computed although nothing reads it
    return lines


def _columns(
    way: Any, own: np.ndarray, names: list[str], loop: Any, lines: Lines, first: Any
) -> Sequence[str]:
    """What each number of an iteration's own is, in C; arrays of numbers that have no other place."""
    found = []
    k = f"k{first}"
    for j in range(loop.own):
        if not len(own):
            lines += [f"const double n{first}_{j}[{loop.count}] = {{", *wrapped(", ".join(names[j :: loop.own])), "};"]
            found.append(f"n{first}_{j}[{k}]")
            continue
        nodes = own[j :: loop.own]
        at = [way.element(int(i)) for i in nodes]
        steps = {b[1] - a[1] for a, b in zip(at, at[1:], strict=False)} if None not in at else {0, 1}
        if len({place[0] for place in at if place is not None}) == 1 and len(steps) == 1:
            found.append(f"{at[0][0]}[{at[0][1]} + {k} * ({steps.pop()})]")
        else:
            found.append(f"{way.array(nodes)}[{k}]")
    if loop.table is not None and loop.table.shape[1]:
        numbers = ", ".join(map(number_of, loop.table.ravel().tolist()))
        lines += [f"static const double t{first}[{loop.table.size}] = {{", *wrapped(numbers), "};"]
        found += [f"t{first}[{k} * {loop.table.shape[1]} + {j}]" for j in range(loop.table.shape[1])]
    return found

