"""MedicationRequest with its Medication becomes PID, PV1, ORC, RXE or RXO, NTE, TQ1, RXR and RXC of an RDE or OMP."""

from __future__ import annotations

from mappers.hl7v2.changes import Resource
from mappers.hl7v2.datatypes.codes import build_concept
from mappers.hl7v2.datatypes.identifiers import IDENTIFIER_TYPES
from mappers.hl7v2.er7 import Segment
from mappers.hl7v2.issues import refuse
from mappers.hl7v2.medications import REFILL_EVENT
from mappers.hl7v2.outbound.adt import find_patient, take_visit
from mappers.hl7v2.outbound.codes import compose, read_first_code
from mappers.hl7v2.outbound.fields import Fields
from mappers.hl7v2.outbound.identifiers import is_current, read_type, write_authority
from mappers.hl7v2.outbound.leaves import tell_leaves
from mappers.hl7v2.outbound.medicines import take_medication, write_medication
from mappers.hl7v2.outbound.observations import take_same_unit, write_notes
from mappers.hl7v2.outbound.order_controls import FIRST, NOW, choose_control, read_answer
from mappers.hl7v2.outbound.patients import name_resource, write_pd1, write_pid
from mappers.hl7v2.outbound.quantities import write_quantity
from mappers.hl7v2.outbound.receiver import Writing
from mappers.hl7v2.outbound.results import take_pair
from mappers.hl7v2.outbound.timings import write_timings
from mappers.hl7v2.outbound.visits import write_visit

OF_THE_ANSWER = ("status", "statusReason", "code", "intent", "focus", "for", "output", "identifier", "description")
"""What a Task tells of itself, or an answer says without a field of its own."""

INTENTS = {"RDE": "order", "OMP": "original-order"}
"""The intent that the message says by its type."""


def write_prescription(focus: Resource, writing: Writing) -> list[Segment]:
    """The segments of an RDE or OMP message after MSH; of a Task, the answer to what was asked for a prescription."""
    answer, prescription = _read_focus(focus, writing)
    name = f"{focus['resourceType']}/{focus.get('id', '')}"
    original = find_patient(prescription, writing) if prescription else None
    if prescription is None or original is None:
        text = f"{writing.message} is about a MedicationRequest with its Patient; {name} is none, or has none."
        writing.issues.append(refuse("204", text))
        return []
    status = prescription.get("status")
    if (not answer and status not in FIRST) or prescription.get("doNotPerform") is True:
        text = f"{name} is no prescription to be filled: its status is `{status}`, or it asks not to do it."
        writing.issues.append(refuse("207", text))
        return []
    request, patient = writing.open(prescription), writing.open(original)
    if answer and prescription is not focus:
        _take_answer(focus, request, writing)
    segments = [write_pid(patient, None, writing), *write_pd1(patient, writing)]
    tell_leaves(patient, writing)
    if encounter := writing.follow(request.get("encounter"), "Encounter"):
        segments += write_visit(encounter, writing)
        take_visit(encounter, None, writing)
        request.pop("encounter")
    request.pop("subject", None)
    segments += _write_order(request, answer, writing)
    tell_leaves(request, writing)
    return segments


def _read_focus(focus: Resource, writing: Writing) -> tuple[str, Resource | None]:
    """ORC-1 of an answer, "" where nothing was asked, and the MedicationRequest that it is about.

    A refill that was approved is told by its renewal, every other answer by the prescription that it was asked for.
    """
    if focus["resourceType"] == "MedicationRequest":
        return writing.envelope.answer, focus
    answer = writing.envelope.answer or (read_answer(focus) if focus["resourceType"] == "Task" else "")
    if not answer:
        return "", None
    outputs = [each for each in focus.get("output", []) if read_first_code(each.get("type")) == "renewal"]
    references = [each.get("valueReference") for each in outputs] if answer == "AF" else []
    found = next(filter(None, map(writing.index.find, [*references, focus.get("focus")])), None)
    return answer, found if found and found["resourceType"] == "MedicationRequest" else None


def _take_answer(focus: Resource, request: Resource, writing: Writing) -> None:
    """Takes out of a Task what its answer says; its reason is that of the message, ORC-16."""
    task = writing.open(focus)
    if "statusReason" in task:
        request["statusReason"] = task["statusReason"]
    for name in OF_THE_ANSWER:
        task.pop(name, None)
    tell_leaves(task, writing)


def _write_order(request: Resource, answer: str, writing: Writing) -> list[Segment]:
    """The segments of the order, in the order that the structure of the message has."""
    encoded = writing.message == "RDE"
    drug = Fields("RXE" if encoded else "RXO", writing)
    orc = _write_orc(request, answer, writing)
    medication = take_medication(request, writing)
    components = write_medication(drug, medication, request, writing)
    dosages = request.get("dosageInstruction", [])
    steps = write_timings(dosages, writing)
    _take_dose(drug, dosages[:1], writing)
    drug.fill(request, "MedicationRequest")
    for dose in (each for dosage in dosages[:1] for each in dosage.get("doseAndRate", [])[:1]):
        unit = next(iter(drug.values.get(5 if encoded else 4, [])), None)
        take_same_unit(dose.get("doseRange", {}).get("high", {}), unit)
    _take_substitution(drug, request, writing)
    if request.get("intent") == INTENTS[writing.message]:
        request.pop("intent")
    rxr = Fields("RXR", writing).fill(request, "MedicationRequest")
    if not rxr.values.get(1):
        writing.tell(f"RXR-1 is empty: MedicationRequest/{request.get('id', '')} tells no route.")
    timings = [each.fill(request, "MedicationRequest").segment() for each in steps]
    notes = write_notes(request, writing)
    routes = [rxr.segment()] if rxr else []
    if encoded:
        return [orc, drug.segment(), *notes, *timings, *routes, *components]
    return [orc, *timings, drug.segment(), *notes, *routes, *components]


def _write_orc(request: Resource, answer: str, writing: Writing) -> Segment:
    """ORC: what is to be done, the numbers, the status where ORC-1 alone does not say it, who orders and when."""
    orc = Fields("ORC", writing)
    orc.put(1, _take_control(orc, request, answer, writing))
    partner = writing.receiver.partner
    numbers = [each for each in request.get("identifier", []) if is_current(each, partner)]
    if not any(read_type(each) in ("", "PLAC") for each in numbers):
        own = name_resource(request, writing) | {"type": build_concept(IDENTIFIER_TYPES, "PLAC")}
        request.setdefault("identifier", []).append(own)
    if group := request.pop("groupIdentifier", None):
        holder: Resource = {"identifier": [group]}
        orc.put(4, *take_pair(holder, writing))
        if holder["identifier"]:
            request["groupIdentifier"] = group
    if prior := writing.index.find(request.get("priorPrescription")):
        orc.put(8, *(_find_number(prior, kinds, writing) for kinds in (("", "PLAC"), ("FILL",))))
        if orc.values[8]:
            request.pop("priorPrescription")
    return orc.fill(request, "MedicationRequest").segment()


def _take_control(orc: Fields, request: Resource, answer: str, writing: Writing) -> str:
    """ORC-1; sets ORC-5, and takes the status where the two say it."""
    status = str(request.get("status", ""))
    if answer:
        control, told = answer, NOW.get(status, "")
    elif writing.event == REFILL_EVENT:
        control, told = "RF", NOW["active"] if status == "active" else FIRST[status][1]
    else:
        control, told = choose_control(status, writing.envelope.earlier)
    orc.put(5, told)
    if told or (status == "active" and not answer) or writing.event == REFILL_EVENT:
        request.pop("status", None)
    return control


def _find_number(resource: Resource, kinds: tuple[str, ...], writing: Writing) -> list[str]:
    """A number of one of these types, and its authority, as sub-components; [""] without one."""
    partner = writing.receiver.partner
    numbers = (each for each in resource.get("identifier", []) if is_current(each, partner))
    number = next((each for each in numbers if read_type(each) in kinds), None)
    return [number["value"], *write_authority(number.get("system", ""), partner)] if number else [""]


def _take_dose(drug: Fields, dosages: list[Resource], writing: Writing) -> None:
    """The instructions for the patient, a line for each repetition, and the most that may be taken in a day."""
    encoded = drug.name == "RXE"
    for dosage in dosages:
        for line in dosage.pop("patientInstruction", "").split("\n"):
            drug.add(7, compose("", line))
        most = dosage.get("maxDosePerPeriod", {})
        denominator = most.get("denominator", {})
        if "numerator" in most and (denominator.get("value"), denominator.get("code")) == (1, "d"):
            drug.add(19 if encoded else 23, write_quantity(most["numerator"], writing))
            most.pop("denominator")
        for dose in dosage.get("doseAndRate", [])[:1]:
            if read_first_code(dose.get("type")) == "ordered":
                dose.pop("type")


def _take_substitution(drug: Fields, request: Resource, writing: Writing) -> None:
    """RXE-9 has codes of HL70167, RXO-9 of HL70161; what they say otherwise than the resource is told."""
    substitution = request.get("substitution", {})
    allowed = substitution.get("allowedBoolean")
    code = read_first_code(substitution.get("allowedCodeableConcept"))
    if not substitution or drug.values.get(9):
        return
    if allowed is None and code in ("N", "G", "T", "E", "F"):
        allowed = code != "N"
    if allowed is not None:
        drug.put(9, ("0" if allowed else "1") if drug.name == "RXE" else ("G" if allowed else "N"))
    if drug.name == "RXE":
        substitution.pop("allowedBoolean", None)
