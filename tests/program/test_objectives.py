"""Objectives of benchmarks of automatic differentiation as one program each: values and derivatives against the
function itself, number by number.

GMM, BA, hand and LSTM after ADBench (Srajer, Kukelova, Fitzgibbon 2018), particle and saddle after gradbench.
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import math

EXAMPLES = Path(__file__).parents[2] / "examples"


def agree(found, expected, tolerance=1e-9):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_gmm():
    """The likelihood of each point; by the parameters that all share, the sum over the points."""
    d, k, n = 3, 4, 25
    random = np.random.default_rng(0)

    def likelihood(x, alphas, means, logs, lower):
        terms = []
        for j in range(k):
            z = [x[i] - means[j][i] for i in range(d)]
            q, at = [], 0
            for i in range(d):
                s = math.exp(logs[j][i]) * z[i]
                for m in range(i):
                    s = s + lower[j][at] * z[m]
                    at += 1
                q.append(s)
            terms.append(alphas[j] + fs.sum([logs[j][i] for i in range(d)]) - 0.5 * fs.sum([v * v for v in q]))
        return fs.logsumexp(terms) - fs.logsumexp([alphas[j] for j in range(k)])

    names = ("alphas", "means", "logs", "lower")
    p = [random.normal(size=s) for s in ((k,), (k, d), (k, d), (k, d * (d - 1) // 2))]
    x = random.normal(size=(n, d))
    program = fs.compile(likelihood, shared=names)
    values, gradients = program.value_and_grad(x, *p, argnums=names)
    leaves = [fs.to_tensor(a) for a in p]
    total = fs.sum([likelihood(row, *leaves) for row in x])
    total.backward()
    agree(values.sum(), total.data)
    for found, leaf in zip(gradients, leaves, strict=True):
        agree(found, np.array(leaf.grad))
    each = program.value_and_grad(x, *p, argnums="means", per_row=True)[1]
    agree(each.sum(0), gradients[1])
    hessian = program.hessian(x[:3], *p, argnums="alphas")
    agree(hessian[1], fs.hessian(lambda a: likelihood(x[1], a, *p[1:]))(p[0]))


def rotated(axis, v):
    """Rodrigues' formula, with its limit at an angle of zero."""
    squared = fs.sum([a * a for a in axis])
    angle = math.sqrt(squared)
    sine, cosine = math.sin(angle), math.cos(angle)
    w = [a / angle for a in axis]
    cross = [w[1] * v[2] - w[2] * v[1], w[2] * v[0] - w[0] * v[2], w[0] * v[1] - w[1] * v[0]]
    along = fs.sum([a * b for a, b in zip(w, v, strict=True)]) * (1.0 - cosine)
    return [v[i] * cosine + cross[i] * sine + w[i] * along for i in range(3)]


def reprojection(camera, point, weight, feature):
    """Residuals of one observation: 2 x 15 derivatives by camera, point and weight, and that of the weight's own."""
    x = rotated([camera[0], camera[1], camera[2]], [point[i] - camera[3 + i] for i in range(3)])
    u, v = x[0] / x[2], x[1] / x[2]
    r = u * u + v * v
    distortion = 1.0 + camera[9] * r + camera[10] * r * r
    projected = [u * distortion * camera[6] + camera[7], v * distortion * camera[6] + camera[8]]
    return (weight * (projected[0] - feature[0]), weight * (projected[1] - feature[1]), 1.0 - weight * weight)


def test_ba():
    random = np.random.default_rng(1)
    n = 30
    camera, point = random.normal(size=(n, 11)) * 0.3, random.normal(size=(n, 3)) + np.array([0.0, 0.0, 5.0])
    weight, feature = random.uniform(0.5, 1.0, n), random.normal(size=(n, 2))
    program = fs.compile(reprojection)
    values, at, columns, shape = program.jacobian(camera, point, weight, feature, argnums=(0, 1, 2), sparse=True)
    assert shape == (3, 15)
    assert len(at) == 29                         # of 31: neither image coordinate knows the other's centre
    dense = np.zeros((n, 3, 15))
    dense[:, at, columns] = values
    for k in (0, 7, n - 1):
        one = fs.jacobian(reprojection, (0, 1, 2))(camera[k], point[k], weight[k], feature[k])
        expected = np.array([np.concatenate([c, p, [w]]) for c, p, w in one])
        agree(dense[k], expected)
    cost = fs.compile(lambda *a: fs.sum([r * r for r in reprojection(*a)]))
    residuals = np.stack(program.map(camera, point, weight, feature), axis=1)
    gradient = cost.value_and_grad(camera, point, weight, feature, argnums=(0, 1))[1]
    agree(np.concatenate(gradient, axis=1), 2 * np.einsum("nij,ni->nj", dense[:, :, :14], residuals))


def test_hand():
    """A finger of three bones, whose tips are fitted to points: 26 numbers in ADBench, 6 here."""
    random = np.random.default_rng(2)
    bones = [0.5, 0.4, 0.3]

    def tips(theta, target):
        place, angle, turn = [0.0, 0.0, 0.0], theta[0], theta[1]
        out = []
        for k, length in enumerate(bones):
            angle = angle + theta[2 + k]
            step = rotated([0.3 * turn + 0.1, turn * 0.2, angle], [length, 0.0, 0.1])
            place = [a + b for a, b in zip(place, step, strict=True)]
            out.append([p - target[3 * k + i] for i, p in enumerate(place)])
        return np.array(out, dtype=object)

    theta, target = random.normal(size=(8, 5)), random.normal(size=(8, 9))
    program = fs.compile(tips)
    found = program.jacobian(theta, target)
    assert found.shape == (8, 3, 3, 5)
    for k in range(3):
        agree(found[k], fs.jacobian(tips)(theta[k], target[k]))
    dense = fs.compile(lambda t, g: fs.sum([r * r for r in tips(t, g).ravel()]))
    agree(dense.hessian(theta, target)[2], fs.hessian(lambda t: dense.function(t, target[2]))(theta[2]), 1e-8)


def test_lstm():
    """A sequence predicted letter by letter; the derivative by all weights, which all rows share."""
    width, length = 3, 5
    random = np.random.default_rng(3)

    def loss(sequence, p):
        hidden, cell = [0.0] * width, [0.0] * width
        total = 0.0
        for t in range(length - 1):
            x = [sequence[t][i] for i in range(width)]
            new_hidden, new_cell = [], []
            for i in range(width):
                gates = [p["x"][g][i] * x[i] + p["h"][g][i] * hidden[i] + p["b"][g][i] for g in range(4)]
                kept = cell[i] * fs.sigmoid(gates[0]) + fs.sigmoid(gates[1]) * math.tanh(gates[3])
                new_cell.append(kept)
                new_hidden.append(fs.sigmoid(gates[2]) * math.tanh(kept))
            hidden, cell = new_hidden, new_cell
            log = fs.logsumexp(hidden)
            total = total - fs.sum([sequence[t + 1][i] * (hidden[i] - log) for i in range(width)])
        return total / (length - 1)

    p = {name: random.normal(size=(4, width)) for name in ("x", "h", "b")}
    sequences = random.uniform(size=(12, length, width))
    program = fs.compile(loss, shared="p")
    values, gradient = program.value_and_grad(sequences, p, argnums="p")
    leaves = {name: fs.to_tensor(a) for name, a in p.items()}
    total = fs.sum([loss(fs.to_tensor(s), leaves) for s in sequences])
    total.backward()
    agree(values.sum(), total.data)
    for name in p:
        agree(gradient[name], np.array(leaves[name].grad))
    product = program.hvp(sequences[:2], p, tangents={name: np.ones((4, width)) for name in p}, argnums="p")
    one = fs.hvp(lambda q: loss(sequences[1], q), p, {name: np.ones((4, width)) for name in p})
    for name in p:
        agree(product[name][1], one[name], 1e-8)


def fall(w):
    """A charged particle that falls, until it hits the ground, the crossing interpolated: the square of where."""
    x, v, dt = [0.0, 8.0], [0.75, 0.0], 0.1
    while True:
        a = [0.0, -0.2]
        for charge in ([10.0, 10.0 - w], [10.0, 0.0]):
            d = [x[i] - charge[i] for i in range(2)]
            r = math.sqrt(d[0] * d[0] + d[1] * d[1])
            a = [a[i] - d[i] / (r * r * r) for i in range(2)]
        new = [x[i] + dt * v[i] for i in range(2)]
        if not new[1] > 0.0:
            share = x[1] / (x[1] - new[1])
            hit = x[0] + share * (new[0] - x[0])
            return hit * hit
        x, v = new, [v[i] + dt * a[i] for i in range(2)]


@pytest.mark.skipif(bool(os.environ.get("FASTSCALAR_STRESS")), reason="thousands of steps, in stress mode")
def test_particle():
    """Rows leave the loop at different times, so at several recordings; first and second derivatives of each."""
    w = np.linspace(0.0, 8.0, 9)
    program = fs.compile(lambda w: fall(w) if w < 100 else w)
    agree(program.map(w), [fall(fs.Tensor(v)).data for v in w])
    agree(program.jacobian(w), [fs.grad(fall)(v) for v in w])
    agree(program.hessian(w), [fs.hessian(fall)(v) for v in w], 1e-8)


def test_saddle():
    """min over x of max over y, both by steps along derivatives inside of the program."""

    def f(x, y):
        return x * x - y * y + x * y * 0.5

    def highest(x):
        y = 0.1 * x + 1.0
        for _ in range(6):
            y = y + 0.3 * fs.grad(f, 1)(x, y)
        return f(x, y)

    def step(x):
        return x - 0.2 * fs.grad(highest)(x)

    x = np.linspace(-2.0, 2.0, 7)
    program = fs.compile(step)
    agree(program.map(x), [step(fs.Tensor(v)).data for v in x])
    agree(program.jacobian(x), [fs.grad(step)(v) for v in x])


@pytest.mark.dear
def test_heston_by_scipy():
    """The example's pricer, calibrated by least squares with its Jacobian per option."""
    optimize = pytest.importorskip("scipy.optimize")
    example = runpy.run_path(str(EXAMPLES / "calibrate_heston.py"))
    strikes, maturities, prices = example["market"]()
    price, truth = example["call_price"], example["TRUTH"]
    names = list(truth)

    def named(v):
        return dict(zip(names, v.tolist(), strict=True))

    def residuals(v):
        return price.map(strikes, maturities, named(v)) - prices

    def jacobian(v):
        found = price.jacobian(strikes, maturities, named(v), argnums="p")
        return np.stack([found[name] for name in names], axis=1)

    start = np.array([0.08, 1.2, 0.08, 0.6, -0.4])
    h = 1e-6
    by_differences = np.stack([(residuals(start + h * e) - residuals(start - h * e)) / (2 * h) for e in np.eye(5)], 1)
    agree(jacobian(start), by_differences, 1e-5)
    bounds = ([1e-3, 1e-2, 1e-3, 1e-2, -0.99], [1.0, 10.0, 1.0, 2.0, 0.99])
    found = optimize.least_squares(residuals, start, jac=jacobian, bounds=bounds, xtol=1e-14, ftol=1e-14, gtol=1e-14)
    agree(found.x, [truth[name] for name in names], 1e-4)
