"""835 in: content, balance laws, ClaimResponse, PaymentReconciliation (traps B1, B4, B6, B7, B11, B18, B25)."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from fhir_server.app import Knowledge
from mappers.x12 import codes
from mappers.x12.balance import check_remittance
from mappers.x12.clp_to_claim_response import ResponseContext, clp_to_claim_response
from mappers.x12.envelope import TransactionSet, read_interchanges
from mappers.x12.fault import Fault
from mappers.x12.match_lines import is_candidate, match_lines
from mappers.x12.reader import read_set
from mappers.x12.remittance import Remittance, read_remittance
from mappers.x12.remittance_to_payment import PaymentContext, make_detail_key, remittance_to_payment
from mappers.x12.resource import find_code, make_concept
from tests.mappers.x12.test_x12_loops import read_sample
from tests.mappers.x12.test_x12_tokenizer import isa
from tests.mappers.x12.x12_claims import make_claim, make_item

CONTEXT = ResponseContext("Claim/1", "Patient/1", "Organization/1", "2026-02-01")
SAMPLES = ("cob-contractural-adjustment", "managed-care", "medicare-part-a", "secondary-payment")


def make_835(amount: str, claims: str, **options: str) -> Remittance:
    return read_text(make_text(amount, claims, **options))


def make_text(amount: str, claims: str, plb: str = "", number: str = "1", sign: str = "C", more: str = "") -> str:
    body = (
        f"BPR*I*{amount}*{sign}*ACH*CCP*01*111000012*DA*1*1512345678**01*111000025*DA*1*20260131~TRN*1*T1*1512345678~{more}"
        "DTM*405*20260130~N1*PR*ACME HEALTH~N3*1 A ST~N4*BOSTON*MA*02108~PER*BL*DESK*TE*5555551212~"
        f"N1*PE*GOOD CLINIC*XX*1700000007~LX*1~{claims}{plb}"
    )
    count = body.count("~") + 2
    return (
        isa(number=f"{number:0>9}")
        + f"GS*HP*A*B*20260131*1200*{number}*X*005010X221A1~ST*835*{number:0>4}~{body}SE*{count}*{number:0>4}~"
        + f"GE*1*{number}~IEA*1*{number:0>9}~"
    )


def read_text(text: str) -> Remittance:
    (received,) = [event for event in read_interchanges(text) if isinstance(event, TransactionSet)]
    loops = read_set(received)
    assert loops is not None
    return read_remittance(loops)


def clp(number: str, status: str, charge: str, paid: str, owed: str = "", icn: str = "ICN1") -> str:
    return f"CLP*{number}*{status}*{charge}*{paid}*{owed}*12*{icn}~NM1*QC*1*DOE*JANE****MI*M1~"


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_balances(name: str, shared: Path) -> None:
    _, loops = read_sample(shared / "data" / "x12" / f"835_005010X221A1_{name}.835")
    balance = check_remittance(read_remittance(loops))
    # Hand-checked: 34, 945, 149998.73 + 1.27 and 1222. The CLP05 of cob and of the two others agree with their PR.
    assert (balance.transaction, dict(balance.claims)) == ((), {})
    assert balance.warnings == ()


@pytest.mark.parametrize(
    ("name", "day", "amount", "trace"),
    [
        ("cob-contractural-adjustment", date(2005, 3, 18), "34.00", "0063158ABC"),
        ("managed-care", date(2002, 3, 14), "945.00", "7170066655"),
        ("medicare-part-a", date(2002, 9, 13), "150000.00", "12345"),
        ("secondary-payment", date(2005, 4, 12), "1222.00", "0012524965"),
    ],
)
def test_the_payment_of_a_sample(name: str, day: date, amount: str, trace: str, shared: Path) -> None:
    """Where BPR16 is no date, the production date stands for it, with a warning."""
    _, loops = read_sample(shared / "data" / "x12" / f"835_005010X221A1_{name}.835")
    remittance = read_remittance(loops)
    assert (remittance.payment_date, remittance.amount, remittance.trace) == (day, Decimal(amount), trace)
    warned = [fault for fault in remittance.faults if fault.severity == "warning"]
    assert bool(warned) == (name != "medicare-part-a")


def test_claims_and_lines_of_a_sample(shared: Path) -> None:
    _, loops = read_sample(shared / "data" / "x12" / "835_005010X221A1_secondary-payment.835")
    remittance = read_remittance(loops)
    first, second = remittance.claims
    assert (first.control_number, first.status, first.payer_number, first.lines) == (
        "L0004828311",
        "2",
        "05090256390",
        (),
    )
    assert first.amounts == {"AU": Decimal("912.00")}
    assert [(a.group, a.reason, a.amount) for a in first.adjustments] == [("OA", "23", Decimal("9411.64"))]
    assert second.people["QC"].name == "BAKI"
    assert [line.allowed for line in second.lines] == [Decimal("150.00"), Decimal("500.00")]
    assert [(a.group, a.reason, a.amount) for a in second.lines[1].adjustments] == [
        ("PR", "1", Decimal("150.00")), ("PR", "2", Decimal("70.00")), ("CO", "42", Decimal("85.00")),
    ]  # fmt: skip
    assert second.lines[0].start == date(2005, 1, 6)


def sentences(faults: tuple[Fault, ...]) -> list[str]:
    return [fault.sentence for fault in faults]


def test_the_transaction_law() -> None:
    remittance = make_835("50", clp("P1", "1", "100", "60") + "CAS*CO*45*40~")
    balance = check_remittance(remittance)
    assert sentences(balance.transaction) == [
        "BPR02 is 50, but the claims pay 60 and the provider adjustments take 0: the difference is -10. "
        "Nothing of this set is posted."
    ]
    assert dict(balance.claims) == {}


def test_the_law_of_the_claim_keeps_that_claim_alone() -> None:
    claims = clp("P1", "1", "100", "60") + "CAS*CO*45*30~" + clp("P2", "1", "10", "10")
    balance = check_remittance(make_835("70", claims))
    assert balance.transaction == ()
    assert {ordinal: sentences(faults) for ordinal, faults in balance.claims.items()} == {
        1: ["Claim `P1` charges 100, is adjusted by 30 and paid 60: the difference is 10."]
    }


def test_the_law_of_the_line() -> None:
    lines = "SVC*HC:99213*60*40~CAS*CO*45*10~SVC*HC:81002*40*20~CAS*CO*45*30~"
    balance = check_remittance(make_835("60", clp("P1", "1", "100", "60") + lines))
    assert sentences(balance.claims[1]) == [
        "Line 1 of claim `P1` charges 60, is adjusted by 10 and paid 40: the difference is 10.",
        "Line 2 of claim `P1` charges 40, is adjusted by 30 and paid 20: the difference is -10.",
    ]


def test_an_amount_that_is_none_is_never_taken_for_zero() -> None:
    balance = check_remittance(make_835("0", clp("P1", "1", "0", "O") + clp("P2", "1", "1O", "0") + "CAS*CO*45*x~"))
    assert set(balance.claims) == {1, 2}
    assert check_remittance(make_835("O", "")).transaction


@pytest.mark.parametrize(
    ("owed", "status", "warns"), [("25", "1", False), ("20", "1", True), ("", "1", False), ("20", "22", False)]
)
def test_clp05_warns_only_where_it_is_there_and_no_reversal(owed: str, status: str, warns: bool) -> None:
    remittance = make_835("75", clp("P1", status, "100", "75", owed) + "CAS*PR*2*25~")
    balance = check_remittance(remittance)
    assert (balance.balanced, bool(balance.warnings)) == (True, warns)


def test_without_a_date_or_in_another_currency_nothing_is_posted() -> None:
    other = make_835("10", clp("P1", "1", "10", "10"), more="CUR*PR*EUR~")
    assert sentences(check_remittance(other).transaction) == ["The remittance is in `EUR`; only USD can be posted."]
    text = make_text("10", clp("P1", "1", "10", "10")).replace("20260131~TRN", "20260231~TRN")
    undated = read_text(text.replace("DTM*405*20260130~", "DTM*405*20261330~"))
    assert undated.payment_date is None
    assert sentences(check_remittance(undated).transaction) == [
        "BPR16 `20260231` is no date CCYYMMDD that exists.",
        "Neither BPR16 nor DTM*405 is a date; nothing can be posted.",
    ]


def test_a_debit_is_a_negative_amount() -> None:
    remittance = make_835("60", clp("P1", "22", "-100", "-60") + "CAS*CO*45*-40~", sign="D")
    assert remittance.amount == -60
    assert check_remittance(remittance).balanced


def test_provider_adjustments_over_two_weeks_net_to_zero() -> None:
    """B7: a reversal alone with a forwarding balance, then the pair."""
    week1 = make_835(
        "0", clp("P9", "22", "-100", "-60", icn="ICN3") + "CAS*CO*45*-40~", plb="PLB*1700000007*20261231*FB:ICN3*-60~"
    )
    week2 = make_835("40", clp("P10", "1", "100", "100"), plb="PLB*1700000007*20261231*FB:ICN3*60~")
    assert check_remittance(week1).balanced
    assert check_remittance(week2).balanced
    entries = [*week1.provider_adjustments, *week2.provider_adjustments]
    assert {(entry.reason, entry.reference) for entry in entries} == {("FB", "ICN3")}
    assert sum(entry.amount for entry in entries) == 0


def test_all_six_pairs_of_a_plb_are_read() -> None:
    pairs = "*".join(f"WO:R{n}*{n}" for n in range(1, 7))
    remittance = make_835("-21", "", plb=f"PLB*1700000007*20261231*{pairs}~")
    assert [(e.reason, e.reference, e.amount) for e in remittance.provider_adjustments] == [
        ("WO", f"R{n}", Decimal(n)) for n in range(1, 7)
    ]
    assert check_remittance(remittance).balanced


def test_the_same_set_in_another_envelope_has_the_same_key_and_digest() -> None:
    """B1: neither envelope numbers nor the writing of BPR02 matter; another reason does."""
    claims = clp("P1", "1", "100", "60") + "CAS*CO*45*40~"
    first, again = make_835("60", claims), make_835("60", claims, number="2")
    changed = make_835("60", claims.replace("CO*45", "CO*253"), number="3")
    assert (first.key, first.digest) == (again.key, again.digest)
    assert (first.key, first.digest == changed.digest) == (changed.key, False)
    assert make_835("60.00", claims).key == first.key


@pytest.mark.parametrize(
    ("status", "more", "crossover"),
    [
        ("1", "", False), ("19", "", True), ("20", "", True), ("21", "", True), ("1", "NM1*TT*2*NEXT*****PI*7~", True),
        ("1", "MOA***MA18~", True), ("1", "MOA***N89~", True), ("1", "MOA***MA02~", False),
    ],
)  # fmt: skip
def test_crossover_is_told_by_status_carrier_or_remark(status: str, more: str, crossover: bool) -> None:
    (claim,) = make_835("70", clp("P6", status, "100", "70", "30") + more).claims
    assert claim.is_crossover == crossover


def amounts(entries: list[dict[str, Any]]) -> list[tuple[str, str, Decimal]]:
    return [
        (find_code(e["category"]), find_code(e.get("reason")), e["amount"]["value"]) for e in entries if "amount" in e
    ]


def test_a_claim_without_lines_keeps_its_adjustments_at_the_claim() -> None:
    """B25."""
    remittance = make_835("150", clp("PCN4", "1", "200", "150", icn="ICN4") + "CAS*CO*45*50~")
    response = clp_to_claim_response(remittance.claims[0], remittance, CONTEXT)
    assert amounts(response["adjudication"]) == [("CO", "45", Decimal(50))]
    assert "item" not in response
    assert response["identifier"] == [{"system": codes.PAYER_CONTROL_NUMBER, "value": "ICN4"}]
    assert amounts(response["total"]) == [("submitted", "", Decimal(200)), ("benefit", "", Decimal(150))]
    assert response["payment"]["amount"]["value"] == 150


def test_a_claim_paid_nothing_is_told_like_any_other() -> None:
    """B4."""
    remittance = make_835("0", clp("PCN8", "1", "90", "0", "90") + "SVC*HC:99213*90*0~CAS*PR*1*90~")
    context = ResponseContext("Claim/1", "Patient/1", "Organization/1", "2026-02-01", sequences={0: 1})
    response = clp_to_claim_response(remittance.claims[0], remittance, context)
    assert response["payment"]["amount"]["value"] == 0
    assert amounts(response["item"][0]["adjudication"]) == [
        ("submitted", "", Decimal(90)), ("benefit", "", Decimal(0)), ("PR", "1", Decimal(90)),
    ]  # fmt: skip


def test_reversal_and_correction_are_two_entries() -> None:
    """B6: −60 and +40, the first linked to what it reverses."""
    claims = clp("PCN9", "22", "-100", "-60") + "CAS*CO*45*-40~" + clp("PCN9", "1", "100", "40") + "CAS*CO*45*60~"
    remittance = make_835("-20", claims)
    assert check_remittance(remittance).balanced
    responses = [clp_to_claim_response(claim, remittance, CONTEXT) for claim in remittance.claims]
    assert [response["payment"]["amount"]["value"] for response in responses] == [-60, 40]
    context = PaymentContext("2026-02-01", predecessors={1: "earlier#1"})
    payment = remittance_to_payment(remittance, context)
    assert [detail["amount"]["value"] for detail in payment["detail"]] == [-60, 40]
    assert payment["detail"][0]["predecessor"]["value"] == "earlier#1"
    assert payment["detail"][0]["identifier"]["value"] == make_detail_key(remittance, remittance.claims[0])


def test_details_of_a_payment_add_up_to_its_amount() -> None:
    claims = clp("P1", "1", "100", "60") + "CAS*CO*45*40~" + clp("P2", "1", "10", "10")
    plb = "PLB*1700000007*20261231*L6:X*-5*WO:Y*15~"
    payment = remittance_to_payment(make_835("60", claims, plb=plb), PaymentContext("2026-02-01"))
    assert payment["paymentAmount"] == {"value": 60, "currency": "USD"}
    assert [detail["amount"]["value"] for detail in payment["detail"]] == [60, 10, 5, -15]
    assert [find_code(d["type"], codes.PAYMENT_ADJUSTMENT) for d in payment["detail"]] == ["", "", "L6", "WO"]
    assert payment["paymentDate"] == "2026-01-31"
    assert payment["paymentIdentifier"]["value"] == "T1"


CLAIM = make_claim(
    make_item(1, "99213", "60", modifier=[make_concept("", "25")]),
    make_item(2, "81002", "20"),
    make_item(3, "81002", "20"),
)


@pytest.mark.parametrize(
    ("line", "sequence", "severity"),
    [
        ("SVC*HC:81002*20*20~REF*6R*L3~", 3, ""),
        ("SVC*HC:99213:25*60*60~DTM*472*20260110~", 1, ""),
        ("SVC*HC:99213:59*60*60~DTM*472*20260110~", 1, "warning"),
        ("SVC*HC:99213:25*60*60~DTM*472*20260111~", None, "error"),
        ("SVC*HC:99214*60*60**1*HC:99213:25~DTM*472*20260110~", 1, ""),
        ("SVC*HC:81002:59*20*20~", None, "error"),
        ("SVC*HC:99213:25*61*61~", None, "error"),
    ],
)
def test_lines_are_matched_by_number_then_by_what_they_say(line: str, sequence: int | None, severity: str) -> None:
    (claim,) = make_835("0", clp("PCN1", "1", "0", "0") + line).claims
    matches = match_lines(claim, CLAIM)
    assert matches.sequences.get(0) == sequence
    assert [fault.severity for fault in matches.faults] == ([severity] if severity else [])


def test_two_equal_lines_are_matched_to_two() -> None:
    (claim,) = make_835("0", clp("PCN1", "1", "0", "0") + "SVC*HC:81002*20*20~SVC*HC:81002*20*20~").claims
    assert dict(match_lines(claim, CLAIM).sequences) == {0: 2, 1: 3}


def test_a_bundled_line_is_an_added_item() -> None:
    lines = "SVC*HC:80053*60*50**1*HC:99213:25~CAS*CO*45*10~SVC*HC:81002*20*20~REF*6R*L2~SVC*HC:99999*20*20~"
    remittance = make_835("90", clp("PCN1", "1", "100", "90") + lines)
    matches = match_lines(remittance.claims[0], CLAIM)
    context = ResponseContext("Claim/1", "Patient/1", "Organization/1", "2026-02-01", sequences=matches.sequences)
    response = clp_to_claim_response(remittance.claims[0], remittance, context)
    assert [item["itemSequence"] for item in response["item"]] == [2]
    assert [(find_code(a["productOrService"]), a.get("itemSequence")) for a in response["addItem"]] == [
        ("80053", [1]), ("99999", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("echoed", "candidate"),
    [("ABCDEFGHIJKLMN", True), ("ABCDEFGHIJKLMNOPQ", False), ("ABC", False), ("XBCDEFGH", False)],
)
def test_a_control_number_that_was_cut_is_a_candidate_only(echoed: str, candidate: bool) -> None:
    """B18."""
    assert is_candidate(echoed, "ABCDEFGHIJKLMNOPQ") == candidate


def test_what_is_made_is_valid_fhir(known: Knowledge, shared: Path) -> None:
    for name in SAMPLES:
        _, loops = read_sample(shared / "data" / "x12" / f"835_005010X221A1_{name}.835")
        remittance = read_remittance(loops)
        made = [clp_to_claim_response(claim, remittance, CONTEXT) for claim in remittance.claims]
        made.append(remittance_to_payment(remittance, PaymentContext("2026-02-01")))
        for resource in made:
            assert known.validator.find_issues(orjson.loads(orjson.dumps(resource, default=float))) == ()
