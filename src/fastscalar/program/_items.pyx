# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False
"""Array operations of the tape as items of a Graph, or as the scalar operations that they stand for.

`extract` in `_trace` lists the items.  `number` has the node of the graph + 1 by node of the tape.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize

from fastscalar._core cimport *
from fastscalar.engine.array_ops cimport elements_of, node_of, value_of
from fastscalar.program._graph cimport *

import numpy as np

from fastscalar.engine.patches import Geometry, patches_of, windows_of


cdef int operand_node(Graph g, Operand *o, Py_ssize_t k, const int *number) except -1:
    cdef int p = node_of(o, k)
    return number[p] - 1 if p else g.constant(value_of(o, k))


cdef object operand_nodes(Graph g, Operand *o, const int *number):
    """The nodes of an operand; numbers become constants."""
    cdef Py_ssize_t k, n = elements_of(o)
    out = np.empty(n, dtype=np.int32)
    cdef int[::1] view = out
    for k in range(n):
        view[k] = operand_node(g, o, k, number)
    return out


cdef object table_nodes(Graph g, Operand *o, const int *number):
    """The same array for all that are gathered from one table: it may be large, and they many."""
    key = (o.start, o.count) if o.kind == RUN else PyBytes_FromStringAndSize(
        <char *>o.index, o.count * sizeof(int)) if o.kind == INDEX else None
    if key is None:
        return operand_nodes(g, o, number)
    if key not in g.tables:
        block = g.blocks.get(o.start) if o.kind == RUN else None
        g.tables[key] = operand_nodes(g, o, number) if block is None else np.array([block], np.int32)
    return g.tables[key]


cdef bint any_per_row(Graph g, nodes) except -1:
    cdef int[::1] view = nodes
    cdef Py_ssize_t k
    for k in range(view.shape[0]):
        if g.per_row_[view[k]]:
            return True
    return False


cdef int add_call(Graph g, ArrayOp *q, int *number, callee) except -1:
    """An operation that Python computes for many rows at once; of one with several outputs the others follow, each
    with the number of its output instead of a callee."""
    cdef int item = <int>len(g.entries), k
    if type(callee) is int:
        number[q.start] = number[node_of(&q.x, 0)] + <int>callee
        return 0
    if type(callee) is Tensor:                   # it is computed by operations that were recorded
        number[q.start] = number[(<Tensor>callee).index]
        return 0
    operands = operand_nodes(g, &q.x, number)
    g.entries.append(("call", <int>g.n, <int>callee.outputs, operands, callee))
    number[q.start] = 1 + <int>g.n
    for k in range(callee.outputs):
        g.output(item, k, tape.value[q.start])
    return 0


cdef bint add_items(Graph g, ArrayOp *q, int *number, dict callees) except -1:
    """An array operation: one or more items, or the scalar operations that it stands for.  False: it is none that a
    graph can have."""
    cdef Py_ssize_t k
    cdef int item, x, y, code = q.code | IEEE
    if q.geometry != NULL:
        add_images(g, q, number)
    elif q.op == A_AFFINE:
        add_affine(g, q, number)
    elif q.op == A_MAP1 or q.op == A_MAP2:
        for k in range(q.count):
            x = operand_node(g, &q.x, k, number)
            y = -1 if q.op == A_MAP1 else operand_node(
                g, &q.y, k, number)
            number[q.start + k] = 1 + g.add(
                code, x, y, tape.value[q.start + k], g.per_row_[x] or (y >= 0 and g.per_row_[y]))
    elif q.op == A_SUM or q.op == A_DOT:
        add_sums(g, q, number)
    elif q.op == A_PICK:
        for k in range(q.count):
            number[q.start + k] = 1 + operand_node(g, &q.x, k, number)
    elif q.op == A_CUMSUM or q.op == A_PROD:
        add_accumulated(g, q, number)
    elif q.op == A_BEST:
        operands = operand_nodes(g, &q.x, number)
        for k in range(q.count):
            item = <int>len(g.entries)
            y = g.output(item, 0, tape.value[q.start + k])
            number[q.start + k] = 1 + y
            g.entries.append((BEST_NAMES[q.code], y, 1, operands[k * q.inner:(k + 1) * q.inner].copy()))
    elif q.op == A_SQUARED or q.op == A_MSE:
        number[q.start] = 1 + add_squared(g, q, number)
    elif q.op == A_CROSS_ENTROPY:
        number[q.start] = 1 + add_cross_entropy(g, q, number)
    elif q.op == A_CUSTOM:
        add_call(g, q, number, callees[q.start])
    elif q.op == A_WHERE:
        number[q.start] = 1 + g.add_where(
            q.code, operand_node(g, &q.x, 0, number), operand_node(g, &q.x, 1, number),
            operand_node(g, &q.x, 2, number), operand_node(g, &q.x, 3, number), tape.value[q.start])
    else:
        item = <int>len(g.entries)
        operands = table_nodes(g, &q.x, number) if q.op == A_GATHER else operand_nodes(g, &q.x, number)
        g.entries.append(None)
        for k in range(q.count):
            y = g.output(item, <int>k, tape.value[q.start + k])
            number[q.start + k] = 1 + y
        first = number[q.start] - 1
        if q.op == A_LOGSUMEXP:
            g.entries[item] = ("logsumexp", first, 1, operands)
        elif q.op == A_SOFTMAX:
            g.entries[item] = ("softmax", first, q.count, operands)
        elif q.op == A_GATHER:
            g.entries[item] = ("gather", first, q.count, operands, q.argument - 1)
            if not q.argument:
                g.entries[item] += (operand_nodes(g, &q.y, number),)
        else:
            return False
    return True


cdef int add_sums(Graph g, ArrayOp *q, int *number) except -1:
    """Sums and dot products, as loops over scalars have them."""
    cdef Py_ssize_t k, j
    cdef int s, x
    cdef int zero = g.constant(0.0)
    cdef bint products = q.op == A_DOT
    for k in range(q.count):
        s = zero
        for j in range(k * q.inner, (k + 1) * q.inner):
            x = operand_node(g, &q.x, j, number)
            if products:
                x = g.apply(MUL, x, operand_node(g, &q.y, j, number))
            s = g.apply(ADD, s, x)
        number[q.start + k] = 1 + s
    return 0


cdef int add_accumulated(Graph g, ArrayOp *q, int *number) except -1:
    cdef Py_ssize_t k, j
    cdef int s = 0
    if q.op == A_CUMSUM:
        for k in range(q.count):
            j = operand_node(g, &q.x, k, number)
            s = g.apply(ADD, s, <int>j) if k % q.inner else <int>j
            number[q.start + k] = 1 + s
        return 0
    for k in range(q.count):
        s = operand_node(g, &q.x, k * q.inner, number)
        for j in range(k * q.inner + 1, (k + 1) * q.inner):
            s = g.apply(MUL, s, operand_node(g, &q.x, j, number))
        number[q.start + k] = 1 + s
    return 0


cdef int add_squared(Graph g, ArrayOp *q, const int *number) except -1:
    cdef Py_ssize_t r, k
    cdef int total = -1, part, d
    for r in range(max(q.rows, 1)):
        part = -1
        for k in range(r * q.cols, (r + 1) * q.cols):
            d = g.apply(SUB | IEEE, operand_node(g, &q.x, k, number), operand_node(g, &q.y, k, number))
            d = g.apply(MUL, d, d)
            part = d if part < 0 else g.apply(ADD, part, d)
        total = part if total < 0 else g.apply(ADD, total, part)
    if q.op == A_MSE:
        return g.apply(DIV | IEEE, total, g.constant(q.x.count)) if q.x.count > 1 else total
    total = g.apply(MUL, total, g.constant(0.5))
    return g.apply(DIV | IEEE, total, g.constant(q.rows)) if q.rows else total


cdef int add_cross_entropy(Graph g, ArrayOp *q, const int *number) except -1:
    cdef Py_ssize_t r
    cdef int total = -1, item, out
    x = operand_nodes(g, &q.x, number)
    for r in range(max(q.rows, 1)):
        item = <int>len(g.entries)
        out = g.output(item, 0, 0.0 if q.rows else tape.value[q.start])
        g.entries.append(("cross_entropy", out, 1, x[r * q.cols:(r + 1) * q.cols].copy(), q.argument - 1, q.labels[r]))
        total = out if total < 0 else g.apply(ADD, total, out)
    return g.apply(DIV | IEEE, total, g.constant(q.rows)) if q.rows else total


cdef int add_images(Graph g, ArrayOp *q, int *number) except -1:
    """Each image is an item; weights that depend on the inputs make scalar operations of it."""
    cdef Py_ssize_t r, k, outputs
    cdef int item
    cdef bint pool = q.op == A_BEST
    geometry = Geometry(*[q.geometry[k] for k in range(7)])
    places, more = (windows_of if pool else patches_of)(geometry), ()
    if not pool:
        block = g.blocks.get(q.y.start) if q.y.kind == RUN else None
        w = operand_nodes(g, &q.y, number).reshape(q.inner, q.cols) if block is None else np.array([[block]], np.int32)
        if q.x.kind != INDEX or any_per_row(g, w.ravel()):
            return add_affine(g, q, number)
        more = w, operand_nodes(g, &q.z, number)
    outputs = places.shape[0] * (1 if pool else q.cols)
    for r in range(q.count // outputs):
        x = np.empty(geometry.pixels, np.int32)
        find_image(g, q, r * places.size, places.ravel(), x, number)
        item = <int>len(g.entries)
        g.entries.append(("max_pool2d" if pool else "conv2d", <int>g.n, <int>outputs, x, *more,
                          (*geometry, *geometry.out_shape)))
        for k in range(outputs):
            number[q.start + r * outputs + k] = 1 + g.output(item, <int>k, tape.value[q.start + r * outputs + k])
    return 0


cdef int add_affine(Graph g, ArrayOp *q, int *number) except -1:
    """Each row of inputs is an item; weights that depend on the inputs make scalar operations of it."""
    cdef Py_ssize_t r, k, i
    cdef int item, s
    cdef Operand *o = &q.x
    block = g.blocks.get(q.y.start) if q.y.kind == RUN else None
    w = operand_nodes(g, &q.y, number).reshape(q.inner, q.cols) if block is None else np.array([[block]], np.int32)
    b = np.full(q.cols, g.constant(0.0), np.int32) if q.dense else operand_nodes(g, &q.z, number)
    cdef bint expand = q.dense or any_per_row(g, w.ravel())
    for r in range(q.rows):
        if o.kind == SPARSE:
            count = o.row[r + 1] - o.row[r]
            x = np.empty(count, dtype=np.int32)
            rows = np.empty(count, dtype=np.int32)
            for k in range(count):
                x[k] = g.constant(o.value[o.row[r] + k])
                rows[k] = o.index[o.row[r] + k]
            weights = np.ascontiguousarray(w[rows])
        else:
            x = np.empty(q.inner, dtype=np.int32)
            for k in range(q.inner):
                x[k] = operand_node(g, o, r * q.inner + k, number)
            weights = w
        if expand or not len(x):
            for i in range(q.cols):
                s = b[i] if q.dense else g.apply(ADD, g.constant(0.0), b[i])
                for k in range(len(x)):
                    s = g.apply(ADD, s, g.apply(MUL, x[k], weights[k, i]))
                number[q.start + r * q.cols + i] = 1 + s
        else:
            item = <int>len(g.entries)
            g.entries.append(("affine", <int>g.n, q.cols, x, weights, b))
            for i in range(q.cols):
                number[q.start + r * q.cols + i] = 1 + g.output(item, <int>i, tape.value[q.start + r * q.cols + i])
    return 0


cdef int find_image(Graph g, ArrayOp *q, Py_ssize_t first, const int[::1] place, int[::1] image,
                    const int *number) except -1:
    """The nodes of an image, of which the operands from `first` on are what its patches read; others belong to none."""
    cdef Py_ssize_t k, pixels = image.shape[0]
    cdef int p
    for k in range(pixels):
        image[k] = -1
    for k in range(place.shape[0]):
        if place[k] >= 0:
            image[place[k]] = number[q.x.index[first + k]] - 1
    for k in range(1, pixels):                   # what no patch reaches: so that all lie side by side, if there is one
        p = image[k - 1] + 1
        if image[k] < 0 and 0 < p < g.n and g.op_[p] == g.op_[p - 1] and g.a_[p] == g.a_[p - 1]:
            image[k] = p
    for k in range(pixels):
        if image[k] < 0:
            image[k] = g.constant(0.0)
    return 0


cdef long long count_operations(Py_ssize_t i, Py_ssize_t end) except -1:
    """What has been done from node i to `end`, array operations by their scalar work."""
    cdef long long total = 0
    cdef ArrayOp *q
    while i < end:
        if tape.record[i].op != ARRAY_OP:
            total += tape.record[i].op > ARRAY_OP
            i += 1
            continue
        q = tape.array_ops[tape.record[i].a]
        if q.op == A_AFFINE:
            total += 2 * <long long>q.count * q.inner
        elif q.op == A_MAP1 or q.op == A_MAP2 or q.op == A_WHERE or q.op == A_CUMSUM:
            total += q.count
        elif q.op == A_SUM or q.op == A_PROD or q.op == A_BEST or q.op == A_DOT:
            total += (2 if q.op == A_DOT else 1) * <long long>q.count * q.inner
        elif q.op != A_LEAF and q.op != A_GATHER and q.op != A_PICK:
            total += 3 * q.x.count
        i += q.count
    return total
