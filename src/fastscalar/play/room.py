"""What the pages ask for: drawings read, training steered, mistakes, weights as images, graphs."""

from __future__ import annotations

import copy
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastscalar._core import no_grad
from fastscalar.engine._array_ops import to_tensor
from fastscalar.nn.evaluation import outputs
from fastscalar.nn.layers import MLP, Linear, linears_of
from fastscalar.play.graphs import Graphs
from fastscalar.play.samples import centred, drawing, text_of
from fastscalar.play.server import Refused
from fastscalar.play.training import Trainer, number

POLL = 8.0  # seconds that a page may wait for news
SHOWN = 28  # mistakes
LOOKED_AT = 2000  # test samples among which they are looked for
UNITS = 40  # images of first weights


class Room:
    """The views of one page and their calls.  `trainer` is None if there is no net, only graphs."""

    def __init__(self, graphs: Graphs, trainer: Trainer | None = None) -> None:
        self.graphs, self.trainer = graphs, trainer
        self._copy: tuple[int, Any] | None = None
        self._copying = threading.Lock()
        self.calls: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "hello": self.hello, "graph": graphs.show, "inside": graphs.inside
        }  # fmt: skip
        if trainer is not None:
            self.calls |= {
                "news": self.news, "train": self.train, "set": self.set, "weights": self.weights,
                "mistakes": self.mistakes, "read": self.read, "teach": self.teach,
            }  # fmt: skip
            graphs.add_net(lambda: (self._net(), trainer.samples, trainer.loss))

    def close(self) -> None:
        if self.trainer is not None:
            self.trainer.close()

    def file(self, name: str) -> tuple[str, bytes]:
        """The net as `save` writes it."""
        if name != "model.npz" or self.trainer is None or not hasattr(self.trainer.net, "save"):
            raise KeyError(name)
        net = self._net()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            net.save(path, title=self.trainer.samples.title)
            return "application/octet-stream", path.read_bytes()

    # --- what there is ---

    def hello(self, message: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = {"views": ["graph"], "graphs": self.graphs.titles()}
        if self.trainer is None:
            return answer
        samples = self.trainer.samples
        answer |= {
            "views": [*(["draw"] if self._draws() else []), "train", "graph"], "title": samples.title,
            "note": samples.note, "side": samples.side, "saves": hasattr(self.trainer.net, "save"),
            "units": self._first() is not None, "own": type(self.trainer.net) in (MLP, Linear),
        }  # fmt: skip
        return answer

    def _draws(self) -> bool:
        """Whether the net reads images of 28 x 28 pixels and tells classes apart."""
        assert self.trainer is not None
        net = self.trainer.net
        if type(net) not in (MLP, Linear):
            return False
        linears = linears_of(net)
        return linears[0].in_features == 784 and 2 <= linears[-1].out_features <= 10

    def _first(self) -> Linear | None:
        assert self.trainer is not None
        net = self.trainer.net
        square = type(net) in (MLP, Linear) and self.trainer.samples.side is not None
        return linears_of(net)[0] if square else None

    def _net(self) -> Any:
        """A copy of the net as it is now: gradients of ours do not meet those of the training thread."""
        assert self.trainer is not None
        with self._copying:
            version = self.trainer.version
            if self._copy is None or self._copy[0] != version:
                self._copy = version, copy.deepcopy(self.trainer.net)
            return self._copy[1]

    # --- drawing ---

    def read(self, message: dict[str, Any]) -> dict[str, Any]:
        """What the net makes of a drawing: `chances`, the image that it `seen`, and for the class asked for (or the
        likeliest) the gradient of its score by each pixel, `pull`, in signed bytes of `scale` / 127."""
        if not self._draws():
            raise Refused("this net does not read drawings")
        image = centred(drawing(message.get("pixels")))
        wanted = self._class(message.get("score"), optional=True)
        net = self._net()
        with self._copying:
            x = to_tensor(image.ravel())
            logits = net(x)
            values = logits.numpy()
            best = int(values.argmax())
            score = best if wanted is None else wanted
            logits[score].backward()
            pull = np.asarray(x.grad)
        with np.errstate(all="ignore"):
            chances = np.exp(values - values.max())
            chances = chances / chances.sum()
        scale = float(np.abs(pull).max()) or 1.0
        signed = np.nan_to_num(pull / scale * 127).astype(np.int8)
        return {
            "chances": [number(p) for p in chances.tolist()], "best": best, "score": score, "logit":
            number(float(values[score])), "seen": text_of((image * 255).astype(np.uint8)), "pull": text_of(signed),
            "scale": number(scale), "empty": not image.any(),
        }  # fmt: skip

    def teach(self, message: dict[str, Any]) -> dict[str, Any]:
        """One training step on the drawing with the label that the user gave."""
        assert self.trainer is not None
        if not self._draws():
            raise Refused("this net does not read drawings")
        image = centred(drawing(message.get("pixels")))
        label = self._class(message.get("label"))
        assert label is not None
        if not image.any():
            raise Refused("there is nothing on the paper")
        loss = self.trainer.teach(image.ravel(), label)
        return {"loss": number(loss), **self.read({**message, "score": label})}

    def _class(self, value: Any, optional: bool = False) -> int | None:
        assert self.trainer is not None
        classes = linears_of(self.trainer.net)[-1].out_features
        if optional and value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < classes:
            raise Refused(f"expected a class from 0 to {classes - 1}")
        return value

    # --- training ---

    def news(self, message: dict[str, Any]) -> dict[str, Any]:
        """The newest figures, as soon as there are other ones than the page has: `seen` is their version; of the curve
        it has `points` points of `generation`."""
        assert self.trainer is not None
        seen, have, generation = (_whole(message, name) for name in ("seen", "points", "generation"))
        version = self.trainer.wait(seen, POLL)
        with self.trainer.changed:
            points, now = self.trainer.points, self.trainer.generation
            new = points[have:] if generation == now else list(points)
        return {"version": version, "generation": now, "points": new, **self.trainer.snapshot()}

    def train(self, message: dict[str, Any]) -> dict[str, Any]:
        trainer = self.trainer
        assert trainer is not None
        known: dict[Any, Callable[[], None]] = {
            "start": trainer.start, "pause": trainer.pause, "step": trainer.step, "epoch": trainer.epoch,
            "reset": trainer.reset,
        }  # fmt: skip
        command = message.get("do")
        if not isinstance(command, str) or command not in known:
            raise Refused(f"expected one of {', '.join(known)}")
        known[command]()
        return trainer.snapshot()

    def set(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self.trainer is not None
        self.trainer.set(message)
        return self.trainer.snapshot()

    def weights(self, message: dict[str, Any]) -> dict[str, Any]:
        """The weights into the first units as images of signed bytes, each to its own scale."""
        first = self._first()
        if first is None:
            raise Refused("the first layer's weights are no images here")
        assert self.trainer is not None
        w = first.w.numpy()[:, :UNITS].T
        scale = np.abs(w).max(axis=1, keepdims=True)
        with np.errstate(all="ignore"):
            signed = np.nan_to_num(w / scale * 127).astype(np.int8)
        return {"side": self.trainer.samples.side, "count": len(w), "images": text_of(signed)}

    def mistakes(self, message: dict[str, Any]) -> dict[str, Any]:
        """Test images that the net takes for another class, those first of which it is surest."""
        assert self.trainer is not None
        samples = self.trainer.samples
        X, y = samples.X_test[:LOOKED_AT], samples.y_test[:LOOKED_AT]
        net = self._net()
        if samples.side is None or y.ndim != 1 or y.dtype.kind not in "iu":
            raise Refused("there are no images here to be taken for others")
        with no_grad():
            logits = np.concatenate(list(outputs(net, X)))
        with np.errstate(all="ignore"):
            chances = np.exp(logits - logits.max(axis=1, keepdims=True))
            chances = np.nan_to_num(chances / chances.sum(axis=1, keepdims=True))
        taken = chances.argmax(axis=1)
        wrong = np.flatnonzero(taken != y)
        wrong = wrong[np.argsort(-chances[wrong, taken[wrong]], kind="stable")]
        shown = wrong[:SHOWN]
        low, high = float(samples.X_test[shown].min(initial=0.0)), float(samples.X_test[shown].max(initial=1e-9))
        images = ((X[shown] - low) / (high - low) * 255).astype(np.uint8)
        return {
            "wrong": len(wrong), "of": len(y), "side": samples.side, "images": text_of(images),
            "labels": y[shown].tolist(), "taken": taken[shown].tolist(),
            "chances": [round(float(chances[i, taken[i]]), 4) for i in shown],
        }  # fmt: skip


def _whole(message: dict[str, Any], name: str) -> int:
    value = message.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value < 1 << 53:
        raise Refused(f"{name}: expected a whole number")
    return value


