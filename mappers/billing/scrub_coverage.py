"""Scrub rules for coverage and payer: member ids, dates, filing, authorizations (837P 2000B, 2010BB, 2300)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta

from mappers.billing import codes
from mappers.billing.claim_view import ClaimView
from mappers.billing.fields import covers, find_code, find_extension, find_reference
from mappers.billing.scrub_rule import Find, Hit, hit_when

_SECONDARY_TYPES = frozenset(("12", "13", "14", "15", "16", "41", "42", "43", "47"))
MEDICARE_TYPE = f"{codes.EXTENSION}/claim-medicare-secondary-type"


def _focal_member(view: ClaimView) -> str:
    return str(view.focal.coverage.get("subscriberId", "")) if view.focal else ""


def _wrong_pattern(view: ClaimView) -> Iterable[Hit]:
    pattern, member = view.settings.member_id_pattern, _focal_member(view)
    return hit_when(bool(pattern) and bool(member) and not re.fullmatch(pattern, member[:40]), member)


def _out_of_force(view: ClaimView) -> Iterable[Hit]:
    if view.focal is None or not view.focal.coverage:
        return []
    period = view.focal.coverage.get("period")
    days = ((line.index, day) for line in view.lines for day in {line.first, line.last} if day)
    return [Hit(index, str(day)) for index, day in days if not covers(period, day)]


def _late(view: ClaimView) -> Iterable[Hit]:
    limit = view.settings.filing_days
    first = min((line.first for line in view.lines if line.first), default=None)
    if limit is None or first is None or _is_resubmission(view):
        return ()
    last = first + timedelta(days=limit)
    return hit_when(view.around.today > last, last)


def _is_resubmission(view: ClaimView) -> bool:
    return str(find_extension(view.claim, codes.FREQUENCY) or "1") in ("7", "8")


def _lacks_authorization(view: ClaimView) -> Iterable[Hit]:
    prefixes = view.settings.prior_authorization
    claim = bool(view.focal and view.focal.element.get("preAuthRef"))
    return [
        Hit(line.index, line.code) for line in view.lines if prefixes and line.code.startswith(prefixes) and not claim
    ]


def _lacks_referral(view: ClaimView) -> Iterable[Hit]:
    prefixes = view.settings.referral
    has_referral = "referral" in view.claim
    return [
        Hit(line.index, line.code)
        for line in view.lines
        if prefixes and line.code.startswith(prefixes) and not has_referral
    ]


def _lacks_medicare_type(view: ClaimView) -> Iterable[Hit]:
    for each in view.insurance:
        kind = codes.COVERAGE_KINDS.get(find_code(each.coverage.get("type")))
        reason = str(find_extension(each.element, MEDICARE_TYPE) or "")
        if kind == "MB" and each.sequence > 1 and reason not in _SECONDARY_TYPES:
            yield Hit(each.index)


def _wrong_choice(url: str, allowed: str) -> Find:
    """A rule on a code that the claim carries in an extension: only where it is there."""

    def find(view: ClaimView) -> Iterable[Hit]:
        value = find_extension(view.claim, url)
        return hit_when(value is not None and str(value) not in tuple(allowed), value)

    return find


def _repeated_sequence(view: ClaimView) -> Iterable[Hit]:
    numbers = [each.sequence for each in view.insurance]
    return hit_when(len(set(numbers)) != len(numbers) or any(number < 1 for number in numbers))


def _foreign_beneficiary(view: ClaimView) -> Iterable[Hit]:
    patient = find_reference(view.claim.get("patient"))
    return [
        Hit(e.index) for e in view.insurance if e.coverage and find_reference(e.coverage.get("beneficiary")) != patient
    ]


CHECKS: dict[str, Find] = {
    "insurance-focal": lambda view: hit_when(sum(bool(e.element.get("focal")) for e in view.insurance) != 1),
    "insurance-sequence": _repeated_sequence,
    "insurance-count": lambda view: hit_when(len(view.insurance) > 11),
    "coverage-missing": lambda view: [Hit(e.index) for e in view.insurance if not e.coverage],
    "coverage-beneficiary": _foreign_beneficiary,
    "coverage-status": lambda view: hit_when(
        view.focal is not None and view.focal.coverage.get("status", "active") != "active"
    ),
    "coverage-period": _out_of_force,
    "member-id": lambda view: hit_when(
        view.focal is not None and bool(view.focal.coverage) and not _focal_member(view)
    ),
    "member-id-pattern": _wrong_pattern,
    "payer-missing": lambda view: [Hit(e.index) for e in view.insurance if e.coverage and not e.payer.get("name")],
    "payer-id": lambda view: [Hit(e.index) for e in view.insurance if e.payer and not e.payer_id],
    "medicare-secondary": _lacks_medicare_type,
    "timely-filing": _late,
    "prior-authorization": _lacks_authorization,
    "referral": _lacks_referral,
    "assignment": _wrong_choice(codes.ASSIGNMENT, "ABC"),
    "benefits-assignment": _wrong_choice(codes.BENEFITS, "YNW"),
    "release-of-information": _wrong_choice(codes.RELEASE, "YI"),
}
