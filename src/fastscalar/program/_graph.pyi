from collections.abc import Iterator, Sequence
from types import CodeType
from typing import Any

import numpy as np
from typing_extensions import disjoint_base

GUARD: np.dtype[Any]
ARE_EQUAL: int
IS_LESS: int
NODE_CONSTANT: int
NODE_COPY: int
NODE_INPUT: int
NODE_ITEM: int
NODE_RANDOM: int
NODE_PARAMETER: int
NODE_BLOCK: int
READ_SAME: int
READ_RAISES: int

@disjoint_base
class Graph:
    op: np.ndarray
    a: np.ndarray
    b: np.ndarray
    value: np.ndarray
    stopped: np.ndarray
    per_row: np.ndarray | None
    items: list[tuple[Any, ...]]
    captures: list[Any]
    guards: np.ndarray
    codes: list[CodeType]
    lists: dict[int, np.ndarray]
    inputs: list[str]
    draws: list[tuple[int, int, float, int, int, int]]
    results: np.ndarray
    exact: bool
    uncertain: bool
    shared: dict[int, int]
    operations: int
    def set_items(self, items: list[tuple[Any, ...]]) -> None: ...

def places_of(graph: Any) -> Iterator[tuple[tuple[CodeType, int] | None, int]]: ...
def line_of(place: Any) -> tuple[str, int]: ...
def empty_graph() -> Graph: ...
def marked(ranges: list[list[int]], first: int, stop: int) -> np.ndarray: ...
def columns_of(g: Graph) -> dict[str, np.ndarray]: ...
def same_nodes(g: dict[str, np.ndarray], h: dict[str, np.ndarray]) -> bool: ...
def same_operands(some: list[tuple[Any, ...]], others: list[tuple[Any, ...]]) -> bool: ...
def same_guards(g: Graph, h: Graph) -> bool: ...
def same_captures(g: Graph, h: Graph) -> bool: ...
def same_items(g: Graph, h: Graph) -> bool: ...
def graph_of(
    pattern: Graph,
    columns: dict[str, np.ndarray],
    operands: dict[str, np.ndarray],
    items: list[tuple[Any, ...]],
    guards: np.ndarray,
    results: Sequence[int] | np.ndarray,
) -> Graph: ...
def same_graph(g: Graph, h: Graph) -> bool: ...
