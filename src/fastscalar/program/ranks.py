"""What several processes have to say to each other while they work on the same rows: the methods of a communicator.

The boundary: knows arrays and texts, nothing of nets.  A communicator is mpi4py's, or anything with `Get_rank`,
`Get_size`, `Allreduce(send, receive)`, which adds up, `Bcast(array, root)` and `Allgatherv(send, (receive, counts))`;
`Allgather(send, receive)` and `Abort(code)` if it has them.

Contract: every rank makes the same calls in the same order.  So an error is never raised where the others would wait:
a rank that has one says so in what is exchanged next, and all raise.
"""

from __future__ import annotations

import hashlib
import json
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastscalar._core import _select_kernels, kernel_sets, tape_info
from fastscalar.program.heartbeat import beating

LINE = 64  # bytes
KERNELS = ("baseline", "avx2", "avx512")
NEEDED = ("Get_rank", "Get_size", "Allreduce", "Bcast", "Allgatherv")


class RankError(RuntimeError):
    """Another rank has failed, or differs; the message says which, on which host, and why."""


class Ranks:
    """All processes of a communicator, from the point of view of one."""

    def __init__(self, comm: Any, what: str = "fit", alike: tuple[type[BaseException], ...] = ()) -> None:
        missing = [name for name in NEEDED if not callable(getattr(comm, name, None))]
        if missing:
            raise TypeError(f"{what}: comm: expected a communicator such as MPI.COMM_WORLD; it lacks {missing[0]}")
        self.comm, self.rank, self.size, self.what = comm, comm.Get_rank(), comm.Get_size(), what
        self.host = socket.gethostname()
        self.alike = {kind.__name__: kind for kind in alike}     # errors that all raise as what they are

    # --- arrays ---

    def sum(self, mine: np.ndarray, out: np.ndarray) -> np.ndarray:
        """The sum over all ranks, in an order that the communicator chooses."""
        if self.size == 1:
            out[...] = mine
        else:
            self.comm.Allreduce(mine, out)
        return out

    def gather(self, mine: np.ndarray) -> list[np.ndarray]:
        """What each rank gives, of any lengths, in their order."""
        if self.size == 1:
            return [mine]
        lengths = np.zeros(self.size, np.int64)
        lengths[self.rank] = len(mine)
        counts = self.sum(lengths, np.empty_like(lengths))
        return self.gather_known(mine, counts.tolist())

    def gather_known(self, mine: np.ndarray, counts: list[int], out: np.ndarray | None = None) -> list[np.ndarray]:
        """The same where all know how many numbers each rank gives; out: where to."""
        if self.size == 1:
            return [mine]
        if out is None:
            out = np.empty(sum(counts), mine.dtype)
        mine = np.ascontiguousarray(mine)
        if counts.count(counts[0]) == self.size and hasattr(self.comm, "Allgather"):
            self.comm.Allgather(mine, out)       # one message of each, where MPICH sends the other in parts of 32 KB
        else:
            self.comm.Allgatherv(mine, (out, counts))
        return np.split(out, np.cumsum(counts[:-1]))

    def from_first(self, array: np.ndarray) -> np.ndarray:
        """Rank 0's array, into this one of the same shape."""
        if self.size > 1:
            self.comm.Bcast(array, 0)
        return array

    # --- texts ---

    def tell(self, message: Any) -> list[Any]:
        """What every rank says, as JSON can hold it."""
        said = self.gather(np.frombuffer(json.dumps(message).encode(), np.uint8))
        return [json.loads(text.tobytes()) for text in said]

    def hear(self, message: Any) -> Any:
        """What rank 0 says."""
        return self.tell(message if self.rank == 0 else None)[0]

    # --- errors ---

    @contextmanager
    def together(self) -> Iterator[None]:
        """A part in which a rank may fail alone: all learn of it at its end, and raise.  Nothing is exchanged in it."""
        error: BaseException | None = None
        try:
            yield
        except BaseException as found:
            error = found
        self.settle(error)

    def settle(self, error: BaseException | None, reason: BaseException | None = None) -> None:
        """Every rank says whether it has failed; if one has, all raise: it its own error, the others a RankError.

        reason: what the others are told, if that is not the error itself."""
        if self.size == 1:
            if error is not None:
                raise error
            return
        reason = reason or error
        said = self.tell(None if reason is None else [self.host, type(reason).__name__, _with_notes(reason)])
        if error is not None:
            error.told = True                    # type: ignore[attr-defined]
            raise error
        for rank, found in enumerate(said):
            if found is None:
                continue
            host, kind, message = found
            if kind in self.alike:
                same = self.alike[kind](message)
                same.told = True                 # type: ignore[attr-defined]
                raise same
            raise self.error(f"rank {rank} of {self.size} on {host} failed: {kind}: {message}".rstrip(": "))

    def error(self, message: str) -> RankError:
        """An error that every rank raises by itself."""
        error = RankError(f"{self.what}: {message}")
        error.told = True                        # type: ignore[attr-defined]
        return error

    def agree(self, **facts: Any) -> None:
        """RankError on all ranks unless they all have the same facts; the message names the first that differs."""
        said = self.tell({"host": self.host, **facts})
        for name in facts:
            for rank, other in enumerate(said):
                if other[name] != said[0][name]:
                    raise self.error(
                        f"comm: rank {rank} on {other['host']} differs from rank 0 in {name.replace('_', ' ')}: "
                        f"{other[name]} and {said[0][name]}"
                    )

    @contextmanager
    def ending_together(self) -> Iterator[None]:
        """Whatever leaves this otherwise than as an error that all know of ends all: the others would wait for ever.
        So does a rank that does not answer any more."""
        try:
            with beating(self):
                yield
        except BaseException as error:
            if self.size > 1 and not known_to_all(error) and hasattr(self.comm, "Abort"):
                where = f"{self.what}: rank {self.rank} of {self.size} on {self.host}"
                print(f"{where}: {type(error).__name__}: {error}".rstrip(": "), file=sys.stderr, flush=True)
                self.comm.Abort(1)
            raise


def _with_notes(error: BaseException) -> str:
    """What it says, in one line, and what was noted on it: the row, for one."""
    return "; ".join([str(error), *getattr(error, "__notes__", ())])


def known_to_all(error: BaseException | None) -> bool:
    """Whether all ranks know of it, or of the error whose handling led to it."""
    while error is not None:
        if getattr(error, "told", False):
            return True
        error = error.__context__
    return False


# --- sums in one order for any number of ranks -----------------------------------------------------------


def blocks_of(count: int, rank: int, size: int) -> tuple[int, int]:
    """The blocks that a rank computes, of so many: from, to."""
    return count * rank // size, count * (rank + 1) // size


def whole_nodes(first: int, stop: int) -> list[tuple[int, int]]:
    """The largest nodes of a binary tree over blocks that lie inside [first, stop): (first block, width)."""
    nodes = []
    while first < stop:
        width = first & -first if first else 1 << (stop - first).bit_length()
        while first + width > stop:
            width //= 2
        nodes.append((first, width))
        first += width
    return nodes


def aligned(size: int, dtype: np.dtype) -> np.ndarray:
    """Zeros that begin where a line of the cache does, as kernels like them."""
    whole = np.zeros(size * dtype.itemsize + LINE, np.uint8)
    first = -whole.ctypes.data % LINE
    return whole[first : first + size * dtype.itemsize].view(dtype)


class Tree:
    """Sums over blocks in the order of a binary tree: the same bits, whoever computed which of them."""

    def __init__(self, size: int, dtype: Any) -> None:
        self.size, self.dtype = size, np.dtype(dtype)
        self._own: dict[int, np.ndarray] = {}
        self._spare: list[np.ndarray] = []
        self._received = np.empty(0, dtype)

    def take(self) -> np.ndarray:
        """Numbers of any values."""
        if not self._spare:
            made = aligned(self.size, self.dtype)
            self._own[id(made)] = made
            return made
        return self._spare.pop()

    def give(self, array: np.ndarray) -> None:
        """What was taken may be taken again.  What came from other ranks is a part of what they sent."""
        if id(array) in self._own:
            self._spare.append(array)

    def node(
        self, first: int, width: int, count: int, known: Callable[[int, int], np.ndarray | None]
    ) -> np.ndarray:
        """The sum over blocks [first, first + width), of `count` in all.

        known: the numbers of a node in an array that this may add to; None: they are those of its halves, added."""
        if (found := known(first, width)) is not None:
            return found
        half = width // 2
        left = self.node(first, half, count, known)
        if first + half < count:
            right = self.node(first + half, half, count, known)
            left += right
            self.give(right)
        return left

    def own_nodes(self, ranks: Ranks, count: int, block: Callable[[int], np.ndarray]) -> list[np.ndarray]:
        """The sums over the nodes that a rank has of so many blocks; block: the numbers of one, from `take`."""
        nodes = whole_nodes(*blocks_of(count, ranks.rank, ranks.size))
        return [self.node(*node, count, lambda first, width: block(first) if width == 1 else None) for node in nodes]

    def over_ranks(self, ranks: Ranks, count: int, found: list[np.ndarray]) -> np.ndarray:
        """The sum over all blocks, from what each rank has found of its nodes, whose arrays go back to this tree.

        It holds until the next sum."""
        by_rank = [whole_nodes(*blocks_of(count, r, ranks.size)) for r in range(ranks.size)]
        if ranks.size > 1:
            mine = found[0] if len(found) == 1 else np.concatenate(found) if found else np.empty(0, self.dtype)
            counts = [self.size * len(some) for some in by_rank]
            if len(self._received) != sum(counts):
                self._received = aligned(sum(counts), self.dtype)
            parts = ranks.gather_known(mine, counts, self._received)
            for array in found:
                self.give(array)
            found = [array for part in parts for array in part.reshape(-1, self.size)]
        every = dict(zip((node for some in by_rank for node in some), found, strict=True))
        return self.node(0, 1 << max(0, count - 1).bit_length(), count, lambda *node: every.get(node))


# --- one set of kernels, the same data ---------------------------------------------------------------


def lowest_kernels(ranks: Ranks) -> str:
    """Use the best kernels that all ranks have, and return the name of those that were in use here."""
    before = str(tape_info()["kernels"])
    everybody = ranks.tell([before, *kernel_sets()])
    lowest = min((used[0] for used in everybody), key=KERNELS.index)
    if all(lowest in sets for sets in everybody):
        _select_kernels(lowest)
    return before


def checksum(array: np.ndarray) -> str:
    """Of float64, for whether ranks have the same: any number that differs, or stands elsewhere, makes it another."""
    words = np.ascontiguousarray(array, dtype=np.float64).reshape(-1).view(np.uint64)
    return f"{len(words)} {int(np.dot(words, np.arange(1, 2 * len(words), 2, dtype=np.uint64))):x}"


def digest(*arrays: Any) -> str:
    found = hashlib.blake2b(digest_size=8)
    for array in arrays:
        array = np.ascontiguousarray(array)
        found.update(f"{array.dtype.str}{array.shape}".encode())
        found.update(array.data.cast("B") if array.size else b"")
    return found.hexdigest()
