"""Compare the rules of `iptables-save` with a packet (iptables-extensions(8)).

Owns: the meaning of the matches that firewalls use for addresses, ports, interfaces, states and
sizes. Everything else is not known, which is said so.
"""

from __future__ import annotations

import functools
import ipaddress
import shlex
from collections.abc import Iterator
from typing import Final

from overlay.core.netcheck.packet_filter import Action, Chain, Packet, Rule

# Priorities: linux/netfilter_ipv4.h. Address translation drops nothing.
_TABLES: Final = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
_HOOKS: Final = {
    "PREROUTING": "prerouting",
    "INPUT": "input",
    "OUTPUT": "output",
    "POSTROUTING": "postrouting",
}
_TARGETS: Final = {
    "ACCEPT": Action.ACCEPT,
    "DROP": Action.DROP,
    "REJECT": Action.DROP,
    "RETURN": Action.RETURN,
}
_OTHER: Final = Rule(matches=False, action=Action.NOTHING)  # about other packets
_STATES: Final = frozenset({"NEW", "UNTRACKED"})  # overlayd exempts its packets from tracking


def iptables_chains(saved: str, program: str, packet: Packet) -> dict[str, Chain]:
    """Return the chains of the output of `iptables-save`, compared with a packet."""
    chains: dict[str, Chain] = {}
    table = ""
    has_ufw = ":ufw-" in saved
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif table not in _TABLES:
            continue
        elif line.startswith(":"):
            name, policy, *_ = line[1:].split()
            chains[f"{table} {name}"] = Chain(
                _HOOKS.get(name, ""),
                _TABLES[table],
                _policy(program, table, name, policy, packet, has_ufw=has_ufw),
            )
        elif line.startswith("-A "):
            name, options = _parsed(line)
            chain = chains.get(f"{table} {name}")
            if chain is not None:
                chain.rules.append(
                    _rule(program, table, line, name, options, packet, has_ufw=has_ufw)
                )
    return chains


@functools.cache  # the same rules are compared with several packets
def _parsed(line: str) -> tuple[str, list[tuple[str, str, bool]]]:
    """Return a rule's chain and options."""
    _, name, *words = shlex.split(line)
    return name, list(_options(words))


def _policy(
    program: str, table: str, name: str, policy: str, packet: Packet, *, has_ufw: bool
) -> Rule:
    if policy != "DROP":
        return Rule(matches=True, action=Action.ACCEPT)
    return Rule(
        matches=True,
        action=Action.DROP,
        where=f"the policy of {program} chain {name} (table {table})",
        remedy=_accept(program, table, name, packet, has_ufw=has_ufw),
    )


def _accept(program: str, table: str, chain: str, packet: Packet, *, has_ufw: bool) -> str:
    if has_ufw:
        return f"ufw allow {'' if packet.incoming else 'out '}{packet.port}/udp"
    of_table = "" if table == "filter" else f" -t {table}"
    return f"{program}{of_table} -I {chain} -p udp --dport {packet.port} -j ACCEPT"


def _rule(
    program: str,
    table: str,
    line: str,
    chain: str,
    options: list[tuple[str, str, bool]],
    packet: Packet,
    *,
    has_ufw: bool,
) -> Rule:
    matches: bool | None = True
    action, to = Action.NOTHING, ""
    for option, value, is_negated in options:
        if option in ("-j", "-g", "--jump", "--goto"):
            jump = Action.GOTO if option in ("-g", "--goto") else Action.JUMP
            action = _TARGETS.get(value, jump)  # LOG and others are no chain: nothing follows
            to = f"{table} {value}"
            continue
        hit = _match(option, value, packet)
        if hit is not None and is_negated:
            hit = not hit
        if hit is False:
            return _OTHER
        matches = matches and hit
    of_table = "" if table == "filter" else f" -t {table}"
    is_about_port = str(packet.port) in line and not has_ufw
    remedy = (
        f"{program}{of_table} -D {line[3:]}"
        if is_about_port
        else _accept(program, table, chain, packet, has_ufw=has_ufw)
    )
    return Rule(matches, action, f"{program}{of_table}: '{line}'", remedy, to)


def _options(words: list[str]) -> Iterator[tuple[str, str, bool]]:
    """Yield each option with its value, and whether it is negated."""
    i = 0
    is_negated = False
    while i < len(words):
        word = words[i]
        i += 1
        if word == "!":
            is_negated = True
            continue
        values = []
        while i < len(words) and not (words[i].startswith("-") and len(words[i]) > 1):
            if words[i] == "!":
                break
            values.append(words[i])
            i += 1
        yield word, " ".join(values), is_negated
        is_negated = False


def _match(option: str, value: str, packet: Packet) -> bool | None:
    """Return whether a packet has what an option asks for; None if that is not known."""
    match option:
        case "-m" | "--match" | "--comment" | "--reject-with" | "--log-prefix" | "--log-level":
            return None if value in ("limit", "recent", "set", "u32", "bpf", "owner") else True
        case "-p" | "--protocol":
            return value in ("udp", "17", "all", "0")
        case "--dport" | "--dports" | "--destination-port" | "--ports":
            return any(_in_range(packet.port, part) for part in value.split(","))
        case "-s" | "--source":
            return _in_network(packet.source, value)
        case "-d" | "--destination":
            return _in_network(packet.target, value)
        case "-i" | "--in-interface":
            return packet.incoming and _is_interface(packet.interface, value)
        case "-o" | "--out-interface":
            return not packet.incoming and _is_interface(packet.interface, value)
        case "--ctstate" | "--state":
            hits = _STATES & set(value.split(","))
            return True if hits == _STATES else (None if hits else False)
        case "--ctstatus":
            return False
        case "--length":
            return _in_range(packet.size, value)
        case "--dst-type":
            return value == "LOCAL" if packet.incoming else None
        case "--pkt-type":
            return value == "unicast"
        case "--tcp-flags" | "--syn" | "--icmp-type" | "--icmpv6-type":
            return False
        case _:
            return None


def _in_range(number: int, text: str) -> bool | None:
    first, separator, last = text.partition(":")
    try:
        low = int(first or 0)
        high = int(last or 65535) if separator else low
    except ValueError:
        return None
    return low <= number <= high


def _in_network(address: str, text: str) -> bool | None:
    try:
        return _address(address) in _network(text)
    except ValueError:
        return None


@functools.cache
def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(text)


@functools.cache
def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text, strict=False)


def _is_interface(name: str, wanted: str) -> bool:
    return name.startswith(wanted[:-1]) if wanted.endswith("+") else name == wanted
