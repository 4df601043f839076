"""Adam, AdamW and momentum on the MLP: the compiled fit, PyTorch's fused steps, and Adam in C by hand."""

from __future__ import annotations

import ctypes
import importlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import fastscalar as fs
from contestants.base import Compiled32, Contestant, Torch
from nets import CHECKED, Workload, initial_layers

# Not -ffast-math: linked with it, a library makes denormal numbers zero in the whole process.
MATHS = ("-fno-math-errno", "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-freciprocal-math")
LR = 1e-3
MOMENTUM, DECAY, BETAS, EPS = 0.9, 0.01, (0.9, 0.999), 1e-8


def expected_losses(rule: str, work: Workload, X: np.ndarray, y: Sequence[int], batch: int) -> list[float]:
    """The formulas once more, in float64."""
    (w1, b1), (w2, b2) = initial_layers(work.widths)
    parameters = [w1, b1, w2, b2]
    first, second = ([np.zeros_like(p) for p in parameters] for _ in range(2))
    losses = []
    for k in range(CHECKED):
        x, labels = X[k * batch : (k + 1) * batch], np.array(y[k * batch : (k + 1) * batch])
        h = np.maximum(x @ w1 + b1, 0.0)
        z = h @ w2 + b2
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        losses.append(float(np.mean(-np.log(p[np.arange(len(x)), labels]))))
        p[np.arange(len(x)), labels] -= 1.0
        p /= len(x)
        below = (p @ w2.T) * (h > 0.0)
        gradients = [x.T @ below, below.sum(axis=0), h.T @ p, p.sum(axis=0)]
        for w, g, s, t in zip(parameters, gradients, first, second, strict=True):
            if rule == "momentum":
                s[...] = MOMENTUM * s + g
                w -= LR * s
                continue
            if rule == "adamw":
                w *= 1 - LR * DECAY
            s += (1 - BETAS[0]) * (g - s)
            t[...] = BETAS[1] * t + (1 - BETAS[1]) * g * g
            n = k + 1
            w -= LR / (1 - BETAS[0] ** n) * s / (np.sqrt(t) / np.sqrt(1 - BETAS[1] ** n) + EPS)
    return losses


class Ruled(Contestant):
    rule: ClassVar[str]

    @classmethod
    def expected(cls, work: Workload, X: np.ndarray, y: Sequence[int], batch: int) -> list[float]:
        return expected_losses(cls.rule, work, X, y, batch)


class Ours(Ruled, Compiled32):
    def start(self) -> None:
        super().start()
        kinds: dict[str, Any] = {
            "momentum": lambda p: fs.SGD(p, LR, MOMENTUM),
            "adam": lambda p: fs.Adam(p, LR, BETAS, EPS),
            "adamw": lambda p: fs.AdamW(p, LR, BETAS, EPS, weight_decay=DECAY),
        }
        self.optimizer = kinds[self.rule](self.net.parameters())


class Theirs(Ruled, Torch):
    def start(self) -> None:
        super().start()
        optim, p = self.torch.optim, self.net.parameters()
        kinds: dict[str, Any] = {
            "momentum": lambda: optim.SGD(p, lr=LR, momentum=MOMENTUM, fused=True),
            "adam": lambda: optim.Adam(p, lr=LR, betas=BETAS, eps=EPS, fused=True),
            "adamw": lambda: optim.AdamW(p, lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY, fused=True),
        }
        self.optimizer = kinds[self.rule]()


SOURCE = r"""
#include <math.h>
#include <string.h>
static float h[H], gh[H], z[O], p[O];

static void step(float *w, const float *g, float x, float *s, float *t, int n, float rate, float root)
{
    for (int i = 0; i < n; i++) {
        float d = x * g[i];
        s[i] += 0.1f * (d - s[i]);
        t[i] = 0.999f * t[i] + 0.001f * d * d;
        w[i] -= rate * s[i] / (sqrtf(t[i]) * root + 1e-8f);
    }
}

/* One row after the other through I-H-O, Adam over all weights; pixels of zero are stepped over but by Adam.
 *  `all`: w1, b1, w2, b2 side by side; s and t likewise. */
void train(const float *X, const long long *y, long steps, long long before, float *all, float *s, float *t,
           double *loss)
{
    float *w1 = all, *b1 = w1 + I * H, *w2 = b1 + H, *b2 = w2 + H * O;
    for (long k = 0; k < steps; k++) {
        const float *x = X + k * I;
        const double n = (double)(before + k + 1);
        const float rate = (float)(1e-3 / (1 - pow(0.9, n))), root = (float)(1 / sqrt(1 - pow(0.999, n)));
        memcpy(h, b1, sizeof h);
        for (int j = 0; j < I; j++)
            if (x[j] != 0)
                for (int i = 0; i < H; i++)
                    h[i] += x[j] * w1[j * H + i];
        memcpy(z, b2, sizeof z);
        for (int j = 0; j < H; j++) {
            h[j] = h[j] > 0 ? h[j] : 0;
            for (int i = 0; i < O; i++)
                z[i] += h[j] * w2[j * O + i];
        }
        float most = z[0], total = 0;
        for (int i = 1; i < O; i++)
            most = z[i] > most ? z[i] : most;
        for (int i = 0; i < O; i++)
            total += p[i] = expf(z[i] - most);
        loss[k] = log(total) - (z[y[k]] - most);
        for (int i = 0; i < O; i++)
            p[i] = p[i] / total - (i == y[k]);
        for (int j = 0; j < H; j++) {
            float sum = 0;
            for (int i = 0; i < O; i++)
                sum += w2[j * O + i] * p[i];
            gh[j] = h[j] > 0 ? sum : 0;
        }
        for (int j = 0; j < I; j++)
            step(w1 + j * H, gh, x[j], s + j * H, t + j * H, H, rate, root);
        step(b1, gh, 1, s + I * H, t + I * H, H, rate, root);
        for (int j = 0; j < H; j++)
            step(w2 + j * O, p, h[j], s + I * H + H + j * O, t + I * H + H + j * O, O, rate, root);
        step(b2, p, 1, s + I * H + H + H * O, t + I * H + H + H * O, O, rate, root);
    }
}
"""


class ByHand(Ruled):
    """One row at a time; compiled here with all that the processor has, and leave to reassociate."""

    name, rule, dtype = "C by hand, adam, float32", "adam", "float32"

    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        source, library = Path(self.folder.name, "adam.c"), Path(self.folder.name, "adam.so")
        source.write_text(SOURCE)
        compiler = shutil.which("cc") or "cc"
        sizes = [f"-D{name}={n}" for name, n in zip("IHO", self.work.widths, strict=True)]
        options = ["-O3", "-march=native", *MATHS, "-shared", "-fPIC", *sizes]
        subprocess.run([compiler, *options, str(source), "-o", str(library), "-lm"], check=True, timeout=60)
        pointer = ctypes.c_void_p
        self.train = ctypes.CDLL(str(library)).train
        self.train.argtypes = [pointer, pointer, ctypes.c_long, ctypes.c_longlong, pointer, pointer, pointer, pointer]
        self.train.restype = None
        layers = [a.astype(np.float32).ravel() for pair in initial_layers(self.work.widths) for a in pair]
        self.all = np.concatenate(layers)
        self.first_moment, self.second_moment = np.zeros_like(self.all), np.zeros_like(self.all)
        self.labels, self.done = np.array(self.y, np.int64), 0

    def run(self, steps: int) -> list[float]:
        losses = np.empty(steps)
        moments = self.first_moment.ctypes.data, self.second_moment.ctypes.data
        self.train(self.X.ctypes.data, self.labels.ctypes.data, steps, self.done, self.all.ctypes.data, *moments,
                   losses.ctypes.data)  # fmt: skip
        self.done += steps
        return losses.tolist()

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which("cc") else "there is no C compiler"


def of_rule(rule: str) -> list[type[Contestant]]:
    """Ours and PyTorch's with this rule."""
    ours = type("Ours", (Ours,), {"rule": rule, "name": f"fastscalar compiled, {rule}, float32"})
    theirs = type("Theirs", (Theirs,), {"rule": rule, "name": f"PyTorch fused, {rule}, float32"})
    return [ours, theirs]


# --- a convolutional net ----------------------------------------------------------------------------


def convolutions() -> tuple[Any, Any]:
    """The same net twice, with the same weights: ours and PyTorch's."""
    torch: Any = importlib.import_module("torch")
    ours = fs.nn.Sequential(
        fs.nn.Reshape(28, 28), fs.nn.Conv2d(1, 16, 5, seed=0), "relu", fs.nn.MaxPool2d(2),
        fs.nn.Conv2d(16, 32, 5, seed=1), "relu", fs.nn.MaxPool2d(2), fs.nn.Flatten(), fs.Linear(512, 10, seed=2),
    )  # fmt: skip
    nn = torch.nn
    theirs = nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)), nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    state = list(ours.state_dict().values())
    with torch.no_grad():
        for layer, w, b in zip((theirs[1], theirs[4], theirs[8]), state[::2], state[1::2], strict=True):
            if w.ndim == 4:
                w = w.transpose(3, 2, 0, 1)
            else:                                # rows of ours are (height, width, channels)
                w = w.reshape(4, 4, 32, 10).transpose(3, 2, 0, 1).reshape(10, 512)
            layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(w)))
            layer.bias.copy_(torch.from_numpy(b))
    return ours, theirs
