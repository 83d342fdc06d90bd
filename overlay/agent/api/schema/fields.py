"""Reading a request's fields: the one place that checks their types.

Every function raises UsageError that bears the field and says what is expected.
"""

from __future__ import annotations

import math
import re
from typing import Any

from overlay import limits
from overlay.errors import UsageError
from overlay.model import (
    LABEL_PREFIX,
    PORT_SECURITY_OFF_LABEL,
    Ip,
    Mac,
    ip_text,
    parse_ip,
    parse_mac,
    valid_name,
)

# What the kernel takes (dev_valid_name), of ASCII; '%' it takes for the place of a number, and the
# last two are directories of its sysctls.
_INTERFACE = re.compile(rf"[!-$&-.0-9;-~]{{1,{limits.INTERFACE_NAME_LENGTH_MAX}}}")
_RESERVED_INTERFACES = (".", "..", "lo", "all", "default")


def refuse_unknown_fields(body: dict[str, Any], *known: str) -> None:
    """Refuse fields that this verb does not have."""
    unknown = sorted(set(body) - set(known))
    if unknown:
        raise UsageError(
            f"unknown field {unknown[0]!r}",
            hint=f"This request takes: {', '.join(known) or 'nothing'}",
            field=unknown[0],
        )


def _wrong(field: str, how: str) -> UsageError:
    """Return the error that begins with the field's name."""
    return UsageError(f"{field} {how}", field=field)


def text(body: dict[str, Any], field: str) -> str | None:
    """Return an optional text."""
    value = body.get(field)
    if value is None:
        return None
    if not _is_text(value):
        raise _wrong(field, f"must be a text, not {value!r}")
    return str(value)


def _is_text(value: Any) -> bool:
    """Say whether a value is text that records and terminals can have: no control characters."""
    if not isinstance(value, str):
        return False
    return 0 < len(value) <= limits.API_TEXT_LENGTH_MAX and value.isprintable()


def secret(body: dict[str, Any], field: str) -> str | None:
    """Return an optional text that no error repeats."""
    value, length_max = body.get(field), limits.API_TEXT_LENGTH_MAX
    if value is not None and (not isinstance(value, str) or not 0 < len(value) <= length_max):
        raise _wrong(field, f"must be a text of at most {length_max} characters")
    return value


def required_text(body: dict[str, Any], field: str) -> str:
    """Return a text that must be there."""
    value = text(body, field)
    if value is None:
        raise _wrong(field, "is missing")
    return value


def texts(body: dict[str, Any], field: str, count_max: int) -> list[str]:
    """Return a list of texts, empty by default."""
    value = body.get(field)
    if value is None:
        return []
    if not isinstance(value, list) or not all(_is_text(item) for item in value):
        raise _wrong(field, "must be a list of texts")
    if len(value) > count_max:
        raise _wrong(field, f"has {len(value)} items; {count_max} is the limit")
    return value


def flag(body: dict[str, Any], field: str, *, default: bool = False) -> bool:
    """Return a truth value."""
    value = body.get(field)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise _wrong(field, "must be true or false")
    return value


def query_flag(query: dict[str, Any], field: str) -> bool:
    """Return a parameter of a query that is `1` or `0`, the default."""
    value = query.get(field, "0")
    if value not in ("0", "1"):
        raise _wrong(field, f"must be 0 or 1, not {value!r}")
    return bool(value == "1")


def query_time(query: dict[str, Any], field: str) -> float:
    """Return a parameter of a query that is seconds since 1970, 0 by default."""
    value = query.get(field, "0")
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise _wrong(field, f"must be seconds since 1970, not {value!r}")
    return found


def number(body: dict[str, Any], field: str, low: int, high: int) -> int | None:
    """Return an optional whole number in `[low, high]`."""
    value = body.get(field)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise _wrong(field, f"must be a whole number from {low} to {high}, not {value!r}")
    return value


def name(body: dict[str, Any], field: str) -> str | None:
    """Return an optional name of a network, node or endpoint."""
    value = text(body, field)
    return None if value is None else _name(field, value)


def required_name(body: dict[str, Any], field: str) -> str:
    """Return a name that must be there."""
    return _name(field, required_text(body, field))


def names(body: dict[str, Any], field: str, count_max: int) -> tuple[str, ...]:
    """Return a list of names, empty by default."""
    return tuple(_name(field, each) for each in texts(body, field, count_max))


def _name(field: str, value: str) -> str:
    if valid_name(value):
        return value
    raise UsageError(
        f"{value!r} cannot be a name",
        why=f"a name is up to {limits.NAME_LENGTH_MAX} letters, digits, '-', '_' and '.', "
        "and starts and ends with a letter or digit",
        field=field,
    )


def ip(body: dict[str, Any], field: str) -> Ip | None:
    """Return an optional address."""
    value = text(body, field)
    if value is None:
        return None
    try:
        return parse_ip(value)
    except ValueError as error:
        raise UsageError(
            f"{value!r} is not an IP address", hint="Such as 10.32.0.5, or fd40::5", field=field
        ) from error


def ips(body: dict[str, Any], field: str, count_max: int) -> tuple[Ip, ...]:
    """Return addresses without repetition, none by default."""
    found = [ip({field: item}, field) for item in texts(body, field, count_max)]
    return tuple(dict.fromkeys(each for each in found if each is not None))


def mac(body: dict[str, Any], field: str) -> Mac | None:
    """Return an optional unicast MAC."""
    value = text(body, field)
    if value is None:
        return None
    try:
        parsed = parse_mac(value)
    except ValueError as error:
        raise UsageError(
            f"{value!r} is not a MAC address", hint="Such as 02:00:00:00:00:01", field=field
        ) from error
    if parsed[0] & 1 or not any(parsed):
        raise UsageError(
            f"{value} cannot be a container's MAC",
            why="it is no unicast address",
            hint="The first byte is even, such as 02:00:00:00:00:01",
            field=field,
        )
    return parsed


def labels(body: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return labels, sorted by key."""
    found = texts_by_name(body, "labels", limits.LABEL_COUNT_MAX)
    for key, _ in found:
        if key.startswith(LABEL_PREFIX):
            raise UsageError(
                f"label {key!r} is overlayd's own",
                hint="Choose another name for it",
                field="labels",
            )
    return found


def labels_with_security(body: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return labels, with our own where port security is not wanted."""
    found = labels(body)
    if flag(body, "port_security", default=True):
        return found
    if len(found) >= limits.LABEL_COUNT_MAX:
        raise UsageError(
            f"without port security there can be {limits.LABEL_COUNT_MAX - 1} labels",
            why="one of overlayd's own says so",
            field="labels",
        )
    return tuple(sorted([*found, PORT_SECURITY_OFF_LABEL]))


def ifname(body: dict[str, Any]) -> str | None:
    """Return an optional name of an interface."""
    value = text(body, "ifname")
    if value is None:
        return None
    if value in _RESERVED_INTERFACES or not _INTERFACE.fullmatch(value):
        raise UsageError(
            f"{value!r} cannot be an interface's name",
            why=f"it has at most {limits.INTERFACE_NAME_LENGTH_MAX} characters of ASCII, none of "
            f"them '/', ':', '%' or a space, and is none of {', '.join(_RESERVED_INTERFACES)}",
            hint="Such as eth1; left out, it is the next free one",
            field="ifname",
        )
    return value


def wait_flag(body: dict[str, Any]) -> bool:
    """Return whether to wait for the other nodes."""
    value = body.get("wait")
    if value not in (None, "all", "none"):
        raise _wrong("wait", f"must be 'all' or 'none', not {value!r}")
    return value != "none"


def rates(body: dict[str, Any]) -> tuple[int | None, int | None]:
    """Return the limits asked for, in and out: None where none is named; 0 lifts one."""
    return _rate(body, "rate_in"), _rate(body, "rate_out")


def _rate(body: dict[str, Any], field: str) -> int | None:
    low = limits.RATE_MIN_BITS
    bits = number(body, field, 0, limits.RATE_MAX_BITS)
    if bits is not None and 0 < bits < low:
        raise UsageError(
            f"a rate of {bits} bit/s is too low", hint=f"At least {low} bit/s", field=field
        )
    return bits


def gateway_priority(body: dict[str, Any]) -> int | None:
    """Return the say in the default route that is asked for."""
    top = limits.GATEWAY_PRIORITY_MAX
    found = number(body, "gateway_priority", -top, top)
    if found is not None and not flag(body, "default_route", default=True):
        raise UsageError(
            "gateway_priority and default_route contradict each other",
            why="who has no default route by a network has no say in it there",
            hint="Leave one of them out",
            field="gateway_priority",
        )
    return found


def texts_by_name(body: dict[str, Any], field: str, count_max: int) -> tuple[tuple[str, str], ...]:
    """Return an object's texts, sorted by name."""
    value = body.get(field)
    if value is None:
        return ()
    if not isinstance(value, dict) or len(value) > count_max:
        raise _wrong(field, f"must be an object of at most {count_max} texts")
    for key, item in value.items():
        is_text = isinstance(item, str) and (key + item).isprintable()
        if not is_text or len((key + item).encode()) > limits.LABEL_SIZE_MAX:
            raise UsageError(
                f"{key!r} must be a text without control characters",
                why=f"name and value have at most {limits.LABEL_SIZE_MAX} bytes together",
                field=field,
            )
    return tuple(sorted(value.items()))


def ip_texts(ips: tuple[Ip, ...]) -> list[str]:
    """Return addresses as JSON has them."""
    return [ip_text(item) for item in ips]
