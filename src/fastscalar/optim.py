"""The optimisers, under the name that people look for: `fs.optim.SGD`, `fs.optim.Adam`, `fs.optim.Optimizer`."""

from fastscalar.nn.optimizers import SGD, Adam, Optimizer, sgd

__all__ = ["SGD", "Adam", "Optimizer", "sgd"]
