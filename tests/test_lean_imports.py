"""Command line and agent do not load the system's OpenSSL, nor `attach` what is slow to load."""

from __future__ import annotations

import subprocess
import sys

import pytest
from overlay.errors import AgentNotRunningError

LOADED = "import sys; print([name for name in ('ssl', '_ssl', '_hashlib') if name in sys.modules])"
SLOW = ("asyncio", "dataclasses", "email", "http", "inspect", "logging", "ssl", "subprocess",
        "tempfile", "tomllib", "typing", "urllib.request", "yaml")  # fmt: skip
ATTACH = f"""
import sys
from overlay.cli.main import main
try:
    code = main(["attach", "c1", "--network", "blue", "--run-dir", "/nonexistent"])
finally:
    print(code, [name for name in {SLOW} if name in sys.modules])
"""
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
    """Run a program in an interpreter of its own; return its output."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("imports", ["import overlay.cli.main, overlay.cli.verbs.local", AGENT])
def test_no_openssl_of_the_system_is_loaded(imports: str) -> None:
    """It is loaded by none of http.client, asyncio, aiohttp and hashlib."""
    assert run(f"{imports}\n{LOADED}") == "[]"


def test_later_imports_load_openssl() -> None:
    """`ssl` works after the block; so do hashes, without OpenSSL."""
    assert run(AGENT + AFTER) == "works"


def test_what_is_loaded_already_stays() -> None:
    """The block takes nothing away from a process that has it."""
    assert run("import ssl, _hashlib\n" + AGENT + LOADED).startswith("['ssl'")


def test_a_python_without_its_own_hashes_keeps_openssl() -> None:
    """Without its own SHA-256, hashlib needs OpenSSL."""
    hide = "import importlib.util as u; found = u.find_spec\nu.find_spec = lambda name: None\n"

    assert run(hide + AGENT + AFTER) == "works"
    assert "_hashlib" in run(hide + AGENT + LOADED)


def test_an_attach_loads_nothing_slow() -> None:
    """Its time is mostly the start of the program: http.client loads email, and asyncio ssl."""
    assert run(ATTACH) == f"{AgentNotRunningError.exit_code} []"


def test_a_command_ends_at_once() -> None:
    """With all of its output and its exit code; to take the interpreter apart takes time."""
    leave = (
        "import atexit, sys; atexit.register(print, 'apart'); sys.argv = ['overlayd', 'version']"
    )
    program = f"{leave}\nfrom overlay.cli.main import main; sys.exit(main())"

    assert run(program).startswith("overlayd")
    assert "apart" not in run(program)
    assert "apart" in run(f"import threading; {program}")
