"""Which networks' plans have policies, and when what is compiled is compiled anew."""

from __future__ import annotations

from dataclasses import replace

from overlay.core.dataplane.network_drivers import MACVLAN, labels_of
from overlay.core.dataplane.planning.inputs import PlanInput, RemoteEndpoint
from overlay.core.policy.plans import PolicyPlans
from overlay.core.policy.policy import Policy
from overlay.model import DEFAULT_DENY_LABEL, Network, NodeId, Vni, parse_ip
from tests.core.policy.test_compiler import BLUE, RED, VNI, Kernel, endpoint, policy

B = NodeId(b"B" * 16)
VTEP = parse_ip("192.168.56.12")
GIVEN = PlanInput(BLUE, 4789, parse_ip("192.168.56.11"), 1450, locals=(endpoint(2),))
RED_NETWORK = Network(Vni(701), "red", (RED,), B)
NETWORKS = {VNI: BLUE, RED_NETWORK.vni: RED_NETWORK}


class Source:
    """Policies that a test changes."""

    def __init__(self, *given: Policy) -> None:
        self.given = given

    def policies(self, vni: Vni) -> tuple[Policy, ...]:
        """Return those of the one network."""
        return self.given if vni == VNI else ()


def test_a_network_without_policies_has_no_rows() -> None:
    """Unless it denies by default; and one without a sandbox has nowhere to have them."""
    plans = PolicyPlans(Source())
    closed = replace(BLUE, labels=(DEFAULT_DENY_LABEL,))
    parented = replace(BLUE, labels=(DEFAULT_DENY_LABEL, *labels_of(MACVLAN, "eth0")))

    assert plans.rows(GIVEN, NETWORKS) is None
    assert plans.rows(replace(GIVEN, network=closed), NETWORKS) is not None
    assert not plans.is_policed(parented)
    assert PolicyPlans(Source(policy("no", "deny"))).is_policed(BLUE)


def test_endpoints_of_other_hosts_are_known() -> None:
    """And so are other networks, for the policies that ask for them."""
    source = Source(policy("no", "deny", "network:red", "name=c3"))
    remote = RemoteEndpoint(B, VTEP, endpoint(3))
    rows = PolicyPlans(source).rows(
        replace(GIVEN, remotes=(remote,), locals=(endpoint(3),)), NETWORKS
    )

    assert rows is not None
    kernel = Kernel(rows.rows)
    assert not kernel.decide(parse_ip("10.2.0.9"), endpoint(3).ips[0], 6, 80).allow
    assert kernel.decide(parse_ip("10.3.0.9"), endpoint(3).ips[0], 6, 80).allow


def test_a_plan_without_a_change_has_the_same_rows() -> None:
    """Until policies or endpoints change; without policies nothing is kept."""
    source = Source(policy("no", "deny", "label=web", "name=c2"))
    plans = PolicyPlans(source)
    first = plans.rows(GIVEN, NETWORKS)
    changed = replace(GIVEN, locals=(endpoint(2, ("web", "1")),))

    assert plans.rows(replace(GIVEN), NETWORKS) is first
    assert plans.rows(changed, NETWORKS) is not first
    source.given = ()
    assert plans.rows(changed, NETWORKS) is None
