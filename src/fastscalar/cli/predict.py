"""`fastscalar predict`: what a model sees in images.  A file that cannot be read does not stop the others."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from fastscalar import datasets
from fastscalar.cli.console import Stop, complain, describe, one_line, percent, say, users_fault
from fastscalar.cli.images import STDIN, read_images
from fastscalar.cli.png import inked, png
from fastscalar.cli.runs import class_names, read_model, widths
from fastscalar.files import replacing
from fastscalar.nn.evaluation import finite, outputs, probabilities

CHOICES = 3  # classes that are said


def predict(args: argparse.Namespace) -> int:
    net = read_model(args.model)
    inputs, classes = widths(net, args.model)
    if classes < 2:
        raise Stop(f"{args.model} has one output; predict needs a net that tells classes apart")
    if list(map(str, args.images)).count("-") > 1:
        raise Stop("-: the standard input can be read once")
    names = class_names(net.metadata, classes)
    plain = args.plain or net.metadata.get("dataset") == "fashion"
    answers: list[dict[str, Any]] = []
    status = 0
    for path in args.images:
        name = STDIN if str(path) == "-" else str(path)
        called = one_line(name)
        try:
            X = read_images(path, inputs, flip=args.invert, plain=plain)
            found = probabilities(finite(np.concatenate(list(outputs(net, X))), X, name))
        except BrokenPipeError:
            raise
        except (ValueError, OSError, ImportError, FloatingPointError) as error:
            said = one_line(str(error) if isinstance(error, ValueError) else describe(error))
            said = said if called in said else f"{called}: {said}"
            answers.append({"file": name, "error": said})
            complain(said)
            status = 2
            continue
        for k, (row, p) in enumerate(zip(X, found, strict=True)):
            title = f"{called}[{k}]" if len(X) > 1 else called
            image = row.reshape(math.isqrt(inputs), -1) if math.isqrt(inputs) ** 2 == inputs else row[None]
            answers.append(_answer(name, k, p, names, inked(image) if args.show else None))
            if not args.json:
                say(_line(title, p, names))
                if args.show:
                    say(datasets.picture(inked(image)))
            if args.save is not None:
                with users_fault(OSError):
                    _save(args.save, name, k if len(X) > 1 else None, inked(image))
    if args.json:
        say(json.dumps(answers, indent=2))
    return status


def _line(title: str, p: np.ndarray[Any, Any], names: list[str]) -> str:
    best, *others = np.argsort(-p, kind="stable")[:CHOICES]
    rest = ", ".join(f"{names[i]} {percent(p[i])}" for i in others)
    return f"{title}: {names[best]}  {percent(p[best])}   next: {rest}"


def _answer(
    name: str, k: int, p: np.ndarray[Any, Any], names: list[str], image: np.ndarray[Any, Any] | None
) -> dict[str, Any]:
    best = int(p.argmax())
    answer: dict[str, Any] = {
        "file": name, "index": k, "label": best, "name": names[best], "probability": float(p[best]),
        "probabilities": p.tolist(),
    }  # fmt: skip
    return answer if image is None else {**answer, "image": image.tolist()}


def _save(folder: Path, name: str, k: int | None, image: np.ndarray[Any, Any]) -> None:
    """What the model was shown, in a picture; names that are there already get a number."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = ("stdin" if name == STDIN else Path(name).stem) + ("" if k is None else f"-{k}")
    path, n = folder / f"{stem}.png", 1
    while path.exists():
        n += 1
        path = folder / f"{stem}-{n}.png"
    with replacing(path) as file:
        file.write(png(image))
