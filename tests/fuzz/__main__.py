"""`python -m fuzz`: many random programs, in processes that may crash; what differs is printed, and made short.

    python -m fuzz --count 100000 --processes 2 --state ../build/fuzz.json

It can be stopped and goes on where it was: the state file has the next seed, the counts and what was found.  When the
count is reached, a dated line is added to the results file next to it.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import json
import pathlib
import re
import select
import sys
import time

from .generate import write
from .minimise import minimise
from .workers import Worker

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"


class State:
    """What has been done, in a file."""

    def __init__(self, path: pathlib.Path, first: int) -> None:
        self.path, self.next, self.counts, self.found = path, first, collections.Counter[str](), {}
        self.pending: list[int] = []  # sent, and not answered when it was stopped
        if path.exists():
            known = json.loads(path.read_text())
            self.next, self.counts, self.found = known["next"], collections.Counter(known["counts"]), known["found"]
            self.pending = known["pending"]

    def save(self, pending: list[int]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partly = self.path.with_suffix(".part")
        known = {"next": self.next, "pending": pending, "counts": self.counts, "found": self.found}
        partly.write_text(json.dumps(known, indent=1))
        partly.replace(self.path)


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000, help="programs in all, those of earlier runs included")
    parser.add_argument("--first", type=int, default=0, help="the first seed of a new run")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--state", type=pathlib.Path, default=pathlib.Path("build/fuzz.json"))
    parser.add_argument("--seconds", type=float, default=60.0, help="for one program; more is a hang")
    parser.add_argument("--each", type=int, default=3, help="of each kind of difference, how many are made short")
    parser.add_argument("--show", type=int, metavar="SEED", help="print the program of a seed, judge it, and end")
    parser.add_argument("--short", action="store_true", help="with --show: make it short")
    options = parser.parse_args()
    if options.show is not None:
        return show(options.show, options.seconds, options.short)
    state = State(options.state, options.first)
    start, saved = time.monotonic(), time.monotonic()
    workers = [Worker(options.seconds) for _ in range(options.processes)]
    busy: dict[Worker, tuple[int, float]] = {}
    again = list(state.pending)
    done_before = sum(state.counts.values())
    try:
        while True:
            for worker in workers:
                if worker not in busy and (again or state.next < options.first + options.count):
                    seed = again.pop() if again else state.next
                    state.next = max(state.next, seed + 1)
                    worker.send(seed)
                    busy[worker] = seed, time.monotonic()
            if not busy:
                break
            files = {w.process.stdout: w for w in busy if w.process is not None}
            ready, _, _ = select.select(list(files), [], [], 1.0)
            late = [w for w, (_, since) in busy.items() if time.monotonic() - since > options.seconds]
            for worker in {files[f] for f in ready} | set(late):
                seed = busy.pop(worker)[0]
                count(state, seed, worker.receive())
            if time.monotonic() - saved > 5:
                saved = time.monotonic()
                state.save([*again, *(seed for seed, _ in busy.values())])
                if sys.stderr.isatty():
                    done = sum(state.counts.values())
                    rate = (done - done_before) / (saved - start)
                    print(f"\r{done:,} programs, {rate:.0f}/s: {summary(state)}", end="", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on", file=sys.stderr)
    finally:
        state.save([*again, *(seed for seed, _ in busy.values())])
        for worker in workers:
            worker.stop()
    finished = not busy and not again and state.next >= options.first + options.count
    if finished:
        write_out(state, options)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M")
    line = f"{now} UTC: {sum(state.counts.values()):,} programs from seed {options.first}: {summary(state)}"
    print("\n" + line)
    if finished:
        with open(options.state.with_suffix(".txt"), "a") as results:
            results.write(line + "\n")
    return 1 if state.found else 0 if finished else 130


def summary(state: State) -> str:
    names = {
        "agrees": "agree",
        "unstable": "unstable under rounding",
        "useless": "not to be judged",
        "differs": "differ",
    }
    return ", ".join(f"{state.counts.get(status, 0):,} {words}" for status, words in names.items())


def count(state: State, seed: int, verdict: dict[str, str]) -> None:
    state.counts[verdict["status"]] += 1
    if verdict["status"] == "differs":
        state.found[str(seed)] = verdict
        print(f"\nseed {seed}: {verdict['kind']}: {verdict['detail'][:200]}", flush=True)


def write_out(state: State, options: argparse.Namespace) -> None:
    """Make what was found short, some of each kind, and keep it beside the state."""
    for kind in dict.fromkeys(found["kind"] for found in state.found.values()):
        seeds = [seed for seed, found in state.found.items() if found["kind"] == kind]
        for seed in seeds[: options.each]:
            path = options.state.parent / "fuzz" / f"{re.sub('[^A-Za-z]+', '_', kind)}_{seed}.py"
            if path.exists():
                continue
            text = shortened(write(int(seed)), kind, options.seconds)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"# {kind} differed\n{text}")
            print(f"\n--- seed {seed}, {kind}: {path}\n{text}", flush=True)


def shortened(text: str, kind: str, seconds: float) -> str:
    with Worker(10.0 if kind == "hang" else min(seconds, 20.0)) as worker:

        def fails(candidate: str) -> bool:
            verdict = worker.judge(candidate)
            return verdict["status"] == "differs" and verdict["kind"] == kind

        return minimise(text, fails, 30.0) if fails(text) else text


def show(seed: int, seconds: float, short: bool) -> int:
    text = write(seed)
    with Worker(seconds) as worker:
        verdict = worker.judge(text)
    if short and verdict["status"] == "differs":
        text = shortened(text, verdict["kind"], seconds)
    print(text)
    print(verdict["status"], verdict["kind"], verdict["detail"])
    return int(verdict["status"] == "differs")


if __name__ == "__main__":
    sys.exit(main())
