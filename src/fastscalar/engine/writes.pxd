# cython: language_level=3, wraparound=False, cdivision=True
# A value changed in between.
#
# `.data` may be written at any time; a derivative that would read a value which was written after the operation is the
# derivative at no point, and a RuntimeError.  A write leaves the moment in the record of the leaf, in the array, or, of
# a computed number, in its attributes.  A moment is a number and not an index, so that a collection rewrites only the
# table of moments: `writes` says for each how long the tape was; those between which no node lives any more are one.
#
#     ... op1 ... op2 ... | op3 ... [n]       w.data = ... at |, tape.written: op1 and op2 are older and must not read w
#
# A training step writes when the step before has been swept: its sweep meets nothing older than `written`, and that is
# all it looks at.  A sweep that does looks at each operation from there on.


from fastscalar._core cimport tape, Tensor, attributes_of, handle_of, row
from fastscalar.engine.memory cimport enlarge
from fastscalar.engine.names cimport name_of
from fastscalar.engine.tape cimport (CONST, INDEX, READS_A, READS_B, READS_V, RUN, STRIDED, A_AFFINE, A_DOT,
                                     A_MAP1, A_MAP2, A_PROD, ARRAY_OP, Operand, Record, ArrayOp, Write)


cdef inline int place_of_write(int number) noexcept nogil:
    """The index in `writes` of the last entry that is not after this number; -1: there is none."""
    cdef int low = 0, high = tape.n_writes, middle
    while low < high:
        middle = (low + high) // 2
        if tape.writes[middle].number <= number:
            low = middle + 1
        else:
            high = middle
    return low - 1


cdef inline void renumber_writes() noexcept nogil:
    """After two thousand million of them: the numbers from 1."""
    cdef Py_ssize_t k
    for k in range(tape.n):
        if tape.record[k].op <= CONST:
            tape.record[k].a = place_of_write(tape.record[k].a) + 1
    for k in range(tape.n_array_ops):
        tape.array_ops[k].written = place_of_write(tape.array_ops[k].written) + 1
    for k in range(tape.n_attributes):
        tape.attributes[k].written = place_of_write(tape.attributes[k].written) + 1
    for k in range(tape.n_writes):
        tape.writes[k].number = <int>k + 1
    tape.moment = tape.n_writes


cdef inline void merge_writes(int first) noexcept nogil:
    """Of writes from `first` on between which nothing lives any more the oldest stands for all."""
    cdef int k, kept = first
    for k in range(first, tape.n_writes):
        if kept == 0 or tape.writes[k].at != tape.writes[kept - 1].at:
            tape.writes[kept] = tape.writes[k]
            kept += 1
    tape.n_writes = kept
    tape.written = tape.writes[kept - 1].at if kept else 0


cdef inline int moment_of_write() except -1:
    """The number of the moment that is now."""
    cdef int room
    if tape.written == tape.n:
        return tape.moment
    if tape.n_writes == tape.write_room:
        room = max(64, 2 * tape.write_room)
        enlarge(<void **>&tape.writes, room, sizeof(Write), "writes of .data")
        tape.write_room = room
    if tape.moment == 0x7fffffff:
        renumber_writes()
    tape.moment += 1
    tape.writes[tape.n_writes].number = tape.moment
    tape.writes[tape.n_writes].at = <int>tape.n
    tape.n_writes += 1
    tape.written = tape.n
    return tape.moment


cdef inline int wrote(int i) except -1:
    """Node i is about to get another value.  May run Python if the node is neither a leaf nor in an array."""
    cdef int moment
    cdef Tensor t
    if tape.record[i].op <= CONST:
        tape.record[i].a = moment_of_write()
    elif tape.record[i].op == ARRAY_OP:
        moment = moment_of_write()
        tape.array_ops[tape.record[i].a].written = moment
    else:
        t = handle_of(i)                         # holds the node
        attributes_of(t)
        tape.attributes[t.entry - 1].written = moment_of_write()
    return 0


cdef inline int length_at_write(int p) noexcept nogil:
    """How long the tape was when node p was last written; 0: never."""
    cdef int number
    cdef void *h
    if tape.record[p].op <= CONST:
        number = tape.record[p].a
    elif tape.record[p].op == ARRAY_OP:
        number = tape.array_ops[tape.record[p].a].written
    else:
        h = tape.handle[p]
        number = tape.attributes[(<Tensor>h).entry - 1].written if h != NULL and (<Tensor>h).entry else 0
    return tape.writes[place_of_write(number)].at if number else 0


cdef inline bint has_nodes(Operand *o) noexcept nogil:
    return o.kind == RUN or o.kind == INDEX or o.kind == STRIDED


cdef inline int changed_in(Operand *o, int i) noexcept nogil:
    """An element of an operand that was written after node i was made; 0: none."""
    cdef int k
    if o.kind == RUN or o.kind == STRIDED:
        return o.start if length_at_write(o.start) > i else 0
    if o.kind == INDEX:
        for k in range(o.count):
            if length_at_write(o.index[k]) > i:
                return o.index[k]
    return 0


cdef inline int changed_operand(int i) noexcept nogil:
    """What the backward step of node i reads and was written after it was made: a node, maybe i itself; 0: nothing."""
    cdef int a, b, reads = 0, p = 0
    cdef Record r = tape.record[i]
    cdef ArrayOp *q
    if r.op != ARRAY_OP:
        if r.op < ARRAY_OP:
            return 0
        a, b = r.a, r.b
        if tape.record[a].op != CONST:              # a number gets no derivative
            reads = row(r.op).reads_a
        if row(r.op).arity == 2 and tape.record[b].op != CONST:
            reads |= row(r.op).reads_b
        if reads & READS_A and length_at_write(a) > i:
            return a
        if reads & READS_B and length_at_write(b) > i:
            return b
        return i if reads & READS_V and length_at_write(i) > i else 0
    q = tape.array_ops[r.a]
    if q.op == A_AFFINE or q.op == A_DOT:
        if has_nodes(&q.y):
            p = changed_in(&q.x, q.start)
        return p or (changed_in(&q.y, q.start) if has_nodes(&q.x) else 0)
    if q.op == A_MAP1 or q.op == A_MAP2:
        if has_nodes(&q.x):
            reads = row(q.code).reads_a
        if has_nodes(&q.y):
            reads |= row(q.code).reads_b
        if reads & READS_A:
            p = changed_in(&q.x, q.start)
        if p == 0 and reads & READS_B:
            p = changed_in(&q.y, q.start)
        return p or (i if reads & READS_V and length_at_write(i) > q.start else 0)
    if q.op == A_PROD:
        return changed_in(&q.x, q.start)
    return 0                                     # losses keep what they need; a user's own step reads what it reads


cdef inline int raise_changed(int i, int p) except -1:
    whose = "its result" if i == p else "an operand"
    raise RuntimeError(
        f"backward of {name_of(i) or 'an operation'}: .data of {whose} was written after the operation was computed "
        f"(it is {tape.value[p]!r} now), so there is no point that the derivative would belong to; call backward() "
        "before writing, or compute the operation again")


cdef inline int require_unchanged(int i) except -1:
    """RuntimeError if the backward step of node i would read a value that was written after it was made."""
    cdef int p
    if i < tape.written:
        p = changed_operand(i)
        if p:
            raise_changed(i, p)
    return 0
