"""Import modules without loading OpenSSL where it is never used.

http.client, asyncio and aiohttp import `ssl` if it exists, and hashlib its OpenSSL part. Here
HTTP uses UNIX sockets, hashes are few and small, and datagrams are sealed by `cryptography`,
which brings its own OpenSSL: the system's would only cost 5 MiB in each agent and 6 ms in each
command (measured with Python 3.11). Each of these modules works without it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Final

_SHA2: Final = ("_sha2",) if sys.version_info >= (3, 12) else ("_sha256", "_sha512")
_OWN_HASHES: Final = (
    "_md5",
    "_sha1",
    *_SHA2,
    "_sha3",
    "_blake2",
)  # some distributions leave them out


@contextlib.contextmanager
def without_openssl() -> Iterator[None]:
    """Keep imports in the block from loading OpenSSL.

    Later imports can load it completely.
    """
    has_hashes = all(find_spec(name) is not None for name in _OWN_HASHES)
    names = ("ssl", "_hashlib") if has_hashes else ("ssl",)
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # "import of ssl halted"
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
