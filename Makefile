# make help lists the targets.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help

.PHONY: help
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: setup
setup: $(INSTALLED)  ## install everything into .venv, at the versions of constraints.txt (about 6 GB the first time)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is required. Choose one with make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
	@touch $@

.PHONY: train
train: setup  ## fine-tune a tiny network on rendered rooms, with table and pictures; downloads only packages
	$(BIN)/python train.py experiment=quick_start

.PHONY: pipeline
pipeline: setup  ## teacher, labels, student, fine-tune and evaluation at toy size, 20 minutes; resumes
	$(BIN)/python benchmarks/pipeline.py

.PHONY: test
test: setup  ## run the test suite (pytest arguments in ARGS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow and not timed' $(ARGS)
	$(if $(ARGS),,$(BIN)/python -m pytest -m timed)

.PHONY: test-slow
test-slow: setup  ## run the slow tests
	$(BIN)/python -m pytest -m slow --timeout 3600 $(ARGS)

.PHONY: bench
bench: setup  ## run the benchmarks that need no GPU, with few repeats (half an hour)
	for name in sample forward training_step growth; do $(BIN)/python benchmarks/$$name.py --repeats 2 || exit 1; done

.PHONY: lint
lint: setup  ## run ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: docs
docs: setup  ## build the documentation into build/site; a dead link or a missing reference is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.PHONY: constraints
constraints: setup  ## pin the installed versions in constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable > constraints.txt

.PHONY: clean
clean:  ## remove the environment and caches; keep runs and data
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache
