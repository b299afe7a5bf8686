"""Charges of an encounter that has none, made from its Procedures by ChargeItemDefinition (https://hl7.org/fhir/R4/chargeitemdefinition.html)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from fhir_server.fhir.outcome import Issue
from mappers.billing import codes
from mappers.billing.fields import (
    Resource,
    Resources,
    find_code,
    find_codings,
    find_extensions,
    find_identifier,
    find_reference,
    make_money,
    make_reference,
    make_task,
    resolve,
    to_amount,
    to_decimal,
)

Definitions = Mapping[tuple[str, str], Resource]


def procedures_to_charge_items(
    encounter: Resource, procedures: Iterable[Resource], definitions: Definitions, entered: str
) -> tuple[list[Resource], list[Issue]]:
    """A billable ChargeItem per completed Procedure that a ChargeItemDefinition prices; others are issues."""
    charges, issues = [], []
    for procedure in procedures:
        if procedure.get("status") != "completed":
            continue
        definition = find_definition(procedure.get("code"), definitions)
        if definition is None:
            place = make_reference(procedure)
            text = f"No active ChargeItemDefinition has the code of `{place}`. Add one, or enter the charge by hand."
            issues.append(Issue("warning", "not-found", text, (f"{place}.code",)))
            continue
        charges.append(_procedure_to_charge_item(procedure, encounter, definition, entered))
    return charges, issues


def index_definitions(definitions: Iterable[Resource]) -> Definitions:
    """The active ChargeItemDefinitions by their codings; the first of several with the same one counts."""
    results: dict[tuple[str, str], Resource] = {}
    for definition in definitions:
        for coding in find_codings(definition.get("code")) if definition.get("status") == "active" else ():
            results.setdefault((coding.get("system", ""), coding.get("code", "")), definition)
    return results


def find_definition(code: object, definitions: Definitions) -> Resource | None:
    """The ChargeItemDefinition of the first coding that has one."""
    keys = ((coding.get("system", ""), coding.get("code", "")) for coding in find_codings(code))
    return next((definitions[key] for key in keys if key in definitions), None)


def find_price(charge: Resource, definition: Resource | None) -> Decimal | None:
    """The total price of a charge: `priceOverride`, else units × the definition's `base` price × factor; else None."""
    if "priceOverride" in charge:
        return to_amount(charge["priceOverride"])
    for group in (definition or {}).get("propertyGroup", ()):
        for component in group.get("priceComponent", ()):
            if component.get("type") == "base" and "amount" in component:
                factor = to_decimal(charge.get("factorOverride", component.get("factor", 1)))
                return to_amount(component["amount"]) * find_quantity(charge) * factor
    return None


def find_quantity(charge: Resource) -> Decimal:
    """The units of a charge or claim line; 1 where none are said."""
    return to_decimal((charge.get("quantity") or {}).get("value", 1))


def _procedure_to_charge_item(procedure: Resource, encounter: Resource, definition: Resource, entered: str) -> Resource:
    charge: Resource = {
        "resourceType": "ChargeItem",
        "identifier": [{"system": codes.CHARGE_OF_PROCEDURE, "value": make_reference(procedure)}],
        "status": "billable",
        "code": definition["code"],
        "subject": procedure.get("subject") or encounter.get("subject") or {},
        "context": {"reference": make_reference(encounter)},
        "quantity": {"value": 1},
        "enteredDate": entered,
        "service": [{"reference": make_reference(procedure)}],
    }
    if "url" in definition:
        charge["definitionCanonical"] = [definition["url"]]
    for source, target in (("performedDateTime", "occurrenceDateTime"), ("performedPeriod", "occurrencePeriod")):
        if source in procedure:
            charge[target] = procedure[source]
    if performers := procedure.get("performer"):
        members = ("function", "actor")
        charge["performer"] = [{key: each[key] for key in members if key in each} for each in performers]
    if reasons := list(procedure.get("reasonCode", ())):
        charge["reason"] = reasons
    if references := procedure.get("reasonReference"):
        charge["supportingInformation"] = list(references)
    price = find_price(charge, definition)
    if price is not None:
        charge["priceOverride"] = make_money(price)
    return charge


def find_reasons(charge: Resource, encounter: Resource | None, resources: Resources) -> list[str]:
    """The ICD-10-CM codes of a charge, each once: its own, else the encounter's diagnoses by rank."""
    concepts = [*charge.get("reason", ())]
    concepts += [(resolve(each, resources) or {}).get("code") for each in charge.get("supportingInformation", ())]
    results = [code for concept in concepts if (code := find_code(concept, codes.ICD_10_CM))]
    if not results and encounter is not None:
        ranked = sorted(encounter.get("diagnosis", ()), key=lambda each: each.get("rank", 99))
        concepts = [(resolve(each.get("condition"), resources) or {}).get("code") for each in ranked]
        concepts += encounter.get("reasonCode", ())
        results = [code for concept in concepts if (code := find_code(concept, codes.ICD_10_CM))]
    return list(dict.fromkeys(results))


def find_charge_of_procedure(charge: Resource, others: Iterable[Resource]) -> Resource | None:
    """The charge made from a Procedure that a charge sent later stands for: same encounter, code, modifiers and day."""
    for other in others:
        if find_identifier(other, codes.CHARGE_OF_PROCEDURE) and _sameness(other) == _sameness(charge):
            return other
    return None


def make_charge_task(charge: Resource, met: Resource, created: str) -> Resource:
    """The Task that a charge opens instead of standing beside the one made from the Procedure."""
    text = (
        f"The charge {find_code(charge.get('code'))} came for an encounter that already has it as "
        f"`{make_reference(met)}`, made from a Procedure. Compare the two and keep one."
    )
    identifiers = ",".join(str(each.get("value", "")) for each in charge.get("identifier", ()))
    return make_task("charge-review", f"{make_reference(met)}:{identifiers}", make_reference(met), created, text)


def _sameness(charge: Resource) -> tuple[str, str, tuple[str, ...], str]:
    occurrence = charge.get("occurrenceDateTime") or (charge.get("occurrencePeriod") or {}).get("start", "")
    modifiers = tuple(find_code(each) for each in find_extensions(charge, codes.MODIFIER))
    return find_reference(charge.get("context")), find_code(charge.get("code")), modifiers, str(occurrence)[:10]
