"""The numbers of those who prescribe: the NPI, and the DEA registration for controlled substances.

https://hl7.org/fhir/R4/practitioner.html#identifier; 45 CFR 162.406 (NPI), 21 CFR 1301 (DEA registration)
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from mappers.billing.fields import Resource
from mappers.prescribing.codes import DEA, IDENTIFIER_TYPE, NPI
from mappers.scheduling.elements import list_codings, members

_match_dea = re.compile(r"[A-Z][A-Z9](\d{7})(-[A-Z0-9]+)?", re.ASCII).fullmatch


def find_npi(people: Iterable[Resource]) -> str:
    """The first NPI of a Practitioner or PractitionerRole; "" without one."""
    return _find_number(people, NPI, "NPI")


def find_dea(people: Iterable[Resource]) -> str:
    """The first DEA registration number; "" without one."""
    return _find_number(people, DEA, "DEA")


def is_dea(number: str) -> bool:
    """Two letters and seven digits; the last is that of the sum of the 1st, 3rd and 5th and twice the 2nd, 4th and 6th.

    A number of an institution has a suffix for who uses it.
    """
    matched = _match_dea(number)
    if matched is None:
        return False
    digits = [int(each) for each in matched[1]]
    return (sum(digits[0:6:2]) + 2 * sum(digits[1:6:2])) % 10 == digits[6]


def _find_number(people: Iterable[Resource], systems: tuple[str, ...], type: str) -> str:
    for person in people:
        for identifier in members(person, "identifier"):
            of_type = f"{IDENTIFIER_TYPE}|{type}" in list_codings(identifier.get("type"))
            if (of_type or identifier.get("system") in systems) and identifier.get("value"):
                return str(identifier["value"])
    return ""
