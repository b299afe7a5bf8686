"""The secret links of calendar feeds, kept in the store's values: of the key that a link holds only the hash is stored.

A key is `<id of the link>.<secret>`. The value `calendar/Practitioner/pine/<id>` has the hash of the secret, when the
link was made and by whom; a feed shows what that principal may see. A key opens the feed of its own resource alone.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import asdict, dataclass, replace
from hashlib import sha256

import orjson

from fhir_server.fhir.outcome import Conflict
from fhir_server.requests.context import Context
from fhir_server.security.policy import Grant, Principal
from fhir_server.security.scopes import parse_scopes

MOST_LINKS = 20
"""Links that one resource may have."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link of a resource (`Practitioner/pine`): its id, the hash of its secret, when (µs) and by whom it was made.

    `scopes`, `patient`: what the token allowed by which it was made; `scopes` is None where none was needed.
    """

    owner: str
    id: str
    hash: str
    made: int
    principal: str
    scopes: str | None = None
    patient: str = ""

    def find_principal(self) -> Principal:
        """Who may see what the feed shows."""
        grant = None if self.scopes is None else Grant(parse_scopes(self.scopes), self.patient)
        return Principal(self.principal, grant=grant)


def _key(owner: str, id: str = "") -> str:
    return f"calendar/{owner}/{id}"


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


async def make_link(context: Context, owner: str, principal: Principal) -> tuple[Link, str]:
    """(the link, the key that its URL needs, which is nowhere else). Raises Conflict when there are too many."""
    if len(await list_links(context, owner)) >= MOST_LINKS:
        raise Conflict(f"`{owner}` has {MOST_LINKS} calendar links, the most; revoke one with DELETE first.")
    id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    link = Link(owner, id, _hash(secret), context.clock(), principal.name)
    if principal.grant is not None:
        link = replace(link, scopes=" ".join(map(str, principal.grant.scopes)), patient=principal.grant.patient)
    await context.unrestricted.put_value_if(_key(owner, id), orjson.dumps(asdict(link)), None)
    return link, f"{id}.{secret}"


async def list_links(context: Context, owner: str) -> list[Link]:
    """The links of a resource, the oldest first."""
    page = await context.unrestricted.list_values(_key(owner), limit=2 * MOST_LINKS)
    links = [Link(**orjson.loads(value)) for _, value in page.values]
    return sorted(links, key=lambda each: (each.made, each.id))


async def find_link(context: Context, owner: str, key: str) -> Link | None:
    """The link that a key opens; None for a wrong key, a revoked link and one of another resource alike."""
    id, _, secret = key.partition(".")
    value = await context.unrestricted.get_value(_key(owner, id)) if id else None
    link = Link(**orjson.loads(value)) if value else None
    # without a link something is compared as well, so that the time of the answer does not tell which ids exist
    same = hmac.compare_digest(link.hash if link else _hash(""), _hash(secret))
    return link if link is not None and same else None


async def revoke_link(context: Context, owner: str, id: str) -> bool:
    """Forget a link; False when there is none."""
    value = await context.unrestricted.get_value(_key(owner, id)) if id else None
    return value is not None and await context.unrestricted.remove_value_if(_key(owner, id), value)
