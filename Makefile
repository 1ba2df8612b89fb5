# `make help` lists what there is. `make check` is all that CI runs, in this order.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

UV_VERSION := 0.13.9
BIN := .venv/bin
PYTHON ?= python3
CODE := src tests bench tools clients/python/examples
GOOGLE := build/third_party/google

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- set up ----------------------------------------------------------------------------------------------

.PHONY: setup
setup: .venv/.ready ## create .venv with everything pinned in requirements.lock

.venv/.ready: requirements.lock pyproject.toml clients/python/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "hydrasms needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another with: make PYTHON=python3.12 setup")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@echo "setting up .venv ..."
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e clients/python -e .
	@touch $@

.PHONY: lock
lock: ## renew requirements.lock from the pyproject files
	$(BIN)/uv pip compile --quiet pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-package hydrasms-client --no-emit-index-url --custom-compile-command "make lock" \
		-o requirements.lock

# ---- run -------------------------------------------------------------------------------------------------

.PHONY: serve
serve: setup ## run everything on SQLite with the simulated carrier; prints a key and a first curl
	@exec $(BIN)/hydrasms serve

# ---- test ------------------------------------------------------------------------------------------------

.PHONY: test
test: setup ## every test that needs no outside service
	$(BIN)/python -m pytest

.PHONY: test-all
test-all: setup ## every test, on SQLite and on a PostgreSQL server of its own
	$(BIN)/python -m tools.postgres $(BIN)/python -m pytest

.PHONY: check
check: setup format-check lint types imports proto-lint proto-breaking proto-check docs-check test-all ## all that CI runs

.PHONY: format
format: setup ## rewrite the code and the protos in the house format
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix --quiet $(CODE)
	$(BIN)/buf format --write proto

.PHONY: format-check
format-check: setup
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/buf format --diff --exit-code proto

.PHONY: lint
lint: setup
	$(BIN)/ruff check $(CODE)

.PHONY: types
types: setup
	$(BIN)/mypy $(CODE)

.PHONY: imports
imports: setup
	$(BIN)/lint-imports

# ---- protos ----------------------------------------------------------------------------------------------

# The protos of google.api and google.rpc come with their Python package; they are copied, never committed.
.PHONY: third-party
third-party: setup
	@mkdir -p $(GOOGLE)/api $(GOOGLE)/rpc
	@site=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])') && \
		cp $$site/google/api/annotations.proto $$site/google/api/http.proto $(GOOGLE)/api/ && \
		cp $$site/google/rpc/status.proto $(GOOGLE)/rpc/

.PHONY: proto
proto: third-party ## generate the stubs from the protos
	$(BIN)/buf generate
	$(BIN)/python tools/docs_errors.py --write

.PHONY: proto-lint
proto-lint: third-party
	$(BIN)/buf lint

.PHONY: proto-breaking
proto-breaking: third-party ## compare the protos with the baseline of the last release
	$(BIN)/buf breaking proto --against proto/baseline.binpb

.PHONY: proto-baseline
proto-baseline: third-party ## renew the baseline, at a release
	$(BIN)/buf build proto --exclude-source-info -o proto/baseline.binpb

.PHONY: proto-check
proto-check: third-party ## fail where the committed stubs are not what the protos generate
	@rm -rf build/generated && mkdir -p build/generated
	@$(BIN)/buf generate --output build/generated
	@diff -r -x __pycache__ build/generated/clients/python/gen clients/python/gen || \
		{ echo "the committed stubs differ from the protos: run make proto and commit what it changes" >&2; exit 1; }

.PHONY: docs-check
docs-check: setup
	$(BIN)/python tools/docs_errors.py

# ---- measure and break -----------------------------------------------------------------------------------

.PHONY: bench
bench: setup ## measure against bare baselines, with a table and JSON
	$(BIN)/python -m bench

.PHONY: faults
faults: setup ## the long form of what it must survive, on both databases: an hour or two, as root
	$(BIN)/python -m tools.postgres $(BIN)/python -m pytest -m faults -o addopts="-ra --strict-markers --strict-config --import-mode=importlib" tests

.PHONY: soak
soak: setup ## steady load for HOURS (default 8), watching memory and sums
	$(BIN)/python -m bench.soak --hours $${HOURS:-8}
