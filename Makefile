# overlayd: what a developer runs. Everything installs what it needs first (scripts/setup).
SEEDS ?= 100
PY = .venv/bin/python

.PHONY: bench fuzz setup lab down check test unit kernel e2e chaos soak soak-sim deb dist vm-test vagrant-test clean

setup:
	@scripts/setup

# The main job on one machine: three hosts, three containers, pings by name across hosts.
lab: setup
	@.venv/bin/overlayd lab down 2>/dev/null
	@.venv/bin/overlayd lab up --hosts $${HOSTS:-3}

down:
	@.venv/bin/overlayd lab down

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

unit: setup
	.venv/bin/pytest -q -n 2 -m "not netns and not e2e and not chaos"

kernel: setup
	.venv/bin/pytest -q -m "netns and not e2e"

e2e: setup
	.venv/bin/pytest -q -m "e2e and not vm and not chaos"

# Two workers, each with a machine to itself. They have no way out: the package, which needs an index of
# libraries, is built by the first line's tests.
test: check
	.venv/bin/pytest -q -n 2 -m "not netns and not e2e and not chaos"
	.venv/bin/pytest -q --dist loadfile --tx '2*popen//python=tests/apart' -m "(netns or e2e) and not vm and not chaos"

# Every fault, with real agents; minutes. Prints what was measured.
chaos: setup
	OVERLAYD_WRITE_TABLE=1 .venv/bin/pytest -q -s -m chaos tests/e2e

# Churn on real agents: memory, descriptors, namespaces and rows must return to where they were.
soak: setup
	.venv/bin/overlayd lab soak --minutes $${MINUTES:-10}

# Storms in the simulator, one for each seed.
soak-sim: setup
	.venv/bin/overlayd sim --soak $(SEEDS)

# The Debian package, for the Python of this machine's Debian: build/overlayd_*.deb
deb: setup
	@deploy/deb/build.sh

# The tests that need Debian's own kernel, in one emulated machine (minutes). As root.
vm-test: setup
	@vagrant/vm-test.sh $(VM_TESTS)

# Vagrant with real machines, emulated where there is no KVM (ten minutes or more). As root.
vagrant-test: setup
	@vagrant/test.sh

# Wheel and source distribution: dist/
dist: setup
	@.venv/bin/python -m hatchling build

# overlayd beside the underlay, a hand-made VXLAN and a real two-node Docker swarm; ten minutes.
bench: setup
	scripts/bench

# Millions of hostile inputs, guided by coverage, at all that reads the network (minutes).
fuzz: setup
	@.venv/bin/pip install -q 'atheris>=3,<4'
	.venv/bin/python scripts/fuzz.py --runs $${RUNS:-1000000}

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
