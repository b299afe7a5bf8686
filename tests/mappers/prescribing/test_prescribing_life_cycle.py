"""The life cycle of a prescription: the table of the page is that of the code, and it fits the statuses of R4."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from mappers.prescribing.life_cycle import TRANSITIONS, check_transition, find_end
from mappers.prescribing.refills import REFILL_TRANSITIONS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "prescribing.md"


@pytest.mark.parametrize(("heading", "table"), [("Life cycle", TRANSITIONS), ("Refill requests", REFILL_TRANSITIONS)])
def test_the_page_shows_the_table(heading: str, table: Mapping[str, tuple[str, ...]]) -> None:
    section = PAGE.read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| ((?:`[a-z-]+`(?:, )?)+|none) \|", section, re.MULTILINE)
    shown = {status: tuple(re.findall(r"`([a-z-]+)`", cell)) for status, cell in rows}
    assert shown == dict(table)


def test_a_refill_request_has_the_statuses_of_a_task() -> None:
    """http://hl7.org/fhir/R4/valueset-task-status.html: what has ended can only be an error."""
    statuses = {"draft", "requested", "received", "accepted", "rejected", "ready", "cancelled", "in-progress"}
    statuses |= {"on-hold", "failed", "completed", "entered-in-error"}
    assert set(REFILL_TRANSITIONS) == statuses
    for status, following in REFILL_TRANSITIONS.items():
        assert set(following) <= statuses - {status}
        assert "requested" not in following or status == "draft"


def test_it_has_the_statuses_of_r4() -> None:
    """http://hl7.org/fhir/R4/valueset-medicationrequest-status.html"""
    statuses = {"active", "on-hold", "cancelled", "completed", "entered-in-error", "stopped", "draft", "unknown"}
    assert set(TRANSITIONS) == statuses
    assert {each for following in TRANSITIONS.values() for each in following} <= statuses


def test_what_has_ended_stays_ended() -> None:
    for ended in ("completed", "stopped", "cancelled", "entered-in-error"):
        issue = check_transition(ended, "active")
        assert issue is not None and issue.severity == "error"
        assert check_transition(ended, ended) is None
    assert check_transition("draft", "active") is None


def test_where_discontinuing_leads() -> None:
    """R4: `cancelled` is withdrawn before any administration, `stopped` is halted before all of them."""
    assert (find_end("draft"), find_end("active"), find_end("on-hold")) == ("cancelled", "stopped", "stopped")
    assert find_end("active", "cancelled") == "cancelled"
