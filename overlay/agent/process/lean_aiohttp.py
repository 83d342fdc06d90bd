"""aiohttp, imported without the machine's certificate store.

aiohttp makes TLS contexts as it is imported, which reads every certificate authority of the host:
35 of the 120 ms of its import and 2 MiB for good (measured). The agent speaks HTTP over UNIX
sockets alone. Where to look is taken from the environment (OpenSSL, `X509_get_default_cert_file`),
which is as it was afterwards.
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
