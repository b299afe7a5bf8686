"""The plan of a write: actions become one `store.operations.Transaction` (design: plan, then commit).

Everything that can be done before the store's transaction is done here: criteria resolved, references rewritten,
resources validated, index entries computed. What the plan relied on travels with it as assertions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from fhir_server.fhir.json_tree import has_same_content
from fhir_server.fhir.outcome import (
    Conflict,
    FhirError,
    Invalid,
    Issue,
    PreconditionFailed,
    TooCostly,
)
from fhir_server.fhir.resource import Text, split_at_version
from fhir_server.requests.context import Context
from fhir_server.requests.headers import ANY_VERSION
from fhir_server.requests.long_work import THREAD_FROM
from fhir_server.requests.request import Caller
from fhir_server.search.entries import Entries
from fhir_server.store.operations import Assertion, Content, Transaction, VersionIs, Write
from fhir_server.store.protocol import SEARCH_PARAMETER, Stored, WriteConflict
from fhir_server.writes.action import Action, WriteResult
from fhir_server.writes.check_current import check_criteria, check_current
from fhir_server.writes.check_search_parameter import check_search_parameter
from fhir_server.writes.identity import build_stored_tree, check_id, check_identity
from fhir_server.writes.index_size import COUNTED_FROM, check_resource, check_transaction
from fhir_server.writes.pending_writes import PendingWrites
from fhir_server.writes.resolve_targets import SLICE, ResolvedTargets, Target, resolve_targets
from fhir_server.writes.resolve_texts import resolve_texts
from fhir_server.writes.rules import concerns_new

# Current versions that are read before their size is looked at.
_READ_AT_ONCE = 500


_PLANNED_IN_A_ROW = 2 * THREAD_FROM
"""Bytes of resources that are planned before others get a turn: a few milliseconds."""

REFERENCE_EXEMPT = frozenset({"AuditEvent", "Provenance"})


@dataclass(slots=True)
class Plan:
    """A transaction in the making, and per action the position of its write or the version that answers it."""

    caller: Caller
    registry: int | None = None
    found: Mapping[str, Stored] = field(default_factory=dict)
    """By reference, the latest versions that were read for the plan; deletions too."""
    assertions: list[Assertion] = field(default_factory=list)
    locks: set[str] = field(default_factory=set)
    writes: list[Write] = field(default_factory=list)
    required: dict[str, tuple[Target, Text]] = field(default_factory=dict)
    released: list[str] = field(default_factory=list)
    steps: list[tuple[Target, Stored | int | None]] = field(default_factory=list)
    """Per target: the position of its write, or the stored version that answers it, or None (nothing there)."""
    parameters: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    """By id, the SearchParameters written so far; None for one that is deleted."""
    pending: PendingWrites | None = None
    """What is written as rules see it; only where a rule will be asked."""
    issues: dict[int, tuple[Issue, ...]] = field(default_factory=dict)
    """By number of the step, what its rule remarks."""
    allowed: set[int] = field(default_factory=set)
    """The numbers of steps whose rule is not asked: it has nothing to say of what they make."""
    late: dict[int, Text] | None = None
    """By number of the step, the texts that are indexed after their rule, which may set elements; None: none is."""
    positions: dict[str, int] = field(default_factory=dict)
    """By reference, the positions of the first writes, as far as `find_position` has looked."""

    def find_position(self, target: Target) -> int | None:
        """Where this plan writes the resource that answers a repeated conditional create."""
        for number in range(len(self.positions), len(self.writes)):
            write = self.writes[number]
            self.positions.setdefault(f"{write.type}/{write.id}", number)
        return self.positions.get(target.reference)

    def to_transaction(self, reads: Transaction) -> Transaction:
        """The plan as the store takes it, with the reads and queries of `reads`."""
        written = {f"{write.type}/{write.id}" for write in self.writes if write.content is not None}
        return Transaction(
            reads=reads.reads,
            queries=reads.queries,
            writes=tuple(self.writes),
            assertions=tuple(self.assertions),
            required=tuple(reference for reference in self.required if reference not in written),
            released=tuple(self.released),
            exempt=REFERENCE_EXEMPT,
            purged=tuple(target.reference for target, _ in self.steps if target.action.purge),
            locks=tuple(sorted(self.locks)),
            registry=self.registry,
        )


async def plan(context: Context, actions: Sequence[Action], caller: Caller, bundle: bool) -> Plan:
    """Plan all actions as one transaction. Raises a FhirError that names the entries at fault."""
    registry = context.parameters.current.number
    check_criteria(context, actions, caller)
    resolved = await resolve_targets(context, actions, caller)
    _refuse_double_writes(resolved)
    found = await _read_current(context, resolved, caller)
    await check_current(context, resolved.targets, found, caller)
    ruled = any(action.type in context.rules for action in actions)
    pending = PendingWrites() if ruled else None
    draft = Plan(caller, registry, found, resolved.assertions, resolved.locks, pending=pending)
    if ruled and len(resolved.targets) == 1 and not context.policy.restricts(caller.principal):
        draft.late = {}
    # Long plans in turn, in the order they came: worked on by turns they would all be done at the end of the last, and
    # nothing could be written meanwhile.
    async with context.planning if len(actions) > SLICE else nullcontext():
        texts = await resolve_texts(context, resolved, caller, found, bundle)
        if await _plan_targets(context, draft, resolved, texts, found) >= COUNTED_FROM:
            check_transaction(draft.writes, context.settings)
    return draft


async def _plan_targets(
    context: Context, draft: Plan, resolved: ResolvedTargets, texts: Mapping[int, Text], found: Mapping[str, Stored]
) -> int:
    """Add every target to the plan; the bytes of their resources.

    Raises Invalid with the faults of all resources, or the first other error.
    """
    problems: list[Issue] = []
    waited_for = in_a_row = total = 0
    for number, target in enumerate(resolved.targets):
        try:
            text, current = texts.get(number), found.get(target.reference)
            size = len(text.raw) if text is not None and not target.found else 0
            total += size
            if size and target.action.type == SEARCH_PARAMETER:  # a few bytes of an expression take long to compile
                size += THREAD_FROM
            if size < THREAD_FROM:
                plan_target(context, draft, target, text, current, draft.caller)
            else:
                await context.long_work.run(size, plan_target, context, draft, target, text, current, draft.caller)
        except FhirError as error:
            problems += error.relocate(target.action.where).issues if target.action.where else error.issues
            if not isinstance(error, Invalid):
                raise (error.relocate(target.action.where) if target.action.where else error) from None
        waited_for, in_a_row = waited_for + size, in_a_row + 1
        if waited_for > _PLANNED_IN_A_ROW or in_a_row == SLICE:
            await asyncio.sleep(0)
            waited_for = in_a_row = 0
    if problems:
        raise Invalid(issues=problems)
    return total


def _refuse_double_writes(resolved: ResolvedTargets) -> None:
    seen: dict[str, Target] = {}
    for target in resolved.targets:
        if target.found:
            continue
        other = seen.setdefault(target.reference, target)
        if other is not target:
            raise Invalid(
                f"The entries {other.action.where} and {target.action.where} both write `{target.reference}`; "
                "a transaction may write a resource once.",
                expression=(other.action.where, target.action.where),
            )


async def _read_current(context: Context, resolved: ResolvedTargets, caller: Caller) -> Mapping[str, Stored]:
    """The latest versions of what is updated, patched, or answers a conditional create; deletions too."""
    wanted = [
        target
        for target in resolved.targets
        if target.found or (_relies_on_current(context, target.action, caller) and not target.action.is_new)
    ]
    references = [target.reference for target in wanted if target.id]
    found: dict[str, Stored] = {}
    if len(references) > 1:
        size = 0
        for start in range(0, len(references), _READ_AT_ONCE):
            part = references[start : start + _READ_AT_ONCE]
            read = await context.unrestricted.read_many(part, deletions=True)
            size += sum(len(stored.raw or b"") for stored in read.values())
            if size > context.settings.max_body:
                raise TooCostly(
                    f"The resources that this transaction changes have more than {context.settings.max_body:,} bytes "
                    "together (setting `max_body`), and nothing was written; send it in parts."
                )
            found |= read
        return found
    for target in wanted:
        stored = await context.unrestricted.read(target.action.type, target.id) if target.id else None
        if stored is not None:
            found[target.reference] = stored
    return found


def _relies_on_current(context: Context, action: Action, caller: Caller) -> bool:
    """Whether what is stored decides about a write, which then asserts the version that was read."""
    if action.method == "DELETE":
        return action.if_match is not None or action.type in context.rules or context.policy.restricts(caller.principal)
    return action.method in ("PUT", "PATCH")


def plan_target(
    context: Context, draft: Plan, target: Target, text: Text | None, current: Stored | None, caller: Caller
) -> None:
    """Add one target's write, or what answers it, to the plan."""
    action = target.action
    _check_preconditions(context, draft, target, current)
    if target.found:
        draft.steps.append((target, _find_answer(draft, target, current)))
    elif action.method == "DELETE":
        draft.steps.append((target, len(draft.writes)))
        draft.writes.append(Write("DELETE", action.type, target.id))
        if action.type == SEARCH_PARAMETER:
            draft.parameters[target.id] = None
        if draft.pending is not None:
            draft.pending.put(target.reference, None)
        if context.settings.references == "enforce":
            draft.released.append(target.reference)
    else:
        assert text is not None
        _plan_write(context, draft, target, text, current, caller)


def _find_answer(draft: Plan, target: Target, current: Stored | None) -> Stored | int | None:
    """What answers a conditional create that found something. Raises WriteConflict when it was deleted meanwhile."""
    if target.action.method != "POST":
        return None
    if current is not None and current.raw is not None:
        return current
    position = draft.find_position(target)
    if position is None:
        raise WriteConflict(f"{target.reference} was deleted while this was planned")
    return position


def _check_preconditions(context: Context, draft: Plan, target: Target, current: Stored | None) -> None:
    action = target.action
    if action.method == "POST" and action.if_match is None:
        return
    if action.absent and current is not None and current.raw is not None:
        raise PreconditionFailed(
            f"`{target.reference}` exists (version {current.version}), but `If-None-Match: *` asks that it does not."
        )
    if action.if_match is not None:
        _check_version(action.if_match, target, current)
    if target.create and action.method == "PUT" and current is not None and current.raw is not None:
        raise Conflict(
            f"The criteria match nothing, and `{target.reference}`, the id in the body, is another resource's; "
            "leave the id out or update that resource by its id."
        )
    # an update asserts what it read as well, so that of two equal ones in parallel the second makes no version
    if _relies_on_current(context, action, draft.caller):
        version = 0 if current is None else current.version
        draft.assertions.append(VersionIs(action.type, target.id, version))


def _check_version(version: int, target: Target, current: Stored | None) -> None:
    """Raises PreconditionFailed unless that version, or any for ANY_VERSION, is current."""
    if current is not None and current.raw is not None:
        if version in (ANY_VERSION, current.version):
            return
        there = f"version {current.version} is"
    else:
        there = "it does not exist"
    named = "some version" if version == ANY_VERSION else f"version {version}"
    raise PreconditionFailed(
        f"`If-Match` names {named} of `{target.reference}` as current, but {there}; "
        "read it again and repeat the change on what is there now."
    )


def _plan_write(
    context: Context, draft: Plan, target: Target, text: Text, current: Stored | None, caller: Caller
) -> None:
    action = target.action
    check_identity(text, action.type, action.id)
    tree = build_stored_tree(text.tree, check_id(target.id))
    # criteria of this bundle have looked at it, and no reference in it was rewritten since
    entries = target.entries if text is action.text else None
    if entries is None and not action.is_valid and (issues := context.validator.find_issues(tree)):
        raise Invalid(issues=issues)
    if action.type == SEARCH_PARAMETER:
        check_search_parameter(context, tree, draft.parameters)
    head, tail = split_at_version(text, action.type, target.id)
    if current is not None and is_unchanged(current, head, tail):
        draft.steps.append((target, current))
        return
    rule = context.rules.get(action.type)
    is_new = current is None or current.raw is None
    asked = rule is not None and (not is_new or concerns_new(rule, tree))
    if rule is not None and not asked:
        draft.allowed.add(len(draft.steps))
    draft.steps.append((target, len(draft.writes)))
    if draft.late is not None and draft.pending is not None and asked and not action.decided:
        draft.writes.append(Write(action.method, action.type, target.id, Content(head, tail)))
        draft.late[len(draft.steps) - 1] = text
        draft.pending.put(target.reference, tree)
        return
    entries = entries or context.index.make_entries(action.type, tree, caller.base)
    require_targets(context, draft, target, text, entries)
    draft.writes.append(Write(action.method, action.type, target.id, Content(head, tail), entries))
    if draft.pending is not None:
        draft.pending.put(target.reference, tree if asked else text, entries)
    text.forget_tree()


def require_targets(context: Context, draft: Plan, target: Target, text: Text, entries: Entries) -> None:
    """Add the references that have to be there. Raises TooCostly for a resource with too many entries."""
    if len(text.raw) >= COUNTED_FROM:
        check_resource(entries, context.settings, target.reference)
    if entries.references and context.settings.references == "enforce" and target.action.type not in REFERENCE_EXEMPT:
        source = target, text
        for reference in entries.references:
            draft.required.setdefault(reference, source)


def index_late(context: Context, draft: Plan, number: int) -> None:
    """Index a write whose rule has set nothing in it."""
    target, position = draft.steps[number]
    text = draft.late.pop(number, None) if draft.late else None
    tree = draft.pending.get(target.reference) if draft.pending is not None else None
    if text is not None and tree is not None:
        assert isinstance(position, int)
        entries = context.index.make_entries(target.action.type, dict(tree), draft.caller.base)
        require_targets(context, draft, target, text, entries)
        draft.writes[position] = draft.writes[position]._replace(entries=entries)
        text.forget_tree()


def is_unchanged(current: Stored, head: bytes, tail: bytes) -> bool:
    """Whether a resource, split where its version stands, is what is stored already."""
    if current.raw is None:
        return False
    return has_same_content(current.raw, head + b'"versionId":"0"' + tail)


def collect_results(draft: Plan, written: tuple[Any, ...]) -> list[WriteResult]:
    """The result of every target, in the plan's order."""
    results = [_build_result(target, step, draft.writes, written) for target, step in draft.steps]
    for number, issues in draft.issues.items():
        results[number] = results[number]._replace(issues=issues)
    return results


def _build_result(
    target: Target, step: Stored | int | None, writes: list[Write], written: tuple[Any, ...]
) -> WriteResult:
    action = target.action
    if step is None:
        return WriteResult(204, action.type, target.id, 0, 0)
    if isinstance(step, Stored):
        return WriteResult(200, step.type, step.id, step.version, step.last_updated, raw=step.raw)
    result = written[step]
    if action.method == "DELETE":
        return WriteResult(204, action.type, target.id, result.version, result.last_updated)
    status = 201 if result.created and not target.found else 200
    return WriteResult(
        status, action.type, target.id, result.version, result.last_updated, content=writes[step].content
    )
