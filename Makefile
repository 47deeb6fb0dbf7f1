# Everything sets itself up: a fresh clone needs Python 3.11 or newer, make and git; `make test` npm, too, and apt-get where
# chromedriver is missing.
PYTHON ?= python3
BIN := .venv/bin
DEMO := .venv/.demo
READY := .venv/.ready
BROWSER := .venv/browser/.ready

# pip need not speak of itself
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

.PHONY: demo test browser test-matrix lint types docs bench package clean

demo: $(DEMO)
	$(BIN)/headwise demo -o demo-out

test: $(READY) $(BROWSER) lint types
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist loadfile

browser: $(BROWSER)

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

# The pages' tests: Debian's chromium and its driver, and axe-core, which looks for barriers.
$(BROWSER): $(READY)
	command -v chromedriver >/dev/null || (apt-get update -qq && apt-get install -y -qq chromium chromium-driver) >/dev/null
	npm install --silent --no-fund --no-audit --prefix .venv/browser axe-core@4
	touch $@

# The site of the documents, into site/; a warning is an error.
docs: $(READY)
	$(BIN)/zensical build --strict

# The figures of README.md and docs/ladder.md, all measured again (half a day); continues where it stopped.
bench: $(READY)
	$(BIN)/headwise demo -o bench/demo
	test -e bench/data/splits.json || $(BIN)/python recipes/demo/prepare.py all --data bench/data
	$(BIN)/python benchmarks/ladder.py --data bench/data --work bench/work --anew
	$(BIN)/python benchmarks/ladder_page.py --data bench/data --work bench/work --anew

# Wheel and sdist as an index takes them, into dist/.
package: $(READY)
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

clean:
	rm -rf .venv demo-out build dist site .cache *.egg-info
