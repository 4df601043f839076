"""One row of the operation table is one operation: what follows from it is there, and what has to be written is."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastscalar
from fastscalar import reference
from fastscalar.engine import _functions
from fastscalar.transforms.rules import RULES

PACKAGE = Path(fastscalar.__file__).resolve().parent
OPERATIONS = {name: _functions.operation(code) for code, name, _, _ in _functions.operations()}
ROWS = [(name, arity, is_method) for _, name, arity, is_method in _functions.operations()]
METHODS = [name for name, _, is_method in ROWS if is_method]


def missing(name: str, arity: int, is_method: bool) -> list[str]:
    """What an operation lacks, each with the place where it belongs."""
    found = []
    row = OPERATIONS.get(name, {"kind": "function", "doc": "", "rules": ()})
    if len(row["rules"]) != arity or not all(row["rules"]):
        found.append(f"{name}: its row in engine/operations.pxd has no rule for each of its {arity} operands")
    if not row["doc"]:
        found.append(f"{name}: its row in engine/operations.pxd has no docstring")
    if is_method and not callable(getattr(reference.Tensor, name, None)):
        found.append(f"{name}: reference/functions.py has no twin of it")
    for cls in (fastscalar.Tensor, fastscalar.TensorArray) if is_method else ():
        if not inspect.getdoc(getattr(cls, name, None)):
            found.append(f"{name}: not a method of {cls.__name__}")
    if row["kind"] == "function" and name not in fastscalar.__all__:
        found.append(f"{name}: not in fastscalar: run `make stubs`")
    return found


@pytest.mark.parametrize(("name", "arity", "is_method"), ROWS, ids=[name for name, _, _ in ROWS])
def test_nothing_is_missing(name: str, arity: int, is_method: bool) -> None:
    assert missing(name, arity, is_method) == []


def test_forgetting_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the places is asked for by its name."""
    lacks = [text.split(": ")[1] for text in missing("mish", 1, True)]
    assert [text.split()[0] for text in lacks] == ["its", "its", "reference/functions.py", "not", "not", "not"]
    monkeypatch.delattr(reference.Tensor, "gelu")
    assert missing("gelu", 1, True) == ["gelu: reference/functions.py has no twin of it"]


def test_what_is_written_down_of_the_table_is_as_it_says() -> None:
    """Stubs, typed functions, docs/functions.md: as `make stubs` would write them."""
    tool = Path(__file__).resolve().parents[2] / "tools" / "stubs.py"
    if not tool.exists() or not (PACKAGE / "_core.pyi").is_relative_to(tool.parents[1]):
        pytest.skip("not a checkout in which the package is installed")
    done = subprocess.run([sys.executable, tool, "--check"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


POINTS = [-math.inf, -2.5, -2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0, 2.5, math.inf]
WITHIN = {"isfinite": math.isfinite, "isinf": math.isinf, "floor": lambda x: float(np.floor(x))}


@pytest.mark.parametrize("name", [name for name, arity, _ in ROWS if arity == 1])
def test_domains_are_where_functions_have_values(name: str) -> None:
    """Outside they raise, inside they do not, unless the result is too large."""
    row = OPERATIONS[name]
    for x in POINTS:
        inside = not row["domain"] or bool(eval(row["domain"], WITHIN, {"x": x}))
        try:
            value = fastscalar.Tensor(x)
            value = -value if name == "neg" else getattr(value, name)()
        except (ValueError, OverflowError):
            assert not inside, (name, x)
            assert not row["never_raises"]
        else:
            assert inside, (name, x)
            assert not math.isnan(value.data), (name, x)


def test_what_never_raises_does_not() -> None:
    """And everything else does somewhere: programs look for errors there."""
    unary = [name for name, arity, _ in ROWS if arity == 1]
    assert [name for name in unary if not OPERATIONS[name]["never_raises"]] == [name for name in unary if raises(name)]


def raises(name: str) -> bool:
    """Whether some number is an error."""
    for x in (*POINTS, 1e3, -1e3, 1e308):
        try:
            value = fastscalar.Tensor(x)
            _ = -value if name == "neg" else getattr(value, name)()
        except (ValueError, OverflowError):
            return True
    return False


def test_nothing_is_left_over() -> None:
    """No rule, and no method in the stubs, of an operation that is not there."""
    assert set(RULES) <= {name for name, _, _ in ROWS}


@pytest.mark.parametrize("name", [name for name in METHODS if hasattr(math, name)])
def test_what_math_has_is_in_our_math(name: str) -> None:
    x = 0.5 if name != "acosh" else 1.5
    arguments = (x,) if {n: a for n, a, _ in ROWS}[name] == 1 else (x, 2.0)
    assert getattr(fastscalar.math, name)(fastscalar.Tensor(x), *arguments[1:]).data == pytest.approx(
        getattr(math, name)(*arguments), rel=1e-14
    )


PUBLIC = [
    (cls, name)
    for cls in (fastscalar.Tensor, fastscalar.TensorArray)
    for name in sorted(dir(cls))
    if not name.startswith("_")
]


@pytest.mark.parametrize(("cls", "name"), PUBLIC, ids=[f"{cls.__name__}.{name}" for cls, name in PUBLIC])
def test_public_methods_say_what_they_do(cls: type, name: str) -> None:
    """help(), and the hints of editors: a docstring, and a signature with the names of the arguments."""
    member = inspect.getattr_static(cls, name)
    assert len((inspect.getdoc(getattr(cls, name)) or "").split()) >= 3
    if callable(member):
        assert next(iter(inspect.signature(member).parameters)) == "self"
