"""Which resource each action writes: by id, or by the criteria of a conditional interaction (first half of a plan).

Criteria see the store and this bundle's own writes. What the store answered becomes an assertion of the transaction.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

from fhir_server.fhir.json_tree import encode
from fhir_server.fhir.outcome import FhirError, Invalid, NotFound, TooCostly
from fhir_server.requests.context import Context
from fhir_server.requests.criteria import build_criteria_query, build_multiple_matches_error, parse_criteria
from fhir_server.requests.request import Caller, Pairs
from fhir_server.search.entries import Entries
from fhir_server.search.locks import name_locks
from fhir_server.search.match import Candidate
from fhir_server.search.query import Clause
from fhir_server.store.operations import Assertion, Matches
from fhir_server.writes.action import Action
from fhir_server.writes.identity import build_stored_tree
from fhir_server.writes.linked_criteria import MOST_ROUNDS, replace_links, split_linked, split_ready
from fhir_server.writes.pending_targets import PendingTargets
from fhir_server.writes.stored_matches import StoredMatches, find_stored_matches

MOST_DELETED = 1000

# Planning a large bundle must not keep other requests waiting: after this many writes the loop gets a turn.
SLICE = 50


@dataclass(slots=True)
class Target:
    """An action and the id that it resolved to. `found`: an existing resource answers it, so nothing is written.

    `entries`: those of the action's resource, valid as it came, where criteria of the same bundle have looked at it.
    `reference`: `Type/id`.
    """

    action: Action
    id: str
    found: bool = False
    create: bool = False
    entries: Entries | None = None
    reference: str = field(init=False)

    def __post_init__(self) -> None:
        self.reference = f"{self.action.type}/{self.id}"


@dataclass(frozen=True, slots=True)
class CriteriaScope:
    """Criteria and how many matches count. Those of a deletion (`deletes`) see no other writes of the bundle.

    Deletions come first in the processing order, so that a bundle can delete what matches and create it anew.
    """

    type: str
    where: Clause
    limit: int = 1
    deletes: bool = False


@dataclass(slots=True)
class ResolvedTargets:
    """The targets of all actions (a delete may have several), the assertions and locks they rely on."""

    targets: list[Target] = field(default_factory=list)
    assertions: list[Assertion] = field(default_factory=list)
    locks: set[str] = field(default_factory=set)
    created: dict[tuple[str, Pairs], Target] = field(default_factory=dict)

    criteria: dict[tuple[str, str], Clause] = field(default_factory=dict)
    """Of the conditional references: by type and query."""
    referred: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """The ids that conditional references match, which stay the same once all targets are resolved."""
    stored: StoredMatches = field(default_factory=StoredMatches)
    pending: dict[str, PendingTargets] = field(default_factory=dict)
    """This plan's own writes, by type; of the types that criteria asked for."""

    def add(self, target: Target) -> None:
        """Add the next target."""
        self.targets.append(target)
        pending = self.pending.get(target.action.type)
        if pending is not None and not target.found:
            pending.add(target)

    def list_pending(self, type: str) -> PendingTargets:
        """This plan's own writes of a type."""
        pending = self.pending.get(type)
        if pending is None:
            pending = self.pending[type] = PendingTargets()
            for target in self.targets:
                if target.action.type == type and not target.found:
                    pending.add(target)
        return pending

    async def look_up(self, context: Context, asked: Sequence[tuple[str, Clause]], caller: Caller) -> None:
        """Ask the store about many criteria together, before `find_matches` comes to each."""
        reader = context.reader(caller)
        restricted = [(type, reader.restrict_criteria(type, where)) for type, where in asked]
        fresh = [each for each in dict.fromkeys(restricted) if each not in self.stored.ids]
        found = await find_stored_matches(context, fresh, caller)
        self.stored.ids |= found.ids
        self.assertions += found.assertions


async def resolve_targets(context: Context, actions: Sequence[Action], caller: Caller) -> ResolvedTargets:
    """Targets in processing order: those named by id first, then DELETE, POST, PUT and PATCH by criteria."""
    resolved = ResolvedTargets()
    conditional: list[Action] = []
    for action in actions:
        if action.criteria is not None:
            conditional.append(action)
        else:
            id = action.id if action.id is not None else action.fresh
            resolved.add(Target(action, id, create=action.method == "POST"))
    parsed: list[tuple[Action, Clause]] = []
    ordered = sorted(conditional, key=lambda action: _ORDER[action.method])
    plain, linked = split_linked(context, ordered)
    for action in plain:
        parsed.append((action, await _parse_criteria(context, action, caller)))
        await take_turns(len(parsed))
    if len(parsed) > 1:
        await resolved.look_up(context, [(action.type, where) for action, where in parsed], caller)
    for number, (action, where) in enumerate(parsed):
        await _resolve_one(context, resolved, action, where, caller)
        await take_turns(number)
    if linked:
        parsed += await _resolve_linked(context, resolved, linked, caller)
    await _refuse_matched_updates(context, resolved, parsed, caller)
    return resolved


async def _resolve_linked(
    context: Context, resolved: ResolvedTargets, linked: list[Action], caller: Caller
) -> list[tuple[Action, Clause]]:
    """Resolve actions whose criteria name other entries, each after those."""
    parsed: list[tuple[Action, Clause]] = []
    for _ in range(MOST_ROUNDS):
        references = {target.action.full_url: target.reference for target in resolved.targets if target.id}
        ready, linked = split_ready(context, linked, references)
        for action in ready:
            where = await _parse_criteria(context, replace_links(context, action, references), caller)
            await _resolve_one(context, resolved, action, where, caller)
            parsed.append((action, where))
            await take_turns(len(parsed))
        if not linked:
            return parsed
    raise TooCostly(f"Criteria name entries whose criteria name others, over more than {MOST_ROUNDS} entries.")


async def _resolve_one(
    context: Context, resolved: ResolvedTargets, action: Action, where: Clause, caller: Caller
) -> None:
    try:
        await _resolve_criteria(context, resolved, action, where, caller)
    except FhirError as error:
        raise error.relocate(action.where) if action.where else error from None


async def _refuse_matched_updates(
    context: Context, resolved: ResolvedTargets, parsed: Sequence[tuple[Action, Clause]], caller: Caller
) -> None:
    """Refuse a conditional update whose criteria match what a later entry writes, as an earlier one is refused.

    The entries have no order (https://hl7.org/fhir/R4/http.html#trules), so that the answer may not depend on it.
    """
    updates = [(action, where) for action, where in parsed if action.method == "PUT" and action.where]
    if not updates or len(resolved.targets) < 2:
        return
    ids = {target.action.where: target.id for target in resolved.targets}
    for number, (action, where) in enumerate(updates):
        pending, build_candidate = (
            resolved.list_pending(action.type),
            functools.partial(_build_candidate, context, caller),
        )
        restricted = context.reader(caller).restrict_criteria(action.type, where)
        matched = await context.long_work.run(pending.waiting_size, pending.find_matches, restricted, build_candidate)
        others = [id for id in matched if id != ids[action.where]]
        if others:
            other = pending.targets[others[0]].action
            raise Invalid(
                f"The criteria of {action.where} match what {other.where} writes, so that both would be one resource; "
                "send one of them.",
                expression=(action.where, other.where),
            )
        await take_turns(number)


async def take_turns(number: int) -> None:
    """Give the event loop a turn after each slice of a long bundle."""
    if number % SLICE == SLICE - 1:
        await asyncio.sleep(0)


async def _parse_criteria(context: Context, action: Action, caller: Caller) -> Clause:
    assert action.criteria is not None
    try:
        return await parse_criteria(context, action.type, action.criteria, caller)
    except FhirError as error:
        raise error.relocate(action.where) if action.where else error from None


_ORDER = {"DELETE": 0, "POST": 1, "PUT": 2, "PATCH": 2}


async def _resolve_criteria(
    context: Context, resolved: ResolvedTargets, action: Action, where: Clause, caller: Caller
) -> None:
    assert action.criteria is not None
    repeated = resolved.created.get((action.type, action.criteria)) if action.method == "POST" else None
    if repeated is not None:
        resolved.add(Target(action, repeated.id, found=True))
        return
    deletes = action.method == "DELETE"
    limit = MOST_DELETED if deletes and context.settings.conditional_delete == "multiple" else 1
    ids = await find_matches(context, resolved, CriteriaScope(action.type, where, limit, deletes), caller)
    if len(ids) > limit and limit == MOST_DELETED:
        raise TooCostly(f"The criteria match more than {MOST_DELETED} resources, the most that one delete removes.")
    if len(ids) > limit:
        raise build_multiple_matches_error(action.type, action.criteria)
    for target in _RESOLVE[action.method](action, ids):
        resolved.add(target)
        if action.method == "POST" and not target.found:
            resolved.created[action.type, action.criteria] = target


async def find_matches(context: Context, resolved: ResolvedTargets, scope: CriteriaScope, caller: Caller) -> list[str]:
    """Ids that match in the store and are not rewritten here, then this bundle's own writes that match."""
    type, pending = scope.type, resolved.list_pending(scope.type)
    written = pending.deletions if scope.deletes else pending.targets
    where = context.reader(caller).restrict_criteria(type, scope.where)
    found = resolved.stored.ids.get((type, where))
    if found is None:
        query = build_criteria_query(type, where, scope.limit + 1 + len(written))
        page = await context.unrestricted.search(query)
        found = tuple(match.id for match in page.matches)
        resolved.assertions.append(Matches(query, found))
    resolved.locks.update(name_locks(type, where))
    # what is patched here counts as it was before: its patch is applied after the criteria were resolved
    ids = [id for id in found if id not in written or written[id].action.method == "PATCH"]
    if scope.deletes:
        return ids
    build_candidate = functools.partial(_build_candidate, context, caller)
    return [*ids, *await context.long_work.run(pending.waiting_size, pending.find_matches, where, build_candidate)]


def _build_candidate(context: Context, caller: Caller, target: Target) -> Candidate | None:
    """A write as search sees it; None where the plan will refuse its resource when it comes to its turn."""
    type, text = target.action.type, target.action.text
    if text is None or text.type != type:
        return None
    tree = build_stored_tree(text.tree, target.id)
    if context.validator.find_issues(tree):
        return None
    target.entries = context.index.make_entries(type, tree, caller.base)
    return Candidate(type, target.id, 0, target.entries)


def _resolve_create(action: Action, ids: list[str]) -> list[Target]:
    if ids:
        return [Target(action, ids[0], found=True)]
    return [Target(action, action.fresh, create=True)]


def _resolve_update(action: Action, ids: list[str]) -> list[Target]:
    assert action.text is not None
    own = action.text.tree.get("id", ids[0] if ids else action.fresh)
    if not isinstance(own, str):
        raise Invalid(
            f"The body has the id `{encode(own).decode()}`; an id is a text. Correct it or leave it out.",
            code="structure",
            expression=(f"{action.type}.id",),
        )
    if not ids:
        return [Target(action, own, create=True)]
    if own != ids[0]:
        raise Invalid(
            f"The body has the id `{own}`, but the criteria match `{action.type}/{ids[0]}`; leave it out.",
            code="value",
        )
    return [Target(action, ids[0])]


def _resolve_patch(action: Action, ids: list[str]) -> list[Target]:
    if not ids:
        raise NotFound(f"No `{action.type}` matches the criteria of this conditional patch; nothing was changed.")
    return [Target(action, ids[0])]


def _resolve_delete(action: Action, ids: list[str]) -> list[Target]:
    return [Target(action, id) for id in ids] or [Target(action, "", found=True)]


_RESOLVE = {"POST": _resolve_create, "PUT": _resolve_update, "PATCH": _resolve_patch, "DELETE": _resolve_delete}
