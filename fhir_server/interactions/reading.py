"""Search pairs read by the parameters in force and the terminology that they need (https://hl7.org/fhir/R4/search.html)."""

from __future__ import annotations

from collections.abc import Sequence

from fhir_server.interactions.exchange import Context, Pairs
from fhir_server.interactions.terminology import criteria_for
from fhir_server.search.criterion import Unapplied
from fhir_server.search.parse import Search, parse
from fhir_server.search.result import Options


async def read_pairs(context: Context, types: Sequence[str], pairs: Pairs, base: str, options: Options) -> Search:
    """See `parse.parse`. Another process may have changed which custom parameters there are: the store tells."""
    if context.parameters.current.names(pairs):
        await context.parameters.renew()
    try:
        found = parse(types, pairs, await criteria_for(context, pairs, base), options)
    except Unapplied:
        if not await context.parameters.renew():
            raise
    else:
        if not found.issues or not await context.parameters.renew():
            return found
    return parse(types, pairs, await criteria_for(context, pairs, base), options)
