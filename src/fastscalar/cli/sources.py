"""The data that a command uses, and what it says about where they come from."""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import numpy as np

from fastscalar import datasets
from fastscalar.cli.console import WIDTH, Stop, passing, say, short, users_fault
from fastscalar.datasets.catalog import DATASETS, FILES
from fastscalar.datasets.idx import header

NAMES = ("auto", "mnist", "fashion", "synthetic")  # everything else that --data is given is a folder
SYNTHETIC = "synthetic digits"
Split = tuple[np.ndarray, np.ndarray]


@dataclass
class Data:
    """Images and labels for training and testing, as they lie in the files."""

    name: str  # mnist, fashion, synthetic, or folder
    title: str
    folder: str | None
    train: Split
    test: Split
    classes: int = 10
    labels: list[str] | None = None  # what the classes are called, if not by their numbers
    notes: Sequence[str] = ()  # what was done to the images
    why: Sequence[tuple[str, str]] | None = None  # MNIST was wanted and could not be had: places and reasons

    @property
    def used(self) -> str:
        return self.title + (", NOT MNIST" if self.why is not None else "")

    def about(self) -> dict[str, Any]:
        """For the JSON and the model."""
        fallback = self.why is not None
        known = {"dataset": self.name, "title": self.title, "folder": self.folder, "fallback": fallback}
        return known if self.labels is None else known | {"classes": self.labels}


def is_place(name: str) -> bool:
    """Whether data may lie there: a folder, a zip, CSV or .npz file, or the beginning of the names in a folder."""
    if os.path.isfile(name):
        return name.lower().endswith((".csv", ".csv.gz", ".npz", ".zip")) or zipfile.is_zipfile(name)
    if os.path.exists(name):                                 # a device may have no end
        return os.path.isdir(name)
    parent, beginning = os.path.split(name)
    if os.path.isfile(parent):
        return zipfile.is_zipfile(parent)
    try:
        there = os.listdir(parent or ".")
        return bool(beginning) and any(file.startswith(beginning) and file != beginning for file in there)
    except OSError:
        return False


def load_data(name: str, limit: int | None = None, *, quiet: bool = False) -> Data:
    """The data set that --data names.

    Parameters
    ----------
    name : of a data set, a folder, or "auto": MNIST, and another one only if that cannot be had; damage is an error.
    limit : saves drawing synthetic digits that are not needed; nothing else is cut off here.
    quiet : say nothing of a search.
    """
    with users_fault(ValueError, OSError):
        if name in ("auto", "mnist"):
            try:
                with passing("looking for MNIST, on this machine and then elsewhere ...", quiet):
                    split = datasets.mnist()
            except datasets.DatasetUnavailable as error:
                if name != "auto":
                    raise
                data = load_data("synthetic", limit, quiet=quiet)
                data.why = error.tried
                logging.getLogger("fastscalar").warning("MNIST could not be had; digits drawn by fastscalar instead")
                return data
            return Data("mnist", DATASETS["mnist"].title, str(datasets.locate("mnist")), *split)
        if name == "fashion":
            with passing("looking for Fashion-MNIST, on this machine and then elsewhere ...", quiet):
                split = datasets.fashion_mnist()
            return Data("fashion", DATASETS["fashion"].title, str(datasets.locate("fashion")), *split)
        if name == "synthetic":
            with passing("drawing digits ...", quiet):
                split = datasets.synthetic_digits(60000 if limit is None else limit)
            return Data("synthetic", SYNTHETIC, None, *split)
        if not is_place(name):
            these = f"{', '.join(NAMES)}, or a folder or zip file of IDX files or pictures by class, a .csv or .npz"
            raise Stop(f"--data {name}: expected {these}" + ("" if os.path.exists(name) else "; there is no such file"))
        with passing(f"reading {short(name)} ...", quiet):
            found = datasets.load_images(name)
        (_, y), _ = split = found.train, found.test
    folder = os.path.abspath(name)
    digest = hashlib.sha256(header(0x08, y.shape) + y.tobytes()).hexdigest()
    for key, known in DATASETS.items():  # a known data set is called by its name wherever it lies
        if known.digest(FILES[1]) == digest:
            return Data(key, known.title, folder, *split)
    numbers = list(map(str, range(len(found.classes))))
    labels = None if found.classes == numbers else found.classes
    title = f"the data in {short(folder)}"
    return Data("folder", title, folder, *split, len(found.classes), labels, found.notes)


def first_lines(data: Data, counts: str) -> None:
    """Say which data are used; `counts` says how many of them."""
    if data.why is None:
        say(f"data: {data.title}, {counts}", "bold")
        if data.name in DATASETS:
            say(f"      from {short(str(data.folder))}")
        for note in data.notes:
            say(f"      {note}")
        return
    say(f"data: {data.title} drawn by fastscalar, NOT MNIST, which could not be had:", "bold", "yellow")
    for place, reason in data.why:
        place = place.removeprefix("https://").rpartition("/")[0] if "://" in place else short(place)
        say(fill(f"      {place}: {reason}", WIDTH - 1, subsequent_indent=" " * 8, break_on_hyphens=False))
    say(f"      To use MNIST, put its four files into {short(datasets.cache_dir() / 'mnist')}")
    say(f"      (`fastscalar data` lists them).  {counts}")


def rows(split: Split) -> Split:
    """Images as rows of numbers from 0 to 1, and their labels."""
    images, labels = split
    return images.reshape(len(images), -1) / 255, labels
