"""A communicator whose ranks are threads of this process; processes of MPI, where there is one."""

import functools
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

LIMIT = 60  # seconds that a rank waits for the others


class Threads:
    """What `fit` needs of a communicator; `of(size, work)`: what work(comm) returns on each rank, or raises."""

    def __init__(self, rank, size, barrier, given, turn):
        self.rank, self.size, self.barrier, self.given, self.turn = rank, size, barrier, given, turn

    def Get_rank(self):
        return self.rank

    def Get_size(self):
        return self.size

    def _all(self, mine):
        self.given[self.rank] = np.array(mine)
        self.turn.release()                      # one rank at a time runs between two exchanges, in any order
        try:
            self.barrier.wait(LIMIT)
            every = list(self.given)
            self.barrier.wait(LIMIT)
        finally:
            self.turn.acquire()
        return every

    def Allreduce(self, mine, out):
        out[...] = sum(self._all(mine))

    def Bcast(self, array, root):
        array[...] = self._all(array)[root]

    def Allgatherv(self, mine, out):
        out[0][...] = np.concatenate(self._all(mine))

    def Allgather(self, mine, out):
        assert len(mine) * self.size == len(out)
        self.Allgatherv(mine, (out, None))

    @classmethod
    def of(cls, size, work):
        barrier, given, found, turn = threading.Barrier(size), [None] * size, [None] * size, threading.Lock()

        def run(rank):
            with turn:
                try:
                    found[rank] = work(cls(rank, size, barrier, given, turn))
                except BaseException as error:
                    found[rank] = error

        threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
            assert not thread.is_alive()
        return found


def mpiexec(ranks):
    """The command that starts so many processes; skips the test where there is none."""
    if os.environ.get("FASTSCALAR_STRESS"):
        pytest.skip("processes of their own, in stress mode")
    pytest.importorskip("mpi4py", reason="no MPI: pip install mpi4py mpich")
    program = shutil.which("mpiexec", path=f"{sys.prefix}/bin") or shutil.which("mpiexec")
    if program is None:
        pytest.skip("no MPI: pip install mpi4py mpich")
    return [program, *(OPEN_MPI if is_open_mpi(program) else ()), "-n", str(ranks)]


# More ranks than cores, which give way to each other while they wait, also where the tests are the superuser's.
OPEN_MPI = ("--oversubscribe", "--mca", "mpi_yield_when_idle", "1", "--allow-run-as-root")


@functools.cache
def is_open_mpi(program):
    """MPICH polls: more ranks than cores take 20 ms for each sum."""
    done = subprocess.run([program, "--version"], text=True, capture_output=True, timeout=LIMIT, check=False)
    return "Open MPI" in done.stdout or "Open MPI" in done.stderr
