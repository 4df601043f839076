"""The extension modules; everything else stands in pyproject.toml."""

import os
import sys

from Cython.Build import cythonize
from setuptools import Extension, setup

# No fast-math: the bits are the specification's.  No contraction of a * b + c: every kernel set gives the same bits.
flags = ["/O2", "/fp:precise"] if sys.platform == "win32" else ["-O3", "-ffp-contract=off", "-fno-math-errno"]

core = Extension(
    "fastscalar._core",
    ["src/fastscalar/_core.pyx"]
    + [f"src/fastscalar/_kernels{target}.c" for target in ("", "_avx2", "_avx512")],
    include_dirs=["src/fastscalar"],
    depends=["src/fastscalar/_kernels.h", "src/fastscalar/_kernels.c", "src/fastscalar/_core.pxd", "src/fastscalar/_scalar.pxd"],
    extra_compile_args=flags,
)

setup(ext_modules=cythonize([core], include_path=["src"], annotate=bool(os.environ.get("FASTSCALAR_ANNOTATE"))))
