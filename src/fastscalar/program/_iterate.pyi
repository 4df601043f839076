from typing import Any

import numpy as np
from typing_extensions import disjoint_base

@disjoint_base
class Iterations:
    replays: list[Any]
    def __new__(
        cls,
        plans: list[Any],
        ends: list[bool],
        counters: list[list[int]],
        width: int,
        captured: int,
        numbered: bool,
        rows: int,
        of_row: int = 0,
        table: np.ndarray | None = None,
        collected: int = 0,
    ) -> Iterations: ...
    def draw(
        self, seed: int, epoch: int, antithetic: bool, counts: dict[int, int] | None, rows: np.ndarray
    ) -> None: ...
    def values(
        self,
        state: np.ndarray,
        captured: np.ndarray,
        ended: np.ndarray,
        status: np.ndarray,
        k: int,
        until: int,
        steps: np.ndarray | None = None,
        collected: np.ndarray | None = None,
        memory: int = 0,
        before: np.ndarray | None = None,
        lenient: bool = False,
    ) -> None: ...
    def gradients(
        self,
        captured: np.ndarray,
        ended: np.ndarray,
        status: np.ndarray,
        adjoint: np.ndarray,
        leaves: bool,
        steps: np.ndarray | None = None,
        collected: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray | None]: ...
