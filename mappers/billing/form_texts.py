"""Texts of the CMS-1500 (02/12) from segments of an 837P: names, addresses, dates, amounts, and the service lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from decimal import Decimal

from mappers.x12.loop import Loop, to_amount
from mappers.x12.resource import Resource, get_list, get_text
from mappers.x12.segment import Segment

Boxes = dict[str, str]
"""Texts by the names of the boxes (`mappers/billing/form_layout.py`)."""

_AREA, _DIGITS = 3, 10

_CUT = frozenset({
    # Texts that stay what they are when their end is missing. Box 26 has room for 14 of the account number's 17.
    "payer.name", "payer.street", "payer.street2", "payer.city", "patient.name", "patient.street", "patient.city",
    "insured.name", "insured.street", "insured.city", "insured.plan", "other.name", "other.plan", "referring.name",
    "note", "account", "facility.name", "facility.street", "facility.city", "provider.name", "provider.street",
    "provider.city",
})  # fmt: skip


def is_lasting(name: str) -> bool:
    """Whether the text of a box must stand there whole, such as a code, a number or an amount."""
    return name not in _CUT


def write_plain(text: str) -> str:
    """Without full stops, commas and number signs, which do not belong in names and addresses of the form."""
    return " ".join(re.sub("[.,#]", " ", text).split())


def write_name(name: Segment) -> str:
    """NM1 as `DOE JR, JANE, A`: commas between last name with suffix, first name and initial; else the name."""
    if name.at(2) == "2":
        return write_plain(name.at(3))
    last = " ".join(filter(None, (name.at(3), name.at(7))))
    return ", ".join(filter(None, map(write_plain, (last, name.at(4), name.at(5)[:1]))))


def write_address(name: str, loop: Loop) -> Boxes:
    """N3 and N4 as street, city, state and ZIP, that of nine digits with its hyphen."""
    street, city = loop.segment("N3"), loop.segment("N4")
    zip_code = city.at(3)
    return {
        f"{name}.street": write_plain(" ".join(street.elements[1:])),
        f"{name}.city": write_plain(city.at(1)),
        f"{name}.state": city.at(2),
        f"{name}.zip": f"{zip_code[:5]}-{zip_code[5:]}" if len(zip_code) == 9 and zip_code.isdigit() else zip_code,
    }


def write_place(name: str, loop: Loop) -> Boxes:
    """A provider or place as name, street, city with state and ZIP, and NPI."""
    address = write_address(name, loop)
    city = (address[f"{name}.{each}"] for each in ("city", "state", "zip"))
    return {
        f"{name}.name": write_name(loop.segment("NM1")),
        f"{name}.street": address[f"{name}.street"],
        f"{name}.city": " ".join(filter(None, city)),
        f"{name}.npi": loop.segment("NM1").at(9),
    }


def write_birth(name: str, loop: Loop) -> Boxes:
    """DMG as birth date and sex; neither box is marked where the sex is not known."""
    sex = {"M": "male", "F": "female"}.get(loop.segment("DMG").at(3), "")
    boxes = write_date(f"{name}.born", loop.segment("DMG").at(2))
    return boxes | ({f"{name}.{sex}": "X"} if sex else {})


def write_date(name: str, day: str) -> Boxes:
    """CCYYMMDD as month, day and year of four digits; nothing of an empty text."""
    return {f"{name}.month": day[4:6], f"{name}.day": day[6:8], f"{name}.year": day[:4]} if day else {}


def write_phone(name: str, resource: Resource) -> Boxes:
    """The first telephone number of ten digits, after a leading 1: area code and the rest."""
    for telecom in get_list(resource, "telecom"):
        digits = re.sub("[^0-9]", "", get_text(telecom, "value")).removeprefix("1")
        if telecom.get("system") == "phone" and len(digits) == _DIGITS:
            return {f"{name}.area": digits[:_AREA], f"{name}.phone": digits[_AREA:]}
    return {}


def write_money(amount: Decimal) -> str:
    """Dollars and cents without a point, such as `150 00`."""
    return f"{amount:.2f}".replace(".", " ")


def line_to_boxes(line: Loop, claim: Loop) -> Boxes:
    """The texts of a service line, by the names of `LINE_BOXES`; `claim` is its loop 2300."""
    service = line.segment("SV1")
    first, *last = line.value("DTP", "472", 3).split("-")
    return {
        "supplement": _write_supplement(line),
        **_write_day("from", first),
        **_write_day("to", last[0] if last else first),
        "place": service.at(5) or claim.segment("CLM").at(5, 1),
        "emergency": service.at(9),
        "procedure": service.at(1, 2),
        **{f"modifier.{number}": code for number, code in enumerate(service.parts(1)[2:6], 1)},
        "pointers": "".join(chr(ord("A") + int(each) - 1) for each in service.parts(7)),
        "charge": write_money(to_amount(service.at(2))),
        "units": service.at(4),
        "screening": service.at(11),
        "rendering": line.loop("2420A").segment("NM1").at(9) or claim.loop("2310B").segment("NM1").at(9),
    }


def _write_day(name: str, day: str) -> Boxes:
    """CCYYMMDD as month, day and a year of two digits."""
    return {f"{name}.month": day[4:6], f"{name}.day": day[6:8], f"{name}.year": day[2:4]}


def _write_supplement(line: Loop) -> str:
    """The shaded half: a drug's number, unit and quantity after `N4`, a description after `ZZ`, three spaces apart."""
    drug = line.loop("2410")
    number, amount = drug.segment("LIN").at(3), drug.segment("CTP")
    description = line.segment("SV1").at(1, 7)
    texts = (number and f"N4{number}   {amount.at(5)}{amount.at(4)}", description and f"ZZ{description}")
    return "   ".join(filter(None, texts))


def list_line_remarks(lines: Iterable[Loop]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What the 837P says of a line and the form has no box for: a sentence with the FHIRPath."""
    for place, line in enumerate(lines):
        if line.value("REF", "G1"):
            yield "The form has no box for the authorization of a line.", (f"Claim.item[{place}]",)
        if line.loops("2420D"):
            yield (
                "The form has no box for the supervising provider of a line.",
                (f"Claim.item[{place}].careTeamSequence",),
            )
