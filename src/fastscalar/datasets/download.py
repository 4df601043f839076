"""One verified file from the first of several mirrors that gives it, on networks of every quality.

1. Each attempt runs in a daemon thread which the caller stops waiting for. A socket time-out is not enough: a
   name server that does not answer holds `getaddrinfo` for half a minute, and a host with eight addresses has
   eight connection time-outs one after the other.
2. A mirror has `TIMEOUT` seconds until the first bytes arrive, then `STALL_BYTES` must come in every `STALL`
   seconds, and the caller sets a deadline for everything. A network that drops packets thus costs `TIMEOUT`
   for each mirror.
3. Content counts, not names or headers; the caller judges it. Bytes go into a temporary file beside the final
   one, and only an approved file is renamed to its final name, which is atomic. So a broken file never has a
   final name, and two processes at once do the same work twice without getting in each other's way.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from fastscalar._imports import importing

TIMEOUT = 5.0  # seconds until the first bytes of an answer
STALL, STALL_BYTES = 15.0, 1 << 16  # at least so many bytes in every so many seconds afterwards
STALE = 3600.0  # seconds without a write after which a temporary file belongs to no running download
_CHUNK = 4096  # bytes; the first bytes count as arrived when a chunk is full, so it must be small


class Failed(Exception):
    """No mirror gave the file. `tried` has a pair (URL, reason) for each."""

    def __init__(self, tried: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{url}: {reason}" for url, reason in tried))
        self.tried = tuple(tried)


def download(
    file: str,
    mirrors: Sequence[str],
    folder: Path,
    problem: Callable[[Path], str | None],
    *,
    limit: int,
    deadline: float,
) -> str:
    """Get `file` + ".gz" from one of `mirrors` (URL prefixes) into `folder`, which exists.

    Parameters
    ----------
    file : the name, without ".gz".
    problem : says what is wrong with a file, or None.
    limit : bytes that it may have.
    deadline : a `time.monotonic()`, in seconds.

    A server may decompress what it sends ("Content-Encoding: gzip"), in which case the
    file is stored without ".gz"; the other of the two names is removed.

    Returns
    -------
    The mirror that gave it.

    Raises
    ------
    Failed
        None did.
    OSError
        `folder` cannot be written.
    """
    tried = []
    for mirror in mirrors:
        url = f"{mirror}{file}.gz"
        part = folder / f".{file}.{os.getpid()}-{secrets.token_hex(4)}.part"
        try:
            with open(part, "xb") as out:
                reason = _transfer(url, out, limit, deadline)
                out.flush()
                os.fsync(out.fileno())  # the name must not reach the disk before the content
            reason = reason or problem(part)
            if reason is None:
                with open(part, "rb") as got:
                    packed = got.read(2) == b"\x1f\x8b"
                final, other = (folder / f"{file}.gz", folder / file)[:: 1 if packed else -1]
                os.replace(part, final)
                other.unlink(missing_ok=True)
                return mirror
        finally:
            with contextlib.suppress(OSError):
                part.unlink()
        tried.append((url, reason))
    raise Failed(tried)


def remove_stale(folder: Path) -> None:
    """Delete the temporary files of downloads that were killed."""
    for part in folder.glob(".*.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > STALE:
                part.unlink()


class _Sink:
    """What the downloading thread writes to, and how the waiting thread sees its progress and stops it."""

    def __init__(self, out: IO[bytes], limit: int) -> None:
        self.out, self.limit = out, limit
        self.count = 0
        self.abandoned = False
        self.error: BaseException | None = None
        self.first, self.done = threading.Event(), threading.Event()

    def write(self, chunk: bytes) -> int:
        if self.abandoned:
            raise ConnectionAbortedError("this download is not waited for any more")
        self.count += len(chunk)
        if self.count > self.limit:
            raise ValueError(f"wrong content: longer than {self.limit:,} bytes")
        self.first.set()
        return self.out.write(chunk)

    def flush(self) -> None:
        """Called after every chunk; the file is flushed once, at the end."""


def _transfer(url: str, out: IO[bytes], limit: int, deadline: float) -> str | None:
    """Copy `url` into `out`. Returns None, or why it failed."""
    if time.monotonic() >= deadline:
        return "no time left to try it"
    try:
        # Here, because it takes a quarter of a second and most runs download nothing.
        with importing():
            import pooch
    except ImportError as error:
        return f"the package pooch is needed to download ({error})"
    sink = _Sink(out, limit)

    def work() -> None:
        try:
            # Pooch's own `retrieve` compares the hash of the compressed file, which differs between mirrors.
            pooch.HTTPDownloader(chunk_size=_CHUNK, timeout=(TIMEOUT, STALL))(url, sink, None)
        except BaseException as error:
            sink.error = error
        finally:
            sink.done.set()
            sink.first.set()

    def left(seconds: float) -> float:
        return max(0.0, min(seconds, deadline - time.monotonic()))

    threading.Thread(target=work, daemon=True, name="fastscalar-download").start()
    try:
        if not sink.first.wait(left(TIMEOUT)):
            return f"no answer within {TIMEOUT:g} s"
        seen = 0
        while not sink.done.wait(left(STALL)):
            if time.monotonic() >= deadline:
                return f"not complete when the time for the download was over, after {sink.count:,} bytes"
            if sink.count - seen < STALL_BYTES:
                return f"stalled after {sink.count:,} bytes"
            seen = sink.count
    finally:
        sink.abandoned = True
    return None if sink.error is None else _reason(sink.error)


def _reason(error: BaseException) -> str:
    """The innermost cause in a few words: HTTP libraries wrap it three times, with the URL in each layer."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return "too many redirects" if 300 <= status < 400 else f"HTTP status {status}"
    seen = error
    while (inner := seen.__cause__ or seen.__context__) is not None:
        seen = inner
    if isinstance(seen, OSError) and seen.strerror:
        return seen.strerror
    return f"{type(seen).__name__}: {str(seen)[:200]}" if str(seen) else type(seen).__name__
