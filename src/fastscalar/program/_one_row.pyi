from collections.abc import Sequence
from typing import Any

import numpy as np
from typing_extensions import disjoint_base

from fastscalar.program._replay import Replay

@disjoint_base
class OneRow:
    def __new__(cls, replay: Replay, kinds: Sequence[Any]) -> OneRow: ...
    def value(self, arguments: tuple[Any, ...]) -> np.ndarray | None: ...
    def backward(self, arguments: tuple[Any, ...], accumulate: bool) -> np.ndarray | None: ...

def has_room(kinds: Sequence[Any]) -> bool: ...
