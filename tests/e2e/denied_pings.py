"""Pings that no container may answer while a random walk goes on."""

from __future__ import annotations

from overlay.lab.driver import AgentDriver

PINGS_MAX = 4  # at once, of a walk


class DeniedPing:
    """A container's pings to another one that it must not reach, ten a second."""

    def __init__(self, driver: AgentDriver, ends: tuple[str, str], command: str) -> None:
        self.ends = ends
        self._driver = driver
        self._log = f"/run/denied-{'-'.join(ends)}"
        started = f"ip netns exec {ends[0]} {command} -i 0.1 >{self._log} 2>&1 & echo $!"
        self._pid = driver.run("sh", "-c", started).strip()

    def end(self) -> list[str]:
        """Send no more; return the answers."""
        shown = self._driver.run("sh", "-c", f"kill {self._pid}; cat {self._log}; rm {self._log}")
        return [line for line in shown.splitlines() if " bytes from " in line]


class DeniedPings:
    """All such pings of a walk."""

    def __init__(self) -> None:
        self._pings: list[DeniedPing] = []

    def start(self, driver: AgentDriver, source: str, target: str, command: str) -> None:
        """Begin to ping, unless it is done already; the oldest pings end if there are too many."""
        if any(each.ends == (source, target) for each in self._pings):
            return
        if len(self._pings) == PINGS_MAX:
            self._end(self._pings[0])
        self._pings.append(DeniedPing(driver, (source, target), command))

    def end(self, *names: str) -> None:
        """End the pings of and to some containers, which may be answered from now on."""
        for each in [each for each in self._pings if set(names) & set(each.ends)]:
            self._end(each)

    def _end(self, ping: DeniedPing) -> None:
        self._pings.remove(ping)
        answers = ping.end()
        source, target = ping.ends
        assert not answers, f"{source} reached {target} meanwhile: {answers[:3]}"
