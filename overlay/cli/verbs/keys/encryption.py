"""Commands `encryption status`, `on`, `off` and `rotate`.

Owns: their options and output. No key is ever shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.client.api import ApiClient, JsonObject

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup

STATUS_DESCRIPTION = """\
Show how this host takes part in encrypted networks, and its WireGuard tunnel to each member.

A handshake is made with the first packet to a member, and then every two minutes while there is
traffic.  Packets "dropped in clear" belong to an encrypted network and came, or would have left,
outside of the tunnels: none ever gets further.

  overlayd network create vault --encrypted
  overlayd encryption status vault
"""
ON_DESCRIPTION = """\
Encrypt networks while containers use them.  No packet is lost, and none is sent in clear once the
last step has begun; the command returns after that step.

All members move together, in confirmed steps: containers' MTU becomes smaller, each host accepts
frames by the tunnels as well, each sends by the tunnels only, and at last each drops what comes in
clear.  A member that is down holds this up, and the command names it; the switch continues when it
is back, or forgotten.  A network that is encrypted already is left as it is.

  sudo overlayd encryption on blue
  sudo overlayd encryption on --all
"""
OFF_DESCRIPTION = """\
Let networks cross the underlay in clear again, while containers use them.  No packet is lost.

The steps are those of "encryption on", backwards.  It is refused on a host whose configuration has
encryption = "required", and waits for such a host elsewhere.

  sudo overlayd encryption off blue
  sudo overlayd encryption off --all
"""
ROTATE_DESCRIPTION = """\
Replace the WireGuard keys of all members by fresh ones.  No packet is lost, and none is sent in
clear.

Each host makes a next key and a second device for it.  Two hosts use these as soon as they have
greeted each other there; the former keys are deleted when no host uses them.  A member that is down
holds this up: the command names it, and packets to it use the former key.  Rotation is
automatic, once a day (encryption_rotation_interval_s in the configuration; 0 disables it).  The
command returns once this host sends by the next keys only.

  sudo overlayd encryption rotate
  overlayd encryption status
"""


def register(words: VerbGroup) -> None:
    """Add the verbs of this module."""
    group = words.group("encryption", "encrypt networks in use; show and renew their tunnels")
    for word, run, text, description in (
        ("on", run_on, "encrypt networks while they are in use (root only)", ON_DESCRIPTION),
        ("off", run_off, "let networks pass in clear again (root only)", OFF_DESCRIPTION),
    ):
        verb = group.verb(word, run, text, description)
        chosen = verb.add_mutually_exclusive_group(required=True)
        chosen.add_argument("networks", nargs="*", default=[], metavar="NETWORK")
        chosen.add_argument("--all", action="store_true", help="every overlay network")
    group.verb(
        "rotate", run_rotate, "replace all members' WireGuard keys (root only)", ROTATE_DESCRIPTION
    )
    status = group.verb(
        "status", run_status, "show this host's tunnel to each member", STATUS_DESCRIPTION
    )
    status.add_argument("network", nargs="?", metavar="NETWORK", help="only those of one network")
    status.add_argument("--no-header", action="store_true", help="omit summary and header line")


def run_rotate(args: Namespace) -> int:
    """Replace the WireGuard keys of all members."""
    done = ApiClient(args.paths).post("/v1/encryption/rotate")
    if args.json:
        output.print_json(done)
    else:
        output.print_note(f"this host's WireGuard key of epoch {done['key_epoch']} is in use")
    return 0


def run_on(args: Namespace) -> int:
    """Encrypt networks that are in use."""
    return _switch(args, encrypted=True)


def run_off(args: Namespace) -> int:
    """Let networks pass in clear again."""
    return _switch(args, encrypted=False)


def _switch(args: Namespace, *, encrypted: bool) -> int:
    client = ApiClient(args.paths)
    names = args.networks
    if args.all:
        networks = client.get("/v1/networks")["networks"]
        names = [each["name"] for each in networks if each["driver"] == "overlay"]
    for name in names:
        done = client.post("/v1/encryption/switch", {"network": name, "encrypted": encrypted})
        state = "encrypted" if encrypted else "in clear"
        if args.json:
            (output.print_json if len(names) == 1 else output.print_json_line)(done)
        elif done["changed"]:
            output.print_note(f"network {done['network']} is {state} on every host now")
        else:
            output.print_note(f"network {done['network']} is {state} already")
    if not names and not args.json:
        output.print_note("there is no overlay network")
    return 0


def run_status(args: Namespace) -> int:
    """Show the tunnels of this host."""
    shown = ApiClient(args.paths).get("/v1/encryption", network=args.network)
    if args.json:
        output.print_json(shown)
        return 0
    if not args.no_header:
        output.print_result(output.key_value_lines(_head(shown)))
        output.print_result("")
    rows = [
        [
            peer["node"],
            peer["networks"],
            peer["address"],
            peer["key_epoch"],
            _since(peer),
            _handshake(shown, peer),
            peer["received"],
            peer["sent"],
        ]
        for peer in shown["peers"]
    ]
    headers = ["NODE", "NETWORKS", "ADDRESS", "KEY", "SINCE", "HANDSHAKE", "RECEIVED", "SENT"]
    if rows:
        output.print_result(output.table(headers, rows, show_header=not args.no_header))
    return 0


def _head(shown: JsonObject) -> list[tuple[str, str]]:
    if shown["backend"] is None:
        carrier = f"none: {shown['why']}"
    else:
        carrier = f"{shown['backend']}, UDP {shown['port']}"
    missing = shown.get("device_missing")  # an agent of before does not say
    device = shown["device"] or (f"none: {missing}" if missing else "none")
    return [
        ("WireGuard", carrier),
        ("Device", device),
        ("Address", shown["address"]),
        ("Key", _key(shown)),
        *_rotation(shown),
        ("Networks", ", ".join(shown["networks"]) or "none is encrypted"),
        *map(_switching, shown["switching"]),
        ("Dropped in clear", f"{shown['clear_in']} received, {shown['clear_out']} to be sent"),
    ]


def _key(shown: JsonObject) -> str:
    if shown["key_epoch"] is None:
        return "none"
    age_s = shown["key_age_s"]
    made = "" if age_s is None else f", made {output.duration(age_s)} ago"
    return f"epoch {shown['key_epoch']}{made}"


def _rotation(shown: JsonObject) -> list[tuple[str, str]]:
    rotation = shown["rotation"]
    if rotation is None:
        return []
    waiting = "; ".join(rotation["waiting_for"])
    return [("Rotation", f"{rotation['step']}{f', waits for {waiting}' if waiting else ''}")]


def _switching(network: JsonObject) -> tuple[str, str]:
    goal = "on" if network["encrypted"] else "off"
    waiting = "; ".join(network["waiting_for"])
    text = f"{network['network']}: {goal}, this host is in phase {network['phase']}"
    return ("Switching", f"{text}{f', waits for {waiting}' if waiting else ''}")


def _since(peer: JsonObject) -> str:
    since_s = peer.get("since_s")  # an agent of before has none
    return output.ABSENT if since_s is None else f"{output.duration(since_s)} ago"


def _handshake(shown: JsonObject, peer: JsonObject) -> str:
    if peer["key_epoch"] is None:
        return "no key"
    if not peer["configured"]:
        return output.ABSENT if shown["device"] is None else "not a peer"
    ago = peer["last_handshake_s"]
    return "never" if ago is None else f"{output.duration(ago)} ago"
