"""The server of the pages: HTTP on the loopback interface, for requests with the token in the address.

Contract
1. It listens on 127.0.0.1 only.  Every address begins with a token of 128 random bits; without it there is nothing to
   see.  A request with another Host (DNS rebinding) or from another Origin is refused before its path is looked at.
2. What changes anything is a POST of JSON of at most `LIMIT` bytes.  Nothing that a page sends is executed, opened as a
   file, or used as a path: static files come from a table.
3. A page asks for news and gets the newest (see `Room.news`), so that a slow page misses some and is not waited for.
4. `close()` ends every thread; a page that is closed, or silent, costs at most a thread until its request times out.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

LIMIT = 64 * 1024  # bytes of a message
CONNECTIONS = 64  # at the same time
PATIENCE = 30.0  # seconds for a request to arrive and for an answer to be taken
STATIC = Path(__file__).with_name("static")
TYPES = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}  # fmt: skip
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors "
)
# Notebooks are pages of another port of this machine.
_NOTEBOOKS = "http://localhost:* http://127.0.0.1:* https://localhost:* https://127.0.0.1:*"


class Refused(ValueError):
    """A message that cannot be obeyed; its text goes back to the page."""


class Room(Protocol):
    """What a server shows."""

    calls: dict[str, Callable[[dict[str, Any]], dict[str, Any]]]
    """By name: the answer to a message; Refused if it makes no sense."""

    def file(self, name: str) -> tuple[str, bytes]:
        """Content type and content of something to keep; KeyError if there is no such file."""


class Server:
    """Serves a room until `close()`.

    url: the address to open, token included.
    """

    def __init__(self, room: Room, port: int = 0, *, framed: bool = False) -> None:
        self.token = secrets.token_urlsafe(16)
        self._http = _Http(room, port, self.token, framed)
        self.port: int = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/{self.token}/"
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.2}, name="fastscalar-play", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening, hang up, and wait for the threads."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)
        self._http.hang_up()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = os.name == "posix"  # on Windows it would let another program listen as well
    request_queue_size = 32

    def __init__(self, room: Room, port: int, token: str, framed: bool) -> None:
        self.room, self.token = room, token.encode()
        self.policy = _POLICY + (_NOTEBOOKS if framed else "'none'")
        self.framed = framed
        self._open: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)
        found = self.server_address[1]
        self.hosts = (f"127.0.0.1:{found}", f"localhost:{found}")
        self.origins = tuple(f"http://{host}" for host in self.hosts)

    def server_bind(self) -> None:
        """As the base class's base: it would look up the name of this machine, which may ask the network."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.allow_reuse_address:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._open) >= CONNECTIONS:
                self.shutdown_request(request)
                return
            thread = threading.Thread(
                target=self._one, args=(request, client_address), name="fastscalar-play-page", daemon=True
            )
            self._open[request] = thread
        thread.start()

    def _one(self, request: Any, client_address: Any) -> None:
        try:
            self.process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._open.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A page that is closed breaks its connection; that is no error."""
        if not isinstance(sys.exc_info()[1], OSError):
            traceback.print_exc()

    def hang_up(self) -> None:
        with self._lock:
            there = list(self._open.items())
        for connection, _ in there:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        end = time.monotonic() + 5
        for _, thread in there:
            thread.join(max(0.0, end - time.monotonic()))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "fastscalar", ""
    timeout = PATIENCE
    disable_nagle_algorithm = True
    server: _Http

    def log_message(self, format: str, *args: Any) -> None: ...

    def do_GET(self) -> None:
        path = self._path()
        if path is None:
            return
        if path in _static():
            kind, content = _static()[path]
            self._answer(HTTPStatus.OK, content, kind)
            return
        try:
            kind, content = self.server.room.file(path)
        except KeyError:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing at this address")
            return
        self._answer(HTTPStatus.OK, content, kind, [("Content-Disposition", f'attachment; filename="{path}"')])

    def do_POST(self) -> None:
        path = self._path()
        if path is None:
            return
        message = self._message()
        if message is None:
            return
        kind, _, name = path.partition("/")
        call = self.server.room.calls.get(name) if kind == "api" else None
        answer: dict[str, Any]
        try:
            if call is None:
                status, answer = HTTPStatus.NOT_FOUND, {"error": f"there is no call {name[:40]!r}"}
            else:
                status, answer = HTTPStatus.OK, call(message)
        except Refused as error:
            status, answer = HTTPStatus.BAD_REQUEST, {"error": str(error)}
        except Exception as error:
            traceback.print_exc()
            status, answer = HTTPStatus.INTERNAL_SERVER_ERROR, {"error": f"unexpected {type(error).__name__}: {error}"}
        self._answer(status, json.dumps(answer, allow_nan=False).encode(), "application/json")

    # --- what is let in ---

    def _path(self) -> str | None:
        """The address behind the token; None if the request was refused."""
        hosts, origins = self.headers.get_all("Host", []), self.headers.get_all("Origin", [])
        if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
            self._refuse(HTTPStatus.FORBIDDEN, "this server answers to 127.0.0.1 and localhost only")
            return None
        if origins and (len(origins) != 1 or origins[0].lower() not in self.server.origins):
            self._refuse(HTTPStatus.FORBIDDEN, "another page asks; only the server's own pages may")
            return None
        path = self.path.partition("?")[0]
        token, slash, rest = path.removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode("latin-1", "replace"), self.server.token):
            self._refuse(HTTPStatus.NOT_FOUND, "open the address that was printed, with all of its token")
            return None
        if not self._from_own_page(rest):
            self._refuse(HTTPStatus.FORBIDDEN, "another page asks; only the server's own pages may")
            return None
        if not slash:
            self._answer(HTTPStatus.PERMANENT_REDIRECT, b"", "text/plain", [("Location", f"/{token}/")])
            return None
        return rest or "index.html"

    def _from_own_page(self, rest: str) -> bool:
        """What browsers say of who asks: a link, or a notebook's frame, may open the page itself and nothing else."""
        site = self.headers.get("Sec-Fetch-Site", "none")
        if site in ("none", "same-origin"):
            return True
        frames = ("document", "iframe") if self.server.framed else ("document",)
        return rest == "" and self.command == "GET" and self.headers.get("Sec-Fetch-Dest") in frames

    def _message(self) -> dict[str, Any] | None:
        """The JSON object that came with a POST; None if the request was refused."""
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdigit()):
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "expected a message with its Content-Length")
            return None
        if len(length) > 9 or int(length) > LIMIT:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {LIMIT:,} bytes")
            return None
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True
            return None
        if self.headers.get_content_type() != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected application/json")
            return None
        try:
            message = json.loads(body, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            self._refuse(HTTPStatus.BAD_REQUEST, "expected JSON")
            return None
        if not isinstance(message, dict):
            self._refuse(HTTPStatus.BAD_REQUEST, "expected a JSON object")
            return None
        return message

    # --- answers ---

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        """What is left of the request is not read, so the connection ends."""
        self.close_connection = True
        self._answer(status, json.dumps({"error": why}).encode(), "application/json")

    def _answer(
        self, status: HTTPStatus, content: bytes, kind: str, more: list[tuple[str, str]] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            ("Content-Security-Policy", self.server.policy),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),  # the token is in the address
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cache-Control", "no-store"),
            *(more or []),
        ):
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_files: dict[str, tuple[str, bytes]] = {}


def _static() -> dict[str, tuple[str, bytes]]:
    """Content type and content of every file of the page, read once."""
    if not _files:
        _files.update({p.name: (TYPES[p.suffix], p.read_bytes()) for p in STATIC.iterdir() if p.suffix in TYPES})
    return _files
