# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False
"""Convolutions and pools of images, one instruction each; and arrays of another shape.

A convolution is a Linear whose rows are the patches of an image: an input may be in many of them.  It is the same
instruction, with `geometry` beside it, so that values, gradients and all that looks at a graph are those of a Linear.
The safepoint rule of `_core` holds: convert first, then `safepoint`, then indices and pointers until `publish`.
"""

from libc.string cimport memset

from fastscalar._core cimport *
from fastscalar.engine.memory cimport allocate, out_of_memory
from fastscalar.engine.array_ops cimport free_array_op, free_operand, node_of
from fastscalar.engine._array cimport MAX_DIMS, TensorArray, element_count, is_contiguous, view_of
from fastscalar.engine._array_ops cimport affine_rows, begin, end_array
from fastscalar.engine._operands cimport Source, resolve, shape_of, source

import numpy as np

from fastscalar.engine._array_ops import affine, elementwise, to_tensor
from fastscalar.engine.patches import Geometry, patches_of, windows_of


cdef object geometry_of(shape, tuple kernel, int stride, int padding, int channels, str what):
    """The geometry of each image, and how many images there are: 0, one without a dimension for them."""
    shape = tuple(shape)
    if len(shape) == 2 and channels <= 1:
        shape = (*shape, 1)
    elif len(shape) == 3 and channels == 1 and shape[2] != 1:
        shape = (*shape, 1)
    if len(shape) not in (3, 4) or (channels and shape[len(shape) - 1] != channels):
        wanted = f"(height, width, {channels})" if channels else "(height, width, channels)"
        raise ValueError(f"{what}: expected images of shape {wanted}, or several, got shape {shape}")
    g = Geometry(*shape[len(shape) - 3:], *kernel, stride, padding)
    if min(g.out_shape) < 1:
        raise ValueError(f"{what}: the kernel {kernel} is larger than the images, of shape {shape[len(shape) - 3:]}")
    return g, shape[0] if len(shape) == 4 else 0


cdef int take(ArrayOp *q, Source x, Tensor zero, const int[:, ::1] places, Py_ssize_t images, Py_ssize_t pixels,
              str what) except -1:
    """The operand x of an instruction: of each image the elements at these places, of the padding `zero`."""
    cdef Operand image
    cdef Py_ssize_t r, j, n, k = 0
    memset(&image, 0, sizeof(Operand))
    resolve(x, &image, what)
    q.x.count = <int>(images * places.shape[0] * places.shape[1])
    q.x.index = <int *>allocate(q.x.count * sizeof(int))
    if q.x.index == NULL:
        free_operand(&image)
        out_of_memory(what, q.x.count)
    q.x.kind = INDEX
    for n in range(images):
        for r in range(places.shape[0]):
            for j in range(places.shape[1]):
                if places[r, j] < 0:
                    q.x.index[k] = zero.index
                elif image.kind == RUN:
                    q.x.index[k] = <int>(image.start + n * pixels + places[r, j])
                else:
                    q.x.index[k] = node_of(&image, n * pixels + places[r, j])
                k += 1
    free_operand(&image)
    return 0


cdef int note_geometry(ArrayOp *q, g, str what) except -1:
    cdef int k
    q.geometry = <int *>allocate(7 * sizeof(int))
    if q.geometry == NULL:
        out_of_memory(what, 1)
    for k in range(7):
        q.geometry[k] = g[k]
    return 0


cdef int check_room(Py_ssize_t count, str what) except -1:
    if count > 0x7fffffff:
        raise MemoryError(f"{what}: so many images at once need {count:,} operands")
    return 0


def conv2d(x, w, b, *, int stride=1, int padding=0):
    """A convolution: out[y][x][o] = b[o] + sum of image[y s + i - p][x s + j - p][c] * w[i][j][c][o].

    x: an image of shape (height, width, channels), (height, width) if there is one channel, or n of them; numbers are
    constants, Tensors get gradients.  w: (kernel_h, kernel_w, channels, outputs), b: (outputs,).  stride s, and p rows
    and columns of zeros as `padding` on each side.
    Gives a TensorArray of shape (out_h, out_w, outputs), or n of these.  Inputs of exactly zero are skipped, as in a
    Linear.  ValueError if shapes do not fit.
    """
    cdef Source sw = source(w, "Conv2d: weights"), sb = source(b, "Conv2d: bias"), sx
    cdef Py_ssize_t images, inner, cols, rows
    cdef Py_ssize_t[4] shape
    cdef ArrayOp *q
    cdef TensorArray array
    cdef Tensor zero = None
    if sw.ndim != 4 or sb.ndim != 1 or sb.shape[0] != sw.shape[3]:
        raise ValueError(f"Conv2d: weights of shape {shape_of(sw)} and bias of shape {shape_of(sb)} do not go together")
    if stride < 1 or padding < 0:
        raise ValueError(f"Conv2d: expected a stride of at least 1 and a padding from 0 on, got {stride}, {padding}")
    if isinstance(x, np.ndarray) and x.dtype.kind in "iub":
        raise ValueError(f"Conv2d: got an array of {x.dtype}; images need scaling to 0..1 first: X / 255; "
                         "pixels as they are: X.astype(float)")
    sx = source(x, "Conv2d")
    g, many = geometry_of(shape_of(sx), (sw.shape[0], sw.shape[1]), stride, padding, <int>sw.shape[2], "Conv2d")
    images, inner, cols = many or 1, sw.shape[0] * sw.shape[1] * sw.shape[2], sw.shape[3]
    rows = images * g.out_shape[0] * g.out_shape[1]
    check_room(rows * max(inner, cols), "Conv2d")
    shape[0], shape[1], shape[2], shape[3] = images, g.out_shape[0], g.out_shape[1], cols
    if sx.number != NULL:                        # constants: rows of numbers, of which a Linear takes those not zero
        flat = np.zeros((images, g.pixels + 1))
        flat[:, :g.pixels] = np.asarray(x, dtype=np.float64).reshape(images, g.pixels)
        out = affine(flat[:, patches_of(g)].reshape(rows, inner), reshaped(w, (inner, cols)), b)
        return reshaped(out, [shape[k] for k in range(0 if many else 1, 4)])
    places = patches_of(g)
    if padding:
        zero = result(CONST, 0, 0, 0.0)
    safepoint(rows * cols)
    array = TensorArray.__new__(TensorArray)
    q = begin(A_AFFINE, rows * cols, None, sw, sb, "Conv2d")
    try:
        take(q, sx, zero, places, images, g.pixels, "Conv2d")
        note_geometry(q, g, "Conv2d")
        q.rows, q.cols, q.inner = <int>rows, <int>cols, <int>inner
    except BaseException:
        free_array_op(q)
        raise
    return affine_rows(q, array, 4 if many else 3, &shape[0 if many else 1], "Conv2d")


def max_pool2d(x, kernel, *, int stride=0):
    """The greatest number in each window of an image, channel by channel; of equal ones the first; NaN if one is.

    x: as of `conv2d`, Tensors; kernel: (height, width) of a window; stride: from one to the next, 0: that is the
    height.  A window that does not fit is left out.  Gives (out_h, out_w, channels), or n of these.
    """
    cdef Source sx = source(x, "MaxPool2d")
    cdef Py_ssize_t images, count, k, j
    cdef Py_ssize_t[4] shape
    cdef ArrayOp *q
    cdef TensorArray array
    cdef int best, size
    cdef double v, w
    g, many = geometry_of(shape_of(sx), tuple(kernel), stride or kernel[0], 0, 0, "MaxPool2d")
    images = many or 1
    shape[0], shape[1], shape[2], shape[3] = images, g.out_shape[0], g.out_shape[1], g.channels
    places = windows_of(g)
    size = places.shape[1]
    count = images * places.shape[0]
    check_room(count * size, "MaxPool2d")
    if sx.number != NULL:
        sx = source(to_tensor(np.asarray(x, dtype=np.float64)), "MaxPool2d")
    safepoint(count)
    array = TensorArray.__new__(TensorArray)
    q = begin(A_BEST, count, None, None, None, "MaxPool2d")
    try:
        take(q, sx, None, places, images, g.pixels, "MaxPool2d")
        note_geometry(q, g, "MaxPool2d")
        q.labels = <int *>allocate(count * sizeof(int))
        if q.labels == NULL:
            out_of_memory("MaxPool2d", count)
    except BaseException:
        free_array_op(q)
        raise
    q.code, q.rows, q.inner = BEST_MAX, 1, size
    for k in range(count):
        best = 0
        v = tape.value[q.x.index[k * size]]
        for j in range(1, size):
            w = tape.value[q.x.index[k * size + j]]
            if w > v or (w != w and v == v):
                best, v = <int>j, w
        q.labels[k] = best
        tape.value[tape.n + k] = v
    return end_array(q, array, 4 if many else 3, &shape[0 if many else 1])


def reshaped(x, shape):
    """The elements of an array in row-major order as one of another shape: no copy if they lie so, else one.

    ValueError if the numbers of elements differ."""
    cdef TensorArray a
    cdef Py_ssize_t[MAX_DIMS] sizes
    cdef Py_ssize_t[MAX_DIMS] strides
    cdef Py_ssize_t stride = 1
    cdef int d, ndim = <int>len(shape)
    if type(x) is not TensorArray:
        x = to_tensor(x)
    if type(x) is not TensorArray:
        x = elementwise("*", x, 1.0)             # Tensors in lists lie anywhere
    a = x if is_contiguous(x) else x * 1.0
    for d in range(min(ndim, MAX_DIMS) - 1, -1, -1):
        sizes[d], strides[d] = shape[d], stride
        stride *= sizes[d]
    if ndim > MAX_DIMS or stride != element_count(a):
        raise ValueError(f"an array of shape {a.shape} cannot have the shape {tuple(shape)}")
    return view_of(a, a.offset, ndim, sizes, strides)
