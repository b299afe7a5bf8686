"""HL7 v2 as a format of the message log: reads what the mapper needs, and gives its transaction and acknowledgement.

docs/mappers/hl7v2.md. The order of messages about a patient is kept by a lock of each identifier and by what the
resources say of the last message that was applied to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from functools import lru_cache, partial

from fhir_server.fhir import outcome
from fhir_server.workers.hl7v2_booking import find_overbooked
from fhir_server.workers.hl7v2_concept_maps import add_concept_maps
from fhir_server.workers.hl7v2_partners import find_mapper_partner, read_section
from fhir_server.workers.hl7v2_reading import name_locks, read_state
from fhir_server.workers.interpreters import Entry, Interpretation, Interpreter, Refusal
from fhir_server.workers.message_tasks import LARGEST_MESSAGE, IncomingMessage
from fhir_server.writes.state import State
from mappers.hl7v2.acknowledge import Stamp, read_refusal, write_answers, write_rejection
from mappers.hl7v2.bundle import build_bundle
from mappers.hl7v2.character_sets import CHARACTER_SETS, decode_message
from mappers.hl7v2.er7 import Message, parse_message
from mappers.hl7v2.issues import Issue, Location, refuse
from mappers.hl7v2.mapping import map_message
from mappers.hl7v2.needs import find_needs

_LONGEST_CONTROL = 20
"""Characters of MSH-10 that every version takes."""

REUSED = "205"
"""The condition of a control number that came before with another text."""

MOST_ENTRIES = 10_000
"""Resources that one message makes."""

MOST_ISSUES = 500
"""Remarks of one message that are kept."""


async def interpret(state: State, message: IncomingMessage) -> Interpretation | Refusal:
    """What a message says, on what is stored now; a refusal where the mapper finds that it cannot be stored."""
    partner = find_mapper_partner(state.context, message.partner)
    run = partial(state.context.long_work.run, len(message.raw))
    parsed, issues = await run(read_message, message.raw, partner.character_set if partner else "")
    if parsed is None:
        return _refuse(message, None, issues, True)
    if partner is None:
        return _refuse(message, parsed, (*issues, _describe_stranger(parsed)), True)
    if named := read_section(state.context.partners[partner.name]).concept_maps:
        partner, missing = await add_concept_maps(state, partner, named)
        issues = (*issues, *missing)
    mapping = await run(map_message, parsed, partner, _to_time(message.received))
    known = set(mapping.issues)
    mapping.context.issues[:0] = [each for each in issues if each not in known]
    needs = find_needs(mapping)
    state.lock(name_locks(needs))
    built = await run(build_bundle, mapping, await read_state(state, mapping, needs))
    if built.bundle is None:
        return _refuse(message, parsed, built.issues, partner.enhanced)
    if (count := len(built.bundle.get("entry", ()))) > MOST_ENTRIES:
        text = f"The message makes {count:,} resources, more than the {MOST_ENTRIES:,} that one may; send it in parts."
        return _refuse(message, parsed, (*built.issues, refuse("207", text)), partner.enhanced)
    looked_up = {need.key for need in needs}
    entries = [_to_entry(each, looked_up) for each in built.bundle.get("entry", ())]
    tasks, overbooked = await find_overbooked(state, entries, partner, mapping.changes.seed)
    told = (*built.issues, *overbooked)
    answer, remarks = await run(_write_answer, message, parsed, told, partner.enhanced)
    return Interpretation([*entries, *tasks], answer, remarks, built.patient)


def _write_answer(
    message: IncomingMessage, parsed: Message, told: Sequence[Issue], enhanced: bool
) -> tuple[bytes, tuple[outcome.Issue, ...]]:
    """The acknowledgement of what can be stored, and what is kept of its remarks."""
    answers = write_answers(parsed, told, True, enhanced, _stamp(message))
    return _encode(answers, parsed), _to_remarks(told)


def refuse_message(message: IncomingMessage, reason: str, *, condition: str = "207", enhanced: bool = True) -> bytes:
    """The acknowledgement for a message that could not be stored: AE, or what MSH-15 and MSH-16 ask for.

    `condition` is of HL70357; without `enhanced` there is one acknowledgement whatever the message asks for.
    """
    parsed, _ = read_message(message.raw)
    issue = refuse(condition, reason, Location("MSH", 1, 10) if condition == REUSED else Location(""))
    if parsed is None:
        return write_rejection([issue], *_stamp(message)).encode()
    stored = len(message.raw) <= LARGEST_MESSAGE
    return _encode(write_answers(parsed, [issue], stored, enhanced, _stamp(message)), parsed)


def read_answer(answer: bytes) -> str:
    """Why the receiver of a delivery refuses; "" where it accepts."""
    return read_refusal(decode_message(answer).text or "")


def read_message(raw: bytes, character_set: str = "") -> tuple[Message | None, Sequence[Issue]]:
    """The message of a text, None where it is none, and what is wrong with it. Never raises."""
    return (_read_small if len(raw) < _REMEMBERED else _read)(raw, character_set)


def _read(raw: bytes, character_set: str) -> tuple[Message | None, Sequence[Issue]]:
    decoded = decode_message(raw, character_set)
    if decoded.text is not None:
        parsed = parse_message(decoded.text)
        return parsed.message, (*decoded.issues, *parsed.issues)
    header = parse_message(raw.replace(b"\n", b"\r").lstrip(b"\r").split(b"\r", 1)[0].decode("latin-1"))
    return header.message and Message(header.message.segments, header.message.delimiters), decoded.issues


_REMEMBERED = 16 * 1024
_read_small = lru_cache(maxsize=64)(_read)
"""A message is read when it arrives, when it is interpreted, and again where another write came between."""


def _refuse(message: IncomingMessage, parsed: Message | None, issues: Sequence[Issue], enhanced: bool) -> Refusal:
    wrong = [str(each.text) for each in issues if each.severity in ("error", "fatal")]
    reason = " ".join(wrong) or "The message cannot be stored."
    if parsed is None:
        answer = write_rejection(issues, *_stamp(message)).encode()
    else:
        answer = _encode(write_answers(parsed, issues, True, enhanced, _stamp(message)), parsed)
    return Refusal(reason, answer, _to_remarks(issues))


def _describe_stranger(message: Message) -> Issue:
    header = message.header
    text = (
        f"No partner's file names the sender `{header.raw(3)[:80]}` at `{header.raw(4)[:80]}` (MSH-3, MSH-4); the "
        "message is kept and not read."
    )
    return refuse("207", text, header.place(3), rejected=True)


def _to_entry(entry: Entry, looked_up: AbstractSet[str]) -> Entry:
    """Without what the State asserts already, so that a change meanwhile is no fault but another try.

    That is the version that was read, and that there is none of what was `looked_up` (full URLs) and is created.
    """
    asserted = {"ifMatch", "ifNoneExist"} if entry["fullUrl"] in looked_up else {"ifMatch"}
    request = {name: value for name, value in entry["request"].items() if name not in asserted}
    return {**entry, "request": request}


def _to_remarks(issues: Iterable[Issue]) -> tuple[outcome.Issue, ...]:
    remarks, all_issues = [], tuple(issues)
    for each in all_issues[:MOST_ISSUES]:
        place = str(each.location)
        remarks.append(outcome.Issue(each.severity, each.code, f"{place}: {each.text}" if place else each.text))
    if more := len(all_issues) - len(remarks):
        text = f"{more} more remarks are left out; convert the message to see them."
        remarks.append(outcome.Issue("warning", "too-long", text))
    return tuple(remarks)


def _stamp(message: IncomingMessage) -> Stamp:
    return Stamp(_to_time(message.received), message.id[:_LONGEST_CONTROL])


def _to_time(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC)


def _encode(text: str, message: Message) -> bytes:
    """The acknowledgement in the character set of the message."""
    return text.encode(CHARACTER_SETS.get(message.header.text(18), "utf-8"), "replace")


def _make_interpreter(enhanced: bool) -> Interpreter:
    refusing = partial(refuse_message, enhanced=enhanced)
    return Interpreter(interpret, refusing, read_answer, partial(refusing, condition=REUSED))


HL7V2 = _make_interpreter(enhanced=True)
HL7V2_ORIGINAL = _make_interpreter(enhanced=False)
"""For partners that know one acknowledgement of a message alone."""
