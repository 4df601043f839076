"""`make wheels`: a wheel for each Python at hand, each installed in an empty environment and tried; and the sdist.

    wheels.py [--twice] [--only 3.12] [--out dist]

The interpreters are those of PATH and of pyenv, from 3.11 on.  Where auditwheel, check-wheel-contents and twine are
installed they judge what was built.  --twice: everything is built once more, from another folder, and has to have the
same bytes.  What comes of it is printed as JSON, a line for each file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
VERSIONS = ("3.11", "3.12", "3.13", "3.14", "3.14t")
LARGEST = 3_000_000  # bytes of a wheel

# What a stranger tries first: without a compiler, in an empty folder.
SMOKE = """
import json, platform, sys
import numpy as np
import fastscalar as fs
a, b = fs.Tensor(2), fs.Tensor(3)
x = a * b
(x + x).backward()
assert (a.grad, b.grad) == (6.0, 4.0)
rows = np.linspace(-1, 1, 300).reshape(100, 3)
program = fs.compile(lambda row: (row[0] * row[1]).tanh() + row[2] ** 2)
assert np.allclose(program.map(rows), np.tanh(rows[:, 0] * rows[:, 1]) + rows[:, 2] ** 2)
net = fs.MLP(3, [8, 2], seed=0)
fs.fit(net, rows, (rows[:, 0] > 0).astype(int), epochs=1, progress=False)
net.save("net.npz")
assert np.array_equal(fs.predict(fs.load("net.npz"), rows), fs.predict(net, rows))
print(json.dumps({"python": platform.python_version(), "numpy": np.__version__, "kernels": fs.tape_info()["kernels"]}))
"""


def run(*words: Any, **options: Any) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}\n{done.stdout[-6000:]}")
    return done.stdout


def interpreters(only: str | None) -> dict[str, str]:
    """By version, an interpreter of it that starts: a name alone may be a stand-in that starts nothing."""
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
    found = {}
    for version in VERSIONS:
        if only not in (None, version):
            continue
        numbers = version.rstrip("t")
        folders = sorted(pyenv.glob(f"versions/{numbers}.*" + ("t" if version != numbers else "")))
        for candidate in [shutil.which(f"python{version}"), *(str(folder / "bin" / "python") for folder in folders)]:
            if candidate is None:
                continue
            tried = subprocess.run(
                [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            if tried.stdout.strip() == numbers:
                found[version] = candidate
    return found


def sources(target: pathlib.Path) -> pathlib.Path:
    """A copy of what the repository has, and nothing that a build left."""
    names = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT, timeout=60).splitlines()
    for name in names:
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wheel(python: str, work: pathlib.Path, env: dict[str, str]) -> tuple[pathlib.Path, float]:
    run(python, "-m", "venv", work / "builder", timeout=300)
    start = time.monotonic()
    folder = sources(work / "source")
    run(work / "builder" / "bin" / "python", "-m", "pip", "wheel", "-q", "--no-deps", "-w", work / "wheel", folder,
        env=env, timeout=3600)  # fmt: skip
    (built,) = (work / "wheel").glob("*.whl")
    return built, time.monotonic() - start


def judge(built: pathlib.Path) -> None:
    with zipfile.ZipFile(built) as archive:
        names = archive.namelist()
    needed = "fastscalar/engine/kernels/random.h"  # exported programs have it in them
    sources_in_it = [name for name in names if name.endswith((".c", ".h", ".pyx", ".pxd")) and name != needed]
    if sources_in_it:
        raise SystemExit(f"{built.name} carries sources: {sources_in_it[:5]}")


def tools(built: pathlib.Path) -> dict[str, str]:
    """What others' tools say, of those that are installed."""
    said = {}
    for name, words in (("check-wheel-contents", ()), ("twine", ("check", "--strict"))):
        if shutil.which(name) and (built.suffix == ".whl" or name == "twine"):
            run(name, *words, built, timeout=300)
            said[name] = "passed"
    if shutil.which("auditwheel") and built.suffix == ".whl" and sys.platform == "linux":
        text = run("auditwheel", "show", built, timeout=300)
        said["auditwheel"] = " ".join(text.split()).partition('platform tag: "')[2].partition('"')[0] or "see its text"
    return said


def smoke(python: str, built: pathlib.Path, work: pathlib.Path) -> dict[str, str]:
    """In an environment that has nothing and cannot compile."""
    place = work / "stranger"
    run(python, "-m", "venv", place, timeout=300)
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "FASTSCALAR"))}
    env |= {"PATH": str(place / "bin"), "CC": "/no/compiler", "CXX": "/no/compiler"}
    run(place / "bin" / "python", "-m", "pip", "install", "-q", "--only-binary", ":all:", built, env=env, timeout=900)
    said: dict[str, str] = json.loads(run(place / "bin" / "python", "-c", SMOKE, cwd=work, env=env, timeout=600))
    run(place / "bin" / "fastscalar", "--version", cwd=work, env=env, timeout=120)
    return said


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="wheels.py", description=__doc__.splitlines()[0])
    parser.add_argument("--twice", action="store_true")
    parser.add_argument("--only", choices=VERSIONS)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "dist")
    options = parser.parse_args(words)
    options.out.mkdir(parents=True, exist_ok=True)
    # The time that archives note is that of the commit.
    epoch = run("git", "log", "-1", "--format=%ct", cwd=ROOT, timeout=60).strip()
    env = {**os.environ, "SOURCE_DATE_EPOCH": epoch}
    found = interpreters(options.only)
    for version in VERSIONS:
        if version not in found and options.only in (None, version):
            print(json.dumps({"python": version, "result": "no interpreter here"}), flush=True)
    wrong, total = options.only not in (None, *found), 0
    for python in found.values():
        with tempfile.TemporaryDirectory() as name:
            built, seconds = wheel(python, pathlib.Path(name), env)
            judge(built)
            line: dict[str, Any] = {"file": built.name, "bytes": built.stat().st_size, "seconds": round(seconds)}
            line |= tools(built) | smoke(python, built, pathlib.Path(name))
            if built.stat().st_size > LARGEST:
                line["too large"] = f"more than {LARGEST:,} bytes"
            if options.twice:
                with tempfile.TemporaryDirectory() as other:
                    again, _ = wheel(python, pathlib.Path(other), env)
                    line["same bytes when built again"] = digest(again) == digest(built)
            shutil.copy(built, options.out)
        print(json.dumps(line), flush=True)
        total += line["bytes"]
        wrong |= "too large" in line or not line.get("same bytes when built again", True)
    print(f"{len(found)} wheels of {total:,} bytes, {'wrong' if wrong else 'each tried where no compiler is'}"
          f"{', the same bytes when built again' * (options.twice and not wrong)}")  # fmt: skip
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
