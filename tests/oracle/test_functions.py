"""Every function of the operation table that PyTorch or SciPy has too: values and derivatives, float64."""

import math

import pytest
import torch
from scipy import special

import fastscalar as fs
from fastscalar.engine._functions import operation, operations

POINTS = [0.3, -0.7, 0.9, 1.5, -2.5, 3.0, 7.75, -11.3, 1e-8, 40.0]
OPERATIONS = [operation(code) for code, _, arity, is_method in operations() if arity == 1 and is_method]
UNARY = [row["name"] for row in OPERATIONS]
DOMAIN = {row["name"]: row["domain"] or "True" for row in OPERATIONS}
NAMED_OTHERWISE = {
    "degrees": torch.rad2deg,
    "radians": torch.deg2rad,
    "rint": torch.round,
    "softplus": lambda x: torch.nn.functional.softplus(x, threshold=1e9),
}


def by_name(name):
    """PyTorch's function of this name, wherever it is."""
    for home in (torch, torch.special, torch.nn.functional):
        if callable(getattr(home, name, None)):
            return getattr(home, name)
    return None


TORCH = {name: function for name in UNARY if (function := NAMED_OTHERWISE.get(name) or by_name(name))}
SCIPY = {
    "cbrt": special.cbrt,
    "erf": special.erf,
    "erfc": special.erfc,
    "ndtr": special.ndtr,
    "lgamma": special.gammaln,
    "gamma": special.gamma,
    "digamma": special.psi,
    "expm1": special.expm1,
    "log1p": special.log1p,
    "exp2": special.exp2,
}
# where PyTorch 2.13 is the coarser one: it has no lower tail of ndtr, and its trigamma is good to ten digits; SciPy,
# below, has both
NO_TAIL = ("ndtr", "gelu")
NO_DERIVATIVE = ("digamma",)


def points(name):
    return [x for x in POINTS if eval(DOMAIN[name], vars(math).copy(), {"x": x})]


def test_no_function_is_without_an_oracle():
    assert set(UNARY) <= set(TORCH) | set(SCIPY)


@pytest.mark.parametrize("name", sorted(TORCH))
def test_values_and_derivatives_are_pytorchs(name):
    for x in points(name):
        if name in NO_TAIL and x < -5:
            continue
        ours, theirs = fs.Tensor(x), torch.tensor(x, dtype=torch.float64, requires_grad=True)
        a, b = getattr(ours, name)(), TORCH[name](theirs)
        a.backward()
        b.backward()
        assert a.data == pytest.approx(b.item(), rel=1e-13, abs=1e-300), (name, x)
        if name not in NO_DERIVATIVE:
            assert ours.grad == pytest.approx(theirs.grad.item(), rel=1e-11, abs=1e-16), (name, x)


@pytest.mark.parametrize("name", sorted(SCIPY))
def test_values_are_scipys(name):
    for x in points(name):
        expected = float(SCIPY[name](x))
        assert getattr(fs.Tensor(x), name)().data == pytest.approx(expected, rel=1e-13, abs=1e-300), (name, x)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_derivatives_of_lgamma_are_scipys_polygamma(n):
    f = fs.math.lgamma
    for _ in range(n + 1):
        f = fs.grad(f)
    for x in (0.3, 1.5, 7.75):
        assert f(x) == pytest.approx(float(special.polygamma(n, x)), rel=1e-12)


BINARY = {
    "atan2": torch.atan2,
    "hypot": torch.hypot,
    "copysign": torch.copysign,
    "fmod": torch.fmod,
    "minimum": torch.minimum,
    "maximum": torch.maximum,
}


@pytest.mark.parametrize("name", sorted(BINARY))
def test_binary_functions_are_pytorchs(name):
    for x in (0.7, -1.3, 5.25):
        for y in (0.4, -2.5, 3.0):
            ours = [fs.Tensor(x), fs.Tensor(y)]
            theirs = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (x, y)]
            a, b = getattr(ours[0], name)(ours[1]), BINARY[name](*theirs)
            a.backward()
            b.backward()
            assert a.data == pytest.approx(b.item(), rel=1e-14)
            for one, other in zip(ours, theirs, strict=True):
                expected = 0.0 if other.grad is None else other.grad.item()
                assert one.grad == pytest.approx(expected, rel=1e-12, abs=1e-16), (name, x, y)


def test_softmax_and_logsumexp():
    values = [0.3, -1.7, 2.5, 0.0]
    ours, theirs = fs.to_tensor(values), torch.tensor(values, dtype=torch.float64, requires_grad=True)
    weights = [1.0, -2.0, 0.5, 3.0]
    a = (fs.softmax(ours) * weights).sum() + fs.logsumexp(ours) * 2.0 + fs.log_softmax(ours)[2]
    b = (torch.softmax(theirs, 0) * torch.tensor(weights, dtype=torch.float64)).sum()
    b = b + torch.logsumexp(theirs, 0) * 2.0 + torch.log_softmax(theirs, 0)[2]
    a.backward()
    b.backward()
    assert a.data == pytest.approx(b.item(), rel=1e-14)
    assert ours.grad.tolist() == pytest.approx(theirs.grad.tolist(), rel=1e-13)
    assert math.isfinite(a.data)
