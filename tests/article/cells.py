"""Read a program as cells and run them in one namespace, as a notebook does."""

import contextlib
import io
import pathlib
import time

HERE = pathlib.Path(__file__).parent


def cells(changes=(), program="program.py"):
    """Title and code of each cell.  `changes`: pairs (old, new); the old text stands there exactly once."""
    text = (HERE / program).read_text(encoding="utf-8")
    for old, new in changes:
        if text.count(old) != 1:
            raise ValueError(f"{program}: expected {old!r} once, found it {text.count(old)} times")
        text = text.replace(old, new)
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in text.split("\n# %% ")[1:]}


def run(namespace, changes=(), upto=None, program="program.py"):
    """Run the cells in order, up to the one called `upto`: what they printed, and the seconds of each."""
    printed, seconds = io.StringIO(), {}
    namespace.setdefault("__name__", program)
    with contextlib.redirect_stdout(printed):
        for title, code in cells(changes, program).items():
            start = time.perf_counter()
            exec(compile(code, f"{program}, cell {title!r}", "exec"), namespace)
            seconds[title] = time.perf_counter() - start
            if title == upto:
                break
    return printed.getvalue(), seconds
