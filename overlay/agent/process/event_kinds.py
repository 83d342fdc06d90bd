"""The kinds of events, and what each says; the documentation's table is made from here.

A kind is the first argument of `EventLog.record`, or a controller's `event_kind`.
"""

from __future__ import annotations

from typing import Final

EVENT_KINDS: Final[dict[str, str]] = {
    # This agent and its cluster.
    "agent": "The agent started or stopped; at the next start, that it was killed or crashed.",
    "join": "This host created or joined a cluster.",
    "leave": "This host left its cluster.",
    "member": "A member joined, or is suspect, dead, alive again, or gone.",
    "forget": "A member was removed for good on this host.",
    "banned": "A member says that this host was forgotten.",
    "partitioned": "So many members are silent that this host must be cut off.",
    "healed": "They are reachable again.",
    "clone": "Another host uses the identity of a member: a copied disk.",
    "version": "A member speaks another version of the protocol.",
    "card": "A member's address is another's, or does not answer.",
    "card-over": "That is over.",
    # Admission, authority, keys.
    "admit": "A host was admitted or refused, or a token has reached its rate.",
    "authority": "The holders of the authority changed, or the authority was exported.",
    "promote": "A member was given the authority.",
    "key": "The cluster key: a generation was created, received, used, or removed.",
    # Networks, addresses, names.
    "network": "A network was created, changed or removed, by whichever host.",
    "apply": "Objects were created, changed or removed as a file declares them.",
    "grant": "Addresses that were asked for could not be given, or written down.",
    "reclaim": "A member left with addresses; this host takes them back.",
    "inherit": "Addresses of forgotten members were taken back.",
    "conflict": "A name or an address is used twice, or a member claims a gateway's.",
    "conflict-over": "That is over.",
    "services": "A service was created or changed, a backend passes its check or not, or a fault.",
    "policies": "A policy was created, changed or removed, or begins to deny what it logs.",
    "routers": "A router between networks was created, changed or removed.",
    "dns": "Names are not served on an address of a network, or again.",
    # Containers.
    "attach": "A container was attached, renamed or changed.",
    "detach": "A container was detached, and its address is free.",
    "gone": "A container ended, or its interface is gone.",
    "return": "A container came back and was attached again.",
    "container": "A bare container was made again at a start, or could not be.",
    "gateway": "The default route of a container, or its routes to other subnets.",
    "docker": "Docker's network driver, and what Docker has created or removed.",
    # The data plane of this host.
    "kernel": "The kernel refused a change.",
    "sandbox": "This host has a sandbox of a network, or no longer.",
    "storm": "A container here sends more broadcast and multicast than its port may.",
    "repaired": "What another program had changed, mostly in the kernel, was repaired.",
    "path": "The data path to a member loses packets, or all arrive again.",
    "underlay": "This host's address, interface, MTU or way to a member has changed or failed.",
    "fast path": "Unicast bypasses the bridge, or why it no longer does.",
    "native path": "Frames of other hosts bypass the VXLAN device, or why they no longer do.",
    "filter": "The VXLAN port is filtered for members only, or why it is not.",
    "encryption": "Encrypted networks do not reach other hosts by WireGuard, or do again.",
    "evpn": "BGP EVPN was enabled or disabled, or a session with a neighbor began or ended.",
    "capture": "A member captures the packets between a container of its own and one here.",
    "plug": "An interface was plugged into a network or given back, or another host's is active.",
    "vlan": "A VLAN interface was removed with its last container.",
    "expose": "This host has an address on a network.",
    "exposure": "A network cannot be exposed, or forwarding was switched on or off.",
    "publish": "A published port leads to a container, or to none.",
    "host rules": "The host's own rules for networks and published ports.",
    # Disk and background work.
    "state": "The state file: damaged, old, restored, or not writable.",
    "amnesia": "Members had newer records of this host: its disk was rolled back.",
    "metrics": "Metrics are served on TCP, or cannot be.",
    "background": "Background work failed and is tried again, or works again.",
    "defect": "The agent met an error that it did not expect: please report it.",
    # What `status` says and nothing above does.
    "health": "A health line of `overlayd status` has begun.",
    "health-over": "It is over.",
}
