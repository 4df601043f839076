# One command for each intention; `make help` lists them.  PYTHON chooses the interpreter.

PYTHON ?= python
PYTEST ?= $(PYTHON) -m pytest
JOBS ?= 2
PROGRAMS ?= 100000
FIRST ?= 0
FIGURES ?= build
KEPT ?= benchmarks/results/$(shell $(PYTHON) -c "import fastscalar; print(fastscalar.__version__)").json
SUITE ?= $(PYTEST) -n $(JOBS)
AGAIN ?= false
LONG = $(PYTHON) tests/helpers/long.py
BIN = $(shell $(PYTHON) -c 'import os, sys; print(os.path.dirname(sys.executable))')

.DEFAULT_GOAL := help
.PHONY: help build clean annotate profile \
	check test test-stress prove sanitize checked checked-stress memcheck coverage processors oracle \
	accuracy fuzz fuzz-engine fuzz-files fuzz-programs kill kill-ranks forks interrupts \
	lint types stubs docs wheels \
	bench bench-check bench-compare bench-tables

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

build: ## compile the extensions in place and install the package in editable form, with all tools
	$(PYTHON) -m pip install -e '.[test,dev]'

check: ## all that has to hold before a change lands: lint, types, oracle (needs torch), bench-check, test-stress, test
	@start=$$(date +%s); for target in lint types oracle bench-check test-stress test; do \
		printf '\n== %s (%s s)\n' "$$target" "$$(($$(date +%s) - start))"; $(MAKE) -s $$target || $(AGAIN) || exit 1; done

test: ## the whole suite, doctests included
	$(SUITE)

test-stress: ## eight cases of each of the engine's tests with every safepoint moving everything (all: make checked-stress)
	FASTSCALAR_STRESS=$${FASTSCALAR_STRESS:-1} FASTSCALAR_CASES=$${FASTSCALAR_CASES:-8} $(PYTEST) -n $(JOBS) $(addprefix tests/,engine program transforms nn property)

# Long runs, apart from `check`. Each writes what came of it to results/, with date and version; one that was stopped goes on
# after what had passed.

fuzz: ## random functions, compiled and plain: 100,000 (half an hour); goes on where it was stopped (PROGRAMS=..., FIRST=...)
	cd tests && $(PYTHON) -m fuzz --count $(PROGRAMS) --first $(FIRST) --processes $(JOBS) --state ../results/fuzz_$(FIRST).json

fuzz-engine: ## random programs on engine and twin: 20,000 of each kind, and 100,000 sequences of all operations (some minutes)
	FASTSCALAR_EXAMPLES=20000 $(LONG) fuzz-engine --tests tests/property/test_random_programs.py
	$(LONG) fuzz-sequences --each 0 1 2 3 4 5 6 7 8 9 -- $(PYTHON) tests/helpers/fuzzing_engine.py 10000 {}0000

fuzz-files: ## 20,000 mutated models, IDX, PGM and other image files, and runs, with limits of time and memory (some minutes)
	$(LONG) fuzz-files --each 1 2 3 4 -- $(PYTHON) tests/helpers/fuzzing.py build/fuzz-files/{} 5000 {}

fuzz-programs: ## 20,000 mutated programs, which are called, and checkpoints, which are trained on with (some minutes)
	$(LONG) fuzz-programs --each 1 2 -- $(PYTHON) tests/helpers/fuzzing_programs.py build/fuzz-programs/{} 10000 {}

kill: ## a training run killed at every point between two operations on files; with each optimiser at 500 random moments
	$(LONG) kill --each every overwrite interrupt random momentum decay adam adamw rmsprop patience \
		-- sh -c 'rm -rf build/kill/{} && $(PYTHON) tests/helpers/killing.py {} build/kill/{} 500'

kill-ranks: ## one of two MPI processes killed at 50 random moments: the other ends too (needs mpi4py and mpich)
	FASTSCALAR_KILLS=50 $(LONG) kill-ranks --tests tests/nn/test_ranks.py

forks: ## 200 child processes in each state of the other threads (some minutes)
	FASTSCALAR_FORKS=200 $(LONG) forks --tests tests/stress/test_forks.py

interrupts: ## 10,000 interrupts at random moments of every long call (a quarter of an hour)
	FASTSCALAR_INTERRUPTS=10000 $(LONG) interrupts --tests tests/stress/test_interrupts.py

prove: ## every check of docs/reliability.md, and its table (a day and more; goes on where it was stopped)
	$(PYTHON) tools/prove.py

# Builds that watch themselves, each in build/KIND, the one in place stays as it is: see tools/instrumented.py.

ROOMS = engine arrays program transforms nn property

sanitize: ## the tests under AddressSanitizer and UndefinedBehaviorSanitizer (needs GCC; an hour)
	$(LONG) sanitize --each $(ROOMS) datasets -- $(PYTHON) tools/instrumented.py address -m pytest -q -p no:cacheprovider tests/{}

checked: ## the tests in a build that checks bounds, None, every invariant, and that nothing stays behind
	$(LONG) checked --each $(ROOMS) -- $(PYTHON) tools/instrumented.py checked -m pytest -q -p no:cacheprovider tests/{}

checked-stress: ## the same in stress mode
	FASTSCALAR_STRESS=all $(LONG) checked-stress --each $(ROOMS) -- \
		$(PYTHON) tools/instrumented.py checked -m pytest -q -p no:cacheprovider tests/{}

processors: ## the baseline kernels by each compiler at hand, with qemu on other processors: the same bits (some minutes)
	$(LONG) processors --each digests -- $(PYTHON) tests/helpers/processors.py

coverage: ## lines of Python and of .pyx that the tests run, by room (hours; needs coverage.py: pip install coverage)
	$(LONG) coverage --each $(ROOMS) cli datasets article play stress -- $(PYTHON) tools/covered.py {}
	$(PYTHON) tools/covered.py report

memcheck: ## a fixed tour of the package under valgrind's memcheck (some minutes)
	$(LONG) memcheck --each tour -- $(PYTHON) tests/helpers/memcheck.py --valgrind

accuracy: ## the recipes of examples/mnist_recipes.py with three seeds each, and a table (half an hour; needs MNIST)
	$(LONG) accuracy --each $(foreach recipe,defaults mlp mlp-augmented convolutional,$(foreach seed,0 1 2,$(recipe)/$(seed))) \
		-- sh -c '$(PYTHON) examples/mnist_recipes.py $$(dirname {}) --seed $$(basename {})'
	$(PYTHON) benchmarks/accuracy.py results/accuracy-*.jsonl

oracle: ## compare with PyTorch (needs torch: pip install torch==2.13.0)
	$(PYTEST) tests/oracle

lint: ## ruff, cython-lint
	$(PYTHON) -m ruff check .
	PATH="$(BIN):$$PATH" cython-lint src/fastscalar

stubs: ## what is written down of the operation table: stubs, typed functions, docs/functions.md (after a build)
	$(PYTHON) tools/stubs.py

types: ## mypy, strict for what users write, and the stubs against what the modules really have
	$(PYTHON) -m mypy
	$(PYTHON) tests/typing/programs.py
	$(PYTHON) -m mypy.stubtest fastscalar._core fastscalar.math fastscalar.engine._traced fastscalar.engine._operands \
		fastscalar.engine._array_ops fastscalar.engine._array fastscalar.engine._axes fastscalar.engine._images \
		fastscalar.engine._step \
		fastscalar.engine._rules fastscalar.engine._inspect fastscalar.engine._anomaly fastscalar.engine._functions \
		fastscalar.engine._lock fastscalar.engine._modes fastscalar.engine._random \
		fastscalar.engine.testing fastscalar.program._graph fastscalar.program._trace fastscalar.program._items fastscalar.program._plan \
		fastscalar.program._lower fastscalar.program._replay fastscalar.program._one_row fastscalar.program._called fastscalar.program._iterate \
		fastscalar.program._data fastscalar.program._beats fastscalar.datasets._moved \
		--ignore-missing-stub --mypy-config-file pyproject.toml \
		--allowlist tests/stubtest-allowlist.txt

docs: ## the pages as a site with search, in build/site/html (pip install -e '.[docs]'); LINKS=1 asks each address too
	$(PYTHON) tools/site.py $(if $(LINKS),--links)

wheels: ## a wheel for each Python at hand, in dist/, each tried in an empty environment without a compiler (TWICE=1)
	PATH="$(BIN):$$PATH" $(PYTHON) tools/wheels.py $(if $(TWICE),--twice)

bench: ## all benchmarks (pytest-benchmark); results are checked before they are timed
	$(PYTEST) benchmarks -p no:xdist

bench-check: ## every benchmark once in its smallest size, checks included, no timing
	$(PYTEST) benchmarks --benchmark-disable -q -n $(JOBS)

bench-compare: ## build REV=... and the working tree, and time both in turn (COUNT=1: count their instructions)
	@test -n "$(REV)" || { echo "say with which version: make bench-compare REV=HEAD~1" >&2; exit 2; }
	$(PYTHON) benchmarks/compare.py $(if $(COUNT),--instructions) $(REV) $(WORKLOADS)

bench-tables: ## what docs/performance.md and README.md show: ten minutes, then tables, picture and kept figures (THOROUGH=1: longer)
	$(PYTEST) benchmarks $(if $(THOROUGH),,--short) -p no:xdist --benchmark-json=$(FIGURES)/all.json
	$(PYTHON) benchmarks/scaling.py $(if $(THOROUGH),,--short) --json $(FIGURES)/scaling.json --picture docs/scaling.svg
	$(PYTHON) benchmarks/ceiling.py --json $(FIGURES)/ceiling.json
	$(PYTHON) benchmarks/tables.py $(FIGURES)/all.json $(FIGURES)/scaling.json $(FIGURES)/ceiling.json --keep $(KEPT)

profile: ## instructions of the fixed workloads, counted by valgrind (WORKLOADS=... for some)
	$(PYTHON) benchmarks/instructions.py $(WORKLOADS)

annotate: ## Cython's HTML: what in the extensions still calls Python
	FASTSCALAR_ANNOTATE=1 $(PYTHON) setup.py build_ext --inplace --force

clean: ## remove what a build leaves
	rm -rf build src/*.egg-info
	find src -name '*.so' -delete
	find src -name '*.pyx' | while read -r module; do rm -f "$${module%.pyx}.c" "$${module%.pyx}.html"; done
