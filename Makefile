# Every target does all set-up itself. See BUILD.md.
PYTHON ?= $(firstword $(foreach name,python3.11 python3,$(if $(shell command -v $(name)),$(name))))
VENV := .venv
BIN := $(VENV)/bin
# TFX's command line calls `pip` and `python` by name.
RUN := PATH="$(abspath $(BIN)):$$PATH"
STAMP := $(VENV)/.ready

.PHONY: help setup demo test test-fast lint lock audit clean

help:  ## Show this help.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP)  ## Install everything into .venv; nothing to do when nothing changed.

$(STAMP): $(wildcard requirements/*.txt) pyproject.toml pipeline/stack.py Makefile
	@set -e; stack=$$($(PYTHON) pipeline/stack.py); \
	echo "Installing requirements/$$stack.txt into $(VENV)"; \
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^uv==' requirements/$$stack.txt); \
	export VIRTUAL_ENV="$(abspath $(VENV))"; \
	$(BIN)/uv pip sync --quiet requirements/$$stack.txt; \
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .; \
	echo "Compiling byte code"; \
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -W ignore -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true
	@touch $(STAMP)

demo: $(STAMP)  ## Train, judge, bless and push a detector on real digits.
	@$(RUN) capsad run digits

test: $(STAMP) lint  ## All tests, the end-to-end runs included.
	@$(RUN) pytest

test-fast: $(STAMP) lint  ## The tests that take minutes at most.
	@$(RUN) pytest -m "not slow"

lint: $(STAMP)  ## Style, docstrings, types and import contracts.
	@$(RUN) ruff check . && $(RUN) ruff format --check . && $(RUN) lint-imports && $(RUN) mypy

lock: $(STAMP)  ## Compile the two locks anew.
	$(BIN)/uv pip compile --upgrade --extra dev --no-annotate --no-header --override requirements/tfx-1.16.in \
		--python-version 3.11 --python-platform x86_64-manylinux_2_36 pyproject.toml -o requirements/tfx-1.16.txt
	$(BIN)/uv pip compile --upgrade --extra dev --no-annotate --no-header --override requirements/tfx-1.21.in \
		--python-version 3.13 --python-platform x86_64-manylinux_2_39 pyproject.toml -o requirements/tfx-1.21.txt

audit: $(STAMP)  ## Look for known vulnerabilities that SECURITY.md does not list; needs a network.
	@$(BIN)/uv tool run --quiet --from pip-audit==2.10.1 python requirements/audit.py

clean:  ## Remove the environment; runs/ stays.
	rm -rf $(VENV) .pytest_cache .ruff_cache
