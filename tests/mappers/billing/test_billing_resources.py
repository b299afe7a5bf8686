"""Every resource that billing makes is valid R4, as the server judges it when it is stored."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from fhir_server.app import Knowledge
from fhir_server.fhir.outcome import Issue
from mappers.billing import codes
from mappers.billing.assembly import mark_charges
from mappers.billing.charges import index_definitions, procedures_to_charge_items
from mappers.billing.libraries import make_library
from mappers.billing.patient_money import Occasion, make_adjustment, make_payment, make_refund
from mappers.billing.remittance import ProviderAdjustment
from mappers.billing.scrub import findings_to_outcome, scrub_view
from mappers.billing.split import split_claim
from mappers.billing.split_rules import KIND, RuleSet
from tests.mappers.billing.histories import Practice, claim_paid, lines_paid
from tests.mappers.billing.split_scenarios import make_view, read_rules, read_scenarios
from tests.mappers.billing.test_billing_assembly import ENCOUNTER, assemble, charge
from tests.mappers.billing.test_billing_ledger import HISTORIES
from tests.mappers.billing.valid_claims import make_claims

Resource = dict[str, Any]
WRITE = msgspec.json.Encoder(decimal_format="number")
OCCASION = Occasion("k1", "2026-03-09", "2026-03-09", "Patient/a")


def list_faults(known: Knowledge, resources: Iterable[Resource | None]) -> list[tuple[str, str]]:
    """(type, sentence) of each fault that the server would refuse a resource for."""
    found = []
    for each in resources:
        stored = msgspec.json.decode(WRITE.encode(each))
        issues: tuple[Issue, ...] = known.validator.find_issues(stored)
        found += [(stored["resourceType"], f"{issue.expression} {issue.diagnostics}") for issue in issues]
    return found


def test_charges_and_claims(known: Knowledge) -> None:
    found = assemble(charge("a", "99213", "I10"), charge("b", "93000", "E11.9"))
    procedure = {
        "resourceType": "Procedure",
        "id": "p1",
        "status": "completed",
        "code": {"coding": [{"system": codes.CPT, "code": "17110"}]},
        "subject": {"reference": "Patient/ada"},
        "performer": [{"actor": {"reference": "Practitioner/pine"}}],
        "reasonReference": [{"reference": "Condition/one"}],
    }
    price = {"type": "base", "amount": {"value": Decimal("9.50"), "currency": "USD"}}
    definition = {"status": "active", "code": procedure["code"], "propertyGroup": [{"priceComponent": [price]}]}
    made, _ = procedures_to_charge_items(ENCOUNTER, [procedure], index_definitions([definition]), "2026-11-20")
    _, marked = mark_charges(found.claims[0], {})
    assert made and marked
    assert list_faults(known, [*found.claims, *found.charge_items, *made, *marked]) == []


def test_children_invoices_outcomes_and_rule_sets(known: Knowledge) -> None:
    for scenario in read_scenarios():
        view, rules = make_view(scenario), read_rules(scenario)
        split = split_claim(view, rules, "2026-04-01")
        made = [*split.children, *split.held, *split.invoices, findings_to_outcome(scrub_view(view))]
        # the scenarios' own claims leave out what splitting does not need
        made = [
            {**each, "created": "2026-04-01", "priority": {"text": "normal"}}
            if each["resourceType"] == "Claim"
            else each
            for each in made
        ]
        assert list_faults(known, [*made, make_library(RuleSet(name="a"), KIND, "a", "1")]) == []


@pytest.mark.parametrize("history", HISTORIES, ids=lambda each: each.__name__)
def test_remittances_and_what_follows(known: Knowledge, history: Any) -> None:
    practice = Practice()
    history(practice)
    practice.bill("05-05", "Z1", "100")
    practice.remit(
        "05-20",
        lines_paid("Z1", ("60", "CO-45 40")),
        claim_paid("nobody", "5"),
        plb=(ProviderAdjustment("WO", "77", Decimal(3)),),
    )
    made = [each for type in ("ClaimResponse", "Invoice", "Task") for each in practice.of(type)]
    made += [each for each in practice.of("PaymentReconciliation") if "created" in each]
    assert list_faults(known, made) == []


def test_patients_money(known: Knowledge) -> None:
    payment = make_payment(Decimal(20), "Claim/a1", OCCASION, "cash")
    assert not isinstance(payment, Issue)
    refund = make_refund(payment, [], Decimal(5), OCCASION)
    adjustment = make_adjustment("Claim/a1", Decimal(5), "courtesy", Decimal(9), OCCASION)
    assert not isinstance(refund, Issue) and not isinstance(adjustment, Issue)
    assert list_faults(known, [payment, refund, adjustment]) == []


def test_the_random_claims_of_other_tests(known: Knowledge) -> None:
    for claim, resources in make_claims(20):
        assert list_faults(known, [claim, *resources.values()]) == []
