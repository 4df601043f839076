"""Loops of programs in files: what is written of their bodies, and how it is read.

The boundary: `kept` has the file, and writes and reads graphs; here is what a loop has beside them.
"""

from __future__ import annotations

from typing import Any

from fastscalar._core import Tensor
from fastscalar.program._graph import columns_of, graph_of
from fastscalar.program.checks import checked, require
from fastscalar.program.differentiated import Pullback, is_smooth
from fastscalar.program.rolled import FOUND, Body, Rolled


def loop_as_json(loop: Any, graph_as_json: Any, array_as_json: Any) -> dict[str, Any]:
    if isinstance(loop, Pullback):
        return {"pullback": loop_as_json(loop.loop, graph_as_json, array_as_json)}
    bodies = []
    for body in loop.bodies:
        columns, graph = body.columns, body.graph
        plain = graph_of(graph, columns, columns, body.items, graph.guards, columns["results"])
        plain.inputs, plain.captures = graph.inputs, []          # whose numbers are operands of the loop
        bodies.append({
            "graph": graph_as_json(plain), "numbers": body.numbers, "leaves": body.leaves, "ends": body.ends,
            "own": body.own,
            "drawn": [list(pair) for pair in body.drawn.items()],
        })  # fmt: skip
    return {
        "kind": loop.kind, "outputs": loop.state, "numbered": loop.numbered, "count": loop.count,
        "captured": loop.captured, "leaves": loop.leaves, "sites": [list(pair) for pair in loop.sites.items()],
        "bodies": bodies, "own": loop.own, "collected": loop.collected,
        "table": None if loop.table is None else array_as_json(loop.table),
    }  # fmt: skip


def loop_of_json(x: Any, graph_of_json: Any, array_of_json: Any) -> Any:
    """ValueError for what the executor must not be given."""
    if "pullback" in x:
        loop = loop_of_json(x["pullback"], graph_of_json, array_of_json)
        require(isinstance(loop, Rolled) and is_smooth(loop), "a loop")
        return Pullback(loop)
    count, sites = x["count"], dict(x["sites"])
    own, collected, found = x.get("own", 0), x.get("collected", 0), x["kind"] == FOUND
    numbers = [x["outputs"], x["captured"], x["leaves"], *sites, *sites.values(), own, collected]
    numbers += [] if count is None else [count]
    require(all(type(n) is int and n >= 0 for n in numbers), "a loop")
    require(x["kind"] in ("loop", "while_loop", FOUND) and x["outputs"] > 0 and x["bodies"], "a loop")
    require((count is not None) if found else (x["kind"] == "loop" or count is None), "a loop")
    require(found or (not own and not collected and x.get("table") is None), "a loop")
    table = array_of_json(x["table"], "f") if x.get("table") is not None else None
    require(table is None or (table.ndim == 2 and len(table) == count), "a loop")
    loop = Rolled(x["kind"], x["outputs"], bool(x["numbered"]), count, own, table, collected)
    loop.sites = sites
    for one in x["bodies"]:
        graph, drawn = graph_of_json(one["graph"]), dict(one["drawn"])
        graph.captures = [Tensor(0.0) for _ in one["leaves"]]
        n = len(graph.op)
        require(all(len(column) == n for name, column in columns_of(graph).items() if name != "results"), "a loop")
        require(all(type(i) is int and 0 <= i < n for i in one["numbers"]), "a loop")
        require(all(type(k) is int and 0 <= k < x["leaves"] for k in one["leaves"]), "a loop")
        require(all(type(i) is int and 0 <= i < n for i in one.get("own", ())), "a loop")
        require(len(graph.results) == loop.state + loop.collected, "a loop")
        require(all(site in sites and type(k) is int and k > 0 for site, k in drawn.items()), "a loop")
        require(all(draw[3] in sites for draw in graph.draws), "a loop")
        loop.add(Body(graph, one["numbers"], one["leaves"], drawn, bool(one["ends"]), one.get("own", ())),
                 x["captured"], x["leaves"])  # fmt: skip
    for body in loop.bodies:
        kinds: list[Any] = [("array", (loop.width,)), *([("array", (loop.captured,))] if loop.captured else [])]
        kinds += [("whole",)] if loop.numbered else []
        kinds += [("array", (loop.own + table.shape[1],))] if table is not None and loop.has_own else []
        checked(body.graph, [kind[1][0] if len(kind) > 1 else 1 for kind in kinds], kinds)
    return loop
