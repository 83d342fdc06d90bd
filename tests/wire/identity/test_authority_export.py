"""The authority in a text that a passphrase seals."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import pytest
from overlay import limits
from overlay.errors import ConflictError, ForbiddenError, OverlayError, UsageError
from overlay.wire.identity.authority import Authority, TrustAnchor
from overlay.wire.identity.authority_export import open_authority, seal_authority

PASSPHRASE = "six random words make a passphrase"


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Return an authority."""
    return Authority.generate(os.urandom)


@pytest.fixture(scope="module")
def exported(authority: Authority) -> str:
    """Return the authority's export; sealing takes half a second."""
    return seal_authority(authority, PASSPHRASE, os.urandom)


def changed(text: str, **values: Any) -> str:
    """Return an export with other values and a checksum that matches them."""
    body = json.loads(text) | values
    del body["checksum"]
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return json.dumps(body | {"checksum": hashlib.sha256(canonical).hexdigest()})


def test_an_export_opens_with_its_passphrase(authority: Authority, exported: str) -> None:
    """It fits into one request, and shows neither key nor passphrase."""
    found = open_authority(exported, PASSPHRASE, TrustAnchor(authority.anchor))

    assert found.to_bytes() == authority.to_bytes()
    assert len(exported) < limits.API_TEXT_LENGTH_MAX
    assert authority.to_bytes().hex() not in exported
    assert PASSPHRASE not in exported


def test_two_exports_share_nothing(authority: Authority, exported: str) -> None:
    """Salt and nonce are drawn for each, so equal passphrases do not show."""
    one, two = json.loads(exported), json.loads(seal_authority(authority, PASSPHRASE, os.urandom))

    assert not {one[name] for name in ("salt", "nonce", "sealed")} & set(map(str, two.values()))


def test_a_wrong_passphrase_is_called_that(authority: Authority, exported: str) -> None:
    """The file is whole, so it is not called damaged."""
    with pytest.raises(ForbiddenError, match="passphrase is wrong"):
        open_authority(exported, PASSPHRASE + "x", TrustAnchor(authority.anchor))


def test_another_clusters_export_is_called_that(exported: str) -> None:
    """Both clusters are named, before the passphrase is tried."""
    other = TrustAnchor(Authority.generate(os.urandom).anchor)
    with pytest.raises(ConflictError, match="another cluster") as caught:
        open_authority(exported, "", other)

    assert other.cluster_id.hex()[:8] in caught.value.why


@pytest.mark.parametrize("percent", range(0, 98, 4))
def test_a_damaged_export_is_called_that(authority: Authority, exported: str, percent: int) -> None:
    """Whichever character is another one, and wherever the file ends too early."""
    at = len(exported) * percent // 100
    anchor = TrustAnchor(authority.anchor)
    flipped = exported[:at] + chr(ord(exported[at]) ^ 1) + exported[at + 1 :]
    for text in (flipped, exported[:at]):
        with pytest.raises((UsageError, OverlayError), match=r"not an exported|damaged"):
            open_authority(text, PASSPHRASE, anchor)


@pytest.mark.parametrize(
    "values",
    [
        {"n": 2**13}, {"n": 2**18}, {"n": 2**40}, {"n": "x"}, {"n": 65536.5}, {"n": [65536]},
        {"r": 9}, {"r": 2**20}, {"p": 0}, {"p": 5}, {"p": 10**9}, {"p": True}, {"p": None},
        {"salt": "00"}, {"nonce": ""}, {"sealed": "zz" * 48}, {"sealed": None}, {"cluster": 3},
        {"more": 1},
    ],
)  # fmt: skip
def test_parameters_out_of_bounds_are_refused(
    authority: Authority, exported: str, values: dict[str, Any]
) -> None:
    """No file makes a host spend more memory or time than overlayd's own files do."""
    with pytest.raises(OverlayError, match="damaged"):
        open_authority(changed(exported, **values), PASSPHRASE, TrustAnchor(authority.anchor))


def test_changed_parameters_do_not_open(authority: Authority, exported: str) -> None:
    """They are authenticated, even where both values are allowed."""
    with pytest.raises(ForbiddenError):
        open_authority(changed(exported, p=1), PASSPHRASE, TrustAnchor(authority.anchor))


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "[" * 100_000, '{"schema": "x"}'])
def test_another_file_is_no_export(authority: Authority, text: str) -> None:
    """The error names the command that writes one."""
    with pytest.raises(UsageError, match="not an exported") as caught:
        open_authority(text, PASSPHRASE, TrustAnchor(authority.anchor))

    assert "authority export FILE" in caught.value.hint


@pytest.mark.parametrize("passphrase", ["", "short", "x" * (limits.PASSPHRASE_LENGTH_MAX + 1)])
def test_an_unsuitable_passphrase_is_refused(authority: Authority, passphrase: str) -> None:
    """It alone protects the cluster, so it is neither empty nor short."""
    with pytest.raises(UsageError, match="unsuitable length"):
        seal_authority(authority, passphrase, os.urandom)
