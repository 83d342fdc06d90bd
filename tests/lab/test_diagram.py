"""The diagram of a lab."""

from __future__ import annotations

from overlay.lab.diagram import DiagramHost, DiagramPing, draw


def test_the_diagram_shows_hosts_vteps_containers_and_pings() -> None:
    """Everything that the lab created is in the diagram."""
    hosts = [
        DiagramHost("vm1", "192.168.56.11", "c1", "10.32.0.2"),
        DiagramHost("vm2", "192.168.56.12", "c2", "10.32.1.0"),
    ]

    text = draw(
        hosts,
        "10.32.0.0/16",
        16777215,
        [DiagramPing("c1", "c2", 0.12), DiagramPing("c1", "c9", None)],
    )

    for word in ("vm1", "[c2] 10.32.1.0", "[vxlan0] vni 16777215", "192.168.56.12", "0.120 ms"):
        assert word in text
    assert "c1 --X--> c9   no reply" in text
    assert len({len(line) for line in text.splitlines()[:9]}) == 1


def test_long_names_do_not_break_the_columns() -> None:
    """A text that is too long is cut to the width of its box."""
    hosts = [DiagramHost("v" * 60, "192.168.56.11", "c" * 60, "10.32.0.2")]

    text = draw(hosts, "10.32.0.0/16", 1, [])

    assert len({len(line) for line in text.splitlines()[:9]}) == 1
