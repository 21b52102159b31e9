# Every target does all set-up itself. See BUILD.md.
PYTHON ?= $(firstword $(foreach name,python3.11 python3,$(if $(shell command -v $(name)),$(name))))
VENV := .venv
BIN := $(VENV)/bin
# TFX's command line calls `pip` and `python` by name.
RUN := PATH="$(abspath $(BIN)):$$PATH"
STAMP := $(VENV)/.ready
TORCH := .venv-torch
DOCS := .venv-docs
# The tests of a file share what they prepare.
# Some tests wait for processes, so two cores have time for a third.
PARALLEL := --numprocesses 3 --dist loadfile --no-loadscope-reorder

.PHONY: help setup demo test test-fast test-torch reliability tables docs lint lock audit clean

help:  ## Show this help.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP)  ## Install everything into .venv; nothing to do when nothing changed.

$(STAMP): $(wildcard requirements/tfx-*.txt) pyproject.toml pipeline/stack.py Makefile
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

test: $(STAMP) lint docs  ## All tests, the end-to-end runs included.
	@$(RUN) pytest $(PARALLEL)

test-fast: $(STAMP) lint  ## The tests that take minutes at most.
	@$(RUN) pytest $(PARALLEL) -m "not slow and not reliability"

reliability: $(STAMP)  ## Break many things on purpose; writes docs/results/reliability.md.
	@$(RUN) pytest tests/reliability -m "reliability or not reliability" \
		--reliability-table docs/results/reliability.md

tables: $(STAMP)  ## Tables, figures and model cards anew from docs/results/study/results.csv.
	$(BIN)/capsad tables docs/results/study --cards docs/models

test-torch: $(TORCH)/.ready  ## The tests of layers and detectors on PyTorch, in .venv-torch.
	@KERAS_BACKEND=torch $(TORCH)/bin/python -m pytest tests/models

docs: $(DOCS)/.ready  ## The documentation site, into build/site; an environment of its own.
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --quiet --strict --site-dir build/site && echo "build/site/index.html"

.venv-%/.ready: requirements/%.txt Makefile
	@set -e; echo "Installing requirements/$*.txt into .venv-$*"; \
	test -x .venv-$*/bin/python || $(PYTHON) -m venv .venv-$*; \
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check $$(grep '^uv==' requirements/$*.txt); \
	VIRTUAL_ENV="$(abspath .venv-$*)" .venv-$*/bin/uv pip sync --quiet requirements/$*.txt
	@touch $@

lint: $(STAMP)  ## Style, docstrings, types and import contracts.
	@$(RUN) ruff check . && $(RUN) ruff format --check . && $(RUN) lint-imports && $(RUN) mypy

lock: $(STAMP)  ## Compile the locks anew.
	$(BIN)/uv pip compile --upgrade --extra dev --no-annotate --no-header --override requirements/tfx-1.16.in \
		--python-version 3.11 --python-platform x86_64-manylinux_2_36 pyproject.toml -o requirements/tfx-1.16.txt
	$(BIN)/uv pip compile --upgrade --extra dev --no-annotate --no-header --override requirements/tfx-1.21.in \
		--python-version 3.13 --python-platform x86_64-manylinux_2_39 pyproject.toml -o requirements/tfx-1.21.txt
	$(BIN)/uv pip compile --upgrade --extra kubeflow --no-annotate --no-header --override requirements/tfx-1.21.in \
		--constraint requirements/tfx-1.21.txt --python-version 3.13 --python-platform x86_64-manylinux_2_39 \
		pyproject.toml -o requirements/image.txt
	{ cat requirements/torch.in; grep '^keras==' requirements/tfx-1.16.txt; } | $(BIN)/uv pip compile --upgrade \
		--no-annotate --no-header --python-version 3.11 --python-platform x86_64-manylinux_2_36 - -o requirements/torch.txt
	$(BIN)/uv pip compile --upgrade --no-annotate --no-header --python-version 3.11 \
		--python-platform x86_64-manylinux_2_36 requirements/docs.in -o requirements/docs.txt

audit: $(STAMP)  ## Look for known vulnerabilities that SECURITY.md does not list; needs a network.
	@$(BIN)/uv tool run --quiet --from pip-audit==2.10.1 python requirements/audit.py

clean:  ## Remove the environments; runs/ stays.
	rm -rf $(VENV) $(TORCH) $(DOCS) build .pytest_cache .ruff_cache
