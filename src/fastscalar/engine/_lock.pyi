from types import TracebackType

from typing_extensions import disjoint_base

@disjoint_base
class Lock:
    def __enter__(self) -> None: ...
    def __exit__(
        self, *error: type[BaseException] | BaseException | TracebackType | None
    ) -> None: ...

def count_fork() -> None: ...
