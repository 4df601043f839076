"""What users write with NumPy, as functions of a matrix A (3, 4), a square S (3, 3) and a vector v (4,).

Each gives a number, an array, or a tuple of these.  The values are those of NumPy itself, called with plain arrays;
`smooth` points keep away from kinks.
"""

from __future__ import annotations

import numpy as np

IDIOMS: dict[str, object] = {}


def idiom(f):
    IDIOMS[f.__name__] = f
    return f


def _simple(**lines):
    IDIOMS.update(lines)


_simple(
    # reductions
    sum_all=lambda A, S, v: A.sum(),
    sum_axis_0=lambda A, S, v: A.sum(axis=0),
    sum_axis_last=lambda A, S, v: A.sum(axis=-1),
    sum_two_axes=lambda A, S, v: A.sum(axis=(0, 1)),
    sum_keepdims=lambda A, S, v: A / A.sum(axis=1, keepdims=True),
    np_sum=lambda A, S, v: np.sum(A, axis=1),
    np_sum_of_part=lambda A, S, v: np.sum(A[1:] * A[:-1], axis=0),
    mean_all=lambda A, S, v: A.mean(),
    mean_axis=lambda A, S, v: np.mean(A, axis=0),
    centred=lambda A, S, v: A - A.mean(axis=0),
    variance=lambda A, S, v: A.var(axis=1),
    variance_ddof=lambda A, S, v: np.var(A, axis=0, ddof=1),
    deviation=lambda A, S, v: A.std(),
    standardised=lambda A, S, v: (A - A.mean(0)) / A.std(0),
    maximum_of_all=lambda A, S, v: A.max(),
    maximum_axis=lambda A, S, v: A.max(axis=1),
    minimum_axis=lambda A, S, v: np.min(A, axis=0),
    spread=lambda A, S, v: np.ptp(v),
    product=lambda A, S, v: v.prod(),
    product_axis=lambda A, S, v: np.prod(A, axis=0),
    running_sum=lambda A, S, v: v.cumsum(),
    running_sum_axis_0=lambda A, S, v: np.cumsum(A, axis=0),
    running_sum_axis_1=lambda A, S, v: A.cumsum(axis=1),
    running_product=lambda A, S, v: np.cumprod(v),
    weighted_mean=lambda A, S, v: np.average(v, weights=np.array([1.0, 2.0, 3.0, 4.0])),
    log_sum_exp=lambda A, S, v: np.log(np.sum(np.exp(A - A.max(axis=1, keepdims=True)), axis=1)) + A.max(axis=1),
    softmax_rows=lambda A, S, v: np.exp(A) / np.exp(A).sum(axis=-1, keepdims=True),
    largest_by_argmax=lambda A, S, v: v[v.argmax()],
    argmax_of_rows=lambda A, S, v: np.argmax(A, axis=1) * 1.0,
    medians=lambda A, S, v: np.median(A, axis=1),
    quantiles=lambda A, S, v: np.quantile(v, 0.3),
    percentiles=lambda A, S, v: np.percentile(A, 40.0, axis=0),
    differences=lambda A, S, v: np.diff(v),
    differences_axis=lambda A, S, v: np.diff(A, axis=0),
    trapezoids=lambda A, S, v: getattr(np, "trapezoid", None or np.sum)(v),
    count=lambda A, S, v: np.count_nonzero(A > 0.5) * v[0],
    any_and_all=lambda A, S, v: v.sum() if (A > -100.0).all() and (A > 0.5).any() else v.sum() * 0.0,
    # products
    matrix_vector=lambda A, S, v: A @ v,
    vector_matrix=lambda A, S, v: v @ A.T,
    vector_vector=lambda A, S, v: v @ v,
    matrix_matrix=lambda A, S, v: S @ A,
    transposed_product=lambda A, S, v: A.T @ A,
    gram=lambda A, S, v: A @ A.T,
    weights_of_numbers=lambda A, S, v: np.array([[1.0, -2.0, 0.0, 1.0], [0.5, 1.0, 1.0, 0.0]]) @ v,
    data_times_weights=lambda A, S, v: np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 1.0]]) @ A,
    dots=lambda A, S, v: np.dot(A, v) + np.dot(v, A.T),
    dot_method=lambda A, S, v: A.dot(v),
    quadratic_form=lambda A, S, v: v @ (A.T @ S @ A) @ v,
    outer_product=lambda A, S, v: np.outer(v, v),
    inner_product=lambda A, S, v: np.inner(A, A),
    einsum_product=lambda A, S, v: np.einsum("ij,jk->ik", S, A),
    einsum_trace=lambda A, S, v: np.einsum("ii->", S),
    einsum_diagonal=lambda A, S, v: np.einsum("ii->i", S),
    einsum_rows=lambda A, S, v: np.einsum("ij,ij->i", A, A),
    einsum_implicit=lambda A, S, v: np.einsum("ij,j", A, v),
    einsum_three=lambda A, S, v: np.einsum("i,ij,j->", A[:, 0], A, v),
    einsum_transpose=lambda A, S, v: np.einsum("ij->ji", A),
    contraction=lambda A, S, v: np.tensordot(A, A, axes=([0], [0])),
    batched=lambda A, S, v: np.stack([S, S * 2.0]) @ A,
    batched_broadcast=lambda A, S, v: S[None] @ np.stack([A, A + 1.0]),
    kronecker=lambda A, S, v: np.kron(S, S[:2, :2]),
    cross_product=lambda A, S, v: np.cross(S[0], S[1]),
    trace=lambda A, S, v: np.trace(S) + S.trace(),
    # linear algebra
    norm_of_vector=lambda A, S, v: np.linalg.norm(v),
    norm_of_rows=lambda A, S, v: np.linalg.norm(A, axis=1),
    norm_of_matrix=lambda A, S, v: np.linalg.norm(A),
    norm_one=lambda A, S, v: np.linalg.norm(v, 1),
    norm_largest=lambda A, S, v: np.linalg.norm(v, np.inf),
    norm_three=lambda A, S, v: np.linalg.norm(A, 3, axis=0),
    normalised=lambda A, S, v: A / np.linalg.norm(A, axis=1, keepdims=True),
    solved=lambda A, S, v: np.linalg.solve(S, A),
    solved_vector=lambda A, S, v: np.linalg.solve(S, A[:, 0]),
    inverted=lambda A, S, v: np.linalg.inv(S) @ A,
    determinant=lambda A, S, v: np.linalg.det(S),
    power_of_matrix=lambda A, S, v: np.linalg.matrix_power(S, 3),
    # shape
    transposed=lambda A, S, v: A.T * 2.0,
    reshaped=lambda A, S, v: A.reshape(2, -1) ** 2,
    reshaped_transposed=lambda A, S, v: A.T.reshape(-1),
    flattened=lambda A, S, v: A.ravel() + A.flatten(),
    new_axis=lambda A, S, v: v[:, None] - v[None, :],
    expanded=lambda A, S, v: np.expand_dims(v, 0) * A,
    squeezed=lambda A, S, v: np.squeeze(A[:1]),
    axes_moved=lambda A, S, v: np.moveaxis(A[None], 0, 2).swapaxes(0, 1),
    diagonal=lambda A, S, v: np.diag(S),
    diagonal_matrix=lambda A, S, v: np.diag(v),
    lower=lambda A, S, v: np.tril(S),
    stacked=lambda A, S, v: np.stack([v, v * 2.0], axis=1),
    stacked_rows=lambda A, S, v: np.vstack([A, v]),
    stacked_columns=lambda A, S, v: np.column_stack([A[:, 0], S]),
    with_a_bias=lambda A, S, v: np.hstack([A, np.ones((3, 1))]),
    concatenated=lambda A, S, v: np.concatenate([A, A[:1]], axis=0),
    with_numbers=lambda A, S, v: np.append(v, 1.0),
    repeated=lambda A, S, v: np.repeat(v, 2),
    tiled=lambda A, S, v: np.tile(v, (2, 1)),
    rolled=lambda A, S, v: np.roll(v, 1) - np.roll(v, -1),
    flipped=lambda A, S, v: np.flip(A, axis=1) + A[:, ::-1],
    padded=lambda A, S, v: np.pad(v, (1, 2)),
    split_in_two=lambda A, S, v: np.split(v, 2)[0] * np.split(v, 2)[1],
    broadcast=lambda A, S, v: np.broadcast_to(v, (3, 4)) * A,
    grid=lambda A, S, v: np.meshgrid(v, A[:, 0])[0] + np.meshgrid(v, A[:, 0])[1],
    sorted_elements=lambda A, S, v: np.sort(v) * np.arange(4.0),
    sorted_by_another=lambda A, S, v: A[:, np.argsort(v)],
    # elements
    broadcast_row=lambda A, S, v: A * v + 1.0,
    broadcast_column=lambda A, S, v: A - A[:, :1],
    numbers_on_the_left=lambda A, S, v: 2.0 / (1.0 + A**2) - np.arange(4.0) * v,
    array_on_the_left=lambda A, S, v: np.arange(12.0).reshape(3, 4) * A,
    exponentials=lambda A, S, v: np.exp(-A) + np.log1p(np.abs(A)) + np.sqrt(A**2 + 1.0),
    trigonometry=lambda A, S, v: np.sin(A) * np.cos(A) + np.arctan2(A, A + 2.0) + np.tanh(A),
    relu=lambda A, S, v: np.maximum(A, 0.0),
    relu_by_mask=lambda A, S, v: A * (A > 0.0),
    leaky=lambda A, S, v: np.where(A > 0.0, A, 0.1 * A),
    clipped=lambda A, S, v: np.clip(A, -0.5, 0.5) + A.clip(0.0, None),
    rounded=lambda A, S, v: np.round(A, 1) + A,
    signs=lambda A, S, v: np.sign(A) * A**2,
    degrees=lambda A, S, v: np.deg2rad(v) + np.rad2deg(v),
    log_add_exp=lambda A, S, v: np.logaddexp(v, v[::-1] * 0.5),
    interpolated=lambda A, S, v: np.interp(v, [-2.0, 0.1, 0.7, 3.0], [0.0, 1.0, -1.0, 4.0]),
    finite_only=lambda A, S, v: np.where(np.isfinite(A), A, 0.0),
    without_nan=lambda A, S, v: np.nan_to_num(A) + np.nansum(v),
    huber=lambda A, S, v: np.where(np.abs(A) < 0.5, 0.5 * A**2, 0.5 * (np.abs(A) - 0.25)),
    select_cases=lambda A, S, v: np.select([A < -0.5, A < 0.5], [A * 2.0, A**2], 1.0),
    polynomial=lambda A, S, v: np.polyval([1.0, -2.0, 0.5], v),
    # elements that are chosen
    every_second=lambda A, S, v: A[::2, 1::2],
    reversed_rows=lambda A, S, v: A[::-1] * np.arange(3.0)[:, None],
    ellipsis=lambda A, S, v: A[..., -1],
    nothing=lambda A, S, v: A[:, 2:2].sum() + v.sum(),
    by_list=lambda A, S, v: A[[0, 2, 0]],
    by_pairs=lambda A, S, v: A[np.arange(3), [1, 0, 3]],
    by_mask=lambda A, S, v: A[A > 0.0].sum(),
    by_mask_of_numbers=lambda A, S, v: v[np.array([True, False, True, True])],
    taken=lambda A, S, v: np.take(v, [3, 0]),
    iterated=lambda A, S, v: sum(row @ v for row in A),
    by_loops=lambda A, S, v: sum(A[i, j] * v[j] for i in range(3) for j in range(4)),
    built_up=lambda A, S, v: np.array([v[0] * v[1], v[2] + 1.0]).sum(),
)


@idiom
def assigned_in_a_copy(A, S, v):
    B = A.copy()
    B[0] = v
    B[:, 1] = 0.5
    B[2, 3] *= 3.0
    return B


@idiom
def added_in_place_in_a_copy(A, S, v):
    B = A.copy()
    B += v
    B[1:] -= 1.0
    row = B[0]
    row *= 2.0
    return B


@idiom
def masked_in_a_copy(A, S, v):
    B = A.copy()
    B[B < 0.0] = 0.0
    return B


@idiom
def filled_in_a_loop(A, S, v):
    out = np.zeros_like(v)
    for i in range(4):
        out[i] = v[i] * v[i - 1]
    return out


@idiom
def power_iteration(A, S, v):
    x = np.ones(3)
    M = S @ S.T
    for _ in range(3):
        x = M @ x
        x = x / np.linalg.norm(x)
    return x @ M @ x


@idiom
def distances(A, S, v):
    d = A[:, None, :] - A[None, :, :]
    return np.sqrt((d**2).sum(axis=-1) + 1.0)


@idiom
def two_layers(A, S, v):
    h = np.tanh(A @ v + S[0])
    return S @ h


@idiom
def attention(A, S, v):
    scores = A @ A.T / np.sqrt(4.0)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights = weights / weights.sum(axis=1, keepdims=True)
    return weights @ A


@idiom
def least_squares(A, S, v):
    X = np.hstack([np.ones((3, 1)), A[:, :1]])
    beta = np.linalg.solve(X.T @ X, X.T @ S[:, 0])
    return ((X @ beta - S[:, 0]) ** 2).sum()


@idiom
def gaussian(A, S, v):
    d = A[:, 0]
    M = S @ S.T + np.eye(3)
    return -0.5 * d @ np.linalg.solve(M, d) - 0.5 * np.log(np.linalg.det(M))


@idiom
def cholesky_by_hand(A, S, v):
    M, L = S @ S.T + 3.0 * np.eye(3), np.zeros_like(S)
    for i in range(3):
        for j in range(i + 1):
            rest = M[i, j] - sum(L[i, k] * L[j, k] for k in range(j))
            L[i, j] = np.sqrt(rest) if i == j else rest / L[j, j]
    return L


@idiom
def recurrent_net(A, S, v):
    states, h = [], np.zeros(3)
    for x in v:
        h = np.tanh(S @ h * 0.3 + x)
        states.append(h)
    return np.stack(states)


@idiom
def diffusion(A, S, v):
    y = np.zeros_like(v)
    y[:-1] += v[1:]
    y[1:] += v[:-1]
    return y - 2.0 * v


@idiom
def unpacked(A, S, v):
    (a, b), (c, d) = A[:2, :2]
    first, *rest = v
    return a * d - b * c + first * sum(rest)


_simple(
    slogdet=lambda A, S, v: np.linalg.slogdet(S),
    slogdet_of_a_stack=lambda A, S, v: np.linalg.slogdet(np.stack([S, 2.0 * S.T]))[1],
    cholesky=lambda A, S, v: np.linalg.cholesky(S @ S.T + np.eye(3)),
    solve_of_a_stack=lambda A, S, v: np.linalg.solve(np.stack([S, S + np.eye(3)]), A[None, :, :2]),
    solve_for_a_stack=lambda A, S, v: np.linalg.solve(S, np.stack([A, A + 1.0])),
    einsum_ellipsis=lambda A, S, v: np.einsum("...ij,...jk->...ik", A.reshape(2, 2, 3), A.reshape(1, 3, 4)),
    einsum_ellipsis_alone=lambda A, S, v: np.einsum("i...->...", A),
    einsum_implicit_ellipsis=lambda A, S, v: np.einsum("...j,j", A, v),
    largest_of_each_row=lambda A, S, v: np.take_along_axis(A, np.argmax(A, axis=1)[:, None], axis=1),
    taken_at_smallest=lambda A, S, v: np.take(v, np.argmin(A, axis=1)),
    picked_by_argmax=lambda A, S, v: A[np.arange(3), A.argmax(axis=1)],
    convolution=lambda A, S, v: np.convolve(v, A[0, :3]),
    convolution_same=lambda A, S, v: np.convolve(v, [1.0, 2.0], "same"),
    convolution_valid=lambda A, S, v: np.convolve([1.0, 2.0, 0.5], v, "valid"),
    correlation=lambda A, S, v: np.correlate(v, v[:3]),
    correlation_full=lambda A, S, v: np.correlate(v[:2], v, "full"),
    central_differences=lambda A, S, v: np.gradient(v, 0.5),
    central_differences_of_both_axes=lambda A, S, v: tuple(np.gradient(A)),
    covariances=lambda A, S, v: np.cov(A),
    covariance_of_columns=lambda A, S, v: np.cov(A, rowvar=False, bias=True),
    variance_by_cov=lambda A, S, v: np.cov(v),
    correlations=lambda A, S, v: np.corrcoef(A[:, :3]),
    sinc=lambda A, S, v: np.sinc(v),
    piecewise=lambda A, S, v: np.piecewise(v, [v < 0.0, v >= 0.9], [lambda t: 2.0 * t, lambda t: t * t, 7.0]),
    cumulative_sum=lambda A, S, v: getattr(np, "cumulative_sum", np.cumsum)(v),
    pairwise_distances=lambda A, S, v: np.sqrt(((A[:, None, :] - A[None, :, :]) ** 2).sum(-1) + 1e-3),
    moving_mean=lambda A, S, v: np.convolve(v, np.ones(2) / 2.0, "valid"),
    rows_and_columns=lambda A, S, v: A[np.ix_([0, 2], [1, 3])],
)
_simple(
    sum_of_some=lambda A, S, v: np.sum(A, axis=1, where=np.array([True, False, True, True]), initial=2.0),
    extremes_of_some=lambda A, S, v: A.max(axis=0, where=A < 1.0, initial=-9.0) - np.min(A, initial=0.3),
    deviation_of_some=lambda A, S, v: A.std(0, where=np.arange(3)[:, None] < 2) + A.mean(where=np.eye(3, 4) < 1),
    product_of_some=lambda A, S, v: np.prod(v, where=[True, False, True, True], initial=0.5, keepdims=True),
    spread_without_nan=lambda A, S, v: np.nanstd(A, axis=1, ddof=1) + np.nanvar(v) + v[np.nanargmin(v)],
    running_without_nan=lambda A, S, v: np.nancumsum(v) * np.nancumprod(v),
    differences_of_more=lambda A, S, v: np.diff(A, axis=1, prepend=0.0, append=A[:, :1]),
    differences_of_all=lambda A, S, v: np.ediff1d(A, to_begin=v[0], to_end=[1.0, 2.0]),
    several_quantiles=lambda A, S, v: np.quantile(A, [0.25, 0.6], axis=1),
    differences_at_places=lambda A, S, v: np.gradient(v, [0.0, 1.0, 3.0, 4.0]),
    elements_in_order=lambda A, S, v: A.flat[5] * v + A.flat[[0, 7, 8, 2]] + sum(A.flat),
    windows=lambda A, S, v: np.lib.stride_tricks.sliding_window_view(v, 2).max(axis=1),
    angles=lambda A, S, v: np.angle(A) * A,
    weighted_rows=lambda A, S, v: np.average(A, axis=0, weights=[0.2, 0.3, 0.5]),
    by_signs=lambda A, S, v: np.heaviside(v, 0.5) * v + np.fmax(v, 0.1) - np.fmin(A[0], v) + np.copysign(v, A[1]),
    general_powers=lambda A, S, v: (np.abs(A) + 0.1) ** v + np.float_power(np.abs(v) + 0.1, 1.7) + np.hypot(A, v),
    outer_differences=lambda A, S, v: np.subtract.outer(A[:, 0], v) ** 2 + np.maximum.reduce(A, axis=0),
)


@idiom
def put_in_place(A, S, v):
    w, M, B = v.copy(), S.copy(), A.copy()
    np.put(w, [0, -2], [v[1], 2.0])
    np.fill_diagonal(M, v[:3])
    np.copyto(B, v, where=np.array([True, False, False, True]))
    np.put_along_axis(B, np.array([[1], [2], [1]]), 0.5, axis=1)
    np.place(B, A > 1.0, [v[0], 7.0])
    B.flat[2] = v[3] * 3.0
    return w, M, B


@idiom
def added_at_places(A, S, v):
    w, B = v.copy(), A.copy()
    np.add.at(w, [0, 0, 3], v[:3])
    np.multiply.at(B, ([0, 1, 0], [1, 1, 1]), 2.0)
    return w, B


if hasattr(np, "matvec"):
    _simple(
        vecdot=lambda A, S, v: np.vecdot(A, v),
        matvec=lambda A, S, v: np.matvec(A.reshape(2, 2, 3), A[:2, :3]),
        vecmat=lambda A, S, v: np.vecmat(v[:3], A),
    )


def points(seed):
    """Arguments without ties and away from kinks."""
    r = np.random.default_rng(seed)
    A = r.permutation(np.linspace(-1.4, 1.7, 12)).reshape(3, 4) + 0.013
    S = r.normal(size=(3, 3)) * 0.3 + np.diag([2.0, -1.5, 1.8])
    v = r.permutation(np.array([-0.83, 0.31, 0.64, 1.27]))
    return A, S, v


def scalar(result):
    """One number of a result, in which every element counts otherwise; NaN and shape are seen too."""
    if isinstance(result, tuple):
        return sum(scalar(r) for r in result)
    shape = getattr(result, "shape", ())
    if shape == ():
        return result * 1.0
    weights = np.cos(np.arange(float(np.prod(shape)))).reshape(shape)
    return (result * weights).sum()


def number(f):
    """An idiom as a function to a number."""

    def g(A, S, v):
        return scalar(f(A, S, v))

    return g
