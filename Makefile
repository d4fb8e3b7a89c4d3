# Everything runs in .venv, which is made on demand and brought up to date when what it is made of changes.
# `make PYTHON=python3.12 …` chooses the interpreter, `make test ARGS='-k decide'` passes arguments on.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
COMPILED := processor/decide.py processor/lookup.py $(shell find processor -name '*.pyx' -o -name '*.pxd')
CODE := processor tests $(wildcard benchmarks)
ARGS ?=
# Of the secret scan: they take test data and the names of settings for secrets.
GUESSES := KeywordDetector BasicAuthDetector HexHighEntropyString Base64HighEntropyString
# Trials wait more than they compute: more at once than there are processors.
AT_ONCE ?= 3
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; break; }; done)

export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: help install demo test test-history security-test faults check audit format bench bench-peers stress bench-docs clean

help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 15

install: $(INSTALLED) ## Make the virtual environment

$(INSTALLED): pyproject.toml constraints.txt hatch_build.py $(COMPILED) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Tidemark needs Python 3.11 or later: install it, or name it: make PYTHON=…" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Tidemark needs Python 3.11 or later; $(PYTHON) is not." >&2; exit 1; }
	"$(PYTHON)" -m venv --clear $(VENV)

demo: $(INSTALLED) ## See it work: a broker in the process, a store in a temporary file
	tidemark demo $(ARGS)

test: $(INSTALLED) ## Run the tests; the last lines say what was left out
	pytest $(ARGS)

test-history: $(INSTALLED) ## Run the pipeline over the real input (TIDEMARK_HISTORY names the file)
	pytest -m history tests/pipeline $(ARGS)

security-test: $(INSTALLED) ## Try what each role and account can do, and can't, at a real broker and PostgreSQL
	pytest tests/security $(ARGS)

faults: export TIDEMARK_TEST_FAULT_REPEATS ?= 20
faults: export TIDEMARK_TEST_SEEDS ?= 20000
faults: $(INSTALLED) ## Try every fault, many times; a whole run writes docs/faults.md
	@rm -f $(VENV)/faults.xml
	@status=0; pytest -m 'faults or simulation' -n $(AT_ONCE) --dist worksteal \
		-o junit_family=xunit1 --junitxml=$(VENV)/faults.xml $(ARGS) || status=$$?; \
		python -m tests.faults.results $(if $(strip $(ARGS)),,--write) $(VENV)/faults.xml || status=1; exit $$status

check: $(INSTALLED) ## Lint, types, layers, dead code, dependencies, secrets, known vulnerabilities
	ruff check .
	ruff format --check .
	mypy $(CODE)
	lint-imports
	vulture $(CODE)
	deptry processor
	detect-secrets-hook --no-verify $(foreach plugin,$(GUESSES),--disable-plugin $(plugin)) $$(git ls-files)
	@$(MAKE) --no-print-directory audit

audit: $(INSTALLED) ## Look for known vulnerabilities in what is installed; left out where there is no network
	@said=$$(timeout 90 pip-audit --local --skip-editable --timeout 5 --progress-spinner off 2>&1) && found=0 || found=$$?; \
	unknown=$$(grep -c "could not be audited" <<< "$$said" || true); \
	[ "$$unknown" = 0 ] || echo "audit: left out $$unknown packages, which the service does not know"; \
	case "$$found $$said" in \
		0*) echo "audit: no known vulnerability in what it knows";; \
		*"known vulnerabilit"*) echo "$$said"; exit 1;; \
		*) echo "audit: left out, as the vulnerability service does not answer";; esac

format: $(INSTALLED) ## Put the code in form
	ruff check --fix .
	ruff format .

bench: $(INSTALLED) ## Measure, and print floor, goal and measured for each row
	python -m benchmarks $(ARGS)

bench-peers: $(INSTALLED) ## Measure Tidemark beside what could be picked instead; installs that the first time
	python -m benchmarks.peers $(ARGS)

stress: $(INSTALLED) ## Load a worker on SQLite, then one on PostgreSQL, for five minutes each, and check all they do
	python -m benchmarks.stress $(ARGS)

bench-docs: $(INSTALLED) ## Put the last measured tables and plots into docs/performance.md
	python -m benchmarks.document

clean: ## Remove what was made
	rm -rf $(VENV) $(shell find processor -name '*.so') .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

# --- running it elsewhere

.PHONY: chart-test

chart-test: $(INSTALLED) ## Check the chart; builds Helm and the others by Go the first time
	pytest -m chart tests/chart $(ARGS)

# --- how it grows

.PHONY: scale-test capacity

scale-test: $(INSTALLED) ## Measure 1 to 8 workers that join, leave and crash under load; writes .build/scale.json
	pytest -m scale tests/scale $(ARGS)
	python -m tests.scale.report

capacity: $(INSTALLED) ## Print the capacity model; ARGS='--measure --write' measures its inputs and writes docs/scaling.md
	python -m benchmarks.capacity $(ARGS)

.PHONY: image-test cluster-test

image-test: $(INSTALLED) ## Build the image with a Docker engine, and let it work
	pytest -m image tests/image $(ARGS)

cluster-test: $(INSTALLED) ## Install into the cluster of KUBECONFIG, and disturb it under load
	pytest -m cluster tests/chart $(ARGS)
