"""Faults of the underlay: hosts that are cut off, and hosts whose line is slow.

Owns: the rules and queues that make them, in the namespace of the switch and at the hosts'
interfaces. The kernel's state is the only record: what is in force is read from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from overlay.errors import ConflictError, OverlayError, UsageError
from overlay.lab import host_process, underlay
from overlay.lab.host_process import HostProcess

PORTS = {"gossip": 7948, "vxlan": 4789}  # the lab's agents use the defaults
_TABLE = "overlayd_lab"
_RATE = re.compile(r"\d+(?:\.\d+)?(?:k|m|g)?bit")
_DELAY = re.compile(r"\d+(?:\.\d+)?(?:us|ms|s)")


@dataclass(frozen=True, slots=True)
class UnderlayFault:
    """One fault; `second` is empty where it concerns all others, `percent` 100 for a cut."""

    first: str
    second: str = ""
    one_way: bool = False  # from the first to the second only
    only: str = ""  # a key of PORTS
    percent: int = 100

    @property
    def text(self) -> str:
        """The fault in words, which are also those of `parse`."""
        what = "cut" if self.percent == 100 else f"loses {self.percent} %"
        to = f" {'to' if self.one_way else 'and'} {self.second or 'all'}"
        return f"{what}: {self.first}{to}{f', {self.only} only' if self.only else ''}"

    @classmethod
    def parse(cls, text: str) -> UnderlayFault:
        """Return the fault that a text describes. Raises ValueError."""
        found = re.fullmatch(r"(cut|loses (\d+) %): (\S+) (to|and) (\w+)(?:, (\w+) only)?", text)
        if found is None:
            raise ValueError(text)
        _, percent, first, to, second, only = found.groups()
        other = "" if second == "all" else second
        return cls(first, other, to == "to", only or "", int(percent or 100))

    def rules(self) -> list[str]:
        """Return the rules that drop the packets (nft(8))."""
        ways = [(self.first, self.second)]
        if not self.one_way:
            ways.append((self.second, self.first))
        match = f" meta l4proto udp udp dport {PORTS[self.only]}" if self.only else ""
        chance = f" numgen random mod 100 < {self.percent}" if self.percent < 100 else ""
        end = f'{match}{chance} drop comment "{self.text}"'
        return [f"add rule bridge {_TABLE} forward {_ports(*way)}{end}" for way in ways]


def _ports(source: str, target: str) -> str:
    named = (("iifname", source), ("oifname", target))
    return " ".join(f'{word} "{underlay.port_to(host)}"' for word, host in named if host)


def cut(switch: HostProcess, fault: UnderlayFault) -> None:
    """Put a fault in force, beside those that are. Raises OverlayError."""
    _write(switch, [*(each for each in active(switch) if each != fault), fault])


def active(switch: HostProcess) -> list[UnderlayFault]:
    """Return the faults in force that drop packets."""
    done = host_process.run(switch, "nft", "-j", "list", "table", "bridge", _TABLE)
    if done.returncode:  # no such table
        return []
    rules = [each["rule"] for each in json.loads(done.stdout)["nftables"] if "rule" in each]
    texts = dict.fromkeys(rule["comment"] for rule in rules)
    return [UnderlayFault.parse(text) for text in texts]


def slow(switch: HostProcess, host: HostProcess, *, rate: str = "", delay: str = "") -> None:
    """Limit the rate of a host's line, or delay its packets, in both directions.

    The units are those of tc(8): `10mbit`, `50ms`. Raises UsageError for other values, and
    OverlayError where the kernel cannot do it.
    """
    for value, form, option in ((rate, _RATE, "--rate 10mbit"), (delay, _DELAY, "--delay 50ms")):
        if value and not form.fullmatch(value):
            raise UsageError(f"no such rate or delay: {value}", hint=f"Use, for example, {option}")
    if rate and delay:
        raise ConflictError(
            "a line is either limited or delayed", hint="Use one of --rate and --delay"
        )
    queue = (
        ["tbf", "rate", rate, "burst", "32kbit", "latency", "400ms"]
        if rate
        else ["netem", "delay", delay]
    )
    for place, device in _ends(switch, host):
        command = ("tc", "qdisc", "replace", "dev", device, "root", *queue)
        done = host_process.run(place, *command)
        if done.returncode:
            raise OverlayError(
                f"this kernel cannot slow the line of {host.name}",
                why=(done.stderr or done.stdout).strip().splitlines()[0],
                hint="--delay needs the kernel's netem (CONFIG_NET_SCH_NETEM); --rate and --loss"
                " do not",
            )


def slowed(switch: HostProcess, hosts: Sequence[HostProcess]) -> list[str]:
    """Return which hosts' lines are slow, in words."""
    found = []
    for host in hosts:
        shown = host_process.run(switch, "tc", "qdisc", "show", "dev", underlay.port_to(host.name))
        for kind in ("tbf", "netem"):
            if f"qdisc {kind} " in shown.stdout:
                told = re.search(r"(?:rate|delay) (\S+)", shown.stdout)
                found.append(f"slow: {host.name}, {told[0] if told else kind}")
    return found


def heal(switch: HostProcess, hosts: Sequence[HostProcess]) -> list[str]:
    """End all faults of these hosts; return them in words."""
    names = {host.name for host in hosts}
    faults = active(switch)
    ended = [each for each in faults if {each.first, each.second} & names]
    told = [each.text for each in ended] + slowed(switch, hosts)
    _write(switch, [each for each in faults if each not in ended])
    for host in hosts:
        _reset_line(switch, host)
    return told


def _write(switch: HostProcess, faults: Sequence[UnderlayFault]) -> None:
    """Replace all rules at once."""
    hook = "{ type filter hook forward priority 0; }"
    lines = [f"add table bridge {_TABLE}", f"delete table bridge {_TABLE}"]
    if faults:
        lines += [f"add table bridge {_TABLE}", f"add chain bridge {_TABLE} forward {hook}"]
        lines += [rule for fault in faults for rule in fault.rules()]
    done = host_process.run(switch, "nft", "-f", "-", stdin="\n".join(lines) + "\n")
    if done.returncode:
        raise OverlayError(
            "cannot change the lab's underlay",
            why=done.stderr.strip().splitlines()[0],
            hint="The lab needs nftables for bridges in the kernel, and the program nft",
        )


def _ends(switch: HostProcess, host: HostProcess) -> list[tuple[HostProcess, str]]:
    """Return the two ends of a host's line: what each sends is slowed."""
    return [(switch, underlay.port_to(host.name)), (host, underlay.INTERFACE)]


def _reset_line(switch: HostProcess, host: HostProcess) -> None:
    for place, device in _ends(switch, host):
        host_process.run(place, "tc", "qdisc", "del", "dev", device, "root")
