"""The file of `fit(checkpoint=)`: a run as it is after its last whole epoch, for the same call to go on from.

An .npz file: `header`, JSON, and arrays.  Nothing in it is executed.  It is written whole or not at all, after every
epoch, and once more when the run has ended in order.
"""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import asdict
from types import NoneType
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar._settings import real_number, shown
from fastscalar.engine._rules import values_of
from fastscalar.files import StrPath, brief, open_zip, read_array, write_npz
from fastscalar.nn.course import Before
from fastscalar.nn.history import Epoch, History
from fastscalar.nn.optimizers import Optimizer

FORMAT = 1
_NUMBER, _MAYBE = (int, float), (int, float, NoneType)
EPOCH: dict[str, Any] = {
    "epoch": int, "loss": _NUMBER, "accuracy": _MAYBE, "seconds": _NUMBER, "samples_per_s": _NUMBER,
    "validation_loss": _MAYBE, "validation_metric": _MAYBE, "metric": (str, NoneType),
}  # fmt: skip
KINDS: dict[str, Any] = {                        # of what is in a header, beside `lr` and `state`
    "about": dict, "epochs": list, "stopped": (str, NoneType), "callbacks": list, "trained": str,
    "lr": object, "state": object,
}  # fmt: skip


def _arrays_in(path: str) -> dict[str, np.ndarray]:
    """What an .npz file holds, at most what it is long; ValueError for one that fit does not write."""
    size = os.path.getsize(path)
    with open_zip(path) as archive:
        members = archive.infolist()
        if any(info.compress_type != zipfile.ZIP_STORED for info in members):
            raise ValueError("packed in a way that fit does not use")
        if sum(info.file_size for info in members) > size:
            raise ValueError(f"a claim of more than its {size:,} bytes")
        found = {info.filename.removesuffix(".npy"): read_array(archive, info, "biufSU") for info in members}
    return {name: array for name, array in found.items() if array is not None}


def _epoch_of(row: Any, number: int) -> Epoch:
    """A row of a history; ValueError if it is none, or of another epoch."""
    if not isinstance(row, dict) or set(row) != set(EPOCH) or row["epoch"] != number:
        raise ValueError(f"epoch {number}: {shown(row)}")
    for name, value in row.items():
        if isinstance(value, bool) or not isinstance(value, EPOCH[name]):
            raise ValueError(f"epoch {number}: {name}: {shown(value)}")
    return Epoch(**row)


class Checkpoint:
    """The run that a file holds, if it is there, and the way to write it.

    about: what a call has to have in common with it: epochs, samples, batch size, seed.  read: at once."""

    def __init__(self, path: StrPath, about: dict[str, Any], read: bool = True) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"fit: checkpoint: expected the path of a file, got {shown(path)}")
        self.path, self.about = os.fspath(path), about
        self.header: dict[str, Any] | None = None
        self.arrays: dict[str, np.ndarray] = {}
        self.rows: list[Epoch] = []
        if read:
            self.read()

    @property
    def done(self) -> int:
        """Epochs that are in it."""
        return len(self.rows)

    @property
    def over(self) -> bool:
        """Whether its run has ended in order."""
        return self.header is not None and (self.header["stopped"] is not None or self.done == self.about["epochs"])

    def _wrong(self, what: str) -> ValueError:
        return ValueError(f"fit: checkpoint {self.path}: {what}")

    def read(self) -> None:
        """What the file holds, if there is one."""
        if not os.path.exists(self.path):
            return
        try:
            self.arrays = _arrays_in(self.path)
            header = json.loads(str(self.arrays.pop("header", "null")))
            rows = self._checked(header)
        except (ValueError, TypeError, EOFError, zipfile.BadZipFile, RuntimeError) as error:
            raise self._wrong(f"expected what fit writes; found something else ({brief(error)})") from None
        for key, value in self.about.items():
            if header["about"].get(key) != value:
                had = shown(header["about"].get(key))
                raise self._wrong(f"is of a run with {key}={had}, not {shown(value)}; take another file, or delete it")
        self.header, self.rows = header, rows

    def _checked(self, header: Any) -> list[Epoch]:
        """The epochs of a header that is whole: `state` and those of callbacks are unpacked in it; ValueError."""
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise ValueError("of another format")
        for name, kinds in KINDS.items():
            if name not in header or not isinstance(header[name], kinds):
                raise ValueError(f"{name}: {shown(header.get(name))}" if name in header else f"without {name}")
        rows = [_epoch_of(row, k) for k, row in enumerate(header["epochs"], start=1)]
        header["lr"] = real_number("lr", header["lr"])
        header["state"] = self._unpacked(header["state"])
        for pair in header["callbacks"]:
            if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
                raise ValueError(f"callbacks: {shown(pair)}")
        header["callbacks"] = [(name, self._unpacked(state)) for name, state in header["callbacks"]]
        values = self.arrays.get("parameters")
        if values is None or values.dtype.kind != "f" or not np.isfinite(values).all():
            raise ValueError("parameters: none, or not finite")
        return rows

    # --- taking over ---

    def restore(self, optimizer: Optimizer, callbacks: list[Any], history: History) -> None:
        """Net, optimiser, callbacks and history as they were; ValueError for a file of others, and nothing has changed
        but what a callback of the user's had taken over by then."""
        if self.header is None:
            return
        values = self.arrays["parameters"]
        distinct = optimizer._distinct
        sizes = [1 if isinstance(p, Tensor) else p.size for p in distinct]
        if values.shape != (sum(sizes),) or type(optimizer).__name__ != self.header["trained"]:
            raise self._wrong(
                f"has {values.size} parameters trained by {brief(self.header['trained'])}, this run {sum(sizes)} by "
                f"{type(optimizer).__name__}"
            )
        kinds = [type(c).__name__ for c in callbacks if hasattr(c, "state_dict")]
        if kinds != [name for name, _ in self.header["callbacks"]]:
            had = ", ".join(name for name, _ in self.header["callbacks"]) or "none"
            raise self._wrong(
                f"has the state of other callbacks: {brief(had)}; this run has {', '.join(kinds) or 'none'}"
            )
        before = Before(optimizer)
        try:
            self._take_over(optimizer, callbacks)
        except BaseException as error:
            before.restore()
            if isinstance(error, (ValueError, TypeError, KeyError, AttributeError, IndexError)):
                raise self._wrong(f"has a state that cannot be taken up: {brief(error)}") from error
            raise
        if history.epochs[-len(self.rows) :] != self.rows:   # of the call that was interrupted, maybe
            history.epochs += self.rows
        history.stopped = self.header["stopped"]

    def _take_over(self, optimizer: Optimizer, callbacks: list[Any]) -> None:
        assert self.header is not None
        distinct, values = optimizer._distinct, self.arrays["parameters"]
        sizes = [1 if isinstance(p, Tensor) else p.size for p in distinct]
        at = 0
        for p, size in zip(distinct, sizes, strict=True):
            p.data = values[at] if isinstance(p, Tensor) else values[at : at + size].reshape(p.shape)
            at += size
        if hasattr(optimizer, "load_state_dict"):
            optimizer.load_state_dict(self.header["state"])
        optimizer.lr = self.header["lr"]
        kept = (c for c in callbacks if hasattr(c, "state_dict"))
        for callback, (_, state) in zip(kept, self.header["callbacks"], strict=True):
            callback.load_state_dict(state)

    def _unpacked(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._unpacked(entry) for entry in value]
        if not isinstance(value, dict):
            return value
        if set(value) == {"array"} and isinstance(value["array"], str) and value["array"] in self.arrays:
            return self.arrays[value["array"]]
        if set(value) == {"dict"} and isinstance(value["dict"], dict):
            return {key: self._unpacked(v) for key, v in value["dict"].items()}
        raise ValueError(f"{shown(value)} in the state")

    # --- writing ---

    def write(self, optimizer: Optimizer, callbacks: list[Any], history: History, stopped: str | None = None) -> None:
        arrays: dict[str, Any] = {"parameters": values_of(optimizer._distinct)}

        def packed(value: Any, what: str) -> Any:
            if isinstance(value, (np.ndarray, np.generic)) and np.asarray(value).dtype.kind in "biufSU":
                arrays[f"array{len(arrays)}"] = np.asarray(value)
                return {"array": f"array{len(arrays) - 1}"}
            if value is None or isinstance(value, (bool, int, float, str)):
                return value
            if isinstance(value, (list, tuple)):
                return [packed(entry, what) for entry in value]
            if isinstance(value, dict) and all(isinstance(key, str) for key in value):
                return {"dict": {key: packed(entry, what) for key, entry in value.items()}}
            raise TypeError(
                f"{what}.state_dict() has a {type(value).__name__}; a file holds numbers, texts, arrays, lists and "
                "dictionaries of them"
            )

        state = packed(optimizer.state_dict(), type(optimizer).__name__) if hasattr(optimizer, "state_dict") else None
        header = {
            "format": FORMAT,
            "about": self.about,
            "trained": type(optimizer).__name__,
            "epochs": [asdict(epoch) for epoch in history.epochs[-self._count(history) :]],
            "stopped": stopped,
            "state": state,
            "lr": float(optimizer.lr),
            "callbacks": [
                (type(c).__name__, packed(c.state_dict(), type(c).__name__))
                for c in callbacks
                if hasattr(c, "state_dict")
            ],
        }
        write_npz(self.path, {"header": np.array(json.dumps(header)), **arrays})

    def _count(self, history: History) -> int:
        """How many of the history's epochs are of this run: it may have been given one with others before."""
        return history.epochs[-1].epoch if history.epochs else 0
