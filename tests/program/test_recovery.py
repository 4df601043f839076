"""What the rewriting of a recorded program finds, as `report()` tells it: matrix products, sums, array operations.

The wording of a report is left open here, its counts are not.  Every program is also run: a structure that is found
where there is none would give wrong numbers.
"""

import re
import time

import numpy as np
import pytest

import fastscalar as fs
from compiled import (
    WAYS,
    check,
    classified,
    close,
    compiled_only,
    eager_backward,
    eager_values,
    gradients_of,
    in_place,
    lists_of_tensors,
    row_by_row,
    scalar_net,
    tables,
)
from fastscalar import _core

STRESS = _core.tape_info()["stress"]
pytestmark = pytest.mark.skipif(STRESS, reason="large programs, in stress mode")


def count(report, what):
    """How many of something there are; 0 if it is not mentioned."""
    return sum(int(n.replace(",", "")) for n in re.findall(rf"(\d[\d,]*) (?:{what})", report))


def operations(report):
    """What was recorded, before the arrow."""
    return count(report.split("->")[0], "operations?")


def instructions(report):
    """How many are left, of whatever kind."""
    (line,) = [line for line in report.splitlines() if "->" in line]
    return count(line.split("->")[1], "[a-zA-Z]")


def matrix_products(report):
    return count(report, r"matrix products?\b")


def of_width(report, operation, width):
    """How many array operations of some operation there are."""
    return count(report, rf"(?:{operation})\({width}\)")


RELU = "maximum|relu|max"


def test_what_is_read_from_a_report():
    report = "400,000 operations -> 2 matrix products, 1 maximum(256), 1 matrix product, 1,234 exp"
    assert (operations(report), matrix_products(report), count(report, "exp")) == (400_000, 3, 1234)
    assert (of_width(report, RELU, 256), of_width(report, RELU, 25)) == (1, 0)
    assert instructions(report) == 2 + 1 + 1 + 1234


def report_of(f, parameters, *arguments):
    return check(f, parameters, *arguments).report()


def built_in(widths):
    net = fs.MLP(widths[0], list(widths[1:]), seed=0)
    parameters = [p for layer in net.linears for p in (layer.w, layer.b)]
    return (lambda x, y: fs.cross_entropy(net(x), y)), parameters


@pytest.mark.parametrize("widths", [(20, 10), (20, 16, 10), (12, 9, 8, 7, 5)])
def test_the_built_in_net_is_one_matrix_product_for_each_layer(widths):
    f, parameters = built_in(widths)
    report = report_of(f, parameters, *tables(5, widths[0], widths[-1]))
    assert matrix_products(report) == len(widths) - 1
    for width in widths[1:-1]:
        assert of_width(report, RELU, width) == 1
    assert instructions(report) <= 12 * len(widths)


@pytest.mark.parametrize("widths", [(20, 10), (20, 16, 10), (12, 9, 8, 7, 5)])
@pytest.mark.parametrize("way", WAYS)
def test_a_net_in_scalar_loops_is_the_same_matrix_products(way, widths):
    """However it is written: the products, their sums and their biases are found in the graph."""
    net, parameters = scalar_net(fs, way, widths)
    X, y = tables(5, widths[0], widths[-1])
    report = report_of(classified(fs, net), parameters, X, y)
    f, theirs = built_in(widths)
    assert matrix_products(report) == matrix_products(report_of(f, theirs, X, y)) == len(widths) - 1
    for width in widths[1:]:
        assert of_width(report, RELU, width) == 1
    assert instructions(report) <= 12 * len(widths)
    pairs = sum(a * b for a, b in zip(widths, widths[1:], strict=False))
    assert 2 * pairs <= operations(report) <= 2.2 * pairs + 20 * sum(widths)


def test_a_layer_of_single_tensors_without_a_bias():
    """Nothing says that the weights are a matrix; some of them are used twice, in no order."""
    draw = np.random.default_rng(1)
    pool = [fs.Tensor(v) for v in draw.normal(size=40)]
    order = [[pool[(7 * i + 3 * j) % 40] for j in range(8)] for i in range(6)]

    def f(x):
        return fs.sum([fs.dot(row, x).tanh() for row in order])

    report = report_of(f, pool, draw.normal(size=(7, 8)))
    assert matrix_products(report) == 1
    assert of_width(report, "tanh", 6) == 1


def test_projections_of_the_same_input():
    """Queries, keys and values: one product for all or one for each, and not one dot for each number."""
    draw = np.random.default_rng(2)
    ws = [fs.to_tensor(draw.normal(size=(6, 6))) for _ in range(3)]

    def f(x):
        q, k, v = ([sum(w[i][j] * x[j] for j in range(6)) for i in range(6)] for w in ws)
        return fs.sum([(a * b).tanh() * c for a, b, c in zip(q, k, v, strict=True)])

    report = report_of(f, ws, draw.normal(size=(7, 6)))
    assert 1 <= matrix_products(report) <= 3
    assert of_width(report, "tanh", 6) == 1
    assert instructions(report) <= 20


def test_a_recurrent_cell_is_one_or_two_products_for_each_step():
    draw = np.random.default_rng(3)
    w, u, b = (fs.to_tensor(draw.normal(scale=0.5, size=s)) for s in ((8, 8), (8, 3), (8,)))

    def f(x):
        h = [0.1 * (k + 1.0) for k in range(8)]
        for t in range(5):
            step = []
            for i in range(8):
                s = b[i]
                for j in range(3):
                    s = s + u[i][j] * x[t, j]
                for j in range(8):
                    s = s + w[i][j] * h[j]
                step.append(s.tanh())
            h = step
        return fs.sum(h)

    report = report_of(f, [w, u, b], draw.normal(size=(6, 5, 3)))
    assert 5 <= matrix_products(report) <= 10
    assert of_width(report, "tanh", 8) == 5
    assert instructions(report) <= 60


def test_a_chain_of_additions_is_one_sum():
    X = np.random.default_rng(4).normal(size=(6, 60))

    def chain(x):
        s = x[0]
        for k in range(1, 60):
            s = x[k] + s if k % 3 else s + x[k]
        return s

    def tree(x):
        level = [x[k] for k in range(60)]
        while len(level) > 1:
            level = [a + b for a, b in zip(level[::2], level[1::2], strict=False)] + level[len(level) // 2 * 2 :]
        return level[0]

    for f in (chain, tree, lambda x: sum(x[k] for k in range(60))):
        report = report_of(f, [], X)
        assert operations(report) >= 59
        assert re.search(r"\bsum", report)
        assert instructions(report) <= 2


def test_differences_are_sums_too():
    w = fs.to_tensor(np.random.default_rng(5).normal(size=30))

    def f(x):
        s = 0.0
        for k in range(30):
            s = s - w[k] * x[k] if k % 2 else s + x[k] * w[k]
        return s

    report = report_of(f, [w], np.random.default_rng(6).normal(size=(6, 30)))
    assert instructions(report) <= 6


def test_a_sum_of_products_is_one_dot():
    w = fs.to_tensor(np.random.default_rng(7).normal(size=50))
    f = lambda x: sum(w[k] * x[k] for k in range(50))
    report = report_of(f, [w], np.random.default_rng(8).normal(size=(6, 50)))
    assert count(report, r"dots?\b|dot products?\b|matrix products?\b|matrix-vector products?\b") == 1
    assert instructions(report) <= 3


@pytest.mark.parametrize("name", ["tanh", "exp", "sigmoid", "relu", "sqrt"])
def test_equal_operations_on_neighbours_are_one_array_operation(name):
    draw = np.random.default_rng(9)
    f = lambda x: fs.sum([getattr(x[k], name)() for k in range(32)])
    report = report_of(f, [], draw.uniform(0.1, 2.0, size=(5, 32)))
    assert of_width(report, RELU if name == "relu" else name, 32) == 1
    assert instructions(report) <= 4


def test_array_operations_of_two_operands():
    draw = np.random.default_rng(10)
    w = fs.to_tensor(draw.normal(size=24))
    f = lambda x: fs.sum([x[k].atan2(w[k]) for k in range(24)])
    report = report_of(f, [w], draw.normal(size=(5, 24)))
    assert of_width(report, "atan2", 24) == 1
    assert instructions(report) <= 4


def test_array_operations_in_one_row_of_another_order():
    """Interleaved in the program, side by side in what it becomes."""
    draw = np.random.default_rng(11)

    def f(x):
        a, b = [], []
        for k in range(16):
            a.append(x[k].tanh())
            b.append(x[k].sin())
        return fs.sum([p * q for p, q in zip(a, b, strict=True)])

    report = report_of(f, [], draw.normal(size=(5, 16)))
    assert of_width(report, "tanh", 16) == 1
    assert of_width(report, "sin", 16) == 1


def test_common_subexpressions_are_computed_once():
    w = fs.Tensor(0.7)

    def f(x):
        total = 0.0
        for k in range(10):
            total = total + (x[0] * x[1] + w).exp() * (k + 1.0) * x[k % 2]
        return total

    report = report_of(f, [w], np.random.default_rng(12).normal(size=(6, 2)))
    assert len(re.findall(r"\bexp\b", report)) == 1
    assert count(report, r"exp\b") == 1


def test_dead_code_and_constants_are_not_left():
    w = fs.Tensor(0.7)

    def f(x):
        for k in range(10):
            (x[0] * x[0] + float(k)).softplus().atan()
        return (x[0] * w).sin() * (fs.Tensor(2.0).exp() * fs.Tensor(3.0)).tanh()

    report = report_of(f, [w], np.random.default_rng(13).normal(size=(6, 2)))
    after = report.split("->")[1]
    assert "sin" in after
    for gone in ("softplus", "atan", "exp", "tanh"):
        assert gone not in after
    assert operations(report) >= 20
    assert instructions(report) <= 4


def test_a_constant_on_the_way_to_a_parameter_is_no_constant():
    """What depends on a captured number is computed again, though no argument is in it."""
    w = fs.Tensor(0.7)
    p = fs.compile(lambda x: x * (w * 2.0 + 1.0).exp())
    x = np.array([1.0, 2.0])
    for value in (0.7, 0.1, -1.0):
        w.data = value
        close(p.map(x), x * np.exp(2.0 * value + 1.0))


def test_a_gather_is_reported():
    table = fs.to_tensor(np.random.default_rng(14).normal(size=(9, 4)))
    f = lambda x, k: fs.dot(table[k], x)
    draw = np.random.default_rng(15)
    report = report_of(f, [table], draw.normal(size=(20, 4)), draw.integers(0, 9, size=20))
    assert re.search(r"\bgather", report)


def test_near_misses_are_not_matrix_products():
    """One weight that is squared, one input that is missing, one relu that is not there: the numbers stay right."""
    draw = np.random.default_rng(16)
    w = fs.to_tensor(draw.normal(size=(8, 6)))

    def f(x):
        out = []
        for i in range(6):
            s = w[0][i] * x[0]
            for j in range(1, 8):
                if (i, j) != (2, 5):
                    s = s + (w[j][i] * x[j] * w[j][i] if (i, j) == (4, 3) else x[j] * w[j][i])
            out.append(s if i == 1 else s.relu())
        return fs.sum([v * (k + 1.0) for k, v in enumerate(out)])

    report_of(f, [w], draw.normal(size=(9, 8)))


def test_a_report_is_the_same_every_time():
    reports = set()
    for _ in range(3):
        net, _ = scalar_net(fs, in_place, (9, 7, 3))
        p = fs.compile(classified(fs, net))
        p.map(*tables(5, 9, 3))
        reports.add(p.report())
    assert len(reports) == 1


@pytest.mark.parametrize("way", [row_by_row, lists_of_tensors])
def test_400_000_operations_are_rewritten_in_two_seconds(way):
    widths = (784, 256, 10)
    net, parameters = scalar_net(fs, way, widths)
    f = classified(fs, net)
    X, y = tables(3, 784, 10)
    expected = eager_values(f, X, y)
    with compiled_only():
        p = fs.compile(f)
        close(p(X[0], y[0]), expected[0])
        start = time.process_time()
        close(p(X[1], y[1]), expected[1])
        seconds = time.process_time() - start
        close(p.map(X, y), expected)
        close(p.backward(X, y), expected)
    report = p.report()
    assert 400_000 < operations(report) < 420_000
    assert re.search(r"\b4\d\d,\d\d\d operations", report)
    assert matrix_products(report) == 2
    assert of_width(report, RELU, 256) == 1
    assert instructions(report) <= 30
    assert seconds < 10.0, f"{seconds:.1f} s; meant are 2, on a machine with nothing else to do"
    if way is row_by_row:
        found = [gradients_of(q) for q in parameters]
        sums, absolute = eager_backward(f, parameters, (X, y))
        for g, s, a in zip(found, sums, absolute, strict=True):
            close(g, s, scale=a)
