"""Contract: references checked on the state after the whole transaction (https://hl7.org/fhir/R4/http.html#delete)."""

from __future__ import annotations

import pytest

from fhir_server.store.checks import SOURCES_SHOWN
from fhir_server.store.contract.case import Case, Ticks, delete, put, run_on_store, terms, write
from fhir_server.store.operations import Transaction, Write
from fhir_server.store.protocol import StillReferenced, Store, TargetsMissing

EXEMPT = frozenset({"AuditEvent", "Provenance"})


def refer(source: str, *targets: str) -> Write:
    """An update of `source` that refers to the targets."""
    return put(source, terms(references=targets))


async def missing(store: Store, *writes: Write, required: tuple[str, ...]) -> set[str]:
    """What TargetsMissing names."""
    with pytest.raises(TargetsMissing) as failure:
        await store.transact(Transaction(writes, required=required))
    return set(failure.value.references)


async def sources(store: Store, *writes: Write, exempt: frozenset[str] = EXEMPT) -> dict[str, set[str]]:
    """What StillReferenced names when all that is deleted is released."""
    released = tuple(f"{each.type}/{each.id}" for each in writes if each.content is None)
    with pytest.raises(StillReferenced) as failure:
        await store.transact(Transaction(writes, released=released, exempt=exempt))
    return {target: set(found) for target, found in failure.value.sources.items()}


async def write_released(store: Store, *writes: Write, exempt: frozenset[str] = EXEMPT) -> None:
    """A transaction that releases all it deletes and must succeed."""
    targets = tuple(f"{each.type}/{each.id}" for each in writes if each.content is None)
    committed = await write(store, *writes, released=targets, exempt=exempt)
    assert all(each.version for each in committed.written)


class IntegrityContract(Case):
    """`required`, `released`, `exempt`."""

    @run_on_store
    async def test_required_targets_exist_after_the_writes(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/here"), put("Patient/gone"), put("Patient/leaving"))
        await write(store, delete("Patient/gone"))
        source = refer("Observation/o", "Patient/here")
        never = await missing(store, source, required=("Patient/here", "Patient/never", "Observation/here"))
        assert never == {"Patient/never", "Observation/here"}
        assert await missing(store, source, required=("Patient/gone", "Patient/gone")) == {"Patient/gone"}
        leaving = await missing(store, source, delete("Patient/leaving"), required=("Patient/leaving",))
        assert leaving == {"Patient/leaving"}
        assert await store.read("Observation", "o") is None
        await write(store, source, required=("Patient/here", "Patient/here"))

    @run_on_store
    async def test_required_targets_may_be_made_in_the_same_transaction(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/gone"))
        await write(store, delete("Patient/gone"))
        await write(
            store,
            refer("Observation/o", "Patient/new", "Patient/gone"),
            put("Patient/new"),
            put("Patient/gone"),
            required=("Patient/new", "Patient/gone"),
        )
        await write(store, refer("Patient/self", "Patient/self"), required=("Patient/self",))

    @run_on_store
    async def test_a_referenced_resource_is_not_released(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/p"), put("Patient/q"), put("Patient/free"))
        await write(store, refer("Observation/1", "Patient/p"), refer("Encounter/1", "Patient/p", "Patient/q"))
        found = await sources(store, delete("Patient/p"), delete("Patient/free"))
        assert set(found) == {"Patient/p"}
        assert found["Patient/p"] and found["Patient/p"] <= {"Observation/1", "Encounter/1"}
        assert await sources(store, delete("Patient/q")) == {"Patient/q": {"Encounter/1"}}
        both = await sources(store, delete("Patient/p"), delete("Patient/q"))
        assert set(both) == {"Patient/p", "Patient/q"}
        free = await store.read("Patient", "free")
        assert free is not None and free.version == 1
        await write_released(store, delete("Patient/free"))

    @run_on_store
    async def test_a_source_made_in_the_same_transaction_counts(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/p"), put("Observation/o"))
        found = await sources(store, refer("Observation/new", "Patient/p"), delete("Patient/p"))
        assert found == {"Patient/p": {"Observation/new"}}
        assert await sources(store, delete("Patient/p"), refer("Observation/o", "Patient/p")) == {
            "Patient/p": {"Observation/o"}
        }

    @run_on_store
    async def test_a_source_that_lets_go_in_the_same_transaction_does_not(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/p"), put("Patient/q"))
        await write(store, refer("Observation/1", "Patient/p"), refer("Observation/2", "Patient/p"))
        await write_released(store, delete("Patient/p"), delete("Observation/1"), refer("Observation/2", "Patient/q"))
        assert await sources(store, delete("Patient/q")) == {"Patient/q": {"Observation/2"}}

    @run_on_store
    async def test_what_a_parameter_holds_is_no_reference_by_itself(self, store: Store, clock: Ticks) -> None:
        """A version-specific reference is found by its parameter, and its target may go."""
        await write(store, put("Patient/p"), put("Patient/q"), put("Encounter/e"))
        loose = terms(subject=["Patient/p"], encounter=["Encounter/e"], references=["Encounter/e"])
        held = terms(subject=["Patient/q"], encounter=["Encounter/e"], references=["Encounter/e", "Patient/q"])
        both = terms(subject=["Patient/p", "Patient/q"], references=["Patient/q"])
        await write(store, *(put(f"Observation/{n:02}", loose) for n in range(2 * SOURCES_SHOWN)))
        await write(store, put("Observation/held", held), put("Observation/two", both))
        found = await sources(store, delete("Patient/p"), delete("Patient/q"))
        assert found == {"Patient/q": {"Observation/held", "Observation/two"}}
        assert set(await sources(store, delete("Patient/p"), delete("Encounter/e"))) == {"Encounter/e"}
        await write_released(store, delete("Patient/p"))
        await write(
            store, put("Patient/p"), put("Observation/zz", terms(subject=["Patient/p"], references=["Patient/p"]))
        )
        assert await sources(store, delete("Patient/p")) == {"Patient/p": {"Observation/zz"}}

    @run_on_store
    async def test_only_current_versions_refer(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/p"))
        await write(store, refer("Observation/1", "Patient/p"), refer("Observation/2", "Patient/p"))
        await write(store, put("Observation/1"), delete("Observation/2"))
        await write_released(store, delete("Patient/p"))

    @run_on_store
    async def test_self_references_and_circles_are_released(self, store: Store, clock: Ticks) -> None:
        await write(store, refer("Patient/self", "Patient/self"))
        await write_released(store, delete("Patient/self"))
        await write(store, refer("Patient/a", "Patient/b"), refer("Patient/b", "Patient/a"))
        assert await sources(store, delete("Patient/a")) == {"Patient/a": {"Patient/b"}}
        await write_released(store, delete("Patient/a"), delete("Patient/b"))

    @run_on_store
    async def test_exempt_types_do_not_hold(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/p"), put("Patient/q"))
        await write(store, refer("Provenance/1", "Patient/p", "Patient/q"), refer("AuditEvent/1", "Patient/p"))
        await write(store, refer("Observation/1", "Patient/q"))
        assert await sources(store, delete("Patient/q")) == {"Patient/q": {"Observation/1"}}
        assert await sources(store, delete("Patient/p"), exempt=frozenset({"AuditEvent"})) == {
            "Patient/p": {"Provenance/1"}
        }
        await write_released(store, delete("Patient/p"))

    @run_on_store
    async def test_without_released_a_delete_is_not_checked(self, store: Store, clock: Ticks) -> None:
        await write(store, put("Patient/p"), refer("Observation/1", "Patient/p"))
        (written,) = (await write(store, delete("Patient/p"))).written
        assert written.version == 2
