# Needs Python 3.11 or newer, with venv and pip, and nothing else. All targets set themselves up, in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Named, because newer versions of ruff would also lay out the code in the documents, where space is dear.
SOURCES := $(wildcard xml_pipeline third_party tests benchmarks config examples)

.PHONY: help run test check bench proofs clean
.DELETE_ON_ERROR:

help:
	@echo "make run      start the example organism, and show a first conversation; Ctrl-C stops it"
	@echo "make test     run the tests"
	@echo "make check    run the linters and the type checker"
	@echo "make bench    run the measurements"
	@echo "make proofs   measure what is promised when servers and nodes are killed; takes minutes"
	@echo "make clean    remove .venv"
	@echo "PYTHON=python3.12 chooses the Python that .venv is made with."

run: $(VENV)/.installed
	@exec $(BIN)/xml-pipeline run config/organism.yaml --send desk.clerk '{"item": "lamp", "quantity": 2}'

# With what else the tests talk to, so that none of them is skipped. One process for each processor. What fails is run
# once more, alone: real servers and processes beside thousands of other tests may be late; a defect fails again.
test: $(VENV)/.installed-test,pydantic-ai
	@$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS) || { \
	    code=$$?; [ $$code -eq 1 ] || exit $$code; \
	    echo "what failed, once more and alone:"; \
	    $(BIN)/python -m pytest --last-failed --last-failed-no-failures none; }

check: $(VENV)/.installed-dev
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy

bench: $(VENV)/.installed-bench
	@$(BIN)/python -m benchmarks $(ARGS)

# Servers and processes that are really killed, many times; minutes.
proofs: $(VENV)/.installed-test,pydantic-ai
	@$(BIN)/python -m tests.mesh.proofs $(ARGS)
	@$(BIN)/python -m tests.bridge.proofs

clean:
	rm -rf $(VENV)

# One stamp for each set of extras; when pyproject.toml has changed, it is installed again.

$(VENV)/.installed: pyproject.toml | $(VENV)/.made
	@echo "installing xml-pipeline into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-%: pyproject.toml | $(VENV)/.made
	@echo "installing xml-pipeline[$*] into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; choose one with: make PYTHON=python3.11 ...")'
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@
