# cython: language_level=3, wraparound=False, cdivision=True
# Attributes that users set on Tensors: the table of them, the steps of the user's own operations, recorded gradients.
#
# The table holds a Tensor that has attributes, so that it comes back as the same object while its node lives; what it
# holds is released when the tape is consistent again, for destructors may use the engine.

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.math cimport isnan
from libc.string cimport memcmp, memcpy

from fastscalar._core cimport tape, Tensor, bound
from fastscalar.engine.array_ops cimport read_gradient, write_gradient
from fastscalar.engine.memory cimport enlarge
from fastscalar.engine.tape cimport CONST, A_CUSTOM, A_LEAF, ARRAY_OP, Attributes

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        Py_ssize_t tp_dictoffset
    void PyType_Modified(PyTypeObject *)


cdef inline int add_attributes(Tensor t) except -1:
    """A place for attributes; from now on the table holds the Tensor, and the node the table's entry."""
    cdef int p, capacity
    cdef dict attributes = {}                    # may run Python's collector, and so anything
    bound(t)
    if t.entry:
        return 0
    if tape.n_free_attributes == 0:
        if tape.n_attributes == tape.attributes_capacity:
            capacity = max(64, 2 * tape.attributes_capacity)
            enlarge(<void **>&tape.attributes, capacity, sizeof(Attributes), "attributes of Tensors")
            enlarge(<void **>&tape.free_attributes, capacity, sizeof(int), "attributes of Tensors")
            enlarge(<void **>&tape.young_attributes, capacity, sizeof(int), "attributes of Tensors")
            enlarge(<void **>&tape.pending, capacity, sizeof(int), "attributes of Tensors")
            tape.attributes_capacity = capacity
        p = tape.n_attributes
        tape.n_attributes += 1
    else:
        tape.n_free_attributes -= 1
        p = tape.free_attributes[tape.n_free_attributes]
    Py_INCREF(t)
    Py_INCREF(attributes)
    tape.attributes[p].tensor = <void *>t
    tape.attributes[p].attributes = t.attributes = <void *>attributes
    tape.attributes[p].step = NULL
    tape.attributes[p].gradient = NULL
    tape.attributes[p].written = 0
    t.entry = p + 1
    if tape.record[t.index].op == ARRAY_OP and tape.array_ops[tape.record[t.index].a].op == A_CUSTOM:
        tape.array_ops[tape.record[t.index].a].entry = t.entry
    if t.index >= tape.young:
        tape.young_attributes[tape.n_young_attributes] = p
        tape.n_young_attributes += 1
    return 0


cdef inline int release_pending() except -1:
    """Run the destructors that a collection put off.  They may use the engine, and collect."""
    cdef void *tensor
    cdef void *attributes
    cdef void *step
    cdef void *gradient
    cdef int p
    while tape.n_pending:
        tape.n_pending -= 1
        p = tape.pending[tape.n_pending]
        tensor = tape.attributes[p].tensor
        attributes = tape.attributes[p].attributes
        step = tape.attributes[p].step
        gradient = tape.attributes[p].gradient
        tape.attributes[p].tensor = tape.attributes[p].attributes = tape.attributes[p].step = tape.attributes[
                p].gradient = NULL
        tape.free_attributes[tape.n_free_attributes] = p
        tape.n_free_attributes += 1
        (<Tensor>tensor).entry = 0
        (<Tensor>tensor).attributes = NULL
        Py_DECREF(<object>tensor)
        Py_DECREF(<object>attributes)
        if gradient != NULL:
            tape.n_recorded -= 1
            Py_DECREF(<object>gradient)
        if step != NULL:
            tape.n_steps -= 1
            Py_DECREF(<object>step)
    return 0


# --- recorded gradients ---------------------------------------------------------------------------
#
# A recorded gradient is held by its node's entry in the table of attributes.  The column has the number as well, for
# whoever wants no more; who writes there need not know: the recorded one counts only while it has the same number.
# A backward pass may well leave the same number (0.0), and then too the gradient is a float again: before the pass a
# NaN that no arithmetic makes is put in these places, and where it is gone afterwards the pass has been.

cdef extern from *:
    """
    static const unsigned long long FS_UNTOUCHED = 0x7ff8fa575ca1a201ULL;    /* a NaN that no arithmetic makes */
    """
    const unsigned long long UNTOUCHED "FS_UNTOUCHED"


cdef inline bint is_untouched(int i) noexcept nogil:
    return memcmp(&tape.grad[i], &UNTOUCHED, sizeof(double)) == 0


cdef inline bint keeps_gradient(int i, bint accumulate) noexcept nogil:
    return accumulate and (tape.record[i].op <= CONST or (
        tape.record[i].op == ARRAY_OP and tape.array_ops[tape.record[i].a].op == A_LEAF))


cdef inline void drop_recorded(Tensor t) noexcept:
    cdef void *gradient
    if t.entry and tape.attributes[t.entry - 1].gradient != NULL:
        gradient = tape.attributes[t.entry - 1].gradient
        tape.attributes[t.entry - 1].gradient = NULL
        tape.n_recorded -= 1
        Py_DECREF(<object>gradient)


cdef inline object recorded_gradient(Tensor t):
    cdef double v = tape.grad[t.index]
    gradient = <Tensor>tape.attributes[t.entry - 1].gradient
    cdef double w = tape.value[(<Tensor>gradient).index]
    if memcmp(&v, &w, sizeof(double)) == 0 or (isnan(v) and isnan(w)):
        return gradient
    drop_recorded(t)
    return v


cdef inline int flag_recorded(bint accumulate) except -1:
    cdef int p, i
    for p in range(tape.n_attributes):
        if tape.attributes[p].tensor != NULL and tape.attributes[p].gradient != NULL and (<Tensor>tape.attributes[
                p].tensor).index:
            i = (<Tensor>tape.attributes[p].tensor).index
            read_gradient(i)
            recorded_gradient(<Tensor>tape.attributes[p].tensor)          # drops it if it does not count any more
            if tape.attributes[p].gradient != NULL and not keeps_gradient(i, accumulate):
                write_gradient(i)
                memcpy(&tape.grad[i], &UNTOUCHED, sizeof(double))
    return 0


cdef inline int drop_flagged(bint accumulate) except -1:
    cdef int p, i
    for p in range(tape.n_attributes):
        if tape.attributes[p].tensor != NULL and tape.attributes[p].gradient != NULL and (<Tensor>tape.attributes[
                p].tensor).index:
            i = (<Tensor>tape.attributes[p].tensor).index
            if is_untouched(i):
                tape.grad[i] = tape.value[(<Tensor>tape.attributes[p].gradient).index]
            elif not keeps_gradient(i, accumulate):
                drop_recorded(<Tensor>tape.attributes[p].tensor)
    return 0


cdef inline int set_step(Tensor t, step) except -1:
    """From now on the user's own operation has this backward step; `t` has an entry."""
    cdef void *before = tape.attributes[t.entry - 1].step
    Py_INCREF(step)
    tape.attributes[t.entry - 1].step = <void *>step
    if before == NULL:
        tape.n_steps += 1
    else:
        Py_DECREF(<object>before)
    return 0


cdef inline int place_attributes() except -1:
    """CPython is told where the dict of a Tensor that has attributes is."""
    cdef Tensor t = Tensor.__new__(Tensor)
    tape.tensor_type = <void *>Tensor
    (<PyTypeObject *>tape.tensor_type).tp_dictoffset = <char *>&t.attributes - <char *><void *>t
    PyType_Modified(<PyTypeObject *>tape.tensor_type)
    return 0
