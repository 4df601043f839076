# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False
"""Running the bodies of a loop again and again: states of many rows, forwards and backwards, without the GIL.

The boundary: knows replays of bodies and plain arrays; `rolled` makes the bodies and says what a loop is.

A body reads a row's state (input 0), what it captures of the row (input 1), the number of the iteration, and what is
each iteration's own (the last input): of a row, then of all of them.  It gives the next state, and what is collected of
each iteration.  Of several bodies, recorded where a decision came out otherwise, each row takes the first whose guards
hold.  Backwards the states are there again: all of them where there is memory for them, else every so many-th, from
which those between are computed once more.
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_RawFree
from libc.string cimport memcpy, memset

from fastscalar.engine.memory cimport allocate_zeroed, could_enlarge, out_of_memory
from fastscalar.program._replay cimport GUARD_FAILED, MAY_RAISE, ORDER_MATTERS, Replay, run_again
from fastscalar.program.plan cimport ARGUMENTS, PARAMETERS

import numpy as np

cdef enum:
    NO_BODY = 255
    LOOK = 20_000                # rows and iterations between two looks at signals

ctypedef struct Kept:            # states, and which body each row took from there
    double *states
    unsigned char *taken
    Py_ssize_t n                 # of states,
    Py_ssize_t room              # and for how many there is room
    long long interval           # iterations from one to the next


cdef class Iterations:
    """Replays of the bodies of a loop for up to `rows` rows at once; ends: which bodies end it."""

    cdef readonly list replays
    cdef void **bodies           # they
    cdef int n_bodies, width, captured, rows, likely
    cdef int results             # of a body: the state, and what is collected
    cdef int step_input          # which input is the iteration's own; -1: none
    cdef int of_row, of_all      # how many numbers that is
    cdef const double[:, ::1] table      # (iterations, of_all)
    cdef double *step            # by row, those of an iteration,
    cdef double *sent_step       # and what is sent to them
    cdef const double *steps     # (rows, iterations, of_row), and
    cdef double *for_steps       # their gradients, or NULL
    cdef double *collected       # (rows, iterations, results - width), or NULL: what was, or its adjoints
    cdef long long count         # of iterations, where anything is their own
    cdef bint numbered
    cdef bint lenient            # rows that fit no body, or may raise, have ended and are left to who comes next
    cdef long long *before       # by row, the number of its first iteration
    cdef unsigned char *ends
    cdef long long *row_numbers  # of the data set
    cdef list counters           # by body: where the counters of its draws are
    cdef unsigned char *found    # by row of a run, what there is to say about it
    cdef long long *active
    cdef long long *pending
    cdef long long *number       # of the iteration, for each row
    cdef double *out
    cdef double *sent            # to the state before, and
    cdef double *sent_captured   # to what is captured
    cdef Kept some               # of all iterations,
    cdef Kept part               # and of a part of them

    def __cinit__(self, list plans not None, list ends not None, list counters not None, int width, int captured,
                  bint numbered, int rows, int of_row=0, table=None, int collected=0):
        cdef Py_ssize_t k
        cdef Replay r
        cdef const int[::1] places
        self.counters = [np.array([*some, 0], np.int32) for some in counters]
        self.replays = [Replay(plan, rows, True) for plan in plans]
        self.n_bodies, self.width, self.captured, self.rows = <int>len(plans), width, captured, rows
        self.numbered, self.of_row, self.results, self.step_input = numbered, of_row, width + collected, -1
        if table is not None:
            self.table = table
            self.of_all, self.count = <int>self.table.shape[1], self.table.shape[0]
        if of_row + self.of_all:
            self.step_input = 1 + (captured > 0) + numbered
            self.step = <double *>room_of(<size_t>rows * (of_row + self.of_all), sizeof(double))
            self.sent_step = <double *>room_of(<size_t>rows * (of_row + self.of_all), sizeof(double))
        self.bodies = <void **>room_of(self.n_bodies, sizeof(void *))
        self.ends = <unsigned char *>room_of(self.n_bodies, 1)
        self.found = <unsigned char *>room_of(rows, 1)
        self.active = <long long *>room_of(rows, sizeof(long long))
        self.pending = <long long *>room_of(rows, sizeof(long long))
        self.number = <long long *>room_of(rows, sizeof(long long))
        self.before = <long long *>room_of(rows, sizeof(long long))
        self.out = <double *>room_of(<size_t>rows * self.results, sizeof(double))
        self.sent = <double *>room_of(<size_t>rows * width, sizeof(double))
        self.sent_captured = <double *>room_of(<size_t>rows * captured, sizeof(double))
        self.row_numbers = <long long *>room_of(rows, sizeof(long long))
        for k in range(self.n_bodies):
            self.ends[k] = bool(ends[k])
            r = self.replays[k]
            self.bodies[k] = <void *>r
            r.out_values, r.out_status, r.rows = self.out, self.found, self.pending
            r.batch_rows, r.team, r.seed = r.batch, 1, NULL
            r.input[0].width = width
            places = self.counters[k]
            r.counter_of, r.row_numbers = &places[0], self.row_numbers
            if captured:
                r.input[1].width = captured
            if numbered:
                r.input[1 + (captured > 0)].whole, r.input[1 + (captured > 0)].width = self.number, 1
            if self.step_input > 0:
                r.input[self.step_input].data, r.input[self.step_input].width = self.step, of_row + self.of_all

    def __dealloc__(self):
        PyMem_RawFree(self.bodies)
        PyMem_RawFree(self.ends)
        PyMem_RawFree(self.row_numbers)
        PyMem_RawFree(self.found)
        PyMem_RawFree(self.active)
        PyMem_RawFree(self.pending)
        PyMem_RawFree(self.number)
        PyMem_RawFree(self.before)
        PyMem_RawFree(self.out)
        PyMem_RawFree(self.sent)
        PyMem_RawFree(self.sent_captured)
        PyMem_RawFree(self.step)
        PyMem_RawFree(self.sent_step)
        forget(&self.some)
        forget(&self.part)

    def draw(self, seed, epoch, antithetic, counts, rows):
        """Whose numbers are drawn; rows: their numbers in the data set."""
        cdef const long long[::1] numbers = rows
        cdef Py_ssize_t k
        for r in self.replays:
            r.draw(seed, epoch, 0, antithetic, counts)
        for k in range(numbers.shape[0]):
            self.row_numbers[k] = numbers[k]

    cdef int prepare(self, int mode) except -1:
        cdef Replay r
        for r in self.replays:
            r.mode = mode
            r.settle_all()
            if not r.plan.plain:
                r.resolve(mode, False)
                r.resolve(mode, True)
        return 0

    def values(self, state, captured, ended, status, long long k, long long until, steps=None, collected=None,
               Py_ssize_t memory=0, before=None, bint lenient=False):
        """The states after the iterations k to `until` (excluded), in place; (rows, width) and (rows, captured).

        ended: by row, the iteration at which it ends, or has ended by then; there, too, where a row fits no body, or
        may raise.  status: what there is to say about each row, 0 at first; rows with anything are left alone.
        steps: what each iteration has of its own, (rows, iterations * of_row).  collected: is set, where that is
        wanted, to what each iteration gives, (rows, iterations * numbers).  memory: bytes for the states that
        `gradients` needs; 0: it is not asked for.  before: by row, the number of its first iteration.  lenient: rows
        that fit no body, or may raise, have ended, and nothing is said about them."""
        cdef double[:, ::1] x = state, c = captured
        cdef long long[::1] stop = ended
        cdef unsigned char[::1] said = status
        cdef const long long[::1] first
        cdef Py_ssize_t n = x.shape[0], most = 0, l
        cdef Kept *kept = NULL
        self.lenient = lenient
        for l in range(n):
            self.before[l] = 0
        if before is not None:
            first = before
            for l in range(n):
                self.before[l] = first[l]
        if memory:
            most = max(<Py_ssize_t>16, memory // (n * (self.width * sizeof(double) + 1)))
            self.some.n, self.some.interval, self.part.interval = 0, 1, 1
            kept = &self.some
        self.prepare(0)
        self.take_steps(steps, None, collected)
        with nogil:
            self.forward(&x[0, 0], n, &c[0, 0] if self.captured else NULL, &stop[0], &said[0], k, until, kept, most)

    cdef int take_steps(self, steps, for_steps, collected) except -1:
        """Where an iteration's own numbers are; what they are sent, and what is collected, if that is wanted."""
        cdef double[:, ::1] some
        self.steps = self.for_steps = self.collected = NULL
        if self.of_row:
            some = steps
            self.steps = &some[0, 0]
            if for_steps is not None:
                some = for_steps
                self.for_steps = &some[0, 0]
        if collected is not None and collected.shape[1]:
            some = collected
            self.collected = &some[0, 0]
        return 0

    def gradients(self, captured, ended, status, adjoint, bint leaves, steps=None, collected=None):
        """After `values` with memory: what the adjoints of the last states and of what is collected, (rows, results)
        with the latter's place free and (rows, iterations * numbers), are for the first states, in place, for what is
        captured, (rows, captured), and for the iterations' own, (rows, iterations * of_row).  The gradients of leaves
        stay in the replays."""
        cdef double[:, ::1] c = captured, g = adjoint, out
        cdef long long[::1] stop = ended
        cdef unsigned char[::1] said = status
        cdef Py_ssize_t n = g.shape[0], k
        cdef int mode = ARGUMENTS | (PARAMETERS if leaves else 0)
        cdef Replay r
        cdef long long last = 0
        cdef double *held = &c[0, 0] if self.captured else NULL
        for_captured = np.zeros((n, self.captured))
        for_steps = None if steps is None else np.zeros_like(steps)
        out = for_captured
        for k in range(n):
            last = max(last, stop[k])
        self.prepare(mode)
        self.take_steps(steps, for_steps, collected)
        for k in range(self.n_bodies):
            r = self.replays[k]
            r.first_call, r.last_call, r.n_rows = True, False, 0
            run_again(r)
            r.first_call, r.seed = False, &g[0, 0]
        try:
            with nogil:
                self.backward(n, held, &stop[0], &said[0], &g[0, 0], &out[0, 0] if self.captured else NULL, last)
        finally:
            for k in range(self.n_bodies):
                r = self.replays[k]
                r.last_call, r.n_rows, r.mode = True, 0, mode
                run_again(r)
                r.seed, r.mode, r.input[0].gradient = NULL, 0, NULL
                if self.captured:
                    r.input[1].gradient = NULL
                if self.step_input > 0:
                    r.input[self.step_input].gradient = NULL
        return for_captured, for_steps

    cdef int forward(self, double *state, Py_ssize_t n, const double *captured, long long *ended,
                     unsigned char *status, long long k, long long until, Kept *kept, Py_ssize_t most) except -1 nogil:
        cdef Py_ssize_t m = 0, l, t, left, again
        cdef long long row, work = 0
        cdef int j, b, width = self.width, results = self.results, more = self.results - self.width
        cdef unsigned char *taken = NULL
        cdef double *gathered = NULL if kept == &self.part else self.collected
        for l in range(n):
            if not status[l] and ended[l] > k:
                self.active[m] = l
                m += 1
        while m and k < until:
            taken = NULL
            if kept != NULL and k % kept.interval == 0:
                if most and kept.n == most:
                    thin_out(kept, n * width)
                if k % kept.interval == 0:
                    taken = keep(kept, state, n, width)
            if self.numbered:
                for l in range(n):
                    self.number[l] = k + self.before[l]
            self.load_step(n, k)
            memcpy(self.pending, self.active, m * sizeof(long long))
            left = m
            for j in range(self.n_bodies):
                b = (self.likely + j) % self.n_bodies
                self.run(b, state, captured, left)
                again = 0
                for t in range(left):
                    row = self.pending[t]
                    if self.found[t] == 0:
                        status[row] = 0
                        if self.ends[b]:
                            ended[row] = k
                        else:
                            memcpy(state + row * width, self.out + t * results, width * sizeof(double))
                            if gathered != NULL:
                                memcpy(gathered + (row * self.count + k) * more, self.out + t * results + width,
                                       more * sizeof(double))
                            if taken != NULL:
                                taken[row] = b
                    elif self.lenient or self.found[t] & (GUARD_FAILED | MAY_RAISE):
                        status[row] |= self.found[t] & ORDER_MATTERS         # its guards looked at such a number
                        self.pending[again] = row
                        again += 1
                    else:
                        status[row] |= self.found[t]
                        ended[row] = k
                if again == 0:
                    if j == 0 or left == m:
                        self.likely = b
                    left = 0
                    break
                left = again
            for t in range(left):
                row = self.pending[t]
                status[row] = 0 if self.lenient else status[row] | GUARD_FAILED
                ended[row] = k
            work += m
            again = 0
            for t in range(m):
                self.active[again] = self.active[t]
                again += ended[self.active[t]] > k + 1
            m = again
            k += 1
            if work > LOOK:
                work = 0
                with gil:
                    PyErr_CheckSignals()
        return 0

    cdef int set_mode(self, int mode) noexcept nogil:
        """What the bodies are run for; what they were."""
        cdef int b, before = (<Replay>self.bodies[0]).mode
        for b in range(self.n_bodies):
            (<Replay>self.bodies[b]).mode = mode
        return before

    cdef int backward(self, Py_ssize_t n, const double *captured, long long *ended, unsigned char *status,
                      double *adjoint, double *for_captured, long long last) except -1 nogil:
        """From the last state to the first, stretch by stretch of the states that were kept."""
        cdef Py_ssize_t at
        cdef long long k = last
        cdef double *state
        cdef int mode
        if self.some.interval == 1:
            return self.backward_through(&self.some, n, captured, status, adjoint, for_captured, 0, last)
        for at in range(self.some.n - 1, -1, -1):
            state = self.some.states + at * n * self.width
            self.part.n = 0
            mode = self.set_mode(0)              # forwards alone: nothing is added to what leaves are sent
            self.forward(state, n, captured, ended, status, at * self.some.interval, k, &self.part, 0)
            self.set_mode(mode)
            self.backward_through(&self.part, n, captured, status, adjoint, for_captured, at * self.some.interval, k)
            k = at * self.some.interval
        return 0

    cdef int backward_through(self, const Kept *kept, Py_ssize_t n, const double *captured, unsigned char *status,
                              double *adjoint, double *for_captured, long long first, long long k) except -1 nogil:
        cdef Py_ssize_t m, l, t, i, width = self.width, c = self.captured, results = self.results
        cdef Py_ssize_t more = results - width, own = self.of_row
        cdef long long work = 0
        cdef const unsigned char *taken
        cdef long long *row = self.pending
        cdef int b
        while k > first:
            k -= 1
            taken = kept.taken + (k - first) * n
            if self.numbered:
                for l in range(n):
                    self.number[l] = k + self.before[l]
            self.load_step(n, k)
            if self.collected != NULL:
                for l in range(n):
                    memcpy(adjoint + l * results + width, self.collected + (l * self.count + k) * more,
                           more * sizeof(double))
            for b in range(self.n_bodies):
                m = 0
                for l in range(n):
                    if taken[l] == b:
                        row[m] = l
                        m += 1
                if m == 0 or self.ends[b]:
                    continue
                memset(self.sent, 0, n * width * sizeof(double))
                memset(self.sent_captured, 0, n * c * sizeof(double))
                (<Replay>self.bodies[b]).input[0].gradient = self.sent
                if c:
                    (<Replay>self.bodies[b]).input[1].gradient = self.sent_captured
                if self.for_steps != NULL:
                    memset(self.sent_step, 0, n * (own + self.of_all) * sizeof(double))
                    (<Replay>self.bodies[b]).input[self.step_input].gradient = self.sent_step
                self.run(b, kept.states + (k - first) * n * width, captured, m)
                for t in range(m):
                    l = row[t]
                    status[l] |= self.found[t]
                    memcpy(adjoint + l * results, self.sent + l * width, width * sizeof(double))
                    if self.for_steps != NULL:
                        memcpy(self.for_steps + (l * self.count + k) * own, self.sent_step + l * (own + self.of_all),
                               own * sizeof(double))
                    for i in range(c):
                        for_captured[l * c + i] += self.sent_captured[l * c + i]
            work += n
            if work > LOOK:
                work = 0
                with gil:
                    PyErr_CheckSignals()
        return 0

    cdef void load_step(self, Py_ssize_t n, long long k) noexcept nogil:
        """What iteration k has of its own."""
        cdef Py_ssize_t l, width = self.of_row + self.of_all
        if self.step_input < 0:
            return
        for l in range(n):
            if self.of_row:
                memcpy(self.step + l * width, self.steps + (l * self.count + k) * self.of_row,
                       self.of_row * sizeof(double))
            if self.of_all:
                memcpy(self.step + l * width + self.of_row, &self.table[k, 0], self.of_all * sizeof(double))

    cdef void run(self, int b, const double *state, const double *captured, Py_ssize_t n_rows) noexcept nogil:
        """A body for the rows that are pending."""
        run_body(<Replay>self.bodies[b], state, captured, n_rows)


cdef void run_body(Replay r, const double *state, const double *captured, Py_ssize_t n_rows) noexcept nogil:
    r.input[0].data = state
    if captured != NULL:
        r.input[1].data = captured
    r.n_rows = n_rows
    run_again(r)


# --- states ----------------------------------------------------------------------------------------

cdef void *room_of(size_t n, size_t size) except NULL:
    cdef void *p = allocate_zeroed(n + 8, size)
    if p == NULL:
        out_of_memory("a loop", n)
    return p


cdef unsigned char *keep(Kept *kept, const double *state, Py_ssize_t n, Py_ssize_t width) except NULL nogil:
    """A copy of the states; returns where to note the body of each row."""
    cdef Py_ssize_t more
    if (kept.n + 1) * n * (width + 1) > kept.room:               # numbers, and as many bytes as there is room for
        more = 2 * kept.room + 64 * n * (width + 1)
        if not could_enlarge(<void **>&kept.states, more, sizeof(double)) or not could_enlarge(
                <void **>&kept.taken, more, 1):
            with gil:
                out_of_memory("the states of a loop", more)
        kept.room = more
    memcpy(kept.states + kept.n * n * width, state, n * width * sizeof(double))
    memset(kept.taken + kept.n * n, NO_BODY, n)
    kept.n += 1
    return kept.taken + (kept.n - 1) * n


cdef void thin_out(Kept *kept, Py_ssize_t size) noexcept nogil:
    """Every other state is let go."""
    cdef Py_ssize_t k
    for k in range(0, kept.n, 2):
        memcpy(kept.states + k // 2 * size, kept.states + k * size, size * sizeof(double))
    kept.n = (kept.n + 1) // 2
    kept.interval *= 2


cdef void forget(Kept *kept) noexcept:
    PyMem_RawFree(kept.states)
    PyMem_RawFree(kept.taken)
