"""The order of the tests on hosts: files that take longest start first.

A file runs on one worker. If a long one started last, the other workers would be idle at the end.
"""

from __future__ import annotations

LONGEST = (
    "tests/e2e/test_key_rotation.py",
    "tests/e2e/test_api_fuzz.py",
    "tests/e2e/test_upgrade.py",
    "tests/e2e/test_guide.py",
    "tests/e2e/test_paths.py",
    "tests/e2e/test_docker_network.py",
    "tests/e2e/test_admission.py",
    "tests/e2e/test_evpn.py",
    "tests/e2e/test_bad_input.py",
    "tests/e2e/test_cni.py",
    "tests/e2e/test_crash_points.py",
    "tests/e2e/test_encryption.py",
    "tests/e2e/test_publish.py",
    "tests/e2e/test_addresses.py",
    "tests/e2e/test_disks.py",
    "tests/e2e/test_faults.py",
    "tests/e2e/test_cluster.py",
    "tests/e2e/test_joining.py",
    "tests/e2e/test_expose.py",
    "tests/e2e/test_under_load.py",
    "tests/e2e/test_host_changes.py",
    "tests/e2e/test_install.py",
)


def rank(file: str) -> int:
    """Return where a test file is in the order; files without a place come last."""
    return LONGEST.index(file) if file in LONGEST else len(LONGEST)
