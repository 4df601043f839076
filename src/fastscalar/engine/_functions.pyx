# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False
"""The rows of the operation table: to be read, and as functions and methods of Tensor."""

from cpython.object cimport PyObject

from fastscalar._core cimport *

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        PyObject *tp_dict
    void PyType_Modified(PyTypeObject *)


def operations():
    """The operation table: (code, name, arity, is a method) of each row."""
    return [(code, op_name(code), row(code).arity, row(code).kind != OPERATOR) for code in range(<int>ADD, n_codes)]


def operation(int code):
    """A row of the operation table as a dictionary; `engine/operations.pxd` says what is in it."""
    cdef Row *r = row(code)
    return {
        "code": code,
        "name": op_name(code),
        "kind": ("operator", "method", "of math", "function")[r.kind],
        "arity": r.arity,
        "domain": r.domain.decode(),
        "never_raises": bool(r.never_raises),
        "rules": (r.rule_a.decode(), r.rule_b.decode()) if r.arity == 2 else (r.rule_a.decode(),),
        "doc": r.doc.decode(),
    }


cdef inline bint is_operand(object x):
    """Whether it is a number of the row, and what is computed of it may be a Tensor."""
    cdef Recorder recording
    if not isinstance(x, TracedNumber):
        return False
    recording = recording_here()
    return recording is None or not recording.plain_floats


def function_of(int code, otherwise):
    """A function for one row of the operation table; operands that are not Tensors and numbers go to `otherwise`."""
    if row(code).arity == 2:
        def function(x, y, /):
            if type(x) is Tensor or type(y) is Tensor or (programs and (is_operand(x) or is_operand(y))):
                value = apply_binary(code, x, y)
                if value is not NotImplemented:
                    return value
            return otherwise(x, y)
    else:
        def function(x, /):
            if type(x) is Tensor:
                return unary(code, <Tensor>x)
            if programs and is_operand(x) and code not in (FLOOR, CEIL, TRUNC):      # these are x itself
                return unary(code, (<TracedNumber>x).tensor)
            return otherwise(x)
    function.__name__ = function.__qualname__ = op_name(code)
    function.__doc__ = row(code).doc.decode()
    return function


def method_of(int code):
    """A method of Tensor for one row of the operation table."""
    if row(code).arity == 2:
        def method(Tensor self not None, other):
            value = apply_binary(code, self, other)
            if value is NotImplemented:
                raise TypeError(f"{op_name(code)}: expected a Tensor or a real number, got {type(other).__name__}")
            return value
    else:
        def method(Tensor self not None):
            return unary(code, self)
    method.__name__ = op_name(code)
    method.__qualname__ = f"Tensor.{method.__name__}"
    method.__doc__ = row(code).doc.decode()
    return method


def add_methods(dict methods):
    """From now on Tensors have these methods too."""
    (<dict>(<PyTypeObject *>Tensor).tp_dict).update(methods)
    PyType_Modified(<PyTypeObject *>Tensor)


cdef int install_methods() except -1:
    """The functions of the operation table become methods."""
    for code, name, _arity, is_method in operations():
        if is_method:
            (<dict>(<PyTypeObject *>Tensor).tp_dict)[name] = method_of(code)
    for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh"):   # as NumPy's object loops call them
        (<dict>(<PyTypeObject *>Tensor).tp_dict)["arc" + name] = getattr(Tensor, "a" + name)
    (<dict>(<PyTypeObject *>Tensor).tp_dict)["arctan2"] = getattr(Tensor, "atan2")
    PyType_Modified(<PyTypeObject *>Tensor)
    return 0


install_methods()
