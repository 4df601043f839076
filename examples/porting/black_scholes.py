"""The Black-Scholes price of a European option, and all its greeks from one backward pass.

`main(module)` takes `fastscalar` or `fastscalar.reference`.  Run it with `python examples/porting/black_scholes.py`.
"""


def price(spot, strike, rate, volatility, years, kind="call"):
    """Of Tensors; a put is a call with both signs turned."""
    sign = 1.0 if kind == "call" else -1.0
    spread = volatility * years.sqrt()
    d1 = ((spot / strike).log() + (rate + 0.5 * volatility**2) * years) / spread
    d2 = d1 - spread
    return sign * (spot * (sign * d1).ndtr() - strike * (-rate * years).exp() * (sign * d2).ndtr())


def greeks(module, spot, strike, rate, volatility, years, kind="call"):
    """Price, delta, vega, rho, theta (the derivative with respect to time that passes)."""
    inputs = s, _, r, sigma, t = [module.Tensor(x) for x in (spot, strike, rate, volatility, years)]
    value = price(*inputs, kind)
    value.backward()
    return {"price": value.data, "delta": s.grad, "vega": sigma.grad, "rho": r.grad, "theta": -t.grad}


def main(module):
    return [
        greeks(module, spot, 100, 0.03, 0.2, years, kind)
        for spot in (60, 90, 100, 110, 170)
        for years in (0.1, 1, 5)
        for kind in ("call", "put")
    ]


if __name__ == "__main__":
    import fastscalar

    for name, value in greeks(fastscalar, 110, 100, 0.03, 0.2, 1).items():
        print(f"{name:6} {value:.6f}")
