"""What is looked up by term and date is what matching each write by itself finds."""

from __future__ import annotations

from random import Random

import pytest

from fhir_server.search.entries import SEPARATOR, Entries
from fhir_server.search.match import NO_OTHERS, Candidate, matches
from fhir_server.search.query import And, Bound, Clause, Comparison, DateRange, Equals, Not, Or, Present, StartsWith
from fhir_server.writes.pending_index import PendingIndex

ACTORS = ("Practitioner/pine", "Practitioner/elm", "Patient/ada")
TAGS = (f"long{SEPARATOR}urn:a", f"long{SEPARATOR}urn:b", f"made{SEPARATOR}urn:a")
COMPARISONS: tuple[Comparison, ...] = ("lt", "le", "gt", "ge")


def draw_write(random: Random, id: str) -> Candidate:
    terms = {
        "actor": tuple(random.sample(ACTORS, random.randrange(3))),
        "_tag": tuple(random.sample(TAGS, random.randrange(3))),
    }
    starts = [random.randrange(20) for _ in range(random.randrange(3))]
    dates = {"date": tuple((start, start + random.randrange(5)) for start in starts)}
    return Candidate("Appointment", id, 0, Entries(terms=terms, dates=dates))


def draw_clause(random: Random, depth: int = 3) -> Clause:
    kind = random.randrange(8 if depth else 5)
    if kind == 0:
        return Equals("actor", tuple(random.sample(ACTORS, random.randrange(3))))
    if kind == 1:
        return Equals("_tag", (random.choice(TAGS),))
    if kind == 2:
        return StartsWith("_tag", random.choice((f"long{SEPARATOR}", "lo", f"made{SEPARATOR}")))
    if kind == 3:
        return Present("actor")
    if kind == 4:
        bounds = (
            Bound(random.choice(("low", "high")), random.choice(COMPARISONS), random.randrange(22))
            for _ in range(random.randrange(1, 4))
        )
        return DateRange("date", tuple(bounds))
    parts = tuple(draw_clause(random, depth - 1) for _ in range(random.randrange(4)))
    return (And(parts), Or(parts), Not(draw_clause(random, depth - 1)))[kind - 5]


@pytest.mark.parametrize("seed", range(20))
def test_lookups_find_what_matches(seed: int) -> None:
    random = Random(seed)
    index, there = PendingIndex(), dict[str, Candidate]()
    for _ in range(60):
        id = str(random.randrange(15))
        if random.random() < 0.2:
            index.remove(id)
            there.pop(id, None)
        else:
            there[id] = draw_write(random, id)
            index.put(there[id])
        where = draw_clause(random)
        expected = sorted(id for id, each in there.items() if matches(where, each, NO_OTHERS))
        assert sorted(index.find_matches(where)) == expected, where
