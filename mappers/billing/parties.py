"""Formats of names, addresses and numbers of the parties of a claim (837P loops 2010AA to 2310D)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mappers.billing import codes
from mappers.billing.fields import Resource, find_identifier

_PO_BOX = re.compile(r"\b(?:p\.?\s*o\.?\s*box|post\s+office\s+box|lock\s*box)\b", re.IGNORECASE)
_ZIP = re.compile(r"[0-9]{5}(?:-?[0-9]{4})?", re.ASCII).fullmatch
_TAXONOMY = re.compile(r"[0-9A-Z]{9}X", re.ASCII).fullmatch
STATES = frozenset(
    [
        "AL",
        "AK",
        "AZ",
        "AR",
        "CA",
        "CO",
        "CT",
        "DE",
        "FL",
        "GA",
        "HI",
        "ID",
        "IL",
        "IN",
        "IA",
        "KS",
        "KY",
        "LA",
        "ME",
        "MD",
        "MA",
        "MI",
        "MN",
        "MS",
        "MO",
        "MT",
        "NE",
        "NV",
        "NH",
        "NJ",
        "NM",
        "NY",
        "NC",
        "ND",
        "OH",
        "OK",
        "OR",
        "PA",
        "RI",
        "SC",
        "SD",
        "TN",
        "TX",
        "UT",
        "VT",
        "VA",
        "WA",
        "WV",
        "WI",
        "WY",
        "DC",
        "PR",
        "VI",
        "GU",
        "AS",
        "MP",
        "FM",
        "MH",
        "PW",
        "AA",
        "AE",
        "AP",
    ]
)


def is_npi(number: str) -> bool:
    """Ten digits whose check digit is right by Luhn with the prefix 80840 (45 CFR 162.406)."""
    if len(number) != 10 or not (number.isascii() and number.isdigit()) or number[0] not in "12":
        return False
    total = 24  # what the prefix 80840 adds
    for place, digit in enumerate(reversed(number)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def is_taxonomy(code: str) -> bool:
    """Nine letters or digits and an X."""
    return bool(_TAXONOMY(code))


def is_zip(text: str, nine: bool = False) -> bool:
    """A ZIP of 5 or 9 digits, with or without hyphen; with `nine` only the long form not filled up with 0000."""
    digits = text.replace("-", "")
    return bool(_ZIP(text)) and (not nine or (len(digits) == 9 and digits[5:] != "0000"))


def find_address(resource: Resource) -> Resource:
    """The first address that is not old; a Location has a single one."""
    addresses = resource.get("address") or []
    if isinstance(addresses, dict):
        return addresses
    return next((each for each in addresses if each.get("use") != "old"), {})


def is_complete(address: Resource) -> bool:
    """Street, city, a state of the USPS list and a ZIP."""
    street = any(line.strip() for line in address.get("line", ()))
    return bool(
        street and address.get("city") and address.get("state") in STATES and is_zip(address.get("postalCode", ""))
    )


def is_post_office_box(address: Resource) -> bool:
    """Whether the first line is a post office box."""
    return bool(_PO_BOX.search(" ".join(address.get("line", ())[:1])))


def find_names(resource: Resource) -> tuple[str, str]:
    """(last or organization name, first name) of the first name that is not old."""
    name = resource.get("name")
    if isinstance(name, str):
        return name, ""
    for each in name or ():
        if each.get("use") != "old":
            return each.get("family", ""), " ".join(each.get("given", ())[:1])
    return "", ""


def find_npi(resource: Resource) -> str:
    """The NPI of a provider or place, else ``""``."""
    return find_identifier(resource, codes.NPI)


def find_texts(resource: Resource) -> Iterator[tuple[str, int]]:
    """Each text that a party brings to the claim, with the longest that X12 takes."""
    last, first = find_names(resource)
    address = find_address(resource)
    yield last, 60
    yield first, 35
    for line in address.get("line", ())[:2]:
        yield line, 55
    yield address.get("city", ""), 30
