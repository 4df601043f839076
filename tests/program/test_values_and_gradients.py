"""Compiled programs give the values and the gradients of the eager engine: nets in scalar code, formulas, every row of
the operation table, random programs.  `compiled.check` does the comparing.
"""

import functools
import math
import operator
import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastscalar as fs
from compiled import (
    WAYS,
    bits,
    check,
    classified,
    close,
    compiled_only,
    eager_backward,
    eager_gradients,
    eager_values,
    gradients_of,
    lists_of_tensors,
    scalar_net,
    tables,
    values_of,
)
from fastscalar import _core, reference
from fastscalar.engine import testing
from operations import ROWS, operation, points

EXAMPLES = int(os.environ.get("FASTSCALAR_EXAMPLES", "300")) // 3  # an example is recorded, rewritten and replayed
STRESS = _core.tape_info()["stress"]
N = 3 if STRESS else 9

# --- programs: each gives a function, the parameters that it captures, and its arguments ------------------------------

PROGRAMS = {}


def program(make):
    PROGRAMS[make.__name__] = make
    return make


@program
def the_built_in_net():
    net = fs.MLP(5, [7, 4, 3], seed=1)
    return (lambda x, y: fs.cross_entropy(net(x), y)), flat(net), tables(N, 5, 3)


def flat(net):
    return [p for layer in net.linears for p in (layer.w, layer.b)]


@program
def the_articles_regression():
    """One output against an integer target, which is a number there and no label."""
    net = fs.Linear(3, 1, init="article", seed=1)
    X, y = tables(N, 3, 20)
    return (lambda x, y: fs.squared_loss(net(x)[:1], y)), [net.w, net.b], (X, y)


@program
def the_articles_net_for_a_real_target():
    net = fs.MLP(3, [4, 1], init="article", seed=1)
    X, _ = tables(N, 3, 2)
    return (lambda x, y: fs.squared_loss(net(x), [y])), flat(net), (X, X @ [1.0, 2.0, 3.0])


@program
def several_targets():
    net = fs.MLP(3, [4, 2], seed=1)
    X, _ = tables(N, 3, 2)
    return (lambda x, y: fs.squared_loss(net(x), y)), flat(net), (X, np.tanh(X[:, :2] * 2 + X[:, 1:]))


@program
def inputs_that_are_zero():
    """Layers skip them; the gradient by a weight behind one is zero, the one by the input is not."""
    net = fs.MLP(6, [5, 3], seed=1)
    X, y = tables(N, 6, 3)
    return (lambda x, y: fs.cross_entropy(net(x), y)), flat(net), (np.where(X > 0.2, X, 0.0), y)


@program
def a_users_module_with_a_penalty():
    class Gated(fs.Module):
        def __init__(self):
            self.wide, self.gate = fs.Linear(4, 5, seed=1), fs.Linear(4, 5, seed=2)
            self.scales = {"out": [fs.Tensor(0.5 + 0.1 * k) for k in range(5)]}

        def forward(self, x):
            gates = [g.sigmoid() for g in self.gate(x)]
            return fs.sum([a.tanh() * g * s for a, g, s in zip(self.wide(x), gates, self.scales["out"], strict=True)])

    net = Gated()
    squares = [net.wide.w[j][i] for j in range(4) for i in range(5)] + net.scales["out"]

    def loss(x, target):
        penalty = 0.0
        for w in squares:
            penalty = penalty + w * w
        return (net(x) - target) ** 2 + 1e-2 * penalty

    X, _ = tables(N, 4, 2)
    parameters = [net.wide.w, net.wide.b, net.gate.w, net.gate.b, *net.scales["out"]]
    return loss, parameters, (X, np.sin(X[:, 0]))


@program
def attention():
    """One head over four positions, in scalars; the queries, keys and values share their inputs."""
    d, T = 3, 4
    draw = np.random.default_rng(5)
    q, k, v = (fs.to_tensor(draw.normal(size=(d, d))) for _ in range(3))

    def project(w, x):
        return [sum(w[i][j] * x[j] for j in range(d)) for i in range(d)]

    def f(x):
        rows = [x[t] for t in range(T)]
        queries, keys, vals = ([project(w, r) for r in rows] for w in (q, k, v))
        total = 0.0
        for t in range(T):
            scores = [fs.dot(queries[t], keys[s]) * d**-0.5 for s in range(t + 1)]
            shares = fs.softmax(scores)
            for i in range(d):
                total = total + sum(shares[s] * vals[s][i] for s in range(t + 1)).tanh() * (t + i + 1.0)
        return total

    return f, [q, k, v], (draw.normal(size=(N, T, d)),)


@program
def a_character_model():
    """Embeddings picked by a row of integers, a layer, and the next one as the label: gathers, no guards."""
    draw = np.random.default_rng(6)
    embedding = fs.to_tensor(draw.normal(size=(6, 4)))
    net = fs.MLP(8, [5, 6], seed=3)

    def f(tokens, y):
        x = [embedding[t, i] for t in tokens for i in range(4)]
        return fs.cross_entropy(net(x), y)

    return f, [embedding, *flat(net)], (draw.integers(0, 6, size=(N, 2)), draw.integers(0, 6, size=N))


@program
def a_recurrent_cell():
    """Six steps that use the same weights."""
    w, u, b = fs.to_tensor([[0.5, -0.3], [0.2, 0.8]]), fs.to_tensor([0.7, -1.1]), fs.to_tensor([0.1, -0.1])

    def f(x):
        h = [0.0, 0.0]
        for t in range(6):
            h = [(b[i] + u[i] * x[t] + sum(w[i][j] * h[j] for j in range(2))).tanh() for i in range(2)]
        return h[0] * h[1] + h[0]

    return f, [w, u, b], (np.random.default_rng(7).normal(size=(N, 6)),)


@program
def black_scholes():
    """Five numbers a row, and a strike that all rows share."""

    def price(spot, strike, rate, volatility, years):
        root = years.sqrt()
        d1 = ((spot / strike).log() + (rate + volatility**2 / 2.0) * years) / (volatility * root)
        return spot * d1.ndtr() - strike * (-rate * years).exp() * (d1 - volatility * root).ndtr()

    draw = np.random.default_rng(8)
    columns = [draw.uniform(a, b, size=N) for a, b in ((80, 120), (0.01, 0.05), (0.1, 0.5), (0.25, 3))]
    return price, [], (columns[0], 100.0, *columns[1:])


@program
def monte_carlo():
    """An Asian option on the paths that the rows of normal numbers make; the greeks are gradients of parameters."""
    spot, volatility, rate = fs.Tensor(100.0), fs.Tensor(0.3), fs.Tensor(0.02)

    def payoff(z):
        s, total = spot, 0.0
        for k in range(12):
            s = s * ((rate - volatility * volatility / 2.0) * 0.1 + volatility * 0.1**0.5 * z[k]).exp()
            total = total + s
        return fs.maximum(total / 12.0 - 95.0, 0.0) * (-rate).exp()

    return payoff, [spot, volatility, rate], (np.random.default_rng(9).normal(size=(N, 12)),)


@program
def steps_of_an_ode():
    """Van der Pol's oscillator, twelve steps of Runge and Kutta, from the points of a table."""
    mu = fs.Tensor(0.7)

    def field(x, v):
        return v, mu * (1.0 - x * x) * v - x

    def f(start):
        x, v = start[0], start[1]
        h = 0.1
        for _ in range(12):
            a1, b1 = field(x, v)
            a2, b2 = field(x + a1 * (h / 2), v + b1 * (h / 2))
            a3, b3 = field(x + a2 * (h / 2), v + b2 * (h / 2))
            a4, b4 = field(x + a3 * h, v + b3 * h)
            x = x + (a1 + 2.0 * a2 + 2.0 * a3 + a4) * (h / 6)
            v = v + (b1 + 2.0 * b2 + 2.0 * b3 + b4) * (h / 6)
        return x * x + v

    return f, [mu], (np.random.default_rng(10).uniform(-2, 2, size=(N, 2)),)


@program
def a_mixture_model():
    numbers = [[0.1, 0.5, -0.3], [-2.0, 0.5, 3.0], [0.0, -0.5, 0.3]]
    shares, centres, spreads = map(fs.to_tensor, numbers)

    def f(x):
        logs = [
            shares[k] - fs.logsumexp(shares) - spreads[k] - 0.5 * ((x - centres[k]) / spreads[k].exp()) ** 2
            for k in range(3)
        ]
        return -fs.logsumexp(logs)

    return f, [shares, centres, spreads], (np.random.default_rng(11).normal(scale=2, size=N),)


@program
def arrays_element_by_element():
    a, b = fs.to_tensor([[0.5, 1.5], [-0.7, 0.2]]), fs.Tensor(0.3)

    def f(x):
        c = (a * x + b).tanh() * a - x / 2.0
        return (c * c).sum() + c[0].sum() * b + fs.mean(c[1]) + fs.norm(x[1])

    return f, [a, b], (np.random.default_rng(12).normal(size=(N, 2, 2)),)


@program
def functions_of_sequences():
    w = fs.to_tensor([0.5, -1.5, 0.8, 0.1])

    def f(x):
        y = [x[i] * w[i] for i in range(4)]
        return (
            fs.prod(y) + fs.norm(y) + fs.mean(y) * fs.dot(y, w) + fs.log_softmax(y)[2]
            + fs.clip(y[0], -0.4, 0.4) + fs.minimum(y[1], y[2]) + fs.leaky_relu(y[3], w[0]) + fs.gelu(y[0])
        )  # fmt: skip

    return f, [w], (np.random.default_rng(13).normal(size=(N, 4)),)


@program
def branches():
    """Decisions on inputs, on parameters and on what is made of both: Huber's loss, Newton's method, the largest."""
    w, width = fs.to_tensor([0.8, -0.4]), fs.Tensor(0.5)

    def root(a):
        r, steps = a, 0
        while abs(r * r - a) > 1e-3 and steps < 8:
            r, steps = (r + a / r) / 2.0, steps + 1
        return r

    def f(x):
        error = x[0] * w[0] + x[1] * w[1]
        if abs(error) < width:
            loss = error * error / 2.0
        else:
            loss = width * (abs(error) - width / 2.0)
        if width > 0.4:
            loss = loss * width
        return loss + root(x[0] * x[0] + 1.0) + fs.max([x[0], x[1], w[0]]) * w[1]

    return f, [w, width], (np.random.default_rng(14).normal(size=(N, 2)),)


@program
def nothing_but_shared_nodes():
    """Powers by repeated squaring, the same term many times, `a + a`, a result that is used twice."""
    w = fs.Tensor(0.9)

    def f(x):
        a = x * w
        for _ in range(4):
            a = a * a + a
        b = a + a + a
        return (b * b - b).tanh() + b.sin() * x + (x * w).sin()

    return f, [w], (np.random.default_rng(15).uniform(-0.9, 0.5, size=N),)


@program
def dead_code_and_constants():
    w, unused = fs.Tensor(0.9), fs.Tensor(5.0)

    def f(x):
        for _ in range(5):
            (x * unused).exp()
        a = fs.Tensor(2.0) * 3.0 + math.pi
        zero = (x - x) * unused
        return x * w * a + (x * 1.0 + 0.0) ** 2 + zero

    return f, [w, unused], (np.random.default_rng(16).normal(size=N),)


@program
def no_gradient():
    """detach() and no_grad() keep the value of every row and stop the gradient."""
    w = fs.to_tensor([0.5, -1.5])

    def f(x):
        stopped = (x[0] * w[0]).tanh().detach()
        with fs.no_grad():
            also = x[1] * w[1] + x[0].exp()
        return stopped * x[1] + also * w[0] + also * also

    return f, [w], (np.random.default_rng(17).normal(size=(N, 2)),)


@program
def labels_in_scalar_code():
    """An integer as an index of a row and of a matrix, as a number, in a comparison, as a key."""
    table, pairs = fs.to_tensor([0.3, -1.2, 0.8]), fs.to_tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    names = {0: 1.5, 1: -0.5, 2: 2.5}
    single = [fs.Tensor(v) for v in (0.1, 0.2, 0.3)]

    def f(x, y):
        row = pairs[y]
        a = table[y] * x[0] + row[0] * row[1] * x[1] + pairs[y, 1] + table[y - 3]
        a = a + (x[0] - y) ** 2 + y * x[1] + fs.squared_loss(x[0], y)
        if y == 2:
            a = a * 1.5
        for k in range(y):
            a = a + single[k] * x[1]
        return a + names[y] * single[y] * x[0]

    X, y = tables(N, 2, 3)
    y[:3] = 0, 1, 2
    return f, [table, pairs, *single], (X, y)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program(name):
    f, parameters, arguments = PROGRAMS[name]()
    check(f, parameters, *arguments)


@pytest.mark.parametrize("way", WAYS)
def test_a_net_in_scalar_loops(way):
    X, y = tables(N, 6, 3)
    net, parameters = scalar_net(fs, way, (6, 5, 3))
    f = classified(fs, net)
    p = check(f, parameters, X, y)
    theirs, twins = scalar_net(reference, way, (6, 5, 3))
    twin = classified(reference, theirs)
    close(p.map(X, y), eager_values(twin, X, y, m=reference))
    sums, absolute = eager_backward(twin, twins, (X, y), m=reference)
    p.backward(X, y)
    for a, s, scale in zip(parameters, sums, absolute, strict=True):
        close(gradients_of(a), s, scale=scale)
    close(p.value_and_grad(X, y)[1], eager_gradients(twin, (X, y), 0, m=reference))


def test_the_ways_of_writing_a_net_agree():
    """The same numbers in all of them, so that none of the comparisons is of another net."""
    X, y = tables(N, 6, 3)
    found = [fs.compile(classified(fs, scalar_net(fs, way, (6, 5, 3))[0])).map(X, y) for way in WAYS]
    for values in found[1:]:
        close(values, found[0])


@pytest.mark.skipif(STRESS, reason="thousands of nodes for each row, in stress mode")
def test_many_rows_and_no_rest():
    """Row counts about the width of whatever the rows are worked on by."""
    net, parameters = scalar_net(fs, lists_of_tensors, (4, 3, 2))
    f = classified(fs, net)
    X, y = tables(200, 4, 2)
    expected = eager_values(f, X, y)
    per_row = eager_gradients(f, (X, y), 0)
    with compiled_only():
        p = fs.compile(f)
        for n in (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 200):
            close(p.map(X[:n], y[:n]), expected[:n])
            values, gradients = p.value_and_grad(X[:n], y[:n], argnums=0)
            close(values, expected[:n])
            close(gradients, per_row[:n])
            p.backward(X[:n], y[:n])
            sums, absolute = eager_backward(f, parameters, (X[:n], y[:n])) if n in (1, 9, 65) else (None, None)
            if sums is not None:
                p.backward(X[:n], y[:n])
                for q, s, a in zip(parameters, sums, absolute, strict=True):
                    close(gradients_of(q), s, scale=a)


def test_a_row_has_the_same_bits_wherever_it_stands():
    """The value of a row does not depend on its neighbours, nor on how many there are."""
    f, _, (X, y) = the_built_in_net()
    X, y = np.tile(X, (5, 1)), np.tile(y, 5)
    p = fs.compile(f)
    whole = p.map(X, y)
    assert bits(whole[: N]) == bits(whole[2 * N : 3 * N])
    close([p(x, k) for x, k in zip(X[:N], y[:N], strict=True)], whole[:N])


# --- the operation table ----------------------------------------------------------------------------------------------

HARSH = [0.0, -0.0, 1.0, -1.0, 2.0, -2.5, 0.5, 40.0, -40.0, 1e-300, 1e200, -1e200, 710.0, math.inf, -math.inf, math.nan]


@pytest.mark.parametrize("name", ROWS)
def test_every_row_of_the_table(name):
    """One operation, alone and beside equal ones (an array operation), where it is smooth."""
    apply, arity = operation(name), ROWS[name][1]
    columns = [np.array(c) for c in zip(*points(name), strict=True)]
    if name in ("leaky_relu", "elu", "copysign", "atan2"):
        columns[0][::2] *= -1.0  # both sides of the kink
    w = fs.Tensor(1.25)

    def alone(*xs):
        return apply(*xs) * w

    def beside(*xs):
        many = [apply(*[x[k] for x in xs]) for k in range(4)]
        return fs.sum([v * (k + 1.0) for k, v in enumerate(many)]) * w

    whole = name in ("sign", "floor", "ceil", "trunc", "rint", "//")
    rolled = [np.stack([np.roll(c, k) for k in range(4)], axis=1) for c in columns]
    for f, table in ((alone, columns), (beside, rolled)):
        expected = eager_values(f, *table)
        parameter, absolute = eager_backward(f, [w], table)
        with compiled_only():
            p = fs.compile(f)
            close(p.map(*table), expected)
            p.backward(*table)
            close(gradients_of(w), parameter[0], scale=absolute[0])
            values, gradients = p.value_and_grad(*table, argnums=tuple(range(arity)))
        close(values, expected)
        for k, g in enumerate(gradients):
            e = eager_gradients(f, table, k)
            close(g, e)
            assert whole or np.any(e) or (name in ("copysign", "polygamma") and k == 1)


def eager(apply):
    return lambda *xs: apply(*[fs.Tensor(x) for x in xs]).data


def outcome(f, *xs):
    """The bits of the value, or the type of the error."""
    try:
        value = float(f(*xs))
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        return type(error)
    return "nan" if math.isnan(value) else struct.pack("<d", value)


@pytest.mark.parametrize("name", [name for name in ROWS if name not in ("neg", "+", "-", "*", "/", "**", "%", "//")])
def test_every_row_of_the_table_as_a_method_of_arrays(name):
    arity = ROWS[name][1]
    columns = [np.array(c) for c in zip(*points(name), strict=True)]
    given = [np.stack([c, c[::-1]], axis=1) for c in columns]
    f = lambda *xs: getattr(xs[0], name)(*xs[1:]).sum()
    expected = eager_values(f, *given)
    with compiled_only():
        values, gradients = fs.compile(f).value_and_grad(*given, argnums=tuple(range(arity)))
    close(values, expected)
    for k, g in enumerate(gradients):
        close(g, eager_gradients(f, given, k))


# --- random programs --------------------------------------------------------------------------------------------------
# A program is a list of steps, a few small integers each; hypothesis draws, shrinks and replays them.  It runs on the
# twin, on the engine and compiled.  The twin also says how large the terms of every sum were (the paths through the
# graph, by absolute value: what "1e-12 of the sum of the absolute terms" is about), and whether a decision or a kink
# was so close that rounding may settle it: such rows are left out.

STEP = st.tuples(*[st.integers(0, 255)] * 4)
PROGRAM = st.lists(STEP, min_size=10, max_size=40)
CONSTANTS = [0.0, 1.0, -1.0, 0.5, 2.0, -0.3, 1.7]
UNARY = [
    lambda a: a.tanh(), lambda a: a.sin(), lambda a: -a, lambda a: a.sigmoid(), lambda a: a.tanh().exp(),
    lambda a: (a * a + 1.0).sqrt(), lambda a: (a * a + 1.0).log(), lambda a: a**2, lambda a: a.detach(),
]  # fmt: skip
BINARY = [
    lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / (b * b + 1.0),
    lambda a, b: a.atan2(b * b + 0.5),
]  # fmt: skip
WIDTH = 3


class Tie(Exception):
    """A decision that rounding may settle."""


def apart(a, b):
    """Refuse what a rounding error could turn over."""
    if not abs(a - b) > 1e-6 * (abs(a) + abs(b) + 1e-3):
        raise Tie


def run(m, program, w, b, table, x, y):
    """The program on one module; its result."""
    v = [x[k] for k in range(WIDTH)] + [b[0], w[0][0]]
    for what, i, j, k in program:
        p, q, c = v[i % len(v)], v[j % len(v)], CONSTANTS[k % len(CONSTANTS)]
        what %= 20
        if what < 4:
            v.append(BINARY[k % len(BINARY)](p, q))
        elif what < 7:
            v.append(UNARY[k % len(UNARY)](p))
        elif what == 7:
            v.append(p + c if k % 2 else c * p)
        elif what == 8:
            v.append(c - p if k % 2 else p * c)
        elif what == 9:
            v.append(p * table[y])
        elif what == 10:  # a row of weights times some variables
            v.append(m.sum([v[(i + n * j) % len(v)] * w[n][k % WIDTH] for n in range(WIDTH)]))
        elif what == 11:  # a layer, by columns
            row = [v[(i + n) % len(v)] for n in range(WIDTH)]
            out = [b[n] for n in range(WIDTH)]
            for r in range(WIDTH):
                for n in range(WIDTH):
                    out[n] = out[n] + row[r] * w[r][n]
            v.extend(out)
        elif what == 12:
            apart(p, q)
            v.append(p if p > q else p * q)
        elif what == 13:
            apart(p, m.Tensor(c))
            v.append(p.relu() if c == 0.0 else m.maximum(p, c))
        elif what == 14:
            apart(p, q)
            v.append(m.minimum(p, q))
        elif what == 15:
            v.append(p + (x[0] - y) * 0.1 if k % 2 else p + 1.0 if y == 1 else p)
        elif what == 16:
            v.append(m.dot([p, q, v[-1]], [w[n][k % WIDTH] for n in range(WIDTH)]))
        elif what == 17:
            v.append(m.cross_entropy([p.tanh(), q, v[k % len(v)].tanh()], y))
        elif what == 18:
            if abs(p) < 0.7:
                apart(abs(p), m.Tensor(0.7))
                v.append(m.logsumexp([p, q.tanh()]))
        else:
            v[i % len(v)] = v[-1]  # what was there is dead, unless it was used
        if not abs(v[-1]) < 1e3:
            raise Tie  # larger and larger: rounding is all that would be seen
    return m.sum(v[-3:]) + v[len(v) // 2] * 0.5


def absolute_terms(result, wanted):
    """The sum over all paths from the result to a node of the absolute products, for each wanted node and in all."""
    order, todo, reached = [], [result], {result}
    while todo:
        node = todo.pop()
        order.append(node)
        for parent in node._parents:
            if parent not in reached:
                reached.add(parent)
                todo.append(parent)
    weight = dict.fromkeys(order, 0.0)
    weight[result] = 1.0
    total = 0.0
    for node in sorted(order, key=lambda n: n._id, reverse=True):
        total += weight[node] * abs(node.data)
        if node._parents:
            slopes = reference._DERIVATIVES[node._op](*[p.data for p in node._parents], node.data)
            for parent, slope in zip(node._parents, slopes, strict=True):
                weight[parent] += weight[node] * abs(slope)
    return np.array([weight.get(node, 0.0) for node in wanted]), total


W, B, TABLE = (np.random.default_rng(20).uniform(-1, 1, size=s) for s in ((WIDTH, WIDTH), (WIDTH,), (3,)))


def machine(m, program):
    """The function of a row that a program stands for, and its parameters."""
    w, b, table = (m.to_tensor(a.tolist()) for a in (W, B, TABLE))
    return (lambda x, y: run(m, program, w, b, table, x, y)), [w, b, table]


def nodes(x):
    return [n for e in x for n in nodes(e)] if isinstance(x, (list, tuple)) else [x]


def check_random(program, seed):
    X, y = tables(N, WIDTH, 3, seed)
    twin, twins = machine(reference, program)
    kept, scales, values, by_x, by_p = [], [], [], [], []
    for i in range(N):
        x = reference.to_tensor(X[i].tolist())
        try:
            result = twin(x, int(y[i]))
        except Tie:
            continue
        every = nodes([x, *twins])
        for node in every:
            node.grad = 0.0
        result.backward()
        scale, total = absolute_terms(result, every)
        if not (total < 1e5 and scale.max() < 1e5):
            continue
        kept.append(i)
        values.append((result.data, total))
        by_x.append([n.grad for n in x])
        by_p.append([n.grad for n in nodes(twins)])
        scales.append(scale)
    if not kept:
        return 0
    X, y = X[kept], y[kept]
    values, totals = np.array(values).T
    scales = np.array(scales)

    f, parameters = machine(fs, program)
    assert bits(eager_values(f, X, y)) == bits(values)  # what both are measured by
    with compiled_only():
        p = fs.compile(f)
        found = p.map(X, y)
        close_each(found, values, totals)
        close_each([p(x, k) for x, k in zip(X, y, strict=True)], values, totals)
        found, gradients = p.value_and_grad(X, y, argnums=0)
        close_each(found, values, totals)
        # a slope of a slope is behind a gradient too: the largest path stands for those
        close_each(gradients, by_x, scales[:, :WIDTH] + scales.max(axis=1, keepdims=True) + totals[:, None])
        for q in parameters:
            q.grad = np.zeros(q.shape)
        close_each(p.backward(X, y), values, totals)
    found = np.concatenate([gradients_of(q).ravel() for q in parameters])
    terms = scales[:, WIDTH:] + scales.max(axis=1, keepdims=True) + totals[:, None]
    close_each(found, np.sum(by_p, axis=0), np.sum(terms, axis=0))
    assert bits(values_of(parameters[0])) == bits(W)
    testing.check()
    return len(kept)


def close_each(found, expected, scales, tolerance=1e-12):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    wrong = ~(np.abs(found - expected) <= tolerance * (scales + 1.0))
    assert not wrong.any(), (found[wrong][0], expected[wrong][0], np.broadcast_to(scales, wrong.shape)[wrong][0])


@settings(max_examples=EXAMPLES, deadline=None)
@given(PROGRAM, st.integers(0, 3))
def test_random_programs(program, seed):
    check_random(program, seed)


def test_random_programs_are_not_all_left_out():
    """Of programs drawn without hypothesis most rows are compared, and all kinds of steps come up."""
    draw = np.random.default_rng(21)
    kept = 0
    for _ in range(20 if not STRESS else 4):
        program = [tuple(int(n) for n in draw.integers(0, 256, size=4)) for _ in range(15)]
        kept += check_random(program, 0)
    assert kept >= (20 if not STRESS else 4) * N // 2


@pytest.mark.parametrize("which", ["map", "backward", "value_and_grad"])
def test_a_planted_difference_is_seen(monkeypatch, which):
    """The comparison can fail: a relative error of 1e-10 in one of the results is found."""
    f, parameters, arguments = the_built_in_net()
    check(f, parameters, *arguments)
    honest = fs.compile

    class Wrong:
        def __init__(self, f):
            self.program = honest(f)

        def __call__(self, *row):
            return self.program(*row)

        def map(self, *rows):
            return self.program.map(*rows) * (1 + 1e-10 * (which == "map"))

        def value_and_grad(self, *rows, argnums):
            values, g = self.program.value_and_grad(*rows, argnums=argnums)
            if which == "value_and_grad":
                g = tuple(e * (1 + 1e-10) for e in g) if isinstance(g, tuple) else g * (1 + 1e-10)
            return values, g

        def backward(self, *rows, accumulate=False):
            values = self.program.backward(*rows, accumulate=accumulate)
            if which == "backward":
                parameters[1].grad = gradients_of(parameters[1]) * (1 + 1e-10)
            return values

    monkeypatch.setattr(fs, "compile", Wrong)
    with pytest.raises(AssertionError):
        check(f, parameters, *arguments)


# --- where: every comparison, and operands of each kind ---------------------------------------------------------------

COMPARISONS = [operator.lt, operator.le, operator.eq, operator.ne, operator.gt, operator.ge]


@pytest.mark.dear
@pytest.mark.parametrize("comparison", COMPARISONS)
@pytest.mark.parametrize("rows", [3, 17, 150])
def test_where(comparison, rows):
    """What is compared and what is chosen from: the row's numbers, a leaf's, a plain one; ties among them."""
    X = np.random.default_rng(rows).integers(-2, 3, size=(rows, 5)) / 4
    a, b = fs.Tensor(0.25), fs.Tensor(-1.5)

    def f(x):
        return (
            fs.where(comparison(x[0], x[1]), x[2] * x[2], x[3])
            + fs.where(comparison(x[1], a), b, x[2]) * x[4]
            + 3.0 * fs.where(comparison(0.25, x[2]), x[3] * 0.5, 7.0)
            + fs.where(comparison(x[3], 0.0), a, b) * x[0]
            + fs.where(comparison(x[0] * a, x[4] * a), a, a * b)
            + fs.sum([fs.where(comparison(v, 0.25), v, -v) * v for v in x])
        )

    with compiled_only():
        check(f, [a, b], X)


def test_where_of_nan_and_infinity():
    """No comparison holds with NaN but !=; what is not chosen, infinite or NaN, leaves no trace."""
    X = np.array([[np.nan, 1.0], [1.0, np.nan], [np.inf, 2.0], [-np.inf, 3.0], [0.5, np.inf]] * 5)
    for comparison in COMPARISONS:
        f = lambda x, c=comparison: fs.where(c(x[0], 0.75), 2.0 * x[1], 5.0)
        values, gradients = fs.compile(f).value_and_grad(X, argnums=0)
        expected = [2.0 * b if comparison(a, 0.75) else 5.0 for a, b in X.tolist()]
        assert bits(values) == bits(expected)
        assert gradients.tolist() == [[0.0, 2.0 if comparison(a, 0.75) else 0.0] for a in X[:, 0]]


# --- numbers go from the rows to where they are computed with, and gradients back ---

READ = {
    "in_order": lambda x: fs.sum([fs.math.exp(0.1 * x[k]) * (k + 1.0) for k in range(19)]),
    "in_turn": lambda x: functools.reduce(lambda s, k: fs.math.tanh(s * x[k]) + x[k], range(18, -1, -1), x[3] * x[3]),
    "every_third": lambda x: fs.math.exp(x[0] * 0.1) * x[3] + x[9] * x[18] * x[6],
    "one": lambda x: x[7] * x[7],
    "none": lambda x: fs.Tensor(2.0) * 3.0,
    "as_a_whole_too": lambda x: fs.sum(x * x) * x[2] + x[5],
    "decided": lambda x: x[0] * x[1] if x[2] > 0.0 else x[3] * fs.math.log(fs.maximum(x[2], -x[2])),
    "steep": lambda x: fs.math.sqrt(fs.maximum(x[0], 0.0)) * x[1] + x[2],
}


@pytest.mark.dear
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", READ)
def test_columns_of_rows(name: str, dtype: str) -> None:
    """Whichever columns are read, in whatever order, of any number of rows: the derivatives of the plain call, and zero
    by what is not read, in memory that had other numbers in it."""
    rng = np.random.default_rng(0)
    everything = rng.normal(size=(300, 19))
    everything[7, 0] = 0.0                       # where sqrt is steep
    program, tolerance = fs.compile(READ[name]), 1e-11 if dtype == "float64" else 2e-4
    values, gradients = [], []
    for row in everything:
        x = fs.to_tensor(row.tolist())
        y = READ[name](x)
        y.backward()
        values.append(y.data)
        gradients.append(np.asarray(x.grad))
    for n in (300, 1, 2, 7, 8, 9, 16, 17, 129, 256, 257):
        np.full((n, 19), np.nan)                 # what the allocator may hand out again
        found, derivatives = program.value_and_grad(everything[:n], dtype=dtype)
        np.testing.assert_allclose(found, values[:n], rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(derivatives, gradients[:n], rtol=tolerance, atol=tolerance)


def test_numbers_that_are_not_read_have_no_gradient() -> None:
    program = fs.compile(lambda x, a, y: fs.sum(a) * 2.0 if y > 0.0 else fs.Tensor(1.0) * y)
    x, a, y = np.ones(40), np.ones((40, 3)), np.where(np.arange(40) % 3, 1.0, -1.0)
    np.full((40, 3), np.nan)
    _, (by_x, by_a, by_y) = program.value_and_grad(x, a, y, argnums=(0, 1, 2))
    assert not by_x.any()
    assert np.array_equal(by_a, np.where(y[:, None] > 0.0, 2.0, 0.0) * a)
    assert np.array_equal(by_y, np.where(y > 0.0, 0.0, 1.0))


def test_an_argument_that_is_named_twice_has_two_gradients() -> None:
    one, other = fs.compile(lambda x: x * x).value_and_grad(np.array([1.0, 2.0]), argnums=(0, 0))[1]
    one[:] = 0.0
    assert other.tolist() == [2.0, 4.0]


@pytest.mark.parametrize("seed", range(4))
def test_sums_over_rows_do_not_depend_on_earlier_calls(seed: int) -> None:
    """To the bit, however many ways there are and whichever of them were met before."""

    def f(x, s):  # type: ignore[no-untyped-def]
        total, k = s * x, 0
        while total < 4.0 and k < 6:
            total, k = total + fs.math.exp(s) * (x if x > 0.5 else 0.3), k + 1
        return total * s

    rows, program, found = np.random.default_rng(seed).normal(size=40) + 0.5, fs.compile(f), set()
    program.map(rows[::-1], 0.7)
    for threads in (1, 1, 2, 3, 1):
        values, gradients = program.value_and_grad(rows, 0.7, argnums=(0, 1), threads=threads)
        found.add((values.tobytes(), *(np.asarray(g).tobytes() for g in gradients)))
    assert len(program.report().splitlines()) > 4
    assert len(found) == 1
