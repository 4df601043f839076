"""What `help()` and tab completion show: every public name says what it does and what each of its parameters is."""

import dataclasses
import inspect
import re

import pytest

import fastscalar as fs
from fastscalar import datasets, debug, nn, optim, plot, random, roots, schedules, testing
from fastscalar.engine.functions import CODES

ROOMS = (fs, datasets, debug, nn, optim, plot, random, roots, schedules, testing)
SUBJECTS = {"x", "xs", "args", "options", "kwargs"}  # what a function of numbers or arrays is a function of
ELSEWHERE = re.compile(r"\bas (?:in|of|for) `")  # where the parameters are described


def public():
    """Public functions and classes, and the public methods of the classes; each once, by name."""
    found = {}
    for room in ROOMS:
        for name in getattr(room, "__all__", vars(room)):
            thing = getattr(room, name)
            if name.startswith("_") or not callable(thing) or not thing.__module__.startswith(room.__name__):
                continue
            found.setdefault(id(thing), (f"{thing.__module__}.{name}", thing))
            for own, method in vars(thing).items() if inspect.isclass(thing) else ():
                if not own.startswith("_") and inspect.isroutine(method):
                    found.setdefault(id(method), (f"{thing.__module__}.{name}.{own}", method))
    return dict(found.values())


PUBLIC = public()


def parameters(thing):
    try:
        names = inspect.signature(thing).parameters
        return [name for name in names if name.strip("_") and name not in {"self", *SUBJECTS}]
    except ValueError:  # an exception, or a class of the engine, whose docstring begins with its signature
        return []


@pytest.mark.parametrize("name", PUBLIC)
def test_docstrings_say_what_parameters_are(name):
    thing = PUBLIC[name]
    text = inspect.getdoc(thing)
    assert text, "no docstring"
    if name.rpartition(".")[2] in CODES or dataclasses.is_dataclass(thing) or ELSEWHERE.search(text):
        return  # a row of the operation table; a result, whose fields are described beside them
    missing = [p for p in parameters(thing) if not re.search(rf"\b{p}\b", text)]
    assert not missing, f"not described: {', '.join(missing)}"


@pytest.mark.parametrize("kind", [fs.Tensor, fs.TensorArray])
def test_methods_have_docstrings_and_signatures(kind):
    for name in dir(kind):
        member = inspect.getattr_static(kind, name)
        if name.startswith("_") or isinstance(member, type):
            continue
        assert inspect.getdoc(member), f"{kind.__name__}.{name}: no docstring"
        if inspect.isroutine(member):
            assert inspect.signature(member), name


def test_what_is_not_described_is_seen():
    assert len(PUBLIC) > 200
    assert parameters(lambda x, lr: None) == ["lr"]
