"""What the composition root makes by itself."""

from __future__ import annotations

import uuid

from fhir_server.app import id_source, without_password


def test_ids_are_uuids_of_version_7_in_the_order_of_their_making() -> None:
    times = iter([1_700_000_000_123_000] * 5000 + [1_700_000_000_122_000, 1_700_000_000_124_000])
    new_id = id_source(lambda: next(times))
    made = [new_id() for _ in range(5002)]
    assert made == sorted(made)
    assert len(set(made)) == 5002
    first = uuid.UUID(made[0])
    assert (first.version, first.variant) == (7, uuid.RFC_4122)
    assert first.int >> 80 == 1_700_000_000_123  # RFC 9562, 5.7: the first 48 bits are milliseconds since 1970
    assert uuid.UUID(made[4999]).version == 7


def test_store_uris_are_shown_without_their_password() -> None:
    assert without_password("mongodb://user:p@ss@host:27017/clinic") == "mongodb://host:27017/clinic"
    assert without_password("sqlite:///fhir.db") == "sqlite:///fhir.db"
