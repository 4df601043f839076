"""The simulations in Warp: a kernel for each, a thread for each row.

What a loop carries on lies in arrays, an element for each step: of a variable that a loop within a kernel changes Warp
gives no right gradient.  Annotations are types here, so that they are no strings.
"""

from functools import cache
from typing import Any, ClassVar

import numpy as np

from contestants.simulators import FORMULAS, Arrays, Simulator


@cache
def kernels() -> dict[str, Any]:
    import warp as wp

    wp.config.quiet = True
    real, columns = wp.float64, wp.array2d(dtype=wp.float64)
    column = wp.array(dtype=wp.float64)

    @wp.kernel
    def asian(x: columns, a: columns, b: columns, y: column):  # type: ignore[no-untyped-def, valid-type]
        i = wp.tid()
        drift = (x[1, i] - real(0.5) * x[0, i] * x[0, i]) * real(0.01)
        scale = x[0, i] * real(0.1)
        for k in range(100):
            a[k + 1, i] = a[k, i] + drift + scale * x[3 + k, i]
            b[k + 1, i] = b[k, i] + wp.exp(a[k, i] + drift + scale * x[3 + k, i])
        y[i] = wp.max(b[100, i] * real(0.01) - x[2, i], real(0.0))

    @wp.kernel
    def heston(x: columns, a: columns, b: columns, y: column):  # type: ignore[no-untyped-def, valid-type]
        i = wp.tid()
        other = wp.sqrt(real(1.0) - x[4, i] * x[4, i])
        b[0, i] = x[0, i]
        for k in range(100):
            v = b[k, i]
            first = x[5 + 2 * k, i]
            second = x[6 + 2 * k, i]
            root = wp.sqrt(wp.max(v, real(1e-8)) * real(0.01))
            a[k + 1, i] = a[k, i] - real(0.005) * v + root * first
            noise = x[3, i] * root * (x[4, i] * first + other * second)
            b[k + 1, i] = v + x[2, i] * (x[1, i] - v) * real(0.01) + noise
        y[i] = wp.max(wp.exp(a[100, i]) - real(1.0), real(0.0))

    @wp.func
    def slope(angle: real, speed: real, t: real, damping: real, drive: real):  # type: ignore[no-untyped-def, valid-type]
        return drive * wp.cos(real(0.7) * t) - damping * speed - wp.sin(angle)

    @wp.kernel
    def pendulum(x: columns, a: columns, b: columns, y: column):  # type: ignore[no-untyped-def, valid-type]
        i = wp.tid()
        damping = x[2, i]
        drive = x[3, i]
        h = real(0.05)
        half = real(0.025)
        a[0, i] = x[0, i]
        b[0, i] = x[1, i]
        for k in range(200):
            t = real(k) * h
            v1 = b[k, i]
            w1 = slope(a[k, i], v1, t, damping, drive)
            v2 = v1 + half * w1
            w2 = slope(a[k, i] + half * v1, v2, t + half, damping, drive)
            v3 = v1 + half * w2
            w3 = slope(a[k, i] + half * v2, v3, t + half, damping, drive)
            v4 = v1 + h * w3
            w4 = slope(a[k, i] + h * v3, v4, t + h, damping, drive)
            a[k + 1, i] = a[k, i] + h / real(6.0) * (v1 + real(2.0) * v2 + real(2.0) * v3 + v4)
            b[k + 1, i] = v1 + h / real(6.0) * (w1 + real(2.0) * w2 + real(2.0) * w3 + w4)
        y[i] = a[200, i]

    return {"asian": asian, "heston": heston, "pendulum": pendulum}


class Warp(Simulator):
    name, needs = "Warp, a kernel on the CPU", "warp"
    device: ClassVar[str] = "cpu"

    def start(self) -> None:
        import warp as wp

        def zeros(*shape: int) -> Any:
            return wp.zeros(shape, dtype=wp.float64, device=self.device, requires_grad=True)

        self.kernel = kernels()[self.simulation]
        self.x = wp.array(self.columns, dtype=wp.float64, device=self.device, requires_grad=True)
        n, states = len(self.X), (FORMULAS[self.simulation].steps + 1, len(self.X))
        self.arrays = [self.x, zeros(*states), zeros(*states), zeros(n)]
        self.ones = wp.array(np.ones(n), dtype=wp.float64, device=self.device)
        self.run()

    def run(self) -> Arrays:
        import warp as wp

        with wp.Tape() as tape:
            wp.launch(self.kernel, len(self.X), inputs=self.arrays[:3], outputs=self.arrays[3:], device=self.device)
        tape.backward(grads={self.arrays[3]: self.ones})
        gradients = self.x.grad.numpy().copy()
        tape.zero()
        return self.arrays[3].numpy().copy(), gradients.T
