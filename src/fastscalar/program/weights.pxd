# cython: language_level=3, wraparound=False, cdivision=True
# cython: nonecheck=False
# Gradients and steps of weights, for all rows of a batch, and the uniform part backwards.  Inline parts of `_replay`.

from libc.math cimport isfinite
from libc.string cimport memcpy, memset

from fastscalar._core cimport *
from fastscalar.engine._rules cimport at_step
from fastscalar.program._kernels cimport *
from fastscalar.program._replay cimport *
from fastscalar.program.backward cimport *
from fastscalar.program.forward cimport *
from fastscalar.program.images cimport *
from fastscalar.program.plan cimport *
from fastscalar.program.runs cimport *
from fastscalar.program.turned cimport *


# --- weights, and the uniform part backwards ------------------------------------------------------

cdef inline void update_weights(Replay r, int thread, int share, double rate, real tag) noexcept nogil:
    """A share of all weight gradients: some rows or columns of each, over all rows in their order."""
    cdef const Body *p = &r.plan.body
    cdef const long long *rows = r.rows + r.first
    cdef int n = r.n
    cdef Py_ssize_t k
    cdef const Instr *q
    cdef const Product *product
    cdef const Matrix *m
    cdef real *target
    cdef real *g
    cdef int parts, first, stop, row0, row1, l, which = r.mode & (PARAMETERS | ARGUMENTS)
    cdef double scale = 1.0, keep
    cdef bint by_rows
    for k in range(p.n_per_row - 1, -1, -1):
        q = &p.per_row[k]
        if q.kind == I_CONV and q.mask & which:
            conv_weights(r, thread, share, q, n, tag)
        if q.kind != I_PRODUCT:
            continue
        product = &p.products[q.extra]
        by_rows = r.by_rows and r.mode & TRAIN and r.fused[product.matrix]
        if by_rows and not q.mask & which:
            rule_of_row(r, thread, product, <const real *>NULL, rate, tag)
            continue
        if not q.mask & which:                   # nothing is sent there; the weights still decay
            keep = keep_of(r, product, rate, &scale)
            if share == 0 and keep != 1.0:
                m = &p.matrices[product.matrix]
                multiply(r, <real *>r.uniform + m.base, m.rows, m.ld, keep)
            continue
        m = &p.matrices[product.matrix]
        g = rows_of(r, r.run_adjoint, q.run, 0, tag)
        if product.bias >= 0 and share == r.shares - 1 and p.matrices[product.bias].mask & which:
            r.kernels.add_rows(<real *>r.uniform_adjoint + p.matrices[product.bias].base, g, m.ld, m.ld, n)
        if not m.mask & which:
            continue
        if by_rows:
            rule_of_row(r, thread, product, g, rate, tag)
            continue
        target, scale = <real *>r.uniform_adjoint + m.base, 1.0
        if r.fused[product.matrix] and r.mode & TRAIN:
            target = <real *>(r.first_kept if r.by_momentum else r.uniform) + m.base
            scale = 1.0 / (n * faded_next(r)) if r.by_momentum else -rate / n
        keep = keep_of(r, product, rate, &scale)
        if r.turned[product.matrix] != NULL:
            if share == 0:
                turned_weights(r, product, m, scale, g, rows, tag)
            continue
        if r.kernels.not_finite(g, <Py_ssize_t>n * m.ld) or not finite_inputs(r, product, n, tag):
            if keep != 1.0:
                row0, row1 = first_masked(r, m, share), first_masked(r, m, share + 1)
                multiply(r, target + <Py_ssize_t>row0 * m.ld, row1 - row0, m.ld, keep)
            masked_weights(r, share, product, m, target, scale, g, n, rows, tag)
            continue
        if has_sparse(r, product):
            sparse_weights(r, thread, share, product, m, target, keep, scale, g, n, rows, tag)
            continue
        first, stop, row0, row1 = 0, m.ld, 0, m.rows
        parts = m.ld // PAD
        if parts >= r.shares:
            first, stop = parts * share // r.shares * PAD, parts * (share + 1) // r.shares * PAD
        else:
            row0, row1 = m.rows * share // r.shares, m.rows * (share + 1) // r.shares
        if m.ld == 1:
            if keep != 1.0:
                multiply(r, target + row0, row1 - row0, 1, keep)
            for l in range(n):
                r.kernels.add_scaled(target + row0, scale * g[l], inputs_of(r, product, l, rows, tag) + row0,
                                     row1 - row0)
            continue
        r.kernels.dense_update(target + <Py_ssize_t>row0 * m.ld + first, m.ld, keep, scale, stop - first, n,
                               inputs_of(r, product, 0, rows, tag) + row0,
                               r.plan.body.runs[product.x].ld, row1 - row0, g + first, m.ld)


cdef inline bint finite_inputs(Replay r, const Product *p, int n, real tag) noexcept nogil:
    cdef int l, ld
    cdef const real *x
    if p.whole_input >= 0:
        return r.input[p.whole_input].finite
    ld = r.plan.body.runs[p.x].ld
    x = rows_of(r, r.run_value, p.x, 0, tag) + p.first
    for l in range(n):
        if r.kernels.not_finite(x + <Py_ssize_t>l * ld, r.plan.body.matrices[p.matrix].rows):
            return False
    return True


cdef inline int first_masked(Replay r, const Matrix *m, int share) noexcept nogil:
    return <int>(<long long>m.rows * share // r.shares)


cdef inline void masked_weights(Replay r, int share, const Product *p, const Matrix *m, real *target, double scale,
                                const real *g, int n, const long long *rows, real tag) noexcept nogil:
    """A share of the rows of a matrix where not all is finite: what is exactly zero sends zero, whatever it meets."""
    cdef int j, i, l
    cdef real x
    for j in range(first_masked(r, m, share), first_masked(r, m, share + 1)):
        for l in range(n):
            x = input_of(r, p, l, j, rows, tag)
            if x == 0:
                continue
            for i in range(m.cols):
                if g[<Py_ssize_t>l * m.ld + i] != 0:
                    target[<Py_ssize_t>j * m.ld + i] += <real>(scale * x * g[<Py_ssize_t>l * m.ld + i])


cdef inline void turned_weights(Replay r, const Product *p, const Matrix *m, double scale, const real *g,
                                const long long *rows, real tag) noexcept nogil:
    """All of a matrix that lies turned, by one row."""
    cdef int share
    if not r.kernels.not_finite(g, m.ld) and finite_inputs(r, p, 1, tag):
        r.kernels.narrow_update(r.turned[p.matrix], turned_ld(m), scale, m.cols, inputs_of(r, p, 0, rows, tag), m.rows,
                                g)
        return
    turn(r, p.matrix, True, tag)
    for share in range(r.shares):
        masked_weights(r, share, p, m, <real *>r.uniform + m.base, scale, g, 1, rows, tag)
    turn(r, p.matrix, False, tag)


cdef inline void sparse_weights(Replay r, int thread, int share, const Product *p, const Matrix *m, real *target,
                                double keep, double scale, const real *g, int n, const long long *rows,
                                real tag) noexcept nogil:
    """A share of the rows of a matrix, by the non-zero entries of these columns of the input."""
    cdef const int *column[GROUP]
    cdef const void *value[GROUP]
    cdef int count[GROUP]
    cdef const Input *x = &r.input[p.whole_input]
    cdef int first = r.parts * share // r.shares, stop = r.parts * (share + 1) // r.shares, l, n_rows, k
    cdef int *start = x.start + thread * (x.width + 2)
    cdef size_t at = <size_t>thread * min(GROUP, r.batch) * x.width
    if keep != 1.0:
        multiply(r, target + <Py_ssize_t>x.border[first] * m.ld, x.border[stop] - x.border[first], m.ld, keep)
    for l in range(0, n, 64):                    # GROUP; a step has to be a literal here
        n_rows = min(GROUP, n - l)
        find_rows(r, x, rows + l, n_rows, first, stop - first, column, value, count)
        if n <= FEW_ROWS or not x.transposed or m.ld <= FEW_COLUMNS:
            for k in range(n_rows):
                step_one(r, m, target, scale, column[k], value[k], count[k], g + <Py_ssize_t>(l + k) * m.ld)
        else:
            r.kernels.sparse_transpose(start, x.row_of + at, <char *>x.entry + at * r.size, x.border[first],
                                       x.border[stop], n_rows, column, value, count)
            r.kernels.sparse_update(target, m.ld, scale, m.ld, start, x.row_of + at, <char *>x.entry + at * r.size,
                                    x.border[first], x.border[stop], g + <Py_ssize_t>l * m.ld, m.ld)


cdef inline void apply_rule(Replay r, const fs_rule *rule, Py_ssize_t at, const real *g, Py_ssize_t n, const real *x,
                            Py_ssize_t m) noexcept nogil:
    """The optimiser's step of m rows of n uniform numbers from this address on: gradients g, times x[j] in row j."""
    cdef real *w = <real *>r.uniform + at
    cdef real *first = <real *>r.first_kept + at if r.first_kept != NULL else NULL
    cdef real *second = <real *>r.second_kept + at if r.second_kept != NULL else NULL
    if real is double:
        kernels.rule_double(rule, w, g, first, second, n, x, m)
    else:
        kernels.rule_float(rule, w, g, first, second, n, x, m)


cdef inline void rule_of_row(Replay r, int thread, const Product *p, const real *g, double rate,
                             real tag) noexcept nogil:
    """The optimiser's step of a matrix by one row of data: its gradient, inputs times g, is never written down.
    g = NULL: zero.  One row is one thread's."""
    cdef const Matrix *m = &r.plan.body.matrices[p.matrix]
    cdef const real *x = inputs_of(r, p, 0, r.rows + r.first, tag)
    cdef real *target = <real *>r.uniform_adjoint + m.base
    cdef const double *data
    cdef fs_rule rule = r.rule
    cdef int j
    at_step(&rule, <double>(r.step + 1), rate, 1.0)
    if g == NULL or r.kernels.not_finite(g, m.ld) or not finite_inputs(r, p, 1, tag):
        memset(target, 0, <size_t>m.rows * m.ld * sizeof(real))
        if g != NULL:
            masked_weights(r, 0, p, m, target, 1.0, g, 1, r.rows + r.first, tag)
        apply_rule(r, &rule, m.base, target, <Py_ssize_t>m.rows * m.ld, <const real *>NULL, 1)
        return
    if has_sparse(r, p):
        data = r.input[p.whole_input].data + r.rows[r.first] * r.input[p.whole_input].width
        for j in range(m.rows):
            (<real *>r.scratch[thread])[j] = <real>data[j]
        x = <const real *>r.scratch[thread]
    if m.ld == 1:
        rule.scale = g[0]
        apply_rule(r, &rule, m.base, x, m.rows, <const real *>NULL, 1)
    else:
        apply_rule(r, &rule, m.base, g, m.ld, x, m.rows)


cdef inline bint has_zero(const real *g, int n) noexcept nogil:
    cdef int k
    for k in range(n):
        if g[k] == 0:
            return True
    return False


cdef inline void uniform_backward(Replay r, real tag) noexcept nogil:
    cdef const Body *p = &r.plan.body
    cdef Py_ssize_t k, i, j
    cdef const Instr *q
    cdef const Matrix *m
    cdef const Sum *s
    cdef const Term *t
    cdef real *UA = <real *>r.uniform_adjoint
    cdef real *U = <real *>r.uniform
    cdef const int *table
    cdef double g
    cdef bint masked
    cdef int which = r.mode & (PARAMETERS | ARGUMENTS)
    for k in range(p.n_matrices - 1, -1, -1):
        m = &p.matrices[k]
        if m.table >= 0 and m.mask & which:
            table = p.table_of[m.table]
            for i in range(m.rows):
                for j in range(m.cols):
                    UA[table[i * m.cols + j]] += UA[m.base + i * m.ld + j]
    for k in range(p.n_uniform_instr - 1, -1, -1):
        q = &p.uniform[k]
        if not q.mask & which:
            continue
        if q.kind == I_ELEMENTS:
            masked = has_zero(UA + q.out, q.n) or r.kernels.not_finite(UA + q.out, q.n) != 0
            elements_backward(r, q, U, UA, U, UA, 1, True, masked, tag)
            continue
        s = &p.sums[q.extra]
        g = UA[q.out]
        if g == 0.0:
            continue
        for j in range(s.first, s.stop):
            t = &p.terms[j]
            if t.q_kind == R_NONE:
                if t.p_mask & which:
                    r.kernels.add_number(UA + t.p, t.sign * g, t.count)
            elif t.p == t.q:                     # a square: its numbers are gone through once
                if t.p_mask & which:
                    r.kernels.add_scaled(UA + t.p, 2.0 * t.sign * g, U + t.p, t.count)
            else:
                if t.p_mask & which:
                    r.kernels.add_scaled(UA + t.p, t.sign * g, U + t.q, t.count)
                if t.q_mask & which:
                    r.kernels.add_scaled(UA + t.q, t.sign * g, U + t.p, t.count)


# --- weight decay of matrices that take their step at once ---------------------------------------------

# A step of plain SGD with weight decay multiplies each weight by keep = 1 - rate * decay.  Dense and for batches, that
# is done with the step.  With one sparse row at a time the step would write all rows of a matrix where an image has a
# fifth of them to write; there a matrix owes the product of the factors, `shrunk`: the weights are that times what is
# stored.  Forwards the row of the data is multiplied by it, and a step that is added is divided by it (L. Bottou).

cdef inline bint is_small(double keep) noexcept nogil:
    """A factor that is not to be divided by."""
    return not 1e-3 < keep <= 1.0                # or is 0, or below


cdef inline double keep_of(Replay r, const Product *p, double rate, double *scale) noexcept nogil:
    """What a step multiplies the stored numbers of a matrix by, before it adds to them; and so the scale of that."""
    cdef double keep
    if r.decay == 0.0 or not r.mode & TRAIN or not r.fused[p.matrix]:
        return 1.0
    keep = 1.0 - rate * r.decay
    if not is_lazy(r, p):
        return keep
    if is_small(keep):
        return keep * r.shrunk                   # all is paid, see `end_decay`
    scale[0] /= r.shrunk * keep
    return 1.0


cdef inline void multiply(Replay r, real *w, int n_rows, int ld, double factor) noexcept nogil:
    """Some rows of weights by a number."""
    cdef real one = <real>factor
    r.kernels.binary(FS_MUL, FS_B_IS_ONE, w, w, &one, <Py_ssize_t>n_rows * ld)


cdef inline void step_one(Replay r, const Matrix *m, real *target, double scale, const int *column, const void *value,
                          int count, const real *g) noexcept nogil:
    """The step of a matrix by one sparse row."""
    if m.ld > 1:
        r.kernels.sparse_update_one(target, m.ld, scale, m.ld, column, value, count, g)
    else:
        r.kernels.sparse_add(target, scale * g[0], column, value, count)


cdef inline void settle_all(Replay r, real tag) noexcept nogil:
    cdef const Matrix *m
    cdef Py_ssize_t k
    if r.by_momentum and r.faded != 1.0:
        follow_momentum(r, 0.0, 0.0, True, tag)
    if r.lazy == NULL or r.shrunk == 1.0:
        return
    for k in range(r.plan.n_matrices):
        if r.lazy[k]:
            m = &r.plan.body.matrices[k]
            multiply(r, <real *>r.uniform + m.base, m.rows, m.ld, r.shrunk)
    r.shrunk = 1.0


cdef inline void begin_decay(Replay r) noexcept nogil:
    """Which matrices are lazy in this run, if nothing is owed from one before."""
    cdef const Product *p
    cdef int k
    if r.lazy == NULL or r.shrunk != 1.0:
        return
    memset(r.lazy, 0, r.plan.n_matrices)
    for k in range(r.plan.n_products):
        p = &r.plan.body.products[k]
        r.lazy[p.matrix] = r.batch_rows == 1 and r.fused[p.matrix] and has_sparse(r, p)


cdef inline void end_decay(Replay r, double rate, real tag) noexcept nogil:
    """A step was taken, in a run of single rows.  Long before the product underflows all is paid."""
    cdef double keep = 1.0 - rate * r.decay
    r.shrunk = 1.0 if is_small(keep) else r.shrunk * keep
    if r.shrunk < 1e-3:
        settle_all(r, tag)


# --- momentum of matrices, for batches ------------------------------------------------------------------

# Gradients are added straight into the momentum, not into memory that is set to zero first and read again.  That the
# momentum fades is one factor for all, `faded`, by which gradients are divided as they come, until it is small.

cdef inline double faded_next(Replay r) noexcept nogil:
    """The factor in this step."""
    return r.faded * r.rule.momentum


cdef inline void follow_momentum(Replay r, double rate, double decay, bint settle, real tag) noexcept nogil:
    """The step of these matrices, whose gradients are in; settle: nothing is left to be multiplied in after it."""
    cdef fs_rule rule = r.rule
    cdef const Matrix *m
    cdef Py_ssize_t k
    rule.kind, rule.rate, rule.decay, rule.momentum, rule.scale = FS_RULE_FADED, rate, decay, settle, r.faded
    if settle:
        r.faded = 1.0
    for k in range(r.plan.n_matrices):
        if r.fused[k]:
            m = &r.plan.body.matrices[k]
            apply_rule(r, &rule, m.base, <real *>NULL, <Py_ssize_t>m.rows * m.ld, <real *>NULL, 1)
