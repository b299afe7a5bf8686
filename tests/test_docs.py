"""The pages say what the code does: each test here fails when one of them drifts."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast, get_args, get_origin
from urllib.parse import parse_qsl, unquote, urlsplit

import fhirpathpy
import httpx
import pytest
import typer
from fhirpathpy.models import models

from bench.__main__ import cli as bench
from fhir_server.__main__ import cli
from fhir_server.api.routes import Route, find_route
from fhir_server.app import STORES, Knowledge
from fhir_server.fhir import outcome
from fhir_server.interactions.table import INTERACTIONS
from fhir_server.operations import OPERATIONS
from fhir_server.requests.context import Context
from fhir_server.search.compartment import list_member_types
from fhir_server.search.parameters import Criteria
from fhir_server.search.parse import list_system_types, parse
from fhir_server.search.result_parameters import Options
from fhir_server.settings import COMMAND_VARIABLES, Settings
from fhir_server.workers.running import Team, run_workers
from fhir_server.workers.table import WORKERS
from tests.conftest import Client, serving

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    [*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "examples").glob("*.md"), *(ROOT / "bench").glob("*.md")]
)

BASE = "http://127.0.0.1:8000/fhir"
INTERACTION_PAGES = sorted((DOCS / "interactions").glob("*.md"))
OPERATION_PAGES = sorted((DOCS / "operations").glob("*.md"))
TEST_VARIABLES = {
    "FHIR_MEMORY_MESSAGES",
    "FHIR_POSTED_CLAIMS",
    "FHIR_SENT_CHANGES",
    "FHIR_SOAK_MESSAGES",
    "FHIR_TEST_MONGO_URL",
    "FHIR_TEST_SHARED",
}
DECISION_SECTIONS = ["Context", "Decision", "Consequences", "Alternatives"]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def headings(text: str) -> list[tuple[str, str]]:
    """(marks, title) of each heading outside code."""
    return re.findall(r"^(#+) (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE)


def section(text: str, title: str) -> str:
    """What stands between a heading of the second level and the next one."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, flags=re.DOTALL | re.MULTILINE)
    return found[1].strip() if found else ""


def family(code: str) -> str:
    """`history-type` and `history-system` share a page, and so do the searches."""
    return code.partition("-")[0]


def test_every_interaction_has_its_page_and_every_page_an_interaction() -> None:
    assert {page.stem for page in INTERACTION_PAGES} == {family(each.code) for each in INTERACTIONS}


def test_every_operation_has_its_page_and_every_page_an_operation() -> None:
    assert {page.stem for page in OPERATION_PAGES} == set(OPERATIONS)


def test_every_store_has_its_page_and_every_page_a_store() -> None:
    assert {page.stem for page in (DOCS / "stores").glob("*.md")} == set(STORES) - {"mongodb+srv"}


@pytest.mark.parametrize("page", [*INTERACTION_PAGES, *OPERATION_PAGES], ids=name)
def test_a_page_says_what_is_not_supported(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert section(text, "Not supported").startswith("- ")
    assert section(text, "Request") and section(text, "Answer")


@pytest.mark.parametrize("page", [*INTERACTION_PAGES, *OPERATION_PAGES], ids=name)
def test_a_page_tells_only_statuses_that_exist(page: Path) -> None:
    errors = [each for each in vars(outcome).values() if isinstance(each, type) and issubclass(each, outcome.FhirError)]
    possible = {200, 201, 202, 204, 304} | {error.status for error in errors}
    cells = re.findall(r"^\| ([0-9]{3}(?:, [0-9]{3})*) \|", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    told = {int(status) for cell in cells for status in cell.split(", ")}
    assert told and told <= possible


def test_the_errors_page_has_every_error() -> None:
    rows = re.findall(r"^\| ([0-9]{3}) \| ([^|]+) \|", (DOCS / "errors.md").read_text(encoding="utf-8"), re.MULTILINE)
    told = {(int(status), code) for status, cell in rows for code in re.findall(r"`([a-z-]+)`", cell)}
    errors = [each for each in vars(outcome).values() if isinstance(each, type) and issubclass(each, outcome.FhirError)]
    assert {(error.status, error.code) for error in errors} - told == set()


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        values = [f"`{value}`" for value in get_args(annotation)]
        return " or ".join(values) if len(values) == 2 else ", ".join(values)
    return {str: "text", bool: "`true` or `false`", int: "whole number", float: "number"}[annotation]


def _default(value: object) -> str:
    return "empty" if value == "" else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def test_the_settings_page_and_the_settings_name_the_same() -> None:
    titles = [title for marks, title in headings((DOCS / "settings.md").read_text(encoding="utf-8")) if marks == "##"]
    assert titles == list(Settings.model_fields)


@pytest.mark.parametrize("setting", Settings.model_fields)
def test_a_setting_is_described_as_it_is(setting: str) -> None:
    text = section((DOCS / "settings.md").read_text(encoding="utf-8"), setting)
    field = Settings.model_fields[setting]
    row = f"| `FHIR_{setting.upper()}` | {_kind(field.annotation)} | {_default(field.default)} |"
    assert row in text.splitlines()
    assert " ".join((field.description or "?").split()) in " ".join(text.split())


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_variables_that_are_named_are_settings(page: Path) -> None:
    found = set(re.findall(r"\bFHIR_[A-Z_]+\b", page.read_text(encoding="utf-8")))
    assert (
        found - {f"FHIR_{setting.upper()}" for setting in Settings.model_fields} - TEST_VARIABLES - {*COMMAND_VARIABLES}
        == set()
    )


def _anchors(page: Path) -> set[str]:
    """The fragments that the headings of a page can be linked by."""
    titles = [title for _, title in headings(page.read_text(encoding="utf-8"))]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    broken = []
    for link in re.findall(r"(?<!!)\[[^\]\n]+\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.is_relative_to(DOCS)], ids=name)
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"`((?:fhir_server|tests|scripts|profiles)/[\w./-]+)`", page.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", sorted((DOCS / "decisions").glob("*.md")), ids=name)
def test_a_decision_has_its_four_sections(page: Path) -> None:
    found = headings(page.read_text(encoding="utf-8"))
    assert [title for marks, title in found if marks == "##"] == DECISION_SECTIONS
    number, _, _ = page.stem.partition("-")
    assert found[0][1].startswith(f"{int(number)}. ")


def code_lines(text: str) -> Iterator[str]:
    """Command lines: fenced and indented code with continued lines joined, and code in backticks."""
    for block in re.findall(r"```[a-z]*\n(.*?)```", text, flags=re.DOTALL):
        yield from commands(block)
    outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    yield from re.findall(r"^ {4}(\S.*)$", outside, flags=re.MULTILINE)
    yield from re.findall(r"`([^`\n]+)`", outside)


def commands(block: str) -> Iterator[str]:
    """The lines of a block; a quoted argument of a curl command may go over several."""
    pending = ""
    for line in block.replace("\\\n", " ").splitlines():
        pending = f"{pending}\n{line}" if pending else line
        if pending.count("'") % 2 == 0 or not pending.startswith("curl "):
            yield pending
            pending = ""
    assert not pending, f"a quote is not closed: {pending}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_make_targets_that_are_named_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    lines = code_lines(page.read_text(encoding="utf-8"))
    named = {found[1] for line in lines if (found := re.match(r"make ([a-z-]+)", line))}
    assert named - targets == set()


def test_phony_targets_are_there() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.+)$", text, flags=re.MULTILINE)
    assert phony
    assert set(phony[1].split()) <= set(re.findall(r"^([a-z-]+):", text, flags=re.MULTILINE))


@cache
def options() -> dict[str, set[str]]:
    """The options of each command, those of its own commands and the bench among them."""
    group = cast(Any, typer.main.get_command(cli))
    return {
        command: {
            option
            for each in (found, *getattr(found, "commands", {}).values())
            for parameter in each.params
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        for command, found in (*group.commands.items(), ("bench", cast(Any, typer.main.get_command(bench))))
    }


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_that_are_named_exist(page: Path) -> None:
    wrong = []
    for line in code_lines(page.read_text(encoding="utf-8")):
        found = re.match(r"(?:\S*/)?(?:fhir-server|python -m(?= bench)) ([a-z][a-z0-9]*)(.*)", line, flags=re.DOTALL)
        if not found:
            continue
        known = options().get(found[1])
        named = set(re.findall(r"(?<!\S)\(?(--[a-z-]+)", found[2]))
        # `load` alone is a heading; with files it needs to be told where to
        nowhere = found[1] == "load" and found[2].strip() != "" and not named & {"--server", "--store"}
        if known is None or named - known or nowhere:
            wrong.append(line)
    assert wrong == []


def test_the_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = {command: f"`fhir-server {command}" for command in options()} | {"bench": "`python -m bench"}
    assert [command for command in options() if shown[command] not in text] == []


@dataclass(frozen=True)
class Example:
    """A curl command of a page, as the request that it makes."""

    page: Path
    line: str
    method: str
    path: tuple[str, ...]
    query: tuple[tuple[str, str], ...]
    headers: dict[str, str]
    body: str


_WITH_VALUE = {"-X": "method", "-d": "body", "--data-binary": "body", "-o": "file"}


def example(page: Path, line: str) -> Example:
    words = iter(shlex.split(line)[1:])
    given: dict[str, str] = {}
    headers: dict[str, str] = {}
    for word in words:
        if word in _WITH_VALUE:
            given[_WITH_VALUE[word]] = next(words)
        elif word == "-H":
            key, _, value = next(words).partition(": ")
            headers[key.lower()] = value
        elif word == "-I":
            given.setdefault("method", "HEAD")
        elif word not in ("-i", "-s"):
            assert not word.startswith("-"), f"{word} is no option that this test knows"
            given["url"] = word
    body = given.get("body", "")
    if body:
        headers.setdefault("content-type", "application/x-www-form-urlencoded")
    url = urlsplit(given["url"])
    path = tuple(unquote(part) for part in url.path.split("/") if part)[1:]
    query = tuple(parse_qsl(url.query, keep_blank_values=True))
    return Example(page, line, given.get("method", "POST" if body else "GET"), path, query, headers, body)


def examples() -> list[Example]:
    found = []
    for page in PAGES:
        lines = code_lines(page.read_text(encoding="utf-8"))
        found += [example(page, line) for line in lines if line.startswith("curl ") and f"{BASE}" in line]
    return found


def _ids(each: Example) -> str:
    return f"{name(each.page)} {each.method} {'/'.join(each.path)}"


@pytest.fixture(scope="session")
def context(known: Knowledge) -> Context:
    """As much of a context as routing looks at, with every operation switched on."""
    settings = SimpleNamespace(**{operation.setting: True for operation in OPERATIONS.values() if operation.setting})
    stub = SimpleNamespace(types=frozenset(known.types), definitions=known.definitions, settings=settings)
    return cast(Context, stub)


def test_every_page_of_an_interaction_or_operation_has_its_example(context: Context) -> None:
    shown = {
        (each.page.parent.name, each.page.stem)
        for each in examples()
        if each.page.stem in _codes(find_route(context, each.method, each.path))
    }
    assert shown >= {(page.parent.name, page.stem) for page in (*INTERACTION_PAGES, *OPERATION_PAGES)}


def _codes(found: Route) -> set[str]:
    """The page names that a route may be shown on; a POST of a Bundle is a batch or a transaction."""
    code = found.code.removeprefix("$")
    return (
        {"batch", "transaction"} if code in ("batch", "transaction") else {code if "$" in found.code else family(code)}
    )


@pytest.mark.parametrize("each", examples(), ids=_ids)
def test_an_example_leads_to_an_interaction(each: Example, context: Context) -> None:
    assert find_route(context, each.method, each.path).code
    if each.body.lstrip().startswith(("{", "[")):
        assert json.loads(each.body)


@pytest.mark.parametrize("each", [each for each in examples() if each.page.name != "start.md"], ids=_ids)
def test_an_example_of_a_search_is_a_valid_one(each: Example, context: Context, known: Knowledge) -> None:
    """Strictly read; the start page has a misspelt parameter on purpose."""
    found = find_route(context, each.method, each.path).code
    conditional = found in ("update", "patch", "delete") and len(each.path) == 1
    if not found.startswith("search") and not conditional:
        return
    path = tuple(part for part in each.path if part != "_search")
    pairs = (*each.query, *parse_qsl(each.body))
    types: tuple[str, ...] = path[-1:] if len(path) in (1, 3) else list_system_types(pairs, known.registry)
    if types == ("*",):
        types = list_member_types(known.definitions, path[0])
    criteria = Criteria(registry=known.registry, base=BASE, now=0, full_text=True)
    assert parse(types, pairs, criteria, Options()).applied == pairs


def test_the_readme_repeats_queries_of_the_samples() -> None:
    """`examples/queries.md` is held to the data by a test of its own."""
    rows = [
        line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if re.match(r"\| `[A-Z]", line)
    ]
    known = (ROOT / "examples" / "queries.md").read_text(encoding="utf-8").splitlines()
    assert rows
    assert [row for row in rows if row not in known] == []


PATIENT = {
    "resourceType": "Patient",
    "id": "1",
    "identifier": [{"system": "urn:example:mrn", "value": "4711"}],
    "meta": {"tag": [{"system": "urn:example:tags", "code": "vip"}]},
    "active": True,
    "birthDate": "1984-05-02",
}


async def answer(client: Client, each: Example) -> httpx.Response:
    url = "/".join((str(client.base_url).rstrip("/"), *each.path))
    content = each.body.encode()
    return await client.request(each.method, url, params=list(each.query), headers=each.headers, content=content)


@pytest.mark.anyio
@pytest.mark.parametrize("page", [*INTERACTION_PAGES, DOCS / "search.md"], ids=name)
async def test_the_examples_of_a_page_work(page: Path, known: Knowledge) -> None:
    """Each on a server of its own where `Patient/1` has three versions."""
    failed = []
    for each in (each for each in examples() if each.page == page):
        async with serving(known, store="memory://") as client:
            for version in range(3):
                text = {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{version}</div>'}
                await client.put("Patient/1", json={**PATIENT, "text": text})
            response = await answer(client, each)
            if response.status_code >= 400:
                failed.append(f"{response.status_code} {each.line}: {response.text}")
    assert failed == []


def test_every_operation_has_the_data_of_its_examples() -> None:
    assert {file.stem for file in (ROOT / "tests" / "pages").glob("*.json")} == {page.stem for page in OPERATION_PAGES}


@pytest.mark.anyio
@pytest.mark.parametrize("page", OPERATION_PAGES, ids=name)
async def test_the_examples_of_an_operation_answer_what_its_page_says(page: Path, known: Knowledge) -> None:
    """Each on a server of its own with the page's `settings`, `resources` (PUT in their order) and `posts` (URL, body).

    `answers` has for each example what FHIRPath expressions find in its answer, in any order, or how a text begins.
    `values`: what is in the store beside the resources.
    """
    data = json.loads((ROOT / "tests" / "pages" / f"{page.stem}.json").read_text(encoding="utf-8"))
    shown = [each for each in examples() if each.page == page]
    for each, expected in zip(shown, data["answers"], strict=True):
        async with serving(known, store="memory://", **data.get("settings", {})) as client:
            for resource in data["resources"]:
                written = await client.put(f"{resource['resourceType']}/{resource['id']}", json=resource)
                assert written.status_code in (200, 201), written.text
            for key, value in data.get("values", {}).items():
                await client.server.context.unrestricted.put_value_if(key, json.dumps(value).encode(), None)
            for url, body in data.get("posts", ()):
                written = await client.post(url, json=body)
                assert written.status_code in (200, 201), written.text
            response = await answer(client, each)
            assert response.status_code < 400, f"{each.line}: {response.text}"
            if isinstance(expected, str):
                assert response.text.startswith(expected), each.line
                continue
            tree = response.json() if response.content else {}
            found = {
                expression: sorted(fhirpathpy.evaluate(tree, expression, {}, models["r4"])) for expression in expected
            }
            assert found == expected, each.line


def test_the_page_of_workers_has_the_rows_of_the_table() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (.+) \|$", (DOCS / "workers.md").read_text(encoding="utf-8").split("## ")[0], re.M
    )
    assert dict(rows) == {name: worker.documentation for name, worker in WORKERS.items()}


@pytest.mark.anyio
async def test_the_worker_of_the_page_on_adding_one_runs(known: Knowledge) -> None:
    text = (DOCS / "adding" / "a-worker.md").read_text(encoding="utf-8")
    shown: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)[0], shown)
    async with serving(known, store="memory://") as client:
        await client.put("Patient/1", json=PATIENT)
        team = Team(client.server.context, lambda *_, **__: None)
        task = asyncio.create_task(run_workers(team, [shown["WORKER"]]))
        async with asyncio.timeout(10):
            while not (standing := team.standings.get("patients")) or "position" not in standing.report:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert standing.report["position"] == "1 patients"


@pytest.mark.anyio
async def test_the_start_page_can_be_followed(known: Knowledge) -> None:
    """All on one server, in their order; the misspelt parameter is refused with the right ones."""
    statuses = []
    async with serving(known, store="memory://") as client:
        for each in examples():
            if each.page == DOCS / "start.md" and not each.body.startswith("@"):
                response = await answer(client, each)
                statuses.append(response.status_code)
        assert response.status_code == 400
        assert "`family`" in response.json()["issue"][0]["diagnostics"]
    assert statuses == [200, 201, 201, 200, 200, 200, 400]
