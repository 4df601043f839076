"""For those who write a Tensor of their own: `check_tensor` runs it through what such classes get wrong, and says what.

Nothing here needs the engine: the class that is tested may be a page of Python, the article's, micrograd's, or ours.
"""

from __future__ import annotations

import gc
import math
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Check", "check_tensor"]

DEEP = 20_000  # operations, one on the other: twenty times Python's limit of calls
WIDE = 2_000
GRAPHS = 200
_DIAMONDS = 24  # each is right by chance in half of the runs of a wrong order


@dataclass(frozen=True)
class Check:
    """What one check found."""

    name: str  # "diamonds", "depth", ...
    status: str  # "passed", "failed", or "skipped": the class does not have what is checked
    message: str = ""  # what was wrong, and where such a fault comes from

    def __str__(self) -> str:
        return f"{self.name}: {self.status}{': ' if self.message else ''}{self.message}"


class _Fault(Exception):
    pass


class _Missing(Exception):
    pass


def check_tensor(cls: Callable[[float], Any], *, on_fail: str | None = "raise") -> list[Check]:
    """Check a class of scalars that remember how they were computed, as scikit-learn's `check_estimator` does.

    cls: called with a number it gives a node with `data`, `grad`, `+`, `*`, `relu()` and `backward()`; that is all that
    it has to have.  `-`, `/`, `**`, `exp()`, `log()`, `tanh()`, `sigmoid()` and plain numbers beside nodes are checked
    if it has them.  After `backward()`, `grad` of every node behind the result is the derivative of the result by it;
    a second `backward()` may give the same again, or add to the leaves.
    on_fail: "raise", an AssertionError with all faults; None, only the list of what was found.

    Checks: values, sums (`x + x`), products, relu (at 0 too), diamonds, depth, width, cycles (garbage that refers to
    itself), accumulation, equal values, numbers, and the other operations against differences.

    >>> import fastscalar as fs
    >>> {check.status for check in fs.testing.check_tensor(fs.Tensor)}
    {'passed'}
    >>> class Careless(fs.reference.Tensor):
    ...     def relu(self):
    ...         return Careless(max(self.data, 0.0))
    >>> [check.name for check in fs.testing.check_tensor(Careless, on_fail=None) if check.status == "failed"]
    ['relu']
    """
    if not callable(cls):
        raise TypeError(f"check_tensor: expected a class, got {cls!r}")
    if on_fail not in ("raise", None):
        raise ValueError(f'check_tensor: on_fail: expected "raise" or None, got {on_fail!r}')
    found = [_run(check, cls) for check in _CHECKS]
    faults = [check for check in found if check.status == "failed"]
    if faults and on_fail == "raise":
        name = getattr(cls, "__name__", repr(cls))
        many = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise AssertionError(f"{name}: {many}\n" + "\n".join(f"  {check.name}: {check.message}" for check in faults))
    return found


def _run(check: Callable[[Any], None], cls: Any) -> Check:
    name = check.__name__.strip("_")
    try:
        check(cls)
    except _Missing as error:
        return Check(name, "skipped", str(error))
    except _Fault as error:
        return Check(name, "failed", str(error))
    except RecursionError:
        return Check(name, "failed", "RecursionError: something calls itself for each node; walk with a list instead")
    except Exception as error:
        return Check(name, "failed", f"{type(error).__name__}: {error}")
    return Check(name, "passed")


# --- what is compared ---


def _grad(node: Any) -> float:
    return float(node.grad)


def _same(found: float, expected: float) -> bool:
    return math.isclose(found, expected, rel_tol=1e-6, abs_tol=1e-9)


def _expect(expression: str, found: float, expected: float, why: str) -> None:
    if not _same(float(found), expected):
        raise _Fault(f"{expression} is {float(found):.6g}, expected {expected:.6g}; {why}")


def _once(operation: Callable[[], Any], what: str) -> Any:
    """The result, unless the class cannot do that at all."""
    try:
        result = operation()
    except (TypeError, AttributeError, NotImplementedError) as error:
        raise _Missing(f"no {what} ({type(error).__name__})") from None
    if not hasattr(result, "backward"):
        raise _Missing(f"no {what}")
    return result


# --- the checks ---


def _values(cls: Any) -> None:
    a, b = cls(2.0), cls(-3.0)
    if float(a.data) != 2.0:
        raise _Fault(f"Tensor(2.0).data is {a.data!r}, expected 2.0")
    _expect("Tensor(2.0).grad", _grad(a), 0.0, "a new node has no gradient yet")
    _expect("(2 + -3).data", (a + b).data, -1.0, "the value of a sum")
    _expect("(2 * -3).data", (a * b).data, -6.0, "the value of a product")
    z = a * b + a
    z.backward()
    _expect("z.grad after z.backward()", _grad(z), 1.0, "the derivative of the result by itself")
    for name, node, value in (("a", a, 2.0), ("b", b, -3.0), ("z", z, -4.0)):
        _expect(f"{name}.data after backward()", node.data, value, "going backward changes no value")


def _sums(cls: Any) -> None:
    x = cls(3.0)
    (x + x).backward()
    _expect("x.grad of x + x", _grad(x), 2.0, "a node that is used twice gets both parts: += and not =")
    x, y = cls(3.0), cls(5.0)
    (x + y + x).backward()
    _expect("x.grad of x + y + x", _grad(x), 2.0, "contributions add up")
    _expect("y.grad of x + y + x", _grad(y), 1.0, "the derivative of a sum is 1")


def _products(cls: Any) -> None:
    x = cls(3.0)
    (x * x).backward()
    _expect("x.grad of x * x at 3", _grad(x), 6.0, "both factors are x, and each gets a part")
    a, b = cls(2.0), cls(-3.0)
    (a * b).backward()
    _expect("a.grad of a * b at (2, -3)", _grad(a), -3.0, "the derivative by one factor is the other")
    _expect("b.grad of a * b at (2, -3)", _grad(b), 2.0, "the derivative by one factor is the other")
    a, b = cls(2.0), cls(3.0)
    x = a * b
    z = x + x
    z.backward()
    found = tuple(map(_grad, (a, b, x, z)))
    if not all(map(_same, found, (6.0, 4.0, 2.0, 1.0))):
        raise _Fault(f"x = a * b, z = x + x at (2, 3): gradients {found}, expected (6, 4, 2, 1); the chain rule")


def _relu(cls: Any) -> None:
    for value, out, slope in ((2.0, 2.0, 1.0), (-2.0, 0.0, 0.0), (0.0, 0.0, 0.0)):
        x = cls(value)
        y = x.relu()
        _expect(f"Tensor({value:g}).relu().data", y.data, out, "max(0, x)")
        (y * cls(3.0)).backward()
        _expect(f"x.grad of 3 relu(x) at {value:g}", _grad(x), 3 * slope,
                "the slope at 0 is 0 by convention" if value == 0 else "slope 1 above 0 and 0 below")  # fmt: skip


def _diamonds(cls: Any) -> None:
    """A node is used by the result and by something else that the result uses: it has to wait for both."""
    why = (
        "a node's step has to run after those of all that use it; a depth-first walk that notes a node when it comes "
        "to it (pre-order) gives another order"
    )
    for _ in range(_DIAMONDS):
        for flipped in (False, True):
            a = cls(2.0)
            x = a * a
            y = x * x
            (y + x if flipped else x + y).backward()
            _expect("a.grad of x = a * a, y = x * x, z = x + y at 2", _grad(a), 36.0, why)
    x = node = cls(1.001)
    slope, value = 1.0, 1.001
    for _ in range(_DIAMONDS):                   # diamonds on diamonds
        node = node * cls(0.5) + node * cls(0.5)
        node, slope, value = node + node * node * cls(0.01), slope * (1 + 0.02 * value), value + 0.01 * value * value
    node.backward()
    _expect(f"x.grad of {_DIAMONDS} diamonds one on the other", _grad(x), slope, why)


def _depth(cls: Any) -> None:
    x = node = cls(1.0)
    one = cls(0.0)
    try:
        for _ in range(DEEP):
            node = node + one
        node.backward()
        found = _grad(x)
    except RecursionError:
        raise _Fault(
            f"RecursionError: a chain of {DEEP:,} operations is too deep; the walk calls itself for each node "
            f"(Python's limit is {sys.getrecursionlimit():,} calls): keep a list of what is still to be visited"
        ) from None
    finally:
        del node
    _expect(f"x.grad of a chain of {DEEP:,} sums", found, 1.0, "each sum passes its gradient on")


def _width(cls: Any) -> None:
    x = cls(2.0)
    total = cls(0.0)
    leaves = [cls(float(k)) for k in range(WIDE)]
    products = [x * leaf for leaf in leaves]
    while len(products) > 1:                     # a tree, so that this is about width alone
        products = [a + b for a, b in zip(products[::2], products[1::2], strict=False)] + products[len(products) & ~1 :]
    (products[0] + total).backward()
    _expect(f"x.grad of a sum of {WIDE:,} products", _grad(x), WIDE * (WIDE - 1) / 2, "every use counts")
    _expect("the gradient of the last factor", _grad(leaves[-1]), 2.0, "every use counts")


def _cycles(cls: Any) -> None:
    """Whether a graph that is not held goes at once, or waits for the collector."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for _ in range(GRAPHS):
            node = cls(2.0) * cls(3.0) + cls(1.0)
            node.backward()
        del node
        left = gc.collect()                      # how many objects only the collector could free
    finally:
        if enabled:
            gc.enable()
    if left >= GRAPHS:
        raise _Fault(
            "a graph stays in memory when nothing holds it any more, until Python's collector finds it: something "
            "refers to itself, as a closure `_backward` that uses `out` does, or an inner function that calls itself; "
            "training then takes several times as long"
        )


def _accumulation(cls: Any) -> None:
    def grads(times: int) -> tuple[float, float]:
        a, b = cls(2.0), cls(3.0)
        x = a * b
        z = x + x                                # no diamond: that is another check
        for _ in range(times):
            z.backward()
        return _grad(a), _grad(b)

    once, twice = grads(1), grads(2)
    again = [all(map(_same, twice, (k * once[0], k * once[1]))) for k in (1, 2)]
    if not any(again):
        raise _Fault(
            f"backward() twice gives {twice}, and {once} once; expected the same again, or twice that: gradients of "
            "nodes between the leaves and the result have to be zero when it begins"
        )
    a, b = cls(2.0), cls(3.0)
    (a * b).backward()
    (a + b).backward()
    if not any(_same(_grad(a), expected) for expected in ((3.0 + 1.0) if again[1] else 1.0, 1.0)):
        raise _Fault(f"after backward() of a * b, then of a + b, a.grad is {_grad(a):g}, expected 1, or 4 if it adds")


def _equal_values(cls: Any) -> None:
    """Nodes that have the same value are not the same node."""
    a, b = cls(2.0), cls(2.0)
    x, y = a * cls(3.0), b * cls(3.0)
    (x * cls(5.0) + y * cls(7.0)).backward()
    why = "two nodes of the same value are two nodes: keep them by identity, not in a set or a dictionary by value"
    _expect("a.grad of x = 3 a, y = 3 b, z = 5 x + 7 y at (2, 2)", _grad(a), 15.0, why)
    _expect("b.grad of x = 3 a, y = 3 b, z = 5 x + 7 y at (2, 2)", _grad(b), 21.0, why)


def _numbers(cls: Any) -> None:
    beside: list[tuple[str, Callable[[Any], Any], float, float]] = [
        ("a + 2", lambda a: a + 2, 6.0, 1.0), ("2 + a", lambda a: 2 + a, 6.0, 1.0),
        ("a * 3", lambda a: a * 3, 12.0, 3.0), ("3 * a", lambda a: 3 * a, 12.0, 3.0),
        ("a - 1", lambda a: a - 1, 3.0, 1.0), ("1 - a", lambda a: 1 - a, -3.0, -1.0),
        ("a / 2", lambda a: a / 2, 2.0, 0.5), ("8 / a", lambda a: 8 / a, 2.0, -0.5),
        ("a ** 2", lambda a: a**2, 16.0, 8.0),
    ]  # fmt: skip
    missing = []
    for text, f, value, slope in beside:
        a = cls(4.0)
        try:
            y = _once(lambda f=f, a=a: f(a), text)  # type: ignore[misc]
        except _Missing:
            missing.append(text)
            continue
        y.backward()
        _expect(f"({text}).data at 4", y.data, value, "a plain number counts as a constant")
        _expect(f"a.grad of {text} at 4", _grad(a), slope, "a plain number counts as a constant")
    if missing:
        raise _Missing(f"no plain numbers in {', '.join(missing)}")


_OTHERS: list[tuple[str, Callable[[Any, Any], Any]]] = [
    ("a - b", lambda a, b: a - b), ("a / b", lambda a, b: a / b), ("-a", lambda a, b: -a),
    ("a ** 3", lambda a, b: a**3),
    ("a.exp()", lambda a, b: a.exp()), ("a.log()", lambda a, b: a.log()), ("a.tanh()", lambda a, b: a.tanh()),
    ("a.sigmoid()", lambda a, b: a.sigmoid()), ("a.sqrt()", lambda a, b: a.sqrt()), ("a.sin()", lambda a, b: a.sin()),
]  # fmt: skip


def _points() -> Iterator[tuple[float, float]]:
    generator = random.Random(0)
    for _ in range(5):
        yield generator.uniform(0.3, 2.0), generator.uniform(0.5, 2.0) * generator.choice((-1, 1))


def _operations(cls: Any) -> None:
    """Whatever else it has, against central differences of its own values."""
    step = 1e-5
    missing = []
    for text, f in _OTHERS:
        try:
            _once(lambda f=f: f(cls(0.7), cls(1.3)), text)  # type: ignore[misc]
        except _Missing:
            missing.append(text)
            continue
        for x, y in _points():
            def value(s: float, t: float, f: Any = f) -> float:
                return float(f(cls(s), cls(t)).data)

            a, b = cls(x), cls(y)
            (f(a, b) * cls(2.0) + f(a, b)).backward()
            for name, node, difference in (
                ("a", a, value(x + step, y) - value(x - step, y)), ("b", b, value(x, y + step) - value(x, y - step))
            ):  # fmt: skip
                slope = 3 * difference / (2 * step)
                if abs(_grad(node) - slope) > 1e-5 * max(1.0, abs(slope)):
                    raise _Fault(
                        f"{name}.grad of 3 ({text}) at ({x:.3g}, {y:.3g}) is {_grad(node):.6g}, but the values "
                        f"themselves rise by {slope:.6g}"
                    )
    if missing:
        raise _Missing(f"no {', '.join(missing)}")


_CHECKS: list[Callable[[Any], None]] = [
    _values, _sums, _products, _relu, _diamonds, _depth, _width, _cycles, _accumulation, _equal_values, _numbers,
    _operations,
]  # fmt: skip
