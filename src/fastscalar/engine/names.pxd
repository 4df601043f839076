# cython: language_level=3, wraparound=False, cdivision=True
# What operations are called.

from fastscalar._core cimport ARRAY_NAMES, BEST_NAMES, op_name, tape
from fastscalar.engine.tape cimport A_AFFINE, A_BEST, A_CUSTOM, A_MAP1, A_MAP2, ARRAY_OP, ArrayOp


cdef inline str name_of(int i):
    """The operation that made node i, as `_op` has it."""
    cdef ArrayOp *q
    if tape.record[i].op != ARRAY_OP:
        return op_name(tape.record[i].op)
    q = tape.array_ops[tape.record[i].a]
    if q.op == A_CUSTOM:
        return (<dict>tape.attributes[q.entry - 1].attributes).get("_op", "") if q.entry else ""
    if q.op == A_BEST:
        return BEST_NAMES[q.code]
    if q.op == A_AFFINE and q.dense:
        return "@"
    return op_name(q.code) if q.op == A_MAP1 or q.op == A_MAP2 else ARRAY_NAMES[q.op]
