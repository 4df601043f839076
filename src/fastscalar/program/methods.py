"""Programs as methods of classes.

The boundary: knows where objects keep their programs, not what these do.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any, NamedTuple


class MethodOf(NamedTuple):
    """Which method of an object a program is of: copies of both are of each other."""

    owner: type
    name: str
    instance: Any

    def bound(self) -> Any:
        return vars(self.owner)[self.name].function.__get__(self.instance)


class CompiledMethod:
    """The part of a Program that is a descriptor."""

    function: Callable[..., Any]
    __name__: str
    _shared: tuple[int | str, ...]

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """As a method: each object has a program of its own, kept in its attributes."""
        if instance is None:
            return self
        kept, name = self._attributes(instance), self._attribute
        found = kept.get(name)
        of = getattr(found, "function", None) if type(found) is type(self) else None
        if found is not None and getattr(of, "__self__", instance) is instance:
            return found
        bound = type(self)(self.function.__get__(instance, owner), shared=self._shared)  # type: ignore[call-arg]
        if found is None:
            return kept.setdefault(name, bound)  # another thread may have been here first
        kept[name] = bound                       # it was copied from another object, whose program that is
        return bound

    def _as_state(self) -> Any:
        """What stands for the function in copies; its name would lead to the method that overrides it."""
        function: Any = self.function
        for owner in type(function.__self__).__mro__ if type(function) is MethodType else ():
            for name, found in vars(owner).items():
                if isinstance(found, CompiledMethod) and found.function is function.__func__:
                    return MethodOf(owner, name, function.__self__)
        return function

    def __set__(self, instance: Any, value: Any) -> None:
        self._attributes(instance)[self._attribute] = value

    def __delete__(self, instance: Any) -> None:
        if self._attributes(instance).pop(self._attribute, None) is None:
            raise AttributeError(self.__name__)

    @property
    def _attribute(self) -> str:
        """Where objects keep theirs: a method of a subclass has another place than the one that it overrides."""
        return getattr(self.function, "__qualname__", self.__name__)

    def _attributes(self, instance: Any) -> dict[str, Any]:
        try:
            return vars(instance)
        except TypeError:
            kind = type(instance).__name__
            raise TypeError(
                f"{self.__name__}: each object keeps its own program in its __dict__, and a {kind} has none; compile "
                "the method of an object, fastscalar.compile(obj.method)"
            ) from None
