"""Does a test fail when a rule is wrong?  `python tools/mutants.py [--kind derivative] [--every 10 --first 3]`.

One build in build/mutants holds all mutants: each derivative's value is altered, or a condition of a rule is turned
round, where FASTSCALAR_MUTANT is the mutant's number.  Each is given to the tests of its kind until one fails.  What
came of it is a line of JSON in results/mutants.jsonl; a run that was stopped goes on.  The last lines name what no test
has seen: a mutant that changes nothing (another rule does the same), or a test that is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from typing import Any

import instrumented

ROOT = instrumented.ROOT
TARGET = ROOT / "build" / "mutants"
PATIENCE = 240  # seconds for the tests of one mutant: one that makes a loop endless is seen by that

HEADER = """\
#ifndef FS_MUTANT_H
#define FS_MUTANT_H
#include <stdlib.h>
static int fs_mutant = -2;
static inline int fs_mutant_is(int k)
{
    if (fs_mutant == -2)
        fs_mutant = getenv("FASTSCALAR_MUTANT") ? atoi(getenv("FASTSCALAR_MUTANT")) : -1;
    return fs_mutant == k;
}
static inline double fs_altered(int k, double v) { return fs_mutant_is(k) ? 1.25 * v + 0.5 : v; }
#endif
"""
DECLARED = """
cdef extern from "mutant.h":
    bint mutant_is "fs_mutant_is"(int) noexcept nogil
    double altered "fs_altered"(int, double) noexcept nogil
"""

ENGINE = ["engine/test_gradients.py", "engine/test_memory.py", "engine/test_robustness.py", "engine/test_custom.py",
          "engine/test_collector_anywhere.py", "engine/test_changed_values.py", "engine/test_debug.py",
          "transforms"]  # fmt: skip
PROGRAMS = ["program/test_compile.py", "program/test_decisions.py", "program/test_recovery.py",
            "program/test_values_and_gradients.py", "program/test_leaves.py", "program", "property"]  # fmt: skip
# kind: (files below src/fastscalar, functions (all if empty), what is altered, tests)
KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...], str, list[str]]] = {
    "derivative": (
        ("engine/formulas.pxd",), (), "return",
        ["engine/test_operation_table.py", "engine/test_special_points.py", "engine/test_gradients.py", "engine"],
    ),
    "rewrite": (
        ("program/simplify.pxd",), ("simplify", "simplify_one", "share_constant", "enter_item"), "if", PROGRAMS,
    ),
    "liveness": (("engine/roots.pxd", "engine/collect.pxd"), (), "if", ENGINE),
    "liveness of gradients": (("program/gradients.pxd",), (), "if", PROGRAMS),
    "liveness of a program": (("program/simplify.pxd",), ("reach", "mark_needed", "find_exact"), "if", PROGRAMS),
}  # fmt: skip


def alter(kind: str, mutants: list[dict[str, Any]]) -> None:
    """Rewrite the copies of the kind's files; what was altered is added to `mutants`, numbered on."""
    files, functions, what, _ = KINDS[kind]
    for file in files:
        path = TARGET / "src" / "fastscalar" / file
        lines, function = path.read_text().split("\n"), ""
        for at, line in enumerate(lines):
            defined = re.match(r"cdef inline .*?(\w+)\(", line)
            if defined:
                function = defined[1]
            if not function or (functions and function not in functions):
                continue
            code = line.partition("  #")[0].rstrip()
            if what == "return":
                found = re.match(r"(\s+return )(.+)$", code)
                if not found or not re.match(r"d[ab]?_", function) or code.count("(") != code.count(")"):
                    continue
                lines[at] = f"{found[1]}altered({len(mutants)}, {found[2]})"
            else:
                found = re.match(r"(\s+(?:if|elif) )(.+):$", code)
                if not found or code.count("(") != code.count(")"):
                    continue
                lines[at] = f"{found[1]}(1 if ({found[2]}) else 0) != mutant_is({len(mutants)}):"
            where = f"{file}:{at + 1} {function}"
            mutants.append({"number": len(mutants), "kind": kind, "where": where, "was": code.strip()})
        text = "\n".join(lines)
        if DECLARED not in text:
            first = re.search(r"^(cdef (?!extern)|ctypedef)", text, re.MULTILINE)
            assert first is not None
            text = text[: first.start()].rstrip("\n") + "\n" + DECLARED + "\n\n" + text[first.start() :]
        path.write_text(text)


def prepare() -> list[dict[str, Any]]:
    instrumented.copy(TARGET)
    (TARGET / "src/fastscalar/engine/kernels/mutant.h").write_text(HEADER)
    mutants: list[dict[str, Any]] = []
    for kind in KINDS:
        alter(kind, mutants)
    instrumented.compile_in("plain", TARGET)
    return mutants


def killed_by(mutant: dict[str, Any]) -> str:
    """The first test that fails, or "" if none does."""
    env = {**os.environ, "PYTHONPATH": str(TARGET / "src"), "FASTSCALAR_MUTANT": str(mutant["number"])}
    tests = [f"tests/{name}" for name in KINDS[mutant["kind"]][3]]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not big and not mnist"]
    options: dict[str, Any] = {"cwd": TARGET, "env": env, "capture_output": True, "text": True}
    try:
        done = subprocess.run([*command, *tests], timeout=PATIENCE, check=False, **options)
    except subprocess.TimeoutExpired:
        return f"nothing ended in {PATIENCE} s"
    if done.returncode == 0:
        return ""
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return failed[0] if failed else f"status {done.returncode}"


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="mutants.py", description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=list(KINDS), action="append")
    parser.add_argument("--every", type=int, default=1, help="only each so many,")
    parser.add_argument("--first", type=int, default=0, help="from this one on")
    options = parser.parse_args(words)
    mutants = [one for one in prepare() if not options.kind or one["kind"] in options.kind]
    mutants = mutants[options.first :: options.every]
    path = ROOT / "results" / "mutants.jsonl"
    path.parent.mkdir(exist_ok=True)
    known = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        one = json.loads(line)
        known[one["kind"], one["where"], one["was"]] = one
    alive = []
    for mutant in mutants:
        key = mutant["kind"], mutant["where"], mutant["was"]
        if key not in known:
            start = time.monotonic()
            known[key] = {**mutant, "killed by": killed_by(mutant), "seconds": round(time.monotonic() - start)}
            with path.open("a") as file:
                file.write(json.dumps(known[key]) + "\n")
            print(f"{mutant['kind']}, {mutant['where']}: {known[key]['killed by'] or 'ALIVE'}", flush=True)
        if not known[key]["killed by"]:
            alive.append(f"alive: {mutant['kind']}, {mutant['where']}: {mutant['was']}")
    print("\n".join(alive))
    print(f"{len(mutants) - len(alive)} of {len(mutants)} mutants are seen by a test")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
