# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False
"""The graph of a program: nodes in columns, what they refer to, and the decisions that a call took.

The boundary: a Graph is data and knows no tape.  `_trace` makes it of what a function did, `selections` of several of
them; `_lower` makes instructions of it.
"""

from cpython.buffer cimport Py_buffer, PyBuffer_FillInfo
from cpython.mem cimport PyMem_RawFree
from cpython.object cimport Py_EQ, Py_LT

from fastscalar._core cimport *
from fastscalar.engine.memory cimport enlarge, reallocate

import numpy as np

from fastscalar.engine._step import storage_of

NODE_CONSTANT, NODE_INPUT, NODE_ITEM, NODE_COPY = G_CONSTANT, G_INPUT, G_ITEM, G_COPY    # for readers of graphs
NODE_RANDOM = G_RANDOM
NODE_PARAMETER, NODE_BLOCK = G_PARAMETER, G_BLOCK
READ_SAME, READ_RAISES, ARE_EQUAL, IS_LESS = GUARD_SAME, GUARD_RAISES, Py_EQ, Py_LT


cdef class Graph:
    """Nodes in topological order, as columns, and what they refer to.

    op[i]: a row of the operation table (plus IEEE), or CONSTANT (value), PARAMETER (a: capture, b: offset in it), INPUT
    (a: input, b: offset), RANDOM (a: draw, b: which of its numbers), ITEM (a: item, b: which of its outputs), COPY (of
    a), BLOCK (a: capture, b: rows; all of its elements, which only affine items read, as their weights, or gathers, row
    by row).  stopped[i]: no gradient passes.
    An item is (kind, first output, outputs, operands, ...), see `extract`.
    """

    def __cinit__(self):
        self.entries, self.captures, self.inputs, self.codes, self.draws = [], [], [], [], []
        self.tables, self.blocks, self.lists, self.shared = {}, {}, {}, {}

    def __dealloc__(self):
        self.release()
        PyMem_RawFree(self.wheres)

    @property
    def items(self):
        """A `where` takes 28 bytes until it is asked for, and then ten times that: many a recording is never lowered,
        and the first call should not wait for it."""
        cdef WhereItem *c
        cdef Py_ssize_t k
        cdef int[:, ::1] nodes
        if self.n_wheres:
            operands = np.empty((self.n_wheres, 4), dtype=np.int32)
            nodes = operands
            for k in range(self.n_wheres):
                c = &self.wheres[k]
                nodes[k, 0], nodes[k, 1], nodes[k, 2], nodes[k, 3] = c.left, c.right, c.a, c.b
                self.entries[c.item] = ("where", c.output, 1, operands[k], c.comparison)
            PyMem_RawFree(self.wheres)
            self.wheres, self.n_wheres, self.where_room = NULL, 0, 0
        return self.entries

    def set_items(self, list items not None):
        """What `items` is from now on."""
        self.entries = items

    cdef void release(self) noexcept:
        PyMem_RawFree(self.op_)
        PyMem_RawFree(self.a_)
        PyMem_RawFree(self.b_)
        PyMem_RawFree(self.value_)
        PyMem_RawFree(self.per_row_)
        self.op_ = self.a_ = self.b_ = NULL
        self.value_ = NULL
        self.per_row_ = NULL

    cdef int grow(self, Py_ssize_t room) except -1:
        enlarge(<void **>&self.op_, room, sizeof(int), "a program")
        enlarge(<void **>&self.a_, room, sizeof(int), "a program")
        enlarge(<void **>&self.b_, room, sizeof(int), "a program")
        enlarge(<void **>&self.value_, room, sizeof(double), "a program")
        enlarge(<void **>&self.per_row_, room, 1, "a program")
        self.room = room
        return 0

    cdef int add(self, int op, int a, int b, double value, bint per_row) except -1:
        cdef int i = <int>self.n
        if self.n == self.room:
            self.grow(self.room + self.room // 2 + 256)
        self.op_[i], self.a_[i], self.b_[i], self.value_[i], self.per_row_[i] = op, a, b, value, per_row
        self.n += 1
        return i

    cdef int constant(self, double value) except -1:
        return self.add(G_CONSTANT, 0, 0, value, False)

    cdef int apply(self, int op, int a, int b) except -1:
        """An operation whose value on the tape was not noted."""
        cdef Row *r = row(op & 0xff)
        cdef double x = self.value_[a], y = self.value_[b] if b >= 0 else 0.0
        return self.add(op, a, b, r.f(x) if r.arity == 1 else r.f2(x, y),
                        self.per_row_[a] or (b >= 0 and self.per_row_[b]))

    cdef int add_where(self, int comparison, int left, int right, int a, int b, double value) except -1:
        """A `where`."""
        cdef WhereItem *c = <WhereItem *>room_for(
            <void **>&self.wheres, &self.where_room, self.n_wheres, sizeof(WhereItem))
        c.item, c.output = <int>len(self.entries), <int>self.n
        c.comparison, c.left, c.right, c.a, c.b = comparison, left, right, a, b
        self.entries.append(None)
        self.n_wheres += 1
        return self.output(c.item, 0, value)

    cdef int output(self, int item, int k, double value) except -1:
        return self.add(G_ITEM, item, k, value, True)

    cdef int close(self) except -1:
        self.op, self.a = taken(<void **>&self.op_, self.n, INT), taken(<void **>&self.a_, self.n, INT)
        self.b, self.value = taken(<void **>&self.b_, self.n, INT), taken(<void **>&self.value_, self.n, DOUBLE)
        self.per_row = taken(<void **>&self.per_row_, self.n, BYTE)
        self.stopped = np.zeros(self.n, dtype=np.uint8)
        self.release()
        self.tables, self.blocks = {}, {}
        return 0


def columns_of(Graph g not None):
    """By name, what a graph says of each node, and its results."""
    return {"op": g.op, "a": g.a, "b": g.b, "stopped": g.stopped, "value": g.value, "results": g.results}


def same_nodes(g, h):
    """Whether two graphs, as `columns_of` gives them, have the same nodes; of values only those of constants count."""
    for name in ("op", "a", "b", "stopped", "results"):
        if not np.array_equal(g[name], h[name]):
            return False
    constants = g["op"] == G_CONSTANT
    return g["value"].compress(constants).tobytes() == h["value"].compress(constants).tobytes()


def same_operands(list some, list others):
    """Whether items are the same."""
    return len(some) == len(others) and all(
        len(x) == len(y) and all(np.array_equal(a, b) for a, b in zip(x, y)) for x, y in zip(some, others)
    )


def same_guards(Graph g not None, Graph h not None):
    """Whether two recordings decided alike, wherever that was."""
    some, others = (np.where(np.isnan(x.guards["value"]), np.nan, x.guards["value"]).tobytes() for x in (g, h))
    return some == others and all(np.array_equal(g.guards[name], h.guards[name]) for name in ("op", "left", "right"))


def same_captures(Graph g not None, Graph h not None):
    """Whether they read the same leaves."""
    return [storage_of(c) for c in g.captures] == [storage_of(c) for c in h.captures]


def same_items(Graph g not None, Graph h not None):
    """Whether the items, what is drawn and the captured leaves of two recordings are the same."""
    return g.draws == h.draws and same_operands(g.items, h.items) and same_captures(g, h)


def graph_of(Graph pattern not None, columns, operands, items, guards, results):
    """A Graph as another one is, with other nodes."""
    cdef Graph g = Graph()
    g.op, g.value, g.stopped = columns["op"], columns["value"], columns["stopped"]
    g.a, g.b = operands["a"], operands["b"]
    g.entries, g.guards, g.results = items, guards, np.array(results, np.int32)
    g.captures, g.inputs, g.codes, g.operations = pattern.captures, pattern.inputs, pattern.codes, pattern.operations
    g.shared, g.draws = pattern.shared, pattern.draws
    return g


def marked(ranges, Py_ssize_t first, Py_ssize_t stop):
    """By node from first on, whether one of these [first, stop) has it."""
    out = np.zeros(max(1, stop - first), np.uint8)
    for begin, end in ranges:
        out[max(0, begin - first):max(0, end - first)] = 1
    return out


def empty_graph():
    """A Graph to be filled."""
    return Graph()


def same_graph(Graph g not None, Graph h not None):
    """Whether two recordings did the same: then nothing in them was drawn at random, or counted."""
    return same_nodes(columns_of(g), columns_of(h)) and same_items(g, h)


# --- decisions -------------------------------------------------------------------------------------

def places_of(graph):
    """Where a recorded call decided: for each place its code and the instruction in it, or None, and how often."""
    guards = graph.guards
    where = guards["code"].astype(np.int64) << 32 | guards["instruction"].astype(np.int64) & 0xffffffff
    _, first, count = np.unique(where, return_index=True, return_counts=True)
    for k in np.argsort(first).tolist():
        guard = guards[first[k]]
        yield ((graph.codes[guard["code"]], int(guard["instruction"])) if guard["code"] >= 0 else None), int(count[k])


def line_of(place):
    """File and line of what `places_of` found."""
    if place is None:
        return "?", 0
    code, instruction = place
    line = 0
    for start, end, number in code.co_lines():
        if start <= instruction < end and number is not None:
            line = number
    return code.co_filename, line


cdef bint never_raises(int code) noexcept nogil:
    return code < MOST_CODES and row(code).never_raises


# --- memory ----------------------------------------------------------------------------------------

cdef class Block:
    """Memory that an array lies in: nothing is copied, which for a graph would be half of what it takes."""

    cdef void *data              # owned
    cdef Py_ssize_t size

    def __dealloc__(self):
        PyMem_RawFree(self.data)

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.data, self.size, False, flags)


cdef object taken(void **data, Py_ssize_t n, dtype):
    """The first n of what lies at data[0], as an array that owns it."""
    cdef Block block
    cdef void *smaller
    if n == 0:
        return np.empty(0, dtype)
    block = Block.__new__(Block)
    block.size = n * dtype.itemsize
    smaller = reallocate(data[0], block.size)
    block.data = data[0] if smaller == NULL else smaller
    data[0] = NULL
    return np.frombuffer(block, dtype)


INT, DOUBLE, BYTE = np.dtype(np.int32), np.dtype(np.float64), np.dtype(np.uint8)
GUARD = np.dtype([("value", "f8"), ("op", "i4"), ("left", "i4"), ("right", "i4"), ("code", "i4"),
                  ("instruction", "i4")], align=True)


cdef void *room_for(void **table, Py_ssize_t *room, Py_ssize_t n, size_t size) except NULL:
    """The place of the next entry of a growing table."""
    if n == room[0]:
        enlarge(table, 2 * room[0] + 16, size, "a program")
        room[0] = 2 * room[0] + 16
    return <char *>table[0] + n * size
