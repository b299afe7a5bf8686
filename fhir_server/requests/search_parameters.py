"""The search parameters in force: R4's, and the active SearchParameters stored here (https://hl7.org/fhir/R4/searchparameter.html).

Each process learns them from the store. A write carries the number of the registry that its entries were made by, and
is refused and planned again when that is not the store's: nothing is stored without the entries of a parameter in
force. What was stored before has them after a reindex; until then the parameter is pending, and no search may use it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from fhir_server.fhir.definitions import Definitions
from fhir_server.fhir.outcome import Issue
from fhir_server.fhir.urls import search_parameter_url
from fhir_server.search.custom import ACTIVE, RESOURCE_TYPE, find_problems, read_facts
from fhir_server.search.entries import CONTAINED, SEPARATOR
from fhir_server.search.index import Index
from fhir_server.search.parse import COMMON_CRITERIA, NOT_SEARCHED
from fhir_server.search.query import Equals, Query, Scope, StartsWith
from fhir_server.search.registry import (
    FULL_TEXT,
    CustomParameter,
    Indexed,
    Parameter,
    Registry,
    add_custom,
    add_full_text,
    iterate_bases,
    remove_custom,
)
from fhir_server.search.result_parameters import PARAMETERS
from fhir_server.store.protocol import Store, Stored

INDEXED = "indexed"
"""The key under which the store keeps `registry.Indexed`, as JSON."""

_PAGE = 500
_RESERVED = frozenset({*PARAMETERS, *COMMON_CRITERIA, *NOT_SEARCHED, "_has"})
_WORD = re.compile(r"[A-Za-z0-9_\-]+")
_NAMING = frozenset({"_sort", "_include", "_revinclude", "_filter"})
"""Parameters whose values name other parameters."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """One state of the search parameters. `number`: the store's registry when it was read; `indexed`: its text.

    `codes`: those of the custom parameters.
    """

    number: int
    indexed: bytes | None
    registry: Registry
    index: Index
    codes: frozenset[str] = frozenset()

    def list_pending(self, type: str) -> tuple[Parameter, ...]:
        """The parameters of a type that wait for a reindex."""
        return tuple(each for each in self.registry.parameters(type).values() if each.pending)

    def list_custom(self, type: str) -> tuple[Parameter, ...]:
        """The parameters of a type that are not R4's."""
        return tuple(each for each in self.registry.parameters(type).values() if each.edition)

    def uses_custom_parameter(self, pairs: Iterable[tuple[str, str]]) -> bool:
        """Whether a search may use a custom parameter."""
        if not self.codes:
            return False
        texts = [f"{name} {value}" if name.partition(":")[0] in _NAMING else name for name, value in pairs]
        return any(not self.codes.isdisjoint(_WORD.findall(text)) for text in texts)


class SearchParameters:
    """The search parameters in force in this process; `current` is a snapshot that is replaced, never changed.

    `registry` and its `index` are those of R4 alone; with `full_text` the index makes texts.
    """

    def __init__(
        self, store: Store, definitions: Definitions, registry: Registry, index: Index, full_text: bool
    ) -> None:
        self._store = store
        self._definitions = definitions
        self._published = registry
        self._plain = index
        self._full_text = full_text
        self.current = self._build_snapshot(0, None, [])

    def find_faults(
        self, resource: Mapping[str, Any], beside: Mapping[str, Mapping[str, Any] | None]
    ) -> tuple[Issue, ...]:
        """Why a valid SearchParameter cannot be put in force; () when it can.

        `beside`: by id, the SearchParameters that the same transaction writes; None for one that it deletes.
        """
        # What is in force of an earlier version says nothing about this one.
        registry = remove_custom(self.current.registry, (resource["id"], *beside))
        others = [each for id, each in beside.items() if each and each["status"] == ACTIVE and id != resource["id"]]
        return find_problems(resource, self._definitions, registry, _RESERVED, [read_facts(each) for each in others])

    async def reload(self) -> bool:
        """Read the parameters from the store again; False if nothing changed."""
        while True:
            number, indexed = await self._store.registry_version(), await self._store.get_value(INDEXED)
            if (number, indexed) == (self.current.number, self.current.indexed):
                return False
            custom = await self._read_active_parameters() if number else []
            if number == await self._store.registry_version():
                self.current = self._build_snapshot(number, indexed, custom)
                return True

    async def reload_and_mark_empty_types(self) -> None:
        """Reload after a change; types without any resource, stored or contained, are marked as indexed."""
        await self.reload()
        if not self._full_text:
            await self._unmark_texts()
        waiting = [type for type in self.current.registry.types if self.current.list_pending(type)]
        if waiting:
            await self._store.wait_for_open_transactions()
            absent = [type for type in waiting if not await _has_any(self._store, Scope(type))]
            within = await find_container_types(self._store, self.current.registry.types, absent)
            nowhere = [type for type in absent if not await find_container_types(self._store, within, (type,))]
            await self.mark_indexed(nowhere, self.current)

    async def mark_indexed(self, types: Sequence[str], by: Snapshot) -> None:
        """Record that all resources of the types are indexed by the parameters of the snapshot `by`."""
        while types:
            before = await self._store.get_value(INDEXED)
            indexed: dict[str, dict[str, str]] = orjson.loads(before or b"{}")
            indexed |= {type: {each.code: each.edition for each in by.list_custom(type)} for type in types}
            if await self._store.put_value_if(INDEXED, orjson.dumps(indexed), before):
                break
        await self.reload()

    async def _unmark_texts(self) -> None:
        """Record that texts are no longer indexed, so that full text, when switched on again, waits for a reindex."""
        before = await self._store.get_value(INDEXED)
        if before and FULL_TEXT.encode() in before:
            indexed: dict[str, dict[str, str]] = orjson.loads(before)
            kept = {
                type: {code: edition for code, edition in editions.items() if edition != FULL_TEXT}
                for type, editions in indexed.items()
            }
            if not await self._store.put_value_if(INDEXED, orjson.dumps(kept), before):
                await self._unmark_texts()
            await self.reload()

    async def _read_active_parameters(self) -> list[Stored]:
        """The active SearchParameters of the store, by id."""
        if RESOURCE_TYPE not in self._published.types:
            return []
        query = Query((Scope(RESOURCE_TYPE, StartsWith("status", f"{ACTIVE}{SEPARATOR}")),), count=_PAGE)
        found: list[Stored] = []
        while True:
            page = await self._store.search(query)
            found += page.matches
            if page.next is None:
                return found
            query = replace(query, after=page.next)

    def _build_snapshot(self, number: int, indexed: bytes | None, stored: Sequence[Stored]) -> Snapshot:
        there: Indexed = orjson.loads(indexed or b"{}")
        custom: list[CustomParameter] = []
        base = registry = add_full_text(self._published, there) if self._full_text else self._published
        found = [(each, orjson.loads(each.raw or b"{}")) for each in stored]
        for composite in (False, True):  # composites last: their components may be custom themselves
            for each, resource in found:
                # one that an earlier version of this server took, or whose component is gone, is not in force
                applies = (resource["type"] == "composite") is composite and not self._find_faults(resource, registry)
                if applies:
                    custom.append(CustomParameter(read_facts(resource), f"{each.id}@{each.last_updated}"))
            registry = add_custom(base, self._definitions, custom, there) if custom else base
        changed = {type for each in custom for type in iterate_bases(each.facts, registry.types)}
        index = self._plain.replace_types(registry, self._definitions, changed) if changed else self._plain
        # those that ship are the same in every process: a search by them needs no look at the store
        shipped = search_parameter_url("")
        codes = {each.facts.code for each in custom if not each.facts.url.startswith(shipped)}
        codes |= {"_text", "_content"} if self._full_text else set()
        return Snapshot(number, indexed, registry, index, frozenset(codes))

    def _find_faults(self, resource: Mapping[str, Any], registry: Registry) -> tuple[Issue, ...]:
        return find_problems(resource, self._definitions, registry, _RESERVED)


async def find_container_types(store: Store, among: Iterable[str], types: Sequence[str]) -> list[str]:
    """The types `among` some of which resources contain a resource of one of these types."""
    where = Equals(CONTAINED, tuple(types))
    return [type for type in among if types and await _has_any(store, Scope(type, where))]


async def _has_any(store: Store, scope: Scope) -> bool:
    return bool((await store.search(Query((scope,), count=1))).matches)
