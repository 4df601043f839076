"""Arrays against PyTorch, float64: values and gradients of reductions, broadcasts, products, indices, linear algebra.

Each program is written once, over functions that both have under one name; `make oracle` runs it (needs torch).
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import fastscalar as fs

OURS = types.SimpleNamespace(
    sum=np.sum, mean=np.mean, prod=np.prod, cumsum=np.cumsum, amax=np.amax, amin=np.amin, where=np.where,
    maximum=np.maximum, minimum=np.minimum, stack=np.stack, cat=np.concatenate, einsum=np.einsum, outer=np.outer,
    exp=np.exp, log=np.log, tanh=np.tanh, sqrt=np.sqrt, sin=np.sin, atan2=np.arctan2, clip=np.clip, roll=np.roll,
    flip=np.flip, tensordot=np.tensordot, kron=np.kron, logaddexp=np.logaddexp, diff=np.diff, square=np.square,
    solve=np.linalg.solve, inv=np.linalg.inv, det=np.linalg.det, logdet=lambda a: np.linalg.slogdet(a)[1],
    cholesky=np.linalg.cholesky, matrix_power=np.linalg.matrix_power, norm=np.linalg.norm, cov=np.cov,
    median=np.median, eye=np.eye, diag=np.diag, triu=np.triu, var=lambda x, axis: np.var(x, axis=axis, ddof=1),
    gather=lambda x, places: np.take_along_axis(x, places, 1), tile=np.tile, trace=np.trace, moveaxis=np.moveaxis,
    sort=lambda x: np.sort(x, axis=-1), pad=lambda x: np.pad(x, ((0, 0), (1, 2))), places=np.array,
)  # fmt: skip
THEIRS = types.SimpleNamespace(
    sum=lambda x, axis=None, keepdims=False: torch.sum(x) if axis is None else torch.sum(x, axis, keepdims),
    mean=lambda x, axis=None: torch.mean(x) if axis is None else torch.mean(x, axis),
    prod=torch.prod, cumsum=torch.cumsum, amax=torch.amax, amin=torch.amin, where=torch.where, maximum=torch.maximum,
    minimum=torch.minimum, stack=torch.stack, cat=torch.cat, einsum=torch.einsum, outer=torch.outer, exp=torch.exp,
    log=torch.log, tanh=torch.tanh, sqrt=torch.sqrt, sin=torch.sin, atan2=torch.atan2, clip=torch.clip, roll=torch.roll,
    flip=lambda x, axis: torch.flip(x, (axis,)), tensordot=lambda x, y, n: torch.tensordot(x, y, n), kron=torch.kron,
    logaddexp=torch.logaddexp, diff=torch.diff, square=torch.square, solve=torch.linalg.solve, inv=torch.linalg.inv,
    det=torch.linalg.det, logdet=lambda a: torch.linalg.slogdet(a)[1], cholesky=torch.linalg.cholesky,
    matrix_power=torch.linalg.matrix_power, norm=lambda x, axis=None: torch.linalg.norm(x, dim=axis), cov=torch.cov,
    median=torch.median, eye=lambda n: torch.eye(n, dtype=torch.float64), diag=torch.diag, triu=torch.triu,
    var=lambda x, axis: torch.var(x, axis), gather=lambda x, places: torch.gather(x, 1, places), tile=torch.tile,
    trace=torch.trace, moveaxis=torch.moveaxis, sort=lambda x: torch.sort(x, dim=-1)[0],
    pad=lambda x: torch.nn.functional.pad(x, (1, 2)), places=torch.tensor,
)  # fmt: skip

PROGRAMS: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "sum_axis": lambda m, A, S, v: m.sum(A, axis=0) * v,
    "sum_keepdims": lambda m, A, S, v: A / m.sum(m.exp(A), axis=1, keepdims=True),
    "mean": lambda m, A, S, v: m.mean(A, axis=1) * m.mean(A),
    "prod": lambda m, A, S, v: m.prod(A, 0),
    "prod_with_zero": lambda m, A, S, v: m.prod(A * m.where(v > 0.6, 1.0, 0.0), 1),
    "cumsum": lambda m, A, S, v: m.cumsum(A, 1) * A,
    "max_min": lambda m, A, S, v: m.amax(A, 1) - m.amin(A, 1),
    "var": lambda m, A, S, v: m.var(A, 1),
    "softmax": lambda m, A, S, v: m.exp(A) / m.sum(m.exp(A), axis=1, keepdims=True),
    "log_sum_exp": lambda m, A, S, v: m.log(m.sum(m.exp(A), axis=0)),
    "broadcast": lambda m, A, S, v: A * v + S[:, :1],
    "outer_difference": lambda m, A, S, v: m.square(v[:, None] - v[None, :]),
    "distances": lambda m, A, S, v: m.sqrt(m.sum(m.square(A[:, None, :] - A[None, :, :]), axis=2) + 0.1),
    "matmul": lambda m, A, S, v: S @ A,
    "matrix_vector": lambda m, A, S, v: m.tanh(A @ v),
    "batched_matmul": lambda m, A, S, v: A.reshape(2, 2, 3) @ A.reshape(2, 3, 2),
    "broadcast_matmul": lambda m, A, S, v: A.reshape(2, 2, 3) @ S,
    "einsum": lambda m, A, S, v: m.einsum("ij,kj->ik", A, A),
    "einsum_trace": lambda m, A, S, v: m.einsum("ij,ji->", S, S),
    "einsum_three": lambda m, A, S, v: m.einsum("ij,j,ik->k", A, v, S),
    "einsum_ellipsis": lambda m, A, S, v: m.einsum("...ij,jk->...ik", A.reshape(2, 2, 3), S),
    "einsum_sum": lambda m, A, S, v: m.einsum("ij->j", A) * v,
    "tensordot": lambda m, A, S, v: m.tensordot(A.T, S, 1),
    "kron": lambda m, A, S, v: m.kron(S, S),
    "where": lambda m, A, S, v: m.where(A > v, m.sin(A), A * v),
    "maximum": lambda m, A, S, v: m.maximum(A, v) * m.minimum(A, v),
    "clip": lambda m, A, S, v: m.clip(A, 0.4, 0.9) * A,
    "atan2": lambda m, A, S, v: m.atan2(A, v),
    "logaddexp": lambda m, A, S, v: m.logaddexp(A, v + A * 0.0),
    "power": lambda m, A, S, v: A**3 + A**2.5 + 2.0**A,
    "remainder": lambda m, A, S, v: A % 0.3,
    "mask": lambda m, A, S, v: A[A > 0.6] * 2.0,
    "rows_by_index": lambda m, A, S, v: A[[2, 0, 2]],
    "pairs_by_index": lambda m, A, S, v: A[[0, 1, 2], [1, 1, 3]],
    "slices": lambda m, A, S, v: A[1:, ::2] * A[:-1, 1::2],
    "ellipsis": lambda m, A, S, v: A[..., -1] * A[0, ...][:3],
    "transpose": lambda m, A, S, v: A.T @ A,
    "reshape": lambda m, A, S, v: A.reshape(4, 3) @ S,
    "stack_cat": lambda m, A, S, v: m.cat([m.stack([v, v * 2.0]), A], 0),
    "roll_flip": lambda m, A, S, v: m.roll(A, 1, 0) * m.flip(A, 1),
    "pad": lambda m, A, S, v: m.pad(A),
    "diff": lambda m, A, S, v: m.diff(A, 1, 1) ** 2,
    "gather": lambda m, A, S, v: m.gather(A, m.places([[0], [3], [1]])),
    "tile": lambda m, A, S, v: m.tile(v, (3, 1)) * A,
    "sort": lambda m, A, S, v: m.sort(A) * v,
    "triu_diag": lambda m, A, S, v: m.triu(S) + m.diag(m.diag(S) ** 2),
    "moveaxis": lambda m, A, S, v: m.moveaxis(A.reshape(2, 2, 3), 0, 2) ** 2,
    "solve": lambda m, A, S, v: m.solve(S + 3.0 * m.eye(3), A),
    "inverse": lambda m, A, S, v: m.inv(S + 3.0 * m.eye(3)) @ A,
    "det": lambda m, A, S, v: m.det(S) * m.trace(S),
    "logdet": lambda m, A, S, v: m.logdet(S + 3.0 * m.eye(3)),
    "cholesky": lambda m, A, S, v: m.cholesky(S @ S.T + 3.0 * m.eye(3)),
    "matrix_power": lambda m, A, S, v: m.matrix_power(S, 5),
    "norms": lambda m, A, S, v: m.norm(A, axis=1) * m.norm(v),
    "covariance": lambda m, A, S, v: m.cov(A),
    "recurrent": lambda m, A, S, v: m.tanh(S @ m.tanh(S @ A[:, 0] + A[:, 1]) + A[:, 2]),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("seed", [0, 1])
def test_values_and_gradients(name: str, seed: int) -> None:
    draw = np.random.default_rng(seed)
    numbers = draw.uniform(0.2, 1.4, (3, 4)), draw.uniform(-1.0, 1.0, (3, 3)), draw.uniform(0.3, 1.2, 4)
    program = PROGRAMS[name]
    ours = [fs.to_tensor(x) for x in numbers]
    theirs = [torch.tensor(x, requires_grad=True) for x in numbers]
    y, z = program(OURS, *ours), program(THEIRS, *theirs)
    found = y.numpy() if isinstance(y, fs.TensorArray) else y.data
    np.testing.assert_allclose(found, z.detach().numpy(), rtol=1e-12, atol=1e-13)
    weights = draw.normal(size=tuple(z.shape))
    loss = (y * weights).sum() if isinstance(y, fs.TensorArray) else y * float(weights)
    loss.backward()
    (z * torch.tensor(weights)).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        wanted = np.zeros(a.shape) if b.grad is None else b.grad.numpy()
        np.testing.assert_allclose(a.grad, wanted, rtol=1e-11, atol=1e-12)
