"""Commands `network rm`, `network prune` and `container rm`: remove objects by name, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.client.api import ApiClient, segment
from overlay.errors import AgentNotRunningError, OverlayError, TimedOutError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence


def remove_all(args: Namespace, path: str, schema: str, names: Sequence[str]) -> int:
    """Remove the named objects of an API collection; return the exit code of the first error.

    An error of one object does not keep the others. Raises the error of the only object.
    """
    client = ApiClient(args.paths)
    removed: list[str] = []
    failed: dict[str, OverlayError] = {}
    no_answer: OverlayError | None = None
    for name in dict.fromkeys(names):
        try:
            if no_answer is not None:
                raise no_answer
            client.delete(f"{path}/{segment(name)}")
        except OverlayError as error:
            if len(names) == 1:
                raise
            failed[name] = error
            if isinstance(error, AgentNotRunningError | TimedOutError):
                no_answer = error  # the next one would wait for it as well
        else:
            removed.append(name)
            if not args.json:
                output.print_note(f"removed {name}")
    for name, failure in failed.items():
        output.report(failure, of=name)
    if args.json:
        shown = [{"name": name, "error": failure.body()} for name, failure in failed.items()]
        output.print_json({"schema": schema, "removed": removed, "failed": shown})
    return next((failure.exit_code for failure in failed.values()), 0)
