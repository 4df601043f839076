# cython: language_level=3, wraparound=False, cdivision=True
# cython: nonecheck=False
# A run over rows: batches, each in chunks forwards and backwards, shares of the weights, the step.
#
# See the contract of `_replay.pyx`, which alone cimports this.

from libc.math cimport isfinite
from libc.string cimport memcpy, memset

from fastscalar._core cimport kernels
from fastscalar.engine._rules cimport at_step, shorten
from fastscalar.program._kernels cimport *
from fastscalar.program._replay cimport *
from fastscalar.program.backward cimport *
from fastscalar.program.forward cimport *
from fastscalar.program.plan cimport *
from fastscalar.program.turned cimport *
from fastscalar.program.weights cimport *


cdef inline double rate_at(Replay r, Py_ssize_t row) noexcept nogil:
    return r.rates[row // r.batch_rows] if r.mode & TRAIN else 0.0


cdef inline unsigned char uniform_status(Replay r) noexcept nogil:
    """What the uniform part says about every row."""
    return (GUARD_FAILED if r.uniform_guard_failed else 0) | (MAY_RAISE if r.uniform_may_raise else 0) | (
        ORDER_MATTERS if r.uniform_order_matters else 0)


cdef inline bint flagged(Replay r, int first, int n_rows) noexcept nogil:
    cdef int l
    for l in range(first, first + n_rows):
        if r.status[l]:
            return True
    return r.uniform_guard_failed or r.uniform_order_matters


cdef inline bint sound(Replay r, int n) noexcept nogil:
    """Whether a batch may be learned from."""
    cdef int l
    if uniform_status(r):
        return False
    for l in range(n):
        if r.status[l] or not isfinite(r.result[l]):
            return False
    return True


cdef inline void begin_sums(Replay r, real tag) noexcept nogil:
    """The uniform part forwards; gradients of uniform numbers to zero."""
    cdef Py_ssize_t k
    if r.mode & TRAIN:
        for k in range(r.n_loose):
            memset(<real *>r.uniform_adjoint + r.loose[2 * k], 0, r.loose[2 * k + 1] * sizeof(real))
    elif r.mode and r.first_call:
        memset(r.uniform_adjoint, 0, r.plan.body.n_uniform * sizeof(real))
    uniform_forward(r, tag)


cdef inline void end_sums(Replay r, int n, const long long *rows, real tag) noexcept nogil:
    """Add up what the chunks collected, in their order, and what is gathered, in the order of the rows."""
    cdef const Body *p = &r.plan.body
    cdef int c, k
    cdef real *UA = <real *>r.uniform_adjoint
    cdef real *port = <real *>r.ports
    cdef Py_ssize_t j
    cdef const Instr *q
    for c in range((n + r.chunk - 1) // r.chunk):
        for k in range(p.n_ports):
            UA[p.ports[k]] += port[<Py_ssize_t>c * p.n_ports + k]
    for k in range(p.n_results):
        if p.results[k].kind == R_UNIFORM:
            if r.seed == NULL:
                UA[p.results[k].place] += <real>n
            else:
                for c in range(n):
                    UA[p.results[k].place] += <real>r.seed[rows[c] * p.n_results + k]
    for j in range(p.n_per_row):
        q = &p.per_row[j]
        if q.kind == I_GATHER and q.mask & r.mode and p.items[q.extra].address >= 0:
            gather_backward(r, q, n, rows, tag)


cdef inline void plain_step(Replay r, double scale, real tag) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(r.n_steps):
        r.kernels.add_scaled(<real *>r.uniform + r.steps[2 * k], scale, <real *>r.uniform_adjoint + r.steps[2 * k],
                             r.steps[2 * k + 1])


cdef inline void rule_step(Replay r, int n, double rate, real tag) noexcept nogil:
    """A step of an optimiser, with the mean of the gradients of n rows."""
    cdef Py_ssize_t k, at
    cdef double squares = 0.0
    cdef real *UA = <real *>r.uniform_adjoint
    at_step(&r.rule, <double>r.step, rate, 1.0 / n)
    if isfinite(r.clip_norm):
        for k in range(r.n_steps):
            at = r.steps[2 * k]
            squares += (kernels.squares_double(UA + at, r.steps[2 * k + 1]) if real is double else
                        kernels.squares_float(UA + at, r.steps[2 * k + 1]))
        shorten(&r.rule, r.clip_norm, squares)
    for k in range(r.n_steps):
        apply_rule(r, &r.rule, r.steps[2 * k], UA + r.steps[2 * k], r.steps[2 * k + 1], <real *>NULL, 1)


cdef inline void end_batch(Replay r, int n, double rate, real tag) noexcept nogil:
    cdef int l
    r.step += 1
    if r.ruled:
        rule_step(r, n, rate, tag)
        if r.by_momentum:
            r.faded = faded_next(r)
            follow_momentum(r, rate, r.rule.decay, r.faded < 1e-3, tag)
    else:
        plain_step(r, -rate / n, tag)
    for l in range(n):
        r.total_loss += r.result[l]


cdef inline void chunk_of(Replay r, int thread, int c, real tag) noexcept nogil:
    cdef int l = c * r.chunk, n_rows = min(r.chunk, r.n - l)
    forward(r, thread, l, n_rows, r.rows + r.first, tag)
    if r.mode & (PARAMETERS | ARGUMENTS) and not flagged(r, l, n_rows):
        backward(r, thread, c, l, n_rows, r.rows + r.first, tag)


cdef inline void one_chunk(void *context, int thread, int c) noexcept nogil:
    if (<Replay>context).float64:
        chunk_of[double](<Replay>context, thread, c, 0.0)
    else:
        chunk_of[float](<Replay>context, thread, c, 0.0)


cdef inline void one_share(void *context, int thread, int share) noexcept nogil:
    cdef double rate = rate_at(<Replay>context, (<Replay>context).first)
    if (<Replay>context).float64:
        update_weights[double](<Replay>context, thread, share, rate, 0.0)
    else:
        update_weights[float](<Replay>context, thread, share, rate, 0.0)


cdef inline void run(Replay r, real tag) noexcept nogil:
    cdef int l, n, chunks, team
    cdef Py_ssize_t results = r.plan.body.n_results
    cdef bint back = (r.mode & (PARAMETERS | ARGUMENTS)) != 0
    cdef bint lazy = (r.mode & TRAIN) != 0 and r.lazy != NULL and r.batch_rows == 1
    cdef double start = 0.0, now
    if not r.mode & TRAIN:
        begin_sums(r, tag)
    if r.team > 1:
        start = fs_seconds()
    r.first = 0
    while r.first < r.n_rows:
        n = r.n = <int>min(<Py_ssize_t>r.batch_rows, r.n_rows - r.first)
        chunks = (n + r.chunk - 1) // r.chunk
        team = r.team if r.team > 1 and (always_share or fs_pace_together(&r.pace)) else 1
        r.shares = r.parts if team > 1 else 1
        if r.mode & TRAIN:
            begin_sums(r, tag)
        memset(r.ports, 0, <size_t>r.plan.body.n_ports * chunks * sizeof(real))
        fs_pool_run(one_chunk, <void *>r, chunks, team)
        if (r.mode & TRAIN) != 0 and not sound(r, n):
            break
        if back:
            fs_pool_run(one_share, <void *>r, r.shares, team)
        if back:
            end_sums(r, n, r.rows + r.first, tag)
            if r.mode & TRAIN:
                uniform_backward(r, tag)
        if r.mode & TRAIN:
            end_batch(r, n, rate_at(r, r.first), tag)
            if lazy:
                end_decay(r, rate_at(r, r.first), tag)
        elif r.out_values != NULL:
            memcpy(r.out_values + r.first * results, r.result, n * results * sizeof(double))
            for l in range(n):
                r.out_status[r.first + l] = r.status[l] | uniform_status(r)
        r.first += n
        r.done = r.first
        if r.team > 1:
            now = fs_seconds()
            if 2 * n > r.batch_rows:             # of few rows the rest takes most of the time
                fs_pace_note(&r.pace, now - start, n)
            start = now
    if r.mode & TRAIN:
        turn_back(r, tag)
    elif back and r.last_call:
        uniform_backward(r, tag)
