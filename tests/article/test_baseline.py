"""The second baseline, benchmarks/article.py, computes what the twin computes."""

import math
import pathlib
import random
import runpy

import pytest

from fastscalar import reference

ARTICLE = pathlib.Path(__file__).parent.parent.parent / "benchmarks" / "article.py"


@pytest.fixture
def article():
    return runpy.run_path(str(ARTICLE))


def numbers(parameters, field):
    if isinstance(parameters, list):
        return [x for p in parameters for x in numbers(p, field)]
    return [getattr(parameters, field)]


def test_mlp_trains_as_the_twin_does(article):
    """The first loss bit for bit; then to 1e-12: gradients of several terms are summed in another order."""
    rng = random.Random(7)
    data = [([rng.uniform(-1, 1) for _ in range(5)], [rng.random(), rng.random()]) for _ in range(20)]
    ours = reference.MLP(5, [4, 3, 2], init="article", seed=3)
    theirs = article["MLP"](5, [4, 3, 2], random.Random(3))
    assert numbers(ours.parameters(), "data") == numbers(theirs.parameters(), "data")
    for step, (x, y) in enumerate(data):
        losses = []
        for net, library in ((ours, vars(reference)), (theirs, article)):
            loss = library["squared_loss"](net(x), y)
            loss.backward()
            losses.append(loss.data)
        assert losses[0] == losses[1] or step
        for field in ("grad", "data"):
            for a, b in zip(numbers(ours.parameters(), field), numbers(theirs.parameters(), field), strict=True):
                assert math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-12)
        assert any(numbers(ours.parameters(), "grad"))
        reference.sgd(ours.parameters(), 0.01)
        article["sgd"](theirs.parameters(), 0.01)
        assert not any(numbers(theirs.parameters(), "grad"))


def test_operators_and_gradients(article):
    """A diamond whose side is used by its other side: the case that a depth-first pre-order gets wrong."""
    found = []
    for Tensor in (reference.Tensor, article["Tensor"]):
        a, b = Tensor(2.0), Tensor(-3.0)
        side = a * b
        other = side * a - side.relu()
        z = (side + other) * (1.0 - other) + (-b).relu() + 2.0 * a - 4.0
        z.backward()
        found.append([z.data, a.grad, b.grad, side.grad, other.grad, z.grad])
    assert found[0] == found[1]


def test_deep_graphs_need_no_recursion(article):
    x = one = article["Tensor"](1.0)
    for _ in range(20_000):
        x = x + 1.0
    x.backward()
    assert (x.data, one.grad) == (20_001.0, 1.0)


def test_lengths_are_checked(article):
    net = article["Linear"](3, 2)
    with pytest.raises(ValueError, match="2 predictions but 1 targets"):
        article["squared_loss"](net([1.0, 2.0, 3.0]), [1.0])


def test_every_node_is_garbage_in_a_cycle(article):
    """What makes it slow, and what it is kept for."""
    x = article["Tensor"](1.0) + 1.0
    assert any(cell.cell_contents is x for cell in x._backward.__closure__)
