# What the graph of a program is made of.  Private, not an API.

from fastscalar._core cimport Operand

cdef enum:
    G_CONSTANT = 1          # operations of a Graph beside those of the table
    G_PARAMETER = -1
    G_INPUT = -2
    G_ITEM = -3
    G_COPY = -4
    G_BLOCK = -5
    IEEE = 0x100            # added to an operation of the table: it does not raise
    GUARD_SAME = 6          # guards beside the six comparisons
    GUARD_TRUNC = 7
    GUARD_FLOOR = 8
    GUARD_CEIL = 9

cdef bint compare_numbers(int op, double x, double y) noexcept nogil
cdef double truncated(int op, double v)
cdef void see(int p) noexcept nogil
cdef void see_operand(Operand *o) noexcept nogil
