"""The order of an attach and of a detach, shared by the agent and the simulator.

An attach goes through: owned, durable, programmed, told, answered. No other host hears of an
endpoint that this one could forget, and no caller gets an answer before the kernel forwards. A
step that fails undoes those before it. A detach is durable first: a crash in between leaves an
interface that the state does not name, which the next start removes. The other hosts are told then,
and remove what leads there while this one removes the interface.

Owns: the order alone. Does not: any of the steps; it awaits only what it is given, so that a real
event loop and a simulated schedule can run it.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol, TypeVar

AddressT = TypeVar("AddressT")
EndpointT = TypeVar("EndpointT")
ResultT = TypeVar("ResultT")
ResultT_co = TypeVar("ResultT_co", covariant=True)


class AttachSteps(Protocol[AddressT, EndpointT, ResultT_co]):
    """The steps of one attach, in the order in which they are taken."""

    def exclusive(self) -> AbstractAsyncContextManager[None]:
        """Keep every other attach, detach and repair away from the container."""

    async def find_attached(self) -> ResultT_co | None:
        """Return the result if the container is attached already; None if it is not."""

    def participating(self) -> AbstractAsyncContextManager[None]:
        """Take part in the network, with a sandbox; on an error, only if others still need it."""

    def choosing_address(self) -> AbstractAsyncContextManager[None]:
        """Keep others from choosing addresses of the network on this host."""

    async def own_address(self) -> AddressT:
        """Return an address that this host owns and that is free."""

    def commit(self, address: AddressT) -> EndpointT:
        """Make the endpoint durable on this host; no other host knows of it."""

    async def program(self, endpoint: EndpointT) -> EndpointT:
        """Make the interface and have the kernel forward; return the endpoint as it is then."""

    async def undo(self, endpoint: EndpointT) -> None:
        """Delete an endpoint that could not be programmed and that no other host knows of."""

    async def attached(self, endpoint: EndpointT) -> None:
        """Do what the new endpoint calls for elsewhere on this host."""

    async def announce(self, endpoint: EndpointT) -> ResultT_co:
        """Tell the other hosts, wait for their confirmations if asked, and return the result."""


class DetachSteps(Protocol[ResultT_co]):
    """The steps of one detach, in the order in which they are taken."""

    def withdraw(self) -> None:
        """Delete the endpoint durably on this host."""

    def telling(self) -> AbstractContextManager[None]:
        """Tell the other hosts, which follow during the block."""

    async def disconnect(self) -> None:
        """Remove the interface, and what the kernel holds for it."""

    async def end_participation(self) -> None:
        """Give the sandbox up if this was the last endpoint that needed it."""

    async def confirmed(self) -> ResultT_co:
        """Tell the rest, wait for the other hosts' confirmations if asked; return the result."""


async def attach_endpoint(steps: AttachSteps[AddressT, EndpointT, ResultT]) -> ResultT:
    """Attach one container to one network; raises what a step raises, with nothing left made."""
    async with steps.exclusive():
        found = await steps.find_attached()
        if found is not None:
            return found
        async with steps.participating():
            async with steps.choosing_address():
                address = await steps.own_address()
                endpoint = steps.commit(address)
            try:
                endpoint = await steps.program(endpoint)
            except BaseException:
                await steps.undo(endpoint)
                raise
        await steps.attached(endpoint)
    return await steps.announce(endpoint)


async def detach_endpoint(steps: DetachSteps[ResultT]) -> ResultT:
    """Detach one container from one network; raises what a step raises."""
    steps.withdraw()
    with steps.telling():
        await steps.disconnect()
        await steps.end_participation()
        return await steps.confirmed()
