"""`__explain=true` or `Prefer: explain`: how a search was parsed and executed, as an outcome entry of its searchset."""

from __future__ import annotations

import time
from collections.abc import Sequence

from fhir_server.fhir.bundle import write_outcome_entry
from fhir_server.fhir.outcome import Invalid, Issue, build_operation_outcome
from fhir_server.requests.context import Context
from fhir_server.requests.request import Pairs, Request
from fhir_server.requests.terminology import load_criteria
from fhir_server.search.explain import explain_parameters
from fhir_server.search.parse import Search

EXPLAIN = "__explain"


def wants_explanation(request: Request, pairs: Pairs) -> bool:
    """Whether the search is to be explained. Raises Invalid for a value that is neither `true` nor `false`."""
    for name, value in pairs:
        if name == EXPLAIN:
            if value not in ("true", "false"):
                raise Invalid(f"`{EXPLAIN}` takes `true` or `false`, not `{value}`.", code="value")
            return value == "true"
    return request.get_preference("explain") in ("", "true")


async def build_explanation(context: Context, request: Request, wanted: Search, steps: Sequence[str]) -> bytes:
    """The outcome entry: each parameter as read, the plan of the store, and `steps` with the times they took."""
    started = time.perf_counter()
    criteria = await load_criteria(context, wanted.applied, request.caller)
    types = [scope.type for scope in (wanted.contained or wanted.query).scopes]
    sentences = list(explain_parameters(types, wanted.applied, criteria))
    sentences.append(f"Reading the parameters took {format_elapsed(started)}.")
    if wanted.query.sort:
        keys = ", ".join(f"{'-' if key.descending else ''}{key.parameter}" for key in wanted.query.sort)
        sentences.append(f"The order is by {keys}, then by type and id.")
    if not wanted.query.scopes:
        sentences.append("Nothing but contained resources is searched.")
    elif context.policy.restricts(request.principal):
        sentences.append("How the store searches is not told to a token: its numbers speak of all that is stored.")
    else:
        sentences += await context.unrestricted.explain(wanted.query)
    issues = [Issue("information", "informational", sentence) for sentence in (*sentences, *steps)]
    return write_outcome_entry(context.new_id(), build_operation_outcome(issues))


def format_elapsed(started: float) -> str:
    """The time since `started` (`time.perf_counter`), such as `1.25 ms`."""
    return f"{(time.perf_counter() - started) * 1000:.2f} ms"
