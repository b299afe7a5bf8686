"""A request and a response as the interactions see them: no HTTP server, no framework."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import parse_qsl

from fhir_server.fhir.outcome import Invalid
from fhir_server.security.policy import ANONYMOUS, Principal

FHIR_JSON = "application/fhir+json"

Pairs = tuple[tuple[str, str], ...]


def parse_query(query: str) -> Pairs:
    """The decoded names and values of a query text. Raises Invalid for what is not percent-encoded UTF-8."""
    try:
        return tuple(parse_qsl(query, keep_blank_values=True, errors="strict"))
    except ValueError:
        raise Invalid(f"The query `{query}` is not percent-encoded UTF-8 text.", code="structure") from None


class Caller(NamedTuple):
    """On whose behalf something is read or written, and the base URL by which its local references are known."""

    base: str
    principal: Principal = ANONYMOUS


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
    media_type: str = FHIR_JSON
    """The media type of the answer, of those that an operation gives."""
    where: str = ""
    """The path of the bundle entry, such as `Bundle.entry[3]`; empty for a request of its own."""
    job: bool = False
    """Whether a worker carries it out, for which the bounds of a request do not hold."""

    network: str = ""
    """Where a login comes from: an IPv4 address or an IPv6 /64; empty where it is not known, and for other requests."""

    @property
    def caller(self) -> Caller:
        """Who asks, by which base URL."""
        return Caller(self.base, self.principal)

    def get_preference(self, name: str) -> str | None:
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
