"""The file of `fit(checkpoint=)`: a run as it is after its last whole epoch, for the same call to go on from.

An .npz file: `header`, JSON, and arrays.  Nothing in it is executed.  It is written whole or not at all, after every
epoch, and once more when the run has ended in order.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from dataclasses import asdict
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar._settings import shown
from fastscalar.engine._rules import values_of
from fastscalar.files import StrPath, brief, write_npz
from fastscalar.nn.history import Epoch, History
from fastscalar.nn.optimizers import Optimizer

FORMAT = 1


class Checkpoint:
    """The run that a file holds, if it is there, and the way to write it.

    about: what a call has to have in common with it: epochs, samples, batch size, seed.  read: at once."""

    def __init__(self, path: StrPath, about: dict[str, Any], read: bool = True) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"fit: checkpoint: expected the path of a file, got {shown(path)}")
        self.path, self.about = os.fspath(path), about
        self.header: dict[str, Any] | None = None
        self.arrays: dict[str, np.ndarray] = {}
        if read:
            self.read()

    @property
    def done(self) -> int:
        """Epochs that are in it."""
        return 0 if self.header is None else len(self.header["epochs"])

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
            with np.load(self.path, allow_pickle=False) as file:
                self.arrays = {name: file[name] for name in file.files}
            header = json.loads(str(self.arrays.pop("header")[()]))
            rows = [Epoch(**row) for row in header["epochs"]]
            if header["format"] != FORMAT or [row.epoch for row in rows] != list(range(1, len(rows) + 1)):
                raise ValueError("of another format")
            if missing := {"about", "stopped", "callbacks", "state", "trained", "lr"} - set(header):
                raise ValueError(f"without {sorted(missing)[0]}")
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise self._wrong(f"expected what fit writes; found something else ({brief(error)})") from None
        for key, value in self.about.items():
            if header["about"].get(key) != value:
                had = header["about"].get(key)
                raise self._wrong(f"is of a run with {key}={had!r}, not {value!r}; take another file, or delete it")
        self.header = header

    # --- taking over ---

    def restore(self, optimizer: Optimizer, callbacks: list[Any], history: History) -> None:
        """Net, optimiser, callbacks and history as they were."""
        if self.header is None:
            return
        values = self.arrays.get("parameters", np.empty(0))
        distinct = optimizer._distinct
        sizes = [1 if isinstance(p, Tensor) else p.size for p in distinct]
        if values.shape != (sum(sizes),) or type(optimizer).__name__ != self.header["trained"]:
            raise self._wrong(
                f"has {values.size} parameters trained by {self.header['trained']}, this run {sum(sizes)} by "
                f"{type(optimizer).__name__}"
            )
        kinds = [type(c).__name__ for c in callbacks if hasattr(c, "state_dict")]
        if kinds != [name for name, _ in self.header["callbacks"]]:
            had = ", ".join(name for name, _ in self.header["callbacks"]) or "none"
            raise self._wrong(f"has the state of other callbacks: {had}; this run has {', '.join(kinds) or 'none'}")
        at = 0
        for p, size in zip(distinct, sizes, strict=True):
            p.data = values[at] if isinstance(p, Tensor) else values[at : at + size].reshape(p.shape)
            at += size
        if hasattr(optimizer, "load_state_dict"):
            optimizer.load_state_dict(self._unpacked(self.header["state"]))
        optimizer.lr = self.header["lr"]
        rows = [Epoch(**row) for row in self.header["epochs"]]
        if history.epochs[-len(rows) :] != rows:     # it may be the history of the call that was interrupted
            history.epochs += rows
        history.stopped = self.header["stopped"]
        kept = (c for c in callbacks if hasattr(c, "state_dict"))
        for callback, (_, state) in zip(kept, self.header["callbacks"], strict=True):
            callback.load_state_dict(self._unpacked(state))

    def _unpacked(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._unpacked(entry) for entry in value]
        if isinstance(value, dict) and set(value) == {"array"}:
            return self.arrays[value["array"]]
        return {key: self._unpacked(v) for key, v in value["dict"].items()} if isinstance(value, dict) else value

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
