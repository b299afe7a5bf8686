"""The numbers that a claim goes out under: the patient control number (CLM01) and that of each line (REF*6R)."""

from __future__ import annotations

from mappers.billing import codes
from mappers.billing.fields import Resource, find_identifier, make_control_number, make_reference


def find_key(claim: Resource) -> str:
    """What tells a claim from all others: its patient control number, else its reference, else its first identifier."""
    number = find_identifier(claim, codes.PATIENT_CONTROL_NUMBER)
    others = (str(each.get("value", "")) for each in claim.get("identifier", ()))
    return number or (make_reference(claim) if "id" in claim else next(others, ""))


def number_claim(claim: Resource) -> Resource:
    """The claim with a patient control number and a number for each line, both following from what it is.

    A claim written by others has neither; those that are there stay.
    """
    number = find_identifier(claim, codes.PATIENT_CONTROL_NUMBER)
    if not number:
        number = make_control_number(find_key(claim))
        own = {"system": codes.PATIENT_CONTROL_NUMBER, "value": number}
        claim = {**claim, "identifier": [own, *claim.get("identifier", ())]}
    items = [_number_item(item, number, place) for place, item in enumerate(claim.get("item", ()), 1)]
    return {**claim, "item": items} if items else claim


def _number_item(item: Resource, number: str, place: int) -> Resource:
    return (
        item
        if "id" in item
        else {"id": make_control_number(number, str(item.get("sequence", place)), length=16), **item}
    )


def set_frequency(claim: Resource, frequency: str, original: str = "") -> Resource:
    """The claim with CLM05-3 (1 original, 7 replacement, 8 void), and the payer's number of the claim it is about."""
    kept = [each for each in claim.get("extension", ()) if each.get("url") != codes.FREQUENCY]
    if frequency != "1":
        kept.append({"url": codes.FREQUENCY, "valueCode": frequency})
        if original and not any(each.get("url") == codes.ORIGINAL_NUMBER for each in kept):
            kept.append({"url": codes.ORIGINAL_NUMBER, "valueString": original})
    rest = {key: value for key, value in claim.items() if key != "extension"}
    return {**rest, "extension": kept} if kept else rest
