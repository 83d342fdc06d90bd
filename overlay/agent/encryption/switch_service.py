"""Switch a network to encryption, or back, and wait until all members have.

Owns: which switches are refused, and the wait. Does not: take the steps (`switch`).
"""

from __future__ import annotations

import asyncio

from overlay import limits
from overlay.agent.encryption.controller import EncryptionController
from overlay.agent.encryption.switch import EncryptionSwitch
from overlay.agent.records.directory import Directory
from overlay.core.dataplane.network_drivers import (
    driver_of,
    encryption_goal,
    has_room_for_goal,
    has_tunnel,
    is_encrypted,
)
from overlay.core.encryption.switch_phase import is_switching
from overlay.core.protocol.messages import MemberState
from overlay.errors import ConflictError, TimedOutError
from overlay.model import Network, is_exported

_REMOVE = "A member that is gone: overlayd forget NAME"


class SwitchService:
    """Switches the cluster's networks, for the API."""

    def __init__(
        self, directory: Directory, encryption: EncryptionController, switch: EncryptionSwitch
    ) -> None:
        self._directory = directory
        self._encryption = encryption
        self._switch = switch

    async def switch(self, name: str, *, encrypted: bool) -> bool:
        """Have a network encrypted everywhere, or not; return whether that was a change.

        Raises ConflictError if that is impossible, and TimedOutError with the members that are
        waited for: the switch continues.
        """
        network = self._directory.network(name)
        goal = encryption_goal(network)
        is_asked = goal is not None and goal.encrypted == encrypted
        if self._is_there(network, encrypted=encrypted):
            return False
        if not encrypted and self._encryption.policy.required:
            raise ConflictError(
                f"network {network.name} stays encrypted: this host requires encryption",
                why='its configuration has encryption = "required"',
                hint='Set encryption = "optional" in the configuration of every host, and restart '
                "the agents",
            )
        if not is_asked:
            await self._require_possible(network, encrypted=encrypted)
            self._switch.ask(network, encrypted=encrypted)
        try:
            async with asyncio.timeout(limits.ENCRYPTION_SWITCH_WAIT_S):
                while not self._is_there(network, encrypted=encrypted):  # noqa: ASYNC110 - any
                    # member's records may end it
                    await asyncio.sleep(limits.ENCRYPTION_SWITCH_LOOK_S)
        except TimeoutError:
            raise self._unfinished(network, encrypted=encrypted) from None
        return True

    def _is_there(self, network: Network, *, encrypted: bool) -> bool:
        found = self._directory.network_by_vni(network.vni)
        if found is None:
            self._directory.require_not_removed(network)
        return (
            found is not None
            and is_encrypted(found) == encrypted
            and not is_switching(found)
            and self._switch.is_over(found)
        )

    def _unfinished(self, network: Network, *, encrypted: bool) -> TimedOutError:
        found = self._directory.network_by_vni(network.vni) or network
        goal, word = encryption_goal(found), "on" if encrypted else "off"
        if goal is None or goal.encrypted != encrypted:
            self._switch.log.withdraw(network)
            creator = self._directory.node_name(network.creator)
            return TimedOutError(
                f"encryption of {network.name} is not switched {word}",
                why=f"{creator}, which created the network, has not taken up the request",
                hint=f"On {creator}: overlayd status; then repeat the command",
            )
        return TimedOutError(
            f"encryption of {network.name} is not {word} everywhere yet",
            why="waiting for " + ("; ".join(self._switch.waits(found)) or "its creator"),
            hint="Packets pass, and the switch continues: 'overlayd encryption status "
            f"{network.name}' shows it. {_REMOVE}",
        )

    async def _require_possible(self, network: Network, *, encrypted: bool) -> None:
        directory = self._directory
        if not has_tunnel(network):
            raise ConflictError(
                f"network {network.name} cannot be encrypted",
                why=f"overlayd carries nothing of a {driver_of(network)} network between hosts",
                hint="Encrypted networks are overlays: overlayd network create NAME --encrypted",
            )
        if encrypted and is_exported(network):
            raise ConflictError(
                f"network {network.name} cannot be encrypted",
                why="it is exported by BGP EVPN, and a fabric's VTEPs have no WireGuard keys of "
                "this cluster",
                hint="Create another network for what must be encrypted",
            )
        self._require_alike(network, encrypted=encrypted)
        if not has_room_for_goal(network):
            raise ConflictError(
                f"network {network.name} cannot be switched: it has too many labels",
                why=f"driver and goal are among the {limits.LABEL_COUNT_MAX} that a network may "
                "have",
                hint="Create another with fewer labels, and move the containers: overlayd network "
                "create NAME --encrypted",
            )
        creator = network.creator
        is_orphan = directory.view.switches.is_orphan(network)
        if directory.node_state(creator) is not MemberState.ALIVE and not is_orphan:
            name = directory.node_name(creator)
            raise ConflictError(
                f"network {network.name} cannot be switched now",
                why=f"{name}, which created it, is not alive, and may send its frames as before",
                hint=f"Start the agent of {name}; or, if that host is gone, repeat the command "
                f"after: overlayd forget {name}",
            )
        if encrypted:
            await self._encryption.capable.require_all()
        incapable = [directory.node_name(each) for each in self._switch.incapable(network)]
        if incapable:
            raise ConflictError(
                f"network {network.name} cannot be switched while it is in use",
                why=f"the version of overlayd on {', '.join(incapable)} cannot",
                hint=f"Upgrade overlayd there, or create another network. {_REMOVE}",
            )

    def _require_alike(self, network: Network, *, encrypted: bool) -> None:
        """Raise ConflictError if a router would then connect it with one that is not as it is."""
        routers = self._directory.routers
        for router in () if routers is None else routers.on(network.vni):
            others = map(self._directory.network_by_vni, set(router.vnis) - {network.vni})
            unlike = [each.name for each in others if each and is_encrypted(each) != encrypted]
            if unlike and not router.allow_clear:
                raise ConflictError(
                    f"network {network.name} cannot be switched while router {router.name} "
                    "connects it",
                    why=f"packets between it and network {min(unlike)} would cross hosts in clear",
                    hint=f"Allow that, at least until both are switched: overlayd router set "
                    f"{router.name} --allow-clear on",
                )
