# Targets for developers. Each but deb and rpm first installs its requirements (scripts/setup).
SEEDS ?= 100
PY = .venv/bin/python

.PHONY: bench fuzz setup lab down check docs test unit kernel e2e data-path-test gate-test chaos soak soak-sim examples-test deb rpm dist packages arm64-test vm-test netavark-test evpn-test vagrant-test clean

setup:
	@scripts/setup

# A demonstration on one machine: three hosts, three containers, pings by name across hosts.
lab: setup
	@.venv/bin/overlayd lab down 2>/dev/null
	@.venv/bin/overlayd lab up --hosts $${HOSTS:-3}

down:
	@.venv/bin/overlayd lab down

check: setup docs
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/codespell *.md docs examples overlay deploy vagrant scripts tests

unit: setup
	.venv/bin/pytest -q -n 2 --ignore tests/e2e -m "not netns and not e2e and not chaos and not packages"

kernel: setup
	.venv/bin/pytest -q -m "netns and not e2e"

e2e: setup
	.venv/bin/pytest -q -m "e2e and not vm and not chaos and not debian13 and not examples and not packages and not booted"

# Checks and unit tests, then the tests on hosts; LABS (4) is the number of their workers.
test: setup
	@scripts/test

# The tests of the data plane on one path, DATA_PATH=bridge, fast or native, or on all (20 minutes each). Needs root.
data-path-test: setup
	@failed=0; for path in $(or $(DATA_PATH),bridge fast native); do \
	  echo "data-path-test: $$path"; \
	  OVERLAYD_LAB_DATA_PATH=$$path .venv/bin/pytest -q --dist loadfile --no-loadscope-reorder \
	    --tx "$${LABS:-3}*popen//python=tests/apart" -m "data_path and not vm and not chaos" tests/e2e || failed=1; \
	done; exit $$failed

# The tests of what a host translates, by its own hooks, or with GATE=on (10 minutes). Needs root.
gate-test: setup
	OVERLAYD_LAB_GATE=$(or $(GATE),off) .venv/bin/pytest -q --dist loadfile --no-loadscope-reorder \
	  --tx "$${LABS:-3}*popen//python=tests/apart" $(addprefix tests/e2e/test_,$(addsuffix .py, \
	    expose isolation mtu names outside_names publish router service_traffic several_subnets \
	    spoofing underlay_ipv6 virtual_address))

# Every fault, with real agents (minutes), on the native path or on DATA_PATH. Prints the measurements.
chaos: setup
	OVERLAYD_LAB_DATA_PATH=$(or $(DATA_PATH),native) OVERLAYD_WRITE_TABLE=1 .venv/bin/pytest -q -s -m chaos tests/e2e

# Churn on real agents: memory, descriptors, namespaces and rows must return to where they were.
soak: setup
	.venv/bin/overlayd lab soak --minutes $${MINUTES:-10}

# Random faults in the simulator, one run for each seed.
soak-sim: setup
	.venv/bin/overlayd sim --soak $(SEEDS)

# The documentation site: build/site. Links that lead nowhere are errors.
docs: setup
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

# The Debian package, for the Python of this machine's Debian: build/overlayd_*.deb
# It needs git, make, python3-venv and a package index, and installs nothing on this machine.
# ARCHITECTURE=arm64 (or amd64) builds it for such machines, on any.
deb:
	@deploy/deb/build.sh

# The same as an RPM, where rpmbuild is: build/overlayd-*.rpm
rpm:
	@deploy/rpm/build.sh

# The tests that need Debian's kernel, in one emulated machine (minutes). Needs root.
vm-test: setup
	@vagrant/vm-test.sh $(VM_TESTS)

# Podman 5 with netavark, in a tree of Debian 13 that the first run builds (a minute). Needs root.
netavark-test: setup
	@scripts/debian13 build/debian13
	OVERLAYD_RECORD=debian13 OVERLAYD_RECORD_ROOT=build/debian13 OVERLAYD_RECORD_TITLE='`make netavark-test`' \
	  .venv/bin/pytest -q -m debian13 tests/e2e

# Networks that reach a fabric by BGP EVPN: seven lab hosts with Debian's FRR (two minutes), and FRR's supervisor
# as a unit, on a copy of this machine that systemd boots. FRR=10: with that of Debian 13 (mmdebstrap). Needs root.
evpn-test: setup
	$(if $(filter 10,$(FRR)),scripts/debian13_frr build/frr10) .venv/bin/pytest -q -m evpn tests/e2e
	scripts/booted .venv/bin/pytest -q -p no:cacheprovider -m booted tests/e2e/test_evpn_unit.py

# The examples that need Ansible, Vagrant and WireGuard's tools (minutes). Needs root.
examples-test: setup
	@scripts/examples_tools build/examples
	.venv/bin/pytest -q -m examples tests/e2e/test_examples.py

# Real virtual machines with Vagrant, emulated without KVM (ten minutes or more). Needs root.
vagrant-test: setup
	@vagrant/test.sh

# The packages for each release they are for, built, installed and used there (minutes); what pipx and twine
# make of wheel and source distribution; the container image. Needs root.
packages: setup
	@scripts/packages
	@scripts/package_tools build/package-tools
	@scripts/container_image build/image/overlayd.tar
	.venv/bin/pytest -q -m packages tests/deploy tests/e2e/test_container_image.py

# The Debian package for arm64, built here, installed and used in an emulated machine (minutes). Needs root.
arm64-test: setup
	@scripts/arm64

# Wheel and source distribution, in dist/
dist: setup
	@.venv/bin/python -m hatchling build

# overlayd compared with the underlay, a manual VXLAN and a two-node Docker swarm (ten minutes).
bench: setup
	scripts/bench

# Millions of coverage-guided hostile inputs to every parser of network data (minutes).
fuzz: setup
	@.venv/bin/pip install -q 'atheris>=3,<4'
	.venv/bin/python scripts/fuzz.py --runs $${RUNS:-1000000}

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
