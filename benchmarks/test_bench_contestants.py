"""The contestants themselves: all compute the same, and their checks can fail.  Nothing is timed."""

from __future__ import annotations

import numpy as np
import pytest

import fastscalar as fs
import nets
from contestants import base
from contestants.entries import Entry
from fastscalar import reference


@pytest.mark.parametrize("work", [nets.LINEAR1, nets.LINEAR10, nets.Workload("small", (784, 6, 5, 10))])
@pytest.mark.parametrize("batch", [1, 3])
def test_everybody_computes_the_same(work: nets.Workload, batch: int) -> None:
    """Seven steps of what this machine has, against the formulas; three layers too."""
    X, y, _ = nets.digits(7 * batch)
    expected = nets.expected_losses(work, X, y, batch, steps=7)
    kinds: list[type[base.Contestant]]
    kinds = [base.Twin, base.Loop, base.NumPy, base.Torch]
    for kind in kinds:
        if kind.missing():
            continue
        losses = kind(work, X, y, batch).run(7)
        np.testing.assert_allclose(losses, expected, rtol=nets.TOLERANCE[kind.dtype], err_msg=kind.name)
    for kind in (base.Compiled, base.Compiled32):
        if not kind.missing():
            losses = kind(work, X, y, batch).first()
            np.testing.assert_allclose(losses, expected[:3], rtol=nets.TOLERANCE[kind.dtype], err_msg=kind.name)


def test_dot_products() -> None:
    for number in (reference.Tensor, fs.Tensor):
        side = base.Products("", number, outputs=3)
        assert side.correct()
        assert side.correct()  # again: gradients start anew
    side.x[0] += 1.0
    assert not side.correct()


def test_an_entry_finds_how_often_to_run() -> None:
    def entry(most: int | None) -> Entry:
        """Of work that says itself how long it took: a sleep takes what a busy machine makes of it."""
        return Entry("", dict, lambda n: 0.001 * n, unit=2, most=most, factor=3)

    free, bounded = entry(None), entry(5)
    free.calibrate(0.02)
    assert free.calls == (1, 20)
    bounded.calibrate(0.02)
    assert bounded.calls == (4, 5)
    bounded.measure()
    assert bounded.median == pytest.approx(0.001 * 3 / 2)
    assert bounded.spread == 0
