# From a bare machine (Python 3.11, a C++ compiler, make) to a trained model: `make train`. `make help` tells the rest.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help venv train test test-quick test-distributed test-docker lint bench clean

VENV := .venv
BIN := $(VENV)/bin
PYTHON_HERE := $(VENV)/.python
PACKAGES := $(VENV)/.packages
HOROVOD := $(VENV)/.horovod
PEERS := $(VENV)/.peers
DIGITS := data/digits

export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# --- what `make train` can be told, each handed on to launch/train.py only where it is given ------------------------
NP ?= 2
OPTIONS := NP DATA VAL_DATA RUN_DIR MODEL SIZE EPOCHS DEVICE_BATCH HOST_BATCH LR WARMUP_EPOCHS SEED STRATEGY ARGS
# The values reach the shell as environment variables, taken as they are written: blanks, quotes and $ included.
$(foreach name,$(OPTIONS) PYTHON,$(eval override $(name) := $$(value $(name))))
export $(OPTIONS) PYTHON
flag = $(if $($(1)),$(2) "$$$(1)")

help:
	@printf '%s\n' \
	  'make train              two ranks train on handwritten digits; everything needed is installed into .venv first' \
	  'make train NP=4 DATA=/photos/train VAL_DATA=/photos/val EPOCHS=3' \
	  '                        your images, one folder per class. Also: RUN_DIR MODEL SIZE DEVICE_BATCH HOST_BATCH' \
	  '                        LR WARMUP_EPOCHS SEED STRATEGY, and ARGS="--any --other --flags" of launch/train.py' \
	  'make test               all tests: test-quick, then test-distributed (starts real ranks)' \
	  'make test-docker        builds the image for processors and runs it; needs root, podman, runc and debootstrap' \
	  'make lint               ruff and mypy' \
	  'make bench              the loader beside its peers and the limit; ARGS=--quick for a minute, ARGS=--help for all' \
	  'make venv               only the environment, Horovod included' \
	  'make clean              removes .venv, the digits and tool caches; keeps runs/ and the compiled Horovod'

venv: $(HOROVOD)

$(PYTHON_HERE):
	@echo '== environment in $(VENV)'
	@sh launch/make_venv.sh $(VENV) "$$PYTHON"
	@touch $@

$(PACKAGES): pyproject.toml $(PYTHON_HERE)
	@echo '== TensorFlow, Open MPI and the rest, some 400 MB: a minute or two'
	@$(BIN)/python -m pip install -e '.[cpu,mpi,horovod,digits,dev]'
	@touch $@

$(HOROVOD): $(PACKAGES) launch/install_horovod.py $(wildcard launch/horovod_installer/*.py)
	@echo '== Horovod for this TensorFlow and this MPI: minutes the first time, seconds from then on'
	@$(BIN)/python launch/install_horovod.py
	@touch $@

train: $(HOROVOD)
ifeq ($(DATA),)
	@$(BIN)/python launch/digits.py $(DIGITS)
endif
	@echo '== training on '"$$NP"' ranks'
	@set -f; exec launch/horovodrun.sh -np "$$NP" python launch/train.py \
	  $(if $(DATA),--data "$$DATA",--data $(DIGITS)/train) \
	  $(if $(VAL_DATA),--val-data "$$VAL_DATA",$(if $(DATA),,--val-data $(DIGITS)/val)) \
	  $(call flag,RUN_DIR,--run-dir) $(call flag,MODEL,--model) $(call flag,SIZE,--size) \
	  $(call flag,EPOCHS,--epochs) $(call flag,DEVICE_BATCH,--device-batch) $(call flag,HOST_BATCH,--host-batch) \
	  $(call flag,LR,--lr) $(call flag,WARMUP_EPOCHS,--warmup-epochs) $(call flag,SEED,--seed) \
	  $(call flag,STRATEGY,--strategy) $$ARGS

test: test-quick test-distributed

test-quick: $(HOROVOD)
	@echo '== tests in one process'
	@$(BIN)/python -m pytest -m 'not distributed' -n auto --maxprocesses 4

test-distributed: $(HOROVOD)
	@echo '== tests that start real ranks'
	@$(BIN)/python -m pytest -m distributed -n 2 --dist loadfile --no-loadscope-reorder --durations 15

test-docker: $(PACKAGES)
	@echo '== the image, built and run: a quarter of an hour or more, and some 10 GB for that time'
	@DIST_LOADER_TEST_IMAGES=1 $(BIN)/python -m pytest -m distributed tests/docker --durations 0

lint: $(PACKAGES)
	@echo '== ruff and mypy'
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

# PyTorch's own index has a build without CUDA, a tenth of the size; where it cannot be reached, PyPI's does as well.
$(PEERS): pyproject.toml $(PYTHON_HERE)
	@echo '== TensorFlow and the peers, some 1.5 GB: minutes the first time'
	@$(BIN)/python -m pip install --no-deps --retries 1 --index-url https://download.pytorch.org/whl/cpu 'torch==2.13.*' \
	  || echo '== the PyTorch that follows brings CUDA along, some 3 GB more'
	@$(BIN)/python -m pip install -e '.[cpu,bench]'
	@touch $@

bench: $(PEERS)
	@set -f; exec $(BIN)/python -m benchmarks.loader $$ARGS

clean:
	rm -rf $(VENV) $(DIGITS) build dist ./*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find dist_loader launch tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
