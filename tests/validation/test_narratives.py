"""What a narrative may hold (txt-1, txt-2), over HTTP: https://hl7.org/fhir/R4/narrative.html#xhtml."""

from __future__ import annotations

import pytest

from tests.conftest import Client

pytestmark = pytest.mark.anyio

DIV = '<div xmlns="http://www.w3.org/1999/xhtml">{}</div>'
REFUSED = {
    "script": DIV.format("a<script>alert(1)</script>"),
    "event": DIV.format('<img src="x.png" onerror="alert(1)"/>'),
    "link to a script": DIV.format('<a href="javascript:alert(1)">a</a>'),
    "frame": DIV.format('<iframe src="https://other.example/">a</iframe>'),
    "document type": '<!DOCTYPE div [<!ENTITY a "b">]>' + DIV.format("&a;"),
    "not closed": '<div xmlns="http://www.w3.org/1999/xhtml">a',
    "plain text": "a",
}


@pytest.mark.parametrize("div", REFUSED.values(), ids=REFUSED)
async def test_a_narrative_with_what_is_not_allowed_is_refused(client: Client, div: str) -> None:
    resource = {"resourceType": "Patient", "text": {"status": "generated", "div": div}}
    answer = await client.fhir("POST", "Patient", json=resource)
    assert answer.status_code == 400, answer.text
    [issue] = answer.json()["issue"]
    assert issue["diagnostics"].startswith("txt-1: `Patient.text.div`: ") and issue["expression"] == [
        "Patient.text.div"
    ]
    batch = {
        "resourceType": "Bundle",
        "type": "batch",
        "entry": [
            {"resource": each, "request": {"method": "POST", "url": "Patient"}}
            for each in (resource, {"resourceType": "Patient", "text": {"status": "generated", "div": DIV.format("a")}})
        ],
    }
    entries = (await client.fhir("POST", "", json=batch)).json()["entry"]
    assert [entry["response"]["status"][:3] for entry in entries] == ["400", "201"]
