# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: nonecheck=False
# The elementwise part of a plan as steps for `kernels/batch_steps.c`: resolved once, run for every chunk.
# Inline parts of `_replay`.
#
# What a step cannot do stays an instruction: FS_STEP_LEAVE with its number, and -1 at the end.  One list is for chunks
# of many rows, in which slots that follow each other are one stretch; the other for single rows, where a number that
# many operations share is one number beside a vector.  Gradients that begin are not set to zero first where a step can
# store instead of add.

from cpython.mem cimport PyMem_RawFree
from libc.string cimport memset

from fastscalar._core cimport *
from fastscalar.engine.memory cimport out_of_memory, reallocate
from fastscalar.program._kernels cimport *
from fastscalar.program._replay cimport *
from fastscalar.program.forward cimport is_flat, mode_of_one_row, place
from fastscalar.program.plan cimport *

cdef enum:
    VALUES = 0              # bases of places: values of slots, uniform numbers, gradients of slots, ports
    UNIFORM_NUMBERS = 1
    ADJOINTS = 2
    PORTS = 3


cdef inline void free_steps(StepList *list) noexcept:
    PyMem_RawFree(list.steps)
    PyMem_RawFree(list.new)
    memset(list, 0, sizeof(StepList))


cdef inline fs_step *add_step(StepList *list, int code, int op, int mode, int count) except NULL:
    cdef fs_step *s
    cdef void *grown
    if list.n == list.room:
        grown = reallocate(list.steps, (2 * list.room + 64) * sizeof(fs_step))
        if grown == NULL:
            out_of_memory("a program", list.n)
        list.steps, list.room = <fs_step *>grown, 2 * list.room + 64
    s = &list.steps[list.n]
    memset(s, 0, sizeof(fs_step))
    s.code, s.op, s.mode, s.count = <short>code, op, <signed char>mode, count
    list.n += 1
    return s


cdef inline void set_place(fs_step *s, int k, int base, int at) noexcept:
    s.base[k], s.at[k] = <unsigned char>base, at


cdef inline void set_operand(fs_step *s, int k, const Ref *a, int element) noexcept:
    if a.kind != R_NONE:
        set_place(s, k, VALUES if a.kind == R_SLOTS else UNIFORM_NUMBERS, place(a, element))


cdef inline int leave(StepList *list, int instruction) except -1:
    set_place(add_step(list, FS_STEP_LEAVE, 0, 0, 1), 0, VALUES, instruction)
    return 0


cdef inline int mode_of(const Instr *q) noexcept:
    """Of operations on some rows: which operand is one number for all of them."""
    return FS_VECTORS if q.a.kind == R_SLOTS and q.b.kind in (R_SLOTS, R_NONE) else (
        FS_B_IS_ONE if q.a.kind == R_SLOTS else FS_A_IS_ONE)


# --- forwards -------------------------------------------------------------------------------------

cdef inline int forward_steps(Replay r, StepList *list, bint one) except -1:
    cdef const Body *p = &r.plan.body
    cdef const Instr *q
    cdef int k, i, mode, together
    for k in range(<int>p.n_per_row):
        q = &p.per_row[k]
        if (q.steep or q.raises) and not (r.watch and not q.steep):
            leave(list, k)
        elif q.kind == I_SUM:
            sum_steps(r, list, q)
        elif q.kind == I_ELEMENTS and q.op >= 0:
            together = mode_of_one_row(q) if one else -1
            mode = together if together >= 0 else mode_of(q)
            if together >= 0 or (is_flat(&q.a, q.n, False) and is_flat(&q.b, q.n, False)):
                element_steps(list, q, mode, 0, q.n)
            else:
                for i in range(q.n):
                    element_steps(list, q, mode, i, 1)
        else:
            leave(list, k)
    return leave(list, -1)


cdef inline int element_steps(StepList *list, const Instr *q, int mode, int i, int count) except -1:
    cdef fs_step *s
    if q.b.kind == R_NONE:
        s = add_step(list, FS_STEP_NEG if q.op == FS_NEG else FS_STEP_SQUARE if q.op == FS_SQUARE else FS_STEP_UNARY,
                     q.op, mode, count)
    elif q.op <= FS_MAXIMUM:
        s = add_step(list, FS_STEP_BINARY + 3 * q.op + mode, q.op, mode, count)
    else:
        s = add_step(list, FS_STEP_OTHER, q.op, mode, count)
    set_place(s, 0, VALUES, q.out + i)
    set_operand(s, 1, &q.a, i)
    set_operand(s, 2, &q.b, i)
    return 0


cdef inline int sum_steps(Replay r, StepList *list, const Instr *q) except -1:
    cdef const Sum *sum = &r.plan.body.sums[q.extra]
    cdef const Term *t
    cdef fs_step *s = add_step(list, FS_STEP_SUM, sum.stop - sum.first, sum.zero, 1)
    cdef int k, code
    cdef bint p_slot, q_slot
    set_place(s, 0, VALUES, q.out)
    for k in range(sum.first, sum.stop):
        t = &r.plan.body.terms[k]
        p_slot, q_slot = t.p_kind == R_SLOTS, t.q_kind == R_SLOTS
        if not p_slot and not q_slot:
            code = FS_TERM_NUMBER
        elif t.q_kind == R_NONE:
            code = FS_TERM if t.sign > 0 else FS_TERM_LESS
        elif p_slot and q_slot:
            code = FS_TERM_PRODUCT if t.sign > 0 else FS_TERM_LESS_PRODUCT
        else:
            code = FS_TERM_SCALED
        s = add_step(list, code, t.q_kind != R_NONE, t.sign, 1)
        if q_slot and not p_slot:                # the number last
            set_place(s, 0, VALUES, t.q)
            set_place(s, 1, UNIFORM_NUMBERS, t.p)
        else:
            set_place(s, 0, VALUES if p_slot else UNIFORM_NUMBERS, t.p)
            set_place(s, 1, VALUES if q_slot or t.q_kind == R_NONE else UNIFORM_NUMBERS,
                      0 if t.q_kind == R_NONE else t.q)
    return 0


# --- backwards ------------------------------------------------------------------------------------

cdef inline int backward_steps(Replay r, StepList *list, bint one, int which) except -1:
    cdef const Body *p = &r.plan.body
    cdef const Instr *q
    cdef int k, b
    for k in range(<int>p.n_per_row - 1, -1, -1):
        q = &p.per_row[k]
        list.n_new = 0
        for b in range(p.birth_of[k], p.birth_of[k + 1]):
            add_new(list, p.births[b].at, p.births[b].at + p.births[b].count)
        if not q.mask & which or (q.run < 0 and q.kind != I_NUMBER and p.adjoint[q.out] < 0) or (
                q.kind == I_ELEMENTS and q.code == X_COPY):
            zero_new(list)
        elif q.kind == I_SUM:
            sum_slopes(r, list, q, which)
            zero_new(list)
        elif q.kind == I_ELEMENTS and q.op >= 0:
            elements_slopes(r, list, q, one, which)
            zero_new(list)
        else:
            zero_new(list)
            leave(list, k)
    return leave(list, -1)


cdef inline int add_new(StepList *list, int first, int stop) except -1:
    """Gradients that begin with this instruction and that nothing was added to yet."""
    cdef void *grown
    if list.n_new == list.new_room:
        grown = reallocate(list.new, (2 * list.new_room + 16) * sizeof(Birth))
        if grown == NULL:
            out_of_memory("a program", list.n_new)
        list.new, list.new_room = <Birth *>grown, 2 * list.new_room + 16
    list.new[list.n_new].at, list.new[list.n_new].count = first, stop - first
    list.n_new += 1
    return 0


cdef inline int zero_new(StepList *list) except -1:
    cdef int k
    for k in range(list.n_new):
        set_place(add_step(list, FS_STEP_ZERO, 0, 0, list.new[k].count), 0, ADJOINTS, list.new[k].at)
    list.n_new = 0
    return 0


cdef inline bint stores(StepList *list, int first, int count) except -1:
    """Whether a step may store these gradients, as they are all new.  If some are, they begin at zero now."""
    cdef int k, at, stop
    for k in range(list.n_new):
        at, stop = list.new[k].at, list.new[k].at + list.new[k].count
        if at <= first and first + count <= stop:
            list.n_new -= 1
            list.new[k] = list.new[list.n_new]
            if at < first:
                add_new(list, at, first)
            if first + count < stop:
                add_new(list, first + count, stop)
            return True
        if at < first + count and first < stop:
            zero_new(list)
            return False
    return False


cdef inline int send(StepList *list, int kind, int base, int at, int count, const fs_step *places) except -1:
    """A step of FS_SEND_..., which adds or stores, with gradient and operands as in `places`."""
    cdef bint new = base == ADJOINTS and stores(list, at, count)
    cdef fs_step *s = add_step(list, FS_STEP_SEND + 2 * kind + new, 0, 0, count)
    copy_places(s, places)
    set_place(s, 0, base, at)
    return 0


cdef inline int send_otherwise(StepList *list, int code, int op, int mode, int base, int at, int width, int count,
                               const fs_step *places) except -1:
    """A step that only adds, to `width` gradients."""
    cdef fs_step *s
    if base == ADJOINTS and stores(list, at, width):
        set_place(add_step(list, FS_STEP_ZERO, 0, 0, width), 0, ADJOINTS, at)
    s = add_step(list, code, op, mode, count)
    copy_places(s, places)
    set_place(s, 0, base, at)
    return 0


cdef inline void copy_places(fs_step *s, const fs_step *other) noexcept:
    cdef int k
    for k in range(1, 5):
        s.base[k], s.at[k] = other.base[k], other.at[k]


cdef inline int elements_slopes(Replay r, StepList *list, const Instr *q, bint one, int which) except -1:
    cdef bint va = q.a.kind == R_SLOTS, vb = q.b.kind == R_SLOTS
    cdef bint wa = (q.a.mask & which) != 0, wb = q.b.kind != R_NONE and (q.b.mask & which) != 0
    cdef bint side_by_side = (not wa or not va or q.a.together) and (not wb or not vb or q.b.together)
    cdef int together = mode_of_one_row(q) if one else -1, i
    if together >= 0 and (not wa or not va or q.a.step == 0 or q.a.together) and (
            not wb or not vb or q.b.step == 0 or q.b.together):
        return slopes_of(r, list, q, together, 0, q.n, wa, wb)
    if side_by_side and is_flat(&q.a, q.n, False) and is_flat(&q.b, q.n, False):
        return slopes_of(r, list, q, mode_of(q), 0, q.n, wa, wb)
    for i in range(q.n - 1, -1, -1):
        slopes_of(r, list, q, mode_of(q), i, 1, wa, wb)
    return 0


cdef inline int slopes_of(Replay r, StepList *list, const Instr *q, int mode, int i, int count, bint wa,
                          bint wb) except -1:
    if wa:
        slope_of(r, list, q, &q.a, mode, False, i, count)
    if wb:
        slope_of(r, list, q, &q.b, mode, True, i, count)
    return 0


cdef inline int slope_of(Replay r, StepList *list, const Instr *q, const Ref *to, int mode, bint right, int i,
                         int count) except -1:
    """What is sent to one operand of `count` operations from the i-th on."""
    cdef const int *adjoint = r.plan.body.adjoint
    cdef fs_step s
    cdef int base = ADJOINTS if to.kind == R_SLOTS else PORTS, width
    cdef int at = adjoint[place(to, i)] if to.kind == R_SLOTS else to.port + (
        0 if to.index == NULL and to.step == 0 else i)
    cdef bint to_one = mode == (FS_B_IS_ONE if right else FS_A_IS_ONE)
    cdef bint other_is_one = mode == (FS_A_IS_ONE if right else FS_B_IS_ONE)
    memset(&s, 0, sizeof(fs_step))
    set_place(&s, 1, ADJOINTS, adjoint[q.out] + i)
    width = 1 if to_one else count
    if q.op <= FS_MUL:
        set_operand(&s, 2, &q.a if right else &q.b, i)
        if to_one and q.op == FS_MUL:
            return send_otherwise(list, FS_STEP_DOT, 0, 1, base, at, width, count, &s)
        if to_one:
            return send_otherwise(list, FS_STEP_TOTAL, 0, -1 if right and q.op == FS_SUB else 1, base, at, width,
                                  count, &s)
        if q.op == FS_MUL:
            return send(list, FS_SEND_SCALED if other_is_one else FS_SEND_TIMES, base, at, count, &s)
        return send(list, FS_SEND_MINUS if right and q.op == FS_SUB else FS_SEND_PLUS, base, at, count, &s)
    if q.op == FS_NEG:
        return send(list, FS_SEND_MINUS, base, at, count, &s)
    if q.op == FS_SQUARE:
        set_operand(&s, 2, &q.a, i)
        return send(list, FS_SEND_OF_SQUARE, base, at, count, &s)
    if q.op == FS_DIV and not to_one and (not right or mode == FS_VECTORS):
        set_operand(&s, 2, &q.b, i)
        set_place(&s, 3, VALUES, q.out + i)
        return send(list, FS_SEND_OVER_RIGHT if right else FS_SEND_OVER_ONE if other_is_one else FS_SEND_OVER, base,
                    at, count, &s)
    set_operand(&s, 2, &q.a, i)
    if q.b.kind == R_NONE:
        set_place(&s, 3, VALUES, q.out + i)
        return send_otherwise(list, FS_STEP_UNARY, q.op, mode, base, at, width, count, &s)
    set_operand(&s, 3, &q.b, i)
    set_place(&s, 4, VALUES, q.out + i)
    return send_otherwise(list, FS_STEP_OTHER_RIGHT if right else FS_STEP_OTHER, q.op, mode, base, at, width, count,
                          &s)


cdef inline int sum_slopes(Replay r, StepList *list, const Instr *q, int which) except -1:
    cdef const Sum *sum = &r.plan.body.sums[q.extra]
    cdef const Term *t
    cdef int k, g = r.plan.body.adjoint[q.out]
    for k in range(sum.stop - 1, sum.first - 1, -1):
        t = &r.plan.body.terms[k]
        if t.p_mask & which:
            term_slope(r, list, t.sign, t.p_kind, t.p, t.p_port, t.q_kind, t.q, g)
        if t.q_kind != R_NONE and t.q_mask & which:
            term_slope(r, list, t.sign, t.q_kind, t.q, t.q_port, t.p_kind, t.p, g)
    return 0


cdef inline int term_slope(Replay r, StepList *list, int sign, int kind, int p, int port, int other, int factor,
                           int g) except -1:
    """What is sent to p, whose factor is another number."""
    cdef fs_step s
    cdef int at = port if kind == R_UNIFORM else r.plan.body.adjoint[p], plus = FS_SEND_PLUS, minus = FS_SEND_MINUS
    memset(&s, 0, sizeof(fs_step))
    set_place(&s, 1, ADJOINTS, g)
    if other != R_NONE:
        set_place(&s, 2, VALUES if other == R_SLOTS else UNIFORM_NUMBERS, factor)
    if kind == R_UNIFORM:
        return send_otherwise(list, FS_STEP_DOT if other == R_SLOTS else FS_STEP_TOTAL, other == R_UNIFORM, sign, PORTS,
                              at, 1, 1, &s)
    if other == R_SLOTS:
        plus, minus = FS_SEND_TIMES, FS_SEND_LESS_TIMES
    elif other == R_UNIFORM:
        plus, minus = FS_SEND_SCALED, FS_SEND_LESS_SCALED
    return send(list, plus if sign > 0 else minus, ADJOINTS, at, 1, &s)
