"""Pages on which nets learn and graphs are played: `fastscalar play`, and `fastscalar.play(...)` from Python.

    server.py    HTTP on the loopback interface: token, Host, Origin, sizes of messages
    room.py      what the pages ask for, and the answers
    training.py  a run that can be steered while it goes on, in a thread of its own
    graphs.py    graphs as boxes, folded where they are large, with what plays them
    samples.py   data; drawings made to look like MNIST's images
    examples.py  the programs of the guided tour
    page.py      `play`, `Page`: from Python and in notebooks; pages saved as one file
    static/      the page: HTML, CSS, JavaScript, nothing that has to be built

The room stands above `nn` and below `cli`, whose `play.py` is the command.  The module can be called:
`fastscalar.play(loss)` is `fastscalar.play.play(loss)`.
"""

import sys
import types
from typing import Any

from fastscalar.play.page import Page, play

__all__ = ["Page", "play"]


class _Callable(types.ModuleType):
    """`fastscalar.play` has to be both: the name that users call, and the package that an import puts there."""

    def __call__(self, *args: Any, **options: Any) -> Page:
        return play(*args, **options)


sys.modules[__name__].__class__ = _Callable
