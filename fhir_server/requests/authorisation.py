"""One interaction authorised and audited: the same way for a request, a batch entry and a transaction entry."""

from __future__ import annotations

from fhir_server.requests.context import Context
from fhir_server.requests.request import Request
from fhir_server.security.audit import Event
from fhir_server.security.policy import Grant

NO_GRANT = Grant(())
MOST_NAMES = 20
"""Names of search parameters that an audit event has."""


def authorise(context: Context, request: Request, interaction: str) -> None:
    """Return, or raise Forbidden. `interaction`: its code in the table of interactions, or `$operation`."""
    context.policy.authorise(request.principal, interaction, *_find_subject(context, request))


def audit(context: Context, request: Request, interaction: str, status: int) -> None:
    """Report an interaction that was answered with this status."""
    if context.audit is not None:
        type, id = _find_subject(context, request)
        principal, grant = request.principal, request.principal.grant or NO_GRANT
        query = request.query
        names = tuple(dict.fromkeys([name for name, _ in query]))[:MOST_NAMES] if query else ()
        who = principal.name, interaction, type, id, status, request.id, names
        context.audit(Event(*who, grant.client, grant.user, grant.patient, *(principal.emergency or ())))


def _find_subject(context: Context, request: Request) -> tuple[str | None, str | None]:
    """The resource type and the id that a request's path names."""
    path = request.path
    type = path[0] if path and path[0] in context.types else None
    return type, path[1] if type and len(path) > 1 and not path[1].startswith(("_", "$")) else None
