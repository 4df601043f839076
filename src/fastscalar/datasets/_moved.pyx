# cython: language_level=3, wraparound=False, cdivision=True
"""Images shifted, turned and scaled: what `augment` does to each pixel.

The boundary: whole arrays of images in and out, without the GIL; which amounts is the business of `augment`.
"""

from libc.math cimport cos, rint, sin
from libc.stdlib cimport free, malloc
from libc.string cimport memset

ctypedef unsigned char byte

ctypedef fused pixel:
    double
    float
    byte


def move(const pixel[:, :, ::1] images, pixel[:, :, ::1] out, const double[:, ::1] amounts):
    """out: each image moved by its row of amounts: the shifts along y and x, the angle, how much larger it becomes.

    Pixels between others are interpolated linearly; what comes in from outside is 0."""
    cdef Py_ssize_t n = images.shape[0], k
    cdef int height = <int>images.shape[1], width = <int>images.shape[2]
    cdef float *padded = <float *>malloc(<size_t>(height + 2) * (width + 2) * sizeof(float))
    if padded == NULL:
        raise MemoryError
    with nogil:
        memset(padded, 0, <size_t>(height + 2) * (width + 2) * sizeof(float))
        for k in range(n):
            move_one(&images[k, 0, 0], &out[k, 0, 0], height, width, padded, amounts[k, 0], amounts[k, 1],
                     amounts[k, 2], amounts[k, 3])
    free(padded)


cdef void move_one(const pixel *image, pixel *out, int height, int width, float *padded, double down, double across,
                   double angle, double larger) noexcept nogil:
    """padded: room for the image with a border of a pixel, which is 0."""
    cdef int line = width + 2, i, j, top, left
    cdef double turn_y = cos(angle) / (1.0 + larger), turn_x = sin(angle) / (1.0 + larger), x0, y0, at_y, at_x
    cdef float part_y, part_x, upper, lower
    cdef const float *p
    for i in range(height):
        for j in range(width):
            padded[(i + 1) * line + j + 1] = <float>image[i * width + j]
    for i in range(height):
        y0, x0 = i - 0.5 * (height - 1) - down, -0.5 * (width - 1) - across
        at_y = turn_y * y0 - turn_x * x0 + 0.5 * (height - 1) + 1.0
        at_x = turn_x * y0 + turn_y * x0 + 0.5 * (width - 1) + 1.0
        for j in range(width):
            if not (0.0 <= at_y < height + 1 and 0.0 <= at_x < width + 1):
                out[i * width + j] = 0
            else:
                top, left = <int>at_y, <int>at_x
                part_y, part_x = <float>(at_y - top), <float>(at_x - left)
                p = padded + top * line + left
                upper = p[0] + part_x * (p[1] - p[0])
                lower = p[line] + part_x * (p[line + 1] - p[line])
                upper += part_y * (lower - upper)
                if pixel is byte:
                    out[i * width + j] = <byte>rint(upper)
                else:
                    out[i * width + j] = upper
            at_y -= turn_x
            at_x += turn_y
