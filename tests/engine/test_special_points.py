"""Every function at 22 special points, in every mode, against Python's `math`, the twin, or a rule that is stated here.

Modes: Tensors one by one, in every mixture with plain numbers; arrays; compiled programs; the twin.  Zeros have signs.
"""

from __future__ import annotations

import itertools
import math
import operator
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import Tensor, _core, reference
from fastscalar.engine import testing
from operations import BY_SERIES, ROWS

INF, NAN, LARGEST = math.inf, math.nan, sys.float_info.max
POINTS = [
    0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -171.5, 1e17, INF, -INF, NAN, 5e-324, -1e-310, sys.float_info.min,
    LARGEST, -LARGEST, 0.1, 709.9, -745.5,
]  # fmt: skip
PAIRS = list(itertools.product(POINTS, POINTS))

# Python has code of its own for these, so the last bits can differ: at most so many units in the last place.
LAST_BITS = {"lgamma": 8, "gamma": 8, "hypot": 1, "dist": 2}
WHOLE_NUMBERS = ["comb", "factorial", "gcd", "isqrt", "lcm", "perm"]  # of ints alone
SEQUENCES = ["dist", "fsum", "prod", "sumprod"]  # and fma, of three numbers: they have tests of their own
ONE = [name for name, f in vars(math).items() if callable(f) and name[0] != "_" and name not in (*SEQUENCES, "fma")]


def outcome(f: Callable[..., Any], *operands: Any) -> Any:
    """The value as plain numbers, or the type of the exception."""
    try:
        return plain(f(*operands))
    except Exception as error:
        return type(error)


def plain(x: Any) -> Any:
    if isinstance(x, (Tensor, reference.Tensor)):
        return x.data
    return tuple(map(plain, x)) if isinstance(x, (tuple, list)) else x


def same(a: Any, b: Any, ulps: int = 0) -> bool:
    if isinstance(a, type) or isinstance(b, type):
        return a is b
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(same(x, y, ulps) for x, y in zip(a, b, strict=True))
    a, b = float(a), float(b)
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    if a == b:
        return math.copysign(1.0, a) == math.copysign(1.0, b)
    return math.isfinite(a) and math.isfinite(b) and abs(a - b) <= ulps * math.ulp(b)


def mixtures(*operands: float) -> list[list[Any]]:
    """All ways to have a Tensor among the operands."""
    choices = itertools.product((True, False), repeat=len(operands))
    return [
        [Tensor(x) if c else x for x, c in zip(operands, chosen, strict=True)] for chosen in choices if any(chosen)
    ]


def operands_of(name: str) -> list[tuple[float, ...]]:
    """What Python's function takes: one number or two of the points."""
    f = getattr(math, name)
    candidates = [*[(x,) for x in POINTS], *PAIRS]
    return [c for c in candidates if name in WHOLE_NUMBERS or outcome(f, *c) is not TypeError]


# --- the drop-in ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ONE)
def test_math_of_tensors_is_that_of_python(name: str) -> None:
    """Value and type of exception.  `floor`, `ceil` and `trunc` give floats: where Python has 0, a zero with a sign."""
    plain_function, ours = getattr(math, name), getattr(fs.math, name)
    cases = [c for c in operands_of(name) if name != "ldexp"]
    assert cases or name == "ldexp"
    for case in cases:
        expected = outcome(plain_function, *case)
        assert same(outcome(ours, *case), expected), (name, case)
        for operands in mixtures(*case):
            found = outcome(ours, *operands)
            if name in ("floor", "ceil", "trunc") and found == 0.0:
                found = abs(found)
            assert same(found, expected, LAST_BITS.get(name, 0)), (name, operands, found, expected)


@pytest.mark.parametrize("name", [n for n in ONE if n not in (*WHOLE_NUMBERS, "isnan", "isinf", "isfinite", "isclose")])
def test_math_of_tensors_records(name: str) -> None:
    """What comes out is a Tensor that depends on the operand, or one that is constant by nature."""
    for case in [(0.75,), (0.75, 0.5), (1.25,), (1.25, 2)]:
        if outcome(getattr(math, name), *case) not in (TypeError, ValueError):
            x = Tensor(case[0])
            value = getattr(fs.math, name)(x, *case[1:])
            value = value[0] if isinstance(value, tuple) else value
            assert isinstance(value, Tensor), name
            value.backward()
            assert x.grad != 0.0 or name in ("floor", "ceil", "trunc", "ulp"), name


def ints() -> list[int]:
    return [0, 1, -1, 10, -60, 1023, 1024, -1022, -1023, -1074, -1075, 2098, -2098, -2099, 5000, -5000, 10**400]


def test_ldexp_and_frexp() -> None:
    for x in POINTS:
        for i in ints():
            assert same(outcome(fs.math.ldexp, Tensor(x), i), outcome(math.ldexp, x, i)), (x, i)
        mantissa, exponent = fs.math.frexp(Tensor(x))
        assert same((mantissa.data, exponent), math.frexp(x)), x
        assert type(exponent) is int
    for i in range(-1080, 1030):  # every exponent, and what is just below it
        for x in (math.ldexp(1.0, i), math.nextafter(math.ldexp(1.0, i), 0.0)) if i <= 1023 else ():
            assert same(fs.math.frexp(Tensor(x)), math.frexp(x)), x
    with pytest.raises(TypeError, match="int"):
        fs.math.ldexp(Tensor(1.0), 2.0)
    w = Tensor(6.0)
    (fs.math.frexp(w)[0] * w).backward()  # 6 / 8 * w at 6, with its mantissa moving
    assert w.grad == 6.0 / 8.0 + 6.0 / 8.0


def test_ulp_and_nextafter_beside_powers_of_two() -> None:
    for i in (-1074, -1073, -1023, -1022, -1021, -53, 0, 1, 53, 1023):
        for sign in (1.0, -1.0):
            x = sign * math.ldexp(1.0, i)
            for near in (x, math.nextafter(x, INF), math.nextafter(x, -INF)):
                assert same(fs.math.ulp(Tensor(near)).data, math.ulp(near))
                for to in (INF, -INF, 0.0, near):
                    y = fs.math.nextafter(Tensor(near), to)
                    assert same(y.data, math.nextafter(near, to)), (near, to)
    x = Tensor(1.0)
    fs.math.nextafter(x, 2.0).backward()
    assert x.grad == 1.0
    two = fs.math.nextafter(Tensor(1.0), 2.0, steps=2)
    assert two.data == 1.0 + 2.0**-51
    with pytest.raises(ValueError, match="steps"):
        fs.math.nextafter(Tensor(1.0), 2.0, steps=-1)


def exactly_summed(p: Sequence[float], q: Sequence[float]) -> float:
    return float(sum(Fraction(a) * Fraction(b) for a, b in zip(p, q, strict=True)))


def test_sums_and_products_of_sequences() -> None:
    for case in [*PAIRS, (), (1.5,), (1.5, 2.5, -4.0), (INF, 1.0, NAN), (INF, NAN, -INF)]:
        tensors = [Tensor(x) for x in case]
        assert same(outcome(fs.math.prod, tensors), outcome(math.prod, case)), case
        expected = outcome(math.fsum, case)
        found = outcome(fs.math.fsum, tensors)
        assert same(found, expected, 1) or found == expected == 0.0, (case, found, expected)
    assert fs.math.prod([Tensor(2.0), 3.0], start=Tensor(5.0)).data == 30.0
    for p, q in itertools.product(PAIRS[:60], PAIRS[200:220]):
        assert same(outcome(fs.math.dist, [Tensor(p[0]), p[1]], q), outcome(math.dist, p, q), 2), (p, q)
    assert fs.math.sumprod([Tensor(2.0), 3.0], [4.0, 5.0]).data == 23.0
    assert fs.math.sumprod([0.1] * 10, [0.3] * 10) == exactly_summed([0.1] * 10, [0.3] * 10)
    assert (fs.math.sumprod([2, 3], [4, 5]), type(fs.math.sumprod([2, 3], [4, 5]))) == (23, int)
    for name in ("dist", "sumprod"):
        for one in (Tensor(1.0), 1.0):
            with pytest.raises(ValueError, match="same"):
                getattr(fs.math, name)([one, 2.0], [3.0])
    with pytest.raises(ZeroDivisionError):
        fs.math.log(Tensor(2.0), 1.0)


def test_fma() -> None:
    """Of plain numbers rounded once, on Pythons that have none too; of Tensors as x * y + z."""
    a = 1.0 + 2.0**-30
    assert fs.math.fma(a, a, -1.0) == float(Fraction(a) * Fraction(a) - 1)
    assert same(fs.math.fma(-0.0, 5.0, -0.0), -0.0)
    assert same(fs.math.fma(2.0, 3.0, -6.0), 0.0)
    assert fs.math.fma(1e308, 10.0, -INF) == -INF
    assert math.isnan(fs.math.fma(INF, 0.0, NAN))
    with pytest.raises(ValueError, match="invalid"):
        fs.math.fma(INF, 0.0, 1.0)
    with pytest.raises(OverflowError):
        fs.math.fma(1e308, 10.0, 1.0)
    x, y, z = Tensor(2.0), Tensor(3.0), Tensor(4.0)
    fs.math.fma(x, y, z).backward()
    assert (x.grad, y.grad, z.grad) == (3.0, 2.0, 1.0)


def test_isclose_is_that_of_python() -> None:
    for a, b in PAIRS:
        for tolerances in ({}, {"rel_tol": 0.5}, {"abs_tol": 1.0}, {"rel_tol": 0.0, "abs_tol": INF}):
            expected = math.isclose(a, b, **tolerances)
            for x, y in mixtures(a, b):
                assert fs.math.isclose(x, y, **tolerances) is expected, (a, b, tolerances)
    with pytest.raises(ValueError, match="non-negative"):
        fs.math.isclose(Tensor(1.0), 1.0, rel_tol=-1.0)


# --- arrays: what Python raises is inf or NaN here --------------------------------------------------


@pytest.mark.parametrize("name", [n for n in ONE if n in ROWS or n in ("fabs", "pow", "modf")])
def test_math_of_arrays(name: str) -> None:
    cases = operands_of(name)
    arity = len(cases[0])
    columns = [list(c) for c in zip(*[c for c in cases if len(c) == arity], strict=True)]
    values = getattr(fs.math, name)(*map(fs.to_tensor, columns))
    if isinstance(values, tuple):
        values = values[0]
    for *operands, value in zip(*columns, values.tolist(), strict=True):
        expected = outcome(getattr(math, name), *operands)
        if isinstance(expected, type):
            assert not math.isfinite(value), (name, operands, value)
        else:
            found = abs(value) if name in ("floor", "ceil", "trunc") and value == 0.0 else value
            expected = expected[0] if isinstance(expected, tuple) else expected
            assert same(found, expected, max(LAST_BITS.get(name, 0), BY_SERIES.get(name, 0))), (name, operands)
    if arity == 2:
        mixed = getattr(fs.math, name)(2.0, fs.to_tensor([1.5, 3.0])).tolist()
        for found, x in zip(mixed, (1.5, 3.0), strict=True):
            assert same(found, getattr(fs.math, name)(2.0, Tensor(x)).data, BY_SERIES.get(name, 0))


# --- the functions beside `math`: rules ----------------------------------------------------------------

LIMITS: dict[str, Callable[..., Any]] = {
    "relu": lambda x: x if x > 0.0 or x != x else 0.0,
    "sigmoid": lambda x: 1.0 / (1.0 + math.exp(-x)) if x > -700.0 or x != x else math.exp(x),
    "softplus": lambda x: x if x > 40.0 or x != x else math.log1p(math.exp(x)),
    "silu": lambda x: x if x > 40.0 or x != x else -0.0 if x < -1e3 else x * LIMITS["sigmoid"](x),
    "gelu": lambda x: x if x > 40.0 or x != x else -0.0 if x < -1e3 else x * LIMITS["ndtr"](x),
    "ndtr": lambda x: 0.5 * math.erfc(-x * math.sqrt(0.5)),
    "sign": lambda x: math.copysign(1.0, x) if x else x,
    "minimum": lambda x, y: x if x <= y or x != x else y,
    "maximum": lambda x, y: x if x >= y or x != x else y,
    "leaky_relu": lambda x, slope: x if x > 0.0 or x != x else slope * x,
    "elu": lambda x, alpha: x if x > 0.0 or x != x else alpha * math.expm1(x),
    "fabs": abs,
}


@pytest.mark.parametrize("name", LIMITS)
def test_functions_that_math_lacks_keep_their_limits(name: str) -> None:
    rule = LIMITS[name]
    for case in [(x,) for x in POINTS] if name not in ("minimum", "maximum", "leaky_relu", "elu") else PAIRS:
        expected = rule(*case)
        if name == "sign" and math.isnan(case[0]):
            expected = NAN
        f = getattr(fs, name, None) or getattr(fs.math, name)
        for operands in mixtures(*case):
            found = f(*operands).data
            assert same(found, expected, 4) or abs(found - expected) < 1e-300, (name, operands, found, expected)


OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.mod, operator.floordiv]


@pytest.mark.parametrize("f", [*OPERATORS, divmod], ids=lambda f: f.__name__)
def test_operators_are_those_of_floats(f: Callable[..., Any]) -> None:
    for case in PAIRS:
        expected = outcome(f, *case)
        if isinstance(expected, complex):
            expected = ValueError
        for operands in mixtures(*case):
            found = outcome(f, *operands)
            complex_overflow = f is operator.pow and expected is OverflowError and case[0] < 0.0
            assert same(found, expected) or (complex_overflow and found is ValueError), (f, operands, found, expected)


@pytest.mark.parametrize("f", [operator.neg, operator.pos, abs, round, int, float, bool, math.floor, math.ceil])
def test_unary_operators_are_those_of_floats(f: Callable[..., Any]) -> None:
    for x in POINTS:
        assert same(outcome(f, Tensor(x)), outcome(f, x)), x


# --- the twin --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in ROWS if n.isidentifier() and n != "neg"])
def test_engine_and_twin(name: str) -> None:
    """Value, exception and derivatives; the derivative by the exponent or the order of a polygamma aside."""
    ulps = LAST_BITS.get(name, 0)
    for case in [(x,) for x in POINTS] if ROWS[name][1] == 1 else PAIRS:
        results = []
        for module in (fs, reference):
            leaves = [module.Tensor(x) for x in case]
            try:
                value = getattr(leaves[0], name)(*leaves[1:])
            except (ValueError, OverflowError) as error:
                results.append(type(error))
                continue
            value.backward()
            results.append([value.data, *(leaf.grad for leaf in leaves)])
        assert same(*results, 2 * ulps), (name, case, results)


# --- programs --------------------------------------------------------------------------------------


def program_cases(name: str) -> tuple[Callable[..., Any], list[tuple[float, ...]]]:
    if name in LIMITS:
        f = getattr(fs, name, None) or getattr(fs.math, name)
        two = name in ("minimum", "maximum", "leaky_relu", "elu")
        return f, PAIRS if two else [(x,) for x in POINTS]
    f, cases = getattr(fs.math, name), operands_of(name)
    return f, [c for c in cases if len(c) == len(cases[0])]


IN_PROGRAMS = [
    *[n for n in ONE if n not in (*WHOLE_NUMBERS, "ldexp", "isnan", "isinf", "isfinite", "isclose", "nextafter")],
    *[n for n in LIMITS if n not in ONE],
]


@pytest.mark.parametrize("name", IN_PROGRAMS)
def test_programs(name: str) -> None:
    """Values and exceptions of rows are those of the plain call."""
    f, cases = program_cases(name)
    if len(cases) > 100:
        cases = cases[:: 5 if name != "pow" else 3]

    def first(*xs: Any) -> Any:
        value = f(*xs)
        return value[0] * 1.0 if isinstance(value, tuple) else value * 1.0

    program = fs.compile(first)
    good = []
    with np.errstate(all="ignore"):
        for case in cases:
            expected = outcome(first, *map(Tensor, case))
            found = outcome(program, *case)
            assert same(found, expected, 4), (name, case, found, expected)
            if not isinstance(expected, type):
                good.append((case, expected))
        columns = [np.array(c) for c in zip(*[c for c, _ in good], strict=True)]
        values = program.map(*columns)
    for (case, expected), value in zip(good, values, strict=True):
        assert same(value, expected, 4), (name, case, value, expected)


def test_looking_at_a_number_is_no_guard_on_its_value() -> None:
    """One recording for any finite rows; given to `where`, one for all rows."""
    x = np.linspace(-5.0, 5.0, 41)
    programs = {
        "gamma": fs.math.gamma,
        "remainder": lambda x: fs.math.remainder(x, 0.7),
        "isfinite": lambda x: x * 2.0 if fs.math.isfinite(x) else x * 0.0,
        "isnan": lambda x: x * 2.0 if not fs.math.isnan(x) else x * 0.0,
        "isinf": lambda x: x * 2.0 if not fs.math.isinf(x) else x * 0.0,
        "modf": lambda x: fs.math.modf(x)[0],
        "isclose": lambda x: x if fs.math.isclose(x, 100.0) else x * 3.0,
        "fsum": lambda x: fs.math.fsum([x, 1.0, x]),
        "ldexp": lambda x: fs.math.ldexp(x, 3),
    }
    for name, f in programs.items():
        rows = x + 0.03 if name == "gamma" else x
        program = fs.compile(f)
        values = program.map(rows)
        assert len(program.report().splitlines()) == 1, name
        assert values == pytest.approx([f(Tensor(v)).data for v in rows], rel=1e-14), name
    mixed = np.array([1.0, NAN, INF, -2.0])
    chosen = fs.compile(lambda x: fs.where(fs.math.isnan(x), 0.0, fs.where(fs.math.isinf(x), 9.0, x)))
    assert chosen.map(mixed).tolist() == [1.0, 0.0, 9.0, -2.0]
    assert len(chosen.report().splitlines()) == 1
    exponents = fs.compile(lambda x: fs.math.frexp(x)[0])  # one for each exponent
    assert exponents.map(np.array([3.0, 2.5, 3.9, 5.0, 7.0])).tolist() == [0.75, 0.625, 0.975, 0.625, 0.875]
    assert len(exponents.report().splitlines()) == 2


def test_math_does_not_read_values() -> None:
    source = Path(fs.math.__file__).read_text(encoding="utf-8")
    for reading in (".data", "float(x", ".item(", ".numpy("):
        assert reading not in source.partition('"""\n\nfrom __future__')[2], reading


def test_bits_are_those_of_python_but_for_the_functions_that_the_documentation_names() -> None:
    rng = np.random.default_rng(0)
    for name in ONE:
        if name in WHOLE_NUMBERS or name not in ROWS:
            continue
        code, arity = ROWS[name]
        columns = [rng.normal(size=2000) * 10.0 ** rng.uniform(-3, 3, 2000) for _ in range(arity)]
        for case in zip(*map(np.ndarray.tolist, columns), strict=True):
            expected = outcome(getattr(math, name), *case)
            if isinstance(expected, type):
                continue
            value = testing.value_and_partials(code, *case)[0]
            if name in ("lgamma", "gamma"):
                assert abs(value - expected) <= 2e-15 * max(1.0, abs(expected)), (name, case)
            else:
                assert value == expected, (name, case)
    pairs = rng.normal(size=(1000 if _core.tape_info()["stress"] else 20_000, 2))
    for x, y in pairs.tolist():  # gradients too: of hypot and atan2
        leaves, twins = [Tensor(x), Tensor(y)], [reference.Tensor(x), reference.Tensor(y)]
        for t in (leaves, twins):
            (t[0].hypot(t[1]) * t[0].atan2(t[1])).backward()
        assert [t.grad for t in leaves] == [t.grad for t in twins], (x, y)


def close(a: float, b: float) -> bool:
    return same(a, b) or a == b or math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-300)


@pytest.mark.dear
@pytest.mark.parametrize("name", [n for n in ROWS if n.isidentifier() and n != "neg"])
def test_derivatives_are_the_same_in_every_mode(name: str) -> None:
    """Eager; `create_graph`; forward; arrays; programs."""
    arity = ROWS[name][1]
    f = lambda *xs: getattr(xs[0], name)(*xs[1:])
    good, expected = [], []
    for case in [(x,) for x in POINTS] if arity == 1 else PAIRS:
        if not isinstance(outcome(f, *map(Tensor, case)), type):
            good.append(case)
            expected.append(gradients(f, case))
    units = [tuple(float(i == k) for i in range(arity)) for k in range(arity)]
    for case, slopes in zip(good, expected, strict=True):
        modes = {
            "create_graph": gradients(f, case, create_graph=True),
            "forward": [fs.jvp(f, case, unit)[1] for unit in units],
        }
        for mode, found in modes.items():
            assert all(map(close, found, slopes)), (name, mode, case, found, slopes)
    columns = [np.array(c) for c in zip(*good, strict=True)]
    arrays = [fs.to_tensor(c) for c in columns]
    f(*arrays).sum().backward()
    with np.errstate(all="ignore"):
        _, by_row = fs.compile(f).value_and_grad(*columns, argnums=tuple(range(arity)))
    for mode, found in (("array", [a.grad.tolist() for a in arrays]), ("program", by_row)):
        for k, slopes in enumerate(expected):
            assert all(map(close, [float(c[k]) for c in found], slopes)), (name, mode, good[k], slopes)


def gradients(f: Callable[..., Any], case: Sequence[float], create_graph: bool = False) -> list[float]:
    leaves = [Tensor(x) for x in case]
    f(*leaves).backward(create_graph=create_graph)
    return [float(leaf.grad) for leaf in leaves]


def test_functions_of_several_numbers_with_a_special_one_among_them() -> None:
    """Stated rules: a sum, a product, a mean are those of floats; NaN stays NaN wherever it counts; clip keeps NaN."""
    for x, y in PAIRS:
        t = [Tensor(x), Tensor(y)]
        assert same(fs.sum(t).data, 0.0 + x + y)
        assert same(fs.mean(t).data, (0.0 + x + y) / 2)
        assert same(fs.prod(t).data, x * y)
        assert same(fs.dot(t, [y, x]).data, 0.0 + x * y + y * x)
        assert same(fs.where(t[0] > t[1], t[0], t[1]).data, x if x > y else y)
        difference = x - y
        assert same(fs.squared_loss(t[0], y).data, 0.5 * difference * difference, 1)
        clipped = fs.clip(t[0], -1.0, 2.0).data
        assert math.isnan(clipped) if math.isnan(x) else clipped == min(max(x, -1.0), 2.0)
        loss = fs.cross_entropy(t, 0).data
        whole = fs.logsumexp(t).data
        assert same(loss, whole - x)
        assert math.isnan(whole) == (math.isnan(x) or math.isnan(y))
        assert math.isnan(whole) or whole >= max(x, y)
        shares = fs.softmax(t).tolist()
        assert all(map(math.isnan, shares)) if math.isnan(whole) else sum(shares) in (0.0, pytest.approx(1.0))
        assert all(same(a, v - whole) for a, v in zip(fs.log_softmax(t).tolist(), (x, y), strict=True))
