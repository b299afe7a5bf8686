"""What a site keeps as Libraries: rule sets and the settings of payers; what is in force, and what may be stored.

A Library is of a kind by a coding of its `type` (or by `type.text`, to which storing adds the coding).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fhir_server.fhir.outcome import Issue
from mappers.billing import codes
from mappers.billing.fields import Resource
from mappers.billing.libraries import read_library
from mappers.billing.payer_settings import PayerSettings, SiteSettings
from mappers.billing.scrub import find_unknown_rules
from mappers.billing.split_rules import KIND as RULE_SET
from mappers.billing.split_rules import read_rule_set

PAYER_SETTINGS = "claim-payer-settings"
KINDS = (RULE_SET, PAYER_SETTINGS)


def find_kind(library: Mapping[str, Any] | None) -> str:
    """The kind of a Library of ours, "" for any other Library."""
    concept = (library or {}).get("type") or {}
    ours = [each.get("code") for each in concept.get("coding", ()) if each.get("system") == codes.LIBRARY_KIND]
    return next((each for each in KINDS if each in (*ours, concept.get("text"))), "")


def code_type(library: Resource) -> Resource:
    """The `type` of a Library of ours with its coding, by which it is found."""
    concept, kind = library["type"], find_kind(library)
    coding = {"system": codes.LIBRARY_KIND, "code": kind}
    found = concept.get("coding", [])
    return concept if coding in found else {**concept, "coding": [*found, coding]}


def find_owner(library: Resource) -> tuple[str, list[Issue]]:
    """Whom a Library of ours is for: a billing provider (`the practice` without one) or a payer id; or its faults."""
    if find_kind(library) == RULE_SET:
        rules, issues = read_rule_set(library)
        return (rules.provider or "the practice" if rules else ""), issues
    settings, issues = read_library(library, PayerSettings)
    if settings is None:
        return "", issues
    if not settings.payer_id:
        text = "`payer_id` is missing: the payer's id as in 2010BB NM109."
        return "", [Issue("error", "required", text, ("Library.content[0].data",))]
    return f"payer {settings.payer_id}", find_unknown_rules(settings.rules)


def find_library_faults(library: Resource, others: Iterable[Resource]) -> list[Issue]:
    """Why a Library of ours must not be stored: its faults, or another active one of its kind for the same owner."""
    owner, issues = find_owner(library)
    if issues or library.get("status") != "active":
        return issues
    for other in others:
        same = find_kind(other) == find_kind(library) and other.get("id") != library.get("id")
        if same and other.get("status") == "active" and find_owner(other)[0] == owner:
            text = f"`Library/{other['id']}` is the active one for {owner} already. Retire it first."
            return [Issue("error", "conflict", text, ("Library.status",))]
    return []


def read_site_settings(libraries: Iterable[Resource]) -> SiteSettings:
    """The settings of each payer that has an active Library."""
    payers = {}
    for library in libraries:
        if library.get("status") == "active" and find_kind(library) == PAYER_SETTINGS:
            settings, _ = read_library(library, PayerSettings)
            if settings is not None:
                payers[settings.payer_id] = settings
    return SiteSettings(payers=payers)
