"""Scrub rules for billing, care team, facility and patient (837P 2010AA, 2010BA, 2010CA, 2310)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from mappers.billing import codes
from mappers.billing.claim_view import ClaimView, find_taxonomy
from mappers.billing.fields import Resource, find_code, find_identifier, to_day
from mappers.billing.parties import (
    find_address,
    find_names,
    find_npi,
    find_texts,
    is_complete,
    is_npi,
    is_post_office_box,
    is_taxonomy,
    is_zip,
)
from mappers.billing.scrub_rule import Find, Hit, hit_when

_CODE_OF_PLACE = ("21", "51", "61")


def _check(part: str, fault: Callable[[Resource], object]) -> Find:
    """A rule on one party of the claim, silent where the party is missing: another rule tells that."""

    def find(view: ClaimView) -> Iterable[Hit]:
        party = getattr(view, part)
        return hit_when(bool(party) and bool(fault(party)))

    return find


def _team(role: str, fault: Callable[[Resource], object]) -> Find:
    """A rule on each member of the care team with one role."""

    def find(view: ClaimView) -> Iterable[Hit]:
        return [Hit(n, find_npi(party)) for n, each, party in view.team if each in (role, "") and fault(party)]

    return find


def _wrong_npi(party: Resource) -> bool:
    return not is_npi(find_npi(party))


def _wrong_tax_number(provider: Resource) -> bool:
    number = find_identifier(provider, *codes.EIN, codes.SSN).replace("-", "")
    return not (len(number) == 9 and number.isascii() and number.isdigit())


def _facility_differs(view: ClaimView) -> bool:
    return bool(view.facility) and find_address(view.facility) != find_address(view.provider)


def _wrong_name(party: Resource) -> bool:
    last, first = find_names(party)
    return not last or (not first and party.get("resourceType") in ("Patient", "Practitioner", "RelatedPerson"))


def _wrong_birth_date(view: ClaimView) -> Iterable[Hit]:
    text = str(view.patient.get("birthDate", ""))
    born = to_day(text)
    first = min((line.first for line in view.lines if line.first), default=view.around.today)
    return hit_when(bool(view.patient) and (born is None or len(text) != 10 or born.year < 1890 or born > first), text)


def _missing_referrer(view: ClaimView) -> Iterable[Hit]:
    has_orderer = any(role in ("referring", "ordering") for _, role, _ in view.team)
    prefixes = view.settings.ordering
    return [Hit(e.index, e.code) for e in view.lines if not has_orderer and prefixes and e.code.startswith(prefixes)]


def _missing_facility(view: ClaimView) -> Iterable[Hit]:
    return hit_when(not view.facility and any(line.place in _CODE_OF_PLACE for line in view.lines))


def _subscriber_address(view: ClaimView) -> Iterable[Hit]:
    own = view.subscriber is view.patient
    return hit_when(bool(view.subscriber) and not own and not is_complete(find_address(view.subscriber)))


def _foreign_characters(view: ClaimView) -> Iterable[Hit]:
    for party in (view.provider, view.patient, view.subscriber, view.facility):
        for text, _ in find_texts(party):
            if not text.isascii() or re.search(r"[\x00-\x1f\x7f]", text):
                return (Hit(0, text),)
    return ()


def _long_texts(view: ClaimView) -> Iterable[Hit]:
    for party in (view.provider, view.patient, view.subscriber, view.facility):
        for text, longest in find_texts(party):
            if len(text) > longest:
                return (Hit(0, text),)
    return ()


CHECKS: dict[str, Find] = {
    "provider-missing": lambda view: hit_when(not view.provider),
    "provider-name": _check("provider", _wrong_name),
    "provider-npi": _check("provider", _wrong_npi),
    "provider-taxonomy": _check("provider", lambda party: not is_taxonomy(find_taxonomy(party))),
    "provider-tax-number": _check("provider", _wrong_tax_number),
    "provider-address": _check("provider", lambda party: not is_complete(find_address(party))),
    "provider-street": _check("provider", lambda party: is_post_office_box(find_address(party))),
    "provider-zip": _check("provider", lambda party: not is_zip(find_address(party).get("postalCode", ""), nine=True)),
    "facility-missing": _missing_facility,
    "facility-npi": _check("facility", lambda party: find_npi(party) and _wrong_npi(party)),
    "facility-address": lambda view: hit_when(_facility_differs(view) and not is_complete(find_address(view.facility))),
    "facility-zip": lambda view: hit_when(
        _facility_differs(view) and not is_zip(find_address(view.facility).get("postalCode", ""), nine=True)
    ),
    "rendering-npi": _team("primary", _wrong_npi),
    "rendering-name": _team("primary", _wrong_name),
    "referring-npi": _team("referring", _wrong_npi),
    "referring-name": _team("referring", _wrong_name),
    "ordering-npi": _team("ordering", _wrong_npi),
    "supervising-npi": _team("supervisor", _wrong_npi),
    "ordering-missing": _missing_referrer,
    "patient-missing": lambda view: hit_when(not view.patient),
    "patient-name": _check("patient", _wrong_name),
    "patient-birth-date": _wrong_birth_date,
    "patient-gender": _check("patient", lambda party: not party.get("gender")),
    "patient-address": _check("patient", lambda party: not is_complete(find_address(party))),
    "subscriber-missing": lambda view: hit_when(
        view.focal is not None and bool(view.focal.coverage) and not view.subscriber
    ),
    "subscriber-name": _check("subscriber", _wrong_name),
    "subscriber-address": _subscriber_address,
    "relationship": lambda view: hit_when(
        view.focal is not None and bool(view.focal.coverage) and not find_code(view.focal.coverage.get("relationship"))
    ),
    "text-characters": _foreign_characters,
    "text-length": _long_texts,
}
