"""What refers to a deleted resource is found by the terms that its sources are searched by (`mongo/referring.py`)."""

from __future__ import annotations

import asyncio
from typing import Any

import hypothesis.strategies as st
import pymongo
import pytest
from hypothesis import given

from fhir_server.store.contract.case import Ticks, delete, put, terms, write
from fhir_server.store.mongo import open_store
from fhir_server.store.mongo.commit import _TARGETS_PER_READ
from fhir_server.store.mongo.documents import build_entry_fields, build_version_id
from fhir_server.store.mongo.referring import CODES, LOOSE, build_sources_pipeline
from fhir_server.store.operations import Transaction
from fhir_server.store.protocol import StillReferenced
from tests.r4 import REGISTRY

TYPES = ("Observation", "Encounter", "Basic")
TARGETS = ("Patient/1", "Patient/2", "Encounter/1")
HELD = st.lists(
    st.sampled_from((*TARGETS, "#1", "https://example.org/Patient/1", "Patient/3")), unique=True, max_size=4
)
CODE = st.sampled_from(("subject", "encounter", "participant", "performer", "code"))


def test_every_code_is_a_reference_parameter_of_its_type() -> None:
    for type, codes in CODES.items():
        for code in codes:
            assert REGISTRY.parameters(type)[code].type == "reference", (type, code)


@given(st.sampled_from(TYPES), st.dictionaries(CODE, HELD), HELD, st.lists(st.sampled_from(TARGETS), min_size=1))
def test_the_terms_tell_what_the_references_are(
    type: str, held: dict[str, list[str]], references: list[str], targets: list[str]
) -> None:
    """The stages of the pipeline by hand: what matches, less what is loose, names the references and nothing else."""
    entries = terms(references, **held)
    stored = build_entry_fields(type, entries)
    wanted = set(build_sources_pipeline(type, targets, ())[0]["$match"]["terms"]["$in"])
    found = wanted.intersection(stored.get("terms", ())) - set(stored.get(LOOSE, ()))
    assert {text.partition("=")[2] for text in found} == set(targets).intersection(references)


def test_a_reference_that_a_parameter_holds_has_no_term_of_its_own() -> None:
    entries = terms(
        ["Patient/p", "Encounter/e", "Device/d"], subject=["Patient/p"], encounter=["Encounter/e"], device=["Device/d"]
    )
    stored = build_entry_fields("Observation", entries)
    assert sorted(stored["terms"]) == ["=Device/d", "device=Device/d", "encounter=Encounter/e", "subject=Patient/p"]
    assert LOOSE not in stored


def test_documents_of_the_first_schema_are_found_too(mongo_uri: str) -> None:
    """They have both terms. One whose parameter holds a version-specific reference alone keeps its target until it is
    indexed anew, as no field says so of it; its text is there as it was."""

    async def body() -> None:
        store = await open_store(mongo_uri, Ticks())
        await write(store, put("Patient/p"), put("Observation/o", terms(["Patient/p"], subject=["Patient/p"])))
        with pymongo.MongoClient[dict[str, Any]](mongo_uri) as client:
            database = client.get_default_database()
            database["Observation"].update_one({"_id": "o"}, {"$push": {"terms": "=Patient/p"}})
            raw = database["Observation"].find_one({"_id": "o"}, {"raw": 1})
            assert raw is not None
            earlier = {"$set": {"raw": raw["raw"]}, "$unset": {"packed": ""}}
            assert database["history"].update_one({"_id": build_version_id("Observation/o", 1)}, earlier).modified_count
            database["meta"].update_one({"_id": "schema"}, {"$set": {"version": 1}})
            await store.close()
            store = await open_store(mongo_uri, Ticks())
            assert database["meta"].find_one({"_id": "schema"}) == {"_id": "schema", "version": 2}
        with pytest.raises(StillReferenced) as refused:
            await store.transact(Transaction((delete("Patient/p"),), released=("Patient/p",)))
        assert refused.value.sources == {"Patient/p": ("Observation/o",)}
        assert await store.vread("Observation", "o", 1) == await store.read("Observation", "o")
        await store.close()

    asyncio.run(body())


def test_of_many_deleted_at_once_each_is_asked_about(mongo_uri: str) -> None:
    """In several commands, none of which is larger than the database takes."""
    names = [f"Patient/{number}" for number in range(2 * _TARGETS_PER_READ + 1)]

    async def body() -> None:
        store = await open_store(mongo_uri, Ticks())
        await write(store, *map(put, names))
        sources = {name: f"Observation/{name[8:]}" for name in (names[0], names[_TARGETS_PER_READ], names[-1])}
        await write(store, *(put(source, terms([name], subject=[name])) for name, source in sources.items()))
        with pytest.raises(StillReferenced) as refused:
            await store.transact(Transaction(tuple(map(delete, names)), released=tuple(names)))
        assert refused.value.sources == {name: (source,) for name, source in sources.items()}
        await store.close()

    asyncio.run(body())


def test_no_command_is_larger_than_the_database_takes() -> None:
    """16 MB, with every type of R4 and ids of 64 letters."""
    targets = [f"MedicinalProductUndesirableEffect/{number:064}" for number in range(_TARGETS_PER_READ)]
    size = sum(len(str(build_sources_pipeline(type, targets, ()))) for type in REGISTRY.types)
    assert size < 16 * 1024 * 1024
