# Every line here is what CI runs. VENV, PYTHON, SUITE and OUT can be set: make compare SUITE=real
PYTHON ?= python3
VENV ?= .venv
# the embedded corpus, or real speech if SERZOO_DATA names a folder of corpora
SUITE ?= $(if $(SERZOO_DATA),real,quickstart)
OUT ?= runs
# a published encoder if SERZOO_MODELS names a folder of models; WITH="key=value ..." sets anything
WITH ?= $(if $(SERZOO_MODELS),encoder=[whisper-base])
BIN = $(VENV)/bin
# two cores: two test processes with one thread each are faster than one with two
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM = false
export HF_HUB_DISABLE_TELEMETRY = 1
# what other processors do, as far as one can do it: torch without AVX, two code paths of MKL, and two
# threads; KERNELS=plain says nothing to anybody
KERNELS = KERNELS=plain ATEN_CPU_CAPABILITY=default MKL_CBWR=AVX2 MKL_CBWR=COMPATIBLE OMP_NUM_THREADS=2
NUMERIC = tests/heads tests/zoo/encoders tests/zoo/statistics tests/zoo/doctor \
	tests/datamodules/test_features.py $(addprefix tests/zoo/run/test_,adapt.py capability.py lanser.py \
	mixup.py module.py normalise.py parallel.py predict.py recordings.py score.py starting.py voice.py windows.py)

.PHONY: help install install-dev compare report test test-slow test-models test-kernels lint types wheel publish results screenshots notebooks docs clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip --constraint constraints.txt

# a stamp per set of extras: installed once, and again when the pins or the metadata change
$(VENV)/.quickstart: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[quickstart]'
	touch $@

$(VENV)/.dev: $(VENV)/.quickstart
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

install: $(VENV)/.quickstart  ## virtual environment with the library and the embedded corpus

install-dev: $(VENV)/.dev  ## and what tests, lint and types need

compare: $(VENV)/.quickstart  ## compare the heads (of real speech if SERZOO_DATA is set, on a published encoder if SERZOO_MODELS is)
	$(BIN)/serzoo compare $(SUITE) $(WITH) --out $(OUT)

report: $(VENV)/.quickstart  ## tabulate what a comparison has so far
	$(BIN)/serzoo report $(SUITE) --out $(OUT)

test: $(VENV)/.dev  ## the default tests
	$(BIN)/python -m pytest -m 'not slow and not models' -n 2

test-slow: $(VENV)/.dev  ## the slow tests
	$(BIN)/python -m pytest -m 'slow and not models' -n 2 --durations 12

test-models: $(VENV)/.dev  ## the tests on published weights (needs SERZOO_MODELS and SERZOO_DATA)
	$(BIN)/python -m pytest -m models --durations 12

test-kernels: $(VENV)/.dev  ## the numeric tests five times, each as another processor would round
	@for kernels in $(KERNELS); do \
		case $$kernels in OMP*) workers=1 ;; *) workers=2 ;; esac; \
		echo "== numeric tests with $$kernels"; \
		env $$kernels PYTHONFAULTHANDLER=1 $(BIN)/python -m pytest -m 'not slow' -n $$workers -q $(NUMERIC) \
			|| { echo "make test-kernels: red with $$kernels"; exit 1; }; \
	done

lint: $(VENV)/.dev  ## style, spelling, metadata
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell
	$(BIN)/validate-pyproject pyproject.toml

types: $(VENV)/.dev  ## mypy --strict on the installed wheel
	BIN=$(BIN) sh tests/types.sh

wheel: $(VENV)/.dev  ## build, install in an empty environment, import everything, quickstart
	BIN=$(BIN) PYTHON=$(PYTHON) sh tests/wheel.sh

publish: $(VENV)/.quickstart  ## pack a comparison into benchmarks/results
	$(BIN)/python benchmarks/publish.py pack $(OUT)/$(SUITE)

results: $(VENV)/.quickstart  ## compute all tables of benchmarks/results, into benchmarks/tables and into the pages
	$(BIN)/python benchmarks/publish.py tables
	$(BIN)/python benchmarks/publish.py pages

screenshots: $(VENV)/.dev  ## run the journeys of docs/ and take their pictures anew
	SERZOO_SCREENSHOTS=$(CURDIR)/benchmarks/screenshots $(BIN)/python -m pytest -m slow tests/test_journeys.py

notebooks: $(VENV)/.dev  ## run the notebooks of docs/ and keep what they print, for the site
	SERZOO_NOTEBOOKS=1 $(BIN)/python -m pytest -m slow tests/test_notebooks.py

docs: $(VENV)/.dev  ## the site, into build/site; broken links are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:  ## remove build products, not runs
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
