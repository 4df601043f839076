# cython: language_level=3, wraparound=False, cdivision=True
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
from fastscalar.engine.memory cimport allocate, enlarge, out_of_memory
from fastscalar.program._kernels cimport *
from fastscalar.program._replay cimport *
from fastscalar.program.forward cimport place
from fastscalar.program.plan cimport *

cdef enum:
    VALUES = 0              # bases of places: values of slots, uniform numbers, gradients of slots, ports
    UNIFORM_NUMBERS = 1
    ADJOINTS = 2
    PORTS = 3
    RUNS = 4                # of one row: its runs, and their gradients
    RUN_ADJOINTS = 5
    MOST_PARALLEL = 32      # sums at once


cdef inline void free_steps(StepList *list) noexcept:
    PyMem_RawFree(list.steps)
    PyMem_RawFree(list.new)
    memset(list, 0, sizeof(StepList))


cdef inline fs_step *add_step(StepList *list, int code, int op, int mode, int count) except NULL:
    cdef fs_step *s
    if list.n == list.room:
        enlarge(<void **>&list.steps, 2 * list.room + 64, sizeof(fs_step), "a program")
        list.room = 2 * list.room + 64
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
    cdef int k, i, j, m
    for k in range(<int>p.n_per_row):
        q = &p.per_row[k]
        if (q.steep or q.raises) and not (r.watch and not q.steep):
            leave(list, k)
        elif q.kind == I_SUM:
            sums_steps(r, list, q, one)
        elif q.kind == I_ELEMENTS and q.op >= 0:
            i = 0
            while i < q.n:
                m = alike_from(q, i)
                if one or are_stretches(q, i, m):
                    element_steps(list, q, mode_from(q, i, m, one), i, m)
                else:
                    for j in range(i, i + m):
                        element_steps(list, q, mode_of(q), j, 1)
                i += m
        elif one and q.kind == I_UNPACK:
            unpack_steps(r, list, q, False)
        elif q.kind == I_UNPACK and r.direct[q.a.run]:
            pass
        elif one and q.kind == I_PACK:
            pack_steps(r, list, q, False)
        else:
            leave(list, k)
    return leave(list, -1)


cdef inline int alike_from(const Instr *q, int i) noexcept:
    """How many operations of an instruction from the i-th on have operands that stay where they are or move on by one.
    They are one step if there is one row, and their gradients are sent operand by operand: for one row and for many in
    the same order, so that a row has the same bits either way."""
    cdef int da, db = 0, m = 1
    if i + 1 >= q.n:
        return 1
    da = place(&q.a, i + 1) - place(&q.a, i)
    if q.b.kind != R_NONE:
        db = place(&q.b, i + 1) - place(&q.b, i)
    if not 0 <= da <= 1 or not 0 <= db <= 1 or da + db == 0:
        return 1
    while i + m < q.n and place(&q.a, i + m) == place(&q.a, i) + m * da and (
            q.b.kind == R_NONE or place(&q.b, i + m) == place(&q.b, i) + m * db):
        m += 1
    return m


cdef inline bint stays(const Ref *a, int i) noexcept:
    """Whether an operand of operations that are alike, from the i-th on, is the same for all of them."""
    return place(a, i + 1) == place(a, i)


cdef inline bint are_stretches(const Instr *q, int i, int m) noexcept:
    """Whether for many rows, too, the operands of operations that are alike are stretches of memory, or one number."""
    return m == 1 or (stays(&q.a, i) == (q.a.kind == R_UNIFORM) and (
        q.b.kind == R_NONE or stays(&q.b, i) == (q.b.kind == R_UNIFORM)))


cdef inline int mode_from(const Instr *q, int i, int m, bint one) noexcept:
    if m == 1 or not one:
        return mode_of(q)
    return FS_A_IS_ONE if stays(&q.a, i) else FS_B_IS_ONE if q.b.kind != R_NONE and stays(&q.b, i) else FS_VECTORS


cdef inline int place_in_run(Replay r, int run, int column) noexcept:
    """Of the one row that there is."""
    return <int>(r.plan.body.runs[run].base * r.batch) + column


cdef inline int copy_step(StepList *list, bint back, int base, int to, int from_base, int at, int count) except -1:
    """Numbers forwards, or their gradients back, which are added."""
    cdef fs_step s
    memset(&s, 0, sizeof(fs_step))
    set_place(&s, 1, from_base, at)
    if back:
        return send(list, FS_SEND_COPIED, base, to, count, &s)
    set_place(add_step(list, FS_STEP_COPY, 0, 0, count), 0, base, to)
    set_place(&list.steps[list.n - 1], 1, from_base, at)
    return 0


cdef inline int unpack_steps(Replay r, StepList *list, const Instr *q, bint back) except -1:
    cdef int k = 0, n, at
    while k < q.n:
        at, n = place(&q.a, k), 1
        while k + n < q.n and place(&q.a, k + n) == at + n:
            n += 1
        at = place_in_run(r, q.a.run, at)
        if back:
            copy_step(list, True, RUN_ADJOINTS, at, ADJOINTS, r.plan.body.adjoint[q.out] + k, n)
        else:
            copy_step(list, False, VALUES, q.out + k, RUNS, at, n)
        k += n
    return 0


cdef inline int pack_steps(Replay r, StepList *list, const Instr *q, bint back) except -1:
    cdef const int *index = q.a.index
    cdef const int *adjoint = r.plan.body.adjoint
    cdef int k = 0, n, uniform = 0, at
    while k < q.n:
        n = 1
        at = place_in_run(r, q.run, k)
        if index[k] < 0:                         # -1 - an address; each has a port
            while k + n < q.n and index[k + n] < 0 and (back or index[k + n] == index[k] - n):
                n += 1
            if back:
                copy_step(list, True, PORTS, q.a.port + uniform, RUN_ADJOINTS, at, n)
            else:
                copy_step(list, False, RUNS, at, UNIFORM_NUMBERS, -1 - index[k], n)
            uniform += n
        elif back:
            while k + n < q.n and index[k + n] >= 0 and adjoint[index[k + n]] == adjoint[index[k]] + n:
                n += 1
            copy_step(list, True, ADJOINTS, adjoint[index[k]], RUN_ADJOINTS, at, n)
        else:
            while k + n < q.n and index[k + n] == index[k] + n:
                n += 1
            copy_step(list, False, RUNS, at, VALUES, index[k], n)
        k += n
    return 0


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


cdef inline int sums_steps(Replay r, StepList *list, const Instr *q, bint one) except -1:
    cdef const Body *p = &r.plan.body
    cdef int i = 0, j, m
    while i < q.n:
        m = parallel_sums(p, q.extra + i, q.n - i)
        if m > 1 and (one or moves_alike(p, q.extra + i)):
            sum_steps(p, list, q.extra + i, q.out + i, m, one)
        else:
            for j in range(i, i + m):
                sum_steps(p, list, q.extra + j, q.out + j, 1, one)
        i += m
    return 0


cdef inline int parallel_sums(const Body *p, int first, int most) noexcept:
    """How many sums from this one on, `most` at most, are the same with operands that stay where they are or move on by
    one slot a sum.  They are computed together, and their gradients are sent term by term: for one row and for many in
    the same order, so that a row has the same bits either way."""
    cdef const Sum *s = &p.sums[first]
    cdef const Term *t
    cdef const Term *next_
    cdef int m = 1, k, n = s.stop - s.first
    while m < min(most, MOST_PARALLEL) and s[m].stop - s[m].first == n and s[m].zero == s.zero:
        for k in range(n):
            t, next_ = &p.terms[s.first + k], &p.terms[s[m].first + k]
            if t.sign != next_.sign or t.p_kind != next_.p_kind or t.q_kind != next_.q_kind or (
                    t.p_mask != next_.p_mask or t.q_mask != next_.q_mask):
                return m
            if not moves_on(t.p_kind, t.p_mask, t.p, p.terms[s[1].first + k].p, next_.p, m) or (
                    t.q_kind != R_NONE and not moves_on(
                        t.q_kind, t.q_mask, t.q, p.terms[s[1].first + k].q, next_.q, m)):
                return m
            if t.p_kind == R_SLOTS and next_.p == t.p and (t.q_kind != R_SLOTS or next_.q == t.q):
                return m                         # nothing moves
        m += 1
    return m


cdef inline bint moves_on(int kind, int mask, int first, int second, int here, int m) noexcept:
    """Whether operand m is where the first two, and their kind, have it."""
    if kind == R_UNIFORM:
        return not mask and here == first
    return 0 <= second - first <= 1 and here == first + m * (second - first)


cdef inline bint moves_alike(const Body *p, int first) noexcept:
    """Whether all slots that parallel sums read move on, so that they are one stretch for any number of rows."""
    cdef int k, other = p.sums[first + 1].first - p.sums[first].first
    cdef const Term *t
    for k in range(p.sums[first].first, p.sums[first].stop):
        t = &p.terms[k]
        if (t.p_kind == R_SLOTS and t[other].p == t.p) or (t.q_kind == R_SLOTS and t[other].q == t.q):
            return False
    return True


cdef inline int products_from(const Body *p, int k, int stop) noexcept:
    """How many terms from this one on are products of slots that move on by one a term."""
    cdef const Term *t = &p.terms[k]
    cdef int c = 1
    if t.p_kind != R_SLOTS or t.q_kind != R_SLOTS:
        return 1
    while k + c < stop and t[c].p_kind == R_SLOTS and t[c].q_kind == R_SLOTS and t[c].sign == t.sign and (
            t[c].p == t.p + c and t[c].q == t.q + c and t[c].p_mask == t.p_mask and t[c].q_mask == t.q_mask):
        c += 1
    return c


cdef inline int sum_steps(const Body *p, StepList *list, int first, int out, int m, bint one) except -1:
    """A sum, or m parallel ones."""
    cdef const Sum *sum = &p.sums[first]
    cdef const Term *t
    cdef fs_step *s = add_step(list, FS_STEP_SUM, 0, sum.zero, m)
    cdef int k = sum.first, c, code, at = list.n - 1, other = p.sums[first + 1].first - sum.first if m > 1 else 0
    cdef bint p_slot, q_slot, p_stays, q_stays
    set_place(s, 0, VALUES, out)
    while k < sum.stop:
        t = &p.terms[k]
        c = products_from(p, k, sum.stop) if one and m == 1 else 1
        p_slot, q_slot = t.p_kind == R_SLOTS, t.q_kind == R_SLOTS
        p_stays, q_stays = not p_slot or (m > 1 and t[other].p == t.p), not q_slot or (m > 1 and t[other].q == t.q)
        if not p_slot and not q_slot:
            code = FS_TERM_NUMBER
            list.steps[at].mode |= 2
        elif t.q_kind == R_NONE:
            code = FS_TERM if t.sign > 0 else FS_TERM_LESS
        elif not p_stays and not q_stays:
            code = FS_TERM_PRODUCT if t.sign > 0 else FS_TERM_LESS_PRODUCT
        else:
            code = FS_TERM_SCALED
        s = add_step(list, code, t.q_kind != R_NONE, t.sign, c)
        if code == FS_TERM_SCALED and p_stays:   # the number last
            set_place(s, 0, VALUES, t.q)
            set_place(s, 1, VALUES if p_slot else UNIFORM_NUMBERS, t.p)
        else:
            set_place(s, 0, VALUES if p_slot else UNIFORM_NUMBERS, t.p)
            set_place(s, 1, VALUES if q_slot or t.q_kind == R_NONE else UNIFORM_NUMBERS,
                      0 if t.q_kind == R_NONE else t.q)
        k += c
    list.steps[at].op = list.n - 1 - at
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
            sums_partials(r, list, q, one, which)
            zero_new(list)
        elif q.kind == I_ELEMENTS and q.op >= 0:
            elements_partials(r, list, q, one, which)
            zero_new(list)
        elif one and q.kind == I_UNPACK:
            unpack_steps(r, list, q, True)
            zero_new(list)
        elif q.kind == I_UNPACK and r.direct[q.a.run]:
            zero_new(list)
        elif one and q.kind == I_PACK:
            pack_steps(r, list, q, True)
            zero_new(list)
        else:
            zero_new(list)
            leave(list, k)
    return leave(list, -1)


cdef inline int add_new(StepList *list, int first, int stop) except -1:
    """Gradients that begin with this instruction and that nothing was added to yet."""
    if list.n_new == list.new_room:
        enlarge(<void **>&list.new, 2 * list.new_room + 16, sizeof(Birth), "a program")
        list.new_room = 2 * list.new_room + 16
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


cdef inline int send_to_one(StepList *list, int at, int sign, bint factors, int count, const fs_step *places) except -1:
    """To one slot of the one row, by `count` gradients one after the other."""
    cdef bint new = stores(list, at, 1)
    cdef fs_step *s = add_step(list, FS_STEP_SEND + 2 * FS_SEND_ALL_TO_ONE + new, factors, sign, count)
    copy_places(s, places)
    set_place(s, 0, ADJOINTS, at)
    return 0


cdef inline void copy_places(fs_step *s, const fs_step *other) noexcept:
    cdef int k
    for k in range(1, 5):
        s.base[k], s.at[k] = other.base[k], other.at[k]


cdef inline int *groups_of(const Body *p, const Instr *q, bint sums, int *n) except NULL:
    """Where those begin that are taken together, operations or sums that are alike, and where the last ones end; n of
    them.  To be freed."""
    cdef int i = 0
    cdef int *first = <int *>allocate((q.n + 1) * sizeof(int))
    if first == NULL:
        out_of_memory("a program", q.n)
    n[0] = 0
    while i < q.n:
        first[n[0]] = i
        n[0] += 1
        i += parallel_sums(p, q.extra + i, q.n - i) if sums else alike_from(q, i)
    first[n[0]] = q.n
    return first


cdef inline int elements_partials(Replay r, StepList *list, const Instr *q, bint one, int which) except -1:
    """From the last operation to the first, those that are alike together."""
    cdef int i, n_groups
    cdef int *first = groups_of(&r.plan.body, q, False, &n_groups)
    try:
        for i in range(n_groups - 1, -1, -1):
            if q.a.mask & which:
                partials_of(r, list, q, &q.a, False, first[i], first[i + 1] - first[i], one)
            if q.b.kind != R_NONE and q.b.mask & which:
                partials_of(r, list, q, &q.b, True, first[i], first[i + 1] - first[i], one)
    finally:
        PyMem_RawFree(first)
    return 0


cdef inline bint lie_together(const int *adjoint, int slot, int m) noexcept:
    """Whether the gradients of slots that follow each other do.  The slots may be of several instructions, whose
    gradients have their places each: the last one may be where it should, and others between elsewhere."""
    cdef int k
    for k in range(1, m):
        if adjoint[slot + k] != adjoint[slot] + k:
            return False
    return True


cdef inline int partials_of(Replay r, StepList *list, const Instr *q, const Ref *to, bint right, int i, int m,
                            bint one) except -1:
    """What m operations that are alike, from the i-th on, send to one operand."""
    cdef const int *adjoint = r.plan.body.adjoint
    cdef int j
    cdef bint together = m == 1 or one or are_stretches(q, i, m)
    if together and m > 1 and to.kind == R_SLOTS and stays(to, i):
        together = q.op <= FS_MUL                # one after the other, as for many rows
    elif together and m > 1 and to.kind == R_SLOTS:
        together = lie_together(adjoint, place(to, i), m)
    elif together and m > 1 and stays(to, i):    # one port, or one each
        together = to.index == NULL
    if together:
        return partial_of(r, list, q, to, mode_from(q, i, m, one), right, i, m)
    for j in range(i + m - 1, i - 1, -1):
        partial_of(r, list, q, to, mode_of(q), right, j, 1)
    return 0


cdef inline int partial_of(Replay r, StepList *list, const Instr *q, const Ref *to, int mode, bint right, int i,
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
        if to_one and base == ADJOINTS:
            return send_to_one(list, at, -1 if right and q.op == FS_SUB else 1, q.op == FS_MUL, count, &s)
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


cdef inline int sums_partials(Replay r, StepList *list, const Instr *q, bint one, int which) except -1:
    """From the last sum to the first, as they were put together."""
    cdef const Body *p = &r.plan.body
    cdef int i, n_groups
    cdef int *first = groups_of(p, q, True, &n_groups)
    try:
        for i in range(n_groups - 1, -1, -1):
            sum_partials(p, list, q.extra + first[i], p.adjoint[q.out + first[i]], first[i + 1] - first[i], one, which)
    finally:
        PyMem_RawFree(first)
    return 0


cdef inline int sum_partials(const Body *p, StepList *list, int first, int g, int m, bint one, int which) except -1:
    """What a sum, or m parallel ones whose gradients lie from g on, sends to its operands."""
    cdef const Sum *sum = &p.sums[first]
    cdef const Term *t
    cdef int k = sum.stop, c, dp = 0, dq = 0, other = p.sums[first + 1].first - sum.first if m > 1 else 0
    while k > sum.first:
        k -= 1
        t = &p.terms[k]
        if one and m == 1:
            c = products_back_from(p, k, sum.first)
            if c > 1:
                k -= c - 1
                t = &p.terms[k]
                if t.p_mask & which:
                    scaled_partials(list, t.sign, p.adjoint[t.p], t.q, g, c)
                if t.q_mask & which:
                    scaled_partials(list, t.sign, p.adjoint[t.q], t.p, g, c)
                continue
        if m > 1:
            dp, dq = t[other].p - t.p, t[other].q - t.q
        if t.p_mask & which:
            term_partials(p, list, t.sign, t.p_kind, t.p, dp, t.p_port, t.q_kind, t.q, dq, g, m, one)
        if t.q_kind != R_NONE and t.q_mask & which:
            term_partials(p, list, t.sign, t.q_kind, t.q, dq, t.q_port, t.p_kind, t.p, dp, g, m, one)
    return 0


cdef inline int products_back_from(const Body *p, int k, int first) noexcept:
    """How many terms down to some before this one `products_from` has together, with gradients side by side that are
    sent in any order: not where a slot is the right operand of a term and then, in the one before it, the left."""
    cdef const Term *t = &p.terms[k]
    cdef int c = 1
    if t.p_kind != R_SLOTS or t.q_kind != R_SLOTS:
        return 1
    while k - c >= first and products_from(p, k - c, k - c + 2) == 2 and (
            not t.p_mask or p.adjoint[t.p - c] == p.adjoint[t.p] - c) and (
            not t.q_mask or p.adjoint[t.q - c] == p.adjoint[t.q] - c):
        c += 1
    return 1 if t.q < t.p < t.q + c else c


cdef inline int scaled_partials(StepList *list, int sign, int at, int factor, int g, int c) except -1:
    """c operands of products get one gradient times their factors."""
    cdef fs_step s
    memset(&s, 0, sizeof(fs_step))
    set_place(&s, 1, VALUES, factor)
    set_place(&s, 2, ADJOINTS, g)
    return send(list, FS_SEND_SCALED if sign > 0 else FS_SEND_LESS_SCALED, ADJOINTS, at, c, &s)


cdef inline int term_partials(const Body *p, StepList *list, int sign, int kind, int to, int step, int port, int other,
                              int factor, int factor_step, int g, int m, bint one) except -1:
    """What m parallel sums send to one of their operands, whose factor is another number."""
    cdef fs_step s
    cdef int i
    cdef bint flat = kind == R_SLOTS and step == 1 and lie_together(&p.adjoint[0], to, m)
    if m == 1:
        return term_partial(p, list, sign, kind, to, port, other, factor, False, g, 1)
    if flat and (one or other != R_SLOTS or factor_step == 1):
        return term_partial(p, list, sign, kind, to, port, other, factor, other == R_SLOTS and factor_step == 0, g, m)
    if one and step == 0 and other == R_SLOTS:
        memset(&s, 0, sizeof(fs_step))
        set_place(&s, 1, ADJOINTS, g)
        set_place(&s, 2, VALUES, factor)
        return send_to_one(list, p.adjoint[to], sign, True, m, &s)
    for i in range(m - 1, -1, -1):
        term_partial(p, list, sign, kind, to + i * step, port, other, factor + i * factor_step, False, g + i, 1)
    return 0


cdef inline int term_partial(const Body *p, StepList *list, int sign, int kind, int to, int port, int other, int factor,
                             bint one_factor, int g, int count) except -1:
    """What is sent to `count` slots side by side, or to one uniform number, by as many gradients."""
    cdef fs_step s
    cdef int at = port if kind == R_UNIFORM else p.adjoint[to], plus = FS_SEND_PLUS, minus = FS_SEND_MINUS
    memset(&s, 0, sizeof(fs_step))
    set_place(&s, 1, ADJOINTS, g)
    if other != R_NONE:
        set_place(&s, 2, VALUES if other == R_SLOTS else UNIFORM_NUMBERS, factor)
    if kind == R_UNIFORM:
        return send_otherwise(list, FS_STEP_DOT if other == R_SLOTS else FS_STEP_TOTAL, other == R_UNIFORM, sign, PORTS,
                              at, 1, 1, &s)
    if other == R_UNIFORM or one_factor:
        plus, minus = FS_SEND_SCALED, FS_SEND_LESS_SCALED
    elif other == R_SLOTS:
        plus, minus = FS_SEND_TIMES, FS_SEND_LESS_TIMES
    return send(list, plus if sign > 0 else minus, ADJOINTS, at, count, &s)
