"""The package's own C, under each compiler at hand, without a warning.  What Cython writes is Cython's."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "fastscalar"
FOLDERS = [PACKAGE / "engine" / "kernels", PACKAGE / "program" / "kernels"]
OURS = sorted(path for folder in FOLDERS for path in folder.glob("*.[ch]"))
# Others are parts: included by these.
COMPILED = {path.name for path in OURS if path.suffix == ".c"} - {
    name for path in OURS for name in re.findall(r'#include "(\w+\.c)"', path.read_text())
} | {"batch.c", "kernels.c"}  # of the sets: compiled alone too
CIMPORTED = {
    name for path in PACKAGE.rglob("*.p*x*") for name in re.findall(r'cdef extern from "(\w+\.h)"', path.read_text())
}
FILES = [path for path in OURS if path.name in COMPILED | CIMPORTED]
# What a part or a header offers is not all used where it is included.
ALLOWED = ["-Wno-unknown-pragmas", "-Wno-unused-function"]
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", *ALLOWED, "-Werror", "-fsyntax-only"]

TRANSLATED = [path for path in (pyx.with_suffix(".c") for pyx in sorted(PACKAGE.rglob("*.pyx"))) if path.exists()]
# What newer compilers take for errors (pointers of another type, functions that nobody declared) is among what every
# compiler warns of by itself.  Cython forgets what is const.
UNASKED = {
    "gcc": ["-Werror", "-Wno-discarded-qualifiers", "-fsyntax-only"],
    "clang": ["-Werror", "-Wno-incompatible-pointer-types-discards-qualifiers", "-fsyntax-only"],
}

CYTHON = sorted(path for ending in ("*.pyx", "*.pxd") for path in PACKAGE.rglob(ending))
FROM_THE_END = re.compile(r"(?<=[\w)\]])\[(?:[^\[\]:]*:)?-\d+(?::[^\[\]]*)?\]")


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_no_warning(compiler: str, file: Path, tmp_path: Path) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    if file.suffix == ".h":  # as the modules include it
        includer = tmp_path / "includer.c"
        includer.write_text(f'#include <Python.h>\n#include "{file.name}"\nint used;\n')
        file = includer
    folders = [f"-I{folder}" for folder in FOLDERS]
    python = ["-isystem", sysconfig.get_path("include")]
    header = file.name == "includer.c"
    for checked in ([], ["-DFASTSCALAR_CHECKED=1"])[: 1 + header]:
        command = [compiler, *WARNINGS, *checked, *folders, *python, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[:4000]


@pytest.mark.parametrize("file", TRANSLATED, ids=lambda path: path.name)
@pytest.mark.parametrize("compiler", UNASKED)
def test_what_is_translated_gives_no_warning_either(compiler: str, file: Path) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    folders = [f"-I{folder}" for folder in FOLDERS]
    command = [compiler, *UNASKED[compiler], *folders, "-isystem", sysconfig.get_path("include"), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[:4000]


@pytest.mark.parametrize("file", CYTHON, ids=lambda path: path.name)
def test_no_index_counts_from_the_end(file: Path) -> None:
    """Where wraparound is off, as here, Cython leaves open what `x[-1]` and `x[:-1]` are."""
    lines = enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
    assert not [(k, line) for k, line in lines if FROM_THE_END.search(line.partition("#")[0])]


def test_indices_from_the_end_are_found() -> None:
    for line in ("x[-1]", "x[:-1]", "f(x)[-2:]", "x[0][1:-1]", "run[0]:run[-1] + 1"):
        assert FROM_THE_END.search(line), line
    for line in ("= [-1] * n", "x[::-1]", "x[-1 - i]", "x[k - 1]", "x[:n - 1]", "return -1"):
        assert not FROM_THE_END.search(line), line
