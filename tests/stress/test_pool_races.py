"""The pool of threads under ThreadSanitizer: what a task wrote is there for the owner, and without a race.

Without Python, whose own synchronisation the sanitizer does not see.  FASTSCALAR_POOL is the number of rounds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HELPERS = Path(__file__).resolve().parents[1] / "helpers"
KERNELS = HELPERS.parents[1] / "src" / "fastscalar" / "program" / "kernels"
ROUNDS = os.environ.get("FASTSCALAR_POOL", "200")


def run(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    program, sources = folder / "pool", [str(HELPERS / "pool_threads.c"), str(KERNELS / "pool.c")]
    command = ["gcc", "-O1", "-g", "-fsanitize=thread", f"-I{KERNELS}", *more, *sources]
    built = subprocess.run(
        [*command, "-lpthread", "-o", str(program)], capture_output=True, text=True, timeout=300, check=False
    )
    if built.returncode:
        pytest.skip(f"GCC has no ThreadSanitizer here: {built.stderr[-200:]}")
    env = {**os.environ, "TSAN_OPTIONS": "exitcode=66"}
    done = subprocess.run([str(program), ROUNDS], env=env, capture_output=True, text=True, timeout=3600, check=False)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("ThreadSanitizer does not run on this kernel")
    return done


@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")
def test_no_race(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr[:6000]
    assert done.stdout.endswith(" 0 of them wrong\n")
    print(done.stdout)


@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")
def test_the_sanitizer_sees_a_race(tmp_path: Path) -> None:
    done = run(tmp_path, "-DRACE")
    assert done.returncode == 66
    assert "data race" in done.stderr
