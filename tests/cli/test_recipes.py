"""How a run learns: optimisers, schedules, early stopping, configuration files, what is left to look at, completion."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import cli, plot
from fastscalar.cli import recipe
from fastscalar.cli.commands import parser
from fastscalar.cli.completion import script, words_of
from test_cli import KEPT, Shell, digits, shell  # noqa: F401 - fixtures

SMALL = ("--hidden", "8", "--limit", "300", "--quiet")
RECIPES = [
    (),
    ("--optimizer", "adam"),
    ("--optimizer", "adamw", "--weight-decay", "0.01", "--schedule", "cosine"),
    ("--optimizer", "rmsprop", "--momentum", "0.5", "--dtype", "float32"),
    ("--momentum", "0.9", "--warmup", "0.2"),
    ("--weight-decay", "0.001", "--label-smoothing", "0.1", "--clip-norm", "5", "--schedule", "constant"),
    ("--optimizer", "adam", "--batch-size", "16", "--eager"),
    ("--optimizer", "adam", "--patience", "50"),
    ("--loss", "mse", "--patience", "50", "--lr", "0.1"),
]


def weights(path: Path) -> list[Any]:
    return [p.numpy() for p in fs.load(path).parameters()]


def stop_after(monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    """Ctrl-C as soon as so many epochs are kept."""
    from fastscalar.cli.runs import Run

    add = Run.add

    def counted(self: Any, epoch: Any) -> Any:
        row = add(self, epoch)
        if epoch.epoch == epochs:
            raise KeyboardInterrupt
        return row

    monkeypatch.setattr(Run, "add", counted)


@pytest.mark.parametrize("options", RECIPES, ids=" ".join)
def test_resume_equals_uninterrupted(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]  # noqa: F811
) -> None:
    whole, part = str(tmp_path / "whole"), str(tmp_path / "part")
    run = ["train", "--data", str(digits), "--epochs", "4", *SMALL, *options]
    assert cli.main([*run, "--out", whole]) == 0
    for epochs in (1, 3):
        with monkeypatch.context() as patch:
            stop_after(patch, epochs)
            assert cli.main([*run, "--out", part] if epochs == 1 else ["train", "--out", part, "--resume"]) == 130
    assert cli.main(["train", "--out", part, "--resume", "--quiet"]) == 0
    for one, other in zip(weights(Path(whole, "model.npz")), weights(Path(part, "model.npz")), strict=True):
        assert np.array_equal(one, other)
    assert {p.name for p in Path(part).iterdir()} == KEPT


def test_a_checkpoint_whose_state_is_gone(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]  # noqa: F811
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        cli.main(["train", "--data", str(digits), "--optimizer", "adam", *SMALL, "--out", str(out)])
    net = fs.load(out / "checkpoint.npz")
    net.save(out / "checkpoint.npz", **net.metadata)  # type: ignore[union-attr]
    assert cli.main(["train", "--out", str(out), "--resume"]) == 2
    assert "expected the state of the optimiser" in capsys.readouterr().err


@pytest.mark.parametrize("out", [True, False])
def test_early_stopping_takes_the_best(digits: Path, tmp_path: Path, out: bool) -> None:  # noqa: F811
    json_file = tmp_path / "a.json"
    options = ["--out", str(tmp_path / "out")] if out else []
    run = ["train", "--data", str(digits), "--hidden", "64", "--limit", "120", "--optimizer", "adam", "--lr", "0.02"]
    command = [*run, "--epochs", "60", "--patience", "2", "--validation", "0.3", "--json", str(json_file), *options]
    assert cli.main([*command, "--quiet"]) == 0
    report = json.loads(json_file.read_text())
    losses = [row["validation_loss"] for row in report["epochs"]]
    best = int(np.argmin(losses))
    assert len(losses) == best + 3 < 60
    assert report["test_accuracy"] == report["epochs"][best]["test_accuracy"]
    assert report["training_images"] == 84
    if out:
        net = fs.load(tmp_path / "out" / "model.npz")
        assert net.metadata["test_accuracy"] == report["test_accuracy"]  # type: ignore[union-attr]
        X, y = fs.datasets.load_folder(digits)[1]
        assert fs.evaluate(net, X.reshape(len(X), -1) / 255, y) == report["test_accuracy"]
        assert {p.name for p in (tmp_path / "out").iterdir()} == KEPT
        assert cli.main(["train", "--out", str(tmp_path / "out"), "--resume", "--quiet"]) == 0  # it is complete
        assert weights(tmp_path / "out" / "model.npz")[0].tolist() == net.parameters()[0].numpy().tolist()


# --- configuration ---


def test_the_configuration_of_a_run_does_it_again(shell: Shell, digits: Path) -> None:  # noqa: F811
    first = ("train", "--data", digits, *SMALL, "--epochs", 2, "--optimizer", "rmsprop", "--lr", 0.002, "--out", "a")
    shell.right(*first)
    config = shell.work / "a" / "config.toml"
    table = tomllib.loads(config.read_text())
    assert (table["optimizer"], table["lr"], table["hidden"]) == ("rmsprop", 0.002, [8])
    shell.right("train", "--config", config, "--quiet", "--out", "b")
    for one, other in zip(weights(shell.work / "a/model.npz"), weights(shell.work / "b/model.npz"), strict=True):
        assert np.array_equal(one, other)
    shell.right("train", "--epochs", 1, f"--config={config}", "--quiet", "--out", "c")  # what is typed wins
    assert len(json.loads((shell.work / "c/training.json").read_text())["epochs"]) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epochs = [", "not TOML"),
        ("epohcs = 3", "no such option: epohcs"),
        ("epochs = 0", "--config a.toml: epochs: expected a whole number"),
        ("optimizer = 'sdg'", "--config a.toml: optimizer: invalid choice"),
        ("resume = true", "resume: is said on the command line"),
        ("lr = {a = 1}", "lr: expected a number, a text or a list"),
        ("hidden = [1.5]", "hidden: expected a number, a text or a list"),
        ("[train]\nepohcs = 3", "no such option: epohcs"),
        ("#" * 2**20 + "\n", "expected a TOML file of options, of at most 1,048,576 bytes"),
    ],
)
def test_configurations_that_are_wrong(shell: Shell, text: str, said: str) -> None:  # noqa: F811
    (shell.work / "a.toml").write_text(text)
    assert said in shell.wrong("train", "--config", "a.toml")
    assert "none.toml: no such file" in shell.wrong("train", "--config", "none.toml")


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no devices")
def test_a_configuration_without_an_end(shell: Shell) -> None:  # noqa: F811
    assert "expected a TOML file of options" in shell.wrong("train", "--config", "/dev/zero")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--optimizer adam --momentum 0.9", "is of sgd and rmsprop"),
        ("--momentum 1", "--momentum: expected"),
        ("--momentum -0.1", "--momentum: expected"),
        ("--weight-decay -1", "--weight-decay: expected"),
        ("--validation 0.0001 --limit 50", "would keep 0 of 50 images aside"),
        ("--patience 0", "--patience: expected"),
        ("--schedule step", "--schedule: invalid choice"),
    ],
)
def test_recipes_that_do_not_fit(shell: Shell, digits: Path, options: str, said: str) -> None:  # noqa: F811
    assert said in shell.wrong("train", "--data", digits, *options.split())
    assert shell.files() == set()


# --- what is left to look at ---


def test_the_report_and_the_pictures(shell: Shell, digits: Path) -> None:  # noqa: F811
    env = {"FASTSCALAR_PICTURES": "1", "MPLCONFIGDIR": str(shell.folder / "mpl")}
    run = ("train", "--data", digits, "--hidden", 8, "--limit", 300, "--epochs", 2, "--patience", 9)
    seen = shell(*run, "--out", "a", "--no-pictures", **env)
    assert seen.returncode == 0
    assert "to look at in a: report.html\n" in seen.stdout
    page = (shell.work / "a/report.html").read_text()
    assert page.count("<polyline") == 3
    assert page.count("<img") == 40
    assert "data:image/png;base64," in page
    assert not re.search(r"(src|href)=(?!['\"]data:)", page), "it needs nothing else"
    assert "patience</th><td>9" in page
    shown = shell("show", "a", "--into", "b", **env)
    assert shown.returncode == 0, shown.stderr
    assert (shell.work / "b/report.html").read_text() == page
    pytest.importorskip("matplotlib")
    made = sorted((shell.work / "b/pictures").iterdir())
    assert [p.stem for p in made] == ["confusion", "curves", "images", "mistakes", "weights"]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in made)
    fs.Linear(784, 10, seed=0).save(shell.work / "bare.npz")
    assert "nothing to show of its run" in shell.wrong("show", "bare.npz")


def not_blank(figure: Any) -> bool:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    return bool((pixels < 128).any(axis=2).mean() > 0.002 and len(np.unique(pixels)) > 20)


def test_figures() -> None:
    pytest.importorskip("matplotlib")
    (X, y), (X_test, y_test) = fs.datasets.synthetic_digits(600, 100)
    rows, rows_test = X.reshape(-1, 784) / 255, X_test.reshape(-1, 784) / 255
    net = fs.MLP(784, [16, 10], seed=0)
    history = fs.fit(net, rows, y, epochs=1, validation_data=(rows_test, y_test), progress=False)
    figures = [
        plot.images(X[:20], y[:20]),
        plot.images(rows[:3]),
        plot.curves(history),
        plot.confusion(y_test, fs.predict(net, rows_test)),
        plot.confusion([0, 1, 1], [0, 1, 0], names=["cat", "dog"]),
        plot.mistakes(net, rows_test, y_test),
        plot.weights(net, n=10),
    ]
    assert all(type(figure).__mro__[1].__name__ == "Figure" for figure in figures)
    assert all(map(not_blank, figures))


def test_figures_of_what_does_not_fit() -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="2 images but 1 labels"):
        plot.images(np.zeros((2, 4, 4)), [1])
    with pytest.raises(ValueError, match="expected images of shape"):
        plot.images(np.zeros((2, 5)))
    with pytest.raises(ValueError, match="confusion: expected labels"):
        plot.confusion([0, 1], [0.5, 1.0])
    with pytest.raises(ValueError, match="weights: expected a first layer"):
        plot.weights(fs.MLP(3, [2], seed=0))


# --- completion ---


def test_every_option_is_completed() -> None:
    words = words_of(parser())
    assert {"train", "predict", "show", "completion"} <= set(words)
    assert words["train"]["--optimizer"] == list(recipe.OPTIMIZERS)
    for shell_name in ("bash", "zsh", "fish"):
        text = script(shell_name, parser())
        assert all(re.search(rf"\b{command}\b", text) for command in words)
        for option in words["train"]:
            assert option.lstrip("-") in text


def complete(words: list[str]) -> list[str]:
    code = f"{script('bash', parser())}\nCOMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _fastscalar\n"
    code += 'printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_completion_in_bash() -> None:
    assert complete(["fastscalar", "pre"]) == ["predict"]
    assert complete(["fastscalar", "train", "--opt"]) == ["--optimizer"]
    assert complete(["fastscalar", "train", "--optimizer", "a"]) == ["adam", "adamw"]
    assert complete(["fastscalar", "train", "--epochs", "'3'"]) == []
    assert complete(["fastscalar", "completion", "z"]) == ["zsh"]
    assert complete(["fastscalar", "evaluate", "x", "--data", "mn"]) == ["mnist"]
    assert complete(["fastscalar", "train", "--data", "/us"]) == ["/usr"]


@pytest.mark.parametrize("loss", fs.nn.losses.LOSSES)
@pytest.mark.parametrize("eager", [False, True])
def test_every_loss_learns_and_says_what_it_was(
    shell: Shell, digits: Path, loss: str, eager: bool  # noqa: F811
) -> None:
    """The loss of the first epoch is what `fit` makes of targets that are 1 for the class and 0 for the others."""
    typed = loss.replace("_", "-")
    shell.right("train", "--data", digits, "--loss", typed, "--epochs", "1", "--hidden", "8", "--limit", "50",
                "--json", "a.json", *(["--eager"] if eager else []))  # fmt: skip
    about = json.loads((shell.work / "a.json").read_text())
    assert about["loss"] == loss
    (X, y), _ = fs.datasets.load_folder(digits)
    X, y = X[:50].reshape(50, -1) / 255, y[:50].astype(int)
    net = fs.MLP(X.shape[1], [8, 10], seed=0)
    targets = y if loss == "cross_entropy" else np.eye(10)[y]
    history = fs.fit(net, X, targets, loss=loss, optimizer=fs.SGD(lr=0.02), epochs=1, seed=0, progress=False)
    np.testing.assert_allclose(about["epochs"][0]["loss"], history.loss[0], rtol=1e-9)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: fs.nn.Sequential(fs.Linear(784, 10, seed=0), "relu"), ""),
        (lambda: fs.nn.Sequential(fs.nn.Reshape(28, 28), fs.nn.Conv2d(1, 2, 9, stride=9, seed=0), fs.nn.Flatten()), ""),
        (lambda: fs.nn.Sequential(fs.Linear(3, 2, seed=0)), "Sequential takes no row of 784 pixels"),
        (lambda: fs.nn.Embedding(3, 2, seed=0), "Embedding takes no row of 784 pixels"),
    ],
    ids=["dense", "convolution", "of three numbers", "of indices"],
)
def test_a_file_of_another_module(shell: Shell, digits: Path, make: Any, said: str) -> None:  # noqa: F811
    make().save(shell.work / "net.npz")
    picture = np.zeros((28, 28), np.uint8)
    picture[4:24, 12:15] = 255
    np.save(shell.work / "one.npy", picture)
    for command in (("evaluate", "net.npz", "--data", digits), ("predict", "net.npz", "one.npy")):
        if said:
            assert said in shell.wrong(*command)
        else:
            shell.right(*command)
    assert "play takes what train has saved" in shell.wrong("play", "net.npz", "--no-browser")
