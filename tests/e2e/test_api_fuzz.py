"""Every request to the local API gets a response that its OpenAPI document allows.

schemathesis generates requests from the document, valid ones and invalid ones. To repeat a failure,
set SEED=... (printed with it) in the environment.
"""

from __future__ import annotations

import io
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest
import requests
import schemathesis
import urllib3
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from overlay.agent.api import routes
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema import openapi
from overlay.lab.driver import LOG, AgentDriver, differences, wait_until
from overlay.lab.fixtures import LabCluster, lab_cluster
from overlay.unix_http import UnixConnection
from requests.adapters import HTTPAdapter
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)
from tests.strict_schema import closed_schema

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
load_all_checks()
SEED = int(os.environ.get("SEED", "20261121"))
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = int(os.environ.get("EXAMPLES") or 25)  # per operation and kind of request

# Texts that get further into the agent than those that a generator finds.
WORDS = [
     "", "blue", "c1", "vm1", "vm2", "netns:c1", "netns:none", "docker:x", "pid:1", "pid:0",
     "/proc/1/ns/net", "10.32.0.0/16", "10.32.0.9", "10.33.0.0/33", "fd00::/64", "fd00::1",
     "0.0.0.0/0", "255.255.255.255", "02:00:00:00:00:01", "zz:zz", "eth0", "lo", "a" * 300,
     "../..", "\x00", "é", "-", "ovt1.x", "k=v", "=", "8080:80", "0:0/x", "host", "container:c1",
]  # fmt: skip
TEXTS = st.sampled_from(WORDS) | st.text(max_size=12)
SCALARS = (
    st.none() | st.booleans() | TEXTS
    | st.integers(-(2**70), 2**70) | st.sampled_from([0, 1, 4096, 16_777_215, 16_777_216, 65_535])
    | st.floats(allow_nan=False, allow_infinity=False)
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)
QUIET = settings(
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # created objects stay, so nothing could be shrunk
    suppress_health_check=list(HealthCheck),
    database=None,
)


def described() -> dict[str, Any]:
    """Return the document of all registered routes."""
    server = ApiServer(Path("/nowhere"), "overlayd")
    routes.register(server, cast("Any", None))
    return openapi.document(server.operations)


DOCUMENT = described()
SCHEMA = schemathesis.openapi.from_dict(closed_schema(DOCUMENT))
OPERATIONS = {
    each.ok().label: each.ok() for each in SCHEMA.get_all_operations() if isinstance(each, Ok)
}
# Without those that would end the host's membership, or the agent.
ASKED = sorted(set(OPERATIONS) - {"POST /v1/leave", "POST /v1/reset"})
# Seconds for each, until the members have the new keys, or scrypt those of a passphrase.
SLOW = ("POST /v1/keys/rotate", "POST /v1/encryption/rotate", "POST /v1/authority/export")
ASKING = [line for line in ASKED if list(OPERATIONS[line].query)]
TAKING = [line for line in ASKED if line.startswith("POST")]


def count(line: str) -> int:
    """Return the number of requests to send: a few if all of them would be the same."""
    method, path = line.split()
    operation = DOCUMENT["paths"][path][method.lower()]
    varies = "parameters" in operation or "requestBody" in operation
    return EXAMPLES if varies and line not in SLOW else 3


class OverSocket(HTTPAdapter):
    """Connects requests, and so schemathesis, to the UNIX socket of a host."""

    def __init__(self, driver: AgentDriver) -> None:
        super().__init__()
        self._path = f"/proc/{driver.host.pid}/root/run/overlayd/api.sock"

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """Send a prepared request."""
        connection = UnixConnection(self._path, 60.0)
        try:
            body = request.body.encode() if isinstance(request.body, str) else request.body
            own = ("content-length", "host")  # the connection's
            headers = {k: v for k, v in request.headers.items() if k.lower() not in own}
            got = connection.request(
                str(request.method), request.path_url, cast("Any", body), cast("Any", headers)
            )
            raw = urllib3.HTTPResponse(
                io.BytesIO(got.read()),
                dict(got.headers),
                status=got.status,
                preload_content=False,
            )
        finally:
            connection.close()
        return self.build_response(request, raw)


@pytest.fixture(scope="module")
def pair() -> Iterator[LabCluster]:
    """Two hosts with a container each; requests go to the first one."""
    print(f"SEED={SEED}")  # noqa: T201 - pytest shows it with a failure
    with lab_cluster(2) as made:
        yield made


@pytest.fixture(scope="module")
def session(pair: LabCluster) -> requests.Session:
    """Return a session with the agent of the first host."""
    made = requests.Session()
    made.mount("http://", OverSocket(pair.host(1)))
    return made


def is_too_long(case: schemathesis.Case[Any]) -> bool:
    """Return whether aiohttp's parser refuses the line for its length: not as an API error."""
    words = {**(case.query or {}), **(case.path_parameters or {})}
    return sum(len(quote(str(word), safe="")) for word in words.values()) > 7000


def harms(case: schemathesis.Case[Any]) -> bool:
    """Return whether the request would succeed and disturb later tests."""
    body = case.body if isinstance(case.body, dict) else {}
    path, query = case.path_parameters or {}, case.query or {}
    return (
        str(body.get("node")) in ("vm1", "vm2")
        or "c1" in str(body.get("target"))
        or (case.method == "DELETE" and path.get("name") in ("blue", "c1"))
        or "1" in str(query.get("follow"))  # has no end
    )


def judge(session: requests.Session, case: schemathesis.Case[Any], *, wrong: bool = False) -> int:
    """Send a request; the response is one that the document allows, and not a defect."""
    if harms(case) or is_too_long(case):
        return 0
    answer = case.call(base_url="http://overlayd", session=session)
    asked = f"SEED={SEED} {case.method} {case.formatted_path} {case.query} {case.body!r}"
    # On a busy machine the other host may not confirm in time.
    late = answer.status_code == 504
    assert answer.status_code < 500 or late, f"{asked}: {answer.text}"
    case.validate_response(answer, checks=[*CHECKS, negative_data_rejection] if wrong else CHECKS)
    return answer.status_code


def test_the_agent_serves_the_document(pair: LabCluster) -> None:
    """The served document is the one that these tests use."""
    assert pair.host(1).get("/v1/openapi.json") == DOCUMENT
    SCHEMA.validate()  # by the OpenAPI Initiative's schema for documents
    assert len(OPERATIONS) == sum(len(methods) for methods in DOCUMENT["paths"].values())


@pytest.mark.parametrize("path", [path for path in DOCUMENT["paths"] if "{" in path])
def test_unknown_names_are_refused(session: requests.Session, path: str) -> None:
    """Removing an object that does not exist fails, whatever its name is."""
    operation = OPERATIONS[f"DELETE {path}"]
    field = path.rpartition("{")[2].partition("}")[0]
    for name in set(WORDS) - {"", "blue", "c1"}:
        url = path.replace(f"{{{field}}}", quote(name, safe=""))
        answer = session.delete(f"http://overlayd{url}")
        assert 400 <= answer.status_code < 500, name
        operation.Case(path_parameters={field: name}).validate_response(answer, checks=CHECKS)


@pytest.mark.parametrize("line", ASKED)
def test_valid_requests(session: requests.Session, line: str) -> None:
    """Requests that the document allows get a response that it allows."""
    seen: set[int] = set()

    @seed(SEED)
    @settings(QUIET, max_examples=count(line))
    @given(OPERATIONS[line].as_strategy())
    def run(case: schemathesis.Case[Any]) -> None:
        seen.add(judge(session, case))

    run()
    assert seen - {0}


@pytest.mark.parametrize("line", ASKING + TAKING)
def test_invalid_requests_are_refused(session: requests.Session, line: str) -> None:
    """Requests that the document forbids are refused; none of them succeeds."""
    seen: set[int] = set()

    @seed(SEED)
    @settings(QUIET, max_examples=EXAMPLES)
    @given(OPERATIONS[line].as_strategy(GenerationMode.NEGATIVE))
    def run(case: schemathesis.Case[Any]) -> None:
        seen.add(judge(session, case, wrong=True))

    run()
    assert 400 in seen


@pytest.mark.parametrize("line", TAKING)
def test_known_fields_with_meaningful_texts(session: requests.Session, line: str) -> None:
    """Any field may hold existing names, addresses and targets, valid there or not."""
    operation = OPERATIONS[line]
    body = DOCUMENT["paths"][operation.path]["post"]["requestBody"]
    name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    known = DOCUMENT["components"]["schemas"][name]["properties"]
    bodies = st.fixed_dictionaries({}, optional=dict.fromkeys((*known, "strange"), VALUES))
    names = st.sampled_from(["blue", "none"])  # in the path, if there is one

    @seed(SEED)
    @settings(QUIET, max_examples=10 if line in SLOW else 2 * EXAMPLES)
    @given(bodies | VALUES, names)
    def run(sent: Any, subject: str) -> None:
        path = {"name": subject} if "{name}" in operation.path else None
        case = operation.Case(body=sent, path_parameters=path, media_type="application/json")
        judge(session, case)

    run()


@pytest.mark.parametrize("path", DOCUMENT["paths"])
def test_unknown_methods_are_refused(session: requests.Session, path: str) -> None:
    """The error lists the methods that the path has."""
    real = re.sub("{.*?}", "none", path)
    has = {method.upper() for method in DOCUMENT["paths"][path]}
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - has:
        answer = session.request(method, f"http://overlayd{real}")
        assert answer.status_code == 405, f"{method}: {answer.text}"
        assert set(answer.headers["Allow"].split(", ")) >= has
        assert answer.json()["error"]["code"] == "usage"


@pytest.mark.parametrize("path", [path for path in DOCUMENT["paths"] if "{" not in path])
def test_unknown_parameters_and_fields_are_refused(session: requests.Session, path: str) -> None:
    """The error names the field, even if the request has no fields at all."""
    for method in DOCUMENT["paths"][path]:
        url = f"http://overlayd{path}?strange=1" if method == "get" else f"http://overlayd{path}"
        answer = session.request(method, url, json=None if method == "get" else {"strange": 1})
        error = answer.json()["error"]
        assert (answer.status_code, error["field"]) == (400, "strange"), answer.text


def test_unknown_paths_are_refused(session: requests.Session) -> None:
    """They get an API error with the code `not-found`."""
    for path in ("/", "/v1", "/v2/status", "/v1/status/", "/v1/networks/a/b", "/" + "x" * 5000):
        answer = session.get(f"http://overlayd{path}")
        assert answer.status_code == 404, path
        assert answer.json()["error"]["code"] == "not-found"


@pytest.mark.parametrize(
    "raw",
    [b"{", b"[1]", b'"x"', b"\xff\xfe", b'{"a":' * 5000, b"{" + b" " * 70_000 + b"}", b"null"],
    ids=["open", "list", "text", "no utf-8", "deep", "large", "null"],
)
def test_a_body_that_is_not_a_json_object_is_refused(session: requests.Session, raw: bytes) -> None:
    """The error says so; bodies above 64 KiB are not read to their end."""
    answer = session.post("http://overlayd/v1/networks", data=raw)

    assert answer.status_code == 400
    assert answer.json()["error"]["what"]


def test_the_hosts_are_sound_afterwards(pair: LabCluster) -> None:
    """The containers reach each other, both kernels match their desired state, and the other agent
    accepted every record."""
    one = pair.host(1)
    shown = one.run("ip", "netns", "exec", "c1", "ping", "-c", "5", "-i", "0.1", pair.addresses[2])
    assert "5 received" in shown
    wait_until(pair.all_equal, "all hosts equal")
    assert "malformed" not in pair.host(2).get("/v1/status")["drops"]
    known = {network["name"] for network in one.get("/v1/networks")["networks"]}
    assert {network["name"] for network in pair.host(2).get("/v1/networks")["networks"]} == known


SEEN = {
    "networks": ("networks", "name vni subnets labels internal driver creator"),
    "endpoints": ("endpoints", "name network ips mac node aliases labels"),
    "dns": ("names", "name network ips"),
    "published": ("published", "name network host_port"),
    "containers": ("containers", "name network_mode"),
}


def seen(driver: AgentDriver) -> dict[str, list[str]]:
    """Return the networks, endpoints, names, published ports and containers that a host shows."""
    return {
        path: sorted(
            str([each[field] for field in fields.split()])
            for each in driver.get(f"/v1/{path}")[key]
        )
        for path, (key, fields) in SEEN.items()
    }


def test_accepted_requests_survive_a_restart(pair: LabCluster) -> None:
    """After kill -9 both agents return with everything that the API accepted, and each kernel
    matches its desired state."""
    before = [seen(driver) for driver in pair.drivers]
    for driver in pair.drivers:
        driver.end(signal.SIGKILL)
    for driver in pair.drivers:
        driver.start()

    wait_until(pair.all_healthy, "all alive and equal", 60.0)
    # What a second had not passed since to write others' records to disk, is fetched again.
    wait_until(lambda: [seen(driver) for driver in pair.drivers] == before, "all as before")
    for driver in pair.drivers:
        assert differences(driver) == []
        assert "Traceback" not in driver.run("cat", LOG)
    one = pair.host(1)
    shown = one.run("ip", "netns", "exec", "c1", "ping", "-c", "5", "-i", "0.1", pair.addresses[2])
    assert "5 received" in shown
