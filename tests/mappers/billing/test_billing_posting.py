"""Remittances: the laws of balance, matching, posting by class, reversals, provider adjustments, what follows."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappers.billing import codes
from mappers.billing.adjudications import Adjustment, read_adjustments
from mappers.billing.adjustment_classes import classify
from mappers.billing.claim_responses import list_adjudications, read_posted
from mappers.billing.claim_view import Surroundings
from mappers.billing.fields import find_code, find_extension, find_identifier
from mappers.billing.follow_up import FollowUp, FollowUpSettings, Posted, draft_next, follow_posting
from mappers.billing.matching import index_claims, match_claim, match_lines
from mappers.billing.posting import Posting, PostingSettings, PostingState, post_remittance
from mappers.billing.remittance import (
    ClaimPayment,
    PaymentLine,
    ProviderAdjustment,
    Remittance,
    check_balance,
    compare_remittances,
    is_forwarded,
)
from mappers.billing.scrub import scrub_claim
from tests.mappers.billing.valid_claims import TODAY, make_claims

Resource = dict[str, Any]
D = Decimal
DAY = date(2026, 12, 1)
SETTINGS = PostingSettings(created="2026-12-02", posting_day="2026-12-02", payer="Organization/payer", payer_id="90001")
FOLLOW = FollowUpSettings(created="2026-12-02", posting_day="2026-12-02")


def cas(group: str, reason: str, amount: str) -> Adjustment:
    return Adjustment(group, reason, D(amount))


def claim(number: str, *charges: str, payers: int = 1) -> Resource:
    """A claim with a line per charge, all 99213 of 2 November."""
    return {
        "resourceType": "Claim",
        "id": number.lower(),
        "identifier": [{"system": codes.PATIENT_CONTROL_NUMBER, "value": number}],
        "status": "active",
        "type": {"coding": [{"system": codes.CLAIM_TYPE, "code": "professional"}]},
        "patient": {"reference": "Patient/ada"},
        "provider": {"reference": "Organization/us"},
        "insurance": [
            {"sequence": n, "focal": n == 1, "coverage": {"reference": f"Coverage/{n}"}} for n in range(1, payers + 1)
        ],
        "item": [
            {
                "id": f"{number}L{n}",
                "extension": [
                    {"url": codes.CHARGE_ITEM, "valueReference": {"reference": f"ChargeItem/{number.lower()}{n}"}}
                ],
                "sequence": n,
                "productOrService": {"coding": [{"system": codes.CPT, "code": "99213"}]},
                "servicedDate": "2026-11-02",
                "net": {"value": D(charge), "currency": "USD"},
            }
            for n, charge in enumerate(charges, 1)
        ],
        "total": {"value": sum((D(each) for each in charges), D("0.00")), "currency": "USD"},
    }


def line(number: str, charge: str, paid: str, *adjustments: Adjustment, **more: Any) -> PaymentLine:
    return PaymentLine(
        "99213", D(charge), D(paid), control_number=number, day=date(2026, 11, 2), adjustments=adjustments, **more
    )


def payment(number: str, status: str, charge: str, paid: str, *lines: PaymentLine, **more: Any) -> ClaimPayment:
    return ClaimPayment(number, status, D(charge), D(paid), payer_number=more.pop("icn", "ICN1"), lines=lines, **more)


def remittance(
    *claims: ClaimPayment, plb: tuple[ProviderAdjustment, ...] = (), trace: str = "T1", amount: str = ""
) -> Remittance:
    total = sum((each.paid for each in claims), D("0.00")) - sum((each.amount for each in plb), D("0.00"))
    return Remittance(
        trace,
        "1999",
        D(amount) if amount else total,
        DAY,
        claims=claims,
        provider_adjustments=plb,
        payer_name="PLAN ONE",
    )


def post(sent: Remittance, *claims: Resource, earlier: tuple[Resource, ...] = ()) -> Posting:
    responses: dict[str, list[Resource]] = {}
    for each in earlier:
        responses.setdefault(each["request"]["reference"], []).append(each)
    state = PostingState(index_claims(claims, earlier, {}), responses)
    posting = post_remittance(sent, state, SETTINGS)
    if posting.reconciliation:
        details = sum((each["amount"]["value"] for each in posting.reconciliation["detail"]), D(0))
        assert details == posting.reconciliation["paymentAmount"]["value"] == sent.amount
    return posting


def written_off(response: Resource) -> Decimal:
    return sum((read_posted(entry) for entry in list_adjudications(response)), D(0))


def follow(of: Resource, *responses: Resource, paid: str = "0.00", invoices: tuple[Resource, ...] = ()) -> FollowUp:
    return follow_posting(Posted(of, responses, invoices, D(paid)), FOLLOW)


# The laws of balance


def test_a_line_that_does_not_balance_stays_unapplied_and_the_rest_posts() -> None:
    good = payment("PCN1", "1", "100", "60", line("PCN1L1", "100", "60", cas("CO", "45", "40")))
    bad = payment("PCN2", "1", "100", "70", line("PCN2L1", "100", "70", cas("CO", "45", "20")))
    posting = post(remittance(good, bad), claim("PCN1", "100"), claim("PCN2", "100"))
    assert posting.reconciliation is not None
    assert [find_code(each["type"]) for each in posting.reconciliation["detail"]] == ["payment", "unapplied"]
    assert [each["request"]["reference"] for each in posting.responses] == ["Claim/pcn1"]
    (task,) = posting.tasks
    assert "Line 1 (99213) of claim `PCN2` does not balance: 10.00 missing." in task["description"]
    assert "70.00 stay unapplied." in task["description"]


def test_a_set_whose_payment_is_not_the_sum_posts_nothing() -> None:
    posting = post(
        remittance(payment("PCN1", "1", "100", "60", adjustments=(cas("CO", "45", "40"),)), amount="61"),
        claim("PCN1", "100"),
    )
    assert posting.reconciliation is None and posting.responses == ()
    assert "1.00 too much. Nothing was posted" in posting.tasks[0]["description"]


@pytest.mark.parametrize(("amount", "text"), [("59", "1.00 missing."), ("61", "1.00 too much.")])
def test_a_difference_is_missing_or_too_much(amount: str, text: str) -> None:
    """A set that pays 59 or 61 for a claim of 60; a claim of 100 that is paid so with 40 written off."""
    whole = remittance(payment("PCN1", "1", "100", "60", adjustments=(cas("CO", "45", "40"),)), amount=amount)
    assert text in check_balance(whole).transaction[0]
    one = payment("PCN1", "1", "100", amount, adjustments=(cas("CO", "45", "40"),))
    (fault,) = check_balance(remittance(one)).claims[0]
    assert fault.sentence.endswith(text)


@pytest.mark.parametrize(
    ("field", "value", "sentence"), [("payment_day", None, "neither a payment date"), ("currency", "EUR", "in EUR")]
)
def test_a_set_without_day_or_in_another_currency_posts_nothing(field: str, value: object, sentence: str) -> None:
    sent = Remittance(**{"trace": "T", "payer_number": "1", "amount": D(0), "payment_day": DAY, field: value})  # type: ignore[arg-type]
    assert sentence in post(sent).tasks[0]["description"]


def test_a_patient_share_that_differs_only_warns() -> None:
    told = payment("PCN1", "1", "100", "60", adjustments=(cas("PR", "1", "40"),), patient_responsibility=D(30))
    balance = check_balance(remittance(told))
    assert balance.claims == {} and balance.transaction == ()
    assert balance.warnings == ("Claim `PCN1` says that the patient owes 30.00; its PR adjustments are 40.00.",)


def test_the_production_date_stands_in_for_the_payment_date() -> None:
    sent = Remittance("T", "1", D(0), None, produced=DAY)
    posting = post(sent)
    assert posting.reconciliation is not None and posting.reconciliation["paymentDate"] == "2026-12-01"
    assert "production date" in posting.warnings[0]


def test_the_same_set_in_another_envelope_is_the_same_and_another_amount_is_not() -> None:
    one = Remittance("T1", "1999", D(10), DAY, digest="a")
    assert one.make_key() == Remittance("T1", "1999", D("10.00"), DAY, digest="b").make_key()
    assert compare_remittances(one, None) == "new"
    assert compare_remittances(one, "a") == "same"
    assert compare_remittances(one, "b") == "changed"


# Classes and posting


@pytest.mark.parametrize(
    ("group", "reason", "kind"),
    [
        ("CO", "45", "contractual"),
        ("CO", "253", "contractual"),
        ("CO", "16", "denial"),
        ("PI", "97", "denial"),
        ("OA", "23", "prior-payer"),
        ("PR", "1", "patient"),
        ("PR", "96", "patient"),
        ("CR", "45", "informational"),
        ("CO", "999", "unknown"),
    ],
)  # fmt: skip
def test_classes_by_group_and_reason(group: str, reason: str, kind: str) -> None:
    assert classify(Adjustment(group, reason, D(1))) == kind
    assert classify(Adjustment(group, reason, D(1)), "9", {("9", group, reason): "contractual"}) == "contractual"


def test_b3_a_denial_is_not_written_off() -> None:
    denied = payment("PCN7", "1", "90", "0", adjustments=(cas("CO", "16", "90"),))
    posting = post(remittance(denied), claim("PCN7", "90"))
    (response,) = posting.responses
    assert written_off(response) == 0
    found = follow(claim("PCN7", "90"), response)
    assert [find_code(task["code"]) for task in found.tasks] == ["denial"]
    assert "90.00 denied (CO-16). Add what the remark codes name" in found.tasks[0]["description"]
    assert found.invoice is None


def test_b4_a_payment_of_nothing_to_the_deductible_moves_the_claim_to_the_patient() -> None:
    zero = payment("PCN8", "1", "90", "0", line("PCN8L1", "90", "0", cas("PR", "1", "90")))
    (response,) = post(remittance(zero), claim("PCN8", "90")).responses
    found = follow(claim("PCN8", "90"), response)
    assert found.tasks == ()
    assert found.invoice is not None and found.invoice["totalNet"]["value"] == D("90.00")
    assert found.invoice["lineItem"][0]["chargeItemReference"] == {"reference": "ChargeItem/pcn81"}


def test_b6_reversal_and_correction_stay_two_linked_entries() -> None:
    original = payment("PCN9", "1", "100", "60", adjustments=(cas("CO", "45", "40"),))
    first = post(remittance(original), claim("PCN9", "100"))
    back = payment("PCN9", "22", "-100", "-60", adjustments=(cas("CO", "45", "-40"),))
    again = payment("PCN9", "1", "100", "40", adjustments=(cas("CO", "45", "60"),))
    second = post(remittance(back, again, trace="T2"), claim("PCN9", "100"), earlier=first.responses)
    assert second.reconciliation is not None and first.reconciliation is not None
    details = second.reconciliation["detail"]
    assert [each["amount"]["value"] for each in details] == [D("-60.00"), D("40.00")]
    assert details[0]["predecessor"] == first.reconciliation["detail"][0]["identifier"]
    assert [written_off(each) for each in (*first.responses, *second.responses)] == [40, -40, 60]
    assert find_identifier(second.responses[0], codes.REVERSED_KEY) == find_identifier(
        first.responses[0], codes.RESPONSE_KEY
    )


def test_a_reversal_without_original_stays_unapplied() -> None:
    back = payment("PCN9", "22", "-100", "-60", adjustments=(cas("CO", "45", "-40"),))
    posting = post(remittance(back), claim("PCN9", "100"))
    assert posting.responses == () and "names no payment that was posted" in posting.tasks[0]["description"]


def test_a_payment_is_reversed_once() -> None:
    original = payment("PCN9", "1", "100", "60", adjustments=(cas("CO", "45", "40"),))
    back = payment("PCN9", "22", "-100", "-60", adjustments=(cas("CO", "45", "-40"),))
    posting = post(remittance(original, back, back), claim("PCN9", "100"))
    assert len(posting.responses) == 2 and len(posting.tasks) == 1


def test_b7_provider_adjustments_are_a_ledger_of_their_own() -> None:
    first = post(
        remittance(payment("PCN3", "1", "100", "60", adjustments=(cas("CO", "45", "40"),))), claim("PCN3", "100")
    )
    back = payment("PCN3", "22", "-100", "-60", adjustments=(cas("CO", "45", "-40"),))
    week1 = remittance(back, plb=(ProviderAdjustment("FB", "ICN3", D("-60")),), trace="W1")
    assert week1.amount == 0
    posting = post(week1, claim("PCN3", "100"), earlier=first.responses)
    assert posting.reconciliation is not None
    detail = posting.reconciliation["detail"][-1]
    assert detail["amount"]["value"] == D("60.00")
    assert find_extension(detail, codes.PROVIDER_REFERENCE) == "ICN3"
    assert [each["code"] for each in detail["type"]["coding"]] == ["adjustment", "FB"]


def test_a_second_payer_writes_off_no_more_than_is_open() -> None:
    primary = payment(
        "PCN5", "1", "100", "60", line("PCN5L1", "100", "60", cas("CO", "45", "30"), cas("PR", "2", "10"))
    )
    (first,) = post(remittance(primary), claim("PCN5", "100", payers=2)).responses
    secondary = payment(
        "PCN5", "2", "100", "4", line("PCN5L1", "100", "4", cas("OA", "23", "86"), cas("CO", "45", "10"))
    )
    posting = post(remittance(secondary, trace="T2"), claim("PCN5", "100", payers=2), earlier=(first,))
    assert written_off(posting.responses[0]) == D("6.00")
    assert "CO-45 of 10.00 is 4.00 more than is open." in posting.tasks[0]["description"]


def test_an_unknown_reason_writes_nothing_off_and_opens_a_task() -> None:
    odd = payment("PCN1", "1", "100", "90", line("PCN1L1", "100", "90", cas("CO", "999", "10")))
    posting = post(remittance(odd), claim("PCN1", "100"))
    assert written_off(posting.responses[0]) == 0
    assert "CO-999 of 10.00 has no class; nothing was written off." in posting.tasks[0]["description"]


def test_b25_a_claim_without_lines_is_posted_at_claim_level() -> None:
    whole = payment("PCN4", "1", "200", "150", adjustments=(cas("CO", "45", "50"),))
    (response,) = post(remittance(whole), claim("PCN4", "120", "80")).responses
    assert "item" not in response and read_adjustments(response["adjudication"]) == [cas("CO", "45", "50.00")]
    assert written_off(response) == 50


@pytest.mark.parametrize("status", ["4", "23", "25", "77"])
def test_claims_that_the_payer_did_not_process_open_a_task(status: str) -> None:
    posting = post(
        remittance(payment("PCN1", status, "100", "0", adjustments=(cas("CO", "31", "100"),))), claim("PCN1", "100")
    )
    assert posting.responses == () and posting.tasks[0]["focus"] == {"reference": "Claim/pcn1"}


def test_a_corrected_member_id_is_told() -> None:
    sent = payment("PCN1", "1", "100", "100", corrected_member_id="M77")
    posting = post(remittance(sent), claim("PCN1", "100"))
    assert len(posting.responses) == 1
    assert "The payer knows the patient as member `M77`." in posting.tasks[0]["description"]


# Matching


def test_b18_a_prefix_of_a_number_is_a_candidate_and_no_match() -> None:
    known = claim("ABCDEFGHIJKLMNOPQ", "100")
    index = index_claims([known], [], {})
    found = match_claim(payment("ABCDEFGHIJKLMN", "1", "100", "0"), index)
    assert found.claim is None and found.candidates == (known,)
    posting = post(remittance(payment("ABCDEFGHIJKLMN", "1", "100", "100")), known)
    assert "It may be `Claim/abcdefghijklmnopq`" in posting.tasks[0]["description"] and posting.responses == ()


def test_the_payers_number_of_an_earlier_answer_finds_the_claim_and_a_member_only_a_candidate() -> None:
    known = claim("PCN1", "100")
    answered = {
        "request": {"reference": "Claim/pcn1"},
        "identifier": [{"system": codes.PAYER_CONTROL_NUMBER, "value": "ICN77"}],
    }
    index = index_claims([known], [answered], {"Coverage/1": {"subscriberId": "M1"}})
    assert match_claim(payment("?", "1", "1", "1", icn="ICN77"), index).claim == known
    by_member = match_claim(payment("?", "1", "100", "1", icn="", member_id="M1", first_day=date(2026, 11, 2)), index)
    assert by_member.claim is None and by_member.candidates == (known,)


def test_lines_match_by_number_then_code_then_code_without_modifiers_if_one_fits() -> None:
    of = claim("PCN1", "100", "50", "50", "70")
    of["item"][1]["modifier"] = [{"coding": [{"code": "25"}]}]
    of["item"][3]["modifier"] = [{"coding": [{"code": "GT"}]}]
    lines = [
        line("PCN1L3", "50", "0"),
        line("", "50", "0", modifiers=("25",)),
        line("", "70", "0", modifiers=("95",)),
        line("", "71", "0"),
    ]
    found = match_lines(lines, of)
    assert [each.item["sequence"] if each.item else None for each in found] == [3, 2, 4, None]
    assert [bool(each.doubt) for each in found] == [False, False, True, False]
    two = match_lines([line("", "50", "0", modifiers=("59",))], claim("PCN2", "50", "50"))
    assert two[0].item is None


def test_a_line_that_fits_none_is_kept_with_its_money_and_told() -> None:
    posting = post(
        remittance(payment("PCN1", "1", "100", "60", line("", "100", "60", cas("CO", "45", "40")))),
        claim("PCN1", "55", "45"),
    )
    (response,) = posting.responses
    assert "item" not in response and written_off(response) == 40
    assert "No single line of the claim fits 99213" in posting.tasks[0]["description"]


# What follows


def test_b11_a_forwarded_claim_is_not_sent_to_the_next_payer_by_us() -> None:
    sent = payment("PCN6", "1", "100", "70", adjustments=(cas("PR", "2", "30"),), remarks=("MA18",))
    assert (
        is_forwarded(sent)
        and is_forwarded(payment("P", "19", "1", "1"))
        and is_forwarded(payment("P", "1", "1", "1", crossover_payer="X"))
    )
    of = claim("PCN6", "100", payers=2)
    (response,) = post(remittance(sent), of).responses
    found = follow(of, response)
    assert found.claim is None and found.invoice is None
    assert [find_code(task["code"]) for task in found.tasks] == ["crossover"]


def test_the_next_payer_gets_a_claim_with_the_adjudication_before_it() -> None:
    of = claim("PCN5", "100", payers=2)
    (response,) = post(
        remittance(
            payment("PCN5", "1", "100", "60", line("PCN5L1", "100", "60", cas("CO", "45", "30"), cas("PR", "2", "10")))
        ),
        of,
    ).responses
    found = follow(of, {**response, "id": "r1"})
    assert found.claim is not None and found.invoice is None
    assert [(each["focal"], "claimResponse" in each) for each in found.claim["insurance"]] == [
        (False, True),
        (True, False),
    ]
    assert found.claim["total"] == of["total"] and found.claim["identifier"] != of["identifier"]
    assert found.tasks == ()


def test_a_drafted_claim_to_the_next_payer_scrubs_clean() -> None:
    of, resources = next(pair for pair in make_claims(60) if len(pair[0]["insurance"]) == 2)
    lines = [
        PaymentLine(
            "x",
            item["net"]["value"],
            D(0),
            control_number=item["id"],
            adjustments=(Adjustment("PR", "1", item["net"]["value"]),),
        )
        for item in of["item"]
    ]
    number = of["identifier"][0]["value"]
    (response,) = post(
        remittance(ClaimPayment(number, "1", of["total"]["value"], D(0), payer_number="ICN1", lines=tuple(lines))), of
    ).responses
    draft = draft_next(of, {**response, "id": "r1"}, "2026-12-02")
    assert draft is not None
    found = scrub_claim(draft, {**resources, "ClaimResponse/r1": response}, Surroundings(today=TODAY))
    assert [finding.rule for finding in found if finding.severity == "error"] == []


def test_b30_an_invoice_is_less_what_was_paid_at_the_desk() -> None:
    of = claim("PCN2", "100")
    sent = payment("PCN2", "1", "100", "50", line("PCN2L1", "100", "50", cas("PR", "3", "30"), cas("PR", "2", "20")))
    (response,) = post(remittance(sent), of).responses
    found = follow(of, response, paid="30.00")
    assert found.invoice is not None and found.invoice["totalNet"]["value"] == D("20.00") and found.credit == 0
    more = follow(of, response, paid="70.00")
    assert more.invoice is None and more.credit == D("20.00")


def test_a_reversal_takes_the_invoice_back_and_the_correction_writes_the_right_one() -> None:
    of = claim("PCN9", "100")
    original = payment("PCN9", "1", "100", "60", line("PCN9L1", "100", "60", cas("PR", "1", "40")))
    back = payment("PCN9", "22", "-100", "-60", line("PCN9L1", "-100", "-60", cas("PR", "1", "-40")))
    again = payment("PCN9", "1", "100", "75", line("PCN9L1", "100", "75", cas("PR", "1", "25")))
    first = post(remittance(original), of).responses
    invoice = follow(of, *first).invoice
    assert invoice is not None
    both = post(remittance(back, again, trace="T2"), of, earlier=first).responses
    credit = follow(of, *first, both[0], invoices=(invoice,)).invoice
    assert credit is not None and credit["totalNet"]["value"] == D("-40.00")
    corrected = follow(of, *first, *both, invoices=(invoice,)).invoice
    assert corrected is not None and corrected["totalNet"]["value"] == D("-15.00")
    assert follow(of, *first, *both, invoices=(invoice, corrected)).invoice is None
    assert follow(of, *first).invoice == invoice


def test_a_reversal_warns_of_the_claims_to_later_payers() -> None:
    of = claim("PCN9", "100", payers=2)
    first = post(remittance(payment("PCN9", "1", "100", "60", adjustments=(cas("PR", "1", "40"),))), of).responses
    back = payment("PCN9", "22", "-100", "-60", adjustments=(cas("PR", "1", "-40"),))
    both = post(remittance(back, trace="T2"), of, earlier=first).responses
    assert [find_code(task["code"]) for task in follow(of, *first, *both).tasks] == ["reversal"]


AMOUNTS = st.decimals(min_value="0.00", max_value="500.00", places=2)


@given(st.lists(st.tuples(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS), min_size=1, max_size=5), st.lists(AMOUNTS, max_size=3))
def test_whatever_is_posted_the_details_are_the_payment_and_reversing_leaves_nothing(
    rows: list[tuple[Decimal, Decimal, Decimal, Decimal]], plb: list[Decimal]
) -> None:
    claims, payments, back = [], [], []
    for n, (paid, off, share, denied) in enumerate(rows):
        number, charge = f"PCN{n}", paid + off + share + denied
        claims.append(claim(number, str(charge)))
        adjustments = (Adjustment("CO", "45", off), Adjustment("PR", "1", share), Adjustment("CO", "16", denied))
        payments.append(
            ClaimPayment(
                number,
                "1",
                charge,
                paid,
                lines=(PaymentLine("99213", charge, paid, control_number=f"{number}L1", adjustments=adjustments),),
            )
        )
        reverse = tuple(Adjustment(each.group, each.reason, -each.amount) for each in adjustments)
        back.append(
            ClaimPayment(
                number,
                "22",
                -charge,
                -paid,
                lines=(PaymentLine("99213", -charge, -paid, control_number=f"{number}L1", adjustments=reverse),),
            )
        )
    held = tuple(ProviderAdjustment("WO", str(n), amount) for n, amount in enumerate(plb))
    first = post(remittance(*payments, plb=held), *claims)
    assert first.tasks == () and len(first.responses) == len(rows)
    second = post(remittance(*back, trace="T2"), *claims, earlier=first.responses)
    assert second.tasks == ()
    assert sum((written_off(each) for each in (*first.responses, *second.responses)), D(0)) == 0
    assert sum((each["payment"]["amount"]["value"] for each in (*first.responses, *second.responses)), D(0)) == 0


# What a person typed, and what is wrong with a claim that balances


def test_b26_a_remittance_of_what_was_typed_already_stays_unapplied() -> None:
    of = claim("PCN7", "90")
    denied = payment("PCN7", "1", "90", "0", adjustments=(cas("CO", "16", "90"),))
    state = PostingState(index_claims([of], [], {}))
    typed = post_remittance(remittance(denied, trace="EOB"), state, replace(SETTINGS, posted_by="Practitioner/kim"))
    posting = post(remittance(denied), of, earlier=typed.responses)
    assert posting.responses == ()
    assert "It was already posted by hand, by Practitioner/kim." in posting.tasks[0]["description"]


def test_a_remittance_older_than_the_claim_and_money_taken_back_without_reversal_stay_unapplied() -> None:
    early = payment("PCN1", "1", "100", "100")
    sent = replace(remittance(early), payment_day=date(2026, 11, 1))
    assert "is older than the claim's first service" in post(sent, claim("PCN1", "100")).tasks[0]["description"]
    negative = payment("PCN1", "1", "100", "-5", adjustments=(cas("CO", "45", "105"),))
    assert "without a reversal" in post(remittance(negative), claim("PCN1", "100")).tasks[0]["description"]
