"""Merges whose references are still being moved: until all are, a search by the survivor finds the prior's as well.

A merge that moves more references than one transaction takes leaves a Task `repoint-references`: its focus is the
prior, it is for the survivor (docs/messages/adt.md). A value of the store says that there may be such Tasks, so that a
search looks for them only then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import orjson

from fhir_server.fhir.urls import code_system_url
from fhir_server.requests.context import Context
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.query import And, Chain, Clause, Equals, Ids, Or, Query, Scope, StartsWith, rewrite_clause
from fhir_server.security.access import Reader

REPOINT = "repoint-references"
"""Code of the Task of a merge whose references are not all moved yet."""

OPEN = ("requested", "in-progress")
"""The status that such a Task has until its last reference is moved."""

MOST_OPEN = 1000
"""Such Tasks that are looked at together."""

Priors = Mapping[str, frozenset[str]]
"""Reference of a survivor → of all whose references are still moved to it."""

_HINT = "merges"
_COMMITTED = 15 * 60 * 1_000_000
"""µs after which a merge that was announced is stored, or never will be: longer than any request may take."""


async def announce_merge(context: Context) -> None:
    """Let searches look for merges from now on: to be called before the Task of one is written."""
    text = str(context.clock()).encode()
    while not await context.unrestricted.put_value_if(_HINT, text, await context.unrestricted.get_value(_HINT)):
        pass


async def forget_merges(context: Context) -> None:
    """Let searches look for merges no more; to be called where no Task of one is open."""
    text = await context.unrestricted.get_value(_HINT)
    if text is not None and context.clock() - int(text) > _COMMITTED:
        await context.unrestricted.remove_value_if(_HINT, text)


async def list_open_merges(context: Context) -> list[dict[str, Any]]:
    """The Tasks of merges whose references are not all moved, at most `MOST_OPEN`."""
    if await context.unrestricted.get_value(_HINT) is None:
        return []
    code = Equals("code", (f"{REPOINT}{SEPARATOR}{code_system_url('task')}",))
    status = Or(tuple(StartsWith("status", f"{each}{SEPARATOR}") for each in OPEN))
    page = await context.unrestricted.search(Query((Scope("Task", And((code, status))),), count=MOST_OPEN))
    return [orjson.loads(each.raw or b"{}") for each in page.matches]


async def read_priors(context: Context) -> Priors:
    """What a search by each survivor has to find too; empty where no merge is under way."""
    direct: dict[str, set[str]] = defaultdict(set)
    for task in await list_open_merges(context):
        direct[_read_reference(task, "for")].add(_read_reference(task, "focus"))
    return {survivor: frozenset(_follow(survivor, direct)) for survivor in direct}


def _read_reference(task: Mapping[str, Any], name: str) -> str:
    return str(task.get(name, {}).get("reference", ""))


def _follow(survivor: str, direct: Mapping[str, Iterable[str]]) -> set[str]:
    """The priors of a survivor, and theirs."""
    found: set[str] = set()
    waiting = list(direct.get(survivor, ()))
    while waiting:
        prior = waiting.pop()
        if prior not in found and prior != survivor:
            found.add(prior)
            waiting += direct.get(prior, ())
    return found


def find_merged(patient: str, priors: Priors) -> tuple[str, ...]:
    """A patient, and all whom merges that are under way make one with them, survivors and priors alike."""
    merged = {patient}
    for survivor, others in priors.items():
        if patient == survivor or patient in others:
            merged |= {survivor, *others}
    return tuple(sorted(merged))


async def include_priors(reader: Reader, clause: Clause, priors: Priors) -> Clause:
    """The clause that finds what names a survivor, or one of its priors; chains through a survivor do the same."""
    chained = {each: await _find_chained(reader, each, priors) for each in _list_chains(clause)}

    def widen(each: Clause) -> Clause:
        if isinstance(each, Equals):
            return replace(each, terms=_widen_terms(each.terms, priors))
        ids = chained.get(each, ()) if isinstance(each, Chain) else ()
        widened = rewrite_clause(each, widen)
        if ids and isinstance(widened, Chain):
            return replace(widened, where=Or((widened.where, Ids(ids))))
        return widened

    return widen(clause)


def _widen_terms(terms: tuple[str, ...], priors: Priors) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*terms, *(prior for term in terms for prior in sorted(priors.get(term, ())))]))


def _list_chains(clause: Clause) -> list[Chain]:
    found: list[Chain] = [clause] if isinstance(clause, Chain) else []

    def collect(each: Clause) -> Clause:
        found.extend(_list_chains(each))
        return each

    rewrite_clause(clause, collect)
    return found


async def _find_chained(reader: Reader, chain: Chain, priors: Priors) -> tuple[str, ...]:
    """The ids of the priors of those survivors to which a chain leads."""
    survivors = [reference.partition("/") for reference in priors if reference.startswith(f"{chain.type}/")]
    if not survivors:
        return ()
    where = And((chain.where, Ids(tuple(id for _, _, id in survivors))))
    page = await reader.search(Query((Scope(chain.type, where),), count=len(survivors)))
    found = [prior for each in page.matches for prior in priors[f"{each.type}/{each.id}"]]
    return tuple(prior.partition("/")[2] for prior in sorted(found))
