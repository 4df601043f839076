# cython: language_level=3, wraparound=False, cdivision=True
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
# living are marked.  A living operation keeps what its closure holds.  Only closures with one reference are looked
# into, and only for nodes that are not younger than the operation; anything else counts as held from outside.

from cpython.object cimport PyObject
from libc.string cimport memset

from fastscalar._core cimport tape, Tensor
from fastscalar.engine.memory cimport could_enlarge
from fastscalar.engine.tape cimport ARRAY_OP, Attributes, ArrayOp

cdef extern from "Python.h":
    bint PyFunction_Check_ "PyFunction_Check"(PyObject *) nogil
    PyObject *PyFunction_GetClosure_ "PyFunction_GetClosure"(PyObject *) nogil
    Py_ssize_t PyTuple_GET_SIZE_ "PyTuple_GET_SIZE"(PyObject *) nogil
    PyObject *PyTuple_GET_ITEM_ "PyTuple_GET_ITEM"(PyObject *, Py_ssize_t) nogil
    PyObject *PyCell_GET_ "PyCell_GET"(PyObject *) nogil


cdef inline void keep(int p, Py_ssize_t base) noexcept nogil:
    if p >= base:
        if tape.record[p].op == ARRAY_OP:
            tape.array_ops[tape.record[p].a].alive = True
        else:
            tape.mark[p] = 1


cdef inline bint is_alive(int i) noexcept nogil:
    return tape.array_ops[tape.record[i].a].alive if tape.record[i].op == ARRAY_OP else tape.mark[i] != 0


cdef inline void *closure_of(Attributes *p) noexcept nogil:
    """The cells of the closure of an operation's step; NULL: there are none, or they are used elsewhere too."""
    cdef PyObject *step = <PyObject *>p.step
    cdef PyObject *cells
    if step == NULL or step.ob_refcnt != 1 or not PyFunction_Check_(step):
        return NULL
    cells = PyFunction_GetClosure_(step)
    return cells if cells != NULL and cells.ob_refcnt == 1 else NULL


cdef inline int held_by(Attributes *p, Py_ssize_t base, void **out) noexcept nogil:
    """The Tensors from `base` on, one for each reference, in the closure of an operation's step; how many."""
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
        if cell.ob_refcnt == 1 and content != NULL and <void *>content.ob_type == tape.tensor_type:
            if base <= (<Tensor>content).index <= own:
                out[n] = content
                n += 1
    return n


cdef inline void keep_closure(Attributes *p, Py_ssize_t base) noexcept nogil:
    cdef void **held = tape.weak_roots + tape.weak_root_capacity // 2     # the scratch half, in use no more
    cdef int k
    for k in range(held_by(p, base, held)):
        keep((<Tensor>held[k]).index, base)


cdef inline bint reserve_weak_roots(Py_ssize_t base) noexcept nogil:
    """Room for every handle that `hide_weak_roots` may put there, twice (the second half is scratch)."""
    cdef int k, p, count = tape.n_young_attributes if base == tape.young else tape.n_attributes
    cdef Py_ssize_t need = 4 * count if tape.n_recorded else 2 * count
    cdef PyObject *cells
    if tape.n_steps:
        for k in range(count):
            p = tape.young_attributes[k] if base == tape.young else k
            if tape.attributes[p].tensor != NULL:
                cells = <PyObject *>closure_of(&tape.attributes[p])
                need += 2 * PyTuple_GET_SIZE_(cells) if cells != NULL else 0
    if need > tape.weak_root_capacity:
        if not could_enlarge(<void **>&tape.weak_roots, need, sizeof(void *)):
            return False
        tape.weak_root_capacity = <int>need
    return True


cdef inline void hide_weak_root(void *handle, Py_ssize_t base) noexcept nogil:
    cdef int i = (<Tensor>handle).index
    if tape.handle[i] != NULL and (<PyObject *>handle).ob_refcnt == tape.scratch[i - base]:
        tape.handle[i] = NULL
        if tape.record[i].op == ARRAY_OP:
            tape.array_ops[tape.record[i].a].handles -= 1
        tape.weak_roots[tape.n_weak_roots] = handle
        tape.n_weak_roots += 1


cdef inline void hide_weak_roots(Py_ssize_t base) noexcept nogil:
    """Take the handles that only the tape's own tables hold out of sight, so that they keep nothing alive."""
    cdef int k, m, p, n, count = tape.n_young_attributes if base == tape.young else tape.n_attributes
    cdef int found = 0
    cdef void **held
    if count == 0:
        return
    memset(tape.scratch, 0, (tape.n - base) * sizeof(int))     # references that we know, by node
    for k in range(count):
        p = tape.young_attributes[k] if base == tape.young else k
        if tape.attributes[p].tensor == NULL or (<Tensor>tape.attributes[p].tensor).index == 0:
            continue
        held = tape.weak_roots + tape.weak_root_capacity // 2 + found
        n = held_by(&tape.attributes[p], base, held)
        for m in range(n):
            tape.scratch[(<Tensor>held[m]).index - base] += 1
        held[n] = tape.attributes[p].tensor
        tape.scratch[(<Tensor>held[n]).index - base] += 1
        found += n + 1
        if tape.attributes[p].gradient != NULL and (<Tensor>tape.attributes[p].gradient).index >= base:
            held[n + 1] = tape.attributes[p].gradient
            tape.scratch[(<Tensor>held[n + 1]).index - base] += 1
            found += 1
    tape.n_weak_roots = 0
    for k in range(found):
        hide_weak_root(tape.weak_roots[tape.weak_root_capacity // 2 + k], base)


cdef inline bint keep_gradients(Py_ssize_t base) noexcept nogil:
    """Mark the recorded gradients of living nodes; whether that is news, which the marking has to be told.

    A recorded gradient is younger than its node and mostly computed from it, so the reference is followed only when
    the node lives for another reason: else the two would keep each other for ever.
    """
    cdef int k, p, i, count = tape.n_young_attributes if base == tape.young else tape.n_attributes
    cdef bint news = False
    if tape.n_recorded == 0:
        return False
    for k in range(count):
        p = tape.young_attributes[k] if base == tape.young else k
        if tape.attributes[p].tensor == NULL or tape.attributes[p].gradient == NULL or (<Tensor>tape.attributes[
                p].tensor).index == 0:
            continue
        i = (<Tensor>tape.attributes[p].gradient).index
        if i >= base and not is_alive(i) and is_alive((<Tensor>tape.attributes[p].tensor).index):
            keep(i, base)
            news = True
    return news


cdef inline void restore_weak_roots(Py_ssize_t base) noexcept nogil:
    """Put the handles of living nodes back; the others lose their node, and their attributes are released later."""
    cdef int k, i, kept = 0
    cdef bint alive
    cdef ArrayOp *q
    for k in range(tape.n_weak_roots):
        i = (<Tensor>tape.weak_roots[k]).index
        q = tape.array_ops[tape.record[i].a] if tape.record[i].op == ARRAY_OP else NULL
        alive = tape.mark[i] != 0 if q == NULL else q.alive != 0
        if alive:
            tape.handle[i] = tape.weak_roots[k]
            if q != NULL:
                q.handles += 1
        else:
            (<Tensor>tape.weak_roots[k]).index = 0
            if (<Tensor>tape.weak_roots[k]).entry:
                tape.pending[tape.n_pending] = (<Tensor>tape.weak_roots[k]).entry - 1
                tape.n_pending += 1
    tape.n_weak_roots = 0
    if base == tape.young:
        for k in range(tape.n_young_attributes):
            if (<Tensor>tape.attributes[tape.young_attributes[k]].tensor).index:
                tape.young_attributes[kept] = tape.young_attributes[k]
                kept += 1
        tape.n_young_attributes = kept
