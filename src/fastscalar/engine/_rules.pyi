from typing import Any

import numpy as np
from typing_extensions import disjoint_base

@disjoint_base
class Rule:
    keeps_first: bool
    keeps_second: bool
    clip_norm: float
    def __init__(
        self,
        kind: str,
        *,
        decay: float = 0.0,
        momentum: float = 0.0,
        nesterov: bool = False,
        betas: tuple[float, float] = (0.0, 0.0),
        eps: float = 1.0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None: ...

def step_by_rule(
    rule: Rule,
    parameters: list[Any],
    step: int,
    rate: float,
    first: np.ndarray | None,
    second: np.ndarray | None,
    known: Any = None,
) -> Any: ...
def norm_of_gradients(parameters: list[Any]) -> float: ...
def scale_gradients(parameters: list[Any], scale: float, limit: float) -> None: ...
def values_of(parameters: list[Any]) -> np.ndarray: ...
