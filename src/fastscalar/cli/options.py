"""What stands on a command line: numbers that are checked, the options of `train`, and those of a file of them."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from fastscalar.cli import recipe
from fastscalar.cli.console import Stop, say
from fastscalar.nn.losses import LOSSES

LONG = 400  # characters of a message; what was typed is quoted in it


def brief(message: str) -> str:
    """One line that says the beginning and the end, in which stands what was expected."""
    line = " ".join(message.split())
    return line if len(line) <= LONG else f"{line[: LONG // 4]}...{line[-LONG // 2 :]}"


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {brief(message)} (see {self.prog} --help)\n")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Of `--lr=--` the base class of Python 3.11 makes an empty list, whatever the option's type is."""
        if action.option_strings and action.nargs is None and arg_strings == ["--"]:
            raise argparse.ArgumentError(action, "expected one argument, got '--'")
        return super()._get_values(action, arg_strings)

    def _print_message(self, message: str, file: Any = None) -> None:
        """As the base class does it, which says nothing when the help cannot be written."""
        if message and file is sys.stdout:
            say(message.removesuffix("\n"))
        elif message:
            super()._print_message(message, file)


class ConfigParser(Parser):
    """Of what a file says, which a message names."""

    def error(self, message: str) -> NoReturn:
        raise Stop(f"{self.prog}: {brief(message.removeprefix('argument --'))}")


def number(kind: Callable[[str], Any], least: float, what: str, most: float = math.inf) -> Callable[[str], Any]:
    """A type for argparse: an int of at least `least`, or a float above it; at most `most`."""

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        short = text if len(text) < 60 else f"{text[:57]}..."
        if not (least <= value < math.inf) or (kind is float and value == least):
            raise argparse.ArgumentTypeError(f"expected {what}, got {short!r}")
        if value > most:
            raise argparse.ArgumentTypeError(f"expected at most {most:,}, got {short!r}")
        return value

    return convert


count = number(int, 1, "a whole number of at least 1", 2**31 - 1)  # the engine counts with 32 bits


def place(text: str) -> Path:
    """Of a file or a folder.  An empty name, of a variable of the shell that is not set, would be the folder here."""
    if not text:
        raise argparse.ArgumentTypeError("expected a name, got an empty one")
    return Path(text)


def sizes(text: str) -> list[int]:
    return [count(part.strip()) for part in text.split(",")]


def train_options(it: Parser, which: str) -> None:
    """In groups, by what they are about."""
    whole = number(int, 0, "a whole number of at least 0")
    part = number(float, -math.inf, "a number from 0 to below 1", math.nextafter(1.0, 0.0))

    def share(text: str) -> float:
        value = part(text)
        if value < 0:
            raise argparse.ArgumentTypeError(f"expected a number from 0 to below 1, got {text!r}")
        return float(value)

    def decay(text: str) -> float:
        return 0.0 if text.strip() in ("0", "0.0") else float(number(float, 0, "a number from 0 on")(text))

    add = it.add_argument_group("data").add_argument
    add("--data", metavar="DATA", help=f"auto (MNIST, or else synthetic digits), {which} (default: auto)")
    add("--limit", type=count, metavar="N", help="use only the first N training images")
    add("--validation", type=share, metavar="PART",
        help="keep the last part of the training images aside for validation (default: 0; 0.1 with --patience)")

    add = it.add_argument_group("net").add_argument
    add("--model", choices=["mlp", "linear"], help="(default: mlp)")
    add("--hidden", type=sizes, metavar="N,...", help="sizes of the hidden layers (default: 256)")
    add("--seed", type=whole, metavar="N", help="of the first weights and of the order (default: 0)")

    add = it.add_argument_group("learning").add_argument
    add("--epochs", type=count, metavar="N", help="passes over the training data (default: 5)")
    add("--batch-size", type=count, metavar="N", help="samples for each step (default: 1)")
    add("--optimizer", choices=list(recipe.OPTIMIZERS), help="(default: sgd)")
    add("--lr", type=number(float, 0, "a number above 0"), metavar="X",
        help="learning rate at first (default: 0.02 x the square root of the batch size; 0.001 for the others)")
    add("--schedule", choices=list(recipe.SCHEDULES), help="of the learning rate over the run (default: linear, to 0)")
    add("--warmup", type=share, metavar="PART", help="a part of the run in which the rate rises first (default: 0)")
    add("--momentum", type=share, metavar="X", help="of sgd and rmsprop (default: 0)")
    add("--weight-decay", type=decay, metavar="X", help="(default: 0)")
    add("--clip-norm", type=number(float, 0, "a number above 0"), metavar="X",
        help="the gradient of a step is at most so long (default: as long as it is)")
    add("--loss", type=lambda text: text.replace("-", "_"), choices=list(LOSSES), metavar="LOSS",
        help=f"{', '.join(LOSSES)}; all but the first compare the outputs with 1 for the class and 0 for the others "
        "(default: cross_entropy)")
    add("--label-smoothing", type=share, metavar="X",
        help="share so much of the right class's probability among all, in the loss, cross-entropy (default: 0)")
    add("--patience", type=count, metavar="N",
        help="stop when the validation loss has not fallen for N epochs, and take the best net")

    add = it.add_argument_group("computing").add_argument
    add("--dtype", choices=["float64", "float32"], help="of the numbers that are computed with (default: float64)")
    add("--threads", type=count, metavar="N", help="samples of a batch at the same time (default: 1)")
    add("--eager", action="store_true", default=None,
        help="make the graph of every sample anew, as the article does; slower")
    add("--mpi", action="store_true", help="with all processes that mpiexec has started (docs/scale-out.md)")

    add = it.add_argument_group("files").add_argument
    add("--out", type=place, metavar="DIR",
        help="keep the model, its history, a checkpoint, the configuration, pictures and a report here")
    add("--resume", action="store_true", help="go on, exactly, with the interrupted run in --out DIR")
    add("--overwrite", action="store_true", help="replace the run that is in --out DIR")
    add("--config", metavar="FILE", help="options from a TOML file, such as config.toml of a run; others win")
    add("--json", type=place, metavar="FILE", help="write what happened to this file")
    add("--no-pictures", action="store_true", help="leave the report only, and no PNG files, in --out DIR")
    add("--quiet", action="store_true", help="print the last line only")


def with_config(arguments: list[str]) -> list[str]:
    """Those of `train --config FILE` with what the file says before them, so that what is typed wins."""
    if arguments[:1] != ["train"]:
        return arguments
    for k, argument in enumerate(arguments):
        if argument == "--":
            break
        name, equals, value = argument.partition("=")
        if name == "--config" and (equals or k + 1 < len(arguments)):
            if any(other.partition("=")[0] == "--config" for other in arguments[k + 1 :]):
                raise Stop("--config: expected one file, got several")
            file = Path(value if equals else arguments[k + 1])
            said = recipe.arguments_of(file)
            known = ConfigParser(prog=f"--config {file}", add_help=False, allow_abbrev=False)
            train_options(known, "")
            if unknown := [a for a in known.parse_known_args(said)[1] if a.startswith("--")]:
                raise Stop(f"--config {file}: no such option: {unknown[0].partition('=')[0].lstrip('-')}")
            return ["train", *said, *arguments[1:]]
    return arguments
