"""Networks as a plan compares them: their settings as plain values, and back.

Owns: this translation, in both directions. Does not: write a record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from overlay.agent.networks.settings import SettingsSpec
from overlay.agent.networks.spec import NetworkSpec
from overlay.agent.networks.subnets import SubnetSpec, subnet_of
from overlay.core.apply.items import NETWORK, DeclaredItem, Setting
from overlay.core.dataplane.network_drivers import driver_of, is_encrypted, parent_interface_of
from overlay.core.declared.network_options import (
    OPTION_LABELS,
    owner_of,
    setting_of,
    user_labels,
    with_options,
)
from overlay.errors import UsageError
from overlay.model import (
    ANY_NAME_LABEL,
    DEFAULT_DENY_LABEL,
    EVPN_LABEL,
    ISOLATE_PORTS_LABEL,
    PORT_SECURITY_OFF_LABEL,
    Network,
    Subnet,
    has_any_name,
    has_default_deny,
    ip_text,
    is_exported,
    isolates_ports,
)

_OPTION_LABELS = (
    PORT_SECURITY_OFF_LABEL, ANY_NAME_LABEL, EVPN_LABEL, DEFAULT_DENY_LABEL, ISOLATE_PORTS_LABEL
)  # fmt: skip
_GATEWAY, _RANGE, _AUXILIARY, _BLOCK = "gateway", "ip_range", "auxiliary", "block_length"


def network_item(network: Network) -> DeclaredItem:
    """Return a network with all its settings."""
    settings: dict[str, Setting] = {
        "driver": driver_of(network),
        "parent": parent_interface_of(network) or None,
        "vni": int(network.vni),
        "subnets": tuple(str(subnet) for subnet in network.subnets),
        "ipv6": any(len(subnet.base) == 16 for subnet in network.subnets),
        "isolate_subnets": network.isolate_subnets,
        "encrypted": is_encrypted(network),
        "evpn": is_exported(network),
        "internal": network.internal,
        "port_security": PORT_SECURITY_OFF_LABEL not in network.labels,
        "any_name": has_any_name(network),
        "default_deny": has_default_deny(network),
        "isolate_ports": isolates_ports(network),
        **{option: setting_of(network, option) for option in OPTION_LABELS},
        "labels": tuple(f"{key}={value}" for key, value in user_labels(network)),
    }
    for subnet in network.subnets:
        settings |= _subnet_settings(subnet)
    return DeclaredItem(NETWORK, (network.name,), settings, owner_of(network))


def declared_network(
    spec: NetworkSpec, options: Mapping[str, int | str], existing: Network | None, path: str
) -> DeclaredItem:
    """Return a network that a file declares; raises UsageError for an invalid subnet.

    `existing` is the network of that name, whose choices stand where the file leaves them open: the
    VNI, the subnets, a gateway, and the IPv6 subnet that `ipv6` has chosen.
    """
    labels = dict(spec.labels)
    settings: dict[str, Setting] = {
        "driver": spec.driver,
        "parent": spec.parent or None,
        "isolate_subnets": spec.isolate_subnets,
        "evpn": EVPN_LABEL in spec.labels,
        "internal": spec.internal,
        "port_security": PORT_SECURITY_OFF_LABEL not in spec.labels,
        "any_name": ANY_NAME_LABEL in spec.labels,
        "default_deny": DEFAULT_DENY_LABEL in spec.labels,
        "isolate_ports": ISOLATE_PORTS_LABEL in spec.labels,
        **{option: options.get(option) or None for option in OPTION_LABELS},
        "labels": tuple(
            f"{key}={value}"
            for key, value in sorted(labels.items())
            if (key, value) not in _OPTION_LABELS
        ),
    }
    if spec.encrypted:  # else it may be: the configuration may require it
        settings["encrypted"] = True
    if spec.vni is not None:
        settings["vni"] = spec.vni
    if spec.ipv6:
        settings["ipv6"] = True
    if spec.subnets:
        subnets = [_read(each, number) for number, each in enumerate(spec.subnets)]
        settings["subnets"] = tuple(map(str, subnets)) + _chosen_ipv6(spec, existing)
        for asked, subnet in zip(spec.subnets, subnets, strict=True):
            found = _subnet_settings(subnet)
            if asked.gateway is None:
                del found[f"{_GATEWAY} {subnet}"]
            settings |= found
    return DeclaredItem(NETWORK, (spec.name,), settings, path=path)


def _read(spec: SubnetSpec, number: int) -> Subnet:
    try:
        return subnet_of(spec)
    except UsageError as error:
        error.field = f"subnets[{number}].{error.field}"
        raise


def _chosen_ipv6(spec: NetworkSpec, existing: Network | None) -> tuple[str, ...]:
    """Return the subnet that `ipv6` has added to the ones of the spec."""
    if not spec.ipv6 or existing is None or len(existing.subnets) != len(spec.subnets) + 1:
        return ()
    last = existing.subnets[-1]
    return (str(last),) if len(last.base) == 16 else ()


def spec_of(item: DeclaredItem) -> NetworkSpec:
    """Return the network to create."""
    options = (
        (not item.settings["port_security"], PORT_SECURITY_OFF_LABEL),
        (item.settings["evpn"], EVPN_LABEL),
        (item.settings["any_name"], ANY_NAME_LABEL),
        (item.settings["default_deny"], DEFAULT_DENY_LABEL),
        (item.settings["isolate_ports"], ISOLATE_PORTS_LABEL),
    )
    labels = (*_label_pairs(item), *(label for given, label in options if given))
    return NetworkSpec(
        name=item.identity[0],
        subnets=[_subnet_spec(item, text) for text in _texts(item, "subnets")],
        vni=cast("int | None", item.settings.get("vni")),
        internal=bool(item.settings["internal"]),
        labels=tuple(sorted(with_options(labels, _options(item), item.owner or None))),
        isolate_subnets=bool(item.settings["isolate_subnets"]),
        driver=str(item.settings["driver"]),
        parent=str(item.settings["parent"] or ""),
        ipv6=bool(item.settings.get("ipv6")),
        encrypted=bool(item.settings.get("encrypted")),
    )


def settings_spec_of(item: DeclaredItem) -> SettingsSpec:
    """Return the settings to give a network that exists."""
    return SettingsSpec(
        labels=dict(_label_pairs(item)),
        internal=bool(item.settings["internal"]),
        port_security=bool(item.settings["port_security"]),
        any_name=bool(item.settings["any_name"]),
        default_deny=bool(item.settings["default_deny"]),
        isolate_ports=bool(item.settings["isolate_ports"]),
        evpn=bool(item.settings["evpn"]),
        ip_ranges={
            key.partition(" ")[2]: str(value or "")
            for key, value in item.settings.items()
            if key.startswith(f"{_RANGE} ")
        },
        options=_options(item),
        owner=item.owner,
    )


def _subnet_settings(subnet: Subnet) -> dict[str, Setting]:
    start = subnet.ip_range
    return {
        f"{_GATEWAY} {subnet}": ip_text(subnet.gateway),
        f"{_RANGE} {subnet}": None if start is None else f"{ip_text(start[0])}/{start[1]}",
        f"{_AUXILIARY} {subnet}": tuple(f"{name}={ip_text(ip)}" for name, ip in subnet.auxiliary),
        f"{_BLOCK} {subnet}": subnet.block_length or None,
    }


def _subnet_spec(item: DeclaredItem, text: str) -> SubnetSpec:
    def setting(name: str) -> Setting:
        return item.settings.get(f"{name} {text}")

    gateway, ip_range = setting(_GATEWAY), setting(_RANGE)
    return SubnetSpec(
        text,
        None if gateway is None else str(gateway),
        None if ip_range is None else str(ip_range),
        tuple(_pair(each) for each in _texts(item, f"{_AUXILIARY} {text}")),
        cast("int | None", setting(_BLOCK)),
    )


def _texts(item: DeclaredItem, name: str) -> tuple[str, ...]:
    found = item.settings.get(name) or ()
    assert isinstance(found, tuple), "a list of texts"
    return found


def _label_pairs(item: DeclaredItem) -> tuple[tuple[str, str], ...]:
    return tuple(_pair(text) for text in _texts(item, "labels"))


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value


def _options(item: DeclaredItem) -> dict[str, int | str]:
    return {option: cast("int | str", item.settings[option] or 0) for option in OPTION_LABELS}
