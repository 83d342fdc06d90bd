from __future__ import annotations

import subprocess
import sys

from overlay.kernel.netlink import pyroute_messages

SCRIPT = """
import sys
import overlay.kernel.netlink.pyroute_messages
light = len([name for name in sys.modules if name.startswith("pyroute2")])
import pyroute2
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
assert pyroute2.IPRoute
assert overlay.kernel.netlink.pyroute_messages.LinkMessage is ifinfmsg
full = len([name for name in sys.modules if name.startswith("pyroute2")])
print(light < full / 2, "pyroute2.ndb" in sys.modules)
"""


def test_partial_and_full_imports_coexist() -> None:
    """The kernel package loads a small part of pyroute2.

    A full import still works after it.
    """
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.split()[0] == "True"


def test_classes_are_pyroute2s() -> None:
    """The message classes encode what their names say."""
    message = pyroute_messages.AddressMessage()
    message["family"] = 2
    message["prefixlen"] = 16
    message["index"] = 7
    message["attrs"] = [("IFA_LOCAL", "10.32.0.1")]
    message.encode()

    assert bytes(message.data[16:]) == bytes.fromhex("02100000 07000000 08000200 0a200001")
