"""Random expressions: numbers, comparisons, vectors, gathers, in terms of what a scope has."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

KINDS = ("exact", "tame", "wild")
EXACT = [-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0]
WILD = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, "inf", "-inf", "nan", 1e200, -1e200, 1e308, 1e-200, -1e-300, 5e-324, 710.0, 1e5]
COMPARISONS = ["<", "<=", ">", ">=", "==", "!="]

# of the drop-in `math`: defined everywhere, on a half-line or an interval, and of two numbers
SMOOTH = [
    "sin",
    "cos",
    "tanh",
    "atan",
    "asinh",
    "erf",
    "erfc",
    "ndtr",
    "cbrt",
    "exp",
    "expm1",
    "exp2",
    "degrees",
    "radians",
    "sinh",
    "cosh",
    "tan",
]
PARTIAL = ["log", "log2", "log10", "log1p", "sqrt", "asin", "acos", "acosh", "atanh", "lgamma", "digamma", "gamma"]
STEPS = ["floor", "ceil", "trunc", "fabs"]
PAIRS = ["atan2", "hypot", "copysign", "fmod", "pow", "remainder"]
OF_FS = ["sigmoid", "softplus", "silu", "gelu", "sign", "relu", "leaky_relu", "elu"]
CAUGHT = ["ValueError", "ZeroDivisionError", "OverflowError", "ArithmeticError", "(ValueError, ZeroDivisionError)"]


@dataclass
class Scope:
    """What can be read at a place: names of numbers; of vectors and matrices with their sizes; of whole numbers."""

    numbers: list[str] = field(default_factory=list)
    vectors: list[tuple[str, int]] = field(default_factory=list)
    matrices: list[tuple[str, int, int, bool]] = field(default_factory=list)  # the last: indexed by w[i, j] as well
    wholes: list[str] = field(default_factory=list)
    arrays: list[tuple[str, int]] = field(default_factory=list)  # those vectors that are TensorArrays
    modules: list[tuple[str, int, int]] = field(default_factory=list)
    tables: list[tuple[str, int]] = field(default_factory=list)  # lists of plain numbers
    callables: list[str] = field(default_factory=list)

    def inner(self) -> Scope:
        return Scope(**{name: list(value) for name, value in vars(self).items()})


class Expressions:
    """Draws expressions; what kind of numbers there are, and whether they raise, is drawn once."""

    def __init__(self, seed: int, kind: str | None = None) -> None:
        self.draw = random.Random(seed)
        self.kind = kind or self.draw.choice(KINDS)
        self.head: list[str] = []
        self.body: list[str] = []
        self.names = 0
        self.scope = Scope()
        self.wide = self.draw.random() < 0.35 and self.draw.choice([15, 16, 17])
        self.raising = self.draw.random() < 0.5  # functions are called where they may raise
        self.reading = self.draw.random() < 0.3
        self.of_arrays = seed % 4 == 3
        self.drawing = random.Random(~seed).random() < 0.12      # random numbers; other programs stay what they were

    # --- numbers ---

    def number(self, wild: bool = True) -> Any:
        if self.kind == "exact":
            return self.draw.choice(EXACT)
        if self.kind == "wild" and wild and self.draw.random() < 0.25:
            return self.draw.choice(WILD)
        if self.draw.random() < 0.25:
            return self.draw.choice(EXACT)
        return round(self.draw.gauss(0, 1), self.draw.choice([1, 3, 17]))

    def constant(self) -> str:
        return self.draw.choice(["0.0", "1.0", "2.0", "0.5", "-1.0", "3", "1", "0", "-2"])

    def any_of(self, *ways: str) -> str:
        return self.draw.choice(ways)

    def new(self, letter: str) -> str:
        self.names += 1
        return f"{letter}{self.names}"

    def chance(self, p: float) -> bool:
        return self.draw.random() < p

    # --- expressions ---

    def atom(self, s: Scope) -> str:
        kind = self.draw.random()
        if kind < 0.5 and s.numbers:
            return self.draw.choice(s.numbers[-4:] if self.chance(0.6) else s.numbers)
        if kind < 0.75 and s.vectors:
            return self.element(s)
        if kind < 0.82 and s.matrices:
            name, rows, columns, array = self.draw.choice(s.matrices)
            i, j = self.draw.randrange(rows), self.draw.randrange(columns)
            return f"{name}[{i}, {j}]" if array and self.chance(0.5) else f"{name}[{i}][{j}]"
        if kind < 0.9 and s.wholes:
            return self.draw.choice(s.wholes)
        if s.numbers and self.chance(0.6):
            return self.draw.choice(s.numbers)
        return self.constant()

    def element(self, s: Scope) -> str:
        name, n = self.draw.choice(s.vectors)
        return f"{name}[{self.draw.randrange(-n, n) if self.chance(0.2) else self.draw.randrange(n)}]"

    def expression(self, s: Scope, depth: int = 2) -> str:
        if depth <= 0:
            return self.atom(s)
        ways: list[tuple[float, Callable[[Scope, int], str]]] = [
            (6, self.arithmetic), (1, self.atom_of), (2.5, self.function), (2, self.choice), (1.5, self.of_vector),
            (1.2, self.gather), (0.4, self.detached),
        ]  # fmt: skip
        if self.reading:
            ways.append((0.5, self.read))
        if s.callables:
            ways.append((1.5, self.call))
        if self.drawing:
            ways.append((1.5, self.drawn))
        _, way = self.draw.choices(ways, [weight for weight, _ in ways])[0]
        return way(s, depth - 1)

    def drawn(self, s: Scope, depth: int) -> str:
        """A random number: of a site of its own, or of one that loops come to again."""
        if self.kind == "exact":
            return self.any_of("fs.random.bernoulli(0.5)", "fs.sum(fs.random.bernoulli(0.25, 3))")
        return self.any_of(
            "fs.random.normal()", "fs.random.uniform()", "fs.random.bernoulli(0.5)", "fs.random.normal(3)[1]",
            f"fs.random.bernoulli(abs(math.sin({self.atom(s)})))", "fs.sum(fs.random.uniform((2, 2)))",
        )  # fmt: skip

    def atom_of(self, s: Scope, depth: int) -> str:
        return self.atom(s)

    def arithmetic(self, s: Scope, depth: int) -> str:
        a, b = self.expression(s, depth), self.expression(s, depth)
        kind = self.draw.random()
        if kind < 0.75:
            return f"({a} {self.draw.choice('+-*')} {b})"
        if kind < 0.85:
            if self.kind == "exact":
                return f"({a} / {self.draw.choice(['2.0', '-4', '0.5'])})" if not self.chance(0.1) else f"({a} / {b})"
            return f"({a} / {b})" if self.raising else f"({a} / ({b} * {b} + 0.5))"
        if kind < 0.93:
            return f"({a} ** {self.draw.choice(['2', '2', '3', '2.0', '1', '0'])})" if self.kind == "exact" else (
                f"({a} ** {self.draw.choice(['2', '3', '2.0', '0.5', '-1', '1.5', '0'])})"
                if self.raising else f"({a} ** {self.draw.choice(['2', '3', '2.0', '1', '0'])})"
            )  # fmt: skip
        if kind < 0.96:
            return (
                f"({a} {self.draw.choice(['%', '//'])} {b if self.raising else self.draw.choice(['2.0', '3', '0.5'])})"
            )
        return f"(-{a})"

    def function(self, s: Scope, depth: int) -> str:
        a = self.expression(s, depth)
        if self.kind == "exact":
            name = self.draw.choice([*STEPS, "relu", "leaky_relu", "sign", "abs", "copysign", "fmod", "sqrt", "log"])
            if name in ("relu", "sign"):
                return f"fs.{name}({a})"
            if name == "leaky_relu":
                return f"fs.leaky_relu({a}, {self.draw.choice(['0.5', '2', self.atom(s)])})"
            if name == "abs":
                return f"abs({a})"
            if name in ("copysign", "fmod"):
                return f"math.{name}({a}, {self.atom(s)})"
            if name in ("sqrt", "log"):  # only for what they raise: a square root of 4 is exact, its slope too
                return f"math.sqrt({a} * {a})" if not self.raising else f"math.{name}({a}) * 0.0"
            return f"math.{name}({a})"
        kind = self.draw.random()
        if kind < 0.45:
            name = self.draw.choice(SMOOTH)
            small = name in ("exp", "expm1", "exp2", "sinh", "cosh") and not (self.raising and self.chance(0.3))
            return f"math.{name}(0.25 * {a})" if small else f"math.{name}({a})"
        if kind < 0.65:
            name = self.draw.choice(PARTIAL)
            if self.raising and self.chance(0.6):
                return f"math.{name}({a})"
            inside = {"asin": "0.9 * math.sin({})", "acos": "0.9 * math.sin({})", "atanh": "0.9 * math.sin({})",
                      "acosh": "1.25 + abs({})"}.get(name, "abs({}) + 0.25")  # fmt: skip
            return f"math.{name}({inside.format(a)})"
        if kind < 0.8:
            name = self.draw.choice(PAIRS)
            b = self.expression(s, depth)
            if name in ("fmod", "remainder", "pow") and not self.raising:
                return f"math.{name}(abs({a}) + 0.5, {self.draw.choice(['2', '1.5', '3.0'])})"
            return f"math.{name}({a}, {b})" if self.chance(0.6) else f"math.{name}({b}, {self.atom(s)})"
        if kind < 0.95:
            name = self.draw.choice(OF_FS)
            second = f", {self.draw.choice(['0.1', '2', self.atom(s)])}" if name in ("leaky_relu", "elu") else ""
            return f"fs.{name}({a}{second})"
        return f"math.{self.draw.choice(STEPS)}({a})"

    def choice(self, s: Scope, depth: int) -> str:
        a, b = self.expression(s, depth), self.expression(s, depth)
        return self.draw.choice([
            lambda: f"max({a}, {b})", lambda: f"min({a}, {b})",
            lambda: f"fs.maximum({a}, {b})", lambda: f"fs.minimum({a}, {b})", lambda: f"fs.maximum({a}, 0.0)",
            lambda: f"fs.where({self.comparison(s)}, {a}, {b})", lambda: f"fs.where({self.comparison(s)}, {a}, {b})",
            lambda: f"({a} if {self.condition(s)} else {b})", lambda: f"abs({a})",
            lambda: f"fs.clip({a}, {self.any_of('-1.0', '0', self.atom(s))}, {self.any_of('1.0', '2', b)})",
            lambda: f"fs.max([{a}, {b}, {self.atom(s)}])", lambda: f"fs.min([{a}, {self.atom(s)}, {b}])",
            lambda: f"sorted([{a}, {b}, {self.atom(s)}])[{self.draw.randrange(3)}]",
            lambda: f"max({a}, {b}, key=lambda e: {self.draw.choice(['-e', 'abs(e)', 'e * e'])})",
        ])()  # fmt: skip

    def comparison(self, s: Scope) -> str:
        b = self.constant() if self.chance(0.5) else self.expression(s, 1)
        return f"{self.expression(s, 1)} {self.draw.choice(COMPARISONS)} {b}"

    def condition(self, s: Scope) -> str:
        kind = self.draw.random()
        if kind < 0.55:
            return self.comparison(s)
        if kind < 0.65:
            op = self.draw.choice(["<", "<=", "<"])
            return f"{self.constant()} {op} {self.atom(s)} {op} {self.atom(s)}"
        if kind < 0.75:
            return f"({self.comparison(s)} {self.draw.choice(['and', 'or'])} {self.comparison(s)})"
        if kind < 0.8:
            return f"not {self.comparison(s)}"
        if kind < 0.9 and s.wholes:
            k = self.draw.choice(s.wholes)
            return self.draw.choice(
                [f"{k} == 1", f"{k} % 2 == 0", f"{k} > 0", f"{k} in (0, 2)", f"{k}", f"{k} < {self.atom(s)}"]
            )
        if kind < 0.95 and s.vectors:
            name, _ = self.draw.choice(s.vectors)
            op = self.draw.choice(COMPARISONS)
            return f"{self.any_of('any', 'all')}(e {op} {self.constant()} for e in {name})"
        return f"math.{self.draw.choice(['isnan', 'isinf', 'isfinite'])}({self.atom(s)})"

    def vector(self, s: Scope, most: int = 99) -> tuple[str, int]:
        """An expression of a vector."""
        known = [v for v in s.vectors if v[1] <= most]
        if known and self.chance(0.65):
            return self.draw.choice(known)
        if known and self.chance(0.4):
            name, n = self.draw.choice(known)
            return f"[{self.with_element(s)} for e in {name}]", n
        n = self.draw.choice([2, 3])
        return "[" + ", ".join(self.expression(s, 1) for _ in range(n)) + "]", n

    def with_element(self, s: Scope) -> str:
        a = self.atom(s)
        ways = [f"e * {a}", f"e + {a}", "e * e", f"{a} - e", f"fs.maximum(e, {a})", "abs(e)"]
        if self.kind != "exact":
            ways += ["math.tanh(e)", "math.sin(e)", f"math.atan2(e, {a})", f"fs.sigmoid(e * {a})"]
        if self.raising:
            ways += [f"e / {a}", "math.sqrt(e)"] if self.kind != "exact" else []
        return self.draw.choice(ways)

    def of_vector(self, s: Scope, depth: int) -> str:
        v, n = self.vector(s)
        i = self.draw.randrange(n)
        ways = [f"{name}({v})" for name in ("sum", "fs.sum", "max", "min", "fs.max", "fs.min")]
        ways += [f"fs.dot({v}, {v})", f"sum(e * e for e in {v})", f"sorted({v})[{i}]",
                 f"fs.squared_loss({v}, [{', '.join(['1.0'] * n)}])",
                 f"sum(e for e in {v} if e > {self.constant()})"]  # fmt: skip
        place = f"fs.{self.draw.choice(['argmax', 'argmin'])}({v})"
        ways += [f"{place} * {self.atom(s)}", f"fs.where({place} == {i}, {self.atom(s)}, {self.constant()})"]
        ways += [f"{u}[{place}]" for u, m in [*s.vectors, *s.arrays] if m >= n][-3:]
        other = [u for u in s.vectors if u[1] == n]
        if other:
            u = self.draw.choice(other)[0]
            ways += [f"fs.dot({v}, {u})", f"sum(a * b for a, b in zip({v}, {u}))", f"fs.squared_loss({v}, {u})"]
        if n <= 4:
            ways.append(f"fs.prod({v})")
        if self.kind != "exact":
            ways += [f"fs.mean({v})", f"fs.norm({v})", f"fs.logsumexp({v})", f"fs.softmax({v})[{i}]",
                     f"fs.log_softmax({v})[{i}]", f"fs.cross_entropy({v}, {i})"]  # fmt: skip
            if s.wholes:
                ways += [f"fs.cross_entropy({v}, {self.index(s, n)})"] * 2
        arrays = [u for u in s.arrays if u[1] == n]
        if arrays:
            a, b = self.draw.choice(arrays)[0], self.draw.choice(arrays)[0]
            ways += [f"({a} * {b}).sum()", f"({a} + {self.atom(s)}).sum()", f"abs({a} - {b}).sum()",
                     f"fs.sum({a}.relu())", f"({a}.maximum({b})).sum()", f"sum({a}[1:])",
                     f"sum({a}.tolist()) * {a}[0]" if self.reading else f"{a}[-1]"]  # fmt: skip
        return self.draw.choice(ways)

    def index(self, s: Scope, n: int) -> str:
        """A whole number that mostly lies in range(n)."""
        k = self.draw.choice(s.wholes)
        kind = self.draw.random()
        if kind < 0.45:
            return f"{k} % {n}"
        if kind < 0.75:
            return k
        return self.draw.choice([f"-{k}", f"{k} - 1", f"abs({k}) % {n}", f"min({k}, {n - 1})"])

    def gather(self, s: Scope, depth: int) -> str:
        if not s.wholes:
            return self.atom(s)
        kind = self.draw.random()
        if kind < 0.5 and s.vectors:
            name, n = self.draw.choice(s.vectors)
            return f"{name}[{self.draw.choice(s.wholes) if self.chance(0.6) else self.index(s, n)}]"
        if kind < 0.75 and s.matrices:
            name, rows, columns, array = self.draw.choice(s.matrices)
            i, j = self.index(s, rows), self.draw.choice([str(self.draw.randrange(columns)), self.index(s, columns)])
            return f"{name}[{i}, {j}]" if array and self.chance(0.5) else f"{name}[{i}][{j}]"
        if s.tables:
            name, n = self.draw.choice(s.tables)
            return f"{name}[{self.index(s, n)}]"
        return self.draw.choice(s.wholes)

    def call(self, s: Scope, depth: int) -> str:
        # with plain numbers a program is called for one row, and gives a plain number
        return f"{self.draw.choice(s.callables)}(fs.Tensor(0.0) + {self.expression(s, depth)}, {self.atom(s)})"

    def detached(self, s: Scope, depth: int) -> str:
        if s.arrays and self.chance(0.2):
            return f"fs.sum({self.draw.choice(s.arrays)[0]}.detach())"
        return f"{self.element(s)}.detach()" if s.vectors else self.atom(s)

    def read(self, s: Scope, depth: int) -> str:
        a = self.expression(s, 1)
        ways = [f"float({a})", f"int({a})", f"round({a})", f"float({self.atom(s)})"]
        if s.vectors:
            e = self.element(s)
            ways += [f"{e}.data", f"{e}.item()", f"max(e.data for e in {self.draw.choice(s.vectors)[0]})",
                     f"len(f'{{{e}:.1f}}')"]  # fmt: skip
        return self.draw.choice(ways)
