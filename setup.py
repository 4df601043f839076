"""The extension modules; everything else stands in pyproject.toml."""

import multiprocessing
import os
import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# No fast-math: the bits are the specification's.  No contraction of a * b + c: every kernel set gives the same bits.
# No warnings: to look for them is a sixth of compiling, and a test does, for more of them (tests/engine/test_warnings).
FLAGS = (
    ["/O2", "/fp:precise", "/std:c11"]  # C11 for `restrict`
    if sys.platform == "win32"
    else ["-O1", "-ftree-vectorize", "-g0", "-Wno-all", "-Wno-sign-compare", "-ffp-contract=off", "-fno-math-errno"]
)

# Kernels and eager scalars (11 % fewer instructions) have -O3.  For the others it took three times as long to compile
# them, and gave 0.2 %; 3 % of those of a short `fit`.  Lost: -O2 for the kernels (29 % in the step of a GPT).
FASTEST = ("kernels", "_core.c")  # a folder, or a file

# Compiled programs may reassociate, and contract too; still no fast-math.  They contract in the sets that x86-64 has
# beside "baseline", which has no fused a * b + c on any processor, so that it gives the same bits on all of them.
BATCH_FLAGS = [flag for flag in FLAGS if "contract" not in flag] + (
    []
    if sys.platform == "win32"
    else ["-ffp-contract=fast" if platform.machine().lower() in ("x86_64", "amd64", "i686") else "-ffp-contract=off"]
)

# What finds faults, for builds in folders of their own (tools/instrumented.py): FASTSCALAR_CHECKED=1 checks bounds,
# None and the invariants; FASTSCALAR_SANITIZE=address,undefined (or thread) lets GCC or Clang watch every access;
# FASTSCALAR_COUNTED=1 lets GCC count which lines of C run (tools/covered.py).
def asked(name: str) -> bool:
    return os.environ.get(name, "0") not in ("", "0")


CHECKED, COUNTED = asked("FASTSCALAR_CHECKED"), asked("FASTSCALAR_COUNTED")
SANITIZE = os.environ.get("FASTSCALAR_SANITIZE", "")
MACROS = [("FASTSCALAR_CHECKED", "1")] if CHECKED else []
# Of a wheel nobody reads the symbols: a sixth of its bytes.  What is built in place keeps them, for profilers.
WHEEL = "bdist_wheel" in sys.argv
STRIP = ["-Wl,-s"] if WHEEL and sys.platform.startswith("linux") and not SANITIZE else []
WATCHED = [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-O1", "-g"] if SANITIZE else []
WATCHED += ["--coverage", "-O0", "-fprofile-update=atomic"] if COUNTED else []

# One extension on each core is translated, and then compiled: the longest first, so that none is left alone at the end.
# Translating takes processes, which must be forked: they must not run this file once more.
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
FORKS = sys.platform.startswith("linux") and CORES > 1

SOURCE = Path("src/fastscalar")
# Cython's own functions (memoryviews, keywords, ...) stand in one module, not in each: a quarter of a wheel less.
UTILITY = "fastscalar._utility"
HEADERS = [str(path) for kind in ("*.pxd", "*.h", "kernels/*.c") for path in sorted(SOURCE.rglob(kind))]


def extension(name: str, *sources: str, flags: list[str] = FLAGS) -> Extension:
    """`name` below the package, with dots; `sources` as paths from the package's folder."""
    pyx = SOURCE / (name.replace(".", "/") + ".pyx")
    return Extension(
        f"fastscalar.{name}",
        [str(pyx), *(str(SOURCE / source) for source in sources)],
        include_dirs=[str(SOURCE / room / "kernels") for room in ("engine", "program")],
        depends=HEADERS,
        define_macros=MACROS,
        extra_compile_args=flags + WATCHED,
        extra_link_args=WATCHED[:1] + STRIP,
    )


def kernels(room: str, *names: str) -> list[str]:
    return [f"{room}/kernels/{name}.c" for name in names]


# Cython 3.3 releases an element of a list comprehension, or of `[*a, f(b)]`, twice where the list gets no memory to
# grow: here, and on the caller's way out, which takes it for its own unless all went well.
RELEASED_TWICE = "int result = PyList_Append(list, x);\n    Py_DECREF(x);"
RELEASED_ONCE = "int result = PyList_Append(list, x);\n    if (result == 0) Py_DECREF(x);"


EXTENSIONS = [
    # First those that take longest: the other core has the rest.
    extension(
        "program._replay",
        *kernels("program", "pool", "batch", "batch_avx2", "batch_avx512"),
        flags=BATCH_FLAGS,
    ),
    extension("_core", *kernels("engine", "kernels", "kernels_avx2", "kernels_avx512")),
    extension("program._lower"),
    extension("program._trace"),
    extension("engine._array"),
    extension("engine._array_ops"),
    extension("engine._axes"),
    extension("engine._images"),
    extension("engine._traced"),
    extension("engine._operands"),
    extension("engine._step"),
    extension("engine._rules"),
    extension("engine._inspect"),
    extension("engine._anomaly"),
    extension("engine._functions"),
    extension("engine._lock"),
    extension("engine._modes"),
    extension("engine._random"),
    extension("engine.testing"),
    extension("program._graph"),
    extension("program._items"),
    extension("program._plan"),
    extension("program._one_row"),
    extension("program._called"),
    extension("program._iterate"),
    extension("program._data"),
    extension("program._beats"),
    extension("datasets._moved"),
    Extension(
        UTILITY,
        [str(SOURCE / "_utility.c")],  # Cython writes it
        extra_compile_args=FLAGS + WATCHED,
        extra_link_args=WATCHED[:1] + STRIP,
    ),
]


def mended(sources: list[str]) -> list[str]:
    for path in map(Path, sources):
        text = path.read_text(encoding="utf-8")
        if RELEASED_TWICE in text:
            path.write_text(text.replace(RELEASED_TWICE, RELEASED_ONCE), encoding="utf-8")
    return sources


TRANSLATING = {
    "shared_utility_qualified_name": UTILITY,
    "include_path": ["src"],
    "build_dir": "build/checked-c" if CHECKED else None,
    "compiler_directives": dict.fromkeys(("boundscheck", "nonecheck", "initializedcheck"), CHECKED),
    "annotate": bool(os.environ.get("FASTSCALAR_ANNOTATE")),
}


class Build(build_ext):
    """Translates each extension before it is compiled; what `FASTEST` names is optimised more than the rest."""

    def build_extensions(self) -> None:
        if sys.platform != "win32":
            compile_one = self.compiler._compile

            def compile_source(object, source, kind, options, flags, defined):
                if not {Path(source).name, Path(source).parent.name}.isdisjoint(FASTEST):
                    flags = ["-O3", *flags[1:]]
                compile_one(object, source, kind, options, flags, defined)

            self.compiler._compile = compile_source
        with ProcessPoolExecutor(CORES, multiprocessing.get_context("fork")) if FORKS else nullcontext() as translators:
            if translators is None:
                for ext in self.extensions:
                    (one,) = cythonize([ext], force=self.force, **TRANSLATING)
                    ext.sources = mended(one.sources)
            else:
                translators.submit(int).result() # they are forked while this process has one thread
            self.translators = translators
            super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        if self.translators is not None:
            # Of this file they know nothing: it is no module where an installer runs it.
            (one,) = self.translators.submit(cythonize, [ext], force=self.force, **TRANSLATING).result()
            ext.sources = mended(one.sources)
        super().build_extension(ext)


setup(cmdclass={"build_ext": Build}, ext_modules=EXTENSIONS, options={"build_ext": {"parallel": CORES}})
