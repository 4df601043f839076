# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False
"""Plans: instructions with places, which `_lower` writes one by one and `_replay` runs.

The boundary: knows neither graphs nor rows; `plan.pxd` says what is in one.
"""

from cpython.mem cimport PyMem_RawFree

from fastscalar.engine.checked cimport CHECKED, require_whole
from fastscalar.engine.memory cimport allocate, out_of_memory
from fastscalar.program._graph cimport room_for
from fastscalar.program.checked cimport broken_plan
from fastscalar.program.plan cimport *

import numpy as np


cdef class Plan:
    """What `lower` made of a Graph."""

    def __cinit__(self):
        self.keep, self.tables, self.port_address, self.callees = [], [], [], []

    def __dealloc__(self):
        PyMem_RawFree(self.uniform)
        PyMem_RawFree(self.per_row)
        PyMem_RawFree(self.terms)
        PyMem_RawFree(self.sums)
        PyMem_RawFree(self.matrices)
        PyMem_RawFree(self.products)
        PyMem_RawFree(self.items)
        PyMem_RawFree(self.images)
        PyMem_RawFree(self.runs)
        PyMem_RawFree(self.guards)
        PyMem_RawFree(self.draws)
        PyMem_RawFree(self.body.table_of)

    cdef int seal(self) except -1:
        """The plan is written: point to its arrays."""
        cdef const int[::1] view
        cdef Py_ssize_t k
        self.sealed = [np.append(np.asarray(self.port_address, np.int32), np.int32(0)),
                       np.array([*self.input_run, -1], np.int32)]
        cdef Body *p = &self.body
        view = self.sealed[0]
        p.ports = &view[0]
        view = self.sealed[1]
        p.run_of_input = &view[0]
        p.table_of = <const int **>allocate((len(self.tables) + 1) * sizeof(int *))
        if p.table_of == NULL:
            out_of_memory("a program", len(self.tables))
        for k in range(len(self.tables)):
            view = self.tables[k]
            p.table_of[k] = &view[0]
        p.uniform, p.per_row, p.terms, p.sums = self.uniform, self.per_row, self.terms, self.sums
        p.matrices, p.products, p.items, p.runs = self.matrices, self.products, self.items, self.runs
        p.images = self.images
        p.guards, p.n_guards, p.n_matrices = self.guards, self.n_guards, self.n_matrices
        p.n_uniform_instr, p.n_per_row, p.n_slots, p.n_uniform = (
            self.n_uniform_instr, self.n_per_row, self.n_slots, self.n_uniform)
        cdef const int[::1] adjoint = self.adjoint, birth_of = self.birth_of
        cdef const int[:, ::1] births = self.births
        p.adjoint, p.birth_of, p.births = &adjoint[0], &birth_of[0], <const Birth *>&births[0, 0]
        p.n_adjoints = self.n_adjoints
        cdef const int[:, ::1] results = self.results
        p.n_ports, p.n_runs, p.n_results = self.n_ports, self.n_runs, <int>results.shape[0]
        p.results = <const Result *>&results[0, 0]
        if CHECKED:
            require_whole(broken_plan(self))
        return 0

    cdef Py_ssize_t add_instr(self, Instr *q, bint per_row) except -1:
        if per_row:
            (<Instr *>room_for(<void **>&self.per_row, &self.room[0], self.n_per_row, sizeof(Instr)))[0] = q[0]
            self.n_per_row += 1
        else:
            (<Instr *>room_for(<void **>&self.uniform, &self.room[1], self.n_uniform_instr, sizeof(Instr)))[0] = q[0]
            self.n_uniform_instr += 1
        return 0

    cdef Py_ssize_t add_term(self, Term *q) except -1:
        (<Term *>room_for(<void **>&self.terms, &self.room[2], self.n_terms, sizeof(Term)))[0] = q[0]
        self.n_terms += 1
        return self.n_terms - 1

    cdef Py_ssize_t add_sum(self, Sum *q) except -1:
        (<Sum *>room_for(<void **>&self.sums, &self.room[3], self.n_sums, sizeof(Sum)))[0] = q[0]
        self.n_sums += 1
        return self.n_sums - 1

    cdef Py_ssize_t add_matrix(self, Matrix *q) except -1:
        (<Matrix *>room_for(<void **>&self.matrices, &self.room[4], self.n_matrices, sizeof(Matrix)))[0] = q[0]
        self.n_matrices += 1
        return self.n_matrices - 1

    cdef Py_ssize_t add_product(self, Product *q) except -1:
        (<Product *>room_for(<void **>&self.products, &self.room[5], self.n_products, sizeof(Product)))[0] = q[0]
        self.n_products += 1
        return self.n_products - 1

    cdef Py_ssize_t add_item(self, Item *q) except -1:
        (<Item *>room_for(<void **>&self.items, &self.room[6], self.n_items, sizeof(Item)))[0] = q[0]
        self.n_items += 1
        return self.n_items - 1

    cdef Py_ssize_t add_image(self, Image *q) except -1:
        (<Image *>room_for(<void **>&self.images, &self.room[11], self.n_images, sizeof(Image)))[0] = q[0]
        self.n_images += 1
        return self.n_images - 1

    cdef Py_ssize_t add_guard(self, Guard *q) except -1:
        (<Guard *>room_for(<void **>&self.guards, &self.room[7], self.n_guards, sizeof(Guard)))[0] = q[0]
        self.n_guards += 1
        return self.n_guards - 1

    cdef Py_ssize_t add_draw(self, Draw *q) except -1:
        (<Draw *>room_for(<void **>&self.draws, &self.room[9], self.n_draws, sizeof(Draw)))[0] = q[0]
        self.n_draws += 1
        return self.n_draws - 1

    cdef int add_run(self, int n, int mask, bint padded) except -1:
        cdef Run r
        r.n, r.mask = n, <unsigned char>mask
        r.ld = (n + PAD - 1) // PAD * PAD if padded else n
        r.base = 0
        if self.n_runs:
            r.base = self.runs[self.n_runs - 1].base + (self.runs[self.n_runs - 1].ld + PAD - 1) // PAD * PAD
        (<Run *>room_for(<void **>&self.runs, &self.room[8], self.n_runs, sizeof(Run)))[0] = r
        self.n_runs += 1
        return self.n_runs - 1

    @property
    def guarded(self):
        """Whether there are rows that it may not hold for."""
        return self.n_guards > 0
