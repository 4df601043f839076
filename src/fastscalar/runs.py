"""One training run of the command line: what was asked for, its files, and how it is resumed.

`--out DIR` holds `model.npz` (the net after the last whole epoch), `training.json` (what --json writes) and, until the
run is complete, `checkpoint.npz`: the same net with everything that --resume needs to go on exactly.  A file is
written whole or not at all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import fastscalar as fs
from fastscalar.console import Stop, cpu, plural, say, users_fault
from fastscalar.sources import NAMES, Data, first_lines, load_data
from fastscalar.training import Epoch

DEFAULTS: dict[str, Any] = {  # of the options that make up a run
    "data": "auto",
    "model": "mlp",
    "hidden": [256],
    "epochs": 5,
    "lr": None,
    "batch_size": 1,
    "seed": 0,
    "limit": None,
    "dtype": "float64",
    "eager": False,
}
MODEL, CHECKPOINT, REPORT = "model.npz", "checkpoint.npz", "training.json"


@dataclass
class Run:
    """One training run: what was asked for, what it is done with, what came out so far."""

    asked: dict[str, Any]  # the keys of DEFAULTS
    threads: int  # no part of the run: they do not change what comes out
    data: Data
    net: Any
    parameters: int
    out: Path | None
    fingerprint: str  # of the training data; --resume compares it
    epochs: list[dict[str, Any]]

    def report(self, **more: Any) -> dict[str, Any]:
        """What goes into the JSON and, as its metadata, into the model."""
        asked = {key: value for key, value in self.asked.items() if key not in ("data", "epochs")}
        return {
            **self.data.about(),
            "epochs": self.epochs,
            "test_accuracy": self.epochs[-1]["test_accuracy"] if self.epochs else None,
            "seconds": sum(row["seconds"] for row in self.epochs),
            "parameters": self.parameters,
            "version": fs.__version__,
            "requested_data": self.asked["data"],
            **asked,
            "training_images": len(self.data.train[1]),
            "test_images": len(self.data.test[1]),
            "threads": self.threads,
            "kernels": fs.tape_info()["kernels"],
            "python": platform.python_version(),
            "numpy": np.__version__,
            "cpu": cpu(),
            **more,
        }

    def save(self, *names: str, **more: Any) -> None:
        if self.out is not None:
            for name in names:
                resume = {"run": self.asked, "fingerprint": self.fingerprint}
                self.net.save(self.out / name, **self.report(**resume, **more))
            write_json(self.out / REPORT, self.report(**more))

    def add(self, epoch: Epoch) -> dict[str, Any]:
        row = {"test_accuracy" if key == "accuracy" else key: value for key, value in asdict(epoch).items()}
        self.epochs.append(row)
        self.save(CHECKPOINT, MODEL)
        return row

    def back(self) -> None:
        """To the checkpoint: when something stops a run, the net or the list of epochs may be one epoch ahead of it."""
        if self.out is None or not (self.out / CHECKPOINT).exists():
            return
        net = read_model(self.out / CHECKPOINT)
        about = net.metadata
        this = (self.asked, self.fingerprint)    # and not an older run in the same folder
        if (DEFAULTS | about.get("run", {}), about.get("fingerprint")) == this:
            self.net, self.epochs = net, about["epochs"]


def start(args: argparse.Namespace) -> Run:
    """Check the arguments, get the data, make or load the net, and print the first lines."""
    saved: dict[str, Any] = {}
    net = None
    if args.resume:
        if args.out is None:
            raise Stop("--resume needs --out DIR, the folder of the run to go on with")
        net = read_checkpoint(args.out)
        saved = net.metadata
    asked = what_was_asked(args, saved.get("run"))
    threads = args.threads or 1
    if threads > 1 and (asked["eager"] or asked["batch_size"] == 1):
        why = "the eager loop has one" if asked["eager"] else "they share the samples of a batch; add --batch-size 64"
        raise Stop(f"--threads {threads}: {why}")
    check_targets(args.out, args.json)
    # A run goes on with the data that it began with, whatever "auto" would find today.
    data = load_data(
        (saved["folder"] if saved["dataset"] == "folder" else saved["dataset"]) if saved else asked["data"],
        asked["limit"],
        quiet=args.quiet,
    )
    if saved and saved["fallback"]:
        data.why = [("the run that is continued", "began without MNIST")]
    total = len(data.train[1])
    data.train = data.train[0][: asked["limit"]], data.train[1][: asked["limit"]]
    fingerprint = ""
    if args.out is not None:
        digest = hashlib.sha256(np.ascontiguousarray(data.train[0]).data)
        digest.update(np.ascontiguousarray(data.train[1]).data)
        fingerprint = digest.hexdigest()
    if saved and fingerprint != saved["fingerprint"]:
        raise Stop(f"{data.title}: the training data are not those that the run in {args.out} began with")
    widths = [data.train[0][0].size, *asked["hidden"], data.classes]
    if net is None and asked["model"] == "linear":
        net = fs.Linear(*widths, seed=asked["seed"])
    elif net is None:
        net = fs.MLP(widths[0], widths[1:], seed=asked["seed"])
    parameters = sum(m * n + n for m, n in pairwise(widths))
    if not args.quiet:
        used = len(data.train[1])
        few = f"{used:,} of {total:,}" if used < total else f"{used:,}"
        first_lines(data, f"{few} training and {plural(len(data.test[1]), 'test image')}")
        say(f"net:  {net}, {parameters:,} parameters, seed {asked['seed']}")
        say(f"      SGD, learning rate {asked['lr']:g} falling to 0, batch size {asked['batch_size']}")
        say(f"      {'eager' if asked['eager'] else 'compiled'}, {asked['dtype']}, {plural(threads, 'thread')}")
    return Run(asked, threads, data, net, parameters, args.out, fingerprint, saved.get("epochs", []))


def what_was_asked(args: argparse.Namespace, saved: dict[str, Any] | None) -> dict[str, Any]:
    """What was given, and else what the run that is continued had, or the defaults."""
    given = {key: value for key in DEFAULTS if (value := getattr(args, key)) is not None}
    if os.path.isdir(given.get("data", "")) and given["data"] not in NAMES:
        given["data"] = os.path.abspath(given["data"])
    if saved is not None:
        saved = DEFAULTS | saved             # of a version that had fewer options
        for key, value in given.items():
            if value != saved[key]:
                option, had = key.replace("_", "-"), saved[key]
                raise Stop(f"--{option}: the run in {args.out} had {had}; --resume goes on with it unchanged")
        return saved
    asked = DEFAULTS | given
    if asked["model"] == "linear":
        if "hidden" in given:
            raise Stop("--hidden is for --model mlp; a linear model has no hidden layers")
        asked["hidden"] = []
    if asked["eager"] and asked["dtype"] != "float64":
        raise Stop(f"--dtype {asked['dtype']}: the eager loop computes in float64")
    if asked["lr"] is None:
        asked["lr"] = 0.02 * math.sqrt(asked["batch_size"])  # fewer steps, each a mean over the batch
    return asked


# --- files ---


def read_model(path: Path) -> Any:
    with users_fault(ValueError, OSError):
        return fs.load(path / MODEL if path.is_dir() else path)


def read_checkpoint(out: Path) -> Any:
    for name in (CHECKPOINT, MODEL, REPORT):  # half a file, of a run that was killed while it wrote
        for half in out.glob(f".{name}.*.tmp"):
            half.unlink(missing_ok=True)
    for name in (CHECKPOINT, MODEL):  # a complete run has only the model
        if (out / name).exists():
            net = read_model(out / name)
            if {"run", "fingerprint", "epochs"} <= net.metadata.keys():
                return net
    raise Stop(f"{out}: nothing to resume; expected {CHECKPOINT}, which train --out writes")


def check_targets(out: Path | None, file: Path | None) -> None:
    """What cannot be written should be said before the training, not after."""
    with users_fault(OSError):
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
    for option, path, folder in (("--out", out, out), ("--json", file, file and file.absolute().parent)):
        if folder is not None and not (folder.is_dir() and os.access(folder, os.W_OK)):
            raise Stop(f"{option} {path}: {folder} is not a folder that can be written to")
    if file is not None and file.is_dir():
        raise Stop(f"--json {file}: expected the name of a file; this is a folder")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """All of it or nothing.  A device such as /dev/stdout is written to, not replaced."""
    text = json.dumps(content, indent=2) + "\n"
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
