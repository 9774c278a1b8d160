# One target per verb. `install` makes .venv; every other target uses it.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
# Arguments for the installation of torch alone, e.g. the index of its CPU-only builds.
TORCH_ARGS ?=
ARGS ?=
PROTOS := $(wildcard protos/*.proto)

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install serve test test-fast test-slow test-ray lint type fmt protos generate bench ci clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

install: $(STAMP) ## make .venv with the pinned versions

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Lacuna needs Python 3.11 or newer; $(PYTHON) is not. Try: make install PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt $(TORCH_ARGS) torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

serve: $(STAMP) ## serve the embedded models on this machine (ARGS="--port 9000")
	$(BIN)/lacuna serve $(ARGS)

test: test-fast test-slow test-ray ## every test, with Ray and end to end

test-fast: $(STAMP) ## the quick tests, which need neither Ray nor a GPU, on all cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not integration and not e2e and not gpu and not slow" -n auto $(ARGS)

test-slow: $(STAMP) ## the slow tests without Ray or a GPU, e.g. those that train, file by file on all cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow and not integration and not e2e and not gpu" -n auto --dist loadfile $(ARGS)

test-ray: $(STAMP) ## the tests with Ray, end to end, and with a GPU
	$(BIN)/python -m pytest -m "integration or e2e or gpu" $(ARGS)

lint: $(STAMP) ## ruff (rules and format) and the import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

type: $(STAMP) ## mypy, strict
	$(BIN)/mypy

fmt: $(STAMP) ## format the code and fix what ruff can fix
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

protos: $(STAMP) ## generate protos/*_pb2*.py(i) from protos/*.proto
	$(BIN)/python -m grpc_tools.protoc -I. --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
		--plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
		--python_out=. --grpc_python_out=. --mypy_out=. --mypy_grpc_out=. $(PROTOS)

generate: $(STAMP) ## write the pages, dashboard and chart schema that follow from the code
	$(BIN)/python -m deployments.settings_reference --write
	$(BIN)/python -m deployments.telemetry.catalog --write
	$(BIN)/python -m deployments.dashboard --write
	$(BIN)/python -m deployments.chart --write

bench: $(STAMP) ## replay the recorded runs of the reference implementations
	$(BIN)/python -m engine.bench $(or $(ARGS),goldens tests/goldens)

ci: lint type test ## what has to pass before a merge

clean: ## remove .venv, caches and build outputs
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
