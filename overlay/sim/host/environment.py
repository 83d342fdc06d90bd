"""What all simulated hosts share, and the way in which an agent dies.

Owns: nothing; it only names what a host is given.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from overlay.core.protocol.settings import ProtocolSettings
from overlay.sim.environment.codec import SharingCodec
from overlay.sim.environment.network import Network
from overlay.sim.environment.schedule import Schedule
from overlay.sim.host.key_invariants import KeyInvariants


class AgentKilled(Exception):  # noqa: N818 - not an error: the fault that was asked for
    """The agent is killed here, in the middle of its work."""


@dataclass(slots=True)
class Environment:
    """Time, network, codec, settings, chance, who wants to be told, and who watches the keys."""

    schedule: Schedule
    network: Network
    codec: SharingCodec
    settings: ProtocolSettings
    rng: random.Random
    tell: Callable[[str], None]
    keys: KeyInvariants
