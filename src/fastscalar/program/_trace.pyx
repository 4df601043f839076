# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False
"""Recording a program: what a function did to its inputs, as a graph of its own.

The boundary: a Recording listens while a function runs once (`_core` and `_array` tell it what the tape does not show),
and `extract` copies what its result was computed from off the tape into a Graph.  Nothing else of the room reads nodes
of the tape, but for the leaves that replays copy in and out.
"""

from cpython.mem cimport PyMem_RawFree
from cpython.object cimport PyObject
from libc.string cimport memset

from fastscalar.engine._array cimport *
from fastscalar.engine._traced cimport TracedBool, TracedInt
from fastscalar._core cimport *
from fastscalar.engine.memory cimport allocate_zeroed, out_of_memory
from fastscalar.engine.array_ops cimport elements_of, node_of
from fastscalar.engine.marks cimport mark_node, previous
from fastscalar.engine.names cimport name_of
from fastscalar.engine.numbers cimport compare_numbers
from fastscalar.engine.passed cimport first_passed, is_chosen, is_leaf, list_choices, mark_once, operand
from fastscalar.program._graph cimport *
from fastscalar.program._items cimport add_items, count_operations
from fastscalar.program.ints cimport *

import math
import sys

import numpy as np

from fastscalar.engine._modes import record, set_recording, swap_recording
from fastscalar._paths import is_users
from fastscalar.program.identities import wants_bools
from fastscalar.program.messages import Message
from fastscalar.program.subscripts import list_and_index
from fastscalar.program._graph import GUARD, marked

cdef extern from "Python.h":     # with references as they are counted, which the frames of a hot loop should not cost
    ctypedef struct PyFrameObject
    ctypedef struct PyCodeObject
    PyFrameObject *PyEval_GetFrame()
    PyFrameObject *PyFrame_GetBack(PyFrameObject *frame)
    PyCodeObject *PyFrame_GetCode(PyFrameObject *frame)
    int PyFrame_GetLasti(PyFrameObject *frame)
    const void *PyThreadState_Get()
    void Py_XINCREF(void *x)
    void Py_DECREF(void *x)
    void Py_XDECREF(void *x)


class NotReplayable(Exception):
    """The function does something that only Python can do; the message says what.

    lost: as of the recording."""

    lost = ()


class BodyLeaks(BaseException):
    """What happened in the body of a loop is no instruction: the function is to be recorded with its loops unrolled.

    Not an Exception, which the function might catch."""


cdef class Recording(Recorder):
    """Context in which calls of this thread are written down as a program."""

    def __init__(self):
        self.lost, self.said, self.without = [], set(), set()
        self.inputs, self.stopped, self.ieee, self.codes = [], [], [], []
        self.code_numbers, self.copies, self.lists, self.draws, self.callees = {}, {}, {}, {}, {}
        self.bodies, self.drawn_in_loops, self.uncertain = [], [], {}

    def __dealloc__(self):
        PyMem_RawFree(self.table)

    def __enter__(self):
        self.born = <int>tape.n
        self.context = record()
        self.context.__enter__()
        try:
            set_recording(self)
        except BaseException:
            self.context.__exit__()
            raise
        return self

    def begin(self):
        """The inputs are there; leaves that are made from now on are constants."""
        self.first = <int>tape.n

    def __exit__(self, *exc):
        if not self.closed:
            self.closed = True
            set_recording(None)
            self.context.__exit__()

    # --- bodies of loops, which have recordings of their own ---

    def inside(self, Recording outer not None):
        """Listen in place of another recording, to a body in it, until `leave`.  What the body reads of what is older
        are its captures."""
        self.outer, self.born, self.cut, self.plain_floats = outer, outer.born, <int>tape.n, outer.plain_floats
        swap_recording(self)

    def leave(self):
        """Hand back to the recording around it.  What was made here is not to be read there: that would be the numbers
        of one iteration."""
        if not self.closed:
            self.closed = True
            swap_recording(self.outer)
            self.outer.lost += self.lost
            self.outer.bodies.append((self.cut, tape.n))

    def part(self, int first):
        """What was recorded from a node on, for `extract`, without decisions; what is older is captured."""
        cdef Recording made = Recording()
        made.born, made.first, made.cut, made.closed = self.born, first, first, True
        made.draws, made.drawn_in_loops, made.uncertain = self.draws, self.drawn_in_loops, self.uncertain
        made.callees, made.copies, made.bodies = self.callees, self.copies, self.bodies
        made.stopped, made.ieee = self.stopped, self.ieee
        return made

    @property
    def length(self):
        """Nodes of the tape: where in it the next one will stand."""
        return tape.n

    def leaf_before(self, Tensor t not None):
        """Whether it is a leaf that was there before the function was called."""
        return t.index < self.born and is_leaf(t.index)

    @property
    def reads(self):
        """Whether numbers were read, and not only compared."""
        cdef Py_ssize_t k
        return any([GUARD_SAME <= self.table[k].op < GUARD_RAISES for k in range(self.n)])

    cdef int leak(self) except -1:
        """A decision, or a number, of a body that has ended."""
        if self.outer is not None and not self.outer.closed:
            self.outer.leaked = True
        return 0

    # --- what the engine tells ---

    cdef object compare(self, int op, Tensor left, Tensor right, double number):
        cdef TracedBool traced
        cdef double y = number if right is None else tape.value[right.index]
        cdef bint outcome = compare_numbers(op, tape.value[left.index], y)
        if wants_bools(sys._getframe()):
            self.decided(op, left, right, number, outcome)
            return outcome
        traced = TracedBool.__new__(TracedBool)
        traced.recording, traced.op, traced.outcome = self, op, outcome
        traced.left, traced.right, traced.number = left, right, number
        return traced

    cdef int decided(self, int op, Tensor left, Tensor right, double number, bint outcome) except -1:
        cdef int q
        if self.closed or left.index == 0:       # kept until the graph had been made; node 0 is NaN
            return self.leak()
        q = node_of_number(number) if right is None else right.index
        return self.add_guard(op, left.index, q, outcome) if q else 0

    cdef int number_read(self, int node, str how) except -1:
        cdef double v = tape.value[node]
        cdef int op = READINGS.get(how, GUARD_SAME)
        if self.closed:
            return self.leak()
        if v - v != 0.0:                         # int() of it raises
            op = GUARD_SAME
        self.add_guard(op, node, -1, truncated(op, v))
        if how == "a whole number":
            self.find_list(self.n - 1, node)
        if how in LOSING and self.depth == 0 and self.table[self.n - 1].code >= 0:
            place = self.codes[self.table[self.n - 1].code], self.table[self.n - 1].instruction
            if place not in self.said and self.has_gradient(node):
                self.said.add(place)
                self.lost.append(place)
        return 0

    cdef int find_list(self, Py_ssize_t decision, int node) except -1:
        """Note of what list a whole number is read as an index, if that can be seen and its elements are Tensors.

        What a function does with a plain number (a decision, what raises) is in no recording: their lists say
        nothing."""
        found = list_and_index(sys._getframe())
        if found is None:
            return 0
        elements, index = found
        if type(index) is TracedInt and (<TracedInt>index).tensor.index == node:
            if set(map(type, elements)) == {Tensor}:
                self.lists[decision] = elements
        return 0

    def forget_lists(self):
        """What is recorded now depends on how its operands were made (derivatives do): another element of a list may
        have been made otherwise, so its lists say nothing."""
        cdef Recording recording = self
        while recording is not None:
            recording.lists.clear()
            recording = recording.outer

    cdef bint may_select(self, list some, set arrays) except -1:
        """Whether elements of a list may stand in the graph although none was read: not leaves of the user's,
        which the program would have for its parameters then."""
        cdef Tensor t
        cdef set numbers = {(<Tensor>handle).index for kind, handle in self.inputs if kind == "number"}
        for t in some:
            if t.index < self.first and t.index not in numbers and (
                    tape.record[t.index].op != ARRAY_OP or tape.record[t.index].a not in arrays):
                return False
        return True

    cdef bint is_stopped(self, int i, int since) except -1:
        """Whether a node was made in a block of no_grad that was opened since a node, as one that is still open was."""
        for first, stop in self.stopped:
            if since <= first <= i and (i < stop or stop == first) and not is_chosen(i):
                return True
        return self.outer is not None and self.outer.is_stopped(i, since)

    def depends(self, Tensor root not None, list inputs not None):
        """Whether root was computed from one of these Tensors, or is one, by what it chose on the way.

        Where it was not, but would have been by another choice, the program holds only for rows that choose the
        same."""
        cdef Tensor t
        cdef set wanted = {t.index for t in inputs}
        cdef list choices = []
        if self.reaches(root.index, wanted, True, choices):
            return True
        if choices and self.reaches(root.index, wanted, False, []):
            self.keep(choices)
        return False

    cdef bint has_gradient(self, int node) except -1:
        """Whether a node was computed from numbers that have one: arguments and captured leaves, not whole numbers.

        Where it was not because of what a row chose, the program holds only for rows that choose the same."""
        cdef list choices = []
        cdef bint found = self.reaches(node, None, True, choices)
        if not found:
            self.keep(choices)
        return found

    cdef int keep(self, list choices) except -1:
        cdef double value
        for op, left, right in choices:
            value = tape.value[<int>left] if right < 0 else compare_numbers(op, tape.value[left], tape.value[right])
            self.add_guard(GUARD_SAME if right < 0 else op, left, right, value)
        return 0

    cdef bint reaches(self, int node, set wanted, bint chosen, list choices) except -1:
        """Whether a node was computed from one of some nodes; None: from any that has a gradient.

        No node is looked at twice: `without` are those that were found to have none.  chosen: not by what it did not
        choose; `choices` are the comparisons that say so.  In a loop other steps choose otherwise: then it is to be
        recorded step by step."""
        cdef int i, since = 0 if wanted is None else min(wanted)
        cdef list seen = []
        cdef bint found = False, unsure = False
        cdef ArrayOp *q
        cdef Py_ssize_t k, first, stop
        cdef set whole = self.whole_numbers() if wanted is None else set()
        start_look()
        try:
            mark_once(node)
            i = previous(<int>tape.n)
            while i > 0 and not found:
                tape.at = i                         # what is still marked is cleared from here on
                tape.mark[i] = 0
                seen.append(i)
                q = tape.array_ops[tape.record[i].a] if tape.record[i].op == ARRAY_OP else NULL
                if wanted is not None and i in wanted:
                    found = True
                elif i < since or (wanted is None and i in self.without) or self.is_stopped(i, since):
                    pass
                elif is_leaf(i) or tape.record[i].op == CONST:
                    found = wanted is None and i < self.first and tape.record[i].op != CONST and i not in whole
                elif q != NULL and q.op == A_CUSTOM and (callee := self.callee_of(q)) is not None:
                    unsure |= self.mark_sources(q, callee)
                else:
                    first = first_passed(i, chosen, &stop)
                    for k in range(first, stop):
                        mark_once(operand(i, k, NULL))
                    if chosen:
                        list_choices(i, choices)
                i = previous(i)
        finally:
            end_sweep()
        if found and unsure and chosen:
            raise BodyLeaks
        if not found and wanted is None:
            self.without.update(seen)
        return found

    cdef set whole_numbers(self):
        cdef set whole = set() if self.outer is None else self.outer.whole_numbers()
        whole.update([(<TracedInt>handle).tensor.index for kind, handle in self.inputs if kind == "whole"])
        return whole

    cdef object callee_of(self, ArrayOp *q):
        """What computes an operation of the user's, here or in a recording around it; the number of what it is of."""
        cdef Recording recording = self
        while recording is not None:
            if q.start in recording.callees:
                return recording.callees[q.start]
            recording = recording.outer
        return None

    cdef bint mark_sources(self, ArrayOp *q, callee) except -1:
        """What passes a gradient to an operation of the user's, or to a number of the state of a loop; whether it is
        one whose steps may choose what does."""
        cdef int k = 0
        if type(callee) is int:
            k = callee
            q = tape.array_ops[tape.record[node_of(&q.x, 0)].a]
            callee = self.callee_of(q)
        for place in callee.sources[k] if hasattr(callee, "sources") else range(elements_of(&q.x)):
            mark_once(node_of(&q.x, place))
        return getattr(callee, "chooses", False)

    cdef int raised(self, int code, int left, int right, double x, double y) except -1:
        """The caller may catch it: from now on the program holds only for rows that raise here too."""
        cdef double v
        if self.closed:
            return 0
        if not left:
            left = node_of_number(x)
        if not right:
            right = node_of_number(y) if row(code).arity == 2 else -1
        v = row(code).f(x) if row(code).arity == 1 else row(code).f2(x, y)
        return self.add_guard(GUARD_RAISES, left, right, code + 256 * kind_of_error(x, v))

    cdef object message(self, str text, int left, int right):
        message = Message(text)
        message.recording, message.nodes = self, [node for node in (left, right) if node > 0]
        return message

    def read_nodes(self, nodes):
        """The values of some nodes were read."""
        for node in nodes:
            self.number_read(node, "the message of an error")

    cdef int detached(self, int copy, int node) except -1:
        self.copies[copy] = node
        return 0

    cdef int drawn(self, int node, object draw) except -1:
        self.draws[node] = draw
        return 0

    cdef int called(self, int node, object callee) except -1:
        self.callees[node] = callee
        return 0

    cdef int stop_gradients(self) except -1:
        if self.depth == 0:
            self.stopped.append([tape.n, tape.n])
        self.depth += 1
        return 0

    cdef int begin_ieee(self) except -1:
        self.ieee += [[tape.n, tape.n]] if self.ieee_depth == 0 else []
        self.ieee_depth += 1
        return 0

    cdef int end_ieee(self) except -1:
        self.ieee_depth -= 1
        if self.ieee_depth == 0:
            self.ieee[len(self.ieee) - 1][1] = tape.n
        return 0

    cdef int resume_gradients(self) except -1:
        self.depth -= 1
        if self.depth == 0:
            first = self.stopped.pop()[0]
            if first < tape.n:                   # an empty range is one that is still open
                self.stopped.append([first, tape.n])
        return 0

    # --- decisions ---

    cdef int add_guard(self, int op, int left, int right, double value) except -1:
        cdef RecordedGuard d
        d.value, d.op, d.left, d.right, d.code, d.instruction = value, op, left, right, -1, -1
        self.find_place(&d)                      # may run Python's collector, and so a destructor that decides too
        (<RecordedGuard *>room_for(<void **>&self.table, &self.room, self.n, sizeof(RecordedGuard)))[0] = d
        self.n += 1
        return 0

    cdef int find_place(self, RecordedGuard *d) except -1:
        """The innermost frame of the user's, as its code and the instruction in it: its line is asked for once in a
        thousand times, and costs more than the decision."""
        cdef PyFrameObject *frame = PyEval_GetFrame()
        cdef PyFrameObject *back
        cdef PyCodeObject *code
        Py_XINCREF(frame)
        try:
            while frame != NULL:
                code = PyFrame_GetCode(frame)
                try:
                    d.code = self.code_number(<PyObject *>code)
                finally:
                    Py_DECREF(code)
                if d.code >= 0:
                    d.instruction = PyFrame_GetLasti(frame)
                    break
                back = PyFrame_GetBack(frame)
                Py_DECREF(frame)
                frame = back
        finally:
            Py_XDECREF(frame)
        return 0

    cdef int code_number(self, PyObject *code) except -2:
        """The number of a code object in `codes`, -1: it is not the user's."""
        cdef size_t slot = (<size_t>code >> 6) % KNOWN
        if self.known[slot] == code:
            return self.known_number[slot]
        entry = self.code_numbers.get(<size_t>code)
        if entry is None:
            users = is_users((<object>code).co_filename)
            entry = <object>code, len(self.codes) if users else -1    # kept, so that no other gets its address
            if users:
                self.codes.append(<object>code)
            self.code_numbers[<size_t>code] = entry
        self.known[slot], self.known_number[slot] = code, entry[1]
        return entry[1]

    cdef object guards(self):
        """The decisions, as an array, which takes them over; their nodes are those of the tape."""
        cdef Py_ssize_t n = self.n
        self.n = self.room = 0
        return taken(<void **>&self.table, n, GUARD)


cdef tuple LOSING = ("float()", "tolist()")      # readings after which computing may go on
cdef dict READINGS = {"int()": GUARD_TRUNC, "floor()": GUARD_FLOOR, "ceil()": GUARD_CEIL}


cdef double truncated(int op, double v):
    if op == GUARD_SAME:
        return v
    return float(math.trunc(v) if op == GUARD_TRUNC else math.floor(v) if op == GUARD_FLOOR else math.ceil(v))


# --- from the tape --------------------------------------------------------------------------------

cdef int oldest = 0          # nodes before this one are not looked into: what a body captures


cdef void mark_computed(int p) noexcept nogil:
    """Mark a node; of an instruction that computes, its last one."""
    cdef ArrayOp *q
    if p <= 0:
        return
    if tape.record[p].op == ARRAY_OP and p >= oldest:
        q = tape.array_ops[tape.record[p].a]
        if q.op != A_LEAF:
            p = q.start + q.count - 1
    if not tape.mark[p]:
        mark_node(p)


cdef void mark_operand(Operand *o) noexcept nogil:
    cdef int k
    if o.kind == RUN:
        if o.start >= oldest and tape.record[o.start].op == ARRAY_OP and (
                tape.array_ops[tape.record[o.start].a].op != A_LEAF):
            mark_computed(o.start)
            return
        for k in range(o.count):
            mark_computed(o.start + k)
    elif o.kind == STRIDED:
        if o.start >= oldest and tape.array_ops[tape.record[o.start].a].op != A_LEAF:
            mark_computed(o.start)
            return
        for k in range(elements_of(o)):
            mark_computed(node_of(o, k))
    elif o.kind == INDEX:
        for k in range(o.count):
            mark_computed(o.index[k])


cdef void mark_array(Operand *o) noexcept nogil:
    """The same, and of a run in one array of leaves a single node: it stands for the array."""
    if o.kind == RUN and o.count and tape.record[o.start].op == ARRAY_OP and (
            tape.record[o.start + o.count - 1].op == ARRAY_OP) and (
            tape.record[o.start].a == tape.record[o.start + o.count - 1].a):
        mark_computed(o.start)
    else:
        mark_operand(o)


cdef Operand *matrix_of(ArrayOp *q) noexcept nogil:
    """The operand of an instruction that is a matrix, of `columns_of` columns, to it; else NULL."""
    if q.op == A_AFFINE and q.x.kind != SPARSE and not q.dense:
        return &q.y
    return &q.x if q.op == A_GATHER else NULL


cdef int columns_of(ArrayOp *q) noexcept nogil:
    return q.cols if q.op == A_AFFINE else q.count


cdef bint reads_block(ArrayOp *q, Py_ssize_t first, set inputs, dict blocks) except -1:
    """Whether its matrix is a captured array of leaves that may be a block: then it is one from now on."""
    cdef Operand *o = matrix_of(q)
    cdef ArrayOp *leaf
    if o == NULL or o.kind != RUN or tape.record[o.start].op != ARRAY_OP or oldest:
        return False
    leaf = tape.array_ops[tape.record[o.start].a]
    if leaf.op != A_LEAF or leaf.count != o.count or leaf.start >= first or leaf.slot in inputs:
        return False
    return blocks.setdefault(o.start, columns_of(q)) == columns_of(q)


cdef list own_stretches(Py_ssize_t first):
    """[begin, end) of the nodes from first on that this thread has made."""
    cdef const void *here = PyThreadState_Get()
    cdef list own = []
    cdef Py_ssize_t k, begin, end
    for k in range(tape.n_shifts):
        begin = max(first, tape.shifts[k].first)
        end = tape.shifts[k + 1].first if k + 1 < tape.n_shifts else tape.n
        if tape.shifts[k].thread == here and begin < end:
            own.append((begin, end))
    return own


cdef bint is_used_by_others(Py_ssize_t first):
    """Whether other threads have read, or computed with, nodes from first on that this thread has made."""
    cdef const void *here = PyThreadState_Get()
    cdef Py_ssize_t k, i, end
    for i in foreign_reads:
        if made_by(i, tape.n_shifts - 1, first, here):
            return True
    for k in range(tape.n_shifts):
        end = tape.shifts[k + 1].first if k + 1 < tape.n_shifts else tape.n
        for i in range(max(first, tape.shifts[k].first), end if tape.shifts[k].thread != here else 0):
            if tape.record[i].op > ARRAY_OP and (
                    made_by(tape.record[i].a, k, first, here) or made_by(tape.record[i].b, k, first, here)):
                return True
    return False


cdef bint made_by(Py_ssize_t node, Py_ssize_t shift, Py_ssize_t first, const void *thread) noexcept:
    """Whether a node from first on, of this shift or of one before it, is a thread's."""
    if node < first:
        return False
    while shift >= 0 and tape.shifts[shift].first > node:
        shift -= 1
    return shift >= 0 and tape.shifts[shift].thread == thread


cdef int list_nodes_of(Ints *m, list results, Recording recording, dict blocks, list own,
                       const unsigned char[::1] of_ieee) except -1:
    """What the results, the decisions and what may raise were computed from, from young to old: scalar nodes, leaves,
    last nodes of instructions.

    Not arrays of leaves that only serve as weights, or as tables: `blocks` has the first node of each, and its columns.
    These are millions of leaves, but one node of the graph."""
    cdef int i
    cdef Py_ssize_t k
    cdef ArrayOp *q
    cdef Operand *matrix
    cdef ArrayOp *last = NULL                       # the instruction that the node before was of
    cdef Py_ssize_t first = recording.first, begin, end
    cdef const unsigned char[::1] inside
    cdef dict copies = recording.copies
    cdef bint any_copies = len(copies) > 0
    cdef set seen = set()                        # tables: many rows are gathered from one
    cdef set inputs = {(<TensorArray>handle).slot for kind, handle in recording.inputs if kind == "array"}
    for t in results:
        mark_computed((<Tensor>t).index)
    for decision in list(recording.lists):                   # for selections of another one
        if recording.may_select(recording.lists[decision], inputs):
            for t in recording.lists[decision]:
                mark_computed((<Tensor>t).index)
        else:
            del recording.lists[decision]
    for k in range(recording.n):
        mark_computed(recording.table[k].left)
        mark_computed(recording.table[k].right)
    inside = marked(recording.bodies, first, tape.n)
    for begin, end in own:                          # an error whose number is not used is an error too
        for k in range(begin, end):
            if inside[k - first]:
                continue
            if tape.record[k].op > ARRAY_OP:
                if not never_raises(tape.record[k].op) and not of_ieee[k - first]:
                    mark_computed(<int>k)
            elif tape.record[k].op == ARRAY_OP and (           # an index or a label: out of range?
                    tape.array_ops[tape.record[k].a].op == A_CUSTOM or
                    tape.array_ops[tape.record[k].a].argument or tape.array_ops[tape.record[k].a].op == A_GATHER):
                mark_computed(<int>k)
    i = previous(<int>tape.n)
    while i > 0:
        tape.at = i
        if i >= first and inside[i - first]:
            recording.leaked = True
        if i < oldest:
            push(m, i)
            tape.mark[i] = 0
            i = previous(i)
            continue
        if tape.record[i].op == ARRAY_OP and tape.array_ops[tape.record[i].a] != last:
            last = tape.array_ops[tape.record[i].a]
            if last.op == A_LEAF and blocks.pop(last.start, None):       # single elements of it are read
                for k in range(last.start + last.count - 1, i, -1):
                    push(m, <int>k)
                for k in range(last.start, i):
                    mark_computed(<int>k)
        push(m, i)
        tape.mark[i] = 0
        if tape.record[i].op > ARRAY_OP:
            mark_computed(tape.record[i].a)
            if row(tape.record[i].op).arity == 2:
                mark_computed(tape.record[i].b)
        elif tape.record[i].op == ARRAY_OP:
            q = tape.array_ops[tape.record[i].a]
            if q.op == A_CUSTOM and q.start not in recording.callees:
                raise NotReplayable(f"the user's own operation {name_of(i) or 'Tensor(value, parents)'!r}")
            if q.op == A_CUSTOM and type(recording.callees[q.start]) is Tensor:
                mark_computed((<Tensor>recording.callees[q.start]).index)
                i = previous(i)
                continue
            matrix = matrix_of(q) if reads_block(q, first, inputs, blocks) else NULL
            if matrix == &q.x:
                pass
            elif q.op != A_GATHER or q.x.kind != RUN:
                mark_operand(&q.x)
            elif (q.x.start, q.x.count) not in seen:
                seen.add((q.x.start, q.x.count))
                mark_operand(&q.x)
            if matrix != &q.y:
                mark_operand(&q.y)
            mark_operand(&q.z)
        elif any_copies and i in copies:
            mark_computed(copies[i])
        i = previous(i)
    tape.at = 0
    return 0


def leaves_before(Tensor marker not None, Tensor result not None, dict known=None):
    """The leaves that a result was computed from and that are older than `marker`: Tensors, and arrays as TensorArrays
    of one dimension.  known: by `storage_of`, those that are not wanted."""
    cdef int i, first, slot = -1
    cdef Py_ssize_t place
    cdef ArrayOp *q
    cdef list nodes = []
    bound(result)
    lock_nodes()                               # handles are made when the sweep has ended
    try:
        first = marker.index
        start_sweep()
        try:
            mark_computed(result.index)
            i = previous(<int>tape.n)
            while i > 0:
                tape.at = i
                tape.mark[i] = 0
                if tape.record[i].op > ARRAY_OP:
                    mark_computed(tape.record[i].a)
                    mark_computed(tape.record[i].b)
                elif tape.record[i].op == ARRAY_OP and tape.array_ops[tape.record[i].a].op != A_LEAF:
                    q = tape.array_ops[tape.record[i].a]
                    mark_array(&q.x)
                    mark_array(&q.y)
                    mark_array(&q.z)
                elif i < first and tape.record[i].op != CONST and (tape.record[i].op != ARRAY_OP or tape.record[
                        i].a != slot):
                    slot = tape.record[i].a if tape.record[i].op == ARRAY_OP else -1
                    place = <Py_ssize_t>tape.handle[i] if slot < 0 else -1 - slot
                    if known is None or place not in known:
                        nodes.append(i)
                i = previous(i)
            tape.at = 0
        finally:
            end_sweep()
        return [array_of(tape.array_ops[tape.record[i].a]) if tape.record[i].op == ARRAY_OP else handle_of(
                i) for i in nodes]
    finally:
        unlock_nodes()


cdef object numbers_of(nodes, const int *number):
    """Which nodes of the graph Tensors are, in an array; number: of each node of the tape that plus 1.

    A comprehension of such numbers is not good enough: Cython releases one twice if its list cannot grow."""
    found = np.empty(len(nodes), np.int32)
    cdef int[::1] of = found
    cdef Py_ssize_t k
    for k, t in enumerate(nodes):
        of[k] = number[(<Tensor>t).index] - 1
    return found


def extract(Recording recording not None, list results not None):
    """The Graph of what a recorded call returned, as a list of Tensors; ends the recording.

    NotReplayable if there is something of the user's own in it.

    Items, each with its operands as arrays of nodes:
        ("affine", first, outputs, x, w (inputs x outputs, or 1 x 1: a block), b)
        ("cross_entropy", first, 1, x, input of the label or -1, label)
        ("conv2d", first, outputs, image, w (as of affine), b, geometry)
        ("max_pool2d", first, outputs, image, geometry)
        ("logsumexp", first, 1, x), ("softmax", first, outputs, x)
        ("gather", first, outputs, candidates (or a block), input of the index)
        ("gather", first, outputs, candidates (or a block), -1, [index])
        ("where", first, 1, [left, right, a, b], comparison)
        ("max" or "min" or "argmax" or "argmin", first, 1, x)
        ("call", first, outputs, x, callee)
    """
    global oldest
    cdef Graph g = Graph()
    cdef Ints m
    cdef int *number = NULL
    cdef RecordedGuard[::1] guards
    cdef const unsigned char[::1] of_ieee
    cdef Py_ssize_t k, begin, end, first, stop
    cdef long long operations = 0
    memset(&m, 0, sizeof(Ints))
    for t in results:
        bound(<Tensor?>t)
    lock_nodes()                               # the indices that the recording noted stay right
    cdef list own = own_stretches(recording.first)
    recording.__exit__()
    around = swap_recording(None)              # that of what the body is in
    try:
        if is_used_by_others(recording.born):
            raise NotReplayable("what another thread reads of it, or computes with,")
        if recording.refused is not None:
            raise NotReplayable(recording.refused)
        of_ieee = marked(recording.ieee, recording.first, tape.n)
        start_sweep()
        try:
            oldest = recording.cut
            list_nodes_of(&m, results, recording, g.blocks, own, of_ieee)
        finally:
            oldest = 0
            end_sweep()
        if recording.leaked:
            raise BodyLeaks
        number = <int *>allocate_zeroed(tape.n, sizeof(int))      # by node of the tape: node of the graph + 1
        if number == NULL:
            out_of_memory("a program", tape.n)
        copy_nodes(g, &m, number, recording, of_ieee)
        g.results = numbers_of(results, number)
        g.guards, g.codes = recording.guards(), recording.codes
        guards = g.guards
        for k in range(guards.shape[0]):
            guards[k].left = number[guards[k].left] - 1
            guards[k].right = -1 if guards[k].right < 0 else number[guards[k].right] - 1
        for decision, some in recording.lists.items():
            g.lists[decision] = numbers_of(some, number)
        stop_nodes(g, &m, number, recording)
        for begin, end in own:
            operations += count_operations(begin, end)
            for first, stop in recording.bodies:
                operations -= count_operations(max(first, begin), min(stop, end))
        g.operations = <int>min(operations, <long long>0x7fffffff)
    finally:
        swap_recording(around)
        unlock_nodes()
        PyMem_RawFree(number)
        PyMem_RawFree(m.at)
    g.inputs = [kind for kind, _ in recording.inputs]
    g.draws += recording.drawn_in_loops
    g.uncertain = len(recording.uncertain) > 0
    for _, _, _, site, _, at in g.draws:
        if at >= recording.uncertain.get(site, at + 1):
            raise BodyLeaks                        # its place in the stream depends on the row
    return g


cdef int stop_nodes(Graph g, Ints *m, const int *number, Recording recording) except -1:
    """Close the graph; nothing that was made in a block of no_grad passes a gradient on."""
    cdef Py_ssize_t k, j
    cdef int i, first, stop
    cdef ArrayOp *q
    cdef unsigned char[::1] stopped
    g.close()
    stopped = g.stopped
    for first, stop in recording.stopped:
        for k in range(m.n):
            i = m.at[k]
            if first <= i < stop and not is_chosen(i):
                stopped[number[i] - 1] = 1
                if tape.record[i].op == ARRAY_OP and tape.array_ops[tape.record[i].a].op != A_LEAF:
                    q = tape.array_ops[tape.record[i].a]
                    for j in range(q.start, q.start + q.count):
                        stopped[number[j] - 1] = 1
    return 0


cdef int copy_nodes(Graph g, Ints *m, int *number, Recording recording, const unsigned char[::1] of_ieee) except -1:
    cdef Py_ssize_t k
    cdef int i, op, b, leaf_op = 0, leaf_of = 0
    cdef Py_ssize_t at = 0
    cdef ArrayOp *q
    cdef ArrayOp *leaf = NULL                       # the array that the last leaf was of: leaf_op and leaf_of are its
    cdef dict arrays = {}
    cdef dict copies = recording.copies, draws = recording.draws
    cdef bint any_copies = len(copies) > 0
    cdef list blocks = sorted(g.blocks)
    cdef int first = recording.first, cut = recording.cut
    for k, (kind, handle) in enumerate(recording.inputs):
        if kind == "array":
            arrays[(<TensorArray>handle).slot] = k
        else:
            number[(<TracedInt>handle).tensor.index if kind == "whole" else (<Tensor>handle).index] = -1 - <int>k
    g.grow(m.n + 1)                              # only what stands for several operations needs more
    for k in range(m.n - 1, -1, -1):
        i = m.at[k]
        op = tape.record[i].op
        while at < len(blocks) and <int>blocks[at] < i:
            q = tape.array_ops[tape.record[<int>blocks[at]].a]
            g.blocks[q.start] = g.add(G_BLOCK, <int>len(g.captures), q.count // <int>g.blocks[q.start], 0.0, False)
            g.captures.append(array_of(q))
            at += 1
        if i < cut and op != CONST:
            number[i] = 1 + g.add(G_PARAMETER, <int>len(g.captures), 0, tape.value[i],
                                  not (i < recording.born and is_leaf(i)))
            g.captures.append(handle_of(i))
        elif op > ARRAY_OP:
            b = number[tape.record[i].b] - 1 if row(op).arity == 2 else -1
            if i >= first and of_ieee[i - first]:
                op |= IEEE
            number[i] = 1 + g.add(op, number[tape.record[i].a] - 1, b, tape.value[i],
                                  g.per_row_[number[tape.record[i].a] - 1] or (b >= 0 and g.per_row_[b]))
        elif op == ARRAY_OP:
            q = tape.array_ops[tape.record[i].a]
            if q.op != A_LEAF:
                if not add_items(g, q, number, recording.callees):
                    raise NotReplayable(f"the operation {name_of(q.start)!r}")
                continue
            if q != leaf:                        # its nodes lie, and come, one after the other
                leaf = q
                if q.slot in arrays:
                    leaf_op, leaf_of = G_INPUT, arrays[q.slot]
                elif q.start in draws:
                    leaf_op, leaf_of = G_RANDOM, <int>len(g.draws)
                    g.draws.append(draws[q.start])
                elif q.start >= first:
                    leaf_op = G_CONSTANT
                else:
                    leaf_op, leaf_of = G_PARAMETER, <int>len(g.captures)
                    g.captures.append(array_of(q))
            if leaf_op == G_CONSTANT:
                number[i] = 1 + g.constant(tape.value[i])
            else:
                number[i] = 1 + g.add(leaf_op, leaf_of, i - q.start, tape.value[i], leaf_op != G_PARAMETER)
        elif op == CONST:
            number[i] = 1 + g.constant(tape.value[i])
        elif any_copies and i in copies:
            b = number[<int>copies[i]] - 1
            number[i] = 1 + g.add(G_COPY, b, -1, tape.value[i], g.per_row_[b])
        elif number[i] < 0:
            number[i] = 1 + g.add(G_INPUT, -1 - number[i], 0, tape.value[i], True)
        elif i in draws:
            number[i] = 1 + g.add(G_RANDOM, <int>len(g.draws), 0, tape.value[i], True)
            g.draws.append(draws[i])
        elif i >= first:
            number[i] = 1 + g.constant(tape.value[i])
        else:
            number[i] = 1 + g.add(G_PARAMETER, len(g.captures), 0, tape.value[i], False)
            g.captures.append(handle_of(i))
    return 0
