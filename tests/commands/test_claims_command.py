"""`fhir-server claims` on the sample clinic: worklists with the search behind each, and scrubbing."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fhir_server.__main__ import cli
from fhir_server.app import Knowledge, Seams, open_server
from fhir_server.requests.request import Caller
from fhir_server.workers.posting.writes import put
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State
from mappers.billing.claim_states import make_task_id, move_task
from mappers.billing.fields import make_task
from tests.conftest import serving
from tests.operations.billing.claims_clinic import make_library
from tests.operations.charges.visits import write_clearinghouse
from tests.operations.scheduling.booking_clinic import Clock

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NOW = "2026-11-20T12:00:00Z"


async def fill(known: Knowledge, uri: str) -> None:
    """The sample clinic on 20 November 2026."""
    seams = Seams(clock=Clock(NOW))
    async with serving(known, seams, store=uri) as client:
        for path in sorted(EXAMPLES.glob("*.json")):
            answer = await client.post("", content=path.read_bytes(), headers={"Content-Type": "application/fhir+json"})
            assert answer.status_code == 200, answer.text


async def mend(known: Knowledge, uri: str) -> None:
    """The faults of `hannah-typed` as its page mends them."""
    async with serving(known, store=uri) as client:
        claim = (await client.get("Claim/hannah-typed")).json()
        claim["item"][1]["diagnosisSequence"] = [1]
        claim["total"]["value"] = 117.75
        assert (await client.put("Claim/hannah-typed", json=claim)).status_code == 200


@pytest.fixture
def uri(known: Knowledge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "400")
    on_that_day = partial(open_server, seams=Seams(clock=Clock(NOW)))
    monkeypatch.setattr("fhir_server.commands.messages.open_server", on_that_day)
    uri = f"sqlite:///{tmp_path}/fhir.db"
    asyncio.run(fill(known, uri))
    return uri


def run(uri: str, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["claims", *arguments, "--store", uri])


def rows(result: Result) -> list[dict[str, str]]:
    assert result.exit_code == 0, result.output
    return list(csv.DictReader(io.StringIO(result.stdout)))


def test_a_worklist_is_a_table_and_csv_with_the_search_behind_it(known: Knowledge, uri: str) -> None:
    shown = run(uri, "list", "draft")
    assert shown.exit_code == 0 and "draft: 2" in shown.stdout and "Weiss, Hannah" in shown.stdout
    found = run(uri, "list", "draft", "--csv")
    assert [(row["claim"], row["number"], row["payer"], row["total"]) for row in rows(found)] == [
        ("Claim/hannah-typed", "RB202600001", "Meadow Mutual Health Plan", "171.75"),
        ("Claim/linh-typed", "RB202600002", "Meadow Mutual Health Plan", "95.00"),
    ]
    assert {(row["service"], row["state"], row["since"]) for row in rows(found)} == {
        ("2026-11-12", "draft", "2026-11-20"),
        ("2026-11-16", "draft", "2026-11-20"),
    }
    told = found.stderr.strip()
    assert told in shown.stdout and told.startswith("Task?code=")

    async def ask() -> dict[str, Any]:
        async with serving(known, store=uri) as client:
            answer = await client.get(told)
            return answer.json()  # type: ignore[no-any-return]

    bundle = asyncio.run(ask())
    (own,) = [each["url"] for each in bundle["link"] if each["relation"] == "self"]
    assert "business-status=" in own and "_include" in own
    focused = [e["resource"]["focus"]["reference"] for e in bundle["entry"] if e["search"]["mode"] == "match"]
    assert focused == [row["claim"] for row in rows(found)]


def test_aged_claims_come_with_what_a_person_is_asked(known: Knowledge, uri: str) -> None:
    text = "`house` has sent no 999 for the 837P 000000007 in time."
    task = make_task("claim-status", "unanswered:Task/7:sent", "", NOW, text)

    async def store_task() -> None:
        async with serving(known, store=uri) as client:
            answer = await client.put("Task/q", json={**task, "id": "q"})
            assert answer.status_code == 201, answer.text

    asyncio.run(store_task())
    shown = run(uri, "list", "aged")
    assert shown.exit_code == 0 and f"? {text} (Task/q)" in shown.stdout
    assert "Task?code=https://fhir-server.example/CodeSystem/task|claim-status&status=requested" in shown.stdout
    assert text not in run(uri, "list", "sent").stdout


def test_scrubbing_a_worklist_moves_its_claims_and_says_what_is_wrong(uri: str) -> None:
    scrubbed = run(uri, "scrub", "--list", "draft")
    assert scrubbed.exit_code == 1
    assert "Claim/hannah-typed: 2 to mend" in scrubbed.stdout and "error total:" in scrubbed.stdout
    assert "2300/CLM02" in scrubbed.stdout and "Claim.total" in scrubbed.stdout
    assert rows(run(uri, "list", "draft", "--csv")) == []
    held = rows(run(uri, "list", "held", "--csv"))
    assert [row["claim"] for row in held] == ["Claim/hannah-typed", "Claim/linh-typed"]
    assert held[0]["why"].startswith("Rules broken: total")
    assert "Claim/none: 1 to mend" in run(uri, "scrub", "Claim/none").stdout


def test_splitting_shows_what_it_would_make_and_makes_it_when_told(known: Knowledge, uri: str) -> None:
    """The rule set puts 87880 on a claim of its own; without rules the claim stays whole."""
    assert "Claim/hannah-typed: stays whole" in run(uri, "split", "Claim/hannah-typed").stdout
    rule = {
        "id": "tests",
        "because": "the laboratory bills alone",
        "when": [{"fact": "line.code", "in": ["87880"]}],
        "then": {"action": "route", "bucket": "tests"},
    }
    library = make_library("rules", "claim-split-rules", {"name": "riverbend", "rules": [rule]})

    async def store_rules() -> None:
        async with serving(known, store=uri) as client:
            answer = await client.put("Library/rules", json=library)
            assert answer.status_code == 201, answer.text

    asyncio.run(store_rules())
    tried = run(uri, "split", "Claim/hannah-typed")
    assert tried.exit_code == 0 and "Claim/hannah-typed: split" in tried.stdout
    children = re.findall(r"child (Claim/\S+) (\S+)", tried.stdout)
    assert sorted(total for _, total in children) == ["22.75", "95.0"]
    assert len(rows(run(uri, "list", "draft", "--csv"))) == 2
    made = run(uri, "split", "--list", "draft", "--commit")
    assert made.exit_code == 0 and re.findall(r"child (Claim/\S+) (\S+)", made.stdout)[:2] == children
    assert {row["claim"] for row in rows(run(uri, "list", "draft", "--csv"))} >= {name for name, _ in children}
    assert run(uri, "split", "Claim/none").exit_code == 1


def test_a_worklist_is_sent_and_what_has_errors_is_told(
    known: Knowledge, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FHIR_PROFILES", str(write_clearinghouse(tmp_path)))
    sent = run(uri, "transmit", "--list", "draft")
    assert sent.exit_code == 1
    assert "Claim/hannah-typed: held" in sent.stdout and "error total:" in sent.stdout
    asyncio.run(mend(known, uri))
    sent = run(uri, "transmit", "Claim/hannah-typed", "--partner", "clearinghouse")
    assert sent.exit_code == 0, sent.output
    (delivery,) = re.findall(r"^Claim/hannah-typed: sent, (Task/\S+)$", sent.stdout, re.MULTILINE)
    assert delivery in run(uri, "transmit", "Claim/hannah-typed").stdout
    assert [row["claim"] for row in rows(run(uri, "list", "sent", "--csv"))] == ["Claim/hannah-typed"]
    refused = run(uri, "transmit", "Claim/hannah-typed", "--resubmit")
    assert refused.exit_code == 1 and "`resubmit` needs a `frequency`" in refused.stdout


def test_a_claim_that_was_sent_long_ago_is_aged(known: Knowledge, uri: str) -> None:
    async def mark_sent() -> None:
        moments = {"linh-typed": "2020-01-01T00:00:00Z", "hannah-typed": NOW}
        async with serving(known, store=uri) as client:

            async def decide(state: State) -> Decision[None]:
                actions = []
                for claim, moment in moments.items():
                    task = await state.read("Task", make_task_id(f"Claim/{claim}"))
                    assert task is not None
                    actions.append(put(move_task({**task.tree, "authoredOn": moment}, "sent", moment)))
                return Decision(None, actions)

            await decide_and_commit(client.server.context, Caller(""), decide)

    asyncio.run(mark_sent())
    assert [row["claim"] for row in rows(run(uri, "list", "sent", "--csv"))] == [
        "Claim/linh-typed",
        "Claim/hannah-typed",
    ]
    (aged,) = rows(run(uri, "list", "aged", "--csv"))
    assert aged["claim"] == "Claim/linh-typed" and int(aged["days"]) > 365
    assert run(uri, "list", "aged", "--csv", "--days", "1000000").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("list", "late"), "There is no worklist `late`; there are draft, ready"),
        (("list", "--csv"), "name the worklist"),
        (("scrub",), "Name claims such as `Claim/1`, or a worklist with --list."),
        (("scrub", "Patient/1"), "`Patient/1` is neither."),
        (("scrub", "--list", "late"), "There is no worklist `late`"),
    ],
)
def test_what_makes_no_sense_is_told(tmp_path: Path, arguments: tuple[str, ...], text: str) -> None:
    refused = run(f"sqlite:///{tmp_path}/fhir.db", *arguments)
    assert refused.exit_code == 2 and text in refused.stderr
