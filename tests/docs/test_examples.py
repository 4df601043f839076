"""The scripts in examples/ run and reach what they promise."""

import json
import os
import pathlib
import runpy
import subprocess
import sys

import numpy as np
import pytest

import fastscalar

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
FOLDER = pathlib.Path(os.environ.get("FASTSCALAR_DATA", "/nonexistent")) / "mnist"
needs_mnist = pytest.mark.skipif(not FOLDER.is_dir(), reason="no MNIST: FASTSCALAR_DATA has no folder mnist")


def main(name):
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]


def test_hand_gradient():
    assert main("hand_gradient")() == ((6.0, 4.0, 2.0, 1.0), (6.0, 4.0, 2.0, 1.0))


@pytest.mark.parametrize("seed", range(10))
def test_toy_regression(seed, capsys):
    """The article prints 0.041877 after three epochs, and 184.39 ... 1.289367 in ten, of a net without activation."""
    losses = main("toy_regression")(seed)
    assert "[Tensor(data=1.0), Tensor(data=2.0), Tensor(data=3.0)] [Tensor(data=17.0)]\n" in capsys.readouterr().out
    assert len(losses["linear"]) == 3
    assert losses["linear"][2] < 0.2
    assert len(losses["mlp"]) == 10
    assert losses["mlp"][0] > 20
    assert losses["mlp"][9] < 6


@pytest.mark.mnist
@needs_mnist
def test_mnist_regression(capsys):
    """The article's lines: 93,719,477 at first; test loss 330,436, then 223,290."""
    found = main("mnist_regression")()
    printed = capsys.readouterr().out
    assert "28*28, loaded 60000/60000" in printed
    assert "(60000, 28, 28) (60000,) (10000, 28, 28) (10000,)" in printed
    assert "::@@@@@@@@@@" in printed  # the picture
    assert "\n    0.  51. 159. 253. 159.  50.   0." in printed  # the matrix
    train, test = found["article"]
    assert 3e7 < train[0] < 3e8
    assert test[1] < 0.8 * test[0] < 1e6
    assert len(train) == 20
    assert printed.count("train loss") == 2 * 20 + 2
    for run in ("all", "mlp"):
        test = found[run][1]
        assert test[1] < 0.8 * test[0] < 10_000


@pytest.mark.mnist
@needs_mnist
def test_the_mnist_run_compiled_is_the_loop():
    """All 60,000 images by fit, and by the loop of the article: the same net."""
    namespace = runpy.run_path(str(EXAMPLES / "mnist_regression.py"))
    (X, y), _ = namespace["load"](False)
    nets = [fastscalar.Linear(784, 10, init="article", seed=0) for _ in range(2)]
    n = 5000
    for x, label in zip(X[:n], y[:n], strict=True):
        namespace["loss_of"](nets[0](x), label).backward()
        fastscalar.sgd(nets[0].parameters(), 1e-8)
    options = {"optimizer": fastscalar.SGD(lr=1e-8), "schedule": None, "shuffle": False, "progress": False}
    fastscalar.fit(nets[1], X[:n], y[:n], loss=namespace["loss_of"], epochs=1, **options)
    np.testing.assert_allclose(nets[1].w.numpy(), nets[0].w.numpy(), rtol=1e-9)


@pytest.mark.mnist
@needs_mnist
@pytest.mark.parametrize("seed", [0, 1])
def test_paddle_run(seed, capsys):
    """The article's lines, down to 0.943633."""
    train, test, _ = main("paddle_run")(["--seed", str(seed)])
    printed = capsys.readouterr().out
    assert (len(train), len(test)) == (20, 10)
    assert test[9] <= 0.9436
    assert test == sorted(test, reverse=True)
    assert train[1] < 0.05 * train[0]
    for epoch in range(1, 11):
        assert printed.count(f"epoch{epoch}, train loss ") == 2
        assert f"epoch{epoch}, test loss {test[epoch - 1]:f}" in printed


@pytest.mark.mnist
@needs_mnist
def test_paddle_run_is_a_plain_loop():
    """In float64 the net after ten epochs, and the losses of samples 0 and 30,000, are those of a loop in NumPy."""
    train, _, net = main("paddle_run")(["--dtype", "float64"])
    (X, y), _ = fastscalar.datasets.mnist()
    X, y = X.reshape(-1, 784).astype(float), y.astype(float).tolist()
    w = np.random.default_rng(0).uniform(-((6 / 785) ** 0.5), (6 / 785) ** 0.5, (784, 1))[:, 0]
    b, losses = 0.0, []
    for _ in range(10):
        for i in range(60_000):
            difference = float(X[i] @ w) + b - y[i]
            if i % 30_000 == 0:
                losses.append(difference * difference)
            step = 1e-7 * 2 * difference
            w -= step * X[i]
            b -= step
    np.testing.assert_allclose(net.w.numpy()[:, 0], w, rtol=1e-9, atol=1e-12)
    assert net.b[0].data == pytest.approx(b, rel=1e-9)
    assert train == pytest.approx(losses, rel=1e-9)


@pytest.mark.parametrize("name", ["mnist_regression", "paddle_run"])
def test_the_mnist_examples_on_drawn_digits(name):
    found = main(name)(["--synthetic"])
    if name == "paddle_run":
        assert found[1][9] < found[1][0]
    else:
        assert all(test[1] < 0.8 * test[0] for _, test in found.values())


@pytest.mark.parametrize("name", ["mnist_regression", "paddle_run"])
def test_the_mnist_examples_say_what_they_need(name, monkeypatch):
    def unavailable(**_):
        raise fastscalar.datasets.DatasetUnavailable("not here, nor there")

    monkeypatch.setattr(fastscalar.datasets, "mnist", unavailable)
    with pytest.raises(SystemExit, match=r"needs MNIST, or the option --synthetic(.|\n)*not here, nor there"):
        main(name)()


def test_every_example_is_tested():
    text = pathlib.Path(__file__).read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f'main("{path.stem}")' in text, path.name


def test_calibrate_heston(capsys):
    """The model's own prices give its own parameters back."""
    found, error = main("calibrate_heston")()
    assert error < 1e-6
    for name, value in {"v0": 0.05, "kappa": 1.8, "theta": 0.06, "sigma": 0.5, "rho": -0.6}.items():
        assert abs(found[name] - value) < 1e-4
    assert "kappa" in capsys.readouterr().out


def test_heat_pinn(capsys):
    """Its loss falls from some 0.4, and so does the error of u, which is 0.6 where the net says nothing."""
    loss, error = main("heat_pinn")()
    assert loss < 0.01
    assert error < 0.05
    assert "recorded:" in capsys.readouterr().out


def test_embedded_controller(capsys, tmp_path):
    report, path = main("embedded_controller")(str(tmp_path))
    assert len(report.splitlines()) == 3
    assert "int controller_derivatives(const double *x, double *y, double *d)" in path.read_text()
    assert "bytes of C" in capsys.readouterr().out


@pytest.mark.parametrize("engine", ["joblib", "dask", "ray"])
def test_sweeps(engine, tmp_path):
    """Workers that replay what was recorded elsewhere find what one process does."""
    for package in ("distributed",) if engine == "dask" else (engine,):
        pytest.importorskip(package, reason=f"no {package}")
    script = EXAMPLES / "sweeps" / f"{engine}_sweep.py"
    command = [sys.executable, script]
    done = subprocess.run(command, text=True, capture_output=True, timeout=500, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    here = runpy.run_path(str(EXAMPLES / "sweeps" / "cross_validation.py"))
    X, y = here["data"]()
    program = fastscalar.compile(here["loss"], shared=("w", "penalty"))      # recorded anew
    means = [np.mean([here["held_out"](program, X, y, p, fold) for fold in range(5)]) for p in here["PENALTIES"]]
    printed = [float(line.split()[2]) for line in done.stdout.splitlines() if line.startswith("penalty")]
    np.testing.assert_allclose(printed, means, atol=1e-6)
    assert done.stdout.splitlines()[int(np.argmin(means))].endswith("*")


@pytest.mark.parametrize("recipe", ["defaults", "mlp", "mlp-augmented", "convolutional"])
def test_mnist_recipes(recipe, capsys):
    """On synthetic digits, an epoch: that each runs, and says what came of it in its last line."""
    found = main("mnist_recipes")([recipe, "--synthetic", "--epochs", "1", "--seed", "1"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == found
    assert (found["recipe"], found["seed"]) == (recipe, 1)
    assert found["accuracy"] > 10


def test_the_table_of_recipes(tmp_path):
    namespace = runpy.run_path(str(EXAMPLES.parent / "benchmarks" / "accuracy.py"))
    file = tmp_path / "accuracy.jsonl"
    lines = [
        {"part": f"{name}/{seed}", "passed": True, "said": json.dumps(
            {"recipe": name, "seed": seed, "accuracy": bar + 0.1 * seed - 0.1, "seconds": 3.0, "cpu_seconds": 5.0})}
        for name, bar in namespace["BARS"].items() for seed in range(3)
    ]  # fmt: skip
    file.write_text("".join(json.dumps(line) + "\n" for line in lines[:-1]))
    rows, short = namespace["table"](namespace["runs"]([file]))
    assert short == ["convolutional: 99.35 % where 99.4 was meant"]
    assert "| `mlp` | 0, 1, 2 | 98.50, 98.60, 98.70 | 98.60 % | 3 | 5 |" in rows
