"""What drug a MedicationRequest is for: its codes, those of its ingredients, its schedule as a controlled substance.

https://hl7.org/fhir/R4/medicationrequest.html, https://hl7.org/fhir/R4/medication.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mappers.billing.fields import Resource, Resources, find_extension, resolve
from mappers.prescribing.codes import SCHEDULE, SCHEDULES, UNSCHEDULED
from mappers.scheduling.elements import list_codings, members


@dataclass(frozen=True, slots=True)
class Medicine:
    """`codes` and `ingredients`: `system|code`. `schedule`: `I` to `V`; "" where the drug is not controlled.

    `unknown`: a code of a schedule that is none that we know.
    """

    codes: frozenset[str] = frozenset()
    ingredients: frozenset[str] = frozenset()
    schedule: str = ""
    unknown: str = ""

    @property
    def substances(self) -> frozenset[str]:
        """All codes by which an allergy may name it."""
        return self.codes | self.ingredients


NO_MEDICINE = Medicine()


def read_medicine(request: Resource, resources: Resources, knowledge: Iterable[Resource] = ()) -> Medicine:
    """The drug of a MedicationRequest. `resources`: by the references to them as they are written.

    `knowledge`: each MedicationKnowledge of the drug's codes, which may tell its schedule.
    """
    medication = resolve(request.get("medicationReference"), resources, request) or {}
    codes = frozenset(list_codings(request.get("medicationCodeableConcept"))) | frozenset(
        list_codings(medication.get("code"))
    )
    ingredients = frozenset(_list_ingredients(medication, resources, request))
    concepts = [find_extension(each, SCHEDULE) for each in (request, medication)]
    concepts += [
        schedule.get("schedule")
        for each in knowledge
        for rule in members(each, "regulatory")
        for schedule in members(rule, "schedule")
    ]
    told = [coding["code"] for concept in concepts for coding in members(concept, "coding") if coding.get("code")]
    schedules = sorted({SCHEDULES[code] for code in told if code in SCHEDULES}, key=_ORDER.index)
    others = [code for code in told if code not in SCHEDULES and code not in UNSCHEDULED]
    # several sources may differ: the strictest one counts
    return Medicine(codes, ingredients, schedules[0] if schedules else "", others[0] if others else "")


_ORDER = ("I", "II", "III", "IV", "V")


def _list_ingredients(medication: Resource, resources: Resources, request: Resource) -> Iterator[str]:
    """The codes of each ingredient, a Medication or Substance that is referred to included."""
    for ingredient in members(medication, "ingredient"):
        yield from list_codings(ingredient.get("itemCodeableConcept"))
        item = ingredient.get("itemReference")
        found = resolve(item, resources, medication) or resolve(item, resources, request) or {}
        yield from list_codings(found.get("code"))


def list_references(resource: Resource) -> Iterator[str]:
    """The references that lead from a MedicationRequest or Medication, or what it contains, to its drug."""
    for each in (resource, *members(resource, "contained")):
        elements = [each.get("medicationReference"), *(i.get("itemReference") for i in members(each, "ingredient"))]
        for element in elements:
            if isinstance(element, dict) and isinstance(text := element.get("reference"), str):
                yield text
