"""copy, deepcopy and pickle: leaves, arrays of leaves and nets carry their values; a computed Tensor is refused."""

import copy
import pickle

import numpy as np
import pytest

import fastscalar as fs

WAYS = [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]


@pytest.mark.parametrize("way", WAYS)
def test_a_leaf(way):
    t = fs.Tensor(2.5)
    t.grad = 7.0
    other = way(t)
    assert other is not t
    assert (other.data, other.grad, other._parents) == (2.5, 7.0, ())
    other.grad = 1.0
    assert t.grad == 7.0
    other.data = 1.0
    assert t.data == 2.5


@pytest.mark.parametrize("way", WAYS)
def test_an_array_of_leaves(way):
    a = fs.to_tensor(np.arange(6.0).reshape(2, 3))
    b = way(a)
    assert b.numpy().tolist() == a.numpy().tolist()
    b.data[0, 0] = 9.0
    assert a.data[0, 0] == 0.0
    assert way(a[:, 1]).tolist() == [1.0, 4.0]
    a.grad = [[0.0, 1.0, 2.0], [0.0, 0.0, 5.0]]
    c, part = way(a), way(a[:, 2])
    assert (c.grad.tolist(), part.grad.tolist()) == (a.grad.tolist(), [2.0, 5.0])
    c.grad = 0.0
    assert a.grad[1, 2] == 5.0


@pytest.mark.parametrize("way", WAYS)
def test_attributes(way):
    t = fs.Tensor(2.5, label="w")
    t.moment = 0.25
    other = way(t)
    assert (other.label, other.moment, other.grad) == ("w", 0.25, 0.0)
    other.moment = 1.0
    assert t.moment == 0.25
    element = fs.to_tensor([1.0, 2.0])[1]
    element.grad = 3.0
    assert (way(element).data, way(element).grad) == (2.0, 3.0)


def test_the_recorded_gradient_is_copied_as_a_number():
    t = fs.Tensor(2.0)
    (t * t).backward(create_graph=True)
    assert isinstance(t.grad, fs.Tensor)
    assert copy.deepcopy(t).grad == 4.0


@pytest.mark.parametrize("way", WAYS[1:])
def test_a_net(way):
    net = fs.MLP(4, [3, 2], seed=0)
    other = way(net)
    x = [0.1, 0.2, 0.3, 0.4]
    assert other(x).tolist() == net(x).tolist()
    fs.cross_entropy(other(x), 1).backward()
    fs.sgd(other.parameters(), lr=0.5)
    assert other(x).tolist() != net(x).tolist()


@pytest.mark.parametrize("way", WAYS)
def test_what_was_computed_is_refused_and_detach_is_named(way):
    t, a = fs.Tensor(2.0), fs.to_tensor([1.0, 2.0])
    for computed in (t * 3, a * 2.0, (a * 2.0)[0]):
        with pytest.raises(TypeError, match="detach"):
            way(computed)
        assert way(computed.detach()) is not None
