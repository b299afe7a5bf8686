"""The stored ValueSets and CodeSystems that search criteria name, loaded before the criteria are parsed (https://hl7.org/fhir/R4/terminology-service.html).

They are found by canonical URL, with all that they are composed of. What has the status `active` is preferred,
then what was updated last.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import orjson

from fhir_server.fhir.outcome import TooCostly
from fhir_server.fhir.references import strip_base
from fhir_server.fhir.terminology import Json
from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller, Pairs
from fhir_server.search.parameters import Criteria
from fhir_server.search.query import Clause, Equals, Ids, Or, Query, Scope
from fhir_server.search.terminology import Name, Terminology, find_names, list_dependencies
from fhir_server.store.protocol import Stored

MOST_DEFINITIONS = 500
"""ValueSets and CodeSystems that one search may be composed of."""


async def load_criteria(context: Context, pairs: Pairs, caller: Caller) -> Criteria:
    """The surroundings for parsing `pairs`, with the terminology that their modifiers need (usually none)."""
    criteria = context.criteria(caller.base)
    names = find_names(pairs)
    if not names:
        return criteria
    local = tuple((kind, strip_base(name, criteria.base)) for kind, name in names)
    return replace(criteria, terminology=await _load_definitions(context, caller, dict.fromkeys((*names, *local))))


async def _load_definitions(context: Context, caller: Caller, names: Iterable[Name]) -> Terminology:
    """The definitions of these names and of all that they depend on, loaded level by level."""
    found: dict[Name, tuple[Json, ...]] = {}
    waiting = list(names)
    known = size = 0
    while waiting:
        by_name, bytes_read = await _read_level(context, caller, waiting, context.settings.max_answer - size)
        size += bytes_read
        found |= {name: by_name.get(name, ()) for name in waiting}
        known += sum(map(len, by_name.values()))
        if known > MOST_DEFINITIONS:
            raise TooCostly(f"More than {MOST_DEFINITIONS} value sets and code systems are needed; name narrower ones.")
        terminology = Terminology(found)
        further = {
            each: None
            for kind, name in waiting
            for tree in terminology.iterate_definitions(kind, name)
            for each in list_dependencies(tree)
        }
        waiting = [name for name in further if name not in found]
    return Terminology(found, size)


async def _read_level(
    context: Context, caller: Caller, names: Iterable[Name], most: int
) -> tuple[dict[Name, tuple[Json, ...]], int]:
    """The stored definitions of the names, the preferred one first, and their bytes. Raises TooCostly for `most`."""
    by_kind: dict[str, dict[str, None]] = {}
    for kind, name in names:
        if kind in context.types:
            by_kind.setdefault(kind, {})[name] = None
    if not by_kind:
        return {}, 0
    scopes = tuple(Scope(kind, _build_name_clause(kind, listed)) for kind, listed in by_kind.items())
    page = await context.reader(caller).search(Query(scopes, count=MOST_DEFINITIONS + 1, most_bytes=most))
    size = sum(len(match.raw or b"") for match in page.matches)
    if size > most or (page.next is not None and len(page.matches) <= MOST_DEFINITIONS):
        raise TooCostly(
            "The value sets and code systems that are needed have more than "
            f"{context.settings.max_answer:,} bytes (setting `max_answer`); name narrower ones."
        )
    trees = await context.long_work.run_each(_parse, page.matches)
    found: dict[Name, list[tuple[bool, int, Json]]] = {}
    for match, tree in zip(page.matches, trees, strict=True):
        for called in (str(tree.get("url")), match.reference):
            if called in by_kind[match.type]:
                found.setdefault((match.type, called), []).append(_rank(match, tree))  # type: ignore[arg-type]
    ranked = {
        name: tuple(tree for _, _, tree in sorted(each, key=lambda one: one[:2], reverse=True))
        for name, each in found.items()
    }
    return ranked, size


def _parse(match: Stored) -> Json:
    return orjson.loads(match.raw or b"{}")  # type: ignore[no-any-return]


def _rank(match: Stored, tree: Json) -> tuple[bool, int, Json]:
    return tree.get("status") == "active", match.last_updated, tree


def _build_name_clause(kind: str, names: Iterable[str]) -> Clause:
    ids = tuple(name.removeprefix(f"{kind}/") for name in names if name.startswith(f"{kind}/"))
    by_url = Equals("url", tuple(names))
    return Or((by_url, Ids(ids))) if ids else by_url
