"""Wait for the start of a container before it is attached: `attach --wait`.

Nothing is attached or stored while it waits, so that Ctrl-C leaves nothing behind.
"""

from __future__ import annotations

import time

from overlay import limits
from overlay.cli import output
from overlay.client.api import TIMEOUT_S as ANSWER_TIMEOUT_S
from overlay.client.api import ApiClient
from overlay.errors import TimedOutError
from overlay.unix_http import quote

TYPE_CHECKING = False  # typing itself takes a tenth of a command's time to import
if TYPE_CHECKING:
    from collections.abc import Sequence

    from overlay.client.paths import Paths

TIMEOUT_S = 60.0


def wait_for_start(paths: Paths, target: str, networks: Sequence[str], timeout_s: float) -> str:
    """Return the target once its container runs, as the agent names it for certain.

    Raises NotFoundError at once for an unknown network, and TimedOutError.
    """
    client = ApiClient(paths, limits.START_WAIT_MAX_S + ANSWER_TIMEOUT_S)
    for name in networks:
        client.get(f"/v1/networks/{quote(name)}")
    deadline_s = time.monotonic() + timeout_s
    noted = ""
    wait_s = 0.0  # the first answer tells at once what is waited for
    while True:
        state = client.get("/v1/target", target=target, wait_s=wait_s)
        if state["runs"]:
            return str(state["target"])
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimedOutError(
                f"{target} has not started within {timeout_s:g} s",
                why=state["why"],
                hint="Wait longer with --timeout SECONDS, or attach it once it runs",
            )
        if state["why"] != noted:
            noted = state["why"]
            output.print_note(f"waiting for the start of {target}: {noted}")
        wait_s = min(left_s, limits.START_WAIT_MAX_S)
