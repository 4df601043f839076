"""Two versions of fastscalar on the fixed workloads, in turn: `make bench-compare REV=HEAD~1`.

Times of different days do not compare, so both versions are built and run now, A B A B, each in a process of its own.
The other version comes out of git, and is kept in build/compare with its name for the next time; this one is the
working tree as it stands, uncommitted changes included, copied and built there too.  The builds need Cython and
setuptools, as `make build` does.  --instructions counts by valgrind what each executes instead: that does not depend
on what else the machine does, and is worse by a few per cent only where the code is.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import fixed
import instructions

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parent
KEPT = TOP / "build" / "compare"
MORE = 1.03  # times the older version's: that is slower


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=TOP, check=True, capture_output=True, text=True).stdout


def checked_out(commit: str) -> pathlib.Path:
    """A commit, built, without a trace in the repository."""
    folder = KEPT / commit
    if not (folder / "built").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        archive = subprocess.Popen(["git", "archive", commit], cwd=TOP, stdout=subprocess.PIPE)
        subprocess.run(["tar", "-x", "-C", str(folder)], stdin=archive.stdout, check=True)
        archive.wait()
        build(folder, commit)
        (folder / "built").touch()
    return folder


def copied() -> pathlib.Path:
    """The files of the working tree that git knows or would take, built: what has not changed is not built again."""
    folder = KEPT / "now"
    names = {name for name in git("ls-files", "-co", "--exclude-standard", "-z").split("\0") if (TOP / name).is_file()}
    for name in names:
        source, target = TOP / name, folder / name
        if not target.exists() or source.stat().st_mtime != target.stat().st_mtime:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    for path in (folder / "src").rglob("*"):
        if path.suffix in (".py", ".pyx", ".pxd", ".h") and path.relative_to(folder).as_posix() not in names:
            path.unlink()
    build(folder, "the working tree")
    return folder


def build(folder: pathlib.Path, what: str) -> None:
    print(f"building {what} ...", flush=True)
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "-j", str(os.cpu_count() or 1)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the build failed:\n{(done.stdout + done.stderr)[-3000:]}")


class Side:
    """A version in its process."""

    def __init__(self, folder: pathlib.Path) -> None:
        env = os.environ | {"PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "fixed.py"), "--serve"],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self, name: str) -> float:
        """Of one unit.  FailedError if this version cannot do it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{name}: a version ended with status {self.process.wait()}")
        try:
            return float(answer)
        except ValueError:
            raise instructions.FailedError(answer.strip()) from None

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def timed(name: str, sides: list[Side], rounds: int) -> tuple[float, float, str]:
    """Microseconds of a unit, then and now, and the quartiles of the rounds' ratios."""
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for side, seconds in zip(sides, times, strict=True):
            seconds.append(side.seconds(name))
    before, after = (statistics.median(seconds) * 1e6 for seconds in times)
    ratios = sorted(a / b for a, b in zip(*times, strict=True))
    return before, after, f"{ratios[len(ratios) // 4]:.2f} .. {ratios[-1 - len(ratios) // 4]:.2f}"


def counted(name: str, folders: list[pathlib.Path], scratch: pathlib.Path) -> tuple[float, float, str]:
    """Instructions of a unit, then and now."""

    def count(folder: pathlib.Path) -> float:
        return instructions.instructions(name, scratch / folder.name, folder / "src")

    with ThreadPoolExecutor() as pool:           # of processes, which do not disturb each other's counts
        before, after = pool.map(count, folders)
    return before, after, ""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="compare.py", description="Time two versions in turn.")
    parser.add_argument("rev", help="a commit, branch or tag")
    parser.add_argument("names", nargs="*", metavar="WORKLOAD", help=f"{', '.join(fixed.WORKLOADS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=11, metavar="N", help="(default: 11)")
    parser.add_argument("--instructions", action="store_true", help="count instructions by valgrind instead")
    args = parser.parse_args(arguments)
    if unknown := set(args.names) - set(fixed.WORKLOADS):
        parser.error(f"no such workload: {', '.join(sorted(unknown))}")
    if args.instructions and shutil.which("valgrind") is None:
        parser.error("valgrind is not installed")
    try:
        commit = git("rev-parse", "--verify", "--short", f"{args.rev}^{{commit}}").strip()
    except subprocess.CalledProcessError:
        parser.error(f"git knows no version {args.rev!r}")
    folders = [checked_out(commit), copied()]
    sides = [] if args.instructions else [Side(folder) for folder in folders]
    slower: list[str] = []
    print(f"\n{'':<14} {commit:>12} {'now':>12} {'then / now':>11}   {'' if args.instructions else 'spread'}")
    with tempfile.TemporaryDirectory() as scratch:
        for folder in folders:
            (pathlib.Path(scratch) / folder.name).mkdir()
        for name in args.names or fixed.WORKLOADS:
            try:
                before, after, spread = (
                    counted(name, folders, pathlib.Path(scratch)) if args.instructions else
                    timed(name, sides, args.rounds))  # fmt: skip
            except instructions.FailedError as error:
                print(f"{name:<14} not done: {error}", flush=True)
                continue
            unit = f"{'instructions' if args.instructions else 'us'}/{fixed.WORKLOADS[name][0]}"
            print(f"{name:<14} {before:>12.5g} {after:>12.5g} {before / after:>9.2f} x   {spread} {unit}", flush=True)
            slower += [f"{name} ({after / before:.2f} x)"] if after > MORE * before else []
    for side in sides:
        side.close()
    print(f"\nSlower by more than 3 %: {', '.join(slower) or 'none'}.")
    if not args.instructions:
        print("Medians of rounds taken in turn; spread: the quartiles of the rounds' ratios.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
