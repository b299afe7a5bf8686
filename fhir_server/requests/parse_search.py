"""Search pairs read by the parameters in force and the terminology that they need (https://hl7.org/fhir/R4/search.html)."""

from __future__ import annotations

from collections.abc import Sequence

from fhir_server.fhir.outcome import Forbidden
from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller, Pairs
from fhir_server.requests.terminology import load_criteria
from fhir_server.search.links import list_linked_types
from fhir_server.search.parameter_clause import UnsupportedParameter
from fhir_server.search.parse import Search, parse
from fhir_server.search.result_parameters import Options

# A character of a criterion costs as much as some of a resource, and that for each type.
_WEIGHT = 4


async def parse_search(
    context: Context, types: Sequence[str], pairs: Pairs, caller: Caller, options: Options
) -> Search:
    """See `parse.parse`. Raises Forbidden where a chain leads through types that the caller may not search.

    Another process may have changed which custom parameters there are: the store tells.
    """
    search = await _parse(context, types, pairs, caller, options)
    if context.policy.restricts(caller.principal):
        _check_links(context, search, caller)
    return search


def _check_links(context: Context, search: Search, caller: Caller) -> None:
    for scope in search.query.scopes:
        for alternatives in list_linked_types(scope.where):
            refusals = []
            for type in alternatives:
                try:
                    context.policy.check_link(caller.principal, type)
                except Forbidden as error:
                    refusals.append(error)
            if len(refusals) == len(alternatives):
                raise refusals[0]


async def _parse(context: Context, types: Sequence[str], pairs: Pairs, caller: Caller, options: Options) -> Search:
    if context.parameters.current.uses_custom_parameter(pairs):
        await context.parameters.reload()
    size = _WEIGHT * len(types) * sum(len(name) + len(value) for name, value in pairs)
    try:
        criteria = await load_criteria(context, pairs, caller)
        found = await context.long_work.run(size + criteria.terminology.size, parse, types, pairs, criteria, options)
    except UnsupportedParameter:
        if not await context.parameters.reload():
            raise
    else:
        if not found.issues or not await context.parameters.reload():
            return found
    criteria = await load_criteria(context, pairs, caller)
    return await context.long_work.run(size + criteria.terminology.size, parse, types, pairs, criteria, options)
