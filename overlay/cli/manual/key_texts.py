"""Descriptions of the configuration file's keys, for overlayd.toml(5) and the sample file."""

from __future__ import annotations

from typing import Final

TEXTS: Final[dict[str, str]] = {
    "state_dir": "identity, records, attachments; a whole path",
    "run_dir": "the API socket, and the log of an agent that `join` started",
    "api_group": "members of this group may use the API, besides root",
    "api_group_trusted": (
        "true: the group may do what amounts to root of the network too (docs/SECURITY.md)"
    ),
    "log_level": "debug, info, warning or error",
    "reconcile_interval_s": "interval of the full reconcile pass; changes start one at once",
    "dns_domain": "containers are NAME.NETWORK.overlay; must be the same on all hosts",
    "key_rotation_interval_s": (
        "interval at which an authority holder replaces the cluster key; 0: only on command"
    ),
    "encryption": (
        '"required": every network between hosts is encrypted (docs/guide/encryption.md); the'
        " same on all hosts"
    ),
    "wireguard": (
        "what carries encrypted networks: auto (the kernel, else wireguard-go), kernel, "
        "wireguard-go"
    ),
    "encryption_rotation_interval_s": (
        "interval at which the WireGuard keys of encrypted networks are replaced; 0: only on "
        "command"
    ),
    "authority_holders": (
        "how many members hold the authority to admit hosts, chosen automatically (1 to 8); "
        "1: only `promote` gives it to others; the same on all hosts"
    ),
    "dead_grace_s": "how long the rows of a dead node's containers are kept",
    "metrics_listen": (
        '"127.0.0.1:9469" serves GET /metrics on TCP, to all who can reach it '
        '(docs/SECURITY.md); "": no port'
    ),
    "docker_plugin": (
        "serve Docker's network and IPAM driver (docs/guide/docker.md): auto (where Docker is"
        " installed), on, off"
    ),
    "docker_networks": (
        "auto: each network is a Docker network on this host by itself (docs/guide/docker.md)"
    ),
    "capture_from_peers": (
        "members may capture what their own containers exchange with containers here "
        "(docs/SECURITY.md); false: not, and the agent opens no packet socket"
    ),
    "cluster_ports": (
        "ports of this host that services and files of other members may publish "
        '(docs/SECURITY.md); "": none. Commands on this host are not limited'
    ),
    "cluster_plugs": (
        "interfaces of this host that files of other members may plug into networks, such as "
        '"eth2, eth3.*" (docs/guide/plug.md); "": none. Commands on this host are not limited'
    ),
    "fast_path": "forward unicast by eBPF instead of the bridge: auto (if the kernel can), on, off",
    "native_path": (
        "put unicast into VXLAN, and take it out, by eBPF, past the host's firewall: auto (if the "
        "kernel can, from Linux 6.6, and no rule of the firewall could judge such packets), on, "
        "off; needs the fast path (docs/guide/native-path.md)"
    ),
    "gate": (
        "translate for exposed networks and published ports behind a gate, so that the host's own "
        "traffic is not tracked: auto (if the host can, from Linux 6.6, and no other program "
        "tracks or has rules that a gate would pass by), on (if the host can), off "
        "(docs/guide/gate.md)"
    ),
    "services_at_connect": (
        "choose a service's backend when a program connects, so that no packet of its TCP "
        "connections is translated: auto (if the kernel can), off (docs/guide/services.md)"
    ),
}
