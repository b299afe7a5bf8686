"""References without a target, and deletions of what is referred to, as errors that say where each reference stands."""

from __future__ import annotations

import orjson

from fhir_server.fhir.outcome import Conflict, FhirError, Issue, Unprocessable
from fhir_server.fhir.rewrite import find_reference_paths
from fhir_server.requests.context import Context
from fhir_server.store.protocol import StillReferenced, TargetsMissing
from fhir_server.writes.plan import Plan


def build_missing_target_error(context: Context, draft: Plan, error: TargetsMissing) -> FhirError:
    """422 that says where each reference stands."""
    issues = []
    for reference in error.references:
        target, text = draft.required[reference]
        path = f"{target.action.where}.resource" if target.action.where else target.action.type
        wanted = _list_forms(context, draft, reference)
        paths = tuple(found for found, _ in find_reference_paths(text.tree, path, wanted.__contains__))
        issues.append(
            Issue(
                "error",
                "not-found",
                f"The reference to `{reference}` has no target: no such resource is stored here. "
                "Create it first, or send both in one transaction.",
                paths,
            )
        )
    return Unprocessable(issues=issues)


async def build_still_referenced_error(context: Context, draft: Plan, error: StillReferenced) -> FhirError:
    """409 that says where each reference stands and, in a transaction, which entry deletes its target."""
    found = await context.unrestricted.read_many({source for sources in error.sources.values() for source in sources})
    purged = {target.reference: "purged" for target, _ in draft.steps if target.action.purge}
    entries = {target.reference: target.action.where for target, _ in draft.steps if target.action.method == "DELETE"}
    issues = []
    for target, sources in error.sources.items():
        wanted = _list_forms(context, draft, target)
        listed = []
        for source in sources:
            tree = orjson.loads((found[source].raw if source in found else None) or b"{}")
            paths = [path for path, _ in find_reference_paths(tree, source.partition("/")[0], wanted.__contains__)]
            listed.append(f"`{source}`" + (f" ({', '.join(paths)})" if paths else ""))
        sentence = (
            f"`{target}` cannot be {purged.get(target, 'deleted')}, because it is still referred to by "
            f"{', '.join(listed)}. Delete or change that first."
        )
        where = entries.get(target, "")
        issues.append(Issue("error", "conflict", sentence, (where,) if where else ()))
    return Conflict(issues=issues)


def _list_forms(context: Context, draft: Plan, reference: str) -> set[str]:
    """How a reference to `Type/id` may be written."""
    return {reference, *(f"{base}/{reference}" for base in context.bases.include(draft.caller.base))}
