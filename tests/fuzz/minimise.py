"""A failing case made short: what can be left out, or be simpler, while the judge says the same kind of difference."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable, Iterator

Edit = Callable[[ast.Module], bool]  # changes a tree; False if there is nothing to change


def minimise(text: str, fails: Callable[[str], bool], seconds: float = 60.0) -> str:
    """The shortest text that was found for which `fails` still holds."""
    stop = time.monotonic() + seconds
    progress = True
    while progress and time.monotonic() < stop:
        progress = False
        for edits in (_plans, _statements, _rows, _parameters, _expressions, _numbers):
            k = 0
            while time.monotonic() < stop:
                candidate = _edited(text, edits, k)
                if candidate is None:
                    break
                if candidate != text and fails(candidate):
                    text, progress = candidate, True  # the next edit has taken this one's number
                else:
                    k += 1
    return text


def _edited(text: str, edits: Callable[[ast.Module], Iterator[Callable[[], None]]], k: int) -> str | None:
    """The text after edit number k; None if there are fewer."""
    tree = ast.parse(text)
    for number, edit in enumerate(edits(tree)):
        if number == k:
            edit()
            return ast.unparse(ast.fix_missing_locations(tree)) + "\n"
    return None


def _value(tree: ast.Module, name: str) -> ast.List:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            assert isinstance(node.value, ast.List)
            return node.value
    raise ValueError(name)


def _function(tree: ast.Module) -> ast.FunctionDef:
    return next(node for node in tree.body if isinstance(node, ast.FunctionDef))


def _replace(items: list, k: int, by: list) -> Callable[[], None]:
    def edit() -> None:
        items[k : k + 1] = by

    return edit


def _plans(tree: ast.Module) -> Iterator[Callable[[], None]]:
    plan = _value(tree, "PLAN")
    for k in range(len(plan.elts)):
        if len(plan.elts) > 1:
            yield _replace(plan.elts, k, [])
    for step in plan.elts:
        assert isinstance(step, ast.Tuple)
        name = step.elts[0].value
        if name in ("map", "grad", "backward", "fit"):
            yield _replace(step.elts, len(step.elts) - 1, [ast.Constant(1)])
        for k, part in enumerate(step.elts):
            if isinstance(part, ast.List):
                if name != "grad" or k == 2:
                    yield _replace(step.elts, k, [ast.Constant(None)])
                if len(part.elts) > 1:
                    for j in range(len(part.elts)):
                        yield _replace(part.elts, j, [])


def _statements(tree: ast.Module) -> Iterator[Callable[[], None]]:
    """Statements go, or what stands in them takes their place."""
    for k, node in enumerate(tree.body):
        if isinstance(node, ast.Assign) and node.targets[0].id not in ("ARGUMENTS", "PLAN", "KIND"):  # type: ignore[attr-defined]
            yield _replace(tree.body, k, [])
    pending = [_function(tree).body]
    while pending:
        block = pending.pop(0)
        for k, node in enumerate(block):
            inner = [getattr(node, part) for part in ("body", "orelse", "finalbody") if getattr(node, part, None)]
            inner += [handler.body for handler in getattr(node, "handlers", [])]
            if not (isinstance(node, ast.Return) and block is _function(tree).body) and len(block) > 1:
                yield _replace(block, k, [])
            for part in inner:
                if part:
                    yield _replace(block, k, part)
            for part in ("orelse", "finalbody"):
                if getattr(node, part, None) and not (part == "finalbody" and not node.handlers):
                    yield _replace([], 0, []) if not getattr(node, part) else _clear(node, part)
            pending += inner


def _clear(node: ast.AST, part: str) -> Callable[[], None]:
    return lambda: setattr(node, part, [])


def _rows(tree: ast.Module) -> Iterator[Callable[[], None]]:
    """One row less; steps of the plan that name rows are renumbered."""
    arrays = [node.args[0].elts for node in _value(tree, "ARGUMENTS").elts if isinstance(node, ast.Call)]
    rows = len(arrays[0])
    for i in range(rows if rows > 1 else 0):

        def edit(i: int = i) -> None:
            for array in arrays:
                del array[i]
            for step in _value(tree, "PLAN").elts:
                for part in step.elts:
                    if isinstance(part, ast.List) and (step.elts[0].value != "grad" or part is step.elts[2]):
                        numbers = [e.value for e in part.elts]
                        part.elts = [ast.Constant(n - (n > i)) for n in numbers if n != i] or [ast.Constant(0)]
                if step.elts[0].value in ("call", "modes"):
                    n = step.elts[1].value
                    step.elts[1] = ast.Constant(max(0, n - (n >= i)))

        yield edit


def _parameters(tree: ast.Module) -> Iterator[Callable[[], None]]:
    """Parameters that are not used."""
    function, arguments = _function(tree), _value(tree, "ARGUMENTS")
    used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    for k, parameter in enumerate(function.args.args):
        if parameter.arg in used or len(arguments.elts) == 1:
            continue

        def edit(k: int = k) -> None:
            del function.args.args[k], arguments.elts[k]
            for step in _value(tree, "PLAN").elts:
                if step.elts[0].value == "grad":
                    numbers = [e.value for e in step.elts[1].elts]
                    step.elts[1].elts = [ast.Constant(n - (n > k)) for n in numbers if n != k]

        yield edit


def _expressions(tree: ast.Module) -> Iterator[Callable[[], None]]:
    """An operand in place of what is computed from it; a number in place of anything."""
    for parent in ast.walk(_function(tree)):
        if isinstance(parent, ast.JoinedStr):    # its parts are no expressions, but what they show is
            continue
        for name, value in ast.iter_fields(parent):
            for k, node in enumerate(value if isinstance(value, list) else [value]):
                if not isinstance(node, ast.expr) or isinstance(getattr(node, "ctx", None), ast.Store):
                    continue
                if name == "format_spec":
                    continue
                parts = [n.value if isinstance(n, ast.FormattedValue) else n for n in ast.iter_child_nodes(node)]
                parts = [n for n in parts if isinstance(n, ast.expr)]
                parts = [n for n in parts if not isinstance(n, ast.Constant) and not _is_module(n)]
                if not isinstance(node, ast.Constant) and not _is_module(node):
                    parts.append(ast.Constant(1.0))
                for part in parts:
                    if isinstance(value, list):
                        yield _replace(value, k, [part])
                    else:
                        yield lambda parent=parent, name=name, part=part: setattr(parent, name, part)


def _is_module(node: ast.AST) -> bool:
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name) and node.id in (
        "fs",
        "math",
        "float",
        "int",
        "abs",
        "max",
        "min",
        "sum",
        "sorted",
        "range",
    )


def _numbers(tree: ast.Module) -> Iterator[Callable[[], None]]:
    """Simpler numbers in leaves and arguments."""
    for statement in tree.body:
        if not isinstance(statement, ast.Assign) or statement.targets[0].id == "PLAN":  # type: ignore[attr-defined]
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Constant) and isinstance(node.value, float):
                simple = [1.0, 2.0, 0.5, 0.0] if node.value not in (0.0, 1.0) else []
                for number in simple[: simple.index(node.value) if node.value in simple else None]:
                    yield lambda node=node, number=number: setattr(node, "value", number)
                if node.value == node.value and abs(node.value) < 1e6 and round(node.value, 1) != node.value:
                    yield lambda node=node: setattr(node, "value", round(node.value, 1))
