"""The package's own C, under each compiler at hand, without a warning.  What Cython writes is Cython's."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "fastscalar"
FOLDERS = [PACKAGE / "engine" / "kernels", PACKAGE / "program" / "kernels"]
PARTS = {"rules_body.c", "batch_body.c", "batch_dense.c", "batch_exp.c", "batch_functions.c", "batch_images.c",
         "batch_steps.c"}  # included by the files of the sets  # fmt: skip
FILES = sorted(path for folder in FOLDERS for path in folder.glob("*.[ch]") if path.name not in PARTS)
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wno-unknown-pragmas", "-Werror", "-fsyntax-only"]


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
        if header:
            command.append("-Wno-unused-function")
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[:4000]
