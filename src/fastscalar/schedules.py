"""Learning rates over a run, under the name that people look for: `fs.schedules.cosine`, `fs.schedules.warmup`."""

from fastscalar.nn.schedules import constant, cosine, linear, step, warmup

__all__ = ["constant", "cosine", "linear", "step", "warmup"]
