"""Contained resources as search sees them: `_contained` and `_containedType` (https://hl7.org/fhir/R4/search.html#contained).

They are not indexed. A store finds the containers by the types that they contain; what is inside is indexed when it is
looked at and tested as the in-memory store does. Nothing outside its container can refer to a contained resource, so
`_has` and `_list` never find one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import orjson

from fhir_server.search import query as q
from fhir_server.search.entries import CONTAINED, SEPARATOR, URL, VERSION, Entries
from fhir_server.search.match import Candidate, predicate

IndexEntries = Callable[[str, dict[str, Any]], Entries]
"""(type, resource) → its entries."""

_CONTAIN_NOTHING = frozenset({"Binary", "Bundle", "Parameters"})
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


class Matching(Protocol):
    """The part of a store that chains need; see `store.protocol.Store`."""

    async def find_matching(self, references: Sequence[str], where: q.Clause) -> frozenset[str]:
        """Those of the current resources, all of one type, that match."""
        ...

    async def search(self, query: q.Query) -> Any:
        """A page; its `matches` are resources."""
        ...


@dataclass(frozen=True, slots=True)
class Inside:
    """A search among contained resources.

    `scopes`: what is searched for. `containers`: the resources that may contain it. `alone`: what was found is returned
    without its container.
    """

    scopes: tuple[q.Scope, ...]
    containers: tuple[q.Scope, ...]
    alone: bool


def inside(scopes: tuple[q.Scope, ...], types: Iterable[str], alone: bool) -> Inside:
    """The search of `scopes` inside the resources of `types`: those that contain one of the types searched for.

    A contained resource was last updated with its container, so that criteria on that time narrow the containers.
    """
    searched = q.Equals(CONTAINED, tuple(scope.type for scope in scopes))
    times = [frozenset(part for part in _parts(scope.where) if isinstance(part, q.LastUpdated)) for scope in scopes]
    where = q.And((searched, *frozenset.intersection(*times))) if times else q.NOTHING
    return Inside(scopes, tuple(q.Scope(type, where) for type in types if type not in _CONTAIN_NOTHING), alone)


def _parts(clause: q.Clause) -> tuple[q.Clause, ...]:
    return clause.clauses if isinstance(clause, q.And) else (clause,)


def contained_in(container: Container, index: IndexEntries, types: Collection[str]) -> list[Contained]:
    """The resources of served `types` that a resource contains, in its order.

    `#id` in a contained resource refers to what else is contained there, `#` to the container. One without an id is
    named by its place.
    """
    texts = [bytes(text) for text in _raw_list.decode(_raw_members.decode(container.raw or b"")["contained"])]
    trees = [orjson.loads(text) for text in texts]
    ids = [tree.get("id", f"contained.{at}") for at, tree in enumerate(trees)]
    within = container.reference
    names = {f"#{id}": f"{tree['resourceType']}/{within}#{id}" for id, tree in zip(ids, trees, strict=True)}
    names["#"] = within
    return [
        Contained(type, id, container.last_updated, index(type, _renamed(tree, names)), text, within)
        for id, text, tree in zip(ids, texts, trees, strict=True)
        if (type := tree["resourceType"]) in types
    ]


def _renamed(tree: Any, names: Mapping[str, str]) -> Any:
    """The tree with the references inside the container replaced by the names that their targets have in entries."""
    if isinstance(tree, list):
        return [_renamed(item, names) for item in tree]
    if not isinstance(tree, dict):
        return tree
    return {
        key: names.get(value, value) if key == "reference" and isinstance(value, str) else _renamed(value, names)
        for key, value in tree.items()
    }


async def matched(where: q.Clause, type: str, family: Sequence[Contained], store: Matching) -> list[Contained]:
    """Those of `type` in `family` that match; `family` is all that some containers contain."""
    return await _matched(where, [each for each in family if each.type == type], family, store)


async def _matched(
    where: q.Clause, candidates: Sequence[Contained], family: Sequence[Contained], store: Matching
) -> list[Contained]:
    if not candidates:
        return []
    holds = predicate(await _settled(where, candidates, family, store), _NOTHING_ELSE)
    return [candidate for candidate in candidates if holds(candidate)]


class _NothingElse:
    """`match.Follow` of clauses that follow nothing."""

    def resolve(self, reference: str) -> Candidate | None:
        """None: chains were settled before."""
        return None

    def of_type(self, type: str) -> Iterable[Candidate]:
        """Nothing."""
        return ()


_NOTHING_ELSE = _NothingElse()


async def _settled(
    clause: q.Clause, candidates: Sequence[Contained], family: Sequence[Contained], store: Matching
) -> q.Clause:
    """The clause for these candidates that names no others: what it leads to is looked up."""
    match clause:
        case q.And() | q.Or() | q.Not():
            parts = iter([await _settled(each, candidates, family, store) for each in q.iterate_children(clause)])
            return q.rewrite_clause(clause, lambda _: next(parts))
        case q.Chain(parameter, type, where):
            referred = set(_referred(candidates, parameter, type))
            siblings = [each for each in family if each.name in referred]
            near = await _matched(where, siblings, family, store)
            far = await _matching(referred, where, store)
            return q.Equals(parameter, (*sorted(far), *(each.name for each in near)))
        case q.Lineage(parameter, _, "below"):
            # Below something is what refers to it, or to what is below it.
            referred = set(_referred(candidates, parameter, candidates[0].type))
            return q.Equals(parameter, tuple(sorted(await _matching(referred, clause, store))))
        case q.CanonicalChain(parameter, type, where):
            terms = {term for each in candidates for term in each.entries.terms.get(parameter, ()) if SEPARATOR in term}
            return q.Equals(
                parameter, tuple([term for term in sorted(terms) if await _is_named(term, type, where, store)])
            )
        case q.Has() | q.CanonicalHas() | q.Lineage():
            return q.NOTHING
    return clause


async def _is_named(canonical: str, type: str, where: q.Clause, store: Matching) -> bool:
    """Whether a current resource that matches has this URL, and this version where there is one."""
    url, _, version = canonical.partition(SEPARATOR)
    named = (q.Equals(URL, (url,)), *((q.Equals(VERSION, (f"{version}{SEPARATOR}",)),) if version else ()))
    page = await store.search(q.Query((q.Scope(type, q.And((*named, where))),), count=1))
    return bool(page.matches)


def _referred(candidates: Iterable[Contained], parameter: str, type: str) -> Iterator[str]:
    for candidate in candidates:
        for term in candidate.entries.terms.get(parameter, ()):
            if term.startswith(f"{type}/"):
                yield term


async def _matching(referred: Iterable[str], where: q.Clause, store: Matching) -> frozenset[str]:
    stored = sorted(reference for reference in referred if "#" not in reference)
    return await store.find_matching(stored, where) if stored else frozenset()
