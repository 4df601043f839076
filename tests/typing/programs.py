"""The programs of README and `examples/*.py` under strict type checkers: mypy, and pyright where it is installed.

Run by `make types`.  A block of README is a program of its own, after the imports of the blocks before it; one that
imports nothing goes on where the block before it ended.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def blocks_of(page: Path) -> list[str]:
    """The Python blocks of a page, each able to run alone."""
    programs: list[str] = []
    imports = ""
    for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        own = "".join(re.findall(r"^(?:import|from) .*\n", block, re.MULTILINE))
        if own or not programs:
            programs.append(imports + block)
        else:
            programs[-1] += block
        imports += own
    return programs


def main() -> int:
    programs = [*sorted((ROOT / "examples").glob("*.py")), ROOT / "tests" / "typing" / "public.py"]
    with tempfile.TemporaryDirectory() as folder:
        blocks = blocks_of(ROOT / "README.md")
        assert blocks
        for number, text in enumerate(blocks, start=1):
            programs.append(Path(folder) / f"readme_{number}.py")
            programs[-1].write_text(text, encoding="utf-8")
        names = [str(path) for path in programs]
        settings = Path(folder) / "mypy.ini"
        settings.write_text("[mypy]\nstrict = True\nenable_error_code = deprecated\n", encoding="utf-8")
        status = subprocess.run(
            [sys.executable, "-m", "mypy", "--config-file", str(settings), *names], cwd=ROOT, timeout=600
        ).returncode
        pyright = shutil.which("pyright")
        if pyright is None:
            print("pyright is not installed: only mypy has looked")
        else:
            found = subprocess.run([pyright, "--pythonpath", sys.executable, *names], cwd=ROOT, timeout=600)
            status = status or found.returncode
    return status


if __name__ == "__main__":
    raise SystemExit(main())
