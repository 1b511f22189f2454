# Two commands do everything: `make demo` and `make test`. Both set up what is missing and reuse what is there.
SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.stepscope-installed
export OMP_NUM_THREADS ?= 1
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: demo test check fast slow browser format bench setup chromium clean help

help:
	@echo "make demo    train the broken example and its fix, record both, open the dashboard (NO_VIEW=1: only record)"
	@echo "make test    set up, then all checks and tests, the browser's included"
	@echo "make check   lint, format and types only        make fast   the fast tests only"
	@echo "make bench   the benchmarks, as tables          make format rewrite the code's layout"

setup: $(STAMP) .typecheck/stepscope

$(STAMP): pyproject.toml constraints.txt scripts/setup.sh
	@bash scripts/setup.sh $(VENV)
	@touch $@

.typecheck/stepscope:
	@mkdir -p .typecheck && ln -sfn .. .typecheck/stepscope

chromium:
	@bash scripts/chromium.sh

demo: setup
	@$(VENV)/bin/stepscope demo --out runs/demo $(if $(NO_VIEW),--no-view)

check: setup
	@echo "== lint"; $(PY) -m ruff check .
	@echo "== format"; $(PY) -m ruff format --check .
	@echo "== types"; $(PY) -m mypy

fast: setup
	@$(PY) -m pytest -q -m "not slow and not browser"

slow: setup
	@$(PY) -m pytest -q -m "slow and not browser"

browser: setup chromium
	@$(PY) -m pytest -q -m browser

test: check chromium
	@echo "== fast tests"; $(PY) -m pytest -q -m "not slow and not browser"
	@echo "== slow tests"; $(PY) -m pytest -q -m "slow and not browser" || [ $$? -eq 5 ]
	@echo "== browser tests"; $(PY) -m pytest -q -m browser || [ $$? -eq 5 ]

format: setup
	@$(PY) -m ruff check --fix . ; $(PY) -m ruff format .

bench: setup
	@for script in benchmarks/*.py; do echo "== $$script"; $(PY) $$script || exit 1; done

clean:
	rm -rf $(VENV) .typecheck build *.egg-info
