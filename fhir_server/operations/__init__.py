"""The `$operations`: one file each, one line each in this table (https://hl7.org/fhir/R4/operations.html)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fhir_server.interactions.exchange import Context, Request, Response
from fhir_server.operations import meta, purge

Handler = Callable[[Context, Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: its code (without `$`), the methods it answers, its OperationDefinition and its handler.

    `version`: it can also be called on `Type/id/_history/version`. `setting`: the setting that switches it on.
    """

    code: str
    methods: tuple[str, ...]
    definition: str
    documentation: str
    handler: Handler
    version: bool = False
    setting: str = ""


_HL7 = "http://hl7.org/fhir/OperationDefinition/"

OPERATIONS: dict[str, Operation] = {
    operation.code: operation
    for operation in (
        Operation(
            "meta",
            ("GET", "POST"),
            f"{_HL7}Resource-meta",
            "Profiles, tags and security labels of a resource.",
            meta.meta,
            version=True,
        ),
        Operation(
            "meta-add",
            ("POST",),
            f"{_HL7}Resource-meta-add",
            "Adds profiles, tags and security labels; a new version is made when something was added.",
            meta.meta_add,
        ),
        Operation(
            "meta-delete",
            ("POST",),
            f"{_HL7}Resource-meta-delete",
            "Removes profiles, tags and security labels; a new version is made when something was removed.",
            meta.meta_delete,
        ),
        Operation(
            "purge",
            ("POST",),
            "https://fhir-server.example/OperationDefinition/purge",
            "Removes a resource with its whole history physically.",
            purge.purge,
            setting="purge",
        ),
    )
}
