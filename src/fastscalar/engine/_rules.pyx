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


cdef class Stretches:
    """The parameters of an optimiser on the tape, as it is now; a collection moves them."""
    cdef Stretch *at
    cdef Py_ssize_t n

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
        if self.at == NULL:
            raise MemoryError
        for p in parameters:
            if type(p) is TensorArray:
                a = <TensorArray>p
                q = tape.array_ops[a.slot]
                materialise(q)
                if is_contiguous(a):
                    self.add(<int>(q.start + a.offset), <int>element_count(a))
                else:
                    for offset in offsets[id(a)]:
                        self.add(<int>(q.start + <Py_ssize_t>offset), 1)
                continue
            i = (<Tensor>p).index
            if tape.record[i].op == ARRAY_OP:
                materialise(tape.array_ops[tape.record[i].a])
            self.add(i, 1)

    def __dealloc__(self):
        PyMem_RawFree(self.at)

    cdef void add(self, int node, int count) noexcept:
        cdef Stretch *last = self.at + self.n - 1
        if not count:
            return
        if self.n and last.node + last.count == node:
            last.count += count
            return
        self.at[self.n].node, self.at[self.n].count = node, count
        self.n += 1

    cdef double squares(self) noexcept nogil:
        cdef double total = 0.0
        cdef Py_ssize_t k
        for k in range(self.n):
            total += kernels.squares_double(tape.grad + self.at[k].node, self.at[k].count)
        return total


def step_by_rule(Rule rule not None, list parameters, step, double rate, first, second):
    """One step, the step-th, at this rate, for parameters that are all apart; gradients stay as they stand.

    first, second: float64, as many numbers as there are parameters; None for what the rule does not keep."""
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
    written(parameters)
    s = Stretches(parameters)
    at_step(&rule.rule, step, rate, 1.0)
    if isfinite(rule.clip_norm):
        shorten(&rule.rule, rule.clip_norm, s.squares())
    for k in range(s.n):
        kernels.rule_double(&rule.rule, tape.value + s.at[k].node, tape.grad + s.at[k].node,
                            NULL if one == NULL else one + done, NULL if two == NULL else two + done, s.at[k].count)
        done += s.at[k].count


cdef int written(list parameters) except -1:
    """The values of these change: results that read them are no longer of what they say."""
    cdef int moment = moment_of_write(), i
    for p in parameters:
        if type(p) is TensorArray:
            tape.array_ops[(<TensorArray>p).slot].written = moment
            continue
        i = (<Tensor>p).index
        if tape.record[i].op == ARRAY_OP:
            tape.array_ops[tape.record[i].a].written = moment
        else:                                    # a leaf: an optimiser takes no computed number
            tape.record[i].a = moment
    return 0


def norm_of_gradients(list parameters):
    """The square root of the sum of the squares of all gradients."""
    forbid("a norm of gradients")
    return sqrt(Stretches(parameters).squares())


def scale_gradients(list parameters, double scale, double limit):
    """gradient = gradient * scale, at most `limit` from zero."""
    forbid("clipping of gradients")
    cdef Stretches s = Stretches(parameters)
    cdef Py_ssize_t k
    cdef int i
    cdef double g
    for k in range(s.n):
        for i in range(s.at[k].node, s.at[k].node + s.at[k].count):
            if tape.grad[i] != 0.0:                 # zero stays zero, whatever the scale: no row becomes a touched one
                g = tape.grad[i] * scale
                tape.grad[i] = limit if g > limit else -limit if g < -limit else g


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
