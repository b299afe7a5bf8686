"""Scrub rules for lines: codes, modifiers, units, dates, pointers, drugs, laboratory, NCCI edits (837P 2400, 2410)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal

from mappers.billing import codes
from mappers.billing.claim_view import ClaimView, LineView
from mappers.billing.code_sets import find_rows
from mappers.billing.fields import find_code, find_identifier, to_decimal
from mappers.billing.scrub_rule import Find, Hit

_CODE = re.compile(r"[0-9]{4}[0-9AFMTU]|[A-V][0-9]{4}", re.ASCII).fullmatch
_MODIFIER = re.compile(r"[A-Z0-9]{2}", re.ASCII).fullmatch
_NDC = re.compile(r"[0-9]{11}", re.ASCII).fullmatch
_CLIA = re.compile(r"[0-9]{2}D[0-9]{7}", re.ASCII).fullmatch

PLACES = frozenset(
    [
        "01",
        "02",
        "03",
        "04",
        "05",
        "06",
        "07",
        "08",
        "09",
        "10",
        "11",
        "12",
        "13",
        "14",
        "15",
        "16",
        "17",
        "18",
        "19",
        "20",
        "21",
        "22",
        "23",
        "24",
        "25",
        "26",
        "27",
        "31",
        "32",
        "33",
        "34",
        "41",
        "42",
        "49",
        "50",
        "51",
        "52",
        "53",
        "54",
        "55",
        "56",
        "57",
        "58",
        "60",
        "61",
        "62",
        "65",
        "66",
        "71",
        "72",
        "81",
        "99",
    ]
)
DISTINCT = frozenset(
    # Modifiers that NCCI lets pass where the indicator is 1.
    [
        "E1",
        "E2",
        "E3",
        "E4",
        "FA",
        "F1",
        "F2",
        "F3",
        "F4",
        "F5",
        "F6",
        "F7",
        "F8",
        "F9",
        "TA",
        "T1",
        "T2",
        "T3",
        "T4",
        "T5",
        "T6",
        "T7",
        "T8",
        "T9",
        "LT",
        "RT",
        "LC",
        "LD",
        "RC",
        "LM",
        "RI",
        "24",
        "25",
        "57",
        "58",
        "78",
        "79",
        "27",
        "59",
        "91",
        "XE",
        "XS",
        "XP",
        "XU",
    ]
)
REPEATED = frozenset(("76", "77", "91", "59", "XE", "XS", "XP", "XU", "LT", "RT", "50"))
EVALUATION: tuple[tuple[str, str], ...] = (
    ("92002", "92014"), ("99202", "99215"), ("99221", "99239"), ("99242", "99255"), ("99281", "99285"),
    ("99304", "99318"), ("99341", "99350"), ("99381", "99397"),
)  # fmt: skip
SURGERY = ("10004", "69990")
NOT_SURGERY = frozenset(("36415", "36416"))
LABORATORY = ("80047", "89398")
DRUG_UNITS = frozenset(("UN", "ML", "GR", "F2", "ME"))


def is_evaluation(code: str) -> bool:
    """Whether a code is an evaluation and management service."""
    return any(first <= code <= last for first, last in EVALUATION)


def _is_surgery(code: str) -> bool:
    return SURGERY[0] <= code <= SURGERY[1] and code not in NOT_SURGERY


def _lines(fault: Callable[[LineView], object]) -> Find:
    """A rule on each line by itself; where the fault is a text, the sentence names it."""

    def find(view: ClaimView) -> Iterator[Hit]:
        for line in view.lines:
            if value := fault(line):
                yield Hit(line.index, value if isinstance(value, str) else line.code)

    return find


def _unknown_code(view: ClaimView) -> Iterator[Hit]:
    loaded = view.around.code_sets.hcpcs
    for line in view.lines:
        if loaded and line.code[:1].isalpha() and line.first and not any(find_rows(loaded, line.code, line.first)):
            yield Hit(line.index, line.code)


def _unknown_modifier(view: ClaimView) -> Iterator[Hit]:
    """HCPCS modifiers begin with a letter; those of CPT are licensed and not looked up."""
    loaded = view.around.code_sets.hcpcs
    for line in view.lines:
        for each in line.modifiers:
            if loaded and line.first and each[:1].isalpha() and not any(find_rows(loaded, each, line.first)):
                yield Hit(line.index, each)


def _wrong_modifier(line: LineView) -> str:
    return next((each or "?" for each in line.modifiers if not _MODIFIER(each)), "")


def _wrong_pointers(view: ClaimView) -> Iterator[Hit]:
    numbers = {number for number, _ in view.diagnoses}
    for line in view.lines:
        wrong = [str(each) for each in line.item.get("diagnosisSequence", ()) if each not in numbers]
        if wrong:
            yield Hit(line.index, ", ".join(wrong))


def _lacks_25(view: ClaimView) -> Iterator[Hit]:
    surgery = {(line.first, line.rendering) for line in view.lines if _is_surgery(line.code)}
    for line in view.lines:
        if (
            is_evaluation(line.code)
            and (line.first, line.rendering) in surgery
            and not {"25", "57"} & set(line.modifiers)
        ):
            yield Hit(line.index, line.code)


def _repeats(view: ClaimView) -> Iterator[Hit]:
    seen = set()
    for line in view.lines:
        key = (line.code, line.modifiers, line.first, line.rendering)
        if key in seen and not REPEATED & set(line.modifiers):
            yield Hit(line.index, line.code)
        seen.add(key)


def _in_future(view: ClaimView) -> Iterable[Hit]:
    today = view.around.today
    return [
        Hit(e.index, str(e.last or e.first)) for e in view.lines if e.first and max(e.first, e.last or e.first) > today
    ]


def _lacks_clia(view: ClaimView) -> Iterable[Hit]:
    certificate = find_identifier(view.facility, codes.CLIA) or find_identifier(view.provider, codes.CLIA)
    lines = (line for line in view.lines if LABORATORY[0] <= line.code <= LABORATORY[1])
    return [Hit(line.index, line.code) for line in lines if not _CLIA(certificate)]


def _find_drugs(line: LineView) -> list[tuple[str, Decimal, str]]:
    """(NDC without hyphens, quantity, unit) of each drug of a line."""
    drugs = []
    for detail in line.item.get("detail", ()):
        if code := find_code(detail.get("productOrService"), codes.NDC):
            quantity = detail.get("quantity") or {}
            drugs.append(
                (
                    code.replace("-", ""),
                    to_decimal(quantity.get("value")),
                    quantity.get("code") or quantity.get("unit", ""),
                )
            )
    return drugs


def _wrong_drug(line: LineView) -> str:
    return next((ndc for ndc, _, _ in _find_drugs(line) if not _NDC(ndc)), "")


def _wrong_drug_quantity(line: LineView) -> str:
    return next((ndc for ndc, amount, unit in _find_drugs(line) if amount <= 0 or unit not in DRUG_UNITS), "")


def _lacks_text(view: ClaimView) -> Iterable[Hit]:
    unlisted = view.around.site.unlisted
    return [
        Hit(e.index, e.code) for e in view.lines if e.code in unlisted and not e.item["productOrService"].get("text")
    ]


def _by_day(view: ClaimView) -> list[list[LineView]]:
    """The lines of one day and rendering provider together: NCCI edits look at no others."""
    groups: dict[tuple[object, str], list[LineView]] = {}
    for line in view.lines:
        if line.first and line.code:
            groups.setdefault((line.first, line.rendering), []).append(line)
    return list(groups.values())


def _find_pairs(view: ClaimView, indicator: str) -> Iterator[Hit]:
    """Lines whose code is column 2 of an edit with a line of the same day; indicator 9 is no edit any more."""
    loaded = view.around.code_sets.ptp
    for lines in _by_day(view) if loaded else ():
        for one in {line.code: line for line in lines}.values():
            for two in lines:
                if one.code != two.code and _has_pair(view, one, two, indicator):
                    yield Hit(two.index, f"{one.code} and {two.code}")


def _has_pair(view: ClaimView, one: LineView, two: LineView, indicator: str) -> bool:
    if two.first is None:
        return False
    rows = find_rows(view.around.code_sets.ptp, f"{one.code}+{two.code}", two.first)
    distinct = DISTINCT & {*one.modifiers, *two.modifiers}
    return any(row[0] == indicator for row in rows) and not (indicator == "1" and distinct)


def _sum_units(lines: Sequence[LineView]) -> dict[str, tuple[LineView, Decimal]]:
    sums: dict[str, tuple[LineView, Decimal]] = {}
    for line in lines:
        first, total = sums.get(line.code, (line, Decimal(0)))
        sums[line.code] = (first, total + line.units)
    return sums


def _many_units(view: ClaimView, indicator: str) -> Iterator[Hit]:
    """Adjudication indicator 1 limits the units of a line, 2 and 3 those of a day."""
    loaded = view.around.code_sets.mue
    for lines in _by_day(view) if loaded else ():
        counts = [(e, e.units) for e in lines] if indicator == "1" else list(_sum_units(lines).values())
        for line, units in counts:
            for row in find_rows(loaded, line.code, line.first) if line.first else ():
                if row[1] == indicator and units > to_decimal(row[0]):
                    yield Hit(line.index, f"{units.normalize():f} units of {line.code}, {row[0]} allowed")


CHECKS: dict[str, Find] = {
    "code-form": _lines(lambda line: "" if _CODE(line.code) else line.code or "nothing"),
    "code-validity": _unknown_code,
    "code-text": _lacks_text,
    "modifier-count": _lines(lambda line: len(line.modifiers) > 4),
    "modifier-form": _lines(_wrong_modifier),
    "modifier-validity": _unknown_modifier,
    "modifier-repeated": _lines(lambda line: len(set(line.modifiers)) < len(line.modifiers)),
    "modifier-25-place": _lines(
        lambda line: "25" in line.modifiers and not is_evaluation(line.code) and not line.code.startswith(("99", "G"))
    ),
    "modifier-25-missing": _lacks_25,
    "modifier-sides": _lines(lambda line: {"LT", "RT"} <= set(line.modifiers)),
    "units": _lines(lambda line: not 0 < line.units < 100000),
    "place-missing": _lines(lambda line: not line.place),
    "place-validity": _lines(lambda line: line.place if line.place not in PLACES else ""),
    "service-date": _lines(lambda line: line.first is None),
    "service-period": _lines(lambda line: line.first and line.last and line.last < line.first),
    "service-future": _in_future,
    "pointer-missing": _lines(lambda line: not line.item.get("diagnosisSequence")),
    "pointer-count": _lines(lambda line: len(line.item.get("diagnosisSequence", ())) > 4),
    "pointer-target": _wrong_pointers,
    "line-repeated": _repeats,
    "clia": _lacks_clia,
    "drug-missing": _lines(lambda line: line.code.startswith("J") and not _find_drugs(line)),
    "drug-form": _lines(_wrong_drug),
    "drug-quantity": _lines(_wrong_drug_quantity),
    "ptp": lambda view: _find_pairs(view, "0"),
    "ptp-modifier": lambda view: _find_pairs(view, "1"),
    "mue-line": lambda view: _many_units(view, "1"),
    "mue-day": lambda view: _many_units(view, "2"),
    "mue-day-clinical": lambda view: _many_units(view, "3"),
}
