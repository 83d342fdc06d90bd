"""Commands `network rm` and `container rm`: remove objects by name, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.client.api import ApiClient, segment

if TYPE_CHECKING:
    from argparse import Namespace


def remove_all(args: Namespace, path: str, schema: str) -> int:
    """Remove the named objects of an API collection; stops at the first error."""
    client = ApiClient(args.paths)
    for name in args.names:
        client.delete(f"{path}/{segment(name)}")
        if not args.json:
            output.print_note(f"removed {name}")
    if args.json:
        output.print_json({"schema": schema, "removed": args.names})
    return 0
