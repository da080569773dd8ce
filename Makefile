PYTHON ?= python3
# PyTorch for training and for the tests; where there is no GPU, its CPU build does and is far smaller.
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint format

# Recognise the emotion in the recordings under examples/ and draw what the model saw. Installs no torch.
demo: $(VENV)/.demo
	$(BIN)/vervet predict examples/clips.csv --picture demo/emotions.png
	@echo "The picture of this run: demo/emotions.png"

# Everything the tests need, then the tests. Those on real corpora run where VERVET_CORPORA names their folder.
test: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.demo: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[plot]'
	@touch $@

$(VENV)/.test: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) '$(TORCH)'
	$(PIP) --editable '.[dev]'
	@touch $@
