# cython: language_level=3, wraparound=False, cdivision=True
# Instructions, level by level.  Inline parts of `_lower`.

from cpython.mem cimport PyMem_RawFree
from libc.stdlib cimport qsort
from libc.string cimport memset

from fastscalar._core cimport *
from fastscalar.engine._random cimport Draw
from fastscalar.engine.memory cimport allocate, out_of_memory
from fastscalar.program._graph cimport *
from fastscalar.program._kernels cimport *
from fastscalar.program._lower cimport *
from fastscalar.program._plan cimport Plan
from fastscalar.program.operands cimport *
from fastscalar.program.places cimport *
from fastscalar.program.ints cimport *
from fastscalar.program.plan cimport *
from fastscalar.program.products cimport *
from fastscalar.program.simplify cimport *


cdef inline int kernel_of(int code, bint exact) noexcept nogil:
    """The kernel of an operation, -1: the function of the table.  exact: one with the same bits."""
    cdef bint same_bits = code in (ADD, SUB, MUL, DIV, NEG, RELU, ABS, SQRT, MINIMUM, MAXIMUM, SQUARE)
    return FAST[code] if same_bits or not exact else -1


cdef inline bint is_steep(int code) noexcept nogil:
    """Whether the slope may be infinite where operands and result are not: sqrt at 0."""
    return code not in (ADD, SUB, MUL, DIV, NEG, EXP, TANH, SIGMOID, RELU, ABS, MINIMUM, MAXIMUM, LOG, SIN, COS, SQUARE,
                        COPY, SEND)


cdef inline int kernel_for(Lowering low, int i) noexcept:
    """The kernel of a node's operation, -1: the function of the table."""
    cdef int code = low.op[i] & 0xff
    return -1 if low.plain else kernel_of(code, low.exact[i])


cdef inline int emit_elements(Lowering low, Key *keys, Py_ssize_t n, bint per_row) except -1:
    cdef Instr q
    cdef Py_ssize_t k
    cdef int node = keys[0].node, o = low.op[node]
    if per_row and (keys[0].a_where >= 0 or keys[0].b_where >= 0) and emit_rows(low, keys, n):
        return 0
    memset(&q, 0, sizeof(Instr))
    q.kind, q.n, q.run = I_ELEMENTS, <int>n, -1
    q.code, q.op, q.raises = o & 0xff, <signed char>kernel_for(low, keys[0].node), raises(o)
    refer(low, &q.a, keys, n, False, per_row)
    refer(low, &q.b, keys, n, True, per_row)
    q.out = low.next_slot if per_row else low.next_address
    for k in range(n):
        node = keys[k].node
        q.steep = q.steep or (is_steep(q.code) and (low.merged[node] or not per_row))
        q.mask |= low.mask[node]
        low.where[node] = SLOT if per_row else UNIFORM
        low.at[node] = <int>(q.out + k)
    if per_row:
        low.next_slot += <int>n
    else:
        low.next_address += <int>n
    low.plan.add_instr(&q, per_row)
    low.counts.append((NAMES[q.code], n))
    return 0


cdef inline bint emit_rows(Lowering low, Key *keys, Py_ssize_t n) except -1:
    """One operation on all columns of a run, if that is what these are."""
    cdef Instr q
    cdef Py_ssize_t k
    cdef int run = keys[0].a_where if keys[0].a_where >= 0 else keys[0].b_where, o = low.op[keys[0].node]
    cdef int[::1] index
    cdef bint same = True, next_ = True
    cdef Ref *r
    if n != low.plan.runs[run].n or n < 2:
        return False
    for k in range(n):
        if (keys[0].a_where >= 0 and keys[k].a != k) or (keys[0].b_where >= 0 and keys[k].b != k):
            return False
    if keys[0].a_where == -1 or keys[0].b_where == -1:
        return False
    if keys[0].b_where >= 0 and low.plan.runs[keys[0].b_where].n != n:
        return False
    for k in range(1, n):
        same = same and keys[k].a == keys[0].a if keys[0].a_where == -2 else same
        same = same and keys[k].b == keys[0].b if keys[0].b_where == -2 else same
        next_ = next_ and keys[k].a == keys[k - 1].a + 1 if keys[0].a_where == -2 else next_
        next_ = next_ and keys[k].b == keys[k - 1].b + 1 if keys[0].b_where == -2 else next_
    if (keys[0].a_where == -2 or keys[0].b_where == -2) and not same and not next_:
        return False
    memset(&q, 0, sizeof(Instr))
    q.kind, q.n, q.out = I_ROWS, <int>n, 0
    q.code, q.op, q.raises = o & 0xff, <signed char>kernel_for(low, keys[0].node), raises(o)
    for k in range(n):
        q.steep = q.steep or (is_steep(q.code) and low.merged[keys[k].node])
        q.mask |= low.mask[keys[k].node]
    for k in range(2):
        r = &q.b if k else &q.a
        where = keys[0].b_where if k else keys[0].a_where
        r.port = r.run = -1
        if where == -3:
            r.kind = R_NONE
        elif where >= 0:
            r.kind, r.run, r.mask = R_ROWS, where, low.plan.runs[<int>where].mask
        else:
            r.kind = R_UNIFORM
            index = np.empty(n, np.int32)
            for j in range(n):
                index[j] = keys[j].b if k else keys[j].a
                r.mask |= low.mask[low.b[keys[j].node] if k else low.a[keys[j].node]]
            keep_index(low, r, index, n)
            if r.mask:
                add_ports(low, 0, <int>n, r, index)
    q.run = low.plan.add_run(<int>n, q.mask, low.plan.runs[run].ld != low.plan.runs[run].n)
    for k in range(n):
        low.where[keys[k].node], low.at[keys[k].node], low.run[keys[k].node] = ROWS, <int>k, q.run
    low.plan.add_instr(&q, True)
    low.counts.append((NAMES[q.code], n))
    return True


cdef inline int emit_level(Lowering low, int[::1] units, bint per_row) except -1:
    cdef Py_ssize_t k, n = 0, first
    cdef int i
    cdef ProductGroup group
    cdef dict sums = {}                      # by their shape
    cdef Key *keys = <Key *>allocate(max(1, units.shape[0]) * sizeof(Key))
    if keys == NULL:
        out_of_memory("a program", units.shape[0])
    try:
        if per_row:
            unpack_for_sums(low, units)
        for k in range(units.shape[0]):
            i = units[k]
            if i < 0:
                group = low.groups[-1 - i]
                emit_product(low, group.x, group.matrix, group.bias_matrix, group.outputs, False)
            elif low.sum_of[i] >= 0 and per_row:
                sums.setdefault(shape_of_sum(low, i), []).append(i)
            elif low.sum_of[i] >= 0:
                emit_sums(low, [i], False)
            elif low.op[i] == G_ITEM:
                emit_item(low, i)
            else:
                keys[n].node = i
                keys[n].code = low.op[i] | (<int>low.stopped[i] << 12) | (<int>low.exact[i] << 13)
                locate(low, &keys[n], i, False)
                locate(low, &keys[n], i, True)
                n += 1
        for some in sums.values():
            emit_sums(low, some, True)
        if n > 1:
            qsort(keys, n, sizeof(Key), &compare_keys)
        first = 0
        for k in range(1, n + 1):
            if k == n or not alike(&keys[k], &keys[first]):
                emit_elements(low, keys + first, k - first, per_row)
                first = k
    finally:
        PyMem_RawFree(keys)
    return 0


cdef inline int emit_product(Lowering low, x, int matrix, int bias, outputs, bint layer) except -1:
    """Of inputs, as nodes, and a matrix; layer: it is an item of the graph."""
    cdef Instr q
    cdef Product p
    cdef int k, i
    cdef Matrix *m
    memset(&q, 0, sizeof(Instr))
    memset(&p, 0, sizeof(Product))
    p.x = run_of(low, x, &p.first)
    p.matrix, p.bias, p.skips, p.exact = matrix, bias, layer, layer and any_exact(low, outputs)
    m = &low.plan.matrices[p.matrix]
    if p.exact:
        m.only = False                       # its weights are to be as they are
    p.whole_input = -1
    for k in range(len(low.input_kinds)):
        if low.plan.input_run[k] == p.x and p.first == 0 and m.rows == low.plan.runs[p.x].n:
            p.whole_input = k
    q.kind, q.n = I_PRODUCT, m.cols
    q.a.mask = low.plan.runs[p.x].mask
    q.mask = m.mask | q.a.mask | (low.plan.matrices[p.bias].mask if p.bias >= 0 else 0)
    if low.stopped[<int>outputs[0]]:
        q.mask = 0
    q.run = low.plan.add_run(m.cols, q.mask, m.cols > 1)
    q.extra = <int>low.plan.add_product(&p)
    for k, i in enumerate(outputs):
        low.where[i], low.at[i], low.run[i] = ROWS, k, q.run
        low.mask[i] = q.mask
    low.plan.add_instr(&q, True)
    low.counts.append(("dot", m.rows) if m.cols == 1 else ("matrix product", (m.rows, m.cols)))
    return 0


cdef inline bint any_exact(Lowering low, nodes) except -1:
    cdef int i
    for i in nodes:
        if low.exact[i]:
            return True
    return False


cdef inline int want_column(Lowering low, dict wanted, int i) except -1:
    if i >= 0 and low.depends[i] == C_PER_ROW and low.where[i] == ROWS and low.copy[i] < 0:
        wanted.setdefault(low.run[i], set()).add((low.at[i], i))
    return 0


cdef inline int unpack_for_sums(Lowering low, int[::1] units) except -1:
    """Columns of runs that the sums of a level read, all of a run together: one by one each would be an instruction."""
    cdef Py_ssize_t k, t
    cdef int i, s, g
    cdef dict wanted = {}
    for k in range(units.shape[0]):
        i = units[k]
        s = low.sum_of[i] if i >= 0 else -1
        if s < 0:
            continue
        g = low.group.at[s]
        if g >= 0:
            want_column(low, wanted, low.direct.at[s])
        for t in range(low.first.at[s], low.first.at[s + 1]):
            if g < 0 or not is_weighted(low, t):
                want_column(low, wanted, low.p.at[t])
                want_column(low, wanted, low.q.at[t])
    for some in wanted.values():
        side_by_side = []
        for at, i in sorted(some):
            if side_by_side and at != low.at[side_by_side[len(side_by_side) - 1]] + 1:
                unpack(low, side_by_side)
                side_by_side = []
            side_by_side.append(i)
        unpack(low, side_by_side)
    return 0


cdef inline bytes shape_of_sum(Lowering low, int i):
    """What sums have in common that are one instruction: the kinds of their terms, one after the other."""
    cdef int s = low.sum_of[i], g = low.group.at[s], p, q
    cdef Py_ssize_t t
    shape = bytearray((low.mask[i], i in low.raising, low.zeros.at[s], g >= 0))
    for t in range(low.first.at[s], low.first.at[s + 1]):
        if g < 0 or not is_weighted(low, t):
            p, q = low.p.at[t], low.q.at[t]
            shape.append((low.sign.at[t] > 0) | low.depends[p] << 1 | (0 if q < 0 else low.depends[q]) << 3 | (
                p == q) << 5)
    return bytes(shape)


cdef inline int emit_sums(Lowering low, list nodes, bint per_row) except -1:
    """Sums of one shape, none of which reads another one."""
    cdef Instr q
    cdef Sum s
    cdef Term term
    cdef Py_ssize_t t
    cdef int i, k, g, count
    memset(&q, 0, sizeof(Instr))
    q.kind, q.n, q.run, q.extra = I_SUM, <int>len(nodes), -1, <int>low.plan.n_sums
    for i in nodes:
        k, count = low.sum_of[i], 0
        g = low.group.at[k]
        s.first = <int>low.plan.n_terms
        if not per_row:
            add_segments(low, k)
            count = low.first.at[k + 1] - low.first.at[k]
        else:
            if g >= 0:
                fill_term(low, &term, 1, low.direct.at[k], -1)
                low.plan.add_term(&term)
            for t in range(low.first.at[k], low.first.at[k + 1]):
                if g < 0 or not is_weighted(low, t):
                    fill_term(low, &term, low.sign.at[t], low.p.at[t], low.q.at[t])
                    low.plan.add_term(&term)
                    count += 1
        s.stop = <int>low.plan.n_terms
        s.zero = low.zeros.at[k]
        low.plan.add_sum(&s)
        q.mask |= low.mask[i]
        q.raises = q.raises or i in low.raising
        if count:                            # else an element of a product, and nothing to add
            low.counts.append(("dot" if only_products(low, k) else "sum", count))
    q.out = low.next_slot if per_row else low.next_address
    for k in range(q.n):
        i = nodes[k]
        low.where[i], low.at[i] = SLOT if per_row else UNIFORM, q.out + k
    if per_row:
        low.next_slot += q.n
    else:
        low.next_address += q.n
    low.plan.add_instr(&q, per_row)
    return 0


cdef inline bint only_products(Lowering low, int s):
    cdef Py_ssize_t t
    for t in range(low.first.at[s], low.first.at[s + 1]):
        if low.q.at[t] < 0:
            return False
    return True


cdef inline int fill_term(Lowering low, Term *term, int sign, int p, int q) except -1:
    memset(term, 0, sizeof(Term))
    term.sign, term.count, term.p_port, term.q_port = <signed char>sign, 1, -1, -1
    fill_factor(low, p, &term.p_kind, &term.p_mask, &term.p, &term.p_port)
    if q < 0:
        term.q_kind = R_NONE
    else:
        fill_factor(low, q, &term.q_kind, &term.q_mask, &term.q, &term.q_port)
    return 0


cdef inline int fill_factor(Lowering low, int i, unsigned char *kind, unsigned char *mask, int *at,
                            int *port) except -1:
    mask[0] = low.mask[i]
    if low.depends[i] == C_PER_ROW:
        kind[0], at[0] = R_SLOTS, slot_of(low, i)
    else:
        kind[0], at[0] = R_UNIFORM, address_of(low, i)
        if mask[0]:
            port[0] = <int>len(low.plan.port_address)
            low.plan.port_address.append(at[0])
    return 0


cdef inline int add_segments(Lowering low, int s) except -1:
    """The terms of a uniform sum, those side by side in memory together."""
    cdef Term term
    cdef Py_ssize_t k, count = low.first.at[s + 1] - low.first.at[s], first = low.first.at[s], t, gap
    cdef int p, q
    cdef long long[:, ::1] rows = np.empty((count, 5), np.int64)
    cdef long long[:, ::1] sorted_rows
    for k in range(count):
        t = first + k
        p, q = low.p.at[t], low.q.at[t]
        rows[k, 0] = low.sign.at[t]
        rows[k, 1] = address_of(low, p)
        rows[k, 2] = -1 if q < 0 else rows[k, 1] if p == q else address_of(low, q)
        rows[k, 3] = low.mask[p]
        rows[k, 4] = 0 if q < 0 else low.mask[q]
    array = rows.base
    plain = array[:, 2] < 0
    array = array[np.lexsort((array[:, 2], array[:, 1], plain, array[:, 0]))]
    sorted_rows = array
    memset(&term, 0, sizeof(Term))
    term.p_port = term.q_port = -1               # of sums of each row alone
    for k in range(count):
        if k and sorted_rows[k, 0] == term.sign and (
                sorted_rows[k, 3] == term.p_mask and sorted_rows[k, 4] == term.q_mask):
            gap = sorted_rows[k, 1] - term.p - term.count
            if gap == 0 and (
                    sorted_rows[k, 2] == term.q + term.count if term.q_kind != R_NONE else sorted_rows[k, 2] < 0):
                term.count += 1
                continue
            if 0 < gap < PAD and term.q_kind != R_NONE and sorted_rows[k, 2] == term.q + term.count + gap and (
                    is_padding(low, term.p + term.count, gap) and is_padding(low, term.q + term.count, gap)):
                term.count += <int>gap + 1   # padding is zero, and so is what is added to its gradient
                continue
        if k:
            low.plan.add_term(&term)
        term.sign, term.count = <signed char>sorted_rows[k, 0], 1
        term.p_kind, term.p, term.p_mask = R_UNIFORM, <int>sorted_rows[k, 1], <unsigned char>sorted_rows[k, 3]
        term.q_kind = R_NONE if sorted_rows[k, 2] < 0 else R_UNIFORM
        term.q, term.q_mask = <int>sorted_rows[k, 2], <unsigned char>sorted_rows[k, 4]
    low.plan.add_term(&term)
    return 0


cdef inline bint is_padding(Lowering low, int address, Py_ssize_t n) except -1:
    """Whether these places fill up a row of a matrix."""
    cdef Matrix *m
    cdef Py_ssize_t k
    for k in range(low.plan.n_matrices):
        m = &low.plan.matrices[k]
        if m.base <= address < m.base + m.rows * m.ld:
            return (address - m.base) % m.ld >= m.cols and (address - m.base) % m.ld + n <= m.ld
    return False


cdef inline int emit_item(Lowering low, int i) except -1:
    cdef LoweredItem item = item_of(low, i)
    cdef Instr q
    cdef Item p
    cdef int k, first, outputs = item.outputs, first_output = item.first
    cdef str kind = item.kind
    if kind == "affine":
        nodes = range(first_output, first_output + outputs)
        return emit_product(low, item.x, item.matrix, item.bias_matrix, nodes, True)
    memset(&q, 0, sizeof(Instr))
    memset(&p, 0, sizeof(Item))
    q.n, q.run, q.mask = outputs, -1, low.mask[i]
    q.a.port = q.b.port = p.c.port = p.d.port = -1
    p.saved = p.address = p.argument = -1
    p.exact = any_exact(low, range(first_output, first_output + outputs))
    if item.place is not None:               # before the instructions that it waits for
        p.label, p.saved = slot_of(low, item.place[0]), low.plan.add_run(1, 0, False)
    if item.geometry is not None:
        return emit_image(low, item, p.exact)
    if kind in BEST:
        refer_to_best(low, &q, &p, item.x)
        q.kind, q.code, q.n = I_BEST, BEST[kind], 1
        p.saved = low.next_slot
        low.next_slot += 1
    elif kind == "where":
        refer_to_one(low, &q.a, item.x[0])
        refer_to_one(low, &q.b, item.x[1])
        refer_to_one(low, &p.c, item.x[2])
        refer_to_one(low, &p.d, item.x[3])
        q.kind, p.count = I_WHERE, item.comparison
    elif kind == "gather" and item.matrix >= 0:
        q.kind, p.address, p.count, p.argument = I_GATHER, item.matrix, outputs, item.argument
        q.mask = 0 if low.stopped[i] else low.plan.matrices[p.address].mask
        p.x = -1
    else:
        p.x = run_of(low, item.x, &first)
        q.a.kind, q.a.run, q.a.start, q.a.mask = R_ROWS, p.x, first, low.plan.runs[p.x].mask
        q.b.start = <int>len(item.x)        # how many columns
        if kind == "gather":
            q.kind, p.count, p.argument = I_GATHER, outputs, item.argument
        elif kind == "call":
            q.kind, p.label = I_CALL, <int>len(low.plan.callees)
            low.plan.callees.append(item.callee)
        elif kind == "softmax":
            q.kind = I_SOFTMAX
        else:
            q.kind = I_LOGSUMEXP if kind == "logsumexp" else I_CROSS_ENTROPY
            p.saved = low.plan.add_run(<int>len(item.x), 0, False)
            if kind == "cross_entropy":
                p.argument, p.label = item.argument, item.label
    q.extra = <int>low.plan.add_item(&p)
    if q.kind == I_GATHER or q.kind == I_SOFTMAX or q.kind == I_CALL:
        q.run = low.plan.add_run(outputs, q.mask, False)
        for k in range(outputs):
            low.where[first_output + k], low.at[first_output + k] = ROWS, k
            low.run[first_output + k] = q.run
            low.mask[first_output + k] = q.mask
    else:
        q.out = low.next_slot
        low.where[i], low.at[i] = SLOT, q.out
        low.next_slot += 1
    low.plan.add_instr(&q, True)
    if kind == "call":
        kind = getattr(item.callee, "said", kind)
    low.counts.append((kind, 1 if kind == "where" or q.kind == I_CALL else outputs if q.run >= 0 else len(item.x)))
    return 0


cdef inline int emit_image(Lowering low, LoweredItem item, bint exact) except -1:
    """A convolution or a pool."""
    cdef Instr q
    cdef Image p
    cdef int k, first_output = item.first
    memset(&q, 0, sizeof(Instr))
    memset(&p, 0, sizeof(Image))
    p.height, p.width, p.channels, p.kernel_h, p.kernel_w, p.stride, p.padding, p.out_h, p.out_w = item.geometry
    p.x = run_of(low, item.x, &p.first)
    p.matrix, p.bias, p.saved, p.exact = item.matrix, item.bias_matrix, -1, exact
    q.kind, q.n = I_POOL if item.kind == "max_pool2d" else I_CONV, item.outputs
    q.a.port = q.b.port = -1
    q.a.kind, q.a.run, q.a.mask = R_ROWS, p.x, low.plan.runs[p.x].mask
    q.mask = q.a.mask
    if q.kind == I_CONV:
        q.mask |= low.plan.matrices[p.matrix].mask | (low.plan.matrices[p.bias].mask if p.bias >= 0 else 0)
    else:
        p.saved = low.plan.add_run(item.outputs, 0, False)
    if low.stopped[first_output]:
        q.mask = 0
    q.run = low.plan.add_run(item.outputs, q.mask, False)
    q.extra = <int>low.plan.add_image(&p)
    for k in range(item.outputs):
        low.where[first_output + k], low.at[first_output + k] = ROWS, k
        low.run[first_output + k], low.mask[first_output + k] = q.run, q.mask
    low.plan.add_instr(&q, True)
    low.counts.append(("convolution" if q.kind == I_CONV else "max pool", item.outputs))
    return 0


cdef inline int emit_inputs(Lowering low) except -1:
    cdef Instr q
    cdef Py_ssize_t i
    cdef int k
    low.plan.input_run = [-1] * len(low.input_kinds)
    low.plan.input_address = [-1] * len(low.input_kinds)
    for i in range(low.n):
        if low.op[i] != G_INPUT or not low.live[i]:
            continue
        k = low.a[i]
        if low.depends[i] == C_UNIFORM:
            low.plan.input_address[k] = low.at[i]
        elif low.input_kinds[k] == "array":
            if low.plan.input_run[k] < 0:
                low.plan.input_run[k] = low.plan.add_run(low.input_sizes[k], ARGUMENTS, False)
            low.where[i], low.at[i], low.run[i] = ROWS, low.b[i], low.plan.input_run[k]
        else:
            memset(&q, 0, sizeof(Instr))
            q.kind, q.n, q.run, q.out, q.extra = I_NUMBER, 1, -1, low.next_slot, k
            q.mask = low.mask[i]
            low.where[i], low.at[i] = SLOT, low.next_slot
            low.next_slot += 1
            low.plan.add_instr(&q, True)
    return 0


cdef inline int emit_draws(Lowering low, list draws) except -1:
    """What is drawn: an array of which all is read into a run, else those numbers side by side that are."""
    cdef Py_ssize_t i = 0, first
    cdef Instr q
    cdef Draw draw
    cdef int k
    for some in draws:
        draw.kind, draw.count, draw.p, draw.site, draw.scope, draw.occurrence = some
        low.plan.add_draw(&draw)
    while i < low.n:
        first = i
        i += 1
        if low.op[first] != G_RANDOM or not low.live[first]:
            continue
        while i < low.n and low.op[i] == G_RANDOM and low.live[i] and low.a[i] == low.a[first] and (
                low.b[i] == low.b[i - 1] + 1):
            i += 1
        memset(&q, 0, sizeof(Instr))
        q.kind, q.n, q.run, q.extra, q.code = I_RANDOM, <int>(i - first), -1, low.a[first], low.b[first]
        if 1 < q.n == low.plan.draws[q.extra].count:
            q.run = low.plan.add_run(q.n, 0, True)
        else:
            q.out = low.next_slot
            low.next_slot += q.n
        for k in range(q.n):
            low.where[first + k], low.run[first + k] = SLOT if q.run < 0 else ROWS, q.run
            low.at[first + k] = k if q.run >= 0 else q.out + k
        low.plan.add_instr(&q, True)
        low.counts.append(("random number", q.n))
    return 0


cdef inline int copy_leaves(Lowering low) except -1:
    """A plain plan: what is the same number for all rows gets a slot too, where each row has a gradient of its own,
    which is complete before the rows' are added up."""
    cdef Instr q
    cdef Py_ssize_t i, k
    cdef int[::1] index
    cdef int j
    cdef unsigned char[::1] read = np.zeros(low.n, np.uint8)
    for i in range(low.n):
        if not low.live[i] or low.depends[i] != C_PER_ROW:
            continue
        if low.op[i] == G_ITEM and item_of(low, <int>i).kind == "where":
            for j in item_of(low, <int>i).x:
                read[j] = True
        elif low.op[i] > G_CONSTANT:
            read[low.a[i]] = True
            if low.b[i] >= 0:
                read[low.b[i]] = True
    for i in range(low.n):
        read[i] = read[i] and low.depends[i] == C_UNIFORM
    nodes = np.flatnonzero(read)
    if not len(nodes):
        return 0
    memset(&q, 0, sizeof(Instr))
    q.kind, q.n = I_PACK, <int>len(nodes)
    index = np.empty(q.n, np.int32)
    q.a.port = <int>len(low.plan.port_address)
    for k, j in enumerate(nodes):
        q.mask |= low.mask[j]
        index[k] = -1 - address_of(low, j)
        low.plan.port_address.append(address_of(low, j))
    low.plan.keep.append(index.base)
    q.a.kind, q.a.mask, q.a.index = R_SLOTS, q.mask, &index[0]
    q.run = low.plan.add_run(q.n, q.mask, False)
    low.plan.add_instr(&q, True)
    for k in range(q.n):
        low.copy[nodes[k]] = low.next_slot + <int>k
    k, j = q.run, q.n
    mask = q.mask
    memset(&q, 0, sizeof(Instr))
    q.kind, q.n, q.out, q.run, q.mask = I_UNPACK, j, low.next_slot, -1, mask
    q.a.kind, q.a.run, q.a.mask, q.a.step = R_ROWS, <int>k, mask, 1
    low.next_slot += q.n
    low.plan.add_instr(&q, True)
    return 0


cdef inline int emit_section(Lowering low, units, levels, bint per_row) except -1:
    cdef Py_ssize_t k, first = 0
    cdef int[::1] unit, level
    order = np.argsort(levels, kind="stable")
    unit, level = units[order], levels[order]
    for k in range(1, unit.shape[0] + 1):
        if k == unit.shape[0] or level[k] != level[first]:
            emit_level(low, unit[first:k], per_row)
            first = k
    return 0
