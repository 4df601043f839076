from collections.abc import Sequence
from types import CodeType
from typing import Any

from typing_extensions import disjoint_base

from fastscalar._core import Recorder, Tensor
from fastscalar.program._graph import Graph

class NotReplayable(Exception):
    lost: Sequence[tuple[CodeType, int]]

@disjoint_base
class Recording(Recorder):
    inputs: list[tuple[str, Any]]
    stopped: list[list[int]]
    ieee: list[list[int]]
    codes: list[CodeType]
    lost: list[tuple[CodeType, int]]
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def read_nodes(self, nodes: list[int]) -> None: ...
    def __enter__(self) -> Recording: ...
    def __exit__(self, *exc: object) -> None: ...
    def begin(self) -> None: ...

def leaves_before(marker: Tensor, result: Tensor) -> list[Any]: ...
def extract(recording: Recording, results: list[Tensor]) -> Graph: ...
