# SPDX-License-Identifier: Apache-2.0
# Everything a newcomer needs. `make` creates .venv; the other targets use it.
#
#   PYTHON=…             the Python 3.11 to build .venv from (default: python3.11 on PATH)
#   PIP_EXTRA_INDEX_URL  pip's own setting, respected here; point it at PyTorch's CPU wheel index
#                        to get the small CPU build of torch instead of the CUDA one
#   CODESIGN_APT=0       name missing Debian packages instead of installing them as root
#   PYTEST_ARGS, BENCH   passed on by `make test`, `make soak` and `make bench`

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.ONESHELL:

PYTHON ?= python3.11
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
BUSY := $(VENV)/.installing
BENCH ?= $(sort $(wildcard benchmarks/*.py))
PYTEST_ARGS ?=

.PHONY: all system apt demo test lint bench soak clean distclean

all: $(READY)

# What pip cannot bring: Python 3.11 with venv, and a C++ compiler, which TVM calls to link what
# it compiled. The tools of the FPGA and ARM targets (simulators, yosys, QEMU, a cross compiler) are
# installed along; without root they are only named, and what needs them says so when it is used.
# Says the exact command; installs only when asked to.
system:
	@packages=() optional=()
	wanted() { command -v "$$1" >/dev/null || optional+=("$$2"); }
	wanted verilator verilator
	wanted iverilog iverilog
	wanted yosys yosys
	wanted qemu-aarch64 qemu-user
	wanted aarch64-linux-gnu-g++ g++-aarch64-linux-gnu
	wanted llvm-mca llvm
	if ! command -v "$(PYTHON)" >/dev/null; then
	  packages+=(python3.11 python3.11-venv)
	elif ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
	  echo "error: $(PYTHON) is $$("$(PYTHON)" -V), codesign needs Python 3.11;" \
	    "name one with: make PYTHON=/path/to/python3.11" >&2
	  exit 2
	elif ! "$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null; then
	  packages+=(python3.11-venv)
	fi
	command -v g++ >/dev/null || packages+=(g++)
	if [[ "$${CODESIGN_APT:-1}" == 1 && $$(id -u) == 0 ]]; then
	  packages+=("$${optional[@]}")
	  if (( $${#packages[@]} == 0 )); then exit 0; fi
	  echo "installing Debian packages: $${packages[*]}"
	  apt-get update -qq
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    "$${packages[@]}"
	  exit 0
	fi
	if (( $${#optional[@]} )); then
	  echo "note: the FPGA and ARM targets also need: apt-get install -y $${optional[*]}"
	fi
	if (( $${#packages[@]} == 0 )); then exit 0; fi
	echo "error: missing Debian packages: $${packages[*]}" >&2
	echo "install them as root, then run make again:" >&2
	echo "  apt-get update && apt-get install -y $${packages[*]}" >&2
	echo "(\`make apt\` as root does the same)" >&2
	exit 2

apt:
	@if [[ $$(id -u) != 0 ]]; then echo "error: make apt must run as root" >&2; exit 2; fi
	CODESIGN_APT=1 $(MAKE) --no-print-directory system

# The stamp is written last. A run that was killed leaves BUSY behind, and since a half installed
# package can look complete to pip, the next run starts from an empty venv (pip's cache makes that
# quick). When pip itself gives up it has rolled back, and the venv is kept. The lock keeps a second
# make from taking a running one for a killed one. Debian packages are looked for only here.
$(READY): pyproject.toml
	@exec 9<Makefile
	flock 9
	if [[ $(READY) -nt pyproject.toml ]]; then exit 0; fi
	$(MAKE) --no-print-directory system
	if [[ -e $(BUSY) ]] || ! $(PY) -m pip --version >/dev/null 2>&1; then
	  echo "creating $(VENV)"
	  rm -rf $(VENV)
	  "$(PYTHON)" -m venv $(VENV)
	fi
	echo "installing codesign and its dependencies into $(VENV) (a few minutes the first time)"
	install() {
	  $(PY) -m pip install --quiet --disable-pip-version-check "$$@" ||
	    { code=$$?; if (( code < 128 )); then rm -f $(BUSY); fi; exit 1; }
	}
	touch $(BUSY)
	install "$$($(PY) -c 'import tomllib; print(*(d for d in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"] if d.startswith("torch==")))')"
	install -e '.[dev]'
	rm -f $(BUSY)
	touch $(READY)

demo: $(READY)
	@$(PY) examples/demo.py $(DEMO_ARGS)

test: $(READY)
	@$(PY) -m pytest $(PYTEST_ARGS)

soak: $(READY)
	@$(PY) -m pytest -m soak $(PYTEST_ARGS)

lint: $(READY)
	@$(PY) -m ruff check .
	$(PY) -m mypy

# benchmarks/resnet8.py measures a network that is trained first: some ten minutes, once.
RESNET8 := build/resnet8/eval.npz
$(RESNET8): | $(READY)
	@$(PY) examples/finetune_resnet8.py --out $(@D) --epochs 18

bench: $(READY) $(RESNET8)
	@for script in $(BENCH); do
	  echo "== $$script"
	  $(PY) "$$script"
	done

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
