"""Whatever a caller of the local API sends: an answer in words, never a defect."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from overlay.lab.driver import Driver, wait_until
from overlay.lab.scene import Scene, scene
from overlay.unixhttp import UnixConnection, send

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEFECT = "because of a defect"

TEXTS = st.sampled_from(
    ["", "blue", "c1", "vm1", "vm2", "netns:c1", "netns:none", "docker:x", "pid:1", "pid:0",
     "/proc/1/ns/net", "10.32.0.0/16", "10.32.0.9", "10.33.0.0/33", "fd00::/64", "fd00::1",
     "0.0.0.0/0", "255.255.255.255", "02:00:00:00:00:01", "zz:zz", "eth0", "lo", "a" * 300,
     "../..", "\x00", "é", "-", "ovt1.x", "k=v", "="]
) | st.text(max_size=12)  # fmt: skip
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
SUBNET = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("subnet", "gateway", "ip_range", "auxiliary", "block_length"), VALUES),
)
FIELDS = {
    "/v1/networks": ("name", "vni", "internal", "labels", "force", "isolate_subnets",
                     "port_security", "subnets"),
    "/v1/endpoints": ("target", "networks", "name", "ip", "mac", "ifname", "aliases", "labels",
                      "default_route", "wait", "port_security"),
    "/v1/containers": ("name", "networks", "ip", "mac", "ifname", "aliases", "labels"),
    "/v1/detach": ("target", "networks"),
    "/v1/tokens": ("expires_s", "uses", "label"),
    "/v1/promote": ("node",),
    "/v1/forget": ("node", "powered_off", "bar"),
    "/v1/join": ("peers", "token", "underlay", "name", "vxlan_port", "gossip_port"),
}  # fmt: skip
READS = ("/v1/status", "/v1/members", "/v1/networks", "/v1/ipam", "/v1/endpoints",
         "/v1/containers", "/v1/verify", "/v1/tokens", "/metrics")  # fmt: skip
DELETES = ("/v1/networks/", "/v1/containers/", "/v1/tokens/")

QUIET = settings(
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # what it made stays: nothing could be shrunk
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def pair() -> Iterator[Scene]:
    """Two hosts with a container each; what is asked of the first one must not end it."""
    with scene(2) as made:
        yield made


def ask(driver: Driver, method: str, path: str, raw: bytes | None) -> tuple[int, str]:
    """Send a request as it is; return the status and the body."""
    connection = UnixConnection(f"/proc/{driver.host.pid}/root/run/overlayd/api.sock", 60.0)
    try:
        answer: http.client.HTTPResponse = send(connection, method, path, raw)
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def judge(driver: Driver, method: str, path: str, raw: bytes | None) -> int:
    """Send a request; the answer is the asked one or an error in words."""
    status, text = ask(driver, method, path, raw)
    asked = f"{method} {path} {raw!r}: {status} {text}"
    assert DEFECT not in text, asked
    if status >= 400 and status not in (404, 405, 413):
        error = json.loads(text)["error"]
        assert error["what"], asked
        assert status != 500 or error["code"] == "failed", asked
    return status


@pytest.mark.parametrize("path", FIELDS)
def test_bodies_of_every_shape(pair: Scene, path: str) -> None:
    """Known fields with any values, unknown fields, and what is no object at all."""
    one = pair.host(1)
    optional = dict.fromkeys((*FIELDS[path], "strange"), VALUES)
    if path == "/v1/networks":
        optional["subnets"] = VALUES | st.lists(SUBNET, max_size=3)
    bodies = st.fixed_dictionaries({}, optional=optional) | VALUES
    seen: set[int] = set()

    @settings(QUIET, max_examples=150)
    @given(bodies)
    def run(body: object) -> None:
        if path == "/v1/forget" and isinstance(body, dict) and body.get("node") in ("vm1", "vm2"):
            return  # that would be obeyed
        seen.add(judge(one, "POST", path, json.dumps(body).encode()))

    run()
    assert 400 in seen
    assert one.get("/v1/members")["members"]


@pytest.mark.parametrize("path", READS)
def test_questions_with_any_query(pair: Scene, path: str) -> None:
    """Unknown and wrong parameters are refused or make no difference."""
    one = pair.host(1)

    @settings(QUIET, max_examples=25)
    @given(st.dictionaries(st.sampled_from(["network", "since", "repair", "filter", "x"]), TEXTS))
    def run(query: dict[str, str]) -> None:
        words = "&".join(f"{key}={quote(value)}" for key, value in query.items())
        judge(one, "GET", f"{path}?{words}", None)

    run()


@pytest.mark.parametrize("path", DELETES)
def test_names_of_what_is_to_go(pair: Scene, path: str) -> None:
    """Nothing of the name: told so."""
    one = pair.host(1)

    @settings(QUIET, max_examples=60)
    @given(TEXTS.filter(lambda text: text not in ("blue", "c1", "")))
    def run(name: str) -> None:
        assert judge(one, "DELETE", path + quote(name, safe=""), None) >= 400

    run()


@pytest.mark.parametrize(
    "raw",
    [b"{", b"[1]", b'"x"', b"\xff\xfe", b'{"a":' * 5000, b"{" + b" " * 70_000 + b"}", b"null"],
    ids=["open", "list", "text", "no utf-8", "deep", "large", "null"],
)
def test_what_is_no_json_object(pair: Scene, raw: bytes) -> None:
    """Refused as that; bodies above 64 KiB are not read to their end."""
    assert judge(pair.host(1), "POST", "/v1/networks", raw) in (400, 413)


def test_afterwards_all_is_well(pair: Scene) -> None:
    """The containers reach each other, both kernels are as they should be."""
    one = pair.host(1)
    shown = one.run("ip", "netns", "exec", "c1", "ping", "-c", "5", "-i", "0.1", pair.addresses[2])
    assert "5 received" in shown
    wait_until(pair.equal, "all hosts equal")
