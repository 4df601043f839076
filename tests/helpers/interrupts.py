"""Ctrl-C by a timer, into the code of this project only, and how much of the processor others use.

Whoever listens to Python's collector (hypothesis does) runs Python in the middle of everything.  What a signal raises
there is ignored by Python, so that nothing was interrupted, and a test would wait for it in vain: there the signal
comes a little later, as it does in code that is known to hold up no interrupt.
"""

from __future__ import annotations

import os
import pathlib
import signal
import time
from types import FrameType
from typing import Any

import fastscalar as fs

OURS = (str(pathlib.Path(fs.__file__).parent), str(pathlib.Path(__file__).resolve().parents[1]))
# logging and tqdm take their locks in Python: a signal just there leaves them taken, and other threads wait for ever.
OTHERS = {"logging", "tqdm", "hypothesis", "_pytest", "pytest", "pluggy", "xdist", "execnet", "weakref", "_weakrefset"}
LATER = 1e-4  # seconds


def is_ours(frame: FrameType | None) -> bool:
    """Whether this is the project's code, or what it has called, and nothing that has come in between."""
    while frame is not None and not frame.f_code.co_filename.startswith(OURS):
        if frame.f_globals.get("__name__", "").partition(".")[0] in OTHERS or frame.f_code.co_name == "__del__":
            return False
        frame = frame.f_back
    return True


def ctrl_c(number: int, frame: FrameType | None) -> None:
    """A handler of SIGALRM."""
    if not is_ours(frame):
        signal.setitimer(signal.ITIMER_REAL, LATER)
        return
    raise KeyboardInterrupt


class Interrupt:
    """Ctrl-C some seconds into a block."""

    def __init__(self, seconds: float) -> None:
        self.seconds = max(seconds, 1e-6)

    def __enter__(self) -> None:
        self.before = signal.signal(signal.SIGALRM, ctrl_c)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def __exit__(self, *_: Any) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, self.before)


def seconds_of(process: int) -> float:
    """Seconds of the processor that a process has used; where nobody tells, those of the clock."""
    try:
        with open(f"/proc/{process}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return time.monotonic()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
