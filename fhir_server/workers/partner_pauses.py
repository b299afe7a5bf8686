"""Which partners a person has paused: they are sent nothing until they are resumed; what is on its way is finished."""

from __future__ import annotations

import orjson

from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import NotFound
from fhir_server.requests.context import Context

KEY = "sending/paused"


async def read_paused(context: Context) -> frozenset[str]:
    """The names of the partners that are paused."""
    return frozenset(await read_pauses(context))


async def read_pauses(context: Context) -> dict[str, str]:
    """Name → since when it is paused."""
    text = await context.unrestricted.get_value(KEY)
    pauses: dict[str, str] = orjson.loads(text) if text else {}
    return pauses


async def pause(context: Context, partner: str) -> None:
    """Send nothing to a partner. Raises NotFound where there is none of that name."""
    if partner not in context.partners:
        known = ", ".join(f"`{name}`" for name in context.partners) or "none"
        raise NotFound(f"There is no partner `{partner}`; partners are {known}.")
    moment = format_instant(context.clock() // 1000 * 1000)
    await _change(context, partner, moment)


async def resume(context: Context, partner: str) -> bool:
    """Send to a partner again; whether it was paused."""
    return await _change(context, partner, None)


async def _change(context: Context, partner: str, moment: str | None) -> bool:
    """Note or remove a pause; whether there was one."""
    while True:
        text = await context.unrestricted.get_value(KEY)
        pauses: dict[str, str] = orjson.loads(text) if text else {}
        was = partner in pauses
        if was == (moment is not None):
            return was
        after = {**pauses, partner: moment} if moment else {name: at for name, at in pauses.items() if name != partner}
        if await context.unrestricted.put_value_if(KEY, orjson.dumps(after), text):
            return was
