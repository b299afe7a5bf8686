"""What a principal may write: asked of what a plan will store, and of what that refers to."""

from __future__ import annotations

from fhir_server.requests.context import Context
from fhir_server.search.query import EVERYTHING
from fhir_server.security.check import allows_entries, find_links
from fhir_server.security.scope_policy import PEOPLE
from fhir_server.store.protocol import TargetsMissing
from fhir_server.writes.check_current import make_refusal
from fhir_server.writes.plan import Plan
from fhir_server.writes.reference_errors import build_missing_target_error


def check_new(context: Context, draft: Plan) -> None:
    """Raise Forbidden for a resource that would be, once written, outside of what the principal may write."""
    principal = draft.caller.principal
    if not context.policy.restricts(principal):
        return
    for target, step in draft.steps:
        if not isinstance(step, int) or (write := draft.writes[step]).content is None:
            continue
        stored = draft.found.get(target.reference)
        is_new = stored is None or stored.raw is None
        clause = context.policy.write_restriction(principal, write.type, "c" if is_new else "u")
        if clause != EVERYTHING and not allows_entries(clause, write.type, write.id, write.entries):
            raise make_refusal(target)


async def check_references(context: Context, draft: Plan) -> None:
    """Raise the error of a missing target for references to what the principal may not see.

    The patient of the launch is known to it, whether or not a scope lets it read Patients.
    """
    principal = draft.caller.principal
    if not context.policy.restricts(principal):
        return
    await _check_people(context, draft)
    if principal.operation or not draft.required:
        return
    known = f"Patient/{principal.grant.patient}" if principal.grant is not None else ""
    written = {known} | {f"{write.type}/{write.id}" for write in draft.writes if write.content is not None}
    wanted = [reference for reference in draft.required if reference not in written]
    visible = await context.reader(draft.caller).read_many(wanted)
    missing = [reference for reference in wanted if reference not in visible]
    if missing:
        raise await build_missing_target_error(context, draft, TargetsMissing(missing))


async def _check_people(context: Context, draft: Plan) -> None:
    """Raise Forbidden for a search parameter that would lead to somebody whom a reference alone makes visible.

    The store checks no reference to a version, nor any where the setting `references` is `allow`.
    """
    policy, principal = context.policy, draft.caller.principal
    guarded = tuple(f"{type}/" for type in sorted(PEOPLE) if find_links(policy.restriction(principal, type)))
    named = {
        term: target
        for target, step in draft.steps
        if guarded and isinstance(step, int)
        for terms in draft.writes[step].entries.terms.values()
        for term in terms
        if term.startswith(guarded)
    }
    visible = await context.reader(draft.caller).read_many(named) if named else {}
    for reference, target in named.items():
        if reference not in visible:
            raise make_refusal(target)
