"""The command line: fastscalar train, evaluate, predict, show, data, bench, play, info, completion.

Contract
1. `train` writes nothing unless --out or --json is given.
2. Which data were really used stands in the first and the last line of the output, in the JSON and in the
   saved model.
3. Exit status: 0; 1 when `data --verify` finds damage or `bench` wrong numbers; 2 for what the user can put
   right, a run that diverges among it, with one line on the standard error stream; 70 for a defect of this program,
   with one line; 130 after Ctrl-C, with one line; 141 when the reader of a pipe has gone.  FASTSCALAR_DEBUG=1 adds the
   traceback.

Data come from `sources.py`, the files of a run from `runs.py`, what is printed goes through `console.py`.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

import fastscalar as fs
from fastscalar import _core, datasets
from fastscalar.cli import recipe
from fastscalar.cli.console import (
    CLOSED,
    WIDTH,
    Stop,
    complain,
    cpu,
    describe,
    matrix,
    open_streams,
    percent,
    plural,
    say,
    short,
    users_fault,
)  # fmt: skip
from fastscalar.cli.options import Parser, number, place, train_options, with_config
from fastscalar.cli.runs import MODEL, REPORT, Run, check_targets, folder, read_model, source, start, widths, write_json
from fastscalar.cli.sources import SYNTHETIC, first_lines, load_data, rows
from fastscalar.datasets.catalog import DATASETS, FILES, spellings
from fastscalar.nn.history import Epoch

# --- train ---


def train(args: argparse.Namespace) -> int:
    """`fastscalar train`: the exit status."""
    if args.mpi:
        from fastscalar.cli.ranks import train_together

        return train_together(args, do, fit_of)
    with users_fault(OSError), folder(args):
        run = start(args)
        run.begin()
        return do(run, args)


def do(run: Run, args: argparse.Namespace, comm: Any = None) -> int:
    """Train what `start` has put together, and say how it went: the exit status."""
    asked = run.asked
    if not args.quiet:
        say()
        held = f" {'validation':>10}" if asked["validation"] else ""
        say(f"{'epoch':>5} {'loss':>9}{held} {'test accuracy':>14} {'seconds':>9} {'samples/s':>10}", "bold")
        for row in run.epochs:
            say(table_row(row), "dim")

    def on_epoch(epoch: Epoch) -> None:
        row = run.add(epoch)
        if not args.quiet:
            say(table_row(row))
        if recipe.had_enough(asked, run.epochs):
            raise fs.StopTraining("the validation loss has not fallen")

    try:
        if not run.done:
            fit_of(run, args, on_epoch, comm)
    except KeyboardInterrupt:
        if run.out is None and args.json is None:
            raise
        again = f"to go on: fastscalar train --out {run.out} --resume" if run.out is not None else ""
        raise Stop(f"interrupted{run.stop('interrupted', args.json)}", 130, again) from None
    except FloatingPointError as error:
        raise Stop(f"{error}{run.stop('diverged', args.json)}; try a smaller --lr") from error
    run.take_best()
    run.complete()
    if args.json is not None:
        write_json(args.json, run.report())
    if not args.quiet:
        say(f"\nsaved in {run.out}: {MODEL}, {REPORT}" if run.out is not None else "")
    if run.out is not None:
        from fastscalar.cli.pictures import leave_pictures

        leave_pictures(run, args)
    report = run.report()
    spent = f"{plural(len(run.epochs), 'epoch')}, {report['seconds']:.1f} s"
    if run.row is not None and run.row["epoch"] < len(run.epochs):
        spent += f"; the net of epoch {run.row['epoch']}"
    say(f"{run.data.used}: {percent(report['test_accuracy'])} test accuracy after {spent}", "bold")
    return 0


def fit_of(run: Run, args: argparse.Namespace, on_epoch: Callable[[Epoch], None] | None, comm: Any) -> None:
    """The call of `fit` that a run is."""
    asked = run.asked
    X, y = rows(run.data.train)
    fs.fit(
        run.net,
        X,
        y,
        loss=recipe.loss_of(asked, run.data.classes),
        optimizer=run.optimizer,
        schedule=recipe.schedule_of(asked),
        epochs=asked["epochs"],
        first_epoch=len(run.epochs) + 1,
        batch_size=asked["batch_size"],
        seed=asked["seed"],
        validation_data=rows(run.data.test),
        progress=not args.quiet,
        on_epoch=on_epoch,
        compile=not asked["eager"],
        threads=run.threads,
        dtype=asked["dtype"],
        comm=comm,
    )


def table_row(row: dict[str, Any]) -> str:
    """One line of the table of epochs."""
    loss = f"{row['loss']:.4f}" if row["loss"] < 1000 else f"{row['loss']:.3g}"
    held = f" {row['validation_loss']:>10.4f}" if "validation_loss" in row else ""
    return (
        f"{row['epoch']:>5} {loss:>9}{held} {percent(row['test_accuracy']):>14}"
        f" {row['seconds']:>9.2f} {row['samples_per_s']:>10,.0f}"
    )


# --- evaluate, predict ---


def trained_on(about: dict[str, Any]) -> str:
    """What a saved run says that it was trained on."""
    if "title" not in about:
        return "; it does not say what it was trained on"
    stopped = [how for how in ("interrupted", "diverged") if about.get(how)]
    for_epochs = f" for {plural(len(about['epochs']), 'epoch')}" if "epochs" in about else ""
    return f", trained on {about['title']}{for_epochs}{f' ({stopped[0]})' if stopped else ''}"


def evaluate(args: argparse.Namespace) -> int:
    """`fastscalar evaluate`: the exit status."""
    net = read_model(args.model)
    inputs, classes = widths(net, args.model)
    name = args.data
    if name is None:
        name = source(net.metadata)
        if name is None:
            raise Stop(f"{args.model} does not say what it was trained on; give --data mnist, or other data")
    data = load_data(name, limit=0)
    X, y = rows(data.test)
    if X.shape[1] != inputs:
        raise Stop(f"{args.model} takes {inputs} pixels, but the images of {data.title} have {X.shape[1]}")
    if classes < 2:
        raise Stop(f"{args.model} has one output; evaluate needs a net that tells classes apart")
    first_lines(data, plural(len(y), "test image"))
    net_line = f"net:  {net}{trained_on(net.metadata)}"
    say(fill(net_line, WIDTH - 1, subsequent_indent=" " * 6, break_on_hyphens=False, break_long_words=False) + "\n")
    labels = fs.predict(net, X)
    size = max(classes, int(y.max()) + 1)
    counts = np.zeros((size, size), dtype=int)
    np.add.at(counts, (y, labels), 1)
    lines = matrix(counts.tolist())
    if max(map(len, lines)) < WIDTH:
        say("\n".join(lines) + "\n")
    wrong = [(counts[i, j], i, j) for i, j in np.argwhere(counts) if i != j]
    if wrong:
        worst = sorted(wrong, key=lambda entry: -entry[0])[:3]
        say("most often: " + ", ".join(f"{i} taken for {j} ({n:,})" for n, i, j in worst))
    right = int(np.trace(counts))
    wrong_ones = f"{len(y) - right:,} of {plural(len(y), 'image')} wrong"
    say(f"{data.used}: {percent(right / len(y))} test accuracy, {wrong_ones}", "bold")
    return 0


def predict(args: argparse.Namespace) -> int:
    """`fastscalar predict`: the exit status."""
    from fastscalar.cli.predict import predict as look  # no other command needs it

    return look(args)


# --- data, bench, info ---


def data(args: argparse.Namespace) -> int:
    """`fastscalar data`: the exit status."""
    if args.fetch is not None:
        with users_fault(OSError):
            folder = datasets.fetch(args.fetch, report=say)
        say(f"{DATASETS[args.fetch].title} is in {folder}, every file verified")
        return 0
    status = 0
    for name, known in DATASETS.items():
        folder_found = datasets.locate(name)
        say(f"{known.title}, --data {name}: {'not here' if folder_found is None else 'here'}", "bold")
        if folder_found is None:
            say("  looked in")
            for folder in datasets.search_folders(name):
                say(f"    {short(folder)}")
            say(f"  download it now: fastscalar data --fetch {name}")
            continue
        say(f"  {short(folder_found)}")
        if args.verify:
            for file, wrong in datasets.verify(folder_found, name).items():
                say(f"    {file}: {wrong or 'right'}")
                status |= wrong is not None
    say(f"{SYNTHETIC}, --data synthetic: always here, drawn by fastscalar itself", "bold")
    if not args.verify:
        say("\nBy hand: put these files, each as it is or with .gz, into one of the folders:")
        for file in FILES:
            say(f"  {file} (or {spellings(file)[1]})")
        say("$FASTSCALAR_DATA names a folder that has mnist/ or fashion-mnist/ in it,")
        say("--data DIR the folder of the files itself.")
    return status


def bench(args: argparse.Namespace) -> int:
    """`fastscalar bench`: the exit status, 1 if numbers were wrong."""
    check_targets(None, args.json)
    if args.mpi:
        from fastscalar.cli.ranks import bench_together

        report = bench_together(args.quick)
    else:
        from fastscalar.cli.bench import compare_all  # no other command needs it

        report = compare_all(args.quick)
    if args.json is not None:
        with users_fault(OSError):
            write_json(args.json, report)
    return 0 if report["correct"] else 1


def info(args: argparse.Namespace) -> int:
    """`fastscalar info`: the exit status."""
    if args.mpi:
        from fastscalar.cli.ranks import info_together

        return info_together()
    places = {name: datasets.locate(name) for name in DATASETS}
    here = [DATASETS[name].title for name, place in places.items() if place is not None]
    for name, value in (
        ("fastscalar", f"{fs.__version__}, {short(Path(fs.__file__).parent)}"),
        ("Python", f"{platform.python_version()} ({platform.python_implementation()})"),
        ("NumPy", np.__version__),
        ("system", f"{platform.system()} {platform.release()} {platform.machine()}"),
        ("CPU", f"{cpu()}, {plural(os.cpu_count() or 1, 'core')}"),
        ("kernels", f"{fs.tape_info()['kernels']}; this CPU can run {', '.join(_core.kernel_sets())}"),
        ("", f"FASTSCALAR_KERNELS is {os.environ.get('FASTSCALAR_KERNELS') or 'not set'}"),
        ("data sets", ", ".join([*here, SYNTHETIC])),
        *(("", f"{DATASETS[n].title}: {short(where or 'not here')}") for n, where in places.items()),
        ("downloads", short(datasets.cache_dir())),
    ):
        say(f"{name:<11} {value}")
    return 0


def play(args: argparse.Namespace) -> int:
    """`fastscalar play`: the exit status."""
    from fastscalar.cli.play import serve  # no other command needs it

    return serve(args)


def show(args: argparse.Namespace) -> int:
    from fastscalar.cli.pictures import show_again  # no other command needs it

    return show_again(args)


def completion(args: argparse.Namespace) -> int:
    from fastscalar.cli.completion import script

    say(script(args.shell, parser()))
    return 0


# --- arguments ---


def parser() -> Parser:
    """All commands with their options."""
    top = Parser(
        prog="fastscalar",
        description="Train nets on graphs of single numbers, and look at what came out.",
        epilog="example: fastscalar train --data mnist --epochs 1",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"fastscalar {fs.__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND")
    which = "mnist, fashion, synthetic, or where images are (fastscalar data --help)"
    model = "a model file, or the folder that was given to train --out"

    def command(run: Callable[[argparse.Namespace], int], help: str, *examples: str, about: str = "") -> Parser:
        it: Parser = commands.add_parser(
            run.__name__,
            help=help,
            description=f"{help[0].upper()}{help[1:]}.\n{about}".rstrip(),
            epilog="\n  ".join(["example:" if len(examples) == 1 else "examples:", *examples]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        it.set_defaults(run=run)
        return it

    it = command(
        train,
        "train a net on images and test it",
        "fastscalar train --data mnist --epochs 1",
        "fastscalar train --hidden 256,64 --out runs/a",
        "fastscalar train --out runs/a --resume",
        "fastscalar train --optimizer adam --schedule cosine --patience 3 --epochs 30",
        "fastscalar train --config runs/a/config.toml --seed 1 --out runs/b",
    )
    train_options(it, which)

    it = command(evaluate, "test a saved model", "fastscalar evaluate runs/a --data mnist")
    it.add_argument("model", type=place, metavar="MODEL", help=model)
    it.add_argument("--data", metavar="DATA", help=f"{which} (default: what it was trained on)")

    it = command(
        predict,
        "say what a model sees in images",
        "fastscalar predict runs/a scan.jpg drawing.png",
        "fastscalar predict runs/a --show photo.webp",
        "cat seven.png | fastscalar predict runs/a -",
        "fastscalar predict runs/a --json *.png",
        about="""
Pictures (PNG, JPEG, WebP, BMP, GIF: pip install 'fastscalar[images]'; PGM)
may have any size and colour.  Ink and paper are told apart, and the digit is
cut out, scaled and centred as those of MNIST are.  .npy and IDX files, and PGM
files of the model's size, are taken as they are: ink bright, paper dark.  A
file that cannot be read does not stop the others; the exit status is 2 then.
""",
    )
    it.add_argument("model", type=place, metavar="MODEL", help=model)
    it.add_argument("images", type=place, nargs="+", metavar="IMAGE", help="files of images; - is the standard input")
    it.add_argument("--show", action="store_true", help="print what the model was shown")
    it.add_argument("--save", type=place, metavar="DIR", help="write what the model was shown into this folder, as PNG")
    it.add_argument("--json", action="store_true", help="print all probabilities, as JSON")
    it.add_argument("--invert", action="store_true",
                    help="dark and bright change places: for arrays of dark ink, and where ink was taken for paper")
    it.add_argument("--plain", action="store_true",
                    help="pictures as they are, grey and small; no digit is cut out (so for models of Fashion-MNIST)")

    it = command(
        data,
        "show which data sets are here, and where",
        "fastscalar data",
        "fastscalar data --fetch mnist",
        "fastscalar data --verify",
        about="""
Other commands take with --data a name (mnist, fashion, synthetic), or where
labelled images are: a folder or zip of IDX files (MNIST, EMNIST, KMNIST and
their like), CSV files (Kaggle's), an .npz file (Keras'), or a folder or zip
that has a folder of pictures for each class.  Of several sets in one folder,
emnist/emnist-letters names one.
""",
    )
    either = it.add_mutually_exclusive_group()
    either.add_argument("--fetch", choices=list(DATASETS), help="download it into the cache now")
    either.add_argument("--verify", action="store_true",
                        help="compare every file with the published content; exit status 1 if one differs")

    it = command(
        bench,
        "measure this machine: the engine beside pure Python and what else is installed",
        "fastscalar bench",
        "fastscalar bench --quick --json figures.json",
    )
    it.add_argument("--quick", action="store_true", help="a few seconds, and figures to match")
    it.add_argument("--json", type=place, metavar="FILE", help="write all figures to this file")
    it.add_argument("--mpi", action="store_true", help="what the processes that mpiexec has started gain")

    it = command(
        show,
        "make the pictures and the report of a run again",
        "fastscalar show runs/a",
        "fastscalar show runs/a --data mnist --into pictures",
        about="""
A report (one HTML file with the configuration, the curves, what was taken for
what, and the most confident mistakes), and the same as PNG files if matplotlib
is there (pip install 'fastscalar[plot]').  train --out leaves both.
""",
    )
    it.add_argument("model", type=place, metavar="MODEL", help=model)
    it.add_argument("--data", metavar="DATA", help=f"{which} (default: what it was trained on)")
    it.add_argument("--into", type=place, metavar="DIR", help="write them here (default: beside the model)")

    it = command(
        completion,
        "print what makes a shell complete commands and options",
        "fastscalar completion bash",
        about="""
bash:  eval "$(fastscalar completion bash)"   in ~/.bashrc
zsh:   eval "$(fastscalar completion zsh)"    in ~/.zshrc, after compinit
fish:  fastscalar completion fish | source    in ~/.config/fish/config.fish
""",
    )
    it.add_argument("shell", choices=["bash", "zsh", "fish"])

    it = command(
        play,
        "draw digits, watch a net learn, play graphs, on a page in the browser",
        "fastscalar play",
        "fastscalar play runs/a",
        "fastscalar play --data synthetic --no-browser",
    )
    it.add_argument("model", type=place, nargs="?", metavar="MODEL", help=f"{model} (default: a net trained now)")
    it.add_argument("--data", metavar="DATA",
                    help=f"{which} (default: MNIST if it is on this machine, or else synthetic digits)")
    it.add_argument("--hidden", type=number(int, 1, "a whole number of at least 1", 1024), metavar="N",
                    help="hidden units of the new net (default: 128)")
    it.add_argument("--seed", type=number(int, 0, "a whole number of at least 0"), default=0, metavar="N",
                    help="of the first weights and of the order (default: 0)")
    it.add_argument("--port", type=number(int, 0, "a port", 65535), default=0, metavar="N",
                    help="of the address on 127.0.0.1 (default: one that is free)")
    it.add_argument("--no-browser", action="store_true", help="print the address and open nothing")

    it = command(
        info,
        "show versions, kernels, CPU and data sets",
        "fastscalar info",
        "FASTSCALAR_KERNELS=baseline fastscalar info",
    )
    it.add_argument("--mpi", action="store_true", help="the processes that mpiexec has started, a line for each")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    caught: BaseException
    open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a path is no reason to stop, whatever characters it has
    try:
        top = parser()
        args = top.parse_args(with_config(list(sys.argv[1:] if argv is None else argv)))
        if not hasattr(args, "run"):
            top.print_help()
            return 0
        if sys.stdout is None:  # rather than after the training
            raise Stop(CLOSED)
        return args.run(args)
    except BrokenPipeError:  # `| head` has seen enough; Python would complain once more when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except KeyboardInterrupt as error:
        caught, line, status = error, "interrupted", 130
    except Stop as error:
        caught, line, status = error, f"{error}\n{error.then}".rstrip(), error.status
    except OSError as error:
        caught, line, status = error, describe(error), 2
    except MemoryError as error:
        caught, line, status = error, f"not enough memory{f' ({error})' if str(error) else ''}", 2
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        caught, status = error, 70
        line = f"unexpected {what}; set FASTSCALAR_DEBUG=1 for the traceback"
    if os.environ.get("FASTSCALAR_DEBUG") not in (None, "", "0"):
        traceback.print_exception(caught)
    complain(line)
    return status
