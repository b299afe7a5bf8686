"""Business rules by resource type, asked about every write of that type, whatever door it comes through.

`operations/rules.py` holds the table: resource type → rule. The planner asks it for creates, updates, patches, deletes,
conditional forms, bundle entries, `$meta-add`, `$meta-delete` and `$purge` alike. A type without a rule pays nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from fhir_server.fhir.outcome import Conflict, FhirError, Issue, Unprocessable
from fhir_server.store.operations import Assertion
from fhir_server.writes.action import Action
from fhir_server.writes.pending_writes import Tree
from fhir_server.writes.state import State

Verb = Literal["POST", "PUT", "PATCH", "DELETE", "purge"]

MOST_FURTHER_ACTIONS = 1000
"""Actions that rules may add to one transaction."""


class Change(NamedTuple):
    """One write as its rule sees it.

    `current`: the version that it replaces, None where there is none or it is deleted. `new`: the resource as it will
    be stored, None for a deletion. `verb` says how it came about; a purge of what is deleted already has neither.
    """

    verb: Verb
    type: str
    id: str
    current: Tree | None
    new: Tree | None


class Ruling(NamedTuple):
    """What a rule says of a change.

    Issues of severity `error` and `fatal` refuse the whole transaction (409 where all of them have the code `conflict`,
    else 422), and those of `information` say what to do instead; others go with the result. `actions` are written in
    the same transaction (each is asked about by its own type's rule); `assertions` and `locks` are added to those of
    the state that the rule read. `elements` are set in the resource itself: top-level name → value, None takes the
    element out.
    """

    issues: tuple[Issue, ...] = ()
    actions: tuple[Action, ...] = ()
    assertions: tuple[Assertion, ...] = ()
    locks: tuple[str, ...] = ()
    elements: Mapping[str, Any] = MappingProxyType({})


ALLOWED = Ruling()

Rule = Callable[[State, Change], Awaitable[Ruling]]
Rules = Mapping[str, Rule]

Concerns = Callable[[Tree], bool]
"""A resource → whether a rule may have anything to say of it when it is new, by its own elements alone."""


@dataclass(frozen=True, slots=True)
class RuleForSome:
    """A rule that allows most resources that are new; it is not asked about those of which `concerns` is False."""

    rule: Rule
    concerns: Concerns

    async def __call__(self, state: State, change: Change) -> Ruling:
        """What the rule says."""
        return await self.rule(state, change)


def concerns_new(rule: Rule, tree: Tree) -> bool:
    """Whether the rule has to be asked about a resource that is new."""
    return not isinstance(rule, RuleForSome) or rule.concerns(tree)


def join_rules(*tables: Rules) -> Rules:
    """One table of several: a type that more than one has is asked about by each of them, in their order."""
    joined: dict[str, Rule] = {}
    for type in dict.fromkeys(type for table in tables for type in table):
        several = tuple(table[type] for table in tables if type in table)
        joined[type] = several[0] if len(several) == 1 else _join(several)
    return joined


def _join(rules: tuple[Rule, ...]) -> Rule:
    async def ask_each(state: State, change: Change) -> Ruling:
        rulings = [ruling for rule in rules if (ruling := await rule(state, change)) is not ALLOWED]
        if len(rulings) < 2:
            return rulings[0] if rulings else ALLOWED
        return Ruling(
            tuple(issue for each in rulings for issue in each.issues),
            tuple(action for each in rulings for action in each.actions),
            tuple(assertion for each in rulings for assertion in each.assertions),
            tuple(lock for each in rulings for lock in each.locks),
            {name: value for each in rulings for name, value in each.elements.items()},
        )

    if not all(isinstance(rule, RuleForSome) for rule in rules):
        return ask_each
    return RuleForSome(ask_each, lambda tree: any(concerns_new(rule, tree) for rule in rules))


def build_refusal(issues: tuple[Issue, ...]) -> FhirError | None:
    """The error for the issues of a ruling; None where none of them refuses the change."""
    errors = tuple(issue for issue in issues if issue.severity in ("error", "fatal"))
    if not errors:
        return None
    advice = tuple(issue for issue in issues if issue.severity == "information")
    kind = Conflict if all(issue.code == "conflict" for issue in errors) else Unprocessable
    return kind(issues=(*errors, *advice))
