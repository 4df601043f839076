"""`fastscalar.play(...)`: a page on the reader's own program."""

from __future__ import annotations

import atexit
import html
import json
import os
import sys
import threading
import webbrowser
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar.engine._array import TensorArray
from fastscalar.files import StrPath, replacing
from fastscalar.nn.evaluation import loss_of
from fastscalar.nn.samples import samples_of
from fastscalar.play.graphs import Drawing, Graphs
from fastscalar.play.room import Room
from fastscalar.play.samples import Samples
from fastscalar.play.server import STATIC, Refused, Server
from fastscalar.play.training import Trainer

SCRIPTS = ("words.js", "app.js", "draw.js", "train.js", "graph.js", "tour.js")  # in this order
TEST_SHARE = 0.1  # of the samples, if no test data are given


class Page:
    """A page that is being served.  In a notebook it shows itself; `url` is its address, `close()` ends it, `save()`
    writes what can be seen to a file.  It is a context manager as well."""

    def __init__(self, room: Room, port: int = 0, *, framed: bool = False) -> None:
        self._room = room
        self._server = Server(room, port, framed=framed)
        self._open = True
        atexit.register(self.close)

    @property
    def url(self) -> str:
        """The address, with the token that lets in."""
        return self._server.url

    def close(self) -> None:
        """End the server, and training with it; the net stays as it is."""
        if self._open:
            self._open = False
            atexit.unregister(self.close)
            self._room.close()
            self._server.close()

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def wait(self) -> None:
        """Serve until Ctrl-C."""
        try:
            while self._open:
                threading.Event().wait(3600)
        except KeyboardInterrupt:
            pass
        finally:
            self.close()

    def save(self, path: StrPath) -> None:
        """Write what the page shows now to one HTML file, which needs no server and no network.  OSError names it."""
        content = saved(self._room).encode()
        with replacing(path) as file:
            file.write(content)

    def __repr__(self) -> str:
        return f"<page at {self.url}>" if self._open else "<closed page>"

    def _repr_html_(self) -> str:
        if not self._open:
            return "<p>closed</p>"
        url = html.escape(self.url, quote=True)
        return f'<iframe src="{url}" title="fastscalar play" width="100%" height="640" style="border:0"></iframe>'


def saved(room: Room) -> str:
    """The page with everything in it that it would ask for."""
    hello = room.hello({})
    answers: dict[str, Any] = {"graphs": {}}
    for key in hello["graphs"]:
        answers["graphs"][key] = room.graphs.show({"graph": key})
    if room.trainer is not None:
        answers["news"] = room.news({"seen": -1, "points": 0, "generation": -1})
        for name in ("weights", "mistakes"):
            try:
                answers[name] = room.calls[name]({})
            except Refused:
                continue
    hello["views"] = [view for view in hello["views"] if view != "draw"]  # which needs the engine
    answers["hello"] = hello
    text = json.dumps(answers, allow_nan=False).replace("<", "\\u003c")
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    head = (
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'unsafe-inline'; "
        "style-src 'unsafe-inline'; img-src data:\">\n<style>\n" + (STATIC / "style.css").read_text(encoding="utf-8")
        + "</style>\n"
    )  # fmt: skip
    page = page.replace('<link rel="stylesheet" href="style.css">\n', head)
    page = page.replace('<link rel="icon" href="icon.svg">\n', '<link rel="icon" href="data:,">\n')
    for name in SCRIPTS:
        script = (STATIC / name).read_text(encoding="utf-8")
        before = f"<script>window.SAVED = {text};</script>\n" if name == SCRIPTS[0] else ""
        page = page.replace(f'<script src="{name}" defer></script>\n', f"{before}<script>\n{script}</script>\n")
    return page


def play(
    subject: Any,
    X: Any = None,
    y: Any = None,
    *,
    loss: Callable[[Any, Any], Any] | str = "cross_entropy",
    validation_data: tuple[Any, Any] | None = None,
    labels: Mapping[str, Any] | None = None,
    lr: float = 0.02,
    batch_size: int = 1,
    open_browser: bool | None = None,
    block: bool | None = None,
) -> Page:
    """Show a graph, or a net while it learns, on a page in the browser, or in the notebook.

    `play(loss)`: the graph behind a Tensor, which can be played forward and backward.  `play(f)`, with a function of no
    arguments that returns a Tensor, also shows the line of Python that made each node.  `labels` names Tensors, as for
    `debug.draw`.
    `play(net, X, y)`: trains the net itself (not a copy) on rows of X, when the page says so, with `loss`, a function
    or a name as for `fit`; tests it on `validation_data`, or on the last tenth of the samples, which is then not
    trained.
    open_browser: by default wherever the page is not shown by a notebook.
    block: wait for Ctrl-C; by default in scripts, which would end, and not where one can type on.

    The page is served on the loopback interface of this machine, to requests with the token in its address.
    Gradients that the graph had are there again afterwards.  TypeError and ValueError for what cannot be shown.

    >>> import fastscalar as fs
    >>> a, b = fs.Tensor(2), fs.Tensor(3)
    >>> with fs.play(a * b + a, open_browser=False, block=False) as page:
    ...     print(page.url.startswith("http://127.0.0.1:"))
    True
    """
    notebook = _in_notebook()
    if isinstance(subject, (Tensor, TensorArray)) or X is None:
        if X is not None or y is not None or validation_data is not None:
            raise TypeError("play: X and y go with a net; a Tensor shows its own graph")
        if not callable(subject) and not isinstance(subject, (Tensor, TensorArray, list)):
            raise TypeError(f"play: expected a Tensor, a function that returns one, or net, X, y; got {subject!r}")
        if hasattr(subject, "parameters"):
            raise TypeError("play: a net is played with its data: play(net, X, y)")
        room = Room(Graphs(Drawing(subject, labels)))
    else:
        room = Room(Graphs(), _trainer(subject, X, y, loss, validation_data, lr, batch_size))
    page = Page(room, framed=notebook)
    if open_browser if open_browser is not None else not notebook:
        open_in_browser(page.url)
    if block if block is not None else not (notebook or hasattr(sys, "ps1") or sys.flags.interactive):
        print(f"{page.url}\nCtrl-C ends it", flush=True)
        page.wait()
    return page


def _trainer(
    net: Any, X: Any, y: Any, loss: Any, validation_data: Any, lr: float, batch_size: int
) -> Trainer:
    if y is None:
        raise TypeError("play: expected net, X and y")
    if not hasattr(net, "parameters"):
        raise TypeError(f"play: {type(net).__name__} has no parameters(); expected a net")
    X, y = samples_of(X, y)
    if validation_data is None:
        tested = max(1, round(len(X) * TEST_SHARE))
        X, y, X_test, y_test = X[:-tested], y[:-tested], X[-tested:], y[-tested:]
        if not len(X):
            raise ValueError("play: expected at least two samples, one to train on and one to test with")
    else:
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
            raise ValueError("play: validation_data: expected (X, y)")
        X_test, y_test = samples_of(*validation_data)
    samples = Samples(np.asarray(X), np.asarray(y), np.asarray(X_test), np.asarray(y_test), "")
    return Trainer(net, samples, loss_of(loss, "play"), lr=lr, batch_size=batch_size)


def open_in_browser(url: str) -> None:
    """Without waiting for it: a browser of the terminal would not come back."""
    if os.environ.get("FASTSCALAR_BROWSER") != "none":  # for machines without one, and tests
        threading.Thread(target=webbrowser.open, args=(url,), name="fastscalar-play-browser", daemon=True).start()


def _in_notebook() -> bool:
    """Whether results are shown as HTML: in a kernel of IPython."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None
