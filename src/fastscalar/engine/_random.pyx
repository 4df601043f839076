# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False
"""Random numbers by counter: what each is depends on what it is for, not on what was drawn before it.

The boundary: makes leaves and says to a recording that they were drawn; a replay draws with `random_numbers` itself.
"""

from fastscalar.engine._array cimport TensorArray
from fastscalar._core cimport *

import hashlib
import itertools
import operator
import threading

import numpy as np

from fastscalar.engine._array_ops import to_tensor

cdef extern from "random.h":
    unsigned long long fs_random_key(unsigned long long seed, unsigned long long epoch, unsigned long long site,
                                     unsigned long long scope) noexcept nogil
    void fs_random_numbers(double *out, int n, int kind, double p, unsigned long long key, long long row,
                           unsigned long long first, int antithetic) noexcept nogil


cdef unsigned long long random_key(unsigned long long seed, unsigned long long epoch, unsigned long long site,
                                   unsigned long long scope) noexcept nogil:
    return fs_random_key(seed, epoch, site, scope)


cdef void random_numbers(double *out, int n, int kind, double p, unsigned long long key, long long row,
                         unsigned long long first, bint antithetic) noexcept nogil:
    fs_random_numbers(out, n, kind, p, key, row, first, antithetic)


# --- streams ----------------------------------------------------------------------------------------

def whole(value, what, long long low=0):
    """A number of a stream: 0 <= value < 2**63."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{what}: expected a whole number, got {type(value).__name__}") from None
    if not low <= number < 1 << 63:
        raise ValueError(f"{what}: expected a whole number from {low} to 2**63 - 1, got {number}")
    return number


cdef class Stream:
    """The random numbers of one row: a context in which this thread draws them, from the first each time.

    seed, epoch: which numbers all rows have.  row: of the data set.  antithetic: rows 2k and 2k + 1 have mirrored ones.
    """

    def __init__(self, seed, row=0, *, epoch=0, bint antithetic=False):
        self.seed, self.epoch = whole(seed, "stream: seed"), whole(epoch, "stream: epoch")
        self.row, self.antithetic = whole(row, "stream: row"), antithetic
        self.counts, self.begun, self.scope = {}, {}, 0

    def __enter__(self):
        if self.counts:                          # most functions draw nothing
            self.counts, self.has_drawn = {}, True
        if self.begun:
            self.begun = {}
        self.scope = 0
        streams().append(self)
        return self

    def __exit__(self, kind, error, traceback):
        streams().pop()

    def of_row(self, long long row):
        """This stream, which is that of another row from now on."""
        self.row = row
        return self

    def __repr__(self):
        return (f"stream(seed={self.seed}, row={self.row}, epoch={self.epoch}" +
                (", antithetic=True)" if self.antithetic else ")"))

    @property
    def drawn(self):
        """By call site, how many numbers were drawn."""
        return dict(self.counts)

    @property
    def drew(self):
        """Whether anything was drawn for any of the rows that it was for."""
        return self.has_drawn or bool(self.counts)

    @property
    def drawn_here(self):
        """The same, since a recording began."""
        return {site: n - self.begun.get(site, 0) for site, n in self.counts.items()}

    def rewind(self, counts):
        """As if so many had been drawn, by call site, and no more."""
        self.counts = dict(counts)

    def resumed(self):
        """Another stream that goes on where this one is, as one begins in a recording: what is drawn there does not
        count here."""
        cdef Stream other = Stream.__new__(Stream)
        other.seed, other.epoch, other.row, other.antithetic = self.seed, self.epoch, self.row, self.antithetic
        other.scope, other.counts, other.begun = self.scope, dict(self.counts), dict(self.counts)
        return other

    def skip(self, counts):
        """As if so many had been drawn at these sites."""
        for site, n in counts.items():
            self.take(site, n)

    cdef long long take(self, unsigned long long site, long long n) except -1:
        """The occurrence of the first of n numbers."""
        cdef long long first = self.counts.get(site, 0)
        self.counts[site] = first + n
        return first


class resumed:
    """Context in which a stream goes on: it does not begin at its first numbers."""

    def __init__(self, stream):
        self.stream = stream

    def __enter__(self):
        streams().append(self.stream)
        return self.stream

    def __exit__(self, *exc):
        streams().pop()


cdef object here = threading.local()


cdef list streams():
    """Those that this thread is in, the innermost last."""
    cdef dict state = here.__dict__
    found = state.get("streams")
    if found is None:
        found = state["streams"] = []
    return found


cdef Stream outside = Stream(0)          # outside of any other: goes on and on


cdef Stream current():
    cdef list some = streams()
    return some[len(some) - 1] if some else outside


def current_stream():
    """The one that this thread draws from."""
    return current()


def set_default_seed(value):
    outside.seed, outside.counts = whole(value, "seed"), {}


def default_seed():
    return outside.seed


# --- call sites --------------------------------------------------------------------------------------

cdef dict sites = {}


def site_of(code, int instruction):
    """A number for a place in a code object: the name of the function and where in it, so that it does not depend on
    the machine, nor on what stands above the function.  Equal ones share a count, and so never a number."""
    found = sites.get((code, instruction))
    if found is None:
        line, _, column, _ = next(itertools.islice(code.co_positions(), instruction // 2, None), (None,) * 4)
        place = instruction if column is None else column
        text = f"{code.co_qualname}:{(line or 0) - code.co_firstlineno}:{place}"
        found = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
        if len(sites) >= 10000:
            sites.clear()
        sites[code, instruction] = found
    return found


# --- numbers -----------------------------------------------------------------------------------------

UNIFORM, NORMAL, BERNOULLI = R_UNIFORM_NUMBER, R_NORMAL_NUMBER, R_BERNOULLI_NUMBER


def draw(int kind, double p, shape, frame):
    """Leaves with the next numbers of the site where a frame is: a Tensor, or a TensorArray of a shape."""
    cdef Stream s = current()
    cdef unsigned long long site = site_of(frame.f_code, frame.f_lasti), key
    cdef long long first, n = 1
    cdef double one
    cdef double[::1] view
    cdef Recorder recording = recording_here()
    if shape is not None:
        values = np.empty(shape)
        if values.size == 0:
            raise ValueError(f"fastscalar.random: shape: expected at least one number, got {shape!r}")
        n = values.size
        if n >= 1 << 31:
            raise ValueError(f"fastscalar.random: shape: expected fewer than 2**31 numbers, got {shape!r}")
    first = s.take(site, n)
    key = fs_random_key(s.seed, s.epoch, site, s.scope)
    if shape is None:
        fs_random_numbers(&one, 1, kind, p, key, s.row, first, s.antithetic)
        leaf = Tensor(one)
    else:
        view = values.reshape(-1)
        fs_random_numbers(&view[0], <int>n, kind, p, key, s.row, first, s.antithetic)
        leaf = to_tensor(values)
    if recording is not None:
        node = (<Tensor>leaf).index if type(leaf) is Tensor else tape.array_ops[(<TensorArray>leaf).slot].start
        recording.drawn(node, (kind, n, p, site, s.scope, first - s.begun.get(site, 0)))
    return leaf
