"""What value sets contain and what codes subsume (https://hl7.org/fhir/R4/valueset.html#compositions).

Pure: the ValueSets and CodeSystems stored in the server are given, those of R4 itself are in `fhir.terminology`. What
is stored comes first. A value set is evaluated in full or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Literal

from fhir_server.fhir.outcome import Invalid, TooCostly
from fhir_server.fhir.terminology import Json, load_published_terminology
from fhir_server.search.concepts import Concepts, Unevaluable, filter_codes, read_code_system
from fhir_server.search.escapes import split, unescape
from fhir_server.search.filter_grammar import TERMINOLOGY, expand_system_names, iterate_comparisons, parse_filter

Kind = Literal["ValueSet", "CodeSystem"]
Name = tuple[Kind, str]
"""What is looked up: a canonical URL without version, or `ValueSet/id`."""

MODIFIERS = frozenset({"in", "not-in", "above", "below"})
MAX_CODES = 20_000
"""Codes that one value set may have in a search; the docs page has what they cost."""

MOST_LOOKED_AT = 4_000_000
"""Codes that one search may look at to find out what its value sets contain and its codes subsume."""

_SUFFIXES = tuple(f":{modifier}" for modifier in sorted(MODIFIERS))
_MAX_DEPTH = 20
_TOO_COSTLY = "http://hl7.org/fhir/StructureDefinition/valueset-toocostly"


@dataclass(frozen=True, slots=True)
class Codes:
    """`listed`: (system, code) pairs; `systems`: code systems of which every code is meant, whatever it is."""

    listed: frozenset[tuple[str, str]] = frozenset()
    systems: frozenset[str] = frozenset()

    def intersection(self, other: Codes) -> Codes:
        """What is in both."""
        mine = {pair for pair in self.listed if pair in other.listed or pair[0] in other.systems}
        theirs = {pair for pair in other.listed if pair[0] in self.systems}
        return Codes(frozenset(mine | theirs), self.systems & other.systems)

    def subtract(self, other: Codes) -> Codes:
        """What is not in the other. Raises Unevaluable for single codes out of a system that is not known."""
        systems = self.systems - other.systems
        for system, code in other.listed:
            if system in systems:
                raise Unevaluable(f"`{code}` cannot be taken out of `{system}`, whose codes are not known here")
        listed = (pair for pair in self.listed if pair not in other.listed and pair[0] not in other.systems)
        return Codes(frozenset(listed), systems)


def unite(parts: Iterable[Codes]) -> Codes:
    """What is in one of them."""
    listed: set[tuple[str, str]] = set()
    systems: set[str] = set()
    for each in parts:
        listed |= each.listed
        systems |= each.systems
    return Codes(frozenset(listed), frozenset(systems))


@dataclass(slots=True)
class _Evaluated:
    """What one search has worked out: value sets and code systems once each; `left`: codes that it may look at."""

    sets: dict[str, Codes] = field(default_factory=dict)
    systems: dict[str, Concepts | None] = field(default_factory=dict)
    left: int = MOST_LOOKED_AT

    def spend(self, number: int) -> None:
        """Note that so many codes are looked at. Raises TooCostly."""
        self.left -= number
        if self.left < 0:
            raise TooCostly(
                f"More than {MOST_LOOKED_AT:,} codes would be looked at for the value sets and code systems of this "
                "search; name fewer or narrower ones."
            )


@dataclass(frozen=True, slots=True)
class Terminology:
    """Value sets and code systems by name, for one search; `stored` ones by preference, before those that R4 publishes.

    `size`: bytes of the texts of those that are stored.
    """

    stored: Mapping[Name, Sequence[Json]] = field(default_factory=dict)
    size: int = 0
    _evaluated: _Evaluated = field(default_factory=_Evaluated, compare=False, repr=False)

    def list_codes(self, canonical: str) -> Codes:
        """What the value set contains: a canonical URL, perhaps with `|version`, or `ValueSet/id`.

        Raises Invalid for one that is not known, Unevaluable for one that cannot be evaluated in full, TooCostly.
        """
        if self.find_definition("ValueSet", canonical) is None:
            raise Invalid(
                f"The value set `{canonical}` is not known here{self._describe_versions('ValueSet', canonical)}. "
                "Store it as a ValueSet, or name one of FHIR R4.",
                code="not-found",
            )
        try:
            codes = _Evaluation(self, self._evaluated).list_codes(canonical)
        except Unevaluable as error:
            raise Unevaluable(f"The value set `{canonical}` cannot be evaluated: {error}.") from None
        if len(codes.listed) > MAX_CODES:
            raise TooCostly(
                f"The value set `{canonical}` has {len(codes.listed)} codes; a search takes up to {MAX_CODES}. "
                "Use a narrower value set."
            )
        self._evaluated.spend(len(codes.listed))
        return codes

    def find_below(self, system: str, code: str) -> frozenset[str]:
        """The code and those that it subsumes. Raises Invalid for an unknown code, Unevaluable."""
        concepts = self._read_system_of(system, code)
        return self._count_edges(concepts.find_below(code), concepts.children)

    def find_above(self, system: str, code: str) -> frozenset[str]:
        """The code and those that subsume it. Raises Invalid for an unknown code, Unevaluable."""
        concepts = self._read_system_of(system, code)
        return self._count_edges(concepts.find_above(code), concepts.parents)

    def _count_edges(self, codes: frozenset[str], edges: Mapping[str, Sequence[str]]) -> frozenset[str]:
        self._evaluated.spend(len(codes) + sum(len(edges.get(each, ())) for each in codes))
        return codes

    def read_system(self, canonical: str) -> Concepts | None:
        """The concepts of a code system, read once; None for one that is not known."""
        systems = self._evaluated.systems
        if canonical not in systems:
            found = self.find_definition("CodeSystem", canonical)
            systems[canonical] = concepts = read_code_system(found) if found is not None else None
            self._evaluated.spend(concepts.size if concepts is not None else 0)
        return systems[canonical]

    def find_definition(self, kind: Kind, canonical: str) -> Json | None:
        """The definition that a canonical URL names: the given version, else the one to prefer."""
        url, _, version = canonical.partition("|")
        found = (each for each in self.iterate_definitions(kind, url) if not version or each.get("version") == version)
        return next(found, None)

    def iterate_definitions(self, kind: Kind, name: str) -> Iterator[Json]:
        """All definitions under a name, in order of preference."""
        yield from self.stored.get((kind, name), ())
        tables = load_published_terminology()
        official = (tables.value_sets if kind == "ValueSet" else tables.code_systems).get(name)
        if official is not None:
            yield official

    def _describe_versions(self, kind: Kind, canonical: str) -> str:
        """The versions that are known of what was asked for in another one."""
        url = canonical.partition("|")[0]
        versions = sorted({each.get("version", "") for each in self.iterate_definitions(kind, url)} - {""})
        return f" (known versions: {', '.join(f'`{version}`' for version in versions)})" if versions else ""

    def _read_system_of(self, system: str, code: str) -> Concepts:
        concepts = self.read_system(system)
        if concepts is None:
            raise Invalid(
                f"The code system `{system}` is not known here; store it as a CodeSystem, or list codes.",
                code="not-found",
            )
        if not concepts.complete:
            raise Unevaluable(
                f"The code system `{system}` is known here only in part (content `{concepts.content}`), "
                "so its hierarchy cannot be searched."
            )
        if code not in concepts.properties:
            raise Invalid(f"The code system `{system}` has no code `{code}`.", code="code-invalid")
        return concepts


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """Of one value set, and of those that it includes."""

    terminology: Terminology
    evaluated: _Evaluated

    def list_codes(self, canonical: str, path: tuple[str, ...] = ()) -> Codes:
        """What the value set contains; `path` are those that include it. Raises Unevaluable."""
        if canonical in self.evaluated.sets:
            return self.evaluated.sets[canonical]
        if canonical in path:
            raise Unevaluable(f"it includes itself, by way of `{path[-1]}`")
        if len(path) > _MAX_DEPTH:
            raise Unevaluable(f"its value sets are nested more than {_MAX_DEPTH} deep")
        value_set = self.terminology.find_definition("ValueSet", canonical)
        if value_set is None:
            raise Unevaluable(f"it includes `{canonical}`, which is not known here")
        try:
            found = self._compose(value_set, (*path, canonical))
        except Unevaluable:
            listed = read_expansion(value_set)
            if listed is None:
                raise
            found = listed
        self.evaluated.sets[canonical] = found
        return found

    def _compose(self, value_set: Json, path: tuple[str, ...]) -> Codes:
        compose = value_set.get("compose")
        if compose is None:
            raise Unevaluable("it has no `compose`, and no complete `expansion`")
        active = compose.get("inactive") is False
        included = [self._evaluate_include(each, active, path) for each in compose.get("include", ())]
        excluded = [self._evaluate_include(each, False, path) for each in compose.get("exclude", ())]
        codes = unite(included)
        return codes.subtract(unite(excluded)) if excluded else codes

    def _evaluate_include(self, include: Json, active: bool, path: tuple[str, ...]) -> Codes:
        """One include or exclude: all its conditions hold."""
        parts = [self.list_codes(canonical, path) for canonical in include.get("valueSet", ())]
        if "system" in include:
            parts.append(self._evaluate_system(include, active))
        if not parts:
            raise Unevaluable("an `include` names neither a system nor a value set")
        self.evaluated.spend(sum(len(each.listed) for each in parts))
        return reduce(Codes.intersection, parts)

    def _evaluate_system(self, include: Json, active: bool) -> Codes:
        system = include["system"]
        canonical = f"{system}|{include['version']}" if "version" in include else system
        concepts = self.terminology.read_system(canonical)
        filters = include.get("filter", ())
        codes: frozenset[str]
        if "concept" in include:
            codes = frozenset(each["code"] for each in include["concept"])
        elif filters and concepts is None:
            raise Unevaluable(f"it filters `{canonical}`, which is not known here")
        elif filters:
            assert concepts is not None
            codes = frozenset.intersection(*(filter_codes(concepts, each, self.evaluated.spend) for each in filters))
        elif concepts is not None and concepts.complete:
            codes = frozenset(concepts.properties)
        elif active:
            raise Unevaluable(f"which codes of `{canonical}` are active is not known here")
        else:
            return Codes(systems=frozenset({system}))
        if active and concepts is not None:
            self.evaluated.spend(concepts.size)
            codes = frozenset(
                code for code in codes if code not in concepts.properties or not concepts.is_inactive(code)
            )
        return Codes(frozenset((system, code) for code in codes))


def read_expansion(value_set: Json) -> Codes | None:
    """What the `expansion` of a value set lists; None where there is none or it is a part of one."""
    expansion = value_set.get("expansion")
    if (
        expansion is None
        or expansion.get("offset")
        or any(e["url"] == _TOO_COSTLY for e in expansion.get("extension", ()))
    ):
        return None
    found: list[tuple[str, str]] = []
    seen, waiting = 0, [*expansion.get("contains", ())]
    while waiting:
        each = waiting.pop()
        seen += 1
        waiting += each.get("contains", ())
        if "code" in each and not each.get("abstract"):
            found.append((each.get("system", ""), each["code"]))
    return None if expansion.get("total", seen) > seen else Codes(frozenset(found))


def find_names(pairs: Iterable[tuple[str, str]]) -> tuple[Name, ...]:
    """The names of all that the terminology modifiers among search pairs speak of; () for nearly every search.

    The operators of a `_filter` that need terminology count too. Raises Invalid for a filter that cannot be read.
    """
    names: dict[Name, None] = {}
    for name, value in pairs:
        if name.endswith(_SUFFIXES):
            for text in split(value, ","):
                names |= _find_names_in_value(name.rpartition(":")[2], text)
        elif name == "_filter" and value:
            for each in iterate_comparisons(parse_filter(value)):
                if each.operator in TERMINOLOGY:
                    names |= _find_names_in_value(TERMINOLOGY[each.operator], expand_system_names(each.value))
    return tuple(names)


def _find_names_in_value(modifier: str, text: str) -> dict[Name, None]:
    """What one value of a terminology modifier names."""
    if modifier in ("in", "not-in"):
        return {("ValueSet", unescape(text).partition("|")[0]): None}
    return {("CodeSystem", unescape(split(text, "|")[0])): None} if "|" in text else {}


def list_dependencies(definition: Json) -> tuple[Name, ...]:
    """What a ValueSet is composed of: other value sets, and code systems where it does not list the codes."""
    compose = definition.get("compose", {})
    names: dict[Name, None] = {}
    for include in (*compose.get("include", ()), *compose.get("exclude", ())):
        for canonical in include.get("valueSet", ()):
            names["ValueSet", canonical.partition("|")[0]] = None
        if "system" in include and ("concept" not in include or compose.get("inactive") is False):
            names["CodeSystem", include["system"]] = None
    return tuple(names)
