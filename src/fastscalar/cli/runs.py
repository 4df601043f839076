"""One training run of the command line: what was asked for, its files, and how it is resumed.

Contract
1. `--out DIR` holds `model.npz` (the net after the last whole epoch), `training.json` (what --json writes) and, until
   the run is complete, `checkpoint.npz`: the same net with everything that --resume needs to go on exactly, the
   optimiser's state among it; `best.npz` while early stopping looks for the best; `config.toml`, what was asked for.
2. A file is written whole or not at all, in the order checkpoint, model, report; the checkpoint goes when the other two
   are complete.  So a run that is killed at any moment goes on from the checkpoint, or is complete without one.
3. One run at a time: the folder is locked while a run is at work there (`.lock`, of which a dead process leaves nothing
   but the file).
4. What a run has learned is overwritten by that run, or when --overwrite says so.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

import fastscalar as fs
from fastscalar.cli import recipe
from fastscalar.cli.about import ABOUT, EPOCH
from fastscalar.cli.console import WIDTH, Stop, complain, cpu, plural, say, users_fault
from fastscalar.cli.sources import NAMES, Data, first_lines, is_place, load_data, rows
from fastscalar.files import Busy, locked, remove_halves, replacing
from fastscalar.nn.evaluation import EVALUATE_ROWS, outputs
from fastscalar.nn.history import Epoch
from fastscalar.nn.layers import linears_of
from fastscalar.program.threads import cores

FORMAT = 1  # of the report
PIXELS = 784  # of an image of MNIST and its like
PARAMETER = 80  # bytes that a net takes for each while its weights are drawn
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
    **recipe.RECIPE,
}
BEST, CONFIG = "best.npz", "config.toml"
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
    fingerprints: dict[str, str]  # SHA-256 of the training and of the test data; --resume compares them
    epochs: list[dict[str, Any]]
    fresh: bool  # the files of the run are still to be made, or to be made equal
    optimizer: Any = None
    held: Any = None  # images and labels that were taken from the training data for validation
    kept: Any = None  # without a folder: the number of the best epoch, and its net's numbers

    @property
    def done(self) -> bool:
        return len(self.epochs) >= self.asked["epochs"] or recipe.had_enough(self.asked, self.epochs)

    @property
    def row(self) -> dict[str, Any] | None:
        """Of the epoch whose net is the result, once the run is done: the best one with --patience, else the last."""
        if not self.epochs:
            return None
        best = recipe.best_of(self.epochs) if self.asked["patience"] is not None and self.done else None
        return self.epochs[-1 if best is None else best - 1]

    def report(self, **more: Any) -> dict[str, Any]:
        """What goes into the JSON and, as its metadata, into the model."""
        asked = {key: value for key, value in self.asked.items() if key not in ("data", "epochs")}
        return {
            "format": FORMAT,
            **self.data.about(),
            "epochs": self.epochs,
            "test_accuracy": self.row["test_accuracy"] if self.row is not None else None,
            "seconds": sum(row["seconds"] for row in self.epochs),
            "parameters": self.parameters,
            "version": fs.__version__,
            "requested_data": self.asked["data"],
            **asked,
            "training_images": len(self.data.train[1]),
            "test_images": len(self.data.test[1]),
            **self.fingerprints,
            "threads": self.threads,
            "kernels": fs.tape_info()["kernels"],
            "python": platform.python_version(),
            "numpy": np.__version__,
            "cpu": cpu(),
            **more,
        }

    def about(self, **more: Any) -> dict[str, Any]:
        """The metadata of a model."""
        return {"run": self.asked, **self.report(**more)}

    def save(self, *names: str, **more: Any) -> None:
        """The net under these names, and the report."""
        if self.out is not None:
            for name in names:
                optimizer = self.optimizer if name == CHECKPOINT else None
                recipe.save_with_state(self.net, self.out / name, optimizer, self.about(**more))
            write_json(self.out / REPORT, self.report(**more))

    def begin(self) -> None:
        """Make the files of the folder those of this run, as it stands."""
        if self.out is None or not self.fresh:
            return
        if self.epochs:
            self.save(CHECKPOINT, MODEL)
        else:
            recipe.save_with_state(self.net, self.out / CHECKPOINT, self.optimizer, self.about())
            (self.out / MODEL).unlink(missing_ok=True)  # of an older run
            self.save()
        with replacing(self.out / CONFIG) as file:  # after the checkpoint: till then the folder is the older run's
            file.write(recipe.as_toml(self.asked).encode() + b"\n")

    def add(self, epoch: Epoch) -> dict[str, Any]:
        X, _ = rows((self.data.test[0][:EVALUATE_ROWS], self.data.test[1]))
        for what, arrays in (
            ("weights", (p.numpy() for linear in linears_of(self.net) for p in (linear.w, linear.b))),
            ("outputs", outputs(self.net, X)),  # those of the last step no loss was computed from
        ):
            with np.errstate(over="ignore"):  # what float32 cannot hold either
                finite = all(np.isfinite(array.astype(self.asked["dtype"])).all() for array in arrays)
            if not finite:
                raise FloatingPointError(
                    f"{what} are infinite or NaN after epoch {epoch.epoch}; "
                    f"the learning rate {self.asked['lr']:g} may be too large"
                )
        row = {"test_accuracy" if key == "accuracy" else key: value for key, value in asdict(epoch).items()}
        row = {key: row[key] for key in EPOCH}
        if self.held is not None:
            other = self.asked["loss"] != "cross_entropy"
            loss = recipe.loss_of(self.asked, self.data.classes) if other else None
            found = fs.evaluate(self.net, *rows(self.held), loss=loss)
            row |= {"validation_loss": found.loss, "validation_accuracy": float(found)}
        self.epochs.append(row)
        if self.asked["patience"] is not None and recipe.best_of(self.epochs) == row["epoch"]:
            if self.out is not None:  # before the checkpoint: it is there for every epoch that is
                self.net.save(self.out / BEST, **self.about())
            else:
                self.kept = [p.numpy() for p in self.net.parameters()]
        self.save(CHECKPOINT, MODEL)
        return row

    def take_best(self) -> None:
        """With --patience the net of the best epoch is the result."""
        if self.asked["patience"] is None:
            return
        if self.out is None:
            for p, value in zip(self.net.parameters(), self.kept, strict=True):
                p.data = value
        elif (self.out / BEST).exists():
            self.net = read_model(self.out / BEST)
            self.save(MODEL)

    def stop(self, how: str, file: Path | None) -> str:
        """Something stops the run: leave what it has learned, and say where.

        The net, or the list of epochs, may be ahead of what is in the checkpoint: that is what is kept.
        """
        where = ""
        if self.out is not None:
            self.net = read_model(self.out / CHECKPOINT)
            self.epochs = self.net.metadata["epochs"]
            self.save(MODEL, **{how: True})
            where = f"; the net after {plural(len(self.epochs), 'whole epoch')} is in {self.out}"
        if file is not None:
            write_json(file, self.report(**{how: True}))
        return where

    def complete(self) -> None:
        if self.out is not None:
            (self.out / CHECKPOINT).unlink(missing_ok=True)
            (self.out / BEST).unlink(missing_ok=True)


@contextmanager
def folder(args: argparse.Namespace) -> Iterator[None]:
    """Inside, the folder of --out is there, is ours alone, and has nothing in it that was left half-written."""
    out = args.out
    if args.resume and out is None:
        raise Stop("--resume needs --out DIR, the folder of the run to go on with")
    if args.overwrite and (out is None or args.resume):
        raise Stop("--overwrite is for a new run in --out DIR" + ", not for --resume" * args.resume)
    if args.resume and not out.is_dir():
        raise Stop(f"{out}: nothing to resume; there is no such folder")
    check_targets(out, args.json)
    if out is None:
        yield
        return
    try:
        with locked(out) as works:
            if not works:
                complain(f"{out}: no locks there; start no second run in it")
            remove_halves(out, CHECKPOINT, MODEL, REPORT, BEST, CONFIG)
            yield
    except Busy as busy:
        raise Stop(f"--out {out}: another run is at work there ({busy}); wait for it, or take another folder") from None


def start(args: argparse.Namespace) -> Run:
    """Check the arguments, get the data, make or load the net, and print the first lines."""
    saved: dict[str, Any] = {}
    net = None
    if args.resume:
        net, saved = read_checkpoint(args.out)
    elif args.out is not None and not args.overwrite:
        check_nothing_is_lost(args.out)
    asked = what_was_asked(args, saved.get("run"))
    wanted = args.threads or saved.get("threads", 1)
    threads = min(wanted, cores())
    if wanted > 1 and (asked["eager"] or asked["batch_size"] == 1):
        why = "the eager loop has one" if asked["eager"] else "they share the samples of a batch; add --batch-size 64"
        raise Stop(f"--threads {wanted}: {why}")
    # A run goes on with the data that it began with, whatever "auto" would find today.
    data = load_data(source(saved) or asked["data"], asked["limit"], quiet=args.quiet)
    if saved and saved["fallback"]:
        data.why = [("the run that is continued", "began without MNIST")]
    total = len(data.train[1])
    data.train = data.train[0][: asked["limit"]], data.train[1][: asked["limit"]]
    held = None
    if asked["validation"]:  # the last ones: published sets are in no order
        count = round(len(data.train[1]) * asked["validation"])
        if not 0 < count < len(data.train[1]):
            of = plural(len(data.train[1]), "image")
            raise Stop(f"--validation {asked['validation']:g}: would keep {count:,} of {of} aside")
        held = data.train[0][-count:], data.train[1][-count:]
        data.train = data.train[0][:-count], data.train[1][:-count]
    fingerprints = {}
    if args.out is not None or args.json is not None:
        fingerprints = {"fingerprint": digest(data.train), "test_fingerprint": digest(data.test)}
    for key, value in fingerprints.items():
        if saved.get(key, value) != value:  # older versions have only the first
            which = "test" if key.startswith("test") else "training"
            raise Stop(f"{data.title}: the {which} data are not those that the run in {args.out} began with")
    widths = [data.train[0][0].size, *asked["hidden"], data.classes]
    if net is not None and not (
        isinstance(net, (fs.Linear, fs.MLP))
        and [linears_of(net)[0].in_features, *(n.out_features for n in linears_of(net))] == widths
    ):
        raise Stop(f"{args.out}: the net {net} is not the one that its run asked for; the file was changed")
    parameters = sum(m * n + n for m, n in pairwise(widths))
    check_room(parameters)
    if net is None and asked["model"] == "linear":
        net = fs.Linear(*widths, seed=asked["seed"])
    elif net is None:
        net = fs.MLP(widths[0], widths[1:], seed=asked["seed"])
    if not args.quiet:
        used = len(data.train[1])
        few = f"{used:,} of {total:,}" if used < total else f"{used:,}"
        first_lines(data, f"{few} training and {plural(len(data.test[1]), 'test image')}")
        say(f"net:  {net}, {parameters:,} parameters, seed {asked['seed']}")
        say(fill(f"      {recipe.said(asked)}", WIDTH - 1, subsequent_indent=" " * 6))
        if held is not None:
            until = f", until its loss has not fallen for {asked['patience']} epochs" if asked["patience"] else ""
            say(f"      {len(held[1]):,} more for validation{until}")
        say(f"      {'eager' if asked['eager'] else 'compiled'}, {asked['dtype']}, {plural(threads, 'thread')}")
        if threads < wanted:
            say(f"      --threads {wanted}: this process may use {plural(threads, 'core')}, so more would be slower")
        kernels = fs.tape_info()["kernels"]
        if saved.get("kernels", kernels) != kernels:
            say(f"      begun with {saved['kernels']} kernels, goes on with {kernels}: last digits may differ")
        if saved.get("version", fs.__version__) != fs.__version__:
            say(f"      begun by fastscalar {saved['version']}, goes on with {fs.__version__}: digits may differ")
    epochs = saved.get("epochs", [])
    fresh = not saved or len(epochs) < asked["epochs"] or (args.out / CHECKPOINT).exists()
    run = Run(asked, threads, data, net, parameters, args.out, fingerprints, epochs, fresh, held=held)
    run.optimizer = recipe.optimizer_of(asked, net.parameters())
    if saved and (args.out / CHECKPOINT).exists():
        recipe.load_state(run.optimizer, args.out / CHECKPOINT)
    return run


def check_room(parameters: int) -> None:
    """A net that cannot be: better said at once than when the memory is used up."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not told here
        memory = 1 << 62
    if parameters >= 1 << 31:
        raise Stop(f"--hidden: {parameters:,} parameters are more than the 2^31 nodes that the tape can hold")
    if parameters * PARAMETER > memory:
        what = f"{parameters:,} parameters take {parameters * PARAMETER / 1e9:,.0f} GB"
        raise Stop(f"--hidden: {what}, and this machine has {memory / 1e9:,.0f} GB")


def digest(split: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> str:
    """SHA-256 of images and labels."""
    result = hashlib.sha256(np.ascontiguousarray(split[0]).data)
    result.update(np.ascontiguousarray(split[1]).data)
    return result.hexdigest()


def source(about: dict[str, Any]) -> str | None:
    """What --data would be for the data that a model was trained on; None if it does not say."""
    name: str | None = about.get("dataset")
    return about.get("folder") if name == "folder" else name


def what_was_asked(args: argparse.Namespace, saved: dict[str, Any] | None) -> dict[str, Any]:
    """What was given, and else what the run that is continued had, or the defaults."""
    given = {key: value for key in DEFAULTS if (value := getattr(args, key)) is not None}
    if given.get("data", NAMES[0]) not in NAMES and is_place(given["data"]):
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
    recipe.check(asked)
    return asked


# --- files ---


def read_model(path: Path) -> Any:
    """The net in a file, or in the folder of a run.  What train has saved with it is of the kind that train writes."""
    path = path / MODEL if path.is_dir() else path
    with users_fault(ValueError, OSError):
        net = fs.load(path)
    for key, right in ABOUT.items():
        if key in net.metadata and not right(net.metadata[key]):
            raise Stop(f"{path}: not as train saves it: {key!r} in its metadata; the file was changed")
    return net


def widths(net: Any, path: Path) -> tuple[int, int]:
    """Inputs and outputs of the net in a file.  A Module of another kind is tried with an image of 28 x 28."""
    if isinstance(net, (fs.Linear, fs.MLP)):
        linears = linears_of(net)
        return linears[0].in_features, linears[-1].out_features
    try:
        (found,) = outputs(net, np.zeros((1, PIXELS)))
    except Exception as error:  # whatever its forward does with them
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise Stop(f"{path}: its {type(net).__name__} takes no row of {PIXELS} pixels ({why})") from error
    return PIXELS, found.shape[1]


def class_names(about: dict[str, Any], classes: int) -> list[str]:
    """What the classes are called: by the data, if they say, or else by their numbers."""
    names = about.get("classes")
    return names if names is not None and len(names) == classes else list(map(str, range(classes)))


def read_checkpoint(out: Path) -> tuple[Any, dict[str, Any]]:
    """The net of a run's folder, and what is known of the run."""
    for name in (CHECKPOINT, MODEL):  # a complete run has only the model
        if (out / name).exists():
            net = read_model(out / name)
            about = net.metadata
            if not about.keys() >= {"run", "fingerprint", "epochs", "dataset", "folder", "fallback"}:
                break
            if len(about["epochs"]) > about["run"].get("epochs", DEFAULTS["epochs"]):
                raise Stop(f"{out / name}: more epochs than the run asked for; the file was changed")
            return net, about
    raise Stop(f"{out}: nothing to resume; expected {CHECKPOINT}, which train --out writes")


def check_nothing_is_lost(out: Path) -> None:
    """A run without an epoch may be replaced; everything else only by --overwrite."""
    for name in (CHECKPOINT, MODEL, REPORT):
        if not (out / name).exists():
            continue
        done = None
        try:
            about = read_model(out / name).metadata if name != REPORT else {}
            done = len(about["epochs"]) if {"run", "epochs"} <= about.keys() else None
        except Stop:  # whatever it is, it is not ours to overwrite
            pass
        if done == 0:
            return
        what = f"a run, {plural(done, 'epoch')}" if done is not None else f"a file {name}"
        again = "--resume goes on with it, " if name == CHECKPOINT and done is not None else ""
        raise Stop(f"--out {out}: has {what}; {again}--overwrite replaces it")


def check_targets(out: Path | None, file: Path | None) -> None:
    """What cannot be written should be said before the training, not after."""
    if out is not None:
        if out.exists() and not out.is_dir():
            raise Stop(f"--out {out}: expected the name of a folder; this is a file")
        with users_fault(OSError):
            out.mkdir(parents=True, exist_ok=True)
    for option, path, folder in (("--out", out, out), ("--json", file, file and file.absolute().parent)):
        if folder is not None and not (folder.is_dir() and os.access(folder, os.W_OK)):
            raise Stop(f"{option} {path}: {folder} is not a folder that can be written to")
    if file is not None and file.is_dir():
        raise Stop(f"--json {file}: expected the name of a file; this is a folder")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """All of it or nothing, a line for each entry, and for each epoch.  A device such as /dev/stdout is written to, not
    replaced."""
    with replacing(path) as file:
        lines = ",\n".join(f"  {json.dumps(key)}: {_lines(value)}" for key, value in content.items())
        file.write(f"{{\n{lines}\n}}\n".encode())


def _lines(value: Any) -> str:
    """JSON.  Its encoder is in C unless it indents: the report is written after each of maybe thousands of epochs."""
    if not isinstance(value, list) or not value or not all(isinstance(row, dict) for row in value):
        return json.dumps(value)
    rows = ",\n".join(f"    {json.dumps(row)}" for row in value)
    return f"[\n{rows}\n  ]"
