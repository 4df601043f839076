"""The twin: the article's framework in pure Python, corrected; the specification of the engine.

`fastscalar.reference` has the names and the numbers of `fastscalar` itself, in code that can be read from top to
bottom.  The engine is tested against it: scalar code agrees bit for bit, values and gradients, and so does the
forward pass of layers.  It is also the baseline that the benchmarks compare with.

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
_recording = True

# Who counts as a number beside int and float, by name, because this module imports nothing of ours or of NumPy.
_NUMBERS = {("numbers", "Real"), ("numpy", "integer"), ("numpy", "floating"), ("numpy", "bool"), ("numpy", "bool_")}


def _is_number(x):
    return isinstance(x, (int, float)) or any((c.__module__, c.__name__) in _NUMBERS for c in type(x).__mro__)


class Tensor:
    """One number that remembers how it was made: `data`, `grad`, `_parents` and `_op`."""

    __slots__ = ("__dict__", "__weakref__", "_id", "_op", "_parents", "data", "grad")

    def __init__(self, data, _parents=(), _op=""):
        global _created
        _created += 1
        if not hasattr(type(data), "__float__"):
            raise TypeError(f"Tensor(data): expected a real number, got {type(data).__name__}")
        self.data = float(data)
        self.grad = 0.0
        self._parents = _parents if _recording else ()
        self._op = _op if _recording else ""
        self._id = _created

    def __repr__(self):
        return f"Tensor(data={self.data!r})"

    # --- numbers ---

    __array_ufunc__ = None  # a NumPy scalar leaves the operation to us; an array and a Tensor are a TypeError

    def item(self):
        return self.data

    def detach(self):
        return Tensor(self.data)

    def __float__(self):
        return self.data

    def __bool__(self):
        return self.data != 0.0

    __hash__ = object.__hash__  # by identity, so that nodes go into sets and dictionaries

    def __eq__(self, other):
        return self.data == float(other) if _is_operand(other) else NotImplemented

    def __lt__(self, other):
        return self.data < float(other) if _is_operand(other) else NotImplemented

    def __le__(self, other):
        return self.data <= float(other) if _is_operand(other) else NotImplemented

    def __gt__(self, other):
        return self.data > float(other) if _is_operand(other) else NotImplemented

    def __ge__(self, other):
        return self.data >= float(other) if _is_operand(other) else NotImplemented

    # --- operations ---

    def relu(self):
        return Tensor(0.0 if self.data <= 0.0 else self.data, (self,), "relu")

    def exp(self):
        return Tensor(math.exp(self.data), (self,), "exp")

    def log(self):
        return Tensor(math.log(self.data), (self,), "log")

    def __neg__(self):
        return Tensor(-self.data, (self,), "neg")

    # --- backward ---

    def _backward(self):
        """The local step of this node: gradient times derivative goes to each parent."""
        if self._parents:
            slopes = _DERIVATIVES[self._op](*[p.data for p in self._parents], self.data)
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


def _is_operand(x):
    return isinstance(x, Tensor) or _is_number(x)


def _operator(op, value):
    """The two methods of a binary operator: `a op b`, and `b op a` when only the right side is a Tensor."""

    def forward(self, other):
        if not isinstance(other, Tensor):
            if not _is_number(other):
                return NotImplemented
            other = Tensor(other, (), "const")
        return Tensor(value(self.data, other.data), (self, other), op)

    def reflected(self, other):
        if not _is_number(other):
            return NotImplemented
        other = Tensor(other, (), "const")
        return Tensor(value(other.data, self.data), (other, self), op)

    return forward, reflected


def _divide(a, b):
    if b == 0.0:
        raise ZeroDivisionError(f"{a!r} / {b!r}: division by zero")
    return a / b


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
Tensor.__truediv__, Tensor.__rtruediv__ = _operator("/", _divide)
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
    "relu": lambda a, v: (0.0 if a <= 0.0 else 1.0,),
    "exp": lambda a, v: (v,),
    "log": lambda a, v: (_quotient(1.0, a),),
}


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
            total = 0.0 + self.b[i]
            for j in range(self.in_features):
                total = total + x[j] * self.w[j][i]
            y.append(total)
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

    def parameters(self):
        return [linear.parameters() for linear in self.linears]


def relu(x):
    """relu of a Tensor, or of each one in nested lists."""
    return [relu(e) for e in x] if isinstance(x, list) else x.relu()


def squared_loss(y_hat, y):
    """The sum of (y_hat[i] - y[i])**2; of rows, the mean of that over the rows."""
    if isinstance(y_hat, Tensor):
        y_hat, y = [y_hat], [y]
    if len(y_hat) != len(y):
        raise ValueError(f"squared_loss: {len(y_hat)} predictions but {len(y)} targets")
    total = 0.0
    for p, t in zip(y_hat, y, strict=True):
        if isinstance(p, list):
            total = total + squared_loss(p, t)
        else:
            difference = p - t
            total = total + difference * difference
    return total / len(y_hat) if isinstance(y_hat[0], list) else total


def cross_entropy(logits, label):
    """-log(softmax(logits)[label]); of rows and labels, the mean over the rows."""
    if isinstance(logits[0], list):
        if len(logits) != len(label):
            raise ValueError(f"cross_entropy: {len(logits)} rows of logits but {len(label)} labels")
        total = 0.0
        for row, k in zip(logits, label, strict=True):
            total = total + cross_entropy(row, k)
        return total / len(logits)
    k = float(label)
    if k not in range(len(logits)):
        raise ValueError(f"cross_entropy: expected a label in 0..{len(logits) - 1}, got {label!r}")
    shift = max(z.data for z in logits)  # exp() of anything larger could overflow
    total = 0.0
    for z in logits:
        total = total + (z - shift).exp()
    return total.log() + shift - logits[int(k)]


def sgd(parameters, lr):
    """One step down the gradient for every Tensor in nested lists, and its gradient reset."""
    if isinstance(parameters, (list, tuple)):
        for p in parameters:
            sgd(p, lr)
    else:
        parameters.data -= lr * parameters.grad
        parameters.grad = 0.0
