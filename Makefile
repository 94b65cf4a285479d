# Everything is in .venv and .hotpath below this folder, and in the user's cache; nothing is installed.
# The work is done by deploy/local: see its docstrings.

SHELL := /bin/bash
PYTHON := .venv/bin/python
VENV := .venv/made
# Stopping must work offline, after any change: an old environment will do, and without data there is nothing to stop.
VENV_TO_STOP := $(if $(wildcard $(VENV)),,$(if $(wildcard .hotpath),$(VENV)))

.DEFAULT_GOAL := help
.PHONY: help up down status clean test lint

help:  ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: $(VENV)  ## start Kafka, Postgres, Redis and all services, wait until they are healthy, print where they are
	@$(PYTHON) -m deploy.local up

down: $(VENV_TO_STOP)  ## stop all of that; the data is kept
	@if [ -d .hotpath ]; then $(PYTHON) -m deploy.local down; else echo "Nothing was running."; fi

status: $(VENV_TO_STOP)  ## what runs, where, and whether it is healthy
	@if [ -d .hotpath ]; then $(PYTHON) -m deploy.local status; else echo "Nothing is there: make up starts it."; exit 1; fi

clean: $(VENV_TO_STOP)  ## stop all and remove the data
	@if [ -d .hotpath ]; then $(PYTHON) -m deploy.local clean; else echo "Nothing is there."; fi

test: lint  ## every test, on private servers of its own; PYTEST="-k ring" picks some
	@$(PYTHON) -m pytest $(PYTEST)

lint: $(VENV)  ## style
	@$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check .

$(VENV): pyproject.toml deploy/constraints.txt deploy/local/venv.sh
	@deploy/local/venv.sh $(VENV)
