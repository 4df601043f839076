"""Initial weights: He's, and those of the article."""

from __future__ import annotations

import math
import random


def initial_weights(
    in_features: int, out_features: int, init: str, rng: random.Random
) -> tuple[list[list[float]], list[float]]:
    """Initial weights of a linear layer, as Python floats.

    `fastscalar.reference` draws the same numbers from the same generator; a test compares them.

    Parameters
    ----------
    in_features, out_features : int
        The widths of the layer.
    init : "he" or "article"
        "he": weights from a normal distribution of variance 2 / in_features (He et al. 2015, arXiv:1502.01852), biases
        zero.  "article": both uniform in [0, 1).
    rng : random.Random
        The generator; it is moved on.

    Returns
    -------
    w, b
        Lists of shape (in_features, out_features) and (out_features,).

    Raises
    ------
    ValueError
        If `init` is neither.

    Examples
    --------
    >>> w, b = initial_weights(2, 3, "he", random.Random(0))
    >>> len(w), len(w[0]), b
    (2, 3, [0.0, 0.0, 0.0])
    """
    if init == "article":
        w = [[rng.random() for _ in range(out_features)] for _ in range(in_features)]
        return w, [rng.random() for _ in range(out_features)]
    if init != "he":
        raise ValueError(f'init: expected "he" or "article", got {init!r}')
    scale = math.sqrt(2.0 / in_features)
    return [[rng.gauss(0.0, scale) for _ in range(out_features)] for _ in range(in_features)], [0.0] * out_features
