"""What a run leaves to look at beside its model: a report, and PNG files if matplotlib is there."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from fastscalar import plot
from fastscalar.cli.console import Stop, plural, say, short, users_fault
from fastscalar.cli.report import report_of
from fastscalar.cli.runs import DEFAULTS, Run, class_names, read_model, source, widths
from fastscalar.cli.sources import Data, load_data, rows
from fastscalar.files import replacing
from fastscalar.nn.evaluation import outputs, probabilities
from fastscalar.nn.history import Epoch, History

PAGE = "report.html"
FOLDER = "pictures"
SAMPLES = 40


def leave_pictures(run: Run, args: argparse.Namespace) -> None:
    """At the end of a run, unless FASTSCALAR_PICTURES is 0."""
    assert run.out is not None
    if os.environ.get("FASTSCALAR_PICTURES") == "0":
        return
    _leave(run.net, run.report(), run.asked, run.data, run.out, not args.no_pictures, args.quiet)


def show_again(args: argparse.Namespace) -> int:
    net = read_model(args.model)
    about = net.metadata
    name = args.data or source(about)
    if "epochs" not in about or name is None:
        raise Stop(f"{args.model}: not a net that train has saved; there is nothing to show of its run")
    data = load_data(name, limit=0)
    inputs, classes = widths(net, args.model)
    if data.test[0][0].size != inputs or data.classes > classes:
        found = f"{data.title} has images of {data.test[0][0].size} pixels and {data.classes} classes"
        raise Stop(f"{args.model} takes {inputs} pixels and tells {classes} classes apart, but {found}; give --data")
    into = args.into or (args.model if args.model.is_dir() else args.model.parent)
    with users_fault(OSError):
        into.mkdir(parents=True, exist_ok=True)
    _leave(net, about, DEFAULTS | about["run"], data, into, True, False)
    return 0


def _leave(
    net: Any, about: dict[str, Any], asked: dict[str, Any], data: Data, into: Path, pictures: bool, quiet: bool
) -> None:
    X, y = rows(data.test)
    p = probabilities(np.concatenate(list(outputs(net, X))))
    names = class_names(about, p.shape[1])
    with users_fault(OSError):
        with replacing(into / PAGE) as file:
            file.write(report_of(about, asked, names, data.test[0], y, p).encode())
        made = _pictures(net, about, names, data, y, p, into / FOLDER) if pictures else 0
    if not quiet:
        also = f", {FOLDER}/ ({plural(made, 'picture')})" if made else ""
        why = "; for pictures: pip install 'fastscalar[plot]'" if pictures and not made else ""
        say(f"to look at in {short(into)}: {PAGE}{also}{why}")


def _pictures(
    net: Any, about: dict[str, Any], names: list[str], data: Data, y: np.ndarray, p: np.ndarray, folder: Path
) -> int:
    """How many were made; none without matplotlib."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # the first time it says that it looks for fonts
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return 0
    images, said = data.test[0], p.argmax(axis=1)
    wrong, found, certain = plot.most_confident_mistakes(p, y, SAMPLES)
    mistaken = zip(wrong, found, certain, strict=True)
    titles = [f"{names[k]}, {100 * q:.0f} %\nis {names[y[row]]}" for row, k, q in mistaken]
    figures = {
        "images": plot.images(images[:SAMPLES], y[:SAMPLES], names=names),
        "curves": plot.curves(_history(about)) if about["epochs"] else None,
        "confusion": plot.confusion(y, said, names=names),
        "mistakes": plot.images(images[wrong], titles) if len(wrong) else None,
        "weights": plot.weights(net) if images.shape[1] == images.shape[2] else None,
    }
    folder.mkdir(exist_ok=True)
    made = {name: figure for name, figure in figures.items() if figure is not None}
    for name, figure in made.items():
        with replacing(folder / f"{name}.png") as file:
            figure.savefig(file, format="png", dpi=110)
    return len(made)


def _history(about: dict[str, Any]) -> History:
    epochs = []
    for row in about["epochs"]:
        loss, metric = row.get("validation_loss"), row.get("validation_accuracy", row["test_accuracy"])
        speed = row["seconds"], row["samples_per_s"]
        epochs.append(Epoch(row["epoch"], row["loss"], None, *speed, loss, metric, "accuracy"))
    if all(e.validation_loss is None for e in epochs):       # measured on the test data alone
        for e in epochs:
            e.validation_loss, e.metric = float("nan"), "test accuracy"
    return History(epochs)
