"""What is a plain number in the plain call is a Tensor, or stands for one of the row, in a recording: what a function
does and raises does not show it."""

import copy
import functools
import itertools
import json
import math as pymath
import operator
import pickle
import threading
import warnings

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import math
from fastscalar.program import identities, rolling

K = np.array([3, 0, -1])


def plainly(f, rows, *columns):
    """The values of rows, or the message of the first that raises, as a program words it."""
    found = []
    for i in range(rows):
        row = [int(c[i]) if c.dtype.kind == "i" else fs.Tensor(c[i]) for c in columns]
        try:
            found.append(float(f(*row)))
        except Exception as error:
            return type(error), f"row {i}: {error}" if type(error).__module__ == "builtins" else str(error)
    return found


def compiled(f, *columns):
    try:
        return fs.compile(f).map(*columns).tolist()
    except Exception as error:
        notes = getattr(error, "__notes__", ())
        return type(error), f"{notes[-1]}: {error}" if notes else str(error)


OPERATIONS = {
    "/": lambda k: 1 / k,
    "float /": lambda k: 2.0 / k,
    "//": lambda k: 7 // k,
    "float //": lambda k: 7.0 // k,
    "%": lambda k: 7 % k,
    "float %": lambda k: 7.5 % k,
    "divmod": lambda k: divmod(7, k)[1],
    "** -1": lambda k: k**-1,
    "** half": lambda k: abs(k**0.5),
    "0 ** k": lambda k: 0 ** (k - 3),
    "10 ** k": lambda k: 10.0 ** (k * 200),
    "log": math.log,
    "sqrt": math.sqrt,
    "lgamma": math.lgamma,
    "exp": lambda k: math.exp(k * 400),
    "fmod": lambda k: math.fmod(7, k),
    "remainder": lambda k: math.remainder(1.0, k),
    "pow": lambda k: math.pow(k, -1),
    "comb": lambda k: math.comb(5, k),
    "factorial": lambda k: math.factorial(k),
    "shift": lambda k: 1 << k,
    "list": lambda k: [1.0, 2.0, 3.0, 4.0][k - 2],
    "dict": lambda k: {3: 1.0, 0: 2.0}[k],
    "range": lambda k: sum(range(k)),
    "format": lambda k: int(f"{k:d}"),
    "text": lambda k: len(str(k)),
    "raise": lambda k: float(f"no number {k}"),
    "method": lambda k: k.bit_length(),
    "hex": lambda k: len(hex(k)),
    "isinstance": lambda k: isinstance(k, int) + 2 * isinstance(k, (float, str)),
    "fsum": lambda k: math.fsum([k, 0.5]),
    "isqrt": pymath.isqrt,
    "root": lambda k: (k**0.5).real,
    "size of a root": lambda k: abs(k**-1.5) if k else 1.0,
}
PLACES = {
    "of a row": lambda op: lambda x, k: x + op(k),
    "of a while_loop": lambda op: (
        lambda x, k: fs.while_loop(lambda s: s[1] > -2, lambda s: (s[0] + op(s[1]), s[1] - 1), (x, 1))[0]
    ),
    "of the row in a while_loop": lambda op: (
        lambda x, k: fs.while_loop(lambda s: s[1] < 2, lambda s: (s[0] + op(k), s[1] + 1), (x, 0))[0]
    ),
    "after a while_loop": lambda op: lambda x, k: x + op(fs.while_loop(lambda s: s[0] > 9, lambda s: s, (0, x))[0]),
    "the number of a step": lambda op: lambda x, k: fs.loop(4, lambda i, s: s * 0.5 + op(i), x),
}


CASES = [
    (operation, place)
    for operation in OPERATIONS
    for place in PLACES
    if operation not in ("isinstance", "text") or place not in ("of a while_loop", "after a while_loop")
]  # the others see that a loop's numbers are Tensors


@pytest.mark.filterwarnings("ignore::fastscalar.CompileWarning")
@pytest.mark.parametrize(("operation", "place"), CASES)
def test_a_plain_number_does_and_raises_what_it_does_in_the_plain_call(monkeypatch, operation, place):
    monkeypatch.setattr(rolling, "UNROLLED", 0)
    f, x = PLACES[place](OPERATIONS[operation]), np.array([1.0, 2.0, -0.5])
    for some in ([0, 1, 2], [2, 1]):
        right = plainly(f, len(some), x[some], K[some])
        assert compiled(f, x[some], K[some]) == (pytest.approx(right, rel=1e-15) if isinstance(right, list) else right)


TRUTHS = {
    "isinstance": lambda c: isinstance(c, bool) + 2 * isinstance(c, int),
    "text": lambda c: len(str(c)) + len(f"{c!r:>7}") + len(f"{c}"),
    "signs": lambda c: -c + ~(+c) + abs(c),
    "whole": lambda c: c // 2 + 3 // (c + 1) + c % 2 + divmod(c, 2)[1] + 2**c + c**2 + (c << 2) + (8 >> c),
    "rounded": lambda c: round(c) + pymath.floor(c) + pymath.ceil(c) + pymath.trunc(c),
    "parts": lambda c: c.real + c.imag + c.numerator + c.bit_length(),
    "index": lambda c: [3, 4][c] + {True: 5, False: 6}[c] + len(range(c)) + len({c, True}),
}


@pytest.mark.parametrize("truth", TRUTHS.values(), ids=list(TRUTHS))
def test_what_a_comparison_is(truth):
    x = np.array([0.5, 2.0, -1.0, 3.0])
    f = lambda x: x * truth(x > 1.0)
    for some in (x, x[::-1]):
        assert fs.compile(f).map(some).tolist() == [v * truth(v > 1.0) for v in some.tolist()]


COPIES = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": lambda x: pickle.loads(pickle.dumps(x))}


@pytest.mark.parametrize("copied", COPIES.values(), ids=list(COPIES))
def test_a_copy_is_of_the_row(copied):
    x, w = np.array([0.5, 2.0, -1.0]), fs.Tensor(3.0)
    for f in (lambda x: x * copied(x), lambda x: x * copied(w) + w, lambda x: x * copied([x, w])[0] + copied(w).data):
        program = fs.compile(f)
        for value in (3.0, 4.0):
            w.data = value
            assert program.map(x).tolist() == [f(fs.Tensor(v)).data for v in x]


@pytest.mark.parametrize("wrong", ["1", None, [1.0]])
@pytest.mark.parametrize("chosen", [True, False])
def test_where_looks_at_both(wrong, chosen):
    a, b = (wrong, 1.0) if chosen else (1.0, wrong)
    for x in (1.0, -1.0):
        with pytest.raises(TypeError, match="where: expected real numbers or Tensors, got"):
            fs.where(fs.Tensor(x) > 0.0, a, b)


@pytest.mark.parametrize("error", [OSError, ValueError, KeyError])
def test_an_error_that_does_not_come_again_is_not_swallowed(error):
    count = itertools.count(1)

    def f(x):
        if next(count) == 1:
            raise error("once")
        return x * 2.0

    with pytest.raises(error, match="once"):
        fs.compile(f).map(np.array([1.0, 2.0]))


def test_what_only_a_recording_raises_is_said_once_and_runs_eagerly():
    f, k = fs.compile(lambda x, k: x * int(json.dumps(k))), np.array([1, 2])
    with pytest.warns(fs.CompileWarning, match=r"TypeError .*which a plain call does not raise"):
        values = f.map(np.array([1.0, 2.0]), k)
    assert values.tolist() == [1.0, 4.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert f.value_and_grad(np.array([1.0, 3.0]), k)[1].tolist() == [1.0, 2.0]


def is_true(flag):
    return flag is True


class Asking:
    def method(self, flag):
        return flag is True

    @staticmethod
    def static(flag):
        return flag is True


ASKING = Asking()
CACHED = functools.lru_cache(None)(is_true)


def of_matched(x):
    match (x > 0.0, x < 1.0):
        case (True, True):
            return x * 2.0
        case (False, _):
            return x * 3.0
    return x * 5.0


@pytest.mark.parametrize(
    "f",
    [
        of_matched,
        lambda x: x * 2.0 if (x > 0.0) is True else x * 3.0,
        lambda x: x * 2.0 if True is (x > 0.0) else x * 3.0,
        lambda x: x * 2.0 if (x > 0.0) is not False else x * 3.0,
        lambda x: x * 2.0 if is_true(x > 0.0) else x * 3.0,
        lambda x: x * 2.0 if [flag for flag in (x > 0.0, x > 1.0) if flag is False] else x * 3.0,
        lambda x: x * 2.0 if math.isnan(x) is False else x * 3.0,
        lambda x: x * 2.0 if ASKING.method(x > 0.0) else x * 3.0,
        lambda x: x * 2.0 if Asking.static(x > 0.0) else x * 3.0,
        lambda x, asking=ASKING: x * 2.0 if asking.method(x > 0.0) else x * 3.0,
        lambda x: x * 2.0 if CACHED(x > 0.0) else x * 3.0,
        lambda x: x * 2.0 if functools.partial(is_true, x > 0.0)() else x * 3.0,
        lambda x: x * 2.0 if operator.is_(x > 0.0, True) else x * 3.0,
        lambda x: x * 2.0 if type(x > 0.0) is bool else x * 3.0,
    ],
)
def test_a_comparison_is_true_or_false_where_that_is_asked(f):
    x = np.array([0.5, -1.0, 2.0, np.nan])
    values, slopes = fs.compile(f).value_and_grad(x)
    leaves = [fs.Tensor(v) for v in x]
    results = [f(leaf) for leaf in leaves]
    for result in results:
        result.backward()
    assert values.tolist() == pytest.approx([r.data for r in results], nan_ok=True)
    assert slopes.tolist() == [leaf.grad for leaf in leaves]


class Threshold:
    def __init__(self, t, asking=False):
        self.t, self.asking = t, asking

    def __call__(self, x):
        over = x > self.t
        return x * 2.0 if self.judge(over) else x * 3.0

    def judge(self, over):
        return bool(over)


class AskingThreshold(Threshold):
    def judge(self, over):
        return over is True


def in_a_loop(x):
    for threshold in [Threshold(t) for t in (-1.0, 0.5)] + [AskingThreshold(4.0)]:
        x = threshold(x)
    return x


def by_a_list_that_grows(x):
    functions = []
    for step in (lambda x: x > 0.0, lambda x: x > 1.0, is_true):
        functions.append(step)
        over = functions[0](x)
        x = x * 2.0 if functions[-1](over if step is is_true else x) else x * 3.0
    return x


def by_a_name_of_another_function_later(x):
    judge = bool
    for other in (bool, is_true):
        over = helper_of_a_loop(x)
        x = x * 2.0 if judge(over) else x * 3.0
        judge = other
    return x * 2.0 if judge(helper_of_a_loop(x)) else x


def helper_of_a_loop(x):
    return x > 1.5


@pytest.mark.parametrize("f", [in_a_loop, by_a_list_that_grows, by_a_name_of_another_function_later])
def test_what_asks_may_come_after_decisions_that_nobody_asked(f):
    x = np.array([0.5, -1.0, 2.0, np.nan, 9.0])
    for order in (x, x[::-1]):
        assert fs.compile(f).map(order).tolist() == pytest.approx([f(fs.Tensor(v)).data for v in order], nan_ok=True)


def test_a_recording_looks_at_each_function_once_however_often_it_decides(monkeypatch):
    """Not at all that a loop knows again at each of its steps: 500 decisions among a list of 500 objects took ten
    seconds."""
    looked = []
    named_in = identities._named_in
    monkeypatch.setattr(identities, "_named_in", lambda owner, code: looked.append(owner) or named_in(owner, code))
    thresholds = [Threshold(k * 0.1) for k in range(40)]

    def f(x, times):
        for _ in range(times):
            for threshold in thresholds:
                x = threshold(x)
        return x

    found = []
    for times in (1, 2, 4):
        looked.clear()
        fs.compile(lambda x, times=times: f(x, times))(1.0)
        found.append(len(looked))
    assert found[0] == found[1] == found[2] < 40 * 20


@pytest.mark.filterwarnings("ignore::fastscalar.CompileWarning")
@pytest.mark.parametrize(
    "look",
    [
        lambda x: 2.0 if x > 1.0 else 3.0,
        lambda x: 2.0 if fs.Tensor(1.0) < x else 3.0,
        lambda x: x.data,
        float,
        lambda x: len(str(x)),
        lambda x: 2.0 if x else 3.0,
        lambda x: x * 2.0,
        lambda x: float(x * 2.0),
        lambda x: 2.0 if (1.0 - x) ** 2 > 0.9 else 3.0,
    ],
)
def test_what_another_thread_reads_is_of_the_row(look):
    def f(x):
        found = []
        thread = threading.Thread(target=lambda: found.append(look(x)))
        thread.start()
        thread.join(60)
        return x * found[0]

    x = np.array([0.0, 2.0, 0.125])
    program = fs.compile(f)
    for some in (x, x[::-1]):
        assert program.map(some).tolist() == [f(fs.Tensor(v)).data for v in some]


def test_what_another_thread_reads_of_its_own_is_its_affair():
    w = fs.Tensor(2.0)

    def look():
        return (w * 3.0).data + w.data + (w > 1.0)

    def f(x):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join(60)
        return x * w if x > 0.0 else x

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fs.compile(f).map(np.array([1.0, -2.0])).tolist() == [2.0, -2.0]


def test_where_takes_a_comparison_without_a_decision_if_no_code_asks_for_its_identity():
    f = fs.compile(lambda x, scale=None: fs.where(x > 0.0, x, -x) if scale is None else x * scale)
    assert f.map(np.array([1.0, -2.0, 3.0])).tolist() == [1.0, 2.0, 3.0]
    assert len(f.report().splitlines()) == 1


# --- floats of whole numbers, and the ints that math makes of them ---

TABLE = [5.0, 7.0, 11.0, 13.0, 17.0]
FLOATS = {
    "a quotient": lambda k: k / -4,
    "a product": lambda k: k * 0.25,
    "a sine": lambda k: -math.sin(k) * 0.1,
    "a power": lambda k: -((k + 3.5) ** -2.5) * 0.1,
    "a maximum": lambda k: fs.maximum(k / 8, -0.5),
    "the best": lambda k: fs.argmin([fs.Tensor(2.0), fs.Tensor(1.0)]) / -4 + 0 * k,
    "two": lambda k: (k / 3 - k / 7) / 9,
}
USES = {
    "its sign": lambda n: math.copysign(1.0, n),
    "less": lambda n: math.copysign(1.0, -n),
    "negative": lambda n: math.copysign(1.0, n * -1),
    "an angle": lambda n: math.atan2(n * 0.0, -1.0),
    "an element": lambda n: TABLE[n],
    "an int": lambda n: float(isinstance(n, int)),
    "bits": lambda n: float(n.bit_length()),
    "a range": lambda n: sum(range(n + 3)) * 1.0,
    "a number": lambda n: n + 0.5,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("made", FLOATS.values(), ids=FLOATS)
@pytest.mark.parametrize("to_int", [math.floor, math.ceil, math.trunc], ids=["floor", "ceil", "trunc"])
def test_floor_of_a_float_of_whole_numbers_is_an_int(to_int, made, use):
    """486788: as a Tensor it is -0.0 where the plain call has 0."""
    k = np.array([2, -2, 0, 7, 1])

    def f(k):
        return use(to_int(made(k)))

    assert compiled(f, k) == plainly(f, len(k), k)
    assert [math.copysign(1.0, v) for v in compiled(f, k)] == [math.copysign(1.0, v) for v in plainly(f, len(k), k)]


@pytest.mark.parametrize("to_int", [math.floor, math.ceil, math.trunc], ids=["floor", "ceil", "trunc"])
@pytest.mark.parametrize(
    "made",
    [
        lambda k, x: x * 0.25,
        lambda k, x: k / 4 + x,
        lambda k, x: fs.Tensor(0.0) + k / -4,
        lambda k, x: fs.sum([k / -4, -0.0]),
        lambda k, x: fs.where(k > 0, k / -4, -0.0),
        lambda k, x: (x * 0).detach() + k / -4,
    ],
)
def test_of_a_tensor_it_is_a_tensor(to_int, made):
    k, x = np.array([2, 1, 3]), np.array([-0.5, 0.5, -0.25])

    def f(k, x):
        return math.copysign(1.0, to_int(made(k, x)))

    assert compiled(f, k, x) == plainly(f, len(k), k, x)


@pytest.mark.parametrize("to_int", [math.floor, math.ceil, math.trunc], ids=["floor", "ceil", "trunc"])
def test_what_has_no_int_raises(to_int):
    for f in (lambda k: to_int(k * 1e308 * 10.0) * 1.0, lambda k: to_int(k * math.inf * 0.0) * 1.0):
        assert compiled(f, np.array([2, 3])) == plainly(f, 1, np.array([2]))


def test_large_ints_of_floats_have_all_their_digits():
    def f(k):
        return float(math.floor(k * 2.0**60) % 7) + float((math.floor(k * 2.0**60) + 1) % 10)

    k = np.array([1, 3, 5])
    assert compiled(f, k) == plainly(f, len(k), k)


@pytest.mark.dear
def test_many_steps_to_a_float_are_a_tensor_and_cost_no_square():
    """It is not looked at for ever whether a number is a float in the plain call."""
    def f(x):
        s, n = x, 0.0
        for _ in range(3_000):
            s = s * 0.999 + 0.001
            n = n + math.floor(s)
        return n

    x = np.array([3.0])
    assert compiled(f, x) == plainly(f, 1, x)
