"""How long `import fastscalar` takes, beyond `import numpy`: whole interpreters, started in turn."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from contestants.base import absent
from workloads import in_turn

pytestmark = pytest.mark.benchmark(group="import")
PEERS = ["micrograd", "torch", "numba", "jax", "casadi", "paddle"]


def start(code: str) -> str:
    """With bytecode that is kept: that is what an installed package has."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=kept).stdout


def test_import_time(benchmark: Any, bar: Any, small: bool) -> None:
    loaded = start("import fastscalar, sys; print('fastscalar._core' in sys.modules, 'numpy' in sys.modules)")
    assert loaded.split() == ["True", "True"]
    assert start("import numpy, sys; print('fastscalar' in sys.modules)").split() == ["False"]
    turns = in_turn(
        benchmark,
        lambda: start("import fastscalar") and None,
        {"numpy": lambda: start("import numpy") and None, "nothing": lambda: start("pass") and None},
        1 if small else 21,
    )
    bar("import_time: Python with NumPy", turns.median("numpy"), "s")
    bar("import_time: Python with fastscalar", turns.median("fastscalar"), "s")
    bar(
        "import_time: fastscalar - NumPy",
        turns.median("fastscalar") - turns.median("numpy"),
        "s",
        at_most=0.12,
    )


def test_import_time_of_others(benchmark: Any, bar: Any, small: bool, skipped: Any) -> None:
    """Beside ours, in turn; no bar."""
    for module in PEERS:
        if why := absent(module):
            skipped(module, why)
    here = [module for module in PEERS if not absent(module)][: 1 if small else None]
    others = {module: lambda module=module: start(f"import {module}") and None for module in here}
    turns = in_turn(benchmark, lambda: start("import fastscalar") and None, others, 1 if small else 3)
    for module in turns.seconds:
        bar(f"import_time: Python with {module}, beside others", turns.median(module), "s")
