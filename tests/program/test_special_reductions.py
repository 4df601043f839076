"""Reductions of infinities, NaN, huge and tiny numbers and ties: every mode alike, with the derivatives stated."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from compiled import check as check_program
from compiled import compiled_only
from fastscalar import Tensor, _core, reference

INF, NAN, LARGEST = math.inf, math.nan, 1.7976931348623157e308
Found = tuple[str, float, list[float]]


def modes(name: str, values: Sequence[float]) -> Iterator[Found]:
    """(mode, value, gradient) of a reduction of the package, at a point."""
    f = getattr(fs, name)
    for mode, module in (("eager", fs), ("twin", reference)):
        leaves = [module.Tensor(v) for v in values]
        result = getattr(module, name)(leaves)
        result.backward()
        yield mode, result.data, [leaf.grad for leaf in leaves]
    array = fs.to_tensor(values)
    result = f(array)
    result.backward()
    yield "array", result.data, array.grad.tolist()
    leaves = [Tensor(v) for v in values]
    f(leaves).backward(create_graph=True)
    yield "create_graph", f(leaves).data, [float(leaf.grad) for leaf in leaves]
    units = np.eye(len(values)).tolist()
    forward = [fs.jvp(lambda *xs: f(list(xs)), tuple(values), tuple(unit)) for unit in units]
    yield "forward", forward[0][0], [slope for _, slope in forward]
    before = _core.tape_info()["kernels"]
    ordinary = [1.0 + 0.5 * k for k in range(len(values))]
    for kernels in _core.kernel_sets():
        _core._select_kernels(kernels)
        try:
            for first in (ordinary, values):  # recorded on an ordinary row, and on this one
                program = fs.compile(lambda x: f(x) * 1.0)
                with np.errstate(all="ignore"):
                    program(first)
                    rows = np.array([ordinary, values, ordinary])
                    found, slopes = program.value_and_grad(rows)
                yield f"program, {kernels}, recorded on {first}", found[1], slopes[1].tolist()
        finally:
            _core._select_kernels(before)


def close(a: float, b: float, rel: float = 1e-14) -> bool:
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return a == b or math.isclose(a, b, rel_tol=rel, abs_tol=5e-324)


def check(name: str, values: Sequence[float], value: float, gradient: Sequence[float] | None) -> None:
    for mode, found, slopes in modes(name, values):
        assert close(found, value), (name, values, mode, found, value)
        if gradient is not None:
            assert all(map(close, slopes, gradient)), (name, values, mode, slopes, gradient)


# --- norm, hypot, dist ------------------------------------------------------------------------------

SIZES = [1.0, 3e-170, 1e200, 1e-310, 1e-320, 2e307, 2.0**-500, 2.0**500, 1e-140, 1e150]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [(3.0, 4.0), (1.0, -2.0, 2.0), (0.0, 0.0, 3.0), (1.0,) * 17, (-1.0,)])
def test_norm_of_any_size(size: float, shape: tuple[float, ...]) -> None:
    values = [size * x for x in shape]
    length = math.hypot(*values)
    units = [math.ldexp(v, -600 if size > 1.0 else 600) for v in values]  # exact; their length is an ordinary number
    whole = math.hypot(*units)
    check("norm", values, length, [u / whole for u in units])


def test_norm_at_special_points() -> None:
    check("norm", [0.0, 0.0], 0.0, [0.0, 0.0])
    check("norm", [0.0, -0.0, 0.0], 0.0, [0.0, 0.0, 0.0])
    for values, slopes in [
        ([1.0, INF, 2.0], [0.0, 1.0, 0.0]),
        ([-INF, INF], [-1.0, 0.0]),
        ([NAN, -INF, 1.0], [0.0, -1.0, 0.0]),
    ]:
        check("norm", values, INF, slopes)
    check("norm", [NAN, 1.0], NAN, [NAN, NAN])
    check("norm", [0.0, NAN], NAN, None)
    check("norm", [LARGEST, LARGEST], INF, None)


@pytest.mark.dear
def test_norm_has_the_value_of_pythons_hypot_at_all_mixtures() -> None:
    special = [0.0, -0.0, 1.0, INF, -INF, NAN, 5e-324, -1e-310, LARGEST, 0.1]
    for values in itertools.product(special, repeat=3):
        expected = math.hypot(*values)
        assert close(fs.norm([Tensor(v) for v in values]).data, expected, 1e-15), values
        assert close(reference.norm([reference.Tensor(v) for v in values]).data, expected, 1e-15), values
        assert close(fs.math.hypot(*[Tensor(v) for v in values]).data, expected, 1e-15), values
        assert close(fs.math.dist([Tensor(v) for v in values], (0.0,) * 3).data, expected, 1e-15), values
    program = fs.compile(lambda x: fs.norm(x))
    rows = np.array(list(itertools.product(special, repeat=3)))
    with np.errstate(all="ignore"):
        assert all(close(v, math.hypot(*row), 1e-15) for v, row in zip(program.map(rows), rows, strict=True))
    assert len(program.report().splitlines()) == 1


@pytest.mark.parametrize("size", [1.0, 1e-170, 1e180])
@pytest.mark.parametrize("shape", [(3.0, 4.0), (0.0, 3.0, 0.0), (0.0, 0.0, 3.0), (1.0, 2.0, -2.0)])
def test_second_derivatives_of_norm(size: float, shape: tuple[float, ...]) -> None:
    x = np.array([size * s for s in shape])
    unit = np.array(shape) / math.hypot(*shape)
    expected = (np.eye(len(shape)) - np.outer(unit, unit)) / math.hypot(*shape)
    for f in (fs.norm, lambda v: fs.math.hypot(*v), lambda v: fs.math.dist(list(v), [0.0] * len(v))):
        assert fs.hessian(f)(x) * size == pytest.approx(expected, rel=1e-12, abs=1e-14)
        assert fs.hessian(f)(0.0 * x).tolist() == np.zeros((len(shape),) * 2).tolist()


def test_the_derivative_of_hypot_beside_zero_and_infinity() -> None:
    cases = [(INF, 1.0, (1.0, 0.0)), (1.0, -INF, (0.0, -1.0)), (-INF, INF, (-1.0, 0.0)), (0.0, 0.0, (0.0, 0.0))]
    for a, b, slopes in cases:
        for module in (fs, reference):
            x, y = module.Tensor(a), module.Tensor(b)
            x.hypot(y).backward()
            assert (x.grad, y.grad) == slopes
        assert fs.grad(lambda a, b: a.hypot(b), argnums=(0, 1))(Tensor(a), Tensor(b)) == slopes


# --- logsumexp and softmax -----------------------------------------------------------------------------


def test_logsumexp_of_infinities() -> None:
    check("logsumexp", [-INF, -INF], -INF, [0.0, 0.0])
    check("logsumexp", [-INF], -INF, [0.0])
    check("logsumexp", [INF, 1.0], INF, [1.0, 0.0])
    check("logsumexp", [1.0, INF, INF], INF, [0.0, 0.5, 0.5])
    check("logsumexp", [INF, -INF], INF, [1.0, 0.0])
    check("logsumexp", [-INF, 2.0, -INF], 2.0, [0.0, 1.0, 0.0])
    check("logsumexp", [NAN, -INF], NAN, None)
    check("logsumexp", [-INF, NAN, INF], NAN, None)
    check("logsumexp", [INF] * 40 + [0.0] * 3, INF, [1 / 40] * 40 + [0.0] * 3)  # more than two vectors wide
    check("logsumexp", [-INF] * 43, -INF, [0.0] * 43)
    check("logsumexp", [-INF] * 42 + [1.5], 1.5, [0.0] * 42 + [1.0])


def test_second_derivatives_of_logsumexp_at_infinity_are_zero() -> None:
    for values in ([-INF, -INF], [INF, 1.0]):
        assert not np.any(fs.hessian(fs.logsumexp)(np.array(values)))


@pytest.mark.parametrize("width", [2, 11, 43])
def test_softmax_of_infinities(width: int) -> None:
    weights = [1.0 + k for k in range(width)]
    cases = {
        "one": ([INF] + [0.0] * (width - 1), [1.0] + [0.0] * (width - 1)),
        "all": ([INF] * width, [1.0 / width] * width),
        "none": ([-INF] * width, [0.0] * width),
        "some": ([-INF] * (width - 1) + [3.0], [0.0] * (width - 1) + [1.0]),
    }
    for values, expected in cases.values():
        assert fs.softmax(fs.to_tensor(values)).tolist() == pytest.approx(expected, rel=1e-15)
        twin = reference.softmax([reference.Tensor(v) for v in values])
        assert [p.data for p in twin] == pytest.approx(expected, rel=1e-15)
        for kernels in _core.kernel_sets():
            before = _core.tape_info()["kernels"]
            _core._select_kernels(kernels)
            try:
                program = fs.compile(lambda x: fs.dot(fs.softmax(x), weights))
                found = program.map(np.array([[0.0] * width, values]))
            finally:
                _core._select_kernels(before)
            assert found[1] == pytest.approx(sum(p * w for p, w in zip(expected, weights, strict=True)), rel=1e-14)


def forward_algorithm(log_transition: Any, log_emission: Any) -> Any:
    """The log likelihood of a hidden Markov model with three states, of which the last cannot be reached."""
    alpha: list[Any] = [0.0 + log_emission[0][0], -INF + log_emission[0][1], -INF + log_emission[0][2]]
    for emission in log_emission[1:]:
        alpha = [fs.logsumexp([a + log_transition[i][j] for i, a in enumerate(alpha)]) + emission[j] for j in range(3)]
    return fs.logsumexp(alpha)


def test_a_hidden_markov_model_with_an_unreachable_state() -> None:
    transition = [[math.log(0.7), math.log(0.3), -INF], [math.log(0.4), math.log(0.6), -INF], [-1.0, -1.0, -1.0]]
    emission = np.log(np.array([[0.9, 0.2, 0.5], [0.3, 0.8, 0.5], [0.5, 0.5, 0.5], [0.1, 0.7, 0.2]]))
    program = fs.compile(lambda e: forward_algorithm(transition, e))
    value, slopes = program.value_and_grad(emission[None])
    eager = fs.grad(lambda e: forward_algorithm(transition, e))(emission)
    assert math.isfinite(value[0])
    assert np.all(np.isfinite(eager))
    assert slopes[0] == pytest.approx(eager, rel=1e-12, abs=1e-15)
    assert eager.sum(axis=1) == pytest.approx([1.0] * 4, rel=1e-12)  # the states' posterior probabilities
    assert eager[:, 2].tolist() == [0.0] * 4
    learnt = [[Tensor(t) for t in row] for row in transition]
    forward_algorithm(learnt, emission.tolist()).backward()
    assert all(math.isfinite(t.grad) for row in learnt for t in row)


# --- max, min, argmax, argmin -------------------------------------------------------------------------

ROWS = [
    [1.0, 3.0, 2.0],
    [3.0, 3.0, 1.0],
    [2.0, 3.0, 3.0],
    [1.0, 1.0, 1.0],
    [0.0, -0.0, -1.0],
    [-INF, -INF, -INF],
    [INF, 1.0, INF],
    [1.0, NAN, 5.0],
    [NAN, 2.0, NAN],
    [5.0, 1.0, NAN],
    [INF, NAN, 1.0],
]


@pytest.mark.parametrize("name", ["max", "min"])
def test_the_first_of_equals_has_the_derivative(name: str) -> None:
    place = np.argmax if name == "max" else np.argmin  # the first; NaN if there is one
    for row in ROWS:
        at = int(place(row))
        check(name, row, row[at], [float(k == at) for k in range(len(row))])
        assert getattr(fs, f"arg{name}")([Tensor(v) for v in row]) == at
        assert getattr(fs, f"arg{name}")(fs.to_tensor(row)) == at
        assert getattr(reference, f"arg{name}")([reference.Tensor(v) for v in row]) == at


def one_recording(f: Callable[..., Any], rows: np.ndarray, *more: Any) -> np.ndarray:
    program = fs.compile(f)
    values = program.map(rows, *more)
    assert len(program.report().splitlines()) == 1, program.report()
    expected = [f(fs.to_tensor(row), *[int(column[k]) for column in more]) for k, row in enumerate(rows)]
    plain = [e.data if isinstance(e, Tensor) else float(e) for e in expected]
    assert values.tolist() == pytest.approx(plain, rel=1e-13)
    return values


def test_no_decision_in_a_program() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 7)).round(1)  # with ties
    one_recording(lambda x: fs.max(x) - fs.min(x), rows)
    one_recording(lambda x: fs.max([x[0], 0.25, x[1]]) * x[2], rows)
    one_recording(lambda x: fs.argmax(x) * 2.0 + x[0], rows)
    one_recording(lambda x: fs.where(fs.argmax(x) == 3, x[0], x[1]), rows)
    one_recording(lambda x: fs.argmin(x) + fs.argmax(x) * x[0], rows)
    one_recording(lambda x: fs.logsumexp([v - fs.max(x) for v in x]), rows)
    labels = rng.integers(0, 7, 300)
    one_recording(lambda x, k: fs.where(fs.argmax(x) == k, x[0], 0.0 * x[1]), rows, labels)
    one_recording(lambda x, k: fs.max([x[0], k, x[1]]) + fs.argmin([k, x[2]]) * x[3], rows, labels)
    one_recording(lambda x, k: fs.norm([x[0], k, x[1]]) + fs.math.hypot(k, x[0], 2.0), rows, labels)
    net = fs.MLP(7, [5, 4], seed=0)
    one_recording(lambda x: fs.max(net(x)), rows)
    one_recording(lambda x: -fs.math.log(fs.math.exp(net(x)[0] - fs.max(net(x))) + 1.0), rows)


def test_argmax_is_an_index_without_a_decision() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(100, 4)).round(1)
    array, table = fs.to_tensor(rng.normal(size=4)), fs.to_tensor(rng.normal(size=(4, 3)))
    net = fs.MLP(4, [6, 4], seed=0)
    for f in (
        lambda x: x[0] * array[fs.argmax(x)],
        lambda x: x[fs.argmin(x)] * x[fs.argmax([v * v for v in x])],
        lambda x: fs.cross_entropy(x, fs.argmax(x)),
        lambda x: fs.cross_entropy([v * x[1] for v in x], fs.argmin(net(x))),
        lambda x: fs.dot(table[fs.argmax(net(x))], x[1:]) + table[fs.argmin(x), 1] + table[2, fs.argmax(x[:3])],
    ):
        one_recording(f, rows)
        with compiled_only():
            check_program(f, [array, table], rows)


def test_a_computed_index_that_is_out_of_range_raises_as_the_function_does() -> None:
    rows = np.eye(4)
    short = fs.to_tensor([1.0, 2.0, 3.0])
    for f, error in (
        (lambda x: short[fs.argmax(x)] * x[0], IndexError),
        (lambda x: fs.cross_entropy(short, fs.argmax(x)) * x[0], ValueError),
    ):
        program = fs.compile(f)
        assert program.map(rows[:3]).tolist() == [f(fs.to_tensor(row)).data for row in rows[:3]]
        for call in (program.map, program.value_and_grad, program.backward):
            with pytest.raises(error, match="row 3: "):
                call(rows)

    def caught(x: Any) -> Any:
        try:
            return short[fs.argmax(x)] * x[0]
        except IndexError:
            return x[3] * 7.0

    assert fs.compile(caught).map(rows).tolist() == [1.0, 0.0, 0.0, 7.0]


def test_argmax_as_an_index_of_a_list_holds_for_rows_that_have_the_same() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(50, 3))
    table = [10.0, 20.0, 30.0]
    for f in (
        lambda x: x[0] * table[fs.argmax(x)],
        lambda x: sum((v * v for v in x[: fs.argmin(x) + 1]), 0.0),
    ):
        program = fs.compile(f)
        expected = [f(fs.to_tensor(row)).data for row in rows]
        assert program.map(rows) == pytest.approx(expected, rel=1e-13)
        assert "they part at" in program.report()  # one recording for each place of the largest


def test_an_empty_sequence_and_rows_are_refused() -> None:
    for name in ("max", "min", "argmax", "argmin", "norm"):
        with pytest.raises(ValueError, match="at least one"):
            getattr(fs, name)([])
        for rows in ([[1.0, 2.0], [3.0, 4.0]], np.ones((2, 1)), np.ones((2, 2)), fs.to_tensor(np.ones((3, 2)))):
            with pytest.raises(ValueError, match=r"one dimension|two sequences"):
                getattr(fs, name)(rows)
    assert fs.max(np.array([1.0, 2.0])).data == 2.0
    assert fs.argmin(np.array([Tensor(1.0), 0.5])) == 1


def test_a_net_with_a_softmax_written_out_has_one_recording() -> None:
    rng = np.random.default_rng(2)
    rows, labels = rng.normal(size=(64, 6)), rng.integers(0, 4, 64)
    net = fs.MLP(6, [5, 4], seed=1)

    def loss(x: Any, label: Any) -> Any:
        logits = net(x)
        top = fs.max(logits)
        return fs.math.log(fs.sum([fs.math.exp(z - top) for z in logits])) + top - logits[label]

    program = fs.compile(loss)
    values = program.backward(rows, labels)
    assert len(program.report().splitlines()) == 1
    found = [p.grad.numpy() if hasattr(p.grad, "numpy") else np.array(p.grad) for p in net.parameters()]
    total = 0.0
    for row, label in zip(rows, labels.tolist(), strict=True):
        total = total + loss(fs.to_tensor(row), label)
    total.backward()
    assert values.sum() == pytest.approx(total.data, rel=1e-12)
    for ours, p in zip(found, net.parameters(), strict=True):
        assert ours == pytest.approx(np.array(p.grad), rel=1e-9, abs=1e-12)
