"""Tensors that became plain numbers while a function is being differentiated: their gradient is gone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import FrameType

from fastscalar._core import Tensor
from fastscalar._paths import PACKAGE, is_users
from fastscalar._warnings import warn_of_loss
from fastscalar.engine import _inspect, _modes


class Watch(_modes.Watching):
    """Context in which a Tensor that depends on `inputs` and becomes a plain number is reported."""

    def __init__(self, inputs: Sequence[Tensor], report: Callable[[Tensor], None] | None = None) -> None:
        super().__init__()
        self.inputs = list(inputs)
        self.report = report


def tracing() -> bool:
    return bool(_modes.watches())


def became_a_number(t: Tensor) -> None:
    """Called by Tensor.__float__ while this thread traces anything; of rows, where a gradient gets lost."""
    watches: tuple[_modes.Watching, ...] = _modes.watches()
    last = watches[-1]
    if isinstance(last, Watch) and last.report is not None:
        if _inspect._depends(t, last.inputs):
            last.report(t)
        return
    frame = _through_numpy(sys._getframe(1))
    if frame is None or _is_ours(frame):
        return  # our own code knows what it does
    traced = [x for watch in watches if isinstance(watch, Watch) for x in watch.inputs]
    if isinstance(last, Watch) and not _inspect._depends(t, traced):
        return
    users: FrameType | None = frame              # np.full and statistics.fmean do what a line of the user's says
    while users is not None and not _is_ours(users) and not is_users(users.f_code.co_filename):
        users = _through_numpy(users.f_back)
    if users is not None and not _is_ours(users):
        frame = users
    if last.said is not None:                    # of rows that run eagerly
        line = frame.f_code.co_filename, frame.f_lineno
        last.said[_modes.key_of(frame.f_code, frame.f_lasti)] = frame.f_code
        if line in last.said:
            return
        last.said[line] = None
    names = frame.f_globals
    warn_of_loss(frame.f_code.co_filename, frame.f_lineno, names.get("__name__"), names)


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(PACKAGE)


def _through_numpy(frame: FrameType | None) -> FrameType | None:
    """The frame that called a function of NumPy's, of which a Tensor says only that it takes it as any object."""
    while frame is not None and _is_ours(frame) and frame.f_code.co_name == "__array_function__":
        frame = frame.f_back
    return frame
