"""Layers against the same layer written by hand with scalar operations; touched rows; every kernel set.

Values agree bit for bit, gradients to 1e-12 of the sum of the absolute terms.
"""

import itertools
import random
import re

import numpy as np
import pytest

import clock
import fastscalar
from fastscalar import _core, reference
from fastscalar.engine import testing

M, N = 6, 37  # inputs; outputs: one block of 32, none of 8, a rest of 5

INPUTS = {
    "dense": [0.5, -1.25, 3.0, 1e-3, -7.0, 0.3],
    "zeros": [0.0, -1.25, 0.0, -0.0, 2.0, 0.0],
    "all zeros": [0.0, -0.0, 0.0, 0.0, 0.0, 0.0],
}


def strided(x):
    wide = np.full((3, 2 * len(x)), 9.0)
    wide[1, ::2] = x
    return wide[1, ::2]


def unaligned(x):
    raw = bytearray(8 * len(x) + 1)
    array = np.frombuffer(raw, dtype=np.float64, offset=1)
    array[:] = x
    return array


CONSTANTS = {
    "list": list,
    "tuple": tuple,
    "float64": np.array,
    "strided": strided,
    "backwards": lambda x: np.array(x[::-1])[::-1],
    "unaligned": unaligned,
    "big-endian": lambda x: np.array(x, dtype=">f8"),
    "read-only": lambda x: np.frombuffer(np.array(x).tobytes()),
    "objects": lambda x: np.array(x, dtype=object),
    "generator": lambda x: (e for e in x),
}
LEAVES = {
    "array": fastscalar.to_tensor,
    "list of Tensors": lambda x: [fastscalar.Tensor(e) for e in x],
    "tuple of elements": lambda x: tuple(fastscalar.to_tensor(x)),
    "slice": lambda x: fastscalar.to_tensor(list(itertools.chain(*zip(x, x, strict=True))))[::2],
    "backwards": lambda x: fastscalar.to_tensor(x[::-1])[::-1],
    "column": lambda x: fastscalar.to_tensor([[0.0, e, 1.0] for e in x])[:, 1],
    "objects": lambda x: np.array([fastscalar.Tensor(e) for e in x], dtype=object),
}


def by_hand(linear, x):
    """The same layer in scalar operations, on the same weights."""
    out = []
    for i in range(linear.out_features):
        total = 0.0 + linear.b[i]
        for j in range(linear.in_features):
            total = total + x[j] * linear.w[j][i]
        out.append(total)
    return out


def gradients(arrays):
    return [a.grad.copy() if isinstance(a, fastscalar.TensorArray) else np.array([t.grad for t in a]) for a in arrays]


def values(tensors):
    return [t.data for t in tensors]


def assert_same_gradients(loss, expected, arrays, terms=1.0):
    """Two losses that are the same function leave the same gradients, to 1e-12 of `terms`."""
    loss.backward()  # nothing touched yet, unless by an earlier one
    first = gradients(arrays)
    found = []
    for root in (loss, expected):
        for a in arrays:
            for t in a:
                t.grad = 1e300  # what is reached is reset, the rest stays
        root.backward()
        found.append(gradients(arrays))
    for f, g, e in zip(first, *found, strict=True):
        np.testing.assert_array_equal(f[g != 1e300], g[g != 1e300])
        np.testing.assert_allclose(g, e, rtol=1e-12, atol=1e-12 * terms)


def weigh(out):
    """A loss whose output gradients all differ: sum of (0.1 + 0.01 i) out[i]**2."""
    total = fastscalar.Tensor(0.0)
    for i, t in enumerate(out):
        total = total + (0.1 + 0.01 * i) * t * t
    return total


@pytest.fixture
def linear():
    return fastscalar.Linear(M, N, seed=5)


# --- values and gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("constant", CONSTANTS.values(), ids=CONSTANTS)
def test_a_layer_of_constants_is_the_scalar_code(linear, constant, numbers):
    out, expected = linear(constant(numbers)), by_hand(linear, numbers)
    assert values(out) == values(expected)
    assert_same_gradients(weigh(out), weigh(expected), [*linear.w, linear.b], 100.0)
    assert len(out[3]._parents) == M + 1
    assert out[3]._parents[2] is linear.w[2][3]
    assert out[3]._parents[-1] is linear.b[3]


def test_float32_rows_are_constants_with_their_own_values(linear):
    numbers = np.array(INPUTS["dense"], dtype=np.float32)
    assert values(linear(numbers)) == values(by_hand(linear, numbers.astype(float)))
    wide = np.repeat(numbers, 3)[::3]
    assert values(linear(wide)) == values(linear(numbers)) == values(linear(numbers.astype(np.longdouble)))


@pytest.mark.parametrize("numbers", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("leaves", LEAVES.values(), ids=LEAVES)
def test_a_layer_of_leaves_is_the_scalar_code(linear, leaves, numbers):
    x = leaves(numbers)
    out, expected = linear(x), by_hand(linear, x)
    assert values(out) == values(expected)
    assert_same_gradients(weigh(out), weigh(expected), [*linear.w, linear.b, x], 100.0)
    assert out[3]._parents[1] is x[1]
    assert len(out[3]._parents) == 2 * M + 1


def test_a_mixed_list_has_gradients_for_its_tensors(linear):
    a, b = fastscalar.Tensor(0.0), fastscalar.Tensor(-2.0)
    x = [1.0, a, np.float32(0.5), True, b, a]
    out, expected = linear(x), by_hand(linear, x)
    assert values(out) == values(expected)
    assert_same_gradients(weigh(out), weigh(expected), [*linear.w, linear.b, [a, b]], 100.0)


def test_one_tensor_as_every_input(linear):
    a = fastscalar.Tensor(0.75)
    out, expected = linear([a] * M), by_hand(linear, [a] * M)
    assert values(out) == values(expected)
    assert_same_gradients(weigh(out), weigh(expected), [*linear.w, [a]], 100.0)


@pytest.mark.parametrize("numbers", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("activate", [lambda h: h.relu(), fastscalar.relu, lambda h: [j.relu() for j in h]])
def test_relu_between_two_layers(activate, numbers):
    net = fastscalar.MLP(M, [9, 4], seed=2)
    x = fastscalar.to_tensor(numbers)
    first, second = net.linears
    out = second(activate(first(x)))
    expected = by_hand(second, [t.relu() for t in by_hand(first, x)])
    assert values(out) == values(net(x)) == values(expected)
    arrays = [*first.w, first.b, *second.w, second.b, x]
    assert_same_gradients(weigh(out), weigh(expected), arrays, 100.0)


def test_one_output_of_a_net_costs_no_more_than_all_of_them():
    """Its hidden layer is reached node by node, but wholly: 6 ms a sample if each node takes its own step."""
    x = np.random.default_rng(0).random(784)
    net = fastscalar.MLP(784, [256, 10], seed=0)

    def step(outputs):
        loss = fastscalar.squared_loss(net(x)[:outputs], [0.0] * outputs)
        loss.backward()
        fastscalar.sgd(net.parameters(), 1e-9)

    assert clock.ratio(lambda: step(1), lambda: step(10), limit=8.0, least=20) < 8.0


@pytest.mark.parametrize("selection", [slice(1), slice(None, None, 2), slice(None, None, -1), slice(2, 5)])
def test_part_of_the_outputs(linear, selection):
    """`net(x)[:1]` trains one output: what the others' weights had before, or a zero, does not come back."""
    x = fastscalar.to_tensor(INPUTS["zeros"])
    out, expected = linear(x)[selection], by_hand(linear, x)[selection]
    loss, by_hand_loss = fastscalar.squared_loss(out, [1.0] * len(out)), weigh([])
    for t in expected:
        by_hand_loss = by_hand_loss + (t - 1.0) * (t - 1.0) * 0.5
    weigh(linear(x)).backward()  # every row is touched, every gradient non-zero where the input is
    before = linear.w.grad.copy()
    loss.backward()
    found = [linear.w.grad.copy(), linear.b.grad.copy(), x.grad.copy()]
    linear.w.grad = before
    by_hand_loss.backward()
    for f, e in zip(found, [linear.w.grad, linear.b.grad, x.grad], strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("as_leaves", [False, True])
def test_a_batch_is_its_rows(linear, as_leaves):
    X = [*INPUTS.values(), INPUTS["dense"][::-1]]
    X = fastscalar.to_tensor(X) if as_leaves else np.array(X)
    out = linear(X)
    assert out.shape == (4, N)
    rows = [linear(row) for row in X]
    for r in range(4):
        assert values(out[r]) == values(rows[r])
    total, expected = weigh(out[0]), weigh(rows[0])
    for r in range(1, 4):
        total, expected = total + weigh(out[r]), expected + weigh(rows[r])
    assert_same_gradients(total, expected, [*linear.w, linear.b, *(X if as_leaves else [])], 100.0)


@pytest.mark.parametrize(
    "form",
    [
        lambda X: X.tolist(),
        lambda X: list(X),
        lambda X: np.asfortranarray(X),
        lambda X: np.repeat(X, 2, axis=0)[::2],
        lambda X: X.astype(np.float32).astype(object),
        lambda X: [fastscalar.to_tensor(row) for row in X],
    ],
)
def test_forms_of_a_batch(linear, form):
    X = np.array([INPUTS["dense"], INPUTS["zeros"]]).astype(np.float32).astype(float)
    assert linear(form(X)).tolist() == linear(X).tolist() == [values(by_hand(linear, x)) for x in X]


def test_a_column_of_a_batch_of_outputs(linear):
    """Partial outputs of an instruction with several rows: one output of each."""
    X = fastscalar.to_tensor([INPUTS["dense"], INPUTS["zeros"]])
    out = linear(X)[:, 4]
    expected = [by_hand(linear, row)[4] for row in X]
    assert_same_gradients(weigh(out), weigh(expected), [*linear.w, linear.b, *X], 100.0)


@pytest.mark.parametrize("fs", [fastscalar, reference])
def test_engine_and_twin_give_the_same_bits_forward(fs):
    net, twin = fs.MLP(M, [19, 10], seed=4), reference.MLP(M, [19, 10], seed=4)
    for x in INPUTS.values():
        assert values(net(x)) == values(twin(x))
        assert fs.cross_entropy(net(x), 3).data == reference.cross_entropy(twin(x), 3).data
        y = [0.5] * 10
        assert fs.squared_loss(net(x), y).data == reference.squared_loss(twin(x), y).data


def test_a_user_s_own_layer_with_replaced_weights():
    """Weights need not be one array: a list of rows, a transposed selection, constants."""
    whole = fastscalar.Linear(3, 4, seed=1)
    x = fastscalar.to_tensor([0.5, 0.0, -2.0])
    expected = values(whole(x))
    other = fastscalar.Linear(3, 4, seed=9)
    other.w, other.b = [list(row) for row in whole.w], whole.b[::1]
    assert values(other(x)) == expected
    assert_same_gradients(weigh(other(x)), weigh(by_hand(whole, x)), [*whole.w, whole.b, x], 10.0)
    other.w = whole.w.tolist()
    assert values(other(x)) == expected
    other(x)[1].backward()
    assert x.grad.tolist() == [row[1] for row in other.w]


def test_the_input_may_be_what_the_layer_itself_is_made_of():
    net = fastscalar.Linear(3, 3, seed=1)
    out, expected = net(net.w[1]), by_hand(net, net.w[1])
    assert values(out) == values(expected)
    assert_same_gradients(weigh(out), weigh(expected), [*net.w, net.b], 10.0)


# --- losses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [0, 2, True, 1.0, np.int64(2), np.uint8(1), fastscalar.Tensor(2.0)])
def test_cross_entropy_is_the_scalar_code(label):
    logits = fastscalar.to_tensor([0.25, -3.0, 2.0])
    z = [fastscalar.Tensor(t.data) for t in logits]
    shift = max(t.data for t in z)
    total = fastscalar.Tensor(0.0)
    for t in z:
        total = total + (t - shift).exp()
    expected = total.log() + shift - z[int(float(label))]
    loss = fastscalar.cross_entropy(logits, label)
    assert loss.data == expected.data
    loss.backward()
    expected.backward()
    np.testing.assert_allclose(logits.grad, values_of_gradients(z), rtol=1e-12, atol=1e-15)


def values_of_gradients(tensors):
    return [t.grad for t in tensors]


def test_an_mlp_has_its_layers_and_a_flat_list_of_parameters(fs):
    """As in the article: `for p in net.parameters()` meets weights and biases."""
    for sizes in ([1], [2, 1], [5, 4, 3]):
        net = fs.MLP(3, sizes, seed=0)
        assert net.num_linears == len(net.linears) == len(sizes)
        parameters = net.parameters()
        assert len(parameters) == 2 * len(sizes)
        expected = [p for linear in net.linears for p in (linear.w, linear.b)]
        assert all(p is q for p, q in zip(parameters, expected, strict=True))


def test_losses_of_rows_are_means():
    logits, labels = fastscalar.to_tensor([[0.25, -3.0], [2.0, 1.0], [0.0, 0.0]]), [1, 0, 1]
    y = [[1.0, 0.0], [2.0, 2.0], [-1.0, 3.0]]
    of_y = [(loss, y) for loss in (fastscalar.squared_loss, fastscalar.mse_loss)]
    for loss, targets in ((fastscalar.cross_entropy, labels), *of_y):
        parts = [loss(row, t) for row, t in zip(logits, targets, strict=True)]
        expected = (parts[0] + parts[1] + parts[2]) / 3
        assert loss(logits, targets).data == pytest.approx(expected.data, rel=1e-15)
        assert loss(logits, np.array(targets)).data == loss(logits, targets).data
        assert_same_gradients(loss(logits, targets), expected, [*logits])


def test_squared_loss_of_two_sides_that_share_tensors():
    a, b = fastscalar.Tensor(2.0), fastscalar.Tensor(-1.0)
    fastscalar.squared_loss([a, b, a], [b, 3.0, a]).backward()
    assert (a.grad, b.grad) == (3.0, -3.0 - 4.0)


@pytest.mark.parametrize("fs", [fastscalar, reference])
@pytest.mark.parametrize("loss", ["squared_loss", "mse_loss"])
@pytest.mark.parametrize(
    ("y_hat", "y", "advice"),
    [
        ([1.0, 2.0], [1.0], "; if only the first is meant: {}(y_hat[:1], y)"),
        ([1.0] * 10, [3.0], "; if only the first is meant: {}(y_hat[:1], y)"),
        ([1.0] * 3, [3.0] * 2, "; if only the first ones are meant: {}(y_hat[:2], y)"),
        ([1.0], [1.0, 2.0], ""),
    ],
)
def test_a_length_mismatch_of_a_loss_names_both_lengths_and_what_to_write(fs, loss, y_hat, y, advice):
    expected = f"{loss}: {len(y_hat)} predictions but {len(y)} targets{advice.format(loss)}"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        getattr(fs, loss)([fs.Tensor(e) for e in y_hat], y)


@pytest.mark.parametrize("loss", ["squared_loss", "mse_loss"])
@pytest.mark.parametrize(
    ("y_hat", "y"), [((10,), (1,)), ((10,), ()), ((5,), (3,)), ((4, 10), (4, 1)), ((4, 10), (4,)), ((4, 10), (4, 3))]
)
def test_what_a_mismatch_tells_to_write_works(loss, y_hat, y):
    loss_of = getattr(fastscalar, loss)
    predictions, targets = fastscalar.to_tensor(np.ones(y_hat)), np.ones(y)
    with pytest.raises(ValueError, match=r"if only the first (is|ones are) meant") as caught:
        loss_of(predictions, targets)
    advice = str(caught.value).partition("meant: ")[2]
    assert eval(advice, {loss: loss_of, "y_hat": predictions, "y": targets}).data == 0.0


@pytest.mark.parametrize(("y_hat", "y"), [((3,), (4,)), ((4, 3), (4, 4)), ((4, 3), (3, 3)), ((2, 3), (6,))])
def test_a_mismatch_of_another_kind_tells_nothing(y_hat, y):
    with pytest.raises(ValueError, match=r"predictions but .* targets$"):
        fastscalar.squared_loss(fastscalar.to_tensor(np.ones(y_hat)), np.ones(y))


@pytest.mark.parametrize("label", [-1, 3, 0.5, 10**6, float("nan")])
def test_a_label_out_of_range_is_a_value_error_that_names_it(label):
    for fs in (fastscalar, reference):
        with pytest.raises(ValueError, match=r"0\.\.2") as caught:
            fs.cross_entropy([fs.Tensor(1.0)] * 3, label)
        assert repr(label) in str(caught.value)
    with pytest.raises(TypeError, match="str"):
        fastscalar.cross_entropy(fastscalar.to_tensor([1.0, 2.0]), "1")
    for column in ([1], np.array([0.0, 1.0]), fastscalar.to_tensor([0.0, 1.0])):
        with pytest.raises(TypeError, match=r"y\.ravel\(\).*y\.argmax"):
            fastscalar.cross_entropy(fastscalar.to_tensor([1.0, 2.0]), column)


# --- shapes and types that do not fit -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_images_of_whole_numbers_are_a_value_error_that_says_divide_by_255(dtype):
    net = fastscalar.MLP(4, [3, 2], seed=0)
    for X in (np.ones(4, dtype), np.ones((5, 4), dtype)):
        with pytest.raises(ValueError, match=r"/ 255; .*\.astype\(float\)"):
            net(X)


@pytest.mark.parametrize("shape", [(5,), (7,), (2, 5), (6, 1), (2, 3, 6)])
def test_inputs_of_another_length_are_a_value_error_that_names_it(linear, shape):
    for x in (np.ones(shape), np.ones(shape).tolist(), fastscalar.to_tensor(np.ones(shape))):
        with pytest.raises(ValueError, match=r"expected 6 inputs") as caught:
            linear(x)
        assert str(shape) in str(caught.value)


def test_empty_and_ragged_inputs_are_value_errors(linear):
    for x in ([], np.ones((0, 6)), [[]], [[1.0] * 6, [1.0] * 5], [[1.0] * 6, 1.0], [1.0] * 5 + [[1.0]]):
        with pytest.raises(ValueError):
            linear(x)
    ragged = [[fastscalar.Tensor(1.0)] * 6, [1.0] * 5]
    with pytest.raises(ValueError, match="ragged"):
        linear(ragged)


@pytest.mark.parametrize("wrong", [None, "123456", 1j, {}, {1.0}, np.ones(6, complex), [1.0] * 5 + ["a"], [None] * 6])
def test_inputs_that_are_not_numbers_are_type_errors(linear, wrong):
    with pytest.raises(TypeError):
        linear(wrong)


def test_a_single_number_is_not_a_row(linear):
    for x in (1.0, fastscalar.Tensor(1.0)):
        with pytest.raises(ValueError, match="expected 6 inputs"):
            linear(x)


@pytest.mark.parametrize("width", [0, -1, 2.0, True, "3", None])
def test_widths_are_whole_numbers_from_one(width):
    with pytest.raises(ValueError, match="expected a whole number"):
        fastscalar.Linear(width, 2)
    with pytest.raises(ValueError, match="expected a whole number"):
        fastscalar.MLP(2, [3, width])
    with pytest.raises(ValueError, match="list of layer sizes"):
        fastscalar.MLP(2, [])


def test_an_unknown_initialisation_is_a_value_error(fs):
    with pytest.raises(ValueError, match="'xavier'"):
        fs.Linear(2, 2, init="xavier")


def test_a_nan_input_is_not_skipped_and_a_zero_is():
    """The documented difference: 0 * (an infinite weight) counts as 0."""
    net = fastscalar.Linear(2, 1, seed=0)
    net.w.data = [[np.inf], [1.0]]
    assert values(net([0.0, 2.0])) == [2.0]
    assert np.isnan(net([np.nan, 0.0])[0].data)


# --- touched rows -------------------------------------------------------------------------------------------


class ByHand:
    """A Linear and a copy of its numbers as single Tensors, that go through the same steps."""

    def __init__(self, m, n):
        self.linear = fastscalar.Linear(m, n, seed=3)
        self.w = [[fastscalar.Tensor(t.data) for t in row] for row in self.linear.w]
        self.b = [fastscalar.Tensor(t.data) for t in self.linear.b]
        self.in_features, self.out_features = m, n

    def agree(self):
        np.testing.assert_allclose(self.linear.w.numpy(), [values(row) for row in self.w], rtol=1e-12, atol=1e-12)
        expected = [[t.grad for t in row] for row in self.w]
        np.testing.assert_allclose(self.linear.w.grad, expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(self.linear.b.grad, [t.grad for t in self.b], rtol=1e-12, atol=1e-12)
        testing.check()  # a row that is not in the set is zero in memory

    def both(self, x, extra, **keywords):
        (weigh(self.linear(x)) + extra(self.linear.w)).backward(**keywords)
        (weigh(by_hand(self, x)) + extra(self.w)).backward(**keywords)


NOTHING = lambda w: 0.0
REGULARISER = lambda w: 0.5 * w[3][2] * w[3][2] + 0.1 * w[1][0]
TIED = lambda w: w[1][2] * w[3][1] * w[5][0]
XS = [[0.0, 1.0, 0.0, -2.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.5, 0.0, 3.0], [0.0] * 6, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]


@pytest.mark.parametrize("seed", range(30 if not _core.tape_info()["stress"] else 5))
def test_touched_rows_are_right_under_any_mix_of_writers(seed):
    """Layer, scalar regulariser, tied weight, accumulate, a gradient by hand, readers of all rows, sgd, zeroing."""
    rng = random.Random(seed)
    pair = ByHand(6, 3)
    for _ in range(25):
        action = rng.randrange(8)
        x = rng.choice(XS)
        if action < 3:
            extra = rng.choice([NOTHING, REGULARISER, TIED])
            pair.both(x, extra, accumulate=rng.random() < 0.4)
        elif action == 3:
            j, i = rng.randrange(6), rng.randrange(3)
            pair.linear.w[j][i].grad = pair.w[j][i].grad = rng.choice([5.0, 0.0, -1.5])
        elif action == 4:
            pair.agree()
        elif action == 5:
            fastscalar.sgd(pair.linear.parameters(), 0.01)
            fastscalar.sgd([pair.w, pair.b], 0.01)
        elif action == 6:
            twice = pair.linear(x), pair.linear(XS[1])
            (weigh(twice[0]) + weigh(twice[1])).backward()
            (weigh(by_hand(pair, x)) + weigh(by_hand(pair, XS[1]))).backward()
        else:
            j = rng.randrange(6)
            pair.linear.w.data[j] = 0.25
            for t in pair.w[j]:
                t.data = 0.25
    pair.agree()


def test_a_gradient_written_by_hand_is_stepped_and_reset():
    w = fastscalar.Linear(5, 3, seed=0).w
    before = w.numpy()
    w[3][2].grad = 5
    fastscalar.sgd(w, 0.5)
    before[3, 2] -= 2.5
    assert w.tolist() == before.tolist()
    assert not w.grad.any()
    w[3][2].grad = 5
    (w[0][0] * 2.0).backward()
    assert w.grad[3, 2] == 5.0  # not reached: it keeps its gradient
    (w * 1.0).sum().backward()
    assert (np.asarray(w.grad) == 1.0).all()


def test_the_rows_of_a_zero_input_lose_their_old_gradient():
    linear = fastscalar.Linear(3, 2, seed=0)
    weigh(linear([1.0, 2.0, 3.0])).backward()
    assert np.asarray(linear.w.grad).all()
    weigh(linear([0.0, 2.0, 0.0])).backward()
    assert np.asarray(linear.w.grad).any(axis=1).tolist() == [False, True, False]


# --- the factored gradient ----------------------------------------------------------------------------------


def test_the_factored_gradient_is_the_materialised_one_bit_for_bit():
    """One use of a Linear and then sgd is a single pass over the weights; reading the gradient first is two."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 50)) * (rng.random((40, 50)) < 0.3)
    nets = [fastscalar.MLP(50, [33, 10], seed=1) for _ in range(3)]
    for k, x in enumerate(X):
        for which, net in enumerate(nets):
            fastscalar.cross_entropy(net(x), k % 10).backward()
            if which == 1:
                assert net.linears[0].w.grad.shape == (50, 33)
                net.linears[0].w.grad[0, 0]
            if which == 2:
                net.linears[0].w.grad = net.linears[0].w.grad.copy()  # now every row is touched
            fastscalar.sgd(net.parameters(), 0.05)
    weights = [[linear.w.tolist() for linear in net.linears] for net in nets]
    assert weights[0] == weights[1] == weights[2]


def test_a_second_use_of_the_weights_is_added_to_the_factored_gradient():
    linear = fastscalar.Linear(4, 3, seed=0)
    x, z = [1.0, 0.0, 2.0, 0.0], [0.0, 3.0, -1.0, 0.0]
    for extra in (NOTHING, lambda w: w[3][2] * 2.0):
        loss = weigh(linear(x)) + weigh(linear(z)) + extra(linear.w)
        expected = weigh(by_hand(linear, x)) + weigh(by_hand(linear, z)) + extra(linear.w)
        assert_same_gradients(loss, expected, [*linear.w, linear.b], 10.0)


def test_a_factored_gradient_is_of_the_values_at_the_backward():
    """The input changes after backward and before anybody reads the gradient."""
    linear = fastscalar.Linear(2, 2, seed=0)
    x = fastscalar.to_tensor([1.0, 2.0])
    linear(x)[0].backward()
    (linear(x) * 1.0).sum().backward()
    x.data = [100.0, 0.0]
    assert linear.w.grad.tolist() == [[1.0, 1.0], [2.0, 2.0]]


# --- kernels ------------------------------------------------------------------------------------------------


def train_a_little(batch, as_leaves):
    rng = np.random.default_rng(7)
    X = rng.normal(size=(24, 45)) * (rng.random((24, 45)) < 0.5)
    net = fastscalar.MLP(45, [41, 10], seed=6)
    seen = []
    for k in range(0, 24, batch):
        x = X[k : k + batch] if batch > 1 else X[k]
        x = fastscalar.to_tensor(x) if as_leaves else x
        labels = [(k + r) % 10 for r in range(batch)] if batch > 1 else k % 10
        loss = fastscalar.cross_entropy(net(x), labels)
        loss.backward()
        seen += [loss.data.hex(), x.grad.tobytes() if as_leaves else b""]
        fastscalar.sgd(net.parameters(), 0.1)
    return seen, [linear.w.numpy().tobytes() + linear.b.numpy().tobytes() for linear in net.linears]


@pytest.mark.parametrize("as_leaves", [False, True])
@pytest.mark.parametrize("batch", [1, 4])
def test_every_kernel_set_gives_the_same_bits(batch, as_leaves):
    before = _core.tape_info()["kernels"]
    results = []
    try:
        for name in _core.kernel_sets():
            _core._select_kernels(name)
            assert _core.tape_info()["kernels"] == name
            results.append(train_a_little(batch, as_leaves))
    finally:
        _core._select_kernels(before)
    assert "baseline" in _core.kernel_sets()
    assert all(r == results[0] for r in results)


def test_an_unknown_kernel_set_is_a_value_error():
    with pytest.raises(ValueError, match="'sse9'"):
        _core._select_kernels("sse9")


# --- modules ------------------------------------------------------------------------------------------------


def test_a_user_s_module_finds_its_parameters_and_trains():
    class Net(fastscalar.Module):
        def __init__(self):
            self.first = fastscalar.Linear(2, 3, seed=0)
            self.rest = {"scale": fastscalar.Tensor(0.5), "layers": [fastscalar.Linear(3, 1, seed=1)]}
            self.name = "net"

        def forward(self, x):
            return self.rest["layers"][0](self.first(x).relu() * self.rest["scale"])

    net = Net()
    first, (scale, (last,)) = net.parameters()
    assert first[0] is net.first.w
    assert scale is net.rest["scale"]
    assert last[1] is net.rest["layers"][0].b
    losses = []
    for _ in range(50):
        loss = fastscalar.squared_loss(net([1.0, -1.0]), [3.0])
        loss.backward()
        fastscalar.sgd(net.parameters(), 0.05)
        losses.append(loss.data)
    assert losses[-1] < 1e-3 * losses[0]


def test_a_module_without_forward_says_so():
    with pytest.raises(NotImplementedError, match="Empty does not define forward"):
        type("Empty", (fastscalar.Module,), {})()(1.0)


def test_parameters_that_are_not_tensors_are_a_type_error_before_anything_changes():
    w = fastscalar.Tensor(1.0)
    w.grad = 1.0
    with pytest.raises(TypeError, match="float"):
        fastscalar.sgd([w, [0.5]], 0.1)
    assert (w.data, w.grad) == (1.0, 1.0)


@pytest.mark.parametrize("init", ["he", "article"])
def test_engine_twin_and_the_articles_classes_draw_the_same_weights(init):
    """Each has a few lines of its own: the twin imports nothing."""
    nets = [module.MLP(5, [4, 3], init=init, seed=7) for module in (fastscalar, reference, fastscalar.article)]
    drawn = [[[[w.data for w in row] for row in p.w] + [b.data for b in p.b] for p in net.linears] for net in nets]
    assert drawn[0] == drawn[1] == drawn[2]


@pytest.mark.parametrize("accumulate", [False, True])
def test_some_outputs_pass_back_to_a_row_of_leaves_what_they_pass_to_results(accumulate):
    """A row of leaves is reached at once, results one by one."""
    for n in range(60):
        rng = np.random.default_rng(n)
        width, outputs, rows = (int(k) for k in rng.integers(1, [9, 5, 4]))
        net = fastscalar.MLP(width, [outputs, 3], seed=n) if n % 2 else fastscalar.Linear(width, outputs, seed=n)
        X = rng.normal(size=(rows, width)) * (rng.random((rows, width)) < 0.7)
        found = []
        for given in (lambda row: row, lambda row: [t * 1.0 for t in row]):
            x = fastscalar.to_tensor(X)
            y = net(given(x[n % rows]))
            loss = sum(t * t for j, t in enumerate(y) if j == 0 or n >> j & 1) + (x[n % rows][0] if n % 3 else 0.0)
            for _ in range(2):
                loss.backward(accumulate=accumulate)
            testing.check()
            found.append(np.array(x.grad))
        np.testing.assert_allclose(*found, rtol=1e-12, atol=1e-13)
