"""Claims moved by what partners say of them, all those of one message in its transaction (docs/x12.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fhir_server.fhir.outcome import Issue, build_operation_outcome
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.query import Equals, Ids
from fhir_server.workers.claim_tasks import move
from fhir_server.workers.interpreters import Entry
from fhir_server.workers.message_codes import make_part
from fhir_server.workers.posting.writes import copy, name, read_now
from fhir_server.writes.state import State
from mappers.billing import codes
from mappers.billing.claim_states import (
    ClaimState,
    find_refusal,
    has_passed,
    list_outputs,
    make_claim_task,
    make_task_id,
)
from mappers.billing.fields import Resource, make_reference, make_task

_AT_ONCE = 500


class ClaimMove(NamedTuple):
    """What a message says of a claim: its next state, or None where it keeps it, the reason, the faults."""

    to: ClaimState | None
    reason: str
    issues: Sequence[Issue] = ()


class Said(NamedTuple):
    """What a message makes: entries of its transaction, and remarks."""

    entries: list[Entry]
    issues: list[Issue]


async def find_claims(state: State, numbers: Iterable[str]) -> dict[str, Resource]:
    """By patient control number, the claims that have one of these; each number is of one claim."""
    wanted = sorted({each.strip().upper() for each in numbers} - {""})
    found: dict[str, Resource] = {}
    for start in range(0, len(wanted), _AT_ONCE):
        part = wanted[start : start + _AT_ONCE]
        terms = tuple(f"{each}{SEPARATOR}{codes.PATIENT_CONTROL_NUMBER}" for each in part)
        for each in await state.search("Claim", Equals("identifier", terms)):
            values = (one.get("value", "") for one in each.tree["identifier"] if one.get("system") in _SYSTEMS)
            found |= {value: copy(each.tree) for value in values if value in part}
    return found


_SYSTEMS = (codes.PATIENT_CONTROL_NUMBER,)


class Source(NamedTuple):
    """Where an answer comes from: the Task of its message, and the delivery that it answers where that is known."""

    message: str
    delivery: str = ""


async def move_claims(
    state: State, claims: Mapping[str, Resource], moves: Mapping[str, ClaimMove], source: Source
) -> Said:
    """The Tasks of claims as they move, by their patient control numbers.

    What comes late changes nothing; what a claim's state does not allow, and what answers a transmission after which
    the claim was sent again, is a remark and stops no other claim.
    """
    tasks = await _read_tasks(state, claims.values())
    said = Said([], [])
    for number, (to, reason, issues) in moves.items():
        claim = claims[number]
        task = tasks.get(make_task_id(make_reference(claim))) or make_claim_task(claim, read_now(state.context))
        if to is None or has_passed(task, to):
            continue
        sent = list_outputs(task, "transmission")
        refusal = find_refusal(task, to)
        if sent and source.delivery and sent[-1] != source.delivery:
            text = f"`{make_reference(claim)}` was sent again after `{source.delivery}`, which this answers; it stays."
            said.issues.append(Issue("warning", "conflict", text))
            continue
        if refusal is not None:
            said.issues.append(Issue("warning", "conflict", refusal.diagnostics))
            continue
        outputs = [make_part("result", valueReference={"reference": source.message})]
        said.entries.append(put_entry(_tell_issues(move(state, task, to, reason, outputs), issues)))
    return said


async def _read_tasks(state: State, claims: Iterable[Resource]) -> dict[str, Resource]:
    ids = sorted(make_task_id(make_reference(each)) for each in claims)
    found: dict[str, Resource] = {}
    for start in range(0, len(ids), _AT_ONCE):
        stored = await state.search("Task", Ids(tuple(ids[start : start + _AT_ONCE])))
        found |= {str(each.tree["id"]): copy(each.tree) for each in stored}
    return found


def _tell_issues(task: Resource, issues: Sequence[Issue]) -> Resource:
    """The Task with the faults as a contained OperationOutcome, in place of those of an earlier answer."""
    kept = {key: value for key, value in task.items() if key != "contained"}
    kept["output"] = [each for each in task.get("output", ()) if each.get("valueReference") != _ISSUES]
    if issues:
        kept["contained"] = [{**build_operation_outcome(issues), "id": "issues"}]
        kept["output"].append(make_part("issues", valueReference=_ISSUES))
    return kept


_ISSUES = {"reference": "#issues"}


def put_entry(resource: Mapping[str, Any]) -> Entry:
    """The entry that stores a resource under its id."""
    url = f"{resource['resourceType']}/{resource['id']}"
    return {"request": {"method": "PUT", "url": url}, "resource": resource}


def ask_person(state: State, key: str, text: str, focus: str = "", code: str = "claim-status") -> Entry:
    """A Task that asks a person to look at what a partner said; the key makes it exist once."""
    return put_entry(name(make_task(code, key, focus, read_now(state.context), text)))
