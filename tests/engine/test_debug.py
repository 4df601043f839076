"""Looking inside: drawings, summaries, where an inf or a NaN came from."""

from __future__ import annotations

import contextlib
import gc
import html.parser
import io
import math
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import _core, debug
from fastscalar.debug import lines
from fastscalar.engine import _functions, testing

PAGE = Path(__file__).resolve().parents[2] / "docs" / "debug.md"
STRESS = _core.tape_info()["stress"]


def long_chain(steps: int) -> Any:
    x = one = fs.Tensor(1.0)
    for _ in range(steps):
        x = x * one
    return x


def boxes(dot: str) -> dict[str, str]:
    """The text of each box, without its markup."""
    found = re.findall(r"^    (n\d+(?:_\d)?|summary) \[label=<(.*)>\]$", dot, re.M)
    return {key: re.sub(r"(<[^>]*>)+", "|", label).strip("|") for key, label in found}


def arrows(dot: str) -> list[tuple[str, str, str]]:
    found = re.findall(r'^    (\w+) -> (\w+)(?: \[label="(.*)"\])?$', dot, re.M)
    assert len(found) == dot.count("->")
    return found


class Balanced(html.parser.HTMLParser):
    """HTML-like labels have to be well formed, or Graphviz refuses the whole picture."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


# --- drawing --------------------------------------------------------------------------------------


def test_scalar_graph() -> None:
    a, b = fs.Tensor(2.0), fs.Tensor(-3.0)
    b.label = "beta <&>"
    y = (a * b - 1.5).relu() / a
    y.backward()
    dot = debug.to_dot(y, labels={"a": a})
    found = boxes(dot)
    assert list(found.values()) == [
        "a|data 2|grad 0",
        "beta &lt;&amp;&gt;|data -3|grad 0",
        "×|data -6|grad 0",
        "1.5",
        "−|data -7.5|grad 0",
        "relu|data 0|grad 0.5",
        "÷|data 0|grad 1",
    ]
    assert arrows(dot) == [
        ("n0", "n2", ""),
        ("n1", "n2", ""),
        ("n2", "n4", "left"),
        ("n3", "n4", "right"),
        ("n4", "n5", ""),
        ("n5", "n6", "left"),
        ("n0", "n6", "right"),
    ]
    Balanced("".join(re.findall(r"label=<(.*)>\]", dot)))


def test_layers_are_one_box() -> None:
    net = fs.MLP(4, [3, 2], seed=0)
    loss = fs.cross_entropy(net(np.array([[0.0, 1.0, 0.0, 0.5], [1.0, 2.0, 3.0, 4.0]])), [1, 0])
    dot = debug.to_dot(loss, labels={"net": net, "other": 3, "text": "x"})
    names = [text.split("|")[0] for text in boxes(dot).values()]
    assert sorted(names) == sorted(
        ["8 numbers", "linear", "relu", "linear", "cross_entropy"]
        + [f"net.linears[{k}].{p}" for k in range(2) for p in "wb"]
    )
    text = " ".join(boxes(dot).values())
    assert "net.linears[0].w|shape 4 × 3|" in text
    assert "relu|shape 2 × 3|" in text
    assert "cross_entropy|label 1, 0|" in text
    assert "8 numbers|data 0 … 4" in text
    assert sorted(role for _, _, role in arrows(dot)) == sorted(["x", "w", "b", "x", "w", "b", "logits", ""])
    assert str(debug.to_dot(net([1.0, 2.0, 3.0, 4.0]))).count("linear</TD>") == 2  # an array is drawn too


def test_parts_of_arrays() -> None:
    w = fs.to_tensor([[1.0, 2.0], [3.0, 4.0]])
    y = w[1][0] * w[0, 1] + fs.sum(w[0])
    roles = [role for _, _, role in arrows(debug.to_dot(y))]
    assert roles == ["[1, 0]", "[0, 1]", "2 of 4", "", ""]
    t = w[1][1]
    assert "t at 3" in debug.to_dot(y, labels={"t": t})
    mixed = fs.sum([w[0][0], w[1][1], fs.Tensor(5.0), 6])
    assert [role for _, _, role in arrows(debug.to_dot(mixed))] == ["2 of 4", "", ""]


def test_operations_of_the_user_and_of_arrays() -> None:
    a = fs.Tensor(3.0)
    out = fs.Tensor(9.0, (a,), "square")
    assert [text.split("|")[0] for text in boxes(debug.to_dot(out)).values()] == ["leaf", "square"]
    assert [text.split("|")[0] for text in boxes(debug.to_dot(fs.Tensor(9.0, (a,)))).values()] == ["leaf", "custom"]
    x = fs.to_tensor([1.0, 2.0])
    assert [text.split("|")[0] for text in boxes(debug.to_dot(2 - x)).values()] == ["array", "−", "2"]
    assert boxes(debug.to_dot(a)) == {"n0": "leaf|data 3|grad 0"}


def test_every_operation_of_the_table_has_a_box() -> None:
    x = fs.Tensor(0.25)
    for code, name, arity, method in _functions.operations():
        if method and arity == 1 and name not in ("acosh", "atanh"):
            dot = debug.to_dot(getattr(x, name)())
            assert boxes(dot)["n1"].split("|")[0] == name, code


def test_draw_is_the_same_text() -> None:
    graphviz = pytest.importorskip("graphviz")
    a = fs.Tensor(2.0)
    picture = debug.draw(a * a, labels={"a": a})
    assert isinstance(picture, graphviz.Digraph)
    assert picture.source == debug.to_dot(a * a, labels={"a": a})


@pytest.mark.parametrize("scalars", [True, False])
def test_graphviz_reads_it(scalars: bool) -> None:
    graphviz = pytest.importorskip("graphviz")
    net = fs.MLP(4, [3, 2], seed=0)
    loss = fs.cross_entropy(net([0.0, math.inf, -1.0, 0.5]), 1)
    if scalars:
        loss = (loss % 3.0 // 2.0 - fs.where(loss > 1, loss, -loss)) ** 2
        loss.label = '"<quoted> & more \\ {x|y}'
    for picture in (debug.draw(loss), debug.draw(loss, max_nodes=1)):
        try:
            svg = picture.pipe(format="svg", encoding="utf-8")
        except graphviz.ExecutableNotFound:
            pytest.skip("the program dot is not installed")
        assert "</svg>" in svg


def test_without_graphviz(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "graphviz", None)
    a = fs.Tensor(2.0, label="<a>")
    y = (a * 3.0 + fs.to_tensor([1.0, 2.0]).sum()).tanh()
    y.backward()
    picture = debug.draw(y, labels={"y": y})
    drawn = ElementTree.fromstring(picture._repr_svg_())
    assert len(drawn.findall("{*}rect")) == len(boxes(debug.to_dot(y))) == 7
    assert len(drawn.findall("{*}path")) == 6
    assert {"<a>", "number", "y  tanh"} <= {text.text for text in drawn.findall("{*}text")}
    assert "<svg" in y._repr_html_()
    assert "<svg" not in a._repr_html_() + long_chain(100)._repr_html_()
    assert "digraph" in debug.to_dot(a)
    picture.save(tmp_path / "graph.svg")
    assert (tmp_path / "graph.svg").read_text(encoding="utf-8") == picture.svg
    assert "nodes, " in debug.draw(long_chain(300)).svg


def test_limits() -> None:
    y = long_chain(5)
    assert len(boxes(debug.to_dot(y, max_nodes=6))) == 6
    assert list(boxes(debug.to_dot(y, max_nodes=5))) == ["summary"]
    assert list(boxes(debug.to_dot(long_chain(300)))) == ["summary"]
    assert len(boxes(debug.to_dot(long_chain(299)))) == 300
    for wrong in (0, -1, True, 2.0, "9"):
        with pytest.raises(ValueError, match="max_nodes"):
            debug.to_dot(y, max_nodes=wrong)
    for function in (debug.to_dot, debug.draw, debug.summary, debug.find_nonfinite):
        for wrong in (2.0, [y], None, "x"):
            with pytest.raises(TypeError, match="expected a Tensor or a TensorArray"):
                function(wrong)
        with pytest.raises(ValueError, match="never initialised"):
            function(fs.Tensor.__new__(fs.Tensor))


def test_names_of_things_that_hold_themselves() -> None:
    a = fs.Tensor(2.0)
    loop: list[Any] = [a]
    loop.append(loop)
    assert "loop[0]" in debug.to_dot(a * a, labels={"loop": loop})
    module = fs.MLP(2, [2], seed=0)
    module.me = module
    assert "m.linears[0].b" in debug.to_dot(module([1.0, 2.0]), labels={"m": module})


# --- big and deep ---------------------------------------------------------------------------------


@pytest.mark.big
def test_a_million_nodes() -> None:
    y = long_chain(1_000_000)
    start = time.process_time()
    dot = debug.to_dot(y)
    s = debug.summary(y)
    assert debug.find_nonfinite(y) is None
    assert time.process_time() - start < 5
    assert "1,000,001 nodes" in dot
    assert list(boxes(dot)) == ["summary"]
    assert s.depth == s.operations["*"] == 1_000_000


@pytest.mark.big
def test_deep_chain_drawn_whole() -> None:
    assert len(boxes(debug.to_dot(long_chain(20_000), max_nodes=30_000))) == 20_001


# --- summary --------------------------------------------------------------------------------------


def test_summary_of_scalars() -> None:
    a, b = fs.Tensor(2.0), fs.Tensor(3.0)
    unrelated = a * 7.0
    x = a * b
    y = x + x * x + 1.0
    s = debug.summary(y)
    assert s.operations == {"*": 2, "+": 2}
    assert (s.nodes, s.leaves, s.constants, s.wide, s.arrays, s.depth) == (7, 2, 1, 0, 0, 4)
    assert 7 * 32 <= s.bytes <= 7 * 48
    assert str(s).startswith("7 nodes, 4 operations, depth 4, ")
    assert debug.summary(a).depth == 0
    assert str(debug.summary(a)).startswith("1 node, 0 operations, depth 0")
    assert unrelated.data == 14.0


def test_summary_of_layers() -> None:
    net = fs.MLP(784, [256, 10], seed=0)
    out = net(np.full(784, 0.5))
    s = debug.summary(fs.cross_entropy(out, 7))
    assert s.operations == {"linear": 2, "relu": 1, "cross_entropy": 1}
    assert (s.wide, s.arrays, s.depth) == (4, 4, 4)
    assert s.leaves == 784 * 256 + 256 + 256 * 10 + 10
    assert s.nodes == s.leaves + 256 + 256 + 10 + 1
    assert debug.summary(out).depth == debug.summary(out[3]).depth == 3
    assert debug.summary(fs.sum([1.0, 2.0])).depth == 1  # of numbers only


def test_summary_counts_what_parents_show() -> None:
    rng = np.random.default_rng(0)
    pool = [fs.Tensor(float(v)) for v in rng.uniform(0.5, 1.5, 4)] + list(fs.to_tensor([1.0, 2.0]))
    for _ in range(60):
        a, b = (pool[k] for k in rng.integers(0, len(pool), 2))
        pool.append([a * b, a + b, a - 0.5, a.sin(), fs.sum([a, b, 1.0])][rng.integers(5)])
    root = pool[-1]
    seen: dict[Any, int] = {}
    todo = [root]
    while todo:
        t = todo[-1]
        missing = [p for p in t._parents if p not in seen]
        if missing:
            todo.extend(missing)
        else:
            seen[t] = 1 + max((seen[p] for p in t._parents), default=-1)
            todo.pop()
    s = debug.summary(root)
    assert s.depth == seen[root]
    counted = sum(t._op not in ("", "const") for t in seen)
    assert sum(s.operations.values()) == counted
    assert s.constants == sum(t._op == "const" for t in seen)


# --- find_nonfinite -------------------------------------------------------------------------------


def test_everything_finite() -> None:
    net = fs.MLP(4, [3, 2], seed=0)
    loss = fs.cross_entropy(net([1.0, 2.0, 3.0, 4.0]), 0)
    assert debug.find_nonfinite(loss) is None
    assert debug.find_nonfinite(fs.Tensor(1.0)) is None


def test_scalar_overflow() -> None:
    a = fs.Tensor(1e200)
    square = a * a
    report = debug.find_nonfinite((square - square) * 2.0)
    assert report is not None
    assert report.tensor is square
    assert (report.operation, report.value, report.where) == ("*", math.inf, None)
    assert report.operands == (a, a)
    assert str(report) == "* made inf from finite operands\n  1e+200 * 1e+200 = inf"


def test_the_oldest_comes_first() -> None:
    a = fs.Tensor(1e200)
    first, second = a * a, a * a * a
    assert debug.find_nonfinite(second + first).tensor is first


def test_nan_of_infinite_numbers() -> None:
    a = fs.Tensor(math.inf)
    a.label = "speed"
    difference = a - a
    report = debug.find_nonfinite(difference + 1.0)
    assert report.tensor is difference
    assert "from infinite operands" in str(report)
    report = debug.find_nonfinite(a * 2.0)
    assert report.tensor is a
    assert str(report) == "a leaf is inf from the start\n  speed"
    assert math.isnan(debug.find_nonfinite(fs.Tensor(1.0) + math.nan).value)


@pytest.mark.parametrize(
    ("make", "operation", "output"),
    [
        (lambda x: x.log(), "log", 1),
        (lambda x: 1.0 / x, "/", 1),
        (lambda x: x / x, "/", 1),
        (lambda x: x * 1e308 * 10.0, "*", 0),
        (lambda x: fs.to_tensor([1.0, -1.0]).log(), "log", 1),
    ],
)
def test_arrays_follow_ieee(make: Any, operation: str, output: int) -> None:
    y = make(fs.to_tensor([1.0, 0.0]))
    for root in (y, y.sum(), y[output] + 1.0, fs.logsumexp(y)):
        report = debug.find_nonfinite(root)
        assert report.operation == operation
        assert "from finite operands" in str(report)
        assert f"output {output} of 2" in str(report)


def test_overflow_in_a_layer() -> None:
    net = fs.MLP(4, [3, 2], seed=0)
    net.linears[0].w.data[0, 1] = net.linears[0].w.data[1, 1] = 1e308
    hidden = net.linears[0]([10.0, 10.0, 1.0, 1.0])
    loss = fs.cross_entropy(net.linears[1](hidden.relu()), 0)
    report = debug.find_nonfinite(loss)
    assert (report.operation, report.value) == ("linear", math.inf)
    assert report.tensor is hidden[1]
    assert "output 1 of 3" in str(report)
    assert "1e+308" in str(report)
    assert len(report.operands) == 4 + 1  # the column of weights, the bias; the inputs are numbers


def test_weights_of_a_list_of_tensors() -> None:
    x = [fs.Tensor(1e308), fs.Tensor(1e308)]
    y = fs.Linear(2, 1, init="article", seed=0)
    y.w.data = [[10.0], [10.0]]
    report = debug.find_nonfinite(y(x)[0])
    assert report.operation == "linear"
    assert report.operands[:2] == tuple(x)
    assert debug.find_nonfinite(fs.sum(x)).operation == "sum"
    assert debug.find_nonfinite(fs.dot(x, x)).operation == "dot"
    assert debug.find_nonfinite(fs.squared_loss([x[0]], [0.0])).operation == "squared_loss"


def test_numbers_that_came_in() -> None:
    net = fs.MLP(2, [2], seed=0)
    report = debug.find_nonfinite(fs.cross_entropy(net([1.0, math.nan]), 0))
    assert report.operation == "linear"
    assert "plain numbers" in str(report)
    net.linears[0].w.data[0, 1] = math.nan
    report = debug.find_nonfinite(fs.cross_entropy(net([1.0, 1.0]), 0))
    assert report.tensor is net.linears[0].w[0][1]
    assert "element 1 of an array" in str(report)


def test_values_as_they_are_now() -> None:
    a = fs.Tensor(2.0)
    y = a * 3.0
    y.data = math.inf
    assert debug.find_nonfinite(y).tensor is y
    y.data = 6.0
    assert debug.find_nonfinite(y) is None


# --- detect_anomaly -------------------------------------------------------------------------------


def line() -> int:
    """The line of the caller."""
    return sys._getframe(1).f_lineno


def test_names_file_and_line() -> None:
    with debug.detect_anomaly():
        x = fs.Tensor(1e200)
        y, here = x * x, line()
        report = debug.find_nonfinite(y + 1.0)
    assert report.where == f"{__file__}:{here}"
    assert f"recorded at {__file__}:{here}: y, here = x * x, line()" in str(report)
    assert debug.find_nonfinite(y).where is None  # forgotten


def test_the_line_is_the_callers_not_the_packages() -> None:
    net = fs.MLP(2, [3, 2], seed=0)
    net.linears[1].w.data = 1e308
    with debug.detect_anomaly():
        loss, here = fs.cross_entropy(net([10.0, 1000.0]), 0), line()
        assert debug.find_nonfinite(loss).where == f"{__file__}:{here}"
        y, here = fs.log_softmax(fs.to_tensor([1.0, 0.0]).log()), line()
        assert debug.find_nonfinite(y).where == f"{__file__}:{here}"
        z, here = sum(fs.Tensor(v) for v in (1e308, 1e308)), line()
        assert debug.find_nonfinite(z).where == f"{__file__}:{here}"
        assert f"test_debug.py:{here}" in debug.to_dot(z)
    assert "test_debug.py" not in debug.to_dot(z)


def test_lines_stay_with_their_nodes() -> None:
    """Collections move nodes; before and beside them others die."""
    kept = []
    with debug.detect_anomaly():
        for k in range(300):
            junk = [fs.Tensor(float(k)) * 2.0 for _ in range(k % 7)]
            kept.append((fs.Tensor(1e200) * 1e200, line()))
            kept.append((fs.sum([fs.Tensor(1e308), 1e308]), line()))
            if k % 5 == 0:
                wide, here = fs.to_tensor([1.0, 0.0, 2.0]).log(), line()
                kept.append((wide[1], here))
            del junk
            if k % 40 == 0:
                testing.collect()
            if k % 3 == 0:
                del kept[len(kept) // 2]
        for _ in range(0 if STRESS else 100_000):
            fs.Tensor(1.0)
        testing.collect()
        for y, here in kept:
            assert debug.find_nonfinite(y).where == f"{__file__}:{here}"


def test_before_the_block_nothing_is_known() -> None:
    x = fs.Tensor(1e200)
    y = x * x
    with debug.detect_anomaly():
        report = debug.find_nonfinite(y * 2.0)
    assert report.tensor is y
    assert report.where is None


def test_backward_names_the_operation() -> None:
    with debug.detect_anomaly():
        x = fs.Tensor(0.0)
        product, here = x * 1.0, line()
        y = product.sqrt() - (x * 1.0).sqrt()
        with pytest.raises(FloatingPointError) as caught:
            y.backward()
    message = str(caught.value)
    assert "backward of *" in message
    assert "0.0 * 1.0 = 0.0" in message
    assert f"{__file__}:{here}" in message
    y.backward()  # outside there is no error
    assert math.isnan(x.grad)
    testing.check()


def test_an_infinite_gradient_that_meets_a_zero() -> None:
    with debug.detect_anomaly():
        x = fs.Tensor(0.0)
        product, here = x * x, line()
        y = product.sqrt()
        with pytest.warns(RuntimeWarning, match="a gradient of inf met a slope of 0") as caught:
            y.backward()
    assert x.grad == 0.0
    assert [str(w.message).count("zero sends zero") for w in caught] == [1]
    assert f"{__file__}:{here}" in str(caught[0].message)
    testing.check()


def test_backward_in_a_layer() -> None:
    net = fs.MLP(4, [3, 2], seed=0)
    with debug.detect_anomaly():
        fs.cross_entropy(net([1.0, 2.0, 3.0, 4.0]), 0).backward()
        net.linears[0].w.data[0, 1] = math.inf
        net.linears[0].b.data[1] = 0.0
        fs.sgd(net.parameters(), lr=0.1)
        loss, here = fs.cross_entropy(net([-1.0, 1.0, 1.0, 1.0]), 0), line()
        assert debug.find_nonfinite(loss) is not None
        loss.backward()  # relu(-inf) = 0: no NaN
        net.linears[1].w.data = math.inf
        loss, here = fs.cross_entropy(net([0.5, 1.0, 1.0, 1.0]), 0), line()
        with pytest.raises(FloatingPointError, match="backward of linear") as caught:
            loss.backward()
    assert f"{__file__}:{here}" in str(caught.value)
    testing.check()


def test_in_fit() -> None:
    net = fs.MLP(2, [3, 2], seed=0)
    zero = fs.Tensor(0.0)

    def loss(output: Any, label: Any) -> Any:
        return fs.cross_entropy(output, label) + (zero * 1.0).sqrt() - (zero * 1.0).sqrt()

    with debug.detect_anomaly(), pytest.raises(FloatingPointError, match=r"backward of \*") as caught:
        fs.fit(net, np.ones((4, 2)), np.array([0, 1, 0, 1]), loss=loss, epochs=1, progress=False)
    assert f"{__file__}:{loss.__code__.co_firstlineno + 1}" in str(caught.value)
    testing.check()


def test_derivatives_of_derivatives() -> None:
    x = fs.Tensor(0.0)
    with debug.detect_anomaly():
        value, here = x.abs().sqrt() * 0.0, line()
        assert debug.find_nonfinite(value) is None
        assert here
        second = fs.grad(fs.grad(lambda t: t * t * t))(fs.Tensor(2.0))
        assert second.data == 12.0
        assert debug.find_nonfinite(second) is None
    testing.check()


def test_backward_through_weights() -> None:
    """A gradient of weights that waits in its factored form is looked at too, and outputs that are reached alone."""
    net = fs.Linear(2, 2, seed=0)
    x = fs.to_tensor([[math.inf, 1.0], [-math.inf, 1.0]])
    with debug.detect_anomaly():
        y = net(x)
        for root in (y[0][0] + y[1][0], (y * 1.0).sum()):
            with pytest.raises(FloatingPointError, match="backward of linear"):
                root.backward()
            testing.check()


def test_backward_of_the_users_operation() -> None:
    with debug.detect_anomaly():
        a = fs.Tensor(2.0)
        out = fs.Tensor(4.0, (a,), "mine")

        def step() -> None:
            a.grad += math.nan

        out._backward = step
        with pytest.raises(FloatingPointError, match="backward of mine"):
            (out * 3.0).backward()
    testing.check()


def test_gradients_are_the_same_while_watched() -> None:
    net = fs.MLP(4, [5, 3], seed=1)
    rows = np.random.default_rng(1).normal(size=(6, 4))

    def gradients() -> list[Any]:
        a = fs.Tensor(0.3)
        loss = fs.cross_entropy(net(rows), [0, 1, 2, 0, 1, 2]) + net([a, a * a, 1.0, a.sin()])[1] ** 2
        loss.backward()
        loss.backward(accumulate=True)
        return [loss.data, a.grad, *(np.asarray(p.grad).tolist() for q in net.linears for p in (q.w, q.b))]

    plain = gradients()
    with debug.detect_anomaly():
        watched = gradients()
    assert watched == plain


def test_stale_nan_gradients_are_no_alarm() -> None:
    a, b = fs.Tensor(1.0), fs.to_tensor([1.0, 2.0])
    a.grad = math.nan
    b.grad = math.nan
    with debug.detect_anomaly():
        (a * b[0] + b.sum()).backward()
        b.grad = math.nan
        (a * b[0]).backward()
    assert a.grad == 1.0
    assert math.isnan(b.grad[1])


def test_nested_and_left_by_an_exception() -> None:
    before = debug.tape_info()

    def fails() -> None:
        with debug.detect_anomaly():
            with debug.detect_anomaly():
                x = fs.Tensor(1e200)
            y, here = x * x, line()
            assert debug.find_nonfinite(y).where == f"{__file__}:{here}"
            x / 0.0

    with pytest.raises(ZeroDivisionError):
        fails()
    testing.check()  # also: no column of notes, scalar operations on the fast path
    assert not lines.numbers
    assert not lines.places
    gc.collect()
    assert debug.tape_info()["pinned"] <= before["pinned"]


def test_within_no_grad_and_the_other_way_round() -> None:
    x = fs.Tensor(1e200)
    with fs.no_grad(), debug.detect_anomaly():
        y, here = x * x, line()
        assert debug.find_nonfinite(y).where == f"{__file__}:{here}"
    with debug.detect_anomaly():
        with fs.no_grad():
            y = x * x
        z, here = x * x, line()
        assert debug.find_nonfinite(z).where == f"{__file__}:{here}"
    testing.check()


def test_refused_memory() -> None:
    x = fs.Tensor(2.0)
    for function in (debug.summary, debug.find_nonfinite, debug.to_dot):
        testing.fail_after(0)
        try:
            with pytest.raises(MemoryError):
                function(x)
        finally:
            testing.fail_after(-1)
    testing.fail_after(0)
    try:
        with pytest.raises(MemoryError), debug.detect_anomaly():
            pass
    finally:
        testing.fail_after(-1)
    testing.check()


def test_memory_of_a_loop_stays_flat() -> None:
    net = fs.MLP(20, [30, 10], seed=0)
    x = np.linspace(0.0, 1.0, 20)
    testing.collect()
    before = debug.tape_info()["nodes"]          # of what other tests keep
    with debug.detect_anomaly():
        for _ in range(50 if STRESS else 3000):
            loss = fs.cross_entropy(net(x), 3)
            loss.backward()
            fs.sgd(net.parameters(), lr=0.01)
    testing.collect()
    assert debug.tape_info()["nodes"] < before + 100_000
    assert loss.data < 1.0


def test_several_threads() -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for k in range(20 if STRESS else 200):
                with debug.detect_anomaly():
                    x = fs.Tensor(1e200)
                    y, here = x * x, line()
                    if k % 3:
                        time.sleep(0)
                    assert debug.find_nonfinite(y + 1.0).where == f"{__file__}:{here}"
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(300)
    assert not errors
    testing.check()


def test_everything_while_all_moves(stress: None) -> None:
    net = fs.MLP(3, [2], seed=0)
    with debug.detect_anomaly():
        x = fs.Tensor(0.5)
        y = net([x, x * 2.0, x.sin()])
        loss, here = fs.cross_entropy(y, 1) + x * 1e308 * 10.0, line()
        assert debug.summary(loss).operations["linear"] == 1
        assert "linear" in debug.to_dot(loss, labels={"net": net})
        assert debug.find_nonfinite(loss).where == f"{__file__}:{here}"
        loss.backward()
    testing.check()


# --- the page -------------------------------------------------------------------------------------


def test_the_page() -> None:
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert [language for language, _ in blocks] == ["python", "text"] * (len(blocks) // 2)
    namespace: dict[str, object] = {"__name__": "page"}
    for (_, code), (_, output) in zip(blocks[::2], blocks[1::2], strict=True):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "docs/debug.md", "exec"), namespace)
        assert printed.getvalue() == output
