"""One call of a program's method whose rows several processes share: `comm=`.

All call alike.  Rows are cut into blocks that depend on the program and the rows and on nothing else, each rank
computes the blocks of a stretch, as rows of their own, and sums are those of a tree over blocks: so any number of
ranks gives the same bits.

The boundary: knows programs by what computes rows, and nothing of what a user is given.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ParamSpec, TypeVar

import numpy as np

from fastscalar._core import Tensor, _select_kernels
from fastscalar.engine._step import storage_of
from fastscalar.program import _data
from fastscalar.program.portions import BATCH
from fastscalar.program.ranks import Ranks, Tree, blocks_of, digest, known_to_all, lowest_kernels
from fastscalar.program.recorded import RowFailure, naming_row
from fastscalar.program.rows import Rows
from fastscalar.transforms.sparsity import PatternGrew
from fastscalar.version import __version__

WORK = 4_000_000  # operations of a block: some milliseconds,
ROWS = (64, 65536)  # but at least so many rows, whose gradients are added up, and at most
SAMPLED = 1 << 17  # numbers of an array that are compared among ranks one by one

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def shared_by_ranks(method: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A method of a program that takes `comm=` and `gather=` as well."""

    @functools.wraps(method)
    def called(*arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        if "comm" in named and asks_for_ranks(arguments[0], named):
            return on_all_ranks(method, *arguments, **named)     # type: ignore[arg-type]
        return method(*arguments, **named)

    return called


def asks_for_ranks(program: Any, named: dict[str, Any]) -> bool:
    """Whether there is a communicator that is not the function's own argument, and not seen to yet."""
    return "comm" in named and not isinstance(named["comm"], Sharing) and "comm" not in program._places()


def on_all_ranks(method: Callable[..., Any], *arguments: Any, comm: Any, gather: bool = True, **named: Any) -> Any:
    """What a program's method gives with the rows shared among the ranks of a communicator."""
    if comm is None:
        return method(*arguments, **named)
    program = arguments[0]
    ranks = Ranks(comm, f"{program.__name__}.{method.__name__}", (PatternGrew,))
    with ranks.ending_together():
        sharing = Sharing(ranks, bool(gather))
        before = lowest_kernels(ranks)
        try:
            return method(*arguments, comm=sharing, **named)
        except BaseException as error:
            if not known_to_all(error) and not sharing.begun:
                ranks.settle(error)              # where the others say that they have none
            raise
        finally:
            _select_kernels(before)


class Sharing:
    """What computes the part of one rank, in the place of what computes all rows."""

    def __init__(self, ranks: Ranks, gather: bool) -> None:
        self.ranks, self.gather = ranks, gather
        self.begun = False

    # --- the rows of a rank ---

    def _begin(self, program: Any, rows: Rows, **facts: Any) -> None:
        """The first row is recorded on all ranks, if anything is to be recorded; then they look whether they agree."""
        ranks = self.ranks
        rows.sharing = None
        self.begun = True
        with ranks.together():
            cache = program._prepared(rows, None)
            known = cache.all()
            operations = known[0].graph.operations if known else WORK
            leaves = self._leaves_of_row(program, rows, 0)
            mine = {
                "version": __version__, "rows": rows.n, "arguments": f"{rows.key()}", "gather": self.gather,
                "data": [fingerprint(data) for data in rows.data], "leaves": digest(*map(_values, leaves)), **facts,
            }  # fmt: skip
        ranks.agree(**mine)
        own = min(max(WORK // (operations + 1), ROWS[0]), ROWS[1])
        self.block, rows.streams.seed = ranks.hear([own, int(rows.streams.seed)])
        self.count = -(-rows.n // self.block)
        self.first, self.stop = (
            min(rows.n, b * self.block) for b in blocks_of(self.count, ranks.rank, ranks.size)
        )

    def _blocks(self, rows: Rows) -> Iterator[tuple[Rows, slice]]:
        """The blocks of this rank as rows, and which these are.  A failure names the row of all."""
        for first in range(self.first, self.stop, self.block):
            some = slice(first, min(self.stop, first + self.block))
            yield rows.part(some.start, some.stop), some

    def _settled(self, work: Callable[[], None]) -> None:
        """All ranks know how the part of each has ended."""
        error: BaseException | None = None
        try:
            work()
        except BaseException as found:
            error = found
        reason = error
        if isinstance(error, RowFailure):
            reason = error.error if isinstance(error.error, PatternGrew) else naming_row(error.row, error.error)
        self.ranks.settle(error, reason)

    def _gathered(self, mine: np.ndarray, n: int) -> np.ndarray:
        """What all have of an array with a row for each of n, or what this one has."""
        if not self.gather:
            return mine
        ranks, width = self.ranks, math.prod(mine.shape[1:])
        border = [min(n, blocks_of(self.count, r, ranks.size)[0] * self.block) for r in range(ranks.size + 1)]
        counts = [(stop - first) * width for first, stop in zip(border[:-1], border[1:], strict=True)]
        parts = ranks.gather_known(mine.reshape(-1), counts)
        return np.concatenate(parts).reshape(n, *mine.shape[1:])

    # --- what is computed ---

    def values(self, program: Any, rows: Rows, threads: int, float64: bool) -> np.ndarray:
        self._begin(program, rows, float64=float64)
        values = np.empty((self.stop - self.first, rows.cache.width))

        def work() -> None:
            for part, some in self._blocks(rows):
                with of_rows_from(some.start):
                    values[some.start - self.first : some.stop - self.first] = program._values(part, threads, float64)

        self._settled(work)
        return self._gathered(values, rows.n)

    def gradients(
        self,
        program: Any,
        rows: Rows,
        threads: int,
        gradients: dict[int, np.ndarray] | None,
        accumulate: bool,
        float64: bool,
        seeds: np.ndarray | None,
    ) -> np.ndarray:
        """As `Program._gradients`; of arguments that have rows, those that `values` has."""
        asked = None if gradients is None else sorted(gradients)
        weights = None if seeds is None else fingerprint(seeds)
        self._begin(program, rows, float64=float64, argnums=asked, cotangents=weights, accumulate=accumulate)
        if gradients is None:
            return self._by_leaves(program, rows, threads, accumulate, float64, seeds)
        shared = [k for k in gradients if rows.kinds[k][0] in ("shared", "leaf")]
        of_rows = [k for k in gradients if k not in shared]
        values = np.empty((self.stop - self.first, rows.cache.width))
        summed: list[np.ndarray] = []

        def work() -> None:
            for part, some in self._blocks(rows):
                here = {k: np.zeros(gradients[k].shape) for k in shared}
                given = None if seeds is None else seeds[some]
                wanted = {**here, **{k: gradients[k][some] for k in of_rows}}
                with of_rows_from(some.start):
                    values[some.start - self.first : some.stop - self.first] = program._gradients(
                        part, threads, wanted, float64=float64, seeds=given
                    )
                summed.append(np.concatenate([here[k].ravel() for k in shared]) if shared else np.empty(0))

        self._settled(work)
        for k in of_rows:
            gradients[k] = self._gathered(gradients[k][self.first : self.stop], rows.n)
        if shared:
            _scatter(self._summed(summed), [gradients[k] for k in shared])
        return self._gathered(values, rows.n)

    def _summed(self, blocks: list[np.ndarray]) -> np.ndarray:
        """The sum over all blocks, from those of this rank."""
        sizes = self.ranks.tell(len(blocks[0]) if blocks else 0)
        tree = Tree(max(sizes), float)
        begin = blocks_of(self.count, self.ranks.rank, self.ranks.size)[0]
        return tree.over_ranks(
            self.ranks, self.count, tree.own_nodes(self.ranks, self.count, lambda b: blocks[b - begin])
        )

    # --- gradients by leaves ---

    def _by_leaves(
        self, program: Any, rows: Rows, threads: int, accumulate: bool, float64: bool, seeds: np.ndarray | None
    ) -> np.ndarray:
        values = np.empty((self.stop - self.first, rows.cache.width))
        found: list[dict[int, np.ndarray]] = []  # of each block, by leaf
        held: dict[int, Any] = {}                # all leaves that were read,
        written: dict[int, np.ndarray] = {}      # which of their elements,
        readers: list[int] = []                  # and rows that read them

        def work() -> None:
            for part, some in self._blocks(rows):
                given = None if seeds is None else seeds[some]
                with of_rows_from(some.start), _data.KeptGradients(always=True) as kept:
                    swept = program._swept(part, threads, None, None, float64, given)
                    results, _, eager = program.eager_results(part, swept.eager)
                    leaves = _distinct([*(p for way, _ in swept.ways for p in way.captures), *eager])
                    kept.add(leaves.values())
                    if results:
                        swept.values[swept.eager] = [[t.data for t in one] for one in results]
                    for key, mask in _written(swept.replays, eager, leaves).items():
                        written[key] = written[key] | mask if key in written else mask
                    _fill(leaves.values(), 0.0)
                    program._commit(swept.replays, results, eager, True, None if given is None else given[swept.eager])
                    found.append({key: np.array(p.grad, float).ravel() for key, p in leaves.items()})
                for way, replay in swept.replays:
                    way.give(replay, BATCH)
                values[some.start - self.first : some.stop - self.first] = swept.values
                new = leaves.keys() - held.keys()
                held.update(leaves)
                if new:
                    readers.extend(some.start + i for i in self._readers(program, part, swept, new))

        self._settled(work)
        leaves = self._in_one_order(program, rows, readers)
        if leaves:
            none = {key: np.zeros(np.size(p.grad)) for key, p in leaves.items()}
            total = self._summed([np.concatenate(list({**none, **block}.values())) for block in found])
            mine = np.concatenate([written.get(key, none[key] > 0) for key in leaves])
            masks = self.ranks.gather(mine.view(np.uint8))
            with _data.KeptGradients(always=False) as kept:
                kept.add(leaves.values())
                for p, gradient, mask in zip(
                    leaves.values(), _parts(total, leaves.values()), _parts(np.max(masks, axis=0), leaves.values()),
                    strict=True,
                ):  # fmt: skip
                    before = np.asarray(p.grad)
                    gradient = np.where(mask, gradient + before if accumulate else gradient, before)
                    p.grad = float(gradient) if isinstance(p, Tensor) else gradient
        return self._gathered(values, rows.n)

    def _readers(self, program: Any, part: Rows, swept: Any, wanted: set[int]) -> Iterator[int]:
        """Rows of a block that read these leaves."""
        for way, some in swept.ways:
            if not wanted.isdisjoint(_distinct(way.captures)):
                yield int(some[0])
        for i in swept.eager.tolist():
            if not wanted.isdisjoint(_distinct(program.eager_results(part, np.array([i]))[2])):
                yield i

    def _leaves_of_row(self, program: Any, rows: Rows, i: int) -> list[Any]:
        """Those that a row reads, in an order that is the same on all ranks."""
        part = rows.part(i, i + 1)
        with of_rows_from(i):
            _, found, eager = program._classify(part, 1)
        return program.eager_results(part, eager)[2] if len(eager) else found[0][0].captures

    def _in_one_order(self, program: Any, rows: Rows, readers: list[int]) -> dict[int, Any]:
        """The leaves that any rank has read: every rank looks at rows that have read them."""
        everywhere = sorted({row for said in self.ranks.tell(readers) for row in said})
        leaves: dict[int, Any] = {}

        def look() -> None:
            for row in everywhere:
                leaves.update(_distinct(self._leaves_of_row(program, rows, row)))

        self._settled(look)
        self.ranks.agree(leaves=digest(*map(_values, leaves.values())))
        return leaves

    # --- patterns of sparse Jacobians ---

    def same_pattern(self, program: Any) -> None:
        """Ranks whose rows have different entries compute those of all."""
        function = program.function
        self.ranks.settle(None)
        said = self.ranks.tell([function.pattern, function.shape])
        pattern = sorted({(i, j) for some, _ in said for i, j in some})
        function.shape = max(tuple(shape) for _, shape in said)
        if pattern != function.pattern:
            function.pattern = pattern
            program.reset()
        self.begun = False


class of_rows_from:
    """Context in which a failure of a row of a part becomes one of the row of all."""

    def __init__(self, first: int) -> None:
        self.first = first

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, RowFailure):
            error.row += self.first


def fingerprint(array: np.ndarray) -> str:
    """Of the whole array a sum of its bits, which costs reading it, and of some of its numbers a hash."""
    array = np.ascontiguousarray(array)
    words = array.reshape(-1).view(np.uint64)
    some = words[:: max(1, len(words) // SAMPLED)]
    return f"{array.dtype.str}{array.shape} {int(words.sum(dtype=np.uint64)):x} {digest(some)}"


def _values(leaf: Any) -> np.ndarray:
    return np.asarray(leaf.data, dtype=float)


def _fill(leaves: Iterable[Any], number: float) -> None:
    for p in leaves:
        p.grad = number if isinstance(p, Tensor) else np.full(p.shape, number)


def _written(replays: Iterable[tuple[Any, Any]], eager: list[Any], leaves: dict[int, Any]) -> dict[int, np.ndarray]:
    """Of each leaf, the elements whose gradient a backward would set: those that the rows have read."""
    _fill(leaves.values(), 1.0)
    for _, replay in replays:
        replay.commit_gradients(False, True)
    _fill(eager, 0.0)
    return {key: np.ravel(p.grad) == 0.0 for key, p in leaves.items()}


def _distinct(leaves: Iterable[Any]) -> dict[int, Any]:
    return {storage_of(p): p for p in leaves}


def _parts(numbers: np.ndarray, leaves: Iterable[Any]) -> Iterator[np.ndarray]:
    at = 0
    for p in leaves:
        shape = np.shape(p.grad)
        yield numbers[at : at + math.prod(shape)].reshape(shape)
        at += math.prod(shape)


def _scatter(numbers: np.ndarray, arrays: list[np.ndarray]) -> None:
    at = 0
    for array in arrays:
        array += numbers[at : at + array.size].reshape(array.shape)
        at += array.size
