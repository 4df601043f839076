# cython: language_level=3, wraparound=False, cdivision=True
# Pass 5, levels; and where uniform numbers lie: weights as their products read them, then everything else.
# Inline parts of `_lower`.

from cpython.mem cimport PyMem_RawFree
from libc.string cimport memset

from fastscalar._core cimport *
from fastscalar.program._graph cimport *
from fastscalar.program._lower cimport *
from fastscalar.program._plan cimport Plan
from fastscalar.program.ints cimport *
from fastscalar.program.plan cimport *
from fastscalar.program.products cimport *


cdef inline int depth_of(Lowering low, int i, int section) noexcept:
    """Of an operand as the instructions of a section see it: what the other section computed is there already."""
    return low.level[i] if low.depends[i] == section else 0


cdef inline int depth_of_all(Lowering low, nodes) except -1:
    cdef const int[::1] view = nodes
    cdef Py_ssize_t k
    cdef int deepest = 0
    for k in range(view.shape[0]):
        deepest = max(deepest, depth_of(low, view[k], C_PER_ROW))
    return deepest


cdef inline int schedule(Lowering low, list units, list levels) except -1:
    """For both sections the units (a node, or -1 - group) and their levels."""
    cdef Py_ssize_t i, t, s
    cdef int o, l, g, section
    cdef Ints[3] unit
    cdef Ints[3] depth
    cdef dict depths = {}        # of tables that are gathered from
    cdef LoweredItem item
    cdef ProductGroup group
    memset(unit, 0, sizeof(unit))
    memset(depth, 0, sizeof(depth))
    try:
        for i in range(low.n):
            if not low.live[i] or low.gone[i] or low.rep[i] != i:
                continue
            o, section, l = low.op[i], low.depends[i], 0
            if o == G_CONSTANT or o == G_PARAMETER or o == G_INPUT or o == G_BLOCK or o == G_RANDOM:
                continue
            s = low.sum_of[i]
            if low.plain:                   # in the order of the function
                if o == G_ITEM and low.b[i]:
                    continue
                l = <int>i
            elif s >= 0:
                g = low.group.at[s]
                if g >= 0:
                    group = low.groups[g]
                    if group.level < 0:
                        group.level = 1 + depth_of_all(low, group.x)
                        push(&unit[section], -1 - g)
                        push(&depth[section], group.level)
                    l = group.level
                    low.level[low.direct.at[s]] = l
                    if low.direct.at[s] == i:
                        continue
                for t in range(low.first.at[s], low.first.at[s + 1]):
                    if g < 0 or not is_weighted(low, t):
                        l = max(l, depth_of(low, low.p.at[t], section))
                        if low.q.at[t] >= 0:
                            l = max(l, depth_of(low, low.q.at[t], section))
            elif o == G_ITEM:
                item = item_of(low, <int>i)
                if low.b[i]:
                    low.level[i] = low.item_level[low.a[i]]
                    continue
                if item.kind != "gather" or id(item.x) not in depths:
                    depths[id(item.x)] = depth_of_all(low, item.x)
                l = depths[id(item.x)]
                if item.place is not None:
                    l = max(l, depth_of(low, item.place[0], section))
                low.item_level[low.a[i]] = l + 1
            else:
                l = depth_of(low, low.a[i], section)
                if low.b[i] >= 0:
                    l = max(l, depth_of(low, low.b[i], section))
            low.level[i] = l + 1
            push(&unit[section], <int>i)
            push(&depth[section], l + 1)
        for section in (C_UNIFORM, C_PER_ROW):
            units.append(ints_array(&unit[section]))
            levels.append(ints_array(&depth[section]))
    finally:
        for section in range(3):
            PyMem_RawFree(unit[section].at)
            PyMem_RawFree(depth[section].at)
    return 0


cdef inline int use_again(Lowering low, int k, bint product) except -1:
    """A matrix that is there already, for one more reader."""
    low.plan.matrices[k].uses += 1
    if not product:
        low.plan.matrices[k].only = False
    return k


cdef inline Matrix new_matrix(Lowering low, int rows, int cols, bint product) noexcept:
    """A matrix at the next addresses, of one reader, not in the plan yet."""
    cdef Matrix m
    memset(&m, 0, sizeof(Matrix))
    m.rows, m.cols, m.ld = rows, cols, 1 if cols == 1 else (cols + PAD - 1) // PAD * PAD
    m.base = low.next_address = (low.next_address + PAD - 1) // PAD * PAD
    m.uses, m.only, m.table = 1, product, -1
    low.next_address += m.rows * m.ld
    return m


cdef inline int matrix_for(Lowering low, nodes, bint product, int cols=0) except -1:
    """The matrix of these nodes (inputs x outputs): a place of its own if they are captured leaves without one.

    cols: what may be a block (then it is the only node) has so many columns."""
    cdef Matrix m
    cdef Py_ssize_t j, i
    cdef int k
    cdef const int[:, ::1] table = np.ascontiguousarray(nodes)
    cdef bint home = True
    if cols and low.op[table[0, 0]] == G_BLOCK:
        return matrix_of_block(low, table[0, 0], cols, product)
    some = low.matrices.setdefault((table.shape[0], table.shape[1], crc32(table)), [])
    for known, k in some:
        if not np.array_equal(known, table):
            continue
        return use_again(low, k, product)
    m = new_matrix(low, <int>table.shape[0], <int>table.shape[1], product)
    k = <int>low.plan.n_matrices
    for j in range(m.rows):
        for i in range(m.cols):
            m.mask |= low.mask[table[j, i]]
            if home and low.op[table[j, i]] == G_PARAMETER and low.at[table[j, i]] < 0:
                low.at[table[j, i]] = <int>(m.base + j * m.ld + i)
            else:
                home = False
    m.home = home
    if not home:
        for j in range(m.rows):
            for i in range(m.cols):
                if low.node_matrix[table[j, i]] < 0 and low.op[table[j, i]] == G_PARAMETER:
                    if m.base <= low.at[table[j, i]] < low.next_address:
                        low.at[table[j, i]] = -1
        m.table = <int>len(low.plan.tables)
        low.plan.tables.append(np.asarray(table).ravel())
    else:
        for j in range(m.rows):
            for i in range(m.cols):
                low.where[table[j, i]] = UNIFORM
                low.node_matrix[table[j, i]] = k
    some.append((table, k))
    low.plan.add_matrix(&m)
    return k


cdef inline int matrix_of_block(Lowering low, int i, int cols, bint product) except -1:
    """The same for captured leaves that are a block, which nothing else reads."""
    cdef Matrix m
    cdef int k = low.node_matrix[i]
    if k >= 0:
        return use_again(low, k, product)
    m = new_matrix(low, low.b[i], cols, product)
    m.home, m.mask = True, low.mask[i]
    k = <int>low.plan.n_matrices
    low.where[i], low.at[i], low.node_matrix[i] = UNIFORM, m.base, k
    low.plan.add_matrix(&m)
    return k


cdef inline int place_matrices(Lowering low) except -1:
    """Before anything else gets an address, so that weights lie as their products read them."""
    cdef Py_ssize_t k
    cdef LoweredItem item
    cdef ProductGroup group
    for group in low.groups:
        if group is not None:
            group.matrix = matrix_for(low, group.weights, True)
            group.bias_matrix = bias_for(low, group.bias)
    done, tables = set(), {}
    for i in range(low.n):
        if low.live[i] and low.op[i] == G_ITEM and low.a[i] not in done:
            done.add(low.a[i])
            item = item_of(low, i)
            if item.kind == "affine" or item.kind == "conv2d":
                item.matrix = matrix_for(
                    low, item.weights, item.kind == "affine",
                    item.outputs if item.geometry is None else item.outputs // (item.geometry[7] * item.geometry[8]))
                item.bias_matrix = bias_for(low, item.bias)
            elif item.kind == "gather":
                key = (id(item.x), item.outputs)
                if key not in tables:
                    uniform = np.asarray(low.depends)[item.x].max() != C_PER_ROW
                    rows = item.x.reshape(-1, item.outputs if len(item.x) > 1 else 1)       # a block is one node
                    tables[key] = matrix_for(low, rows, False, item.outputs) if uniform else -1
                item.matrix = tables[key]
    for k in range(low.n):
        if low.live[k] and low.rep[k] == k and low.at[k] < 0 and (
                low.op[k] == G_PARAMETER or (low.op[k] == G_INPUT and low.depends[k] == C_UNIFORM)):
            low.where[k] = UNIFORM
            low.at[k] = low.next_address
            low.next_address += 1
    return 0


cdef inline int bias_for(Lowering low, nodes) except -2:
    return -1 if (nodes == low.zero).all() else matrix_for(low, nodes.reshape(1, -1), True)


cdef inline int address_of(Lowering low, int i) except -1:
    """Of a uniform node that some other instruction than a product reads."""
    if low.at[i] < 0:
        assert low.op[i] == G_CONSTANT, low.op[i]
        low.where[i] = UNIFORM
        low.at[i] = low.next_address
        low.next_address += 1
        push(&low.constant_nodes, i)
    elif low.node_matrix[i] >= 0:
        low.plan.matrices[low.node_matrix[i]].only = False
    return low.at[i]
