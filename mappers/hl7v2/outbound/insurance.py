"""Coverage with payor, policy holder and subscriber becomes IN1 and IN2; the guarantors of an Account become GT1."""

from __future__ import annotations

from mappers.hl7v2.changes import Resource
from mappers.hl7v2.er7 import Segment
from mappers.hl7v2.insurance import NUMBERS
from mappers.hl7v2.outbound.codes import find_code, read_first_code
from mappers.hl7v2.outbound.fields import Fields
from mappers.hl7v2.outbound.identifiers import read_type, write_authority
from mappers.hl7v2.outbound.leaves import tell_leaves
from mappers.hl7v2.outbound.people import write_organization
from mappers.hl7v2.outbound.receiver import Writing


def write_insurance(patient: Resource, writing: Writing) -> list[Segment]:
    """IN1, and IN2 where it says something, for each Coverage of a patient, by their order."""
    own = [
        each for each in writing.index.of_type("Coverage") if writing.index.leads_to(each.get("beneficiary"), patient)
    ]
    segments = []
    for number, coverage in enumerate(sorted(own, key=lambda each: int(each.get("order", 2**31))), 1):
        segments += _write_in1(number, writing.open(coverage), patient, writing)
    return segments


def _write_in1(number: int, coverage: Resource, patient: Resource, writing: Writing) -> list[Segment]:
    in1, in2 = Fields("IN1", writing), Fields("IN2", writing)
    in1.put(1, str(number))
    _take_plan(in1, coverage, writing)
    _take_numbers(in2, coverage)
    _take_subscriber((in1, in2), coverage, patient, writing)
    for name, kind in (("payor", "Payor"), ("policyHolder", "Holder")):
        value = coverage.get(name)
        reference = value[0] if isinstance(value, list) and value else value
        organization = writing.follow(reference, "Organization")
        if organization is None or reference is None:
            continue
        for fields in (in1, in2):
            fields.fill(organization, kind)
        reference.clear()
    _take_display(in1, coverage)
    for fields in (in1, in2):
        fields.fill(coverage, "Coverage")
    coverage.pop("beneficiary", None)
    if coverage.get("status") == "active":
        coverage.pop("status")
    tell_leaves(coverage, writing)
    return [in1.segment(), *([in2.segment()] if in2 else [])]


def _take_plan(in1: Fields, coverage: Resource, writing: Writing) -> None:
    """IN1-2 is the class `plan`, which is an identifier of the Coverage too where a partner has sent it."""
    for entry in list(coverage.get("class", [])):
        if read_first_code(entry.get("type")) != "plan" or in1.values.get(2):
            continue
        numbers = coverage.get("identifier", [])
        same = next((each for each in numbers if each.get("value") == entry.get("value") and not read_type(each)), None)
        authority = write_authority(same.get("system", ""), writing.receiver.partner) if same else ["", ""]
        in1.put(2, entry.get("value", ""), entry.get("name", ""), authority[0] or authority[1])
        coverage["class"].remove(entry)
        if same:
            numbers.remove(same)


def _take_numbers(in2: Fields, coverage: Resource) -> None:
    """The Medicare and the Medicaid number."""
    for number, kind, _ in NUMBERS:
        for identifier in list(coverage.get("identifier", [])):
            if read_type(identifier) == kind and not in2.values.get(number):
                in2.put(number, identifier.get("value", ""))
                coverage["identifier"].remove(identifier)


def _take_display(in1: Fields, coverage: Resource) -> None:
    """A payor of which only the name is told."""
    payor: Resource = next(iter(coverage.get("payor", [])), {})
    if "display" in payor and "reference" not in payor and not in1.values.get(4):
        in1.put(4, payor.pop("display"))


def _take_subscriber(segments: tuple[Fields, Fields], coverage: Resource, patient: Resource, writing: Writing) -> None:
    """IN1-17 is the insured's relation to the patient, and with another insured than the patient IN1-16, 18, 19, 43."""
    in1 = segments[0]
    codings = coverage.get("relationship", {}).get("coding", [])
    code = read_first_code(coverage.get("relationship"))
    turned = writing.receiver.partner.patient_to_insured and code in ("child", "parent")
    vocabulary = "PatientToSubscriber" if turned else "SubscriberRelationship"
    itself = writing.index.leads_to(coverage.get("subscriber"), patient)
    sent = next((str(each.get("code", "")) for each in codings[1:] if "system" not in each), "")
    found = sent or find_code(code, "", vocabulary, "IN1-17", writing.receiver.partner) or ("SEL" if itself else "")
    if found:
        in1.put(17, found)
        coverage.pop("relationship", None)
    if itself and found in ("SEL", "18"):
        coverage.pop("subscriber")
        return
    person = writing.follow(coverage.get("subscriber"), "RelatedPerson", "Patient")
    if person:
        for fields in segments:
            fields.fill(person, "Subscriber")
        coverage.pop("subscriber")


def write_guarantors(account: Resource | None, patient: Resource, writing: Writing) -> list[Segment]:
    """A GT1 for each guarantor of a copy of an Account."""
    segments: list[Segment] = []
    for entry in (account or {}).get("guarantor", []):
        gt1 = _write_party(entry.get("party"), patient, writing)
        if gt1 is None:
            continue
        entry.pop("party")
        gt1.put(1, str(len(segments) + 1))
        gt1.fill({"guarantor": [entry]}, "Account")
        segments.append(gt1.segment())
    return segments


def _write_party(party: Resource | None, patient: Resource, writing: Writing) -> Fields | None:
    """A GT1 with who guarantees: the patient, a RelatedPerson with a name, or an organization; None for another one."""
    gt1 = Fields("GT1", writing)
    if writing.index.leads_to(party, patient):
        names = Fields("GT1", writing).fill(writing.open(patient), "Guarantor")
        gt1.values[3] = names.values.get(3, [])
        gt1.put(11, "SEL")
        return gt1
    if person := writing.follow(party, "RelatedPerson"):
        gt1.fill(person, "Guarantor")
        return gt1 if gt1.values.get(3) else None
    gt1.add(21, write_organization(party or {}, writing))
    return gt1 if gt1 else None
