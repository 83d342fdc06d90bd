"""The expressions that nftables rules consist of, as values.

Owns: names and attributes of nftables expressions (linux/netfilter/nf_tables.h, nft(8)). Attribute
numbers are in network byte order, as nf_tables expects.
Does not: define any of overlayd's tables.

In this module "match" means: the rule continues if the condition holds.
"""

from __future__ import annotations

import struct
import sys
from typing import Final, NamedTuple, TypeAlias

from overlay.kernel.netlink.codec import attribute

REG_VERDICT: Final = 0
REG_1: Final = 1  # 16 bytes: the four 32-bit registers REG_1 to REG_1 + 12 bytes
_REG_2: Final = 2
REG32_01: Final = 9  # the second 32-bit register, behind the first of REG_1
_ACCEPT, _DROP, _GOTO, _RETURN = 1, 0, -4 & 0xFFFFFFFF, -5 & 0xFFFFFFFF
_CMP_EQUAL, _CMP_UNEQUAL = 0, 1
_DATA_VALUE, _DATA_VERDICT = 1, 2
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2
_LIST_ELEMENT: Final = 1
_NAME, _DATA = 1, 2
_LINK, _NETWORK, _TRANSPORT = 0, 1, 2
_META_PROTOCOL, _META_MARK, _META_IIF, _META_OIF = 1, 3, 4, 5
_META_IIFNAME, _META_OIFNAME = 6, 7
_META_NFPROTO, _META_L4PROTO = 15, 16
_FIB_SADDR, _FIB_DADDR, _FIB_IIF, _FIB_PRESENT, _FIB_OIF, _FIB_TYPE = 1, 2, 8, 32, 1, 3
_FIB_BY_OIF: Final = 16  # a flag; _FIB_OIF is a result
_RTN_LOCAL: Final = 2  # linux/rtnetlink.h
_CT_STATE, _CT_STATUS = 0, 2
_INVALID: Final = 1  # NF_CT_STATE_INVALID_BIT
_KNOWN: Final = 2 | 4  # NF_CT_STATE_BIT of IP_CT_ESTABLISHED and IP_CT_RELATED
_TRANSLATED: Final = 32  # IPS_DST_NAT
_NAT_DESTINATION: Final = 1
_RT_TCPMSS: Final = 3
_TO_NETWORK_ORDER: Final = 1
_TCP_OPTION, _MAXSEG = 1, 2  # NFT_EXTHDR_OP_TCPOPT; RFC 9293 section 3.1: kind 2
_EXTHDR_PRESENT: Final = 1
_LOOKUP_INVERTED: Final = 1
_IPV6_FRAGMENT: Final = 44
_SOCKET_TRANSPARENT: Final = 0
_REJECT_RESET: Final = 1  # NFT_REJECT_TCP_RST
_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")
_COUNTER_PACKETS: Final = 2
_YES: Final = (1).to_bytes(4, sys.byteorder)  # result of a fib lookup with NFTA_FIB_F_PRESENT

IPV4_PROTOCOL, IPV6_PROTOCOL = b"\x02", b"\x0a"  # NFPROTO_IPV4, NFPROTO_IPV6
UDP, TCP = b"\x11", b"\x06"
_NAME_SIZE: Final = 16  # IFNAMSIZ
_NATIVE: Final = struct.Struct("=I")  # values that the kernel keeps in host byte order
_LOOPBACK: Final = _NATIVE.pack(1)  # LOOPBACK_IFINDEX of linux/netdevice.h, in each namespace


class Expression(NamedTuple):
    """One step of a rule: its name and the attributes that overlayd sets."""

    name: str
    data: tuple[tuple[int, bytes], ...] = ()


Rule: TypeAlias = tuple[Expression, ...]


def number(value: int) -> bytes:
    """Return a 32-bit number as an attribute's value."""
    return _U32.pack(value)


def text(value: str) -> bytes:
    """Return a string as an attribute's value; others' names may have any bytes."""
    return value.encode("utf-8", "surrogateescape") + b"\0"


def _meta(key: int, register: int = REG_1) -> Expression:
    return Expression("meta", ((1, number(register)), (2, number(key))))


def _payload(base: int, offset: int, size: int, register: int) -> Expression:
    words = (register, base, offset, size)
    return Expression("payload", tuple((at + 1, number(word)) for at, word in enumerate(words)))


def link_header(offset: int, size: int, register: int = REG_1) -> Expression:
    """Load bytes of the Ethernet header."""
    return _payload(_LINK, offset, size, register)


def network_header(offset: int, size: int, register: int = REG_1) -> Expression:
    """Load bytes of the IP (or ARP) header."""
    return _payload(_NETWORK, offset, size, register)


def transport_header(offset: int, size: int, register: int = REG_1) -> Expression:
    """Load bytes of the transport header.

    Later fragments have none and do not match.
    """
    return _payload(_TRANSPORT, offset, size, register)


def _value(data: bytes) -> bytes:
    return attribute(_DATA_VALUE, data)


def equals(data: bytes) -> Expression:
    """Match if the register starts with these bytes."""
    return Expression("cmp", ((1, number(REG_1)), (2, number(_CMP_EQUAL)), (3, _value(data))))


def differs(data: bytes) -> Expression:
    """Match if the register does not start with these bytes."""
    return Expression("cmp", ((1, number(REG_1)), (2, number(_CMP_UNEQUAL)), (3, _value(data))))


def masked(mask: bytes) -> Expression:
    """Clear the bits of the register that are not in the mask."""
    return Expression(
        "bitwise",
        (
            (1, number(REG_1)),
            (2, number(REG_1)),
            (3, number(len(mask))),
            (4, _value(mask)),
            (5, _value(bytes(len(mask)))),
        ),
    )


def in_set(name: str) -> Expression:
    """Match if the registers' value is in a set."""
    return _lookup(name, 0)


def not_in_set(name: str) -> Expression:
    """Match if the registers' value is not in a set."""
    return _lookup(name, _LOOKUP_INVERTED)


def _lookup(name: str, flags: int) -> Expression:
    return Expression("lookup", ((1, text(name)), (2, number(REG_1)), (5, number(flags))))


def is_ipv4() -> Rule:
    """Match IPv4 (tables of the family inet)."""
    return (_meta(_META_NFPROTO), equals(IPV4_PROTOCOL))


def is_ipv6() -> Rule:
    """Match IPv6 (tables of the family inet)."""
    return (_meta(_META_NFPROTO), equals(IPV6_PROTOCOL))


def ethertype(value: int) -> Rule:
    """Match frames of one EtherType (tables of the family bridge)."""
    return (ethertype_of(), equals(struct.pack(">H", value)))


def ethertype_of(register: int = REG_1) -> Expression:
    """Load the EtherType; of a frame with a VLAN tag, the one behind it."""
    return _meta(_META_PROTOCOL, register)


def transport(protocol: bytes) -> Rule:
    """Match one transport protocol."""
    return (_meta(_META_L4PROTO), equals(protocol))


def iifname_prefix(prefix: str) -> Rule:
    """Match packets received on an interface whose name has a prefix."""
    return (_meta(_META_IIFNAME), equals(prefix.encode("ascii")))


def oifname_prefix(prefix: str) -> Rule:
    """Match packets sent on an interface whose name has a prefix."""
    return (_meta(_META_OIFNAME), equals(prefix.encode("ascii")))


def interface_key(name: str) -> bytes:
    """Return an interface's name as the key of a set."""
    # Interfaces not made by overlayd may have any name: bytes read from /proc/sys are preserved.
    return name.encode("utf-8", "surrogateescape").ljust(_NAME_SIZE, b"\0")


def iifname_in_set(names: str, *, inside: bool = True) -> Rule:
    """Match packets received on an interface of a set.

    Without `inside`, match those on any other interface.
    """
    return (_meta(_META_IIFNAME), in_set(names) if inside else not_in_set(names))


def oifname_in_set(names: str, *, inside: bool = True) -> Rule:
    """Match packets sent on an interface of a set.

    Without `inside`, match those on any other interface.
    """
    return (_meta(_META_OIFNAME), in_set(names) if inside else not_in_set(names))


def iifname_is(name: str) -> Rule:
    """Match packets received on one interface."""
    return (_meta(_META_IIFNAME), equals(interface_key(name)))


def oifname_is(name: str) -> Rule:
    """Match packets sent on one interface."""
    return (_meta(_META_OIFNAME), equals(interface_key(name)))


def oifname_is_not(name: str) -> Rule:
    """Match packets sent on any other interface."""
    return (_meta(_META_OIFNAME), differs(interface_key(name)))


def set_mark(mark: int) -> Rule:
    """Set the packet's mark."""
    return (
        load(REG_1, _NATIVE.pack(mark)),
        Expression("meta", ((2, number(_META_MARK)), (3, number(REG_1)))),
    )


def has_transparent_socket() -> Rule:
    """Match packets for which a socket with IP_TRANSPARENT is open here (nft(8), `socket`)."""
    load = Expression("socket", ((1, number(_SOCKET_TRANSPARENT)), (2, number(REG_1))))
    return (load, equals(b"\x01"))


def has_mark(mark: int) -> Rule:
    """Match packets whose mark has all bits of `mark`."""
    bits = _NATIVE.pack(mark)
    return (_meta(_META_MARK), masked(bits), equals(bits))


def lacks_mark(mark: int) -> Rule:
    """Match packets whose mark does not have all bits of `mark`."""
    bits = _NATIVE.pack(mark)
    return (_meta(_META_MARK), masked(bits), differs(bits))


def mark_is(mark: int) -> Rule:
    """Match packets with exactly this mark."""
    return (_meta(_META_MARK), equals(_NATIVE.pack(mark)))


def mark_is_not(mark: int) -> Rule:
    """Match packets with any other mark."""
    return (_meta(_META_MARK), differs(_NATIVE.pack(mark)))


def reject_with_reset() -> Expression:
    """Refuse a TCP packet with a reset."""
    return Expression("reject", ((1, number(_REJECT_RESET)),))


def incoming_index(register: int = REG_1) -> Expression:
    """Load the index of the interface that received the packet."""
    return _meta(_META_IIF, register)


def outgoing_index(register: int = REG_1) -> Expression:
    """Load the index of the interface that sends the packet."""
    return _meta(_META_OIF, register)


def to_port(protocol: bytes, port: int) -> Rule:
    """Match TCP or UDP to one port."""
    return (*transport(protocol), transport_header(2, 2), equals(struct.pack(">H", port)))


def udp_to(port: int) -> Rule:
    """Match UDP to one port."""
    return to_port(UDP, port)


def udp_from(port: int) -> Rule:
    """Match UDP from one port."""
    return (*transport(UDP), transport_header(0, 2), equals(struct.pack(">H", port)))


def passes_reverse_path() -> Rule:
    """Match if a reply to the sender would leave by the receiving interface.

    Strict reverse path filtering (RFC 3704 section 2.2), by the `fib` expression of nft(8). That
    lets through whatever comes by the loopback, where any user of IPv6 can have any source address
    (IPV6_FREEBIND), so nothing does that comes by it.
    """
    flags = _FIB_SADDR | _FIB_IIF | _FIB_PRESENT
    fib = Expression("fib", ((1, number(REG_1)), (2, number(_FIB_OIF)), (3, number(flags))))
    return (incoming_index(), differs(_LOOPBACK), fib, equals(_YES))


def from_range(base: bytes, prefix_length: int) -> Rule:
    """Match packets from an address range."""
    return _within(base, prefix_length, 12 if len(base) == 4 else 8)


def to_range(base: bytes, prefix_length: int) -> Rule:
    """Match packets to an address range."""
    return _within(base, prefix_length, 16 if len(base) == 4 else 24)


def _within(base: bytes, prefix_length: int, offset: int) -> Rule:
    size = len(base)
    family = is_ipv4() if size == 4 else is_ipv6()
    load = network_header(offset, size)
    if prefix_length == 8 * size:
        return (*family, load, equals(base))
    ones = (1 << 8 * size) - (1 << 8 * size - prefix_length)
    return (*family, load, masked(ones.to_bytes(size, "big")), equals(base))


def to_this_host() -> Rule:
    """Match packets to an address of this host."""
    return _is_local(_FIB_DADDR)


def from_this_host() -> Rule:
    """Match packets from an address of this host."""
    return _is_local(_FIB_SADDR)


def from_outgoing_interface() -> Rule:
    """Match packets from an address of the interface by which they leave."""
    return _is_local(_FIB_SADDR | _FIB_BY_OIF)


def not_from_this_host() -> Rule:
    """Match packets from an address that this host does not have."""
    return (_address_type(_FIB_SADDR), differs(_NATIVE.pack(_RTN_LOCAL)))


def _is_local(address: int) -> Rule:
    return (_address_type(address), equals(_NATIVE.pack(_RTN_LOCAL)))


def _address_type(address: int) -> Expression:
    return Expression("fib", ((1, number(REG_1)), (2, number(_FIB_TYPE)), (3, number(address))))


def ct_established() -> Rule:
    """Match packets of accepted connections (established or related)."""
    return _tracked(_CT_STATE, _KNOWN)


def ct_invalid() -> Rule:
    """Match packets that connection tracking cannot assign, and so are not translated."""
    return _tracked(_CT_STATE, _INVALID)


def ct_dnat() -> Rule:
    """Match connections whose destination was translated (`dnat_to`)."""
    return _tracked(_CT_STATUS, _TRANSLATED)


def _tracked(key: int, bits: int) -> Rule:
    load = Expression("ct", ((1, number(REG_1)), (2, number(key))))
    return (load, masked(_NATIVE.pack(bits)), differs(bytes(4)))


def dnat_to(ip: bytes, port: int) -> Rule:
    """Translate the connection's destination address and port (RFC 2663)."""
    data = (
        (1, number(_NAT_DESTINATION)),
        (2, number((IPV4_PROTOCOL if len(ip) == 4 else IPV6_PROTOCOL)[0])),
        (3, number(REG_1)),
        (5, number(_REG_2)),
    )
    return (load(REG_1, ip), load(_REG_2, struct.pack(">H", port)), Expression("nat", data))


def load(register: int, value: bytes) -> Expression:
    """Load a constant."""
    return Expression("immediate", ((1, number(register)), (2, _value(value))))


def masquerade() -> Expression:
    """Translate the source to the outgoing interface's address (RFC 3022)."""
    return Expression("masq")


def clamp_mss() -> Rule:
    """Lower the MSS of a TCP handshake to what the route's MTU allows.

    RFC 9293 section 3.7.1 defines the MSS; path MTU discovery alone fails where ICMP is filtered
    (RFC 2923 section 2.1).
    """
    registers = ((1, number(REG_1)), (2, number(REG_1)), (3, number(_TO_NETWORK_ORDER)))
    write = ((2, bytes([_MAXSEG])), (3, number(2)), (4, number(2)), (6, number(_TCP_OPTION)))
    return (
        *transport(TCP),
        transport_header(13, 1),
        masked(b"\x06"),  # SYN and RST
        equals(b"\x02"),
        Expression("rt", ((1, number(REG_1)), (2, number(_RT_TCPMSS)))),
        Expression("byteorder", (*registers, (4, number(2)), (5, number(2)))),
        Expression("exthdr", (*write, (7, number(REG_1)))),
    )


def is_ipv6_fragment() -> Rule:
    """Match packets with an IPv6 Fragment header (RFC 8200 section 4.5)."""
    data = ((1, number(REG_1)), (2, bytes([_IPV6_FRAGMENT])), (3, number(0)), (4, number(1)))
    return (Expression("exthdr", (*data, (5, number(_EXTHDR_PRESENT)))), equals(b"\x01"))


def notrack() -> Expression:
    """Exclude the packet from connection tracking, and thereby from NAT."""
    return Expression("notrack")


def counter() -> Expression:
    """Count packets."""
    return Expression("counter")


def _verdict(code: int, chain: str = "") -> Expression:
    inner = attribute(_VERDICT_CODE, number(code))
    if chain:
        inner += attribute(_VERDICT_CHAIN, text(chain))
    data = attribute(_DATA_VERDICT, inner)
    return Expression("immediate", ((1, number(REG_VERDICT)), (2, data)))


def accept() -> Expression:
    """Accept the packet at this hook."""
    return _verdict(_ACCEPT)


def drop() -> Expression:
    """Drop the packet."""
    return _verdict(_DROP)


def return_to_caller() -> Expression:
    """Continue in the calling chain, after the rule that entered this one."""
    return _verdict(_RETURN)


def goto(chain: str) -> Expression:
    """Continue in another chain, without returning."""
    return _verdict(_GOTO, chain)
