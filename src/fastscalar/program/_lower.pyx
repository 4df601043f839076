# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False
"""From the graph of a program to its plan: dense kernels recovered from scalar code.

The boundary: reads a Graph, writes a Plan (`_replay`); knows no tape and computes nothing but constants.

1. simplify: constants are folded, common subexpressions shared, every node is a constant, uniform (of captured leaves
   only) or one number for each row (of the inputs).
2. reach: what neither the result nor a decision needs is dropped.
3. sums: trees of + and - whose inner nodes are read nowhere else become n-ary sums of numbers and products.
4. products: per-row * uniform products of several sums that share their per-row operands become a matrix product,
   whatever the order in which the program wrote them.  Its weights get a place of their own, input by input.
5. levels: instructions in the order of their depth; equal operations of one depth on neighbours become one.
All of it is linear, or n log n for sorting.

A *plain* plan has none of this: one instruction for each operation, in the order of the function, by the engine's own
functions, and every computed number is one for each row.  It is for rows with numbers that are infinite, NaN or nearly
as large: for these the order of additions is no matter of rounding.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawFree
from libc.string cimport memset

from fastscalar._core cimport *
from fastscalar.program._graph cimport *
from fastscalar.program._kernels cimport *
from fastscalar.program._plan cimport Plan
from fastscalar.program.emit cimport *
from fastscalar.program.gradients cimport *
from fastscalar.program.ints cimport *
from fastscalar.program.operands cimport *
from fastscalar.program.places cimport *
from fastscalar.program.plan cimport *
from fastscalar.program.products cimport *
from fastscalar.program.simplify cimport *

import zlib

import numpy as np

from fastscalar.engine._functions import operations as _operations


BEST = {BEST_NAMES[code]: code for code in (BEST_MAX, BEST_MIN, BEST_ARGMAX, BEST_ARGMIN)}
NAMES = {code: name for code, name, _, _ in _operations()}
NAMES[<int>SQUARE] = "square"
NAMES[<int>COPY] = "copy"


cdef int fill_fast() except -1:
    """The kernels of operations, which go by the same names."""
    cdef int op, code
    cdef dict codes = {name: code for code, name in NAMES.items()}
    for code in range(256):
        FAST[code] = -1
    for op in range(FS_N_OPERATIONS):
        if fs_operation_name(op) != NULL:
            FAST[<int>codes[fs_operation_name(op).decode()]] = op
    return 0


crc32 = zlib.crc32
fill_fast()


def _kernel(str name):
    """For tests: the kernel of an operation, by its name in the table; -1: it has none."""
    return FAST[<int>next(code for code, known in NAMES.items() if known == name)]


cdef class LoweredItem:
    pass


cdef class ProductGroup:
    pass


cdef LoweredItem lowered_item(tuple item):
    """An item of a graph (`extract` says what is in it) with names."""
    cdef LoweredItem new = LoweredItem.__new__(LoweredItem)
    new.kind, new.first, new.outputs, new.x = item[:4]
    new.argument = new.matrix = new.bias_matrix = -1
    if new.kind == "affine":
        new.weights, new.bias = item[4:]
    elif new.kind == "gather":
        new.argument = item[4]
        if new.argument < 0:
            new.place = item[5]
    elif new.kind == "cross_entropy":
        new.argument, new.label = item[4:]
    elif new.kind == "conv2d":
        new.weights, new.bias, new.geometry = item[4:]
    elif new.kind == "max_pool2d":
        new.geometry = item[4]
    elif new.kind == "where":
        new.comparison = item[4]
    elif new.kind == "call":
        new.callee = item[4]
    return new


cdef class Lowering:
    """A graph on its way to a plan."""

    def __dealloc__(self):
        for_each_list(self)

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
        self.items = []
        for item in graph.items:
            self.items.append(lowered_item(item))
        self.item_level = np.full(len(self.items) + 1, -1, np.int32)
        self.input_kinds, self.input_sizes = graph.inputs, sizes
        self.shared, self.trained = shared, trained
        if trained:
            self.wanted = np.concatenate(trained)
            self.begin = np.cumsum([0] + [len(elements) for elements in trained])
        self.groups, self.counts, self.tables, self.raising = [], [], {}, set()
        self.known_items, self.twin = {}, np.full(len(graph.items) + 1, -1, np.int32)
        self.matrices, self.packs = {}, {}
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

    cdef int finish(self, graph) except -1:
        cdef Guard guard
        cdef Py_ssize_t k
        cdef int i, p, q
        cdef const RecordedGuard[::1] guards = graph.guards
        cdef set known = set()
        plan = self.plan
        cdef int[:, ::1] results = np.empty((len(graph.results), 2), np.int32)
        for k in range(results.shape[0]):
            i = self.rep[graph.results[k]]
            results[k, 0] = R_SLOTS if self.depends[i] == C_PER_ROW else R_UNIFORM
            results[k, 1] = slot_of(self, i) if self.depends[i] == C_PER_ROW else address_of(self, i)
        plan.results = results.base
        for k in range(guards.shape[0]):
            p, q = self.rep[guards[k].left], self.rep[guards[k].right] if guards[k].right >= 0 else -1
            if self.depends[p] == C_CONSTANT and (q < 0 or self.depends[q] == C_CONSTANT):
                continue
            memset(&guard, 0, sizeof(Guard))
            guard.op, guard.value = guards[k].op, guards[k].value
            guard.kind = R_SLOTS if self.depends[p] == C_PER_ROW else R_UNIFORM
            guard.p = slot_of(self, p) if self.depends[p] == C_PER_ROW else address_of(self, p)
            guard.other = R_NONE
            if q >= 0:
                guard.other = R_SLOTS if self.depends[q] == C_PER_ROW else R_UNIFORM
                guard.q = slot_of(self, q) if self.depends[q] == C_PER_ROW else address_of(self, q)
            key = PyBytes_FromStringAndSize(<char *>&guard, sizeof(Guard))
            if key not in known:                 # a loop may ask the same a thousand times
                known.add(key)
                plan.add_guard(&guard)
        at = self.at.base
        for k in range(len(plan.tables)):
            nodes = plan.tables[k]
            for i in nodes:
                address_of(self, i)
            plan.tables[k] = self.at.base.take(nodes)
        at = self.at.base[:self.n]
        nodes = np.flatnonzero((self.op.base[:self.n] == G_PARAMETER) & (at >= 0))
        plan.capture_of = self.a.base.take(nodes)
        plan.offset_of = self.b.base.take(nodes)
        plan.address_of = at.take(nodes)
        plan.count_of = np.ones(len(nodes), np.int32)
        plan.n_slots, plan.n_uniform = self.next_slot, (self.next_address + PAD - 1) // PAD * PAD
        plan.trained = np.zeros(plan.n_uniform, np.uint8)
        np.put(plan.trained, plan.address_of, self.mask.base.take(nodes) != 0)
        for i in np.flatnonzero((self.op.base[:self.n] == G_BLOCK) & (at >= 0)):
            self.finish_block(i)
        constants = ints_array(&self.constant_nodes)
        plan.constant_at = self.at.base.take(constants)
        plan.constant_value = self.value.base.take(constants)
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
        """What was recovered, the array operations one by one."""
        return summary(self.plan.operations, self.counts)


cdef object extended(array, Py_ssize_t room):
    out = np.zeros(room, array.dtype)
    out[:len(array)] = array
    return out


cdef object twice(view):
    array = view.base
    return np.concatenate([array, np.zeros_like(array)])


cdef void for_each_list(Lowering r) noexcept:
    PyMem_RawFree(r.p.at)
    PyMem_RawFree(r.q.at)
    PyMem_RawFree(r.sign.at)
    PyMem_RawFree(r.first.at)
    PyMem_RawFree(r.root.at)
    PyMem_RawFree(r.zeros.at)
    PyMem_RawFree(r.group.at)
    PyMem_RawFree(r.direct.at)
    PyMem_RawFree(r.constant_nodes.at)


def summary(operations, counts):
    """`counts`: (name, size) of each instruction.  Matrix products, then several numbers at once, then single ones."""
    products, several, single = {}, {}, {}
    for name, size in counts:
        if name == "matrix product":
            products[size] = products.get(size, 0) + 1
        elif size > 1:
            several[f"{name}({size})"] = several.get(f"{name}({size})", 0) + 1
        else:
            single[name] = single.get(name, 0) + 1
    parts = []
    if products:
        n = sum(products.values())
        sizes = ", ".join(f"{m}x{k}" + (f" {c} times" if c > 1 else "") for (m, k), c in products.items())
        parts.append(f"{n} matrix product{'s' if n > 1 else ''} ({sizes})")
    parts += (f"{c} {name}" for name, c in several.items())
    parts += (f"{c} {name}" for name, c in single.items())
    return f"{operations:,} operations -> " + (", ".join(parts) or "nothing: the result does not depend on any")


def lower(graph, sizes, shared=frozenset(), trained=None, bint plain=False):
    """The Plan of a Graph.  plain: one instruction for each operation, in the order of the function.

    sizes: by input, how many numbers an array has.  shared: inputs that are one number for all rows.
    trained: by capture, whose elements' gradients are wanted (`trained_elements`); None: all.
    """
    cdef Lowering low = Lowering()
    units, levels = [], []
    low.plan = Plan()
    low.plan.operations = graph.operations
    low.plain = low.plan.plain = plain
    low.load(graph, shared, trained, sizes)
    if plain:
        take_plainly(low)
    else:
        find_exact(low, graph)
    simplify(low)
    reach(low, graph.results, graph.guards)
    collect_sums(low)
    collect_products(low)
    schedule(low, units, levels)
    place_matrices(low)
    emit_section(low, units[0], levels[0], False)
    emit_inputs(low)
    emit_draws(low, graph.draws)
    if plain:
        copy_leaves(low)
    emit_section(low, units[1], levels[1], True)
    low.finish(graph)
    place_gradients(low.plan)
    low.plan.seal()
    return low.plan
