# `make` alone lists what there is. Options are variables: make tutorial IMAGES=DIR EPOCHS=2
PYTHON ?= python3
IMAGES ?=
TRAIN ?= yes
EPOCHS ?=
ARCH ?=
WEIGHTS ?=
IMAGE_SIZE ?=
BATCH_SIZE ?=
LR ?=
RUN ?=
PORT ?=
MODEL ?=
DEEP ?=
# TORCH=cpu installs PyTorch's CPU build: no 5 GB of CUDA libraries
TORCH ?= $(if $(wildcard .venv/.installedcpu),cpu)
BIN := .venv/bin
# two files of tests at a time: most of a test is one process that imports
SIDE_BY_SIDE := -n 2 --dist loadfile --no-loadscope-reorder
STAMP := .venv/.installed$(TORCH)

.DEFAULT_GOAL := help
.PHONY: help tutorial setup lab images model batch cost serve doctor lint test test-slow test-browser test-all chromium site bench-train bench-inference bench-scale bench-writeback pictures clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 26

tutorial: setup  ## run the six notebooks; IMAGES=DIR EPOCHS=N ARCH=resnet50 WEIGHTS=none TRAIN=skip
	@$(BIN)/python -m helpers tutorial --images "$(IMAGES)" --train "$(TRAIN)" \
	    $(if $(EPOCHS),--epochs $(EPOCHS)) $(if $(ARCH),--arch $(ARCH)) $(if $(WEIGHTS),--weights "$(WEIGHTS)") \
	    $(if $(IMAGE_SIZE),--image-size $(IMAGE_SIZE)) $(if $(BATCH_SIZE),--batch-size $(BATCH_SIZE)) $(if $(LR),--lr $(LR))

setup: $(STAMP)  ## make .venv and install the lock; TORCH=cpu for the CPU build of PyTorch

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	    { echo "$(PYTHON) is $$($(PYTHON) -V 2>&1). Install Python 3.11, 3.12 or 3.13, or: make setup PYTHON=/path/to/python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@echo "Installing into .venv (about 2 minutes the first time)"
ifeq ($(TORCH),cpu)
	@grep -vE '^(nvidia|cuda|triton)' requirements.txt > .venv/requirements-cpu.txt
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --torch-backend cpu -r .venv/requirements-cpu.txt --editable .
else
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.txt --editable .
endif
	@touch $@

lab: setup  ## JupyterLab on notebook 01, with the stand-in running; Ctrl-C stops both
	@$(BIN)/python -m helpers lab

images: setup  ## download the public data set of 3,781 photographs (CC0)
	@$(BIN)/python -m helpers download

batch: setup  ## the nightly job: load, predict and write back new and changed images
	@$(BIN)/python -m helpers nightly

cost: setup  ## estimate what a run costs on an account; RUN=latest
	@$(BIN)/python -m helpers cost $(if $(RUN),--run "$(RUN)")

serve: setup  ## answer over HTTP with the trained model; PORT=8001 MODEL=model/other.pt
	@$(BIN)/python -m helpers serve $(if $(PORT),--port $(PORT)) $(if $(MODEL),--model "$(MODEL)")

doctor: setup  ## what may keep the tutorial from running here or on your account; DEEP=1 tries the account
	@$(BIN)/python -m helpers doctor $(if $(DEEP),--deep)

lint: setup  ## ruff on code and notebooks, and a check of types
	@$(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/ty check --quiet

test: lint  ## lint, unit tests and the notebooks
	@$(BIN)/pytest $(SIDE_BY_SIDE) -m "not slow and not browser"

test-slow: setup
	@$(BIN)/pytest $(SIDE_BY_SIDE) -m "slow or browser"

test-browser: setup  ## the notebooks in JupyterLab and the pages, in Chromium
	@$(BIN)/pytest -m browser; status=$$?; echo "Screenshots: runs/screenshots/"; exit $$status

test-all: test test-slow  ## everything, the slow tests too

model: setup  ## train both provided models anew, with their card: IMAGES=data/clothing-dataset-small
	@OMP_WAIT_POLICY=PASSIVE $(BIN)/python docs/make_models.py --images "$(IMAGES)"

pictures: setup  ## make the committed pictures and quoted figures anew from the latest run on drawn images
	@$(BIN)/python docs/make_pictures.py

chromium:  ## install Chromium for the browser tests, where there is none (Debian, Ubuntu)
	@command -v chromium || command -v chromium-browser || command -v google-chrome || \
	    { sudo=$$(test $$(id -u) = 0 || echo sudo); $$sudo apt-get update && $$sudo apt-get install --yes chromium; }

site: $(if $(RUN),setup,tutorial)  ## run the tutorial and build its pages in site/; RUN=latest: of a finished run
	@$(BIN)/python docs/make_site.py --run "$(or $(RUN),latest)"

bench-train: setup  ## measure training beside its ceiling
	@$(BIN)/python benchmarks/bench_train.py

bench-inference: setup  ## measure inference beside its ceiling
	@$(BIN)/python benchmarks/bench_inference.py

bench-scale: setup  ## measure our own overhead at up to a million rows
	@$(BIN)/python benchmarks/bench_scale.py
	@$(BIN)/python benchmarks/bench_stage.py

bench-writeback: setup  ## measure write-back at up to a million rows
	@$(BIN)/python benchmarks/bench_writeback.py

clean:  ## remove what the tutorial made on this machine: runs, stand-in, caches (not .venv)
	@if test -x $(BIN)/python; then $(BIN)/python -m standin stop || true; fi
	@rm -rf runs site .sandbox .samples .samples-* ..samples-* .cache model/model_trained.* model/hashes-*.csv
