"""Which versions came from a partner: those that a Provenance of the partner was written with, in one transaction.

`meta.source` does not tell it, since later edits keep it. The feed gives the versions of a transaction one after the
other, and a store gives them one time; where the feed is cut between them, the Provenance is looked up by that time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import orjson

from fhir_server.fhir.datetimes import format_instant
from fhir_server.requests.context import Context
from fhir_server.requests.criteria import parse_criteria
from fhir_server.requests.request import Caller
from fhir_server.search.query import Query, Scope
from fhir_server.store.protocol import Stored
from fhir_server.workers.message_codes import PARTNER_SYSTEM

Origins = dict[tuple[str, int], set[str]]
"""(`Type/id`, version) → names of the partners that it came from."""

NEAR = 1_000_000
"""µs between the ends of a batch and what a transaction may have that the batch cuts."""

TARGETS = 50
"""Resources whose Provenances are looked up at once."""

MOST = 1000
"""Provenances of one look."""


class _Origin(NamedTuple):
    partner: str
    targets: tuple[str, ...]
    last_updated: int


async def find_origins(
    context: Context, caller: Caller, versions: Sequence[Stored], wanted: Sequence[Stored], is_walk: bool = False
) -> Origins:
    """The origins of the wanted ones of these versions, which stand in the feed's order, in a walk in none."""
    origins: Origins = {}
    if not is_walk:
        _find_in_batch(versions, origins)
        first, last = versions[0].last_updated, versions[-1].last_updated
        wanted = [each for each in wanted if min(abs(each.last_updated - end) for end in (first, last)) <= NEAR]
    known = {(each.reference, each.last_updated) for each in versions if each.type == "Provenance"}
    left = [each for each in wanted if (each.reference, each.version) not in origins]
    for at in range(0, len(left), TARGETS):
        part = left[at : at + TARGETS]
        moments = {(each.reference, each.last_updated): each for each in part}
        for found in await _search(context, caller, part):
            origin = _read_origin(found)
            if origin is None or ((found.reference, found.last_updated) in known and not is_walk):
                continue
            for target in origin.targets:
                version = moments.get((target, origin.last_updated))
                if version is not None:
                    origins.setdefault((target, version.version), set()).add(origin.partner)
    return origins


def _find_in_batch(versions: Sequence[Stored], origins: Origins) -> None:
    """A Provenance stands behind what it was written with; a version before the transaction has an earlier time."""
    places: dict[str, list[int]] = {}
    for place, version in enumerate(versions):
        places.setdefault(version.reference, []).append(place)
    for place, version in enumerate(versions):
        origin = _read_origin(version)
        for target in origin.targets if origin is not None else ():
            own = places.get(target, ())
            before = [each for each in own if each < place and versions[each].last_updated >= version.last_updated]
            after = [each for each in own if each > place and versions[each].last_updated == version.last_updated]
            for each in (*before[-1:], *(() if before else after[:1])):
                assert origin is not None
                origins.setdefault((target, versions[each].version), set()).add(origin.partner)


async def find_senders(context: Context, caller: Caller, reference: str) -> dict[str, set[int]]:
    """The partners that versions of a resource (`Type/id`) came from, each with their times (µs)."""
    where = await parse_criteria(context, "Provenance", (("target", reference),), caller)
    found = await context.unrestricted.search(Query((Scope("Provenance", where),), count=MOST))
    senders: dict[str, set[int]] = {}
    for origin in filter(None, map(_read_origin, found.matches)):
        if reference in origin.targets:
            senders.setdefault(origin.partner, set()).add(origin.last_updated)
    return senders


async def _search(context: Context, caller: Caller, versions: Sequence[Stored]) -> Iterable[Stored]:
    """The Provenances of these resources that have a time of one of the versions."""
    times = [each.last_updated for each in versions]
    pairs = (
        ("target", ",".join(sorted({each.reference for each in versions}))),
        ("_lastUpdated", f"ge{format_instant(min(times))}"),
        ("_lastUpdated", f"le{format_instant(max(times))}"),
    )
    where = await parse_criteria(context, "Provenance", pairs, caller)
    return (await context.unrestricted.search(Query((Scope("Provenance", where),), count=MOST))).matches


def _read_origin(version: Stored) -> _Origin | None:
    """The partner and the targets of a Provenance of the message log; None for everything else."""
    if version.type != "Provenance" or version.raw is None:
        return None
    tree: dict[str, Any] = orjson.loads(version.raw)
    for agent in tree.get("agent", ()):
        identifier = agent.get("who", {}).get("identifier", {})
        if identifier.get("system") == PARTNER_SYSTEM:
            targets = tuple(str(each.get("reference", "")).partition("/_history/")[0] for each in tree["target"])
            return _Origin(str(identifier.get("value", "")), targets, version.last_updated)
    return None
