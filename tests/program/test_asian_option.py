"""An Asian option that draws its own random numbers: against a control variate, and per seed across threads."""

import math

import numpy as np

import fastscalar as fs
from fastscalar import math as fsmath

STEPS, RATE, STRIKE, PATHS = 100, 0.03, 100.0, 2_000


def payoffs(spot, volatility):
    """Discounted payoffs on the arithmetic and on the geometric mean of one path over a year."""
    dt = 1.0 / STEPS

    def step(s):
        price, total, logs = s
        drift = (RATE - 0.5 * volatility * volatility) * dt
        price = price * fsmath.exp(drift + volatility * math.sqrt(dt) * fs.random.normal())
        return price, total + price, logs + fsmath.log(price)

    _, total, logs = fs.loop(STEPS, step, (spot, 0.0, 0.0))
    discount = math.exp(-RATE)
    arithmetic = discount * fs.relu(total / STEPS - STRIKE)
    return arithmetic, discount * fs.relu(fsmath.exp(logs / STEPS) - STRIKE)


def geometric(spot, volatility):
    """The price of the option on the geometric mean, which is lognormal (Kemna, Vorst: A pricing method for options
    based on average asset values, 1990)."""
    n = STEPS
    mean = fsmath.log(spot) + (RATE - 0.5 * volatility * volatility) * (n + 1) / (2 * n)
    width = volatility * math.sqrt((n + 1) * (2 * n + 1) / (6 * n * n))
    d = (mean - math.log(STRIKE)) / width
    forward = fsmath.exp(mean + 0.5 * width * width)
    return math.exp(-RATE) * (forward * fsmath.ndtr(d + width) - STRIKE * fsmath.ndtr(d))


program = fs.compile(payoffs)
SPOT = np.full(PATHS, 100.0)


def test_the_control_variate_has_its_price_and_saves_most_of_the_error():
    a, g = program.map(SPOT, 0.2, seed=11)
    exact = geometric(100.0, fs.Tensor(0.2)).data
    error = g.std() / math.sqrt(PATHS)
    assert abs(g.mean() - exact) < 4 * error
    slope = np.cov(a, g)[0, 1] / g.var()
    controlled = a - slope * (g - exact)
    assert controlled.std() < a.std() / 20
    other = program.map(SPOT, 0.2, seed=12)
    again = other[0] - slope * (other[1] - exact)
    assert abs(controlled.mean() - again.mean()) < 6 * controlled.std() / math.sqrt(PATHS)
    assert abs(a.mean() - controlled.mean()) < 4 * error


def test_greeks_with_the_control_variate():
    """Along each path, and against the closed form of the control."""
    (_, g), (delta, vega) = program.vjp(SPOT, 0.2, cotangents=(0.0, 1.0), seed=11, argnums=(0, 1))
    spot, volatility = fs.Tensor(100.0), fs.Tensor(0.2)
    geometric(spot, volatility).backward()
    assert abs(delta.mean() - spot.grad) < 4 * delta.std() / math.sqrt(PATHS)
    by_path = program.vjp(SPOT, 0.2, cotangents=(0.0, 1.0), seed=11, argnums=1, per_row=True)[1]
    assert math.isclose(by_path.sum(), vega, rel_tol=1e-9)
    assert abs(by_path.mean() - volatility.grad) < 4 * by_path.std() / math.sqrt(PATHS)
    h = 1e-5
    up, down = (program.map(SPOT, 0.2 + s, seed=11)[1] for s in (h, -h))
    smooth = (up > 0) & (down > 0)
    np.testing.assert_allclose(((up - down) / (2 * h))[smooth], by_path[smooth], rtol=1e-5)
    assert g.shape == (PATHS,)


def test_a_seed_has_its_paths_on_any_threads_in_any_order_and_alone():
    a, g = program.map(SPOT, 0.2, seed=5)
    for threads in (1, 2):
        again = program.map(SPOT, 0.2, seed=5, threads=threads)
        assert np.array_equal(again[0], a)
        assert np.array_equal(again[1], g)
    half = program.map(SPOT[: PATHS // 2], 0.2, seed=5, row_offset=PATHS // 2)
    np.testing.assert_allclose(half[0], a[PATHS // 2 :], rtol=1e-12)
    for i in (0, 7, PATHS - 1):
        with fs.random.stream(5, i):
            plain = payoffs(100.0, 0.2)
        assert math.isclose(plain[0].data, a[i], rel_tol=1e-11, abs_tol=1e-11)
    assert not np.array_equal(program.map(SPOT, 0.2, seed=6)[0], a)
    assert "loop of" in program.report()


def test_antithetic_paths_have_a_smaller_error():
    a, _ = program.map(SPOT, 0.2, seed=5)
    pairs = program.map(SPOT, 0.2, seed=5, antithetic=True)[0].reshape(-1, 2).mean(axis=1)
    assert pairs.std() / math.sqrt(len(pairs)) < 0.8 * a.std() / math.sqrt(PATHS)
