"""Searches against an evaluator that shares nothing with the server: official expressions run by a FHIRPath engine.

The expressions are read from the official package, values are compared by the rules of
https://hl7.org/fhir/R4/search.html in plain Python, over the resources as they were sent.
"""

from __future__ import annotations

import random
import re
import tarfile
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import fhirpathpy
import orjson
import pytest
from fhirpathpy.models import models

from fhir_server.app import Knowledge
from tests.differential.both import IN_THE_LONG_RUN, Ask, Both, answer, both, matches, uri_of
from tests.shared import shared_path

pytestmark = pytest.mark.anyio

PER_PARAMETER = 6
SEED = 20260106

TOKENS = {
    "Patient": ("gender", "identifier", "active"),
    "Observation": ("code", "status", "category"),
    "Encounter": ("class", "status", "type"),
    "Condition": ("code", "clinical-status"),
    "MedicationRequest": ("status", "intent"),
    "Claim": ("use", "identifier"),
    "Immunization": ("vaccine-code",),
    "Procedure": ("code",),
}
STRINGS = {
    "Patient": ("given", "name", "phonetic", "address-city"),
    "Practitioner": ("name",),
    "Person": ("name",),
    "RelatedPerson": ("name",),
    "Organization": ("name", "address"),
    "Location": ("name",),
}
FAMILIES = {"Patient": ("family",), "Practitioner": ("family",)}
DATES = {
    "Patient": ("birthdate",),
    "Observation": ("date",),
    "Encounter": ("date",),
    "Procedure": ("date",),
    "Claim": ("created",),
    "Immunization": ("date",),
}
CASES = [
    (kind, type, code)
    for kind, table in (("token", TOKENS), ("string", STRINGS), ("family", FAMILIES), ("date", DATES))
    for type, codes in table.items()
    for code in codes
]

Evaluate = Callable[[dict[str, Any]], list[Any]]


@pytest.fixture(scope="module")
def official() -> dict[tuple[str, str], str]:
    """(type, code) → the expression that the official package gives."""
    found: dict[tuple[str, str], str] = {}
    with tarfile.open(shared_path("definitions/hl7.fhir.r4.core.tgz")) as archive:
        for member in archive:
            if "/SearchParameter-" in member.name and (file := archive.extractfile(member)):
                facts = orjson.loads(file.read())
                found |= {(type, facts["code"]): facts.get("expression", "") for type in facts.get("base", ())}
    return found


@pytest.fixture(scope="module", params=IN_THE_LONG_RUN)
async def servers(request: pytest.FixtureRequest, known: Knowledge) -> AsyncIterator[Both]:
    async with both(known, uri_of(request)) as servers:
        yield servers


def evaluator(expression: str, type: str) -> Evaluate:
    """The branches of an expression that are for this type, each compiled."""
    branches = [part.strip() for part in expression.split("|")]
    mine = [branch for branch in branches if re.match(rf"\(*{type}\b", branch)]
    # the engine's `as` refuses lists, where search expressions mean every value of the type
    told = [re.sub(r"\(([^()|]+) as ([A-Za-z]+)\)", r"\1.ofType(\2)", branch) for branch in mine]
    compiled = [fhirpathpy.compile(branch, models["r4"]) for branch in told]
    return lambda resource: [value for branch in compiled for value in branch(resource, {})]


def codes(value: Any) -> Iterator[tuple[str, str]]:
    """(system, code) pairs of what a token parameter finds."""
    if isinstance(value, bool):
        yield "", "true" if value else "false"
    elif isinstance(value, str):
        yield "", value
    elif "coding" in value:
        for coding in value["coding"]:
            yield from codes(coding)
    elif "code" in value:
        yield value.get("system", ""), value["code"]
    elif "value" in value:
        yield value.get("system", ""), value["value"]


def plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFD", text.casefold())
    letters = (each for each in decomposed if not unicodedata.combining(each))
    return "".join(each for each in letters if not unicodedata.category(each).startswith("P"))


PARTS = ("text", "family", "given", "prefix", "suffix", "line", "city", "district", "state", "postalCode", "country")


def strings(value: Any) -> Iterator[str]:
    """The texts of what a string parameter finds: the parts of a HumanName or Address, or the string itself."""
    if isinstance(value, str):
        yield value
        return
    for part in PARTS:
        found = value.get(part, [])
        yield from [found] if isinstance(found, str) else found


def beginnings(value: Any, family: bool) -> Iterator[str]:
    """The texts that a value may begin: of a family name (`family`: the value is one), what follows a gap as well."""
    yield from strings(value)
    name = value if family else value.get("family", "") if isinstance(value, dict) else ""
    for gap in re.finditer(r"[ -]", name):
        yield name[gap.end() :].split(" ")[0].split("-")[0]


def span(text: str) -> tuple[datetime, datetime]:
    """The half-open interval of a FHIR date, dateTime or instant; without an offset it is read in UTC."""
    if len(text) == 4:
        return datetime(int(text), 1, 1, tzinfo=UTC), datetime(int(text) + 1, 1, 1, tzinfo=UTC)
    if len(text) == 7:
        year, month = int(text[:4]), int(text[5:])
        after = (year + month // 12, month % 12 + 1)
        return datetime(year, month, 1, tzinfo=UTC), datetime(*after, 1, tzinfo=UTC)
    low = datetime.fromisoformat(text)
    if len(text) == 10:
        return low.replace(tzinfo=UTC), low.replace(tzinfo=UTC) + timedelta(days=1)
    width = timedelta(milliseconds=1) if "." in text else timedelta(seconds=1)
    return low, low + width


def spans(value: Any) -> Iterator[tuple[datetime, datetime]]:
    """The intervals of what a date parameter finds; an open end of a Period is the end of time."""
    if isinstance(value, str):
        yield span(value)
    elif "start" in value or "end" in value:
        low = span(value["start"])[0] if "start" in value else datetime.min.replace(tzinfo=UTC)
        high = span(value["end"])[1] if "end" in value else datetime.max.replace(tzinfo=UTC)
        yield low, high


def escaped(text: str) -> str:
    return re.sub(r"([\\,$|])", r"\\\1", text)


Questions = Iterator[tuple[str, Callable[[list[Any]], bool]]]
"""(search value, whether a resource with these values matches)."""


def _has_code(code: str, values: list[Any]) -> bool:
    return any(code == each for value in values for _, each in codes(value))


def _has_coding(coding: tuple[str, str], values: list[Any]) -> bool:
    return any(coding == each for value in values for each in codes(value))


def token_questions(values: list[Any], roll: random.Random) -> Questions:
    found = sorted({pair for value in values for pair in codes(value)})
    for system, code in roll.sample(found, k=min(PER_PARAMETER, len(found))):
        yield escaped(code), partial(_has_code, code)
        yield f"{escaped(system)}|{escaped(code)}", partial(_has_coding, (system, code))


def _begins_with(start: str, family: bool, values: list[Any]) -> bool:
    return any(plain(each).startswith(start) for value in values for each in beginnings(value, family))


def string_questions(values: list[Any], roll: random.Random, family: bool = False) -> Questions:
    whole = sorted({text for value in values for text in strings(value)})
    later = sorted({text for value in values for text in beginnings(value, family) if text} - set(whole))
    chosen = [text for found in (whole, later) for text in roll.sample(found, k=min(PER_PARAMETER, len(found)))]
    for text in chosen:
        start = text[: roll.randint(1, 6)].strip()
        yield escaped(start.swapcase()), partial(_begins_with, plain(start), family)


def family_questions(values: list[Any], roll: random.Random) -> Questions:
    return string_questions(values, roll, family=True)


def _lies_within(low: datetime, high: datetime, values: list[Any]) -> bool:
    return any(low <= first and last <= high for value in values for first, last in spans(value))


def date_questions(values: list[Any], roll: random.Random) -> Questions:
    found = sorted({low for value in values for low, _ in spans(value)})
    for moment in roll.sample(found, k=min(PER_PARAMETER, len(found))):
        for form in ("%Y", "%Y-%m", "%Y-%m-%d"):
            text = moment.strftime(form).rjust(4, "0")
            low, high = span(text)
            # search.html#prefix, eq: the range of the search value fully contains the range of the target value
            yield text, partial(_lies_within, low, high)


QUESTIONS: dict[str, Callable[[list[Any], random.Random], Questions]] = {
    "token": token_questions,
    "string": string_questions,
    "family": family_questions,
    "date": date_questions,
}


@pytest.mark.parametrize(("kind", "type", "code"), CASES, ids=[f"{type}.{code}" for _, type, code in CASES])
async def test_a_parameter_finds_what_the_engine_finds(
    servers: Both, official: dict[tuple[str, str], str], kind: str, type: str, code: str
) -> None:
    evaluate = evaluator(official[type, code], type)
    values = {
        reference: [value for value in evaluate(tree) if value is not None]
        for reference, tree in servers.trees.items()
        if reference.startswith(f"{type}/")
    }
    asked = 0
    for text, holds in QUESTIONS[kind]([each for found in values.values() for each in found], random.Random(SEED)):
        ask = Ask(f"/{type}", ((code, text), ("_count", "5000")))
        expected = sorted(reference for reference, found in values.items() if holds(found))
        for client in (servers.oracle, servers.other):
            page = (await answer(client, ask)).json()
            assert matches(page) == expected, str(ask)
        asked += 1
    assert asked >= 2
