from typing_extensions import disjoint_base

@disjoint_base
class Plan:
    plain: bool
    summary: str
    operations: int
    @property
    def guarded(self) -> bool: ...
