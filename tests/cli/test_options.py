"""Random option lists, made from the parser itself: no traceback, status 0, 1 or 2, and one message that says why.

FASTSCALAR_OPTIONS asks for more of them than 200.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastscalar as fs
import killing
from fastscalar import cli
from fastscalar.cli import commands

EXAMPLES = int(os.environ.get("FASTSCALAR_OPTIONS", "200"))

COMMANDS: dict[str, argparse.ArgumentParser] = next(
    dict(action.choices)
    for action in commands.parser()._actions
    if isinstance(action, argparse._SubParsersAction)  # type: ignore[type-arg]
)

NUMBERS = ["1", "2", "0", "-1", "0.5", "0.9", "1e-3", "-0.0", "nan", "inf", "-inf", "1e400", "1e-400", "0x10", "1,5",
           "9" * 5000, str(10**30), "1.5", "\uff12", " 1", "1 ", "--1", "+1"]  # fmt: skip
# Of what counts passes, widths and threads, a large number is no mistake: it takes long.
PLACES = ["data", "data/", "net.npz", "file", "empty", "loop", "none", "none/none", ".", "..", "/dev/null", "/dev/full",
          "config.toml", "bad.toml", "new", "new/er", "run", "synthetic", "mnist", "auto", "data/none",
          "x" * 300]  # fmt: skip
NASTY = ["", " ", "-", "--", "---", "=", "a=b", "\udcff", "\u202ex", "\xff\n", "'", "%s", "{}", "--help",
         "-h", "--version"]  # fmt: skip


def value(action: argparse.Action) -> st.SearchStrategy[str]:
    text = st.text(st.characters(exclude_characters="\0"), max_size=8)
    kinds = [st.sampled_from(NASTY), text, st.sampled_from(PLACES)]
    if action.choices:
        kinds = [st.sampled_from([str(c) for c in action.choices])] * 4 + kinds
    elif action.type not in (None, Path):
        kinds = [st.sampled_from(NUMBERS)] * 4 + kinds
    else:
        kinds = [st.sampled_from(PLACES)] * 4 + kinds
    return st.one_of(kinds)


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    if draw(st.integers(0, 19)) == 0:
        return draw(st.lists(st.one_of(st.sampled_from([*NASTY, *PLACES, *COMMANDS])), max_size=3))
    name = draw(st.sampled_from(["train", "train", "train", *COMMANDS]))
    words: list[str] = []
    for action in COMMANDS[name]._actions:
        if action.option_strings:
            if draw(st.integers(0, 9)) > 2 or (action.nargs == 0 and draw(st.booleans())):
                continue
            option = draw(st.sampled_from(list(action.option_strings)))
            if action.nargs == 0:
                words += [option if draw(st.integers(0, 19)) else f"{option}=1"]
            else:
                given_value = draw(value(action))
                words += [f"{option}={given_value}"] if draw(st.booleans()) else [option, given_value]
        elif draw(st.integers(0, 19)):
            words += [draw(value(action)) for _ in range(draw(st.integers(1, 3)) if action.nargs == "+" else 1)]
    if draw(st.integers(0, 9)) == 0:
        words = draw(st.permutations(words))
    if name == "train" and draw(st.integers(0, 3)):  # those that get as far as a training
        words = ["--data", "data", *words]
    return [name, *words]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What names on a line stand for; each line finds it as it was."""
    killing.write_data(tmp_path / "kept" / "data", 12, 6)
    fs.MLP(784, [2, 10], seed=0).save(tmp_path / "kept" / "net.npz")
    monkeypatch.setenv("FASTSCALAR_MIRRORS", "http://127.0.0.1:9/")
    monkeypatch.setenv("FASTSCALAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "system"))
    monkeypatch.delenv("FASTSCALAR_DATA", raising=False)
    # Pages that are served and figures that are measured have no end of their own: what stands before them is meant.
    monkeypatch.setattr("fastscalar.cli.bench.compare_all", lambda quick: {"correct": True})
    monkeypatch.setattr("fastscalar.cli.play.serve", lambda args: 0)
    return tmp_path


def begin(root: Path, k: int) -> Path:
    here = root / str(k)
    here.mkdir()
    for name in ("data", "net.npz"):
        (here / name).symlink_to(root / "kept" / name)
    (here / "file").write_text("hello\n")
    (here / "empty").mkdir()
    (here / "loop").symlink_to("loop")
    (here / "config.toml").write_text("epochs = 1\n[learning]\nmomentum = 0.5\n")
    (here / "bad.toml").write_text("epochs = [1,\n")
    return here


COUNT = iter(range(10**9))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(lines())
def test_random_options(places: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.chdir(begin(places, next(COUNT)))
    try:
        status = cli.main(words)
    except SystemExit as ended:
        status = ended.code
    said = capsys.readouterr()
    assert status in (0, 1, 2), (status, said.err)
    assert "Traceback" not in said.err
    assert "unexpected" not in said.err
    messages = [line for line in said.err.splitlines() if line.startswith("fastscalar")]
    if status == 2:
        assert len(messages) == 1 or (words[0] == "predict" and messages), said.err
    elif status == 0:
        assert not messages, said.err
