# Everything sets up .venv in this checkout by itself when it is missing or older than the lock file.
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
LAB_ARGS ?=
BENCH ?= all
FUZZ ?= tests/odata
SCHEDULES ?= 10000
FUZZ_TARGETS ?=
FUZZ_SECONDS ?= 60
FAULT_SECONDS ?= 180
FAULT_ARGS ?=

.PHONY: lab test walk model fuzz faults check bench up clean setup lock screens msi

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml tools/setup.sh $(wildcard hatch_build.py tools/console-assets/package-lock.json)
	PYTHON=$(PYTHON) VENV=$(VENV) tools/setup.sh
	touch $(STAMP)

lab: setup  ## the whole tutorial, asserted, with the console to look at
	tools/packages.sh wixl msitools openssl iproute2 nftables
	$(BIN)/tandem lab $(LAB_ARGS)

up: lab

test: setup  ## every test; FAST=1 leaves out the slow ones
	tools/packages.sh wixl msitools wine64 wine openssl iproute2 nftables chromium tinyproxy openssh-server pebble
	FAST=$(FAST) tools/test.sh

walk: setup  ## the whole tutorial clicked in a real browser, in English and in French; quiet machine, ten minutes
	tools/packages.sh wixl msitools openssl iproute2 nftables chromium
	$(BIN)/python -m pytest -q -s -p no:randomly tests/tutorial

model: setup  ## one writer per workload, over SCHEDULES random schedules of switches, crashes and lost messages
	SCHEDULES=$(SCHEDULES) $(BIN)/python -m pytest -q -p no:randomly --timeout 0 tests/agent/test_one_writer.py

fuzz: setup  ## readers of what strangers send, FUZZ_SECONDS each of FUZZ_TARGETS, then the property tests of FUZZ for long
	$(BIN)/python -m pip install -q --no-deps --require-hashes -r tools/fuzz/requirements.txt
	$(BIN)/python -m tools.fuzz --seconds $(FUZZ_SECONDS) $(FUZZ_TARGETS)
	$(BIN)/python -m pytest -q -p no:randomly --timeout 0 --hypothesis-profile=fuzz $(FUZZ)

faults: setup  ## parts of the chain are killed at random under load for FAULT_SECONDS, at most 210; FAULT_ARGS="--seed N --json"
	$(BIN)/python -m tools.faults --seconds $(FAULT_SECONDS) $(FAULT_ARGS)

check: setup  ## style, strict types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup  ## make bench BENCH=lab for one
	tools/packages.sh wixl msitools gcc libc6-dev libssl-dev nginx-light openssh-server openssh-client
	$(BIN)/python -m bench $(BENCH)

msi: setup  ## the Windows client package; PYTHON_EMBED=python-3.x-embed-amd64.zip FROM=ccmsetup.msi OUT=dist
	tools/packages.sh wixl msitools
	$(BIN)/python -m tools.msi $(if $(PYTHON_EMBED),--python-embed "$(PYTHON_EMBED)") \
		$(if $(FROM),--from "$(FROM)") --out "$(or $(OUT),dist)"

screens: setup  ## the pictures of the documents, from a lab of its own
	tools/packages.sh wixl msitools openssl chromium pngquant
	$(BIN)/python -m tools.screens

lock:  ## write requirements.lock anew
	$(BIN)/pip-compile -q --allow-unsafe --generate-hashes --strip-extras --no-emit-index-url \
		--no-emit-trusted-host --no-emit-find-links --extra server --extra dev -o requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) .lab bench/out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis src/tandem/console/static/vendor tools/console-assets/node_modules
