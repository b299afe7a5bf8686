"""The samples of X12 through `$x12` and the worker `postings`, and bad ones: never a fault, never posted unbalanced."""

from __future__ import annotations

import asyncio
import base64
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_server.app import Knowledge
from mappers.x12.structure import check_interchange
from tests.conftest import Client, serving
from tests.operations.payments.remittances import post_all
from tests.shared import SHARED, shared_path
from tests.workers.x12_files import PLAN, file, group, post, remittance

SAMPLES = sorted((SHARED / "data" / "x12").glob("*.*"))
REMITTANCES = [each for each in SAMPLES if each.suffix == ".835"]
BALANCED = 4
"""All samples of the 835: each BPR02 is its CLP04 less its PLB, reckoned by hand."""

OWN = file(group(remittance(), remittance("0002", trace="T2", amount="-5", paid="-5")))
"""An 835 of our own, so that the laws are held where the samples are not."""

_HEADER = 106


def write_sides(folder: Path, text: str) -> str:
    """The file of a partner who sends what the ISA of a text says, under the folder `partners`."""
    isa = text[:_HEADER].split("*")
    ours, theirs = (f'qualifier = "{isa[n]}"\nid = "{isa[n + 1].strip()}"' for n in (7, 5))
    plan = PLAN.format(top="", section=f'usage = "{isa[15]}"')
    plan = plan.replace('id = "RECEIVER"', ours).replace('id = "SENDER"', theirs)
    (folder / "partners").mkdir(exist_ok=True)
    (folder / "partners" / "plan.toml").write_text(plan, encoding="utf-8")
    return str(folder)


async def find(client: Client, search: str) -> list[dict[str, Any]]:
    answer = (await client.fhir("GET", f"{search}&_count=200")).json()
    return [each["resource"] for each in answer.get("entry", ())]


def reckon(text: str) -> Decimal | None:
    """BPR02 less what the claims pay and plus what PLB holds back, of a text from ST to SE; None for what is no number.

    005010X221A1 §1.10.2.1; an oracle that knows of nothing but segments and elements.
    """
    segments = [each.strip().split("*") for each in text.split("~")]
    try:
        difference = Decimal(0)
        for segment in segments:
            if segment[0] == "BPR":
                difference += _read(segment, 2) * (-1 if segment[3] == "D" else 1)
            elif segment[0] == "CLP":
                difference -= _read(segment, 4)
            elif segment[0] == "PLB":
                difference += sum((_read(segment, n) for n in range(4, len(segment), 2)), Decimal(0))
    except (InvalidOperation, IndexError):
        return None
    return difference


def _read(segment: list[str], element: int) -> Decimal:
    text = segment[element] if element < len(segment) else ""
    return Decimal(text) if text else Decimal(0)


@pytest.mark.anyio
@pytest.mark.parametrize("path", REMITTANCES, ids=lambda path: path.stem)
async def test_a_balanced_sample_is_posted_and_one_cent_more_is_not(
    known: Knowledge, tmp_path: Path, path: Path
) -> None:
    text = shared_path(f"data/x12/{path.name}").read_text(encoding="utf-8")
    assert reckon(text) == 0
    bpr = next(each.strip() for each in text.split("~") if each.strip().startswith("BPR"))
    paid = Decimal(bpr.split("*")[2])
    async with serving(known, store="memory://", profiles=write_sides(tmp_path, text)) as client:
        wrong = text.replace(bpr, bpr.replace(f"*{bpr.split('*')[2]}*", f"*{paid + Decimal('0.01')}*", 1))
        assert "IK5*E" in (await post(client, wrong)).text  # none of them has PER*BL, which the guide requires
        (task,) = await find(client, "Task?code=remittance")
        assert "0.01 too much" in task["description"]
        assert await post_all(client) == 0 and await find(client, "PaymentReconciliation?status=active") == []
        answer = await post(client, text)
        assert check_interchange(answer.text) == () and "IK5*E" in answer.text
        assert await post_all(client) == 1
        (payment,) = await find(client, "PaymentReconciliation?status=active")
        assert (payment["outcome"], Decimal(str(payment["paymentAmount"]["value"]))) == ("complete", paid)
        assert sum(Decimal(str(each["amount"]["value"])) for each in payment["detail"]) == paid
        claims = sum(each.strip().startswith("CLP*") for each in text.split("~"))
        assert len(await find(client, "Task?code=unapplied-payment")) == claims


def test_every_sample_of_the_835_is_balanced() -> None:
    shared_path("data/x12")
    assert len(REMITTANCES) == BALANCED


TAKEN = {".277": "claim-status", ".271": "eligibility"}
"""Suffix → the code of the Task for what is to nothing of ours; claims and questions are refused."""


@pytest.mark.anyio
@pytest.mark.parametrize("path", [each for each in SAMPLES if each.suffix != ".835"], ids=lambda path: path.stem)
async def test_what_is_no_835_is_taken_or_refused(known: Knowledge, tmp_path: Path, path: Path) -> None:
    raw = shared_path(f"data/x12/{path.name}").read_bytes()
    text = raw.decode("latin-1").lstrip()
    isa = text[:_HEADER].split("*")
    if len(isa) < 17 or isa[15] not in "TP":
        pytest.fail(f"{path.name} has another ISA than the test reads.")
    async with serving(known, store="memory://", profiles=write_sides(tmp_path, text)) as client:
        answer = await post(client, raw)
        assert answer.status_code == 200 and check_interchange(answer.text) == ()
        expected = TAKEN.get(path.suffix)
        assert ("IK5*R*1" in answer.text) is (expected is None), answer.text
        if expected:
            assert await find(client, f"Task?code={expected}")


@st.composite
def mutations(draw: st.DrawFn) -> tuple[int, list[tuple[str, int, str]]]:
    """Which sample, and edits of it: of a segment, an element or a character, each at a place modulo the length."""
    edits = st.tuples(
        st.sampled_from(["drop", "double", "swap", "element", "character", "cut"]),
        st.integers(0, 10_000),
        st.sampled_from(
            ["", "0", "1", "-1", "0.01", "999999999", "1E9", "NaN", "D", "*", "~", ":", "\xe9", "CLP*X*1*1*1~"]
        ),
    )
    return draw(st.integers(0, len(REMITTANCES))), draw(st.lists(edits, min_size=1, max_size=4))


def mutate(text: str, edits: list[tuple[str, int, str]], start: int) -> str:
    """The text with edits behind `start`."""
    head, body = text[:start], text[start:]
    for kind, place, value in edits:
        segments = body.split("~")
        at = place % len(segments)
        if kind == "drop":
            del segments[at]
        elif kind == "double":
            segments.insert(at, segments[at])
        elif kind == "swap":
            segments[at], segments[at - 1] = segments[at - 1], segments[at]
        elif kind == "element":
            elements = segments[at].split("*")
            elements[place // 7 % len(elements)] = value
            segments[at] = "*".join(elements)
        body = "~".join(segments)
        if kind == "character" and body:
            at = place % len(body)
            body = body[:at] + value + body[at + 1 :]
        elif kind == "cut":
            body = body[: place % (len(body) + 1)]
    return head + body


def read_texts() -> list[str]:
    """The samples, and our own 835 in the envelope of a sample."""
    found = [shared_path(f"data/x12/{each.name}").read_text(encoding="utf-8") for each in REMITTANCES]
    number = found[0][:_HEADER].split("*")[13]
    return [*found, found[0][:_HEADER] + OWN[_HEADER:].replace("*000000001~", f"*{number}~")]


def find_own_faults(answer: str) -> list[str]:
    """What is wrong with an answer, but for AK1, AK2 and IK3, which repeat what came."""
    faults = [each for each in check_interchange(answer) if each.place.segment not in ("AK1", "AK2", "IK3")]
    return [each.sentence for each in faults]


@settings(max_examples=30)
@given(cases=st.lists(mutations(), min_size=1, max_size=6))
def test_no_mutated_835_is_a_fault_or_posted_unbalanced(
    known: Knowledge, tmp_path_factory: pytest.TempPathFactory, cases: list[tuple[int, list[tuple[str, int, str]]]]
) -> None:
    """`post` and `post_all` fail at an answer of 500 and at an error of the worker; one that is whole is posted."""
    shared_path("data/x12")
    texts = read_texts()
    profiles = write_sides(tmp_path_factory.mktemp("site"), texts[0])

    async def live() -> None:
        async with serving(known, store="memory://", profiles=profiles) as client:
            await post(client, texts[-1].replace("TRN*1*T", "TRN*1*WHOLE"))
            for number, (sample, edits) in enumerate(cases):
                text = mutate(texts[sample % len(texts)], edits, _HEADER)
                answer = await post(client, text, query="?partner=plan" if number % 2 else "")
                assert answer.status_code in (200, 202, 204, 400), answer.text
                assert answer.status_code != 200 or find_own_faults(answer.text) == [], answer.text
            await post_all(client)
            posted = await find(client, "PaymentReconciliation?status=active")
            assert {each["paymentIdentifier"]["value"] for each in posted} >= {"WHOLE1", "WHOLE2"}
            for payment in posted:
                await check_posted(client, payment)

    asyncio.run(live())


async def check_posted(client: Client, payment: dict[str, Any]) -> None:
    """What is active adds up, by the text that it came from and by what it says itself."""
    id = payment["request"]["reference"].partition("/")[2]
    kept = (await client.fhir("GET", f"Binary/{id}", headers={"Accept": "application/fhir+json"})).json()
    text = base64.b64decode(kept["data"]).decode("latin-1")
    assert reckon(text) == 0, text
    details = sum((Decimal(str(each["amount"]["value"])) for each in payment.get("detail", ())), Decimal(0))
    assert details == Decimal(str(payment["paymentAmount"]["value"])), text


@settings(max_examples=20)
@given(
    edits=st.lists(st.tuples(st.just("character"), st.integers(0, 300), st.characters(max_codepoint=255)), max_size=5)
)
def test_no_mutated_envelope_is_a_fault(
    known: Knowledge, tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[str, int, str]]
) -> None:
    """Also of ISA and its separators; the answer in FHIR is checked by the client of the tests as well."""
    profiles = write_sides(tmp_path_factory.mktemp("site"), OWN)

    async def live() -> None:
        async with serving(known, store="memory://", profiles=profiles) as client:
            text = mutate(OWN, edits, 0)
            for accept in ("application/EDI-X12", "application/fhir+json"):
                answer = await post(client, text.encode("latin-1"), accept=accept)
                assert answer.status_code in (200, 202, 204, 400), answer.text
            await post_all(client)

    asyncio.run(live())
