"""The twin: the article's framework in pure Python, corrected; the specification of the engine.

`fastscalar.reference` has the names and the numbers of `fastscalar` itself, in code that can be read from top to
bottom.  The engine is tested against it: scalar code agrees bit for bit, values and gradients, and so does the
forward pass of layers.  (Two functions aside: Python has a `lgamma` and a `gamma` of its own, which differ from those
of the C library by some units in the last place.)  It is also the baseline that the benchmarks compare with.

It differs from the article where the article is wrong (creation order instead of a depth-first pre-order, no
recursion, independent weights, an activation that is applied, a loss that checks its lengths), and in one matter of
form: the local step of a node is looked up by the operation's name.  The article stores a closure in every node that
refers to that node, so each one is garbage in a cycle.

>>> a, b = Tensor(2), Tensor(3)
>>> x = a * b
>>> z = x + x
>>> z.backward()
>>> a.grad, b.grad, x.grad, z.grad
(6.0, 4.0, 2.0, 1.0)
"""

import math
import random

_created = 0  # nodes made so far: the creation order is a topological order
_written = 0  # nodes that were there when `.data` was last assigned to: what is younger has read every new value
_recording = True

# Who counts as a number beside int and float, by name, because this module imports nothing of ours or of NumPy.
_NUMBERS = {("numbers", "Real"), ("numpy", "integer"), ("numpy", "floating"), ("numpy", "bool"), ("numpy", "bool_")}


def _is_number(x):
    return isinstance(x, (int, float)) or any((c.__module__, c.__name__) in _NUMBERS for c in type(x).__mro__)


class Tensor:
    """One number that remembers how it was made: `data`, `grad`, `_parents` and `_op`."""

    __slots__ = ("__dict__", "__weakref__", "_data", "_id", "_op", "_parents", "grad", "label")
    _written_at = 0  # nodes that were there when its `.data` was last assigned to; 0: never

    def __init__(self, data, _parents=(), _op="", *, label=""):
        global _created
        _created += 1
        if not hasattr(type(data), "__float__"):
            raise TypeError(f"Tensor(data): expected a real number, got {type(data).__name__}")
        self._data = float(data)
        self.grad = 0.0
        self._parents = tuple(_parents) if _recording else ()
        self._op = _op if _recording else ""
        self._id = _created
        self.label = label

    def __repr__(self):
        return f"Tensor(data={self.data!r})"

    # --- numbers ---

    @property
    def data(self):
        """The value; this module reads `_data`, which costs less."""
        return self._data

    @data.setter
    def data(self, value):
        global _written
        value = float(value)
        if not _same(value, self._data):
            _written = self._written_at = _created
            self._data = value

    def item(self):
        return self._data

    def detach(self):
        return Tensor(self._data)

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

    # --- operations ---

    # + - * / ** % // and the functions of the table at the end of this file are put in below

    def __neg__(self):
        return Tensor(-self._data, (self,), "neg")

    def __pos__(self):
        return self

    def __abs__(self):
        return self.abs()

    def __divmod__(self, other):
        return self // other, self % other

    def __rdivmod__(self, other):
        return other // self, other % self

    # --- backward ---

    @property
    def _prev(self):
        """The same as `_parents`, the name that micrograd has for it."""
        return self._parents

    def _backward(self):
        """The local step of this node: gradient times derivative goes to each parent.

        A gradient that is zero contributes nothing, whatever the derivative: what `where`, `relu`, `maximum` did not
        choose has no influence, and no 0 * inf makes a NaN of it.  An operation of the reader's own,
        `out = Tensor(value, (a, b))`, sets `out._backward` to its step.
        """
        if self._parents and self._op in _DERIVATIVES:
            if self._id <= _written:
                _check_unchanged(self)
            if not self.grad:
                return
            slopes = _DERIVATIVES[self._op](*[p._data for p in self._parents], self._data)
            for parent, slope in zip(self._parents, slopes, strict=True):
                if not (self._op == "**" and parent._op == "const" and parent is self._parents[1]):
                    parent.grad += self.grad * slope

    def backward(self, accumulate=False):
        """Leave d self / d node in `.grad` of every node that self was made of.

        Gradients are reset first and summed in reverse creation order.  With `accumulate=True` those of the leaves
        are added to instead.
        """
        reached, todo = {self}, [self]
        while todo:
            for parent in todo.pop()._parents:
                if parent not in reached:
                    reached.add(parent)
                    todo.append(parent)
        for node in reached:
            if node._parents or not accumulate:
                node.grad = 0.0
        self.grad += 1.0
        for node in sorted(reached, key=lambda node: node._id, reverse=True):
            node._backward()


def _same(a, b):
    """Whether two floats have the same bits, or both are NaN."""
    return (a == b and math.copysign(1.0, a) == math.copysign(1.0, b)) or (a != a and b != b)


def _check_unchanged(node):
    """RuntimeError if a derivative of this node would read a value that was written after the node was made."""
    reads = _READS.get(node._op, ("a",) if len(node._parents) == 1 else ("ab", "ab"))
    names = {"a": node._parents[0], "b": node._parents[-1], "v": node}
    for parent, letters in zip(node._parents, reads, strict=True):
        for letter in letters if parent._op != "const" else "":
            if names[letter]._written_at >= node._id:
                whose = "its result" if letter == "v" else "an operand"
                raise RuntimeError(
                    f"backward of {node._op}: .data of {whose} was written after the operation was computed; call "
                    "backward() before writing, or compute the operation again"
                )


def _is_comparable(x, order=False):
    if isinstance(x, complex):
        return not order
    return isinstance(x, Tensor) or _is_number(x) or (type(x).__module__, type(x).__name__) == ("decimal", "Decimal")


def _exact(x):
    """What Python compares a float with; NumPy would round the float to its own type."""
    if isinstance(x, Tensor):
        return x._data
    if type(x).__module__ == "numpy":
        return int(x) if hasattr(x, "__index__") else float(x)
    return x


def _operator(op, value):
    """The two methods of a binary operator: `a op b`, and `b op a` when only the right side is a Tensor."""

    def forward(self, other):
        if not isinstance(other, Tensor):
            if not _is_number(other):
                return NotImplemented
            other = Tensor(other, (), "const")
        return Tensor(value(self._data, other._data), (self, other), op)

    def reflected(self, other):
        if not _is_number(other):
            return NotImplemented
        other = Tensor(other, (), "const")
        return Tensor(value(other._data, self._data), (other, self), op)

    return forward, reflected


def _dividing(op, divide):
    def checked(a, b):
        if b == 0.0:
            raise ZeroDivisionError(f"{a!r} {op} {b!r}: division by zero")
        return divide(a, b)

    return checked


def _is_complex(a, b):
    """Whether a**b is not a real number.  Python would compute it, or overflow while it does."""
    return a < 0.0 and math.isfinite(a) and math.isfinite(b) and not b.is_integer()


def _power(a, b):
    if _is_complex(a, b):
        raise ValueError(f"{a!r} ** {b!r}: the result is complex (a negative base needs an integer exponent)")
    try:
        return a**b
    except ZeroDivisionError:
        raise ZeroDivisionError(f"{a!r} ** {b!r}: zero to a negative power") from None
    except OverflowError:
        raise OverflowError(f"{a!r} ** {b!r}: the result is too large for a float") from None


Tensor.__add__, Tensor.__radd__ = _operator("+", lambda a, b: a + b)
Tensor.__sub__, Tensor.__rsub__ = _operator("-", lambda a, b: a - b)
Tensor.__mul__, Tensor.__rmul__ = _operator("*", lambda a, b: a * b)
Tensor.__truediv__, Tensor.__rtruediv__ = _operator("/", _dividing("/", lambda a, b: a / b))
Tensor.__mod__, Tensor.__rmod__ = _operator("%", _dividing("%", lambda a, b: a % b))
Tensor.__floordiv__, Tensor.__rfloordiv__ = _operator("//", _dividing("//", lambda a, b: a // b))
Tensor.__pow__, Tensor.__rpow__ = _operator("**", _power)


# --- derivatives: as IEEE 754 has it, nothing raises here (a value may have been changed since the forward pass) ---


def _quotient(a, b):
    if b != 0.0:
        return a / b
    return math.copysign(1.0, b) * a * math.inf  # 0 / 0 and nan / 0 are nan


def _ieee_power(a, b):
    if _is_complex(a, b):
        return math.nan
    try:
        return a**b
    except (ZeroDivisionError, OverflowError):
        odd = b % 2.0 == 1.0
        return math.copysign(math.inf, a) if odd else math.inf


def _power_slopes(a, b, v):
    by_base = 0.0 if b == 0.0 else b * _ieee_power(a, b - 1.0)
    by_exponent = v * math.log(a) if a > 0.0 else 0.0 if a == 0.0 and b >= 0.0 else math.nan
    return by_base, by_exponent


_DERIVATIVES = {  # of the operands' values and the node's own value, one for each operand
    "+": lambda a, b, v: (1.0, 1.0),
    "-": lambda a, b, v: (1.0, -1.0),
    "*": lambda a, b, v: (b, a),
    "/": lambda a, b, v: (_quotient(1.0, b), -_quotient(v, b)),
    "**": _power_slopes,
    "neg": lambda a, v: (-1.0,),
    "%": lambda a, b, v: (1.0, -_whole_quotient(a, b, v)),
    "//": lambda a, b, v: (0.0, 0.0),
}

_READS = {  # what the derivative by each operand reads of the operands a, b and the result v; others: all operands
    "+": ("", ""), "-": ("", ""), "*": ("b", "a"), "/": ("b", "bv"), "**": ("ab", "abv"), "neg": ("",),
    "%": ("", "abv"), "//": ("", ""), "send": ("b", "a"), "fmod": ("", "abv"), "copysign": ("ab", ""),
    "hypot": ("av", "bv"), "leaky_relu": ("ab", "a"), "elu": ("ab", "a"), "polygamma": ("ab", ""),
    "remainder": ("", "abv"), "gamma": ("av",),
    **dict.fromkeys(["exp", "exp2", "expm1", "sqrt", "cbrt", "tan", "tanh"], ("v",)),
    **dict.fromkeys(["sign", "floor", "ceil", "trunc", "degrees", "radians"], ("",)),
}  # fmt: skip


def _floor(a):
    return math.copysign(float(math.floor(a)), a) if math.isfinite(a) else a


def _trunc(a):
    return math.copysign(_floor(abs(a)), a)


def _of_finite(function):
    """As `floor` of a float: OverflowError of an infinity, ValueError of NaN."""

    def checked(a):
        math.floor(a)
        return function(a)

    return checked


def _whole_quotient(a, b, v):
    """The whole n with v = a - n * b; a / b alone would miss it by one beside a multiple of b."""
    return _floor(_quotient(a, b) - _quotient(v, b) + 0.5)


def _quiet(function, a):
    """A function of `math` as IEEE 754 has it."""
    try:
        return function(a)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.nan


# --- functions: name -> value, derivatives ---------------------------------------------------------


def _sigmoid(a):
    e = math.exp(-abs(a))
    return 1.0 / (1.0 + e) if a >= 0.0 else e / (1.0 + e)


def _sigmoid_slope(a):
    e = math.exp(-abs(a))
    return e / ((1.0 + e) * (1.0 + e))


def _ndtr(a):
    return 0.5 * math.erfc(-a * 0.70710678118654752440)


def _normal_density(a):
    return 0.39894228040143267794 * math.exp(-0.5 * a * a)


def _digamma(x):
    """The derivative of lgamma: recurrence up to 10, then the asymptotic series (Abramowitz and Stegun 6.3)."""
    if x <= 0.0 and x == _floor(x):
        raise ValueError(f"digamma({x!r}): outside the function's domain")
    if x < 0.0:
        return _digamma(1.0 - x) - math.pi / math.tan(math.pi * (x - _floor(x + 0.5)))
    r = 0.0
    while x < 10.0:
        r, x = r - 1.0 / x, x + 1.0
    y = 1.0 / (x * x)
    series = 1 / 132 - (y * (691 / 32760 - y / 12))
    for coefficient in (1 / 240, 1 / 252, 1 / 120, 1 / 12):
        series = coefficient - y * series
    return r + math.log(x) - 0.5 / x - y * series


def _finite_digamma(x):
    v = _digamma(x)
    if math.isinf(v) and not math.isinf(x):
        raise OverflowError(f"digamma({x!r}): the result is too large for a float")
    return v


def _trigamma(x):
    if x <= 0.0:
        if x == _floor(x):
            return math.nan if math.isinf(x) else math.inf
        y = math.pi / math.sin(math.pi * (x - _floor(x + 0.5)))
        return y * y - _trigamma(1.0 - x)
    r = 0.0
    while x < 10.0:
        r, x = r + _quotient(1.0, x * x), x + 1.0
    y = 1.0 / (x * x)
    series = 5 / 66 - (y * (691 / 2730 - y * 7 / 6))
    for coefficient in (1 / 30, 1 / 42, 1 / 30, 1 / 6):
        series = coefficient - y * series
    return r + 1.0 / x + 0.5 * y + y / x * series


_EULER_MACLAURIN = 1 / 12, 1 / 720, 1 / 30240, 1 / 1209600, 1 / 47900160, 691 / 1307674368000


def _zeta(x, n):
    """n! (1 / x**(n + 1) + 1 / (x + 1)**(n + 1) + ...) for x > 0."""
    s, total = n + 1.0, 0.0
    while x < 10.0 + 2.0 * n:
        total, x = total + _ieee_power(x, -s), x + 1.0
    y = _quotient(1.0, x * x)
    t = y * (s + 11.0) * (s + 12.0) / 74724249600.0
    for k in range(5, 0, -1):
        t = y * (s + (2 * k - 1)) * (s + 2 * k) * (_EULER_MACLAURIN[k] - t)
    t = s * (1.0 / 12 - t)
    total = total + _ieee_power(x, -n) * (1.0 / n + (0.5 + t / x) / x)
    for k in range(2, int(n) + 1):
        total = total * k
    return total


def _polygamma(a, b):
    """The derivative of order b, a whole number up to 100, of digamma."""
    if a != a or b != b:
        return a + b
    if b == 0.0:
        return _finite_digamma(a)
    if not 0.0 < b <= 100.0 or b != _floor(b) or a == -math.inf:
        raise ValueError(f"polygamma({a!r}, {b!r}): outside the function's domain")
    sign = -1.0 if b % 2.0 == 0.0 else 1.0
    if a > 0.0:
        v = sign * _zeta(a, b)
    elif a == _floor(a):
        raise ValueError(f"polygamma({a!r}, {b!r}): a pole")
    else:
        r = a - _floor(a + 0.5)
        v = _zeta(1.0 - r if r > 0.0 else -r, b) + sign * _zeta(r if r > 0.0 else 1.0 + r, b) - _zeta(1.0 - a, b)
    if math.isinf(v):
        raise OverflowError(f"polygamma({a!r}, {b!r}): the result is too large for a float")
    return v


def _polygamma_slopes(a, b, v):
    try:
        return _polygamma(a, b + 1.0), 0.0
    except OverflowError:
        above = a > 0.0 or a - _floor(a + 0.5) > 0.0  # the pole that it is beside
        return (-math.inf if b % 2.0 == 1.0 and above else math.inf), 0.0
    except ValueError:
        return math.nan, 0.0


def _same_sign(a, b):
    return math.copysign(1.0, a) * math.copysign(1.0, b)


def _atan2_slope(a, b):
    """b / (a * a + b * b) without its overflow."""
    if a == 0.0 and b == 0.0:
        return 0.0
    if abs(a) > abs(b):
        r = b / a
        return r / (1.0 + r * r) / a
    r = _quotient(a, b)
    return _quotient(1.0 / (1.0 + r * r), b)


def _hypot_slopes(a, b, v):
    if math.isinf(v):  # the first operand that is infinite outweighs the other
        first = math.isinf(a)
        by_b = math.copysign(1.0, b) if math.isinf(b) and not first else 0.0
        return (math.copysign(1.0, a) if first else 0.0), by_b
    return (a / v, b / v) if v else (0.0, 0.0)


_LN2, _LN10, _TWO_OVER_SQRT_PI = 0.69314718055994530942, 2.30258509299404568402, 1.12837916709551257390
_UNARY = {
    "relu": (lambda a: 0.0 if a <= 0.0 else a, lambda a, v: 0.0 if a <= 0.0 else 1.0),
    "exp": (math.exp, lambda a, v: v),
    "exp2": (math.exp2, lambda a, v: v * _LN2),
    "expm1": (math.expm1, lambda a, v: v + 1.0),
    "log": (math.log, lambda a, v: _quotient(1.0, a)),
    "log2": (math.log2, lambda a, v: _quotient(1.0, a * _LN2)),
    "log10": (math.log10, lambda a, v: _quotient(1.0, a * _LN10)),
    "log1p": (math.log1p, lambda a, v: _quotient(1.0, 1.0 + a)),
    "sqrt": (math.sqrt, lambda a, v: _quotient(0.5, v)),
    "cbrt": (math.cbrt, lambda a, v: _quotient(1.0, 3.0 * v * v)),
    "sin": (math.sin, lambda a, v: _quiet(math.cos, a)),
    "cos": (math.cos, lambda a, v: -_quiet(math.sin, a)),
    "tan": (math.tan, lambda a, v: 1.0 + v * v),
    "asin": (math.asin, lambda a, v: _quotient(1.0, _quiet(math.sqrt, (1.0 - a) * (1.0 + a)))),
    "acos": (math.acos, lambda a, v: -_quotient(1.0, _quiet(math.sqrt, (1.0 - a) * (1.0 + a)))),
    "atan": (math.atan, lambda a, v: 1.0 / (1.0 + a * a)),
    "sinh": (math.sinh, lambda a, v: _quiet(math.cosh, a)),
    "cosh": (math.cosh, lambda a, v: math.copysign(_quiet(math.sinh, abs(a)), a)),
    "tanh": (math.tanh, lambda a, v: (1.0 - v) * (1.0 + v)),
    "asinh": (math.asinh, lambda a, v: 1.0 / math.sqrt(a * a + 1.0) if abs(a) < 1e150 else 1.0 / abs(a)),
    "acosh": (
        math.acosh,
        lambda a, v: _quotient(1.0, _quiet(math.sqrt, a - 1.0) * _quiet(math.sqrt, a + 1.0)),
    ),
    "atanh": (math.atanh, lambda a, v: _quotient(1.0, (1.0 - a) * (1.0 + a))),
    "erf": (math.erf, lambda a, v: _TWO_OVER_SQRT_PI * math.exp(-a * a)),
    "erfc": (math.erfc, lambda a, v: -(_TWO_OVER_SQRT_PI * math.exp(-a * a))),
    "ndtr": (_ndtr, lambda a, v: _normal_density(a)),
    "lgamma": (math.lgamma, lambda a, v: _quiet(_digamma, a)),
    "gamma": (math.gamma, lambda a, v: v * _quiet(_digamma, a)),
    "digamma": (_finite_digamma, lambda a, v: _trigamma(a)),
    "abs": (abs, lambda a, v: 1.0 if a > 0.0 else -1.0 if a < 0.0 else a * 0.0),
    "sign": (lambda a: 1.0 if a > 0.0 else -1.0 if a < 0.0 else a, lambda a, v: 0.0),
    "floor": (_of_finite(_floor), lambda a, v: 0.0),
    "ceil": (_of_finite(lambda a: -_floor(-a)), lambda a, v: 0.0),
    "trunc": (_of_finite(_trunc), lambda a, v: 0.0),
    "degrees": (math.degrees, lambda a, v: 180.0 / math.pi),
    "radians": (math.radians, lambda a, v: math.pi / 180.0),
    "sigmoid": (_sigmoid, lambda a, v: _sigmoid_slope(a)),
    "softplus": (
        lambda a: (0.0 if a <= 0.0 else a) + math.log1p(math.exp(-abs(a))),
        lambda a, v: _sigmoid(a),
    ),
    "silu": (
        lambda a: -0.0 if a < -1e3 else a * _sigmoid(a),
        lambda a, v: _sigmoid(a) if abs(a) > 1e3 else _sigmoid(a) * (1.0 + a * (1.0 - _sigmoid(a))),
    ),
    "gelu": (
        lambda a: -0.0 if a < -1e3 else a * _ndtr(a),
        lambda a, v: _ndtr(a) + (0.0 if abs(a) > 1e3 else a * _normal_density(a)),
    ),
}
_BINARY = {
    "minimum": (
        lambda a, b: a if a <= b or a != a else b,
        lambda a, b, v: (1.0, 0.0) if a <= b or a != a else (0.0, 1.0),
    ),
    "maximum": (
        lambda a, b: a if a >= b or a != a else b,
        lambda a, b, v: (1.0, 0.0) if a >= b or a != a else (0.0, 1.0),
    ),
    "atan2": (math.atan2, lambda a, b, v: (_atan2_slope(a, b), -_atan2_slope(b, a))),
    "hypot": (math.hypot, _hypot_slopes),
    "copysign": (math.copysign, lambda a, b, v: (_same_sign(a, b), 0.0)),
    "fmod": (math.fmod, lambda a, b, v: (1.0, -_whole_quotient(a, b, v))),
    "remainder": (math.remainder, lambda a, b, v: (1.0, -_whole_quotient(a, b, v))),
    "leaky_relu": (
        lambda a, b: a if a > 0.0 or a != a else b * a,
        lambda a, b, v: (1.0 if a > 0.0 or a != a else b, 0.0 if a > 0.0 else a),
    ),
    "polygamma": (_polygamma, _polygamma_slopes),
    "send": (lambda a, b: 0.0 if a == 0.0 else a * b, lambda a, b, v: (b, a)),
    "elu": (
        lambda a, b: a if a > 0.0 or a != a else b * math.expm1(a),
        lambda a, b, v: (1.0, 0.0) if a > 0.0 else (1.0 if a != a else b * math.exp(a), math.expm1(a)),
    ),
}


def _register(name, value, slopes):
    """A function of the table becomes a method of Tensor."""
    if name in _UNARY:

        def method(self):
            return Tensor(value(self._data), (self,), name)

        _DERIVATIVES[name] = lambda a, v: (slopes(a, v),)
    else:

        def method(self, other):
            if not isinstance(other, Tensor):
                if not _is_number(other):
                    raise TypeError(f"{name}: expected a Tensor or a real number, got {type(other).__name__}")
                other = Tensor(other, (), "const")
            return Tensor(value(self._data, other._data), (self, other), name)

        _DERIVATIVES[name] = slopes
    setattr(Tensor, name, method)


for _name, (_value, _slopes) in (_UNARY | _BINARY).items():
    _register(_name, _value, _slopes)


def _lift(name):
    """A function of Tensors and numbers for a method of Tensor."""

    def function(x, *others):
        if isinstance(x, Tensor) or any(isinstance(y, Tensor) for y in others):
            return getattr(x if isinstance(x, Tensor) else Tensor(x, (), "const"), name)(*others)
        return getattr(Tensor(x), name)(*others).data

    return function


sigmoid, softplus, silu, gelu, sign = map(_lift, ["sigmoid", "softplus", "silu", "gelu", "sign"])
minimum, maximum = map(_lift, ["minimum", "maximum"])


def leaky_relu(x, slope=0.01):
    return _lift("leaky_relu")(x, slope)


def elu(x, alpha=1.0):
    return _lift("elu")(x, alpha)


def clip(x, low, high):
    return minimum(maximum(x, low), high)


def where(condition, a, b):
    chosen = a if condition else b
    return chosen if isinstance(chosen, Tensor) else Tensor(chosen)


# --- of sequences; never the built-in sum(), which compensates rounding since Python 3.12 -----------


def total(xs):
    result = 0.0
    for x in xs:
        result = result + x
    return result


sum = total


def mean(xs):
    return total(xs) / len(xs)


def dot(xs, ys):
    return total([x * y for x, y in zip(xs, ys, strict=True)])


def prod(xs):
    result = 1.0
    for x in xs:
        result = result * x
    return result


def argmax(xs):
    """The place of the largest: the first of equals, the first NaN if there is one."""
    best = 0
    for k, x in enumerate(xs):
        if not (xs[best] >= x or xs[best] != xs[best]):
            best = k
    return best


def argmin(xs):
    best = 0
    for k, x in enumerate(xs):
        if not (xs[best] <= x or xs[best] != xs[best]):
            best = k
    return best


def max(xs):
    return xs[argmax(xs)]


def min(xs):
    return xs[argmin(xs)]


def _powers(xs):
    """exp(x - shift) of each, and the shift, the largest: exp() of anything larger could overflow.

    Where that is infinite, what they tend to: those at +inf have equal powers, all others 0.
    """
    shift = max(xs).data
    if not math.isinf(shift):
        return [(x - shift).exp() for x in xs], shift
    return [Tensor(x.data if x.data != x.data else float(x.data == shift > 0.0), (x,), "exp") for x in xs], shift


def logsumexp(xs):
    powers, shift = _powers(xs)
    whole = total(powers)
    return whole.log() + shift if whole.data != 0.0 else Tensor(shift, xs, "logsumexp")  # all -inf: no derivative


def softmax(xs):
    powers, _ = _powers(xs)
    whole = total(powers)
    return [p / whole for p in powers] if whole.data != 0.0 else powers


def log_softmax(xs):
    whole = logsumexp(xs)
    return [x - whole for x in xs]


def norm(xs):
    """sqrt(x[0]**2 + x[1]**2 + ...); where the squares would be too large or too small, of numbers scaled by 2**600."""
    if len(xs) == 2:
        return xs[0].hypot(xs[1])
    square = dot(xs, xs)
    if 1e-280 < square.data < 1e300:
        return square.sqrt()
    largest = Tensor(0.0)
    for x in xs:
        largest = where(abs(x) > largest, abs(x), largest)
    if largest == math.inf:
        return largest
    scale = 2.0**600 if largest > 2.0**500 else 2.0**-600 if largest < 2.0**-500 else 1.0
    scaled = [x / scale for x in xs]
    square = dot(scaled, scaled)
    return square.sqrt() * scale if square != 0.0 else square * 0.0  # the kink: all derivatives are 0


class no_grad:
    """Operations inside this context are not recorded: their results are leaves."""

    def __enter__(self):
        global _recording
        self._before, _recording = _recording, False

    def __exit__(self, *exc):
        global _recording
        _recording = self._before


# --- layers, losses, the optimiser ---


def to_tensor(numbers):
    """Nested lists of numbers become nested lists of Tensors."""
    if hasattr(numbers, "tolist"):
        numbers = numbers.tolist()
    if isinstance(numbers, (list, tuple)):
        return [to_tensor(x) for x in numbers]
    return numbers if isinstance(numbers, Tensor) else Tensor(numbers)


def initial_weights(in_features, out_features, init, rng):
    """w[j][i] and b[i] as floats: "he" (normal, variance 2 / in_features, zero bias) or "article" (uniform)."""
    if init == "article":
        w = [[rng.random() for _ in range(out_features)] for _ in range(in_features)]
        return w, [rng.random() for _ in range(out_features)]
    if init != "he":
        raise ValueError(f'init: expected "he" or "article", got {init!r}')
    scale = math.sqrt(2.0 / in_features)
    return [[rng.gauss(0.0, scale) for _ in range(out_features)] for _ in range(in_features)], [0.0] * out_features


class Linear:
    """y[i] = b[i] + x[0] w[0][i] + x[1] w[1][i] + ..., added in this order."""

    def __init__(self, in_features, out_features, *, init="he", seed=None):
        rng = seed if isinstance(seed, random.Random) else random.Random(seed)
        self.in_features, self.out_features = in_features, out_features
        self.w, self.b = map(to_tensor, initial_weights(in_features, out_features, init, rng))

    def forward(self, x):
        if len(x) and hasattr(x[0], "__len__"):
            return [self.forward(row) for row in x]
        if len(x) != self.in_features:
            raise ValueError(f"Linear({self.in_features}, {self.out_features}): got {len(x)} inputs")
        y = []
        for i in range(self.out_features):
            s = 0.0 + self.b[i]
            for j in range(self.in_features):
                s = s + x[j] * self.w[j][i]
            y.append(s)
        return y

    __call__ = forward

    def parameters(self):
        return [self.w, self.b]


class MLP:
    """Linear layers of the given sizes with relu between them."""

    def __init__(self, in_features, sizes, *, init="he", seed=None):
        rng = seed if isinstance(seed, random.Random) else random.Random(seed)
        widths = [in_features, *sizes]
        self.linears = [Linear(m, n, init=init, seed=rng) for m, n in zip(widths, widths[1:], strict=False)]

    def forward(self, x):
        for linear in self.linears[:-1]:
            x = relu(linear(x))
        return self.linears[-1](x)

    __call__ = forward

    @property
    def num_linears(self):
        return len(self.linears)

    def parameters(self):
        return [p for linear in self.linears for p in linear.parameters()]


def relu(x):
    """relu of a Tensor, or of each one in nested lists."""
    return [relu(e) for e in x] if isinstance(x, list) else x.relu()


def squared_loss(y_hat, y):
    """Half the sum of (y_hat[i] - y[i])**2; of rows, the mean of that over the rows."""
    total, rows, _ = _squares(y_hat, y, "squared_loss")
    return 0.5 * total / rows if rows else 0.5 * total


def mse_loss(y_hat, y):
    """The mean of (y_hat[i] - y[i])**2, over all outputs and rows."""
    total, _, count = _squares(y_hat, y, "mse_loss")
    if not count:
        raise ValueError("mse_loss: is empty")
    return total / count


def _squares(y_hat, y, what):
    """(the sum of the squared differences, the number of rows or 0, that of all differences)."""
    y_hat, y = ([v] if not hasattr(v, "__len__") else v for v in (y_hat, y))
    if len(y_hat) != len(y):
        n = len(y)
        meant = f"; if only the first {'is' if n == 1 else 'ones are'} meant: {what}(y_hat[:{n}], y)"
        first = 0 < n < len(y_hat) and not isinstance(y_hat[0], list)
        raise ValueError(f"{what}: {len(y_hat)} predictions but {n} targets{meant if first else ''}")
    total, rows, count = 0.0, 0, 0
    for p, t in zip(y_hat, y, strict=True):
        if isinstance(p, list):
            part, _, n = _squares(p, t, what)
            total, rows, count = total + part, rows + 1, count + n
        else:
            difference = p - t
            total, count = total + difference * difference, count + 1
    return total, rows, count


def cross_entropy(logits, label):
    """-log(softmax(logits)[label]); of rows and labels, the mean over the rows."""
    if isinstance(logits[0], list):
        if len(logits) != len(label):
            raise ValueError(f"cross_entropy: {len(logits)} rows of logits but {len(label)} labels")
        return mean([cross_entropy(row, k) for row, k in zip(logits, label, strict=True)])
    k = float(label)
    if k not in range(len(logits)):
        raise ValueError(f"cross_entropy: expected a label in 0..{len(logits) - 1}, got {label!r}")
    return logsumexp(logits) - logits[int(k)]


def sgd(parameters, lr, _inside=()):
    """One step down the gradient for every Tensor in nested lists, and its gradient reset."""
    if isinstance(parameters, (list, tuple)):
        if id(parameters) in _inside:
            raise ValueError("sgd: a list that contains itself")
        for p in parameters:
            sgd(p, lr, (*_inside, id(parameters)))
    else:
        parameters.data -= lr * parameters.grad
        parameters.grad = 0.0
