"""Options of services, and the API fields they become.

Owns: the forms `[NAME=]PORT[:TARGET][/udp]`, `tcp` and `http:PATH`, and the word `none`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.cli.options.common import add_label_option, pairs
from overlay.errors import UsageError
from overlay.strict_arguments import Metavar

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from overlay.client.api import JsonObject
    from overlay.strict_arguments import StrictParser

NONE = "none"
BACKEND = Metavar("NAME", kind="endpoints")
WEIGHT_MAX = 100


def add_service_options(parser: StrictParser) -> None:
    """Add the options that a new service and a change of one have in common."""
    for option, dest, metavar, summary in (
        (
            "--port",
            "ports",
            "[NAME=]PORT[:TARGET][/udp]",
            "port, and the backends' own; repeatable",
        ),
        (
            "--selector",
            "selector",
            "KEY=VALUE",
            "label of its backends; repeatable: all of them",
        ),
        ("--backend", "backends", BACKEND, "a container that is a backend, by name; repeatable"),
        ("--weight", "weights", "NAME=N", f"its share, 0 (drained) to {WEIGHT_MAX} (default: 1)"),
        ("--drain", "drain", BACKEND, "give a backend no new connections; repeatable"),
    ):
        parser.add_argument(
            option, dest=dest, action="append", default=[], metavar=metavar, help=summary
        )
    parser.add_argument(
        "--affinity",
        choices=(NONE, "client"),
        help="client: all connections of one client address go to one backend",
    )
    _add_check_options(parser)
    _add_publish_options(parser)
    add_label_option(parser)


def _add_check_options(parser: StrictParser) -> None:
    parser.add_argument(
        "--check",
        metavar="tcp|http:PATH|exec:NAME|none",
        help="check each backend's port from its own host, and leave out those that fail",
    )
    for option, kind, metavar, summary in (
        ("--check-period", float, "SECONDS", "from one check to the next (default: 2)"),
        ("--check-timeout", float, "SECONDS", "how long an answer may take (default: 1)"),
        ("--check-threshold", int, "N", "results in a row that change the state (default: 3)"),
    ):
        parser.add_argument(option, type=kind, metavar=metavar, help=summary)


def _add_publish_options(parser: StrictParser) -> None:
    parser.add_argument(
        "--publish",
        action="append",
        default=[],
        metavar="HOST[:PORT][/udp]",
        help="port of every host that leads to the service's; repeatable",
    )
    parser.add_argument(
        "--mode",
        choices=("ingress", "host"),
        default="ingress",
        help="ingress: every host answers a published port; host: those with a backend",
    )
    parser.add_argument(
        "--source",
        dest="sources",
        action="append",
        default=[],
        metavar="CIDR",
        help="who may use the published ports; repeatable (default: anyone)",
    )


def service_fields(args: Namespace) -> JsonObject:
    """Return the API's fields for those options, but for options that were not given."""
    found: JsonObject = {
        "ports": _listed(args.ports, "ports", _ports),
        "selector": _mapped(args.selector, "selector", "app=web"),
        "backends": _listed(args.backends, "backends", list),
        "publish": _listed(args.publish, "publish", lambda texts: _publish(texts, args)),
        "labels": _mapped(args.labels, "labels", "team=a"),
        "weights": _weights(args.weights),
        "drain": args.drain or None,
        "affinity": args.affinity,
        "check": _check(args),
    }
    if args.sources and not args.publish:
        raise UsageError(
            "--source is given without --publish",
            why="it limits who may use published ports",
            hint="Give the ports as well: --publish 8080:80",
        )
    return {name: value for name, value in found.items() if value is not None}


def _listed(texts: Sequence[str], field: str, parse: object) -> object:
    """Return the parsed texts; None without any, and nothing for the word `none`."""
    if not texts:
        return None
    if NONE in texts:
        _require_alone(texts, field)
        return []
    assert callable(parse)
    return parse(texts)


def _mapped(texts: Sequence[str], field: str, example: str) -> dict[str, str] | None:
    if not texts:
        return None
    if NONE in texts:
        _require_alone(texts, field)
        return {}
    return pairs(texts, field, example=example)


def _require_alone(texts: Sequence[str], field: str) -> None:
    if len(texts) > 1:
        raise UsageError(
            f"{field}: {NONE} removes all, so nothing can be given beside it",
            hint="Leave one of them out",
            field=field,
        )


def _ports(texts: Sequence[str]) -> list[JsonObject]:
    from overlay.core.dataplane.published_port import parse_pairs  # noqa: PLC0415  rarely needed

    found: list[JsonObject] = []
    for text in texts:
        name, equals, numbers = text.rpartition("=")
        if not equals and text[:1].isalpha():
            raise UsageError(
                f"invalid port {text!r}",
                why="it begins with a number, or with a name and '='",
                hint="Such as 80:8080, 53/udp, or http=80:8080",
                field="ports",
            )
        parsed = parse_pairs(numbers, "ports", "PORT:TARGET")
        if equals and len(parsed) > 1:
            raise UsageError(
                f"a range of ports cannot have one name: {text!r}",
                hint="Name each port on its own",
                field="ports",
            )
        for protocol, port, target in parsed:
            made: JsonObject = {"port": port, "target": target, "protocol": protocol}
            found.append(made | ({"name": name} if equals else {}))
    return found


def _publish(texts: Sequence[str], args: Namespace) -> list[JsonObject]:
    from overlay.core.dataplane.published_port import parse_pairs  # noqa: PLC0415  rarely needed

    return [
        {
            "port": port,
            "service_port": service_port,
            "protocol": protocol,
            "mode": args.mode,
            "sources": args.sources,
        }
        for text in texts
        for protocol, port, service_port in parse_pairs(text, "publish", "HOST:PORT")
    ]


def _weights(texts: Sequence[str]) -> dict[str, int] | None:
    found: dict[str, int] = {}
    for name, text in pairs(texts, "weights", "NAME=N", "web1=3").items():
        if not (text.isascii() and text.isdecimal()) or int(text[:4]) > WEIGHT_MAX:
            raise UsageError(
                f"{text!r} is not a weight",
                why=f"a weight is a number from 0 to {WEIGHT_MAX}",
                hint="Such as --weight web1=3",
                field="weights",
            )
        found[name] = int(text)
    return found or None


def _check(args: Namespace) -> JsonObject | None:
    """Return the check; None without one."""
    times = {
        "period_s": args.check_period,
        "timeout_s": args.check_timeout,
        "threshold": args.check_threshold,
    }
    given = {name: value for name, value in times.items() if value is not None}
    if args.check in (None, NONE):
        if given:
            raise UsageError(
                "--check-period, --check-timeout and --check-threshold need a check",
                hint="Give it as well: --check tcp, or --check http:/health",
            )
        return None
    kind, colon, argument = args.check.partition(":")
    if kind not in ("tcp", "http", "exec") or (kind == "tcp" and colon):
        raise UsageError(
            f"{args.check!r} is not a check",
            hint="Use tcp, http:PATH such as http:/health, exec:NAME for a program in "
            "/etc/overlayd/checks, or none",
            field="check",
        )
    return {"kind": kind, "argument": argument, **given}
