"""Every bound of the project, with the relations between them asserted: one module per part.

Units come last in the names: `_size` is in bytes, `_count` a number of things, `_s` seconds.
"""

from __future__ import annotations

from overlay.limits.cluster import *  # noqa: F403 - all of them are `limits.NAME`
from overlay.limits.diagnosis import *  # noqa: F403
from overlay.limits.evpn import *  # noqa: F403
from overlay.limits.gate import *  # noqa: F403
from overlay.limits.host import *  # noqa: F403
from overlay.limits.multicast import *  # noqa: F403
from overlay.limits.plug import *  # noqa: F403
from overlay.limits.policy import *  # noqa: F403
from overlay.limits.router import *  # noqa: F403
from overlay.limits.services import *  # noqa: F403
from overlay.limits.sessions import *  # noqa: F403
from overlay.limits.wire import *  # noqa: F403
