"""Commands `policy create`, `ls`, `inspect`, `set`, `rm` and `test`.

Owns: their options and output. Does not: know which policies are valid, or decide; the agent does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.cli.options.common import add_label_option, pairs
from overlay.cli.options.filters import add_filter_option, filter_rows
from overlay.cli.options.lists import (
    add_format_option,
    add_list_options,
    print_one,
    print_rows,
)
from overlay.cli.options.removal import remove_all
from overlay.client.api import ApiClient, JsonObject, segment
from overlay.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup
    from overlay.strict_arguments import StrictParser

DENIED = 9  # the exit code of `policy test` for a connection that is denied
NONE = "none"
FILTERS = {"name": "name", "network": "network", "action": "action"}
CREATE_DESCRIPTION = """\
Create a policy: new connections of a network from any of its sources to any of its destinations,
on any of its ports, are allowed or denied, on every host.  Answers of an allowed connection pass.

A denying policy that matches wins; else an allowing one; else the network's default, which is to
allow, or with 'network create --default-deny' to deny.  Their order does not matter.  Gateways
always answer DNS and DHCP.

PEER is label=KEY[=VALUE] or name=NAME (containers of the network), host (the hosts' own addresses
on it, and its gateways), world (addresses outside the cluster), cidr:RANGE or network:NAME.
Without --from, --to or --port it is about all sources, destinations or ports.  Creating the same
policy again changes nothing.

  sudo overlayd policy create db --network blue --from label=app=web --to label=app=db \\
       --port 5432/tcp
  sudo overlayd policy create no-mail --network blue --deny --to world --port 25/tcp --log
"""
SET_DESCRIPTION = """\
Change a policy in place.  What is not named stays as it is.  --from, --to, --port and --label
replace what was given before, and the word none removes it: the policy is then about all of them.

  sudo overlayd policy set db --port 5432/tcp --port 5433/tcp
  sudo overlayd policy set no-mail --log off
"""
TEST_DESCRIPTION = """\
Say whether a new connection from A to B is allowed, and which policy decides, from the records.
An end is the name of a container or any address.  Exits with 0 if it is allowed, 9 if it is
denied.  'overlayd trace' shows what the hosts really do.

  overlayd policy test web db --port 5432/tcp
  overlayd policy test web 1.1.1.1 --port 443/tcp --json
"""
DENIED_HEADERS = ("FROM", "TO", "PORT", "PACKETS")
LS_HEADERS = ("NAME", "NETWORK", "ACTION", "FROM", "TO", "PORTS", "LOG", "ALLOWED", "DENIED")


def register(words: VerbGroup) -> None:
    """Add the verbs of this module."""
    policies = words.group("policy", "say which containers may open connections to which")
    create = policies.verb("create", run_create, "create a policy", CREATE_DESCRIPTION)
    create.add_argument("name", metavar="NAME", help="name of the policy, unique in the cluster")
    create.add_argument(
        "--network", required=True, metavar="NETWORK", help="network that it is about"
    )
    _add_options(create)
    create.add_argument(
        "--log", action="store_true", help="sample what it denies, for 'policy inspect' and events"
    )
    listed = policies.verb("ls", run_ls, "list the policies", watch=True)
    add_filter_option(listed, FILTERS)
    add_list_options(listed)
    inspect = policies.verb("inspect", run_inspect, "show one policy, and whom it selects now")
    inspect.add_argument("name", metavar="POLICY")
    add_format_option(inspect)
    changed = policies.verb("set", run_set, "change a policy in place", SET_DESCRIPTION)
    changed.add_argument("name", metavar="POLICY")
    _add_options(changed)
    changed.add_argument("--log", choices=("on", "off"), help="whether what it denies is sampled")
    remove = policies.verb("rm", run_rm, "remove policies")
    remove.add_argument("names", nargs="+", metavar="POLICY")
    _register_test(policies)


def _add_options(parser: StrictParser) -> None:
    action = parser.add_mutually_exclusive_group()
    for word, summary in (
        ("allow", "allow these connections (the default)"),
        ("deny", "deny these connections"),
    ):
        action.add_argument(
            f"--{word}", dest="action", action="store_const", const=word, help=summary
        )
    for option, dest, metavar, summary in (
        ("--from", "sources", "PEER", "who opens the connection; repeatable: any of them"),
        ("--to", "destinations", "PEER", "to whom; repeatable: any of them"),
        (
            "--port",
            "ports",
            "PORT[-PORT]/PROTO",
            "destination port, such as 5432/tcp, 8000-8100/udp, tcp or icmp; repeatable",
        ),
    ):
        parser.add_argument(
            option, dest=dest, action="append", default=[], metavar=metavar, help=summary
        )
    add_label_option(parser)


def _register_test(policies: VerbGroup) -> None:
    test = policies.verb(
        "test", run_test, "say whether a connection is allowed, and why", TEST_DESCRIPTION
    )
    test.add_argument("source", metavar="ENDPOINT", help="A: name, alias or address")
    test.add_argument("target", metavar="ENDPOINT", help="B: the same")
    test.add_argument(
        "--port", metavar="PORT/PROTO", help="such as 5432/tcp or icmp (default: icmp)"
    )
    test.add_argument("--network", metavar="NETWORK", help="where names are on several")
    family = test.add_mutually_exclusive_group()
    family.add_argument("-4", dest="family", action="store_const", const="4", help="IPv4 only")
    family.add_argument("-6", dest="family", action="store_const", const="6", help="IPv6 only")


def _given(args: Namespace, *, changes: bool) -> JsonObject:
    """Return the fields that options were given for; a change may remove what there was."""
    nothing = [NONE] if changes else []
    body: JsonObject = {}
    if args.action is not None:
        body["action"] = args.action
    for field, values in (
        ("from", args.sources),
        ("to", args.destinations),
        ("ports", args.ports),
    ):
        if values:
            body[field] = [] if values == nothing else values
    if args.labels:
        body["labels"] = {} if args.labels == nothing else pairs(args.labels, "labels")
    return body


def run_create(args: Namespace) -> int:
    """Create a policy."""
    body = _given(args, changes=False) | {
        "name": args.name,
        "network": args.network,
        "log": args.log,
    }
    made = ApiClient(args.paths).post("/v1/policies", body)
    if args.json:
        output.print_json(made)
    else:
        output.print_result(sentence(made))
        if not made["created"]:
            output.print_note(f"policy {made['name']} existed already")
    _print_notes(made)
    return 0


def run_set(args: Namespace) -> int:
    """Change a policy."""
    body = _given(args, changes=True)
    if args.log is not None:
        body["log"] = args.log == "on"
    if not body:
        raise UsageError(
            "nothing to change was given",
            hint="Such as --port 5432/tcp; see: overlayd policy set -h",
        )
    done = ApiClient(args.paths).post(f"/v1/policies/{segment(args.name)}", body)
    if args.json:
        output.print_json(done)
    else:
        output.print_result(sentence(done))
        output.print_note(
            f"changed {', '.join(done['changed'])}" if done["changed"] else "no change"
        )
    _print_notes(done)
    return 0


def _print_notes(policy: JsonObject) -> None:
    for text in policy.get("notes") or []:
        output.print_note(f"{policy['name']}: {text}")


def sentence(policy: JsonObject) -> str:
    """Return what a policy does, such as `db  blue  allow label=web to label=db, 5432/tcp`."""
    ports = f", {' '.join(policy['ports'])}" if policy["ports"] else ""
    log = ", log" if policy["log"] else ""
    return (
        f"{policy['name']}  {policy['network'] or '(removed)'}  {policy['action']} "
        f"{_any(policy['from'])} to {_any(policy['to'])}{ports}{log}"
    )


def _any(peers: list[str]) -> str:
    return " ".join(peers) or "any"


def run_ls(args: Namespace) -> int:
    """List the policies."""
    listed = ApiClient(args.paths).get("/v1/policies")
    listed["policies"] = filter_rows(listed["policies"], args.filters, FILTERS)
    if print_rows(args, listed, "policies"):
        return 0
    denying = listed["default_deny"]
    output.print_note(
        f"denied unless a policy allows it: new connections on {', '.join(denying)}"
        if denying
        else "allowed unless a policy denies it: new connections on all networks"
    )
    if not listed["policies"]:
        output.print_note(
            "no policy matches the filter"
            if args.filters
            else "no policies; to create one: overlayd policy create NAME --network NETWORK "
            "--from PEER --to PEER"
        )
        return 0
    rows = [
        (
            each["name"],
            each["network"] or "(removed)",
            each["action"],
            each["from"] or "any",
            each["to"] or "any",
            each["ports"] or "any",
            "yes" if each["log"] else output.ABSENT,
            _count(each["allowed_connections"]),
            _count(each["denied_packets"]),
        )
        for each in listed["policies"]
    ]
    output.print_result(output.table(LS_HEADERS, rows, show_header=not args.no_header))
    return 0


def run_inspect(args: Namespace) -> int:
    """Show one policy."""
    shown = ApiClient(args.paths).get(f"/v1/policies/{segment(args.name)}")
    if print_one(args, shown, inspect_text):
        _print_notes(shown)
    return 0


def inspect_text(policy: JsonObject) -> str:
    """Return the details of one policy, for people."""
    labels = " ".join(f"{key}={value}" for key, value in policy["labels"].items())
    text = output.key_value_lines(
        [
            ("Policy", policy["name"]),
            ("Network", policy["network"] or "(removed)"),
            ("Action", policy["action"]),
            ("From", _side(policy["from"], policy["sources_now"])),
            ("To", _side(policy["to"], policy["destinations_now"])),
            ("Ports", " ".join(policy["ports"]) or "any"),
            ("Log", "yes" if policy["log"] else "no"),
            ("Labels", labels or output.ABSENT),
            ("Allowed", _here(policy["allowed_connections"], "connection")),
            ("Denied", _here(policy["denied_packets"], "packet")),
        ]
    )
    if not policy["denied"]:
        return text
    rows = [
        (_end(each["source"]), _end(each["target"]), _port_text(each), each["packets"])
        for each in policy["denied"]
    ]
    return f"{text}\n\n{output.table(DENIED_HEADERS, rows)}"


def _count(value: int | None) -> str:
    return output.ABSENT if value is None else str(value)


def _here(value: int | None, noun: str) -> str:
    if value is None:
        return "not known here: no container of this host is on the network"
    return f"{output.count_text(value, noun)} on this host, since its agent's start"


def _side(peers: list[str], selected: list[str]) -> str:
    text = " ".join(peers) or "any"
    if selected and peers:
        return f"{text}\nnow: {' '.join(selected)}"
    names_containers = any(peer.startswith(("label=", "name=")) for peer in peers)
    return f"{text}\nnow: no container of the network" if names_containers else text


def run_rm(args: Namespace) -> int:
    """Remove policies, one by one."""
    return remove_all(args, "/v1/policies", "overlayd.policy-rm/v1", args.names)


def run_test(args: Namespace) -> int:
    """Say whether a connection is allowed."""
    found = ApiClient(args.paths).get(
        "/v1/policy/test",
        source=args.source,
        target=args.target,
        network=args.network,
        family=args.family,
        port=args.port,
    )
    if args.json:
        output.print_json(found)
    else:
        output.print_result(decision_text(found))
    return 0 if found["allowed"] else DENIED


def decision_text(found: JsonObject) -> str:
    """Return the decision about a connection in one line."""
    verb = "allowed" if found["allowed"] else "denied"
    ends = f"{_end(found['source'])} to {_end(found['target'])}"
    decisions = found.get("decisions") or [found]
    why = "; ".join(f"network {each['network']}: {_basis(each)}" for each in decisions)
    return f"{verb}  {ends}, {_port_text(found)}, {why}"


def _port_text(found: JsonObject) -> str:
    protocol = str(found["protocol"])
    return protocol if found["port"] is None else f"{found['port']}/{protocol}"


def _basis(found: JsonObject) -> str:
    match found["basis"]:
        case "policy":
            return f"policy {found['policy']}"
        case "always":
            return "a gateway always answers it"
    return f"no policy is about it, and the network's default is to {found['default']}"


def _end(end: JsonObject) -> str:
    return end["ip"] if end["name"] is None else f"{end['name']} ({end['ip']})"
