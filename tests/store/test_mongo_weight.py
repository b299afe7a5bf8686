"""What a resource weighs in MongoDB: index keys and bytes of documents (docs/deployment/mongodb.md, Size).

Counted over the Synthea set: a key for each term and number, two for each date and for each sort that has keys (an
index begins with either end, and goes in either direction), and six of ids and times: in the collection of the type
`_id` and two by time, in `history` `_id` and two.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import bson
import orjson
import pytest
from bson import ObjectId

from fhir_server.app import Knowledge
from fhir_server.search.sorts import SORTS
from fhir_server.store.mongo.documents import build_documents
from fhir_server.store.mongo.indexes import FIXED_INDEXES, HISTORY, TYPE_INDEXES
from fhir_server.store.mongo.sortkeys import COMPUTED, list_sorts
from fhir_server.store.operations import Content, Write
from fhir_server.store.protocol import Stored
from tests.conftest import serving
from tests.shared import shared_path

pytestmark = pytest.mark.anyio

STAMP = {"versionId": "1", "lastUpdated": "2026-11-23T08:00:00.000Z"}

MOST_KEYS, MOST_BYTES = 25.0, 2.4
"""Keys of a created resource, and bytes of documents for a byte of its text.

They were 37.3 and 3.36 with every declared sort; 28.2 and 2.97 before references had one term each, the whole system's
history no index of its own, and the texts in `history` were packed.
"""


def test_what_is_computed_is_by_codes(known: Knowledge) -> None:
    """Or by a date that few resources have; and dates and texts are kept, by which people look through a whole type."""
    types = {
        (type, code): known.registry.parameters(type)[code].type for type, codes in SORTS.items() for code in codes
    }
    rare = {"location-period", "value-date"}
    assert {code for (_, code), kind in types.items() if kind == "token"} | rare == COMPUTED
    kept = {types[type, code] for type in SORTS for code in list_sorts(type)}
    assert kept == {"date", "string"}


def _read_synthea() -> Iterator[dict[str, Any]]:
    for path in sorted(shared_path("data/synthea").glob("*.json")):
        text = path.read_text()
        for entry in json.loads(text)["entry"]:
            resource = entry["resource"]
            text = text.replace(f'"{entry["fullUrl"]}"', f'"{resource["resourceType"]}/{resource["id"]}"')
        for entry in json.loads(text)["entry"]:
            tree = entry["resource"]
            yield tree | {"meta": tree.get("meta", {}) | STAMP}


@pytest.mark.long
async def test_keys_and_bytes_of_a_resource(known: Knowledge) -> None:
    fixed = sum(index.keys[0][0] in ("live", "updated") for index in TYPE_INDEXES) + len(FIXED_INDEXES[HISTORY]) + 2
    assert fixed == 6
    total: Counter[str] = Counter()
    async with serving(known, store="memory://") as client:
        index = client.server.context.index
        for tree in _read_synthea():
            type, id, raw = tree["resourceType"], tree["id"], orjson.dumps(tree)
            made = Write("PUT", type, id, Content(raw, b""), index.make_entries(type, tree))
            documents = build_documents(Stored(type, id, 1, 1, "PUT", raw), 1, ObjectId(), made)
            current = documents[0]
            total["resources"] += 1
            total["text"] += len(raw)
            total["bytes"] += sum(len(bson.encode(document)) for document in documents)
            total["keys"] += len(current.get("terms", ())) + len(current.get("numbers", ())) + fixed
            total["keys"] += 2 * (len(current.get("dates", ())) + len(list_sorts(type)))
    assert total["keys"] / total["resources"] < MOST_KEYS
    assert total["bytes"] / total["text"] < MOST_BYTES
