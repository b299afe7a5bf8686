"""Bearer tokens: a token in the `Authorization` header becomes a principal (RFC 6750).

What a token was found to be is remembered for REMEMBERED seconds, so that a revocation is seen by every process within
them. A token is looked up by the hash of its header and never kept itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from hashlib import blake2b

from fhir_server.fhir.outcome import Unauthorized
from fhir_server.security.policy import Principal
from fhir_server.store.protocol import Clock

REMEMBERED = 5
"""Seconds."""
MOST_REMEMBERED = 10_000
LONGEST_TOKEN = 16 * 1024
"""Characters of a token; a longer one is refused without being read."""

_SECOND = 1_000_000
_CHALLENGE = "Bearer"

TokenSource = Callable[[str], Awaitable[Principal | None]]
"""A token → its principal; None for a token that this source did not give out.

Raises WrongToken for one of its own that is not good (any more), with a sentence for whom it was given to.
"""


class WrongToken(ValueError):
    """A token is expired, revoked, not for this server or not what it says; str says which."""


class BearerAuthentication:
    """`Authenticate` for a server that needs a token; asks each source in turn."""

    def __init__(self, sources: Sequence[TokenSource], clock: Clock) -> None:
        self._sources, self._clock = tuple(sources), clock
        self._remembered: dict[bytes, tuple[int, Principal]] = {}

    async def __call__(self, headers: Mapping[str, str]) -> Principal:
        """The principal of the token. Raises Unauthorized with a `WWW-Authenticate` that says why."""
        given, now = headers.get("authorization", ""), self._clock()
        # a header that is remembered was read before
        key = blake2b(given.encode("utf-8", "surrogateescape"), digest_size=32).digest()
        known = self._remembered.get(key)
        if known is not None and 0 <= now - known[0] < REMEMBERED * _SECOND:
            return known[1]
        return await self._identify(read_token(headers), key, now)

    async def _identify(self, token: str, key: bytes, now: int) -> Principal:
        """The principal of a token, which is remembered under the key. Raises Unauthorized."""
        try:
            for source in self._sources:
                principal = await source(token)
                if principal is not None:
                    self._remember(key, now, principal)
                    return principal
        except WrongToken as error:
            raise _make_refusal(str(error), "invalid_token") from None
        raise _make_refusal("The token is not known here.", "invalid_token")

    def _remember(self, key: bytes, now: int, principal: Principal) -> None:
        before = self._remembered.pop(key, None)
        if before is not None and before[1] is not principal and before[1].may_the_same(principal):
            # with the same grant, what followed from it is remembered on
            principal = before[1]
        if len(self._remembered) >= MOST_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[key] = (now, principal)


def read_token(headers: Mapping[str, str]) -> str:
    """The token of the `Authorization` header. Raises Unauthorized with a `WWW-Authenticate` that says why."""
    given = headers.get("authorization")
    if given is None:
        raise Unauthorized(
            "This server needs an access token: send it as `Authorization: Bearer TOKEN`.",
            headers=(("WWW-Authenticate", _CHALLENGE),),
        )
    scheme, _, token = given.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or "," in token or " " in token:
        raise _make_refusal("The `Authorization` header is not `Bearer` and one token.", "invalid_request")
    if len(token) > LONGEST_TOKEN:
        raise _make_refusal(f"A token has at most {LONGEST_TOKEN:,} characters.", "invalid_request")
    return token


def refuse_token_in_query(pairs: Iterable[tuple[str, str]]) -> None:
    """Raise Unauthorized for a token in the URL, beside one in the header too: URLs are kept in many places."""
    if any(name == "access_token" for name, _ in pairs):
        raise _make_refusal(
            "A token in a URL is not taken, and others may have seen it: revoke it, and send one in the header.",
            "invalid_request",
        )


def _make_refusal(sentence: str, error: str) -> Unauthorized:
    return Unauthorized(sentence, headers=(("WWW-Authenticate", f'{_CHALLENGE} error="{error}"'),))
