"""TensorArray and its views: promises 10 and 11."""

import copy
import math
import pickle
import tracemalloc

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import _core, reference
from fastscalar.engine import _functions, testing
from operations import BY_SERIES

NUMBERS = np.arange(24.0).reshape(2, 3, 4) - 7.5


def churn():
    """Make the tape grow and collect, so that everything moves."""
    held = [fs.Tensor(k) for k in range(50_000 if not _core.tape_info()["stress"] else 50)]
    testing.collect()
    del held[::2]
    testing.collect()
    del held
    testing.collect()


# --- views that outlive what they stand on ------------------------------------------------------------------


@pytest.mark.parametrize("field", ["data", "grad"])
def test_a_view_taken_before_growth_and_collection_and_used_after(field):
    below = [fs.Tensor(1.0) for _ in range(1000)]
    p = fs.to_tensor(NUMBERS)
    view, part, element = getattr(p, field), getattr(p, field)[1, ::-1, 2], p[1, 2, 3]
    del below
    churn()
    view[...] = NUMBERS * 2
    assert part.tolist() == (NUMBERS * 2)[1, ::-1, 2].tolist()
    assert getattr(element, field) == NUMBERS[1, 2, 3] * 2
    part[0] = 99.0
    assert getattr(p, field)[1, 2, 2] == view[1, 2, 2] == 99.0
    assert getattr(p[1][2][2], field) == 99.0
    churn()
    assert view[1, 2, 2] == 99.0


def test_a_view_keeps_its_array_alive():
    view = fs.to_tensor([1.0, 2.0]).data
    churn()
    assert view.tolist() == [1.0, 2.0]
    row = fs.to_tensor([[1.0, 2.0], [3.0, 4.0]])[1]
    churn()
    assert row.tolist() == [3.0, 4.0]
    element = fs.to_tensor([[1.0, 2.0], [3.0, 4.0]])[1][0]
    churn()
    assert element.data == 3.0


def test_numpy_is_a_copy_and_so_is_what_asarray_gives():
    p = fs.to_tensor(NUMBERS)
    for copied in (p.numpy(), np.asarray(p.data), np.array(p.data), p.data.copy(), p.tolist(), p.data.tolist()):
        copied[0][0][0] = 1e9
    assert p.numpy().tolist() == NUMBERS.tolist()
    held = p.numpy()
    p.data[0, 0, 0] = 5.0
    assert held[0, 0, 0] == NUMBERS[0, 0, 0]


def test_no_memory_is_exposed():
    for thing in (fs.to_tensor([1.0]), fs.to_tensor([1.0]).data, fs.to_tensor([1.0]).grad, fs.Tensor(1.0)):
        with pytest.raises(TypeError):
            memoryview(thing)
        assert not hasattr(thing, "__array_interface__")


# --- writing through ----------------------------------------------------------------------------------------


def test_the_sgd_step_of_a_numpy_user_writes_through():
    p = fs.to_tensor(NUMBERS)
    (p * p).sum().backward()
    p.data -= 0.25 * p.grad
    np.testing.assert_array_equal(p.numpy(), NUMBERS - 0.5 * NUMBERS)
    np.testing.assert_array_equal(p.grad, 2 * NUMBERS)


WRITES = {
    "element": lambda d: d.__setitem__((0, 1, 3), 1.5),
    "negative element": lambda d: d.__setitem__((-1, -1, -1), 1.5),
    "row": lambda d: d.__setitem__(1, 2.0),
    "row of numbers": lambda d: d.__setitem__((1, 2), [1, 2, 3, 4]),
    "slice": lambda d: d.__setitem__((slice(None), slice(0, 2)), np.ones((2, 2, 4))),
    "negative step": lambda d: d.__setitem__((0, slice(None, None, -1)), np.arange(12).reshape(3, 4)),
    "broadcast": lambda d: d.__setitem__((slice(None), 1), np.arange(4)),
    "all": lambda d: d.__setitem__(Ellipsis, 3.0),
    "fancy": lambda d: d.__setitem__([1, 0], 8.0),
    "fancy rows": lambda d: d.__setitem__((0, [0, 2], [1, 3]), [5.0, 6.0]),
    "mask": lambda d: d.__setitem__(np.asarray(d) > 0, 0.0),
    "new axis": lambda d: d.__setitem__((None, 1), 4.0),
    "own values": lambda d: d.__setitem__(0, d[1]),
    "swapped": lambda d: d.__setitem__(slice(None), d[::-1]),
}


@pytest.mark.parametrize("field", ["data", "grad"])
@pytest.mark.parametrize("name", WRITES)
def test_assignments_do_what_they_do_to_an_array(name, field):
    p, expected = fs.to_tensor(np.zeros((2, 3, 4))), NUMBERS.copy()
    setattr(p, field, NUMBERS)
    WRITES[name](getattr(p, field))
    WRITES[name](expected)
    np.testing.assert_array_equal(getattr(p, field), expected)
    assert getattr(p[1][2][3], field) == expected[1, 2, 3]
    testing.check()


def in_place(d):
    d += 2
    d *= np.arange(4)
    d -= d[0, 0]
    d /= 3.0
    d **= 2
    d[0] += 1
    d[:, 1:, ::2] *= -1.0
    d[0, 0, 0] -= 5
    d //= 0.5
    d %= 7
    return d


def test_in_place_operators_do_what_they_do_to_an_array():
    p, expected = fs.to_tensor(NUMBERS), NUMBERS.copy()
    view = p.data
    assert in_place(view) is view
    np.testing.assert_array_equal(p.numpy(), in_place(expected))


def test_reading_does_what_it_does_to_an_array():
    p = fs.to_tensor(NUMBERS)
    d = p.data
    for key in (0, -1, (1, 2), (slice(None), 0), (0, slice(None, None, -2), 1), [1, 0], (..., 1), None, NUMBERS > 0):
        np.testing.assert_array_equal(d[key], NUMBERS[key])
    assert type(d[1, 2, 3]) is float
    assert (d.shape, d.ndim, d.size, d.dtype, len(d)) == (NUMBERS.shape, 3, 24, NUMBERS.dtype, 2)
    assert repr(d) == repr(NUMBERS)
    assert [row.tolist() for row in d] == NUMBERS.tolist()
    assert (d.sum(), d.mean(), d.max(), d.T.shape) == (NUMBERS.sum(), NUMBERS.mean(), NUMBERS.max(), (4, 3, 2))
    np.testing.assert_array_equal(
        2 * d - NUMBERS / (d + 100) + d * d, 2 * NUMBERS - NUMBERS / (NUMBERS + 100) + NUMBERS**2
    )
    np.testing.assert_array_equal(np.sqrt(np.abs(d)), np.sqrt(np.abs(NUMBERS)))
    assert ((d > 0) == (NUMBERS > 0)).all()
    out = np.empty(NUMBERS.shape)
    assert np.add(d, 1, out=out) is out
    np.testing.assert_array_equal(out, NUMBERS + 1)
    np.testing.assert_array_equal(np.add.reduce(d), NUMBERS.sum(axis=0))


def test_what_does_not_fit_is_a_value_error_and_changes_nothing():
    p = fs.to_tensor(NUMBERS)
    for wrong in (np.ones(5), np.ones((3, 3, 4)), np.ones((2, 2, 3, 4)), [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="does not fit"):
            p.data = wrong
        with pytest.raises(ValueError, match=r"does not fit|broadcast"):
            p.grad += wrong
    with pytest.raises(ValueError):
        p.data[0] = np.ones(3)
    assert p.tolist() == NUMBERS.tolist()
    assert not np.asarray(p.grad).any()


@pytest.mark.parametrize("key", [(0, 1, 3), 0, slice(None), [0, 1], (0, [0, 1]), ...])
@pytest.mark.parametrize("value", [fs.Tensor(1.0), "1", None, 1j], ids=lambda v: type(v).__name__)
def test_assigning_a_tensor_or_no_number_to_an_element_is_a_type_error(key, value):
    p = fs.to_tensor(NUMBERS)
    for view in (p.data, p.grad):
        with pytest.raises(TypeError):
            view[key] = value
    assert p.tolist() == NUMBERS.tolist()
    assert not np.asarray(p.grad).any()


def test_elements_of_the_array_itself_cannot_be_replaced():
    p = fs.to_tensor(NUMBERS)
    for key in (0, (0, 0, 0), slice(None)):
        for value in (fs.Tensor(1.0), 1.0, p[1]):
            with pytest.raises(TypeError, match=r"write array\.data\[i\] = number"):
                p[key] = value
    for value in (fs.Tensor(1.0), p, [fs.Tensor(1.0)] * 2, "1"):
        with pytest.raises(TypeError):
            p.data = value
    with pytest.raises(TypeError, match="to_tensor"):
        fs.TensorArray()


def test_what_was_computed_keeps_its_values_when_its_operands_are_written():
    p = fs.to_tensor([1.0, 2.0])
    y = p * 2
    p.data = [10.0, 20.0]
    assert y.tolist() == [2.0, 4.0]
    (p * y).sum().backward()
    assert p.grad.tolist() == [2.0 + 2 * 10.0, 4.0 + 2 * 20.0]


# --- indexing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        0,
        -2,
        np.int64(1),
        (1, 2),
        (1, 2, 3),
        (-1, -1, -1),
        slice(None),
        slice(1, None),
        slice(None, None, -1),
        (slice(None), slice(2, 0, -1)),
        (0, slice(None), slice(1, 4, 2)),
        (slice(None), 1, slice(None, None, -3)),
        (),
    ],
)
def test_indexing_selects_what_numpy_selects(key):
    p = fs.to_tensor(NUMBERS)
    part = p[key]
    if isinstance(part, fs.Tensor):
        assert part.data == NUMBERS[key]
        return
    assert part.shape == NUMBERS[key].shape
    assert part.tolist() == NUMBERS[key].tolist()
    (part * 3.0).sum().backward()
    expected = np.zeros_like(NUMBERS)
    expected[key] = 3.0
    np.testing.assert_array_equal(p.grad, expected)


def test_views_of_views_are_the_same_nodes():
    p = fs.to_tensor(NUMBERS)
    assert p[1][::-1][0][3] is p[1, 2, 3]
    assert p[:, 1:][1, 1] is not p[1, 2]  # arrays are views, made anew ...
    assert p[:, 1:][1, 1][2] is p[1, 2][2]  # ... of the same Tensors
    a, b = p[0], p[0]
    (a * b).sum().backward()
    np.testing.assert_array_equal(p.grad[0], 2 * NUMBERS[0])
    assert not np.asarray(p.grad[1]).any()


@pytest.mark.parametrize("key", [2, -3, (0, 3), (0, 0, 4), (0, 0, 0, 0), 10**30])
def test_an_index_out_of_range_is_an_index_error(key):
    with pytest.raises(IndexError):
        fs.to_tensor(NUMBERS)[key]


@pytest.mark.parametrize("key", ["a", 1.0, 1j, {}, [0.5], (0, "b"), slice("a"), slice(0.5, 1.0)])
def test_an_index_of_another_type_is_the_error_that_numpy_has(key):
    with pytest.raises((IndexError, TypeError)) as numpys:
        NUMBERS[key]
    with pytest.raises(numpys.type):
        fs.to_tensor(NUMBERS)[key]


def test_a_slice_of_step_zero_is_a_value_error():
    with pytest.raises(ValueError):
        fs.to_tensor(NUMBERS)[::0]


def test_iteration_length_and_unpacking():
    p = fs.to_tensor([[1.0, 2.0], [3.0, 4.0]])
    assert len(p) == 2
    (a, b), (c, d) = p
    assert [t.data for t in (a, b, c, d)] == [1.0, 2.0, 3.0, 4.0]
    assert [row.shape for row in p] == [(2,), (2,)]
    assert next(iter(p[0])) is p[0][0]
    assert (p.ndim, p.size, p.shape) == (2, 4, (2, 2))
    assert [t.data for t in reversed(p[1])] == [4.0, 3.0]


@pytest.mark.parametrize("shape", [(1,), (2,), (10,), (1, 1), (2, 5), (2, 2, 2)])
def test_a_short_array_prints_as_the_list_of_tensors_that_it_reads_like(shape):
    numbers = np.random.default_rng(0).normal(size=shape).tolist()
    expected = repr(reference.to_tensor(numbers))
    assert repr(fs.to_tensor(numbers)) == str(fs.to_tensor(numbers)) == f"{fs.to_tensor(numbers)}" == expected
    assert repr(fs.to_tensor([-0.0, float("inf")])) == "[Tensor(data=-0.0), Tensor(data=inf)]"


@pytest.mark.parametrize("shape", [(11,), (4, 3), (100, 100)])
def test_a_long_array_prints_shape_and_values(shape):
    assert repr(fs.to_tensor(np.zeros(shape))).startswith(f"TensorArray(shape={shape}, data=[")
    assert len(repr(fs.to_tensor(np.zeros(shape)))) < 1000


# --- making them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "numbers",
    [
        [1, 2.5, True],
        (1.0, 2.0),
        [[1.0, 2.0], [3.0, 4.0]],
        [np.array([1.0, 2.0]), [3, 4]],
        np.arange(6).reshape(2, 3),
        np.arange(6, dtype=np.float32)[::-2],
        np.asfortranarray(NUMBERS),
        np.array([True, False]),
        range(4),
    ],
)
def test_to_tensor_of_numbers(numbers):
    array = fs.to_tensor(numbers)
    expected = np.array(numbers, dtype=float)
    assert array.shape == expected.shape
    assert array.tolist() == expected.tolist()
    assert array[(0,) * array.ndim]._parents == ()


def test_to_tensor_keeps_tensors():
    a = fs.Tensor(1.0)
    array = fs.to_tensor([1.0, 2.0])
    assert fs.to_tensor(a) is a
    assert fs.to_tensor(array) is array
    kept = fs.to_tensor([a, 2, [3.0, a]][:2])
    assert isinstance(kept, list)
    assert kept[0] is a
    assert (type(kept[1]), kept[1].data) == (fs.Tensor, 2.0)
    once = fs.to_tensor(x for x in [a, 2.0])
    assert once[0] is a
    assert len(once) == 2
    for number in (2, 2.0, np.float32(2), np.array(2.0), True):
        assert type(fs.to_tensor(number)) is fs.Tensor


@pytest.mark.parametrize(
    "wrong", [[], [[]], [[1.0], []], [[1.0], [2.0, 3.0]], [1.0, [2.0]], [[1.0], 2.0], np.ones((0, 3))]
)
def test_ragged_or_empty_lists_are_value_errors(wrong):
    with pytest.raises(ValueError, match=r"ragged|empty"):
        fs.to_tensor(wrong)


@pytest.mark.parametrize(
    "wrong", ["12", None, {1.0: 2.0}, {1.0}, 1j, [None], ["1"], [1j], np.array(["a"]), np.ones(2, complex)]
)
def test_what_is_not_a_number_is_a_type_error(wrong):
    with pytest.raises(TypeError):
        fs.to_tensor(wrong)


def test_too_many_dimensions_are_a_value_error():
    assert fs.to_tensor(np.ones((1,) * 8)).ndim == 8
    with pytest.raises(ValueError, match="at most 8"):
        fs.to_tensor(np.ones((1,) * 9))
    nested = [1.0]
    for _ in range(2000):
        nested = [nested]
    with pytest.raises(ValueError, match="at most 8"):
        fs.to_tensor(nested)


def test_leaves_can_be_copied_and_pickled_but_not_what_was_computed():
    p = fs.to_tensor([[1.0, 2.0]])
    for q in (copy.deepcopy(p), pickle.loads(pickle.dumps(p))):
        assert q.tolist() == [[1.0, 2.0]]
        q.data[0, 0] = 5.0
        assert p.data[0, 0] == 1.0
    with pytest.raises(TypeError, match="detach"):
        pickle.dumps(p * 2)
    detached = (p * 2).detach()
    assert detached.tolist() == [[2.0, 4.0]]
    assert detached[0][0]._parents == ()


# --- arithmetic ---------------------------------------------------------------------------------------------

OPERATIONS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "**": lambda a, b: a**b,
}
OTHERS = {
    "array": lambda: fs.to_tensor([[0.5, -2.0, 3.0], [1.0, 4.0, 2.0]]),
    "ndarray": lambda: np.array([[0.5, -2.0, 3.0], [1.0, 4.0, 2.0]]),
    "list": lambda: [[0.5, -2.0, 3.0], [1.0, 4.0, 2.0]],
    "view": lambda: fs.to_tensor([[0.5, -2.0, 3.0], [1.0, 4.0, 2.0]]).data,
    "Tensor": lambda: fs.Tensor(3.0),
    "float": lambda: 2.5,
    "int": lambda: 3,
    "NumPy scalar": lambda: np.float32(1.5),
    "list of Tensors": lambda: [[fs.Tensor(2.0)] * 3, [fs.Tensor(3.0), 1.0, 0.5]],
}


def plain(x):
    if isinstance(x, list):
        return np.array([[float(e) for e in row] for row in x])
    return (
        x.numpy()
        if isinstance(x, fs.TensorArray)
        else np.asarray(x, dtype=float)
        if not isinstance(x, fs.Tensor)
        else x.data
    )


@pytest.mark.parametrize("op", OPERATIONS)
@pytest.mark.parametrize("other", OTHERS)
def test_elementwise_operations_with_an_equal_shape_or_a_scalar(op, other):
    a, b = fs.to_tensor([[1.0, 2.0, 0.5], [3.0, 0.25, 7.0]]), OTHERS[other]()
    for left, right in ((a, b), (b, a)):
        y = OPERATIONS[op](left, right)
        assert isinstance(y, fs.TensorArray)
        with np.errstate(all="ignore"):
            np.testing.assert_allclose(y.numpy(), OPERATIONS[op](plain(left), plain(right)), rtol=1e-15)
        assert y[1][0]._op == op
        # the gradient of each element is that of the same operation on scalars
        y[1][0].backward()
        x = fs.Tensor(3.0)
        z = b if other in ("Tensor", "float", "int", "NumPy scalar") else plain(b)[1][0]
        z = float(z)
        scalar = OPERATIONS[op](x, z) if left is a else OPERATIONS[op](z, x)
        scalar.backward()
        assert a.grad[1, 0] == x.grad
        assert y[1][0].data == scalar.data


def test_negation_powers_and_functions_of_the_table():
    a = fs.to_tensor([0.5, 2.0])
    for code, name, arity, is_method in _functions.operations():
        if is_method and arity == 1:
            y = getattr(a, name)()
            for k in range(2):
                value = testing.value_and_partials(code, a[k].data)[0]
                ulps = BY_SERIES.get(name, 0)
                assert abs(y[k].data - value) <= ulps * math.ulp(value) or (value != value and y[k].data != y[k].data)
                assert y[k]._op == name
    assert (-a).tolist() == [-0.5, -2.0]
    assert (+a) is a
    assert (a**2).tolist() == [0.25, 4.0]


def test_in_place_forms_make_a_new_array():
    a = b = fs.to_tensor([1.0, 2.0])
    a += 1.0
    a *= b
    assert b.tolist() == [1.0, 2.0]
    assert a.tolist() == [2.0, 6.0]
    a.sum().backward()
    assert b.grad.tolist() == [3.0, 5.0]


def test_the_sum_is_added_in_order():
    numbers = [1e16, 1.0, -1e16, 3.0]
    a = fs.to_tensor(numbers)
    s = a.sum()
    assert s.data == ((1e16 + 1.0) - 1e16) + 3.0
    s.backward()
    assert a.grad.tolist() == [1.0] * 4
    assert a[::-1].sum().data == ((3.0 - 1e16) + 1.0) + 1e16


def test_shapes_that_do_not_go_together_and_what_is_no_number():
    a = fs.to_tensor(np.ones((2, 3)))
    for other in (fs.to_tensor([1.0] * 2), np.ones(2), [1.0, 2.0], fs.to_tensor(np.ones((3, 2))), np.ones((4, 1, 2))):
        with pytest.raises(ValueError, match="do not go together"):
            a + other
        with pytest.raises(ValueError, match="do not go together"):
            other * a
    with pytest.raises(ValueError, match="do not go together"):
        a @ a
    for other in ("a", None, 1j, {}):
        with pytest.raises(TypeError, match=r"TensorArray"):
            a + other
    with pytest.raises(TypeError, match="modulus"):
        pow(a, 2, 3)


def test_arrays_follow_ieee_where_scalars_raise():
    a = fs.to_tensor([1.0, -1.0, 0.0])
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal((a / 0.0).numpy(), [np.inf, -np.inf, np.nan])
        np.testing.assert_array_equal(a.log().numpy(), [0.0, np.nan, -np.inf])
        np.testing.assert_array_equal((a * 1000.0).exp().numpy(), [np.inf, 0.0, 1.0])
        np.testing.assert_array_equal((a**0.5).numpy(), [1.0, np.nan, 0.0])


def test_a_tensor_used_with_every_element_gets_the_sum():
    a, t = fs.to_tensor([1.0, 2.0, 3.0]), fs.Tensor(2.0)
    (a * t).sum().backward()
    assert t.grad == 6.0
    assert a.grad.tolist() == [2.0] * 3
    (t / a).sum().backward()
    assert t.grad == pytest.approx(1 + 1 / 2 + 1 / 3)


# --- optimisers on views ------------------------------------------------------------------------------------


def test_a_part_of_an_array_is_a_parameter_too():
    p = fs.to_tensor([[1.0, 2.0], [3.0, 4.0]])
    (p * p).sum().backward()
    fs.sgd([p[:, 1]], 0.5)
    assert p.tolist() == [[1.0, 0.0], [3.0, 0.0]]
    assert p.grad.tolist() == [[2.0, 0.0], [6.0, 0.0]]
    fs.sgd(p[::-1], 0.5)
    assert p.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert not np.asarray(p.grad).any()


def test_gradients_of_computed_arrays_can_be_read_and_written():
    p = fs.to_tensor([1.0, 2.0])
    y = p * 3
    y.sum().backward()
    assert y.grad.tolist() == [1.0, 1.0]
    y.grad[1] = 5.0
    y[1]._backward()
    assert p.grad.tolist() == [3.0, 18.0]


# --- arithmetic: NumPy's numbers, warnings and kinds, without memory of their own ---------------------------

OPERANDS = {
    "array": np.linspace(-2, 3, 24).reshape(2, 3, 4),
    "not contiguous": np.linspace(-2, 3, 48).reshape(2, 3, 8)[..., ::2],
    "float32": np.linspace(-2, 3, 24, dtype=np.float32).reshape(2, 3, 4),
    "whole numbers": np.arange(24).reshape(2, 3, 4),
    "row": np.linspace(0.5, 2, 4),
    "larger": np.linspace(-2, 3, 96).reshape(4, 2, 3, 4),
    "complex": np.full((2, 3, 4), 1 + 2j),
    "no dimension": np.array(0.25),
    "number": 0.25,
    "whole number": 3,
    "truth value": True,
    "infinite": np.where(np.arange(24).reshape(2, 3, 4) % 3, np.inf, 1.7e308),
}
BINARY = [np.add, np.subtract, np.multiply, np.divide, np.maximum, np.less, np.floor_divide, np.hypot]


def outcome(function, *operands):
    """What comes out, numbers with their kind and shape, or the error."""
    try:
        with np.errstate(all="raise", under="ignore"):
            result = np.asarray(function(*operands))
    except (FloatingPointError, TypeError, ValueError) as error:
        kind = next(kind for kind in (FloatingPointError, TypeError, ValueError) if isinstance(error, kind))
        return kind, str(error) if kind is FloatingPointError else ""
    return result.dtype, result.shape, result.tobytes()


@pytest.mark.parametrize("ufunc", BINARY, ids=lambda ufunc: ufunc.__name__)
def test_a_view_in_arithmetic_gives_what_numpy_gives(ufunc):
    p = fs.to_tensor(NUMBERS)
    p.grad = NUMBERS / 3
    for name, operand in OPERANDS.items():
        kept = np.array(operand)
        assert outcome(ufunc, p.data, operand) == outcome(ufunc, NUMBERS, operand), name
        assert outcome(ufunc, operand, p.data) == outcome(ufunc, operand, NUMBERS), name
        assert np.array_equal(operand, kept), name
    assert outcome(ufunc, p.grad, p.data) == outcome(ufunc, NUMBERS / 3, NUMBERS)
    assert outcome(ufunc, p.data, p.data) == outcome(ufunc, NUMBERS, NUMBERS)
    assert np.array_equal(p.numpy(), NUMBERS)
    assert np.array_equal(p.grad, NUMBERS / 3)


def put_out(ufunc, to, operand):
    return ufunc(to, operand, out=to)


@pytest.mark.parametrize("part", [np.s_[...], np.s_[1], np.s_[:, ::-1], np.s_[..., 1]], ids=str)
@pytest.mark.parametrize("field", ["data", "grad"])
@pytest.mark.parametrize("ufunc", BINARY[:4], ids=lambda ufunc: ufunc.__name__)
def test_a_view_changed_in_place_is_what_numpy_leaves(ufunc, field, part):
    for name, operand in OPERANDS.items():
        if name == "larger":                            # which is refused by both, in other words
            continue
        some = operand[part] if np.ndim(operand) == 3 else operand
        p, array = fs.to_tensor(NUMBERS), NUMBERS.copy()
        setattr(p, field, NUMBERS)
        view, expected = getattr(p if part is ... else p[part], field), outcome(put_out, ufunc, array[part], some)
        assert outcome(put_out, ufunc, view, some) == expected, name
        if expected[0] is not FloatingPointError:       # else NumPy has written, and a view may have
            assert np.array_equal(getattr(p, field), array), name


@pytest.mark.parametrize("field", ["data", "grad"])
def test_results_of_other_arrays_are_put_into_a_view(field):
    p = fs.to_tensor(NUMBERS)
    assert np.negative(NUMBERS, out=getattr(p, field)).tolist() == (-NUMBERS).tolist()
    assert np.add(NUMBERS, 1.0, out=getattr(p, field)).tolist() == (NUMBERS + 1.0).tolist()
    assert getattr(p, field).tolist() == (NUMBERS + 1.0).tolist()


def test_a_step_of_gradients_takes_no_more_memory_than_their_copy():
    p = fs.to_tensor(np.ones((400, 500)))
    p.grad = np.full((400, 500), 2.0)
    tracemalloc.start()
    try:
        p.data -= 0.25 * p.grad
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.2 * 8 * p.size
    assert np.array_equal(p.numpy(), np.full((400, 500), 0.5))


def test_a_value_changed_in_place_is_noticed():
    p = fs.to_tensor(NUMBERS)
    loss = (p * p).sum()
    p.data -= np.ones(p.shape)
    with pytest.raises(RuntimeError, match="written"):
        loss.backward()


@pytest.mark.parametrize("ufunc", [np.add, np.subtract, np.multiply, np.true_divide, np.maximum])
@pytest.mark.parametrize("field", ["data", "grad"])
def test_an_array_of_numbers_takes_a_view_in_place(ufunc, field):
    a = fs.to_tensor([1.0, 2.0, 4.0])
    a.grad = [0.5, 2.0, -1.0]
    numbers = np.array([3.0, 5.0, 7.0])
    right = ufunc(numbers, np.asarray(getattr(a, field)))
    assert ufunc(numbers, getattr(a, field), out=numbers) is numbers
    assert numbers.tolist() == right.tolist()
    assert (a.tolist(), a.grad.tolist()) == ([1.0, 2.0, 4.0], [0.5, 2.0, -1.0])
