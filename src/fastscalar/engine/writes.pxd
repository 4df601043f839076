# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: nonecheck=False
# A value changed in between.
#
# `.data` may be written at any time; a derivative that would read a value which was written after the operation is the
# derivative at no point, and a RuntimeError.  A write leaves the moment in the leaf's record, in the array, or, of a
# computed number, in its pin.  A moment is a number and not an index, so that a collection rewrites only the table of
# moments: `writes` says for each how long the tape was, and those between which nothing lives any more are one entry.
#
#     ... op1 ... op2 ... | op3 ... [n]       w.data = ... at |, T.written: op1 and op2 are older and must not read w
#
# A training step writes when the step before has been swept: its sweep meets nothing older than T.written, and that is
# all it looks at.  A sweep that does looks at each operation from there on.


from fastscalar._core cimport T, Tensor, attributes_of, handle_of, name_of, row
from fastscalar.engine.memory cimport out_of_memory, reallocate
from fastscalar.engine.tape cimport (CONST, INDEX, READS_A, READS_B, READS_V, RUN, W_AFFINE, W_DOT, W_MAP1,
                                     W_MAP2, WIDE, Operand, Record, Wide, Write)


cdef inline int place_of_write(int number) noexcept nogil:
    """The index in `writes` of the last entry that is not after this number; -1: there is none."""
    cdef int low = 0, high = T.n_writes, middle
    while low < high:
        middle = (low + high) // 2
        if T.writes[middle].number <= number:
            low = middle + 1
        else:
            high = middle
    return low - 1


cdef inline void renumber_writes() noexcept nogil:
    """After two thousand million of them: the numbers from 1."""
    cdef Py_ssize_t k
    for k in range(T.n):
        if T.record[k].op <= CONST:
            T.record[k].a = place_of_write(T.record[k].a) + 1
    for k in range(T.n_wide):
        T.wide[k].written = place_of_write(T.wide[k].written) + 1
    for k in range(T.n_pins):
        T.pins[k].written = place_of_write(T.pins[k].written) + 1
    for k in range(T.n_writes):
        T.writes[k].number = <int>k + 1
    T.moment = T.n_writes


cdef inline void merge_writes(int first) noexcept nogil:
    """Of writes from `first` on between which nothing lives any more the oldest stands for all."""
    cdef int k, kept = first
    for k in range(first, T.n_writes):
        if kept == 0 or T.writes[k].at != T.writes[kept - 1].at:
            T.writes[kept] = T.writes[k]
            kept += 1
    T.n_writes = kept
    T.written = T.writes[kept - 1].at if kept else 0


cdef inline int moment_of_write() except -1:
    """The number of the moment that is now."""
    cdef int room
    cdef void *block
    if T.written == T.n:
        return T.moment
    if T.n_writes == T.write_room:
        room = max(64, 2 * T.write_room)
        block = reallocate(T.writes, room * sizeof(Write))
        if block == NULL:
            out_of_memory("writes of .data", room)
        T.writes = <Write *>block
        T.write_room = room
    if T.moment == 0x7fffffff:
        renumber_writes()
    T.moment += 1
    T.writes[T.n_writes].number = T.moment
    T.writes[T.n_writes].at = <int>T.n
    T.n_writes += 1
    T.written = T.n
    return T.moment


cdef inline int wrote(int i) except -1:
    """Node i is about to get another value.  May run Python if the node is neither a leaf nor in an array."""
    cdef int moment
    cdef Tensor t
    if T.record[i].op <= CONST:
        T.record[i].a = moment_of_write()
    elif T.record[i].op == WIDE:
        moment = moment_of_write()
        T.wide[T.record[i].a].written = moment
    else:
        t = handle_of(i)                         # holds the node
        attributes_of(t)
        T.pins[t.pin - 1].written = moment_of_write()
    return 0


cdef inline int length_at_write(int p) noexcept nogil:
    """How long the tape was when node p was last written; 0: never."""
    cdef int number
    cdef void *h
    if T.record[p].op <= CONST:
        number = T.record[p].a
    elif T.record[p].op == WIDE:
        number = T.wide[T.record[p].a].written
    else:
        h = T.handle[p]
        number = T.pins[(<Tensor>h).pin - 1].written if h != NULL and (<Tensor>h).pin else 0
    return T.writes[place_of_write(number)].at if number else 0


cdef inline bint has_nodes(Operand *o) noexcept nogil:
    return o.kind == RUN or o.kind == INDEX


cdef inline int changed_in(Operand *o, int i) noexcept nogil:
    """An element of an operand that was written after node i was made; 0: none."""
    cdef int k
    if o.kind == RUN:
        return o.start if length_at_write(o.start) > i else 0
    if o.kind == INDEX:
        for k in range(o.count):
            if length_at_write(o.index[k]) > i:
                return o.index[k]
    return 0


cdef inline int changed_operand(int i) noexcept nogil:
    """What the backward step of node i reads and was written after it was made: a node, maybe i itself; 0: nothing."""
    cdef int a, b, reads = 0, p = 0
    cdef Record r = T.record[i]
    cdef Wide *q
    if r.op != WIDE:
        if r.op < WIDE:
            return 0
        a, b = r.a, r.b
        if T.record[a].op != CONST:              # nobody wants the derivative by a number
            reads = row(r.op).reads_a
        if row(r.op).arity == 2 and T.record[b].op != CONST:
            reads |= row(r.op).reads_b
        if reads & READS_A and length_at_write(a) > i:
            return a
        if reads & READS_B and length_at_write(b) > i:
            return b
        return i if reads & READS_V and length_at_write(i) > i else 0
    q = T.wide[r.a]
    if q.op == W_AFFINE or q.op == W_DOT:
        if has_nodes(&q.y):
            p = changed_in(&q.x, q.start)
        return p or (changed_in(&q.y, q.start) if has_nodes(&q.x) else 0)
    if q.op == W_MAP1 or q.op == W_MAP2:
        if has_nodes(&q.x):
            reads = row(q.code).reads_a
        if has_nodes(&q.y):
            reads |= row(q.code).reads_b
        if reads & READS_A:
            p = changed_in(&q.x, q.start)
        if p == 0 and reads & READS_B:
            p = changed_in(&q.y, q.start)
        return p or (i if reads & READS_V and length_at_write(i) > q.start else 0)
    return 0                                     # losses keep what they need; a user's own step reads what it reads


cdef inline int raise_changed(int i, int p) except -1:
    whose = "its result" if i == p else "an operand"
    raise RuntimeError(
        f"backward of {name_of(i) or 'an operation'}: .data of {whose} was written after the operation was computed "
        f"(it is {T.value[p]!r} now), so there is no point that the derivative would belong to; call backward() before "
        "writing, or compute the operation again")


cdef inline int require_unchanged(int i) except -1:
    """RuntimeError if the backward step of node i would read a value that was written after it was made."""
    cdef int p
    if i < T.written:
        p = changed_operand(i)
        if p:
            raise_changed(i, p)
    return 0
