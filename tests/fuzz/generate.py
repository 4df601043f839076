"""Random functions of a row, as Python source.

A case is a module: leaves and tables, the function `f`, ARGUMENTS (an array of rows, or a number that all rows share,
for each parameter of f), and PLAN, what the judge does with the compiled function, in order.  The same seed gives the
same text.  Three kinds of cases, by the numbers in them: "exact" has small binary fractions and operations that do not
round, so that results agree to the bit, and ties are met often; "tame" has random numbers of about one; "wild" has
infinities, NaN, zeros of both signs, huge and tiny numbers too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .arrays import ArrayStatements
from .expressions import CAUGHT, KINDS, Scope

__all__ = ["KINDS", "Writer", "write"]


class Writer(ArrayStatements):
    """Draws one case."""

    # --- statements: each returns lines ---

    def block(self, s: Scope, depth: int, count: int) -> list[str]:
        lines: list[str] = []
        for _ in range(count):
            lines += self.statement(s, depth)
        return lines

    def statement(self, s: Scope, depth: int) -> list[str]:
        ways: list[tuple[float, Callable[[Scope, int], list[str]]]] = [
            (4, self.assign), (1.5, self.new_vector), (1, self.dense), (0.7, self.wholes),
        ]  # fmt: skip
        if depth:
            ways += [(2, self.branch), (1.2, self.loop), (1, self.repeat), (0.8, self.said_loop),
                     (0.3, self.without_gradient)]  # fmt: skip
            if self.raising:
                ways += [(1.5, self.catch), (0.4, self.throw)]
        if self.kind != "exact":
            ways.append((0.6, self.softmax_by_hand))
        if self.reading:
            ways.append((0.5, self.reading_loop))
        if self.of_arrays:
            ways.append((8, self.array_statement))
        _, way = self.draw.choices(ways, [weight for weight, _ in ways])[0]
        return way(s, depth)

    def assign(self, s: Scope, depth: int) -> list[str]:
        value = self.expression(s, self.draw.choice([1, 2, 2, 3]))
        if s.numbers and self.chance(0.15):
            known = [name for name in s.numbers if name[0] == "t"]
            if known:
                return [f"{self.draw.choice(known)} {self.draw.choice(['+=', '*=', '-='])} {self.expression(s, 1)}"]
        name = self.new("t")
        if self.kind != "exact" and self.chance(0.3):
            value = f"math.tanh({value})"
        s.numbers.append(name)
        return [f"{name} = {value}"]

    def some_number(self, s: Scope, lines: list[str]) -> str:
        """A number that may be assigned to."""
        known = [name for name in s.numbers if name[0] == "t"]
        if known and self.chance(0.7):
            return self.draw.choice(known)
        name = self.new("t")
        lines.append(f"{name} = {self.expression(s, 1)}")
        s.numbers.append(name)
        return name

    def branch(self, s: Scope, depth: int) -> list[str]:
        lines: list[str] = []
        target = self.some_number(s, lines)
        lines.append(f"if {self.condition(s)}:")
        lines += self.indented(s, depth, target)
        if self.chance(0.3):
            lines.append(f"elif {self.condition(s)}:")
            lines += self.indented(s, depth, target)
        if self.chance(0.5):
            lines.append("else:")
            lines += self.indented(s, depth, target)
        elif self.chance(0.1):
            lines.append("else:")
            lines.append(f"    return {self.expression(s, 1)}")
        return lines

    def indented(self, s: Scope, depth: int, target: str) -> list[str]:
        inner = s.inner()
        lines = self.block(inner, depth - 1, self.draw.choice([0, 0, 1, 2]))
        lines.append(f"{target} = {self.expression(inner, 2)}")
        return ["    " + line for line in lines]

    def loop(self, s: Scope, depth: int) -> list[str]:
        lines: list[str] = []
        target, c = self.some_number(s, lines), self.new("c")
        limit = self.draw.choice(["3", "4", f"min(abs({self.draw.choice(s.wholes)}), 4)" if s.wholes else "2"])
        growth = self.draw.choice(["0.5", "-0.75", "1"])
        lines += [f"{c} = 0", f"while {self.condition(s)} and {c} < {limit}:"]
        inner = s.inner()
        lines += ["    " + line for line in self.block(inner, depth - 1, self.draw.choice([0, 0, 1]))]
        if self.kind == "exact":
            step = self.draw.choice([f"{target} + {growth}", f"{target} - {self.atom(inner)}", f"{target} + {c}"])
        else:
            step = self.draw.choice(
                [
                    f"{target} * 1.5 + {growth}",
                    f"{self.expression(inner, 1)}",
                    f"math.tanh({target} + {self.atom(inner)})",
                ]
            )
        lines += [f"    {target} = {step}", f"    {c} += 1"]
        if self.chance(0.2):
            lines += [f"    if {self.condition(inner)}:", f"        {self.draw.choice(['break', 'break', 'continue'])}"]
        return lines

    def repeat(self, s: Scope, depth: int) -> list[str]:
        lines: list[str] = []
        target, i = self.some_number(s, lines), self.new("i")
        kind = self.draw.random()
        inner = s.inner()
        if kind < 0.4 and s.wholes:
            lines.append(f"for {i} in range({self.draw.choice(s.wholes)} % 4):")
            inner.wholes.append(i)
        elif kind < 0.8 and s.vectors:
            small = [v for v in s.vectors if v[1] <= 5] or s.vectors
            lines.append(f"for {i} in {self.draw.choice(small)[0]}:")
            inner.numbers.append(i)
        else:
            lines.append(f"for {i} in range({self.draw.choice([1, 2, 12])}):")
            inner.wholes.append(i)
        lines += ["    " + line for line in self.block(inner, depth - 1, self.draw.choice([0, 0, 1]))]
        if self.kind == "exact":
            step = f"{target} + {self.expression(inner, 1)}"
        else:
            step = self.draw.choice(
                [f"{target} * 0.5 + {self.expression(inner, 1)}", f"math.tanh({target} + {self.expression(inner, 1)})"]
            )
        return [*lines, f"    {target} = {step}"]

    def said_loop(self, s: Scope, depth: int) -> list[str]:
        """fs.loop and fs.while_loop."""
        lines: list[str] = []
        target, z = self.some_number(s, lines), self.new("z")
        inner = s.inner()
        inner.numbers.append(z if self.chance(0.6) else f"{z}[0]")
        several = inner.numbers[-1] != z
        if self.kind == "exact":
            step = f"{inner.numbers[-1]} + {self.expression(inner, 1)}"
        else:
            step = self.draw.choice([f"{inner.numbers[-1]} * 0.5 + {self.expression(inner, 1)}",
                                     f"math.tanh({self.expression(inner, 2)})"])  # fmt: skip
        count = f"{self.draw.choice(s.wholes)} % 4" if s.wholes and self.chance(0.3) else self.draw.choice("0123")
        if not several:
            return [*lines, f"{target} = fs.loop({count}, lambda {z}: {step}, {target})"]
        goes_on = f"{z}[1] < {count} and {self.condition(inner)}"
        once = f"lambda {z}: ({step}, {z}[1] + 1)"
        return [*lines, f"{target} = fs.while_loop(lambda {z}: {goes_on}, {once}, ({target}, 0))[0]"]

    def without_gradient(self, s: Scope, depth: int) -> list[str]:
        lines: list[str] = []
        target = self.some_number(s, lines)
        return [*lines, "with fs.no_grad():", f"    {target} = {self.expression(s, 2)}"]

    def may_raise(self, s: Scope) -> tuple[str, list[str]]:
        """An expression that raises for some rows, and what it raises."""
        a = self.expression(s, 1)
        ways = [
            (f"math.log({a})", ["ValueError"]), (f"math.sqrt({a})", ["ValueError"]),
            (f"1.0 / {a}", ["ZeroDivisionError"]), (f"{a} ** -1", ["ZeroDivisionError"]),
            (f"({a}) ** 0.5", ["ValueError"]), (f"math.exp(800.0 * {a})", ["OverflowError"]),
            (f"{a} % {self.atom(s)}", ["ZeroDivisionError"]), (f"int({a})", ["ValueError", "OverflowError"]),
            (f"math.acos({a})", ["ValueError"]), (f"math.pow({a}, -0.5)", ["ValueError", "ZeroDivisionError"]),
            (f"10.0 ** ({a} * 400)", ["OverflowError"]),
        ]  # fmt: skip
        if self.kind == "exact":
            ways = [(f"{a} + 0.0 * ({e})" if "exp" in e or "log" in e or "acos" in e else e, t) for e, t in ways]
            ways = [w for w in ways if "0.5" not in w[0] and "10.0" not in w[0]] or [
                (f"1.0 / ({a})", ["ZeroDivisionError"])
            ]
        elif self.chance(0.2):  # from within what is one instruction
            z, step = self.new("z"), self.draw.choice(["math.sqrt({})", "1.0 + math.log({})", "0.9 * refuses({})"])
            ways = [(f"fs.loop({self.draw.choice([1, 3, 300])}, lambda {z}: {step.format(z)}, {a})", ["ValueError"])]
            ways += [(f"refuses({a})", ["ValueError"])]
        if s.wholes and s.vectors:
            name, n = self.draw.choice(s.vectors)
            ways += [(f"{name}[{self.draw.choice(s.wholes)} + {self.draw.choice([0, n - 1])}]", ["IndexError"])] * 2
            ways += [(f"{name}[{self.draw.choice(s.wholes)}]", ["IndexError"])] * 3
        if s.wholes and s.matrices:
            name, *_ = self.draw.choice(s.matrices)
            ways += [(f"fs.sum({name}[{self.draw.choice(s.wholes)}])", ["IndexError"])] * 2
        if s.wholes and s.tables:
            ways += [(f"{self.draw.choice(s.tables)[0]}[{self.draw.choice(s.wholes)}]", ["IndexError"])]
        return self.draw.choice(ways)

    def catch(self, s: Scope, depth: int) -> list[str]:
        lines: list[str] = []
        target = self.some_number(s, lines)
        value, types = self.may_raise(s)
        caught = (
            self.draw.choice(types)
            if self.chance(0.7)
            else self.draw.choice([*CAUGHT, "Exception", "IndexError", "LookupError"])
        )
        inner = s.inner()
        lines.append("try:")
        if self.chance(0.3):
            lines += ["    " + line for line in self.block(inner, depth - 1, 1)]
        lines.append(f"    {target} = {value}")
        if self.chance(0.3):
            lines += [f"    {target} = {target} + {self.may_raise(inner)[0]}"]
        lines.append(f"except {caught}:")
        lines.append(f"    {target} = {self.expression(s, 2)}" if self.chance(0.85) else "    pass")
        if self.chance(0.15):
            lines += ["else:", f"    {target} = {target} + {self.expression(s, 1)}"]
        if self.chance(0.15):
            lines += ["finally:", f"    {target} = {target} * 0.5"]
        return lines

    def throw(self, s: Scope, depth: int) -> list[str]:
        what = self.draw.choice(
            ["ValueError('no')", "ZeroDivisionError('none')", "RuntimeError('stop')", "KeyError(3)"]
        )
        return [f"if {self.condition(s)}:", f"    raise {what}"]

    def wholes(self, s: Scope, depth: int) -> list[str]:
        if not s.wholes:
            return self.assign(s, depth)
        name, k, other = self.new("k"), self.draw.choice(s.wholes), self.draw.choice(s.wholes)
        s.wholes.append(name)
        ways = [f"{k} % 3", f"{k} + 1", f"{k} - {other}", f"abs({k})", f"{k} // 2", f"{k} & 1", f"min({k}, {other})"]
        return [f"{name} = {self.any_of(*ways, f'2 * {k}', f'-{k}')}"]

    def new_vector(self, s: Scope, depth: int) -> list[str]:
        name = self.new("v")
        kind = self.draw.random()
        value, n = self.vector(s)
        if kind < 0.25:
            value = f"[{self.with_element(s)} for e in {value}]"
        elif kind < 0.35 and n <= 5:
            value = f"sorted({value})"
        elif kind < 0.45 and n > 2:
            n -= 1
            value = f"{value}[1:]"
        elif kind < 0.55:
            value = f"fs.to_tensor({value})" if not value.startswith("[") else f"list({value})"
            if value.startswith("fs"):
                value = f"[e for e in {value[13:]}"[:-1] + "]"
        elif kind < 0.65 and self.kind != "exact":
            value = f"fs.softmax({value})"
        elif kind < 0.75 and s.matrices:
            matrix, rows, n, _ = self.draw.choice(s.matrices)
            i = self.index(s, rows) if s.wholes and self.chance(0.5) else self.draw.randrange(rows)
            value = f"{matrix}[{i}]"
        s.vectors.append((name, n))
        return [f"{name} = {value}"]

    # --- dense parts ---

    def weights(self, s: Scope, n: int, m: int) -> str:
        """An expression with weights [i][j] for n inputs and m outputs: leaves, or computed from arguments."""
        known = [name for name, rows, columns, _ in s.matrices if rows == n and columns == m]
        if known and self.chance(0.7):
            name = self.draw.choice(known)
            if self.chance(0.3):
                return f"[[e * {self.atom(s)} for e in row] for row in {name}]"
            return name
        a, b = self.atom(s), self.atom(s)
        if self.kind == "exact":
            one = self.draw.choice([f"{a} * (i - j)", f"{a} + i", f"{a} - {b} * j", f"{a} * {b}"])
        else:
            one = self.draw.choice([
                f"{a} * (0.1 * i - 0.2 * j)", f"math.exp(-0.1 * {a} * (i + j))", f"math.sin({a} + i * {b} + j)",
                f"{a} * {b} / (i + 1.0)", f"math.tanh({a}) ** 2 * (j + 1)",
            ])  # fmt: skip
        return f"[[{one} for j in range({m})] for i in range({n})]"

    def dense(self, s: Scope, depth: int) -> list[str]:
        lines: list[str] = []
        x, n = self.vector(s)
        wide = [v for v in s.vectors if v[1] >= 15]
        if wide and self.chance(0.7):
            x, n = self.draw.choice(wide)
        modules = [m for m in s.modules if m[1] == n]
        out = self.new("v")
        if modules and self.chance(0.5):
            name, _, m = self.draw.choice(modules)
            s.vectors.append((out, m))
            return [f"{out} = {name}({x})"]
        m = self.draw.choice([1, 2, 3, 4])
        w = self.weights(s, n, m)
        if not w.isidentifier():
            lines.append(f"{out}w = {w}")
            w = f"{out}w"
        bias = self.draw.choice(["0.0", "0.0", self.atom(s)])
        kind = self.draw.random()
        if kind < 0.3:
            lines += [f"{out} = []", f"for j in range({m}):", f"    s = {bias}", f"    for i in range({n}):",
                      f"        s = s + {x}[i] * {w}[i][j]", f"    {out}.append(s)"]  # fmt: skip
        elif kind < 0.5:
            lines += [f"{out} = [{bias}] * {m}", f"for i in range({n}):", f"    for j in range({m}):",
                      f"        {out}[j] = {out}[j] + {w}[i][j] * {x}[i]"]  # fmt: skip
        elif kind < 0.7:
            lines += [f"{out} = [sum({x}[i] * {w}[i][j] for i in range({n})) + {bias} for j in range({m})]"]
        elif kind < 0.85:
            lines += [f"{out} = [fs.dot({x}, [{w}[i][j] for i in range({n})]) for j in range({m})]"]
        else:  # the weight is on the left, with a sign now and then
            lines += [f"{out} = [{bias} - sum({w}[i][j] * {x}[i] for i in range({n})) for j in range({m})]"]
        after = self.draw.random()
        if after < 0.3:
            lines.append(f"{out} = [fs.relu(e) for e in {out}]")
        elif after < 0.5 and self.kind != "exact":
            lines.append(f"{out} = [math.tanh(e) for e in {out}]")
        elif after < 0.6:
            lines.append(f"{out} = [fs.maximum(e, 0.0) for e in {out}]")
        s.vectors.append((out, m))
        return lines

    def softmax_by_hand(self, s: Scope, depth: int) -> list[str]:
        v, _ = self.vector(s)
        v, n = (v, _) if not v.startswith("[") else (self.draw.choice(s.vectors) if s.vectors else (v, _))
        most, es, out = self.new("m"), self.new("v"), self.new("v")
        top = self.draw.choice(
            [
                f"max({v})",
                f"fs.max({v})",
                f"max(e.data for e in {v})" if self.reading else f"max({v})",
                f"max({v}).detach()",
            ]
        )
        lines = [f"{most} = {top}", f"{es} = [math.exp(e - {most}) for e in {v}]"]
        lines.append(f"{out} = [e / sum({es}) for e in {es}]")
        s.vectors += [(es, n), (out, n)]
        if s.wholes:
            name = self.new("t")
            lines.append(f"{name} = -math.log({out}[{self.index(s, n)}] + 1e-6)")
            s.numbers.append(name)
        return lines

    def reading_loop(self, s: Scope, depth: int) -> list[str]:
        """An iteration that stops when a number that was read is small."""
        if self.kind == "exact":
            return self.assign(s, depth)
        name, c = self.new("t"), self.new("c")
        s.numbers.append(name)
        read = self.any_of("", ".data")
        return [
            f"{name} = 1.0 + abs({self.atom(s)})",
            f"{c} = 0",
            f"while abs(({name} * {name} - 2.0){read}) > 1e-3 and {c} < 6:",
            f"    {name} = 0.5 * ({name} + 2.0 / {name})",
            f"    {c} += 1",
        ]

    # --- the whole ---

    def literal(self, value: Any) -> str:
        if isinstance(value, list):
            return "[" + ", ".join(map(self.literal, value)) + "]"
        return value if isinstance(value, str) else repr(value)

    def numbers_of(self, *shape: int, wild: bool = True) -> Any:
        if not shape:
            return self.number(wild)
        return [self.numbers_of(*shape[1:], wild=wild) for _ in range(shape[0])]

    def some_zeros(self, values: Any, share: float) -> Any:
        if isinstance(values, list):
            return [self.some_zeros(v, share) for v in values]
        return 0.0 if self.chance(share) else values

    def whole(self, most: int) -> int:
        return self.draw.randrange(-1, most + 1) if self.chance(0.06) else self.draw.randrange(most)

    def leaves(self) -> None:
        s, draw = self.scope, self.draw
        n = self.wide
        for _ in range(draw.choice([0, 1, 1, 2, 3])):
            name = self.new("w")
            kind = draw.random()
            if kind < 0.3:
                s.numbers.append(name)
                self.head.append(f"{name} = fs.Tensor({self.literal(self.number(False))})")
            elif kind < 0.55:
                size = n if n and self.chance(0.4) else draw.choice([2, 3, 4])
                s.vectors.append((name, size))
                s.arrays.append((name, size))
                self.head.append(f"{name} = fs.to_tensor({self.literal(self.numbers_of(size, wild=False))})")
            elif kind < 0.65:
                size = draw.choice([2, 3])
                s.vectors.append((name, size))
                numbers = [f"fs.Tensor({self.literal(self.number(False))})" for _ in range(size)]
                self.head.append(f"{name} = [{', '.join(numbers)}]")
            elif kind < 0.9 or self.kind == "exact":
                rows = n if n and self.chance(0.7) else draw.choice([2, 3, 4])
                columns = draw.choice([1, 2, 3, 4]) if not self.chance(0.1) else 16
                s.matrices.append((name, rows, columns, True))
                self.head.append(f"{name} = fs.to_tensor({self.literal(self.numbers_of(rows, columns, wild=False))})")
            else:
                rows, columns = n or draw.choice([2, 3]), draw.choice([1, 2, 3])
                s.modules.append((name, rows, columns))
                self.head.append(draw.choice([
                    f"{name} = fs.Linear({rows}, {columns}, seed={draw.randrange(9)})",
                    f"{name} = fs.MLP({rows}, [3, {columns}], seed={draw.randrange(9)})",
                ]))  # fmt: skip
        if self.chance(0.2):
            self.callable_()
        if self.chance(0.25):
            name, size = self.new("table"), draw.choice([3, 4])
            s.tables.append((name, size))
            self.head.append(f"{name} = {self.literal(self.numbers_of(size, wild=False))}")

    def callable_(self) -> None:
        """A function of two numbers that f calls: plain, compiled by itself, or an operation that only Python does."""
        name = self.new("h")
        inner = Scope(numbers=["a", "b", *(n for n in self.scope.numbers if self.chance(0.5))])
        kind = self.draw.random()
        if kind < 0.08:
            self.head.append(f"{name} = fs.custom_op(lambda a, b: a * b, lambda a, b: (b, a), name={name!r})")
        else:
            lines = self.block(inner, 1, self.draw.choice([0, 1, 2]))
            self.head += ["@fs.compile"] * (kind < 0.5) + [f"def {name}(a, b):"]
            self.head += ["    " + line for line in [*lines, f"return {self.expression(inner, 2)} + a"]]
        self.scope.callables.append(name)

    def arguments(self, rows: int) -> tuple[list[str], list[str]]:
        s, draw = self.scope, self.draw
        names, values = [], []
        count = draw.choice([1, 2, 2, 2, 3, 3, 4])
        by_row = False
        for k in range(count):
            kind = draw.random()
            last = k == count - 1 and not by_row
            if kind < 0.35 or last:
                size = self.wide if self.wide and self.chance(0.8) else draw.choice([1, 2, 3, 3, 4])
                name = self.new("x")
                s.vectors.append((name, size))
                s.arrays.append((name, size))
                numbers = self.numbers_of(rows, size)
                if self.chance(0.3):
                    numbers = self.some_zeros(numbers, draw.choice([0.3, 0.7, 0.9]))
                value = f"np.array({self.literal(numbers)})"
                by_row = True
            elif kind < 0.6:
                name = self.new("x")
                s.numbers.append(name)
                value = f"np.array({self.literal(self.numbers_of(rows))})"
                by_row = True
            elif kind < 0.68:
                a, b = draw.choice([2, 3]), draw.choice([2, 3])
                name = self.new("x")
                s.matrices.append((name, a, b, True))
                value = f"np.array({self.literal(self.numbers_of(rows, a, b))})"
                by_row = True
            elif kind < 0.8:
                name = self.new("x")
                s.numbers.append(name)
                value = self.literal(float(v) if not isinstance(v := self.number(), str) else v)
            elif kind < 0.94:
                name = self.new("k")
                s.wholes.append(name)
                value = f"np.array({[self.whole(3) for _ in range(rows)]})"
                by_row = True
            elif kind < 0.97:
                name = self.new("k")
                s.wholes.append(name)
                value = str(self.whole(3))
            else:
                name = self.new("k")
                s.wholes += [f"{name}[0]", f"{name}[1]"]
                value = f"np.array({[[self.whole(3), self.whole(3)] for _ in range(rows)]})"
                by_row = True
            names.append(name)
            values.append(value)
        return names, values

    def plan(self, rows: int, floats: list[int], fit: bool) -> list[tuple[Any, ...]]:
        draw = self.draw
        steps: list[tuple[Any, ...]] = []

        def some() -> Any:
            if self.chance(0.6):
                return None
            return draw.sample(range(rows), draw.randrange(1, rows + 1))

        def threads() -> int:
            return draw.choice([1, 1, 1, 2, 3])

        def training() -> tuple[Any, ...]:
            optimizer, batch = draw.choice(["SGD", "SGD", "Adam"]), draw.choice([1, 2, 3, rows])
            return "fit", optimizer, batch, draw.choice([1, 1, 2]), threads()

        for _ in range(draw.choice([3, 4, 5, 6])):
            kind = draw.random()
            if self.chance(0.25):
                steps.append(
                    draw.choice([
                        ("nest", some(), threads()), ("shared", draw.randrange(rows), self.chance(0.5), threads()),
                        ("derive", some(), self.chance(0.5), threads()), ("second", some(), threads()),
                    ])
                )  # fmt: skip
            elif kind < 0.2:
                steps.append(("map", some(), threads()))
            elif kind < 0.3:
                steps.append(("call", draw.randrange(rows)))
            elif kind < 0.55 and floats:
                chosen = draw.sample(floats, draw.randrange(1, len(floats) + 1))
                steps.append(("grad", chosen, some(), threads()))
            elif kind < 0.85:
                steps.append(("backward", self.chance(0.3), some(), threads()))
            elif kind < 0.9:
                steps.append(("change", draw.randrange(100)))
            elif kind < 0.94:
                steps.append(("new",))
            elif kind < 0.95:
                steps.append(("collect",))
            elif kind < 0.96:
                steps.append(("modes", draw.randrange(rows)))
            elif kind < 0.97:
                steps.append(("threads",))
            elif fit:
                steps.append(training())
        if fit and self.chance(0.6):
            steps.append(training())
        if not any(step[0] in ("map", "grad", "backward", "fit") for step in steps):
            steps.append(("backward", False, None, 1))
        return steps

    def penalty(self) -> str:
        """A term over all weights of a leaf, as for decay."""
        leaves = [(name, False) for name, _ in self.scope.arrays if name[0] == "w"]
        leaves += [(name, True) for name, *_ in self.scope.matrices if name[0] == "w"]
        if not leaves:
            return "0.5"
        name, matrix = self.draw.choice(leaves)
        by_loops = f"sum(e * e for row in {name} for e in row)" if matrix else f"sum(e * e for e in {name})"
        return f"0.5 * {self.draw.choice([f'({name} * {name}).sum()', f'fs.sum({name} * {name})', by_loops])}"

    def case(self) -> str:
        draw = self.draw
        rows = draw.choice([1, 2, 3, 4, 5, 6, 8, 9, 12]) if not self.chance(0.03) else draw.choice([33, 70, 257])
        self.leaves()
        names, values = self.arguments(rows)
        self.body = self.block(self.scope, 2, draw.choice([1, 2, 3, 4, 5, 6]))
        ends = [self.scope.numbers[-1]] if self.scope.numbers else []
        for vector, n in self.scope.vectors[-2:]:
            ends.append(f"{vector}[{draw.randrange(n)}]" if self.chance(0.5) else f"sum({vector})")
        ends = ends[: draw.choice([1, 2, 3])] or [self.expression(self.scope, 2)]
        if self.chance(0.5):
            ends.append(self.expression(self.scope, 2))
        if self.chance(0.12):
            ends.append(self.penalty())
        if self.of_arrays:
            ends += [f"np.sum({m[0]})" for m in self.scope.matrices[-1:] if m[3]]
        self.body.append("return " + f" {draw.choice('++-*')} ".join(ends))
        floats = [k for k, name in enumerate(names) if name[0] == "x"]
        fit = len(names) == 2 and all(value.startswith("np.") for value in values)
        if self.kind == "exact":
            fit = fit and self.chance(0.5)
        plan, text = self.plan(rows, floats, fit), "".join(self.body)
        if "loop(" in text and len(text) % 2:
            plan.insert(0, ("rolled",))
        if len(text) % 5 == 0:
            plan.insert(0, ("limited",))
        if "range(12)" in text or len(text) % 4 == 0:
            plan.insert(0, ("found",))
        return "\n".join([
            f"KIND = {self.kind!r}", *self.head, "",
            f"def f({', '.join(names)}):", *("    " + line for line in self.body), "",
            f"ARGUMENTS = [{', '.join(values)}]", f"PLAN = {plan!r}", "",
        ])  # fmt: skip


def write(seed: int, kind: str | None = None) -> str:
    """The case of a seed."""
    return Writer(seed, kind).case()
