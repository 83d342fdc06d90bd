"""The rows of ports that are kept from plan to plan: whatever changes, they are those made anew."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay.core.dataplane.planning.inputs import LocalPlug, LocalPort, PlanInput, PolicyRows
from overlay.core.dataplane.planning.planner import Abilities, plan_sandbox
from overlay.core.dataplane.planning.ports import PortPlanner, PortRows
from overlay.core.dataplane.port_security import labels_of_allowed
from overlay.model import (
    HOST_LABEL,
    ISOLATE_PORTS_LABEL,
    ISOLATED_LABEL,
    LABEL_PREFIX,
    Endpoint,
    mac_for,
)
from tests.core.dataplane.planning.test_planner import FIVE, FOUR, VNI, endpoint, given_input

LABELS = (
    (),
    (ISOLATED_LABEL,),
    (HOST_LABEL,),
    labels_of_allowed((), (mac_for(VNI, FOUR.base),)),
    ((LABEL_PREFIX + "rate-in", "1000000"),),
    ((LABEL_PREFIX + "storm", "100"),),
    ((LABEL_PREFIX + "vlan", "7"),),
)
# The same objects again and again, as records are.
ENDPOINTS = [
    replace(endpoint(serial, f"10.0.0.{10 + serial}"), labels=labels)
    for serial in range(2)
    for labels in LABELS
]
NETWORKS = [
    replace(given_input(FOUR, FIVE).network, labels=labels)
    for labels in ((), (ISOLATE_PORTS_LABEL,))
]
POLICY = PolicyRows()
ALL = Abilities(fast_path=True, native=True, guarded=True, intercepting=True, policing=True)

chosen = st.lists(st.sampled_from(ENDPOINTS), max_size=3, unique_by=lambda each: each.endpoint_id)
inputs = st.builds(
    lambda network, locals_, policy, plugged, subnet: replace(
        given_input(FOUR, FIVE),
        network=network,
        locals=tuple(locals_),
        ports=tuple(_port(each, subnet) for each in locals_),
        policy=policy,
        plugged=plugged,
    ),
    st.sampled_from([*6 * NETWORKS[:1], *NETWORKS]),  # mostly as before, so that rows are kept
    chosen,
    st.sampled_from([*6 * [None], POLICY]),
    st.sampled_from([*6 * [()], (LocalPlug("plug1", "eth9"),)]),
    st.sampled_from([0, 0, 0, 1]),
)
abilities = st.sampled_from(
    [
        *8 * [ALL],
        ALL._replace(fast_path=False),
        ALL._replace(guarded=False),
        ALL._replace(policing=False),
    ]
)


def _port(each: Endpoint, subnet_index: int) -> LocalPort:
    return LocalPort(f"p{each.name}", subnet_index, each.endpoint_id)


@given(st.lists(st.tuples(inputs, abilities), min_size=2, max_size=6))
def test_kept_rows_are_those_of_a_plan_made_anew(
    sequence: list[tuple[PlanInput, Abilities]],
) -> None:
    """Other endpoints at the same ports, other networks, policies, plugs and abilities."""
    kept = PortRows()
    for each, able in sequence:
        anew = plan_sandbox(each, **able._asdict())
        assert plan_sandbox(each, **able._asdict(), kept=kept) == anew


@pytest.mark.parametrize(
    ("changes", "abilities"),
    [
        ({"network": NETWORKS[1]}, ALL),
        ({"plugged": (LocalPlug("plug1", "eth9"),)}, ALL),
        ({"policy": POLICY}, ALL),
        ({}, ALL._replace(fast_path=False)),
        ({}, ALL._replace(guarded=False)),
        ({"policy": POLICY}, ALL._replace(policing=False)),
    ],
)
def test_what_all_rows_depend_on_may_change(
    changes: dict[str, object], abilities: Abilities
) -> None:
    """Then those of a port that has not changed are others, too."""
    kept, port = PortRows(), _port(ENDPOINTS[0], 0)
    before = given_input(FOUR, FIVE, locals=(ENDPOINTS[0],), ports=(port,))
    former = plan_sandbox(before, **ALL._asdict(), kept=kept)
    after = replace(before, **changes)  # type: ignore[arg-type]
    anew = plan_sandbox(after, **abilities._asdict())
    assert plan_sandbox(after, **abilities._asdict(), kept=kept) == anew != former


def test_only_a_port_that_is_new_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attach beside many containers looks at one."""
    planned: list[str] = []
    rows_of = PortPlanner._rows_of

    def note(self: PortPlanner, port: LocalPort, at: Endpoint | None) -> object:
        planned.append(port.name)
        return rows_of(self, port, at)

    monkeypatch.setattr(PortPlanner, "_rows_of", note)
    kept, locals_ = PortRows(), [endpoint(serial, f"10.0.0.{10 + serial}") for serial in range(3)]
    ports = tuple(_port(each, 0) for each in locals_)
    for count in (2, 3, 3, 1, 2):
        given_now = given_input(FOUR, locals=tuple(locals_[:count]), ports=ports[:count])
        plan_sandbox(given_now, fast_path=True, guarded=True, kept=kept)
    assert planned == ["pc0", "pc1", "pc2", "pc1"]
