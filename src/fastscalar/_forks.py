"""What a child process after fork starts with: it has only the thread that forked, and the locks as they were.

The tape (`_core`) and the pool (`_replay`) see to themselves.  Here are the locks of programs.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from typing import Any

_owners: weakref.WeakSet[Any] = weakref.WeakSet()


def lock_of(owner: Any) -> Any:
    """What an object is to keep as its `_lock`.  Re-entrant: the thread that forks while it holds it can go on."""
    _owners.add(owner)
    return threading.RLock()


def _begin_in_child() -> None:
    for owner in list(_owners):
        if not hasattr(owner, "_lock"):          # another thread was about to give it one
            owner._lock = threading.RLock()
        elif owner._lock.acquire(blocking=False):
            owner._lock.release()
        else:                                    # by a thread that is not here
            owner._lock = threading.RLock()
    bars = sys.modules.get("tqdm.std")
    if bars is not None:                         # progress bars of `fit`
        if bars.TqdmDefaultWriteLock.th_lock.acquire(blocking=False):
            bars.TqdmDefaultWriteLock.th_lock.release()
        else:
            bars.tqdm.set_lock(threading.RLock())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)
