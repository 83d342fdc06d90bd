"""The objects that all simulated hosts share."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from overlay.core.protocol.settings import ProtocolSettings
from overlay.sim.environment.codec import SharingCodec
from overlay.sim.environment.network import Network
from overlay.sim.environment.schedule import Schedule
from overlay.sim.host.key_invariants import KeyInvariants


class AgentKilled(Exception):  # noqa: N818 - not an error: an injected fault
    """The agent is killed at this point of its work."""


@dataclass(slots=True)
class Environment:
    """The objects that all hosts of a world share."""

    schedule: Schedule
    network: Network
    codec: SharingCodec
    settings: ProtocolSettings
    rng: random.Random
    tell: Callable[[str], None]
    keys: KeyInvariants
    holders: int = 8  # hosts that hold the authority from the start
