"""Indices, views and assignments of a TensorArray: NumPy's own semantics, against ndarray."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastscalar as fs
from fastscalar.engine import testing

SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4)


def numbered(shape):
    return np.arange(float(np.prod(shape))).reshape(shape) + 0.5


def value(x):
    return x.numpy() if isinstance(x, fs.TensorArray) else np.float64(x.data)


def computed(n):
    """An array whose elements can be replaced."""
    return fs.to_tensor(n) * 1.0


def same(x, n):
    assert np.shape(n) == (x.shape if isinstance(x, fs.TensorArray) else ())
    assert np.array_equal(value(x), n)


@st.composite
def keys(draw, shape):
    """Whatever selects from an array of this shape: basic indices, arrays of whole numbers, masks, and mixtures."""
    kind = draw(st.sampled_from(["basic", "basic", "integers", "mask", "mixed"]))
    if kind == "basic":
        return draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True, max_dims=6))
    if kind == "integers":
        return draw(hnp.integer_array_indices(shape, result_shape=hnp.array_shapes(min_dims=0, max_dims=2, max_side=3)))
    if kind == "mask":
        return draw(hnp.arrays(bool, shape[: draw(st.integers(1, len(shape)))]))
    first = draw(st.integers(-shape[0], shape[0] - 1))
    return draw(st.sampled_from([
        ([0, -1], ...), (..., [0, -1, 0]), ([first], None), (None, [[first, 0]]), (slice(None, None, -1), ..., [0]),
        ([True] + [False] * (shape[0] - 1),), True, False, (True, 0), np.array(0), [[0], [first]],
    ]))  # fmt: skip


def outcome(f):
    try:
        return f(), None
    except (IndexError, TypeError, ValueError) as error:
        return None, type(error)


@settings(max_examples=400, deadline=None)
@given(st.data(), SHAPES)
def test_indices_select_what_numpys_select(data, shape):
    n = numbered(shape)
    key, again = data.draw(keys(shape)), None
    wanted, error = outcome(lambda: n[key])
    found, raised = outcome(lambda: fs.to_tensor(n)[key])
    assert error == raised
    if error:
        return
    same(found, wanted)
    if wanted.ndim and wanted.size:
        again = data.draw(keys(wanted.shape))
        wanted, error = outcome(lambda: wanted[again])
        found, raised = outcome(lambda: found[again])
        assert error == raised
        if not error:
            same(found, wanted)


@settings(max_examples=200, deadline=None)
@given(st.data(), SHAPES)
def test_the_gradient_of_what_was_selected_goes_to_where_it_came_from(data, shape):
    n = numbered(shape)
    key = data.draw(keys(shape))
    wanted, error = outcome(lambda: n[key])
    if error:
        return
    x = fs.to_tensor(n)
    y = x[key]
    weights = np.arange(1.0, wanted.size + 1.0).reshape(np.shape(wanted))
    (y * weights if isinstance(y, fs.Tensor) else (y * weights).sum()).backward() if wanted.size else None
    expected = np.zeros(shape)
    np.add.at(expected, key, weights)
    if wanted.size:
        assert np.array_equal(x.grad, expected)


@settings(max_examples=200, deadline=None)
@given(st.data(), SHAPES)
def test_assignments_do_what_numpys_do_in_all_views(data, shape):
    n, x = numbered(shape), computed(numbered(shape))
    key = data.draw(keys(shape))
    views = [(n, x), (n.T, x.T), (n[0], x[0]), (n[..., ::-1], x[..., ::-1]), (n.ravel(), x.ravel())]
    at = data.draw(st.integers(0, len(views) - 1))
    if outcome(lambda: views[0][0][key])[1]:
        return
    to, to_x = views[0] if at == 0 or views[at][0].ndim == 0 else views[at]
    if outcome(lambda: to[key])[1]:
        return
    result = np.shape(to[key])
    new = -np.arange(float(np.prod(result))).reshape(result) if data.draw(st.booleans()) else np.float64(-7.0)
    to[key] = new
    to_x[key] = new if data.draw(st.booleans()) or np.ndim(new) == 0 or not new.size else fs.to_tensor(new)
    for seen, seen_x in views:
        same(seen_x, seen)


@settings(max_examples=150, deadline=None)
@given(st.data(), SHAPES)
def test_reshape_gives_what_numpys_gives_and_a_view_where_numpys_is_one(data, shape):
    n = numbered(shape)
    x = fs.to_tensor(n)
    axes = data.draw(st.permutations(range(len(shape))))
    n, x = n.transpose(axes), x.transpose(axes)
    wanted = data.draw(st.sampled_from([(-1,), n.shape[::-1], (n.size, 1), (1, -1), (*n.shape, 1), n.shape]))
    order = data.draw(st.sampled_from("CF"))
    same(x.reshape(wanted, order=order), n.reshape(wanted, order=order))
    before = fs.tape_info()["wide_instructions"]
    kept = x.reshape(wanted)
    if np.shares_memory(n, n.reshape(wanted)):
        assert fs.tape_info()["wide_instructions"] <= before
    assert kept.shape == n.reshape(wanted).shape


@pytest.mark.parametrize("count", [4, 0])
@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("shape", [(2**62 + 1, 4), (2**32, 2**32, 4), (2**32, 2**32), (-1, 2**64 + 4), (2**64, 0),
                                   (2**63 - 1, 2), (2, 2**63), (-(2**63), 2)])
def test_no_shape_has_as_many_elements_modulo_2_to_64(shape, count, order):
    x = fs.to_tensor(numbered((4,)))[:count]
    with pytest.raises(ValueError, match="has no shape"):
        x.reshape(shape, order=order)


def test_views_make_no_nodes_and_share_elements():
    x = fs.to_tensor(numbered((3, 4)))
    before = fs.tape_info()["nodes"]
    views = [x.T, x.reshape(2, 6), x[::2], x[..., None], x.ravel(), x.squeeze(), x.swapaxes(0, 1), x[:, ::-1],
             np.expand_dims(x, 0), np.moveaxis(x, 0, 1), x.diagonal(), np.broadcast_to(x, (5, 3, 4)), x[1:1]]
    assert fs.tape_info()["nodes"] == before
    assert x.T[1, 2] is x[2, 1]
    assert views[1][1, 0] is x[1, 2]
    assert x.diagonal()[1] is x[1, 1]
    assert len(views) == 13


def test_views_outlive_what_they_came_from_and_collections():
    x = fs.to_tensor(numbered((3, 4))) * 2.0
    part, column = x.T[1:, ::-1], x[:, 1]
    del x
    gc.collect()
    for _ in range(3):
        [fs.Tensor(k) for k in range(1000)]
        testing.collect()
    assert np.array_equal(part.numpy(), (numbered((3, 4)) * 2).T[1:, ::-1])
    column[0] = 5.0
    assert part[0, -1].data == 5.0
    testing.check()


def test_elements_of_parameters_and_arguments_are_not_replaced():
    p = fs.to_tensor([1.0, 2.0])
    for x in (p, p[:], p[::-1]):
        with pytest.raises(TypeError, match="copy"):
            x[0] = 3.0
    q = p.copy()
    q[0] = fs.Tensor(5.0)
    assert p.tolist() == [1.0, 2.0]
    assert q.tolist() == [5.0, 2.0]
    with pytest.raises(ValueError, match="does not fit"):
        q[:] = [1.0, 2.0, 3.0]
    with pytest.raises(IndexError):
        q[2] = 0.0


def test_what_was_computed_before_an_assignment_stays_what_it_was():
    x = fs.to_tensor([1.0, 2.0, 3.0])
    y = x * 2.0
    before = y.sum()
    y[1] = x[0] * 10.0
    after = (y * y).sum()
    before.backward()
    assert x.grad.tolist() == [2.0, 2.0, 2.0]
    after.backward()
    assert before.data == 12.0
    assert after.data == 4.0 + 100.0 + 36.0
    assert x.grad.tolist() == [8.0 + 200.0, 2.0, 24.0]           # x[1] is not reached any more


def test_in_place_operations_go_to_all_who_hold_the_array():
    for view in (False, True):
        x = fs.to_tensor([1.0, 2.0])
        y = x * 1.0
        held, row = y, y[:1] if view else None
        y += 1.0
        y *= x
        assert held is y
        assert y.tolist() == [2.0, 6.0]
        if view:
            row -= 2.0
            assert y.tolist() == [0.0, 6.0]
        y.sum().backward()
        assert x.grad.tolist() == [3.0, 5.0]
    p = fs.to_tensor([1.0, 2.0])
    q = p
    q += 1.0                                     # of a parameter: another array
    assert p.tolist() == [1.0, 2.0]
    assert q.tolist() == [2.0, 3.0]
    with pytest.raises(ValueError, match="does not fit"):
        y += np.ones((3, 2))


def test_a_thousand_assignments_hold_no_more_than_the_last():
    x = fs.to_tensor(np.ones(20)) * 1.0
    testing.collect()
    before = fs.tape_info()["nodes"]
    for k in range(1000):
        x[k % 20] = float(k)
    testing.collect()
    assert fs.tape_info()["nodes"] < before + 100


LARGE = [
    lambda x: x + 1.0, lambda x: x * x, np.exp, lambda x: x.sum(), lambda x: x.max(), np.cumsum, np.linalg.norm,
    lambda x: x @ x, lambda x: np.einsum("i,i->", x, x), lambda x: np.tensordot(x, x, 0), fs.softmax, fs.logsumexp,
    fs.mean, fs.argmax, lambda x: fs.mse_loss(x, x), lambda x: fs.cross_entropy(x, 0), lambda x: fs.dot(x, x),
    lambda x: x.ravel()[::2] - x[::2], np.diff, lambda x: fs.Linear(3, 2)(np.broadcast_to(x[:1], (2**40, 3))),
    lambda x: fs.nn.Conv2d(1, 1, 2)(np.broadcast_to(x[:1], (2**20, 2**20))),
    lambda x: fs.nn.MaxPool2d(2)(np.broadcast_to(x[:1], (2**20, 2**20, 1))),
]  # fmt: skip


@pytest.mark.parametrize("operation", LARGE, ids=map(str, range(len(LARGE))))
def test_views_may_have_more_elements_than_an_operation_takes(operation):
    x = np.broadcast_to((fs.to_tensor([1.0]) * 2.0)[:1], 2**40)
    assert x.shape == (2**40,)
    with pytest.raises(MemoryError):
        operation(x)
    assert (fs.Tensor(2.0) * 3.0).data == 6.0


def test_a_sum_may_have_more_terms_than_an_operation_takes():
    x = fs.to_tensor(np.ones(2**16)) * 1.0
    with pytest.raises(MemoryError, match="4,294,967,296"):
        np.einsum("i,j->", x, x)
    assert np.einsum("i,j->", x[:300], x[:300]).data == 90000.0


@pytest.mark.parametrize("make", [
    lambda: fs.Linear(2**40, 1), lambda: fs.MLP(2, [2**40, 1]), lambda: fs.nn.Conv2d(2**20, 2**20, 9),
    lambda: fs.nn.Embedding(2**40, 2),
])  # fmt: skip
def test_layers_that_the_tape_cannot_hold_are_refused_before_they_are_drawn(make):
    with pytest.raises(MemoryError, match="2,147,483,647"):
        make()
