"""Where each box of the CMS-1500 (02/12) stands, on a grid of ten characters and six lines to the inch.

Boxes: the reference instruction manual of the form (https://www.nucc.org). Lines and columns are counted from 1.
"""

from __future__ import annotations

from typing import NamedTuple

SERVICE_LINES = 6
"""Service lines of a page."""

MARGINS = (24.0, 20.0)
"""Points from the left edge of the sheet to column 1, and from its top to the grid; printers differ."""


class Box(NamedTuple):
    """A place of the form: the item number that is printed on it, line, first column, and characters.

    `right`: whether what is shorter stands at its right end.
    """

    item: str
    line: int
    column: int
    width: int
    right: bool = False


def _date(item: str, name: str, line: int, columns: tuple[int, int, int]) -> dict[str, Box]:
    """Month, day and a year of four digits."""
    widths = ((".month", 2), (".day", 2), (".year", 4))
    return {name + part: Box(item, line, column, width) for (part, width), column in zip(widths, columns, strict=True)}


BOXES: dict[str, Box] = {
    "payer.name": Box("", 2, 41, 38),
    "payer.street": Box("", 3, 41, 38),
    "payer.street2": Box("", 4, 41, 38),
    "payer.city": Box("", 5, 41, 38),
    "kind.medicare": Box("1", 8, 1, 1),
    "kind.medicaid": Box("1", 8, 8, 1),
    "kind.tricare": Box("1", 8, 15, 1),
    "kind.champva": Box("1", 8, 24, 1),
    "kind.group": Box("1", 8, 31, 1),
    "kind.feca": Box("1", 8, 39, 1),
    "kind.other": Box("1", 8, 45, 1),
    "insured.id": Box("1a", 8, 50, 29),
    "patient.name": Box("2", 10, 1, 28),
    **_date("3", "patient.born", 10, (31, 34, 37)),
    "patient.male": Box("3", 10, 42, 1),
    "patient.female": Box("3", 10, 47, 1),
    "insured.name": Box("4", 10, 50, 29),
    "patient.street": Box("5", 12, 1, 28),
    "patient.city": Box("5", 14, 1, 24),
    "patient.state": Box("5", 14, 26, 3),
    "patient.zip": Box("5", 16, 1, 12),
    "patient.area": Box("5", 16, 15, 3),
    "patient.phone": Box("5", 16, 19, 10),
    "relationship.self": Box("6", 12, 33, 1),
    "relationship.spouse": Box("6", 12, 38, 1),
    "relationship.child": Box("6", 12, 42, 1),
    "relationship.other": Box("6", 12, 47, 1),
    "insured.street": Box("7", 12, 50, 29),
    "insured.city": Box("7", 14, 50, 23),
    "insured.state": Box("7", 14, 74, 4),
    "insured.zip": Box("7", 16, 50, 12),
    "insured.area": Box("7", 16, 65, 3),
    "insured.phone": Box("7", 16, 69, 10),
    "other.name": Box("9", 18, 1, 28),
    "other.policy": Box("9a", 20, 1, 28),
    "other.plan": Box("9d", 26, 1, 28),
    "employment.yes": Box("10a", 20, 35, 1),
    "employment.no": Box("10a", 20, 41, 1),
    "auto.yes": Box("10b", 22, 35, 1),
    "auto.no": Box("10b", 22, 41, 1),
    "auto.state": Box("10b", 22, 45, 2),
    "accident.yes": Box("10c", 24, 35, 1),
    "accident.no": Box("10c", 24, 41, 1),
    "insured.group": Box("11", 18, 50, 29),
    **_date("11a", "insured.born", 20, (53, 56, 59)),
    "insured.male": Box("11a", 20, 68, 1),
    "insured.female": Box("11a", 20, 75, 1),
    "insured.plan": Box("11c", 24, 50, 29),
    "other.yes": Box("11d", 26, 52, 1),
    "other.no": Box("11d", 26, 57, 1),
    "patient.signature": Box("12", 29, 7, 22),
    "insured.signature": Box("13", 29, 55, 22),
    **_date("14", "illness", 32, (2, 5, 8)),
    "illness.qualifier": Box("14", 32, 16, 3),
    "date.qualifier": Box("15", 32, 31, 3),
    **_date("15", "date", 32, (37, 40, 43)),
    **_date("16", "unable.from", 32, (54, 57, 60)),
    **_date("16", "unable.to", 32, (68, 71, 74)),
    "referring.qualifier": Box("17", 34, 1, 2),
    "referring.name": Box("17", 34, 4, 25),
    "referring.npi": Box("17b", 34, 33, 15),
    **_date("18", "hospital.from", 34, (54, 57, 60)),
    **_date("18", "hospital.to", 34, (68, 71, 74)),
    "note": Box("19", 36, 1, 48),
    "laboratory.no": Box("20", 36, 57, 1),
    "icd": Box("21", 37, 42, 1),
    **{f"diagnosis.{n + 1}": Box("21", 38 + n // 4, 3 + 13 * (n % 4), 8) for n in range(12)},
    "frequency": Box("22", 38, 50, 11),
    "original": Box("22", 38, 62, 18),
    "authorization": Box("23", 40, 50, 29),
    "tax.number": Box("25", 56, 1, 15),
    "tax.ssn": Box("25", 56, 17, 1),
    "tax.ein": Box("25", 56, 19, 1),
    "account": Box("26", 56, 23, 14),
    "assignment.yes": Box("27", 56, 38, 1),
    "assignment.no": Box("27", 56, 43, 1),
    "total": Box("28", 56, 52, 8, right=True),
    "paid": Box("29", 56, 62, 8, right=True),
    "provider.signature": Box("31", 60, 1, 21),
    "facility.name": Box("32", 58, 23, 26),
    "facility.street": Box("32", 59, 23, 26),
    "facility.city": Box("32", 60, 23, 26),
    "facility.npi": Box("32a", 61, 23, 10),
    "provider.area": Box("33", 57, 66, 3),
    "provider.phone": Box("33", 57, 70, 9),
    "provider.name": Box("33", 58, 50, 29),
    "provider.street": Box("33", 59, 50, 29),
    "provider.city": Box("33", 60, 50, 29),
    "provider.npi": Box("33a", 61, 50, 10),
    "provider.taxonomy": Box("33b", 61, 63, 17),
}
"""The boxes outside of the service lines, by what stands in them."""

LINE_BOXES: dict[str, Box] = {
    # in the upper, shaded half of a service line
    "supplement": Box("24", 43, 1, 61),
    # in the lower half
    "from.month": Box("24A", 44, 1, 2),
    "from.day": Box("24A", 44, 4, 2),
    "from.year": Box("24A", 44, 7, 2),
    "to.month": Box("24A", 44, 10, 2),
    "to.day": Box("24A", 44, 13, 2),
    "to.year": Box("24A", 44, 16, 2),
    "place": Box("24B", 44, 19, 2),
    "emergency": Box("24C", 44, 22, 2),
    "procedure": Box("24D", 44, 25, 6),
    **{f"modifier.{n + 1}": Box("24D", 44, 33 + 3 * n, 2) for n in range(4)},
    "pointers": Box("24E", 44, 45, 4),
    "charge": Box("24F", 44, 50, 8, right=True),
    "units": Box("24G", 44, 59, 3, right=True),
    "screening": Box("24H", 44, 63, 1),
    "rendering": Box("24J", 44, 68, 11),
}
"""The boxes of the first service line; each further one stands two lines lower."""


def find_box(name: str) -> Box:
    """The place of a box: of `BOXES`, or `line.2.charge` for one of the second service line of a page."""
    if not name.startswith("line."):
        return BOXES[name]
    _, number, inner = name.split(".", 2)
    box = LINE_BOXES[inner]
    return box._replace(line=box.line + 2 * (int(number) - 1))
