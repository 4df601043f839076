from collections.abc import Set
from typing import Any

from fastscalar.program._graph import Graph
from fastscalar.program._plan import Plan

def lower(
    graph: Graph, sizes: list[int], shared: Set[int] = ..., trained: Any = None, plain: bool = False
) -> Plan: ...
def summary(operations: int, counts: list[tuple[str, Any]]) -> str: ...
def _kernel(name: str) -> int: ...
