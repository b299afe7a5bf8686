"""Contract: thousands of alternatives or criteria in one search (https://hl7.org/fhir/R4/search.html#combining)."""

from __future__ import annotations

from collections.abc import Callable

from fhir_server.search import query as q
from fhir_server.search.entries import COMPOSITE, SEPARATOR, Entries
from fhir_server.store.contract.case import Case, Ticks, ids, put, query, run_on_store, string, terms, token, write
from fhir_server.store.protocol import Store

MANY = 2400
STORED = 30
"""Resources: every hundredth number has one, so that most alternatives find nothing."""


def _entries(number: int) -> Entries:
    return Entries(
        terms={
            "code": (token(f"c{number}", "urn:s"),),
            "name": (string(f"name{number:05d}"),),
            "subject": (f"Patient/p{number}",),
            "pair": (f"c{number}{COMPOSITE}x",),
        },
        dates={"date": ((number * 10, number * 10 + 5),)},
        numbers={"value": (("", float(number), float(number), f"s{SEPARATOR}mg{SEPARATOR}mg"),)},
    )


def _match_date(number: int) -> q.Clause:
    return q.DateRange("date", (q.Bound("low", "ge", number * 10), q.Bound("high", "lt", number * 10 + 10)))


def _match_value(number: int) -> q.Clause:
    tests = (
        q.Bound("low", "ge", number - 0.5),
        q.Bound("low", "lt", number + 0.5),
        q.Bound("high", "lt", number + 0.5),
    )
    return q.NumberRange("value", tests, unit=(None, "mg"))


ALTERNATIVES: dict[str, Callable[[int], q.Clause]] = {
    "token in any system": lambda number: q.StartsWith("code", f"c{number}{SEPARATOR}"),
    "token": lambda number: q.Equals("code", (token(f"c{number}", "urn:s"),)),
    "string": lambda number: q.StartsWith("name", f"name{number:05d}"),
    "reference": lambda number: q.Equals("subject", (f"Patient/p{number}",)),
    "composite": lambda number: q.Equals("pair", (f"c{number}{COMPOSITE}x",)),
    "date": _match_date,
    "quantity": _match_value,
    "id": lambda number: q.Ids((f"o{number}",)),
    "chain": lambda number: q.Chain("subject", "Patient", q.Ids((f"p{number}",))),
    "several kinds": lambda number: (_match_date, _match_value)[number % 200 // 100](number),
}


class ManyContract(Case):
    """What a search asks for may be long: it is answered, whatever it is made of."""

    @run_on_store
    async def test_many_alternatives(self, store: Store, clock: Ticks) -> None:
        numbers = await _store_many(store)
        asked = [number for number in range(MANY) if number // 100 % 2 == 0]
        expected = sorted(f"o{number}" for number in numbers if number // 100 % 2 == 0 and number < MANY)
        for name, alternative in ALTERNATIVES.items():
            wanted = [*asked] if name != "chain" else asked[::20]  # each is a question of its own on some stores
            clause = q.Or(tuple(map(alternative, wanted)))
            assert await ids(store, "Observation", clause) == expected, name
            assert await store.count(query("Observation", clause)) == len(expected), name
        some = q.Or(tuple(ALTERNATIVES["token in any system"](number) for number in asked))
        others = sorted({f"o{number}" for number in numbers} - set(expected))
        assert await ids(store, "Observation", q.Not(some)) == others
        assert await ids(store, "Patient", q.Has("Observation", "subject", some)) == [f"p{id[1:]}" for id in expected]

    @run_on_store
    async def test_many_references_of_two_kinds(self, store: Store, clock: Ticks) -> None:
        """A resource may refer to what is here and to what is elsewhere by one parameter: it is found by either."""
        here, elsewhere = [f"Patient/p{n}" for n in range(40)], [f"http://other/Patient/p{n}" for n in range(40)]
        for n in range(40):
            await write(store, put(f"Observation/o{n:02}", terms(subject=[here[n], elsewhere[n]], code=["a"])))
            await write(store, put(f"Observation/x{n:02}", terms(subject=[(here, elsewhere)[n % 2][n]], code=["a"])))
        both, odd = [f"o{n:02}" for n in range(30)], [f"x{n:02}" for n in range(30)]
        for asked, found in (
            (elsewhere[:30], [*both, *odd[1::2]]),
            (here[:30], [*both, *odd[0::2]]),
            ([*here[:30], *elsewhere[:30]], [*both, *odd]),
        ):
            clause = q.Equals("subject", tuple(asked))
            others = sorted({f"{name}{n:02}" for name in "ox" for n in range(40)} - set(found))
            assert await ids(store, "Observation", q.And((q.Equals("code", ("a",)), clause))) == found
            assert await ids(store, "Observation", q.And((q.Ids(tuple(found)), clause))) == found
            assert await ids(store, "Observation", q.Not(clause)) == others

    @run_on_store
    async def test_many_criteria(self, store: Store, clock: Ticks) -> None:
        """All of them hold for one resource alone: the others each miss one."""
        numbers = await _store_many(store)
        kept = f"o{numbers[7]}"
        for name in ("token in any system", "date", "quantity", "id"):
            alternative = ALTERNATIVES[name]
            others = [number for number in range(1200) if number != numbers[7]]
            clause = q.And(tuple(q.Not(alternative(number)) for number in (*others, *numbers[12:])))
            assert await ids(store, "Observation", clause) == [kept], name
        every = q.And(tuple(q.StartsWith("code", f"c{numbers[7]}{SEPARATOR}"[: 2 + at % 4]) for at in range(1200)))
        assert kept in await ids(store, "Observation", every)


async def _store_many(store: Store) -> list[int]:
    numbers = [number * 100 for number in range(STORED)]
    await write(store, *(put(f"Observation/o{number}", _entries(number)) for number in numbers))
    await write(store, *(put(f"Patient/p{number}", Entries()) for number in numbers))
    return numbers
