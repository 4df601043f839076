# cython: language_level=3, wraparound=False, cdivision=True
# cython: nonecheck=False
# The forward sweep of a replay: the uniform part, and a chunk of rows instruction by instruction.
# Inline parts of `_replay`.

from libc.math cimport isfinite, signbit
from libc.string cimport memcpy, memset

from fastscalar._core cimport *
from fastscalar.engine._array_ops cimport softmax_in_place
from fastscalar.engine._random cimport Draw, R_UNIFORM_NUMBER, random_key, random_numbers
from fastscalar.engine.errors cimport is_error
from fastscalar.engine.formulas cimport sent
from fastscalar.engine.numbers cimport compare_numbers
from fastscalar.program._graph cimport GUARD_CEIL, GUARD_FLOOR, GUARD_SAME, GUARD_TRUNC, kind_of_error
from fastscalar.program._kernels cimport *
from fastscalar.program._replay cimport *
from fastscalar.program.calls cimport call
from fastscalar.program.images cimport *
from fastscalar.program.plan cimport *
from fastscalar.program.runs cimport *
from fastscalar.program.turned cimport *


# --- operands -------------------------------------------------------------------------------------

cdef inline int place(const Ref *a, int k) noexcept nogil:
    return a.index[k] if a.index != NULL else a.start + k * a.step


cdef inline real input_of(Replay r, const Product *p, int l, int j, const long long *rows, real tag) noexcept nogil:
    """Number j that row l of the batch has for a product, wherever it lies."""
    cdef const Input *x
    if p.whole_input >= 0:
        x = &r.input[p.whole_input]
        return <real>x.data[rows[l] * x.width + j]
    return rows_of(r, r.run_value, p.x, l, tag)[p.first + j]


cdef inline bint is_in_place(Replay r, const Input *x) noexcept nogil:
    """Whether products read single rows of an input where they lie."""
    return r.batch_rows == 1 and x.own != NULL


cdef inline const real *inputs_of(Replay r, const Product *p, int first_row, const long long *rows,
                                  real tag) noexcept nogil:
    """What rows from this one on have for a product that is not sparse."""
    cdef const Input *x = &r.input[max(0, p.whole_input)]
    if p.whole_input >= 0 and is_in_place(r, x):
        return <const real *>x.own + rows[first_row] * x.width
    return rows_of(r, r.run_value, p.x, first_row, tag) + p.first


cdef inline void fetch_row(Replay r, const Input *x, Py_ssize_t k, real tag) noexcept nogil:
    """The next row of a run comes while this one is under way."""
    if k < r.n_rows:
        fs_fetch(<const real *>x.own + r.rows[k] * x.width, x.width * sizeof(real))


cdef inline bint has_sparse(Replay r, const Product *p) noexcept nogil:
    return p.whole_input >= 0 and r.input[p.whole_input].begin != NULL and not r.unfit[p.matrix]


cdef inline void find_rows(Replay r, const Input *x, const long long *rows, int n_rows, int part, int parts,
                           const int **column, const void **value, int *count) noexcept nogil:
    """Sparse rows, or some parts of them, of some rows."""
    cdef int l
    cdef Py_ssize_t first, stop
    for l in range(n_rows):
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
    cdef real *U = <real *>r.uniform
    cdef const int *table
    r.uniform_guard_failed = r.uniform_may_raise = False
    r.uniform_order_matters = r.wild
    for k in range(p.n_uniform_instr):
        q = &p.uniform[k]
        if q.kind == I_SUM:
            U[q.out] = <real>uniform_sum(r, q, tag)
        else:
            elements_forward(r, q, U, U, 1, True, tag)
        if q.raises and r.kernels.not_finite(U + q.out, q.n) and any_error(r, q, U, U, 1, 0, True, tag):
            r.uniform_may_raise = True
        if r.watch and (r.kernels.beyond(U + q.out, q.n) or (q.steep and any_element(q, U, U, 1, 0, True, True, tag))):
            r.uniform_order_matters = True
    if r.watch and not r.mode & TRAIN and wild_terms(r, U, tag):
        r.uniform_order_matters = True
    for k in range(p.n_matrices):
        m = &p.matrices[k]
        if m.table >= 0:
            table = p.table_of[m.table]
            for i in range(m.rows):
                for j in range(m.cols):
                    U[m.base + i * m.ld + j] = U[table[i * m.cols + j]]
    for k in range(r.plan.n_products):
        m = &p.matrices[p.products[k].matrix]
        if m.table >= 0 and r.watch and not r.mode & TRAIN and r.kernels.beyond(U + m.base, <Py_ssize_t>m.rows * m.ld):
            r.uniform_order_matters = True
        if p.matrices[p.products[k].matrix].table >= 0 and p.products[k].whole_input >= 0 and not p.products[k].skips:
            m = &p.matrices[p.products[k].matrix]
            r.unfit[p.products[k].matrix] = r.kernels.not_finite(U + m.base, <Py_ssize_t>m.rows * m.ld)
            if r.unfit[p.products[k].matrix]:
                r.input[p.products[k].whole_input].forced = True
    for k in range(p.n_guards):
        guard = &p.guards[k]
        if guard.kind != R_SLOTS and guard.other != R_SLOTS:
            if not holds(guard, U[guard.p], U[guard.q] if guard.other == R_UNIFORM else 0.0, <real>guard.value):
                r.uniform_guard_failed = True


cdef inline bint wild_terms(Replay r, const real *U, real tag) noexcept nogil:
    """Whether uniform numbers that are added up are so large that their order may matter."""
    cdef Py_ssize_t k
    cdef const Term *t
    for k in range(r.n_uniform_terms):
        t = &r.plan.body.terms[r.uniform_terms[k]]
        if (t.p_kind == R_UNIFORM and r.kernels.beyond(U + t.p, t.count)) or (
                t.q_kind == R_UNIFORM and t.q != t.p and r.kernels.beyond(U + t.q, t.count)):
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


cdef inline double uniform_sum(Replay r, const Instr *q, real tag) noexcept nogil:
    cdef const Sum *s = &r.plan.body.sums[q.extra]
    cdef const Term *t
    cdef real *U = <real *>r.uniform
    cdef double total = 0.0 if s.zero else -0.0
    cdef int k
    for k in range(s.first, s.stop):
        t = &r.plan.body.terms[k]
        if t.q_kind == R_NONE:
            total += t.sign * (r.kernels.sum(U + t.p, t.count) if t.count > 1 else <double>U[t.p])
        else:
            total += t.sign * (r.kernels.dot(U + t.p, U + t.q, t.count) if t.count > 1 else <double>U[t.p] * U[t.q])
    return total


cdef inline void forward(Replay r, int thread, int first_row, int n_rows, const long long *rows,
                         real tag) noexcept nogil:
    cdef const Body *p = &r.plan.body
    cdef Py_ssize_t k
    cdef int l
    cdef real *V = <real *>r.slot_value[thread]
    cdef real *U = <real *>r.uniform
    cdef void *bases[6]
    cdef const fs_step *steps = steps_of(r.forward_list, n_rows, first_row)
    cdef bint of_one = steps != NULL and steps == r.forward_list[1].steps
    cdef int at
    cdef const Input *x
    cdef const real *v
    cdef double *out
    memset(r.status + first_row, 0, n_rows)
    for l in range(r.n_inputs):
        x = &r.input[l]
        if x.slot != NULL and not of_one:
            r.kernels.load_columns(V, n_rows, x.data, x.width, rows + first_row, n_rows, x.slot, x.n_columns)
        elif p.run_of_input[l] >= 0 and not x.dense and is_in_place(r, x):
            fetch_row(r, x, r.first + 1, tag)
        elif p.run_of_input[l] >= 0 and (x.dense or x.forced or x.begin == NULL):
            load_input(r, l, first_row, n_rows, rows, tag)
    if steps != NULL:
        bases[0], bases[1], bases[2], bases[3] = V, U, V, U      # some of them are of the way back
        bases[4], bases[5] = r.run_value, r.run_value
        at = r.kernels.forward_steps(steps, 0, bases, n_rows)
        while steps[at].at[0] >= 0:
            instruction_forward(r, &p.per_row[steps[at].at[0]], thread, V, U, first_row, n_rows, rows, tag)
            at = r.kernels.forward_steps(steps, at + 1, bases, n_rows)
    else:
        for k in range(p.n_per_row):
            instruction_forward(r, &p.per_row[k], thread, V, U, first_row, n_rows, rows, tag)
    for k in range(p.n_results):
        out = r.result + <Py_ssize_t>first_row * p.n_results + k
        if p.results[k].kind == R_SLOTS:
            v = V + <Py_ssize_t>p.results[k].place * n_rows
            for l in range(n_rows):
                out[<Py_ssize_t>l * p.n_results] = v[l]
        else:
            for l in range(n_rows):
                out[<Py_ssize_t>l * p.n_results] = U[p.results[k].place]
    if r.calls and p.n_results:
        for l in range(first_row, first_row + n_rows):
            if r.status[l] & GUARD_FAILED:       # in a loop: by no guard of this plan
                r.result[<Py_ssize_t>l * p.n_results] = -1.0
    if r.watch:
        watch_chunk(r, V, first_row, n_rows, rows, tag)
    check_guards(r, V, U, <real *>r.scratch[thread], first_row, n_rows, tag)


cdef inline void draw(Replay r, const Instr *q, real *V, int first_row, int n_rows, const long long *rows,
                      real tag) noexcept nogil:
    """The numbers of some rows: what a row has does not depend on the others."""
    cdef const Draw *d = &r.plan.draws[q.extra]
    cdef unsigned long long key = random_key(r.stream_seed, r.epoch, d.site, d.scope)
    cdef long long first = r.occurrence[q.extra] + q.code
    cdef double[32] some
    cdef int k, l, step = 1 if q.run >= 0 else n_rows
    cdef long long row, begin = first
    cdef real *out
    for l in range(n_rows):
        row = rows[first_row + l]
        if r.counter_of != NULL:                 # an iteration: what was drawn in those before is in the row's state
            first = begin + <long long>r.input[0].data[row * r.input[0].width + r.counter_of[q.extra]]
        row = r.row_offset + row if r.row_numbers == NULL else r.row_numbers[row]
        out = V + <Py_ssize_t>q.out * n_rows + l if q.run < 0 else rows_of(r, r.run_value, q.run, first_row + l, tag)
        for k in range(q.n):
            if k % 32 == 0:
                random_numbers(some, min(32, q.n - k), d.kind, d.p, key, row, first + k, r.antithetic)
            out[0] = <real>some[k % 32]
            if real is float and d.kind == R_UNIFORM_NUMBER and out[0] == 1.0:
                out[0] = <real>0.99999994
            out += step


cdef inline const fs_step *steps_of(const StepList *lists, int n_rows, int first_row, int mode=0,
                                    int modes=1) noexcept nogil:
    """Those for one row may be there or not; they have its runs where the first row of a batch has them."""
    if n_rows == 1 and first_row == 0 and lists[modes + mode].steps != NULL:
        return lists[modes + mode].steps
    return lists[mode].steps


cdef inline void instruction_forward(Replay r, const Instr *q, int thread, real *V, real *U, int first_row, int n_rows,
                                     const long long *rows, real tag) noexcept nogil:
    cdef int l
    cdef long long whole
    cdef const Input *x
    if q.kind == I_ELEMENTS or q.kind == I_SUM:
        if q.kind == I_SUM:
            for l in range(q.n):
                sum_forward(r, q, l, V, U, n_rows, tag)
        else:
            elements_forward(r, q, V, U, n_rows, False, tag)
        if q.raises:
            look_for_errors(r, q, V, U, first_row, n_rows, tag)
        if q.steep and r.watch:
            for l in range(n_rows):
                if any_element(q, V, U, n_rows, l, False, True, tag):
                    r.status[first_row + l] |= ORDER_MATTERS
    elif q.kind == I_ROWS:
        rows_forward(r, q, first_row, n_rows, tag)
        if q.steep and r.watch:
            for l in range(first_row, first_row + n_rows):
                if steep_row(r, q, l, tag):
                    r.status[l] |= ORDER_MATTERS
    elif q.kind == I_PRODUCT:
        product_forward(r, q, thread, first_row, n_rows, rows, tag)
    elif q.kind == I_NUMBER:
        x = &r.input[q.extra]
        for l in range(n_rows):
            if x.whole == NULL:
                V[<Py_ssize_t>q.out * n_rows + l] = <real>x.data[rows[first_row + l]]
                continue
            whole = x.whole[rows[first_row + l]]
            V[<Py_ssize_t>q.out * n_rows + l] = <real>whole
            if not -(1LL << 53) < whole < 1LL << 53:         # not all of its digits, by which the function goes
                r.status[first_row + l] |= MAY_RAISE
    elif q.kind == I_RANDOM:
        draw(r, q, V, first_row, n_rows, rows, tag)
    elif q.kind == I_UNPACK:
        if not r.direct[q.a.run]:
            unpack(r, q, rows_of(r, r.run_value, q.a.run, first_row, tag), V, n_rows, tag)
    elif q.kind == I_PACK:
        pack(r, q, V, U, first_row, n_rows, tag)
    elif q.kind == I_WHERE:
        where_forward(r, q, V, U, n_rows, tag)
    elif q.kind == I_CALL:
        call(r, q, first_row, n_rows, False, tag)
    elif q.kind == I_BEST:
        best_forward(r, q, V, U, first_row, n_rows, tag)
    elif q.kind == I_CONV:
        conv_forward(r, q, thread, first_row, n_rows, tag)
    elif q.kind == I_POOL:
        pool_forward(r, q, first_row, n_rows, tag)
    elif q.kind == I_GATHER:
        gather_forward(r, q, V, first_row, n_rows, rows, tag)
    else:
        loss_forward(r, q, thread, first_row, n_rows, rows, tag)


cdef inline void look_for_errors(Replay r, const Instr *q, const real *V, const real *U, int first_row, int n_rows,
                                 real tag) noexcept nogil:
    cdef int l
    if r.kernels.not_finite(V + <Py_ssize_t>q.out * n_rows, <Py_ssize_t>q.n * n_rows):
        for l in range(n_rows):
            if any_error(r, q, V, U, n_rows, l, False, tag):
                r.status[first_row + l] |= MAY_RAISE


cdef inline void watch_chunk(Replay r, const real *V, int first_row, int n_rows, const long long *rows,
                             real tag) noexcept nogil:
    """Marks the rows in which something that was computed, or that a product reads, is NaN or so large that in another
    order of additions it might be infinite: sums are fused and reordered here, and equal operations done once."""
    cdef const Body *p = &r.plan.body
    cdef Py_ssize_t k
    cdef int l
    cdef const real *v
    cdef const Input *x
    cdef bint any_beyond = r.batch > 1 or r.kernels.beyond(r.run_value, columns_of_runs(p)) != 0
    if r.kernels.beyond(V, <Py_ssize_t>p.n_slots * n_rows):
        for k in range(p.n_per_row):             # which steps do not look at
            if p.per_row[k].raises and p.per_row[k].kind in (I_ELEMENTS, I_SUM):
                look_for_errors(r, &p.per_row[k], V, <real *>r.uniform, first_row, n_rows, tag)
        for k in range(p.n_slots):
            v = V + k * n_rows
            if r.kernels.beyond(v, n_rows):
                for l in range(n_rows):
                    if r.kernels.beyond(v + l, 1):
                        r.status[first_row + l] |= ORDER_MATTERS
    for k in range(p.n_per_row):
        if r.batch == 1 and not any_beyond:      # of one row they are one stretch
            break
        if p.per_row[k].run < 0 or p.per_row[k].kind == I_PACK:      # what is packed lies in slots
            continue
        v = rows_of(r, r.run_value, p.per_row[k].run, first_row, tag)
        if r.kernels.beyond(v, <Py_ssize_t>p.runs[p.per_row[k].run].ld * n_rows):
            for l in range(n_rows):
                if r.kernels.beyond(v + <Py_ssize_t>l * p.runs[p.per_row[k].run].ld, p.per_row[k].n):
                    r.status[first_row + l] |= ORDER_MATTERS
    for k in range(r.plan.n_products):
        if p.products[k].whole_input < 0 or r.input[p.products[k].whole_input].finite:
            continue
        x = &r.input[p.products[k].whole_input]
        for l in range(n_rows):
            if r.kernels.beyond(x.data + rows[first_row + l] * x.width, x.width):         # doubles, as they are here
                r.status[first_row + l] |= ORDER_MATTERS


cdef inline bint any_element(const Instr *q, const real *V, const real *U, int n_rows, int l, bint uniform, bint steep,
                             real tag) noexcept nogil:
    """Whether a slope of an instruction's operations is not finite in row l; not steep: whether one raises."""
    cdef bint va = is_vector(&q.a, uniform), vb = is_vector(&q.b, uniform)
    cdef int k
    cdef double x, y = 0.0, v
    for k in range(q.n):
        x = V[<Py_ssize_t>place(&q.a, k) * n_rows + l] if va else U[place(&q.a, k)]
        if q.b.kind != R_NONE:
            y = V[<Py_ssize_t>place(&q.b, k) * n_rows + l] if vb else U[place(&q.b, k)]
        v = V[<Py_ssize_t>(q.out + k) * n_rows + l]
        if is_steep_at(q.code, x, y, v) if steep else is_failure(q.code, x, y, v):
            return True
    return False


cdef inline bint steep_row(Replay r, const Instr *q, int l, real tag) noexcept nogil:
    """The same of an operation on the columns of a run."""
    cdef bint ra = q.a.kind == R_ROWS, rb = q.b.kind == R_ROWS
    cdef const real *a = rows_of(r, r.run_value, q.a.run, l, tag) if ra else <real *>r.uniform + q.a.start
    cdef const real *b = rows_of(r, r.run_value, q.b.run, l, tag) if rb else <real *>r.uniform + q.b.start
    cdef const real *v = rows_of(r, r.run_value, q.run, l, tag)
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


cdef inline void load_input(Replay r, int i, int first_row, int n_rows, const long long *rows, real tag) noexcept nogil:
    """Rows of the data as numbers of our type, some at a time."""
    cdef Rows16 row
    cdef const Input *x = &r.input[i]
    cdef int run = r.plan.body.run_of_input[i], l = 0, k, n
    while l < n_rows:
        n = min(16, n_rows - l)
        for k in range(n):
            row[k] = x.data + rows[first_row + l + k] * x.width
        r.kernels.load_rows(rows_of(r, r.run_value, run, first_row + l, tag), r.plan.body.runs[run].ld, row,
                            <int>x.width, n)
        l += n


cdef inline bint is_failure(int code, double x, double y, double v) noexcept nogil:
    """Whether an operation with this result raises in the engine."""
    if v - v == 0.0:
        return False
    return isfinite(x) if code == X_SQUARE else is_error(code, x, y, v)


cdef inline bint any_error(Replay r, const Instr *q, const real *V, const real *U, int n_rows, int l, bint uniform,
                           real tag) noexcept nogil:
    """Whether one of the operations of an instruction raises, or of a sum's squares might, in row l."""
    cdef const Term *t
    cdef int k
    cdef double x
    if q.kind == I_SUM:
        for k in range(r.plan.body.sums[q.extra].first, r.plan.body.sums[q.extra + q.n - 1].stop):
            t = &r.plan.body.terms[k]
            if t.q_kind != R_NONE and t.p == t.q and t.p_kind == t.q_kind:
                if t.count > 1:
                    return True
                x = V[<Py_ssize_t>t.p * n_rows + l] if t.p_kind == R_SLOTS else U[t.p]
                if isfinite(x) and not isfinite(<double><real>(x * x)):
                    return True
        return False
    return any_element(q, V, U, n_rows, l, uniform, False, tag)


cdef inline void check_guards(Replay r, const real *V, const real *U, real *first, int first_row, int n_rows,
                              real tag) noexcept nogil:
    """Of each row the first guard that it fails stands in place of its results.  first: room for as many numbers."""
    cdef const Body *p = &r.plan.body
    cdef Py_ssize_t k
    cdef int l, row
    cdef const Guard *g
    cdef const real *x
    cdef const real *y
    if p.n_guards == 0:
        return
    for l in range(n_rows):
        first[l] = -1
    for k in range(p.n_guards):
        g = &p.guards[k]
        if g.kind != R_SLOTS and g.other != R_SLOTS:
            continue
        x = V + <Py_ssize_t>g.p * n_rows if g.kind == R_SLOTS else U + g.p
        y = V + <Py_ssize_t>g.q * n_rows if g.other == R_SLOTS else U + g.q
        if g.op <= 5:
            r.kernels.first_failure(g.op, (g.kind != R_SLOTS) | (g.other != R_SLOTS) << 1, g.value != 0.0, first, x, y,
                                    <double>k, n_rows)
            continue
        for l in range(n_rows):
            if first[l] < 0 and not holds(g, x[l if g.kind == R_SLOTS else 0],
                                          0.0 if g.other == R_NONE else <double>y[l if g.other == R_SLOTS else 0],
                                          <real>g.value):
                first[l] = <real>k
    for l in range(n_rows):
        if first[l] < 0:
            continue
        row = first_row + l
        if not r.status[row] & GUARD_FAILED and not r.mode & TRAIN and p.n_results:
            r.result[<Py_ssize_t>row * p.n_results] = first[l]
        r.status[row] |= GUARD_FAILED


cdef inline void apply(Replay r, const Instr *q, int mode, real *out, const real *a, const real *b, Py_ssize_t n,
                       real tag) noexcept nogil:
    """One operation on n numbers."""
    cdef Py_ssize_t k
    cdef Row *f
    cdef bint one_a = mode == FS_A_IS_ONE, one_b = mode == FS_B_IS_ONE
    if q.op >= 0:
        if q.b.kind == R_NONE:
            r.kernels.unary(q.op, out, a, n)
        else:
            r.kernels.binary(q.op, mode, out, a, b, n)
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
            r.kernels.binary_backward(q.op, mode, da, db, a, b, v, g, n)
        elif da != NULL:
            r.kernels.unary_backward(q.op, da, a, v, g, n)
        return
    if q.code == X_SQUARE:                       # which the table does not have
        for k in range(n):
            if g[k] != 0:
                da[k] += <real>sent(g[k], 2.0 * a[0 if one_a else k])
        return
    f = row(q.code)
    for k in range(n):
        if g[k] == 0:
            continue
        x = a[0 if one_a else k]
        if f.arity == 1:
            da[k] += <real>sent(g[k], f.d(x, v[k]))
            continue
        y = b[0 if one_b else k]
        if da != NULL:
            da[0 if one_a else k] += <real>sent(g[k], f.da(x, y, v[k]))
        if db != NULL:
            db[0 if one_b else k] += <real>sent(g[k], f.db(x, y, v[k]))


cdef inline bint is_vector(const Ref *a, bint uniform) noexcept nogil:
    """Whether an operand has a number for each row (all have, in the uniform part)."""
    return a.kind == R_SLOTS or uniform


cdef inline bint is_flat(const Ref *a, int n, bint uniform) noexcept nogil:
    """Whether an operand of n operations is one stretch of memory, or one number."""
    if a.kind == R_NONE or n == 1:
        return True
    if a.index != NULL:
        return False
    return a.step == 1 if is_vector(a, uniform) else a.step == 0


cdef inline int mode_of_one_row(const Instr *q) noexcept nogil:
    """Of operations on one row, all at once: an operand that all share is one number then; -1: one by one."""
    cdef bint one_a = q.a.step == 0, one_b = q.b.kind != R_NONE and q.b.step == 0
    if q.n == 1 or q.a.index != NULL or q.b.index != NULL or (one_a and (one_b or q.b.kind == R_NONE)):
        return -1
    return FS_A_IS_ONE if one_a else FS_B_IS_ONE if one_b else FS_VECTORS


cdef inline void elements_forward(Replay r, const Instr *q, real *V, real *U, int n_rows, bint uniform,
                                  real tag) noexcept nogil:
    cdef bint va = is_vector(&q.a, uniform), vb = q.b.kind == R_NONE or is_vector(&q.b, uniform)
    cdef int mode = FS_VECTORS if va and vb else FS_B_IS_ONE if va else FS_A_IS_ONE
    cdef Py_ssize_t k
    cdef real *out = V + <Py_ssize_t>q.out * n_rows
    cdef const real *a
    cdef const real *b = NULL
    cdef int together = mode_of_one_row(q) if n_rows == 1 else -1
    if together >= 0:
        mode = together
    if together >= 0 or (is_flat(&q.a, q.n, uniform) and is_flat(&q.b, q.n, uniform)):
        a = V + <Py_ssize_t>place(&q.a, 0) * n_rows if va else U + place(&q.a, 0)
        if q.b.kind != R_NONE:
            b = V + <Py_ssize_t>place(&q.b, 0) * n_rows if vb else U + place(&q.b, 0)
        apply(r, q, mode, out, a, b, <Py_ssize_t>q.n * n_rows, tag)
        return
    for k in range(q.n):
        a = V + <Py_ssize_t>place(&q.a, <int>k) * n_rows if va else U + place(&q.a, <int>k)
        if q.b.kind != R_NONE:
            b = V + <Py_ssize_t>place(&q.b, <int>k) * n_rows if vb else U + place(&q.b, <int>k)
        apply(r, q, mode, out + k * n_rows, a, b, n_rows, tag)


cdef inline void rows_forward(Replay r, const Instr *q, int first_row, int n_rows, real tag) noexcept nogil:
    """An operation on whole runs; an operand may be n uniform numbers, or one."""
    cdef const Run *out = &r.plan.body.runs[q.run]
    cdef real *U = <real *>r.uniform
    cdef bint ra = q.a.kind == R_ROWS, rb = q.b.kind == R_ROWS
    cdef bint one_a = not ra and q.a.step == 0, one_b = q.b.kind == R_UNIFORM and q.b.step == 0
    cdef int mode = FS_A_IS_ONE if one_a else FS_B_IS_ONE if one_b else FS_VECTORS, l, k
    cdef const real *a
    cdef const real *b
    cdef const real *v
    cdef bint flat = out.ld == q.n and (ra or one_a) and (rb or one_b or q.b.kind == R_NONE)
    if flat and (not ra or r.plan.body.runs[q.a.run].ld == q.n) and (not rb or r.plan.body.runs[q.b.run].ld == q.n):
        a = rows_of(r, r.run_value, q.a.run, first_row, tag) if ra else U + q.a.start
        b = rows_of(r, r.run_value, q.b.run, first_row, tag) if rb else U + q.b.start
        apply(r, q, mode, rows_of(r, r.run_value, q.run, first_row, tag), a, b, <Py_ssize_t>q.n * n_rows, tag)
    else:
        for l in range(first_row, first_row + n_rows):
            a = rows_of(r, r.run_value, q.a.run, l, tag) if ra else U + q.a.start
            b = rows_of(r, r.run_value, q.b.run, l, tag) if rb else U + q.b.start
            apply(r, q, mode, rows_of(r, r.run_value, q.run, l, tag), a, b, q.n, tag)
    if q.raises:
        for l in range(first_row, first_row + n_rows):
            v = rows_of(r, r.run_value, q.run, l, tag)
            if not r.kernels.not_finite(v, q.n):
                continue
            a = rows_of(r, r.run_value, q.a.run, l, tag) if ra else U + q.a.start
            b = rows_of(r, r.run_value, q.b.run, l, tag) if rb else U + q.b.start
            for k in range(q.n):
                if is_failure(q.code, a[0 if one_a else k], 0.0 if q.b.kind == R_NONE else b[0 if one_b else k], v[k]):
                    r.status[l] |= MAY_RAISE


cdef inline void sum_forward(Replay r, const Instr *q, int i, real *V, real *U, int n_rows, real tag) noexcept nogil:
    cdef const Sum *s = &r.plan.body.sums[q.extra + i]
    cdef const Term *t
    cdef real *out = V + <Py_ssize_t>(q.out + i) * n_rows
    cdef double number = 0.0 if s.zero else -0.0     # what leaves every x + number as it is
    cdef int k, l
    for k in range(s.first, s.stop):
        t = &r.plan.body.terms[k]
        if t.p_kind == R_UNIFORM and t.q_kind != R_SLOTS:
            number += t.sign * <double>U[t.p] * (<double>U[t.q] if t.q_kind == R_UNIFORM else 1.0)
    for l in range(n_rows):
        out[l] = <real>number
    for k in range(s.first, s.stop):
        t = &r.plan.body.terms[k]
        if t.p_kind == R_UNIFORM and t.q_kind != R_SLOTS:
            continue
        elif t.q_kind == R_NONE:
            if n_rows == 1:
                out[0] += t.sign * V[t.p]
            elif t.sign > 0:
                r.kernels.add(out, V + <Py_ssize_t>t.p * n_rows, n_rows)
            else:
                r.kernels.add_scaled(out, -1.0, V + <Py_ssize_t>t.p * n_rows, n_rows)
        elif t.p_kind == R_UNIFORM:
            r.kernels.add_scaled(out, t.sign * <double>U[t.p], V + <Py_ssize_t>t.q * n_rows, n_rows)
        elif t.q_kind == R_UNIFORM:
            r.kernels.add_scaled(out, t.sign * <double>U[t.q], V + <Py_ssize_t>t.p * n_rows, n_rows)
        elif t.sign > 0:
            r.kernels.add_product(out, V + <Py_ssize_t>t.p * n_rows, V + <Py_ssize_t>t.q * n_rows, n_rows)
        else:
            subtract_product(out, V + <Py_ssize_t>t.p * n_rows, V + <Py_ssize_t>t.q * n_rows, n_rows)


cdef inline void subtract_product(real *y, const real *a, const real *b, int n) noexcept nogil:
    cdef int k
    for k in range(n):
        y[k] -= a[k] * b[k]


cdef inline bint is_lazy(Replay r, const Product *p) noexcept nogil:
    """Whether `shrunk` belongs to its matrix in this run, see `weights.pxd`."""
    return r.lazy != NULL and r.lazy[p.matrix]


cdef inline const void *shrunk_row(Replay r, int thread, const real *x, int count) noexcept nogil:
    """The numbers of the one row under way, times the factor that its weights owe."""
    cdef real *scaled = <real *>r.scratch[thread]
    cdef real factor = <real>r.shrunk
    cdef int k
    for k in range(count):
        scaled[k] = x[k] * factor
    return scaled


cdef inline void product_forward(Replay r, const Instr *q, int thread, int first_row, int n_rows, const long long *rows,
                                 real tag) noexcept nogil:
    cdef const Product *p = &r.plan.body.products[q.extra]
    cdef const Matrix *m = &r.plan.body.matrices[p.matrix]
    cdef const real *w = <real *>r.uniform + m.base
    cdef const real *bias = <real *>r.uniform + r.plan.body.matrices[p.bias].base if p.bias >= 0 else NULL
    cdef const real *x = inputs_of(r, p, first_row, rows, tag)
    cdef real *out = rows_of(r, r.run_value, q.run, first_row, tag)
    cdef const int *column[128]                  # the most that a chunk has
    cdef const void *value[128]
    cdef int count[128]
    cdef int l, ld = r.plan.body.runs[p.x].ld, in_order = not r.mode & TRAIN
    if p.exact and r.float64:
        exact_product(r, thread, p, <double *>out, first_row, n_rows, rows)
        return
    if has_sparse(r, p):
        find_rows(r, &r.input[p.whole_input], rows + first_row, n_rows, 0, r.parts, column, value, count)
        if is_lazy(r, p):
            value[0] = shrunk_row(r, thread, <const real *>value[0], count[0])
    if m.ld == 1:
        for l in range(n_rows):
            out[l] = (bias[0] if bias != NULL else 0) + <real>(
                r.kernels.sparse_dot(column[l], value[l], count[l], w) if has_sparse(r, p)
                else r.kernels.dot(x + <Py_ssize_t>l * ld, w, m.rows))
    elif r.turned[p.matrix] != NULL:
        r.kernels.narrow_affine(out, bias, r.turned[p.matrix], turned_ld(m), m.cols, x, m.rows)
    elif has_sparse(r, p):
        r.kernels.sparse_affine(out, m.ld, bias, w, m.ld, m.ld, n_rows, column, value, count, in_order)
    else:
        r.kernels.dense_affine(out, m.ld, bias, w, m.ld, m.ld, n_rows, x, ld, m.rows, in_order)
    if p.skips and not has_sparse(r, p) and r.kernels.not_finite(out, <Py_ssize_t>n_rows * m.ld):
        if r.turned[p.matrix] != NULL:
            turn(r, p.matrix, True, tag)
        for l in range(n_rows):
            if r.kernels.not_finite(out + <Py_ssize_t>l * m.ld, m.ld):
                skipping_product(r, p, out + <Py_ssize_t>l * m.ld, first_row + l, 1, rows, tag)


cdef inline void exact_product(Replay r, int thread, const Product *p, double *out, int first_row, int n_rows,
                               const long long *rows) noexcept nogil:
    """As the engine does it, by its own kernel: a decision is made on the result."""
    cdef const Matrix *m = &r.plan.body.matrices[p.matrix]
    cdef const double *w = <double *>r.uniform + m.base
    cdef const double *b = <double *>r.uniform + r.plan.body.matrices[p.bias].base if p.bias >= 0 else r.zeros
    cdef double *value = <double *>r.scratch[thread]
    cdef int *row = <int *>(value + m.rows)
    cdef double x
    cdef int l, j, count
    for l in range(n_rows):
        count = 0
        for j in range(m.rows):
            x = input_of(r, p, first_row + l, j, rows, <double>0.0)
            row[count], value[count] = j, x
            count += x != 0.0                    # NaN counts
        kernels.affine(out + <Py_ssize_t>l * m.ld, b, w, m.ld, row, value, count)


cdef inline void skipping_product(Replay r, const Product *p, real *out, int first_row, int n_rows,
                                  const long long *rows,
                                  real tag) noexcept nogil:
    """A layer whose result is not finite: inputs of exactly zero count as nothing, whatever their weights are."""
    cdef const Matrix *m = &r.plan.body.matrices[p.matrix]
    cdef const real *w = <real *>r.uniform + m.base
    cdef real *y
    cdef real x
    cdef int l, i, j
    for l in range(n_rows):
        y = out + <Py_ssize_t>l * m.ld
        for i in range(m.cols):
            y[i] = (<real *>r.uniform + r.plan.body.matrices[p.bias].base)[i] if p.bias >= 0 else 0
        for j in range(m.rows):
            x = input_of(r, p, first_row + l, j, rows, tag)
            if x != 0:
                for i in range(m.cols):
                    y[i] += x * w[<Py_ssize_t>j * m.ld + i]


cdef inline void unpack(Replay r, const Instr *q, const real *source, real *V, int n_rows, real tag) noexcept nogil:
    cdef int ld = r.plan.body.runs[q.a.run].ld, k, l, at, first
    cdef real *out = V + <Py_ssize_t>q.out * n_rows
    if q.a.index == NULL and (q.a.step == 1 or q.n == 1):
        r.kernels.transpose(out, n_rows, source + q.a.start, ld, n_rows, q.n, False)
        return
    for first in range(0, n_rows, 16):           # so many rows stay in the nearest cache
        for k in range(q.n):
            at = place(&q.a, k)
            for l in range(first, min(first + 16, n_rows)):
                out[<Py_ssize_t>k * n_rows + l] = source[<Py_ssize_t>l * ld + at]


cdef inline void pack(Replay r, const Instr *q, const real *V, const real *U, int first_row, int n_rows,
                      real tag) noexcept nogil:
    cdef int ld = r.plan.body.runs[q.run].ld, k = 0, l, n
    cdef real *out = rows_of(r, r.run_value, q.run, first_row, tag)
    cdef const int *index = q.a.index
    while k < q.n:
        n = 1
        if index[k] < 0:
            for l in range(n_rows):
                out[<Py_ssize_t>l * ld + k] = U[-1 - index[k]]
        else:
            while k + n < q.n and index[k + n] == index[k] + n:
                n += 1
            r.kernels.transpose(out + k, ld, V + <Py_ssize_t>index[k] * n_rows, n_rows, n, n_rows, False)
        k += n


cdef inline const real *one_of(const Ref *a, const real *V, const real *U, int n_rows) noexcept nogil:
    return V + <Py_ssize_t>a.start * n_rows if a.kind == R_SLOTS else U + a.start


cdef inline void where_forward(Replay r, const Instr *q, real *V, real *U, int n_rows, real tag) noexcept nogil:
    cdef const Item *it = &r.plan.body.items[q.extra]
    cdef int ones = (q.a.kind != R_SLOTS) | (q.b.kind != R_SLOTS) << 1 | (it.c.kind != R_SLOTS) << 2 | (
        it.d.kind != R_SLOTS) << 3
    r.kernels.where(it.count, ones, V + <Py_ssize_t>q.out * n_rows, one_of(&q.a, V, U, n_rows),
                    one_of(&q.b, V, U, n_rows), one_of(&it.c, V, U, n_rows), one_of(&it.d, V, U, n_rows), n_rows)


cdef inline long long choice(Replay r, int argument, int fixed, long long row, Py_ssize_t n) noexcept nogil:
    """A label or an index; -1: out of range."""
    cdef long long i = fixed if argument < 0 else r.input[argument].whole[row]
    if i < 0:
        i = -1 if fixed == -2 or i + n < 0 else i + n
    return i if i < n else -1


cdef inline void best_forward(Replay r, const Instr *q, real *V, const real *U, int first_row, int n_rows,
                              real tag) noexcept nogil:
    cdef const Item *it = &r.plan.body.items[q.extra]
    cdef bint least = q.code == BEST_MIN or q.code == BEST_ARGMIN, place = q.code > BEST_MIN
    cdef real *best = V + <Py_ssize_t>(it.saved if place else q.out) * n_rows
    cdef real *at = V + <Py_ssize_t>(q.out if place else it.saved) * n_rows
    cdef int k, i, l
    if q.a.kind == R_ROWS:
        r.kernels.best(least, best, at, rows_of(r, r.run_value, it.x, first_row, tag) + q.a.start,
                       r.plan.body.runs[it.x].ld, it.count, n_rows)
        return
    i = q.a.index[0]
    for l in range(n_rows):
        best[l] = V[<Py_ssize_t>i * n_rows + l] if i >= 0 else U[-1 - i]
    memset(at, 0, n_rows * sizeof(real))
    for k in range(1, it.count):
        i = q.a.index[k]
        r.kernels.better(least, i < 0, best, at, V + <Py_ssize_t>i * n_rows if i >= 0 else U + (-1 - i), k, n_rows)


cdef inline long long chosen(Replay r, const Item *it, int l, long long row, Py_ssize_t n, real tag) noexcept nogil:
    """The index of a gather in row l, that of the row or the one that was computed; -1: out of range."""
    cdef long long i
    if it.argument >= 0:
        return choice(r, it.argument, 0, row, n)
    i = <long long>rows_of(r, r.run_value, it.saved, l, tag)[0]
    return i if 0 <= i < n else -1


cdef inline void gather_forward(Replay r, const Instr *q, const real *V, int first_row, int n_rows,
                                const long long *rows,
                                real tag) noexcept nogil:
    cdef const Item *it = &r.plan.body.items[q.extra]
    cdef real *out = rows_of(r, r.run_value, q.run, first_row, tag)
    cdef const Matrix *m
    cdef const real *source
    cdef long long i
    cdef int l, n, ld = r.plan.body.runs[q.run].ld
    for l in range(n_rows):
        if it.address >= 0:
            m = &r.plan.body.matrices[it.address]
            n = m.rows
        else:
            n = q.b.start // it.count
        if it.argument < 0:
            rows_of(r, r.run_value, it.saved, first_row + l, tag)[0] = V[<Py_ssize_t>it.label * n_rows + l]
        i = chosen(r, it, first_row + l, rows[first_row + l], n, tag)
        if i < 0:
            r.status[first_row + l] |= MAY_RAISE
            i = 0
        if it.address >= 0:
            source = <real *>r.uniform + m.base + i * m.ld
        else:
            source = rows_of(r, r.run_value, it.x, first_row + l, tag) + q.a.start + i * it.count
        memcpy(out + <Py_ssize_t>l * ld, source, it.count * sizeof(real))


cdef inline void loss_forward(Replay r, const Instr *q, int thread, int first_row, int n_rows, const long long *rows,
                              real tag) noexcept nogil:
    """cross_entropy, logsumexp, softmax."""
    cdef const Item *it = &r.plan.body.items[q.extra]
    cdef const real *z = rows_of(r, r.run_value, it.x, first_row, tag) + q.a.start
    cdef int ld = r.plan.body.runs[it.x].ld, n = q.b.start, l
    cdef real *out
    cdef real *p
    cdef long long i
    cdef double lse
    if it.exact and r.float64:
        for l in range(n_rows):
            p = rows_of(r, r.run_value, q.run if q.kind == I_SOFTMAX else it.saved, first_row + l, tag)
            memcpy(p, z + <Py_ssize_t>l * ld, n * sizeof(real))
            lse = softmax_in_place(<double *>p, n)
            if q.kind != I_SOFTMAX:
                (<real *>r.slot_value[thread])[<Py_ssize_t>q.out * n_rows + l] = <real>lse
        if q.kind == I_SOFTMAX:
            return
        out = <real *>r.slot_value[thread] + <Py_ssize_t>q.out * n_rows
    elif q.kind == I_SOFTMAX:
        r.kernels.softmax(rows_of(r, r.run_value, q.run, first_row, tag), r.plan.body.runs[q.run].ld,
                          r.scratch[thread], z, ld, n, n_rows)
        return
    else:
        out = <real *>r.slot_value[thread] + <Py_ssize_t>q.out * n_rows
        r.kernels.softmax(rows_of(r, r.run_value, it.saved, first_row, tag), r.plan.body.runs[it.saved].ld, out, z,
                          ld, n, n_rows)
    if q.kind == I_CROSS_ENTROPY:
        for l in range(n_rows):
            i = choice(r, it.argument, it.label if it.argument < 0 else -2, rows[first_row + l], n)
            if i < 0:
                r.status[first_row + l] |= MAY_RAISE
                i = 0
            out[l] -= z[<Py_ssize_t>l * ld + i]
