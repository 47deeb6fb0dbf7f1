# Everything sets itself up: a fresh clone needs Python 3.11 or newer, make and git.
PYTHON ?= python3
BIN := .venv/bin
DEMO := .venv/.demo
READY := .venv/.ready

.PHONY: demo test test-matrix lint types clean

demo: $(DEMO)
	$(BIN)/headwise demo -o demo-out

test: $(READY) lint types
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-matrix:
	bash tools/test_matrix.sh

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/pyright

# The demo needs the package alone; the tests need every optional library.
$(DEMO): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(READY): $(DEMO)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv demo-out build dist *.egg-info
