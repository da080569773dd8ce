PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo

# Recognise the emotion in the recordings under examples/ and draw what the model saw. Installs no torch.
demo: $(VENV)/.demo
	$(BIN)/vervet predict examples/clips.csv --picture demo/emotions.png
	@echo "The picture of this run: demo/emotions.png"

$(VENV)/.demo: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[plot]'
	@touch $@
