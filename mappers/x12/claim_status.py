"""277CA claim acknowledgement and 277 claim status to plain statuses and ClaimResponse (005010X214, 005010X212)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from mappers.x12 import codes
from mappers.x12.loop import Loop, to_decimal
from mappers.x12.reader import Loops
from mappers.x12.remittance import to_date, to_period
from mappers.x12.resource import drop_empty, make_concept
from mappers.x12.segment import Segment

Level = Literal["batch", "provider", "claim", "line"]

OUTCOMES: Mapping[str, str] = {
    # Claim status category codes (STC01-1) to what they mean for the claim; of a letter where the code is not listed
    "A0": "forwarded", "A1": "accepted", "A2": "accepted", "A3": "rejected", "A4": "not-found", "A5": "split",
    "A6": "rejected", "A7": "rejected", "A8": "rejected", "P": "pending", "F": "finalized", "R": "requested",
    "E": "error", "D0": "not-found", "DR": "rejected",
}  # fmt: skip


class StatusCode(NamedTuple):
    """STC01, STC10 or STC11: category, status, entity."""

    category: str
    status: str
    entity: str = ""

    @property
    def outcome(self) -> str:
        return OUTCOMES.get(self.category) or OUTCOMES.get(self.category[:1], "unknown")


@dataclass(frozen=True, slots=True)
class ClaimStatus:
    """One status. `trace` is TRN02: of a batch BHT03 of the 837, of a claim in a 277CA its control number.

    `action` is STC03 (WQ accepted, U rejected); `rejected_by` names the level whose U decides, also one above; `amount`
    is STC04, `paid` STC05. `line` is the procedure, `line_number` the line control number.
    """

    level: Level
    trace: str
    control_number: str
    payer_number: str
    clearinghouse_number: str
    name: str
    given: str
    member_id: str
    codes: tuple[StatusCode, ...]
    effective: date | None
    action: str
    rejected_by: str
    amount: Decimal | None
    paid: Decimal | None
    start: date | None
    end: date | None
    text: str
    line: tuple[str, ...]
    line_number: str
    segment: Segment

    @property
    def outcome(self) -> str:
        """`rejected` where a level above or this one is refused, else that of the first code."""
        if self.rejected_by:
            return "rejected"
        return self.codes[0].outcome if self.codes else "unknown"


def read_statuses(loops: Loops) -> tuple[ClaimStatus, ...]:
    """All statuses of a 277CA or 277, from batch to line, in their order; a refused batch or provider cascades."""
    acknowledges = loops.table.version == "005010X214"
    return tuple(_walk(loops.root, acknowledges, ""))


_LEVELS: dict[str, Level] = {"2200B": "batch", "2200C": "provider", "2200D": "claim", "2200E": "claim"}


def _walk(loop: Loop, acknowledges: bool, rejected_by: str) -> Iterator[ClaimStatus]:
    """The statuses of a level, then those below it; `rejected_by` comes from above."""
    name = next((inner.segment("NM1") for inner in loop.loops(*_NAMES)), Segment(("",)))
    for inner in loop.loops(*_LEVELS):
        level = _LEVELS[inner.id]
        for status in _read_status(inner, level, name, acknowledges, rejected_by):
            if level in ("batch", "provider") and status.action == "U":
                rejected_by = rejected_by or level
            yield status
    for inner in loop.loops("2000A", "2000B", "2000C", "2000D", "2000E"):
        yield from _walk(inner, acknowledges, rejected_by)


_NAMES = ("2100B", "2100C", "2100D", "2100E")


def _read_status(
    loop: Loop, level: Level, name: Segment, acknowledges: bool, rejected_by: str
) -> Iterator[ClaimStatus]:
    trace = loop.segment("TRN").at(2)
    control_number = trace if acknowledges and level == "claim" else loop.value("REF", "EJ")
    for stc in loop.segments("STC"):
        yield _make_status(loop, level, (trace, control_number), name, stc, rejected_by)
    for inner in loop.loops("2220D", "2220E"):
        for stc in inner.segments("STC"):
            line = _make_status(loop, "line", (trace, control_number), name, stc, rejected_by)
            yield _to_line(line, inner)


def _make_status(
    loop: Loop, level: Level, numbers: tuple[str, str], name: Segment, stc: Segment, rejected_by: str
) -> ClaimStatus:
    status_codes = [StatusCode(stc.at(n, 1), stc.at(n, 2), stc.at(n, 3)) for n in (1, 10, 11) if stc.at(n)]
    service = loop.segment("DTP", "472")
    start, end = to_period(service.at(2), service.at(3))
    return ClaimStatus(
        level,
        *numbers,
        loop.value("REF", "1K"),
        loop.value("REF", "D9"),
        name.at(3),
        name.at(4),
        name.at(9),
        tuple(status_codes),
        to_date(stc.at(2)),
        stc.at(3),
        rejected_by or (level if stc.at(3) == "U" else ""),
        to_decimal(stc.at(4)),
        to_decimal(stc.at(5)),
        start,
        end,
        stc.at(12),
        (),
        "",
        stc,
    )


def _to_line(status: ClaimStatus, loop: Loop) -> ClaimStatus:
    svc, service = loop.segment("SVC"), loop.segment("DTP", "472")
    start, end = to_period(service.at(2), service.at(3))
    number = loop.value("REF", "FJ")
    return replace(status, line=svc.parts(1), line_number=number, start=start or status.start, end=end or status.end)


@dataclass(frozen=True, slots=True)
class StatusContext:
    """Whom a status was matched to, as references, and when its response is made."""

    request: str
    patient: str
    insurer: str
    created: str


def status_to_claim_response(status: ClaimStatus, context: StatusContext) -> dict[str, Any]:
    """A ClaimResponse, outcome `error` with the codes where the claim is refused, else `queued`."""
    failed = status.outcome in ("rejected", "error", "not-found")
    return drop_empty(
        {
            "resourceType": "ClaimResponse",
            "identifier": [{"system": codes.PAYER_CONTROL_NUMBER, "value": status.payer_number}]
            if status.payer_number
            else [],
            "status": "active",
            "type": make_concept(codes.CLAIM_TYPE, "professional"),
            "use": "claim",
            "patient": {"reference": context.patient},
            "created": context.created,
            "insurer": {"reference": context.insurer},
            "request": {"reference": context.request},
            "outcome": "error" if failed else "queued",
            "disposition": describe_status(status),
            "error": [{"code": _code_to_concept(code)} for code in status.codes] if failed else [],
        }
    )


def describe_status(status: ClaimStatus) -> str:
    """One line: what became of the claim and by which codes, with the payer's own text where it sent one."""
    code_list = ", ".join("/".join(filter(None, code)) for code in status.codes)
    by = f" by the {status.rejected_by}'s status" if status.rejected_by in ("batch", "provider") else ""
    text = f": {status.text}" if status.text else ""
    return f"{status.outcome.capitalize()}{by} ({code_list}){text}"


def _code_to_concept(code: StatusCode) -> dict[str, Any]:
    coding = [
        {"system": codes.CLAIM_STATUS, "code": code.status},
        {"system": codes.CLAIM_STATUS_CATEGORY, "code": code.category},
    ]
    return {"coding": [each for each in coding if each["code"]]}
