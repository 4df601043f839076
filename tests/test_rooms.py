"""The rooms of the package: what may import what, no circles, and files that can be read in one sitting."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

import fastscalar

PACKAGE = Path(fastscalar.__file__).resolve().parent
SOURCES = sorted(p for ending in ("*.py", "*.pyx", "*.pxd") for p in PACKAGE.rglob(ending))

# What each room may import beside itself.  A module at the top level is a room of its own.
NONE: set[str] = set()
FOUNDATION = {"_imports", "_interpreter", "_paths", "_settings", "_warnings", "files", "version"}
ENGINE = {*FOUNDATION, "_core", "engine"}
SURFACE = {*ENGINE, "arrays", "_typing", "_table", "functions", "math", "custom", "random"}
NETS = {*SURFACE, "program", "transforms", "nn"}
WHOLE = {*NETS, "datasets", "reference", "article", "debug", "optim", "plot", "roots", "schedules"}
MAY_IMPORT = {
    "_imports": NONE,
    "_interpreter": NONE,
    "_paths": NONE,
    "_settings": NONE,  # limits of numbers that users set
    "_warnings": {"_imports", "_paths"},
    "files": NONE,
    "version": NONE,
    "reference": NONE,  # pure Python, to be read alone
    "datasets": FOUNDATION,
    "_core": FOUNDATION,
    "engine": ENGINE,
    "arrays": ENGINE,  # what NumPy knows of arrays
    "_typing": ENGINE,  # what type checkers are told
    "_table": {*ENGINE, "_typing"},
    "functions": {*ENGINE, "arrays", "_typing", "_table"},
    "math": {*ENGINE, "arrays", "_typing", "functions"},
    "_elementwise": NONE,
    "custom": {*ENGINE, "_elementwise"},
    "random": {*ENGINE, "_typing", "functions"},
    "program": {*SURFACE, "transforms"},
    "transforms": SURFACE,
    "nn": NETS,
    "article": NETS,
    "debug": NETS,
    "optim": NETS,
    "roots": {*SURFACE, "program", "transforms"},
    "plot": NETS,
    "schedules": NETS,
    "sklearn": NETS,
    "testing": NONE,  # for any class of Tensors
    "play": {*NETS, "debug"},
    "cli": {*WHOLE, "play", ""},
    "": {*WHOLE, "play", "testing"},  # __init__
    "__main__": {"cli"},
}

LIMITS = {".py": 500, ".pyx": 900, ".pxd": 900}
LONGER = {"_core.pyx": 1200}
REASON = re.compile(r"\b(Over|Above) [0-9,]+ lines: \w")  # in the first lines of a file that stays longer
NOT_SPLIT_YET: set[str] = set()


def module_of(path: Path) -> str:
    """engine/_array.pxd -> engine._array; a package is its __init__; "" the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(p) for p in SOURCES}
SHEETS = {module_of(p) for p in SOURCES if p.suffix == ".pxd" and p.with_suffix(".pyx").exists()}
# Inline parts have no module of their own; those of the engine are compiled into _core, which is their room.
INLINE = {module_of(p) for p in SOURCES if p.suffix == ".pxd"} - SHEETS


def room(module: str) -> str:
    module = module.removesuffix(" (pxd)")
    return "_core" if module in INLINE and module.startswith("engine.") else module.partition(".")[0]


def named(module: str, names: list[str]) -> set[str]:
    """What `from fastscalar.module import names` brings in: modules, and the module itself for its own names."""
    inside = {f"{module}.{name}".lstrip(".") for name in names}
    return (inside & MODULES) | (set() if inside <= MODULES else {module})


def imports_of_python(text: str, package: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {a.name.removeprefix("fastscalar").lstrip(".") for a in node.names if is_ours(a.name)}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join(["fastscalar", *filter(None, above), *([base] if base else [])])
            if is_ours(base):
                found |= named(base.removeprefix("fastscalar").lstrip("."), [a.name for a in node.names])
    return found


def is_ours(name: str) -> bool:
    return name == "fastscalar" or name.startswith("fastscalar.")


CYTHON = re.compile(
    r"^\s*from\s+(fastscalar[\w.]*)\s+(c?)import\s+(\([^)]*\)|[^\n#]*)|^\s*(c?)import\s+(fastscalar[\w.]*)",
    re.MULTILINE,
)


def imports_of_cython(text: str, inline: bool = False) -> set[str]:
    """What a .pyx needs; inline: what a .pxd does, which is compiled into the module that cimports it."""
    found: set[str] = set()
    for base, c, names, c_alone, alone in CYTHON.findall(text):
        if alone:
            those = {alone.removeprefix("fastscalar").lstrip(".")}
        else:
            listed = [name.split()[0] for name in names.strip("() \n").replace("\n", " ").split(",") if name.strip()]
            those = named(base.removeprefix("fastscalar").lstrip("."), listed)
        sheets = {f"{one} (pxd)" for one in those & SHEETS} if c or c_alone else set()
        found |= sheets | (those - SHEETS if inline else those)
    return found


def graph() -> dict[str, set[str]]:
    """Which module imports which, wherever the import stands.  A .pxd beside its .pyx is a node of its own: parts that
    are compiled into a module cimport its declarations."""
    edges: dict[str, set[str]] = {}
    for path in SOURCES:
        module, text = module_of(path), path.read_text()
        if path.suffix == ".py":
            package = module if path.name == "__init__.py" else module.rpartition(".")[0]
            edges[module] = imports_of_python(text, package) - {module}
        elif path.suffix == ".pyx":
            own = {f"{module} (pxd)"} if module in SHEETS else set()
            edges[module] = (imports_of_cython(text) | own) - {module}
        else:
            edges[f"{module} (pxd)" if module in SHEETS else module] = imports_of_cython(text, inline=True) - {module}
    return edges


def whole(module: str) -> str:
    return "_core" if room(module) == "_core" else module


def wrong_ways(edges: dict[str, set[str]]) -> list[str]:
    return [
        f"{module or '__init__'} imports {other or 'the package itself'}"
        for module, others in sorted(edges.items())
        for other in sorted(others)
        if room(other) != room(module) and room(other) not in MAY_IMPORT[room(module)]
    ]


def circle(edges: dict[str, set[str]]) -> list[str]:
    """The modules of a circle, if there is one.  _core and its parts are one module."""
    left: dict[str, set[str]] = {}
    for module, others in edges.items():
        left.setdefault(whole(module), set()).update({whole(other) for other in others} - {whole(module)})
    while free := [module for module, others in left.items() if not others & set(left)]:
        for module in free:
            del left[module]
    if not left:
        return []
    way = [next(iter(left))]
    while way.count(way[-1]) == 1:
        way.append(next(iter(left[way[-1]] & set(left))))
    return way[way.index(way[-1]) :]


def test_every_module_has_its_place() -> None:
    """A new module at the top level, or a new package, says above what it may import."""
    assert {room(module) for module in graph()} <= set(MAY_IMPORT)


def test_imports_point_one_way() -> None:
    assert not wrong_ways(graph())


def test_no_circles() -> None:
    assert not circle(graph())


def unguarded_imports(text: str) -> list[int]:
    """Lines of imports in functions that stand in no `with importing():`, so that a fork does not wait for them."""
    found: list[int] = []

    def visit(node: ast.AST, late: bool) -> None:
        if isinstance(node, ast.With):
            late = late and not any(ast.unparse(item.context_expr) == "importing()" for item in node.items)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            late = True
        elif late and (
            isinstance(node, (ast.Import, ast.ImportFrom))
            or (isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"))
        ):
            found.append(node.lineno)
        for child in ast.iter_child_nodes(node):
            visit(child, late)

    visit(ast.parse(text), False)
    return found


def test_a_fork_waits_for_imports_that_come_late() -> None:
    mains = {"cli", "play", "__main__", "_interpreter"}  # nobody forks beside them
    python = [path for path in SOURCES if path.suffix == ".py" and room(module_of(path)) not in mains]
    assert not {module_of(path): lines for path in python if (lines := unguarded_imports(path.read_text()))}
    assert unguarded_imports("import a\ndef f():\n    import b\n    with importing():\n        import c\n") == [3]


@pytest.mark.parametrize("package", sorted({path.parent for path in PACKAGE.rglob("__init__.py")} - {PACKAGE}))
def test_the_head_of_a_room_is_its_map(package: Path) -> None:
    """Each module has its line in the docstring of `__init__.py`."""
    words = set(re.findall(r"\w+", ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""))
    modules = {path.stem for path in SOURCES if path.parent == package} - {"__init__"}
    assert modules
    assert modules <= words, sorted(modules - words)


def test_wrong_ways_and_circles_are_seen() -> None:
    edges = graph()
    edges["engine._array"] = edges["engine._array"] | {"program._graph"}
    assert "engine._array imports program._graph" in wrong_ways(edges)
    assert {"engine._array", "program._graph"} <= set(circle(edges))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from fastscalar.engine import _array, nothing", {"engine._array", "engine"}),
        ("def f():\n    import fastscalar.nn.layers as l", {"nn.layers"}),
        ("import fastscalar as fs\nimport os", {""}),
        ("from fastscalar import datasets, Tensor", {"datasets", ""}),
        ("from .layers import MLP\nfrom . import init\nfrom ..files import naming", {"nn.layers", "nn.init", "files"}),
    ],
)
def test_imports_are_found_in_python(text: str, found: set[str]) -> None:
    assert imports_of_python(text, "nn") == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from fastscalar._core cimport *", {"_core", "_core (pxd)"}),
        ("from fastscalar._core import _record", {"_core"}),
        ("from fastscalar.engine.formulas cimport *", {"engine.formulas"}),
        ("    from fastscalar.engine cimport _array", {"engine._array", "engine._array (pxd)"}),
        ("from fastscalar.engine._array cimport (\n    a,\n    b,\n)", {"engine._array", "engine._array (pxd)"}),
        ("import os\ncimport fastscalar._core", {"_core", "_core (pxd)"}),
        ("# it comes from fastscalar import this\nfrom libc.math cimport exp", set()),
    ],
)
def test_imports_are_found_in_cython(text: str, found: set[str]) -> None:
    assert imports_of_cython(text) == found


def lines_too_many(path: Path) -> bool:
    limit = LONGER.get(str(path.relative_to(PACKAGE)), LIMITS[path.suffix])
    return path.read_text().count("\n") > limit


def test_files_are_read_in_one_sitting() -> None:
    """Python to 500 lines, Cython to 900, or the reason in the first lines."""
    long = {
        str(path.relative_to(PACKAGE))
        for path in SOURCES
        if lines_too_many(path) and not REASON.search("\n".join(path.read_text().split("\n")[:20]))
    }
    assert long == NOT_SPLIT_YET  # what is no longer long comes off the list


def test_the_twin_is_read_in_ten_minutes() -> None:
    first = PACKAGE / "reference" / "framework.py"
    assert first.read_text().count("\n") <= 150
    assert "src/fastscalar/reference/framework.py" in (PACKAGE.parents[1] / "README.md").read_text()


def test_every_package_is_in_the_wheel() -> None:
    setup = tomllib.loads((PACKAGE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    found = {".".join(path.parent.relative_to(PACKAGE.parent).parts) for path in PACKAGE.rglob("__init__.py")}
    assert set(setup["tool"]["setuptools"]["packages"]) == found
