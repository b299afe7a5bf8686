"""RDE and OMP: what the fields of an order mean (HL7 2.5.1, chapter 4.13 and 4.14), and trips there and back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mappers.hl7v2.bundle import Built, build_bundle
from mappers.hl7v2.er7 import parse_message
from mappers.hl7v2.mapping import map_message
from mappers.hl7v2.needs import State, find_needs
from mappers.hl7v2.outbound.message import write_event
from mappers.hl7v2.outbound.order_controls import FIRST, IN_FORCE, choose_control
from mappers.hl7v2.outbound.timings import find_pattern
from mappers.hl7v2.partner import Partner
from mappers.hl7v2.timings import read_pattern
from tests.mappers.hl7v2.outbound_trips import ENVELOPE, RECEIVER, Resource, find_lost, read_back, write
from tests.mappers.hl7v2.test_hl7v2_outbound import (
    DOCS,
    TEXTS,
    clinic,
    find_losses,
    find_resource,
    focuses,
    read_resources,
)

PARTNER = Partner(name="pharmacy", root="https://pharmacy.example", zone="America/New_York")
UCUM = "http://unitsofmeasure.org"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
PID = "PID|1||123^^^MRN||QUILL^ADA\r"
RXE = "RXE||308182^Amoxicillin 250 MG^RXNORM|1||{capsule}^capsule^UCUM\r"


def compose(event: str, *segments: str, version: str = "2.5.1") -> str:
    return f"MSH|^~\\&|RX|EAST|PMS|P|20260414120000-0400||{event}|C1|P|{version}\r{''.join(segments)}"


def build(text: str, partner: Partner = PARTNER, **known: Resource) -> Built:
    """The bundle of a message; `known` are resources that the server holds, by type."""
    message = parse_message(text).message
    assert message
    mapping = map_message(message, partner)
    matches = {need.key: [known[need.type]] for need in find_needs(mapping) if need.type in known}
    return build_bundle(mapping, State(matches=matches) if known else None)


def read(text: str, kind: str = "MedicationRequest") -> list[Resource]:
    built = build(text)
    assert built.bundle, built.issues
    return [each["resource"] for each in built.bundle["entry"] if each["resource"]["resourceType"] == kind]


def read_one(*segments: str, event: str = "RDE^O11^RDE_O11") -> Resource:
    (request,) = read(compose(event, PID, *segments))
    return request


def test_an_encoded_order_is_a_prescription() -> None:
    """RXE-3 to 5 are the dose, 10 and 11 what is dispensed, 12 the refills; TQ1-3 how often, TQ1-6 how long."""
    request = read_one(
        "ORC|NW|RX1^EHR|F9^PHARM||||||20260414100000-0400|||77^WREN^IVO^^^^^^NPI\r",
        "RXE||308182^Amoxicillin 250 MG^RXNORM|1|2|{capsule}^capsule^UCUM||^With water~^Finish it||1|30|capsule|0"
        "|||||||||||||||^Sore throat\r",
        "NTE|1||Ask about rashes\r",
        "TQ1|1||Q8H|||10^d&days&UCUM|||S|||\r",
        "RXR|PO^Oral^HL70162\r",
    )
    assert (request["status"], request["intent"], request["priority"]) == ("active", "order", "stat")
    assert [each["value"] for each in request["identifier"]] == ["RX1", "F9"]
    assert request["authoredOn"] == "2026-04-14T10:00:00-04:00"
    assert request["medicationCodeableConcept"]["coding"][0]["code"] == "308182"
    assert request["dispenseRequest"] == {"quantity": {"value": 30, "unit": "capsule"}, "numberOfRepeatsAllowed": 0}
    assert request["substitution"] == {"allowedBoolean": False}
    assert request["note"] == [{"text": "Ask about rashes"}]
    assert request["reasonCode"] == [{"text": "Sore throat"}]
    (dosage,) = request["dosageInstruction"]
    unit = {"unit": "capsule", "system": UCUM, "code": "{capsule}"}
    assert dosage["doseAndRate"][0]["doseRange"] == {"low": {"value": 1, **unit}, "high": {"value": 2, **unit}}
    assert dosage["patientInstruction"] == dosage["text"] == "With water\nFinish it"
    assert dosage["timing"]["repeat"] == {
        "boundsDuration": {"value": 10, "unit": "days", "system": UCUM, "code": "d"},
        "frequency": 1,
        "period": 8,
        "periodUnit": "h",
    }
    # the guide maps PO of HL70162 to v3-RouteOfAdministration; the code as sent stays behind it
    assert [each["code"] for each in dosage["route"]["coding"]] == ["PO", "PO"]


def test_an_order_as_it_was_written_is_an_original_order() -> None:
    """RXO (OMP): the guide fixes the intent; RXO-9 (HL70161), 11, 12, 13."""
    request = read_one(
        "ORC|NW|RX1\r",
        "TQ1|1||BID~PRN||||20260414|20260420|||Two a day\r",
        "RXO|^Amoxicillin|250||mg|||^With food||G||14|capsule|2\r",
        "RXR|^By mouth\r",
        event="OMP^O09^OMP_O09",
    )
    assert request["intent"] == "original-order"
    assert request["substitution"]["allowedCodeableConcept"]["coding"][0]["code"] == "G"
    (dosage,) = request["dosageInstruction"]
    assert dosage["asNeededBoolean"] is True
    assert (dosage["text"], dosage["patientInstruction"]) == ("Two a day", "With food")
    assert dosage["doseAndRate"][0]["doseQuantity"] == {"value": 250, "unit": "mg"}
    repeat = dosage["timing"]["repeat"]
    assert repeat["boundsPeriod"] == {"start": "2026-04-14", "end": "2026-04-20"}
    assert (repeat["frequency"], repeat["period"], repeat["periodUnit"]) == (2, 1, "d")
    assert request["dispenseRequest"]["numberOfRepeatsAllowed"] == 2


def test_of_both_the_encoded_order_counts() -> None:
    """RXO is what was asked for, RXE what the pharmacy made of it (4.14.4); what RXE leaves out comes from RXO."""
    request = read_one(
        "ORC|NW|RX1\r", "RXO|^Brand|500||mg|||||||20|tablet|3\r", "RXR|^Nose\r", RXE, "TQ1|1\r", "RXR|^Mouth\r"
    )
    assert request["intent"] == "order"
    assert request["medicationCodeableConcept"]["coding"][0]["display"] == "Amoxicillin 250 MG"
    assert request["dosageInstruction"][0]["doseAndRate"][0]["doseQuantity"]["value"] == 1
    assert request["dosageInstruction"][0]["route"] == {"text": "Mouth"}
    assert request["dispenseRequest"] == {"quantity": {"value": 20, "unit": "tablet"}, "numberOfRepeatsAllowed": 3}


def test_each_step_of_a_taper_is_a_dosage() -> None:
    """Several TQ1: their doses stand in TQ1-2."""
    text = ("ORC|NW|RX1\r", RXE, "TQ1|1|4^{tbl}&tablet&UCUM|QD\r", "TQ1|2|2^{tbl}&tablet&UCUM|QOD\r", "RXR|^Mouth\r")
    steps = read_one(*text)["dosageInstruction"]
    assert [each["sequence"] for each in steps] == [1, 2]
    assert [each["doseAndRate"][0]["doseQuantity"]["value"] for each in steps] == [4, 2]
    assert [each["timing"]["repeat"]["period"] for each in steps] == [1, 2]
    assert {each["route"]["text"] for each in steps} == {"Mouth"}


def test_a_quantity_and_timing_of_before_2_5_is_read() -> None:
    """RXE-1 and ORC-7 are TQ: quantity, interval, duration, start, end, priority, condition, text (2.4, 2.A.81)."""
    rxe = "RXE|1^BID&0800,2000^D10^20260414^^S^^With meals|308182^Amoxicillin^RXNORM|2||tab\r"
    (request,) = read(compose("RDE^O11", PID, "ORC|NW|RX1\r", rxe, version="2.4"))
    (dosage,) = request["dosageInstruction"]
    assert (dosage["text"], request["priority"]) == ("With meals", "stat")
    assert dosage["doseAndRate"][0]["doseQuantity"] == {"value": 2, "unit": "tab"}
    assert dosage["timing"]["repeat"]["timeOfDay"] == ["08:00:00", "20:00:00"]
    assert dosage["timing"]["repeat"]["boundsPeriod"] == {"start": "2026-04-14"}
    lasts = rxe.replace("^20260414", "^")
    (request,) = read(compose("RDE^O11", PID, "ORC|NW|RX1\r", lasts, version="2.4"))
    bounds = request["dosageInstruction"][0]["timing"]["repeat"]["boundsDuration"]
    assert bounds == {"value": 10, "unit": "d", "system": UCUM, "code": "d"}


def test_form_strength_and_components_make_a_medication() -> None:
    """RXE-6, 25 and 26; RXC-1 is B for a base and A for an additive (HL70166)."""
    text = compose(
        "RDE^O11",
        PID,
        "ORC|NW|RX1\r",
        "RXE||^Heparin drip|10||mL|385219001^Solution^SCT\r",
        "TQ1|1\r",
        "RXR|^Vein\r",
        "RXC|B|4850^glucose^RXNORM|500|mL^^UCUM\r",
        "RXC|A|5224^heparin^RXNORM|25000|[USP'U]^U^UCUM\r",
    )
    (medication,) = read(text, "Medication")
    assert medication["form"]["coding"][0]["code"] == "385219001"
    assert [each["isActive"] for each in medication["ingredient"]] == [False, True]
    assert medication["ingredient"][1]["strength"]["numerator"]["value"] == 25000
    (request,) = read(text)
    assert "medicationCodeableConcept" not in request and "medicationReference" in request
    assert medication["identifier"] == read(text, "Medication")[0]["identifier"]


@pytest.mark.parametrize(
    ("control", "order", "status"),
    [
        ("NW", "", "active"),
        ("XO", "", "active"),
        ("OC", "", "cancelled"),
        ("CR", "", "cancelled"),
        ("DC", "", "stopped"),
        ("OD", "", "stopped"),
        ("DR", "", "stopped"),
        ("HR", "", "on-hold"),
        ("OH", "", "on-hold"),
        ("SC", "CM", "completed"),
        ("SC", "HD", "on-hold"),
        ("NW", "ER", "entered-in-error"),
        ("CA", "CA", "cancelled"),
        ("SN", "", "unknown"),
    ],
)
def test_the_status_is_that_of_table_0038_else_of_0119(control: str, order: str, status: str) -> None:
    """MedicationRequest has no `revoked`: what was cancelled is `cancelled`, what was discontinued is `stopped`."""
    assert read_one(f"ORC|{control}|RX1|||{order}\r", RXE)["status"] == status


@pytest.mark.parametrize(("control", "code"), [("CA", "cancel-request"), ("HD", "hold-request")])
def test_who_asks_to_cancel_or_hold_gets_a_task_and_the_status_stays(control: str, code: str) -> None:
    known = {**find_resource("rx"), "id": "rx", "status": "active"}
    built = build(compose("RDE^O11", PID, f"ORC|{control}|RX1\r", RXE), MedicationRequest=known)
    assert built.bundle
    entries = {each["resource"]["resourceType"]: each for each in built.bundle["entry"]}
    task = entries["Task"]["resource"]
    assert task["code"]["coding"][0]["code"] == code
    assert task["focus"] == {"reference": "MedicationRequest/rx"}
    assert entries["MedicationRequest"]["resource"]["status"] == "active"


def test_a_request_for_a_refill_is_a_task_and_changes_no_prescription() -> None:
    """RDE^O25 comes from the pharmacy: the prescription that it is about stays as it is."""
    known = {**find_resource("rx"), "id": "rx"}
    text = compose("RDE^O25^RDE_O11", PID, "ORC|RF|RX1|||||||20260501\r", RXE)
    built = build(text, MedicationRequest=known, Patient={"resourceType": "Patient", "id": "ada"})
    assert built.bundle
    types = [each["resource"]["resourceType"] for each in built.bundle["entry"]]
    assert types.count("Task") == 1 and "MedicationRequest" not in types
    (task,) = (each["resource"] for each in built.bundle["entry"] if each["resource"]["resourceType"] == "Task")
    assert task["code"]["coding"][0]["code"] == "refill-request"
    assert (task["focus"], task["for"]) == ({"reference": "MedicationRequest/rx"}, {"reference": "Patient/ada"})
    assert (task["status"], task["authoredOn"]) == ("requested", "2026-05-01")
    (new,) = read(text)
    assert new["status"] == "unknown"


def test_a_prescription_changes_no_patient() -> None:
    """Only ADT changes a known Patient."""
    known = {"resourceType": "Patient", "id": "ada", "name": [{"family": "Quill"}]}
    built = build(compose("RDE^O11", PID, "ORC|NW|RX1\r", RXE), Patient=known)
    assert built.bundle
    assert "Patient" not in [each["resource"]["resourceType"] for each in built.bundle["entry"]]
    assert any("do not change a known Patient" in issue.text for issue in built.issues)


def test_orders_that_share_a_number_stay_apart() -> None:
    other = RXE.replace("308182", "197361")
    found = read(compose("RDE^O11", PID, "ORC|NW|RX1\r", RXE, "ORC|NW|RX1\r", other))
    assert {each["medicationCodeableConcept"]["coding"][0]["code"] for each in found} == {"308182", "197361"}


@pytest.mark.parametrize(
    ("segments", "condition", "sentence"),
    [
        (("ORC|NW|RX1\r", RXE), "100", "RDE needs the segments PID and ORC; PID is missing."),
        ((PID,), "100", "RDE needs the segments PID and ORC; ORC is missing."),
        ((PID, "ORC|NW|RX1\r"), "100", "The order has no RXE or RXO segment."),
        ((PID, "ORC|NW|RX1\r", "RXE|||1||mg\r"), "101",
         "RXE-2 is required and empty: it is not known which drug is ordered."),
    ],
)  # fmt: skip
def test_what_is_no_order_is_refused(segments: tuple[str, ...], condition: str, sentence: str) -> None:
    built = build(compose("RDE^O11", *segments))
    assert built.bundle is None
    assert [(each.condition, each.text) for each in built.issues if each.severity == "error"] == [(condition, sentence)]


@pytest.mark.parametrize(
    ("count", "length", "sentence"),
    [
        (51, 10, "The order has 51 TQ1 segments; at most 50 are read. Send it as several orders."),
        (
            50,
            30_000,
            "What the 50 TQ1 of the order have in common is too long to be repeated. Shorten it.",
        ),
    ],
)
def test_a_few_bytes_do_not_become_very_many(count: int, length: int, sentence: str) -> None:
    rxe = f"RXE||^X|1||mg||^{'a' * length}\r"
    built = build(compose("RDE^O11", PID, "ORC|NW|RX1\r", rxe, "TQ1|1||BID\r" * count))
    assert built.bundle is None
    assert sentence in [each.text for each in built.issues if each.severity == "error"]
    assert build(compose("RDE^O11", PID, "ORC|NW|RX1\r", rxe, "TQ1|1||BID\r" * 30)).bundle


@pytest.mark.parametrize(
    ("rxe", "tq1", "sentence"),
    [
        ("RXE||^X|5|2|mg\r", "", "RXE-4 is below RXE-3; the dose is left out."),
        ("RXE||^X|few||mg\r", "", "`few` is no number; it is left out."),
        (RXE, "TQ1|1||BID|||3^mile\r", "`3 mile` is no duration; it is left out."),
        (RXE, "TQ1|1||ACM|0800\r", "TQ1-4 is kept with the message: the pattern of TQ1-3 names an event."),
        ("RXE||^X|1||mg|||||10||-1\r", "", "`-1` is no whole number above -1; it is left out."),
    ],
)
def test_what_means_nothing_is_told(rxe: str, tq1: str, sentence: str) -> None:
    built = build(compose("RDE^O11", PID, "ORC|NW|RX1\r", rxe, tq1))
    assert built.bundle
    assert sentence in [each.text for each in built.issues]


@pytest.mark.parametrize(
    ("code", "repeat"),
    [
        ("QD", {"frequency": 1, "period": 1, "periodUnit": "d"}),
        ("BID", {"frequency": 2, "period": 1, "periodUnit": "d"}),
        ("5ID", {"frequency": 5, "period": 1, "periodUnit": "d"}),
        ("QOD", {"frequency": 1, "period": 2, "periodUnit": "d"}),
        ("Q6H", {"frequency": 1, "period": 6, "periodUnit": "h"}),
        ("Q30M", {"frequency": 1, "period": 30, "periodUnit": "min"}),
        ("Q2W", {"frequency": 1, "period": 2, "periodUnit": "wk"}),
        ("QHS", {"frequency": 1, "period": 1, "periodUnit": "d", "when": ["HS"]}),
        ("ACM", {"when": ["ACM"]}),
        ("ONCE", {"count": 1}),
    ],
)
def test_a_repeat_pattern_of_table_0335_is_a_timing(code: str, repeat: Resource) -> None:
    known = read_pattern(code)
    assert known and known[1] == repeat
    assert find_pattern(repeat) == code


@pytest.mark.parametrize("repeat", [{"frequency": 3, "period": 2, "periodUnit": "wk"}, {"frequency": 1, "period": 1}])
def test_a_timing_that_no_pattern_says_has_none(repeat: Resource) -> None:
    assert find_pattern(repeat) == ""
    assert find_pattern({"frequency": 1, "period": 1, "periodUnit": "d", "frequencyMax": 2}) == ""


@pytest.mark.parametrize("event", ["RDE^O11", "RDE^O25", "OMP^O09"])
def test_prescriptions_of_the_clinic_come_back(event: str) -> None:
    assert [find_losses(event, focus, clinic()) for focus in focuses("MedicationRequest")] == [[]] * 7


@pytest.mark.parametrize("change", [{"status": "draft"}, {"doNotPerform": True}, {"subject": {"display": "Ada"}}])
def test_what_is_not_to_be_filled_is_not_sent(change: Resource) -> None:
    resources = [{**each, **change} if each["id"] == "rx" else each for each in read_resources()]
    written = write("RDE^O11", "MedicationRequest/rx", resources)
    assert (written.text, next(each.severity for each in written.issues)) == ("", "error")


@pytest.mark.parametrize("earlier", ["", "active", "on-hold", "cancelled", "stopped", "completed", "entered-in-error"])
@pytest.mark.parametrize("status", ["active", "on-hold", "cancelled", "stopped", "completed", "entered-in-error"])
def test_a_status_comes_back_whatever_was_told_before(status: str, earlier: str) -> None:
    """ORC-1 and ORC-5 together say the status to whoever reads them by tables 0119 and 0038."""
    request = {**find_resource("rx"), "status": status}
    resources = [request if each["id"] == "rx" else each for each in read_resources()]
    envelope = ENVELOPE._replace(earlier=earlier)
    written = write_event(("RDE", "O11"), "MedicationRequest/rx", resources, RECEIVER, envelope)
    (back,) = (each for each in read_back(written.text) if each["resourceType"] == "MedicationRequest")
    assert back["status"] == status


def test_the_page_has_the_table_of_orders() -> None:
    page = (DOCS / "mappers" / "hl7v2-out.md").read_text(encoding="utf-8")
    section = page.partition("### Orders")[2].partition("### Answers")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.split("\n") if "| `" in line]
    for names, *cells in rows:
        for status in names.split(", "):
            ended = [each for each in FIRST if each not in IN_FORCE and each != status]
            told = ("", "active", "on-hold", *ended[:1])
            for cell, earlier in zip(cells, told, strict=True):
                control, order = choose_control(status, earlier)
                assert cell.split(";")[0].split(", ")[0] == f"`{control}`", (status, earlier)
                if ", " in cell and ";" not in cell:
                    assert cell == f"`{control}`, `{order}`"
    assert {name for names, *_ in rows for name in names.split(", ")} == set(FIRST)


QUANTITIES = st.fixed_dictionaries(
    {"value": st.integers(1, 999) | st.sampled_from([0.5, 2.25])},
    optional={"unit": TEXTS, "code": st.just("mg"), "system": st.just(UCUM)},
)
REPEATS = st.fixed_dictionaries(
    {
        "frequency": st.integers(1, 6),
        "period": st.integers(1, 12),
        "periodUnit": st.sampled_from(["s", "min", "h", "d", "wk", "mo", "a"]),
    },
    optional={
        "count": st.integers(1, 30),
        "boundsPeriod": st.just({"start": "2026-04-14", "end": "2026-05"}),
        "when": st.sampled_from(["HS", "MORN", "PCV"]).map(lambda code: [code]),
        "dayOfWeek": st.just(["mon"]),
    },
)
DOSES: Any = st.one_of(
    QUANTITIES.map(lambda dose: {"doseQuantity": dose}),
    st.just({"doseRange": {"low": {"value": 1, "unit": "mg"}, "high": {"value": 2, "unit": "mg"}}}),
)
DOSAGES = st.fixed_dictionaries(
    {},
    optional={
        "text": TEXTS,
        "patientInstruction": TEXTS,
        "route": TEXTS.map(lambda text: {"text": text}),
        "site": TEXTS.map(lambda text: {"text": text}),
        "asNeededBoolean": st.just(True),
        "timing": st.fixed_dictionaries({"repeat": REPEATS}, optional={"code": TEXTS.map(lambda t: {"text": t})}),
        "doseAndRate": DOSES.map(lambda dose: [dose]),
    },
).filter(bool)


@settings(max_examples=150, deadline=None)
@given(
    dosages=st.lists(DOSAGES, max_size=3),
    status=st.sampled_from(["active", "on-hold", "cancelled", "stopped", "completed", "entered-in-error", "unknown"]),
    refills=st.integers(0, 11),
    quantity=QUANTITIES,
    code=st.sampled_from(["308182", "197361"]),
    event=st.sampled_from(["RDE^O11", "RDE^O25", "OMP^O09"]),
)
def test_any_prescription_comes_back(
    dosages: list[Resource], status: str, refills: int, quantity: Resource, code: str, event: str
) -> None:
    request = {
        "resourceType": "MedicationRequest",
        "id": "any",
        "identifier": [{"system": "https://clinic.example/mrn", "value": "RX-1"}],
        "status": status,
        "intent": "order",
        "medicationCodeableConcept": {"coding": [{"system": RXNORM, "code": code}]},
        "subject": {"reference": "Patient/ada"},
        "dosageInstruction": dosages,
        "dispenseRequest": {"quantity": quantity, "numberOfRepeatsAllowed": refills},
    }
    written = write(event, "MedicationRequest/any", [*read_resources(), request])
    assert find_lost(request, written, read_back(written.text)) == []
