"""One call of the CNI plugin: environment and standard input to a result or an error.

Owns: what each command asks the agent. Start-up must be quick: a runtime starts this program for
each container.
"""

from __future__ import annotations

import json
import os
import sys

from overlay.client.cni import result
from overlay.client.cni.errors import (
    FAILED,
    INPUT_OUTPUT_FAILURE,
    INVALID_CONFIG,
    LIMITED_CONNECTIVITY,
    NOT_AS_EXPECTED,
    NOT_AVAILABLE,
    UNKNOWN_CONTAINER,
    CniError,
    of_agent,
)
from overlay.client.cni.network_config import (
    VERSIONS,
    Environment,
    NetworkConfig,
    decoded,
    environment,
    extra_arguments,
)
from overlay.client.plugin_client import PluginClient
from overlay.errors import NotFoundError, OverlayError

TYPE_CHECKING = False  # typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    JsonObject = dict[str, Any]

_PLUGIN = "cni"
_ERROR_VERSION = "1.0.0"  # of an error before the configuration's version is known


def main(run_dir: str) -> int:
    """Run one call of this process and return its exit code."""
    code, answer = run(os.environ, sys.stdin.buffer.read, PluginClient(run_dir))
    try:
        if answer is not None:
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
    except OSError as error:
        sys.stderr.write(f"overlayd: cannot write the result: {error.strerror}\n")
        return 1
    return code


def run(
    environ: Mapping[str, str], read: Callable[[], bytes], client: PluginClient
) -> tuple[int, JsonObject | None]:
    """Return the exit code of a call, and what it writes to its standard output."""
    version = _ERROR_VERSION
    try:
        asked = environment(environ)
        fields = decoded(_input(read))
        if fields.get("cniVersion") in VERSIONS:
            version = fields["cniVersion"]
        if asked.command == "VERSION":
            return 0, _versions(fields)
        config = NetworkConfig(fields, asked.command)
        return 0, _COMMANDS[asked.command](client, asked, config)
    except CniError as error:
        return 1, error.body(version)
    except OverlayError as error:
        return 1, of_agent(error).body(version)
    except Exception as error:  # noqa: BLE001  a runtime reads nothing but JSON
        text = f"defect in overlayd's CNI plugin: {type(error).__name__}: {error}"
        return 1, CniError(FAILED, text, "Please report it").body(version)


def _input(read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except OSError as error:
        raise CniError(
            INPUT_OUTPUT_FAILURE, f"cannot read the network configuration: {error.strerror}"
        ) from error


def _versions(fields: JsonObject) -> JsonObject:
    return {
        "cniVersion": fields.get("cniVersion") or VERSIONS[-1],
        "supportedVersions": list(VERSIONS),
    }


def _add(client: PluginClient, asked: Environment, config: NetworkConfig) -> JsonObject:
    """ADD: attach the container."""
    config.require_no_ipam()
    args = extra_arguments(asked.args)
    if not os.path.lexists(asked.netns):
        raise CniError(
            UNKNOWN_CONTAINER,
            f"CNI_NETNS: there is no network namespace at {asked.netns}",
            "Did the container end?",
        )
    rate_in, rate_out = config.rates()
    previous, settings = config.previous, config.dns()
    body: JsonObject = {
        **_key(asked, config),
        "target": asked.netns,
        "network": config.network,
        "name": args.get("K8S_POD_NAME", ""),
        "ips": config.addresses(args),
        "mac": config.mac(args),
        "default_route": config.default_route,
        "aliases": config.aliases(),
        "publish": config.published(),
        "runtime_pids": [pid] if (pid := os.getppid()) else [],  # 0: outside this PID namespace
        "rate_in": rate_in,
        "rate_out": rate_out,
        **config.port_options(),
    }
    endpoint = client.post("/v1/plugin/attach", body)
    for name in ("unconfirmed", "unreachable", "unanswered", "degraded"):
        if endpoint.get(name):  # runtimes log what a plugin writes here
            sys.stderr.write(f"overlayd: warning: {name}: {', '.join(endpoint[name])}\n")
    return result.added(config.version, previous, endpoint, asked.netns, settings)


def _delete(client: PluginClient, asked: Environment, config: NetworkConfig) -> None:
    """DEL: detach the container; it is not an error if it is detached already."""
    client.post("/v1/plugin/detach", _key(asked, config))


def _check(client: PluginClient, asked: Environment, config: NetworkConfig) -> None:
    """CHECK: compare the container's interface with what ADD has reported."""
    expected = config.previous
    if expected is None:
        raise CniError(INVALID_CONFIG, "prevResult must be given for CHECK")
    try:
        endpoint = client.post("/v1/plugin/check", _key(asked, config))
    except NotFoundError as error:
        raise CniError(NOT_AS_EXPECTED, of_agent(error).msg, error.hint) from error
    found = [*endpoint["problems"], *result.differences(expected, endpoint, asked.netns)]
    if found:
        raise CniError(
            NOT_AS_EXPECTED,
            f"container {asked.container_id[:12]}: {'; '.join(found)}",
            "overlayd verify; the agent repairs what it can within 15 s",
        )


def _status(client: PluginClient, _asked: Environment, config: NetworkConfig) -> None:
    """STATUS: return if an ADD would find the agent, its cluster and the network."""
    try:
        status = client.get("/v1/status")
    except OverlayError as error:
        raise CniError(
            NOT_AVAILABLE, of_agent(error).msg, f"{error.hint}. Containers stay connected"
        ) from error
    if status["cluster"] is None:
        raise CniError(
            NOT_AVAILABLE, "this host is not in a cluster", "sudo overlayd join PEER ..."
        )
    known = {each["name"].lower(): each for each in status["networks"]}
    network = known.get(config.network.lower())
    if network is None:
        raise CniError(
            NOT_AVAILABLE,
            f"there is no network {config.network!r}: known networks: {', '.join(known) or 'none'}",
            f"sudo overlayd network create {config.network}",
        )
    if network["sandbox"] == "degraded":
        raise CniError(
            LIMITED_CONNECTIVITY,
            f"network {network['name']} is degraded on this host: {'; '.join(network['failures'])}",
            "overlayd status",
        )


def _collect(client: PluginClient, _asked: Environment, config: NetworkConfig) -> None:
    """GC: detach the containers of this network that the runtime does not have."""
    body = {"plugin": _PLUGIN, "scope": config.name, "valid": config.valid_attachments()}
    client.post("/v1/plugin/collect", body)


def _key(asked: Environment, config: NetworkConfig) -> JsonObject:
    return {
        "plugin": _PLUGIN,
        "scope": config.name,
        "container_id": asked.container_id,
        "ifname": asked.ifname,
    }


_COMMANDS: dict[str, Callable[[PluginClient, Environment, NetworkConfig], JsonObject | None]] = {
    "ADD": _add,
    "DEL": _delete,
    "CHECK": _check,
    "STATUS": _status,
    "GC": _collect,
}
