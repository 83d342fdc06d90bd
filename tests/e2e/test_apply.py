"""A file that declares networks, names, exposures and ports, applied from any of three hosts."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.world import netns, seen_as, serve

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
FILE = """\
owner = "shop"

[[network]]
name = "shop"
subnets = ["10.77.0.0/16"]
labels = { tier = "front" }

[[service]]
name = "front"
network = "shop"
ports = [{ port = 8000, target = 80 }]
backends = ["web"]

[[dns]]
network = "shop"
name = "database"
ips = ["192.168.7.20"]

[[expose]]
host = "vm2"
network = "shop"

[[publish]]
host = "vm2"
network = "shop"
name = "web"
ports = ["8088:80"]
"""


KINDS = ("network", "service", "dns", "expose", "publish")


def apply(cluster: Cluster, number: int, text: str, *options: str) -> tuple[int, dict[str, Any]]:
    """Apply a file on one host; return the exit code and the answer."""
    command = ("overlayd", "apply", "-", "--json", *options)
    code, out, _ = cluster.run(number, *command, stdin=text)
    return code, json.loads(out)


def is_applied(cluster: Cluster, number: int, text: str) -> bool:
    """Return whether nothing is to be done for a file, as a host sees it."""
    code, answer = apply(cluster, number, text, "--dry-run")
    return (code, answer["changes"]) == (0, [])


def kinds(answer: dict[str, Any]) -> list[str]:
    """Return what was done, as `+network`."""
    signs = {"create": "+", "change": "~", "remove": "-"}
    return [signs[each["action"]] + each["kind"] for each in answer["changes"]]


def test_one_file_makes_and_removes_everything(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """From one host, on another, changed on a third; and nothing is left of it."""
    assert apply(cluster, 1, FILE, "--dry-run")[0] == 8
    code, made = apply(cluster, 1, FILE)
    assert (code, kinds(made)) == (0, ["+network", "+service", "+dns", "+expose", "+publish"])
    for number in (1, 3):
        eventually(lambda at=number: is_applied(cluster, at, FILE), f"vm{number} has all of it")
    ip = cluster.attach(3, "web", network="shop")
    serve(cluster, 3, netns("web"), ip, 80)
    eventually(
        lambda: seen_as(cluster, 1, [], "192.168.56.12", 8088) != "", "the port of vm2", 30.0
    )
    eventually(lambda: "192.168.7.20" in cluster.inside(3, "web", "dig", "+short", "database")[1],
               "the name", 30.0)  # fmt: skip

    (front,) = cluster.json(2, "service", "ls")["services"]
    assert (front["network"], len(front["ips"])) == ("shop", 1)
    exported = cluster.ok(2, "overlayd", "export")
    assert is_applied(cluster, 2, exported)

    changed = FILE.replace("192.168.7.20", "192.168.7.21").replace("subnets", "mtu = 1300\nsubnets")
    changed = changed.replace("8000, target", "8001, target")
    assert kinds(apply(cluster, 3, changed)[1]) == ["~network", "~service", "~dns"]
    eventually(lambda: "mtu 1300" in cluster.inside(3, "web", "ip", "link")[1], "the MTU", 30.0)

    empty = 'owner = "shop"\n'

    def refusal() -> str:
        code, refused = apply(cluster, 1, empty, "--prune")
        assert code == 6
        return str(refused["error"]["why"])

    eventually(lambda: "web on vm3" in refusal(), "a network in use is not pruned", 30.0)
    cluster.ok(3, "overlayd", "detach", "netns:web")
    cluster.ok(3, "ip", "netns", "del", "web")
    gone: dict[str, Any] = {}

    def is_pruned() -> bool:
        code, answer = apply(cluster, 1, empty, "--prune")
        gone.update(answer)
        return code == 0

    eventually(is_pruned, "the removal", 30.0)
    assert kinds(gone) == ["-publish", "-expose", "-dns", "-service", "-network"]
    sandboxes = ("ip", "netns", "list")
    eventually(lambda: cluster.ok(2, *sandboxes).count("ov-") == 1, "the sandbox is gone", 30.0)
    eventually(
        lambda: cluster.json(2, "publish", "ls")["published"] == [], "the port is gone", 30.0
    )

    def left(number: int) -> list[str]:
        exported = cluster.json(number, "export", "--owner", "shop")
        return [section for section in KINDS if exported[section]]

    for number in (1, 2, 3):
        eventually(lambda at=number: left(at) == [], f"nothing is left on vm{number}")
        assert cluster.differences(number) == []


def test_two_files_at_once_end_in_one(cluster: Cluster, eventually: Callable[..., None]) -> None:
    """Each object is as one of the two declares it, and the same on all hosts."""
    texts = [
        f'[[network]]\nname = "blue"\nlabels = {{ a = "{n}", b = "{n}" }}\nmtu = {1300 + n}\n'
        f'[[dns]]\nnetwork = "blue"\nname = "nas"\nips = ["10.0.0.{n}", "10.0.1.{n}"]\n'
        for n in (1, 2)
    ]
    with ThreadPoolExecutor() as both:
        codes = both.map(lambda n: apply(cluster, n + 1, texts[n])[0], range(2))
    assert set(codes) == {0}

    def state(number: int) -> tuple[Any, Any]:
        found = cluster.json(number, "export")
        (blue,) = (each for each in found["network"] if each["name"] == "blue")
        return (blue.get("labels"), blue.get("mtu")), found["dns"][0]["ips"]

    eventually(lambda: len({str(state(n)) for n in (1, 2, 3)}) == 1, "all hosts agree", 30.0)
    settings, ips = state(1)
    assert settings in [({"a": n, "b": n}, 1300 + int(n)) for n in "12"]
    assert ips in [[f"10.0.0.{n}", f"10.0.1.{n}"] for n in "12"]
    cluster.ok(3, "overlayd", "dns", "rm", "nas", "--network", "blue")
    cluster.ok(3, "overlayd", "network", "set", "blue", "--mtu", "auto",
               "--remove-label", "a", "--remove-label", "b")  # fmt: skip
