# cython: language_level=3, wraparound=False, cdivision=True
# Passes 3 and 4: trees of + and - become sums, sums that share their operands become products of matrices.
# Inline parts of `_lower`.

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawFree
from libc.math cimport signbit
from libc.string cimport memset

from fastscalar._core cimport *
from fastscalar.program._graph cimport *
from fastscalar.program._lower cimport *
from fastscalar.program._plan cimport Plan
from fastscalar.program.ints cimport *
from fastscalar.program.plan cimport *
from fastscalar.program.simplify cimport *


cdef inline bint is_sum(Lowering low, int i) noexcept:
    return (low.op[i] == ADD or low.op[i] == SUB) and not low.stopped[i] and not low.exact[i]


cdef inline bint is_inner(Lowering low, int t, int depends) noexcept:
    """Whether a + or - is a part of the one sum that reads it."""
    return is_sum(low, t) and low.uses[t] == 1 and not low.pinned[t] and low.depends[t] == depends


cdef inline bint is_right_inner(Lowering low, int t, int depends) noexcept:
    """Whether what t adds or takes away is such a part: -0.0 - (a - a) is -0.0, which -0.0 - a + a is not."""
    return is_inner(low, low.b[t], depends) and (low.op[t] == ADD or low.signless[low.a[t]])


cdef inline int push3(Ints *todo, int i, int sign, bint part) except -1:
    push(todo, i)
    push(todo, sign)
    return push(todo, part)


cdef inline int collect_sums(Lowering low) except -1:
    """From young to old: each + or - that no sum has swallowed is tried as the root of one."""
    cdef Py_ssize_t i
    cdef Ints todo, inner
    memset(&todo, 0, sizeof(Ints))
    memset(&inner, 0, sizeof(Ints))
    try:
        for i in range(low.n - 1, -1, -1):
            if low.live[i] and not low.gone[i] and low.rep[i] == i and is_sum(low, <int>i):
                try_sum(low, <int>i, &todo, &inner)
        push(&low.first, <int>low.p.n)
    finally:
        PyMem_RawFree(todo.at)
        PyMem_RawFree(inner.at)
    return 0


cdef inline int try_sum(Lowering low, int root, Ints *todo, Ints *inner) except -1:
    cdef Py_ssize_t before = low.p.n, k
    cdef int t, a, b, sign, other, depends = low.depends[root], products = 0
    cdef bint zero = False, part, left, right
    todo.n = inner.n = 0
    push3(todo, root, 1, True)
    while todo.n:
        todo.n -= 3
        t, sign, part = todo.at[todo.n], todo.at[todo.n + 1], todo.at[todo.n + 2]
        if part:
            if t != root:
                push(inner, t)
            a, b, other = low.a[t], low.b[t], sign if low.op[t] == ADD else -sign
            left, right = is_inner(low, a, depends), is_right_inner(low, t, depends)
            if right and not left:               # what was added up before comes first, whichever side it is on
                push3(todo, a, sign, left)
                push3(todo, b, other, right)
            else:
                push3(todo, b, other, right)
                push3(todo, a, sign, left)
        elif ((low.op[t] == MUL or low.op[t] & 0xff == SQUARE) and low.uses[t] == 1 and not low.pinned[t]
                and low.depends[t] == depends and not low.stopped[t] and not low.exact[t]):
            if low.op[t] == SQUARE:
                low.raising.add(root)
            products += 1
            push(inner, t)
            push(&low.p, low.a[t])
            push(&low.q, low.b[t] if low.op[t] == MUL else low.a[t])
            push(&low.sign, sign)
        elif is_number(low, t, 0.0) and signbit(low.value[t]) == (sign < 0):
            zero = True
        else:
            push(&low.p, t)
            push(&low.q, -1)
            push(&low.sign, sign)
    if low.p.n - before < SHORT_SUM and not (products and depends == C_PER_ROW and low.p.n - before > 1):
        low.p.n = low.q.n = low.sign.n = before
        return 0
    for k in range(inner.n):
        low.gone[inner.at[k]] = 1
    low.sum_of[root] = <int>low.root.n
    push(&low.first, <int>before)
    push(&low.root, root)
    push(&low.zeros, zero)
    return 0


cdef inline bint is_weighted(Lowering low, Py_ssize_t t) noexcept:
    """Whether a term is a number of the row times a uniform one."""
    return (low.q.at[t] >= 0 and low.sign.at[t] > 0
            and (low.depends[low.p.at[t]] == C_PER_ROW) != (low.depends[low.q.at[t]] == C_PER_ROW))


cdef inline int collect_products(Lowering low) except -1:
    """Put the sums together whose weighted terms have the same per-row operands."""
    cdef Py_ssize_t s, t, k, count
    cdef int p, q, g
    cdef dict known = {}
    cdef long long[::1] pairs
    cdef int[::1] column
    cdef ProductGroup group
    room = 0
    for s in range(low.root.n):
        room = max(room, low.first.at[s + 1] - low.first.at[s])
    pairs = np.empty(room + 1, np.int64)
    column = np.empty(room + 1, np.int32)
    for s in range(low.root.n):                         # no-cython-lint
        push(&low.group, -1)
        push(&low.direct, -1)
    for s in range(low.root.n - 1, -1, -1):             # in the order of the program
        count = 0
        if low.depends[low.root.at[s]] == C_PER_ROW:
            for t in range(low.first.at[s], low.first.at[s + 1]):
                if is_weighted(low, t):
                    p, q = low.p.at[t], low.q.at[t]
                    if low.depends[p] != C_PER_ROW:
                        p, q = q, p
                    pairs[count] = (<long long>p << 32) | q
                    count += 1
        if count < 2:
            continue
        for k in range(1, count):
            if pairs[k] < pairs[k - 1]:
                np.asarray(pairs[:count]).sort()
                break
        for k in range(count):
            column[k] = <int>(pairs[k] >> 32)
        key = PyBytes_FromStringAndSize(<char *>&column[0], count * sizeof(int))
        for k in range(count):
            column[k] = <int>(pairs[k] & 0x7fffffff)
        weights = PyBytes_FromStringAndSize(<char *>&column[0], count * sizeof(int))
        g = known.setdefault(key, len(low.groups))
        if g == len(low.groups):
            group = ProductGroup.__new__(ProductGroup)
            group.key, group.sums, group.rows, group.level = key, [], [], -1
            low.groups.append(group)
        group = low.groups[g]
        group.sums.append(s)
        group.rows.append(weights)
        low.group.at[s] = g
    for g in range(len(low.groups)):
        group = low.groups[g]
        if len(group.sums) * len(group.key) // sizeof(int) < SMALL_PRODUCT:
            for s in group.sums:
                low.group.at[s] = -1
            low.groups[g] = None
        else:
            close_group(low, group)
    return 0


cdef inline int close_group(Lowering low, ProductGroup group) except -1:
    """The nodes of the product."""
    cdef Py_ssize_t s, t, rest
    cdef int bias, root, out
    cdef bint simple
    outputs, biases = [], []
    for s in group.sums:
        root = low.root.at[s]
        bias = -1
        rest = 0
        simple = True
        for t in range(low.first.at[s], low.first.at[s + 1]):
            if not is_weighted(low, t):
                rest += 1
                if low.q.at[t] < 0 and low.sign.at[t] > 0 and low.depends[low.p.at[t]] != C_PER_ROW and bias < 0:
                    bias = low.p.at[t]
                else:
                    simple = False
        if simple:
            low.direct.at[s] = root
            out = root
        else:
            bias = -1
            out = low.new_node(G_ITEM)
            low.depends[out] = C_PER_ROW
            low.mask[out] = low.mask[root]
            low.direct.at[s] = out
        if bias < 0:
            if low.zero < 0:
                low.zero = new_constant(low, 0.0)
            bias = low.zero
        biases.append(bias)
        outputs.append(out)
    group.x = np.frombuffer(group.key, np.int32)
    rows = np.frombuffer(b"".join(group.rows), np.int32).reshape(len(outputs), len(group.x))
    group.weights, group.bias, group.outputs = np.ascontiguousarray(rows.T), np.array(biases, np.int32), outputs
    return 0
