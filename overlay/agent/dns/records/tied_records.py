"""DNS records that are part of a container's record, and go with it (`dns add --for`).

One label of the endpoint holds one name. Owns: the label, and what it says. Does not: change an
endpoint (`endpoints.edit`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from overlay import limits
from overlay.core.protocol.records import CustomRecord
from overlay.errors import UsageError
from overlay.model import LABEL_PREFIX, Endpoint, Ip, ip_text, parse_ip, valid_name

_PREFIX = LABEL_PREFIX + "dns."
_OWN = "own"  # the container's addresses, whatever they are


def label_key(name: str) -> str:
    """Return the key of the label that holds a name."""
    return _PREFIX + name.lower()


def label_of(name: str, ips: Iterable[Ip]) -> tuple[str, str]:
    """Return the label of a record; without addresses, it has those of the container.

    Raises UsageError for more addresses than a label holds.
    """
    texts = [ip_text(ip) for ip in ips]
    value = " ".join(texts) or _OWN
    if len(value) > limits.LABEL_SIZE_MAX:
        raise UsageError(
            f"{len(texts)} addresses are too many for a record of a container",
            why=f"it is part of the container's own record, and has at most "
            f"{limits.LABEL_SIZE_MAX} characters there",
            hint="Add some of the addresses under another name, or the record without a container",
            field="ips",
        )
    return label_key(name), value


def tied_records(endpoint: Endpoint) -> Iterator[CustomRecord]:
    """Yield the records of an endpoint's labels; labels that no agent writes are ignored."""
    for key, value in endpoint.labels:
        name = key.removeprefix(_PREFIX)
        if name == key or not valid_name(name):
            continue
        try:
            ips = tuple(map(parse_ip, value.split())) if value != _OWN else endpoint.ips
        except ValueError:
            continue
        yield CustomRecord(name, ips)
