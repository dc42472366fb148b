# Needs Python 3.11 or newer and nothing else: everything is installed into .venv, nothing elsewhere.
# PYTHON=/path/to/python chooses the interpreter, ARGS="..." is handed on to the demo or to pytest.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test gpu check docs sanitize bench quality clean

VENV := .venv
PYTHON ?= python3 python3.13 python3.12 python3.11 python
ARGS ?=

# Written last: an environment without it was interrupted half-way and is made anew.
READY := $(VENV)/.ready
# The native step, compiled again where its sources are newer; without a compiler it is left out.
SOURCES := src/twofold/nn/native
NATIVE := $(VENV)/.native

help: ## list these targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' Makefile

demo: $(NATIVE) ## train a tied autoencoder on images and show what it can do (ARGS="--epochs 2")
	@$(VENV)/bin/twofold demo $(ARGS)

test: $(NATIVE) ## run the tests (ARGS="-k schema")
	@$(VENV)/bin/python -m pytest -n 2 --dist worksteal $(ARGS)

gpu: $(NATIVE) ## run the tests of everything that a GPU computes; they are skipped where there is none
	@$(VENV)/bin/python -m pytest -n 0 -m gpu $(ARGS)

check: $(READY) ## formatting, lint, types and the layers that imports keep to
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy --strict src
	$(VENV)/bin/lint-imports --no-cache --no-logo

docs: $(READY) ## build the documentation site into build/site; warnings are errors
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet && echo "build/site/index.html"

sanitize: $(NATIVE) ## run the native step's C tests under the address, undefined-behaviour and thread sanitizers
	@TWOFOLD_SANITIZE=1 $(VENV)/bin/python -m pytest -n 0 tests/nn/native/test_check.py $(ARGS)

bench: $(NATIVE) ## time twofold against its peers, about 20 minutes (ARGS="--quick" for a trial)
	@$(VENV)/bin/python bench/speed.py $(ARGS)

quality: $(NATIVE) ## measure how good scores, fillings and codes are beside peers, a day on two cores (ARGS="--quick")
	@$(VENV)/bin/python bench/quality.py $(ARGS)
	@$(VENV)/bin/python bench/quality.py --suite family $(ARGS)

clean: ## remove the environment and every cache
	rm -rf $(VENV) .venv-bench build dist .pytest_cache .mypy_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Candidates are run, not looked up: a name on the PATH may be a launcher with nothing behind it.
$(READY): pyproject.toml constraints.txt
	@for python in $(PYTHON) ""; do \
	  test -n "$$python" || break; \
	  "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
	    2>/dev/null && break; \
	done; \
	if test -z "$$python"; then \
	  echo "make: no Python 3.11 or newer that can make environments among: $(PYTHON)" >&2; \
	  echo "Install one (Debian and Ubuntu: with python3-venv) or name it: make PYTHON=/path/to/python" >&2; \
	  exit 1; \
	fi; \
	echo "Setting up $(VENV) with $$("$$python" --version); this happens once and takes a minute or two."; \
	rm -rf $(VENV) && "$$python" -m venv $(VENV)
	@$(VENV)/bin/python -m pip install -q -c constraints.txt -e ".[all,test]"
	@touch $(READY)

$(NATIVE): $(READY) $(wildcard $(SOURCES)/*.c $(SOURCES)/*.h) $(SOURCES)/build.py
	@$(VENV)/bin/python $(SOURCES)/build.py
	@touch $(NATIVE)
