"""Field types that several requests share: texts, names, addresses, ports, labels, rates.

Owns: what a field may hold, stated once. The decoder refuses everything else and words the error
(`decoder`); the OpenAPI document shows the same bounds (`openapi`).
Does not: know any request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from msgspec import Meta, Struct, field

from overlay import limits
from overlay.core.dataplane.controls.ethertypes import parse_ethertypes
from overlay.core.dataplane.controls.priority import parse_priority
from overlay.errors import UsageError
from overlay.model import (
    GATEWAY_MAC_PREFIX,
    LABEL_PREFIX,
    NAME_PATTERN,
    PORT_SECURITY_OFF_LABEL,
    Ip,
    Mac,
    parse_ip,
    parse_mac,
)

if TYPE_CHECKING:
    Address: TypeAlias = Ip
    UnicastMac: TypeAlias = Mac
else:
    # A NewType is its base class at run time. The decoder needs classes of their own to know that
    # these fields are texts in JSON, which `convert_custom` packs.

    class Address(bytes):
        """A packed IP address, text in JSON."""

    class UnicastMac(bytes):
        """A packed unicast MAC other than a gateway's; text in JSON."""


SECRET = "secret"  # noqa: S105 - the mark of a field whose value no error repeats
# An even first byte, but not that of the gateways.
_MAC_PATTERN = "^([1-9a-fA-F][02468aceACE]|0[0248aceACE])(:[0-9a-fA-F]{2}){5}$"
_RESERVED_INTERFACE_NAMES = (".", "..", "lo", "all", "default")  # directories of sysctls, and lo
_RESERVED = "|".join(name.replace(".", "\\.") for name in _RESERVED_INTERFACE_NAMES)

Text = Annotated[str, Meta(min_length=1, max_length=limits.API_TEXT_LENGTH_MAX)]
SecretText = Annotated[
    str, Meta(min_length=1, max_length=limits.API_TEXT_LENGTH_MAX, extra={SECRET: True})
]
Name = Annotated[
    str,
    Meta(
        pattern=f"^{NAME_PATTERN.pattern.replace('a-z', 'a-zA-Z')}$",
        max_length=limits.NAME_LENGTH_MAX,
        title="name",
        description=f"a name has up to {limits.NAME_LENGTH_MAX} letters, digits, '-', '_' and '.', "
        "and starts and ends with a letter or digit",
    ),
]
InterfaceName = Annotated[  # the kernel's dev_valid_name, in ASCII and without '%'
    str,
    Meta(
        pattern=f"^(?!({_RESERVED})$)[!-$&-.0-9;-~]+$",
        max_length=limits.INTERFACE_NAME_LENGTH_MAX,
        title="interface name",
        description="an interface name has up to "
        f"{limits.INTERFACE_NAME_LENGTH_MAX} ASCII characters, none of them '/', ':', '%' or a "
        f"space, and is none of {', '.join(_RESERVED_INTERFACE_NAMES)}",
        examples=["eth1"],
    ),
]
ResolverWord = Annotated[
    str,
    Meta(
        pattern="^[A-Za-z0-9_.:-]+$",
        max_length=limits.TEXT_SIZE_MAX,
        title="word of resolv.conf",
        description=f"a word has up to {limits.TEXT_SIZE_MAX} letters, digits, "
        "'.', ':', '_' and '-'; several words are several items",
    ),
]
Port = Annotated[int, Meta(ge=1, le=65535)]
Rate = Annotated[  # bits per second; 0 removes the limit
    int,
    Meta(
        ge=0,
        le=limits.RATE_MAX_BITS,
        title="rate",
        description=f"a rate is {limits.RATE_MIN_BITS} to {limits.RATE_MAX_BITS} bits per second, "
        "or 0 for no limit",
        extra_json_schema={"anyOf": [{"const": 0}, {"minimum": limits.RATE_MIN_BITS}]},
    ),
]
Storm = Annotated[  # frames per second; 0 removes the limit
    int,
    Meta(
        ge=0,
        le=limits.STORM_MAX,
        title="storm",
        description=f"a limit is {limits.STORM_MIN} to {limits.STORM_MAX} frames per second, or 0 "
        "for none",
        extra_json_schema={"anyOf": [{"const": 0}, {"minimum": limits.STORM_MIN}]},
    ),
]
Labels = Annotated[
    dict[str, Annotated[str, Meta(max_length=limits.LABEL_SIZE_MAX)]],
    Meta(max_length=limits.LABEL_COUNT_MAX),
]
NetworkNames = Annotated[tuple[Text, ...], Meta(max_length=limits.API_NETWORKS_MAX)]


class Request(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of a request."""


class EmptyRequest(Request, frozen=True, kw_only=True):
    """No fields."""


class NetworkFilter(Request, frozen=True, kw_only=True):
    """One network; all of them without it."""

    network: Text | None = None


class LabeledRequest(Request, frozen=True, kw_only=True):
    """Labels, and whether port security is on, which is stored as a label."""

    labels: Labels = field(default_factory=dict)
    port_security: bool = True

    def __post_init__(self) -> None:
        """Raise UsageError for reserved or oversized labels, and for too many."""
        require_labels(self.labels, "labels")
        if len(self.labels) >= limits.LABEL_COUNT_MAX and not self.port_security:
            raise UsageError(
                f"without port security there can be only {limits.LABEL_COUNT_MAX - 1} labels",
                why="overlayd stores that port security is off as a label",
                hint="Remove one of the labels",
                field="labels",
            )

    def all_labels(self) -> tuple[tuple[str, str], ...]:
        """Return the labels sorted by name, with overlayd's own if port security is off."""
        off = () if self.port_security else (PORT_SECURITY_OFF_LABEL,)
        return tuple(sorted((*self.labels.items(), *off)))


def require_labels(labels: dict[str, str], field: str) -> None:
    """Raise UsageError for a label that is reserved or too long."""
    require_fitting_texts(labels, field)
    for key in labels:
        if key.startswith(LABEL_PREFIX):
            raise UsageError(
                f"label {key!r} is reserved for overlayd",
                hint="Choose another name for it",
                field=field,
            )


def require_fitting_texts(texts: dict[str, str], field: str) -> None:
    """Raise UsageError if a name and its text are too large for a record together."""
    for key, text in texts.items():
        if len((key + text).encode()) > limits.LABEL_SIZE_MAX:
            raise UsageError(
                f"{field}: {key!r} is too long",
                why=f"a name and its value have at most {limits.LABEL_SIZE_MAX} bytes together",
                hint="Shorten the name or the value",
                field=field,
            )


def require_rate(bits: int | None, field: str) -> None:
    """Raise UsageError for a rate below the lowest that works; None and 0 are allowed."""
    if bits is not None and 0 < bits < limits.RATE_MIN_BITS:
        raise UsageError(
            f"{field}: a rate of {bits} bit/s is too low",
            hint=f"Use at least {limits.RATE_MIN_BITS} bit/s, or 0 for no limit",
            field=field,
        )


def require_ethertypes(text: str | None) -> None:
    """Raise UsageError for a text that names no EtherTypes that can be allowed."""
    if text is not None:
        parse_ethertypes(text, "allow_non_ip")


def require_priority(text: str | None) -> None:
    """Raise UsageError for an invalid priority."""
    if text is not None:
        parse_priority(text, "priority")


def require_storm(per_second: int | None) -> None:
    """Raise UsageError for a limit below the lowest that works; None and 0 are allowed."""
    if per_second is not None and 0 < per_second < limits.STORM_MIN:
        raise UsageError(
            f"storm: a limit of {per_second} frames a second is too low",
            why="a container announces its address and asks for others' by such frames",
            hint=f"Use at least {limits.STORM_MIN}, or 0 for no limit",
            field="storm",
        )


class InvalidFieldError(ValueError):
    """A text that its field type refuses; the decoder adds where it was."""

    def __init__(self, what: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.hint = what, why, hint


def convert_custom(kind: Any, value: Any) -> Any:
    """Return a field of a custom type, packed; raises InvalidFieldError (msgspec's `dec_hook`)."""
    if kind is Address:
        return Address(_parsed_address(value))
    assert kind is UnicastMac, f"no field type {kind}"
    return UnicastMac(_parsed_mac(value))


def custom_schema(kind: Any) -> dict[str, Any]:
    """Return the JSON Schema of a custom type (msgspec's `schema_hook`)."""
    if kind is Address:
        return {
            "type": "string",
            "minLength": 1,
            "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}],
        }
    assert kind is UnicastMac, f"no field type {kind}"
    return {"type": "string", "pattern": _MAC_PATTERN}


def _parsed_address(value: Any) -> Ip:
    try:
        return parse_ip(_text(value))
    except ValueError as error:
        raise InvalidFieldError(
            f"{shown(value)} is not an IP address", hint="Such as 10.32.0.5, or fd40::5"
        ) from error


def _parsed_mac(value: Any) -> Mac:
    try:
        mac = parse_mac(_text(value))
    except ValueError as error:
        raise InvalidFieldError(
            f"{shown(value)} is not a MAC address", hint="Such as 02:00:00:00:00:01"
        ) from error
    if mac[0] & 1 or not any(mac):
        raise InvalidFieldError(
            f"{shown(value)} cannot be the MAC of a container",
            why="it is not a unicast address",
            hint="The first byte must be even, as in 02:00:00:00:00:01",
        )
    if mac.startswith(GATEWAY_MAC_PREFIX):
        raise InvalidFieldError(
            f"{shown(value)} cannot be the MAC of a container",
            why="MACs that begin with 06 are for the gateways of networks",
            hint="Choose one with another first byte, as in 02:00:00:00:00:01",
        )
    return mac


def _text(value: Any) -> str:
    """Return a text that can be an address; raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(type(value).__name__)  # noqa: TRY004 - what the callers handle
    return value


def shown(value: Any) -> str:
    """Return a JSON value as an error shows it: short, and lists and objects by their size."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= limits.TEXT_SIZE_MAX else f"{text[: limits.TEXT_SIZE_MAX]}..."
