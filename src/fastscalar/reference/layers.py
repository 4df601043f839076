"""What the layers of `framework` begin with: initial weights, and `__call__`."""

import math
import random


class Layer:
    """Base class: calling a layer runs its `forward`."""

    def __call__(self, x):
        return self.forward(x)


def check_width(linear, x):
    """ValueError unless x has an entry for each input of the layer."""
    if len(x) != linear.in_features:
        raise ValueError(f"Linear({linear.in_features}, {linear.out_features}): got {len(x)} inputs")


def generator(seed):
    """The `random.Random` that a seed stands for: one itself, an integer, or None for another one every time."""
    return seed if isinstance(seed, random.Random) else random.Random(seed)


def initial_weights(in_features, out_features, init, rng):
    """w[j][i] and b[i] as floats: "he" (normal, variance 2 / in_features, zero bias) or "article" (uniform)."""
    if init == "article":
        w = [[rng.random() for _ in range(out_features)] for _ in range(in_features)]
        return w, [rng.random() for _ in range(out_features)]
    if init != "he":
        raise ValueError(f'init: expected "he" or "article", got {init!r}')
    scale = math.sqrt(2.0 / in_features)
    return [[rng.gauss(0.0, scale) for _ in range(out_features)] for _ in range(in_features)], [0.0] * out_features
