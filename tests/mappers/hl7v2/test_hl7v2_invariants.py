"""What breaks an invariant of R4 is taken out of its resource and told: https://hl7.org/fhir/R4/conformance-rules.html."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import orjson
import pytest

from fhir_server.fhir.definitions import load
from fhir_server.validation.structure import StructureValidator
from mappers.hl7v2.bundle import Built, build_bundle, write_bundle
from mappers.hl7v2.er7 import Message, parse_message
from mappers.hl7v2.mapping import map_message
from tests.mappers.hl7v2.test_hl7v2_corpus import PARTNER as ANY
from tests.mappers.hl7v2.test_hl7v2_corpus import read as read_sample
from tests.mappers.hl7v2.test_hl7v2_corpus import samples
from tests.mappers.hl7v2.test_hl7v2_state import after, msh, of, pid, read, segment, state_of, stored

ADA = pid(f5="QUILL^ADA")
ORDER = "OBR|1|P1|F1|1-1^x^LN||||||||||||||||||||||F\r"
CUTS = ("", '""', "20240101", "20200101", "x", "1^2^3", "^^^^", "^^PH", "^NET", "=")


@pytest.fixture(scope="module")
def validator() -> StructureValidator:
    return StructureValidator(load(), invariants=True)


def build(text: str) -> Built:
    return build_bundle(read(text))


def list_resources(built: Built) -> list[dict[str, Any]]:
    bundle = orjson.loads(write_bundle(built.bundle)) if built.bundle else {}
    return [entry["resource"] for entry in bundle.get("entry", ())]


def list_faults(validator: StructureValidator, built: Built) -> list[str]:
    """The issues of every resource of a bundle."""
    found = [(each["resourceType"], issue) for each in list_resources(built) for issue in validator.find_issues(each)]
    return [f"{type} {issue.diagnostics}" for type, issue in found]


def assert_told(built: Built, key: str) -> None:
    assert [each.text for each in built.issues if key in each.text], built.issues


def test_a_period_ends_after_its_start(validator: StructureValidator) -> None:
    visit = segment("PV1", f1="1", f2="I", f19="V1^^^VISITS", f44="20240305", f45="20240303235959-0600")
    built = build(msh("ADT^A03") + ADA + visit)
    assert of(built, "Encounter")[0]["period"] == {"start": "2024-03-05"}
    assert_told(built, "per-1")
    same = build(msh("ADT^A03") + ADA + visit.replace("20240303235959", "20240305100000"))
    assert of(same, "Encounter")[0]["period"]["end"] == "2024-03-05T10:00:00-06:00"
    assert list_faults(validator, built) == list_faults(validator, same) == []


def test_a_new_start_ends_the_old_end() -> None:
    visit = segment("PV1", f1="1", f2="I", f19="V1^^^VISITS", f44="20240305", f45="20240306")
    known = stored(build(msh("ADT^A03") + ADA + visit))
    again = segment("PV1", f1="1", f2="I", f19="V1^^^VISITS", f44="20240401")
    built = after(msh("ADT^A01") + ADA + again, known)
    assert of(built, "Encounter")[0]["period"] == {"start": "2024-04-01"}


def test_a_contact_of_whom_nothing_but_the_relation_is_told_is_left_out() -> None:
    text = msh("ADT^A01") + ADA + "NK1|1|QUILL^EVE|MTH\rNK1|2||FTH\r"
    built = after(text, [])
    (patient,) = of(built, "Patient")
    assert [each["name"]["family"] for each in patient["contact"]] == ["QUILL"]
    assert_told(built, "pat-1")
    mapping = read(text)
    again = build_bundle(mapping, state_of(mapping, stored(built)))
    assert again.bundle is not None and of(again, "Patient") == [], "what is left out changes nothing"


def test_no_address_or_number_of_a_payer_is_of_a_home(validator: StructureValidator) -> None:
    contact = {"f5": "1 ST^^X^IL^60000^USA^H", "f7": "^PRN^PH^^^312^1"}
    insurance = segment("IN1", f1="1", f2="PPO", f3="PAY1", f4="PAYER", **contact)
    built = build(msh("ADT^A01") + ADA + insurance)
    (payer,) = [each for each in list_resources(built) if each.get("name") == "PAYER"]
    assert "use" not in payer["address"][0] and "use" not in payer["telecom"][0]
    assert list_faults(validator, built) == []


def test_details_of_an_order_without_code_are_left_out() -> None:
    order = segment("OBR", f1="1", f2="P1", f3="F1", f46="2-2^detail^LN")
    built = build(msh("ORU^R01") + ADA + order)
    assert all("orderDetail" not in each for each in of(built, "ServiceRequest"))
    coded = build(msh("ORU^R01") + ADA + order.replace("|F1|", "|F1|1-1^x^LN"))
    assert of(coded, "ServiceRequest")[0]["orderDetail"]


def observe(**fields: str) -> str:
    return msh("ORU^R01") + ADA + ORDER + segment("OBX", **{"f1": "1", "f3": "2-2^y^LN", "f11": "F", **fields})


@pytest.mark.parametrize(
    ("then", "left"),
    [
        ({"f2": "NM", "f5": "7~8"}, {"component"}),
        ({"f2": "NM", "f11": "X"}, {"dataAbsentReason"}),
        ({"f2": "NM", "f5": "9"}, {"valueQuantity"}),
    ],
)
@pytest.mark.parametrize("first", [{"f2": "NM", "f5": "5"}, {"f2": "NM", "f5": "5~6"}, {"f2": "NM", "f11": "X"}])
def test_a_value_sent_again_is_one_several_or_none(
    validator: StructureValidator, first: dict[str, str], then: dict[str, str], left: set[str]
) -> None:
    """obs-6 and obs-7: no reason of absence beside a value, and no value beside components of its code."""
    built = after(observe(**then), stored(build(observe(**first))))
    changed = of(built, "Observation")
    for each in changed:
        assert {"valueQuantity", "component", "dataAbsentReason"} & each.keys() == left
    assert list_faults(validator, built) == []
    assert changed or first == then


def test_an_appointment_that_is_booked_again_has_no_reason_of_a_cancellation() -> None:
    sch = segment("SCH", f1="A1^EHR", f6="ILL^ill", f11="^^M30^20240305090000-0600^20240305093000-0600")
    known = stored(build(msh("SIU^S15") + sch + ADA))
    (cancelled,) = [each for each in known if each["resourceType"] == "Appointment"]
    assert cancelled["status"] == "cancelled" and "cancelationReason" in cancelled
    built = after(msh("SIU^S12") + sch + ADA, known)
    (booked,) = of(built, "Appointment")
    assert booked["status"] == "booked" and "cancelationReason" not in booked


def test_a_diagnosis_that_is_taken_back_has_no_clinical_status(validator: StructureValidator) -> None:
    diagnosis = segment("DG1", f1="1", f3="E11.9^x^I10", f6="F")
    known = stored(build(msh("ADT^A01") + ADA + diagnosis))
    for each in known:
        if each["resourceType"] == "Condition":
            system = "http://terminology.hl7.org/CodeSystem/condition-clinical"
            each["clinicalStatus"] = {"coding": [{"system": system, "code": "active"}]}
    built = after(msh("ADT^A08") + ADA + segment("DG1", f1="1", f3="E11.9^x^I10", f6="F", f21="D"), known)
    (condition,) = of(built, "Condition")
    assert "clinicalStatus" not in condition and list_faults(validator, built) == []


def test_data_of_an_unnamed_type_are_octets(validator: StructureValidator) -> None:
    built = build(observe(f2="ED", f5="^^^Base64^AAAA"))
    (observation,) = of(built, "Observation")
    (value,) = [each["valueAttachment"] for each in observation["extension"] if "valueAttachment" in each]
    assert value == {"contentType": "application/octet-stream", "data": "AAAA"}
    assert list_faults(validator, built) == []


@pytest.mark.parametrize("text", ["AAA=A", "AB==CD==", "====", "AAAAA", "é", ""])
def test_what_is_no_base64_is_no_data(validator: StructureValidator, text: str) -> None:
    built = build(observe(f2="ED", f5=f"^TEXT^PLAIN^Base64^{text}"))
    assert list_faults(validator, built) == []


def cut(message: Message, roll: random.Random) -> Message | None:
    """A message of which some fields are emptied, cut to one component, repeated or filled with something else."""
    lines = [[each.name, *each.values] for each in message.segments]
    for _ in range(roll.choice((1, 1, 2, 5, 20))):
        line = roll.choice(lines[1:])
        if len(line) > 1:
            number = roll.randrange(1, len(line))
            parts = line[number].partition("~")[0].split("^")
            place = roll.randrange(len(parts))
            alone, others = "^" * place + parts[place], "^".join([*parts[:place], "", *parts[place + 1 :]])
            line[number] = roll.choice((alone, others, f"{line[number]}~{line[number]}", roll.choice(CUTS)))
    return parse_message("".join("|".join(line) + "\r" for line in lines)).message


def test_messages_with_fields_cut_give_valid_resources_new_and_changed(
    shared: Path, validator: StructureValidator
) -> None:
    roll, wrong = random.Random(19), []
    messages = [(path.name, read_sample(path)) for path in samples(shared)]
    taken = [each for each in messages if len(each[1].segments) > 1 and build_bundle(map_message(each[1], ANY)).bundle]
    for _ in range(2):
        for name, message in taken:
            first, second = cut(message, roll), cut(message, roll)
            if first is None or second is None:
                continue
            built = build_bundle(map_message(first, ANY))
            wrong += [f"{name}: {each}" for each in list_faults(validator, built)]
            if built.bundle is not None and built.bundle.get("entry"):
                mapping = map_message(second, ANY)
                changed = build_bundle(mapping, state_of(mapping, stored(built)))
                wrong += [f"{name}, changed: {each}" for each in list_faults(validator, changed)]
    assert wrong == []
