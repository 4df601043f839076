"""A call on the average of a price, by Monte Carlo; the greeks are those of every path, added up by one backward pass.

`main(module)` takes `fastscalar` or `fastscalar.reference`.  Run it with `python examples/porting/asian_option.py`.
"""

import math
import random

STRIKE, YEARS, DATES, PATHS = 100.0, 1.0, 12, 200


def price(spot, rate, volatility, seed=5):
    """Of Tensors: the price, and how many paths end in the money.  The same seed gives the same paths."""
    rng = random.Random(seed)
    interval = YEARS / DATES
    drift = (rate - volatility**2 / 2) * interval
    spread = volatility * math.sqrt(interval)
    payoffs = []
    for _ in range(PATHS):
        level, total = spot, 0.0
        for _ in range(DATES):
            level = level * (drift + spread * rng.gauss(0, 1)).exp()
            total += level
        if total / DATES > STRIKE:  # plain Python: only what this path does is recorded
            payoffs.append(total / DATES - STRIKE)
    return (-rate * YEARS).exp() * (sum(payoffs) / PATHS), len(payoffs)


def main(module, spot=100.0, rate=0.03, volatility=0.25):
    """Price, how many paths paid, and the derivatives with respect to spot, rate and volatility."""
    inputs = [module.Tensor(x) for x in (spot, rate, volatility)]
    value, paying = price(*inputs)
    value.backward()
    return value.data, paying, [x.grad for x in inputs]


if __name__ == "__main__":
    import fastscalar

    value, paying, (delta, rho, vega) = main(fastscalar)
    print(f"price {value:.4f} ({paying} of {PATHS} paths pay)  delta {delta:.4f}  rho {rho:.4f}  vega {vega:.4f}")
