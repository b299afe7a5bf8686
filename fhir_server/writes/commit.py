"""Plan a write, commit it, and plan it again when something it relied on has changed (docs/decisions/0007)."""

from __future__ import annotations

import asyncio
import random

import orjson

from fhir_server.fhir.outcome import Conflict, FhirError, Issue, Unprocessable
from fhir_server.fhir.rewrite import reference_paths
from fhir_server.requests.context import Context
from fhir_server.store.operations import Transaction
from fhir_server.store.protocol import (
    SEARCH_PARAMETER,
    AssertionFailed,
    Committed,
    RegistryChanged,
    StillReferenced,
    TargetsMissing,
    WriteConflict,
)
from fhir_server.writes.action import Action, WriteResult
from fhir_server.writes.plan import Plan, collect_results, plan

# The share of a request's time limit that is spent on planning again; the rest is for the answer.
_RETRYING = 0.8
_LONGEST_PAUSE = 0.05


async def commit(context: Context, action: Action, base: str) -> WriteResult:
    """Carry out one action of a request of its own."""
    draft, committed = await _plan_and_transact(context, [action], base, bundle=False, reads=Transaction())
    results = collect_results(draft, committed.written)
    return results[0]


async def commit_bundle(
    context: Context, actions: list[Action], base: str, reads: Transaction
) -> tuple[dict[str, WriteResult], Committed]:
    """Carry out the actions of a transaction bundle as one transaction; the results by bundle entry.

    `reads` carries the reads and queries of the bundle, answered from the state after its writes.
    """
    draft, committed = await _plan_and_transact(context, actions, base, bundle=True, reads=reads)
    results: dict[str, WriteResult] = {}
    for (target, _), result in zip(draft.steps, collect_results(draft, committed.written), strict=True):
        results.setdefault(target.action.where, result)
    return results, committed


async def _plan_and_transact(
    context: Context, actions: list[Action], base: str, bundle: bool, reads: Transaction
) -> tuple[Plan, Committed]:
    """Repeat plan and commit until the plan's assertions hold, within the request's time limit."""
    deadline = asyncio.get_running_loop().time() + _RETRYING * context.settings.request_timeout
    attempt = 0
    while True:
        try:
            draft = await plan(context, actions, base, bundle)
            transaction = draft.to_transaction(reads)
            if not (transaction.writes or transaction.reads or transaction.queries):
                return draft, Committed(())
            committed = await context.store.transact(transaction)
            if any(write.type == SEARCH_PARAMETER for write in transaction.writes):
                await context.parameters.reload_and_mark_empty_types()
            return draft, committed
        except (AssertionFailed, RegistryChanged, WriteConflict) as error:
            if isinstance(error, RegistryChanged):
                await context.parameters.reload()
            if asyncio.get_running_loop().time() > deadline:
                raise Conflict(
                    "Other writes kept changing what this one depends on; nothing was written. Try again."
                ) from None
            attempt += 1
            await asyncio.sleep(min(_LONGEST_PAUSE, 0.001 * attempt) * random.random())
        except TargetsMissing as error:
            raise _build_missing_target_error(draft, error) from None
        except StillReferenced as error:
            raise await _build_still_referenced_error(context, draft, error) from None


def _build_missing_target_error(draft: Plan, error: TargetsMissing) -> FhirError:
    issues = []
    for reference in error.references:
        target, text = draft.required[reference]
        path = f"{target.action.where}.resource" if target.action.where else target.action.type
        wanted = {reference, f"{draft.base}/{reference}"}
        paths = tuple(found for found, _ in reference_paths(text.tree, path, wanted.__contains__))
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


async def _build_still_referenced_error(context: Context, draft: Plan, error: StillReferenced) -> FhirError:
    """409 that says where each reference stands and, in a transaction, which entry deletes its target."""
    found = await context.store.read_many({source for sources in error.sources.values() for source in sources})
    entries = {target.reference: target.action.where for target, _ in draft.steps if target.action.method == "DELETE"}
    issues = []
    for target, sources in error.sources.items():
        wanted = {target, f"{draft.base}/{target}"}
        listed = []
        for source in sources:
            tree = orjson.loads((found[source].raw if source in found else None) or b"{}")
            paths = [path for path, _ in reference_paths(tree, source.partition("/")[0], wanted.__contains__)]
            listed.append(f"`{source}`" + (f" ({', '.join(paths)})" if paths else ""))
        sentence = (
            f"`{target}` cannot be deleted, because it is still referred to by {', '.join(listed)}. "
            "Delete or change that first."
        )
        where = entries.get(target, "")
        issues.append(Issue("error", "conflict", sentence, (where,) if where else ()))
    return Conflict(issues=issues)
