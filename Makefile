# Every task of the project. `make repro` and `make test` start from a bare clone and do all their own set-up.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
SET ?= demo
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DAMCRACK_GRAPH_RUN ?= $(shell date -u +%Y%m%dT%H%M%SZ)
# DVC opens its site cache to everybody; by default it lies where everybody may write.
export DVC_SITE_CACHE_DIR ?= $(CURDIR)/.dvc/tmp/site
# The graph's stages write their runs to disk and one call sends them all: importing MLflow once instead of sixteen
# times saves a minute. DAMCRACK_TRACK=live shows long trainings while they run.
repro: export DAMCRACK_TRACK ?= later
BACKUPS ?= backups

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: repro
repro: .venv/installed .dvc/config.local ## run the graph: photos to a registered detector; only what changed is run
	@damcrack check > /dev/null
	@dvc repro; status=$$?; damcrack track send; exit $$status
	@damcrack summary

# One test file a process, and one thread in each: two libraries' threads on one core wait for each other.
PYTEST := OMP_NUM_THREADS=1 pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

.PHONY: test
test: .venv/installed ## run lint, types and all tests
	@ruff format --check . && ruff check . && mypy
	@$(PYTEST) --durations 15

.PHONY: test-fast
test-fast: .venv/installed ## run lint and the fast tests: the edit loop
	@ruff format --check . && ruff check .
	@$(PYTEST) -m "not slow"

# On a machine of your own: mounts need root, or a system that lets users have namespaces (then: unshare -rm make attack).
ATTACKS ?= 1000
ATTACK_SEED ?= 0
ATTACK_FOLDER ?= /tmp/damcrack-attack
.PHONY: attack
attack: .venv/installed ## kill every command, fill its disk, call it twice, damage its photos, for hours: make attack ATTACKS=1000
	@status=0; for kind in kills full twins; do \
	    python tests/attack.py $$kind $(ATTACKS) $(ATTACK_SEED) $(ATTACK_FOLDER) || status=1; done; \
	python tests/damaged_photos.py $(ATTACKS) $(ATTACK_SEED) || status=1; exit $$status

.PHONY: coverage
coverage: .venv/installed ## run the fast tests and show which lines none of them runs; all tests: COVERED=
COVERED ?= -m "not slow"
coverage:
	@pytest $(COVERED) --cov --cov-report=term --cov-report=html:.damcrack/coverage
	@echo "line by line: .damcrack/coverage/index.html"

.PHONY: docs
docs: export NO_MKDOCS_2_WARNING := 1
docs: .venv/installed ## build the documentation into site/, strictly and without a network
	@mkdocs build --strict --quiet
	@echo "open site/index.html"

.PHONY: hooks
hooks: .venv/installed ## let git run the checks of CI before a commit (format, lint, types) and a push (fast tests)
	@pre-commit install --hook-type pre-commit --hook-type pre-push

.PHONY: ui
ui: .venv/installed ## open MLflow's pages on the recorded runs; prints their address: make ui PORT=5001
	@damcrack ui $(if $(PORT),--port $(PORT))

.PHONY: server
server: .venv/installed ## start the team's MLflow server with accounts on 127.0.0.1:5000 (docs/mlflow.md)
	@infra/mlflow/serve.sh

.PHONY: server-backup
server-backup: .venv/installed ## copy the server's databases: make server-backup BACKUPS=folder
	@infra/mlflow/backup.sh $(BACKUPS)

.PHONY: server-restore
server-restore: .venv/installed ## fill an empty server from a copy: make server-restore BACKUP=folder/time
	@infra/mlflow/restore.sh $(BACKUP)

.PHONY: paper
# The cells run in their own folder; their runs are recorded beside those of the graph.
paper: export MLFLOW_TRACKING_URI ?= sqlite:///$(CURDIR)/mlflow.db
paper: export MLFLOW_EXPERIMENT_NAME ?= damcrack-paper
paper: export DAMCRACK_TRACK ?= later
# SEED: one seed without the rivals, the sweep and the options (stages called -more); docs/results.md stays as it is.
paper: CELLS ?= $(if $(SEED),--glob 'pretrain@*-$(SEED)' 'distill@*-$(SEED)' 'finetune-[!m]*@*-$(SEED)')
paper: .venv/installed .dvc/config.local ## run the paper's missing experiments, write docs/results.md; a part: SEED=0, or CELLS="pretrain distill"
	@cd experiments/paper && damcrack snapshot photos && damcrack snapshot miniimagenet
	@cd experiments/paper && dvc repro --keep-going $(CELLS); status=$$?; damcrack track send; \
	    cd ../.. && python -m experiments.paper.report $(if $(SEED),,--markdown docs/results.md) && exit $$status

.PHONY: detector
detector: .venv/installed .dvc/config.local ## train the detector that ships with the package again (about 70 minutes on one core), and pack it
	@cd experiments/detector && damcrack check > /dev/null && damcrack snapshot photos && dvc repro
	@python -m experiments.detector

.PHONY: values
values: .venv/installed ## write params.yaml from a value set: make values SET=paper (or demo)
	@damcrack check params/$(SET).yaml && cp params/$(SET).yaml params.yaml && echo "params.yaml holds the $(SET) values"

.PHONY: bench
bench: .venv/installed ## measure speed and memory beside plain loops
	@python -m experiments.speed

# The images hold parts of lock.txt at the same versions.
RESOLVE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --no-annotate --no-header pyproject.toml
IMAGE_CPU = --extra results --extra export --extra track --extra s3 --extra graph --extra cluster
.PHONY: lock
lock: .venv/installed ## resolve the dependencies of pyproject.toml again into requirements/
	@$(RESOLVE) --extra all --extra dev --extra docs --output-file requirements/lock.txt
	@$(RESOLVE) --constraint requirements/lock.txt $(IMAGE_CPU) --output-file requirements/image-cpu.txt
	@$(RESOLVE) --constraint requirements/lock.txt $(IMAGE_CPU) --extra train --extra encoders --output-file requirements/image-train.txt
	@$(RESOLVE:pyproject.toml=infra/mlflow/packages.txt) --constraint requirements/lock.txt --output-file requirements/image-mlflow.txt

# One Dockerfile, two images: damcrack-train (torch with CUDA) and damcrack-cpu. BASE_IMAGE, TAG and DOCKER may be set.
BASE_IMAGE ?= python:3.11-slim-bookworm
TAG ?= $(shell git describe --always --dirty)
DOCKER ?= docker
.PHONY: images
images: ## build the images damcrack-cpu and damcrack-train: make images TAG=1.0 BASE_IMAGE=...
	@for target in cpu train; do DOCKER_BUILDKIT=1 $(DOCKER) build --file infra/docker/Dockerfile --target $$target \
	    --build-arg BASE_IMAGE=$(BASE_IMAGE) --build-arg REVISION=$$(git rev-parse HEAD) \
	    --tag damcrack-$$target:$(TAG) . || exit 1; done

.PHONY: e2e
e2e: .venv/installed ## run the pipeline as containers against a real S3 (DAMCRACK_TEST_S3, AWS_*): make e2e TAG=dev
	@TAG=$(TAG) pytest tests/kubeflow/test_containers.py -rs

.PHONY: format
format: .venv/installed ## format and fix what ruff can
	@ruff format . && ruff check --fix .

# A downloaded archive has no git: then DVC must not ask for it.
.dvc/config.local:
	@[ -e .git ] && touch $@ || printf '[core]\n    no_scm = true\n' >$@

# The environment. uv installs the locked, hashed packages about six times as fast as pip. Compiling their bytecode
# now halves what every command pays to import torch, also where Python is told to write none (containers, CI).
NO_PACKAGES = { echo "the packages could not be installed: check the network, or name a mirror in PIP_INDEX_URL and UV_INDEX_URL" >&2; exit 1; }
.venv/installed: requirements/lock.txt requirements/uv.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "damcrack needs Python 3.11 or newer; say which: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt || $(NO_PACKAGES)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements/lock.txt || \
	    $(NO_PACKAGES)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@
