"""The health of this node's certificate."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from overlay import limits
from overlay.core.events import AuthorityMessage
from overlay.core.protocol.messages import CertificateRenewal
from overlay.errors import OverlayError
from overlay.model import Certificate
from tests.agent.conftest import Site, Sites

DAY_S = 86_400


def certificate_end_s(site: Site) -> int:
    """Return when a member's certificate ends, in Unix time."""
    certificate = site.gossip.card.certificate
    assert certificate is not None
    return certificate.not_after_s


@pytest.mark.parametrize(
    ("left_s", "text"),
    [
        (limits.CERTIFICATE_RENEWED_S, None),
        (3 * DAY_S, "this node's certificate ends in 3 days"),
        (-1, "this node's certificate has expired"),
    ],
)
async def test_a_certificate_that_ends_soon_is_a_fault(
    sites: Sites, monkeypatch: pytest.MonkeyPatch, left_s: int, text: str | None
) -> None:
    """From half of the renewal period on, as the renewal has failed by then."""
    vm1 = sites.first()
    now_s = float(certificate_end_s(vm1) - left_s)
    monkeypatch.setattr("overlay.agent.gossip.authority.certificate.time.time", lambda: now_s)

    faults = [fault.text for fault in vm1.certificate.faults()]

    assert faults == ([] if text is None else [text])


async def test_the_check_is_frequent_while_a_renewal_is_due(
    sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every hour else; a member without the authority waits for an answer."""
    vm1 = sites.first()
    vm2 = await sites.join(2, vm1, vm1.admission.default_token())
    await vm2.certificate.reconcile()
    assert vm2.certificate.next_interval_s() == limits.CERTIFICATE_CHECK_INTERVAL_S

    now_s = float(certificate_end_s(vm2) - DAY_S)
    monkeypatch.setattr("overlay.agent.gossip.authority.certificate.time.time", lambda: now_s)
    await vm2.certificate.reconcile()

    assert vm2.certificate.next_interval_s() < limits.CERTIFICATE_CHECK_INTERVAL_S


async def test_a_renewal_that_the_disk_rejects_is_a_fault(
    sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is requested again; nothing else depends on it meanwhile."""
    vm1 = sites.first()
    now_s = float(certificate_end_s(vm1) - limits.CERTIFICATE_RENEWED_S)
    monkeypatch.setattr("overlay.agent.gossip.authority.certificate.time.time", lambda: now_s)

    def reject(_: Certificate) -> bool:
        raise OverlayError("cannot write the state file")

    monkeypatch.setattr(vm1.gossip, "use_certificate", reject)
    certificate = vm1.gossip.card.certificate
    assert certificate is not None
    renewed = replace(certificate, not_after_s=certificate.not_after_s + DAY_S)
    vm1.certificate.handle_message(
        AuthorityMessage(vm1.gossip.node_id, CertificateRenewal(renewed))
    )
    await asyncio.sleep(0.01)

    assert [fault.text for fault in vm1.certificate.faults()] == [
        "this node's certificate is not renewed: cannot write the state file"
    ]
