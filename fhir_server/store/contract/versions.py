"""Contract: history and the feed of changes (https://hl7.org/fhir/R4/http.html#history)."""

from __future__ import annotations

from dataclasses import replace

from fhir_server.store.contract.case import (
    HOUR,
    MILLISECOND,
    START,
    Case,
    Ticks,
    delete,
    list_labels,
    put,
    run_on_store,
    walk_changes,
    walk_history,
    write,
)
from fhir_server.store.operations import Write
from fhir_server.store.protocol import HistoryQuery, Store

TRANSACTIONS: tuple[tuple[Write, ...], ...] = (
    (put("Patient/b"), put("Patient/a"), put("Observation/o")),
    (put("Patient/a"),),
    (delete("Patient/b"),),
    (put("Patient/a"), put("Observation/o")),
    (put("Patient/b"),),
)
"""An hour lies between them, so their versions were current from, and until, these hours:

    Patient/a      v1 0–1   v2 1–3   v3 3–
    Patient/b      v1 0–2   v2 2–4 (deletion)   v3 4–
    Observation/o  v1 0–3   v2 3–
"""

SYSTEM = "Patient/b/3 Observation/o/2 Patient/a/3 Patient/b/2 Patient/a/2 Observation/o/1 Patient/a/1 Patient/b/1"

PATIENTS, B = ("Patient",), HistoryQuery(("Patient",), "b")


def hour(number: float) -> int:
    """The time of that hour, µs."""
    return START + int(number * HOUR)


HISTORIES: tuple[tuple[HistoryQuery, str], ...] = (
    (HistoryQuery(), SYSTEM),
    (HistoryQuery(("Observation", "Patient")), SYSTEM),
    (HistoryQuery(PATIENTS), "Patient/b/3 Patient/a/3 Patient/b/2 Patient/a/2 Patient/a/1 Patient/b/1"),
    (HistoryQuery(("Observation", "Encounter")), "Observation/o/2 Observation/o/1"),
    (HistoryQuery(("Encounter",)), ""),
    (B, "Patient/b/3 Patient/b/2 Patient/b/1"),
    (HistoryQuery(PATIENTS, "o"), ""),
    (HistoryQuery(PATIENTS, "never"), ""),
    (HistoryQuery(since=hour(3)), "Patient/b/3 Observation/o/2 Patient/a/3"),
    (HistoryQuery(since=hour(3) + 1), "Patient/b/3"),
    (HistoryQuery(since=hour(5)), ""),
    (HistoryQuery(since=0), SYSTEM),
    (HistoryQuery(PATIENTS, since=hour(2)), "Patient/b/3 Patient/a/3 Patient/b/2"),
    (replace(B, since=hour(2)), "Patient/b/3 Patient/b/2"),
    (HistoryQuery(at=(hour(1.5), hour(2.5))), "Patient/b/2 Patient/a/2 Observation/o/1 Patient/b/1"),
    (HistoryQuery(at=(hour(3), hour(3))), "Observation/o/2 Patient/a/3 Patient/b/2"),
    (HistoryQuery(at=(hour(2) - 1, hour(2) - 1)), "Patient/a/2 Observation/o/1 Patient/b/1"),
    (HistoryQuery(at=(hour(-2), hour(0))), "Observation/o/1 Patient/a/1 Patient/b/1"),
    (HistoryQuery(at=(hour(-2), hour(0) - 1)), ""),
    (HistoryQuery(at=(hour(10), hour(20))), "Patient/b/3 Observation/o/2 Patient/a/3"),
    (HistoryQuery(at=(hour(-1), hour(9))), SYSTEM),
    (HistoryQuery(PATIENTS, at=(hour(2.5), hour(3))), "Patient/a/3 Patient/b/2 Patient/a/2"),
    (replace(B, at=(hour(1), hour(3))), "Patient/b/2 Patient/b/1"),
    (HistoryQuery(since=hour(1), at=(hour(0), hour(2.5))), "Patient/b/2 Patient/a/2"),
)


async def fill(store: Store, clock: Ticks) -> None:
    """The transactions, an hour apart; the clock stands at the fifth hour afterwards."""
    for writes in TRANSACTIONS:
        await write(store, *writes)
        clock.forward(HOUR)


class VersionContract(Case):
    """`history` and `read_changes`."""

    @run_on_store
    async def test_histories(self, store: Store, clock: Ticks) -> None:
        await fill(store, clock)
        for asked, expected in HISTORIES:
            page = await store.history(asked)
            assert [f"{each.reference}/{each.version}" for each in page.versions] == expected.split(), asked
            assert page.next is None
            for version in page.versions:
                assert version == await store.vread(version.type, version.id, version.version)

    @run_on_store
    async def test_history_pages(self, store: Store, clock: Ticks) -> None:
        await fill(store, clock)
        for asked, _ in HISTORIES:
            whole = list((await store.history(asked)).versions)
            for count in (1, 2, 3, max(len(whole), 1)):
                assert await walk_history(store, replace(asked, count=count)) == whole, (asked, count)
        page = await store.history(HistoryQuery(count=2))
        assert page.next == (hour(3), "Observation/o", 2)
        nothing = await store.history(HistoryQuery(count=0))
        assert (nothing.versions, nothing.next) == ((), None)

    @run_on_store
    async def test_a_history_walk_does_not_move_when_others_write(self, store: Store, clock: Ticks) -> None:
        await fill(store, clock)
        first = await store.history(HistoryQuery(count=3))
        await write(store, put("Patient/a"), put("Patient/new"), delete("Observation/o"))
        rest = await walk_history(store, HistoryQuery(count=3, before=first.next))
        assert [f"{each.reference}/{each.version}" for each in (*first.versions, *rest)] == SYSTEM.split()

    @run_on_store
    async def test_nothing_commits_below_the_horizon(self, store: Store, clock: Ticks) -> None:
        empty = await store.history(HistoryQuery())
        assert empty.versions == ()
        for step in (0, HOUR, 0, -5 * HOUR, MILLISECOND, -HOUR, 0, 20 * HOUR):
            before = await walk_history(store, HistoryQuery(count=2))
            horizons = [(await store.history(asked)).horizon for asked in (HistoryQuery(), HistoryQuery(PATIENTS), B)]
            horizon = max(horizons)
            clock.forward(step)
            await write(store, put("Patient/b"), put(f"Patient/{clock.now}"))
            await write(store, put("Observation/o"))
            after = await walk_history(store, HistoryQuery(count=2))
            new = [version for version in after if version not in before]
            assert len(new) >= 3
            assert all(version.last_updated >= horizon for version in new)
            since = await walk_history(store, HistoryQuery(since=horizon))
            assert set(list_labels(new)) <= set(list_labels(since)), "the horizon is a safe `_since`"

    @run_on_store
    async def test_the_horizon_moves_on(self, store: Store, clock: Ticks) -> None:
        """A client that polls with it is not given the whole history again."""
        await fill(store, clock)
        assert (await store.history(HistoryQuery())).horizon > hour(3)

    @run_on_store
    async def test_changes_are_in_commit_order(self, store: Store, clock: Ticks) -> None:
        assert await walk_changes(store) == []
        await fill(store, clock)
        for limit in (1, 2, 3, 8, 1000):
            versions = list_labels(await walk_changes(store, limit=limit))
            position = 0
            made: dict[str, int] = {}
            for writes in TRANSACTIONS:
                expected = []
                for each in writes:
                    reference = f"{each.type}/{each.id}"
                    made[reference] = made.get(reference, 0) + 1
                    expected.append((reference, made[reference]))
                assert sorted(versions[position : position + len(writes)]) == sorted(expected), limit
                position += len(writes)
            assert position == len(versions)

    @run_on_store
    async def test_changes_are_whole_versions(self, store: Store, clock: Ticks) -> None:
        await fill(store, clock)
        versions = await walk_changes(store)
        assert [each.raw is None for each in versions].count(True) == 1
        for version in versions:
            assert version == await store.vread(version.type, version.id, version.version)

    @run_on_store
    async def test_a_token_resumes(self, store: Store, clock: Ticks) -> None:
        start = await store.read_changes(None)
        assert start.versions == ()
        await fill(store, clock)
        assert len(await walk_changes(store, start.token)) == 8
        first = await store.read_changes(None, limit=3)
        assert 0 < len(first.versions) <= 3
        rest = await walk_changes(store, first.token)
        assert [*first.versions, *rest] == await walk_changes(store)
        end = await store.read_changes(first.token)
        assert (await store.read_changes(end.token)).versions == ()
        await write(store, put("Patient/late"), delete("Patient/never"))
        assert list_labels((await store.read_changes(end.token)).versions) == [("Patient/late", 1)]
        assert list_labels((await store.read_changes(end.token)).versions) == [("Patient/late", 1)], (
            "a token may be used again"
        )
