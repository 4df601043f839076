"""One tape in one interpreter: elsewhere the import is refused, before anything native is loaded.

CPython's subinterpreters share the memory of extension modules that do not keep it apart, and the tape is such memory.
"""

from importlib import import_module
from typing import Any


def _interpreters() -> Any:
    for name in ("_interpreters", "_xxsubinterpreters"):  # CPython from 3.13 on; before
        try:
            return import_module(name)
        except ImportError:
            continue
    return None


def require_main() -> None:
    """ImportError in a subinterpreter."""
    interpreters = _interpreters()
    if interpreters is not None and interpreters.get_current() != interpreters.get_main():
        raise ImportError(
            "fastscalar: there is one tape in a process, and it is the main interpreter's; this is a subinterpreter. "
            "Import fastscalar in the main interpreter, or in another process."
        )


require_main()
