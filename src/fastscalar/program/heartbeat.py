"""Ranks that look whether the others are still there, while they wait for each other.

A rank that has ended, or was stopped, would let the others wait for ever.  So rank 0 hears from each of them every
second, and each of them from rank 0, over sockets of their own.  Whoever has not heard for some seconds says so and
ends all.  Signs of life come from a thread that needs no interpreter: long work is no death, however little Python gets
to run.  Silence is counted in looks, not read from a clock: a rank that was stopped along with the others, or did not
come to look, takes none of them for dead.

The boundary: knows sockets and a communicator; what ranks have to say to each other stands in `ranks`.
"""

from __future__ import annotations

import hmac
import os
import secrets
import selectors
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fastscalar._imports import importing
from fastscalar._warnings import warn
from fastscalar.program import _beats

EVERY = 1.0  # seconds between two signs of life
SILENCE = 8.0  # seconds after which a rank is taken for dead; FASTSCALAR_HEARTBEAT has another number, 0: never
REACH = 5.0  # seconds in which another rank has to be reached at the start
TOKEN = 16
BEAT, LEAVING = b"b", b"q"
_beating: list[Any] = []  # communicators that are looked after


@contextmanager
def beating(ranks: Any) -> Iterator[None]:
    """Context in which a rank that does not answer any more ends all: where there is an `Abort` to end them with."""
    silence = _silence(ranks)
    if not silence:
        yield
        return
    links = _links(ranks)
    if not links:
        yield
        return
    _beating.append(ranks.comm)
    heart = Heart(ranks, links, silence)
    try:
        yield
    finally:
        _beating.remove(ranks.comm)
        heart.stop()


def _silence(ranks: Any) -> float:
    """In seconds; 0: not looked after, or not once more.  The same on all ranks."""
    if ranks.size == 1 or not _beats.AVAILABLE or not hasattr(ranks.comm, "Abort"):
        return 0.0
    if any(comm is ranks.comm for comm in _beating):
        return 0.0
    asked = os.environ.get("FASTSCALAR_HEARTBEAT", str(SILENCE))
    with ranks.together():
        try:
            mine = max(0.0, float(asked))
        except ValueError:
            raise ValueError(f"FASTSCALAR_HEARTBEAT: expected a number of seconds, got {asked!r}") from None
    return float(ranks.hear(mine))


class Heart:
    """The threads of a rank that give signs of life and look for those of others.  links: by rank, a socket."""

    def __init__(self, ranks: Any, links: dict[int, socket.socket], silence: float) -> None:
        self.ranks, self.links = ranks, links
        self.looks = max(2, round(silence / EVERY))
        self.hosts = ranks.tell(ranks.host)
        self.until, self._stop = socket.socketpair()     # read by both threads when it is time to end
        to = [link.fileno() for link in links.values()]
        beats = threading.Thread(target=_beats.beat, args=(to, self.until.fileno(), int(EVERY * 1000)), daemon=True)
        self.threads = [beats, threading.Thread(target=self._look, daemon=True)]
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """Leave, and say so: the others may have more to do."""
        for link in self.links.values():
            with suppress(OSError):
                link.sendall(LEAVING)
        self._stop.send(b".")
        for thread in self.threads:
            thread.join()
        for link in self.links.values():
            with suppress(OSError):              # closed with signs of life unread it is reset, and the word lost
                while link.recv(4096):
                    pass
        for link in (*self.links.values(), self.until, self._stop):
            link.close()

    def _look(self) -> None:
        silent = dict.fromkeys(self.links, 0)
        with selectors.DefaultSelector() as selector:
            selector.register(self.until, selectors.EVENT_READ, -1)
            for rank, link in self.links.items():
                link.setblocking(False)
                selector.register(link, selectors.EVENT_READ, rank)
            while silent:
                heard: set[int] = set()
                end = time.monotonic() + EVERY
                while (left := end - time.monotonic()) > 0:
                    for key, _ in selector.select(left):
                        rank = key.data
                        if rank < 0:
                            return
                        said = _read(self.links[rank])
                        if said and LEAVING not in said:
                            heard.add(rank)
                            continue
                        selector.unregister(key.fileobj)
                        del silent[rank]
                        if not said:
                            self._end(rank, "has ended")
                for rank in silent:
                    silent[rank] = 0 if rank in heard else silent[rank] + 1
                    if silent[rank] >= self.looks:
                        self._end(rank, f"has not answered for {self.looks * EVERY:g} s")

    def _end(self, rank: int, why: str) -> None:
        """All end with a line that says why."""
        ranks = self.ranks
        print(f"{ranks.what}: rank {rank} of {ranks.size} on {self.hosts[rank]} {why}", file=sys.stderr, flush=True)
        last = threading.Timer(2.0, os._exit, (1,))      # should an Abort wait for who does not answer
        last.daemon = True
        last.start()
        ranks.comm.Abort(1)
        os._exit(1)


def _read(link: socket.socket) -> bytes:
    """What is there; empty: the other end is gone."""
    try:
        return link.recv(4096)
    except BlockingIOError:
        return BEAT
    except OSError:
        return b""


# --- who is connected with whom -------------------------------------------------------------------


def _links(ranks: Any) -> dict[int, socket.socket]:
    """Of rank 0 a socket to each other rank, of these one to rank 0; none if not all can reach it, which is said."""
    here = _network()
    networks = ranks.tell(here)
    listening: socket.socket | None = None
    meeting = None
    links: dict[int, socket.socket] = {}
    with ranks.together():
        if ranks.rank == 0:
            alone = all(network == here for network in networks)
            listening = socket.create_server(("127.0.0.1" if alone else "", 0), backlog=ranks.size)
            meeting = [["127.0.0.1"] if alone else _addresses(), listening.getsockname()[1], secrets.token_hex(TOKEN)]
    addresses, port, token = ranks.hear(meeting)
    if ranks.rank:
        link = _connected(addresses, port, bytes.fromhex(token), ranks.rank)
        if link is not None:
            links[0] = link
    reached = ranks.tell(ranks.rank == 0 or bool(links))
    if listening is not None:
        with listening:
            if all(reached):
                links = _accepted(listening, bytes.fromhex(token), ranks.size - 1)
    if all(ranks.tell(bool(links))):
        return links
    for link in links.values():
        link.close()
    if ranks.rank == 0:
        lost = [rank for rank, there in enumerate(reached) if not there]
        warn(f"{ranks.what}: ranks {lost} cannot reach rank 0 at {addresses}, port {port}: should a rank be stopped, "
             "the others will wait for it", RuntimeWarning)  # fmt: skip
    return {}


def _without_delay(link: socket.socket) -> socket.socket:
    """Each byte goes at once: one that waits for the answer to the last one is lost if its process ends."""
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


def _connected(addresses: list[str], port: int, token: bytes, rank: int) -> socket.socket | None:
    for address in addresses:
        with suppress(OSError):
            link = _without_delay(socket.create_connection((address, port), REACH / len(addresses)))
            link.sendall(token + struct.pack("!I", rank))
            return link
    return None


def _accepted(listening: socket.socket, token: bytes, count: int) -> dict[int, socket.socket]:
    """Those that have connected, which they all have; strangers are not let in."""
    links: dict[int, socket.socket] = {}
    listening.settimeout(REACH)
    with suppress(OSError):
        while len(links) < count:
            link, _ = listening.accept()
            link.settimeout(REACH)
            said = b""
            with suppress(OSError):
                while len(said) < TOKEN + 4 and (more := link.recv(TOKEN + 4 - len(said))):
                    said += more
            if len(said) == TOKEN + 4 and hmac.compare_digest(said[:TOKEN], token):
                links[struct.unpack("!I", said[TOKEN:])[0]] = _without_delay(link)
            else:
                link.close()
    return links if len(links) == count else {}


def _network() -> str:
    """The same for processes that reach each other at 127.0.0.1."""
    with suppress(OSError):
        return f"{socket.gethostname()} {os.stat('/proc/self/ns/net').st_ino}"
    return socket.gethostname()


def _addresses() -> list[str]:
    """Where this host may be reached."""
    found = [socket.gethostname(), socket.getfqdn()]
    with suppress(OSError):
        found += socket.gethostbyname_ex(socket.gethostname())[2]
    with suppress(OSError, ImportError):
        with importing():
            import fcntl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            for _, name in socket.if_nameindex():
                with suppress(OSError):          # 0x8915: SIOCGIFADDR, the interface's address
                    answer = fcntl.ioctl(any_socket.fileno(), 0x8915, struct.pack("256s", name.encode()[:15]))
                    found.append(socket.inet_ntoa(answer[20:24]))
    return [address for address in dict.fromkeys(found) if not address.startswith("127.")]
