# cython: language_level=3, wraparound=False, cdivision=True
# What maps, reductions and products compute.  `array_backward.pxd` has their backward steps.

from libc.string cimport memset

from fastscalar._core cimport tape, row
from fastscalar.engine.array_ops cimport (Rows, in_rows, next_row, node_of, start_rows, stored_values, value_of)
from fastscalar.engine.tape cimport *

cdef extern from "strided.h":
    void fs_accumulate(double *out, Py_ssize_t so, const double *x, Py_ssize_t sx, Py_ssize_t n) noexcept nogil
    void fs_accumulate_product(double *out, const double *x, Py_ssize_t sx, const double *y, Py_ssize_t sy,
                               Py_ssize_t n) noexcept nogil
    void fs_dot_rows(double *out, int m, const double *x, Py_ssize_t xl, Py_ssize_t xi, const double *y, Py_ssize_t yl,
                     Py_ssize_t yi, Py_ssize_t n) noexcept nogil


cdef inline void map_forward(ArrayOp *q, double *out) noexcept nogil:
    """A_MAP1 and A_MAP2, row by row: by the kernel of the operation, or its formula."""
    cdef Rows r
    cdef Row *f = row(q.code)
    cdef const double *x
    cdef const double *y
    if not in_rows(&q.x) or not in_rows(&q.y):
        map_scattered(q, out)
        return
    start_rows(&r, q, q.count)
    while True:
        x = stored_values(&q.x) + r.x
        y = stored_values(&q.y) + r.y
        map_row(q, f, out, x, r.sx, y, r.sy, r.n)
        out += r.n
        if not next_row(&r, q):
            return


cdef inline void map_row(ArrayOp *q, Row *f, double *out, const double *x, Py_ssize_t sx, const double *y,
                         Py_ssize_t sy, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t k
    if q.op == A_MAP1 and f.each != NULL:
        f.each(out, x, sx, n)
    elif q.op == A_MAP1:
        for k in range(n):
            out[k] = f.f(x[k * sx])
    elif f.each_pair != NULL:
        f.each_pair(out, x, sx, y, sy, n)
    else:
        for k in range(n):
            out[k] = f.f2(x[k * sx], y[k * sy])


cdef inline void map_scattered(ArrayOp *q, double *out) noexcept nogil:
    """The same of Tensors that lie anywhere, from copies: the bits of an element do not depend on where it lies."""
    cdef double[128] x
    cdef double[128] y
    cdef bint one = q.op == A_MAP2 and q.y.count == 1 and q.y.layout == NULL
    cdef Py_ssize_t at = 0, n, k
    while at < q.count:
        n = min(<Py_ssize_t>128, q.count - at)
        for k in range(n):
            x[k] = value_of(&q.x, at + k)
        if q.op == A_MAP2:
            for k in range(1 if one else n):
                y[k] = value_of(&q.y, at + k)
        map_row(q, row(q.code), out + at, x, 1, y, not one, n)
        at += n


cdef inline int dimensions_summed(const Layout *l, Py_ssize_t inner) noexcept nogil:
    """How many of the last dimensions are summed over; none of them has one element."""
    cdef int d = l.ndim
    cdef Py_ssize_t count = 1
    while count < inner:
        d -= 1
        count *= l.shape[d]
    return l.ndim - d


cdef inline void reduction_forward(ArrayOp *q, double *out) noexcept nogil:
    """A_SUM and A_DOT: terms are added in order from 0.0."""
    cdef bint products = q.op == A_DOT
    cdef Py_ssize_t k, j
    cdef double total
    if in_rows(&q.x) and in_rows(&q.y) and (q.x.layout != NULL or q.y.layout != NULL):
        reduce_rows(q, out)
        return
    if q.count == 1 and in_rows(&q.x) and in_rows(&q.y):     # of what lies consecutively, or of one element
        out[0] = 0.0
        fs_dot_rows(out, 1, stored_values(&q.x), 0, q.x.count > 1, stored_values(&q.y) if products else NULL, 0,
                    q.y.count > 1, q.inner)
        return
    for k in range(q.count):
        total = 0.0
        for j in range(k * q.inner, (k + 1) * q.inner):
            total = total + (value_of(&q.x, j) * value_of(&q.y, j) if products else value_of(&q.x, j))
        out[k] = total


cdef inline void reduce_rows(ArrayOp *q, double *out) noexcept nogil:
    """The same of laid out operands: loops over the dimensions of the output, then over those summed.

    Along the last dimension of the output (n of them) either whole rows are added to the outputs, if they lie
    consecutively, or eight sums are taken at a time."""
    cdef const Layout *l = q.x.layout if q.x.layout != NULL else q.y.layout
    cdef int summed = dimensions_summed(l, q.inner), kept = l.ndim - summed, d
    cdef Py_ssize_t n = l.shape[kept - 1] if kept else 1, last, rest = 1, c, block
    cdef Py_ssize_t xl, yl, xi, yi, x0 = 0, y0 = 0, x, y
    cdef Py_ssize_t[16] at
    cdef const double *xs = stored_values(&q.x)
    cdef const double *ys = stored_values(&q.y)
    cdef bint products = q.op == A_DOT
    memset(at, 0, sizeof(at))
    xl = stride_along(&q.x, kept - 1)
    yl = stride_along(&q.y, kept - 1)
    last = l.shape[l.ndim - 1] if summed else 1
    xi = stride_along(&q.x, l.ndim - 1) if summed else 0
    yi = stride_along(&q.y, l.ndim - 1) if summed else 0
    for d in range(kept, l.ndim - 1):
        rest *= l.shape[d]
    memset(out, 0, q.count * sizeof(double))
    while True:                                  # over the outputs but for their last dimension
        x, y = x0, y0
        for _k in range(rest):                   # over what is summed but for its last dimension
            if (yl == 1 and products) or (xl == 1 and not products) or (xl == 1 and yl == 0):
                for c in range(last):
                    if products:
                        fs_accumulate_product(out, xs + x + c * xi, xl, ys + y + c * yi, yl, n)
                    else:
                        fs_accumulate(out, 1, xs + x + c * xi, xl, n)
            else:
                c = 0
                while c < n:
                    block = min(<Py_ssize_t>8, n - c)
                    fs_dot_rows(out + c, <int>block, xs + x + c * xl, xl, xi,
                                ys + y + c * yl if products else NULL, yl, yi, last)
                    c += block
            for d in range(l.ndim - 2, kept - 1, -1):
                at[d] += 1
                x += stride_along(&q.x, d)
                y += stride_along(&q.y, d)
                if at[d] < l.shape[d]:
                    break
                x -= stride_along(&q.x, d) * l.shape[d]
                y -= stride_along(&q.y, d) * l.shape[d]
                at[d] = 0
        out += n
        for d in range(kept - 2, -1, -1):
            at[d] += 1
            x0 += stride_along(&q.x, d)
            y0 += stride_along(&q.y, d)
            if at[d] < l.shape[d]:
                break
            x0 -= stride_along(&q.x, d) * l.shape[d]
            y0 -= stride_along(&q.y, d) * l.shape[d]
            at[d] = 0
        else:
            return


cdef inline Py_ssize_t stride_along(const Operand *o, int d) noexcept nogil:
    return o.layout.stride[d] if o.layout != NULL and d >= 0 else 0


cdef inline void accumulate_forward(ArrayOp *q, double *out) noexcept nogil:
    """A_PROD, A_CUMSUM and A_PICK."""
    cdef Py_ssize_t k, j
    cdef double total
    if q.op == A_PICK and q.x.kind == INDEX and q.x.layout == NULL:
        for k in range(q.count):
            out[k] = tape.value[q.x.index[k]]
        return
    for k in range(q.count):
        if q.op == A_PICK:
            out[k] = value_of(&q.x, k)
        elif q.op == A_CUMSUM:
            out[k] = value_of(&q.x, k)
            if k % q.inner:
                out[k] = out[k - 1] + out[k]
        else:
            total = value_of(&q.x, k * q.inner)
            for j in range(1, q.inner):
                total = total * value_of(&q.x, k * q.inner + j)
            out[k] = total


cdef inline void best_forward(ArrayOp *q, double *out) noexcept nogil:
    """A_BEST: the first of equals, or the first NaN."""
    cdef bint least = q.code == BEST_MIN or q.code == BEST_ARGMIN
    cdef double held, v
    cdef Py_ssize_t j, k, best
    for k in range(q.count):
        held = value_of(&q.x, k * q.inner)
        best = 0
        for j in range(1, q.inner):
            if held != held:
                break
            v = value_of(&q.x, k * q.inner + j)
            if not (held <= v if least else held >= v):
                held, best = v, j
        q.labels[k] = <int>best
        out[k] = held if q.code <= BEST_MIN else <double>best
