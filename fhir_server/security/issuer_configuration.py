"""What an authorization server says of itself (OpenID Connect Discovery, RFC 8414)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

Fetch = Callable[[str], Awaitable[bytes]]
"""URL → the body of its answer; raises OSError."""

_DISCOVERY = ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server")


async def fetch_configuration(url: str, fetch: Fetch) -> Mapping[str, Any]:
    """What an issuer says of itself. Raises OSError where it does not answer, ValueError for what is not its own."""
    problem: Exception = OSError("no configuration")
    for path in _DISCOVERY:
        try:
            configuration = orjson.loads(await fetch(url.rstrip("/") + path))
        except (OSError, ValueError) as error:
            problem = error
            continue
        if not isinstance(configuration, dict) or configuration.get("issuer") != url:
            raise ValueError("the configuration is that of another issuer")
        return configuration
    raise problem
