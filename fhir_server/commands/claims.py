"""`fhir-server claims`: the worklists of claims, and what is done with them (docs/billing.md#worklists)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import orjson
import typer
from rich.console import Console
from rich.table import Table

from fhir_server.commands.messages import run_with_store
from fhir_server.commands.terminal import make_printable
from fhir_server.fhir.outcome import FhirError
from fhir_server.operations.billing.transmit import MOST_CLAIMS
from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller, Request
from fhir_server.workers.posting.writes import read_today
from mappers.billing.worklists import (
    COLUMNS,
    QUESTIONS,
    WORKLISTS,
    Pairs,
    build_search,
    index_resources,
    list_rows,
    write_csv,
)

claims = typer.Typer(no_args_is_help=True, help="The claims that go out, by what is to be done with them.")

_PAGE = 200
_CSV_ALONE = ("number", "since")
_SHORT = ("service", "total", "days")

Store = Annotated[str | None, typer.Option(help="Store URI (FHIR_STORE).")]
Claims = Annotated[list[str] | None, typer.Argument(metavar="[CLAIM]...", help="Claims such as `Claim/1`.")]
Worklist = Annotated[str, typer.Option("--list", help="All claims of a worklist, such as `draft`.")]


@claims.callback()
def _group() -> None:
    """The claims that go out, by what is to be done with them."""


@claims.command("list")
def list_claims(
    worklist: Annotated[str, typer.Argument(help=f"One of {', '.join(WORKLISTS)}; all where it is left out.")] = "",
    days: Annotated[int, typer.Option(min=0, max=3650, help="Days after which a claim that was sent is aged.")] = 30,
    patient: Annotated[str, typer.Option(help="Only this `Patient/1`.")] = "",
    count: Annotated[int, typer.Option(min=1, max=10_000, help="Most claims of each list.")] = 1000,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV; needs the name of a worklist.")] = False,
    store: Store = None,
) -> None:
    """Show a worklist, or all of them, with the FHIR search behind each."""
    if csv and not worklist:
        typer.echo(f"CSV is one table; name the worklist: {', '.join(WORKLISTS)}.", err=True)
        raise typer.Exit(2)
    _check_worklist(worklist)

    async def show(context: Context, caller: Caller) -> None:
        for name in [worklist] if worklist else list(WORKLISTS):
            pairs = build_search(WORKLISTS[name], read_today(context), days, patient)
            tasks, resources = await search(context, caller, pairs, count)
            rows = list_rows(tasks[:count], resources, read_today(context))
            if csv:
                typer.echo(write_csv(rows), nl=False)
            elif rows:
                Console().print(make_table(name, rows))
            else:
                typer.echo(f"{name}: none — {WORKLISTS[name].meaning}")
            typer.echo(f"Task?{urlencode(pairs, safe=':/|,')}", err=csv)
            if len(tasks) > count:
                typer.echo(f"There are more than {count}; ask for more with --count.", err=True)
            if WORKLISTS[name].aged and not csv:
                await _print_questions(context, caller, count)

    run_with_store(store, show)


async def _print_questions(context: Context, caller: Caller, count: int) -> None:
    """What a person is asked about claims that have gone out, such as about answers that do not come."""
    tasks, _ = await search(context, caller, QUESTIONS, count)
    for task in tasks[:count]:
        typer.echo(f"? {make_printable(str(task.get('description', '')))} (Task/{task['id']})")
    if tasks:
        typer.echo(f"Task?{urlencode(QUESTIONS, safe=':/|,')}")


@claims.command()
def scrub(names: Claims = None, worklist: Worklist = "", store: Store = None) -> None:
    """Judge claims: each becomes `ready`, or `held` with what is wrong."""

    async def judge(context: Context, caller: Caller) -> None:
        held = 0
        for claim in await _find_named(context, caller, names or [], worklist):
            outcome = await call(context, caller, claim, "$scrub")
            held += _print_findings(claim, outcome)
        if held:
            raise typer.Exit(1)

    _check_named(names or [], worklist)
    run_with_store(store, judge)


@claims.command()
def split(
    names: Claims = None,
    worklist: Worklist = "",
    commit: Annotated[bool, typer.Option(help="Make it so; else it is only shown.")] = False,
    store: Store = None,
) -> None:
    """Show what the practice's rules make of claims, line by line."""
    commits = {"resourceType": "Parameters", "parameter": [_write_part("commit", True)]}
    body = orjson.dumps(commits) if commit else b""

    async def divide(context: Context, caller: Caller) -> None:
        refused = 0
        for claim in await _find_named(context, caller, names or [], worklist):
            refused += _print_parts(claim, await call(context, caller, claim, "$split", body))
        if refused:
            raise typer.Exit(1)

    _check_named(names or [], worklist)
    run_with_store(store, divide)


@claims.command()
def transmit(
    names: Claims = None,
    worklist: Worklist = "",
    partner: Annotated[str, typer.Option(help="Partner they go to; else the one that takes the payer.")] = "",
    resubmit: Annotated[bool, typer.Option(help="Send again what was sent; needs --frequency.")] = False,
    frequency: Annotated[str, typer.Option(help="`1` original, `7` replacement, `8` void.")] = "",
    store: Store = None,
) -> None:
    """Send claims; those with errors are held, each with what is wrong."""
    how: list[tuple[str, str | bool]] = [("partner", partner), ("frequency", frequency), ("resubmit", resubmit)]
    further = [_write_part(name, value) for name, value in how if value]

    async def send(context: Context, caller: Caller) -> None:
        found, held = await _find_named(context, caller, names or [], worklist), 0
        for start in range(0, len(found), MOST_CLAIMS):
            parts = [_write_part("claim", each) for each in found[start : start + MOST_CLAIMS]]
            body = orjson.dumps({"resourceType": "Parameters", "parameter": [*parts, *further]})
            held += _print_sent(await call(context, caller, "Claim", "$transmit", body))
        if held:
            raise typer.Exit(1)

    _check_named(names or [], worklist)
    run_with_store(store, send)


async def search(
    context: Context, caller: Caller, pairs: Pairs, most: int
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """The Tasks that match, more than `most` where there are more, and by reference what comes with them."""
    tasks: list[dict[str, Any]] = []
    resources: dict[str, dict[str, Any]] = {}
    query: Pairs | None = (*pairs, ("_count", str(min(_PAGE, most + 1))))
    while query is not None and len(tasks) <= most:
        answer = await context.dispatch(context, Request("GET", ("Task",), query, base=caller.base))
        bundle = orjson.loads(answer.body)
        entries = bundle.get("entry", [])
        resources |= index_resources(entries)
        tasks += [each["resource"] for each in entries if each["search"]["mode"] == "match"]
        following = next((each["url"] for each in bundle["link"] if each["relation"] == "next"), None)
        query = tuple(parse_qsl(urlsplit(following).query)) if following else None
    return tasks, resources


async def call(context: Context, caller: Caller, claim: str, operation: str, body: bytes = b"") -> dict[str, Any]:
    """What an operation answers for one claim; its refusal as an OperationOutcome."""
    path = (*claim.split("/"), operation)
    try:
        answer = await context.dispatch(context, Request("POST", path, body=body, base=caller.base))
    except FhirError as error:
        return {"resourceType": "OperationOutcome", "issue": [each.to_json() for each in error.issues]}
    return orjson.loads(answer.body)  # type: ignore[no-any-return]


def make_table(name: str, rows: list[tuple[str, ...]]) -> Table:
    """A worklist as a table, without the columns that only CSV has and those that would say nothing."""
    worklist = WORKLISTS[name]
    left_out = {*_CSV_ALONE, *(("state",) if len(worklist.states) == 1 else ())}
    shown = [at for at, column in enumerate(COLUMNS) if column not in left_out and any(row[at] for row in rows)]
    table = Table(title=f"{name}: {len(rows)} — {worklist.meaning}", title_justify="left")
    for at in shown:
        short = COLUMNS[at] in _SHORT
        table.add_column(COLUMNS[at], overflow="fold", no_wrap=short, justify="right" if short else "left")
    for row in rows:
        table.add_row(*(make_printable(row[at]) for at in shown))
    return table


def _print_findings(claim: str, outcome: dict[str, Any]) -> bool:
    """Whether the claim has an error."""
    errors = [each for each in outcome["issue"] if each["severity"] in ("error", "fatal")]
    typer.echo(f"{claim}: {f'{len(errors)} to mend' if errors else 'ready'}")
    _print_issues(outcome["issue"])
    return bool(errors)


def _print_issues(issues: Iterable[dict[str, Any]]) -> None:
    for each in issues:
        if each["severity"] != "information":
            rule = (each.get("details", {}).get("coding") or [{}])[0].get("code", each["code"])
            places = " ".join([*each.get("expression", ()), *each.get("location", ())])
            typer.echo(make_printable(f"  {each['severity']} {rule}: {each['diagnostics']} ({places})"))


def _print_parts(claim: str, answer: dict[str, Any]) -> bool:
    """Whether it was refused."""
    if answer["resourceType"] == "OperationOutcome":
        return _print_findings(claim, answer)
    parts = answer["parameter"]
    changed = any(each["name"] == "changed" and each["valueBoolean"] for each in parts)
    typer.echo(f"{claim}: {'split' if changed else 'stays whole'}")
    for each in parts:
        if each["name"] in ("child", "held", "invoice"):
            resource = each["resource"]
            total = (resource.get("total") or resource.get("totalNet") or {}).get("value", "")
            typer.echo(f"  {each['name']} {resource['resourceType']}/{resource.get('id', '')} {total}")
        elif each["name"] == "explain":
            typer.echo(make_printable(f"  {each['valueString']}"))
        elif each["name"] == "outcome":
            for issue in each["resource"]["issue"]:
                typer.echo(make_printable(f"  {issue['severity']}: {issue['diagnostics']}"))
    return False


def _write_part(name: str, value: str | bool) -> dict[str, Any]:
    return {"name": name, "valueString" if isinstance(value, str) else "valueBoolean": value}


def _print_sent(answer: dict[str, Any]) -> int:
    """How many claims did not go."""
    if answer["resourceType"] == "OperationOutcome":
        return int(_print_findings("Not sent", answer))
    held = 0
    for each in answer.get("parameter", ()):
        parts = {part["name"]: part for part in each["part"]}
        claim, state = parts["reference"]["valueReference"]["reference"], parts.get("state", {}).get("valueCode", "")
        if "transmission" in parts:
            typer.echo(f"{claim}: {state}, {parts['transmission']['valueReference']['reference']}")
        else:
            held += 1
            typer.echo(f"{claim}: {state or 'not sent'}")
        _print_issues(parts.get("outcome", {}).get("resource", {}).get("issue", ()))
    return held


async def _find_named(context: Context, caller: Caller, names: list[str], worklist: str) -> list[str]:
    """The claims that are named, and those of the worklist."""
    found = list(names)
    if worklist:
        pairs = build_search(WORKLISTS[worklist], read_today(context), 0)
        tasks, _ = await search(context, caller, pairs, 10_000)
        found += [each["focus"]["reference"] for each in tasks if "reference" in each.get("focus", {})]
    return list(dict.fromkeys(found))


def _check_named(names: list[str], worklist: str) -> None:
    _check_worklist(worklist)
    wrong = [each for each in names if not each.startswith("Claim/") or each.count("/") != 1]
    if wrong or not (names or worklist):
        typer.echo(f"Name claims such as `Claim/1`, or a worklist with --list.{_tell(wrong)}", err=True)
        raise typer.Exit(2)


def _tell(wrong: list[str]) -> str:
    return f" `{make_printable(wrong[0])}` is neither." if wrong else ""


def _check_worklist(worklist: str) -> None:
    if worklist and worklist not in WORKLISTS:
        text = f"There is no worklist `{make_printable(worklist)}`; there are {', '.join(WORKLISTS)}."
        typer.echo(text, err=True)
        raise typer.Exit(2)
