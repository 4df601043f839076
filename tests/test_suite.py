"""The suite itself: it ends, whatever hangs, and wherever it is started from."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import clock
import watchdog

HANGS = {
    "python": "import time\ndef test_it(): time.sleep(1000)",
    "thread": "import threading\ndef test_it(): threading.Event().wait()",
    "fixture": "import pytest, time\n@pytest.fixture\ndef slow(): time.sleep(1000)\ndef test_it(slow): pass",
    "process": "import subprocess\ndef test_it(): subprocess.run(['sleep', '100'])",
    "C": "import ctypes\ndef test_it(): ctypes.PyDLL(None).sleep(1000)",  # holds the lock
}
SIGINT = """
import os, signal, subprocess, sys, time
def test_this_process():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(20)
    except KeyboardInterrupt:
        return
    raise AssertionError("nothing came")
def test_another_process():
    code = "import time; print('ready', flush=True); time.sleep(20)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\\n"
    process.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in process.communicate(timeout=300)[1]
"""


def suite(folder: Path, code: str, *, prefix: str = "", limit: str = "600") -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(code)
    plugins = ["-p", "watchdog", "-p", "no:cacheprovider"]
    command = shlex.join([sys.executable, "-m", "pytest", "-q", *plugins, "test_it.py"])
    env = os.environ | {"PYTHONPATH": str(Path(watchdog.__file__).parent), "FASTSCALAR_TEST_TIMEOUT": limit}
    env["PYTEST_ADDOPTS"] = ""
    return subprocess.run(
        ["sh", "-c", prefix + command], cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("what", HANGS)
def test_what_hangs_is_ended_and_named(what: str, tmp_path: Path) -> None:
    for limit in (1, 5, 25):
        done = suite(tmp_path, HANGS[what], limit=str(limit))
        assert done.returncode == 1
        assert f"Timeout (0:00:{limit:02d})!" in done.stderr
        if "in test_it" in done.stderr or "in slow" in done.stderr:
            return
    raise AssertionError("the test was ended before it had begun, three times")


def test_started_in_the_background_of_a_script(tmp_path: Path) -> None:
    """A shell without job control lets its background jobs ignore SIGINT."""
    done = suite(tmp_path, SIGINT, prefix="trap '' INT; ")
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_three_times_the_work_is_no_disturbance() -> None:
    """A limit of two is not met by it, however many rounds there are; one of five is."""
    work, reference = (lambda: sum(range(600_000))), (lambda: sum(range(200_000)))
    assert clock.ratio(work, reference, limit=2.0, most=20) >= 2.0
    assert clock.ratio(work, reference, limit=5.0) < 5.0


def test_what_replays_without_the_lock_compiles_in_a_checked_build_too() -> None:
    """There None is looked for, which needs the lock, unless a file says otherwise; one that is split off forgets."""
    folder = Path(__file__).parents[1] / "src" / "fastscalar" / "program"
    asked = [path for path in sorted(folder.glob("*.pxd")) if re.search(r"\bReplay r\b.*nogil:", path.read_text())]
    assert len(asked) > 5
    silent = [path.name for path in asked if "nonecheck=False" not in "".join(path.read_text().splitlines()[:3])]
    assert not silent
