# cython: language_level=3, wraparound=False, cdivision=True
# The backward steps of array operations.  `marks.pxd` says what reaching an operand is.

from libc.string cimport memcpy, memset

from fastscalar._core cimport kernels, tape, row
from fastscalar.engine.array_ops cimport (Rows, affine_input, enter_row, in_rows, next_row, node_of, operand_values,
                                          reset_leaf, start_rows, stored_values, value_of, whole_leaf)
from fastscalar.engine.formulas cimport f_send, sent
from fastscalar.engine.marks cimport (add_to, contribute, list_array_op, mark_operand_reached, mark_reached,
                                      mark_run_reached)
from fastscalar.engine.tape cimport *
from fastscalar.engine.writes cimport has_nodes

cdef extern from "strided.h":
    void fs_accumulate(double *out, Py_ssize_t so, const double *x, Py_ssize_t sx, Py_ssize_t n) noexcept nogil
    void fs_pass_product(double *to, Py_ssize_t st, const double *g, Py_ssize_t sg, const double *partial,
                         Py_ssize_t ss, Py_ssize_t n) noexcept nogil


cdef inline long array_op_backward(ArrayOp *q) noexcept nogil:
    """All outputs of an instruction, or the next rows of a large Linear (see `done`); an estimate of the work."""
    cdef int k, first, stop
    if q.op == A_AFFINE:
        first = q.done
        stop = min(q.rows, first + max(1, PORTION // (q.inner * <Py_ssize_t>q.cols)))
        affine_backward(q, first, stop)
        q.done = stop if stop < q.rows else 0
        return <long>(stop - first) * q.cols * q.inner // 16
    mark_operand_reached(&q.x)
    mark_operand_reached(&q.y)
    if q.op == A_CUSTOM:
        pass                                     # `sweep` calls the step
    elif q.op == A_SOFTMAX:
        softmax_backward(q)
    elif q.op == A_MAP1 and q.code == RELU and q.x.kind == RUN:
        kernels.add_relu_gradient(tape.grad + q.x.start, tape.value + q.x.start, tape.grad + q.start, q.count)
    elif (q.op == A_MAP1 or q.op == A_MAP2) and in_rows(&q.x) and in_rows(&q.y):
        map_backward(q)
    elif (q.op == A_SUM or q.op == A_DOT) and in_rows(&q.x) and in_rows(&q.y):
        reduction_backward(q)
    elif q.op == A_CUMSUM:
        cumsum_backward(q)
    else:
        for k in range(q.count - 1, -1, -1):
            element_backward(q, k)
    return q.count


cdef inline void array_op_step(ArrayOp *q, int k) noexcept nogil:
    """The local step of one output, with its operands touched element by element."""
    cdef int j
    if q.op == A_AFFINE:
        affine_step(q, k)
    elif q.op == A_MAP1 or q.op == A_MAP2:
        j = node_of(&q.x, k)
        if j:
            mark_reached(j)
        j = node_of(&q.y, k)
        if j:
            mark_reached(j)
        element_backward(q, k)
    elif q.op == A_SUM or q.op == A_DOT or q.op == A_PROD or q.op == A_BEST:
        mark_elements_reached(&q.x, <Py_ssize_t>k * q.inner, q.inner)
        mark_elements_reached(&q.y, <Py_ssize_t>k * q.inner, q.inner)
        element_backward(q, k)
    elif q.op == A_PICK or q.op == A_CUMSUM:
        j = k // q.inner * q.inner
        mark_elements_reached(&q.x, j, k - j + 1)
        element_backward(q, k)
    elif q.op != A_LEAF and q.op != A_CUSTOM:
        mark_operand_reached(&q.x)
        mark_operand_reached(&q.y)
        element_backward(q, k)


cdef inline void element_backward(ArrayOp *q, int k) noexcept nogil:
    """One output of any instruction but A_AFFINE; its operands are touched."""
    cdef double g = tape.grad[q.start + k], x, y, v
    cdef Py_ssize_t r, j
    if g == 0.0:
        return
    if q.op == A_MAP1:
        x = value_of(&q.x, k)
        add_to(&q.x, k, sent(g, row(q.code).d(x, tape.value[q.start + k])))
    elif q.op == A_MAP2:
        x = value_of(&q.x, k)
        y = value_of(&q.y, k)
        v = tape.value[q.start + k]
        add_to(&q.x, k, sent(g, row(q.code).da(x, y, v)))
        if node_of(&q.y, k):
            add_to(&q.y, k, sent(g, row(q.code).db(x, y, v)))
    elif q.op == A_SUM:
        for j in range(<Py_ssize_t>k * q.inner, <Py_ssize_t>(k + 1) * q.inner):
            add_to(&q.x, j, g)
    elif q.op == A_DOT:
        for j in range(<Py_ssize_t>k * q.inner, <Py_ssize_t>(k + 1) * q.inner):
            x = value_of(&q.x, j)
            y = value_of(&q.y, j)
            add_to(&q.x, j, sent(g, y))
            add_to(&q.y, j, sent(g, x))
    elif q.op == A_PICK:
        add_to(&q.x, k, g)
    elif q.op == A_CUMSUM:
        for j in range(k // q.inner * q.inner, k + 1):
            add_to(&q.x, j, g)
    elif q.op == A_PROD:
        product_backward(&q.x, <Py_ssize_t>k * q.inner, q.inner, g)
    elif q.op == A_LOGSUMEXP:
        for j in range(q.x.count):
            add_to(&q.x, j, sent(g, q.saved[j]))
    elif q.op == A_SOFTMAX:
        for j in range(q.x.count):
            add_to(&q.x, j, sent(g, q.saved[k] * ((1.0 if j == k else 0.0) - q.saved[j])))
    elif q.op == A_GATHER:
        add_to(&q.x, <Py_ssize_t>q.labels[0] * q.count + k, g)
    elif q.op == A_WHERE:
        add_to(&q.x, 2 if q.labels[0] else 3, g)
    elif q.op == A_BEST:
        if q.code <= BEST_MIN:
            add_to(&q.x, <Py_ssize_t>k * q.inner + q.labels[k], g)
    elif q.op == A_SQUARED or q.op == A_MSE:
        if q.op == A_MSE:
            g = g * 2.0 / q.x.count
        elif q.rows:
            g = g / q.rows
        for j in range(q.x.count):
            x = sent(g, q.saved[j])
            add_to(&q.x, j, x)
            add_to(&q.y, j, -x)
    elif q.op == A_CROSS_ENTROPY:
        if q.rows:
            g = g / q.rows
        for r in range(max(q.rows, 1)):
            for j in range(r * q.cols, (r + 1) * q.cols):
                add_to(&q.x, j, sent(g, q.saved[j] - (1.0 if j - r * q.cols == q.labels[r] else 0.0)))


cdef inline void product_backward(Operand *o, Py_ssize_t first, Py_ssize_t n, double g) noexcept nogil:
    """Of x[0] * x[1], times x[2], ..., as these products send it, the last one first: where one is zero it sends zero,
    whatever the factors before it are."""
    cdef double[64] before                       # x[0] * ... * x[lowest], ..., x[0] * ... * x[j - 1]
    cdef Py_ssize_t j, k, lowest = n
    cdef double v
    if n == 1:
        add_to(o, first, g)
    for j in range(n - 1, 0, -1):
        if j <= lowest:
            lowest = max(j - 64, <Py_ssize_t>0)
            v = value_of(o, first)
            for k in range(1, lowest + 1):
                v = v * value_of(o, first + k)
            before[0] = v
            for k in range(lowest + 1, j):
                v = v * value_of(o, first + k)
                before[k - lowest] = v
        v = value_of(o, first + j)
        if j == 1:
            add_to(o, first, sent(g, v))
        add_to(o, first + j, sent(g, before[j - 1 - lowest]))
        g = sent(g, v)


cdef inline void mark_elements_reached(Operand *o, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t j
    cdef int p
    if not has_nodes(o):
        return
    for j in range(first, first + count):
        p = node_of(o, j)
        if p:
            mark_reached(p)


cdef inline double *gradients_of(const Operand *o) noexcept nogil:
    """Those that its layout counts; NULL: of numbers."""
    return tape.grad + o.start if has_nodes(<Operand *>o) else NULL


cdef inline void map_backward(ArrayOp *q) noexcept nogil:
    """All outputs of a map: the same, row by row."""
    cdef Rows r
    cdef const double *x = stored_values(&q.x)
    cdef const double *y = stored_values(&q.y)
    cdef double *gx = gradients_of(&q.x)
    cdef double *gy = gradients_of(&q.y)
    cdef const double *g = tape.grad + q.start
    cdef const double *v = tape.value + q.start
    cdef Row *f = row(q.code)
    cdef Py_ssize_t k
    start_rows(&r, q, q.count)
    while True:
        if gx == NULL:
            pass
        elif q.code == ADD or q.code == SUB:
            fs_accumulate(gx + r.x, r.sx, g, 1, r.n)
        elif q.code == MUL:
            fs_pass_product(gx + r.x, r.sx, g, 1, y + r.y, r.sy, r.n)
        else:
            for k in range(r.n):
                if g[k] != 0.0:
                    gx[r.x + k * r.sx] += sent(g[k], f.d(x[r.x + k * r.sx], v[k]) if q.op == A_MAP1 else f.da(
                        x[r.x + k * r.sx], y[r.y + k * r.sy], v[k]))
        if gy == NULL:
            pass
        elif q.code == ADD:
            fs_accumulate(gy + r.y, r.sy, g, 1, r.n)
        elif q.code == MUL:
            fs_pass_product(gy + r.y, r.sy, g, 1, x + r.x, r.sx, r.n)
        else:
            for k in range(r.n):
                if g[k] != 0.0:
                    gy[r.y + k * r.sy] += sent(g[k], f.db(x[r.x + k * r.sx], y[r.y + k * r.sy], v[k]))
        g += r.n
        v += r.n
        if not next_row(&r, q):
            return


cdef inline bint is_read_by_columns(ArrayOp *q, const Operand *o) noexcept nogil:
    """Whether a matrix lies so that one term of all outputs is read from consecutive places: of 784 x 256, a sweep
    along the other way takes ten times as long."""
    return (o.layout != NULL and o.layout.ndim == 2 and o.layout.shape[0] == q.count and o.layout.shape[1] == q.inner
            and o.layout.stride[0] == 1 and o.layout.stride[1] > 1)


cdef inline void pass_columns(ArrayOp *q, double *to, const Layout *l, const double *partial,
                              const Layout *other) noexcept nogil:
    """To such an operand of dot products, term by term."""
    cdef Py_ssize_t j, outer = other.stride[0] if other != NULL else 0, step = other.stride[1] if other != NULL else 0
    if to == NULL:
        return
    for j in range(q.inner):
        fs_pass_product(to + j * l.stride[1], 1, tape.grad + q.start, 1, partial + j * step, outer, q.count)


cdef inline void reduction_backward(ArrayOp *q) noexcept nogil:
    """All outputs of sums, or of dot products.  Rows go along the last dimension that is summed over."""
    cdef Rows r
    cdef double *gx = gradients_of(&q.x)
    cdef double *gy = gradients_of(&q.y)
    cdef const double *g
    cdef Py_ssize_t k = 0
    cdef bint each = q.inner == 1                # a row is part of as many outputs as it has elements, else of one
    if q.op == A_DOT and is_read_by_columns(q, &q.x):
        pass_columns(q, gx, q.x.layout, stored_values(&q.y), q.y.layout)
        gx = NULL
    if q.op == A_DOT and is_read_by_columns(q, &q.y):
        pass_columns(q, gy, q.y.layout, stored_values(&q.x), q.x.layout)
        gy = NULL
    start_rows(&r, q, <Py_ssize_t>q.count * q.inner)
    while True:
        g = tape.grad + q.start + k // q.inner
        if gx != NULL and q.op == A_SUM:
            fs_accumulate(gx + r.x, r.sx, g, each, r.n)
        elif gx != NULL:
            fs_pass_product(gx + r.x, r.sx, g, each, stored_values(&q.y) + r.y, r.sy, r.n)
        if gy != NULL:
            fs_pass_product(gy + r.y, r.sy, g, each, stored_values(&q.x) + r.x, r.sx, r.n)
        k += r.n
        if not next_row(&r, q):
            return


cdef inline void cumsum_backward(ArrayOp *q) noexcept nogil:
    cdef double total = 0.0
    cdef Py_ssize_t k
    for k in range(q.count - 1, -1, -1):
        total = total + tape.grad[q.start + k]
        add_to(&q.x, k, total)
        if k % q.inner == 0:
            total = 0.0


cdef inline void softmax_backward(ArrayOp *q) noexcept nogil:
    """All outputs at once: linear in their number; one by one it is quadratic."""
    cdef const double *g = tape.grad + q.start
    cdef double total = 0.0
    cdef bint all_zero = True
    cdef Py_ssize_t j
    for j in range(q.count):
        if g[j] != 0.0:
            total = total + g[j] * q.saved[j]
            all_zero = False
    if all_zero:
        return
    if total - total != 0.0:                     # inf - inf is nothing that one output after the other would give
        for j in range(q.count - 1, -1, -1):
            element_backward(q, <int>j)
        return
    for j in range(q.count):
        add_to(&q.x, j, q.saved[j] * (g[j] - total))


cdef inline void affine_backward(ArrayOp *q, Py_ssize_t first, Py_ssize_t stop) noexcept nogil:
    """All outputs of some rows of a Linear: bias, weights, inputs, which the first of them touches."""
    cdef const double *g = tape.grad + q.start
    cdef Py_ssize_t r, j, i, n = q.cols
    cdef ArrayOp *leaf = whole_leaf(&q.y, n)
    cdef const double *w
    cdef int *nonzero
    cdef double *x
    cdef double *dx
    cdef int nnz, k

    if first == 0:
        mark_operand_reached(&q.z)
    for r in range(first, stop):
        if q.z.kind == RUN:
            kernels.add(tape.grad + q.z.start, g + r * n, n)
        elif q.z.kind == INDEX:
            for i in range(n):
                tape.grad[q.z.index[i]] += g[r * n + i]

    if leaf != NULL and q.rows == 1 and leaf.f_row != NULL and not leaf.whole and leaf.partial == 0 and (
            not tape.accumulate or (leaf.n_touched == 0 and leaf.factored < 0)):
        reset_leaf(leaf)
        leaf.whole = True
        list_array_op(leaf)
        leaf.factored = affine_input(q, 0, &nonzero, &x)
        memcpy(leaf.f_row, nonzero, leaf.factored * sizeof(int))
        memcpy(leaf.f_x, x, leaf.factored * sizeof(double))
        memcpy(leaf.f_g, g, n * sizeof(double))
    elif q.y.kind == RUN:
        if first == 0:
            mark_run_reached(q.y.start, q.y.count, leaf == NULL)
        for r in range(first, stop):
            nnz = affine_input(q, <int>r, &nonzero, &x)
            if leaf != NULL:
                for k in range(nnz):
                    enter_row(leaf, nonzero[k])
            kernels.add_outer(tape.grad + q.y.start, nonzero, x, nnz, g + r * n, q.cols)
    elif q.y.kind == INDEX:
        if first == 0:
            mark_operand_reached(&q.y)
        for r in range(first, stop):
            nnz = affine_input(q, <int>r, &nonzero, &x)
            for k in range(nnz):
                for i in range(n):
                    tape.grad[q.y.index[nonzero[k] * n + i]] += f_send(g[r * n + i], x[k])

    if q.x.kind == RUN or q.x.kind == INDEX:
        if first == 0:
            mark_operand_reached(&q.x)
        w = operand_values(&q.y, tape.work + 3 * q.inner + n)
        for r in range(first, stop):
            if q.x.kind == RUN:
                kernels.add_input_gradient(tape.grad + q.x.start + r * q.inner, w, g + r * n, q.inner, q.cols)
            else:
                dx = tape.work + 2 * q.inner
                memset(dx, 0, q.inner * sizeof(double))
                kernels.add_input_gradient(dx, w, g + r * n, q.inner, q.cols)
                for j in range(q.inner):
                    tape.grad[q.x.index[r * q.inner + j]] += dx[j]


cdef inline void affine_step(ArrayOp *q, int k) noexcept nogil:
    """One output of a Linear: what it reaches is one column of the weights, its bias, and the inputs of its nonzero."""
    cdef Py_ssize_t r = k // q.cols, i = k % q.cols, j
    cdef double g = tape.grad[q.start + k], x
    cdef int *nonzero
    cdef double *value
    cdef int p, nnz, at = 0
    cdef bint in_sweep = tape.sweeping and q.x.kind == RUN
    p = node_of(&q.z, i)
    if p:
        contribute(p, g)
    nnz = affine_input(q, <int>r, &nonzero, &value)
    if in_sweep:                                 # a row of leaves at once: 1.36 times a row of numbers, not 1.55
        mark_run_reached(q.x.start + <int>(r * q.inner), <int>q.inner, True)
    for j in range(q.inner):
        x = 0.0
        if at < nnz and nonzero[at] == j:
            x = value[at]
            at += 1
        p = node_of(&q.y, j * q.cols + i)
        if p:
            mark_reached(p)
            if x != 0.0:
                tape.grad[p] += f_send(g, x)
        if in_sweep:
            tape.grad[q.x.start + r * q.inner + j] += f_send(g, value_of(&q.y, j * q.cols + i))
        elif q.x.kind != SPARSE:
            p = node_of(&q.x, r * q.inner + j)
            if p:
                contribute(p, f_send(g, value_of(&q.y, j * q.cols + i)))
