"""fit trains the net that it is given: one optimiser for several nets, copies of both, steps that overflow."""

import contextlib
import copy
import itertools
import pickle
import re
import warnings

import numpy as np
import pytest

import fastscalar as fs
from fastscalar.engine._step import flatten_parameters
from test_parameters import OPTIMIZERS, Momentum, Signs

TRIPLE = fs.custom_op(lambda x: 3.0 * x, lambda x: 3.0, name="triple")  # is not replayed


@pytest.fixture(autouse=True)
def eager_rows_are_no_news():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fs.CompileWarning)
        yield


def problem(n=24, seed=0):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(n, 3)), draw.integers(0, 2, size=n)


def fit(net, X, y, **keywords):
    return fs.fit(net, X, y, progress=False, **{"epochs": 2, **keywords})


def values(parameters):
    return np.concatenate([np.ravel(np.asarray(p.data)) for p in flatten_parameters(parameters, [])])


class Function:
    """A function over leaves, as a program."""

    def __init__(self, seed, slow=False):
        draw = np.random.default_rng(seed)
        self.w, self.b = fs.to_tensor(draw.normal(size=(3, 2))), fs.Tensor(draw.normal())
        self.slow = slow
        self.program = fs.compile(self.sample_loss)

    def sample_loss(self, x, k):
        out = [fs.dot(self.w[:, j], x) + (TRIPLE(self.b) if self.slow else self.b) * j for j in range(2)]
        return fs.cross_entropy(out, k)

    def parameters(self):
        return [self.w, self.b]


class Halves(fs.Module):
    def __init__(self, seed):
        self.first, self.last = fs.Linear(3, 4, seed=seed), fs.Linear(4, 2, seed=seed + 1)

    def forward(self, x):
        return self.last([h.tanh() for h in self.first(x)])


KINDS = {
    "Linear": lambda seed: fs.Linear(3, 2, seed=seed),
    "MLP": lambda seed: fs.MLP(3, [4, 2], seed=seed),
    "Module": Halves,
    "program": Function,
    "program, row by row": lambda seed: Function(seed, slow=True),
}
trained = lambda net: net.program if isinstance(net, Function) else net
ways = pytest.mark.parametrize(
    "given", [{}, {"batch_size": 6}, {"compile": False}, {"compile": False, "batch_size": 6}], ids=str
)


# --- one optimiser, several nets --------------------------------------------------------------------------------------


@pytest.mark.dear
@ways
@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("kind", KINDS)
def test_cross_validation_with_one_optimizer(kind, make, given):
    X, y = problem(30)
    folds = np.arange(30) % 3
    one = make(lr=0.01)
    for fold in range(3):
        nets = [KINDS[kind](fold) for _ in range(2)]
        histories = [
            fit(trained(net), X[folds != fold], y[folds != fold], optimizer=optimizer, **given)
            for net, optimizer in zip(nets, (one, make(lr=0.01)), strict=True)
        ]
        assert values(nets[0].parameters()).tolist() == values(nets[1].parameters()).tolist()
        assert values(nets[0].parameters()).tolist() != values(KINDS[kind](fold).parameters()).tolist()
        assert histories[0].loss == histories[1].loss
        assert one.lr == 0.01


@ways
@pytest.mark.parametrize("kind", KINDS)
def test_an_optimizer_that_fit_has_bound_goes_on_with_the_same_net(kind, given):
    """Two runs are one of two epochs, moments included."""
    X, y = problem()
    nets = [KINDS[kind](1) for _ in range(2)]
    optimizer = fs.Adam(lr=0.01)
    for _ in range(2):
        fit(trained(nets[0]), X, y, optimizer=optimizer, epochs=1, shuffle=False, schedule=None, **given)
    fit(trained(nets[1]), X, y, optimizer=fs.Adam(lr=0.01), epochs=2, shuffle=False, schedule=None, **given)
    np.testing.assert_allclose(values(nets[0].parameters()), values(nets[1].parameters()), rtol=1e-12)


@pytest.mark.dear
@ways
@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize(("one", "other"), list(itertools.product(KINDS, KINDS)))
def test_an_optimizer_of_another_net_is_refused(one, other, make, given):
    X, y = problem()
    a, b = KINDS[one](1), KINDS[other](1)
    before = values(a.parameters()), values(b.parameters())
    optimizer = make(a.parameters(), lr=0.01)
    with pytest.raises(ValueError, match="another net") as caught:
        fit(trained(b), X, y, optimizer=optimizer, **given)
    assert "\n" not in str(caught.value)
    assert values(a.parameters()).tolist() == before[0].tolist()
    assert values(b.parameters()).tolist() == before[1].tolist()
    assert optimizer.lr == 0.01
    fit(trained(a), X, y, optimizer=optimizer, **given)
    assert values(a.parameters()).tolist() != before[0].tolist()
    optimizer.bind(b.parameters())
    fit(trained(b), X, y, optimizer=optimizer, **given)
    assert values(b.parameters()).tolist() != before[1].tolist()


@ways
def test_an_optimizer_of_another_net_is_refused_for_a_function_too(given):
    X, y = problem()
    net, other = fs.MLP(3, [4, 2], seed=1), fs.MLP(3, [4, 2], seed=2)
    with pytest.raises(ValueError, match="another net"):
        fit(lambda x: net(x), X, y, optimizer=fs.SGD(other.parameters()), **given)
    fit(lambda x: net(x), X, y, optimizer=fs.SGD([net.parameters(), other.parameters()]), **given)


@ways
def test_what_only_the_loss_reads_may_be_trained(given):
    X, y = problem()
    net, t = fs.MLP(3, [4, 2], seed=1), fs.Tensor(1.0)
    before = values(net.parameters())

    def tempered(out, k):
        return fs.cross_entropy(out * t, k)

    fit(net, X, y, loss=tempered, optimizer=fs.SGD([t], lr=0.1), **given)
    assert t.data != 1.0
    assert values(net.parameters()).tolist() == before.tolist()


@ways
def test_parameters_that_only_a_late_row_reads(given):
    X, y = problem()
    X[:, 0] = -abs(X[:, 0])
    X[17, 0] = 1.0
    w, v = fs.to_tensor([0.1, 0.2, 0.3]), fs.Tensor(1.0)
    net = lambda x: [fs.dot(w, x), v if x[0] > 0 else 0.0]
    for function in (net, fs.compile(lambda x, k: fs.cross_entropy(net(x), k))):
        v.data = 1.0
        fit(function, X, y, optimizer=fs.SGD([v], lr=0.1), shuffle=False, **given)
        assert v.data != 1.0
        assert w.tolist() == [0.1, 0.2, 0.3]


def test_a_function_without_parameters_says_what_to_write():
    X, y = problem()
    net = fs.MLP(3, [2], seed=1)
    for optimizer in (None, fs.SGD(lr=0.1)):
        with pytest.raises(TypeError, match=r"SGD\(\[w, b\]"):
            fit(lambda x: net(x), X, y, optimizer=optimizer)

    class Empty(fs.Module):
        def forward(self, x):
            return x

    with pytest.raises(ValueError, match="Empty has no parameters"):
        fit(Empty(), X, y)


def test_one_layer_trained_the_other_not():
    X, y = problem()
    for given in ({}, {"compile": False}):
        net = fs.MLP(3, [4, 2], seed=1)
        before = net.linears[0].w.numpy(), net.linears[1].w.numpy()
        fit(net, X, y, optimizer=fs.SGD(net.linears[1].parameters()), **given)
        assert net.linears[0].w.numpy().tolist() == before[0].tolist()
        assert net.linears[1].w.numpy().tolist() != before[1].tolist()


@ways
def test_a_function_of_a_net_that_fit_has_bound_before(given):
    X, y = problem()
    nets = [fs.MLP(3, [4, 2], seed=1) for _ in range(2)]
    optimizers = [fs.Adam(lr=0.01) for _ in range(2)]
    for net, optimizer in zip(nets, optimizers, strict=True):
        fit(net, X, y, optimizer=optimizer, **given)
    fit(lambda x: nets[0](x), X, y, optimizer=optimizers[0], **given)
    fit(nets[1], X, y, optimizer=optimizers[1], **given)
    np.testing.assert_allclose(values(nets[0].parameters()), values(nets[1].parameters()), rtol=1e-9)
    with pytest.raises(ValueError, match="no parameters; leave them out"):
        fit(nets[0], X, y, optimizer=fs.SGD([]), **given)


@ways
@pytest.mark.parametrize("make", [fs.SGD, fs.Adam, Signs])
@pytest.mark.parametrize("kind", ["MLP", "Module", "program"])
def test_parameters_that_on_epoch_binds_are_trained_from_then_on(kind, make, given):
    """The last layer alone, then everything: in every loop, as by a run for each."""
    X, y = problem()
    if kind == "program":
        parts = lambda net: ([net.b], [net.w, net.b])
    else:
        parts = lambda net: (net.parameters()[-1:], net.parameters())
    net, same = KINDS[kind](1), KINDS[kind](1)
    few, all_of_them = parts(net)
    optimizer = make(few, lr=0.01)
    frozen = []

    def thaw(epoch):
        if epoch.epoch == 1:
            frozen.append(values(all_of_them)[0] == values(parts(same)[1])[0])
            optimizer.bind(all_of_them)

    keywords = {"shuffle": False, "schedule": None, **given}
    fit(trained(net), X, y, optimizer=optimizer, epochs=3, on_epoch=thaw, **keywords)
    assert frozen == [True]
    other = make(parts(same)[0], lr=0.01)
    fit(trained(same), X, y, optimizer=other, epochs=1, **keywords)
    other.bind(parts(same)[1])
    fit(trained(same), X, y, optimizer=other, epochs=2, **keywords)
    np.testing.assert_allclose(values(net.parameters()), values(same.parameters()), rtol=1e-9)


# --- copies -----------------------------------------------------------------------------------------------------------

COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda x: pickle.loads(pickle.dumps(x))}


@ways
@pytest.mark.parametrize("bound", [True, False])
@pytest.mark.parametrize("make", [fs.SGD, fs.Adam, Momentum, Signs])
@pytest.mark.parametrize("kind", ["Linear", "MLP", "Module"])
@pytest.mark.parametrize("way", COPIES)
def test_net_and_optimizer_copied_together_go_on_together(way, kind, make, bound, given):
    X, y = problem()
    net = KINDS[kind](1)
    optimizer = make(net.parameters() if bound else None, lr=0.01)
    fit(net, X, y, optimizer=optimizer, **given)
    before = values(net.parameters())
    other, its = COPIES[way]((net, optimizer))
    fit(other, X, y, optimizer=its, first_epoch=2, **given)
    assert values(net.parameters()).tolist() == before.tolist()
    fit(net, X, y, optimizer=optimizer, first_epoch=2, **given)
    assert values(net.parameters()).tolist() == values(other.parameters()).tolist() != before.tolist()


@pytest.mark.parametrize("way", COPIES)
def test_net_and_optimizer_copied_apart_say_so(way):
    X, y = problem()
    net = fs.MLP(3, [4, 2], seed=1)
    bound, own = fs.Adam(net.parameters()), fs.Adam()
    for optimizer in (bound, own):
        fit(net, X, y, optimizer=optimizer)
    before = values(net.parameters())
    for pair in ((net, COPIES[way](bound)), (COPIES[way](net), bound), (COPIES[way](net), COPIES[way](bound))):
        with pytest.raises(ValueError, match="another net"):
            fit(*pair[:1], X, y, optimizer=pair[1])
    with pytest.raises(ValueError, match="copy or pickle net and optimiser together"):
        fit(net, X, y, optimizer=COPIES[way](own), first_epoch=2)
    assert values(net.parameters()).tolist() == before.tolist()
    anew, fresh = COPIES[way](net), COPIES[way](net)
    fit(anew, X, y, optimizer=COPIES[way](own))  # a run from its beginning, with what fit binds
    fit(fresh, X, y, optimizer=fs.Adam())
    assert values(anew.parameters()).tolist() == values(fresh.parameters()).tolist()


# --- steps that overflow ----------------------------------------------------------------------------------------------


class Blows(fs.SGD):
    """The last of its steps is too long."""

    def __init__(self, steps, value):
        super().__init__(lr=0.01)
        self.left, self.value = steps, value

    def step(self):
        self.left -= 1
        super().step()
        if not self.left:
            p = flatten_parameters(self.parameters, [])[-1]
            p.data = self.value if isinstance(p, fs.Tensor) else np.full(p.shape, self.value)


@pytest.mark.dear
@ways
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e200])
@pytest.mark.parametrize("epoch", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_last_step_that_overflows_is_an_error_and_the_net_that_of_the_epoch_before(kind, epoch, value, given):
    X, y = problem()
    net, same = KINDS[kind](1), KINDS[kind](1)
    steps = len(X) // given.get("batch_size", 1)
    said = re.escape(f"a parameter is {value} after {epoch * len(X)} samples; the learning rate 0.01")
    with pytest.raises(FloatingPointError, match=said):
        fit(trained(net), X, y, optimizer=Blows(epoch * steps, value), epochs=3, schedule=None, **given)
    if epoch > 1:
        fit(trained(same), X, y, optimizer=fs.SGD(lr=0.01), epochs=epoch - 1, schedule=None, **given)
    np.testing.assert_allclose(values(net.parameters()), values(same.parameters()), rtol=1e-9)


@ways
@pytest.mark.parametrize(
    ("dtype", "lr"), [("float64", 1e300), ("float64", 1e200), ("float32", 1e30), ("float32", 1e10)]
)
def test_sgd_that_overflows_in_its_last_step(dtype, lr, given):
    """Inside of the replay, too: one epoch of one batch, and no loss after it."""
    if dtype == "float32" and given.get("compile") is False:
        pytest.skip("float32 is compiled")
    net = fs.Linear(2, 1, seed=0)
    before = net.w.numpy()
    given = {"loss": "squared", "optimizer": fs.SGD(lr=lr), "dtype": dtype, **given}
    said = r"a parameter is \S+ after 1 samples; the learning rate " + re.escape(f"{lr:g}")
    with pytest.raises(FloatingPointError, match=said):
        fit(net, np.full((1, 2), 3.0), [[1e15]], epochs=1, **given)
    assert net.w.numpy().tolist() == before.tolist()


@ways
def test_adam_that_overflows_in_its_last_step(given):
    net = fs.Linear(2, 1, seed=0)
    net.w.data = before = np.full((2, 1), -1.7e308)
    net.b.data = [1.7e308]
    with pytest.raises(FloatingPointError, match="a parameter is -inf after 1 samples"):
        fit(net, np.full((1, 2), 0.5), [[-1e3]], loss="squared", optimizer=fs.Adam(lr=1e308), epochs=1, **given)
    assert net.w.numpy().tolist() == before.tolist()


@ways
def test_a_number_that_was_infinite_before_is_no_overflow(given):
    X, y = problem()
    net, mask = fs.Linear(3, 2, seed=0), fs.to_tensor([0.0, -np.inf])
    history = fit(net, X, y, optimizer=fs.SGD([net.parameters(), mask]), **given)
    assert len(history.epochs) == 2


@ways
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_diverges_leaves_a_finite_net(kind, given):
    X, y = problem()
    net = KINDS[kind](1)
    with contextlib.suppress(FloatingPointError):  # a tanh that saturates may go on
        fit(trained(net), X * 1e3, y, optimizer=fs.SGD(lr=1e306), epochs=3, **given)
        assert kind == "Module"
    assert np.isfinite(values(net.parameters())).all()


@ways
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_stopped_goes_on_exactly_moments_and_all(kind, given):
    """What stops a compiled run in the middle of an epoch takes back what the optimiser learned in it."""
    if given.get("compile") is False:
        pytest.skip("keeps every step")
    X, y = problem()
    nets = [KINDS[kind](1) for _ in range(2)]

    class Stops(fs.Adam):
        left = 30

        def step(self):
            super().step()
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

    stopped, whole = Stops(lr=0.01), Stops(lr=0.01)
    stopped.left, whole.left = 30 if "batch_size" not in given else 6, -1
    with pytest.raises(KeyboardInterrupt):
        fit(trained(nets[0]), X, y, optimizer=stopped, epochs=3, **given)
    fit(trained(nets[0]), X, y, optimizer=stopped, epochs=3, first_epoch=2, **given)
    fit(trained(nets[1]), X, y, optimizer=whole, epochs=3, **given)
    assert values(nets[0].parameters()).tolist() == values(nets[1].parameters()).tolist()


def test_what_was_computed_is_no_parameter():
    w, a = fs.Tensor(1.0), fs.to_tensor([1.0, 2.0])
    for computed, make in itertools.product((w * 2.0, a * 2.0, (a * 2.0)[0], (a * 2.0)[:1]), OPTIMIZERS):
        with pytest.raises(ValueError, match=r"a parameter was computed, not made: .*Tensor"):
            make([w, [computed]])
    with fs.no_grad():
        made = a * 2.0
    fs.SGD([made, made[0], a[0], w.detach()])
    for make in OPTIMIZERS:
        optimizer = make([w])
        optimizer.parameters = [a]
        assert optimizer.parameters == [a]
        optimizer.parameters = None
        with pytest.raises(ValueError, match="no parameters yet"):
            optimizer.zero_grad()
    assert len(fs.SGD(p for p in (w, a)).parameters) == 2  # PyTorch takes iterators too


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("compile", [True, False])
def test_a_loss_that_is_no_number(compile, batch_size):
    X, y = problem()
    for loss, words in (
        (lambda out, k: out * 1.0, "one number .*TensorArray"),
        (lambda out, k: [out[0]], "one number .*list"),
        (lambda out, k: None, "one number .*NoneType"),
    ):
        with pytest.raises(TypeError, match=words):
            fit(fs.Linear(3, 2, seed=0), X, y, loss=loss, compile=compile, batch_size=batch_size)
