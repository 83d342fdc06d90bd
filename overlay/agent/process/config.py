"""The configuration file: all keys are optional, unknown keys are refused by name.

Owns: the settings, their defaults, and every check of the file. Options of `overlayd agent`
override the file.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from overlay import limits
from overlay.agent.process.listen_address import parse_listen_address
from overlay.agent.process.port_ranges import parse_port_ranges
from overlay.errors import ConfigurationError
from overlay.model import valid_name
from overlay.own_files import absolute_path, names

STATE_DIR_DEFAULT = Path(names.STATE_DIR)
RUN_DIR_DEFAULT = Path(names.RUN_DIR)
CONFIG_DEFAULT = Path("/etc/overlayd/overlayd.toml")
API_GROUP_DEFAULT = "overlayd"
DNS_DOMAIN_DEFAULT = "overlay"
CLUSTER_PORTS_DEFAULT = "80, 443, 1024-65535"
LOCK_NAME = "lock"  # in the state directory: held by the agent as long as it lives

_EXPECTED = {
    "float": "a number of seconds",
    "int": f"a number from 1 to {limits.AUTHORITY_HOLDERS_MAX}",
    "Path": "a path",
    "str": "a string",
    "bool": "true or false",
}
REQUIRED, AUTO = "required", "auto"
CHOICES = {
    "log_level": ("debug", "info", "warning", "error"),
    "fast_path": ("auto", "on", "off"),
    "native_path": ("auto", "on", "off"),
    "gate": ("auto", "on", "off"),
    "services_at_connect": (AUTO, "off"),
    "docker_plugin": ("auto", "on", "off"),
    "docker_networks": ("auto", "off"),
    "encryption": ("optional", REQUIRED),
    "wireguard": (AUTO, "kernel", "wireguard-go"),
}


@dataclass(frozen=True, slots=True)
class Config:
    """An agent's settings; a cluster's settings come with `join`."""

    state_dir: Path = STATE_DIR_DEFAULT  # identity, records, attachments; mode 0700
    run_dir: Path = RUN_DIR_DEFAULT  # API socket, log of a detached agent
    api_group: str = API_GROUP_DEFAULT  # its members may use the API, as may root
    api_group_trusted: bool = False  # the group may also do what amounts to root of the network
    log_level: str = "info"  # debug, info, warning or error
    reconcile_interval_s: float = 30.0  # the periodic pass; changes trigger one at once
    key_rotation_interval_s: float = 24 * 3600.0  # from key to key; 0: no automatic rotation
    encryption: str = "optional"  # of networks between hosts: optional, or required for all
    wireguard: str = "auto"  # what carries encrypted networks: auto, kernel or wireguard-go
    encryption_rotation_interval_s: float = 24 * 3600.0  # of WireGuard keys; 0: by command only
    authority_holders: int = limits.AUTHORITY_HOLDERS_DEFAULT  # members that hold the authority
    dead_grace_s: float = 24 * 3600.0  # a dead node's rows are kept this long
    fast_path: str = "auto"  # eBPF in place of the bridge for unicast: auto, on or off
    native_path: str = "auto"  # eBPF in place of the VXLAN device as well: auto, on or off
    gate: str = "auto"  # translate apart from the host's own traffic: auto, on or off
    services_at_connect: str = AUTO  # choose a service's backend at connect(2): auto or off
    docker_plugin: str = "auto"  # serve Docker's network and IPAM driver: auto, on or off
    docker_networks: str = "off"  # show each network in Docker on this host: auto or off
    dns_domain: str = DNS_DOMAIN_DEFAULT  # the suffix of containers' full names
    metrics_listen: str = ""  # address and port of GET /metrics on TCP; empty: no port is opened
    capture_from_peers: bool = True  # `capture --both-ends` and `trace` of members may look here
    cluster_ports: str = CLUSTER_PORTS_DEFAULT  # of this host: what other members may publish
    cluster_plugs: str = ""  # of this host: interfaces that other members may plug into networks
    path: Path | None = None  # the file this came from, if there was one


KINDS: dict[str, str] = {each.name: str(each.type) for each in fields(Config)}
del KINDS["path"]  # of the other fields, each is a key of the file


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file as it was read: its valid values, and an error for everything that is wrong.

    An error's `field` is the key that it is about; empty: the file as a whole.
    """

    path: Path
    exists: bool = False
    values: dict[str, Any] = field(default_factory=dict)
    errors: list[ConfigurationError] = field(default_factory=list)


def read(path: Path) -> ConfigFile:
    """Read the TOML file at `path` and check all of it."""
    try:
        text = path.read_bytes().decode()
        table = tomllib.loads(text)
    except FileNotFoundError:
        return ConfigFile(path)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        why = str(error)
        return ConfigFile(
            path, True, {}, [ConfigurationError(f"{path} is not valid TOML", why=why)]
        )
    except OSError as error:
        why = str(error.strerror)
        return ConfigFile(path, True, {}, [ConfigurationError(f"cannot read {path}", why=why)])
    found = ConfigFile(path, exists=True)
    for key, value in table.items():
        where = _where(path, text, key)
        try:
            found.values[key] = _converted(where, key, value)
        except ConfigurationError as error:
            error.field = key
            found.errors.append(error)
    return found


def load(path: Path, *, required: bool) -> Config:
    """Read the TOML file at `path`; a missing file is an error only if `required`.

    Raises ConfigurationError with the file, the key and the expected value of the first error.
    """
    found = read(path)
    if not found.exists:
        if not required:
            return Config()
        raise ConfigurationError(
            f"no configuration file {path}", hint="Omit --config to use the defaults"
        )
    if found.errors:
        first = found.errors[0]
        if len(found.errors) > 1:
            first.hint = f"{first.hint}. " if first.hint else ""
            first.hint += f"All {len(found.errors)} errors: overlayd config check {path}"
        raise first
    return Config(**found.values, path=path)


def _where(path: Path, text: str, key: str) -> str:
    """Return `FILE:LINE` of a key; `FILE` where it is not written at the start of a line."""
    pattern = re.compile(rf"""^\s*\[*\s*["']?{re.escape(key)}["']?\s*[=.\]]""")
    for number, line in enumerate(text.splitlines(), 1):
        if pattern.match(line):
            return f"{path}:{number}"
    return str(path)


def _converted(where: str, key: str, value: Any) -> Any:
    """Return the value of a key as `Config` has it; raises ConfigurationError."""
    kind = KINDS.get(key)
    if kind is None:
        raise _unknown_key(where, key, value)
    if kind == "float" and isinstance(value, int | float) and not isinstance(value, bool):
        return _seconds(where, key, value)
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "Path" and isinstance(value, str):
        return _path(where, key, value)
    if kind == "str" and isinstance(value, str):
        choices = CHOICES.get(key)
        if choices is not None and value not in choices:
            shown = f"{', '.join(choices[:-1])} or {choices[-1]}"
            raise ConfigurationError(f"{where}: {key} must be {shown}, not {value!r}")
        if key == "metrics_listen" and value:
            _require_listen_address(where, value)
        if key == "cluster_ports":
            _require_port_ranges(where, value)
        return _domain(where, value) if key == "dns_domain" else value
    if kind == "int" and isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= limits.AUTHORITY_HOLDERS_MAX:
            raise ConfigurationError(
                f"{where}: {key} must be from 1 to {limits.AUTHORITY_HOLDERS_MAX}, not {value}",
                hint="1 keeps the authority on the hosts that have it",
            )
        return value
    raise ConfigurationError(f"{where}: {key} must be {_EXPECTED[kind]}, not {value!r}")


def _path(where: str, key: str, value: str) -> Path:
    if why := absolute_path.fault(value):
        raise ConfigurationError(
            f"{where}: {key} must be {absolute_path.WANTED}, not {value!r}",
            why=why,
            hint=f'For example {key} = "{getattr(Config(), key)}", which is the default',
        )
    return Path(value)


def _require_listen_address(where: str, value: str) -> None:
    try:
        parse_listen_address(value)
    except ValueError as error:
        raise ConfigurationError(
            f"{where}: metrics_listen must be an IP address and a port, not {value!r}",
            why=str(error),
            hint='For example "127.0.0.1:9469" or "[::1]:9469"; "" opens no port',
        ) from error


def _require_port_ranges(where: str, value: str) -> None:
    try:
        parse_port_ranges(value)
    except ValueError as error:
        raise ConfigurationError(
            f"{where}: cluster_ports must be ports and ranges of ports, not {value!r}",
            why=str(error),
            hint=f'For example "{CLUSTER_PORTS_DEFAULT}"; "" allows none',
        ) from error


def _unknown_key(where: str, key: str, value: Any) -> ConfigurationError:
    if isinstance(value, dict):
        return ConfigurationError(
            f"{where}: unknown section {key!r}", hint="The file has no sections: remove the line"
        )
    similar = difflib.get_close_matches(key, KINDS, n=1)
    hint = f"Did you mean {similar[0]}? " if similar else ""
    return ConfigurationError(
        f"{where}: unknown key {key!r}", hint=f"{hint}Known keys: {', '.join(sorted(KINDS))}"
    )


def _seconds(where: str, key: str, value: float) -> float:
    may_be_zero = key in {"key_rotation_interval_s", "encryption_rotation_interval_s"}
    # A comparison with NaN is false.
    if not (0 < value <= limits.CONFIGURED_MAX_S or (value == 0 and may_be_zero)):
        least = "0 or more" if may_be_zero else "above zero"
        raise ConfigurationError(
            f"{where}: {key} must be {least} and at most {limits.CONFIGURED_MAX_S:.0f}, not {value}"
        )
    return float(value)


def _domain(where: str, value: str) -> str:
    """Return a domain in lower case, without a dot at its end."""
    domain = value.lower().removesuffix(".")
    if not valid_name(domain):
        raise ConfigurationError(
            f"{where}: dns_domain must be a domain, not {value!r}", hint='For example "lab.example"'
        )
    return domain
