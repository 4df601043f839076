"""What stands beside a Tensor or an array: numbers of every kind in comparisons and operators, NumPy on the left, and
what users write that means nothing here."""

from __future__ import annotations

import copy
import gc
import itertools
import math
import operator
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

import clock
import fastscalar as fs
from fastscalar import _core, reference
from fastscalar.engine import testing

INF, NAN = math.inf, math.nan
FLOATS = [0.0, -0.0, 0.1, 0.5, 1.0, -1.0, 2.0**53, -(2.0**53), 2.0**63, 1e308, -1e308, 5e-324, INF, -INF, NAN]
NUMBERS = [
    0, 1, -1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63, 2**63 - 1, 10**400, -(10**400), 10**308, True, False,
    Fraction(1, 10), Fraction(1, 2), Fraction(-1, 3), Fraction(10**400, 1), Fraction(1, 10**400),
    Fraction(2**54 + 1, 2),
    Decimal("0.5"), Decimal("0.1"), Decimal("1e400"), Decimal("-1e400"), Decimal.from_float(0.1), Decimal("Infinity"),
    1 + 0j, 0.5 + 0j, 0.5 + 1j, complex(NAN, 0.0), complex(1.0, NAN), *FLOATS,
]  # fmt: skip
ORDERS = [operator.lt, operator.le, operator.gt, operator.ge]


def outcome(f, *xs):
    try:
        return f(*xs)
    except TypeError:
        return TypeError


@pytest.mark.parametrize("module", [fs, reference])
def test_comparisons_are_those_of_floats(module):
    for x, y in itertools.product(FLOATS, NUMBERS):
        t = module.Tensor(x)
        for compare in (operator.eq, operator.ne, *ORDERS):
            if x != x and isinstance(y, Decimal):
                continue  # here False, of floats an error of the module decimal
            assert outcome(compare, t, y) == outcome(compare, x, y), (compare, x, y)
            assert outcome(compare, y, t) == outcome(compare, y, x), (compare, y, x)


@pytest.mark.parametrize("module", [fs, reference])
def test_numpys_numbers_are_compared_by_value(module):
    for x in (0.1, 0.5, 2.0**53, 3.0):
        t = module.Tensor(x)
        for y in (np.float32(0.1), np.float16(0.5), np.int64(2**53 + 1), np.uint64(2**53 + 1), np.int8(3),
                  np.float64(0.1), np.bool_(True)):  # fmt: skip
            exact = Fraction(int(y)) if isinstance(y, (np.integer, np.bool_)) else Fraction(float(y))
            for compare in (operator.eq, operator.ne, *ORDERS):
                assert bool(compare(t, y)) is compare(Fraction(x), exact), (compare, x, y)


def test_what_cannot_be_compared():
    t = fs.Tensor(1.0)
    for x in ("1.0", None, [1.0], object(), b"1"):
        assert (t == x, t != x) == (False, True)
        with pytest.raises(TypeError, match="Tensor"):
            t < x  # noqa: B015
    with pytest.raises(TypeError, match=r"Tensor' and 'complex'"):
        t < 1j  # noqa: B015


def test_exact_comparisons_in_a_program():
    f = fs.compile(lambda x: x * 2.0 if x < 2**53 + 1 else x * 3.0)
    values = np.array([1.0, 2.0**53, 2.0**53 + 2.0, INF])
    assert f.map(values).tolist() == [2.0, 2.0**54, 3.0 * (2.0**53 + 2.0), INF]
    g = fs.compile(lambda x: x * 2.0 if x == Fraction(1, 10) else x * 5.0)
    assert g.map(np.array([0.1, 0.2, 0.3])).tolist() == [0.5, 1.0, 1.5]
    h = fs.compile(lambda x: x + 1.0 if x < 10**400 else -x)
    assert h.map(np.array([1.0, 1e308, INF])).tolist() == [2.0, 1e308, -INF]


# --- NumPy on the left ----------------------------------------------------------------------------

SCALARS = [np.float64(1.5), np.float32(1.5), np.float16(1.5), np.int64(3), np.int8(3), np.uint8(3), np.bool_(True),
           np.longdouble(1.5)]  # fmt: skip
OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.mod, operator.floordiv]


@pytest.mark.parametrize("x", SCALARS, ids=lambda x: type(x).__name__)
def test_a_numpy_scalar_is_a_number(x):
    t, plain = fs.Tensor(2.0), float(x)
    for op in OPERATORS:
        for y, expected in ((op(x, t), op(plain, t)), (op(t, x), op(t, plain))):
            assert type(y) is fs.Tensor
            assert y.data == expected.data
            assert y._op == expected._op
            y.backward()
            slope = t.grad
            expected.backward()
            assert slope == t.grad
    a = fs.to_tensor([2.0, 4.0])
    for op in OPERATORS:
        assert type(op(x, a)) is fs.TensorArray
        assert op(x, a).tolist() == op(plain, a).tolist()
        assert op(a, x).tolist() == op(a, plain).tolist()


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_a_numpy_array_gives_an_array_of_tensors(shape):
    x, t = np.full(shape, 1.5), fs.Tensor(2.0)
    for op in OPERATORS:
        for y in (op(x, t), op(t, x)):
            if shape == ():
                assert y == op(1.5, 2.0) or y == op(2.0, 1.5)
                continue
            assert isinstance(y, np.ndarray)
            assert (y.dtype, y.shape) == (np.dtype(object), shape)
            assert all(type(e) is fs.Tensor for e in y.ravel())
    if shape:
        assert (x < t).all()
        assert (x == fs.Tensor(1.5)).tolist() == np.full(shape, True).tolist()
        objects = np.full(shape, fs.Tensor(1.0), dtype=object)
        objects *= t
        assert objects.ravel()[0].data == 2.0


def test_ufuncs_of_a_tensor():
    t = fs.Tensor(0.5)
    assert np.exp(t).data == math.exp(0.5)
    assert np.multiply(t, 3.0).data == 1.5
    assert np.maximum(t, fs.Tensor(2.0)).data == 2.0
    assert np.std(np.array([t, t * 2.0], dtype=object)).data == 0.25
    assert np.linalg.norm(np.array([t * 6.0, t * 8.0], dtype=object)).data == 5.0


def test_a_row_of_an_array_costs_what_a_list_costs():
    row, w = np.linspace(0.0, 1.0, 784), [fs.Tensor(0.5) for _ in range(784)]
    floats = row.tolist()

    def dot(values):
        return sum(x * t for x, t in zip(values, w, strict=True))

    dot(row).backward()
    assert [t.grad for t in w] == floats
    assert clock.ratio(lambda: dot(row), lambda: dot(floats), limit=10.0) < 10.0  # 46 times before; 3 to 4 now


# --- arrays: comparisons, sums, empty slices ------------------------------------------------------


def test_comparisons_of_arrays_are_numpys():
    a, b = fs.to_tensor([[1.0, 2.0], [3.0, NAN]]), fs.to_tensor([[1.0, 5.0], [0.0, NAN]])
    x, y = a.numpy(), b.numpy()
    for compare in (operator.eq, operator.ne, *ORDERS):
        for left, right, expected in [
            (a, b, compare(x, y)), (a, y, compare(x, y)), (x, b, compare(x, y)), (a, 2.0, compare(x, 2.0)),
            (2.0, a, compare(2.0, x)), (a, fs.Tensor(2.0), compare(x, 2.0)), (fs.Tensor(2.0), a, compare(2.0, x)),
            (a, b.data, compare(x, y)), (a.data, b, compare(x, y)), (a, y.tolist(), compare(x, y)),
            (a, np.float64(2.0), compare(x, 2.0)), (np.float64(2.0), a, compare(2.0, x)), (a, a, compare(x, x)),
        ]:  # fmt: skip
            found = compare(left, right)
            assert isinstance(found, np.ndarray), (compare, left, right)
            assert found.dtype == bool
            assert found.tolist() == expected.tolist()
    assert len({a, b, a}) == 2
    with pytest.raises(ValueError, match="ambiguous"):
        bool(a == b)
    assert (a[0] == a[0]).all()


def test_comparisons_of_arrays_in_a_program():
    f = fs.compile(lambda x: x.sum() if (x > 0.0).all() else -x.sum())
    rows = np.array([[1.0, 2.0], [1.0, -2.0], [3.0, 4.0]])
    assert f.map(rows).tolist() == [3.0, 1.0, 7.0]


def test_numpys_sum():
    a = fs.to_tensor([[1.0, 2.0], [3.0, 4.0]])
    y = np.sum(a)
    assert type(y) is fs.Tensor
    y.backward()
    assert (y.data, a.grad.tolist()) == (10.0, [[1.0, 1.0], [1.0, 1.0]])
    assert np.sum(a, where=a > 1.0).data == a.sum(where=a > 1.0).data == 9.0
    for call in (lambda: np.sum(a, dtype=np.float32), lambda: np.sum(a, out=np.empty(()))):
        with pytest.raises(TypeError, match=r"sum: takes no (dtype|out)="):
            call()


def test_empty_slices():
    a = fs.to_tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    for empty, shape in [(a[0:0], (0, 3)), (a[:, 5:], (2, 0)), (a[1:1, 1:1], (0, 0)), (a[0][3:], (0,)),
                         (a[2:], (0, 3)), (a[0][0:0][0:0], (0,))]:  # fmt: skip
        assert (type(empty), empty.shape, empty.size, len(empty)) == (fs.TensorArray, shape, 0, shape[0])
        assert empty.numpy().shape == empty.data.shape == empty.grad.shape == shape
        assert [x for row in empty for x in row] == [] if len(shape) > 1 else list(empty) == []
        assert (empty.sum().data, fs.sum(empty).data, np.sum(empty).data) == (0.0, 0.0, 0.0)
        assert (empty * 2.0).shape == (-empty).shape == empty.exp().shape == (empty + empty).shape == shape
        assert (empty == empty).shape == shape
        empty.data = 7.0
        fs.sgd([empty], 0.1)
        assert "shape" in repr(empty) or repr(empty)
        for call in (lambda e=empty: fs.mean(e), lambda e=empty: fs.logsumexp(e), lambda e=empty: fs.Linear(3, 2)(e)):
            with pytest.raises(ValueError, match=r"at least one element|is empty"):
                call()
    assert a.tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    with pytest.raises(ValueError, match="do not go together"):
        a[0:0] + fs.to_tensor([1.0, 2.0])
    head, tail = a[0][:1], a[0][1:]
    while tail.shape[0]:  # the way functional programs go through a list
        head, tail = tail[:1], tail[1:]
    assert head.tolist() == [3.0]


# --- what means nothing here ----------------------------------------------------------------------


@pytest.mark.parametrize("x", [lambda: fs.Tensor(1.0), lambda: fs.to_tensor([1.0, 2.0])])
def test_requires_grad(x):
    t = x()
    assert t.requires_grad
    t.requires_grad = True
    with pytest.raises(AttributeError, match=r"detach\(\).*no_grad\(\)"):
        t.requires_grad = False
    assert t.requires_grad


def nested(kind):
    w = fs.Tensor(1.0)
    if kind == "list":
        a = [w]
        a.append(a)
    elif kind == "deep":
        a = [w]
        a.append([[{"a": a}]])
    elif kind == "dict":
        a = {"w": w}
        a["self"] = a
    else:
        a = [w]
        b = [a]
        a.append(b)
    return a


@pytest.mark.parametrize("kind", ["list", "deep", "dict", "two"])
def test_what_contains_itself(kind):
    """In a process of its own: it used to hang, deaf to Ctrl-C."""
    a = nested(kind)
    for call in (
        lambda: fs.sgd(a, 0.1), lambda: fs.SGD(a, 0.1), lambda: fs.Adam(a),
        lambda: fs.grad(lambda x: fs.Tensor(1.0))(a),
        lambda: reference.sgd(a, 0.1) if kind == "list" else fs.sgd(a, 0.1), lambda: fs.jvp(lambda x: x, (a,), (a,)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="contains itself"):
            call()
    w = a["w"] if kind == "dict" else a[0]
    assert w.data == 1.0
    if kind == "list":
        for call in (lambda: fs.to_tensor(a), lambda: fs.sum(a), lambda: fs.dot(a, a), lambda: fs.Linear(2, 2)(a)):
            with pytest.raises((ValueError, TypeError)):
                call()


def test_a_list_twice_is_no_recursion():
    w = fs.Tensor(1.0)
    shared = [w]
    w.grad = 1.0
    fs.sgd([shared, shared, {"a": shared}], 0.25)
    assert w.data == 0.75


def test_a_list_that_contains_itself_does_not_hang():
    code = "import fastscalar as fs; a = [fs.Tensor(1.0)]; a.append(a); fs.sgd(a, .1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert "ValueError: parameters: a list that contains itself" in done.stderr


def test_a_tensor_that_was_never_initialised():
    gc.collect()
    testing.collect()
    pinned = _core.tape_info()["pinned"]
    for _ in range(3):
        t = fs.Tensor.__new__(fs.Tensor)
        for call in (
            lambda t=t: fs.Tensor(1.0, (t,)), lambda t=t: setattr(t, "mine", 1), lambda t=t: setattr(t, "label", "x"),
            lambda t=t: fs.sgd([t], 0.1), lambda t=t: t * 2.0, lambda t=t: setattr(t, "data", 1.0),
            lambda t=t: setattr(t, "grad", 1.0), lambda t=t: t.backward(), lambda t=t: t.exp(),
            lambda t=t: fs.sum([t, t]), lambda t=t: t.detach(), lambda t=t: fs.SGD([t], 0.1).step(),
            lambda t=t: copy.deepcopy(t),
        ):  # fmt: skip
            with pytest.raises(ValueError, match="never initialised"):
                call()
        assert t._parents == ()
        testing.check()
        del t
    gc.collect()
    testing.collect()
    assert _core.tape_info()["pinned"] == pinned
    t = fs.Tensor.__new__(fs.Tensor)
    t.__init__(3.0)  # later is early enough
    t.label = "late"
    assert (t.data, t.label) == (3.0, "late")


class Foreign:
    """An array of a library that knows nothing of Tensors: its operators refuse them, as PyTorch's do."""

    def __init__(self, values):
        self.values = np.asarray(values)
        self.ndim = self.values.ndim

    def __array__(self, dtype=None, copy=None):
        return self.values

    def __len__(self):
        return len(self.values)

    def __iter__(self):
        return map(Foreign, self.values)


ARITHMETIC = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.mod,
              operator.floordiv, divmod]  # fmt: skip


def of_torch(values):
    torch = pytest.importorskip("torch")
    return torch.tensor(np.asarray(values))


@pytest.mark.parametrize("foreign", [Foreign, np.asarray, of_torch])
def test_arrays_of_other_libraries_beside_tensors(foreign):
    def same(found, wanted):
        np.testing.assert_allclose(np.asarray(found, dtype=float), wanted, rtol=1e-15)

    number, several = foreign(2.5), foreign([2.5, 0.5])
    for t, plain in ((fs.Tensor(1.5), 1.5), (fs.to_tensor([1.5, -2.5]), np.array([1.5, -2.5]))):
        for f in (*ARITHMETIC, operator.eq, operator.ne, *ORDERS):
            if f is operator.pow:
                plain, t = abs(plain), abs(t)
            for other, values in ((number, 2.5), (several, np.array([2.5, 0.5]))):
                for found, wanted in ((f(t, other), f(plain, values)), (f(other, t), f(values, plain))):
                    for r, w in zip(*(x if f is divmod else (x,) for x in (found, wanted)), strict=True):
                        same(r.numpy() if isinstance(r, fs.TensorArray) else r, w)
    (number * t[0]).backward()
    assert t[0].grad == 2.5
    same(np.hypot(fs.Tensor(1.5), number), math.hypot(1.5, 2.5))
    same(fs.sum(several), 3.0)


@pytest.mark.parametrize("foreign", [Foreign, np.asarray, of_torch])
def test_arrays_without_dimensions_are_numbers(foreign):
    t, a = fs.Tensor(1.5), fs.to_tensor([1.0, 2.0])
    for dtype in ("float32", "float16", "int64", "uint8", "bool"):
        one = foreign(np.ones((), dtype))
        t.data = one
        a.data[0] = one
        t.grad = one
        assert (t.data, t.grad, a[0].data, fs.Tensor(one).data) == (1.0,) * 4
        assert t.hypot(one).data == math.hypot(1.0, 1.0)
        assert fs.clip(fs.Tensor(3.0), 0.0, one).data == 1.0
    assert fs.cross_entropy(a, foreign(1)).data == fs.cross_entropy(a, 1).data
    for bad in (foreign(np.array(1j)), foreign(np.ones(1))):
        with pytest.raises(TypeError, match="expected a real number"):
            t.data = bad
    with pytest.raises(TypeError):
        t * foreign(np.array(1j))
