"""What is left of a resource when a message has said what it can: an issue for each path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fhir_server.fhir.urls import extension_url
from mappers.hl7v2.changes import Resource
from mappers.hl7v2.context import TEXT_EXTENSION
from mappers.hl7v2.outbound.receiver import Writing
from mappers.hl7v2.partner import Partner
from mappers.hl7v2.rows import SOURCE_EXTENSION
from mappers.hl7v2.stamps import RECORDED

NOT_CONTENT = frozenset({"resourceType", "id", "implicitRules"})
OF_THE_SERVER = frozenset({"versionId", "lastUpdated", "source"})
"""Members of `meta` that say how a resource is stored."""

BOOKKEEPING = frozenset({SOURCE_EXTENSION, RECORDED, TEXT_EXTENSION, extension_url("schedule-owner")})
"""Extensions in which the inbound mapper keeps its own notes."""

DERIVED = frozenset(
    {
        "visit",
        "coverage",
        "related-person",
        "condition",
        "observation",
        "diagnosticreport",
        "servicerequest",
        "specimen",
    }
    | {
        "charge",
        "slot",
        "schedule",
        "service-request",
        "practitioner-role",
        "location",
        "practitioner-name",
        "organization-name",
    }
    | {"allergy", "procedure", "medication", "medicationrequest"}
)
"""Kinds of identifiers that `derive_identifier` makes."""


def is_derived(identifier: Any, partner: Partner) -> bool:
    """Whether the inbound mapper made an identifier for what has no number: it is never sent."""
    system = str(identifier.get("system", "")) if isinstance(identifier, dict) else ""
    return system.startswith(f"{partner.root}/") and system.removeprefix(f"{partner.root}/") in DERIVED


def tell_leaves(resource: Resource, writing: Writing) -> None:
    """Adds an issue for each path of a resource that no field of the message says."""
    kind = resource["resourceType"]
    paths: dict[str, None] = {}
    for name, value in resource.items():
        if name not in NOT_CONTENT and not (name == "text" and isinstance(value, dict)):
            paths |= dict.fromkeys(_list_paths(name, value, f"{kind}.{name}", writing.receiver.partner))
    for path in paths:
        writing.tell(f"{path} of {kind}/{resource.get('id', '')} has no place in {writing.message}^{writing.event}.")


def _list_paths(name: str, value: Any, path: str, partner: Partner) -> Iterator[str]:
    """The paths of what a value holds, without the numbers of list entries."""
    if isinstance(value, list):
        for each in value:
            yield from _list_paths(name, each, path, partner)
    elif isinstance(value, dict):
        if value.get("url") in BOOKKEEPING or (name == "identifier" and is_derived(value, partner)):
            return
        if name == "extension":
            parts = (_list_paths(member, each, path, partner) for member, each in value.items() if member != "url")
            if any(True for part in parts for _ in part):
                yield f"{path.removesuffix('.extension')}.extension({value.get('url')})"
            return
        for member, each in value.items():
            if not (name == "meta" and member in OF_THE_SERVER) and member != "id":
                yield from _list_paths(member.lstrip("_"), each, f"{path}.{member}", partner)
    elif value is not None:
        yield path
