"""Access to an agent's API, by real users that the kernel identifies."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from overlay import limits
from overlay.agent.process.confinement import KEPT_CAPABILITIES
from overlay.lab import host_process, lab
from overlay.lab.driver import AgentDriver, connect, end_all, join_all

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
ROOT = Path(__file__).parents[2]
SOCKET = "/run/overlayd/api.sock"
STRANGER, FRIEND, GROUP = 12_345, 12_346, 12_300
# To reach this checkout and its Python wherever they are; connect needs write permission.
READS = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
ONLY_ROOT = [
    ("join",),
    ("leave",),
    ("reset", "--yes"),
    ("forget", "vm1"),
    ("promote", "vm1"),
    ("authority", "export", "/run/authority.json", "--passphrase-file", "/etc/hostname"),
    ("authority", "import", "/etc/hostname", "--passphrase-file", "/etc/hostname"),
    ("token", "show"),
    ("token", "ls"),
    ("token", "create"),
    ("token", "revoke", "5d1c"),
    ("capture", "c1"),
]

# Attaches a link to a namespace that flips between the caller's own and the agent's.
FLIP = """
import json, os, socket, subprocess, threading, time
child = subprocess.Popen(["unshare", "-Urn", "sleep", "60"])
time.sleep(0.5)
places = [f"/proc/{child.pid}/ns/net", "/proc/1/ns/net"]
link = "/run/overlayd-flip"
ended = threading.Event()

def flip():
    number = 0
    while not ended.is_set():
        os.symlink(places[number % 2], link + ".new")
        os.rename(link + ".new", link)
        number += 1

def ask(method, path, **body):
    raw = json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.0\\r\\nContent-Length: {len(raw)}\\r\\n\\r\\n"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("/run/overlayd/api.sock")
        connection.sendall(head.encode() + raw)
        return connection.makefile("rb").read()

thread = threading.Thread(target=flip)
thread.start()
attached = refused = 0
try:
    begun = time.time()
    while time.time() < begun + 5 or not (attached and refused) and time.time() < begun + 60:
        answer = ask("POST", "/v1/endpoints", target=link, networks=["flip"], name="flip",
                     ifname="flip0", wait="none", gateway_priority=1000)
        attached += b" 200 " in answer[:20]
        refused += b"host's own network namespace" in answer
        ask("POST", "/v1/detach", target="flip", networks=["flip"])
        ask("POST", "/v1/detach", target=link, networks=["flip"])
finally:
    ended.set()
    thread.join()
    os.unlink(link)
    child.kill()
print(attached, refused)
"""

# Opens as many event streams, requests and connections as it can, and keeps them.
HOLD = """
import contextlib, json, resource, select, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, [resource.getrlimit(resource.RLIMIT_NOFILE)[1]] * 2)
held = []

def send(text):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect("/run/overlayd/api.sock")
    connection.sendall(text.replace("|", "\\r\\n").encode())
    held.append(connection)
    return connection

counts = {"followers": 0, "refused": 0}
for _ in range(300):
    answer = send("GET /v1/events?follow=1 HTTP/1.1|Host: x||").recv(15)
    counts["followers" if answer == b"HTTP/1.1 200 OK" else "refused"] += 1
begun = "POST /v1/networks HTTP/1.1|Host: x|Content-Length: 9||{"
for _ in range(300):
    send(begun)
for _ in range(300):
    send("")
print(json.dumps(counts), flush=True)
while not select.select([sys.stdin], [], [], 0.1)[0]:
    for text in 10 * ["", begun]:  # for those that were closed, as they stayed silent
        with contextlib.suppress(OSError):
            send(text)
"""


# The stream has no end: grep ends with the first event that was asked for.
FIRST_EVENT = f"""grep -m 1 '"kind":"join"' < <(exec 2>/dev/null
  exec timeout 60 curl -sN --unix-socket {SOCKET} 'http://overlayd/v1/events?follow=1')"""


@pytest.fixture(scope="module")
def host() -> Iterator[AgentDriver]:
    """Return a member, on a host with the group overlayd."""
    assert not host_process.running(), "a lab is up on this machine: overlayd lab down"
    drivers: list[AgentDriver] = []
    try:
        drivers = connect(lab.make(1))
        drivers[0].run(
            "sh", "-c", f"getent group overlayd || echo overlayd:x:{GROUP}: >>/etc/group"
        )
        join_all(drivers)
        yield drivers[0]
    finally:
        end_all(drivers)


def overlayd(
    host: AgentDriver, uid: int, *words: str, group: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run the command line as another user, with a further group or none."""
    groups = ["--groups", str(group)] if group else ["--clear-groups"]
    user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", *groups, *READS]
    program = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "overlay.cli.main", *words]
    return host_process.run(host.host, *user, *program)


def group_id(host: AgentDriver) -> int:
    """Return the group's number on the host."""
    return int(host.run("getent", "group", "overlayd").split(":")[2])


def test_other_users_are_refused_with_the_reason(host: AgentDriver) -> None:
    """Another user gets no answer, and the error names the group with access."""
    done = overlayd(host, STRANGER, "status")

    assert done.returncode == 1
    assert "root and the group overlayd" in done.stderr
    assert "sudo" in done.stderr
    assert done.stdout == ""


def test_the_agent_refuses_others_on_an_open_socket(host: AgentDriver) -> None:
    """If the socket's mode admits anybody, the agent itself refuses by uid."""
    host.run("chmod", "666", SOCKET)
    try:
        done = overlayd(host, STRANGER, "network", "create", "mine", "--subnet", "10.66.0.0/16")
        looked = overlayd(host, STRANGER, "status")
    finally:
        host.run("chmod", "660", SOCKET)

    assert (done.returncode, looked.returncode) == (1, 1)
    assert f"you have uid {STRANGER}" in done.stderr
    assert host.get("/v1/networks")["networks"] == []


def test_the_group_may_manage_networks_and_containers(host: AgentDriver) -> None:
    """A member by a supplementary group may list, create, attach and remove."""
    group = group_id(host)
    for words in (
        ("status",),
        ("network", "create", "blue", "--subnet", "10.32.0.0/16"),
        ("container", "add", "c1", "--network", "blue"),
        ("container", "rm", "c1"),
        ("network", "rm", "blue"),
    ):
        done = overlayd(host, FRIEND, *words, group=group)
        assert done.returncode == 0, f"{words}: {done.stderr}"


@pytest.mark.parametrize("words", ONLY_ROOT, ids=" ".join)
def test_only_root_may_add_or_remove_hosts_and_keys(
    host: AgentDriver, words: tuple[str, ...]
) -> None:
    """The group is refused, and nothing has changed."""
    done = overlayd(host, FRIEND, *words, group=group_id(host))

    assert done.returncode == 1
    assert "only root may" in done.stderr
    assert "ovt1." not in done.stdout + done.stderr
    assert host.get("/v1/status")["cluster"] is not None


def test_every_path_reserved_for_root_is_tested_here(host: AgentDriver) -> None:
    """Each *root* path of docs/API.md is refused to the group, and no other path is."""
    text = (ROOT / "docs" / "API.md").read_text(encoding="utf-8")
    sections = [part.split("\n", 2) for part in text.split("\n### ")[1:]]
    documented = {part[0] for part in sections if part[1].startswith("*root.*")}
    group = group_id(host)
    refused = set()
    for line in (part[0] for part in sections):
        method, path = line.split()
        if method != "GET" or path in ("/v1/events", "/metrics"):
            continue
        asked = host_process.run(
            host.host, "setpriv", f"--reuid={FRIEND}", f"--regid={FRIEND}", "--groups", str(group),
            "curl", "-s", "--unix-socket", SOCKET, f"http://overlayd{path}",
        )  # fmt: skip
        if json.loads(asked.stdout).get("error", {}).get("code") == "forbidden":
            refused.add(line)

    assert refused == {line for line in documented if line.startswith("GET")}
    assert len(refused) > 1


@pytest.fixture
def acting(host: AgentDriver) -> Iterator[AgentDriver]:
    """Return the host with a network and a container that the group may use."""
    host.post("/v1/networks", name="acts", subnets=[{"subnet": "10.79.0.0/16"}])
    host.post("/v1/networks", name="lan", driver="macvlan", parent="eth1",
              subnets=[{"subnet": "192.168.56.0/24", "gateway": "192.168.56.1",
                        "ip_range": "192.168.56.192/26"}])  # fmt: skip
    host.post("/v1/containers", name="a1", networks=["acts"])
    yield host
    host.call("DELETE", "/v1/containers/a1")
    for name in ("acts", "lan"):
        host.call("DELETE", f"/v1/networks/{name}")


ACTS_OF_ROOT = [
    ("publish", "a1", "22:22", "--network", "acts"),
    ("container", "add", "a2", "--network", "acts", "--no-port-security"),
    ("network", "create", "open", "--subnet", "10.80.0.0/16", "--no-port-security"),
    ("network", "create", "any", "--subnet", "10.80.0.0/16", "--any-name"),
    ("network", "create", "public", "--subnet", "8.8.8.0/24"),
    ("network", "create", "seg", "--driver", "macvlan", "--parent", "eth1",
     "--subnet", "192.168.56.0/24", "--gateway", "192.168.56.1"),
    ("container", "add", "a2", "--network", "lan"),
    ("attach", "netns:a1", "--network", "lan"),
    ("attach", "/etc/shadow", "--network", "acts"),
    ("attach", "/root/missing", "--network", "acts"),
    ("container", "add", "a2", "--network", "acts", "--publish", "22:22"),
    ("endpoint", "set", "/etc/shadow", "--add-alias", "x"),
    ("detach", "/etc/shadow"),
    ("detach", "/root/missing"),
]  # fmt: skip


def test_what_amounts_to_root_is_kept_from_the_group(acting: AgentDriver) -> None:
    """Each such act is refused with the setting that allows it, and changes nothing."""
    group = group_id(acting)
    told = {}
    for words in ACTS_OF_ROOT:
        done = overlayd(acting, FRIEND, *words, group=group)
        assert done.returncode == 1, (words, done.stdout, done.stderr)
        assert "only root may" in done.stderr, words
        assert "api_group_trusted" in done.stderr, words
        told[words] = done.stderr

    paths = {told[words] for words in ACTS_OF_ROOT if {"/etc/shadow", "/root/missing"} & {*words}}
    assert len(paths) == 1  # it does not tell what exists
    assert acting.get("/v1/published")["published"] == []
    assert [each["name"] for each in acting.get("/v1/networks")["networks"]] == ["acts", "lan"]
    assert [each["name"] for each in acting.get("/v1/containers")["containers"]] == ["a1"]


def test_the_group_gives_no_public_names(acting: AgentDriver) -> None:
    """Neither as a record nor as the name of a container: DNS does not answer them."""
    group = group_id(acting)
    add = ("dns", "add", "www.example.org", "10.79.0.66", "--network", "acts")
    done = overlayd(acting, FRIEND, *add, group=group)
    assert done.returncode == 2
    assert "outside the domain overlay" in done.stderr
    made = overlayd(
        acting, FRIEND, "container", "add", "mail.example.org", "--network", "acts", group=group
    )
    assert made.returncode == 0, made.stderr
    try:
        for name, code in (("mail.example.org", 5), ("mail.example.org.overlay", 0)):
            assert overlayd(acting, FRIEND, "dns", "lookup", name, group=group).returncode == code
    finally:
        acting.call("DELETE", "/v1/containers/mail.example.org")


def test_a_flipped_link_never_leads_into_the_host(host: AgentDriver) -> None:
    """An attach takes the namespace that was checked, not where the path leads by then."""
    host.post("/v1/networks", name="flip", subnets=[{"subnet": "10.77.0.0/16"}])
    done = host_process.run(host.host, "python3", "-c", FLIP)

    assert done.returncode == 0, done.stderr
    attached, refused = map(int, done.stdout.split())
    assert attached > 0
    assert refused > 0
    assert "flip0" not in host.run("ip", "link")
    assert "flip0" not in host.run("ip", "route")


def test_a_sandbox_cannot_be_a_target(host: AgentDriver) -> None:
    """By its path or through a link: what is attached there would join two networks."""
    host.post("/v1/networks", name="red", subnets=[{"subnet": "10.78.0.0/16"}])
    host.post("/v1/containers", name="c2", networks=["red"])
    names = [line.split()[0] for line in host.run("ip", "netns", "list").splitlines()]
    (sandbox,) = [name for name in names if name.startswith("ov-")]
    host.run("ln", "-s", f"/run/netns/{sandbox}", "/run/overlayd/link")
    try:
        for target in (f"/run/netns/{sandbox}", "/run/overlayd/link"):
            words = ("attach", target, "--network", "red")
            done = overlayd(host, 0, *words)
            assert done.returncode == 6  # conflict
            assert "is a namespace of overlayd's own" in done.stderr
    finally:
        host.run("rm", "/run/overlayd/link")
        host.call("DELETE", "/v1/containers/c2")


def test_a_running_agent_has_only_needed_capabilities(host: AgentDriver) -> None:
    """Every thread has exactly the capabilities that the code gives reasons for."""
    wanted = sum(1 << number for number in KEPT_CAPABILITIES.values())
    threads = list(Path(f"/proc/{host.pid()}/task").iterdir())
    found = {
        line
        for thread in threads
        for line in (thread / "status").read_text(encoding="ascii").splitlines()
        if line.startswith(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
    }

    assert len(threads) > 1
    assert found == {
        *(f"Cap{name}:\t{wanted:016x}" for name in ("Prm", "Eff", "Bnd")),
        *(f"Cap{name}:\t{0:016x}" for name in ("Inh", "Amb")),
    }


def test_one_user_cannot_keep_root_out(host: AgentDriver) -> None:
    """Root gets answers, and leaves, while a member of the group holds all that it can."""
    user = ["setpriv", f"--reuid={FRIEND}", f"--regid={FRIEND}", "--groups", str(group_id(host))]
    command = host_process.enter_command(host.host, [*user, *READS, sys.executable, "-c", HOLD])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        counts = json.loads(holder.stdout.readline())
        refused = overlayd(host, FRIEND, "status", group=group_id(host))
        status = overlayd(host, 0, "status")
        other = overlayd(host, FRIEND + 1, "status", group=group_id(host))
        followed = host_process.run(host.host, "timeout", "60", "bash", "-c", FIRST_EVENT)
        left = overlayd(host, 0, "leave")
        holder.communicate()

    assert counts == {"followers": limits.API_FOLLOWERS_MAX, "refused": 268}
    assert status.returncode == 0, status.stderr
    assert other.returncode == 0, other.stderr
    assert refused.returncode == 1
    assert f"{limits.API_REQUESTS_PER_USER_MAX} requests of this user" in refused.stderr
    assert '"kind":"join"' in followed.stdout
    assert left.returncode == 0, left.stderr
