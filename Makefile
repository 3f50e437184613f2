# Every command of the project. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
GROUPS := test lint bench build

.DEFAULT_GOAL := help
.PHONY: help demo serve test soak lint bench studio screenshots train results lock clean

help: ## show the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1	\2/' | expand -t 16

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Meshkiln needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version 2>&1`. Try make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# What a user has: the package and nothing else.
$(VENV)/.installed: $(VENV)/pyvenv.cfg pyproject.toml locks/run.txt
	@echo "installing meshkiln into $(VENV)"
	@$(PIP) install --require-hashes -r locks/run.txt
	@$(PIP) install --no-deps --editable .
	@touch $@

# What a server has besides.
$(VENV)/.server: $(VENV)/.installed locks/serve.txt
	@echo "installing the server into $(VENV)"
	@$(PIP) install --require-hashes -r locks/serve.txt
	@touch $@

# What a developer has besides: tests, linters, the benchmarks' peers.
$(VENV)/.developer: $(VENV)/.installed locks/develop.txt
	@echo "installing the tools for tests and benchmarks into $(VENV)"
	@$(PIP) install --require-hashes -r locks/develop.txt
	@touch $@

demo: $(VENV)/.installed ## a picture becomes a mesh, once: GLB, the same again, then STL; results in out/
	@$(BIN)/python examples/demo.py

serve: $(VENV)/.server ## serve over HTTP at 127.0.0.1:8081
	@$(BIN)/meshkiln serve

test: $(VENV)/.developer ## the fast tests (under 5 minutes on 2 cores)
	@$(BIN)/python -m pytest -n 2 --dist worksteal

soak: $(VENV)/.developer ## long fuzz and kill tests
	@$(BIN)/python -m pytest -m soak --timeout 3600

lint: $(VENV)/.developer ## format, lint, types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/.developer ## every claim, measured here (MESHKILN_DATA names the folder of real data)
	@$(BIN)/python -m benchmarks

studio: ## build the pages in web/ into src/meshkiln/studio (wants node 20 or newer; nobody else does)
	@cd web && npm ci --silent --no-audit --no-fund && npm run --silent check && npm run --silent build

screenshots: $(VENV)/.developer ## take the pictures of the pages for docs/ (wants Chromium)
	@PYTHONPATH=tests $(BIN)/python -m screenshots

train: ## name the commands that make the bundled weights, with hours for 2 cores
	@sed -n '/^| step/,/^$$/p' training/README.md

results: $(VENV)/.developer ## write README's table of claims and the measured part of docs/recipes.md from benchmarks/results
	@$(BIN)/python -m benchmarks.claims --write
	@$(BIN)/python benchmarks/recipes_report.py

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-header --no-annotate pyproject.toml

lock: $(VENV)/.developer ## resolve the lock files anew from pyproject.toml
	@$(LOCK) -o locks/run.txt
	@$(LOCK) --extra serve -o locks/serve.txt
	@$(LOCK) --extra serve --extra otel $(addprefix --group ,$(GROUPS)) -o locks/develop.txt

clean: ## remove the environment and everything made
	rm -rf $(VENV) out build dist
