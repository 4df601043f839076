"""`make prove`: every check of docs/reliability.md, one after the other; then its table.

    prove.py [CHECK ...] [--part PART] [--again | --missing] [--table]

Long checks have parts: a file of tests, a scenario, an optimiser.  What came of a check or of a part is a line of JSON
in docs/reliability.jsonl as soon as it has ended: what it did (the last line that it printed), whether it passed, its
seconds, date and commit; where every test was skipped, why: that is no pass.  Stopped and started again, a run goes on
with what has not passed at this commit; --missing with what has passed at no commit; --again does it anew; --table only
writes the table.  A day and more on two cores.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import os
import platform
import re
import subprocess
import sys
import time
from typing import Any, NamedTuple

import instrumented

sys.path.insert(0, str(instrumented.ROOT / "tests" / "helpers"))
import faults

ROOT = instrumented.ROOT
KEPT = ROOT / "docs" / "reliability.jsonl"
PAGE = ROOT / "docs" / "reliability.md"
MARK = "<!-- the table: make prove -->"
PYTHON = sys.executable
HELPERS = "tests/helpers"
ROOMS = ("engine", "arrays", "program", "transforms", "nn", "property")
TRACED = (*ROOMS, "cli", "datasets", "article", "play", "stress", "test_testing.py")
ENDLESS = "FASTSCALAR_TEST_TIMEOUT=86400"  # these tests are long on purpose
SHOWN = 4  # parts that a row of the table names


class Check(NamedTuple):
    what: str  # in the table
    command: list[str]  # "{}" in it stands for a part
    parts: tuple[str, ...] = ()
    build: str = ""  # a kind of tools/instrumented.py: the command runs in that build


def watched(kind: str, what: str, before: tuple[str, ...] = ()) -> dict[str, Check]:
    """The tests of each room in a build that watches itself; a file of tests is a part."""
    checks = {}
    for room in ROOMS:
        files = tuple(path.stem for path in sorted((ROOT / "tests" / room).glob("test_*.py")))
        command = [*before, PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/{room}/{{}}.py"]
        checks[room] = Check(f"{what}, tests/{room}", command, files, kind)
    return checks


def pytest(file: str, *settings: str) -> list[str]:
    return [*(("env", *settings) if settings else ()), PYTHON, "-m", "pytest", "-q", file]


CHECKS: dict[str, Check] = {
    "warnings": Check("the package's own C under GCC and Clang, `-Wall -Wextra -Wconversion`",
                      pytest("tests/engine/test_warnings.py")),
    "disks": Check("a disk full at every byte of four kinds of files, folders that may not be written to, files that "
                   "change 20,000 times while they are read",
                   pytest("tests/stress/test_disks.py", "FASTSCALAR_DISKS=1")),
    "allocations": Check(f"the n-th allocation fails, for every n of {len(faults.SCENARIOS)} scenarios",
                         [PYTHON, f"{HELPERS}/faults.py", "{}"], tuple(faults.SCENARIOS)),
    **{f"leaks of {kind}": Check(f"memory and live counts over {what}", [PYTHON, f"{HELPERS}/leaks.py", kind])
       for kind, what in {"steps": "training steps of single numbers", "exceptions": "exceptions",
                          "calls": "calls of a program", "programs": "programs made and dropped",
                          "threads": "threads"}.items()},
    "subinterpreters": Check("refused, and the tape of the main interpreter is as it was",
                             pytest("tests/stress/test_interpreters.py")),
    "shutdown": Check("the interpreter ends in each of 30 states in each of eight ways, ten times",
                      pytest("tests/stress/test_shutdown.py", "FASTSCALAR_SHUTDOWN=10", ENDLESS)),
    "options": Check("20,000 random lines of options, made from the parser itself",
                     pytest("tests/cli/test_options.py", "FASTSCALAR_OPTIONS=20000", ENDLESS)),
    "same bits": Check("compiled training with `FASTSCALAR_KERNELS=baseline`, against digests; the other kernel sets",
                       pytest("tests/nn/test_same_bits.py")),
    "processors": Check("the baseline kernels by each compiler at hand, aarch64 under emulation, musl",
                        [PYTHON, f"{HELPERS}/processors.py"]),
    "threads": Check("the pool of threads under ThreadSanitizer, 20,000 rounds of four owners and four helpers",
                     pytest("tests/stress/test_pool_races.py", "FASTSCALAR_POOL=20000")),
    "golden files": Check("files that releases wrote", pytest("tests/nn/test_golden.py")),
    "memcheck": Check("a fixed tour under valgrind's memcheck", [PYTHON, f"{HELPERS}/memcheck.py", "--valgrind"]),
    **{f"sanitizers: {room}": check for room, check in
       watched("address", "AddressSanitizer and UndefinedBehaviorSanitizer, checked build").items()},
    **{f"checked: {room}": check for room, check in
       watched("checked", "checked build, what is alive counted around each test").items()},
    **{f"stress: {room}": check for room, check in
       watched("checked", "checked build, every safepoint collecting and moving everything",
               ("env", "FASTSCALAR_STRESS=all")).items()},
    "traced": Check("the suite, eight cases of most tests at most, in the build that counts lines",
                    [PYTHON, "tools/covered.py", "{}"], TRACED),
    "coverage": Check("lines that the traced suite runs, at least 95 % of each kind",
                      [PYTHON, "tools/covered.py", "report"]),
    "docs": Check("the site without a warning, every link within it", [PYTHON, "tools/site.py"]),
    "wheels": Check("a wheel for each Python at hand, built twice with the same bytes, tried without a compiler",
                    [PYTHON, "tools/wheels.py", "--twice", "--only", "{}"], ("3.11", "3.12", "3.13")),
    "files": Check("a million mutated models, runs, IDX and image files, with limits of time and memory: 34 seeds",
                   [PYTHON, f"{HELPERS}/fuzzing.py", "build/fuzz-files/{}", "5000", "{}"],
                   tuple(map(str, range(1, 35)))),
    "saved programs": Check("mutated programs, which are called if they are accepted, and checkpoints of `fit`, which "
                            "are trained on with: ten seeds",
                            [PYTHON, f"{HELPERS}/fuzzing_programs.py", "build/fuzz-programs/{}", "10000", "{}"],
                            tuple(map(str, range(1, 11)))),
    "interrupts": Check("Ctrl-C at 10,000 random moments of each of 28 long calls",
                        pytest("tests/stress/test_interrupts.py", "FASTSCALAR_INTERRUPTS=10000", ENDLESS)),
    "forks": Check("200 child processes in each state of the other threads",
                   pytest("tests/stress/test_forks.py", "FASTSCALAR_FORKS=200", ENDLESS)),
    "kill": Check("a training run killed between every two operations on files; at random moments, with each optimiser",
                  ["sh", "-c", f"rm -rf build/kill/{{}}; exec {PYTHON} {HELPERS}/killing.py {{}} build/kill/{{}} 500"],
                  ("every", "overwrite", "interrupt", "random", "momentum", "decay", "adam", "adamw", "rmsprop",
                   "patience")),
    "kill of ranks": Check("one of two MPI processes killed at 50 random moments",
                           pytest("tests/nn/test_ranks.py", "FASTSCALAR_KILLS=50", ENDLESS)),
    "random engine programs": Check("engine and specification side by side: 20,000 random programs of three kinds, "
                                    "6,666 of two under stress",
                                    pytest("tests/property/test_random_programs.py", "FASTSCALAR_EXAMPLES=20000",
                                           ENDLESS)),
    "sequences": Check("engine and specification side by side: a million random sequences of operations, with "
                       "exceptions, misuse, deletions, users' own steps that raise and Ctrl-C among them, one in "
                       "twenty in stress mode",
                       [PYTHON, f"{HELPERS}/fuzzing_engine.py", "10000", "{}0000"], tuple(map(str, range(100)))),
    "random functions": Check("compiled against the plain call, from 100 seeds",
                              ["sh", "-c", f"cd tests && {PYTHON} -m fuzz --count 10000 --first {{}}0000 --state "
                                           "../results/fuzz_{}0000.json"], tuple(map(str, range(100)))),
    "mutants": Check("each derivative, rewrite and liveness rule altered once: each tenth, from ten beginnings",
                     [PYTHON, "tools/mutants.py", "--every", "10", "--first", "{}"], tuple(map(str, range(10)))),
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


built = functools.cache(instrumented.build)


def why_skipped(lines: list[str]) -> str:
    """The reasons why all tests of a run were skipped, which is no proof of anything; "" if one was not."""
    if not re.match(r"=*\s*\d+ skipped(, \d+ (deselected|warnings?))* in ", lines[-1]):
        return ""
    reasons = [m[1] for line in lines if (m := re.match(r"SKIPPED \[\d+\] \S+: (.*)", line))]
    return "; ".join(dict.fromkeys(reasons)) or "for a reason that was not kept"


def run(name: str, part: str, here: str) -> dict[str, Any]:
    check = CHECKS[name]
    where: dict[str, Any] = {"cwd": ROOT}
    if check.build:
        target = built(check.build)
        where = {"cwd": target, "env": instrumented.environment(check.build, target)}
    start = time.monotonic()
    command = [word.replace("{}", part) for word in check.command]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False, **where
    )
    lines = done.stdout.strip().splitlines() or ["nothing was said"]
    why = why_skipped(lines)
    if done.returncode and not why:
        print(done.stdout[-6000:])
    return {
        "check": name,
        **({"part": part} if part else {}),
        "passed": done.returncode == 0 and not why,
        **({"skipped": why} if why else {}),
        "said": lines[-1],
        "seconds": round(time.monotonic() - start),
        "date": f"{datetime.date.today():%Y-%m-%d}",
        "commit": here,
        "python": platform.python_version(),
    }


def span(values: list[str]) -> str:
    """What lines say that is not always the same, first and last."""
    return values[0] if len(set(values)) == 1 else f"{values[0]} to {values[-1]}"


def some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def in_sum(lines: list[dict[str, Any]]) -> str:
    """What parts have done together: the numbers of those that say the same of theirs; else each one's words."""
    aside = r" in [\d.]+s.*|^[-\d]+ [:\d]+ UTC: | from seed \d+"         # of each part alone
    said = [re.sub(aside, "", line["said"].strip("= ")) for line in lines]
    shapes = {re.sub(r"\d[\d,]*", "{}", words) for words in said}
    if len(shapes) == 1:
        columns = zip(*(re.findall(r"\d[\d,]*", words) for words in said), strict=True)
        sums = [f"{sum(int(n.replace(',', '')) for n in column):,}" for column in columns]
        return re.sub(r"\d[\d,]*", lambda _: sums.pop(0), said[0])
    passed = [int(n) for words in said for n in re.findall(r"(\d+) passed", words)]
    skipped = [int(n) for words in said for n in re.findall(r"(\d+) skipped", words)]
    if all(re.search(r"\d (passed|skipped)", words) and "failed" not in words for words in said):
        return f"{sum(passed):,} passed, {sum(skipped):,} skipped"
    return "; ".join(f"{line['part']}: {words}" for line, words in zip(lines, said, strict=True))


def row(name: str, lines: list[dict[str, Any]]) -> str:
    """Of a check or of its parts, the last result of each."""
    check = CHECKS[name]
    last = {line.get("part", ""): line for line in lines if line["check"] == name}
    found = [last[part] for part in check.parts or ("",) if part in last]
    if not found:
        return f"| **{name}**: {check.what} | not run yet | | |"
    said = in_sum([line for line in found if line["passed"]] or found) if check.parts else found[0]["said"].strip("= ")
    if check.parts:
        said += f"; {len(found)} of {len(check.parts)} parts"
    skipped = {line.get("part", ""): line.get("skipped") or why_skipped([line["said"]]) for line in found}
    failed = [line.get("part", "") for line in found if not line["passed"] and not skipped[line.get("part", "")]]
    missing = [part for part in check.parts if part not in last]
    result = f"**failed** {some(failed)}".strip() if failed else "passed" if not all(skipped.values()) else ""
    for why in dict.fromkeys(filter(None, skipped.values())):
        these = some([part for part, reason in skipped.items() if reason == why])
        result += f"{'; ' if result else ''}**skipped{f' {these}' if these else ''}**: {why.replace('|', '/')}"
    if missing:
        result += f"; not run yet: {some(missing)}"
    found.sort(key=lines.index)
    when = f"{span([line['date'] for line in found])}, {span([line['commit'] for line in found])}"
    return f"| **{name}**: {check.what} | {said.replace('|', '/')} | {result} | {when} |"


def table(lines: list[dict[str, Any]]) -> str:
    rows = ["| check | amount | result | date, commit |", "|---|---|---|---|"]
    return "\n".join(rows + [row(name, lines) for name in CHECKS])


def write(lines: list[dict[str, Any]]) -> None:
    text = PAGE.read_text()
    begin = text.index(MARK) + len(MARK)
    end = text.index(MARK, begin)
    PAGE.write_text(f"{text[:begin]}\n{table(lines)}\n{text[end:]}")


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="prove.py", description=__doc__.splitlines()[0])
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=", ".join(CHECKS))
    parser.add_argument("--part", action="append", help="only this part of a check; may be given again")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args(words)
    unknown = set(options.checks) - set(CHECKS)
    if unknown:
        parser.error(f"no check {sorted(unknown)}; there are {', '.join(CHECKS)}")
    os.chdir(ROOT)
    here = commit()
    done = {
        (line["check"], line.get("part", ""))
        for line in known()
        if line["passed"] and (options.missing or line["commit"] == here) and not why_skipped([line["said"]])
    }
    if options.again:
        done.clear()
    failed = False
    for name in () if options.table else options.checks or CHECKS:
        for part in CHECKS[name].parts or ("",):
            if (name, part) in done or (options.part and part not in options.part):
                continue
            line = run(name, part, here)
            with KEPT.open("a") as file:
                file.write(json.dumps(line) + "\n")
            verdict = "passed" if line["passed"] else "skipped" if "skipped" in line else "FAILED"
            print(f"{name} {part}: {verdict}, {line['seconds']} s: {line['said']}", flush=True)
            failed |= verdict == "FAILED"
    write(known())
    print("\n".join(row(name, known()) for name in options.checks or CHECKS))
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
