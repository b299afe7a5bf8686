"""Which resource each action writes: by id, or by the criteria of a conditional interaction (first half of a plan).

Criteria see the store and this bundle's own writes. What the store answered becomes an assertion of the transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fhir_server.fhir.json_tree import encode
from fhir_server.fhir.outcome import FhirError, Invalid, NotFound, TooCostly
from fhir_server.requests.context import Context
from fhir_server.requests.criteria import build_criteria_query, build_multiple_matches_error, parse_criteria
from fhir_server.requests.request import Caller, Pairs
from fhir_server.search.locks import name_locks
from fhir_server.search.query import Clause
from fhir_server.store.operations import Assertion, Matches
from fhir_server.writes.action import Action
from fhir_server.writes.identity import build_stored_tree
from fhir_server.writes.state import Tree, match_pending

MOST_DELETED = 1000


@dataclass(slots=True)
class Target:
    """An action and the id that it resolved to. `found`: an existing resource answers it, so nothing is written."""

    action: Action
    id: str
    found: bool = False
    create: bool = False

    @property
    def reference(self) -> str:
        """`Type/id`."""
        return f"{self.action.type}/{self.id}"


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

    def list_pending(self, type: str) -> dict[str, Target]:
        """This plan's own writes of a type, by id."""
        return {target.id: target for target in self.targets if target.action.type == type and not target.found}

    def list_deletions(self, type: str) -> dict[str, Target]:
        """The deletions among them."""
        return {id: target for id, target in self.list_pending(type).items() if target.action.method == "DELETE"}


async def resolve_targets(context: Context, actions: Sequence[Action], caller: Caller) -> ResolvedTargets:
    """Targets in processing order: those named by id first, then DELETE, POST, PUT and PATCH by criteria."""
    resolved = ResolvedTargets()
    conditional: list[Action] = []
    for action in actions:
        if action.criteria is not None:
            conditional.append(action)
        else:
            id = action.id if action.id is not None else action.fresh
            resolved.targets.append(Target(action, id, create=action.method == "POST"))
    for action in sorted(conditional, key=lambda action: _ORDER[action.method]):
        try:
            await _resolve_criteria(context, resolved, action, caller)
        except FhirError as error:
            raise error.relocate(action.where) if action.where else error from None
    return resolved


_ORDER = {"DELETE": 0, "POST": 1, "PUT": 2, "PATCH": 2}


async def _resolve_criteria(context: Context, resolved: ResolvedTargets, action: Action, caller: Caller) -> None:
    assert action.criteria is not None
    where = await parse_criteria(context, action.type, action.criteria, caller)
    repeated = resolved.created.get((action.type, action.criteria)) if action.method == "POST" else None
    if repeated is not None:
        resolved.targets.append(Target(action, repeated.id, found=True))
        return
    deletes = action.method == "DELETE"
    limit = MOST_DELETED if deletes and context.settings.conditional_delete == "multiple" else 1
    ids = await find_matches(context, resolved, CriteriaScope(action.type, where, limit, deletes), caller)
    if len(ids) > limit and limit == MOST_DELETED:
        raise TooCostly(f"The criteria match more than {MOST_DELETED} resources, the most that one delete removes.")
    if len(ids) > limit:
        raise build_multiple_matches_error(action.type, action.criteria)
    for target in _RESOLVE[action.method](action, ids):
        resolved.targets.append(target)
        if action.method == "POST" and not target.found:
            resolved.created[action.type, action.criteria] = target


async def find_matches(context: Context, resolved: ResolvedTargets, scope: CriteriaScope, caller: Caller) -> list[str]:
    """Ids that match in the store and are not rewritten here, then this bundle's own writes that match."""
    type, where = scope.type, scope.where
    pending = resolved.list_deletions(type) if scope.deletes else resolved.list_pending(type)
    where = context.reader(caller).restrict_clause(type, where)
    query = build_criteria_query(type, where, scope.limit + 1 + len(pending))
    page = await context.unrestricted.search(query)
    found = tuple(match.id for match in page.matches)
    resolved.assertions.append(Matches(query, found))
    resolved.locks.update(name_locks(type, where))
    # what is patched here counts as it was before: its patch is applied after the criteria were resolved
    ids = [id for id in found if id not in pending or pending[id].action.method == "PATCH"]
    trees: dict[str, Tree | None] = {}
    for id, target in pending.items():
        text = target.action.text
        if text is not None and text.type == type:
            tree = build_stored_tree(text.tree, id)
            # the plan refuses an invalid resource when it comes to its turn
            trees[id] = None if context.validator.find_issues(tree) else tree
    return [*ids, *match_pending(context, caller, type, where, trees)]


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
