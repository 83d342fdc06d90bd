"""Import three message classes of pyroute2, and nothing else of it; encode their messages.

Importing the package `pyroute2` runs its `__init__`, which imports every protocol it has, two
databases and multiprocessing: 10 MB and 130 ms in each agent (measured with 0.9.7). The three
classes that overlayd needs cost 1.3 MB and 10 ms. So their modules are imported with an empty
package in its place, which is removed again: an `import pyroute2` elsewhere works as usual.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any, TypeAlias

_PACKAGE = "pyroute2"
_MODULES = (
    "pyroute2.netlink.rtnl.ifinfmsg",
    "pyroute2.netlink.rtnl.ifaddrmsg",
    "pyroute2.netlink.rtnl.rtmsg",
)


def _load() -> list[ModuleType]:
    if _PACKAGE in sys.modules:
        return [importlib.import_module(name) for name in _MODULES]
    spec = PathFinder.find_spec(_PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named {_PACKAGE!r}", name=_PACKAGE)
    empty = ModuleType(_PACKAGE)
    empty.__path__ = spec.submodule_search_locations
    empty.__spec__ = spec
    sys.modules[_PACKAGE] = empty
    try:
        return [importlib.import_module(name) for name in _MODULES]
    finally:
        if sys.modules.get(_PACKAGE) is empty:
            del sys.modules[_PACKAGE]


_link, _address, _route = _load()
LinkMessage: Any = _link.ifinfmsg
"""`struct ifinfomsg` and its attributes (rtnetlink(7))."""
AddressMessage: Any = _address.ifaddrmsg
"""`struct ifaddrmsg` and its attributes (rtnetlink(7))."""
RouteMessage: Any = _route.rtmsg
"""`struct rtmsg` and its attributes (rtnetlink(7))."""

Attributes: TypeAlias = list[tuple[str, Any]]  # pyroute2's form: (attribute name, value)


def encoded(message: Any, attributes: Attributes) -> bytes:
    """Return the message without the netlink header.

    `NetlinkSocket` writes the header.
    """
    message["attrs"] = attributes
    message.encode()
    return bytes(message.data[16:])
