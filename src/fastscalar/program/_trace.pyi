from collections.abc import Callable, Sequence
from types import CodeType
from typing import Any

from typing_extensions import disjoint_base

from fastscalar._core import Recorder, Tensor
from fastscalar.program._graph import Graph

class NotReplayable(Exception):
    lost: Sequence[tuple[CodeType, int]]

class BodyLeaks(BaseException): ...

@disjoint_base
class Recording(Recorder):
    inputs: list[tuple[str, Any]]
    stopped: list[list[int]]
    ieee: list[list[int]]
    codes: list[CodeType]
    lost: list[tuple[CodeType, int]]
    born: int
    bodies: list[tuple[int, int]]
    leaked: bool
    reads: bool
    unrolled: bool
    raised_in_loop: bool
    cut: int
    drawn_in_loops: list[tuple[int, int, float, int, int, int]]
    uncertain: dict[int, int]
    shorten: Callable[[Recording, int, list[Tensor]], list[Tensor]] | None
    @property
    def length(self) -> int: ...
    def part(self, first: int) -> Recording: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def read_nodes(self, nodes: list[int]) -> None: ...
    def __enter__(self) -> Recording: ...
    def __exit__(self, *exc: object) -> None: ...
    def begin(self) -> None: ...
    def inside(self, outer: Recording) -> None: ...
    def leave(self) -> None: ...
    def leaf_before(self, t: Tensor) -> bool: ...

def leaves_before(marker: Tensor, result: Tensor, known: dict[Any, Any] | None = None) -> list[Any]: ...
def extract(recording: Recording, results: list[Tensor]) -> Graph: ...
