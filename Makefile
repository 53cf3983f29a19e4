# Every target does all its set-up, can be repeated, and says in one line each what it is doing.
#   make demo [STORAGE=s3] [ONCE=1] [PORT=8000]    make test [ONLY=tests/engine]    make lint    make lock
#   make torture [MINUTES=20] [SEED=7] [FLAVOUR=mysql]    make fuzz [MINUTES=10] [SEED=7]
#   make bench [SIZE=full] [ROUNDS=3] [ONLY=capture,replay-oltp]
SHELL := /bin/bash
PYTHON := $(shell for each in python3 python3.11 python3.12 python3.13; do \
	$$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$each && break; done)
VENV := build/venv
RUN := env EVEREST_DATA=build/data PYTHONUNBUFFERED=1 $(VENV)/bin/python
PORT := 8000

# $(call need,command that succeeds where it is there,packages): install what is missing, or name it.
define need
if ! $(1) >/dev/null 2>&1; then \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing $(2) (once)"; \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq --yes --no-install-recommends install $(2) \
			>build/apt.log 2>&1 </dev/null || { tail -5 build/apt.log; exit 1; }; \
	else \
		echo "This needs $(2). Install it, as root: apt-get install $(2)"; exit 1; \
	fi; \
fi
endef

.PHONY: demo test torture soak fuzz bench lint lock
.ONESHELL:

demo: $(VENV)/ready
	@exec $(RUN) -m everest.demo.story --storage=$(or $(STORAGE),local) --port=$(PORT) $(if $(ONCE),--once)

test: $(VENV)/ready
	@set -e
	$(call need,command -v chromium || command -v google-chrome,chromium)
	$(call need,command -v zstd,zstd)
	echo "Testing against real servers (MySQL, MariaDB, S3, a browser)"
	exec $(RUN) -m pytest -n 2 --dist loadfile $(or $(ONLY),tests)

torture: $(VENV)/ready
	@exec $(RUN) -m tests.torture --minutes=$(or $(MINUTES),5) $(if $(SEED),--seed=$(SEED)) $(if $(FLAVOUR),--flavour=$(FLAVOUR))

bench: $(VENV)/ready
	@set -e
	$(call need,command -v sysbench,sysbench)
	$(call need,command -v mydumper,mydumper)
	$(call need,command -v zstd,zstd)
	echo "Measuring Everest beside its peers on real servers"
	exec $(RUN) -m tests.bench --size=$(or $(SIZE),small) $(if $(ROUNDS),--rounds=$(ROUNDS)) $(if $(ONLY),--only=$(ONLY))

fuzz: $(VENV)/ready
	@exec $(RUN) -m tests.fuzz --minutes=$(or $(MINUTES),10) $(if $(SEED),--seed=$(SEED))

soak: $(VENV)/ready
	@set -e
	$(call need,ls /usr/lib/*/faketime/libfaketimeMT.so.1,faketime)
	exec $(RUN) -m tests.soak --minutes=$(or $(MINUTES),20) $(if $(SEED),--seed=$(SEED))

lint: $(VENV)/ready
	@set -e
	echo "Style (ruff)";                         $(VENV)/bin/ruff check .
	echo "Types (mypy, strict on the engine)";   $(VENV)/bin/mypy
	echo "Import directions";                    $(RUN) -m pytest -q --no-header tests/test_directions.py
	echo "Settings, with warnings as errors";    $(RUN) -W error manage.py check
	echo "Migrations";                           $(RUN) -W error manage.py makemigrations --check --dry-run

lock: $(VENV)/ready
	@set -e
	echo "Writing requirements.lock anew from pyproject.toml"
	$(PYTHON) -m venv build/pip-tools && build/pip-tools/bin/pip install --quiet pip-tools
	CUSTOM_COMPILE_COMMAND="make lock" build/pip-tools/bin/pip-compile --quiet --upgrade --extra dev --strip-extras \
		--generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--output-file requirements.lock pyproject.toml

$(VENV)/ready: requirements.lock
	@set -e
	mkdir -p build
	if [ -z "$(PYTHON)" ]; then echo "This needs Python 3.11 or newer. Install it, on Debian 12 as root: apt-get install python3-venv"; exit 1; fi
	$(call need,$(PYTHON) -m ensurepip --version,python3-venv)
	echo "Making build/venv with what requirements.lock names (once)"
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --disable-pip-version-check --require-hashes -r requirements.lock \
		>build/pip.log 2>&1 || { tail -5 build/pip.log; exit 1; }
	touch $@
