# cython: language_level=3, wraparound=False, cdivision=True
# cython: nonecheck=False
# Gradients and steps of weights, for all rows of a batch, and the uniform part backwards.  Inline parts of `_replay`.

from libc.math cimport isfinite
from libc.string cimport memcpy, memset

from fastscalar._core cimport *
from fastscalar.program._kernels cimport *
from fastscalar.program._replay cimport *
from fastscalar.program.backward cimport *
from fastscalar.program.forward cimport *
from fastscalar.program.images cimport *
from fastscalar.program.plan cimport *
from fastscalar.program.runs cimport *


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
    cdef double scale
    for k in range(p.n_per_row - 1, -1, -1):
        q = &p.per_row[k]
        if q.kind == I_CONV and q.mask & which:
            conv_weights(r, thread, share, q, n, tag)
        if q.kind != I_PRODUCT or not q.mask & which:
            continue
        product = &p.products[q.extra]
        m = &p.matrices[product.matrix]
        g = rows_of(r, r.run_adjoint, q.run, 0, tag)
        if product.bias >= 0 and share == r.shares - 1 and p.matrices[product.bias].mask & which:
            r.kernels.add_rows(<real *>r.uniform_adjoint + p.matrices[product.bias].base, g, m.ld, m.ld, n)
        if not m.mask & which:
            continue
        target = <real *>(r.uniform if r.fused[product.matrix] and r.mode & TRAIN else r.uniform_adjoint) + m.base
        scale = -rate / n / r.scale[product.matrix] if r.fused[product.matrix] and r.mode & TRAIN else 1.0
        if r.kernels.not_finite(g, <Py_ssize_t>n * m.ld) or not finite_inputs(r, product, n, tag):
            masked_weights(r, share, product, m, target, scale, g, n, rows, tag)
            continue
        if has_sparse(r, product):
            sparse_weights(r, thread, share, &r.input[product.whole_input], m, target, scale, g, n, rows, tag)
            continue
        first, stop, row0, row1 = 0, m.ld, 0, m.rows
        parts = m.ld // PAD
        if parts >= r.shares:
            first, stop = parts * share // r.shares * PAD, parts * (share + 1) // r.shares * PAD
        else:
            row0, row1 = m.rows * share // r.shares, m.rows * (share + 1) // r.shares
        if m.ld == 1:
            for l in range(n):
                r.kernels.add_scaled(target + row0, scale * g[l],
                                     rows_of(r, r.run_value, product.x, l, tag) + product.first + row0, row1 - row0)
            continue
        r.kernels.dense_update(target + <Py_ssize_t>row0 * m.ld + first, m.ld, scale, stop - first, n,
                               rows_of(r, r.run_value, product.x, 0, tag) + product.first + row0,
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


cdef inline void masked_weights(Replay r, int share, const Product *p, const Matrix *m, real *target, double scale,
                                const real *g, int n, const long long *rows, real tag) noexcept nogil:
    """A share of the rows of a matrix where not all is finite: what is exactly zero sends zero, whatever it meets."""
    cdef int j, i, l
    cdef real x
    for j in range(<int>(<long long>m.rows * share // r.shares), <int>(<long long>m.rows * (share + 1) // r.shares)):
        for l in range(n):
            x = input_of(r, p, l, j, rows, tag)
            if x == 0:
                continue
            for i in range(m.cols):
                if g[<Py_ssize_t>l * m.ld + i] != 0:
                    target[<Py_ssize_t>j * m.ld + i] += <real>(scale * x * g[<Py_ssize_t>l * m.ld + i])


cdef inline void sparse_weights(Replay r, int thread, int share, const Input *x, const Matrix *m, real *target,
                                double scale, const real *g, int n, const long long *rows, real tag) noexcept nogil:
    """A share of the rows of a matrix, by the non-zero entries of these columns of the input."""
    cdef const int *column[GROUP]
    cdef const void *value[GROUP]
    cdef int count[GROUP]
    cdef int first = r.parts * share // r.shares, stop = r.parts * (share + 1) // r.shares, l, n_rows, k
    cdef int *start = x.start + thread * (x.width + 2)
    cdef size_t at = <size_t>thread * min(GROUP, r.batch) * x.width
    for l in range(0, n, 64):                    # GROUP; a step has to be a literal here
        n_rows = min(GROUP, n - l)
        find_rows(r, x, rows + l, n_rows, first, stop - first, column, value, count)
        if m.ld == 1:
            for k in range(n_rows):
                r.kernels.sparse_add(target, scale * g[l + k], column[k], value[k], count[k])
        elif n <= FEW_ROWS or not x.transposed or m.ld <= FEW_COLUMNS:
            for k in range(n_rows):
                r.kernels.sparse_update_one(target, m.ld, scale, m.ld, column[k], value[k], count[k],
                                            g + <Py_ssize_t>(l + k) * m.ld)
        else:
            r.kernels.sparse_transpose(start, x.row_of + at, <char *>x.entry + at * r.size, x.border[first],
                                       x.border[stop], n_rows, column, value, count)
            r.kernels.sparse_update(target, m.ld, scale, m.ld, start, x.row_of + at, <char *>x.entry + at * r.size,
                                    x.border[first], x.border[stop], g + <Py_ssize_t>l * m.ld, m.ld)


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
            elif t.p == t.q:                     # a square: weights of an L2 term are gone through once
                if t.p_mask & which and r.mode & TRAIN and t.matrix >= 0 and r.decayed[t.matrix]:
                    r.keep[t.matrix] -= 2.0 * t.sign * g * r.shrink
                elif t.p_mask & which:
                    r.kernels.add_scaled(UA + t.p, 2.0 * t.sign * g, U + t.p, t.count)
            else:
                if t.p_mask & which:
                    r.kernels.add_scaled(UA + t.p, t.sign * g, U + t.q, t.count)
                if t.q_mask & which:
                    r.kernels.add_scaled(UA + t.q, t.sign * g, U + t.p, t.count)


# --- an L2 term -----------------------------------------------------------------------------------

cdef inline void decay(Replay r, int n, const long long *rows, double rate, real tag) noexcept nogil:
    """The uniform part backwards, before the weights take their steps.

    The gradient of the sum of a matrix's squares is twice the matrix: its weights shrink by a factor, and a sparse row
    would have to write all of them.  So they are kept as scale * U, and only the scale changes; the sum of the squares
    follows from what a step adds.  MNIST, MLP 784-256-10, batch size 1, L2 over all
    weights: 1.07 times the step without it, 17 times when each step wrote all of them.
    """
    cdef Py_ssize_t k
    for k in range(r.plan.body.n_matrices):
        r.keep[k] = 1.0
    r.shrink = rate / n
    uniform_backward(r, tag)
    r.since += 1
    if n == 1 and r.since < FRESH:
        for k in range(r.plan.body.n_per_row):
            if r.plan.body.per_row[k].kind == I_PRODUCT:
                follow_square(r, &r.plan.body.per_row[k], rows, rate, tag)
    else:
        for k in range(r.plan.body.n_matrices):
            r.square[k] = -1.0
        r.since = 0
    for k in range(r.plan.body.n_matrices):
        if r.decayed[k]:
            r.scale[k] *= r.keep[k]
            if not 1e-3 < r.scale[k] < 1e3:
                settle(r, <int>k, tag)


cdef inline void follow_square(Replay r, const Instr *q, const long long *rows, double rate, real tag) noexcept nogil:
    """The sum of a matrix's squares after a step by one row.

    |k w + t x g|^2 = k^2 |w|^2 + 2 k t (x w) g + t^2 |x|^2 |g|^2; x w is what the product gave without its bias."""
    cdef const Product *p = &r.plan.body.products[q.extra]
    cdef const Matrix *m = &r.plan.body.matrices[p.matrix]
    cdef const real *g
    cdef const real *x
    cdef const int *column
    cdef const void *value
    cdef int count
    cdef double xx, xwg, keep = r.keep[p.matrix]
    if not r.decayed[p.matrix] or r.square[p.matrix] < 0.0:
        return
    r.square[p.matrix] *= keep * keep
    if not q.mask & PARAMETERS:
        return
    g = rows_of(r, r.run_adjoint, q.run, 0, tag)
    xwg = r.kernels.dot(rows_of(r, r.run_value, q.run, 0, tag), g, m.ld)
    if p.bias >= 0:
        xwg -= r.kernels.dot(<real *>r.uniform + r.plan.body.matrices[p.bias].base, g, m.ld)
    if has_sparse(r, p):
        find_rows(r, &r.input[p.whole_input], rows, 1, 0, r.parts, &column, &value, &count)
        xx = r.kernels.dot(value, value, count)
    else:
        x = rows_of(r, r.run_value, p.x, 0, tag) + p.first
        xx = r.kernels.dot(x, x, m.rows)
    r.square[p.matrix] += rate * (rate * xx * r.kernels.dot(g, g, m.ld) - 2.0 * keep * xwg)


cdef inline void settle(Replay r, int k, real tag) noexcept nogil:
    """The weights of a matrix as they are."""
    cdef const Matrix *m = &r.plan.body.matrices[k]
    cdef real *w = <real *>r.uniform + m.base
    cdef real scale = <real>r.scale[k]
    r.scale[k] = 1.0
    r.kernels.binary(FS_MUL, FS_B_IS_ONE, w, w, &scale, <Py_ssize_t>m.rows * m.ld)


cdef inline void settle_all(Replay r, real tag) noexcept:
    cdef Py_ssize_t k
    for k in range(r.plan.n_matrices):
        if r.scale[k] != 1.0:
            settle(r, <int>k, tag)
