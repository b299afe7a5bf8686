"""Contract: what holds when many tasks write at once: no write is lost, no assertion is passed twice.

Spec: https://hl7.org/fhir/R4/http.html#concurrency
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Iterable

from fhir_server.search.query import EVERYTHING, Equals
from fhir_server.store.contract.case import (
    Case,
    Ticks,
    delete,
    ids,
    post,
    put,
    query,
    retry_transaction,
    run_on_store,
    terms,
    token,
    walk_changes,
    walk_history,
    write,
)
from fhir_server.store.operations import Assertion, Matches, Transaction, VersionIs, Write
from fhir_server.store.protocol import AssertionFailed, Committed, HistoryQuery, Store, Stored

MANY = 64
_BALANCE = re.compile(rb'"text":"(\d+)"')


async def outcomes(attempts: Iterable[Awaitable[Committed]]) -> tuple[list[Committed], list[AssertionFailed]]:
    """What was committed, and the assertions that failed; any other error is raised."""
    done = await asyncio.gather(*attempts, return_exceptions=True)
    for each in done:
        if isinstance(each, BaseException) and not isinstance(each, AssertionFailed):
            raise each
    committed = [each for each in done if isinstance(each, Committed)]
    return committed, [each for each in done if isinstance(each, AssertionFailed)]


def attempt(store: Store, each: Write, assertion: Assertion, lock: str) -> Awaitable[Committed]:
    """One write under one assertion."""
    return retry_transaction(store, Transaction((each,), (assertion,), locks=(lock,)))


def balance(version: Stored) -> int:
    """The number in the text of an account."""
    found = _BALANCE.search(version.raw or b"")
    assert found is not None
    return int(found[1])


class RaceContract(Case):
    """Concurrent transactions."""

    @run_on_store
    async def test_one_of_many_conditional_creates_wins(self, store: Store, clock: Ticks) -> None:
        identifier = token("1", "urn:a")
        nothing = Matches(query("Patient", Equals("identifier", (identifier,))), ())
        made = (post(f"Patient/{number}", terms(identifier=[identifier])) for number in range(MANY))
        tries = (attempt(store, each, nothing, f"Patient?identifier={identifier}") for each in made)
        committed, failed = await outcomes(tries)
        assert (len(committed), len(failed)) == (1, MANY - 1)
        assert all(each.assertion == nothing for each in failed)
        assert await ids(store, "Patient", EVERYTHING) == [committed[0].written[0].id]
        assert len(await walk_history(store, HistoryQuery())) == len(await walk_changes(store)) == 1

    @run_on_store
    async def test_one_of_many_updates_of_a_version_wins(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/a"))
        first = VersionIs("Patient", "a", 1)
        updates = (put("Patient/a", terms(mark=[str(number)]), str(number)) for number in range(MANY))
        committed, failed = await outcomes(attempt(store, each, first, "Patient/a") for each in updates)
        assert (len(committed), len(failed)) == (1, MANY - 1)
        current = await store.read("Patient", "a")
        assert current is not None and current.version == 2
        assert await ids(store, "Patient", Equals("mark", (str(balance(current)),))) == ["a"]

    @run_on_store
    async def test_one_of_many_creates_at_an_id_wins(self, store: Store, clock: Ticks) -> None:
        absent = VersionIs("Patient", "a", 0)
        tries = (attempt(store, put("Patient/a", text=str(number)), absent, "Patient/a") for number in range(MANY))
        committed, failed = await outcomes(tries)
        assert (len(committed), len(failed)) == (1, MANY - 1)
        assert await store.vread("Patient", "a", 2) is None

    @run_on_store
    async def test_unconditional_updates_are_all_kept(self, store: Store, clock: Ticks) -> None:
        made = await asyncio.gather(*(write(store, put("Patient/a", text=str(number))) for number in range(MANY)))
        written = sorted((each.written[0].version, each.written[0].last_updated) for each in made)
        assert [version for version, _ in written] == list(range(1, MANY + 1))
        times = [time for _, time in written]
        assert len(set(times)) == MANY and times == sorted(times)
        history = await walk_history(store, HistoryQuery(("Patient",), "a"))
        assert sorted(map(balance, history)) == list(range(MANY))
        assert [each.version for each in await walk_changes(store, limit=10)] == list(range(1, MANY + 1))

    @run_on_store
    async def test_a_reference_and_the_deletion_of_its_target_do_not_both_commit(
        self, store: Store, clock: Ticks
    ) -> None:
        pairs = range(24)
        await write(store, *(put(f"Patient/{number}") for number in pairs))
        attempts = []
        for number in pairs:
            target = f"Patient/{number}"
            source = put(f"Observation/{number}", terms(references=[target]))
            attempts.append(write(store, source, required=(target,), locks=(target,)))
            attempts.append(write(store, delete(target), released=(target,), locks=(target,)))
        done = await asyncio.gather(*attempts, return_exceptions=True)
        for referred, deleted in zip(done[::2], done[1::2], strict=True):
            assert isinstance(referred, Committed) != isinstance(deleted, Committed)

    @run_on_store
    async def test_transfers_conserve_the_sum(self, store: Store, clock: Ticks) -> None:
        accounts = [f"Account/{number}" for number in range(4)]
        await write(store, *(put(each, text="100") for each in accounts))
        chance = random.Random(1)
        stop = asyncio.Event()

        async def audit() -> int:
            audits = 0
            while not stop.is_set():
                found = (await retry_transaction(store, Transaction(reads=tuple(accounts)))).found
                assert sum(map(balance, found)) == 400
                audits += 1
                await asyncio.sleep(0)
            return audits

        auditing = asyncio.create_task(audit())
        routes = [chance.sample(accounts, 2) for _ in range(MANY)]
        await asyncio.gather(*(_transfer(store, source, target) for source, target in routes))
        stop.set()
        assert await auditing > 0
        current = await store.read_many(accounts)
        assert sum(map(balance, current.values())) == 400
        assert sum(each.version - 1 for each in current.values()) == 2 * MANY

    @run_on_store
    async def test_overlapping_criteria_meet(self, store: Store, clock: Ticks) -> None:
        """Different criteria that share a term, and so a lock: at most one create that each forbids."""
        one, active = Equals("identifier", (token("1"),)), Equals("active", (token("true"),))
        entries = terms(identifier=[token("1")], active=[token("true")])
        tries = []
        for number in range(MANY):
            nothing = Matches(query("Patient", active if number % 2 else one), ())
            locks = ("Patient?identifier=1", "Patient?active=true")
            made = Transaction((post(f"Patient/{number}", entries),), (nothing,), locks=locks)
            tries.append(retry_transaction(store, made))
        committed, failed = await outcomes(tries)
        assert (len(committed), len(failed)) == (1, MANY - 1)


async def _transfer(store: Store, source: str, target: str) -> None:
    """Move one unit from account to account under version assertions; planned anew when it lost."""
    while True:
        found = await store.read_many([source, target])
        assertions = tuple(VersionIs(each.type, each.id, each.version) for each in found.values())
        less, more = balance(found[source]) - 1, balance(found[target]) + 1
        writes = (put(source, text=str(less)), put(target, text=str(more)))
        try:
            await retry_transaction(store, Transaction(writes, assertions, locks=(source, target)))
        except AssertionFailed:
            await asyncio.sleep(0)
            continue
        return
