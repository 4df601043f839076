"""Random programs on engine and twin in lockstep: scalar code agrees bit for bit, values and gradients.

A program is a list of steps, each a few small integers; hypothesis draws, shrinks and replays them, and longer
sequences, with all that may come between, are what their seeds say (`fuzzing_engine`).  After every backward pass all
live variables of both sides are compared: sharing, diamonds, `a + a`, dropped handles, writes in between, signed zeros,
infinities and NaN all come up.
"""

import gc
import os
import signal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastscalar
import fuzzing_engine
from fastscalar import reference
from fastscalar.engine import testing
from fuzzing_engine import TAME, VALUES, Layered, Machine, left, parameters, sequence
from interrupts import ctrl_c

EXAMPLES = int(os.environ.get("FASTSCALAR_EXAMPLES", "300"))  # `make fuzz-engine` asks for more

EXEMPT = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]  # `stress` is the same for every example

STEP = st.tuples(*[st.integers(0, 255)] * 4)
PROGRAM = st.lists(STEP, min_size=3, max_size=60)


def check(program, values):
    engine, twin = Machine(fastscalar, values), Machine(reference, values)
    for step in [*program, (15, 255, 0, 0)]:
        assert engine.run(step) == twin.run(step), step
    for t in engine.variables:
        t.backward()
    for t in twin.variables:
        t.backward()
    assert engine.everything() == twin.everything()
    testing.check()


@settings(max_examples=EXAMPLES, deadline=None)
@given(PROGRAM)
def test_wild_values(program):
    check(program, VALUES)


@settings(max_examples=EXAMPLES, deadline=None)
@given(PROGRAM)
def test_tame_values(program):
    check(program, TAME)


@settings(max_examples=EXAMPLES // 3, deadline=None, suppress_health_check=EXEMPT)
@given(program=PROGRAM)
def test_under_stress(program, stress):
    check(program, VALUES)


# --- layers and losses: values bit for bit, gradients to 1e-12 ------------------------------------


def check_layered(program):
    engine, twin = Layered(fastscalar, TAME), Layered(reference, TAME)
    for step in program:
        one, other = engine.run(step), twin.run(step)
        if not all(abs(t.data) < 1e6 and abs(t.grad) < 1e6 for t in twin.variables + parameters(twin)):
            return  # rounding is all that would be seen; and 0 * NaN counts as 0 in layers (documented)
        assert one == other, step
    assert engine.everything() == twin.everything()
    testing.check()


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(STEP, min_size=3, max_size=40))
def test_layers(program):
    check_layered(program)


@settings(max_examples=EXAMPLES // 3, deadline=None, suppress_health_check=EXEMPT)
@given(program=st.lists(STEP, min_size=3, max_size=30))
def test_layers_under_stress(program, stress):
    check_layered(program)


def test_a_planted_difference_is_seen(monkeypatch):
    """The comparison can fail: a twin with another derivative of relu at its kink disagrees."""
    monkeypatch.setitem(reference._DERIVATIVES, "relu", lambda a, v: (0.0 if a < 0.0 else 1.0,))
    with pytest.raises(AssertionError):
        check([(8, 0, 0, 0), (5, 2, 0, 1), (15, 3, 0, 0)], VALUES)


# --- sequences ------------------------------------------------------------------------------------


@pytest.fixture
def timer():
    """Ctrl-C by a timer."""
    if not hasattr(signal, "setitimer"):
        pytest.skip("no timers on this system")
    before = signal.signal(signal.SIGALRM, ctrl_c)
    gc.collect()
    gc.freeze()                                  # the collector looks at nothing that other tests have left
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("part", range(5))
def test_sequences(part, timer):
    """`make prove` runs a million."""
    before, interrupted, broken = left(), 0, 0
    for seed in range(100 * part, 100 * part + (8 if testing.checked_build() else 100)):
        made = sequence(seed)
        interrupted, broken = interrupted + made.interrupted, broken + made.broken
    assert interrupted
    assert broken
    del made
    assert left() == before


@pytest.mark.parametrize(
    ("where", "name", "other"),
    [
        (reference.Tensor, "relu", lambda t: reference.Tensor(t._data, (t,), "relu")),
        (fuzzing_engine.Side, "forget", lambda side: None),
        (fuzzing_engine.Sequence, "interrupt", lambda self, step: self.engine.machine.run(self.making(step))),
    ],
)
def test_a_sequence_with_a_planted_difference(where, name, other, monkeypatch, timer):
    monkeypatch.setattr(where, name, other)
    with pytest.raises(AssertionError, match=r"sequence \d+: "):
        list(map(sequence, range(1, 200)))
