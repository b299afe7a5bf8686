"""The declared sorts as fields of a current document: `sort.<parameter>.a` upwards, `.d` downwards (https://hl7.org/fhir/R4/search.html#sort).

Always a text, never absent, so that one range of an index begins at any page position:

| value | as `a` | as `d` |
|---|---|---|
| terms | `=` and the lowest | `=` and the highest |
| dates | the lowest low end, 19 digits | the highest high end, 19 digits |
| none | `>`, above all | ``, below all |
"""

from __future__ import annotations

from functools import cache
from typing import Any

from fhir_server.search.entries import OPEN_LOW, Entries
from fhir_server.search.query import Sort
from fhir_server.search.sorts import SORTS
from fhir_server.store.protocol import StoreUnavailable

FIELD = "sort"

COMPUTED = frozenset(
    {
        *("appointment-type", "category", "class", "clinical-status", "code", "gender", "identifier", "intent"),
        *("lifecycle-status", "modality", "outcome", "part-status", "payment-status", "priority", "relationship"),
        *("role", "service-type", "severity", "specialty", "status", "type", "use", "vaccine-code"),
        *("location-period", "value-date"),
    }
)
"""Declared sorts that are computed here, as other sorts are: all that are by codes, and dates that few resources have.

Each would cost every resource two keys. A whole type is walked by its dates and names; codes are asked for.
"""

_DIGITS = 19
_LAST = {"a": ">", "d": ""}


@cache
def list_sorts(type: str) -> tuple[str, ...]:
    """The parameters whose keys the documents of a type hold."""
    return tuple([parameter for parameter in SORTS.get(type, ()) if parameter not in COMPUTED])


def is_declared(type: str, sort: Sort) -> bool:
    """Whether the documents of a type hold the key."""
    return sort.kind in ("term", "date") and sort.parameter in list_sorts(type)


def build_path(parameter: str, descending: bool) -> str:
    """The field of a declared sort."""
    return f"{FIELD}.{parameter}.{_pick_end(descending)}"


def build_fields(type: str, entries: Entries) -> dict[str, dict[str, str]]:
    """The value of the field `sort`."""
    found: dict[str, dict[str, str]] = {}
    for parameter in list_sorts(type):
        if terms := entries.terms.get(parameter):
            found[parameter] = {"a": f"={terms[0]}", "d": f"={terms[-1]}"}
        elif dates := entries.dates.get(parameter):
            high = dates[0][1] if len(dates) == 1 else max([high for _, high in dates])
            found[parameter] = {"a": _format_moment(dates[0][0]), "d": _format_moment(high)}
        else:
            found[parameter] = _LAST
    return found


def format_key(sort: Sort, value: int | float | str | None) -> str:
    """A position's value as the field has it."""
    if value is None:
        return _LAST[_pick_end(sort.descending)]
    return f"={value}" if isinstance(value, str) else _format_moment(int(value))


def parse_key(sort: Sort, document: dict[str, Any]) -> int | str | None:
    """The position's value in a found document.

    Raises StoreUnavailable for one that was written before the sort was declared.
    """
    end = _pick_end(sort.descending)
    try:
        text: str = document[FIELD][sort.parameter][end]
    except KeyError:
        raise StoreUnavailable(
            f"The resource `{document['_id']}` has no key for sorting by `{sort.parameter}` yet. Run "
            "`fhir-server reindex`, then try again."
        ) from None
    if text == _LAST[end]:
        return None
    return text[1:] if sort.kind == "term" else int(text) + OPEN_LOW


def _pick_end(descending: bool) -> str:
    return "d" if descending else "a"


def _format_moment(microseconds: int) -> str:
    """In the order of numbers: from the open end at 0."""
    return f"{microseconds - OPEN_LOW:0{_DIGITS}}"
