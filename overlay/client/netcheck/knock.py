"""Ask a member with a join token, which is the only thing that it answers a stranger for.

The member remembers nothing about it, and the token is not used up: only the first of the two
steps of a join is taken (docs/PROTOCOL.md section 3.3).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace

from overlay.core.netcheck.facts import AddressFacts, Reply
from overlay.errors import RemoteError
from overlay.model import parse_ip
from overlay.wire.admission.initiator import JoinInitiator
from overlay.wire.codec.datagram import UdpEndpoint
from overlay.wire.handshake.cookies import CookieJar, receiver_key
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.token import Token

_REPEAT_S = 0.3


class TokenCheck:
    """A token, and what it says of its cluster."""

    def __init__(self, text: str) -> None:
        """Read a token; raises UsageError."""
        self._token = Token.parse(text)
        self.gossip_port = self._token.gossip_port
        self.vxlan_port = self._token.vxlan_port

    def knock(
        self, own: str, address: str, seconds: float
    ) -> Callable[[AddressFacts], AddressFacts]:
        """Ask the member at an address; return how that changes what is known of it."""
        answered = self._answers(own, address, seconds)

        def noted(found: AddressFacts) -> AddressFacts:
            if answered:
                return replace(found, gossip=Reply.ANSWERED, has_token=True)
            return replace(found, has_token=answered is not None)

        return noted

    def _answers(self, own: str, address: str, seconds: float) -> bool | None:
        """Return whether a member of the token's cluster answered; None if none can be asked."""
        initiator = JoinInitiator(
            Identity.generate(os.urandom),
            self._token,
            name="netcheck",
            address=parse_ip(own),
            random_bytes=os.urandom,
            now_s=time.time(),
        )
        family = socket.AF_INET6 if ":" in own else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            try:
                asking.bind((own, self.gossip_port))  # where the answer goes
            except OSError:
                return None
            asking.settimeout(_REPEAT_S)
            deadline = time.monotonic() + seconds
            place = UdpEndpoint(parse_ip(address), self.gossip_port)
            jar, key = CookieJar(), receiver_key(self._token.cluster_id)
            while (now := time.monotonic()) < deadline:
                with contextlib.suppress(OSError, RemoteError):
                    hello = initiator.hello(*place).data
                    asking.sendto(jar.protect(place, key, hello, now), (address, place.port))
                    data = asking.recv(2048)
                    if jar.accept(place, data, now):
                        return True  # it is busy, and knows the cluster
                    initiator.open(data)
                if initiator.answered or initiator.refusal is not None:
                    return True
        return False
