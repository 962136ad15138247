# fl-inmetro. `make` alone lists what there is to make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# One torch thread per process; no telemetry and no download by Flower.
export OMP_NUM_THREADS ?= 1
export FLWR_TELEMETRY_ENABLED = 0
export FLWR_DISABLE_UPDATE_CHECK = 1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION = 1

.DEFAULT_GOAL := help
.PHONY: help install run compare flower test test-flower lint format bench bench-rules bench-strategies bench-dp bench-privacy bench-zoo bench-ev bench-trees clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[simulation,onnx,privacy,dev]'
	@touch $@

install: $(STAMP) ## Make the virtual environment .venv with everything in it

run: $(STAMP) ## Train on the built-in simulator: table, report, what to try next
	$(BIN)/fl-inmetro run examples/quickstart.toml

compare: $(STAMP) ## Local-only, federated and centralised on the simulator
	$(BIN)/fl-inmetro compare examples/quickstart.toml

flower: $(STAMP) ## The same application on Flower's simulation engine (10 nodes)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/flwr run . --stream --federation-config "num-supernodes=10" --run-config "runs-dir='$(CURDIR)/runs'"

test: $(STAMP) ## Run the tests (those that need data read FL_INMETRO_DATA, or say why they skip)
	$(BIN)/python -m pytest -n 2 -m "not flower"

test-flower: $(STAMP) ## Run the tests that start Flower's simulation engine (Ray)
	$(BIN)/python -m pytest -m flower

lint: $(STAMP) ## Style and types: ruff, mypy strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## Bring the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## Measure the engine beside its peers, scale, import, start of the command (over an hour)
	$(BIN)/python benchmarks/engine.py $(ENGINE)
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/serve.py
	$(BIN)/python benchmarks/rules.py
	$(BIN)/python benchmarks/import_readings.py
	$(BIN)/python benchmarks/command_start.py

bench-rules: $(STAMP) ## Measure every aggregation rule on 1,000 clients of 100,000 parameters (some minutes)
	$(BIN)/python benchmarks/rules.py

bench-strategies: $(STAMP) ## Compare every strategy on real buildings, three seeds (FL_INMETRO_DATA; an hour)
	$(BIN)/python benchmarks/strategies.py

bench-dp: $(STAMP) ## Measure a private step beside a plain one, and beside Opacus where it is installed (a minute)
	$(BIN)/python benchmarks/dp_step.py

bench-privacy: $(STAMP) ## Measure what noise costs in accuracy, by epsilon (FL_INMETRO_DATA; half an hour)
	$(BIN)/python benchmarks/privacy_curve.py

bench-zoo: $(STAMP) ## Compare every trained model on three real data sets (FL_INMETRO_DATA; an hour)
	$(BIN)/python benchmarks/zoo.py

bench-ev: $(STAMP) ## Measure the vehicle dynamics, beside ratings and on a measured car; regression, batteries, charging (FL_INMETRO_DATA; some minutes)
	$(BIN)/python benchmarks/ev_dynamics.py
	$(BIN)/python benchmarks/ev_rated.py
	$(BIN)/python benchmarks/ev_bmw.py
	$(BIN)/python benchmarks/ev_regression.py
	$(BIN)/python benchmarks/ev_batteries.py
	$(BIN)/python benchmarks/ev_charging.py

bench-trees: $(STAMP) ## Measure federated trees on buildings beside LightGBM and XGBoost (FL_INMETRO_DATA; half an hour)
	$(BIN)/python benchmarks/trees.py

clean: ## Remove the environment and caches (runs stay)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info
