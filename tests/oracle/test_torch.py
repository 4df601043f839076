"""The same programs in PyTorch, float64, one thread: values and gradients of scalars, layers, losses, optimisers.

Run by `make oracle` (torch==2.13.0); not part of the default run, so that it is never skipped in silence.
"""

import math
import random

import numpy as np
import pytest
import torch

import fastscalar as fs

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)

RTOL = 1e-12


def close(found, expected, scale=1.0):
    np.testing.assert_allclose(np.asarray(found), expected, rtol=RTOL, atol=RTOL * scale)


# --- scalar programs ----------------------------------------------------------------------------------------

UNARY = [lambda a: -a, lambda a: a.relu(), lambda a: (a * 0.1).exp(), lambda a: (a * a + 1.0).log()]
BINARY = [
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: a * b,
    lambda a, b: a / (b * b + 1.0),
    lambda a, b: (a * a + 0.5) ** (b * 0.1),
]
NUMBER = [lambda a, x: a + x, lambda a, x: x - a, lambda a, x: x * a, lambda a, x: x / (a * a + 1.0), lambda a, x: a**2]


def scalar_program(steps, leaves):
    """Random operations on a growing list; squashed so that nothing overflows."""
    values = list(leaves)
    for what, which, i, j, x in steps:
        a, b = values[i % len(values)], values[j % len(values)]
        if what == 0:
            new = UNARY[which % len(UNARY)](a)
        elif what == 1:
            new = BINARY[which % len(BINARY)](a, b)
        else:
            new = NUMBER[which % len(NUMBER)](a, x)
        values.append(new / (new * new + 1.0))
    total = values[-1]
    for v in values[-6:-1]:
        total = total + v
    return total


@pytest.mark.parametrize("seed", range(50))
def test_random_scalar_programs(seed):
    rng = random.Random(seed)
    steps = [
        (rng.randrange(3), rng.randrange(9), rng.randrange(99), rng.randrange(99), rng.gauss(0, 1)) for _ in range(40)
    ]
    numbers = [rng.gauss(0, 1) for _ in range(5)]
    ours, theirs = [fs.Tensor(x) for x in numbers], [torch.tensor(x, requires_grad=True) for x in numbers]
    y, z = scalar_program(steps, ours), scalar_program(steps, theirs)
    y.backward()
    z.backward()
    close(y.data, z.item())
    close([t.grad for t in ours], [0.0 if t.grad is None else t.grad.item() for t in theirs], 10.0)


def test_accumulate_is_pytorch_s_backward():
    a, b = fs.Tensor(1.5), torch.tensor(1.5, requires_grad=True)
    for k in (2, 3):
        (a**k).backward(accumulate=True)
        (b**k).backward()
    close(a.grad, b.grad.item())


@pytest.mark.parametrize("point", [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf])
def test_relu_at_its_kink_and_beyond(point):
    a, b = fs.Tensor(point), torch.tensor(point, requires_grad=True)
    a.relu().backward()
    torch.relu(b).backward()
    assert a.grad == b.grad.item()


# --- layers and losses --------------------------------------------------------------------------------------


def torch_net(net):
    layers = []
    for k, linear in enumerate(net.linears):
        layer = torch.nn.Linear(linear.in_features, linear.out_features)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(linear.w.numpy().T))
            layer.bias.copy_(torch.tensor(linear.b.numpy()))
        layers += [torch.nn.ReLU(), layer] if k else [layer]
    return torch.nn.Sequential(*layers)


def linears(module):
    return [layer for layer in module if isinstance(layer, torch.nn.Linear)]


def pair(seed=0, widths=(30, [17, 8, 5])):
    net = fs.MLP(*widths, seed=seed)
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(7, widths[0])) * (rng.random((7, widths[0])) < 0.4)
    return net, torch_net(net), X, rng.integers(widths[1][-1], size=7)


def same_parameters(net, module, what="data"):
    for ours, theirs in zip(net.linears, linears(module), strict=True):
        weight = theirs.weight if what == "data" else theirs.weight.grad
        bias = theirs.bias if what == "data" else theirs.bias.grad
        close(getattr(ours.w, what), weight.detach().numpy().T)
        close(getattr(ours.b, what), bias.detach().numpy())


LOSSES = {
    "cross_entropy": (fs.cross_entropy, lambda out, y: torch.nn.functional.cross_entropy(out, y)),
    "squared_loss": (
        lambda out, y: fs.squared_loss(out, np.eye(5)[y]),
        lambda out, y: 0.5 * ((out - torch.eye(5)[y]) ** 2).sum(-1).mean(),
    ),
    "mse_loss": (
        lambda out, y: fs.mse_loss(out, np.eye(5)[y]),
        lambda out, y: torch.nn.functional.mse_loss(out, torch.eye(5)[y].to(out.dtype)),
    ),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("form", ["one row", "batch"])
@pytest.mark.parametrize("leaves", [False, True])
def test_gradients_of_an_mlp(name, form, leaves):
    net, module, X, y = pair()
    ours, theirs = LOSSES[name]
    x, label = (X, y) if form == "batch" else (X[2], int(y[2]))
    tx = torch.tensor(x, requires_grad=leaves)
    fx = fs.to_tensor(x) if leaves else x
    loss = ours(net(fx), label)
    expected = theirs(module(tx), torch.tensor(label))
    close(loss.data, expected.item())
    loss.backward()
    expected.backward()
    same_parameters(net, module, "grad")
    if leaves:
        close(fx.grad, tx.grad.numpy())


def test_a_linear_layer_alone_and_part_of_its_outputs():
    net = fs.MLP(12, [5], seed=3)
    module = torch_net(net)
    x = np.linspace(-1, 1, 12)
    out, expected = net(x), module(torch.tensor(x))
    close([t.data for t in out], expected.detach().numpy())
    fs.squared_loss(out[1:3], [0.5, 0.25]).backward()
    (0.5 * (expected[1:3] - torch.tensor([0.5, 0.25])) ** 2).sum().backward()
    same_parameters(net, module, "grad")


@pytest.mark.parametrize(
    "program", [lambda a: (a * a / 3.0 - a).relu().sum(), lambda a: (a[:, ::2] * a[1][0]).exp().sum()]
)
def test_array_operations(program):
    x = np.random.default_rng(0).normal(size=(4, 6))
    a, b = fs.to_tensor(x), torch.tensor(x, requires_grad=True)
    y, z = program(a), program(b)
    y.backward()
    z.backward()
    close(y.data, z.item(), 10.0)
    close(a.grad, b.grad.numpy())


# --- optimisers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda p: fs.SGD(p, lr=0.05), lambda p: torch.optim.SGD(p, lr=0.05)),
        (lambda p: fs.Adam(p), lambda p: torch.optim.Adam(p)),
        (
            lambda p: fs.Adam(p, lr=0.02, betas=(0.8, 0.95), eps=1e-6),
            lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.8, 0.95), eps=1e-6),
        ),
    ],
)
def test_steps_of_an_optimiser(ours, theirs, batch):
    """Twenty steps; untouched rows take part in Adam's step."""
    net, module, X, y = pair(seed=2)
    mine, other = ours(net.parameters()), theirs(module.parameters())
    for step in range(20):
        k = step % 7
        x, label = (X, y) if batch > 1 else (X[k], int(y[k]))
        mine.zero_grad()
        other.zero_grad()
        fs.cross_entropy(net(x), label).backward()
        torch.nn.functional.cross_entropy(module(torch.tensor(x)), torch.tensor(label)).backward()
        mine.step()
        other.step()
        for a, b in zip(net.linears, linears(module), strict=True):
            np.testing.assert_allclose(a.w.numpy(), b.weight.detach().numpy().T, rtol=1e-9, atol=1e-10)
            np.testing.assert_allclose(a.b.numpy(), b.bias.detach().numpy(), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("clip", [{}, {"clip_norm": 0.7}, {"clip_value": 0.2}], ids=str)
@pytest.mark.parametrize(
    ("name", "constants"),
    [
        ("SGD", {"momentum": 0.9}),
        ("SGD", {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1}),
        ("SGD", {"weight_decay": 0.2}),
        ("Adam", {}),
        ("Adam", {"betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}),
        ("AdamW", {}),
        ("AdamW", {"betas": (0.5, 0.9), "weight_decay": 0.3}),
        ("RMSprop", {}),
        ("RMSprop", {"alpha": 0.9, "momentum": 0.7, "weight_decay": 0.1}),
    ],
    ids=str,
)
def test_a_hundred_steps_from_the_same_gradients(name, constants, clip):
    draw = np.random.default_rng(0)
    start = [draw.normal(size=shape) for shape in ((5, 3), (3,), ())]
    mine = [fs.to_tensor(start[0]), fs.to_tensor(start[1]), fs.Tensor(float(start[2]))]
    other = [torch.tensor(value, requires_grad=True) for value in start]
    ours = getattr(fs.optim, name)(mine, lr=0.02, **constants, **clip)
    theirs = getattr(torch.optim, name)(other, lr=0.02, **constants)
    for _ in range(100):
        for p, q in zip(mine, other, strict=True):
            g = draw.normal(size=q.shape) + q.detach().numpy()
            p.grad = g if q.ndim else float(g)
            q.grad = torch.tensor(g)
        if "clip_norm" in clip:
            torch.nn.utils.clip_grad_norm_(other, clip["clip_norm"])
        if "clip_value" in clip:
            torch.nn.utils.clip_grad_value_(other, clip["clip_value"])
        ours.step()
        theirs.step()
        for p, q in zip(mine, other, strict=True):
            np.testing.assert_allclose(np.asarray(p.data), q.detach().numpy(), rtol=1e-12, atol=1e-12)


def test_gradients_that_accumulate_over_a_minibatch():
    net, module, X, y = pair(seed=4)
    optimizer = fs.SGD(net.parameters(), lr=0.1)
    other = torch.optim.SGD(module.parameters(), lr=0.1)
    for x, k in zip(X, y.tolist(), strict=True):
        fs.cross_entropy(net(x), k).backward(accumulate=True)
        torch.nn.functional.cross_entropy(module(torch.tensor(x)), torch.tensor(k)).backward()
    same_parameters(net, module, "grad")
    optimizer.step()
    other.step()
    same_parameters(net, module)


class Tied(torch.nn.Module):
    """One layer under two names."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(4, 4)
        self.again = self.first
        self.last = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.last(torch.tanh(self.again(torch.tanh(self.first(x)))))


class OurTied(fs.Module):
    def __init__(self, theirs):
        self.first, self.last = fs.Linear(4, 4, seed=0), fs.Linear(4, 3, seed=0)
        self.again = self.first
        for mine, other in ((self.first, theirs.first), (self.last, theirs.last)):
            mine.w.data = other.weight.detach().numpy().T
            mine.b.data = other.bias.detach().numpy()

    def forward(self, x):
        return self.last(self.again(self.first(x).tanh()).tanh())


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: fs.SGD(lr=0.05), lambda p: torch.optim.SGD(p, lr=0.05)),
        (fs.Adam, torch.optim.Adam),
        (
            lambda: fs.SGD(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
            lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
        ),
        (fs.AdamW, torch.optim.AdamW),
        (lambda: fs.RMSprop(eps=1e-4), lambda p: torch.optim.RMSprop(p, eps=1e-4)),
    ],
)
def test_tied_weights_are_trained_as_torch_trains_them(ours, theirs, batch, compile):
    torch.manual_seed(0)
    module = Tied()
    net = OurTied(module)
    draw = np.random.default_rng(0)
    X, y = draw.normal(size=(20, 4)), draw.integers(0, 3, size=20)
    optimizer = theirs(module.parameters())
    for k in [*range(0, 20, batch)] * 2:
        optimizer.zero_grad()
        rows = slice(k, k + batch)
        torch.nn.functional.cross_entropy(module(torch.tensor(X[rows])), torch.tensor(y[rows])).backward()
        optimizer.step()
    given = {"batch_size": batch, "shuffle": False, "schedule": None, "compile": compile, "progress": False}
    fs.fit(net, X, y, optimizer=ours(), epochs=2, **given)
    for mine, other in ((net.first, module.first), (net.last, module.last)):
        np.testing.assert_allclose(mine.w.numpy(), other.weight.detach().numpy().T, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(mine.b.numpy(), other.bias.detach().numpy(), rtol=1e-7, atol=1e-9)
