"""A trip FHIR → v2 → FHIR: every leaf that the writer did not tell as left out has to come back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fhir_server.fhir.urls import BASE
from mappers.hl7v2.bundle import build_bundle
from mappers.hl7v2.er7 import parse_message
from mappers.hl7v2.issues import has_errors
from mappers.hl7v2.mapping import map_message
from mappers.hl7v2.outbound.message import Written, write_event
from mappers.hl7v2.outbound.receiver import Envelope, Receiver
from mappers.hl7v2.partner import Partner

Resource = dict[str, Any]

ROOT = "https://example.org/north"
PARTNER = Partner(
    name="north",
    root=ROOT,
    zone="America/New_York",
    authorities={"MRN": "https://clinic.example/mrn", "STAFF": "https://clinic.example/staff"},
)
RECEIVER = Receiver(PARTNER, ("PMS", "CLINIC"), ("EHR", "NORTH"))
ENVELOPE = Envelope("M1", datetime(2026, 4, 14, 15, tzinfo=UTC))
EXAMPLES = Path(__file__).resolve().parents[3] / "examples"

NOT_COMPARED = frozenset({"id", "meta", "resourceType", "reference", "display", "div"})
"""Ids and references are the server's; the text of a code that is translated is that of the table."""


def read_clinic() -> list[Resource]:
    """The resources of the sample clinic, as entries."""
    entries: list[Resource] = []
    for path in sorted(EXAMPLES.glob("?-*.json")):
        entries += json.loads(path.read_text(encoding="utf-8"))["entry"]
    return entries


def write(event: str, focus: str, resources: list[Resource], receiver: Receiver = RECEIVER) -> Written:
    name, _, code = event.partition("^")
    return write_event((name, code), focus, resources, receiver, ENVELOPE)


def read_back(text: str, partner: Partner = PARTNER) -> list[Resource]:
    """What our inbound mapper makes of a message, which it must accept."""
    message = parse_message(text).message
    assert message is not None
    mapping = map_message(message, partner, ENVELOPE.clock)
    assert not has_errors(mapping.issues), mapping.issues
    built = build_bundle(mapping)
    assert built.bundle is not None
    return [entry["resource"] for entry in built.bundle["entry"]]


def list_leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Paths without numbers of entries, each with its value as text; a moment as an instant."""
    if isinstance(value, list):
        for each in value:
            yield from list_leaves(each, path)
    elif isinstance(value, dict):
        if str(value.get("url", "")).startswith(f"{BASE}/StructureDefinition/hl7v2-"):
            return
        if "url" in value:
            path = f"{path}({value['url']})"
        for name, each in value.items():
            if name not in NOT_COMPARED and name != "url":
                yield from list_leaves(each, f"{path}.{name}")
    else:
        yield path, write_leaf(value)


def write_leaf(value: Any) -> str:
    text = str(value)
    if "T" in text and text[:4].isdigit():
        try:
            return datetime.fromisoformat(text).astimezone(UTC).isoformat()
        except ValueError:
            return text
    return text


def find_told(written: Written, name: str) -> list[str]:
    """The paths of a resource that the issues name."""
    marker = f" of {name} has no place"
    return [issue.text.partition(marker)[0] for issue in written.issues if marker in issue.text]


def find_lost(resource: Resource, written: Written, back: list[Resource]) -> list[tuple[str, str]]:
    """Leaves that are neither told as left out nor there in one of the resources that came back."""
    kind = resource["resourceType"]
    told = [join_extension(path) for path in find_told(written, f"{kind}/{resource.get('id', '')}")]
    own = {**resource, "identifier": [each for each in resource.get("identifier", []) if not is_derived(each)]}
    mine = [leaf for leaf in list_leaves(own, kind) if not is_told(join_extension(leaf[0]), told)]
    candidates = [set(list_leaves(each, kind)) for each in back if each["resourceType"] == kind]
    lost = [[leaf for leaf in mine if leaf not in candidate] for candidate in candidates]
    return min(lost, key=len, default=mine)


def join_extension(path: str) -> str:
    return path.replace(".extension(", "(")


def is_told(leaf: str, told: list[str]) -> bool:
    return any(leaf == path or leaf.startswith((f"{path}.", f"{path}(")) for path in told)


def is_derived(identifier: Resource) -> bool:
    """What the inbound mapper made for what has no number: 36 characters, a UUID."""
    return len(str(identifier.get("value", ""))) == 36
