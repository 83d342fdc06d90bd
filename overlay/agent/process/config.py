"""The configuration file: all keys are optional, unknown keys are refused by name.

Owns: the settings and their defaults. Options of `overlayd agent` override the file.
"""

from __future__ import annotations

import ipaddress
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from overlay import limits
from overlay.errors import ConfigurationError
from overlay.model import valid_name

STATE_DIR_DEFAULT = Path("/var/lib/overlayd")
RUN_DIR_DEFAULT = Path("/run/overlayd")
CONFIG_DEFAULT = Path("/etc/overlayd/overlayd.toml")
API_GROUP_DEFAULT = "overlayd"
DNS_DOMAIN_DEFAULT = "overlay"
LOCK_NAME = "lock"  # in the state directory: held by the agent as long as it lives


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
    authority_holders: int = limits.AUTHORITY_HOLDERS_DEFAULT  # members that hold the authority
    dead_grace_s: float = 24 * 3600.0  # a dead node's rows are kept this long
    fast_path: str = "auto"  # eBPF in place of the bridge for unicast: auto, on or off
    docker_plugin: str = "auto"  # serve Docker's network and IPAM driver: auto, on or off
    dns_domain: str = DNS_DOMAIN_DEFAULT  # the suffix of containers' full names
    metrics_listen: str = ""  # address and port of GET /metrics on TCP; empty: no port is opened
    path: Path | None = None  # the file this came from, if there was one


def load(path: Path, *, required: bool) -> Config:
    """Read the TOML file at `path`; a missing file is an error only if `required`.

    Raises ConfigurationError with the file, the key and the expected value.
    """
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except FileNotFoundError as error:
        if not required:
            return Config()
        raise ConfigurationError(
            f"no configuration file {path}", hint="Omit --config to use the defaults"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not valid TOML", why=str(error)) from error
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}", why=str(error.strerror)) from error
    known = {field.name: field.type for field in fields(Config) if field.name != "path"}
    values: dict[str, Any] = {"path": path}
    for key, value in table.items():
        if key not in known:
            raise ConfigurationError(
                f"{path}: unknown key {key!r}", hint=f"Known keys: {', '.join(sorted(known))}"
            )
        values[key] = _converted(path, key, str(known[key]), value)
    return Config(**values)


def _converted(path: Path, key: str, kind: str, value: Any) -> Any:
    if kind == "float" and isinstance(value, int | float) and not isinstance(value, bool):
        may_be_zero = key == "key_rotation_interval_s"
        if value < 0 or (value == 0 and not may_be_zero):
            raise ConfigurationError(f"{path}: {key} must be above zero, not {value}")
        return float(value)
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "Path" and isinstance(value, str):
        return Path(value)
    if kind == "str" and isinstance(value, str):
        if key == "log_level" and value not in ("debug", "info", "warning", "error"):
            raise ConfigurationError(f"{path}: log_level must be debug, info, warning or error")
        if key in ("fast_path", "docker_plugin") and value not in ("auto", "on", "off"):
            raise ConfigurationError(f"{path}: {key} must be auto, on or off")
        if key == "dns_domain":
            return _domain(path, value)
        if key == "metrics_listen" and value:
            try:
                parse_listen_address(value)
            except ValueError as error:
                raise ConfigurationError(
                    f"{path}: metrics_listen must be an IP address and a port, not {value!r}",
                    why=str(error),
                    hint='For example "127.0.0.1:9469" or "[::1]:9469"; "" opens no port',
                ) from error
        return value
    if kind == "int" and isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= limits.AUTHORITY_HOLDERS_MAX:
            raise ConfigurationError(
                f"{path}: {key} must be from 1 to {limits.AUTHORITY_HOLDERS_MAX}, not {value}",
                hint="1 keeps the authority on the hosts that have it",
            )
        return value
    expected = {
        "float": "a number of seconds",
        "int": f"a number from 1 to {limits.AUTHORITY_HOLDERS_MAX}",
        "Path": "a path",
        "str": "a string",
        "bool": "true or false",
    }[kind]
    raise ConfigurationError(f"{path}: {key} must be {expected}, not {value!r}")


def parse_listen_address(text: str) -> tuple[str, int]:
    """Return the IP address and the port in `127.0.0.1:9469` or `[::1]:9469`.

    Raises ValueError with the reason.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError("it has no port" if "." in text else "it has no address")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if ":" in host and not is_bracketed:
        raise ValueError("an IPv6 address before a port needs brackets")
    try:
        address = ipaddress.ip_address(host[1:-1] if is_bracketed else host)
    except ValueError:
        raise ValueError(f"{host!r} is not an IP address") from None
    if is_bracketed != (address.version == 6):
        raise ValueError("only an IPv6 address has brackets")
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"{port!r} is not a port from 1 to 65535")
    return str(address), int(port)


def _domain(path: Path, value: str) -> str:
    """Return a domain in lower case, without a dot at its end."""
    domain = value.lower().removesuffix(".")
    if not valid_name(domain):
        raise ConfigurationError(
            f"{path}: dns_domain must be a domain, not {value!r}", hint='For example "lab.example"'
        )
    return domain
