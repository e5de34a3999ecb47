# What people type. Everything happens in .venv/ of this folder.
#
#   make image PROMPT="a fox reading a book under a tree"   one picture; its path is the last line
#   make test                                               the checks and the whole test suite
#   make lint                                               the checks alone
#   make clean                                              away with .venv/ and the caches
#
# `make image` also takes MODEL=name, SEED=number and OUT=file. PYTHON=... chooses the interpreter.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq install --constraint constraints.txt

# Taken as typed ($(value ...)) and handed over in the environment: a prompt may hold quotes and dollars.
PROMPT ?= a fox reading a book under a tree
override PROMPT := $(value PROMPT)
export PROMPT
MODEL ?= mini
SEED ?=
OUT ?=

.PHONY: image test lint clean
.DELETE_ON_ERROR:

image: $(VENV)/.product
	@$(BIN)/fluxone generate --model "$(MODEL)" $(if $(SEED),--seed "$(SEED)") $(if $(OUT),-o "$(OUT)") -- "$$PROMPT"

test: lint
	@$(BIN)/python -m pytest -q

lint: $(VENV)/.dev
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The first Python of 3.11 or later.
$(VENV)/.created:
	@for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "making $(VENV) with $$python" >&2; \
	    $$python -m venv --clear $(VENV) >&2 && touch $@; exit; \
	  fi; \
	done; echo "found no Python of 3.11 or later; install one, or name it: make PYTHON=/path/to/python" >&2; exit 2

$(VENV)/.product: $(VENV)/.created pyproject.toml constraints.txt
	@echo "installing fluxone; the first time takes a minute or two" >&2
	@$(PIP) --editable . >&2
	@touch $@

$(VENV)/.dev: $(VENV)/.created pyproject.toml constraints.txt
	@echo "installing fluxone and what its tests need; the first time takes a few minutes" >&2
	@$(PIP) --editable '.[dev]' >&2
	@touch $@ $(VENV)/.product
