"""The pages on messages, partners, transports and mappers say what the code does, and their code runs."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.partners import Partner, read_partner
from fhir_server.partners.endpoints import FolderEndpoint, HttpEndpoint, MllpEndpoint
from fhir_server.partners.hl7v2 import Hl7v2Field, Hl7v2OutSection, Hl7v2Section, Hl7v2Send
from fhir_server.partners.x12 import X12OwnSide, X12Section, X12Separators
from fhir_server.requests.request import Caller
from fhir_server.transports.protocol import Transport
from fhir_server.workers.message_states import STATES
from fhir_server.workers.message_tasks import BEGINNING, LARGEST_MESSAGE, IncomingMessage
from fhir_server.workers.messages import receive
from tests.conftest import serving

DOCS = Path(__file__).resolve().parents[1] / "docs"


def read_code(page: str, language: str) -> str:
    """The one block of a language on a page."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    return str(block)


def read_rows(page: str, heading: str) -> list[list[str]]:
    """The rows of the first table behind a heading, without backticks."""
    text = (DOCS / page).read_text(encoding="utf-8").split(heading, 1)[1]
    table = re.search(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert table
    rows = [[cell.strip().replace("`", "") for cell in line.split("|")[1:-1]] for line in table[0].splitlines()]
    return rows[2:]


def test_the_page_has_the_table_of_states() -> None:
    expected = [
        [state, row.status, row.meaning, ", ".join(row.next) or "nothing", "yes" if row.removable else "no"]
        for state, row in STATES.items()
    ]
    assert read_rows("messages.md", "## States") == expected


def test_the_page_has_the_sizes() -> None:
    text = (DOCS / "messages.md").read_text(encoding="utf-8")
    assert f"more than {LARGEST_MESSAGE // 1024 // 1024} MB" in text and f"first {BEGINNING} bytes" in text


@pytest.mark.parametrize(
    ("model", "heading"),
    [
        (Partner, "# Partners"),
        (FolderEndpoint, "## Folder"),
        (Hl7v2Section, "## HL7 v2\n"),
        (Hl7v2Field, "An entry of `custom_fields`"),
        (Hl7v2OutSection, "## HL7 v2 out"),
        (Hl7v2Send, "An entry of `send`"),
        (MllpEndpoint, "## MLLP"),
        (HttpEndpoint, "## HTTP"),
        (X12Section, "## X12\n"),
        (X12OwnSide, "## X12 ours"),
        (X12Separators, "## X12 separators"),
    ],
)
def test_the_page_has_every_key_of_a_partners_file(model: Any, heading: str) -> None:
    keys = [field.alias or name for name, field in model.model_fields.items()]
    assert [row[0] for row in read_rows("partners.md", heading)] == keys


def test_the_example_of_a_partner_is_right(tmp_path: Path) -> None:
    path = tmp_path / "lab.toml"
    path.write_text(read_code("partners.md", "toml"), encoding="utf-8")
    assert read_partner(path).name == "county-lab"


def test_the_transport_of_the_page_delivers_once() -> None:
    names: dict[str, Any] = {}
    exec(read_code("adding/a-transport.md", "python"), names)
    drawers: dict[tuple[str, str], bytes] = {}
    transport: Transport = names["Drawers"](drawers)
    endpoint = {"drawer": "left"}

    async def deliver(payload: bytes) -> str:
        return (await transport.deliver(endpoint, "7", payload)).outcome

    assert asyncio.run(transport.find_delivered(endpoint, "7")) is False
    assert [asyncio.run(deliver(payload)) for payload in (b"a", b"a", b"b")] == ["delivered", "delivered", "refused"]
    assert asyncio.run(transport.find_delivered(endpoint, "7")) and drawers == {("left", "7"): b"a"}
    assert transport.repeats is False


@pytest.mark.anyio
async def test_the_interpreter_of_the_page_takes_notes(known: Knowledge) -> None:
    names: dict[str, Any] = {}
    exec(read_code("adding/a-mapper.md", "python"), names)
    async with serving(known, store="memory://") as client:
        context, caller = client.server.context, Caller("http://test/fhir")
        for raw, state in ((b"4711\nKeller", "acknowledged"), (b"4711", "refused"), (b"4712\n\x00", "refused")):
            message = IncomingMessage("clinic", "note", "1", raw, "text/plain")
            assert (await receive(context, caller, message, names["NOTES"])).state == state
        found = (await client.fhir("GET", "Patient?identifier=urn:example:mrn|4711")).json()
        assert found["entry"][0]["resource"]["name"] == [{"family": "Keller"}]
