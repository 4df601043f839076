"""The volatility at which the Black-Scholes price is a given one: Newton's method, the slope from backward.

`main(module)` takes `fastscalar` or `fastscalar.reference`.
Run it with `python examples/porting/implied_volatility.py`.
"""

import math


def call_price(spot, strike, rate, volatility, years):
    """A function of one Tensor, the volatility; the rest are floats."""
    spread = volatility * math.sqrt(years)
    d1 = (math.log(spot / strike) + (rate + volatility * volatility / 2) * years) / spread
    return spot * d1.ndtr() - strike * math.exp(-rate * years) * (d1 - spread).ndtr()


def implied_volatility(module, target, spot, strike, rate, years):
    """The volatility, its derivative with respect to the price, and the number of steps."""
    # From the point of inflection Newton's method goes to the solution without overshooting (Manaster and Koehler 1982)
    sigma = module.Tensor(math.sqrt(2 / years * abs(math.log(spot / strike) + rate * years)) or 0.2)
    steps, change = 0, math.inf
    while abs(change) > 1e-14 * sigma.data and steps < 50:
        price = call_price(spot, strike, rate, sigma, years)
        price.backward()
        change = (price.data - target) / sigma.grad
        sigma.data -= change
        steps += 1
    return sigma.data, 1 / sigma.grad, steps


def main(module, volatility=0.35):
    """For calls priced at one volatility, what Newton's method makes of each price."""
    found = []
    for spot in (80.0, 95.0, 100.0, 130.0):
        for years in (0.25, 1.0, 3.0):
            terms = spot, 100.0, 0.02, years
            target = call_price(*terms[:3], module.Tensor(volatility), years).data
            found.append(implied_volatility(module, target, *terms))
    return found


if __name__ == "__main__":
    import fastscalar

    for volatility, slope, steps in main(fastscalar):
        print(f"{volatility:.15f} after {steps} steps; {slope:.6f} more for a price that is 1 higher")
