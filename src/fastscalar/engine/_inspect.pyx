# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False
"""Reading the graph: what `derivatives` and `debug` ask of the tape.

The boundary: `_core` records and differentiates and does not know this module; nothing here makes a node that lasts or
changes a value.  Every function is one pass over the tape with collection locked out, hands out Tensors, and leaves
marks and gradients as they were.
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_RawFree
from cpython.pythread cimport PyThread_get_thread_ident
from libc.math cimport NAN, isnan
from libc.stdlib cimport qsort
from libc.string cimport memcpy, memset

from fastscalar._core cimport *
from fastscalar.engine.memory cimport allocate, allocate_zeroed, enlarge, out_of_memory
from fastscalar.engine.array_ops cimport (elements_of, enter_row, materialise, read_gradient, reset_leaf,
                                          value_of, write_gradient)
from fastscalar.engine.marks cimport mark_node, previous
from fastscalar.engine.names cimport name_of
from fastscalar.engine.passed cimport first_passed, is_chosen, is_leaf, mark_once, operand, operand_count
from fastscalar.engine.writes cimport require_unchanged


# --- the graph as `derivatives` sees it -----------------------------------------------------------

ctypedef struct Memo:           # growing lists of numbers; owned
    int *index
    double *value
    Py_ssize_t n_index
    Py_ssize_t n_value
    Py_ssize_t index_room
    Py_ssize_t value_room


cdef int reserve_memo(Memo *m, Py_ssize_t indices, Py_ssize_t values) except -1:
    if m.n_index + indices > m.index_room:
        m.index_room = max(2 * m.index_room, m.n_index + indices + 64)
        enlarge(<void **>&m.index, m.index_room, sizeof(int), "a list of nodes")
    if m.n_value + values > m.value_room:
        m.value_room = max(2 * m.value_room, m.n_value + values + 64)
        enlarge(<void **>&m.value, m.value_room, sizeof(double), "gradients")
    return 0


cdef void free_memo(Memo *m) noexcept:
    PyMem_RawFree(m.index)
    PyMem_RawFree(m.value)


cdef int list_stopped(Memo *m, int since) except -1:
    """(first, end) of the nodes that the recording of a program made in blocks of no_grad opened since a node."""
    cdef Recorder recording = recording_here()
    if recording is None:
        return 0
    for first, stop in (<object>recording).stopped:
        if first >= since:
            reserve_memo(m, 2, 0)
            m.index[m.n_index], m.index[m.n_index + 1] = first, stop if stop > first else tape.n
            m.n_index += 2
    return 0


cdef bint passes_nothing(int i, const Memo *stopped) noexcept nogil:
    """Whether node i was made in such a block; what only gives one of its operands passes that one's gradient."""
    cdef Py_ssize_t k
    for k in range(0, stopped.n_index, 2):
        if stopped.index[k] <= i < stopped.index[k + 1]:
            return not is_chosen(i)
    return False


cdef int list_reached(Memo *m, int root, Memo *inputs, const Memo *stopped, bint chosen=False) except -1:
    """The nodes that the root was computed from, itself included, in reverse creation order.

    With inputs, in the same order: only those that depend on one of them by operands that gradients are passed to, and
    those themselves.  What they were computed from is not looked at, nor what those were in `stopped`; chosen: nor the
    operands that a `where`, a `max` or a `min` is not now.  The caller is in start_sweep ... end_sweep.
    """
    cdef int i = root, p, oldest = 0
    cdef Py_ssize_t k, at = 0, kept = 0, first, stop
    cdef bint depends
    if inputs != NULL:
        oldest = inputs.index[inputs.n_index - 1]
    mark_node(root)
    while i > 0:
        tape.at = i
        if i < oldest:
            break
        reserve_memo(m, 1, 0)
        tape.mark[i] = 0
        m.index[m.n_index] = i
        m.n_index += 1
        if inputs != NULL:
            while at < inputs.n_index and inputs.index[at] > i:
                at += 1
        if (inputs == NULL or at == inputs.n_index or inputs.index[at] != i) and not passes_nothing(i, stopped):
            first = first_passed(i, chosen, &stop)
            for k in range(0 if inputs == NULL else first, stop):
                p = operand(i, k, NULL)
                if p >= oldest and p and not tape.mark[p]:
                    mark_node(p)
        i = previous(i)
    tape.at = 0
    while i > 0:                                 # only the root can be older than every input
        tape.mark[i] = 0
        i = previous(i)
    if inputs == NULL:
        return 0
    at = inputs.n_index - 1
    for k in range(m.n_index - 1, -1, -1):       # from old to young: `mark` says what depends on an input
        i = m.index[k]
        while at >= 0 and inputs.index[at] < i:
            at -= 1
        depends = at >= 0 and inputs.index[at] == i
        if not depends and not passes_nothing(i, stopped):
            first = first_passed(i, chosen, &stop)
            for p in range(<int>first, <int>stop):
                if tape.mark[operand(i, p, NULL)]:
                    depends = True
                    break
        tape.mark[i] = depends
    for k in range(m.n_index):
        i = m.index[k]
        if tape.mark[i]:
            tape.mark[i] = 0
            m.index[kept] = i
            kept += 1
    m.n_index = kept
    return 0


cdef int indices_of(Memo *m, list tensors) except -1:
    """The nodes of Tensors, the youngest first."""
    cdef Tensor t
    reserve_memo(m, len(tensors), 0)
    for t in tensors:
        bound(t)
        m.index[m.n_index] = t.index
        m.n_index += 1
    qsort(m.index, m.n_index, sizeof(int), &younger)
    return 0


cdef int younger(const void *a, const void *b) noexcept nogil:
    return (<const int *>b)[0] - (<const int *>a)[0]


def _reached(Tensor root not None, list inputs=None):
    """Tensors of the nodes that root was computed from, root included, in reverse creation order.

    With `inputs`, a list of Tensors: only of those that depend on one of them, the inputs included.
    """
    cdef Memo m, stops, stopped
    cdef Py_ssize_t k
    cdef list out = []
    memset(&m, 0, sizeof(Memo))
    memset(&stops, 0, sizeof(Memo))
    memset(&stopped, 0, sizeof(Memo))
    bound(root)
    if inputs is not None and not inputs:
        return out
    cdef Recorder recording = recording_here()
    if recording is not None:
        (<object>recording).forget_lists()
    start_look()
    lock_nodes()                               # the indices stay right while the list is made
    try:
        try:
            if inputs is not None:
                indices_of(&stops, inputs)
                list_stopped(&stopped, stops.index[stops.n_index - 1])
            list_reached(&m, root.index, &stops if inputs is not None else NULL, &stopped)
        finally:
            end_sweep()
        for k in range(m.n_index):
            out.append(handle_of(m.index[k]))
    finally:
        unlock_nodes()
        free_memo(&m)
        free_memo(&stops)
        free_memo(&stopped)
    return out


def _depends(Tensor root not None, list inputs):
    """Whether root was computed from one of these Tensors, or is one, by what it chose on the way.

    Where it was not, but would have been by another choice, a program that is being recorded holds only for rows that
    choose the same.  False inside a backward pass of this thread."""
    if not inputs or root.index == 0 or (tape.sweeping and tape.owner == PyThread_get_thread_ident()):
        return False
    cdef Recorder recording = recording_here()
    if recording is not None:                    # which knows what goes through loops
        return (<object>recording).depends(root, inputs)
    cdef Memo m, stops, stopped
    memset(&m, 0, sizeof(Memo))
    memset(&stops, 0, sizeof(Memo))
    memset(&stopped, 0, sizeof(Memo))
    start_look()
    try:
        indices_of(&stops, inputs)
        list_reached(&m, root.index, &stops, &stopped, True)
        return m.n_index > 0
    finally:
        end_sweep()
        free_memo(&m)
        free_memo(&stops)


cdef bint reaches_leaf(int node, int before) except -1:
    """Whether a node has a gradient to pass to a leaf that is older than another node, by what it chose on the way.

    False inside a backward pass of this thread."""
    cdef int i = node
    cdef Py_ssize_t k, stop
    cdef bint found = False
    if not node or (tape.sweeping and tape.owner == PyThread_get_thread_ident()):
        return False
    start_look()
    try:
        mark_node(node)
        while i > 0 and not found:
            tape.at = i
            tape.mark[i] = 0
            found = i < before and is_leaf(i)
            k = first_passed(i, True, &stop)
            while k < stop:
                mark_once(operand(i, k, NULL))
                k += 1
            i = previous(i)
    finally:
        end_sweep()
    return found


def _instruction(Tensor t not None):
    """(operation, operands, whole numbers) of a node; RuntimeError where its derivatives read a value written since.

    An operand that is a number is a float, or a constant's Tensor.

    Linear: the inputs of the row, the weights of the column, the bias.  Losses: the predictions, then the targets.
    Whole numbers: of a map the number of operands, of a softmax which output it is, of a loss the rows (0: of one
    dimension), of cross_entropy also the columns and the labels; in the recording of a program, of a where the
    comparison, of a gather the numbers that it takes and which of them it is.
    """
    cdef Py_ssize_t k, count
    cdef int i, p
    cdef double v
    cdef ArrayOp *q = NULL
    cdef list operands = []
    cdef tuple whole = ()
    bound(t)
    lock_nodes()
    try:
        i = t.index
        require_unchanged(i)
        count = operand_count(i)
        if tape.record[i].op == ARRAY_OP:
            q = tape.array_ops[tape.record[i].a]
            if q.op == A_SOFTMAX:
                whole = (tape.record[i].b,)
            elif q.op == A_BEST:
                whole = (q.labels[tape.record[i].b],)
            elif q.op == A_SQUARED or q.op == A_MSE:
                whole = (q.rows,)
            elif q.op == A_CROSS_ENTROPY:
                whole = (q.rows, q.cols, *[q.labels[k] for k in range(max(q.rows, 1))])
            elif q.op == A_WHERE:
                whole = (q.code,)
            elif q.op == A_GATHER:
                whole = (q.count, tape.record[i].b)
        for k in range(count):
            p = operand(i, k, &v)
            if p:
                operands.append(handle_of(p))
            elif q != NULL and q.op == A_MAP2:
                safepoint(SLACK)                 # makes room; it does not collect now
                operands.append(result(CONST, 0, 0, v))
            else:
                operands.append(v)
        return "custom" if q != NULL and q.op == A_CUSTOM else t._op, operands, whole
    finally:
        unlock_nodes()


def _output(Tensor t not None):
    """The first output of the instruction that wrote a node, and which of them the node is."""
    bound(t)
    if tape.record[t.index].op != ARRAY_OP:
        return t, 0
    return handle_of(tape.array_ops[tape.record[t.index].a].start), tape.record[t.index].b


def _constant(Tensor t not None):
    """The number that a program wrote as an operand."""
    bound(t)
    return tape.value[t.index]


def _whole_argument(Tensor t not None):
    """The TracedInt that an instruction of a recording depends on, or None."""
    cdef Recorder recording = recording_here()
    cdef ArrayOp *q
    bound(t)
    if recording is None or tape.record[t.index].op != ARRAY_OP:
        return None
    q = tape.array_ops[tape.record[t.index].a]
    if (q.op != A_CROSS_ENTROPY and q.op != A_GATHER) or q.argument == 0:
        return None
    return (<object>recording).inputs[q.argument - 1][1]


# A sweep that leaves no trace.  Before it, the gradients of what the root reaches are written down, an array operation
# as a whole; of an array of leaves only the touched rows.  After it they are put back.

cdef int mark_seen(int p) noexcept nogil:
    """Mark a node, or the last one of its array operation."""
    if tape.record[p].op == ARRAY_OP:
        p = tape.array_ops[tape.record[p].a].start + tape.array_ops[tape.record[p].a].count - 1
    if p and not tape.mark[p]:
        mark_node(p)
    return p


cdef void mark_operand_seen(Operand *o) noexcept nogil:
    cdef int k
    if o.kind == RUN or o.kind == STRIDED:
        mark_seen(o.start)
    elif o.kind == INDEX:
        for k in range(o.count):
            mark_seen(o.index[k])


cdef int write_down(Memo *m, int root) except -1:
    cdef int i = mark_seen(root), k
    cdef ArrayOp *q
    while i > 0:
        tape.at = i
        if tape.record[i].op != ARRAY_OP:
            reserve_memo(m, 1, 1)
            m.value[m.n_value] = tape.grad[i]
            m.n_value += 1
            if tape.record[i].op > CONST:
                mark_seen(tape.record[i].a)
                mark_seen(tape.record[i].b)
        else:
            q = tape.array_ops[tape.record[i].a]
            if q.op == A_LEAF:
                materialise(q)
                reserve_memo(m, 2 + q.n_touched, <Py_ssize_t>q.n_touched * q.cols)
                for k in range(q.n_touched):
                    memcpy(m.value + m.n_value, tape.grad + q.start + <Py_ssize_t>q.touched_rows[k] * q.cols,
                           q.cols * sizeof(double))
                    m.n_value += q.cols
                    m.index[m.n_index] = q.touched_rows[k]
                    m.n_index += 1
                m.index[m.n_index] = q.n_touched
                m.n_index += 1
            else:
                reserve_memo(m, 1, q.count)
                memcpy(m.value + m.n_value, tape.grad + q.start, q.count * sizeof(double))
                m.n_value += q.count
                mark_operand_seen(&q.x)
                mark_operand_seen(&q.y)
                mark_operand_seen(&q.z)
        m.index[m.n_index] = i
        m.n_index += 1
        tape.mark[i] = 0
        i = previous(i)
    tape.at = 0
    return 0


cdef void put_back(Memo *m) noexcept:
    """From the end of the lists to their beginning."""
    cdef int i, _k, rows
    cdef ArrayOp *q
    while m.n_index:
        m.n_index -= 1
        i = m.index[m.n_index]
        if tape.record[i].op != ARRAY_OP:
            m.n_value -= 1
            tape.grad[i] = m.value[m.n_value]
            continue
        q = tape.array_ops[tape.record[i].a]
        if q.op == A_LEAF:
            reset_leaf(q)
            m.n_index -= 1
            rows = m.index[m.n_index]
            for _k in range(rows):
                m.n_index -= 1
                m.n_value -= q.cols
                enter_row(q, m.index[m.n_index])
                memcpy(tape.grad + q.start + <Py_ssize_t>m.index[m.n_index] * q.cols, m.value + m.n_value,
                       q.cols * sizeof(double))
        else:
            m.n_value -= q.count
            memcpy(tape.grad + q.start, m.value + m.n_value, q.count * sizeof(double))


def _gradients(Tensor root not None, list nodes):
    """d root / d node for each Tensor of a list, floats.  `.grad` of every node stays what it was."""
    cdef Py_ssize_t k, n = len(nodes)
    cdef double *found
    cdef int *indices
    cdef Tensor t
    bound(root)
    for t in nodes:
        bound(t)
    found = <double *>allocate((n + 1) * (sizeof(double) + sizeof(int)))
    if found == NULL:
        out_of_memory("gradients", n)
    indices = <int *>(found + n + 1)
    lock_nodes()
    try:
        for k in range(n):
            indices[k] = (<Tensor>nodes[k]).index
        find_gradients(root, indices, n, found)
        return [found[k] for k in range(n)]
    finally:
        unlock_nodes()
        PyMem_RawFree(found)


cdef int find_gradients(Tensor root, const int *nodes, Py_ssize_t n, double *found) except -1:
    """d root / d node for each of n nodes, no two the same.  `.grad` of every node stays what it was.

    Collection is locked out by the caller, whose indices these are."""
    cdef Memo m
    cdef Py_ssize_t k
    cdef double before
    cdef bint written = False
    memset(&m, 0, sizeof(Memo))
    start_sweep()
    try:
        write_down(&m, root.index)
        for k in range(n):
            read_gradient(nodes[k])
            found[k] = tape.grad[nodes[k]]
            tape.grad[nodes[k]] = 0.0            # what the root does not reach has derivative 0.0
        written = True
        sweep(root, False)
    finally:
        if written:
            for k in range(n):
                read_gradient(nodes[k])
                before, found[k] = found[k], tape.grad[nodes[k]]
                if before != 0.0:
                    write_gradient(nodes[k])
                tape.grad[nodes[k]] = before
            put_back(&m)
        end_sweep()
        free_memo(&m)
    return 0


cdef int backward_or_nothing(Tensor root, bint accumulate) except -1:
    """`backward`, after whose errors gradients are what they were.

    Where gradients are Tensors (`tape.n_recorded`) it is not for these."""
    cdef Memo m
    memset(&m, 0, sizeof(Memo))
    start_sweep()
    try:
        write_down(&m, root.index)
        sweep(root, accumulate)
    except BaseException:
        put_back(&m)
        raise
    finally:
        end_sweep()
        free_memo(&m)
    return 0


# --- looking inside -------------------------------------------------------------------------------
#
# What `fastscalar.debug` reads.  An instruction is taken whole: what reaches one of its outputs reaches its operands.
# To Python an instruction is named by the Tensor of its first node, never by an index, so a collection does no harm.
# Collection is locked out while indices are held, because making objects and signal handlers may run Python.

cdef enum:
    SOME = 1 << 22                               # nodes between two looks at signals


cdef inline int first_of(int p) noexcept nogil:
    """The first node of the instruction that wrote node p."""
    return tape.array_ops[tape.record[p].a].start if tape.record[p].op == ARRAY_OP else p


cdef inline void reach_operand(Operand *o, int *reached) noexcept nogil:
    cdef int k
    if o.kind == RUN or o.kind == STRIDED:
        reached[first_of(o.start)] = 1
    elif o.kind == INDEX:
        for k in range(o.count):
            reached[first_of(o.index[k])] = 1


cdef int *reachable(int root, Py_ssize_t limit, Py_ssize_t *found) except NULL:
    """A number for each node up to the root, 1 at the first node of every instruction that it reaches, else 0.

    `found` counts them; it stops when that is more than `limit`.  The caller frees the numbers.
    """
    cdef int i = first_of(root)
    cdef int *reached = <int *>allocate_zeroed(<size_t>i + 1, sizeof(int))
    cdef ArrayOp *q
    found[0] = 0
    if reached == NULL:
        out_of_memory("a look at the graph", i + 1)
    reached[i] = 1
    try:
        while i > 0 and found[0] <= limit:
            if i % SOME == 0:
                PyErr_CheckSignals()
            if reached[i]:
                found[0] += 1
                if tape.record[i].op == ARRAY_OP:
                    q = tape.array_ops[tape.record[i].a]
                    reach_operand(&q.x, reached)
                    reach_operand(&q.y, reached)
                    reach_operand(&q.z, reached)
                elif tape.record[i].op > ARRAY_OP:
                    reached[first_of(tape.record[i].a)] = 1
                    reached[first_of(tape.record[i].b)] = 1
            i -= 1
    except BaseException:
        PyMem_RawFree(reached)
        raise
    return reached


cdef inline int deepest(Operand *o, const int *depth) noexcept nogil:
    cdef int k, most = 0
    if o.kind == RUN or o.kind == STRIDED:
        return depth[first_of(o.start)]
    if o.kind == INDEX:
        for k in range(o.count):
            most = max(most, depth[first_of(o.index[k])])
    return most


def _summary(Tensor root not None):
    """What the root reaches: instructions by operation, nodes, array operations, leaves, arrays of leaves, constants,
    bytes, and the length of the longest chain of operations."""
    cdef long long[MOST_CODES] scalars
    cdef long long nodes = 0, wide = 0, leaves = 0, arrays = 0, held = 0
    cdef Py_ssize_t found
    cdef int i = 1, op, last
    cdef int *depth
    cdef ArrayOp *q
    cdef dict operations = {}
    bound(root)
    memset(scalars, 0, sizeof(scalars))
    lock_nodes()
    try:
        last = first_of(root.index)
        depth = reachable(root.index, tape.max_nodes, &found)
        try:
            while i <= last:                     # from old to young: 1 of a leaf, else 1 more than its deepest operand
                if i % SOME == 0:
                    PyErr_CheckSignals()
                op = tape.record[i].op
                if not depth[i]:
                    pass
                elif op != ARRAY_OP:
                    nodes += 1
                    scalars[op] += 1
                    if op > ARRAY_OP:
                        depth[i] = 1 + max(depth[first_of(tape.record[i].a)], depth[first_of(tape.record[i].b)])
                else:
                    q = tape.array_ops[tape.record[i].a]
                    nodes += q.count
                    held += q.bytes
                    if q.op == A_LEAF:
                        arrays += 1
                        leaves += q.count
                        held += q.rows * (1 + sizeof(int))
                    else:
                        wide += 1
                        depth[i] = 1 + max(deepest(&q.x, depth), deepest(&q.y, depth), deepest(&q.z, depth))
                        depth[i] = max(depth[i], 2)              # of numbers only
                        name = name_of(i) or "custom"
                        operations[name] = operations.get(name, 0) + 1
                i += 1
            deep = depth[last] - 1
        finally:
            PyMem_RawFree(depth)
    finally:
        unlock_nodes()
    for op in range(<int>ADD, n_codes):
        if scalars[op]:
            operations[op_name(op)] = operations.get(op_name(op), 0) + scalars[op]
    held += nodes * (2 * sizeof(double) + sizeof(void *) + sizeof(Record) + 1)
    return operations, nodes, wide, leaves + scalars[<int>LEAF], arrays, scalars[<int>CONST], held, deep


cdef tuple extent(const double *p, Py_ssize_t count):
    """The smallest and the largest number, NaN twice if there is one."""
    cdef double low = p[0] if count else 0.0, high = low
    cdef Py_ssize_t k
    for k in range(count):
        if isnan(p[k]):
            return NAN, NAN
        low = min(low, p[k])
        high = max(high, p[k])
    return low, high


cdef tuple describe_operand(Operand *o, Py_ssize_t size, Py_ssize_t most):
    """(elements, [(first Tensor, offset, count) of each instruction that they come from], (smallest, largest)).

    At most `most` of them; `size`: how many numbers a SPARSE operand stands for.
    """
    cdef list sources = []
    cdef Py_ssize_t k, length
    cdef int p, previous_slot = -1
    cdef double low, high, v
    if o.kind == RUN:
        p = first_of(o.start)
        sources.append((handle_of(p), o.start - p, o.count))
        return o.count, sources, extent(tape.value + o.start, o.count)
    if o.kind == STRIDED:                        # broadcast elements are counted once
        length = 1
        low = high = value_of(o, 0)
        for k in range(o.layout.ndim):
            length *= o.layout.shape[k] if o.layout.stride[k] else 1
        for k in range(elements_of(o)):
            v = value_of(o, k)
            low, high = (v, v) if isnan(v) else (low, high) if isnan(low) else (min(low, v), max(high, v))
        p = first_of(o.start)
        return length, [(handle_of(p), o.start - p, length)], (low, high)
    if o.kind == INDEX:
        length = 0
        low = high = tape.value[o.index[0]]
        for k in range(o.count):
            if length < most:
                p = first_of(o.index[k])
                if tape.record[p].op == ARRAY_OP and tape.record[p].a == previous_slot:
                    sources[length - 1] = (*sources[length - 1][:2], sources[length - 1][2] + 1)
                else:
                    sources.append((handle_of(p), o.index[k] - p, 1))
                    length += 1
                previous_slot = tape.record[p].a if tape.record[p].op == ARRAY_OP else -1
            v = tape.value[o.index[k]]
            low, high = (v, v) if isnan(v) else (low, high) if isnan(low) else (min(low, v), max(high, v))
        return o.count, sources, (low, high)
    low, high = extent(o.value, o.count)
    if o.kind == CONSTANT:
        return o.count, sources, (low, high)
    if o.count < size and not isnan(low):     # the others are zero
        low, high = min(low, 0.0), max(high, 0.0)
    return size, sources, (low, high)


cdef tuple describe(int i, Py_ssize_t most):
    """One instruction by its first node, for `debug._Instruction`; collection is locked out by the caller."""
    cdef ArrayOp *q
    cdef Tensor first = handle_of(i)
    cdef list operands = []
    cdef int k, p, op = tape.record[i].op
    cdef int place = 0 if tape.source == NULL else tape.source[i]
    cdef object shape = (), labels = ()
    if op != ARRAY_OP:
        kind = "leaf" if op == LEAF else "const" if op == CONST else "scalar"
        for k in range(row(op).arity):
            p = tape.record[i].b if k else tape.record[i].a
            operands.append((1, [(handle_of(first_of(p)), p - first_of(p), 1)], extent(tape.value + p, 1)))
        return (first, op_name(op), kind, 1, shape, operands, labels,
                extent(tape.value + i, 1), extent(tape.grad + i, 1), place)
    q = tape.array_ops[tape.record[i].a]
    kind = "array" if q.op == A_LEAF else "scalar" if q.op == A_CUSTOM else "wide"
    if q.op == A_LEAF:
        materialise(q)
    if q.op == A_LEAF or q.op == A_AFFINE:
        shape = tuple([q.rows, q.cols][q.rows <= 1:])
    elif (q.op == A_MAP1 or q.op == A_MAP2 or q.op == A_SOFTMAX) and q.x.layout == NULL and q.y.layout == NULL:
        shape = None                             # that of an operand
    elif q.count > 1:
        shape = (q.count,)
    if q.x.kind != NOTHING:
        operands.append(describe_operand(&q.x, <Py_ssize_t>q.rows * q.inner, most))
    if q.y.kind != NOTHING:
        operands.append(describe_operand(&q.y, 0, most))
    if q.z.kind != NOTHING:
        operands.append(describe_operand(&q.z, 0, most))
    if q.labels != NULL:
        labels = tuple([q.labels[k] for k in range(min(max(q.count if q.op == A_BEST else q.rows, 1), 8))])
    return (first, name_of(i) or ("" if q.op == A_LEAF else "custom"), kind, q.count, shape, operands, labels,
            extent(tape.value + i, q.count), extent(tape.grad + i, q.count), place)


def _describe(Tensor t not None, Py_ssize_t most=16):
    """The instruction that wrote this node, and the node's offset in it; operands with at most `most` sources."""
    bound(t)
    lock_nodes()
    try:
        return describe(first_of(t.index), most), t.index - first_of(t.index)
    finally:
        unlock_nodes()


def _describe_all(Tensor root not None, Py_ssize_t limit):
    """Every instruction that the root reaches, from old to young, or None if they are more than `limit`."""
    cdef Py_ssize_t found
    cdef int i, last
    cdef int *reached
    cdef list out = []
    bound(root)
    lock_nodes()
    try:
        last = first_of(root.index)
        reached = reachable(root.index, limit, &found)
        try:
            if found > limit:
                return None
            for i in range(1, last + 1):
                if reached[i]:
                    out.append(describe(i, tape.max_nodes))
        finally:
            PyMem_RawFree(reached)
    finally:
        unlock_nodes()
    return out


cdef inline int blemish(double v) noexcept nogil:
    """0: finite, 1: infinite, 2: NaN."""
    return 0 if v - v == 0.0 else 2 if isnan(v) else 1


cdef int span_blemish(Operand *o, Py_ssize_t first, Py_ssize_t step, Py_ssize_t count) noexcept nogil:
    """The worst of some elements."""
    cdef int worst = 0
    cdef Py_ssize_t k
    if o.kind != NOTHING:
        for k in range(count):
            worst = max(worst, blemish(value_of(o, first + k * step)))
    return worst


cdef int operand_blemish(int i) noexcept nogil:
    """The worst among the numbers that node i was computed from."""
    cdef int k = tape.record[i].b, worst
    cdef ArrayOp *q
    if tape.record[i].op != ARRAY_OP:
        worst = blemish(tape.value[tape.record[i].a])
        return max(worst, blemish(tape.value[tape.record[i].b])) if row(tape.record[i].op).arity == 2 else worst
    q = tape.array_ops[tape.record[i].a]
    if q.op == A_AFFINE:
        if q.x.kind == SPARSE:
            worst = span_blemish(&q.x, q.x.row[k // q.cols], 1, q.x.row[k // q.cols + 1] - q.x.row[k // q.cols])
        else:
            worst = span_blemish(&q.x, <Py_ssize_t>(k // q.cols) * q.inner, 1, q.inner)
        worst = max(worst, span_blemish(&q.y, k % q.cols, q.cols, q.inner))
        return max(worst, span_blemish(&q.z, k % q.cols, 1, 1))
    if q.op == A_SUM or q.op == A_DOT or q.op == A_PROD or q.op == A_BEST:
        return max(span_blemish(&q.x, <Py_ssize_t>k * q.inner, 1, q.inner),
                   span_blemish(&q.y, <Py_ssize_t>k * q.inner, 1, q.inner))
    if q.op == A_PICK:
        return blemish(value_of(&q.x, k))
    if q.op == A_CUMSUM:
        return span_blemish(&q.x, k // q.inner * q.inner, 1, k % q.inner + 1)
    if q.op == A_MAP1 or q.op == A_MAP2:
        worst = blemish(value_of(&q.x, k))
        return max(worst, blemish(value_of(&q.y, k))) if q.op == A_MAP2 else worst
    return max(span_blemish(&q.x, 0, 1, q.x.count), span_blemish(&q.y, 0, 1, q.y.count))


def _nonfinite(Tensor root not None):
    """None if every value that the root reaches is finite, else (Tensor, how), the first of the lowest `how`.

    1: an operation made it infinite or NaN from finite numbers; 2: an operation made NaN from infinite ones;
    3: a leaf, or an operation on such numbers.
    """
    cdef Py_ssize_t found
    cdef int i = 1, k, last, worst, before
    cdef int[4] first
    cdef int *reached
    cdef bint leaf, one_by_one
    cdef ArrayOp *q
    bound(root)
    memset(first, 0, sizeof(first))
    lock_nodes()
    try:
        last = first_of(root.index)
        reached = reachable(root.index, tape.max_nodes, &found)
        try:
            while i <= last and not first[1]:
                if i % SOME == 0:
                    PyErr_CheckSignals()
                if reached[i]:
                    q = tape.array_ops[tape.record[i].a] if tape.record[i].op == ARRAY_OP else NULL
                    leaf = tape.record[i].op <= CONST if q == NULL else q.op == A_LEAF
                    one_by_one = q != NULL and q.op in (A_AFFINE, A_MAP1, A_MAP2, A_SUM, A_DOT, A_PROD, A_BEST, A_PICK)
                    for k in range(i, i + (1 if q == NULL else q.count)):
                        worst = blemish(tape.value[k])
                        if worst:
                            before = 2 if leaf else operand_blemish(k)
                            worst = 1 if before == 0 else 2 if worst == 2 and before == 1 else 3
                            if not first[worst]:
                                first[worst] = k
                            if worst == 1 or not one_by_one:
                                break
                i += 1
            for k in range(1, 4):
                if first[k]:
                    return handle_of(first[k]), k
            return None
        finally:
            PyMem_RawFree(reached)
    finally:
        unlock_nodes()
