"""FHIR → v2: messages worked out by hand from the tables of the standard, and trips there and back."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_server.fhir.urls import extension_url
from mappers.hl7v2.datatypes import CONVERSIONS
from mappers.hl7v2.er7 import parse_message
from mappers.hl7v2.mapping import map_message
from mappers.hl7v2.outbound.fields import REVERSE, read_outbound
from mappers.hl7v2.outbound.message import EVENTS
from mappers.hl7v2.partner import Target
from mappers.hl7v2.rows import read_rows
from mappers.hl7v2.vocabulary import TERMINOLOGY
from tests.mappers.hl7v2.outbound_trips import (
    ENVELOPE,
    PARTNER,
    RECEIVER,
    Resource,
    find_lost,
    read_back,
    read_clinic,
    write,
)

EXPECTED = Path(__file__).parent / "expected"
DOCS = Path(__file__).resolve().parents[3] / "docs"

ALWAYS_MEANT = frozenset({"Patient.active", "RelatedPerson.active"})
"""Leaves that neither direction says: an active resource is what is sent."""

NOT_AS_NEEDED = ("MedicationRequest.dosageInstruction.asNeededBoolean", "False")
"""Without PRN a drug is not taken as needed."""

MENTIONED = frozenset({"Practitioner", "PractitionerRole", "Organization", "Location"})
"""What a message names by number and name; the insured who is a Patient of their own is named so too."""

MESSAGES = [
    ("ADT^A04", "Encounter/visit"),
    ("ADT^A40", "Patient/ada"),
    ("SIU^S12", "Appointment/booking"),
    ("ORU^R01", "DiagnosticReport/panel"),
    ("DFT^P03", "Encounter/visit"),
    ("RDE^O11", "MedicationRequest/rx"),
    ("OMP^O09", "MedicationRequest/infusion"),
]


@cache
def read_resources() -> list[Resource]:
    resources: list[Resource] = json.loads((EXPECTED / "outbound.json").read_text(encoding="utf-8"))
    return resources


def find_resource(own: str) -> Resource:
    return next(each for each in read_resources() if each["id"] == own)


def replace_resource(resource: Resource) -> list[Resource]:
    return [resource if each["id"] == resource["id"] else each for each in read_resources()]


@cache
def clinic() -> list[Resource]:
    return read_clinic()


def focuses(kind: str) -> list[str]:
    return [f"{kind}/{each['resource']['id']}" for each in clinic() if each["resource"]["resourceType"] == kind]


def find_subject(focus: str, resources: list[Resource]) -> str:
    """The reference of the Patient whom a resource is about."""
    kind, _, own = focus.partition("/")
    every = [entry.get("resource", entry) for entry in resources]
    resource = next(each for each in every if (each["resourceType"], each["id"]) == (kind, own))
    return str(resource.get("subject", {}).get("reference", ""))


def find_losses(event: str, focus: str, resources: list[Resource]) -> list[tuple[str, str]]:
    """Leaves of the resources of a message that do not come back and are not told."""
    written = write(event, focus, resources)
    assert written.text, written.issues
    back = read_back(written.text)
    lost = []
    for entry in resources:
        resource = entry.get("resource", entry)
        name = f"{resource['resourceType']}/{resource['id']}"
        other = resource["resourceType"] == "Patient" and name not in (focus, find_subject(focus, resources))
        mentioned = other or resource["resourceType"] in MENTIONED
        if not mentioned and not any(issue.text.startswith(f"{name} is not part") for issue in written.issues):
            lost += find_lost(resource, written, back)
    return [leaf for leaf in lost if leaf[0] not in ALWAYS_MEANT and leaf != NOT_AS_NEEDED]


@pytest.mark.parametrize(("event", "focus"), MESSAGES)
def test_a_message_is_what_the_standard_says(event: str, focus: str) -> None:
    name = f"out_{event.lower().replace('^', '_')}.hl7"
    expected = (EXPECTED / name).read_text(encoding="utf-8").strip().split("\n")
    assert write(event, focus, read_resources()).text.split("\r")[:-1] == expected


# An old number, a portrait and a link have no field, nor has a report's conclusion, or an order's status without ORC.
OF_THE_PATIENT = {"identifier.use", "identifier.system", "identifier.value", "photo.title", "link.other.reference"}
OF_THE_PATIENT = {f"Patient.{path} of Patient/ada" for path in OF_THE_PATIENT | {"link.type"}}


@pytest.mark.parametrize(
    ("event", "focus", "more"),
    [
        ("ADT^A04", "Encounter/visit", set()),
        ("ADT^A28", "Patient/ada", set()),
        ("DFT^P03", "Encounter/visit", {"Encounter.status of Encounter/visit"}),
        ("SIU^S12", "Appointment/booking", {"Appointment.description of Appointment/booking"}),
        (
            "ORU^R01",
            "DiagnosticReport/panel",
            {"DiagnosticReport.conclusion of DiagnosticReport/panel", "ServiceRequest.status of ServiceRequest/order"},
        ),
    ],
)
def test_what_has_no_place_is_told_and_nothing_else(event: str, focus: str, more: set[str]) -> None:
    issues = write(event, focus, read_resources()).issues
    texts = {text for issue in issues if not (text := issue.text).endswith(f"is not part of {event}.")}
    assert texts == {f"{path} has no place in {event}." for path in OF_THE_PATIENT | more}


@pytest.mark.parametrize(
    ("subscriber", "relationship", "code", "kind"),
    [
        ("Patient/ada", "self", "SEL", "Patient"),
        ("Patient/ada", "", "SEL", "Patient"),
        ("RelatedPerson/max", "spouse", "SPO", "RelatedPerson"),
        ("RelatedPerson/max", "child", "PAR", "RelatedPerson"),
    ],
)
def test_the_insured_is_who_was_the_subscriber(subscriber: str, relationship: str, code: str, kind: str) -> None:
    """IN1-17 (HL70063) is the insured's relation to the patient: a child is insured by a parent."""
    coverage = {**find_resource("cov"), "subscriber": {"reference": subscriber}}
    coverage["relationship"] = {"coding": [{"code": relationship}]} if relationship else {}
    written = write("ADT^A31", "Patient/ada", replace_resource(coverage))
    message = parse_message(written.text).message
    assert message
    assert message.segment("IN1").text(17) == code
    mapping = map_message(message, PARTNER)
    (change,) = mapping.changes.of_type("Coverage")
    known = mapping.changes.find(change.resource["subscriber"])
    assert known
    assert known.type == kind


@pytest.mark.parametrize("event", ["ADT^A04", "ADT^A08", "ADT^A28", "ADT^A31"])
def test_demographics_of_the_clinic_come_back(event: str) -> None:
    assert [find_losses(event, focus, clinic()) for focus in focuses("Patient")] == [[]] * 12


def test_a_visit_of_the_clinic_comes_back() -> None:
    assert [find_losses("ADT^A04", focus, clinic()) for focus in focuses("Encounter")] == [[]] * 14


def test_two_quotes_are_not_sent_since_they_delete() -> None:
    patient = {"resourceType": "Patient", "id": "1", "identifier": [{"value": "1"}], "name": [{"family": '""'}]}
    written = write("ADT^A31", "Patient/1", [patient])
    assert '""' not in written.text
    assert "Patient.name.family of Patient/1 has no place in ADT^A31." in [issue.text for issue in written.issues]


def test_a_merge_names_survivor_and_prior() -> None:
    """HL7 2.5.1, 3.6.2: PID-3 is the surviving number, MRG-1 the prior one."""
    message = parse_message(write("ADT^A40", "Patient/ada", read_resources()).text).message
    assert message
    (merge,) = map_message(message, PARTNER).merges
    assert merge.survivor.identity == ("https://clinic.example/mrn", "123")
    assert merge.prior == (("https://clinic.example/mrn", "77"),)


def test_a_merge_without_a_prior_number_is_refused() -> None:
    patient: Resource = {"resourceType": "Patient", "id": "1", "identifier": [{"system": "urn:x", "value": "1"}]}
    written = write("ADT^A40", "Patient/1", [patient])
    assert written.text == ""
    assert [(issue.severity, issue.condition) for issue in written.issues if issue.severity == "error"] == [
        ("error", "101")
    ]


@pytest.mark.parametrize(
    ("event", "focus"), [("ADT^A01", "Patient/ada"), ("XYZ^A01", "Patient/ada"), ("ADT^A08", "Patient/x")]
)
def test_what_cannot_be_written_is_refused(event: str, focus: str) -> None:
    written = write(event, focus, read_resources())
    assert written.text == ""
    assert written.issues[-1].severity == "error"


def test_codes_of_the_partner_are_read_from_right_to_left() -> None:
    partner = replace(
        PARTNER, translations={"PID-16": {"X9": Target("S", "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus")}}
    )
    written = write("ADT^A28", "Patient/ada", read_resources(), replace(RECEIVER, partner=partner))
    message = parse_message(written.text).message
    assert message
    assert message.segment("PID").text(16) == "X9"


@pytest.mark.parametrize(
    "sent",
    ["2024", "202403", "20240305", "2024030511", "202403051130", "20240305113000", "20240305113000.5-0600", "soon"],
)
def test_a_time_goes_back_as_it_came(sent: str) -> None:
    """What R4 cannot hold comes back from the extension that the inbound mapper left."""
    text = (
        "MSH|^~\\&|EHR|NORTH|PMS|P|20240305120000-0500||ADT^A08^ADT_A01|C1|P|2.5.1\r"
        f"EVN|A08|20240305120000-0500\rPID|1||123^^^MRN\rPV1|1|O|||||||||||||||||V1^^^VISITS|||||||||||||||||||||||||{sent}\r"
    )
    resources = [{**each, "id": each["resourceType"]} for each in read_back(text)]
    for each in resources:
        if each["resourceType"] == "Encounter":
            each["subject"] = {"reference": "Patient/Patient"}
    message = parse_message(write("ADT^A08", "Patient/Patient", resources).text).message
    assert message
    assert message.segment("PV1").text(44) == sent
    assert message.segment("PV1").text(19) == "V1"


def test_a_time_that_was_changed_here_is_sent_as_it_is_now() -> None:
    patient: Resource = {
        "resourceType": "Patient",
        "id": "1",
        "identifier": [{"system": "https://clinic.example/mrn", "value": "1"}],
        "deceasedDateTime": "2024-03-06T10:00:00-05:00",
        "_deceasedDateTime": {
            "extension": [
                {"url": "https://fhir-server.example/StructureDefinition/hl7v2-text", "valueString": "2024030511"}
            ]
        },
    }
    message = parse_message(write("ADT^A08", "Patient/1", [patient]).text).message
    assert message
    assert message.segment("PID").text(29) == "20240306100000-0500"


def test_a_day_that_r4_takes_for_no_instant_goes_back() -> None:
    """OBR-22 of a day: R4 has no instant for it, the text stands in the extension alone."""
    report = {name: each for name, each in find_resource("panel").items() if name != "issued"}
    sent = {"extension": [{"url": extension_url("hl7v2-text"), "valueString": "20260414"}]}
    written = write("ORU^R01", "DiagnosticReport/panel", replace_resource({**report, "_issued": sent}))
    message = parse_message(written.text).message
    assert message
    assert message.segment("OBR").text(22) == "20260414"


def test_a_day_that_was_an_hour_before_goes_as_a_day() -> None:
    patient: Resource = {
        "resourceType": "Patient",
        "id": "1",
        "identifier": [{"system": "https://clinic.example/mrn", "value": "1"}],
        "deceasedDateTime": "2024-03-05",
        "_deceasedDateTime": {"extension": [{"url": extension_url("hl7v2-text"), "valueString": "2024030511"}]},
    }
    message = parse_message(write("ADT^A08", "Patient/1", [patient]).text).message
    assert message
    assert message.segment("PID").text(29) == "20240305"


TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Co", "Cn", "Zs", "Zl", "Zp")), min_size=1, max_size=12
).filter(lambda text: text != '""')
DATES = st.dates().map(lambda day: day.isoformat()) | st.integers(1000, 9999).map(str) | st.just("1969-11")
PERIODS = st.fixed_dictionaries({}, optional={"start": DATES})
NAMES = st.fixed_dictionaries(
    {"family": TEXTS},
    optional={
        "use": st.sampled_from(["official", "usual", "maiden", "nickname", "temp", "anonymous", "old"]),
        "given": st.lists(TEXTS, min_size=1, max_size=2),
        "prefix": st.lists(TEXTS, min_size=1, max_size=2),
        "suffix": st.lists(TEXTS, min_size=1, max_size=3),
        "period": PERIODS,
    },
)
ADDRESSES = st.fixed_dictionaries(
    {"city": TEXTS},
    optional={
        "use": st.sampled_from(["home", "work", "temp", "old", "billing"]),
        "type": st.sampled_from(["postal", "physical", "both"]),
        "line": st.lists(TEXTS, min_size=1, max_size=4),
        "district": TEXTS,
        "postalCode": TEXTS,
    },
)
CONTACTS = st.fixed_dictionaries(
    {"system": st.sampled_from(["phone", "fax", "email", "pager", "other", "url", "sms"]), "value": TEXTS},
    optional={"use": st.sampled_from(["home", "work", "mobile", "old"]), "rank": st.integers(1, 9)},
)
PATIENTS = st.fixed_dictionaries(
    {"resourceType": st.just("Patient"), "id": st.just("1"), "name": st.lists(NAMES, min_size=1, max_size=3)},
    optional={
        "telecom": st.lists(CONTACTS, min_size=1, max_size=4),
        "address": st.lists(ADDRESSES, min_size=1, max_size=3),
        "gender": st.sampled_from(["male", "female", "other", "unknown"]),
        "birthDate": DATES,
        "deceasedBoolean": st.booleans(),
        "multipleBirthInteger": st.integers(1, 9),
    },
)


COVERAGES = st.fixed_dictionaries(
    {"status": st.sampled_from(["active", "cancelled"]), "payor": st.just([{"reference": "Organization/meadow"}])},
    optional={
        "order": st.integers(1, 9),
        "subscriberId": TEXTS,
        "period": PERIODS,
        "relationship": st.sampled_from(["self", "spouse", "child", "parent", "common", "other", "injured"]).map(
            lambda code: {"coding": [{"system": f"{TERMINOLOGY}subscriber-relationship", "code": code}]}
        ),
        "subscriber": st.sampled_from(["Patient/ada", "RelatedPerson/max"]).map(lambda name: {"reference": name}),
        "class": st.lists(st.sampled_from(["plan", "group", "class"]), unique=True, min_size=1).map(
            lambda codes: [
                {"type": {"coding": [{"system": f"{TERMINOLOGY}coverage-class", "code": code}]}, "value": f"V-{code}"}
                for code in codes
            ]
        ),
    },
)


@settings(max_examples=40, deadline=None)
@given(coverages=st.lists(COVERAGES, min_size=1, max_size=3))
def test_any_coverage_comes_back(coverages: list[Resource]) -> None:
    own = [
        {
            "resourceType": "Coverage",
            "id": f"c{number}",
            "beneficiary": {"reference": "Patient/ada"},
            "identifier": [{"type": {"coding": [{"code": "MB"}]}, "system": "urn:example:m", "value": f"M{number}"}],
            **each,
        }
        for number, each in enumerate(coverages)
    ]
    written = write("ADT^A31", "Patient/ada", [*read_resources(), *own])
    back = read_back(written.text)
    assert [find_lost(each, written, back) for each in own] == [[] for _ in own]
    assert len([each for each in back if each["resourceType"] == "Coverage"]) == len(own) + 1


@settings(max_examples=60, deadline=None)
@given(patient=PATIENTS, version=st.sampled_from(["2.5.1", "2.7"]))
def test_any_patient_comes_back(patient: dict[str, Any], version: str) -> None:
    patient = {**patient, "identifier": [{"system": "https://clinic.example/mrn", "value": "1"}]}
    written = write("ADT^A31", "Patient/1", [patient], replace(RECEIVER, version=version))
    back = read_back(written.text)
    assert find_lost(patient, written, back) == []


EVENT_OF = {"cancelled": "SIU^S15", "entered-in-error": "SIU^S17", "noshow": "SIU^S26"}


def test_appointments_of_the_clinic_come_back() -> None:
    own = [each["resource"] for each in clinic() if each["resource"]["resourceType"] == "Appointment"]
    events = [EVENT_OF.get(each["status"], "SIU^S14") for each in own]
    assert {"SIU^S14", "SIU^S15", "SIU^S26"} <= set(events)
    found = [find_losses(event, f"Appointment/{each['id']}", clinic()) for event, each in zip(events, own, strict=True)]
    assert found == [[]] * 21


@pytest.mark.parametrize(
    ("event", "status", "refused"),
    [("S15", "booked", True), ("S17", "cancelled", True), ("S26", "booked", True), ("S26", "noshow", False)],
)
def test_an_event_that_says_a_status_is_about_an_appointment_of_that_status(
    event: str, status: str, refused: bool
) -> None:
    booking = {**find_resource("booking"), "status": status}
    assert (write(f"SIU^{event}", "Appointment/booking", replace_resource(booking)).text == "") is refused


@pytest.mark.parametrize(
    ("event", "status", "code"),
    [
        ("S12", "booked", "Booked"),
        ("S13", "booked", "Booked"),
        ("S14", "checked-in", "Started"),
        ("S15", "cancelled", "Cancelled"),
        ("S17", "entered-in-error", "Deleted"),
        ("S26", "noshow", "Noshow"),
    ],
)
def test_the_status_of_an_appointment_is_that_of_table_0278(event: str, status: str, code: str) -> None:
    booking = {**find_resource("booking"), "status": status}
    if status == "cancelled":
        booking["cancelationReason"] = {"text": "Ill"}
    written = write(f"SIU^{event}", "Appointment/booking", replace_resource(booking))
    message = parse_message(written.text).message
    assert message
    assert (message.segment("SCH").text(25), message.header.text(9, 2)) == (code, event)
    back = read_back(written.text)
    assert next(each for each in back if each["resourceType"] == "Appointment")["status"] == status
    assert find_lost(booking, written, back) == []


def test_why_nobody_came_goes_and_comes_back() -> None:
    reason = {"url": extension_url("no-show-reason"), "valueCodeableConcept": {"text": "Snow"}}
    booking = {**find_resource("booking"), "status": "noshow", "extension": [reason]}
    written = write("SIU^S26", "Appointment/booking", replace_resource(booking))
    assert find_lost(booking, written, read_back(written.text)) == []
    assert not any("extension" in issue.text for issue in written.issues)
    message = parse_message(written.text).message
    assert message
    assert message.segment("SCH").text(6, 2) == "Snow"


INSTANTS = st.datetimes(
    min_value=datetime(1990, 1, 1),
    max_value=datetime(2090, 1, 1),
    timezones=st.sampled_from([UTC, ZoneInfo("Asia/Kolkata")]),
).map(lambda moment: moment.replace(microsecond=0))
STATUSES = ["proposed", "pending", "booked", "arrived", "fulfilled", "checked-in", "waitlist"]


@settings(max_examples=40, deadline=None)
@given(
    start=INSTANTS,
    seconds=st.integers(1, 90000),
    status=st.sampled_from(STATUSES),
    answers=st.lists(st.sampled_from(["accepted", "declined", "tentative", "needs-action"]), min_size=3, max_size=3),
    comment=TEXTS,
)
def test_any_appointment_comes_back(
    start: datetime, seconds: int, status: str, answers: list[str], comment: str
) -> None:
    whole = {"start": start.isoformat(), "end": (start + timedelta(seconds=seconds)).isoformat()}
    actors = ("Patient/ada", "Practitioner/wren", "Location/room")
    pairs = zip(actors, answers, strict=True)
    participants: list[Resource] = [{"actor": {"reference": name}, "status": answer} for name, answer in pairs]
    participants[1]["period"] = whole
    booking = {**find_resource("booking"), **whole, "status": status, "comment": comment, "participant": participants}
    written = write("SIU^S14", "Appointment/booking", replace_resource(booking))
    back = read_back(written.text)
    assert find_lost(booking, written, back) == []
    assert len(next(each for each in back if each["resourceType"] == "Appointment")["participant"]) == 3


@pytest.mark.parametrize(("kind", "event", "count"), [("DiagnosticReport", "ORU^R01", 3), ("ChargeItem", "DFT^P03", 2)])
def test_results_and_charges_of_the_clinic_come_back(kind: str, event: str, count: int) -> None:
    assert [find_losses(event, focus, clinic()) for focus in focuses(kind)] == [[]] * count


@pytest.mark.parametrize(("event", "focus"), [each for each in MESSAGES if each[0] != "ADT^A40"])
def test_the_resources_of_the_expected_messages_come_back(event: str, focus: str) -> None:
    assert find_losses(event, focus, read_resources()) == []


def test_the_interpreter_of_a_result_is_the_practitioner_who_was_named() -> None:
    """OBR-32 is an NDL, whose CNN has the authority in .9 to .11: requester and interpreter are one."""
    back = read_back(write("ORU^R01", "DiagnosticReport/panel", read_resources()).text)
    (person,) = (each for each in back if each["resourceType"] == "Practitioner")
    assert (person["identifier"][0]["system"], person["identifier"][0]["value"]) == (
        "http://hl7.org/fhir/sid/us-npi",
        "1700000007",
    )


def test_a_credit_undoes_the_charge_that_it_names() -> None:
    back = read_back(write("DFT^P03", "ChargeItem/undone", read_resources()).text)
    (charge,) = (each for each in back if each["resourceType"] == "ChargeItem")
    assert (charge["identifier"][0]["value"], charge["status"]) == ("T099", "entered-in-error")


@pytest.mark.parametrize("focus", ["Patient/ada", "Observation/ldl"])
def test_a_result_is_about_a_report(focus: str) -> None:
    written = write("ORU^R01", focus, read_resources())
    assert (written.text, written.issues[0].severity) == ("", "error")


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        ({"valueInteger": 7}, "NM", "7"),
        ({"valueBoolean": False}, "ID", "N"),
        ({"valueTime": "09:30:00"}, "TM", "093000"),
        ({"valueDateTime": "2026-04"}, "TS", "202604"),
        ({"valuePeriod": {"start": "2026-04-01", "end": "2026-04-02"}}, "DR", "20260401^20260402"),
        ({"valueRange": {"low": {"value": 1}, "high": {"value": 2}}}, "SN", "^1^-^2"),
        ({"valueRatio": {"numerator": {"value": 1}, "denominator": {"value": 128}}}, "SN", "^1^:^128"),
        ({"valueQuantity": {"value": Decimal("0.10")}}, "NM", "0.10"),
        ({"valueString": "a^b|c"}, "ST", "a\\S\\b\\F\\c"),
        ({"valueSampledData": {"data": "1 2"}}, "", ""),
    ],
)
def test_a_value_is_of_the_type_that_v2_has_for_it(value: Resource, kind: str, text: str) -> None:
    """HL7 2.5.1, table 0125; a value without a type of v2 is told."""
    plain = {name: each for name, each in find_resource("color").items() if name != "valueCodeableConcept"}
    written = write("ORU^R01", "DiagnosticReport/panel", replace_resource({**plain, **value}))
    message = parse_message(written.text).message
    assert message
    obx = message.all("OBX")[2]
    assert (obx.text(2), obx.raw(5)) == (kind, text)
    told = any(
        issue.text.startswith(f"{path}{next(iter(value))}") for path in ("", "Observation.") for issue in written.issues
    )
    assert told is (kind in ("", "ID") or "valueInteger" in value)


def test_each_component_is_an_observation_of_its_own() -> None:
    parts = [
        {"code": {"coding": [{"system": "http://loinc.org", "code": code}]}, "valueQuantity": {"value": value}}
        for code, value in (("8480-6", 120), ("8462-4", 80))
    ]
    pressure = {**find_resource("color"), "code": {"text": "Pressure"}, "component": parts}
    pressure.pop("valueCodeableConcept")
    written = write("ORU^R01", "DiagnosticReport/panel", replace_resource(pressure))
    message = parse_message(written.text).message
    assert message
    assert [each.raw(3) for each in message.all("OBX")[2:]] == ["^Pressure", "8480-6^^LN", "8462-4^^LN"]
    assert [each.raw(5) for each in message.all("OBX")[2:]] == ["", "120", "80"]
    assert "Each component of Observation/color is sent as an OBX of its own." in [each.text for each in written.issues]


NUMBERS = st.decimals(min_value=-(10**6), max_value=10**6, places=2)
QUANTITIES = st.fixed_dictionaries(
    {"value": NUMBERS}, optional={"comparator": st.sampled_from(["<", "<=", ">=", ">"]), "unit": TEXTS}
)
VALUES = st.one_of(
    QUANTITIES.map(lambda value: {"valueQuantity": value}),
    TEXTS.map(lambda value: {"valueString": value}),
    TEXTS.map(lambda value: {"valueCodeableConcept": {"text": value}}),
    DATES.map(lambda value: {"valueDateTime": value}),
    st.tuples(NUMBERS, NUMBERS).map(lambda two: {"valueRange": {"low": {"value": two[0]}, "high": {"value": two[1]}}}),
)


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(VALUES, min_size=1, max_size=4),
    status=st.sampled_from(
        ["registered", "preliminary", "final", "amended", "corrected", "entered-in-error", "unknown"]
    ),
    effective=INSTANTS,
)
def test_any_result_comes_back(values: list[Resource], status: str, effective: datetime) -> None:
    results: list[Resource] = [
        {
            "resourceType": "Observation",
            "id": f"r{number}",
            "status": status,
            "code": {"text": "Same"},
            "effectiveDateTime": effective.isoformat(),
            **value,
        }
        for number, value in enumerate(values)
    ]
    report = {**find_resource("panel"), "result": [{"reference": f"Observation/{each['id']}"} for each in results]}
    written = write("ORU^R01", "DiagnosticReport/panel", [*replace_resource(report), *results])
    back = read_back(written.text)
    assert [find_lost(each, written, back) for each in results] == [[] for _ in results]
    assert len([each for each in back if each["resourceType"] == "Observation"]) == len(results)


@settings(max_examples=40, deadline=None)
@given(
    quantity=st.integers(1, 999),
    price=st.decimals(min_value=0, max_value=10**6, places=2),
    currency=st.sampled_from(["USD", "EUR"]),
    day=DATES,
    modifiers=st.lists(st.sampled_from(["25", "59", "GT"]), max_size=4, unique=True),
    status=st.sampled_from(["planned", "billable", "billed", "not-billable"]),
)
def test_any_charge_comes_back(
    quantity: int, price: Decimal, currency: str, day: str, modifiers: list[str], status: str
) -> None:
    extensions = [
        {"url": extension_url("charge-modifier"), "valueCodeableConcept": {"coding": [{"code": each}]}}
        for each in modifiers
    ]
    fee = {
        **find_resource("fee"),
        "quantity": {"value": quantity},
        "priceOverride": {"value": price, "currency": currency},
        "occurrenceDateTime": day,
        "extension": extensions,
        "status": status,
    }
    written = write("DFT^P03", "ChargeItem/fee", replace_resource(fee))
    assert find_lost(fee, written, read_back(written.text)) == []


def test_a_guarantor_without_a_name_and_a_diagnosis_without_a_code_are_told() -> None:
    """GT1-3 and DG1-3 are required (HL7 2.5.1, 6.5.5 and 6.5.2)."""
    nameless = {name: each for name, each in find_resource("max").items() if name != "name"}
    uncoded = {name: each for name, each in find_resource("cold").items() if name != "code"}
    resources = [nameless if each["id"] == "max" else each for each in replace_resource(uncoded)]
    written = write("ADT^A04", "Encounter/visit", resources)
    assert not {"GT1", "DG1"} & {line[:3] for line in written.text.split("\r")}
    texts = [issue.text for issue in written.issues]
    assert "Account.guarantor.party.reference of Account/acc has no place in ADT^A04." in texts
    assert "Encounter.diagnosis.condition.reference of Encounter/visit has no place in ADT^A04." in texts


def test_what_a_coding_has_beside_its_code_is_told() -> None:
    """CWE has no component for userSelected, and none for a system whose code is missing."""
    language = {"coding": [{"system": "urn:ietf:bcp:47", "code": "en", "userSelected": True}, {"system": "urn:x"}]}
    patient: Resource = {**find_resource("ada"), "communication": [{"language": language}]}
    texts = [issue.text for issue in write("ADT^A31", "Patient/ada", replace_resource(patient)).issues]
    assert "Patient.communication.language.coding.userSelected of Patient/ada has no place in ADT^A31." in texts
    assert "Patient.communication.language.coding.system of Patient/ada has no place in ADT^A31." in texts


def test_a_unit_without_a_system_is_sent_by_its_name() -> None:
    quantity = {"value": 1, "unit": "grain", "code": "gr"}
    plain = {**find_resource("hcv"), "valueQuantity": quantity}
    written = write("ORU^R01", "DiagnosticReport/panel", replace_resource(plain))
    message = parse_message(written.text).message
    assert message
    assert message.all("OBX")[1].raw(6) == "grain"
    assert "Observation.valueQuantity.code of Observation/hcv has no place in ORU^R01." in [
        issue.text for issue in written.issues
    ]


def list_members(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all members of objects and entries of lists."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for name, each in pairs for found in [(*path, name), *list_members(each, (*path, name))]]


def drop(value: Any, path: tuple[Any, ...]) -> None:
    """Removes a member; what is empty then goes too, as FHIR has no empty object or list."""
    if len(path) > 1:
        drop(value[path[0]], path[1:])
    if len(path) == 1 or not value[path[0]]:
        del value[path[0]]


@settings(max_examples=150, deadline=None)
@given(data=st.data(), message=st.sampled_from(MESSAGES))
def test_what_a_resource_lacks_makes_no_message_fail(data: st.DataObject, message: tuple[str, str]) -> None:
    """Any member of any resource may be absent: the message is written, and can be parsed, or it is refused."""
    resources = deepcopy(read_resources())
    for _ in range(data.draw(st.integers(1, 3))):
        resource = data.draw(st.sampled_from(resources))
        paths = [path for path in list_members(resource) if path[-1] not in ("resourceType", "id", "url")]
        if paths:
            drop(resource, data.draw(st.sampled_from(paths)))
    written = write(*message, resources)
    assert parse_message(written.text).message if written.text else written.issues


def test_the_page_lists_the_events_that_are_written() -> None:
    page = (DOCS / "mappers" / "hl7v2-out.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in page.split("\n") if re.match(r"\| [A-Z]{3} \|", line)]
    assert {name.strip(): frozenset(events.strip().split(", ")) for name, events in rows} == EVENTS


def test_every_rule_of_the_outbound_table_is_about_a_row_of_the_inbound_tables() -> None:
    rows = {(kind, row.name) for (kind, _), rows in read_rows().items() for row in rows}
    assert {rule for *_, rule in read_outbound().items()} == {"never", "once", "when", "2.8"}
    assert set(read_outbound()) - rows == set()


def test_every_conversion_has_its_reverse_or_is_named() -> None:
    """PID-20 and the placers and fillers of pairs are told as having no place."""
    missing = {name for name, convert in CONVERSIONS.items() if convert not in REVERSE}
    assert missing == {"dln", "filler", "placer", "period", "planId", "time"}


def test_the_same_arguments_give_the_same_text() -> None:
    resources = read_resources()
    before = json.dumps(resources)
    assert write("ADT^A04", "Encounter/visit", resources) == write("ADT^A04", "Encounter/visit", resources)
    assert json.dumps(resources) == before
    assert ENVELOPE.control == "M1"
