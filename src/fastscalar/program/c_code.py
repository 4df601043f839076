"""Recordings as C: the text of a file without dependencies, with results and derivatives of a row and of a batch.

Each recording is a function that computes operation by operation, in the order of the Python function, and returns as
soon as one of its decisions comes out another way; the functions are tried one after the other.

The boundary: reads Graphs; knows neither rows nor the tape.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar._paths import PACKAGE
from fastscalar.engine._functions import operations
from fastscalar.program._graph import (
    NODE_BLOCK,
    NODE_CONSTANT,
    NODE_COPY,
    NODE_INPUT,
    NODE_ITEM,
    NODE_PARAMETER,
    NODE_RANDOM,
    READ_RAISES,
)
from fastscalar.program.c_loops import REPEATS, loop_statements
from fastscalar.program.c_prelude import BINARY, INFIX, QUIET, UNARY, number, prelude, wrapped
from fastscalar.program.found import with_found_loops

IEEE = 0x100
_NAMES = {code: name for code, name, _, _ in operations()}
_ARITIES = {code: arity for code, _, arity, _ in operations()}
_COMPARISONS = ("<", "<=", "==", "!=", ">", ">=")
INTEGERS = ("floor", "ceil", "trunc", "rint")                # whose results are an int in Python
_READS = {6: "fs_same", 7: "fs_truncates"}


class Leaves:
    """The captured leaves of all recordings, one after the other in an array of the file."""

    def __init__(self) -> None:
        self.first: dict[Any, int] = {}
        self.values: list[np.ndarray] = []
        self.count = 0

    def place(self, capture: Any, key: Any) -> int:
        if key not in self.first:
            values = np.array([capture.item()]) if isinstance(capture, Tensor) else capture.numpy().ravel()
            self.first[key] = self.count
            self.values.append(values)
            self.count += len(values)
        return self.first[key]

    def text(self, name: str) -> list[str]:
        values = np.concatenate(self.values) if self.values else np.zeros(1)
        listed = ", ".join(number(v) for v in values.tolist())
        return [f"double {name}_parameters[{len(values)}] = {{", *wrapped(listed), "};"]


class Way:
    """One recording as the statements of a C function.

    offsets: where each input of the graph begins in the numbers of a row; shared: likewise by capture, of arguments
    that all rows share; leaves: where all other captures are.  name: of the function; counters: of the body of a loop,
    by draw, where it stands how many were drawn.  parameters: the array of leaves; stream: handed on to functions.
    known: an input, and its values, if the recording holds for no others."""

    def __init__(
        self, graph: Any, offsets: Sequence[int], shared: dict[int, int], leaves: dict[int, int], name: str,
        parameters: str, stream: str, counters: dict[int, int] | None = None,
        known: tuple[int, np.ndarray] | None = None,
    ) -> None:
        self.graph, self.offsets, self.shared, self.leaves = graph, offsets, shared, leaves
        self.function, self.stream, self.counters = name, stream, counters or {}
        self.parameters = parameters
        self.bodies: list[str] = []              # the text of functions that it calls
        self.op, self.a, self.b = graph.op.tolist(), graph.a.tolist(), graph.b.tolist()
        self.value = graph.value.tolist()
        self.lines: list[str] = []
        if known is not None:
            self.lines.append(f"if (!({self._is_one_of(*known)})) return FS_UNRECORDED;")
        self.arrays = 0
        self.guards: dict[int, list[Any]] = {}
        for guard in graph.guards.tolist():
            g = dict(zip(graph.guards.dtype.names, guard, strict=True))
            self.guards.setdefault(max(g["left"], g["right"]), []).append(g)

    def statements(self) -> list[str]:
        live = self._live()
        done: set[Any] = set()
        for i, op in enumerate(self.op):
            if live[i]:
                if op == NODE_RANDOM:
                    self._draw(self.a[i], done)
                elif op == NODE_ITEM:
                    if self.a[i] not in done:
                        done.add(self.a[i])
                        item = self.graph.items[self.a[i]]
                        if item[0] == "call":
                            self.lines += loop_statements(self, item, self._body)
                        else:
                            self._item(item)
                elif op > NODE_CONSTANT:
                    self._operation(i)
                elif op == NODE_COPY:
                    self.lines.append(f"const double v{i} = {self.name(self.a[i])};")
            for guard in self.guards.get(i, ()):
                self._guard(guard)
        self.lines += [f"y[{k}] = {self.name(int(node))};" for k, node in enumerate(self.graph.results)]
        return self.lines

    def name(self, i: int) -> str:
        """What has the value of a node."""
        op = self.op[i]
        if op == NODE_CONSTANT:
            return number(self.value[i])
        if op == NODE_INPUT:
            return f"x[{self.offsets[self.a[i]] + self.b[i]}]"
        if op == NODE_PARAMETER:
            return self._leaf(self.a[i], self.b[i])
        if op == NODE_RANDOM:
            return f"r{self.a[i]}[{self.b[i]}]"
        if self.loop_of(i) is not None:
            return f"o{self.loop_of(i)[1]}[{self.b[i]}]"
        return f"v{i}"

    # --- loops ---

    def loop_of(self, i: int) -> Any:
        """The item of the loop that gives a node, or None."""
        item = self.graph.items[self.a[i]] if self.op[i] == NODE_ITEM else None
        return item if item is not None and item[0] == "call" else None

    def element(self, i: int) -> tuple[str, int] | None:
        """The array and the place in it that has the value of a node, if it is in one."""
        if self.op[i] == NODE_INPUT:
            return "x", self.offsets[self.a[i]] + self.b[i]
        item = self.loop_of(i)
        return None if item is None else (f"o{item[1]}", self.b[i])

    def _body(
        self, graph: Any, offsets: list[int], leaves: dict[int, int], counters: dict[int, int]
    ) -> str:
        name = f"{self.function}_{len(self.bodies)}"
        if not graph.draws:                      # whose number would depend on two loops
            graph = with_found_loops(graph, REPEATS, 1)
        body = Way(graph, offsets, leaves, {}, name, self.parameters, self.stream, counters)
        text = body.text()
        self.bodies.append(text)
        return name

    def text(self) -> str:
        """The functions of bodies that it calls, and its own."""
        lines, stream = self.statements(), ", const fs_stream *stream" if self.stream else ""
        return "\n".join([
            *self.bodies,
            "",
            f"static int {self.function}(const double *x, double *y{stream}) {{",
            f"    (void)x{', (void)stream' if stream else ''};",
            *(f"    {line}" for line in lines),
            "    return FS_OK;",
            "}",
        ])  # fmt: skip

    def _draw(self, k: int, done: set[Any]) -> None:
        """The numbers of one call, once."""
        if ("draw", k) in done:
            return
        done.add(("draw", k))
        kind, count, p, site, scope, first = self.graph.draws[k]
        key = f"fs_random_key(stream->seed, stream->epoch, {site}u, {scope}u)"
        self.lines.append(f"double r{k}[{count}];")
        drawn = f" + (uint64_t)x[{self.counters[k]}]" if k in self.counters else ""
        self.lines.append(f"fs_random_numbers(r{k}, {count}, {kind}, {number(p)}, {key}, stream->row, {first}u{drawn}, "
                          "stream->antithetic);")  # fmt: skip

    def _leaf(self, capture: int, offset: int) -> str:
        if capture in self.shared:
            return f"x[{self.shared[capture] + offset}]"
        return f"{self.parameters}[{self.leaves[capture] + offset}]"

    def _live(self) -> list[bool]:
        """What the results, the decisions and the errors need."""
        graph = self.graph
        live = [False] * len(self.op)
        for node in (*graph.results.tolist(), *graph.guards["left"].tolist(), *graph.guards["right"].tolist()):
            if node >= 0:
                live[node] = True
        for item in graph.items:
            if item[0] in ("gather", "call") or (item[0] == "cross_entropy" and item[4] >= 0):
                live[item[1]] = True
        for i in range(len(self.op) - 1, -1, -1):
            op = self.op[i]
            if op > NODE_CONSTANT and not op & IEEE and _NAMES[op & 0xFF] not in QUIET:
                live[i] = True
            if not live[i]:
                continue
            if op == NODE_ITEM:
                item = graph.items[self.a[i]]
                live[item[1]] = True
                for part in item[3:]:
                    if isinstance(part, np.ndarray):
                        for node in part.ravel().tolist():
                            live[node] = True
            elif op > NODE_CONSTANT or op == NODE_COPY:
                live[self.a[i]] = True
                if op != NODE_COPY and _ARITIES[op & 0xFF] == 2:
                    live[self.b[i]] = True
        return live

    def _expression(self, name: str, x: str, y: str) -> str:
        if name in INFIX:
            return f"{x} {name} {y}"
        if name == "neg":
            return f"-({x})"
        if name in UNARY:
            return f"{UNARY[name]}({x})"
        if name in BINARY:
            return f"{BINARY[name]}({x}, {y})"
        raise TypeError(f"the operation {name!r} cannot be exported")

    def _operation(self, i: int) -> None:
        code = self.op[i] & 0xFF
        name, two = _NAMES[code], _ARITIES[code] == 2
        x, y = self.name(self.a[i]), self.name(self.b[i]) if two else ""
        self.lines.append(f"const double v{i} = {self._expression(name, x, y)};")
        if not self.op[i] & IEEE and name not in QUIET:
            self.lines.append(f"if ({_raises(name, x, y, f'v{i}')}) return FS_ERROR;")

    def _guard(self, g: dict[str, Any]) -> None:
        op, x = g["op"], self.name(g["left"])
        y = self.name(g["right"]) if g["right"] >= 0 else "0.0"
        if op <= 5:
            holds = f"({x} {_COMPARISONS[op]} {y}) == {int(g['value'] != 0.0)}"
        elif op in _READS:
            holds = f"{_READS[op]}({x}, {number(g['value'])})"
        elif op == READ_RAISES:
            code, kind = int(g["value"]) & 0xFF, int(g["value"]) >> 8
            v = self._expression(_NAMES[code], x, y)
            raises = _raises(_NAMES[code], x, y if _ARITIES[code] == 2 else "", v)
            holds = f"{raises} && fs_kind({x}, {v}) == {kind}"
        else:
            v = number(g["value"])
            holds = f"{v} <= {x} && {x} < {v} + 1.0" if op == 8 else f"{v} - 1.0 < {x} && {x} <= {v}"
        self.lines.append(f"if (!({holds})) return FS_UNRECORDED;")

    # --- items ---

    def array(self, nodes: np.ndarray) -> str:
        """The name of an array with the values of some nodes."""
        self.arrays += 1
        name = f"a{self.arrays}"
        listed = ", ".join(self.name(int(i)) for i in nodes.ravel())
        self.lines += [f"const double {name}[{nodes.size}] = {{", *wrapped(listed), "};"]
        return name

    def _run(self, nodes: np.ndarray) -> str | None:
        """The address of some leaves that lie side by side, in the order of the array; None if they do not."""
        flat = nodes.ravel()
        if len(flat) == 1 and self.op[int(flat[0])] == NODE_BLOCK:
            return "&" + self._leaf(self.a[int(flat[0])], 0)
        first = int(flat[0])
        if not all(self.op[i] == NODE_PARAMETER and self.a[i] == self.a[first] for i in flat.tolist()):
            return None
        offsets = graph_offsets(self.b, flat)
        if not np.array_equal(offsets, np.arange(offsets[0], offsets[0] + len(offsets))):
            return None
        return "&" + self._leaf(self.a[first], self.b[first])

    def _outputs(self, item: tuple[Any, ...], of: str) -> None:
        for k in range(item[2]):
            self.lines.append(f"const double v{item[1] + k} = {of}[{k}];")

    def _whole(self, at: int) -> str:
        return f"x[{self.offsets[at]}]"

    def _is_one_of(self, at: int, values: np.ndarray) -> str:
        """Whether a whole number is one of these."""
        ends = np.flatnonzero(np.diff(values) != 1) + 1
        runs = [(int(run[0]), int(run[-1])) for run in np.split(values, ends)]
        x = self._whole(at)
        return " || ".join(f"{x} == {a}.0" if a == b else f"({a}.0 <= {x} && {x} <= {b}.0)" for a, b in runs)

    def _item(self, item: tuple[Any, ...]) -> None:
        kind, first, count, x = item[:4]
        if kind == "where":
            left, right, a, b = (self.name(int(i)) for i in x)
            self.lines.append(f"const double v{first} = {left} {_COMPARISONS[item[4]]} {right} ? {a} : {b};")
        elif kind == "affine":
            self._affine(item)
        elif kind == "gather":
            self._gather(item)
        elif kind == "softmax":
            z = self.array(x)
            self.lines += [f"double s{first}[{count}];", f"fs_shares({z}, {count}, s{first});"]
            self._outputs(item, f"s{first}")
        elif kind == "logsumexp":
            self.lines.append(f"const double v{first} = fs_shares({self.array(x)}, {len(x)}, 0);")
        elif kind == "cross_entropy":
            z = self.array(x)
            label = str(int(item[5]))
            if item[4] >= 0:
                label = f"(int){self._whole(item[4])}"
                given = self._whole(item[4])
                self.lines.append(f"if (!({given} >= 0.0 && {given} < {len(x)}.0)) return FS_ERROR;")
            self.lines.append(f"const double v{first} = fs_shares({z}, {len(x)}, 0) - {z}[{label}];")
        else:
            z, least = self.array(x), int(kind.endswith("min"))
            place = f"fs_best({z}, {len(x)}, {least})"
            self.lines.append(f"const double v{first} = {place if kind.startswith('arg') else f'{z}[{place}]'};")

    def _affine(self, item: tuple[Any, ...]) -> None:
        """As the engine does it: from the bias, input by input, and over zeros."""
        _, first, count, x, weights, bias = item
        z = self.array(x)
        w = self._run(weights) or self.array(weights)
        b = self._run(bias) or self.array(bias)
        self.lines += [
            f"double s{first}[{count}];",
            f"for (int i = 0; i < {count}; i++) s{first}[i] = 0.0 + ({b})[i];",
            f"for (int j = 0; j < {len(x)}; j++)",
            f"    if ({z}[j] != 0.0)",
            f"        for (int i = 0; i < {count}; i++) s{first}[i] += {z}[j] * ({w})[j * {count} + i];",
        ]
        self._outputs(item, f"s{first}")

    def _gather(self, item: tuple[Any, ...]) -> None:
        _, first, count, x, argument = item[:5]
        given = self._whole(argument) if argument >= 0 else self.name(int(item[5][0]))
        block = x.size == 1 and self.op[int(x.ravel()[0])] == NODE_BLOCK
        rows = self.b[int(x.ravel()[0])] if block else x.size // count
        z = self._run(x) or self.array(x)
        self.lines += [
            f"const double g{first} = {given} < 0.0 ? {given} + {rows}.0 : {given};",
            f"if (!(g{first} >= 0.0 && g{first} < {rows}.0)) return FS_ERROR;",
        ]
        for k in range(count):
            self.lines.append(f"const double v{first + k} = ({z})[(int)g{first} * {count} + {k}];")


def _raises(name: str, x: str, y: str, v: str) -> str:
    """Whether the Python function raises for these operands and this result."""
    if name in ("/", "%", "//"):
        return f"fs_by_zero({y}, {v})"
    return f"fs_no_int({x}, {v})" if name in INTEGERS else f"fs_raises({x}, {y or '0.0'}, {v})"


def graph_offsets(b: list[int], nodes: np.ndarray) -> np.ndarray:
    return np.array([b[i] for i in nodes.tolist()], np.int64)


_TAKEN = frozenset(re.findall(
    r"\w+",
    "main p x y d gamma j0 j1 y0 y1 auto break case char const continue default do double else enum extern float for "
    "goto if inline int long register restrict return short signed sizeof static struct switch typedef union unsigned "
    "void volatile while " + " ".join([*UNARY, *BINARY.values()]),
))  # fmt: skip


def identifier(name: str) -> str:
    """A name that C takes."""
    found = re.sub(r"\W", "_", name, flags=re.ASCII) or "program"
    return f"p_{found}" if found[0].isdigit() or found in _TAKEN or found.startswith("fs_") else found


def random_numbers() -> str:
    """What draws them, and a stream of them."""
    text = Path(PACKAGE, "engine", "kernels", "random.h").read_text()
    stream = "typedef struct {\n    uint64_t seed, epoch;\n    int64_t row;\n    int antithetic;\n} fs_stream;\n"
    return f"{text}\n{stream}"


def c_file(
    name: str,
    layout: list[str],
    size: int,
    ways: dict[str, tuple[int, list[str]]],
    leaves: Leaves,
    about: str,
    draws: bool = False,
) -> str:
    """The text of the file.  ways: by suffix of a function's name, how many numbers it gives, and its recordings.
    draws: they draw random numbers."""
    results, derivatives = ways[""][0], ways["_derivatives"][0] - ways[""][0]
    stream, given, one = (", const fs_stream *stream", ", stream", ", &one") if draws else ("", "", "")
    said = [
        "",
        "   What row i of a batch draws follows from the stream: its seed and epoch, the row of the data set,",
        "   stream->row + i, and whether rows 2k and 2k + 1 have mirrored numbers.",
    ]  # fmt: skip
    head = [
        f"/* {about}",
        "",
        f"   A row is {size} numbers:",
        *(f"     {line}" for line in layout),
        f"   Results: {results} numbers; derivatives: {derivatives}, for each result one by each number of a row, 0 by",
        "   whole numbers.  All functions return FS_OK, FS_UNRECORDED or FS_ERROR; those of a batch the number of rows",
        "   that were not computed, with what each row returned in status, if that is not NULL.  What is not computed",
        "   is left as it was.  No function allocates, and none has a state; the parameters may be written.",
        "",
        f"     int {name}(const double *x, double *y{stream});",
        f"     int {name}_derivatives(const double *x, double *y, double *d{stream});",
        f"     long {name}_batch(long rows, const double *x, double *y, int *status{stream});",
        f"     long {name}_derivatives_batch(long rows, const double *x, double *y, double *d, int *status{stream});",
        f"     double {name}_parameters[];",
        *(said if draws else []),
        "*/",
    ]
    out = [*([random_numbers()] if draws else []), *leaves.text(name)]
    for suffix, (count, recordings) in ways.items():
        out += recordings
        tried = [
            f"    if ((s = {name}{suffix}_{k}(x, all{given})) == FS_OK) goto end; else if (s > worst) worst = s;"
            for k in range(len(recordings))
        ]
        copied = f"    for (k = 0; k < {derivatives}; k++) d[k] = all[{results} + k];"
        split = [
            f"    for (k = 0; k < {results}; k++) y[k] = all[k];",
            *([copied] if suffix else []),
        ]
        out += [
            "",
            f"int {name}{suffix}(const double *x, double *y{', double *d' if suffix else ''}{stream}) {{",
            f"    double all[{count}] = {{0}};",
            "    int s, k, worst = FS_UNRECORDED;",
            *tried,
            "    return worst;",
            "end:",
            *split,
            "    return s;",
            "}",
            "",
            f"long {name}{suffix}_batch(long rows, const double *x, double *y{', double *d' if suffix else ''}, "
            f"int *status{stream}) {{",
            "    long missed = 0, i;",
            *(["    fs_stream one = *stream;"] if draws else []),
            "    for (i = 0; i < rows; i++) {",
            f"        int s = {name}{suffix}(x + i * {size}, y + i * {results}"
            f"{f', d + i * {derivatives}' if suffix else ''}{one});",
            *(["        one.row++;"] if draws else []),
            "        if (status) status[i] = s;",
            "        missed += s != FS_OK;",
            "    }",
            "    return missed;",
            "}",
        ]
    text = "\n".join(out)
    return "\n".join([*head, prelude(text), text]) + "\n"
