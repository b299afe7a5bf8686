"""The Medication of a prescription becomes drug, form and strength of RXE or RXO, and an RXC for each ingredient."""

from __future__ import annotations

from mappers.hl7v2.changes import Resource
from mappers.hl7v2.er7 import Segment
from mappers.hl7v2.issues import refuse
from mappers.hl7v2.outbound.fields import Fields
from mappers.hl7v2.outbound.leaves import tell_leaves
from mappers.hl7v2.outbound.receiver import Writing


def take_medication(request: Resource, writing: Writing) -> Resource:
    """The Medication that is referred to, contained or given; one of only a text where nothing else is known."""
    reference = request.get("medicationReference")
    if not reference:
        return {}
    text = str(reference.get("reference", ""))
    contained = request.get("contained", [])
    inner = next((each for each in contained if text == f"#{each.get('id')}"), None)
    if inner is not None:
        request["contained"] = [each for each in contained if each is not inner]
    found = inner or writing.follow(reference, "Medication")
    if found is None:
        display = reference.get("display", "")
        return {"resourceType": "Medication", "code": {"text": display}} if display else {}
    request.pop("medicationReference")
    return found


def write_medication(drug: Fields, medication: Resource, request: Resource, writing: Writing) -> list[Segment]:
    """Says the Medication in the segment of the drug, and gives an RXC for each of its components."""
    ingredients = medication.pop("ingredient", [])
    own = next((each for each in ingredients if _is_strength(each, medication)), None)
    if own is not None:  # the strength of the drug itself
        ingredients = [each for each in ingredients if each is not own]
        medication["ingredient"] = [own]
        own.pop("itemCodeableConcept")
        _take_one(own)
    drug.fill(medication, "Medication")
    components = [_write_rxc(each, writing) for each in ingredients if each.get("itemCodeableConcept")]
    if rest := [each for each in ingredients if each]:
        medication["ingredient"] = [*medication.get("ingredient", []), *rest]
    if medication:
        tell_leaves(medication, writing)
    number = 2 if writing.message == "RDE" else 1
    if not drug.values.get(number) and "medicationCodeableConcept" not in request:
        text = f"{drug.name}-{number} is required: MedicationRequest/{request.get('id', '')} names no drug."
        writing.issues.append(refuse("101", text))
    return components


def _is_strength(ingredient: Resource, medication: Resource) -> bool:
    """Whether an ingredient tells the strength of the drug itself, RXE-25; without an amount it is one of others."""
    amount = ingredient.get("strength", {}).get("numerator", {}).get("value")
    return amount is not None and ingredient.get("itemCodeableConcept") == medication.get("code")


def _write_rxc(ingredient: Resource, writing: Writing) -> Segment:
    """RXC: a base is what is not active; one of which that is not told is an additive."""
    rxc = Fields("RXC", writing)
    rxc.put(1, "B" if ingredient.pop("isActive", True) is False else "A")
    _take_one(ingredient)
    return rxc.fill(ingredient, "Ingredient").segment()


def _take_one(ingredient: Resource) -> None:
    """A denominator of one needs no field."""
    if ingredient.get("strength", {}).get("denominator") == {"value": 1}:
        ingredient["strength"].pop("denominator")
