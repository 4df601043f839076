"""What recordings note about decisions: which they are, where they were taken, and whose they are."""

import operator
import threading
import warnings

import numpy as np
import pytest

import fastscalar as fs
from compiled import bits, compiled_only
from fastscalar import _core
from fastscalar.engine import _modes, testing
from fastscalar.program._graph import line_of, places_of
from fastscalar.program._trace import Recording, extract
from fastscalar.program.identities import names_kept
from threads import side_by_side


def graph_of(f, *numbers):
    """The graph of a call with Tensors."""
    recording = Recording()
    with names_kept(), recording:
        inputs = [fs.Tensor(v) for v in numbers]
        recording.inputs = [("number", x) for x in inputs]
        recording.begin()
        return extract(recording, [f(*inputs)])


def lines(graph):
    """How often it was decided, by file and line."""
    found = {}
    for place, count in places_of(graph):
        where = line_of(place)
        found[where] = found.get(where, 0) + count
    return found


def helper(t):
    return t > 0.5


def several_places(x):
    total = x * 2.0
    for k in range(3):
        if total > k:
            total = total + 1.0
    if helper(total) and helper(x):
        total = total + float(x)
    y = max([x, total, total * 2.0])
    return y if (
        x <
        y
    ) else -y


def test_every_place_is_known_by_its_line():
    here = several_places.__code__.co_firstlineno
    asked = here + 5                              # for its truth, where an `if` does
    graph = graph_of(several_places, 1.0)
    expected = {here + 3: 3, asked: 2, here + 6: 1, here + 7: 2, here + 9: 1}
    found = lines(graph)
    assert {file for file, _ in found} == {__file__}
    assert {line: n for (_, line), n in found.items()} == expected
    assert list(found) == [(__file__, line) for line in expected], "in the order in which they came up first"


def test_places_in_more_functions_than_are_remembered():
    """Equal functions, each from a code object of its own, and as many lines as there are."""
    makers = [{} for _ in range(300)]
    for k, names in enumerate(makers):
        exec(compile("\n" * k + "def f(x):\n    return x * 2.0 if x > 0.0 else x", f"file{k % 7}.py", "exec"), names)

    def f(x):
        for _ in range(2):
            for names in makers:
                x = names["f"](x) / 2.0
        return x

    assert lines(graph_of(f, 1.0)) == {(f"file{k % 7}.py", k + 2): 2 for k in range(300)}


def test_the_warning_names_the_line_where_most_versions_part():
    def f(x):
        if x[0] > 100.0:
            x = x * 2.0
        total = x[0]
        for t in x:
            total = total + (t if t > 0.0 else -2.0 * t)
        return fs.max([total, x[0]])

    X = np.array([[1.0 if k >> j & 1 else -1.0 for j in range(7)] for k in range(128)])
    p = fs.compile(f)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        p.map(X)
    (said,) = (str(w.message) for w in caught)
    assert f"more than 64 ways through f; they part at {__file__}:{f.__code__.co_firstlineno + 5}. " in said


def test_code_without_a_place():
    """A comparison that no Python code asked for."""
    assert line_of(None) == ("?", 0)
    assert list(places_of(graph_of(lambda x: x * x, 2.0))) == []


def test_guards_are_what_was_compared_and_how_it_came_out():
    def f(x, y):
        less, truncated = bool(x < y), int(y)
        return x * y if less and 3.0 == y else x + truncated

    graph = graph_of(f, 1.0, 2.5)
    assert graph.guards["op"].tolist() == [0, 7, 2]
    assert graph.guards["value"].tolist() == [1.0, 2.0, 0.0]
    assert (graph.guards["right"] >= 0).tolist() == [True, False, True]
    for name in ("left", "right"):
        nodes = graph.guards[name][graph.guards["right"] >= 0]
        assert sorted(graph.value[nodes].tolist()) in ([1.0, 2.5], [2.5, 3.0], [2.5, 2.5], [1.0, 3.0])


def test_many_decisions_of_all_kinds():
    """More than an array holds at first; the rows that they tell apart."""
    w = [fs.Tensor(v) for v in np.linspace(-1.0, 1.0, 300)]

    def f(x):
        largest, chosen, count = x * w[0], x, 0
        for t in w:
            y = t * x
            if y > largest:
                largest = y
            chosen = fs.where(y > chosen, y * 0.5, chosen)
            count += int(y * 3.0)
        return largest + chosen + count

    rows = np.array([1.0, -1.0, 0.25, -0.5, 1.0])
    expected = [f(fs.Tensor(v)) for v in rows]
    with compiled_only():
        p = fs.compile(f)
        assert bits(p.map(rows)) == bits(np.array([t.data for t in expected]))
        p.backward(rows)
    found = [t.grad for t in w]
    for t in w:
        t.grad = 0.0
    for t in expected:
        t.backward(accumulate=True)
    np.testing.assert_allclose(found, [t.grad for t in w], rtol=1e-12)


def test_a_comparison_that_outlives_its_recording_decides_nothing_any_more():
    kept = []

    def f(x):
        kept.append(x < 2.0)
        return x * 3.0

    p = fs.compile(f)
    assert p(1.0) == 3.0
    assert bool(kept[0]) is True
    assert p.map(np.array([1.0, 5.0])).tolist() == [3.0, 15.0]
    assert len(kept) == 2                         # the second call looks whether it does the same

    def g(x):
        return x * 2.0 if kept[0] else x              # not one of this recording

    assert fs.compile(g).map(np.array([1.0, 5.0])).tolist() == [2.0, 10.0]
    chosen = fs.where(kept[0], fs.Tensor(4.0), 5.0)
    assert chosen.data == 4.0


def test_a_comparison_is_made_by_recordings_only():
    from fastscalar.engine._array_ops import select
    from fastscalar.engine._traced import TracedBool

    with pytest.raises(TypeError, match="only the recording"):
        TracedBool()
    empty = TracedBool.__new__(TracedBool)
    assert not empty
    with pytest.raises(TypeError, match="where"):
        select(empty, 1.0, 2.0)


@pytest.mark.parametrize("wrong", ["1", None, [1.0], [[1.0], [2.0]], object()])
def test_where_names_what_is_not_a_number(wrong):
    for a, b in ((wrong, 1.0), (1.0, wrong), (fs.Tensor(1.0), wrong)):
        with pytest.raises((TypeError, ValueError), match="where"):
            fs.compile(lambda x, a=a, b=b: fs.where(x > 0.0, a, b))(1.0)


def test_threads_note_their_own_decisions():
    """Two recordings that take turns, each in its thread; one ends in the middle of the other."""
    turns = [threading.Event() for _ in range(4)]
    results = {}

    def waits(x):
        x = x + 1.0 if x > 0.0 else x
        turns[0].set()
        assert turns[1].wait(20)
        x = x + 1.0 if x < 5.0 else x
        turns[2].set()
        assert turns[3].wait(20)
        return x + 1.0 if x != 7.0 else x

    def goes(x):
        assert turns[0].wait(20)
        x = x * 2.0 if x > 1.0 else x
        turns[1].set()
        assert turns[2].wait(20)
        return x * 2.0 if x > 3.0 else x

    def record(f, number):
        results[f] = graph_of(f, number)
        turns[3].set()

    threads = [threading.Thread(target=record, args=a) for a in ((waits, 1.0), (goes, 2.0))]
    for t in threads:
        t.start()
    for t in threads:
        t.join(300)
    for f, ops in ((waits, [4, 0, 3]), (goes, [4, 4])):
        assert results[f].guards["op"].tolist() == ops
        assert results[f].codes == [f.__code__]
    assert not _modes.is_recording()


def doubled(x):
    """An operation by hand, which no program can replay."""
    out = fs.Tensor(2.0 * x.data, (x,))
    out._backward = lambda: None
    return out


def without_gradients(w):
    with fs.no_grad():
        return 1.0 / w.log()


def raised(w):
    with pytest.raises(ZeroDivisionError):
        w / fs.Tensor(0.0)


# what another thread does while this one records
OTHERS = {
    "a logarithm": lambda w: w.log(),
    "a quotient": lambda w: 1.0 / w,
    "an operation by hand": doubled,
    "in no_grad": without_gradients,
    "arrays": lambda w: fs.softmax(fs.to_tensor([1.0, 2.0]) * w) / w,
    "a gradient": lambda w: (w.sqrt() / 3.0).backward(),
    "a program": lambda w: fs.compile(lambda x: x.log() * w)(3.0),
    "one that falls back": lambda w: fs.compile(lambda x: doubled(x) / w)(3.0),
    "a loop": lambda w: fs.compile(lambda x: fs.loop(3, lambda s: (s * w).sqrt(), x) / w)(3.0),
    "what raises": raised,
}


@pytest.mark.filterwarnings("ignore::fastscalar.CompileWarning")     # of the other thread's own
@pytest.mark.parametrize("name", OTHERS)
def test_a_recording_takes_nothing_in_that_another_thread_does(name):
    foreign, w, errors = fs.Tensor(4.0), fs.Tensor(3.0), []

    def elsewhere():
        try:
            OTHERS[name](foreign)
        except BaseException as error:
            errors.append(error)

    def f(x):
        y = x * w
        for _ in range(2):
            other = threading.Thread(target=elsewhere)
            other.start()
            other.join(60)
            y = y + x.log()
        return y

    graph = graph_of(f, 2.0)
    assert not errors
    assert graph.operations == 5
    assert graph.op.tolist() == graph_of(lambda x: x * w + x.log() + x.log(), 2.0).op.tolist()
    assert [t is w for t in graph.captures] == [True]
    assert not len(graph.guards)


@pytest.mark.dear
def test_programs_that_are_recorded_at_once_know_nothing_of_each_other():
    start, found = threading.Barrier(4), []

    def work(number):
        try:
            for k in range(12):
                w = fs.Tensor(1.0 + number)
                program = fs.compile(lambda x, w=w: (x / w).log() + sum((x / (w + j) for j in range(20)), x.sqrt()))
                start.wait(120)
                program.map(np.array([1.0, 2.0, 3.0]))
                found.append((number, k, program.report(), [t is w for t in program.parameters]))
        except BaseException:
            start.abort()
            raise

    assert not side_by_side(work, 4)
    assert len(found) == 48
    assert {report for _, _, report, _ in found} == {found[0][2]}
    assert all(own == [True] for *_, own in found)
    assert "eager" not in found[0][2]


@pytest.mark.skipif(_core.tape_info()["stress"], reason="every step allocates, in stress mode")
def test_every_allocation_of_a_recording_that_decides_may_be_refused():
    def f(x):
        largest = x
        for k in range(80):
            largest = x * k if x * k > largest else largest
            largest = fs.where(x > k, x, largest)
        return largest

    for k in range(2000):
        program = fs.compile(f)
        testing.fail_after(k)
        try:
            assert program(2.0) == 158.0
        except MemoryError:
            testing.fail_after(-1)
            assert program(2.0) == 158.0
        finally:
            done = testing.requests_left() >= 0
            testing.fail_after(-1)
        if done:
            break
    else:
        pytest.fail("there is no end of allocations")
    assert k >= 3


@pytest.mark.parametrize("order", ["as they come", "sorted", "turned"])
def test_a_tree_of_decisions_is_gone_through_again_and_again(order):
    """Rows leave a recording for one that all of them fit, or for one that they leave, too: each has its own values and
    gradients, whoever computed them before."""

    def f(x):
        a, b, c = x
        y = a * b
        for k in range(6):
            if y > 0.4 * k:
                y = y + c * a if b > 0.1 * k else y - b * k
            elif c < 0.0:
                return y * c
        return y * y if y > a else fs.math.exp(y * 0.1)

    X = np.random.default_rng(1).uniform(-1.5, 1.5, (300, 3))
    if order != "as they come":
        X = X[np.argsort(X[:, 0])]
    if order == "turned":
        X = X[::-1].copy()
    program = fs.compile(f)
    program.value_and_grad(X[::7])
    for some in (X, X[::-1].copy(), X[40:60], X):
        values, gradients = program.value_and_grad(some)
        for row, value, gradient in zip(some, values, gradients, strict=True):
            x = fs.to_tensor(row.tolist())
            y = f(x)
            y.backward()
            assert value == pytest.approx(y.data, rel=1e-12)
            assert gradient == pytest.approx(np.asarray(x.grad), rel=1e-11, abs=1e-13)


@pytest.mark.parametrize("width", [3, 40], ids=["few rows each", "more than a batch each"])
def test_rows_of_many_ways_have_the_gradients_that_they_have_alone(width):
    """Also where an argument is one for all rows, or a whole number, where the order of additions matters, and where a
    result is weighed."""
    weights = np.linspace(0.5, 1.5, 8)

    def f(x, k, shared, by, w):
        y = fs.sum(x * w) * shared + by
        for step in range(4):
            if y > float(step):
                y = y - x[step] * by
                if k > step:
                    y = y * x[step]
        return y

    rng = np.random.default_rng(3)
    n = 20 * width
    X, k, by = rng.normal(size=(n, 8)), rng.integers(0, 3, n), rng.normal(size=n)
    X[::7, 0], X[3::11, 1] = 1e300, np.nan
    program, alone = fs.compile(f, shared="w"), fs.compile(f, shared="w")
    for _ in range(3):
        values, (by_x, by_by) = program.value_and_grad(X, k, 0.5, by, weights, argnums=(0, 3))
    for i in range(n):
        value, (one_x, one_by) = alone.value_and_grad(
            X[i : i + 1], k[i : i + 1], 0.5, by[i : i + 1], weights, argnums=(0, 3)
        )
        assert bits(values[i]) == bits(value[0])
        assert bits(by_x[i]) == bits(one_x[0])
        assert bits(by_by[i]) == bits(one_by[0])


@pytest.mark.parametrize("kernels", _core.kernel_sets())
@pytest.mark.parametrize("compare", [operator.lt, operator.le, operator.eq, operator.ne, operator.gt, operator.ge])
def test_every_comparison_parts_rows_as_the_function_does(compare, kernels):
    def f(x):
        if compare(x[0], x[1]):
            return x[0] * 2.0 if compare(x[2], 1.0) else x[1] * 3.0
        return x[2] * 5.0 if compare(1.0, x[0]) else x[0] * 7.0

    edges = np.array([-np.inf, -1.0, -0.0, 0.0, 1.0, np.inf, np.nan])
    X = np.random.default_rng(2).choice(edges, (300, 3))
    before = _core.tape_info()["kernels"]
    try:
        _core._select_kernels(kernels)
        program = fs.compile(f)
        for some in (X, X[:7], X[:1], X[::-1].copy()):
            plain = [f(fs.to_tensor(row.tolist())).data for row in some]
            np.testing.assert_array_equal(program.value_and_grad(some)[0], plain)
    finally:
        _core._select_kernels(before)
