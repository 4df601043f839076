# cython: language_level=3, wraparound=False, cdivision=True
# cython: nonecheck=False, auto_pickle=False
"""Running a plan over the rows of a data set: many rows at once, forwards and backwards, without the GIL.

The boundary: reads Plans (`_replay.pxd` says what is in one); of the tape it knows how to copy captured leaves in and
out.  The arithmetic is in `kernels/batch.c`.

Contract
1. A Replay owns a private block of memory: uniform numbers (the captured leaves first of all) and their gradients,
   runs of rows for a batch, slots for a chunk of each thread.
2. `load` copies captured leaves in, with the GIL; the runs below hold no GIL and touch nothing outside; `commit` and
   `commit_gradients` copy out, with the GIL, all or nothing.
3. A batch is cut into chunks of a fixed number of rows.  A free thread takes the next chunk; what it adds up is
   added in the order of the chunks (ports) or, for a share of the weights, by one thread over all rows: the result
   does not depend on how many threads there are, nor on which did what.

A batch:  uniform part | chunks: forward, backward | weights, in shares | uniform part backward, step
One thread goes through it; chunks and shares are what helpers of the pool (`kernels/pool.h`) may take.  Weights of
sparse rows are shared out by columns of the input, so many that each share has as many entries; who has a share
transposes these (one thread for all: 0.35 us a sample in which others wait).
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_RawFree
from libc.math cimport isfinite
from libc.string cimport memcpy

from fastscalar.engine._array cimport *
from fastscalar._core cimport *
from fastscalar.engine.checked cimport CHECKED, MARGIN, margin_is_whole, require, seal_margin
from fastscalar.engine.memory cimport allocate_zeroed, data_of, out_of_memory
from fastscalar.engine.writes cimport wrote
from fastscalar.engine._rules cimport Rule
from fastscalar.program._kernels cimport *
from fastscalar.program._plan cimport Plan
from fastscalar.program.backward cimport *
from fastscalar.program.forward cimport *
from fastscalar.program.images cimport *
from fastscalar.program.leaves cimport *
from fastscalar.program.plan cimport *
from fastscalar.program.batches cimport *
from fastscalar.program.steps cimport *
from fastscalar.program.turned cimport *
from fastscalar.program.weights cimport *

import os

import numpy as np


BY_LEAVES, BY_ARGUMENTS = PARAMETERS, ARGUMENTS
cdef bint always_share = False


def _always_share(bint on):
    """For tests: whether batches are shared among all threads also where one would be faster; what it was."""
    global always_share
    before, always_share = always_share, on
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


def _apply_kernel(str kernels, int op, out, a, b=None, v=None, g=None):
    """For tests: values of an elementwise kernel of a set, into `out`; with `v` and `g` what is sent to `a`, added to
    `out`.  Arrays of one type and length, double or float."""
    cdef bint float64 = out.dtype == np.float64
    cdef const fs_batch *k = fs_batch_select(kernels.encode(), float64)
    cdef size_t to = out.ctypes.data, x = a.ctypes.data, y = 0 if b is None else b.ctypes.data, at_v, at_g
    if k == NULL:
        raise ValueError(f"kernels: this CPU has no set {kernels!r}")
    if g is None and b is None:
        k.unary(op, <void *>to, <void *>x, len(out))
    elif g is None:
        k.binary(op, FS_VECTORS, <void *>to, <void *>x, <void *>y, len(out))
    else:
        at_v, at_g = v.ctypes.data, g.ctypes.data
        if b is None:
            k.unary_backward(op, <void *>to, <void *>x, <void *>at_v, <void *>at_g, len(out))
        else:
            k.binary_backward(op, FS_VECTORS, <void *>to, NULL, <void *>x, <void *>y, <void *>at_v, <void *>at_g,
                              len(out))


def _begin_in_child():
    fs_pool_forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)


# --- a replay -------------------------------------------------------------------------------------

@cython.no_gc_clear
cdef class Replay:
    """A plan with memory to run it in: for `batch` rows at once, `float64`: of doubles, not floats."""

    def __cinit__(self, Plan plan not None, int batch, bint float64, int threads=1):
        self.blocks, self.held, self.margins, self.begun_loops = [], [], [], {}
        if threads < 1:
            raise ValueError(f"threads: expected a whole number of at least 1, got {threads}")
        self.plan, self.float64, self.threads = plan, float64, threads
        self.parts = min(2 * threads, max(threads, 8)) if threads > 1 else 1
        self.paced_mode = -1
        self.size = sizeof(double) if float64 else sizeof(float)
        self.watch, self.calls = float64 and not plan.plain, len(plan.callees) > 0
        name = kernel_set()
        self.kernels = fs_batch_select(name, float64)
        if self.kernels == NULL:
            raise ValueError(f"kernels: this CPU has no set {name!r}")
        columns = sum([plan.runs[k].ld for k in range(plan.n_runs)])
        self.batch = max(min(batch, 16), min(batch, (1 << 26) // (16 * (1 + <long long>columns))))
        self.chunk = self.rows_of_a_chunk()
        self.reserve()
        self.mark_weights()
        self.find_segments()
        self.find_inputs()
        self.find_columns()

    def __dealloc__(self):
        for block in self.blocks or ():          # without any if an argument was refused
            PyMem_RawFree(<void *><size_t>block)
        PyMem_RawFree(self.stretches)
        for k in range(2):
            free_steps(&self.forward_list[k])
        for k in range(8):
            free_steps(&self.backward_list[k])

    cdef int rows_of_a_chunk(self) except -1:
        """So many that slots stay in the last-level cache; products want some dozen rows, more beside much scalar code:
        1,024 rows of a GPT, 32 at once 7.5 us each, 64 7.2, 128 7.6.

        Scalar code takes longer to begin an instruction than to read a few rows from another level: ODE of the
        benchmarks, nanoseconds an operation and row, 16 rows (second level) 3.3, 32 rows 2.1, 64 1.4, 128 1.0."""
        cdef long long n_rows = (1 << 23) // max(1, (self.plan.n_slots + self.plan.n_adjoints) * <long long>self.size)
        n_rows = min(max(n_rows // 16 * 16, 16), 128)
        if self.plan.n_products or self.plan.n_images:
            n_rows = min(n_rows, 64 if self.plan.n_slots > 64 else 32)
        return <int>min(n_rows, self.batch)

    cdef void *block(self, size_t count, size_t size) except NULL:
        """Zeroed memory that begins at a multiple of 64 bytes."""
        cdef void *p = allocate_zeroed(count * size + 128 + MARGIN, 1)
        cdef char *begin
        if p == NULL:
            out_of_memory("a program", count)
        self.blocks.append(<size_t>p)
        begin = <char *>((<size_t>p + 63) // 64 * 64)
        if CHECKED:
            self.margins.append(<size_t>(begin + count * size))
            seal_margin(begin + count * size)
        return begin

    cdef int reserve(self) except -1:
        cdef Plan p = self.plan
        cdef size_t columns = 0, room = 0, tallest = 0
        cdef Py_ssize_t k
        cdef Py_ssize_t patches = 0
        cdef int t, ld, widest = 1
        cdef Matrix *m
        if p.n_runs:
            columns = p.runs[p.n_runs - 1].base + p.runs[p.n_runs - 1].ld + PAD
        for k in range(p.n_products):
            m = &p.matrices[p.products[k].matrix]
            if p.products[k].exact:
                room = max(room, <size_t>m.rows)
            widest = max(widest, m.ld)
            tallest = max(tallest, <size_t>m.rows)
        for k in range(p.n_images):
            ld = p.matrices[p.images[k].matrix].ld if p.images[k].matrix >= 0 else 1
            widest = max(widest, ld)
            patches = max(patches, patches_room(&p.images[k], ld))
        self.patches = <char **>self.block(self.threads, sizeof(void *))
        self.uniform = <char *>self.block(p.n_uniform + PAD, self.size)
        self.uniform_adjoint = <char *>self.block(p.n_uniform + PAD, self.size)
        self.run_value = <char *>self.block(columns * self.batch, self.size)
        self.run_adjoint = <char *>self.block(columns * self.batch, self.size)
        self.slot_value = <char **>self.block(self.threads, sizeof(void *))
        self.slot_adjoint = <char **>self.block(self.threads, sizeof(void *))
        self.scratch = <char **>self.block(self.threads, sizeof(void *))
        for t in range(self.threads):
            self.slot_value[t] = <char *>self.block(<size_t>p.n_slots * self.chunk, self.size)
            self.slot_adjoint[t] = <char *>self.block(<size_t>p.n_adjoints * self.chunk, self.size)
            self.scratch[t] = <char *>self.block(max(2 * room, <size_t>self.chunk, tallest), sizeof(double))
            self.patches[t] = <char *>self.block(patches, self.size)
        self.zeros = <double *>self.block(widest, sizeof(double))
        self.ports = <char *>self.block(<size_t>p.n_ports * (self.batch // self.chunk + 1), self.size)
        self.result = <double *>self.block(<size_t>self.batch * len(p.results), sizeof(double))
        self.status = <unsigned char *>self.block(self.batch, 1)
        self.occurrence = <long long *>self.block(p.n_draws, sizeof(long long))
        self.state = <char **>self.block(2, sizeof(void *))
        self.fused = <unsigned char *>self.block(p.n_matrices, 1)
        self.unfit = <unsigned char *>self.block(p.n_matrices, 1)
        self.turned = <char **>self.block(p.n_matrices, sizeof(void *))
        self.room_to_turn = <char **>self.block(p.n_matrices, sizeof(void *))
        self.shrunk = 1.0
        return 0

    cdef int mark_weights(self) except -1:
        """Which matrices and which terms' numbers are looked at for what is so large that the order matters."""
        cdef Plan p = self.plan
        cdef Py_ssize_t k
        self.looked_at = <unsigned char *>self.block(p.n_matrices, 1)
        for k in range(p.n_products):
            if p.matrices[p.products[k].matrix].table < 0:
                self.looked_at[p.products[k].matrix] = True
            if p.products[k].bias >= 0:
                self.looked_at[p.products[k].bias] = True
        self.uniform_terms = <int *>self.block(p.n_terms, sizeof(int))
        for k in range(p.n_terms):
            if p.terms[k].p_kind == R_UNIFORM or p.terms[k].q_kind == R_UNIFORM:
                self.uniform_terms[self.n_uniform_terms] = <int>k
                self.n_uniform_terms += 1
        return 0

    cdef int resolve(self, int which, bint one) except -1:
        """Steps of what this run needs, if they are not there yet."""
        cdef StepList *back = &self.backward_list[4 * one + which]
        cdef bint whole = False
        try:
            if self.forward_list[one].steps == NULL:
                forward_steps(self, &self.forward_list[one], one)
            if which and back.steps == NULL:
                backward_steps(self, back, one, which)
            whole = True
        finally:
            if not whole:
                free_steps(&self.forward_list[one])
                free_steps(back)
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
            for k in range(p.n_per_row):
                q = &p.per_row[k]
                if q.kind == I_PRODUCT:
                    if p.products[q.extra].whole_input == i and p.matrices[p.products[q.extra].matrix].ld > FEW_COLUMNS:
                        self.input[i].transposed = True
                    if p.products[q.extra].x == p.input_run[i] and p.products[q.extra].whole_input != i:
                        self.input[i].dense = True
                elif (q.kind == I_CONV or q.kind == I_POOL) and q.a.run == p.input_run[i]:
                    self.input[i].dense = True
                elif (q.a.kind == R_ROWS and q.a.run == p.input_run[i]) or (
                        q.b.kind == R_ROWS and q.b.run == p.input_run[i]):
                    self.input[i].dense = True
        return 0

    cdef int find_columns(self) except -1:
        """Inputs that are read as numbers alone: their slots, and the places of their gradients."""
        cdef Plan p = self.plan
        cdef Py_ssize_t k
        cdef Instr *q
        cdef Input *x
        cdef int i, j, run, column
        cdef bint otherwise
        self.direct = <unsigned char *>self.block(p.n_runs, 1)
        for i in range(self.n_inputs):
            run, otherwise, x = p.input_run[i], False, &self.input[i]
            slots = {}
            for k in range(p.n_per_row):
                q = &p.per_row[k]
                if q.kind == I_NUMBER and q.extra == i:
                    x.read = (q.mask & ARGUMENTS) != 0
                elif run >= 0 and q.kind == I_UNPACK and q.a.run == run:
                    for j in range(q.n):
                        otherwise |= place(&q.a, j) in slots
                        slots[place(&q.a, j)] = q.out + j
                elif (q.kind == I_PRODUCT and p.products[q.extra].x == run) or (
                        q.a.kind == R_ROWS and q.a.run == run) or (q.b.kind == R_ROWS and q.b.run == run):
                    otherwise = True
            if run < 0 or otherwise:
                continue
            self.direct[run] = True
            x.n_columns = max(slots, default=-1) + 1
            x.slot = <int *>self.block(p.runs[run].n, sizeof(int))
            x.adjoint = <int *>self.block(p.runs[run].n, sizeof(int))
            for column in range(p.runs[run].n):
                x.slot[column] = slots.get(column, -1)
                x.adjoint[column] = p.body.adjoint[x.slot[column]] if column in slots else -1
        return 0

    # --- in and out ---

    def load(self, dict others=None):
        """Copy the captured leaves in, as they are now; others: by capture, other numbers for it, a flat array."""
        cdef Py_ssize_t k
        cdef double[::1] value = self.plan.constant_value
        cdef int[::1] at = self.plan.constant_at
        for k in range(at.shape[0]):
            self.put(at[k], value[k])
        self.shrunk = 1.0
        self.find_leaves()
        for k in range(self.n_stretches):
            if self.float64:
                leaves_in[double](self, <double *>self.uniform, &self.stretches[k], tape.value, 0.0)
            else:
                leaves_in[float](self, <float *>self.uniform, &self.stretches[k], tape.value, 0.0)
        if others is not None:
            self.put_others(others)
        for k in range(self.n_inputs):
            self.input[k].forced = False
        self.wild = self.watch and wild_weights(self)
        for k in range(self.plan.n_products):
            self.look_at_weights(&self.plan.products[k])
        for k in range(self.plan.n_images):
            self.look_at_filters(&self.plan.images[k])

    cdef void look_at_weights(self, const Product *p) noexcept nogil:
        """Sparse rows step over zeros: 0 * inf would be lost.  A layer says that it is."""
        cdef const Matrix *m = &self.plan.matrices[p.matrix]
        if p.whole_input < 0 or p.skips or m.table >= 0:
            return
        if self.watch and not self.wild:         # what is not beyond the bound is finite
            self.unfit[p.matrix] = False
            return
        self.unfit[p.matrix] = self.kernels.not_finite(self.uniform + m.base * self.size, <Py_ssize_t>m.rows * m.ld)
        if self.unfit[p.matrix]:
            self.input[p.whole_input].forced = True

    cdef void look_at_filters(self, const Image *p) noexcept nogil:
        """The same for a convolution."""
        cdef const Matrix *m
        cdef int which, k
        for which in range(2):
            k = p.bias if which else p.matrix
            if k >= 0 and self.watch:
                m = &self.plan.matrices[k]
                if m.table < 0 and self.kernels.beyond(self.uniform + m.base * self.size, <Py_ssize_t>m.rows * m.ld):
                    self.wild = True

    cdef int put_others(self, dict others) except -1:
        cdef const double[::1] given
        cdef Segment *s
        cdef Py_ssize_t k
        cdef int i
        for k in range(self.n_segments):
            s = &self.segments[k]
            if s.capture in others:
                given = others[s.capture]
                for i in range(s.count):
                    self.put(s.address + i, given[s.offset + i])
        return 0

    cdef int find_leaves(self) except -1:
        """Where the captured leaves are on the tape.  Only a collection moves them."""
        cdef long long[::1] view
        cdef Py_ssize_t k
        if self.nodes is not None and self.nodes_of == tape.collections + tape.full_collections:
            return 0
        nodes = np.empty(max(1, len(self.plan.captures)), np.int64)
        view = nodes
        for k, handle in enumerate(self.plan.captures):
            view[k] = (<Tensor>handle).index if type(handle) is Tensor else tape.array_ops[(
                    <TensorArray>handle).slot].start
        if self.nodes is None or not np.array_equal(nodes, self.nodes):
            find_stretches(self, view)
        self.nodes, self.nodes_of = nodes, tape.collections + tape.full_collections
        return 0

    cdef void put(self, int address, double value) noexcept nogil:
        if self.float64:
            (<double *>self.uniform)[address] = value
        else:
            (<float *>self.uniform)[address] = <float>value

    cdef double get(self, const char *block, int address) noexcept nogil:
        return (<double *>block)[address] if self.float64 else <double>(<float *>block)[address]

    def commit(self):
        """Copy what was trained back to the leaves, and set their gradients to zero."""
        self.settle_all()
        cdef Py_ssize_t k
        cdef Stretch *s
        cdef int i
        self.find_leaves()
        for k in range(self.n_stretches):
            s = &self.stretches[k]
            for i in range(s.node, s.node + (s.repeats * s.count if s.array < 0 else 1)):
                wrote(i)                         # a leaf, or an array of them: runs no Python
            if not s.trained:
                continue
            if self.float64:
                leaves_out[double](<double *>self.uniform, s, tape.value, 0.0)
            else:
                leaves_out[float](<float *>self.uniform, s, tape.value, 0.0)
            zero_gradients(s)

    def commit_gradients(self, bint accumulate, bint zero=False):
        """Leave the gradients in the leaves: in place of theirs, or added to them."""
        cdef Py_ssize_t k
        cdef Stretch *s
        self.find_leaves()
        for k in range(self.n_stretches):
            s = &self.stretches[k]
            if not s.trained:
                continue
            if zero:
                zero_gradients(s)
            elif self.float64:
                gradients_out[double](self, <double *>self.uniform_adjoint, s, accumulate, 0.0)
            else:
                gradients_out[float](self, <float *>self.uniform_adjoint, s, accumulate, 0.0)

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
            x.own = x.data if self.float64 else NULL
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

    def bind_as(self, Replay other not None):
        """Bind what another replay is bound to, for the same arguments; False: they are to be bound one by one."""
        cdef int i
        cdef Input *x
        cdef const Input *y
        for i in range(self.n_inputs):
            if self.wants_sparse(i) or other.wants_sparse(i) or self.plan.input_address[i] >= 0:
                return False
        for i in range(self.n_inputs):
            x, y = &self.input[i], &other.input[i]
            x.data, x.own, x.whole, x.width, x.gradient, x.finite = y.data, y.own, y.whole, y.width, y.gradient, False
        self.held = other.held
        return True

    def release_inputs(self):
        """Let go of the data."""
        cdef int i
        for i in range(self.n_inputs):
            self.input[i].data = NULL
            self.input[i].own = NULL
            self.input[i].whole = NULL
            self.input[i].begin = NULL
            self.input[i].gradient = NULL
        self.held = []

    def draw(self, unsigned long long seed, unsigned long long epoch, long long row_offset, bint antithetic,
             dict counts):
        """What rows draw: as in a stream of these for each of them.  counts: what was drawn before, by site."""
        cdef Py_ssize_t k
        self.stream_seed, self.epoch, self.row_offset, self.antithetic = seed, epoch, row_offset, antithetic
        self.counts = counts
        for k in range(self.plan.n_draws):
            self.occurrence[k] = self.plan.draws[k].occurrence + <long long>counts.get(self.plan.draws[k].site, 0)

    def read_as_floats(self, int i, data):
        """The rows of an input in float32, for single rows, which are read where they lie."""
        cdef const float[:, ::1] rows = data
        self.held.append(data)
        self.input[i].own = &rows[0, 0]

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
        if x.transposed and x.start == NULL:
            x.start = <int *>self.block(self.threads * (x.width + 2), sizeof(int))
            x.row_of = <int *>self.block(most, sizeof(int))
            x.entry = self.block(most, self.size)
        self.held.append((begin, column, value, border))
        x.begin, x.column, x.border = &begins[0], &columns[0], &borders[0]
        x.value = data_of(value)

    def wants_sparse(self, int i):
        """Whether sparse rows of this input would be of use."""
        cdef Plan p = self.plan
        cdef Py_ssize_t k
        for k in range(p.n_products):
            if p.products[k].whole_input == i:
                return True
        return False

    def gradient_of_capture(self, int capture, gradient):
        """Add the gradients by the elements of a captured leaf to a flat array."""
        cdef double[::1] out = gradient
        cdef Segment *s
        cdef Py_ssize_t k, i
        for k in range(self.n_segments):
            s = &self.segments[k]
            if s.capture == capture:
                for i in range(s.count):
                    out[s.offset + i] += self.get(self.uniform_adjoint, s.address + <int>i)

    def shared_gradient(self, int i):
        return self.get(self.uniform_adjoint, self.plan.input_address[i]) if self.plan.input_address[i] >= 0 else 0.0

    # --- what takes its step at once ---

    def prepare_training(self, Rule rule=None, bint at_once=True, bint by_momentum=False):
        """Which matrices take their step with their gradient (at_once), and what else a step writes: matrices of
        trained leaves that one product reads, and nothing else.

        rule: of the optimiser; None for plain SGD.  One that has no more than weight decay can do it for any batch, and
        all but those that shorten gradients for single rows.  by_momentum: matrices have their gradients added into the
        momentum, for SGD of the form s = momentum s + g, w -= rate s.  A replay is prepared for one way, once.
        """
        cdef Plan p = self.plan
        cdef Py_ssize_t k
        cdef Matrix *m
        cdef bint decays = at_once and rule is not None and not (rule.keeps_first or rule.keeps_second) and not (
            isfinite(rule.rule.limit))
        self.ruled = rule is not None
        self.by_rows = at_once and rule is not None and not decays
        self.by_momentum = by_momentum
        if rule is not None:
            self.rule, self.clip_norm = rule.rule, rule.clip_norm
            self.first_kept = self.room_of_state(rule.keeps_first, 0)
            self.second_kept = self.room_of_state(rule.keeps_second, 1)
        self.decay = rule.rule.decay if decays else 0.0
        if self.prepared:
            return
        self.prepared = True
        trained = np.asarray(p.trained) != 0
        loose = np.ones(p.n_uniform, bool)
        for k in range(p.n_matrices):
            m = &p.matrices[k]
            part = trained[m.base:m.base + m.rows * m.ld].reshape(m.rows, m.ld)
            self.fused[k] = (at_once or by_momentum) and m.home and m.only and m.uses == 1 and m.rows > 1 and bool(
                part[:, :m.cols].all())
            if self.fused[k]:
                loose[m.base:m.base + m.rows * m.ld] = False
                part[:] = False
            elif m.home and m.cols < m.ld:       # padding is zero, and so is its gradient: longer stretches
                np.logical_or(part, part[:, :m.cols].all(axis=1, keepdims=True), out=part)
        self.loose = self.side_by_side(loose, &self.n_loose)
        self.steps = self.side_by_side(trained, &self.n_steps)
        if decays:
            self.lazy = <unsigned char *>self.block(p.n_matrices, 1)

    cdef int *side_by_side(self, chosen, Py_ssize_t *count) except NULL:
        """(first, how many) of those chosen that lie side by side."""
        edges = np.flatnonzero(np.diff(chosen, prepend=False, append=False)).reshape(-1, 2)
        cdef const int[:, ::1] stretches = np.stack([edges[:, 0], edges[:, 1] - edges[:, 0]], axis=1).astype(np.int32)
        count[0] = stretches.shape[0]
        cdef int *out = <int *>self.block(2 * count[0], sizeof(int))
        if count[0]:
            memcpy(out, &stretches[0, 0], 2 * count[0] * sizeof(int))
        return out

    cdef char *room_of_state(self, bint keeps, int which) except? NULL:
        if keeps and self.state[which] == NULL:
            self.state[which] = <char *>self.block(self.plan.n_uniform + PAD, self.size)
        return self.state[which] if keeps else NULL

    def covers(self, list places, Py_ssize_t count):
        """Whether the program reads all `count` parameters of an optimiser; places: see `state_places`."""
        return count == sum(np.count_nonzero(places[self.segments[k].capture][
            self.segments[k].offset:self.segments[k].offset + self.segments[k].count] >= 0)
            for k in range(self.n_segments))

    def load_state(self, list places, first, second, long long step):
        """Copy in what the optimiser keeps after so many steps: flat arrays, or None for what it does not keep."""
        self.step, self.faded = step, 1.0
        self.copy_state(places, first, self.first_kept, True)
        self.copy_state(places, second, self.second_kept, True)

    def commit_state(self, list places, first, second):
        """Copy it back; returns how many steps it knows by now."""
        self.copy_state(places, first, self.first_kept, False)
        self.copy_state(places, second, self.second_kept, False)
        return self.step

    cdef int copy_state(self, list places, array, char *block, bint into) except -1:
        cdef double[::1] flat
        cdef long long[::1] place
        cdef Segment *s
        cdef Py_ssize_t k, i, at
        if array is None or not len(array):
            return 0
        flat = array
        for k in range(self.n_segments):
            s = &self.segments[k]
            place = places[s.capture]
            for i in range(s.count):
                at = place[s.offset + i]
                if at < 0:
                    continue
                if not into:
                    flat[at] = self.get(block, s.address + <int>i)
                elif self.float64:
                    (<double *>block)[s.address + i] = flat[at]
                else:
                    (<float *>block)[s.address + i] = <float>flat[at]
        return 0

    # --- runs ---

    def values(self, rows, values, status):
        """Forwards for some rows: their results, (rows, results), and what there is to say about each (GUARD_FAILED,
        MAY_RAISE)."""
        self.go(0, rows, values, status, self.batch)

    def gradients(self, rows, values, status, int mode, bint first=True, bint last=True, seed=None):
        """Forwards and backwards; gradients stay in the block.  False if a row missed: then they are not to be used.

        mode: BY_LEAVES, BY_ARGUMENTS, or both.  Of several calls that add up, the first and the last say so.
        seed: the adjoint of each result for each row of the data, (all rows, results); None: 1."""
        cdef const double[:, ::1] seeds
        self.first_call, self.last_call = first, last
        self.seed = NULL
        if seed is not None:
            seeds = seed
            self.seed = &seeds[0, 0]
        self.go(mode, rows, values, status, self.batch)
        self.seed = NULL
        self.whole = (self.whole or first) and not np.asarray(status).any()
        if last and self.whole and self.watch and self.kernels.not_finite(self.uniform_adjoint, self.plan.n_uniform):
            np.bitwise_or(status, <int>ORDER_MATTERS, out=status)   # the rows' gradients are added up in some order
            self.whole = False
        return self.whole

    def train(self, rows, int batch_rows, rates, double total_loss):
        """Steps over rows in their order: (rows done, total_loss with their losses).  Stops before a batch that misses
        a guard, may have raised, or has a loss that is not finite.

        rates: the learning rate of each batch.  What the losses add up to must not depend on how many rows one call is
        given, so it goes on from the total of the call before."""
        cdef double[::1] by_batch = rates
        if by_batch.shape[0] * min(batch_rows, self.batch) < len(rows):
            raise ValueError(f"{by_batch.shape[0]} rates for {len(rows)} rows in batches of {batch_rows}")
        self.rates, self.total_loss = &by_batch[0], total_loss
        self.go(PARAMETERS | TRAIN, rows, None, None, batch_rows)
        return self.done, self.total_loss

    cdef int turn_weights(self) except -1:
        cdef Py_ssize_t k
        cdef int matrix
        for k in range(self.plan.n_products):
            matrix = self.plan.products[k].matrix
            if not can_turn(self, &self.plan.products[k]):
                continue
            if self.room_to_turn[matrix] == NULL:
                self.room_to_turn[matrix] = <char *>self.block(
                    self.plan.matrices[matrix].cols * turned_ld(&self.plan.matrices[matrix]), self.size)
            self.turned[matrix] = self.room_to_turn[matrix]
            if self.float64:
                turn[double](self, matrix, False, 0.0)
            else:
                turn[float](self, matrix, False, 0.0)
        return 0

    def gradients_in(self, array):
        """The gradients of all uniform numbers, trained or not, are in this array from now on: what processes that
        train together exchange between `gradients` and `step_by`.  None: in memory of their own.

        Of the type that is computed with, and `gradient_size` long; the last PAD numbers belong to none."""
        cdef double[::1] doubles
        cdef float[::1] floats
        if self.own_adjoint == NULL:
            self.own_adjoint = self.uniform_adjoint
        if array is None:
            self.uniform_adjoint = self.own_adjoint
        elif len(array) != self.gradient_size:
            raise ValueError(f"gradients_in: expected {self.gradient_size} numbers, got {len(array)}")
        elif self.float64:
            doubles = array
            self.uniform_adjoint = <char *>&doubles[0]
        else:
            floats = array
            self.uniform_adjoint = <char *>&floats[0]
        self.gradient_array = array

    @property
    def gradient_size(self):
        return self.plan.n_uniform + PAD

    def step_by(self, int rows, double rate):
        """The step of the optimiser that this was prepared for, with the block's gradients as the sum over `rows`."""
        self.step += 1
        with nogil:
            if self.float64:
                rule_step[double](self, rows, rate, 0.0)
            else:
                rule_step[float](self, rows, rate, 0.0)

    def batch_status(self):
        """After `train` stopped: losses and status of the batch that it stopped at."""
        n = min(<Py_ssize_t>self.batch_rows, self.n_rows - self.done)
        losses = np.empty(n)
        status = np.empty(n, np.uint8)
        cdef double[::1] l = losses
        cdef unsigned char[::1] s = status
        for k in range(n):
            l[k], s[k] = self.result[k], self.status[k] | uniform_status(self)
        return losses, status

    cdef int go_few(self, int mode, const long long *rows, Py_ssize_t n, double *values) except -1:
        """At most a batch of rows, whose gradients are the sum; what there is to say about any of them.  Where that is
        nothing, values, by row of the data, are set."""
        cdef int status
        cdef Py_ssize_t l, results = self.plan.body.n_results
        self.first_call, self.last_call = True, True
        self.rows, self.n_rows, self.out_values = rows, n, NULL
        self.go_through(mode, self.batch)
        status = uniform_status(self)
        for l in range(n):
            status |= self.status[l]
        if mode and not status and self.watch and self.kernels.not_finite(self.uniform_adjoint, self.plan.n_uniform):
            return ORDER_MATTERS
        for l in range(n if not status else 0):
            memcpy(values + rows[l] * results, self.result + l * results, results * sizeof(double))
        return status

    cdef int go(self, int mode, rows, values, status, int batch_rows) except -1:
        cdef long long[::1] order = rows
        cdef double[:, ::1] out
        cdef unsigned char[::1] marks
        self.rows, self.n_rows = &order[0], order.shape[0]
        self.out_values = NULL
        self.out_status = NULL
        if values is not None:
            out = values
            marks = status
            self.out_values, self.out_status = &out[0, 0], &marks[0]
        return self.go_through(mode, batch_rows)

    cdef int go_through(self, int mode, int batch_rows) except -1:
        self.mode, self.batch_rows, self.done = mode, min(batch_rows, self.batch), 0
        if mode & TRAIN:
            begin_decay(self)
        else:
            self.settle_all()
        if not self.plan.plain:
            self.resolve(mode & (PARAMETERS | ARGUMENTS), min(self.n_rows, self.batch_rows) == 1)
        if mode & TRAIN and self.batch_rows == 1:
            self.turn_weights()
        if mode != self.paced_mode:
            self.paced_mode = mode
            fs_pace_begin(&self.pace)
        self.team = 1
        if self.threads > 1:
            self.team += fs_pool_reserve(self.threads - 1)
        with nogil:
            if self.float64:
                run[double](self, 0.0)
            else:
                run[float](self, 0.0)
        if CHECKED:
            for end in self.margins:
                require(margin_is_whole(<const void *><size_t>end))
        self.begun_loops.clear()
        if self.interrupt is not None:
            error, self.interrupt = self.interrupt, None
            raise error
        return 0

    cdef void settle_all(self) noexcept:
        if self.float64:
            settle_all[double](self, 0.0)
        else:
            settle_all[float](self, 0.0)


def gradients_of_each(list replays, list parts, values, int mode, seed=None):
    """Values and gradients of few rows for each of several replays: by replay, whether it fits all of its rows, which
    are no more than a batch.

    parts: the rows.  values: (all rows, results), set where a replay fits.  mode, seed: as of `Replay.gradients`.  All
    compute in one memory, the largest: that of each would not be in the caches."""
    cdef double[:, ::1] out = values
    cdef const double[:, ::1] seeds
    cdef const long long[::1] rows
    cdef Replay r
    cdef char **slots = NULL
    cdef char **adjoints = NULL
    cdef Py_ssize_t n_slots = -1, n_adjoints = -1
    cdef list fits = []
    for r in replays:
        if r.plan.body.n_slots * r.chunk > n_slots:
            n_slots, slots = r.plan.body.n_slots * r.chunk, r.slot_value
        if r.plan.body.n_adjoints * r.chunk > n_adjoints:
            n_adjoints, adjoints = r.plan.body.n_adjoints * r.chunk, r.slot_adjoint
    for r, part in zip(replays, parts, strict=True):
        PyErr_CheckSignals()
        rows, r.seed = part, NULL
        if seed is not None:
            seeds = seed
            r.seed = &seeds[0, 0]
        slots, r.slot_value = r.slot_value, slots
        adjoints, r.slot_adjoint = r.slot_adjoint, adjoints
        try:
            fits.append(rows.shape[0] <= r.batch and not r.go_few(mode, &rows[0], rows.shape[0], &out[0, 0]))
        finally:
            r.seed = NULL
            slots, r.slot_value = r.slot_value, slots
            adjoints, r.slot_adjoint = r.slot_adjoint, adjoints
    return fits


def kernel_set():
    """The name of the kernel set in use, as bytes."""
    return kernels.name


cdef const fs_batch *batch_kernels(bint float64) noexcept:
    """The kernel set in use."""
    return fs_batch_select(kernels.name, float64)


cdef void run_again(Replay r) noexcept nogil:
    """A run whose rows, mode and places another one has set: an iteration of a loop."""
    run[double](r, 0.0)
