"""The authority on three hosts, and a cluster that has lost every host that held it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
VM1, VM2 = "192.168.56.11", "192.168.56.12"
PASSPHRASE = "six random words on paper"
COPY = "/run/authority.json"


def join(hosts: Cluster, number: int, peer: str, token: str) -> None:
    """Join through a peer with a token."""
    words = ("overlayd", "join", peer, "--token-file", "-")
    code, _, err = hosts.run(number, *words, stdin=token)
    assert code == 0, err


def restore(hosts: Cluster, number: int, passphrase: str, path: str = COPY) -> tuple[int, str]:
    """Import the authority on a host; return exit code and stderr."""
    words = ("overlayd", "authority", "import", path, "--passphrase-file", "-")
    code, _, err = hosts.run(number, *words, stdin=passphrase)
    return code, err


def holders(hosts: Cluster, number: int) -> list[str]:
    """Return the names of the holders, as one host sees them."""
    return sorted(one["name"] for one in hosts.json(number, "authority", "ls")["holders"])


def health(hosts: Cluster, number: int) -> dict[str, Any]:
    """Return a host's first message about the authority; empty if there is none."""
    found = hosts.json(number, "status")["health"]
    return next((one for one in found if "authority" in one["text"]), {})


@pytest.fixture(scope="module")
def kept_apart(hosts: Cluster) -> Cluster:
    """Three members of which vm1 alone holds the authority, and an exported copy on vm3."""
    path = "/etc/overlayd/overlayd.toml"
    hosts.ok(1, "sh", "-c", f"mkdir -p /etc/overlayd; echo authority_holders = 1 >{path}")
    hosts.ok(1, "overlayd", "join")
    token = hosts.ok(1, "overlayd", "token", "show")
    for number in (2, 3):
        join(hosts, number, VM1, token)
    words = ("overlayd", "authority", "export", COPY, "--passphrase-file", "-")
    assert hosts.run(1, *words, stdin=PASSPHRASE)[0] == 0
    assert hosts.ok(1, "stat", "-c", "%a %U", COPY) == "600 root\n"
    assert hosts.run(1, *words, stdin=PASSPHRASE)[0] == 6  # it overwrites nothing
    copy = hosts.ok(1, "cat", COPY)
    assert hosts.run(3, "sh", "-c", f"cat >{COPY}", stdin=copy)[0] == 0
    return hosts


def test_the_last_holder_is_not_lost_by_mistake(
    kept_apart: Cluster, eventually: Callable[..., None]
) -> None:
    """Dead, it is not forgotten unless forced; afterwards every host says what is lost."""
    hosts = kept_apart
    assert holders(hosts, 3) == ["vm1"]
    assert hosts.run(1, "overlayd", "leave")[0] == 6
    hosts.ok(1, "sh", "-c", "kill -9 $(pgrep -f '[o]verlay.cli.main agent')")
    eventually(lambda: "vm1 (dead)" in health(hosts, 2).get("text", ""), "vm2 misses vm1")
    code, _, err = hosts.run(2, "overlayd", "forget", "vm1")
    assert code == 6
    assert "forget --force vm1" in err

    hosts.ok(2, "overlayd", "forget", "--force", "vm1")
    for number in (2, 3):
        eventually(
            lambda number=number: "any longer" in health(hosts, number).get("text", ""),
            f"vm{number} says that the authority is lost",
        )
        assert health(hosts, number)["level"] == "error"
        code, _, err = hosts.run(number, "overlayd", "token", "create")
        assert code == 6
        assert "authority import" in err
        assert "vm1" not in err
    assert "overlayd_authority_holders 0" in hosts.ok(2, "overlayd", "metrics")


def test_an_export_brings_the_cluster_back(
    kept_apart: Cluster, eventually: Callable[..., None]
) -> None:
    """On any member; then hosts are admitted again, and three hold the authority by themselves."""
    hosts = kept_apart
    damaged = json.loads(hosts.ok(3, "cat", COPY))
    damaged["salt"] = damaged["nonce"] + "00000000"
    hosts.run(3, "sh", "-c", "cat >/run/damaged.json", stdin=json.dumps(damaged))
    assert "passphrase is wrong" in restore(hosts, 3, "not this one")[1]
    assert "is damaged" in restore(hosts, 3, PASSPHRASE, "/run/damaged.json")[1]
    assert holders(hosts, 3) == []

    assert restore(hosts, 3, PASSPHRASE)[0] == 0
    assert "already held" in restore(hosts, 3, PASSPHRASE)[1]
    eventually(lambda: holders(hosts, 2) == ["vm2", "vm3"], "vm3 has shared the authority")
    hosts.ok(1, "overlayd", "reset", "--yes")
    join(hosts, 1, VM2, hosts.ok(2, "overlayd", "token", "show"))
    for number in (1, 2, 3):
        eventually(
            lambda number=number: holders(hosts, number) == ["vm1", "vm2", "vm3"],
            f"vm{number} knows three holders",
        )
        hosts.ok(number, "overlayd", "status", "--wait")
        hosts.ok(number, "overlayd", "key", "rotate")
    assert "overlayd_authority_holders 3" in hosts.ok(2, "overlayd", "metrics")
