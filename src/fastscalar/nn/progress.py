"""How far an epoch is: a bar in a terminal or a notebook, and callbacks that look on every so many samples."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from typing import Any

from fastscalar._imports import importing, writing
from fastscalar.nn.callbacks import Samples


def _begin_in_child() -> None:
    """After fork: the lock of bars may be held by a thread that is not here.  And half of it is a semaphore that both
    processes share, unless the user has chosen another: a child that is killed while it draws would stop the parent."""
    bars = sys.modules.get("tqdm.std")
    if bars is not None and isinstance(getattr(bars.tqdm, "_lock", None), bars.TqdmDefaultWriteLock):
        bars.tqdm.set_lock(threading.RLock())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)


def in_notebook() -> bool:
    """Whether a kernel runs this, whose output is a page."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def bar_of(title: str, n: int) -> Any:
    """A bar of tqdm, which is imported here; None where it would not be seen."""
    page = in_notebook()
    if not page and (sys.stderr is None or not sys.stderr.isatty()):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")          # without ipywidgets it says so, and is drawn with characters
        with importing():
            if page:
                from tqdm.auto import tqdm
            else:
                from tqdm import tqdm
            tqdm.get_lock()                      # the first time imports what locks are made of
        with writing():
            return tqdm(
                total=n,
                desc=title,
                unit=" samples",
                unit_scale=True,
                bar_format="{desc}: {percentage:3.0f} % |{bar}| {rate_fmt}, {remaining} left{postfix}",
                file=sys.stderr,
                leave=False,
                dynamic_ncols=True,
            )


class Watch:
    """Of one epoch: told how many samples are done and what they lost, it moves the bar and calls what waits for it."""

    def __init__(self, number: int, epochs: int, n: int, progress: bool, watching: list[Any]) -> None:
        self.number, self.n, self.watching, self.done = number, n, watching, 0
        self.bar = bar_of(f"epoch {number}/{epochs}", n) if progress else None

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.bar is not None:
            with writing():
                self.bar.close()

    def room(self, size: int, batch_size: int) -> int:
        """How many of the next `size` samples may be done until the next look; whole batches."""
        for callback in self.watching:
            left = int(callback.every) - self.done % int(callback.every)
            size = min(size, -(-left // batch_size) * batch_size)
        return size

    def tell(self, count: int, total: float) -> None:
        """So many more are done; total: the sum of the losses of all that are."""
        before, self.done = self.done, self.done + count
        mean = total / self.done
        if self.bar is not None:
            with writing():
                self.bar.set_postfix_str(f"loss {mean:.4f}", refresh=False)
                self.bar.update(count)
        for callback in self.watching:
            if before // int(callback.every) != self.done // int(callback.every):
                callback.on_samples(Samples(self.number, self.done, mean))
