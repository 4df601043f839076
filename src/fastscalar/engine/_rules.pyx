# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False
"""Optimiser steps over the tape: the rules of `kernels/rules.h`, on leaves and arrays where they lie.

A step runs over stretches of nodes: an array is one, and so are Tensors that were made one after the other.  What an
optimiser keeps (`first`, `second`) is flat, in the order of the parameters, one number for each of theirs.
"""

from cpython.mem cimport PyMem_RawFree
from libc.math cimport INFINITY, isfinite, sqrt
from libc.string cimport memcpy

from fastscalar._core cimport *
from fastscalar.engine.memory cimport allocate
from fastscalar.engine.array_ops cimport materialise
from fastscalar.engine.writes cimport moment_of_write
from fastscalar.engine._array cimport TensorArray, element_count, is_contiguous

import numpy as np

from fastscalar.engine._step import offsets_of

KINDS = {"sgd": FS_RULE_SGD, "adam": FS_RULE_ADAM, "adamw": FS_RULE_ADAMW, "rmsprop": FS_RULE_RMSPROP}


cdef class Rule:
    """One row of formulas with its constants; the arguments are checked by the optimiser."""

    def __init__(self, str kind, *, double decay=0.0, double momentum=0.0, bint nesterov=False, betas=(0.0, 0.0),
                 double eps=1.0, clip_norm=None, clip_value=None):
        self.rule.kind = KINDS[kind]
        self.rule.nesterov = nesterov
        self.rule.decay, self.rule.momentum, self.rule.eps = decay, momentum, eps
        self.rule.beta1, self.rule.beta2 = betas
        self.rule.limit = INFINITY if clip_value is None else clip_value
        self.rule.scale = 1.0
        self.clip_norm = INFINITY if clip_norm is None else clip_norm
        self.keeps_first = momentum != 0.0 or self.rule.kind in (FS_RULE_ADAM, FS_RULE_ADAMW)
        self.keeps_second = self.rule.kind != FS_RULE_SGD


ctypedef struct Stretch:        # of nodes side by side, all of them leaves or elements of leaf arrays
    int node
    int count
    bint single                 # leaves of their own


cdef class Stretches:
    """The parameters of an optimiser on the tape, as it is now; a collection moves them."""
    cdef Stretch *at
    cdef int *slot                  # of the arrays among them
    cdef Py_ssize_t n, n_slots
    cdef long long moved            # collections when they were looked for

    def __cinit__(self, list parameters):
        cdef Py_ssize_t room = len(parameters)
        cdef TensorArray a
        cdef ArrayOp *q
        cdef int i
        cdef dict offsets = {}                   # made before a place is read: Python's collector may run meanwhile
        for p in parameters:
            if type(p) is TensorArray and not is_contiguous(<TensorArray>p):
                room += element_count(<TensorArray>p)
                offsets[id(p)] = offsets_of(p).tolist()
        self.at = <Stretch *>allocate(max(1, room) * sizeof(Stretch))
        self.slot = <int *>allocate(max(1, len(parameters)) * sizeof(int))
        if self.at == NULL or self.slot == NULL:
            raise MemoryError
        self.moved = tape.collections + tape.full_collections
        for p in parameters:
            if type(p) is TensorArray:
                a = <TensorArray>p
                q = tape.array_ops[a.slot]
                self.of_array(q)
                if is_contiguous(a):
                    self.add(<int>(q.start + a.offset), <int>element_count(a), False)
                else:
                    for offset in offsets[id(a)]:
                        self.add(<int>(q.start + <Py_ssize_t>offset), 1, False)
                continue
            i = (<Tensor>p).index
            if tape.record[i].op == ARRAY_OP:
                self.of_array(tape.array_ops[tape.record[i].a])
            self.add(i, 1, tape.record[i].op != ARRAY_OP)

    def __dealloc__(self):
        PyMem_RawFree(self.at)
        PyMem_RawFree(self.slot)

    def __reduce__(self):
        """A copy of an optimiser has other parameters: it looks for them itself."""
        return type(None), ()

    cdef void of_array(self, ArrayOp *q) noexcept:
        materialise(q)
        if not self.n_slots or self.slot[self.n_slots - 1] != q.slot:
            self.slot[self.n_slots] = q.slot
            self.n_slots += 1

    cdef void add(self, int node, int count, bint single) noexcept:
        cdef Stretch *last = self.at + self.n - 1
        if not count:
            return
        if self.n and last.node + last.count == node and last.single == single:
            last.count += count
            return
        self.at[self.n].node, self.at[self.n].count, self.at[self.n].single = node, count, single
        self.n += 1

    cdef bint stands(self) noexcept:
        """Nothing has been moved since."""
        return self.moved == tape.collections + tape.full_collections

    cdef void written(self, int moment) noexcept:
        """Their values change: results that read them are no longer of what they say; and gradients are to be read."""
        cdef Py_ssize_t k
        cdef int i
        cdef ArrayOp *q
        for k in range(self.n_slots):
            q = tape.array_ops[self.slot[k]]
            materialise(q)
            q.written = moment
        for k in range(self.n):
            if self.at[k].single:                # a leaf: an optimiser takes no computed number
                for i in range(self.at[k].node, self.at[k].node + self.at[k].count):
                    tape.record[i].a = moment

    cdef double squares(self) noexcept nogil:
        cdef double total = 0.0
        cdef Py_ssize_t k
        for k in range(self.n):
            total += kernels.squares_double(tape.grad + self.at[k].node, self.at[k].count)
        return total


def step_by_rule(Rule rule not None, list parameters, step, double rate, first, second, Stretches known=None):
    """One step, the step-th, at this rate, for parameters that are all apart; gradients stay as they stand.

    first, second: float64, as many numbers as there are parameters; None for what the rule does not keep.
    known: what the step before returned, of the same parameters; as long as nothing has moved they are not looked for
    again (4,192 Tensors: 7 us a step instead of 23)."""
    forbid("a step of an optimiser")
    cdef Stretches s
    cdef double[::1] flat
    cdef double *one = NULL
    cdef double *two = NULL
    cdef Py_ssize_t k, done = 0
    if rule.keeps_first and len(first):
        flat = first
        one = &flat[0]
    if rule.keeps_second and len(second):
        flat = second
        two = &flat[0]
    s = known if known is not None and known.stands() else Stretches(parameters)
    s.written(moment_of_write())
    at_step(&rule.rule, step, rate, 1.0)
    if isfinite(rule.clip_norm):
        shorten(&rule.rule, rule.clip_norm, s.squares())
    for k in range(s.n):
        kernels.rule_double(&rule.rule, tape.value + s.at[k].node, tape.grad + s.at[k].node,
                            NULL if one == NULL else one + done, NULL if two == NULL else two + done, s.at[k].count,
                            NULL, 1)
        done += s.at[k].count
    return s


def norm_of_gradients(list parameters):
    """The square root of the sum of the squares of all gradients."""
    forbid("a norm of gradients")
    return sqrt(Stretches(parameters).squares())


def scale_gradients(list parameters, double scale, double limit):
    """gradient = gradient * scale, at most `limit` from zero."""
    forbid("clipping of gradients")
    cdef Stretches s = Stretches(parameters)
    cdef Py_ssize_t k, i
    cdef double *g
    cdef bint all_scaled = isfinite(scale)
    for k in range(s.n):
        g = tape.grad + s.at[k].node
        for i in range(s.at[k].count):           # zero stays zero, whatever the scale: no row becomes a touched one
            if all_scaled or g[i] != 0.0:
                g[i] = g[i] * scale
        if limit < INFINITY:
            for i in range(s.at[k].count):
                if g[i] > limit:
                    g[i] = limit
                elif g[i] < -limit:
                    g[i] = -limit


def values_of(list parameters):
    """The values of parameters that are all apart, one after the other, as an array of their own."""
    cdef Py_ssize_t k, total = 0
    for p in parameters:
        total += element_count(<TensorArray>p) if type(p) is TensorArray else 1
    out = np.empty(total)
    if not total:
        return out
    cdef double[::1] flat = out
    cdef double *to = &flat[0]
    cdef Stretches s = Stretches(parameters)     # from here on nothing is made in Python: places stay
    for k in range(s.n):
        memcpy(to, tape.value + s.at[k].node, s.at[k].count * sizeof(double))
        to += s.at[k].count
    return out
