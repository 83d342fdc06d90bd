"""Every function that changes the kernel passes a crash point first, so that tests can kill there.

Netlink and nftables have theirs in the one function that sends.
"""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from overlay import failpoint

ROOT = Path(__file__).parent.parent
# What changes the kernel, or a file that outlives the process: a method, or the command of bpf(2).
WRITES = {"write_text", "write_bytes"}
BPF_CHANGES = {"_MAP_UPDATE", "_MAP_DELETE", "_PROG_ATTACH", "_PROG_DETACH", "_LINK_CREATE"}
# BGP EVPN's own files and processes; the agent writes them whole at each start.
EXEMPT = {"evpn/frr.py", "evpn/process.py", "evpn/supervisor.py"}


def changing_functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    """Yield the functions that change something by themselves."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef):
            continue
        for call in (each for each in ast.walk(node) if isinstance(each, ast.Call)):
            match call:
                case ast.Call(func=ast.Attribute(attr=name)) if name in WRITES:
                    yield node
                case ast.Call(func=ast.Name(id="_call"), args=[ast.Name(id=name), *_]) if (
                    name in BPF_CHANGES
                ):
                    yield node


def passes_point(function: ast.FunctionDef) -> bool:
    """Return whether a function calls `failpoint.failpoint`."""
    return any(
        isinstance(each, ast.Call) and ast.unparse(each.func) == "failpoint.failpoint"
        for each in ast.walk(function)
    )


def test_every_change_of_the_kernel_has_a_crash_point() -> None:
    """A function that has none could be killed between two steps that no test separates."""
    kernel = ROOT / "overlay/kernel"
    found = {
        f"{path.relative_to(kernel)}:{function.name}": passes_point(function)
        for path in kernel.rglob("*.py")
        if str(path.relative_to(kernel)) not in EXEMPT
        for function in changing_functions(ast.parse(path.read_text()))
    }

    assert len(found) > 8
    assert [name for name, passes in found.items() if not passes] == []


def test_a_process_stops_at_a_point_and_goes_on(tmp_path: Path) -> None:
    """At the second pass of the point; what a test does to its host meanwhile, it then meets."""
    plan = tmp_path / "plan"
    plan.write_text("stop part.step:2\n")
    body = "from overlay.failpoint import failpoint\nfor _ in range(3): failpoint('part.step')"
    command = [sys.executable, "-P", "-c", body]
    process = subprocess.Popen(command, env=os.environ | {failpoint.VARIABLE: str(plan)})

    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    assert plan.with_name("plan.passed").read_text() == "part.step\n"
    process.send_signal(signal.SIGCONT)
    assert process.wait() == 0
