"""The extension modules; everything else stands in pyproject.toml."""

import os
import sys

from Cython.Build import cythonize
from setuptools import Extension, setup

# No fast-math: the bits are the specification's.  No contraction of a * b + c: every kernel set gives the same bits.
FLAGS = ["/O2", "/fp:precise"] if sys.platform == "win32" else ["-O3", "-ffp-contract=off", "-fno-math-errno"]

HEADERS = [f"src/fastscalar/{name}" for name in ("_kernels.h", "_kernels.c", "_core.pxd", "_array.pxd", "_scalar.pxd")]


def extension(name: str, *sources: str) -> Extension:
    files = [f"src/fastscalar/{source}" for source in (f"{name}.pyx", *sources)]
    return Extension(
        f"fastscalar.{name}",
        files,
        include_dirs=["src/fastscalar"],
        depends=HEADERS,
        extra_compile_args=FLAGS,
    )


setup(
    ext_modules=cythonize(
        [
            extension("_core", "_kernels.c", "_kernels_avx2.c", "_kernels_avx512.c"),
            extension("_array"),
            extension("_graph"),
        ],
        include_path=["src"],
        annotate=bool(os.environ.get("FASTSCALAR_ANNOTATE")),
    )
)
