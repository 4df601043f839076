"""Rows of a program's call that ranks share: the numbers of one process, the same bits for any number of ranks."""

import re

import numpy as np
import pytest

import fastscalar as fs
from fastscalar.program import sharing
from fastscalar.program.ranks import RankError
from ranks import Threads

RANKS = (1, 2, 3, 5)
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(700, 4))
K = RANDOM.integers(0, 3, 700)
W = RANDOM.normal(size=4)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """So that there are many of them."""
    monkeypatch.setattr(sharing, "WORK", 1000)
    monkeypatch.setattr(sharing, "ROWS", (16, 64))


def plain(x, w, k):
    s = 0.0
    for j in range(4):
        s = s + x[j] * w[j]
    return s * s * 0.1


def branching(x, w, k):
    s = plain(x, w, k)
    if k == 1:
        return s.exp() + w[0]
    return (s * w[1]).sin() if x[0] > 0.3 else s


def drawing(x, w, k):
    return plain(x, w, k) * fs.random.normal() + fs.random.uniform() * w[2]


def untraced(x, w, k):
    """Reads a number and branches on what was read: runs in Python."""
    return plain(x, w, k) * float(f"{float(x[0].data):.3f}")


def several(x, w, k):
    s = plain(x, w, k)
    return {"s": s, "both": (s * w[0], [x[0] * 2.0, x[1]])}


FUNCTIONS = {f.__name__: f for f in (plain, branching, drawing, untraced)}


def flat(found):
    """All numbers of a nest."""
    if isinstance(found, dict):
        found = list(found.values())
    return [x for part in found for x in flat(part)] if isinstance(found, (list, tuple)) else [np.asarray(found)]


def of_all(size, work):
    found = Threads.of(size, work)
    for error in found:
        if isinstance(error, BaseException):
            raise error
    return [flat(one) for one in found]


def same_bits(work, rtol=0.0):
    """What every rank finds, of any number of ranks."""
    first = of_all(1, work)[0]
    for size in RANKS[1:]:
        for found in of_all(size, work):
            assert len(found) == len(first)
            for a, b in zip(found, first, strict=True):
                np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)
    return first


def near(found, expected):
    for a, b in zip(found, flat(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


CALLS = {
    "map": lambda f, **more: f.map(X, W, K, seed=3, **more),
    "float32": lambda f, **more: f.map(X, W, K, seed=3, dtype="float32", **more),
    "value_and_grad": lambda f, **more: f.value_and_grad(X, W, K, argnums=(0, "w"), seed=3, **more),
    "per_row": lambda f, **more: f.value_and_grad(X, W, K, argnums="w", per_row=True, seed=3, **more),
    "vjp": lambda f, **more: f.vjp(X, W, K, cotangents=X[:, 0], argnums=(1, 0), seed=3, **more),
    "jacobian": lambda f, **more: f.jacobian(X, W, K, argnums=(0, 1), seed=3, **more),
    "sparse": lambda f, **more: f.jacobian(X, W, K, sparse=True, seed=3, **more).values,
    "hessian": lambda f, **more: f.hessian(X, W, K, seed=3, **more),
    "jvp": lambda f, **more: f.jvp(X, W, K, tangents=(X[::-1], None, None), seed=3, **more),
    "hvp": lambda f, **more: f.hvp(X, W, K, tangents=X[::-1], argnums=0, seed=3, **more),
}


@pytest.mark.dear
@pytest.mark.filterwarnings("ignore::fastscalar.CompileWarning")
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("call", CALLS)
def test_any_number_of_ranks_finds_what_one_process_does(name, call):
    if name == "untraced" and call not in ("map", "value_and_grad", "vjp"):
        pytest.skip("reads a number of a Tensor, which derivatives of derivatives refuse alike")
    function, do = FUNCTIONS[name], CALLS[call]
    alone = do(fs.compile(function, shared="w"))
    # More ways than are recorded: which of them are depends on who sees which first.
    rtol = 1e-12 if name == "untraced" else 0.0
    found = same_bits(lambda comm: do(fs.compile(function, shared="w"), comm=comm), rtol)
    if call == "float32":
        for a, b in zip(found, flat(alone), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)
    else:
        near(found, alone)


@pytest.mark.parametrize("call", ["map", "per_row", "jacobian", "jvp"])
def test_what_has_rows_has_the_bits_of_one_process(call):
    do = CALLS[call]
    found = same_bits(lambda comm: do(fs.compile(branching, shared="w"), comm=comm))
    for a, b in zip(found, flat(do(fs.compile(branching, shared="w"))), strict=True):
        np.testing.assert_array_equal(a, b)


def test_nests_of_results():
    alone = fs.compile(several, shared="w").map(X, W, K)
    found = same_bits(lambda comm: fs.compile(several, shared="w").map(X, W, K, comm=comm))
    near(found, alone)


def test_results_stay_where_they_are():
    def work(comm):
        f = fs.compile(plain, shared="w")
        values, (by_x, by_w) = f.value_and_grad(X, W, K, argnums=(0, 1), comm=comm, gather=False)
        assert len(values) == len(by_x)
        return values, by_x, by_w

    values, (by_x, by_w) = fs.compile(plain, shared="w").value_and_grad(X, W, K, argnums=(0, 1))
    for size in RANKS:
        parts = of_all(size, work)
        np.testing.assert_array_equal(np.concatenate([p[0] for p in parts]), values)
        np.testing.assert_array_equal(np.concatenate([p[1] for p in parts]), by_x)
        for part in parts:
            np.testing.assert_allclose(part[2], by_w, rtol=1e-10)
            np.testing.assert_array_equal(part[2], parts[0][2])


def test_more_ranks_than_rows():
    def work(**more):
        return fs.compile(plain, shared="w").value_and_grad(X[:2], W, K[:2], argnums=(0, 1), **more)

    for part in of_all(5, lambda comm: work(comm=comm)):
        near(part, work())


def monte_carlo():
    return fs.random.normal() * 2.0 + fs.random.uniform()


@pytest.mark.parametrize("streams", [{"seed": 7}, {"seed": 7, "antithetic": True, "row_offset": 11, "epoch": 2}])
def test_a_monte_carlo_draws_by_the_row(streams):
    alone = fs.compile(monte_carlo).map(rows=999, **streams)
    found = same_bits(lambda comm: fs.compile(monte_carlo).map(rows=999, comm=comm, **streams))
    np.testing.assert_array_equal(found[0], alone)


def test_ranks_without_a_seed_draw_what_rank_zero_would(monkeypatch):
    def work(comm):
        return fs.compile(monte_carlo).map(rows=200, comm=comm, gather=True)

    values = of_all(3, work)
    np.testing.assert_array_equal(values[0], values[1])


# --- leaves ---------------------------------------------------------------------------------------


def net_of(rank, spread):
    """Leaves of a rank, among others that differ in number from rank to rank."""
    clutter = [fs.Tensor(float(k)) for k in range(3 * rank)]
    leaves = {name: fs.Tensor(value) for name, value in (("a", 0.5), ("b", -1.5), ("c", 2.5), ("d", 1.0))}
    weights = fs.to_tensor(W.tolist())

    def loss(x, k):
        s = x[0] * leaves["a"] + weights[3]
        if k == spread:
            s = s * leaves["b"] + x[1] * leaves["c"]
        if x[2] > 1.5:
            s = s * leaves["d"] * weights[0]
        return s * s

    return loss, [*leaves.values(), weights], clutter


def gradients(leaves):
    return [np.array(p.grad) for p in leaves]


@pytest.mark.parametrize("wishes", [
    {}, {"accumulate": True}, {"cotangents": X[:, 3]}, {"dtype": "float32"}, {"threads": 2},
])  # fmt: skip
@pytest.mark.parametrize("where", ["spread", "sorted", "late"])
def test_leaves_have_the_gradients_of_all_rows(wishes, where):
    """Also where the rows that read a leaf are all on one rank."""
    k = {"spread": K, "sorted": np.sort(K), "late": np.arange(700) // 699}[where]
    spread = 1
    calls = [dict(wishes), {**wishes, "accumulate": True}]

    def work(comm):
        loss, leaves, _clutter = net_of(comm.rank if comm else 0, spread)
        f = fs.compile(loss)
        sharing = {} if comm is None else {"comm": comm}
        return [(f.backward(X, k, **call, **sharing), gradients(leaves)) for call in calls]

    alone = flat(work(None))
    rtol = 1e-4 if wishes.get("dtype") == "float32" else 1e-9
    for a, b in zip(same_bits(work), alone, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * 1e-3)


@pytest.mark.dear
@pytest.mark.filterwarnings("ignore::fastscalar.CompileWarning")
def test_leaves_that_rows_in_python_read():
    def work(comm):
        a, b = fs.Tensor(0.5), fs.Tensor(2.0)

        def loss(x):
            s = x[0] * a if float(f"{x[1].data:.1f}") < 1.0 else x[0] * b
            return s * s

        f = fs.compile(loss)
        return f.backward(X, **({} if comm is None else {"comm": comm})), gradients([a, b])

    near(same_bits(work), work(None))


def test_leaves_that_no_row_reads_keep_their_gradients():
    def work(comm):
        a, b = fs.Tensor(0.5), fs.Tensor(2.0)
        f = fs.compile(lambda x, k: x * a if k == 0 else x * b)
        f.backward(X[:, 0], K % 2, comm=comm)
        a.grad, b.grad = 5.0, 7.0
        f.backward(X[:, 0], 0 * K, comm=comm)
        return a.grad, b.grad

    assert same_bits(work)[1] == 7.0


# --- what goes wrong ------------------------------------------------------------------------------


def messages(found):
    assert all(isinstance(error, BaseException) for error in found), found
    return [f"{type(error).__name__}: {error}" for error in found]


def unsound(x, w, k):
    return plain(x, w, k).log() if k == 7 else plain(x, w, k)


BAD = K.copy()
BAD[[500, 600]] = 7
ZERO = X.copy()
ZERO[[500, 600]] = 0.0


@pytest.mark.parametrize("call", [
    lambda f, comm: f.map(ZERO, W, BAD, comm=comm),
    lambda f, comm: f.value_and_grad(ZERO, W, BAD, argnums="w", comm=comm),
    lambda f, comm: f.jacobian(ZERO, W, BAD, comm=comm),
    lambda f, comm: f.backward(ZERO, W, BAD, comm=comm),
])  # fmt: skip
@pytest.mark.parametrize("size", RANKS)
def test_a_row_that_raises_is_named_with_rank_and_host(call, size):
    said = messages(Threads.of(size, lambda comm: call(fs.compile(unsound, shared="w"), comm)))
    own = [text for text in said if text.startswith("ValueError: row ")]
    assert own
    assert own[0].startswith("ValueError: row 500: log")
    for text in set(said) - set(own):
        assert re.search(r"RankError: .*: rank \d of \d on .+ failed: ValueError: row 500: log", text), text


def test_nothing_has_changed_after_an_error():
    def work(comm):
        a = fs.Tensor(2.0)
        a.grad = 5.0
        f = fs.compile(lambda x, k: (x[0] * a).log() if k == 7 else x[0] * a)
        with pytest.raises((ValueError, RankError)):
            f.backward(ZERO, BAD, comm=comm)
        return a.grad

    assert of_all(3, work) == [[5.0]] * 3


@pytest.mark.parametrize(("what", "call"), [
    ("rows", lambda f, r: f.map(X[: 100 + r], W, K[: 100 + r])), ("data", lambda f, r: f.map(X + r, W, K)),
    ("data", lambda f, r: f.map(X, W, np.roll(K, r))), ("data", lambda f, r: f.map(X, W + r, K)),
    ("argnums", lambda f, r: f.value_and_grad(X, W, K, argnums=min(r, 1))),
    ("gather", lambda f, r: f.map(X, W, K, gather=bool(r))),
    ("cotangents", lambda f, r: f.vjp(X, W, K, cotangents=X[:, r], argnums=0)),
])  # fmt: skip
def test_ranks_that_differ_are_refused(what, call):
    class On:
        """Calls with a communicator."""

        def __init__(self, comm):
            self.comm, self.f = comm, fs.compile(plain, shared="w")

        def __getattr__(self, name):
            return lambda *args, **more: getattr(self.f, name)(*args, comm=self.comm, **more)

    said = messages(Threads.of(3, lambda comm: call(On(comm), comm.rank)))
    assert len(set(said)) == 1
    assert "rank 1 on " in said[0]
    assert f"differs from rank 0 in {what}" in said[0]


def test_other_leaves_on_a_rank_are_refused():
    def work(comm):
        w = fs.Tensor(2.0 + comm.rank)
        return fs.compile(lambda x: x[0] * w).backward(X, comm=comm)

    assert all("differs from rank 0 in leaves" in text for text in messages(Threads.of(2, work)))


@pytest.mark.parametrize("call", [
    lambda f, comm: f.map(X, W, K[: 700 - comm.rank], comm=comm),
    lambda f, comm: f.value_and_grad(X, W, K, argnums=9 * comm.rank, comm=comm),
    lambda f, comm: f.backward(X, W, K, dtype="float16" if comm.rank else "float64", comm=comm),
    lambda f, comm: f.jacobian(X, W, K, argnums="zz" if comm.rank else 0, comm=comm),
    lambda f, comm: f.jacobian(X, W, K, argnums="zz" if comm.rank else 0, sparse=True, comm=comm),
    lambda f, comm: f.jvp(X, W, K, tangents=() if comm.rank else (X, None, None), comm=comm),
])  # fmt: skip
def test_an_argument_that_is_wrong_on_one_rank_is_told_to_all(call):
    said = messages(Threads.of(2, lambda comm: call(fs.compile(plain, shared="w"), comm)))
    assert said[1].startswith("ValueError: ")
    assert "rank 1 of 2 on" in said[0]


def test_an_argument_of_the_function_is_its_own():
    f = fs.compile(lambda x, comm: x * comm)
    np.testing.assert_array_equal(f.map(X[:, 0], comm=2.0), 2.0 * X[:, 0])
    assert f.value_and_grad(X[:3, 0], comm=2.0, argnums="comm")[1] == pytest.approx(X[:3, 0].sum())
    f.backward(X[:3, 0], comm=2.0)


def test_no_communicator():
    f = fs.compile(plain, shared="w")
    np.testing.assert_array_equal(f.map(X, W, K, comm=None), f.map(X, W, K))
    with pytest.raises(TypeError, match=r"plain\.map: comm: expected a communicator"):
        f.map(X, W, K, comm=3)
