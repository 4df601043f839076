"""Functions of the fuzzer with random numbers in them: programs draw what plain calls draw, row by row."""

import math
import re
import warnings

import numpy as np
import pytest

import fastscalar as fs
from fastscalar.program import rolling
from fuzz.cases import Case
from fuzz.generate import write

DRAWS = ["fs.random.normal()", "fs.random.uniform()", "fs.random.bernoulli(0.5)"]


def drawing(seed):
    """A case with some of its constants drawn, and that it is looked at at all."""
    text = write(seed, "tame")
    head, _, rest = text.partition("\ndef f(")
    body, _, tail = rest.partition("\nARGUMENTS")
    at = iter(range(100))
    body = re.sub(r"(?<![\w.])(0\.25|0\.5|1\.5|2\.0|-0\.75)(?![\w.])", lambda m: DRAWS[(next(at) + seed) % 3], body)
    return Case.of(f"{head}\ndef f({body}\nARGUMENTS{tail}"), next(at) > 0


def close(a, b):
    return np.allclose(a, b, rtol=1e-7, atol=1e-9, equal_nan=True)


@pytest.mark.dear
@pytest.mark.parametrize("first", range(0, 400, 100))
@pytest.mark.parametrize("unrolled", [0, 64])
def test_programs_draw_what_their_functions_draw(first, unrolled, monkeypatch):
    monkeypatch.setattr(rolling, "UNROLLED", unrolled)
    compared = 0
    for seed in range(first, first + 100):
        case, draws = drawing(seed)
        if not draws or len(case.arguments) == 0:
            continue
        floats = tuple(k for k, a in enumerate(case.arguments) if np.asarray(a).dtype.kind == "f" and np.ndim(a))
        given, expected = [case.row(i) for i in range(case.rows)], []
        try:
            for i, row in enumerate(given):
                with fs.random.stream(seed, i), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    y = case.function(*row)
                if not isinstance(y, fs.Tensor) or not math.isfinite(y.data) or abs(y.data) > 1e6:
                    raise ArithmeticError
                y.backward()
                expected.append(y.data)
        except Exception:                        # what raises is the other fuzzer's
            continue
        by_row = [[np.array(row[k].grad) for k in floats] for row in given]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = fs.compile(case.function)
            values = program.map(*case.arguments, seed=seed)
            assert close(values, expected), seed
            if floats:
                _, slopes = program.value_and_grad(*case.arguments, seed=seed, argnums=floats)
                for k, found in enumerate(slopes):
                    assert close(found, [row[k] for row in by_row]), seed
        compared += 1
    assert compared > 30
