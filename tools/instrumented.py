"""A build that watches itself, in a folder of its own: `python tools/instrumented.py address -m pytest tests/engine`.

    plain      as users get it
    checked    bounds, None, and the invariants of tape, plans and replays
    address    AddressSanitizer and UndefinedBehaviorSanitizer (GCC)
    thread     ThreadSanitizer (GCC)
    counted    GCC counts which lines run

The files of the repository are copied to build/KIND (those that changed), built there, and the words after the kind run
there with this interpreter.  The build in place stays as it is.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
UNDEFINED = "print_stacktrace=1:halt_on_error=1"

BUILD: dict[str, dict[str, str]] = {
    "plain": {},
    "checked": {"FASTSCALAR_CHECKED": "1"},
    "address": {"FASTSCALAR_SANITIZE": "address,undefined", "FASTSCALAR_CHECKED": "1"},
    "thread": {"FASTSCALAR_SANITIZE": "thread"},
    "counted": {"FASTSCALAR_COUNTED": "1"},
}
RUN: dict[str, dict[str, str]] = {
    "counted": {"FASTSCALAR_LINES_COUNTED": "1"},  # not optimised: tests ask it for no ratio of times
    "address": {
        # Python's own small blocks are malloc's: what lies behind their end is seen.  Leaks are counted elsewhere: an
        # interpreter leaves much to the end of its process.
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1:detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": UNDEFINED,
    },
    "thread": {"TSAN_OPTIONS": f"exitcode=66:suppressions={ROOT}/tools/thread.suppressions:history_size=7"},
}
LIBRARIES = {"address": ("libasan.so", "libubsan.so"), "thread": ("libtsan.so",)}


def tracked() -> list[str]:
    """The files of the repository, new ones included; all but what a build leaves, where there is no git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def copy(target: pathlib.Path) -> None:
    """Files that are the same keep their times, so that only what follows from a change is built."""
    names = tracked()
    for name in names:
        here, there = ROOT / name, target / name
        if not there.exists() or there.read_bytes() != here.read_bytes():
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(here, there)
    known = set(names)
    for folder in ("src", "tests"):
        for path in (target / folder).rglob("*"):
            name = path.relative_to(target).as_posix()
            if path.suffix in (".py", ".pyx", ".pxd", ".pyi", ".h") and name not in known:
                path.unlink()


def environment(kind: str, target: pathlib.Path) -> dict[str, str]:
    """What the words run with: the sanitizers' libraries have to be there before Python's first allocation."""
    env = {**os.environ, **RUN.get(kind, {}), "PYTHONPATH": str(target / "src")}
    if kind in LIBRARIES:
        where = [
            subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True, timeout=60)
            for name in LIBRARIES[kind]
        ]
        env["LD_PRELOAD"] = " ".join(done.stdout.strip() for done in where)
    return env


def build(kind: str, target: pathlib.Path | None = None) -> pathlib.Path:
    target = target or ROOT / "build" / kind
    copy(target)
    compile_in(kind, target)
    return target


def compile_in(kind: str, target: pathlib.Path) -> None:
    # Cython's C keeps its own time for unchanged sources; -O1 of what it writes halves the time of a build.
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    env = {**os.environ, **BUILD[kind]}
    if shutil.which("ccache"):
        env.setdefault("CC", "ccache gcc")
        env.setdefault("LDSHARED", "gcc -shared")
        env.setdefault("CCACHE_BASEDIR", str(target))
        env.setdefault("CCACHE_NOHASHDIR", "1")
    done = subprocess.run(
        command, cwd=target, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stdout[-8000:])


def main(words: list[str]) -> int:
    if not words or words[0] not in BUILD:
        raise SystemExit(__doc__)
    kind, command = words[0], words[1:]
    target = build(kind)
    if not command:
        return 0
    return subprocess.run([sys.executable, *command], cwd=target, env=environment(kind, target), check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
