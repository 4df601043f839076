"""The optimisers, under the name that people look for: `fs.optim.SGD`, `fs.optim.AdamW`, `fs.optim.Optimizer`."""

from fastscalar.nn.clipping import clip_grad_norm, clip_grad_value
from fastscalar.nn.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop, sgd

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop", "clip_grad_norm", "clip_grad_value", "sgd"]
