"""Instructions executed by the fixed workloads, counted by valgrind: `make profile`.

Counts do not depend on what else the machine does, and hardly on the machine: a change of one per cent is a change.
What is counted begins after two calls of the workload: what only the first ones do is left out.  Valgrind knows no
AVX-512, so the kernels are those for AVX2 at best.  With names, only these workloads; --keep DIR keeps what
`callgrind_annotate` reads.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import fixed

HERE = pathlib.Path(__file__).resolve().parent
TIMES = {"scalar_ops": 10, "functions": 5, "small_net": 2}  # the others: 1


class FailedError(Exception):
    """A workload that a version cannot do."""


def instructions(name: str, folder: pathlib.Path, source: pathlib.Path | None = None) -> float:
    """Of one unit; source: the folder with the package, if it is not the installed one."""
    times = TIMES.get(name, 1)
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder / name}.callgrind",
               "--toggle-collect=PyObject_Dir", sys.executable, str(HERE / "fixed.py"), name, str(times)]  # fmt: skip
    env = os.environ | {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if source is not None:
        env["PYTHONPATH"] = str(source)
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    found = re.search(r"Collected\s*:\s*(\d+)", done.stderr)
    if done.returncode or not found:
        lines = [line for line in done.stderr.splitlines() if not line.startswith("==")]
        raise FailedError(lines[-1] if lines else f"valgrind ended with status {done.returncode}")
    return int(found.group(1)) / (times * fixed.WORKLOADS[name][1])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="instructions.py", description="Count the instructions of fixed workloads.")
    parser.add_argument("names", nargs="*", metavar="WORKLOAD", help=f"{', '.join(fixed.WORKLOADS)} (default: all)")
    parser.add_argument("--keep", type=pathlib.Path, metavar="DIR", help="keep the profiles here")
    args = parser.parse_args(arguments)
    if unknown := set(args.names) - set(fixed.WORKLOADS):
        parser.error(f"no such workload: {', '.join(sorted(unknown))}")
    if shutil.which("valgrind") is None:
        parser.error("valgrind is not installed")
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{'workload':<14} {'instructions':>14}   unit")
        for name in args.names or fixed.WORKLOADS:
            try:
                print(f"{name:<14} {instructions(name, folder):>14,.1f}   {fixed.WORKLOADS[name][0]}", flush=True)
            except FailedError as error:
                raise SystemExit(f"{name}: {error}") from None
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
