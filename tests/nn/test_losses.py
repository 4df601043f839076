"""squared_loss, the article's (half the sum of the squares), and mse_loss (their mean): one value in every mode."""

import warnings

import numpy as np
import pytest

import fastscalar
from fastscalar import reference
from fastscalar.program import recorded

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


# --- losses that are written with the functions of the engine ---------------------------------------------------------


def softplus(z):
    return np.logaddexp(0.0, z)


def binary(z, t):
    gradient = (1 - t) / (1 + np.exp(-z)) - t / (1 + np.exp(z))
    return np.mean(t * softplus(-z) + (1 - t) * softplus(z)), gradient / z.size


def huber(p, t, delta=1.0):
    d = p - t
    near = np.abs(d) <= delta
    value = np.where(near, d * d / 2, delta * (np.abs(d) - delta / 2))
    return value.mean(), np.clip(d, -delta, delta) / d.size


def smoothed(z, labels, by=0.2):
    """Of rows and labels; by the definition: a probability for each class."""
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    wanted = np.full(z.shape, by / z.shape[1])
    wanted[np.arange(len(z)), labels] += 1 - by
    return -(wanted * np.log(p)).sum(axis=1).mean(), (p - wanted) / len(z)


ELEMENTWISE = {"binary_cross_entropy": binary, "huber_loss": huber}


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["numbers", "arrays", "Tensors"])
def test_element_by_element_and_the_mean(name, shape, kind):
    p, t = data(SHAPES[shape])
    t = np.clip(np.abs(t), 0, 1) if name == "binary_cross_entropy" else 3 * np.array(t)
    value, gradient = ELEMENTWISE[name](np.array(p), np.reshape(t, np.shape(p)))
    given = {"numbers": t.tolist(), "arrays": t if t.ndim else float(t), "Tensors": fastscalar.to_tensor(t.tolist())}
    y_hat = fastscalar.to_tensor(p)
    found = getattr(fastscalar, name)(y_hat, given[kind])
    assert found.data == pytest.approx(value, rel=1e-13)
    found.backward()
    np.testing.assert_allclose(gradients(y_hat), gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("shape", SHAPES)
def test_programs_of_them_say_what_the_functions_say(name, shape):
    n, shapes = 7, SHAPES[shape]
    P, T = map(np.array, data([(n, *s) for s in shapes]))
    T = np.clip(np.abs(T), 0, 1) if name == "binary_cross_entropy" else 3 * T
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        program = fastscalar.compile(getattr(fastscalar, name))
        values, found = program.value_and_grad(P, T, argnums=0)
    for k in range(n):
        value, gradient = ELEMENTWISE[name](P[k], np.reshape(T[k], P[k].shape))
        assert values[k] == pytest.approx(value, rel=1e-13)
        np.testing.assert_allclose(found[k], gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("form", ["array", "list"])
@pytest.mark.parametrize("rows", [1, 4])
def test_labels_that_are_smoothed(rows, form):
    z, labels = np.random.default_rng(0).normal(size=(rows, 5)), [3, 0, 4, 4][:rows]
    value, gradient = smoothed(z, labels)
    leaves = fastscalar.to_tensor(z)
    logits = leaves if form == "array" else [list(row) for row in leaves]
    found = fastscalar.cross_entropy(logits, labels, label_smoothing=0.2)
    assert found.data == pytest.approx(value, rel=1e-13)
    found.backward()
    np.testing.assert_allclose(np.asarray(leaves.grad), gradient, rtol=1e-12, atol=1e-15)
    one = fastscalar.cross_entropy(logits[0], labels[0], label_smoothing=0.2)
    assert one.data == pytest.approx(smoothed(z[:1], labels[:1])[0], rel=1e-13)


@pytest.mark.parametrize("value", [-1.0, 1.5, float("nan"), "0.1"])
def test_a_smoothing_is_a_part(value):
    with pytest.raises((ValueError, TypeError)):
        fastscalar.cross_entropy([0.0, 1.0], 1, label_smoothing=value)


@pytest.mark.parametrize("z", [-1e300, -1e4, -800.0, -37.0, -1e-300, 0.0, 1e-300, 37.0, 800.0, 1e4, 1e300])
@pytest.mark.parametrize("y", [0, 1])
def test_a_logit_however_large_has_a_finite_loss_and_the_right_gradient(z, y):
    a = fastscalar.Tensor(z)
    loss = fastscalar.binary_cross_entropy(a, y)
    loss.backward()
    far = -z if y else z                         # softplus of this
    assert loss.data == pytest.approx(far if far > 40 else np.log1p(np.exp(far)), rel=1e-14, abs=1e-320)
    assert a.grad == pytest.approx((-1 if y else 1) * np.exp(-np.logaddexp(0.0, -far)), rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("d", [-1e200, -5.0, -1.0, -0.5, 0.0, 0.5, 1.0, 5.0, 1e200])
@pytest.mark.parametrize("delta", [0.1, 1.0, 3.0])
def test_huber_of_any_difference(d, delta):
    a = fastscalar.Tensor(d)
    loss = fastscalar.huber_loss(a, 0.0, delta)
    loss.backward()
    with np.errstate(over="ignore"):
        value, gradient = huber(np.array([d]), np.zeros(1), delta)
    assert (loss.data, a.grad) == (pytest.approx(value, rel=1e-14), pytest.approx(gradient[0], rel=1e-14))


def test_a_delta_is_above_zero_and_lengths_are_equal():
    with pytest.raises(ValueError, match="delta"):
        fastscalar.huber_loss(1.0, 0.0, delta=0.0)
    for loss in (fastscalar.huber_loss, fastscalar.binary_cross_entropy):
        with pytest.raises(ValueError, match="2 predictions but 3 targets"):
            loss([1.0, 2.0], [1.0, 2.0, 3.0])
        with pytest.raises(ValueError, match="no predictions"):
            loss([], [])


WAYS = [{}, {"batch_size": 5}, {"compile": False}, {"compile": False, "batch_size": 5}]


@pytest.mark.dear
@pytest.mark.parametrize("loss", ["binary_cross_entropy", "huber", "smoothed", "cross_entropy"])
@pytest.mark.parametrize("weights", [None, "sample", "class", "both", "balanced"])
@pytest.mark.parametrize("given", WAYS, ids=str)
def test_fit_with_weights_is_the_loop_by_hand(loss, weights, given):
    draw = np.random.default_rng(0)
    X, y = draw.normal(size=(18, 3)), (np.arange(18) % 3 == 0).astype(int)
    function = {
        "binary_cross_entropy": fastscalar.binary_cross_entropy,
        "huber": fastscalar.huber_loss,
        "smoothed": lambda z, k: fastscalar.cross_entropy(z, k, label_smoothing=0.1),
        "cross_entropy": fastscalar.cross_entropy,
    }[loss]
    outputs = 2 if loss in ("smoothed", "cross_entropy") else 1
    keywords, w = {}, np.ones(18)
    if weights in ("sample", "both"):
        keywords["sample_weight"] = draw.uniform(0, 2, size=18)
        w = w * keywords["sample_weight"]
    if weights in ("class", "both"):
        keywords["class_weight"] = {0: 0.5, 1: 2.0} if weights == "class" else [0.5, 2.0]
        w = w * np.where(y == 1, 2.0, 0.5)
    if weights == "balanced":
        keywords["class_weight"] = "balanced"
        w = np.where(y == 1, 18 / (2 * 6), 18 / (2 * 12))
    nets = [fastscalar.MLP(3, [4, outputs], seed=2) for _ in range(2)]
    history = fastscalar.fit(
        nets[0], X, y, loss=function if loss == "smoothed" else loss, optimizer=fastscalar.SGD(lr=0.1), epochs=2,
        schedule=None, shuffle=False, progress=False, **keywords, **given,
    )  # fmt: skip
    optimizer = fastscalar.SGD(nets[1].parameters(), lr=0.1)
    size, losses = given.get("batch_size", 1), []
    for _ in range(2):
        losses.append(0.0)
        for k in range(0, 18, size):
            optimizer.zero_grad()
            batch = range(k, min(k + size, 18))
            for i in batch:
                one = function(nets[1](X[i]), y[i]) * (w[i] / len(batch))
                one.backward(accumulate=True)
                losses[-1] += one.data * len(batch) / 18
            optimizer.step()
    np.testing.assert_allclose(nets[0].linears[0].w.numpy(), nets[1].linears[0].w.numpy(), rtol=1e-9)
    np.testing.assert_allclose(history.loss, losses, rtol=1e-9)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"sample_weight": [1.0] * 5}, "expected 6 numbers"),
        ({"sample_weight": [1.0] * 5 + [-1.0]}, "row 5"),
        ({"sample_weight": [np.nan] + [1.0] * 5}, "row 0"),
        ({"sample_weight": np.zeros(6)}, "all weights are 0"),
        ({"sample_weight": ["a"] * 6}, "sample_weight"),
        ({"class_weight": {0: 1.0}}, "none for the label 1"),
        ({"class_weight": [1.0]}, "none for the label 1"),
        ({"class_weight": "even"}, "balanced"),
        ({"class_weight": 2.0}, "balanced"),
    ],
)
def test_weights_that_are_none_say_so(keywords, words):
    net = fastscalar.Linear(2, 2, seed=0)
    before = net.w.tolist()
    with pytest.raises(ValueError, match=words):
        fastscalar.fit(net, np.ones((6, 2)), [0, 1] * 3, progress=False, **keywords)
    assert net.w.tolist() == before


def test_a_program_weighs_its_rows_itself():
    w = fastscalar.Tensor(1.0)
    program = fastscalar.compile(lambda x, k: (w - k) ** 2)
    with pytest.raises(ValueError, match="a program gives the losses itself"):
        fastscalar.fit(program, np.ones(4), np.ones(4), sample_weight=np.ones(4), progress=False)


@pytest.mark.parametrize("loss", ["huber", "mse", "squared"])
def test_zeros_and_ones_are_targets_of_a_loss_of_differences(loss):
    line = fastscalar.Linear(1, 1, seed=0)
    found = fastscalar.evaluate(line, np.array([[0.0], [1.0]]), [0, 1], loss=loss)
    assert found.metric == "r2"
    assert fastscalar.evaluate(line, np.array([[0.0], [1.0]]), [0, 1], loss="binary_cross_entropy").metric == "accuracy"


@pytest.mark.parametrize("loss", ["huber", "binary_cross_entropy"])
def test_evaluate_has_the_mean_of_the_rows(loss):
    draw = np.random.default_rng(3)
    X, y = draw.normal(size=(50, 3)), draw.integers(0, 2, size=50)
    net = fastscalar.MLP(3, [4, 1], seed=1)
    function = {"huber": fastscalar.huber_loss, "binary_cross_entropy": fastscalar.binary_cross_entropy}[loss]
    rows = [function(net(x), k).data for x, k in zip(X, y, strict=True)]
    assert fastscalar.evaluate(net, X, y, loss=loss).loss == pytest.approx(np.mean(rows), rel=1e-12)


# --- losses without a gradient ----------------------------------------------------------------------------------------

PLAIN = {
    "a constant": lambda a, b: 0.5,
    "a whole number": lambda a, b: 1,
    "of NumPy": lambda a, b: np.float64(0.5),
    "of .data": lambda a, b: (a[0].data - b[0]) ** 2,
    "of item()": lambda a, b: (a[0].item() - b[0]) ** 2,
    "detached": lambda a, b: (a[0].detach() - b[0]) ** 2,
    "some detached, some numbers": lambda a, b: (a[0].detach() - 1.0) ** 2 if b[0] < 4.0 else 0.5,
    "in no_grad": lambda a, b: _ungraded(a, b),
    "without what was chosen": lambda a, b: fastscalar.maximum(a[0].detach(), -1e9) * 1.0,
}


def _ungraded(a, b):
    with fastscalar.no_grad():
        return (a[0] - b[0]) ** 2


def said_of_losses(loss, **given):
    X, y = np.arange(12.0).reshape(6, 2) / 12.0, np.arange(6.0).reshape(6, 1)
    net, optimizer = fastscalar.Linear(2, 1, seed=0), fastscalar.SGD(lr=0.01)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fastscalar.fit(net, X, y, loss=loss, optimizer=optimizer, epochs=3, progress=False, **given)
    return [w for w in caught if issubclass(w.category, fastscalar.GradientLossWarning)]


@pytest.mark.parametrize(
    "given", [{}, {"batch_size": 4}, {"compile": False}, {"compile": False, "batch_size": 4}], ids=str
)
@pytest.mark.parametrize("name", PLAIN)
def test_a_loss_that_is_a_plain_number_is_said_once(name, given):
    (found,) = said_of_losses(PLAIN[name], **given)
    assert "plain number for every sample" in str(found.message)
    assert found.filename == __file__


@pytest.mark.parametrize("given", [{}, {"compile": False}, {"batch_size": 4}], ids=str)
@pytest.mark.parametrize("name", ["a constant", "of .data", "detached"])
def test_a_program_of_such_losses_reads_nothing_that_can_be_trained(name, given):
    net, loss = fastscalar.Linear(2, 1, seed=0), PLAIN[name]
    program = fastscalar.compile(lambda x, y: loss(net(x), [y]))
    with pytest.raises(ValueError, match="nothing to train"):
        fastscalar.fit(program, np.ones((6, 2)), np.arange(6.0), epochs=1, progress=False, **given)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4])
@pytest.mark.parametrize("limit", [1, 2, 64])
def test_recordings_that_were_given_up_have_trained_too(limit, batch_size, monkeypatch):
    """Only the first row's, which is not kept, had a gradient."""
    monkeypatch.setattr(recorded, "SPECIALIZATIONS", limit)
    w = fastscalar.Tensor(1.0)

    def loss(x, y):
        sorted([x, y, 0.5])
        return fastscalar.where(x < 0.0, w, 1.0)

    x, y = np.array([-1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 0.1, -4.0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fastscalar.CompileWarning)
        fastscalar.fit(
            fastscalar.compile(loss), x, y, epochs=2, batch_size=batch_size, shuffle=False, progress=False,
            optimizer=fastscalar.SGD(lr=0.125), schedule=None,
        )  # fmt: skip
    assert w.data == pytest.approx(1.0 - 2 * 0.125 / batch_size)


@pytest.mark.parametrize("given", [{}, {"compile": False}], ids=str)
def test_a_loss_that_is_one_for_some_samples_is_none(given):
    for for_some in (lambda a, b: 0.0, lambda a, b: (a[0].data - b[0]) ** 2, lambda a, b: (a[0].detach() - b[0]) ** 2):
        for limit in (1.0, 4.0):
            first = lambda a, b: for_some(a, b) if b[0] < limit else (a[0] - b[0]) ** 2  # noqa: B023
            last = lambda a, b: for_some(a, b) if b[0] >= limit else (a[0] - b[0]) ** 2  # noqa: B023
            assert not said_of_losses(first, **given) + said_of_losses(last, **given)
    assert not said_of_losses("mse", **given)
