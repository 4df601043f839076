"""Bars: the figures that a benchmark records, the limits set for them, and a table of both at the end."""

from __future__ import annotations

import gc
import importlib
import platform
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
import workloads
from contestants import Race, child
from contestants.base import absent
from fastscalar.cli.console import cpu

ROWS = pytest.StashKey[list[str]]()
SKIPPED = pytest.StashKey[dict[str, str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--check-bars", action="store_true", help="fail where a bar is not met")
    parser.addoption("--short", action="store_true", help="fewer and shorter rounds, without what no table shows")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--short", default=False):
        left = [item for item in items if "thorough" in item.keywords]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


def pytest_configure(config: pytest.Config) -> None:
    workloads.SHORT = config.getoption("--short", default=False)
    config.addinivalue_line("markers", "thorough: not a part of the short form, which the tables are made of")
    config.stash[ROWS] = []
    config.stash[SKIPPED] = {}


@pytest.fixture
def small(benchmark: Any) -> bool:
    """Whether each benchmark is to run once with its checks at its smallest size (--benchmark-disable)."""
    return bool(benchmark.disabled)


@pytest.fixture
def skipped(benchmark: Any, request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """skipped(contestant, why): somebody who cannot take part is named, here and at the end."""

    def record(name: str, why: str) -> None:
        benchmark.extra_info.setdefault("skipped", {})[name] = why
        request.config.stash[SKIPPED][name] = why

    return record


@pytest.fixture
def race(benchmark: Any, small: bool, skipped: Callable[[str, str], None]) -> Iterator[Race]:
    """What modules of peers and earlier tests have left is not the business of the collector in this one: walking
    through it would slow everything in pure Python, and the collection before each timer."""
    child.KEEP = small
    if not small:
        for module in ("torch", "numba", "casadi", "micrograd"):
            if not absent(module):
                importlib.import_module(module)
        gc.collect()
        gc.freeze()
    yield Race(benchmark, small, skipped)
    gc.unfreeze()


@pytest.fixture
def bar(benchmark: Any, small: bool, request: pytest.FixtureRequest) -> Callable[..., None]:
    """bar(name, value, unit, at_most= or at_least=): record a figure, which need not have a limit."""
    assert gc.isenabled(), "the figures are taken with Python's cyclic collector on"
    benchmark.extra_info.update(
        collector="on",
        kernels=fs.tape_info()["kernels"],
        numpy=np.__version__,
        fastscalar=fs.__version__,
        cpu=cpu(),
        python=platform.python_version(),
    )

    def record(
        name: str, value: float, unit: str, *, at_most: float | None = None, at_least: float | None = None
    ) -> None:
        limit = at_most if at_least is None else at_least
        met = limit is None or (value <= limit if at_least is None else value >= limit)
        benchmark.extra_info[name] = {
            "value": value,
            "unit": unit,
            "at_most": at_most,
            "at_least": at_least,
            "met": met,
        }
        bound = "" if limit is None else f"{'at most' if at_least is None else 'at least'} {limit:g}"
        verdict = "" if limit is None or small else "met" if met else "NOT MET"
        request.config.stash[ROWS].append(f"{name:<72} {value:10.4g} {unit:<10} {bound:<16} {verdict}")
        if not small and request.config.getoption("--check-bars", default=False):
            assert met, f"{name}: {value:.4g} {unit}, {bound}"

    return record


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = config.stash[ROWS]
    if rows:
        terminalreporter.section(
            "bars" + (" (smallest size: not figures)" if config.getoption("benchmark_disable", False) else "")
        )
        for row in rows:
            terminalreporter.write_line(row.rstrip())
    for name, why in config.stash[SKIPPED].items():
        terminalreporter.write_line(f"skipped: {name}: {why}")


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """The results are published; the name of the machine is nobody's business."""
    machine_info.pop("node", None)
