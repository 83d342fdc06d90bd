"""The input of a CNI plugin from its runtime: environment, network configuration, runtimeConfig.

Owns: names and forms of the fields, of all versions and runtimes, and the refusal of invalid ones.
Does not: know what the agent makes of them.
"""

from __future__ import annotations

import json

from overlay.client.cni.errors import (
    INCOMPATIBLE_VERSION,
    INVALID_CONFIG,
    INVALID_ENVIRONMENT,
    UNDECODABLE,
    UNSUPPORTED_FIELD,
    CniError,
)

TYPE_CHECKING = False  # typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

VERSIONS: Final = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
# The first version that has a command; those that are not here are as old as any.
COMMAND_SINCE: Final = {"CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}
REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "GC": (),
    "STATUS": (),
    "VERSION": (),
}
VALID_ATTACHMENTS: Final = ("cni.dev/valid-attachments", "cni.dev/attachments")
_IFNAME_LENGTH_MAX: Final = 15
# CNI_ARGS that are understood, or are about the container and need no action.
_KNOWN_ARGS: Final = frozenset(
    {
        "IgnoreUnknown",
        "IP",
        "MAC",
        "K8S_POD_NAME",
        "K8S_POD_NAMESPACE",
        "K8S_POD_INFRA_CONTAINER_ID",
        "K8S_POD_UID",
    }
)
_PORT_OPTIONS: Final = ("vlan", "isolated", "priority", "storm")
_TRUE: Final = ("1", "t", "true")


class Environment:
    """The variables of one call; those that the command does not need may be empty."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.command = environ.get("CNI_COMMAND", "")
        self.container_id = environ.get("CNI_CONTAINERID", "")
        self.netns = environ.get("CNI_NETNS", "")
        self.ifname = environ.get("CNI_IFNAME", "")
        self.args = environ.get("CNI_ARGS", "")


def environment(environ: Mapping[str, str]) -> Environment:
    """Return the variables of a call; raises CniError that names those that are invalid."""
    found = Environment(environ)
    command = found.command
    if command not in REQUIRED:
        problem = f"is {command[:64]!r}" if command else "is not set"
        raise CniError(
            INVALID_ENVIRONMENT,
            f"CNI_COMMAND {problem}: this plugin has {', '.join(REQUIRED)}",
            "Container runtimes start this program; by hand use: overlayd attach",
        )
    missing = [name for name in REQUIRED[command] if not environ.get(name)]
    if missing:
        raise CniError(INVALID_ENVIRONMENT, f"{', '.join(missing)} must be set for {command}")
    if REQUIRED[command] and not _is_word(found.container_id):
        raise CniError(
            INVALID_ENVIRONMENT,
            f"CNI_CONTAINERID {found.container_id[:64]!r} is not a valid container id",
            "It has letters, digits, '_', '.' and '-', and starts with a letter or digit",
        )
    if REQUIRED[command] and not _is_interface_name(found.ifname):
        raise CniError(
            INVALID_ENVIRONMENT,
            f"CNI_IFNAME {found.ifname[:64]!r} is not a valid interface name",
            "It has up to 15 characters, none of them '/', ':' or a space",
        )
    return found


def decoded(raw: bytes) -> dict[str, Any]:
    """Return the JSON object of the standard input; raises CniError."""
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise CniError(UNDECODABLE, f"the network configuration is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CniError(UNDECODABLE, "the network configuration is not a JSON object")
    return value


class NetworkConfig:
    """The network configuration of one call, with what the runtime has put into it."""

    def __init__(self, fields: dict[str, Any], command: str) -> None:
        self.fields = fields
        self.version = _version(fields, command)
        name = fields.get("name")
        if not isinstance(name, str) or not _is_word(name):
            raise CniError(
                INVALID_CONFIG,
                f"name: {name!r} is not a valid name of a network",
                "It has letters, digits, '_', '.' and '-', and starts with a letter or digit",
            )
        self.name = name
        network = fields.get("network") or name
        if not isinstance(network, str):
            raise CniError(INVALID_CONFIG, f"network: {network!r} is not the name of a network")
        self.network = network
        self.runtime = _object(fields, "runtimeConfig")

    @property
    def previous(self) -> dict[str, Any] | None:
        """Return the result of the plugins before this one in a chain, or of an ADD; or None."""
        value = self.fields.get("prevResult")
        if value is None:
            return None
        if not isinstance(value, dict):
            raise CniError(UNDECODABLE, "prevResult is not a JSON object")
        return value

    @property
    def default_route(self) -> bool:
        """Return whether the container may get its default route from this network."""
        value = self.fields.get("defaultRoute", True)
        if not isinstance(value, bool):
            raise CniError(INVALID_CONFIG, f"defaultRoute: {value!r} is neither true nor false")
        return value

    def require_no_ipam(self) -> None:
        """Raise CniError for an IPAM plugin: its addresses would be the same on each host."""
        ipam = _object(self.fields, "ipam")
        if ipam.get("type"):
            raise CniError(
                UNSUPPORTED_FIELD,
                f"ipam: type {ipam['type']!r} is not supported: addresses come from the cluster",
                "Remove ipam from the configuration; for one address use the capability ips",
            )

    def addresses(self, args: Mapping[str, str]) -> list[str]:
        """Return the addresses that the runtime asks for: capability, args, then CNI_ARGS."""
        of_args = _object(_object(self.fields, "args"), "cni")
        asked = self.runtime.get("ips") or of_args.get("ips") or args.get("IP", "").split(",")
        return [text.partition("/")[0].strip() for text in _texts(asked, "ips") if text.strip()]

    def mac(self, args: Mapping[str, str]) -> str | None:
        """Return the MAC that the runtime asks for, or None."""
        of_args = _object(_object(self.fields, "args"), "cni")
        asked = self.runtime.get("mac") or of_args.get("mac") or args.get("MAC")
        return None if asked is None else str(asked)

    def aliases(self) -> list[str]:
        """Return the container's further names: a list, or one for each network's name."""
        asked = self.runtime.get("aliases") or []
        if isinstance(asked, dict):
            asked = asked.get(self.name) or []
        return _texts(asked, "aliases")

    def published(self) -> list[dict[str, Any]]:
        """Return the ports of this host that map to the container, by the host's address."""
        by_address: dict[str, list[str]] = {}
        for mapping in self.runtime.get("portMappings") or ():
            fields = _lower_keys(mapping, "portMappings")
            host, port = fields.get("hostport") or 0, fields.get("containerport")
            protocol = str(fields.get("protocol") or "tcp").lower()
            if host == 0:  # the container listens, and the host maps nothing to it
                continue
            if protocol not in ("tcp", "udp"):
                raise CniError(
                    UNSUPPORTED_FIELD, f"portMappings: protocol {protocol!r} is not supported"
                )
            address = str(fields.get("hostip") or "")
            by_address.setdefault(address, []).append(f"{host}:{port}/{protocol}")
        return [
            {"ports": ports, "host_ip": address or None} for address, ports in by_address.items()
        ]

    def rates(self) -> tuple[int | None, int | None]:
        """Return the limits to and from the container in bits per second; None: no limit."""
        fields = _lower_keys(self.runtime.get("bandwidth") or {}, "bandwidth")
        try:
            into, out = (int(fields.get(key) or 0) for key in ("ingressrate", "egressrate"))
        except (TypeError, ValueError) as error:
            raise CniError(INVALID_CONFIG, "bandwidth: a rate is not a number") from error
        return into or None, out or None

    def port_options(self) -> dict[str, Any]:
        """Return the options of the container's port by the API's names.

        Those of `args.cni` for this container first, then those of the configuration. Frames that
        are not IP are allowed by the configuration alone: it is root's.
        """
        of_args = _object(_object(self.fields, "args"), "cni")
        found = {key: of_args.get(key, self.fields.get(key)) for key in _PORT_OPTIONS}
        found["allow_non_ip"] = self.fields.get("allowNonIP")
        for key in ("vlan", "priority"):  # a number or a text
            if isinstance(found[key], int) and not isinstance(found[key], bool):
                found[key] = str(found[key])
        return {key: value for key, value in found.items() if value is not None}

    def dns(self) -> dict[str, list[str]]:
        """Return the resolver settings that replace the network's: nameservers, search, options.

        Those of the runtime for this container first, then those of the configuration.
        """
        asked = _lower_keys(self.runtime.get("dns") or {}, "dns")
        written = _lower_keys(self.fields.get("dns") or {}, "dns")
        return {
            "nameservers": _texts(asked.get("servers") or written.get("nameservers"), "dns"),
            "search": _texts(asked.get("searches") or written.get("search"), "dns"),
            "options": _texts(asked.get("options") or written.get("options"), "dns"),
        }

    def valid_attachments(self) -> list[dict[str, str]]:
        """Return the interfaces that the runtime still has, for GC; raises CniError without it."""
        given = next((self.fields[key] for key in VALID_ATTACHMENTS if key in self.fields), None)
        if not isinstance(given, list):
            raise CniError(
                INVALID_CONFIG,
                f"{VALID_ATTACHMENTS[0]} must be a list for GC: nothing was removed",
            )
        found = [_lower_keys(each, VALID_ATTACHMENTS[0]) for each in given]
        return [
            {"container_id": str(each.get("containerid")), "ifname": str(each.get("ifname"))}
            for each in found
        ]


def extra_arguments(text: str) -> dict[str, str]:
    """Return the pairs of CNI_ARGS; raises CniError for one that is unknown and not ignored."""
    pairs: dict[str, str] = {}
    for each in filter(None, text.split(";")):
        key, equals, value = each.partition("=")
        if not equals:
            raise CniError(INVALID_ENVIRONMENT, f"CNI_ARGS: {each[:64]!r} is not KEY=VALUE")
        pairs[key] = value
    unknown = sorted(set(pairs) - _KNOWN_ARGS)
    if unknown and pairs.get("IgnoreUnknown", "").lower() not in _TRUE:
        raise CniError(
            INVALID_ENVIRONMENT,
            f"CNI_ARGS: unknown {', '.join(unknown)}",
            "With IgnoreUnknown=1 they are ignored",
        )
    return pairs


def _is_word(text: str) -> bool:
    """Return whether a text can be a container's id or a network's name."""
    plain = text.replace("_", "").replace(".", "").replace("-", "")
    return text.isascii() and text[:1].isalnum() and plain.isalnum()


def _is_interface_name(text: str) -> bool:
    forbidden = any(each in "/:" or each.isspace() for each in text)
    return not forbidden and text not in (".", "..") and len(text) <= _IFNAME_LENGTH_MAX


def _version(fields: dict[str, Any], command: str) -> str:
    """Return the configuration's version; raises CniError if it has no such command."""
    version = fields.get("cniVersion") or "0.1.0"  # as the specification reads its absence
    if version not in VERSIONS:
        raise CniError(
            INCOMPATIBLE_VERSION,
            f"cniVersion {version!r} is not supported: this plugin has {', '.join(VERSIONS)}",
            'Write the configuration with "cniVersion": "1.0.0", as `overlayd cni install` does',
        )
    since = COMMAND_SINCE.get(command, VERSIONS[0])
    if VERSIONS.index(version) < VERSIONS.index(since):
        raise CniError(
            INCOMPATIBLE_VERSION,
            f"cniVersion {version} has no {command}, which version {since} introduced",
        )
    return str(version)


def _object(fields: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = fields.get(key) or {}
    if not isinstance(value, dict):
        raise CniError(UNDECODABLE, f"{key} is not a JSON object")
    return value


def _texts(value: Any, key: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise CniError(UNDECODABLE, f"{key} is not a list of texts")
    return value


def _lower_keys(value: Any, key: str) -> dict[str, Any]:
    """Return an object with keys in lower case: containerd writes them with a capital."""
    if not isinstance(value, dict):
        raise CniError(UNDECODABLE, f"{key} does not have JSON objects")
    return {str(name).lower(): each for name, each in value.items()}
