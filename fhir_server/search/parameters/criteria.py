"""What the parameter types have in common: extraction, criteria and prefixes (https://hl7.org/fhir/R4/search.html#ptypes)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import Any, Literal, NamedTuple

from fhir_server.fhir.outcome import Invalid
from fhir_server.fhir.references import BaseUrls
from fhir_server.search.entries import DateEntry, NumberEntry
from fhir_server.search.query import Bound, Clause, Or
from fhir_server.search.registry import Parameter, Registry
from fhir_server.search.terminology import Terminology


class Surroundings(NamedTuple):
    """What an element's entries depend on besides the element.

    `zone`: of dates without an offset. `base`: this server's URLs. `types`: resource types that exist.
    `resource`: the whole resource, for `%resource`. `contained`: the resources that `#id` may refer to.
    """

    zone: tzinfo
    base: BaseUrls
    types: Collection[str]
    resource: Any
    contained: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Criteria:
    """What the meaning of a search value depends on besides the value. `now` (µs) is the present moment, for `ap`.

    `terminology`: R4's own value sets and code systems, and those of the server that the criteria at hand name.
    `full_text`: whether resources are indexed by their words.
    """

    registry: Registry
    base: BaseUrls
    now: int
    zone: tzinfo = UTC
    terminology: Terminology = field(default_factory=Terminology)
    full_text: bool = False


Entry = str | DateEntry | NumberEntry
Extractor = Callable[[Any, Surroundings], tuple[Any, ...]]
"""(JSON value of an element, surroundings) → its entries."""


@dataclass(frozen=True, slots=True)
class ParameterType:
    """One type of search parameter.

    `kind`: the part of Entries that its entries go to. `extractors`: what makes entries, by FHIR type of the element.
    `parse_clause(parameter, modifier, text, criteria)`: the clause of one alternative, still escaped; raises Invalid.
    `negating_modifiers`: those whose clause, with all its alternatives, is wrapped in Not. `modifier_datatypes`: by
    modifier, the FHIR types of elements that it applies to; those not named apply to all.
    """

    kind: Literal["terms", "dates", "numbers"]
    extractors: Mapping[str, Extractor]
    parse_clause: Callable[[Parameter, str | None, str, Criteria], Clause]
    modifiers: frozenset[str] = frozenset()
    negating_modifiers: frozenset[str] = frozenset()
    prefixes: bool = False
    sort_kind: Literal["term", "date", "number"] | None = "term"
    modifier_datatypes: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def list_modifiers(self, parameter: Parameter) -> frozenset[str]:
        """The modifiers that apply to the elements of a parameter of this type, `missing` and types aside."""
        types = set(parameter.datatypes)
        unfit = {modifier for modifier, fit in self.modifier_datatypes.items() if fit.isdisjoint(types)}
        return self.modifiers - unfit


PREFIXES = frozenset({"eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"})
APPROXIMATION = 10
"""`ap` widens by a tenth, as R4 recommends."""

Alternatives = tuple[tuple[Bound, ...], ...]
"""Groups of bounds: the bounds of one group must all hold."""


def split_prefix(text: str) -> tuple[str, str]:
    """The prefix (`eq` when there is none) and the value after it."""
    return (text[:2], text[2:]) if text[:2] in PREFIXES else ("eq", text)


def make_or(clauses: Iterable[Clause]) -> Clause:
    """The one clause, or an Or of several."""
    parts = tuple(clauses)
    return parts[0] if len(parts) == 1 else Or(parts)


def reject(parameter: Parameter, text: str, form: str) -> Invalid:
    """The error that rejects a value of a parameter; `form` says what it takes."""
    return Invalid(f"`{parameter.code}={text}` of `{parameter.base}` is not valid: {form}")
