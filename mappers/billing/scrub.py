"""A claim scrubbed by the table of rules; findings name FHIRPath and X12 loop and element (docs/scrub-rules.md)."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path

from fhir_server.fhir.outcome import Issue
from mappers.billing import (
    codes,
    scrub_coverage,
    scrub_diagnoses,
    scrub_lines,
    scrub_parties,
    scrub_prior,
    scrub_totals,
)
from mappers.billing.claim_view import ClaimView, Surroundings, view_claim
from mappers.billing.fields import Resource, Resources
from mappers.billing.scrub_rule import Find, Finding, Rule

CHECKS: dict[str, Find] = {
    **scrub_parties.CHECKS,
    **scrub_coverage.CHECKS,
    **scrub_totals.CHECKS,
    **scrub_diagnoses.CHECKS,
    **scrub_lines.CHECKS,
    **scrub_prior.CHECKS,
}


def read_rules(text: str) -> tuple[Rule, ...]:
    """The rows of the table with their checks, in its order; KeyError where a row has no check."""
    rows = tomllib.loads(text)["rule"]
    return tuple(Rule(**row, find=CHECKS[row["id"]]) for row in rows)


RULES = read_rules(Path(__file__).with_name("scrub_rules.toml").read_text(encoding="utf-8"))

_ORDER = {"error": 0, "warning": 1, "information": 2}


def scrub_claim(claim: Resource, resources: Resources, around: Surroundings) -> tuple[Finding, ...]:
    """All findings of a claim, errors first, then in the order of the table. A claim without errors may be sent."""
    return scrub_view(view_claim(claim, resources, around))


def scrub_view(view: ClaimView) -> tuple[Finding, ...]:
    """The findings of a claim that has been read already."""
    changed = view.settings.rules
    findings = []
    for rule in RULES:
        severity = changed.get(rule.id, rule.severity)
        if severity != "off":
            findings += [rule.report(hit, severity) for hit in rule.find(view)]
    return tuple(sorted(findings, key=lambda each: _ORDER[each.severity]))


def has_errors(findings: Iterable[Finding]) -> bool:
    """Whether a claim with these findings is kept from being sent."""
    return any(each.severity == "error" for each in findings)


def findings_to_outcome(findings: Iterable[Finding]) -> Resource:
    """An OperationOutcome; rule id in `details`, the X12 place in `location`, the FHIRPath in `expression`."""
    issues = [_finding_to_issue(each) for each in findings]
    clean = {"severity": "information", "code": "informational", "diagnostics": "The claim has no findings."}
    return {"resourceType": "OperationOutcome", "issue": issues or [clean]}


def find_unknown_rules(names: Iterable[str]) -> list[Issue]:
    """A sentence for each rule id of a payer's settings that the table lacks."""
    ids = {rule.id for rule in RULES}
    text = "There is no scrub rule `{}`. The rules are listed in docs/scrub-rules.md."
    return [Issue("error", "not-found", text.format(name)) for name in names if name not in ids]


def _finding_to_issue(finding: Finding) -> Resource:
    return {
        "severity": finding.severity,
        "code": "business-rule",
        "details": {
            "coding": [{"system": f"{codes.OURS}/CodeSystem/scrub-rule", "code": finding.rule}],
            "text": finding.mend,
        },
        "diagnostics": f"{finding.wrong} {finding.mend}",
        "location": [f"{finding.loop}/{finding.element}"],
        "expression": [finding.expression],
    }
