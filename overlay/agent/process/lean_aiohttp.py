"""aiohttp, imported without loading the host's certificate store.

When it is imported, aiohttp creates TLS contexts, which load all certificate authorities of the
host: 35 of the 120 ms of the import, and 2 MiB of memory (measured). The agent speaks HTTP over
UNIX sockets only. OpenSSL takes the store's path from the environment
(`X509_get_default_cert_file`), which this module restores afterwards.
"""

from __future__ import annotations

import os
from typing import Final

_STORE: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_before = {name: os.environ.get(name) for name in _STORE}
os.environ.update(dict.fromkeys(_STORE, os.devnull))
try:
    import aiohttp
    from aiohttp import web
finally:
    for _name, _value in _before.items():
        if _value is None:
            del os.environ[_name]
        else:
            os.environ[_name] = _value

__all__ = ["aiohttp", "web"]
