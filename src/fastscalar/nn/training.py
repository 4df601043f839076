"""fit: the loop of the article over a data set."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from fastscalar._imports import importing, writing
from fastscalar._settings import LARGEST, scalar, shown, whole_number
from fastscalar._warnings import LOG, GradientLossWarning, warn
from fastscalar.engine._anomaly import detects_anomalies
from fastscalar.engine._step import distinct_parameters
from fastscalar.files import StrPath
from fastscalar.nn.batches import Batches, are_batches
from fastscalar.nn.callbacks import Callbacks, StopTraining
from fastscalar.nn.checkpoints import Checkpoint
from fastscalar.nn.course import Course, Doubt, generator_of
from fastscalar.nn.eager import EagerProgramTrainer, EagerTrainer, rows_named
from fastscalar.nn.evaluation import Measure, takes_blocks
from fastscalar.nn.history import Epoch, History
from fastscalar.nn.losses import LOSSES, cross_entropy, loss_of
from fastscalar.nn.module import in_mode, modules_of
from fastscalar.nn.optimizers import SGD, Optimizer
from fastscalar.nn.progress import Watch
from fastscalar.nn.samples import rows_of, samples_of, weights_of
from fastscalar.nn.schedules import Rate, schedule_of
from fastscalar.nn.trainers import CompiledTrainer
from fastscalar.program.api import Program
from fastscalar.program.rows import Rows
from fastscalar.program.threads import thread_count


class Run(NamedTuple):
    """A run that may begin."""

    net: Any
    trainer: EagerTrainer | EagerProgramTrainer | CompiledTrainer
    course: Course
    validation: Measure | None
    looking: Callbacks
    history: History


def fit(
    net: Callable[[Any], Any] | Program,
    X: Any,
    y: Any = None,
    *,
    loss: Callable[[Any, Any], Any] | str = cross_entropy,
    optimizer: Optimizer | None = None,
    epochs: int = 5,
    first_epoch: int = 1,
    batch_size: int = 1,
    shuffle: bool = True,
    seed: int | None = 0,
    schedule: str | Rate | Callable[..., float] | None = "linear",
    sample_weight: Any = None,
    class_weight: Any = None,
    validation_data: tuple[Any, Any] | None = None,
    progress: bool = True,
    on_epoch: Callable[[Epoch], None] | None = None,
    callbacks: Iterable[Any] | None = None,
    history: History | None = None,
    augment: Callable[[np.ndarray, int], Any] | None = None,
    checkpoint: StrPath | None = None,
    compile: bool = True,
    threads: int = 1,
    dtype: str = "float64",
    comm: Any = None,
    shard: str | None = None,
    deterministic: bool = True,
    local_steps: int | None = None,
) -> History:
    """Train a net: for every sample (or minibatch) the loss, its gradient, one step of the optimiser.

    Parameters
    ----------
    net : callable or Program
        Anything that is called with one row of X and returns what `loss` takes; its parameters come from
        `net.parameters()` unless the optimiser has some already.  Or a program, `fastscalar.compile(sample_loss)`, that
        is called with a row of X and of y and returns the loss: then all leaves that it reads are trained.
    X : array of floats, shape (n, in_features)
        Images need scaling: X.reshape(len(X), -1) / 255.
    y : array, n labels or targets
        Without y, X is batches: an iterable of pairs (X, y), such as a list or a DataLoader, or a function that is
        called for each epoch and returns one.  They are taken in their order, an epoch of them at a time is in memory,
        and all but the last have the same size.
    loss : callable or str
        A function of a row's prediction and its y, or a name: "cross_entropy"; "binary_cross_entropy", of logits;
        "squared", the article's (half the sum of the squared differences); "mse", the mean of the squares; "huber".
    optimizer : Optimizer
        SGD(lr=0.02) if left out.  What `fit` has bound it binds anew when it is given another net; one that has
        parameters from elsewhere trains those, and is refused if the net reads none of them.
    epochs : int
        Passes over the data.
    first_epoch : int
        Where to go on with a run of `epochs` epochs whose earlier ones were done by another call.  Order and learning
        rate continue exactly; an optimiser with a memory of its own (Adam) has to be passed along.
    batch_size : int
        Samples of a step, whose losses are averaged.
    shuffle : bool
        A new order for every epoch, drawn from `seed`.
    seed : int or None
        What the net draws by `fastscalar.random` follows from seed, epoch and the sample's row, whatever the batches.
    schedule : str, Rate, callable or None
        "linear" lets the learning rate fall linearly to zero over the run, "cosine" along half a cosine; "constant", or
        None, keeps it; `fastscalar.schedules` has more; a function of the step, from 0, or of the step and the number
        of steps, gives the factor by which it is multiplied.
    sample_weight : array
        n numbers from 0 on, by which the samples' losses are multiplied.
    class_weight : dict, sequence or "balanced"
        The same by label; "balanced": n / (classes * how often the label occurs).  Of both weights, the product.
    validation_data : (X, y)
        On which the net is evaluated after each epoch: see `evaluate`, and History for the result.
    progress : bool
        A bar in a terminal (standard error) or a notebook.
    on_epoch : callable
        Called with the Epoch after each one; the next has the `optimizer.lr` that it leaves.
    callbacks : iterable
        More of these, and objects that look on; see `EarlyStopping` and docs/training.md.
    history : History
        One to add the epochs to, which then has them whatever happens.  An exception that ends the run has the History
        of the epochs before it as its attribute `history`.
    augment : callable
        A function of X and the number of an epoch that gives the X of that epoch, of the same shape, such as
        `fastscalar.datasets.augment`.
    checkpoint : path
        A file.  After every epoch the run is kept there: parameters, the optimiser's state, the history, and the
        `state_dict()` of callbacks that have one and `load_state_dict(state)`.  If the file is there, the run goes on
        from it, and ends with the bits of one that was not interrupted.
    compile : bool
        Record `loss(net(x), y)` for one sample and replay it (see `fastscalar.compile`); the loss of a batch is the
        mean over its samples.  False: the eager loop, which calls the net for every sample, or once for each batch if
        that is seen, with the first one, to give the mean of what the samples give.
    threads : int
        Samples of a batch at the same time; the result does not depend on it.
    dtype : "float64" or "float32"
        Of the numbers that a compiled program computes with.
    comm : communicator
        Such as `mpi4py.MPI.COMM_WORLD`: all its processes call `fit` alike and train one net, each with a part of the
        rows of every batch; rank 0's net is where they begin, and only its callbacks are called and its progress shown
        (docs/scale-out.md).
    shard : "local"
        X and y are each process's own.
    deterministic : bool
        Gradients are added in an order that depends on the rows alone, so that any number of processes gives the same
        bits; False: in that of one `Allreduce`, with less to send.
    local_steps : int
        Another algorithm: each process takes so many steps with its own part of the batches, then all go on from the
        mean of their weights.

    Returns
    -------
    History
        What was done, epoch by epoch; the net is trained in place.

    Raises
    ------
    ValueError
        For data and optimisers that do not fit, and threads with batch_size=1.
    FloatingPointError
        When the loss, or a parameter after the last step of an epoch, is infinite or NaN, or its square is.

    Notes
    -----
    Whatever stops a compiled run, the net is as it was after the last whole epoch; one that runs eagerly
    (compile=False, detect_anomaly, after a CompileWarning) keeps every step that it did, unless one made a number
    infinite.

    Examples
    --------
    >>> import fastscalar as fs, numpy as np
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> y = (X.sum(axis=1) > 0).astype(int)
    >>> net = fs.MLP(3, [8, 2], seed=0)
    >>> history = fs.fit(net, X, y, epochs=3, progress=False)
    >>> fs.evaluate(net, X, y) > 0.9
    True
    """
    batches = None
    if y is None and are_batches(X):
        given = {"batch_size": None if batch_size == 1 else batch_size, "sample_weight": sample_weight,
                 "class_weight": class_weight, "augment": augment, "comm": comm}  # fmt: skip
        more = [name for name, value in given.items() if value is not None] + ["a program"] * isinstance(net, Program)
        if more:
            raise ValueError(f"fit: {more[0]}: not with batches; give X and y as arrays")
        batches = Batches(X, getattr(optimizer, "lr", 1.0), net)
        (X, y), batch_size, shuffle = batches.epoch(), batches.batch_size, False
    elif y is None:
        raise TypeError("fit: y is missing; without it X has to be batches, an iterable of pairs (X, y)")
    epochs, first_epoch, batch_size, seed = map(scalar, (epochs, first_epoch, batch_size, seed))
    saved = None
    if checkpoint is not None:
        if first_epoch != 1:
            raise ValueError("fit: checkpoint: not with first_epoch; it knows where to go on")
        if comm is None:                         # ranks are told together
            whole_number("fit: epochs", epochs)
            if seed is not None:
                seed = whole_number("fit: seed", seed, 0, or_else=" with a checkpoint, or None")
        about = {"epochs": epochs, "samples": len(X), "batch_size": batch_size, "seed": seed, "shuffle": shuffle}
        saved = Checkpoint(checkpoint, about, read=comm is None)
        first_epoch = min(saved.done + 1, epochs) if saved.done else 1
    wishes: dict[str, Any] = {
        "loss": loss, "optimizer": optimizer, "epochs": epochs, "first_epoch": first_epoch, "batch_size": batch_size,
        "schedule": schedule, "sample_weight": sample_weight, "class_weight": class_weight,
        "validation_data": validation_data, "callbacks": callbacks, "on_epoch": on_epoch, "history": history,
        "compile": compile, "threads": threads, "dtype": dtype, "seed": seed,
    }  # fmt: skip
    if augment is not None and not callable(augment):
        raise TypeError(f"fit: augment: expected a function of X and the number of an epoch, got {shown(augment)}")
    if comm is not None:
        with importing():
            from fastscalar.nn.together import fit_together

        return fit_together(
            comm, net, X, y, _prepared, wishes, shard=shard, deterministic=deterministic,
            local_steps=local_steps, shuffle=shuffle, seed=seed, progress=progress, saved=saved,
            augment=None if augment is None else partial(_of_epoch, augment),
        )  # fmt: skip
    if shard is not None:
        raise ValueError(f"fit: shard: {shard!r} is for several processes, which need a comm")
    made = _prepared(net, X, y, **wishes)
    history = made.history
    if saved is not None and saved.over:
        made.looking.begin(made.course)
        saved.restore(made.course.optimizer, made.looking.all, history)
        return history
    try:
        _epochs(made, shuffle, seed, progress, augment, batches, saved)
    except StopTraining as enough:
        history.stopped = str(enough) or "a callback had enough"
    except BaseException as error:
        history.stopped = f"{type(error).__name__}: {error}".rstrip(": ")
        error.history = history                  # type: ignore[attr-defined]
        raise
    finally:
        made.looking.end(history)
    if saved is not None:                        # EarlyStopping has put the best weights back
        saved.write(made.course.optimizer, made.looking.all, history, history.stopped)
    return history


def _prepared(
    net: Any,
    X: Any,
    y: Any,
    *,
    loss: Any,
    optimizer: Any,
    epochs: int,
    first_epoch: int,
    batch_size: int,
    schedule: Any,
    sample_weight: Any,
    class_weight: Any,
    validation_data: Any,
    callbacks: Any,
    on_epoch: Any,
    history: Any,
    compile: bool,
    threads: int,
    dtype: str,
    seed: Any,
) -> Run:
    """All that `fit` needs, or what is wrong with what it was given."""
    loss = loss_of(loss, "fit")
    X, y = rows_of(X, y) if isinstance(net, Program) else samples_of(X, y, getattr(optimizer, "lr", 1.0), net)
    weights = weights_of(sample_weight, class_weight, y)
    if weights is not None and isinstance(net, Program):
        raise ValueError("fit: a program gives the losses itself, weights included: give it a column more of X")
    data = (X, y) if weights is None else (X, y, weights)
    epochs, first_epoch = whole_number("fit: epochs", epochs), whole_number("fit: first_epoch", first_epoch)
    batch_size = min(whole_number("fit: batch_size", batch_size), LARGEST)     # a larger one has every sample as well
    threads = whole_number("fit: threads", threads)
    if first_epoch > epochs:
        raise ValueError(f"fit: first_epoch: expected a whole number from 1 to epochs={epochs}, got {first_epoch}")
    try:
        rate = schedule_of(schedule)
    except (TypeError, ValueError) as error:
        raise type(error)(f"fit: {error}") from None
    if dtype not in ("float64", "float32"):
        raise ValueError(f'fit: dtype: expected "float64" or "float32", got {shown(dtype)}')
    if threads > 1 and batch_size == 1:
        raise ValueError("fit: threads: the samples of a batch are shared among threads, and batch_size is 1")
    threads = thread_count(threads, "fit: threads")
    if dtype == "float32" and not compile:
        raise ValueError("fit: dtype: float32 needs compile=True; the eager engine computes in float64")
    validation = None
    if validation_data is not None:
        if isinstance(net, Program):
            raise ValueError("fit: validation_data: a program gives losses, no predictions; evaluate the net itself")
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
            raise ValueError("fit: validation_data: expected (X, y), as for training")
        validation = Measure(net, validation_data[0], validation_data[1], loss, "validation_data")
    optimizer = SGD() if optimizer is None else optimizer
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"fit: optimizer: expected an Optimizer, such as SGD(lr=0.02), got {shown(optimizer)}")
    looking = Callbacks(callbacks, on_epoch)
    if history is not None and not isinstance(history, History):
        raise TypeError(f"fit: history: expected a History to go on with, got {shown(history)}")
    course = Course(optimizer, rate, len(X), batch_size, epochs, first_epoch, {"X": X, "y": y}, seed)
    _bind(net, course)
    with in_mode(modules_of(net), training=True):
        trainer = _trainer(net, loss, data, course, compile, threads, dtype)
    if optimizer.parameters is not None:         # else they are found when they are read
        optimizer.zero_grad()
    return Run(net, trainer, course, validation, looking, History() if history is None else history)


def _epochs(
    made: Run,
    shuffle: bool,
    seed: int | None,
    progress: bool,
    augment: Any,
    batches: Batches | None = None,
    saved: Checkpoint | None = None,
) -> None:
    net, run, course, validation, looking, history = made
    X = course.data["X"]
    n, first_epoch = course.samples, course.begun // course.samples + 1
    modules = modules_of(net)
    looking.begin(course)
    if saved is not None:
        saved.restore(course.optimizer, looking.all, history)
    generator = generator_of(seed)
    for number in range(1, course.epochs + 1):
        order = generator.permutation(n) if shuffle else np.arange(n)
        if number < first_epoch:
            continue
        course.begin_epoch(number)
        if augment is not None:
            course.data["X"] = _of_epoch(augment, X, number)
            run.replace(course.data["X"])
        if batches is not None and number > first_epoch:
            course.data["X"], course.data["y"] = batches.epoch()
            run.replace(course.data["X"], course.data["y"])
        start = time.perf_counter()
        with Watch(number, course.epochs, n, progress, looking.watching) as watch, in_mode(modules, training=True):
            if looking.all and number > first_epoch and isinstance(run, CompiledTrainer):
                run.look_again()
            mean = run.epoch(order, watch)
        if course.is_constant:
            what = "fit: loss was a plain number for every sample, or had no gradient by any Tensor: nothing is trained"
            warn(f"{what}; compute it from the Tensors that it is given, without float() or .data", GradientLossWarning)
            course.is_constant = False           # said once
        seconds = time.perf_counter() - start
        found = None if validation is None else validation()
        history.epochs.append(Epoch(
            number, mean, float(found) if found is not None and found.metric == "accuracy" else None, seconds,
            n / seconds, *((None, None, None) if found is None else (found.loss, float(found), found.metric)),
        ))  # fmt: skip
        with writing():
            LOG.info("epoch %d: loss %.6g, %.3f s%s", number, mean, seconds,
                     "" if found is None else f", {found.metric} {float(found):.6g}")
        looking.epoch(history.epochs[-1])        # StopTraining: the run's end is written when it is over
        if saved is not None:
            saved.write(course.optimizer, looking.all, history)


def _of_epoch(augment: Callable[[np.ndarray, int], Any], X: np.ndarray, number: int) -> np.ndarray:
    found = np.asarray(augment(X, number))
    if found.shape != X.shape or found.dtype.kind != X.dtype.kind:
        raise ValueError(
            f"fit: augment: expected an array of {X.dtype} of shape {X.shape}, got {found.dtype} of {found.shape}"
        )
    return found


def _bind(net: Any, course: Course) -> None:
    """The optimiser and what it trains belong together, or it is said that they do not."""
    optimizer = course.optimizer
    parameters = None if isinstance(net, Program) or not hasattr(net, "parameters") else net.parameters()
    if optimizer.parameters is not None and not optimizer._distinct and not optimizer._bound_by_fit:
        raise ValueError("fit: the optimiser holds no parameters; leave them out, as in SGD(lr=0.02), to get the net's")
    given = optimizer.parameters is not None and not optimizer._bound_by_fit
    if given or (optimizer.parameters and parameters is None and not isinstance(net, Program)):
        listed = [] if parameters is None else distinct_parameters(parameters)
        doubt = Doubt(optimizer, patient=parameters is None)
        if not doubt.settled(listed):
            course.doubt = doubt               # what it reads decides
    elif parameters is not None:
        if not distinct_parameters(parameters):
            raise ValueError(f"fit: {type(net).__name__} has no parameters, nothing to train")
        course.bind(parameters)
    elif not isinstance(net, Program):
        raise TypeError(
            f"fit: {getattr(net, '__name__', type(net).__name__)} has no parameters(): give them to the optimiser, "
            "as in SGD([w, b], lr=0.02), or fit the program fastscalar.compile(sample_loss)"
        )


def _trainer(
    net: Any,
    loss: Callable[[Any, Any], Any],
    data: tuple[np.ndarray, ...],
    course: Course,
    compile: bool,
    threads: int,
    dtype: str,
) -> EagerTrainer | EagerProgramTrainer | CompiledTrainer:
    """The loop for these wishes.  data: X, y, and maybe the weights of the samples."""
    batch_size = course.batch_size
    if len(data) == 2:
        known = takes_blocks(net) and loss in LOSSES.values()
        eager = EagerTrainer(lambda x, label: loss(net(x), label), data, batch_size, course, known or None)
    else:
        eager = EagerTrainer(lambda x, label, weight: loss(net(x), label) * weight, data, batch_size, course, False)
    if isinstance(net, Program):
        program = net
    elif compile:
        program = Program(eager.sample)
        program._is_loss = True
        program.__name__ = type(net).__name__
    if not compile or detects_anomalies():                 # detect_anomaly looks at what the user's own lines do
        if isinstance(net, Program):
            return EagerProgramTrainer(program, Rows(data, "fit", streams=course.streams), batch_size, course)
        return eager
    own = isinstance(net, Program)
    trainer = CompiledTrainer(program, data, batch_size, course, threads, dtype == "float64", own)
    site = trainer.site
    with rows_named():
        repeats = site.first is None or program.repeats(site)
    if not repeats and isinstance(net, Program):
        program.forget(site)
        trainer = CompiledTrainer(program, data, batch_size, course, threads, dtype == "float64", own)
    if isinstance(net, Program):
        return trainer
    if site.eager:
        return eager
    if not repeats:
        warn(
            f"{type(net).__name__} does something else when it is called again (it draws random numbers, or counts), "
            "which a program would freeze: fit runs eagerly (compile=False says that this is meant); "
            "fastscalar.random.normal(), uniform() and bernoulli(p) are drawn anew by programs"
        )
        return eager
    return trainer


class Loop:
    """The loop of `fit` for a caller that decides after each piece how it goes on: a page on which it is watched.

    `run(order)` trains on these samples, in this order and in batches, with the rate that the optimiser has by then,
    and returns the mean of their losses.  What it raises is what `fit` raises; the net is then as before, if the
    loop is compiled.
    """

    def __init__(
        self,
        net: Any,
        X: np.ndarray,
        y: np.ndarray,
        loss: Callable[[Any, Any], Any],
        optimizer: Optimizer,
        batch_size: int,
    ) -> None:
        self._course = Course(optimizer, schedule_of("constant"), len(X), batch_size, 1, 1, {"X": X, "y": y})
        _bind(net, self._course)
        self._trainer = _trainer(net, loss, (X, y), self._course, True, 1, "float64")

    def run(self, order: np.ndarray) -> float:
        self._course.begin_epoch(self._course.streams.epoch + 1)
        return self._trainer.epoch(order, Watch(1, 1, len(order), False, []))
