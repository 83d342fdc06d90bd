"""Hearing of it when a sandbox is altered, by us or by anybody.

Owns: the place of a sandbox's monitors in the event loop. What contradicts the plan is a hint for
the next pass, which reads the kernel for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from overlay.agent.dataplane.reconcile_pass import SandboxRuntime

_SETTLE_S = 0.02


def watch_sandbox(runtime: SandboxRuntime, doubt: Callable[[], None]) -> None:
    """Call `doubt` when the kernel tells of something else than was planned; many notifications
    of one change are read together."""
    loop = asyncio.get_running_loop()
    descriptor = runtime.monitor.fileno()

    def later() -> None:
        loop.remove_reader(descriptor)
        runtime.settling = loop.call_later(_SETTLE_S, look)

    def look() -> None:
        runtime.settling = None
        found = runtime.monitor.contradictions(runtime.desired, runtime.ports_in_transition)
        if found and runtime.passes:
            runtime.hints = found[:3]
            doubt()
        if runtime.monitor.has_more:  # others get their turn, then we go on
            runtime.settling = loop.call_later(0, look)
        else:
            loop.add_reader(descriptor, later)

    def look_at_guard() -> None:
        if guard is not None and guard.altered():
            runtime.hints = ["port security was altered"]
            doubt()

    loop.add_reader(descriptor, later)
    guard = runtime.sandbox.guard
    if guard is not None:
        loop.add_reader(guard.fileno(), look_at_guard)


def stop_watching(runtime: SandboxRuntime) -> None:
    """Listen no more."""
    loop = asyncio.get_running_loop()
    loop.remove_reader(runtime.monitor.fileno())
    if runtime.sandbox.guard is not None:
        loop.remove_reader(runtime.sandbox.guard.fileno())
    if runtime.settling is not None:
        runtime.settling.cancel()
    runtime.monitor.close()
