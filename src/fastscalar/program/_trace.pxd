# What a recording listens to.  Private, not an API.

from cpython.object cimport PyObject

from fastscalar._core cimport Recorder
from fastscalar.engine.tape cimport ArrayOp
from fastscalar.program._graph cimport RecordedGuard

cdef enum:
    KNOWN = 64


cdef class Recording(Recorder):
    cdef public list inputs         # (kind, handle): "array" a TensorArray, "number" a Tensor, "whole" a TracedInt
    cdef RecordedGuard *table        # owned
    cdef Py_ssize_t n, room
    cdef readonly list codes        # code objects that decide, none of them ours
    cdef dict code_numbers          # address of a code object -> (the object, its number in `codes`, -1: ours)
    cdef PyObject *known[KNOWN]     # some of them, by address: whose loop it is, and the few that it calls
    cdef int known_number[KNOWN]
    cdef dict draws                 # node of a leaf, or first one of an array of leaves -> what was drawn
    cdef dict callees               # node of an operation of the user's -> what computes it for many rows
    cdef dict copies                # node of a leaf -> node that it has the value of
    cdef readonly list stopped      # [first, stop) of nodes made in blocks of no_grad
    cdef int depth
    cdef readonly list ieee         # [first, stop) of nodes that were computed as IEEE 754 does it
    cdef int ieee_depth
    cdef readonly int first         # nodes that are older were there before
    cdef bint closed
    cdef readonly int born          # nodes that are older were there before the function was called
    cdef readonly int cut           # of a body: nodes that are older are captures; else 0
    cdef Recording outer            # that listens around it
    cdef readonly list bodies       # [first, stop) of nodes of bodies
    cdef public bint leaked         # what a body made is read outside of it
    cdef public list drawn_in_loops      # draws that stand for those of loops
    cdef public dict uncertain      # site -> what was drawn there before a loop that draws as often as the row wants
    cdef public bint unrolled       # loops are to be recorded step by step
    cdef public bint raised_in_loop  # a step, which has left no guard that says so
    cdef public object shorten      # (first node, results) -> results of less that was recorded (`rolling`), or None
    cdef object context
    cdef readonly list lost         # places where a number with a gradient became one without
    cdef set said                   # these places, and
    cdef set without                # nodes that were found to have no gradient
    cdef dict lists                 # decision that a whole number was read as -> what it was an index of

    cdef bint mark_sources(self, ArrayOp *q, callee) except -1
    cdef object callee_of(self, ArrayOp *q)
    cdef int leak(self) except -1
    cdef bint is_stopped(self, int i, int since) except -1
    cdef bint has_gradient(self, int node) except -1
    cdef bint reaches(self, int node, set wanted, bint chosen, list choices) except -1
    cdef int keep(self, list choices) except -1
    cdef int add_guard(self, int op, int left, int right, double value) except -1
    cdef int find_place(self, RecordedGuard *d) except -1
    cdef int code_number(self, PyObject *code) except -2
    cdef int find_list(self, Py_ssize_t decision, int node) except -1
    cdef bint may_select(self, list some, set arrays) except -1
    cdef object guards(self)
