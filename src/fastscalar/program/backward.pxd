# cython: language_level=3, wraparound=False, cdivision=True
# cython: nonecheck=False
# The backward sweep of a replay through a chunk of rows.  Inline parts of `_replay`.

from libc.math cimport isfinite
from libc.string cimport memcpy, memset

from fastscalar._core cimport *
from fastscalar.engine.formulas cimport sent
from fastscalar.program._kernels cimport *
from fastscalar.program._replay cimport *
from fastscalar.program.forward cimport *
from fastscalar.program.images cimport *
from fastscalar.program.plan cimport *
from fastscalar.program.runs cimport *


cdef inline void backward(Replay r, int thread, int c, int first_row, int n_rows, const long long *rows,
                          real tag) noexcept nogil:
    """The gradients of a chunk; where some are not finite, and that is watched, its rows are marked.

    A gradient of exactly zero sends zero, whatever the slope, and a slope of zero passes nothing.  Kernels do not look;
    where 0 * inf has made a NaN of it, it comes out at the end, since NaN only gets lost where it is multiplied by
    nothing: then all is done again, number by number."""
    cdef char kept[128]                          # the most that a chunk has
    cdef int l
    memset(kept, 0, sizeof(kept))
    if not r.plan.plain:
        if backward_pass(r, thread, c, first_row, n_rows, rows, False, kept, tag):
            return
        if not r.mode & PARAMETERS:              # what comes out for a row is that row's affair
            keep_finite_rows(r, first_row, n_rows, rows, kept, tag)
    if not backward_pass(r, thread, c, first_row, n_rows, rows, True, kept, tag) and r.watch:
        for l in range(n_rows):
            if not kept[l]:
                r.status[first_row + l] |= ORDER_MATTERS


cdef inline void keep_finite_rows(Replay r, int first_row, int n_rows, const long long *rows, char *kept,
                                  real tag) noexcept nogil:
    """The rows all of whose gradients by arguments are finite: NaN does not get lost."""
    cdef const Input *x
    cdef const double *g
    cdef int i, l
    cdef Py_ssize_t k
    for l in range(n_rows):
        kept[l] = True
        for i in range(r.n_inputs):
            x = &r.input[i]
            if x.gradient != NULL:
                g = x.gradient + rows[first_row + l] * x.width
                for k in range(x.width):
                    if g[k] - g[k] != 0.0:
                        kept[l] = False


cdef inline bint backward_pass(Replay r, int thread, int c, int first_row, int n_rows, const long long *rows,
                               bint masked, const char *kept,
                               real tag) noexcept nogil:
    """Whether all gradients that leave the chunk are finite.  kept: rows whose gradients by arguments stay."""
    cdef const Body *p = &r.plan.body
    cdef Py_ssize_t k
    cdef int l, mode = r.mode & (PARAMETERS | ARGUMENTS)
    cdef bint finite = True
    cdef const Instr *q
    cdef real *V = <real *>r.slot_value[thread]
    cdef real *A = <real *>r.slot_adjoint[thread]
    cdef real *U = <real *>r.uniform
    cdef real *port = <real *>r.ports + <Py_ssize_t>c * p.n_ports
    cdef void *bases[6]
    cdef const fs_step *steps = NULL if masked else steps_of(r.backward_list, n_rows, first_row, mode, 4)
    cdef bint direct = steps != NULL and steps != r.backward_list[4 + mode].steps        # else runs have the gradients
    cdef int at
    cdef real *g
    cdef Input *x
    memset(port, 0, <size_t>p.n_ports * sizeof(real))
    if r.batch == 1:                             # one stretch
        memset(r.run_adjoint, 0, columns_of_runs(p) * sizeof(real))
    for k in range(p.n_runs if r.batch > 1 else 0):
        if p.runs[k].mask & mode and not (direct and r.direct[k]):
            memset(rows_of(r, r.run_adjoint, <int>k, first_row, tag), 0, <size_t>p.runs[k].ld * n_rows * sizeof(real))
    begin_gradients(p, p.n_per_row, A, n_rows, tag)
    for k in range(p.n_results):
        if p.results[k].kind == R_SLOTS:
            g = A + <Py_ssize_t>p.adjoint[p.results[k].place] * n_rows
            for l in range(n_rows):
                g[l] += <real>(1.0 if r.seed == NULL else r.seed[rows[first_row + l] * p.n_results + k])
    if steps != NULL:
        bases[0], bases[1], bases[2], bases[3] = V, U, A, port
        bases[4], bases[5] = r.run_value, r.run_adjoint
        at = r.kernels.backward_steps(steps, 0, bases, n_rows)
        while steps[at].at[0] >= 0:
            finite &= instruction_backward(r, &p.per_row[steps[at].at[0]], thread, V, A, U, port, first_row, n_rows,
                                           rows, False, kept, tag)
            at = r.kernels.backward_steps(steps, at + 1, bases, n_rows)
    else:
        for k in range(p.n_per_row - 1, -1, -1):
            q = &p.per_row[k]
            begin_gradients(p, k, A, n_rows, tag)
            if q.mask & mode and (q.run >= 0 or q.kind == I_NUMBER or p.adjoint[q.out] >= 0):
                finite &= instruction_backward(r, q, thread, V, A, U, port, first_row, n_rows, rows, masked, kept, tag)
    if mode & ARGUMENTS:
        for l in range(r.n_inputs):
            x = &r.input[l]
            if x.gradient == NULL:
                continue
            if x.slot != NULL and direct:
                finite &= r.kernels.store_columns(x.gradient, x.width, rows + first_row, n_rows, x.adjoint,
                                                  <int>x.width, A, n_rows)
            elif p.run_of_input[l] >= 0:
                store_gradient(r, l, first_row, n_rows, rows, kept, tag)
            elif not x.read:
                for k in range(n_rows):
                    if not kept[k]:
                        memset(x.gradient + rows[first_row + k] * x.width, 0, x.width * sizeof(double))
    if r.kernels.not_finite(port, p.n_ports) or (
            r.batch == 1 and r.kernels.not_finite(r.run_adjoint, columns_of_runs(p))):
        finite = False
    for k in range(p.n_runs if r.batch > 1 else 0):
        if finite and p.runs[k].mask & mode and not (direct and r.direct[k]) and r.kernels.not_finite(
                rows_of(r, r.run_adjoint, <int>k, first_row, tag), <Py_ssize_t>p.runs[k].ld * n_rows):
            finite = False
    return finite


cdef inline bint instruction_backward(Replay r, const Instr *q, int thread, real *V, real *A, real *U, real *port,
                                      int first_row, int n_rows, const long long *rows, bint masked,
                                      const char *kept, real tag) noexcept nogil:
    """Whether what leaves the chunk with it is finite."""
    cdef const Body *p = &r.plan.body
    cdef int l, mode = r.mode & (PARAMETERS | ARGUMENTS)
    cdef bint finite = True
    cdef const Input *x
    cdef real one
    if q.kind == I_ELEMENTS:
        elements_backward(r, q, V, A, U, port, n_rows, False, masked, tag)
    elif q.kind == I_SUM:
        sum_backward(r, q, V, A, U, port, n_rows, masked, tag)
    elif q.kind == I_ROWS:
        rows_backward(r, q, first_row, n_rows, port, masked, tag)
    elif q.kind == I_PRODUCT:
        if q.a.mask & mode:
            product_backward(r, q, thread, first_row, n_rows, masked, tag)
    elif q.kind == I_NUMBER:
        x = &r.input[q.extra]
        if x.gradient != NULL:
            for l in range(n_rows):
                one = 0 if p.adjoint[q.out] < 0 else 0.0 + A[<Py_ssize_t>p.adjoint[q.out] * n_rows + l]
                if not kept[l]:
                    x.gradient[rows[first_row + l]] = one
                finite = finite and one - one == 0
    elif q.kind == I_UNPACK:
        unpack_backward(r, q, rows_of(r, r.run_adjoint, q.a.run, first_row, tag), A, n_rows, tag)
    elif q.kind == I_PACK:
        pack_backward(r, q, A, port, first_row, n_rows, tag)
    elif q.kind == I_WHERE:
        where_backward(r, q, V, A, U, port, n_rows, tag)
    elif q.kind == I_CALL:
        if q.a.mask & mode:
            call(r, q, first_row, n_rows, True, tag)
    elif q.kind == I_BEST:
        best_backward(r, q, V, A, port, first_row, n_rows, tag)
    elif q.kind == I_CONV:
        if q.a.mask & mode:
            conv_backward(r, q, thread, first_row, n_rows, masked, tag)
    elif q.kind == I_POOL:
        pool_backward(r, q, first_row, n_rows, tag)
    elif q.kind == I_GATHER:
        if p.items[q.extra].address < 0:
            gather_rows_backward(r, q, first_row, n_rows, rows, tag)
    else:
        loss_backward(r, q, thread, first_row, n_rows, rows, tag)
    return finite


cdef inline void begin_gradients(const Body *p, Py_ssize_t k, real *A, int n_rows, real tag) noexcept nogil:
    """Those that are first added to by instruction k."""
    cdef int b
    for b in range(p.birth_of[k], p.birth_of[k + 1]):
        memset(A + <Py_ssize_t>p.births[b].at * n_rows, 0, <size_t>p.births[b].count * n_rows * sizeof(real))


cdef inline void product_backward(Replay r, const Instr *q, int thread, int first_row, int n_rows, bint masked,
                                  real tag) noexcept nogil:
    """To the inputs of a matrix; the weights' gradients wait for all rows of the batch."""
    cdef const Product *p = &r.plan.body.products[q.extra]
    cdef const Matrix *m = &r.plan.body.matrices[p.matrix]
    cdef const real *g = rows_of(r, r.run_adjoint, q.run, first_row, tag)
    cdef const real *w = <real *>r.uniform + m.base
    cdef real *dx
    cdef int l, i, j
    if masked:
        for l in range(n_rows):
            dx = rows_of(r, r.run_adjoint, p.x, first_row + l, tag) + p.first
            for i in range(m.cols):
                if g[<Py_ssize_t>l * m.ld + i] != 0:
                    for j in range(m.rows):
                        dx[j] += <real>sent(g[<Py_ssize_t>l * m.ld + i], w[<Py_ssize_t>j * m.ld + i])
        return
    if m.ld == 1:
        for l in range(n_rows):
            r.kernels.add_scaled(rows_of(r, r.run_adjoint, p.x, first_row + l, tag) + p.first, g[l],
                                 <real *>r.uniform + m.base, m.rows)
        return
    r.kernels.input_gradient(rows_of(r, r.run_adjoint, p.x, first_row, tag) + p.first, r.plan.body.runs[p.x].ld,
                             <real *>r.uniform + m.base, m.ld, m.ld, m.rows, n_rows, g, m.ld,
                             r.mode & ARGUMENTS)


cdef inline void store_gradient(Replay r, int i, int first_row, int n_rows, const long long *rows,
                                const char *kept, real tag) noexcept nogil:
    cdef const Input *x = &r.input[i]
    cdef const real *g
    cdef double *out
    cdef int l
    cdef Py_ssize_t k
    for l in range(first_row, first_row + n_rows):
        if kept[l - first_row]:
            continue
        g = rows_of(r, r.run_adjoint, r.plan.body.run_of_input[i], l, tag)
        out = x.gradient + rows[l] * x.width
        for k in range(x.width):
            out[k] = 0.0 + g[k]              # no gradient is -0.0, as in the plain sweep


cdef inline void elements_backward(Replay r, const Instr *q, real *V, real *A, real *U, real *port, int n_rows,
                                   bint uniform, bint masked, real tag) noexcept nogil:
    """`port`: where the gradients of uniform operands go; in the uniform part all are in A."""
    cdef bint va = is_vector(&q.a, uniform), vb = q.b.kind == R_NONE or is_vector(&q.b, uniform)
    cdef int mode = FS_VECTORS if va and vb else FS_B_IS_ONE if va else FS_A_IS_ONE, which = r.mode & (
        PARAMETERS | ARGUMENTS)
    cdef bint wa = (q.a.mask & which) != 0, wb = (q.b.mask & which) != 0
    cdef int pa = 0 if q.a.index == NULL and q.a.step == 0 else 1
    cdef int pb = 0 if q.b.index == NULL and q.b.step == 0 else 1
    cdef Py_ssize_t k, out = <Py_ssize_t>q.out * n_rows, at, bt, step = n_rows, count = q.n
    cdef const int *adjoint = NULL if uniform else r.plan.body.adjoint
    cdef const real *g = A + <Py_ssize_t>(q.out if uniform else adjoint[q.out]) * n_rows
    cdef int together = mode_of_one_row(q) if n_rows == 1 else -1
    cdef real *da
    cdef real *db
    if not wa and not wb:
        return
    if together >= 0 and (uniform or ((not wa or not va or q.a.together) and (not wb or not vb or q.b.together))):
        mode, step, count = together, q.n, 1
    elif is_flat(&q.a, q.n, uniform) and is_flat(&q.b, q.n, uniform) and (
            uniform or ((not wa or not va or q.a.together) and (not wb or not vb or q.b.together))):
        step, count = <Py_ssize_t>q.n * n_rows, 1
    for k in range(count - 1, -1, -1):
        at = <Py_ssize_t>place(&q.a, <int>k) * (n_rows if va else 1)
        bt = <Py_ssize_t>place(&q.b, <int>k) * (n_rows if vb else 1)
        da = NULL
        db = NULL
        if wa and not va:
            da = port + q.a.port + k * pa
        elif wa:
            da = A + at if uniform else A + <Py_ssize_t>adjoint[place(&q.a, <int>k)] * n_rows
        if wb and not vb:
            db = port + q.b.port + k * pb
        elif wb:
            db = A + bt if uniform else A + <Py_ssize_t>adjoint[place(&q.b, <int>k)] * n_rows
        apply_backward(r, q, mode, da, db, V + at if va else U + at, V + bt if vb else U + bt,
                       V + out + k * step, g + k * step, step, masked, tag)


cdef inline void rows_backward(Replay r, const Instr *q, int first_row, int n_rows, real *port, bint masked,
                               real tag) noexcept nogil:
    cdef real *U = <real *>r.uniform
    cdef bint ra = q.a.kind == R_ROWS, rb = q.b.kind == R_ROWS
    cdef int which = r.mode & (PARAMETERS | ARGUMENTS)
    cdef bint wa = (q.a.mask & which) != 0, wb = (q.b.mask & which) != 0
    cdef int mode = FS_VECTORS, l
    cdef real *da
    cdef real *db
    if not wa and not wb:
        return
    if not ra and q.a.step == 0:
        mode = FS_A_IS_ONE
    elif q.b.kind == R_UNIFORM and q.b.step == 0:
        mode = FS_B_IS_ONE
    for l in range(first_row, first_row + n_rows):
        da = NULL
        db = NULL
        if wa:
            da = rows_of(r, r.run_adjoint, q.a.run, l, tag) if ra else port + q.a.port
        if wb:
            db = rows_of(r, r.run_adjoint, q.b.run, l, tag) if rb else port + q.b.port
        apply_backward(r, q, mode, da, db, rows_of(r, r.run_value, q.a.run, l, tag) if ra else U + q.a.start,
                       rows_of(r, r.run_value, q.b.run, l, tag) if rb else U + q.b.start,
                       rows_of(r, r.run_value, q.run, l, tag), rows_of(r, r.run_adjoint, q.run, l, tag),
                       q.n, masked, tag)


cdef inline void sum_backward(Replay r, const Instr *q, real *V, real *A, real *U, real *port, int n_rows, bint masked,
                              real tag) noexcept nogil:
    cdef const Sum *s
    cdef const Term *t
    cdef const real *g
    cdef int i, k, which = r.mode & (PARAMETERS | ARGUMENTS)
    for i in range(q.n - 1, -1, -1):
        s = &r.plan.body.sums[q.extra + i]
        g = A + <Py_ssize_t>r.plan.body.adjoint[q.out + i] * n_rows
        for k in range(s.stop - 1, s.first - 1, -1):
            t = &r.plan.body.terms[k]
            if t.p_mask & which:
                term_backward(r, t.sign, t.p_kind, t.p, t.p_port, t.q_kind, t.q, V, A, U, port, g, n_rows, masked, tag)
            if t.q_kind != R_NONE and t.q_mask & which:
                term_backward(r, t.sign, t.q_kind, t.q, t.q_port, t.p_kind, t.p, V, A, U, port, g, n_rows, masked, tag)


cdef inline void term_backward(Replay r, int sign, int kind, int p, int p_port, int other, int q, real *V, real *A,
                               real *U, real *port, const real *g, int n_rows, bint masked, real tag) noexcept nogil:
    """What flows into p, whose factor is q."""
    cdef real *d
    cdef int l
    if masked and other != R_NONE:
        for l in range(n_rows):
            if g[l] != 0:
                d = port + p_port if kind == R_UNIFORM else A + <Py_ssize_t>r.plan.body.adjoint[p] * n_rows + l
                d[0] += <real>sent(sign * g[l], V[<Py_ssize_t>q * n_rows + l] if other == R_SLOTS else U[q])
        return
    if kind == R_UNIFORM:
        if other == R_SLOTS:
            port[p_port] += <real>(sign * r.kernels.dot(g, V + <Py_ssize_t>q * n_rows, n_rows))
        else:
            port[p_port] += <real>(sign * r.kernels.sum(g, n_rows) * (<double>U[q] if other == R_UNIFORM else 1.0))
        return
    d = A + <Py_ssize_t>r.plan.body.adjoint[p] * n_rows
    if other == R_NONE:
        if n_rows == 1:
            d[0] += sign * g[0]
        elif sign > 0:
            r.kernels.add(d, g, n_rows)
        else:
            r.kernels.add_scaled(d, -1.0, g, n_rows)
    elif other == R_UNIFORM:
        r.kernels.add_scaled(d, sign * <double>U[q], g, n_rows)
    elif sign > 0:
        r.kernels.add_product(d, g, V + <Py_ssize_t>q * n_rows, n_rows)
    else:
        subtract_product(d, g, V + <Py_ssize_t>q * n_rows, n_rows)


cdef inline void unpack_backward(Replay r, const Instr *q, real *target, const real *A, int n_rows,
                                 real tag) noexcept nogil:
    cdef int ld = r.plan.body.runs[q.a.run].ld, k, l, at, first
    cdef const real *g = A + <Py_ssize_t>r.plan.body.adjoint[q.out] * n_rows
    if q.a.index == NULL and (q.a.step == 1 or q.n == 1):
        r.kernels.transpose(target + q.a.start, ld, g, n_rows, q.n, n_rows, True)
        return
    for first in range(0, n_rows, 16):
        for k in range(q.n):
            at = place(&q.a, k)
            for l in range(first, min(first + 16, n_rows)):
                target[<Py_ssize_t>l * ld + at] += g[<Py_ssize_t>k * n_rows + l]


cdef inline void pack_backward(Replay r, const Instr *q, real *A, real *port, int first_row, int n_rows,
                               real tag) noexcept nogil:
    cdef int ld = r.plan.body.runs[q.run].ld, k = 0, l, n, uniform = 0
    cdef const real *g = rows_of(r, r.run_adjoint, q.run, first_row, tag)
    cdef const int *index = q.a.index
    cdef const int *adjoint = r.plan.body.adjoint
    while k < q.n:
        n = 1
        if index[k] < 0:
            for l in range(n_rows):
                port[q.a.port + uniform] += g[<Py_ssize_t>l * ld + k]
            uniform += 1
        else:
            while k + n < q.n and index[k + n] >= 0 and adjoint[index[k + n]] == adjoint[index[k]] + n:
                n += 1
            r.kernels.transpose(A + <Py_ssize_t>adjoint[index[k]] * n_rows, n_rows, g + k, ld, n_rows, n, True)
        k += n


cdef inline void where_backward(Replay r, const Instr *q, real *V, real *A, real *U, real *port, int n_rows,
                                real tag) noexcept nogil:
    cdef const Item *it = &r.plan.body.items[q.extra]
    cdef const real *g = A + <Py_ssize_t>r.plan.body.adjoint[q.out] * n_rows
    cdef int ones = (q.a.kind != R_SLOTS) | (q.b.kind != R_SLOTS) << 1, outcome, which = r.mode & (
        PARAMETERS | ARGUMENTS)
    cdef const Ref *chosen
    cdef real *to
    for outcome in range(2):
        chosen = &it.c if outcome else &it.d
        if chosen.mask & which:
            to = port + chosen.port if chosen.kind != R_SLOTS else (
                A + <Py_ssize_t>r.plan.body.adjoint[chosen.start] * n_rows)
            r.kernels.where_backward(it.count, ones | (chosen.kind != R_SLOTS) << 2, outcome, to,
                                     one_of(&q.a, V, U, n_rows), one_of(&q.b, V, U, n_rows), g, n_rows)


cdef inline void best_backward(Replay r, const Instr *q, const real *V, real *A, real *port, int first_row, int n_rows,
                               real tag) noexcept nogil:
    """To the one that was chosen."""
    cdef const Item *it = &r.plan.body.items[q.extra]
    cdef const real *g = A + <Py_ssize_t>r.plan.body.adjoint[q.out] * n_rows
    cdef const real *place = V + <Py_ssize_t>it.saved * n_rows
    cdef int l, i, k, before
    for l in range(n_rows):
        k = <int>place[l]
        if q.a.kind == R_ROWS:
            rows_of(r, r.run_adjoint, it.x, first_row + l, tag)[q.a.start + k] += g[l]
            continue
        i = q.a.index[k]
        if i >= 0:
            A[<Py_ssize_t>r.plan.body.adjoint[i] * n_rows + l] += g[l]
            continue
        before = 0
        for i in range(k):
            before += q.a.index[i] < 0
        port[q.a.port + before] += g[l]


cdef inline void gather_rows_backward(Replay r, const Instr *q, int first_row, int n_rows, const long long *rows,
                                      real tag) noexcept nogil:
    cdef const Item *it = &r.plan.body.items[q.extra]
    cdef long long i
    cdef int l
    for l in range(n_rows):
        i = chosen(r, it, first_row + l, rows[first_row + l], q.b.start // it.count, tag)
        if i < 0:                                # the row is marked, and its gradient is not used
            continue
        r.kernels.add(rows_of(r, r.run_adjoint, it.x, first_row + l, tag) + q.a.start + i * it.count,
                      rows_of(r, r.run_adjoint, q.run, first_row + l, tag), it.count)


cdef inline void gather_backward(Replay r, const Instr *q, int n, const long long *rows, real tag) noexcept nogil:
    """Into uniform candidates, for all rows of a batch in their order."""
    cdef const Item *it = &r.plan.body.items[q.extra]
    cdef const Matrix *m = &r.plan.body.matrices[it.address]
    cdef long long i
    cdef int l
    for l in range(n):
        i = chosen(r, it, l, rows[l], m.rows, tag)
        if i >= 0:                               # else the row is marked, and the sums are not used
            r.kernels.add(<real *>r.uniform_adjoint + m.base + i * m.ld, rows_of(r, r.run_adjoint, q.run, l, tag),
                          it.count)


cdef inline void loss_backward(Replay r, const Instr *q, int thread, int first_row, int n_rows, const long long *rows,
                               real tag) noexcept nogil:
    cdef const Item *it = &r.plan.body.items[q.extra]
    cdef int n = q.b.start, l, k, j
    cdef const real *p
    cdef const real *g
    cdef real *dz
    cdef real total, before
    cdef bint any_sent
    cdef long long i
    if not q.a.mask & r.mode:
        return
    for l in range(n_rows):
        dz = rows_of(r, r.run_adjoint, it.x, first_row + l, tag) + q.a.start
        if q.kind == I_SOFTMAX:
            p = rows_of(r, r.run_value, q.run, first_row + l, tag)
            g = rows_of(r, r.run_adjoint, q.run, first_row + l, tag)
            total = 0.0
            any_sent = False
            for k in range(n):
                if g[k] != 0:
                    total += g[k] * p[k]
                    any_sent = True
            if any_sent and isfinite(total):
                for k in range(n):
                    dz[k] += p[k] * (g[k] - total)
            elif any_sent:                       # inf - inf is nothing that one output after the other would give
                for k in range(n - 1, -1, -1):
                    if g[k] != 0:
                        for j in range(n):
                            dz[j] += <real>sent(g[k], p[k] * ((1.0 if j == k else 0.0) - p[j]))
            continue
        p = rows_of(r, r.run_value, it.saved, first_row + l, tag)
        g = <real *>r.slot_adjoint[thread] + <Py_ssize_t>r.plan.body.adjoint[q.out] * n_rows + l
        if g[0] == 0:
            continue
        i = -1 if q.kind != I_CROSS_ENTROPY else choice(
            r, it.argument, it.label if it.argument < 0 else -2, rows[first_row + l], n)
        if not isfinite(g[0]):                   # one after the other, as the engine does it
            for k in range(n):
                dz[k] += <real>sent(g[0], p[k] - (1.0 if k == i else 0.0))
            continue
        before = dz[i] if i >= 0 else 0.0        # -1: the row is marked, and its gradient is not used
        for k in range(n):
            dz[k] += g[0] * p[k]
        if i >= 0:                               # not dz - g: what was there is lost beside a large g
            dz[i] = before + g[0] * (p[i] - <real>1.0)
