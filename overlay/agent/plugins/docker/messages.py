"""The requests that Docker sends to a network driver and an IPAM driver.

Docker may add fields; those are ignored. Owns: field names, types and bounds. Does not: know what
a request does.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, field

Id = Annotated[str, Meta(min_length=12, max_length=128, pattern="^[0-9a-z-]*$")]
Text = Annotated[str, Meta(max_length=256)]
Options = dict[str, Any] | None


class PoolRequest(msgspec.Struct):
    """IpamDriver.RequestPool."""

    address_space: Text = field(name="AddressSpace", default="")
    pool: Text = field(name="Pool", default="")
    sub_pool: Text = field(name="SubPool", default="")
    options: Options = field(name="Options", default=None)
    v6: bool = field(name="V6", default=False)


class PoolRelease(msgspec.Struct):
    """IpamDriver.ReleasePool."""

    pool_id: Id = field(name="PoolID")


class AddressRequest(msgspec.Struct):
    """IpamDriver.RequestAddress."""

    pool_id: Id = field(name="PoolID")
    address: Text = field(name="Address", default="")
    options: Options = field(name="Options", default=None)


class AddressRelease(msgspec.Struct):
    """IpamDriver.ReleaseAddress."""

    pool_id: Id = field(name="PoolID")
    address: Text = field(name="Address", default="")


class IpamData(msgspec.Struct):
    """One pool of a network that Docker creates."""

    address_space: Text = field(name="AddressSpace", default="")
    pool: Text = field(name="Pool", default="")
    gateway: Text = field(name="Gateway", default="")
    auxiliary: dict[str, Any] | None = field(name="AuxAddresses", default=None)


class NetworkCreation(msgspec.Struct):
    """NetworkDriver.CreateNetwork."""

    network_id: Id = field(name="NetworkID")
    options: Options = field(name="Options", default=None)
    ipv4: list[IpamData] | None = field(name="IPv4Data", default=None)
    ipv6: list[IpamData] | None = field(name="IPv6Data", default=None)


class NetworkAllocation(msgspec.Struct):
    """NetworkDriver.AllocateNetwork: a swarm's manager creates a network."""

    network_id: Id = field(name="NetworkID")
    options: Options = field(name="Options", default=None)
    ipv4: list[IpamData] | None = field(name="IPv4Data", default=None)
    ipv6: list[IpamData] | None = field(name="IPv6Data", default=None)


class NetworkDeletion(msgspec.Struct):
    """NetworkDriver.DeleteNetwork and NetworkDriver.FreeNetwork."""

    network_id: Id = field(name="NetworkID")


class Interface(msgspec.Struct):
    """The addresses that Docker has for an endpoint."""

    address: Text = field(name="Address", default="")
    address_ipv6: Text = field(name="AddressIPv6", default="")
    mac: Text = field(name="MacAddress", default="")


class EndpointCreation(msgspec.Struct):
    """NetworkDriver.CreateEndpoint."""

    network_id: Id = field(name="NetworkID")
    endpoint_id: Id = field(name="EndpointID")
    interface: Interface | None = field(name="Interface", default=None)
    options: Options = field(name="Options", default=None)


class EndpointCall(msgspec.Struct):
    """The other calls about one endpoint: DeleteEndpoint, Leave and more."""

    network_id: Id = field(name="NetworkID")
    endpoint_id: Id = field(name="EndpointID")


class JoinCall(msgspec.Struct):
    """NetworkDriver.Join."""

    network_id: Id = field(name="NetworkID")
    endpoint_id: Id = field(name="EndpointID")
    sandbox_key: Annotated[str, Meta(min_length=1, max_length=4096)] = field(name="SandboxKey")


class ConnectivityCall(msgspec.Struct):
    """NetworkDriver.ProgramExternalConnectivity."""

    network_id: Id = field(name="NetworkID")
    endpoint_id: Id = field(name="EndpointID")
    options: Options = field(name="Options", default=None)
