"""`Claim/$cms1500` over HTTP: PDF or boxes, never of a claim that is split, cancelled, divided by rules or faulty."""

from __future__ import annotations

import builtins
import io
from typing import Any

import pytest
from pypdf import PdfReader

from fhir_server.app import Knowledge
from tests.operations.billing.claims_clinic import claims_clinic, make_library, put, read, read_state, rules_of
from tests.operations.payments.money_clinic import sentence

pytestmark = pytest.mark.anyio

Tree = dict[str, Any]
PDF = {"Accept": "application/pdf"}


def texts_of(answer: Tree) -> list[str]:
    """All texts of the boxes of Parameters."""
    boxes = (box["part"] for page in answer["parameter"] if page["name"] == "page" for box in page["part"])
    return [part["valueString"] for parts in boxes for part in parts if part["name"] == "text"]


async def test_a_clean_claim_is_a_pdf_and_keeps_its_state(known: Knowledge, store_uri: str) -> None:
    async with claims_clinic(known, store_uri) as (client, (claim,)):
        answer = await client.fhir("GET", "Claim/c00000/$cms1500", headers=PDF)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/pdf")
        (page,) = PdfReader(io.BytesIO(answer.content)).pages
        text = page.extract_text()
        assert claim["identifier"][0]["value"] in text
        boxes = (await client.fhir("GET", "Claim/c00000/$cms1500")).json()
        assert all(each in text for each in texts_of(boxes))
        assert await read_state(client, "Claim/c00000") == "draft"
        moved = await client.fhir("POST", "Claim/c00000/$cms1500?left=30&top=10", headers=PDF)
        assert moved.status_code == 200 and moved.content != answer.content


async def test_a_draft_of_the_request_is_printed_and_not_stored(known: Knowledge) -> None:
    async with claims_clinic(known) as (client, (claim,)):
        draft = {**claim, "id": "new", "identifier": [{"system": "urn:x", "value": "7"}]}
        await put(client, {**claim, "status": "cancelled"})  # else the draft is a duplicate of it
        bare = await client.fhir("POST", "Claim/$cms1500", json=draft)
        assert bare.status_code == 200 and texts_of(bare.json()), bare.text
        wrapped = {"resourceType": "Parameters", "parameter": [{"name": "resource", "resource": draft}]}
        assert (await client.fhir("POST", "Claim/$cms1500", json=wrapped)).json() == bare.json()
        assert (await client.fhir("GET", "Claim/new")).status_code == 404


async def test_a_faulty_claim_is_refused_with_its_findings(known: Knowledge) -> None:
    async with claims_clinic(known) as (client, _):
        patient = await read(client, "Patient/a00000")
        await put(client, {key: value for key, value in patient.items() if key != "birthDate"})
        for headers in ({}, PDF):
            answer = await client.fhir("GET", "Claim/c00000/$cms1500", headers=headers)
            assert answer.status_code == 422 and "patient-birth-date" in rules_of(answer.json())


async def test_paper_is_no_way_round_the_rules(known: Knowledge) -> None:
    """A rule divides or holds; then the claim is split, and its children are printed."""
    async with claims_clinic(known, count=3) as (client, claims):
        claim = next(each for each in claims if len(each["item"]) > 1)
        reference = f"Claim/{claim['id']}"
        rules = {
            "name": "r",
            "rules": [{"id": "lines", "because": "each on its own", "then": {"action": "split", "key": "line.code"}}],
        }
        await put(client, make_library("r", "claim-split-rules", rules))
        refused = await client.fhir("GET", f"{reference}/$cms1500")
        assert refused.status_code == 422 and "commit its `$split`" in sentence(refused), refused.text
        await client.fhir("POST", f"{reference}/$split?commit=true")
        split = await client.fhir("GET", f"{reference}/$cms1500", headers=PDF)
        assert split.status_code == 409 and "print its children" in sentence(split)
        hold = {"name": "r", "rules": [{"id": "wait", "because": "the chart is open", "then": {"action": "hold"}}]}
        await put(client, make_library("r", "claim-split-rules", hold))
        other = next(each for each in claims if each is not claim)
        held = await client.fhir("GET", f"Claim/{other['id']}/$cms1500")
        assert held.status_code == 422 and "the chart is open" in held.text
        await put(client, {**other, "status": "cancelled"})
        ended = await client.fhir("GET", f"Claim/{other['id']}/$cms1500")
        assert ended.status_code == 422 and "`cancelled`" in sentence(ended)


@pytest.mark.parametrize(
    ("method", "url", "status", "text"),
    [
        ("GET", "Claim/none/$cms1500", 404, "There is no `Claim/none`"),
        ("POST", "Claim/$cms1500", 400, "needs a Claim"),
        ("GET", "Claim/c00000/$cms1500?left=73", 400, "0 to 72 points, not `73`"),
        ("GET", "Claim/c00000/$cms1500?top=NaN", 400, "not `NaN`"),
        ("GET", "Claim/c00000/$cms1500?right=1", 400, "no parameter `right`"),
        ("GET", "Claim/c00000/$cms1500?_format=text/html", 406, "is not offered"),
    ],
)
async def test_what_cannot_be_printed_says_why(known: Knowledge, method: str, url: str, status: int, text: str) -> None:
    async with claims_clinic(known) as (client, _):
        answer = await client.fhir(method, url)
        assert (answer.status_code, text in sentence(answer)) == (status, True), answer.text


async def test_without_reportlab_the_boxes_come_as_json(known: Knowledge, monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("reportlab"):
            raise ImportError(name)
        return load(name, *rest, **more)

    async with claims_clinic(known) as (client, _):
        monkeypatch.setattr(builtins, "__import__", refuse)
        answer = await client.get("Claim/c00000/$cms1500", headers=PDF)
        assert answer.status_code == 501 and "pip install 'fhir-server[pdf]'" in sentence(answer), answer.text
        assert (await client.fhir("GET", "Claim/c00000/$cms1500")).status_code == 200
