from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np
from typing_extensions import disjoint_base

from fastscalar._core import Tensor
from fastscalar.engine._random import Stream

AS_IT_IS: int
A_NUMBER: int
AN_ARRAY: int

def is_inside() -> bool: ...
def go_inside(steps: int) -> None: ...

@disjoint_base
class RowCalls:
    at: int
    calling: bool
    given: list[Any]
    def __init__(
        self,
        function: Callable[..., Any],
        columns: Sequence[Iterable[Any]],
        kinds: tuple[int, ...],
        rows: np.ndarray,
        stream: Stream,
        offset: int,
        convert: Callable[[Any], Tensor],
    ) -> None: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Any: ...
    def into(self, values: np.ndarray) -> None: ...
    def results(self, arguments: list[list[Any]], most: int) -> list[Tensor]: ...

@disjoint_base
class LossesInTurn(RowCalls):
    def asking(self, known: dict[Any, Any] | None) -> Iterator[tuple[int, Tensor, bool]]: ...

@disjoint_base
class PlainWay:
    cache: Any
    def __init__(
        self,
        function: Callable[..., Any],
        kinds: tuple[Any, ...],
        names: tuple[str, ...],
        cache: Any,
        rows: float,
        convert: Callable[[Any], Tensor],
        explained: Callable[[str, tuple[Any, ...], int, Exception], BaseException],
    ) -> None: ...
    def call(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> float | None: ...
    def map(self, arguments: tuple[Any, ...]) -> np.ndarray | None: ...
    def gradients(self, arguments: tuple[Any, ...], argnums: Any) -> tuple[np.ndarray, Any] | None: ...
    def backward(self, arguments: tuple[Any, ...], accumulate: bool) -> np.ndarray | None: ...

def in_a_plain_way(program: Any, method: str, arguments: tuple[Any, ...], more: Any) -> Any: ...
