"""A claim of a remittance as ClaimResponse, with what it writes off (https://hl7.org/fhir/R4/claimresponse.html)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from mappers.billing import codes
from mappers.billing.adjudications import (
    Adjustment,
    adjustment_to_adjudication,
    amount_to_adjudication,
    read_adjustments,
    read_amount,
    remark_to_adjudication,
    sum_adjustments,
)
from mappers.billing.adjustment_classes import CONTRACTUAL, UNKNOWN
from mappers.billing.fields import (
    ZERO,
    Resource,
    find_extension,
    make_concept,
    make_money,
    make_reference,
    make_task,
    sum_amounts,
    to_amount,
)
from mappers.billing.matching import match_lines
from mappers.billing.remittance import PAYER_SEQUENCES, REVERSAL, ClaimPayment, PaymentLine, is_forwarded

FindClass = Callable[[Adjustment], str]


@dataclass(frozen=True, slots=True)
class Account:
    """A claim, what was posted for it so far (oldest first), and the ClaimResponse that a reversal takes back."""

    claim: Resource
    earlier: tuple[Resource, ...] = ()
    reversed_response: Resource | None = None

    def find_open(self, sequence: int | None) -> Decimal:
        """What is open of a line, of the whole claim where the line is None."""
        if sequence is None:
            paid = sum_amounts(to_amount(each["payment"]["amount"]) for each in self.earlier)
            off = sum_amounts(read_posted(entry) for each in self.earlier for entry in list_adjudications(each))
            return to_amount(self.claim.get("total")) - paid - off
        charge = sum_amounts(
            to_amount(e.get("net")) for e in self.claim.get("item", ()) if e.get("sequence") == sequence
        )
        lines = [item for each in self.earlier for item in each.get("item", ()) if item.get("itemSequence") == sequence]
        paid = sum_amounts(read_amount(line["adjudication"], "benefit") or ZERO for line in lines)
        return charge - paid - sum_amounts(read_posted(entry) for line in lines for entry in line["adjudication"])


def list_adjudications(response: Resource) -> Iterator[Resource]:
    """Every adjudication of a ClaimResponse: claim, lines, lines that it does not know."""
    yield from response.get("adjudication", ())
    for line in (*response.get("item", ()), *response.get("addItem", ())):
        yield from line.get("adjudication", ())


def read_posted(entry: Resource) -> Decimal:
    """What an adjudication wrote off when it was posted."""
    return to_amount(find_extension(entry, codes.POSTED))


def make_response(
    payment: ClaimPayment, account: Account, head: Resource, find_class: FindClass
) -> tuple[Resource, list[Resource]]:
    """The draft ClaimResponse of a claim that balances, and Tasks for what a person must look at."""
    writer = _Writer(payment, account, find_class)
    if payment.corrected_member_id:
        writer.remarks.append(
            f"The payer knows the patient as member `{payment.corrected_member_id}`. Correct the coverage."
        )
    items, others = [], []
    for line, match in zip(payment.lines, match_lines(payment.lines, account.claim), strict=True):
        sequence = match.item.get("sequence") if match.item else None
        entries = writer.line_to_adjudication(line, sequence)
        if match.item is None:
            code = make_concept(codes.CPT, line.code)
            others.append({"productOrService": code, "adjudication": entries})
            writer.remarks.append(f"No single line of the claim fits {line.code} of {line.day}, {line.charge:.2f}.")
            continue
        items.append({"itemSequence": sequence, "adjudication": entries})
        if match.doubt:
            writer.remarks.append(f"Line {sequence} was matched by code, day and charge. {match.doubt}")
    response = _make_head(payment, account, head)
    response |= {"item": items, "addItem": others, "adjudication": writer.claim_to_adjudication()}
    response = {key: value for key, value in response.items() if value != []}
    return response, _make_tasks(payment, account, head, writer.remarks)


def _make_tasks(payment: ClaimPayment, account: Account, head: Resource, remarks: Sequence[str]) -> list[Resource]:
    if not remarks:
        return []
    text = f"Posting claim `{payment.control_number}`: {' '.join(remarks)}"
    key = head["identifier"][0]["value"]
    return [make_task("posting-review", key, make_reference(account.claim), head["created"], text)]


def _make_head(payment: ClaimPayment, account: Account, head: Resource) -> Resource:
    claim = account.claim
    numbers = [{"system": codes.PAYER_CONTROL_NUMBER, "value": payment.payer_number}] if payment.payer_number else []
    if account.reversed_response is not None:
        numbers.append({"system": codes.REVERSED_KEY, "value": account.reversed_response["identifier"][0]["value"]})
    marks: list[Resource] = [{"url": codes.REMITTANCE_STATUS, "valueCode": payment.status}]
    if is_forwarded(payment):
        marks.append({"url": codes.FORWARDED, "valueBoolean": True})
    if payment.status in PAYER_SEQUENCES:
        marks.append({"url": codes.PAYER_SEQUENCE, "valuePositiveInt": PAYER_SEQUENCES[payment.status]})
    kind = "complete" if payment.paid == payment.charge else "partial"
    return {
        **head,
        "identifier": [*head["identifier"], *numbers],
        "extension": [*head["extension"], *marks],
        "type": claim["type"],
        "use": "claim",
        "patient": claim["patient"],
        "request": {"reference": make_reference(claim)},
        "outcome": "complete",
        "total": [amount_to_adjudication("submitted", payment.charge), amount_to_adjudication("benefit", payment.paid)],
        "payment": {
            "type": make_concept("http://terminology.hl7.org/CodeSystem/ex-paymenttype", kind),
            "amount": make_money(payment.paid),
            **head["payment"],
        },
    }


class _Writer:
    """Adjudications of one claim; `remarks` gathers what a person must look at."""

    def __init__(self, payment: ClaimPayment, account: Account, find_class: FindClass) -> None:
        self.payment, self.account, self.find_class = payment, account, find_class
        self.remarks: list[str] = []

    def line_to_adjudication(self, line: PaymentLine, sequence: int | None) -> list[Resource]:
        """Submitted, paid with units, allowed, CAS, remarks of a line."""
        benefit = amount_to_adjudication("benefit", line.paid)
        if line.units is not None:
            benefit["value"] = line.units
        entries = [amount_to_adjudication("submitted", line.charge), benefit]
        if line.allowed is not None:
            entries.append(amount_to_adjudication("eligible", line.allowed))
        entries += self.post_adjustments(line.adjustments, sequence, line.paid)
        return entries + [remark_to_adjudication(each) for each in line.remarks]

    def claim_to_adjudication(self) -> list[Resource]:
        """CAS and remarks of the claim; they are never spread over lines."""
        entries = self.post_adjustments(self.payment.adjustments, None, self.payment.paid)
        return entries + [remark_to_adjudication(each) for each in self.payment.remarks]

    def post_adjustments(
        self, adjustments: Sequence[Adjustment], sequence: int | None, paid: Decimal
    ) -> list[Resource]:
        """CAS with what the contractual ones write off: a payer after the first no more than is open."""
        room = self.account.find_open(sequence) - paid - sum_adjustments(adjustments, "PR")
        is_later_payer = PAYER_SEQUENCES.get(self.payment.status, 1) > 1
        entries = []
        for each in adjustments:
            entry = adjustment_to_adjudication(each)
            kind = self.find_class(each)
            if self.payment.status == REVERSAL:
                written_off = -self._find_reversed(each, sequence)
            elif kind == CONTRACTUAL:
                written_off = min(each.amount, max(room, ZERO)) if is_later_payer else each.amount
                room -= written_off
                if written_off != each.amount:
                    self.remark(each, f"is {each.amount - written_off:.2f} more than is open.")
            else:
                written_off = ZERO
                if kind == UNKNOWN:
                    self.remark(each, "has no class; nothing was written off.")
            entry["extension"] = [{"url": codes.CLASS, "valueCode": kind}]
            if written_off:
                entry["extension"].append({"url": codes.POSTED, "valueMoney": make_money(written_off)})
            entries.append(entry)
        return entries

    def remark(self, adjustment: Adjustment, text: str) -> None:
        """A sentence about an adjustment."""
        self.remarks.append(f"{adjustment.group}-{adjustment.reason} of {adjustment.amount:.2f} {text}")

    def _find_reversed(self, adjustment: Adjustment, sequence: int | None) -> Decimal:
        """What the reversed ClaimResponse wrote off at the same place for the same reason."""
        response = self.account.reversed_response or {}
        places = [each for each in response.get("item", ()) if each.get("itemSequence") == sequence]
        entries = (
            response.get("adjudication", ())
            if sequence is None
            else [e for each in places for e in each["adjudication"]]
        )
        same = (e for e in entries if read_adjustments([e]) and read_adjustments([e])[0][:2] == adjustment[:2])
        return sum_amounts(read_posted(entry) for entry in same)
