"""The order of a search's matches as MQL: sort keys and page positions.

Missing values come last both ways, ties are by id (https://hl7.org/fhir/R4/search.html#sort); MongoDB sorts null first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fhir_server.search.query import Sort, SortKey
from fhir_server.store.mongo import sortkeys
from fhir_server.store.mongo.compile import NOTHING, Filter, match_all, match_any
from fhir_server.store.mongo.indexes import Document
from fhir_server.store.mongo.patterns import build_condition, build_prefix_range

SCORE = "score"
"""Where the score stands that `scoring.py` gives a document; the database cannot compute it."""

_FIELDS = {"id": "_id", "lastUpdated": "updated", "score": SCORE}


@dataclass(frozen=True, slots=True)
class Key:
    """One sort key: the field that holds it, and the expression that computes the field (None: it is stored)."""

    sort: Sort
    field: str
    expression: Any = None

    @property
    def is_declared(self) -> bool:
        """Whether documents hold it for the sake of sorting (`sortkeys.py`)."""
        return not self.expression and self.sort.kind not in _FIELDS

    @property
    def order(self) -> dict[str, int]:
        """Its part of `$sort`."""
        if self.sort.descending:
            return {self.field: -1}
        return {f"{self.field}_missing": 1, self.field: 1} if self.expression else {self.field: 1}

    def read_value(self, document: Document) -> int | float | str | None:
        """The position's value in a found document."""
        if self.is_declared:
            return sortkeys.parse_key(self.sort, document)
        found: int | float | str | None = document[self.field]
        if isinstance(found, str) and self.sort.kind == "term":
            return found.partition("=")[2]
        return found

    def format_value(self, value: int | float | str | None) -> int | float | str | None:
        """A position's value as the field has it."""
        if self.is_declared:
            return sortkeys.format_key(self.sort, value)
        return f"{self.sort.parameter}={value}" if self.sort.kind == "term" and value is not None else value

    def match_beyond(self, value: int | float | str | None) -> Filter | None:
        """The filter of what comes after a position's value; None when nothing does."""
        if value is None:
            return None
        further = {self.field: {"$lt" if self.sort.descending else "$gt": self.format_value(value)}}
        return match_any((further, {self.field: None})) if self.expression else further

    def match_from(self, value: int | float | str | None) -> Filter:
        """Of a stored key: what is at a position's value or comes after it."""
        return {self.field: {"$lte" if self.sort.descending else "$gte": self.format_value(value)}}

    def match_up_to(self, value: int | float | str | None) -> Filter:
        """Of a stored key: what comes before a position's value or is at it."""
        return {self.field: {"$gte" if self.sort.descending else "$lte": self.format_value(value)}}


def build_keys(sort: Sequence[Sort], type: str) -> tuple[Key, ...]:
    """The sort keys of a type's resources; computed ones in the fields k0, k1 …"""
    return tuple(_build_key(each, number, type) for number, each in enumerate(sort))


def _build_key(sort: Sort, number: int, type: str) -> Key:
    if sort.kind in _FIELDS:
        return Key(sort, _FIELDS[sort.kind])
    if sortkeys.is_declared(type, sort):
        return Key(sort, sortkeys.build_path(sort.parameter, sort.descending))
    return Key(sort, f"k{number}", _build_expression(sort))


def select_deciding(keys: Sequence[Key], after: SortKey | None, type: str) -> tuple[Key, ...]:
    """The keys that decide the order: those up to the id, as no two resources of a type share it.

    After a page position of another type, in which a resource may have the same id, all of them.
    """
    if after is not None and _parse_type(after) != type:
        return tuple(keys)
    found: list[Key] = []
    for key in keys:
        found.append(key)
        if key.sort.kind == "id":
            break
    return tuple(found)


def _build_expression(sort: Sort) -> Any:
    """The lowest value of the parameter, or the highest when descending; null without one."""
    pick = "$max" if sort.descending else "$min"
    if sort.kind == "term":
        own = build_condition(build_prefix_range(f"{sort.parameter}="))
        return {pick: {"$filter": {"input": {"$ifNull": ["$terms", []]}, "cond": own}}}
    array = "$dates" if sort.kind == "date" else "$numbers"
    own = {"$eq": ["$$this.p", sort.parameter]}
    entries = {"$filter": {"input": {"$ifNull": [array, []]}, "cond": own}}
    end = "$$this.h" if sort.descending else "$$this.l"
    return {pick: {"$map": {"input": entries, "in": end}}}


def has_index(keys: Sequence[Key]) -> bool:
    """Whether an index holds the order that the deciding keys make: of one stored key, ties by id."""
    if not keys:
        return True
    first, *others = keys
    return not first.expression and all(key.sort.kind == "id" and not key.sort.descending for key in others)


def match_after(keys: Sequence[Key], after: SortKey, type: str) -> Filter:
    """What comes after a page position in the collection of a type."""
    equal: list[Filter] = []
    cases: list[Filter] = []
    for key, given in zip(keys, after, strict=False):
        beyond = key.match_beyond(given)
        if beyond is not None:
            cases.append(match_all((*equal, beyond)))
        equal.append({key.field: key.format_value(given)})
    tie = _match_tie(after, type)
    if tie is not None:
        cases.append(match_all((*equal, tie)))
    return match_all((match_start(keys, after), match_any(cases))) if cases else NOTHING


def _parse_type(after: SortKey) -> str:
    return str(after[-1]).partition("/")[0]


def _match_tie(after: SortKey, type: str) -> Filter | None:
    """What of a type comes after the reference of a page position; None: nothing."""
    other = _parse_type(after)
    if type == other:
        return {"_id": {"$gt": str(after[-1]).partition("/")[2]}}
    return {} if type > other else None


def match_start(keys: Sequence[Key], after: SortKey) -> Filter:
    """Implied by the position when the first key is stored, in the form that lets an index scan start there."""
    if not keys or keys[0].expression or (after[0] is None and not keys[0].is_declared):
        return {}
    return keys[0].match_from(after[0])


def build_sort(keys: Sequence[Key]) -> dict[str, int]:
    """The `$sort` document; `_id` decides what is left."""
    found: dict[str, int] = {}
    for key in keys:
        for field, direction in key.order.items():
            found.setdefault(field, direction)
    found.setdefault("_id", 1)
    return found
