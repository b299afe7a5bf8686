"""The search tree taken apart and put together again."""

from __future__ import annotations

import pytest

from fhir_server.search.query import (
    EVERYTHING,
    And,
    CanonicalChain,
    CanonicalHas,
    Chain,
    Clause,
    Equals,
    Has,
    Ids,
    Lineage,
    Not,
    Or,
    Within,
    iterate_children,
    rewrite_clause,
)

NAME, CODE = Equals("name", ("a",)), Equals("code", ("b",))

PARENTS: list[tuple[Clause, tuple[Clause, ...], Clause]] = [
    (And((NAME, CODE)), (NAME, CODE), And((Not(NAME), Not(CODE)))),
    (Or((NAME, CODE)), (NAME, CODE), Or((Not(NAME), Not(CODE)))),
    (Not(NAME), (NAME,), Not(Not(NAME))),
    (Chain("subject", "Patient", NAME), (NAME,), Chain("subject", "Patient", Not(NAME))),
    (Has("Observation", "subject", CODE), (CODE,), Has("Observation", "subject", Not(CODE))),
    (CanonicalChain("url", "ValueSet", NAME), (NAME,), CanonicalChain("url", "ValueSet", Not(NAME))),
    (CanonicalHas("Questionnaire", "url", NAME), (NAME,), CanonicalHas("Questionnaire", "url", Not(NAME))),
    (Within("composite", NAME, "Patient"), (NAME,), Within("composite", Not(NAME), "Patient")),
]
LEAVES: list[Clause] = [NAME, Ids(("1",)), Lineage("partof", ("1",), "below"), EVERYTHING]


@pytest.mark.parametrize(("clause", "children", "negated"), PARENTS)
def test_children_are_iterated_and_rewritten_in_order(
    clause: Clause, children: tuple[Clause, ...], negated: Clause
) -> None:
    assert iterate_children(clause) == children
    assert rewrite_clause(clause, Not) == negated
    rewritten = iter(children)
    assert rewrite_clause(clause, lambda _: next(rewritten)) == clause


@pytest.mark.parametrize("clause", LEAVES)
def test_a_leaf_has_no_children_and_stays_as_it_is(clause: Clause) -> None:
    assert iterate_children(clause) == ()
    assert rewrite_clause(clause, Not) == clause
