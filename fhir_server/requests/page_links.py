"""Page links: the whole request and the position of the last result, sealed in one parameter (docs/decisions/0008)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fhir_server.fhir.outcome import Invalid
from fhir_server.requests.context import Context
from fhir_server.requests.request import Pairs
from fhir_server.search.paging import open_token, seal
from fhir_server.security.policy import Principal

PAGE = "__page"
"""The parameter that carries the sealed request."""


class Place(NamedTuple):
    """Where a page link is good: the path that it continues, and for whom."""

    path: tuple[str, ...]
    principal: Principal


ADDED_BY_CLIENTS = frozenset({"_count", "_summary", "_format", "_pretty", "__explain", "__page"})
"""What clients add to a page link; `_count` and `_summary` take the place of those that the link carries."""


def check_added(pairs: Pairs) -> Pairs:
    """The parameters beside a page link that take the place of its own. Raises Invalid for any that cannot."""
    if any(name not in ADDED_BY_CLIENTS for name, _ in pairs):
        raise Invalid(
            f"A page link carries its whole request; `{PAGE}` can be combined with `_count`, `_summary`, `_format` and "
            "`_pretty` alone."
        )
    return tuple((name, value) for name, value in pairs if name in ("_count", "_summary"))


def replace_pairs(pairs: Pairs, added: Pairs) -> Pairs:
    """The pairs of a page link with those of the same names replaced."""
    names = {name for name, _ in added}
    return (*((name, value) for name, value in pairs if name not in names), *added)


def build_next_link(context: Context, url: str, place: Place, state: Mapping[str, Any]) -> tuple[str, str]:
    """(`next`, URL) of the page after this one. `state`: what `open_page_link` gives back, as JSON values."""
    expires = context.clock() // 1_000_000 + context.settings.page_lifetime
    sealed = {**state, "path": place.path, "expires": expires}
    if reader := place.principal.compute_fingerprint():
        sealed["reader"] = reader
    return "next", f"{url}?{PAGE}={seal(context.page_key, sealed)}"


def open_page_link(context: Context, place: Place, token: str) -> dict[str, Any]:
    """The state that `build_next_link` sealed. Raises Invalid for a link of another URL or token, or an expired one."""
    state = open_token(context.page_key, token, context.clock() // 1_000_000)
    if tuple(state["path"]) != place.path:
        raise Invalid("This page link belongs to another URL; follow links as they are.", code="value")
    if state.get("reader", "") != place.principal.compute_fingerprint():
        raise Invalid("This page link was made for another token; search again with this one.", code="value")
    return state
