"""Command `netcheck`: why hosts do not reach each other, with cause and remedy.

Owns: its options and output. Does not: collect the facts (`client.netcheck`), or judge them
(`core.netcheck`).
"""

from __future__ import annotations

import os
from dataclasses import asdict
from enum import Enum
from typing import TYPE_CHECKING, Any

from overlay.cli import output
from overlay.client.api import LOOK_TIMEOUT_S, JsonObject
from overlay.errors import DegradedError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Iterator

    from overlay.cli.parser import VerbGroup
    from overlay.core.netcheck.facts import (
        AddressFacts,
        Facts,
        LocalFacts,
        NetcheckFinding,
        PeerFacts,
    )

_DESCRIPTION = """\
Find out why hosts do not reach each other, and what to do about it (exit 4: there is something).

Without NODE: check this host and its paths to all members.  With NODE: a member, by name, id or
address, or any other host, also before this one joins: whether packets to its gossip and VXLAN
ports arrive, up to which size they pass, and how its clock differs.

The rules of nftables, iptables, firewalld and ufw on this host are read, so use sudo; run it on
both hosts, as each sees its own rules only.  Nothing is changed anywhere.

  sudo overlayd netcheck
  sudo overlayd netcheck vm2
  sudo overlayd netcheck 192.168.56.11 --token-file /etc/overlayd/token     (before it joins)
"""
_AGENT = {
    "member": "agent running",
    "unjoined": "agent running, in no cluster",
    "dead": "agent dead",
    "absent": "no agent",
    "hidden": "agent not asked",
    "hanging": "agent hangs",
}


def register(words: VerbGroup) -> None:
    """Add the verb."""
    check = words.verb(
        "netcheck", run_netcheck, "find out why hosts do not reach each other", _DESCRIPTION
    )
    check.add_argument("node", nargs="?", metavar="NODE", help="member, or any other host")
    check.add_argument(
        "--token-file",
        metavar="FILE",
        help="a join token, for which a member's agent answers a stranger; - reads standard input",
    )
    check.add_argument(
        "--gossip-port", type=int, metavar="PORT", help="of a host that is not a member"
    )
    check.add_argument(
        "--vxlan-port", type=int, metavar="PORT", help="of a host that is not a member"
    )


def run_netcheck(args: Namespace) -> int:
    """Collect the facts, judge them, and print both."""
    # Only this verb needs what the kernel's and the core's parts import.
    from overlay.client.netcheck.collect import Question, collect  # noqa: PLC0415
    from overlay.core.netcheck.judgement import judge  # noqa: PLC0415

    timeout_s = LOOK_TIMEOUT_S if args.timeout is None else args.timeout
    token = None
    if args.token_file is not None:
        from overlay.cli import token_input  # noqa: PLC0415
        from overlay.client.netcheck.knock import TokenCheck  # noqa: PLC0415

        token = TokenCheck(token_input.read_token(args.token_file, os.environ) or "")
    question = Question(args.node or None, timeout_s, args.gossip_port, args.vxlan_port, token)
    facts, answer = collect(args.paths, question)
    findings = judge(facts)
    problems = [each for each in findings if each.level != "note"]
    if args.json:
        output.print_json(answer | _object(facts, findings, ok=not problems))
    else:
        output.print_result("\n".join(_text(facts, findings, len(problems))))
    return DegradedError.exit_code if problems else 0


def _object(facts: Facts, findings: Iterable[NetcheckFinding], *, ok: bool) -> JsonObject:
    return {
        "schema": "overlayd.netcheck/v1",
        "ok": ok,
        "target": facts.target,
        "host": _plain(asdict(facts.host)),
        "addresses": [_plain(asdict(each)) for each in facts.addresses.values()],
        "findings": [each._asdict() for each in findings],
    }


def _plain(value: Any) -> Any:
    """Return a value with enumerations and named tuples as JSON has them."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def _text(facts: Facts, findings: list[NetcheckFinding], problem_count: int) -> Iterator[str]:
    rows = [("this host", _host_text(facts.host))]
    rows += [(peer.name, _peer_text(peer, facts.host)) for peer in facts.peers]
    members = {peer.address for peer in facts.peers}
    rows += [
        (each.address, _address_text(each, facts.host))
        for each in facts.addresses.values()
        if each.address not in members
    ]
    yield output.key_value_lines(rows)
    yield ""
    for finding in findings:
        yield f"{finding.level.upper():<5}  {finding.text}"
        if finding.why:
            yield f"       why:  {finding.why}"
        if finding.hint:
            yield f"       next: {output.runnable(finding.hint)}"
    yield (
        f"{output.count_text(problem_count, 'problem')} found"
        if problem_count
        else ("no problem found")
    )


def _host_text(host: LocalFacts) -> str:
    where = (
        "no route"
        if host.interface is None
        else f"{host.address} on {host.interface}, mtu {host.mtu}"
    )
    return f"{where}   {_AGENT[host.agent.value]}"


def _peer_text(peer: PeerFacts, host: LocalFacts) -> str:
    answer = "no direct answer" if peer.gossip_answers else "no answer"
    if peer.rtt_ms is not None:
        answer = f"{peer.rtt_ms:.1f} ms"
    parts = [peer.address, f"gossip ({host.gossip_port}/udp) {answer}"]
    if peer.shares_network:
        sending = "not reported" if peer.is_waiting and peer.sending == "ok" else peer.sending
        receiving = "unheard" if peer.is_unheard and peer.receiving == "ok" else peer.receiving
        both = f"to: {sending}, from: {receiving}"
        is_well = sending == receiving == "ok"
        parts.append(f"vxlan ({host.vxlan_port}/udp) {'both ways' if is_well else both}")
        if is_well and peer.size_carried:
            parts.append(f"up to {peer.size_carried} bytes")
    elif peer.gossip_answers:
        parts.append("no network in common: data path not probed")
    if peer.clock_ahead_s is not None:
        parts.append(f"clock {peer.clock_ahead_s:+.3f} s")
    return "   ".join(parts)


def _address_text(found: AddressFacts, host: LocalFacts) -> str:
    parts = [
        f"gossip ({host.gossip_port}/udp) {found.gossip.value}",
        f"vxlan ({host.vxlan_port}/udp) {found.vxlan.value}",
        f"another port {found.other.value}",
        "no echo" if found.echo_ms is None else f"echo {found.echo_ms:.1f} ms",
    ]
    if found.size_passed:
        parts.append(f"up to {found.size_passed} bytes and back")
    if found.clock_ahead_s is not None:
        parts.append(f"clock {found.clock_ahead_s:+.3f} s")
    return "   ".join(parts)
