"""A practice's rules for splitting claims, as the JSON of a `Library`: ordered rules of conditions and one action each.

docs/billing-rules.md shows every kind by a scenario.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from fhir_server.fhir.outcome import Issue
from mappers.billing.fields import Resource
from mappers.billing.libraries import read_library
from mappers.billing.split_facts import FACTS, Condition, Model, Text

KIND = "claim-split-rules"

_PROVIDER = r"^(Organization|Practitioner|PractitionerRole)/[A-Za-z0-9.-]{1,64}$"


class Route(Model):
    """The lines go into a claim of their own, with others of the same bucket."""

    action: Literal["route"]
    bucket: Text


class SplitBy(Model):
    """The lines are divided by the value of a fact."""

    action: Literal["split"]
    key: Text

    @model_validator(mode="after")
    def check(self) -> SplitBy:
        """A fact that exists."""
        if self.key not in FACTS:
            raise ValueError(f"there is no fact `{self.key}` to split by; the facts are {', '.join(sorted(FACTS))}")
        return self


class PayerOrder(Model):
    """The payers named, by payer id, pay first; the others follow in their order."""

    action: Literal["payers"]
    first: Annotated[tuple[Text, ...], Field(min_length=1)]


class Form(Model):
    """The form that the lines are billed on; institutional claims are held for a person."""

    action: Literal["form"]
    form: Literal["professional", "institutional"]


class BillingProvider(Model):
    """The provider that bills the lines, by reference."""

    action: Literal["provider"]
    provider: Annotated[str, StringConstraints(pattern=_PROVIDER)]


class Cap(Model):
    """At most so many units for one payer; the rest goes to the next, and after the last to the patient or on hold."""

    action: Literal["cap"]
    units: Annotated[Decimal, Field(gt=0, le=100000)]
    per: Literal["line", "day", "week", "month", "claim"] = "claim"
    rest: Literal["hold", "self-pay"] = "hold"


class Hold(Model):
    """The lines wait for a person."""

    action: Literal["hold"]


class SelfPay(Model):
    """The lines are the patient's: an Invoice and no Claim."""

    action: Literal["self-pay"]


Action = Annotated[
    Route | SplitBy | PayerOrder | Form | BillingProvider | Cap | Hold | SelfPay, Field(discriminator="action")
]


class SplitRule(Model):
    """One rule: all of `when` and none of `unless` must hold of a line; `because` is the reason that people read."""

    id: Text
    because: Text
    when: tuple[Condition, ...] = ()
    unless: tuple[Condition, ...] = ()
    then: Action


class RuleSet(Model):
    """The rules of a practice, or of one of its billing providers where `provider` is a reference."""

    name: Text
    provider: str = ""
    lists: dict[str, tuple[Text, ...]] = Field(default_factory=dict)
    rules: Annotated[tuple[SplitRule, ...], Field(max_length=500)] = ()
    version: str = Field(default="", exclude=True)

    @model_validator(mode="after")
    def check(self) -> RuleSet:
        """Rule ids stand once, lists exist."""
        ids = [rule.id for rule in self.rules]
        if twice := sorted({each for each in ids if ids.count(each) > 1}):
            raise ValueError(f"the rule id `{twice[0]}` stands more than once")
        for rule in self.rules:
            for condition in (*rule.when, *rule.unless):
                if condition.list_name and condition.list_name not in self.lists:
                    raise ValueError(
                        f"rule `{rule.id}` uses the list `{condition.list_name}`, which `lists` does not have"
                    )
        return self


NO_RULES = RuleSet(name="none")


def read_rule_set(library: Resource) -> tuple[RuleSet | None, list[Issue]]:
    """The rule set of a Library with its version as `name|version`, or None with its faults."""
    rules, issues = read_library(library, RuleSet)
    if rules is None:
        return None, issues
    name = library.get("url") or library.get("name") or rules.name
    return rules.model_copy(update={"version": f"{name}|{library.get('version', '')}"}), []


def is_rule_set(library: Resource) -> bool:
    """Whether a Library is a rule set by its `type`."""
    kind = library.get("type") or {}
    return KIND in (kind.get("text"), *(each.get("code") for each in kind.get("coding", ())))


def find_rule_set(libraries: Iterable[Resource], provider: str) -> tuple[RuleSet | None, list[Issue]]:
    """The rule set in force for a billing provider: its own active one, else the practice's, else `NO_RULES`.

    None with the faults where one of the candidates cannot be read, or two are active: then nothing may be split.
    """
    active: dict[str, list[RuleSet]] = {}
    for library in libraries:
        if library.get("status") == "active" and is_rule_set(library):
            rules, issues = read_rule_set(library)
            if rules is None:
                return None, issues
            active.setdefault(rules.provider, []).append(rules)
    for owner in (provider, ""):
        if len(active.get(owner, ())) > 1:
            text = f"Two active rule sets are for {owner or 'the practice'}. Retire one of them."
            return None, [Issue("error", "conflict", text, ("Library.status",))]
        if owner in active:
            return active[owner][0], []
    return NO_RULES, []
