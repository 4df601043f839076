"""A ball with air drag that bounces: an ODE with events, and how its final state depends on how it began.

Runge-Kutta steps of fourth order.  When a step would end below the floor it is shortened until it ends on the floor:
Newton's method, on plain numbers.  The last Newton step is then made once more with the recorded state.  It changes
nothing, but its derivative is that of the moment of impact (the implicit function theorem), whatever came before.

`main(module)` takes `fastscalar` or `fastscalar.reference`.  Run it with `python examples/porting/bouncing_ball.py`.
"""


def rk4(height, speed, gravity, drag, h):
    """Height and speed after a time h, where speed' = -gravity - drag * speed."""

    def slopes(y, v):
        return v, -gravity - drag * v

    a, b = slopes(height, speed)
    c, d = slopes(height + h / 2 * a, speed + h / 2 * b)
    e, f = slopes(height + h / 2 * c, speed + h / 2 * d)
    g, i = slopes(height + h * e, speed + h * f)
    return height + h / 6 * (a + 2 * c + 2 * e + g), speed + h / 6 * (b + 2 * d + 2 * f + i)


def time_to_floor(module, height, speed, gravity, drag, h):
    """The length of the step that ends on the floor, a Tensor; h is one that ends below it."""
    state = [x.data for x in (height, speed, gravity, drag)]
    tau = module.Tensor(h)
    for _ in range(20):
        y, _ = rk4(*state, tau)
        y.backward()
        change = y.data / tau.grad
        tau.data -= change
        if abs(change) <= 1e-15:
            break
    y, _ = rk4(height, speed, gravity, drag, tau.data)
    return tau.data - y / tau.grad


def simulate(module, height, speed, gravity, drag, bounce, end=3.0, steps=60):
    """Height and speed at the time `end`, and the times of the impacts."""
    impacts = []
    for k in range(steps):
        rest = end / steps
        y, v = rk4(height, speed, gravity, drag, rest)
        while y < 0:  # the ball hits the floor within this step
            tau = time_to_floor(module, height, speed, gravity, drag, rest)
            _, v = rk4(height, speed, gravity, drag, tau)
            impacts.append(k * end / steps + end / steps - rest + tau)
            height, speed, rest = module.Tensor(0.0), -bounce * v, rest - tau
            y, v = rk4(height, speed, gravity, drag, rest)
        height, speed = y, v
    return height, speed, impacts


def main(module, height=1.5, speed=0.5, gravity=9.81, drag=0.1, bounce=0.8):
    """Final height and speed, each with its derivatives with respect to the five numbers; the times of impact."""
    inputs = [module.Tensor(x) for x in (height, speed, gravity, drag, bounce)]
    *final, impacts = simulate(module, *inputs)
    result = []
    for state in final:
        state.backward()
        result.append((state.data, [x.grad for x in inputs]))
    return *result, [float(t) for t in impacts]


if __name__ == "__main__":
    import fastscalar

    (y, y_slopes), (v, v_slopes), impacts = main(fastscalar)
    print(f"impacts at {', '.join(f'{t:.3f}' for t in impacts)} s; at the end {y:.3f} m high, {v:.3f} m/s")
    for name, dy, dv in zip(("height", "speed", "gravity", "drag", "bounce"), y_slopes, v_slopes, strict=True):
        print(f"with respect to {name:8} {dy:9.4f} {dv:9.4f}")
