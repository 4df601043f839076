# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False
"""What stands for a whole number and for the outcome of a comparison while a program is recorded.

They live with the engine, which knows nothing of programs, because its array operations take them as operands: a
TensorArray indexed by a TracedInt gathers, `cross_entropy` keeps one as its label, `select` takes a TracedBool.  Only a
recording makes them; what they tell it goes through `_core.Recorder`.
"""

cimport cython
from cpython.object cimport Py_GE, Py_LT

from libc.math cimport isfinite

from fastscalar._core cimport (Recorder, Tensor, TracedNumber, end_sweep, programs, read_number, recording_here, row,
                               start_look, tape)
from fastscalar.engine.marks cimport previous
from fastscalar.engine.passed cimport is_leaf, mark_once
from fastscalar.engine.tape cimport A_BEST, ARRAY_OP, BEST_MIN, CONST, ArrayOp

import numbers
import operator

import numpy as np

cdef object EXACT = 1 << 53
cdef tuple COMPARISONS = (operator.lt, operator.le, operator.eq, operator.ne, operator.gt, operator.ge)

# Not where it is asked for: of the entries of a tuple written there Cython ignores that one raised (an interrupt).
cdef tuple NUMPYS = (np.ndarray, np.generic)
cdef tuple OTHERS = (Tensor, np.ndarray, numbers.Real, np.bool_)     # that arithmetic with whole numbers takes


@cython.final
@cython.c_api_binop_methods(True)
cdef class TracedInt(TracedNumber):
    """A whole number that a program was called with; the rows of a replay have others.

    As an index of a TensorArray it gathers, as a label of `cross_entropy` it stays a label, beside Tensors and floats
    it is a number.  Whatever else it is used for (`range`, `list[i]`, `int`, arithmetic of whole numbers) makes the
    program hold only for rows where it is the same, and comparisons only for rows where they come out the same.
    is_truth: it stands for a bool, which is another thing to read, and the same to compute with.
    """

    def __init__(self, value, Tensor tensor not None, int argument, bint is_truth=False):
        self.value = operator.index(value)
        self.tensor = tensor
        self.argument, self.is_truth = argument, is_truth

    @property
    def __class__(self):
        """What `isinstance` is told, as of the int, or bool, that the plain call takes."""
        return bool if self.is_truth else int

    def __repr__(self):
        return repr(plain_whole(self))

    def __format__(self, spec):
        return format(plain_whole(self), spec)

    def __index__(self):
        if programs:
            read_number(self.tensor, "a whole number")
        return self.value

    def __int__(self):
        return operator.index(self)

    def __float__(self):
        return float(operator.index(self))

    def __hash__(self):
        return hash(operator.index(self))

    def __bool__(self):
        return bool(self.tensor != 0.0)

    def __richcmp__(self, other, int op):
        if is_beyond_exact(self) or is_beyond_exact(other):
            return COMPARISONS[op](operator.index(self), plain_whole(other))
        if rounds(other) and not isinstance(other, numbers.Rational):    # NumPy makes the same of the int
            return COMPARISONS[op](plain_whole(self), other)
        right = (<TracedInt>other).tensor if type(other) is TracedInt else other
        return COMPARISONS[op](self.tensor, right)

    def __add__(left, right):
        return of_whole(operator.add, left, right)

    def __sub__(left, right):
        return of_whole(operator.sub, left, right)

    def __mul__(left, right):
        return of_whole(operator.mul, left, right)

    def __floordiv__(left, right):
        return of_whole(operator.floordiv, left, right)

    def __mod__(left, right):
        return of_whole(operator.mod, left, right)

    def __pow__(left, right, modulus):
        if modulus is not None:
            return pow(plain_whole(left), plain_whole(right), plain_whole(modulus))
        if type(left) is TracedInt and isinstance(right, float) and right % 1.0 != 0.0:
            if (<TracedInt>left).tensor < 0.0:   # of an int it is complex, of a Tensor an error
                return operator.index(left) ** right
        return of_whole(operator.pow, left, right)

    def __truediv__(left, right):
        return of_numbers(operator.truediv, left, right)

    def __divmod__(left, right):
        return of_whole(divmod, left, right)

    def __and__(left, right):
        return of_whole(operator.and_, left, right)

    def __or__(left, right):
        return of_whole(operator.or_, left, right)

    def __xor__(left, right):
        return of_whole(operator.xor, left, right)

    def __lshift__(left, right):
        return of_whole(operator.lshift, left, right)

    def __rshift__(left, right):
        return of_whole(operator.rshift, left, right)

    def __invert__(self):
        return -1 - operator.index(self)         # ~ of a bool is deprecated

    def __neg__(self):
        return -operator.index(self)

    def __pos__(self):
        return as_int(self)

    def __abs__(self):
        return abs(operator.index(self))

    def __round__(self, digits=None):
        return as_int(self) if digits is None or digits >= 0 else round(operator.index(self), digits)

    def __trunc__(self):
        return as_int(self)

    def __floor__(self):
        return as_int(self)

    def __ceil__(self):
        return as_int(self)

    def __array__(self, dtype=None, copy=None):
        return np.asarray(plain_whole(self), dtype)

    def __array_ufunc__(self, ufunc, str method, *operands, **named):
        """An int beside an array is taken for a number of its type; what `__array__` gives has one of its own."""
        for x in operands:
            if type(x) is not TracedInt and hasattr(type(x), "__array_ufunc__") and not isinstance(x, NUMPYS):
                return NotImplemented            # a TensorArray reads nothing
        return getattr(ufunc, method)(*[plain_whole(x) if type(x) is TracedInt else x for x in operands], **named)

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __getattr__(self, name):
        return getattr(plain_whole(self), name)              # bit_length, numerator, ...


cdef object as_int(TracedInt k):
    return operator.index(k) if k.is_truth else k


cdef object as_tensor(x):
    return (<TracedInt>x).tensor if type(x) is TracedInt else x


cdef bint is_beyond_exact(x) except -1:
    """Whether it is a whole number of which Tensors have not all digits."""
    if type(x) is TracedInt:
        return not -EXACT < (<TracedInt>x).value < EXACT
    return isinstance(x, (int, np.integer)) and not -EXACT < x < EXACT


cdef object plain_whole(x):
    """What the plain call has in its place, which is read."""
    if type(x) is not TracedInt:
        return truth(x)
    return bool(operator.index(x)) if (<TracedInt>x).is_truth else operator.index(x)


cdef bint rounds(x) except -1:
    """Whether numbers beside it become numbers of its type: of single precision, small whole ones, fractions."""
    if type(x) is float or type(x) is Tensor or type(x) is TracedInt or isinstance(x, (float, int)):
        return False
    if isinstance(x, np.integer):
        return type(x) is not np.int64
    if isinstance(x, np.ndarray):
        return x.dtype.kind != "O" and x.dtype != np.float64
    return isinstance(x, (np.floating, numbers.Rational))


cdef object of_whole(operation, left, right):
    """Whole numbers among themselves give what they give, with anything else a Tensor."""
    if hasattr(type(left), "__index__") and hasattr(type(right), "__index__"):
        return operation(plain_whole(left), plain_whole(right))
    for x in (left, right):
        if not (isinstance(x, TracedNumber) or isinstance(x, OTHERS)):
            return NotImplemented            # a TensorArray has its own say; a list would be repeated
    return of_numbers(operation, left, right)


cdef object of_numbers(operation, left, right):
    """What is no whole number: a Tensor.  Unless that shows, or the plain call rounds it in a way of its own."""
    cdef Recorder recording = recording_here()
    if recording is not None and recording.plain_floats and type(left) is not Tensor and type(right) is not Tensor:
        return operation(plain_whole(left), plain_whole(right))
    if rounds(left) or rounds(right):
        return operation(plain_whole(left), plain_whole(right))
    return operation(as_tensor(left), as_tensor(right))


@cython.final
@cython.no_gc
@cython.freelist(64)
@cython.c_api_binop_methods(True)
cdef class TracedBool:
    """The outcome of a comparison in a program.  `where` takes it as it is; anything else asks for its truth, and from
    then on the program holds only for rows where it is the same."""

    def __init__(self):
        raise TypeError("TracedBool: only the recording of a program makes them")

    @property
    def __class__(self):
        """What `isinstance` is told, as of the bool of a plain comparison."""
        return np.bool_ if self.of_array else bool

    def __bool__(self):
        if self.recording is not None:
            self.recording.decided(self.op, self.left, self.right, self.number, self.outcome)
        return self.outcome

    def __repr__(self):
        return repr(truth(self))

    def __str__(self):
        return str(truth(self))

    def __index__(self):
        return operator.index(truth(self))

    def __int__(self):
        return int(bool(self))

    def __float__(self):
        return float(bool(self))

    def __hash__(self):
        return hash(bool(self))

    def __array__(self, dtype=None, copy=None):
        return np.asarray(bool(self), dtype)

    def __richcmp__(self, other, int op):
        return COMPARISONS[op](truth(self), truth(other))

    def __and__(left, right):
        return of_truth(operator.and_, left, right)

    def __or__(left, right):
        return of_truth(operator.or_, left, right)

    def __xor__(left, right):
        return of_truth(operator.xor, left, right)

    def __add__(left, right):
        return of_truth(operator.add, left, right)

    def __sub__(left, right):
        return of_truth(operator.sub, left, right)

    def __mul__(left, right):
        return of_truth(operator.mul, left, right)

    def __truediv__(left, right):
        return of_truth(operator.truediv, left, right)

    def __floordiv__(left, right):
        return of_truth(operator.floordiv, left, right)

    def __mod__(left, right):
        return of_truth(operator.mod, left, right)

    def __pow__(left, right, modulus):
        return pow(truth(left), truth(right), truth(modulus))

    def __divmod__(left, right):
        return of_truth(divmod, left, right)

    def __lshift__(left, right):
        return of_truth(operator.lshift, left, right)

    def __rshift__(left, right):
        return of_truth(operator.rshift, left, right)

    def __invert__(self):
        return ~truth(self) if self.of_array else -1 - int(self)         # ~ of a bool is deprecated

    def __neg__(self):
        return -truth(self)

    def __pos__(self):
        return +truth(self)

    def __abs__(self):
        return abs(truth(self))

    def __trunc__(self):
        return int(self)

    def __floor__(self):
        return int(self)

    def __ceil__(self):
        return int(self)

    def __round__(self, digits=None):
        return round(truth(self), digits)

    def __getattr__(self, name):
        if name.startswith("__array_"):          # NumPy 1.26 would wrap what it computes as this does: in a scalar
            raise AttributeError(name)
        return getattr(truth(self), name)


def of_array(outcome):
    """The outcome of a comparison of elements of arrays, which is NumPy's bool."""
    if type(outcome) is not TracedBool:
        return np.bool_(outcome)
    (<TracedBool>outcome).of_array = True
    return outcome


cdef object truth(x):
    """What the plain call has in the place of an outcome, which is a decision from now on."""
    if type(x) is not TracedBool:
        return x
    return np.bool_(bool(x)) if (<TracedBool>x).of_array else bool(x)


cdef object of_truth(operation, left, right):
    return operation(truth(left), truth(right))


cdef int LOOKED_AT = 1000                        # nodes


cdef bint is_plain(int node, set whole) except -1:
    """Whether the plain call has a float in the place of a Tensor, which was computed from whole numbers of the row and
    constants alone.  What operations of arrays give is a Tensor there too, but for the place of the best element."""
    cdef int i, left = LOOKED_AT
    cdef bint plain = True
    cdef ArrayOp *q
    start_look()
    try:
        mark_once(node)
        i = previous(<int>tape.n)
        while i > 0 and plain and left > 0:
            tape.at = i                          # what is still marked is cleared from here on
            tape.mark[i] = 0
            if is_leaf(i):
                plain = i in whole
            elif tape.record[i].op == ARRAY_OP:
                q = tape.array_ops[tape.record[i].a]
                plain = q.op == A_BEST and q.code > BEST_MIN
            elif tape.record[i].op != CONST:
                mark_once(tape.record[i].a)
                if row(tape.record[i].op).arity == 2:
                    mark_once(tape.record[i].b)
            left -= 1
            i = previous(i)
    finally:
        end_sweep()
    return plain and i == 0


def as_whole(function, plain, x):
    """Python's floor, ceil or trunc, which gives an int, as `math` has it: function(x) of a Tensor.

    Of one that is a float in the plain call there is an int then: no zero has a sign, and what is computed of whole
    numbers is one."""
    cdef Recorder recording = recording_here()
    cdef Tensor found
    if recording is None or type(x) is not Tensor or not is_plain((<Tensor>x).index, recording.whole_numbers()):
        return function(x)
    if not isfinite(tape.value[(<Tensor>x).index]):
        return plain(x)                          # raises
    found = function(x) + 0.0
    return TracedInt(int(tape.value[found.index]), found, -1)


cdef int out_of_range(TracedInt k, Py_ssize_t low, Py_ssize_t high) except -1:
    """The error may be caught: the program then holds only for rows that are out of range too."""
    cdef Recorder recording = recording_here()
    if recording is not None:
        recording.decided(Py_LT if k.value < low else Py_GE, k.tensor, None, low if k.value < low else high, True)
    return 0
