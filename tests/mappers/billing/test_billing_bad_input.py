"""Whatever a claim, charge or remittance looks like: findings, issues, Tasks, never an exception or a wrong sum."""

from __future__ import annotations

import copy
import random
from datetime import date
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mappers.billing import codes
from mappers.billing.adjudications import Adjustment
from mappers.billing.assembly import AssemblySettings, assemble_claims, make_charges
from mappers.billing.balances import sum_balances
from mappers.billing.claim_view import Surroundings, view_claim
from mappers.billing.ledger import make_books
from mappers.billing.matching import index_claims
from mappers.billing.posting import PostingSettings, PostingState, post_remittance
from mappers.billing.remittance import ClaimPayment, PaymentLine, ProviderAdjustment, Remittance
from mappers.billing.reports import age_receivables, summarize_finances
from mappers.billing.scrub import scrub_claim
from mappers.billing.split import split_claim
from mappers.billing.split_rules import NO_RULES
from tests.mappers.billing.histories import Practice, day
from tests.mappers.billing.test_billing_ledger import HISTORIES
from tests.mappers.billing.valid_claims import TODAY, make_claims

Resource = dict[str, Any]
CLAIMS = make_claims(20, seed=5)


def concept(system: str, code: str) -> Resource:
    return {"coding": [{"system": system, "code": code}]}


CHARGES: list[Resource] = [
    {
        "resourceType": "Encounter",
        "id": each,
        "subject": {"reference": "Patient/ada"},
        "period": {"start": "2026-11-02T09:00:00-06:00"},
        "participant": [{"type": [concept("", "ATND")], "individual": {"reference": "Practitioner/pine"}}],
        "location": [{"location": {"reference": "Location/north"}}],
        "diagnosis": [{"condition": {"reference": "Condition/one"}, "rank": 1}],
    }
    for each in ("e1", "e2")
]
CHARGES += [
    {"resourceType": "Location", "id": "north", "type": [concept(codes.POS, "19")]},
    {"resourceType": "Condition", "id": "one", "code": concept(codes.ICD_10_CM, "I10")},
    {
        "resourceType": "Coverage",
        "id": "one",
        "status": "active",
        "order": 1,
        "beneficiary": {"reference": "Patient/ada"},
        "payor": [{"reference": "Organization/payer"}],
        "period": {"start": "2026-01-01"},
    },
    {
        "resourceType": "Procedure",
        "id": "p1",
        "status": "completed",
        "code": concept(codes.CPT, "17110"),
        "subject": {"reference": "Patient/ada"},
        "encounter": {"reference": "Encounter/e2"},
        "performedDateTime": "2026-11-02T10:00:00-06:00",
        "performer": [{"actor": {"reference": "Practitioner/pine"}}],
        "reasonCode": [concept(codes.ICD_10_CM, "B07.9")],
    },
    {
        "resourceType": "ChargeItemDefinition",
        "id": "d1",
        "status": "active",
        "code": concept(codes.CPT, "17110"),
        "propertyGroup": [{"priceComponent": [{"type": "base", "amount": {"value": Decimal("140.00")}}]}],
    },
    {
        "resourceType": "ChargeItem",
        "id": "a",
        "status": "billable",
        "code": concept(codes.CPT, "20610"),
        "subject": {"reference": "Patient/ada"},
        "context": {"reference": "Encounter/e1"},
        "occurrenceDateTime": "2026-11-02",
        "performer": [{"function": concept("", "supervisor"), "actor": {"reference": "Practitioner/oak"}}],
        "priceOverride": {"value": Decimal("100.00")},
        "quantity": {"value": 2},
        "reason": [concept(codes.ICD_10_CM, "M17.11")],
        "extension": [{"url": codes.MODIFIER, "valueCodeableConcept": concept("", "RT")}],
    },
]
VALUES: list[Any] = ["", "x", "2026-02-30", "-1", "9" * 30, 0, -1, Decimal("1.005"), True]


def list_places(tree: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of each member and list entry, however deep."""
    keys = tree.keys() if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    found = []
    for key in keys:
        found += [(*place, key), *list_places(tree[key], (*place, key))]
    return found


def spoil(tree: Resource, chance: random.Random) -> None:
    """One leaf replaced by a value of its own kind of JSON, or one member removed; the shape stays FHIR's."""
    place = chance.choice(list_places(tree))
    parent: Any = tree
    for key in place[:-1]:
        parent = parent[key]
    old = parent[place[-1]]
    if isinstance(old, dict | list) or chance.random() < 0.3:
        if place[-1] not in ("resourceType", "id"):
            del parent[place[-1]]
        return
    same = [each for each in VALUES if isinstance(each, str) == isinstance(old, str)]
    parent[place[-1]] = chance.choice(same)


@settings(max_examples=400)
@given(st.integers(0, 19), st.integers(0, 10**6), st.integers(1, 4))
def test_a_spoilt_claim_is_scrubbed_and_split(which: int, seed: int, times: int) -> None:
    claim, resources = copy.deepcopy(CLAIMS[which])
    chance = random.Random(seed)
    for _ in range(times):
        spoil(claim if chance.random() < 0.6 else resources[chance.choice(sorted(resources))], chance)
    around = Surroundings(today=TODAY)
    assert all(finding.wrong.endswith(".") for finding in scrub_claim(claim, resources, around))
    split = split_claim(view_claim(claim, resources, around), NO_RULES, "2026-11-20")
    assert split.children or split.held or split.invoices or split.issues


@settings(max_examples=300)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_spoilt_charges_are_assembled_or_told(seed: int, times: int) -> None:
    chance = random.Random(seed)
    everything = copy.deepcopy(CHARGES)
    for _ in range(times):
        spoil(chance.choice(everything), chance)
    resources = {f"{each['resourceType']}/{each['id']}": each for each in everything}
    made, _ = make_charges(resources, "2026-11-20")
    charges = [each for each in everything if each["resourceType"] == "ChargeItem"]
    charges += [{**each, "id": f"made{n}"} for n, each in enumerate(made)]
    found = assemble_claims(charges, resources, AssemblySettings("Organization/us", "2026-11-20"))
    billable = [each for each in charges if each.get("status") == "billable"]
    lines = sum(len(claim["item"]) for claim in found.claims)
    assert lines == len(found.charge_items)
    assert lines + len(found.issues) >= len(billable)


def make_histories() -> list[dict[str, Resource]]:
    practices = []
    for history in HISTORIES:
        practice = Practice()
        history(practice)
        practices.append(practice.resources)
    return practices


BOOKS = make_histories()


@settings(max_examples=300)
@given(st.integers(0, len(BOOKS) - 1), st.integers(0, 10**6), st.integers(1, 4))
def test_books_of_spoilt_resources_still_agree_with_themselves(which: int, seed: int, times: int) -> None:
    chance = random.Random(seed)
    resources = copy.deepcopy(BOOKS[which])
    for _ in range(times):
        spoil(resources[chance.choice(sorted(resources))], chance)
    books = make_books(resources)
    sums = {
        sum(sum_balances(books, day("05-30"), by).values()) for by in ("account", "claim", "line", "patient", "payer")
    }
    assert sums == {sum(row.sum_buckets() for row in age_receivables(books, day("05-30")))}
    summarize_finances(books, day("01-01"), day("05-30"))


AMOUNTS = st.decimals(min_value=-500, max_value=500, places=2)
ADJUSTMENTS = st.lists(
    st.builds(
        Adjustment,
        st.sampled_from(["CO", "PR", "OA", "XX", ""]),
        st.sampled_from(["45", "1", "16", "23", "?"]),
        AMOUNTS,
    ),
    max_size=3,
).map(tuple)
LINES = st.lists(
    st.builds(
        PaymentLine,
        st.sampled_from(["99213", ""]),
        AMOUNTS,
        AMOUNTS,
        control_number=st.sampled_from(["L000001", "L000002", "", "?"]),
        adjustments=ADJUSTMENTS,
    ),
    max_size=3,
).map(tuple)
PAYMENTS = st.builds(
    ClaimPayment,
    st.sampled_from(["T00000", "T00001", "T0000", "", "nobody"]),
    st.sampled_from(["1", "2", "3", "4", "19", "22", "23", "25", "99", ""]),
    AMOUNTS,
    AMOUNTS,
    payer_number=st.sampled_from(["ICN1", "ICN2", ""]),
    adjustments=ADJUSTMENTS,
    lines=LINES,
)


def mend(payment: ClaimPayment) -> ClaimPayment:
    """The same payment with charges that make it balance."""
    lines = tuple(
        PaymentLine(
            e.code,
            e.paid + sum((a.amount for a in e.adjustments), Decimal(0)),
            e.paid,
            control_number=e.control_number,
            adjustments=e.adjustments,
        )
        for e in payment.lines
    )
    adjusted = sum((each.amount for each in payment.list_adjustments()), Decimal(0))
    charge = payment.paid + adjusted
    return ClaimPayment(
        payment.control_number,
        payment.status,
        charge,
        payment.paid,
        payer_number=payment.payer_number,
        adjustments=payment.adjustments,
        lines=lines,
    )


@settings(max_examples=300)
@given(st.lists(PAYMENTS, max_size=5), st.lists(AMOUNTS, max_size=2), st.booleans(), st.booleans())
def test_whatever_a_remittance_says_the_details_are_the_payment_or_nothing_posts(
    payments: list[ClaimPayment], plb: list[Decimal], balanced: bool, summed: bool
) -> None:
    claims = tuple(mend(each) for each in payments) if balanced else tuple(payments)
    held = tuple(ProviderAdjustment("WO", "", amount) for amount in plb)
    amount = sum((each.paid for each in claims), Decimal(0)) - sum(plb, Decimal(0))
    sent = Remittance(
        "T", "1", amount if summed else amount + 1, date(2026, 12, 1), claims=claims, provider_adjustments=held
    )
    state = PostingState(index_claims([claim for claim, _ in CLAIMS], [], {}))
    posting = post_remittance(sent, state, PostingSettings("2026-12-02", "2026-12-02"))
    if not summed:
        assert posting.reconciliation is None and posting.responses == () and posting.tasks
        return
    assert posting.reconciliation is not None
    details = posting.reconciliation["detail"]
    assert sum((each["amount"]["value"] for each in details), Decimal(0)) == amount
    applied = [each for each in details if "response" in each]
    assert len(applied) == len(posting.responses)
    assert [each["payment"]["amount"]["value"] for each in posting.responses] == [
        each["amount"]["value"] for each in applied
    ]
