# `make run` needs Python 3.11 or newer and a C++ compiler; `make help` lists the rest.
#   PYTHON=...               the Python to build .venv with (default: python3)
#   HOST=... PORT=...        where `make run` serves
#   LLAMA_CPP_WHEEL_INDEX=.. an index with prebuilt wheels of llama-cpp-python, instead of compiling it

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := extension/_build
# demo-model brings torch, for the tests of the training script; without it they are skipped. On Linux the package index
# has torch with CUDA, which is large: set PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS to where a CPU build is.
TEST_EXTRAS ?= lab,llama-cpp,test,demo-model
MODEL ?= xinfer-demo

.DEFAULT_GOAL := help
.PHONY: help run test lint lint-python lint-labextension chromium nginx environment test-environment constraints clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Ctrl-C ends it without a question. Jupyter refuses root unless told otherwise; a container often has no other user.
RUN_OPTIONS = --ServerApp.answer_yes=True $(if $(filter command,$(origin HOST)),--host $(HOST)) $(if $(filter command,$(origin PORT)),--port $(PORT)) \
	$(if $(filter 0,$(shell id -u)),--allow-root)

run: environment ## JupyterLab with a small demo model running; Ctrl-C ends both
	@exec $(BIN)/jupyter xinfer local --launch $(MODEL) $(RUN_OPTIONS)

test: lint chromium nginx ## everything that must pass: lint, then the tests of the JupyterLab extension and of Python
	$(BIN)/python $(TOOLS)/labextension_assets.py --run run test
	$(BIN)/python -m pytest

lint: lint-python lint-labextension ## ruff, mypy; eslint, prettier and tsc of the JupyterLab extension

lint-python: test-environment
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

lint-labextension: test-environment
	$(BIN)/python $(TOOLS)/labextension_assets.py --run run lint

chromium: ## install Chromium and a font, for the browser tests, where they are missing (apt-get)
	@sh tests/install_chromium.sh

nginx: ## install nginx, for the tests behind it, where it is missing (apt-get)
	@sh tests/install_nginx.sh

environment: python-is-new-enough
	@$(PYTHON) $(TOOLS)/install_venv.py --venv $(VENV) --extras lab,llama-cpp

test-environment: python-is-new-enough
	@$(PYTHON) $(TOOLS)/install_venv.py --venv $(VENV) --extras $(TEST_EXTRAS) --node

.PHONY: python-is-new-enough
python-is-new-enough:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1); Python 3.11 or newer is needed: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }

constraints: ## resolve the newest versions of all dependencies into constraints.txt
	rm -rf build/constraints
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/pip install '.[$(TEST_EXTRAS)]'
	{ sed -n '/^#/p' constraints.txt; build/constraints/bin/pip freeze --exclude jupyter-xinfer | sed "s/+cpu//"; } > build/constraints.txt
	mv build/constraints.txt constraints.txt
	rm -rf build/constraints

clean: ## remove everything generated, .venv included
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -rf extension/jupyter_xinfer/labextension extension/labextension/node_modules extension/labextension/lib
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
