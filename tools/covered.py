"""Which lines of the package the tests run, of Python and of Cython: `python tools/covered.py ROOM ... | report`.

ROOM is a folder of tests/ or a file in it; it runs in the build "counted" of tools/instrumented.py, child processes
included, CASES cases of most tests at most, and what it covers is kept in build/counted.  `report` puts all that is
kept together: a table by room of the package, and in build/counted/covered/missing.txt each file's lines that no test
ran.  Its status is 1 below 95 %.  Needs coverage.py (pip install coverage) and GCC.

A line counts that holds a statement; one of Cython has run if any of the C that Cython made of it has, which GCC counts
(gcov): Cython's own line tracing stops at errors and threads, and takes a hundred times as long.  What is compiled into
another module from a .pxd is counted where it stands.
"""

from __future__ import annotations

import collections
import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import instrumented

LEAST = 95.0
CASES = 8  # the others of a test hardly run other lines,
EACH = {"arrays", "property"}  # unless each function of NumPy's is one, or each random program
HERE = instrumented.ROOT / "build" / "counted"
KEPT = HERE / "covered"
CONFIG = """
[run]
core = ctrace
source = {source}
data_file = {kept}/data
parallel = true
patch = subprocess
disable_warnings = no-data-collected, module-not-measured, couldnt-parse
[report]
exclude_also =
    if TYPE_CHECKING:
    @overload
    \\.\\.\\.$
"""
Place = tuple[str, int]  # a file, from the folder of the package's, and a line


def configured() -> dict[str, str]:
    """Where coverage.py keeps what it sees."""
    KEPT.mkdir(parents=True, exist_ok=True)
    config = KEPT / "config"
    config.write_text(CONFIG.format(source=HERE / "src" / "fastscalar", kept=KEPT))
    return {"COVERAGE_RCFILE": str(config)}


def coverage(*words: str, **more: str) -> int:
    env = instrumented.environment("counted", HERE) | configured() | more
    command = [sys.executable, "-m", "coverage", *words]
    return subprocess.run(command, cwd=HERE, env=env, check=False).returncode


def run(rooms: list[str]) -> int:
    instrumented.build("counted")
    for data in HERE.rglob("*.gcda"):
        if data.stat().st_mtime < data.with_suffix(".gcno").stat().st_mtime:
            data.unlink()  # of what was compiled again
    some = {} if EACH.intersection(rooms) else {"FASTSCALAR_CASES": str(CASES)}
    return coverage("run", "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/{room}" for room in rooms), **some)


def places(text: str) -> list[Place | None]:
    """For each line of the C that Cython wrote the line of ours that it was made of.

    Cython says so in a comment before each statement; what a function does at its end is no statement's."""
    found: list[Place | None] = []
    now: Place | None = None
    for line in text.splitlines():
        if begins := re.match(r'\s*/\* "(fastscalar/[^"]+)":(\d+)$', line):
            now = (begins[1], int(begins[2]))
        elif line.startswith("}") or line.strip() == "/* function exit code */" or re.match(r'\s*/\* "', line):
            now = None
        found.append(now)
    return found


def of_cython(counts: Iterable[tuple[str, dict[int, int]]]) -> dict[str, dict[str, Any]]:
    """What coverage.py says of a file, of those that Cython compiled; `counts` are how often each line of C ran."""
    ran: dict[Place, int] = collections.Counter()
    for text, lines in counts:
        made_of = places(text)
        for number, count in lines.items():
            if place := made_of[number - 1]:
                ran[place] += count
    files: dict[str, dict[str, Any]] = {}
    for file in sorted({file for file, _ in ran}):
        there = sorted(line for name, line in ran if name == file)
        missing = [line for line in there if not ran[file, line]]
        summary = {"covered_lines": len(there) - len(missing), "num_statements": len(there)}
        files[str(HERE / "src" / file)] = {"summary": summary, "missing_lines": missing}
    return files


def counted_by_gcc() -> Iterable[tuple[str, dict[int, int]]]:
    for notes in sorted((HERE / "build").rglob("src/fastscalar/**/*.gcno")):
        if "kernels" in notes.parts:
            continue
        command = ["gcov", "--json-format", "--stdout", str(notes)]
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True, timeout=600)
        for file in json.loads(done.stdout)["files"]:
            source = HERE / file["file"]
            if source.suffix == ".c" and source.stem == notes.stem:
                lines: dict[int, int] = collections.Counter()
                for line in file["lines"]:  # of a function that is there several times, each is one
                    lines[line["line_number"]] += line["count"]
                yield source.read_text(encoding="utf-8"), lines


def room_of(file: str) -> str:
    path = pathlib.PurePath(file)
    place = path.parts[path.parts.index("fastscalar") + 1 :]
    return place[0] if len(place) > 1 else "the package's own"


def counted(files: dict[str, Any]) -> dict[tuple[str, str], tuple[int, int]]:
    """By room and kind of file, lines that ran and lines that there are."""
    sums: dict[tuple[str, str], list[int]] = collections.defaultdict(lambda: [0, 0])
    for file, about in files.items():
        kind = "Python" if file.endswith(".py") else "Cython"
        for key in ((room_of(file), kind), ("all", kind)):
            sums[key][0] += about["summary"]["covered_lines"]
            sums[key][1] += about["summary"]["num_statements"]
    return {key: (ran, there) for key, (ran, there) in sums.items()}


def share(ran: int, there: int) -> str:
    return f"{100 * ran / there:.1f} %" if there else "-"


def table(sums: dict[tuple[str, str], tuple[int, int]]) -> str:
    rows = ["| room | lines of Python | run | lines of Cython | run |", "|---|---|---|---|---|"]
    for room in sorted({room for room, _ in sums}, key=lambda room: (room == "all", room)):
        parts = [sums.get((room, kind), (0, 0)) for kind in ("Python", "Cython")]
        rows.append(f"| {room} | " + " | ".join(f"{there:,} | {share(ran, there)}" for ran, there in parts) + " |")
    return "\n".join(rows)


def spans(lines: list[int]) -> str:
    """[1, 2, 3, 7] as "1-3, 7"."""
    found: list[list[int]] = []
    for line in lines:
        if found and line == found[-1][1] + 1:
            found[-1][1] = line
        else:
            found.append([line, line])
    return ", ".join(f"{first}-{last}" if last > first else f"{first}" for first, last in found)


def report() -> int:
    coverage("combine", "--append", "-q")  # what was combined before stays; its parts go
    file = KEPT / "all.json"
    if coverage("json", "-q", "-o", str(file)):
        raise SystemExit("nothing is kept yet: first run rooms, such as `python tools/covered.py engine`")
    files = json.loads(file.read_text(encoding="utf-8"))["files"] | of_cython(counted_by_gcc())
    missing = [f"{os.path.relpath(HERE / name, HERE)}: {spans(about['missing_lines'])}"
               for name, about in sorted(files.items()) if about["missing_lines"]]  # fmt: skip
    (KEPT / "missing.txt").write_text("\n".join(missing) + "\n", encoding="utf-8")
    sums = counted(files)
    print(table(sums))
    parts = [(kind, *sums.get(("all", kind), (0, 0))) for kind in ("Python", "Cython")]
    print("; ".join(f"{share(ran, there)} of {there:,} lines of {kind}" for kind, ran, there in parts))
    return any(ran < LEAST / 100 * there for _, ran, there in parts)


def main(words: list[str]) -> int:
    if not words:
        raise SystemExit(__doc__)
    return report() if words == ["report"] else run(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
