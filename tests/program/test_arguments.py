"""What programs and arrays are given: tables of other libraries, lists of columns, one row, strings."""

import numpy as np
import pytest

import fastscalar as fs


class Table:
    """As a data frame has it: an array when asked, the names of its columns when iterated over."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype=dtype)

    def __iter__(self):
        return iter([f"column {k}" for k in range(self.values.shape[-1])] if self.values.ndim > 1 else self.values)

    def __len__(self):
        return len(self.values)


VALUES = np.random.default_rng(0).normal(size=(5, 3))


@pytest.mark.parametrize("values", [VALUES, VALUES[0], VALUES.astype(np.float32), np.arange(6).reshape(2, 3) % 2 == 0])
def test_whatever_is_an_array_becomes_one(values):
    assert fs.to_tensor(Table(values)).tolist() == values.astype(float).tolist()
    assert type(fs.to_tensor(Table(np.array(3.0)))) is fs.Tensor


def test_tables_everywhere():
    table, row, y = Table(VALUES), Table(VALUES[0]), Table(np.arange(5) % 2)
    net = fs.Linear(3, 2, seed=0)
    assert net(table).tolist() == net(VALUES).tolist()
    assert net(row).tolist() == net(VALUES[0]).tolist()
    assert fs.dot(row, row).data == fs.dot(VALUES[0], VALUES[0]).data
    assert fs.cross_entropy(table, y).data == fs.cross_entropy(VALUES, y.values).data
    assert fs.squared_loss(row, row).data == 0.0
    program = fs.compile(lambda x, k: fs.dot(x, x) * k)
    assert program.map(table, y).tolist() == program.map(VALUES, y.values).tolist()
    assert program(row, 2) == program(VALUES[0], 2)
    nets = [fs.Linear(3, 2, seed=0) for _ in range(2)]
    fs.fit(nets[0], table, y, progress=False)
    fs.fit(nets[1], VALUES, y.values, progress=False)
    assert nets[0].w.tolist() == nets[1].w.tolist()
    assert fs.evaluate(nets[0], table, y) == fs.evaluate(nets[1], VALUES, y.values)
    assert fs.predict(nets[0], table).tolist() == fs.predict(nets[1], VALUES).tolist()


def test_tables_that_are_no_numbers():
    named = Table(np.array([[1.0, "red"], [2.0, "blue"]], dtype=object))
    with pytest.raises(TypeError, match="got str"):
        fs.to_tensor(named)
    with pytest.raises(ValueError, match="column 1 has str: 'red'"):
        fs.fit(fs.Linear(2, 2, seed=0), named, [0, 1], progress=False)
    for array in (np.array(["a", "b"]), np.array("a")):
        with pytest.raises(TypeError, match=r"str|<U1"):
            fs.to_tensor(array)


METHODS = ["map", "value_and_grad", "backward"]
BODIES = [
    lambda x: x[0] * x[1],
    lambda x: sum(x),
    lambda x: fs.Tensor(1.0) * len(x),
    lambda x: next(iter(x)),
    lambda x: next(reversed(x)),
    lambda x: (lambda a, b, c: a * b)(*x),
    lambda x: next(a * b for a, b, _ in (x,)),
    lambda x: x.sum(),
    lambda x: x @ x,
    lambda x: fs.Linear(3, 1, seed=0)(x)[0],
]
NOT_ONE_NUMBER = (TypeError, AttributeError, ValueError)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("body", BODIES)
def test_one_row_is_not_many(body, method):
    row = np.array([1.0, 2.0, 3.0])
    with pytest.raises(NOT_ONE_NUMBER, match=r"argument 0 of shape \(3,\) is 3 rows of one number each.*x\[None\]"):
        getattr(fs.compile(body), method)(row)
    getattr(fs.compile(body), method)(row[None])
    with pytest.raises(NOT_ONE_NUMBER) as caught:
        fs.compile(body)(1.0)  # a single call has no rows
    assert "rows" not in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_other_type_errors_stay_as_they_are(method):
    with pytest.raises(TypeError) as caught:
        getattr(fs.compile(lambda x: x + "a"), method)(np.ones(3))
    assert "rows" not in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_a_list_of_columns_is_told_from_rows(method):
    columns, y = [VALUES[:, 0], VALUES[:, 1]], VALUES[:, 2]
    program = fs.compile(lambda x, t: x[0] * t)
    with pytest.raises(ValueError, match=r"argument 0 is a list of 2 columns of 5 numbers, np\.column_stack"):
        getattr(program, method)(columns, y)
    other = fs.compile(lambda t, x: x[0] * t)
    with pytest.raises(ValueError, match=r"argument 1 is a list of 2 columns of 5 numbers, np\.column_stack"):
        getattr(other, method)(y, columns)
    with pytest.raises(ValueError) as caught:
        getattr(program, method)(VALUES, y[:3])
    assert "column" not in str(caught.value)


def test_what_is_no_number_is_named():
    program = fs.compile(lambda x, k: x * k)
    for wrong, words in ((["a"] * 3, "'a'"), ([1, None, 2], "None"), (np.array(["b"] * 3), "'b'")):
        with pytest.raises(TypeError, match=f"argument 1: expected numbers.*with {words} in it"):
            program.map([1.0, 2.0, 3.0], wrong)
    with pytest.raises(ValueError, match=r"argument 0: the rows have different lengths"):
        program.map([[1.0], [1.0, 2.0]], [1.0, 2.0])
