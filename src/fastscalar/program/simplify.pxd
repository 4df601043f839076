# cython: language_level=3, wraparound=False, cdivision=True
# Passes 1 and 2: constants, common subexpressions, what depends on what, what is needed.  Inline parts of `_lower`.

from libc.math cimport signbit
from libc.string cimport memcmp, memcpy

from fastscalar._core cimport *
from fastscalar.program._graph cimport *
from fastscalar.program._lower cimport *
from fastscalar.program._plan cimport Plan
from fastscalar.program.plan cimport *


cdef extern from *:
    """
    #if defined(__GNUC__)
    #define FS_PREFETCH(p) __builtin_prefetch(p)
    #else
    #define FS_PREFETCH(p) ((void)(p))
    #endif
    """
    void prefetch "FS_PREFETCH"(const void *p) noexcept nogil

cdef enum:
    AHEAD = 16          # operations


cdef inline bint raises(int o) noexcept nogil:
    """Whether an operation of a graph may raise."""
    return o > G_CONSTANT and not o & IEEE and o != COPY and not never_raises(o)


cdef inline size_t scatter(size_t x) noexcept nogil:
    x = (x ^ (x >> 31)) * <size_t>0x9E3779B97F4A7C15
    return x ^ (x >> 29)


cdef inline int find_exact(Lowering low, graph) except -1:
    """What decisions are computed from.  The bits of everything else may be others than the engine's."""
    cdef Py_ssize_t i, k
    cdef const RecordedGuard[::1] guards = graph.guards
    cdef const int[::1] operands
    cdef set done = set()
    cdef LoweredItem item
    for k in range(guards.shape[0]):
        low.exact[guards[k].left] = 1
        if guards[k].right >= 0:
            low.exact[guards[k].right] = 1
    for i in graph.results if graph.exact else ():
        low.exact[i] = 1
    for item in low.items:
        if item.kind == "call" and getattr(item.callee, "decides", False):
            low.exact[item.first] = 1
    for i in range(low.n - 1, -1, -1):
        if not low.exact[i]:
            continue
        if low.op[i] == G_ITEM:
            for nodes in arrays_of(item_of(low, <int>i)):
                if id(nodes) not in done:
                    done.add(id(nodes))
                    operands = nodes.ravel()
                    for k in range(operands.shape[0]):
                        low.exact[operands[k]] = 1
        elif low.op[i] > G_CONSTANT or low.op[i] == G_COPY:
            low.exact[low.a[i]] = 1
            if low.b[i] >= 0:
                low.exact[low.b[i]] = 1
    return 0


cdef inline int take_plainly(Lowering low) except -1:
    """Everything is as the engine does it; only what weights of layers are computed of is one for all rows."""
    cdef Py_ssize_t i
    cdef LoweredItem item
    low.exact[:] = 1
    kept = np.asarray(low.kept)
    for item in low.items:
        if item.kind in ("affine", "conv2d"):
            kept[item.weights] = 1
            kept[item.bias] = 1
    for i in range(low.n - 1, -1, -1):
        if low.kept[i] and (low.op[i] > G_CONSTANT or low.op[i] == G_COPY):
            low.kept[low.a[i]] = 1
            if low.b[i] >= 0:
                low.kept[low.b[i]] = 1
    return 0


# The table of what is shared is open, and two thirds full at most.  An entry is a node, and above it the upper half of
# its hash: of others that lie in its place the columns are not looked at, which are seldom in a cache.

cdef inline long long entry_of(size_t h, int i) noexcept nogil:
    return <long long>(h >> 33 << 32) | i


cdef inline bint may_be(long long entry, size_t h) noexcept nogil:
    return entry >> 32 == <long long>(h >> 33)


cdef inline size_t hash_of(int o, int x, int y, bint stopped) noexcept nogil:
    return scatter((<size_t>o << 52) ^ (<size_t>x << 26) ^ <size_t>(y + 1) ^ (<size_t>stopped << 62))


cdef inline void fetch(Lowering low, Py_ssize_t i, const long long[::1] bucket, size_t wrap) noexcept:
    """Have the bucket of an operation near before it is its turn: which one hardly depends on those before it."""
    cdef int o, x, y
    if i < low.n and low.op[i] > G_CONSTANT:
        o, x, y = low.op[i], low.rep[low.a[i]], low.rep[low.b[i]] if low.b[i] >= 0 else -1
        if never_raises(o & 0xff):
            o &= 0xff
        if (o == ADD or o == MUL) and x > y:
            x, y = y, x
        prefetch(&bucket[hash_of(o, x, y, low.stopped[i]) & wrap])


cdef inline int simplify(Lowering low) except -1:
    cdef Py_ssize_t i, size = 64, shared = 0
    cdef int o
    for i in range(low.n):                  # leaves are not looked up
        shared += low.op[i] >= G_CONSTANT
    while 2 * size < 3 * shared:
        size *= 2
    cdef long long[::1] bucket = np.full(size, -1, np.int64)
    cdef size_t wrap = size - 1
    for i in range(low.n):
        o = low.op[i]
        fetch(low, i + AHEAD, bucket, wrap)
        if o == G_CONSTANT:
            share_constant(low, <int>i, bucket, wrap)
        elif o == G_PARAMETER:
            low.depends[i] = C_UNIFORM
            low.mask[i] = (
                PARAMETERS if low.trained is None or low.wanted[low.begin[low.a[i]] + low.b[i]] else 0)
        elif o == G_BLOCK:
            low.depends[i] = C_UNIFORM
            low.mask[i] = PARAMETERS if low.trained is None or low.trained[low.a[i]].any() else 0
        elif o == G_INPUT:
            low.depends[i] = C_UNIFORM if low.a[i] in low.shared else C_PER_ROW
            low.mask[i] = 0 if low.input_kinds[low.a[i]] == "whole" else ARGUMENTS
        elif o == G_RANDOM:
            low.depends[i] = C_PER_ROW
            low.mask[i] = 0
        elif o == G_COPY:
            low.a[i] = low.rep[low.a[i]]
            low.op[i] = COPY
            low.depends[i] = low.depends[low.a[i]]
            if low.depends[i] == C_CONSTANT:
                low.rep[i] = low.a[i]
            elif low.plain and not low.kept[i]:
                low.depends[i] = C_PER_ROW
        elif o == G_ITEM:
            if low.b[i] == 0:
                enter_item(low, low.a[i], low.stopped[i])
            if low.twin[low.a[i]] >= 0:
                low.rep[i] = low.twin[low.a[i]] + low.b[i]
                low.exact[low.rep[i]] |= low.exact[i]
            low.depends[i] = C_PER_ROW
            low.mask[i] = 0 if low.stopped[i] else item_of(low, <int>i).mask
        else:
            simplify_one(low, <int>i, bucket, wrap)
    return 0


cdef inline int enter_item(Lowering low, int k, bint stopped) except -1:
    """Its operands are those of the shared nodes, and what gradients flow through it is known."""
    cdef LoweredItem item = low.items[k]
    item.x = shared_nodes(low, item, item.x)
    item.weights = shared_nodes(low, item, item.weights)
    item.bias = shared_nodes(low, item, item.bias)
    item.place = shared_nodes(low, item, item.place)
    key = None
    if item.kind == "gather":                # once for each index
        key = id(item.x), item.outputs, item.argument, stopped, 0 if item.place is None else int(item.place[0])
    elif item.kind in BEST:
        key = item.kind, item.x.tobytes(), stopped
        if BEST[item.kind] > BEST_MIN:
            item.mask = 0
    if key is not None and not low.plain:
        twin = low.known_items.setdefault(key, item.first)
        if twin != item.first:
            low.twin[k] = twin
    return 0


cdef inline object shared_nodes(Lowering low, LoweredItem item, nodes):
    """The shared nodes of some operands of an item, whose mask takes theirs in."""
    if nodes is None:
        return None
    key = id(nodes)                          # of an array that the graph holds; gathers from one table share it
    if item.kind != "gather" or key not in low.tables:
        low.tables[key] = represented(low, nodes)
    nodes, mask = low.tables[key]
    item.mask |= <unsigned char>mask
    return nodes


cdef inline object represented(Lowering low, nodes):
    """The shared nodes of operands, and their masks together."""
    out = np.empty_like(nodes)
    cdef const int[::1] node = nodes.ravel()
    cdef int[::1] shared = out.reshape(-1)
    cdef Py_ssize_t k
    cdef unsigned char mask = 0
    for k in range(node.shape[0]):
        shared[k] = low.rep[node[k]]
        mask |= low.mask[shared[k]]
    return out, mask


cdef inline int share_constant(Lowering low, int i, long long[::1] bucket, size_t wrap) except -1:
    cdef size_t h, at
    cdef int t
    cdef unsigned long long bits
    cdef double v = low.value[i]
    memcpy(&bits, &v, sizeof(double))
    low.op[i] = G_CONSTANT
    low.depends[i] = C_CONSTANT
    low.signless[i] = v != 0.0 or not signbit(v)
    low.mask[i] = 0
    h = scatter(bits)
    at = h & wrap
    while bucket[at] >= 0:
        t = <int>bucket[at]
        if may_be(bucket[at], h) and low.op[t] == G_CONSTANT and memcmp(&low.value[t], &v, sizeof(double)) == 0:
            low.rep[i] = t
            return 0
        at = (at + 1) & wrap
    bucket[at] = entry_of(h, i)
    return 0


cdef inline bint is_number(Lowering low, int i, double v) noexcept:
    return low.op[i] == G_CONSTANT and low.value[i] == v


cdef inline int simplify_one(Lowering low, int i, long long[::1] bucket, size_t wrap) except -1:
    cdef int o = low.op[i], code = o & 0xff, x = low.rep[low.a[i]], y = -1, t
    cdef size_t h, at
    cdef double v
    if never_raises(code):
        o = code
    if code == SEND and not low.plain and not low.exact[i]:
        o = code = MUL                       # where they differ something is not finite, and a plain plan is asked
    if low.b[i] >= 0:
        y = low.rep[low.b[i]]
    if low.depends[x] == C_CONSTANT and (y < 0 or low.depends[y] == C_CONSTANT):
        share_constant(low, i, bucket, wrap)
        return 0
    if low.plain:
        low.op[i], low.a[i], low.b[i] = o, x, y
        low.depends[i] = max(low.depends[x], low.depends[y] if y >= 0 else <unsigned char>0) if (
            low.kept[i]) else <unsigned char>C_PER_ROW
        low.mask[i] = 0 if low.stopped[i] else low.mask[x] | (low.mask[y] if y >= 0 else 0)
        return 0
    t = -1                                   # what it is the same as
    if code == ADD:                          # 0.0 + -0.0 is 0.0
        if is_number(low, x, 0.0) and (signbit(low.value[x]) or low.signless[y]):
            t = y
        elif is_number(low, y, 0.0) and (signbit(low.value[y]) or low.signless[x]):
            t = x
    elif code == SUB and not (y >= 0 and low.op[y] == G_CONSTANT and signbit(low.value[y])):
        t = x if is_number(low, y, 0.0) else -1
    elif code == MUL:
        t = y if is_number(low, x, 1.0) else x if is_number(low, y, 1.0) else -1
        if t < 0 and x == y:
            o, y = SQUARE | IEEE, -1         # infinite where x ** 2 raises
    elif code == DIV and low.op[y] == G_CONSTANT:
        v = low.value[y]
        if v == 1.0:
            t = x
        elif low.exact[i]:
            if v != 0.0:
                o |= IEEE
        elif 1e-300 < v < 1e300 or -1e300 < v < -1e-300:
            o, y = MUL, new_constant(low, 1.0 / v)
    elif code == POW and low.op[y] == G_CONSTANT:
        if low.value[y] == 1.0:
            t = x
        elif low.value[y] == 2.0 and not low.exact[i]:
            o, y = SQUARE | (o & IEEE), -1
    if t >= 0 and not low.stopped[i]:
        low.rep[i] = t
        low.exact[t] |= low.exact[i]
        return 0
    if (o == ADD or o == MUL) and x > y:
        x, y = y, x
    low.op[i], low.a[i], low.b[i] = o, x, y
    low.depends[i] = max(low.depends[x], low.depends[y] if y >= 0 else <unsigned char>0)
    low.signless[i] = (low.signless[x] or low.signless[y]) if o == ADD else low.signless[x] if o == SUB else (
        o & 0xff in (SQUARE, EXP, ABS, SIGMOID, SOFTPLUS, COSH, HYPOT))
    low.mask[i] = 0 if low.stopped[i] else low.mask[x] | (low.mask[y] if y >= 0 else 0)
    h = hash_of(o, x, y, low.stopped[i])
    at = h & wrap
    while bucket[at] >= 0:
        t = <int>bucket[at]
        if may_be(bucket[at], h) and (
                low.op[t] == o and low.a[t] == x and low.b[t] == y and low.stopped[t] == low.stopped[i]):
            low.rep[i] = t
            low.exact[t] |= low.exact[i]
            low.merged[t] = 1
            return 0
        at = (at + 1) & wrap
    bucket[at] = entry_of(h, i)
    return 0


cdef inline int new_constant(Lowering low, double v) except -1:
    """A constant that the program did not write."""
    cdef int i = low.new_node(G_CONSTANT)
    low.value[i] = v
    low.depends[i] = C_CONSTANT
    low.mask[i] = 0
    return i


cdef inline void mark_needed(Lowering low, int i, bint keep) noexcept:
    low.live[i] = 1
    low.uses[i] += 1
    if keep:
        low.pinned[i] = 1


cdef inline int reach(Lowering low, const int[::1] results, const RecordedGuard[::1] guards) except -1:
    cdef Py_ssize_t i
    cdef int k, o
    cdef set done = set(), tables = set()
    cdef LoweredItem item
    for i in range(results.shape[0]):
        mark_needed(low, low.rep[results[i]], True)
    for i in range(guards.shape[0]):
        mark_needed(low, low.rep[guards[i].left], True)
        if guards[i].right >= 0:
            mark_needed(low, low.rep[guards[i].right], True)
    for i in range(low.n - 1, -1, -1):
        if not low.live[i] and low.rep[i] == i and low.depends[i] != C_CONSTANT and raises(low.op[i]):
            low.live[i] = low.pinned[i] = 1            # only for the error that it may be
        if low.op[i] == G_ITEM and low.b[i] == 0 and low.rep[i] == i and may_be_out_of_range(item_of(low, <int>i)):
            low.live[i] = 1
        if not low.live[i]:
            continue
        o = low.op[i]
        if o == G_ITEM:
            if low.a[i] not in done:
                done.add(low.a[i])
                item = item_of(low, <int>i)
                for nodes in arrays_of(item):
                    if item.kind != "gather" or id(nodes) not in tables:
                        tables.add(id(nodes))
                        mark_all_needed(low, nodes.ravel())
                for k in range(item.outputs):
                    low.live[item.first + k] = 1
        elif o > G_CONSTANT:
            mark_needed(low, low.a[i], False)
            if low.b[i] >= 0:
                mark_needed(low, low.b[i], False)
    return 0


cdef inline bint may_be_out_of_range(LoweredItem item) except -1:
    """Whether a whole number of the row, or a computed one, chooses; or what the user wrote may raise."""
    return item.kind == "gather" or item.kind == "call" or (item.kind == "cross_entropy" and item.argument >= 0)


cdef inline int mark_all_needed(Lowering low, nodes) except -1:
    cdef const int[::1] view = nodes
    cdef Py_ssize_t k
    for k in range(view.shape[0]):
        mark_needed(low, view[k], True)
    return 0
