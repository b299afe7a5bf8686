"""277CA and 277 to statuses and ClaimResponses (005010X214, 005010X212)."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import orjson
import pytest

from fhir_server.app import Knowledge
from mappers.x12.claim_status import StatusCode, StatusContext, describe_status, read_statuses, status_to_claim_response
from mappers.x12.envelope import TransactionSet, read_interchanges
from mappers.x12.reader import Loops, read_set
from mappers.x12.resource import find_code
from tests.mappers.x12.test_x12_loops import read_sample
from tests.mappers.x12.test_x12_tokenizer import isa

CONTEXT = StatusContext("Claim/1", "Patient/1", "Organization/1", "2026-02-01")


def make_277ca(batch: str, provider: str, claims: str) -> Loops:
    body = (
        "BHT*0085*08*277X214*20260116*0905*TH~HL*1**20*1~NM1*PR*2*ACME*****PI*12345~TRN*1*RECEIPT~"
        "DTP*050*D8*20260115~DTP*009*D8*20260116~HL*2*1*21*1~NM1*41*2*CLINIC*****46*S1~"
        f"TRN*2*000000001000~{batch}HL*3*2*19*1~NM1*85*2*GOOD CLINIC*****XX*1700000007~{provider}{claims}"
    )
    text = f"{isa()}GS*HN*A*B*20260116*1200*1*X*005010X214~ST*277*0001*005010X214~{body}"
    text += f"SE*{body.count('~') + 2}*0001~GE*1*1~IEA*1*000000001~"
    (received,) = [event for event in read_interchanges(text) if isinstance(event, TransactionSet)]
    loops = read_set(received)
    assert loops is not None
    return loops


def make_claim_status(number: int, trace: str, stc: str, more: str = "") -> str:
    return (
        f"HL*{number}*3*PT~NM1*QC*1*DOE*JANE****MI*M1~TRN*2*{trace}~{stc}REF*1K*ICN1~REF*D9*CH1~"
        f"DTP*472*D8*20260110~{more}"
    )


ACCEPTED = "STC*A1:19:PR*20260116*WQ*150~"


def test_claims_of_a_277ca_are_accepted_or_rejected_each() -> None:
    bad = make_claim_status(
        5, "PCN2", "STC*A7:562:85*20260116*U*75******A3:21~", "SVC*HC:99213*75~STC*A7:507**U~REF*FJ*L1~"
    )
    loops = make_277ca(ACCEPTED, "TRN*1*0~", make_claim_status(4, "PCN1", "STC*A2:20*20260116*WQ*150~") + bad)
    assert loops.faults == ()
    batch, first, second, line = read_statuses(loops)
    assert (batch.level, batch.trace, batch.outcome) == ("batch", "000000001000", "accepted")
    assert (first.control_number, first.outcome, first.payer_number, first.clearinghouse_number) == (
        "PCN1", "accepted", "ICN1", "CH1",
    )  # fmt: skip
    assert (second.control_number, second.outcome, second.rejected_by) == ("PCN2", "rejected", "claim")
    assert second.codes == (StatusCode("A7", "562", "85"), StatusCode("A3", "21"))
    assert (second.amount, second.start, second.effective) == (Decimal(75), date(2026, 1, 10), date(2026, 1, 16))
    assert (line.level, line.line, line.line_number, line.outcome) == ("line", ("HC", "99213"), "L1", "rejected")


@pytest.mark.parametrize(
    ("batch", "provider", "by"),
    [
        ("STC*A8:33*20260116*U*150~", "", "batch"),
        (ACCEPTED, "TRN*1*0~STC*A3:562:85**U*150~", "provider"),
    ],
)
def test_a_refused_batch_or_provider_refuses_the_claims_below(batch: str, provider: str, by: str) -> None:
    claim = make_claim_status(4, "PCN1", "STC*A2:20*20260116*WQ*150~")
    *_, last = read_statuses(make_277ca(batch, provider, claim))
    assert (last.control_number, last.outcome, last.rejected_by) == ("PCN1", "rejected", by)
    assert f"Rejected by the {by}'s status" in describe_status(last)


@pytest.mark.parametrize(
    ("category", "outcome"),
    [
        ("A0", "forwarded"), ("A1", "accepted"), ("A2", "accepted"), ("A3", "rejected"), ("A4", "not-found"),
        ("A5", "split"), ("A6", "rejected"), ("A7", "rejected"), ("A8", "rejected"), ("P1", "pending"),
        ("P5", "pending"),
        ("F0", "finalized"), ("F4", "finalized"), ("R3", "requested"), ("E0", "error"), ("D0", "not-found"),
        ("?", "unknown"),
    ],
)  # fmt: skip
def test_the_meaning_of_categories(category: str, outcome: str) -> None:
    assert StatusCode(category, "1").outcome == outcome


def test_a_277_sample(shared: Path) -> None:
    _, loops = read_sample(shared / "data" / "x12" / "277_005010X212_provider-level-status.277")
    claim, provider = read_statuses(loops)
    assert (claim.trace, claim.control_number, claim.payer_number) == ("ABCXYZ1", "SM123456", "05347006051")
    assert (claim.outcome, claim.codes, claim.amount) == ("pending", (StatusCode("P3", "317"),), Decimal("8513.88"))
    assert (claim.name, claim.start, claim.end) == ("SMITH", date(2005, 8, 31), date(2005, 9, 6))
    assert (provider.level, provider.outcome, provider.codes) == ("provider", "error", (StatusCode("E0", "24", "85"),))


def test_a_refused_claim_becomes_a_response_with_its_codes(known: Knowledge) -> None:
    stc = "STC*A7:562:85*20260116*U*75********NPI not on file~"
    *_, status = read_statuses(make_277ca(ACCEPTED, "", make_claim_status(4, "PCN2", stc)))
    response = status_to_claim_response(status, CONTEXT)
    assert (response["outcome"], find_code(response["error"][0]["code"])) == ("error", "562")
    assert response["disposition"] == "Rejected (A7/562/85): NPI not on file"
    assert known.validator.find_issues(orjson.loads(orjson.dumps(response))) == ()


def test_an_accepted_claim_is_queued() -> None:
    *_, status = read_statuses(make_277ca(ACCEPTED, "", make_claim_status(4, "PCN1", "STC*A2:20**WQ*1~")))
    response = status_to_claim_response(status, CONTEXT)
    assert (response["outcome"], "error" in response) == ("queued", False)
