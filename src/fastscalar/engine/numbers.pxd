# cython: language_level=3, wraparound=False, cdivision=True
# Numbers beside Tensors: what an operation and a comparison take for one, and what is none.

from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check
from cpython.long cimport PyLong_AsDouble, PyLong_AsLongLongAndOverflow, PyLong_Check
from cpython.object cimport Py_EQ, Py_GT, Py_LE, Py_LT, Py_NE
from libc.math cimport INFINITY, isnan

from fastscalar._core cimport (ARRAY, COMPLEX, FLOATING, INTEGER, LONG_DOUBLE, NUMBER, OPERATORS, REAL, TracedNumber,
                               apply_binary, numpy_of, op_name)

cdef enum:
    NO_NUMBER = 2                # of nearest_double


cdef inline int as_number(object x, double *v) except -1:
    """1 and the value if x is a real number (int, float, bool, Fraction, NumPy's scalars ...) or an array of no
    dimensions that holds one, else 0.

    What stands for a whole number of the row says that it is an int, and is none here."""
    if PyFloat_Check(x):
        v[0] = PyFloat_AS_DOUBLE(x)
        return 1
    if PyLong_Check(x):
        v[0] = PyLong_AsDouble(x)                # OverflowError beyond 1.8e308
        return 1
    if isinstance(x, TracedNumber):              # whose attributes are those of the number, which they read
        return 0
    if isinstance(x, REAL):
        v[0] = float(x)
        return 1
    if hasattr(type(x), "__array__") and getattr(x, "ndim", 1) == 0:
        x = numpy_of(x)
        if x.dtype.kind in "fiub":
            v[0] = float(x)
            return 1
    return 0


cdef inline bint compare_numbers(int op, double x, double y) noexcept nogil:
    """The outcome of a comparison, by Python's number of it."""
    if op == Py_LT:
        return x < y
    if op == Py_LE:
        return x <= y
    if op == Py_EQ:
        return x == y
    if op == Py_NE:
        return x != y
    return x > y if op == Py_GT else x >= y


cdef inline int nearest_double(object x, int op, double *y) except? -2:
    """The double nearest to a number that something is compared with, and on which side of the number it is: 1 above,
    -1 below, 0 it is the number.  NO_NUMBER if `x` is none (or complex and asked for its order).  So comparisons are
    as exact as those of Python's floats: 10**400, 2**53 + 1, Fraction(1, 10) are not rounded."""
    cdef int overflow = 0
    cdef long long whole
    if not PyLong_Check(x) and isinstance(x, INTEGER):
        x = int(x)
    if PyLong_Check(x):
        whole = PyLong_AsLongLongAndOverflow(x, &overflow)
        if not overflow and -(1LL << 53) <= whole <= (1LL << 53):
            y[0] = <double>whole
            return 0
    elif isinstance(x, COMPLEX) and not isinstance(x, REAL):
        if op != Py_EQ and op != Py_NE:
            return NO_NUMBER
        if x.imag != 0.0:
            return 1
        x = x.real
    elif isinstance(x, TracedNumber) or not isinstance(x, NUMBER):
        return NO_NUMBER
    try:
        y[0] = float(x)
    except OverflowError:
        y[0] = INFINITY if x > 0 else -INFINITY
    if isnan(y[0]) or (isinstance(x, FLOATING) and not isinstance(x, LONG_DOUBLE)):
        return 0
    nearest = y[0]
    try:
        return 1 if nearest > x else -1 if nearest < x else 0
    except TypeError:                            # a class that is registered as a number and is only its float
        return 0


cdef inline object own_array(object x):
    """An array of a library whose operators know nothing of Tensors (PyTorch, Arrow) as one of NumPy, of no dimensions
    as a number; everything else as it is, and so what has NumPy's operators (of pandas, xarray)."""
    found = x if hasattr(type(x), "__array_ufunc__") else numpy_of(x)
    if found is x or found.ndim:
        return found
    found = found.item()
    return x if type(found) is type(x) else found    # of extended precision NumPy's numbers stay what they are


cdef inline object not_a_number(int code, object left, object right):
    """NotImplemented: Python makes its TypeError of it, and an ndarray of numbers an array of Tensors; the arrays of
    other libraries are made NumPy's first.

    Of other ndarrays NumPy would speak of concatenation, or of ufuncs.
    """
    x, y = own_array(left), own_array(right)
    if x is not left or y is not right:
        return OPERATORS[code](x, y) if code in OPERATORS else apply_binary(code, x, y)
    for x in (left, right):
        if isinstance(x, ARRAY) and x.dtype.kind not in "fiubO":
            raise TypeError(f"unsupported operand type(s) for {op_name(code)}: '{type(left).__name__}' and "
                            f"'{type(right).__name__}' of {x.dtype}")
    return NotImplemented
