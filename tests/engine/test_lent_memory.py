"""What lends its memory (memoryview, `array.array`) is an array, of any number of dimensions."""

from __future__ import annotations

import array
import ctypes

import numpy as np
import pytest

import fastscalar as fs

TABLE = np.arange(6.0).reshape(2, 3) / 4.0
TWO = {
    "float64": memoryview(TABLE),
    "float32": memoryview(TABLE.astype("f4")),
    "transposed": memoryview(TABLE.T.copy().T),
    "in steps": memoryview(np.repeat(TABLE, 2, axis=1)[:, ::2]),
    "of C": ((ctypes.c_double * 3) * 2)(*map(tuple, TABLE)),
}
ONE = {
    "array.array": array.array("d", TABLE[1]),
    "float32": array.array("f", TABLE[1]),
    "memoryview": memoryview(TABLE[1]),
    "of C": (ctypes.c_double * 3)(*TABLE[1]),
}
WHOLE = {"array.array": array.array("i", [1, 2, 3]), "memoryview": memoryview(b"\1\2\3"), "bytes": bytearray(b"\1\2\3")}


@pytest.mark.parametrize("kind", TWO)
def test_two_dimensions(kind):
    x, net = TWO[kind], fs.MLP(3, [4, 2], seed=0)
    assert fs.to_tensor(x).numpy().tolist() == TABLE.tolist()
    assert net(x).numpy().tolist() == net(TABLE).numpy().tolist()
    assert fs.mse_loss(net(TABLE) @ np.ones((2, 3)), x).data == fs.mse_loss(net(TABLE) @ np.ones((2, 3)), TABLE).data
    program = fs.compile(lambda row: fs.sum(row * row))
    assert program.map(x).tolist() == (TABLE**2).sum(axis=1).tolist()
    assert program.value_and_grad(x)[1].tolist() == (2 * TABLE).tolist()
    whole = fs.compile(lambda s, p: fs.sum(p[1]) * s, shared="p")
    assert whole.map(np.ones(2), x).tolist() == [TABLE[1].sum()] * 2
    assert program.jvp(x, tangents=x)[1].tolist() == pytest.approx((2 * TABLE**2).sum(axis=1).tolist())
    f = lambda t: (t * t).sum()
    assert fs.grad(f)(x).tolist() == (2 * TABLE).tolist()
    assert fs.jvp(f, x, x)[1] == pytest.approx(2 * (TABLE**2).sum())
    assert fs.predict(net, x).tolist() == fs.predict(net, TABLE).tolist()
    with pytest.raises(ValueError, match="max: expected one dimension, got several"):
        fs.max(x)


@pytest.mark.parametrize("kind", ONE)
def test_one_dimension(kind):
    x, net, row = ONE[kind], fs.MLP(3, [4, 2], seed=0), TABLE[1]
    assert fs.to_tensor(x).tolist() == row.tolist()
    assert net(x).tolist() == net(row).tolist()
    assert fs.sum(x).data == row.sum()
    assert fs.compile(lambda t: fs.sum(t * t))(x) == (row**2).sum()
    assert fs.compile(lambda t: t * t).map(x).tolist() == (row**2).tolist()
    assert fs.grad(lambda t: (t * t).sum())(x).tolist() == (2 * row).tolist()
    if kind != "of C":
        for product in (fs.to_tensor(row) * x, fs.to_tensor(row) + x - row):
            assert isinstance(product, fs.TensorArray)
        assert (fs.to_tensor(row) * x).tolist() == (row * row).tolist()
    inner = fs.compile(lambda t: fs.sum(t * t))
    assert fs.compile(lambda s: inner(x) * s).map(np.ones(2)).tolist() == [(row**2).sum()] * 2


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_numbers(kind):
    assert fs.to_tensor(WHOLE[kind]).tolist() == [1.0, 2.0, 3.0]
    assert fs.compile(lambda x, k: x * k).map(np.ones(3), WHOLE[kind]).tolist() == [1.0, 2.0, 3.0]


def test_no_dimension_and_what_is_no_number():
    assert fs.to_tensor(memoryview(np.array(3.0))).data == 3.0
    for x in (b"abc", "abc"):
        with pytest.raises(TypeError, match="to_tensor: expected numbers"):
            fs.to_tensor(x)
    with pytest.raises(TypeError):
        fs.Tensor(1.0) * b"abc"
