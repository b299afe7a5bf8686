"""Patient and RelatedPerson become PID, PD1 and NK1."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from mappers.hl7v2.changes import Resource
from mappers.hl7v2.er7 import Segment
from mappers.hl7v2.outbound.codes import compose
from mappers.hl7v2.outbound.fields import Fields
from mappers.hl7v2.outbound.leaves import tell_leaves
from mappers.hl7v2.outbound.receiver import Writing
from mappers.hl7v2.patients import US_CORE


def name_resource(resource: Resource, writing: Writing) -> Resource:
    """The Identifier of what has no number: its id here, with the sender as authority; told."""
    receiver = writing.receiver
    sender = quote((receiver.sending[1] or receiver.sending[0] or "sender").partition("^")[0], safe="")
    kind = resource["resourceType"]
    writing.tell(f"{kind}/{resource.get('id', '')} has no number; it is sent under its id.")
    return {"system": f"{receiver.partner.root}/{sender}", "value": str(resource.get("id", ""))}


def write_pid(patient: Resource, account: Resource | None, writing: Writing) -> Segment:
    """Takes out of a Patient, and out of the Account that goes with the message, what PID says."""
    pid = Fields("PID", writing)
    pid.put(1, "1")
    if not patient.get("identifier"):
        patient["identifier"] = [name_resource(patient, writing)]
    pid.fill(patient, "Patient")
    for number, name in ((10, "race"), (22, "ethnicity")):
        _write_race(pid, number, patient, US_CORE + name)
    if account:
        if not account.get("identifier"):
            account["identifier"] = [name_resource(account, writing)]
        pid.fill(account, "Account")
    _move_contacts(pid, patient, writing)
    if patient.get("active") is True:
        patient.pop("active")
    return pid.segment()


def _move_contacts(pid: Fields, patient: Resource, writing: Writing) -> None:
    """PID-40 is there since 2.7: before, what has no use of its own stands beside the numbers of the home."""
    if writing.receiver.version < "2.7" and (contacts := pid.values.pop(40, [])):
        pid.values.setdefault(13, []).extend(contacts)
        writing.tell(
            f"PID-13 says a telecom of Patient/{patient.get('id', '')} as one of the home; its use is not told."
        )


def _write_race(pid: Fields, number: int, patient: Resource, url: str) -> None:
    """The codes of the US Core extension; its text alone where it has none."""
    entries: list[Resource] = patient.get("extension", [])
    entry = next((each for each in entries if each.get("url") == url), None)
    if entry is None:
        return
    if "extension" not in entry:
        return
    codings: list[Any] = [each["valueCoding"] for each in entry["extension"] if "valueCoding" in each]
    text = next((each.get("valueString", "") for each in entry["extension"] if each["url"] == "text"), "")
    for coding in codings:
        pid.add(number, compose(coding.get("code", ""), coding.get("display", ""), "CDCREC"))
    if not codings:
        pid.add(number, compose("", text))
    shown = ", ".join(coding.get("display") or coding.get("code", "") for coding in codings)
    entries.remove(entry)
    if codings and text != shown:
        entries.append({"url": url, "valueString": text})


def write_pd1(patient: Resource, writing: Writing) -> list[Segment]:
    """The organization and the practitioner who care for the patient."""
    pd1 = Fields("PD1", writing).fill(patient, "Patient")
    return [pd1.segment()] if pd1 else []


def write_relatives(patient: Resource, original: Resource, writing: Writing) -> list[Segment]:
    """An NK1 for each RelatedPerson, those with a name first, and each contact of the Patient that is none of them."""
    segments: list[Segment] = []
    for person in sorted(writing.index.of_type("RelatedPerson"), key=lambda each: "name" not in each):
        if not writing.index.leads_to(person.get("patient"), original):
            continue
        contacts = patient.get("contact", [])
        same = next((each for each in contacts if _is_same(each, person)), None)
        if same:
            contacts.remove(same)
        person = writing.open(person)
        person.pop("patient", None)
        if person.get("active") is True:
            person.pop("active")
        segments.append(_write_nk1(len(segments) + 1, person, "RelatedPerson", writing))
        tell_leaves(person, writing)
    for contact in patient.get("contact", []):
        segments.append(_write_nk1(len(segments) + 1, contact, "contact", writing))
    return segments


def _is_same(contact: Resource, person: Resource) -> bool:
    """Whether a contact says nothing that the RelatedPerson does not say."""
    told = {name: value for name, value in contact.items() if name != "extension"}
    return bool(told.get("name")) and all(
        person.get(name) == value or (isinstance(person.get(name), list) and value in person[name][:1])
        for name, value in told.items()
    )


def _write_nk1(number: int, person: Resource, kind: str, writing: Writing) -> Segment:
    nk1 = Fields("NK1", writing)
    nk1.put(1, str(number))
    return nk1.fill(person, kind).segment()
