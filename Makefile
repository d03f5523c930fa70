# `make` sets everything up; `make help` lists the rest. Works with GNU make 3.81 and later.

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# The first Python that runs and is one of the supported versions; PYTHON=/path/to/python wins.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	"$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1 \
	&& { echo "$$python"; break; }; done)

# A tool that guards production does not phone home.
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true

ARGS = $(if $(POLICY),--policy "$(POLICY)") $(if $(DATA),--data "$(DATA)")

.DEFAULT_GOAL := setup
.PHONY: setup help up down status serve demo replay backtest drift history trail test prove bench lint format docs lock clean mlflow-ui prefect-ui

setup: $(STAMP) ## Make .venv with the locked packages (the default)
	@echo "Ready. 'make demo' shows one model's way there and back, 'make help' lists everything else."

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

# The lock is complete and has a hash for every file; pip takes it with --no-deps, because its hash mode does not see
# that sqlalchemy[asyncio] is the pinned sqlalchemy. The project itself needs no build: a .pth file puts its folder
# on the path, and its modules are compiled like those of the packages. Where PYTHONDONTWRITEBYTECODE is set, as in many
# containers, each flow's process would compile them anew.
$(STAMP): requirements.lock pyproject.toml
	@if [ ! -x $(BIN)/python ]; then \
		python="$(PYTHON)"; \
		if [ -z "$$python" ]; then \
			echo "No Python 3.11, 3.12 or 3.13 was found; install one, or name it: make PYTHON=/path/to/python" >&2; \
			exit 1; \
		fi; \
		echo "Making $(VENV) with $$python"; "$$python" -m venv $(VENV); \
	fi
	@if command -v uv >/dev/null 2>&1; then uv=uv; \
	elif [ -x $(BIN)/uv ] || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv; then uv=$(BIN)/uv; \
	else uv=; fi; \
	if [ -n "$$uv" ]; then \
		"$$uv" pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock; \
	else \
		echo "uv cannot be had; pip does the same, slower" >&2; \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock; \
	fi
	@$(BIN)/python -c 'import pathlib, sysconfig; \
	pathlib.Path(sysconfig.get_path("purelib"), "backstop.pth").write_text(str(pathlib.Path.cwd()) + "\n")'
	@$(BIN)/python -m compileall -q flows tasks serving stack rehearsal
	@touch $(STAMP)

# PREFECT_PORT=, MLFLOW_PORT=, BACKSTOP_HOME= and DATABASE= choose where; they go to the commands as environment. A
# password belongs into the environment (export DATABASE=...), not behind `make`, where other users can read it.
up: $(STAMP) ## Start Prefect, MLflow and a worker on this machine, and deploy everything (see docs/deploy.md)
	@$(BIN)/python -m stack.up

down: $(STAMP) ## End exactly what `make up` started; all state stays
	@$(BIN)/python -m stack.down

status: $(STAMP) ## What of `make up` runs, and where the logs are
	@$(BIN)/python -m stack.status

serve: $(STAMP) ## Answer for what is in Production (POLICY=, PORT=8400; see docs/serving.md)
	@exec $(BIN)/python -m serving --policy "$(POLICY)" $(if $(PORT),--port "$(PORT)")

demo: $(STAMP) ## Trigger, retrain, gate, promote, watch, roll back, in minutes (POLICY= and DATA= for your own)
	$(BIN)/python -m rehearsal.demo $(ARGS)

replay: $(STAMP) ## Play history through a policy and see what it would have decided (POLICY=, DATA=)
	$(BIN)/python -m rehearsal.replay $(ARGS)

backtest: $(STAMP) ## Play history through a policy in memory, over a grid (POLICY=, DATA=, GRID="triggers.age=30d,90d")
	@$(BIN)/python -m rehearsal.backtest $(ARGS) $(if $(GRID),--grid "$(GRID)")

drift: $(STAMP) ## Which columns of a file have drifted (RECENT=, REFERENCE= an older file, or POLICY= what is in Production)
	@$(BIN)/python -m tasks.drift "$(RECENT)" $(if $(REFERENCE),--reference "$(REFERENCE)") \
	$(if $(POLICY),--policy "$(POLICY)") $(if $(DROP),--drop "$(DROP)")

history: $(STAMP) ## Who served, since when, decided by what, and is the ledger intact (MODEL=, AT=)
	$(BIN)/python -m tasks.audit "$(MODEL)" $(if $(AT),--at "$(AT)")

trail: $(STAMP) ## The story of one version (ID= a trail, a model or model:version; HTML= a file to write it into)
	$(BIN)/python -m flows.trail "$(ID)" $(if $(HTML),--html "$(HTML)")

test: $(STAMP) ## Run the tests
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# Each prints its table and one last JSON line, and fails when a promise is not kept; --quick is in the tests.
PROOFS = sequential gate_power shadow_power drift_null drift_power delayed_labels shared_cause backtest_year scenarios
prove: $(STAMP) ## Prove the promised error rates by simulation, an hour (PROOFS="sequential drift_null")
	@mkdir -p .proofs; short=0; for proof in $(PROOFS); do echo; echo "== $$proof"; \
	$(BIN)/python -m benchmarks.$$proof > .proofs/$$proof.txt || short=1; cat .proofs/$$proof.txt; done; \
	$(BIN)/python -m benchmarks.proven_page .proofs; exit $$short

bench: $(STAMP) ## Measure speed and size beside the peers, an hour (ONLY=drift,serving ROUNDS=3; see docs/benchmarks.md)
	@$(BIN)/python -m benchmarks.bench $(if $(ONLY),--only "$(ONLY)") $(if $(ROUNDS),--rounds "$(ROUNDS)")

lint: $(STAMP) ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## Put the code into its one format
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

docs: $(STAMP) ## Write docs/policy.md anew from the policy's own schema
	$(BIN)/python -m tasks.policy_page

# The image holds what runs in production, and none of the tools of development; see docs/containers.md.
IMAGE_EXTRAS = postgres dask docker kubernetes
lock: $(STAMP) ## Resolve requirements.lock and requirements-image.lock anew
	@if command -v uv >/dev/null 2>&1; then uv=uv; else uv=$(BIN)/uv; fi; \
	resolve() { "$$uv" pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url \
		--no-annotate --no-header pyproject.toml "$$@"; }; \
	resolve --all-extras -o requirements.lock && \
	resolve $(IMAGE_EXTRAS:%=--extra %) --constraint requirements.lock -o requirements-image.lock

mlflow-ui: $(STAMP) ## Look at runs and versions: http://127.0.0.1:5000
	exec $(BIN)/mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$${BACKSTOP_HOME:-.backstop}/mlflow.db}"

prefect-ui: $(STAMP) ## Look at flows, reports and schedules: http://127.0.0.1:4200
	exec $(BIN)/prefect server start

clean: ## Remove .venv, caches and what the demo wrote; .backstop (ledger and models) stays
	rm -rf $(VENV) .demo .replay .backtest .proofs .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis build backstop.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
