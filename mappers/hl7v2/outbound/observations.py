"""Observation becomes OBX and its notes: OBX-2 and OBX-5 by the type of value[x]."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from mappers.hl7v2.changes import Resource
from mappers.hl7v2.clinical import ABSENT, read_range
from mappers.hl7v2.er7 import Composite, Segment
from mappers.hl7v2.outbound.codes import compose, find_code, read_first_code, write_concept
from mappers.hl7v2.outbound.fields import Fields
from mappers.hl7v2.outbound.quantities import take_unit, take_value, write_decimal
from mappers.hl7v2.outbound.receiver import Writing
from mappers.hl7v2.outbound.times import write_date_time, write_period, write_time

Value = tuple[str, Composite | None]


def write_obx(number: int, observation: Resource, counts: Counter[str], writing: Writing) -> list[Segment]:
    """Takes out of a copy of an Observation what OBX and NTE say. `counts` counts the codes of the report."""
    obx = Fields("OBX", writing)
    obx.put(1, str(number))
    _take_value(obx, observation, writing)
    _take_status(obx, observation, writing)
    _take_range(obx, observation)
    obx.fill(observation, "Observation")
    code = obx.segment().text(3)
    counts[code] += 1
    if counts[code] > 1:
        obx.put(4, str(counts[code]))
    return [obx.segment(), *write_notes(observation, writing)]


def write_notes(resource: Resource, writing: Writing) -> list[Segment]:
    """An NTE for each note of a resource."""
    notes = []
    for index, note in enumerate(resource.get("note", []), 1):
        nte = Fields("NTE", writing)
        nte.put(1, str(index))
        nte.put(3, note.pop("text", ""))
        notes.append(nte.fill(note, "note").segment())
    return notes


def _take_status(obx: Fields, observation: Resource, writing: Writing) -> None:
    """OBX-11; N and X say too why there is no value."""
    partner = writing.receiver.partner
    status = observation.get("status", "")
    code = find_code(status, "", "ObservationResultStatusCodesInterpretation", "OBX-11", partner)
    told = read_first_code(observation.get("dataAbsentReason"))
    absent = next((mark for mark, reason in ABSENT.items() if reason == told), "")
    if (absent, status) in (("N", "final"), ("X", "cancelled")) and not obx.values.get(5):
        code = absent
        observation.pop("dataAbsentReason")
    obx.put(11, code)
    if code or status == "unknown":
        observation.pop("status", None)


def _take_value(obx: Fields, observation: Resource, writing: Writing) -> None:
    """OBX-2, OBX-5 and OBX-6. A value that R4 and v2 do not both have is sent as the nearest, and told."""
    for name, write in VALUES.items():
        if name not in observation and f"_{name}" not in observation:
            continue
        kind, value = write(obx, observation, name, writing)
        if value:
            obx.put(2, kind)
            obx.add(5, value)
            if not isinstance(observation.get(name), dict):
                observation.pop(name, None)
        return


def _write_quantity(obx: Fields, observation: Resource, name: str, writing: Writing) -> Value:
    quantity = observation[name]
    if "value" not in quantity:
        return "", None
    number, mark = take_value(quantity), quantity.pop("comparator", "")
    obx.add(6, take_unit(quantity, writing))
    return ("SN", compose(mark, number)) if mark else ("NM", compose(number))


def _write_ratio(obx: Fields, observation: Resource, name: str, writing: Writing) -> Value:
    first, second = observation[name].get("numerator", {}), observation[name].get("denominator", {})
    if "value" not in first or "value" not in second:
        return "", None
    mark = first.pop("comparator", "")
    parts = (take_value(first), ":", take_value(second))
    obx.add(6, take_unit(first, writing))
    return "SN", compose(mark, *parts)


def _write_range(obx: Fields, observation: Resource, name: str, writing: Writing) -> Value:
    low, high = observation[name].get("low", {}), observation[name].get("high", {})
    units = [{key: each for key, each in side.items() if key != "value"} for side in (low, high)]
    if "value" not in low or "value" not in high or units[0] != units[1]:
        return "", None
    parts = (take_value(low), "-", take_value(high))
    obx.add(6, take_unit(low, writing))
    high.clear()
    return "SN", compose("", *parts)


def _write_concept(obx: Fields, observation: Resource, name: str, writing: Writing) -> Value:
    return "CWE" if writing.receiver.version >= "2.5" else "CE", write_concept(observation[name], "", "OBX-5", writing)


def _write_text(obx: Fields, observation: Resource, name: str, writing: Writing) -> Value:
    return "ST", compose(str(observation[name]))


def _write_moment(obx: Fields, observation: Resource, name: str, writing: Writing) -> Value:
    kind = "DTM" if writing.receiver.version >= "2.6" else "TS"
    return kind, compose(write_date_time(observation, name, writing))


def _write_time(obx: Fields, observation: Resource, name: str, writing: Writing) -> Value:
    return "TM", compose(write_time(observation, name))


def _write_period(obx: Fields, observation: Resource, name: str, writing: Writing) -> Value:
    return "DR", write_period(observation[name], writing)


def _write_integer(obx: Fields, observation: Resource, name: str, writing: Writing) -> Value:
    writing.tell(f"{name} of Observation/{observation.get('id', '')} is sent as a number without unit.")
    return "NM", compose(write_decimal(observation[name]))


def _write_boolean(obx: Fields, observation: Resource, name: str, writing: Writing) -> Value:
    writing.tell(f"{name} of Observation/{observation.get('id', '')} is sent as a code of HL70136, Y or N.")
    return "ID", compose("Y" if observation[name] else "N")


VALUES: dict[str, Callable[[Fields, Resource, str, Writing], Value]] = {
    "valueQuantity": _write_quantity,
    "valueCodeableConcept": _write_concept,
    "valueString": _write_text,
    "valueDateTime": _write_moment,
    "valueTime": _write_time,
    "valuePeriod": _write_period,
    "valueRange": _write_range,
    "valueRatio": _write_ratio,
    "valueInteger": _write_integer,
    "valueBoolean": _write_boolean,
}


def _take_range(obx: Fields, observation: Resource) -> None:
    """OBX-7: the text of the first range, or `low-high`, `>=low`, `<=high`; what the text does not say stays."""
    entry: Resource = next(iter(observation.get("referenceRange", [])), {})
    low, high = (_show(entry, name) for name in ("low", "high"))
    text = entry.get("text", "")
    if not text and (low or high):
        text = f"{low}-{high}" if low and high else f">={low}" if low else f"<={high}"
    if not text:
        return
    obx.put(7, text)
    entry.pop("text", None)
    said = read_range(text, {})
    unit = next(iter(obx.values.get(6, [])), None)
    for name in ("low", "high"):
        if name in said and name in entry and write_decimal(said[name]["value"]) == _show(entry, name):
            entry[name].pop("value")
            take_same_unit(entry[name], unit)


def take_same_unit(quantity: Resource, unit: Composite | None) -> None:
    """The unit of a range is that of OBX-6: its code or name there is said."""
    told = {value for part in (unit.parts if unit else ()) for value in part}
    if quantity.get("code", quantity.get("unit")) in told:
        for name in ("unit", "system", "code"):
            quantity.pop(name, None)


def _show(entry: Resource, name: str) -> str:
    value: Any = entry.get(name, {}).get("value")
    return "" if value is None else write_decimal(value)
