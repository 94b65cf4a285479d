# Everything is in .venv and .hotpath below this folder, and in the user's cache; nothing is installed.
# The work is done by deploy/local: see its docstrings.

SHELL := /bin/bash
PYTHON := .venv/bin/python
VENV := .venv/made
# Stopping must work offline, after any change: an old environment will do, and without data there is nothing to stop.
VENV_TO_STOP := $(if $(wildcard $(VENV)),,$(if $(wildcard .hotpath),$(VENV)))

.DEFAULT_GOAL := help
.PHONY: help up down status clean test fuzz simulate chaos peers scale soak screenshots lint

help:  ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: $(VENV)  ## start Kafka, Postgres, Redis and all services, wait until they are healthy, print where they are
	@$(PYTHON) -m deploy.local up

down: $(VENV_TO_STOP)  ## stop all of that; the data is kept
	@if [ -d .hotpath ]; then $(PYTHON) -m deploy.local down; else echo "Nothing was running."; fi

status: $(VENV_TO_STOP)  ## what runs, where, and whether it is healthy
	@if [ -d .hotpath ]; then $(PYTHON) -m deploy.local status; else echo "Nothing is there: make up starts it."; exit 1; fi

clean: $(VENV_TO_STOP)  ## stop all and remove the data
	@if [ -d .hotpath ]; then $(PYTHON) -m deploy.local clean; else echo "Nothing is there."; fi

# Three processes, each with servers of its own: most tests wait most of the time. A process that is through with its
# share takes from the others, so that the longest files do not come last alone.
test: lint  ## every test, on private servers of its own; PYTEST="-k ring" picks some
	@$(PYTHON) -m pytest --numprocesses 3 --dist worksteal $(PYTEST)

fuzz: $(VENV)  ## look for messages that are classed wrongly, MINUTES=10; what is found is kept in tests/fuzz/corpus
	@$(PYTHON) -m tests.fuzz --minutes $(or $(MINUTES),10)

simulate: $(VENV)  ## workers over stores that fail, SEEDS=100000 FIRST=1 of them; MUTANTS=1: faults of the protocol that it catches
	@$(PYTHON) -m tests.simulation $(if $(MUTANTS),--mutants,--first $(or $(FIRST),1) --seeds $(or $(SEEDS),100000))

chaos: $(VENV)  ## break a running pipeline again and again, FAULTS=100, and prove that nothing was lost; SEED=n repeats
	@$(PYTHON) -m tests.chaos --faults $(or $(FAULTS),100) $(if $(SEED),--seed $(SEED)) $(CHAOS)

peers: $(VENV)  ## other tools on the same job, EVENTS=2000000 each, ONLY="hotpath per_event": bench/results/peers.md
	@$(PYTHON) -m bench.peers --events $(or $(EVENTS),2000000) $(if $(ONLY),--only $(ONLY))

scale: $(VENV)  ## how cost grows with people, bytes, workers ..., EVENTS=1000000 a case, WHAT="users bytes": bench/results
	@$(PYTHON) -m bench.scale --events $(or $(EVENTS),1000000) $(if $(WHAT),--what $(WHAT))

soak: $(VENV)  ## the pipeline at 80 % of its peak, MINUTES=60, RATE=events a second instead; a week of events an hour
	@$(PYTHON) -m bench.soak --minutes $(or $(MINUTES),60) $(if $(RATE),--rate $(RATE))

screenshots: $(VENV)  ## pictures of every page into docs/screenshots, of a stack that first runs for WARM_UP=840 seconds
	@$(PYTHON) -m deploy.screenshots $(if $(WARM_UP),--warm-up $(WARM_UP))

lint: $(VENV)  ## style
	@$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check .

$(VENV): pyproject.toml deploy/constraints.txt deploy/local/venv.sh
	@deploy/local/venv.sh $(VENV)
