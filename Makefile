# Two commands set everything up: `make demo` and `make test`. Both need Python 3.11+, a C++17 compiler and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml CMakeLists.txt $(shell find src cpp -type f -not -name '*.so' -not -path '*/__pycache__/*')

.PHONY: demo test lint bench simtest kill-test wheel docs core sanitize sanitize-core release clean

demo: $(VENV)/.installed
	$(BIN)/ami run --source synthetic --steps 5000 --seed 42

# One worker a processor; `make test WORKERS=0` runs everything in one process. Each worker begins with a run of neighbours,
# which share what a module sets up, and takes over from the other when it has no more.
WORKERS ?= auto
PARALLEL := -n $(WORKERS) --dist worksteal
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(PARALLEL)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check src tests docs
	$(BIN)/ruff format --check src tests docs
	$(BIN)/mypy

bench: $(VENV)/.installed-dev
	$(BIN)/python -m pytest benchmarks --benchmark-only

# The order layer against an exchange that fails: all seeds, then every planted bug, which must be found (exit code 1).
SEEDS ?= 10000
simtest: $(VENV)/.installed-dev
	$(BIN)/ami simtest --seeds $(SEEDS) --steps 200 --workers 2
	for bug in $$($(BIN)/ami simtest --list-mutants | cut -d' ' -f1); do \
	  $(BIN)/ami simtest --seeds 200 --steps 200 --workers 2 --mutant $$bug >/dev/null 2>&1; \
	  test $$? -eq 1 && echo "found $$bug" || { echo "NOT FOUND: $$bug"; exit 1; }; \
	done

# kill -9 at random moments of a process that trades over HTTP.
KILLS ?= 200
kill-test: $(VENV)/.installed-dev
	$(BIN)/python -m ami_engine.testing.kill_campaign --kills $(KILLS)

wheel: $(VENV)/.installed-dev
	$(BIN)/pip wheel --no-deps --wheel-dir dist .

# The site, in build/site; a link that leads nowhere is an error.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The compiled core beside the sources, for working on it with PYTHONPATH=src.
core:
	cmake -S . -B build/dev -DPython_EXECUTABLE=$$(command -v $(PYTHON)) >/dev/null
	cmake --build build/dev -j2
	@# A running process has the old file mapped: it is replaced, never overwritten.
	cp build/dev/_core*.so build/dev/.replace && mv build/dev/.replace src/ami_engine/$$(basename build/dev/_core*.so)

# The core's tests under AddressSanitizer and UndefinedBehaviorSanitizer; tests that start other programs are not for it,
# nor are those of the numba backend, which has nothing of the core in it.
# -O1: what the sanitizers' own manual advises; it keeps accesses that -O2 takes away, and is built in half the time.
SANITIZED := tests/features tests/book tests/backtest tests/loop/test_native_run.py \
  tests/loop/test_native_python_models.py tests/loop/test_native_trace.py
sanitize: sanitize-core
	PYTHONPATH=build/sanitize/tree LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	  $(BIN)/python -m pytest -q -p no:cacheprovider $(PARALLEL) -k 'not numba' $(SANITIZED)

sanitize-core: $(VENV)/.installed-dev
	cmake -S . -B build/sanitize -DAMI_SANITIZE=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	  -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g1 -DNDEBUG" \
	  -DPython_EXECUTABLE=$$(command -v $(BIN)/python) >/dev/null
	cmake --build build/sanitize -j2
	rm -rf build/sanitize/tree && mkdir build/sanitize/tree && cp -r src/ami_engine src/decision_schema build/sanitize/tree
	rm -f build/sanitize/tree/ami_engine/_core*.so && cp build/sanitize/_core*.so build/sanitize/tree/ami_engine

# Everything that a release has to show on this machine; see docs/PUBLIC_RELEASE_GUIDE.md.
release:
	bash .ci/release dist/release

clean:
	rm -rf build dist $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(SOURCES) | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check .
	touch $@

$(VENV)/.installed-docs: $(SOURCES) | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check '.[docs]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: $(SOURCES) | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check '.[dev]'
	touch $@ $(VENV)/.installed
