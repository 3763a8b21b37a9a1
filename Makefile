PYTHON ?= python3
# One environment per interpreter, so that `make test PYTHON=python3.13` leaves .venv alone.
VENV := $(if $(filter python3,$(PYTHON)),.venv,.venv-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# What is linted; the folders with Python of ours.
CODE := src tests tools bench examples
# Further options for pytest, such as: make test TESTS='-k resume'
TESTS ?=
# Questions and options for the benchmarks, such as: make bench BENCH='fanout --rounds 15'
BENCH ?=
# Options for the kill test, such as: make chaos CHAOS='--engine redis --seconds 600 --seed 7'
CHAOS ?=
# Options for the fuzzer, such as: make fuzz FUZZ='--seconds 60 raw_frames'
FUZZ ?=

.DEFAULT_GOAL := help
.PHONY: help run setup dev test lint bench bench-codecs chaos fuzz conformance clean

help:           ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

run: setup      ## start the demo: a chat on http://localhost:8000
	@$(BIN)/hubbub serve --dev

setup: $(VENV)/.installed  ## make the virtual environment with `hubbub` in it

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Hubbub needs Python 3.11 or newer; name one with: make $(MAKECMDGOALS) PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade 'pip>=25.1'
	$(PIP) install --editable .
	@touch $@

dev: $(VENV)/.dev

$(VENV)/.dev: $(VENV)/.installed
	$(PIP) install --group dev
	@touch $@

test: lint      ## install what tests need, check the code and run all tests
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -m 'not alone' $(TESTS)
	@# Those that measure time, without company. 5: `TESTS` chose none of them.
	$(BIN)/python -m pytest -m alone $(TESTS) || [ $$? -eq 5 ]

lint: dev       ## style, types, layers, and whether generated files are fresh
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	MYPYPATH=tests:tools:bench:examples $(BIN)/mypy --explicit-package-bases $(CODE)
	$(BIN)/lint-imports
	$(BIN)/python tools/codes.py --check
	$(BIN)/python tools/options.py --check
	$(BIN)/python tools/schema.py --check

bench: dev      ## measure beside a server in bare C; needs a C compiler and Linux
	$(BIN)/python bench/run.py $(BENCH)

bench-codecs: dev  ## what JSON, MessagePack and Protobuf cost, in bytes and CPU
	$(BIN)/python bench/formats.py

chaos: dev      ## let everything fail under load, 3 minutes on each engine, and see that nothing is lost
	cd tests && ../$(BIN)/python -m chaos $(CHAOS)

fuzz: dev       ## throw 10 minutes of hostile input at everything that reads strangers' bytes
	@# Without a compiler: where there is no wheel, the fuzzer says what to do.
	@$(PIP) install --only-binary atheris --group fuzz 2>/dev/null || true
	@cd tests && ../$(BIN)/python -m fuzz $(FUZZ)

conformance: dev  ## the public Autobahn suite alone (it is part of `make test`)
	$(BIN)/python -m pytest -m conformance tests/conformance

clean:          ## remove everything that was made here, the environments too
	rm -rf .venv .venv-* build dist bench/build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .grimp_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
