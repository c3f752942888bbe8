# The developer's commands, the same here and in continuous integration.
# Each builds .venv in this checkout first, once per change of pyproject.toml or constraints.txt.

PYTHON      ?= python3
TORCH_INDEX ?=
ARGS        ?=

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP   := $(BIN)/python -m pip install --no-input --disable-pip-version-check --quiet -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test check bench docs clean

help: ## list the commands
	@echo "Commands (each builds $(VENV) here first):"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST)
	@echo "Settings:"
	@echo "  TORCH_INDEX=URL	take torch from this package index, for CPU-only machines;"
	@echo "			PyTorch's page lists them: https://pytorch.org/get-started/locally/"
	@echo "  PYTHON=python3.12	build $(VENV) with this Python (3.11 or newer)"
	@echo "  ARGS='-k chat'	more arguments for pytest (make test) or for dormant run (make demo)"

demo: $(STAMP) ## the quick experiment: implant, defend, measure, report, into runs/demo
	$(BIN)/dormant run quick --out runs/demo $(ARGS)

test: $(STAMP) ## the test suite in two processes, without the tests marked slow
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(STAMP) ## ruff, mypy strict on the package, the architecture test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

bench: $(STAMP) ## ratios against stock TRL and generate, one JSON line last
	$(BIN)/python benchmarks/bench.py $(ARGS)

docs: $(VENV)/.docs ## the documentation site, into site/; every broken link is an error
	$(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

clean: ## remove .venv and the tools' caches; runs/ stays
	rm -rf $(VENV) dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -type d -name __pycache__ -exec rm -rf {} +

# torch comes alone and first where an index is named, because such an index has other versions of the rest.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "dormant needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..." >&2; exit 2; }
	@echo "Building $(VENV) in $(CURDIR) (happens once; torch is large, so this takes minutes)"
	@$(PYTHON) -m venv $(VENV)
	@if [ -n "$(TORCH_INDEX)" ]; then $(PIP) --no-deps --index-url "$(TORCH_INDEX)" torch; fi
	@$(PIP) -e '.[dev,scan]'
	@touch $@

$(VENV)/.docs: $(STAMP)
	@$(PIP) -e '.[docs]'
	@touch $@
