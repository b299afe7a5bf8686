"""Contract: versions, deletion, text and time of single writes (https://hl7.org/fhir/R4/http.html#update)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from fhir_server.search.query import EVERYTHING
from fhir_server.store.contract.case import (
    HOUR,
    MILLISECOND,
    START,
    Case,
    Ticks,
    content,
    delete,
    ids,
    post,
    put,
    run_on_store,
    write,
)
from fhir_server.store.operations import Write, Written
from fhir_server.store.protocol import HistoryQuery, Store, Stored


def expected_raw(reference: str, text: str, version: int, last_updated: int) -> bytes:
    """The text that `put(reference, text=text)` is stored as: see `operations.Content`."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=last_updated)
    instant = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    around = content(reference, text)
    return around.head + f'"versionId":"{version}","lastUpdated":"{instant}"'.encode() + around.tail


class WriteContract(Case):
    """Single writes and what is read after them."""

    @run_on_store
    async def test_create_is_read_back(self, store: Store, clock: Ticks) -> None:
        committed = await write(store, post("Patient/a", text="ä"))
        assert committed.written == (Written("Patient", "a", 1, START, True),)
        raw = expected_raw("Patient/a", "ä", 1, START)
        assert b'"versionId":"1","lastUpdated":"2026-11-23T08:00:00.000Z"' in raw
        assert await store.read("Patient", "a") == Stored("Patient", "a", 1, START, "POST", raw)
        assert committed.found == () and committed.pages == ()

    @run_on_store
    async def test_absent_is_none(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/a"))
        assert await store.read("Patient", "b") is None
        assert await store.read("Observation", "a") is None
        assert await store.read("Patient", "A") is None, "ids are case-sensitive"
        assert await store.vread("Patient", "b", 1) is None

    @run_on_store
    async def test_the_same_id_in_two_types_is_two_resources(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/a"), put("Observation/a"))
        await write(store, put("Patient/a"))
        observation = await store.read("Observation", "a")
        assert observation is not None and observation.version == 1

    @run_on_store
    async def test_versions_go_up_by_one_and_stay_readable(self, store: Store, clock: Ticks) -> None:
        made = []
        for number in (1, 2, 3):
            clock.forward(HOUR)
            (written,) = (await write(store, put("Patient/a", text=f"v{number}"))).written
            assert (written.version, written.created) == (number, number == 1)
            assert written.last_updated == clock.now
            made.append(written)
        for written in made:
            version = await store.vread("Patient", "a", written.version)
            raw = expected_raw("Patient/a", f"v{written.version}", written.version, written.last_updated)
            assert version == Stored("Patient", "a", written.version, written.last_updated, "PUT", raw)
        assert await store.read("Patient", "a") == await store.vread("Patient", "a", 3)
        assert await store.vread("Patient", "a", 0) is None
        assert await store.vread("Patient", "a", 4) is None
        assert await store.vread("Patient", "a", -1) is None

    @run_on_store
    async def test_methods_are_kept(self, store: Store, clock: Ticks) -> None:
        await write(store, post("Patient/a"))
        await write(store, put("Patient/a"))
        await write(store, Write("PATCH", "Patient", "a", content("Patient/a")))
        await write(store, delete("Patient/a"))
        history = await store.history(HistoryQuery(("Patient",), "a"))
        assert [version.method for version in history.versions] == ["DELETE", "PATCH", "PUT", "POST"]

    @run_on_store
    async def test_a_deletion_is_a_version_without_text(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/a"))
        (written,) = (await write(store, delete("Patient/a"))).written
        assert written == Written("Patient", "a", 2, START + MILLISECOND, False)
        deletion = Stored("Patient", "a", 2, START + MILLISECOND, "DELETE", None)
        assert await store.read("Patient", "a") == deletion
        assert await store.vread("Patient", "a", 2) == deletion
        first = await store.vread("Patient", "a", 1)
        assert first is not None and first.raw == expected_raw("Patient/a", "", 1, START)
        assert await ids(store, "Patient", EVERYTHING) == []

    @run_on_store
    async def test_a_put_after_a_deletion_goes_on_counting(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/a"))
        await write(store, delete("Patient/a"))
        (written,) = (await write(store, put("Patient/a", text="again"))).written
        assert (written.version, written.created) == (3, True)
        current = await store.read("Patient", "a")
        assert current is not None
        assert current.raw == expected_raw("Patient/a", "again", 3, written.last_updated)
        assert await ids(store, "Patient", EVERYTHING) == ["a"]

    @run_on_store
    async def test_deleting_what_is_absent_or_deleted_writes_nothing(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/gone"))
        await write(store, delete("Patient/gone"))
        written = (await write(store, delete("Patient/gone"), put("Patient/b"), delete("Patient/never"))).written
        assert [(each.id, each.version) for each in written] == [("gone", 0), ("b", 1), ("never", 0)]
        assert await store.read("Patient", "never") is None
        gone = await store.read("Patient", "gone")
        assert gone is not None and gone.version == 2
        versions = (await store.history(HistoryQuery())).versions
        assert sorted((each.id, each.version) for each in versions) == [("b", 1), ("gone", 1), ("gone", 2)]
        assert [each.id for each in (await store.read_changes(None)).versions] == ["gone", "gone", "b"]

    @run_on_store
    async def test_an_empty_transaction_does_nothing(self, store: Store, clock: Ticks) -> None:
        assert (await write(store)).written == ()
        assert (await store.history(HistoryQuery())).versions == ()

    @run_on_store
    async def test_last_updated_is_whole_milliseconds(self, store: Store, clock: Ticks) -> None:
        clock.forward(1999)
        (written,) = (await write(store, put("Patient/a"))).written
        assert written.last_updated == START + MILLISECOND
        current = await store.read("Patient", "a")
        assert current is not None and current.raw is not None
        assert b'"lastUpdated":"2026-11-23T08:00:00.001Z"' in current.raw

    @run_on_store
    async def test_last_updated_rises_when_the_clock_stands_or_goes_back(self, store: Store, clock: Ticks) -> None:
        times = []
        for step in (0, 0, -HOUR, -HOUR, 0, 10 * HOUR):
            clock.forward(step)
            (written,) = (await write(store, put("Patient/a"))).written
            times.append(written.last_updated)
        assert all(earlier < later for earlier, later in pairwise(times))
        assert all(time % MILLISECOND == 0 for time in times)
        assert times[-1] == clock.now
        assert times[-2] < START + HOUR

    @run_on_store
    async def test_written_is_in_the_order_of_the_writes(self, store: Store, clock: Ticks) -> None:
        order = ["Patient/c", "Observation/z", "Patient/a", "Observation/b"]
        written = (await write(store, *map(put, order))).written
        assert [f"{each.type}/{each.id}" for each in written] == order

    @run_on_store
    async def test_a_large_text_comes_back_whole(self, store: Store, clock: Ticks) -> None:
        text = "\N{HOSPITAL}x" * 400_000
        await write(store, put("Binary/big", text=text))
        current = await store.read("Binary", "big")
        assert current is not None and current.raw == expected_raw("Binary/big", text, 1, START)

    @run_on_store
    async def test_many_writes_in_one_transaction(self, store: Store, clock: Ticks) -> None:
        committed = await write(store, *(put(f"Patient/{number}") for number in range(2000)))
        assert all(each.version == 1 and each.created for each in committed.written)
        assert len(await store.read_many(f"Patient/{number}" for number in range(2000))) == 2000

    @run_on_store
    async def test_read_many_gives_the_current_ones(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/a"), put("Patient/gone"), put("Observation/a"), put("Patient/other"))
        await write(store, put("Patient/a", text="v2"), delete("Patient/gone"))
        asked = ["Observation/a", "Patient/a", "Patient/never", "Patient/gone", "Patient/a", "http://x.org/Patient/a"]
        found = await store.read_many(iter(asked))
        assert set(found) == {"Observation/a", "Patient/a"}
        assert found["Patient/a"] == await store.read("Patient", "a")
        assert found["Patient/a"].version == 2
        assert await store.read_many([]) == {}
        with_deletions = await store.read_many(asked, deletions=True)
        assert set(with_deletions) == {"Observation/a", "Patient/a", "Patient/gone"}
        assert with_deletions["Patient/gone"] == await store.read("Patient", "gone")
