# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False
"""Array operations: maps, sums, dot products, Linear, softmax and losses, each one instruction on the tape.

Here their values are computed; their backward steps are in `array_backward.pxd`.  The safepoint rule of `_core` holds:
convert first, then `safepoint`, then indices and pointers until `publish`.
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_RawFree
from libc.string cimport memcpy, memset

from fastscalar._core cimport *
from fastscalar.engine.memory cimport allocate, out_of_memory
from fastscalar.engine.numbers cimport as_number
from fastscalar.engine.array_forward cimport accumulate_forward, best_forward, map_forward, reduction_forward
from fastscalar.engine.array_ops cimport (affine_input, dense_input, free_operand, free_array_op, make_leaf,
                                          new_array_op, operand_values, publish, reserve_work, value_of, whole_leaf)
from fastscalar.engine._array cimport Operators, TensorArray, element_count, hold, is_contiguous
from fastscalar.engine._operands cimport (Source, array_like, broadcast, flatten, lay_out, resolve, same_shape,
                                          shape_of, source, sparse_source)
from fastscalar.engine._traced cimport TracedBool, TracedInt, out_of_range

from array import array as memory_array
import numbers
import operator

import numpy as np

from fastscalar.engine._functions import operations
from fastscalar.engine._array import register
from fastscalar.engine.views import ArrayView

# Not where it is asked for: of the entries of a tuple written there Cython ignores that one raised (an interrupt).
cdef tuple OPERANDS = (TensorArray, Tensor, TracedInt, list, tuple, np.ndarray, ArrayView, numbers.Real, np.bool_,
                       memoryview, memory_array)


# --- values of array operations ------------------------------------------------------------------

cdef void compute_array_op(ArrayOp *q, double *out) noexcept nogil:
    """What an instruction computes, from the operands' values as they are now."""
    cdef Py_ssize_t k
    cdef double total = 0.0
    if q.op == A_AFFINE:
        affine_forward(q, 0, q.rows, out)
    elif q.op == A_MAP1 and q.code == RELU and q.x.kind == RUN:
        kernels.relu(out, tape.value + q.x.start, q.count)
    elif q.op == A_MAP1 or q.op == A_MAP2:
        map_forward(q, out)
    elif q.op == A_SUM or q.op == A_DOT:
        reduction_forward(q, out)
    elif q.op == A_PICK or q.op == A_PROD or q.op == A_CUMSUM:
        accumulate_forward(q, out)
    elif q.op == A_BEST:
        best_forward(q, out)
    elif q.op == A_LOGSUMEXP:
        out[0] = softmax_forward(q, 0, q.x.count)
    elif q.op == A_SOFTMAX:
        softmax_forward(q, 0, q.count)
        memcpy(out, q.saved, q.count * sizeof(double))
    elif q.op == A_SQUARED or q.op == A_MSE:
        for k in range(max(q.rows, 1)):
            total = total + squared_forward(q, k)
        if q.op == A_MSE:
            out[0] = total / q.x.count
        else:
            out[0] = 0.5 * total / q.rows if q.rows else 0.5 * total
    elif q.op == A_CROSS_ENTROPY:
        for k in range(max(q.rows, 1)):
            total = total + xent_forward(q, k)
        out[0] = total / q.rows if q.rows else total


cdef double squared_forward(ArrayOp *q, Py_ssize_t r) noexcept nogil:
    """The sum of one row's squared differences, which are saved."""
    cdef Py_ssize_t k
    cdef double total = 0.0, d
    for k in range(r * q.cols, (r + 1) * q.cols):
        d = q.saved[k] = value_of(&q.x, k) - value_of(&q.y, k)
        total = total + d * d
    return total


# --- emitting array operations -------------------------------------------------------------------
#
# begin: after the safepoint, everything that can fail.  Then the values are computed into value[n:n + count].
# end: publish, and drop the operands if this thread does not record.

cdef ArrayOp *begin(int op, Py_ssize_t count, Source x, Source y, Source z, str what) except NULL:
    cdef ArrayOp *q = new_array_op(op, <int>count)
    try:
        if x is not None:
            resolve(x, &q.x, what)
        if y is not None:
            resolve(y, &q.y, what)
        if z is not None:
            resolve(z, &q.z, what)
        if tape.no_grad_threads and not recording():
            make_leaf(q, 1)
            q.op, q.unrecorded = op, True
    except BaseException:
        free_array_op(q)
        raise
    return q


cdef void end(ArrayOp *q) noexcept:
    forget(q)
    publish(q)


cdef void forget(ArrayOp *q) noexcept:
    """Under no_grad, when its values are there, an instruction becomes an array of leaves."""
    if q.unrecorded:
        free_operand(&q.x)
        free_operand(&q.y)
        free_operand(&q.z)
        memset(&q.x, 0, 3 * sizeof(Operand))
        PyMem_RawFree(q.labels)
        PyMem_RawFree(q.geometry)
        PyMem_RawFree(q.saved)
        q.labels = NULL
        q.geometry = NULL
        q.saved = NULL
        q.op, q.unrecorded = A_LEAF, False
        q.rows = 1
        q.cols = q.count


cdef TensorArray end_array(ArrayOp *q, TensorArray array, int ndim, const Py_ssize_t *shape):
    end(q)
    return hold(q, array, ndim, shape)


cdef Tensor end_scalar(ArrayOp *q, Tensor t):
    end(q)
    t.index = q.start
    tape.handle[q.start] = <void *>t
    q.handles = 1
    return t


cdef int save(ArrayOp *q, str what) except -1:
    """Room for what the backward step of a loss needs of its forward step; frees the instruction if there is none."""
    q.saved = <double *>allocate(q.x.count * sizeof(double))
    if q.saved == NULL:
        free_array_op(q)
        out_of_memory(what, 1)
    return 0


cdef TensorArray map1(int code, TensorArray x):
    """A unary row of the table for every element; follows IEEE 754."""
    cdef Source s
    cdef TensorArray array
    cdef ArrayOp *q
    if element_count(x) == 0:
        return x
    s = source(x, op_name(code))
    if not is_contiguous(x):
        lay_out(s, None, x.ndim, x.ndim, x.shape_, x.strides_, NULL)
    safepoint(s.count)
    array = TensorArray.__new__(TensorArray)
    q = begin(A_MAP1, s.count, s, None, None, op_name(code))
    q.code = code
    compute_array_op(q, tape.value + tape.n)
    return end_array(q, array, s.ndim, s.shape)


cdef dict BINARY = {name: code for code, name, arity, _ in operations() if arity == 2}


def elementwise(str name, left, right):
    """A binary row of the operation table by its name, for sequences, arrays and single numbers, broadcast."""
    return map2(BINARY[name], left, right)


cdef object map2(int code, object left, object right):
    """A binary row of the table, element by element; shapes are broadcast as NumPy's."""
    cdef Source x, y
    cdef TensorArray array
    cdef ArrayOp *q
    cdef Py_ssize_t[LAYOUT_DIMS] shape
    cdef Py_ssize_t[LAYOUT_DIMS] xs
    cdef Py_ssize_t[LAYOUT_DIMS] ys
    cdef Py_ssize_t count = 1
    cdef int ndim, d
    if not is_operand(left):
        left = array_like(left)
        if not is_operand(left):
            return NotImplemented
    if not is_operand(right):
        right = array_like(right)
        if not is_operand(right):
            return NotImplemented
    if is_empty(left) or is_empty(right):
        return of_nothing(code, left, right)
    x = source(left, op_name(code))
    y = source(right, op_name(code))
    ndim = broadcast(x, y, shape, xs, ys, op_name(code))
    for d in range(ndim):
        count *= shape[d]
    if count > tape.max_nodes:
        raise MemoryError(f"{op_name(code)}: the result has {count:,} nodes")
    lay_out(x, y, ndim, ndim, shape, xs, ys)
    safepoint(count)
    array = TensorArray.__new__(TensorArray)
    q = begin(A_MAP2, count, x, y, None, op_name(code))
    q.code = code
    compute_array_op(q, tape.value + tape.n)
    return end_array(q, array, ndim, shape)


cdef bint is_operand(x) except -1:
    return type(x) is TensorArray or type(x) is float or type(x) is int or isinstance(x, OPERANDS)


cdef bint is_empty(x) except -1:
    if type(x) is TensorArray:
        return element_count(x) == 0
    return type(x) is not float and isinstance(x, np.ndarray) and x.size == 0


cdef object of_nothing(int code, left, right):
    """An operation on an array without elements: another one."""
    cdef list shapes = [x.shape if type(x) is TensorArray else () if type(x) is Tensor else np.shape(x)
                        for x in (left, right)]
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(f"{op_name(code)}: shapes {shapes[0]} and {shapes[1]} do not go together: counted from the "
                         "last dimension, each has to be the same in both, or 1") from None
    return (left if type(left) is TensorArray else right)._nothing(shape)


cpdef Tensor total(x):
    """The sum of all elements of a sequence or an array, added in order from 0.0, a Tensor."""
    cdef Source s
    cdef Tensor t
    cdef ArrayOp *q
    if type(x) is TensorArray and element_count(x) == 0:
        return Tensor(0.0)
    s = source(x, "sum")
    if s.array is not None and not is_contiguous(s.array):
        lay_out(s, None, s.ndim, 0, s.shape, s.array.strides_, NULL)
    safepoint(1)
    t = Tensor.__new__(Tensor)
    q = begin(A_SUM, 1, s, None, None, "sum")
    q.inner = <int>s.count
    compute_array_op(q, tape.value + tape.n)
    return end_scalar(q, t)


def dot(x, y):
    """x[0] * y[0] + x[1] * y[1] + ..., added in this order from 0.0, a Tensor.

    x and y hold numbers or Tensors, at least one Tensor or array among them.  ValueError if the lengths differ.

    >>> import fastscalar as fs
    >>> fs.dot(fs.to_tensor([1.0, 2.0]), [3.0, 4.0])
    Tensor(data=11.0)
    """
    cdef Source sx = source(x, "dot"), sy = source(y, "dot")
    cdef Tensor t
    cdef ArrayOp *q
    if sx.ndim != 1 or sy.ndim != 1 or sx.count != sy.count:
        raise ValueError(f"dot: expected two sequences of the same length, got {describe(sx)} and {describe(sy)}")
    safepoint(1)
    t = Tensor.__new__(Tensor)
    q = begin(A_DOT, 1, sx, sy, None, "dot")
    q.inner = <int>sx.count
    compute_array_op(q, tape.value + tape.n)
    return end_scalar(q, t)


def logsumexp(x):
    """log(exp(x[0]) + exp(x[1]) + ...), a Tensor; does not overflow.

    inf if one of them is, with the derivative 1 shared by those that are; -inf if all are, with the derivatives 0.

    >>> import fastscalar as fs
    >>> fs.logsumexp(fs.to_tensor([1000.0, 1000.0]))
    Tensor(data=1000.6931471805599)
    """
    cdef Source s = source(x, "logsumexp")
    cdef Tensor t
    cdef ArrayOp *q
    safepoint(1)
    t = Tensor.__new__(Tensor)
    q = begin(A_LOGSUMEXP, 1, s, None, None, "logsumexp")
    save(q, "logsumexp")
    compute_array_op(q, tape.value + tape.n)
    return end_scalar(q, t)


def softmax(x):
    """exp(x[i]) / (exp(x[0]) + exp(x[1]) + ...), a TensorArray of the shape of x; does not overflow.

    Those that are inf share 1 equally; if all are -inf, each is 0.

    >>> import fastscalar as fs
    >>> fs.softmax(fs.to_tensor([0.0, 0.0])).tolist()
    [0.5, 0.5]
    """
    cdef Source s = source(x, "softmax")
    cdef TensorArray array
    cdef ArrayOp *q
    if s.ndim != 1:
        raise ValueError(f"softmax: expected one dimension, got shape {shape_of(s)}")
    safepoint(s.count)
    array = TensorArray.__new__(TensorArray)
    q = begin(A_SOFTMAX, s.count, s, None, None, "softmax")
    save(q, "softmax")
    compute_array_op(q, tape.value + tape.n)
    return end_array(q, array, 1, s.shape)


def affine(x, w, b):
    """x @ w + b for x of shape (in,) or (n, in), w (in, out), b (out,): a TensorArray of shape (out,) or (n, out).

    Output i starts at 0.0 + b[i]; x[j] * w[j][i] is added input by input.  Entries of x that are exactly zero are
    skipped: with an infinite or NaN weight, 0 * it counts as 0.  Numbers and NumPy arrays of floats are constants;
    Tensors get gradients.

    Raises ValueError if lengths do not fit or x is an array of whole numbers (X / 255, or X.astype(float)).
    """
    cdef Source sx = sparse_source(x, "Linear"), sw = source(w, "Linear: weights"), sb = source(b, "Linear: bias")
    cdef Py_ssize_t inner, cols
    if sw.ndim != 2 or sb.ndim != 1 or sb.shape[0] != sw.shape[1]:
        raise ValueError(f"Linear: weights of shape {shape_of(sw)} and bias of shape {shape_of(sb)} do not go together")
    inner, cols = sw.shape[0], sw.shape[1]
    if sx.ndim not in (1, 2) or sx.shape[sx.ndim - 1] != inner:
        raise ValueError(f"Linear({inner}, {cols}): expected {inner} inputs, got shape {shape_of(sx)}")
    return emit_affine(sx, sw, sb, "Linear")


cdef TensorArray emit_affine(Source sx, Source sw, Source sb, str what):
    """x @ w + b, of which the shapes go together; sb None: x @ w, in which an input that is zero counts."""
    cdef Py_ssize_t rows = sx.shape[0] if sx.ndim == 2 else 1, inner = sw.shape[0], cols = sw.shape[1]
    cdef TensorArray array
    cdef ArrayOp *q
    if rows * cols > 0x7fffffff:
        raise MemoryError(f"{what}({inner}, {cols}): {rows} samples at once need {rows * cols:,} nodes")
    safepoint(rows * cols)
    array = TensorArray.__new__(TensorArray)
    q = begin(A_AFFINE, rows * cols, sx, sw, sb, what)
    q.dense = sb is None
    q.rows, q.cols, q.inner = <int>rows, <int>cols, <int>inner
    if sx.ndim == 2:
        sx.shape[1] = cols
    return affine_rows(q, array, sx.ndim, &sx.shape[0] if sx.ndim == 2 else &sw.shape[1], what)


cdef TensorArray affine_rows(ArrayOp *q, TensorArray array, int ndim, const Py_ssize_t *shape, str what):
    """Compute and publish a Linear that has its operands; frees it if there is no memory."""
    cdef Py_ssize_t inner = q.inner, cols = q.cols
    cdef ArrayOp *leaf
    try:
        reserve_work(3 * inner + cols + inner * cols * (q.y.kind != RUN), inner, what)
        leaf = whole_leaf(&q.y, cols)
        if leaf != NULL and leaf.f_row == NULL and not q.unrecorded:
            leaf.f_row = <int *>allocate(inner * sizeof(int))
            leaf.f_x = <double *>allocate(inner * sizeof(double))
            leaf.f_g = <double *>allocate(cols * sizeof(double))
            if leaf.f_row == NULL or leaf.f_x == NULL or leaf.f_g == NULL:
                PyMem_RawFree(leaf.f_row)
                PyMem_RawFree(leaf.f_x)
                PyMem_RawFree(leaf.f_g)
                leaf.f_row = NULL
                leaf.f_x = leaf.f_g = NULL
                out_of_memory(what, inner + cols)
    except BaseException:
        free_array_op(q)
        raise
    if q.rows == 1 or q.rows <= PORTION // (inner * cols):
        affine_forward(q, 0, q.rows, tape.value + tape.n)
        return end_array(q, array, ndim, shape)
    publish(q)
    hold(q, array, ndim, shape)
    large_affine_forward(q)
    return array


cdef int large_affine_forward(ArrayOp *q) except -1:
    """Some seconds of work, which Ctrl-C can stop: the instruction is published, so that a handler may use the tape."""
    cdef int r = 0, portion = <int>max(<Py_ssize_t>1, PORTION // (q.inner * <Py_ssize_t>q.cols))
    lock_nodes()
    try:
        while r < q.rows:
            PyErr_CheckSignals()
            affine_forward(q, r, min(q.rows, r + portion), tape.value + q.start)
            r += portion
    finally:
        unlock_nodes()
    if q.unrecorded:
        forget(q)
        tape.young_bytes -= q.bytes
        q.bytes = 0
    return 0


cdef void affine_forward(ArrayOp *q, int first, int stop, double *out) noexcept nogil:
    """Rows first..stop - 1 of a Linear whose outputs begin at `out`."""
    cdef const double *w = operand_values(&q.y, tape.work + 3 * q.inner + q.cols)
    cdef const double *b = operand_values(&q.z, tape.work + 3 * q.inner)
    cdef int r, nnz
    cdef int *row
    cdef double *x
    if q.dense:
        memset(tape.work + 3 * q.inner, 0, q.cols * sizeof(double))
    for r in range(first, stop):
        nnz = dense_input(q, r, &row, &x) if q.dense else affine_input(q, r, &row, &x)
        kernels.affine(out + <Py_ssize_t>r * q.cols, b, w, q.cols, row, x, nnz)


def squared_loss(y_hat, y):
    """Half the sum of (y_hat[i] - y[i])**2, a Tensor; its gradient by y_hat is y_hat - y.

    Of two dimensions the mean over the rows of that.  y holds numbers or Tensors; a y of shape (n,) goes with a y_hat
    of shape (n, 1).  `mse_loss` is the mean of the squares, without the half.
    Raises ValueError if the lengths differ.

    >>> import fastscalar as fs
    >>> fs.squared_loss(fs.to_tensor([1.0, 2.0]), [0.0, 4.0])
    Tensor(data=2.5)
    """
    return of_differences(A_SQUARED, y_hat, y, "squared_loss")


def mse_loss(y_hat, y):
    """The mean of (y_hat[i] - y[i])**2, a Tensor: the mean squared error, over all outputs and rows.

    y holds numbers or Tensors; a y of shape (n,) goes with a y_hat of shape (n, 1).
    Raises ValueError if the lengths differ.

    >>> import fastscalar as fs
    >>> fs.mse_loss(fs.to_tensor([1.0, 2.0]), [0.0, 4.0])
    Tensor(data=2.5)
    """
    return of_differences(A_MSE, y_hat, y, "mse_loss")


cdef Tensor of_differences(int op, object y_hat, object y, str what):
    cdef Source sx = source(y_hat, what), sy = source(y, what)
    cdef Py_ssize_t rows, cols
    cdef Tensor t
    cdef ArrayOp *q
    if sx.ndim > 2 or sx.count != sy.count or not (
            same_shape(sx, sy) or sx.ndim + sy.ndim == 1 or (sx.ndim == 2 and sx.shape[1] == 1 and sy.ndim == 1)):
        advice = which_are_meant(sx, sy, what)
        raise ValueError(f"{what}: {describe(sx)} predictions but {describe(sy)} targets{advice}")
    rows = sx.shape[0] if sx.ndim == 2 else 1
    cols = sx.count // rows
    safepoint(1)
    t = Tensor.__new__(Tensor)
    q = begin(op, 1, sx, sy, None, what)
    save(q, what)
    q.rows = <int>rows if sx.ndim == 2 else 0
    q.cols = <int>cols
    compute_array_op(q, tape.value + tape.n)
    return end_scalar(q, t)


cdef str which_are_meant(Source sx, Source sy, str what):
    """What to write instead, where only the first predictions have a target."""
    cdef Py_ssize_t n = 0
    if sx.ndim == 1 and sy.ndim < 2:
        n = sy.count
    elif sx.ndim == 2 and 0 < sy.ndim < 3 and sx.shape[0] == sy.shape[0]:
        n = sy.shape[1] if sy.ndim == 2 else 1
    if not 0 < n < sx.shape[sx.ndim - 1]:
        return ""
    return f"; if only the first {'is' if n == 1 else 'ones are'} meant: {what}(y_hat[{':, ' * (sx.ndim == 2)}:{n}], y)"


cdef str describe(Source s):
    return "1" if s.ndim == 0 else str(s.shape[0]) if s.ndim == 1 else f"{shape_of(s)}"


cdef object as_index(x):
    """Labels of several rows at once: in a program they are decisions."""
    if programs and type(x) is Tensor:
        read_number(x, "a label")
    return operator.index(x) if type(x) is TracedInt else x


cdef int label_number(object label, Py_ssize_t classes) except -1:
    cdef double v = 0.0
    if type(label) is TracedInt:
        v = (<TracedInt>label).value
    elif type(label) is Tensor:
        v = tape.value[(<Tensor>label).index]
    elif not as_number(label, &v):
        hint = "" if not hasattr(label, "__len__") or isinstance(label, (str, bytes)) else (
            "; a column of labels is y.ravel(), of rows with a 1 for the class it is y.argmax(axis=1)")
        raise TypeError(f"cross_entropy: expected a label (a whole number), got {type(label).__name__}{hint}")
    if not 0.0 <= v < classes or v != <int>v:
        if type(label) is TracedInt:
            out_of_range(label, 0, classes)
        raise ValueError(f"cross_entropy: expected a label in 0..{classes - 1}, got {label!r}")
    return <int>v


def cross_entropy(logits, label):
    """-log(softmax(logits)[label]), a Tensor; for logits of shape (n, C) and labels (n,) the mean over the rows.

    Labels are whole numbers from 0 to C - 1, or Tensors of such; they get no gradient.  Follows IEEE 754.
    Raises ValueError for a label out of range or a number of labels that does not fit.

    >>> import fastscalar as fs
    >>> fs.cross_entropy(fs.to_tensor([0.0, 0.0]), 1)
    Tensor(data=0.6931471805599453)
    """
    cdef Source s = source(logits, "cross_entropy")
    cdef Py_ssize_t rows = 1, classes, r
    cdef int one = 0, argument = 0
    cdef int *labels
    cdef Tensor t
    cdef ArrayOp *q
    if s.ndim not in (1, 2):
        raise ValueError(f"cross_entropy: expected logits of shape (C,) or (n, C), got {shape_of(s)}")
    classes = s.shape[s.ndim - 1]
    if s.ndim == 2:
        rows = s.shape[0]
        label = label.tolist() if isinstance(label, np.ndarray) else list(label)
        if len(label) != rows:
            raise ValueError(f"cross_entropy: {rows} rows of logits but {len(label)} labels")
    else:
        if isinstance(label, TensorArray) and len(label) == 1:
            label = label[0]
        one = label_number(label, classes)
        if type(label) is TracedInt and (<TracedInt>label).argument < 0:     # computed, and no decision either
            return logsumexp(logits) - gather(logits, label, one)
        if type(label) is TracedInt:
            argument = (<TracedInt>label).argument + 1
        elif programs and type(label) is Tensor:
            read_number(label, "a label")
    labels = <int *>allocate(rows * sizeof(int))
    if labels == NULL:
        out_of_memory("cross_entropy", rows)
    try:
        for r in range(rows):
            labels[r] = label_number(as_index(label[r]), classes) if s.ndim == 2 else one
        safepoint(1)
        t = Tensor.__new__(Tensor)
        q = begin(A_CROSS_ENTROPY, 1, s, None, None, "cross_entropy")
        save(q, "cross_entropy")
    except BaseException:
        PyMem_RawFree(labels)
        raise
    q.labels = labels
    q.argument = argument
    q.rows = <int>rows if s.ndim == 2 else 0
    q.cols = <int>classes
    compute_array_op(q, tape.value + tape.n)
    return end_scalar(q, t)


cdef double xent_forward(ArrayOp *q, Py_ssize_t r) noexcept nogil:
    """The loss of one row; the softmax of its logits is saved."""
    cdef Py_ssize_t first = r * q.cols
    return softmax_forward(q, first, q.cols) - value_of(&q.x, first + q.labels[r])


cdef double softmax_forward(ArrayOp *q, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    """log(sum(exp(x))) of a row of x; its softmax is saved."""
    cdef Py_ssize_t k
    cdef double *p = q.saved + first
    for k in range(count):
        p[k] = value_of(&q.x, first + k)
    return softmax_in_place(p, count)


cdef TensorArray leaf_array(Source s, str what):
    """A new array of leaves with the numbers of a Source."""
    cdef TensorArray array
    cdef ArrayOp *q
    cdef Py_ssize_t rows = s.shape[0] if s.ndim > 1 else 1
    if s.count > tape.max_nodes:
        raise MemoryError(f"the tape holds at most {tape.max_nodes:,} nodes: {s.count:,} asked for")
    safepoint(s.count)
    array = TensorArray.__new__(TensorArray)
    q = new_array_op(A_LEAF, <int>s.count)
    try:
        make_leaf(q, <int>rows)
    except BaseException:
        free_array_op(q)
        raise
    memcpy(tape.value + tape.n, s.number, s.count * sizeof(double))
    return end_leaf(q, array, s)


cdef TensorArray end_leaf(ArrayOp *q, TensorArray array, Source s):
    cdef unsigned char *touched = q.touched
    cdef TensorArray a
    q.touched = NULL                             # `end` would take it for a result under no_grad
    a = end_array(q, array, s.ndim, s.shape)
    q.touched = touched
    return a


cdef TensorArray fixed_array(Source s, str what):
    """The same, of which no element can be replaced: it may be a parameter."""
    cdef TensorArray array = leaf_array(s, what)
    array.fixed = True
    return array


def own_array(values):
    """New leaves with the numbers of an array, of which a function may replace elements in its own handle."""
    return fixed_array(source(values, "an array"), "an array")


def to_tensor(data):
    """Numbers become leaves: a number a Tensor, nested lists or an array a TensorArray of the same shape.

    Anything that has `__array__`, such as a DataFrame, is an array.  Tensors stay what they are; a list with Tensors in
    it stays a list.
    Raises ValueError for ragged or empty lists, TypeError for anything that is not a number.

    >>> import fastscalar as fs
    >>> fs.to_tensor([[1, 2, 3], [4, 5, 6]]).shape
    (2, 3)
    >>> fs.to_tensor(2)
    Tensor(data=2.0)
    """
    cdef Source s
    cdef double v = 0.0
    if isinstance(data, (Tensor, TensorArray)):
        return data
    if as_number(data, &v) or (isinstance(data, np.ndarray) and data.ndim == 0):
        return Tensor(data if not isinstance(data, np.ndarray) else data.item())
    if type(data) is TracedInt:
        return (<TracedInt>data).tensor
    if hasattr(type(data), "__next__"):
        data = list(data)                        # read twice if there are Tensors in it
    data = array_like(data)
    if isinstance(data, np.ndarray) and data.ndim == 0:
        return Tensor(data.item())
    s = source(data, "to_tensor")
    if s.number != NULL:
        return fixed_array(s, "to_tensor")
    if programs and not any_tensor(data):        # whole numbers of a program
        return map2(MUL, data, 1.0)
    return [to_tensor(x) for x in data]


cdef bint any_tensor(x) except -1:
    """In nested lists that `source` has taken: they are not deep, and not recursive."""
    if isinstance(x, (list, tuple)):
        for e in x:
            if any_tensor(e):
                return True
        return False
    return isinstance(x, (Tensor, TensorArray))


# --- in the recording of a program ----------------------------------------------------------------

cdef Tensor one_tensor(x, str what):
    """A Tensor as it is, of a number a constant."""
    cdef Source s
    if type(x) is Tensor:
        bound(x)
        return x
    s = Source.__new__(Source)
    s.tensors = []
    flatten(x, s, 0, what)
    return s.tensors[0]


def select(TracedBool condition not None, a, b):
    """a where the comparison holds, else b, without a decision: two numbers or Tensors, one Tensor."""
    cdef Source s
    cdef int *outcome
    cdef Tensor t
    cdef ArrayOp *q
    if condition.recording is None:
        raise TypeError("where: expected a comparison of a program")
    bound(condition.left)
    right = condition.number if condition.right is None else condition.right
    s = Source.__new__(Source)                   # what `source` makes of the four, without asking what they are
    s.tensors = [condition.left, one_tensor(right, "where"), one_tensor(a, "where"), one_tensor(b, "where")]
    s.count = 4
    outcome = <int *>allocate(sizeof(int))
    if outcome == NULL:
        out_of_memory("where", 1)
    try:
        safepoint(1)
        t = Tensor.__new__(Tensor)
        q = begin(A_WHERE, 1, s, None, None, "where")
    except BaseException:
        PyMem_RawFree(outcome)
        raise
    q.code = condition.op
    q.labels = outcome
    q.rows = 1
    outcome[0] = condition.outcome
    tape.value[tape.n] = value_of(&q.x, 2 if condition.outcome else 3)
    return end_scalar(q, t)


def best_of(xs, int code):
    """max, min, argmax or argmin (a BestCode) of the elements, as an instruction: without a decision.

    The first of equals, or the first NaN.  A Tensor; the places are a whole number that the program computes."""
    cdef Source s = source(xs, BEST_NAMES[code])
    cdef int *place = <int *>allocate(sizeof(int))
    cdef Py_ssize_t best
    cdef Tensor t
    cdef ArrayOp *q
    if place == NULL:
        out_of_memory(BEST_NAMES[code], 1)
    try:
        safepoint(1)
        t = Tensor.__new__(Tensor)
        q = begin(A_BEST, 1, s, None, None, BEST_NAMES[code])
    except BaseException:
        PyMem_RawFree(place)
        raise
    q.code = code
    q.labels = place
    q.inner = <int>s.count
    compute_array_op(q, tape.value + tape.n)
    best = place[0]
    end_scalar(q, t)
    return t if code <= BEST_MIN else TracedInt(best, t, -1)


cdef object gather(candidates, TracedInt index, Py_ssize_t at):
    """candidates[index], as an instruction that a replay can do for another index."""
    cdef Source s = source(candidates, "an index")
    cdef Source chooser = source([index.tensor], "an index") if index.argument < 0 else None
    cdef Py_ssize_t count = s.count // s.shape[0], k
    cdef int *where = <int *>allocate(sizeof(int))
    cdef TensorArray array
    cdef Tensor t
    cdef ArrayOp *q
    if where == NULL:
        out_of_memory("an index", 1)
    try:
        safepoint(count)
        t = Tensor.__new__(Tensor)
        array = TensorArray.__new__(TensorArray)
        q = begin(A_GATHER, count, s, chooser, None, "an index")
    except BaseException:
        PyMem_RawFree(where)
        raise
    q.labels = where
    q.rows = 1
    q.argument = index.argument + 1
    where[0] = <int>at
    for k in range(count):
        tape.value[tape.n + k] = value_of(&q.x, at * count + k)
    if s.ndim == 1:
        return end_scalar(q, t)
    return end_array(q, array, s.ndim - 1, &s.shape[1])


# --- what a TensorArray does ----------------------------------------------------------------------

cdef class ArrayOperators(Operators):

    cdef object map1(self, int code, TensorArray x):
        return map1(code, x)

    cdef object map2(self, int code, object left, object right):
        return map2(code, left, right)

    cdef object at(self, TensorArray candidates, TracedInt index, Py_ssize_t at):
        return gather(candidates, index, at)

    cdef object leaves(self, object values):
        return fixed_array(source(values, "detach"), "detach")


register(ArrayOperators(to_tensor))
