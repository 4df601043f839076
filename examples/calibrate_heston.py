"""A quant's day: the Heston model calibrated to prices of options, with the Jacobian of the pricer per option.

Run it with `python examples/calibrate_heston.py`.  The characteristic function (Heston 1993, in the form of Albrecher
et al. 2007 that has no branch cuts) is written in real numbers, and integrated by a fixed rule of Gauss and Laguerre.
"""

from typing import Any

import numpy as np

import fastscalar as fs
from fastscalar import math

NODES, WEIGHTS = np.polynomial.laguerre.laggauss(32)
TRUTH = {"v0": 0.05, "kappa": 1.8, "theta": 0.06, "sigma": 0.5, "rho": -0.6}
SPOT, RATE = 100.0, 0.02

Complex = tuple[Any, Any]  # (real part, imaginary part), numbers or Tensors


def times(a: Complex, b: Complex) -> Complex:
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def over(a: Complex, b: Complex) -> Complex:
    d = b[0] * b[0] + b[1] * b[1]
    return (a[0] * b[0] + a[1] * b[1]) / d, (a[1] * b[0] - a[0] * b[1]) / d


def exponential(a: Complex) -> Complex:
    e = math.exp(a[0])
    return e * math.cos(a[1]), e * math.sin(a[1])


def logarithm(a: Complex) -> Complex:
    return 0.5 * math.log(a[0] * a[0] + a[1] * a[1]), math.atan2(a[1], a[0])


def root(a: Complex) -> Complex:
    r = math.sqrt(a[0] * a[0] + a[1] * a[1])
    re = math.sqrt(0.5 * (r + a[0]))
    return re, 0.5 * a[1] / re


def characteristic(u: float, shift: float, t: Any, p: dict[str, Any]) -> Complex:
    """E exp(i w log(S_t / forward)) at w = u - i * shift."""
    kappa, theta, sigma, rho, v0 = p["kappa"], p["theta"], p["sigma"], p["rho"], p["v0"]
    iw = (shift, u)
    w2 = (u * u - shift * shift, -2.0 * u * shift)               # w * w
    b = (kappa - rho * sigma * iw[0], -rho * sigma * iw[1])
    half = (w2[0] + iw[0], w2[1] + iw[1])
    bb = times(b, b)
    d = root((bb[0] + sigma * sigma * half[0], bb[1] + sigma * sigma * half[1]))
    minus, plus = (b[0] - d[0], b[1] - d[1]), (b[0] + d[0], b[1] + d[1])
    g = over(minus, plus)
    e = exponential((-d[0] * t, -d[1] * t))
    ge = times(g, e)
    one_ge = (1.0 - ge[0], -ge[1])
    ratio = logarithm(over(one_ge, (1.0 - g[0], -g[1])))
    a = (minus[0] * t - 2.0 * ratio[0], minus[1] * t - 2.0 * ratio[1])
    c = over(times(minus, (1.0 - e[0], -e[1])), one_ge)
    s2 = sigma * sigma
    return exponential((kappa * theta / s2 * a[0] + v0 / s2 * c[0], kappa * theta / s2 * a[1] + v0 / s2 * c[1]))


@fs.compile(shared="p")
def call_price(strike: Any, t: Any, p: dict[str, Any]) -> Any:
    """The price of a European call, by one integral (Lewis 2001)."""
    forward = SPOT * math.exp(RATE * t)
    k = math.log(forward / strike)
    integral = 0.0
    for u, weight in zip(NODES.tolist(), WEIGHTS.tolist(), strict=True):
        re, im = characteristic(u, 0.5, t, p)
        phase = u * k
        integral = integral + weight * math.exp(u) * (re * math.cos(phase) - im * math.sin(phase)) / (u * u + 0.25)
    return math.exp(-RATE * t) * (forward - math.sqrt(forward * strike) * integral / math.pi)


def market() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Strikes, maturities and prices of 60 options."""
    strikes, maturities = (a.ravel() for a in np.meshgrid(np.linspace(80, 120, 12), [0.25, 0.5, 1.0, 1.5, 2.0]))
    return strikes, maturities, call_price.map(strikes, maturities, TRUTH)


def calibrate(
    strikes: np.ndarray, maturities: np.ndarray, prices: np.ndarray, start: dict[str, float], steps: int = 30
) -> tuple[dict[str, float], float]:
    """Gauss and Newton with a damped step: the Jacobian has a row for each option."""
    names, damping = list(start), 1e-3
    p = dict(start)
    error = call_price.map(strikes, maturities, p) - prices
    for _ in range(steps):
        jacobian = call_price.jacobian(strikes, maturities, p, argnums="p")
        j = np.stack([jacobian[name] for name in names], axis=1)
        step = np.linalg.solve(j.T @ j + damping * np.diag((j * j).sum(0)), j.T @ error)
        trial = dict(zip(names, (np.array([p[n] for n in names]) - step).tolist(), strict=True))
        inside = min(trial["v0"], trial["kappa"], trial["theta"], trial["sigma"]) > 1e-3 and abs(trial["rho"]) < 0.99
        found = call_price.map(strikes, maturities, trial) - prices if inside else None
        if found is not None and found @ found < error @ error:
            p, error, damping = trial, found, damping / 5
        else:
            damping *= 5
        if error @ error < 1e-18:
            break
    return p, float(np.abs(error).max())


def main() -> tuple[dict[str, float], float]:
    strikes, maturities, prices = market()
    start = {"v0": 0.1, "kappa": 1.0, "theta": 0.1, "sigma": 0.8, "rho": -0.2}
    found, error = calibrate(strikes, maturities, prices, start)
    print("recorded:", call_price.report())
    for name, value in found.items():
        print(f"{name:6} {value:9.6f}   truth {TRUTH[name]:6.3f}")
    print(f"largest error of a price: {error:.1e}")
    return found, error


if __name__ == "__main__":
    main()
