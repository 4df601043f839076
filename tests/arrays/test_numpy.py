"""What is written with NumPy's functions, options and errors gives what NumPy gives, or is refused.

calls.txt has a call a line, of arrays a, b (3, 4), v, w (4), m (3, 3), s (2, 3, 3; each positive definite) and a number
t: in plain code against NumPy's own result of numbers, under `fs.grad` against its central differences, and compiled
against the plain call.  A line that begins with "-" is of what NumPy has and a TensorArray has not.
"""

from __future__ import annotations

import ast
import math
import pathlib
import re
from typing import Any

import numpy as np
import pytest

import fastscalar as fs

LINES = pathlib.Path(__file__).with_name("calls.txt").read_text().splitlines()
CALLS = [line for line in LINES if line and line[0] not in "#-"]
REFUSED = [line[1:].strip() for line in LINES if line.startswith("-")]
NAMES = {"np": np, "inf": math.inf, "nan": math.nan}
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.0.0", reason="functions and errors of NumPy 2"),
]


def points(seed: int, odd: bool = False) -> dict[str, Any]:
    """What the calls are of; odd: with NaN, infinities, zeros and equals in it."""
    draw = np.random.default_rng(seed)
    a, b, v, w = draw.normal(size=(3, 4)), draw.normal(size=(3, 4)), draw.normal(size=4), draw.normal(size=4)
    m, s = draw.normal(size=(3, 3)), draw.normal(size=(2, 3, 3))
    if odd:
        a[0, 0], a[1, 2], a[2, 1], a[1, :2] = math.nan, math.inf, -math.inf, (-0.0, 0.0)
        b[0, 1], b[1, 2], b[2, 2], b[0, 3] = math.nan, math.inf, -math.inf, a[0, 3]
        v[:2], w[1:3] = (-0.0, math.nan), (math.nan, math.inf)
    return {"a": a, "b": b, "v": v, "w": w, "m": m @ m.T + np.eye(3), "s": s @ s.swapaxes(1, 2) + np.eye(3),
            "t": float(draw.normal())}  # fmt: skip


def used(call: str) -> list[str]:
    return [name for name in "abvwmst" if re.search(rf"\b{name}\b", call)]


def result(call: str, of: dict[str, Any]) -> Any:
    """What a call gives, or the exception."""
    try:
        return eval(call, NAMES, of)
    except Exception as error:
        return error


def as_tensors(of: dict[str, Any]) -> dict[str, Any]:
    return {k: fs.Tensor(x) if isinstance(x, float) else fs.to_tensor(x).copy() for k, x in of.items()}


def numbers(x: Any) -> Any:
    if isinstance(x, (list, tuple)):
        return [numbers(y) for y in x]
    if isinstance(x, np.ndarray) and x.dtype == object:
        return np.reshape([numbers(y) for y in x.ravel()], x.shape)
    return x.numpy() if isinstance(x, fs.TensorArray) else x.data if isinstance(x, fs.Tensor) else x


def check(found: Any, wanted: Any) -> None:
    """The same structure, shapes, kinds of numbers, and values."""
    if isinstance(wanted, (list, tuple)):
        assert isinstance(found, (list, tuple))
        for f, n in zip(found, wanted, strict=True):
            check(f, n)
    elif wanted is None or isinstance(wanted, str):
        assert type(found) is type(wanted)
    else:
        found, wanted = np.asarray(found), np.asarray(wanted)
        assert (found.shape, found.dtype.kind) == (wanted.shape, wanted.dtype.kind)
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


def flat(x: Any) -> Any:
    """A result as one array of numbers, for a program."""
    if isinstance(x, (list, tuple)):
        return np.concatenate([np.zeros(1), *map(flat, x)])
    if isinstance(x, np.ndarray) and x.dtype == bool:
        return np.where(x, 1.0, 0.0).ravel()
    if isinstance(x, (bool, np.bool_, int, np.integer)):
        return np.ones(1) * x
    if x is None or isinstance(x, str):
        return np.zeros(1)
    return np.ravel(x) if isinstance(x, (np.ndarray, fs.TensorArray)) else np.stack([x])


def program(call: str) -> Any:
    """The call as a function of what it uses; the zero makes it one of Tensors, and an array that is not empty."""
    names = used(call)
    first = f"{names[0]}.ravel()[:1]" if names[0] != "t" else "np.stack([t])"
    source = f"lambda {', '.join(names)}: np.concatenate([np.where({first} == 0.5, 1.0, 0.0), flat({call})])"
    return eval(source, NAMES | {"flat": flat})


@pytest.mark.parametrize("odd", [False, True], ids=["", "odd"])
@pytest.mark.parametrize("call", CALLS)
def test_it_is_numpys(call: str, odd: bool) -> None:
    wanted = result(call, points(1, odd))
    found = result(call, as_tensors(points(1, odd)))
    if isinstance(wanted, Exception):
        kinds = (*type(wanted).__mro__[:-3], ValueError if isinstance(wanted, IndexError) else type(wanted))
        assert isinstance(found, kinds), (found, wanted)
    else:
        assert not isinstance(found, Exception), found
        check(numbers(found), wanted)


class Narrow(ast.NodeTransformer):
    """Each whole number of a call as one of NumPy's."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if type(node.value) is not int:
            return node
        return ast.Call(ast.Attribute(ast.Name("np", ast.Load()), self.kind, ast.Load()), [node], [])


@pytest.mark.parametrize("kind", ["int8", "uint8", "array"])
def test_numpys_whole_numbers_are_axes_and_counts_as_well(kind: str) -> None:
    compared = 0
    for call in CALLS:
        tree = Narrow(kind).visit(ast.parse(call, mode="eval"))
        other = ast.unparse(ast.fix_missing_locations(tree))
        wanted = result(other, points(1))
        if f"np.{kind}(" in other and not isinstance(wanted, Exception):
            found = result(other, as_tensors(points(1)))
            assert not isinstance(found, Exception), (other, found)
            check(numbers(found), wanted)
            compared += 1
    assert compared > 200


@pytest.mark.parametrize("call", [call for call in CALLS if used(call)])
def test_a_program_of_it_is_the_plain_call(call: str) -> None:
    f, names = program(call), used(call)
    wanted = []
    for of in (points(2), points(3), points(1, True)):
        tensors = as_tensors(of)
        try:
            wanted.append(numbers(f(*(tensors[k] for k in names))))
        except Exception as error:
            wanted.append(error)
    compiled, shape = fs.compile(f), np.shape(wanted[0])
    for of, n in zip((points(2), points(3), points(1, True)), wanted, strict=True):
        if isinstance(n, Exception) or np.shape(n) != shape:
            with pytest.raises(type(n) if isinstance(n, Exception) else TypeError):
                compiled(*(of[k] for k in names))
        else:
            np.testing.assert_allclose(compiled(*(of[k] for k in names)), n, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("call", [call for call in CALLS if used(call)])
def test_rows_of_it_have_the_gradients_of_the_plain_call(call: str) -> None:
    f, names = program(call), used(call)
    argnums = tuple(range(len(names)))
    rows = [[of[k] for k in names] for of in (points(2), points(1, True), points(3), points(4, True))]
    values = [result("f(*x)", {"f": f, "x": [as_tensors({"x": x})["x"] for x in row]}) for row in rows]
    rows = [row for row, value in zip(rows, values, strict=True) if not isinstance(value, Exception)]
    shapes = {np.shape(value) for value in values if not isinstance(value, Exception)}
    if len(shapes) != 1:
        return  # an error in each, or a shape that depends on values
    weights = np.random.default_rng(5).normal(size=shapes.pop())

    def weighed(*x: Any) -> Any:
        return np.sum(f(*x) * weights)

    columns = [np.stack(x) for x in zip(*rows, strict=True)]
    found, gradients = fs.compile(weighed).value_and_grad(*columns, argnums=argnums)
    for k, row in enumerate(rows):
        value, wanted = fs.value_and_grad(weighed, argnums)(*row)
        np.testing.assert_allclose(found[k], value, rtol=1e-9, atol=1e-11)
        for g, n in zip(gradients, wanted, strict=True):
            np.testing.assert_allclose(g[k], n, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("call", [call for call in CALLS if used(call)])
def test_its_gradient_is_numpys_slope(call: str) -> None:
    f, names, of = program(call), used(call), points(4)
    tensors = as_tensors(of)
    out = result("f(*x)", {"f": f, "x": [tensors[k] for k in names]})
    if not isinstance(out, fs.TensorArray) or not np.isfinite(out.numpy()).all():
        return  # an error, or nothing that has a slope
    weights = np.random.default_rng(5).normal(size=out.shape)
    gradients = fs.grad(lambda *x: np.sum(f(*x) * weights), tuple(range(len(names))))(*(of[k] for k in names))
    for k, name in enumerate(names):
        slope = np.zeros(np.shape(of[name]))
        for at in np.ndindex(slope.shape):
            ends = []
            for step in (1e-6, -1e-6):
                x = np.array(of[name])
                x[at] += step
                moved = of | {name: x if x.shape else float(x)}
                ends.append(np.sum(f(*(moved[n] for n in names)) * weights))
            slope[at] = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(gradients[k], slope, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("call", REFUSED)
def test_it_is_refused(call: str) -> None:
    assert not isinstance(result(call, points(1)), Exception)
    found = result(call, as_tensors(points(1)))
    assert isinstance(found, (TypeError, ValueError, AttributeError)), found


def test_there_are_hundreds() -> None:
    assert len(CALLS) > 800
    assert len(REFUSED) > 50
    assert len(set(LINES)) == len(LINES)
