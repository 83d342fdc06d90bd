#!/usr/bin/env python3
"""Keep what passed on which platform, and write the table of platforms from it.

    scripts/platforms.py [FOLDER]

Each file of FOLDER (build/platforms) is the record of one run of tests, which the run writes if it
passed: `make packages`, `make netavark-test`, and pytest with OVERLAYD_RECORD set. A newer record
takes the place of the one of the same name in docs/operate/platforms.json; the table of
docs/operate/platforms.md is made from that file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

Record = dict[str, Any]

ROOT = Path(__file__).resolve().parent.parent
STORED = ROOT / "docs/operate/platforms.json"
PAGE = ROOT / "docs/operate/platforms.md"
HEAD = (
    "| platform | machine | kernel | Python | container runtimes | what passed | day |",
    "|---|---|---|---|---|---|---|",
)


def table(records: dict[str, Record]) -> str:
    """Return a row for each record."""
    return "\n".join([*HEAD, *(_row(record) for _, record in sorted(records.items()))])


def page_with(text: str, records: dict[str, Record]) -> str:
    """Return the text of the page with the table of these records in place of its own."""
    lines = text.splitlines()
    first = lines.index(HEAD[0])
    end = next(i for i in range(first, len(lines) + 1) if not "".join(lines[i : i + 1]).strip("\n"))
    return "\n".join([*lines[:first], table(records), *lines[end:]]) + "\n"


def stored() -> dict[str, Record]:
    """Return the records that are kept, by the name of their run."""
    found: dict[str, Record] = json.loads(STORED.read_text(encoding="utf-8"))
    return found


def keep(folder: Path) -> None:
    """Keep the records of a folder, and write the page."""
    records = stored()
    for path in sorted(folder.glob("*.json")):
        records[path.stem] = json.loads(path.read_text(encoding="utf-8"))
    STORED.write_text(json.dumps(records, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), records), encoding="utf-8")


def _row(record: Record) -> str:
    each = sorted(record["runtimes"].items(), key=lambda pair: pair[0].lower())
    runtimes = ", ".join(f"{name} {version}" for name, version in each)
    cells = (
        record["platform"],
        record["machine"],
        record["kernel"],
        record["python"],
        runtimes or "none",
        record["tests"],
        record["day"],
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    keep(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build/platforms")
