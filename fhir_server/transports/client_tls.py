"""TLS of connections to partners: by whom they are checked, and our own certificate where they ask for one."""

from __future__ import annotations

import ssl
from functools import lru_cache

from fhir_server.transports.protocol import Endpoint


def make_client_tls(endpoint: Endpoint) -> ssl.SSLContext:
    """The TLS of an endpoint, whose keys `authorities`, `certificate` and `key` are files (PEM). Raises OSError."""
    return _load(endpoint.get("authorities"), endpoint.get("certificate"), endpoint.get("key"))


@lru_cache(maxsize=64)
def _load(authorities: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext:
    tls = ssl.create_default_context(cafile=authorities)
    if certificate is not None:
        tls.load_cert_chain(certificate, key)
    return tls
