"""The concepts of a code system: hierarchy and filters (https://hl7.org/fhir/R4/codesystem.html#hierarchy).

A concept is below another one by standing inside it, by its property `parent` or `subsumedBy`, or by being named in the
other one's property `child`; a concept may be below several.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from fhir_server.fhir.outcome import Invalid
from fhir_server.fhir.terminology import Json

_STANDARD_PROPERTIES = "http://hl7.org/fhir/concept-properties#"
_PARENT_PROPERTIES = frozenset({"parent", "subsumedBy"})
_CHILD_PROPERTIES = frozenset({"child"})
_INACTIVE_STATUSES = frozenset({"retired", "inactive"})
_CODE_PROPERTIES = frozenset({"concept", "code"})

# A pattern that repeats a group, or repeats often, may take a time that is exponential in its length or in the text's.
_ESCAPE = re.compile(r"\\.", re.DOTALL)
_REPEATED_GROUP = re.compile(r"\)[*+{]")
_REPEATS = re.compile(r"[*+{]")
_MAX_REPEATS = 4
_MOST_STEPS = 5_000_000
"""Of one pattern on one text, at worst: it keeps the interpreter for 0.1 s at most."""
_STEPS_OF_A_CODE = 64
"""Steps of a pattern that take as long as looking at one code does otherwise."""


class Unevaluable(Invalid):
    """A value set cannot be evaluated in full with the code systems that this server knows."""

    code = "not-supported"


@dataclass(frozen=True, slots=True)
class Concepts:
    """A code system by code: `parents` and `children` are the direct ones, `properties` hold (name, value as text).

    `content`: whether all concepts are here, by `CodeSystem.content`. `is_a`: the hierarchy is one of kinds, not of
    parts or groups. `size`: how many concepts, properties and edges there are.
    """

    url: str
    content: str
    is_a: bool
    displays: Mapping[str, str]
    parents: Mapping[str, tuple[str, ...]]
    children: Mapping[str, tuple[str, ...]]
    properties: Mapping[str, tuple[tuple[str, str], ...]]
    declared: frozenset[str]
    size: int

    @property
    def complete(self) -> bool:
        """Whether every concept of the system is here."""
        return self.content == "complete"

    def find_below(self, code: str) -> frozenset[str]:
        """The code and all that it subsumes."""
        return _walk_edges(code, self.children)

    def find_above(self, code: str) -> frozenset[str]:
        """The code and all that subsume it."""
        return _walk_edges(code, self.parents)

    def is_inactive(self, code: str) -> bool:
        """Whether the code is not in use any more, as far as its properties say."""
        return any(
            (name == "inactive" and value == "true") or (name == "status" and value in _INACTIVE_STATUSES)
            for name, value in self.properties[code]
        )


def _walk_edges(code: str, edges: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    """The code and all that the edges lead to from it."""
    reached = {code}
    level = {code}
    while level:
        level = {target for each in level for target in edges.get(each, ())} - reached
        reached |= level
    return frozenset(reached)


def read_code_system(system: Json) -> Concepts:
    """The concepts of a CodeSystem resource."""
    properties: dict[str, tuple[tuple[str, str], ...]] = {}
    displays: dict[str, str] = {}
    parents: dict[str, dict[str, None]] = {}
    children: dict[str, dict[str, None]] = {}
    declared = {each["code"]: _read_property_code(each) for each in system.get("property", ())}
    for concept, parent in _iterate_concepts(system.get("concept", ())):
        code = concept["code"]
        displays[code] = concept.get("display", "")
        properties[code] = tuple(
            (declared.get(name, name), value) for name, value in map(_read_property, concept.get("property", ()))
        )
        above = [parent] if parent is not None else []
        above += [value for name, value in properties[code] if name in _PARENT_PROPERTIES]
        edges = [(each, code) for each in above]
        edges += [(code, value) for name, value in properties[code] if name in _CHILD_PROPERTIES]
        for upper, lower in edges:
            children.setdefault(upper, {})[lower] = None
            parents.setdefault(lower, {})[upper] = None
    used = {name for pairs in properties.values() for name, _ in pairs}
    return Concepts(
        url=system["url"],
        content=str(system.get("content")),
        is_a=system.get("hierarchyMeaning", "is-a") == "is-a",
        displays=displays,
        parents={code: tuple(codes) for code, codes in parents.items()},
        children={code: tuple(codes) for code, codes in children.items()},
        properties=properties,
        declared=frozenset({*declared.values(), *used}),
        size=len(properties) + sum(map(len, properties.values())) + sum(map(len, children.values())),
    )


def _iterate_concepts(concepts: Iterable[Json]) -> Iterator[tuple[Json, str | None]]:
    """Every concept with the code of the one that it stands in."""
    waiting: list[tuple[Json, str | None]] = [(concept, None) for concept in concepts]
    while waiting:
        concept, parent = waiting.pop()
        yield concept, parent
        waiting += [(inner, concept["code"]) for inner in concept.get("concept", ())]


def _read_property_code(declared: Json) -> str:
    """A property's own code, or the standard one that its `uri` says it is."""
    uri: str = declared.get("uri", "")
    code: str = uri.removeprefix(_STANDARD_PROPERTIES) if uri.startswith(_STANDARD_PROPERTIES) else declared["code"]
    return code


def _read_property(property: Json) -> tuple[str, str]:
    """(code, value as text) of a `concept.property`."""
    value = next((each for name, each in property.items() if name.startswith("value")), "")
    if isinstance(value, bool):
        return property["code"], "true" if value else "false"
    return property["code"], str(value.get("code", "")) if isinstance(value, dict) else str(value)


# --- filters: https://hl7.org/fhir/R4/valueset-filter-operator.html --------------------------------------------------

Codes = frozenset[str]
Spend = Callable[[int], None]
"""Is told how many codes are looked at, and raises TooCostly where they are too many."""


def filter_codes(concepts: Concepts, condition: Json, spend: Spend) -> Codes:
    """The codes that pass a `compose.include.filter`; `spend` is told how much is looked at. Raises Unevaluable."""
    spend(concepts.size)
    operator, property, value = condition["op"], condition["property"], condition["value"]
    if not concepts.complete:
        raise Unevaluable(
            f"the filter `{property} {operator} {value}` needs all concepts of `{concepts.url}`, "
            "and this server does not have them"
        )
    if operator in _HIERARCHY_OPERATORS:
        if property not in _CODE_PROPERTIES or not concepts.is_a:
            raise Unevaluable(f"`{concepts.url}` has no is-a hierarchy for the filter `{property} {operator} {value}`")
        if value not in concepts.properties:
            raise Unevaluable(f"`{concepts.url}` has no concept `{value}` for the filter `{property} {operator}`")
        return _HIERARCHY_OPERATORS[operator](concepts, value)
    matches = _compile_pattern(value, spend) if operator == "regex" else _MATCHERS[operator](value)
    return frozenset(code for code in concepts.properties if matches(_list_values(concepts, code, property)))


_HIERARCHY_OPERATORS: Mapping[str, Callable[[Concepts, str], Codes]] = {
    "is-a": lambda concepts, code: concepts.find_below(code),
    "descendent-of": lambda concepts, code: concepts.find_below(code) - {code},
    "is-not-a": lambda concepts, code: frozenset(concepts.properties) - concepts.find_below(code),
    "generalizes": lambda concepts, code: concepts.find_above(code),
}

Matcher = Callable[[tuple[str, ...]], bool]


def _list_values(concepts: Concepts, code: str, property: str) -> tuple[str, ...]:
    if property in _CODE_PROPERTIES:
        return (code,)
    if property == "parent":
        return concepts.parents.get(code, ())
    if property == "child":
        return concepts.children.get(code, ())
    if property == "display" and concepts.displays[code]:
        return (concepts.displays[code],)
    if property not in concepts.declared:
        raise Unevaluable(f"nothing is known of the property `{property}` of `{concepts.url}`")
    return tuple(value for name, value in concepts.properties[code] if name == property)


def _compile_pattern(pattern: str, spend: Spend) -> Matcher:
    bare = _ESCAPE.sub("", pattern)
    repeats = len(_REPEATS.findall(bare))
    if _REPEATED_GROUP.search(pattern) or repeats > _MAX_REPEATS:
        raise Unevaluable(f"the pattern `{pattern}` repeats a group, or more than {_MAX_REPEATS} times: it may not end")
    # Each optional part doubles the ways through the pattern, and so does each alternative inside a group.
    doublings = bare.count("?") + (bare.count("|") if "(" in bare else 0)
    ways = 2 ** min(doublings, 64) * (1 if "(" in bare else 1 + bare.count("|"))
    try:
        matches = re.compile(pattern).fullmatch
    except (re.error, OverflowError, RecursionError) as error:
        raise Unevaluable(f"`{pattern}` is no regular expression ({error})") from None

    def match(value: str) -> bool:
        steps = ways * (len(value) + 1) ** repeats * min(len(bare) + 1, len(value) + 1)
        if steps > _MOST_STEPS:
            raise Unevaluable(f"the pattern `{pattern}` may take too long on the {len(value)} characters of a value")
        spend(steps // _STEPS_OF_A_CODE)
        return matches(value) is not None

    return lambda values: any(map(match, values))


def _split_list(text: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.split(","))


def _negate(matcher: Matcher) -> Matcher:
    return lambda values: not matcher(values)


_MATCHERS: Mapping[str, Callable[[str], Matcher]] = {
    "=": lambda text: lambda values: text in values,
    "in": lambda text: _negate(_split_list(text).isdisjoint),
    "not-in": lambda text: _split_list(text).isdisjoint,
    "exists": lambda text: lambda values: bool(values) == (text == "true"),
}
"""By filter operator: its value → the test on a concept's values of the property."""
