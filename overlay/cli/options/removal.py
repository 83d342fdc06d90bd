"""What the verbs `rm` do: things are removed by name, one after the other."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.client.api import Client, segment
from overlay.client.paths import places

if TYPE_CHECKING:
    from argparse import Namespace


def remove_each(args: Namespace, path: str, schema: str) -> int:
    """Remove what was named of a collection of the API; the first that is refused ends it."""
    client = Client(places(args, os.environ))
    for name in args.names:
        client.delete(f"{path}/{segment(name)}")
        if not args.json:
            output.comment(f"removed {name}")
    if args.json:
        output.answer_json({"schema": schema, "removed": args.names})
    return 0
