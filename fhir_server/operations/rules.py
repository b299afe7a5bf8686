"""The business rules of all domains, by resource type (`writes/rules.py` says what a rule is)."""

from __future__ import annotations

from fhir_server.operations.audit_rule import AUDIT_RULES
from fhir_server.operations.billing.claim_rule import CLAIM_RULES
from fhir_server.operations.charges.rule import CHARGE_RULES
from fhir_server.operations.payments.rule import PAYMENT_RULES
from fhir_server.operations.prescribing.rule import PRESCRIBING_RULES
from fhir_server.operations.scheduling.rule import BOOKING_RULES
from fhir_server.settings import Settings
from fhir_server.writes.rules import Rules, join_rules

_ALWAYS = (BOOKING_RULES, PAYMENT_RULES, CLAIM_RULES, CHARGE_RULES)


def list_rules(settings: Settings) -> Rules:
    """Resource type → its business rule; a type whose rule is switched off pays nothing for it."""
    recorded = settings.authentication == "on" and settings.audit == "resources"
    switched = ((PRESCRIBING_RULES, settings.prescribing == "enforce"), (AUDIT_RULES, recorded))
    return join_rules(*_ALWAYS, *(rules for rules, is_on in switched if is_on))
