"""A training run that one watches and steers: fit's own loop in pieces, in a thread of its own.

Contract
1. Everything that writes to the net runs in the trainer's thread, between pieces of about a tenth of a second: settings
   change, steps by hand and pauses take effect there.  Others read copies.
2. After each piece the newest figures are there to be read, and reading never makes the thread wait.
3. Looking costs little: accuracy is measured only while that has taken less than about `SHARE` of the time of
   training.
4. A piece that diverges leaves the net as it was before it; the run stops and says why.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np

from fastscalar.nn.evaluation import Measure
from fastscalar.nn.layers import MLP, Linear, linears_of
from fastscalar.nn.optimizers import SGD, Adam, Optimizer, sgd
from fastscalar.nn.training import Loop
from fastscalar.play.samples import Samples
from fastscalar.play.server import Refused

PIECE = 0.1  # seconds
SHARE = 0.04  # of the time of training
ALLOWANCE = 0.05  # seconds of looking before that counts: the curve has a beginning
TESTED = 1000  # test samples in each of these measurements
POINTS = 1200  # of the curve
TEACH_RATE = 0.02
RECORDING = threading.Lock()  # a program is not recorded while another thread has operations note their lines

OPTIMIZERS: dict[str, Callable[[float], Optimizer]] = {"sgd": lambda lr: SGD(lr=lr), "adam": lambda lr: Adam(lr=lr)}
LIMITS = {"lr": (1e-7, 1e6), "batch_size": (1, 4096), "hidden": (1, 1024)}


class Trainer:
    """Trains `net` on `samples`; `start`, `pause`, `step`, `epoch`, `set`, `teach`, `reset` steer it."""

    def __init__(
        self,
        net: Any,
        samples: Samples,
        loss: Callable[[Any, Any], Any],
        *,
        lr: float = 0.02,
        batch_size: int = 1,
        optimizer: str = "sgd",
        seed: int = 0,
    ) -> None:
        self.net, self.samples, self.loss = net, samples, loss
        self.settings: dict[str, Any] = {"lr": lr, "batch_size": batch_size, "optimizer": optimizer}
        if self.hidden is not None:
            self.settings["hidden"] = self.hidden
        self.version = 0                         # grows with all that can be seen
        self.points: list[list[Any]] = []        # samples, loss, accuracy or None
        self.generation = 0                      # of the points: they were thinned, or begin anew
        self.state, self.message = "paused", ""
        self.changed = threading.Condition()
        self._seed = seed
        self._commands: list[tuple[Callable[[], Any], Future[Any]]] = []
        self._until: int | None = 0              # samples at which to pause; None: never
        self._closed = False
        self._begin()
        self._thread = threading.Thread(target=self._run, name="fastscalar-play-training", daemon=True)
        self._thread.start()

    @property
    def hidden(self) -> int | None:
        """Units of the only hidden layer, of nets that have just one."""
        net = self.net
        return net.linears[0].out_features if type(net) is MLP and len(net.linears) == 2 else None

    # --- for others ---

    def start(self) -> None:
        self._do(lambda: self._go(None))

    def pause(self) -> None:
        self._do(lambda: self._go(self.samples_seen))

    def step(self) -> None:
        """One step of the optimiser."""
        self._do(lambda: self._go(self.samples_seen + self.settings["batch_size"]))

    def epoch(self, count: int = 1) -> None:
        """On to the end of the epoch, and of `count` - 1 more."""
        n = len(self.samples.X)
        self._do(lambda: self._go((self.samples_seen // n + count) * n))

    def set(self, wishes: dict[str, Any]) -> None:
        """Change settings; Refused names the one that cannot be."""
        settings = {name: self._checked(name, value) for name, value in wishes.items()}
        self._do(lambda: self._apply(settings))

    def reset(self) -> None:
        """Begin anew, with new first weights."""
        self._do(self._reset)

    def teach(self, x: np.ndarray, label: int) -> float:
        """One step of SGD on one sample; the loss before it."""
        return float(self._do(lambda: self._teach(x, label)))

    def close(self) -> None:
        with self.changed:
            self._closed = True
            self.changed.notify_all()
        self._thread.join(10)

    def snapshot(self) -> dict[str, Any]:
        """The newest figures."""
        with self.changed:
            n = len(self.samples.X)
            return {
                "state": self.state, "message": self.message, "samples": self.samples_seen, "size": n,
                "epoch": self.samples_seen / n, "loss": number(self.mean), "accuracy": number(self.accuracy),
                "metric": self.metric, "rate": self.speed, "settings": self.settings, "net": repr(self.net),
            }  # fmt: skip

    def wait(self, seen: int, seconds: float) -> int:
        """The version as soon as it is another than `seen`, or after so many seconds."""
        with self.changed:
            self.changed.wait_for(lambda: self.version != seen or self._closed, seconds)
            return self.version

    # --- the thread ---

    def _do(self, command: Callable[[], Any]) -> Any:
        done: Future[Any] = Future()
        with self.changed:
            if self._closed:
                raise Refused("the run has ended")
            self._commands.append((command, done))
            self.changed.notify_all()
        return done.result(timeout=60)

    def _run(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self._closed or self._commands or self._is_due())
                if self._closed:
                    for _, done in self._commands:
                        done.set_exception(Refused("the run has ended"))
                    return
                commands, self._commands = self._commands, []
            for command, done in commands:
                try:
                    done.set_result(command())
                except BaseException as error:  # it belongs to the thread that gave the command
                    done.set_exception(error)
            if commands:
                self._publish()
            if self._is_due():
                try:
                    self._piece()
                except Exception as error:
                    self._stop(error)
                self._publish()

    def _is_due(self) -> bool:
        return self._until is None or self.samples_seen < self._until

    def _go(self, until: int | None) -> None:
        self._until = until
        self.state, self.message = "running" if self._is_due() else "paused", ""

    def _begin(self) -> None:
        """A run from its first sample."""
        self.samples_seen = 0
        self.mean = self.accuracy = math.nan
        self.speed, self.metric = 0.0, ""
        self._trained = self._looked = 0.0       # seconds
        self._size = 64                          # samples of a piece
        self._generator = np.random.default_rng(self._seed)
        self._at, self._order = 0, self._generator.permutation(len(self.samples.X))
        self.points, self.generation = [], self.generation + 1
        self._optimizer = OPTIMIZERS[self.settings["optimizer"]](self.settings["lr"])
        self._prepare()

    def _prepare(self) -> None:
        """The loop for the net and the settings as they are now."""
        self._loop: Loop | None = None           # made with the first piece: recording takes its time
        few = slice(0, TESTED)
        self._measure = Measure(self.net, self.samples.X_test[few], self.samples.y_test[few], self.loss, "play")

    def _made(self) -> Loop:
        if self._loop is None:
            s = self.samples
            with RECORDING:
                self._loop = Loop(self.net, s.X, s.y, self.loss, self._optimizer, self.settings["batch_size"])
        return self._loop

    def _piece(self) -> None:
        """Train for about PIECE seconds, and look."""
        batch = self.settings["batch_size"]
        count = min(max(1, self._size // batch) * batch, len(self._order) - self._at)
        if self._until is not None:
            count = min(count, self._until - self.samples_seen)
        loop = self._made()
        start = time.perf_counter()
        self.mean = loop.run(self._order[self._at : self._at + count])
        seconds = max(time.perf_counter() - start, 1e-6)
        self._trained += seconds
        self.speed = count / seconds
        self._size = max(1, min(2 * self._size, int(self.speed * PIECE), len(self._order)))
        self.samples_seen += count
        self._at += count
        if self._at == len(self._order):
            self._at, self._order = 0, self._generator.permutation(len(self._order))
        if not self._is_due():
            self.state = "paused"
        looks = self.state == "paused" or self._looked <= SHARE * self._trained + ALLOWANCE
        if looks:
            self._look()
        self._note(looks)

    def _stop(self, error: Exception) -> None:
        """The run ends here, and says why."""
        diverged = isinstance(error, FloatingPointError)
        self._until, self._loop = 0, None
        self.state, self.message = "diverged" if diverged else "failed", " ".join(str(error).split())
        if diverged:
            self.mean = math.inf
            self._note(False)

    def _look(self) -> None:
        start = time.perf_counter()
        found = self._measure()
        self.accuracy, self.metric = float(found), found.metric
        self._looked += time.perf_counter() - start

    def _note(self, looked: bool) -> None:
        with self.changed:
            self.points.append([self.samples_seen, number(self.mean), number(self.accuracy) if looked else None])
            if len(self.points) > POINTS:
                self.points, self.generation = thinned(self.points), self.generation + 1

    def _publish(self) -> None:
        with self.changed:
            self.version += 1
            self.changed.notify_all()

    # --- commands ---

    def _checked(self, name: str, value: Any) -> Any:
        if name not in self.settings:
            raise Refused(f"{name[:40]!r} cannot be set; expected one of {', '.join(self.settings)}")
        if name == "optimizer":
            if not isinstance(value, str) or value not in OPTIMIZERS:
                raise Refused(f"optimizer: expected one of {', '.join(OPTIMIZERS)}")
            return value
        low, high = LIMITS[name]
        whole = name != "lr"
        kinds: Any = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            raise Refused(f"{name}: expected a {'whole ' if whole else ''}number from {low:g} to {high:g}")
        return value if whole else float(value)

    def _apply(self, wishes: dict[str, Any]) -> None:
        before, self.settings = self.settings, {**self.settings, **wishes}
        now = self.settings
        if now.get("hidden") != before.get("hidden"):
            self.net = resized(self.net, now["hidden"], self._seed)
        if any(now.get(name) != before.get(name) for name in ("hidden", "optimizer")):
            self._optimizer = OPTIMIZERS[now["optimizer"]](now["lr"])
        self._optimizer.lr = now["lr"]
        if any(now.get(name) != before.get(name) for name in ("hidden", "optimizer", "batch_size")):
            self._prepare()
        if self.state in ("diverged", "failed"):
            self.state, self.message = "paused", ""

    def _reset(self) -> None:
        if type(self.net) not in (MLP, Linear):
            raise Refused("only nets of Linear and MLP can begin anew here; make yours again and play with that")
        self._seed += 1
        widths = _widths(self.net)
        one = type(self.net) is Linear
        fresh = Linear(*widths, seed=self._seed) if one else MLP(widths[0], widths[1:], seed=self._seed)
        for old, new in zip(linears_of(self.net), linears_of(fresh), strict=True):
            old.w.data, old.b.data = new.w.numpy(), new.b.numpy()
        self._until, self.state, self.message = 0, "paused", ""
        self._begin()

    def _teach(self, x: np.ndarray, label: int) -> float:
        loss = self.loss(self.net(x), label)
        value = loss.item()
        if math.isfinite(value):
            loss.backward()
            sgd(self.net.parameters(), TEACH_RATE)
        return value


def thinned(points: list[list[Any]]) -> list[list[Any]]:
    """Every second point, and whatever accuracy the others had: it is measured more seldom."""
    kept = []
    for first, second in zip(points[::2], points[1::2], strict=False):
        kept.append([*second[:2], second[2] if second[2] is not None else first[2]])
    return kept + points[len(kept) * 2 :]


def number(x: float) -> float | str | None:
    """A float for JSON, which knows neither infinities nor NaN: NaN stands for what is not known yet."""
    return x if math.isfinite(x) else None if math.isnan(x) else "inf"


def _widths(net: Any) -> list[int]:
    linears = linears_of(net)
    return [linears[0].in_features, *(linear.out_features for linear in linears)]


def resized(net: MLP, hidden: int, seed: int) -> MLP:
    """The net with another number of hidden units: those that stay keep what they have learned."""
    widths = _widths(net)
    new = MLP(widths[0], [hidden, widths[2]], seed=seed)
    kept = min(hidden, widths[1])
    first, last = net.linears
    w, b, v = new.linears[0].w.numpy(), new.linears[0].b.numpy(), new.linears[1].w.numpy()
    w[:, :kept], b[:kept] = first.w.numpy()[:, :kept], first.b.numpy()[:kept]
    v[:kept] = last.w.numpy()[:kept]
    new.linears[0].w.data, new.linears[0].b.data = w, b
    new.linears[1].w.data, new.linears[1].b.data = v, last.b.numpy()
    return new
