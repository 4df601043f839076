"""Statements of whole arrays, as NumPy has them: views, broadcasting, axes, products, masks, elements put elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .expressions import Expressions, Scope


class ArrayStatements(Expressions):
    """Draws them; every name of `Scope.arrays`, and of the matrices marked so, is an array."""

    def array_statement(self, s: Scope, depth: int) -> list[str]:
        ways: list[tuple[float, Callable[[Scope], list[str]]]] = [(1, self.of_numbers)]
        if s.arrays:
            ways += [(4, self.elementwise), (3, self.rearranged), (3, self.reduced), (2, self.widened),
                     (1.5, self.replaced)]  # fmt: skip
        if any(m[3] for m in s.matrices):
            ways += [(3, self.of_matrix), (3, self.along_axis), (2, self.multiplied)]
        _, way = self.draw.choices(ways, [weight for weight, _ in ways])[0]
        return way(s)

    # --- what there is ---

    def array(self, s: Scope) -> tuple[str, int]:
        return self.draw.choice(s.arrays)

    def beside(self, s: Scope, n: int) -> str:
        """What goes with an array of n: another one, one element, a number, an ndarray."""
        same = [name for name, size in s.arrays if size == n]
        if self.chance(0.6):
            return self.draw.choice(same)
        if self.chance(0.3):
            return f"np.array([{', '.join(self.draw.choice(['1.0', '0.5', '-2.0', '0.0']) for _ in range(n))}])"
        return self.atom(s)

    def matrix(self, s: Scope) -> tuple[str, int, int]:
        return self.draw.choice([m for m in s.matrices if m[3]])[:3]

    def one(self, s: Scope, name: str, n: int) -> None:
        s.vectors.append((name, n))
        s.arrays.append((name, n))

    # --- statements ---

    def of_numbers(self, s: Scope) -> list[str]:
        """Computed from numbers."""
        name, n = self.new("a"), self.draw.choice([2, 3, 4])
        numbers = ", ".join(self.expression(s, 1) for _ in range(n))
        self.one(s, name, n)
        return [f"{name} = fs.to_tensor(np.ones({n})) * [{numbers}]"]

    def elementwise(self, s: Scope) -> list[str]:
        name, (x, n) = self.new("a"), self.array(s)
        y, z = self.beside(s, n), self.beside(s, n)
        comparison = self.any_of("<", "<=", ">", ">=")
        ways = [f"{x} + {y}", f"{x} - {y}", f"{x} * {y}", f"{y} * {x} - {x}", f"-{x}", f"abs({x})", f"{x} ** 2",
                f"np.maximum({x}, {y})", f"np.minimum({y}, {x})", f"np.clip({x}, -1.0, 1.0)", f"{x}.relu()",
                f"np.where({x} {comparison} {y}, {x}, {z})", f"({x} {comparison} {y}) * {x}", f"np.sign({x}) * {x}",
                f"np.where({self.comparison(s)}, {x}, {x} * 0.5)", f"np.round({x}) + {x}", f"{x} / 2.0"]  # fmt: skip
        if self.kind != "exact":
            ways += [f"np.tanh({x})", f"np.sin({x} + {y})", f"np.exp(0.25 * np.tanh({x}))", f"{x} / ({x} * {x} + 0.5)",
                     f"np.sqrt({x} * {x} + 0.25)", f"{x}.sigmoid()", f"np.log1p({x} * {x})", f"np.arctan2({x}, {y})",
                     f"np.hypot({x}, 0.5)", f"np.logaddexp(np.tanh({x}), 0.0)"]  # fmt: skip
        self.one(s, name, n)
        return [f"{name} = {self.draw.choice(ways)}"]

    def rearranged(self, s: Scope) -> list[str]:
        name, (x, n) = self.new("a"), self.array(s)
        y, m = self.array(s)
        places = [self.draw.randrange(-n, n) for _ in range(self.draw.choice([2, 3]))]
        ways: list[tuple[str, int]] = [
            (f"{x}[::-1]", n), (f"np.roll({x}, 1)", n), (f"np.concatenate([{x}, {y}])", n + m), (f"{x}[{places}]", 3),
            (f"np.repeat({x}, 2)", 2 * n), (f"np.pad({x}, 1)", n + 2), (f"np.cumsum({x})", n), (f"{x}.copy()", n),
            (f"np.append({x}, {self.atom(s)})", n + 1), (f"{x}.reshape(-1, 1).ravel()", n), (f"np.tile({x}, 2)", 2 * n),
        ]  # fmt: skip
        ways[3] = (ways[3][0], len(places))
        if n > 1:
            ways += [(f"{x}[1:]", n - 1), (f"np.diff({x})", n - 1), (f"{x}[::2]", (n + 1) // 2), (f"{x}[-2:]", 2)]
        if n <= 4:
            ways.append((f"np.sort({x})", n))
        value, size = self.draw.choice([w for w in ways if w[1] <= 20])
        self.one(s, name, size)
        return [f"{name} = {value}"]

    def reduced(self, s: Scope) -> list[str]:
        name, (x, n) = self.new("t"), self.array(s)
        y = self.draw.choice([name for name, size in s.arrays if size == n])
        ways = [f"{x}.sum()", f"np.sum({x} * {y})", f"{x} @ {y}", f"np.dot({x}, {y})", f"{x}.max()", f"np.min({x})",
                f"{x}[{x} > {self.constant()}].sum()", f"np.einsum('i,i->', {x}, {y})", f"np.vdot({x}, {y})",
                f"np.count_nonzero({x} > 0.0) * {x}[0]", f"{x}[np.argmax({x})]", f"np.inner({x}, {y})"]  # fmt: skip
        if n <= 3:
            ways.append(f"np.prod({x})")
        if self.kind != "exact":
            ways += [f"{x}.mean()", f"np.var({x})", f"np.linalg.norm({x})", f"np.log(np.exp(np.tanh({x})).sum())"]
        s.numbers.append(name)
        return [f"{name} = {self.draw.choice(ways)}"]

    def widened(self, s: Scope) -> list[str]:
        name, (x, n), (y, m) = self.new("b"), self.array(s), self.array(s)
        if n * m > 40:
            return self.reduced(s)
        ways = [(f"{x}[:, None] {self.draw.choice('+-*')} {y}", n, m), (f"np.outer({x}, {y})", n, m),
                (f"np.stack([{x}, {self.draw.choice([a for a, size in s.arrays if size == n])}])", 2, n),
                (f"np.broadcast_to({x}, (2, {n})) * 1.0", 2, n), (f"np.diag({x})", n, n)]  # fmt: skip
        value, rows, columns = self.draw.choice([w for w in ways if w[1] * w[2] <= 40] or ways[:1])
        s.matrices.append((name, rows, columns, True))
        return [f"{name} = {value}"]

    def replaced(self, s: Scope) -> list[str]:
        """Assignments to a copy."""
        name, (x, n) = self.new("a"), self.array(s)
        lines = [f"{name} = {x} * 1.0"]
        ways = [f"{name}[{self.draw.randrange(n)}] = {self.expression(s, 1)}", f"{name} += {self.beside(s, n)}",
                f"{name}[{name} < 0.0] = 0.0", f"{name}[:1] *= {self.atom(s)}", f"{name}[::2] = {self.constant()}",
                f"{name} *= 0.5"]  # fmt: skip
        lines += [self.draw.choice(ways) for _ in range(self.draw.choice([1, 2]))]
        self.one(s, name, n)
        return lines

    def of_matrix(self, s: Scope) -> list[str]:
        name, (x, rows, columns) = self.new("b"), self.matrix(s)
        ways: list[tuple[str, int, int]] = [
            (f"{x}.T", columns, rows), (f"{x} * {self.atom(s)}", rows, columns), (f"{x}[::-1]", rows, columns),
            (f"{x} - {x}.sum(axis=0)", rows, columns), (f"{x} + {x}.max(axis=1, keepdims=True)", rows, columns),
            (f"{x}.reshape({columns}, {rows})", columns, rows), (f"np.maximum({x}, 0.0)", rows, columns),
            (f"np.where({x} > {self.constant()}, {x}, 0.5 * {x})", rows, columns),
            (f"np.flip({x}, axis=1)", rows, columns),
            (f"{x}[:, [0, -1]]", rows, 2), (f"np.concatenate([{x}, {x}[:1]])", rows + 1, columns),
            (f"np.swapaxes({x}, 0, 1) * 2.0", columns, rows), (f"{x}[None, ...][0] + 1.0", rows, columns),
        ]  # fmt: skip
        fitting = [a for a, n in s.arrays if n == columns]
        if fitting:
            ways += [(f"{x} * {self.draw.choice(fitting)}", rows, columns)] * 2
        if self.kind != "exact":
            ways.append((f"np.tanh({x})", rows, columns))
        value, rows, columns = self.draw.choice(ways)
        s.matrices.append((name, rows, columns, True))
        return [f"{name} = {value}"]

    def along_axis(self, s: Scope) -> list[str]:
        name, (x, rows, columns) = self.new("a"), self.matrix(s)
        ways: list[Any] = [
            (f"{x}.sum(axis=0)", columns), (f"np.sum({x}, axis=-1)", rows), (f"{x}.max(axis=0)", columns),
            (f"np.min({x}, axis=1)", rows), (f"{x}[0]", columns), (f"{x}[:, -1]", rows), (f"{x}[1:].sum(0)", columns),
            (f"{x}.ravel()[:3]", min(3, rows * columns)), (f"np.diagonal({x})", min(rows, columns)),
            (f"np.cumsum({x}, axis=0)[-1]", columns), (f"np.einsum('ij->j', {x})", columns),
        ]  # fmt: skip
        if self.kind != "exact":
            ways += [(f"{x}.mean(axis=0)", columns), (f"np.exp(np.tanh({x})).sum(axis=1)", rows)]
        value, n = self.draw.choice(ways)
        self.one(s, name, n)
        return [f"{name} = {value}"]

    def multiplied(self, s: Scope) -> list[str]:
        name, (x, rows, columns) = self.new("b"), self.matrix(s)
        vectors = [a for a, n in s.arrays if n == columns]
        others = [(m[0], m[2]) for m in s.matrices if m[3] and m[1] == columns and rows * m[2] <= 40]
        if others and self.chance(0.6):
            y, m = self.draw.choice(others)
            s.matrices.append((name, rows, m, True))
            return [f"{name} = " + self.any_of(f"{x} @ {y}", f"np.dot({x}, {y})", f"np.einsum('ij,jk->ik', {x}, {y})")]
        name = name.replace("b", "a", 1)
        if vectors:
            y = self.draw.choice(vectors)
            self.one(s, name, rows)
            return [f"{name} = " + self.any_of(f"{x} @ {y}", f"np.matmul({x}, {y})")]
        self.one(s, name, rows)
        return [f"{name} = np.einsum('ij,ij->i', {x}, {x})"]
