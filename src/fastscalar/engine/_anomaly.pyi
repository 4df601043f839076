from collections.abc import Callable

from typing_extensions import disjoint_base

from fastscalar._core import Observer, Tensor, _Block

@disjoint_base
class Callbacks(Observer): ...

@disjoint_base
class _Notes(_Block):
    def __init__(
        self,
        here: Callable[[], int],
        explain: Callable[[Tensor, Tensor], Exception],
        zero: Callable[[Tensor, float], None],
        forget: Callable[[], None],
    ) -> None: ...
def detects_anomalies() -> bool: ...
