"""`fastscalar play`: a page to draw digits on, to watch a net learn, and to play graphs."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import fastscalar as fs
from fastscalar import datasets
from fastscalar.cli.console import Stop, plural, say
from fastscalar.cli.runs import read_model, source
from fastscalar.cli.sources import Data, load_data, rows
from fastscalar.nn.layers import linears_of
from fastscalar.play.graphs import Graphs
from fastscalar.play.page import Page, open_in_browser
from fastscalar.play.room import Room
from fastscalar.play.samples import Samples
from fastscalar.play.training import Trainer

HIDDEN = 128
DRAWN = 12_000  # synthetic digits for training: two seconds to draw and to learn


def serve(args: argparse.Namespace) -> int:
    """Open the page and serve it until Ctrl-C: the exit status."""
    model: Any = None if args.model is None else read_model(args.model)
    net = model
    if net is not None and not isinstance(net, (fs.Linear, fs.MLP)):
        raise Stop(f"{args.model}: a net of {type(net).__name__}; play takes what train has saved: Linear, MLP")
    data = _data(args.data or (source(model.metadata) if model is not None else None))
    samples = _samples(data)
    if net is None:
        net = fs.MLP(samples.X.shape[1], [args.hidden or HIDDEN, data.classes], seed=args.seed)
        first = 2 if data.name == "synthetic" else 1  # epochs, so that the first drawing is read
    else:
        first = 0
        inputs, classes = linears_of(net)[0].in_features, linears_of(net)[-1].out_features
        if (inputs, classes) != (samples.X.shape[1], data.classes):
            raise Stop(
                f"{args.model} takes {inputs} pixels and tells {classes} classes apart, but the images "
                f"of {data.title} have {samples.X.shape[1]} pixels and {data.classes} classes; give --data"
            )
        if args.hidden is not None:
            raise Stop("--hidden is of a new net; leave it or the model out")
    say(f"data: {data.used}, {plural(len(samples.X), 'training image')}", "bold")
    if samples.note:
        say(f"      {samples.note}")
    trainer = Trainer(net, samples, fs.cross_entropy, seed=args.seed)
    try:
        page = Page(Room(Graphs(), trainer), args.port)
    except OSError as error:
        trainer.close()
        raise Stop(f"port {args.port}: {error.strerror or error}") from error
    with page:
        if first:
            trainer.epoch(first)
        say(f"open  {page.url}\nCtrl-C ends it")
        if not args.no_browser:
            open_in_browser(page.url)
        page.wait()
    if sys.stdout.isatty():
        say()
    say(f"{data.used}: {trainer.samples_seen:,} samples trained on" if trainer.samples_seen else data.used, "bold")
    return 0


def _data(name: str | None) -> Data:
    """The data of --data; if nothing is said, MNIST if it is on this machine, else synthetic digits: the page is there
    at once, and the network is not asked."""
    if name not in (None, "auto"):
        return load_data(str(name), DRAWN if name == "synthetic" else None)
    if datasets.locate("mnist") is not None:
        return load_data("mnist")
    data = load_data("synthetic", DRAWN)
    data.why = [("this machine", "MNIST is not here")]
    return data


def _samples(data: Data) -> Samples:
    (X, y), (X_test, y_test) = rows(data.train), rows(data.test)
    note = "MNIST is not on this machine; fastscalar data --fetch mnist downloads it" if data.why is not None else ""
    return Samples(X, y, X_test, y_test, data.used, note)
