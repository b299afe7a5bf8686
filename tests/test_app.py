"""What the composition root makes by itself."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import pytest

from fhir_server.app import Knowledge, hide_secrets, open_server, read_served_types
from fhir_server.fhir import definitions
from fhir_server.requests.ids import make_id_source
from fhir_server.settings import Settings


def test_ids_are_uuids_of_version_7_in_the_order_of_their_making() -> None:
    times = iter([1_700_000_000_123_000] * 5000 + [1_700_000_000_122_000, 1_700_000_000_124_000])
    new_id = make_id_source(lambda: next(times))
    made = [new_id() for _ in range(5002)]
    assert made == sorted(made)
    assert len(set(made)) == 5002
    first = uuid.UUID(made[0])
    assert (first.version, first.variant) == (7, uuid.RFC_4122)
    assert first.int >> 80 == 1_700_000_000_123  # RFC 9562, 5.7: the first 48 bits are milliseconds since 1970
    assert uuid.UUID(made[4999]).version == 7


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("mongodb://user:p@ss@one:27017,two/clinic", "mongodb://one:27017,two/clinic"),
        ("mongodb://user:ge/heim@host/clinic?authSource=admin", "mongodb://host/clinic"),
        ("mongodb+srv://user@host/clinic?tlsCertificateKeyFilePassword=geheim", "mongodb+srv://host/clinic"),
        ("mongodb://host/clinic?authMechanismProperties=AWS_SESSION_TOKEN:ge@heim", "mongodb://…"),
        ("mongodb://user:ge?heim@host/clinic", "mongodb://…"),
        ("sqlite:///me@home/fhir.db", "sqlite:///me@home/fhir.db"),
        ("memory://", "memory://"),
    ],
)
def test_store_uris_are_shown_without_their_secrets(uri: str, shown: str) -> None:
    assert hide_secrets(uri) == shown


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "cannot be read: No such file"),
        ("{oops", "is not JSON"),
        ("[]", "an object with `resourceTypes` alone"),
        ('{"resourceTypes": "Patient"}', "a list of names"),
        ('{"resourceTypes": [1]}', "a list of names"),
        ('{"resourceTypes": []}', "a list of names"),
        ('{"resourceType": ["Patient"]}', "an object with `resourceTypes` alone"),
        ('{"resourceTypes": ["Patients"]}', "lists Patients, which R4 does not have"),
    ],
)
def test_a_capability_file_that_says_nothing_possible_stops_the_start(
    tmp_path: Path, text: str | None, says: str
) -> None:
    path = tmp_path / "capability.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(says)):
        read_served_types(Settings(capability=str(path)), definitions.load())


def test_types_of_the_capability_file(tmp_path: Path) -> None:
    path = tmp_path / "capability.json"
    path.write_text('{"resourceTypes": ["Slot", "Patient", "Slot"]}')
    assert read_served_types(Settings(capability=str(path)), definitions.load()) == ("Patient", "Slot")


@pytest.mark.anyio
async def test_a_folder_of_profiles_that_is_not_there_stops_the_start(known: Knowledge, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="correct the setting `FHIR_PROFILES`"):
        async with open_server(Settings(store="memory://", profiles=str(tmp_path / "nowhere")), known=known):
            pass
