# make train | test | test-slow | test-peers | lint | format | lock | clean
#
# ACCELERATOR=cpu|cuda|tpu picks the lock file. WORKDIR is where a run keeps everything it writes.
# The environment is made once, in .venv; a second call installs nothing.

ACCELERATOR ?= cpu
WORKDIR ?= runs/mg_grpo
CONFIG ?= configs/mg_grpo.py
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$p && break; done)

VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
READY := $(VENV)/.ready-$(ACCELERATOR)
TESTED := $(VENV)/.ready-$(ACCELERATOR)-test
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.5
# XLA on CPU takes and gives back hundreds of MB a step; with huge pages that costs a tenth of the time in the kernel.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
# A training keeps it from step to step: faulting it in again costs up to a third of a short step on a virtual machine.
KEPT := glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184
# Bytecode is made at the first import, of what is imported: most of it never is.
PIP := -m pip --disable-pip-version-check --quiet install --no-compile

.PHONY: train test test-slow test-peers lint format lock clean
.DELETE_ON_ERROR:

train: export GLIBC_TUNABLES := $(GLIBC_TUNABLES):$(KEPT)
train: $(READY)
	@$(BIN)/python -m evads_jax.main --config=$(CONFIG) --workdir=$(WORKDIR)

# Compiling takes most of the tests' time: without LLVM's optimisation it is half. The other two run as users do.
test: export XLA_FLAGS := $(XLA_FLAGS) --xla_backend_optimization_level=0
test: $(TESTED) lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(TESTED)
	$(BIN)/python -m pytest -m 'slow and not peers'

test-peers: $(PEERS)/.ready
	$(PEERS)/bin/python -m pytest -m peers

lint: $(TESTED)
	@$(BIN)/ruff format --check --quiet . || { echo 'run `make format`'; exit 1; }
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: $(TESTED)
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lock:
	./requirements/lock.sh

clean:
	rm -rf $(VENV) $(PEERS) .cache .pytest_cache .ruff_cache .mypy_cache *.egg-info

$(VENV)/bin/python:
	@case "$(ACCELERATOR)" in cpu|cuda|tpu) ;; *) echo 'ACCELERATOR must be cpu, cuda or tpu, not "$(ACCELERATOR)"'; exit 1;; esac
	@test -n "$(PYTHON)" || { echo 'evads_jax needs Python 3.11, 3.12 or 3.13 on the PATH (or PYTHON=/path/to/one)'; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] < (3, 14) else "evads_jax needs Python 3.11, 3.12 or 3.13, not %d.%d" % v[:2])'
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

# Python 3.11 installs the locked versions; 3.12 and 3.13 install from the bounds in setup.py.
$(READY): requirements/$(ACCELERATOR).txt setup.py | $(VENV)/bin/python
	@echo "installing evads_jax for $(ACCELERATOR) (a minute or two, once)"
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; \
	then $(BIN)/python $(PIP) -r requirements/$(ACCELERATOR).txt && $(BIN)/python $(PIP) --no-deps -e .; \
	else $(BIN)/python $(PIP) -e $(if $(filter cpu,$(ACCELERATOR)),.,.[$(ACCELERATOR)]); fi
	@touch $@

$(TESTED): $(READY) requirements/test.txt
	@echo "installing the test tools"
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; \
	then $(BIN)/python $(PIP) -r requirements/test.txt; \
	else $(BIN)/python $(PIP) -e .[test]; fi
	@touch $@

$(PEERS)/.ready: requirements/peers.txt setup.py
	@echo "installing torch, transformers and trl beside evads_jax (some minutes, once)"
	@$(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python $(PIP) -r requirements/peers.txt && $(PEERS)/bin/python $(PIP) --no-deps -e .
	@# Apart, where only the test of the official processors finds it: it cannot be imported beside a torch for CPU as it is.
	@$(PEERS)/bin/python $(PIP) --no-deps --upgrade --target $(PEERS)/torchvision torchvision==0.28.0
	@touch $@
