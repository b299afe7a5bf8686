"""The plan of a write: actions become one `store.operations.Transaction` (design: plan, then commit).

Everything that can be done before the store's transaction is done here: criteria resolved, references rewritten,
resources validated, index entries computed. What the plan relied on travels with it as assertions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from fhir_server.fhir.json_tree import decode, encode, same_content
from fhir_server.fhir.outcome import (
    Conflict,
    Deleted,
    FhirError,
    Invalid,
    Issue,
    NotFound,
    PreconditionFailed,
    Unprocessable,
)
from fhir_server.fhir.resource import Text, parse, spliced
from fhir_server.requests.context import Context
from fhir_server.requests.headers import ANY_VERSION
from fhir_server.store.operations import Assertion, Content, Transaction, VersionIs, Write
from fhir_server.store.protocol import SEARCH_PARAMETER, Stored, WriteConflict
from fhir_server.writes.action import Action, Done
from fhir_server.writes.bundle_references import Links, conditional_references, refuse_unresolved
from fhir_server.writes.identity import check_identity, checked_id, stored_tree
from fhir_server.writes.resolve_targets import Identified, Target, identify

REFERENCE_EXEMPT = frozenset({"AuditEvent", "Provenance"})

# Planning a large bundle must not keep other requests waiting: after this many writes the loop gets a turn.
SLICE = 50


@dataclass(slots=True)
class Plan:
    """A transaction and, per action (in the order given), what it will have come to."""

    base: str = ""
    registry: int | None = None
    writes: list[Write] = field(default_factory=list)
    assertions: list[Assertion] = field(default_factory=list)
    locks: set[str] = field(default_factory=set)
    required: dict[str, tuple[Target, Text]] = field(default_factory=dict)
    released: list[str] = field(default_factory=list)
    steps: list[tuple[Target, Stored | int | None]] = field(default_factory=list)
    """Per target: the position of its write, or the stored version that answers it, or None (nothing there)."""
    parameters: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    """By id, the SearchParameters written so far; None for one that is deleted."""

    def position(self, target: Target) -> int | None:
        """Where this plan writes the resource that answers a repeated conditional create."""
        for number, write in enumerate(self.writes):
            if write.type == target.action.type and write.id == target.id:
                return number
        return None

    def transaction(self, reads: Transaction) -> Transaction:
        """The plan as the store takes it, with the reads and queries of `reads`."""
        made = {f"{write.type}/{write.id}" for write in self.writes if write.content is not None}
        return replace(
            reads,
            writes=tuple(self.writes),
            assertions=tuple(self.assertions),
            required=tuple(reference for reference in self.required if reference not in made),
            released=tuple(self.released),
            exempt=REFERENCE_EXEMPT,
            locks=tuple(sorted(self.locks)),
            registry=self.registry,
        )


async def plan(context: Context, actions: list[Action], base: str, bundle: bool) -> Plan:
    """Plan all actions as one transaction. Raises a FhirError that names the entries at fault."""
    registry = context.parameters.current.number
    identified = await identify(context, actions, base)
    _refuse_double_writes(identified)
    found = await _current(context, identified)
    made = Plan(base, registry, assertions=identified.assertions, locks=identified.locks)
    # Long plans in turn, in the order they came: worked on by turns they would all be done at the end of the last, and
    # nothing could be written meanwhile.
    async with context.planning if len(actions) > SLICE else nullcontext():
        texts = await _texts(context, identified, base, found, bundle)
        await _steps(context, made, identified, texts, found)
    return made


async def _steps(
    context: Context, made: Plan, identified: Identified, texts: Mapping[int, Text], found: Mapping[str, Stored]
) -> None:
    """Add every target to the plan. Raises Invalid with the faults of all resources, or the first other error."""
    problems: list[Issue] = []
    for number, target in enumerate(identified.targets):
        try:
            _step(context, made, target, texts.get(number), found.get(target.reference), made.base)
        except FhirError as error:
            problems += error.located(target.action.where).issues if target.action.where else error.issues
            if not isinstance(error, Invalid):
                raise (error.located(target.action.where) if target.action.where else error) from None
        if number % SLICE == SLICE - 1:
            await asyncio.sleep(0)
    if problems:
        raise Invalid(issues=problems)


def _refuse_double_writes(identified: Identified) -> None:
    seen: dict[str, Target] = {}
    for target in identified.targets:
        if target.found:
            continue
        other = seen.setdefault(target.reference, target)
        if other is not target:
            raise Invalid(
                f"The entries {other.action.where} and {target.action.where} both write `{target.reference}`; "
                "a transaction may write a resource once.",
                expression=(other.action.where, target.action.where),
            )


async def _current(context: Context, identified: Identified) -> Mapping[str, Stored]:
    """The latest versions of what is updated, patched, or answers a conditional create; deletions too."""
    wanted = [
        target
        for target in identified.targets
        if target.found
        or target.action.method in ("PUT", "PATCH")
        or (target.action.method == "DELETE" and target.action.if_match is not None)
    ]
    references = [target.reference for target in wanted if target.id]
    if len(references) > 1:
        return await context.store.read_many(references, deletions=True)
    found: dict[str, Stored] = {}
    for target in wanted:
        stored = await context.store.read(target.action.type, target.id) if target.id else None
        if stored is not None:
            found[target.reference] = stored
    return found


async def _texts(
    context: Context, identified: Identified, base: str, found: Mapping[str, Stored], bundle: bool
) -> dict[int, Text]:
    """The text each target will have, with references resolved, by position of the target."""
    texts: dict[int, Text] = {}
    links = Links.of(identified.targets) if bundle else None
    for number, target in enumerate(identified.targets):
        action = target.action
        if target.found or action.method == "DELETE":
            continue
        try:
            if action.patch is not None:
                text = _patched(action, target, found.get(target.reference))
            else:
                assert action.text is not None
                text = action.text
            inside = action.type == "Bundle"  # what the entries of a Bundle refer to is settled inside it
            if links is not None and not inside:
                text = links.rewritten(text, action.full_url, context.definitions)
            if b"?" in text.raw and not inside:
                text = await conditional_references(context, identified, text, base)
            if bundle or context.settings.references == "enforce":
                refuse_unresolved(text)
        except FhirError as error:
            raise (error.located(action.where) if action.where else error) from None
        texts[number] = text
        if number % SLICE == SLICE - 1:
            await asyncio.sleep(0)
    return texts


def _patched(action: Action, target: Target, current: Stored | None) -> Text:
    if current is None:
        raise NotFound(f"`{target.reference}` does not exist, so there is nothing to patch.")
    if current.raw is None:
        raise Deleted(f"`{target.reference}` was deleted; a PUT would bring it back, a patch cannot.")
    assert action.patch is not None
    tree = action.patch(decode(current.raw))
    if not isinstance(tree, dict) or tree.get("resourceType") != action.type or tree.get("id") != target.id:
        raise Unprocessable(
            f"The patch changes `resourceType` or `id` of `{target.reference}`; these two cannot be patched.",
            expression=(f"{action.type}.id",),
        )
    return parse(encode(tree))


def _step(context: Context, made: Plan, target: Target, text: Text | None, current: Stored | None, base: str) -> None:
    """Add one target's write, or what answers it, to the plan."""
    action = target.action
    _check_preconditions(made, target, current)
    if target.found:
        made.steps.append((target, _answering(made, target, current)))
    elif action.method == "DELETE":
        made.steps.append((target, len(made.writes)))
        made.writes.append(Write("DELETE", action.type, target.id))
        if action.type == SEARCH_PARAMETER:
            made.parameters[target.id] = None
        if context.settings.references == "enforce":
            made.released.append(target.reference)
    else:
        assert text is not None
        _write(context, made, target, text, current, base)


def _answering(made: Plan, target: Target, current: Stored | None) -> Stored | int | None:
    """What answers a conditional create that found something. Raises WriteConflict when it was deleted meanwhile."""
    if target.action.method != "POST":
        return None
    if current is not None and current.raw is not None:
        return current
    position = made.position(target)
    if position is None:
        raise WriteConflict(f"{target.reference} was deleted while this was planned")
    return position


def _check_preconditions(made: Plan, target: Target, current: Stored | None) -> None:
    action = target.action
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
    if action.method in ("PUT", "PATCH") or action.if_match is not None:
        version = 0 if current is None else current.version
        made.assertions.append(VersionIs(action.type, target.id, version))


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


def _write(context: Context, made: Plan, target: Target, text: Text, current: Stored | None, base: str) -> None:
    action = target.action
    check_identity(text, action.type, action.id)
    tree = stored_tree(text.tree, checked_id(target.id))
    issues = context.validator.issues(tree)
    if issues:
        raise Invalid(issues=issues)
    if action.type == SEARCH_PARAMETER:
        _check_parameter(context, made, tree)
    head, tail = spliced(text, action.type, target.id)
    if current is not None and _unchanged(current, head, tail):
        made.steps.append((target, current))
        return
    entries = context.index.entries(action.type, tree, base)
    if context.settings.references == "enforce" and action.type not in REFERENCE_EXEMPT:
        for reference in entries.references:
            made.required.setdefault(reference, (target, text))
    made.steps.append((target, len(made.writes)))
    made.writes.append(Write(action.method, action.type, target.id, Content(head, tail), entries))
    text.forget_tree()


def _check_parameter(context: Context, made: Plan, tree: dict[str, Any]) -> None:
    """Refuse a SearchParameter that would be in force, but cannot be applied."""
    issues = context.parameters.faults(tree, made.parameters)
    if issues:
        raise Unprocessable(issues=issues)
    made.parameters[tree["id"]] = tree


def _unchanged(current: Stored, head: bytes, tail: bytes) -> bool:
    if current.raw is None:
        return False
    return same_content(current.raw, head + b'"versionId":"0"' + tail)


def done(made: Plan, written: tuple[Any, ...]) -> list[Done]:
    """Per target, in the plan's order, what it came to."""
    return [_done(target, step, made.writes, written) for target, step in made.steps]


def _done(target: Target, step: Stored | int | None, writes: list[Write], written: tuple[Any, ...]) -> Done:
    action = target.action
    if step is None:
        return Done(204, action.type, target.id, 0, 0)
    if isinstance(step, Stored):
        return Done(200, step.type, step.id, step.version, step.last_updated, raw=step.raw)
    result = written[step]
    if action.method == "DELETE":
        return Done(204, action.type, target.id, result.version, result.last_updated)
    status = 201 if result.created and not target.found else 200
    return Done(status, action.type, target.id, result.version, result.last_updated, content=writes[step].content)
