"""`publish --all-hosts`: a container's ports on every host, as a service with that one backend.

Owns: the service's name and label, and what publishing and unpublishing change of it.
Does not: lead a port anywhere; each host's agent does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.client.api import ApiClient, JsonObject, segment
from overlay.errors import ConflictError, NotFoundError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Sequence

LABEL = "published"
_SUFFIX = "-published"
_LISTED = ("port", "service_port", "protocol", "mode", "sources")


def publish(client: ApiClient, args: Namespace) -> JsonObject:
    """Publish ports on every host; return the service.

    Raises NotFoundError for a name that no container has, ConflictError for one on several
    networks, and what the agent refuses.
    """
    name, network = _container(client, args)
    found = _service(client, name, network)
    fresh = [
        {"port": host, "service_port": port, "protocol": protocol, "sources": args.sources}
        for protocol, host, port in _pairs(args.ports)
    ]
    before = _published(found)
    places = {(each["protocol"], each["port"]) for each in fresh}
    kept = [each for each in before if (each["protocol"], each["port"]) not in places]
    body = _ports_of([*kept, *fresh])
    if found is not None:
        return client.post(f"/v1/services/{segment(found['name'])}", body)
    body |= {"name": name + _SUFFIX, "network": network, "backends": [name]}
    return client.post("/v1/services", body | {"labels": {LABEL: name}})


def unpublish(client: ApiClient, args: Namespace) -> list[JsonObject]:
    """Unpublish ports on every host, all without any; return them.

    The service goes with its last port.
    """
    gone: list[JsonObject] = []
    for found in _services(client, args.name, args.network):
        before, pairs = _published(found), set(_pairs(args.ports))
        kept = [
            each
            for each in before
            if pairs and (each["protocol"], each["port"], each["service_port"]) not in pairs
        ]
        gone += [each for each in before if each not in kept]
        path = f"/v1/services/{segment(found['name'])}"
        if not kept:
            client.delete(path)
        elif len(kept) < len(before):
            client.post(path, _ports_of(kept))
    return gone


def text_of(published: JsonObject) -> str:
    """Return a published port as text."""
    return f"{published['port']}:{published['service_port']}/{published['protocol']}"


def _pairs(texts: Sequence[str]) -> list[tuple[str, int, int]]:
    from overlay.core.dataplane.published_port import parse_pairs  # noqa: PLC0415  only for this

    pairs = dict.fromkeys(pair for text in texts for pair in parse_pairs(text))
    return [(pair.protocol, pair.host_port, pair.port) for pair in pairs]


def _ports_of(published: Iterable[JsonObject]) -> JsonObject:
    """Return the fields of a service with these published ports, and the ports behind them."""
    listed = list(published)
    behind = dict.fromkeys((each["protocol"], each["service_port"]) for each in listed)
    ports = [{"port": port, "protocol": protocol} for protocol, port in behind]
    return {"ports": ports, "publish": listed}


def _published(service: JsonObject | None) -> list[JsonObject]:
    listed = service["publish"] if service is not None else []
    return [{key: each[key] for key in _LISTED} for each in listed]


def _services(client: ApiClient, name: str, network: str | None) -> list[JsonObject]:
    return [
        each
        for each in client.get("/v1/services")["services"]
        if each["labels"].get(LABEL, "").lower() == name.lower()
        and (network is None or each["network"] == network)
    ]


def _service(client: ApiClient, name: str, network: str) -> JsonObject | None:
    return next(iter(_services(client, name, network)), None)


def _container(client: ApiClient, args: Namespace) -> tuple[str, str]:
    """Return the name of a container as it is written, and its network."""
    found = {
        each["network"]: each["name"]
        for each in client.get("/v1/endpoints")["endpoints"]
        if each["name"].lower() == args.name.lower() and args.network in (None, each["network"])
    }
    if not found:
        where = f"network {args.network}" if args.network else "any network known here"
        raise NotFoundError(
            f"no container is called {args.name} on {where}",
            hint="'overlayd endpoint ls' lists the names",
        )
    if len(found) > 1:
        raise ConflictError(
            f"{args.name} is on several networks: {', '.join(sorted(found))}",
            hint="Choose one with --network",
        )
    ((network, name),) = found.items()
    return name, network
