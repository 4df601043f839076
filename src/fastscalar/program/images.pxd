# cython: language_level=3, wraparound=False, cdivision=True
# cython: nonecheck=False
# Convolutions and pools of a replay, image by image.  Inline parts of `_replay`.
#
# A convolution is a product of matrices whose rows are the patches of an image.  They are copied side by side for some
# lines of the output at a time, so many that they stay in the second-level cache, and multiplied as any others are; the
# gradient of an image is collected in patches the same way.

from libc.string cimport memcpy, memset

from fastscalar._core cimport *
from fastscalar.engine.formulas cimport sent
from fastscalar.program._kernels cimport *
from fastscalar.program._replay cimport *
from fastscalar.program.plan cimport *
from fastscalar.program.runs cimport *

cdef enum:
    PATCHES = 16384         # numbers of patches at once, if that is more than a line: 64 KB of floats


cdef inline int patch_size(const Image *p) noexcept nogil:
    return p.kernel_h * p.kernel_w * p.channels


cdef inline int lines_at_once(const Image *p) noexcept nogil:
    return max(1, min(p.out_h, PATCHES // (p.out_w * patch_size(p))))


cdef inline Py_ssize_t padded_size(const Image *p) noexcept nogil:
    return <Py_ssize_t>(p.height + 2 * p.padding) * (p.width + 2 * p.padding) * p.channels + PAD


cdef inline Py_ssize_t patches_room(const Image *p, int ld) noexcept nogil:
    """How many numbers of memory a thread needs: a padded image, patches, outputs, and a patch with its places."""
    cdef Py_ssize_t pixels = <Py_ssize_t>lines_at_once(p) * p.out_w
    return padded_size(p) + pixels * (patch_size(p) + ld) + 2 * PAD + 3 * patch_size(p)


cdef inline const real *padded_image(Replay r, const Image *p, int thread, int l, real tag) noexcept nogil:
    """The image of row l, with zeros around it if the convolution wants them."""
    cdef const real *image = rows_of(r, r.run_value, p.x, l, tag) + p.first
    cdef real *to = <real *>r.patches[thread]
    cdef int y, line = p.width * p.channels, wide = (p.width + 2 * p.padding) * p.channels
    if p.padding == 0:
        return image
    memset(to, 0, padded_size(p) * sizeof(real))
    for y in range(p.height):
        memcpy(to + <Py_ssize_t>(y + p.padding) * wide + p.padding * p.channels, image + <Py_ssize_t>y * line,
               line * sizeof(real))
    return to


cdef inline void copy_patches(Replay r, const Image *p, real *to, const real *image, int y, int lines) noexcept nogil:
    """Those of some lines of the output."""
    cdef Py_ssize_t line = (p.width + 2 * p.padding) * p.channels
    r.kernels.patches(to, image + y * p.stride * line, line, p.kernel_h, p.kernel_w * p.channels, lines,
                      p.stride * line, p.out_w, p.stride * p.channels)


cdef inline const real *whole_vectors(const real *g, real *room, Py_ssize_t pixels, int cols, int ld) noexcept nogil:
    """Gradients of some pixels with a length that the kernels take."""
    cdef Py_ssize_t k
    if ld == cols:
        return g
    for k in range(pixels):
        memset(room + k * ld, 0, ld * sizeof(real))
        memcpy(room + k * ld, g + k * cols, cols * sizeof(real))
    return room


cdef inline void conv_forward(Replay r, const Instr *q, int thread, int first_row, int n_rows,
                              real tag) noexcept nogil:
    cdef const Image *p = &r.plan.body.images[q.extra]
    cdef const Matrix *m = &r.plan.body.matrices[p.matrix]
    cdef const real *w = <real *>r.uniform + m.base
    cdef const real *bias = <real *>r.uniform + r.plan.body.matrices[p.bias].base if p.bias >= 0 else NULL
    cdef real *patches = <real *>r.patches[thread] + padded_size(p)
    cdef int size = patch_size(p), some = lines_at_once(p), l, y, lines, part
    cdef real *room = patches + <Py_ssize_t>some * p.out_w * size + PAD
    cdef Py_ssize_t k, pixels
    cdef const real *image
    cdef real *out
    for l in range(first_row, first_row + n_rows):
        image = padded_image(r, p, thread, l, tag)
        out = rows_of(r, r.run_value, q.run, l, tag)
        if r.watch and r.kernels.beyond(rows_of(r, r.run_value, p.x, l, tag) + p.first,
                                        <Py_ssize_t>p.height * p.width * p.channels):
            r.status[l] |= ORDER_MATTERS
        if p.exact and r.float64:
            exact_convolution(r, p, <double *>patches, <double *>room, <const double *>image, <double *>out)
            continue
        for part in range((p.out_h + some - 1) // some):
            y = part * some
            lines = min(some, p.out_h - y)
            pixels = <Py_ssize_t>lines * p.out_w
            copy_patches(r, p, patches, image, y, lines)
            if m.ld == 1:
                for k in range(pixels):
                    out[k] = <real>(r.kernels.dot(patches + k * size, w, size)) + (bias[0] if bias != NULL else 0)
            elif m.ld == m.cols:
                r.kernels.dense_affine(out, m.ld, bias, w, m.ld, m.ld, <int>pixels, patches, size, size, 0)
            else:
                r.kernels.dense_affine(room, m.ld, bias, w, m.ld, m.ld, <int>pixels, patches, size, size, 0)
                for k in range(pixels):
                    memcpy(out + k * m.cols, room + k * m.ld, m.cols * sizeof(real))
            out += pixels * m.cols
        out = rows_of(r, r.run_value, q.run, l, tag)
        if r.kernels.not_finite(out, q.n):
            skipping_convolution(r, p, image, out, tag)


cdef inline void exact_convolution(Replay r, const Image *p, double *patch, double *room, const double *image,
                                   double *out) noexcept nogil:
    """As the engine does it, by its own kernel."""
    cdef const Matrix *m = &r.plan.body.matrices[p.matrix]
    cdef const double *w = <double *>r.uniform + m.base
    cdef const double *b = <double *>r.uniform + r.plan.body.matrices[p.bias].base if p.bias >= 0 else r.zeros
    cdef int *row = <int *>(room + m.ld + PAD)
    cdef int y, x, i, k, count, span = p.kernel_w * p.channels
    cdef Py_ssize_t line = (p.width + 2 * p.padding) * p.channels
    cdef const double *from_
    for y in range(p.out_h):
        for x in range(p.out_w):
            count = 0
            for i in range(p.kernel_h):
                from_ = image + (<Py_ssize_t>y * p.stride + i) * line + x * p.stride * p.channels
                for k in range(span):
                    if from_[k] != 0.0:          # NaN counts
                        row[count], patch[count] = i * span + k, from_[k]
                        count += 1
            kernels.affine(room, b, w, m.ld, row, patch, count)
            memcpy(out + (<Py_ssize_t>y * p.out_w + x) * m.cols, room, m.cols * sizeof(double))


cdef inline void skipping_convolution(Replay r, const Image *p, const real *image, real *out, real tag) noexcept nogil:
    """Its result is not finite: inputs of exactly zero count as nothing, whatever their weights are."""
    cdef const Matrix *m = &r.plan.body.matrices[p.matrix]
    cdef const real *w = <real *>r.uniform + m.base
    cdef Py_ssize_t line = (p.width + 2 * p.padding) * p.channels, pixel, j
    cdef int i, k, o, span = p.kernel_w * p.channels
    cdef const real *from_
    cdef real *to
    for pixel in range(<Py_ssize_t>p.out_h * p.out_w):
        to = out + pixel * m.cols
        for o in range(m.cols):
            to[o] = (<real *>r.uniform + r.plan.body.matrices[p.bias].base)[o] if p.bias >= 0 else 0
        for i in range(p.kernel_h):
            from_ = image + (pixel // p.out_w * p.stride + i) * line + pixel % p.out_w * p.stride * p.channels
            for k in range(span):
                j = i * span + k
                if from_[k] != 0:
                    for o in range(m.cols):
                        to[o] += from_[k] * w[j * m.ld + o]


cdef inline void conv_backward(Replay r, const Instr *q, int thread, int first_row, int n_rows, bint masked,
                               real tag) noexcept nogil:
    """To the images; the weights' gradients wait for all rows of the batch."""
    cdef const Image *p = &r.plan.body.images[q.extra]
    cdef const Matrix *m = &r.plan.body.matrices[p.matrix]
    cdef const real *w = <real *>r.uniform + m.base
    cdef real *padded = <real *>r.patches[thread]
    cdef real *patches = padded + padded_size(p)
    cdef int size = patch_size(p), some = lines_at_once(p), l, y, lines, part
    cdef real *room = patches + <Py_ssize_t>some * p.out_w * size + PAD
    cdef Py_ssize_t pixels, k, line = (p.width + 2 * p.padding) * p.channels
    cdef const real *g
    cdef real *dx
    cdef real *to
    for l in range(first_row, first_row + n_rows):
        g = rows_of(r, r.run_adjoint, q.run, l, tag)
        dx = rows_of(r, r.run_adjoint, p.x, l, tag) + p.first
        to = dx
        if p.padding:
            to = padded
            memset(to, 0, padded_size(p) * sizeof(real))
        for part in range((p.out_h + some - 1) // some):
            y = part * some
            lines = min(some, p.out_h - y)
            pixels = <Py_ssize_t>lines * p.out_w
            memset(patches, 0, pixels * size * sizeof(real))
            if masked:
                masked_patches(p, m, w, patches, g, pixels, tag)
            elif m.ld == 1:
                for k in range(pixels):
                    r.kernels.add_scaled(patches + k * size, g[k], w, size)
            else:
                r.kernels.input_gradient(patches, size, w, m.ld, m.ld, size, <int>pixels,
                                         whole_vectors(g, room, pixels, m.cols, m.ld), m.ld, 0)
            r.kernels.add_patches(to + y * p.stride * line, patches, line, p.kernel_h, p.kernel_w * p.channels, lines,
                                  p.stride * line, p.out_w, p.stride * p.channels)
            g += pixels * m.cols
        if p.padding:
            for y in range(p.height):
                r.kernels.add(dx + <Py_ssize_t>y * p.width * p.channels,
                              padded + <Py_ssize_t>(y + p.padding) * line + p.padding * p.channels,
                              p.width * p.channels)


cdef inline void masked_patches(const Image *p, const Matrix *m, const real *w, real *patches, const real *g,
                                Py_ssize_t pixels, real tag) noexcept nogil:
    """Zero sends zero, and nothing passes a weight of zero."""
    cdef int size = patch_size(p), j, o
    cdef Py_ssize_t k
    for k in range(pixels):
        for o in range(m.cols):
            if g[k * m.cols + o] != 0:
                for j in range(size):
                    patches[k * size + j] += <real>sent(g[k * m.cols + o], w[<Py_ssize_t>j * m.ld + o])


cdef inline void conv_weights(Replay r, int thread, int share, const Instr *q, int n, real tag) noexcept nogil:
    """A share of the rows or columns of the weights' gradient, over all rows of a batch in their order."""
    cdef const Image *p = &r.plan.body.images[q.extra]
    cdef const Matrix *m = &r.plan.body.matrices[p.matrix]
    cdef real *target = <real *>r.uniform_adjoint + m.base
    cdef real *bias = NULL
    cdef real *patches = <real *>r.patches[thread] + padded_size(p)
    cdef int size = patch_size(p), some = lines_at_once(p), which = r.mode & (PARAMETERS | ARGUMENTS), l, y, lines, part
    cdef real *room = patches + <Py_ssize_t>some * p.out_w * size + PAD
    cdef int parts = m.ld // PAD, first = 0, stop = m.ld, row0 = 0, row1 = size
    cdef Py_ssize_t k, pixels
    cdef const real *image
    cdef const real *g
    cdef const real *whole
    cdef bint finite
    if p.bias >= 0 and share == r.shares - 1 and r.plan.body.matrices[p.bias].mask & which:
        bias = <real *>r.uniform_adjoint + r.plan.body.matrices[p.bias].base
    if parts >= r.shares:
        first, stop = parts * share // r.shares * PAD, parts * (share + 1) // r.shares * PAD
    else:
        row0, row1 = size * share // r.shares, size * (share + 1) // r.shares
    for l in range(n):
        image = padded_image(r, p, thread, l, tag)
        g = rows_of(r, r.run_adjoint, q.run, l, tag)
        finite = not r.kernels.not_finite(g, q.n) and not r.kernels.not_finite(
            rows_of(r, r.run_value, p.x, l, tag) + p.first, <Py_ssize_t>p.height * p.width * p.channels)
        for part in range((p.out_h + some - 1) // some):
            y = part * some
            lines = min(some, p.out_h - y)
            pixels = <Py_ssize_t>lines * p.out_w
            whole = whole_vectors(g, room, pixels, m.cols, m.ld)
            if bias != NULL:
                for k in range(pixels if m.ld == 1 else 0):
                    bias[0] += g[k]
                if m.ld > 1:
                    r.kernels.add_rows(bias, whole, m.ld, m.ld, <int>pixels)
            g += pixels * m.cols
            if not m.mask & which:
                continue
            copy_patches(r, p, patches, image, y, lines)
            if not finite:
                masked_update(m, target, patches, whole, pixels, size, row0, row1, first, min(stop, m.cols), tag)
            elif m.ld == 1:
                for k in range(pixels):
                    r.kernels.add_scaled(target + row0, whole[k], patches + k * size + row0, row1 - row0)
            else:
                r.kernels.dense_update(target + <Py_ssize_t>row0 * m.ld + first, m.ld, 1.0, 1.0, stop - first,
                                       <int>pixels, patches + row0, size, row1 - row0, whole + first, m.ld)


cdef inline void masked_update(const Matrix *m, real *target, const real *patches, const real *g, Py_ssize_t pixels,
                               int size, int row0, int row1, int first, int stop, real tag) noexcept nogil:
    cdef Py_ssize_t k, j
    cdef int o
    cdef real x
    for k in range(pixels):
        for j in range(row0, row1):
            x = patches[k * size + j]
            if x != 0:
                for o in range(first, stop):
                    if g[k * m.ld + o] != 0:
                        target[j * m.ld + o] += x * g[k * m.ld + o]


cdef inline void pool_forward(Replay r, const Instr *q, int first_row, int n_rows, real tag) noexcept nogil:
    cdef const Image *p = &r.plan.body.images[q.extra]
    cdef int l
    for l in range(first_row, first_row + n_rows):
        r.kernels.max_pool(rows_of(r, r.run_value, q.run, l, tag), rows_of(r, r.run_value, p.saved, l, tag),
                           rows_of(r, r.run_value, p.x, l, tag) + p.first, p.width * p.channels, p.channels,
                           p.kernel_h, p.kernel_w, p.stride, p.out_h, p.out_w)


cdef inline void pool_backward(Replay r, const Instr *q, int first_row, int n_rows, real tag) noexcept nogil:
    cdef const Image *p = &r.plan.body.images[q.extra]
    cdef int l
    for l in range(first_row, first_row + n_rows):
        r.kernels.add_pool(rows_of(r, r.run_adjoint, p.x, l, tag) + p.first, rows_of(r, r.run_value, p.saved, l, tag),
                           rows_of(r, r.run_adjoint, q.run, l, tag), p.width * p.channels, p.channels, p.kernel_w,
                           p.stride, p.out_h, p.out_w)
