# Every target installs what it needs into .venv by itself. Needs Python 3.11+, make and a C compiler.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench protos release-protos train-demo-pair nightly clean

help:            ## what there is
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(READY)  ## install everything into .venv
$(READY): pyproject.toml setup.py constraints.txt $(wildcard kernels/nacre_kernels/*.c kernels/nacre_kernels/*.h)
	@echo "installing into $(VENV): torch and transformers take a few minutes the first time"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; run make PYTHON=python3.11"; exit 2; }
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

demo: $(READY)   ## three real services, one prompt, exactly the target's text, and how much faster
	$(BIN)/nacre demo

test: $(READY)   ## all tests
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

check: $(READY)  ## lint, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## rewrite the formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## the headline figures against every baseline, in ten minutes
	$(BIN)/nacre bench headline --quick

protos: $(READY) ## regenerate nacre/v1 from protos/
	$(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=. --pyi_out=. --grpc_python_out=. protos/nacre/v1/*.proto

release-protos: $(READY) ## record the wire format as released: later changes must fit it
	$(BIN)/python -m grpc_tools.protoc -Iprotos --include_imports --descriptor_set_out=protos/nacre/v1/released.binpb protos/nacre/v1/*.proto

train-demo-pair: $(READY) ## train the bundled models again (hours)
	$(BIN)/nacre train demo-pair

nightly: $(READY) ## what takes too long for every change
	NACRE_NIGHTLY=1 $(BIN)/python -m pytest --timeout 3600

clean:           ## remove what the build made
	rm -rf $(VENV) build dist *.egg-info
