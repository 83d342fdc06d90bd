"""The result of an ADD, in the shape of each version, and its comparison at a CHECK."""

from __future__ import annotations

from overlay.client.cni.errors import UNDECODABLE, CniError

TYPE_CHECKING = False  # typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    JsonObject = dict[str, Any]

_ANYWHERE = {False: "0.0.0.0/0", True: "::/0"}


def added(
    version: str,
    previous: JsonObject | None,
    endpoint: JsonObject,
    netns: str,
    settings: Mapping[str, list[str]],
) -> JsonObject:
    """Return the result of an attach, behind that of the plugins before it in a chain.

    `settings` are the resolver settings that replace the network's, where they are not empty.
    """
    before = previous or {}
    interfaces, ips, routes = (_list(before, key) for key in ("interfaces", "ips", "routes"))
    interface = {"name": endpoint["ifname"], "mac": endpoint["mac"], "sandbox": netns}
    if version == "1.1.0":
        interface["mtu"] = endpoint["mtu"]
    for each in endpoint["ips"]:
        ip: JsonObject = {"address": each["address"], "interface": len(interfaces)}
        if each["gateway"]:
            ip["gateway"] = each["gateway"]
        if version.startswith("0."):
            ip["version"] = "6" if ":" in each["address"] else "4"
        ips.append(ip)
    routes += [{"dst": _ANYWHERE[":" in gw], "gw": gw} for gw in endpoint["default_routes"]]
    found = {
        **before,
        "cniVersion": version,
        "interfaces": [*interfaces, interface],
        "ips": ips,
        "routes": routes,
    }
    dns = _dns(before, endpoint, settings)
    return found | {"dns": dns} if dns else found


def differences(expected: JsonObject, endpoint: JsonObject, netns: str) -> list[str]:
    """Return what has changed since an ADD's result: MAC and addresses of the interface.

    The result may have interfaces and addresses of other plugins.
    """
    found: list[str] = []
    interfaces = _list(expected, "interfaces")
    name = endpoint["ifname"]
    places = [
        index
        for index, each in enumerate(interfaces)
        if each.get("name") == name and each.get("sandbox") == netns
    ]
    if not places:
        return [f"prevResult has no interface {name} in {netns}"]
    index = places[0]
    mac = str(interfaces[index].get("mac") or "").lower()
    if mac and mac != endpoint["mac"]:
        found.append(f"{name} has MAC {endpoint['mac']}, not {mac}")
    wanted = {
        str(ip.get("address")) for ip in _list(expected, "ips") if ip.get("interface") == index
    }
    present = {each["address"] for each in endpoint["ips"]}
    found += [f"{name} has no address {address}" for address in sorted(wanted - present)]
    found += [f"{name} has {address}, which no ADD gave" for address in sorted(present - wanted)]
    return found


def _dns(before: JsonObject, endpoint: JsonObject, settings: Mapping[str, list[str]]) -> JsonObject:
    own = {"nameservers": endpoint["dns_servers"], "search": endpoint["dns_search"], "options": []}
    earlier = before.get("dns") or {}
    dns = dict(earlier)
    for key, default in own.items():
        words = settings.get(key) or default
        if words:
            dns[key] = list(dict.fromkeys([*words, *(earlier.get(key) or [])]))
    return dns


def _list(fields: JsonObject, key: str) -> list[JsonObject]:
    """Return a copy of a list of objects in a result; raises CniError."""
    value = fields.get(key) or []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise CniError(UNDECODABLE, f"{key} of prevResult is not a list of JSON objects")
    return list(value)
