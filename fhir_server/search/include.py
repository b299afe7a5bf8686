"""Resources added to the matches of a search: `_include` and `_revinclude` (https://hl7.org/fhir/R4/search.html#revinclude)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from fhir_server.fhir.outcome import TooCostly
from fhir_server.search.chains import build_canonical_clause, can_hold_canonical
from fhir_server.search.entries import SEPARATOR, Entries, list_canonicals
from fhir_server.search.query import Clause, Equals, Query, Scope
from fhir_server.search.registry import Parameter, Registry
from fhir_server.search.simplify import simplify_or


class Resource(Protocol):
    """A stored resource, as far as includes look at it."""

    @property
    def type(self) -> str:
        """Its resource type."""
        ...

    @property
    def reference(self) -> str:
        """`Type/id`."""
        ...


R = TypeVar("R", bound=Resource)


class Source(Protocol):
    """The part of a store that includes need; see `store.protocol.Store`."""

    async def read_many(self, references: Iterable[str]) -> Mapping[str, Any]:
        """The current resources among the references, by reference."""
        ...

    async def search(self, query: Query) -> Any:
        """A page; its `matches` are resources."""
        ...


@dataclass(frozen=True, slots=True)
class Include:
    """One `_include` (or, with `reverse`, `_revinclude`): `source:parameter:target`.

    `source` and `parameter` may be `*` for any; `target` is "" for any. With `iterate` it is applied to what was
    included as well.
    """

    source: str
    parameter: str
    target: str = ""
    reverse: bool = False
    iterate: bool = False


async def find_includes(
    store: Source,
    entries_of: Callable[[R], Entries],
    matches: Sequence[R],
    includes: Sequence[Include],
    registry: Registry,
    limit: int,
) -> list[R]:
    """What `includes` add to a page of matches: each resource once, never a match itself, in an order that repeats.

    Works level by level with one `read_many` and one `search` each, until nothing new is found. Only what leads to
    current resources of this server is followed. TooCostly when more than `limit` resources would be included.
    """
    seen = {match.reference for match in matches}
    included: list[R] = []
    level, active = list(matches), list(includes)
    while level and active:
        source = (level, active, _cache_entries(entries_of), registry)
        references = [reference for reference in _iterate_references(*source) if reference not in seen]
        stored = await store.read_many(references) if references else {}
        added = {reference: stored[reference] for reference in references if reference in stored}
        scopes = _merge_scopes((*_iterate_canonical_scopes(*source), *_iterate_reverse_scopes(*source)))
        if scopes:
            # Resources already on the page may come again: they take room in the count, not in the limit.
            page = await store.search(Query(scopes, count=len(seen) + limit + 1))
            added.update({match.reference: match for match in page.matches if match.reference not in seen})
        level = list(added.values())
        included += level
        seen.update(added)
        if len(included) > limit:
            raise TooCostly(
                f"More than {limit} resources would be included; "
                "ask for fewer matches with `_count`, or for fewer includes."
            )
        active = [include for include in includes if include.iterate]
    return included


def _cache_entries(entries_of: Callable[[R], Entries]) -> Callable[[R], Entries]:
    by_reference: dict[str, Entries] = {}

    def get_entries(resource: R) -> Entries:
        entries = by_reference.get(resource.reference)
        if entries is None:
            entries = by_reference[resource.reference] = entries_of(resource)
        return entries

    return get_entries


def _iterate_references(
    level: Iterable[R], includes: Iterable[Include], entries_of: Callable[[R], Entries], registry: Registry
) -> Iterator[str]:
    """The distinct local references that the forward `includes` follow from `level`, in order of first mention."""
    forward = [include for include in includes if not include.reverse]
    known = frozenset(registry.types)
    seen: set[str] = set()
    for source in level:
        followed = [include for include in forward if include.source in ("*", source.type)]
        terms = entries_of(source).terms if followed else {}
        for include in followed:
            for code in _list_codes(include, registry.parameters(source.type)):
                for reference in terms.get(code, ()):
                    type = reference.partition("/")[0]
                    if type in known and include.target in ("", type) and reference not in seen:
                        seen.add(reference)
                        yield reference


def _list_codes(include: Include, parameters: Mapping[str, Parameter]) -> Sequence[str]:
    if include.parameter != "*":
        return (include.parameter,)
    return [code for code, each in parameters.items() if each.type == "reference" and not each.pending]


def _merge_scopes(scopes: Iterable[Scope]) -> tuple[Scope, ...]:
    """One scope for each type."""
    clauses: dict[str, list[Clause]] = {}
    for scope in scopes:
        clauses.setdefault(scope.type, []).append(scope.where)
    return tuple(Scope(type, simplify_or(alternatives)) for type, alternatives in clauses.items())


def _iterate_canonical_scopes(
    level: Sequence[R], includes: Iterable[Include], entries_of: Callable[[R], Entries], registry: Registry
) -> Iterator[Scope]:
    """The resources that the canonicals of `level` name, as the forward `includes` follow them."""
    known = frozenset(registry.types)
    for include in (include for include in includes if not include.reverse):
        for source in (each for each in level if include.source in ("*", each.type)):
            parameters = registry.parameters(source.type)
            for parameter in (parameters[code] for code in _list_codes(include, parameters)):
                targets = [type for type in parameter.targets or registry.types if include.target in ("", type)]
                types = [type for type in targets if type in known and can_hold_canonical(parameter, type, registry)]
                terms = entries_of(source).terms.get(parameter.code, ()) if types else ()
                for term in (term for term in terms if SEPARATOR in term):
                    yield from (Scope(type, build_canonical_clause(term)) for type in types)


def _iterate_reverse_scopes(
    level: Iterable[R], includes: Iterable[Include], entries_of: Callable[[R], Entries], registry: Registry
) -> Iterator[Scope]:
    """The resources that refer to `level`, or name it by canonicals, as the reverse `includes` say."""
    by_type: dict[str, list[R]] = {}
    for target in level:
        by_type.setdefault(target.type, []).append(target)
    for include in (include for include in includes if include.reverse):
        for source in registry.types if include.source == "*" else (include.source,):
            parameters = registry.parameters(source)
            for parameter in (parameters[code] for code in _list_codes(include, parameters)):
                terms: list[str] = []
                for type, targets in by_type.items():
                    if include.target in ("", type) and (not parameter.targets or type in parameter.targets):
                        terms += [target.reference for target in targets]
                        if can_hold_canonical(parameter, type, registry):
                            terms += [name for target in targets for name in list_canonicals(entries_of(target).terms)]
                if terms:
                    yield Scope(source, Equals(parameter.code, tuple(terms)))
