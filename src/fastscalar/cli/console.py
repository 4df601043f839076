"""What the command line prints: lines for people, in 80 columns, in a terminal as in a pipe.

Results go to the standard output.  The progress bar and passing remarks go to the standard error stream, and
only if that is a terminal.  A pipe gets neither colours nor carriage returns.  Text is ASCII, paths aside.
What goes wrong is said on the standard error stream or, if that is closed or full, nowhere: the exit status has it.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from fastscalar.files import home, naming

WIDTH = 80
CLOSED = "standard output: it is closed"
_CODES = {"bold": "1", "yellow": "33", "dim": "2"}


def one_line(text: str) -> str:
    """Also of a name that has an end of a line in it."""
    return " ".join(text.split())


class Stop(Exception):
    """The command ends here with one line for the user; `then`: what to do next, in a line of its own, to be copied."""

    def __init__(self, message: str, status: int = 2, then: str = "") -> None:
        super().__init__(one_line(message))
        self.status, self.then = status, then


@contextmanager
def users_fault(*kinds: type[Exception]) -> Iterator[None]:
    """Inside, exceptions of these kinds come from what the user gave: their message says all."""
    try:
        yield
    except BrokenPipeError:  # the reader of our output has gone: no fault
        raise
    except kinds as error:
        raise Stop(describe(error)) from error


def describe(error: BaseException) -> str:
    """What the exception says; of the operating system's errors the file and the reason, without their numbers.

    >>> describe(FileNotFoundError(2, "No such file or directory", "a.npz"))
    'a.npz: no such file or directory'
    """
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        reason = error.strerror
        reason = reason if reason[1:2].isupper() else reason[:1].lower() + reason[1:]  # "RPC struct is bad" stays
        return f"{error.filename}: {reason}" if error.filename is not None else reason
    return str(error) or type(error).__name__


def style(text: str, *names: str) -> str:
    """The text in this style, if the standard output is a terminal and NO_COLOR is not set (no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not _terminal(sys.stdout)
    if plain or not names:
        return text
    return f"\033[{';'.join(_CODES[name] for name in names)}m{text}\033[0m"


def open_streams() -> None:
    """Descriptors 0 to 2 are those of the standard streams, also where some were closed when the process began: the
    next file that is opened would get the number, and what is meant for the stream.  They stay as good as closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_WRONLY), True)
    if sys.stderr is None:  # `print` takes the standard output instead
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives


def complain(text: str) -> None:
    """What went wrong, on the standard error stream.  If nobody can hear it, the exit status still says so."""
    try:
        print(f"fastscalar: {text}", file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - or Python tries once more at its end, and exits with 120


def say(text: str = "", *styles: str) -> None:
    """One line of the result, at once: the other end of the pipe may be watched."""
    if sys.stdout is None:
        raise Stop(CLOSED)
    with naming("standard output"):
        print(style(text, *styles), flush=True)


@contextmanager
def passing(text: str, quiet: bool = False) -> Iterator[None]:
    """Show the text in the terminal while something goes on that may take its time, then wipe it away."""
    if quiet or not _terminal(sys.stderr):
        yield
        return
    text = text[: WIDTH - 1]
    print(text, end="\r", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print(" " * len(text), end="\r", file=sys.stderr, flush=True)


def _terminal(stream: IO[str] | None) -> bool:
    return stream is not None and stream.isatty()


def plural(n: int, what: str) -> str:
    """The number and the noun, which gets an s unless there is one."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def percent(part: float) -> str:
    """A part of 1 in per cent."""
    return f"{100 * part:.2f} %"


def short(path: str | os.PathLike[str]) -> str:
    """The path as the user would write it: below the home folder with `~`."""
    text, mine = str(path), str(home())
    return "~" + text[len(mine) :] if text.startswith(mine + os.sep) and len(mine) > 1 else text


def matrix(counts: Sequence[Sequence[int]]) -> list[str]:
    """A confusion table: one row for each true class, one column for each class that it was taken for.

    >>> print("\\n".join(matrix([[8, 0], [1, 12]])))
    true  taken for
           0  1
       0   8  .
       1   1 12
    """
    width = max(len(str(n)) for row in counts for n in row) + 1
    lines = ["true  taken for", "     " + "".join(f"{k:>{width}}" for k in range(len(counts)))]
    for k, row in enumerate(counts):
        lines.append(f"{k:>4} " + "".join(f"{n or '.':>{width}}" for n in row))
    return lines


def cpu() -> str:
    """The name of the processor, as far as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith(("model name", "Model")):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"
