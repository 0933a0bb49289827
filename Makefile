# make book    everything from nothing to the book: environment, compilers, network, simulator, rendered chapters
# make test    style, types, tests and the chapters' outputs
# make lab     JupyterLab on the book
# make chapters  executes the chapters again and writes them back into book/
# make setup   only what the others need; repeated, it takes a second
# Written for any make, GNU or BSD. Without one: python3 tools/setup.py does what `make setup` does.

PYTHON =
BIN = .venv/bin
RUN = PATH="$$PWD/$(BIN):$$PATH" OMP_NUM_THREADS="$${OMP_NUM_THREADS:-1}" PIP_DISABLE_PIP_VERSION_CHECK=1

book: setup
	@$(RUN) $(BIN)/python -m tinyredux book

# The first Python that is new enough, or the one that is named: make PYTHON=python3.12 setup
setup:
	@named="$(PYTHON)"; \
	for python in $${named:-$(BIN)/python python3 python3.14 python3.13 python3.12 python3.11}; do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			exec "$$python" tools/setup.py; \
		fi; \
	done; \
	echo "tinyredux needs Python 3.11 or newer, and $${named:-python3} is none; install one, then: make PYTHON=python3.12" >&2; \
	exit 3

chapters: setup
	@$(RUN) $(BIN)/python -m tinyredux book --execute

lab: setup
	@$(RUN) $(BIN)/jupyter lab book $$([ "$$(id -u)" != 0 ] || echo --allow-root)

test: setup
	@$(RUN) $(BIN)/ruff check
	@$(RUN) $(BIN)/ruff format --check
	@$(RUN) $(BIN)/mypy & types=$$!; $(RUN) $(BIN)/pytest -n auto; tests=$$?; wait $$types && exit $$tests

clean:
	rm -rf build .pio

.PHONY: book test lab chapters setup clean
