"""Generated resources to v2 and back, for every message that is written: each leaf that no issue tells comes back."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mappers.hl7v2.er7 import parse_message
from mappers.hl7v2.mapping import map_message
from mappers.hl7v2.vocabulary import TERMINOLOGY
from tests.mappers.hl7v2.outbound_trips import PARTNER, Resource, find_lost, read_back, write
from tests.mappers.hl7v2.test_hl7v2_outbound import find_losses, find_resource, read_resources

Strategy = Any

LETTERS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Co", "Cn", "Zs", "Zl", "Zp")), min_size=1, max_size=8
)
MARKS = st.text("|^~\\&#.XEéßŁ漢م\U0001f600'\"-", min_size=1, max_size=8)
WORDS = (
    st.lists(LETTERS | MARKS, min_size=1, max_size=3).map(" ".join).filter(lambda text: text.strip('"') == text != "")
)
"""Texts with delimiters, escapes and letters of several scripts, and blanks inside."""

ZONES = st.sampled_from([0, 60, -300, 330, 345, -570, 840]).map(lambda minutes: timezone(timedelta(minutes=minutes)))
INSTANTS = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=ZONES)
SECONDS = INSTANTS.map(lambda moment: moment.isoformat(timespec="seconds"))
MOMENTS = SECONDS | INSTANTS.map(lambda moment: moment.isoformat(timespec="milliseconds"))
PARTIAL = st.dates(date(1901, 1, 1), date(2100, 1, 1)).flatmap(
    lambda day: st.sampled_from([day.isoformat(), day.isoformat()[:7], day.isoformat()[:4]])
)
DATE_TIMES = MOMENTS | PARTIAL

SYSTEMS = [
    "http://loinc.org",
    "http://snomed.info/sct",
    "http://hl7.org/fhir/sid/icd-10-cm",
    "https://site.example/codes?a=1&b=^",
    "urn:oid:1.2.840.99",
]
CODINGS = st.fixed_dictionaries(
    {"system": st.sampled_from(SYSTEMS), "code": st.text("ABC0123456789.-&^", min_size=1, max_size=8)},
    optional={"display": WORDS},
)
CONCEPTS = st.fixed_dictionaries(
    {"coding": st.lists(CODINGS, min_size=1, max_size=3, unique_by=lambda each: each["system"])},
    optional={"text": WORDS},
) | WORDS.map(lambda text: {"text": text})

NUMBER_SYSTEMS = ["https://clinic.example/mrn", "https://other.example/ids", "urn:oid:1.2.3.4", "urn:uuid:9a6f"]
NUMBER_SYSTEMS.append("urn:uuid:0b5dd0a8-7f07-4f4d-9a53-2d1f5a3c9a6f")


def number_strategy(*kinds: str) -> Strategy:
    """Identifiers of these types of HL70203, or of none."""
    types = [{"coding": [{"system": f"{TERMINOLOGY}v2-0203", "code": kind}]} for kind in kinds]
    optional = {"type": st.sampled_from(types)} if types else {}
    plain = {"system": st.sampled_from(NUMBER_SYSTEMS), "value": st.text("AZ09-/&^", min_size=1, max_size=8)}
    return st.fixed_dictionaries(plain, optional=optional)


def list_numbers(*kinds: str, most: int = 3) -> Strategy:
    return st.lists(number_strategy(*kinds), min_size=1, max_size=most, unique_by=lambda each: each["system"])


NAMES = st.fixed_dictionaries(
    {"family": WORDS, "given": st.lists(LETTERS | MARKS.filter(lambda text: text != '""'), min_size=1, max_size=2)},
    optional={"use": st.sampled_from(["official", "maiden", "nickname"]), "prefix": WORDS.map(lambda text: [text])},
)
ADDRESSES = st.fixed_dictionaries(
    {"line": st.lists(WORDS, min_size=1, max_size=3), "city": WORDS},
    optional={"state": WORDS, "postalCode": WORDS, "use": st.sampled_from(["home", "work", "temp"])},
)
PEOPLE = st.fixed_dictionaries(
    {
        "identifier": list_numbers("MR", "PI", "DL").map(
            lambda numbers: [{"system": NUMBER_SYSTEMS[0], "value": numbers[0]["value"]}, *numbers[1:]]
        ),
        "name": st.lists(NAMES, min_size=1, max_size=2),
        "birthDate": PARTIAL,
    },
    optional={
        "address": st.lists(ADDRESSES, min_size=1, max_size=2),
        "deceasedDateTime": DATE_TIMES,
        "maritalStatus": WORDS.map(lambda text: {"text": text}),
        "communication": CONCEPTS.map(lambda concept: [{"language": concept, "preferred": True}]),
        "multipleBirthInteger": st.integers(1, 9),
    },
).map(lambda person: {"resourceType": "Patient", "id": "ada", **person})
RELATIVES = st.fixed_dictionaries(
    {"name": NAMES.map(lambda name: [name])},
    optional={
        "relationship": CONCEPTS.map(lambda concept: [concept]),
        "address": ADDRESSES.map(lambda address: [address]),
        "birthDate": PARTIAL,
        "gender": st.sampled_from(["male", "female"]),
    },
)


def replace_all(*resources: Resource) -> list[Resource]:
    """The resources of the expected messages with these, by id, in place of theirs or behind them."""
    new = {(each["resourceType"], each["id"]): each for each in resources}
    kept = [new.pop((each["resourceType"], each["id"]), each) for each in read_resources()]
    return [*kept, *new.values()]


def make_relatives(relatives: list[Resource]) -> list[Resource]:
    return [
        {"resourceType": "RelatedPerson", "id": f"r{number}", "patient": {"reference": "Patient/ada"}, **each}
        for number, each in enumerate(relatives)
    ]


@settings(max_examples=40, deadline=None)
@given(
    person=PEOPLE,
    relatives=st.lists(RELATIVES, max_size=2),
    event=st.sampled_from(["ADT^A04", "ADT^A08", "ADT^A28", "ADT^A31"]),
)
def test_any_person_comes_back(person: Resource, relatives: list[Resource], event: str) -> None:
    assert find_losses(event, "Patient/ada", replace_all(person, *make_relatives(relatives))) == []


PARTICIPANTS: Strategy = st.sampled_from(["ATND", "REF", "CON", "ADM"]).map(
    lambda code: {
        "type": [{"coding": [{"system": f"{TERMINOLOGY}v3-ParticipationType", "code": code}]}],
        "individual": {"reference": "Practitioner/wren"},
    }
)
VISITS: Strategy = st.fixed_dictionaries(
    {
        "identifier": list_numbers(most=1),
        "status": st.sampled_from(["planned", "arrived", "in-progress", "finished", "cancelled", "unknown"]),
        "class": st.sampled_from(["AMB", "IMP", "EMER"]).map(
            lambda code: {"system": f"{TERMINOLOGY}v3-ActCode", "code": code}
        ),
        "participant": st.lists(PARTICIPANTS, max_size=3, unique_by=lambda each: each["type"][0]["coding"][0]["code"]),
    },
    optional={
        "period": st.fixed_dictionaries(
            {"start": DATE_TIMES}, optional={"end": st.sampled_from(["9000", "9000-12", "9000-12-31T23:59:59+05:45"])}
        ),
        "type": CONCEPTS.map(lambda concept: [concept]),
        "serviceType": CONCEPTS,
        "priority": CONCEPTS,
        "reasonCode": CONCEPTS.map(lambda concept: [concept]),
        "hospitalization": CONCEPTS.map(lambda concept: {"admitSource": concept}),
    },
)
CONDITIONS = st.fixed_dictionaries({"code": CONCEPTS}, optional={"onsetDateTime": DATE_TIMES})


@settings(max_examples=60, deadline=None)
@given(
    visit=VISITS,
    conditions=st.lists(CONDITIONS, max_size=3),
    guarantor=RELATIVES,
    event=st.sampled_from(["ADT^A04", "ADT^A08"]),
)
def test_any_visit_comes_back(visit: Resource, conditions: list[Resource], guarantor: Resource, event: str) -> None:
    subject = {"subject": {"reference": "Patient/ada"}}
    own = [
        {"resourceType": "Condition", "id": f"c{number}", **subject, **each} for number, each in enumerate(conditions)
    ]
    diagnoses = [
        {"condition": {"reference": f"Condition/{each['id']}"}, "rank": number} for number, each in enumerate(own, 1)
    ]
    encounter = {**find_resource("visit"), **visit, "diagnosis": diagnoses}
    if not diagnoses:
        encounter.pop("diagnosis")
    person = {"resourceType": "RelatedPerson", "id": "max", "patient": {"reference": "Patient/ada"}, **guarantor}
    assert find_losses(event, "Encounter/visit", replace_all(encounter, person, *own)) == []


def test_two_diagnoses_of_a_visit_that_have_a_text_alone_stay_apart() -> None:
    """DG1-3.2 has the text of what has no code; what generated visits found."""
    texts = ("Sore throat", "Cough")
    own: list[Resource] = [
        {"resourceType": "Condition", "id": text[0], "subject": {"reference": "Patient/ada"}, "code": {"text": text}}
        for text in texts
    ]
    diagnoses = [
        {"condition": {"reference": f"Condition/{each['id']}"}, "rank": rank} for rank, each in enumerate(own, 1)
    ]
    resources = replace_all({**find_resource("visit"), "diagnosis": diagnoses}, *own)
    back = read_back(write("ADT^A08", "Encounter/visit", resources).text)
    assert [each["code"]["text"] for each in back if each["resourceType"] == "Condition"] == list(texts)


@settings(max_examples=40, deadline=None)
@given(survivor=PEOPLE, prior=list_numbers("MR", "PI"))
def test_any_merge_comes_back(survivor: Resource, prior: list[Resource]) -> None:
    """MRG-1 has every number of the patient who is gone."""
    numbers = [{**each, "value": f"old-{each['value']}"} for each in prior]
    gone = {"resourceType": "Patient", "id": "gone", "identifier": numbers, "active": False}
    merged = {**survivor, "link": [{"other": {"reference": "Patient/gone"}, "type": "replaces"}]}
    written = write("ADT^A40", "Patient/ada", [merged, gone])
    message = parse_message(written.text).message
    assert message
    (merge,) = map_message(message, PARTNER).merges
    assert set(merge.prior) == {(each["system"], each["value"]) for each in numbers}
    assert merge.survivor.identity == (NUMBER_SYSTEMS[0], survivor["identifier"][0]["value"])
    # the link is what the message does: it is not compared, as the prior's number and the survivor's are
    assert find_lost(survivor, written, read_back(written.text)) == []


SECOND = {
    "resourceType": "Practitioner",
    "id": "rook",
    "identifier": [{"system": "https://clinic.example/staff", "value": "S9"}],
    "name": [{"family": "Rook & Søn", "given": ["Élise"]}],
}
DEVICE = {
    "resourceType": "Device",
    "id": "scanner",
    "identifier": [{"system": "https://example.org/north/DEVICES", "value": "D1"}],
    "deviceName": [{"name": "CT ^1|", "type": "user-friendly-name"}],
}
EVENTS_OF_A_BOOKING = [
    ("SIU^S12", ["proposed", "pending", "booked", "arrived", "checked-in", "waitlist"]),
    ("SIU^S13", ["booked"]),
    ("SIU^S14", ["fulfilled", "booked"]),
    ("SIU^S15", ["cancelled"]),
    ("SIU^S17", ["entered-in-error"]),
    ("SIU^S26", ["noshow"]),
]
BOOKINGS = st.fixed_dictionaries(
    {
        "identifier": st.lists(number_strategy("PLAC", "FILL"), min_size=1, max_size=1),
        "serviceType": st.lists(CONCEPTS, min_size=1, max_size=3, unique_by=str),
    },
    optional={
        "reasonCode": CONCEPTS.map(lambda concept: [concept]),
        "appointmentType": CONCEPTS,
        "comment": st.lists(WORDS, min_size=1, max_size=2).map("\n".join),
        "priority": st.sampled_from([1, 5, 9]),
    },
)


@settings(max_examples=80, deadline=None)
@given(
    booking=BOOKINGS,
    start=SECONDS,
    minutes=st.integers(1, 2000),
    actors=st.lists(st.sampled_from(["Practitioner/wren", "Practitioner/rook", "Location/room", "Device/scanner"]),
                    unique=True),
    statuses=st.lists(st.sampled_from(["accepted", "declined", "tentative"]), min_size=4, max_size=4),
    case=st.sampled_from(EVENTS_OF_A_BOOKING),
    data=st.data(),
)  # fmt: skip
def test_any_booking_comes_back(
    booking: Resource, start: str, minutes: int, actors: list[str], statuses: list[str],
    case: tuple[str, list[str]], data: st.DataObject,
) -> None:  # fmt: skip
    end = (datetime.fromisoformat(start) + timedelta(minutes=minutes)).isoformat()
    pairs = zip(actors, statuses, strict=False)
    people: list[Resource] = [{"actor": {"reference": name}, "status": status} for name, status in pairs]
    patient: Resource = {"actor": {"reference": "Patient/ada"}, "status": "accepted"}
    appointment = {
        "resourceType": "Appointment",
        "id": "booking",
        "status": data.draw(st.sampled_from(case[1])),
        "start": start,
        "end": end,
        "participant": [patient, *people],
        **booking,
    }
    written = write(case[0], "Appointment/booking", replace_all(appointment, SECOND, DEVICE))
    assert written.text, written.issues
    back = read_back(written.text)
    assert find_lost(appointment, written, back) == []
    (returned,) = (each for each in back if each["resourceType"] == "Appointment")
    assert len(returned["participant"]) == len(appointment["participant"])


VALUES = st.one_of(
    st.fixed_dictionaries(
        {"value": st.decimals(-(10**6), 10**6, places=3)},
        optional={"comparator": st.sampled_from(["<", "<=", ">=", ">"]), "unit": WORDS},
    ).map(lambda value: {"valueQuantity": value}),
    CONCEPTS.map(lambda value: {"valueCodeableConcept": value}),
    WORDS.map(lambda value: {"valueString": value}),
    DATE_TIMES.map(lambda value: {"valueDateTime": value}),
)
RESULTS = st.tuples(
    st.fixed_dictionaries(
        {"code": CONCEPTS, "effectiveDateTime": DATE_TIMES, "status": st.sampled_from(["final", "amended"])},
        optional={
            "interpretation": CONCEPTS.map(lambda concept: [concept]),
            "note": st.lists(WORDS, min_size=1, max_size=1).map(lambda texts: [{"text": each} for each in texts]),
            "method": CONCEPTS,
        },
    ),
    VALUES,
).map(lambda two: {**two[0], **two[1]})
SPECIMENS = st.fixed_dictionaries(
    {"identifier": list_numbers(most=1), "type": CONCEPTS},
    optional={"receivedTime": MOMENTS, "collection": DATE_TIMES.map(lambda when: {"collectedDateTime": when})},
)


@settings(max_examples=60, deadline=None)
@given(
    results=st.lists(RESULTS, min_size=1, max_size=3),
    specimens=st.lists(SPECIMENS, max_size=2),
    code=CONCEPTS,
    number=number_strategy("FILL"),
    effective=DATE_TIMES,
    issued=MOMENTS,
)
def test_any_report_comes_back(
    results: list[Resource], specimens: list[Resource], code: Resource, number: Resource, effective: str, issued: str
) -> None:
    subject = {"subject": {"reference": "Patient/ada"}}
    observations = [
        {"resourceType": "Observation", "id": f"o{place}", **subject, **each} for place, each in enumerate(results)
    ]
    kept = [{"resourceType": "Specimen", "id": f"s{place}", **subject, **each} for place, each in enumerate(specimens)]
    report: Resource = {
        "resourceType": "DiagnosticReport",
        "id": "panel",
        "identifier": [number],
        "status": "final",
        "code": code,
        **subject,
        "effectiveDateTime": effective,
        "issued": issued,
        "resultsInterpreter": [{"reference": "Practitioner/wren"}],
        "result": [{"reference": f"Observation/{each['id']}"} for each in observations],
        "specimen": [{"reference": f"Specimen/{each['id']}"} for each in kept],
    }
    if not kept:
        report.pop("specimen")
    assert find_losses("ORU^R01", "DiagnosticReport/panel", replace_all(report, *observations, *kept)) == []


CHARGES = st.fixed_dictionaries(
    {
        "code": CONCEPTS,
        "status": st.sampled_from(["billable", "entered-in-error"]),
        "occurrenceDateTime": DATE_TIMES,
        "quantity": st.integers(1, 99).map(lambda value: {"value": value}),
    },
    optional={
        "enteredDate": MOMENTS,
        "reason": st.lists(CONCEPTS, min_size=1, max_size=3, unique_by=str),
        "priceOverride": st.decimals(0, 9999, places=2).map(lambda value: {"value": value, "currency": "USD"}),
        "performer": st.just([{"actor": {"reference": "Practitioner/rook"}}]),
    },
)


@settings(max_examples=60, deadline=None)
@given(charges=st.lists(CHARGES, min_size=1, max_size=3))
def test_any_charges_of_a_visit_come_back(charges: list[Resource]) -> None:
    beside = {"subject": {"reference": "Patient/ada"}, "context": {"reference": "Encounter/visit"}}
    own: list[Resource] = [
        {
            "resourceType": "ChargeItem",
            "id": f"c{number}",
            "identifier": [{"system": "https://example.org/north/transaction", "value": f"T-{number}|&"}],
            **beside,
            **each,
        }
        for number, each in enumerate(charges)
    ]
    assert find_losses("DFT^P03", "Encounter/visit", replace_all(SECOND, *own)) == []


UNITS = st.fixed_dictionaries({"value": st.integers(1, 999) | st.sampled_from([0.5, 2.25])}, optional={"unit": WORDS})
INGREDIENTS = st.fixed_dictionaries(
    {"itemCodeableConcept": CONCEPTS, "isActive": st.booleans()},
    optional={"strength": UNITS.map(lambda amount: {"numerator": amount, "denominator": {"value": 1}})},
)
PRESCRIPTIONS = st.fixed_dictionaries(
    {
        "identifier": st.lists(
            number_strategy("PLAC", "FILL").filter(lambda each: "type" in each), min_size=1, max_size=2,
            unique_by=lambda each: each["type"]["coding"][0]["code"],
        ),
        "authoredOn": DATE_TIMES,
        "dispenseRequest": st.fixed_dictionaries({"quantity": UNITS, "numberOfRepeatsAllowed": st.integers(0, 11)}),
    },
    optional={
        "reasonCode": st.lists(CONCEPTS, min_size=1, max_size=2, unique_by=str),
        "statusReason": CONCEPTS,
        "requester": st.just({"reference": "Practitioner/rook"}),
        "recorder": st.just({"reference": "Practitioner/wren"}),
        "note": WORDS.map(lambda text: [{"text": text}]),
        "priority": st.sampled_from(["routine", "urgent", "asap", "stat"]),
    },
)  # fmt: skip
DOSAGES = st.fixed_dictionaries(
    {"text": WORDS, "doseAndRate": UNITS.map(lambda dose: [{"doseQuantity": dose}])},
    optional={"route": CONCEPTS, "site": CONCEPTS, "method": CONCEPTS, "patientInstruction": WORDS},
)


@settings(max_examples=80, deadline=None)
@given(
    prescription=PRESCRIPTIONS,
    drug=CONCEPTS,
    ingredients=st.lists(INGREDIENTS, max_size=3),
    dosage=DOSAGES,
    event=st.sampled_from(["RDE^O11", "RDE^O25", "OMP^O09"]),
)
def test_any_prescription_with_its_drug_comes_back(
    prescription: Resource, drug: Resource, ingredients: list[Resource], dosage: Resource, event: str
) -> None:
    medicine = {"medicationCodeableConcept": drug}
    medication: Resource = {"resourceType": "Medication", "id": "any", "code": drug, "ingredient": ingredients}
    if ingredients:
        medicine = {"medicationReference": {"reference": "Medication/any"}}
    request = {
        "resourceType": "MedicationRequest",
        "id": "any",
        "status": "active",
        "intent": "order",
        "subject": {"reference": "Patient/ada"},
        "dosageInstruction": [dosage],
        **medicine,
        **prescription,
    }
    resources = replace_all(SECOND, request, *([medication] if ingredients else []))
    assert find_losses(event, "MedicationRequest/any", resources) == []
