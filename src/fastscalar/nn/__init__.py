"""Nets and what trains them: layers, losses, optimisers, `fit` and `evaluate`.

    module, layers, sequential, images, dropout    what nets are made of; init, activations, by name
    losses, optimizers, parameters, schedules, clipping    what is made small, and the steps
    training                `fit`: checks, then epochs by one of the loops
    trainers, eager, distributed    these loops: by replays, by calls, on several processes, which agree in `together`
    samples, batches, course, progress    the data; where a run stands; how far an epoch is
    callbacks, history, pictures    what looks on; what comes of a run, printed and plotted
    evaluation              `predict`, `evaluate`
    models, saved, checkpoints    nets and runs in files
"""

from fastscalar.nn.callbacks import EarlyStopping, Samples, StopTraining
from fastscalar.nn.dropout import Dropout
from fastscalar.nn.evaluation import Evaluation, evaluate, predict, predict_proba
from fastscalar.nn.history import Epoch, History
from fastscalar.nn.images import Conv2d, Flatten, MaxPool2d, Reshape
from fastscalar.nn.layers import MLP, Linear, load, relu
from fastscalar.nn.module import Module
from fastscalar.nn.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop, sgd
from fastscalar.nn.sequential import Embedding, LayerNorm, Sequential
from fastscalar.nn.training import fit

__all__ = [
    "MLP",
    "SGD",
    "Adam",
    "AdamW",
    "Conv2d",
    "Dropout",
    "EarlyStopping",
    "Embedding",
    "Epoch",
    "Evaluation",
    "Flatten",
    "History",
    "LayerNorm",
    "Linear",
    "MaxPool2d",
    "Module",
    "Optimizer",
    "RMSprop",
    "Reshape",
    "Samples",
    "Sequential",
    "StopTraining",
    "evaluate",
    "fit",
    "load",
    "predict",
    "predict_proba",
    "relu",
    "sgd",
]
