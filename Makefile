# `make demo` and `make test` set up their own virtual environment; a second call installs nothing.
# Another build of torch, or other versions:  make demo CONSTRAINTS=  (or your own file)

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin

export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Real data and reference outputs for the tests that need them; those tests are skipped elsewhere.
ifneq ($(realpath ../shared/data),)
export EFFICIENT_BERT_DATA ?= $(realpath ../shared/data)
endif
ifneq ($(realpath ../shared/golden),)
export GOLDEN_DIR ?= $(realpath ../shared/golden)
endif

.PHONY: demo demo-deploy test lint types wheel benchmark results clean help
.NOTPARALLEL: # the targets share one environment

demo: $(VENV)/.installed-offline ## Train, run and report on the synthetic task: no download of data or models
	$(BIN)/bench run --task demo
	@echo "Open $(CURDIR)/report/index.html in a browser."

demo-deploy: $(VENV)/.installed-offline ## After `make demo`: its models in ONNX Runtime, the verdict, and a folder to take away
	$(BIN)/bench run --task demo --method adapler --method static_depth --backend torch --backend onnxruntime-int8
	$(BIN)/bench advise runs --task demo --max-drop 0.03
	rm -rf served && $(BIN)/bench export "$$(ls -t runs | grep -m1 adapler-onnxruntime-int8)" --out served
	$(BIN)/python served/example.py "a film that is a joy from start to end"

test: lint types ## Every check: style, types, tests (with the wheel's contents and the documentation's commands)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

lint: $(VENV)/.installed-dev ## Style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev ## Types, strictly
	$(BIN)/mypy

wheel: $(VENV)/.installed-dev ## Build dist/*.whl
	$(BIN)/python -m build --wheel --no-isolation

benchmark: $(VENV)/.installed-dev ## Micro-benchmarks
	$(BIN)/python -m pytest tests/benchmarks/bench_*.py --benchmark-only -s

results: $(VENV)/.installed-offline ## Write the pages and figures of docs/results from the stored runs
	$(BIN)/python -m analysis.result_pages experiments results docs/results

clean: ## Remove the environment, builds and caches; runs/, artifacts/ and report/ stay
	rm -rf $(VENV) build dist .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## This list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1#\2/p' Makefile | column -t -s '#'

# An installation that was interrupted leaves .unfinished behind, and the next one starts over.
define install
	@if [ -e $(VENV)/.unfinished ] || ! $(BIN)/python -c 'import pip' 2>/dev/null; then $(PYTHON) -m venv --clear $(VENV); fi
	@touch $(VENV)/.unfinished
	PIP_CONSTRAINT=$(CONSTRAINTS) PIP_BUILD_CONSTRAINT=$(CONSTRAINTS) $(BIN)/python -m pip install --quiet --editable '.[$(1)]'
	@rm $(VENV)/.unfinished
	@touch $(VENV)/.installed-offline $@
endef

$(VENV)/.installed-offline: pyproject.toml $(CONSTRAINTS)
	$(call install,offline)

$(VENV)/.installed-dev: pyproject.toml $(CONSTRAINTS)
	$(call install,offline$(comma)dev)

comma := ,
