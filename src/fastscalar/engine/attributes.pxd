# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: nonecheck=False
# Attributes that users set on Tensors: the table of them, the steps of the user's own operations, recorded gradients.
#
# The table holds a Tensor that has attributes, so that it comes back as the same object while its node lives; what it
# holds is released when the tape is consistent again, for destructors may use the engine.

from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.math cimport isnan
from libc.string cimport memcmp, memcpy

from fastscalar._core cimport T, Tensor, bound
from fastscalar.engine.array_ops cimport read_gradient, write_gradient
from fastscalar.engine.memory cimport out_of_memory, reallocate
from fastscalar.engine.tape cimport CONST, W_CUSTOM, W_LEAF, WIDE, Pin


cdef inline int pin(Tensor t) except -1:
    """A place for attributes; from now on the table holds the Tensor, and the node the table's entry."""
    cdef int p, capacity
    cdef void *block
    cdef dict attributes = {}                    # may run Python's collector, and so anything
    bound(t)
    if t.pin:
        return 0
    if T.n_free_pins == 0:
        if T.n_pins == T.pin_capacity:
            capacity = max(64, 2 * T.pin_capacity)
            block = reallocate(T.pins, capacity * sizeof(Pin))
            if block == NULL:
                out_of_memory("attributes of Tensors", capacity)
            T.pins = <Pin *>block
            block = reallocate(T.free_pins, capacity * sizeof(int))
            if block == NULL:
                out_of_memory("attributes of Tensors", capacity)
            T.free_pins = <int *>block
            block = reallocate(T.young_pins, capacity * sizeof(int))
            if block == NULL:
                out_of_memory("attributes of Tensors", capacity)
            T.young_pins = <int *>block
            block = reallocate(T.grave, capacity * sizeof(int))
            if block == NULL:
                out_of_memory("attributes of Tensors", capacity)
            T.grave = <int *>block
            T.pin_capacity = capacity
        p = T.n_pins
        T.n_pins += 1
    else:
        T.n_free_pins -= 1
        p = T.free_pins[T.n_free_pins]
    Py_INCREF(t)
    Py_INCREF(attributes)
    T.pins[p].tensor = <void *>t
    T.pins[p].attributes = t.attributes = <void *>attributes
    T.pins[p].step = NULL
    T.pins[p].gradient = NULL
    T.pins[p].written = 0
    t.pin = p + 1
    if T.record[t.index].op == WIDE and T.wide[T.record[t.index].a].op == W_CUSTOM:
        T.wide[T.record[t.index].a].pin = t.pin
    if t.index >= T.young:
        T.young_pins[T.n_young_pins] = p
        T.n_young_pins += 1
    return 0


cdef inline int release_dead() except -1:
    """Run the destructors that a collection put off.  They may use the engine, and collect."""
    cdef void *tensor
    cdef void *attributes
    cdef void *step
    cdef void *gradient
    cdef int p
    while T.n_grave:
        T.n_grave -= 1
        p = T.grave[T.n_grave]
        tensor = T.pins[p].tensor
        attributes = T.pins[p].attributes
        step = T.pins[p].step
        gradient = T.pins[p].gradient
        T.pins[p].tensor = T.pins[p].attributes = T.pins[p].step = T.pins[p].gradient = NULL
        T.free_pins[T.n_free_pins] = p
        T.n_free_pins += 1
        (<Tensor>tensor).pin = 0
        (<Tensor>tensor).attributes = NULL
        Py_DECREF(<object>tensor)
        Py_DECREF(<object>attributes)
        if gradient != NULL:
            T.n_recorded -= 1
            Py_DECREF(<object>gradient)
        if step != NULL:
            T.n_steps -= 1
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
    return memcmp(&T.grad[i], &UNTOUCHED, sizeof(double)) == 0


cdef inline bint keeps_gradient(int i, bint accumulate) noexcept nogil:
    return accumulate and (T.record[i].op <= CONST or (
        T.record[i].op == WIDE and T.wide[T.record[i].a].op == W_LEAF))


cdef inline void drop_recorded(Tensor t) noexcept:
    cdef void *gradient
    if t.pin and T.pins[t.pin - 1].gradient != NULL:
        gradient = T.pins[t.pin - 1].gradient
        T.pins[t.pin - 1].gradient = NULL
        T.n_recorded -= 1
        Py_DECREF(<object>gradient)


cdef inline object recorded_gradient(Tensor t):
    cdef double v = T.grad[t.index]
    gradient = <Tensor>T.pins[t.pin - 1].gradient
    cdef double w = T.value[(<Tensor>gradient).index]
    if memcmp(&v, &w, sizeof(double)) == 0 or (isnan(v) and isnan(w)):
        return gradient
    drop_recorded(t)
    return v


cdef inline int flag_recorded(bint accumulate) except -1:
    cdef int p, i
    for p in range(T.n_pins):
        if T.pins[p].tensor != NULL and T.pins[p].gradient != NULL and (<Tensor>T.pins[p].tensor).index:
            i = (<Tensor>T.pins[p].tensor).index
            read_gradient(i)
            recorded_gradient(<Tensor>T.pins[p].tensor)          # drops it if it does not count any more
            if T.pins[p].gradient != NULL and not keeps_gradient(i, accumulate):
                write_gradient(i)
                memcpy(&T.grad[i], &UNTOUCHED, sizeof(double))
    return 0


cdef inline int drop_flagged(bint accumulate) except -1:
    cdef int p, i
    for p in range(T.n_pins):
        if T.pins[p].tensor != NULL and T.pins[p].gradient != NULL and (<Tensor>T.pins[p].tensor).index:
            i = (<Tensor>T.pins[p].tensor).index
            if is_untouched(i):
                T.grad[i] = T.value[(<Tensor>T.pins[p].gradient).index]
            elif not keeps_gradient(i, accumulate):
                drop_recorded(<Tensor>T.pins[p].tensor)
    return 0
