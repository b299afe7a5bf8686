"""A claim with all that judging, splitting and writing it needs, read for one decision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fhir_server.code_sets import read_code_sets
from fhir_server.fhir.outcome import Unprocessable
from fhir_server.operations.billing.library_rule import read_libraries
from fhir_server.search.query import Equals
from fhir_server.workers.posting.writes import copy, read_today
from fhir_server.writes.state import State
from mappers.billing.claim_view import ClaimView, Surroundings, view_claim
from mappers.billing.fields import Resource, find_reference
from mappers.billing.payer_settings import SiteSettings
from mappers.billing.site_libraries import PAYER_SETTINGS, read_site_settings
from mappers.billing.split_rules import KIND as RULE_SET
from mappers.billing.split_rules import BillingProvider, RuleSet, find_rule_set

MOST_REFERENCES = 1000
"""Resources that one claim may lead to."""

MOST_ENTRIES = 500
"""Lines of a claim that is judged or split, and entries of each of its other lists: ten times what an 837P holds."""

_BOUND = ("item", "diagnosis", "careTeam", "insurance", "supportingInfo", "related")

_FOLLOWED: dict[str, tuple[str, ...]] = {
    # type → the elements whose references lead to what a claim needs; `a.b` is an element of an element
    "Claim": (
        "patient",
        "provider",
        "insurer",
        "facility",
        "referral",
        "accident.locationReference",
        "careTeam.provider",
        "insurance.coverage",
        "insurance.claimResponse",
        "diagnosis.diagnosisReference",
        "item.encounter",
    ),
    "Coverage": ("payor", "subscriber", "policyHolder", "beneficiary"),
    "PractitionerRole": ("practitioner", "organization"),
    "RelatedPerson": ("patient",),
    "Location": ("managingOrganization",),
    "Encounter": ("appointment",),
}


@dataclass(slots=True)
class Shelf:
    """What one decision has read for its claims, each resource once."""

    state: State
    _found: dict[str, Resource | None] = field(default_factory=dict)
    _of_kind: dict[str, list[Resource]] = field(default_factory=dict)
    _site: SiteSettings | None = None

    async def view(self, claim: Resource) -> ClaimView:
        """The claim with its patient, providers, coverages and other claims, and the settings of the site."""
        check_size(claim)
        rules, _ = await self.find_rules(claim)
        named = [each.then.provider for each in rules.rules if isinstance(each.then, BillingProvider)] if rules else []
        patient = find_reference(claim.get("patient"))
        others: list[Resource] = []
        if patient.startswith("Patient/"):
            others = await self._search("Coverage", "beneficiary", patient)
        resources = await self._collect([claim, *others], named)
        history = await self._search("Claim", "patient", patient) if patient.startswith("Patient/") else []
        context = self.state.context
        around = Surroundings(read_today(context), await self._read_site(), read_code_sets(context), history)
        return view_claim(claim, resources, around)

    async def find_rules(self, claim: Resource) -> tuple[RuleSet | None, str]:
        """The rule set in force for the claim's billing provider, or None with the sentence why there is none."""
        libraries = await self._list_libraries(RULE_SET)
        rules, issues = find_rule_set(libraries, find_reference(claim.get("provider")))
        return rules, " ".join(each.diagnostics for each in issues)

    async def _read_site(self) -> SiteSettings:
        if self._site is None:
            self._site = read_site_settings(await self._list_libraries(PAYER_SETTINGS))
        return self._site

    async def _list_libraries(self, kind: str) -> list[Resource]:
        if kind not in self._of_kind:
            # what is in force is so for everybody, also for those who may not read it
            all_seeing = State(self.state.context, self.state.caller)
            self._of_kind[kind] = await read_libraries(all_seeing, kind)
            self.state.assertions += all_seeing.assertions
        return self._of_kind[kind]

    async def _search(self, type: str, parameter: str, patient: str) -> list[Resource]:
        """What there is of the patient; another claim or coverage that comes meanwhile is as if it came after."""
        found = await self.state.search(type, Equals(parameter, (patient,)), asserted=False)
        return [copy(each.tree) for each in found]

    async def _collect(self, roots: list[Resource], named: Iterable[str]) -> dict[str, Resource]:
        """By local reference, what the roots lead to."""
        collected = {f"{each['resourceType']}/{each['id']}": each for each in roots[1:]}
        waiting = [*named, *(each for root in roots for each in list_references(root))]
        seen = set(collected)
        while waiting:
            reference = waiting.pop()
            if reference in seen:
                continue
            seen.add(reference)
            if len(seen) > MOST_REFERENCES:
                text = f"The claim leads to more than {MOST_REFERENCES} resources. Divide it."
                raise Unprocessable(text, code="too-costly", expression=("Claim",))
            found = await self.read(reference)
            if found is not None:
                collected[reference] = found
                waiting += list_references(found)
        return collected

    async def read(self, reference: str) -> Resource | None:
        """The resource of a local reference."""
        if reference not in self._found:
            type, _, id = reference.partition("/")
            found = await self.state.read(type, id) if type in self.state.context.types else None
            self._found[reference] = None if found is None else copy(found.tree)
        return self._found[reference]


def check_size(claim: Resource) -> None:
    """Raises Unprocessable for a claim with so many entries that judging it would take too long."""
    for name in _BOUND:
        count = len(claim.get(name, ()))
        if count > MOST_ENTRIES:
            text = f"The claim has {count} entries in `{name}`; at most {MOST_ENTRIES} are judged. Divide it."
            raise Unprocessable(text, code="too-costly", expression=(f"Claim.{name}",))


def list_references(resource: Resource) -> Iterator[str]:
    """The local references of a resource, and of what it contains, that lead to what a claim needs."""
    for path in _FOLLOWED.get(resource["resourceType"], ()):
        for each in _walk(resource, path.split(".")):
            reference = find_reference(each)
            if reference.count("/") == 1 and ":" not in reference and not reference.startswith("#"):
                yield reference
    for inner in resource.get("contained", ()):
        yield from list_references(inner)


def _walk(element: Any, path: list[str]) -> Iterator[Any]:
    if isinstance(element, list):
        for each in element:
            yield from _walk(each, path)
    elif not path:
        yield element
    elif isinstance(element, dict):
        yield from _walk(element.get(path[0]), path[1:])
