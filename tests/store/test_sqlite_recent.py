"""Assertions about searches that tell what state they saw: checked against the writes since, whoever made them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fhir_server.app import read_clock
from fhir_server.search.query import And, Equals, Not, Or, Query, Scope
from fhir_server.store.contract.case import delete, put, query, terms
from fhir_server.store.operations import Matches, Transaction, Write
from fhir_server.store.protocol import AssertionFailed
from fhir_server.store.sqlite import open_store
from fhir_server.store.sqlite import store as sqlite_store

pytestmark = pytest.mark.anyio

MARKED = Equals("mark", ("x",))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[sqlite_store.SqliteStore]:
    opened = await open_store(f"sqlite:///{tmp_path}/fhir.db", read_clock)
    yield opened
    await opened.close()


async def look(store: sqlite_store.SqliteStore) -> tuple[tuple[str, ...], int]:
    """(ids of the marked Patients, the state in which they were found)."""
    page = await store.search(query("Patient", MARKED, brief=True))
    assert page.seen is not None
    return tuple(match.id for match in page.matches), page.seen


def patient(id: str, mark: str = "x") -> Write:
    return put(f"Patient/{id}", terms(mark=[mark]))


async def test_what_this_process_wrote_since_is_enough_to_check(
    store: sqlite_store.SqliteStore, searches: list[Query]
) -> None:
    await store.transact(Transaction((patient("a"),)))
    found, seen = await look(store)
    searches.clear()
    await store.transact(Transaction((patient("b", "y"), put("Observation/c", terms(mark=["x"])))))
    await store.transact(Transaction(assertions=(Matches(query("Patient", MARKED), found, seen),)))
    assert searches == []


@pytest.mark.parametrize("later", [patient("b"), patient("a", "y"), delete("Patient/a")])
async def test_a_write_since_that_changes_what_matches_is_noticed(
    store: sqlite_store.SqliteStore, later: Write
) -> None:
    await store.transact(Transaction((patient("a"),)))
    found, seen = await look(store)
    await store.transact(Transaction((later,)))
    with pytest.raises(AssertionFailed):
        await store.transact(Transaction(assertions=(Matches(query("Patient", MARKED), found, seen),)))
    now, seen = await look(store)
    await store.transact(Transaction(assertions=(Matches(query("Patient", MARKED), now, seen),)))


async def test_what_another_process_wrote_removed_or_purged_is_noticed(
    store: sqlite_store.SqliteStore, tmp_path: Path
) -> None:
    other = await open_store(f"sqlite:///{tmp_path}/fhir.db", read_clock)
    try:
        for change in (
            Transaction((patient("b"),)),
            Transaction((delete("Patient/b"),)),
            Transaction((patient("c"), patient("d"))),
            Transaction(purged=("Patient/d",)),
        ):
            await store.transact(Transaction((patient("a"),)))
            found, seen = await look(store)
            await other.transact(change)
            with pytest.raises(AssertionFailed):
                await store.transact(Transaction(assertions=(Matches(query("Patient", MARKED), found, seen),)))
    finally:
        await other.close()


async def test_a_purge_of_this_process_is_noticed(store: sqlite_store.SqliteStore) -> None:
    _, seen = await look(store)
    await store.transact(Transaction((patient("a"),)))
    await store.transact(Transaction(purged=("Patient/a",)))
    await store.transact(Transaction(assertions=(Matches(query("Patient", MARKED), (), seen),)))
    with pytest.raises(AssertionFailed):
        await store.transact(Transaction(assertions=(Matches(query("Patient", MARKED), ("a",), seen),)))


async def test_a_state_from_before_the_writes_that_are_kept_is_searched_again(store: sqlite_store.SqliteStore) -> None:
    found, seen = await look(store)
    for start in range(0, 1200, 300):
        await store.transact(Transaction(tuple(patient(f"p{number}", "y") for number in range(start, start + 300))))
    await store.transact(Transaction(assertions=(Matches(query("Patient", MARKED), found, seen),)))
    await store.transact(Transaction((patient("p0"),)))
    with pytest.raises(AssertionFailed):
        await store.transact(Transaction(assertions=(Matches(query("Patient", MARKED), found, seen),)))


async def test_of_two_transactions_written_together_the_second_sees_the_first(
    store: sqlite_store.SqliteStore,
) -> None:
    await store.transact(Transaction((patient("z", "y"),)))
    _, seen = await look(store)
    nothing = Matches(query("Patient", MARKED), (), seen)
    outcomes = await asyncio.gather(
        *(store.transact(Transaction((patient(str(n)),), (nothing,))) for n in range(20)), return_exceptions=True
    )
    assert sum(not isinstance(outcome, AssertionFailed) for outcome in outcomes) == 1


async def test_a_brief_search_finds_what_every_search_finds(store: sqlite_store.SqliteStore) -> None:
    await store.transact(Transaction((patient("a"), patient("b", "y"), put("Observation/c", terms(mark=["x"])))))
    where = And((Or((MARKED, Equals("mark", ("y",)))), Not(Equals("mark", ("z",)))))
    scopes = (Scope("Patient", where), Scope("Observation", MARKED))
    brief, usual = [(await store.search(Query(scopes, brief=each))).matches for each in (True, False)]
    assert brief == usual and len(brief) == 3
