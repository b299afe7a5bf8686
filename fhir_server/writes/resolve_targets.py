"""Which resource each action is about: ids as given, or as criteria select them (first half of the plan).

Criteria see the store and this bundle's own writes. What the store answered becomes an assertion of the transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from fhir_server.fhir.json_tree import encode
from fhir_server.fhir.outcome import FhirError, Invalid, NotFound, TooCostly
from fhir_server.requests.context import Context
from fhir_server.requests.criteria import criteria_clause, criteria_query, several
from fhir_server.requests.request import Pairs
from fhir_server.search.locks import locks
from fhir_server.search.match import Candidate, matches
from fhir_server.search.query import Clause
from fhir_server.store.operations import Assertion, Matches
from fhir_server.writes.action import Action
from fhir_server.writes.identity import stored_tree

MOST_DELETED = 1000


class _Unlinked:
    """A plan's own writes are matched alone: criteria with chains into the same bundle find what the store has."""

    def resolve(self, reference: str) -> Candidate | None:
        return None

    def of_type(self, type: str) -> Iterable[Candidate]:
        return ()


@dataclass(slots=True)
class Target:
    """One action and the id it came down to; `found`: an existing resource answers it and nothing is written."""

    action: Action
    id: str
    found: bool = False
    create: bool = False

    @property
    def reference(self) -> str:
        """`Type/id`."""
        return f"{self.action.type}/{self.id}"


@dataclass(frozen=True, slots=True)
class Sought:
    """Criteria and how many matches count. Those of a deletion (`deletes`) see no other writes of the bundle.

    Deletions come first in the processing order, so that a bundle can delete what matches and create it anew.
    """

    type: str
    where: Clause
    limit: int = 1
    deletes: bool = False


@dataclass(slots=True)
class Identified:
    """The targets of all actions (an action that deletes several matches has several), and what that relied on."""

    targets: list[Target] = field(default_factory=list)
    assertions: list[Assertion] = field(default_factory=list)
    locks: set[str] = field(default_factory=set)
    created: dict[tuple[str, Pairs], Target] = field(default_factory=dict)

    def pending(self, type: str) -> dict[str, Target]:
        """This plan's own writes of a type, by id."""
        return {target.id: target for target in self.targets if target.action.type == type and not target.found}

    def deleted(self, type: str) -> dict[str, Target]:
        """The deletions among them."""
        return {id: target for id, target in self.pending(type).items() if target.action.method == "DELETE"}


async def identify(context: Context, actions: list[Action], base: str) -> Identified:
    """Targets in processing order: those named by id first, then DELETE, POST, PUT and PATCH by criteria."""
    identified = Identified()
    conditional: list[Action] = []
    for action in actions:
        if action.criteria is not None:
            conditional.append(action)
        else:
            id = action.id if action.id is not None else action.fresh
            identified.targets.append(Target(action, id, create=action.method == "POST"))
    for action in sorted(conditional, key=lambda action: _ORDER[action.method]):
        try:
            await _select(context, identified, action, base)
        except FhirError as error:
            raise error.located(action.where) if action.where else error from None
    return identified


_ORDER = {"DELETE": 0, "POST": 1, "PUT": 2, "PATCH": 2}


async def _select(context: Context, identified: Identified, action: Action, base: str) -> None:
    assert action.criteria is not None
    where = await criteria_clause(context, action.type, action.criteria, base)
    repeated = identified.created.get((action.type, action.criteria)) if action.method == "POST" else None
    if repeated is not None:
        identified.targets.append(Target(action, repeated.id, found=True))
        return
    deletes = action.method == "DELETE"
    limit = MOST_DELETED if deletes and context.settings.conditional_delete == "multiple" else 1
    ids = await matching(context, identified, Sought(action.type, where, limit, deletes), base)
    if len(ids) > limit and limit == MOST_DELETED:
        raise TooCostly(f"The criteria match more than {MOST_DELETED} resources, the most that one delete removes.")
    if len(ids) > limit:
        raise several(action.type, action.criteria)
    for target in _RESOLVE[action.method](action, ids):
        identified.targets.append(target)
        if action.method == "POST" and not target.found:
            identified.created[action.type, action.criteria] = target


async def matching(context: Context, identified: Identified, sought: Sought, base: str) -> list[str]:
    """Ids that match in the store and are not rewritten here, then this bundle's own writes that match."""
    type, where = sought.type, sought.where
    pending = identified.deleted(type) if sought.deletes else identified.pending(type)
    query = criteria_query(type, where, sought.limit + 1 + len(pending))
    page = await context.store.search(query)
    found = tuple(match.id for match in page.matches)
    identified.assertions.append(Matches(query, found))
    identified.locks.update(locks(type, where))
    # what is patched here counts as it was before: its patch is applied after the criteria were resolved
    ids = [id for id in found if id not in pending or pending[id].action.method == "PATCH"]
    for id, target in pending.items():
        text = target.action.text
        if text is None:
            continue
        tree = stored_tree(text.tree, id)
        if text.type != type or context.validator.issues(tree):
            continue  # the plan refuses it when it comes to its turn
        candidate = Candidate(type, id, 0, context.index.entries(type, tree, base))
        if matches(where, candidate, _Unlinked()):
            ids.append(id)
    return ids


def _create(action: Action, ids: list[str]) -> list[Target]:
    if ids:
        return [Target(action, ids[0], found=True)]
    return [Target(action, action.fresh, create=True)]


def _update(action: Action, ids: list[str]) -> list[Target]:
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


def _patch(action: Action, ids: list[str]) -> list[Target]:
    if not ids:
        raise NotFound(f"No `{action.type}` matches the criteria of this conditional patch; nothing was changed.")
    return [Target(action, ids[0])]


def _delete(action: Action, ids: list[str]) -> list[Target]:
    return [Target(action, id) for id in ids] or [Target(action, "", found=True)]


_RESOLVE = {"POST": _create, "PUT": _update, "PATCH": _patch, "DELETE": _delete}
