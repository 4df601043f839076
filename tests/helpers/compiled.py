"""What the tests of `fs.compile` share: the eager side of every comparison, the tolerance, programs in scalar code.

The eager side hands a function exactly what a compiled one is promised: a TensorArray of leaves for a row of floats, a
Tensor for a float, an int for an integer; then backward() and the leaves' gradients, one row after the other.
"""

import contextlib
import math
import warnings

import numpy as np

import fastscalar as fs

# --- the eager side ---------------------------------------------------------------------------------------------------


def shared(argument):
    """Whether an argument is one number for all rows."""
    return np.ndim(argument) == 0


def is_integer(argument):
    return np.asarray(argument).dtype.kind in "iub"


def row_count(arguments):
    return next(len(a) for a in arguments if not shared(a))


def leaf(value, m=fs):
    """What the function gets for one row of an argument."""
    value = np.asarray(value)
    if value.dtype.kind in "iub":
        return value.astype(int).tolist()
    return m.to_tensor(value.tolist())


def leaves(arguments, i, m=fs):
    return [leaf(a if shared(a) else np.asarray(a)[i], m) for a in arguments]


def number(result):
    """The value of what a function returned: a Tensor or a number."""
    return float(result.data if hasattr(result, "data") else result)


def gradients_of(x):
    """The gradients of a Tensor, a TensorArray or nested lists of Tensors, as an array."""
    if isinstance(x, (list, tuple)):
        return np.array([gradients_of(e) for e in x], dtype=float)
    return np.array(x.grad, dtype=float)


def values_of(x):
    if isinstance(x, (list, tuple)):
        return np.array([values_of(e) for e in x], dtype=float)
    return np.array(x.data, dtype=float)


def set_gradients(x, values):
    if isinstance(x, (list, tuple)):
        for e, v in zip(x, np.broadcast_to(values, (len(x), *np.shape(values)[1:])), strict=True):
            set_gradients(e, v)
    else:
        x.grad = values if isinstance(x, fs.TensorArray) else float(values)


def clear(xs):
    for x in xs:
        set_gradients(x, 0.0)


def eager_values(f, *arguments, m=fs):
    return np.array([number(f(*leaves(arguments, i, m))) for i in range(row_count(arguments))])


def eager_gradients(f, arguments, argnum, m=fs):
    """The gradient by one argument: of every row, or the sum over the rows if all of them share the argument."""
    rows = []
    for i in range(row_count(arguments)):
        given = leaves(arguments, i, m)
        result = f(*given)
        if hasattr(result, "backward"):
            result.backward()
        rows.append(gradients_of(given[argnum]))
    return np.sum(rows, axis=0) if shared(arguments[argnum]) else np.array(rows)


def eager_backward(f, parameters, arguments, m=fs):
    """For every parameter the sum over the rows of its gradient, and of the absolute value of its gradient."""
    sums = [np.zeros_like(values_of(p)) for p in parameters]
    absolute = [np.zeros_like(values_of(p)) for p in parameters]
    for i in range(row_count(arguments)):
        clear(parameters)  # backward() resets only what it reaches
        result = f(*leaves(arguments, i, m))
        if hasattr(result, "backward"):
            result.backward()
        for p, s, a in zip(parameters, sums, absolute, strict=True):
            g = gradients_of(p)
            s += g
            a += abs(g)
    clear(parameters)
    return sums, absolute


# --- comparing --------------------------------------------------------------------------------------------------------


def close(found, expected, tolerance=1e-12, scale=None, what=""):
    """Equal to `tolerance` of the terms that were added up.

    Without a scale the largest expected number stands for the terms: those behind an element that came out small by
    cancellation are about as large as its neighbours.
    """
    found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    assert found.shape == expected.shape, (what, found.shape, expected.shape)
    assert np.isfinite(expected).all(), f"{what}: the eager side is not finite, nothing would be compared"
    largest = np.max(np.abs(expected if scale is None else scale), initial=0.0)
    bound = tolerance * (largest + np.abs(expected)) + 1e-300
    wrong = ~(np.abs(found - expected) <= bound)  # written so that NaN is wrong
    assert not wrong.any(), (
        f"{what}: {wrong.sum()} of {wrong.size} differ; first: {found[wrong][0]!r}, expected {expected[wrong][0]!r}, "
        f"bound {np.broadcast_to(bound, wrong.shape)[wrong][0]:.3g}"
    )


def counted(f):
    """The function, and the list of what it was called with: as long as the number of its calls."""
    calls = []

    def g(*arguments):
        calls.append(arguments)
        return f(*arguments)

    return g, calls


def bits(x):
    return np.asarray(x, dtype=float).tobytes()


@contextlib.contextmanager
def compiled_only():
    """Nothing in this block may fall back to the eager loop: its warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", fs.CompileWarning)
        yield


def check(f, parameters, *arguments, tolerance=1e-12):
    """Values, gradients of parameters and of arguments of the compiled function are those of the eager one.

    Returns the compiled function.
    """
    n = row_count(arguments)
    expected = eager_values(f, *arguments)
    scale = max(1.0, np.abs(expected).max())  # a loss near zero is the difference of terms about one
    floats = tuple(k for k, a in enumerate(arguments) if not is_integer(a))
    by_arguments = [eager_gradients(f, arguments, k) for k in floats]
    by_parameters, absolute = eager_backward(f, parameters, arguments)
    assert np.ptp(expected) > 0 or n == 1, "all rows have the same value: a poor test"
    assert any(np.any(g) for g in (*by_arguments, *by_parameters)), "no gradient at all: a poor test"

    with compiled_only():
        p = fs.compile(f)
        for i in (0, n - 1, 0):  # recorded, rewritten, replayed
            one = p(*[a if shared(a) else a[i] for a in arguments])
            assert type(one) is float
            close(one, expected[i], tolerance, scale, "one row")
        values = p.map(*arguments)
        assert type(values) is np.ndarray
        assert values.dtype == np.float64
        close(values, expected, tolerance, scale, "map")
        assert bits(p.map(*arguments)) == bits(values), "a second replay gives other bits"
        check_arguments(p, arguments, floats, expected, by_arguments, tolerance, scale)
        if parameters:
            check_parameters(p, parameters, arguments, expected, by_parameters, absolute, tolerance, scale)
    return p


def check_arguments(p, arguments, floats, expected, gradients, tolerance, scale):
    if not floats:
        return
    values, found = p.value_and_grad(*arguments, argnums=floats)
    close(values, expected, tolerance, scale, "value_and_grad")
    assert isinstance(found, tuple)
    for k, g, e in zip(floats, found, gradients, strict=True):
        close(g, e, tolerance, what=f"gradient by argument {k}")
    _, alone = p.value_and_grad(*arguments, argnums=floats[0])
    close(alone, gradients[0], tolerance, what="gradient by one argument")


def check_parameters(p, parameters, arguments, expected, sums, absolute, tolerance, scale):
    for q, a in zip(parameters, absolute, strict=True):  # what is there before is reset, wherever a gradient goes
        set_gradients(q, np.where(a > 0, 7.0, 0.0))
    for times in (1, 2):
        values = p.backward(*arguments, accumulate=times == 2)
        close(values, expected, tolerance, scale, "backward")
        for k, (q, s, a) in enumerate(zip(parameters, sums, absolute, strict=True)):
            close(gradients_of(q), times * s, tolerance, times * a, f"gradient of parameter {k}")
    clear(parameters)


# --- the same net, written in six ways --------------------------------------------------------------------------------
# `w[j][i]` goes from input j to output i.  Each way takes a layer (w, b) and returns a list of Tensors.


def row_by_row(m, x, w, b):
    out = []
    for i in range(len(b)):
        s = b[i]
        for j in range(len(x)):
            s = s + x[j] * w[j][i]
        out.append(s.relu())
    return out


def column_by_column(m, x, w, b):
    out = [b[i] for i in range(len(b))]
    for j in range(len(x)):
        for i in range(len(b)):
            out[i] = out[i] + w[j][i] * x[j]
    return [m.maximum(s, 0.0) for s in out]


def sum_of_a_generator(m, x, w, b):
    return [(sum(x[j] * w[j][i] for j in range(len(x))) + b[i]).relu() for i in range(len(b))]


def in_place(m, x, w, b):
    out = [0.0] * len(b)
    for i in range(len(b)):
        for j in range(len(x)):
            out[i] += x[j] * w[j][i]
        out[i] += b[i]
    return [s.relu() for s in out]


def bias_in_the_middle(m, x, w, b):
    half = len(x) // 2
    out = []
    for i in range(len(b)):
        s = x[0] * w[0][i]
        for j in range(1, half):
            s = s + x[j] * w[j][i]
        s = b[i] + s
        for j in range(half, len(x)):
            s = x[j] * w[j][i] + s
        out.append(s.relu())
    return out


def lists_of_tensors(m, x, w, b):
    """The layer is made of single Tensors, one list for each output."""
    out = []
    for neuron, bias in zip(w, b, strict=True):
        out.append(sum((wi * xi for wi, xi in zip(neuron, x, strict=True)), bias).relu())
    return out


WAYS = [row_by_row, column_by_column, sum_of_a_generator, in_place, bias_in_the_middle, lists_of_tensors]


def scalar_net(m, way, widths, seed=0):
    """A net in scalar code and its parameters; relu after every layer, so that one way is one function."""
    draw = np.random.default_rng(seed)
    layers = []
    for a, b in zip(widths, widths[1:], strict=False):
        w, bias = draw.normal(scale=math.sqrt(2 / a), size=(a, b)).tolist(), draw.normal(scale=0.1, size=b).tolist()
        if way is lists_of_tensors:
            layers.append(([[m.Tensor(w[j][i]) for j in range(a)] for i in range(b)], [m.Tensor(v) for v in bias]))
        else:
            layers.append((m.to_tensor(w), m.to_tensor(bias)))

    def net(x):
        for w, b in layers:
            x = way(m, x, w, b)
        return x

    return net, [p for layer in layers for p in layer]


def classified(m, net):
    return lambda x, y: m.cross_entropy(net(x), y)


def tables(n, columns, classes, seed=0):
    """Rows of floats, none of them zero, and labels."""
    draw = np.random.default_rng(seed)
    return draw.normal(size=(n, columns)), draw.integers(0, classes, size=n)


def weights(net):
    return b"".join(layer.w.numpy().tobytes() + layer.b.numpy().tobytes() for layer in net.linears)
