"""FASTSCALAR_KERNELS=baseline: compiled training gives the same bits on every processor; other sets the same numbers.

The digests stand here, so that a machine with another processor, or another number of threads, has to give them too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from fastscalar import _core

PROGRAM = """
import hashlib, json, sys
import numpy as np
import fastscalar as fs
threads = int(sys.argv[1])
k = np.arange(240 * 36, dtype=np.int64)
X = ((k * 7919 % 1009) / 1009.0 * ((k * 31 % 5) > 1)).reshape(240, 36)   # the same everywhere
y = (k[:240] * 13 % 7).astype(int)
out = {}
for dtype in ("float64", "float32"):
    for batch_size in (1, 16):
        net = fs.MLP(36, [20, 7], seed=3)
        for layer in net.linears:
            w = np.arange(layer.w.shape[0] * layer.w.shape[1], dtype=np.int64) * 2654435761 % 4093
            layer.w.data = (w / 4093.0 - 0.5).reshape(layer.w.shape) * 0.25
        fs.fit(net, X, y, optimizer=fs.SGD(lr=0.05, momentum=0.5), epochs=2, batch_size=batch_size, dtype=dtype,
               threads=threads if batch_size > 1 else 1, progress=False)
        weights = np.concatenate([np.asarray(p.data).ravel() for layer in net.linears for p in (layer.w, layer.b)])
        digest = hashlib.sha256(weights.astype("<f8").tobytes()).hexdigest()[:16]
        out[f"{dtype} {batch_size}"] = [digest, weights.tolist()]
print(json.dumps(out))
"""

DIGESTS = {
    "float64 1": "0f910796e0aeddcd",
    "float64 16": "0ee781fca6bdd0b2",
    "float32 1": "4f4815d0957bb5e6",
    "float32 16": "6db4dfb59a556a97",
}


def trained(kernels: str, threads: int = 1) -> dict[str, tuple[str, list[float]]]:
    env = {**os.environ, "FASTSCALAR_KERNELS": kernels}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(threads)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return {key: (digest, weights) for key, (digest, weights) in json.loads(done.stdout).items()}


@pytest.fixture(scope="module")
def baseline() -> dict[str, tuple[str, list[float]]]:
    return trained("baseline")


def test_the_baseline_has_the_bits_that_stand_here(baseline: dict[str, tuple[str, list[float]]]) -> None:
    assert {key: digest for key, (digest, _) in baseline.items()} == DIGESTS


def test_any_number_of_threads_has_them_too() -> None:
    assert {key: digest for key, (digest, _) in trained("baseline", 2).items()} == DIGESTS


@pytest.mark.parametrize("kernels", [name for name in ("avx2", "avx512") if name in _core.kernel_sets()])
def test_other_sets_give_the_same_numbers(kernels: str, baseline: dict[str, tuple[str, list[float]]]) -> None:
    for key, (_, weights) in trained(kernels).items():
        rtol = 1e-9 if key.startswith("float64") else 1e-3
        np.testing.assert_allclose(weights, baseline[key][1], rtol=rtol, atol=1e-6, err_msg=key)
