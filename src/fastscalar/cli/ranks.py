"""`--mpi`: one command on all processes that `mpiexec -n N fastscalar ...` has started.

Rank 0 has the files and speaks; the others compute, and are silent unless the fault is theirs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

import fastscalar as fs
from fastscalar.cli.console import Stop, cpu, plural, say, users_fault
from fastscalar.cli.runs import Run, folder, source, start
from fastscalar.program.ranks import RankError, Ranks
from fastscalar.program.threads import cores


def all_ranks(what: str) -> Ranks:
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # mpi4py looks for a library when it is imported
        raise Stop(
            f"--mpi needs mpi4py and an MPI: pip install 'fastscalar[mpi]' mpich ({str(error).splitlines()[0]})"
        ) from error
    return Ranks(MPI.COMM_WORLD, what, (KeyboardInterrupt,))


@contextmanager
def one_voice(ranks: Ranks) -> Iterator[None]:
    """Inside, an error is told by the rank whose it is, and ends all.  Errors that all have are rank 0's to tell.

    Who has nothing to tell leaves with status 0: with any other mpiexec would at once kill the one that is still saving
    what there is and telling why, whose status is that of them all.
    """
    try:
        with ranks.ending_together():
            yield
    except RankError as error:
        if ranks.rank == 0 and "differs from rank 0" in str(error):
            raise Stop(str(error)) from None
        raise SystemExit(0) from None
    except Stop as error:
        if not ranks.rank:
            raise
        raise Stop(f"rank {ranks.rank} of {ranks.size} on {ranks.host}: {error}", error.status, error.then) from None
    except (FloatingPointError, KeyboardInterrupt):
        if not ranks.rank:
            raise
        raise SystemExit(0) from None


def train_together(
    args: argparse.Namespace, do: Callable[[Run, argparse.Namespace, Any], int], fit: Callable[..., None]
) -> int:
    """do: trains a Run and tells of it; fit: trains it, and no more; both with a communicator."""
    ranks = all_ranks("train")
    with one_voice(ranks), users_fault(OSError), ExitStack() as stack:
        run: Run | None = None
        with ranks.together():
            if ranks.rank == 0:
                stack.enter_context(folder(args))
                run = start(args)
                run.begin()
                if not args.quiet:
                    say(f"      {plural(ranks.size, 'rank')}")
        asked, data, done = ranks.hear(None if run is None else _what_to_do(run))
        others = argparse.Namespace(**{
            **vars(args), **asked, "data": data, "out": None, "json": None, "resume": False, "overwrite": False,
            "quiet": True, "hidden": asked["hidden"] or None,
        })  # fmt: skip
        hosts = ranks.tell(ranks.host)
        for first in (True, False):              # what is not there yet is downloaded once a machine
            with ranks.together():
                if ranks.rank and (ranks.rank == hosts.index(ranks.host)) == first:
                    run = start(others)
                    run.epochs = [{}] * done
        assert run is not None
        if ranks.rank == 0:
            return do(run, args, ranks.comm)
        if done < asked["epochs"]:
            fit(run, others, None, ranks.comm)
        return 0


def _what_to_do(run: Run) -> list[Any]:
    return [run.asked, source(run.data.about()) or run.asked["data"], len(run.epochs)]


def info_together() -> int:
    """A line for each rank: where it is, and what it may use there."""
    ranks = all_ranks("info")
    with one_voice(ranks):
        here = [ranks.host, cores(), fs.tape_info()["kernels"], fs.__version__, cpu()]
        every = ranks.tell(here)
        hosts = [line[0] for line in every]
        if ranks.rank == 0:
            say(f"{'rank':>4}  {'host':<20} {'ranks there':>11} {'cores':>5}  {'kernels':<9} fastscalar", "bold")
            for rank, (host, count, kernels, version, _) in enumerate(every):
                say(f"{rank:>4}  {host[:20]:<20} {hosts.count(host):>11} {count:>5}  {kernels:<9} {version}")
        return 0


def bench_together(quick: bool) -> dict[str, Any]:
    """Samples/s of the MLP on one rank and on all, and what the sums cost; the results are compared."""
    ranks = all_ranks("bench")
    rows, batch, epochs = (8192, 1024, 2) if quick else (32768, 1024, 4)
    draw = np.random.default_rng(0)
    X = draw.random((rows, 784)) * (draw.random((rows, 784)) < 0.19)
    y = draw.integers(0, 10, rows)

    def trained(comm: Any, **wishes: Any) -> tuple[float, Any]:
        net = fs.MLP(784, [256, 10], seed=0)
        history = fs.fit(net, X, y, batch_size=batch, epochs=epochs, dtype="float32", progress=False, comm=comm,
                         schedule=None, **wishes)  # fmt: skip
        return max(e.samples_per_s for e in history.epochs), net.linears[0].w.numpy()

    with one_voice(ranks):
        found: dict[str, Any] = {"ranks": ranks.size, "batch": batch, "correct": True}
        with ranks.together():                   # the others wait
            alone, weights = trained(None) if ranks.rank == 0 else (0.0, None)
        found["one process"] = alone
        for name, deterministic in (("deterministic", True), ("one Allreduce", False)):
            found[name], other = trained(ranks.comm, deterministic=deterministic)
            found["correct"] &= weights is None or bool(np.allclose(other, weights, rtol=1e-3, atol=1e-4))
        if ranks.rank == 0:
            say(f"MLP 784-256-10, float32, batch {batch}, {plural(ranks.size, 'rank')}; samples/s", "bold")
            for name in ("one process", "deterministic", "one Allreduce"):
                say(f"{name:<14} {found[name]:>10,.0f} {found[name] / alone:>6.2f}x")
            if not found["correct"]:
                say("WRONG: the weights differ")
        return found
