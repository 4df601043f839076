# A plan while it is written and when it is done: the arrays that `plan.pxd` describes.  Private, not an API.

from fastscalar.engine._random cimport Draw
from fastscalar.program.plan cimport *


cdef class Plan:
    cdef public int n_slots, n_adjoints, n_uniform, n_ports, n_runs
    cdef Instr *uniform
    cdef Instr *per_row
    cdef Term *terms
    cdef Sum *sums
    cdef Matrix *matrices
    cdef Product *products
    cdef Item *items
    cdef Image *images
    cdef Run *runs
    cdef Guard *guards
    cdef Draw *draws
    cdef Py_ssize_t n_draws
    cdef Py_ssize_t n_uniform_instr, n_per_row, n_terms, n_sums, n_matrices, n_products, n_items, n_images, n_guards
    cdef Py_ssize_t[12] room
    cdef public list keep            # arrays that pointers refer to
    cdef public list tables          # addresses of copied matrices
    cdef public object constant_at, constant_value     # addresses and values of numbers
    cdef public object adjoint, birth_of, births         # as in the Body
    cdef public object results       # (kind, slot or address) of each
    cdef public object port_address  # address that each port belongs to
    cdef public list captures        # handles, as in the Graph
    cdef public object capture_of, offset_of, address_of, count_of   # of captured numbers: capture, place in it,
    #                                address, and how many from there on
    cdef public object trained       # uint8 by address: a captured leaf that is to get a gradient
    cdef public list inputs          # kinds
    cdef public object input_run     # by input: the run of an array, -1
    cdef public object input_address  # by input: the address of a shared number, -1
    cdef public list callees         # what instructions call
    cdef public bint plain           # in the order of the function: see `_lower`
    cdef public str summary
    cdef public int operations

    cdef Body body                   # `seal` sets it
    cdef list sealed                 # arrays that it points to
    cdef int seal(self) except -1

    cdef Py_ssize_t add_instr(self, Instr *q, bint per_row) except -1
    cdef Py_ssize_t add_term(self, Term *q) except -1
    cdef Py_ssize_t add_sum(self, Sum *q) except -1
    cdef Py_ssize_t add_matrix(self, Matrix *q) except -1
    cdef Py_ssize_t add_product(self, Product *q) except -1
    cdef Py_ssize_t add_item(self, Item *q) except -1
    cdef Py_ssize_t add_image(self, Image *q) except -1
    cdef Py_ssize_t add_guard(self, Guard *q) except -1
    cdef Py_ssize_t add_draw(self, Draw *q) except -1
    cdef int add_run(self, int n, int mask, bint padded) except -1
