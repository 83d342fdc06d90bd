"""Commands `service create`, `ls`, `inspect`, `set`, `ps` and `rm`.

Owns: their options and output. Does not: know which services are valid; the agent checks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.cli.options.filters import add_filter_option, filter_rows
from overlay.cli.options.lists import (
    add_format_option,
    add_list_options,
    print_one,
    print_rows,
)
from overlay.cli.options.removal import remove_all
from overlay.cli.options.services import BACKEND, NONE, add_service_options, service_fields
from overlay.client.api import ApiClient, JsonObject, segment
from overlay.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup

FILTERS = {"name": "name", "network": "network"}
CREATE_DESCRIPTION = """\
Create a service: one virtual address and one name for several containers of a network, its
backends, on whichever hosts they are.  stdout: the virtual addresses.

Backends are the containers with all the labels of --selector, and those named with --backend;
without both, those that have the service's name as an alias.  Creating the same service again
changes nothing.  Any host may change or remove it.

  sudo overlayd service create web --network blue --port 80:8080 --selector app=web
  sudo overlayd service create web --network blue --port http=80:8080 --check http:/health \\
       --publish 8080:80
  sudo overlayd service create dns --network blue --port 53/udp --backend ns1 --backend ns2
"""
SET_DESCRIPTION = """\
Change a service in place: its address and its connections stay.  What is not named stays as it
is.  --port, --selector, --backend, --publish and --label replace what was given before, and the
word none removes it.

  sudo overlayd service set web --drain web1
  sudo overlayd service set web --undrain web1 --weight web2=3
  sudo overlayd service set web --check none --publish none
"""
LS_HEADERS = ("NAME", "NETWORK", "ADDRESS", "PORTS", "READY", "PUBLISHED")
PS_HEADERS = ("NAME", "NODE", "ADDRESS", "WEIGHT", "STATE")


def register(words: VerbGroup) -> None:
    """Add the verbs of this module."""
    services = words.group("service", "create, change, list and remove services")
    create = services.verb("create", run_create, "create a service", CREATE_DESCRIPTION)
    create.add_argument("name", metavar="NAME", help="name of the service, unique in the cluster")
    create.add_argument(
        "--network", required=True, metavar="NETWORK", help="network of the backends"
    )
    add_service_options(create)
    create.add_argument(
        "--local-first", action="store_true", help="prefer backends on the client's own host"
    )
    create.add_argument(
        "--ip",
        dest="ips",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="virtual address (default: a free one); once for each family",
    )
    create.add_argument(
        "--dns-rr",
        action="store_true",
        help="no virtual address: the name has the addresses of the backends",
    )
    listed = services.verb("ls", run_ls, "list the services", watch=True)
    add_filter_option(listed, FILTERS)
    add_list_options(listed)
    inspect = services.verb("inspect", run_inspect, "show one service with its backends")
    inspect.add_argument("name", metavar="SERVICE")
    add_format_option(inspect)
    _register_set(services)
    backends = services.verb("ps", run_ps, "list the backends of a service", watch=True)
    backends.add_argument("name", metavar="SERVICE")
    add_list_options(backends)
    remove = services.verb("rm", run_rm, "remove services; their backends stay")
    remove.add_argument("names", nargs="+", metavar="SERVICE")


def _register_set(services: VerbGroup) -> None:
    changed = services.verb("set", run_set, "change a service in place", SET_DESCRIPTION)
    changed.add_argument("name", metavar="SERVICE")
    add_service_options(changed)
    changed.add_argument(
        "--undrain",
        action="append",
        default=[],
        metavar=BACKEND,
        help="give a drained backend new connections again; repeatable",
    )
    changed.add_argument(
        "--local-first",
        choices=("yes", "no"),
        help="whether backends on the client's own host are preferred",
    )


def run_create(args: Namespace) -> int:
    """Create a service."""
    if not args.ports:
        raise UsageError("no port given", hint="Such as --port 80:8080, or --port 53/udp")
    body = service_fields(args) | {
        "name": args.name,
        "network": args.network,
        "ips": args.ips,
        "local_first": args.local_first,
        "dns_rr": args.dns_rr,
    }
    made = ApiClient(args.paths).post("/v1/services", body)
    if args.json:
        output.print_json(made)
    elif made["ips"]:
        output.print_result("\n".join(made["ips"]))
    if not args.json and not made["created"]:
        output.print_note(f"service {made['name']} existed already")
    _warn(made)
    return 0


def run_set(args: Namespace) -> int:
    """Change a service."""
    body = service_fields(args)
    if args.undrain:
        body["undrain"] = args.undrain
    if args.local_first is not None:
        body["local_first"] = args.local_first == "yes"
    if args.check == NONE:
        body["no_check"] = True
    if not body:
        raise UsageError(
            "nothing to change was given", hint="Such as --drain NAME; see: overlayd service set -h"
        )
    done = ApiClient(args.paths).post(f"/v1/services/{segment(args.name)}", body)
    if args.json:
        output.print_json(done)
    else:
        changed = ", ".join(each.replace("_", " ") for each in done["changed"])
        output.print_note(f"{done['name']}: {f'changed {changed}' if changed else 'no change'}")
    _warn(done)
    return 0


def _warn(service: JsonObject) -> None:
    for text in service.get("warnings") or []:
        output.warn(
            f"{service['name']}: {text}",
            "The service takes it as soon as there is one; "
            f"'overlayd service ps {service['name']}' shows its backends",
        )


def run_ls(args: Namespace) -> int:
    """List the services."""
    listed = ApiClient(args.paths).get("/v1/services")
    listed["services"] = filter_rows(listed["services"], args.filters, FILTERS)
    if print_rows(args, listed, "services"):
        return 0
    for name in listed.get("elsewhere") or []:
        output.print_note(f"{name}: backends are not known here, as no container here is on it")
    if not listed["services"]:
        output.print_note(
            "no service matches the filter"
            if args.filters
            else "no services; to create one: overlayd service create NAME --network NETWORK "
            "--port PORT"
        )
        return 0
    rows = [
        (
            service["name"],
            service["network"] or "(removed)",
            service["ips"] or "(names of backends)",
            [port_text(port) for port in service["ports"]],
            f"{service['ready']}/{service['total']}",
            [publish_text(each) for each in service["publish"]],
        )
        for service in listed["services"]
    ]
    output.print_result(output.table(LS_HEADERS, rows, show_header=not args.no_header))
    return 0


def port_text(port: JsonObject) -> str:
    """Return a port as it is typed: `http=80:8080`, `53/udp`."""
    numbers = str(port["port"])
    if port["target"] != port["port"]:
        numbers += f":{port['target']}"
    name = f"{port['name']}=" if port.get("name") else ""
    return name + numbers + ("/udp" if port["protocol"] == "udp" else "")


def publish_text(published: JsonObject) -> str:
    """Return a published port: `8080:80`, with its mode and sources where they matter."""
    text = f"{published['port']}:{published['service_port']}"
    text += "/udp" if published["protocol"] == "udp" else ""
    return text + (" (host)" if published["mode"] == "host" else "")


def run_inspect(args: Namespace) -> int:
    """Show one service."""
    shown = ApiClient(args.paths).get(f"/v1/services/{segment(args.name)}")
    print_one(args, shown, inspect_text)
    return 0


def inspect_text(service: JsonObject) -> str:
    """Return the details of one service, for people."""
    published = "\n".join(
        publish_text(each) + (f"  from {' '.join(each['sources'])}" if each["sources"] else "")
        for each in service["publish"]
    )
    labels = " ".join(f"{key}={value}" for key, value in service["labels"].items())
    text = output.key_value_lines(
        [
            ("Service", service["name"]),
            ("Network", service["network"] or "(removed)"),
            ("Addresses", " ".join(service["ips"]) or "none: its name has those of the backends"),
            ("Ports", " ".join(map(port_text, service["ports"]))),
            ("Backends", _chosen_text(service)),
            ("Check", _check_text(service["check"])),
            ("Affinity", service["affinity"]),
            ("Local first", "yes" if service["local_first"] else "no"),
            ("Connections", _way_text(service)),
            ("Published", published or output.ABSENT),
            ("Labels", labels or output.ABSENT),
            ("Ready", f"{service['ready']} of {service['total']}"),
        ]
    )
    if not service["backend_list"]:
        return text
    return f"{text}\n\n{output.table(PS_HEADERS, _backend_rows(service))}"


def _way_text(service: JsonObject) -> str:
    """Return how this host's connections reach a backend."""
    if not service["ips"]:
        return "to the backends' own addresses"
    if "translated_why" not in service:
        return output.ABSENT  # an agent of before
    why = service["translated_why"]
    return f"translated: {why}" if why else "led to a backend as they begin (TCP)"


def _chosen_text(service: JsonObject) -> str:
    selector = " and ".join(f"{key}={value}" for key, value in service["selector"].items())
    parts = [f"label {selector}"] if selector else []
    parts += [f"named {' '.join(service['backends'])}"] if service["backends"] else []
    return " or ".join(parts) or f"alias {service['name']}"


def _check_text(check: JsonObject | None) -> str:
    if check is None:
        return output.ABSENT
    argument = f" {check['argument']}" if check["argument"] else ""
    return (
        f"{check['kind']}{argument} every {check['period_s']:g} s, at most "
        f"{check['timeout_s']:g} s, {check['threshold']} in a row"
    )


def _backend_rows(service: JsonObject) -> list[tuple[object, ...]]:
    return [
        (each["name"], each["node"], each["ips"], each["weight"], _state_text(each))
        for each in service["backend_list"]
    ]


def _state_text(backend: JsonObject) -> str:
    state, problem = str(backend["state"]), backend.get("problem")
    return f"{state}: {problem}" if problem and state == "unhealthy" else state


def run_ps(args: Namespace) -> int:
    """List a service's backends."""
    shown = ApiClient(args.paths).get(f"/v1/services/{segment(args.name)}")
    if print_rows(args, shown, "backend_list"):
        return 0
    if not shown["backend_list"]:
        output.print_note(f"{shown['name']} has no backends: {_chosen_text(shown)}")
        return 0
    rows = _backend_rows(shown)
    output.print_result(output.table(PS_HEADERS, rows, show_header=not args.no_header))
    return 0


def run_rm(args: Namespace) -> int:
    """Remove services, one by one."""
    return remove_all(args, "/v1/services", "overlayd.service-rm/v1", args.names)
