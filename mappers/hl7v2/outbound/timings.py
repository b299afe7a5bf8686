"""Dosage and its Timing become TQ1; what the repeat patterns of HL70335 do not say is told."""

from __future__ import annotations

from typing import Any

from mappers.hl7v2.changes import Resource
from mappers.hl7v2.er7 import Composite
from mappers.hl7v2.outbound.codes import Part, compose, find_name, write_concept
from mappers.hl7v2.outbound.fields import Fields
from mappers.hl7v2.outbound.quantities import write_decimal
from mappers.hl7v2.outbound.receiver import Writing
from mappers.hl7v2.timings import UNITS, read_pattern, read_patterns

COMMON = ("doseAndRate", "route", "site", "method", "patientInstruction", "maxDosePerPeriod", "additionalInstruction")
"""What several Dosages share when it is told once, in the segments beside TQ1."""


def write_timings(dosages: list[Resource], writing: Writing) -> list[Fields]:
    """A TQ1 for each Dosage, one without a Dosage; what a later one says as the first one is taken out of it.

    Where the doses of several differ, each stands in its TQ1-2.
    """
    first = dict(dosages[0]) if dosages else {}
    differ = any(each.get("doseAndRate") != first.get("doseAndRate") for each in dosages)
    for dosage in dosages[1:]:
        for name in COMMON:
            if dosage.get(name) == first.get(name) and not (differ and name == "doseAndRate"):
                dosage.pop(name, None)
    steps = []
    for number, dosage in enumerate(dosages or [{}], 1):
        tq1 = Fields("TQ1", writing)
        tq1.put(1, str(number))
        if len(dosages) > 1 and dosage.get("sequence") == number:
            dosage.pop("sequence")
        held = {name: dosage.pop(name) for name in (() if differ else ("doseAndRate",)) if name in dosage}
        _write_patterns(tq1, dosage, writing)
        _write_times(tq1, dosage)
        tq1.fill(dosage, "Dosage")
        dosage |= held
        steps.append(tq1)
    return steps


def _write_times(tq1: Fields, dosage: Resource) -> None:
    for time in dosage.get("timing", {}).get("repeat", {}).pop("timeOfDay", []):
        tq1.add(4, compose(str(time).replace(":", "")))


def _write_patterns(tq1: Fields, dosage: Resource, writing: Writing) -> None:
    """TQ1-3: the code of the Timing, or the pattern that means the same; PRN is a repetition of its own."""
    timing = dosage.get("timing", {})
    repeat = timing.get("repeat", {})
    concept = timing.get("code", {})
    code = str((concept.get("coding") or [{}])[0].get("code", ""))
    pattern = code or find_pattern(repeat)
    known = read_pattern(pattern)
    written = write_concept(concept, "", "TQ1-3", writing) if concept else None
    named: list[str] = [part[0] for part in written.parts] if written else []
    named += [""] * (9 - len(named))
    if not code:
        named[8], named[1] = named[8] or named[1], ""
        named[0] = pattern
        if not pattern:
            named[1], named[8] = named[8], ""
    if known and _names(named[2], known[0], writing):
        named[2] = ""
    if known:
        for name, value in known[1].items():
            if repeat.get(name, 1 if name == "frequency" else None) == value:
                repeat.pop(name, None)
    tq1.add(3, _compose_pattern(named, repeat, bool(known)))
    if dosage.get("asNeededBoolean") is True:
        tq1.add(3, compose("PRN"))
    if "asNeededBoolean" in dosage:
        dosage.pop("asNeededBoolean")  # without PRN it is not as needed


def _names(name: str, system: str, writing: Writing) -> bool:
    return name == find_name(system, writing.receiver.partner)[0]


def _compose_pattern(named: list[str], repeat: Resource, known: bool) -> Composite | None:
    """An RPT: the code, and period, unit and event where the code does not say them."""
    while len(named) > 1 and not named[-1]:
        named.pop()
    parts: list[Part] = [named, "", "", "", "", "", "", ""]
    if not known and repeat.get("frequency", 1) == 1 and "period" in repeat and repeat.get("periodUnit"):
        parts[4], parts[5] = write_decimal(repeat.pop("period")), repeat.pop("periodUnit")
        repeat.pop("frequency", None)
    if len(repeat.get("when", [])) == 1:
        parts[7] = repeat.pop("when")[0]
    return compose(*parts)


def find_pattern(repeat: Resource) -> str:
    """The code of HL70335 for a Timing.repeat, "" where none means the same."""
    if repeat.keys() & {"frequencyMax", "periodMax"}:
        return ""
    told = {"frequency": 1, **repeat} if "period" in repeat else repeat
    fitting = [(len(means), code) for code, (_, means) in read_patterns().items() if _says(told, means)]
    if fitting:
        return max(fitting, key=lambda each: each[0])[1]
    frequency, period, unit = told.get("frequency", 0), told.get("period", 0), told.get("periodUnit")
    letter = next((letter for letter, name in UNITS.items() if name == unit), "")
    if frequency == 1 and letter and _is_whole(period):
        return f"Q{int(period)}{letter}"
    if period == 1 and unit == "d" and _is_whole(frequency):
        return f"{frequency}ID"
    return ""


def _says(told: Resource, means: Resource) -> bool:
    return bool(means) and all(told.get(name) == value for name, value in means.items())


def _is_whole(number: Any) -> bool:
    return bool(0 < number < 100 and number == int(number))
