"""Acknowledgements: who answers whom, with which code, and where the errors are (HL7 v2.8 chapter 2, 2.9 and 2.14)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mappers.hl7v2.acknowledge import choose_acknowledgements, find_code, write_acknowledgement, write_rejection
from mappers.hl7v2.er7 import Message, parse_message
from mappers.hl7v2.issues import Issue, Location, refuse, tell, warn

NOW = datetime(2024, 3, 5, 18, 0, 0, tzinfo=UTC)


def read(line: str) -> Message:
    message = parse_message(line + "\r").message
    assert message
    return message


def test_sender_and_receiver_change_places_with_their_components() -> None:
    """Trap V5."""
    message = read("MSH|^~\\&|LAB^1.2.3^ISO|N|PMS|P|20240305||ADT^A08^ADT_A01|M1|T|2.5.1")
    text = write_acknowledgement(message, "AA", [], NOW, "A1")
    assert text == (
        "MSH|^~\\&|PMS|P|LAB^1.2.3^ISO|N|20240305180000+0000||ACK^A08^ACK|A1|T|2.5.1\r"
        "MSA|AA|M1\r"
    )  # fmt: skip


def test_the_separators_are_those_of_the_message() -> None:
    message = read("MSH*:;!%*LAB:1.2*N*PMS*P*20240305**ADT:A08*M1*P*2.5")
    text = write_acknowledgement(message, "AE", [refuse("101", "a:b*c", Location("PID", 1, 3))], NOW, "A1")
    assert text.split("\r")[0] == "MSH*:;!%*PMS*P*LAB:1.2*N*20240305180000+0000**ACK:A08:ACK*A1*P*2.5"
    assert text.split("\r")[2] == "ERR**PID:1:3*101:Required field missing:HL70357*E****a!S!b!F!c"


ISSUES = [
    refuse("101", "PID-3 is empty.", Location("PID", 1, 3)),
    warn("102", "No date.", Location("PID", 1, 7, 2, 1)),
    tell("Kept."),
]


def test_err_since_2_5_tells_place_condition_severity_and_sentence() -> None:
    message = read("MSH|^~\\&|A|B|C|D|20240305||ADT^A08|M1|P|2.5")
    lines = write_acknowledgement(message, find_code(ISSUES), ISSUES, NOW, "A1").split("\r")
    assert lines[1:] == [
        "MSA|AE|M1",
        "ERR||PID^1^3|101^Required field missing^HL70357|E||||PID-3 is empty.",
        "ERR||PID^1^7^2^1|102^Data type error^HL70357|W||||No date.",
        "",
    ]


def test_err_before_2_5_is_one_field() -> None:
    message = read("MSH|^~\\&|A|B|C|D|20240305||ADT^A08|M1|P|2.3")
    lines = write_acknowledgement(message, "AE", ISSUES, NOW, "A1").split("\r")
    assert lines[0].split("|")[8] == "ACK"
    assert lines[1] == "MSA|AE|M1|PID-3 is empty."
    assert lines[2] == (
        "ERR|PID^1^3^101&Required field missing&HL70357~PID^1^7^102&Data type error&HL70357"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("issues", "code"),
    [
        ([], "AA"),
        ([warn("102", "x"), tell("y")], "AA"),
        ([refuse("101", "x")], "AE"),
        ([refuse("204", "x")], "AE"),
        ([refuse("200", "x")], "AR"),
        ([refuse("201", "x")], "AR"),
        ([refuse("202", "x")], "AR"),
        ([refuse("203", "x")], "AR"),
    ],
)
def test_the_code_follows_from_the_issues(issues: list[Issue], code: str) -> None:
    assert find_code(issues) == code


@pytest.mark.parametrize(
    ("accept", "application", "taken", "refused"),
    [
        ("", "", ("AA",), ("AE",)),
        ("AL", "AL", ("CA", "AA"), ("CA", "AE")),
        ("AL", "NE", ("CA",), ("CA",)),
        ("NE", "ER", (), ("AE",)),
        ("NE", "SU", ("AA",), ()),
        ("ER", "AL", ("AA",), ("AE",)),
        ("SU", "NE", ("CA",), ("CA",)),
        ("", "AL", ("AA",), ("AE",)),
        ("AL", "", ("CA",), ("CA",)),
    ],
)
def test_enhanced_mode(accept: str, application: str, taken: tuple[str, ...], refused: tuple[str, ...]) -> None:
    """Trap V20: MSH-15 and 16 with AL, NE, ER, SU; here the raw message is stored."""
    message = read(f"MSH|^~\\&|A|B|C|D|20240305||ADT^A08|M1|P|2.5|||{accept}|{application}")
    assert choose_acknowledgements(message, "AA", True) == taken
    assert choose_acknowledgements(message, "AE", True) == refused


@pytest.mark.parametrize(
    ("accept", "code", "expected"),
    [("AL", "AE", ("CE",)), ("AL", "AR", ("CR",)), ("ER", "AE", ("CE",)), ("SU", "AE", ())],
)
def test_what_is_not_stored_is_never_committed(accept: str, code: str, expected: tuple[str, ...]) -> None:
    message = read(f"MSH|^~\\&|A|B|C|D|20240305||ADT^A08|M1|P|2.5|||{accept}|AL")
    assert choose_acknowledgements(message, code, False) == expected


def test_what_is_no_message_is_answered_too() -> None:
    issues = parse_message("junk").issues
    text = write_rejection(issues, NOW, "A1")
    parsed = parse_message(text)
    assert parsed.message and parsed.message.segments[1].values == ("AE", "")
    assert "A message begins with `MSH`" in text


def test_an_acknowledgement_is_a_message_again() -> None:
    message = read("MSH|^~\\&#|A|B|C|D|20240305||ADT^A08^ADT_A01|M1|P|2.7||||||8859/1")
    text = write_acknowledgement(message, "AE", ISSUES, NOW, "A1")
    parsed = parse_message(text)
    assert parsed.issues == () and parsed.message
    assert parsed.message.header.text(18) == "8859/1"
