"""What `train` keeps about a run in its models and reports, and whether it is as `train` writes it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fastscalar.cli import recipe
from fastscalar.cli.sources import NAMES
from fastscalar.nn.losses import LOSSES


def _whole(least: int, most: float = 2**31 - 1) -> Callable[[Any], bool]:  # the engine counts with 32 bits
    return lambda value: type(value) is int and least <= value <= most


def _number(value: Any) -> bool:
    return type(value) in (int, float)


def _one_of(*values: Any) -> Callable[[Any], bool]:
    return lambda value: type(value) in map(type, values) and value in values


def _text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and len(value) <= 4096  # of Linux's paths


ASKED: dict[str, Callable[[Any], bool]] = {  # what is right in the metadata's "run"
    "data": _text,
    "model": _one_of("mlp", "linear"),
    "hidden": lambda value: isinstance(value, list) and all(map(_whole(1), value)),
    "epochs": _whole(1),
    "lr": lambda value: _number(value) and 0 < value < math.inf,
    "batch_size": _whole(1),
    "seed": _whole(0, math.inf),
    "limit": lambda value: value is None or _whole(1)(value),
    "dtype": _one_of("float64", "float32"),
    "eager": _one_of(False, True),
    "optimizer": _one_of(*recipe.OPTIMIZERS),
    "momentum": lambda value: _number(value) and 0 <= value < 1,
    "weight_decay": lambda value: _number(value) and 0 <= value < math.inf,
    "clip_norm": lambda value: value is None or (_number(value) and 0 < value < math.inf),
    "schedule": _one_of(*recipe.SCHEDULES),
    "loss": _one_of(*LOSSES),
    "warmup": lambda value: _number(value) and 0 <= value < 1,
    "label_smoothing": lambda value: _number(value) and 0 <= value < 1,
    "validation": lambda value: _number(value) and 0 <= value < 1,
    "patience": lambda value: value is None or _whole(1)(value),
}
EPOCH: dict[str, Callable[[Any], bool]] = {  # in a row of its "epochs"
    "epoch": _whole(1),
    "loss": _number,
    "test_accuracy": lambda value: _number(value) and 0 <= value <= 1,
    "seconds": lambda value: _number(value) and 0 <= value < math.inf,
    "samples_per_s": _number,
}


def _rows(value: Any) -> bool:
    """One for each epoch, from the first on."""
    return isinstance(value, list) and all(
        isinstance(row, dict)
        and row.get("epoch") == k
        and all(key in row and right(row[key]) for key, right in EPOCH.items())
        and all(key not in row or _number(row[key]) for key in ("validation_loss", "validation_accuracy"))
        for k, row in enumerate(value, start=1)
    )


ABOUT: dict[str, Callable[[Any], bool]] = {  # in the metadata themselves
    "dataset": _one_of(*NAMES[1:], "folder"),
    "title": _text,
    "folder": lambda value: value is None or _text(value),
    "fallback": _one_of(False, True),
    "classes": lambda value: isinstance(value, list) and len(value) < 1 << 16 and all(map(_text, value)),
    "fingerprint": _text,
    "test_fingerprint": _text,
    "kernels": _text,
    "version": _text,
    "threads": _whole(1),
    "epochs": _rows,
    "run": lambda value: (
        isinstance(value, dict)
        and all(key not in value or right(value[key]) for key, right in ASKED.items())
        and value.get("lr") is not None
    ),
}
