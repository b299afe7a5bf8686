"""No valid official or real-shaped resource is refused (https://hl7.org/fhir/R4/examples.html)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import pytest

from fhir_server.fhir.outcome import Issue
from fhir_server.validation.structure import StructureValidator
from tests.validation.corpora import folder, package

INVALID_IN_CORE = {
    # SearchParameter.base is 1..*; these ten drafts on extensions have none.
    **{
        f"package/SearchParameter-codesystem-extensions-CodeSystem-{code}.json": "required SearchParameter.base"
        for code in ("author", "effective", "end", "keyword", "workflow")
    },
    **{
        f"package/SearchParameter-valueset-extensions-ValueSet-{code}.json": "required SearchParameter.base"
        for code in ("author", "effective", "end", "keyword", "workflow")
    },
    # The id has 71 characters, and an id at most 64.
    "package/SearchParameter-questionnaireresponse-extensions-QuestionnaireResponse-item-subject.json": (
        "value SearchParameter.id"
    ),
    # Four codes end in a no-break space, and a code has no trailing whitespace.
    "package/CodeSystem-v2-0550.json": "value CodeSystem.concept[74].code",
}
# The validator's report, a Bundle of OperationOutcomes of which many lack the required issue.
INVALID_IN_US_CORE = {"package/other/validation-oo.json": "required Bundle.entry[0].resource.issue"}


def refused(validator: StructureValidator, resources: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """Name → code and path of the first issue, for each resource refused."""
    found: dict[str, tuple[Issue, ...]] = {name: validator.find_issues(resource) for name, resource in resources}
    return {name: f"{issues[0].code} {issues[0].expression[0]}" for name, issues in found.items() if issues}


def test_official_examples(validator: StructureValidator) -> None:
    assert refused(validator, folder("data/r4-examples")) == {}


def test_a_synthea_bundle(validator: StructureValidator) -> None:
    assert refused(validator, islice(folder("data/synthea"), 1)) == {}


@pytest.mark.long
def test_synthea(validator: StructureValidator) -> None:
    for name, bundle in folder("data/synthea"):
        entries = ((f"{name} {entry['fullUrl']}", entry["resource"]) for entry in bundle["entry"])
        assert refused(validator, [(name, bundle), *entries]) == {}


def test_us_core(validator: StructureValidator) -> None:
    found = refused(validator, package("definitions/hl7.fhir.us.core-6.1.0.tgz"))
    assert found == INVALID_IN_US_CORE


@pytest.mark.long
def test_the_core_package(validator: StructureValidator) -> None:
    assert refused(validator, package("definitions/hl7.fhir.r4.core.tgz")) == INVALID_IN_CORE


def test_most_resources_need_no_diagnosis(validator: StructureValidator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schema alone passes real data: what it leaves to the diagnosis stays rare."""
    walked: list[object] = []
    diagnose = validator._diagnosis.find_issues

    def count(resource: Any, *options: Any) -> Any:
        walked.append(resource)
        return diagnose(resource, *options)

    monkeypatch.setattr(validator._diagnosis, "find_issues", count)
    resources = [entry["resource"] for _, bundle in islice(folder("data/synthea"), 4) for entry in bundle["entry"]]
    assert not any(validator.find_issues(resource) for resource in resources)
    assert walked == []
    examples = [resource for _, resource in folder("data/r4-examples")]
    assert not any(validator.find_issues(resource) for resource in examples)
    assert len(walked) < len(examples) / 20
