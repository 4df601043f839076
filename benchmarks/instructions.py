"""Instructions executed by the fixed workloads, counted by valgrind: `make profile`.

Counts do not depend on what else the machine does, and hardly on the machine: a change of one per cent is a change.
Each workload runs in two processes of different length; the difference leaves out the start of Python.  Valgrind knows
no AVX-512, so the kernels are those for AVX2 at best.  With names, only these workloads; --keep DIR keeps what
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
TIMES = {"scalar_ops": 10, "functions": 5, "small_net": 2, "fit_mlp": 1, "fit_minibatch": 1}  # the others: 1


def instructions(name: str, times: int, folder: pathlib.Path) -> int:
    output = folder / f"{name}.{times}.callgrind"
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}"]
    command += [sys.executable, str(HERE / "fixed.py"), name, str(times)]
    env = os.environ | {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    found = re.search(r"Collected\s*:\s*(\d+)", done.stderr)
    if done.returncode or not found:
        raise SystemExit(f"{name}: valgrind ended with status {done.returncode}\n{done.stderr[-2000:]}")
    return int(found.group(1))


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
            unit, units, _ = fixed.WORKLOADS[name]
            times = TIMES.get(name, 1)
            # Once more than nothing: what only the first call does is left out too.
            few, many = (instructions(name, n, folder) for n in (2, 2 + times))
            print(f"{name:<14} {(many - few) / (times * units):>14,.1f}   {unit}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
