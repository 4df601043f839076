# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: nonecheck=False, auto_pickle=False
"""Replays in the order of the eager engine: the recorded graph stays on the tape and is computed again in place.

The boundary: inputs are written into their leaves, every reached node is computed again with the functions that made
it, and the backward pass is the engine's own.  So the bits are the eager ones, by construction; what is saved is Python
and the making of nodes.  Everything here holds the GIL.
"""

from cpython.mem cimport PyMem_RawFree
from libc.string cimport memcmp

from fastscalar._array cimport *
from fastscalar._core cimport *
from fastscalar._program cimport *

import numpy as np

from fastscalar._array import sgd_step
from fastscalar._program import DECISION, NotReplayable


cdef struct Rows:                    # a Linear of an input array, as the eager engine makes it from a row of numbers
    Wide *q
    int start                        # the first node of the input
    int row[2]


cdef class ExactGraph:
    """A recorded call that stays on the tape: `result`, the inputs' handles, and the Tensors that decisions compare."""

    cdef readonly Tensor result
    cdef readonly list inputs        # (kind, handle)
    cdef readonly object guards      # an array of DECISION; its nodes hold while `locked`
    cdef readonly list codes         # that it refers to
    cdef Decision[::1] decisions     # the same array
    cdef list compared               # of each guard the two Tensors; the second one may be None
    cdef readonly list captures      # leaves that it reads: Tensors, and arrays as TensorArrays of one dimension
    cdef list copies                 # (Tensor, the one that it has the value of)
    cdef dict copied                 # the same by node, while `locked`
    cdef int *node                   # what is computed again, from old to young; indices hold while `locked`
    cdef Py_ssize_t n, room
    cdef Rows *rows                  # while `train` runs
    cdef Py_ssize_t n_rows

    def __init__(self, Tensor result not None, list inputs, guards, list codes, list compared, list copies):
        self.result, self.inputs, self.copies = result, inputs, copies
        self.guards, self.codes, self.compared = guards, codes, compared
        self.decisions = guards
        self.captures = []

    def __dealloc__(self):
        PyMem_RawFree(self.node)

    cdef int note(self, int i) except -1:
        cdef void *block
        if self.n == self.room:
            block = reallocate(self.node, (2 * self.room + 1024) * sizeof(int))
            if block == NULL:
                out_of_memory("a program", 2 * self.room + 1024)
            self.node = <int *>block
            self.room = 2 * self.room + 1024
        self.node[self.n] = i
        self.n += 1
        return 0

    cdef int see_roots(self) except -1:
        """Mark the result and what decisions compare, in a sweep; they may have moved since they were noted."""
        cdef Py_ssize_t k
        cdef Decision *d
        see(self.result.index)
        for k in range(self.decisions.shape[0]):
            d = &self.decisions[k]
            d.left = (<Tensor>self.compared[2 * k]).index
            see(d.left)
            if d.right >= 0:
                d.right = (<Tensor>self.compared[2 * k + 1]).index
                see(d.right)
        return 0

    cdef int list_nodes(self) except -1:
        """What is to be computed again: scalar operations, and wide instructions by their last node."""
        cdef int i
        cdef Py_ssize_t k
        cdef Wide *q
        self.n = 0
        self.copied = {(<Tensor>t).index: (<Tensor>source).index for t, source in self.copies}
        cdef bint any_copies = len(self.copied) > 0
        start_sweep()
        try:
            self.see_roots()
            i = previous(<int>T.n)
            while i > 0:
                T.at = i
                T.mark[i] = 0
                if T.record[i].op > WIDE:
                    self.note(i)
                    see(T.record[i].a)
                    see(T.record[i].b)
                elif T.record[i].op == WIDE:
                    q = T.wide[T.record[i].a]
                    if q.op != W_LEAF:
                        self.note(i)
                        see_operand(&q.x)
                        see_operand(&q.y)
                        see_operand(&q.z)
                elif any_copies and i in self.copied:
                    self.note(i)
                    see(self.copied[i])
                i = previous(i)
            T.at = 0
        finally:
            end_sweep()
        for k in range(self.n // 2):
            self.node[k], self.node[self.n - 1 - k] = self.node[self.n - 1 - k], self.node[k]
        return 0

    def __enter__(self):
        """Nothing moves on the tape until the end of the block."""
        T.locked += 1
        try:
            self.list_nodes()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc):
        T.locked -= 1
        set_limit()

    def value(self, list row):
        """The value for one row, given as float64 arrays, floats and ints; None if a decision comes out differently.

        Raises what the engine raises."""
        cdef Py_ssize_t k
        cdef int i
        cdef Record r
        cdef Wide *q
        self.write(row)
        for k in range(self.n_rows):
            q = self.rows[k].q
            self.rows[k].row[1] = K.compress(q.x.index, q.x.value, T.value + self.rows[k].start, 1, q.inner)
        for k in range(self.n):
            i = self.node[k]
            r = T.record[i]
            if r.op == WIDE:
                q = T.wide[r.a]
                if q.argument:
                    q.labels[0] = self.label(row[q.argument - 1], q.cols)
                compute_wide(q, T.value + q.start)
            elif r.op <= CONST:
                T.value[i] = T.value[<int>self.copied[i]]
            else:
                T.value[i] = compute(r.op, T.value[r.a], T.value[r.b])
        for k in range(self.decisions.shape[0]):
            if not self.holds(&self.decisions[k]):
                return None
        return T.value[self.result.index]

    cdef int label(self, label, int classes) except -1:
        if not 0 <= label < classes:
            raise ValueError(f"cross_entropy: expected a label in 0..{classes - 1}, got {label!r}")
        return label

    cdef bint holds(self, Decision *d) except -1:
        cdef double x = T.value[d.left]
        if d.right >= 0:
            return compare_numbers(d.op, x, T.value[d.right]) == (d.value != 0.0)
        x = truncated(d.op, x)
        return memcmp(&x, &d.value, sizeof(double)) == 0

    cdef int write(self, list row) except -1:
        cdef const double[::1] numbers
        cdef Py_ssize_t k
        cdef Wide *q
        for (kind, handle), given in zip(self.inputs, row):
            if kind == "array":
                numbers = given
                q = T.wide[(<TensorArray>handle).slot]
                for k in range(numbers.shape[0]):
                    T.value[q.start + k] = numbers[k]
            elif kind == "number":
                T.value[(<Tensor>handle).index] = given
            else:
                T.value[(<TracedInt>handle).tensor.index] = given
        return 0

    def train(self, list columns, const long long[::1] order, parameters, double rate, bint falls, long long done,
              double total_samples):
        """SGD sample by sample: (samples done, sum of their losses).  Stops before a sample that misses or raises, or
        whose loss is not finite."""
        cdef Py_ssize_t at
        cdef double total = 0.0
        try:
            self.fix_rows()
            for at in range(order.shape[0]):
                row = [column[order[at]] for column in columns]
                try:
                    value = self.value(row)
                except (ArithmeticError, ValueError):
                    return at, total
                if value is None or value - value != 0.0:
                    return at, total
                start_sweep()
                try:
                    sweep(self.result, False)
                finally:
                    end_sweep()
                sgd_step(parameters, rate * (1.0 - (done + at) / total_samples) if falls else rate)
                total += value
        finally:
            self.free_rows()
        return order.shape[0], total

    cdef int fix_rows(self) except -1:
        """Let a Linear that reads a whole input array take it as numbers: nobody wants that gradient here, and it is
        half the work (MLP 784-256-10: 43 us a sample with it, 18 without)."""
        cdef Py_ssize_t k
        cdef Rows *p
        cdef Wide *q
        cdef set starts = {T.wide[(<TensorArray>handle).slot].start for kind, handle in self.inputs if kind == "array"}
        self.rows = <Rows *>reallocate(NULL, (self.n + 1) * sizeof(Rows))
        if self.rows == NULL:
            out_of_memory("a program", self.n + 1)
        for k in range(self.n):
            if T.record[self.node[k]].op != WIDE:
                continue
            q = T.wide[T.record[self.node[k]].a]
            if q.op != W_AFFINE or q.rows != 1 or q.x.kind != RUN or q.x.start not in starts:
                continue
            p = &self.rows[self.n_rows]
            p.q, p.start = q, q.x.start
            p.row[0] = 0
            q.x.index = <int *>reallocate(NULL, q.inner * sizeof(int))
            q.x.value = <double *>reallocate(NULL, q.inner * sizeof(double))
            self.n_rows += 1
            if q.x.index == NULL or q.x.value == NULL:
                out_of_memory("a program", q.inner)
            q.x.row = p.row
            q.x.kind = SPARSE
        return 0

    cdef void free_rows(self) noexcept:
        cdef Py_ssize_t k
        cdef Operand *x
        for k in range(self.n_rows):
            x = &self.rows[k].q.x
            PyMem_RawFree(x.index)
            PyMem_RawFree(x.value)
            x.kind, x.index, x.value, x.row = RUN, NULL, NULL, NULL
        PyMem_RawFree(self.rows)
        self.rows, self.n_rows = NULL, 0

    def backward(self, bint accumulate):
        """Gradients for the row whose value was computed last."""
        start_sweep()
        try:
            sweep(self.result, accumulate)
        finally:
            end_sweep()

    cdef int find_captures(self, int first) except -1:
        """The leaves from before node `first`, which the recording began with; what came later are its constants."""
        cdef dict seen = {}
        cdef set own = set()
        cdef int i
        cdef Wide *q
        for kind, handle in self.inputs:
            own.add(-1 - (<TensorArray>handle).slot if kind == "array" else
                    (<TracedInt>handle).tensor.index if kind == "whole" else (<Tensor>handle).index)
        for t in self.leaves_before(first):
            i = (<Tensor>t).index
            if T.record[i].op == WIDE:
                q = T.wide[T.record[i].a]
                if -1 - q.slot not in own:
                    seen.setdefault(-1 - q.slot, array_of(q))
            elif i not in own:
                seen.setdefault(i, t)
        self.captures = list(seen.values())
        return 0

    cdef list leaves_before(self, int first):
        """The leaves that are read and older than node `first`; of an array the first element that is."""
        cdef list out = []
        cdef int i, slot = -1
        start_sweep()
        try:
            self.see_roots()
            i = previous(<int>T.n)
            while i > 0:
                T.at = i
                T.mark[i] = 0
                if T.record[i].op > WIDE:
                    see(T.record[i].a)
                    see(T.record[i].b)
                elif T.record[i].op == WIDE and T.wide[T.record[i].a].op != W_LEAF:
                    see_operand(&T.wide[T.record[i].a].x)
                    see_operand(&T.wide[T.record[i].a].y)
                    see_operand(&T.wide[T.record[i].a].z)
                elif T.record[i].op == LEAF:
                    if i < first:
                        out.append(i)
                elif T.record[i].op == WIDE and T.record[i].a != slot:
                    slot = T.record[i].a
                    if T.wide[slot].start < first:
                        out.append(i)
                i = previous(i)
            T.at = 0
        finally:
            end_sweep()
        return [handle_of(i) for i in out]


def leaves_before(Tensor marker not None, Tensor result not None, list inputs):
    """The leaves that a result was computed from and that are older than `marker`; `inputs` as in a recording."""
    cdef ExactGraph graph = ExactGraph(result, inputs, np.empty(0, DECISION), [], [], [])
    T.locked += 1
    try:
        graph.find_captures(marker.index)
    finally:
        T.locked -= 1
        set_limit()
    return graph.captures


def exact_graph(Recording recording not None, Tensor result not None):
    """The recorded call of an exact program; ends the recording.  NotReplayable says why it has to run eagerly."""
    cdef Py_ssize_t k
    cdef ExactGraph graph
    cdef list compared = []
    T.locked += 1
    try:
        for k in range(recording.n):
            compared.append(handle_of(recording.decisions[k].left))
            compared.append(handle_of(recording.decisions[k].right) if recording.decisions[k].right >= 0 else None)
        copies = [(handle_of(t), handle_of(source)) for t, source in recording.copies.items()]
        recording.__exit__()
        graph = ExactGraph(result, recording.inputs, recording.guards(), recording.codes, compared, copies)
        with graph:
            for k in range(graph.n):
                if T.record[graph.node[k]].op == WIDE and T.wide[T.record[graph.node[k]].a].op == W_CUSTOM:
                    raise NotReplayable(f"the user's own operation {name_of(graph.node[k])!r}")
            graph.find_captures(recording.first)
    finally:
        T.locked -= 1
        set_limit()
    return graph
