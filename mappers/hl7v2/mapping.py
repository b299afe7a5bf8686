"""A message becomes changes of resources: the entry point of the mapper, and the table of what each family maps."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache

from mappers.hl7v2.changes import Change, Changes
from mappers.hl7v2.charges import ft1_to_charge_item
from mappers.hl7v2.clinical import al1_to_allergy_intolerance, dg1_to_condition, obx_to_observation, pr1_to_procedure
from mappers.hl7v2.context import Context
from mappers.hl7v2.datatypes.times import choose_zone
from mappers.hl7v2.er7 import Message, Segment
from mappers.hl7v2.groups import Group, build_groups, find_structure
from mappers.hl7v2.insurance import gt1_to_guarantor, in1_to_coverage
from mappers.hl7v2.issues import Issue, refuse, warn
from mappers.hl7v2.merges import MERGES, Merge, mrg_to_merges
from mappers.hl7v2.orders import Subject, count_numbers, order_to_report
from mappers.hl7v2.partner import Partner
from mappers.hl7v2.patients import find_key, nk1_to_related_person, pid_to_patient, read_concept
from mappers.hl7v2.provenance import find_instant, msh_to_provenance
from mappers.hl7v2.rows import list_unmapped, tell_unmapped
from mappers.hl7v2.schedules import sch_to_appointment
from mappers.hl7v2.tables import read_table
from mappers.hl7v2.visits import pid_to_account, pv1_to_encounter, rol_to_practitioner_role

VERSIONS = re.compile(r"2\.(?:[2-8]|3\.1|5\.1|7\.1|8\.[12])")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

PERSON = frozenset({"A28", "A29", "A31"})
"""Events about a person, which never touch a visit."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """What a message says: the changes, the merges, when it was recorded, and the issues found so far."""

    context: Context
    merges: tuple[Merge, ...] = ()
    recorded: datetime | None = None

    @property
    def changes(self) -> Changes:
        return self.context.changes

    @property
    def issues(self) -> tuple[Issue, ...]:
        return tuple(self.context.issues)


def find_event(message: Message) -> tuple[str, str]:
    """Message type and event of MSH-9; before 2.3 the event may stand in EVN-1 alone."""
    header = message.header
    return header.text(9, 1), header.text(9, 2) or message.segment("EVN").text(1)


def map_message(message: Message, partner: Partner, received: datetime = EPOCH) -> Mapping:
    """Maps a message of a partner. `received` is an aware datetime, used where the message tells no time."""
    name, event = find_event(message)
    header = message.header
    zone = choose_zone(header.text(7), partner.zone)
    seed = f"{partner.name}|{header.raw(3)}|{header.raw(4)}|{header.text(10)}"
    context = Context(partner, name, event, zone, Changes(seed), [])
    context.issues.extend([*message.issues, *check_header(message, partner)])
    row = next((row for row in read_table("events.tsv") if row[:2] == (name, event)), None)
    structure = find_structure(row[2]) if row else None
    if structure is None or (context.issues and any(issue.severity == "error" for issue in context.issues)):
        return Mapping(context)
    grouped = build_groups(message, structure)
    context.issues.extend(issue for issue in grouped.issues if issue.location.segment in find_known(name))
    merges = FAMILIES[name](grouped.root, context)
    msh_to_provenance(message, received, context)
    list_unmapped(message.segments, find_known(name) - find_skipped(name, event), context)
    return Mapping(context, tuple(merges), find_instant(message, context))


def check_header(message: Message, partner: Partner) -> list[Issue]:
    """What MSH forbids: an unknown type, event, version or processing id, another receiver, no control number."""
    header = message.header
    name, event = find_event(message)
    rows = read_table("events.tsv")
    issues = []
    if not any(row[0] == name for row in rows):
        names = ", ".join(sorted({row[0] for row in rows}))
        issues.append(refuse("200", f"Messages of type `{name[:20]}` are not supported; {names} are.", header.place(9)))
    elif not any(row[:2] == (name, event) for row in rows):
        events = ", ".join(row[1] for row in rows if row[0] == name)
        text = f"The event `{event[:20]}` of {name} is not supported; {events} are."
        issues.append(refuse("201", text, header.place(9, 1, 2)))
    if not VERSIONS.fullmatch(header.text(12)):
        text = f"Version `{header.text(12)[:20]}` is not supported; 2.2 to 2.8 are."
        issues.append(refuse("203", text, header.place(12)))
    if header.text(11) not in partner.processing:
        accepted = ", ".join(sorted(partner.processing))
        text = f"The processing id `{header.text(11)[:20]}` is not accepted here; {accepted} is."
        issues.append(refuse("202", text, header.place(11)))
    receiver = (header.text(5), header.text(6))
    if partner.receivers and not any(_is_for(header, *each) for each in partner.receivers):
        text = f"The message is for `{receiver[0][:40]}` at `{receiver[1][:40]}`, which is not this server."
        issue = refuse("207", text, header.place(5))
        issues.append(Issue(issue.severity, issue.condition, issue.text, issue.location, True))
    if not header.text(10):
        issues.append(refuse("101", "MSH-10 is empty: a message needs a control number.", header.place(10)))
    return issues


def _is_for(header: Segment, application: str, facility: str) -> bool:
    """Whether MSH-5 and MSH-6 name a receiver by namespace or universal id; an empty name fits all."""
    names = ((application, 5), (facility, 6))
    return all(not name or name in (header.text(number, 1), header.text(number, 2)) for name, number in names)


@cache
def find_known(name: str) -> frozenset[str]:
    """The segments of which the messages of a type map something."""
    return frozenset(next(row[1] for row in read_table("families.tsv") if row[0] == name).split())


@lru_cache(maxsize=512)
def find_skipped(name: str, event: str) -> frozenset[str]:
    """The segments of a family that one of its events does not read."""
    known = find_known(name)
    if name != "ADT":
        return frozenset()
    if event == "A29":
        return known - {"MSH", "EVN", "PID", "PD1"}
    if event in MERGES:
        return known - {"MSH", "EVN", "PID", "PD1", "MRG", *(["PV1"] if event == "A42" else [])}
    return frozenset({"PV1", "PV2", "MRG"}) if event in PERSON else frozenset({"MRG"})


def map_adt(root: Group, context: Context) -> list[Merge]:
    """Patient, visit, insurance and what was found; merges for the events that merge."""
    merges: list[Merge] = []
    for group in root.list_children("PATIENT") or [root]:
        merges += _map_adt_patient(group, root, context)
    return merges


def _map_adt_patient(group: Group, root: Group, context: Context) -> list[Merge]:
    pid = group.segment("PID")
    if not pid.values:
        context.issues.append(refuse("100", "The message has no PID segment.", Segment("PID", ()).place()))
        return []
    patient = pid_to_patient(group, context)
    if context.event == "A29":
        patient.resource["active"] = False
        return []
    account = pid_to_account(pid, patient, context)
    if context.event in MERGES:
        encounter = pv1_to_encounter(group, patient, account, context) if context.event == "A42" else None
        survivors = {"Patient": patient, "Account": account, "Encounter": encounter}
        if not group.holds("MRG"):
            context.issues.append(refuse("100", "A merge needs the segment MRG.", pid.place()))
        return [merge for mrg in group.all("MRG") for merge in mrg_to_merges(mrg, survivors, context)]
    encounter = None
    if context.event not in PERSON:
        encounter = pv1_to_encounter(group, patient, account, context)
    map_details(group, Subject(patient, encounter), account, context)
    return []


def map_details(group: Group, subject: Subject, account: Change | None, context: Context) -> None:
    """What surrounds a patient: relatives, roles, findings, diagnoses, allergies, procedures, insurance."""
    patient, encounter = subject
    tell_unmapped(group.all("NTE"), "a patient has no note.", context)
    for segment in group.segments:
        if segment.name == "NK1":
            nk1_to_related_person(segment, patient, context)
        elif segment.name == "ROL":
            rol_to_practitioner_role(segment, patient, encounter, context)
        elif segment.name == "DG1":
            dg1_to_condition(segment, patient, encounter, context)
        elif segment.name == "AL1":
            al1_to_allergy_intolerance(segment, patient, context)
        elif segment.name == "OBX":
            add_finding(segment, subject, context)
        elif segment.name == "GT1":
            gt1_to_guarantor(segment, patient, account, context)
    for inner in group.list_children("PROCEDURE"):
        pr1_to_procedure(inner.segment("PR1"), patient, encounter, context)
        for role in inner.all("ROL"):
            rol_to_practitioner_role(role, patient, encounter, context)
    for holder in (group, *group.list_children("INSURANCE")):
        coverage = in1_to_coverage(holder, patient, context) if holder.holds("IN1") else None
        financial = read_concept(group.segment("PV1"), 20, context, "FinancialClass")
        if coverage and financial:
            coverage.resource.setdefault("type", financial)


def add_finding(segment: Segment, subject: Subject, context: Context) -> None:
    """Adds an Observation about a patient and a visit; those of the same code, sub-id and time are counted."""
    parts: tuple[str, ...] = (*find_key(subject.patient), *find_key(subject.encounter), segment.text(14))
    ordinal = context.changes.count("observation", *parts, segment.text(3), segment.text(4))
    parts = (*parts, str(ordinal))
    observation = obx_to_observation(segment, parts, context)
    observation.resource["subject"] = subject.patient.reference
    if subject.encounter:
        observation.resource["encounter"] = subject.encounter.reference


def map_oru(root: Group, context: Context) -> list[Merge]:
    """Each PATIENT_RESULT with its visit and orders."""
    orders = list(root.find("ORDER_OBSERVATION"))
    if not orders:
        context.issues.append(warn("100", "The message has no OBR segment.", Segment("OBR", ()).place()))
    shared = count_numbers(orders)
    for result in root.list_children("PATIENT_RESULT"):
        people = result.list_children("PATIENT")
        group = people[0] if people else Group("PATIENT")
        patient = pid_to_patient(group, context)
        account = pid_to_account(group.segment("PID"), patient, context)
        visit = next(iter(group.list_children("VISIT")), None)
        encounter = pv1_to_encounter(visit, patient, account, context) if visit else None
        subject = Subject(patient, encounter)
        map_details(group, subject, account, context)
        for finding in group.list_children("PATIENT_OBSERVATION"):
            add_finding(finding.segment("OBX"), subject, context)
        for order in result.list_children("ORDER_OBSERVATION"):
            order_to_report(order, subject, shared, context)
    return []


def map_siu(root: Group, context: Context) -> list[Merge]:
    """The appointment, and the patient with what surrounds them."""
    if not root.holds("SCH"):
        context.issues.append(refuse("100", "The message has no SCH segment.", Segment("SCH", ()).place()))
        return []
    first: Change | None = None
    for group in root.list_children("PATIENT"):
        patient = pid_to_patient(group, context)
        first = first or patient
        account = pid_to_account(group.segment("PID"), patient, context)
        encounter = pv1_to_encounter(group, patient, account, context) if group.holds("PV1") else None
        map_details(group, Subject(patient, encounter), account, context)
    sch_to_appointment(root, first, context)
    return []


def map_dft(root: Group, context: Context) -> list[Merge]:
    """Patient, visit and insurance, then the charges."""
    if not root.holds("PID") or not root.list_children("FINANCIAL"):
        text = "The message needs the segments PID and FT1."
        context.issues.append(refuse("100", text, Segment("FT1", ()).place()))
        return []
    patient = pid_to_patient(root, context)
    account = pid_to_account(root.segment("PID"), patient, context)
    encounter = pv1_to_encounter(root, patient, account, context) if root.holds("PV1") else None
    subject = Subject(patient, encounter)
    map_details(root, subject, account, context)
    for group in root.list_children("FINANCIAL"):
        ft1_to_charge_item(group, subject, account, context)
        for diagnosis in group.all("DG1"):
            dg1_to_condition(diagnosis, patient, encounter, context)
        for insurance in group.list_children("FINANCIAL_INSURANCE"):
            in1_to_coverage(insurance, patient, context)
    return []


FAMILIES: dict[str, Callable[[Group, Context], list[Merge]]] = {
    "ADT": map_adt,
    "SIU": map_siu,
    "DFT": map_dft,
    "ORU": map_oru,
}
