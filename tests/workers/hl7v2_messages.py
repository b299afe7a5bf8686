"""HL7 v2 messages and a partner for tests of the server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fhir_server.partners import Partner
from fhir_server.workers.hl7v2_intake import take_message
from fhir_server.workers.messages import Received
from tests.conftest import Client

MRN = "urn:oid:1.2.3.4"
BASE = "http://test/fhir"


def choose_store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of an empty store of the kind that a fixture's parameter names."""
    uris: dict[str, Callable[[], str]] = {
        "memory": lambda: "memory://",
        "sqlite": lambda: f"sqlite:///{tmp_path}/fhir.db",
        "mongo": lambda: request.getfixturevalue("new_mongo_uri")(),
    }
    return uris[request.param]()


def north(facility: str = "NORTH", system: str = MRN, translations: Any = None, **section: Any) -> Partner:
    """The partner `north` or one of another facility: sends as EHR, and numbers its patients as MRN."""
    return Partner.model_validate(
        {
            "name": facility.lower(),
            "formats": ["hl7v2"],
            "zone": "America/Chicago",
            "systems": {"MRN": system},
            "default_authority": "MRN",
            "translations": translations or {},
            "hl7v2": {"senders": [{"application": "EHR", "facility": facility}], **section},
        }
    )


def with_partners(client: Client, *partners: Partner) -> None:
    """Let the server know these partners alone."""
    context = replace(client.server.context, partners={each.name: each for each in partners}, snapshots={})
    client.server = replace(client.server, context=context)


def msh(event: str, control: str = "C1", time: str = "20240305120000-0600", **fields: str) -> str:
    """An MSH of the partner `north`; `f5="PMS"` sets a field."""
    values = {"f3": "EHR", "f4": "NORTH", "f5": "PMS", "f6": "P", "f7": time, "f9": event, "f10": control, "f11": "P"}
    values |= {"f12": "2.5.1", **fields}
    last = max(int(name[1:]) for name in values)
    return "MSH|^~\\&|" + "|".join(values.get(f"f{number}", "") for number in range(3, last + 1)) + "\r"


def segment(name: str, **fields: str) -> str:
    """A segment with fields by their number, `f13="555"`."""
    last = max(int(each[1:]) for each in fields)
    return f"{name}|" + "|".join(fields.get(f"f{number}", "") for number in range(1, last + 1)) + "\r"


def pid(number: str = "123", **fields: str) -> str:
    """A PID of a patient by number."""
    return segment("PID", **{"f1": "1", "f3": f"{number}^^^MRN^MR", "f5": "QUILL^ADA^^^^^L", **fields})


def visit(number: str, **fields: str) -> str:
    """A PV1 of an outpatient visit by number."""
    return segment("PV1", **{"f1": "1", "f2": "O", "f19": f"{number}^^^VISITS", **fields})


async def take(client: Client, text: str | bytes, partner: str = "") -> Received:
    raw = text.encode() if isinstance(text, str) else text
    return await take_message(client.server.context, BASE, raw, partner)


def code(received: Received) -> str:
    """MSA-1 of the first acknowledgement."""
    return read_codes(received.acknowledgement)[0]


def read_codes(acknowledgement: bytes) -> list[str]:
    """MSA-1 of each acknowledgement."""
    lines = acknowledgement.decode().split("\r")
    return [line.split("|")[1] for line in lines if line.startswith("MSA")]


async def resources(client: Client, query: str) -> list[dict[str, Any]]:
    """The resources that a search finds."""
    answer = await client.fhir("GET", f"{query}{'&' if '?' in query else '?'}_count=500")
    assert answer.status_code == 200, answer.text
    return [entry["resource"] for entry in answer.json().get("entry", ())]
