"""Interchanges, groups and transaction sets of a file, one set at a time (ISA/GS/ST … SE/GE/IEA, X12.5, X12.6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from mappers.x12.fault import Fault, Level, Place, place_segment
from mappers.x12.segment import Delimiters, Segment
from mappers.x12.tokenizer import Source, Token, decode_token, read_tokens, split_set

SET_BYTES = 8_000_000
SET_CLAIMS = 10_000
_CLAIM_IDS = {"837": "CLM", "835": "CLP", "277": "TRN", "271": "HL"}
"""ST01 → the segment of which each claim or person of a set has one."""

_ISA_LENGTHS = (3, 2, 10, 2, 10, 2, 15, 2, 15, 6, 4, 1, 5, 9, 1, 1, 1)
# What TA1-05 says of an ISA element of the wrong length, by element (X12 code list I18).
_ISA_CODES = (
    "",
    "010",
    "011",
    "012",
    "013",
    "005",
    "006",
    "007",
    "008",
    "014",
    "015",
    "",
    "017",
    "018",
    "019",
    "020",
    "",
)


@dataclass(frozen=True, slots=True)
class Interchange:
    """An ISA with its delimiters."""

    isa: Segment

    @property
    def delimiters(self) -> Delimiters:
        return self.isa.delimiters

    @property
    def control_number(self) -> str:
        return self.isa.at(13)

    @property
    def wants_acknowledgement(self) -> bool:
        return self.isa.at(14) == "1"


@dataclass(frozen=True, slots=True)
class Group:
    """A GS; `version` is GS08."""

    gs: Segment

    @property
    def control_number(self) -> str:
        return self.gs.at(6)

    @property
    def version(self) -> str:
        return self.gs.at(8)


@dataclass(frozen=True, slots=True)
class TransactionSet:
    """One ST … SE with its envelope. `raw` is its text as received, `size` its bytes, `count` its segments.

    `refused`: it broke a limit; `raw` is empty then, and its text is at `offset` of the file. `faults` are those of ST,
    SE and envelope; what is wrong inside, reading into loops tells.
    """

    interchange: Interchange
    group: Group
    st: Segment
    raw: bytes
    size: int
    count: int
    faults: tuple[Fault, ...]
    refused: bool = False

    @property
    def code(self) -> str:
        return self.st.at(1)

    @property
    def control_number(self) -> str:
        return self.st.at(2)

    @property
    def version(self) -> str:
        """ST03, else GS08: the implementation guide."""
        return self.st.at(3) or self.group.version

    @property
    def offset(self) -> int:
        return self.st.offset

    def iterate_segments(self) -> Iterator[Segment]:
        """The segments from ST to SE."""
        return split_set(self.raw, self.interchange.delimiters, self.st.number, self.st.offset)


@dataclass(frozen=True, slots=True)
class GroupEnd:
    """The end of a group: how many sets GE01 declares (as written) and how many came."""

    interchange: Interchange
    group: Group
    declared: str
    received: int
    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True)
class InterchangeEnd:
    """The end of an interchange with the faults of ISA and IEA."""

    interchange: Interchange
    groups: int
    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Bytes that belong to no interchange, group or set."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class InterchangeAcknowledgement:
    """A TA1 segment, which stands between ISA and the first GS."""

    interchange: Interchange
    ta1: Segment


Event = InterchangeAcknowledgement | TransactionSet | GroupEnd | InterchangeEnd | Unreadable


@dataclass(slots=True)
class _Open:
    """A set that is being read."""

    st: Segment
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0
    count: int = 0
    claims: int = 0
    faults: list[Fault] = field(default_factory=list)
    refused: bool = False


@dataclass(slots=True)
class _State:
    interchange: Interchange | None = None
    group: Group | None = None
    current: _Open | None = None
    groups: int = 0
    sets: int = 0
    control_numbers: set[str] = field(default_factory=set)
    interchange_faults: list[Fault] = field(default_factory=list)
    group_faults: list[Fault] = field(default_factory=list)


class FileTooLong(Exception):
    """A file has more segments or parts than the caller reads."""


def read_interchanges(source: Source, most_segments: int | None = None) -> Iterator[Event]:
    """The transaction sets of a file and the ends of their groups and interchanges, in their order.

    Never raises for bad input but FileTooLong, where a number is given; a fault of one set stays with it. Memory
    holds one set, at most `SET_BYTES`.
    """
    state = _State()
    for token in read_tokens(source):
        if most_segments is not None and token.number > most_segments:
            raise FileTooLong
        if token.fault:
            yield from _take_fault(state, token)
        else:
            step = _STEPS.get(token.id)
            yield from step(state, token) if step else _take_segment(state, token)
    yield from _close_interchange(state, None)


def _fault(sentence: str, segment: Segment, level: Level, code: str, element: int = 0) -> Fault:
    return Fault(sentence, place_segment(segment, "", element), level, code)


def _take_fault(state: _State, token: Token) -> Iterator[Event]:
    place = Place(token.number, 0, token.offset)
    if state.current:
        state.current.faults.append(Fault(token.fault, place, "set", "5"))
        return
    if state.interchange:
        state.interchange_faults.append(Fault(token.fault, place, "interchange", "024"))
        return
    yield Unreadable(Fault(token.fault, place, "interchange", "024"))


def _open_interchange(state: _State, token: Token) -> Iterator[Event]:
    yield from _close_interchange(state, None)
    isa = decode_token(token)
    state.interchange = Interchange(isa)
    state.interchange_faults = check_isa(isa)


def check_isa(isa: Segment) -> list[Fault]:
    """The fixed lengths of ISA; a wrong one is told with the code for TA1-05."""
    faults = []
    for element, length in enumerate(_ISA_LENGTHS):
        size = len(isa.at(element))
        if size != length:
            sentence = f"ISA{element:02} has {size} characters where the standard fixes {length}."
            faults.append(_fault(sentence, isa, "interchange", _ISA_CODES[element] or "024", element))
    return faults


def _open_group(state: _State, token: Token) -> Iterator[Event]:
    yield from _close_group(state, None)
    gs = decode_token(token)
    state.group, state.sets, state.groups = Group(gs), 0, state.groups + 1
    state.control_numbers, state.group_faults = set(), []


def _open_set(state: _State, token: Token) -> Iterator[Event]:
    yield from _close_set(state, None)
    if state.group is None:
        yield from _take_segment(state, token)
        return
    st = decode_token(token, 1)
    state.current = _Open(st)
    if st.at(2) in state.control_numbers:
        sentence = f"ST02 `{st.at(2)}` stands twice in its group; each set needs a number of its own."
        state.current.faults.append(_fault(sentence, st, "set", "23", 2))
    if not st.at(2):
        state.current.faults.append(_fault("ST02, the control number of the set, is missing.", st, "set", "7", 2))
    state.control_numbers.add(st.at(2))
    state.sets += 1
    _append(state.current, token)


def _take_segment(state: _State, token: Token) -> Iterator[Event]:
    if state.current:
        _append(state.current, token)
        return
    if token.id == "TA1" and state.interchange and not state.group:
        yield InterchangeAcknowledgement(state.interchange, decode_token(token))
        return
    place = Place(token.number, 0, token.offset, "", token.id)
    yield Unreadable(Fault(f"Segment `{token.id}` stands outside any transaction set.", place, "interchange", "022"))


def _append(current: _Open, token: Token) -> None:
    current.count += 1
    current.size += len(token.raw)
    current.claims += token.id == _CLAIM_IDS.get(current.st.at(1))
    if current.refused:
        return
    if current.size > SET_BYTES or current.claims > SET_CLAIMS:
        limit = f"{SET_BYTES} bytes" if current.size > SET_BYTES else f"{SET_CLAIMS} claims"
        sentence = (
            f"Transaction set `{current.st.at(2)}` has more than {limit} and is refused; send it as several sets."
        )
        current.faults.append(_fault(sentence, current.st, "set", "5"))
        current.refused = True
        current.pieces.clear()
        return
    current.pieces.append(token.raw)


def _end_set(state: _State, token: Token) -> Iterator[Event]:
    if state.current is None:
        yield from _take_segment(state, token)
        return
    _append(state.current, token)
    yield from _close_set(state, decode_token(token, state.current.count))


def _close_set(state: _State, se: Segment | None) -> Iterator[Event]:
    current, state.current = state.current, None
    if current is None or state.interchange is None or state.group is None:
        return
    current.faults += _check_trailer(current, se)
    raw = b"".join(current.pieces).lstrip(b"\r\n")
    faults = tuple(current.faults)
    yield TransactionSet(
        state.interchange, state.group, current.st, raw, current.size, current.count, faults, current.refused
    )


def _check_trailer(current: _Open, se: Segment | None) -> Iterator[Fault]:
    st = current.st
    if se is None:
        yield _fault(f"Transaction set `{st.at(2)}` has no SE segment; it is incomplete.", st, "set", "2")
        return
    if se.at(2) != st.at(2):
        yield _fault(f"SE02 is `{se.at(2)}` but ST02 is `{st.at(2)}`; they must be equal.", se, "set", "3", 2)
    if _to_count(se.at(1)) != current.count:
        sentence = f"SE01 declares `{se.at(1)}` segments but {current.count} are there, ST and SE included."
        yield _fault(sentence, se, "set", "4", 1)


def _to_count(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else -1


def _end_group(state: _State, token: Token) -> Iterator[Event]:
    yield from _close_set(state, None)
    if state.group is None:
        yield from _take_segment(state, token)
        return
    yield from _close_group(state, decode_token(token))


def _close_group(state: _State, ge: Segment | None) -> Iterator[Event]:
    yield from _close_set(state, None)
    group, state.group = state.group, None
    if group is None or state.interchange is None:
        return
    faults, number = state.group_faults, group.control_number
    if ge is None:
        faults.append(_fault(f"Group `{number}` has no GE segment.", group.gs, "group", "3"))
    else:
        if ge.at(2) != number:
            faults.append(_fault(f"GE02 is `{ge.at(2)}` but GS06 is `{number}`.", ge, "group", "4", 2))
        if _to_count(ge.at(1)) != state.sets:
            sentence = f"GE01 declares `{ge.at(1)}` transaction sets but {state.sets} are there."
            faults.append(_fault(sentence, ge, "group", "5", 1))
    yield GroupEnd(state.interchange, group, ge.at(1) if ge else "", state.sets, tuple(faults))


def _end_interchange(state: _State, token: Token) -> Iterator[Event]:
    yield from _close_group(state, None)
    yield from _close_interchange(state, decode_token(token))


def _close_interchange(state: _State, iea: Segment | None) -> Iterator[Event]:
    yield from _close_group(state, None)
    interchange, state.interchange = state.interchange, None
    groups, state.groups = state.groups, 0
    if interchange is None:
        return
    faults, number = state.interchange_faults, interchange.control_number
    if iea is None:
        faults.append(_fault(f"Interchange `{number}` has no IEA segment.", interchange.isa, "interchange", "023"))
    else:
        if iea.at(2) != number:
            sentence = f"IEA02 is `{iea.at(2)}` but ISA13 is `{number}`."
            faults.append(_fault(sentence, iea, "interchange", "001", 2))
        if _to_count(iea.at(1)) != groups:
            sentence = f"IEA01 declares `{iea.at(1)}` groups but {groups} are there."
            faults.append(_fault(sentence, iea, "interchange", "021", 1))
    yield InterchangeEnd(interchange, groups, tuple(faults))


_STEPS: dict[str, Callable[[_State, Token], Iterator[Event]]] = {
    "ISA": _open_interchange,
    "GS": _open_group,
    "ST": _open_set,
    "SE": _end_set,
    "GE": _end_group,
    "IEA": _end_interchange,
}
