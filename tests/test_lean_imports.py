"""The command line and the agent load no OpenSSL that they don't call, and can do without."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOADED = "import sys; print([name for name in ('ssl', '_ssl', '_hashlib') if name in sys.modules])"
AGENT = """
from overlay.lean_imports import without_openssl
with without_openssl():
    import overlay.agent.main
"""
AFTER = """
import ssl, hashlib
assert ssl.OPENSSL_VERSION
assert hashlib.sha256(b'abc').hexdigest().startswith('ba7816bf')
assert hashlib.blake2s(b'abc', digest_size=5).digest()
print('works')
"""


def run(program: str) -> str:
    """Run a program in an interpreter of its own; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("imports", ["import overlay.cli.main, overlay.cli.verbs.local", AGENT])
def test_no_openssl_of_the_system_is_loaded(imports: str) -> None:
    """Neither by http.client, nor by asyncio, aiohttp or hashlib."""
    assert run(f"{imports}\n{LOADED}") == "[]"


def test_who_imports_it_later_has_it() -> None:
    """`ssl` works after the block, and hashes do, without OpenSSL's part."""
    assert run(AGENT + AFTER) == "works"


def test_what_is_loaded_already_stays() -> None:
    """The block takes nothing away from a process that has it."""
    assert run("import ssl, _hashlib\n" + AGENT + LOADED).startswith("['ssl'")


def test_a_python_without_hashes_of_its_own_keeps_openssl_s() -> None:
    """Some distributions build it so: hashlib would have no SHA-256 at all."""
    hide = "import importlib.util as u; found = u.find_spec\nu.find_spec = lambda name: None\n"

    assert run(hide + AGENT + AFTER) == "works"
    assert "_hashlib" in run(hide + AGENT + LOADED)
