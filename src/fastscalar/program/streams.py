"""What the rows of a call draw at random: a stream for each.

The boundary: knows streams and the numbers of rows; the rows' data it does not know.
"""

from __future__ import annotations

from typing import Any

from fastscalar.engine._random import Stream, current_stream, default_seed, resumed, whole

DRAWING = ("seed", "row_offset", "epoch", "antithetic")  # keywords of the methods of programs, not of their functions


class Streams:
    """The streams of the rows of a data set, by seed, epoch and number of the row."""

    goes_on = False  # behind the rows

    def __init__(
        self, seed: Any = None, row_offset: Any = 0, epoch: Any = 0, antithetic: bool = False, *, what: str = ""
    ) -> None:
        self.seed = default_seed() if seed is None else whole(seed, f"{what}: seed")
        self.row_offset = whole(row_offset, f"{what}: row_offset")
        self.epoch, self.antithetic = whole(epoch, f"{what}: epoch"), bool(antithetic)
        self._one: Stream | None = None  # for the calls of the function, one row after the other

    def of(self, i: int) -> Stream:
        """That of row i, before anything was drawn."""
        return Stream(self.seed, self.row_offset + i, epoch=self.epoch, antithetic=self.antithetic)

    def called(self, i: int) -> Any:
        """Context in which a function is called with row i; it is over when the next one is asked for."""
        one = self._one
        if one is None or one.epoch != self.epoch or one.seed != self.seed:      # of another epoch of fit
            self._one = one = self.of(i)
        return one.of_row(self.row_offset + i)

    @property
    def drew(self) -> bool:
        """Whether calls of the function have drawn anything in this epoch."""
        return self._one is not None and self._one.drew

    def recorded(self, i: int) -> Any:
        """Context in which a call with row i is recorded."""
        return self.of(i)

    def shifted(self, i: int) -> Streams:
        """Those of the rows from i on."""
        return Streams(self.seed, self.row_offset + i, self.epoch, self.antithetic)

    def replayed(self, graph: Any) -> None:
        """Rows were replayed by this recording."""

    def begin(self, replay: Any) -> None:
        """Tell a replay what its rows draw."""
        replay.draw(self.seed, self.epoch, self.row_offset, self.antithetic, {})


class Here(Streams):
    """A single call draws on in the stream that it stands in, as its function would."""

    goes_on = True

    def __init__(self, stream: Stream | None = None) -> None:
        self.stream = current_stream() if stream is None else stream
        self.seed, self.row_offset, self.epoch = self.stream.seed, self.stream.row, self.stream.epoch
        self.antithetic = self.stream.antithetic

    def called(self, i: int) -> Any:
        return resumed(self.stream)

    def recorded(self, i: int) -> Any:
        return resumed(self.stream.resumed())

    def shifted(self, i: int) -> Here:
        return Here(self.stream.resumed())

    def begin(self, replay: Any) -> None:
        replay.draw(self.seed, self.epoch, self.row_offset, self.antithetic, self.stream.drawn)

    def replayed(self, graph: Any) -> None:
        """This was the call: the next one draws what comes then."""
        counts: dict[int, int] = {}
        for _, count, _, site, _, first in graph.draws:
            counts[site] = max(counts.get(site, 0), first + count)
        self.stream.skip(counts)
