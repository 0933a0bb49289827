# make book    everything from nothing to the book: environment, compilers, network, simulator, rendered chapters
# make test    style, types, tests and the chapters' outputs
# make lab     JupyterLab on the book
# make chapters  executes the chapters again and writes them back into book/
# make setup   only what the others need; repeated, it takes a second

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done || echo python3)
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: book test lab chapters setup clean
.DEFAULT_GOAL := book

setup:
	@$(PYTHON) tools/setup.py

book: setup
	$(BIN)/python -m tinyredux book

chapters: setup
	$(BIN)/python -m tinyredux book --execute

lab: setup
	$(BIN)/jupyter lab book

test: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -n auto

clean:
	rm -rf build .pio
