"""Pictures.  They need matplotlib, which is imported when a picture is asked for; each function returns a Figure."""

from __future__ import annotations

import io
import math
from typing import Any

from fastscalar._imports import importing


def new_figure(**layout: Any) -> Any:
    """A Figure that a notebook shows without pyplot: nothing is kept open, no backend is chosen."""
    try:
        with importing():
            from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install 'fastscalar[plot]'") from None

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format="png", dpi=100)
            return file.getvalue()

    return Picture(**layout)


def curves(history: Any) -> Any:
    """The `history` of a fit: losses by epoch on the left, the metric of the validation data on the right."""
    figure = new_figure(figsize=(7.0, 3.2), layout="constrained")
    epochs = [e.epoch for e in history.epochs]
    measured = [e for e in history.epochs if e.validation_loss is not None]
    axes: Any = figure.subplots(1, 2 if measured else 1, squeeze=False)[0]
    axes[0].plot(epochs, history.loss, marker=".", label="training")
    axes[0].set(xlabel="epoch", ylabel="loss")
    if measured:
        at, losses = [e.epoch for e in measured], [e.validation_loss for e in measured]
        if any(loss is not None and math.isfinite(loss) for loss in losses):
            axes[0].plot(at, losses, marker=".", label="validation")
        axes[1].plot(at, [e.validation_metric for e in measured], marker=".", color="tab:green")
        axes[1].set(xlabel="epoch", ylabel=measured[0].metric)
    axes[0].legend()
    for axis in axes:
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    return figure
