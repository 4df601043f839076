# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: nonecheck=False
# Weak roots: handles that only the tape's own tables hold, and which therefore keep nothing alive.
#
# The table of attributes holds a reference to each Tensor that has some, and the step of a user's own operation is a
# closure that holds the operation's result and operands, so that no such graph would ever be freed:
#
#     out = Tensor(self.data * other.data, (self, other))
#     def step(): self.grad += other.data * out.grad; ...
#     out._backward = step
#
# These references are counted, as Python's cyclic collector does; a handle that has no others is hidden while the
# living are marked.  A living operation keeps what its closure holds.  Only closures that nobody else holds are looked
# into, and only for nodes that are not younger than the operation; anything else counts as held from outside.

from cpython.object cimport PyObject
from libc.string cimport memset

from fastscalar._core cimport T, Tensor
from fastscalar.engine.memory cimport reallocate
from fastscalar.engine.tape cimport WIDE, Pin, Wide

cdef extern from "Python.h":
    bint PyFunction_Check_ "PyFunction_Check"(PyObject *) nogil
    PyObject *PyFunction_GetClosure_ "PyFunction_GetClosure"(PyObject *) nogil
    Py_ssize_t PyTuple_GET_SIZE_ "PyTuple_GET_SIZE"(PyObject *) nogil
    PyObject *PyTuple_GET_ITEM_ "PyTuple_GET_ITEM"(PyObject *, Py_ssize_t) nogil
    PyObject *PyCell_GET_ "PyCell_GET"(PyObject *) nogil


cdef inline void keep(int p, Py_ssize_t base) noexcept nogil:
    if p >= base:
        if T.record[p].op == WIDE:
            T.wide[T.record[p].a].alive = True
        else:
            T.mark[p] = 1


cdef inline bint is_alive(int i) noexcept nogil:
    return T.wide[T.record[i].a].alive if T.record[i].op == WIDE else T.mark[i] != 0


cdef inline void *closure_of(Pin *p) noexcept nogil:
    """The cells of a pin's step, NULL if there are none or somebody else could use them."""
    cdef PyObject *step = <PyObject *>p.step
    cdef PyObject *cells
    if step == NULL or step.ob_refcnt != 1 or not PyFunction_Check_(step):
        return NULL
    cells = PyFunction_GetClosure_(step)
    return cells if cells != NULL and cells.ob_refcnt == 1 else NULL


cdef inline int held_by(Pin *p, Py_ssize_t base, void **out) noexcept nogil:
    """The Tensors from `base` on, one for each reference, in the closure of a pin's step; how many."""
    cdef PyObject *cells = <PyObject *>closure_of(p)
    cdef PyObject *cell
    cdef PyObject *content
    cdef Py_ssize_t k
    cdef int n = 0, own = (<Tensor>p.tensor).index
    if cells == NULL:
        return 0
    for k in range(PyTuple_GET_SIZE_(cells)):
        cell = PyTuple_GET_ITEM_(cells, k)
        content = PyCell_GET_(cell)
        if cell.ob_refcnt == 1 and content != NULL and <void *>content.ob_type == T.tensor_type:
            if base <= (<Tensor>content).index <= own:
                out[n] = content
                n += 1
    return n


cdef inline void keep_closure(Pin *p, Py_ssize_t base) noexcept nogil:
    cdef void **held = T.hidden + T.hidden_capacity // 2     # the scratch half; `hide` is done with it
    cdef int k
    for k in range(held_by(p, base, held)):
        keep((<Tensor>held[k]).index, base)


cdef inline bint reserve_hidden(Py_ssize_t base) noexcept nogil:
    """Room in T.hidden for every handle that `hide` may put there, twice (the second half is scratch)."""
    cdef int k, p, count = T.n_young_pins if base == T.young else T.n_pins
    cdef Py_ssize_t need = 4 * count if T.n_recorded else 2 * count
    cdef PyObject *cells
    cdef void *block
    if T.n_steps:
        for k in range(count):
            p = T.young_pins[k] if base == T.young else k
            if T.pins[p].tensor != NULL:
                cells = <PyObject *>closure_of(&T.pins[p])
                need += 2 * PyTuple_GET_SIZE_(cells) if cells != NULL else 0
    if need > T.hidden_capacity:
        block = reallocate(T.hidden, need * sizeof(void *))
        if block == NULL:
            return False
        T.hidden = <void **>block
        T.hidden_capacity = <int>need
    return True


cdef inline void hide_if_known(void *handle, Py_ssize_t base) noexcept nogil:
    cdef int i = (<Tensor>handle).index
    if T.handle[i] != NULL and (<PyObject *>handle).ob_refcnt == T.scratch[i - base]:
        T.handle[i] = NULL
        if T.record[i].op == WIDE:
            T.wide[T.record[i].a].handles -= 1
        T.hidden[T.n_hidden] = handle
        T.n_hidden += 1


cdef inline void hide(Py_ssize_t base) noexcept nogil:
    """Take the handles that only the tape's own tables hold out of sight, so that they keep nothing alive."""
    cdef int k, m, p, n, count = T.n_young_pins if base == T.young else T.n_pins
    cdef int found = 0
    cdef void **held
    if count == 0:
        return
    memset(T.scratch, 0, (T.n - base) * sizeof(int))     # references that we know, by node
    for k in range(count):
        p = T.young_pins[k] if base == T.young else k
        if T.pins[p].tensor == NULL or (<Tensor>T.pins[p].tensor).index == 0:
            continue
        held = T.hidden + T.hidden_capacity // 2 + found
        n = held_by(&T.pins[p], base, held)
        for m in range(n):
            T.scratch[(<Tensor>held[m]).index - base] += 1
        held[n] = T.pins[p].tensor
        T.scratch[(<Tensor>held[n]).index - base] += 1
        found += n + 1
        if T.pins[p].gradient != NULL and (<Tensor>T.pins[p].gradient).index >= base:
            held[n + 1] = T.pins[p].gradient
            T.scratch[(<Tensor>held[n + 1]).index - base] += 1
            found += 1
    T.n_hidden = 0
    for k in range(found):
        hide_if_known(T.hidden[T.hidden_capacity // 2 + k], base)


cdef inline bint keep_gradients(Py_ssize_t base) noexcept nogil:
    """Mark the recorded gradients of living nodes; whether that is news, which the marking has to be told.

    A recorded gradient is younger than its node and mostly computed from it, so the reference is followed only when
    the node lives for another reason: else the two would keep each other for ever.
    """
    cdef int k, p, i, count = T.n_young_pins if base == T.young else T.n_pins
    cdef bint news = False
    if T.n_recorded == 0:
        return False
    for k in range(count):
        p = T.young_pins[k] if base == T.young else k
        if T.pins[p].tensor == NULL or T.pins[p].gradient == NULL or (<Tensor>T.pins[p].tensor).index == 0:
            continue
        i = (<Tensor>T.pins[p].gradient).index
        if i >= base and not is_alive(i) and is_alive((<Tensor>T.pins[p].tensor).index):
            keep(i, base)
            news = True
    return news


cdef inline void show(Py_ssize_t base) noexcept nogil:
    """Put the handles of living nodes back; the others lose their node, and pinned ones go to the grave."""
    cdef int k, i, kept = 0
    cdef bint alive
    cdef Wide *q
    for k in range(T.n_hidden):
        i = (<Tensor>T.hidden[k]).index
        q = T.wide[T.record[i].a] if T.record[i].op == WIDE else NULL
        alive = T.mark[i] != 0 if q == NULL else q.alive != 0
        if alive:
            T.handle[i] = T.hidden[k]
            if q != NULL:
                q.handles += 1
        else:
            (<Tensor>T.hidden[k]).index = 0
            if (<Tensor>T.hidden[k]).pin:
                T.grave[T.n_grave] = (<Tensor>T.hidden[k]).pin - 1
                T.n_grave += 1
    T.n_hidden = 0
    if base == T.young:
        for k in range(T.n_young_pins):
            if (<Tensor>T.pins[T.young_pins[k]].tensor).index:
                T.young_pins[kept] = T.young_pins[k]
                kept += 1
        T.n_young_pins = kept
