"""What is remembered of grants has an end, by number and by size."""

from __future__ import annotations

from fhir_server.search.query import And, Equals, Has, Ids, Not, Or
from fhir_server.security.bounded_cache import BoundedCache
from fhir_server.security.check import compile_linked_check, list_codes, weigh_clause
from fhir_server.security.policy import Grant, Principal
from fhir_server.security.scopes import parse_scopes


def weigh_text(text: str, enough: int) -> int:
    return len(text)


def test_the_oldest_is_forgotten_by_number_and_by_size() -> None:
    cache = BoundedCache[str](3, 100, weigh_text)
    for text in ("a", "bb", "ccc", "dddd"):
        assert cache.find(text, text.lower) == text
    assert cache.recall("a") is None and cache.recall("dddd") == "dddd"
    cache = BoundedCache[str](1000, 100, weigh_text)
    for number in range(50):
        cache.find(number, lambda: "x" * 9)
    assert cache.weight <= 100 and cache.recall(0) is None and cache.recall(49)
    # what is too large is made each time
    assert cache.find("long", lambda: "x" * 11) and cache.recall("long") is None
    cache.keep(49, "x")
    assert cache.weight == 10 * 9 + 1


def test_a_check_names_what_it_looks_at() -> None:
    clause = Or((And((Equals("subject", ("Patient/ada",)), Not(Equals("_security", ("R", "V"))))), Ids(("ada",))))
    assert list_codes(clause) == frozenset({"subject", "_security"})
    assert weigh_clause(clause, 20_000) == 9
    assert 20_000 < weigh_clause(Or((clause,) * 10_000), 20_000) < 20_000 + 10, "not counted to the end"
    links = Or((Has("Observation", "performer", Equals("subject", ("Patient/ada",))),))
    assert list_codes(And((links, clause))) is None
    check = compile_linked_check(And((links, clause)))
    assert check.links == links and check.if_linked.codes == frozenset({"subject", "_security"})


def test_the_same_grant_is_known_again() -> None:
    def make(scope: str) -> Principal:
        return Principal("token:lab", grant=Grant(parse_scopes(scope), "ada"))

    assert make("patient/*.rs").may_the_same(make("patient/*.rs"))
    assert not make("patient/*.rs").may_the_same(make("patient/*.r"))
    assert not make("patient/*.rs").may_the_same(Principal("token:lab"))
    assert Principal("a").may_the_same(Principal("a"))
