"""Fixtures: the suite runs on the engine and on the twin; the engine's tape is checked after every test."""

import collections
import gc
import os
import pathlib

# NumPy's threads wait for each other by spinning: beside other work, small products take a hundred times as long.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from hypothesis import HealthCheck, settings

import fastscalar
import living
from fastscalar import _core, reference
from fastscalar.engine import testing
from fastscalar.program import _replay
from fastscalar.program import threads as program_threads

os.environ.setdefault("FASTSCALAR_PICTURES", "0")  # a second for each run of the command line that keeps its files

pytest_plugins = ["watchdog"]

if "FASTSCALAR_EXAMPLES" not in os.environ:      # long runs look for new ones
    # The same examples in every run, and however long a busy machine takes to make them.
    settings.register_profile("suite", derandomize=True, suppress_health_check=list(HealthCheck))
    settings.load_profile("suite")


@pytest.fixture(params=["engine", "twin"])
def fs(request):
    """The engine and its specification: a test that takes this runs on both."""
    return fastscalar if request.param == "engine" else reference


@pytest.fixture(autouse=True)
def all_threads(monkeypatch):
    """Replays use the threads that they are given, however short a batch is and few the cores are."""
    monkeypatch.setattr(program_threads, "cores", lambda: 8)
    before = _replay._always_share(True)
    yield
    _replay._always_share(before)


MOST = 2000


def pytest_collection_finish():
    """Modules make few Tensors when they are imported: in stress mode each of them moves at every step of every test.

    What is there before all of them is nothing for Python's collector, which tests call often: 27,000 tests are 400,000
    objects.  A checked build counts what is alive around each test, without these."""
    gc.collect()
    testing.collect()
    if (there := _core.tape_info()["nodes"]) > MOST:
        raise pytest.UsageError(f"{there:,} nodes are there before the first test: make them in tests, or in fixtures")
    if testing.checked_build():
        with fastscalar.no_grad():  # what the engine knows of this thread stays
            pass
    gc.freeze()  # for good: a test that frees it gives all of it back to the collector


PASSED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Of a test that failed, the traceback holds what the test made."""
    report = yield
    if call.when == "call":
        item.stash[PASSED] = report.passed
    return report


@pytest.fixture(autouse=True)
def tape_is_consistent(request):
    """Every invariant of the data sheet holds after every test; in a checked build all that it made has gone too."""
    before = living.counted(request.module) if testing.checked_build() else None
    yield
    if "big" not in request.keywords:
        testing.check()
    if before is not None and request.node.stash.get(PASSED, False):
        request.node.funcargs.clear()  # this fixture is the last to end: no other value is in use
        living.compare(before, request.module)


@pytest.fixture
def stress():
    """Every safepoint collects and moves everything."""
    before = _core.tape_info()["stress"]
    testing.set_stress(True)
    yield
    testing.set_stress(before)


def mnist_folder():
    root = os.environ.get("FASTSCALAR_DATA")
    return pathlib.Path(root) / "mnist" if root and (pathlib.Path(root) / "mnist").is_dir() else None


@pytest.fixture(scope="session")
def mnist():
    """Real MNIST as floats in [0, 1], rows of 784."""
    if mnist_folder() is None:
        pytest.skip("no MNIST: FASTSCALAR_DATA is not set to a folder that has it")
    (X, y), (X_test, y_test) = fastscalar.datasets.mnist()
    return X.reshape(-1, 784) / 255, y, X_test.reshape(-1, 784) / 255, y_test


def spread(items, most):
    """At most so many cases of each test, evenly among them."""
    there = collections.Counter(getattr(item, "function", item) for item in items)
    seen = collections.Counter()
    kept = []
    for item in items:
        test = getattr(item, "function", item)
        k, n = seen[test], there[test]
        if n <= most or k * most // n != (k - 1) * most // n:
            kept.append(item)
        seen[test] += 1
    return kept


def pytest_collection_modifyitems(config, items):
    """A test has the same name in every process: xdist compares them, and an address is another one in each.

    FASTSCALAR_CASES=N leaves at most N cases of each test, and none of ten million nodes: they run the same lines, and
    where lines are counted each is dear.

    In stress mode (FASTSCALAR_STRESS=1) a node costs a full collection: ten million of them are left out, and of a test
    that is dear one case in seven runs (FASTSCALAR_STRESS=all: every one)."""
    for item in items:
        if " at 0x" in item.nodeid:
            raise pytest.UsageError(f"the name of a test contains an address: {item.nodeid}")
    if os.environ.get("FASTSCALAR_CASES"):
        kept = spread([item for item in items if "big" not in item.keywords], int(os.environ["FASTSCALAR_CASES"]))
        of_these = set(kept)
        config.hook.pytest_deselected(items=[item for item in items if item not in of_these])
        items[:] = kept
    if _core.tape_info()["stress"]:
        for item in items:
            if "big" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="ten million nodes, in stress mode"))
        if os.environ.get("FASTSCALAR_STRESS") != "all":
            seen = collections.Counter()
            for item in items:
                if "dear" in item.keywords:
                    if seen[item.function] % 7 != 3 or not hasattr(item, "callspec"):
                        item.add_marker(pytest.mark.skip(reason="dear, in stress mode"))
                    seen[item.function] += 1
