"""Search pairs read by the parameters in force and the terminology that they need (https://hl7.org/fhir/R4/search.html)."""

from __future__ import annotations

from collections.abc import Sequence

from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller, Pairs
from fhir_server.requests.terminology import load_criteria
from fhir_server.search.parameter_clause import UnsupportedParameter
from fhir_server.search.parse import Search, parse
from fhir_server.search.result_parameters import Options


async def parse_search(
    context: Context, types: Sequence[str], pairs: Pairs, caller: Caller, options: Options
) -> Search:
    """See `parse.parse`. Another process may have changed which custom parameters there are: the store tells."""
    if context.parameters.current.uses_custom_parameter(pairs):
        await context.parameters.reload()
    try:
        found = parse(types, pairs, await load_criteria(context, pairs, caller), options)
    except UnsupportedParameter:
        if not await context.parameters.reload():
            raise
    else:
        if not found.issues or not await context.parameters.reload():
            return found
    return parse(types, pairs, await load_criteria(context, pairs, caller), options)
