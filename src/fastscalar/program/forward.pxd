# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: nonecheck=False
# The forward sweep of a replay: the uniform part, and a chunk of rows instruction by instruction.
# Inline parts of `_replay`.

from libc.math cimport isfinite, signbit
from libc.string cimport memcpy, memset

from fastscalar._core cimport *
from fastscalar.engine._array_ops cimport softmax_in_place
from fastscalar.engine.formulas cimport sent
from fastscalar.program._graph cimport GUARD_CEIL, GUARD_FLOOR, GUARD_SAME, GUARD_TRUNC, compare_numbers, kind_of_error
from fastscalar.program._kernels cimport *
from fastscalar.program._replay cimport *
from fastscalar.program.plan cimport *


# --- operands -------------------------------------------------------------------------------------

cdef inline int place(const Ref *a, int k) noexcept nogil:
    return a.index[k] if a.index != NULL else a.start + k * a.step


cdef inline real *rows_of(Replay r, char *block, int run, int lane, real tag) noexcept nogil:
    return <real *>block + r.plan.body.runs[run].base * r.batch + <Py_ssize_t>lane * r.plan.body.runs[run].ld


cdef inline real input_of(Replay r, const Product *p, int l, int j, const long long *rows, real tag) noexcept nogil:
    """Number j that lane l of the batch has for a product, wherever it lies."""
    cdef const Input *x
    if p.whole_input >= 0:
        x = &r.input[p.whole_input]
        return <real>x.data[rows[l] * x.width + j]
    return rows_of(r, r.RV, p.x, l, tag)[p.first + j]


cdef inline bint has_sparse(Replay r, const Product *p) noexcept nogil:
    return p.whole_input >= 0 and r.input[p.whole_input].begin != NULL and not r.unfit[p.matrix]


cdef inline void find_rows(Replay r, const Input *x, const long long *rows, int lanes, int part, int parts,
                           const int **column, const void **value, int *count) noexcept nogil:
    """Sparse rows, or some parts of them, of some lanes."""
    cdef int l
    cdef Py_ssize_t first, stop
    for l in range(lanes):
        first, stop = x.begin[rows[l] * r.parts + part], x.begin[rows[l] * r.parts + part + parts]
        column[l] = x.column + first
        value[l] = <const char *>x.value + <size_t>first * r.size
        count[l] = <int>(stop - first)


# --- forwards -------------------------------------------------------------------------------------

cdef inline void uniform_forward(Replay r, real tag) noexcept nogil:
    cdef const Body *p = &r.plan.body
    cdef Py_ssize_t k, i, j
    cdef const Instr *q
    cdef const Matrix *m
    cdef const Guard *guard
    cdef real *U = <real *>r.U
    cdef const int *table
    r.uniform_missed = r.uniform_suspect = False
    r.uniform_unsure = r.wild
    for k in range(p.n_uniform_instr):
        q = &p.uniform[k]
        if q.kind == I_SUM:
            U[q.out] = <real>uniform_sum(r, q, tag)
        else:
            elements_forward(r, q, U, U, 1, True, tag)
        if q.raises and r.K.not_finite(U + q.out, q.n) and any_error(r, q, U, U, 1, 0, True, tag):
            r.uniform_suspect = True
        if r.watch and (r.K.beyond(U + q.out, q.n) or (q.steep and steep_lane(r, q, U, U, 1, 0, True, tag))):
            r.uniform_unsure = True
    if r.watch and not r.mode & TRAIN and wild_terms(r, U, tag):
        r.uniform_unsure = True
    for k in range(p.n_matrices):
        m = &p.matrices[k]
        if m.table >= 0:
            table = p.table_of[m.table]
            for i in range(m.rows):
                for j in range(m.cols):
                    U[m.base + i * m.ld + j] = U[table[i * m.cols + j]]
    for k in range(r.plan.n_products):
        m = &p.matrices[p.products[k].matrix]
        if m.table >= 0 and r.watch and not r.mode & TRAIN and r.K.beyond(U + m.base, <Py_ssize_t>m.rows * m.ld):
            r.uniform_unsure = True
        if p.matrices[p.products[k].matrix].table >= 0 and p.products[k].whole_input >= 0 and not p.products[k].skips:
            m = &p.matrices[p.products[k].matrix]
            r.unfit[p.products[k].matrix] = r.K.not_finite(U + m.base, <Py_ssize_t>m.rows * m.ld)
            if r.unfit[p.products[k].matrix]:
                r.input[p.products[k].whole_input].forced = True
    for k in range(p.n_guards):
        guard = &p.guards[k]
        if guard.kind != R_SLOTS and guard.other != R_SLOTS:
            if not holds(guard, U[guard.p], U[guard.q] if guard.other == R_UNIFORM else 0.0, <real>guard.value):
                r.uniform_missed = True


cdef inline bint wild_terms(Replay r, const real *U, real tag) noexcept nogil:
    """Whether uniform numbers that are added up are so large that their order may matter."""
    cdef Py_ssize_t k
    cdef const Term *t
    for k in range(r.plan.n_terms):
        t = &r.plan.body.terms[k]
        if (t.p_kind == R_UNIFORM and r.K.beyond(U + t.p, t.count)) or (
                t.q_kind == R_UNIFORM and t.q != t.p and r.K.beyond(U + t.q, t.count)):
            return True
    return False


cdef inline bint holds(const Guard *g, double x, double y, double value) noexcept nogil:
    """Whether a decision comes out as it did when the program was recorded.  value: the guard's, as our numbers are."""
    cdef double v
    cdef int code
    cdef Row *f
    if g.op <= 5:
        return compare_numbers(g.op, x, y) == (value != 0.0)
    if g.op == GUARD_SAME:
        return (x == value and signbit(x) == signbit(value)) or (x != x and value != value)
    if g.op == GUARD_TRUNC:
        return x - value < 1.0 and value - x < 1.0 and (x >= value if value > 0 else x <= value if value < 0 else True)
    if g.op == GUARD_FLOOR:
        return value <= x < value + 1.0
    if g.op == GUARD_CEIL:
        return value - 1.0 < x <= value
    code = <int>value & 255
    f = row(code)
    v = f.f(x) if f.arity == 1 else f.f2(x, y)
    return v - v != 0.0 and is_error(code, x, y, v) and kind_of_error(x, v) == <int>value >> 8


cdef inline double sum_of_squares(Replay r, int k, real tag) noexcept nogil:
    cdef const Matrix *m = &r.plan.body.matrices[k]
    cdef const real *w = <real *>r.U + m.base
    if not r.square[k] >= 0.0:
        r.square[k] = r.scale[k] * r.scale[k] * r.K.dot(w, w, <Py_ssize_t>m.rows * m.ld)
    return r.square[k]


cdef inline double uniform_sum(Replay r, const Instr *q, real tag) noexcept nogil:
    cdef const Sum *s = &r.plan.body.sums[q.extra]
    cdef const Term *t
    cdef real *U = <real *>r.U
    cdef double total = 0.0 if s.zero else -0.0
    cdef int k
    for k in range(s.first, s.stop):
        t = &r.plan.body.terms[k]
        if t.matrix >= 0 and r.mode & TRAIN and r.decayed[t.matrix]:
            total += t.sign * sum_of_squares(r, t.matrix, tag)
        elif t.q_kind == R_NONE:
            total += t.sign * (r.K.sum(U + t.p, t.count) if t.count > 1 else <double>U[t.p])
        else:
            total += t.sign * (r.K.dot(U + t.p, U + t.q, t.count) if t.count > 1 else <double>U[t.p] * U[t.q])
    return total


cdef inline void forward(Replay r, int thread, int l0, int lanes, const long long *rows, real tag) noexcept nogil:
    cdef const Body *p = &r.plan.body
    cdef Py_ssize_t k
    cdef int l
    cdef const Instr *q
    cdef real *V = <real *>r.V[thread]
    cdef real *U = <real *>r.U
    cdef const Input *x
    cdef const real *v
    memset(r.status + l0, 0, lanes)
    for l in range(r.n_inputs):
        x = &r.input[l]
        if p.run_of_input[l] >= 0 and (x.dense or x.forced or x.begin == NULL):
            load_input(r, l, l0, lanes, rows, tag)
    for k in range(p.n_per_row):
        q = &p.per_row[k]
        if q.kind == I_ELEMENTS or q.kind == I_SUM:
            if q.kind == I_SUM:
                sum_forward(r, q, V, U, lanes, tag)
            else:
                elements_forward(r, q, V, U, lanes, False, tag)
            if q.raises and r.K.not_finite(V + <Py_ssize_t>q.out * lanes, <Py_ssize_t>q.n * lanes):
                for l in range(lanes):
                    if any_error(r, q, V, U, lanes, l, False, tag):
                        r.status[l0 + l] |= SUSPECT
            if q.steep and r.watch:
                for l in range(lanes):
                    if steep_lane(r, q, V, U, lanes, l, False, tag):
                        r.status[l0 + l] |= UNSURE
        elif q.kind == I_ROWS:
            rows_forward(r, q, l0, lanes, tag)
            if q.steep and r.watch:
                for l in range(l0, l0 + lanes):
                    if steep_row(r, q, l, tag):
                        r.status[l] |= UNSURE
        elif q.kind == I_PRODUCT:
            product_forward(r, q, thread, l0, lanes, rows, tag)
        elif q.kind == I_NUMBER:
            x = &r.input[q.extra]
            for l in range(lanes):
                V[<Py_ssize_t>q.out * lanes + l] = <real>(
                    x.whole[rows[l0 + l]] if x.whole != NULL else x.data[rows[l0 + l]])
        elif q.kind == I_UNPACK:
            unpack(r, q, rows_of(r, r.RV, q.a.run, l0, tag), V, lanes, tag)
        elif q.kind == I_PACK:
            pack(r, q, V, U, l0, lanes, tag)
        elif q.kind == I_WHERE:
            where_forward(r, q, V, U, lanes, tag)
        elif q.kind == I_BEST:
            best_forward(r, q, V, U, l0, lanes, tag)
        elif q.kind == I_GATHER:
            gather_forward(r, q, V, l0, lanes, rows, tag)
        else:
            loss_forward(r, q, thread, l0, lanes, rows, tag)
    if p.result_kind == R_SLOTS:
        v = V + <Py_ssize_t>p.result * lanes
        for l in range(lanes):
            r.loss[l0 + l] = v[l]
    else:
        for l in range(lanes):
            r.loss[l0 + l] = U[p.result]
    if r.watch:
        watch_chunk(r, V, l0, lanes, rows, tag)
    check_guards(r, V, U, <real *>r.scratch[thread], l0, lanes, tag)


cdef inline void watch_chunk(Replay r, const real *V, int l0, int lanes, const long long *rows,
                             real tag) noexcept nogil:
    """Marks the rows in which something that was computed, or that a product reads, is NaN or so large that in another
    order of additions it might be infinite: sums are fused and reordered here, and equal operations done once."""
    cdef const Body *p = &r.plan.body
    cdef Py_ssize_t k
    cdef int l
    cdef const real *v
    cdef const Input *x
    if r.K.beyond(V, <Py_ssize_t>p.n_slots * lanes):
        for k in range(p.n_slots):
            v = V + k * lanes
            if r.K.beyond(v, lanes):
                for l in range(lanes):
                    if r.K.beyond(v + l, 1):
                        r.status[l0 + l] |= UNSURE
    for k in range(p.n_per_row):
        if p.per_row[k].run < 0 or p.per_row[k].kind == I_PACK:      # what is packed lies in slots
            continue
        v = rows_of(r, r.RV, p.per_row[k].run, l0, tag)
        if r.K.beyond(v, <Py_ssize_t>p.runs[p.per_row[k].run].ld * lanes):
            for l in range(lanes):
                if r.K.beyond(v + <Py_ssize_t>l * p.runs[p.per_row[k].run].ld, p.per_row[k].n):
                    r.status[l0 + l] |= UNSURE
    for k in range(r.plan.n_products):
        if p.products[k].whole_input < 0 or r.input[p.products[k].whole_input].finite:
            continue
        x = &r.input[p.products[k].whole_input]
        for l in range(lanes):
            if r.K.beyond(x.data + rows[l0 + l] * x.width, x.width):         # doubles, as it is wide
                r.status[l0 + l] |= UNSURE


cdef inline bint steep_lane(Replay r, const Instr *q, const real *V, const real *U, int lanes, int l, bint uniform,
                            real tag) noexcept nogil:
    """Whether a slope of an instruction's operations is not finite in lane l."""
    cdef bint va = is_vector(&q.a, uniform), vb = is_vector(&q.b, uniform)
    cdef int k
    cdef double x, y = 0.0
    for k in range(q.n):
        x = V[<Py_ssize_t>place(&q.a, k) * lanes + l] if va else U[place(&q.a, k)]
        if q.b.kind != R_NONE:
            y = V[<Py_ssize_t>place(&q.b, k) * lanes + l] if vb else U[place(&q.b, k)]
        if is_steep_at(q.code, x, y, V[<Py_ssize_t>(q.out + k) * lanes + l]):
            return True
    return False


cdef inline bint steep_row(Replay r, const Instr *q, int l, real tag) noexcept nogil:
    """The same of an operation on the columns of a run."""
    cdef bint ra = q.a.kind == R_ROWS, rb = q.b.kind == R_ROWS
    cdef const real *a = rows_of(r, r.RV, q.a.run, l, tag) if ra else <real *>r.U + q.a.start
    cdef const real *b = rows_of(r, r.RV, q.b.run, l, tag) if rb else <real *>r.U + q.b.start
    cdef const real *v = rows_of(r, r.RV, q.run, l, tag)
    cdef int k
    for k in range(q.n):
        if is_steep_at(q.code, a[k if ra or q.a.step else 0],
                       0.0 if q.b.kind == R_NONE else <double>b[k if rb or q.b.step else 0], v[k]):
            return True
    return False


cdef inline bint is_steep_at(int code, double x, double y, double v) noexcept nogil:
    cdef Row *f = row(code)
    if f.arity == 1:
        return not isfinite(f.d(x, v))
    return not isfinite(f.da(x, y, v)) or not isfinite(f.db(x, y, v))


cdef inline void load_input(Replay r, int i, int l0, int lanes, const long long *rows, real tag) noexcept nogil:
    """Rows of the data as numbers of our type, some at a time."""
    cdef Rows16 row
    cdef const Input *x = &r.input[i]
    cdef int run = r.plan.body.run_of_input[i], l = 0, k, n
    while l < lanes:
        n = min(16, lanes - l)
        for k in range(n):
            row[k] = x.data + rows[l0 + l + k] * x.width
        r.K.load_rows(rows_of(r, r.RV, run, l0 + l, tag), r.plan.body.runs[run].ld, row, <int>x.width, n)
        l += n


cdef inline bint is_failure(int code, double x, double y, double v) noexcept nogil:
    """Whether an operation with this result raises in the engine."""
    if v - v == 0.0:
        return False
    return isfinite(x) if code == X_SQUARE else is_error(code, x, y, v)


cdef inline bint any_error(Replay r, const Instr *q, const real *V, const real *U, int lanes, int l, bint uniform,
                           real tag) noexcept nogil:
    """Whether one of the operations of an instruction raises, or of a sum's squares might, in lane l."""
    cdef bint va = is_vector(&q.a, uniform), vb = is_vector(&q.b, uniform)
    cdef const Sum *s
    cdef const Term *t
    cdef int k
    cdef double x, y = 0.0
    if q.kind == I_SUM:
        s = &r.plan.body.sums[q.extra]
        for k in range(s.first, s.stop):
            t = &r.plan.body.terms[k]
            if t.q_kind != R_NONE and t.p == t.q and t.p_kind == t.q_kind:
                if t.count > 1:
                    return True
                x = V[<Py_ssize_t>t.p * lanes + l] if t.p_kind == R_SLOTS else U[t.p]
                if isfinite(x) and not isfinite(<double><real>(x * x)):
                    return True
        return False
    for k in range(q.n):
        x = V[<Py_ssize_t>place(&q.a, k) * lanes + l] if va else U[place(&q.a, k)]
        if q.b.kind != R_NONE:
            y = V[<Py_ssize_t>place(&q.b, k) * lanes + l] if vb else U[place(&q.b, k)]
        if is_failure(q.code, x, y, V[<Py_ssize_t>(q.out + k) * lanes + l]):
            return True
    return False


cdef inline void check_guards(Replay r, const real *V, const real *U, real *room, int l0, int lanes,
                              real tag) noexcept nogil:
    """Comparisons of all lanes at once, and one by one only if some come out otherwise."""
    cdef const Body *p = &r.plan.body
    cdef Py_ssize_t k
    cdef int l, ones
    cdef const Guard *g
    cdef const real *x
    cdef const real *y
    cdef real yes = 1.0, no = 0.0
    for k in range(p.n_guards):
        g = &p.guards[k]
        if g.kind != R_SLOTS and g.other != R_SLOTS:
            continue
        x = V + <Py_ssize_t>g.p * lanes if g.kind == R_SLOTS else U + g.p
        y = V + <Py_ssize_t>g.q * lanes if g.other == R_SLOTS else U + g.q
        if g.op <= 5:
            ones = (g.kind != R_SLOTS) | (g.other != R_SLOTS) << 1 | 12
            r.K.where(g.op, ones, room, x, y, &yes, &no, lanes)
            if r.K.sum(room, lanes) == (lanes if g.value != 0.0 else 0):
                continue
        for l in range(lanes):
            if not holds(g, x[l if g.kind == R_SLOTS else 0],
                         0.0 if g.other == R_NONE else <double>y[l if g.other == R_SLOTS else 0], <real>g.value):
                r.status[l0 + l] |= MISSED


cdef inline void apply(Replay r, const Instr *q, int mode, real *out, const real *a, const real *b, Py_ssize_t n,
                       real tag) noexcept nogil:
    """One operation on n numbers."""
    cdef Py_ssize_t k
    cdef Row *f
    cdef bint one_a = mode == FS_A_IS_ONE, one_b = mode == FS_B_IS_ONE
    if q.op >= 0:
        if q.b.kind == R_NONE:
            r.K.unary(q.op, out, a, n)
        else:
            r.K.binary(q.op, mode, out, a, b, n)
    elif q.code == X_COPY:
        memcpy(out, a, n * sizeof(real))
    else:
        f = row(q.code)
        if f.arity == 1:
            for k in range(n):
                out[k] = <real>f.f(a[k])
        else:
            for k in range(n):
                out[k] = <real>f.f2(a[0 if one_a else k], b[0 if one_b else k])


cdef inline void apply_backward(Replay r, const Instr *q, int mode, real *da, real *db, const real *a, const real *b,
                                const real *v, const real *g, Py_ssize_t n, bint masked, real tag) noexcept nogil:
    """masked: gradients of zero send nothing and nothing passes a slope of zero, which the kernels do not look at."""
    cdef Py_ssize_t k
    cdef Row *f
    cdef bint one_a = mode == FS_A_IS_ONE, one_b = mode == FS_B_IS_ONE
    cdef double x, y
    if q.code == X_COPY:
        return
    if q.op >= 0 and not masked:
        if q.b.kind != R_NONE:
            r.K.binary_backward(q.op, mode, da, db, a, b, v, g, n)
        elif da != NULL:
            r.K.unary_backward(q.op, da, a, v, g, n)
        return
    f = row(q.code)
    for k in range(n):
        if g[k] == 0:
            continue
        x = a[0 if one_a else k]
        if q.code == X_SQUARE:
            da[k] += <real>sent(g[k], 2.0 * x)
            continue
        if f.arity == 1:
            da[k] += <real>sent(g[k], f.d(x, v[k]))
            continue
        y = b[0 if one_b else k]
        if da != NULL:
            da[0 if one_a else k] += <real>sent(g[k], f.da(x, y, v[k]))
        if db != NULL:
            db[0 if one_b else k] += <real>sent(g[k], f.db(x, y, v[k]))


cdef inline bint is_vector(const Ref *a, bint uniform) noexcept nogil:
    """Whether an operand has a number for each lane (all have, in the uniform part)."""
    return a.kind == R_SLOTS or uniform


cdef inline bint is_flat(const Ref *a, int n, bint uniform) noexcept nogil:
    """Whether an operand of n operations is one stretch of memory, or one number."""
    if a.kind == R_NONE or n == 1:
        return True
    if a.index != NULL:
        return False
    return a.step == 1 if is_vector(a, uniform) else a.step == 0


cdef inline int mode_of_one_lane(const Instr *q) noexcept nogil:
    """Of operations on one lane, all at once: an operand that all share is one number then; -1: one by one."""
    cdef bint one_a = q.a.step == 0, one_b = q.b.kind != R_NONE and q.b.step == 0
    if q.n == 1 or q.a.index != NULL or q.b.index != NULL or (one_a and (one_b or q.b.kind == R_NONE)):
        return -1
    return FS_A_IS_ONE if one_a else FS_B_IS_ONE if one_b else FS_VECTORS


cdef inline void elements_forward(Replay r, const Instr *q, real *V, real *U, int lanes, bint uniform,
                                  real tag) noexcept nogil:
    cdef bint va = is_vector(&q.a, uniform), vb = q.b.kind == R_NONE or is_vector(&q.b, uniform)
    cdef int mode = FS_VECTORS if va and vb else FS_B_IS_ONE if va else FS_A_IS_ONE
    cdef Py_ssize_t k
    cdef real *out = V + <Py_ssize_t>q.out * lanes
    cdef const real *a
    cdef const real *b = NULL
    cdef int together = mode_of_one_lane(q) if lanes == 1 else -1
    if together >= 0:
        mode = together
    if together >= 0 or (is_flat(&q.a, q.n, uniform) and is_flat(&q.b, q.n, uniform)):
        a = V + <Py_ssize_t>place(&q.a, 0) * lanes if va else U + place(&q.a, 0)
        if q.b.kind != R_NONE:
            b = V + <Py_ssize_t>place(&q.b, 0) * lanes if vb else U + place(&q.b, 0)
        apply(r, q, mode, out, a, b, <Py_ssize_t>q.n * lanes, tag)
        return
    for k in range(q.n):
        a = V + <Py_ssize_t>place(&q.a, <int>k) * lanes if va else U + place(&q.a, <int>k)
        if q.b.kind != R_NONE:
            b = V + <Py_ssize_t>place(&q.b, <int>k) * lanes if vb else U + place(&q.b, <int>k)
        apply(r, q, mode, out + k * lanes, a, b, lanes, tag)


cdef inline void rows_forward(Replay r, const Instr *q, int l0, int lanes, real tag) noexcept nogil:
    """An operation on whole runs; an operand may be n uniform numbers, or one."""
    cdef const Run *out = &r.plan.body.runs[q.run]
    cdef real *U = <real *>r.U
    cdef bint ra = q.a.kind == R_ROWS, rb = q.b.kind == R_ROWS
    cdef bint one_a = not ra and q.a.step == 0, one_b = q.b.kind == R_UNIFORM and q.b.step == 0
    cdef int mode = FS_A_IS_ONE if one_a else FS_B_IS_ONE if one_b else FS_VECTORS, l, k
    cdef const real *a
    cdef const real *b
    cdef const real *v
    cdef bint flat = out.ld == q.n and (ra or one_a) and (rb or one_b or q.b.kind == R_NONE)
    if flat and (not ra or r.plan.body.runs[q.a.run].ld == q.n) and (not rb or r.plan.body.runs[q.b.run].ld == q.n):
        a = rows_of(r, r.RV, q.a.run, l0, tag) if ra else U + q.a.start
        b = rows_of(r, r.RV, q.b.run, l0, tag) if rb else U + q.b.start
        apply(r, q, mode, rows_of(r, r.RV, q.run, l0, tag), a, b, <Py_ssize_t>q.n * lanes, tag)
    else:
        for l in range(l0, l0 + lanes):
            a = rows_of(r, r.RV, q.a.run, l, tag) if ra else U + q.a.start
            b = rows_of(r, r.RV, q.b.run, l, tag) if rb else U + q.b.start
            apply(r, q, mode, rows_of(r, r.RV, q.run, l, tag), a, b, q.n, tag)
    if q.raises:
        for l in range(l0, l0 + lanes):
            v = rows_of(r, r.RV, q.run, l, tag)
            if not r.K.not_finite(v, q.n):
                continue
            a = rows_of(r, r.RV, q.a.run, l, tag) if ra else U + q.a.start
            b = rows_of(r, r.RV, q.b.run, l, tag) if rb else U + q.b.start
            for k in range(q.n):
                if is_failure(q.code, a[0 if one_a else k], 0.0 if q.b.kind == R_NONE else b[0 if one_b else k], v[k]):
                    r.status[l] |= SUSPECT


cdef inline void sum_forward(Replay r, const Instr *q, real *V, real *U, int lanes, real tag) noexcept nogil:
    cdef const Sum *s = &r.plan.body.sums[q.extra]
    cdef const Term *t
    cdef real *out = V + <Py_ssize_t>q.out * lanes
    cdef double number = 0.0 if s.zero else -0.0     # what leaves every x + number as it is
    cdef int k, l
    for k in range(s.first, s.stop):
        t = &r.plan.body.terms[k]
        if t.p_kind == R_UNIFORM and t.q_kind != R_SLOTS:
            number += t.sign * <double>U[t.p] * (<double>U[t.q] if t.q_kind == R_UNIFORM else 1.0)
    for l in range(lanes):
        out[l] = <real>number
    for k in range(s.first, s.stop):
        t = &r.plan.body.terms[k]
        if t.p_kind == R_UNIFORM and t.q_kind != R_SLOTS:
            continue
        elif t.q_kind == R_NONE:
            if lanes == 1:
                out[0] += t.sign * V[t.p]
            elif t.sign > 0:
                r.K.add(out, V + <Py_ssize_t>t.p * lanes, lanes)
            else:
                r.K.add_scaled(out, -1.0, V + <Py_ssize_t>t.p * lanes, lanes)
        elif t.p_kind == R_UNIFORM:
            r.K.add_scaled(out, t.sign * <double>U[t.p], V + <Py_ssize_t>t.q * lanes, lanes)
        elif t.q_kind == R_UNIFORM:
            r.K.add_scaled(out, t.sign * <double>U[t.q], V + <Py_ssize_t>t.p * lanes, lanes)
        elif t.sign > 0:
            r.K.add_product(out, V + <Py_ssize_t>t.p * lanes, V + <Py_ssize_t>t.q * lanes, lanes)
        else:
            subtract_product(out, V + <Py_ssize_t>t.p * lanes, V + <Py_ssize_t>t.q * lanes, lanes)


cdef inline void subtract_product(real *y, const real *a, const real *b, int n) noexcept nogil:
    cdef int k
    for k in range(n):
        y[k] -= a[k] * b[k]


cdef inline void product_forward(Replay r, const Instr *q, int thread, int l0, int lanes, const long long *rows,
                                 real tag) noexcept nogil:
    cdef const Product *p = &r.plan.body.products[q.extra]
    cdef const Matrix *m = &r.plan.body.matrices[p.matrix]
    cdef const real *w = <real *>r.U + m.base
    cdef const real *bias = <real *>r.U + r.plan.body.matrices[p.bias].base if p.bias >= 0 else NULL
    cdef const real *x = rows_of(r, r.RV, p.x, l0, tag) + p.first
    cdef real *out = rows_of(r, r.RV, q.run, l0, tag)
    cdef const int *column[128]                  # the most that a chunk has
    cdef const void *value[128]
    cdef int count[128]
    cdef int l, ld = r.plan.body.runs[p.x].ld
    cdef real scale = <real>r.scale[p.matrix]
    cdef const real *b = bias if scale == 1.0 else NULL
    if p.exact and r.wide:
        exact_product(r, thread, p, <double *>out, l0, lanes, rows)
        return
    if has_sparse(r, p):
        find_rows(r, &r.input[p.whole_input], rows + l0, lanes, 0, r.parts, column, value, count)
    if m.ld == 1:
        for l in range(lanes):
            out[l] = (b[0] if b != NULL else 0) + <real>(
                r.K.sparse_dot(column[l], value[l], count[l], w) if has_sparse(r, p)
                else r.K.dot(x + <Py_ssize_t>l * ld, w, m.rows))
    elif has_sparse(r, p):
        r.K.sparse_affine(out, m.ld, b, w, m.ld, m.ld, lanes, column, value, count)
    else:
        r.K.dense_affine(out, m.ld, b, w, m.ld, m.ld, lanes, x, ld, m.rows)
    if scale != 1.0:
        r.K.binary(FS_MUL, FS_B_IS_ONE, out, out, &scale, <Py_ssize_t>lanes * m.ld)
        for l in range(lanes):
            if bias != NULL:
                r.K.add(out + <Py_ssize_t>l * m.ld, bias, m.ld)
    if p.skips and not has_sparse(r, p) and r.K.not_finite(out, <Py_ssize_t>lanes * m.ld):
        skipping_product(r, p, out, l0, lanes, rows, tag)


cdef inline void exact_product(Replay r, int thread, const Product *p, double *out, int l0, int lanes,
                               const long long *rows) noexcept nogil:
    """As the engine does it, by its own kernel: a decision is made on the result."""
    cdef const Matrix *m = &r.plan.body.matrices[p.matrix]
    cdef const double *w = <double *>r.U + m.base
    cdef const double *b = <double *>r.U + r.plan.body.matrices[p.bias].base if p.bias >= 0 else r.zeros
    cdef double *value = <double *>r.scratch[thread]
    cdef int *row = <int *>(value + m.rows)
    cdef double x
    cdef int l, j, count
    for l in range(lanes):
        count = 0
        for j in range(m.rows):
            x = input_of(r, p, l0 + l, j, rows, <double>0.0)
            row[count], value[count] = j, x
            count += x != 0.0                    # NaN counts
        K.affine(out + <Py_ssize_t>l * m.ld, b, w, m.ld, row, value, count)


cdef inline void skipping_product(Replay r, const Product *p, real *out, int l0, int lanes, const long long *rows,
                                  real tag) noexcept nogil:
    """A layer whose result is not finite: inputs of exactly zero count as nothing, whatever their weights are."""
    cdef const Matrix *m = &r.plan.body.matrices[p.matrix]
    cdef const real *w = <real *>r.U + m.base
    cdef real *y
    cdef real x, scale = <real>r.scale[p.matrix]
    cdef int l, i, j
    for l in range(lanes):
        y = out + <Py_ssize_t>l * m.ld
        for i in range(m.cols):
            y[i] = (<real *>r.U + r.plan.body.matrices[p.bias].base)[i] if p.bias >= 0 else 0
        for j in range(m.rows):
            x = input_of(r, p, l0 + l, j, rows, tag)
            if x != 0:
                for i in range(m.cols):
                    y[i] += scale * x * w[<Py_ssize_t>j * m.ld + i]


cdef inline void unpack(Replay r, const Instr *q, const real *source, real *V, int lanes, real tag) noexcept nogil:
    cdef int ld = r.plan.body.runs[q.a.run].ld, k, l, at
    cdef real *out = V + <Py_ssize_t>q.out * lanes
    if q.a.index == NULL and (q.a.step == 1 or q.n == 1):
        r.K.transpose(out, lanes, source + q.a.start, ld, lanes, q.n, False)
        return
    for k in range(q.n):
        at = place(&q.a, k)
        for l in range(lanes):
            out[<Py_ssize_t>k * lanes + l] = source[<Py_ssize_t>l * ld + at]


cdef inline void pack(Replay r, const Instr *q, const real *V, const real *U, int l0, int lanes,
                      real tag) noexcept nogil:
    cdef int ld = r.plan.body.runs[q.run].ld, k = 0, l, n
    cdef real *out = rows_of(r, r.RV, q.run, l0, tag)
    cdef const int *index = q.a.index
    while k < q.n:
        n = 1
        if index[k] < 0:
            for l in range(lanes):
                out[<Py_ssize_t>l * ld + k] = U[-1 - index[k]]
        else:
            while k + n < q.n and index[k + n] == index[k] + n:
                n += 1
            r.K.transpose(out + k, ld, V + <Py_ssize_t>index[k] * lanes, lanes, n, lanes, False)
        k += n


cdef inline const real *one_of(const Ref *a, const real *V, const real *U, int lanes) noexcept nogil:
    return V + <Py_ssize_t>a.start * lanes if a.kind == R_SLOTS else U + a.start


cdef inline void where_forward(Replay r, const Instr *q, real *V, real *U, int lanes, real tag) noexcept nogil:
    cdef const Item *it = &r.plan.body.items[q.extra]
    cdef int ones = (q.a.kind != R_SLOTS) | (q.b.kind != R_SLOTS) << 1 | (it.c.kind != R_SLOTS) << 2 | (
        it.d.kind != R_SLOTS) << 3
    r.K.where(it.count, ones, V + <Py_ssize_t>q.out * lanes, one_of(&q.a, V, U, lanes), one_of(&q.b, V, U, lanes),
              one_of(&it.c, V, U, lanes), one_of(&it.d, V, U, lanes), lanes)


cdef inline long long choice(Replay r, int argument, int fixed, long long row, Py_ssize_t n) noexcept nogil:
    """A label or an index; -1: out of range."""
    cdef long long i = fixed if argument < 0 else r.input[argument].whole[row]
    if i < 0:
        i = -1 if fixed == -2 or i + n < 0 else i + n
    return i if i < n else -1


cdef inline void best_forward(Replay r, const Instr *q, real *V, const real *U, int l0, int lanes,
                              real tag) noexcept nogil:
    cdef const Item *it = &r.plan.body.items[q.extra]
    cdef bint least = q.code == BEST_MIN or q.code == BEST_ARGMIN, place = q.code > BEST_MIN
    cdef real *best = V + <Py_ssize_t>(it.saved if place else q.out) * lanes
    cdef real *at = V + <Py_ssize_t>(q.out if place else it.saved) * lanes
    cdef int k, i, l
    if q.a.kind == R_ROWS:
        r.K.best(least, best, at, rows_of(r, r.RV, it.x, l0, tag) + q.a.start, r.plan.body.runs[it.x].ld, it.count,
                 lanes)
        return
    i = q.a.index[0]
    for l in range(lanes):
        best[l] = V[<Py_ssize_t>i * lanes + l] if i >= 0 else U[-1 - i]
    memset(at, 0, lanes * sizeof(real))
    for k in range(1, it.count):
        i = q.a.index[k]
        r.K.better(least, i < 0, best, at, V + <Py_ssize_t>i * lanes if i >= 0 else U + (-1 - i), k, lanes)


cdef inline long long chosen(Replay r, const Item *it, int l, long long row, Py_ssize_t n, real tag) noexcept nogil:
    """The index of a gather in lane l, that of the row or the one that was computed; -1: out of range."""
    cdef long long i
    if it.argument >= 0:
        return choice(r, it.argument, 0, row, n)
    i = <long long>rows_of(r, r.RV, it.saved, l, tag)[0]
    return i if 0 <= i < n else -1


cdef inline void gather_forward(Replay r, const Instr *q, const real *V, int l0, int lanes, const long long *rows,
                                real tag) noexcept nogil:
    cdef const Item *it = &r.plan.body.items[q.extra]
    cdef real *out = rows_of(r, r.RV, q.run, l0, tag)
    cdef const Matrix *m
    cdef const real *source
    cdef long long i
    cdef int l, n, ld = r.plan.body.runs[q.run].ld
    for l in range(lanes):
        if it.address >= 0:
            m = &r.plan.body.matrices[it.address]
            n = m.rows
        else:
            n = q.b.start // it.count
        if it.argument < 0:
            rows_of(r, r.RV, it.saved, l0 + l, tag)[0] = V[<Py_ssize_t>it.label * lanes + l]
        i = chosen(r, it, l0 + l, rows[l0 + l], n, tag)
        if i < 0:
            r.status[l0 + l] |= SUSPECT
            i = 0
        if it.address >= 0:
            source = <real *>r.U + m.base + i * m.ld
        else:
            source = rows_of(r, r.RV, it.x, l0 + l, tag) + q.a.start + i * it.count
        memcpy(out + <Py_ssize_t>l * ld, source, it.count * sizeof(real))


cdef inline void loss_forward(Replay r, const Instr *q, int thread, int l0, int lanes, const long long *rows,
                              real tag) noexcept nogil:
    """cross_entropy, logsumexp, softmax."""
    cdef const Item *it = &r.plan.body.items[q.extra]
    cdef const real *z = rows_of(r, r.RV, it.x, l0, tag) + q.a.start
    cdef int ld = r.plan.body.runs[it.x].ld, n = q.b.start, l
    cdef real *out
    cdef real *p
    cdef long long i
    cdef double lse
    if it.exact and r.wide:
        for l in range(lanes):
            p = rows_of(r, r.RV, q.run if q.kind == I_SOFTMAX else it.saved, l0 + l, tag)
            memcpy(p, z + <Py_ssize_t>l * ld, n * sizeof(real))
            lse = softmax_in_place(<double *>p, n)
            if q.kind != I_SOFTMAX:
                (<real *>r.V[thread])[<Py_ssize_t>q.out * lanes + l] = <real>lse
        if q.kind == I_SOFTMAX:
            return
        out = <real *>r.V[thread] + <Py_ssize_t>q.out * lanes
    elif q.kind == I_SOFTMAX:
        r.K.softmax(rows_of(r, r.RV, q.run, l0, tag), r.plan.body.runs[q.run].ld, r.scratch[thread], z, ld, n, lanes)
        return
    else:
        out = <real *>r.V[thread] + <Py_ssize_t>q.out * lanes
        r.K.softmax(rows_of(r, r.RV, it.saved, l0, tag), r.plan.body.runs[it.saved].ld, out, z, ld, n, lanes)
    if q.kind == I_XENT:
        for l in range(lanes):
            i = choice(r, it.argument, it.label if it.argument < 0 else -2, rows[l0 + l], n)
            if i < 0:
                r.status[l0 + l] |= SUSPECT
                i = 0
            out[l] -= z[<Py_ssize_t>l * ld + i]
