"""A charge is billed by one claim: the rules of Claim and ChargeItem, asked about every write at any door.

A claim in force (draft or active) makes the charges that its lines name `billed`; a claim that is cancelled or deleted
gives back those that no other claim and no Invoice in force names. Claims with `related` bill what the claim that they
relate to bills: the parts of a split, the claim to the next payer, a replacement.
"""

from __future__ import annotations

from typing import Any

from fhir_server.fhir.outcome import Issue
from fhir_server.search.query import Equals, Ids
from fhir_server.workers.posting.follow import list_charges
from fhir_server.workers.posting.reading import MOST, name_if_seen
from fhir_server.workers.posting.writes import name, put, read_now
from fhir_server.writes.action import Action
from fhir_server.writes.pending_writes import Tree
from fhir_server.writes.rules import ALLOWED, Change, RuleForSome, Rules, Ruling
from fhir_server.writes.state import State
from mappers.billing import codes
from mappers.billing.charges import find_charge_of_procedure, make_charge_task
from mappers.billing.fields import Resource, find_identifier, find_reference, make_reference

_IN_FORCE = ("draft", "active")
_INVOICED = ("draft", "issued", "balanced")
_CHARGED = ("planned", "billable", "billed", "unknown")


async def claim_rule(state: State, change: Change) -> Ruling:
    """Keep the status of charges in step with the claims that bill them."""
    old, new = _list_billed(change.current), _list_billed(change.new)
    if old == new:
        return ALLOWED
    patient = find_reference((change.new or change.current or {}).get("patient"))
    state.lock((f"charges {patient}",))
    bills_again = bool((change.new or {}).get("related"))
    beside = {} if bills_again else _list_beside(state, change)
    if twice := sorted(new & beside.keys()):
        return Ruling(tuple(_refuse_twice(each, f"`{beside[each]}`") for each in twice))
    moved = sorted((old ^ new) - state.list_pending(frozenset({"ChargeItem"})).keys())
    if not moved:
        return ALLOWED
    charges = {
        make_reference(dict(each.tree)): dict(each.tree)
        for each in await state.search("ChargeItem", Ids(tuple(each.partition("/")[2] for each in moved)))
    }
    taken = [each for each in charges.values() if make_reference(each) in new and each.get("status") == "billed"]
    freed = [each for each in charges.values() if make_reference(each) not in new and each.get("status") == "billed"]
    others = await _find_others(state, patient, change.id) if freed or (taken and not bills_again) else {}
    names = [] if bills_again else [make_reference(each) for each in taken]
    issues = [_refuse_twice(each, await name_if_seen(state, others[each])) for each in names if each in others]
    kept = [each for each in map(make_reference, freed) if _is_invoice(others.get(each, ""))]
    issues += [_tell_kept(each, await name_if_seen(state, others[each])) for each in kept]
    actions = [_set_status(each, "billable") for each in freed if make_reference(each) not in others]
    actions += [
        _set_status(each, "billed")
        for reference, each in charges.items()
        if reference in new and each.get("status") == "billable"
    ]
    return Ruling(tuple(issues), tuple(actions))


async def charge_rule(state: State, change: Change) -> Ruling:
    """A charge that a claim in force names stays `billed`; one that a Procedure gave already is not billed again."""
    new, old = dict(change.new or {}), dict(change.current or {})
    if old.get("status") == "billed" and new.get("status") != "billed":
        return await _keep_billed(state, change)
    if new.get("status") != "billable":
        return ALLOWED
    beside = state.list_pending(frozenset({"Claim"})).values()
    if any(f"ChargeItem/{change.id}" in _list_billed(each) for each in beside):
        return Ruling(elements={"status": "billed"})
    if old.get("status") == "billable":
        return ALLOWED
    return await _meet_charge(state, {**new, "id": change.id})


async def _keep_billed(state: State, change: Change) -> Ruling:
    old = dict(change.current or {})
    patient, reference = find_reference(old.get("subject")), f"ChargeItem/{change.id}"
    state.lock((f"charges {patient}",))
    claims = await _find_others(state, patient, "")
    if reference not in claims:
        return ALLOWED
    by = await name_if_seen(state, claims[reference])
    text = f"`{reference}` is billed by {by}. Cancel that first; the charge is billable then."
    return Ruling((Issue("error", "business-rule", text, ("ChargeItem.status",)),))


async def _meet_charge(state: State, charge: Resource) -> Ruling:
    """A charge that comes after one made from a Procedure is kept, not billed, and a person compares the two."""
    encounter = find_reference(charge.get("context"))
    if not encounter or find_identifier(charge, codes.CHARGE_OF_PROCEDURE):
        return ALLOWED
    found = [dict(each.tree) for each in await state.search("ChargeItem", Equals("context", (encounter,)), most=MOST)]
    others = [each for each in found if each.get("id") != charge["id"] and each.get("status") in _CHARGED]
    met = find_charge_of_procedure(charge, others)
    if met is None:
        return ALLOWED
    task = name(make_charge_task(charge, met, read_now(state.context)))
    actions = () if await state.read("Task", task["id"]) is not None else (put(task, decided=False),)
    text = (
        f"`{make_reference(met)}`, made from a Procedure, is the same charge; this one is stored as `not-billable`, "
        f"and `Task/{task['id']}` asks which of the two to keep."
    )
    issue = Issue("warning", "duplicate", text, ("ChargeItem.status",))
    return Ruling((issue,), actions, elements={"status": "not-billable"})


def _list_billed(claim: Tree | None) -> set[str]:
    """The charges that a claim bills; none where it is no claim in force."""
    if claim is None or claim.get("use") != "claim" or claim.get("status") not in _IN_FORCE:
        return set()
    return list_charges(dict(claim))


async def _find_others(state: State, patient: str, id: str) -> dict[str, str]:
    """By charge, the claim or Invoice in force that bills it, this claim aside."""
    found = await state.search("Claim", Equals("patient", (patient,)), most=MOST)
    invoices = await state.search("Invoice", Equals("subject", (patient,)), most=MOST)
    return {charge: f"Invoice/{each.tree['id']}" for each in invoices for charge in _list_invoiced(each.tree)} | {
        charge: f"Claim/{each.tree['id']}"
        for each in found
        if each.tree.get("id") != id
        for charge in _list_billed(each.tree)
    }


def _list_invoiced(invoice: Tree) -> set[str]:
    """The charges that the patient pays by an Invoice in force, as the rules of splitting make it."""
    if invoice.get("status") not in _INVOICED:
        return set()
    return {find_reference(each.get("chargeItemReference")) for each in invoice.get("lineItem", ())} - {""}


def _list_beside(state: State, change: Change) -> dict[str, str]:
    """By charge, another claim of the same transaction that bills it first."""
    return {
        charge: reference
        for reference, each in state.list_pending(frozenset({"Claim"})).items()
        if reference != f"Claim/{change.id}" and not (each or {}).get("related")
        for charge in _list_billed(each)
    }


def _is_invoice(reference: str) -> bool:
    return reference.startswith("Invoice/")


def _tell_kept(reference: str, by: str) -> Issue:
    text = f"`{reference}` stays `billed`: {by} bills it or a part of it. Cancel that as well to bill it."
    return Issue("warning", "business-rule", text, ("Claim.item",))


def _refuse_twice(reference: str, by: str) -> Issue:
    text = (
        f"`{reference}` is billed by {by} already. Cancel that first, or name it in `related` "
        "where this one replaces or follows it."
    )
    return Issue("error", "business-rule", text, ("Claim.item",))


def _set_status(charge: Resource, status: str) -> Action:
    def patch(tree: Any) -> Any:
        return {**tree, "status": status}

    return Action("PATCH", "ChargeItem", "", id=charge["id"], patch=patch, decided=True)


CHARGE_RULES: Rules = {
    "Claim": RuleForSome(claim_rule, lambda claim: bool(_list_billed(claim))),
    "ChargeItem": charge_rule,
}
