"""Random case in the names of forwarded queries ("0x20", draft-vixie-dnsext-dns0x20).

Names are the same in whatever case, and nearly all resolvers answer with the question as it was
asked. So each letter is one more bit that a forger of answers must guess, besides id and port.

Owns: writing, comparing and restoring the case of a question. Does not: know sockets.
"""

from __future__ import annotations

import secrets

_HEADER_SIZE = 12  # RFC 1035 section 4.1.1
_LABEL_SIZE_MAX = 63  # RFC 1035 section 2.3.4; a larger number is a pointer
_CASE = 0x20  # the bit in which the letters of ASCII differ


def mixed(query: bytes) -> bytes:
    """Return a query with the letters of its name in random case."""
    place = _name_of(query)
    bits = secrets.token_bytes(len(query[place]))
    name = bytes(
        letter ^ (_CASE & bit) if bytes([letter]).isalpha() else letter
        for letter, bit in zip(query[place], bits, strict=True)
    )
    return query[: place.start] + name + query[place.stop :]


def is_kept(answer: bytes, query: bytes) -> bool:
    """Return whether an answer has the name in the query's case, or no question at all."""
    return answer[4:6] == b"\0\0" or answer[_name_of(answer)] == query[_name_of(query)]


def restored(answer: bytes, query: bytes) -> bytes:
    """Return an answer with the name as it is in the question of the query that it answers."""
    place = _name_of(query)
    if answer[4:6] == b"\0\0" or answer[place].lower() != query[place].lower():
        return answer
    return answer[: place.start] + query[place] + answer[place.stop :]


def _name_of(message: bytes) -> slice:
    """Return where the name of the question is; empty if it is unreadable."""
    end = _HEADER_SIZE
    while end < len(message) and message[end]:
        if message[end] > _LABEL_SIZE_MAX:
            return slice(_HEADER_SIZE, _HEADER_SIZE)
        end += 1 + message[end]
    return slice(_HEADER_SIZE, min(end, len(message)))
