"""A judge in a process of its own: it may crash, or hang, and the case that did it is known.

As a script this is that process: a JSON line with a text or a seed comes in, a JSON line with the verdict goes out.
"""

from __future__ import annotations

import json
import os
import pathlib
import select
import subprocess
import sys
import warnings
from dataclasses import asdict
from typing import Any

TESTS = pathlib.Path(__file__).resolve().parent.parent
SECONDS = 60.0  # for one case; most take a hundredth of one


class Worker:
    """`judge` of texts and seeds; a crash or a hang is a verdict, and the next case gets a new process."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self.case: Any = None
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=30)
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.close()
            self.process.stdout.close()
            self.process = None

    def send(self, case: Any) -> None:
        self.case = case
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-m", "fuzz.workers"], cwd=TESTS, text=True, bufsize=1,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            assert self.process.stdout is not None
            if self.process.stdout.readline() != "ready\n":
                raise RuntimeError(f"{sys.executable} -m fuzz.workers does not start in {TESTS}")
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(case) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # `receive` says that it is gone

    def receive(self) -> dict[str, str]:
        assert self.process is not None
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], self.seconds)
        line = self.process.stdout.readline() if ready else ""
        if line:
            verdict = json.loads(line)
            if verdict["kind"] == "tape":
                self.stop()
            return verdict
        if not ready:
            self.stop()
            hang = {"status": "differs", "kind": "hang", "detail": f"no answer in {self.seconds:g} s"}
            if isinstance(self.case, dict) or self.judge({"plainly": self.case})["kind"] != "hang":
                return hang
            return {"status": "useless", "kind": "case", "detail": "the plain calls end as little"}
        code = self.process.wait(timeout=30)
        self.stop()
        return {"status": "differs", "kind": "crash", "detail": f"the interpreter died: {code}"}

    def judge(self, case: Any) -> dict[str, str]:
        self.send(case)
        return self.receive()


def main() -> None:
    warnings.simplefilter("ignore")
    from fastscalar.program import _replay

    from .generate import write
    from .judge import judge

    _replay._always_share(True)  # batches are short here, and are to use the threads that they are given
    print("ready", flush=True)
    for line in sys.stdin:
        case, plainly = json.loads(line), False
        if isinstance(case, dict):
            case, plainly = case["plainly"], True
        verdict = judge(write(case) if isinstance(case, int) else case, plainly)
        print(json.dumps(asdict(verdict)), flush=True)
        if verdict.kind == "tape":
            return  # what is judged on it says nothing


if __name__ == "__main__":
    main()
