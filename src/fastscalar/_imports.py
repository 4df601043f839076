"""Imports that wait until they are needed, and forks that wait for them, and for what is written.

A child process that was forked in the middle of an import by another thread has the module half made and its lock held
by nobody: the first use there would wait for ever.  So it is with the lock of a stream.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 10.0  # seconds that a fork waits at most: the import may itself wait for what the forking thread holds

_lock = threading.RLock()
_here = threading.local()


@contextmanager
def importing() -> Iterator[None]:
    """Around an import in a function."""
    with _lock:
        yield


writing = importing  # around a line of a log, and the drawing of a bar


def _before_fork() -> None:
    _here.held = _lock.acquire(timeout=PATIENCE)


def _after_fork() -> None:
    if _here.held:
        _lock.release()


def _after_in_child() -> None:
    global _lock
    if _here.held:
        _lock.release()
    else:
        _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_in_child)
