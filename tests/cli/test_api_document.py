"""docs/API.md agrees with the command line, which shows each example, and with the routes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jsonschema_rs
import pytest
from overlay.errors import ERROR_BY_CODE
from tests.strict_schema import closed_schema

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run

TEXT = (Path(__file__).parents[2] / "docs" / "API.md").read_text(encoding="utf-8")
SECTION = re.compile(r"^### ((?:GET|POST|DELETE) \S+)\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
EXAMPLE = re.compile(r"^```json\n(.*?)^```", re.MULTILINE | re.DOTALL)
UNSHOWN = ("GET /metrics", "GET /v1/openapi.json")  # answers without an example
ANSWERS: dict[str, dict[str, Any]] = {
    line: json.loads(EXAMPLE.findall(text)[0])
    for line, text in SECTION.findall(TEXT)
    if line not in UNSHOWN
}

# Every request of the API, the command that sends it, and what it prints of the example.
VERBS = [
    ("POST /v1/expose", "expose blue", "10.32.127.255"),
    ("POST /v1/unexpose", "unexpose blue", ""),
    ("GET /v1/published", "publish ls", "*:8080/tcp"),
    ("POST /v1/published", "publish web 8080:80", ""),
    ("POST /v1/unpublish", "unpublish web", ""),
    ("GET /v1/status", "status", "vm3 is suspect"),
    ("POST /v1/join", "join", "joined cluster 7f3a9c21 via 192.168.56.11: 2 nodes"),
    ("POST /v1/leave", "leave", ""),
    ("GET /v1/token", "token show", "ovt1.EXAMPLE\n"),
    ("GET /v1/tokens", "token ls", "rack7"),
    ("POST /v1/tokens", "token create", "ovt1.EXAMPLE\n"),
    ("DELETE /v1/tokens/{id}", "token revoke 5d1c", ""),
    ("POST /v1/promote", "promote vm2", ""),
    ("GET /v1/authority", "authority ls", "vm1"),
    ("POST /v1/authority/export", "authority export NEW --passphrase-file SECRET", ""),
    ("POST /v1/authority/import", "authority import SECRET --passphrase-file SECRET", ""),
    ("GET /v1/keys", "key status", "distributing: waiting for vm3, 2s"),
    ("POST /v1/keys/rotate", "key rotate", ""),
    ("GET /v1/members", "members", "suspect"),
    ("POST /v1/forget", "forget vm1", ""),
    ("GET /v1/networks", "network ls", "10.32.0.0/16"),
    ("POST /v1/networks", "network create blue", "blue  vni 9000001"),
    ("GET /v1/networks/{name}", "network inspect blue", "32768 owned by vm2"),
    ("POST /v1/networks/{name}", "network set blue --mtu 1300", "blue  mtu  - → 1300"),
    ("POST /v1/networks/{name}/plug", "network plug blue eth2", "standby (the plug of vm1"),
    ("DELETE /v1/networks/{name}/plug", "network unplug blue", "eth2 is unplugged from blue"),
    ("DELETE /v1/networks/{name}", "network rm blue", ""),
    ("GET /v1/services", "service ls", "http=80:8080"),
    (
        "POST /v1/services",
        "service create web --network blue --port 80:8080",
        "10.32.0.9\n",
    ),
    ("GET /v1/services/{name}", "service inspect web", "draining"),
    ("POST /v1/services/{name}", "service set web --drain web1", ""),
    ("DELETE /v1/services/{name}", "service rm web", ""),
    ("GET /v1/policies", "policy ls", "label=app=web"),
    (
        "POST /v1/policies",
        "policy create db --network blue --from label=app=web",
        "db  blue  allow label=app=web to label=app=db, 5432/tcp",
    ),
    ("GET /v1/policies/{name}", "policy inspect db", "now: web1 web2"),
    ("POST /v1/policies/{name}", "policy set db --log on", "log"),
    ("DELETE /v1/policies/{name}", "policy rm db", ""),
    ("GET /v1/routers", "router ls", "blue red"),
    ("POST /v1/routers", "router create r1 --network blue --network red", "r1  connects blue red"),
    ("GET /v1/routers/{name}", "router inspect r1", "10.33.0.0/16"),
    ("POST /v1/routers/{name}", "router set r1 --add green", "r1  connects blue green red"),
    ("DELETE /v1/routers/{name}", "router rm r1", ""),
    ("GET /v1/policy/test", "policy test web1 db1 --port 5432", "policy db\n"),
    ("GET /v1/ipam", "ipam", "10.32.0.0-10.32.127.255"),
    ("GET /v1/dns", "dns ls", "www"),
    ("GET /v1/dns/{name}", "dns lookup c1", "10.32.0.2\n"),
    ("POST /v1/dns", "dns add database 192.168.7.20 --network blue", ""),
    ("DELETE /v1/dns/{name}", "dns rm c1 --network blue", ""),
    ("POST /v1/apply", "apply FILE", "~ DNS record blue/database: ips 10.0.0.1 → 10.0.0.2"),
    ("GET /v1/export", "export --owner shop", '[[publish]]\nhost = "vm2"'),
    ("GET /v1/endpoints", "endpoint ls --wide", "docker:web"),
    ("POST /v1/endpoints", "attach web --network blue", "10.32.0.2\n"),
    ("POST /v1/endpoints/set", "endpoint set web --add-alias shop", ""),
    ("POST /v1/detach", "detach web", ""),
    ("GET /v1/encryption", "encryption status", "fd6f:766c:cf63:b39c:a96c"),
    ("POST /v1/encryption/rotate", "encryption rotate", ""),
    ("POST /v1/encryption/switch", "encryption on blue", ""),
    ("GET /v1/evpn", "evpn status", "10.0.0.1 up, 10.0.0.2 up, by password"),
    ("POST /v1/evpn", "evpn enable", "10.0.0.1 up"),
    ("DELETE /v1/evpn", "evpn disable", ""),
    (
        "POST /v1/evpn/cluster",
        "evpn enable --cluster --asn 65000 --neighbor 10.0.0.1",
        "of the cluster, as vm1",
    ),
    ("DELETE /v1/evpn/cluster", "evpn disable --cluster", ""),
    ("GET /v1/evpn/endpoints", "evpn ls", "10.96.200.2"),
    ("GET /v1/containers", "container ls", "blue=10.32.0.3"),
    ("POST /v1/containers", "container add c1 --network blue", "10.32.0.3\n"),
    ("DELETE /v1/containers/{name}", "container rm c1", ""),
    ("GET /v1/verify", "verify --repair", "blue: bridge fdb replace"),
    ("GET /v1/traffic", "top --count 1", "blue/web  in 0 bit/s 0 packets/s  out 0 bit/s"),
    ("GET /v1/events", "events", "docker:web is 10.32.0.2"),
    (
        "GET /v1/trace",
        "trace web db --dport 5432 --no-send",
        "verdict  it would arrive, but on vm1: 02:4f",
    ),
    ("GET /v1/netcheck", "netcheck", "gossip (7948/udp) 0.4 ms   vxlan (4789/udp) both ways"),
    ("GET /v1/ping", "ping db -c 0", "VXLAN 192.168.56.11 to 192.168.56.12, VNI 9000001, fast"),
]


@pytest.mark.parametrize(("line", "words", "shown"), VERBS)
def test_the_command_line_shows_each_example(
    overlayd: Run, agent: FakeAgent, tmp_path: Path, line: str, words: str, shown: str
) -> None:
    """The command line reads what is documented."""
    (tmp_path / "SECRET").write_text("a passphrase")
    (tmp_path / "FILE").write_text('owner = "shop"')
    words = words.replace("FILE", str(tmp_path / "FILE"))
    words = words.replace("SECRET", str(tmp_path / "SECRET"))
    names = {"networks": "blue", "services": "web", "policies": "db", "routers": "r1"}
    name = next((each for word, each in names.items() if word in line), "c1")
    path = line.replace("{name}", name).replace("{id}", "5d1c")
    agent.answer(path, ANSWERS[line])
    outcome = overlayd(*words.replace("NEW", str(tmp_path / "one")).split())

    # netcheck also checks this machine, which has no address of the example's.
    assert outcome.code in ((0, 4) if words == "netcheck" else (0,))
    assert shown in outcome.out
    as_json = overlayd(*words.replace("NEW", str(tmp_path / "two")).split(), "--json")
    if words == "events":  # one object a line
        assert [json.loads(as_json.out)] == ANSWERS[line]["events"]
    else:
        assert json.loads(as_json.out)["schema"] == ANSWERS[line]["schema"]


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every route of the agent, by method and path."""
    from overlay.agent.api import routes  # noqa: PLC0415  the agent's imports are slow
    from overlay.agent.api.http.server import ApiServer  # noqa: PLC0415  as above

    server = ApiServer(tmp_path_factory.mktemp("run"), "overlayd")
    routes.register(server, cast("Any", None))
    return {f"{each.method} {each.path}": each for each in server.operations}


def test_every_route_is_documented(operations: dict[str, Any]) -> None:
    """The document has exactly the paths and schemas that are registered."""
    served = {line: f"overlayd.{each.name}/v1" for line, each in operations.items()}

    for line in UNSHOWN:
        assert served.pop(line)
        assert f"### {line}\n" in TEXT
    assert {line: answer["schema"] for line, answer in ANSWERS.items()} == served
    plugins = {line for line in served if line.startswith("POST /v1/plugin/")}  # not verbs
    # `capture` and the attempt of `trace` need real namespaces: tests/e2e.
    real = {"GET /v1/capture", "GET /v1/capture/far", "POST /v1/trace/sightings"}
    others = plugins | real | {"POST /v1/reset", "GET /healthz", "GET /v1/target"}
    assert {line for line, _, _ in VERBS} | others == set(served)


def test_every_route_declares_its_shapes(operations: dict[str, Any]) -> None:
    """A route without them would be missing in the OpenAPI document."""
    for line, each in operations.items():
        assert each.response is not None, (
            f"{line}: declare the response as a TypedDict in the resource's module in "
            f"overlay/agent/api/schema, and register it: route(..., response=ThingResponse)"
        )
        assert each.request is not None or each.method != "POST", (
            f"{line}: declare the body as a Request in the resource's module in "
            f"overlay/agent/api/schema, and register it: route(..., request=ThingRequest); "
            f"EmptyRequest if it has no fields"
        )


@pytest.mark.parametrize("line", ANSWERS)
def test_each_example_has_the_declared_shape(operations: dict[str, Any], line: str) -> None:
    """The example has exactly the fields of its TypedDict, with their types."""
    from overlay.agent.api.schema import openapi  # noqa: PLC0415  as above

    described = closed_schema(openapi.document(list(operations.values())))
    method, path = line.split()
    answer = described["paths"][path][method.lower()]["responses"]["200"]
    schema = {
        **answer["content"]["application/json"]["schema"],
        "components": described["components"],
    }
    faults = list(jsonschema_rs.validator_for(schema).iter_errors(ANSWERS[line]))

    assert not faults, "\n".join(
        f"docs/API.md, {line}, at {each.instance_path}: {each.message}; "
        f"either the example or the route's `response` is wrong"
        for each in faults
    )


@pytest.mark.parametrize("line", ANSWERS)
def test_each_field_of_a_request_is_described(operations: dict[str, Any], line: str) -> None:
    """The section of a request mentions each of its fields and parameters."""
    each = operations[line]
    text = dict(SECTION.findall(TEXT))[line]
    if line == "POST /v1/containers":
        text += dict(SECTION.findall(TEXT))["POST /v1/endpoints"]  # "those of an attach"
    for shape in filter(None, (each.request, each.query)):
        for field in shape.__struct_encode_fields__:
            assert f"`{field}`" in text or f"?{field}=" in text, (
                f"docs/API.md, {line}: say what `{field}` means"
            )


@pytest.mark.parametrize("line", [*ANSWERS, *UNSHOWN])
def test_each_error_is_documented_with_its_request(operations: dict[str, Any], line: str) -> None:
    """The page names only declared errors, and all that are not implied."""
    declared = {kind.code for kind in operations[line].errors()}
    text = dict(SECTION.findall(TEXT))[line]
    listed = re.search(r"^- Errors: (.*?)(?=^- |^$|\Z)", text, re.MULTILINE | re.DOTALL)
    named = (
        set() if listed is None else set(re.findall(r"`([a-z-]+)`", listed[1])) & set(ERROR_BY_CODE)
    )
    anywhere = operations[line].works_unjoined

    assert named <= declared, "declare it: route(..., errors_raised=(SomeError,))"
    assert ("*anywhere.*" in text) == anywhere
    expected = {"failed", "forbidden", "usage"} | (set() if anywhere else {"conflict"})
    assert declared - expected <= named, f"docs/API.md, {line}: name it"


def test_the_document_is_json(operations: dict[str, Any]) -> None:
    """It is the same after it was sent, tuples among the defaults included."""
    from overlay.agent.api.schema import openapi  # noqa: PLC0415  as above

    made = openapi.document(list(operations.values()))

    assert json.loads(json.dumps(made)) == made


def test_each_request_has_only_its_own_errors(operations: dict[str, Any]) -> None:
    """The errors that follow from its fields, and those that it declares."""
    from overlay.agent.api.schema import openapi  # noqa: PLC0415  as above

    paths = openapi.document(list(operations.values()))["paths"]

    def statuses(method: str, path: str) -> set[int]:
        answers = paths[path][method]["responses"]
        return {int(status) for status in answers} - {200}

    always = {400, 403, 405, 500}
    assert statuses("get", "/v1/status") == always
    assert statuses("get", "/v1/members") == always | {409}
    assert statuses("get", "/v1/networks/{name}") == always | {404, 409}
    assert statuses("post", "/v1/endpoints") == always | {404, 409, 504}
    assert statuses("post", "/v1/join") == always | {409, 504}
    assert statuses("post", "/v1/tokens") == always | {409}
    assert statuses("delete", "/v1/containers/{name}") == always | {404, 409}


def test_the_table_of_errors_is_that_of_the_code() -> None:
    """The documented codes, HTTP statuses and exit codes are those of the code."""
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \| (\d+) \|", TEXT, re.MULTILINE)

    assert {code: (int(status), int(leaving)) for code, status, leaving in rows} == {
        code: (kind.http_status, kind.exit_code) for code, kind in ERROR_BY_CODE.items()
    }
