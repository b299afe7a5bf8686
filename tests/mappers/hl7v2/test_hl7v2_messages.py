"""Messages of each family against what is expected of them, by hand from the maps, and the rules of the events."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from mappers.hl7v2.bundle import Built, build_bundle, write_bundle
from mappers.hl7v2.er7 import parse_message
from mappers.hl7v2.mapping import Mapping, map_message
from mappers.hl7v2.partner import CustomField, Partner, check_partner

EXPECTED = Path(__file__).parent / "expected"
ROOT = "https://example.org/north"
PARTNER = Partner(name="north", root=ROOT, zone="America/Chicago", authorities={"MRN": "https://example.org/mrn"})
NOW = datetime(2024, 3, 5, 18, tzinfo=UTC)


def msh(event: str, version: str = "2.5.1") -> str:
    return f"MSH|^~\\&|EHR|NORTH|PMS|P|20240305120000-0600||{event}|C9|P|{version}\r"


def read(text: str, partner: Partner = PARTNER) -> Mapping:
    parsed = parse_message(text)
    assert parsed.message
    return map_message(parsed.message, partner, NOW)


def build(text: str, partner: Partner = PARTNER) -> Built:
    return build_bundle(read(text, partner))


def resources(built: Built, resource_type: str) -> list[dict[str, Any]]:
    assert built.bundle is not None, built.issues
    bundle = orjson.loads(write_bundle(built.bundle))
    return [each["resource"] for each in bundle["entry"] if each["resource"]["resourceType"] == resource_type]


def name_of(resource: dict[str, Any]) -> str:
    """The type of a resource and the number that it is known by: the last one, `derived` where it has none."""
    value = resource.get("identifier", [{}])[-1].get("value", "")
    kind = resource["resourceType"]
    if kind == "Slot":
        return f"Slot {resource['end'][11:16]}"
    return f"{kind} derived" if len(value) == 36 else f"{kind} {value}"


def named(built: Built) -> dict[str, Any]:
    """The entries by method and name, with references by name; our own extensions of sources are left out."""
    assert built.bundle is not None, built.issues
    entries = orjson.loads(write_bundle(built.bundle))["entry"]
    names = {entry["fullUrl"]: name_of(entry["resource"]) for entry in entries}

    def rename(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: names.get(each, rename(each)) if key == "reference" else rename(each)
                for key, each in value.items()
            }
        return [rename(each) for each in value] if isinstance(value, list) else value

    return {
        f"{entry['request']['method']} {name_of(entry['resource'])}": rename(entry["resource"]) for entry in entries
    }


@pytest.mark.parametrize("case", ["dft_p03", "siu_s12"])
def test_a_message_becomes_what_is_expected(case: str) -> None:
    found = named(build((EXPECTED / f"{case}.hl7").read_text(encoding="utf-8")))
    for name, expected in json.loads((EXPECTED / f"{case}.json").read_text(encoding="utf-8")).items():
        actual = found[name]
        if "identifier" not in expected:
            actual = {key: value for key, value in actual.items() if key != "identifier"}
        assert actual == expected, name


def test_amounts_keep_their_digits() -> None:
    built = build((EXPECTED / "dft_p03.hl7").read_text(encoding="utf-8"))
    assert built.bundle and b'"priceOverride":{"value":125.50,' in write_bundle(built.bundle)


PID = "PID|1||123^^^MRN^MR||QUILL^ADA^^^^^L||19700102|F\r"
VISIT = "PV1|1|O|||||||||||||||||V77^^^VISITS\r"


@pytest.mark.parametrize(
    ("event", "status"),
    [
        ("A01", "in-progress"),
        ("A02", "in-progress"),
        ("A03", "finished"),
        ("A04", "arrived"),
        ("A05", "planned"),
        ("A06", "in-progress"),
        ("A07", "in-progress"),
        ("A08", "unknown"),
        ("A09", "unknown"),
        ("A10", "unknown"),
        ("A11", "cancelled"),
        ("A12", "unknown"),
        ("A13", "in-progress"),
        ("A14", "planned"),
    ],
)
def test_the_event_gives_the_status_of_a_new_visit(event: str, status: str) -> None:
    """A08 to A10 and A12 leave the status of a known visit; a new one is `unknown`."""
    (encounter,) = resources(build(msh(f"ADT^{event}") + PID + VISIT), "Encounter")
    assert encounter["status"] == status


@pytest.mark.parametrize("event", ["A28", "A29", "A31"])
def test_events_about_a_person_never_touch_a_visit(event: str) -> None:
    assert resources(build(msh(f"ADT^{event}") + PID + VISIT), "Encounter") == []


@pytest.mark.parametrize(
    ("event", "order", "told", "not_told"),
    [
        # ORC-7 and ORC-10 are of prescriptions, ORC-38 and TQ1-2 of results
        ("ORU^R01", "ORC|RE|P1|F1||||^^^20240305|||7^WREN{blank}X38\r", ("ORC-7", "ORC-10"), ("ORC-38",)),
        ("RDE^O11", "ORC|NW|P1|F1||||^^^20240305|||7^WREN{blank}X38\r", ("ORC-38",), ("ORC-7", "ORC-10")),
        ("SIU^S12", "TQ1|1|2^TAB|Q6H|||||20240401093000|R\r", ("TQ1-2", "TQ1-3"), ("TQ1-1", "TQ1-8", "TQ1-9")),
        ("ORU^R01", "TQ1|1|2^TAB|Q6H||||20240401090000||R\r", ("TQ1-3",), ("TQ1-1", "TQ1-2", "TQ1-9")),
        ("RDE^O11", "TQ1|1|2^TAB|Q6H||||20240401090000||R\r", (), ("TQ1-1", "TQ1-2", "TQ1-3", "TQ1-9")),
    ],
)
def test_a_field_that_only_another_family_reads_is_told(
    event: str, order: str, told: tuple[str, ...], not_told: tuple[str, ...]
) -> None:
    """https://www.hl7.eu/HL7v2x/v251/std251/ch04.html#Heading25 (ORC), #Heading35 (TQ1)."""
    texts = {
        "ORU^R01": PID + "{orc}OBR|1|P1|F1|1^x^LN\r{tq1}OBX|1|ST|2^y^LN||a||||||F\r",
        "RDE^O11": PID + "{orc}RXE||7980^Penicillin^RXNORM|1||TAB\r{tq1}RXR|PO\r",
        "SIU^S12": "SCH|A1|A2|||||||30|min|^^^20240401090000^20240401093000\r{tq1}" + PID,
    }
    name = order[:3]
    orders = {"ORC": "ORC|RE|P1|F1\r", "TQ1": "", name: order.replace("{blank}", "|" * 28)}
    issues = read(msh(event) + texts[event].format(orc=orders["ORC"], tq1=orders["TQ1"])).issues
    places = {f"{each.location.segment}-{each.location.field}" for each in issues if "is not mapped" in each.text}
    assert places >= set(told)
    assert places.isdisjoint(not_told)


def test_a29_makes_a_person_inactive() -> None:
    (patient,) = resources(build(msh("ADT^A29") + PID), "Patient")
    assert patient["active"] is False


def test_the_event_may_stand_in_evn_before_2_3() -> None:
    assert len(resources(build(msh("ADT", "2.2") + "EVN|A01|20240305\r" + PID), "Patient")) == 1


@pytest.mark.parametrize(
    ("text", "condition", "sentence"),
    [
        (msh("ADT^A99") + PID, "201", "The event `A99` of ADT is not supported; A01, A02"),
        (msh("ORM^O01") + PID, "200", "Messages of type `ORM` are not supported; ADT, DFT, OMP, ORU, RDE, SIU are."),
        (msh("ADT^A01", "3.0") + PID, "203", "Version `3.0` is not supported"),
        (msh("ADT^A01").replace("|P|2", "|D|2") + PID, "202", "The processing id `D` is not accepted here; P is."),
        (msh("ADT^A01").replace("|C9|", "||") + PID, "101", "MSH-10 is empty"),
        (msh("ADT^A01"), "100", "The message has no PID segment."),
        (msh("ADT^A01") + PID.replace("ADA", "A\nDA"), "100", "a field must not hold line ends"),
        (msh("ADT^A01") + "PID|1||||QUILL^ADA\r", "101", "PID-3 is empty"),
        (msh("ADT^A40") + PID + "MRG|||2\r", "101", "MRG-1 is empty"),
        (msh("ADT^A40") + PID + "MRG|123^^^MRN\r", "204", "are the same"),
        (msh("DFT^P03") + PID, "100", "needs the segments PID and FT1"),
        (msh("DFT^P03") + PID + "FT1|1|T1||20240304||XX|99213\r", "103", "FT1-6 is `XX`"),
        (msh("DFT^P03") + PID + "FT1|1|T1||20240304||CG\r", "101", "a charge needs a code"),
        (msh("SIU^S12") + PID, "100", "The message has no SCH segment."),
        (msh("SIU^S12") + "SCH|1|2\r" + PID, "101", "has no start and end"),
        (msh("SIU^S12") + "SCH|1|2|||||||||^^^20240401\r", "102", "a date without a time of day"),
        (msh("SIU^S12") + "SCH|1|2|||||||30|min|^^^20240310023000\r", "102", "the hour that the clock leaves out"),
        (msh("SIU^S12") + "SCH|||||||||30|min|^^^20240401090000\r", "101", "SCH-1 and SCH-2 are empty"),
        (msh("SIU^S23") + "SCH|1|2|||||||||^^^20240401090000\r", "101", "A block of time needs a resource"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_reason(text: str, condition: str, sentence: str) -> None:
    built = build(text)
    assert built.bundle is None
    assert (condition, True) in {(issue.condition, sentence in issue.text) for issue in built.issues}


def test_a_message_for_another_receiver_is_rejected() -> None:
    partner = Partner(receivers=frozenset({("PMS", "Q")}))
    (issue,) = [each for each in build(msh("ADT^A01") + PID, partner).issues if each.severity == "error"]
    assert issue.rejected and str(issue.location) == "MSH[1]-5"


def test_identity_is_value_and_authority() -> None:
    """Trap V12: two partners send `123`, and an A03 finds the visit of the A01."""
    text = msh("ADT^A01") + "PID|1||123||QUILL\r" + VISIT
    systems = {
        resources(build(text, Partner(name=name)), "Patient")[0]["identifier"][0]["system"] for name in ("n", "s")
    }
    assert len(systems) == 2
    keys = []
    for event in ("A01", "A03"):
        mapping = read(msh(f"ADT^{event}") + PID + VISIT)
        keys.append([change.identity for change in mapping.changes.of_type("Encounter")])
    assert keys[0] == keys[1]


def test_findings_of_an_admission_that_share_a_code_are_all_kept() -> None:
    text = msh("ADT^A01") + PID + "OBX|1|ST|1-1^x^LN||a||||||F\rOBX|2|ST|1-1^x^LN||b||||||F\r"
    assert [each["valueString"] for each in resources(build(text), "Observation")] == ["a", "b"]


def test_nk1_is_a_contact_and_a_related_person_but_for_employers() -> None:
    text = msh("ADT^A01") + PID + "NK1|1|QUILL^BEA|MTH^Mother^HL70063|||||\rNK1|2|ACME|EMR^Employer^HL70063\r"
    built = build(text)
    (patient,) = resources(built, "Patient")
    assert [each["name"]["family"] for each in patient["contact"]] == ["QUILL", "ACME"]
    (relative,) = resources(built, "RelatedPerson")
    assert relative["name"][0]["given"] == ["BEA"]


@pytest.mark.parametrize(
    ("code", "flag", "expected"),
    [
        ("SEL", False, "self"),
        ("SPO", False, "spouse"),
        ("MTH", False, "child"),
        ("NCH", False, "parent"),
        ("MTH", True, "parent"),
        ("NCH", True, "child"),
    ],
)
def test_the_relationship_is_that_of_the_beneficiary(code: str, flag: bool, expected: str) -> None:
    text = msh("ADT^A01") + PID + f"IN1|1|GOLD|99^^^PAYERS|ACME HEALTH||||||||||||QUILL^BEA|{code}^^HL70063\r"
    found = named(build(text, Partner(patient_to_insured=flag)))
    (coverage,) = [each for each in found.values() if each["resourceType"] == "Coverage"]
    codings = coverage["relationship"]["coding"]
    assert codings[0]["code"] == expected
    assert codings[1] == {"system": "http://terminology.hl7.org/CodeSystem/v2-0063", "code": code}
    assert coverage["subscriber"]["reference"].split()[0] == ("Patient" if code == "SEL" else "RelatedPerson")


def test_a_payer_never_lives_at_home() -> None:
    """Invariants org-2 and org-3 of https://hl7.org/fhir/R4/organization.html."""
    text = (
        msh("ADT^A08")
        + "PID|1||123^^^MRN^MR\rIN1|1||99|ACME|2 ELM ST^^PEORIA^IL^61602^^H~PO 1^^PEORIA^^^^B||5550101^PRN^PH\r"
    )
    (payor,) = [each for each in resources(build(text), "Organization") if each.get("name") == "ACME"]
    assert [each.get("use") for each in payor["address"]] == [None, "work"]
    assert [each.get("use") for each in payor["telecom"]] == [None]


def test_unmapped_segments_and_fields_are_listed() -> None:
    text = msh("ADT^A01") + PID.replace("|F\r", "|F||||||||||||||||||||||Q\r") + "ZPD|1|x\rRXA|1\r"
    told = [(str(each.location), each.severity) for each in build(text).issues]
    assert ("PID[1]-30[1]", "warning") in told
    assert ("ZPD[1]", "information") in told
    assert told.count(("RXA[1]", "information")) == 1


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (msh("ADT^A31") + PID + VISIT, "PV1[1]"),
        (msh("ADT^A29") + PID + "NK1|1|QUILL^BEA\r", "NK1[1]"),
        (msh("ADT^A40") + PID + "MRG|77^^^MRN\rPV1|1|O||||||||||||||||||\r", "PV1[1]"),
        (msh("ADT^A01") + PID + "PV1|1|N\r", "PV1[1]"),
        (msh("ADT^A01") + PID + "GT1|1||QUILL^BEA\r", "GT1[1]"),
        (msh("ADT^A01") + PID + "ROL|1|AD|PP\r", "ROL[1]-4"),
        (msh("ADT^A01") + PID + "AL1|1|DA\r", "AL1[1]-3"),
        (msh("ORU^R01") + PID + "NTE|1||of the patient\rOBR|1|P1|F1|1-1^x^LN\r", "NTE[1]"),
        (msh("ORU^R01") + PID + "OBR|1|P1|F1|1-1^x^LN\rTQ1|1\rTQ1|2|3\r", "TQ1[2]"),
    ],
)
def test_what_an_event_does_not_read_is_listed(text: str, place: str) -> None:
    assert place in [str(issue.location) for issue in build(text).issues]


def test_segments_of_the_site_are_mapped_by_its_rows() -> None:
    partner = Partner(
        custom_fields=(CustomField("ZPD-2", "Patient", "extension{urn:site:church}.valueString", "text"),),
        ignored=frozenset({"PID-8", "ZPD-1", "ZZZ"}),
    )
    built = build(msh("ADT^A01") + PID + "ZPD|1|St. Ann\rZZZ|1\r", partner)
    (patient,) = resources(built, "Patient")
    assert patient["extension"] == [{"url": "urn:site:church", "valueString": "St. Ann"}]
    assert "gender" not in patient
    assert built.issues == ()


def test_a_wrong_configuration_is_told() -> None:
    partner = Partner(zone="Mars/Base", permissions={"SIU": {"Patient": "write"}})
    assert [each.split(" ")[1] for each in check_partner(partner)] == ["zone", "permission"]


ORU = msh("ORU^R01") + PID


def test_results_that_share_a_code_are_all_kept() -> None:
    text = (
        ORU
        + "OBR|1|P1|F1|24331-1^Lipids^LN|||20240304\r"
        + "OBX|1|TX|18842-5^Note^LN||a\rOBX|2|TX|18842-5^Note^LN||b\r"
    )
    built = build(text)
    assert [each["valueString"] for each in resources(built, "Observation")] == ["a", "b"]
    (report,) = resources(built, "DiagnosticReport")
    assert len(report["result"]) == 2


def test_a_result_that_is_sent_again_is_the_same_resource() -> None:
    text = ORU + "OBR|1|P1|F1|24331-1^Lipids^LN\rOBX|1|NM|2093-3^Chol^LN||{}|mg/dL^^UCUM|<200|H|||{}\r"
    identities = [
        [(change.type, change.identity) for change in read(text.format(number, status)).changes if change.identity]
        for number, status in (("240", "P"), ("238", "C"))
    ]
    assert identities[0] == identities[1]
    (observation,) = resources(build(text.format("238", "C")), "Observation")
    assert observation["valueQuantity"] == {
        "value": 238,
        "unit": "mg/dL",
        "system": "http://unitsofmeasure.org",
        "code": "mg/dL",
    }
    assert observation["referenceRange"][0]["high"]["value"] == 200
    assert observation["status"] == "corrected"
    assert observation["interpretation"][0]["coding"][0]["code"] == "H"


def test_two_orders_with_one_placer_number_are_two_requests() -> None:
    text = ORU + "OBR|1|P1|F1|24331-1^Lipids^LN\rOBR|2|P1|F2|2345-7^Glucose^LN\r"
    assert len(resources(build(text), "ServiceRequest")) == 2
    assert len(resources(build(text), "DiagnosticReport")) == 2


@pytest.mark.parametrize(
    ("kind", "text", "name", "expected"),
    [
        ("CE", "^Not detected", "valueCodeableConcept", {"text": "Not detected"}),
        ("ST", "red", "valueString", "red"),
        ("DT", "20240304", "valueDateTime", "2024-03-04"),
        ("TM", "101500", "valueTime", "10:15:00"),
        ("DR", "20240301^20240304", "valuePeriod", {"start": "2024-03-01", "end": "2024-03-04"}),
        ("NM", "positive", "valueString", "positive"),
        ("VR", "1^2", "valueString", "1-2"),
    ],
)
def test_the_type_of_a_result_is_that_of_obx_2(kind: str, text: str, name: str, expected: object) -> None:
    (observation,) = resources(
        build(ORU + f"OBR|1|P1|F1|1-1^x^LN\rOBX|1|{kind}|2-2^y^LN||{text}||||||F\r"), "Observation"
    )
    assert observation[name] == expected


@pytest.mark.parametrize(
    ("event", "status", "expected", "slot"),
    [
        ("S12", "", "booked", "busy"),
        ("S14", "Pending", "pending", "busy-tentative"),
        ("S15", "", "cancelled", "free"),
        ("S17", "", "entered-in-error", "free"),
        ("S26", "", "noshow", "busy"),
        ("S12", "Cancelled", "cancelled", "free"),
    ],
)
def test_the_status_of_an_appointment(event: str, status: str, expected: str, slot: str) -> None:
    text = (
        msh(f"SIU^{event}") + f"SCH|P1|F1||||OTH^Other^HL70276|||30|min|^^^20240401090000-0500||||||||||||||{status}\r"
    )
    built = build(text + PID + "RGS|1\rAIP|1|A|1700000007^WREN\r")
    (appointment,) = resources(built, "Appointment")
    assert appointment["status"] == expected
    assert [each["status"] for each in resources(built, "Slot")] == [slot]
    assert ("cancelationReason" in appointment) == (expected == "cancelled")


def test_a_block_of_time_is_slots_alone() -> None:
    text = msh("SIU^S23") + "SCH|P1|F1\rRGS|1\rAIP|1|A|1700000007^WREN|||20240401090000-0500|||60|min\r"
    built = build(text)
    assert resources(built, "Appointment") == []
    (slot,) = resources(built, "Slot")
    assert (slot["status"], slot["end"]) == ("busy-unavailable", "2024-04-01T10:00:00-05:00")
