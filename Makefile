# make demo   train Mask R-CNN + TransXNet on the embedded data, show the result
# make test   run all tests
# make fuzz   draw new, many more examples for the tests that draw some
# make lint   run the linters
# make bench  measure the standard table (half an hour and more)
# make tables write the tables of the READMEs and docs from files of figures
# make setup  make .venv with the pinned stack; the others do it when needed
# make test-openmmlab   a short set of tests with the original distribution

PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
	2>/dev/null && echo $$p && break; done)
VENV := .venv
ORIGINAL := .venv-openmmlab
REQUIREMENTS := $(wildcard requirements/*.txt) setup.py
PIP_FLAGS := --quiet --constraint requirements/constraints.txt

# The tests keep all cores busy, each process with threads of its own; those
# that spin while they wait make a two-core machine ten times slower. A tool
# started alone looks at the load itself.
test fuzz test-openmmlab: export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: setup demo test fuzz lint bench tables test-openmmlab clean

setup: $(VENV)/.ready

# Both distributions ask for opencv-python, which shares its folder with the
# headless build and needs libraries of a desktop that servers do not have.
define make_venv
	@test -n "$(PYTHON)" || { echo 'error: Python 3.10, 3.11 or 3.12 is needed; set PYTHON=/path/to/python' >&2; exit 1; }
	rm -rf $(1)
	$(PYTHON) -m venv $(1)
	$(1)/bin/pip install $(PIP_FLAGS) -r requirements/torch.txt
	$(1)/bin/pip install $(PIP_FLAGS) -r requirements/$(2).txt \
		-r requirements/runtime.txt -r requirements/digits.txt \
		-r requirements/export.txt -r requirements/serve.txt \
		-r requirements/tests.txt setuptools
	$(1)/bin/pip uninstall --quiet --yes opencv-python opencv-python-headless
	$(1)/bin/pip install $(PIP_FLAGS) --no-deps opencv-python-headless
	$(1)/bin/pip install $(PIP_FLAGS) --no-deps --no-build-isolation -e .
	touch $@
endef

$(VENV)/.ready: $(REQUIREMENTS)
	$(call make_venv,$(VENV),onedl)

$(ORIGINAL)/.ready: $(REQUIREMENTS)
	$(call make_venv,$(ORIGINAL),openmmlab)

demo: setup
	$(VENV)/bin/python tools/demo.py

# A file of tests stays in one process: what it builds is built once. Files in
# their order: xdist would begin with those of many tests, which are fast, and
# leave one process alone with a slow file at the end.
test: setup
	$(VENV)/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# To repeat what one run has drawn: make fuzz SEED=...
SEED ?= $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')
fuzz: setup
	@echo "SEED=$(SEED)"
	$(VENV)/bin/python -m pytest -n auto --dist loadfile -m fuzz \
		--hypothesis-profile fuzz --hypothesis-seed $(SEED)

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# With the default of users, not that of a busy machine.
bench: setup
	env -u OMP_WAIT_POLICY $(VENV)/bin/python tools/benchmark/bench.py

tables: setup
	$(VENV)/bin/python tools/tables.py

test-openmmlab: $(ORIGINAL)/.ready
	$(ORIGINAL)/bin/python -m pytest -m distribution

clean:
	rm -rf $(VENV) $(ORIGINAL) data/digits work_dirs/demo
