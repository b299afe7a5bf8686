"""What a message does to what is there already: updates, permissions, order, merges, appointments, credits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from fhir_server.fhir.definitions import load
from fhir_server.validation.structure import StructureValidator
from mappers.hl7v2.apply import apply_change
from mappers.hl7v2.bundle import Built, build_bundle, write_bundle
from mappers.hl7v2.changes import Change
from mappers.hl7v2.er7 import parse_message
from mappers.hl7v2.mapping import Mapping, map_message
from mappers.hl7v2.needs import REPOINTED_AT_ONCE, State, find_needs
from mappers.hl7v2.partner import Partner

EXPECTED = Path(__file__).parent / "expected"
MRN = "https://example.org/mrn"
PARTNER = Partner(name="north", root="https://example.org/north", zone="America/Chicago", authorities={"MRN": MRN})
Resource = dict[str, Any]


def msh(event: str, control: str = "C9") -> str:
    return f"MSH|^~\\&|EHR|NORTH|PMS|P|20240305120000-0600||{event}|{control}|P|2.5.1\r"


def segment(name: str, **fields: str) -> str:
    """A segment with fields by their number, `f13="555"`."""
    last = max(int(field[1:]) for field in fields)
    return f"{name}|" + "|".join(fields.get(f"f{number}", "") for number in range(1, last + 1)) + "\r"


def pid(**fields: str) -> str:
    """A PID with PID-3 123 and other fields."""
    return segment("PID", **{"f1": "1", "f3": "123^^^MRN^MR", **fields})


def read(text: str, partner: Partner = PARTNER) -> Mapping:
    message = parse_message(text).message
    assert message
    return map_message(message, partner)


def stored(built: Built, number: int = 1) -> list[Resource]:
    """The resources of a bundle as a server keeps them: with ids, and references by id."""
    assert built.bundle, built.issues
    entries = orjson.loads(write_bundle(built.bundle))["entry"]
    ids = {each["fullUrl"]: f"{each['resource']['resourceType']}/{number}-{i}" for i, each in enumerate(entries)}

    def link(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: ids.get(each, link(each)) if key == "reference" else link(each) for key, each in value.items()}
        return [link(each) for each in value] if isinstance(value, list) else value

    kept = []
    for entry in entries:
        resource = link(entry["resource"])
        resource["id"] = ids[entry["fullUrl"]].split("/")[1]
        resource["meta"] = {"versionId": "3"}
        kept.append(resource)
    return kept


def state_of(mapping: Mapping, resources: Sequence[Resource], **more: Any) -> State:
    """The state that a server with these resources gives for a mapping: matches by type and identifier."""
    matches: dict[str, list[Resource]] = {}
    wanted = {change.url: (change.type, {change.identity}) for change in mapping.changes if change.identity}
    wanted |= {f"prior {i}": (merge.type, set(merge.prior)) for i, merge in enumerate(mapping.merges)}
    for key, (kind, identities) in wanted.items():
        for resource in resources:
            own = {(each.get("system"), each.get("value")) for each in resource.get("identifier", [])}
            if resource["resourceType"] == kind and own & {tuple(each) for each in identities if each}:
                matches.setdefault(key, []).append(resource)
    return State(matches=matches, **more)


def after(text: str, resources: Sequence[Resource], partner: Partner = PARTNER, **more: Any) -> Built:
    mapping = read(text, partner)
    built = build_bundle(mapping, state_of(mapping, resources, **more))
    if built.bundle:
        assert StructureValidator(load(), invariants=True).find_issues(orjson.loads(write_bundle(built.bundle))) == ()
    return built


def entries(built: Built) -> dict[str, Resource]:
    assert built.bundle is not None, built.issues
    return {f"{each['request']['method']} {each['request']['url']}": each for each in built.bundle.get("entry", [])}


def of(built: Built, resource_type: str) -> list[Resource]:
    return [each["resource"] for each in entries(built).values() if each["resource"]["resourceType"] == resource_type]


ADA = pid(f5="QUILL^ADA^^^^^L", f7="19700102", f8="F", f13="555-0101", f14="555-0102")


@pytest.fixture
def known() -> list[Resource]:
    return stored(build_bundle(read(msh("ADT^A01") + ADA)))


def test_without_state_the_requests_are_conditional() -> None:
    built = build_bundle(read(msh("ADT^A01") + ADA + "PV1|1|O||||||||||||||||||\r"))
    criteria = "identifier=https%3A%2F%2Fexample.org%2Fmrn%7C123"
    assert entries(built)[f"PUT Patient?{criteria}"]
    oru = build_bundle(read(msh("ORU^R01") + ADA + "OBR|1|P1|F1|1-1^x^LN\r"))
    assert entries(oru)["POST Patient"]["request"]["ifNoneExist"] == criteria


def test_needs_name_what_to_read() -> None:
    needs = find_needs(read(msh("ADT^A40") + pid(f5="QUILL^ADA") + "MRG|77^^^MRN^MR\r"))
    assert (needs[0].type, needs[0].query.split("%7C")[1]) == ("Patient", "123")
    assert needs[-1].query == "identifier=https%3A%2F%2Fexample.org%2Fmrn%7C77"


def test_a_patient_is_found_by_each_number_of_the_partner_but_not_by_a_social_security_number() -> None:
    mapping = read(msh("ADT^A08") + pid(f3="123^^^MRN~9^^^OTHER", f5="QUILL", f19="111223333"))
    (query,) = [need.query for need in find_needs(mapping) if need.type == "Patient"]
    assert ("123" in query, "OTHER%7C9" in query, "111223333" in query) == (True, True, False)


def test_of_several_matches_the_one_with_the_first_number_is_taken() -> None:
    mapping = read(msh("ADT^A08") + pid(f3="123^^^MRN~9^^^OTHER", f5="QUILL^ADA"))
    (change,) = mapping.changes.of_type("Patient")
    other = {**SURVIVOR, "id": "z", "identifier": [{"system": f"{PARTNER.root}/OTHER", "value": "9"}]}
    built = build_bundle(mapping, State(matches={change.url: [other, SURVIVOR]}))
    assert "PUT Patient/a" in entries(built)
    assert any("2 Patient resources have a number" in issue.text for issue in built.issues)


def test_an_update_goes_by_id_with_the_version_that_was_read(known: list[Resource]) -> None:
    built = after(msh("ADT^A08") + pid(f5="QUILL^ADA^^^^^L", f13="555-0199"), known)
    (patient,) = [each for key, each in entries(built).items() if key.startswith("PUT Patient/")]
    assert patient["request"]["ifMatch"] == 'W/"3"'
    numbers = {(each["value"], each.get("use")) for each in patient["resource"]["telecom"]}
    assert numbers == {("555-0199", "home"), ("555-0102", "work")}
    assert (patient["resource"]["birthDate"], patient["resource"]["gender"]) == ("1970-01-02", "female")


def test_what_another_source_wrote_stays(known: list[Resource]) -> None:
    known[0]["telecom"].append({"system": "email", "value": "ada@example.org"})
    built = after(msh("ADT^A31") + pid(f5="QUILL^ADA^^^^^L", f13="555-0199"), known)
    assert {"system": "email", "value": "ada@example.org"} in of(built, "Patient")[0]["telecom"]


@pytest.mark.parametrize(
    ("field", "value", "numbers"),
    [
        ("f13", "", {"555-0101", "555-0102"}),
        ("f13", '""', {"555-0102"}),
        ("f13", "555-0103~555-0104", {"555-0102", "555-0103", "555-0104"}),
        ("f14", '""', {"555-0101"}),
    ],
)
def test_empty_keeps_quotes_delete_and_values_replace(
    known: list[Resource], field: str, value: str, numbers: set[str]
) -> None:
    """Trap V10 on Ada with two phones."""
    text = msh("ADT^A08") + pid(f5="QUILL^ADA^^^^^L", f8="O", **{field: value})
    assert {each["value"] for each in of(after(text, known), "Patient")[0]["telecom"]} == numbers


def test_quotes_delete_a_single_value(known: list[Resource]) -> None:
    assert "birthDate" not in of(after(msh("ADT^A08") + pid(f7='""'), known), "Patient")[0]


def test_quotes_delete_only_what_the_field_fills() -> None:
    """One extension of several, one element of hospitalization, never an identifier."""
    person, visit = {"f5": "QUILL^ADA", "f6": "WREN"}, {"f2": "I", "f19": "V77^^^VN", "f36": "01"}
    first = pid(**person, f17="AGN") + segment("PV1", **visit, f14="7")
    known = stored(build_bundle(read(msh("ADT^A01") + first)))
    second = pid(**person, f2='""', f17='""') + segment("PV1", **visit, f14='""')
    built = after(msh("ADT^A08") + second, known)
    (patient,), (encounter,) = of(built, "Patient"), of(built, "Encounter")
    assert [each["url"].rpartition("-")[2] for each in patient["extension"]] == ["mothersMaidenName", "recorded"]
    assert [each["value"] for each in patient["identifier"]] == ["123"]
    assert list(encounter["hospitalization"]) == ["dischargeDisposition"]


def test_a_message_that_says_what_is_known_writes_nothing() -> None:
    known = stored(after(msh("ADT^A01") + ADA, []))
    assert of(after(msh("ADT^A08") + ADA, known), "Patient") == []


def test_results_do_not_change_a_known_patient(known: list[Resource]) -> None:
    """Trap V11: an ORU with another name; the reference is that of the known patient."""
    built = after(msh("ORU^R01") + pid(f5="QUILL^ADA^X") + "OBR|1|P1|F1|1-1^x^LN\r", known)
    assert of(built, "Patient") == []
    assert of(built, "DiagnosticReport")[0]["subject"] == {"reference": f"Patient/{known[0]['id']}"}
    assert any("do not change a known Patient" in issue.text for issue in built.issues)


def test_a_table_says_what_a_partner_may_do(known: list[Resource]) -> None:
    partner = Partner(
        name="north",
        root=PARTNER.root,
        authorities={"MRN": MRN},
        permissions={"ORU": {"Patient": "change"}, "SIU^S12": {"Patient": ""}},
    )
    oru = after(msh("ORU^R01") + pid(f5="QUILL^ADA^X") + "OBR|1|P1|F1|1-1^x^LN\r", known, partner)
    assert of(oru, "Patient")[0]["name"][0]["given"] == ["ADA", "X"]
    siu = msh("SIU^S12") + "SCH|P1|F1|||||||30|min|^^^20240401090000-0500\r" + pid(f5="QUILL^ADA")
    built = after(siu, [], partner)
    assert of(built, "Patient") == []
    actor = of(built, "Appointment")[0]["participant"][0]["actor"]
    assert actor == {"type": "Patient", "identifier": {"system": MRN, "value": "123"}}


def at(time: str, event: str, rest: str) -> str:
    """A message that was recorded at a time."""
    return msh(event).replace("20240305120000-0600", time) + rest


def test_an_older_message_changes_nothing_newer_and_creates_what_is_not_there() -> None:
    visit = "PV1|1|O|||||||||||||||||V77^^^VISITS\r"
    known = stored(after(at("20240305120000-0600", "ADT^A08", pid(f5="NEW^NAME")), []))
    for older in ("20240305115959-0600", "20240305185959+0100", "20240305115959.999-0600"):
        built = after(at(older, "ADT^A01", pid(f5="OLD^NAME") + visit), known)
        assert of(built, "Patient") == []
        assert [each["status"] for each in of(built, "Encounter")] == ["in-progress"]
        assert any("recorded before one that is applied" in issue.text for issue in built.issues)
    for newer in ("20240305120000-0600", "20240305120000.1-0600"):
        (patient,) = of(after(at(newer, "ADT^A08", pid(f5="OLD^NAME")), known), "Patient")
        assert patient["name"][0]["family"] == "OLD"


def test_the_order_holds_although_the_newer_message_said_what_was_known() -> None:
    first = stored(after(at("20240305120000-0600", "ADT^A08", pid(f5="QUILL^ADA")), []))
    (patient,) = of(after(at("20240305121000-0600", "ADT^A08", pid(f5="QUILL^ADA")), first), "Patient")
    built = after(at("20240305120500-0600", "ADT^A08", pid(f5="OTHER^ADA")), [patient])
    assert of(built, "Patient") == []


def test_the_order_of_one_partner_does_not_bind_another() -> None:
    known = stored(after(at("20240305120000-0600", "ADT^A08", pid(f5="NEW^NAME")), []))
    south = Partner(name="south", root="https://example.org/south", authorities={"MRN": MRN})
    (patient,) = of(after(at("20240305110000-0600", "ADT^A08", pid(f5="OLD^NAME")), known, south), "Patient")
    assert [each["family"] for each in patient["name"]] == ["NEW", "OLD"]


def test_an_update_of_an_unknown_patient_creates_and_warns() -> None:
    built = after(msh("ADT^A08") + ADA, [])
    assert "POST Patient" in entries(built)
    assert any("not known here and is created" in issue.text for issue in built.issues)


def test_a_status_stays_where_the_event_says_none() -> None:
    visit = "PV1|1|O|||||||||||||||||V77^^^VISITS\r"
    known = stored(build_bundle(read(msh("ADT^A01") + ADA + visit)))
    built = after(msh("ADT^A08") + ADA + visit.replace("|O|", "|E|"), known)
    (encounter,) = of(built, "Encounter")
    assert (encounter["status"], encounter["class"]["code"]) == ("in-progress", "EMER")


SURVIVOR: Resource = {
    "resourceType": "Patient",
    "id": "a",
    "meta": {"versionId": "3"},
    "active": True,
    "identifier": [{"system": MRN, "value": "123"}],
}
PRIOR = {
    "resourceType": "Patient",
    "id": "b",
    "meta": {"versionId": "5"},
    "active": True,
    "identifier": [{"system": MRN, "value": "77"}, {"system": "urn:other", "value": "X"}],
}
MERGE = msh("ADT^A40") + pid() + "MRG|77^^^MRN^MR\r"


def test_a_merge_moves_identifiers_links_both_and_repoints() -> None:
    claim: Resource = {
        "resourceType": "Claim",
        "id": "c",
        "meta": {"versionId": "1"},
        "patient": {"reference": "Patient/b"},
    }
    claim |= {"status": "active", "use": "claim", "created": "2024-01-01", "priority": {"text": "normal"}}
    insurance = {"sequence": 1, "focal": True, "coverage": {"display": "x"}}
    claim |= {"type": {"text": "x"}, "provider": {"display": "x"}, "insurance": [insurance]}
    built = after(MERGE, [SURVIVOR, PRIOR], referrers={"Patient/b": [claim]})
    found = entries(built)
    survivor, prior = found["PUT Patient/a"]["resource"], found["PUT Patient/b"]["resource"]
    assert [(each["value"], each.get("use")) for each in survivor["identifier"]] == [
        ("123", None),
        ("77", "old"),
        ("X", "old"),
    ]
    assert survivor["link"] == [{"other": {"reference": "Patient/b"}, "type": "replaces"}]
    assert "identifier" not in prior and prior["active"] is False
    assert prior["link"] == [{"other": {"reference": "Patient/a"}, "type": "replaced-by"}]
    assert found["PUT Claim/c"]["resource"]["patient"] == {"reference": "Patient/a"}
    assert [found[f"PUT {key}"]["request"]["ifMatch"] for key in ("Patient/a", "Patient/b", "Claim/c")] == [
        'W/"3"',
        'W/"5"',
        'W/"1"',
    ]


def test_a_merge_is_what_is_expected() -> None:
    """The whole transaction of an A40, written by hand."""
    case = json.loads((EXPECTED / "adt_a40.json").read_text(encoding="utf-8"))
    text = (EXPECTED / "adt_a40.hl7").read_text(encoding="utf-8")
    found = entries(after(text, case["stored"], referrers=case["referrers"]))
    assert set(found) == {*case["entries"], "POST Organization", "POST Provenance"}
    for name, expected in case["entries"].items():
        assert found[name]["resource"] == expected, name


def test_the_same_arguments_give_the_same_bundle(known: list[Resource]) -> None:
    text = msh("ADT^A01") + ADA + "PV1|1|O|||||||||||||||||V77^^^VISITS\rDG1|1||J06.9^^I10C\r"
    mapping = read(text)
    for state in (None, state_of(mapping, known)):
        first = write_bundle(build_bundle(mapping, state).bundle or {})
        assert write_bundle(build_bundle(mapping, state).bundle or {}) == first
        assert write_bundle(build_bundle(read(text), state).bundle or {}) == first


def test_a_late_message_on_the_old_number_updates_the_survivor() -> None:
    merged = {**SURVIVOR, "identifier": [*SURVIVOR["identifier"], {"system": MRN, "value": "77", "use": "old"}]}
    built = after(msh("ADT^A08") + pid(f3="77^^^MRN", f8="F"), [merged])
    (patient,) = of(built, "Patient")
    assert (patient["id"], patient["gender"]) == ("a", "female")
    assert [(each["value"], each.get("use")) for each in patient["identifier"]] == [("123", None), ("77", "old")]


def test_a_merge_of_an_unknown_prior_is_taken_with_an_issue() -> None:
    """Trap V16: A34 of 2.3 as well."""
    for text in (MERGE, MERGE.replace("ADT^A40", "ADT^A34").replace("2.5.1", "2.3"), MERGE.replace("A40", "A18")):
        built = after(text, [SURVIVOR])
        assert ("77", "old") in {(each["value"], each.get("use")) for each in of(built, "Patient")[0]["identifier"]}
        assert any("prior Patient `77` is not known" in issue.text for issue in built.issues)


def test_more_references_than_one_transaction_takes_are_left_to_a_job() -> None:
    notes = [
        {
            "resourceType": "Observation",
            "id": str(number),
            "status": "final",
            "code": {"text": "x"},
            "subject": {"reference": "Patient/b"},
        }
        for number in range(REPOINTED_AT_ONCE + 1)
    ]
    built = after(MERGE, [SURVIVOR, PRIOR], referrers={"Patient/b": notes})
    assert len(of(built, "Observation")) == REPOINTED_AT_ONCE
    (task,) = of(built, "Task")
    assert task["code"]["coding"][0]["code"] == "repoint-references"


def test_an_account_merge_and_a_visit_merge() -> None:
    account: Resource = {"resourceType": "Account", "id": "m", "status": "active"}
    account["identifier"] = [{"system": f"{PARTNER.root}/AC", "value": "9"}]
    text = msh("ADT^A41") + pid(f18="8^^^AC") + "MRG|77^^^MRN^MR||9^^^AC\r"
    built = after(text, [SURVIVOR, account])
    assert entries(built)["PUT Account/m"]["resource"]["status"] == "entered-in-error"
    (survivor,) = [each for each in of(built, "Account") if "id" not in each]
    assert [each["value"] for each in survivor["identifier"]] == ["8", "9"]
    visit = msh("ADT^A42") + pid() + "MRG|77^^^MRN^MR||||V1^^^VN\rPV1|1|O|||||||||||||||||V2^^^VN\r"
    (encounter,) = of(after(visit, [SURVIVOR]), "Encounter")
    assert [each["value"] for each in encounter["identifier"]] == ["V2", "V1"]


SIU = "SCH|P1|F1|||||||30|min|^^^{}-0500\r"
WREN, FINCH = "AIP|1|A|1700000007^WREN\r", "AIP|2|A|1700000015^FINCH\r"


def test_a_rescheduled_appointment_frees_the_slot_of_who_is_not_asked_any_more() -> None:
    known = stored(build_bundle(read(msh("SIU^S12") + SIU.format("20240401090000") + "RGS|1\r" + WREN + FINCH)))
    (appointment,) = [each for each in known if each["resourceType"] == "Appointment"]
    slots = [each for each in known if each["resourceType"] == "Slot"]
    text = msh("SIU^S13") + SIU.format("20240402100000") + "RGS|1\r" + WREN
    built = after(text, known, slots={f"Appointment/{appointment['id']}": slots})
    found = {each["id"]: (each["status"], each["start"]) for each in of(built, "Slot")}
    assert found == {
        slots[0]["id"]: ("busy", "2024-04-02T10:00:00-05:00"),
        slots[1]["id"]: ("free", "2024-04-01T09:00:00-05:00"),
    }
    assert len(of(built, "Appointment")[0]["participant"]) == 1


@pytest.mark.parametrize(("event", "count"), [("S18", 2), ("S20", 1)])
def test_resources_are_added_to_and_taken_from_an_appointment(event: str, count: int) -> None:
    """S18 adds a resource; S20 to S22 take away only the one that they name, and its Slot."""
    first = WREN if event == "S18" else WREN + FINCH
    known = stored(build_bundle(read(msh("SIU^S12") + SIU.format("20240401090000") + "RGS|1\r" + first)))
    (appointment,) = [each for each in known if each["resourceType"] == "Appointment"]
    slots = [each for each in known if each["resourceType"] == "Slot"]
    text = msh(f"SIU^{event}") + SIU.format("20240401090000") + "RGS|1\r" + FINCH
    built = after(text, known, slots={f"Appointment/{appointment['id']}": slots})
    (changed,) = of(built, "Appointment")
    assert len(changed["participant"]) == count and len(changed["slot"]) == count
    assert changed["status"] == "booked"
    assert [each["status"] for each in of(built, "Slot")] == ["busy" if event == "S18" else "free"]


def test_a_deletion_of_an_unknown_appointment_without_times_is_refused() -> None:
    built = after(msh("SIU^S17") + "SCH|P1|F1\r", [])
    assert built.bundle is None
    assert [issue.condition for issue in built.issues if issue.severity == "error"] == ["204"]


CHARGE = "FT1|1|T1||20240304||{}|99213^^CPT|||1|{}|||||||||||||||||||{}T1\r"


@pytest.mark.parametrize(
    ("status", "expected"), [("billable", "entered-in-error"), ("billed", "credit-of-billed-charge")]
)
def test_a_credit_undoes_a_charge_that_is_not_billed(status: str, expected: str) -> None:
    known = stored(build_bundle(read(msh("DFT^P03") + ADA + CHARGE.format("CG", "10.00", ""))))
    for each in known:
        if each["resourceType"] == "ChargeItem":
            each["status"] = status
    built = after(msh("DFT^P03") + ADA + CHARGE.format("CD", "10.00", ""), known)
    charges = [each["status"] for each in of(built, "ChargeItem")]
    tasks = [each["code"]["coding"][0]["code"] for each in of(built, "Task")]
    assert (charges or tasks) == [expected] and not (charges and tasks)


def test_a_charge_that_is_sent_again_does_not_become_billable_again() -> None:
    known = stored(build_bundle(read(msh("DFT^P03") + ADA + CHARGE.format("CG", "10.00", ""))))
    for each in known:
        if each["resourceType"] == "ChargeItem":
            each["status"] = "billed"
    built = after(msh("DFT^P03") + ADA + CHARGE.format("CG", "12.00", ""), known)
    assert of(built, "ChargeItem") == []
    assert any("is billed already" in issue.text for issue in built.issues)


def test_a_credit_of_an_unknown_charge_is_a_task() -> None:
    built = after(msh("DFT^P03") + ADA + CHARGE.format("CD", "10.00", ""), [])
    assert of(built, "ChargeItem") == []
    assert of(built, "Task")[0]["code"]["coding"][0]["code"] == "credit-not-applied"


def test_a_value_inside_an_element_takes_the_place_of_one_of_another_type() -> None:
    """R4 allows one type of `Specimen.collection.collected[x]`."""
    current = {"resourceType": "Specimen", "id": "1", "collection": {"collectedDateTime": "2024", "method": {}}}
    told = {"resourceType": "Specimen", "collection": {"collectedPeriod": {"start": "2023"}}}
    updated = apply_change(current, Change("Specimen", "urn:x", None, told))
    assert updated["collection"] == {"collectedPeriod": {"start": "2023"}, "method": {}}
