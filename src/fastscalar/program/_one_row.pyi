from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from typing_extensions import disjoint_base

from fastscalar.engine._random import Stream
from fastscalar.program._replay import Replay

@disjoint_base
class OneRow:
    def __new__(cls, replay: Replay, kinds: Sequence[Any]) -> OneRow: ...
    def value(self, arguments: tuple[Any, ...]) -> np.ndarray | None: ...
    def backward(self, arguments: tuple[Any, ...], accumulate: bool) -> np.ndarray | None: ...

@disjoint_base
class PlainWay:
    cache: Any
    def __init__(self, function: Callable[..., Any], types: tuple[type, ...], cache: Any) -> None: ...
    def value(self, arguments: tuple[Any, ...], state: dict[str, Any]) -> Any: ...

def values_of_calls(
    function: Callable[..., Any],
    columns: tuple[Iterator[Any], ...],
    some: np.ndarray,
    values: np.ndarray,
    stream: Stream,
    offset: int,
    first: int,
    at: list[int],
) -> tuple[int, Any] | None: ...
def has_room(kinds: Sequence[Any]) -> bool: ...
