from types import CodeType
from typing import Any

import numpy as np
from typing_extensions import disjoint_base

from fastscalar._core import Tensor
from fastscalar._program import Recording

@disjoint_base
class ExactGraph:
    result: Tensor
    inputs: list[tuple[str, Any]]
    guards: np.ndarray
    codes: list[CodeType]
    captures: list[Any]
    def __init__(
        self,
        result: Tensor,
        inputs: list[Any],
        guards: np.ndarray,
        codes: list[CodeType],
        compared: list[Tensor | None],
        copies: list[tuple[Tensor, Tensor]],
    ) -> None: ...
    def __enter__(self) -> ExactGraph: ...
    def __exit__(self, *exc: object) -> None: ...
    def value(self, row: list[Any]) -> float | None: ...
    def train(
        self,
        columns: list[Any],
        order: np.ndarray,
        parameters: list[Any],
        rate: float,
        falls: bool,
        done: int,
        total_samples: float,
    ) -> tuple[int, float]: ...
    def backward(self, accumulate: bool) -> None: ...

def leaves_before(marker: Tensor, result: Tensor, inputs: list[Any]) -> list[Any]: ...
def exact_graph(recording: Recording, result: Tensor) -> ExactGraph: ...
