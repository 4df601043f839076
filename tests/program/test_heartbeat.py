"""Ranks that notice that another has ended, or does not answer any more; and that slow ones are alive."""

import contextlib
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading

import pytest

from fastscalar.program import _beats, heartbeat
from fastscalar.program.ranks import Ranks
from ranks import Threads, mpiexec

pytestmark = pytest.mark.skipif(not _beats.AVAILABLE, reason="no signs of life on this system")
LIMIT = 60


class Killable(Threads):
    """Ranks that can be ended."""

    def Abort(self, code):
        raise AssertionError("ended")


# --- signs of life --------------------------------------------------------------------------------


def test_signs_of_life_need_no_interpreter():
    """They come while Python holds its lock.  On a busy machine the thread may not get to run: once it has to."""
    here, there = socket.socketpair()
    stop, stopping = socket.socketpair()
    beats = threading.Thread(target=_beats.beat, args=([here.fileno()], stop.fileno(), 5), daemon=True)
    beats.start()
    there.setblocking(False)
    counts = []
    for _ in range(100):
        select.select([there], [], [], LIMIT)
        there.recv(1 << 16)
        sum(range(10**7))                        # one instruction of the interpreter, some tenths of a second
        try:
            counts.append(len(there.recv(1 << 16)))
        except BlockingIOError:
            counts.append(0)
        if counts[-1] > 5:
            break
    stopping.send(b".")
    beats.join(LIMIT)
    assert not beats.is_alive()
    for one in (here, there, stop, stopping):
        one.close()
    assert counts[-1] > 5, counts


# --- looks ----------------------------------------------------------------------------------------


class Alone:
    """What a Heart knows of its ranks, and where it says how they end."""

    size, rank, what, host = 2, 0, "test", "here"

    def tell(self, message):
        return [message] * 2


@pytest.fixture
def heart(monkeypatch):
    """A Heart with the other end of its only link; what it says goes to a queue."""
    said = queue.Queue()
    monkeypatch.setattr(heartbeat, "EVERY", 0.05)
    monkeypatch.setattr(heartbeat.Heart, "_end", lambda self, rank, why: said.put((rank, why)))
    here, there = socket.socketpair()
    made = heartbeat.Heart(Alone(), {1: here}, 0.5)
    made.said = said
    yield made, there
    made.stop()
    there.close()


def test_a_rank_that_ends_is_named(heart):
    made, there = heart
    there.close()
    assert made.said.get(timeout=LIMIT) == (1, "has ended")


def test_a_silent_rank_is_named(heart):
    made, _there = heart
    assert made.said.get(timeout=LIMIT) == (1, "has not answered for 0.5 s")


def test_a_rank_that_says_that_it_leaves_may(heart):
    made, there = heart
    there.send(heartbeat.BEAT + heartbeat.LEAVING)
    there.close()
    made.threads[1].join(LIMIT)                  # there is no other to look at
    assert not made.threads[1].is_alive()
    assert made.said.empty()


def connected_with_each_other():
    """The links of rank 0, and that of rank 1, as they are made."""
    found = queue.Queue()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address, token = listening.getsockname(), bytes(heartbeat.TOKEN)

        def connect():
            found.put(heartbeat._connected([address[0]], address[1], token, 1))

        threading.Thread(target=connect, daemon=True).start()
        return heartbeat._accepted(listening, token, 1), found.get(timeout=LIMIT)


@pytest.mark.dear
def test_a_rank_that_leaves_at_once_has_not_ended(monkeypatch):
    """Its word is neither kept back for the answer to its last sign of life, nor lost with the other's, unread."""
    said = queue.Queue()
    monkeypatch.setattr(heartbeat.Heart, "_end", lambda self, rank, why: said.put((rank, why)))
    staying = []
    for k in range(150):
        links, link = connected_with_each_other()
        stays, leaves = heartbeat.Heart(Alone(), links, 8.0), heartbeat.Heart(Alone(), {0: link}, 8.0)
        threading.Event().wait(0.002 * (k % 5))
        leaves.stop()
        staying.append(stays)
    for stays in staying:                        # each looks at its link after a second
        stays.threads[1].join(LIMIT)             # there is no other to look at
        stays.stop()
    assert said.empty(), said.get()


def test_both_hear_each_other():
    def work(comm):
        with heartbeat.beating(Ranks(comm)):
            return [len(some) for some in comm._all([len(heartbeat._beating)])]

    before = threading.active_count()
    assert Threads.of.__func__(Killable, 3, work) == [[1] * 3] * 3
    assert heartbeat._beating == []
    assert threading.active_count() == before


def test_a_stranger_is_not_let_in():
    token = bytes(range(heartbeat.TOKEN))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        with (
            socket.create_connection(address) as stranger,
            socket.create_connection(address) as silent,
        ):
            stranger.sendall(bytes(heartbeat.TOKEN + 4))
            silent.shutdown(socket.SHUT_WR)
            rank = heartbeat._connected(["127.0.0.1"], address[1], token, 1)
            links = heartbeat._accepted(listening, token, 1)
    assert list(links) == [1]
    for link in (rank, *links.values()):
        link.close()


def test_where_a_rank_cannot_be_reached_that_is_said(monkeypatch):
    real = heartbeat._connected
    monkeypatch.setattr(heartbeat, "_connected", lambda *given: None if given[-1] == 2 else real(*given))

    def work(comm):
        with heartbeat.beating(Ranks(comm)):
            return len(heartbeat._beating)

    with pytest.warns(RuntimeWarning, match=r"ranks \[2\] cannot reach rank 0"):
        assert Threads.of.__func__(Killable, 3, work) == [0] * 3


def test_the_silence_that_is_asked_for(monkeypatch):
    def work(comm):
        return heartbeat._silence(Ranks(comm))

    for text, seconds in (("3.5", 3.5), ("0", 0.0), ("-1", 0.0)):
        monkeypatch.setenv("FASTSCALAR_HEARTBEAT", text)
        assert Threads.of.__func__(Killable, 2, work) == [seconds] * 2
    monkeypatch.setenv("FASTSCALAR_HEARTBEAT", "often")
    assert all("FASTSCALAR_HEARTBEAT" in str(error) for error in Threads.of.__func__(Killable, 2, work))
    assert Threads.of(2, work) == [0.0] * 2      # without an Abort there is nothing that could be done


# --- MPI ------------------------------------------------------------------------------------------

STOPPED = """
    import os, pathlib, signal, sys
    import numpy as np
    from mpi4py import MPI
    import fastscalar as fs
    comm = MPI.COMM_WORLD
    pathlib.Path(f"pid{comm.rank}").write_text(str(os.getpid()))

    def loss(p, y):
        if comm.rank == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGSTOP)
        return fs.cross_entropy(p, y)

    X = np.random.default_rng(0).normal(size=(200, 6))
    if sys.argv[2] == "fit":
        fs.fit(fs.MLP(6, [5, 2], seed=0), X, (X[:, 0] > 0).astype(int), loss=loss, compile=False, comm=comm,
               epochs=10**6, batch_size=200, progress=False)
    else:
        f = fs.compile(lambda x: loss(x, 0))
        f.map(X, comm=comm)
"""


@pytest.mark.parametrize(("rank", "what"), [(0, "fit"), (1, "fit"), (1, "map")])
def test_mpi_ends_when_a_rank_is_stopped(tmp_path, rank, what):
    (tmp_path / "work.py").write_text(textwrap.dedent(STOPPED))
    command = [*mpiexec(2), sys.executable, tmp_path / "work.py", str(rank), what]
    environment = {**os.environ, "FASTSCALAR_HEARTBEAT": "5"}
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
                          env=environment, start_new_session=True) as run:  # fmt: skip
        try:
            _, said = run.communicate(timeout=2 * LIMIT)
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
            for place in tmp_path.glob("pid*"):  # a stopped one would stay
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(place.read_text()), signal.SIGKILL)
    assert run.returncode != 0
    assert f"rank {rank} of 2 on" in said
    assert "has not answered for 5 s" in said
