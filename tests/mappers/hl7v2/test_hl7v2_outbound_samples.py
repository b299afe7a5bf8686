"""v2 → FHIR → v2 for every sample of an event that is written: what both directions map is the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from mappers.hl7v2.bundle import build_bundle
from mappers.hl7v2.character_sets import decode_message
from mappers.hl7v2.er7 import Message, parse_message
from mappers.hl7v2.events import PERSON
from mappers.hl7v2.mapping import find_event, map_message
from mappers.hl7v2.outbound.message import EVENTS, Written
from mappers.hl7v2.partner import Partner
from tests.mappers.hl7v2.outbound_trips import RECEIVER, Resource, find_lost, read_back, write

PARTNER = Partner(processing=frozenset({"P", "T", "D", ""}))
FOCUS = {"ADT": ("Encounter", "Patient"), "SIU": ("Appointment",), "ORU": ("DiagnosticReport",), "DFT": ("ChargeItem",)}
FOCUS |= {"RDE": ("MedicationRequest",), "OMP": ("MedicationRequest",)}

MENTIONED = frozenset({"Practitioner", "PractitionerRole", "Organization", "Location", "Device"})
NOT_SENT = frozenset({"Provenance", "Schedule", "Slot"})

# The narrative is not sent; a visit without a class is `UNK` inbound and HL70004 `U` outbound.
ACCEPTED = frozenset({"Encounter.text.status", "Encounter.class.system", "Encounter.class.code"})

SAME = {
    "PID": ("3", "5", "5.2", "8", "15", "16", "17", "25"),
    "PD1": ("4",),
    "NK1": ("2", "3"),
    "PV1": ("2", "7", "10", "19", "36", "44", "45"),
    "PV2": ("3",),
    "DG1": ("3", "6"),
    "IN1": ("2", "3", "8", "12", "13", "17"),
    "GT1": ("3",),
    "SCH": ("1", "2", "7", "8", "25"),
    "AIS": ("3",),
    "AIL": ("3.1",),
    "AIP": ("3",),
    "OBR": ("4", "7", "16", "24", "25"),
    "OBX": ("3", "8", "11", "14"),
    "SPM": ("4",),
    "RXE": ("2", "3", "6", "10", "12", "23", "25"),
    "RXR": ("2", "4"),
}
"""Fields whose first component, or the one that is named, is the same text in both messages."""

EXPLAINED = {
    (
        "orur01_oru_r01-full.hl7",
        "OBR-7",
    ): "without an offset, of a zone that is not the receiver's: sent with its offset",
    ("ADT04-23.hl7", "PID-25"): "a birth order of 0 is left out inbound",
    ("cx_cx-identifier-system-uuid-no-cx-4-1.hl7", "OBR-25"): "`unknown` is no code of HL70123",
    ("cx_cx-identifier-system-uuid-no-cx-4-2.hl7", "OBR-25"): "`unknown` is no code of HL70123",
    ("cx_cx-identifier-system-uuid.hl7", "OBR-25"): "`unknown` is no code of HL70123",
}


class Trip(NamedTuple):
    """A sample, what we made of it, what we wrote of that, and the first segment of each name of both."""

    name: str
    message: Message
    resources: list[Resource]
    written: Written
    back: Message


def read(path: Path) -> Message:
    message = parse_message(decode_message(path.read_bytes()).text or "").message
    assert message
    return message


def list_trips(shared: Path) -> Iterator[Trip]:
    """The samples that have a resource to write about; 55 results have no OBR and so no report."""
    for path in sorted((shared / "data" / "hl7v2").rglob("*.hl7")):
        message = read(path)
        family, event = find_event(message)
        if event not in EVENTS.get(family, ()):
            continue
        bundle = build_bundle(map_message(message, PARTNER)).bundle or {}
        entries = [
            {**each, "resource": {**each["resource"], "id": each["fullUrl"][-12:]}} for each in bundle.get("entry", [])
        ]
        kinds = [(kind, each) for kind in FOCUS[family] for each in entries if each["resource"]["resourceType"] == kind]
        if not kinds:
            continue
        receiver = replace(RECEIVER, partner=PARTNER, version=message.header.text(12))
        written = write(f"{family}^{event}", kinds[0][1]["fullUrl"], entries, receiver)
        back = parse_message(written.text).message
        assert back, (path.name, written.issues)
        yield Trip(path.name, message, [each["resource"] for each in entries], written, back)


@pytest.fixture(scope="module")
def trips(shared: Path) -> list[Trip]:
    found = list(list_trips(shared))
    assert len(found) >= 60
    return found


def test_what_we_made_of_a_sample_is_the_same_after_it_was_sent_and_read_again(trips: list[Trip]) -> None:
    lost: Counter[tuple[str, str]] = Counter()
    for trip in trips:
        back = read_back(trip.written.text, PARTNER)
        for resource in trip.resources:
            kind = resource["resourceType"]
            unused = any(issue.text.startswith(f"{kind}/{resource['id']} is not part") for issue in trip.written.issues)
            if kind not in MENTIONED | NOT_SENT and not unused:
                leaves = find_lost(resource, trip.written, back)
                lost.update((trip.name, path) for path, _ in leaves if path not in ACCEPTED)
    assert lost == Counter()


def test_fields_that_both_directions_map_are_the_same(trips: list[Trip]) -> None:
    differences: dict[tuple[str, str], tuple[str, str]] = {}
    compared: Counter[str] = Counter()
    for trip in trips:
        for segment, place in ((segment, place) for segment, places in SAME.items() for place in places):
            field = f"{segment}-{place}"
            number, _, component = place.partition(".")
            theirs = trip.message.segment(segment).text(int(number), int(component or 1))
            ours = trip.back.segment(segment)
            of_person = segment == "PV1" and find_event(trip.message)[1] in PERSON
            if not theirs or not ours.values or of_person:
                continue
            compared[field] += 1
            if (own := ours.text(int(number), int(component or 1))) != theirs:
                differences[trip.name, field] = (theirs, own)
    assert set(differences) == set(EXPLAINED), differences
    assert compared.total() >= 350
