"""Every derivative that README and docs print is the slope over some per cent of its input, not only at one point.

The functions are those of the pages, written for floats or taken from the page itself.  A block of a page that prints
derivatives and is not in the table fails the last test.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
PAGES = ["README.md", "docs/from-the-article.md", "docs/compile.md", "docs/porting.md", "docs/derivatives.md"]
DERIVATIVES = re.compile(r"\.grad\b|fs\.(grad|jacobian|hessian|jvp|vjp|hvp|gradcheck)\b|value_and_grad|\bslope\b")


def python_blocks(page: str) -> list[tuple[str, str]]:
    """Code and output."""
    found = FENCE.findall((ROOT / page).read_text(encoding="utf-8"))
    following = [*found[1:], ("", "")]
    return [
        (text, after[1] if after[0] == "text" else "")
        for (language, text), after in zip(found, following, strict=True)
        if language == "python"
    ]


def block(page: str, marker: str) -> int:
    """The number of the block whose code or output has the marker."""
    (number,) = {k for k, both in enumerate(python_blocks(page), start=1) if any(marker in text for text in both)}
    return number


def defined(page: str, marker: str, *names: str) -> list[Callable[..., Any]]:
    """Functions that a block of a page defines, run with the imports that pages share."""
    code = python_blocks(page)[block(page, marker) - 1][0]
    space: dict[str, Any] = {}
    exec("import numpy as np, fastscalar as fs\nfrom fastscalar import Tensor, math", space)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(code, page, "exec"), space)
    return [space[name] for name in names]


def slopes(f: Callable[..., Any], point: Sequence[float], part: float = 0.025) -> list[float]:
    """Fourth-order differences over 5 % of each input to either side."""
    out = []
    for k, x in enumerate(point):
        h = part * max(abs(x), 0.1)
        a, b, c, d = (float(f(*point[:k], x + m * h, *point[k + 1 :])) for m in (-2, -1, 1, 2))
        out.append((a - d + 8.0 * (c - b)) / (12.0 * h))
    return out


def derivative(f: Callable[[float], float], order: int, x: float) -> float:
    return f(x) if order == 0 else slopes(lambda x: derivative(f, order - 1, x), [x])[0]


def micrograd(a: float, b: float) -> float:
    c = a * b + b**3
    return max(c - a, 0.0) + 10.0 / b


def through_slope(w: float, x: float) -> float:
    return (w * (1.0 - math.tanh(w * x) ** 2)) ** 2


def diamond(a: float) -> float:
    """The one of the walks, with b = 3."""
    return (a * 3.0) * (a * 3.0 + a)


Row = tuple[str, str, Callable[..., Any], tuple[float, ...], list[float]]
TABLE: list[Row] = [  # page, a text of the block, the function, where, what is printed
    ("README.md", "6.0 4.0 2.0 1.0", lambda a, b: a * b + a * b, (2.0, 3.0), [6.0, 4.0]),
    ("docs/porting.md", "9.0 1.0 5.5", micrograd, (-4.0, 2.0), [1.0, 5.5]),
    ("docs/porting.md", "10.0 13.0", lambda x: x**3 + x, (2.0,), [13.0]),
    ("docs/porting.md", "4.0 3.0", lambda a, b: a * b, (3.0, 4.0), [4.0, 3.0]),
    ("docs/porting.md", "reset:      6.0", lambda w: w * w, (3.0,), [6.0]),
    ("docs/porting.md", "accumulate: 3.0", lambda w: w * 1.0 + w * 2.0, (0.0,), [3.0]),
    ("docs/porting.md", "() 3.0 0.0", lambda y: y * 3.0, (4.0,), [3.0]),
    ("docs/compile.md", "[3., 0.]]), 14.0", lambda x, y, s: s * (x * x + y * y), (1.0, 2.0, 0.5), [1.0, 2.0, 5.0]),
    ("docs/compile.md", "[3., 0.]]), 14.0", lambda x, y, s: s * (x * x + y * y), (3.0, 0.0, 0.5), [3.0, 0.0, 9.0]),
    (
        "docs/derivatives.md",
        "-0.6115793125237774",
        lambda x: math.exp(-x * x) * math.sin(3.0 * x),
        (0.5,),
        [-0.6115793125237774],
    ),
    ("docs/derivatives.md", "48.0\n1.0", lambda x: derivative(lambda t: t**4, 2, x), (2.0,), [48.0]),
    ("docs/derivatives.md", "48.0\n1.0", lambda x: derivative(lambda y: x * y, 1, 2.0), (3.0,), [1.0]),
    ("docs/derivatives.md", "(4.0, 2.0)", lambda x, y: x * y + x, (2.0, 3.0), [4.0, 2.0]),
    ("docs/derivatives.md", "{'a': 4.0, 'b': [0.0, 2.0]}", lambda a, b, c: a * c, (2.0, 3.0, 4.0), [4.0, 0.0, 2.0]),
    ("docs/derivatives.md", "[4. 5.]", lambda x, y: x * x + y * y + x * y, (1.0, 2.0), [4.0, 5.0]),
    ("docs/derivatives.md", "[[5. 3.]", lambda x, y: x * y, (3.0, 5.0), [5.0, 3.0]),
    ("docs/derivatives.md", "(array([30.,  9.]),)", lambda x, y: x * x * y, (3.0, 5.0), [30.0, 9.0]),
    ("docs/derivatives.md", "[[10.  6.]", lambda x, y: 2.0 * x * y, (3.0, 5.0), [10.0, 6.0]),
    ("docs/derivatives.md", "[ 6.  0.]]", lambda x, y: x * x, (3.0, 5.0), [6.0, 0.0]),
    (
        "docs/derivatives.md",
        "-0.09227914226481532 -0.06716439746973751",
        through_slope,
        (0.5, 2.0),
        [-0.09227914226481532, -0.06716439746973751],
    ),
    ("docs/derivatives.md", "Tensor(data=12.0) 12.0", lambda x: x**3, (2.0,), [12.0]),
    ("docs/derivatives.md", "Tensor(data=12.0) 12.0", lambda x: 3.0 * x * x, (2.0,), [12.0]),
    ("docs/derivatives.md", "differences give 6", lambda x: x * x, (3.0,), [6.0]),
]


@pytest.mark.parametrize(("page", "marker", "f", "point", "printed"), TABLE, ids=range(len(TABLE)))
def test_a_printed_derivative(page: str, marker: str, f: Any, point: tuple[float, ...], printed: list[float]) -> None:
    assert block(page, marker)
    assert printed == pytest.approx(slopes(f, point), rel=1e-4, abs=1e-9)


def numbers(page: str, marker: str) -> list[float]:
    """Those in the output of a block."""
    return [float(x) for x in re.findall(r"(?<![\w.])[+-]?\d+\.\d+", python_blocks(page)[block(page, marker) - 1][1])]


def test_the_flight_of_the_readme() -> None:
    (flight,) = defined("README.md", "def flight", "flight")
    metres, by_speed, by_degree = numbers("README.md", "def flight")
    assert metres == pytest.approx(float(flight(30.0, math.radians(45.0), 0.01)), abs=0.01)
    wide = slopes(lambda speed, degrees: flight(speed, math.radians(degrees), 0.01, 0.002), [30.0, 45.0])
    assert [by_speed, by_degree] == pytest.approx(wide, rel=1e-2)


def test_the_tax_of_the_porting_page() -> None:
    (tax,) = defined("docs/porting.md", "def tax", "tax")
    assert numbers("docs/porting.md", "def tax")[-1] == pytest.approx(slopes(tax, [40.0])[0], abs=1e-6)


def test_derivatives_of_each_row() -> None:
    force, slope = numbers("docs/compile.md", "def spring")[-2:], numbers("docs/compile.md", "def swing(")
    assert force == pytest.approx([3.0, -0.5])
    spring = lambda k, c: 1.0 * k + 0.5 * c + 2.0 * k - 1.0 * c
    assert force == pytest.approx(slopes(spring, [1.0, 1.0]))
    by_exponent = [slopes(lambda x: math.exp(2.0 * x), [x])[0] for x in (0.0, 1.0)]
    assert slope[-1] == pytest.approx(by_exponent[1], rel=1e-6)


def test_a_loop_that_is_one_instruction() -> None:
    printed = numbers("docs/compile.md", "def swing_for")

    def swing(angle: float) -> float:
        speed = 0.0
        for _ in range(20_000):
            angle, speed = angle + 1e-4 * speed, speed - 1e-4 * 9.81 * math.sin(angle)
        return angle

    angles = (0.1, 0.5, 1.0)
    expected = [*map(swing, angles), *(slopes(swing, [angle])[0] for angle in angles)]
    assert printed == pytest.approx(expected, abs=6e-4)


def test_a_crossing_and_a_payoff() -> None:
    (crossing,) = defined("docs/compile.md", "def crossing(", "crossing")
    *_, slope, exactly = numbers("docs/compile.md", "def crossing(")
    wide = [slopes(lambda limit, rate=rate: crossing(rate, limit), [3.0])[0] for rate in (0.5, 1.0, 2.0)]
    assert slope == pytest.approx(sum(wide), rel=0.02)       # a straight line between two steps
    assert exactly == pytest.approx(slopes(math.log, [3.0])[0], abs=6e-4)
    (paths,) = defined("docs/compile.md", "def payoff(", "paths")
    _, delta = numbers("docs/compile.md", "def payoff(")
    wide = slopes(lambda spot: paths.map(np.full(20_000, spot), 0.2, seed=1).mean(), [100.0], 0.005)
    assert delta == pytest.approx(wide[0], abs=6e-3)


def test_steps_and_jumps() -> None:
    (fall,) = defined("docs/derivatives.md", "def fall(", "fall")
    ground, root = defined("docs/derivatives.md", "def fall_to_the_ground", "fall_to_the_ground", "root")
    narrow, wide = numbers("docs/derivatives.md", "def fall(")[:2]
    assert wide == pytest.approx(slopes(fall, [3.0])[0], abs=0.01)
    assert abs(narrow - wide) > 0.1, "the page shows that they differ"
    printed = numbers("docs/derivatives.md", "def fall_to_the_ground")
    assert printed == pytest.approx([slopes(ground, [3.0])[0], slopes(root, [2.0])[0]], rel=1e-2)
    assert printed[1] == pytest.approx(0.5 / math.sqrt(2.0), rel=1e-6)


# Blocks with gradients that print none, or none but those of a row above, and what the walk prints of its own code.
OTHERS = {
    ("README.md", "def flight"),
    ("README.md", "net.save(\"digits.npz\")"),
    ("README.md", "values = loss.backward(rows, labels)"),
    ("docs/compile.md", "values = program.backward(X, y)"),
    ("docs/compile.md", "row 2: log(-3.0)"),
    ("docs/compile.md", "def spring"),
    ("docs/compile.md", "def crossing("),        # below
    ("docs/compile.md", "def payoff("),
    ("docs/compile.md", "def swing("),
    ("docs/compile.md", "swing.save("),
    ("docs/compile.md", "def swing_for"),
    ("docs/porting.md", "X.mean(axis=0)"),  # below
    ("docs/porting.md", "def tax"),
    ("docs/porting.md", "score.data:.6f"),
    ("docs/porting.md", "parameters[0].data"),
    ("docs/porting.md", "def program(Tensor)"),
    ("docs/derivatives.md", "minimize(rosen"),
    ("docs/derivatives.md", "def fall("),
    ("docs/derivatives.md", "def fall_to_the_ground"),
    ("docs/derivatives.md", "caught[0].category"),
}


def test_no_block_is_left_out() -> None:
    known = {(page, block(page, marker)) for page, marker, *_ in TABLE} | {(p, block(p, m)) for p, m in OTHERS}
    for page in [p for p in PAGES if p != "docs/from-the-article.md"]:
        for number, (code, output) in enumerate(python_blocks(page), start=1):
            if output and DERIVATIVES.search(code):
                assert (page, number) in known, f"{page}, Python block {number} prints derivatives: check them here"


def test_the_gradient_of_arrays() -> None:
    output = python_blocks("docs/porting.md")[block("docs/porting.md", "X.mean(axis=0)") - 1][1]
    printed = [float(x) for x in re.findall(r"-?\d+\.\d*", output)]

    def f(*x: float) -> float:
        X = np.reshape(x, (2, 2))
        return float((np.tanh(X @ [0.5, -1.0]) + X.mean(axis=0)).sum())

    assert printed == pytest.approx(slopes(f, [1.0, 2.0, 3.0, 4.0], 0.001), abs=6e-5)


def test_the_walk_through_the_article() -> None:
    """Its blocks print derivatives of a * b + a * b, of the diamond, of a sum of 1s, and a layer's inputs."""
    text = (ROOT / "docs/from-the-article.md").read_text(encoding="utf-8")
    assert re.search(r"6\.0,? 4\.0,? 2\.0,? 1\.0", text)
    assert slopes(lambda a, b: a * b + a * b, [2.0, 3.0]) == pytest.approx([6.0, 4.0])
    right = re.search(r"right: +(\d+\.\d)", text)
    assert right
    assert float(right.group(1)) == pytest.approx(slopes(diamond, [2.0])[0])
