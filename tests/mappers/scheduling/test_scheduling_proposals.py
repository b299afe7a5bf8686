"""Ids of proposals: they find what was proposed again in any process, for thirty minutes, and are valid FHIR ids."""

from __future__ import annotations

import re
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.fhir.outcome import Issue
from mappers.scheduling.calendars import find_schedule, read_practice
from mappers.scheduling.intervals import MINUTE
from mappers.scheduling.occupied import list_takings
from mappers.scheduling.parameters import SchedulingParameters
from mappers.scheduling.proposals import (
    Knowledge,
    Proposal,
    proposal_to_appointment,
    read_proposal_id,
    write_proposal_id,
)
from tests.mappers.scheduling.scheduling_resources import at, concept, role, schedule

KEY = b"a key of the store"
NOW = at("2026-03-02T09:00:00Z")
SCHEDULES = tuple(f"Schedule/{n}" for n in range(40))
TYPES = (frozenset({"urn:example:types|new"}), frozenset({"urn:example:types|check", "urn:x|y"}))
KNOWN = Knowledge(KEY, SCHEDULES, TYPES)
ADA = "Patient/0198c0de-7b1e-7cc3-8000-00000000ada0"
ONE = Proposal(at("2026-03-04T15:00:00Z"), 30, ("Schedule/1", "Schedule/2", "Schedule/3"), TYPES[0], ADA)


def write(proposal: Proposal, now: int = NOW) -> str:
    id = write_proposal_id(proposal, KEY, now)
    assert isinstance(id, str)
    return id


proposals = st.builds(
    Proposal,
    start=st.integers(at("2020-01-01T00:00:00Z") // MINUTE, at("2090-01-01T00:00:00Z") // MINUTE).map(
        lambda m: m * MINUTE
    ),
    minutes=st.integers(1, 1440),
    schedules=st.lists(st.sampled_from(SCHEDULES), min_size=1, max_size=6).map(tuple),
    types=st.sampled_from([*TYPES, frozenset()]),
    patient=st.one_of(st.just(""), st.uuids().map(lambda uuid: f"Patient/{uuid}"), st.just("Patient/ada")),
)


@given(proposals, st.integers(0, 30))
def test_an_id_says_what_was_proposed(proposal: Proposal, age: int) -> None:
    id = write(proposal)
    assert re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", id)
    known = replace(KNOWN, patient=proposal.patient if proposal.patient == "Patient/ada" else "")
    assert read_proposal_id(id, known, NOW + age * MINUTE) == proposal


def test_it_is_valid_for_thirty_minutes() -> None:
    id = write(ONE)
    assert read_proposal_id(id, KNOWN, NOW + 30 * MINUTE) == ONE
    late = read_proposal_id(id, KNOWN, NOW + 31 * MINUTE)
    assert isinstance(late, Issue)
    assert late.code == "expired"


@given(st.integers(0, 63), st.characters(codec="ascii"))
def test_a_changed_id_is_no_proposal(place: int, character: str) -> None:
    id = write(ONE)
    changed = id[:place] + character + id[place + 1 :]
    if changed != id:
        assert isinstance(read_proposal_id(changed, KNOWN, NOW), Issue)


@given(st.text(max_size=80))
def test_no_text_is_an_exception(text: str) -> None:
    issue = read_proposal_id(text, KNOWN, NOW)
    assert isinstance(issue, Issue)
    assert issue.code in ("not-found", "required")


def test_another_key_or_a_schedule_that_is_gone_does_not_read_it() -> None:
    id = write(ONE)
    for known in (replace(KNOWN, key=b"other"), replace(KNOWN, schedules=SCHEDULES[4:])):
        issue = read_proposal_id(id, known, NOW)
        assert isinstance(issue, Issue)
        assert issue.code == "not-found"


def test_a_proposal_belongs_to_its_patient() -> None:
    other = replace(KNOWN, patient=f"Patient/{UUID(int=7)}")
    refused = read_proposal_id(write(ONE), other, NOW)
    assert isinstance(refused, Issue)
    assert refused.code == "forbidden"
    by_name = write(replace(ONE, patient="Patient/ada"))
    missing = read_proposal_id(by_name, KNOWN, NOW)
    assert isinstance(missing, Issue)
    assert missing.code == "required"


@pytest.mark.parametrize("proposal", [replace(ONE, schedules=SCHEDULES[:20]), replace(ONE, minutes=0)])
def test_what_does_not_fit_is_an_issue(proposal: Proposal) -> None:
    issue = write_proposal_id(proposal, KEY, NOW)
    assert isinstance(issue, Issue)
    assert "appointment-resource" in issue.diagnostics


def test_schedules_with_equal_short_hashes_are_told_apart() -> None:
    """Six Schedules and a patient leave two bytes for each: among 20,000 Schedules many are alike."""
    many = tuple(f"Schedule/{n}" for n in range(20_000))
    crowd = Proposal(ONE.start, 30, many[100:106], frozenset(), ADA)
    id = write_proposal_id(crowd, KEY, NOW)
    assert isinstance(id, str)
    assert read_proposal_id(id, Knowledge(KEY, many), NOW) == crowd


def test_a_proposed_appointment_leads_back_to_its_schedules() -> None:
    """Pine works in two places: the proposal is for the one whose Schedule was free."""
    practice, _ = read_practice(
        [
            role("north", "Practitioner/pine"),
            role("south", "Practitioner/pine"),
            schedule("a", "PractitionerRole/north", "Location/north"),
            schedule("b", "PractitionerRole/south", "Location/south"),
        ],
        SchedulingParameters(),
    )
    proposal = Proposal(ONE.start, 30, ("Schedule/b",), TYPES[0], ADA)
    found = proposal_to_appointment(proposal, practice, {"serviceType": [concept("new")]})
    assert (found["status"], found["minutesDuration"], at(found["start"])) == ("proposed", 30, ONE.start)
    actors = [person["actor"]["reference"] for person in found["participant"]]
    assert actors == [ADA, "PractitionerRole/south", "Location/south"]
    taking = list_takings(found, practice)[1]
    assert (taking.actor, taking.schedule) == ("Practitioner/pine", practice.directory["Schedule/b"])
    assert find_schedule("Location/south", actors, practice) is None  # a place without a Schedule is only the place
