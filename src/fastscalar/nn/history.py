"""What `fit` did, epoch by epoch: to print, to plot, to keep."""

from __future__ import annotations

import html
from dataclasses import asdict, dataclass, field
from typing import Any

from fastscalar._imports import importing


@dataclass
class Epoch:
    """One pass over the training data."""

    epoch: int  # from 1
    loss: float  # mean over its samples, each taken before its step
    accuracy: float | None  # on the validation data, from 0 to 1; None without any, or if it is not what is measured
    seconds: float  # of training; evaluation aside
    samples_per_s: float
    validation_loss: float | None = None  # mean over the validation data, after the epoch; None without any
    validation_metric: float | None = None  # what `evaluate` gives for them
    metric: str | None = None  # which is that: "accuracy" or "r2"


@dataclass(repr=False)
class History:
    """What `fit` did: `epochs`, a list of Epoch; `seconds` of training in all; by epoch `loss`, `validation_loss`,
    `validation_metric`; `stopped`, why it ended early, or None.

    It prints as a table.

    >>> import fastscalar as fs
    >>> fs.History([fs.nn.Epoch(1, 0.5, None, 2.0, 30000.0)])
    epoch      loss   seconds  samples/s
        1    0.5000      2.00     30,000
    """

    epochs: list[Epoch] = field(default_factory=list)
    stopped: str | None = None

    @property
    def seconds(self) -> float:
        return sum(e.seconds for e in self.epochs)

    @property
    def loss(self) -> list[float]:
        return [e.loss for e in self.epochs]

    @property
    def validation_loss(self) -> list[float | None]:
        return [e.validation_loss for e in self.epochs]

    @property
    def validation_metric(self) -> list[float | None]:
        return [e.validation_metric for e in self.epochs]

    def as_dict(self) -> dict[str, Any]:
        """Lists, numbers and strings: what JSON can hold."""
        return asdict(self)

    def _measured(self) -> bool:
        return any(e.validation_loss is not None for e in self.epochs)

    def _table(self) -> list[list[str]]:
        """Its cells, a row of names first."""
        measured = self._measured()
        metric = next((e.metric for e in self.epochs if e.metric is not None), "")
        rows = [["epoch", "loss", *(["validation", metric] if measured else []), "seconds", "samples/s"]]
        for e in self.epochs:
            validation = [_short(e.validation_loss), _metric(e)] if measured else []
            rows.append([f"{e.epoch}", _short(e.loss), *validation, f"{e.seconds:.2f}", f"{e.samples_per_s:,.0f}"])
        return rows

    def __repr__(self) -> str:
        if not self.epochs:
            return "no epoch yet" if self.stopped is None else f"stopped before an epoch was done: {self.stopped}"
        widths = (5, 9, 10, 9, 9, 10) if self._measured() else (5, 9, 9, 10)
        lines = [" ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in self._table()]
        if self.stopped is not None:
            lines.append(f"stopped: {self.stopped}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """What notebooks show: the same table."""
        if not self.epochs:
            return f"<pre>{html.escape(repr(self))}</pre>"
        head, *rows = [[html.escape(cell) for cell in row] for row in self._table()]
        names = "".join(f"<th>{cell}</th>" for cell in head)
        body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
        end = f"<p>stopped: {html.escape(self.stopped)}</p>" if self.stopped is not None else ""
        return f"<table><tr>{names}</tr>{body}</table>{end}"

    def plot(self) -> Any:
        """Losses and metric over the epochs, a matplotlib Figure (`pip install fastscalar[plot]`).

        `history.plot().savefig("run.png")`; a notebook shows it."""
        with importing():
            from fastscalar.nn.pictures import curves

        return curves(self)


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if abs(value) < 1000 else f"{value:.3g}"


def _metric(e: Epoch) -> str:
    if e.validation_metric is None:
        return "-"
    return f"{100 * e.validation_metric:.2f} %" if e.metric == "accuracy" else f"{e.validation_metric:.4f}"
