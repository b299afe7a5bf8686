"""What a rule of splitting can ask of a claim and its lines, and how conditions compare it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from mappers.billing.claim_view import ClaimView, InsuranceView, LineView, find_taxonomy, resolve_provider
from mappers.billing.fields import find_code, find_reference, to_day, to_decimal
from mappers.billing.parties import find_npi
from mappers.billing.scrub_diagnoses import find_age


@dataclass(frozen=True, slots=True)
class Subject:
    """A line as the rules see it: in its claim, with the payer that it is to go to now."""

    view: ClaimView
    line: LineView
    focal: InsuranceView | None


Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

Fact = Callable[[Subject], tuple[str, ...]]


def _member(role: str) -> Fact:
    """The NPIs of the care team's members in a role."""
    return lambda subject: tuple(find_npi(party) for _, each, party in subject.view.team if each == role)


def _rendering_party(subject: Subject) -> dict[str, object]:
    return resolve_provider({"reference": subject.line.rendering}, subject.view.resources, subject.view.claim)


def _group(subject: Subject) -> tuple[str, ...]:
    classes = subject.focal.coverage.get("class", ()) if subject.focal else ()
    return tuple(str(each.get("value", "")) for each in classes if find_code(each.get("type")) == "group")


def _diagnoses(subject: Subject) -> tuple[str, ...]:
    by_number = dict(subject.view.diagnoses)
    return tuple(by_number.get(number, "") for number in subject.line.item.get("diagnosisSequence", ()))


def _age(subject: Subject) -> tuple[str, ...]:
    born = to_day(str(subject.view.patient.get("birthDate", "")))
    return (str(find_age(born, subject.line.first)),) if born and subject.line.first else ()


def _information(subject: Subject) -> tuple[str, ...]:
    """The codes of the claim's supporting information: demonstration numbers, accident, session kinds."""
    entries = subject.view.claim.get("supportingInfo", ())
    return tuple(find_code(each.get("code")) or find_code(each.get("category")) for each in entries)


def _encounter(subject: Subject) -> tuple[str, ...]:
    return tuple(find_reference(each) for each in subject.line.item.get("encounter", ()))


def _appointment(subject: Subject) -> tuple[str, ...]:
    visits = (subject.view.resources.get(reference) or {} for reference in _encounter(subject))
    return tuple(find_reference(each) for visit in visits for each in visit.get("appointment", ()))


FACTS: dict[str, Fact] = {
    "claim.lines": lambda s: (str(len(s.view.lines)),),
    "claim.total": lambda s: (str(sum(line.charge for line in s.view.lines)),),
    "claim.referral": lambda s: (find_reference(s.view.claim.get("referral")),),
    "claim.accident": lambda s: (find_code((s.view.claim.get("accident") or {}).get("type")),),
    "claim.information": _information,
    "coverage.payer": lambda s: (s.focal.payer_id if s.focal else "",),
    "coverage.kind": lambda s: (find_code(s.focal.coverage.get("type")) if s.focal else "",),
    "coverage.group": _group,
    "coverage.reference": lambda s: (find_reference(s.focal.element.get("coverage")) if s.focal else "",),
    "coverage.count": lambda s: (str(len(s.view.insurance)),),
    "patient.age": _age,
    "patient.gender": lambda s: (str(s.view.patient.get("gender", "")),),
    "provider.billing": lambda s: (find_reference(s.view.claim.get("provider")),),
    "provider.rendering": lambda s: (find_npi(_rendering_party(s)),),
    "provider.specialty": lambda s: (find_taxonomy(_rendering_party(s)),),
    "provider.referring": _member("referring"),
    "provider.supervising": _member("supervisor"),
    "place.code": lambda s: (s.line.place,),
    "place.facility": lambda s: (find_reference(s.view.claim.get("facility")),),
    "line.code": lambda s: (s.line.code,),
    "line.modifier": lambda s: s.line.modifiers,
    "line.diagnosis": _diagnoses,
    "line.units": lambda s: (str(s.line.units),),
    "line.charge": lambda s: (str(s.line.charge),),
    "line.date": lambda s: (str(s.line.first or ""),),
    "line.year": lambda s: (str(s.line.first.year) if s.line.first else "",),
    "line.weekday": lambda s: (WEEKDAYS[s.line.first.weekday()] if s.line.first else "",),
    "line.encounter": _encounter,
    "line.appointment": _appointment,
}

NUMBERS = frozenset(
    ("claim.lines", "claim.total", "coverage.count", "patient.age", "line.units", "line.charge", "line.year")
)


class Model(BaseModel):
    """A part of a rule set: unknown members are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Condition(Model):
    """A fact compared with values: `in`, `starts` (a beginning), `list` (a named one), or `from` and `to`."""

    fact: Text
    values: tuple[str, ...] = Field(default=(), alias="in")
    starts: tuple[Text, ...] = ()
    list_name: str = Field(default="", alias="list")
    low: str = Field(default="", alias="from")
    high: str = Field(default="", alias="to")

    @model_validator(mode="after")
    def check(self) -> Condition:
        """One way of comparing, of a fact that exists; numbers have numeric ranges."""
        if self.fact not in FACTS:
            raise ValueError(f"there is no fact `{self.fact}`; the facts are {', '.join(sorted(FACTS))}")
        ways = [bool(self.values), bool(self.starts), bool(self.list_name), bool(self.low or self.high)]
        if sum(ways) != 1:
            raise ValueError("a condition has exactly one of `in`, `starts`, `list`, or `from` with `to`")
        if self.fact in NUMBERS:
            if self.starts or self.list_name:
                raise ValueError(f"`{self.fact}` is a number: use `in`, or `from` with `to`")
            for text in (*self.values, self.low, self.high):
                check_number(self.fact, text)
        numbers = self.fact in NUMBERS
        upside_down = (
            Decimal(self.low) > Decimal(self.high) if numbers and self.low and self.high else self.low > self.high
        )
        if self.low and self.high and upside_down:
            raise ValueError(f"`from` {self.low} is above `to` {self.high}")
        return self


def check_number(fact: str, text: str) -> None:
    """A number, or nothing; ValueError else."""
    try:
        finite = not text or Decimal(text).is_finite()
    except InvalidOperation:
        finite = False
    if not finite:
        raise ValueError(f"`{fact}` is compared with numbers, and `{text}` is none")


def read_fact(name: str, subject: Subject) -> tuple[str, ...]:
    """The values of a fact; some have several, such as modifiers."""
    return FACTS[name](subject)


def holds(condition: Condition, subject: Subject, lists: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether any value of the fact meets the condition. A list may hold ranges such as `80047-89398`."""
    values = read_fact(condition.fact, subject)
    if condition.fact in NUMBERS:
        return any(_is_between(condition, to_decimal(value)) for value in values)
    if condition.values:
        return any(value in condition.values for value in values)
    if condition.starts:
        return any(value.startswith(condition.starts) for value in values)
    if condition.list_name:
        return any(_is_listed(value, lists[condition.list_name]) for value in values)
    low, high = condition.low, condition.high or "\U0010ffff"
    return any(value != "" and low <= value and (value <= high or value.startswith(high)) for value in values)


def _is_between(condition: Condition, value: Decimal) -> bool:
    if condition.values:
        return value in [Decimal(each) for each in condition.values]
    above = not condition.low or Decimal(condition.low) <= value
    return above and (not condition.high or value <= Decimal(condition.high))


def _is_listed(value: str, entries: tuple[str, ...]) -> bool:
    for entry in entries:
        first, dash, last = entry.partition("-")
        if value == entry or (dash and first <= value <= last):
            return True
    return False
