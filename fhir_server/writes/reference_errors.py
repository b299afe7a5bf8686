"""References without a target, and deletions of what is referred to, as errors that say where each reference stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from fhir_server.fhir.outcome import Conflict, FhirError, Issue, Unprocessable
from fhir_server.fhir.resource import Text
from fhir_server.fhir.rewrite import find_reference_paths
from fhir_server.requests.context import Context
from fhir_server.store.protocol import StillReferenced, TargetsMissing
from fhir_server.writes.plan import Plan
from fhir_server.writes.resolve_targets import Target

MOST_NAMED = 100
"""References, or resources still referred to, that one error names; it says how many more there are."""


async def build_missing_target_error(context: Context, draft: Plan, error: TargetsMissing) -> FhirError:
    """422 that says where each reference stands; of very many, where the first of them stand."""
    listed = error.references[:MOST_NAMED]
    places: dict[str, list[str]] = {reference: [] for reference in listed}
    sources: dict[int, tuple[Target, Text, dict[str, str]]] = {}
    for reference in listed:
        target, text = draft.required[reference]
        _, _, wanted = sources.setdefault(id(text), (target, text, {}))
        wanted |= dict.fromkeys(_list_forms(context, draft, reference), reference)
    for target, text, wanted in sources.values():
        path = f"{target.action.where}.resource" if target.action.where else target.action.type
        for place, form in await context.long_work.run(len(text.raw), _list_places, text, path, wanted):
            places[wanted[form]].append(place)
    issues = [_build_missing_issue(reference, paths) for reference, paths in places.items()]
    if more := len(error.references) - len(listed):
        issues.append(Issue("error", "not-found", f"{more:,} more references have no target."))
    return Unprocessable(issues=issues)


def _build_missing_issue(reference: str, paths: Sequence[str]) -> Issue:
    sentence = (
        f"The reference to `{reference}` has no target: no such resource is stored here. "
        "Create it first, or send both in one transaction."
    )
    return Issue("error", "not-found", sentence, tuple(paths))


def _list_places(text: Text, path: str, wanted: Mapping[str, str]) -> list[tuple[str, str]]:
    """(FHIRPath, text) of each reference in a resource that is written in one of the wanted forms."""
    return list(find_reference_paths(text.tree, path, wanted.__contains__))


async def build_still_referenced_error(context: Context, draft: Plan, error: StillReferenced) -> FhirError:
    """409 that says where each reference stands and, in a transaction, which entry deletes its target.

    What the caller may not see is not named.
    """
    reader = context.reader(draft.caller)
    purged = {target.reference: "purged" for target, _ in draft.steps if target.action.purge}
    entries = {target.reference: target.action.where for target, _ in draft.steps if target.action.method == "DELETE"}
    issues = []
    for target, sources in islice(error.sources.items(), MOST_NAMED):
        wanted = dict.fromkeys(_list_forms(context, draft, target), target)
        listed = []
        for source in sources:
            found = (await reader.read_many((source,))).get(source)
            if found is None:
                continue
            text, type = Text(found.raw or b"{}"), source.partition("/")[0]
            paths = [path for path, _ in await context.long_work.run(len(text.raw), _list_places, text, type, wanted)]
            listed.append(f"`{source}`" + (f" ({', '.join(paths)})" if paths else ""))
        sentence = (
            f"`{target}` cannot be {purged.get(target, 'deleted')}, because it is still referred to by "
            f"{', '.join(listed) or 'what you may not see'}. Delete or change that first."
        )
        where = entries.get(target, "")
        issues.append(Issue("error", "conflict", sentence, (where,) if where else ()))
    if more := len(error.sources) - len(issues):
        issues.append(Issue("error", "conflict", f"{more:,} more of the resources to delete are still referred to."))
    return Conflict(issues=issues)


def _list_forms(context: Context, draft: Plan, reference: str) -> set[str]:
    """How a reference to `Type/id` may be written."""
    return {reference, *(f"{base}/{reference}" for base in context.bases.include(draft.caller.base))}
