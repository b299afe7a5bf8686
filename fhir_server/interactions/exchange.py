"""A request and a response as the interactions see them: no HTTP server, no framework."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import parse_qsl

from fhir_server.fhir.definitions import Definitions
from fhir_server.fhir.outcome import Invalid
from fhir_server.interactions.background import Background
from fhir_server.interactions.in_force import SearchParameters
from fhir_server.search.index import Index
from fhir_server.search.parameters import Criteria
from fhir_server.search.registry import Registry
from fhir_server.security.audit import Audit
from fhir_server.security.policy import ANONYMOUS, Policy, Principal
from fhir_server.settings import Settings
from fhir_server.store.protocol import Clock, Store
from fhir_server.validation.structure import StructureValidator

Pairs = tuple[tuple[str, str], ...]


def pairs_of(query: str) -> Pairs:
    """The decoded names and values of a query text. Raises Invalid for what is not percent-encoded UTF-8."""
    try:
        return tuple(parse_qsl(query, keep_blank_values=True, errors="strict"))
    except ValueError:
        raise Invalid(f"The query `{query}` is not percent-encoded UTF-8 text.", code="structure") from None


class Request(NamedTuple):
    """One request, or one bundle entry read as a request. Header names are lower case.

    `path`: the decoded segments below the base URL; `base`: the public base URL, without a slash at the end.
    """

    method: str
    path: tuple[str, ...]
    query: Pairs = ()
    headers: Mapping[str, str] = MappingProxyType({})
    body: bytes = b""
    base: str = ""
    principal: Principal = ANONYMOUS
    id: str = ""
    where: str = ""
    """The path of the bundle entry, such as `Bundle.entry[3]`; empty for a request of its own."""

    def prefers(self, name: str) -> str | None:
        """The value of a `Prefer` directive such as `return` or `handling`."""
        for part in self.headers.get("prefer", "").replace(";", ",").split(","):
            key, _, value = part.strip().partition("=")
            if key.rstrip().lower() == name:
                return value.strip().strip('"')
        return None


class Response(NamedTuple):
    """What goes back: `body` is FHIR JSON unless `content_type` says otherwise. Version and time become ETag etc."""

    status: int
    body: bytes = b""
    version: int | None = None
    last_updated: int | None = None
    location: str | None = None
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """Everything an interaction works with; built once, by `app.py`."""

    store: Store
    definitions: Definitions
    parameters: SearchParameters
    background: Background
    validator: StructureValidator
    settings: Settings
    clock: Clock
    new_id: Callable[[], str]
    policy: Policy
    audit: Audit
    types: frozenset[str]
    page_key: bytes
    criteria: Callable[[str], Criteria]
    """The search criteria context for a base URL, at the present time."""
    dispatch: Dispatch
    """Routes, authorises and carries out one request; a batch sends its entries through it."""
    capability: Callable[[str], bytes]
    """The CapabilityStatement for a base URL."""
    planning: asyncio.Lock = field(default_factory=asyncio.Lock)
    """The turn of a long plan: one at a time is made, the next while the one before is written."""

    @property
    def registry(self) -> Registry:
        """The search parameters in force now."""
        return self.parameters.current.registry

    @property
    def index(self) -> Index:
        """What makes index entries by the search parameters in force now."""
        return self.parameters.current.index


Dispatch = Callable[[Context, Request], Awaitable[Response]]
