# Two commands: `make run` does the main job, `make test` runs the whole suite. Both do all the set-up.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: walls help run install test test-setup unit conformance lint bench docs clean lock

help:  ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

run: $(VENV)/.run system  ## The main job: a ticket the whole way to a merge (REPO=, TICKET=, YES=1)
	@REPO="$(REPO)" TICKET="$(TICKET)" YES="$(YES)" $(BIN)/python tools/main_job.py

install: $(VENV)/.run  ## Build .venv with the vestibule command in .venv/bin

test: test-setup lint docs unit  ## Everything: set-up, lint, docs, the whole test suite

test-setup: $(VENV)/.dev system-test prometheus build/tools/.installed build/conformance/.installed build/tools/.opa

unit:
	$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

conformance: $(VENV)/.dev build/conformance/.installed  ## The official MCP conformance suite against the context endpoint
	$(BIN)/python -m pytest tests/conformance -q -p no:cacheprovider

lint: $(VENV)/.dev  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check src tests tools
	$(BIN)/ruff format --check src tests tools
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: test-setup  ## Figures, each beside a peer or a physical limit of the same run
	-$(MAKE) --no-print-directory build/contextforge/.installed
	-$(MAKE) --no-print-directory build/sandbox-runtime/.installed
	-$(MAKE) --no-print-directory build/litellm/.installed
	VESTIBULE_BENCH_PEERS=1 VESTIBULE_BENCH_CALLS=2400 $(BIN)/python -m pytest tests/bench -m bench -s -q -p no:cacheprovider

walls: test-setup  ## Every attack on the walls, with each wall switched off in turn (as root); writes the page
	$(BIN)/python -m tests.attacks.walls.play && $(BIN)/python tools/gen_walls.py

docs: $(VENV)/.dev  ## Build the documentation, warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --site-dir build/site

clean:  ## Remove what was built and the sample's state
	rm -rf $(VENV) build .state

lock:  ## Lock the dependencies anew (needs uv)
	uv pip compile -q --generate-hashes --no-emit-index-url --no-header --python-version 3.11 requirements/build.in -o requirements/build.txt
	uv pip compile -q --generate-hashes --no-emit-index-url --no-header --python-version 3.11 requirements/conformance.in -o requirements/conformance.txt
	uv pip compile -q --generate-hashes --no-emit-index-url --no-header --python-version 3.11 pyproject.toml -o requirements/run.txt
	uv pip compile -q --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --extra test --extra lint --extra docs -c requirements/run.txt pyproject.toml -o requirements/dev.txt

# --- set-up ---------------------------------------------------------------------------------------------

$(BIN)/python:
	@tools/setup.sh python "$(PYTHON)" "$(VENV)"

$(VENV)/.run: requirements/run.txt requirements/build.txt pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --require-hashes -r requirements/run.txt -r requirements/build.txt
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q src/vestibule
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	$(PIP) install --quiet --require-hashes -r requirements/dev.txt
	@touch $@

.PHONY: system system-test prometheus
system:
	@tools/setup.sh system bwrap:bubblewrap git:git

system-test: system
	@tools/setup.sh system rg:ripgrep node:nodejs npm:npm chromium:chromium curl:curl pgrep:procps /usr/include/linux/seccomp.h:linux-libc-dev \
	  clang-14:clang-14 llvm-strip-14:llvm-14 /usr/include/bpf/bpf_core_read.h:libbpf-dev pg_ctlcluster:postgresql

# Prometheus for the tests of metrics and alerts. Installed, Debian's package would start a service on all addresses.
prometheus:
	@tools/setup.sh unpacked build/prometheus prometheus:prometheus promtool:prometheus

build/tools/.installed: tests/tools/package.json tests/tools/package-lock.json | system-test
	@mkdir -p build/tools
	@cp tests/tools/package.json tests/tools/package-lock.json build/tools/
	@# Not `npm ci`: it fails where a registry lacks a program's packages for other platforms. The lock's digests hold.
	npm install --prefix build/tools --no-audit --no-fund --loglevel=error
	@touch $@

build/contextforge/.installed: | $(BIN)/python
	$(BIN)/python -m venv build/contextforge
	build/contextforge/bin/python -m pip --disable-pip-version-check install --quiet mcp-contextforge-gateway==1.0.7.post20260921
	@touch $@

build/litellm/.installed: | $(BIN)/python
	@tools/setup.sh system nginx:nginx-light
	$(BIN)/python -m venv build/litellm
	build/litellm/bin/python -m pip --disable-pip-version-check install --quiet 'litellm[proxy]==1.106.2'
	@touch $@

build/sandbox-runtime/.installed: | system-test
	@tools/setup.sh system socat:socat
	npm install --prefix build/sandbox-runtime --no-audit --no-fund --loglevel=error @anthropic-ai/sandbox-runtime@0.0.78
	@touch $@

build/conformance/.installed: tests/tools-conformance/package.json tests/tools-conformance/package-lock.json requirements/conformance.txt | system-test $(BIN)/python
	@mkdir -p build/conformance
	@cp tests/tools-conformance/package.json tests/tools-conformance/package-lock.json build/conformance/
	npm ci --prefix build/conformance --no-audit --no-fund --loglevel=error
	$(PIP) install --quiet --require-hashes --upgrade --target build/conformance/python -r requirements/conformance.txt
	@touch $@

# A real OPA for the policy vectors. It is built with Go (1.23 or newer; Debian 12's is too old); without Go the tests
# against it are skipped, and fail where CI=true.
OPA_VERSION := v1.4.2
build/tools/.opa:
	@mkdir -p build/tools/bin
	@if ! command -v go >/dev/null; then \
	  echo "setup: there is no Go here, so the policy tests against a real OPA are left out" >&2; \
	else \
	  GOBIN="$(CURDIR)/build/tools/bin" GOFLAGS=-mod=mod CGO_ENABLED=0 \
	    go install github.com/open-policy-agent/opa@$(OPA_VERSION) && touch $@; \
	fi
