"""The downloader against a server on 127.0.0.1 that misbehaves in every way a mirror or a network can.

The data set is a small one with MNIST's file names: its hashes take the place of MNIST's in the table.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import importlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastscalar import datasets
from fastscalar.datasets import DatasetUnavailable, catalog
from fastscalar.datasets import download as downloader
from fastscalar.datasets.idx import header

# `fastscalar.datasets.mnist` is the function; the module of the same name has to be asked for.
finder = importlib.import_module("fastscalar.datasets.mnist")

FILES = catalog.FILES
SIZES = (40, 16)


def _content() -> dict[str, bytes]:
    rng = np.random.default_rng(1)
    content = {}
    for i, file in enumerate(FILES):
        n = SIZES[i // 2]
        shape = (n,) if "labels" in file else (n, 28, 28)
        content[file] = header(0x08, shape) + rng.integers(0, 256, shape, np.uint8).tobytes()
    return content


RAW = _content()
TINY = dataclasses.replace(
    catalog.DATASETS["mnist"], sizes=SIZES, sha256=tuple(hashlib.sha256(RAW[f]).hexdigest() for f in FILES)
)


# --- a server with a folder for each vice ---


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        _, vice, file = self.path.split("/")
        assert file.endswith(".gz")
        file = file.removesuffix(".gz")
        self.server.requests.append((vice, file))
        self.server.requested(file)
        # The downloader may give up in the middle, as it should.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            getattr(self, vice)(file, gzip.compress(RAW[file], mtime=7))
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass

    def send(self, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(200)
        if length != -1:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def wait(self) -> None:
        self.server.closing.wait(100)

    def right(self, file: str, body: bytes) -> None:
        self.send(body)

    def decompressing(self, file: str, body: bytes) -> None:
        self.send(body, Content_Encoding="gzip")

    def redirect(self, file: str, body: bytes) -> None:
        self.send_response(302)
        self.send_header("Location", f"/right/{file}.gz")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def slow(self, file: str, body: bytes) -> None:
        self.send(b"", len(body))
        for i in range(0, len(body), 1500):
            self.wfile.write(body[i : i + 1500])
            time.sleep(0.01)

    def truncated(self, file: str, body: bytes) -> None:
        self.send(body[: len(body) // 2], len(body))

    def truncated_quietly(self, file: str, body: bytes) -> None:
        self.send(body[: len(body) // 2], -1)

    def empty(self, file: str, body: bytes) -> None:
        self.send(b"")

    def corrupt(self, file: str, body: bytes) -> None:
        middle = len(body) // 2
        self.send(body[:middle] + bytes([body[middle] ^ 0x10]) + body[middle + 1 :])

    def wrong(self, file: str, body: bytes) -> None:
        raw = RAW[file]
        self.send(gzip.compress(raw[:-1] + bytes([raw[-1] ^ 1])))

    def login(self, file: str, body: bytes) -> None:
        self.send(b"<html><body>Welcome to the hotel's network! Please sign in.</body></html>")

    def bomb(self, file: str, body: bytes) -> None:
        self.send(gzip.compress(bytes(30_000_000)))

    def endless(self, file: str, body: bytes) -> None:
        self.send(b"", -1)
        while not self.server.closing.is_set():
            self.wfile.write(bytes(1 << 16))

    def missing(self, file: str, body: bytes) -> None:
        self.send_error(404)

    def failing(self, file: str, body: bytes) -> None:
        self.send_error(500)

    def circular(self, file: str, body: bytes) -> None:
        self.send_response(302)
        self.send_header("Location", self.path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def hanging(self, file: str, body: bytes) -> None:
        self.wait()

    def dripping(self, file: str, body: bytes) -> None:
        self.send(b"", 1_000_000)
        while not self.server.closing.wait(0.02):
            self.wfile.write(b"\x1f")

    def stalling(self, file: str, body: bytes) -> None:
        """Labels are right; of an image file the first half comes."""
        half = len(body) // 2 if "images" in file else len(body)
        self.send(body[:half], len(body))
        if "images" in file:
            self.wait()

    waiting = stalling                           # the same, where time-outs are long

    def dripping_later(self, file: str, body: bytes) -> None:
        """Labels are right; an image file comes by the byte from its middle on, so that no read times out."""
        half = len(body) // 2 if "images" in file else len(body)
        self.send(body[:half], len(body))
        for i in range(half, len(body)):
            self.wfile.write(body[i : i + 1])
            if self.server.closing.wait(0.02):
                break

    def dropped(self, file: str, body: bytes) -> None:
        self.send(body[: len(body) // 2], len(body))
        time.sleep(0.05)
        # Closing with this option sends a reset, as a router does that has forgotten the connection.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.shutdown(socket.SHUT_RD)
        os.close(self.connection.detach())


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str]] = []
        self.closing = threading.Event()
        self.requested: Callable[[str], None] = lambda file: None

    def handle_error(self, request: object, client_address: object) -> None:
        pass

    def url(self, *vices: str) -> str:
        return " ".join(f"http://127.0.0.1:{self.server_address[1]}/{vice}/" for vice in vices)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as it:
        threading.Thread(target=it.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield it
        it.closing.set()
        it.shutdown()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, the small data set, short time-outs; no other place to find anything."""
    monkeypatch.setenv("FASTSCALAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FASTSCALAR_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(finder, "SYSTEM_FOLDERS", ())
    monkeypatch.delenv("XDG_DATA_DIRS", raising=False)
    monkeypatch.setitem(catalog.DATASETS, "mnist", TINY)
    monkeypatch.setattr(downloader, "TIMEOUT", 100.0)
    monkeypatch.setattr(downloader, "STALL", 100.0)
    transfer = downloader._transfer

    def impatient(url: str, *args: Any) -> str | None:
        """Time-outs are short where a mirror is to meet one; the others have time, however busy the machine is."""
        vice, file = url.split("/")[-2:]
        with monkeypatch.context() as short:
            if vice in ("hanging", "dripping"):
                short.setattr(downloader, "TIMEOUT", min(downloader.TIMEOUT, 1.0))
            if vice in ("stalling", "dripping_later") and "images" in file:
                short.setattr(downloader, "STALL", min(downloader.STALL, 1.5))
            return transfer(url, *args)

    monkeypatch.setattr(downloader, "_transfer", impatient)
    return tmp_path / "cache" / "mnist"


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def complete(folder: Path, suffix: str = ".gz") -> bool:
    return names(folder) == sorted(f + suffix for f in FILES) and not any(datasets.verify(folder).values())


# --- mirrors that work ---


@pytest.mark.parametrize("vice", ["right", "redirect", "slow"])
def test_good_mirror(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, vice: str) -> None:
    monkeypatch.setenv("FASTSCALAR_MIRRORS", server.url(vice))
    lines: list[str] = []
    (X, y), (X_test, y_test) = datasets.mnist(report=lines.append)
    assert (X.shape, y.shape, X_test.shape, y_test.shape) == ((40, 28, 28), (40,), (16, 28, 28), (16,))
    assert X.tobytes() == RAW[FILES[0]][16:]
    assert y_test.tobytes() == RAW[FILES[3]][8:]
    assert complete(cache)
    assert [line.startswith("downloading MNIST: ") for line in lines] == [True] * 4 + [False] * 5
    # The second time nothing is asked for.
    before = len(server.requests)
    datasets.mnist(report=lines.append)
    assert lines[9:] == lines[4:9]
    assert len(server.requests) == before
    assert datasets.locate() == cache


def test_mirror_that_decompresses(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Object stores send a .gz file as "Content-Encoding: gzip", and HTTP libraries undo it."""
    monkeypatch.setenv("FASTSCALAR_MIRRORS", server.url("decompressing"))
    assert len(datasets.mnist()[0][0]) == 40
    assert complete(cache, "")


def test_what_has_worked_goes_first(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTSCALAR_MIRRORS", server.url("missing", "right", "failing"))
    datasets.fetch()
    assert [vice for vice, _ in server.requests] == ["missing", "right", "right", "right", "right"]
    assert complete(cache)


def test_the_name_in_a_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTSCALAR_MIRRORS", "http://a/{name}, http://b/x/")
    assert finder._mirrors(catalog.DATASETS["fashion"]) == ["http://a/fashion-mnist/", "http://b/x/"]
    monkeypatch.delenv("FASTSCALAR_MIRRORS")
    assert len(finder._mirrors(catalog.DATASETS["mnist"])) == 3
    assert all(m.startswith("https://") for d in catalog.DATASETS.values() for m in finder._mirrors(d))


# --- mirrors that do not ---

VICES = {
    "truncated": "IncompleteRead",
    "truncated_quietly": "unreadable or truncated",
    "empty": "found 0",
    "corrupt": "unreadable|wrong content",
    "wrong": "expected sha256 [0-9a-f]{64}, found [0-9a-f]{64}",
    "login": "bytes uncompressed, found 73",
    "bomb": "bytes uncompressed, found 262,144 or more",
    "endless": "longer than",
    "missing": "HTTP status 404",
    "failing": "HTTP status 500",
    "circular": "too many redirects",
    "hanging": "no answer within 1 s",
    "dripping": "no answer within 1 s",
    "dropped": "reset by peer",
    "dripping_later": "stalled after [0-9,]+ bytes",
    "stalling": "stalled after [0-9,]+ bytes|timed out",
}


@pytest.mark.parametrize("vice", VICES)
def test_bad_mirror(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, vice: str) -> None:
    """Alone it leaves nothing behind; before a good one it does not matter."""
    monkeypatch.setenv("FASTSCALAR_MIRRORS", server.url(vice))
    with pytest.raises(DatasetUnavailable, match=VICES[vice]) as caught:
        datasets.mnist()
    good = [f + ".gz" for f in FILES if "labels" in f] if vice in ("stalling", "dripping_later") else []
    assert names(cache) == sorted(good)
    assert "\n" not in str(caught.value)

    monkeypatch.setenv("FASTSCALAR_MIRRORS", server.url(vice, "right"))
    assert len(datasets.mnist()[0][0]) == 40
    assert complete(cache)


def test_nobody_listens(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: refuses
        monkeypatch.setenv("FASTSCALAR_MIRRORS", f"http://127.0.0.1:{unused.getsockname()[1]}/")
        with pytest.raises(DatasetUnavailable, match="Connection refused"):
            datasets.fetch()


def test_first_file_fails_everywhere(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file is asked for, the smallest, once from each mirror; the message tells everything."""
    monkeypatch.setenv("FASTSCALAR_MIRRORS", server.url("missing", "failing", "wrong"))
    with pytest.raises(DatasetUnavailable) as caught:
        datasets.mnist()
    assert server.requests == [(vice, "t10k-labels-idx1-ubyte") for vice in ("missing", "failing", "wrong")]
    message = str(caught.value)
    for word in (
        *server.url("missing", "failing", "wrong").split(),
        *FILES,
        str(cache),
        "404",
        "500",
        "sha256",
    ):
        assert word in message
    assert [reason for _, reason in caught.value.tried][:3] == [
        "no such files",
        "HTTP status 404",
        "HTTP status 500",
    ]
    assert isinstance(caught.value, OSError)


def test_later_file_fails_everywhere(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has arrived stays, and the next run asks only for the rest."""
    monkeypatch.setenv("FASTSCALAR_MIRRORS", server.url("stalling"))
    with pytest.raises(DatasetUnavailable, match="t10k-images"):
        datasets.fetch()
    del server.requests[:]
    monkeypatch.setenv("FASTSCALAR_MIRRORS", server.url("right"))
    datasets.fetch()
    assert {file for _, file in server.requests} == {f for f in FILES if "images" in f}


def test_a_silent_network_is_given_up_soon(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a name server nor three mirrors that never answer take longer than their time-outs."""
    assert len(catalog.DATASETS["mnist"].mirrors) * 5.0 < 20
    monkeypatch.setattr(downloader, "TIMEOUT", 0.3)
    monkeypatch.setenv("FASTSCALAR_MIRRORS", server.url("hanging", "hanging", "hanging"))
    start = time.monotonic()
    with pytest.raises(DatasetUnavailable, match=r"no answer within 0\.3 s"):
        datasets.mnist()
    assert time.monotonic() - start < 60

    released = threading.Event()

    def resolve(*args: object, **kwargs: object) -> list[object]:
        released.wait(100)
        raise socket.gaierror("nobody knows")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setenv("FASTSCALAR_MIRRORS", "https://a.invalid/ https://b.invalid/ https://c.invalid/")
    start = time.monotonic()
    with pytest.raises(DatasetUnavailable, match=r"no answer within 0\.3 s"):
        datasets.mnist()
    assert time.monotonic() - start < 60
    released.set()


def test_the_shipped_timeouts() -> None:
    """The tests above shorten them; these are the ones that users get. (5 s for each of three mirrors.)"""
    source = Path(downloader.__file__).read_text(encoding="utf-8")
    assert "\nTIMEOUT = 5.0 " in source
    assert finder.DEADLINE <= 600


def test_deadline(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels have time; half a second after the first image file is asked for it is over."""
    late = 0.0

    def passes(file: str) -> None:
        nonlocal late
        late = 1000.0 if "images" in file else 0.0

    server.requested = passes
    monkeypatch.setattr(downloader, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + late, time=time.time))
    monkeypatch.setattr(finder, "DEADLINE", 1000.5)
    monkeypatch.setenv("FASTSCALAR_MIRRORS", server.url("waiting", "right"))
    start = time.monotonic()
    with pytest.raises(DatasetUnavailable, match=r"time for the download was over.*no time left"):
        datasets.fetch()
    assert time.monotonic() - start < 60


# --- the cache ---


def test_damage_in_the_cache_is_repaired(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTSCALAR_MIRRORS", server.url("right"))
    datasets.fetch()
    packed = cache / f"{FILES[0]}.gz"
    packed.write_bytes(packed.read_bytes()[:-100])
    (cache / FILES[1]).write_bytes(b"\0\0\x08\x01 an uncompressed file is preferred, and this one is broken")
    with pytest.raises(ValueError, match=r"train-images.*gzip"):
        datasets.mnist(download=False)
    del server.requests[:]
    assert len(datasets.mnist()[0][0]) == 40
    assert sorted(file for _, file in server.requests) == sorted(FILES[:2])
    assert complete(cache)

    packed.write_bytes(b"rubbish")
    monkeypatch.setenv("FASTSCALAR_MIRRORS", server.url("missing"))
    with pytest.raises(DatasetUnavailable, match=r"train-images-idx3-ubyte: wrong content.*404"):
        datasets.mnist()


def test_read_only_cache(
    server: Server, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file where the folder should be refuses even the superuser."""
    (tmp_path / "cache").write_text("not a folder")
    monkeypatch.setenv("FASTSCALAR_MIRRORS", server.url("right"))
    with pytest.raises(DatasetUnavailable, match="the cache cannot be written") as caught:
        datasets.mnist()
    assert str(cache) in str(caught.value)
    assert server.requests == []


def test_full_disk(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("FASTSCALAR_MIRRORS", server.url("right"))
    monkeypatch.setattr(downloader.os, "fsync", full)
    with pytest.raises(DatasetUnavailable, match="No space left on device"):
        datasets.mnist()
    assert names(cache) == []


def test_interrupted_by_the_user(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("FASTSCALAR_MIRRORS", server.url("right"))
    monkeypatch.setattr(finder, "problem", judge)
    with pytest.raises(KeyboardInterrupt):
        datasets.fetch()
    assert names(cache) == []


# --- several processes ---

SCRIPT = """
import dataclasses, json, sys
from fastscalar.datasets import catalog, download, fetch
download.TIMEOUT = download.STALL = 100.0
catalog.DATASETS["mnist"] = dataclasses.replace(catalog.DATASETS["mnist"], **json.loads(sys.argv[1]))
fetch()
"""


def start_process() -> subprocess.Popen[bytes]:
    changes = json.dumps({"sizes": SIZES, "sha256": TINY.sha256})
    return subprocess.Popen([sys.executable, "-c", SCRIPT, changes], stderr=subprocess.PIPE)


def wait_for(condition: Callable[[], object], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_killed_half_way(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTSCALAR_MIRRORS", server.url("stalling"))
    process = start_process()
    try:
        wait_for(lambda: any("images" in file for _, file in server.requests))
        wait_for(lambda: list(cache.glob(".*images*.part")))
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=300)
    left = list(cache.glob(".*.part"))
    assert len(left) == 1
    assert [n for n in names(cache) if "images" in n and not n.startswith(".")] == []
    assert datasets.locate() is None

    monkeypatch.setenv("FASTSCALAR_MIRRORS", server.url("right"))
    os.utime(left[0], (1, 1))
    assert len(datasets.mnist()[0][0]) == 40
    assert complete(cache)  # which also says that the temporary file of the dead process is gone


def test_two_at_once(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTSCALAR_MIRRORS", server.url("slow"))
    processes = [start_process(), start_process()]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
    assert complete(cache)


def test_looking_does_not_import_pooch() -> None:
    script = "import sys; from fastscalar import datasets; datasets.locate(); print('pooch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    assert result.stdout == "False\n"
