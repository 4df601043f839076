# cython: language_level=3, wraparound=False, cdivision=True
# What a checked build (FASTSCALAR_CHECKED=1) looks at in plans: every place that an instruction names is one.

from fastscalar.program._plan cimport Plan
from fastscalar.program.plan cimport *


cdef inline bint is_place(Plan p, int kind, int place) noexcept nogil:
    return 0 <= place < (p.n_slots if kind == R_SLOTS else p.n_uniform)


cdef inline bint is_ref(Plan p, const Ref *a, int n, bint uniform) noexcept nogil:
    """Whether `n` numbers are there; uniform: for an instruction that may read nothing else."""
    cdef int k
    if a.kind == R_NONE:
        return True
    if a.kind == R_ROWS:
        return not uniform and 0 <= a.run < p.n_runs
    if a.kind != R_SLOTS and a.kind != R_UNIFORM or a.step != 0 and a.step != 1:
        return False
    for k in range(n):
        if not is_place(p, R_UNIFORM if uniform else a.kind, a.index[k] if a.index != NULL else a.start + k * a.step):
            return False
    return a.port < p.n_ports


cdef inline bint is_matrix(Plan p, int matrix) noexcept nogil:
    return 0 <= matrix < p.n_matrices


cdef inline const char *broken_instr(Plan p, const Instr *q, bint uniform) noexcept nogil:
    cdef const Product *product
    cdef const Image *image
    cdef int n = q.n
    if q.n < 0 or q.code < 0 or q.code > X_SQUARE and q.kind <= I_ROWS:
        return b"an instruction"
    if q.run >= 0:
        if uniform or q.run >= p.n_runs:
            return b"the run of an instruction"
    elif q.kind != I_CALL and q.n and not (
            is_place(p, R_UNIFORM if uniform else R_SLOTS, q.out) and
            is_place(p, R_UNIFORM if uniform else R_SLOTS, q.out + q.n - 1)):
        return b"the outputs of an instruction"
    if q.kind == I_SUM and not 0 <= q.extra < p.n_sums:
        return b"the sum of an instruction"
    if q.kind == I_PRODUCT:
        if not 0 <= q.extra < p.n_products:
            return b"the product of an instruction"
        product = &p.products[q.extra]
        if not (is_matrix(p, product.matrix) and 0 <= product.x < p.n_runs and product.first >= 0 and
                product.first + p.matrices[product.matrix].rows <= p.runs[product.x].n):
            return b"the inputs of a product"
        if product.bias >= 0 and not (is_matrix(p, product.bias) and
                                      p.matrices[product.bias].cols == p.matrices[product.matrix].cols):
            return b"the bias of a product"
    if q.kind == I_CONV or q.kind == I_POOL:
        if not 0 <= q.extra < p.n_images:
            return b"the image of an instruction"
        image = &p.images[q.extra]
        if not (0 <= image.x < p.n_runs and image.first >= 0 and image.first + <long long>image.height * image.width *
                image.channels <= p.runs[image.x].n):
            return b"an image lies in its run"
    if (q.kind == I_ELEMENTS or q.kind == I_ROWS) and not (is_ref(p, &q.a, n, uniform) and is_ref(p, &q.b, n, uniform)):
        return b"an operand of an instruction"
    if q.kind == I_ROWS and q.run >= 0 and (q.a.kind == R_ROWS and p.runs[q.a.run].n != p.runs[q.run].n or
                                            q.b.kind == R_ROWS and p.runs[q.b.run].n != p.runs[q.run].n):
        return b"runs of different lengths"
    if q.kind == I_CROSS_ENTROPY or q.kind == I_LOGSUMEXP or q.kind == I_SOFTMAX or q.kind == I_GATHER or (
            q.kind == I_WHERE or q.kind == I_BEST):
        if not 0 <= q.extra < p.n_items:
            return b"the item of an instruction"
    return NULL


cdef inline const char *broken_plan(Plan p) noexcept:
    """The first of its promises that a plan does not keep, or NULL."""
    cdef Py_ssize_t k
    cdef const char *what
    cdef const Term *t
    cdef const Matrix *m
    cdef Body *body = &p.body
    for k in range(p.n_uniform_instr + p.n_per_row):
        if k < p.n_uniform_instr:
            what = broken_instr(p, &p.uniform[k], True)
        else:
            what = broken_instr(p, &p.per_row[k - p.n_uniform_instr], False)
        if what != NULL:
            return what
    for k in range(p.n_sums):
        if not 0 <= p.sums[k].first <= p.sums[k].stop <= p.n_terms:
            return b"the terms of a sum"
    for k in range(p.n_terms):
        t = &p.terms[k]
        if not (is_place(p, t.p_kind, t.p) and (t.q_kind == R_NONE or is_place(p, t.q_kind, t.q))):
            return b"what a term reads"
        if t.count > 1 and not is_place(p, R_UNIFORM, t.p + t.count - 1):
            return b"the numbers of a term"
        if t.p_port >= p.n_ports or t.q_port >= p.n_ports:
            return b"the port of a term"
    for k in range(p.n_matrices):
        m = &p.matrices[k]
        if m.base < 0 or m.cols > m.ld or m.base + <long long>m.rows * m.ld > p.n_uniform:
            return b"a matrix lies among the uniform numbers"
        if m.ld != 1 and m.ld % PAD or m.base % PAD and m.ld != 1:
            return b"a matrix is not padded"
        if m.table >= <int>len(p.tables):
            return b"the table of a matrix"
    for k in range(1, p.n_runs):
        if p.runs[k].base < p.runs[k - 1].base + p.runs[k - 1].ld or p.runs[k].n > p.runs[k].ld:
            return b"runs overlap"
    for k in range(p.n_guards):
        if not (is_place(p, p.guards[k].kind, p.guards[k].p) and (
                p.guards[k].other == R_NONE or is_place(p, p.guards[k].other, p.guards[k].q))):
            return b"what a guard reads"
    for k in range(body.n_results):
        if not is_place(p, body.results[k].kind, body.results[k].place):
            return b"a result"
    for k in range(p.n_slots):
        if not -1 <= body.adjoint[k] < max(1, p.n_adjoints):
            return b"where the gradient of a slot is"
    for k in range(p.n_per_row + 1):
        if body.birth_of[k] > body.birth_of[k + 1]:
            return b"the births of an instruction"
    for k in range(body.birth_of[0], body.birth_of[p.n_per_row + 1]):
        if body.births[k].count < 0 or body.births[k].at < 0 or body.births[k].at + body.births[k].count > p.n_adjoints:
            return b"a gradient that begins"
    return NULL
