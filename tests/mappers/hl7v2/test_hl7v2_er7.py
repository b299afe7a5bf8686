"""ER7: what is written is what was read, and text is unescaped after it was split (HL7 v2.8 chapter 2, 2.5 to 2.7)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappers.hl7v2.batch import split_batch
from mappers.hl7v2.character_sets import decode_message
from mappers.hl7v2.er7 import Composite, Segment, parse_message, write_field, write_message
from mappers.hl7v2.escapes import Delimiters, escape_text, unescape

HEAD = "MSH|^~\\&|A|B|C|D|20240102030405+0000||ADT^A01|1|P|2.5\r"
USUAL = Delimiters()


def segment(text: str) -> Segment:
    message = parse_message(HEAD + text + "\r").message
    assert message
    return message.segments[1]


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        (r"a\F\b", "a|b"),
        (r"a\S\b", "a^b"),
        (r"a\T\b", "a&b"),
        (r"a\R\b", "a~b"),
        (r"a\E\b", "a\\b"),
        (r"\X0D0A\x", "\r\nx"),
        (r"\XC3B6\x", "öx"),
        (r"one\.br\two", "one\ntwo"),
        (r"one\.sp2\two", "one\n\ntwo"),
        (r"\H\bold\N\ plain", "bold plain"),
        (r"<p>\T\nbsp;</p>", "<p>&nbsp;</p>"),
    ],
)
def test_sequences_have_their_meaning(text: str, meaning: str) -> None:
    assert unescape(text, USUAL) == (meaning, "")


@pytest.mark.parametrize("text", [r"half\F", r"\X00\ ", r"C:\temp\file", r"\Q\ ", "tail\\"])
def test_a_sequence_without_end_or_meaning_stays_as_written(text: str) -> None:
    assert unescape(text, USUAL)[0] == text
    parsed = parse_message(HEAD + f"NTE|1||{text}\r")
    assert [str(issue.location) for issue in parsed.issues] == ["NTE[1]-3"]
    assert "kept as written" in parsed.issues[0].text


def test_an_escaped_escape_does_not_begin_another_sequence() -> None:
    assert unescape(r"\E\R\ ", USUAL)[0] == "\\R\\ "


def test_an_escaped_delimiter_never_splits() -> None:
    """Trap V8: unescape after splitting at every level."""
    assert segment(r"PID|1|A\F\B&C^D\S\E").repetitions(2) == (Composite((("A|B", "C"), ("D^E",))),)


def test_truncation_is_a_delimiter_since_2_7() -> None:
    message = parse_message("MSH|^~\\&#|A|B|||20240102||ADT^A01|1|P|2.7\rPID|1|x\\P\\y\r").message
    assert message and message.segments[1].text(2) == "x#y"
    assert escape_text("x#y", message.delimiters) == "x\\P\\y"


def test_delimiters_come_from_msh() -> None:
    message = parse_message("MSH*:;!%*A*B\rPID*1*a:b%c;d!F!e\r").message
    assert message
    assert message.segments[1].repetitions(2) == (Composite((("a",), ("b", "c"))), Composite((("d*e",),)))


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_lines_end_with_cr_lf_or_both(end: str) -> None:
    message = parse_message(HEAD.replace("\r", end) + f"PID|1{end}PV1|1{end}").message
    assert message and [each.name for each in message.segments] == ["MSH", "PID", "PV1"]


def test_empty_quotes_and_absent_are_three_things() -> None:
    """Trap V10, in a field, a component and a repetition."""
    pid = segment('PID|1||""|||||^""^c|x~""~y')
    assert (pid.raw(3), pid.raw(4), pid.raw(99)) == ('""', "", "")
    assert pid.text(8, 2) == "" and pid.first(8).parts[1] == ('""',)
    assert [each.text() for each in pid.repetitions(9)] == ["x", "", "y"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "A message begins with `MSH`"),
        ("PID|1\r", "A message begins with `MSH`; this begins with `PID|1`."),
        ("MSH", "MSH-1 must be a punctuation mark"),
        ("MSHx^~", "MSH-1 must be a punctuation mark"),
        ("MSH||A", "MSH-2 must hold one to five"),
        ("MSH|^^\\&|", "must be different punctuation marks"),
        (HEAD + "PID|1\rcontinued|text\r", "Line 3 begins with `continued`"),
        (HEAD + HEAD, "a second MSH"),
        (HEAD + "PID|1\x00\r", "Line 2 holds the control character U+0000"),
    ],
)
def test_what_is_no_message_is_refused_with_a_reason(text: str, sentence: str) -> None:
    assert any(sentence in issue.text and issue.severity == "error" for issue in parse_message(text).issues)


values = st.text(st.sampled_from('ab |^~\\&#\r\nö"é'), max_size=12)
fields = st.lists(
    st.lists(st.lists(values, min_size=1, max_size=3).map(tuple), min_size=1, max_size=3).map(tuple),
    min_size=1,
    max_size=3,
)


@given(values)
def test_unescape_reverses_escape(text: str) -> None:
    assert unescape(escape_text(text, USUAL), USUAL) == (text, "")


@given(fields)
def test_a_field_that_is_written_is_read_again(field: list[tuple[tuple[str, ...], ...]]) -> None:
    repetitions = [Composite(parts) for parts in field]
    raw = write_field(repetitions, USUAL)
    read = Segment("ZZZ", (raw,)).repetitions(1)
    assert list(read) == [each for each in repetitions if write_field([each], USUAL)]


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n\x1c", exclude_categories=["Cs"]), max_size=30), max_size=5)
)
def test_writing_reverses_reading(lines: list[str]) -> None:
    text = HEAD + "".join(f"ZAB|{line}\r" for line in lines)
    message = parse_message(text).message
    assert message and write_message(message) == text


def test_every_sample_is_written_as_it_was_read(shared: Path) -> None:
    count = 0
    for path in sorted((shared / "data" / "hl7v2").rglob("*.hl7")):
        text = decode_message(path.read_bytes()).text
        assert text
        lines = [line for line in re.split(r"\r\n|\r|\n", text.lstrip("\ufeff")) if line.strip()]
        message = parse_message(text).message
        assert message and write_message(message) == "".join(f"{line}\r" for line in lines), path.name
        count += 1
    assert count >= 190


def test_a_batch_is_split_and_counted() -> None:
    one, two = HEAD + "PID|1\r", HEAD.replace("|1|P", "|2|P") + "PID|2\r"
    batch = split_batch(f"FHS|^~\\&\rBHS|^~\\&\r{one}{two}BTS|3\rFTS|1\r")
    assert [message.text for message in batch.messages] == [one, two]
    assert [message.line for message in batch.messages] == [3, 5]
    assert [issue.text for issue in batch.issues] == ["BTS-1 counts 3 messages; the file holds 2."]


def test_messages_without_batch_headers_are_split() -> None:
    assert len(split_batch(HEAD + "PID|1\r" + HEAD + "PID|2\r").messages) == 2
    assert split_batch("junk\r" + HEAD).issues[0].severity == "error"


def header(charset: str) -> str:
    return HEAD.rstrip("\r") + "||||||" + charset + "\r"


def test_the_character_set_of_msh_18_is_used() -> None:
    octets = (header("8859/1") + "PID|1||7||Müller\r").encode("latin-1")
    assert "Müller" in (decode_message(octets).text or "")
    assert decode_message(octets).issues == ()


def test_a_character_set_that_is_not_read_is_rejected() -> None:
    """Trap V19: AR with 103 at MSH-18 and the list."""
    decoded = decode_message((header("UNICODE UTF-16") + "PID|1\r").encode())
    assert decoded.text is None
    (issue,) = decoded.issues
    assert (issue.rejected, issue.condition, str(issue.location)) == (True, "103", "MSH[1]-18")
    assert "UNICODE UTF-8" in issue.text


@pytest.mark.parametrize(("default", "warnings"), [("", 1), ("8859/1", 0)])
def test_without_msh_18_the_default_then_utf_8_then_latin_1(default: str, warnings: int) -> None:
    """Trap V7."""
    decoded = decode_message(HEAD.encode() + b"PID|1||7^^^N||M\xfcller^Cy\r", default)
    assert "Müller" in (decoded.text or "") and len(decoded.issues) == warnings
    assert decode_message((HEAD + "PID|1||7||Müller\r").encode()).issues == ()
