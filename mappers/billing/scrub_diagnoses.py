"""Scrub rules for diagnoses: number, form, validity at the date of service, sex and age (837P 2300 HI)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import date

from mappers.billing.claim_view import ClaimView
from mappers.billing.code_sets import find_rows
from mappers.billing.fields import to_day
from mappers.billing.packing import MAX_DIAGNOSES
from mappers.billing.scrub_rule import Find, Hit, hit_when

_FORM = re.compile(r"[A-Z][0-9][0-9A-Z](?:[0-9A-Z]{1,4})?", re.ASCII).fullmatch

SEXES: tuple[tuple[str, str, str], ...] = (
    # gender that the range of codes is for: first code, last code (compared by their beginning)
    ("female", "C51", "C58"), ("female", "N70", "N98"),
    ("female", "O00", "O9A"), ("female", "Z33", "Z34"), ("female", "Z3A", "Z3A"),
    ("male", "C60", "C63"), ("male", "N40", "N53"),
    ("female", "56405", "59899"), ("male", "54000", "55899"),
)  # fmt: skip

AGES: tuple[tuple[str, int, int], ...] = (
    # code: youngest and oldest whole year at the service
    ("99381", 0, 0), ("99382", 1, 4), ("99383", 5, 11), ("99384", 12, 17), ("99385", 18, 39), ("99386", 40, 64),
    ("99387", 65, 130),
    ("99391", 0, 0), ("99392", 1, 4), ("99393", 5, 11), ("99394", 12, 17), ("99395", 18, 39), ("99396", 40, 64),
    ("99397", 65, 130),
)  # fmt: skip
_AGES = {code: (low, high) for code, low, high in AGES}


def find_sex(code: str) -> str:
    """`female` or `male` for a code that is for one sex alone, else ``""``."""
    for sex, first, last in SEXES:
        if code[0].isdigit() == first[0].isdigit() and first <= code[: len(first)] <= last:
            return sex
    return ""


def find_age(born: date, day: date) -> int:
    """Whole years at a day."""
    return day.year - born.year - ((day.month, day.day) < (born.month, born.day))


def find_first_day(view: ClaimView) -> date:
    """The first day of service, today where no line has one."""
    return min((line.first for line in view.lines if line.first), default=view.around.today)


def _wrong_sequence(view: ClaimView) -> Iterable[Hit]:
    numbers = [number for number, _ in view.diagnoses]
    return hit_when(numbers != list(range(1, len(numbers) + 1)))


def _find_repeated(view: ClaimView) -> Iterator[Hit]:
    seen: set[str] = set()
    for index, (_, code) in enumerate(view.diagnoses):
        if code and code in seen:
            yield Hit(index, code)
        seen.add(code)


def _not_in_force(view: ClaimView) -> Iterable[Hit]:
    loaded, day = view.around.code_sets.icd_10_cm, find_first_day(view)
    if loaded is None:
        return []
    return [Hit(n, c) for n, (_, c) in enumerate(view.diagnoses) if _FORM(c) and not any(find_rows(loaded, c, day))]


def _not_billable(view: ClaimView) -> Iterable[Hit]:
    loaded, day = view.around.code_sets.icd_10_cm, find_first_day(view)
    for index, (_, code) in enumerate(view.diagnoses):
        rows = list(find_rows(loaded, code, day))
        if rows and all(row[0] == "0" for row in rows):
            yield Hit(index, code)


def _other_sex(view: ClaimView) -> Iterable[Hit]:
    gender = view.patient.get("gender")
    if gender not in ("male", "female"):
        return []
    return [Hit(n, code) for n, (_, code) in enumerate(view.diagnoses) if code and find_sex(code) not in ("", gender)]


def _procedure_other_sex(view: ClaimView) -> Iterable[Hit]:
    gender = view.patient.get("gender")
    if gender not in ("male", "female"):
        return []
    return [Hit(line.index, line.code) for line in view.lines if line.code and find_sex(line.code) not in ("", gender)]


def _other_age(view: ClaimView) -> Iterator[Hit]:
    born = to_day(str(view.patient.get("birthDate", "")))
    for line in view.lines:
        if born and line.first and line.code in _AGES:
            low, high = _AGES[line.code]
            if not low <= find_age(born, line.first) <= high:
                yield Hit(line.index, line.code)


def _newborn(view: ClaimView) -> Iterable[Hit]:
    born = to_day(str(view.patient.get("birthDate", "")))
    old = born is not None and (find_first_day(view) - born).days > 365
    return [Hit(n, code) for n, (_, code) in enumerate(view.diagnoses) if old and code.startswith("P")]


CHECKS: dict[str, Find] = {
    "diagnosis-missing": lambda view: hit_when(not view.diagnoses),
    "diagnosis-count": lambda view: hit_when(len(view.diagnoses) > MAX_DIAGNOSES),
    "diagnosis-sequence": _wrong_sequence,
    "diagnosis-repeated": _find_repeated,
    "diagnosis-form": lambda view: [Hit(n, code) for n, (_, code) in enumerate(view.diagnoses) if not _FORM(code)],
    "diagnosis-validity": _not_in_force,
    "diagnosis-header": _not_billable,
    "diagnosis-external-cause": lambda view: hit_when(
        view.diagnoses[:1] != () and view.diagnoses[0][1][:1] in ("V", "W", "X", "Y"),
        view.diagnoses[0][1] if view.diagnoses else "",
    ),
    "diagnosis-sex": _other_sex,
    "diagnosis-newborn": _newborn,
    "service-sex": _procedure_other_sex,
    "service-age": _other_age,
}
