# The developer's whole manual. Needs Python 3.11, git and make; everything else is installed from here.
#
#   make setup    the bot in .venv, the exporter's environment in the user cache
#   make demo     a real trained model becomes a pull request on a local Hub
#   make test     all tests (bot, local Hub, exporter, end to end)
#   make lint     formatting, rules, types, boundaries
#   make format   let ruff write the formatting
#   make bench    time and memory against optimum-cli
#   make breadth  every architecture Optimum knows, side by side with optimum-cli (long)
#   make readers  sentence-transformers and transformers.js read what we export (needs Node and npm)
#   make fixtures-v5  make the reference outputs of transformers 5 again, in an environment of their own
#   make clean    remove what these made in the checkout

PYTHON ?= python3.11
VENV := .venv
EXPORTER_VENV := .venv-exporter
BIN := $(VENV)/bin
PYTEST_FLAGS ?= -q

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-bot test-exporter test-e2e lint format bench breadth readers fixtures-v5 clean

help:
	@sed -n 's/^#   //p' $(firstword $(MAKEFILE_LIST))

# The bot, its server and the developer's tools. The stamp is touched last: an interrupted install starts again.
$(VENV)/.installed: pyproject.toml exporter/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e exporter -e '.[server,dev]'
	touch $@

setup: $(VENV)/.installed
	$(BIN)/modelexport-bot setup

# The exporter's environment plus pytest, for the exporter's own tests: the dependencies are the cached ones, by path.
$(EXPORTER_VENV)/.installed: $(VENV)/.installed bot/modelexport_bot/exporter.lock exporter/tests-requirements.txt
	$(PYTHON) -m venv $(EXPORTER_VENV)
	$(EXPORTER_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r exporter/tests-requirements.txt
	$(EXPORTER_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e exporter
	exporter=$$($(BIN)/modelexport-bot setup | tail -n 1) && \
	  $$exporter -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' \
	  > $(EXPORTER_VENV)/lib/python3.11/site-packages/exporter-dependencies.pth
	touch $@

demo: setup
	$(BIN)/python -m demo

test: test-bot test-exporter test-e2e

# The local Hub is also tried with the client that the exporter's environment has, hence the interpreter.
test-bot: setup
	MODELEXPORT_EXPORTER_PYTHON=$$($(BIN)/modelexport-bot setup | tail -n 1) \
	  $(BIN)/python -m pytest $(PYTEST_FLAGS) tests/hub
	$(BIN)/python -m pytest $(PYTEST_FLAGS) tests/bot

test-exporter: $(EXPORTER_VENV)/.installed
	$(EXPORTER_VENV)/bin/python -m pytest $(PYTEST_FLAGS) tests/exporter

test-e2e: setup
	$(BIN)/python -m pytest $(PYTEST_FLAGS) tests/e2e

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(EXPORTER_VENV)/.installed
	$(EXPORTER_VENV)/bin/python -m bench

breadth: $(EXPORTER_VENV)/.installed
	$(EXPORTER_VENV)/bin/python -m tests.zoo.breadth

# Without their dependencies, which the exporter's environment has and they would replace.
build/readers/.installed: $(EXPORTER_VENV)/.installed tests/readers/requirements.txt
	$(EXPORTER_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	  --target build/readers/python -r tests/readers/requirements.txt
	npm install --silent --ignore-scripts --prefix build/readers @huggingface/transformers@4
	touch $@

readers: build/readers/.installed
	$(EXPORTER_VENV)/bin/python -m tests.readers build/readers

.venv-v5/.installed:
	$(PYTHON) -m venv .venv-v5
	.venv-v5/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 pillow sentencepiece pydantic
	touch $@

fixtures-v5: .venv-v5/.installed
	PYTHONPATH=exporter .venv-v5/bin/python -m tests.fixtures_v5.make

clean:
	rm -rf $(VENV) $(EXPORTER_VENV) .venv-v5 .demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
