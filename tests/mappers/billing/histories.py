"""A practice in memory whose money comes and goes by the posting functions: what the tests of the ledger use."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

from mappers.billing import codes
from mappers.billing.adjudications import Adjustment
from mappers.billing.fields import make_concept, make_money, make_reference
from mappers.billing.follow_up import FollowUpSettings, Posted, follow_posting
from mappers.billing.ledger import Books, make_books
from mappers.billing.matching import index_claims
from mappers.billing.posting import PostingSettings, PostingState, post_remittance
from mappers.billing.remittance import ClaimPayment, PaymentLine, ProviderAdjustment, Remittance

Resource = dict[str, Any]
D = Decimal


def day(text: str) -> date:
    """`03-05` of 2026."""
    return date.fromisoformat(f"2026-{text}")


def cas(text: str) -> tuple[Adjustment, ...]:
    """`CO-45 30, PR-2 10` as adjustments."""
    parts = (each.replace("-", " ", 1).split() for each in text.split(",") if each.strip())
    return tuple(Adjustment(group, reason, D(amount)) for group, reason, amount in parts)


class Practice:
    """Resources by reference; every method stores what the operations would."""

    def __init__(self) -> None:
        self.resources: dict[str, Resource] = {}
        for number in (1, 2):
            payor = [{"reference": f"Organization/payer{number}"}]
            self.store({"resourceType": "Coverage", "id": str(number), "payor": payor})

    def store(self, resource: Resource) -> Resource:
        of_type = sum(1 for each in self.resources.values() if each["resourceType"] == resource["resourceType"])
        resource = {"id": f"{resource['resourceType'].lower()}{of_type + 1}", **resource}
        self.resources[make_reference(resource)] = resource
        return resource

    def of(self, type: str) -> list[Resource]:
        return [each for each in self.resources.values() if each["resourceType"] == type]

    def bill(
        self, when: str, number: str, *charges: str, served: str = "", payers: int = 1, provider: str = "pine"
    ) -> Resource:
        """Charges entered on a day, and their claim."""
        made = self.enter(when, number, *charges, served=served, provider=provider)
        return self.claim(when, number, made, payers=payers, provider=provider)

    def enter(self, when: str, number: str, *charges: str, served: str = "", provider: str = "pine") -> list[Resource]:
        """Charges entered on a day, without a claim."""
        return [
            self.store(
                {
                    "resourceType": "ChargeItem",
                    "id": f"{number.lower()}{n}",
                    "status": "billed",
                    "code": make_concept(codes.CPT, "99213"),
                    "subject": {"reference": f"Patient/{number[0].lower()}"},
                    "account": [{"reference": f"Account/{number[0].lower()}"}],
                    "performer": [{"actor": {"reference": f"Practitioner/{provider}"}}],
                    "occurrenceDateTime": f"2026-{served or when}",
                    "enteredDate": f"2026-{when}",
                    "priceOverride": make_money(D(charge)),
                }
            )
            for n, charge in enumerate(charges, 1)
        ]

    def claim(
        self,
        when: str,
        number: str,
        charges: list[Resource],
        payers: int = 1,
        provider: str = "pine",
        visit: str = "",
    ) -> Resource:
        """A claim of charges, made on a day."""
        items: list[Resource] = [
            {
                "id": f"{number}L{n}",
                "extension": [{"url": codes.CHARGE_ITEM, "valueReference": {"reference": make_reference(each)}}],
                "sequence": n,
                "productOrService": each["code"],
                "servicedDate": each["occurrenceDateTime"],
                "net": each["priceOverride"],
            }
            for n, each in enumerate(charges, 1)
        ]
        for item in items if visit else ():
            item["encounter"] = [{"reference": visit}]
        insurance = [
            {"sequence": n, "focal": n == 1, "coverage": {"reference": f"Coverage/{n}"}} for n in range(1, payers + 1)
        ]
        return self.store(
            {
                "resourceType": "Claim",
                "id": number.lower(),
                "identifier": [{"system": codes.PATIENT_CONTROL_NUMBER, "value": number}],
                "status": "active",
                "created": f"2026-{when}",
                "type": make_concept(codes.CLAIM_TYPE, "professional"),
                "patient": {"reference": f"Patient/{number[0].lower()}"},
                "careTeam": [
                    {
                        "sequence": 1,
                        "provider": {"reference": f"Practitioner/{provider}"},
                        "role": make_concept("", "primary"),
                    }
                ],
                "facility": {"reference": "Location/north"},
                "insurance": insurance,
                "item": items,
                "total": make_money(sum((each["priceOverride"]["value"] for each in charges), D(0))),
            }
        )

    def remit(self, when: str, *claims: ClaimPayment, payer: int = 1, plb: tuple[ProviderAdjustment, ...] = ()) -> None:
        """A remittance posted on a day, active at once."""
        amount = sum((each.paid for each in claims), D(0)) - sum((each.amount for each in plb), D(0))
        trace = f"T{len(self.of('PaymentReconciliation'))}"
        sent = Remittance(trace, f"199{payer}", amount, day(when), claims=claims, provider_adjustments=plb)
        responses = self.of("ClaimResponse")
        earlier: dict[str, list[Resource]] = {}
        for each in responses:
            earlier.setdefault(each["request"]["reference"], []).append(each)
        state = PostingState(index_claims(self.of("Claim"), responses, self.resources), earlier)
        settings = PostingSettings(f"2026-{when}", f"2026-{when}", f"Organization/payer{payer}", f"9000{payer}")
        posting = post_remittance(sent, state, settings)
        assert posting.reconciliation is not None, posting.tasks
        for each in posting.responses:
            self.store({**each, "status": "active"})
        for each in posting.tasks:
            self.store(each)
        self.store({**posting.reconciliation, "status": "active"})

    def follow(self, when: str, number: str) -> None:
        """What follows the posting of a claim: Invoice, claim to the next payer, Tasks."""
        claim = self.resources[f"Claim/{number.lower()}"]
        name = make_reference(claim)
        responses = [each for each in self.of("ClaimResponse") if each["request"]["reference"] == name]
        invoices = [each for each in self.of("Invoice") if each["extension"][1]["valueReference"]["reference"] == name]
        paid = sum(
            (
                detail["amount"]["value"]
                for each in self.of("PaymentReconciliation")
                if "paymentIssuer" not in each
                for detail in each["detail"]
                if detail["request"]["reference"] == name and detail["type"]["coding"][0]["code"] == "payment"
            ),
            D(0),
        )
        found = follow_posting(
            Posted(claim, responses, invoices, paid), FollowUpSettings(f"2026-{when}", f"2026-{when}")
        )
        if found.claim is not None:
            self.store({**found.claim, "id": f"{number.lower()}-next"})
        if found.invoice is not None:
            self.store(found.invoice)
        for each in found.tasks:
            self.store(each)

    def pay(self, when: str, amount: str, on: str, kind: str = "payment", patient: str = "") -> None:
        """The patient's money, a refund where it is below 0, or an adjustment by hand."""
        whose = [{"url": codes.PAYMENT_PATIENT, "valueReference": {"reference": patient}}] if patient else []
        self.store(
            {
                "resourceType": "PaymentReconciliation",
                "status": "active",
                "extension": [{"url": codes.POSTING_DATE, "valueDate": f"2026-{when}"}, *whose],
                "paymentAmount": make_money(D(amount) if kind == "payment" else D(0)),
                "detail": [
                    {
                        "type": make_concept(codes.PAYMENT_TYPE, kind),
                        "request": {"reference": on},
                        "amount": make_money(D(amount)),
                    }
                ],
            }
        )

    def books(self) -> Books:
        return make_books(self.resources)


def claim_paid(
    number: str, paid: str, adjustments: str = "", status: str = "1", charge: str = "", **more: Any
) -> ClaimPayment:
    """A CLP without lines."""
    found = cas(adjustments)
    total = D(charge) if charge else D(paid) + sum((each.amount for each in found), D(0))
    return ClaimPayment(number, status, total, D(paid), payer_number=f"ICN{number}", adjustments=found, **more)


def lines_paid(number: str, *lines: tuple[str, str], status: str = "1", **more: Any) -> ClaimPayment:
    """A CLP of lines 1, 2, 3 in their order, each (paid, adjustments)."""
    made = []
    for n, (paid, adjustments) in enumerate(lines, 1):
        found = cas(adjustments)
        charge = D(paid) + sum((each.amount for each in found), D(0))
        made.append(PaymentLine("99213", charge, D(paid), control_number=f"{number}L{n}", adjustments=found))
    total, paid_all = sum((each.charge for each in made), D(0)), sum((each.paid for each in made), D(0))
    return ClaimPayment(number, status, total, paid_all, payer_number=f"ICN{number}", lines=tuple(made), **more)
