"""Resources added to the matches of a search: `_include` and `_revinclude` (https://hl7.org/fhir/R4/search.html#revinclude)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from fhir_server.fhir.outcome import TooCostly
from fhir_server.search.chains import build_canonical_clause, can_hold_canonical
from fhir_server.search.entries import SEPARATOR, URL, Entries, list_canonicals
from fhir_server.search.query import Clause, Equals, Query, Scope
from fhir_server.search.registry import Parameter, Registry
from fhir_server.search.simplify import simplify_or


@dataclass(frozen=True, slots=True)
class Limits:
    """What includes may add to a page: a number of resources, and a size of them in bytes."""

    resources: int
    size: int = 32 * 1024 * 1024

    def check(self, number: int, size: int) -> None:
        """Raises TooCostly when so many resources, or bytes of them, are too many."""
        if size > self.size:
            raise self.build_size_error()
        if number > self.resources:
            raise TooCostly(
                f"More than {self.resources} resources would be included; "
                "ask for fewer matches with `_count`, or for fewer includes."
            )

    def build_size_error(self) -> TooCostly:
        """The error for more bytes than that."""
        return TooCostly(
            f"More than {self.size:,} bytes would be included (setting `max_answer`); ask for fewer matches with "
            "`_count`, or for fewer includes."
        )


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


MOST_LEVELS = 100
"""Levels of references that includes with `:iterate` follow."""

READ_AT_ONCE = 200
"""Resources that are read before their size is looked at."""


async def find_includes(
    store: Source,
    make_entries: Callable[[Sequence[R]], Awaitable[Sequence[Entries]]],
    matches: Sequence[R],
    includes: Sequence[Include],
    registry: Registry,
    limits: Limits,
) -> list[R]:
    """What `includes` add to a page of matches: each resource once, never a match itself, in an order that repeats.

    Works level by level with one `read_many` and one `search` each, until nothing new is found. Only what leads to
    current local resources is followed. `make_entries`: the index entries of each of some resources. TooCostly when
    more would be included than the limits allow.
    """
    seen = {match.reference for match in matches}
    found: list[R] = []
    size = 0
    level, active = list(matches), list(includes)
    for _ in range(MOST_LEVELS):
        if not (level and active):
            return found
        looked_into = _list_looked_into(level, active, registry)
        entries = dict(zip((each.reference for each in looked_into), await make_entries(looked_into), strict=True))
        source = (level, active, entries, registry)
        wanted = [reference for reference in _iterate_references(*source) if reference not in seen]
        fresh = await _read_in_parts(store, wanted, limits, size)
        scopes = _merge_scopes((*_iterate_canonical_scopes(*source), *_iterate_reverse_scopes(*source)))
        if scopes:
            fresh.update(await _search(store, scopes, seen, limits))
        level = list(fresh.values())
        found += level
        seen.update(fresh)
        size += sum(map(_measure, level))
        limits.check(len(found), size)
        active = [include for include in includes if include.iterate]
    raise TooCostly(
        f"The includes lead through more than {MOST_LEVELS} levels of references; leave out `:iterate` where a "
        "resource refers to others of its kind."
    )


async def _read_in_parts(store: Source, wanted: Sequence[str], limits: Limits, size: int) -> dict[str, Any]:
    """The current resources among the references. Raises TooCostly; `size`: what was included already."""
    fresh: dict[str, Any] = {}
    for start in range(0, len(wanted), READ_AT_ONCE):
        part = wanted[start : start + READ_AT_ONCE]
        read = await store.read_many(part)
        fresh.update({reference: read[reference] for reference in part if reference in read})
        size += sum(map(_measure, read.values()))
        limits.check(0, size)
    return fresh


async def _search(store: Source, scopes: tuple[Scope, ...], seen: Collection[str], limits: Limits) -> dict[str, Any]:
    """What is found and not seen yet. Raises TooCostly."""
    # Resources already on the page may come again: they take room in the count, not in the limit.
    count = len(seen) + limits.resources + 1
    page = await store.search(Query(scopes, count=count, most_bytes=limits.size))
    if page.next is not None and len(page.matches) < count:
        raise limits.build_size_error()
    return {source.reference: source for source in page.matches if source.reference not in seen}


def _list_looked_into(level: Sequence[R], includes: Iterable[Include], registry: Registry) -> Sequence[R]:
    """The resources whose entries are needed: those that refer to others, and those that others may name by URL."""
    if not all(include.reverse for include in includes):
        return level
    return [each for each in level if URL in registry.parameters(each.type)]


def _measure(resource: Resource) -> int:
    return len(getattr(resource, "raw", None) or b"")


def _iterate_references(
    level: Iterable[R], includes: Iterable[Include], entries: Mapping[str, Entries], registry: Registry
) -> Iterator[str]:
    """The distinct local references that the forward `includes` follow from `level`, in order of first mention."""
    forward = [include for include in includes if not include.reverse]
    known = frozenset(registry.types)
    seen: set[str] = set()
    for source in level:
        followed = [include for include in forward if include.source in ("*", source.type)]
        terms = entries[source.reference].terms if followed else {}
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
    level: Sequence[R], includes: Iterable[Include], entries: Mapping[str, Entries], registry: Registry
) -> Iterator[Scope]:
    """The resources that the canonicals of `level` name, as the forward `includes` follow them."""
    known = frozenset(registry.types)
    for include in (include for include in includes if not include.reverse):
        for source in (each for each in level if include.source in ("*", each.type)):
            parameters = registry.parameters(source.type)
            for parameter in (parameters[code] for code in _list_codes(include, parameters)):
                targets = [type for type in parameter.targets or registry.types if include.target in ("", type)]
                types = [type for type in targets if type in known and can_hold_canonical(parameter, type, registry)]
                terms = entries[source.reference].terms.get(parameter.code, ()) if types else ()
                for term in (term for term in terms if SEPARATOR in term):
                    yield from (Scope(type, build_canonical_clause(term)) for type in types)


def _iterate_reverse_scopes(
    level: Iterable[R], includes: Iterable[Include], entries: Mapping[str, Entries], registry: Registry
) -> Iterator[Scope]:
    """What finds the resources that refer to `level`, or name it, as the reverse `includes` say.

    Parameters that lead to the same types share their terms: there may be a thousand of them.
    """
    by_type: dict[str, list[R]] = {}
    for target in level:
        by_type.setdefault(target.type, []).append(target)
    terms: dict[tuple[tuple[str, bool], ...], tuple[str, ...]] = {}
    for include in (include for include in includes if include.reverse):
        for source in registry.types if include.source == "*" else (include.source,):
            parameters = registry.parameters(source)
            for parameter in (parameters[code] for code in _list_codes(include, parameters)):
                places = tuple(
                    (type, bool(can_hold_canonical(parameter, type, registry)))
                    for type in by_type
                    if include.target in ("", type) and (not parameter.targets or type in parameter.targets)
                )
                if places and places not in terms:
                    terms[places] = tuple(
                        term for type, named in places for term in _list_terms(by_type[type], named, entries)
                    )
                if places and terms[places]:
                    yield Scope(source, Equals(parameter.code, terms[places]))


def _list_terms(targets: Iterable[R], named: bool, entries: Mapping[str, Entries]) -> Iterator[str]:
    """What refers to the targets, and names them in canonicals where it may."""
    for target in targets:
        yield target.reference
        if named:
            yield from list_canonicals(entries[target.reference].terms)
