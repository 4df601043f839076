"""Nets and what trains them: layers, losses, optimisers, `fit` and `evaluate`."""

from fastscalar.nn.evaluation import Evaluation, evaluate, predict
from fastscalar.nn.layers import MLP, Linear, Module, load, relu
from fastscalar.nn.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop, sgd
from fastscalar.nn.training import Epoch, History, fit

__all__ = [
    "MLP",
    "SGD",
    "Adam",
    "AdamW",
    "Epoch",
    "Evaluation",
    "History",
    "Linear",
    "Module",
    "Optimizer",
    "RMSprop",
    "evaluate",
    "fit",
    "load",
    "predict",
    "relu",
    "sgd",
]
