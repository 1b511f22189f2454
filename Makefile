# Two commands do everything: `make demo` and `make test`. Both set up what is missing and reuse what is there.
SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.stepscope-installed
LINK := .typecheck/stepscope
export OMP_NUM_THREADS ?= 1
# Two processes share the tests; WORKERS=0 is one, which debuggers need.
WORKERS ?= 2
PYTEST := $(PY) -m pytest -q -n $(WORKERS) --dist worksteal

.PHONY: help setup chromium demo test check fast slow exhaustive browser format bench bench-findings clean

help:
	@echo "make demo    train the broken example and its fix, record both, open the dashboard (NO_VIEW=1: only record)"
	@echo "make test    all checks and all tests"
	@echo "make check   lint, layout and types             make fast    the fast tests"
	@echo "make slow    the slow tests                     make browser the tests that drive a browser"
	@echo "make exhaustive  thousands of random repetitions: kills, damaged files"
	@echo "make format  rewrite the code's layout          make bench   the benchmarks, as tables"
	@echo "make bench-findings  how often the findings tell what is wrong with broken runs, and accuse healthy ones"
	@echo "make clean   remove the environment and what was built"

setup: $(STAMP) $(LINK)

$(STAMP): pyproject.toml constraints.txt scripts/setup.sh
	@bash scripts/setup.sh $(VENV)

# mypy finds the namespace package here: see "explicit_package_bases" in pyproject.toml.
$(LINK):
	@mkdir -p $(@D) && ln -sfn .. $@

chromium:
	@bash scripts/chromium.sh

demo: setup
	@$(VENV)/bin/stepscope demo --out runs/demo $(if $(NO_VIEW),--no-view)

check: setup
	@echo "== lint";   $(PY) -m ruff check .
	@echo "== layout"; $(PY) -m ruff format --check .
	@echo "== types";  $(PY) -m mypy

# One run, so that the last line counts every test; tests/conftest.py puts the slow ones and the browser's last.
test: setup chromium check
	@echo "== tests"; $(PYTEST) -m "not exhaustive"

fast: setup
	@$(PYTEST) -m "not slow and not exhaustive and not browser"

slow: setup
	@$(PYTEST) -m "slow and not browser and not exhaustive"

exhaustive: setup
	@$(PYTEST) -m exhaustive

browser: setup chromium
	@$(PYTEST) -m browser

format: setup
	@$(PY) -m ruff check --fix . ; $(PY) -m ruff format .

bench: setup
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(PY) $$script || exit 1; done

bench-findings: setup
	@$(PY) benchmarks/bench_findings.py

clean:
	rm -rf $(VENV) .typecheck build dist *.egg-info
