"""scikit-learn's interface: `MLPClassifier` and `MLPRegressor`, trained by `fit` (extra `sklearn`).

Both take the parameters of scikit-learn's estimators of these names as far as they mean the same, and do all that an
estimator does: pipelines, grid searches, `clone`, pickling, `partial_fit`.  Two things are done for the user:

* The input is multiplied by one number, found in `fit`, so that a row has on the average the length
  sqrt(min(n_features, 100)), for which the learning rates are meant.  Zeros stay zeros, which cost nothing.  Columns
  of different units are scaled by a StandardScaler in a pipeline, as for any net.
* `MLPRegressor` learns targets of mean 0 and variance 1; what it predicts is in the units of y.

A row with a `sample_weight` of 2 does to the bit what the row twice does.  One sample at a time that needs an order of
the samples that does not depend on how they were given: with `shuffle=True` the order is drawn from rows that stand
sorted.

>>> from sklearn.datasets import load_digits
>>> from fastscalar.sklearn import MLPClassifier
>>> X, y = load_digits(return_X_y=True)
>>> net = MLPClassifier((64,), max_iter=5, random_state=0).fit(X[:1000], y[:1000])
>>> net.score(X[1000:], y[1000:]) > 0.9
True
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d, validate_data
except ImportError as error:
    wanted = "pip install 'fastscalar[sklearn]'"
    raise ImportError(f"fastscalar.sklearn needs scikit-learn 1.6: {wanted} ({error})") from None

from fastscalar.nn import schedules
from fastscalar.nn.callbacks import EarlyStopping
from fastscalar.nn.course import Before
from fastscalar.nn.evaluation import outputs, probabilities
from fastscalar.nn.history import History
from fastscalar.nn.layers import MLP
from fastscalar.nn.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from fastscalar.nn.training import fit

__all__ = ["MLPClassifier", "MLPRegressor"]

LONG = 100.0  # the square of a row's length at which plain SGD's rate of 0.02 is stable, as of MNIST's
ROWS_AT_ONCE = 128
HALVINGS = 20  # of a rate of ours, until a run does not diverge
WILD = 1e6  # a mean loss, for each output, of numbers that have run away
COUNTED = 16  # times, on the average, that rows may have to be learned from where weights are whole numbers
SOLVERS: dict[str, type[Any]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW, "rmsprop": RMSprop}


class _Samples(NamedTuple):
    rows: np.ndarray  # which are learned from, some of them several times
    weights: np.ndarray | None  # of these; None: all are 1


class _Estimator(BaseEstimator):
    """What both share: the parameters, and training."""

    net_: MLP
    optimizer_: Optimizer
    history_: History
    _STEP: tuple[float, float]  # what that sum may be times the rate; how much more of it for large batches

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        *,
        solver: str = "sgd",
        alpha: float = 0.0,
        batch_size: int = 1,
        learning_rate: str = "linear",
        learning_rate_init: float | None = None,
        momentum: float = 0.0,
        max_iter: int = 20,
        shuffle: bool = True,
        random_state: Any = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        warm_start: bool = False,
        verbose: bool = False,
        dtype: str = "float64",
        threads: int = 1,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.momentum = momentum
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.verbose = verbose
        self.dtype = dtype
        self.threads = threads

    # --- what is the same for labels and targets ---

    def _rate(self, inputs: int) -> float:
        """Of plain SGD, by how far a step changes the outputs for its own sample: the squares of the layers' inputs.

        Of MNIST's, 784-256-10, that sum is 133 and the rate 0.02.
        """
        row = min(inputs, LONG)
        change = row + sum(self._hidden()) * row / inputs
        step, most = self._STEP
        return min(0.02, step / change) * min(math.sqrt(self.batch_size), most)

    def _optimizer(self, inputs: int) -> Optimizer:
        if self.solver not in SOLVERS:
            raise ValueError(f"solver: expected one of {', '.join(SOLVERS)}, got {self.solver!r}")
        options: dict[str, Any] = {"weight_decay": self.alpha}
        if self.momentum and self.solver in ("adam", "adamw"):
            raise ValueError(f"momentum is for sgd and rmsprop, got {self.momentum!r} for {self.solver}")
        if self.momentum:
            options["momentum"] = self.momentum
        if self.learning_rate_init is not None:
            options["lr"] = self.learning_rate_init
        elif self.solver == "sgd":               # with momentum as far in the long run as without
            options["lr"] = self._rate(inputs) * (1.0 - self.momentum)
        elif self.solver == "rmsprop":           # its own, 0.01, is meant for large batches
            options["lr"] = 0.001
        made: Optimizer = SOLVERS[self.solver](**options)
        return made

    def _hidden(self) -> list[int]:
        sizes = self.hidden_layer_sizes
        listed = list(sizes) if np.iterable(sizes) else [sizes]
        if any(isinstance(n, bool) or not isinstance(n, numbers.Integral) or n < 1 for n in listed):
            raise ValueError(f"hidden_layer_sizes: expected whole numbers of at least 1, got {sizes!r}")
        return [int(n) for n in listed]

    def _check(self) -> None:
        """Look at the parameters, before anything is changed."""
        for name in ("batch_size", "max_iter", "threads"):
            n = getattr(self, name)
            if isinstance(n, bool) or not isinstance(n, numbers.Integral) or n < 1:
                raise ValueError(f"{name}: expected a whole number of at least 1, got {n!r}")
        if self.learning_rate not in schedules.NAMES:
            names = ", ".join(schedules.NAMES)
            raise ValueError(f"learning_rate: expected a schedule, one of {names}, got {self.learning_rate!r}")
        part = self.validation_fraction
        if self.early_stopping and not (isinstance(part, numbers.Real) and 0.0 < part < 1.0):
            raise ValueError(f"validation_fraction: expected a number between 0 and 1, got {part!r}")
        self._hidden()
        self._optimizer(1)

    def _begin(self, X: np.ndarray, samples: _Samples, width: int) -> None:
        """A new net of so many outputs, for inputs such as these rows of X."""
        self._random = check_random_state(self.random_state)
        self.input_scale_ = _input_scale(X, samples.rows)
        self.net_ = MLP(X.shape[1], [*self._hidden(), width], seed=int(self._random.randint(2**31 - 1)))
        self.optimizer_, self._steps_of = self._optimizer(X.shape[1]), self._step_parameters()
        self.history_ = History()
        self.n_iter_ = 0
        self.t_ = 0

    def _go_on(self) -> None:
        """With the net that is there; where the parameters of the steps were changed, by a new optimiser."""
        widths = [linear.out_features for linear in self.net_.linears[:-1]]
        if self._hidden() != widths:
            was, wanted = f"the net has hidden layers {widths}", f"hidden_layer_sizes is {self.hidden_layer_sizes!r}"
            raise ValueError(f"{was}, but {wanted}: fit a new one, with warm_start=False or a clone")
        if self._step_parameters() != self._steps_of:
            self.optimizer_ = self._optimizer(self.n_features_in_)
            self._steps_of = self._step_parameters()

    def _step_parameters(self) -> tuple[Any, ...]:
        return self.solver, self.alpha, self.momentum, self.learning_rate_init, self.batch_size

    def _train(
        self, X: np.ndarray, y: np.ndarray, samples: _Samples, epochs: int, schedule: str, loss: str, labels: bool
    ) -> None:
        held: tuple[np.ndarray, np.ndarray] | None = None
        if self.early_stopping and epochs > 1:
            samples, aside = self._split(y, samples, labels)
            held = X[aside] * self.input_scale_, y[aside]
        X, y = X[samples.rows], y[samples.rows]
        X *= self.input_scale_
        batch_size, seed = min(self.batch_size, len(X)), int(self._random.randint(2**31 - 1))
        self.optimizer_._bind_by_fit(self.net_.parameters())
        before = Before(self.optimizer_)
        for left in range(HALVINGS, -1, -1):
            try:
                found = fit(
                    self.net_, X, y, loss=loss, optimizer=self.optimizer_, epochs=epochs,
                    batch_size=batch_size, shuffle=self.shuffle, sample_weight=samples.weights,
                    seed=seed, schedule=schedule, validation_data=held,
                    callbacks=[] if held is None else [EarlyStopping(self.n_iter_no_change, min_delta=self.tol)],
                    progress=bool(self.verbose), dtype=self.dtype, threads=1 if batch_size == 1 else self.threads,
                )  # fmt: skip
                if found.loss[-1] > WILD * self.net_.linears[-1].out_features:
                    raise FloatingPointError(f"the loss is {found.loss[-1]:.3g} at the end")
                break
            except FloatingPointError as error:
                if not left or self.solver != "sgd" or self.learning_rate_init is not None:
                    hint = "scale X (StandardScaler), or take a smaller learning_rate_init"
                    raise ValueError(f"{type(self).__name__}: {error}; {hint}") from error
                before.restore()                 # rows that are much longer than the others need less than it
                self.optimizer_.lr /= 2.0
        if self.verbose:
            print(found)
        for epoch in found.epochs:
            epoch.epoch = len(self.history_.epochs) + 1
            self.history_.epochs.append(epoch)
        self.n_iter_ = len(found.epochs) if epochs > 1 else self.n_iter_ + 1
        self.t_ += len(found.epochs) * len(X)
        self.loss_curve_ = self.history_.loss
        self.loss_ = self.loss_curve_[-1]
        self.n_layers_ = self.net_.num_linears + 1
        self.n_outputs_ = self.net_.linears[-1].out_features

    def _split(self, y: np.ndarray, samples: _Samples, labels: bool) -> tuple[_Samples, np.ndarray]:
        """What is learned from, and the rows that are kept aside: all occurrences of a row, or none."""
        rows, weights = samples
        distinct = np.unique(rows)
        several = labels and np.unique(y[distinct], return_counts=True)[1].min() > 1
        try:
            _, aside = train_test_split(
                distinct, test_size=self.validation_fraction, stratify=y[distinct] if several else None,
                random_state=self._random,
            )  # fmt: skip
        except ValueError as error:
            raise ValueError(f"early_stopping: {error}") from None
        stay = ~np.isin(rows, aside)
        return _Samples(rows[stay], None if weights is None else weights[stay]), aside

    def _samples(self, X: np.ndarray, y: np.ndarray, sample_weight: Any) -> _Samples:
        """The rows that are learned from, in an order that follows from what they hold, unless theirs is meant."""
        rows = _sorted(X, y) if self.shuffle else np.arange(len(X))
        if sample_weight is None:
            return _Samples(rows, None)
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        return _weighted(rows, weights[rows])

    def _outputs(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return np.concatenate(list(outputs(self.net_, X * self.input_scale_)))

    @property
    def coefs_(self) -> list[np.ndarray]:
        """The weights of each layer, of shape (inputs, outputs); the first acts on X as it is given."""
        return [
            linear.w.numpy() * (self.input_scale_ if k == 0 else 1.0) for k, linear in enumerate(self.net_.linears)
        ]

    @property
    def intercepts_(self) -> list[np.ndarray]:
        """The biases of each layer."""
        return [linear.b.numpy() for linear in self.net_.linears]


def _sorted(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """An order of the rows that follows from what is in them: by a sum with random factors, then by y."""
    draw = np.random.default_rng(0)
    with np.errstate(over="ignore", invalid="ignore"):       # then it follows from less
        key, also = (np.einsum("ij,j->i", a, draw.normal(size=a.shape[1])) for a in (X, y.reshape(len(y), -1)))
    return np.lexsort((also, key))


def _weighted(rows: np.ndarray, weights: np.ndarray) -> _Samples:
    """A row of weight k is there k times.  Numbers that are no counts are relative: the mean of those above 0 is 1,
    and what is above that is shared among several occurrences, for a step of many times the rate would go too far."""
    some = weights[weights > 0.0]
    if not len(some):
        raise ValueError("sample_weight: expected a number above zero, got none: nothing would be learned")
    if not ((weights == np.trunc(weights)).all() and weights.sum() <= COUNTED * len(some)):
        weights = weights / some.max()
        weights = np.round(weights / weights[weights > 0.0].mean(), 12)  # those that are equal are 1
    times = np.ceil(weights).astype(np.int64)
    shares = np.repeat(weights / np.maximum(times, 1), times)
    return _Samples(np.repeat(rows, times), None if (shares == 1.0).all() else shares)


def _input_scale(X: np.ndarray, rows: np.ndarray) -> float:
    """What makes a row as long as the learning rate is meant for.  Rows go through the cache a few at a time: fresh
    memory for all of them takes longer than to learn from them."""
    largest = max(float(X.max(initial=0.0)), -float(X.min(initial=0.0)))
    if largest == 0.0:
        return 1.0
    squares = 0.0
    for k in range(0, len(rows), ROWS_AT_ONCE):
        part = X[rows[k : k + ROWS_AT_ONCE]]
        part /= largest
        squares += float(np.square(part, out=part).sum())
    length = math.sqrt(squares / len(rows))
    scale = math.sqrt(min(X.shape[1], LONG)) / length / largest
    return scale if 0.0 < scale < math.inf else 1.0


class MLPClassifier(ClassifierMixin, _Estimator):
    """A net of relu layers that tells classes apart: softmax cross-entropy, one sample at a time.

    hidden_layer_sizes: of the layers between input and output; a number for one.
    solver: "sgd", "adam", "adamw" or "rmsprop".  alpha: weight decay.  momentum: of "sgd" and "rmsprop".
    batch_size: samples for each step.
    learning_rate: the schedule: "linear", "cosine" or "constant".  learning_rate_init: where it begins; if left out
    0.001, for "sgd" up to 0.02 times the root of the batch size, less for wide layers, and halved as long as the run
    diverges.
    max_iter: epochs.  early_stopping: a part `validation_fraction` of the samples is kept aside, and training ends when
    its loss has not fallen by `tol` for `n_iter_no_change` epochs; the best weights are taken.
    random_state: of first weights, order and split.  warm_start: `fit` goes on with the net that is there.
    verbose: a bar, and the table of the epochs.  dtype: "float64" or "float32", of what training computes with.
    threads: for the samples of a batch.

    y holds labels of any kind: whole numbers, strings.  Attributes after `fit`: `classes_`, `net_` (a
    `fastscalar.MLP`), `history_`, `loss_curve_`, `loss_`, `n_iter_`, `n_features_in_`, `coefs_`, `intercepts_`.
    ValueError for data and parameters that do not fit, and for a run that diverges.

    >>> import numpy as np
    >>> from fastscalar.sklearn import MLPClassifier
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> y = np.where(X[:, 0] * X[:, 1] > 0, "same", "other")
    >>> net = MLPClassifier(16, max_iter=30, random_state=0).fit(X, y)
    >>> net.predict([[1.0, 1.0], [1.0, -1.0]]), net.predict_proba(X).shape
    (array(['same', 'other'], dtype='<U5'), (200, 2))
    """

    classes_: np.ndarray
    _STEP = (2.7, 8.0)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPClassifier:
        """Train a new net; with `warm_start` the one that is there, which has to have seen the same classes.

        sample_weight: n numbers from 0 on; whole ones count, so that 2 is the row twice, others are relative."""
        self._check()
        begin = not (self.warm_start and hasattr(self, "net_"))
        X, y = validate_data(self, X, y, dtype=np.float64, reset=begin)
        classes, places = self._labels(y)
        samples = self._samples(X, places, sample_weight)
        if begin:
            self._begin(X, samples, len(classes))
            self.classes_ = classes
        elif not np.array_equal(classes, self.classes_):
            raise ValueError(f"warm_start: expected the classes {self.classes_.tolist()}, got {classes.tolist()}")
        else:
            self._go_on()
        self._train(X, places, samples, self.max_iter, self.learning_rate, "cross_entropy", True)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> MLPClassifier:
        """One epoch at a constant rate.  classes: all that will ever come, needed in the first call.  sample_weight:
        that of `fit`, relative to the others of this call."""
        self._check()
        first = not hasattr(self, "net_")
        X, y = validate_data(self, X, y, dtype=np.float64, reset=first)
        seen, _ = self._labels(y)
        known = np.unique(seen if classes is None else classes) if first else self.classes_
        if first and classes is None:
            raise ValueError("partial_fit: the first call needs classes, all labels that will ever come")
        if not first and classes is not None and not np.array_equal(np.unique(classes), known):
            raise ValueError(f"partial_fit: expected the classes of the first call, {known.tolist()}")
        if not np.isin(seen, known).all():
            new = seen[~np.isin(seen, known)].tolist()
            raise ValueError(f"partial_fit: y has {new}, which are not among the classes {known.tolist()}")
        places = np.searchsorted(known, y)
        samples = self._samples(X, places, sample_weight)
        if first:
            self._begin(X, samples, len(known))
            self.classes_ = known
        else:
            self._go_on()
        self._train(X, places, samples, 1, "constant", "cross_entropy", True)
        return self

    def _labels(self, y: Any) -> tuple[np.ndarray, np.ndarray]:
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        classes, places = np.unique(y, return_inverse=True)
        return classes, places.astype(np.int64)

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probabilities of the classes, in the order of `classes_`: shape (n, classes)."""
        return probabilities(self._outputs(X))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Their logarithms."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.predict_proba(X)))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row."""
        found = self._outputs(X).argmax(axis=1)
        return np.asarray(self.classes_[found])


class MLPRegressor(RegressorMixin, _Estimator):
    """A net of relu layers that predicts numbers: half the squared differences, one sample at a time.

    The parameters are those of `MLPClassifier`.  y has shape (n,), or (n, k) for k numbers a row.

    >>> import numpy as np
    >>> from fastscalar.sklearn import MLPRegressor
    >>> X = np.random.default_rng(0).normal(size=(300, 2))
    >>> y = 1000.0 + 50.0 * X[:, 0] * X[:, 1]
    >>> MLPRegressor(32, max_iter=50, random_state=0).fit(X, y).score(X, y) > 0.95
    True
    """

    _STEP = (2.0, 3.0)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Train a new net; with `warm_start` the one that is there.

        sample_weight: n numbers from 0 on; whole ones count, so that 2 is the row twice, others are relative."""
        begin = not (self.warm_start and hasattr(self, "net_"))
        X, y = self._checked(X, y, begin)
        samples = self._samples(X, y, sample_weight)
        if begin:
            self._begin_targets(X, y, samples)
        else:
            self._go_on()
        self._train(X, self._scaled(y), samples, self.max_iter, self.learning_rate, "squared", False)
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """One epoch at a constant rate.  The first call decides by which numbers X and y are scaled.  sample_weight:
        that of `fit`, relative to the others of this call."""
        first = not hasattr(self, "net_")
        X, y = self._checked(X, y, first)
        samples = self._samples(X, y, sample_weight)
        if first:
            self._begin_targets(X, y, samples)
        else:
            self._go_on()
        self._train(X, self._scaled(y), samples, 1, "constant", "squared", False)
        return self

    def _checked(self, X: Any, y: Any, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        self._check()
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True, reset=reset)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        y = np.asarray(y, dtype=np.float64)
        if not reset and np.shape(y)[1:] != np.shape(self.target_mean_):
            raise ValueError(f"y has shape {y.shape}, before a row had {np.shape(self.target_mean_)}")
        return X, y

    def _begin_targets(self, X: np.ndarray, y: np.ndarray, samples: _Samples) -> None:
        self._begin(X, samples, 1 if y.ndim == 1 else y.shape[1])
        largest = np.abs(y).max(axis=0)
        unit = np.where(largest > 1e150, largest, 1.0)           # squares and sums stay finite
        some = y[samples.rows] / unit
        mean = np.average(some, axis=0, weights=samples.weights)
        spread = np.sqrt(np.average(np.square(some - mean), axis=0, weights=samples.weights)) * unit
        self.target_mean_, self.target_scale_ = mean * unit, np.where(spread > 0.0, spread, 1.0)

    def _scaled(self, y: np.ndarray) -> np.ndarray:
        return (y - self.target_mean_) / self.target_scale_

    def predict(self, X: Any) -> np.ndarray:
        """The prediction for each row: shape (n,), or (n, k)."""
        found = self._outputs(X)
        found = found[:, 0] if np.ndim(self.target_mean_) == 0 else found
        return np.asarray(found * self.target_scale_ + self.target_mean_)
