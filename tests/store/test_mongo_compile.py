"""Clauses, sorts and page positions as MQL: what the indexes are entered by (docs/stores/mongodb.md)."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fhir_server.search import query as q
from fhir_server.search.entries import OPEN_HIGH, OPEN_LOW, SEPARATOR, Entries, compute_successor
from fhir_server.search.query import Bound
from fhir_server.search.sorts import SORTS
from fhir_server.store.mongo.compile import compile_clause, compile_current
from fhir_server.store.mongo.documents import build_entry_fields
from fhir_server.store.mongo.indexes import list_indexes
from fhir_server.store.mongo.order import build_keys, build_sort, match_after
from fhir_server.store.mongo.search import build_pipeline
from fhir_server.store.mongo.sortkeys import build_fields, format_key, list_sorts, parse_key
from fhir_server.store.mongo.trigrams import select_terms, widen_clause
from fhir_server.store.protocol import StoreUnavailable

GENDER = {"terms": f"gender=male{SEPARATOR}"}
MALE = q.Equals("gender", (f"male{SEPARATOR}",))

FILTERS: tuple[tuple[q.Clause, dict[str, Any]], ...] = (
    (q.EVERYTHING, {}),
    (q.NOTHING, {"_id": {"$in": []}}),
    (MALE, GENDER),
    (q.Equals("code", ("a", "b")), {"terms": {"$in": ["code=a", "code=b"]}}),
    (q.StartsWith("name", "ann"), {"terms": {"$elemMatch": {"$gte": "name=ann", "$lt": "name=ano"}}}),
    (q.StartsWith("name", ""), {"terms": {"$elemMatch": {"$gte": "name=", "$lt": "name>"}}}),
    (q.Contains("name", "a.b"), {"terms": {"$regex": f"^name=[^{SEPARATOR}]*a\\.b"}}),
    # Of strings the trigrams are kept: one is the text, more are necessary only, less are none.
    (q.Contains("name", "a.b", True), {"terms": "name~a.b"}),
    (
        q.Contains("name", "a.bc", True),
        {
            "$and": [
                {"terms": {"$all": ["name~a.b", "name~.bc"]}},
                {"terms": {"$regex": f"^name=[^{SEPARATOR}]*a\\.bc"}},
            ]
        },
    ),
    (q.Contains("name", "ab", True), {"terms": {"$regex": f"^name=[^{SEPARATOR}]*ab"}}),
    (q.Contains("name", f"anna{SEPARATOR}", True), {"_id": {"$in": []}}),
    (q.EndsWith("code", SEPARATOR + "urn"), {"terms": {"$regex": rf"^code=[\s\S]*{SEPARATOR}urn(?![\s\S])"}}),
    # Of a string's term only the normalised text, before the separator, is looked at.
    (q.EndsWith("name", "on", True), {"terms": {"$regex": f"^name=[^{SEPARATOR}]*on(?![^{SEPARATOR}])"}}),
    (q.EndsWith("name", f"on{SEPARATOR}", True), {"_id": {"$in": []}}),
    (q.Contains("name", f"on{SEPARATOR}"), {"_id": {"$in": []}}),
    (q.TermRange("name", "ann", "bob"), {"terms": {"$elemMatch": {"$gte": "name=ann", "$lt": "name=bob"}}}),
    # An open end is the end of the parameter, or the terms of others would be found.
    (q.TermRange("name", "ann", None), {"terms": {"$elemMatch": {"$gte": "name=ann", "$lt": "name>"}}}),
    (q.TermRange("name", None, "bob"), {"terms": {"$elemMatch": {"$gte": "name=", "$lt": "name=bob"}}}),
    (q.Words("_text", ("bone",)), {"terms": "_text=bone"}),
    (q.Words("_text", ("bo",), True), {"terms": {"$elemMatch": {"$gte": "_text=bo", "$lt": "_text=bp"}}}),
    # The index knows no order of words: a phrase is looked for in the text of what has all of them.
    (
        q.Words("_text", ("the", "bone", "the")),
        {
            "$and": [
                {"terms": "_text=the"},
                {"terms": "_text=bone"},
                {"texts._text": {"$regex": "(?:^| )the bone the(?: |$)"}},
            ]
        },
    ),
    # The end of the interval that a test does not name is bounded too: an index begins with either.
    (
        q.DateRange("date", (Bound("low", "ge", 10), Bound("high", "lt", 20))),
        {"dates": {"$elemMatch": {"p": "date", "l": {"$gte": 10, "$lt": 20}, "h": {"$lt": 20, "$gte": 10}}}},
    ),
    (
        q.DateRange("date", (Bound("high", "gt", 10),)),
        {"dates": {"$elemMatch": {"p": "date", "h": {"$gt": 10}}}},
    ),
    (
        q.DateRange("date", (Bound("high", "gt", 10), Bound("high", "gt", 12))),
        {"dates": {"$elemMatch": {"p": "date", "h": {"$gt": 12}}}},
    ),
    (
        q.NumberRange("value", (Bound("low", "ge", 5.0),), "k", ("urn", "mg")),
        {
            "numbers": {
                "$elemMatch": {
                    "p": "value",
                    "k": "k",
                    "l": {"$gte": 5.0},
                    "h": {"$gte": 5.0},
                    "u": {"$gte": f"urn{SEPARATOR}mg{SEPARATOR}", "$lt": f"urn{SEPARATOR}mg "},
                }
            }
        },
    ),
    (
        q.Present("name"),
        {
            "$or": [
                {"terms": {"$elemMatch": {"$gte": "name=", "$lt": "name>"}}},
                {"dates.p": "name"},
                {"numbers.p": "name"},
            ]
        },
    ),
    (q.Ids(("a",)), {"_id": "a"}),
    (q.Ids(("a", "b")), {"_id": {"$in": ["a", "b"]}}),
    (q.LastUpdated((Bound("low", "ge", 1), Bound("high", "lt", 9))), {"updated": {"$gte": 1, "$lt": 9}}),
    (q.LastUpdated(()), {}),
    (q.And((MALE, q.EVERYTHING)), GENDER),
    (q.And((MALE, q.Ids(("a",)))), {"$and": [GENDER, {"_id": "a"}]}),
    (q.Or((MALE, q.Ids(("a",)))), {"$or": [GENDER, {"_id": "a"}]}),
    (q.Or((MALE, q.EVERYTHING)), {}),
    (q.Not(MALE), {"$nor": [GENDER]}),
)


@pytest.mark.parametrize(("clause", "expected"), FILTERS, ids=lambda value: type(value).__name__)
def test_filters(clause: q.Clause, expected: dict[str, Any]) -> None:
    assert compile_clause(clause) == expected


PATTERNS = (
    q.Contains("value-string", "a|b"),
    q.Contains("name", "a|bc", True),
    q.EndsWith("name", "a|b", True),
    q.EndsWith("name", "on", True),
    q.EndsWith("code", "|" + SEPARATOR + "urn|x"),
)


@pytest.mark.parametrize("clause", PATTERNS, ids=str)
def test_a_pattern_has_a_start_that_an_index_is_entered_by(clause: q.Contains | q.EndsWith) -> None:
    """MongoDB ranges over what comes before the first sign with a meaning, unless the pattern has a `|` anywhere.

    https://github.com/mongodb/mongo/blob/master/jstests/core/index_bounds_pipe.js
    """
    found = compile_clause(clause)
    pattern = found.get("$and", [found])[-1]["terms"]["$regex"]
    assert pattern.startswith(f"^{re.escape(clause.parameter)}=[")
    assert "|" not in pattern


@pytest.mark.parametrize(
    ("clause", "parts"),
    [
        (q.Contains("name", "ä" * 2001, True), {"$all", "$elemMatch", "$expr"}),
        (q.EndsWith("name", "a" * 4001, True), {"$elemMatch", "$expr"}),
        (q.Words("_text", ("word",) * 900), {"$expr"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_too_long_for_a_pattern_is_none(clause: q.Clause, parts: set[str]) -> None:
    """A server of version 8.0 takes 16,384 bytes; what a byte is written as has at most four."""
    filters = str(compile_clause(clause))
    assert "$regex" not in filters and all(part in filters for part in parts)
    longest = compile_clause(q.Contains("a" * 64, "\0" * 4000))["terms"]["$regex"]
    assert len(longest.encode()) <= 16_384 and "\0" not in longest


CURRENT: tuple[tuple[q.Clause, dict[str, Any]], ...] = (
    # A deletion has no entries: nothing but the index key is needed to count what has a term (COUNT_SCAN).
    (MALE, GENDER),
    (q.And((q.Ids(("a",)), MALE)), {"$and": [{"_id": "a"}, GENDER]}),
    (q.Or((MALE, MALE)), {"$or": [GENDER, GENDER]}),
    (q.EVERYTHING, {"live": True}),
    (q.Ids(("a",)), {"$and": [{"_id": "a"}, {"live": True}]}),
    (q.Or((MALE, q.Ids(("a",)))), {"$and": [{"$or": [GENDER, {"_id": "a"}]}, {"live": True}]}),
    (q.Not(MALE), {"$and": [{"$nor": [GENDER]}, {"live": True}]}),
)


@pytest.mark.parametrize(("clause", "expected"), CURRENT, ids=str)
def test_deletions_are_left_out_by_the_criteria_where_these_do(clause: q.Clause, expected: dict[str, Any]) -> None:
    assert compile_current(clause) == expected


def test_a_page_of_a_term_is_read_in_the_order_of_ids() -> None:
    """One value of the first key of an index, then its further keys in order: no sort, no match beyond the page.

    https://www.mongodb.com/docs/manual/tutorial/equality-sort-range-guideline/
    """
    match, sort, limit, _ = build_pipeline(compile_current(MALE), (), ("Patient/b",), "Patient", 21, False)
    assert match == {"$match": {"$and": [GENDER, {"_id": {"$gt": "b"}}]}}
    assert limit == {"$limit": 21}
    keys = [index.keys for index in list_indexes("Patient") if index.keys[0] == ("terms", 1)]
    assert keys == [(("terms", 1), *sort["$sort"].items())]


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [("a", "b"), ("a\U0010ffff", "b"), ("\ud7ff", "\ue000"), ("", None), ("\U0010ffff", None), ("é", "ê")],
)
def test_the_successor_of_a_prefix(prefix: str, expected: str | None) -> None:
    assert compute_successor(prefix) == expected


ORDERS: tuple[tuple[tuple[q.Sort, ...], dict[str, int]], ...] = (
    ((), {"_id": 1}),
    ((q.Sort("_id", "id", True),), {"_id": -1}),
    ((q.Sort("_lastUpdated", "lastUpdated", True),), {"updated": -1, "_id": 1}),
    # A declared sort: the field that its index is over, ties by id.
    ((q.Sort("birthdate", "date", True),), {"sort.birthdate.d": -1, "_id": 1}),
    ((q.Sort("family", "term"), q.Sort("given", "term")), {"sort.family.a": 1, "sort.given.a": 1, "_id": 1}),
    # MongoDB sorts null first: ascending needs a flag, descending has it last anyway.
    ((q.Sort("address-city", "term"),), {"k0_missing": 1, "k0": 1, "_id": 1}),
    (
        (q.Sort("date", "date", True), q.Sort("address-city", "term")),
        {"k0": -1, "k1_missing": 1, "k1": 1, "_id": 1},
    ),
)


@pytest.mark.parametrize(("sort", "expected"), ORDERS, ids=str)
def test_orders(sort: tuple[q.Sort, ...], expected: dict[str, int]) -> None:
    found = build_sort(build_keys(sort, "Patient"))
    assert list(found.items()) == list(expected.items()), "the order of the keys counts"


UPDATED, NAME, CITY = q.Sort("_lastUpdated", "lastUpdated"), q.Sort("name", "term"), q.Sort("address-city", "term")
BIRTH_DOWN = q.Sort("birthdate", "date", True)

POSITIONS: tuple[tuple[tuple[q.Sort, ...], q.SortKey, dict[str, Any]], ...] = (
    ((), ("Patient/b",), {"_id": {"$gt": "b"}}),
    ((), ("Observation/b",), {}),
    ((), ("Person/b",), {"_id": {"$in": []}}),
    (
        (UPDATED,),
        (7, "Patient/b"),
        {
            "$and": [
                {"updated": {"$gte": 7}},
                {"$or": [{"updated": {"$gt": 7}}, {"$and": [{"updated": 7}, {"_id": {"$gt": "b"}}]}]},
            ]
        },
    ),
    # A declared sort is a text that is never absent: one range of its index begins at the position, at its border too.
    (
        (NAME,),
        ("ann", "Patient/b"),
        {
            "$and": [
                {"sort.name.a": {"$gte": "=ann"}},
                {"$or": [{"sort.name.a": {"$gt": "=ann"}}, {"$and": [{"sort.name.a": "=ann"}, {"_id": {"$gt": "b"}}]}]},
            ]
        },
    ),
    (
        (NAME,),
        (None, "Patient/b"),
        {"$and": [{"sort.name.a": {"$gte": ">"}}, {"$and": [{"sort.name.a": ">"}, {"_id": {"$gt": "b"}}]}]},
    ),
    (
        (BIRTH_DOWN,),
        (None, "Patient/b"),
        {"$and": [{"sort.birthdate.d": {"$lte": ""}}, {"$and": [{"sort.birthdate.d": ""}, {"_id": {"$gt": "b"}}]}]},
    ),
    (
        (CITY,),
        ("bonn", "Patient/b"),
        {
            "$or": [
                {"$or": [{"k0": {"$gt": "address-city=bonn"}}, {"k0": None}]},
                {"$and": [{"k0": "address-city=bonn"}, {"_id": {"$gt": "b"}}]},
            ]
        },
    ),
    ((CITY,), (None, "Patient/b"), {"$and": [{"k0": None}, {"_id": {"$gt": "b"}}]}),
)


@pytest.mark.parametrize(("sort", "after", "expected"), POSITIONS, ids=str)
def test_positions(sort: tuple[q.Sort, ...], after: q.SortKey, expected: dict[str, Any]) -> None:
    found = match_after(build_keys(sort, "Patient"), after, "Patient")
    assert found == expected


def test_a_search_by_stored_keys_sorts_along_an_index() -> None:
    """$match, $sort, $limit come first and together: the database reads the index in order and stops."""
    stages = build_pipeline(
        GENDER, build_keys((q.Sort("_lastUpdated", "lastUpdated", True),), "Patient"), None, "Patient", 21, False
    )
    assert [next(iter(stage)) for stage in stages] == ["$match", "$sort", "$limit", "$project"]
    assert stages[0] == {"$match": GENDER}


def test_a_search_by_several_stored_keys_sorts_no_texts() -> None:
    """No index has the order: a sort in memory, which MongoDB ends at 100 MB, holds what $project before it leaves."""
    keys = build_keys((q.Sort("date", "date", True), q.Sort("_lastUpdated", "lastUpdated")), "Observation")
    stages = build_pipeline(GENDER, keys, None, "Observation", 101, True)
    assert [next(iter(stage)) for stage in stages] == ["$match", "$project", "$sort", "$limit"]
    assert stages[1]["$project"].keys() == {"version", "updated", "method", "live", "size", "sort.date.d"}
    assert stages[1]["$project"]["size"] == {"$binarySize": "$raw"}


def test_a_search_by_computed_keys_carries_no_entries() -> None:
    """What is sorted is the keys, neither the text nor the index entries."""
    stages = build_pipeline(GENDER, build_keys((CITY,), "Patient"), ("ann", "Patient/b"), "Patient", 21, True)
    assert [next(iter(stage)) for stage in stages] == ["$match", "$project", "$match", "$set", "$sort", "$limit"]
    assert set(stages[1]["$project"]) == {"version", "updated", "method", "size", "live", "k0"}


def test_what_comes_after_the_id_in_a_sort_decides_nothing() -> None:
    """The walk along `_id` stays one; the values of the other keys are in the page's position alone."""
    keys = build_keys((q.Sort("_id", "id"), CITY), "Patient")
    stages = build_pipeline(GENDER, keys, ("b", "bonn", "Patient/b"), "Patient", 21, False)
    assert [next(iter(stage)) for stage in stages] == ["$match", "$sort", "$limit", "$project"]
    assert stages[1] == {"$sort": {"_id": 1}}
    assert "bonn" not in str(stages) and "k1" in stages[3]["$project"]


def test_the_trigrams_of_strings() -> None:
    """Of the normalised text, each once for a parameter; none of other terms, nor across two texts or the separator."""
    terms = {
        "name": (f"anna{SEPARATOR}Änna", f"annabel{SEPARATOR}Annabel", f"zo{SEPARATOR}Zo"),
        "code": (f"anna{SEPARATOR}",),
    }
    found = build_entry_fields("Basic", Entries(terms, strings=frozenset({"name", "address"})))["terms"]
    assert [term for term in found if "~" in term] == ["name~abe", "name~ann", "name~bel", "name~nab", "name~nna"]


def test_a_long_text_is_looked_up_by_a_few_of_its_trigrams() -> None:
    text = "abcdefghijklmnopqrstuvwxyz"
    found = select_terms(q.Contains("name", text, True))
    assert len(found) == 4 and set(found) <= {f"name~{text[n : n + 3]}" for n in range(24)}
    assert list(select_terms(q.Contains("name", "aaaaaa", True))) == ["name~aaa"]
    assert not select_terms(q.Contains("name", text))


SHORT = q.Contains("name", "an", True)


@pytest.mark.parametrize(
    ("clause", "looked_at"),
    [
        (MALE, MALE),
        (q.Contains("name", "ann", True), q.Contains("name", "ann", True)),
        (SHORT, q.StartsWith("name", "")),
        (q.Contains("url", "http://x"), q.StartsWith("url", "")),
        (q.EndsWith("code", SEPARATOR + "urn"), q.StartsWith("code", "")),
        (q.And((MALE, q.Or((SHORT, q.Ids(("a",)))))), q.And((MALE, q.Or((q.StartsWith("name", ""), q.Ids(("a",))))))),
        (q.And((MALE, q.Not(SHORT))), q.And((MALE, q.Not(SHORT)))),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_looks_at_all_terms_of_a_parameter(clause: q.Clause, looked_at: q.Clause) -> None:
    assert widen_clause(clause) == looked_at


def test_the_key_of_a_declared_sort() -> None:
    """Texts in the order of the values, the open ends of periods too; what is missing is beyond all of them."""
    entries = Entries(
        {"name": ("ann", "zoe"), "family": ("",)},
        {"birthdate": ((OPEN_LOW, 5), (-7, OPEN_HIGH)), "death-date": ((-7, 5),)},
    )
    found = build_fields("Patient", entries)
    assert set(found) == set(list_sorts("Patient")) == set(SORTS["Patient"]) - {"gender"}
    assert found["name"] == {"a": "=ann", "d": "=zoe"}
    assert found["given"] == {"a": ">", "d": ""}
    low, high = found["birthdate"]["a"], found["birthdate"]["d"]
    earlier, later = found["death-date"]["a"], found["death-date"]["d"]
    assert "" < low < earlier < later < high < ">" and len({len(text) for text in (low, earlier, later, high)}) == 1
    assert found["family"]["d"] > "" and found["name"]["d"] < ">"
    assert build_fields("Basic", entries) == {}


def test_a_resource_from_before_a_sort_was_declared_is_no_silent_gap() -> None:
    for document in ({"_id": "p"}, {"_id": "p", "sort": {"family": {"a": "=x", "d": "=x"}}}):
        with pytest.raises(StoreUnavailable, match="`p` has no key for sorting by `birthdate` yet"):
            parse_key(BIRTH_DOWN, document)


@pytest.mark.parametrize(
    ("sort", "value"),
    [
        (NAME, "ann"),
        (NAME, ""),
        (NAME, None),
        (BIRTH_DOWN, OPEN_LOW),
        (BIRTH_DOWN, OPEN_HIGH),
        (BIRTH_DOWN, -7),
        (BIRTH_DOWN, None),
    ],
    ids=str,
)
def test_the_key_of_a_declared_sort_is_read_as_it_was_written(sort: q.Sort, value: int | str | None) -> None:
    end = "d" if sort.descending else "a"
    assert parse_key(sort, {"sort": {sort.parameter: {end: format_key(sort, value)}}}) == value
