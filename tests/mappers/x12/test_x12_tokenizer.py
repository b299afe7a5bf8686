"""Delimiters, positions, line breaks and limits of the tokenizer and the envelope (X12.5, X12.6; traps B22)."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from mappers.x12 import envelope
from mappers.x12.envelope import (
    Event,
    GroupEnd,
    InterchangeAcknowledgement,
    InterchangeEnd,
    TransactionSet,
    Unreadable,
    read_interchanges,
)
from mappers.x12.fault import fault_to_issue
from mappers.x12.received import collect_interchanges
from mappers.x12.tokenizer import parse_delimiters, read_segments, read_tokens


def isa(*, eleventh: str = "^", version: str = "00501", last: str = ":~", number: str = "000000001") -> str:
    sides = f"ZZ*{'SENDER':<15}*ZZ*{'RECEIVER':<15}"
    return f"ISA*00*{'':10}*00*{'':10}*{sides}*260115*1200*{eleventh}*{version}*{number}*0*T*{last}"


def one_set(body: str = "BHT*0019*00*1~", number: str = "0001", count: int = 3) -> str:
    return f"ST*837*{number}*005010X222A1~{body}SE*{count}*{number}~"


def group(*sets: str, number: str = "1") -> str:
    return f"GS*HC*A*B*20260115*1200*{number}*X*005010X222A1~{''.join(sets)}GE*{len(sets)}*{number}~"


def file(*groups: str, number: str = "000000001") -> str:
    return f"{isa(number=number)}{''.join(groups)}IEA*{len(groups)}*{number}~"


def sets_of(events: list[Event]) -> list[TransactionSet]:
    return [event for event in events if isinstance(event, TransactionSet)]


def sentences(events: list[Event]) -> list[str]:
    found = []
    for event in events:
        if isinstance(event, Unreadable):
            found.append(event.fault.sentence)
        elif not isinstance(event, InterchangeAcknowledgement):
            found += [fault.sentence for fault in event.faults]
    return found


@pytest.mark.parametrize(
    ("eleventh", "version", "expected"),
    [
        ("U", "00401", ""),
        ("U", "00501", ""),
        ("^", "00401", ""),
        ("^", "00402", "^"),
        ("!", "00501", "!"),
        ("7", "00501", ""),
    ],
)
def test_isa11_separates_repetitions_only_from_00402_on_and_when_it_is_no_letter_or_digit(
    eleventh: str, version: str, expected: str
) -> None:
    delimiters = parse_delimiters(isa(eleventh=eleventh, version=version).encode())
    assert delimiters is not None
    assert delimiters.repetition == expected


def test_a_u_in_isa11_eats_no_letters_of_a_name() -> None:
    text = isa(eleventh="U", version="00401") + "GS*HC~NM1*PR*2*BLUE UNITED~IEA*1*1~"
    nm1 = next(segment for segment in read_segments(text) if segment.id == "NM1")
    assert nm1.repeats(3) == ("BLUE UNITED",)


@pytest.mark.parametrize("terminator", ["~", "'", "\n", "|"])
@pytest.mark.parametrize("newline", ["", "\n", "\r\n", "\n\n"])
def test_terminator_and_line_breaks_are_read_from_isa(terminator: str, newline: str) -> None:
    text = file(group(one_set())).replace("~", terminator + newline)
    ids = [segment.id for segment in read_segments(text)]
    assert ids == ["ISA", "GS", "ST", "BHT", "SE", "GE", "IEA"]
    assert sentences(list(read_interchanges(text))) == []


def test_element_and_component_separators_are_read_from_isa() -> None:
    text = file(group(one_set("SV1*HC:99213:25~"))).replace("*", "|").replace(":", ">")
    sv1 = next(segment for segment in read_segments(text) if segment.id == "SV1")
    assert sv1.parts(1) == ("HC", "99213", "25")


@pytest.mark.parametrize("size", [1, 2, 7, 105, 106, 107, 10_000])
def test_the_size_of_the_chunks_changes_nothing(size: int) -> None:
    raw = file(group(one_set(), one_set(number="0002")), number="000000001").encode() * 2
    chunks = (raw[at : at + size] for at in range(0, len(raw), size))
    assert list(read_segments(chunks)) == list(read_segments(raw))


def test_each_segment_knows_its_number_and_byte_offset() -> None:
    raw = file(group(one_set("NTE*ADD*Zoë~\r\n"))).encode()
    for number, segment in enumerate(read_segments(raw), 1):
        assert segment.number == number
        assert raw[segment.offset :].decode().startswith("*".join(segment.elements))


def test_bytes_that_are_no_utf_8_are_read_as_latin_1() -> None:
    raw = file(group(one_set("NTE*ADD*Zo?~"))).encode().replace(b"?", b"\xeb")
    assert next(s for s in read_segments(raw) if s.id == "NTE").at(2) == "Zoë"


def test_several_interchanges_groups_and_sets_with_other_delimiters() -> None:
    second = file(group(one_set()), group(one_set(), one_set(number="0002"), number="2"), number="000000002")
    text = file(group(one_set())) + "\r\n" + second.replace("*", "|")
    events = list(read_interchanges(text))
    assert sentences(events) == []
    assert [type(event).__name__ for event in events].count("InterchangeEnd") == 2
    assert [
        (one.interchange.control_number, one.group.control_number, one.control_number) for one in sets_of(events)
    ] == [
        ("000000001", "1", "0001"),
        ("000000002", "1", "0001"),
        ("000000002", "2", "0001"),
        ("000000002", "2", "0002"),
    ]


def test_the_raw_text_of_a_set_is_what_was_received() -> None:
    body = one_set("BHT*0019*00*1~\r\n\r\n")
    (received,) = sets_of(list(read_interchanges(file(group(body)))))
    assert received.raw == body.encode()
    assert [s.ordinal for s in received.iterate_segments()] == [1, 2, 3]
    assert [s.number for s in received.iterate_segments()] == [3, 4, 5]


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("SE*3*0001", "SE*4*0001", "4", "SE01 declares `4` segments but 3 are there"),
        ("SE*3*0001", "SE*x*0001", "4", "SE01 declares `x` segments but 3 are there"),
        ("SE*3*0001", "SE*3*0009", "3", "SE02 is `0009` but ST02 is `0001`"),
        ("SE*3*0001~", "", "2", "has no SE segment"),
        ("GE*1*1", "GE*2*1", "5", "GE01 declares `2` transaction sets but 1 are there"),
        ("GE*1*1", "GE*1*9", "4", "GE02 is `9` but GS06 is `1`"),
        ("GE*1*1~", "", "3", "has no GE segment"),
        ("IEA*1*000000001", "IEA*2*000000001", "021", "IEA01 declares `2` groups but 1 are there"),
        ("IEA*1*000000001", "IEA*1*000000002", "001", "IEA02 is `000000002` but ISA13 is `000000001`"),
        ("IEA*1*000000001~", "", "023", "has no IEA segment"),
        ("*260115*", "*20260115*", "014", "ISA09 has 8 characters where the standard fixes 6"),
    ],
)
def test_counts_and_control_numbers_are_checked(old: str, new: str, code: str, words: str) -> None:
    text = file(group(one_set()))
    assert old in text
    events = list(read_interchanges(text.replace(old, new, 1)))
    (fault,) = [f for e in events if isinstance(e, TransactionSet | GroupEnd | InterchangeEnd) for f in e.faults]
    assert (fault.code, words in fault.sentence) == (code, True)


def test_one_bad_set_does_not_stop_the_others() -> None:
    text = file(group(one_set(count=9), one_set(number="0002").replace("SE*3*0002~", ""), one_set(number="0003")))
    first, second, third = sets_of(list(read_interchanges(text)))
    assert [f.code for f in first.faults] == ["4"]
    assert [f.code for f in second.faults] == ["2"]
    assert third.faults == ()


def test_a_control_number_that_stands_twice_in_a_group_is_told() -> None:
    first, second = sets_of(list(read_interchanges(file(group(one_set(), one_set())))))
    assert (first.faults, [f.code for f in second.faults]) == ((), ["23"])


def test_what_is_no_interchange_is_told_with_its_place() -> None:
    text = "hello\n" + file(group(one_set())) + "rubbish"
    events = list(read_interchanges(text))
    unreadable = [event.fault for event in events if isinstance(event, Unreadable)]
    assert [(f.place.offset, f.sentence.split(" that")[0]) for f in unreadable] == [
        (0, "5 bytes"),
        (text.index("rubbish"), "7 bytes"),
    ]
    assert len(sets_of(events)) == 1


@pytest.mark.parametrize("text", ["", " \r\n", "ISA", "ISAISAISAISA", "ISA*", "MSH|^~\\&|", isa()[:-1], isa(last="::")])
def test_a_file_without_an_interchange_gives_no_set(text: str) -> None:
    events = list(read_interchanges(text))
    assert sets_of(events) == []
    assert bool(text.strip()) == bool(events)


def test_a_file_that_ends_within_a_segment_says_so() -> None:
    events = list(read_interchanges(file(group(one_set()))[:-12]))
    assert "The file ends inside segment `IEA*`: no terminator follows." in sentences(events)


def test_an_isa_within_an_interchange_begins_another_one() -> None:
    cut = isa() + "GS*HC*A*B*20260115*1200*1*X*005010X222A1~" + "ST*837*0001*005010X222A1~"
    events = list(read_interchanges(cut + file(group(one_set()), number="000000002")))
    assert [one.interchange.control_number for one in sets_of(events)] == ["000000001", "000000002"]
    assert any("has no IEA" in sentence for sentence in sentences(events))


def test_a_ta1_between_isa_and_gs_is_handed_out() -> None:
    text = f"{isa()}TA1*000000905*260115*1200*A*000~IEA*0*000000001~"
    (answer,) = [e for e in read_interchanges(text) if isinstance(e, InterchangeAcknowledgement)]
    assert answer.ta1.elements == ("TA1", "000000905", "260115", "1200", "A", "000")


@pytest.mark.parametrize(("limit", "words"), [("SET_BYTES", "120 bytes"), ("SET_CLAIMS", "2 claims")])
def test_a_set_over_a_limit_is_refused_and_the_rest_goes_on(
    limit: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envelope, limit, int(words.split()[0]))
    large = one_set("CLM*P1*10~CLM*P2*10~CLM*P3*10~" + "NTE*ADD*AAAAAAAAAAAAAAAA~" * 3, count=8)
    first, second = sets_of(list(read_interchanges(file(group(large, one_set(number="0002"))))))
    assert (first.refused, first.raw, first.size) == (True, b"", len(large))
    assert [f.sentence for f in first.faults] == [
        f"Transaction set `0001` has more than {words} and is refused; send it as several sets."
    ]
    assert (second.refused, second.faults) == (False, ())


def test_a_fault_becomes_an_issue_with_its_place() -> None:
    text = file(group(one_set(count=4)))
    (received,) = sets_of(list(read_interchanges(text)))
    issue = fault_to_issue(received.faults[0])
    assert issue.diagnostics.endswith(f"included. (segment 5, at SE/01, byte {text.index('SE*')})")
    assert issue.expression == ("SE/01",)


def _repeat(head: str, body: str, times: int, tail: str) -> Iterator[bytes]:
    yield head.encode()
    for _ in range(times):
        yield body.encode() * 100
    yield tail.encode()


def test_a_large_file_is_read_in_constant_memory() -> None:
    """6 MB of sets of 3 KB: what is held at once stays below 1.5 MB."""
    body = one_set("NTE*ADD*AAAAAAAAAAAAAAAAAAAAAAA~" * 90, "0001", 92)
    head = isa() + "GS*HC*A*B*20260115*1200*1*X*005010X222A1~"
    tracemalloc.start()
    count = sum(isinstance(e, TransactionSet) for e in read_interchanges(_repeat(head, body, 20, "GE*1*1~")))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 2_000
    assert peak < 1_500_000


def test_a_file_without_terminators_is_given_up_in_bounded_memory() -> None:
    events = list(read_interchanges(isa() + "A" * 1_000_000))
    assert any("No segment terminator follows within 100000 bytes" in sentence for sentence in sentences(events))


def test_tokens_keep_the_bytes() -> None:
    raw = file(group(one_set("NTE*ADD*x~\r\n"))).encode()
    assert b"".join(token.raw for token in read_tokens(raw)) == raw


def test_a_run_of_terminators_is_no_segment_and_moves_no_place() -> None:
    """Positions count bytes of the file, whatever is skipped."""
    text = file(group(one_set()))
    at = text.index("SE*")
    long = text[:at] + "~\r\n~~" * 50_000 + text[at:]
    plain, skipping = list(read_tokens(text)), list(read_tokens(long))
    assert [each.body for each in plain] == [each.body for each in skipping]
    assert [each.number for each in plain] == [each.number for each in skipping]
    (se,) = [each for each in skipping if each.id == "SE"]
    assert se.offset == long.index("SE*")


def test_a_file_held_whole_has_bounds() -> None:
    text = file(group(one_set("REF*A*1~" * 100, count=102)))
    assert collect_interchanges(text, most=3, most_segments=200).complete
    assert not collect_interchanges(text, most=3, most_segments=100).complete
    assert not collect_interchanges(text, most=2, most_segments=200).complete
