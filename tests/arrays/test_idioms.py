"""More than a hundred idioms of NumPy in all four settings: plain code, `fs.grad`, `fs.compile`, `fit`."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastscalar as fs
from idioms import IDIOMS, number, points, scalar

ARRAYS = pytest.mark.parametrize("name", sorted(IDIOMS))


def slopes(f, arguments, step=1e-6):
    """The derivatives by all arguments, by central differences of NumPy's own results."""
    out = []
    for k, x in enumerate(arguments):
        g = np.zeros_like(x)
        for at in np.ndindex(x.shape):
            moved = [a.copy() for a in arguments]
            moved[k][at] += step
            high = f(*moved)
            moved[k][at] -= 2 * step
            g[at] = (high - f(*moved)) / (2 * step)
        out.append(g)
    return out


def check(found, wanted):
    for g, n in zip(found, wanted, strict=True):
        assert np.asarray(g) == pytest.approx(n, rel=2e-6, abs=2e-7)


def test_there_are_more_than_a_hundred():
    assert len(IDIOMS) > 100


@ARRAYS
def test_in_plain_code(name):
    f, arguments = IDIOMS[name], points(1)
    wanted = f(*(a.copy() for a in arguments))
    arrays = [fs.to_tensor(a) for a in arguments]
    found = f(*arrays)
    for r, n in zip(*((x if isinstance(x, tuple) else (x,)) for x in (found, wanted)), strict=True):
        assert np.shape(n) == getattr(r, "shape", ())
        value = r.numpy() if isinstance(r, fs.TensorArray) else r.data if isinstance(r, fs.Tensor) else r
        assert np.asarray(value, dtype=float) == pytest.approx(np.asarray(n, dtype=float), rel=1e-12, abs=1e-14)
    loss = scalar(found)
    for a in arrays:
        a.grad = 0.0
    if isinstance(loss, fs.Tensor):
        loss.backward()
    check([a.grad for a in arrays], slopes(number(f), arguments))


@ARRAYS
def test_under_grad(name):
    f, arguments = number(IDIOMS[name]), points(2)
    value, gradients = fs.value_and_grad(f, (0, 1, 2))(*arguments)
    assert value == pytest.approx(f(*(a.copy() for a in arguments)), rel=1e-12, abs=1e-14)
    check(gradients, slopes(f, arguments))


@ARRAYS
def test_under_compile(name):
    f = number(IDIOMS[name])
    rows = [np.stack(part) for part in zip(*(points(k) for k in (3, 4, 5)), strict=True)]
    program = fs.compile(f)
    with warnings.catch_warnings():
        warnings.simplefilter("error", fs.CompileWarning)
        values, gradients = program.value_and_grad(*rows, argnums=(0, 1, 2))
    for k in range(3):
        arguments = [part[k] for part in rows]
        assert values[k] == pytest.approx(f(*(a.copy() for a in arguments)), rel=1e-9, abs=1e-12)
        check([g[k] for g in gradients], slopes(f, arguments))
    assert program(*(part[0] for part in rows)) == pytest.approx(values[0], rel=1e-12, abs=1e-14)


class Model(fs.Module):
    """An idiom whose matrix is a parameter, its vector the input."""

    def __init__(self, f):
        A, S, _ = points(6)
        self.f, self.A, self.S = f, fs.to_tensor(A), fs.to_tensor(S)

    def forward(self, x):
        return number(self.f)(self.A, self.S, x) * 1.0 + fs.sum(x) * 0.0


@ARRAYS
def test_in_fit(name):
    """Compiled or not, the parameters go where the gradients of NumPy's own results say."""
    X = np.stack([points(k)[2] for k in (7, 8)])
    y = np.array([0.3, -0.2])
    made = []
    for compiled in (False, True):
        net = Model(IDIOMS[name])
        with warnings.catch_warnings():
            warnings.simplefilter("error", fs.CompileWarning)
            fs.fit(net, X, y, loss=lambda out, y: (out - y) ** 2 * 0.5, optimizer=fs.SGD(lr=1e-4), epochs=1,
                   batch_size=1, shuffle=False, schedule=None, compile=compiled, progress=False)  # fmt: skip
        made.append((net.A.numpy(), net.S.numpy()))
    A, S, _ = points(6)
    f = number(IDIOMS[name])
    for x, target in zip(X, y, strict=True):
        by_A, by_S, _ = slopes(f, (A, S, x))
        error = f(A.copy(), S.copy(), x.copy()) - target
        A, S = A - 1e-4 * error * by_A, S - 1e-4 * error * by_S
    for got_A, got_S in made:
        assert got_A == pytest.approx(A, rel=1e-6, abs=1e-8)
        assert got_S == pytest.approx(S, rel=1e-6, abs=1e-8)


# Elimination and products in another order spread a NaN further than NumPy's own ways.
SPREADING = {
    "einsum_three", "solved", "solved_vector", "inverted", "slogdet", "slogdet_of_a_stack", "determinant", "cholesky",
    "solve_of_a_stack", "solve_for_a_stack", "power_of_matrix",
}  # fmt: skip


def flat(result):
    """All numbers of a result."""
    if isinstance(result, (tuple, list)):
        return np.concatenate([flat(one) for one in result])
    if isinstance(result, fs.Tensor):
        return np.array([result.data])
    if isinstance(result, fs.TensorArray):
        return result.numpy().ravel()
    return np.asarray(result, dtype=float).ravel()


def odd_points():
    """Rows without and with NaN and infinities, here and there."""
    rows = [points(9)]
    for k, x in enumerate([np.nan, np.inf, -np.inf, np.nan, np.nan]):
        row = [a.copy() for a in points(10 + k)]
        for a in row:
            a.flat[(5 * k) % a.size] = x
        if k == 4:
            row[0].flat[1] = row[2].flat[1] = -np.inf
        rows.append(row)
    return rows


@ARRAYS
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::fastscalar.CompileWarning")
def test_rows_with_nan_and_infinities_are_those_of_the_plain_call(name):
    f = IDIOMS[name]
    rows, plain = [], []
    for row in odd_points():
        try:
            found = flat(f(*map(fs.to_tensor, row)))
        except (ArithmeticError, ValueError):
            continue                             # as math's functions and matrices without an inverse do
        rows.append(row)
        plain.append(found)
        if name not in SPREADING:
            with np.errstate(all="ignore"):
                wanted = flat(f(*(a.copy() for a in row)))
            np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)
    values = fs.compile(f).map(*(np.stack(part) for part in zip(*rows, strict=True)))
    for i, wanted in enumerate(plain):
        row = [part[i] for part in values] if isinstance(values, (tuple, list)) else values[i]
        np.testing.assert_allclose(flat(row), wanted, rtol=1e-9, atol=1e-12)
