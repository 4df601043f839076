"""A long run in parts: `long.py NAME --each A B -- COMMAND {}`, or `long.py NAME --tests FILE`: each test is a part.

What comes of a part is a line of JSON in results/NAME-DATE-VERSION.jsonl as soon as the part has ended.  Stopped and
started again with the same version of the files and the same FASTSCALAR_ settings, a run goes on after what had passed.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import pathlib
import shlex
import subprocess
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
TAIL = 4000  # characters of what a part that failed has printed


def version() -> str:
    """The commit; of changed files also what is changed in them; "unknown" without git."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout

    try:
        commit, changes = git("rev-parse", "--short=10", "HEAD").strip(), git("diff", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + (f"+{hashlib.sha256(changes.encode()).hexdigest()[:6]}" if changes else "")


def tests(file: str) -> list[str]:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", file]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    found = [line for line in done.stdout.splitlines() if "::" in line]
    if done.returncode or not found:
        raise SystemExit(done.stdout + done.stderr)
    return found


def run(command: list[str]) -> dict[str, Any]:
    start = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    said = done.stdout.strip()
    return {
        "passed": done.returncode == 0,
        "seconds": round(time.monotonic() - start, 1),
        "said": said.rpartition("\n")[2] if done.returncode == 0 else said[-TAIL:],
    }


def main(words: list[str], folder: pathlib.Path = ROOT / "results") -> int:
    parser = argparse.ArgumentParser(prog="long.py", description=__doc__.splitlines()[0])
    parser.add_argument("name")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--tests", metavar="FILE")
    kind.add_argument("--each", nargs="+", metavar="PART")
    end = words.index("--") if "--" in words else len(words)
    options, command = parser.parse_args(words[:end]), words[end + 1 :]
    if options.each and not command:
        parser.error("say what runs: -- COMMAND {}")
    if options.tests:  # a test is given a day: these runs are long on purpose
        parts = tests(options.tests)
        command = ["env", "FASTSCALAR_TEST_TIMEOUT=86400", sys.executable, "-m", "pytest", "-q", "{}"]
    else:
        parts = options.each
    settings = {key: value for key, value in sorted(os.environ.items()) if key.startswith("FASTSCALAR_")}
    here = version()
    files = sorted(folder.glob(f"{options.name}-*-{here}.jsonl"))
    path = files[-1] if files else folder / f"{options.name}-{datetime.date.today():%Y-%m-%d}-{here}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in path.read_text().splitlines()] if files else []
    passed = {line["part"] for line in known if line["passed"] and line["settings"] == settings}
    failed = []
    for number, part in enumerate(parts, start=1):
        if part in passed:
            continue
        found = {"part": part, **run([word.replace("{}", part) for word in command])}
        now = datetime.datetime.now(datetime.UTC)
        with path.open("a") as results:
            results.write(json.dumps({"time": f"{now:%Y-%m-%d %H:%M}", **found, "settings": settings}) + "\n")
        verdict = "passed" if found["passed"] else "FAILED"
        print(f"{number}/{len(parts)} {part}: {verdict}, {found['seconds']} s", flush=True)
        if not found["passed"]:
            failed.append(part)
            print(found["said"], flush=True)
    again = f"; {len(passed.intersection(parts))} of them earlier" if passed.intersection(parts) else ""
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    print(f"{len(parts) - len(failed)} of {len(parts)} parts passed{again}: {shown}")
    for part in failed:
        print("failed:", shlex.join(word.replace("{}", part) for word in command))
    return bool(failed)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")
