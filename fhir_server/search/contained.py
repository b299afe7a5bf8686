"""Contained resources as search sees them: `_contained` and `_containedType` (https://hl7.org/fhir/R4/search.html#contained).

They have no index rows of their own. A store finds the containers by the types that they contain; the contained
resources are then indexed and matched in memory. Nothing outside its container can refer to a contained resource, so
`_has` and `_list` never find one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import orjson

from fhir_server.search import query as q
from fhir_server.search.chains import build_canonical_clause
from fhir_server.search.entries import CONTAINED, SEPARATOR, Entries
from fhir_server.search.match import NO_OTHERS, Candidate, compile_predicate

IndexEntries = Callable[[str, dict[str, Any]], Entries]
"""(type, resource) → its entries."""

_NEVER_CONTAINERS = frozenset({"Binary", "Bundle", "Parameters"})
_raw_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_raw_list = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Contained(Candidate):
    """A contained resource: `raw` is its text as written, `within` the `Type/id` of its container.

    `id` is without `#`. `last_updated` is the container's. `name` is how its siblings refer to it in their entries.
    """

    raw: bytes
    within: str

    @property
    def reference(self) -> str:
        """`Type/id#id`: the address of the container with the id of the contained resource."""
        return f"{self.within}#{self.id}"

    @property
    def name(self) -> str:
        """`Type/` of its own, then its reference: no reference of a stored resource reads so."""
        return f"{self.type}/{self.reference}"


class Container(Protocol):
    """A stored resource, as far as it is looked into."""

    @property
    def reference(self) -> str:
        """`Type/id`."""
        ...

    @property
    def last_updated(self) -> int:
        """µs since 1970 UTC."""
        ...

    @property
    def raw(self) -> bytes | None:
        """Its text."""
        ...


class MatchSource(Protocol):
    """The part of a store that links to stored resources need; see `store.protocol.Store`."""

    async def find_matching(self, references: Sequence[str], where: q.Clause) -> frozenset[str]:
        """Those of the current resources, all of one type, that match."""
        ...

    async def search(self, query: q.Query) -> Any:
        """A page; its `matches` are resources."""
        ...


@dataclass(frozen=True, slots=True)
class ContainedSearch:
    """A search among contained resources.

    `scopes`: what is searched for. `containers`: the resources that may contain it. `without_containers`: matches are
    returned without the resources that contain them.
    """

    scopes: tuple[q.Scope, ...]
    containers: tuple[q.Scope, ...]
    without_containers: bool


def plan_contained_search(
    scopes: tuple[q.Scope, ...], types: Iterable[str], without_containers: bool
) -> ContainedSearch:
    """The search of `scopes` in those resources of `types` that contain one of the types searched for.

    A contained resource was last updated with its container, so that criteria on that time narrow the containers.
    """
    contains = q.Equals(CONTAINED, tuple(scope.type for scope in scopes))
    times = [frozenset(_iterate_times(scope.where)) for scope in scopes]
    where = q.And((contains, *frozenset.intersection(*times))) if times else q.NOTHING
    return ContainedSearch(
        scopes, tuple(q.Scope(type, where) for type in types if type not in _NEVER_CONTAINERS), without_containers
    )


def _iterate_times(clause: q.Clause) -> Iterator[q.Clause]:
    conjuncts = clause.clauses if isinstance(clause, q.And) else (clause,)
    yield from (part for part in conjuncts if isinstance(part, q.LastUpdated))


def list_contained(container: Container, index: IndexEntries, types: Collection[str]) -> list[Contained]:
    """The resources of served `types` that a resource contains, in its order.

    `#id` in a contained resource refers to another one there, `#` to the container. A resource without an id is named
    by its position.
    """
    texts = [bytes(text) for text in _raw_list.decode(_raw_members.decode(container.raw or b"")["contained"])]
    trees = [orjson.loads(text) for text in texts]
    ids = [tree.get("id", f"contained.{at}") for at, tree in enumerate(trees)]
    within = container.reference
    names = {f"#{id}": f"{tree['resourceType']}/{within}#{id}" for id, tree in zip(ids, trees, strict=True)}
    names["#"] = within
    return [
        Contained(type, id, container.last_updated, index(type, _rewrite_references(tree, names)), text, within)
        for id, text, tree in zip(ids, texts, trees, strict=True)
        if (type := tree["resourceType"]) in types
    ]


def _rewrite_references(tree: Any, names: Mapping[str, str]) -> Any:
    """The tree with its references inside the container replaced by the names that index entries use."""
    if isinstance(tree, list):
        return [_rewrite_references(item, names) for item in tree]
    if not isinstance(tree, dict):
        return tree
    return {
        key: names.get(value, value)
        if key == "reference" and isinstance(value, str)
        else _rewrite_references(value, names)
        for key, value in tree.items()
    }


async def find_matches(where: q.Clause, type: str, family: Sequence[Contained], store: MatchSource) -> list[Contained]:
    """Those of `type` in `family` that match; `family` is all that some containers contain."""
    return await _filter_matches(where, [each for each in family if each.type == type], family, store)


async def _filter_matches(
    where: q.Clause, candidates: Sequence[Contained], family: Sequence[Contained], store: MatchSource
) -> list[Contained]:
    if not candidates:
        return []
    holds = compile_predicate(await _resolve_links(where, candidates, family, store), NO_OTHERS)
    return [candidate for candidate in candidates if holds(candidate)]


async def _resolve_links(
    clause: q.Clause, candidates: Sequence[Contained], family: Sequence[Contained], store: MatchSource
) -> q.Clause:
    """The clause for these candidates, each link in it replaced by the references or canonicals that satisfy it."""
    match clause:
        case q.And() | q.Or() | q.Not():
            parts = iter([await _resolve_links(each, candidates, family, store) for each in q.iterate_children(clause)])
            return q.rewrite_clause(clause, lambda _: next(parts))
        case q.Chain(parameter, type, where):
            referred = set(_list_references(candidates, parameter, type))
            siblings = [each for each in family if each.name in referred]
            near = await _filter_matches(where, siblings, family, store)
            far = await _find_stored_matches(referred, where, store)
            return q.Equals(parameter, (*sorted(far), *(each.name for each in near)))
        case q.Every(parameter, scopes):
            chains = tuple(q.Chain(parameter, scope.type, scope.where) for scope in scopes)
            inside = await _resolve_links(q.Or(chains), candidates, family, store)
            found = {term for each in q.iterate_children(inside) if isinstance(each, q.Equals) for term in each.terms}
            terms = {term for each in candidates for term in each.entries.terms.get(parameter, ())}
            return q.Not(q.Equals(parameter, tuple(sorted(terms - found))))
        case q.Lineage(parameter, _, "below"):
            # Below something is what refers to it, or to what is below it.
            referred = set(_list_references(candidates, parameter, candidates[0].type))
            return q.Equals(parameter, tuple(sorted(await _find_stored_matches(referred, clause, store))))
        case q.CanonicalChain(parameter, type, where):
            terms = {term for each in candidates for term in each.entries.terms.get(parameter, ()) if SEPARATOR in term}
            named = {term: q.Scope(type, q.And((build_canonical_clause(term), where))) for term in sorted(terms)}
            pages = {term: await store.search(q.Query((scope,), count=1)) for term, scope in named.items()}
            return q.Equals(parameter, tuple(term for term, page in pages.items() if page.matches))
        case q.Has() | q.CanonicalHas() | q.Lineage():
            return q.NOTHING
    return clause


def _list_references(candidates: Iterable[Contained], parameter: str, type: str) -> Iterator[str]:
    for candidate in candidates:
        for term in candidate.entries.terms.get(parameter, ()):
            if term.startswith(f"{type}/"):
                yield term


async def _find_stored_matches(referred: Iterable[str], where: q.Clause, store: MatchSource) -> frozenset[str]:
    stored = sorted(reference for reference in referred if "#" not in reference)
    return await store.find_matching(stored, where) if stored else frozenset()
