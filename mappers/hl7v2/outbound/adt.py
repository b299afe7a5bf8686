"""ADT: a Patient with what surrounds them becomes A04, A08, A28, A31; a merge becomes A40."""

from __future__ import annotations

from mappers.hl7v2.changes import Resource
from mappers.hl7v2.er7 import Segment
from mappers.hl7v2.events import PERSON
from mappers.hl7v2.issues import refuse
from mappers.hl7v2.outbound.fields import Fields
from mappers.hl7v2.outbound.identifiers import is_current, write_cx, write_old_cx
from mappers.hl7v2.outbound.insurance import write_guarantors, write_insurance
from mappers.hl7v2.outbound.leaves import tell_leaves
from mappers.hl7v2.outbound.patients import write_pd1, write_pid, write_relatives
from mappers.hl7v2.outbound.receiver import Writing
from mappers.hl7v2.outbound.visits import NO_VISIT, write_diagnoses, write_visit

SUBJECTS = ("subject", "patient", "beneficiary")


def find_patient(focus: Resource, writing: Writing) -> Resource | None:
    """The Patient whom a resource is about, as it was given."""
    if focus["resourceType"] == "Patient":
        return focus
    for name in SUBJECTS:
        value = focus.get(name)
        known = writing.index.find(value[0] if isinstance(value, list) and value else value)
        if known and known["resourceType"] == "Patient":
            return known
    return None


def find_account(patient: Resource, encounter: Resource | None, writing: Writing) -> Resource | None:
    """A copy of the Account of a visit, else of the first one of the patient."""
    named = next(iter((encounter or {}).get("account", [])), None)
    if named and (account := writing.follow(named, "Account")):
        return account
    for account in writing.index.of_type("Account"):
        if any(writing.index.leads_to(each, patient) for each in account.get("subject", [])):
            return writing.open(account)
    return None


def find_visit(focus: Resource, patient: Resource, writing: Writing) -> Resource | None:
    """A copy of the Encounter that the message is about, else of the first one of the patient."""
    visits = [focus] if focus["resourceType"] == "Encounter" else writing.index.of_type("Encounter")
    own = [each for each in visits if writing.index.leads_to(each.get("subject"), patient)]
    return writing.open(own[0]) if own else None


def take_visit(encounter: Resource | None, account: Resource | None, writing: Writing) -> None:
    """Takes what the place in the message says, and tells what is left of a visit and an account."""
    if encounter:
        encounter.pop("subject", None)
        if account:
            named = encounter.get("account", [])
            encounter["account"] = [each for each in named if not writing.names(each, account)]
        tell_leaves(encounter, writing)
    if account:
        account.pop("subject", None)
        if account.get("status") == "active":
            account.pop("status")
        tell_leaves(account, writing)


def write_adt(focus: Resource, writing: Writing) -> list[Segment]:
    """The segments of an ADT message after EVN."""
    original = find_patient(focus, writing)
    if original is None:
        text = f"{focus['resourceType']}/{focus.get('id', '')} leads to no Patient that is given."
        writing.issues.append(refuse("204", text))
        return []
    if writing.event == "A40":
        return _write_merge(original, writing)
    patient = writing.open(original)
    encounter = None if writing.event in PERSON else find_visit(focus, original, writing)
    account = find_account(original, encounter, writing)
    segments = [
        write_pid(patient, account, writing),
        *write_pd1(patient, writing),
        *write_relatives(patient, original, writing),
        *(write_visit(encounter, writing) if writing.event not in PERSON else [NO_VISIT]),
        *write_diagnoses(encounter, writing),
        *write_guarantors(account, original, writing),
        *write_insurance(original, writing),
    ]
    take_visit(encounter, account, writing)
    tell_leaves(patient, writing)
    return segments


def _write_merge(original: Resource, writing: Writing) -> list[Segment]:
    """PID of the survivor and MRG with the numbers of the prior, which after a merge are old ones of the survivor."""
    patient = writing.open(original)
    links = [each for each in patient.get("link", []) if each.get("type") == "replaces"]
    prior = writing.follow(links[-1].get("other"), "Patient") if links else None
    mrg = Fields("MRG", writing)
    for identifier in (prior or {}).get("identifier", []):
        mrg.add(1, write_cx(identifier, writing))
    if not mrg and len(links) <= 1:
        for identifier in patient.get("identifier", []):
            old = identifier.get("use") == "old"
            if old and is_current({**identifier, "use": ""}, writing.receiver.partner):
                mrg.add(1, write_old_cx(identifier, writing))
    if not mrg:
        text = f"No number of the patient is known whom Patient/{patient.get('id', '')} replaces: MRG-1 needs one."
        writing.issues.append(refuse("101", text))
    patient["link"] = [each for each in patient.get("link", []) if each not in links[-1:]]
    segments = [write_pid(patient, None, writing), *write_pd1(patient, writing), mrg.segment()]
    tell_leaves(patient, writing)
    return segments
