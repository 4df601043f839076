"""What an error says that is raised while a program is recorded: whoever reads it reads the operands in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_READERS = (
    "__str__", "__repr__", "__format__", "__len__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__",
    "__hash__", "__contains__", "__getitem__", "__iter__", "__add__", "__mod__", "encode", "endswith", "find", "count",
    "index", "partition", "replace", "rpartition", "split", "splitlines", "startswith", "strip",
)  # fmt: skip


class Message(str):
    """A text in which the values of some nodes of a recording stand."""

    recording: Any = None
    nodes: list[int]


def _reads(name: str) -> Callable[..., Any]:
    plain = getattr(str, name)

    def method(self: Message, *args: Any) -> Any:
        if self.recording is not None:
            self.recording.read_nodes(self.nodes)
        return plain(self, *args)

    method.__name__ = name
    return method


for _name in _READERS:
    setattr(Message, _name, _reads(_name))
