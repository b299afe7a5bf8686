"""Ids of proposed Appointments that say what was proposed, so that nothing has to be stored for thirty minutes.

An id has at most 64 characters of 64 kinds (https://hl7.org/fhir/R4/datatypes.html#id), that is 48 bytes:

| bytes | what |
|---|---|
| 1 | form of the patient (2 bits) and number of Schedules (6 bits) |
| 2 | minute of issue, its low 16 bits |
| 4 | start in seconds since 2020 |
| 2 | length in minutes |
| 2 | first bytes of the hash of the appointment types |
| 0 to 16 | patient: nothing, a UUID, or the first 8 bytes of the hash of its reference |
| 2 to 4 each | first bytes of the hash of each Schedule |
| 8 | authentication code over all of it written out in full |

Schedules and types are looked up by their hashes among those that exist; the code settles which is meant when hashes
are alike. A patient whose id is no UUID has to be named again when the proposal is taken.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice, product
from uuid import UUID

from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import Issue
from mappers.scheduling.calendars import Practice, list_actors
from mappers.scheduling.elements import Resource
from mappers.scheduling.intervals import MINUTE, SECOND

LIFETIME = 30
_ALPHABET = "-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ROOM = 48
_CODE = 8
_FIXED = 11 + _CODE
_SINCE = 1_577_836_800 * SECOND  # 2020-01-01T00:00:00Z
_NO_PATIENT, _UUID, _HASHED = 0, 1, 2
# How many combinations of Schedules and types with equal hashes are tried.
_MOST_TRIED = 4096


@dataclass(frozen=True, slots=True)
class Proposal:
    """What was proposed: µs since 1970 UTC, minutes, Schedule references in the order of the pools, types, patient."""

    start: int
    minutes: int
    schedules: tuple[str, ...]
    types: frozenset[str] = frozenset()
    patient: str = ""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What ids are read with: key, Schedules and sets of types that there are, the patient named beside the id."""

    key: bytes
    schedules: tuple[str, ...]
    types: tuple[frozenset[str], ...] = ()
    patient: str = ""


def write_proposal_id(proposal: Proposal, key: bytes, now: int) -> str | Issue:
    """The id of a proposal issued at `now`, or an issue when it needs more Schedules than fit."""
    form, patient = _pack_patient(proposal.patient)
    count = len(proposal.schedules)
    width = min(4, (_ROOM - _FIXED - len(patient)) // max(count, 1))
    if width < 2 or count > 63 or not 0 < proposal.minutes < 65_536:
        text = f"{count} Schedules and {proposal.minutes} minutes do not fit into an id; send `appointment-resource`."
        return Issue("error", "too-costly", text, ("appointment-reference",))
    issued, start = now // MINUTE, (proposal.start - _SINCE) // SECOND
    if not 0 <= start < 2**32:
        return Issue("error", "value", "A proposal starts between 2020 and 2156.", ("appointment-reference",))
    parts = (form << 6 | count).to_bytes(1) + (issued % 65_536).to_bytes(2) + start.to_bytes(4)
    parts += proposal.minutes.to_bytes(2) + _hash(_types_text(proposal.types), 2) + patient
    parts += b"".join(_hash(each, width) for each in proposal.schedules)
    return _to_text(parts + _authenticate(proposal, key, issued))


def proposal_to_appointment(proposal: Proposal, practice: Practice, template: Resource) -> Resource:
    """The proposed Appointment: `template` has what the request says (types, reason); the actors are the Schedules'.

    A role stays a role, and the Schedule's places take part, so that the Appointment leads back to these Schedules.
    """
    actors: list[str] = [proposal.patient] if proposal.patient else []
    for schedule in proposal.schedules:
        actors += list_actors(practice.directory.get(schedule, {}))
    times = {"start": format_instant(proposal.start), "end": format_instant(proposal.start + proposal.minutes * MINUTE)}
    participants = [
        {"actor": {"reference": actor}, "required": "required", "status": "needs-action"}
        for actor in dict.fromkeys(actors)
    ]
    found = {"resourceType": "Appointment", **template, "status": "proposed", **times}
    return {**found, "minutesDuration": proposal.minutes, "participant": participants}


def read_proposal_id(id: str, known: Knowledge, now: int) -> Proposal | Issue:
    """What an id of `write_proposal_id` proposed, or an issue: no such id, expired, or its patient is not named."""
    parts = _to_bytes(id)
    if parts is None or len(parts) < _FIXED + 2:
        return _unknown(id)
    form, count = parts[0] >> 6, parts[0] & 63
    length = {_NO_PATIENT: 0, _UUID: 16, _HASHED: 8}.get(form, _ROOM)
    hashes = parts[11 + length : -_CODE]
    if not count or not hashes or len(hashes) % count:
        return _unknown(id)
    patient = _read_patient(form, parts[11 : 11 + length], known.patient)
    if isinstance(patient, Issue):
        return patient
    age = (now // MINUTE - int.from_bytes(parts[1:3])) % 65_536
    issued = now // MINUTE - age
    start = int.from_bytes(parts[3:7]) * SECOND + _SINCE
    types = [each for each in {*known.types, frozenset[str]()} if _hash(_types_text(each), 2) == parts[9:11]]
    for chosen in islice(product(types, *_list_candidates(hashes, count, known.schedules)), _MOST_TRIED):
        proposal = Proposal(
            start, int.from_bytes(parts[7:9]), tuple(map(str, chosen[1:])), frozenset(chosen[0]), patient
        )
        if hmac.compare_digest(_authenticate(proposal, known.key, issued), parts[-_CODE:]):
            return proposal if age <= LIFETIME else _make_expired_issue(id)
    return _unknown(id)


def _list_candidates(hashes: bytes, count: int, schedules: Iterable[str]) -> list[Sequence[str]]:
    """For each place the Schedules whose hash stands there."""
    width = len(hashes) // count
    places: dict[bytes, list[str]] = {hashes[at : at + width]: [] for at in range(0, len(hashes), width)}
    for schedule in schedules:
        if (found := places.get(_hash(schedule, width))) is not None:
            found.append(schedule)
    return [places[hashes[at : at + width]] for at in range(0, len(hashes), width)]


def _pack_patient(patient: str) -> tuple[int, bytes]:
    if not patient:
        return _NO_PATIENT, b""
    id = patient.removeprefix("Patient/")
    try:
        uuid = UUID(id)
    except ValueError:
        return _HASHED, _hash(patient, 8)
    return (_UUID, uuid.bytes) if str(uuid) == id else (_HASHED, _hash(patient, 8))


def _read_patient(form: int, packed: bytes, named: str) -> str | Issue:
    """The patient's reference; another one named beside the id does not get this patient's time."""
    if form == _NO_PATIENT:
        return ""
    if form == _UUID:
        proposed = f"Patient/{UUID(bytes=packed)}"
        if named in ("", proposed):
            return proposed
    elif named and _hash(named, 8) == packed:
        return named
    if not named:
        return Issue(
            "error", "required", "Name the patient of this proposal in `patient-reference`.", ("patient-reference",)
        )
    return Issue(
        "error", "forbidden", f"This time was proposed for another patient than `{named}`.", ("patient-reference",)
    )


def _types_text(types: Iterable[str]) -> str:
    return "\n".join(sorted(types))


def _hash(text: str, width: int) -> bytes:
    return sha256(text.encode()).digest()[:width]


def _authenticate(proposal: Proposal, key: bytes, issued: int) -> bytes:
    fields = (issued, proposal.start, proposal.minutes, proposal.schedules, sorted(proposal.types), proposal.patient)
    return hmac.new(key, repr(fields).encode(), sha256).digest()[:_CODE]


def _to_text(parts: bytes) -> str:
    """Six bits a character, as many characters as the bytes need."""
    number, characters = int.from_bytes(parts), len(parts) * 8 // 6 + (len(parts) * 8 % 6 > 0)
    return "".join(_ALPHABET[number >> 6 * place & 63] for place in reversed(range(characters)))


def _to_bytes(text: str) -> bytes | None:
    if len(text) > 64 or any(character not in _ALPHABET for character in text):
        return None
    number = 0
    for character in text:
        number = number << 6 | _ALPHABET.index(character)
    length = len(text) * 6 // 8
    return number.to_bytes(length) if number < 1 << 8 * length else None


def _unknown(id: str) -> Issue:
    text = f"`{id}` is no proposed Appointment: use an id that `$find` answered, or send the Appointment itself."
    return Issue("error", "not-found", text, ("appointment-reference",))


def _make_expired_issue(id: str) -> Issue:
    text = f"The proposal `{id}` is older than {LIFETIME} minutes; ask `$find` again."
    return Issue("error", "expired", text, ("appointment-reference",))
