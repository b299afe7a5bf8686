"""The worklists of claims: the search on their Tasks behind each, and its rows (docs/billing.md)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import NamedTuple

from mappers.billing import codes
from mappers.billing.claim_states import CODE, ClaimState, read_state
from mappers.billing.fields import (
    Resource,
    find_identifier,
    find_reference,
    find_serviced_days,
    make_reference,
    to_amount,
    to_day,
)
from mappers.billing.parties import find_names

Pairs = tuple[tuple[str, str], ...]


class Worklist(NamedTuple):
    """The states of its claims, and what it is. `aged`: only claims that have been in their state for some days."""

    states: tuple[ClaimState, ...]
    meaning: str
    aged: bool = False


WORKLISTS: Mapping[str, Worklist] = {
    "draft": Worklist(("draft",), "made or edited, and not judged since: scrub them"),
    "ready": Worklist(("ready",), "without an error: send them"),
    "held": Worklist(("held",), "wait for a person"),
    "rejected": Worklist(("rejected",), "refused by a 999 or 277CA: mend and send again"),
    "sent": Worklist(("sent", "received", "accepted"), "gone out and not adjudicated"),
    "aged": Worklist(("sent", "received", "accepted"), "gone out long ago and not adjudicated: ask the payer", True),
}

QUESTIONS: Pairs = (("code", f"{codes.TASK}|claim-status"), ("status", "requested"), ("_sort", "authored-on"))
"""The search for what a person is asked about claims that have gone out; it is shown with the aged ones."""

COLUMNS = ("claim", "number", "patient", "payer", "service", "total", "state", "since", "days", "why")


def build_search(worklist: Worklist, today: date, days: int, patient: str = "") -> Pairs:
    """The search behind a worklist, those first that have waited longest. `days`: of an aged one."""
    states = ",".join(f"{codes.CLAIM_STATE}|{each}" for each in worklist.states)
    pairs = [("code", f"{codes.TASK}|{CODE}"), ("business-status", states)]
    if worklist.aged:
        pairs.append(("modified", f"lt{today - timedelta(days=days)}"))
    if patient:
        pairs.append(("patient", patient))
    included = (
        ("_include", "Task:focus"),
        ("_include:iterate", "Claim:patient"),
        ("_include:iterate", "Claim:insurer"),
    )
    return (*pairs, ("_sort", "modified"), *included)


def list_rows(tasks: Iterable[Resource], resources: Mapping[str, Resource], today: date) -> list[tuple[str, ...]]:
    """A row of COLUMNS for each Task of a claim. `resources`: what the search includes, by reference."""
    return [_make_row(each, resources, today) for each in tasks]


def _make_row(task: Resource, resources: Mapping[str, Resource], today: date) -> tuple[str, ...]:
    reference = find_reference(task.get("focus"))
    claim = resources.get(reference, {})
    since = to_day(str(task.get("lastModified", "")))
    first = min((day for item in claim.get("item", ()) for day in find_serviced_days(item)[:1] if day), default=None)
    return (
        reference,
        find_identifier(claim, codes.PATIENT_CONTROL_NUMBER),
        _name(claim.get("patient"), resources),
        _name(claim.get("insurer"), resources),
        str(first or ""),
        f"{to_amount(claim['total']):.2f}" if "total" in claim else "",
        read_state(task) or "unknown",
        str(since or ""),
        str((today - since).days) if since else "",
        str((task.get("statusReason") or {}).get("text", "")),
    )


def _name(element: object, resources: Mapping[str, Resource]) -> str:
    """The name of who is referred to, else the reference."""
    reference = find_reference(element)
    last, first = find_names(resources.get(reference, {}))
    return f"{last}, {first}" if last and first else last or reference


def index_resources(entries: Iterable[Resource]) -> dict[str, Resource]:
    """The resources of a searchset by reference."""
    return {make_reference(each["resource"]): each["resource"] for each in entries}


def _guard(text: str) -> str:
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def write_csv(rows: Sequence[tuple[str, ...]]) -> str:
    """The columns and the rows; what a spreadsheet would take for a formula gets an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(
        [f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell for cell in row] for row in rows
    )
    return text.getvalue()
