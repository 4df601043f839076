"""How a run learns: optimiser, schedule, loss and early stopping from the options of `train`, and what of them is kept.

Also the configuration of a run as TOML: `--config FILE` reads it, `--out DIR` leaves it in `config.toml`.
"""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fastscalar as fs
from fastscalar.cli.console import Stop, users_fault
from fastscalar.datasets.tables import read_npz
from fastscalar.nn.losses import LOSSES
from fastscalar.nn.models import with_more

OPTIMIZERS: dict[str, Any] = {"sgd": fs.SGD, "adam": fs.Adam, "adamw": fs.AdamW, "rmsprop": fs.RMSprop}
SCHEDULES = ("linear", "cosine", "constant")
RATES = {"adam": 0.001, "adamw": 0.001, "rmsprop": 0.001}  # the optimisers' own; RMSprop's is for larger batches
RECIPE: dict[str, Any] = {  # defaults; a part of a run's DEFAULTS
    "optimizer": "sgd",
    "momentum": 0.0,
    "weight_decay": 0.0,
    "clip_norm": None,
    "schedule": "linear",
    "loss": "cross_entropy",
    "warmup": 0.0,
    "label_smoothing": 0.0,
    "validation": 0.0,
    "patience": None,
}
HELD = 0.1  # of the training images, for --patience
FLAGS = ("eager", "mpi", "no-pictures", "quiet")  # options without a value that a file may name
LARGEST = 1 << 20  # bytes of a file of options
STATE = "optimizer."  # begins the names of its arrays in a checkpoint


def check(asked: dict[str, Any]) -> None:
    """What does not go together; and what follows from what was said."""
    if asked["momentum"] and asked["optimizer"] in ("adam", "adamw"):
        raise Stop(f"--momentum {asked['momentum']:g}: is of sgd and rmsprop; {asked['optimizer']} has its own")
    if asked["label_smoothing"] and asked["loss"] != "cross_entropy":
        raise Stop(f"--label-smoothing {asked['label_smoothing']:g}: is of cross_entropy; --loss is {asked['loss']}")
    if asked["patience"] is not None and not asked["validation"]:
        asked["validation"] = HELD
    if asked["lr"] is None:  # fewer steps, each a mean over the batch; momentum goes as far in the long run
        rate = 0.02 * math.sqrt(asked["batch_size"]) * (1.0 - asked["momentum"])
        asked["lr"] = RATES.get(asked["optimizer"], rate)


def optimizer_of(asked: dict[str, Any], parameters: Any) -> Any:
    options = {"weight_decay": asked["weight_decay"], "clip_norm": asked["clip_norm"]}
    if asked["momentum"]:
        options["momentum"] = asked["momentum"]
    return OPTIMIZERS[asked["optimizer"]](parameters, lr=asked["lr"], **options)


def schedule_of(asked: dict[str, Any]) -> Any:
    name = asked["schedule"]
    return fs.schedules.warmup(asked["warmup"], then=name) if asked["warmup"] else name


def loss_of(asked: dict[str, Any], classes: int) -> Callable[..., Any]:
    """Of a row's outputs and its label.  Losses of targets compare with 1 for the class and 0 for all others."""
    name, smoothing = asked["loss"], asked["label_smoothing"]
    if name == "cross_entropy":
        if not smoothing:
            return fs.cross_entropy
        return lambda logits, label: fs.cross_entropy(logits, label, label_smoothing=smoothing)
    wanted = fs.to_tensor(np.eye(classes))
    if name == "squared":  # half the sum is so many times the mean
        return lambda outputs, label: fs.mse_loss(outputs, wanted[label]) * (classes / 2)
    loss = LOSSES[name]
    return lambda outputs, label: loss(outputs, wanted[label])


def said(asked: dict[str, Any]) -> str:
    """A line on it.

    >>> said(RECIPE | {"lr": 0.02, "batch_size": 1})
    'SGD, learning rate 0.02 falling to 0, batch size 1'
    """
    named = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop"}[asked["optimizer"]]
    how = {"linear": " falling to 0", "cosine": " falling along a cosine", "constant": ""}[asked["schedule"]]
    parts = [named, f"learning rate {asked['lr']:g}{how}", f"batch size {asked['batch_size']}"]
    for key in ("momentum", "weight_decay", "clip_norm", "warmup", "label_smoothing"):
        if asked[key]:
            parts.append(f"{key.replace('_', ' ')} {asked[key]:g}")
    if asked["loss"] != "cross_entropy":
        parts.append(f"loss {asked['loss']}")
    return ", ".join(parts)


# --- early stopping -------------------------------------------------------------------------------


def best_of(epochs: list[dict[str, Any]]) -> int | None:
    """Which epoch, from 1, has the lowest validation loss; None without any."""
    losses = [row.get("validation_loss") for row in epochs]
    if not losses or any(loss is None for loss in losses):
        return None
    return 1 + int(np.argmin(np.array(losses, dtype=float)))


def had_enough(asked: dict[str, Any], epochs: list[dict[str, Any]]) -> bool:
    best = best_of(epochs) if asked["patience"] is not None else None
    return best is not None and len(epochs) - best >= asked["patience"]


# --- an optimiser's state in a checkpoint ----------------------------------------------------------


def save_with_state(net: Any, path: Path, optimizer: Any, about: dict[str, Any]) -> None:
    """The net and what the optimiser keeps, in one file, which is there as a whole or not at all."""
    state = {} if optimizer is None else optimizer.state_dict()
    if not any(np.ndim(value) for value in state.values()):  # plain SGD: the epochs say how far it is
        net.save(path, **about)
        return
    with with_more({f"{STATE}{name}": np.asarray(value) for name, value in state.items()}):
        net.save(path, **about)


def load_state(optimizer: Any, path: Path) -> None:
    """What `save_with_state` has kept in the checkpoint, if it was something."""
    with users_fault(ValueError, OSError):
        arrays = read_npz(path)
        state = {name.removeprefix(STATE): a for name, a in arrays.items() if name.startswith(STATE)}
        needed = any(np.ndim(value) for value in optimizer.state_dict().values())
        if not state and needed:
            raise ValueError(f"{path}: expected the state of the optimiser; found none, the file was changed")
        if state:
            try:
                optimizer.load_state_dict(state)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path}: {error}; the file was changed") from None


# --- TOML -----------------------------------------------------------------------------------------


def as_toml(asked: dict[str, Any]) -> str:
    """The configuration of a run, with the names of the options.

    >>> print(as_toml({"data": "mnist", "hidden": [256, 64], "lr": 0.02, "limit": None, "eager": False}))
    # fastscalar train --config FILE does this run again
    data = "mnist"
    hidden = [256, 64]
    lr = 0.02
    """
    lines = ["# fastscalar train --config FILE does this run again"]
    for key, value in asked.items():
        if value is not None and value is not False and value != []:
            lines.append(f"{key.replace('_', '-')} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines)


def arguments_of(path: Path) -> list[str]:
    """The options that a TOML file names, as they would be typed; a path of data is taken from where the file lies."""
    with users_fault(OSError), open(path, "rb") as file:
        content = file.read(LARGEST + 1)         # a device may have no end
    if len(content) > LARGEST:
        raise Stop(f"--config {path}: expected a TOML file of options, of at most {LARGEST:,} bytes")
    try:
        table = tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Stop(f"--config {path}: not TOML: {error}") from None
    except RecursionError:
        raise Stop(f"--config {path}: expected options and their values; found lists in lists without an end") from None
    inner = table.get("train")
    if isinstance(inner, dict):
        table = {key: value for key, value in table.items() if key != "train"} | inner
    arguments = []
    for key, value in table.items():
        option = f"--{key.replace('_', '-')}"
        if option in ("--config", "--resume", "--overwrite"):
            raise Stop(f"--config {path}: {key}: is said on the command line")
        if isinstance(value, bool):
            arguments += [option] * (value or key.replace("_", "-") not in FLAGS)    # else it says what it expects
        elif isinstance(value, list) and value and all(type(n) is int for n in value):
            arguments += [f"{option}={','.join(map(str, value))}"]
        elif isinstance(value, (str, int, float)) and "\0" not in str(value):
            beside = path.parent / str(value)
            value = beside if option == "--data" and not os.path.isabs(str(value)) and beside.exists() else value
            arguments += [f"{option}={value}"]
        else:
            raise Stop(f"--config {path}: {key}: expected a number, a text or a list of whole numbers, got {value!r}")
    return arguments
