"""What a message says is held to the invariants of R4: what breaks one is taken out of its resource, and told.

https://hl7.org/fhir/R4/conformance-rules.html#constraints. The rows are those that a message can break, alone or
together with what is stored already; the message itself is always kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from fhir_server.fhir.datetimes import parse_interval
from mappers.hl7v2.changes import Resource
from mappers.hl7v2.issues import Issue, tell, warn

REACHED_BY = ("name", "telecom", "address", "organization")


class Rule(NamedTuple):
    """A row: the type it is about ("": all), the key in R4, what mends it, and what is told then, and how.

    `mend` gives the resource without what breaks the rule; the same object where nothing does.
    """

    type: str
    key: str
    mend: Callable[[Resource], Resource]
    tell: Callable[[str], Issue]
    sentence: str


def mend_resource(resource: Resource) -> tuple[Resource, list[Issue]]:
    """The resource as R4 takes it, the same object where it is so already, and an issue for each rule broken."""
    issues = []
    for rule in RULES:
        if rule.type in ("", resource["resourceType"]):
            mended = rule.mend(resource)
            if mended is not resource:
                issues.append(rule.tell(f"{resource['resourceType']}: {rule.sentence} ({rule.key})."))
                resource = mended
    return resource, issues


def _drop(resource: Resource, *names: str) -> Resource:
    """Without elements, nor what stands beside them."""
    gone = {*names, *(f"_{name}" for name in names)}
    return {name: value for name, value in resource.items() if name not in gone}


def _set_list(resource: Resource, name: str, entries: list[Any]) -> Resource:
    return {**resource, name: entries} if entries else _drop(resource, name)


def _mend_periods(resource: Resource) -> Resource:
    """The resource with periods in order; one without any is known by its text, sooner than by a look at all parts."""
    if b'"end":' not in orjson.dumps(resource, default=str):
        return resource
    ordered: Resource = _order_periods(resource)
    return ordered


def _order_periods(value: Any) -> Any:
    """A JSON tree whose periods end at or after their start: an end before it is left out."""
    if isinstance(value, dict):
        changed = {}
        for name, member in value.items():
            if isinstance(member, dict | list) and (mended := _order_periods(member)) is not member:
                changed[name] = mended
        ordered = {**value, **changed} if changed else value
        return _drop(ordered, "end") if "end" in value and "start" in value and _ends_early(value) else ordered
    if isinstance(value, list):
        items = [_order_periods(each) if isinstance(each, dict) else each for each in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


def _ends_early(period: Resource) -> bool:
    """Whether it certainly ends before it starts: a year, month or day ends with its last moment."""
    try:
        return parse_interval(period["start"])[0] > parse_interval(period["end"])[1]
    except (ValueError, TypeError):
        return False


def _drop_home(resource: Resource) -> Resource:
    for name in ("address", "telecom"):
        entries = resource.get(name, ())
        if any(each.get("use") == "home" for each in entries):
            mended = [_drop(each, "use") if each.get("use") == "home" else each for each in entries]
            resource = {**resource, name: mended}
    return resource


def _drop_empty_contacts(resource: Resource) -> Resource:
    contacts = resource.get("contact", ())
    reached = [each for each in contacts if any(name in each for name in REACHED_BY)]
    return resource if len(reached) == len(contacts) else _set_list(resource, "contact", reached)


def _drop_details(resource: Resource) -> Resource:
    return _drop(resource, "orderDetail") if "orderDetail" in resource and "code" not in resource else resource


def _drop_reason(resource: Resource) -> Resource:
    over = resource.get("status") in ("cancelled", "noshow")
    return _drop(resource, "cancelationReason") if "cancelationReason" in resource and not over else resource


def _drop_clinical_status(resource: Resource) -> Resource:
    codings = resource.get("verificationStatus", {}).get("coding", ())
    wrong = any(each.get("code") == "entered-in-error" for each in codings)
    return _drop(resource, "clinicalStatus") if wrong and "clinicalStatus" in resource else resource


def _warn(text: str) -> Issue:
    return warn("102", text)


RULES = tuple(
    Rule(*row)
    for row in (
        ("", "per-1", _mend_periods, _warn, "the end of a period is before its start and is left out"),
        ("Organization", "org-2, org-3", _drop_home, tell, "the use `home` of its address and numbers is left out"),
        ("Patient", "pat-1", _drop_empty_contacts, _warn,
         "a contact without name, number, address and organization is left out"),
        ("ServiceRequest", "prr-1", _drop_details, _warn, "details of an order without a code are left out"),
        ("Appointment", "app-4", _drop_reason, tell, "the reason of an earlier cancellation is left out"),
        ("Condition", "con-5", _drop_clinical_status, tell, "what was entered in error has no clinical status"),
    )
)  # fmt: skip
