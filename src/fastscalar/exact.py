"""Programs in the order of the eager engine: bit for bit its values, gradients and weights.

The recorded graph of a version stays on the tape (`_exact`) and is computed again for every row, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastscalar._array import flatten_parameters, sgd_step
from fastscalar._core import Tensor
from fastscalar._exact import exact_graph
from fastscalar._program import Recording
from fastscalar.optim import SGD
from fastscalar.programs import Program, Rows, Version, _Failure, _kept_gradients, _named, reset_leaves
from fastscalar.trainers import REPORT_EVERY, EagerProgramTrainer, Schedule


class ExactProgram(Program):
    """`fastscalar.compile(f, exact=True)`: slower than the default, and with the bits of the eager engine.

    Functions with blocks of `no_grad` are not replayed but called, row by row.
    """

    exact = True

    def report(self) -> str:
        versions = sum(len(site.versions) for site in self._sites.values())
        return f"{self.__name__}: in the order of the program, {versions} recorded"

    def _graph(self, recording: Recording, result: Tensor) -> Any:
        return exact_graph(recording, result)

    def _record(self, site: Any, rows: Rows, i: int) -> tuple[Version | None, float]:
        version, value = super()._record(site, rows, i)
        if version is not None and version.stopped:
            site.versions.clear()
            site.eager = True
            return None, value
        return version, value

    def repeats(self, rows: Rows) -> bool:
        """The graphs of the default program are asked: these here are on the tape."""
        other = Program(self.function)
        other._record(other._site(rows.signature), rows, 0)
        return other.repeats(rows)

    def _value(self, rows: Rows, columns: list[Any], i: int) -> tuple[Version | None, float, Any]:
        """The version that fits a row, and its value there; else what the function itself gives."""
        site = self._site(rows.signature)
        row = [column[i] for column in columns]
        for version in site.versions:
            try:
                with version.graph as graph:
                    value = graph.value(row)
            except (ArithmeticError, ValueError):
                break                            # the function itself says which, and whether it comes that far
            if value is not None:
                return version, value, None
        else:
            if not site.eager:
                made, value = self._record(site, rows, i)
                if made is not None:
                    return made, value, None
        loss, arguments = self._eager(rows, i)
        return None, loss.item(), (loss, arguments)

    def _classify(
        self, rows: Rows, threads: int, chosen: np.ndarray | None = None, wide: bool = True
    ) -> tuple[np.ndarray, list[tuple[Version | None, np.ndarray]]]:
        values = np.empty(rows.n)
        columns = columns_of(rows)
        for i in range(rows.n) if chosen is None else np.sort(chosen).tolist():
            values[i] = self._value(rows, columns, i)[1]
        return values, []

    def _gradients(
        self,
        rows: Rows,
        threads: int,
        gradients: dict[int, np.ndarray] | None,
        accumulate: bool = False,
        chosen: np.ndarray | None = None,
        wide: bool = True,
        reset: Callable[[], None] | None = None,
    ) -> np.ndarray:
        values = self._classify(rows, threads, chosen)[0]            # whatever raises does it before anything changes
        if gradients is not None:
            with _kept_gradients(self.parameters):
                self._collect_rows(rows, gradients)
            return values
        if reset is not None:
            reset()
        elif not accumulate:
            sgd_step(self.parameters, 0.0, step=False)
        columns = columns_of(rows)
        indices = range(rows.n) if chosen is None else chosen.tolist()
        if not accumulate and reset is None and self._site(rows.signature).eager:
            for i in indices:                    # their leaves are not known before they ran
                reset_leaves(self._eager(rows, i)[0])
        for i in indices:
            version, _, eager = self._value(rows, columns, i)
            if version is None:
                eager[0].backward(accumulate=True)
            else:
                with version.graph as graph:
                    graph.backward(True)
        return values

    def _collect_rows(self, rows: Rows, gradients: dict[int, np.ndarray]) -> None:
        columns = columns_of(rows)
        for i in range(rows.n):
            version, _, eager = self._value(rows, columns, i)
            if version is None:
                loss, arguments = eager
                loss.backward()
            else:
                with version.graph as graph:
                    sgd_step([h for kind, h in graph.inputs if kind != "whole"], 0.0, step=False)
                    graph.backward(False)
                    arguments = arguments_of(rows, graph.inputs)
            for k, gradient in gradients.items():
                if rows.kinds[k] == ("shared",):
                    gradient += arguments[k].grad
                else:
                    gradient[i] = np.reshape(np.asarray(arguments[k].grad), gradient[i].shape)


def columns_of(rows: Rows) -> list[Any]:
    """By input, what it is for each row: arrays of one dimension, floats, ints."""
    columns: list[Any] = []
    for kind, data in zip(rows.kinds, rows.data, strict=True):
        if kind[0] == "array":
            columns.append(data.reshape(rows.n, -1))
        elif data.ndim == 0:
            columns.append([data.item()] * rows.n)
        else:
            columns += data.reshape(rows.n, -1).T.tolist()
    return columns


def arguments_of(rows: Rows, inputs: list[Any]) -> list[Any]:
    """By argument its handle in a recording; None for whole numbers."""
    handles, at = [], 0
    for kind in rows.kinds:
        handles.append(inputs[at][1] if kind[0] in ("array", "number", "shared") else None)
        at += int(np.prod(kind[1])) if kind[0] == "wholes" else 1
    return handles


class ExactTrainer:
    """SGD sample by sample by replays on the tape; whatever else is asked for, row by row in Python."""

    def __init__(
        self, program: ExactProgram, X: np.ndarray, y: np.ndarray, batch_size: int, schedule: Schedule
    ) -> None:
        self.program, self.schedule, self.batch_size = program, schedule, batch_size
        self.rows = Rows((X, y), "fit")
        self.columns = columns_of(self.rows)
        self.site = program._site(self.rows.signature)
        optimizer = schedule.optimizer
        try:
            if not self.site.versions and not self.site.eager:
                program._record(self.site, self.rows, 0)
        except _Failure as failure:
            raise _named(failure.row, failure.error) from failure.error
        self.own = optimizer.parameters is None  # then all that the program reads is trained
        self.known = -1
        self.before: list[Any] = []
        self._bind()
        if self.parameters:
            optimizer.zero_grad()
        self.by_rows = EagerProgramTrainer(program, self.rows, batch_size, schedule, self._bind)

    def _bind(self) -> None:
        """What is trained; a new version, or a row that ran eagerly, may read more."""
        optimizer = self.schedule.optimizer
        known = len(self.site.versions) + len(self.program._eager_leaves)
        if self.own and known > self.known and (found := self.program.parameters):
            optimizer.bind(found)
        self.known = known
        self.parameters = flatten_parameters(optimizer.parameters or [], [])
        self.before += [p.data if isinstance(p, Tensor) else p.numpy() for p in self.parameters[len(self.before) :]]

    def epoch(self, order: np.ndarray, bar: Any) -> float:
        self.before = []
        self._bind()
        self.program._wants_leaves = self.own
        try:
            if self.batch_size > 1 or type(self.schedule.optimizer) is not SGD or not self.site.versions:
                return self.by_rows.epoch(order, bar)
            return self._by_replays(np.ascontiguousarray(order, dtype=np.int64), bar)
        except BaseException:
            for p, value in zip(self.parameters, self.before, strict=False):
                p.data = value
                p.grad = 0.0
            raise
        finally:
            self.program._wants_leaves = False

    def _by_replays(self, order: np.ndarray, bar: Any) -> float:
        at, total, schedule, optimizer = 0, 0.0, self.schedule, self.schedule.optimizer
        while at < len(order):
            with self.site.versions[0].graph as graph:
                done, losses = graph.train(
                    self.columns, order[at : at + REPORT_EVERY], self.parameters, schedule.first_rate, schedule.falls,
                    schedule.done, schedule.total,
                )  # fmt: skip
            at += done
            schedule.done += done
            total += losses
            bar.update(done)
            if done < REPORT_EVERY and at < len(order):
                total += self._one(int(order[at]))
                optimizer.lr = schedule.first_rate
                at += 1
                bar.update(1)
        return total / len(order)

    def _one(self, i: int) -> float:
        """A sample that the first version does not fit."""
        try:
            version, value, eager = self.program._value(self.rows, self.columns, i)
        except _Failure as failure:
            raise _named(failure.row, failure.error) from failure.error
        if value - value != 0.0:
            raise self.schedule.bad_loss(value)
        if version is None:
            eager[0].backward()
        else:
            with version.graph as graph:
                graph.backward(False)
        self._bind()
        optimizer = self.schedule.optimizer
        optimizer.lr = self.schedule.rate()
        optimizer.step()
        optimizer.zero_grad()
        self.schedule.done += 1
        return value

