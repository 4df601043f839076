"""Recipes for MNIST: what to write for which accuracy.

    python examples/mnist_recipes.py                   what there is
    python examples/mnist_recipes.py mlp --seed 0      one of them

`make accuracy` runs each with three seeds; the README has the means.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import fastscalar as fs
from fastscalar import nn

Split = tuple[np.ndarray, np.ndarray]


class Recipe(NamedTuple):
    about: str
    net: Callable[[int], Any]  # of a seed
    fit: Callable[[], dict[str, Any]]  # options of `fs.fit`
    epochs: int


def mlp(seed: int, dropout: float = 0.0) -> nn.Sequential:
    draw = random.Random(seed)
    layers: list[Any] = []
    for inputs, outputs in ((784, 256), (256, 256)):
        layers += [fs.Linear(inputs, outputs, seed=draw), "relu"]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, fs.Linear(256, 10, seed=draw))


def convolutional(seed: int) -> nn.Sequential:
    draw = random.Random(seed)
    return nn.Sequential(
        nn.Reshape(28, 28),
        nn.Conv2d(1, 16, 5, seed=draw), "relu", nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, seed=draw), "relu", nn.MaxPool2d(2),
        nn.Flatten(),
        fs.Linear(512, 10, seed=draw),
    )  # fmt: skip


def fast(**more: Any) -> dict[str, Any]:
    return {"dtype": "float32", "threads": 2, **more}


RECIPES = {
    "defaults": Recipe(
        "MLP 784-256-10, all as it is left out: SGD, one sample at a time",
        lambda seed: fs.MLP(784, [256, 10], seed=seed),
        dict,
        10,
    ),
    "mlp": Recipe(
        "MLP 784-256-256-10 with dropout, AdamW in batches of 32",
        lambda seed: mlp(seed, dropout=0.25),
        lambda: fast(optimizer=fs.AdamW(lr=0.0012, weight_decay=0.1), batch_size=32),
        30,
    ),
    "mlp-augmented": Recipe(
        "MLP 784-256-256-10, images moved and turned anew in every epoch, Adam in batches of 64",
        mlp,
        lambda: fast(optimizer=fs.Adam(lr=0.002), batch_size=64, augment=fs.datasets.augment),
        30,
    ),
    "convolutional": Recipe(
        "two convolutions of 16 and 32 channels, images moved and turned, Adam in batches of 64",
        convolutional,
        lambda: fast(optimizer=fs.Adam(lr=0.002), batch_size=64, augment=fs.datasets.augment),
        20,
    ),
}


def load(synthetic: bool) -> tuple[Split, Split]:
    if synthetic:
        train, test = fs.datasets.synthetic_digits(n_train=600, n_test=200)
    else:
        try:
            train, test = fs.datasets.mnist(report=print)
        except fs.datasets.DatasetUnavailable as error:
            raise SystemExit(f"These recipes need MNIST, or the option --synthetic.\n{error}") from None
    (X, y), (X_test, y_test) = train, test
    return (X.reshape(-1, 784) / 255, y), (X_test.reshape(-1, 784) / 255, y_test)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """What came of it: recipe, seed, test accuracy in percent, seconds (data and compilation included), and those of
    all cores."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("recipe", nargs="?", choices=list(RECIPES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="others than the recipe's")
    parser.add_argument("--synthetic", action="store_true", help="digits drawn offline instead of MNIST")
    asked = parser.parse_args(arguments)
    if asked.recipe is None:
        for name, recipe in RECIPES.items():
            print(f"{name:<15}{recipe.about}; {recipe.epochs} epochs")
        return {}
    recipe = RECIPES[asked.recipe]
    (X, y), (X_test, y_test) = load(asked.synthetic)
    net, start, cpu = recipe.net(asked.seed), time.perf_counter(), time.process_time()
    fs.fit(net, X, y, epochs=asked.epochs or recipe.epochs, seed=asked.seed, **recipe.fit())
    found = {
        "recipe": asked.recipe,
        "seed": asked.seed,
        "accuracy": round(100 * float(fs.evaluate(net, X_test, y_test)), 2),
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }
    print(json.dumps(found))
    return found


if __name__ == "__main__":
    main()
