"""Which components an event of the node reaches."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import pytest
from overlay.agent.event_router import EventRouter
from overlay.agent.frame_forwarding import FrameForwarding
from overlay.agent.gossip.administration import Administration
from overlay.agent.gossip.authority.holders import HOLDER_KEY
from overlay.agent.ipam.address_management import AddressManagement
from overlay.agent.name_resolution import NameResolution
from overlay.core.events import (
    CaptureMessage,
    CardAccepted,
    CheckMessage,
    ConfirmRequested,
    Event,
    GrantRefused,
    GrantRequested,
    Healed,
    MemberChanged,
    NodeForgotten,
    OwnCardAhead,
    PathReported,
    SightingMessage,
    StoreChanged,
    TraceMessage,
)
from overlay.core.keys.rotation_driver import KEY_STATE_KEY
from overlay.core.protocol.capture import CaptureAnswer, CaptureRequest, CaptureStatus
from overlay.core.protocol.messages import CheckRequest, MemberState
from overlay.core.protocol.records import CLUSTER_SCOPE, Scope
from overlay.model import NodeId
from overlay.signals import Signal

OWN, OTHER = NodeId(b"o" * 16), NodeId(b"x" * 16)
ENCRYPTION = ("encryption", "encryption_switch")


class Bench:
    """A router whose consumers only note their calls."""

    def __init__(self) -> None:
        self.calls = MagicMock()
        self.calls.gossip.node_id = OWN
        self.calls.gossip.transport.event_occurred = Signal()
        self.calls.directory.node_name.return_value = "vm2"
        self.calls.reserves.handle_refusal.return_value = False
        names = (
            "adoption", "conflict_report", "exposure", "removed_networks", "declared", "networks",
            "diagnosis", "netcheck", "service_data_plane", "plugs", "multicast", "routers",
        )  # fmt: skip
        cast("Any", EventRouter)(
            context=self.calls,
            administration=self._of(
                Administration, "admission", "sharing", "certificate", "identity_conflicts",
                "key_rotation", "protocol_versions",
            ),
            ipam=self._of(AddressManagement, "allocator", "grants", "reclaim", "reserves"),
            forwarding=self._of(
                FrameForwarding, "reconciler", "underlay", "paths", "encryption",
                "encryption_switch", "mtu_controller", "evpn",
            ),
            names=self._of(NameResolution, "resolver", "removed_records"),
            **{name: getattr(self.calls, name) for name in names},
        )  # fmt: skip

    def _of(self, group: type, *names: str) -> Any:
        """Return a group of components that only note their calls."""
        made: Any = object.__new__(group)
        for name in names:
            setattr(made, name, getattr(self.calls, name))
        return made

    def emit(self, event: Event) -> set[str]:
        """Let the transport announce an event; return the components that were called."""
        self.calls.reset_mock()
        self.calls.gossip.transport.event_occurred.emit(event)
        return {name.partition(".")[0].partition("()")[0] for name, *_ in self.calls.mock_calls}


@pytest.fixture
def bench() -> Bench:
    """Return a router."""
    return Bench()


def test_a_rotation_concerns_the_keys_alone(bench: Bench) -> None:
    """Each member writes its key state, and no row depends on it."""
    assert bench.emit(StoreChanged(OTHER, CLUSTER_SCOPE, (KEY_STATE_KEY,))) == {"key_rotation"}


def test_a_holders_record_concerns_those_who_share(bench: Bench) -> None:
    """A new holder of the authority may be the last one that was missing."""
    reached = bench.emit(StoreChanged(OTHER, CLUSTER_SCOPE, (HOLDER_KEY,)))

    assert reached >= {"sharing", "admission"}


def test_records_of_the_cluster_dirty_all_sandboxes(bench: Bench) -> None:
    """A network's definition may concern any of them."""
    reached = bench.emit(StoreChanged(OTHER, CLUSTER_SCOPE, (("network", b"\0\0\1"),)))

    assert reached >= {"admission", "declared", "evpn", "exposure", "removed_networks", "resolver"}
    bench.calls.reconciler.mark_dirty.assert_called_once_with()


@pytest.mark.parametrize("scope", [Scope(7), CLUSTER_SCOPE])
def test_records_that_are_here_are_only_programmed(bench: Bench, scope: Scope) -> None:
    """A member waits for the kernel alone: all others followed when the records came."""
    assert bench.emit(ConfirmRequested(scope)) == {"reconciler"}
    bench.calls.reconciler.mark_dirty.assert_called_once_with(scope)


@pytest.mark.parametrize("has_services", [True, False])
@pytest.mark.parametrize("has_port", [True, False])
def test_services_follow_networks_that_have_some(
    bench: Bench, *, has_services: bool, has_port: bool
) -> None:
    """Elsewhere an endpoint is nobody's backend, and holds no port that a service wants."""
    bench.calls.service_data_plane.depends_on.return_value = has_services
    bench.calls.exposure.published_ports.has_port_on.return_value = has_port
    bench.emit(StoreChanged(OTHER, Scope(7), (("endpoint", b"e"),)))

    assert bench.calls.service_data_plane.trigger.called is (has_services or has_port)
    assert bench.calls.exposure.ingress.trigger.called is (has_services or has_port)


def test_records_without_a_sandbox_count_as_programmed(bench: Bench) -> None:
    """A node that only holds records confirms them at once."""
    bench.calls.reconciler.runtime.return_value = None
    bench.emit(StoreChanged(OTHER, Scope(7), (("endpoint", b"e"),)))

    bench.calls.gossip.node.confirmations.programmed.assert_called_once()
    bench.calls.reconciler.mark_dirty.assert_not_called()


def test_a_card_of_its_own_plans_nothing_anew(bench: Bench) -> None:
    """This node's own VTEP is in none of its rows; another node's is."""
    own, other = (cast("Any", SimpleNamespace(node_id=node_id)) for node_id in (OWN, OTHER))

    assert bench.emit(CardAccepted(own)) == {"gossip"}
    assert bench.emit(CardAccepted(other)) == {"gossip", "encryption", "reconciler", "paths"}


@pytest.mark.parametrize(
    ("after", "is_marked"),
    [(MemberState.SUSPECT, True), (MemberState.DEAD, True), (MemberState.LEFT, False)],
)
def test_sessions_learn_of_members_that_do_not_answer(
    bench: Bench, after: MemberState, *, is_marked: bool
) -> None:
    """The gossip service is one of the consumers, beside those that show and plan."""
    reached = bench.emit(MemberChanged(OTHER, MemberState.ALIVE, after))

    assert reached >= {"key_rotation", "sharing", "resolver", "underlay", "event_log"}
    assert bench.calls.gossip.member_unresponsive.called is is_marked


@pytest.mark.parametrize(
    ("event", "reached"),
    [
        (
            NodeForgotten(OTHER),
            {"gossip", "admission", "sharing", "key_rotation", *ENCRYPTION},
        ),
        (OwnCardAhead(5), {"gossip"}),
        (GrantRequested(OTHER, cast("Any", object())), {"grants"}),
        (GrantRefused(OTHER, cast("Any", object())), {"reserves", "allocator"}),
        (PathReported(OTHER, cast("Any", object())), {"paths"}),
        (TraceMessage(OTHER, cast("Any", object())), {"diagnosis"}),
        (SightingMessage(OTHER, cast("Any", object())), {"diagnosis"}),
        (CheckMessage(OTHER, CheckRequest(7)), {"netcheck"}),
        (Healed(), {"event_log"}),
    ],
)
def test_each_event_reaches_those_it_concerns(
    bench: Bench, event: Event, reached: set[str]
) -> None:
    """Nothing else is called."""
    assert bench.emit(event) == reached


def test_a_refused_reserve_does_not_reach_attaches(bench: Bench) -> None:
    """Each request is one component's."""
    bench.calls.reserves.handle_refusal.return_value = True

    assert bench.emit(GrantRefused(OTHER, cast("Any", object()))) == {"reserves"}


def test_a_capture_has_two_sides(bench: Bench) -> None:
    """Requests and answers of members go to different components."""
    status = CaptureStatus(0, 1, 0, "eth0")
    asked = CaptureRequest(b"request1", 1, 9, (b"ownendpt", b"peersend"), 100, b"", 1000)
    bench.emit(CaptureMessage(OTHER, asked))
    bench.calls.diagnosis.capture_answers.handle_request.assert_called_once_with(OTHER, asked)
    answered = CaptureAnswer(b"request1", 1, 5, status)
    bench.emit(CaptureMessage(OTHER, answered))
    bench.calls.diagnosis.far_ends.handle_answer.assert_called_once_with(OTHER, answered)
