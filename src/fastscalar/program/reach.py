"""Whether the results of a recording have a gradient by anything that it captured.

The boundary: looks at Graphs.
"""

from __future__ import annotations

from typing import Any

from fastscalar.program._graph import NODE_BLOCK, NODE_CONSTANT, NODE_ITEM, NODE_PARAMETER


def reaches_leaves(graph: Any) -> bool:
    """Whether some result was computed from a captured leaf on a way that gradients pass."""
    if not graph.captures:
        return False
    op, a, b, items = graph.op, graph.a, graph.b, graph.items
    waiting, seen = graph.results.tolist(), set(graph.results.tolist())
    while waiting:
        i = waiting.pop()
        if graph.stopped[i]:
            continue
        if op[i] in (NODE_PARAMETER, NODE_BLOCK):
            return True
        if op[i] == NODE_ITEM:
            item = items[a[i]]
            parts = item[3:6] if item[0] in ("affine", "conv2d") else [item[3][2:] if item[0] == "where" else item[3]]
            older = [k for part in parts for k in part.ravel().tolist()]
        else:
            older = [int(a[i]), int(b[i])] if op[i] > NODE_CONSTANT else []
        for k in older:
            if k >= 0 and k not in seen:
                seen.add(k)
                waiting.append(k)
    return False
