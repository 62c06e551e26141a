# The commands to know: make reproduce | test | test-all | quality | clean. Each sets up .venv first, once.

BIN := .venv/bin
STAMP := .venv/.ready
UV := uv==0.13.8
FAST := not slow and not ssh and not kill

# Empty: what config/config.yaml says. Else a name in config/platforms/ or the path of a platform file.
PLATFORM ?=
# --config=..., since what follows --config and a space is taken for configuration, targets too.
SNAKEMAKE := $(BIN)/snakemake $(if $(PLATFORM),--config=platform=$(PLATFORM))

enough = $(shell $(1) -c 'import sys; print("yes" if sys.version_info >= (3, 11) else "")' 2>/dev/null)
# Found on first use and kept, so that a call that has nothing to set up looks for nothing.
once = $(eval $(1) := $(2))$($(1))
PYTHON ?= $(call once,PYTHON,$(firstword $(foreach name,python3 python3.11 python3.12 python3.13,$(if $(call enough,$(name)),$(name)))))

# uv does not read pip's configuration: what pip is set to on this machine is handed over. A file: index that is not
# there would make every look-up fail, so it is left out.
pip_setting = $(or $($(2)),$(shell $(PYTHON) -m pip config get global.$(1) 2>/dev/null))
usable = $(foreach url,$(1),$(if $(filter file:%,$(url)),$(if $(wildcard $(patsubst file://%,%,$(url))),$(url)),$(url)))
empty :=
comma := ,
find_links = $(subst $(empty) $(empty),$(comma),$(strip $(call pip_setting,find-links,PIP_FIND_LINKS)))
UV_FIND_LINKS ?= $(call once,UV_FIND_LINKS,$(find_links))
UV_DEFAULT_INDEX ?= $(call once,UV_DEFAULT_INDEX,$(call pip_setting,index-url,PIP_INDEX_URL))
UV_EXTRA_INDEX_URL ?= $(call once,UV_EXTRA_INDEX_URL,$(call usable,$(call pip_setting,extra-index-url,PIP_EXTRA_INDEX_URL)))
# pip takes the best match of all indexes; the lock's hashes make that safe.
uv_settings = $(if $(UV_FIND_LINKS),UV_FIND_LINKS="$(UV_FIND_LINKS)") \
	$(if $(UV_DEFAULT_INDEX),UV_DEFAULT_INDEX="$(UV_DEFAULT_INDEX)") \
	$(if $(UV_EXTRA_INDEX_URL),UV_EXTRA_INDEX_URL="$(UV_EXTRA_INDEX_URL)") UV_INDEX_STRATEGY=unsafe-best-match

.PHONY: setup reproduce test test-all quality clean schema lock
.DEFAULT_GOAL := reproduce

setup: $(STAMP)

# Two calls: one over both would fix the figures' inputs before any record exists. A failed experiment does not keep
# the figures of the others from being drawn, but it does fail this target.
reproduce: $(STAMP)
	@status=0; \
	$(SNAKEMAKE) all || status=$$?; \
	$(SNAKEMAKE) figures claims report || status=$$?; \
	$(SNAKEMAKE) status --quiet all || status=$$?; \
	exit $$status

test: $(STAMP)
	$(BIN)/pytest -m "$(FAST)" --numprocesses 2 --dist loadfile

# Those that measure memory, start hosts or kill what runs have the machine to themselves.
test-all: test
	$(BIN)/pytest -m "not ($(FAST))"

quality: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

# Measured records stay: results/ is deleted by hand or not at all.
clean:
	rm -rf .venv build .snakemake .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

# config/schema/ from the models in rules/settings.py; a test fails when they drift apart.
schema: $(STAMP)
	$(BIN)/python -m rules.schema config/schema

# requirements.lock from requirements.in.
lock: $(STAMP)
	$(uv_settings) $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
		--custom-compile-command "make lock" --output-file requirements.lock requirements.in

$(STAMP): requirements.lock requirements-torch.txt engine/pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none was found. Fix: make PYTHON=/path/to/python3" >&2; exit 1; }
	@test -n "$(call enough,$(PYTHON))" || { echo "Python 3.11 or newer is needed; received: PYTHON=$(PYTHON)" >&2; exit 1; }
	@echo "setting up .venv with $$($(PYTHON) --version)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv \
		|| { echo "$(PYTHON) -m venv failed; on Debian and Ubuntu it needs the package python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --only-binary :all: "$(UV)" \
		|| echo "uv could not be installed" >&2
	@# Bytecode at once: where Python may not write it later, every start would take seconds longer.
	@with_uv() { $(uv_settings) $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python "$$@"; }; \
	with_pip() { $(BIN)/python -m pip install --quiet --disable-pip-version-check "$$@"; }; \
	install_all() { \
		"$$1" --require-hashes --requirement requirements.lock \
		&& "$$1" --requirement requirements-torch.txt \
		&& "$$1" --no-deps --no-build-isolation --editable engine; \
	}; \
	{ test -x $(BIN)/uv && install_all with_uv; } \
		|| { echo "installing with pip, which takes some minutes" >&2; install_all with_pip; } \
		|| { echo "set-up failed: the packages of requirements.lock could not be installed" >&2; exit 1; }
	@touch $@
