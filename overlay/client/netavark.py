"""The netavark plugin: a program that Podman 4.6 and later start for networks of driver overlayd.

Owns: netavark's commands and their JSON. Podman must not choose addresses: each host would give the
same ones, so a network gets the IPAM driver `none`, and addresses come from the cluster.
Does not: know more of the agent than its requests. Start-up must be quick, as `client.cni`'s.
"""

from __future__ import annotations

import json
import os
import sys

from overlay import __version__
from overlay.client.plugin_client import PluginClient
from overlay.driver_options import NETWORK_OPTION, DriverOptions, clear_network_error
from overlay.errors import ConflictError, NotFoundError, OverlayError, UsageError

TYPE_CHECKING = False  # typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    JsonObject = dict[str, Any]

_API_VERSION = "1.0.0"  # of netavark's plugins
_PLUGIN = "netavark"


def main(run_dir: str) -> int:
    """Run one call of this process and return its exit code."""
    code, answer = run(sys.argv[1:], sys.stdin.buffer.read, PluginClient(run_dir))
    if answer is not None:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return code


def run(
    words: Sequence[str], read: Callable[[], bytes], client: PluginClient
) -> tuple[int, JsonObject | None]:
    """Return the exit code of a call, and what it writes to its standard output."""
    try:
        match words:
            case ["info"]:
                return 0, {"version": __version__, "api_version": _API_VERSION}
            case ["create"]:
                return 0, _create(client, _decoded(read()))
            case ["setup", netns]:
                return 0, _set_up(client, _decoded(read()), netns)
            case ["teardown", _]:
                client.post("/v1/plugin/detach", _key(_decoded(read())))
                return 0, None
        raise UsageError(
            f"unknown call {' '.join(words)[:64]!r}",
            why="netavark calls this plugin with create, setup NETNS, teardown NETNS or info",
            hint="By hand use: overlayd attach",
        )
    except OverlayError as error:
        return 1, {"error": str(error)}
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        text = f"netavark's request is not understood: {type(error).__name__}: {error}"
        return 1, {"error": f"{text}. Please report it, with the versions of Podman and netavark"}


def _decoded(raw: bytes) -> JsonObject:
    value = json.loads(raw)
    if not isinstance(value, dict):
        raise TypeError("it is not a JSON object")
    return value


# --- networks ---------------------------------------------------------------------------


def _create(client: PluginClient, asked: JsonObject) -> JsonObject:
    """Find the cluster's network, or create it; return Podman's with its subnets."""
    name = _network_name(asked)
    encrypted = DriverOptions(asked.get("options") or {}, "Podman").encrypted
    subnets = [_subnet(each) for each in asked.get("subnets") or []]
    try:
        found = client.get(f"/v1/networks/{name}")
    except NotFoundError:
        found = client.post(
            "/v1/networks",
            {
                "name": name,
                "subnets": subnets,
                "internal": bool(asked.get("internal")),
                "ipv6": bool(asked.get("ipv6_enabled")) and not subnets,
                "encrypted": encrypted,
            },
        )
    _require_match(found, subnets, internal=bool(asked.get("internal")))
    if encrypted and not found["encrypted"]:
        raise clear_network_error(name)
    return {
        **asked,
        "subnets": [
            {"subnet": each["subnet"], "gateway": each["gateway"]} for each in found["subnets"]
        ],
        "ipv6_enabled": any(":" in each["subnet"] for each in found["subnets"]),
        "internal": found["internal"],
        "ipam_options": {"driver": "none"},
    }


def _network_name(network: JsonObject) -> str:
    """Return the name in the cluster: that of the option, else Podman's."""
    name = (network.get("options") or {}).get(NETWORK_OPTION) or network["name"]
    return str(name)


def _subnet(asked: JsonObject) -> JsonObject:
    if asked.get("lease_range"):
        raise UsageError(
            "podman network create --ip-range is not supported",
            why="a cluster's range is a prefix, and is chosen once for all hosts",
            hint="overlayd network create NAME --subnet SUBNET --ip-range RANGE, then "
            "podman network create -d overlayd NAME",
        )
    return {"subnet": asked["subnet"], "gateway": asked.get("gateway")}


def _require_match(found: JsonObject, subnets: list[JsonObject], *, internal: bool) -> None:
    """Raise ConflictError if the cluster's network is not what Podman was told."""
    known = {each["subnet"]: each["gateway"] for each in found["subnets"]}
    other = [
        each["subnet"]
        for each in subnets
        if each["gateway"] not in (None, known.get(each["subnet"])) or each["subnet"] not in known
    ]
    if other:
        raise ConflictError(
            f"network {found['name']} exists with other subnets",
            why=f"Podman asks for {', '.join(other)}; it has {', '.join(known)}",
            hint="Leave --subnet and --gateway out, or choose another network: "
            f"-o {NETWORK_OPTION}=NAME",
        )
    if internal and not found["internal"]:
        raise ConflictError(
            f"network {found['name']} exists and is not internal", hint="Leave --internal out"
        )


# --- containers -------------------------------------------------------------------------


def _set_up(client: PluginClient, asked: JsonObject, netns: str) -> JsonObject:
    """Attach a container; return what Podman shows and writes into resolv.conf."""
    options = asked["network_options"]
    endpoint = client.post(
        "/v1/plugin/attach",
        {
            **_key(asked),
            "target": os.path.normpath(netns),
            "network": _network_name(asked["network"]),
            "name": asked.get("container_name") or "",
            "ips": options.get("static_ips") or [],
            "mac": options.get("static_mac"),
            "aliases": options.get("aliases") or [],
            "publish": _published(asked.get("port_mappings") or []),
            "runtime_pids": _runtime_pids(),
        },
    )
    subnets = [
        {"ipnet": each["address"]} | ({"gateway": each["gateway"]} if each["gateway"] else {})
        for each in endpoint["ips"]
    ]
    return {
        "dns_search_domains": endpoint["dns_search"],
        "dns_server_ips": endpoint["dns_servers"],
        "interfaces": {
            endpoint["ifname"]: {"mac_address": endpoint["mac"], "subnets": subnets},
        },
    }


def _published(mappings: list[JsonObject]) -> list[JsonObject]:
    """Return the ports of this host that map to the container."""
    found: list[JsonObject] = []
    for each in mappings:
        host, port, more = each["host_port"], each["container_port"], (each.get("range") or 1) - 1
        for protocol in str(each.get("protocol") or "tcp").split(","):
            text = f"{host}-{host + more}:{port}-{port + more}/{protocol}"
            found.append({"ports": [text], "host_ip": each.get("host_ip") or None})
    return found


def _runtime_pids() -> list[int]:
    """Return the process of Podman, which is the parent of netavark's."""
    try:
        with open(f"/proc/{os.getppid()}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123  pathlib is slow to import
            parent = int(file.read().rpartition(")")[2].split()[1])  # proc(5)
    except (OSError, LookupError, ValueError):
        return []
    return [parent] if parent else []  # 0: outside this PID namespace


def _key(asked: JsonObject) -> JsonObject:
    return {
        "plugin": _PLUGIN,
        "scope": asked["network"]["name"],
        "container_id": asked["container_id"],
        "ifname": asked["network_options"]["interface_name"],
    }
