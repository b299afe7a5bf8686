"""Break-glass: for one request that reads, a person sees what the scopes hide, for a purpose and a reason.

FHIR names no way to ask for it (https://hl7.org/fhir/R4/security-labels.html#break-the-glass): here it is a header,
`X-Break-Glass: purpose=ETREAT; reason="Unconscious, allergies unknown"`, and both are recorded. What it opens are the
words `break-glass:SCOPE` of the person's role; the token's own types, letters and search parameters stay its limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from fhir_server.fhir.outcome import Forbidden, Invalid
from fhir_server.security.policy import Emergency, Grant, Principal
from fhir_server.security.scope_policy import names_label
from fhir_server.security.scopes import ANY_TYPE, PERMISSIONS, ResourceScope
from fhir_server.security.users import Roles, find_user
from fhir_server.store.protocol import Store

HEADER = "x-break-glass"
OPERATIONS = frozenset({"everything", "lastn"})
"""Those that answer once and keep nothing of whom they were called by."""

_EXAMPLE = '`X-Break-Glass: purpose=ETREAT; reason="Unconscious, allergies unknown"`'
_FORM = re.compile(r'purpose=([A-Z][A-Z0-9]{1,19}) ?; ?reason="([^"\\\x00-\x1f\x7f]{5,300})"')
_PERSON = "user:"
"""What the name of a principal begins with that is a person of this server."""


def parse_emergency(text: str, purposes: Sequence[str]) -> Emergency:
    """What a header says. Raises Invalid for one that does not say both, or names another purpose."""
    match = _FORM.fullmatch(text.strip())
    if match is None or len(match[2].strip()) < 5:
        raise Invalid(f"Break-glass needs a purpose and a reason of 5 to 300 characters: {_EXAMPLE}.")
    if match[1] not in purposes:
        known = ", ".join(f"`{purpose}`" for purpose in purposes)
        raise Invalid(f"`{match[1]}` is no purpose of break-glass; purposes are {known} (setting `break_glass`).")
    return Emergency(match[1], match[2].strip())


def check_reading(method: str, path: Sequence[str]) -> None:
    """Raise Invalid unless the request is one that only reads, and by itself: no write, Bundle or other operation."""
    last = path[-1] if path else ""
    operation = last.removeprefix("$") if last.startswith("$") else ""
    reads = method in ("GET", "HEAD") or (method == "POST" and last == "_search")
    if not reads or (operation and operation not in OPERATIONS):
        raise Invalid("Break-glass is for a read, a search, a history, `$everything` or `$lastn`, sent by itself.")


def lift_scopes(scopes: Iterable[ResourceScope], opened: Iterable[ResourceScope]) -> tuple[ResourceScope, ...]:
    """The scopes, and what the opened ones add to those of them that may read: labels, and more than one patient.

    An opened scope of the level `patient` leaves the limit of the compartment where the token has it.
    """
    own = tuple(scopes)
    return tuple(dict.fromkeys((*own, *(lifted for each in opened for lifted in _lift(own, each)))))


def _lift(own: Sequence[ResourceScope], opened: ResourceScope) -> Iterator[ResourceScope]:
    for scope in own:
        types = {scope.type, opened.type} - {ANY_TYPE} or {ANY_TYPE}
        letters = "".join(each for each in PERMISSIONS if each in "rs" and each in scope.permissions)
        letters = "".join(each for each in letters if each in opened.permissions)
        if len(types) == 1 and letters:
            level = scope.level if opened.level == "patient" else opened.level
            # what the token says of labels itself gives way to what the role opens
            kept = scope.query if not names_label(opened.query) else _drop_labels(scope)
            yield ResourceScope(level, types.pop(), letters, tuple(dict.fromkeys((*kept, *opened.query))))


def _drop_labels(scope: ResourceScope) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in scope.query if pair[0].partition(":")[0] != "_security")


async def break_glass(store: Store, roles: Roles, principal: Principal, emergency: Emergency) -> Principal:
    """The principal as it may read for this request. Raises Forbidden for whom no role allows it."""
    user = None
    if principal.grant is not None and principal.name.startswith(_PERSON):
        user = await find_user(store, principal.name.removeprefix(_PERSON))
    opened = () if user is None or user.disabled else user.list_opened(roles)
    if principal.grant is None or not opened:
        raise Forbidden("Break-glass is for people whose role allows it; this token's does not.")
    grant = principal.grant
    lifted = Grant(lift_scopes(grant.scopes, opened), grant.patient, grant.user, grant.client)
    return replace(principal, grant=lifted, emergency=emergency)
