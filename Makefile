# Driftline. `make demo` and `make test` each work as the first command on a fresh clone.

# Which build of torch: default (what the registry serves and the lock pins), cpu, cu130, auto (what suits this machine's
# driver), or another backend that uv knows. Remembered in .venv.
TORCH ?= $(shell cat .venv/torch-build 2>/dev/null || echo default)
# One worker for each core, each with its broker, Redis and browser; whoever is through takes tests from another.
TEST_WORKERS ?= --numprocesses=logical --maxprocesses=4 --dist=worksteal
BIN := .venv/bin
STAMP := .venv/stamp-$(TORCH)
SOURCES := driftline stream learner serving replay

.PHONY: help setup demo test check format bench accept lock clean

help:
	@echo "make setup    .venv with everything (TORCH=default|cpu|cu130|auto picks torch's build)"
	@echo "make demo     watch a model keep up with a simulated review feed, about three minutes on 2 idle cores"
	@echo "make test     all tests, against a real Kafka broker and a real Redis; PYTEST_ARGS=--random-order shuffles them"
	@echo "make check    lint, format, types, import rules"
	@echo "make format   put the sources in the house's format"
	@echo "make bench    measure throughput and latency"
	@echo "make accept   the whole list of what Driftline must show; takes long"
	@echo "make lock     pin the newest versions in requirements.lock"
	@echo "make clean    remove .venv and caches"

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml scripts/setup.sh
	@rm -f .venv/stamp-*
	scripts/setup.sh $(TORCH)
	@touch $@

demo: setup
	$(BIN)/driftline demo

test: setup
	scripts/require-kafka.sh
	scripts/require-browser.sh
	$(BIN)/python -m pytest $(TEST_WORKERS) $(PYTEST_ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/unit/test_architecture.py tests/unit/test_config.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/python -m benchmarks.run $(BENCH_ARGS)

accept: setup
	$(BIN)/python -m benchmarks.accept $(ACCEPT_ARGS)

lock: setup
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--extra demo --extra dev pyproject.toml -o requirements.lock

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
