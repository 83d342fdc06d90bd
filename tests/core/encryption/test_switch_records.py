"""Records by which members switch a network."""

from __future__ import annotations

from overlay.core.encryption.switch_phase import Progress, SwitchPhase
from overlay.core.encryption.switch_records import (
    CAPABLE,
    SwitchRequest,
    progress_of,
    progress_record,
    request_record,
    requests_of,
)
from overlay.core.protocol.records import CustomRecord
from overlay.model import parse_ip
from overlay.wire.codec.records import TAGS, decode_value, encode_value

PROGRESS = Progress(0xC920A7, 1_796_000_000, SwitchPhase.SENDING, is_done=False)
REQUEST = SwitchRequest(7, 0, encrypted=False)


def test_progress_is_read_as_it_was_written() -> None:
    """Of two records for a network the greater counts; others are none."""
    earlier = progress_record(PROGRESS._replace(phase=SwitchPhase.BOTH, is_done=True))
    written = [CAPABLE, earlier, progress_record(PROGRESS), request_record(REQUEST)]
    assert progress_of(written) == {PROGRESS.vni: PROGRESS}


def test_requests_are_read_as_they_were_written() -> None:
    """Beside other records."""
    written = [CAPABLE, progress_record(PROGRESS), request_record(REQUEST)]
    assert list(requests_of(written)) == [REQUEST]


def test_other_names_are_no_records_of_a_switch() -> None:
    """Such as custom DNS records of people."""
    names = ["encryption-7-1-2-done", "encryption-000007-1-5-done", "encryption-000007-after-1-up"]
    written = [CustomRecord(name, (parse_ip("10.0.0.1"),)) for name in names]
    assert progress_of(written) == {}
    assert list(requests_of(written)) == []


def test_agents_of_before_accept_these_records() -> None:
    """As custom DNS records, by the codec of all versions."""
    for record in (CAPABLE, progress_record(PROGRESS), request_record(REQUEST)):
        tag, fields = encode_value(record)
        assert tag == TAGS["name"]
        assert decode_value(tag, tuple(fields)) == record
