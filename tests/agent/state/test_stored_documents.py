"""The documents on disk keep the kinds, keys and JSON that earlier versions wrote."""

from __future__ import annotations

import sqlite3
import zlib
from pathlib import Path
from typing import Any

import pytest
from overlay.agent.state import docker_documents, documents, membership_documents, wireguard_keys
from overlay.agent.state.database import Row, StateDatabase
from overlay.agent.state.state_file import FILE_NAME
from overlay.agent.state.table import Table

_32 = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
_64 = f"{_32}202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"

# Rows as commit 6b0f324 wrote them, before there were tables.
STORED = [
    ("authority", "", f'"{_32}"'),
    (
        "certificate",
        "",
        (
            '{"address": "c0000201", "not_after_s": 1800000000, "not_before_s": 1700000000, '
            f'"signature": "{"07" * 64}"}}'
        ),
    ),
    (
        "cluster",
        "",
        (
            f'{{"address": "192.0.2.1", "anchor": "{"cd" * 32}", "cluster_id": "{"ab" * 16}", '
            '"gossip_port": 7946, "node_name": "vm1", "seeds": ["192.0.2.2", "peer.example:7000"], '
            '"underlay": null, "vxlan_port": 4789}'
        ),
    ),
    ("container", "hosted", '{"host": true}'),
    (
        "container",
        "named",
        (
            '{"dns_options": ["ndots:2"], "dns_search": ["a.example", "b.example"], '
            '"dns_servers": ["192.0.2.53"]}'
        ),
    ),
    ("container", "lasting", '{"restart": "always"}'),
    ("container", "own", "{}"),
    ("container", "shared", '{"shares": "own"}'),
    (
        "ended",
        f"{'f' * 64}/9",
        (
            f'{{"aliases": ["sql", "pg"], "container_id": "{"f" * 64}", "gateway": false, '
            '"gateway_priority": 2, "ifname": "eth1", "ip": "10.32.0.9", '
            '"labels": [["tier", "data"]], "mac": "020000000009", "name": "db", '
            '"target": "docker:db", "vni": 9}'
        ),
    ),
    (
        "ended",
        "lasting/9",
        (
            '{"aliases": [], "container_id": "lasting", "gateway": true, "gateway_priority": 0, '
            '"ifname": "eth0", "ip": "10.32.0.8", "labels": [], "mac": "020000000008", '
            '"more_ips": ["fd00::8"], "name": "lasting", "removed_s": 1700000000.5, '
            '"target": "netns:lasting", "vni": 9}'
        ),
    ),
    (
        "endpoint",
        "0102030405060708",
        (
            '{"container_id": null, "endpoint_id": "0102030405060708", "gateway": true, '
            '"gateway_priority": 5, "ifname": "eth0", "netns_identity": [4, 4026532000], '
            '"netns_path": "/run/netns/web", "parent": "", "plugged": true, '
            '"port": "ve010203040506", "subnet_index": 0, "target": "netns:web", "vni": 7}'
        ),
    ),
    (
        "endpoint",
        "1112131415161718",
        (
            f'{{"container_id": "{"f" * 64}", "endpoint_id": "1112131415161718", "gateway": false, '
            '"gateway_priority": 0, "ifname": "", "netns_identity": [4, 4026532001], '
            '"netns_path": "/proc/77/ns/net", "parent": "enp3s0", "plugged": false, '
            '"port": "ve111213141516", "subnet_index": 1, "target": "docker:db", "vni": 9}'
        ),
    ),
    (
        "endpoint",
        "2122232425262728",
        (
            '{"container_id": null, "endpoint_id": "2122232425262728", "gateway": true, '
            '"gateway_priority": 0, "hands_off": true, "ifname": "eth0", '
            '"netns_identity": [4, 4026532002], "netns_path": "/run/netns/nm", "parent": "", '
            '"plugged": true, "port": "ve212223242526", "subnet_index": 0, '
            '"target": "netns:nm", "vni": 7}'
        ),
    ),
    ("epoch", "", "2"),
    ("exposure", "12", "false"),
    ("exposure", "7", "true"),
    ("host-addresses", "7", '["0a20fffe", "fd320000000000000000000000000001"]'),
    ("identity", "", f'"{_32}{_32}"'),
    (
        "keyring",
        "",
        (
            f'{{"keys": [{{"generation": 3, "made_s": 1700000000, "secret": "{_32}", '
            f'"warrant": "{_64}"}}], "sealing": [3, 59612]}}'
        ),
    ),
    ("lost", "", '{"copied_s": 1700000000.5, "found_s": 1700000600.25, "why": "it was damaged"}'),
    (
        "published",
        "*:8080/tcp",
        (
            '{"host_ip": "", "host_port": 8080, "name": "web", "port": 80, "protocol": "tcp", '
            '"vni": 7}'
        ),
    ),
    (
        "published",
        "[2001:db8::1]:53/udp",
        (
            '{"host_ip": "20010db8000000000000000000000001", "host_port": 53, "name": "dns", '
            '"port": 5353, "protocol": "udp", "vni": 7}'
        ),
    ),
    ("wireguard", "", f'{{"epoch": 1, "private": "{_32}"}}'),
    ("reservation", "7/10.77.0.2", '{"for_any_node": false, "ip": "10.77.0.2", "vni": 7}'),
    (
        "docker-endpoint",
        "6ab35d0f735b",
        (
            '{"endpoint_id": "6ab35d0f735b", "ips": ["10.77.0.2"], "mac": "029f558932a9", '
            '"network_id": "dc417cd8c128"}'
        ),
    ),
    (
        "docker-network",
        "dc417cd8c128",
        (
            '{"freed": false, "internal": false, "name": "green", "network_id": "dc417cd8c128", '
            '"of_swarm": false, "vni": 7}'
        ),
    ),
    (
        "docker-pool",
        "overlayd-1d935555c913aba7",
        (
            '{"auxiliary": [["router", "10.77.0.9"]], "chosen": false, "gateway": "10.77.0.1", '
            '"ip_range": "", "network_id": "dc417cd8c128", "network_name": "", '
            '"pool_id": "overlayd-1d935555c913aba7", "subnet": "10.77.0.0/16"}'
        ),
    ),
    ("plug", "7", '{"interface": "eth2", "segment": "wire"}'),
    ("token", "", f'{{"id": "0101010101010101", "secret": "{_32}"}}'),
    (
        "unplugging",
        "ve111213141516",
        '{"identity": [4, 4026532001], "netns_path": "/proc/77/ns/net"}',
    ),
]
TABLES = {
    table.kind: table
    for module in (docker_documents, documents, membership_documents, wireguard_keys)
    for table in vars(module).values()
    if isinstance(table, Table)
}


def written(directory: Path) -> list[tuple[str, str, str, int]]:
    """Return the rows that are in the file, without its own history."""
    connection = sqlite3.connect(directory / FILE_NAME)
    found = connection.execute(
        "SELECT kind, key, json, checksum FROM value WHERE kind <> 'file' ORDER BY kind, key"
    ).fetchall()
    connection.close()
    return found


@pytest.fixture
def state(tmp_path: Path) -> Any:
    """Return a state database that an earlier version has filled."""
    StateDatabase(tmp_path).close()
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.executemany(
        "INSERT INTO value VALUES (?, ?, ?, ?)",
        [(kind, key, text, zlib.crc32(text.encode())) for kind, key, text in STORED],
    )
    connection.commit()
    connection.close()
    return StateDatabase(tmp_path)


def test_every_kind_has_stored_rows_here() -> None:
    """A new kind of document is added to the rows of this test."""
    assert TABLES.keys() == {kind for kind, _, _ in STORED}


def test_rows_are_rewritten_byte_for_byte(state: StateDatabase) -> None:
    """Documents that are read and stored again are the rows that were there before."""
    before = written(state.directory)
    loaded = {kind: table.load(state) for kind, table in TABLES.items()}
    state.commit(table.deletion(key) for kind, key, _ in STORED for table in [TABLES[kind]])
    assert written(state.directory) == []

    state.commit(TABLES[kind].row(each) for kind, found in loaded.items() for each in found)
    state.close()

    assert written(state.directory) == before


def test_a_document_is_found_by_its_key(state: StateDatabase) -> None:
    """`find` returns the document that `load` has, and None for a key that is not stored."""
    for table in TABLES.values():
        for document in table.load(state):
            found = table.find(state, table.key(document))
            assert table.row(found) == table.row(document)
        assert table.find(state, "no such key") is None
    state.close()


def test_a_dropped_document_is_gone(state: StateDatabase) -> None:
    """`drop` deletes one document of a kind and leaves the others."""
    documents.CONTAINERS.drop(state, "named")

    names = [each.name for each in documents.CONTAINERS.load(state)]
    assert names == ["hosted", "lasting", "own", "shared"]
    state.close()


def test_a_membership_replaces_an_interrupted_one(state: StateDatabase) -> None:
    """The rows of a new membership delete the token and authority of an earlier attempt."""
    (key,) = membership_documents.require_keyring(state).keys
    state.commit(membership_documents.rows(key))

    assert membership_documents.TOKEN.find(state) is None
    assert membership_documents.AUTHORITY.find(state) is None
    assert membership_documents.CERTIFICATE.find(state) is None
    state.close()


def test_an_attachment_without_newer_fields_is_read(state: StateDatabase) -> None:
    """Fields that later versions added have their defaults; `plugged` was implied."""
    key, text = next(
        (key, text) for kind, key, text in STORED if kind == "endpoint" and '"web' not in text
    )
    for field in ('"gateway_priority": 5, ', '"parent": "", ', '"plugged": true, '):
        text = text.replace(field, "")
    state.commit([Row("endpoint", key, text)])

    attachment = documents.ATTACHMENTS.find(state, key)

    assert attachment is not None
    assert (attachment.plugged, attachment.parent, attachment.gateway_priority) == (True, "", 0)
    state.close()


def test_rows_from_before_swarms_are_read(state: StateDatabase) -> None:
    """An address was reserved for this node, and a network was Docker's own."""
    state.commit(
        [
            Row("reservation", "7/10.77.0.2", '{"ip": "10.77.0.2", "vni": 7}'),
            Row(
                "docker-network",
                "dc417cd8c128",
                '{"internal": false, "name": "green", "network_id": "dc417cd8c128", "vni": 7}',
            ),
        ]
    )

    reservation = documents.RESERVATIONS.find(state, "7/10.77.0.2")
    network = docker_documents.NETWORKS.find(state, "dc417cd8c128")
    assert reservation is not None
    assert network is not None
    assert (reservation.for_any_node, network.of_swarm, network.freed) == (False, False, False)
    state.close()


def test_the_epoch_increases_with_each_start(state: StateDatabase) -> None:
    """The number of starts is stored before it is returned."""
    assert membership_documents.next_epoch(state) == 3
    assert membership_documents.EPOCH.find(state) == 3
    state.close()
