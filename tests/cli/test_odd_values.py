"""Every option of `train` with values that it has not, typed and from a file: one line, and nothing is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

import fastscalar as fs
import killing
from fastscalar import cli
from fastscalar.cli.options import LONG, Parser, train_options

TRAIN = ["train", "--data", "data", "--epochs", "1", "--hidden", "2", "--limit", "8", "--quiet"]


def options(with_values: bool = True) -> list[str]:
    it = Parser()
    train_options(it, "")
    return [
        action.option_strings[0].removeprefix("--")
        for action in it._actions
        if action.dest != "help" and (action.nargs is None) == with_values
    ]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    killing.write_data(tmp_path / "data")
    fs.MLP(784, [4, 10], seed=0).save(tmp_path / "net.npz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    try:
        status = cli.main(arguments)
    except SystemExit as end:                    # argparse's own
        status = end.code  # type: ignore[assignment]
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1), (arguments, err)
    assert "unexpected" not in err
    assert "Errno" not in err
    assert len(err) < LONG + 200
    return err


@pytest.mark.parametrize("option", [o for o in options() if o != "config"])
def test_two_dashes_are_no_value(work: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert f"argument --{option}: expected one argument" in said([*TRAIN, f"--{option}=--"], capsys)
    assert not (work / "--").exists()


@pytest.mark.parametrize("command", [["evaluate", "net.npz", "--data=--"], ["data", "--fetch=--"]])
def test_two_dashes_of_other_commands(work: Path, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    assert "expected one argument" in said(command, capsys)


@pytest.mark.parametrize("command", [
    [*TRAIN, "--out", ""], [*TRAIN, "--json="], ["evaluate", ""], ["predict", "", "x"], ["predict", "net.npz", ""],
    ["predict", "net.npz", "x", "--save", ""], ["show", ""], ["show", "net.npz", "--into="], ["play", ""],
    ["bench", "--json="],
])  # fmt: skip
def test_an_empty_name_is_not_where_we_are(work: Path, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    before = sorted(work.rglob("*"))
    assert "expected a name, got an empty one" in said(command, capsys)
    assert sorted(work.rglob("*")) == before


@pytest.mark.parametrize("option", ["model", "optimizer", "loss", "dtype", "schedule", "epochs", "hidden"])
def test_long_values_are_cut(work: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    for value in ("x" * 10_000, "x\n" * 1000):
        assert f"--{option}" in said([*TRAIN, f"--{option}={value}"], capsys)


WRONG = {  # values of TOML, of a type that no option has, or with what no value holds
    "table": "{}",
    "date": "1979-05-27",
    "lists": "[[1]]",
    "texts": '["a", "b"]',
    "true": "true",
    "nul": '"a\\u0000b"',
    "dashes": '"--"',
    "nothing": "[]",
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("option", [o for o in options() if o != "config"])
def test_values_of_other_types_in_a_file(
    work: Path, capsys: pytest.CaptureFixture[str], option: str, kind: str
) -> None:
    Path("c.toml").write_text(f"{option} = {WRONG[kind]}\n")
    assert f"--config c.toml: {option}: " in said(["train", "--config", "c.toml", "--data", "data"], capsys)


@pytest.mark.parametrize("option", options())
def test_no_is_said_of_switches_alone(work: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    Path("c.toml").write_text(f"{option} = false\n")
    assert f"--config c.toml: {option}: " in said(["train", "--config", "c.toml", "--data", "data"], capsys)


def test_switches_in_a_file(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("eager", "mpi", "no-pictures", "no_pictures", "quiet"):
        Path("c.toml").write_text(f"{name} = false\n")
        assert cli.main([*TRAIN, "--config", "c.toml"]) == 0
        capsys.readouterr()
    for name in ("resume", "overwrite", "config"):
        Path("c.toml").write_text(f"{name} = true\n")
        assert "is said on the command line" in said([*TRAIN, "--config", "c.toml"], capsys)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "not TOML"),
        (b"epochs=1\nepochs=2", "not TOML"),
        (b"x=" + b"[" * 100_000 + b"]" * 100_000, "lists in lists"),
        (b"#" * 2_000_000, "at most 1,048,576 bytes"),
        (b"'' = 1\n", "--config c.toml"),
        (b"'epochs=3' = 1\n", "--config c.toml"),
        (b"help = true\n", "no such option: help"),
    ],
)
def test_files_that_are_no_configuration(
    work: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    Path("c.toml").write_bytes(content)
    assert message in said([*TRAIN, "--config", "c.toml"], capsys)


def test_one_file_of_options(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("c.toml").write_text("epochs = 1\n")
    assert "expected one file" in said([*TRAIN, "--config", "c.toml", "--config=d.toml"], capsys)


def test_names_with_ends_of_lines(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Are said in one line, as a result too."""
    assert said(["predict", "net.npz", "a\nb"], capsys) == "fastscalar: a b: no such file or directory\n"
    assert "a b" in said(["evaluate", "a\nb"], capsys)
    assert "a b" in said(["show", "a\nb"], capsys)
    Path("one\ntwo.pgm").write_bytes(b"P5 28 28 255\n" + bytes(28 * 28))
    assert cli.main(["predict", "net.npz", "one\ntwo.pgm"]) == 0
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize("command", [["info"], ["data"], [*TRAIN, "--data", "auto"]])
def test_a_user_without_a_home(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """As a container has them that runs with any number for a user."""

    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    for name in ("FASTSCALAR_CACHE", "FASTSCALAR_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FASTSCALAR_MIRRORS", "http://127.0.0.1:9/")
    monkeypatch.setenv("TMPDIR", str(work))
    assert cli.main(command) == 0
    assert "unexpected" not in capsys.readouterr().err
