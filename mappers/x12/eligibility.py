"""271 loops to answers in plain terms, one for each subscriber or dependent asked about (005010X279A1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from mappers.x12.loop import Loop, to_decimal
from mappers.x12.reader import Loops
from mappers.x12.remittance import Entity, to_date, to_period
from mappers.x12.segment import Segment

PERIOD_DATES = ("346", "347", "291", "307", "348", "349")


class Rejection(NamedTuple):
    """AAA: where it stands, AAA03 (reason) and AAA04 (what to do)."""

    loop: str
    reason: str
    follow_up: str


@dataclass(frozen=True, slots=True)
class Benefit:
    """An EB with what stands below it; `service_types` are the repetitions of EB03, `procedure` EB13."""

    code: str
    level: str
    service_types: tuple[str, ...]
    insurance_type: str
    plan: str
    period: str
    amount: Decimal | None
    percent: Decimal | None
    quantity_kind: str
    quantity: Decimal | None
    authorization: str
    network: str
    procedure: tuple[str, ...]
    messages: tuple[str, ...]
    dates: Mapping[str, tuple[date | None, date | None]]
    references: Mapping[str, str]
    entities: tuple[tuple[str, Entity], ...]
    delivery: tuple[str, ...]
    rejections: tuple[Rejection, ...]
    segment: Segment


@dataclass(frozen=True, slots=True)
class EligibilityAnswer:
    """What the payer says of one person. `traces` are TRN02 with TRN01 2 (ours) first; `dependent`: loop 2000D."""

    traces: tuple[str, ...]
    person: Entity
    subscriber: Entity
    dependent: bool
    birth_date: date | None
    payer: Entity
    dates: Mapping[str, tuple[date | None, date | None]]
    references: Mapping[str, str]
    benefits: tuple[Benefit, ...]
    rejections: tuple[Rejection, ...]

    @property
    def active(self) -> bool | None:
        """In force by EB01 1–5, not by 6–8, of service type 30 or none only; None where nothing says."""
        overall = [each for each in self.benefits if not each.service_types or "30" in each.service_types]
        codes = {each.code for each in overall}
        if codes & set("12345"):
            return True
        return False if codes & set("678") else None


def list_changes(answer: EligibilityAnswer, member_id: str) -> list[str]:
    """What differs from the coverage as it is known here, a sentence each: not in force, another number or payer."""
    changes = ["The payer says that the coverage is not in force."] if answer.active is False else []
    told = answer.subscriber.id
    if told and member_id and told.strip().upper() != member_id.strip().upper():
        changes.append(f"The payer knows the member by another number: `{told}` instead of `{member_id}`.")
    others = [each for benefit in answer.benefits if benefit.code == "R" for each in benefit.entities]
    names = [f"{entity.name} {entity.id}".strip() for kind, entity in others if kind not in ("IL", "QC")]
    if any(benefit.code == "R" for benefit in answer.benefits):
        changes.append("The payer names another payer" + (f": {', '.join(dict.fromkeys(names))}." if names else "."))
    return changes


def read_271(loops: Loops) -> tuple[EligibilityAnswer, ...]:
    """An answer for each person asked about; one without a person where a level above refuses."""
    answers = []
    for source in loops.root.loops("2000A"):
        payer, above = (
            _read_entity(source.loop("2100A")),
            (*_read_rejections(source), *_read_rejections(source.loop("2100A"))),
        )
        people: list[EligibilityAnswer] = []
        for receiver in source.loops("2000B"):
            rejections = (*above, *_read_rejections(receiver.loop("2100B")))
            people += _read_people(receiver, payer, rejections)
        answers += people or ([_make_answer(Loop(""), Loop(""), payer, Entity(), above)] if above else [])
    return tuple(answers)


def _read_people(receiver: Loop, payer: Entity, rejections: tuple[Rejection, ...]) -> Iterator[EligibilityAnswer]:
    subscribers = receiver.loops("2000C")
    if not subscribers and rejections:
        yield _make_answer(Loop(""), Loop(""), payer, Entity(), rejections)
    for level in subscribers:
        name = level.loop("2100C")
        subscriber = _read_entity(name)
        dependents = level.loops("2000D")
        own = (*rejections, *_read_rejections(name))
        if not dependents or level.loops("2110C"):
            yield _make_answer(level, name, payer, subscriber, own)
        for inner in dependents:
            inner_name = inner.loop("2100D")
            answer = _make_answer(inner, inner_name, payer, subscriber, (*own, *_read_rejections(inner_name)))
            yield answer if answer.traces else replace(answer, traces=_read_traces(level))


def _make_answer(
    level: Loop, name: Loop, payer: Entity, subscriber: Entity, rejections: tuple[Rejection, ...]
) -> EligibilityAnswer:
    benefits = tuple(_read_benefit(loop) for loop in level.loops("2110C", "2110D"))
    return EligibilityAnswer(
        _read_traces(level),
        _read_entity(name),
        subscriber,
        level.id == "2000D",
        to_date(name.segment("DMG").at(2)),
        payer,
        _read_dates(name),
        {ref.at(1): ref.at(2) for ref in name.segments("REF")},
        benefits,
        (*rejections, *(rejection for benefit in benefits for rejection in benefit.rejections)),
    )


def _read_traces(level: Loop) -> tuple[str, ...]:
    return tuple(trn.at(2) for trn in sorted(level.segments("TRN"), key=lambda trn: trn.at(1) != "2"))


def _read_entity(loop: Loop) -> Entity:
    nm1 = loop.segment("NM1")
    return Entity(nm1.at(3), nm1.at(4), nm1.at(8), nm1.at(9))


def _read_rejections(loop: Loop) -> tuple[Rejection, ...]:
    return tuple(Rejection(loop.id, aaa.at(3), aaa.at(4)) for aaa in loop.segments("AAA"))


def _read_dates(loop: Loop) -> dict[str, tuple[date | None, date | None]]:
    return {dtp.at(1): to_period(dtp.at(2), dtp.at(3)) for dtp in loop.segments("DTP")}


def _read_benefit(loop: Loop) -> Benefit:
    eb = loop.segment("EB")
    entities = [inner.segment("NM1") for header in loop.content if isinstance(header, Loop) for inner in header.content
                if isinstance(inner, Loop) and inner.id.startswith("2120")]  # fmt: skip
    return Benefit(
        eb.at(1),
        eb.at(2),
        eb.repeats(3),
        eb.at(4),
        eb.at(5),
        eb.at(6),
        to_decimal(eb.at(7)),
        to_decimal(eb.at(8)),
        eb.at(9),
        to_decimal(eb.at(10)),
        eb.at(11),
        eb.at(12),
        eb.parts(13),
        tuple(msg.at(1) for msg in loop.segments("MSG")),
        _read_dates(loop),
        {ref.at(1): ref.at(2) for ref in loop.segments("REF")},
        tuple((nm1.at(1), Entity(nm1.at(3), nm1.at(4), nm1.at(8), nm1.at(9))) for nm1 in entities),
        tuple("*".join(hsd.elements[1:]) for hsd in loop.segments("HSD")),
        _read_rejections(loop),
        eb,
    )
