"""`fit` on several processes: the same bits for any number of them, and errors that all of them learn of."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import fastscalar as fs
from fastscalar.program.ranks import RankError, Ranks, Tree, blocks_of, whole_nodes
from ranks import Threads, is_open_mpi
from ranks import mpiexec as started

ROOT = pathlib.Path(__file__).parents[2]
DATA = np.random.default_rng(0)
X = DATA.normal(size=(150, 6))
Y = (X[:, 0] + X[:, 1] > 0).astype(int)


def weights(net):
    return np.concatenate([p.numpy().ravel() for p in net.parameters()])


def trained(comm, optimizer=lambda: fs.SGD(lr=0.1), X=X, y=Y, seed=0, **wishes):
    net = fs.MLP(6, [5, 2], seed=comm.Get_rank())            # rank 0's is where all begin
    wishes = {"epochs": 3, "batch_size": 70, "progress": False, "seed": seed, **wishes}
    history = fs.fit(net, X, y, optimizer=optimizer(), comm=comm, **wishes)
    return weights(net), history.loss


def same(found):
    for error in found:
        if isinstance(error, BaseException):
            raise error
    for bits, losses in found[1:]:
        np.testing.assert_array_equal(bits, found[0][0])
        assert losses == found[0][1]
    return found[0]


# --- sums -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 16])
def test_a_tree_has_the_same_bits_whoever_sums_what(count, size):
    blocks = np.random.default_rng(count).normal(size=(count, 4)) * 10.0 ** np.arange(count)[:, None]

    def summed(comm):
        tree, ranks = Tree(4, float), Ranks(comm)
        return tree.over_ranks(ranks, count, tree.own_nodes(ranks, count, lambda b: blocks[b].copy())).copy()

    alone = Threads.of(1, summed)[0]
    for found in Threads.of(size, summed):
        np.testing.assert_array_equal(found, alone)
    np.testing.assert_allclose(alone, blocks.sum(axis=0))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_nodes_of_a_rank_are_its_blocks(size):
    for count in range(20):
        for rank in range(size):
            first, stop = blocks_of(count, rank, size)
            covered = [b for first, width in whole_nodes(first, stop) for b in range(first, first + width)]
            assert [b for b in covered if b < stop] == list(range(first, stop))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_every_block_has_one_rank(size):
    for count in range(12):
        blocks = [b for rank in range(size) for b in range(*blocks_of(count, rank, size))]
        assert blocks == list(range(count))


# --- bits -----------------------------------------------------------------------------------------

OPTIMIZERS = {
    "SGD": lambda: fs.SGD(lr=0.1),
    "momentum": lambda: fs.SGD(lr=0.1, momentum=0.9, weight_decay=1e-3),
    "Adam": lambda: fs.Adam(lr=0.01),
    "AdamW": lambda: fs.AdamW(lr=0.01, clip_norm=0.5),
    "RMSprop": lambda: fs.RMSprop(lr=0.01),
}


@pytest.mark.parametrize("wishes", [
    {}, {"dtype": "float32"}, {"compile": False}, {"batch_size": 1, "epochs": 1}, {"batch_size": 150},
    {"schedule": "cosine"}, {"shuffle": False}, {"class_weight": "balanced"}, {"first_epoch": 2},
])  # fmt: skip
def test_any_number_of_ranks_takes_the_same_steps(wishes):
    alone = same(Threads.of(1, lambda comm: trained(comm, **wishes)))
    for size in (2, 3, 5):
        bits, losses = same(Threads.of(size, lambda comm: trained(comm, **wishes)))
        np.testing.assert_array_equal(bits, alone[0])
        assert losses == alone[1]


@pytest.mark.parametrize("compile", [True, False])
def test_samples_that_are_moved_at_random(compile):
    """By all ranks alike."""

    def moved(X, epoch):
        return X + np.random.default_rng(epoch).normal(size=X.shape) * 0.1

    def work(comm, **more):
        return trained(comm, augment=moved, compile=compile, **more)

    alone = same(Threads.of(1, work))
    for size in (2, 3):
        bits, losses = same(Threads.of(size, work))
        np.testing.assert_array_equal(bits, alone[0])
        assert losses == alone[1]
    assert any(alone[0] != same(Threads.of(1, trained))[0])
    same(Threads.of(2, lambda comm: work(comm, local_steps=2)))
    bad = Threads.of(2, lambda comm: trained(comm, augment=lambda X, epoch: X[comm.rank :]))
    assert "augment" in str(bad[1])
    assert "rank 1 of 2" in str(bad[0])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser(name):
    alone = same(Threads.of(1, lambda comm: trained(comm, OPTIMIZERS[name])))
    bits, losses = same(Threads.of(3, lambda comm: trained(comm, OPTIMIZERS[name])))
    np.testing.assert_array_equal(bits, alone[0])
    assert losses == alone[1]
    net = fs.MLP(6, [5, 2], seed=0)
    fs.fit(net, X, Y, optimizer=OPTIMIZERS[name](), epochs=3, batch_size=70, progress=False)
    np.testing.assert_allclose(bits, weights(net), rtol=1e-9, atol=1e-12)


def test_one_block_is_what_fit_does_without_others():
    bits, losses = same(Threads.of(2, lambda comm: trained(comm, OPTIMIZERS["Adam"], batch_size=64)))
    net = fs.MLP(6, [5, 2], seed=0)
    history = fs.fit(net, X, Y, optimizer=OPTIMIZERS["Adam"](), epochs=3, batch_size=64, progress=False)
    np.testing.assert_array_equal(bits, weights(net))
    np.testing.assert_allclose(losses, history.loss, rtol=1e-14)


def test_without_the_order_of_blocks_the_numbers_agree_to_rounding():
    alone = same(Threads.of(1, trained))
    for size in (2, 3):
        bits, losses = same(Threads.of(size, lambda comm: trained(comm, deterministic=False)))
        np.testing.assert_allclose(bits, alone[0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(losses, alone[1], rtol=1e-12)


def test_rows_that_no_recording_fits():
    """A branch that only some rows take is looked at by all ranks."""

    class Branching(fs.MLP):
        def __call__(self, x):
            h = super().__call__(x)
            return h * 2.0 if x[0] > 1.5 else h

    def work(comm):
        net = Branching(6, [5, 2], seed=0)
        history = fs.fit(net, X, Y, optimizer=fs.SGD(lr=0.1), epochs=2, batch_size=70, progress=False, comm=comm)
        return weights(net), history.loss

    alone = same(Threads.of(1, work))
    bits, losses = same(Threads.of(3, work))
    np.testing.assert_allclose(bits, alone[0], rtol=1e-10)
    np.testing.assert_allclose(losses, alone[1], rtol=1e-10)


def test_ranks_whose_first_rows_take_other_ways():
    """What they recorded first has its gradients in other places."""

    class Branching(fs.MLP):
        def __call__(self, x):
            h = super().__call__(x)
            if x[0] > 0.0:
                w = self.linears[0].w            # numbers of all rows that the other way does not have
                for j in range(6):
                    for k in range(5):
                        h = h + w[j][k].sin() * w[j][k].exp() * 0.01
            return h

    def work(comm, compile=True):
        mine = np.flatnonzero((X[:, 0] > 0.0) == bool(comm.rank))
        net = Branching(6, [5, 2], seed=0)
        history = fs.fit(net, X[mine], Y[mine], optimizer=fs.SGD(lr=0.1), epochs=2, batch_size=50, progress=False,
                         comm=comm, shard="local", compile=compile)  # fmt: skip
        return weights(net), history.loss

    bits, losses = same(Threads.of(2, work))
    plain, expected = same(Threads.of(2, lambda comm: work(comm, False)))
    np.testing.assert_allclose(bits, plain, rtol=1e-10)
    np.testing.assert_allclose(losses, expected, rtol=1e-10)


@pytest.mark.parametrize("cuts", [(40, 90), (0, 75), (150, 150), (10, 10)])
def test_shards_of_different_sizes_and_an_empty_one(cuts):
    def work(comm):
        mine = slice((0, *cuts)[comm.rank], (*cuts, 150)[comm.rank])
        return trained(comm, X=X[mine], y=Y[mine], shard="local", epochs=5)

    bits, losses = same(Threads.of(3, work))
    assert losses[-1] < losses[0]
    again, _ = same(Threads.of(3, work))
    np.testing.assert_array_equal(bits, again)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_goes_on_with_another_number_of_ranks(name, dtype):
    """Rank 0 alone has what was kept of it."""
    through = same(Threads.of(2, lambda comm: trained(comm, OPTIMIZERS[name], epochs=4, dtype=dtype)))
    wishes = {"epochs": 4, "batch_size": 70, "progress": False, "dtype": dtype}
    kept = {}

    class Enough:
        def on_epoch(self, epoch):
            if epoch.epoch == 2:
                raise fs.StopTraining("half")

    def first(comm):
        net, optimizer = fs.MLP(6, [5, 2], seed=0), OPTIMIZERS[name]()
        fs.fit(net, X, Y, optimizer=optimizer, comm=comm, callbacks=[Enough()], **wishes)
        if comm.rank == 0:
            kept.update(weights=[p.numpy() for p in net.parameters()], state=optimizer.state_dict())

    def second(comm):
        net, optimizer = fs.MLP(6, [5, 2], seed=10 + comm.rank), OPTIMIZERS[name]()
        if comm.rank == 0:
            for p, value in zip(net.parameters(), kept["weights"], strict=True):
                p.data = value
            optimizer.bind(net.parameters())
            optimizer.load_state_dict(kept["state"])
        fs.fit(net, X, Y, optimizer=optimizer, comm=comm, first_epoch=3, **wishes)
        return weights(net), []

    assert Threads.of(3, first) == [None] * 3
    bits, _ = same(Threads.of(2, second))
    np.testing.assert_array_equal(bits, through[0])


@pytest.mark.parametrize("shard", [None, "local"])
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_a_checkpoint_is_rank_zero_s(name, shard, tmp_path):
    """Other ranks have no file; the run goes on with another number of ranks, unless each has rows of its own."""

    def work(comm, place, enough=None, epochs=4):
        mine = slice(comm.rank, None, comm.Get_size()) if shard else slice(None)
        net = fs.MLP(6, [5, 2], seed=comm.rank)

        def stop(epoch):
            if epoch.epoch == enough:
                raise OSError("disk full")

        path = tmp_path / place if comm.rank == 0 else tmp_path / "elsewhere" / "file"
        history = fs.fit(net, X[mine], Y[mine], optimizer=OPTIMIZERS[name](), epochs=epochs, batch_size=70, comm=comm,
                         progress=False, checkpoint=path, callbacks=[stop], shard=shard)  # fmt: skip
        return weights(net), history.loss

    through = same(Threads.of(2, lambda comm: work(comm, "through")))
    assert all("disk full" in text for text in messages(Threads.of(2, lambda comm: work(comm, "half", 3))))
    for _ in range(2):                           # the second time there is nothing left to do
        bits, losses = same(Threads.of(2 if shard else 3, lambda comm: work(comm, "half")))
        np.testing.assert_array_equal(bits, through[0])
        assert losses == through[1]
    said = messages(Threads.of(2, lambda comm: work(comm, "half", epochs=5)))
    assert said[0].startswith("ValueError: fit: checkpoint")
    assert "epochs=4" in said[1]


# --- local steps ----------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 3, 100])
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_ranks_that_meet_every_few_steps(steps, name):
    def work(comm):
        return trained(comm, OPTIMIZERS[name], local_steps=steps, batch_size=20, epochs=8)

    bits, losses = same(Threads.of(3, work))
    assert losses[-1] < losses[0]
    again, _ = same(Threads.of(3, work))
    np.testing.assert_array_equal(bits, again)


def test_one_local_step_of_plain_sgd_is_the_step_of_all():
    """The mean of w - lr g_r is w - lr times the mean of g_r, where the parts are of one size."""
    wishes = {"batch_size": 50, "shuffle": False, "schedule": None, "X": X[:100], "y": Y[:100]}
    local, _ = same(Threads.of(2, lambda comm: trained(comm, local_steps=1, **wishes)))
    together, _ = same(Threads.of(2, lambda comm: trained(comm, **wishes)))
    np.testing.assert_allclose(local, together, rtol=1e-10, atol=1e-13)


def test_local_steps_of_one_rank_are_fit():
    bits, losses = same(Threads.of(1, lambda comm: trained(comm, local_steps=1, batch_size=20)))
    net = fs.MLP(6, [5, 2], seed=0)
    history = fs.fit(net, X, Y, optimizer=fs.SGD(lr=0.1), epochs=3, batch_size=20, progress=False)
    np.testing.assert_array_equal(bits, weights(net))
    np.testing.assert_allclose(losses, history.loss, rtol=1e-12)


def test_local_steps_with_shards():
    def work(comm):
        mine = slice((0, 40)[comm.rank], (40, 150)[comm.rank])
        return trained(comm, X=X[mine], y=Y[mine], shard="local", local_steps=2, batch_size=20, epochs=6)

    _, losses = same(Threads.of(2, work))
    assert losses[-1] < losses[0]


def test_local_steps_are_counted():
    assert "local_steps" in messages(Threads.of(1, lambda comm: trained(comm, local_steps=0)))[0]


# --- rank 0 looks on ------------------------------------------------------------------------------


def test_callbacks_are_rank_zero_s_and_all_follow():
    seen = []

    def work(comm):
        net = fs.MLP(6, [5, 2], seed=0)
        optimizer = fs.SGD(lr=0.1)

        def look(epoch):
            seen.append((comm.rank, epoch.epoch, epoch.accuracy is not None))
            optimizer.lr = 0.05
            if epoch.epoch == 2:
                raise fs.StopTraining("enough")

        history = fs.fit(net, X, Y, optimizer=optimizer, epochs=5, batch_size=70, progress=False, comm=comm,
                         on_epoch=look, validation_data=(X, Y))  # fmt: skip
        assert optimizer.lr == 0.05
        assert history.stopped == "enough"
        return weights(net), [e.accuracy for e in history.epochs]

    _, accuracies = same(Threads.of(3, work))
    assert len(accuracies) == 2
    assert None not in accuracies
    assert seen == [(0, 1, True), (0, 2, True)]


def test_early_stopping_gives_all_ranks_the_best_weights():
    def work(comm):
        net = fs.MLP(6, [5, 2], seed=0)
        stop = fs.EarlyStopping(patience=2)
        history = fs.fit(net, X, Y, optimizer=fs.SGD(lr=0.5), epochs=40, batch_size=70, progress=False, comm=comm,
                         callbacks=[stop], validation_data=(X, 1 - Y))  # fmt: skip
        return weights(net), [len(history.epochs)]

    _, (epochs,) = same(Threads.of(2, work))
    assert epochs < 40


# --- what goes wrong ------------------------------------------------------------------------------


def messages(found):
    assert all(isinstance(error, BaseException) for error in found), found
    return [f"{type(error).__name__}: {error}" for error in found]


@pytest.mark.parametrize("compile", [False, True])
def test_a_rank_that_raises_is_named_by_all(compile):
    def work(comm):
        def loss(prediction, label):
            if comm.rank == 1 and label == 7:
                raise KeyError("odd label")
            return fs.cross_entropy(prediction, label % 2)

        labels = Y.copy()
        labels[40] = 7
        return trained(comm, y=labels, loss=loss, compile=compile, batch_size=150)

    said = messages(Threads.of(3, work))
    assert "KeyError" in said[1]
    for rank in (0, 2):
        assert said[rank].startswith("RankError: fit: rank 1 of 3 on ")
        assert "KeyError" in said[rank]
        assert "row 40" in said[rank]


@pytest.mark.parametrize("step", range(4))
def test_an_error_at_any_step_leaves_the_nets_as_the_epoch_began(step):
    calls = {}

    def work(comm):
        net = fs.MLP(6, [5, 2], seed=0)

        def loss(prediction, label):
            calls[comm.rank] = calls.get(comm.rank, 0) + 1
            if comm.rank == 1 and calls[comm.rank] == 10 + step * 25:
                raise ValueError("now")
            return fs.cross_entropy(prediction, label)

        with pytest.raises((RankError, ValueError)):
            fs.fit(net, X, Y, loss=loss, compile=False, optimizer=fs.SGD(lr=0.1), epochs=1, batch_size=130, comm=comm,
                   progress=False)  # fmt: skip
        return weights(net), []

    bits, _ = same(Threads.of(2, work))
    np.testing.assert_array_equal(bits, weights(fs.MLP(6, [5, 2], seed=0)))


def test_a_callback_that_raises_ends_all():
    class Bad:
        every = 70

        def on_samples(self, samples):
            raise OSError("disk full")

    said = messages(Threads.of(2, lambda comm: trained(comm, callbacks=[Bad()])))
    assert said[0] == "OSError: disk full"
    assert said[1].endswith("failed: OSError: disk full")

    def bad(epoch):
        raise OSError("disk full")

    assert messages(Threads.of(2, lambda comm: trained(comm, on_epoch=bad))) == said


def test_a_diverging_run_says_so_on_every_rank():
    for error in Threads.of(2, lambda comm: trained(comm, lambda: fs.SGD(lr=1e200))):
        assert isinstance(error, FloatingPointError), error


@pytest.mark.parametrize(("what", "wishes"), [
    ("X", lambda rank: {"X": X + rank}), ("y", lambda rank: {"y": 1 - Y if rank else Y}),
    ("epochs", lambda rank: {"epochs": 2 + rank}), ("batch size", lambda rank: {"batch_size": 10 + rank}),
    ("seed", lambda rank: {"seed": rank}), ("shuffle", lambda rank: {"shuffle": bool(rank)}),
    ("optimiser", lambda rank: {"optimizer": (lambda: fs.Adam(lr=0.1)) if rank else (lambda: fs.SGD(lr=0.1))}),
])  # fmt: skip
def test_ranks_that_differ_are_refused_before_anything_is_trained(what, wishes):
    said = messages(Threads.of(3, lambda comm: trained(comm, **wishes(comm.rank))))
    assert len(set(said)) == 1
    assert said[0].startswith("RankError: fit: comm: rank 1 on ")
    assert f"differs from rank 0 in {what}" in said[0]


def test_another_net_is_refused():
    def work(comm):
        fs.fit(fs.MLP(6, [5 + comm.rank, 2], seed=0), X, Y, comm=comm, progress=False)

    assert all("differs from rank 0 in net" in text for text in messages(Threads.of(2, work)))


def test_an_argument_that_is_wrong_on_one_rank_is_told_to_all():
    said = messages(Threads.of(2, lambda comm: trained(comm, batch_size=0 if comm.rank else 10)))
    assert said[1].startswith("ValueError: fit: batch_size")
    assert "rank 1" in said[0]
    assert "batch_size" in said[0]


def test_what_is_no_communicator():
    with pytest.raises(TypeError, match=r"comm: expected a communicator .* it lacks Get_rank"):
        fs.fit(fs.Linear(6, 2), X, Y, comm=object())
    with pytest.raises(ValueError, match="shard"):
        fs.fit(fs.Linear(6, 2), X, Y, shard="local")
    assert "shard" in messages(Threads.of(1, lambda comm: trained(comm, shard="mine")))[0]


def test_agreement_names_the_first_that_differs():
    found = Threads.of(3, lambda comm: Ranks(comm).agree(version="1" if comm.rank < 2 else "2"))
    assert all("rank 2" in text and "version: 2 and 1" in text for text in messages(found))


# --- MPI ------------------------------------------------------------------------------------------

SCRIPT = """
    import os, signal, sys
    import numpy as np
    from mpi4py import MPI
    import fastscalar as fs
    comm = MPI.COMM_WORLD
    sys.stderr = open(f"errors{comm.rank}", "w", buffering=1)     # mpiexec mixes what they say
    X = np.random.default_rng(0).normal(size=(150, 6))
    y = (X[:, 0] > 0).astype(int)
    net = fs.MLP(6, [5, 2], seed=comm.rank)
    def loss(p, label):
        if sys.argv[1] == "raise" and comm.rank == 1:
            raise ValueError("a bad row")
        if sys.argv[1] == "die" and comm.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if sys.argv[1] == "lost" and comm.rank == 1:
            sys.exit(3)
        return fs.cross_entropy(p, label)
    fs.fit(net, X, y, loss=loss, optimizer=fs.Adam(lr=0.01), epochs=2, batch_size=140, comm=comm, progress=False,
           compile=sys.argv[1] == "fine")
    if comm.rank == 0:
        print("bits", "".join(p.numpy().tobytes().hex() for p in net.parameters()))
"""


def mpi_command(tmp_path, ranks, script):
    command = started(ranks)
    (tmp_path / "work.py").write_text(textwrap.dedent(script))
    return [*command, sys.executable, tmp_path / "work.py"]


def mpiexec(tmp_path, ranks, what):
    command = [*mpi_command(tmp_path, ranks, SCRIPT), what]
    return subprocess.run(command, text=True, capture_output=True, timeout=120, cwd=tmp_path, check=False)


def test_mpi_gives_the_bits_of_one_rank(tmp_path):
    found = set()
    for ranks in (1, 2, 3, 5) if is_open_mpi(started(1)[0]) else (1, 2, 3):
        done = mpiexec(tmp_path, ranks, "fine")
        assert done.returncode == 0, [path.read_text() for path in tmp_path.glob("errors*")]
        found.add(done.stdout.strip())
    assert len(found) == 1
    assert found.pop().startswith("bits ")


@pytest.mark.parametrize("what", ["raise", "die", "lost"])
def test_mpi_ends_when_a_rank_does(tmp_path, what):
    done = mpiexec(tmp_path, 2, what)
    assert done.returncode != 0
    if what == "raise":
        assert "ValueError: a bad row" in (tmp_path / "errors1").read_text()
        assert "rank 1 of 2 on" in (tmp_path / "errors0").read_text()


KILLS = int(os.environ.get("FASTSCALAR_KILLS", "1"))
RUN = """
    import os, pathlib, sys
    import numpy as np
    from mpi4py import MPI
    import fastscalar as fs
    comm = MPI.COMM_WORLD
    X = np.random.default_rng(0).normal(size=(2000, 6))
    y = (X[:, 0] > 0).astype(int)
    place = pathlib.Path(f"pid{comm.rank}.new")
    place.write_text(str(os.getpid()))
    place.rename(f"pid{comm.rank}")
    fs.fit(fs.MLP(6, [50, 2], seed=0), X, y, epochs=10**6, batch_size=200, comm=comm, progress=False,
           on_epoch=lambda epoch: pathlib.Path("epochs").write_text(str(epoch.epoch)))
"""


@pytest.mark.parametrize("moment", range(KILLS))
def test_mpi_ends_when_a_rank_is_killed_at_any_moment(tmp_path, moment):
    """The run itself would go on for hours."""
    random = np.random.default_rng(moment)
    command = mpi_command(tmp_path, 2, RUN)
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as run:
        try:
            end = time.monotonic() + 120
            while not (tmp_path / "epochs").exists():
                assert run.poll() is None, run.communicate()
                assert time.monotonic() < end
                time.sleep(0.02)
            time.sleep(random.uniform(0.0, 0.5))
            os.kill(int((tmp_path / f"pid{random.integers(2)}").read_text()), signal.SIGKILL)
            run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode != 0
    for rank in range(2):
        with pytest.raises(ProcessLookupError):
            gone(int((tmp_path / f"pid{rank}").read_text()))


def gone(pid):
    """ProcessLookupError as soon as a process has ended; it may take its time to."""
    for _ in range(3000):
        os.kill(pid, 0)
        time.sleep(0.02)


@pytest.mark.skipif(bool(os.environ.get("FASTSCALAR_STRESS")), reason="processes of their own, in stress mode")
def test_the_adaptor_of_torch_that_the_page_shows(tmp_path):
    pytest.importorskip("torch")
    page = (ROOT / "docs" / "scale-out.md").read_text(encoding="utf-8")
    adaptor = page[page.index("class Gloo:") :].split("```")[0]
    script = f"""
import sys
import numpy as np, torch
import torch.distributed as dist
import fastscalar as fs
{adaptor}
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
X = np.random.default_rng(0).normal(size=(150, 6))
y = (X[:, 0] > 0).astype(int)
net = fs.MLP(6, [5, 2], seed=rank)
fs.fit(net, X, y, optimizer=fs.Adam(lr=0.01), epochs=2, batch_size=140, comm=Gloo(), progress=False)
print("bits", "".join(p.numpy().tobytes().hex() for p in net.parameters()))
"""
    (tmp_path / "work.py").write_text(script)
    work = [
        subprocess.Popen([sys.executable, tmp_path / "work.py", str(rank), tmp_path / "meeting"], text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path)
        for rank in range(2)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=120) for process in work]
    finally:
        for process in work:
            process.kill()
    assert said[0][0].startswith("bits "), said[0][1]
    assert said[0][0] == said[1][0]
