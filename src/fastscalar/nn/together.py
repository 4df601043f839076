"""`fit` on several processes: what they agree on before, between and after epochs.

Rank 0 looks on for all: its callbacks are called, its net validated, its progress shown, its files written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from fastscalar._core import _select_kernels
from fastscalar._settings import whole_number
from fastscalar.engine._rules import values_of
from fastscalar.nn.callbacks import StopTraining
from fastscalar.nn.checkpoints import Checkpoint
from fastscalar.nn.course import generator_of
from fastscalar.nn.distributed import (
    DistributedTrainer,
    LocalTrainer,
    Shares,
    same_net,
    share_net,
)  # fmt: skip
from fastscalar.nn.history import Epoch, History
from fastscalar.nn.module import in_mode, modules_of
from fastscalar.nn.progress import Watch
from fastscalar.program.ranks import Ranks, checksum, digest, lowest_kernels
from fastscalar.program.threads import thread_count
from fastscalar.version import __version__


def fit_together(
    comm: Any,
    net: Any,
    X: Any,
    y: Any,
    prepare: Callable[..., Any],
    wishes: dict[str, Any],
    *,
    shard: str | None,
    deterministic: bool,
    local_steps: int | None,
    shuffle: bool,
    seed: int | None,
    progress: bool,
    saved: Checkpoint | None,
    augment: Callable[[np.ndarray, int], np.ndarray] | None,
) -> History:
    """`fit` on all ranks.  prepare: makes a Run of one rank's net and samples."""
    ranks = Ranks(comm, "fit", (StopTraining, FloatingPointError))
    with ranks.ending_together():
        ranks.agree(version=__version__)
        hosts = ranks.tell(ranks.host)
        with ranks.together():
            if shard not in (None, "local"):
                raise ValueError(f'fit: shard: expected "local", or None where all have all samples, got {shard!r}')
            if local_steps is not None:
                local_steps = whole_number("fit: local_steps", local_steps, or_else=", or None")
                batch_size = whole_number("fit: batch_size", wishes["batch_size"])
                wishes = {**wishes, "batch_size": -(-batch_size // ranks.size)}
            if ranks.rank:                       # rank 0 looks on for all
                wishes = {**wishes, "callbacks": None, "on_epoch": None, "validation_data": None}
        lengths = None
        if shard is not None:
            X, y, lengths = _own_rows(ranks, X, y)
        done = _done(ranks, saved, lengths)
        with ranks.together():
            threads = thread_count(wishes["threads"], "fit: threads", hosts.count(ranks.host))
            wishes = {**wishes, "threads": threads}
            if done:
                wishes["first_epoch"] = min(done + 1, whole_number("fit: epochs", wishes["epochs"]))
            made = prepare(net, X, y, **wishes)
            course, optimizer = made.course, made.course.optimizer
            if course.doubt is not None or optimizer.parameters is None:
                raise ValueError("fit: comm: give the optimiser its parameters, as in SGD(net.parameters(), lr=0.02)")
        course = made.course
        _agree(ranks, X, y, wishes, lengths, shuffle=shuffle, seed=seed, deterministic=deterministic, local=local_steps)
        share_net(ranks, course)
        kernels = lowest_kernels(ranks)
        try:
            trainer: DistributedTrainer | LocalTrainer
            if local_steps is not None:
                trainer = LocalTrainer(made.trainer, ranks, course, local_steps, lengths)
            else:
                shares = Shares(ranks, course.samples, course.batch_size, deterministic, lengths)
                course.spread_over(shares.samples)
                trainer = DistributedTrainer(made.trainer, ranks, shares, course, wishes["dtype"])
            course.streams.row_offset = 0 if lengths is None else sum(lengths[:ranks.rank])
            if _epochs(ranks, made, trainer, lengths, shuffle, seed, progress, saved, augment):
                return made.history
        except StopTraining as enough:
            made.history.stopped = str(enough) or "a callback had enough"
        except BaseException as error:
            made.history.stopped = f"{type(error).__name__}: {error}".rstrip(": ")
            error.history = made.history         # type: ignore[attr-defined]
            made.looking.end(made.history)
            raise
        finally:
            _select_kernels(kernels)
        on_first(ranks, lambda: made.looking.end(made.history))
        if saved is not None:                    # EarlyStopping has put the best weights back
            stopped = made.history.stopped
            on_first(ranks, lambda: saved.write(course.optimizer, made.looking.all, made.history, stopped))
        share_net(ranks, course)                 # as a callback may have left it
        return made.history


def _own_rows(ranks: Ranks, X: Any, y: Any) -> tuple[Any, Any, list[int]]:
    """Samples of a rank, at least one to record with, and how many each rank has."""
    with ranks.together():
        X, y = np.asarray(X), np.asarray(y)
        if X.shape[:1] != y.shape[:1] or not X.ndim:
            raise ValueError(f"fit: X of shape {X.shape} and y of shape {y.shape}: expected as many rows in both")
    lengths = [int(n) for n in ranks.tell(len(X))]
    row = [X[:1].tolist(), X.dtype.str, y[:1].tolist(), y.dtype.str] if len(X) else None
    first = next((said for said in ranks.tell(row) if said is not None), None)
    if first is None:
        raise ranks.error("X is empty on all ranks")
    if not len(X):
        X, y = np.array(first[0], first[1]), np.array(first[2], first[3])
    return X, y, lengths


def _done(ranks: Ranks, saved: Checkpoint | None, lengths: list[int] | None) -> int:
    """Epochs that are in the file, which rank 0 alone has."""
    with ranks.together():
        if saved is not None and ranks.rank == 0:
            if lengths is not None:
                saved.about["samples"] = sum(lengths)
            saved.read()
    return int(ranks.hear(0 if saved is None else saved.done))


def _restored(ranks: Ranks, made: Any, saved: Checkpoint) -> bool:
    """All are as rank 0's file says; whether its run has ended."""
    course, history = made.course, made.history

    def restore() -> list[Any]:
        before = len(history.epochs)
        saved.restore(course.optimizer, made.looking.all, history)
        return [saved.over, history.stopped, [asdict(epoch) for epoch in history.epochs[before:]]]

    over, history.stopped, rows = on_first(ranks, restore)
    if ranks.rank:
        history.epochs += [Epoch(**row) for row in rows]
    share_net(ranks, course)
    return bool(over)


def _agree(ranks: Ranks, X: Any, y: Any, wishes: dict[str, Any], lengths: list[int] | None, **more: Any) -> None:
    """A rank with other data, or another net, is told before anything is trained."""
    names = ("epochs", "first_epoch", "batch_size", "dtype", "compile")
    facts: dict[str, Any] = {name: str(wishes[name]) for name in names} | more
    if lengths is None:
        facts |= {"X": digest(X), "y": digest(y), "sample_weight": str(wishes["sample_weight"] is None)}
    ranks.agree(shard="local" if lengths is not None else "all", **facts)


def on_first(ranks: Ranks, action: Callable[[], Any]) -> Any:
    """What rank 0 alone does; all know how it ended and what came out."""
    error, found = None, None
    if ranks.rank == 0:
        try:
            found = action()
        except BaseException as raised:
            error = raised
    ranks.settle(error)
    return ranks.hear(found)


def _epochs(
    ranks: Ranks,
    made: Any,
    trainer: DistributedTrainer | LocalTrainer,
    lengths: list[int] | None,
    shuffle: bool,
    seed: int | None,
    progress: bool,
    saved: Checkpoint | None,
    augment: Callable[[np.ndarray, int], np.ndarray] | None,
) -> bool:
    """The epochs that are left; True: none, since the file is of a run that has ended."""
    course, history, looking = made.course, made.history, made.looking
    X = course.data["X"]
    mine = trainer.samples if lengths is None else lengths[ranks.rank]
    n = trainer.samples
    if seed is None:
        seed = ranks.hear(int(np.random.SeedSequence().generate_state(1)[0]))
        course.streams.seed = seed
    generator = generator_of(seed if lengths is None else [seed, ranks.rank])
    modules = modules_of(made.net)
    on_first(ranks, lambda: looking.begin(course))
    if saved is not None and _restored(ranks, made, saved):
        return True
    for number in range(1, course.epochs + 1):
        order = generator.permutation(mine) if shuffle else np.arange(mine)
        if number < course.begun // course.samples + 1:
            continue
        course.optimizer.lr = ranks.hear(course.optimizer.lr)    # a callback may have set it
        course.begin_epoch(number)
        if augment is not None:
            with ranks.together():
                course.data["X"] = augment(X, number)
                made.trainer.replace(course.data["X"])
        start = time.perf_counter()
        watch = Watch(number, course.epochs, course.samples, progress and ranks.rank == 0, looking.watching)
        with watch, in_mode(modules, training=True):
            mean = trainer.epoch(order, watch)
        same = same_net(ranks, course)
        seconds = time.perf_counter() - start

        def looked(number: int = number, mean: float = mean, seconds: float = seconds) -> list[Any]:
            found = None if made.validation is None else made.validation()
            accuracy = float(found) if found is not None and found.metric == "accuracy" else None
            seen = (None, None, None) if found is None else (found.loss, float(found), found.metric)
            return [number, mean, accuracy, seconds, n / seconds, *seen]

        history.epochs.append(Epoch(*on_first(ranks, looked)))

        def told() -> None:
            looking.epoch(history.epochs[-1])
            if saved is not None:
                saved.write(course.optimizer, looking.all, history)

        on_first(ranks, told)
        changed = ranks.rank == 0 and bool(looking.all) and same != checksum(values_of(course.optimizer._distinct))
        if ranks.hear(changed):                  # by a callback
            share_net(ranks, course)
    return False
