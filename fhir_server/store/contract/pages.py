"""Contract: order and paging of searches (https://hl7.org/fhir/R4/search.html#sort)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from fhir_server.search.entries import Entries
from fhir_server.search.query import EVERYTHING, Equals, Not, Query, Scope, Sort, SortKey
from fhir_server.store.contract.case import (
    HOUR,
    START,
    Case,
    Ticks,
    delete,
    put,
    query,
    run_on_store,
    string,
    terms,
    walk,
    walk_history,
    write,
)
from fhir_server.store.operations import Write
from fhir_server.store.protocol import HistoryQuery, Store


def patient(id: str, names: str = "", births: str = "", weights: str = "") -> Write:
    """A Patient; names are words, births are intervals `low-high`, weights `low~high`, each separated by spaces."""
    return put(
        f"Patient/{id}",
        Entries(
            terms={"name": tuple(sorted(map(string, names.split())))} if names else {},
            dates={"birth": _intervals(births)} if births else {},
            numbers={"weight": _parse_weights(weights)} if weights else {},
        ),
    )


def _intervals(births: str) -> tuple[tuple[int, int], ...]:
    pairs = (interval.split("-") for interval in births.split())
    return tuple(sorted((int(low), int(high)) for low, high in pairs))


def _parse_weights(weights: str) -> tuple[tuple[str, float, float, str], ...]:
    pairs = (interval.split("~") for interval in weights.split())
    return tuple(sorted(("", float(low), float(high), "") for low, high in pairs))


RESOURCES = (
    patient("a", names="Carl Ada", births="50-60", weights="3.5~3.5"),
    patient("b", names="Bea", births="10-99", weights="-1~10 2~2"),
    patient("c", births="50-55 20-21"),
    patient("d", names="Émile", weights="3.5~3.5"),
    patient("e"),
    patient("f", names="bea", births="10-12", weights="1e3~1e3"),
    patient("g", names="Ada", births="7-8 70-80"),
)

NAME, NAME_DOWN = Sort("name", "term"), Sort("name", "term", True)
BIRTH, BIRTH_DOWN = Sort("birth", "date"), Sort("birth", "date", True)
WEIGHT, WEIGHT_DOWN = Sort("weight", "number"), Sort("weight", "number", True)
ID, ID_DOWN = Sort("_id", "id"), Sort("_id", "id", True)
UPDATED, UPDATED_DOWN = Sort("_lastUpdated", "lastUpdated"), Sort("_lastUpdated", "lastUpdated", True)

ORDERS: tuple[tuple[tuple[Sort, ...], str], ...] = (
    ((), "a b c d e f g"),
    ((ID,), "a b c d e f g"),
    ((ID_DOWN,), "g f e d c b a"),
    # Terms are `normalised SEPARATOR written`: `Bea` comes before `bea`, and `émile` after every ASCII name.
    ((NAME,), "a g b f d c e"),
    ((NAME_DOWN,), "d a f b g c e"),
    # Ascending by the lowest low: g 7, b and f 10, c 20, a 50; descending by the highest high: 99, 80, 60, 55, 12.
    ((BIRTH,), "g b f c a d e"),
    ((BIRTH_DOWN,), "b g a c f d e"),
    ((WEIGHT,), "b a d f c e g"),
    ((WEIGHT_DOWN,), "f b a d c e g"),
    ((BIRTH, ID_DOWN), "g f b c a e d"),
    ((BIRTH, NAME), "g b f c a d e"),
    ((BIRTH, NAME_DOWN), "g f b c a d e"),
    ((BIRTH, WEIGHT_DOWN), "g f b c a d e"),
    ((WEIGHT, BIRTH_DOWN, NAME), "b a d f g c e"),
    ((WEIGHT_DOWN, NAME_DOWN), "f b d a g c e"),
    # a and g tie on their lowest name (`Ada`); the highest of a is `Carl`.
    ((NAME, NAME_DOWN), "a g b f d c e"),
    ((UPDATED,), "a b c d e f g"),
    ((UPDATED_DOWN,), "g f e d c b a"),
    ((Sort("unknown", "term"),), "a b c d e f g"),
    ((Sort("unknown", "date", True), ID_DOWN), "g f e d c b a"),
)


async def store_sorted_resources(store: Store, clock: Ticks) -> None:
    """The resources, each an hour after the one before."""
    for each in RESOURCES:
        await write(store, each)
        clock.forward(HOUR)


class PageContract(Case):
    """Sort, page size, positions, and page walks while others write."""

    @run_on_store
    async def test_orders(self, store: Store, clock: Ticks) -> None:
        await store_sorted_resources(store, clock)
        for sort, expected in ORDERS:
            order = expected.split()
            page = await store.search(query("Patient", sort=sort, count=100))
            assert [match.id for match in page.matches] == order, sort
            assert page.next is None

    @run_on_store
    async def test_walks_equal_the_list(self, store: Store, clock: Ticks) -> None:
        await store_sorted_resources(store, clock)
        for sort, _ in ORDERS:
            for where in (EVERYTHING, Not(Equals("name", (string("Ada"),)))):
                asked = query("Patient", where, sort=sort, count=100)
                whole = list((await store.search(asked)).matches)
                for count in (1, 2, 3, len(whole)):
                    assert await walk(store, replace(asked, count=count)) == whole, (sort, count)

    @run_on_store
    async def test_large_and_small_resources_of_a_page(self, store: Store, clock: Ticks) -> None:
        """What is read of a page apart, as it is large, stands in its place."""
        sizes = [10, 3000, 10, 10, 70_000, 0, 500, 3000, 10, 20_000, 3000, 10] * 3
        await write(store, *(put(f"Basic/{n:02}", text=f"{n:02}" * (size // 2)) for n, size in enumerate(sizes)))
        for sort in ((), (ID_DOWN,), (Sort("_lastUpdated", "lastUpdated"),)):
            asked = Query((Scope("Basic"),), sort=sort, count=100)
            whole = list((await store.search(asked)).matches)
            assert len(whole) == len(sizes)
            for most in (1, 4000, 50_000, 100_000, 10**7):
                assert await walk(store, replace(asked, most_bytes=most)) == whole, (sort, most)

    @run_on_store
    async def test_pages_end_by_their_size(self, store: Store, clock: Ticks) -> None:
        """A page of large resources is shorter, has one at least, and the walk misses none; so has a history."""
        references = [f"{type}/p{number:02}" for type in ("Basic", "Patient") for number in range(15)]
        await write(store, *(put(reference, text="x" * 3000) for reference in references))
        types = Scope("Basic"), Scope("Patient")
        for scopes, sort in ((types[:1], ()), (types[:1], (ID_DOWN,)), (types, ()), (types, (ID,))):
            asked = Query(scopes, sort=sort, count=100)
            whole = list((await store.search(asked)).matches)
            assert len(whole) == 15 * len(scopes)
            for most, length in ((1, 1), (10_000, 3), (10**6, len(whole))):
                page = await store.search(replace(asked, most_bytes=most))
                assert len(page.matches) == length, (sort, most)
                assert await walk(store, replace(asked, most_bytes=most)) == whole
        history = HistoryQuery(("Basic",), count=100)
        assert len((await store.history(replace(history, most_bytes=10_000))).versions) == 3
        assert await walk_history(store, replace(history, most_bytes=10_000)) == await walk_history(store, history)

    @run_on_store
    async def test_the_next_position(self, store: Store, clock: Ticks) -> None:
        """One value per sort key (None: missing), then `Type/id`; None when nothing follows."""
        await store_sorted_resources(store, clock)
        expected: tuple[tuple[tuple[Sort, ...], int, SortKey | None], ...] = (
            ((), 2, ("Patient/b",)),
            ((NAME,), 1, (string("Ada"), "Patient/a")),
            ((NAME,), 6, (None, "Patient/c")),
            ((BIRTH_DOWN,), 1, (99, "Patient/b")),
            ((WEIGHT, BIRTH), 1, (-1.0, 10, "Patient/b")),
            ((WEIGHT, ID), 2, (3.5, "a", "Patient/a")),
            ((UPDATED,), 2, (START + HOUR, "Patient/b")),
            ((), 7, None),
            ((NAME,), 7, None),
            ((NAME,), 0, None),
        )
        for sort, count, position in expected:
            page = await store.search(query("Patient", sort=sort, count=count))
            assert len(page.matches) == count
            assert page.next == position, (sort, count)

    @run_on_store
    async def test_a_position_need_not_be_a_resource(self, store: Store, clock: Ticks) -> None:
        await store_sorted_resources(store, clock)
        expected: tuple[tuple[tuple[Sort, ...], SortKey, str], ...] = (
            ((), ("Patient/bb",), "c d e f g"),
            ((), ("Account/z",), "a b c d e f g"),
            ((), ("Zzz/a",), ""),
            ((BIRTH,), (15, "Patient/zzz"), "c a d e"),
            ((BIRTH,), (50, "Patient/0"), "a d e"),
            ((BIRTH,), (50, "Patient/z"), "d e"),
            ((BIRTH_DOWN,), (70, "Patient/0"), "a c f d e"),
            ((BIRTH,), (None, "Patient/0"), "d e"),
            ((BIRTH_DOWN,), (None, "Patient/d"), "e"),
            ((NAME_DOWN,), ("b", "Patient/0"), "g c e"),
            ((WEIGHT,), (3.5, "Patient/a"), "d f c e g"),
            ((ID_DOWN,), ("c", "Patient/c"), "b a"),
        )
        for sort, after, found in expected:
            page = await store.search(query("Patient", sort=sort, after=after))
            assert [match.id for match in page.matches] == found.split(), (sort, after)

    @run_on_store
    async def test_several_scopes_are_one_list(self, store: Store, clock: Ticks) -> None:
        births = {"Patient/1": 30, "Patient/2": None, "Group/1": 20, "Group/2": 30, "Zoo/1": 10, "Account/1": None}
        for reference, birth in births.items():
            entries = Entries(dates={"birth": ((birth, birth),)}) if birth else Entries()
            await write(store, put(reference, entries))
            clock.forward(HOUR)
        scopes = tuple(Scope(type) for type in ("Patient", "Zoo", "Group", "Account"))
        expected: tuple[tuple[tuple[Sort, ...], str], ...] = (
            ((), "Account/1 Group/1 Group/2 Patient/1 Patient/2 Zoo/1"),
            ((BIRTH,), "Zoo/1 Group/1 Group/2 Patient/1 Account/1 Patient/2"),
            ((BIRTH_DOWN,), "Group/2 Patient/1 Group/1 Zoo/1 Account/1 Patient/2"),
            ((ID_DOWN,), "Group/2 Patient/2 Account/1 Group/1 Patient/1 Zoo/1"),
            ((ID,), "Account/1 Group/1 Patient/1 Zoo/1 Group/2 Patient/2"),
            ((UPDATED,), "Patient/1 Patient/2 Group/1 Group/2 Zoo/1 Account/1"),
            # Resources of several types may have one id: what follows it in the sort still decides between them.
            ((ID, BIRTH), "Zoo/1 Group/1 Patient/1 Account/1 Group/2 Patient/2"),
            ((ID_DOWN, BIRTH_DOWN), "Group/2 Patient/2 Patient/1 Group/1 Zoo/1 Account/1"),
        )
        for sort, order in expected:
            for count in (1, 2, 5, 6):
                found = await walk(store, Query(scopes, sort, count))
                assert [match.reference for match in found] == order.split(), (sort, count)

    @run_on_store
    async def test_ties_are_ordinal(self, store: Store, clock: Ticks) -> None:
        given = ["b", "B", "a-1", "a.1", "a1", "A", "10", "9", "aa"]
        await write(store, *(put(f"Patient/{id}", terms(name=["x"])) for id in given))
        for sort in ((), (NAME,), (NAME_DOWN,), (UPDATED_DOWN,), (ID,)):
            found = await walk(store, query("Patient", sort=sort, count=2))
            assert [match.id for match in found] == ["10", "9", "A", "B", "a-1", "a.1", "a1", "aa", "b"], sort

    @run_on_store
    async def test_a_search_may_be_repeated_while_nothing_changes(self, store: Store, clock: Ticks) -> None:
        await store_sorted_resources(store, clock)
        asked = query("Patient", sort=(BIRTH,), count=3)
        assert await store.search(asked) == await store.search(asked)

    @run_on_store
    async def test_a_walk_while_others_write(self, store: Store, clock: Ticks) -> None:
        """What does not change during the walk appears exactly once, in order."""
        still = [f"{number:03}s" for number in range(0, 120, 3)]
        await write(store, *(_put_numbered_patient(id) for id in still))
        await write(store, *(_put_numbered_patient(f"{number:03}m") for number in range(0, 120, 3)))
        for sort in ((), (NAME,), (NAME_DOWN,), (ID_DOWN,), (BIRTH, NAME)):
            found: list[str] = []
            after: SortKey | None = None
            for step in range(1000):
                page = await store.search(query("Patient", sort=sort, count=5, after=after))
                found += [match.id for match in page.matches]
                after = page.next
                if after is None:
                    break
                moving = step * 37 % 120
                await asyncio.gather(
                    write(store, delete(f"Patient/{moving // 3 * 3:03}m")),
                    write(store, _put_numbered_patient(f"{moving:03}n", shown=f"{119 - moving:03}")),
                    write(store, _put_numbered_patient(f"{(moving + 60) % 120 // 3 * 3:03}m", shown=f"{moving:03}")),
                )
            unchanged = [id for id in found if id.endswith("s")]
            descending = any(key.descending for key in sort)
            assert unchanged == sorted(still, reverse=descending), sort


def _put_numbered_patient(id: str, shown: str = "") -> Write:
    number = shown or id[:3]
    return put(f"Patient/{id}", Entries(terms={"name": (number,)}, dates={"birth": ((int(number) // 10,) * 2,)}))
