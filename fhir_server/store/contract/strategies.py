"""Random resources and queries for the differential (hypothesis), out of so few values that they meet often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from fhir_server.search import query as q
from fhir_server.search.entries import OPEN_HIGH, OPEN_LOW, SEPARATOR, Entries
from fhir_server.search.nested_index import name_nested
from fhir_server.search.words import CONTENT, TEXT
from fhir_server.store.contract.case import HOUR, START, canonical, delete, put, token
from fhir_server.store.operations import Matches, Transaction, VersionIs, Write
from fhir_server.store.protocol import HistoryQuery

TYPES = ("Group", "Observation", "Patient")
IDS = ("a", "b", "c", "d")
REFERENCES = tuple(f"{type}/{id}" for type in TYPES for id in IDS)

_TERMS = ("t", "code")
_POINTERS = ("subject", "link")
_DATES = ("date",)
_NUMBERS = ("value",)
_POSITIONS = ("position",)
_NAMES = (*_TERMS, *_POINTERS, *_DATES, *_NUMBERS, *_POSITIONS, "unknown")

_LETTERS = st.text("abAÉé%_*[\\'\"| \ud7ff\U0010ffff", max_size=5)
_SYSTEMS = st.sampled_from(("", "a", "urn:a", "urn:b"))
_term = st.one_of(_LETTERS, st.builds(lambda code, system: code + SEPARATOR + system, _LETTERS, _SYSTEMS))
_CANONICALS = tuple(canonical(url, version) for url in ("urn:a", "urn:b") for version in ("", "1"))
_pointer = st.sampled_from((*REFERENCES, *_CANONICALS, "http://x.org/Patient/a", "Patient/absent", "Patient"))
_named = st.fixed_dictionaries(
    {}, optional={"url": st.just(("urn:a",)) | st.just(("urn:b",)) | st.just(("a",)), "version": st.just((token("1"),))}
)
_moment = st.one_of(st.integers(0, 6), st.sampled_from((OPEN_LOW, OPEN_HIGH)))
_amount = st.sampled_from((-1.5, 0.0, 1.0, 1.25, 2.0, 1e9))
_latitude, _longitude = st.sampled_from((-89.0, 0.0, 1.0, 90.0)), st.sampled_from((-180.0, 0.0, 1.25, 170.0))
_metres = st.sampled_from((0.0, 60_000.0, 1e6, 3e7))
_unit = st.sampled_from(("", f"s{SEPARATOR}mg{SEPARATOR}milligram", f"s{SEPARATOR}g{SEPARATOR}g", f"{SEPARATOR * 2}mg"))
_key = st.sampled_from(("", "k"))


def _order_pair(pair: tuple[Any, Any]) -> tuple[Any, Any]:
    return min(pair), max(pair)


def _build_sets(values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.sets(values, min_size=1, max_size=3).map(lambda found: tuple(sorted(found)))


def _build_named(
    names: tuple[str, ...], values: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, tuple[Any, ...]]]:
    return st.dictionaries(st.sampled_from(names), _build_sets(values), max_size=len(names))


_interval = st.tuples(_moment, _moment).map(_order_pair)
_position = st.builds(lambda key, latitude, longitude: (key, latitude, longitude, ""), _key, _latitude, _longitude)
_number = st.builds(
    lambda key, ends, unit: (key, *ends, unit), _key, st.tuples(_amount, _amount).map(_order_pair), _unit
)

_text_name = st.sampled_from((TEXT, CONTENT))
_word = st.sampled_from(("a", "ab", "b", "12", "2", "ж", "жа"))
_words = st.builds(q.Words, _text_name, st.lists(_word, min_size=1, max_size=3).map(tuple), st.booleans())


_INSIDE = name_nested("subject", "Patient", 0)
_inside = st.one_of(
    st.just({}),
    st.builds(lambda id: {_INSIDE: (id,)}, st.sampled_from(IDS)),
    st.builds(lambda id, found: {_INSIDE: (id,), f"{_INSIDE}.t": found}, st.sampled_from(IDS), _build_sets(_term)),
)

entries: st.SearchStrategy[Entries] = st.builds(
    lambda terms, pointers, named, inside, dates, numbers, positions, references, texts: Entries(
        terms | pointers | named | inside,
        dates,
        numbers | positions,
        references,
        frozenset({"t", f"{_INSIDE}.t"}),
        texts,
    ),
    _build_named(_TERMS, _term),
    _build_named(_POINTERS, _pointer),
    _named,
    _inside,
    _build_named(_DATES, _interval),
    _build_named(_NUMBERS, _number),
    _build_named(_POSITIONS, _position),
    st.one_of(st.just(()), _build_sets(st.sampled_from(REFERENCES))),
    st.dictionaries(_text_name, st.lists(_word, min_size=1, max_size=5).map(" ".join), max_size=2),
)


def _tests(values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[q.Bound, ...]]:
    ends, comparisons = st.sampled_from(("low", "high")), st.sampled_from(("lt", "le", "gt", "ge"))
    return st.lists(st.builds(q.Bound, ends, comparisons, values), max_size=3).map(tuple)


_any_term = st.one_of(_term, _pointer)
_term_name = st.sampled_from((*_TERMS, *_POINTERS, "unknown"))
_wanted_unit = st.one_of(st.none(), st.tuples(st.sampled_from((None, "s")), st.sampled_from(("mg", "g", "milligram"))))
_time = st.integers(0, 8).map(lambda hours: START + hours * HOUR)

_part = st.text("abAÉé%_*[\\'\"| \ud7ff", min_size=1, max_size=4)
_some_ids = st.lists(st.sampled_from(IDS), max_size=3).map(tuple)

_leaves: st.SearchStrategy[q.Clause] = st.one_of(
    st.builds(q.Equals, _term_name, st.lists(_any_term, max_size=3).map(tuple)),
    st.builds(q.StartsWith, _term_name, _any_term),
    st.builds(q.Contains, _term_name, _part),
    st.builds(q.Contains, st.just("t"), _part, st.just(True)),
    st.builds(q.EndsWith, _term_name, st.one_of(_any_term, _SYSTEMS.map(lambda system: SEPARATOR + system))),
    st.builds(q.EndsWith, _term_name, _LETTERS, st.just(True)),
    st.builds(q.TermRange, _term_name, st.none() | _any_term, st.none() | _any_term),
    _words,
    st.builds(q.DateRange, st.sampled_from(_DATES), _tests(_moment)),
    st.builds(q.NumberRange, st.sampled_from(_NUMBERS), _tests(_amount), _key, _wanted_unit),
    st.builds(q.Near, st.sampled_from(_POSITIONS), _latitude, _longitude, _metres),
    st.builds(q.Lineage, st.sampled_from(_POINTERS), _some_ids, st.sampled_from(("above", "below"))),
    st.builds(q.Present, st.sampled_from(_NAMES)),
    st.builds(q.Ids, _some_ids),
    st.builds(q.LastUpdated, _tests(_time)),
)


def _branches(parts: st.SearchStrategy[q.Clause]) -> st.SearchStrategy[q.Clause]:
    type, pointer = st.sampled_from(TYPES), st.sampled_from(_POINTERS)
    several = st.lists(parts, max_size=3).map(tuple)
    scopes = st.lists(st.builds(q.Scope, type, parts), max_size=2, unique_by=lambda scope: scope.type).map(tuple)
    return st.one_of(
        st.builds(q.And, several),
        st.builds(q.Or, several),
        st.builds(q.Not, parts),
        st.builds(q.Chain, pointer, type, parts),
        st.builds(q.Has, type, pointer, parts),
        st.builds(q.CanonicalChain, pointer, type, parts),
        st.builds(q.CanonicalHas, type, pointer, parts),
        st.builds(q.Every, pointer, scopes),
    )


clauses: st.SearchStrategy[q.Clause] = st.recursive(_leaves, _branches, max_leaves=6)

_SORTS: dict[str, tuple[str, st.SearchStrategy[Any]]] = {
    "t": ("term", _term),
    "subject": ("term", _pointer),
    "date": ("date", _moment),
    "value": ("number", _amount),
    "_id": ("id", st.sampled_from(IDS)),
    "_lastUpdated": ("lastUpdated", _time),
    "_score": ("score", st.sampled_from((0.0, 0.331126, 0.662252, 1.0))),
}


@st.composite
def queries(draw: st.DrawFn) -> q.Query:
    """A query, often sorted, sometimes from a position that need not be a resource's."""
    types = draw(st.lists(st.sampled_from(TYPES), unique=True, min_size=1, max_size=2))
    names = draw(st.lists(st.sampled_from(tuple(_SORTS)), unique=True, max_size=2))
    words = tuple(draw(st.lists(_words, min_size=1, max_size=2)))
    sort = tuple(
        q.Sort(name, _SORTS[name][0], draw(st.booleans()), words if name == "_score" else ())  # type: ignore[arg-type]
        for name in names
    )
    after: q.SortKey | None = None
    if draw(st.integers(0, 3)) == 0:
        values = (draw(st.one_of(st.none(), _SORTS[name][1])) for name in names)
        after = (*values, draw(st.sampled_from(REFERENCES)))
    scopes = tuple(q.Scope(type, draw(clauses)) for type in types)
    return q.Query(scopes, sort, draw(st.integers(1, 5)), after)


@st.composite
def _writes(draw: st.DrawFn) -> tuple[Write, ...]:
    references = draw(st.lists(st.sampled_from(REFERENCES), unique=True, min_size=1, max_size=8))
    return tuple(delete(each) if draw(st.integers(0, 4)) == 0 else put(each, draw(entries)) for each in references)


_population: st.SearchStrategy[Transaction] = st.lists(entries, min_size=6, max_size=len(REFERENCES)).flatmap(
    lambda given: st.permutations(REFERENCES).map(
        lambda order: Transaction(tuple(put(reference, each) for reference, each in zip(order, given, strict=False)))
    )
)


@st.composite
def _transactions(draw: st.DrawFn) -> Transaction:
    """Writes, now and then with a precondition that may fail."""
    writes = draw(_writes())
    if draw(st.booleans()):
        return Transaction(writes)
    version = st.builds(VersionIs, st.sampled_from(TYPES), st.sampled_from(IDS), st.integers(0, 2))
    wanted = st.builds(lambda type, where: q.Query((q.Scope(type, where),)), st.sampled_from(TYPES), clauses)
    ids = st.sampled_from(((), ("a",), ("b",), ("a", "b")))
    found = st.builds(Matches, wanted, ids, seen=st.none(), versions=st.none())  # or any are made up
    released = tuple(f"{each.type}/{each.id}" for each in writes if each.content is None)
    return Transaction(
        writes,
        assertions=draw(st.one_of(st.just(()), st.just(()), st.tuples(st.one_of(version, found)))),
        required=tuple(draw(st.lists(st.sampled_from(REFERENCES), max_size=1))),
        released=released if draw(st.booleans()) else (),
        exempt=draw(st.sampled_from((frozenset[str](), frozenset({"Group"})))),
        reads=tuple(draw(st.lists(st.sampled_from(REFERENCES), max_size=1))),
        queries=tuple(draw(st.lists(queries(), max_size=1))),
    )


_span = st.tuples(_time, _time).map(_order_pair)

histories: st.SearchStrategy[HistoryQuery] = st.builds(
    HistoryQuery,
    types=st.lists(st.sampled_from(TYPES), unique=True, max_size=2).map(tuple),
    since=st.one_of(st.none(), _time),
    at=st.one_of(st.none(), _span),
    count=st.integers(1, 5),
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Transactions, an hour apart, and what is asked afterwards."""

    transactions: tuple[Transaction, ...]
    queries: tuple[q.Query, ...]
    histories: tuple[HistoryQuery, ...]


scenarios: st.SearchStrategy[Scenario] = st.builds(
    Scenario,
    st.tuples(_population, st.lists(_transactions(), max_size=4)).map(lambda parts: (parts[0], *parts[1])),
    st.lists(queries(), min_size=4, max_size=10).map(tuple),
    st.lists(histories, max_size=2).map(tuple),
)
