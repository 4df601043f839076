"""Conv2d, MaxPool2d, Reshape, Flatten: eager and compiled, against loops over scalars."""

from __future__ import annotations

import itertools
import os
import random
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import nn
from fastscalar.engine._images import reshaped

RNG = np.random.default_rng(0)


def conv_by_hand(x: Any, w: Any, b: Any, stride: int, padding: int) -> list[list[list[Any]]]:
    """The same in scalar operations, in the same order."""
    h, width = len(x), len(x[0])
    kh, kw, channels, outs = w.shape

    def output(y: int, z: int, o: int) -> Any:
        total = 0.0 + b[o]
        for i, j, c in itertools.product(range(kh), range(kw), range(channels)):
            p, q = y * stride + i - padding, z * stride + j - padding
            if 0 <= p < h and 0 <= q < width:
                total = total + x[p][q][c] * w[i][j][c][o]
        return total

    out_h, out_w = (h + 2 * padding - kh) // stride + 1, (width + 2 * padding - kw) // stride + 1
    return [[[output(y, z, o) for o in range(outs)] for z in range(out_w)] for y in range(out_h)]


def pool_by_hand(x: Any, kernel: tuple[int, int], stride: int) -> list[list[list[Any]]]:
    out_h, out_w = (len(x) - kernel[0]) // stride + 1, (len(x[0]) - kernel[1]) // stride + 1
    return [
        [
            [
                fs.max([x[y * stride + i][z * stride + j][c] for i in range(kernel[0]) for j in range(kernel[1])])
                for c in range(len(x[0][0]))
            ]
            for z in range(out_w)
        ]
        for y in range(out_h)
    ]


def flat(x: Any) -> list[Any]:
    return [t for e in x for t in flat(e)] if hasattr(x, "__len__") else [x]


STRESS = bool(os.environ.get("FASTSCALAR_STRESS"))
GEOMETRIES: dict[str, Any] = {
    # height, width, channels, outputs, kernel, stride, padding
    "plain": (6, 5, 1, 3, 3, 1, 0),
    "channels": (5, 6, 3, 4, (2, 3), 1, 0),
    "padding": (4, 5, 2, 3, 3, 1, 2),
    "stride": (7, 8, 2, 5, 3, 2, 0),
    "stride and padding": (7, 6, 1, 2, 3, 2, 1),
    "a row is left over": (6, 6, 2, 1, (2, 2), 3, 0),
    "one pixel": (3, 3, 2, 4, 3, 1, 0),
    "one by one": (3, 4, 3, 2, 1, 1, 0),
    "whole vectors": (5, 5, 2, 16, 3, 1, 0),
    **({} if STRESS else {"more than a panel": (4, 4, 1, 70, 2, 1, 1)}),     # minutes in stress mode
}


def weigh(out: Any) -> Any:
    """A loss whose output gradients all differ; some are exactly zero."""
    return fs.sum([t * t * (0.1 * (k % 7)) + t * (k % 3) for k, t in enumerate(flat(out))])


@pytest.fixture(params=GEOMETRIES.values(), ids=GEOMETRIES)
def layer_and_image(request: pytest.FixtureRequest) -> tuple[Any, np.ndarray]:
    h, w, c, o, kernel, stride, padding = request.param
    layer = nn.Conv2d(c, o, kernel, stride=stride, padding=padding, seed=1)
    layer.b.data = np.linspace(-1, 1, o)
    image = RNG.normal(size=(h, w, c)) * (RNG.uniform(size=(h, w, c)) < 0.7)
    return layer, image


@pytest.mark.dear
@pytest.mark.parametrize("kind", ["leaves", "computed", "lists", "numbers", "images"])
def test_a_convolution_is_the_scalar_code(layer_and_image: Any, kind: str) -> None:
    layer, image = layer_and_image
    leaf = fs.to_tensor(image)
    given: Any = {
        "leaves": leaf,
        "computed": leaf * 1.0,
        "lists": [[list(pixel) for pixel in row] for row in leaf],
        "numbers": image,
        "images": fs.to_tensor(np.stack([image, image])),
    }[kind]
    out = layer(given)
    if kind == "images":
        assert np.array_equal(out[0].numpy(), layer(leaf).numpy())
        assert np.array_equal(out[1].numpy(), out[0].numpy())
        return
    expected = conv_by_hand(image if kind == "numbers" else given, layer.w, layer.b, layer.stride, layer.padding)
    assert out.numpy().ravel().tolist() == [t.data for t in flat(expected)]
    assert out.shape == np.shape(layer(image))
    one = weigh(out)
    one.backward()
    found = [layer.w.grad.copy(), layer.b.grad.copy(), leaf.grad.copy()]
    fs.sgd([layer.w, layer.b, leaf], 0.0)
    weigh(expected).backward()
    for f, e in zip(found, [layer.w.grad, layer.b.grad, leaf.grad], strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-12, atol=1e-11)


def test_each_output_is_a_node_with_parents() -> None:
    layer, x = nn.Conv2d(2, 3, 2, seed=0), fs.to_tensor(RNG.normal(size=(3, 3, 2)))
    out = layer(x)
    t = out[1, 1, 2]
    parents = t._parents
    assert [id(p) for p in parents[:8]] == [id(e) for e in flat(x[1:, 1:])]
    assert parents[8] is layer.w[0, 0, 0, 2]
    assert parents[-1] is layer.b[2]
    t.backward()
    assert x[1, 1, 0].grad == layer.w[0, 0, 0, 2].data
    best = nn.MaxPool2d(2)(out)[0, 0, 1]
    window = best._parents
    assert all(p is out[i, j, 1] for p, (i, j) in zip(window, itertools.product(range(2), repeat=2), strict=True))
    best.backward()
    assert sorted(float(p.grad) for p in window) == [0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(("kernel", "stride"), [(2, None), ((3, 2), 2), (2, 1), (2, 3)])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_pool_is_the_greatest_of_its_window(kernel: Any, stride: Any, compiled: bool) -> None:
    pool = nn.MaxPool2d(kernel, stride=stride)
    images = RNG.normal(size=(4, 6, 7, 3))
    images[0, :2, :2] = 1.0                      # equal ones: the first
    images = images * np.ones((1, 1, 1, 3))

    def loss(x: Any) -> Any:
        return weigh(pool(x * 2.0))

    def by_hand(x: Any) -> Any:
        return weigh(pool_by_hand(x * 2.0, pool.kernel_size, pool.stride))

    for image in images:
        values = [fs.value_and_grad(fs.compile(f) if compiled else f)(image) for f in (loss, by_hand)]
        np.testing.assert_allclose(values[0][0], values[1][0], rtol=1e-12)
        np.testing.assert_allclose(values[0][1], values[1][1], rtol=1e-12, atol=1e-12)


def test_a_pool_of_nan_is_nan() -> None:
    x = np.array([[1.0, np.nan], [3.0, 2.0]])
    for f in (nn.MaxPool2d(2), fs.compile(lambda t: nn.MaxPool2d(2)(t * 1.0)[0, 0, 0])):
        assert np.isnan(float(flat(f(fs.to_tensor(x) if isinstance(f, nn.MaxPool2d) else x))[0]))


# --- compiled ---


@pytest.mark.dear
@pytest.mark.parametrize("threads", [1, 2])
def test_a_compiled_convolution_is_the_eager_one(layer_and_image: Any, threads: int) -> None:
    layer, image = layer_and_image
    images = np.stack([image, -image, 0 * image, *RNG.normal(size=(5, *image.shape))])

    def loss(x: Any) -> Any:
        return weigh(layer(x * 0.5).tanh())

    program = fs.compile(loss)
    found = program.map(images, threads=threads)
    expected = [loss(fs.to_tensor(x)) for x in images]
    np.testing.assert_allclose(found, [t.data for t in expected], rtol=1e-11, atol=1e-11)
    fs.sgd(layer.parameters(), 0.0)
    program.backward(images, threads=threads)
    gradients = [layer.w.grad.copy(), layer.b.grad.copy()]
    fs.sgd(layer.parameters(), 0.0)
    for t in expected:
        t.backward(accumulate=True)
    for f, e in zip(gradients, (layer.w.grad, layer.b.grad), strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-10, atol=1e-10)
    by_x = fs.grad(program)
    for x in images:
        t = fs.to_tensor(x)
        loss(t).backward()
        np.testing.assert_allclose(by_x(x), t.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e200])
@pytest.mark.parametrize("where", ["image", "weight", "bias"])
def test_what_is_not_finite_comes_out_as_it_does_eagerly(value: float, where: str) -> None:
    layer = nn.Conv2d(1, 3, 2, seed=0)
    images = RNG.normal(size=(3, 4, 4)) * (RNG.uniform(size=(3, 4, 4)) < 0.5)
    if where == "image":
        images[1, 2, 2] = value
    elif where == "weight":
        layer.w[1, 0, 0, 2].data = value
    else:
        layer.b[1].data = value

    def loss(x: Any) -> Any:
        return fs.sum(nn.MaxPool2d(2)(layer(x).relu()))

    program = fs.compile(loss)
    found = program.map(images)
    expected = [loss(fs.to_tensor(x)) for x in images]
    np.testing.assert_allclose(found, [t.data for t in expected], rtol=1e-12, equal_nan=True)
    fs.sgd(layer.parameters(), 0.0)
    program.backward(images)
    gradients = layer.w.grad.copy()
    fs.sgd(layer.parameters(), 0.0)
    for t in expected:
        t.backward(accumulate=True)
    np.testing.assert_allclose(gradients, layer.w.grad, rtol=1e-10, atol=1e-12, equal_nan=True)


def small_net(seed: int = 0) -> Any:
    draw = random.Random(seed)
    return nn.Sequential(
        nn.Reshape(8, 8), nn.Conv2d(1, 5, 3, padding=1, seed=draw), "relu", nn.MaxPool2d(2),
        nn.Conv2d(5, 16, 3, seed=draw), "relu", nn.Flatten(), fs.Linear(64, 3, seed=draw),
    )  # fmt: skip


X = RNG.normal(size=(40, 64))
Y = (X[:, :8].sum(axis=1) > 0).astype(int) + (X[:, 60:].sum(axis=1) > 0)


@pytest.mark.parametrize("batch_size", [1, 7, 40])
@pytest.mark.parametrize("make", [lambda: fs.SGD(lr=0.05), lambda: fs.SGD(lr=0.01, momentum=0.9),
                                  lambda: fs.AdamW(lr=0.01)], ids=["sgd", "momentum", "adamw"])  # fmt: skip
def test_fit_is_the_same_compiled_and_eager(batch_size: int, make: Any) -> None:
    states = []
    for compile in (True, False):
        net = small_net()
        history = fs.fit(net, X, Y, epochs=2, batch_size=batch_size, optimizer=make(), compile=compile, progress=False)
        states.append((net.state_dict(), history.loss))
    for name, found in states[0][0].items():
        np.testing.assert_allclose(found, states[1][0][name], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(states[0][1], states[1][1], rtol=1e-9)


def test_threads_and_float32() -> None:
    states = []
    for threads, dtype in ((1, "float64"), (2, "float64"), (2, "float32")):
        net = small_net()
        fs.fit(net, X, Y, epochs=2, batch_size=20, threads=threads, dtype=dtype, progress=False)
        states.append(net.state_dict())
    for name, value in states[0].items():
        assert np.array_equal(states[1][name], value)
        np.testing.assert_allclose(states[2][name], value, rtol=1e-3, atol=1e-4)


def test_images_need_not_be_flat_and_blocks_are_rows() -> None:
    net = small_net()
    shaped = nn.Sequential(*net.layers[1:])
    images = X.reshape(-1, 8, 8)
    assert fs.predict(shaped, images).tolist() == fs.predict(net, X).tolist() == [
        int(np.argmax(net(x).numpy())) for x in X
    ]
    history = fs.fit(shaped, images, Y, epochs=1, validation_data=(images, Y), progress=False)
    assert history.validation_metric[0] == fs.evaluate(net, X, Y)


def test_a_net_of_images_is_saved(tmp_path: Any) -> None:
    net = small_net()
    net.save(tmp_path / "net.npz")
    again = fs.load(tmp_path / "net.npz")
    assert repr(again) == repr(net)
    assert again(X[0]).tolist() == net(X[0]).tolist()


# --- errors, shapes ---


def test_what_does_not_fit_is_said() -> None:
    layer = nn.Conv2d(3, 2, 3, seed=0)
    for x, said in (
        (np.zeros((5, 5)), r"Conv2d: expected images of shape \(height, width, 3\)"),
        (np.zeros((5, 5, 2)), r"got shape \(5, 5, 2\)"),
        (np.zeros((2, 5, 3)), "larger than the images"),
        (np.zeros((5, 5, 3), np.uint8), "X / 255"),
        (fs.to_tensor(np.zeros(75)), "expected images"),
    ):
        with pytest.raises(ValueError, match=said):
            layer(x)
    for make, said in (
        (lambda: nn.Conv2d(0, 2, 3), "in_channels"),
        (lambda: nn.Conv2d(1, 2, (3, 0)), "kernel_size"),
        (lambda: nn.Conv2d(1, 2, 3, padding=-1), "padding"),
        (lambda: nn.MaxPool2d(2, stride=0), "stride"),
        (lambda: nn.Reshape(), "shape"),
        (lambda: nn.Reshape(3, 3)([1.0] * 8), r"shape \(8,\) cannot have the shape \(3, 3\)"),
    ):
        with pytest.raises(ValueError, match=said):
            make()


def test_another_shape_is_the_same_nodes_where_they_lie_so() -> None:
    x = fs.to_tensor(np.arange(12.0).reshape(3, 4))
    assert reshaped(x, (2, 6))[1, 0] is x[1, 2]
    columns = reshaped(x[:, ::2], (6,))
    assert columns.tolist() == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    fs.sum(columns * columns).backward()
    assert x.grad[1].tolist() == [8.0, 0.0, 12.0, 0.0]


def test_second_derivatives_pass_through() -> None:
    layer = nn.Conv2d(1, 2, 2, seed=0)

    def f(x: Any) -> Any:
        return fs.sum(nn.MaxPool2d(2)(layer(reshaped(x, (3, 3))).tanh()))

    x, v = RNG.normal(size=9), RNG.normal(size=9)
    found = fs.hvp(f, x, v)
    h = 1e-5
    expected = (np.array(fs.grad(f)(x + h * v)) - np.array(fs.grad(f)(x - h * v))) / (2 * h)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
