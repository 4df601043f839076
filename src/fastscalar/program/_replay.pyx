# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: nonecheck=False, auto_pickle=False
"""Running a plan over the rows of a data set: many rows at once, forwards and backwards, without the GIL.

The boundary: reads Plans (`_replay.pxd` says what is in one); of the tape it knows how to copy captured leaves in and
out.  The arithmetic is in `kernels/lanes.c`.

Contract
1. A Replay owns a private block of memory: uniform numbers (`U`, the captured leaves first of all) and their gradients
   (`UA`), runs of rows (`RV`, `RA`) for a batch, slots (`V`, `A`) for a chunk of each thread.
2. `load` copies captured leaves in, with the GIL; the runs below hold no GIL and touch nothing outside; `commit` and
   `commit_gradients` copy out, with the GIL, all or nothing.
3. A batch is cut into chunks of a fixed number of lanes.  Whoever is free takes the next chunk; what they add up is
   added in the order of the chunks (ports) or, for a share of the weights, by one thread over all lanes: the result
   does not depend on how many threads there are, nor on which did what.

A batch:  uniform part | chunks: forward, backward | weights, in shares | uniform part backward, step
One thread goes through it; chunks and shares are what helpers of the pool (`kernels/pool.h`) may take.  If squares of
whole matrices are summed (an L2 term), the uniform part goes backward before the weights: see `decay`.  Weights of
sparse rows are shared out by columns of the input, so many that each share has as many entries; who has a share turns
these (one thread for all: 0.35 us a sample in which others wait).
"""

cimport cython
from cpython.mem cimport PyMem_RawFree
from libc.math cimport isfinite, signbit
from libc.string cimport memcpy, memset

from fastscalar.engine._array cimport *
from fastscalar._core cimport *
from fastscalar.program._graph cimport (GUARD_CEIL, GUARD_FLOOR, GUARD_SAME, GUARD_TRUNC, compare_numbers, room_for)

import os

import numpy as np

from fastscalar.engine._array import storage_of

from fastscalar.engine._array import offsets_of, storage_of

cdef extern from "lanes.h":
    enum:
        FS_VECTORS
        FS_A_IS_ONE
        FS_B_IS_ONE
        FS_MUL
    ctypedef struct fs_lanes:
        const char *name
        int width
        void (*load_rows)(void *, Py_ssize_t, const double *const *, int, int) noexcept nogil
        int (*compress)(int *, void *, const double *, int) noexcept nogil
        void (*sparse_affine)(void *, Py_ssize_t, const void *, const void *, Py_ssize_t, int, int,
                              const int *const *, const void *const *, const int *) noexcept nogil
        void (*dense_affine)(void *, Py_ssize_t, const void *, const void *, Py_ssize_t, int, int,
                             const void *, Py_ssize_t, int) noexcept nogil
        void (*transpose)(int *, int *, void *, int, int, int, const int *const *, const void *const *,
                          const int *) noexcept nogil
        void (*sparse_update)(void *, Py_ssize_t, double, int, const int *, const int *, const void *, int, int,
                              const void *, Py_ssize_t) noexcept nogil
        void (*sparse_update_one)(void *, Py_ssize_t, double, int, const int *, const void *, int,
                                  const void *) noexcept nogil
        void (*dense_update)(void *, Py_ssize_t, double, int, int, const void *, Py_ssize_t, int, const void *,
                             Py_ssize_t) noexcept nogil
        void (*input_gradient)(void *, Py_ssize_t, const void *, Py_ssize_t, int, int, int, const void *, Py_ssize_t,
                               void *) noexcept nogil
        double (*sparse_dot)(const int *, const void *, int, const void *) noexcept nogil
        void (*sparse_add)(void *, double, const int *, const void *, int) noexcept nogil
        void (*binary)(int, int, void *, const void *, const void *, Py_ssize_t) noexcept nogil
        void (*binary_backward)(int, int, void *, void *, const void *, const void *, const void *, const void *,
                                Py_ssize_t) noexcept nogil
        void (*unary)(int, void *, const void *, Py_ssize_t) noexcept nogil
        void (*unary_backward)(int, void *, const void *, const void *, const void *, Py_ssize_t) noexcept nogil
        void (*choose)(int, int, void *, const void *, const void *, const void *, const void *,
                       Py_ssize_t) noexcept nogil
        void (*choose_backward)(int, int, int, void *, const void *, const void *, const void *,
                                Py_ssize_t) noexcept nogil
        void (*better)(int, int, void *, void *, const void *, double, Py_ssize_t) noexcept nogil
        void (*best)(int, void *, void *, const void *, Py_ssize_t, int, int) noexcept nogil
        int (*not_finite)(const void *, Py_ssize_t) noexcept nogil
        int (*beyond)(const void *, Py_ssize_t) noexcept nogil
        void (*add)(void *, const void *, Py_ssize_t) noexcept nogil
        void (*add_scaled)(void *, double, const void *, Py_ssize_t) noexcept nogil
        void (*add_product)(void *, const void *, const void *, Py_ssize_t) noexcept nogil
        void (*add_number)(void *, double, Py_ssize_t) noexcept nogil
        double (*sum)(const void *, Py_ssize_t) noexcept nogil
        double (*dot)(const void *, const void *, Py_ssize_t) noexcept nogil
        void (*add_rows)(void *, const void *, Py_ssize_t, int, int) noexcept nogil
        void (*turn)(void *, Py_ssize_t, const void *, Py_ssize_t, int, int, int) noexcept nogil
        void (*softmax)(void *, Py_ssize_t, void *, const void *, Py_ssize_t, int, int) noexcept nogil
    const fs_lanes *fs_lanes_select(const char *name, int wide) noexcept nogil

cdef extern from "pool.h":
    ctypedef void (*fs_task)(void *context, int thread, int item) noexcept nogil
    ctypedef struct fs_pace:
        int together
    int fs_pool_reserve(int helpers) noexcept nogil
    void fs_pool_run(fs_task task, void *context, int items, int threads) noexcept nogil
    void fs_pool_forget() noexcept nogil
    int fs_pool_size() noexcept nogil
    void fs_pool_refuse(int threads) noexcept nogil
    void fs_pace_begin(fs_pace *pace) noexcept nogil
    int fs_pace_together(fs_pace *pace) noexcept nogil
    void fs_pace_note(fs_pace *pace, double seconds, double rows) noexcept nogil
    double fs_seconds() noexcept nogil

ORDER_MATTERS = UNSURE      # of the status of rows, what a plain plan is for
cdef bint ALWAYS = False


def _always_share(bint on):
    """For tests: whether batches are shared among all threads also where one would be faster; what it was."""
    global ALWAYS
    before, ALWAYS = ALWAYS, on
    return before


def _helpers(int refuse=0):
    """How many threads the pool has.  For tests: let so many of the next ones not start."""
    fs_pool_refuse(refuse)
    return fs_pool_size()


def _shared_of(double alone, double together, int batches):
    """For tests: how many batches are shared if one takes so many seconds either way."""
    cdef fs_pace pace
    cdef int shared = 0
    fs_pace_begin(&pace)
    for _ in range(batches):
        if fs_pace_together(&pace):
            shared += 1
            fs_pace_note(&pace, together, 1.0)
        else:
            fs_pace_note(&pace, alone, 1.0)
    return shared


def _begin_in_child():
    fs_pool_forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)


ctypedef const double *Row_
ctypedef Row_[16] Rows16

ctypedef fused real:
    float
    double

cdef enum:
    MISSED = 1              # status of a row: a guard does not hold,
    SUSPECT = 2             # something in it may have raised,
    UNSURE = 8              # the order of additions decides what it is: its numbers come from a plain plan
    TRAIN = 4               # a mode beside PARAMETERS and ARGUMENTS: weights take their step at once
    GROUP = 64              # rows whose sparse entries are turned together: their gradients stay in the nearest cache
    FRESH = 1024            # after so many batches of one row the sum of a matrix's squares is added up anew
    FEW_ROWS = 4            # up to so many rows, or columns of a matrix, weights are updated row by row:
    FEW_COLUMNS = 32        # MNIST, Linear(784, 10), batches of 64, float32: 0.8 instead of 1.1 us a sample

ctypedef struct Input:
    const double *data      # of an array or of numbers; rows side by side
    const long long *whole  # whole numbers
    Py_ssize_t width        # numbers in a row of an array
    bint dense              # somebody reads its columns
    bint forced             # for now, since a product has weights that are not finite
    bint finite             # no number of it is infinite or NaN, as far as products read it
    const Py_ssize_t *begin  # sparse rows, if not NULL: where each part of each row begins
    const int *column
    const void *value
    const int *border       # part t of a row: columns border[t] to border[t + 1]
    bint turned             # somebody wants them column by column; for each thread, those of its parts of a GROUP:
    int *start
    int *lane
    void *entry
    double *gradient        # where gradients by this argument go, row by row; or NULL

ctypedef struct Segment:    # captured leaves that lie side by side on the tape and in the block
    int capture
    int offset
    int address
    int count


# --- plans ----------------------------------------------------------------------------------------

cdef class Plan:
    """What `rewrite` made of a Graph."""

    def __cinit__(self):
        self.keep, self.tables, self.port_address = [], [], []

    def __dealloc__(self):
        PyMem_RawFree(self.uniform)
        PyMem_RawFree(self.lanes)
        PyMem_RawFree(self.terms)
        PyMem_RawFree(self.sums)
        PyMem_RawFree(self.matrices)
        PyMem_RawFree(self.products)
        PyMem_RawFree(self.items)
        PyMem_RawFree(self.runs)
        PyMem_RawFree(self.guards)
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
        p.uniform, p.lanes, p.terms, p.sums = self.uniform, self.lanes, self.terms, self.sums
        p.matrices, p.products, p.items, p.runs = self.matrices, self.products, self.items, self.runs
        p.guards, p.n_guards, p.n_matrices = self.guards, self.n_guards, self.n_matrices
        p.n_uniform_instr, p.n_lanes, p.n_slots, p.n_uniform = (
            self.n_uniform_instr, self.n_lanes, self.n_slots, self.n_uniform)
        cdef const int[::1] adjoint = self.adjoint, birth_of = self.birth_of
        cdef const int[:, ::1] births = self.births
        p.adjoint, p.birth_of, p.births = &adjoint[0], &birth_of[0], <const Birth *>&births[0, 0]
        p.n_adjoints = self.n_adjoints
        p.n_ports, p.n_runs, p.result, p.result_kind = self.n_ports, self.n_runs, self.result, self.result_kind
        return 0

    cdef Py_ssize_t add_instr(self, Instr *q, bint lanes) except -1:
        if lanes:
            (<Instr *>room_for(<void **>&self.lanes, &self.room[0], self.n_lanes, sizeof(Instr)))[0] = q[0]
            self.n_lanes += 1
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

    cdef Py_ssize_t add_guard(self, Guard *q) except -1:
        (<Guard *>room_for(<void **>&self.guards, &self.room[7], self.n_guards, sizeof(Guard)))[0] = q[0]
        self.n_guards += 1
        return self.n_guards - 1

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


# --- a replay -------------------------------------------------------------------------------------

@cython.no_gc_clear
cdef class Replay:
    """A plan with memory to run it in: for `batch` rows at once, `wide`: of doubles, not floats."""

    cdef readonly Plan plan
    cdef readonly int batch, chunk, threads
    cdef readonly int parts          # of the columns of sparse rows
    cdef readonly bint wide
    cdef const fs_lanes *K
    cdef size_t size                 # of a number
    cdef list blocks                 # what is to be freed: addresses as whole numbers
    cdef char *U
    cdef char *UA
    cdef char *RV
    cdef char *RA
    cdef char **V                    # by thread
    cdef char **A
    cdef char **scratch
    cdef double *zeros               # as many as the widest matrix has columns: a bias
    cdef char *PB                    # ports, by chunk
    cdef double *loss
    cdef unsigned char *status
    cdef Input *input
    cdef int n_inputs
    cdef list held                   # arrays that `input` points into
    cdef Segment *segments
    cdef Py_ssize_t n_segments
    cdef unsigned char *fused        # by matrix: it takes its step where its gradient is computed
    cdef unsigned char *decayed      # by fused matrix: the program sums its squares; then its weights are
    cdef unsigned char *unfit        # by matrix: a program's own loop must not step over zeros, it is not all finite
    cdef double *scale               # scale * what is in U,
    cdef double *keep                # the next ones keep * these ones + a step,
    cdef double *square              # and the sum of their squares is this; negative: not known
    cdef bint prepared               # for training: what is above, and `loose` and `steps`, is set
    cdef bint decays                 # there are such matrices
    cdef int since                   # batches since their squares were added up
    cdef char **scaled               # by thread: room for scale * gradients of a chunk
    cdef int *loose                  # (address, count) of uniform numbers that are in no fused matrix
    cdef Py_ssize_t n_loose
    cdef int *steps                  # (address, count) of those among them that are trained
    cdef Py_ssize_t n_steps
    cdef bint uniform_missed, uniform_suspect, uniform_unsure
    cdef bint watch                  # whether it says what is UNSURE
    cdef bint wild                   # weights are so large, or not finite
    cdef bint first_call, last_call  # of those that add up gradients
    # a run, shared by its threads
    cdef int mode
    cdef const long long *rows       # rows of the data, in their order
    cdef Py_ssize_t n_rows, done, failed_at
    cdef double rate, total_loss, shrink
    cdef bint falls
    cdef object nodes                # `first_nodes`, as they were after so many collections
    cdef long long nodes_of
    cdef long long rows_before, rows_in_all
    cdef int batch_rows
    cdef double *out_values
    cdef unsigned char *out_status
    cdef Py_ssize_t first            # of the batch under way: its first row,
    cdef int n                       # its rows,
    cdef int shares                  # and in how many shares its weights are cut
    cdef int team                    # threads of this run
    cdef int paced_mode              # mode of the run before,
    cdef fs_pace pace                # and what is known of its speed

    def __cinit__(self, Plan plan not None, int batch, bint wide, int threads=1):
        self.blocks, self.held = [], []
        if threads < 1:
            raise ValueError(f"threads: expected a whole number of at least 1, got {threads}")
        self.plan, self.wide, self.threads = plan, wide, threads
        self.parts = min(2 * threads, max(threads, 8)) if threads > 1 else 1
        self.paced_mode = -1
        self.size = sizeof(double) if wide else sizeof(float)
        self.watch = wide and not plan.plain
        name = kernel_set()
        self.K = fs_lanes_select(name, wide)
        if self.K == NULL:
            raise ValueError(f"kernels: this CPU has no set {name!r}")
        columns = sum([plan.runs[k].ld for k in range(plan.n_runs)])
        self.batch = max(min(batch, 16), min(batch, (1 << 26) // (16 * (1 + <long long>columns))))
        self.chunk = self.lanes_of_a_chunk()
        self.reserve()
        self.find_segments()
        self.find_inputs()

    def __dealloc__(self):
        for block in self.blocks or ():          # without any if an argument was refused
            PyMem_RawFree(<void *><size_t>block)

    cdef int lanes_of_a_chunk(self) except -1:
        """So many that slots stay in the last-level cache; products want some dozen rows.

        Scalar code takes longer to begin an instruction than to read a few lanes from another level: ODE of the
        benchmarks, nanoseconds an operation and row, 16 lanes (second level) 3.3, 32 lanes 2.1, 64 1.4, 128 1.0."""
        cdef long long lanes = (1 << 23) // max(1, (self.plan.n_slots + self.plan.n_adjoints) * <long long>self.size)
        lanes = min(max(lanes // 16 * 16, 16), 128)
        if self.plan.n_products:
            lanes = min(lanes, 32)
        return <int>min(lanes, self.batch)

    cdef void *block(self, size_t count, size_t size) except NULL:
        """Zeroed memory that begins at a multiple of 64 bytes."""
        cdef void *p = allocate_zeroed(count * size + 128, 1)
        if p == NULL:
            out_of_memory("a program", count)
        self.blocks.append(<size_t>p)
        return <void *>((<size_t>p + 63) // 64 * 64)

    cdef int reserve(self) except -1:
        cdef Plan p = self.plan
        cdef size_t columns = 0, room = 64
        cdef Py_ssize_t k
        cdef int t, widest = 1
        cdef Matrix *m
        if p.n_runs:
            columns = p.runs[p.n_runs - 1].base + p.runs[p.n_runs - 1].ld + PAD
        for k in range(p.n_products):
            m = &p.matrices[p.products[k].matrix]
            room = max(room, <size_t>m.rows * max(m.ld, 2) + 128)
            widest = max(widest, m.ld)
        self.U = <char *>self.block(p.n_uniform + PAD, self.size)
        self.UA = <char *>self.block(p.n_uniform + PAD, self.size)
        self.RV = <char *>self.block(columns * self.batch, self.size)
        self.RA = <char *>self.block(columns * self.batch, self.size)
        self.V = <char **>self.block(self.threads, sizeof(void *))
        self.A = <char **>self.block(self.threads, sizeof(void *))
        self.scratch = <char **>self.block(self.threads, sizeof(void *))
        for t in range(self.threads):
            self.V[t] = <char *>self.block(<size_t>p.n_slots * self.chunk, self.size)
            self.A[t] = <char *>self.block(<size_t>p.n_adjoints * self.chunk, self.size)
            self.scratch[t] = <char *>self.block(room + self.chunk, self.size)
        self.zeros = <double *>self.block(widest, sizeof(double))
        self.PB = <char *>self.block(<size_t>p.n_ports * (self.batch // self.chunk + 1), self.size)
        self.loss = <double *>self.block(self.batch, sizeof(double))
        self.status = <unsigned char *>self.block(self.batch, 1)
        self.fused = <unsigned char *>self.block(p.n_matrices, 1)
        self.decayed = <unsigned char *>self.block(p.n_matrices, 1)
        self.unfit = <unsigned char *>self.block(p.n_matrices, 1)
        self.scale = <double *>self.block(p.n_matrices, sizeof(double))
        self.keep = <double *>self.block(p.n_matrices, sizeof(double))
        self.square = <double *>self.block(p.n_matrices, sizeof(double))
        for k in range(p.n_matrices):
            self.scale[k] = 1.0
        return 0

    cdef int find_segments(self) except -1:
        """Captured leaves side by side are copied together."""
        cdef int[::1] capture = self.plan.capture_of, offset = self.plan.offset_of, address = self.plan.address_of
        cdef int[::1] count = self.plan.count_of
        cdef Py_ssize_t k, n = capture.shape[0]
        cdef Segment *s
        self.segments = <Segment *>self.block(n, sizeof(Segment))
        for k in range(n):
            s = &self.segments[self.n_segments - 1]
            if k and capture[k] == s.capture and offset[k] == s.offset + s.count and address[k] == s.address + s.count:
                s.count += count[k]
            else:
                s = &self.segments[self.n_segments]
                s.capture, s.offset, s.address, s.count = capture[k], offset[k], address[k], count[k]
                self.n_segments += 1
        return 0

    cdef int find_inputs(self) except -1:
        """Which inputs are read otherwise than by a product that takes sparse rows."""
        cdef Plan p = self.plan
        cdef Py_ssize_t k
        cdef Instr *q
        cdef int i
        self.n_inputs = <int>len(p.inputs)
        self.input = <Input *>self.block(self.n_inputs + 1, sizeof(Input))
        for i in range(self.n_inputs):
            for k in range(p.n_lanes):
                q = &p.lanes[k]
                if q.kind == I_PRODUCT:
                    if p.products[q.extra].whole_input == i and p.matrices[p.products[q.extra].matrix].ld > FEW_COLUMNS:
                        self.input[i].turned = True
                    if p.products[q.extra].x == p.input_run[i] and p.products[q.extra].whole_input != i:
                        self.input[i].dense = True
                elif (q.a.kind == R_ROWS and q.a.run == p.input_run[i]) or (
                        q.b.kind == R_ROWS and q.b.run == p.input_run[i]):
                    self.input[i].dense = True
        return 0

    # --- in and out ---

    def load(self):
        """Copy the captured leaves in, as they are now."""
        cdef Py_ssize_t k
        cdef Segment *s
        cdef const double *source
        cdef long long[::1] first = self.first_nodes()
        cdef double[::1] value = self.plan.constant_value
        cdef int[::1] at = self.plan.constant_at
        for k in range(at.shape[0]):
            self.put(at[k], value[k])
        for k in range(self.plan.n_matrices):
            self.scale[k], self.square[k] = 1.0, -1.0
        self.since = 0
        for k in range(self.n_segments):
            s = &self.segments[k]
            source = T.value + first[s.capture] + s.offset
            if self.wide:
                memcpy(<double *>self.U + s.address, source, s.count * sizeof(double))
            else:
                self.K.load_rows(<float *>self.U + s.address, s.count, &source, s.count, 1)
        for k in range(self.n_inputs):
            self.input[k].forced = False
        self.wild = False
        for k in range(self.plan.n_products):
            self.look_at_weights(&self.plan.products[k])

    cdef void look_at_weights(self, const Product *p) noexcept nogil:
        """Sparse rows step over zeros: 0 * inf would be lost.  A layer says that it is."""
        cdef const Matrix *m = &self.plan.matrices[p.matrix]
        if self.watch and m.table < 0 and self.K.beyond(self.U + m.base * self.size, <Py_ssize_t>m.rows * m.ld):
            self.wild = True
        if self.watch and p.bias >= 0 and self.K.beyond(
                self.U + self.plan.matrices[p.bias].base * self.size, self.plan.matrices[p.bias].cols):
            self.wild = True
        if p.whole_input < 0 or p.skips or m.table >= 0:
            return
        self.unfit[p.matrix] = self.K.not_finite(self.U + m.base * self.size, <Py_ssize_t>m.rows * m.ld)
        if self.unfit[p.matrix]:
            self.input[p.whole_input].forced = True

    cdef object first_nodes(self):
        """By capture, the node of its first element.  Only a collection moves them."""
        cdef long long[::1] view
        cdef Py_ssize_t k
        if self.nodes is None or self.nodes_of != T.collections + T.full_collections:
            self.nodes = np.empty(max(1, len(self.plan.captures)), np.int64)
            self.nodes_of = T.collections + T.full_collections
            view = self.nodes
            for k, handle in enumerate(self.plan.captures):
                view[k] = (<Tensor>handle).index if type(handle) is Tensor else T.wide[(<TensorArray>handle).slot].start
        return self.nodes

    cdef void put(self, int address, double value) noexcept nogil:
        if self.wide:
            (<double *>self.U)[address] = value
        else:
            (<float *>self.U)[address] = <float>value

    cdef double get(self, const char *block, int address) noexcept nogil:
        return (<double *>block)[address] if self.wide else <double>(<float *>block)[address]

    def commit(self):
        """Copy what was trained back to the leaves, and set their gradients to zero."""
        self.settle_all()
        cdef Py_ssize_t k
        cdef int i
        cdef Segment *s
        cdef double *target
        cdef long long[::1] first = self.first_nodes()
        cdef unsigned char[::1] trained = self.plan.trained
        for k in range(self.n_segments):
            s = &self.segments[k]
            target = T.value + first[s.capture] + s.offset
            wrote(<int>first[s.capture])         # a leaf, or an array of them: runs no Python
            for i in range(s.count):
                if trained[s.address + i]:
                    target[i] = self.get(self.U, s.address + i)
        self.commit_gradients(False, True)

    def commit_gradients(self, bint accumulate, bint zero=False):
        """Leave the gradients in the leaves: in place of theirs, or added to them."""
        cdef Py_ssize_t k, i
        cdef Segment *s
        cdef int node, last = -1
        cdef double g
        cdef Wide *q
        cdef long long[::1] first = self.first_nodes()
        cdef unsigned char[::1] trained = self.plan.trained
        for k in range(self.n_segments):
            s = &self.segments[k]
            node = <int>first[s.capture]
            q = T.wide[T.record[node].a] if T.record[node].op == WIDE else NULL
            if q != NULL and s.capture != last and trained[s.address]:
                last = s.capture
                materialise(q)
                if not accumulate and self.whole_capture(k, q.count):
                    zero_leaf(q)
            for i in range(s.count):
                if not trained[s.address + i]:
                    continue
                node = <int>first[s.capture] + s.offset + <int>i
                g = 0.0 if zero else self.get(self.UA, s.address + <int>i)
                if accumulate:
                    g += T.grad[node]
                if g != T.grad[node] or g != g:
                    write_gradient(node)
                    T.grad[node] = g

    cdef bint whole_capture(self, Py_ssize_t k, int count) noexcept:
        """Whether all elements of a captured array are read, from segment k on."""
        cdef int capture = self.segments[k].capture
        cdef Py_ssize_t n = 0
        while k < self.n_segments and self.segments[k].capture == capture:
            n += self.segments[k].count
            k += 1
        return n == count

    def bind(self, int i, data, gradient=None, bint finite=False):
        """Data of an input: an array of float64, C-contiguous, (n, width) or (n,), or whole numbers as int64.

        `gradient`, of the same shape, receives gradients by this argument.  finite: all of it is known to be."""
        cdef const double[:, ::1] rows
        cdef const double[::1] numbers
        cdef const long long[::1] whole
        cdef double[:, ::1] row_gradient
        cdef double[::1] gradients
        cdef Input *x = &self.input[i]
        self.held.append((data, gradient))
        x.finite = finite
        kind = self.plan.inputs[i]
        if kind == "array":
            rows = data
            x.data, x.width = &rows[0, 0], rows.shape[1]
            if gradient is not None:
                row_gradient = gradient
                x.gradient = &row_gradient[0, 0]
            return
        if kind == "number":
            numbers = data
            x.data, x.width = &numbers[0], 1
            if gradient is not None:
                gradients = gradient
                x.gradient = &gradients[0]
        else:
            whole = data
            x.whole, x.width = &whole[0], 1

    def release_inputs(self):
        """Let go of the data."""
        cdef int i
        for i in range(self.n_inputs):
            self.input[i].data = NULL
            self.input[i].whole = NULL
            self.input[i].begin = NULL
            self.input[i].gradient = NULL
        self.held = []

    def share(self, int i, double value):
        """The number that an input is for all rows."""
        if self.plan.input_address[i] >= 0:
            self.put(self.plan.input_address[i], value)

    def sparse(self, int i, begin, column, value, border):
        """The rows of an input by their non-zero entries, from `sparse_rows` for as many parts."""
        cdef const Py_ssize_t[::1] begins = begin
        cdef const int[::1] columns = column, borders = border
        cdef Input *x = &self.input[i]
        cdef size_t most = <size_t>self.threads * min(GROUP, self.batch) * x.width
        if x.turned and x.start == NULL:
            x.start = <int *>self.block(self.threads * (x.width + 2), sizeof(int))
            x.lane = <int *>self.block(most, sizeof(int))
            x.entry = self.block(most, self.size)
        self.held.append((begin, column, value, border))
        x.begin, x.column, x.border = &begins[0], &columns[0], &borders[0]
        x.value = <void *><size_t>value.ctypes.data

    def wants_sparse(self, int i):
        """Whether sparse rows of this input would be of use."""
        cdef Plan p = self.plan
        cdef Py_ssize_t k
        for k in range(p.n_products):
            if p.products[k].whole_input == i:
                return True
        return False

    def shared_gradient(self, int i):
        return self.get(self.UA, self.plan.input_address[i]) if self.plan.input_address[i] >= 0 else 0.0

    # --- what takes its step at once ---

    def prepare_training(self):
        """Which matrices take their step with their gradient, and what else a step of SGD writes.

        A matrix of trained leaves that one product reads, and nothing else but a sum of its squares, is fused."""
        cdef Plan p = self.plan
        cdef Py_ssize_t k, widest = 0
        cdef Matrix *m
        cdef bint copies = False                 # a matrix that is copied together has its gradient only after a batch
        if self.prepared:
            return
        self.prepared = True
        for k in range(p.n_matrices):
            copies = copies or (p.matrices[k].table >= 0 and p.matrices[k].mask & PARAMETERS)
        for k in range(p.n_terms):
            if p.terms[k].matrix >= 0:
                self.decayed[p.terms[k].matrix] = 1
        trained = np.asarray(p.trained) != 0
        loose = np.ones(p.n_uniform, bool)
        for k in range(p.n_matrices):
            m = &p.matrices[k]
            part = trained[m.base:m.base + m.rows * m.ld].reshape(m.rows, m.ld)
            self.fused[k] = m.home and m.only and m.uses == 1 and m.rows > 1 and not (
                self.decayed[k] and copies) and bool(part[:, :m.cols].all())
            self.decayed[k] = self.decayed[k] and self.fused[k]
            if self.decayed[k]:
                self.decays = True
                widest = max(widest, m.ld)
            if self.fused[k]:
                loose[m.base:m.base + m.rows * m.ld] = False
                part[:] = False
            elif m.home and m.cols < m.ld:       # padding is zero, and so is its gradient: longer stretches
                part[part[:, :m.cols].all(axis=1)] = True
        self.loose = self.stretches(loose.view(np.uint8), &self.n_loose)
        self.steps = self.stretches(trained.view(np.uint8), &self.n_steps)
        if self.decays:
            self.scaled = <char **>self.block(self.threads, sizeof(void *))
            for k in range(self.threads):
                self.scaled[k] = <char *>self.block(<size_t>widest * self.chunk, self.size)

    cdef int *stretches(self, const unsigned char[::1] chosen, Py_ssize_t *count) except NULL:
        """(first, how many) of those chosen that lie side by side."""
        cdef Py_ssize_t k, n = 0, size = chosen.shape[0]
        cdef int *out
        for k in range(size):
            n += chosen[k] and not (k and chosen[k - 1])
        out = <int *>self.block(2 * n, sizeof(int))
        count[0] = n
        n = -1
        for k in range(size):
            if not chosen[k]:
                continue
            if k == 0 or not chosen[k - 1]:
                n += 1
                out[2 * n], out[2 * n + 1] = <int>k, 0
            out[2 * n + 1] += 1
        return out

    # --- runs ---

    def values(self, rows, values, status):
        """Forwards for some rows: their values, and what there is to say about each (MISSED, SUSPECT)."""
        self.go(0, rows, values, status, self.batch)

    def gradients(self, rows, values, status, bint arguments, bint first=True, bint last=True):
        """Forwards and backwards; gradients stay in the block.  False if a row missed: then they are not to be used.

        Of several calls that add up, the first and the last say so."""
        self.first_call, self.last_call = first, last
        self.go(ARGUMENTS if arguments else PARAMETERS, rows, values, status, self.batch)
        if last and self.watch and self.K.not_finite(self.UA, self.plan.n_uniform):
            np.bitwise_or(status, UNSURE, out=status)        # the rows' gradients are added up in some order
        return not np.asarray(status).any()

    def train(self, rows, int batch_rows, double rate, bint falls, long long done, long long total_rows,
              double total_loss):
        """SGD over rows in their order: (rows done, total_loss with their losses).  Stops before a batch that misses a
        guard, may have raised, or has a loss that is not finite.

        The rate falls to 0 over total_rows of which some are done: what it is for a batch, and what the losses add up
        to, must not depend on how many rows one call is given."""
        self.rate, self.falls, self.rows_before, self.rows_in_all = rate, falls, done, total_rows
        self.total_loss = total_loss
        self.go(PARAMETERS | TRAIN, rows, None, None, batch_rows)
        return self.done, self.total_loss

    def batch_status(self):
        """After `train` stopped: losses and status of the batch that it stopped at."""
        n = min(<Py_ssize_t>self.batch_rows, self.n_rows - self.done)
        losses = np.empty(n)
        status = np.empty(n, np.uint8)
        cdef double[::1] l = losses
        cdef unsigned char[::1] s = status
        for k in range(n):
            l[k], s[k] = self.loss[k], self.status[k] | uniform_status(self)
        return losses, status

    cdef int go(self, int mode, rows, values, status, int batch_rows) except -1:
        cdef long long[::1] order = rows
        cdef double[::1] out
        cdef unsigned char[::1] marks
        self.rows, self.n_rows = &order[0], order.shape[0]
        self.out_values = NULL
        self.out_status = NULL
        if values is not None:
            out = values
            marks = status
            self.out_values, self.out_status = &out[0], &marks[0]
        self.mode, self.batch_rows, self.done = mode, min(batch_rows, self.batch), 0
        if not mode & TRAIN:
            self.settle_all()
        if mode != self.paced_mode:
            self.paced_mode = mode
            fs_pace_begin(&self.pace)
        self.team = 1
        if self.threads > 1:
            self.team += fs_pool_reserve(self.threads - 1)
        with nogil:
            if self.wide:
                run[double](self, 0.0)
            else:
                run[float](self, 0.0)
        return 0

    cdef void settle_all(self) noexcept:
        if self.wide:
            settle_all[double](self, 0.0)
        else:
            settle_all[float](self, 0.0)


def trained_elements(list captures, list parameters):
    """By capture, which of its elements are among the parameters: an array of uint8."""
    cdef dict parts = {}
    cdef Py_ssize_t count
    for p in parameters:
        parts.setdefault(storage_of(p), []).append(p)
    out = []
    for capture in captures:
        listed = parts.get(storage_of(capture), ())
        count = 1 if type(capture) is Tensor else T.wide[(<TensorArray>capture).slot].count
        chosen = np.zeros(count, np.uint8)
        for p in listed:
            if type(p) is TensorArray and is_contiguous(p) and element_count(p) == count:
                chosen[:] = 1
            else:
                chosen[0 if count == 1 else offsets_of(p)] = 1
        out.append(chosen)
    return out


cdef class KeptGradients:
    """Context after which leaves have the gradients that they had when they were added: always, or only if an error
    leaves it.  Compiled, so that no interrupt comes between the first and the last."""
    cdef dict before
    cdef bint always

    def __init__(self, bint always):
        self.before, self.always = {}, always

    def add(self, leaves):
        for p in leaves:
            key = storage_of(p)
            if key not in self.before:
                self.before[key] = (p, p.grad if type(p) is Tensor else np.array(p.grad))

    def __enter__(self):
        return self

    def __exit__(self, kind=None, *error):
        if self.always or kind is not None:
            for p, gradient in self.before.values():
                p.grad = gradient


def kernel_set():
    """The name of the kernel set in use, as bytes."""
    return K.name


def sparse_rows(data, bint wide, double limit, int parts):
    """The non-zero entries of the rows of an array, or None if more than `limit` of its numbers are.

    (begin, column, value, border): columns are cut at `border` into parts, each with as many entries or nearly so;
    begin[r * parts + t]: where part t of row r begins in column and value."""
    cdef const double[:, ::1] x = data
    cdef Py_ssize_t n = x.shape[0], width = x.shape[1], r, at = 0, room
    cdef const fs_lanes *kernels = fs_lanes_select(K.name, wide)
    some = np.linspace(0, n - 1, min(n, 64)).astype(np.int64)
    share = np.count_nonzero(np.asarray(data)[some]) / max(1, len(some) * width)
    if share > limit or width > 1 << 20:
        return None
    size = 8 if wide else 4
    begin = np.zeros(n + 1, np.intp)
    room = int(share * 1.1 * n * width) + width + 64
    column = np.empty(room, np.int32)
    value = np.empty(room, np.float64 if wide else np.float32)
    cdef Py_ssize_t[::1] b = begin
    cdef int *c = <int *><size_t>column.ctypes.data
    cdef char *v = <char *><size_t>value.ctypes.data
    cdef int element = size
    r = 0
    while r < n:
        with nogil:
            while r < n and at + width + 32 <= room:
                at += kernels.compress(c + at, v + at * element, &x[r, 0], <int>width)
                r += 1
                b[r] = at
        if r < n:
            room = 2 * room
            column, value = np.resize(column, room), np.resize(value, room)
            c = <int *><size_t>column.ctypes.data
            v = <char *><size_t>value.ctypes.data
    if not at:
        column[0] = 0                            # there is something to point at
    column, value = column[:max(at, 1)], value[:max(at, 1)]
    border = np.array([0] * parts + [width], np.int32)
    if parts > 1:
        sample = np.sort(column[::max(1, at // 65536)])
        border[1:parts] = sample[len(sample) * np.arange(1, parts) // parts]
        begin = parts_of_rows(begin, column, border[:parts])
    return begin, column, value, border


cdef object parts_of_rows(begin, column, border):
    """Where the columns of each row pass each border; the first border is 0."""
    cdef const Py_ssize_t[::1] begins = begin
    cdef const int[::1] c = column, borders = border
    cdef Py_ssize_t n = begins.shape[0] - 1, parts = borders.shape[0], r, t, low, high, middle
    out = np.empty(n * parts + 1, np.intp)
    cdef Py_ssize_t[::1] at = out
    with nogil:
        for r in range(n):
            low = begins[r]
            for t in range(parts):
                high = begins[r + 1]
                while low < high:
                    middle = (low + high) // 2
                    if c[middle] < borders[t]:
                        low = middle + 1
                    else:
                        high = middle
                at[r * parts + t] = low
        at[n * parts] = begins[n]
    return out


# --- a run ----------------------------------------------------------------------------------------

cdef void run(Replay r, real tag) noexcept nogil:
    cdef int l, n, chunks, team
    cdef bint back = (r.mode & (PARAMETERS | ARGUMENTS)) != 0, early = r.decays and (r.mode & TRAIN) != 0
    cdef double start = 0.0, now
    if not r.mode & TRAIN:
        begin_sums(r, tag)
    if r.team > 1:
        start = fs_seconds()
    r.first = 0
    while r.first < r.n_rows:
        n = r.n = <int>min(<Py_ssize_t>r.batch_rows, r.n_rows - r.first)
        chunks = (n + r.chunk - 1) // r.chunk
        team = r.team if r.team > 1 and (ALWAYS or fs_pace_together(&r.pace)) else 1
        r.shares = r.parts if team > 1 else 1
        if r.mode & TRAIN:
            begin_sums(r, tag)
        memset(r.PB, 0, <size_t>r.plan.body.n_ports * chunks * sizeof(real))
        fs_pool_run(one_chunk, <void *>r, chunks, team)
        if (r.mode & TRAIN) != 0 and not sound(r, n):
            break
        if early:
            end_sums(r, n, r.rows + r.first, tag)
            decay(r, n, r.rows + r.first, rate_at(r, r.first), tag)
        if back:
            fs_pool_run(one_share, <void *>r, r.shares, team)
        if back and not early:
            end_sums(r, n, r.rows + r.first, tag)
            if r.mode & TRAIN:
                uniform_backward(r, tag)
        if r.mode & TRAIN:
            end_batch(r, n, rate_at(r, r.first), tag)
        elif r.out_values != NULL:
            memcpy(r.out_values + r.first, r.loss, n * sizeof(double))
            for l in range(n):
                r.out_status[r.first + l] = r.status[l] | uniform_status(r)
        r.first += n
        r.done = r.first
        if r.team > 1:
            now = fs_seconds()
            if 2 * n > r.batch_rows:             # of few rows the rest takes most of the time
                fs_pace_note(&r.pace, now - start, n)
            start = now
    if back and not r.mode & TRAIN and r.last_call:
        uniform_backward(r, tag)


cdef unsigned char uniform_status(Replay r) noexcept nogil:
    """What the uniform part says about every row."""
    return (MISSED if r.uniform_missed else 0) | (SUSPECT if r.uniform_suspect else 0) | (
        UNSURE if r.uniform_unsure else 0)


cdef void one_chunk(void *context, int thread, int c) noexcept nogil:
    if (<Replay>context).wide:
        chunk_of[double](<Replay>context, thread, c, 0.0)
    else:
        chunk_of[float](<Replay>context, thread, c, 0.0)


cdef void chunk_of(Replay r, int thread, int c, real tag) noexcept nogil:
    cdef int l = c * r.chunk, lanes = min(r.chunk, r.n - l)
    forward(r, thread, l, lanes, r.rows + r.first, tag)
    if r.mode & (PARAMETERS | ARGUMENTS) and not flagged(r, l, lanes) and not backward(
            r, thread, c, l, lanes, r.rows + r.first, tag) and r.watch:
        for l in range(l, l + lanes):
            r.status[l] |= UNSURE


cdef void one_share(void *context, int thread, int share) noexcept nogil:
    cdef double rate = rate_at(<Replay>context, (<Replay>context).first)
    if (<Replay>context).wide:
        update_weights[double](<Replay>context, thread, share, rate, 0.0)
    else:
        update_weights[float](<Replay>context, thread, share, rate, 0.0)


cdef double rate_at(Replay r, Py_ssize_t row) noexcept nogil:
    return r.rate * (1.0 - <double>(r.rows_before + row) / <double>r.rows_in_all) if r.falls else r.rate


cdef bint flagged(Replay r, int first, int lanes) noexcept nogil:
    cdef int l
    for l in range(first, first + lanes):
        if r.status[l]:
            return True
    return r.uniform_missed or r.uniform_unsure


cdef bint sound(Replay r, int n) noexcept nogil:
    """Whether a batch may be learned from."""
    cdef int l
    if uniform_status(r):
        return False
    for l in range(n):
        if r.status[l] or not isfinite(r.loss[l]):
            return False
    return True


cdef void begin_sums(Replay r, real tag) noexcept nogil:
    """The uniform part forwards; gradients of uniform numbers to zero."""
    cdef Py_ssize_t k
    if r.mode & TRAIN:
        for k in range(r.n_loose):
            memset(<real *>r.UA + r.loose[2 * k], 0, r.loose[2 * k + 1] * sizeof(real))
    elif r.mode and r.first_call:
        memset(r.UA, 0, r.plan.body.n_uniform * sizeof(real))
    uniform_forward(r, tag)


cdef void end_sums(Replay r, int n, const long long *rows, real tag) noexcept nogil:
    """Add up what the chunks collected, in their order, and what is gathered, in the order of the lanes."""
    cdef const Body *p = &r.plan.body
    cdef int c, k
    cdef real *UA = <real *>r.UA
    cdef real *port = <real *>r.PB
    cdef Py_ssize_t j
    cdef const Instr *q
    for c in range((n + r.chunk - 1) // r.chunk):
        for k in range(p.n_ports):
            UA[p.ports[k]] += port[<Py_ssize_t>c * p.n_ports + k]
    if r.plan.body.result_kind == R_UNIFORM:
        UA[p.result] += <real>n
    for j in range(p.n_lanes):
        q = &p.lanes[j]
        if q.kind == I_GATHER and q.mask & r.mode and p.items[q.extra].address >= 0:
            gather_backward(r, q, n, rows, tag)


cdef void end_batch(Replay r, int n, double rate, real tag) noexcept nogil:
    cdef Py_ssize_t k
    cdef int l
    for k in range(r.n_steps):
        r.K.add_scaled(<real *>r.U + r.steps[2 * k], -rate / n, <real *>r.UA + r.steps[2 * k], r.steps[2 * k + 1])
    for l in range(n):
        r.total_loss += r.loss[l]


# --- an L2 term -----------------------------------------------------------------------------------

cdef void decay(Replay r, int n, const long long *rows, double rate, real tag) noexcept nogil:
    """The uniform part backwards, before the weights take their steps.

    The gradient of the sum of a matrix's squares is twice the matrix: its weights shrink by a factor, and a sparse row
    would have to write all of them.  So they are kept as scale * U, and only the scale changes; the sum of the squares
    follows from what a step adds.  MNIST, MLP 784-256-10, batch size 1, L2 over all
    weights: 1.07 times the step without it, 17 times when each step wrote all of them.
    """
    cdef Py_ssize_t k
    for k in range(r.plan.body.n_matrices):
        r.keep[k] = 1.0
    r.shrink = rate / n
    uniform_backward(r, tag)
    r.since += 1
    if n == 1 and r.since < FRESH:
        for k in range(r.plan.body.n_lanes):
            if r.plan.body.lanes[k].kind == I_PRODUCT:
                follow_square(r, &r.plan.body.lanes[k], rows, rate, tag)
    else:
        for k in range(r.plan.body.n_matrices):
            r.square[k] = -1.0
        r.since = 0
    for k in range(r.plan.body.n_matrices):
        if r.decayed[k]:
            r.scale[k] *= r.keep[k]
            if not 1e-3 < r.scale[k] < 1e3:
                settle(r, <int>k, tag)


cdef void follow_square(Replay r, const Instr *q, const long long *rows, double rate, real tag) noexcept nogil:
    """The sum of a matrix's squares after a step by one row.

    |k w + t x g|^2 = k^2 |w|^2 + 2 k t (x w) g + t^2 |x|^2 |g|^2; x w is what the product gave without its bias."""
    cdef const Product *p = &r.plan.body.products[q.extra]
    cdef const Matrix *m = &r.plan.body.matrices[p.matrix]
    cdef const real *g
    cdef const real *x
    cdef const int *column
    cdef const void *value
    cdef int count
    cdef double xx, xwg, keep = r.keep[p.matrix]
    if not r.decayed[p.matrix] or r.square[p.matrix] < 0.0:
        return
    r.square[p.matrix] *= keep * keep
    if not q.mask & PARAMETERS:
        return
    g = rows_of(r, r.RA, q.run, 0, tag)
    xwg = r.K.dot(rows_of(r, r.RV, q.run, 0, tag), g, m.ld)
    if p.bias >= 0:
        xwg -= r.K.dot(<real *>r.U + r.plan.body.matrices[p.bias].base, g, m.ld)
    if has_sparse(r, p):
        find_rows(r, &r.input[p.whole_input], rows, 1, 0, r.parts, &column, &value, &count)
        xx = r.K.dot(value, value, count)
    else:
        x = rows_of(r, r.RV, p.x, 0, tag) + p.first
        xx = r.K.dot(x, x, m.rows)
    r.square[p.matrix] += rate * (rate * xx * r.K.dot(g, g, m.ld) - 2.0 * keep * xwg)


cdef double sum_of_squares(Replay r, int k, real tag) noexcept nogil:
    cdef const Matrix *m = &r.plan.body.matrices[k]
    cdef const real *w = <real *>r.U + m.base
    if not r.square[k] >= 0.0:
        r.square[k] = r.scale[k] * r.scale[k] * r.K.dot(w, w, <Py_ssize_t>m.rows * m.ld)
    return r.square[k]


cdef void settle(Replay r, int k, real tag) noexcept nogil:
    """The weights of a matrix as they are."""
    cdef const Matrix *m = &r.plan.body.matrices[k]
    cdef real *w = <real *>r.U + m.base
    cdef real scale = <real>r.scale[k]
    r.scale[k] = 1.0
    r.K.binary(FS_MUL, FS_B_IS_ONE, w, w, &scale, <Py_ssize_t>m.rows * m.ld)


cdef void settle_all(Replay r, real tag) noexcept:
    cdef Py_ssize_t k
    for k in range(r.plan.n_matrices):
        if r.scale[k] != 1.0:
            settle(r, <int>k, tag)


# --- operands -------------------------------------------------------------------------------------

cdef inline int place(const Ref *a, int k) noexcept nogil:
    return a.index[k] if a.index != NULL else a.start + k * a.step


cdef inline real *rows_of(Replay r, char *block, int run, int lane, real tag) noexcept nogil:
    return <real *>block + r.plan.body.runs[run].base * r.batch + <Py_ssize_t>lane * r.plan.body.runs[run].ld


# --- forwards -------------------------------------------------------------------------------------

cdef void uniform_forward(Replay r, real tag) noexcept nogil:
    cdef const Body *p = &r.plan.body
    cdef Py_ssize_t k, i, j
    cdef const Instr *q
    cdef const Matrix *m
    cdef const Guard *guard
    cdef real *U = <real *>r.U
    cdef const int *table
    r.uniform_missed = r.uniform_suspect = False
    r.uniform_unsure = r.wild
    for k in range(p.n_uniform_instr):
        q = &p.uniform[k]
        if q.kind == I_SUM:
            U[q.out] = <real>uniform_sum(r, q, tag)
        else:
            elements_forward(r, q, U, U, 1, True, tag)
        if q.raises and r.K.not_finite(U + q.out, q.n) and any_error(r, q, U, U, 1, 0, True, tag):
            r.uniform_suspect = True
        if r.watch and (r.K.beyond(U + q.out, q.n) or (q.steep and steep_lane(r, q, U, U, 1, 0, True, tag))):
            r.uniform_unsure = True
    if r.watch and not r.mode & TRAIN and wild_terms(r, U, tag):
        r.uniform_unsure = True
    for k in range(p.n_matrices):
        m = &p.matrices[k]
        if m.table >= 0:
            table = p.table_of[m.table]
            for i in range(m.rows):
                for j in range(m.cols):
                    U[m.base + i * m.ld + j] = U[table[i * m.cols + j]]
    for k in range(r.plan.n_products):
        m = &p.matrices[p.products[k].matrix]
        if m.table >= 0 and r.watch and not r.mode & TRAIN and r.K.beyond(U + m.base, <Py_ssize_t>m.rows * m.ld):
            r.uniform_unsure = True
        if p.matrices[p.products[k].matrix].table >= 0 and p.products[k].whole_input >= 0 and not p.products[k].skips:
            m = &p.matrices[p.products[k].matrix]
            r.unfit[p.products[k].matrix] = r.K.not_finite(U + m.base, <Py_ssize_t>m.rows * m.ld)
            if r.unfit[p.products[k].matrix]:
                r.input[p.products[k].whole_input].forced = True
    for k in range(p.n_guards):
        guard = &p.guards[k]
        if guard.kind != R_SLOTS and guard.other != R_SLOTS:
            if not holds(guard, U[guard.p], U[guard.q] if guard.other == R_UNIFORM else 0.0, <real>guard.value):
                r.uniform_missed = True


cdef bint wild_terms(Replay r, const real *U, real tag) noexcept nogil:
    """Whether uniform numbers that are added up are so large that their order may matter."""
    cdef Py_ssize_t k
    cdef const Term *t
    for k in range(r.plan.n_terms):
        t = &r.plan.body.terms[k]
        if (t.p_kind == R_UNIFORM and r.K.beyond(U + t.p, t.count)) or (
                t.q_kind == R_UNIFORM and t.q != t.p and r.K.beyond(U + t.q, t.count)):
            return True
    return False


cdef bint holds(const Guard *g, double x, double y, double value) noexcept nogil:
    """Whether a decision comes out as it did when the program was recorded.  value: the guard's, as our numbers are."""
    cdef double v
    cdef Row *f
    if g.op <= 5:
        return compare_numbers(g.op, x, y) == (value != 0.0)
    if g.op == GUARD_SAME:
        return (x == value and signbit(x) == signbit(value)) or (x != x and value != value)
    if g.op == GUARD_TRUNC:
        return x - value < 1.0 and value - x < 1.0 and (x >= value if value > 0 else x <= value if value < 0 else True)
    if g.op == GUARD_FLOOR:
        return value <= x < value + 1.0
    if g.op == GUARD_CEIL:
        return value - 1.0 < x <= value
    f = row(<int>value)
    v = f.f(x) if f.arity == 1 else f.f2(x, y)
    return v - v != 0.0 and is_error(<int>value, x, y, v)


cdef double uniform_sum(Replay r, const Instr *q, real tag) noexcept nogil:
    cdef const Sum *s = &r.plan.body.sums[q.extra]
    cdef const Term *t
    cdef real *U = <real *>r.U
    cdef double total = 0.0 if s.zero else -0.0
    cdef int k
    for k in range(s.first, s.stop):
        t = &r.plan.body.terms[k]
        if t.matrix >= 0 and r.mode & TRAIN and r.decayed[t.matrix]:
            total += t.sign * sum_of_squares(r, t.matrix, tag)
        elif t.q_kind == R_NONE:
            total += t.sign * (r.K.sum(U + t.p, t.count) if t.count > 1 else <double>U[t.p])
        else:
            total += t.sign * (r.K.dot(U + t.p, U + t.q, t.count) if t.count > 1 else <double>U[t.p] * U[t.q])
    return total


cdef void forward(Replay r, int thread, int l0, int lanes, const long long *rows, real tag) noexcept nogil:
    cdef const Body *p = &r.plan.body
    cdef Py_ssize_t k
    cdef int l
    cdef const Instr *q
    cdef real *V = <real *>r.V[thread]
    cdef real *U = <real *>r.U
    cdef const Input *x
    cdef const real *v
    memset(r.status + l0, 0, lanes)
    for l in range(r.n_inputs):
        x = &r.input[l]
        if p.run_of_input[l] >= 0 and (x.dense or x.forced or x.begin == NULL):
            load_input(r, l, l0, lanes, rows, tag)
    for k in range(p.n_lanes):
        q = &p.lanes[k]
        if q.kind == I_ELEMENTS or q.kind == I_SUM:
            if q.kind == I_SUM:
                sum_forward(r, q, V, U, lanes, tag)
            else:
                elements_forward(r, q, V, U, lanes, False, tag)
            if q.raises and r.K.not_finite(V + <Py_ssize_t>q.out * lanes, <Py_ssize_t>q.n * lanes):
                for l in range(lanes):
                    if any_error(r, q, V, U, lanes, l, False, tag):
                        r.status[l0 + l] |= SUSPECT
            if q.steep and r.watch:
                for l in range(lanes):
                    if steep_lane(r, q, V, U, lanes, l, False, tag):
                        r.status[l0 + l] |= UNSURE
        elif q.kind == I_ROWS:
            rows_forward(r, q, l0, lanes, tag)
            if q.steep and r.watch:
                for l in range(l0, l0 + lanes):
                    if steep_row(r, q, l, tag):
                        r.status[l] |= UNSURE
        elif q.kind == I_PRODUCT:
            product_forward(r, q, thread, l0, lanes, rows, tag)
        elif q.kind == I_NUMBER:
            x = &r.input[q.extra]
            for l in range(lanes):
                V[<Py_ssize_t>q.out * lanes + l] = <real>(
                    x.whole[rows[l0 + l]] if x.whole != NULL else x.data[rows[l0 + l]])
        elif q.kind == I_SPREAD:
            spread(r, q, rows_of(r, r.RV, q.a.run, l0, tag), V, lanes, tag)
        elif q.kind == I_PACK:
            pack(r, q, V, U, l0, lanes, tag)
        elif q.kind == I_SELECT:
            select_forward(r, q, V, U, lanes, tag)
        elif q.kind == I_BEST:
            best_forward(r, q, V, U, l0, lanes, tag)
        elif q.kind == I_GATHER:
            gather_forward(r, q, V, l0, lanes, rows, tag)
        else:
            loss_forward(r, q, thread, l0, lanes, rows, tag)
    if p.result_kind == R_SLOTS:
        v = V + <Py_ssize_t>p.result * lanes
        for l in range(lanes):
            r.loss[l0 + l] = v[l]
    else:
        for l in range(lanes):
            r.loss[l0 + l] = U[p.result]
    if r.watch:
        watch_chunk(r, V, l0, lanes, rows, tag)
    check_guards(r, V, U, <real *>r.scratch[thread], l0, lanes, tag)


cdef void watch_chunk(Replay r, const real *V, int l0, int lanes, const long long *rows, real tag) noexcept nogil:
    """Marks the rows in which something that was computed, or that a product reads, is NaN or so large that in another
    order of additions it might be infinite: sums are fused and reordered here, and equal operations done once."""
    cdef const Body *p = &r.plan.body
    cdef Py_ssize_t k
    cdef int l
    cdef const real *v
    cdef const Input *x
    if r.K.beyond(V, <Py_ssize_t>p.n_slots * lanes):
        for k in range(p.n_slots):
            v = V + k * lanes
            if r.K.beyond(v, lanes):
                for l in range(lanes):
                    if r.K.beyond(v + l, 1):
                        r.status[l0 + l] |= UNSURE
    for k in range(p.n_lanes):
        if p.lanes[k].run < 0 or p.lanes[k].kind == I_PACK:      # what is packed lies in slots
            continue
        v = rows_of(r, r.RV, p.lanes[k].run, l0, tag)
        if r.K.beyond(v, <Py_ssize_t>p.runs[p.lanes[k].run].ld * lanes):
            for l in range(lanes):
                if r.K.beyond(v + <Py_ssize_t>l * p.runs[p.lanes[k].run].ld, p.lanes[k].n):
                    r.status[l0 + l] |= UNSURE
    for k in range(r.plan.n_products):
        if p.products[k].whole_input < 0 or r.input[p.products[k].whole_input].finite:
            continue
        x = &r.input[p.products[k].whole_input]
        for l in range(lanes):
            if r.K.beyond(x.data + rows[l0 + l] * x.width, x.width):         # doubles, as it is wide
                r.status[l0 + l] |= UNSURE


cdef bint steep_lane(Replay r, const Instr *q, const real *V, const real *U, int lanes, int l, bint uniform,
                     real tag) noexcept nogil:
    """Whether a slope of an instruction's operations is not finite in lane l."""
    cdef bint va = is_vector(&q.a, uniform), vb = is_vector(&q.b, uniform)
    cdef int k
    cdef double x, y = 0.0
    for k in range(q.n):
        x = V[<Py_ssize_t>place(&q.a, k) * lanes + l] if va else U[place(&q.a, k)]
        if q.b.kind != R_NONE:
            y = V[<Py_ssize_t>place(&q.b, k) * lanes + l] if vb else U[place(&q.b, k)]
        if is_steep_at(q.code, x, y, V[<Py_ssize_t>(q.out + k) * lanes + l]):
            return True
    return False


cdef bint steep_row(Replay r, const Instr *q, int l, real tag) noexcept nogil:
    """The same of an operation on the columns of a run."""
    cdef bint ra = q.a.kind == R_ROWS, rb = q.b.kind == R_ROWS
    cdef const real *a = rows_of(r, r.RV, q.a.run, l, tag) if ra else <real *>r.U + q.a.start
    cdef const real *b = rows_of(r, r.RV, q.b.run, l, tag) if rb else <real *>r.U + q.b.start
    cdef const real *v = rows_of(r, r.RV, q.run, l, tag)
    cdef int k
    for k in range(q.n):
        if is_steep_at(q.code, a[k if ra or q.a.step else 0],
                       0.0 if q.b.kind == R_NONE else <double>b[k if rb or q.b.step else 0], v[k]):
            return True
    return False


cdef bint is_steep_at(int code, double x, double y, double v) noexcept nogil:
    cdef Row *f = row(code)
    if f.arity == 1:
        return not isfinite(f.d(x, v))
    return not isfinite(f.da(x, y, v)) or not isfinite(f.db(x, y, v))


cdef void load_input(Replay r, int i, int l0, int lanes, const long long *rows, real tag) noexcept nogil:
    """Rows of the data as numbers of our type, some at a time."""
    cdef Rows16 row
    cdef const Input *x = &r.input[i]
    cdef int run = r.plan.body.run_of_input[i], l = 0, k, n
    while l < lanes:
        n = min(16, lanes - l)
        for k in range(n):
            row[k] = x.data + rows[l0 + l + k] * x.width
        r.K.load_rows(rows_of(r, r.RV, run, l0 + l, tag), r.plan.body.runs[run].ld, row, <int>x.width, n)
        l += n


cdef inline bint is_failure(int code, double x, double y, double v) noexcept nogil:
    """Whether an operation with this result raises in the engine."""
    if v - v == 0.0:
        return False
    return isfinite(x) if code == X_SQUARE else is_error(code, x, y, v)


cdef bint any_error(Replay r, const Instr *q, const real *V, const real *U, int lanes, int l, bint uniform,
                    real tag) noexcept nogil:
    """Whether one of the operations of an instruction raises, or of a sum's squares might, in lane l."""
    cdef bint va = is_vector(&q.a, uniform), vb = is_vector(&q.b, uniform)
    cdef const Sum *s
    cdef const Term *t
    cdef int k
    cdef double x, y = 0.0
    if q.kind == I_SUM:
        s = &r.plan.body.sums[q.extra]
        for k in range(s.first, s.stop):
            t = &r.plan.body.terms[k]
            if t.q_kind != R_NONE and t.p == t.q and t.p_kind == t.q_kind:
                if t.count > 1:
                    return True
                x = V[<Py_ssize_t>t.p * lanes + l] if t.p_kind == R_SLOTS else U[t.p]
                if isfinite(x) and not isfinite(<double><real>(x * x)):
                    return True
        return False
    for k in range(q.n):
        x = V[<Py_ssize_t>place(&q.a, k) * lanes + l] if va else U[place(&q.a, k)]
        if q.b.kind != R_NONE:
            y = V[<Py_ssize_t>place(&q.b, k) * lanes + l] if vb else U[place(&q.b, k)]
        if is_failure(q.code, x, y, V[<Py_ssize_t>(q.out + k) * lanes + l]):
            return True
    return False


cdef void check_guards(Replay r, const real *V, const real *U, real *room, int l0, int lanes,
                       real tag) noexcept nogil:
    """Comparisons of all lanes at once, and one by one only if some come out otherwise."""
    cdef const Body *p = &r.plan.body
    cdef Py_ssize_t k
    cdef int l, ones
    cdef const Guard *g
    cdef const real *x
    cdef const real *y
    cdef real yes = 1.0, no = 0.0
    for k in range(p.n_guards):
        g = &p.guards[k]
        if g.kind != R_SLOTS and g.other != R_SLOTS:
            continue
        x = V + <Py_ssize_t>g.p * lanes if g.kind == R_SLOTS else U + g.p
        y = V + <Py_ssize_t>g.q * lanes if g.other == R_SLOTS else U + g.q
        if g.op <= 5:
            ones = (g.kind != R_SLOTS) | (g.other != R_SLOTS) << 1 | 12
            r.K.choose(g.op, ones, room, x, y, &yes, &no, lanes)
            if r.K.sum(room, lanes) == (lanes if g.value != 0.0 else 0):
                continue
        for l in range(lanes):
            if not holds(g, x[l if g.kind == R_SLOTS else 0],
                         0.0 if g.other == R_NONE else <double>y[l if g.other == R_SLOTS else 0], <real>g.value):
                r.status[l0 + l] |= MISSED


cdef void apply(Replay r, const Instr *q, int mode, real *out, const real *a, const real *b, Py_ssize_t n,
                real tag) noexcept nogil:
    """One operation on n numbers."""
    cdef Py_ssize_t k
    cdef Row *f
    cdef bint one_a = mode == FS_A_IS_ONE, one_b = mode == FS_B_IS_ONE
    if q.op >= 0:
        if q.b.kind == R_NONE:
            r.K.unary(q.op, out, a, n)
        else:
            r.K.binary(q.op, mode, out, a, b, n)
    elif q.code == X_COPY:
        memcpy(out, a, n * sizeof(real))
    else:
        f = row(q.code)
        if f.arity == 1:
            for k in range(n):
                out[k] = <real>f.f(a[k])
        else:
            for k in range(n):
                out[k] = <real>f.f2(a[0 if one_a else k], b[0 if one_b else k])


cdef void apply_backward(Replay r, const Instr *q, int mode, real *da, real *db, const real *a, const real *b,
                         const real *v, const real *g, Py_ssize_t n, bint masked, real tag) noexcept nogil:
    """masked: gradients of zero send nothing, which the kernels do not look at."""
    cdef Py_ssize_t k
    cdef Row *f
    cdef bint one_a = mode == FS_A_IS_ONE, one_b = mode == FS_B_IS_ONE
    cdef double x, y
    if q.code == X_COPY:
        return
    if q.op >= 0 and not masked:
        if q.b.kind != R_NONE:
            r.K.binary_backward(q.op, mode, da, db, a, b, v, g, n)
        elif da != NULL:
            r.K.unary_backward(q.op, da, a, v, g, n)
        return
    f = row(q.code)
    for k in range(n):
        if g[k] == 0:
            continue
        x = a[0 if one_a else k]
        if q.code == X_SQUARE:
            da[k] += <real>(g[k] * (2.0 * x))
            continue
        if f.arity == 1:
            da[k] += <real>(g[k] * f.d(x, v[k]))
            continue
        y = b[0 if one_b else k]
        if da != NULL:
            da[0 if one_a else k] += <real>(g[k] * f.da(x, y, v[k]))
        if db != NULL:
            db[0 if one_b else k] += <real>(g[k] * f.db(x, y, v[k]))


cdef inline bint is_vector(const Ref *a, bint uniform) noexcept nogil:
    """Whether an operand has a number for each lane (all have, in the uniform part)."""
    return a.kind == R_SLOTS or uniform


cdef inline bint is_flat(const Ref *a, int n, bint uniform) noexcept nogil:
    """Whether an operand of n operations is one stretch of memory, or one number."""
    if a.kind == R_NONE or n == 1:
        return True
    if a.index != NULL:
        return False
    return a.step == 1 if is_vector(a, uniform) else a.step == 0


cdef inline int mode_of_one_lane(const Instr *q) noexcept nogil:
    """Of operations on one lane, all at once: an operand that all share is one number then; -1: one by one."""
    cdef bint one_a = q.a.step == 0, one_b = q.b.kind != R_NONE and q.b.step == 0
    if q.n == 1 or q.a.index != NULL or q.b.index != NULL or (one_a and (one_b or q.b.kind == R_NONE)):
        return -1
    return FS_A_IS_ONE if one_a else FS_B_IS_ONE if one_b else FS_VECTORS


cdef void elements_forward(Replay r, const Instr *q, real *V, real *U, int lanes, bint uniform,
                           real tag) noexcept nogil:
    cdef bint va = is_vector(&q.a, uniform), vb = q.b.kind == R_NONE or is_vector(&q.b, uniform)
    cdef int mode = FS_VECTORS if va and vb else FS_B_IS_ONE if va else FS_A_IS_ONE
    cdef Py_ssize_t k
    cdef real *out = V + <Py_ssize_t>q.out * lanes
    cdef const real *a
    cdef const real *b = NULL
    cdef int together = mode_of_one_lane(q) if lanes == 1 else -1
    if together >= 0:
        mode = together
    if together >= 0 or (is_flat(&q.a, q.n, uniform) and is_flat(&q.b, q.n, uniform)):
        a = V + <Py_ssize_t>place(&q.a, 0) * lanes if va else U + place(&q.a, 0)
        if q.b.kind != R_NONE:
            b = V + <Py_ssize_t>place(&q.b, 0) * lanes if vb else U + place(&q.b, 0)
        apply(r, q, mode, out, a, b, <Py_ssize_t>q.n * lanes, tag)
        return
    for k in range(q.n):
        a = V + <Py_ssize_t>place(&q.a, <int>k) * lanes if va else U + place(&q.a, <int>k)
        if q.b.kind != R_NONE:
            b = V + <Py_ssize_t>place(&q.b, <int>k) * lanes if vb else U + place(&q.b, <int>k)
        apply(r, q, mode, out + k * lanes, a, b, lanes, tag)


cdef void rows_forward(Replay r, const Instr *q, int l0, int lanes, real tag) noexcept nogil:
    """An operation on whole runs; an operand may be n uniform numbers, or one."""
    cdef const Run *out = &r.plan.body.runs[q.run]
    cdef real *U = <real *>r.U
    cdef bint ra = q.a.kind == R_ROWS, rb = q.b.kind == R_ROWS
    cdef bint one_a = not ra and q.a.step == 0, one_b = q.b.kind == R_UNIFORM and q.b.step == 0
    cdef int mode = FS_A_IS_ONE if one_a else FS_B_IS_ONE if one_b else FS_VECTORS, l, k
    cdef const real *a
    cdef const real *b
    cdef const real *v
    cdef bint flat = out.ld == q.n and (ra or one_a) and (rb or one_b or q.b.kind == R_NONE)
    if flat and (not ra or r.plan.body.runs[q.a.run].ld == q.n) and (not rb or r.plan.body.runs[q.b.run].ld == q.n):
        a = rows_of(r, r.RV, q.a.run, l0, tag) if ra else U + q.a.start
        b = rows_of(r, r.RV, q.b.run, l0, tag) if rb else U + q.b.start
        apply(r, q, mode, rows_of(r, r.RV, q.run, l0, tag), a, b, <Py_ssize_t>q.n * lanes, tag)
    else:
        for l in range(l0, l0 + lanes):
            a = rows_of(r, r.RV, q.a.run, l, tag) if ra else U + q.a.start
            b = rows_of(r, r.RV, q.b.run, l, tag) if rb else U + q.b.start
            apply(r, q, mode, rows_of(r, r.RV, q.run, l, tag), a, b, q.n, tag)
    if q.raises:
        for l in range(l0, l0 + lanes):
            v = rows_of(r, r.RV, q.run, l, tag)
            if not r.K.not_finite(v, q.n):
                continue
            a = rows_of(r, r.RV, q.a.run, l, tag) if ra else U + q.a.start
            b = rows_of(r, r.RV, q.b.run, l, tag) if rb else U + q.b.start
            for k in range(q.n):
                if is_failure(q.code, a[0 if one_a else k], 0.0 if q.b.kind == R_NONE else b[0 if one_b else k], v[k]):
                    r.status[l] |= SUSPECT


cdef void sum_forward(Replay r, const Instr *q, real *V, real *U, int lanes, real tag) noexcept nogil:
    cdef const Sum *s = &r.plan.body.sums[q.extra]
    cdef const Term *t
    cdef real *out = V + <Py_ssize_t>q.out * lanes
    cdef double number = 0.0 if s.zero else -0.0     # what leaves every x + number as it is
    cdef int k, l
    for k in range(s.first, s.stop):
        t = &r.plan.body.terms[k]
        if t.p_kind == R_UNIFORM and t.q_kind != R_SLOTS:
            number += t.sign * <double>U[t.p] * (<double>U[t.q] if t.q_kind == R_UNIFORM else 1.0)
    for l in range(lanes):
        out[l] = <real>number
    for k in range(s.first, s.stop):
        t = &r.plan.body.terms[k]
        if t.p_kind == R_UNIFORM and t.q_kind != R_SLOTS:
            continue
        elif t.q_kind == R_NONE:
            if lanes == 1:
                out[0] += t.sign * V[t.p]
            elif t.sign > 0:
                r.K.add(out, V + <Py_ssize_t>t.p * lanes, lanes)
            else:
                r.K.add_scaled(out, -1.0, V + <Py_ssize_t>t.p * lanes, lanes)
        elif t.p_kind == R_UNIFORM:
            r.K.add_scaled(out, t.sign * <double>U[t.p], V + <Py_ssize_t>t.q * lanes, lanes)
        elif t.q_kind == R_UNIFORM:
            r.K.add_scaled(out, t.sign * <double>U[t.q], V + <Py_ssize_t>t.p * lanes, lanes)
        elif t.sign > 0:
            r.K.add_product(out, V + <Py_ssize_t>t.p * lanes, V + <Py_ssize_t>t.q * lanes, lanes)
        else:
            subtract_product(out, V + <Py_ssize_t>t.p * lanes, V + <Py_ssize_t>t.q * lanes, lanes)


cdef void subtract_product(real *y, const real *a, const real *b, int n) noexcept nogil:
    cdef int k
    for k in range(n):
        y[k] -= a[k] * b[k]


cdef inline bint has_sparse(Replay r, const Product *p) noexcept nogil:
    return p.whole_input >= 0 and r.input[p.whole_input].begin != NULL and not r.unfit[p.matrix]


cdef void find_rows(Replay r, const Input *x, const long long *rows, int lanes, int part, int parts, const int **column,
                    const void **value, int *count) noexcept nogil:
    """Sparse rows, or some parts of them, of some lanes."""
    cdef int l
    cdef Py_ssize_t first, stop
    for l in range(lanes):
        first, stop = x.begin[rows[l] * r.parts + part], x.begin[rows[l] * r.parts + part + parts]
        column[l] = x.column + first
        value[l] = <const char *>x.value + <size_t>first * r.size
        count[l] = <int>(stop - first)


cdef void product_forward(Replay r, const Instr *q, int thread, int l0, int lanes, const long long *rows,
                          real tag) noexcept nogil:
    cdef const Product *p = &r.plan.body.products[q.extra]
    cdef const Matrix *m = &r.plan.body.matrices[p.matrix]
    cdef const real *w = <real *>r.U + m.base
    cdef const real *bias = <real *>r.U + r.plan.body.matrices[p.bias].base if p.bias >= 0 else NULL
    cdef const real *x = rows_of(r, r.RV, p.x, l0, tag) + p.first
    cdef real *out = rows_of(r, r.RV, q.run, l0, tag)
    cdef const int *column[128]                  # the most that a chunk has
    cdef const void *value[128]
    cdef int count[128]
    cdef int l, ld = r.plan.body.runs[p.x].ld
    cdef real scale = <real>r.scale[p.matrix]
    cdef const real *b = bias if scale == 1.0 else NULL
    if p.exact and r.wide:
        exact_product(r, thread, p, <double *>out, l0, lanes, rows)
        return
    if has_sparse(r, p):
        find_rows(r, &r.input[p.whole_input], rows + l0, lanes, 0, r.parts, column, value, count)
    if m.ld == 1:
        for l in range(lanes):
            out[l] = (b[0] if b != NULL else 0) + <real>(
                r.K.sparse_dot(column[l], value[l], count[l], w) if has_sparse(r, p)
                else r.K.dot(x + <Py_ssize_t>l * ld, w, m.rows))
    elif has_sparse(r, p):
        r.K.sparse_affine(out, m.ld, b, w, m.ld, m.ld, lanes, column, value, count)
    else:
        r.K.dense_affine(out, m.ld, b, w, m.ld, m.ld, lanes, x, ld, m.rows)
    if scale != 1.0:
        r.K.binary(FS_MUL, FS_B_IS_ONE, out, out, &scale, <Py_ssize_t>lanes * m.ld)
        for l in range(lanes):
            if bias != NULL:
                r.K.add(out + <Py_ssize_t>l * m.ld, bias, m.ld)
    if p.skips and not has_sparse(r, p) and r.K.not_finite(out, <Py_ssize_t>lanes * m.ld):
        skipping_product(r, p, out, l0, lanes, rows, tag)


cdef void exact_product(Replay r, int thread, const Product *p, double *out, int l0, int lanes,
                        const long long *rows) noexcept nogil:
    """As the engine does it, by its own kernel: a decision is made on the result."""
    cdef const Matrix *m = &r.plan.body.matrices[p.matrix]
    cdef const double *w = <double *>r.U + m.base
    cdef const double *b = <double *>r.U + r.plan.body.matrices[p.bias].base if p.bias >= 0 else r.zeros
    cdef double *value = <double *>r.scratch[thread]
    cdef int *row = <int *>(value + m.rows)
    cdef double x
    cdef int l, j, count
    for l in range(lanes):
        count = 0
        for j in range(m.rows):
            x = input_of(r, p, l0 + l, j, rows, <double>0.0)
            row[count], value[count] = j, x
            count += x != 0.0                    # NaN counts
        K.affine(out + <Py_ssize_t>l * m.ld, b, w, m.ld, row, value, count)


cdef void skipping_product(Replay r, const Product *p, real *out, int l0, int lanes, const long long *rows,
                           real tag) noexcept nogil:
    """A layer whose result is not finite: inputs of exactly zero count as nothing, whatever their weights are."""
    cdef const Matrix *m = &r.plan.body.matrices[p.matrix]
    cdef const real *w = <real *>r.U + m.base
    cdef real *y
    cdef real x, scale = <real>r.scale[p.matrix]
    cdef int l, i, j
    for l in range(lanes):
        y = out + <Py_ssize_t>l * m.ld
        for i in range(m.cols):
            y[i] = (<real *>r.U + r.plan.body.matrices[p.bias].base)[i] if p.bias >= 0 else 0
        for j in range(m.rows):
            x = input_of(r, p, l0 + l, j, rows, tag)
            if x != 0:
                for i in range(m.cols):
                    y[i] += scale * x * w[<Py_ssize_t>j * m.ld + i]


cdef void spread(Replay r, const Instr *q, const real *source, real *V, int lanes, real tag) noexcept nogil:
    cdef int ld = r.plan.body.runs[q.a.run].ld, k, l, at
    cdef real *out = V + <Py_ssize_t>q.out * lanes
    if q.a.index == NULL and (q.a.step == 1 or q.n == 1):
        r.K.turn(out, lanes, source + q.a.start, ld, lanes, q.n, False)
        return
    for k in range(q.n):
        at = place(&q.a, k)
        for l in range(lanes):
            out[<Py_ssize_t>k * lanes + l] = source[<Py_ssize_t>l * ld + at]


cdef void pack(Replay r, const Instr *q, const real *V, const real *U, int l0, int lanes, real tag) noexcept nogil:
    cdef int ld = r.plan.body.runs[q.run].ld, k = 0, l, n
    cdef real *out = rows_of(r, r.RV, q.run, l0, tag)
    cdef const int *index = q.a.index
    while k < q.n:
        n = 1
        if index[k] < 0:
            for l in range(lanes):
                out[<Py_ssize_t>l * ld + k] = U[-1 - index[k]]
        else:
            while k + n < q.n and index[k + n] == index[k] + n:
                n += 1
            r.K.turn(out + k, ld, V + <Py_ssize_t>index[k] * lanes, lanes, n, lanes, False)
        k += n


cdef inline const real *one_of(const Ref *a, const real *V, const real *U, int lanes) noexcept nogil:
    return V + <Py_ssize_t>a.start * lanes if a.kind == R_SLOTS else U + a.start


cdef void select_forward(Replay r, const Instr *q, real *V, real *U, int lanes, real tag) noexcept nogil:
    cdef const Item *it = &r.plan.body.items[q.extra]
    cdef int ones = (q.a.kind != R_SLOTS) | (q.b.kind != R_SLOTS) << 1 | (it.c.kind != R_SLOTS) << 2 | (
        it.d.kind != R_SLOTS) << 3
    r.K.choose(it.count, ones, V + <Py_ssize_t>q.out * lanes, one_of(&q.a, V, U, lanes), one_of(&q.b, V, U, lanes),
               one_of(&it.c, V, U, lanes), one_of(&it.d, V, U, lanes), lanes)


cdef inline long long choice(Replay r, int argument, int fixed, long long row, Py_ssize_t n) noexcept nogil:
    """A label or an index; -1: out of range."""
    cdef long long i = fixed if argument < 0 else r.input[argument].whole[row]
    if i < 0:
        i = -1 if fixed == -2 or i + n < 0 else i + n
    return i if i < n else -1


cdef void best_forward(Replay r, const Instr *q, real *V, const real *U, int l0, int lanes, real tag) noexcept nogil:
    cdef const Item *it = &r.plan.body.items[q.extra]
    cdef bint least = q.code == BEST_MIN or q.code == BEST_ARGMIN, place = q.code > BEST_MIN
    cdef real *best = V + <Py_ssize_t>(it.saved if place else q.out) * lanes
    cdef real *at = V + <Py_ssize_t>(q.out if place else it.saved) * lanes
    cdef int k, i, l
    if q.a.kind == R_ROWS:
        r.K.best(least, best, at, rows_of(r, r.RV, it.x, l0, tag) + q.a.start, r.plan.body.runs[it.x].ld, it.count,
                 lanes)
        return
    i = q.a.index[0]
    for l in range(lanes):
        best[l] = V[<Py_ssize_t>i * lanes + l] if i >= 0 else U[-1 - i]
    memset(at, 0, lanes * sizeof(real))
    for k in range(1, it.count):
        i = q.a.index[k]
        r.K.better(least, i < 0, best, at, V + <Py_ssize_t>i * lanes if i >= 0 else U + (-1 - i), k, lanes)


cdef inline long long chosen(Replay r, const Item *it, int l, long long row, Py_ssize_t n, real tag) noexcept nogil:
    """The index of a gather in lane l, that of the row or the one that was computed; -1: out of range."""
    cdef long long i
    if it.argument >= 0:
        return choice(r, it.argument, 0, row, n)
    i = <long long>rows_of(r, r.RV, it.saved, l, tag)[0]
    return i if 0 <= i < n else -1


cdef void gather_forward(Replay r, const Instr *q, const real *V, int l0, int lanes, const long long *rows,
                         real tag) noexcept nogil:
    cdef const Item *it = &r.plan.body.items[q.extra]
    cdef real *out = rows_of(r, r.RV, q.run, l0, tag)
    cdef const Matrix *m
    cdef const real *source
    cdef long long i
    cdef int l, n, ld = r.plan.body.runs[q.run].ld
    for l in range(lanes):
        if it.address >= 0:
            m = &r.plan.body.matrices[it.address]
            n = m.rows
        else:
            n = q.b.start // it.count
        if it.argument < 0:
            rows_of(r, r.RV, it.saved, l0 + l, tag)[0] = V[<Py_ssize_t>it.label * lanes + l]
        i = chosen(r, it, l0 + l, rows[l0 + l], n, tag)
        if i < 0:
            r.status[l0 + l] |= SUSPECT
            i = 0
        if it.address >= 0:
            source = <real *>r.U + m.base + i * m.ld
        else:
            source = rows_of(r, r.RV, it.x, l0 + l, tag) + q.a.start + i * it.count
        memcpy(out + <Py_ssize_t>l * ld, source, it.count * sizeof(real))


cdef void loss_forward(Replay r, const Instr *q, int thread, int l0, int lanes, const long long *rows,
                       real tag) noexcept nogil:
    """cross_entropy, logsumexp, softmax."""
    cdef const Item *it = &r.plan.body.items[q.extra]
    cdef const real *z = rows_of(r, r.RV, it.x, l0, tag) + q.a.start
    cdef int ld = r.plan.body.runs[it.x].ld, n = q.b.start, l
    cdef real *out
    cdef real *p
    cdef long long i
    cdef double lse
    if it.exact and r.wide:
        for l in range(lanes):
            p = rows_of(r, r.RV, q.run if q.kind == I_SOFTMAX else it.saved, l0 + l, tag)
            memcpy(p, z + <Py_ssize_t>l * ld, n * sizeof(real))
            lse = softmax_in_place(<double *>p, n)
            if q.kind != I_SOFTMAX:
                (<real *>r.V[thread])[<Py_ssize_t>q.out * lanes + l] = <real>lse
        if q.kind == I_SOFTMAX:
            return
        out = <real *>r.V[thread] + <Py_ssize_t>q.out * lanes
    elif q.kind == I_SOFTMAX:
        r.K.softmax(rows_of(r, r.RV, q.run, l0, tag), r.plan.body.runs[q.run].ld, r.scratch[thread], z, ld, n, lanes)
        return
    else:
        out = <real *>r.V[thread] + <Py_ssize_t>q.out * lanes
        r.K.softmax(rows_of(r, r.RV, it.saved, l0, tag), r.plan.body.runs[it.saved].ld, out, z, ld, n, lanes)
    if q.kind == I_XENT:
        for l in range(lanes):
            i = choice(r, it.argument, it.label if it.argument < 0 else -2, rows[l0 + l], n)
            if i < 0:
                r.status[l0 + l] |= SUSPECT
                i = 0
            out[l] -= z[<Py_ssize_t>l * ld + i]


# --- backwards ------------------------------------------------------------------------------------

cdef bint backward(Replay r, int thread, int c, int l0, int lanes, const long long *rows, real tag) noexcept nogil:
    """Whether all gradients that leave the chunk are finite.

    A gradient of exactly zero sends zero, whatever the slope.  Kernels do not look; where 0 * inf has made a NaN of
    it, it comes out at the end, since NaN only gets lost where it is multiplied by nothing: then all is done again,
    number by number."""
    if not r.plan.plain and backward_pass(r, thread, c, l0, lanes, rows, False, tag):
        return True
    return backward_pass(r, thread, c, l0, lanes, rows, True, tag)


cdef bint backward_pass(Replay r, int thread, int c, int l0, int lanes, const long long *rows, bint masked,
                        real tag) noexcept nogil:
    """Whether all gradients that leave the chunk are finite."""
    cdef const Body *p = &r.plan.body
    cdef Py_ssize_t k
    cdef int l, mode = r.mode & (PARAMETERS | ARGUMENTS)
    cdef bint finite = True
    cdef const Instr *q
    cdef real *V = <real *>r.V[thread]
    cdef real *A = <real *>r.A[thread]
    cdef real *U = <real *>r.U
    cdef real *port = <real *>r.PB + <Py_ssize_t>c * p.n_ports
    cdef real *g
    cdef real one
    cdef Input *x
    memset(port, 0, <size_t>p.n_ports * sizeof(real))
    for k in range(p.n_runs):
        if p.runs[k].mask & mode:
            memset(rows_of(r, r.RA, <int>k, l0, tag), 0, <size_t>p.runs[k].ld * lanes * sizeof(real))
    if p.result_kind == R_SLOTS:
        begin_gradients(p, p.n_lanes, A, lanes, tag)
        g = A + <Py_ssize_t>p.adjoint[p.result] * lanes
        for l in range(lanes):
            g[l] = 1.0
    for k in range(p.n_lanes - 1, -1, -1):
        q = &p.lanes[k]
        begin_gradients(p, k, A, lanes, tag)
        if not q.mask & mode or (q.run < 0 and q.kind != I_NUMBER and p.adjoint[q.out] < 0):
            continue
        if q.kind == I_ELEMENTS:
            elements_backward(r, q, V, A, U, port, lanes, False, masked, tag)
        elif q.kind == I_SUM:
            sum_backward(r, q, V, A, U, port, lanes, masked, tag)
        elif q.kind == I_ROWS:
            rows_backward(r, q, l0, lanes, port, masked, tag)
        elif q.kind == I_PRODUCT:
            if q.a.mask & mode:
                product_backward(r, q, thread, l0, lanes, masked, tag)
        elif q.kind == I_NUMBER:
            x = &r.input[q.extra]
            if x.gradient != NULL:
                for l in range(lanes):
                    one = 0 if p.adjoint[q.out] < 0 else A[<Py_ssize_t>p.adjoint[q.out] * lanes + l]
                    x.gradient[rows[l0 + l]] = one
                    finite = finite and one - one == 0
        elif q.kind == I_SPREAD:
            spread_backward(r, q, rows_of(r, r.RA, q.a.run, l0, tag), A, lanes, tag)
        elif q.kind == I_PACK:
            pack_backward(r, q, A, port, l0, lanes, tag)
        elif q.kind == I_SELECT:
            select_backward(r, q, V, A, U, port, lanes, tag)
        elif q.kind == I_BEST:
            best_backward(r, q, V, A, port, l0, lanes, tag)
        elif q.kind == I_GATHER:
            if p.items[q.extra].address < 0:
                gather_lanes_backward(r, q, l0, lanes, rows, tag)
        else:
            loss_backward(r, q, thread, l0, lanes, rows, tag)
    if mode & ARGUMENTS:
        for l in range(r.n_inputs):
            x = &r.input[l]
            if p.run_of_input[l] >= 0 and x.gradient != NULL:
                store_gradient(r, l, l0, lanes, rows, tag)
    if r.K.not_finite(port, p.n_ports):
        finite = False
    for k in range(p.n_runs):
        if finite and p.runs[k].mask & mode and r.K.not_finite(
                rows_of(r, r.RA, <int>k, l0, tag), <Py_ssize_t>p.runs[k].ld * lanes):
            finite = False
    return finite


cdef inline void begin_gradients(const Body *p, Py_ssize_t k, real *A, int lanes, real tag) noexcept nogil:
    """Those that are first added to by instruction k."""
    cdef int b
    for b in range(p.birth_of[k], p.birth_of[k + 1]):
        memset(A + <Py_ssize_t>p.births[b].at * lanes, 0, <size_t>p.births[b].count * lanes * sizeof(real))


cdef void product_backward(Replay r, const Instr *q, int thread, int l0, int lanes, bint masked,
                           real tag) noexcept nogil:
    """To the inputs of a matrix; the weights' gradients wait for all rows of the batch."""
    cdef const Product *p = &r.plan.body.products[q.extra]
    cdef const Matrix *m = &r.plan.body.matrices[p.matrix]
    cdef const real *g = rows_of(r, r.RA, q.run, l0, tag)
    cdef real scale = <real>r.scale[p.matrix]
    cdef const real *w = <real *>r.U + m.base
    cdef real *dx
    cdef int l, i, j
    if masked:
        for l in range(lanes):
            dx = rows_of(r, r.RA, p.x, l0 + l, tag) + p.first
            for i in range(m.cols):
                if g[<Py_ssize_t>l * m.ld + i] != 0:
                    for j in range(m.rows):
                        dx[j] += scale * g[<Py_ssize_t>l * m.ld + i] * w[<Py_ssize_t>j * m.ld + i]
        return
    if scale != 1.0:
        r.K.binary(FS_MUL, FS_B_IS_ONE, r.scaled[thread], g, &scale, <Py_ssize_t>lanes * m.ld)
        g = <real *>r.scaled[thread]
    if m.ld == 1:
        for l in range(lanes):
            r.K.add_scaled(rows_of(r, r.RA, p.x, l0 + l, tag) + p.first, g[l], <real *>r.U + m.base, m.rows)
        return
    r.K.input_gradient(rows_of(r, r.RA, p.x, l0, tag) + p.first, r.plan.body.runs[p.x].ld, <real *>r.U + m.base, m.ld,
                       m.ld, m.rows, lanes, g, m.ld, r.scratch[thread])


cdef void store_gradient(Replay r, int i, int l0, int lanes, const long long *rows, real tag) noexcept nogil:
    cdef const Input *x = &r.input[i]
    cdef const real *g
    cdef double *out
    cdef int l
    cdef Py_ssize_t k
    for l in range(l0, l0 + lanes):
        g = rows_of(r, r.RA, r.plan.body.run_of_input[i], l, tag)
        out = x.gradient + rows[l] * x.width
        for k in range(x.width):
            out[k] = g[k]


cdef void elements_backward(Replay r, const Instr *q, real *V, real *A, real *U, real *port, int lanes, bint uniform,
                            bint masked, real tag) noexcept nogil:
    """`port`: where the gradients of uniform operands go; in the uniform part all are in A."""
    cdef bint va = is_vector(&q.a, uniform), vb = q.b.kind == R_NONE or is_vector(&q.b, uniform)
    cdef int mode = FS_VECTORS if va and vb else FS_B_IS_ONE if va else FS_A_IS_ONE, which = r.mode & (
        PARAMETERS | ARGUMENTS)
    cdef bint wa = (q.a.mask & which) != 0, wb = (q.b.mask & which) != 0
    cdef int pa = 0 if q.a.index == NULL and q.a.step == 0 else 1
    cdef int pb = 0 if q.b.index == NULL and q.b.step == 0 else 1
    cdef Py_ssize_t k, out = <Py_ssize_t>q.out * lanes, at, bt, step = lanes, count = q.n
    cdef const int *adjoint = NULL if uniform else r.plan.body.adjoint
    cdef const real *g = A + <Py_ssize_t>(q.out if uniform else adjoint[q.out]) * lanes
    cdef int together = mode_of_one_lane(q) if lanes == 1 else -1
    cdef real *da
    cdef real *db
    if not wa and not wb:
        return
    if together >= 0 and (uniform or ((not wa or not va or q.a.step == 0 or q.a.together) and (
            not wb or not vb or q.b.step == 0 or q.b.together))):
        mode, step, count = together, q.n, 1
    elif is_flat(&q.a, q.n, uniform) and is_flat(&q.b, q.n, uniform) and (
            uniform or ((not wa or not va or q.a.together) and (not wb or not vb or q.b.together))):
        step, count = <Py_ssize_t>q.n * lanes, 1
    for k in range(count - 1, -1, -1):
        at = <Py_ssize_t>place(&q.a, <int>k) * (lanes if va else 1)
        bt = <Py_ssize_t>place(&q.b, <int>k) * (lanes if vb else 1)
        da = NULL
        db = NULL
        if wa and not va:
            da = port + q.a.port + k * pa
        elif wa:
            da = A + at if uniform else A + <Py_ssize_t>adjoint[place(&q.a, <int>k)] * lanes
        if wb and not vb:
            db = port + q.b.port + k * pb
        elif wb:
            db = A + bt if uniform else A + <Py_ssize_t>adjoint[place(&q.b, <int>k)] * lanes
        apply_backward(r, q, mode, da, db, V + at if va else U + at, V + bt if vb else U + bt,
                       V + out + k * step, g + k * step, step, masked, tag)


cdef void rows_backward(Replay r, const Instr *q, int l0, int lanes, real *port, bint masked,
                        real tag) noexcept nogil:
    cdef real *U = <real *>r.U
    cdef bint ra = q.a.kind == R_ROWS, rb = q.b.kind == R_ROWS
    cdef int which = r.mode & (PARAMETERS | ARGUMENTS)
    cdef bint wa = (q.a.mask & which) != 0, wb = (q.b.mask & which) != 0
    cdef int mode = FS_VECTORS, l
    cdef real *da
    cdef real *db
    if not wa and not wb:
        return
    if not ra and q.a.step == 0:
        mode = FS_A_IS_ONE
    elif q.b.kind == R_UNIFORM and q.b.step == 0:
        mode = FS_B_IS_ONE
    for l in range(l0, l0 + lanes):
        da = NULL
        db = NULL
        if wa:
            da = rows_of(r, r.RA, q.a.run, l, tag) if ra else port + q.a.port
        if wb:
            db = rows_of(r, r.RA, q.b.run, l, tag) if rb else port + q.b.port
        apply_backward(r, q, mode, da, db, rows_of(r, r.RV, q.a.run, l, tag) if ra else U + q.a.start,
                       rows_of(r, r.RV, q.b.run, l, tag) if rb else U + q.b.start,
                       rows_of(r, r.RV, q.run, l, tag), rows_of(r, r.RA, q.run, l, tag), q.n, masked, tag)


cdef void sum_backward(Replay r, const Instr *q, real *V, real *A, real *U, real *port, int lanes, bint masked,
                       real tag) noexcept nogil:
    cdef const Sum *s = &r.plan.body.sums[q.extra]
    cdef const Term *t
    cdef const real *g = A + <Py_ssize_t>r.plan.body.adjoint[q.out] * lanes
    cdef int k, which = r.mode & (PARAMETERS | ARGUMENTS)
    for k in range(s.stop - 1, s.first - 1, -1):
        t = &r.plan.body.terms[k]
        if t.p_mask & which:
            term_backward(r, t.sign, t.p_kind, t.p, t.p_port, t.q_kind, t.q, V, A, U, port, g, lanes, masked, tag)
        if t.q_kind != R_NONE and t.q_mask & which:
            term_backward(r, t.sign, t.q_kind, t.q, t.q_port, t.p_kind, t.p, V, A, U, port, g, lanes, masked, tag)


cdef void term_backward(Replay r, int sign, int kind, int p, int p_port, int other, int q, real *V, real *A, real *U,
                        real *port, const real *g, int lanes, bint masked, real tag) noexcept nogil:
    """What flows into p, whose factor is q."""
    cdef real *d
    cdef int l
    if masked and other != R_NONE:
        for l in range(lanes):
            if g[l] != 0:
                d = port + p_port if kind == R_UNIFORM else A + <Py_ssize_t>r.plan.body.adjoint[p] * lanes + l
                d[0] += sign * g[l] * (V[<Py_ssize_t>q * lanes + l] if other == R_SLOTS else U[q])
        return
    if kind == R_UNIFORM:
        if other == R_SLOTS:
            port[p_port] += <real>(sign * r.K.dot(g, V + <Py_ssize_t>q * lanes, lanes))
        else:
            port[p_port] += <real>(sign * r.K.sum(g, lanes) * (<double>U[q] if other == R_UNIFORM else 1.0))
        return
    d = A + <Py_ssize_t>r.plan.body.adjoint[p] * lanes
    if other == R_NONE:
        if lanes == 1:
            d[0] += sign * g[0]
        elif sign > 0:
            r.K.add(d, g, lanes)
        else:
            r.K.add_scaled(d, -1.0, g, lanes)
    elif other == R_UNIFORM:
        r.K.add_scaled(d, sign * <double>U[q], g, lanes)
    elif sign > 0:
        r.K.add_product(d, g, V + <Py_ssize_t>q * lanes, lanes)
    else:
        subtract_product(d, g, V + <Py_ssize_t>q * lanes, lanes)


cdef void spread_backward(Replay r, const Instr *q, real *target, const real *A, int lanes, real tag) noexcept nogil:
    cdef int ld = r.plan.body.runs[q.a.run].ld, k, l, at
    cdef const real *g = A + <Py_ssize_t>r.plan.body.adjoint[q.out] * lanes
    if q.a.index == NULL and (q.a.step == 1 or q.n == 1):
        r.K.turn(target + q.a.start, ld, g, lanes, q.n, lanes, True)
        return
    for k in range(q.n):
        at = place(&q.a, k)
        for l in range(lanes):
            target[<Py_ssize_t>l * ld + at] += g[<Py_ssize_t>k * lanes + l]


cdef void pack_backward(Replay r, const Instr *q, real *A, real *port, int l0, int lanes, real tag) noexcept nogil:
    cdef int ld = r.plan.body.runs[q.run].ld, k = 0, l, n, uniform = 0
    cdef const real *g = rows_of(r, r.RA, q.run, l0, tag)
    cdef const int *index = q.a.index
    cdef const int *adjoint = r.plan.body.adjoint
    while k < q.n:
        n = 1
        if index[k] < 0:
            for l in range(lanes):
                port[q.a.port + uniform] += g[<Py_ssize_t>l * ld + k]
            uniform += 1
        else:
            while k + n < q.n and index[k + n] >= 0 and adjoint[index[k + n]] == adjoint[index[k]] + n:
                n += 1
            r.K.turn(A + <Py_ssize_t>adjoint[index[k]] * lanes, lanes, g + k, ld, lanes, n, True)
        k += n


cdef void select_backward(Replay r, const Instr *q, real *V, real *A, real *U, real *port, int lanes,
                          real tag) noexcept nogil:
    cdef const Item *it = &r.plan.body.items[q.extra]
    cdef const real *g = A + <Py_ssize_t>r.plan.body.adjoint[q.out] * lanes
    cdef int ones = (q.a.kind != R_SLOTS) | (q.b.kind != R_SLOTS) << 1, outcome, which = r.mode & (
        PARAMETERS | ARGUMENTS)
    cdef const Ref *chosen
    cdef real *to
    for outcome in range(2):
        chosen = &it.c if outcome else &it.d
        if chosen.mask & which:
            to = port + chosen.port if chosen.kind != R_SLOTS else (
                A + <Py_ssize_t>r.plan.body.adjoint[chosen.start] * lanes)
            r.K.choose_backward(it.count, ones | (chosen.kind != R_SLOTS) << 2, outcome, to,
                                one_of(&q.a, V, U, lanes), one_of(&q.b, V, U, lanes), g, lanes)


cdef void best_backward(Replay r, const Instr *q, const real *V, real *A, real *port, int l0, int lanes,
                        real tag) noexcept nogil:
    """To the one that was chosen."""
    cdef const Item *it = &r.plan.body.items[q.extra]
    cdef const real *g = A + <Py_ssize_t>r.plan.body.adjoint[q.out] * lanes
    cdef const real *place = V + <Py_ssize_t>it.saved * lanes
    cdef int l, i, k, before
    for l in range(lanes):
        k = <int>place[l]
        if q.a.kind == R_ROWS:
            rows_of(r, r.RA, it.x, l0 + l, tag)[q.a.start + k] += g[l]
            continue
        i = q.a.index[k]
        if i >= 0:
            A[<Py_ssize_t>r.plan.body.adjoint[i] * lanes + l] += g[l]
            continue
        before = 0
        for i in range(k):
            before += q.a.index[i] < 0
        port[q.a.port + before] += g[l]


cdef void gather_lanes_backward(Replay r, const Instr *q, int l0, int lanes, const long long *rows,
                                real tag) noexcept nogil:
    cdef const Item *it = &r.plan.body.items[q.extra]
    cdef long long i
    cdef int l
    for l in range(lanes):
        i = chosen(r, it, l0 + l, rows[l0 + l], q.b.start // it.count, tag)
        if i < 0:                                # the row is marked, and its gradient is not used
            continue
        r.K.add(rows_of(r, r.RA, it.x, l0 + l, tag) + q.a.start + i * it.count, rows_of(r, r.RA, q.run, l0 + l, tag),
                it.count)


cdef void gather_backward(Replay r, const Instr *q, int n, const long long *rows, real tag) noexcept nogil:
    """Into uniform candidates, for all lanes of a batch in their order."""
    cdef const Item *it = &r.plan.body.items[q.extra]
    cdef const Matrix *m = &r.plan.body.matrices[it.address]
    cdef long long i
    cdef int l
    for l in range(n):
        i = chosen(r, it, l, rows[l], m.rows, tag)
        if i >= 0:                               # else the row is marked, and the sums are not used
            r.K.add(<real *>r.UA + m.base + i * m.ld, rows_of(r, r.RA, q.run, l, tag), it.count)


cdef void loss_backward(Replay r, const Instr *q, int thread, int l0, int lanes, const long long *rows,
                        real tag) noexcept nogil:
    cdef const Item *it = &r.plan.body.items[q.extra]
    cdef int n = q.b.start, l, k, j
    cdef const real *p
    cdef const real *g
    cdef real *dz
    cdef real total
    cdef bint any_sent
    cdef long long i
    if not q.a.mask & r.mode:
        return
    for l in range(lanes):
        dz = rows_of(r, r.RA, it.x, l0 + l, tag) + q.a.start
        if q.kind == I_SOFTMAX:
            p = rows_of(r, r.RV, q.run, l0 + l, tag)
            g = rows_of(r, r.RA, q.run, l0 + l, tag)
            total = 0.0
            any_sent = False
            for k in range(n):
                if g[k] != 0:
                    total += g[k] * p[k]
                    any_sent = True
            if any_sent and isfinite(total):
                for k in range(n):
                    dz[k] += p[k] * (g[k] - total)
            elif any_sent:                       # inf - inf is nothing that one output after the other would give
                for k in range(n - 1, -1, -1):
                    if g[k] != 0:
                        for j in range(n):
                            dz[j] += g[k] * p[k] * ((1.0 if j == k else 0.0) - p[j])
            continue
        p = rows_of(r, r.RV, it.saved, l0 + l, tag)
        g = <real *>r.A[thread] + <Py_ssize_t>r.plan.body.adjoint[q.out] * lanes + l
        if g[0] == 0:
            continue
        for k in range(n):
            dz[k] += g[0] * p[k]
        if q.kind == I_XENT:
            i = choice(r, it.argument, it.label if it.argument < 0 else -2, rows[l0 + l], n)
            if i >= 0:                           # else the row is marked, and its gradient is not used
                dz[i] -= g[0]


# --- weights, and the uniform part backwards ------------------------------------------------------

cdef void update_weights(Replay r, int thread, int share, double rate, real tag) noexcept nogil:
    """A share of all weight gradients: some rows or columns of each, over all lanes in their order."""
    cdef const Body *p = &r.plan.body
    cdef const long long *rows = r.rows + r.first
    cdef int n = r.n
    cdef Py_ssize_t k
    cdef const Instr *q
    cdef const Product *product
    cdef const Matrix *m
    cdef real *target
    cdef real *g
    cdef int parts, first, stop, row0, row1, l, which = r.mode & (PARAMETERS | ARGUMENTS)
    cdef double scale
    for k in range(p.n_lanes - 1, -1, -1):
        q = &p.lanes[k]
        if q.kind != I_PRODUCT or not q.mask & which:
            continue
        product = &p.products[q.extra]
        m = &p.matrices[product.matrix]
        g = rows_of(r, r.RA, q.run, 0, tag)
        if product.bias >= 0 and share == r.shares - 1 and p.matrices[product.bias].mask & which:
            r.K.add_rows(<real *>r.UA + p.matrices[product.bias].base, g, m.ld, m.ld, n)
        if not m.mask & which:
            continue
        target = <real *>(r.U if r.fused[product.matrix] and r.mode & TRAIN else r.UA) + m.base
        scale = -rate / n / r.scale[product.matrix] if r.fused[product.matrix] and r.mode & TRAIN else 1.0
        if r.K.not_finite(g, <Py_ssize_t>n * m.ld) or not finite_inputs(r, product, n, tag):
            masked_weights(r, share, product, m, target, scale, g, n, rows, tag)
            continue
        if has_sparse(r, product):
            sparse_weights(r, thread, share, &r.input[product.whole_input], m, target, scale, g, n, rows, tag)
            continue
        first, stop, row0, row1 = 0, m.ld, 0, m.rows
        parts = m.ld // PAD
        if parts >= r.shares:
            first, stop = parts * share // r.shares * PAD, parts * (share + 1) // r.shares * PAD
        else:
            row0, row1 = m.rows * share // r.shares, m.rows * (share + 1) // r.shares
        if m.ld == 1:
            for l in range(n):
                r.K.add_scaled(target + row0, scale * g[l], rows_of(r, r.RV, product.x, l, tag) + product.first + row0,
                               row1 - row0)
            continue
        r.K.dense_update(target + <Py_ssize_t>row0 * m.ld + first, m.ld, scale, stop - first, n,
                         rows_of(r, r.RV, product.x, 0, tag) + product.first + row0, r.plan.body.runs[product.x].ld,
                         row1 - row0, g + first, m.ld)


cdef bint finite_inputs(Replay r, const Product *p, int n, real tag) noexcept nogil:
    cdef int l, ld
    cdef const real *x
    if p.whole_input >= 0:
        return r.input[p.whole_input].finite
    ld = r.plan.body.runs[p.x].ld
    x = rows_of(r, r.RV, p.x, 0, tag) + p.first
    for l in range(n):
        if r.K.not_finite(x + <Py_ssize_t>l * ld, r.plan.body.matrices[p.matrix].rows):
            return False
    return True


cdef inline real input_of(Replay r, const Product *p, int l, int j, const long long *rows, real tag) noexcept nogil:
    """Number j that lane l of the batch has for a product, wherever it lies."""
    cdef const Input *x
    if p.whole_input >= 0:
        x = &r.input[p.whole_input]
        return <real>x.data[rows[l] * x.width + j]
    return rows_of(r, r.RV, p.x, l, tag)[p.first + j]


cdef void masked_weights(Replay r, int share, const Product *p, const Matrix *m, real *target, double scale,
                         const real *g, int n, const long long *rows, real tag) noexcept nogil:
    """A share of the rows of a matrix where not all is finite: a gradient of exactly zero sends zero, whatever x is."""
    cdef int j, i, l
    cdef real x
    for j in range(<int>(<long long>m.rows * share // r.shares), <int>(<long long>m.rows * (share + 1) // r.shares)):
        for l in range(n):
            x = input_of(r, p, l, j, rows, tag)
            if x == 0 and p.skips:
                continue
            for i in range(m.cols):
                if g[<Py_ssize_t>l * m.ld + i] != 0:
                    target[<Py_ssize_t>j * m.ld + i] += <real>(scale * x * g[<Py_ssize_t>l * m.ld + i])


cdef void sparse_weights(Replay r, int thread, int share, const Input *x, const Matrix *m, real *target, double scale,
                         const real *g, int n, const long long *rows, real tag) noexcept nogil:
    """A share of the rows of a matrix, by the non-zero entries of these columns of the input."""
    cdef const int *column[GROUP]
    cdef const void *value[GROUP]
    cdef int count[GROUP]
    cdef int first = r.parts * share // r.shares, stop = r.parts * (share + 1) // r.shares, l, lanes, k
    cdef int *start = x.start + thread * (x.width + 2)
    cdef size_t at = <size_t>thread * min(GROUP, r.batch) * x.width
    for l in range(0, n, 64):                    # GROUP; a step has to be a literal here
        lanes = min(GROUP, n - l)
        find_rows(r, x, rows + l, lanes, first, stop - first, column, value, count)
        if m.ld == 1:
            for k in range(lanes):
                r.K.sparse_add(target, scale * g[l + k], column[k], value[k], count[k])
        elif n <= FEW_ROWS or not x.turned or m.ld <= FEW_COLUMNS:
            for k in range(lanes):
                r.K.sparse_update_one(target, m.ld, scale, m.ld, column[k], value[k], count[k],
                                      g + <Py_ssize_t>(l + k) * m.ld)
        else:
            r.K.transpose(start, x.lane + at, <char *>x.entry + at * r.size, x.border[first], x.border[stop], lanes,
                          column, value, count)
            r.K.sparse_update(target, m.ld, scale, m.ld, start, x.lane + at, <char *>x.entry + at * r.size,
                              x.border[first], x.border[stop], g + <Py_ssize_t>l * m.ld, m.ld)


cdef bint has_zero(const real *g, int n) noexcept nogil:
    cdef int k
    for k in range(n):
        if g[k] == 0:
            return True
    return False


cdef void uniform_backward(Replay r, real tag) noexcept nogil:
    cdef const Body *p = &r.plan.body
    cdef Py_ssize_t k, i, j
    cdef const Instr *q
    cdef const Matrix *m
    cdef const Sum *s
    cdef const Term *t
    cdef real *UA = <real *>r.UA
    cdef real *U = <real *>r.U
    cdef const int *table
    cdef double g
    cdef int which = r.mode & (PARAMETERS | ARGUMENTS)
    for k in range(p.n_matrices - 1, -1, -1):
        m = &p.matrices[k]
        if m.table >= 0 and m.mask & which:
            table = p.table_of[m.table]
            for i in range(m.rows):
                for j in range(m.cols):
                    UA[table[i * m.cols + j]] += UA[m.base + i * m.ld + j]
    for k in range(p.n_uniform_instr - 1, -1, -1):
        q = &p.uniform[k]
        if not q.mask & which:
            continue
        if q.kind == I_ELEMENTS:
            elements_backward(r, q, U, UA, U, UA, 1, True, has_zero(UA + q.out, q.n), tag)
            continue
        s = &p.sums[q.extra]
        g = UA[q.out]
        if g == 0.0:
            continue
        for j in range(s.first, s.stop):
            t = &p.terms[j]
            if t.q_kind == R_NONE:
                if t.p_mask & which:
                    r.K.add_number(UA + t.p, t.sign * g, t.count)
            elif t.p == t.q:                     # a square: weights of an L2 term are gone through once
                if t.p_mask & which and r.mode & TRAIN and t.matrix >= 0 and r.decayed[t.matrix]:
                    r.keep[t.matrix] -= 2.0 * t.sign * g * r.shrink
                elif t.p_mask & which:
                    r.K.add_scaled(UA + t.p, 2.0 * t.sign * g, U + t.p, t.count)
            else:
                if t.p_mask & which:
                    r.K.add_scaled(UA + t.p, t.sign * g, U + t.q, t.count)
                if t.q_mask & which:
                    r.K.add_scaled(UA + t.q, t.sign * g, U + t.p, t.count)
