"""Criteria of conditional interactions: parsed strictly, never empty, asserted again at the commit.

https://hl7.org/fhir/R4/http.html#ccreate and the sections on conditional update, patch and delete.
"""

from __future__ import annotations

from fhir_server.fhir.outcome import Invalid, PreconditionFailed
from fhir_server.requests.context import Context
from fhir_server.requests.parse_search import parse_search
from fhir_server.requests.request import Caller, Pairs, parse_query
from fhir_server.search.parse import NOT_SEARCHED
from fhir_server.search.query import Clause, Query, Scope
from fhir_server.search.result_parameters import Options

STRICT = Options(lenient=False, default_count=2, max_count=2)
_RESULT_PARAMETERS = frozenset(
    {"_sort", "_count", "_include", "_revinclude", "_summary", "_total", "_elements", "_contained", "_containedType"}
    | {"__explain"}
)


def parse_if_none_exist(text: str, type: str) -> Pairs:
    """The pairs of an If-None-Exist, written with or without `Type?`. Raises Invalid when that is another type."""
    before, mark, query = text.partition("?")
    if not mark or "=" in before:  # the question mark, if any, is part of a value
        return parse_query(text)
    if before.rpartition("/")[2] not in ("", type):
        raise Invalid(
            f"`If-None-Exist: {text}` has criteria for another type than `{type}`, which is created.", code="value"
        )
    return parse_query(query)


async def parse_criteria(context: Context, type: str, pairs: Pairs, caller: Caller) -> Clause:
    """The clause of conditional criteria. Raises PreconditionFailed when empty, Invalid for result parameters."""
    if all(name in NOT_SEARCHED for name, _ in pairs):
        raise PreconditionFailed(
            f"The criteria of a conditional interaction on `{type}` are empty; name at least one search parameter."
        )
    for name, _ in pairs:
        if name.partition(":")[0] in _RESULT_PARAMETERS:
            raise Invalid(
                f"`{name}` says how to answer a search; criteria of a conditional interaction cannot have it."
            )
    search = await parse_search(context, (type,), pairs, caller, STRICT)
    return search.query.scopes[0].where


def build_criteria_query(type: str, where: Clause, count: int) -> Query:
    """The query that finds what criteria match."""
    return Query((Scope(type, where),), count=count)


def build_multiple_matches_error(type: str, pairs: Pairs) -> PreconditionFailed:
    """The error for criteria that match more than one resource."""
    criteria = "&".join(f"{name}={value}" for name, value in pairs)
    return PreconditionFailed(
        f"The criteria `{type}?{criteria}` match more than one resource; make them select one.", code="multiple-matches"
    )
