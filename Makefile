# Two commands are all a fresh machine needs:
#   make demo     set up, run the whole loop on the built-in model, open the report
#   make test     set up, run every test
# Others: make setup, make check (lint and types only), make screenshots (the pictures in docs), make lock (renew
# requirements.lock), make clean.

VENV   ?= .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check
SEED   ?= 0
export PYTHONUTF8 := 1

.PHONY: demo test fast slow check setup screenshots lock clean

demo: $(VENV)/.palate
	$(VENV)/bin/palate demo --seed $(SEED)

test: fast slow

fast: $(VENV)/.palate-dev
	scripts/system-packages chromium
	$(PY) -m pytest -m "not slow"

slow: $(VENV)/.palate-dev
	scripts/system-packages chromium
	$(PY) -m pytest -m slow

check: $(VENV)/.palate-dev
	$(PY) -m pytest tests/test_quality.py tests/test_layout.py

setup: $(VENV)/.palate-dev

screenshots: $(VENV)/.palate-dev
	scripts/system-packages chromium
	$(PY) -m tests.labeling.screenshots

# the lock is a constraint file: exact versions of everything that the tests ran with, one torch build per platform
$(VENV)/.palate: pyproject.toml requirements.lock
	scripts/make-venv $(VENV)
	$(PIP) install --quiet --constraint requirements.lock --editable .
	@touch $@

$(VENV)/.palate-dev: $(VENV)/.palate
	$(PIP) install --quiet --constraint requirements.lock --group dev
	@touch $@

# a fresh environment, the newest versions that the bounds in pyproject.toml admit, written down
lock:
	scripts/lock

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path "./$(VENV)/*" -prune -exec rm -rf {} +
