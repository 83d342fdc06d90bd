"""Sentences about a far end that is not captured, or watched, and what to do about it."""

from __future__ import annotations

_TEXTS = {
    "forbidden": (
        "{node} lets no other host capture or watch there",
        "On {node}: capture_from_peers = true in the configuration, and restart the agent",
    ),
    "unknown-ends": (
        "{node} does not know both containers yet, or an address of them",
        "overlayd trace {container} {peer}   (what both hosts know)",
    ),
    "busy": (
        "{node} serves as many captures and traces as it may",
        "Run the command again in a few seconds; overlayd events --kind capture   (on {node})",
    ),
    "no-packet-sockets": (
        "the agent of {node} may not open packet sockets",
        "Its unit or container lacks CAP_NET_RAW or AF_PACKET: install the unit of this version",
    ),
    "bad-filter": ("the kernel of {node} refuses the filter", "Use a simpler filter"),
    "ended": ("{peer} on {node} has ended, or its interface is gone", "overlayd endpoint ls"),
    "too-long": ("{node} has ended the capture: it has lasted for an hour", "Run it again"),
    "failed": ("{node} could not capture", "On {node}: overlayd status, and the agent's log"),
    "silent": (
        "the agent of {node} does not answer",
        "It may be down, or of an older version: overlayd members --wide",
    ),
}


def text_and_hint(state: str, node: str, container: str, peer: str) -> tuple[str, str]:
    """Return what is said of a state, and what to do."""
    text, hint = _TEXTS[state]
    return tuple(  # type: ignore[return-value]
        each.format(node=node, container=container, peer=peer) for each in (text, hint)
    )
