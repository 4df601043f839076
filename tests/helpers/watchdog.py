"""A plugin of pytest: no test hangs for good, and Ctrl-C reaches the tests' own processes.

1. A test that takes longer than FASTSCALAR_TEST_TIMEOUT seconds (600) ends the process, or the worker of pytest-xdist,
   with the tracebacks of all threads: also one that waits in C and holds Python's lock.
2. Whoever starts the suite in the background of a shell script starts it with SIGINT ignored, and so are all processes
   that it starts.  Tests send SIGINT, to themselves and to others, and wait for what comes of it.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from collections.abc import Iterator

import pytest

LIMIT = float(os.environ.get("FASTSCALAR_TEST_TIMEOUT") or 600)
_errors = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_errors] = os.dup(2)  # what pytest captures while a test runs would be lost
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    faulthandler.dump_traceback_later(LIMIT, exit=True, file=item.config.stash[_errors])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
