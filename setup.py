"""The extension modules; everything else stands in pyproject.toml."""

import multiprocessing
import os
import sys

from Cython.Build import cythonize
from setuptools import Extension, setup

# No fast-math: the bits are the specification's.  No contraction of a * b + c: every kernel set gives the same bits.
FLAGS = ["/O2", "/fp:precise"] if sys.platform == "win32" else ["-O3", "-ffp-contract=off", "-fno-math-errno"]

# Compiled programs may reassociate, and contract too; still no fast-math.
LANES_FLAGS = [flag for flag in FLAGS if "contract" not in flag] + (
    [] if sys.platform == "win32" else ["-ffp-contract=fast"]
)

# The extensions are translated and compiled at the same time, one on each core.  Translating takes processes, which
# must not run this file once more.
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
FORKS = multiprocessing.get_start_method() == "fork" and CORES > 1

HEADERS = [
    *(f"src/fastscalar/{name}" for name in ("_kernels.h", "_kernels.c", "_lanes.h", "_pool.h")),
    *(f"src/fastscalar/_lanes_{name}.c" for name in ("body", "dense", "exp")),
    *(f"src/fastscalar/_{name}.pxd" for name in ("core", "array", "scalar", "program", "replay")),
]


def extension(name: str, *sources: str, flags: list[str] = FLAGS) -> Extension:
    files = [f"src/fastscalar/{source}" for source in (f"{name}.pyx", *sources)]
    return Extension(
        f"fastscalar.{name}",
        files,
        include_dirs=["src/fastscalar"],
        depends=HEADERS,
        extra_compile_args=flags,
    )


setup(
    ext_modules=cythonize(
        [
            extension("_core", "_kernels.c", "_kernels_avx2.c", "_kernels_avx512.c"),
            extension("_array"),
            extension("_graph"),
            extension("_program"),
            extension("_rewrite"),
            extension("_replay", "_pool.c", "_lanes.c", "_lanes_avx2.c", "_lanes_avx512.c", flags=LANES_FLAGS),
        ],
        include_path=["src"],
        nthreads=CORES if FORKS else 0,
        annotate=bool(os.environ.get("FASTSCALAR_ANNOTATE")),
    ),
    options={"build_ext": {"parallel": CORES}},
)
