"""Whether a resource is base FHIR R4 in its structure (https://hl7.org/fhir/R4/validation.html)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import jsonschema_rs

from fhir_server.fhir.definitions import Definitions
from fhir_server.fhir.outcome import Issue
from fhir_server.validation.diagnosis import Diagnosis
from fhir_server.validation.schema import root_schema

MOST_ISSUES = 500
"""A hostile resource can have a fault in every byte; past this many one issue says that the rest is not listed."""

_STUB = {"resourceType": "Basic"}
"""Stands for an entry's resource while the Bundle around it is checked."""


class StructureValidator:
    """Checks elements, cardinality, JSON types, formats, required codes and extensions, in nested resources too.

    The compiled schema is shared by all types; making a validator takes about 0.1 s and 40 MB.
    """

    def __init__(self, definitions: Definitions) -> None:
        self._types = frozenset(definitions.resource_types)
        self._diagnosis = Diagnosis(definitions)
        self._schema = jsonschema_rs.Draft4Validator(
            root_schema(definitions),
            validate_formats=False,
            # The standard engine matches in linear time, whatever the input.
            pattern_options=jsonschema_rs.RegexOptions(),
        )

    def issues(self, resource: Any) -> tuple[Issue, ...]:
        """All structural faults of a resource as `orjson.loads` gave it; () when there is none."""
        if self._passes(resource):
            return ()
        found = tuple(islice(self._diagnosis.issues(resource), MOST_ISSUES + 1))
        if len(found) <= MOST_ISSUES:
            return found
        rest = f"The resource has more than {MOST_ISSUES} faults; the rest is not listed."
        return (*found[:MOST_ISSUES], Issue("error", "structure", rest))

    def _passes(self, resource: Any) -> bool:
        """Whether the schema accepts the resource and those nested in it; if not, the diagnosis decides."""
        type_ = resource.get("resourceType") if isinstance(resource, dict) else None
        if not isinstance(type_, str) or type_ not in self._types:
            return False
        if type_ == "Bundle":
            return self._bundle_passes(resource)
        if not self._schema.is_valid({type_: resource}):
            return False
        if type_ == "Parameters":
            return self._parameters_pass(resource.get("parameter", ()))
        return "contained" not in resource or all(map(self._contained_passes, resource["contained"]))

    def _contained_passes(self, resource: dict[str, Any]) -> bool:
        return "contained" not in resource and self._passes(resource)

    def _bundle_passes(self, bundle: dict[str, Any]) -> bool:
        """The entries' resources are taken out first: the schema would convert each of them twice."""
        entries = bundle.get("entry")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            return bool(self._schema.is_valid({"Bundle": bundle}))
        stubs = [{**entry, "resource": _STUB} if "resource" in entry else entry for entry in entries]
        if not self._schema.is_valid({"Bundle": {**bundle, "entry": stubs}}):
            return False
        resources = [entry["resource"] for entry in entries if "resource" in entry]
        outcomes = [entry["response"]["outcome"] for entry in entries if "outcome" in entry.get("response", ())]
        return all(map(self._passes, (*resources, *outcomes)))

    def _parameters_pass(self, parameters: Iterable[dict[str, Any]]) -> bool:
        return all(
            ("resource" not in parameter or self._passes(parameter["resource"]))
            and self._parameters_pass(parameter.get("part", ()))
            for parameter in parameters
        )
