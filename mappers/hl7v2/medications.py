"""ORC, RXO, RXE, RXR, RXC and TQ1 of an RDE or OMP become MedicationRequest and Medication (HL7 v2.5.1, chapter 4.13).

The guide maps RXO, RXR and TQ1; RXE and RXC are mapped as these are (docs/messages/rde.md).
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import orjson

from mappers.hl7v2.changes import Change, Resource
from mappers.hl7v2.clinical import nte_to_annotations
from mappers.hl7v2.context import Cell, Context
from mappers.hl7v2.datatypes.codes import build_concept, cwe_to_text
from mappers.hl7v2.datatypes.identifiers import derive_identifier, read_identity
from mappers.hl7v2.datatypes.quantities import cq_to_quantity
from mappers.hl7v2.er7 import Segment
from mappers.hl7v2.groups import Group
from mappers.hl7v2.merges import Merge
from mappers.hl7v2.orders import add_facility, add_observations, count_numbers, identify_order
from mappers.hl7v2.patients import Subject
from mappers.hl7v2.rows import Draft, fill, tell_unmapped
from mappers.hl7v2.subjects import map_subject
from mappers.hl7v2.tasks import make_task
from mappers.hl7v2.timings import tq1_to_dosage, tq_to_tq1
from mappers.hl7v2.vocabulary import translate

DAY = {"value": 1, "unit": "day", "system": "http://unitsofmeasure.org", "code": "d"}
ORDERED = build_concept("dose-rate-type", "ordered", "Ordered")
REQUESTS = {"CA": "cancel-request", "HD": "hold-request"}
"""ORC-1 by which a decision is asked for, with the code of the Task that somebody answers."""

MOST_TIMINGS = 50
"""TQ1 of one order."""

MOST_REPEATED = 1024 * 1024
"""Bytes that the Dosages of an order may have in common, each time they are told."""

REFILL_EVENT = "O25"
REFILL_REQUEST = "refill-request"


class Order(NamedTuple):
    """The segments of an order, those of the encoded order where there is one, else those of the order as written."""

    orc: Segment
    rxe: Segment
    rxo: Segment
    routes: list[Segment]
    components: list[Segment]
    timings: list[Segment]
    notes: list[Segment]


def map_prescriptions(root: Group, context: Context) -> list[Merge]:
    """The patient, visit and insurance, then each order."""
    orders = root.list_children("ORDER")
    people = root.list_children("PATIENT")
    if not people or not orders:
        name = "ORC" if people else "PID"
        text = f"{context.message} needs the segments PID and ORC; {name} is missing."
        context.refuse("100", text, Segment(name, ()).place())
        return []
    tell_unmapped(root.all("NTE"), "a message has no note.", context)
    subject = map_subject(people[0], people[0], context)
    shared = count_numbers(orders)
    for order in orders:
        order_to_medication_request(order, subject, shared, context)
    return []


def read_order(group: Group, context: Context) -> Order:
    """Takes an ORDER apart; notes of a component are told as unmapped."""
    details, encoded = group.list_children("ORDER_DETAIL"), group.list_children("ENCODED_ORDER")
    empty = Group("ORDER_DETAIL")
    detail, order = next(iter(details), empty), next(iter(encoded), empty)
    orc, rxe, rxo = group.segment("ORC"), order.segment("RXE"), detail.segment("RXO")
    parts = [each for holder in (order, detail) for each in _list_components(holder)[:]]
    tell_unmapped([note for part in parts for note in part.all("NTE")], "a component has no note.", context)
    components = _list_components(order) or _list_components(detail)
    holders = order.list_children("TIMING_ENCODED") or group.list_children("TIMING")
    timings = [each.segment("TQ1") for each in holders]
    if not timings:  # before 2.5 a TQ says what TQ1 says since
        timings = tq_to_tq1(rxe, 1) or tq_to_tq1(orc, 7)
    routes = order.all("RXR") or detail.all("RXR")
    tell_unmapped(routes[1:], "one route of an order is mapped.", context)
    notes = [*detail.all("NTE"), *order.all("NTE")]
    return Order(orc, rxe, rxo, routes[:1], [each.segment("RXC") for each in components], timings, notes)


def _list_components(holder: Group) -> list[Group]:
    return holder.list_children("COMPONENT", "ENCODED_COMPONENT")


def order_to_medication_request(group: Group, subject: Subject, shared: Counter[str], context: Context) -> None:
    """Adds what one ORDER holds. `shared` counts the order numbers of the message (`count_numbers`)."""
    order = read_order(group, context)
    if not order.rxe.values and not order.rxo.values:
        names = "RXO" if context.message == "OMP" else "RXE or RXO"
        context.refuse("100", f"The order has no {names} segment.", order.orc.place())
        return
    draft = Draft({"resourceType": "MedicationRequest", **subject.links})
    segments = [order.orc, order.rxe, order.rxo, *order.routes, *order.timings[:1]]
    for segment in segments:
        fill(draft, segment, "MedicationRequest", context, tuple(segments))
    request = draft.resource
    request["intent"] = "order" if order.rxe.values else "original-order"
    if status := find_status(order.orc, context):
        request["status"] = status
    if notes := nte_to_annotations(order.notes, context):
        request["note"] = notes
    _read_dosages(request, order, context)
    _read_substitution(request, order.rxe, context)
    _place_medication(request, order, context)
    add_facility(request, order.orc, context)
    change = _add_request(draft, order, shared, context)
    links = {"basedOn": [change.reference], **subject.links}
    add_observations(group.list_children("OBSERVATION"), change, links, context)
    _add_task(change, subject.patient, order.orc, context)


def _add_request(draft: Draft, order: Order, shared: Counter[str], context: Context) -> Change:
    """Adds the MedicationRequest. A request for a refill is about one, and changes none that is known."""
    code = order.rxe.text(2) or order.rxo.text(1)
    identity = identify_order(draft.resource, ("PLAC", "FILL"), order.orc, code, shared, context)
    change = context.changes.add(draft.resource, identity, create_only=context.event == REFILL_EVENT)
    change.delete += draft.delete
    change.on_create = {"status": "unknown"}
    return change


def find_status(orc: Segment, context: Context) -> str:
    """ORC-5 wins over ORC-1; "" where neither says a status of MedicationRequest, which then stays.

    ORC-1 of a request for a refill says nothing of the prescription.
    """
    fields = ((5, "OrderStatus"), (1, "OrderControl"))
    for number, vocabulary in fields[:1] if context.event == REFILL_EVENT else fields:
        code = orc.text(number)
        target = translate(code, f"{vocabulary}[MedicationRequest.status]", f"ORC-{number}", context.partner)
        if target:
            return target.code
        if code and number == 5:
            text = f"The code `{code[:40]}` of ORC-5 says no status of a MedicationRequest; ORC-1 counts."
            context.warn("103", text, orc.place(5))
    return ""


def _add_task(request: Change, patient: Change, orc: Segment, context: Context) -> None:
    """Adds the Task of a request that somebody answers: for a refill, for cancelling, for holding."""
    asked = "" if orc.text(5) else REQUESTS.get(orc.text(1), "")
    code = REFILL_REQUEST if context.event == REFILL_EVENT else asked
    if not code:
        return
    text = f"ORC-1 `{orc.text(1)[:20]}` of {context.message}^{context.event} asks for a decision on the prescription."
    key = (*(request.identity or ("", request.url)), context.changes.seed)
    task = make_task(code, text, key, context.partner).resource
    task |= {"focus": request.reference, "for": patient.reference}
    if authored := request.resource.get("authoredOn"):
        task["authoredOn"] = authored
    context.warn("0", f"{text} Its status stays; a Task `{code}` is opened.", orc.place(1))
    context.changes.add(task, read_identity(task["identifier"][0]))


def _read_dosages(request: Resource, order: Order, context: Context) -> None:
    """A Dosage for each TQ1, with the dose, the route and the instructions that they share."""
    common: Resource = next(iter(request.pop("dosageInstruction", [])), {})
    for segment, number in ((order.rxe, 19), (order.rxo, 23)):
        daily = cq_to_quantity(segment.first(number), Cell(context, segment.place(number)))
        if daily and "maxDosePerPeriod" not in common:
            common["maxDosePerPeriod"] = {"numerator": daily, "denominator": dict(DAY)}
    instructions = order.rxe if order.rxe.raw(7) else order.rxo
    cell = Cell(context, instructions.place(7))
    if lines := [line for each in instructions.repetitions(7) if (line := cwe_to_text(each, cell))]:
        common["patientInstruction"] = "\n".join(lines)
    if "doseAndRate" in common:
        common["doseAndRate"][0] = {"type": ORDERED, **_order_range(common["doseAndRate"][0], order, context)}
    if not _may_repeat(common, order, context):
        return
    dosages = []
    for number, segment in enumerate(order.timings, 1):
        own = tq1_to_dosage(segment, context)
        if "doseAndRate" in common and len(order.timings) == 1:
            own.pop("doseAndRate", None)
        dosage = {**({"sequence": number} if len(order.timings) > 1 else {}), **common, **own}
        if both := [*common.get("additionalInstruction", []), *own.get("additionalInstruction", [])]:
            dosage["additionalInstruction"] = both
        dosages.append(dosage)
    dosages = dosages or [common]
    for dosage in dosages:
        if "text" not in dosage and "patientInstruction" in dosage:
            dosage["text"] = dosage["patientInstruction"]
    if any(dosages):
        request["dosageInstruction"] = [each for each in dosages if each]


def _may_repeat(common: Resource, order: Order, context: Context) -> bool:
    """Whether what the Dosages share can be told in each of them: a few bytes in many TQ1 would become very many."""
    number = len(order.timings)
    if number > MOST_TIMINGS:
        text = f"The order has {number} TQ1 segments; at most {MOST_TIMINGS} are read. Send it as several orders."
    elif number > 1 and number * len(orjson.dumps(common, default=str)) > MOST_REPEATED:
        text = f"What the {number} TQ1 of the order have in common is too long to be repeated. Shorten it."
    else:
        return True
    context.refuse("207", text, order.timings[-1].place())
    return False


def _order_range(dose: Resource, order: Order, context: Context) -> Resource:
    """A dose whose maximum is below its minimum (rng-2) is left out, and told."""
    limits = [dose.get("doseRange", {}).get(name, {}).get("value") for name in ("low", "high")]
    if None in limits or limits[0] <= limits[1]:
        return dose
    segment, number = (order.rxe, 4) if order.rxe.text(4) else (order.rxo, 3)
    text = f"{segment.name}-{number} is below {segment.name}-{number - 1}; the dose is left out."
    context.warn("102", text, segment.place(number))
    return {name: value for name, value in dose.items() if name != "doseRange"}


def _read_substitution(request: Resource, rxe: Segment, context: Context) -> None:
    """RXE-9 (HL70167) says of a product whether another may stand for it; 0 is that none was asked for."""
    if target := translate(rxe.text(9), "SubstitutionStatus", "RXE-9", context.partner):
        request["substitution"] = {"allowedBoolean": target.code == "true"}


def _place_medication(request: Resource, order: Order, context: Context) -> None:
    """The drug is a Medication where its form, strength or components are told, else a code of the request.

    A Medication is known by all that the message says of it, so that one that is known is never another.
    """
    if "medicationCodeableConcept" not in request:
        segment, number = (order.rxe, 2) if order.rxe.values else (order.rxo, 1)
        text = f"{segment.name}-{number} is required and empty: it is not known which drug is ordered."
        context.refuse("101", text, segment.place(number))
        return
    draft = Draft({"resourceType": "Medication"})
    for segment in (order.rxe, order.rxo):
        fill(draft, segment, "Medication", context, (order.rxe,))
    medication = draft.resource
    for ingredient in medication.get("ingredient", []):
        ingredient["itemCodeableConcept"] = medication["code"]
        ingredient["strength"].setdefault("denominator", {"value": 1})
    medication.setdefault("ingredient", []).extend(_rxc_to_ingredient(each, context) for each in order.components)
    medication["ingredient"] = [each for each in medication["ingredient"] if each]
    if not medication["ingredient"]:
        medication.pop("ingredient")
    if not medication.keys() & {"form", "ingredient"}:
        return
    key = orjson.dumps(medication, default=str, option=orjson.OPT_SORT_KEYS).decode()
    medication["identifier"] = [derive_identifier("medication", (key,), context.partner)]
    identity = read_identity(medication["identifier"][0])
    request["medicationReference"] = context.changes.add(medication, identity, create_only=True).reference
    request.pop("medicationCodeableConcept")


def _rxc_to_ingredient(segment: Segment, context: Context) -> Resource:
    """An ingredient: RXC-1 `A` (additive) is active, `B` (base) is not; the amount is that of one Medication."""
    draft = Draft({})
    fill(draft, segment, "Ingredient", context)
    ingredient = draft.resource
    if "itemCodeableConcept" not in ingredient:
        context.warn("101", "RXC-2 is required and empty; it is left out.", segment.place(2))
        return {}
    if segment.text(1) in ("A", "B"):
        ingredient["isActive"] = segment.text(1) == "A"
    if "strength" in ingredient:
        ingredient["strength"]["denominator"] = {"value": 1}
    return ingredient
