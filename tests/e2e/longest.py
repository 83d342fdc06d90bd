"""The order of the tests on hosts: files that take longest start first.

A file runs on one worker. If a long one started last, the other workers would be idle at the end.
"""

from __future__ import annotations

LONGEST = (
    "tests/e2e/test_upgrade.py",
    "tests/e2e/test_key_rotation.py",
    "tests/e2e/test_bad_input.py",
    "tests/e2e/test_paths.py",
    "tests/e2e/test_admission.py",
    "tests/e2e/test_joining.py",
    "tests/e2e/test_api_fuzz.py",
    "tests/e2e/test_publish.py",
)


def rank(file: str) -> int:
    """Return where a test file is in the order; files without a place come last."""
    return LONGEST.index(file) if file in LONGEST else len(LONGEST)
