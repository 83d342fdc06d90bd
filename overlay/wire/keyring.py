"""The cluster's secrets by generation: the newest seals, every kept one opens.

The generation stands in each datagram's header, so no key is ever tried in vain.
"""

from __future__ import annotations

GENERATIONS_KEPT = 3
GENERATION_MAX = 0xFFFF


class Keyring:
    """Generation to secret."""

    def __init__(self, secrets: dict[int, bytes]) -> None:
        if not secrets or any(not 0 <= g <= GENERATION_MAX for g in secrets):
            raise ValueError("a keyring needs at least one generation from 0 to 65535")
        self._secrets = dict(secrets)
        self.sealing = max(secrets)

    @classmethod
    def of(cls, secret: bytes) -> Keyring:
        """Return a ring of generation 0 alone."""
        return cls({0: secret})

    def secret(self, generation: int) -> bytes | None:
        """Return a generation's secret, or None if it is unknown or gone."""
        return self._secrets.get(generation)
