"""Whether a resource is base FHIR R4, in its structure and its invariants (https://hl7.org/fhir/R4/validation.html)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import jsonschema_rs

from fhir_server.fhir.definitions import Definitions
from fhir_server.fhir.outcome import Issue
from fhir_server.validation.diagnosis import Diagnosis
from fhir_server.validation.resource_checks import Break, find_breaks
from fhir_server.validation.schema import build_root_schema

MOST_ISSUES = 500
"""A hostile resource can have a fault in every byte; after this many, one issue says that the rest is not listed."""

_STUB = {"resourceType": "Basic"}
"""Replaces each entry's resource while the Bundle around them is checked."""


def _break_to_issue(found: Break) -> Issue:
    return Issue("error", "invariant", f"{found.key}: `{found.path}`: {found.sentence}.", (found.path,))


class StructureValidator:
    """Checks elements, cardinality, JSON types, formats, required codes, extensions and invariants, nested ones too.

    `invariants`: whether the error invariants are checked as well. The compiled schema is shared by all types; building
    a validator takes about 0.1 s and 40 MB.
    """

    def __init__(self, definitions: Definitions, invariants: bool = False) -> None:
        self._invariants = invariants
        self._types = frozenset(definitions.resource_types)
        self._diagnosis = Diagnosis(definitions, invariants)
        self._schema = jsonschema_rs.Draft4Validator(
            build_root_schema(definitions, invariants),
            validate_formats=False,
            # The standard engine matches in linear time, whatever the input.
            pattern_options=jsonschema_rs.RegexOptions(),
        )

    def find_issues(self, resource: Any, invariants: bool = True) -> tuple[Issue, ...]:
        """An issue for each fault of a resource as `orjson.loads` parsed it; () when there is none.

        `invariants` False: structure alone, for a Bundle that is carried out entry by entry and not stored, as for all
        where the validator was made without them.
        """
        invariants = invariants and self._invariants
        issues: tuple[Issue, ...] = ()
        if not self._accepts(resource):
            issues = tuple(islice(self._diagnosis.find_issues(resource, invariants), MOST_ISSUES + 1))
        if not issues and invariants:
            issues = tuple(islice(map(_break_to_issue, find_breaks(resource)), MOST_ISSUES + 1))
        if len(issues) <= MOST_ISSUES:
            return issues
        rest = f"The resource has more than {MOST_ISSUES} faults; the rest is not listed."
        return (*issues[:MOST_ISSUES], Issue("error", "structure", rest))

    def _accepts(self, resource: Any) -> bool:
        """Whether the schema accepts the resource and those nested in it; if not, `Diagnosis` decides."""
        type = resource.get("resourceType") if isinstance(resource, dict) else None
        if not isinstance(type, str) or type not in self._types:
            return False
        if type == "Bundle":
            return self._accepts_bundle(resource)
        if not self._schema.is_valid({type: resource}):
            return False
        if type == "Parameters":
            return self._accepts_parameters(resource.get("parameter", ()))
        return "contained" not in resource or all(map(self._accepts_contained, resource["contained"]))

    def _accepts_contained(self, resource: dict[str, Any]) -> bool:
        return "contained" not in resource and self._accepts(resource)

    def _accepts_bundle(self, bundle: dict[str, Any]) -> bool:
        """`_accepts` of a Bundle, first without its resources: the schema would convert each of them twice."""
        entries = bundle.get("entry")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            return bool(self._schema.is_valid({"Bundle": bundle}))
        stubs = [{**entry, "resource": _STUB} if "resource" in entry else entry for entry in entries]
        if not self._schema.is_valid({"Bundle": {**bundle, "entry": stubs}}):
            return False
        resources = [entry["resource"] for entry in entries if "resource" in entry]
        outcomes = [entry["response"]["outcome"] for entry in entries if "outcome" in entry.get("response", ())]
        return all(map(self._accepts, (*resources, *outcomes)))

    def _accepts_parameters(self, parameters: Iterable[dict[str, Any]]) -> bool:
        return all(
            ("resource" not in parameter or self._accepts(parameter["resource"]))
            and self._accepts_parameters(parameter.get("part", ()))
            for parameter in parameters
        )
