"""The scripts in examples/ run and reach what they promise."""

import os
import pathlib
import runpy

import pytest

import fastscalar

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
FOLDER = pathlib.Path(os.environ.get("FASTSCALAR_DATA", "/nonexistent")) / "mnist"
needs_mnist = pytest.mark.skipif(not FOLDER.is_dir(), reason="no MNIST: FASTSCALAR_DATA has no folder mnist")


def main(name):
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]


def test_hand_gradient():
    assert main("hand_gradient")() == ((6.0, 4.0, 2.0, 1.0), (6.0, 4.0, 2.0, 1.0))


def test_toy_regression():
    losses = main("toy_regression")()
    assert set(losses) == {"linear", "mlp"}
    for name, values in losses.items():
        assert values[-1] < values[0] / 4, name


@pytest.mark.mnist
@needs_mnist
def test_mnist_regression():
    losses = main("mnist_regression")()
    assert losses[-1] < 0.01 * losses[0]


@pytest.mark.mnist
@needs_mnist
def test_paddle_run():
    losses = main("paddle_run")()
    assert len(losses) == 10
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.01 * losses[0]


def test_mnist_regression_on_drawn_digits():
    losses = main("mnist_regression")(["--synthetic"])
    assert losses[-1] < 0.01 * losses[0]


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
