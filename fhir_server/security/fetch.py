"""Fetching what an issuer publishes: over https, or from this machine; no redirects, a bounded answer."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

TIMEOUT = 5.0
"""Seconds."""
LARGEST_ANSWER = 1024 * 1024


async def fetch(url: str) -> bytes:
    """The body of the 200 that a GET gets. Raises OSError."""
    return await _ask("GET", url)


async def post(url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> bytes:
    """The body of the 200 that the POST of a form gets. Raises OSError."""
    return await _ask("POST", url, data=dict(form), headers=dict(headers))


async def _ask(method: str, url: str, **options: Any) -> bytes:
    if not is_trustworthy(url):
        raise OSError(f"`{url}` is neither an https URL nor one of this machine")
    try:
        async with (
            httpx.AsyncClient(timeout=TIMEOUT, follow_redirects=False) as client,
            client.stream(method, url, **options) as answer,
        ):
            if answer.status_code != 200:
                raise OSError(f"`{url}` answered {answer.status_code}")
            body = bytearray()
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > LARGEST_ANSWER:
                    raise OSError(f"`{url}` answered with more than {LARGEST_ANSWER} bytes")
            return bytes(body)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OSError(f"`{url}` does not answer: {error}") from None


def is_trustworthy(url: str) -> bool:
    """Whether a URL is https, or http on this machine, so that nobody in between can change the answer."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return True
    host = parts.hostname or ""
    try:
        return parts.scheme == "http" and (host == "localhost" or ipaddress.ip_address(host).is_loopback)
    except ValueError:
        return False
