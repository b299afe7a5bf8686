"""Page links: the whole request and the position of the last result, sealed in one parameter (docs/decisions/0008)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fhir_server.fhir.outcome import Invalid
from fhir_server.requests.context import Context
from fhir_server.search.paging import open_token, seal

PAGE = "__page"
"""The parameter that carries the sealed request."""


def build_next_link(context: Context, url: str, path: tuple[str, ...], state: Mapping[str, Any]) -> tuple[str, str]:
    """(`next`, URL) of the page after this one. `state`: what `open_page_link` gives back, as JSON values."""
    expires = context.clock() // 1_000_000 + context.settings.page_lifetime
    return "next", f"{url}?{PAGE}={seal(context.page_key, {**state, 'path': path, 'expires': expires})}"


def open_page_link(context: Context, path: tuple[str, ...], token: str) -> dict[str, Any]:
    """The state that `build_next_link` sealed. Raises Invalid for a token of another URL or an expired one."""
    state = open_token(context.page_key, token, context.clock() // 1_000_000)
    if tuple(state["path"]) != path:
        raise Invalid("This page link belongs to another URL; follow links as they are.", code="value")
    return state
