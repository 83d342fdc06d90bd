"""The agent's process: configuration, logging, signals and readiness; serves until stopped.

A failure to start is an OverlayError, which the command line reports like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import signal
import sys
from dataclasses import replace
from pathlib import Path

from overlay.agent.api import routes
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.metrics.pages import metrics_pages
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.plugins.docker.plugin import DockerPlugin
from overlay.agent.process import confinement, journal, systemd
from overlay.agent.process.config import CONFIG_DEFAULT, Config, load
from overlay.errors import OverlayError
from overlay.kernel.evpn import process
from overlay.own_files.refusal import refuse_foreign

_SWITCH_INTERVAL_S = 0.0005
_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE_SIZE = 128 * 1024  # bytes: what the C library begins with
_TRIM_INTERVAL_S = 15.0


def run(
    state_dir: Path | None = None,
    run_dir: Path | None = None,
    config_path: Path | None = None,
    fast_path: str | None = None,
    native_path: str | None = None,
) -> int:
    """Run an agent in the foreground until SIGTERM or SIGINT; return 0. Raises OverlayError."""
    try:
        config = load(config_path or CONFIG_DEFAULT, required=config_path is not None)
        config = replace(
            config,
            state_dir=state_dir or config.state_dir,
            run_dir=run_dir or config.run_dir,
            fast_path=fast_path or config.fast_path,
            native_path=native_path or config.native_path,
        )
        refuse_foreign(config.state_dir, config.run_dir)
        return_large_blocks()
        logging.basicConfig(level=config.log_level.upper(), handlers=[journal.log_handler()])
        confinement.forbid_core_dumps()
        _start_evpn(config)
        confinement.drop_capabilities(
            confinement.needed_capabilities(packet_sockets=config.capture_from_peers)
        )
        asyncio.run(_serve(config))
    except KeyboardInterrupt:
        return 0
    return 0


def _start_evpn(config: Config) -> None:
    """Start what watches FRR's processes, which needs capabilities that are dropped next."""
    if process.uses_unit():
        return  # the agent has systemd start it
    try:
        process.ensure_supervisor(config.state_dir, config.run_dir)
    except (OverlayError, OSError) as error:
        logging.getLogger("overlayd").warning("cannot start FRR's supervisor: %s", error)


async def _serve(config: Config) -> None:
    agent = AgentLifecycle(config)
    server = ApiServer(config.run_dir, config.api_group, is_group_trusted=config.api_group_trusted)
    routes.register(server, agent)
    plugin = DockerPlugin(agent, config.docker_plugin)
    agent.fault_sources.append(plugin)
    loop = asyncio.get_running_loop()
    agent.defects.watch(loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stopping.set)
    loop.add_signal_handler(signal.SIGHUP, _reload, config)
    upkeep: list[asyncio.Task[None]] = []
    try:
        # The socket comes first: a second agent must be refused before it touches any state.
        await server.start()
        await agent.start()
        server.ready.set()
        plugin.start()
        agent.metrics_listener.start(metrics_pages(agent))
        _spare_collections()
        # The kernel thread plans in Python. The loop gives up the interpreter with each datagram
        # it reads, and by default would wait 5 ms to get it back.
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        systemd.notify_systemd("READY=1", "STATUS=serving")
        logging.getLogger("overlayd").info("serving on %s", server.path)
        upkeep = [loop.create_task(_watchdog()), loop.create_task(_return_free_memory())]
        await agent.stopping.wait()
        systemd.notify_systemd("STOPPING=1")
    finally:
        for task in upkeep:
            task.cancel()
        await plugin.close()
        await server.close()
        with contextlib.suppress(asyncio.CancelledError):
            await agent.close()


def return_large_blocks() -> None:
    """Have each block of 128 KiB or more go back to the kernel when it is freed.

    The GNU C library raises that limit with the blocks that it frees, to 32 MiB (mallopt(3)), and
    then keeps the holes that growing tables leave: 7 MiB of 128 beside 50,000 records (measured).
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library may have no such call
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_SIZE)


async def _return_free_memory() -> None:
    """Have the GNU C library return free pages, also between blocks in use, now and then.

    Of itself it keeps those of each thread: 7 MiB of 123 beside 50,000 records (measured), most
    left by a copy of the state.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while trim is not None:  # another C library may have no such call
        await asyncio.sleep(_TRIM_INTERVAL_S)
        await asyncio.to_thread(trim, 0)  # 0.1 to 1 ms


def _spare_collections() -> None:
    """Begin garbage collection, from which objects that live as long as the process are exempt.

    Full collections over many records stalled the loop by 150 to 290 ms (measured with
    100,000 rows); records are trees without cycles, so reference counts free them anyway.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 10, 1_000)
    gc.enable()


def _reload(config: Config) -> None:
    """Reload the configuration: the log level changes now, all else at the next start."""
    systemd.reload_message()
    log = logging.getLogger("overlayd")
    try:
        fresh = load(config.path or CONFIG_DEFAULT, required=False)
    except OverlayError as error:
        log.error("cannot reload the configuration: %s", error)  # noqa: TRY400 - no traceback
    else:
        logging.getLogger().setLevel(fresh.log_level.upper())
        log.warning("reloaded the configuration: log_level is %s", fresh.log_level)
    systemd.notify_systemd("READY=1")


async def _watchdog() -> None:
    interval_s = systemd.watchdog_interval_s()
    while interval_s is not None:
        systemd.notify_systemd("WATCHDOG=1")
        await asyncio.sleep(interval_s)
