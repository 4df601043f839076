#!/usr/bin/env python3
"""What is written down of the operation table: methods in stubs, typed functions, the page of functions.

    python tools/stubs.py            write it (`make stubs`, after a change to the table and a build)
    python tools/stubs.py --check    say what is not as it would be written; a test does
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

from fastscalar._core import Tensor
from fastscalar.engine._functions import operation, operations

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "fastscalar"
ROWS = [operation(code) for code, _, _, _ in operations()]
METHODS = [row for row in ROWS if row["kind"] != "operator"]


def methods(kind: str, other: str) -> str:
    """Those of a class, in a stub."""
    lines = []
    for row in METHODS:
        operand = f", other: {other}" if row["arity"] == 2 else ""
        lines.append(f"    def {row['name']}(self{operand}) -> {kind}: ...\n")
    return "".join(lines)


def of_math() -> str:
    """`fastscalar.math`: what Python's has too, and what goes beside it."""
    text = ""
    written = ("log", "hypot")  # they take other operands than their rows, and are written out
    for arity, kind in ((1, "Unary"), (2, "Binary")):
        names = [row["name"] for row in METHODS if row["arity"] == arity and row["name"] not in written]
        names = [n for n in names if hasattr(math, n) or operation_of(n)["kind"] == "of math"]
        text += "".join(f"{name}: {kind}\n" for name in sorted(names))
    return text


def operation_of(name: str) -> dict[str, object]:
    return next(row for row in ROWS if row["name"] == name)


def functions() -> str:
    """The module of typed functions."""
    chosen = sorted((row for row in ROWS if row["kind"] == "function"), key=lambda row: row["name"])
    exported = "".join(f'    "{row["name"]}",\n' for row in chosen)
    text = '"""The functions of the operation table, as type checkers see them; written by `make stubs`."""\n\n'
    text += "from fastscalar._typing import Binary, Unary\nfrom fastscalar.engine.functions import public_function\n\n"
    text += f"__all__ = [\n{exported}]\n\n"
    for row in chosen:
        name, kind = row["name"], "Unary" if row["arity"] == 1 else "Binary"
        value = round(getattr(Tensor(0.5), name)(*[-2.0] * (row["arity"] - 1)).data, 12)
        text += f'{name}: {kind} = public_function("{name}", {value})\n'
    return text


def page() -> str:
    """The table of docs/functions.md."""
    lines = ["| | what it gives | has a value where | derivative |\n", "|---|---|---|---|\n"]
    for row in sorted(ROWS, key=lambda row: (row["kind"] == "operator", row["name"])):
        signs = {"+": "x + y", "-": "x - y", "*": "x * y", "/": "x / y", "**": "x ** y", "%": "x % y", "//": "x // y"}
        name = signs.get(row["name"], "-x" if row["name"] == "neg" else row["name"])
        rules = "; ".join(f"`{rule}`" for rule in row["rules"])
        doc = row["doc"].replace("|", "\\|")
        where = f"`{row['domain']}`" if row["domain"] else "everywhere"
        lines.append(f"| `{name}` | {doc} | {where} | {rules} |\n")
    return "".join(lines)


def between(path: Path, begin: str, end: str, text: str) -> str:
    """The file with what stands between two lines replaced."""
    old = path.read_text(encoding="utf-8")
    before, rest = old.split(begin, 1)
    return before + begin + text + end + rest.split(end, 1)[1]


def written() -> dict[Path, str]:
    """By file, what it should be."""
    table, stop = "    # the operation table: written by `make stubs`\n", "    # end of the operation table\n"
    core, array = PACKAGE / "_core.pyi", PACKAGE / "engine" / "_array.pyi"
    stub, doc = PACKAGE / "math.pyi", ROOT / "docs" / "functions.md"
    return {
        core: between(core, table, stop, methods("Tensor", "Tensor | _Number")),
        array: between(array, table, stop, methods("TensorArray", "_Array | Tensor | _Number")),
        stub: between(stub, "# the operation table: written by `make stubs`\n", "# end of it\n", of_math()),
        PACKAGE / "_table.py": functions(),
        doc: between(doc, "<!-- written by `make stubs` -->\n\n", "<!-- end -->\n", f"{page()}\n"),
    }


def main() -> int:
    wrong = 0
    for path, text in written().items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if "--check" in sys.argv:
            print(f"{path.relative_to(ROOT)}: not as the operation table has it: run `make stubs`")
            wrong = 1
        else:
            path.write_text(text, encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: written")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
