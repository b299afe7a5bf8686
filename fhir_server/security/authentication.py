"""The interface for authentication: credentials in a request's headers become a principal (https://hl7.org/fhir/R4/security.html)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from fhir_server.security.policy import ANONYMOUS, Principal

Authenticate = Callable[[Mapping[str, str]], Awaitable[Principal]]
"""Headers (names in lower case) → the principal. Raises `fhir.outcome.Unauthorized` for bad credentials."""


async def accept_anybody(headers: Mapping[str, str]) -> Principal:
    """The authentication of a server without one: every request comes from the same anonymous principal."""
    return ANONYMOUS
