from collections.abc import Sequence

AVAILABLE: bool

def beat(to: Sequence[int], stop: int, milliseconds: int) -> None: ...
