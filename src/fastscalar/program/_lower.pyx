# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: nonecheck=False, auto_pickle=False
"""From the graph of a program to its plan: dense kernels recovered from scalar code.

The boundary: reads a Graph, writes a Plan (`_replay`); knows no tape and computes nothing but constants.

1. simplify: constants are folded, common subexpressions shared, every node is a constant, uniform (of captured leaves
   only) or of a lane (of the inputs).
2. reach: what neither the result nor a decision needs is dropped.
3. sums: trees of + and - whose inner nodes nobody else reads become n-ary sums of numbers and products.
4. products: lane * uniform products of several sums that share their lane operands become a matrix product, whatever
   the order in which the program wrote them.  Its weights get a place of their own, input by input.
5. levels: instructions in the order of their depth; equal operations of one depth on neighbours become one.
All of it is linear, or n log n for sorting.

A *plain* plan has none of this: one instruction for each operation, in the order of the function, by the engine's own
functions, and every computed number is one of a lane.  It is for rows with numbers that are infinite, NaN or nearly as
large: for these the order of additions is no matter of rounding.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawFree
from libc.math cimport signbit
from libc.stdlib cimport qsort
from libc.string cimport memcmp, memcpy, memset

from fastscalar._core cimport *
from fastscalar.program._graph cimport *
from fastscalar.program._kernels cimport *
from fastscalar.program._plan cimport Plan
from fastscalar.program.plan cimport *

from zlib import crc32

import numpy as np

from fastscalar._core import operations as _operations

cdef enum:
    SQUARE = X_SQUARE
    COPY = X_COPY
    C_CONSTANT = 0           # what a node depends on: nothing,
    C_UNIFORM = 1            # captured leaves and arguments that all rows share,
    C_LANE = 2               # the row
    SHORT_SUM = 4            # with fewer terms a sum stays binary
    SMALL_PRODUCT = 16       # with fewer weights a matrix product stays a sum
    NOWHERE = 0              # where a node is
    SLOT = 1
    ROWS = 2
    UNIFORM = 3


cdef int[256] FAST           # code of the table -> operation of the kernels, -1


cdef int fill_fast() except -1:
    cdef int k
    for k in range(256):
        FAST[k] = -1
    FAST[<int>ADD], FAST[<int>SUB], FAST[<int>MUL], FAST[<int>DIV] = FS_ADD, FS_SUB, FS_MUL, FS_DIV
    FAST[<int>MINIMUM], FAST[<int>MAXIMUM] = FS_MINIMUM, FS_MAXIMUM
    FAST[<int>NEG], FAST[<int>RELU], FAST[<int>ABS], FAST[<int>SQRT] = FS_NEG, FS_RELU, FS_ABS, FS_SQRT
    FAST[<int>EXP], FAST[<int>LOG], FAST[<int>TANH], FAST[<int>SIGMOID] = FS_EXP, FS_LOG, FS_TANH, FS_SIGMOID
    FAST[<int>SQUARE] = FS_SQUARE
    return 0


fill_fast()


cdef tuple JUST_ONE = (3,)


cdef tuple operands_of(item):
    """Which entries of an item are arrays of nodes that it reads."""
    if item[0] == "affine":
        return 3, 4, 5
    if item[0] == "gather" and not item[4]:
        return 3, 5
    return JUST_ONE


cdef bint raises(int o) noexcept nogil:
    """Whether an operation of a graph may raise."""
    return o > G_CONSTANT and not o & IEEE and o != COPY and not never_raises(o)


cdef int kernel_of(int code, bint exact) noexcept nogil:
    """The kernel of an operation, -1: the function of the table.  exact: one with the same bits."""
    return -1 if exact and code in (EXP, TANH, SIGMOID) else FAST[code]


cdef bint is_steep(int code) noexcept nogil:
    """Whether the slope may be infinite where operands and result are not: sqrt at 0."""
    return code not in (ADD, SUB, MUL, DIV, NEG, EXP, TANH, SIGMOID, RELU, ABS, MINIMUM, MAXIMUM, LOG, SIN, COS, SQUARE,
                        COPY)


cdef dict BEST = {best_name(code): code for code in (BEST_MAX, BEST_MIN, BEST_ARGMAX, BEST_ARGMIN)}
cdef dict NAMES = {code: name for code, name, _, _ in _operations()}
NAMES[<int>SQUARE] = "square"
NAMES[<int>COPY] = "copy"


ctypedef struct Ints:            # a growing list; owned
    int *at
    Py_ssize_t n
    Py_ssize_t room


cdef int push(Ints *m, int i) except -1:
    cdef void *block
    if m.n == m.room:
        block = reallocate(m.at, (2 * m.room + 1024) * sizeof(int))
        if block == NULL:
            out_of_memory("a program", 2 * m.room + 1024)
        m.at = <int *>block
        m.room = 2 * m.room + 1024
    m.at[m.n] = i
    m.n += 1
    return 0


ctypedef struct Key:             # of an elementwise operation, to sort those that go together side by side
    int code
    int a_where                  # run, or -1 slots, -2 uniform, -3 none
    int b_where
    int a
    int b
    int node


cdef int compare_keys(const void *left, const void *right) noexcept nogil:
    cdef const Key *x = <const Key *>left
    cdef const Key *y = <const Key *>right
    if x.code != y.code:
        return -1 if x.code < y.code else 1
    if x.a_where != y.a_where:
        return -1 if x.a_where < y.a_where else 1
    if x.b_where != y.b_where:
        return -1 if x.b_where < y.b_where else 1
    if x.a != y.a:
        return -1 if x.a < y.a else 1
    if x.b != y.b:
        return -1 if x.b < y.b else 1
    return -1 if x.node < y.node else 1


cdef inline bint alike(const Key *x, const Key *y) noexcept nogil:
    return x.code == y.code and x.a_where == y.a_where and x.b_where == y.b_where


cdef inline size_t scatter(size_t x) noexcept nogil:
    x = (x ^ (x >> 31)) * <size_t>0x9E3779B97F4A7C15
    return x ^ (x >> 29)


cdef class Rewriter:
    cdef Plan plan
    cdef Py_ssize_t n                        # nodes of the graph
    cdef Py_ssize_t more                     # and outputs of products that have no node of their own
    cdef int[::1] op, a, b, rep, uses, level, where, at, run, copy, node_matrix, sum_of, item_level
    cdef unsigned char[::1] depends, live, pinned, gone, mask, stopped
    cdef unsigned char[::1] signless         # is never -0.0
    cdef unsigned char[::1] exact            # a decision reads it: computed as the engine does it, nothing is fused
    cdef unsigned char[::1] kept             # in a plain plan: stays uniform, weights of layers are computed of it
    cdef unsigned char[::1] merged           # stands for several operations that the function did
    cdef bint plain
    cdef double[::1] value
    cdef Ints p, q, sign                     # terms of the sums, q: -1 of a plain one
    cdef Ints first, root, group             # by sum: first term, node, group of products or -1
    cdef Ints zeros                          # by sum: whether 0.0 is added, which only shows if all else is -0.0
    cdef Ints direct                         # by sum: the product's output is the sum; else its node, or -1
    cdef list items, groups, input_kinds, input_sizes, counts
    cdef dict tables                 # what became of the operands of items
    cdef dict known_items            # gathers, by table and index, maxima, by operands: the first output
    cdef int[::1] twin               # by item: first output of an earlier one that is the same, -1
    cdef set raising                 # sums that have squares in them which may overflow
    cdef dict matrices               # (nodes, matrix) by shape and checksum
    cdef dict packs, spreads
    cdef object shared
    cdef list trained                # by capture, or None
    cdef unsigned char[::1] wanted   # all of them, one after the other,
    cdef Py_ssize_t[::1] begin       # and where each begins
    cdef int next_address, next_slot, zero
    cdef Ints constant_nodes

    def __dealloc__(self):
        for_each_list(self)

    # --- 1: constants, common subexpressions, what depends on what ---

    cdef int load(self, graph, shared, trained, sizes) except -1:
        cdef Py_ssize_t room
        self.n = len(graph.op)
        room = self.n + self.n // SHORT_SUM + 64
        self.more = self.n
        self.op, self.a, self.b = extended(graph.op, room), extended(graph.a, room), extended(graph.b, room)
        self.value = extended(graph.value, room)
        self.stopped = extended(graph.stopped, room)
        self.rep = np.arange(room, dtype=np.int32)
        self.uses, self.level = np.zeros(room, np.int32), np.zeros(room, np.int32)
        self.where, self.at = np.zeros(room, np.int32), np.full(room, -1, np.int32)
        self.run, self.copy = np.full(room, -1, np.int32), np.full(room, -1, np.int32)
        self.node_matrix, self.sum_of = np.full(room, -1, np.int32), np.full(room, -1, np.int32)
        self.depends, self.live, self.pinned = (np.zeros(room, np.uint8) for _ in range(3))
        self.gone, self.mask, self.exact, self.signless = (np.zeros(room, np.uint8) for _ in range(4))
        self.kept, self.merged = (np.zeros(room, np.uint8) for _ in range(2))
        self.items = [list(item) for item in graph.items]
        self.item_level = np.full(len(self.items) + 1, -1, np.int32)
        self.input_kinds, self.input_sizes = graph.inputs, sizes
        self.shared, self.trained = shared, trained
        if trained:
            self.wanted = np.concatenate(trained)
            self.begin = np.cumsum([0] + [len(elements) for elements in trained])
        self.groups, self.counts, self.tables, self.raising = [], [], {}, set()
        self.known_items, self.twin = {}, np.full(len(graph.items) + 1, -1, np.int32)
        self.matrices, self.packs, self.spreads = {}, {}, {}
        self.zero = -1
        return 0

    cdef int new_node(self, int op) except -1:
        cdef int i = <int>self.more
        if i == self.op.shape[0]:
            self.op, self.a, self.b = twice(self.op), twice(self.a), twice(self.b)
            self.rep, self.uses, self.level = twice(self.rep), twice(self.uses), twice(self.level)
            self.where, self.at, self.run, self.copy = (
                twice(self.where), twice(self.at), twice(self.run), twice(self.copy))
            self.node_matrix, self.sum_of = twice(self.node_matrix), twice(self.sum_of)
            self.depends, self.live, self.pinned = twice(self.depends), twice(self.live), twice(self.pinned)
            self.gone, self.mask, self.stopped = twice(self.gone), twice(self.mask), twice(self.stopped)
            self.exact, self.signless, self.merged = twice(self.exact), twice(self.signless), twice(self.merged)
            self.value = twice(self.value)
        self.more += 1
        self.op[i], self.rep[i], self.live[i], self.stopped[i] = op, i, 1, 0
        self.where[i], self.at[i], self.run[i], self.copy[i] = NOWHERE, -1, -1, -1
        self.node_matrix[i] = self.sum_of[i] = -1
        return i

    cdef int find_exact(self, graph) except -1:
        """What decisions are computed from.  The bits of everything else may be others than the engine's."""
        cdef Py_ssize_t i, k
        cdef const Decision[::1] guards = graph.guards
        cdef const int[::1] operands
        cdef set done = set()
        for k in range(guards.shape[0]):
            self.exact[guards[k].left] = 1
            if guards[k].right >= 0:
                self.exact[guards[k].right] = 1
        for i in range(self.n - 1, -1, -1):
            if not self.exact[i]:
                continue
            if self.op[i] == G_ITEM:
                item = self.items[self.a[i]]
                for j in operands_of(item):
                    if id(item[j]) not in done:
                        done.add(id(item[j]))
                        operands = item[j].ravel()
                        for k in range(operands.shape[0]):
                            self.exact[operands[k]] = 1
            elif self.op[i] > G_CONSTANT or self.op[i] == G_COPY:
                self.exact[self.a[i]] = 1
                if self.b[i] >= 0:
                    self.exact[self.b[i]] = 1
        return 0

    cdef int take_plainly(self) except -1:
        """Everything is as the engine does it; only what weights of layers are computed of is one for all rows."""
        cdef Py_ssize_t i
        self.exact[:] = 1
        kept = np.asarray(self.kept)
        for item in self.items:
            if item[0] == "affine":
                kept[item[4]] = 1
                kept[item[5]] = 1
        for i in range(self.n - 1, -1, -1):
            if self.kept[i] and (self.op[i] > G_CONSTANT or self.op[i] == G_COPY):
                self.kept[self.a[i]] = 1
                if self.b[i] >= 0:
                    self.kept[self.b[i]] = 1
        return 0

    cdef int simplify(self) except -1:
        cdef Py_ssize_t i, size = 64, shared = 0
        cdef int o
        for i in range(self.n):                  # leaves are not looked up
            shared += self.op[i] >= G_CONSTANT
        while size < 2 * shared:
            size *= 2
        cdef int[::1] bucket = np.full(size, -1, np.int32)
        cdef size_t wrap = size - 1
        for i in range(self.n):
            o = self.op[i]
            if o == G_CONSTANT:
                self.share_constant(<int>i, bucket, wrap)
            elif o == G_PARAMETER:
                self.depends[i] = C_UNIFORM
                self.mask[i] = (
                    PARAMETERS if self.trained is None or self.wanted[self.begin[self.a[i]] + self.b[i]] else 0)
            elif o == G_BLOCK:
                self.depends[i] = C_UNIFORM
                self.mask[i] = PARAMETERS if self.trained is None or self.trained[self.a[i]].any() else 0
            elif o == G_INPUT:
                self.depends[i] = C_UNIFORM if self.a[i] in self.shared else C_LANE
                self.mask[i] = 0 if self.input_kinds[self.a[i]] == "whole" else ARGUMENTS
            elif o == G_COPY:
                self.a[i] = self.rep[self.a[i]]
                self.op[i] = COPY
                self.depends[i] = self.depends[self.a[i]]
                if self.depends[i] == C_CONSTANT:
                    self.rep[i] = self.a[i]
                elif self.plain and not self.kept[i]:
                    self.depends[i] = C_LANE
            elif o == G_ITEM:
                if self.b[i] == 0:
                    self.enter_item(self.a[i], self.stopped[i])
                if self.twin[self.a[i]] >= 0:
                    self.rep[i] = self.twin[self.a[i]] + self.b[i]
                    self.exact[self.rep[i]] |= self.exact[i]
                self.depends[i] = C_LANE
                self.mask[i] = 0 if self.stopped[i] else self.items[self.a[i]][1]
            else:
                self.simplify_one(<int>i, bucket, wrap)
        return 0

    cdef int enter_item(self, int k, bint stopped) except -1:
        """Its operands are those of the shared nodes; in place of its first output stands its mask."""
        cdef list item = self.items[k]
        mask = 0
        for j in operands_of(item):
            key = id(item[j])                    # of an array that the graph holds; gathers from one table share it
            if item[0] != "gather" or key not in self.tables:
                self.tables[key] = self.represented(item[j])
            item[j], some = self.tables[key]
            mask |= some
        key = None
        if item[0] == "gather":                  # once for each index
            key = id(item[3]), item[2], item[4], stopped, 0 if item[4] else int(item[5][0])
        elif item[0] in BEST:
            key = item[0], item[3].tobytes(), stopped
            mask = mask if BEST[item[0]] <= BEST_MIN else 0
        if key is not None and not self.plain:
            twin = self.known_items.setdefault(key, item[1])
            if twin != item[1]:
                self.twin[k] = twin
        item.append(item[1])                     # the first output is the last entry now
        item[1] = mask
        return 0

    cdef object represented(self, nodes):
        """The shared nodes of operands, and their masks together."""
        out = np.empty_like(nodes)
        cdef const int[::1] node = nodes.ravel()
        cdef int[::1] shared = out.reshape(-1)
        cdef Py_ssize_t k
        cdef unsigned char mask = 0
        for k in range(node.shape[0]):
            shared[k] = self.rep[node[k]]
            mask |= self.mask[shared[k]]
        return out, mask

    cdef int share_constant(self, int i, int[::1] bucket, size_t wrap) except -1:
        cdef size_t h
        cdef unsigned long long bits
        cdef double v = self.value[i]
        memcpy(&bits, &v, sizeof(double))
        self.op[i] = G_CONSTANT
        self.depends[i] = C_CONSTANT
        self.signless[i] = v != 0.0 or not signbit(v)
        self.mask[i] = 0
        h = scatter(bits) & wrap
        while bucket[h] >= 0:
            if self.op[bucket[h]] == G_CONSTANT and memcmp(&self.value[bucket[h]], &v, sizeof(double)) == 0:
                self.rep[i] = bucket[h]
                return 0
            h = (h + 1) & wrap
        bucket[h] = i
        return 0

    cdef bint is_number(self, int i, double v) noexcept:
        return self.op[i] == G_CONSTANT and self.value[i] == v

    cdef int simplify_one(self, int i, int[::1] bucket, size_t wrap) except -1:
        cdef int o = self.op[i], code = o & 0xff, x = self.rep[self.a[i]], y = -1, t
        cdef size_t h
        cdef double v
        if never_raises(code):
            o = code
        if self.b[i] >= 0:
            y = self.rep[self.b[i]]
        if self.depends[x] == C_CONSTANT and (y < 0 or self.depends[y] == C_CONSTANT):
            self.share_constant(i, bucket, wrap)
            return 0
        if self.plain:
            self.op[i], self.a[i], self.b[i] = o, x, y
            self.depends[i] = max(self.depends[x], self.depends[y] if y >= 0 else <unsigned char>0) if (
                self.kept[i]) else <unsigned char>C_LANE
            self.mask[i] = 0 if self.stopped[i] else self.mask[x] | (self.mask[y] if y >= 0 else 0)
            return 0
        t = -1                                   # what it is the same as
        if code == ADD:                          # 0.0 + -0.0 is 0.0
            if self.is_number(x, 0.0) and (signbit(self.value[x]) or self.signless[y]):
                t = y
            elif self.is_number(y, 0.0) and (signbit(self.value[y]) or self.signless[x]):
                t = x
        elif code == SUB and not (y >= 0 and self.op[y] == G_CONSTANT and signbit(self.value[y])):
            t = x if self.is_number(y, 0.0) else -1
        elif code == MUL:
            t = y if self.is_number(x, 1.0) else x if self.is_number(y, 1.0) else -1
            if t < 0 and x == y:
                o, y = SQUARE | IEEE, -1         # infinite where x ** 2 raises
        elif code == DIV and self.op[y] == G_CONSTANT:
            v = self.value[y]
            if v == 1.0:
                t = x
            elif self.exact[i]:
                if v != 0.0:
                    o |= IEEE
            elif 1e-300 < v < 1e300 or -1e300 < v < -1e-300:
                o, y = MUL, self.number(1.0 / v)
        elif code == POW and self.op[y] == G_CONSTANT:
            if self.value[y] == 1.0:
                t = x
            elif self.value[y] == 2.0 and not self.exact[i]:
                o, y = SQUARE | (o & IEEE), -1
        if t >= 0 and not self.stopped[i]:
            self.rep[i] = t
            self.exact[t] |= self.exact[i]
            return 0
        if (o == ADD or o == MUL) and x > y:
            x, y = y, x
        self.op[i], self.a[i], self.b[i] = o, x, y
        self.depends[i] = max(self.depends[x], self.depends[y] if y >= 0 else <unsigned char>0)
        self.signless[i] = (self.signless[x] or self.signless[y]) if o == ADD else (
            o & 0xff in (SQUARE, EXP, ABS, SIGMOID, SOFTPLUS, COSH, HYPOT))
        self.mask[i] = 0 if self.stopped[i] else self.mask[x] | (self.mask[y] if y >= 0 else 0)
        h = scatter((<size_t>o << 52) ^ (<size_t>x << 26) ^ <size_t>(y + 1) ^ (<size_t>self.stopped[i] << 62)) & wrap
        while bucket[h] >= 0:
            t = bucket[h]
            if self.op[t] == o and self.a[t] == x and self.b[t] == y and self.stopped[t] == self.stopped[i]:
                self.rep[i] = t
                self.exact[t] |= self.exact[i]
                self.merged[t] = 1
                return 0
            h = (h + 1) & wrap
        bucket[h] = i
        return 0

    cdef int number(self, double v) except -1:
        """A constant that the program did not write."""
        cdef int i = self.new_node(G_CONSTANT)
        self.value[i] = v
        self.depends[i] = C_CONSTANT
        self.mask[i] = 0
        return i

    # --- 2: what is needed ---

    cdef void need(self, int i, bint pin) noexcept:
        self.live[i] = 1
        self.uses[i] += 1
        if pin:
            self.pinned[i] = 1

    cdef int reach(self, int result, const Decision[::1] guards) except -1:
        cdef Py_ssize_t i
        cdef int k, o
        cdef set done = set(), tables = set()
        self.need(self.rep[result], True)
        for i in range(guards.shape[0]):
            self.need(self.rep[guards[i].left], True)
            if guards[i].right >= 0:
                self.need(self.rep[guards[i].right], True)
        for i in range(self.n - 1, -1, -1):
            if not self.live[i] and self.rep[i] == i and self.depends[i] != C_CONSTANT and raises(self.op[i]):
                self.live[i] = self.pinned[i] = 1            # only for the error that it may be
            if self.op[i] == G_ITEM and self.b[i] == 0 and self.rep[i] == i and self.may_be_out_of_range(self.a[i]):
                self.live[i] = 1
            if not self.live[i]:
                continue
            o = self.op[i]
            if o == G_ITEM:
                if self.a[i] not in done:
                    done.add(self.a[i])
                    item = self.items[self.a[i]]
                    for k in operands_of(item):
                        if item[0] != "gather" or id(item[k]) not in tables:
                            tables.add(id(item[k]))
                            self.need_all(item[k].ravel())
                    for k in range(item[2]):
                        self.live[<int>item[len(item) - 1] + k] = 1
            elif o > G_CONSTANT:
                self.need(self.a[i], False)
                if self.b[i] >= 0:
                    self.need(self.b[i], False)
        return 0

    cdef bint may_be_out_of_range(self, int k) except -1:
        """Whether an item is chosen by a whole number of the row, or by a computed one."""
        item = self.items[k]
        return item[0] == "gather" or (item[0] == "cross_entropy" and item[4] > 0)

    cdef int need_all(self, nodes) except -1:
        cdef const int[::1] view = nodes
        cdef Py_ssize_t k
        for k in range(view.shape[0]):
            self.need(view[k], True)
        return 0

    # --- 3: sums ---

    cdef bint is_sum(self, int i) noexcept:
        return (self.op[i] == ADD or self.op[i] == SUB) and not self.stopped[i] and not self.exact[i]

    cdef int collect_sums(self) except -1:
        """From young to old: each + or - that no sum has swallowed is tried as the root of one."""
        cdef Py_ssize_t i
        cdef Ints todo, inner
        memset(&todo, 0, sizeof(Ints))
        memset(&inner, 0, sizeof(Ints))
        try:
            for i in range(self.n - 1, -1, -1):
                if self.live[i] and not self.gone[i] and self.rep[i] == i and self.is_sum(<int>i):
                    self.try_sum(<int>i, &todo, &inner)
            push(&self.first, <int>self.p.n)
        finally:
            PyMem_RawFree(todo.at)
            PyMem_RawFree(inner.at)
        return 0

    cdef int try_sum(self, int root, Ints *todo, Ints *inner) except -1:
        cdef Py_ssize_t before = self.p.n, k
        cdef int t, sign, depends = self.depends[root]
        cdef bint zero = False
        todo.n = inner.n = 0
        push(todo, root)
        push(todo, 1)
        while todo.n:
            todo.n -= 2
            t, sign = todo.at[todo.n], todo.at[todo.n + 1]
            if t == root or (self.is_sum(t) and self.uses[t] == 1 and not self.pinned[t]
                             and self.depends[t] == depends):
                if t != root:
                    push(inner, t)
                push(todo, self.b[t])
                push(todo, sign if self.op[t] == ADD else -sign)
                push(todo, self.a[t])
                push(todo, sign)
            elif ((self.op[t] == MUL or self.op[t] & 0xff == SQUARE) and self.uses[t] == 1 and not self.pinned[t]
                    and self.depends[t] == depends and not self.stopped[t] and not self.exact[t]):
                if self.op[t] == SQUARE:
                    self.raising.add(root)
                push(inner, t)
                push(&self.p, self.a[t])
                push(&self.q, self.b[t] if self.op[t] == MUL else self.a[t])
                push(&self.sign, sign)
            elif self.is_number(t, 0.0) and signbit(self.value[t]) == (sign < 0):
                zero = True
            else:
                push(&self.p, t)
                push(&self.q, -1)
                push(&self.sign, sign)
        if self.p.n - before < SHORT_SUM:
            self.p.n = self.q.n = self.sign.n = before
            return 0
        for k in range(inner.n):
            self.gone[inner.at[k]] = 1
        self.sum_of[root] = <int>self.root.n
        push(&self.first, <int>before)
        push(&self.root, root)
        push(&self.zeros, zero)
        return 0

    # --- 4: products ---

    cdef bint is_weighted(self, Py_ssize_t t) noexcept:
        """Whether a term is a lane number times a uniform one."""
        return (self.q.at[t] >= 0 and self.sign.at[t] > 0
                and (self.depends[self.p.at[t]] == C_LANE) != (self.depends[self.q.at[t]] == C_LANE))

    cdef int collect_products(self) except -1:
        """Put the sums together whose weighted terms have the same lane operands."""
        cdef Py_ssize_t s, t, k, count
        cdef int p, q, g
        cdef dict known = {}
        cdef long long[::1] pairs
        cdef int[::1] column
        cdef list group
        room = 0
        for s in range(self.root.n):
            room = max(room, self.first.at[s + 1] - self.first.at[s])
        pairs = np.empty(room + 1, np.int64)
        column = np.empty(room + 1, np.int32)
        for s in range(self.root.n):                         # no-cython-lint
            push(&self.group, -1)
            push(&self.direct, -1)
        for s in range(self.root.n - 1, -1, -1):             # in the order of the program
            count = 0
            if self.depends[self.root.at[s]] == C_LANE:
                for t in range(self.first.at[s], self.first.at[s + 1]):
                    if self.is_weighted(t):
                        p, q = self.p.at[t], self.q.at[t]
                        if self.depends[p] != C_LANE:
                            p, q = q, p
                        pairs[count] = (<long long>p << 32) | q
                        count += 1
            if count < 2:
                continue
            for k in range(1, count):
                if pairs[k] < pairs[k - 1]:
                    np.asarray(pairs[:count]).sort()
                    break
            for k in range(count):
                column[k] = <int>(pairs[k] >> 32)
            key = PyBytes_FromStringAndSize(<char *>&column[0], count * sizeof(int))
            for k in range(count):
                column[k] = <int>(pairs[k] & 0x7fffffff)
            weights = PyBytes_FromStringAndSize(<char *>&column[0], count * sizeof(int))
            g = known.setdefault(key, len(self.groups))
            if g == len(self.groups):
                self.groups.append([key, [], []])
            group = self.groups[g]
            group[1].append(s)
            group[2].append(weights)
            self.group.at[s] = g
        for g in range(len(self.groups)):
            group = self.groups[g]
            if len(group[1]) * len(group[0]) // 4 < SMALL_PRODUCT:
                for s in group[1]:
                    self.group.at[s] = -1
                self.groups[g] = None
            else:
                self.close_group(group)
        return 0

    cdef int close_group(self, list group) except -1:
        """The nodes of its outputs and of its bias: [x, weights (inputs x outputs), bias, outputs, level]."""
        cdef Py_ssize_t s, t, rest
        cdef int bias, root, out
        cdef bint simple
        outputs, biases = [], []
        for s in group[1]:
            root = self.root.at[s]
            bias = -1
            rest = 0
            simple = True
            for t in range(self.first.at[s], self.first.at[s + 1]):
                if not self.is_weighted(t):
                    rest += 1
                    if self.q.at[t] < 0 and self.sign.at[t] > 0 and self.depends[self.p.at[t]] != C_LANE and bias < 0:
                        bias = self.p.at[t]
                    else:
                        simple = False
            if simple:
                self.direct.at[s] = root
                out = root
            else:
                bias = -1
                out = self.new_node(G_ITEM)
                self.depends[out] = C_LANE
                self.mask[out] = self.mask[root]
                self.direct.at[s] = out
            if bias < 0:
                if self.zero < 0:
                    self.zero = self.number(0.0)
                bias = self.zero
            biases.append(bias)
            outputs.append(out)
        x = np.frombuffer(group[0], np.int32)
        w = np.frombuffer(b"".join(group[2]), np.int32).reshape(len(outputs), len(x))
        group[:] = [x, np.ascontiguousarray(w.T), np.array(biases, np.int32), outputs, -1]
        return 0

    # --- 5: depth ---

    cdef int depth(self, int i, int section) noexcept:
        """Of an operand as the instructions of a section see it: what the other section computed is there already."""
        return self.level[i] if self.depends[i] == section else 0

    cdef int depth_of_all(self, nodes) except -1:
        cdef const int[::1] view = nodes
        cdef Py_ssize_t k
        cdef int deepest = 0
        for k in range(view.shape[0]):
            deepest = max(deepest, self.depth(view[k], C_LANE))
        return deepest

    cdef int schedule(self, list units, list levels) except -1:
        """For both sections the units (a node, or -1 - group) and their levels."""
        cdef Py_ssize_t i, t, s
        cdef int o, l, g, section
        cdef Ints[3] unit
        cdef Ints[3] depth
        cdef dict depths = {}        # of tables that are gathered from
        memset(unit, 0, sizeof(unit))
        memset(depth, 0, sizeof(depth))
        try:
            for i in range(self.n):
                if not self.live[i] or self.gone[i] or self.rep[i] != i:
                    continue
                o, section, l = self.op[i], self.depends[i], 0
                if o == G_CONSTANT or o == G_PARAMETER or o == G_INPUT or o == G_BLOCK:
                    continue
                s = self.sum_of[i]
                if self.plain:                   # in the order of the function
                    if o == G_ITEM and self.b[i]:
                        continue
                    l = <int>i
                elif s >= 0:
                    g = self.group.at[s]
                    if g >= 0:
                        if self.groups[g][4] < 0:
                            self.groups[g][4] = 1 + self.depth_of_all(self.groups[g][0])
                            push(&unit[section], -1 - g)
                            push(&depth[section], self.groups[g][4])
                        l = self.groups[g][4]
                        self.level[self.direct.at[s]] = l
                        if self.direct.at[s] == i:
                            continue
                    for t in range(self.first.at[s], self.first.at[s + 1]):
                        if g < 0 or not self.is_weighted(t):
                            l = max(l, self.depth(self.p.at[t], section))
                            if self.q.at[t] >= 0:
                                l = max(l, self.depth(self.q.at[t], section))
                elif o == G_ITEM:
                    item = self.items[self.a[i]]
                    if self.b[i]:
                        self.level[i] = self.item_level[self.a[i]]
                        continue
                    if item[0] != "gather" or id(item[3]) not in depths:
                        depths[id(item[3])] = self.depth_of_all(item[3])
                    l = depths[id(item[3])]
                    if item[0] == "gather" and not item[4]:
                        l = max(l, self.depth(item[5][0], section))
                    self.item_level[self.a[i]] = l + 1
                else:
                    l = self.depth(self.a[i], section)
                    if self.b[i] >= 0:
                        l = max(l, self.depth(self.b[i], section))
                self.level[i] = l + 1
                push(&unit[section], <int>i)
                push(&depth[section], l + 1)
            for section in (C_UNIFORM, C_LANE):
                units.append(ints_array(&unit[section]))
                levels.append(ints_array(&depth[section]))
        finally:
            for section in range(3):
                PyMem_RawFree(unit[section].at)
                PyMem_RawFree(depth[section].at)
        return 0

    # --- places of uniform numbers ---

    cdef int matrix_for(self, nodes, bint product, int cols=0) except -1:
        """The matrix of these nodes (inputs x outputs): a place of its own if they are captured leaves without one.

        cols: what may be a block (then it is the only node) has so many columns."""
        cdef Matrix m
        cdef Py_ssize_t j, i
        cdef int k
        cdef const int[:, ::1] table = np.ascontiguousarray(nodes)
        cdef bint home = True
        if cols and self.op[table[0, 0]] == G_BLOCK:
            return self.matrix_of_block(table[0, 0], cols, product)
        some = self.matrices.setdefault((table.shape[0], table.shape[1], crc32(table)), [])
        for known, k in some:
            if not np.array_equal(known, table):
                continue
            self.plan.matrices[k].uses += 1
            if not product:
                self.plan.matrices[k].only = False
            return k
        memset(&m, 0, sizeof(Matrix))
        m.rows, m.cols = <int>table.shape[0], <int>table.shape[1]
        m.ld = 1 if m.cols == 1 else (m.cols + PAD - 1) // PAD * PAD
        m.base = self.next_address = (self.next_address + PAD - 1) // PAD * PAD
        m.uses, m.only, m.table = 1, product, -1
        self.next_address += m.rows * m.ld
        k = <int>self.plan.n_matrices
        for j in range(m.rows):
            for i in range(m.cols):
                m.mask |= self.mask[table[j, i]]
                if home and self.op[table[j, i]] == G_PARAMETER and self.at[table[j, i]] < 0:
                    self.at[table[j, i]] = <int>(m.base + j * m.ld + i)
                else:
                    home = False
        m.home = home
        if not home:
            for j in range(m.rows):
                for i in range(m.cols):
                    if self.node_matrix[table[j, i]] < 0 and self.op[table[j, i]] == G_PARAMETER:
                        if m.base <= self.at[table[j, i]] < self.next_address:
                            self.at[table[j, i]] = -1
            m.table = <int>len(self.plan.tables)
            self.plan.tables.append(np.asarray(table).ravel())
        else:
            for j in range(m.rows):
                for i in range(m.cols):
                    self.where[table[j, i]] = UNIFORM
                    self.node_matrix[table[j, i]] = k
        some.append((table, k))
        self.plan.add_matrix(&m)
        return k

    cdef int matrix_of_block(self, int i, int cols, bint product) except -1:
        """The same for captured leaves that are a block, which nothing else reads."""
        cdef Matrix m
        cdef int k = self.node_matrix[i]
        if k >= 0:
            self.plan.matrices[k].uses += 1
            if not product:
                self.plan.matrices[k].only = False
            return k
        memset(&m, 0, sizeof(Matrix))
        m.rows, m.cols = self.b[i], cols
        m.ld = 1 if m.cols == 1 else (m.cols + PAD - 1) // PAD * PAD
        m.base = self.next_address = (self.next_address + PAD - 1) // PAD * PAD
        m.uses, m.only, m.table, m.home, m.mask = 1, product, -1, True, self.mask[i]
        self.next_address += m.rows * m.ld
        k = <int>self.plan.n_matrices
        self.where[i], self.at[i], self.node_matrix[i] = UNIFORM, m.base, k
        self.plan.add_matrix(&m)
        return k

    cdef int place_matrices(self) except -1:
        """Before anything else gets an address, so that weights lie as their products read them."""
        cdef Py_ssize_t k
        for group in self.groups:
            if group is not None:
                group[1] = self.matrix_for(group[1], True)
                group[2] = self.bias_for(group[2])
        done, tables = set(), {}
        for i in range(self.n):
            if self.live[i] and self.op[i] == G_ITEM and self.a[i] not in done:
                done.add(self.a[i])
                item = self.items[self.a[i]]
                if item[0] == "affine":
                    item[4] = self.matrix_for(item[4], True, item[2])
                    item[5] = self.bias_for(item[5])
                elif item[0] == "gather":
                    key = (id(item[3]), item[2])
                    if key not in tables:
                        uniform = np.asarray(self.depends)[item[3]].max() != C_LANE
                        rows = item[3].reshape(-1, item[2] if len(item[3]) > 1 else 1)      # a block is one node
                        tables[key] = (item[3], self.matrix_for(rows, False, item[2]) if uniform else -1)
                    if tables[key][1] >= 0:
                        item[3] = tables[key][1]
        for k in range(self.n):
            if self.live[k] and self.rep[k] == k and self.at[k] < 0 and (
                    self.op[k] == G_PARAMETER or (self.op[k] == G_INPUT and self.depends[k] == C_UNIFORM)):
                self.where[k] = UNIFORM
                self.at[k] = self.next_address
                self.next_address += 1
        return 0

    cdef int bias_for(self, nodes) except -2:
        return -1 if (nodes == self.zero).all() else self.matrix_for(nodes.reshape(1, -1), True)

    cdef int address(self, int i) except -1:
        """Of a uniform node that some other instruction than a product reads."""
        if self.at[i] < 0:
            assert self.op[i] == G_CONSTANT, self.op[i]
            self.where[i] = UNIFORM
            self.at[i] = self.next_address
            self.next_address += 1
            push(&self.constant_nodes, i)
        elif self.node_matrix[i] >= 0:
            self.plan.matrices[self.node_matrix[i]].only = False
        return self.at[i]

    # --- instructions ---

    cdef int slot(self, int i) except -1:
        """Of a lane node; columns of a run are spread to slots when somebody asks."""
        if self.where[i] == SLOT:
            return self.at[i]
        if self.copy[i] < 0:
            self.spread([i])
        return self.copy[i]

    cdef int spread(self, nodes) except -1:
        """Slots for columns of one run."""
        cdef Instr q
        cdef int i, k
        cdef int[::1] index = np.empty(len(nodes), np.int32)
        memset(&q, 0, sizeof(Instr))
        for k, i in enumerate(nodes):
            index[k] = self.at[i]
            self.copy[i] = self.next_slot + k
        q.kind, q.n, q.out, q.run = I_SPREAD, <int>len(nodes), self.next_slot, -1
        q.mask = self.plan.runs[self.run[nodes[0]]].mask
        q.a.kind, q.a.run, q.a.mask = R_ROWS, self.run[nodes[0]], q.mask
        self.keep_index(&q.a, index, len(nodes))
        self.next_slot += q.n
        self.plan.add_instr(&q, True)
        return 0

    cdef int keep_index(self, Ref *r, int[::1] index, Py_ssize_t n) except -1:
        """The shortest way to say it."""
        cdef Py_ssize_t k
        cdef int step = index[1] - index[0] if n > 1 else 0
        cdef bint regular = step == 0 or step == 1
        for k in range(1, n):
            if index[k] - index[k - 1] != step:
                regular = False
                break
        r.start, r.step = index[0], step
        if not regular:
            r.step = 0
            self.plan.keep.append(np.asarray(index[:n]).copy())
            index = self.plan.keep[len(self.plan.keep) - 1]
            r.index = &index[0]
        return 0

    cdef int ports(self, int first, int count, Ref *r, int[::1] index) except -1:
        """Where the lanes' part collects the gradients of uniform operands."""
        cdef int k
        r.port = <int>len(self.plan.port_address)
        if r.index == NULL and r.step == 0:
            self.plan.port_address.append(r.start)
        else:
            for k in range(count):
                self.plan.port_address.append(index[k])
        return 0

    cdef int refer(self, Ref *r, Key *keys, Py_ssize_t n, bint second, bint lanes) except -1:
        """The operand a (or b) of a group of operations."""
        cdef Py_ssize_t k
        cdef int i, where = keys[0].b_where if second else keys[0].a_where
        cdef int[::1] index
        r.kind, r.port, r.run = R_NONE, -1, -1
        if where == -3:
            return 0
        index = np.empty(n, np.int32)
        if where >= 0:
            wanted = []
            for k in range(n):
                i = self.b[keys[k].node] if second else self.a[keys[k].node]
                if self.copy[i] < 0 and (not wanted or wanted[len(wanted) - 1] != i):
                    self.copy[i] = 0
                    wanted.append(i)
            if wanted:
                self.spread(wanted)
        for k in range(n):
            i = self.b[keys[k].node] if second else self.a[keys[k].node]
            r.mask |= self.mask[i]
            index[k] = self.copy[i] if where >= 0 else keys[k].b if second else keys[k].a
        r.kind = R_UNIFORM if where == -2 else R_SLOTS
        self.keep_index(r, index, n)
        if lanes and r.kind == R_UNIFORM and r.mask:
            self.ports(0, <int>n, r, index)
        return 0

    cdef int kernel_for(self, int i) noexcept:
        """The kernel of a node's operation, -1: the function of the table."""
        cdef int code = self.op[i] & 0xff
        return -1 if self.plain else kernel_of(code, self.exact[i])

    cdef int emit_elements(self, Key *keys, Py_ssize_t n, bint lanes) except -1:
        cdef Instr q
        cdef Py_ssize_t k
        cdef int node = keys[0].node, o = self.op[node]
        if lanes and (keys[0].a_where >= 0 or keys[0].b_where >= 0) and self.emit_rows(keys, n):
            return 0
        memset(&q, 0, sizeof(Instr))
        q.kind, q.n, q.run = I_ELEMENTS, <int>n, -1
        q.code, q.op, q.raises = o & 0xff, <signed char>self.kernel_for(keys[0].node), raises(o)
        self.refer(&q.a, keys, n, False, lanes)
        self.refer(&q.b, keys, n, True, lanes)
        q.out = self.next_slot if lanes else self.next_address
        for k in range(n):
            node = keys[k].node
            q.steep = q.steep or (is_steep(q.code) and (self.merged[node] or not lanes))
            q.mask |= self.mask[node]
            self.where[node] = SLOT if lanes else UNIFORM
            self.at[node] = <int>(q.out + k)
        if lanes:
            self.next_slot += <int>n
        else:
            self.next_address += <int>n
        self.plan.add_instr(&q, lanes)
        self.counts.append((NAMES[q.code], n))
        return 0

    cdef bint emit_rows(self, Key *keys, Py_ssize_t n) except -1:
        """One operation on all columns of a run, if that is what these are."""
        cdef Instr q
        cdef Py_ssize_t k
        cdef int run = keys[0].a_where if keys[0].a_where >= 0 else keys[0].b_where, o = self.op[keys[0].node]
        cdef int[::1] index
        cdef bint same = True, next_ = True
        cdef Ref *r
        if n != self.plan.runs[run].n or n < 2:
            return False
        for k in range(n):
            if (keys[0].a_where >= 0 and keys[k].a != k) or (keys[0].b_where >= 0 and keys[k].b != k):
                return False
        if keys[0].a_where == -1 or keys[0].b_where == -1:
            return False
        if keys[0].b_where >= 0 and self.plan.runs[keys[0].b_where].n != n:
            return False
        for k in range(1, n):
            same = same and keys[k].a == keys[0].a if keys[0].a_where == -2 else same
            same = same and keys[k].b == keys[0].b if keys[0].b_where == -2 else same
            next_ = next_ and keys[k].a == keys[k - 1].a + 1 if keys[0].a_where == -2 else next_
            next_ = next_ and keys[k].b == keys[k - 1].b + 1 if keys[0].b_where == -2 else next_
        if (keys[0].a_where == -2 or keys[0].b_where == -2) and not same and not next_:
            return False
        memset(&q, 0, sizeof(Instr))
        q.kind, q.n, q.out = I_ROWS, <int>n, 0
        q.code, q.op, q.raises = o & 0xff, <signed char>self.kernel_for(keys[0].node), raises(o)
        for k in range(n):
            q.steep = q.steep or (is_steep(q.code) and self.merged[keys[k].node])
            q.mask |= self.mask[keys[k].node]
        for k in range(2):
            r = &q.b if k else &q.a
            where = keys[0].b_where if k else keys[0].a_where
            r.port = r.run = -1
            if where == -3:
                r.kind = R_NONE
            elif where >= 0:
                r.kind, r.run, r.mask = R_ROWS, where, self.plan.runs[<int>where].mask
            else:
                r.kind = R_UNIFORM
                index = np.empty(n, np.int32)
                for j in range(n):
                    index[j] = keys[j].b if k else keys[j].a
                    r.mask |= self.mask[self.b[keys[j].node] if k else self.a[keys[j].node]]
                self.keep_index(r, index, n)
                if r.mask:
                    self.ports(0, <int>n, r, index)
        q.run = self.plan.add_run(<int>n, q.mask, self.plan.runs[run].ld != self.plan.runs[run].n)
        for k in range(n):
            self.where[keys[k].node], self.at[keys[k].node], self.run[keys[k].node] = ROWS, <int>k, q.run
        self.plan.add_instr(&q, True)
        self.counts.append((NAMES[q.code], n))
        return True

    cdef int locate(self, Key *key, int node, bint second) except -1:
        cdef int i = self.b[node] if second else self.a[node], where, at
        if i < 0:
            where, at = -3, 0
        elif self.depends[i] != C_LANE and self.copy[i] >= 0:
            where, at = -1, self.copy[i]
        elif self.depends[i] != C_LANE:
            where, at = -2, self.address(i)
        elif self.where[i] == SLOT:
            where, at = -1, self.at[i]
        else:
            where, at = self.run[i], self.at[i]
        if second:
            key.b_where, key.b = where, at
        else:
            key.a_where, key.a = where, at
        return 0

    cdef int emit_level(self, int[::1] units, bint lanes) except -1:
        cdef Py_ssize_t k, n = 0, first
        cdef int i
        cdef Key *keys = <Key *>allocate(max(1, units.shape[0]) * sizeof(Key))
        if keys == NULL:
            out_of_memory("a program", units.shape[0])
        try:
            for k in range(units.shape[0]):
                i = units[k]
                if i < 0:
                    self.emit_product(self.groups[-1 - i])
                elif self.sum_of[i] >= 0:
                    self.emit_sum(i, lanes)
                elif self.op[i] == G_ITEM:
                    self.emit_item(i)
                else:
                    keys[n].node = i
                    keys[n].code = self.op[i] | (<int>self.stopped[i] << 12) | (<int>self.exact[i] << 13)
                    self.locate(&keys[n], i, False)
                    self.locate(&keys[n], i, True)
                    n += 1
            if n > 1:
                qsort(keys, n, sizeof(Key), &compare_keys)
            first = 0
            for k in range(1, n + 1):
                if k == n or not alike(&keys[k], &keys[first]):
                    self.emit_elements(keys + first, k - first, lanes)
                    first = k
        finally:
            PyMem_RawFree(keys)
        return 0

    cdef bint side_by_side(self, nodes) except -1:
        """Whether these nodes are neighbouring columns of a run."""
        cdef const int[::1] view = nodes
        cdef Py_ssize_t k
        cdef int i = view[0]
        if self.where[i] != ROWS:
            return False
        for k in range(1, view.shape[0]):
            if self.where[view[k]] != ROWS or self.run[view[k]] != self.run[i] or self.at[view[k]] != self.at[i] + k:
                return False
        return True

    cdef int run_of(self, nodes, int *first) except -1:
        """A run that has these nodes side by side: theirs, or one that they are packed into."""
        cdef int i = nodes[0]
        if self.side_by_side(nodes):
            first[0] = self.at[i]
            return self.run[i]
        first[0] = 0
        return self.pack(nodes)

    cdef int refer_one_by_one(self, Ref *r, nodes) except -1:
        """Slots and uniform numbers in any order: these as -1 - their address, with a port each."""
        cdef const int[::1] view = nodes
        cdef int[::1] index = np.empty(view.shape[0], np.int32)
        cdef Py_ssize_t k
        cdef int i
        wanted = {}
        for k in range(view.shape[0]):
            i = view[k]
            r.mask |= self.mask[i]
            if self.depends[i] == C_LANE and self.where[i] == ROWS and self.copy[i] < 0:
                wanted.setdefault(self.run[i], {})[i] = True
        for some in wanted.values():
            self.spread(list(some))
        r.port = <int>len(self.plan.port_address)
        for k in range(view.shape[0]):
            i = view[k]
            if self.depends[i] == C_LANE:
                index[k] = self.slot(i)
            else:
                index[k] = -1 - self.address(i)
                self.plan.port_address.append(self.address(i))
        self.plan.keep.append(np.asarray(index))
        r.kind, r.index = R_SLOTS, &index[0]
        return 0

    cdef int pack(self, nodes) except -1:
        cdef Instr q
        key = np.asarray(nodes).tobytes()
        if key in self.packs:
            return self.packs[key]
        memset(&q, 0, sizeof(Instr))
        q.kind, q.n = I_PACK, <int>len(nodes)
        self.refer_one_by_one(&q.a, nodes)
        q.mask = q.a.mask
        q.run = self.plan.add_run(q.n, q.mask, False)
        self.plan.add_instr(&q, True)
        self.packs[key] = q.run
        return q.run

    cdef int emit_product(self, list group, bint layer=False) except -1:
        """[x, matrix, bias, outputs, ...]"""
        cdef Instr q
        cdef Product p
        cdef int k, i
        cdef Matrix *m
        memset(&q, 0, sizeof(Instr))
        memset(&p, 0, sizeof(Product))
        p.x = self.run_of(group[0], &p.first)
        p.matrix, p.bias, p.skips, p.exact = group[1], group[2], layer, layer and self.any_exact(group[3])
        m = &self.plan.matrices[p.matrix]
        if p.exact:
            m.only = False                       # its weights are to be as they are
        p.whole_input = -1
        for k in range(len(self.input_kinds)):
            if self.plan.input_run[k] == p.x and p.first == 0 and m.rows == self.plan.runs[p.x].n:
                p.whole_input = k
        q.kind, q.n = I_PRODUCT, m.cols
        q.a.mask = self.plan.runs[p.x].mask
        q.mask = m.mask | q.a.mask | (self.plan.matrices[p.bias].mask if p.bias >= 0 else 0)
        if self.stopped[<int>group[3][0]]:
            q.mask = 0
        q.run = self.plan.add_run(m.cols, q.mask, m.cols > 1)
        q.extra = <int>self.plan.add_product(&p)
        for k, i in enumerate(group[3]):
            self.where[i], self.at[i], self.run[i] = ROWS, k, q.run
            self.mask[i] = q.mask
        self.plan.add_instr(&q, True)
        self.counts.append(("dot", m.rows) if m.cols == 1 else ("matrix product", (m.rows, m.cols)))
        return 0

    cdef bint any_exact(self, nodes) except -1:
        cdef int i
        for i in nodes:
            if self.exact[i]:
                return True
        return False

    cdef int emit_sum(self, int i, bint lanes) except -1:
        cdef Instr q
        cdef Sum s
        cdef Term term
        cdef Py_ssize_t t
        cdef int k = self.sum_of[i], g = self.group.at[k], count = 0
        memset(&q, 0, sizeof(Instr))
        s.first = <int>self.plan.n_terms
        if not lanes:
            self.add_segments(k)
            count = self.first.at[k + 1] - self.first.at[k]
        else:
            if g >= 0:
                self.fill_term(&term, 1, self.direct.at[k], -1)
                self.plan.add_term(&term)
            for t in range(self.first.at[k], self.first.at[k + 1]):
                if g < 0 or not self.is_weighted(t):
                    self.fill_term(&term, self.sign.at[t], self.p.at[t], self.q.at[t])
                    self.plan.add_term(&term)
                    count += 1
        s.stop = <int>self.plan.n_terms
        s.zero = self.zeros.at[k]
        q.kind, q.n, q.run, q.mask = I_SUM, 1, -1, self.mask[i]
        q.extra = <int>self.plan.add_sum(&s)
        q.raises = i in self.raising
        q.out = self.next_slot if lanes else self.next_address
        self.where[i], self.at[i] = SLOT if lanes else UNIFORM, q.out
        if lanes:
            self.next_slot += 1
        else:
            self.next_address += 1
        self.plan.add_instr(&q, lanes)
        if count:                                # else an element of a product, and nothing to add
            self.counts.append(("dot" if self.only_products(k) else "sum", count))
        return 0

    cdef bint only_products(self, int s):
        cdef Py_ssize_t t
        for t in range(self.first.at[s], self.first.at[s + 1]):
            if self.q.at[t] < 0:
                return False
        return True

    cdef int fill_term(self, Term *term, int sign, int p, int q) except -1:
        memset(term, 0, sizeof(Term))
        term.sign, term.count, term.p_port, term.q_port, term.matrix = <signed char>sign, 1, -1, -1, -1
        term.p_mask = self.mask[p]
        if self.depends[p] == C_LANE:
            term.p_kind, term.p = R_SLOTS, self.slot(p)
        else:
            term.p_kind, term.p = R_UNIFORM, self.address(p)
            if term.p_mask:
                term.p_port = <int>len(self.plan.port_address)
                self.plan.port_address.append(term.p)
        if q < 0:
            term.q_kind = R_NONE
            return 0
        term.q_mask = self.mask[q]
        if self.depends[q] == C_LANE:
            term.q_kind, term.q = R_SLOTS, self.slot(q)
        else:
            term.q_kind, term.q = R_UNIFORM, self.address(q)
            if term.q_mask:
                term.q_port = <int>len(self.plan.port_address)
                self.plan.port_address.append(term.q)
        return 0

    cdef int add_segments(self, int s) except -1:
        """The terms of a uniform sum, those side by side in memory together."""
        cdef Term term
        cdef Py_ssize_t k, count = self.first.at[s + 1] - self.first.at[s], first = self.first.at[s], t, gap
        cdef int p, q
        cdef long long[:, ::1] rows = np.empty((count, 6), np.int64)
        cdef long long[:, ::1] sorted_rows
        for k in range(count):
            t = first + k
            p, q = self.p.at[t], self.q.at[t]
            rows[k, 0] = self.sign.at[t]
            rows[k, 5] = self.node_matrix[p] if p == q else -1
            rows[k, 1] = self.at[p] if rows[k, 5] >= 0 else self.address(p)
            rows[k, 2] = -1 if q < 0 else rows[k, 1] if p == q else self.address(q)
            rows[k, 3] = self.mask[p]
            rows[k, 4] = 0 if q < 0 else self.mask[q]
        array = np.asarray(rows)
        plain = array[:, 2] < 0
        array = array[np.lexsort((array[:, 2], array[:, 1], plain, array[:, 0]))]
        sorted_rows = array
        memset(&term, 0, sizeof(Term))
        for k in range(count):
            if k and sorted_rows[k, 0] == term.sign and sorted_rows[k, 5] == term.matrix and (
                    sorted_rows[k, 3] == term.p_mask and sorted_rows[k, 4] == term.q_mask):
                gap = sorted_rows[k, 1] - term.p - term.count
                if gap == 0 and (
                        sorted_rows[k, 2] == term.q + term.count if term.q_kind != R_NONE else sorted_rows[k, 2] < 0):
                    term.count += 1
                    continue
                if 0 < gap < PAD and term.q_kind != R_NONE and sorted_rows[k, 2] == term.q + term.count + gap and (
                        self.is_padding(term.p + term.count, gap) and self.is_padding(term.q + term.count, gap)):
                    term.count += <int>gap + 1   # padding is zero, and so is what is added to its gradient
                    continue
            if k:
                self.add_segment(&term)
            term.sign, term.count = <signed char>sorted_rows[k, 0], 1
            term.p_kind, term.p, term.p_mask = R_UNIFORM, <int>sorted_rows[k, 1], <unsigned char>sorted_rows[k, 3]
            term.q_kind = R_NONE if sorted_rows[k, 2] < 0 else R_UNIFORM
            term.q, term.q_mask = <int>sorted_rows[k, 2], <unsigned char>sorted_rows[k, 4]
            term.matrix = <int>sorted_rows[k, 5]
        self.add_segment(&term)
        return 0

    cdef int add_segment(self, Term *term) except -1:
        """Squares are known as those of a matrix if they are all of them."""
        cdef Matrix *m
        if term.matrix >= 0:
            m = &self.plan.matrices[term.matrix]
            if term.p != m.base or term.count != (m.rows - 1) * m.ld + m.cols:
                m.only = False
                term.matrix = -1
        self.plan.add_term(term)
        return 0

    cdef bint is_padding(self, int address, Py_ssize_t n) except -1:
        """Whether these places fill up a row of a matrix."""
        cdef Matrix *m
        cdef Py_ssize_t k
        for k in range(self.plan.n_matrices):
            m = &self.plan.matrices[k]
            if m.base <= address < m.base + m.rows * m.ld:
                return (address - m.base) % m.ld >= m.cols and (address - m.base) % m.ld + n <= m.ld
        return False

    cdef int emit_item(self, int i) except -1:
        cdef list item = self.items[self.a[i]]
        cdef Instr q
        cdef Item p
        cdef int k, first, outputs = item[2], first_output = item[len(item) - 1]
        kind = item[0]
        if kind == "affine":
            nodes = list(range(first_output, first_output + outputs))
            return self.emit_product([item[3], item[4], item[5], nodes], True)
        memset(&q, 0, sizeof(Instr))
        memset(&p, 0, sizeof(Item))
        q.n, q.run, q.mask = outputs, -1, self.mask[i]
        q.a.port = q.b.port = p.c.port = p.d.port = -1
        p.saved = p.address = p.argument = -1
        p.exact = self.any_exact(range(first_output, first_output + outputs))
        if kind == "gather" and not item[4]:     # before the instructions that it waits for
            p.label, p.saved = self.slot(item[5][0]), self.plan.add_run(1, 0, False)
        if kind in BEST:
            self.refer_to_best(&q, &p, item[3])
            q.kind, q.code, q.n = I_BEST, BEST[kind], 1
            p.saved = self.next_slot
            self.next_slot += 1
        elif kind == "where":
            self.one(&q.a, item[3][0])
            self.one(&q.b, item[3][1])
            self.one(&p.c, item[3][2])
            self.one(&p.d, item[3][3])
            q.kind, p.count = I_SELECT, item[4]
        elif kind == "gather" and isinstance(item[3], int):
            q.kind, p.address, p.count, p.argument = I_GATHER, item[3], outputs, item[4] - 1
            q.mask = 0 if self.stopped[i] else self.plan.matrices[p.address].mask
            p.x = -1
        else:
            p.x = self.run_of(item[3], &first)
            q.a.kind, q.a.run, q.a.start, q.a.mask = R_ROWS, p.x, first, self.plan.runs[p.x].mask
            q.b.start = <int>len(item[3])        # how many columns
            if kind == "gather":
                q.kind, p.count, p.argument = I_GATHER, outputs, item[4] - 1
            elif kind == "softmax":
                q.kind = I_SOFTMAX
            else:
                q.kind = I_LOGSUMEXP if kind == "logsumexp" else I_XENT
                p.saved = self.plan.add_run(<int>len(item[3]), 0, False)
                if kind == "cross_entropy":
                    p.argument, p.label = item[4] - 1, item[5]
        q.extra = <int>self.plan.add_item(&p)
        if q.kind == I_GATHER or q.kind == I_SOFTMAX:
            q.run = self.plan.add_run(outputs, q.mask, False)
            for k in range(outputs):
                self.where[first_output + k], self.at[first_output + k] = ROWS, k
                self.run[first_output + k] = q.run
                self.mask[first_output + k] = q.mask
        else:
            q.out = self.next_slot
            self.where[i], self.at[i] = SLOT, q.out
            self.next_slot += 1
        self.plan.add_instr(&q, True)
        self.counts.append((kind, 1 if kind == "where" else outputs if q.run >= 0 else len(item[3])))
        return 0

    cdef int refer_to_best(self, Instr *q, Item *p, nodes) except -1:
        """The operands of a maximum: side by side in a run as they are, else each where it is."""
        cdef int first
        p.count = <int>len(nodes)
        if self.side_by_side(nodes):
            p.x = self.run_of(nodes, &first)
            q.a.kind, q.a.run, q.a.start, q.a.mask = R_ROWS, p.x, first, self.plan.runs[p.x].mask
            return 0
        self.refer_one_by_one(&q.a, nodes)
        return 0

    cdef int one(self, Ref *r, int i) except -1:
        """An operand of one number."""
        r.mask, r.port = self.mask[i], -1
        if self.depends[i] == C_LANE or self.copy[i] >= 0:
            r.kind, r.start = R_SLOTS, self.slot(i)
        else:
            r.kind, r.start = R_UNIFORM, self.address(i)
            if r.mask:
                r.port = <int>len(self.plan.port_address)
                self.plan.port_address.append(r.start)
        return 0

    # --- all of it ---

    cdef int emit_inputs(self) except -1:
        cdef Instr q
        cdef Py_ssize_t i
        cdef int k
        self.plan.input_run = [-1] * len(self.input_kinds)
        self.plan.input_address = [-1] * len(self.input_kinds)
        for i in range(self.n):
            if self.op[i] != G_INPUT or not self.live[i]:
                continue
            k = self.a[i]
            if self.depends[i] == C_UNIFORM:
                self.plan.input_address[k] = self.at[i]
            elif self.input_kinds[k] == "array":
                if self.plan.input_run[k] < 0:
                    self.plan.input_run[k] = self.plan.add_run(self.input_sizes[k], ARGUMENTS, False)
                self.where[i], self.at[i], self.run[i] = ROWS, self.b[i], self.plan.input_run[k]
            else:
                memset(&q, 0, sizeof(Instr))
                q.kind, q.n, q.run, q.out, q.extra = I_NUMBER, 1, -1, self.next_slot, k
                q.mask = self.mask[i]
                self.where[i], self.at[i] = SLOT, self.next_slot
                self.next_slot += 1
                self.plan.add_instr(&q, True)
        return 0

    cdef int copy_leaves(self) except -1:
        """A plain plan: what is the same number for all rows gets a slot too, where each row has a gradient of its own,
        which is complete before the rows' are added up."""
        cdef Instr q
        cdef Py_ssize_t i, k
        cdef int[::1] index
        cdef int j
        cdef unsigned char[::1] read = np.zeros(self.n, np.uint8)
        for i in range(self.n):
            if not self.live[i] or self.depends[i] != C_LANE:
                continue
            if self.op[i] == G_ITEM and self.items[self.a[i]][0] == "where":
                for j in self.items[self.a[i]][3]:
                    read[j] = True
            elif self.op[i] > G_CONSTANT:
                read[self.a[i]] = True
                if self.b[i] >= 0:
                    read[self.b[i]] = True
        for i in range(self.n):
            read[i] = read[i] and self.depends[i] == C_UNIFORM
        nodes = np.flatnonzero(read)
        if not len(nodes):
            return 0
        memset(&q, 0, sizeof(Instr))
        q.kind, q.n = I_PACK, <int>len(nodes)
        index = np.empty(q.n, np.int32)
        q.a.port = <int>len(self.plan.port_address)
        for k, j in enumerate(nodes):
            q.mask |= self.mask[j]
            index[k] = -1 - self.address(j)
            self.plan.port_address.append(self.address(j))
        self.plan.keep.append(np.asarray(index))
        q.a.kind, q.a.mask, q.a.index = R_SLOTS, q.mask, &index[0]
        q.run = self.plan.add_run(q.n, q.mask, False)
        self.plan.add_instr(&q, True)
        for k in range(q.n):
            self.copy[nodes[k]] = self.next_slot + <int>k
        k, j = q.run, q.n
        mask = q.mask
        memset(&q, 0, sizeof(Instr))
        q.kind, q.n, q.out, q.run, q.mask = I_SPREAD, j, self.next_slot, -1, mask
        q.a.kind, q.a.run, q.a.mask, q.a.step = R_ROWS, <int>k, mask, 1
        self.next_slot += q.n
        self.plan.add_instr(&q, True)
        return 0

    cdef int emit_section(self, units, levels, bint lanes) except -1:
        cdef Py_ssize_t k, first = 0
        cdef int[::1] unit, level
        order = np.argsort(levels, kind="stable")
        unit, level = units[order], levels[order]
        for k in range(1, unit.shape[0] + 1):
            if k == unit.shape[0] or level[k] != level[first]:
                self.emit_level(unit[first:k], lanes)
                first = k
        return 0

    cdef int finish(self, graph) except -1:
        cdef Guard guard
        cdef Py_ssize_t k
        cdef int i, p, q
        cdef const Decision[::1] guards = graph.guards
        cdef set known = set()
        plan = self.plan
        i = self.rep[graph.result]
        plan.result_kind = R_SLOTS if self.depends[i] == C_LANE else R_UNIFORM
        plan.result = self.slot(i) if self.depends[i] == C_LANE else self.address(i)
        for k in range(guards.shape[0]):
            p, q = self.rep[guards[k].left], self.rep[guards[k].right] if guards[k].right >= 0 else -1
            if self.depends[p] == C_CONSTANT and (q < 0 or self.depends[q] == C_CONSTANT):
                continue
            memset(&guard, 0, sizeof(Guard))
            guard.op, guard.value = guards[k].op, guards[k].value
            guard.kind = R_SLOTS if self.depends[p] == C_LANE else R_UNIFORM
            guard.p = self.slot(p) if self.depends[p] == C_LANE else self.address(p)
            guard.other = R_NONE
            if q >= 0:
                guard.other = R_SLOTS if self.depends[q] == C_LANE else R_UNIFORM
                guard.q = self.slot(q) if self.depends[q] == C_LANE else self.address(q)
            key = PyBytes_FromStringAndSize(<char *>&guard, sizeof(Guard))
            if key not in known:                 # a loop may ask the same a thousand times
                known.add(key)
                plan.add_guard(&guard)
        at = np.asarray(self.at)
        for k in range(len(plan.tables)):
            nodes = plan.tables[k]
            for i in nodes:
                self.address(i)
            plan.tables[k] = np.asarray(self.at)[nodes].astype(np.int32)
        at = np.asarray(self.at)[:self.n]
        nodes = np.flatnonzero((np.asarray(self.op)[:self.n] == G_PARAMETER) & (at >= 0))
        plan.capture_of = np.asarray(self.a)[nodes].astype(np.int32)
        plan.offset_of = np.asarray(self.b)[nodes].astype(np.int32)
        plan.address_of = at[nodes].astype(np.int32)
        plan.count_of = np.ones(len(nodes), np.int32)
        plan.n_slots, plan.n_uniform = self.next_slot, (self.next_address + PAD - 1) // PAD * PAD
        plan.trained = np.zeros(plan.n_uniform, np.uint8)
        plan.trained[plan.address_of] = np.asarray(self.mask)[nodes] != 0
        for i in np.flatnonzero((np.asarray(self.op)[:self.n] == G_BLOCK) & (at >= 0)):
            self.finish_block(i)
        constants = ints_array(&self.constant_nodes)
        plan.constant_at = np.asarray(self.at)[constants].astype(np.int32)
        plan.constant_value = np.asarray(self.value)[constants].copy()
        plan.port_address = np.array(plan.port_address, np.int32)
        plan.n_ports = len(plan.port_address)
        plan.captures, plan.inputs, plan.operations = graph.captures, graph.inputs, graph.operations
        plan.summary = self.report()
        return 0

    cdef int finish_block(self, int i) except -1:
        """Where the rows of a block are copied to, and which of its elements are trained."""
        cdef Matrix *m = &self.plan.matrices[self.node_matrix[i]]
        plan, rows, cols, ld, capture = self.plan, m.rows, m.cols, m.ld, self.a[i]
        row = np.arange(rows, dtype=np.int32)
        plan.capture_of = np.append(plan.capture_of, np.full(rows, capture, np.int32))
        plan.offset_of = np.append(plan.offset_of, row * np.int32(cols))
        plan.address_of = np.append(plan.address_of, m.base + row * np.int32(ld))
        plan.count_of = np.append(plan.count_of, np.full(rows, cols, np.int32))
        plan.trained[m.base:m.base + rows * ld].reshape(rows, ld)[:, :cols] = (
            1 if self.trained is None else self.trained[capture].reshape(rows, cols))
        return 0

    def report(self):
        """What was recovered, the wide instructions one by one."""
        return summary(self.plan.operations, self.counts)


# --- places of the gradients of slots -------------------------------------------------------------

ctypedef struct Places:          # while they are given out
    int *adjoint                 # by slot
    const int *first             # by slot: the first one that is computed with it,
    const int *count             # and by that: how many are
    Ints[32] spare               # by the logarithm of their size: places that are free again
    Ints births                  # (at, count)
    int top


cdef int begin_gradient(Places *m, int slot) except -1:
    """Gradients of slots that are computed together lie together."""
    cdef int first = m.first[slot], n = m.count[first], size = 0, at, k
    if m.adjoint[slot] >= 0:
        return 0
    while 1 << size < n:
        size += 1
    if m.spare[size].n:
        m.spare[size].n -= 1
        at = m.spare[size].at[m.spare[size].n]
    else:
        at = m.top
        m.top += 1 << size
    for k in range(n):
        m.adjoint[first + k] = at + k
    push(&m.births, at)
    push(&m.births, n)
    return 0


cdef int begin_operand(Places *m, const Ref *r, int n) except -1:
    cdef int k
    if r.kind == R_SLOTS and r.mask:
        for k in range(n):
            begin_gradient(m, r.index[k] if r.index != NULL else r.start + k * r.step)
    return 0


cdef int begin_one_by_one(Places *m, const Ref *r, int n) except -1:
    cdef int k
    if r.kind == R_SLOTS and r.mask:
        for k in range(n):
            if r.index[k] >= 0:
                begin_gradient(m, r.index[k])
    return 0


cdef int begin_operands(Places *m, Plan p, const Instr *q) except -1:
    """What an instruction adds gradients to."""
    cdef const Term *t
    cdef int k
    if q.kind == I_ELEMENTS:
        begin_operand(m, &q.a, q.n)
        begin_operand(m, &q.b, q.n)
    elif q.kind == I_SUM:
        for k in range(p.sums[q.extra].first, p.sums[q.extra].stop):
            t = &p.terms[k]
            if t.p_kind == R_SLOTS and t.p_mask:
                begin_gradient(m, t.p)
            if t.q_kind == R_SLOTS and t.q_mask:
                begin_gradient(m, t.q)
    elif q.kind == I_PACK:
        begin_one_by_one(m, &q.a, q.n)
    elif q.kind == I_BEST:
        begin_one_by_one(m, &q.a, p.items[q.extra].count)
    elif q.kind == I_SELECT:
        begin_operand(m, &p.items[q.extra].c, 1)
        begin_operand(m, &p.items[q.extra].d, 1)
    return 0


cdef int end_gradient(Places *m, const Instr *q) except -1:
    """An instruction is done, going backwards: the gradients of its outputs make room."""
    cdef int size = 0
    if m.adjoint[q.out] >= 0:
        while 1 << size < q.n:
            size += 1
        push(&m.spare[size], m.adjoint[q.out])
    return 0


cdef bint side_by_side(const Ref *r, int n, const int *adjoint) noexcept:
    cdef int k
    if r.kind != R_SLOTS or r.index != NULL or r.step != 1:
        return n == 1
    for k in range(n):
        if adjoint[r.start + k] != adjoint[r.start] + k:
            return False
    return True


cdef int place_gradients(Plan p) except -1:
    """A gradient is there from the last instruction that reads the slot back to the one that computes it.

    Those that take turns in one place stay in the nearest cache, and there is room for twice the lanes: the ODE of the
    benchmarks with 7,700 operations, 128 lanes, 1.1 ns an operation and row, 1.6 with a place for each; with 1,900
    operations 1.02 and 1.08."""
    cdef Places m
    cdef Py_ssize_t k
    cdef Instr *q
    cdef int[::1] adjoint = np.full(p.n_slots + 1, -1, np.int32), first = np.zeros(p.n_slots + 1, np.int32)
    cdef int[::1] count = np.zeros(p.n_slots + 1, np.int32), birth_of = np.zeros(p.n_lanes + 2, np.int32)
    cdef int j
    memset(&m, 0, sizeof(Places))
    m.adjoint, m.first, m.count = &adjoint[0], &first[0], &count[0]
    for k in range(p.n_lanes):
        q = &p.lanes[k]
        if q.run < 0:
            count[q.out] = q.n
            for j in range(q.n):
                first[q.out + j] = q.out
    try:
        if p.result_kind == R_SLOTS:
            begin_gradient(&m, p.result)
        birth_of[p.n_lanes] = <int>m.births.n
        for k in range(p.n_lanes - 1, -1, -1):
            q = &p.lanes[k]
            begin_operands(&m, p, q)
            birth_of[k] = <int>m.births.n
            if q.run < 0:
                end_gradient(&m, q)
        births = ints_array(&m.births).reshape(-1, 2)
    finally:
        PyMem_RawFree(m.births.at)
        for j in range(32):
            PyMem_RawFree(m.spare[j].at)
    for k in range(p.n_lanes):
        q = &p.lanes[k]
        q.a.together, q.b.together = side_by_side(&q.a, q.n, m.adjoint), side_by_side(&q.b, q.n, m.adjoint)
    # they were listed from the last instruction to the first
    p.births = np.ascontiguousarray(np.concatenate([births[::-1], np.zeros((1, 2), np.int32)]))
    ends = np.asarray(birth_of)[:p.n_lanes + 1] // 2
    p.birth_of = np.append(len(births) - ends, np.int32(len(births))).astype(np.int32)
    p.adjoint, p.n_adjoints = np.asarray(adjoint), m.top
    return 0


cdef void for_each_list(Rewriter r) noexcept:
    PyMem_RawFree(r.p.at)
    PyMem_RawFree(r.q.at)
    PyMem_RawFree(r.sign.at)
    PyMem_RawFree(r.first.at)
    PyMem_RawFree(r.root.at)
    PyMem_RawFree(r.zeros.at)
    PyMem_RawFree(r.group.at)
    PyMem_RawFree(r.direct.at)
    PyMem_RawFree(r.constant_nodes.at)


cdef object extended(array, Py_ssize_t room):
    out = np.zeros(room, array.dtype)
    out[:len(array)] = array
    return out


cdef object twice(view):
    array = np.asarray(view)
    return np.concatenate([array, np.zeros_like(array)])


cdef object ints_array(Ints *m):
    out = np.empty(m.n, np.int32)
    cdef int[::1] view = out
    cdef Py_ssize_t k
    for k in range(m.n):
        view[k] = m.at[k]
    return out


def summary(operations, counts):
    """`counts`: (name, size) of each instruction.  Matrix products, then what is wide, then single operations."""
    products, wide, single = {}, {}, {}
    for name, size in counts:
        if name == "matrix product":
            products[size] = products.get(size, 0) + 1
        elif size > 1:
            wide[f"{name}({size})"] = wide.get(f"{name}({size})", 0) + 1
        else:
            single[name] = single.get(name, 0) + 1
    parts = []
    if products:
        n = sum(products.values())
        sizes = ", ".join(f"{m}x{k}" + (f" {c} times" if c > 1 else "") for (m, k), c in products.items())
        parts.append(f"{n} matrix product{'s' if n > 1 else ''} ({sizes})")
    parts += [f"{c} {name}" for name, c in wide.items()]
    parts += [f"{c} {name}" for name, c in single.items()]
    return f"{operations:,} operations -> " + (", ".join(parts) or "nothing: the result does not depend on any")


def rewrite(graph, sizes, shared=frozenset(), trained=None, bint plain=False):
    """The Plan of a Graph.  plain: one instruction for each operation, in the order of the function.

    sizes: by input, how many numbers an array has.  shared: inputs that are one number for all rows.
    trained: by capture, whose elements' gradients are wanted (`trained_elements`); None: all.
    """
    cdef Rewriter r = Rewriter()
    units, levels = [], []
    r.plan = Plan()
    r.plan.operations = graph.operations
    r.plain = r.plan.plain = plain
    r.load(graph, shared, trained, sizes)
    if plain:
        r.take_plainly()
    else:
        r.find_exact(graph)
    r.simplify()
    r.reach(graph.result, graph.guards)
    r.collect_sums()
    r.collect_products()
    r.schedule(units, levels)
    r.place_matrices()
    r.emit_section(units[0], levels[0], False)
    r.emit_inputs()
    if plain:
        r.copy_leaves()
    r.emit_section(units[1], levels[1], True)
    r.finish(graph)
    place_gradients(r.plan)
    r.plan.seal()
    return r.plan
