"""CONTRIBUTING.md says how to add an operation and a layer: its edits are applied literally to a copy, and it runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import fastscalar

PACKAGE = Path(fastscalar.__file__).resolve().parent
GUIDE = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"
EDIT = re.compile(r"In\s`([^`]+)`, (?:(after|before) `([^`]+)`|(at the end)):\n\n```\w+\n(.*?)```", re.DOTALL)

CHECK = """
import math, pickle
import fastscalar
from fastscalar import reference
from fastscalar.engine import _functions, testing

code = next(code for code, name, _, _ in _functions.operations() if name == "mish")
for x in (-1e9, -800.0, -30.0, -2.0, -0.5, -0.0, 0.0, 1e-9, 0.7, 3.0, 40.0, 1e9, math.inf, -math.inf):
    ours, twins = fastscalar.Tensor(x), reference.Tensor(x)
    y, z = ours.mish(), twins.mish()
    y.backward(), z.backward()
    assert (y.data, ours.grad) == (z.data, twins.grad), x
for x in (-3.0, -0.4, 0.3, 2.5):
    slope = testing.value_and_partials(code, x)[1]
    at = [testing.value_and_partials(code, x + k * 1e-3)[0] for k in (-2, -1, 1, 2)]
    assert abs((at[0] - 8.0 * at[1] + 8.0 * at[2] - at[3]) / 12e-3 - slope) < 1e-9, x
    second = fastscalar.grad(fastscalar.grad(lambda t: t.mish()))(x)
    near = [testing.value_and_partials(code, x + k * 1e-3)[1] for k in (-2, -1, 1, 2)]
    assert abs((near[0] - 8.0 * near[1] + 8.0 * near[2] - near[3]) / 12e-3 - second) < 1e-8, x
assert fastscalar.to_tensor([1.0, -2.0]).mish().tolist() == [fastscalar.Tensor(v).mish().data for v in (1.0, -2.0)]
assert "softplus" in fastscalar.Tensor.mish.__doc__
assert fastscalar.mish(fastscalar.Tensor(0.5)).data == fastscalar.mish(0.5) == reference.mish(0.5)
"""


def run(command: list[str], folder: Path, seconds: float = 400) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, f"{' '.join(command)[:200]}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def apply(guide: str, package: Path) -> list[str]:
    """The edits of the guide, which must find their places; the files that were changed."""
    changed = []
    for file, side, anchor, _, block in EDIT.findall(guide):
        path = package / file
        text = path.read_text()
        if side:
            assert text.count(f"\n{anchor}\n") == 1, f"{file}: {anchor!r} is there {text.count(anchor)} times"
            before, after = text.split(f"\n{anchor}\n")
            text = f"{before}\n{anchor}\n{block}{after}" if side == "after" else f"{before}\n{block}{anchor}\n{after}"
        else:
            text += block
        path.write_text(text)
        changed.append(file)
    return changed


@pytest.mark.dear
@pytest.mark.skipif(sys.platform == "win32", reason="compiles with the options of gcc and clang")
def test_an_operation_is_added_as_the_guide_says(tmp_path: Path) -> None:
    pytest.importorskip("Cython", reason="Cython is not installed: nothing can be built")
    if not (PACKAGE / "_core.pyx").exists() or not (GUIDE.parent / "tools").exists():
        pytest.skip("installed without its sources")
    package = tmp_path / "src" / "fastscalar"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "_core*.so", "_*.c"))
    for part in ("tools/stubs.py", "docs/functions.md"):
        (tmp_path / part).parent.mkdir()
        shutil.copy(GUIDE.parent / part, tmp_path / part)
    assert apply(GUIDE.read_text(), package) == [
        "engine/operations.pxd", "engine/formulas.pxd", "reference/functions.py"
    ]

    # Only `_core` is built, without optimisation: the table is its own, the others read it when they are imported.
    run([sys.executable, "-m", "cython", "-I", "src", "src/fastscalar/_core.pyx"], tmp_path)
    compiler = (sysconfig.get_config_var("CC") or "cc").split()
    kernels = [f"src/fastscalar/engine/kernels/{name}.c" for name in ("kernels", "kernels_avx2", "kernels_avx512")]
    target = f"src/fastscalar/_core{sysconfig.get_config_var('EXT_SUFFIX')}"
    includes = [f"-I{sysconfig.get_path('include')}", "-Isrc/fastscalar/engine/kernels"]
    shared = ["-bundle", "-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-shared"]
    options = ["-O0", "-w", "-fPIC", "-ffp-contract=off", "-fno-math-errno", *shared]
    run([*compiler, *options, *includes, "src/fastscalar/_core.c", *kernels, "-o", target, "-lm"], tmp_path)

    here = f"import sys; sys.path.insert(0, {str(tmp_path / 'src')!r})\n"
    stubs = f"{here}import runpy; runpy.run_path('tools/stubs.py', run_name='__main__')"
    assert "_table.py: written" in run([sys.executable, "-c", stubs], tmp_path)
    run([sys.executable, "-c", f"{here}{CHECK}"], tmp_path)
    table = Path(__file__).with_name("test_operation_table.py")
    copy = tmp_path / table.name
    copy.write_text(f"import sys\n\nsys.path.insert(0, {str(tmp_path / 'src')!r})\n{strip_future(table.read_text())}")
    out = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "mish", str(copy)], tmp_path)
    assert "3 passed" in out or "4 passed" in out, out


def strip_future(text: str) -> str:
    return text.replace("from __future__ import annotations\n", "")


def test_a_layer_is_added_as_the_guide_says() -> None:
    section = GUIDE.read_text().split("## Add a layer")[1]
    (block,) = re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    exec(compile(block, str(GUIDE), "exec"), {"__name__": "layer"})
