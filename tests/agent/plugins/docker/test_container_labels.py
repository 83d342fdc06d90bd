"""Labels of Docker containers that ask for networks, against a service that only notes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.endpoints.spec import AttachSpec, DetachSpec, EndpointOptions
from overlay.agent.plugins.docker import container_labels
from overlay.agent.plugins.docker.container_labels import LabeledContainers, attach_spec
from overlay.agent.process.event_log import EventLog
from overlay.core.dataplane.controls.port_controls import ControlChanges
from overlay.errors import ConflictError, NotFoundError, UsageError
from overlay.model import parse_ip, parse_mac

WEB = {"overlayd.network": "blue", "com.example": "x"}


class Bench:
    """Labeled containers, and a host that attaches them or refuses."""

    def __init__(self, folder: Path) -> None:
        self.done: list[Any] = []
        self.failures: list[ConflictError] = []
        self.attached: dict[str, Any] = {}
        self.running = {"id"}
        self.image: dict[str, str] | None = {}
        components = SimpleNamespace(
            event_log=EventLog(folder),
            attach_service=self,
            attachments=self.attached,
            endpoints=SimpleNamespace(restart=self),
        )
        self.labeled = LabeledContainers(cast("Any", components))

    async def attach(self, spec: AttachSpec) -> None:
        """Attach, or fail as told."""
        if self.failures:
            raise self.failures.pop(0)
        self.done.append(spec)

    async def detach(self, spec: DetachSpec) -> None:
        """Detach."""
        self.done.append(spec)

    async def container_started(self, kind: str, container_id: str) -> bool:
        """Attach a container as it was before."""
        self.done.append((kind, container_id))
        return True

    def query(self, path: str) -> Any:
        """Answer a GET of Docker's API: all containers are of one image."""
        if path.startswith("/containers/json?filters="):
            return [{"ImageID": "sha256:1"}] if self.image is not None else []
        assert path == "/images/sha256%3A1/json"
        return {"Config": {"Labels": self.image}}

    def find(self, _kind: str, container_id: str) -> Any:
        """Return a container as Docker has it."""
        return SimpleNamespace(pid=7, name="web") if container_id in self.running else None


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Return labeled containers without a Docker."""
    made = Bench(tmp_path)
    monkeypatch.setattr(container_labels, "find_container", made.find)
    monkeypatch.setattr(container_labels, "query_docker", made.query)
    return made


def test_labels_have_options_of_the_port() -> None:
    """With the texts of the command line's options."""
    options = attach_spec(
        "docker:id",
        WEB
        | {
            "overlayd.priority": "5",
            "overlayd.storm": "200",
            "overlayd.vlan": "10,20-30",
            "overlayd.isolated": "Yes",
        },
    ).options
    assert options.controls == ControlChanges(storm=200, priority="5")
    assert (str(options.vlans), options.isolated) == ("10,20-30", True)
    assert attach_spec("docker:id", WEB).options == EndpointOptions()


@pytest.mark.parametrize(
    ("label", "text", "told"),
    [
        ("priority", "8", "is not a priority"),
        ("storm", "9", "is not a number of frames a second"),
        ("vlan", "1", "is not a VLAN"),
        ("isolated", "no", "only root may except one"),
        ("allow-non-ip", "all", "is not allowed: only root may"),
        ("allow-ip", "10.0.0.1", "is not allowed: only root may"),
        ("prio", "5", "unknown label overlayd.prio"),
    ],
)
def test_a_label_that_is_not_valid_is_refused(label: str, text: str, told: str) -> None:
    """Also what the members of the group docker may not allow."""
    with pytest.raises(UsageError) as caught:
        attach_spec("docker:id", WEB | {f"overlayd.{label}": text})
    assert told in f"{caught.value.what}: {caught.value.why}"


async def test_a_start_attaches_once_as_it_was_before(bench: Bench) -> None:
    """The addresses of its last run come first; a container without the label is left alone."""
    bench.labeled.started("id", WEB)
    bench.labeled.started("other", {"com.example": "x"})

    for _ in range(2):
        await bench.labeled.reconcile()

    assert bench.done == [("docker", "id"), AttachSpec("docker:id", ("blue",), wait=False)]


async def test_labels_of_an_image_do_not_count(bench: Bench) -> None:
    """An image must not choose its network; where Docker cannot tell, nothing is attached."""
    bench.image = WEB
    bench.labeled.started("id", WEB)
    await bench.labeled.reconcile()
    assert bench.done == []

    bench.image = None
    bench.labeled.started("id", WEB)
    with pytest.raises(NotFoundError, match="which labels are those of the image"):
        await bench.labeled.reconcile()
    bench.image = {"overlayd.network": "red", "overlayd.colour": "x"}
    bench.labeled.started("id", WEB | {"overlayd.colour": "x"})
    await bench.labeled.reconcile()

    assert bench.done[-1].networks == ("blue",)


async def test_missed_starts_are_found(bench: Bench) -> None:
    """In the list of running containers; one that has started is not attached twice."""
    bench.labeled.started("id", WEB)
    await bench.labeled.reconcile()
    bench.done.clear()

    bench.labeled.found({"id": WEB, "late": WEB, "plain": {}})
    await bench.labeled.reconcile()

    assert bench.done[0] == ("docker", "late")
    assert len(bench.done) == 2


async def test_a_refused_attach_is_tried_again_while_it_runs(bench: Bench) -> None:
    """Such as for a name that the former container still has."""
    bench.failures = [ConflictError("the name is taken")] * 3
    bench.labeled.started("id", WEB)
    with pytest.raises(ConflictError, match="web: the name is taken"):
        await bench.labeled.reconcile()
    assert bench.labeled.next_interval_s() is None

    bench.running.clear()
    await bench.labeled.reconcile()

    assert bench.failures == [bench.failures[0]]
    await bench.labeled.reconcile()  # nothing waits
    assert len(bench.failures) == 1


async def test_labels_win_over_what_was_before(bench: Bench) -> None:
    """A container made anew with another address is not attached with that of the former one."""
    bench.attached["e"] = SimpleNamespace(container_id="id")
    bench.failures = [ConflictError("is attached with other options")]
    bench.labeled.started("id", WEB | {"overlayd.ip": "10.32.0.9"})

    await bench.labeled.reconcile()

    _, detached, attached = bench.done
    assert detached == DetachSpec("docker:id", ("blue",))
    assert attached.options.ips == (parse_ip("10.32.0.9"),)


def test_every_label_has_its_option() -> None:
    """Networks, addresses and aliases are separated by commas."""
    labels = {
        "overlayd.network": "blue",
        "overlayd.ip": "10.32.0.9, fd32::9",
        "overlayd.mac": "02:00:00:00:00:09",
        "overlayd.name": "shop",
        "overlayd.alias": "www,store",
    }

    options = attach_spec("docker:id", labels).options

    assert options.ips == (parse_ip("10.32.0.9"), parse_ip("fd32::9"))
    assert options.mac == parse_mac("02:00:00:00:00:09")
    assert (options.name, options.aliases) == ("shop", ("www", "store"))
    assert attach_spec("x", {"overlayd.network": "blue,red"}).networks == ("blue", "red")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({"overlayd.network": "blue", "overlayd.ipp": "x"}, "unknown label overlayd.ipp"),
        ({"overlayd.network": " "}, "needs one network"),
        ({"overlayd.network": "blue,red", "overlayd.ip": "10.32.0.9"}, "overlayd.ip needs one"),
        ({"overlayd.network": "blue", "overlayd.ip": "10.32"}, "is invalid"),
        ({"overlayd.network": "blue", "overlayd.mac": "x"}, "is invalid"),
        ({"overlayd.network": "blue", "overlayd.alias": "a b"}, "'a b' is not a valid name"),
    ],
)
def test_labels_that_cannot_be_are_refused(labels: dict[str, str], told: str) -> None:
    """Each with what is wrong and what to do."""
    with pytest.raises(UsageError) as caught:
        attach_spec("docker:web", labels)

    assert told in str(caught.value)
    assert "Make the container anew" in str(caught.value)


@pytest.mark.parametrize("image", [{}, {"Config": None}, {"Config": {}}, {"Config": {"Cmd": []}}])
async def test_an_image_may_have_no_labels_in_any_form(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, image: dict[str, Any]
) -> None:
    """Docker leaves out what is empty, by version and image; a KeyError ended the agent."""
    answers = [[{"ImageID": "sha256:1"}], {"Id": "sha256:1", **image}]
    monkeypatch.setattr(container_labels, "query_docker", lambda _path: answers.pop(0))
    bench.labeled.started("id", WEB)
    await bench.labeled.reconcile()

    assert [type(each) for each in bench.done] == [tuple, AttachSpec]


@pytest.mark.parametrize("answer", [[{}], [None], {"message": "x"}])
async def test_an_answer_of_another_form_is_a_fault(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    """It is tried again, and the agent goes on."""
    monkeypatch.setattr(container_labels, "query_docker", lambda _path: answer)
    bench.labeled.started("id", WEB)
    await bench.labeled.attempt()

    assert bench.labeled.fault is not None
    assert "web: Docker's answer is not understood" in bench.labeled.fault.text
