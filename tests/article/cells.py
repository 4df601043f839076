"""Read program.py as cells and run them in one namespace, as a notebook does."""

import contextlib
import io
import pathlib
import time

PROGRAM = pathlib.Path(__file__).parent / "program.py"


def cells(changes=()):
    """Title and code of each cell.  `changes`: pairs (old, new); the old text stands there exactly once."""
    text = PROGRAM.read_text(encoding="utf-8")
    for old, new in changes:
        if text.count(old) != 1:
            raise ValueError(f"{PROGRAM.name}: expected {old!r} once, found it {text.count(old)} times")
        text = text.replace(old, new)
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in text.split("\n# %% ")[1:]}


def run(namespace, changes=(), upto=None):
    """Run the cells in order, up to the one called `upto`: what they printed, and the seconds of each."""
    printed, seconds = io.StringIO(), {}
    with contextlib.redirect_stdout(printed):
        for title, code in cells(changes).items():
            start = time.perf_counter()
            exec(compile(code, f"{PROGRAM.name}, cell {title!r}", "exec"), namespace)
            seconds[title] = time.perf_counter() - start
            if title == upto:
                break
    return printed.getvalue(), seconds
