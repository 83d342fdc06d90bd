"""A DNS query that a container sent, and the replies to it.

Owns: the DNS format (by dnslib), the size of answers, and which queries may be forwarded.
Does not: resolve names or know sockets.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from dnslib import EDNS0, QTYPE, RCODE, RR, DNSRecord
from dnslib.dns import DNSError

SIZE_MAX = 65535  # RFC 1035 section 4.2.2
_UDP_SIZE_DEFAULT = 512  # RFC 1035 section 4.2.1
_UDP_SIZE_MAX = 1232  # fits any path; RFC 6891 allows less than the client accepts
_HEADER_SIZE = 12
_CLASS_IN = 1
_META_TYPES = range(128, 256)  # RFC 6895 section 3.1: AXFR, IXFR, ANY, TSIG and others
_TYPE_OPT = 41


@dataclass(frozen=True, slots=True)
class Query:
    """A query with one question, as it was received."""

    raw: bytes
    record: DNSRecord

    @classmethod
    def parse(cls, raw: bytes) -> Query | None:
        """Read a message; return None if it is not a query with exactly one question."""
        try:
            record = DNSRecord.parse(raw)
            if record.header.qr or len(record.questions) != 1:
                return None
        except (DNSError, ValueError, IndexError, struct.error):
            return None
        return cls(raw, record)

    @property
    def name(self) -> str:
        """The name that is asked for."""
        return str(self.record.q.qname)

    @property
    def kind(self) -> str:
        """The type that is asked for, such as AAAA; empty if it is unknown."""
        return str(QTYPE.get(self.record.q.qtype, ""))

    @property
    def is_lookup(self) -> bool:
        """Whether it asks for records of one name on the Internet, and not for a zone transfer."""
        return self.record.q.qclass == _CLASS_IN and self.kind not in ("AXFR", "IXFR")

    @property
    def may_be_forwarded(self) -> bool:
        """Whether it may be forwarded: only a lookup of an ordinary type may be."""
        header, kind = self.record.header, self.record.q.qtype
        is_plain = not header.a and not header.auth  # only updates and transfers carry records
        return self.is_lookup and is_plain and kind not in _META_TYPES and kind != _TYPE_OPT

    @property
    def udp_size(self) -> int:
        """How many bytes the client accepts in an answer by UDP (RFC 6891 section 6.2.3)."""
        for extra in self.record.ar:
            if extra.rtype == QTYPE.OPT:
                return max(_UDP_SIZE_DEFAULT, int(extra.edns_len))
        return _UDP_SIZE_DEFAULT

    def own_size(self, *, by_tcp: bool) -> int:
        """Return how many bytes an answer from this node may have."""
        return SIZE_MAX if by_tcp else min(self.udp_size, _UDP_SIZE_MAX)

    def failure(self, code: int) -> bytes:
        """Return a reply that has only a response code."""
        return bytes(self._reply(code).pack())

    def answer(self, records: Sequence[RR], size_max: int, code: int = RCODE.NOERROR) -> bytes:
        """Return an authoritative answer with as many records as fit, truncated if some do not.

        A truncated answer keeps its question, without which no C library asks again by TCP. By TCP
        nobody asks again: an answer that is too large even for that is not marked.
        """
        reply = self._reply(code, aa=1)
        reply.add_answer(*records)
        packed = bytes(reply.pack())
        while len(packed) > size_max:
            reply.header.tc = int(size_max < SIZE_MAX)
            del reply.rr[len(reply.rr) * size_max // len(packed) :]
            packed = bytes(reply.pack())
        return packed

    def truncated(self) -> bytes:
        """Return a reply that tells the client to ask by TCP."""
        reply = self._reply(RCODE.NOERROR)
        reply.header.tc = 1
        return bytes(reply.pack())

    def _reply(self, code: int, aa: int = 0) -> DNSRecord:
        reply: DNSRecord = self.record.reply(ra=1, aa=aa)
        reply.header.rcode = code
        if any(extra.rtype == QTYPE.OPT for extra in self.record.ar):
            reply.add_ar(EDNS0(udp_len=_UDP_SIZE_MAX))
        return reply


def not_implemented(raw: bytes) -> bytes | None:
    """Return the reply to an operation that is not a query; None for a query or a reply.

    It has no question: updates and notifications have other sections (RFC 2136, RFC 1996).
    """
    if len(raw) < _HEADER_SIZE or raw[2] & 0x80 or not raw[2] >> 3 & 15:
        return None
    flags = bytes([0x80 | raw[2] & 0x78, RCODE.NOTIMP])
    return raw[:2] + flags + bytes(_HEADER_SIZE - 4)
