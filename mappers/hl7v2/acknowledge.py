"""Acknowledgements: MSH, MSA and ERR, and when which is sent.

https://www.hl7.eu/HL7v2x/v28/std28/ch02.html, sections 2.9 and 2.14.5 to 2.14.8. Before 2.5 ERR has one field with the
place and the condition of each error; since then ERR stands once for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from mappers.hl7v2.er7 import Composite, Message, Segment, parse_message, write_field, write_message
from mappers.hl7v2.escapes import Delimiters, escape_text
from mappers.hl7v2.issues import Issue, has_errors

CONDITION_TEXTS = {
    "0": "Message accepted",
    "100": "Segment sequence error",
    "101": "Required field missing",
    "102": "Data type error",
    "103": "Table value not found",
    "200": "Unsupported message type",
    "201": "Unsupported event code",
    "202": "Unsupported processing id",
    "203": "Unsupported version id",
    "204": "Unknown key identifier",
    "205": "Duplicate key identifier",
    "206": "Application record locked",
    "207": "Application internal error",
}
SEVERITIES = {"fatal": "F", "error": "E", "warning": "W", "information": "I"}
OLD_VERSIONS = frozenset({"2.1", "2.2", "2.3", "2.3.1", "2.4"})
LONGEST_LIST = 50

ACCEPT = {
    ("", True): True,
    ("", False): True,
    ("AL", True): True,
    ("AL", False): True,
    ("NE", True): False,
    ("NE", False): False,
    ("ER", True): False,
    ("ER", False): True,
    ("SU", True): True,
    ("SU", False): False,
}
"""Whether an acknowledgement is sent, by MSH-15 or MSH-16 and whether the message was taken."""


class Stamp(NamedTuple):
    """What an acknowledgement says of itself: its time, an aware datetime, and its control number."""

    now: datetime
    control: str


def find_code(issues: Sequence[Issue]) -> str:
    """AA, AE or AR by the issues of a message."""
    if any(issue.rejected and issue.severity in ("error", "fatal") for issue in issues):
        return "AR"
    return "AE" if has_errors(list(issues)) else "AA"


def choose_acknowledgements(message: Message, code: str, stored: bool) -> tuple[str, ...]:
    """The codes to send: one of AA, AE, AR in original mode; in enhanced mode (MSH-15 or 16 valued) first CA, CE or CR.

    `stored` says that the raw message is kept: CA is never sent without. What is rejected (AR) gets no CA.
    """
    accept, application = message.header.text(15).upper(), message.header.text(16).upper()
    if not accept and not application:
        return (code,)
    if stored and code == "AR":
        if ACCEPT.get((accept or "NE", False), True):
            return ("CR",)
        return ("AR",) if ACCEPT.get((application or "NE", False), True) else ()
    codes = []
    commit = "CA" if stored else ("CR" if code == "AR" else "CE")
    if ACCEPT.get((accept or "NE", stored), True):
        codes.append(commit)
    if stored and ACCEPT.get((application or "NE", code == "AA"), True):
        codes.append(code)
    return tuple(codes)


def write_answers(message: Message, issues: Sequence[Issue], stored: bool, enhanced: bool, stamp: Stamp) -> str:
    """All acknowledgements that a message asks for, one after the other; "" where it asks for none.

    `enhanced`: MSH-15 and MSH-16 decide; else there is one of AA, AE, AR whatever they say.
    """
    code = find_code(issues)
    codes = choose_acknowledgements(message, code, stored) if enhanced else (code,)
    return "".join(write_acknowledgement(message, each, () if each == "CA" else issues, *stamp) for each in codes)


def read_refusal(text: str) -> str:
    """Why an acknowledgement refuses, "" where it accepts; what is no acknowledgement refuses as well."""
    message = parse_message(text).message
    code = message.segment("MSA").text(1) if message else ""
    if code in ("AA", "CA"):
        return ""
    if message is None or not code:
        return "The answer is no acknowledgement: it has no MSA segment."
    errors = [each.text(8) or each.text(7) or each.text(3, 2) for each in message.all("ERR")]
    reasons = [each for each in (message.segment("MSA").text(3), *errors) if each]
    return f"The receiver answered {code}: {' '.join(reasons) or 'it gives no reason.'}"


def write_acknowledgement(message: Message, code: str, issues: Sequence[Issue], now: datetime, control: str) -> str:
    """An ACK with the separators of the message, CR after each segment.

    Sender and receiver change places with their components; `control` is the control number of the answer, `now` an
    aware datetime.
    """
    header, delimiters = message.header, message.delimiters
    version = header.text(12)
    event = header.text(9, 2)
    mark = delimiters.component
    kind = mark.join(["ACK", event, "ACK"] if event and version not in OLD_VERSIONS - {"2.4", "2.3.1"} else ["ACK"])
    stamp = f"{now.astimezone(UTC):%Y%m%d%H%M%S}+0000"
    number = escape_text(control, delimiters)
    sides = (header.raw(5), header.raw(6), header.raw(3), header.raw(4))
    fields = [header.raw(2), *sides, stamp, "", kind, number, header.raw(11), header.raw(12)]
    if header.raw(18):
        fields += ["", "", "", "", "", header.raw(18)]
    told = [issue for issue in issues if issue.severity != "information"][:LONGEST_LIST]
    summary = told[0].text if told and version in OLD_VERSIONS else ""
    msa = ["MSA", code, header.raw(10)] + ([escape_text(summary, delimiters)] if summary else [])
    segments = [Segment("MSH", tuple(fields), 1, delimiters), Segment("MSA", tuple(msa[1:]), 1, delimiters)]
    segments += _write_old_errors(told, delimiters) if version in OLD_VERSIONS else _write_errors(told, delimiters)
    return write_message(Message(tuple(segments), delimiters))


def _write_errors(issues: Sequence[Issue], delimiters: Delimiters) -> list[Segment]:
    """ERR of 2.5 and later: place, condition, severity, and the sentence for the user."""
    segments = []
    for number, issue in enumerate(issues, 1):
        place = [str(each) if each else "" for each in issue.location] if issue.location.segment else []
        while place and not place[-1]:
            place.pop()
        condition = _build_composite(issue.condition, CONDITION_TEXTS[issue.condition], "HL70357")
        values = (
            "",
            write_field([_build_composite(*place)], delimiters) if place else "",
            write_field([condition], delimiters),
            SEVERITIES[issue.severity],
            "",
            "",
            "",
            escape_text(issue.text, delimiters),
        )
        segments.append(Segment("ERR", values, number, delimiters))
    return segments


def _write_old_errors(issues: Sequence[Issue], delimiters: Delimiters) -> list[Segment]:
    """ERR-1 before 2.5: segment, sequence, field, and condition as sub-components, once for each error."""
    entries = []
    for issue in issues:
        place = issue.location
        condition = (issue.condition, CONDITION_TEXTS[issue.condition], "HL70357")
        field = str(place.field) if place.field else ""
        sequence = str(place.sequence) if place.segment else ""
        entries.append(Composite(((place.segment,), (sequence,), (field,), condition)))
    if not entries:
        return []
    return [Segment("ERR", (write_field(entries, delimiters),), 1, delimiters)]


def _build_composite(*texts: str) -> Composite:
    return Composite(tuple((text,) for text in texts))


def write_rejection(issues: Sequence[Issue], now: datetime, control: str) -> str:
    """The ACK of a text that is no message: there is no header to answer to, so that MSA-2 is empty."""
    header = Segment("MSH", ("^~\\&", "", "", "", "", "", "", "", "", "P", "2.5.1"))
    return write_acknowledgement(Message((header,)), find_code(issues), issues, now, control)
