"""`make prove`: every check of docs/reliability.md, one after the other; then its table.

    prove.py [CHECK ...] [--again] [--table]

What came of a check is a line of JSON in docs/reliability.jsonl as soon as it has ended: what it did (the last line
that it printed), whether it passed, its seconds, date and commit.  Stopped and started again, a run goes on with what
has not passed at this commit; --again does it anew; --table only writes the table.  A day and more on two cores.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
KEPT = ROOT / "docs" / "reliability.jsonl"
PAGE = ROOT / "docs" / "reliability.md"
MARK = "<!-- the table: make prove -->"
PYTHON = sys.executable
HELPERS = "tests/helpers"

# check: what it is, in the table; the command
CHECKS: dict[str, tuple[str, list[str]]] = {
    "warnings": ("the package's own C under GCC and Clang, `-Wall -Wextra -Wconversion`",
                 [PYTHON, "-m", "pytest", "-q", "tests/engine/test_warnings.py"]),
    "disks": ("a disk full at every byte of four kinds of files, folders that may not be written to, files that change "
              "20,000 times while they are read", ["env", "FASTSCALAR_DISKS=1", PYTHON, "-m", "pytest", "-q",
                                                   "tests/stress/test_disks.py"]),
    "allocations": ("the n-th allocation fails, for every n of 32 scenarios",
                    [PYTHON, f"{HELPERS}/faults.py", "all"]),
    **{f"leaks of {kind}": (f"memory and live counts over {what}", [PYTHON, f"{HELPERS}/leaks.py", kind])
       for kind, what in {"steps": "training steps of single numbers", "exceptions": "exceptions",
                          "calls": "calls of a program", "programs": "programs made and dropped",
                          "threads": "threads"}.items()},
    "subinterpreters": ("refused, and the tape of the main interpreter is as it was",
                        [PYTHON, "-m", "pytest", "-q", "tests/stress/test_interpreters.py"]),
    "same bits": ("compiled training with `FASTSCALAR_KERNELS=baseline`, against digests; the other kernel sets",
                  [PYTHON, "-m", "pytest", "-q", "tests/nn/test_same_bits.py"]),
    "processors": ("the baseline kernels by each compiler at hand, aarch64 under emulation, musl",
                   [PYTHON, f"{HELPERS}/processors.py"]),
    "threads": ("the pool of threads under ThreadSanitizer, 20,000 rounds of four owners and four helpers",
                ["env", "FASTSCALAR_POOL=20000", PYTHON, "-m", "pytest", "-q", "tests/stress/test_pool_races.py"]),
    "golden files": ("files that releases wrote", [PYTHON, "-m", "pytest", "-q", "tests/nn/test_golden.py"]),
    "memcheck": ("a fixed tour under valgrind's memcheck", [PYTHON, f"{HELPERS}/memcheck.py", "--valgrind"]),
    **{f"sanitizers: {room}": (f"AddressSanitizer and UndefinedBehaviorSanitizer, checked build, tests/{room}",
                               [PYTHON, "tools/instrumented.py", "address", "-m", "pytest", "-q", "-p",
                                "no:cacheprovider", f"tests/{room}"])
       for room in ("engine", "arrays", "program", "transforms", "nn", "property")},
    **{f"checked: {room}": (f"checked build, what is alive counted around each test, tests/{room}",
                            [PYTHON, "tools/instrumented.py", "checked", "-m", "pytest", "-q", "-p",
                             "no:cacheprovider", f"tests/{room}"])
       for room in ("engine", "arrays", "program", "transforms", "nn", "property")},
    "checked, in stress mode": ("the checked build, every safepoint collecting and moving everything",
                                ["make", "checked-stress"]),
    "docs": ("the site without a warning, every link within it", [PYTHON, "tools/site.py"]),
    "wheels": ("a wheel for each Python at hand, twice, tried without a compiler", ["make", "wheels", "TWICE=1"]),
    "files": ("mutated models, runs, IDX and image files, with limits of time and memory", ["make", "fuzz-files"]),
    "interrupts": ("Ctrl-C at random moments of every long call", ["make", "interrupts"]),
    "forks": ("child processes in each state of the other threads", ["make", "forks"]),
    "kill": ("a training run killed between every two operations on files, and at random moments", ["make", "kill"]),
    "kill of ranks": ("one of two MPI processes killed at random moments", ["make", "kill-ranks"]),
    "random engine programs": ("sequences of operations on engine and specification", ["make", "fuzz-engine"]),
    "random functions": ("compiled against the plain call", ["make", "fuzz", "PROGRAMS=1000000"]),
    "mutants": ("each derivative, rewrite and liveness rule altered once", [PYTHON, "tools/mutants.py"]),
}  # fmt: skip


def commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    changed = subprocess.run(
        ["git", "diff", "--quiet", "HEAD", "--", "src", "setup.py"], cwd=ROOT, check=False, timeout=60
    )
    return (done.stdout.strip() or "unknown") + ("+" if changed.returncode else "")


def known() -> list[dict[str, Any]]:
    return [json.loads(line) for line in KEPT.read_text().splitlines()] if KEPT.exists() else []


def run(name: str) -> dict[str, Any]:
    start = time.monotonic()
    done = subprocess.run(
        CHECKS[name][1], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    lines = done.stdout.strip().splitlines() or ["nothing was said"]
    if done.returncode:
        print(done.stdout[-6000:])
    return {
        "check": name,
        "passed": done.returncode == 0,
        "said": lines[-1],
        "seconds": round(time.monotonic() - start),
        "date": f"{datetime.date.today():%Y-%m-%d}",
        "commit": commit(),
        "python": platform.python_version(),
    }


def table(lines: list[dict[str, Any]]) -> str:
    """The last result of each check."""
    last = {line["check"]: line for line in lines}
    rows = ["| check | amount | result | date, commit |", "|---|---|---|---|"]
    for name, (what, _) in CHECKS.items():
        one = last.get(name)
        if one is None:
            rows.append(f"| **{name}**: {what} | not run yet | | |")
        else:
            said = one["said"].replace("|", "/").strip("= ")
            result = "passed" if one["passed"] else "**failed**"
            rows.append(f"| **{name}**: {what} | {said} | {result} | {one['date']}, {one['commit']} |")
    return "\n".join(rows)


def write(lines: list[dict[str, Any]]) -> None:
    text = PAGE.read_text()
    begin = text.index(MARK) + len(MARK)
    end = text.index(MARK, begin)
    PAGE.write_text(f"{text[:begin]}\n{table(lines)}\n{text[end:]}")


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="prove.py", description=__doc__.splitlines()[0])
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=", ".join(CHECKS))
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args(words)
    unknown = set(options.checks) - set(CHECKS)
    if unknown:
        parser.error(f"no check {sorted(unknown)}; there are {', '.join(CHECKS)}")
    os.chdir(ROOT)
    here = commit()
    failed = []
    for name in () if options.table else options.checks or CHECKS:
        done = {line["check"] for line in known() if line["passed"] and line["commit"] == here}
        if name in done and not options.again:
            continue
        line = run(name)
        with KEPT.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{name}: {'passed' if line['passed'] else 'FAILED'}, {line['seconds']} s: {line['said']}", flush=True)
        if not line["passed"]:
            failed.append(name)
    write(known())
    print(table(known()))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
