# make demo   train Mask R-CNN + TransXNet on the embedded data, show the result
# make web    show the model of make demo in a browser
# make test   run all tests
# make fuzz   draw new, many more examples for the tests that draw some
# make lint   run the linters
# make bench  measure the standard table (half an hour and more)
# make tables write the tables of the READMEs and docs from files of figures
# make setup  make .venv with the pinned stack; the others do it when needed
# make docs   build the documentation site in site/
# make extras also what the tests need: engines of export, a server, linters
# make test-openmmlab   a short set of tests with the original distribution
# make test-torch VERSION=2.7.0   tests with another release of torch

SHELL := bash
.SHELLFLAGS := -o pipefail -c

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 \
	python3.10 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	2>/dev/null && echo $$p && break; done)
VENV := .venv
ORIGINAL := .venv-openmmlab
TORCH := -r requirements/torch.txt
REQUIREMENTS := $(wildcard requirements/*.txt) setup.py

# The tests keep all cores busy, each process with threads of its own; those
# that spin while they wait make a two-core machine ten times slower. A tool
# started alone looks at the load itself.
test fuzz test-openmmlab test-torch: export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: setup extras demo trained web test fuzz lint docs bench tables
.PHONY: test-openmmlab test-torch clean

setup: $(VENV)/.ready

extras: $(VENV)/.extras

# $(call install,VENV,what,arguments): pip, its last line shown on a terminal,
# all of it in VENV/install.log, whose end is shown if it fails.
define install
	@echo '  $(2)'
	@$(1)/bin/pip install --constraint requirements/constraints.txt \
	--progress-bar off --disable-pip-version-check $(3) 2>&1 \
	| tee -a $(1)/install.log | { if [ -t 1 ]; then \
	while IFS= read -r line; do printf '\r\033[K    %.72s' "$$line"; done; \
	printf '\r\033[K'; else cat > /dev/null; fi; } \
	|| { tail -n 25 $(1)/install.log >&2; \
	echo 'error: pip failed; all of it: $(1)/install.log' >&2; exit 1; }
endef

# Both distributions ask for opencv-python, which shares its folder with the
# headless build and needs libraries of a desktop that servers do not have.
define make_venv
	@test -n "$(PYTHON)" || { echo 'error: Python 3.10 or newer is needed; set PYTHON=/path/to/python' >&2; exit 1; }
	@echo 'Installing into $(1), once; 2 to 4 minutes, and a download of some GB:'
	@rm -rf $(1)
	@$(PYTHON) -m venv $(1)
	$(call install,$(1),torch and torchvision,$(TORCH))
	$(call install,$(1),mmengine$(,) mmcv$(,) mmdet$(,) mmseg$(,) mmpretrain,\
		-r requirements/$(2).txt -r requirements/runtime.txt \
		-r requirements/digits.txt setuptools)
	@$(1)/bin/pip uninstall --quiet --yes opencv-python opencv-python-headless
	$(call install,$(1),opencv without a desktop,--no-deps opencv-python-headless)
	$(call install,$(1),mmtransxnet,--no-deps --no-build-isolation -e .)
	@touch $@
endef

, := ,

$(VENV)/.ready: $(REQUIREMENTS)
	$(call make_venv,$(VENV),onedl)

$(ORIGINAL)/.ready: $(REQUIREMENTS)
	$(call make_venv,$(ORIGINAL),openmmlab)

# What the tests need beside it: engines of export, the server, the analyses,
# the linters, and what builds the documentation.
EXTRAS := -r requirements/export.txt -r requirements/serve.txt \
	-r requirements/analysis.txt -r requirements/tests.txt \
	-r requirements/docs.txt -r requirements/web.txt

%/.extras: %/.ready
	$(call install,$*,export$(,) serving$(,) analysis$(,) tests$(,) docs$(,) web,\
		$(EXTRAS))
	@touch $@

demo: setup
	$(VENV)/bin/python tools/demo.py

DEMO := maskrcnn_transxnet_t_digits

trained:
	@test -s work_dirs/demo/$(DEMO)/last_checkpoint || { echo 'error: no trained model in work_dirs/demo/$(DEMO); run make demo first' >&2; exit 1; }

%/.web: %/.ready
	$(call install,$*,gradio,-r requirements/web.txt)
	@touch $@

web: trained $(VENV)/.web
	$(VENV)/bin/python tools/web_demo.py configs/detection/$(DEMO).py \
		"$$(cat work_dirs/demo/$(DEMO)/last_checkpoint)" \
		--examples "$${DIGITS_ROOT:-data/digits}/coco/val"

# A file of tests stays in one process: what it builds is built once. A process
# that dies is not replaced: the run would wait for ever for what was its own.
PYTEST := python -m pytest -n auto --dist loadfile --max-worker-restart 0

# Files in their order: xdist would begin with those of many tests, which are
# fast, and leave one process alone with a slow file at the end.
test: extras
	$(VENV)/bin/$(PYTEST) --no-loadscope-reorder

# To repeat what one run has drawn: make fuzz SEED=...
SEED ?= $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')
fuzz: extras
	@echo "SEED=$(SEED)"
	$(VENV)/bin/$(PYTEST) -m fuzz \
		--hypothesis-profile fuzz --hypothesis-seed $(SEED)

lint: extras
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# The variable hides an advertisement of the theme for another program.
docs: extras
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict
	@echo 'To read it: $(VENV)/bin/python -m http.server --directory site'

# With the default of users, not that of a busy machine.
bench: extras
	env -u OMP_WAIT_POLICY $(VENV)/bin/python tools/benchmark/bench.py

tables: extras
	$(VENV)/bin/python tools/tables.py

test-openmmlab: $(ORIGINAL)/.extras
	$(ORIGINAL)/bin/python -m pytest -m distribution

# With another release of torch, in an environment of its own: gigabytes of
# download, so by hand (docs/faq.md has the releases tried and when).
VERSION ?=
OTHER_TESTS := models kernels ops weights apis engine deploy \
	tools/test_export.py
test-torch: OTHER := .venv-torch-$(VERSION)
test-torch:
	@test -n "$(VERSION)" || { echo 'error: name the release: make test-torch VERSION=2.7.0' >&2; exit 1; }
	$(MAKE) $(OTHER)/.extras TORCH='torch==$(VERSION) torchvision' VENV=$(OTHER)
	$(OTHER)/bin/$(PYTEST) $(addprefix tests/,$(OTHER_TESTS))

clean:
	rm -rf $(VENV) $(ORIGINAL) data/digits work_dirs/demo site
