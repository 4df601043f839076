# cython: language_level=3, wraparound=False, cdivision=True
# Operands as instructions say them: slots, addresses, columns of runs, and what is packed or unpacked for it.
# Inline parts of `_lower`.

from libc.string cimport memset

from fastscalar._core cimport *
from fastscalar.program._graph cimport *
from fastscalar.program._lower cimport *
from fastscalar.program._plan cimport Plan
from fastscalar.program.places cimport *
from fastscalar.program.plan cimport *


ctypedef struct Key:             # of an elementwise operation, to sort those that go together side by side
    int code
    int a_where                  # run, or -1 slots, -2 uniform, -3 none
    int b_where
    int a
    int b
    int node


cdef inline int compare_keys(const void *left, const void *right) noexcept nogil:
    cdef const Key *x = <const Key *>left
    cdef const Key *y = <const Key *>right
    if x.code != y.code:
        return -1 if x.code < y.code else 1
    if x.a_where != y.a_where:
        return -1 if x.a_where < y.a_where else 1
    if x.b_where != y.b_where:
        return -1 if x.b_where < y.b_where else 1
    if x.a != y.a:
        return -1 if x.a < y.a else 1
    if x.b != y.b:
        return -1 if x.b < y.b else 1
    return -1 if x.node < y.node else 1


cdef inline bint alike(const Key *x, const Key *y) noexcept nogil:
    return x.code == y.code and x.a_where == y.a_where and x.b_where == y.b_where


cdef inline int slot_of(Lowering low, int i) except -1:
    """Of a node that depends on the row; columns of a run are unpacked to slots when one is asked for."""
    if low.where[i] == SLOT:
        return low.at[i]
    if low.copy[i] < 0:
        unpack(low, [i])
    return low.copy[i]


cdef inline int unpack(Lowering low, nodes) except -1:
    """Slots for columns of one run."""
    cdef Instr q
    cdef int i, k
    cdef int[::1] index = np.empty(len(nodes), np.int32)
    memset(&q, 0, sizeof(Instr))
    for k, i in enumerate(nodes):
        index[k] = low.at[i]
        low.copy[i] = low.next_slot + k
    q.kind, q.n, q.out, q.run = I_UNPACK, <int>len(nodes), low.next_slot, -1
    q.mask = low.plan.runs[low.run[nodes[0]]].mask
    q.a.kind, q.a.run, q.a.mask = R_ROWS, low.run[nodes[0]], q.mask
    keep_index(low, &q.a, index, len(nodes))
    low.next_slot += q.n
    low.plan.add_instr(&q, True)
    return 0


cdef inline int keep_index(Lowering low, Ref *r, int[::1] index, Py_ssize_t n) except -1:
    """The shortest way to say it."""
    cdef Py_ssize_t k
    cdef int step = index[1] - index[0] if n > 1 else 0
    cdef bint regular = step == 0 or step == 1
    for k in range(1, n):
        if index[k] - index[k - 1] != step:
            regular = False
            break
    r.start, r.step = index[0], step
    if not regular:
        r.step = 0
        low.plan.keep.append(np.asarray(index[:n]).copy())
        index = low.plan.keep[len(low.plan.keep) - 1]
        r.index = &index[0]
    return 0


cdef inline int add_ports(Lowering low, int first, int count, Ref *r, int[::1] index) except -1:
    """Where the part for each row collects the gradients of uniform operands."""
    cdef int k
    r.port = <int>len(low.plan.port_address)
    if r.index == NULL and r.step == 0:
        low.plan.port_address.append(r.start)
    else:
        for k in range(count):
            low.plan.port_address.append(index[k])
    return 0


cdef inline int refer(Lowering low, Ref *r, Key *keys, Py_ssize_t n, bint second, bint per_row) except -1:
    """The operand a (or b) of a group of operations."""
    cdef Py_ssize_t k
    cdef int i, where = keys[0].b_where if second else keys[0].a_where
    cdef int[::1] index
    r.kind, r.port, r.run = R_NONE, -1, -1
    if where == -3:
        return 0
    index = np.empty(n, np.int32)
    if where >= 0:
        wanted = []
        for k in range(n):
            i = low.b[keys[k].node] if second else low.a[keys[k].node]
            if low.copy[i] < 0 and (not wanted or wanted[len(wanted) - 1] != i):
                low.copy[i] = 0
                wanted.append(i)
        if wanted:
            unpack(low, wanted)
    for k in range(n):
        i = low.b[keys[k].node] if second else low.a[keys[k].node]
        r.mask |= low.mask[i]
        index[k] = low.copy[i] if where >= 0 else keys[k].b if second else keys[k].a
    r.kind = R_UNIFORM if where == -2 else R_SLOTS
    keep_index(low, r, index, n)
    if per_row and r.kind == R_UNIFORM and r.mask:
        add_ports(low, 0, <int>n, r, index)
    return 0


cdef inline int locate(Lowering low, Key *key, int node, bint second) except -1:
    cdef int i = low.b[node] if second else low.a[node], where, at
    if i < 0:
        where, at = -3, 0
    elif low.depends[i] != C_PER_ROW and low.copy[i] >= 0:
        where, at = -1, low.copy[i]
    elif low.depends[i] != C_PER_ROW:
        where, at = -2, address_of(low, i)
    elif low.where[i] == SLOT:
        where, at = -1, low.at[i]
    else:
        where, at = low.run[i], low.at[i]
    if second:
        key.b_where, key.b = where, at
    else:
        key.a_where, key.a = where, at
    return 0


cdef inline bint are_neighbours(Lowering low, nodes) except -1:
    """Whether these nodes are neighbouring columns of a run."""
    cdef const int[::1] view = nodes
    cdef Py_ssize_t k
    cdef int i = view[0]
    if low.where[i] != ROWS:
        return False
    for k in range(1, view.shape[0]):
        if low.where[view[k]] != ROWS or low.run[view[k]] != low.run[i] or low.at[view[k]] != low.at[i] + k:
            return False
    return True


cdef inline int run_of(Lowering low, nodes, int *first) except -1:
    """A run that has these nodes side by side: theirs, or one that they are packed into."""
    cdef int i = nodes[0]
    if are_neighbours(low, nodes):
        first[0] = low.at[i]
        return low.run[i]
    first[0] = 0
    return pack(low, nodes)


cdef inline int refer_one_by_one(Lowering low, Ref *r, nodes) except -1:
    """Slots and uniform numbers in any order: these as -1 - their address, with a port each."""
    cdef const int[::1] view = nodes
    cdef int[::1] index = np.empty(view.shape[0], np.int32)
    cdef Py_ssize_t k
    cdef int i
    wanted = {}
    for k in range(view.shape[0]):
        i = view[k]
        r.mask |= low.mask[i]
        if low.depends[i] == C_PER_ROW and low.where[i] == ROWS and low.copy[i] < 0:
            wanted.setdefault(low.run[i], {})[i] = True
    for some in wanted.values():
        unpack(low, list(some))
    r.port = <int>len(low.plan.port_address)
    for k in range(view.shape[0]):
        i = view[k]
        if low.depends[i] == C_PER_ROW:
            index[k] = slot_of(low, i)
        else:
            index[k] = -1 - address_of(low, i)
            low.plan.port_address.append(address_of(low, i))
    low.plan.keep.append(index.base)
    r.kind, r.index = R_SLOTS, &index[0]
    return 0


cdef inline int pack(Lowering low, nodes) except -1:
    cdef Instr q
    key = np.asarray(nodes).tobytes()
    if key in low.packs:
        return low.packs[key]
    memset(&q, 0, sizeof(Instr))
    q.kind, q.n = I_PACK, <int>len(nodes)
    refer_one_by_one(low, &q.a, nodes)
    q.mask = q.a.mask
    q.run = low.plan.add_run(q.n, q.mask, False)
    low.plan.add_instr(&q, True)
    low.packs[key] = q.run
    return q.run


cdef inline int refer_to_best(Lowering low, Instr *q, Item *p, nodes) except -1:
    """The operands of a maximum: side by side in a run as they are, else each where it is."""
    cdef int first
    p.count = <int>len(nodes)
    if are_neighbours(low, nodes):
        p.x = run_of(low, nodes, &first)
        q.a.kind, q.a.run, q.a.start, q.a.mask = R_ROWS, p.x, first, low.plan.runs[p.x].mask
        return 0
    refer_one_by_one(low, &q.a, nodes)
    return 0


cdef inline int refer_to_one(Lowering low, Ref *r, int i) except -1:
    """An operand of one number."""
    r.mask, r.port = low.mask[i], -1
    if low.depends[i] == C_PER_ROW or low.copy[i] >= 0:
        r.kind, r.start = R_SLOTS, slot_of(low, i)
    else:
        r.kind, r.start = R_UNIFORM, address_of(low, i)
        if r.mask:
            r.port = <int>len(low.plan.port_address)
            low.plan.port_address.append(r.start)
    return 0
