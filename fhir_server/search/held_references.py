"""The references that keep their targets from being deleted (https://hl7.org/fhir/R4/references.html#literal)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fhir_server.fhir.references import BaseUrls, find_literal_references
from fhir_server.fhir.urls import MESSAGE_TASK


def find_held_references(resource: dict[str, Any], base: BaseUrls, types: Collection[str]) -> tuple[str, ...]:
    """Every literal reference of a resource to a local one, `Type/id`, distinct and sorted.

    Of a Task of the message log only the one to its text, the Binary with its own id: the log tells of the past, so
    that what a message made or was about may be deleted.
    """
    references = find_literal_references(resource, base, types)
    if references and resource.get("resourceType") == "Task" and _is_of_message_log(resource):
        return tuple(reference for reference in references if reference == f"Binary/{resource.get('id')}")
    return references


def _is_of_message_log(task: dict[str, Any]) -> bool:
    codings: list[dict[str, Any]] = task.get("code", {}).get("coding", [])
    return any(coding.get("system") == MESSAGE_TASK for coding in codings)
