"""One row of the operation table is one operation: what follows from it is there, and what has to be written is."""

from __future__ import annotations

import inspect
import math
import re
from pathlib import Path

import pytest

import fastscalar
from fastscalar import _core, reference
from fastscalar.transforms.rules import RULES

PACKAGE = Path(fastscalar.__file__).resolve().parent
ROWS = [(name, arity, is_method) for _, name, arity, is_method in _core.operations()]
METHODS = [name for name, _, is_method in ROWS if is_method]


def missing(name: str, arity: int, is_method: bool) -> list[str]:
    """What an operation lacks, each with the place where it belongs."""
    found = []
    if len(RULES.get(name, ())) != arity:
        found.append(f"{name}: transforms/rules.py has no rule for each of its {arity} operands")
    if not is_method:
        return found
    if not callable(getattr(reference.Tensor, name, None)):
        found.append(f"{name}: reference/functions.py has no twin of it")
    for stub, kind in (("_core.pyi", "Tensor"), ("engine/_array.pyi", "TensorArray")):
        if not re.search(rf"(?m)^    def {name}\(self[^\n]*\) -> {kind}: \.\.\.$", (PACKAGE / stub).read_text()):
            found.append(f"{name}: {stub} has no method of {kind} for it")
    for cls in (fastscalar.Tensor, fastscalar.TensorArray):
        if not inspect.getdoc(getattr(cls, name, None)):
            found.append(f"{name}: its row in engine/operations.pxd has no docstring")
    return found


@pytest.mark.parametrize(("name", "arity", "is_method"), ROWS, ids=[name for name, _, _ in ROWS])
def test_nothing_is_missing(name: str, arity: int, is_method: bool) -> None:
    assert missing(name, arity, is_method) == []


def test_forgetting_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the places is asked for by its name."""
    (lacks,) = {tuple(text.split(": ")[1].split(" has ")[0] for text in missing("mish", 1, True)[:4])}
    assert lacks == ("transforms/rules.py", "reference/functions.py", "_core.pyi", "engine/_array.pyi")
    monkeypatch.delitem(RULES, "gelu")
    assert missing("gelu", 1, True) == ["gelu: transforms/rules.py has no rule for each of its 1 operands"]


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
