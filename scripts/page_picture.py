"""Write docs/guide/web.png: the page of `overlayd web` in a browser, with a made-up cluster.

Run it again when the page changes. It needs Debian's chromium.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from tests.web.browser import browser
from tests.web.conftest import serve
from tests.web.fake_cluster import story

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs/guide/web.png"
WIDTH, HEIGHT = 1120, 640
SIZE_MAX = 150_000  # bytes


async def main() -> None:
    """Take the picture."""
    with tempfile.TemporaryDirectory() as folder:
        cluster = story(Path(folder) / "run")
        async with cluster, serve(cluster) as site, browser() as tab:
            await tab.size(WIDTH, HEIGHT)
            await tab.open(f"{site.url}/#container/0000000000000000")
            await tab.until("document.querySelectorAll('#events li').length === 4")
            await tab.until("document.querySelector('#details h3') !== null")
            PICTURE.write_bytes(await tab.screenshot())
    size = PICTURE.stat().st_size
    assert size < SIZE_MAX, size
    print(f"{PICTURE}: {size} bytes")


if __name__ == "__main__":
    asyncio.run(main())
