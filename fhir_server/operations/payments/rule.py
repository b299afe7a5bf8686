"""What posting made is never edited in place, and only posting makes it; charges have a day on which they count.

Asked about every write of ClaimResponse, PaymentReconciliation, PaymentNotice, Invoice and ChargeItem at any door.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from fhir_server.fhir.outcome import Issue
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.query import And, Equals, StartsWith
from fhir_server.workers.posting.closings import read_closed, read_posting_day
from fhir_server.workers.posting.reading import MOST
from fhir_server.writes.rules import ALLOWED, Change, Rules, Ruling
from fhir_server.writes.state import State
from mappers.billing import codes
from mappers.billing.charges import find_definition, find_price, index_definitions
from mappers.billing.fields import CENT, Resource, find_extension, find_identifier, to_day

_KEYS = {
    "ClaimResponse": codes.RESPONSE_KEY,
    "PaymentReconciliation": codes.REMITTANCE_KEY,
    "PaymentNotice": codes.REMITTANCE_KEY,
    "Invoice": codes.INVOICE_KEY,
}
_INVOICE_STATES = ("issued", "balanced", "cancelled")
_SET_BY_STORE = ("meta", "id")


async def posted_rule(state: State, change: Change) -> Ruling:
    """Refuse changes of what posting made, and what only posting may make."""
    posted = change.current is not None and _is_posted(change.current)
    if change.new is None:
        return _refuse(change) if posted else ALLOWED
    if not posted:
        return ALLOWED if not _is_posted(change.new) or _is_taken_in(dict(change.new)) else _refuse_claim(change)
    return ALLOWED if _may_change(dict(change.current or {}), dict(change.new)) else _refuse(change)


def _is_posted(resource: Mapping[str, Any]) -> bool:
    tree = dict(resource)
    return bool(find_identifier(tree, _KEYS[tree["resourceType"]]) or find_extension(tree, codes.POSTING_DATE))


def _is_taken_in(resource: dict[str, Any]) -> bool:
    """Whether it is the draft of a remittance: the worker posts what its message says, and nothing else."""
    draft = resource["resourceType"] == "PaymentReconciliation" and resource.get("status") == "draft"
    return draft and "detail" not in resource and not find_extension(resource, codes.POSTING_DATE)


def _may_change(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether only the patient differs, as after a merge, or the state of an Invoice that is in force."""
    differing = {name for name in {*old, *new} - set(_SET_BY_STORE) if old.get(name) != new.get(name)}
    if "extension" in differing and _name_patients(old) == _name_patients(new):
        differing.discard("extension")
    if old["resourceType"] == "Invoice" and new.get("status") in _INVOICE_STATES and old["status"] in _INVOICE_STATES:
        differing -= {"status", "cancelledReason"}
    return differing <= {"patient", "subject"}


def _name_patients(resource: dict[str, Any]) -> list[dict[str, Any]]:
    """The extensions, without which patient one of them names."""
    found = resource.get("extension", ())
    return [{"url": each["url"]} if each.get("url") == codes.PAYMENT_PATIENT else each for each in found]


def _refuse(change: Change) -> Ruling:
    text = (
        f"`{change.type}/{change.id}` was made by posting and is never edited or deleted. What was paid or written off "
        "by hand is taken back by `PaymentReconciliation/id/$reverse`; a payer's adjudication by the payer's reversal."
    )
    return Ruling((Issue("error", "business-rule", text, (change.type,)),))


def _refuse_claim(change: Change) -> Ruling:
    text = (
        f"Only posting gives a {change.type} the identifier `{_KEYS[change.type]}` and the extension "
        f"`{codes.POSTING_DATE}`. Leave them out, or post by `PaymentReconciliation/$post` or `Patient/id/$pay`."
    )
    return Ruling((Issue("error", "business-rule", text, (change.type,)),))


async def charge_rule(state: State, change: Change) -> Ruling:
    """A charge to be billed has a day, today where it is left out, and a price, that of the price list of that moment.

    The day is never in a closed month; a charge of a closed month keeps both.
    """
    old, new = change.current or {}, change.new or {}
    if not _counts(old) and not _counts(new):
        return ALLOWED
    closed = await read_closed(state)
    is_closed = closed is not None and _counts(old) and _read_entered(old) <= closed
    if is_closed and not _is_kept(old, new):
        return _refuse_closed(change, _read_entered(old))
    if not _counts(new):
        return ALLOWED
    elements: dict[str, Any] = {}
    if "enteredDate" not in new:
        elements["enteredDate"] = old.get("enteredDate") or str(await read_posting_day(state))
    elif closed is not None and not is_closed and _read_entered(new) <= closed:
        return _refuse_closed(change, _read_entered(new))
    if "priceOverride" not in new:
        is_same = is_closed or all(old.get(name) == new.get(name) for name in _PRICED_BY)
        price = old.get("priceOverride") if is_same and "priceOverride" in old else None
        price = price or (None if is_closed else await _find_price(state, dict(new)))
        elements |= {"priceOverride": price} if price else {}
    return Ruling(elements=elements) if elements else ALLOWED


_PRICED_BY = ("code", "quantity", "definitionCanonical", "factorOverride")


def _is_kept(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a charge still counts, with the day and the price that it had; what is left out stays."""
    names = ("enteredDate", "priceOverride")
    return _counts(new) and all(new.get(name, old.get(name)) == old.get(name) for name in names)


async def _find_price(state: State, charge: Resource) -> Resource | None:
    """What the price list says now: the ledger must not change with it. None where it says nothing."""
    urls = tuple(str(each).partition("|")[0] for each in charge.get("definitionCanonical", ()))
    active = StartsWith("status", f"active{SEPARATOR}")
    where = And((active, Equals("url", urls))) if urls else active
    found = await state.search("ChargeItemDefinition", where, most=MOST, asserted=False)
    definition = find_definition(charge.get("code"), index_definitions(dict(each.tree) for each in found))
    price = find_price(charge, definition)
    return None if price is None else {"value": float(price.quantize(CENT)), "currency": "USD"}


def _counts(charge: Mapping[str, Any]) -> bool:
    return charge.get("status") in ("billable", "billed")


def _read_entered(charge: Mapping[str, Any]) -> date:
    return to_day(str(charge.get("enteredDate", ""))) or date.max


def _refuse_closed(change: Change, day: date) -> Ruling:
    text = (
        f"`{change.type}/{change.id}` counts from {day}, and that month is closed: neither its day nor its price nor "
        "that it counts can be changed; no charge is added to it. Enter a charge of today (leave `enteredDate` out) or "
        "write off what was charged by `Claim/id/$adjust`."
    )
    return Ruling((Issue("error", "business-rule", text, ("ChargeItem.enteredDate",)),))


PAYMENT_RULES: Rules = {**dict.fromkeys(_KEYS, posted_rule), "ChargeItem": charge_rule}
