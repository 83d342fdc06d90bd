"""Verbs about how networks meet the host and the world: expose, unexpose.

Owns: their options and words. Must not know what an end of the host is made of.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.cli.client import Client, JsonObject
from overlay.cli.places import places

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import Words

EXPOSE_DESCRIPTION = """\
Give this host an end on a network: an address of its own there, by which it and all containers of
the network, on every host, reach each other without NAT; and a way out for the containers here to
whatever this host reaches, under its address.  stdout: the host's addresses.

Networks are exposed by themselves on every host with a container on them, unless they were made
with --internal; this verb is for hosts without one, and after 'unexpose'.

  sudo overlayd expose blue
"""
UNEXPOSE_DESCRIPTION = """\
Take this host's end on a network away: containers here get out no more, and this host reaches
none of the network's.  It stays so until 'overlayd expose'.

  sudo overlayd unexpose blue
"""


def register(words: Words) -> None:
    """Add the verbs of this module."""
    expose = words.verb(
        "expose", run_expose, "give this host an end on a network", EXPOSE_DESCRIPTION
    )
    unexpose = words.verb(
        "unexpose", run_unexpose, "take this host's end on a network away", UNEXPOSE_DESCRIPTION
    )
    for verb in (expose, unexpose):
        verb.add_argument("network", metavar="NETWORK")


def run_expose(args: Namespace) -> int:
    """Expose a network to this host."""
    exposed = _set(args, "/v1/expose")
    if args.json:
        output.answer_json(exposed)
    else:
        output.answer("\n".join(exposed["host_ips"]))
    return 0


def run_unexpose(args: Namespace) -> int:
    """Take this host off a network."""
    hidden = _set(args, "/v1/unexpose")
    if args.json:
        output.answer_json(hidden)
    else:
        done = "is exposed to this host no more" if hidden["changed"] else "is not exposed here"
        output.comment(f"{hidden['network']} {done}")
    return 0


def _set(args: Namespace, path: str) -> JsonObject:
    return Client(places(args, os.environ)).post(path, {"network": args.network})
