# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False
"""Parameters in nested lists, which of them are the same numbers, and the step of plain SGD."""

from cpython.mem cimport PyMem_RawFree

from fastscalar._core cimport *
from fastscalar.engine.memory cimport allocate_zeroed
from fastscalar.engine.array_ops cimport materialise, zero_leaf
from fastscalar.engine.writes cimport moment_of_write, wrote
from fastscalar.engine._array cimport (TensorArray, Walk, array_of, element_count, is_contiguous, start_walk,
                                       step_walk)

import numpy as np


def sgd_step(parameters, double lr, bint step=True, bint reset=True):
    """data -= lr * grad (if `step`), then grad = 0.0 (if `reset`), for every Tensor in nested lists.

    Accepts Tensors, TensorArrays, and lists, tuples and dictionaries of these in any nesting; anything else is a
    TypeError, raised before anything has changed.
    """
    cdef list flat = []
    cdef ArrayOp *q
    cdef int moment, i, op
    cdef bint writes = step and lr != 0.0
    forbid("a step of an optimiser")
    flatten_parameters(parameters, flat)
    moment = moment_of_write() if writes else 0
    for p in flat:
        if type(p) is TensorArray:
            q = tape.array_ops[(<TensorArray>p).slot]
            if writes and (q.op != A_LEAF or q.n_touched or q.factored > 0):     # else every gradient is 0
                q.written = moment
            step_array(p, lr, step, reset)
            continue
        i = (<Tensor>p).index
        op = tape.record[i].op
        if op == ARRAY_OP:
            q = tape.array_ops[tape.record[i].a]
            materialise(q)
            if writes and tape.grad[i] != 0.0:
                q.written = moment
        elif writes and tape.grad[i] != 0.0:
            if op < ARRAY_OP:
                tape.record[i].a = moment
            else:                                # a computed number
                wrote(i)
                i = (<Tensor>p).index
                moment = moment_of_write()
        if step:
            tape.value[i] -= lr * tape.grad[i]
        if reset:
            tape.grad[i] = 0.0                      # zero needs no entry in the touched rows


cdef enum:
    FEW = 32


cdef struct Seen:                # containers: a few are compared one by one, before there is a set of the others
    const void *few[FEW]
    int n


cdef bint seen_before(Seen *seen, set others, object p) except -1:
    """Whether a container was asked for before; from now on it was."""
    cdef int k
    cdef object place
    for k in range(seen.n):
        if seen.few[k] == <void *>p:
            return True
    if seen.n < FEW:
        seen.few[seen.n] = <void *>p
        seen.n += 1
        return False
    place = <size_t><void *>p                    # as id(), without a call
    if place in others:
        return True
    others.add(place)
    return False


cdef bint append_parameter(list out, p) except -1:
    """Whether it is one."""
    if type(p) is Tensor:
        bound(p)
    elif type(p) is not TensorArray:
        return False
    out.append(p)
    return True


def flatten_parameters(parameters, list out):
    """Append the Tensors and TensorArrays of nested lists, tuples and dictionaries to `out`, in order; no recursion.

    What holds others is gone through once, wherever it is listed; ValueError for what holds itself."""
    cdef list todo = [parameters]
    cdef set others = set()
    cdef Seen seen
    cdef Py_ssize_t k
    cdef bint again = False
    seen.n = 0
    while todo:
        p = todo.pop()
        if append_parameter(out, p):
            continue
        if type(p) is not list and not isinstance(p, (list, tuple, dict)):
            raise TypeError(f"parameters: expected Tensors, TensorArrays and lists of them, got {type(p).__name__}")
        if seen_before(&seen, others, p):
            again = True
            continue
        if type(p) is list:                      # most hold nothing but Tensors
            k = 0
            while k < len(<list>p) and append_parameter(out, (<list>p)[k]):
                k += 1
            if k == len(<list>p):
                continue
            p = list(p)                          # the collector may change it between a slice's length and its memory
            del (<list>p)[:k]
        todo.extend(reversed(p.values() if isinstance(p, dict) else p))
    if again:
        refuse_cycles(parameters)
    return out


cdef int refuse_cycles(parameters) except -1:
    """ValueError if one of nested lists, tuples and dictionaries contains itself."""
    cdef list levels = [iter((parameters,))]     # of the containers that we are in, what is still to come
    cdef list path = [0]                         # and their ids
    cdef set seen = set()
    while levels:
        for p in levels[len(levels) - 1]:
            if not isinstance(p, (list, tuple, dict)):
                continue
            if id(p) in path:
                raise ValueError(f"parameters: a {type(p).__name__} that contains itself")
            if id(p) not in seen:
                seen.add(id(p))
                levels.append(iter(p.values() if isinstance(p, dict) else p))
                path.append(id(p))
                break
        else:
            levels.pop()
            path.pop()
    return 0


def distinct_parameters(parameters):
    """The Tensors and TensorArrays of nested lists in order, and no number twice.

    Left out is what was listed before, as itself or within an array; of an array that is listed in part and whole,
    the parts; of parts that overlap, what an earlier one has."""
    cdef list flat = flatten_parameters(parameters, []), out = []
    cdef dict together = {}                      # by array, what is listed of it
    if all_apart(flat):
        return flat
    for p in flat:
        together.setdefault(storage_of(p), []).append(p)
    for listed in together.values():
        out += listed if len(listed) == 1 else distinct_parts(listed)
    return out


def all_apart(list flat):
    """Whether no two of these Tensors and TensorArrays are, or lie in, the same leaf or array; elements of an array
    beside each other are apart too."""
    cdef Py_ssize_t n = len(flat), i, k
    cdef ArrayOp *q
    cdef (ArrayOp *)[8] few
    cdef int node
    cdef bint apart = True
    cdef unsigned char *seen                     # by node: listed; by slot, behind them: 1 elements of it, 2 an array
    if n <= 8:
        for i in range(n):
            few[i] = array_op_of(flat[i])
            for k in range(i):
                if few[k] == few[i]:             # the same array, or none: one Tensor has one handle
                    if flat[k] is flat[i] or type(flat[k]) is TensorArray or type(flat[i]) is TensorArray:
                        return False
        return True
    seen = <unsigned char *>allocate_zeroed(tape.n + tape.n_array_ops, 1)
    if seen == NULL:
        raise MemoryError
    try:
        for p in flat:
            q = array_op_of(p)
            if type(p) is Tensor:
                node = (<Tensor>p).index
                apart = not seen[node] and (q == NULL or seen[tape.n + q.slot] < 2)
                seen[node] = 1
                if q != NULL:
                    seen[tape.n + q.slot] |= 1
            else:
                apart = not seen[tape.n + q.slot]
                seen[tape.n + q.slot] = 2
            if not apart:
                break
    finally:
        PyMem_RawFree(seen)
    return apart


cdef list distinct_parts(list listed):
    """The same for what lies in one array, or is one Tensor."""
    cdef ArrayOp *q = array_op_of(listed[0])
    cdef list out = []
    cdef int k
    if q == NULL:
        return listed[:1]
    for p in listed:
        if type(p) is TensorArray and element_count(p) == q.count and is_contiguous(p):
            return [p]
    room = np.zeros(q.count, bool)
    cdef unsigned char[::1] taken = room.view(np.uint8)
    for p in listed:
        if type(p) is Tensor:
            k = tape.record[(<Tensor>p).index].b
            if not taken[k]:
                out.append(p)
                taken[k] = True
            continue
        offsets = offsets_of(p)
        new = offsets[~room[offsets]]
        room[offsets] = True
        if len(new) == len(offsets):
            out.append(p)
        elif len(new):
            new.sort()
            for run in np.split(new, np.flatnonzero(np.diff(new) > 1) + 1):
                out.append(array_of(q)[run[0]:run[len(run) - 1] + 1])
    return out


cdef ArrayOp *array_op_of(p) except? NULL:
    """The instruction that a Tensor or TensorArray lies in; NULL for a Tensor of its own."""
    if type(p) is TensorArray:
        return tape.array_ops[(<TensorArray>p).slot]
    bound(p)
    return tape.array_ops[tape.record[(<Tensor>p).index].a] if tape.record[(<Tensor>p).index].op == ARRAY_OP else NULL


def is_leaf(p):
    """Whether nothing computed it."""
    cdef ArrayOp *q = array_op_of(p)
    return q.op == A_LEAF if q != NULL else tape.record[(<Tensor>p).index].op <= CONST


def offsets_of(p):
    """Where in its array the elements of a view lie, or the one that a Tensor is; in order, of one dimension."""
    cdef TensorArray a
    if type(p) is Tensor:
        return np.array([tape.record[(<Tensor>p).index].b])
    a = p
    out = np.array(a.offset)
    for d in range(a.ndim):
        out = np.add.outer(out, np.arange(a.shape_[d]) * a.strides_[d])
    return out.ravel()


def storage_of(p):
    """The same for two handles of the same leaf, or of parts of the same array, as long as one of them is held.

    A collection moves nodes.  What it leaves alone is the one handle that a node has, and the slot of an array."""
    cdef ArrayOp *q = array_op_of(p)
    return <size_t><void *>p if q == NULL else -1 - q.slot


def place_of(p):
    """What tells a parameter from all others while it is held, whatever handle it has: array and elements in it."""
    cdef TensorArray a
    if type(p) is Tensor:
        return storage_of(p), 0 if array_op_of(p) == NULL else tape.record[(<Tensor>p).index].b, 1
    a = p
    if is_contiguous(a):
        return -1 - a.slot, a.offset, element_count(a)
    return -1 - a.slot, a.offset, a.shape, tuple([a.strides_[d] for d in range(a.ndim)])


cdef void step_array(TensorArray a, double lr, bint step, bint reset) noexcept:
    cdef ArrayOp *q = tape.array_ops[a.slot]
    cdef double *w = tape.value + q.start
    cdef double *g = tape.grad + q.start
    cdef Py_ssize_t k, at
    cdef Walk walk
    if q.op == A_LEAF and is_contiguous(a) and element_count(a) == q.count:
        if not step:
            pass
        elif q.factored >= 0:
            kernels.step_outer(w, lr, q.f_row, q.f_x, q.factored, q.f_g, q.cols)
        else:
            for k in range(q.n_touched):
                at = <Py_ssize_t>q.touched_rows[k] * q.cols
                kernels.step(w + at, lr, g + at, q.cols)
        if reset:
            zero_leaf(q)
        return
    materialise(q)
    start_walk(a, &walk)
    for _k in range(element_count(a)):
        if step:
            w[walk.offset] -= lr * g[walk.offset]
        if reset:
            g[walk.offset] = 0.0                 # zero needs no entry in the touched rows
        step_walk(a, &walk)
