"""Losses of one row, or of many: then the mean over the rows."""

from fastscalar.reference.numbers import pairs
from fastscalar.reference.sequences import logsumexp, mean


def squared_loss(y_hat, y):
    """Half the sum of (y_hat[i] - y[i])**2; of rows, the mean of that over the rows."""
    total, rows, _ = _squares(y_hat, y, "squared_loss")
    return 0.5 * total / rows if rows else 0.5 * total


def mse_loss(y_hat, y):
    """The mean of (y_hat[i] - y[i])**2, over all outputs and rows."""
    total, _, count = _squares(y_hat, y, "mse_loss")
    if not count:
        raise ValueError("mse_loss: is empty")
    return total / count


def _squares(y_hat, y, what):
    """(the sum of the squared differences, the number of rows or 0, that of all differences)."""
    y_hat, y = ([v] if not hasattr(v, "__len__") else v for v in (y_hat, y))
    total, rows, count = 0.0, 0, 0
    for p, t in pairs(y_hat, y, what):
        if isinstance(p, list):
            part, _, n = _squares(p, t, what)
            total, rows, count = total + part, rows + 1, count + n
        else:
            difference = p - t
            total, count = total + difference * difference, count + 1
    return total, rows, count


def cross_entropy(logits, label):
    """-log(softmax(logits)[label]); of rows and labels, the mean over the rows."""
    if isinstance(logits[0], list):
        if len(logits) != len(label):
            raise ValueError(f"cross_entropy: {len(logits)} rows of logits but {len(label)} labels")
        return mean([cross_entropy(row, k) for row, k in zip(logits, label, strict=True)])
    k = float(label)
    if k not in range(len(logits)):
        raise ValueError(f"cross_entropy: expected a label in 0..{len(logits) - 1}, got {label!r}")
    return logsumexp(logits) - logits[int(k)]
