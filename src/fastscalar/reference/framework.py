"""The article's framework, corrected: a Tensor of one number, its graph, layers, a loss, the step down the gradient.

The file to read first; the others put more operations into the same Tensor.  Corrected: backward goes in creation order
without recursion, not depth first; each output has weights of its own; an MLP applies its relu; the loss compares
lengths; and the local step is found by the operation's name: a closure in each node would make each one a cycle.

>>> a, b = Tensor(2), Tensor(3); x = a * b; z = x + x; z.backward()
>>> a.grad, b.grad, x.grad, z.grad
(6.0, 4.0, 2.0, 1.0)
"""

from fastscalar.reference.layers import Layer, check_width, generator, initial_weights
from fastscalar.reference.numbers import Number, check_unchanged, clock, each, flat, is_number, pairs, real

_recording = True  # False inside no_grad
_DERIVATIVES = {  # of the operands' values and the node's own value, one for each operand
    "+": lambda a, b, v: (1.0, 1.0),
    "-": lambda a, b, v: (1.0, -1.0),
    "*": lambda a, b, v: (b, a),
    "relu": lambda a, v: (0.0 if a <= 0.0 else 1.0,),
}


class Tensor(Number):
    """One number that remembers how it was made: `data`, `grad`, `_parents` and `_op`."""

    __slots__ = ("__dict__", "__weakref__", "_id", "_op", "_parents", "grad", "label")

    def __init__(self, data, _parents=(), _op="", *, label=""):
        self._data, self.grad, self.label = real(data), 0.0, label
        self._parents, self._op = (tuple(_parents), _op) if _recording else ((), "")
        self._id = next(clock)  # what is computed from it comes later: creation order is a topological order

    def relu(self):
        return Tensor(0.0 if self._data <= 0.0 else self._data, (self,), "relu")

    def _backward(self):
        """The local step: 0.0 and gradient times derivative go to each parent, if neither of these two is zero."""
        if self._parents and self._op in _DERIVATIVES:
            if self._id < Number._written:
                check_unchanged(self)
            for parent in self._parents:
                parent.grad += 0.0
            if self.grad:
                partials = _DERIVATIVES[self._op](*[p._data for p in self._parents], self._data)
                for parent, partial in zip(self._parents, partials, strict=True):
                    if partial and not (self._op == "**" and parent._op == "const" and parent is self._parents[1]):
                        parent.grad += self.grad * partial

    def backward(self, accumulate=False):
        """Leave d self / d node in `.grad` of every node behind self; `accumulate`: add to those of the leaves."""
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


def operator(op, value):
    """The two methods of a binary operator: `a op b`, and `b op a` when only the right side is a Tensor."""

    def forward(self, other):
        if not isinstance(other, Tensor):
            if not is_number(other):
                return NotImplemented
            other = Tensor(other, (), "const")
        return Tensor(value(self._data, other._data), (self, other), op)

    def reflected(self, other):
        return forward(Tensor(other, (), "const"), self) if is_number(other) else NotImplemented

    return forward, reflected


Tensor.__add__, Tensor.__radd__ = operator("+", lambda a, b: a + b)
Tensor.__sub__, Tensor.__rsub__ = operator("-", lambda a, b: a - b)
Tensor.__mul__, Tensor.__rmul__ = operator("*", lambda a, b: a * b)


def to_tensor(numbers):
    """Nested lists of numbers, or an array, as nested lists of Tensors."""
    return each(lambda x: x if isinstance(x, Tensor) else Tensor(x), numbers)


def relu(x):
    """relu of a Tensor, or of each one in nested lists."""
    return each(lambda e: e.relu(), x)


class Linear(Layer):
    """y[i] = b[i] + x[0] w[0][i] + x[1] w[1][i] + ..., added in this order."""

    def __init__(self, in_features, out_features, *, init="he", seed=None):
        self.in_features, self.out_features = in_features, out_features
        self.w, self.b = map(to_tensor, initial_weights(in_features, out_features, init, generator(seed)))

    def forward(self, x):
        if len(x) and hasattr(x[0], "__len__"):
            return [self.forward(row) for row in x]
        check_width(self, x)
        y = []
        for i in range(self.out_features):
            s = 0.0 + self.b[i]
            for j in range(self.in_features):
                s = s + x[j] * self.w[j][i]
            y.append(s)
        return y

    def parameters(self):
        return [self.w, self.b]


class MLP(Layer):
    """Linear layers of the given sizes with relu between them."""

    def __init__(self, in_features, sizes, *, init="he", seed=None):
        widths, rng = [in_features, *sizes], generator(seed)
        self.linears = [Linear(m, n, init=init, seed=rng) for m, n in zip(widths, widths[1:], strict=False)]
        self.num_linears = len(self.linears)

    def forward(self, x):
        for linear in self.linears[:-1]:
            x = relu(linear(x))
        return self.linears[-1](x)

    def parameters(self):
        return [p for linear in self.linears for p in linear.parameters()]


def squared_loss(y_hat, y):
    """Half the sum of (y_hat[i] - y[i])**2."""
    total = 0.0
    for p, t in pairs(y_hat, y, "squared_loss"):
        difference = p - t
        total = total + difference * difference
    return 0.5 * total


def sgd(parameters, lr):
    """One step down the gradient for every Tensor in nested lists, and its gradient reset."""
    for p in flat(parameters, "sgd"):
        p.data -= lr * p.grad
        p.grad = 0.0
