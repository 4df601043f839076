"""What a Tensor is before it has parents: a float that converts, compares, and knows when it was written to.

Also what the rest of the twin asks about numbers and lists of them.  This module imports nothing of the package.
"""

import math
from itertools import count

clock = count(1)  # each node takes a time, and so does each change of a value

# What counts as a number beside int and float, by name, because nothing of NumPy is imported.
_NUMBERS = {("numbers", "Real"), ("numpy", "integer"), ("numpy", "floating"), ("numpy", "bool"), ("numpy", "bool_")}


def is_number(x):
    return isinstance(x, (int, float)) or any((c.__module__, c.__name__) in _NUMBERS for c in type(x).__mro__)


def real(x):
    """As a float; TypeError for what has none."""
    if not hasattr(type(x), "__float__"):
        raise TypeError(f"Tensor(data): expected a real number, got {type(x).__name__}")
    return float(x)


class Number:
    """The value of a Tensor, and what Python's numbers do beside arithmetic."""

    __slots__ = ("_data",)
    _written = 0  # of the class: when the `.data` of any was last changed; what is younger has read every new value
    _written_at = 0  # of one: when its own was; 0: never

    @property
    def data(self):
        """The value; the twin's own code reads `_data`, which costs less."""
        return self._data

    @data.setter
    def data(self, value):
        value = float(value)
        if not _same(value, self._data):
            Number._written = self._written_at = next(clock)
            self._data = value

    def __repr__(self):
        return f"{type(self).__name__}(data={self.data!r})"

    def item(self):
        return self._data

    def conjugate(self):
        return self

    def __float__(self):
        return self._data

    def __bool__(self):
        return self._data != 0.0

    def __int__(self):
        return int(self._data)

    def __round__(self, digits=None):
        return round(self._data, digits)

    def __floor__(self):
        return math.floor(self._data)

    def __ceil__(self):
        return math.ceil(self._data)

    def __trunc__(self):
        return math.trunc(self._data)

    def __format__(self, spec):
        return format(self._data, spec) if spec else repr(self)

    def __pos__(self):
        return self

    __hash__ = object.__hash__  # by identity, so that nodes go into sets and dictionaries

    def __eq__(self, other):  # as exact as Python's floats: what is compared is not rounded
        return self._data == _exact(other) if _is_comparable(other) else NotImplemented

    def __lt__(self, other):
        return self._data < _exact(other) if _is_comparable(other, order=True) else NotImplemented

    def __le__(self, other):
        return self._data <= _exact(other) if _is_comparable(other, order=True) else NotImplemented

    def __gt__(self, other):
        return self._data > _exact(other) if _is_comparable(other, order=True) else NotImplemented

    def __ge__(self, other):
        return self._data >= _exact(other) if _is_comparable(other, order=True) else NotImplemented


def _same(a, b):
    """Whether two floats have the same bits, or both are NaN."""
    return (a == b and math.copysign(1.0, a) == math.copysign(1.0, b)) or (a != a and b != b)


def _is_comparable(x, order=False):
    if isinstance(x, complex):
        return not order
    return isinstance(x, Number) or is_number(x) or (type(x).__module__, type(x).__name__) == ("decimal", "Decimal")


def _exact(x):
    """What Python compares a float with; NumPy would round the float to its own type."""
    if isinstance(x, Number):
        return x._data
    if type(x).__module__ == "numpy":
        return int(x) if hasattr(x, "__index__") else float(x)
    return x


# --- values that were written to ---

_READS = {  # what the derivative by each operand reads of the operands a, b and the result v; others: all operands
    "+": ("", ""), "-": ("", ""), "*": ("b", "a"), "/": ("b", "bv"), "**": ("ab", "abv"), "neg": ("",),
    "%": ("", "abv"), "//": ("", ""), "send": ("b", "a"), "fmod": ("", "abv"), "copysign": ("ab", ""),
    "hypot": ("av", "bv"), "leaky_relu": ("ab", "a"), "elu": ("ab", "a"), "polygamma": ("ab", ""),
    "remainder": ("", "abv"), "gamma": ("av",),
    **dict.fromkeys(["exp", "exp2", "expm1", "sqrt", "cbrt", "tan", "tanh"], ("v",)),
    **dict.fromkeys(["sign", "floor", "ceil", "trunc", "rint", "degrees", "radians"], ("",)),
}  # fmt: skip


def check_unchanged(node):
    """RuntimeError if a derivative of this node would read a value that was written after the node was made."""
    reads = _READS.get(node._op, ("a",) if len(node._parents) == 1 else ("ab", "ab"))
    names = {"a": node._parents[0], "b": node._parents[-1], "v": node}
    for parent, letters in zip(node._parents, reads, strict=True):
        for letter in letters if parent._op != "const" else "":
            if names[letter]._written_at > node._id:
                whose = "its result" if letter == "v" else "an operand"
                raise RuntimeError(
                    f"backward of {node._op}: .data of {whose} was written after the operation was computed; call "
                    "backward() before writing, or compute the operation again"
                )


# --- nested lists ---


def each(function, x):
    """The function of x, or of each entry of nested lists or of an array."""
    x = x.tolist() if hasattr(x, "tolist") else x
    return [each(function, e) for e in x] if isinstance(x, (list, tuple)) else function(x)


def flat(x, what, _inside=()):
    """What nested lists hold, in order; ValueError for one that contains itself."""
    if not isinstance(x, (list, tuple)):
        yield x
        return
    if id(x) in _inside:
        raise ValueError(f"{what}: a list that contains itself")
    for e in x:
        yield from flat(e, what, (*_inside, id(x)))


def pairs(y_hat, y, what):
    """Predictions and targets side by side; ValueError unless they are equally many."""
    if len(y_hat) != len(y):
        n = len(y)
        meant = f"; if only the first {'is' if n == 1 else 'ones are'} meant: {what}(y_hat[:{n}], y)"
        first = 0 < n < len(y_hat) and not isinstance(y_hat[0], list)
        raise ValueError(f"{what}: {len(y_hat)} predictions but {n} targets{meant if first else ''}")
    return zip(y_hat, y, strict=True)
