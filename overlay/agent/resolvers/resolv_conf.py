"""The host's resolvers and search domains, and what container engines make of them.

Owns: reading resolv.conf(5). Does not: ask a resolver (`agent.dns.upstream`).
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from overlay import limits
from overlay.model import Ip

RESOLV_CONF = Path("/etc/resolv.conf")
STUB_RESOLV_CONF = Path("/run/systemd/resolve/resolv.conf")  # systemd-resolved(8)
_STUB = "127.0.0.53"
# What Docker and Podman write into a container where the host has nothing usable.
_OF_ENGINES = ("8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844")


def host_resolvers(path: Path = RESOLV_CONF) -> list[str]:
    """Return the addresses of the host's name servers, three at most (resolv.conf(5))."""
    found = [words[1] for words in _lines(path) if len(words) > 1 and words[0] == "nameserver"]
    return [word for word in found if _is_address(word)][: limits.DNS_SERVERS_MAX]


def engine_resolvers(path: Path = RESOLV_CONF, of_stub: Path = STUB_RESOLV_CONF) -> tuple[Ip, ...]:
    """Return the resolvers that container engines give to containers, from the host's file.

    Those on the loopback are useless in a container. In place of the stub of systemd-resolved
    alone (`nameserver 127.0.0.53`), engines give the resolvers behind it; without any, Google's.
    """
    words = _behind_stub(path, of_stub)
    found = [ipaddress.ip_address(word) for word in words if "%" not in word]
    # An IPv4 one may be link-local: that of some clouds is, and a container routes to it.
    usable = [each for each in found if not each.is_loopback and not _needs_zone(each)]
    return tuple(Ip(each.packed) for each in usable or map(ipaddress.ip_address, _OF_ENGINES))


def is_only_on_loopback(path: Path = RESOLV_CONF, of_stub: Path = STUB_RESOLV_CONF) -> bool:
    """Return whether all resolvers of the host are on its loopback, so no container reaches any."""
    words = _behind_stub(path, of_stub)
    return bool(words) and all(
        ipaddress.ip_address(word.partition("%")[0]).is_loopback for word in words
    )


def _behind_stub(path: Path, of_stub: Path) -> list[str]:
    words = host_resolvers(path)
    return host_resolvers(of_stub) if words == [_STUB] else words


def _needs_zone(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return ip.version == 6 and ip.is_link_local


def host_search(path: Path = RESOLV_CONF) -> list[str]:
    """Return the host's search domains: those of the last line that has some (resolv.conf(5))."""
    found = [words[1:] for words in _lines(path) if words[0] in ("search", "domain")]
    return [word for word in found[-1] if word != "."] if found else []


def search_list(domain: str, of_host: Sequence[str]) -> list[str]:
    """Return a container's search list: overlayd's domain, then the host's.

    It ends where a resolver would ignore it: after 6 words (glibc) or 255 bytes (musl).
    """
    found = list(dict.fromkeys([domain, *of_host]))[: limits.DNS_SEARCH_MAX]
    while len(" ".join(found)) > limits.DNS_SEARCH_SIZE_MAX and len(found) > 1:
        found.pop()
    return found


def _lines(path: Path) -> list[list[str]]:
    """Return the words of a file's lines, without comments; none if it cannot be read."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        lines = path.read_text(encoding="utf-8").splitlines()
        return [line.split() for line in lines if line.strip() and line[0] not in "#;"]
    return []


def _is_address(word: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(word))
    return False
