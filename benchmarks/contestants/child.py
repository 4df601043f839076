"""A contestant in a process of its own, with its own settings for threads.

JAX reads them once when it starts, and two frameworks in one process may fight over the same runtime library.
"""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from contestants.base import Contestant

# With KEEP, which is not for timing, a process that is done with waits for the next contestant with its settings:
# to import a framework takes longer than to check it.
KEEP = False
IDLE: list[tuple[dict[str, str], subprocess.Popen[bytes]]] = []


class InChild(Contestant):
    """`inner` names the class that the child has, "module:class"; it is called as this one is."""

    inner: ClassVar[str]

    @classmethod
    def settings(cls, threads: int) -> dict[str, str]:
        """Environment variables for the child."""
        return {}

    def start(self) -> None:
        scaled = replace(self.work, white=1.0)  # the rows here are
        self.start_child(scaled, self.X, self.y, self.batch, self.threads)

    def start_child(self, *arguments: Any) -> None:
        self.process = spawn(self.settings(self.threads))
        self.ask(self.inner, *arguments)

    def ask(self, name: str, *arguments: Any) -> Any:
        return ask(self.process, name, *arguments)

    def run(self, steps: int) -> Any:
        return self.ask("run", steps)

    def processor_seconds(self) -> float:
        return self.ask("processor_seconds")

    def close(self) -> None:
        process = self.__dict__.pop("process", None)
        if KEEP and process is not None and process.poll() is None:
            ask(process, "forget")
            IDLE.append((self.settings(self.threads), process))
        elif process is not None:
            close(process)

    def __del__(self) -> None:
        self.close()


def spawn(settings: dict[str, str]) -> subprocess.Popen[bytes]:
    for number, (others, process) in enumerate(IDLE):
        if others == settings:
            del IDLE[number]
            return process
    here = str(Path(__file__).resolve().parent.parent)
    paths = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "contestants.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": paths} | settings,
    )


def ask(process: subprocess.Popen[bytes], *request: Any) -> Any:
    """Call a method there, or make the object first; an exception there is one here."""
    assert process.stdin is not None
    assert process.stdout is not None
    pickle.dump(request, process.stdin, protocol=5)
    process.stdin.flush()
    try:
        error, answer = pickle.load(process.stdout)
    except EOFError:
        raise RuntimeError(f"the process for {request[0]} ended with status {process.wait()}") from None
    if error is not None:
        raise RuntimeError(error)
    return answer


def close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None and not process.stdin.closed:
        process.stdin.close()
        process.wait(30)
        if process.stdout is not None:
            process.stdout.close()


def serve() -> None:
    """Make an object, then call its methods, until the other end is closed."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the peer prints must not get between the answers
    target: Any = None
    while True:
        try:
            name, *arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            if name == "forget":
                target = answer = None
            elif target is None:
                module, _, kind = name.partition(":")
                target = getattr(importlib.import_module(module), kind)(*arguments)
                answer = None
            else:
                answer = time.process_time() if name == "processor_seconds" else getattr(target, name)(*arguments)
            reply = (None, answer)
        except Exception as error:
            reply = (f"{type(error).__name__}: {error}", None)
        pickle.dump(reply, answers, protocol=5)
        answers.flush()


if __name__ == "__main__":
    serve()
