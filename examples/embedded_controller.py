"""An embedded engineer's day: a controller written and tested in Python, and a C file of it for the device.

Run it with `python examples/embedded_controller.py [FOLDER]`.  The controller decides, saturates, and looks up a
temperature in a table; what comes out is one file that needs the C library alone, with derivatives for a linear model.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import fastscalar as fs

TABLE = fs.to_tensor([0.80, 0.95, 1.00, 0.97, 0.85])     # efficiency by gear
GAINS = fs.to_tensor([4.0, 0.5, 1.2])


@fs.compile
def controller(state: Any, gear: Any) -> dict[str, Any]:
    """Torque, and the state of the integrator: state is error, its sum, its rate, and the temperature."""
    error, total, rate, temperature = state
    if temperature > 90.0:
        torque = 0.2 * GAINS[0] * error                   # derated
    else:
        torque = GAINS[0] * error + GAINS[1] * total - GAINS[2] * rate
    torque = fs.clip(torque, -10.0, 10.0) * TABLE[gear]
    return {"torque": torque, "total": fs.clip(total + 0.01 * error, -5.0, 5.0)}


def main(folder: str | None = None) -> tuple[str, Path]:
    """The program that was saved and loaded again, and where the C file is."""
    there = Path(folder or tempfile.mkdtemp())
    random = np.random.default_rng(0)
    states = np.column_stack([random.normal(size=(200, 3)), random.uniform(20, 120, 200)])
    gears = random.integers(0, 5, 200)
    out = controller.map(states, gears)                   # every way through it is recorded
    slopes = controller.jacobian(states, gears)["torque"]
    print(controller.report(details=True))
    print("torque by the first state:", slopes[0].round(3))

    controller.export_c(there / "controller.c")
    controller.save(there / "controller.npz")
    again = fs.load_program(there / "controller.npz")     # on a machine without this source
    assert np.array_equal(again.map(states, gears)["torque"], out["torque"])
    print(f"{(there / 'controller.c').stat().st_size:,} bytes of C: {there / 'controller.c'}")
    return again.report(), there / "controller.c"


if __name__ == "__main__":
    main(*sys.argv[1:2])
