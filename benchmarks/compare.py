"""Two versions of fastscalar on the fixed workloads, in turn: `make bench-compare REV=HEAD~1`.

Times of different days do not compare, so both versions are built and run now, A B A B, each in a process of its own.
The other version comes out of git into a temporary folder; this one is the working tree as it stands, uncommitted
changes included, copied and built beside it.  The builds need Cython and setuptools, as `make build` does.
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

import fixed

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parent


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=TOP, check=True, capture_output=True, text=True).stdout


def checked_out(rev: str, folder: pathlib.Path) -> None:
    """The files of a commit, without a trace in the repository."""
    folder.mkdir()
    archive = subprocess.Popen(["git", "archive", rev], cwd=TOP, stdout=subprocess.PIPE)
    subprocess.run(["tar", "-x", "-C", str(folder)], stdin=archive.stdout, check=True)
    archive.wait()


def copied(folder: pathlib.Path) -> None:
    """The files of the working tree that git knows or would take."""
    for name in git("ls-files", "-co", "--exclude-standard", "-z").split("\0"):
        source = TOP / name
        if name and source.is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def build(folder: pathlib.Path) -> None:
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
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
        """Of one unit."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{name}: a version ended with status {self.process.wait()}")
        return float(answer)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="compare.py", description="Time two versions in turn.")
    parser.add_argument("rev", help="a commit, branch or tag")
    parser.add_argument("names", nargs="*", metavar="WORKLOAD", help=f"{', '.join(fixed.WORKLOADS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=11, metavar="N", help="(default: 11)")
    args = parser.parse_args(arguments)
    if unknown := set(args.names) - set(fixed.WORKLOADS):
        parser.error(f"no such workload: {', '.join(sorted(unknown))}")
    try:
        commit = git("rev-parse", "--verify", "--short", f"{args.rev}^{{commit}}").strip()
    except subprocess.CalledProcessError:
        parser.error(f"git knows no version {args.rev!r}")
    with tempfile.TemporaryDirectory() as temporary:
        then, now = pathlib.Path(temporary) / "then", pathlib.Path(temporary) / "now"
        checked_out(commit, then)
        copied(now)
        for folder, what in ((then, commit), (now, "the working tree")):
            print(f"building {what} ...", flush=True)
            build(folder)
        sides = [Side(then), Side(now)]
        print(f"\n{'':<14} {commit:>12} {'now':>12} {'then / now':>11}   spread")
        for name in args.names or fixed.WORKLOADS:
            unit = fixed.WORKLOADS[name][0]
            times: list[list[float]] = [[], []]
            for _ in range(args.rounds):
                for side, seconds in zip(sides, times, strict=True):
                    seconds.append(side.seconds(name))
            before, after = (statistics.median(seconds) * 1e6 for seconds in times)
            ratios = sorted(a / b for a, b in zip(*times, strict=True))
            low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
            figures = f"{name:<14} {before:>12.4g} {after:>12.4g} {before / after:>9.2f} x"
            print(f"{figures}   {low:.2f} .. {high:.2f}  us/{unit}", flush=True)
        for side in sides:
            side.close()
    print("\nMedians of rounds taken in turn; spread: the quartiles of the rounds' ratios.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
