"""The R4 definitions: elements, search parameters, compartments (https://hl7.org/fhir/R4/structuredefinition.html).

They are read from `tables/`, which `scripts/generate_definitions.py` writes from the official package.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

TABLES = Path(__file__).parent / "tables"

_TYPES_WITH_SYSTEM = frozenset({"CodeableConcept", "Coding", "Quantity"})


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a type.

    `path` is the official one (`Observation.value[x]`), `name` lacks the `[x]`.
    `targets`: resource types that a Reference or canonical may point to; () means any, or not a reference.
    `codes`: the codes of its required value set when they can be enumerated, else None: bare codes for
    elements of type code, `system|code` for CodeableConcept, Coding and Quantity.
    """

    path: str
    name: str
    choice: bool
    types: tuple[str, ...]
    minimum: int
    repeats: bool
    summary: bool
    targets: tuple[str, ...]
    codes: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Property:
    """What one JSON key holds: its element and the key's one type.

    `type` is `Quantity` for `valueQuantity`; the path (`Patient.contact`) for an inline backbone; the path referred to
    for a content reference; `Resource` where any resource may stand.
    """

    element: Element
    type: str


@dataclass(frozen=True, slots=True)
class SearchParameterFacts:
    """A SearchParameter as published; `components` are (definition URL, expression) pairs.

    The fields are in the order of the table. `multiple_and` and `multiple_or` are True where the definition does not
    say.
    """

    code: str
    url: str
    type: str
    base: tuple[str, ...]
    expression: str
    targets: tuple[str, ...]
    components: tuple[tuple[str, str], ...]
    multiple_and: bool
    multiple_or: bool
    comparators: tuple[str, ...]
    modifiers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Definitions:
    """All of base R4.

    `resource_types`: every concrete one, sorted, Parameters included. `properties`: type name (resource, datatype or
    backbone path) → JSON key → Property; `_key` siblings of primitives and `resourceType` are not listed.
    `compartments`: Patient → Observation → ("subject", "performer").
    """

    resource_types: tuple[str, ...]
    properties: Mapping[str, Mapping[str, Property]]
    search_parameters: tuple[SearchParameterFacts, ...]
    compartments: Mapping[str, Mapping[str, tuple[str, ...]]]
    primitives: frozenset[str]


def load() -> Definitions:
    """Read the tables (about 30 ms); nothing is cached here, so that the caller keeps the result."""
    types = _read_table("types")
    code_lists = {
        url: (_list_bare_codes(systems), _list_codes_with_system(systems))
        for url, systems in sorted(_read_table("codes").items())
    }
    return Definitions(
        resource_types=tuple(types["resources"]),
        properties={
            owner: {key: property for row in rows for key, property in _row_to_properties(owner, row, code_lists)}
            for owner, rows in _read_table("elements").items()
        },
        search_parameters=tuple(SearchParameterFacts(*_freeze(row)) for row in _read_table("search-parameters")),
        compartments={
            compartment: {type: tuple(codes) for type, codes in members.items()}
            for compartment, members in _read_table("compartments").items()
        },
        primitives=frozenset(types["primitives"]),
    )


def _read_table(name: str) -> Any:
    return orjson.loads((TABLES / f"{name}.json").read_bytes())


def _list_bare_codes(systems: Mapping[str, list[str]]) -> tuple[str, ...]:
    return tuple(sorted({code for codes in systems.values() for code in codes}))


def _list_codes_with_system(systems: Mapping[str, list[str]]) -> tuple[str, ...]:
    return tuple(sorted(f"{system}|{code}" for system, codes in systems.items() for code in codes))


def _row_to_properties(
    owner: str, row: list[Any], code_lists: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]
) -> Iterator[tuple[str, Property]]:
    """The JSON keys of one table row: one, or one for each type of a choice."""
    official_name, minimum, repeats, summary, types, targets, value_set = row
    name = official_name.removesuffix("[x]")
    choice = name != official_name
    codes = code_lists[value_set][types[0] in _TYPES_WITH_SYSTEM] if value_set else None
    element = Element(
        f"{owner}.{official_name}", name, choice, tuple(types), minimum, repeats, summary, tuple(targets), codes
    )
    for type in types:
        key = f"{name}{type[0].upper()}{type[1:]}" if choice else name
        yield key, Property(element, type)


def _freeze(value: Any) -> Any:
    """A value of a table with tuples in place of its lists."""
    return tuple(map(_freeze, value)) if isinstance(value, list) else value
