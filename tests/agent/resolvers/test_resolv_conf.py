"""The host's resolvers and search domains."""

from __future__ import annotations

from pathlib import Path

from overlay.agent.resolvers import resolv_conf


def test_the_hosts_resolvers_are_read(tmp_path: Path) -> None:
    """At most three name servers are read; comments and other lines are ignored."""
    path = tmp_path / "resolv.conf"
    lines = [
        "# x",
        "search a",
        "nameserver nobody",
        "nameserver 1.1.1.1",
        "nameserver ::1",
        *["nameserver 2.2.2.2"] * 3,
    ]
    path.write_text("\n".join(lines))

    assert resolv_conf.host_resolvers(path) == ["1.1.1.1", "::1", "2.2.2.2"]
    assert resolv_conf.host_resolvers(path.with_name("none")) == []


def test_resolvers_on_the_loopback_alone_are_noticed(tmp_path: Path) -> None:
    """The stub of systemd-resolved has others behind it; without any there is no problem."""
    path, stub = tmp_path / "resolv.conf", tmp_path / "stub"
    stub.write_text("nameserver 192.0.2.9\n")
    for text, found in (
        ("nameserver 127.0.0.1\nnameserver ::1\n", True),
        ("nameserver 127.0.0.1\nnameserver 192.0.2.1\n", False),
        ("nameserver 127.0.0.53\n", False),
        ("", False),
    ):
        path.write_text(text)
        assert resolv_conf.is_only_on_loopback(path, stub) is found


def test_the_hosts_search_list_is_read(tmp_path: Path) -> None:
    """The last line of `search` or `domain` is the list; the root alone is none."""
    path = tmp_path / "resolv.conf"
    for text, found in (
        ("domain a.example\nsearch b.example c.example\n", ["b.example", "c.example"]),
        ("search b.example\n# search x\n;search y\n", ["b.example"]),
        ("search .\n", []),
        ("nameserver 1.1.1.1\n", []),
    ):
        path.write_text(text)
        assert resolv_conf.host_search(path) == found
    assert resolv_conf.host_search(path.with_name("none")) == []


def test_a_search_list_is_one_that_resolvers_accept() -> None:
    """The host's domains follow overlayd's, up to 6 words and 255 bytes."""
    assert resolv_conf.search_list("overlay", ["a.example", "overlay"]) == ["overlay", "a.example"]
    assert resolv_conf.search_list("overlay", list("abcdefg")) == ["overlay", *"abcde"]
    long = [letter * 100 for letter in "abc"]
    assert resolv_conf.search_list("overlay", long) == ["overlay", *long[:2]]
