# Two commands do all the set-up on a fresh machine: `make demo` and `make test`. Both install what requirements.lock names.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
LOCK := requirements/requirements.lock
UV ?= uv==0.13.9
export OMP_WAIT_POLICY ?= PASSIVE

# torch's CPU build, named apart: an unnamed build of it brings gigabytes of CUDA on Linux. Elsewhere the plain one is it.
# Where this machine's pip finds none for its Python: TORCH_FROM='--index-url https://download.pytorch.org/whl/cpu'.
ifeq ($(shell uname -s),Linux)
TORCH ?= torch==2.13.0+cpu
else
TORCH ?= torch==2.13.0
endif
TORCH_FROM ?=

.PHONY: setup demo test bench check docs lock test-oldest test-newest test-pythons clean

setup: $(STAMP)

# Everything comes by exact version and hash; --no-deps, because the lock is whole.
$(STAMP): pyproject.toml $(LOCK)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-deps $(TORCH_FROM) '$(TORCH)' || { $(call no_torch); exit 1; }
	$(BIN)/pip install --quiet --no-deps --require-hashes -r $(LOCK)
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $(STAMP)

define no_torch
echo "no CPU build of $(TORCH) is to be had here for $$($(PYTHON) --version): use Python 3.11, or" \
  "make setup TORCH_FROM='--index-url https://download.pytorch.org/whl/cpu' (docs/evidence/versions.md)" >&2
endef

demo: setup
	$(BIN)/chexalign demo

test: setup
	$(BIN)/pytest

# Side by side with TRL; about 25 minutes on two quiet cores. Rewrites the tables of docs/evidence/engine.md.
bench: setup
	$(BIN)/python benchmarks/engine.py
	$(BIN)/python benchmarks/online.py
	$(BIN)/python benchmarks/lora.py

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site: build/docs/index.html, read from the disk. Its small environment holds no torch: docstrings are parsed, not imported.
SITE := .venv-docs

docs: $(SITE)/.ready
	NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build  # not --quiet: it would hush the warnings that must fail
	@echo "site: build/docs/index.html"

$(SITE)/.ready: pyproject.toml
	$(PYTHON) -m venv $(SITE)
	$(SITE)/bin/pip install --quiet --upgrade pip
	$(SITE)/bin/pip install --quiet --group docs
	touch $@

# ---- versions: uv resolves, in an environment of its own; the results of the tests below are kept in docs

TOOLS := .venv-tools
RUN_UV := $(TOOLS)/bin/uv
EXTRAS := --extra dev --extra dicom --extra llm
RESOLVE = $(RUN_UV) pip compile pyproject.toml requirements/more.in $(EXTRAS) --constraints requirements/torch.in \
  --python-version 3.11 --quiet --no-header $(addprefix --find-links ,$(PIP_FIND_LINKS))
FAMILIES := tests/policies/test_families.py tests/policies/test_shared_prefix.py tests/policies/test_vision_cache.py \
  tests/policies/test_generate.py tests/policies/test_layers.py tests/policies/test_attention.py
RANGE := $(FAMILIES) tests/train/test_loop.py tests/test_resume.py tests/test_pipeline.py

$(TOOLS)/.ready:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet '$(UV)'
	touch $@

# Rewrites the lock from pyproject.toml: the newest versions inside its bounds, every file's hash, all but torch.
lock: $(TOOLS)/.ready
	$(RESOLVE) --generate-hashes --no-emit-package torch --upgrade -o $(LOCK)

# The lowest versions that pyproject.toml allows, and the newest that there are, its upper bounds lifted.
test-oldest: $(TOOLS)/.ready
	$(RESOLVE) --resolution lowest-direct -o .venv-oldest.txt
	$(call test_range,oldest)

test-newest: $(TOOLS)/.ready
	$(RESOLVE) --overrides requirements/lifted.in --upgrade -o .venv-newest.txt
	$(call test_range,newest)

define test_range
rm -rf .venv-$(1)
$(PYTHON) -m venv .venv-$(1)
.venv-$(1)/bin/pip install --quiet --no-deps $(TORCH_FROM) '$(TORCH)'
grep -v '^torch==' .venv-$(1).txt > .venv-$(1)/requirements.txt
.venv-$(1)/bin/pip install --quiet --no-deps -r .venv-$(1)/requirements.txt
.venv-$(1)/bin/pip install --quiet --no-deps --no-build-isolation -e .
.venv-$(1)/bin/pip list | grep -E '^(torch|transformers|accelerate|peft|tokenizers|numpy|pydantic|trl) '
.venv-$(1)/bin/python -m pytest -o filterwarnings= $(RANGE)
endef

# Other Pythons: the locked versions, all modules that import, lint, and the tests that need no torch; with torch where it is had.
PYTHONS ?= python3.12 python3.13

test-pythons:
	for python in $(PYTHONS); do PYTHON=$$python LOCK=$(LOCK) TORCH='$(TORCH_FROM) $(TORCH)' bash requirements/quick.sh || exit 1; done

clean:
	rm -rf $(VENV) .venv-* build .pytest_cache .ruff_cache .mypy_cache
