"""Whose Schedule it is: this server's, or a partner's whose messages are fact (docs/scheduling.md)."""

from __future__ import annotations

from collections.abc import Sequence

from mappers.scheduling.calendars import Practice
from mappers.scheduling.clashes import Refusal
from mappers.scheduling.elements import Resource, extension_value, members, target_of
from mappers.scheduling.extensions import SCHEDULE_OWNER
from mappers.scheduling.occupied import list_takings

OURS = ""
"""The owner of a Schedule that names none."""

_OF_TIME = frozenset(("clash", "buffer", "capacity"))


def read_owner(schedule: Resource) -> str:
    """The name of the partner that keeps a Schedule; "" where this server does."""
    return str(extension_value(schedule, SCHEDULE_OWNER) or OURS)


def split_by_owner(
    refusals: Sequence[Refusal], appointment: Resource, practice: Practice, partner: str
) -> tuple[list[Refusal], list[Refusal]]:
    """(refusals that remain, those that the message of a partner sets aside); without a partner all remain.

    Set aside is what is in the way of an actor whose Schedule the partner keeps; and of one without a Schedule, such
    as the patient, where no Schedule of the visit is another's.
    """
    if not refusals:
        return [], []
    owners = {each.actor: each.schedule and read_owner(each.schedule) for each in list_takings(appointment, practice)}
    free = all(owner in (None, partner) for owner in owners.values())
    remaining: list[Refusal] = []
    aside: list[Refusal] = []
    for each in refusals:
        owner = owners.get(each.actor, OURS)
        facts = partner and each.kind in _OF_TIME and (owner == partner or (owner is None and free))
        (aside if facts else remaining).append(each)
    return remaining, aside


def is_same_but_for_patients(old: Resource | None, new: Resource) -> bool:
    """Whether two versions of an Appointment differ in nothing but the patients who take part."""
    return old is not None and _without_patients(old) == _without_patients(new)


def _without_patients(appointment: Resource) -> Resource:
    people = [each for each in members(appointment, "participant") if not _is_patient(each)]
    count = len(members(appointment, "participant")) - len(people)
    rest = {name: value for name, value in appointment.items() if name != "meta"}
    return {**rest, "participant": people, "patients": count}


def _is_patient(participant: Resource) -> bool:
    return target_of(participant.get("actor")).startswith("Patient/")
