"""The `$operations`: one file each, one line each in this table (https://hl7.org/fhir/R4/operations.html)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from fhir_server.interactions.exchange import Context, Request, Response
from fhir_server.operations import everything, lastn, meta, purge, reindex

Handler = Callable[[Context, Request], Awaitable[Response]]
Level = Literal["system", "type", "instance", "version"]

ANY = "*"
_FORMS: Mapping[Level, str] = {"system": "", "type": "{}/", "instance": "{}/id/", "version": "{}/id/_history/version/"}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: its code (without `$`), the methods it answers, its OperationDefinition and its handler.

    `definition`: its URL, `{type}` in it standing for the resource type. `setting`: the setting that switches it on.
    `at`: where it is called, per resource type (ANY for all of them).
    """

    code: str
    methods: tuple[str, ...]
    definition: str
    documentation: str
    handler: Handler
    at: Mapping[str, tuple[Level, ...]] = field(default_factory=lambda: {ANY: ("instance",)})
    setting: str = ""

    def levels(self, type: str | None) -> tuple[Level, ...]:
        """Where it is called for a resource type; for None, at the system."""
        if type is None:
            return tuple(level for level in self.at.get(ANY, ()) if level == "system")
        return tuple(level for level in self.at.get(type, self.at.get(ANY, ())) if level != "system")

    def forms(self) -> Iterator[str]:
        """The URLs that it is called on, such as `Type/id/$meta`."""
        for type, levels in self.at.items():
            yield from (f"{_FORMS[level].format('Type' if type == ANY else type)}${self.code}" for level in levels)


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
            at={ANY: ("instance", "version")},
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
        Operation(
            "reindex",
            ("GET", "POST"),
            "https://fhir-server.example/OperationDefinition/reindex",
            "Makes the search index of stored resources anew; GET tells how far it is.",
            reindex.reindex,
            at={ANY: ("system", "type")},
        ),
        Operation(
            "everything",
            ("GET", "POST"),
            f"{_HL7}{{type}}-everything",
            "All resources of the compartment and what they refer to.",
            everything.everything,
            at={"Patient": ("type", "instance"), "Encounter": ("instance",)},
        ),
        Operation(
            "lastn",
            ("GET", "POST"),
            f"{_HL7}Observation-lastn",
            "The most recent observations of each code for a subject.",
            lastn.lastn,
            at={"Observation": ("type",)},
        ),
    )
}
