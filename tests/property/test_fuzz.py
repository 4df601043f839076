"""The fuzzer of programs: what it found stays right, new programs are right, and it can find what is wrong."""

import ast
import json
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import _core
from fuzz.generate import KINDS, write
from fuzz.judge import Difference, agrees, judge
from fuzz.minimise import minimise
from fuzz.workers import Worker

PROGRAMS = 600
STRESS = _core.tape_info()["stress"]
CORPUS = sorted((pathlib.Path(__file__).parents[1] / "fuzz" / "corpus").glob("*.py"))
EXAMPLE = """KIND = 'tame'
w1 = fs.Tensor(2.0)
w2 = fs.to_tensor([1.0, -3.0])

def f(x, k):
    t1 = math.sin(x[1]) * w1
    t2 = t1 + k
    if t1 > 0.0:
        t2 = t2 * w2[k]
    for e in x:
        t2 = t2 + e * 0.5
    return t2 * t1 + math.exp(x[0])

ARGUMENTS = [np.array([[1.0, 0.25], [2.0, 0.5], [0.5, -0.75]]), np.array([1, 0, 1])]
PLAN = [('map', None, 1), ('backward', False, None, 1), ('grad', [0], None, 1), ('call', 0)]
"""


# --- programs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_what_was_found_once(path):
    verdict = judge(path.read_text())
    assert verdict.status == "agrees", (verdict.kind, verdict.detail)


@pytest.mark.parametrize("first", range(0, PROGRAMS, 100))
def test_new_programs(first):
    """`make fuzz` goes on from here."""
    with Worker() as worker:
        for seed in range(10**9 + first, 10**9 + first + (10 if STRESS else 100)):
            verdict = worker.judge(seed)
            assert verdict["status"] != "differs", (seed, verdict["kind"], verdict["detail"])


def test_half_of_the_smallest_gradient_is_rounding():
    """Of squared_loss a program computes half of the gradient first, which is nothing; the loss itself does not."""
    text = """KIND = 'wild'

def f(x, y):
    return fs.squared_loss(y, x) * y[2]
ARGUMENTS = [np.array([[-1.0, 1.0, 1.0]]), np.array([[1.0, -inf, 5e-324]])]
PLAN = [('grad', [1], None, 1)]
"""
    assert judge(text).status in ("agrees", "unstable")


def test_sums_of_numbers_that_overflow_in_some_orders_are_rounding():
    """-inf + 1e308 + 1e308 is -inf or NaN: 450007.  With a difference that smaller numbers have as well it is one."""
    text = """KIND = 'wild'
from fastscalar.engine._modes import is_recording

def f(x):
    return np.sum(np.outer(x, x)) * FACTOR
ARGUMENTS = [np.array([[-inf, -1.0, LARGE]])]
PLAN = [('grad', [0], None, 1)]
"""
    same = text.replace("FACTOR", "1.0")
    assert judge(same.replace("LARGE", "1e308")).status == "unstable"
    assert judge(same.replace("LARGE", "1e290")).status == "agrees"
    other = text.replace("FACTOR", "(-1.0 if is_recording() else 1.0)")
    assert judge(other.replace("LARGE", "1e308")).status == "differs"


def test_a_training_that_overflows_when_it_is_a_bit_off_is_unstable():
    """980329: the weights come to -2e205; the function raises of them where the judge asks how much they may be off."""
    text = """KIND = 'tame'
w1 = fs.Tensor(1.5)

def f(x3, x4):
    t5 = fs.where(1.0 + w1 > 3, x3[0], w1)
    if x3[0] > 0:
        t5 = fs.cross_entropy([t5 * t5, 1.0, x4[0] * 1.0], 1)
    t5 *= w1
    return 1.0 + x3[0] + fs.log_softmax([1.0 + t5, math.exp2(0.25 * w1), t5 ** 3])[1]
ARGUMENTS = [
    np.array([[-1.0, 1.0, -1.0], [2.2, 1.0, 1.0], [-1.0, -1.0, 1.0], [1.0, 1.0, 1.0]]),
    np.array([[0.0], [0.0], [-1.0], [0.0]]),
]
PLAN = [('fit', 'SGD', 1, 1, 1)]
"""
    assert judge(text).status == "unstable"


# --- the fuzzer itself ------------------------------------------------------------------------------------------------


def test_a_seed_is_a_program():
    for seed in range(50):
        text = write(seed)
        assert text == write(seed)
        ast.parse(text)
    assert {write(seed).split("'")[1] for seed in range(50)} == set(KINDS)


def test_the_example_agrees():
    verdict = judge(EXAMPLE)
    assert (verdict.status, verdict.detail) == ("agrees", "")


def other_values(factor):
    plain = fs.Program.map
    return lambda self, *arguments, **options: plain(self, *arguments, **options) * factor


def other_gradients(self, *arguments, **options):
    values, gradients = value_and_grad(self, *arguments, **options)
    return values, tuple(g * (1.0 + 1e-8) for g in gradients)


value_and_grad, backward = fs.Program.value_and_grad, fs.Program.backward


def without_reset(self, *arguments, accumulate=False, threads=1):
    return backward(self, *arguments, accumulate=True, threads=threads)


def refused(self, *arguments, **options):
    raise ValueError("row 0: no")


@pytest.mark.parametrize(
    ("method", "planted", "kind"),
    [
        ("map", other_values(1.0 + 1e-8), "map:value"),
        ("map", refused, "map:error: ValueError, right a value"),
        ("value_and_grad", other_gradients, "grad:argument"),
        ("backward", without_reset, "backward:leaf"),
    ],
)
def test_a_planted_difference_is_seen(monkeypatch, method, planted, kind):
    monkeypatch.setattr(fs.Program, method, planted)
    verdict = judge(EXAMPLE)
    assert (verdict.status, verdict.kind) == ("differs", kind)


def test_another_forward_mode_is_seen(monkeypatch):
    jvp, text = fs.jvp, EXAMPLE.replace("('map', None, 1)", "('modes', 0)")
    assert judge(text).status == "agrees"
    monkeypatch.setattr(fs, "jvp", lambda *arguments: (0.0, jvp(*arguments)[1] * (1.0 + 1e-8)))
    assert judge(text).kind == "jvp:argument"


DRAWING = """KIND = 'tame'
w1 = fs.Tensor(2.0)

def f(x):
    t1 = fs.random.normal() * w1
    for i in range(2):
        t1 = t1 + fs.random.uniform() * x
    return t1 * fs.random.bernoulli(0.5)

ARGUMENTS = [np.array([1.0, 2.0, 3.0])]
PLAN = [('map', [2, 1], 1), ('call', 1), ('grad', [0], [1], 1), ('backward', False, None, 2), ('fit', 'SGD', 2, 2, 1)]
"""


def test_rows_that_draw_are_compared_where_they_lie(monkeypatch):
    assert judge(DRAWING.replace(", ('fit', 'SGD', 2, 2, 1)", "")).status == "agrees"
    text = DRAWING.replace("def f(x):", "def f(x, y):").replace("3.0])]", "3.0]), np.array([1.0, 0.0, 1.0])]")
    assert judge(text).status == "agrees"
    plain = fs.Program.map
    monkeypatch.setattr(fs.Program, "map", lambda self, x, row_offset, threads: plain(self, x, row_offset=0))
    assert judge(DRAWING).kind == "map:value"


def test_some_programs_draw():
    texts = [write(seed) for seed in range(400)]
    assert 10 < sum("fs.random." in text for text in texts) < 100


def test_an_exact_program_agrees_to_the_bit(monkeypatch):
    monkeypatch.setattr(fs.Program, "map", other_values(1.0 + 2.0**-52))
    text = (
        "KIND = 'exact'\ndef f(x):\n    return x * 3.0\nARGUMENTS = [np.array([1.0, 2.0])]\nPLAN = [('map', None, 1)]\n"
    )
    assert judge(text).kind == "map:value"
    assert judge(text.replace("'exact'", "'tame'")).status == "agrees"


def test_a_lost_error_is_seen(monkeypatch):
    text = "def f(x):\n    return math.log(x)\nARGUMENTS = [np.array([1.0, -2.0])]\nPLAN = [('map', None, 1)]\n"
    assert judge(text).status == "agrees"
    monkeypatch.setattr(fs.Program, "map", lambda self, x, threads: np.zeros(len(x)))
    assert judge(text).kind == "map:error: none, right ValueError"


def test_what_rounding_decides_says_nothing(monkeypatch):
    """x * 0.1 * 10 is x or not, as the last bit has it: another value is no difference, and not agreement either."""
    text = (
        "def f(x):\n    return x if x * 0.1 * 10.0 == x else x + 1.0\n"
        "ARGUMENTS = [np.array([1.0, 3.0, 7.0])]\nPLAN = [('map', None, 1)]\n"
    )
    monkeypatch.setattr(fs.Program, "map", lambda self, x, threads: np.array(x) + 0.5)
    assert judge(text).status == "unstable"
    assert judge(text.replace("0.1", "0.5")).status == "differs"


def test_an_ill_conditioned_result_is_compared_with_what_rounding_makes_of_it(monkeypatch):
    text = (
        "def f(x):\n    return (x * 1.1 + 1e6) - 1e6\n"
        "ARGUMENTS = [np.array([1.0, 3.0, 7.0])]\nPLAN = [('map', None, 1)]\n"
    )
    assert judge(text).status == "agrees"
    for error, status in ((1e-10, "agrees"), (1e-7, "differs")):
        monkeypatch.setattr(fs.Program, "map", lambda self, x, threads, error=error: x * 1.1 + error)
        assert judge(text).status == status


@pytest.mark.parametrize("error", [1e-9, 1e-16])
def test_a_loss_of_fit_is_compared_with_what_rounding_makes_of_it(monkeypatch, error):
    """1 - (1 - w + w): 0 but for the last bit of what cancels; more than that is seen."""
    fit = fs.fit

    def other(*arguments, **options):
        return types.SimpleNamespace(loss=[loss + error for loss in fit(*arguments, **options).loss])

    monkeypatch.setattr(fs, "fit", other)
    text = (
        "KIND = 'tame'\nw = fs.to_tensor([0.9, 1.0])\ndef f(x, y):\n    return 1.0 - (1.0 - w[0] + w[0]) + 0.0 * x\n"
        "ARGUMENTS = [np.array([1.0, 2.0]), np.array([1.0, 2.0])]\nPLAN = [('fit', 'SGD', 2, 1, 1)]\n"
    )
    assert judge(text).kind == ("fit:loss" if error > 1e-12 else "")


def test_agrees_raises(monkeypatch):
    agrees(lambda x: x * x, np.array([1.0, 2.0]))
    monkeypatch.setattr(fs.Program, "map", other_values(1.0 + 1e-8))
    with pytest.raises(Difference):
        agrees(lambda x: x * x, np.array([1.0, 2.0]))


def test_a_case_is_made_short():
    short = minimise(EXAMPLE, lambda text: "math.sin" in text and judge(text).status != "useless")
    assert "math.sin" in short
    assert "w1" not in short
    assert len(short.splitlines()) <= 8
    assert judge(short).status == "agrees"


@pytest.mark.parametrize("source", ["float(f'{x[0].data:.1f}')", "float(f'{1.0}{k}')"])
def test_a_case_with_a_text_is_made_short(source):
    text = EXAMPLE.replace("math.exp(x[0])", source)
    assert judge(text).status != "useless"
    short = minimise(text, lambda text: "float(" in text and judge(text).status != "useless")
    assert len(short.splitlines()) <= 8


@pytest.mark.dear
def test_a_crash_and_a_hang_are_verdicts():
    broken = EXAMPLE.replace("    t1 =", "    import os; os._exit(7)\n    t1 =")
    endless = EXAMPLE.replace("    t1 =", "    while True: pass\n    t1 =")
    in_programs = "    from fastscalar.engine._modes import is_recording\n    while is_recording(): pass\n    t1 ="
    with Worker(seconds=10.0) as worker:
        assert worker.judge(broken)["kind"] == "crash"
        assert worker.judge(EXAMPLE)["status"] == "agrees"
        worker.seconds = 3.0
        assert worker.judge(EXAMPLE.replace("    t1 =", in_programs))["kind"] == "hang"
        assert worker.judge(endless)["status"] == "useless"      # there is nothing to compare with
        worker.seconds = 60.0
        assert worker.judge(EXAMPLE)["status"] == "agrees"


@pytest.mark.dear
def test_a_run_goes_on_where_it_was(tmp_path):
    def run(count):
        options = ["--processes", "1", "--each", "0", "--state", str(tmp_path / "fuzz.json")]
        return subprocess.run(
            [sys.executable, "-m", "fuzz", "--count", str(count), *options],
            cwd=pathlib.Path(__file__).parents[1],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    done = run(6)
    assert "6 programs from seed 0" in done.stdout, done.stderr
    state = json.loads((tmp_path / "fuzz.json").read_text())
    assert state["next"] == sum(state["counts"].values()) == 6
    done = run(9)
    assert "9 programs from seed 0" in done.stdout
    assert len((tmp_path / "fuzz.txt").read_text().splitlines()) == 2
