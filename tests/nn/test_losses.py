"""squared_loss, the article's (half the sum of the squares), and mse_loss (their mean): one value in every mode."""

import warnings

import numpy as np
import pytest

import fastscalar
from fastscalar import reference

HALF_SUM = "squared_loss"
MEAN = "mse_loss"
NAMES = {"squared": HALF_SUM, "mse": MEAN}

# shapes of predictions and targets
SHAPES = {
    "one Tensor": ((), ()),
    "one output": ((1,), (1,)),
    "one output and a number": ((1,), ()),
    "row": ((3,), (3,)),
    "wide row": ((40,), (40,)),
    "rows": ((4, 3), (4, 3)),
    "rows of one": ((5, 1), (5, 1)),
    "rows of one and numbers": ((5, 1), (5,)),
    "one row of rows": ((1, 3), (1, 3)),
}


def formula(name, p, t):
    """(value, gradient by the predictions)"""
    d = np.asarray(p) - np.reshape(t, np.shape(p))
    rows = d.shape[0] if d.ndim == 2 else 1
    return (0.5 * np.sum(d * d) / rows, d / rows) if name == HALF_SUM else (np.mean(d * d), 2 * d / d.size)


def data(shapes, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.normal(size=shape).tolist() for shape in shapes]


def gradients(x):
    return [gradients(e) for e in x] if isinstance(x, list) else x.grad


@pytest.mark.parametrize("name", [HALF_SUM, MEAN])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("constant", [True, False], ids=["numbers", "Tensors"])
def test_value_and_gradients(fs, name, shape, constant):
    p, t = data(SHAPES[shape])
    y_hat, y = fs.to_tensor(p), t if constant else fs.to_tensor(t)
    loss = getattr(fs, name)(y_hat, y)
    value, gradient = formula(name, p, t)
    assert loss.data == pytest.approx(value, rel=1e-14)
    loss.backward()
    np.testing.assert_allclose(gradients(y_hat), gradient, rtol=1e-14)
    if not constant:
        np.testing.assert_allclose(np.ravel(gradients(y)), -np.ravel(gradient), rtol=1e-14)


@pytest.mark.parametrize("name", [HALF_SUM, MEAN])
@pytest.mark.parametrize("shape", SHAPES)
def test_engine_and_twin_agree_to_the_bit(name, shape):
    for seed in range(20):
        p, t = data(SHAPES[shape], seed)
        values = [getattr(m, name)(m.to_tensor(p), t).data for m in (fastscalar, reference)]
        assert values[0] == values[1]


def test_the_articles_own_figure(fs):
    y_hat = fs.to_tensor([3.0])
    loss = fs.squared_loss(y_hat, [1.0])
    loss.backward()
    assert (loss.data, y_hat[0].grad) == (2.0, 2.0)
    assert fs.mse_loss(y_hat, [1.0]).data == 4.0


def test_the_order_of_the_additions_is_the_articles():
    """loss = 0.0; for each output tmp = y_hat + y * -1.0, loss = loss + tmp * tmp * 0.5: the same bits."""
    for seed in range(50):
        p, t = data([(17,), (17,)], seed)
        loss = 0.0
        for a, b in zip(p, t, strict=True):
            tmp = a + b * -1.0
            loss = loss + tmp * tmp * 0.5
        assert fastscalar.squared_loss(fastscalar.to_tensor(p), t).data == loss


@pytest.mark.parametrize("name", [HALF_SUM, MEAN])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("constant", [True, False], ids=["numbers", "Tensors"])
def test_programs_say_what_the_function_says(name, shape, constant):
    """Values and gradients of rows replayed, by predictions and targets."""
    fs = fastscalar
    shapes, n = SHAPES[shape], 7
    P, T = data([(n, *s) for s in shapes])
    fixed = data([shapes[1]], seed=5)[0]
    loss = getattr(fs, name)
    arguments = (np.array(P),) if constant else (np.array(P), np.array(T))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        program = fs.compile((lambda p: loss(p, fixed)) if constant else loss)
        values = program.map(*arguments)
        for argnum in range(len(arguments)):
            _, found = program.value_and_grad(*arguments, argnums=argnum)
            for k in range(n):
                value, gradient = formula(name, P[k], fixed if constant else T[k])
                assert values[k] == pytest.approx(value, rel=1e-13)
                expected = np.reshape(-gradient if argnum else gradient, np.shape(found[k]))
                np.testing.assert_allclose(found[k], expected, rtol=1e-13)


@pytest.mark.parametrize("name", [HALF_SUM, MEAN])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_recorded_sweep_and_forward_mode(name, shape):
    """create_graph gives the same gradients, and they can be differentiated: the second derivative is a constant."""
    fs = fastscalar
    p, t = data(SHAPES[shape])
    loss = getattr(fs, name)
    y_hat = fs.to_tensor(p)
    first = y_hat if isinstance(y_hat, fs.Tensor) else y_hat[0] if y_hat.ndim == 1 else y_hat[0][0]
    value, gradient = formula(name, p, t)
    curvature = 1.0 if name == HALF_SUM else 2.0
    by = fs.hessian(lambda x: loss(x, t))(p)
    rows = np.shape(p)[0] if np.ndim(p) == 2 else 1
    expected = curvature / (rows if name == HALF_SUM else np.size(p))
    np.testing.assert_allclose(np.reshape(by, (np.size(p), np.size(p))), expected * np.eye(np.size(p)), rtol=1e-13)
    out, tangent = fs.jvp(lambda x: loss(x, t), (p,), (np.ones(np.shape(p)).tolist(),))
    assert float(out) == pytest.approx(value, rel=1e-14)
    assert float(tangent) == pytest.approx(np.sum(gradient), rel=1e-12, abs=1e-13)
    z = loss(y_hat, t)
    z.backward(create_graph=True)
    assert float(first.grad) == pytest.approx(np.ravel(gradient)[0], rel=1e-14)


def test_infinities_and_nan_propagate(fs):
    for name in (HALF_SUM, MEAN):
        loss = getattr(fs, name)
        assert loss([fs.Tensor(1e200)], [0.0]).data == float("inf")
        assert np.isnan(loss([fs.Tensor(float("nan")), fs.Tensor(1.0)], [0.0, 1.0]).data)


def test_no_predictions(fs):
    with pytest.raises(ValueError, match="mse_loss: is empty"):
        fs.mse_loss([], [])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{}, {"batch_size": 4}, {"compile": False}, {"compile": False, "batch_size": 4}])
def test_fit_by_name(name, options):
    """The same weights as with the function, and those of the formulas."""
    fs = fastscalar
    generator = np.random.default_rng(1)
    X, Y = generator.normal(size=(12, 3)), generator.normal(size=(12, 2))
    options = {"epochs": 2, "shuffle": False, "schedule": None, "progress": False, **options}
    nets = [fs.Linear(3, 2, seed=0) for _ in range(2)]
    w, b = nets[0].w.numpy(), nets[0].b.numpy()
    for net, loss in zip(nets, (name, getattr(fs, NAMES[name])), strict=True):
        fs.fit(net, X, Y, loss=loss, optimizer=fs.SGD(lr=0.05), **options)
    assert (nets[0].w.numpy() == nets[1].w.numpy()).all()
    batch = options.get("batch_size", 1)
    for _ in range(2):
        for k in range(0, 12, batch):
            x, y = X[k : k + batch], Y[k : k + batch]
            _, g = formula(NAMES[name], x @ w + b, y)
            w, b = w - 0.05 * x.T @ g, b - 0.05 * g.sum(axis=0)
    np.testing.assert_allclose(nets[0].w.numpy(), w, rtol=1e-12)
    np.testing.assert_allclose(nets[0].b.numpy(), b, rtol=1e-12)


def test_fit_takes_cross_entropy_by_name():
    fs = fastscalar
    X, y = np.random.default_rng(1).normal(size=(12, 3)), np.arange(12) % 2
    nets = [fs.Linear(3, 2, seed=0) for _ in range(2)]
    for net, loss in zip(nets, ("cross_entropy", fs.cross_entropy), strict=True):
        fs.fit(net, X, y, loss=loss, epochs=1, progress=False)
    assert (nets[0].w.numpy() == nets[1].w.numpy()).all()


@pytest.mark.parametrize(("loss", "error"), [("MSE", ValueError), ("", ValueError), (None, TypeError), (3, TypeError)])
def test_a_loss_that_is_none_names_the_choices(loss, error):
    fs = fastscalar
    net = fs.Linear(3, 2, seed=0)
    before = net.w.numpy()
    with pytest.raises(error) as caught:
        fs.fit(net, np.ones((4, 3)), np.zeros(4, int), loss=loss, progress=False)
    message = str(caught.value)
    assert "\n" not in message
    for choice in ("'cross_entropy'", "'squared'", "'mse'", repr(loss)):
        assert choice in message
    assert (net.w.numpy() == before).all()
