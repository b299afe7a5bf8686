"""Reading elements of FHIR resources held as dictionaries: codes, identifiers, money and days (https://hl7.org/fhir/R4/datatypes.html)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from mappers.billing import codes

Resource = dict[str, Any]
Resources = Mapping[str, Resource]
"""Resources by local reference: `Patient/1` to the Patient."""

ZERO = Decimal("0.00")
CENT = Decimal("0.01")
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def to_decimal(value: object) -> Decimal:
    """A number as `Decimal`; what is absent or no finite number is 0. Floats are read by their shortest text."""
    if type(value) is int:
        return Decimal(value)
    if isinstance(value, Decimal) and value.is_finite():
        return value
    if value is None or isinstance(value, bool):
        return Decimal(0)
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return Decimal(0)
    return number if number.is_finite() else Decimal(0)


def to_amount(money: object) -> Decimal:
    """The value of a Money, 0.00 where there is none."""
    return to_decimal(money.get("value")) if isinstance(money, dict) else ZERO


def make_money(amount: Decimal, currency: str = "USD") -> Resource:
    """A Money with two places."""
    return {"value": amount.quantize(CENT), "currency": currency}


def sum_amounts(amounts: Iterable[Decimal]) -> Decimal:
    """The sum with two places, also of nothing."""
    return sum(amounts, ZERO)


def find_codings(concept: object) -> Sequence[Resource]:
    """The codings of a CodeableConcept, also of an absent one."""
    return concept.get("coding", ()) if isinstance(concept, dict) else ()


def find_code(concept: object, *systems: str) -> str:
    """The first code of a CodeableConcept in one of the systems (in any, where none is named), else ``""``."""
    for coding in find_codings(concept):
        if not systems or coding.get("system") in systems:
            return str(coding.get("code", ""))
    return ""


def find_procedure(item: Resource) -> str:
    """The CPT or HCPCS code of a claim line or charge, else its first code."""
    concept = item.get("productOrService") or item.get("code")
    return find_code(concept, codes.CPT, codes.HCPCS) or find_code(concept)


def find_modifiers(item: Resource) -> tuple[str, ...]:
    """The modifiers of a claim line in their order."""
    return tuple(find_code(each) for each in item.get("modifier", ()))


def find_identifier(resource: Resource | None, *systems: str) -> str:
    """The value of the first identifier in one of the systems, else ``""``."""
    for identifier in (resource or {}).get("identifier", ()):
        if identifier.get("system") in systems:
            return str(identifier.get("value", ""))
    return ""


def find_extension(element: Resource | None, url: str) -> Any:
    """The value[x] of the first extension with this url, else None."""
    for each in (element or {}).get("extension", ()):
        if each.get("url") == url:
            for key, value in each.items():
                if key.startswith("value"):
                    return value
    return None


def find_extensions(element: Resource | None, url: str) -> list[Any]:
    """The values[x] of all extensions with this url, in their order."""
    matching = (each for each in (element or {}).get("extension", ()) if each.get("url") == url)
    return [value for each in matching for key, value in each.items() if key.startswith("value")]


def find_reference(element: object) -> str:
    """The literal reference of a Reference, else ``""``."""
    return str(element.get("reference", "")) if isinstance(element, dict) else ""


def resolve(element: object, resources: Resources, container: Resource | None = None) -> Resource | None:
    """The resource that a Reference names, a contained one included; None where it is not among the resources."""
    reference = find_reference(element)
    if reference.startswith("#") and container is not None:
        inner = (each for each in container.get("contained", ()) if each.get("id") == reference[1:])
        return next(inner, None)
    return resources.get(reference)


def make_reference(resource: Resource) -> str:
    """`Type/id` of a resource."""
    return f"{resource['resourceType']}/{resource.get('id', '')}"


def make_concept(system: str, code: str) -> Resource:
    """A CodeableConcept of one coding; of a code that was left empty only a text."""
    return {"coding": [{"system": system, "code": code}]} if code else {"text": "not told"}


@lru_cache(maxsize=4096)
def to_day(text: str) -> date | None:
    """The day that a date or dateTime begins with as it is written; None where it names no whole day."""
    try:
        return date.fromisoformat(text[:10])
    except ValueError:
        return None


def to_local_day(text: str, zone: tzinfo) -> date | None:
    """The day of a date or dateTime in the practice's zone; a value without an offset is local already."""
    if len(text) <= 10:
        return to_day(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return to_day(text)
    return moment.date() if moment.tzinfo is None else moment.astimezone(zone).date()


def find_serviced_days(item: Resource) -> tuple[date | None, date | None]:
    """First and last day of a claim line; both None where it has no date."""
    if "servicedDate" in item:
        day = to_day(str(item["servicedDate"]))
        return day, day
    period = item.get("servicedPeriod") or {}
    first = to_day(str(period.get("start", "")))
    return first, to_day(str(period.get("end", ""))) or first


def covers(period: object, day: date) -> bool:
    """Whether a Period, open where it has no end, contains the day."""
    if not isinstance(period, Mapping):
        return True
    start, end = to_day(str(period.get("start", ""))), to_day(str(period.get("end", "")))
    return (start is None or start <= day) and (end is None or day <= end)


def make_control_number(*parts: str, length: int = 17) -> str:
    """A number of A–Z and 0–9 that the parts alone determine; 17 places hold 87 bits, enough to be unique."""
    number = int.from_bytes(hashlib.sha256("\x1f".join(parts).encode()).digest(), "big")
    digits = []
    for _ in range(length):
        number, place = divmod(number, 36)
        digits.append(_ALPHABET[place])
    return "".join(digits)


def derive_id(*parts: str) -> str:
    """The resource id that these parts always have: 128 bits of their hash."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]


def make_task(code: str, key: str, focus: str, created: str, description: str) -> Resource:
    """A Task that asks for a person's decision; the key makes it exist once."""
    task: Resource = {
        "resourceType": "Task",
        "identifier": [{"system": codes.TASK_KEY, "value": f"{code}:{key}"}],
        "status": "requested",
        "intent": "order",
        "code": make_concept(codes.TASK, code),
        "description": description,
        "authoredOn": created,
    }
    if focus:
        task["focus"] = {"reference": focus}
    return task
