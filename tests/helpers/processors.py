"""The baseline kernels on other processors and C libraries: `python tests/helpers/processors.py` (`make processors`).

kernel_digests.c is compiled with each compiler at hand and run, with qemu where the processor is another one; each
has to print tests/golden/kernels.txt.  The last line says which did.  Debian has gcc-aarch64-linux-gnu,
qemu-user-static and musl-tools.
"""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "fastscalar"
GOLDEN = ROOT / "tests" / "golden" / "kernels.txt"
FLAGS = ["-O2", "-ffp-contract=off", "-fno-math-errno", "-std=gnu11"]
SOURCES = ["engine/kernels/kernels.c", "program/kernels/batch.c"]
X86_SETS = [f"{name}_{kernels}.c" for name in ("engine/kernels/kernels", "program/kernels/batch")
            for kernels in ("avx2", "avx512")]  # fmt: skip
# compiler: more of its command line, what runs its programs
TARGETS: dict[str, tuple[list[str], list[str]]] = {
    "gcc": ([], []),
    "clang": ([], []),
    "musl-gcc": (["-static"], []),
    "aarch64-linux-gnu-gcc": (["-static"], ["qemu-aarch64-static"]),
    "riscv64-linux-gnu-gcc": (["-static"], ["qemu-riscv64-static"]),
}


def printed(compiler: str, folder: pathlib.Path) -> str:
    more, runner = TARGETS[compiler]
    other = compiler.startswith(("aarch64", "riscv64")) or not shutil.which("gcc")
    sources = [PACKAGE / name for name in SOURCES + ([] if other else X86_SETS)]
    includes = [f"-I{PACKAGE / room / 'kernels'}" for room in ("engine", "program")]
    program = folder / compiler
    digests = ROOT / "tests" / "helpers" / "kernel_digests.c"
    command = [compiler, *FLAGS, *includes, str(digests), *map(str, sources), *more, "-lm", "-o", str(program)]
    subprocess.run(command, check=True, timeout=3600)
    return subprocess.run([*runner, str(program)], check=True, capture_output=True, text=True, timeout=600).stdout


def main() -> int:
    expected, same, wrong = GOLDEN.read_text(), [], []
    with tempfile.TemporaryDirectory() as folder:
        for compiler, (_, runner) in TARGETS.items():
            if all(shutil.which(word) for word in (compiler, *runner[:1])):
                found = printed(compiler, pathlib.Path(folder))
                (same if found == expected else wrong).append(compiler)
                for line in sorted(set(found.splitlines()) - set(expected.splitlines())):
                    print(f"{compiler}: {line}")
    count = len(expected.splitlines())
    print(f"{count} digests are the same by {', '.join(same)}" + (f"; not by {', '.join(wrong)}" if wrong else ""))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
