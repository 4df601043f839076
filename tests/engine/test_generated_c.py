"""The functions that run for every node make no Python call: read off the C that Cython writes, nothing is compiled.

A call crept in is a factor lost, and no other test would notice.  `make annotate` shows the same as HTML.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "src"

# No name of Python's or of Cython's run time is called in these.
BARE = {
    "_core": [
        # making a node
        "emit",
        # collecting: marking what is alive and sliding it down
        "publish",
        "keep",
        "keep_operand",
        "mark_alive",
        "place",
        "place_alive",
        "slide",
        "compact",
        "promote",
        # the backward pass
        "reach",
        "scalar_step",
        "sweep_some",
        "affine_backward",
        "mark_reached",
        "enter_row",
        "materialise",
        "reset_leaf",
        # reading operands of array operations
        "value_of",
        "node_of",
        "operand_values",
        "affine_input",
    ],
    "engine._array_ops": ["affine_forward", "xent_forward", "softmax_forward"],
    "program._replay": ["run", "forward", "backward", "update_weights"],
}

# These hold references and may raise, so they do bookkeeping; nothing else.
NEAR_BARE = {"_core": ["result", "handle_of", "binary", "unary"]}
BOOKKEEPING = {
    "__PYX_CHECK_FLOAT_EXCEPTION",
    "__PYX_ERR",
    "__Pyx_AddTraceback",
    "__Pyx_DECREF",
    "__Pyx_GIVEREF",
    "__Pyx_GOTREF",
    "__Pyx_INCREF",
    "__Pyx_RefNannyFinishContext",
    "__Pyx_RefNannySetupContext",
    "__Pyx_XDECREF",
    "__Pyx_XGIVEREF",
    "__Pyx_XGOTREF",
    "PyErr_Occurred",  # after a function that says by its value that it may have failed
    "Py_TYPE",
}

DEFINITION = re.compile(r"^static [^\n;]*?\b(__pyx_\w+)\([^;{]*\)\s*\{\n(.*?)^\}", re.M | re.S)
CALL = re.compile(r"\b(_*Py[A-Z_]\w*|__Pyx_\w+|__PYX_\w+)\s*\(")
C = Callable[[str], dict[str, str]]


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> C:
    """Of a module: the C text of each function, without comments."""
    pytest.importorskip("Cython", reason="Cython is not installed: the C of the extensions cannot be looked at")
    folder, known = tmp_path_factory.mktemp("c"), {}

    def read(module: str) -> dict[str, str]:
        if module not in known:
            source, target = SOURCES / "fastscalar" / f"{module.replace('.', '/')}.pyx", folder / f"{module}.c"
            options = ["-X", "boundscheck=False,nonecheck=False,initializedcheck=False"]  # as setup.py has it
            command = [sys.executable, "-m", "cython", *options, "-I", str(SOURCES), "-o", str(target), str(source)]
            done = subprocess.run(command, cwd=SOURCES.parent, capture_output=True, text=True, timeout=300, check=False)
            assert done.returncode == 0, done.stderr
            text = re.sub(r"/\*.*?\*/", "", target.read_text(encoding="utf-8"), flags=re.S)
            known[module] = {m.group(1): m.group(2) for m in DEFINITION.finditer(text)}
        return known[module]

    return read


def plain_name(function: str) -> str:
    """`emit` of `__pyx_f_10fastscalar_5_core_emit`: Cython puts the module before it, which for an inline function is
    that of the .pxd, each part behind its length."""
    rest = re.sub(r"^__pyx_(fuse_\d+__pyx_)?f", "", function)
    while part := re.match(r"_(\d+)", rest):
        rest = rest[part.end() + int(part[1]) :]
    return rest.removeprefix("_")


def calls(functions: dict[str, str], module: str, name: str) -> set[str]:
    """What the function calls of Python; of all its specialisations, if it has several."""
    bodies = [body for key, body in functions.items() if plain_name(key) == name]
    assert bodies, f"{module}.pyx has no C function {name}: put the list right"
    return {call for body in bodies for call in CALL.findall(body)}


@pytest.mark.dear
@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in BARE.items() for name in names])
def test_no_python(functions: C, module: str, name: str) -> None:
    assert calls(functions(module), module, name) == set()


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in NEAR_BARE.items() for name in names])
def test_bookkeeping_only(functions: C, module: str, name: str) -> None:
    assert calls(functions(module), module, name) <= BOOKKEEPING


def test_operators_go_straight_to_the_engine(functions: C) -> None:
    """`a * b` is one call of `binary`."""
    for name in ("__add__", "__sub__", "__mul__", "__truediv__"):
        (body,) = (b for key, b in functions("_core").items() if re.fullmatch(rf"__pyx_pf_.*6Tensor_\d+{name}", key))
        assert set(CALL.findall(body)) <= BOOKKEEPING
        assert len(re.findall(r"__pyx_f_10fastscalar_5_core_binary\(", body)) == 1


def test_a_python_call_is_seen(functions: C) -> None:
    """The look-out works: messages of errors are put together in Python."""
    assert {"__Pyx_PyUnicode_Join", "__Pyx_Raise"} <= calls(functions("_core"), "_core", "raise_binary")
