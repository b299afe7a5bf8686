"""The endpoints of the FHIR API, a row for each method and URL, from which `/openapi.json` and `/docs` are made."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from fhir_server.fhir.definitions import Definitions
from fhir_server.interactions.table import INTERACTIONS, Interaction
from fhir_server.operations import OPERATIONS
from fhir_server.search.compartment import list_member_types
from fhir_server.settings import Settings

ALL = "*"
"""Every type: as the member of a compartment search (`Patient/1/*`), or as the type searched by the system."""

_LEVELS: Mapping[str, str] = {
    "system": "/",
    "type": "/{type}/",
    "instance": "/{type}/{id}/",
    "version": "/{type}/{id}/_history/{version}/",
}

_SUMMARIES: Mapping[str, str] = {
    "read": "Read a {type}",
    "vread": "Read one version of a {type}",
    "update": "Update a {type}, or create it at this id",
    "update?": "Update the one {type} that the criteria match, or create it",
    "patch": "Patch a {type}",
    "patch?": "Patch the one {type} that the criteria match",
    "delete": "Delete a {type}",
    "delete?": "Delete the {type} that the criteria match",
    "create": "Create a {type}",
    "history-instance": "Versions of one {type}",
    "history-type": "Versions of all {type} resources",
    "history-system": "Versions of all resources",
    "search-type": "Search {type}",
    "search-compartment": "Search {member} in the compartment of a {type}",
    "search-system": "Search all resource types",
    "capabilities": "What this server offers, as a CapabilityStatement",
    "transaction": "Process a Bundle: a transaction as a whole, a batch entry by entry",
    "batch": "Process a Bundle: a transaction as a whole, a batch entry by entry",
}
"""Code of an interaction, with `?` for its conditional form → what it does."""


class Endpoint(NamedTuple):
    """One method of one URL below the base URL, such as `GET` of `/Patient/{id}`.

    `codes`: its interactions, or one `$operation`. `type`: the resource type in the URL, "" for the system. `searched`:
    the type whose search parameters apply, ALL for those of every type, "" for none.
    `definition`: the OperationDefinition of an operation.
    """

    codes: tuple[str, ...]
    method: str
    path: str
    type: str
    summary: str
    searched: str = ""
    conditional: bool = False
    definition: str = ""


class Offer(NamedTuple):
    """What the endpoints depend on; `types`: the resource types served."""

    settings: Settings
    definitions: Definitions
    types: Collection[str]


def list_endpoints(offer: Offer, type: str = "") -> tuple[Endpoint, ...]:
    """The endpoints of a resource type, or of the system; one with several interactions has all their codes."""
    endpoints: dict[tuple[str, str], Endpoint] = {}
    for each in (*_list_interaction_endpoints(offer, type), *_list_operation_endpoints(offer, type)):
        same = endpoints.get((each.method, each.path))
        endpoints[each.method, each.path] = same._replace(codes=same.codes + each.codes) if same else each
    return tuple(endpoints.values())


def _list_interaction_endpoints(offer: Offer, type: str) -> Iterator[Endpoint]:
    for interaction in INTERACTIONS:
        if interaction.pattern.startswith("{type}") != bool(type):
            continue
        if "{member}" not in interaction.pattern:
            yield _make_endpoint(interaction, type, type or ALL)
        elif type in offer.definitions.compartments:
            members = [each for each in list_member_types(offer.definitions, type) if each in offer.types]
            for member in (*members, ALL):
                yield _make_endpoint(interaction, type, member)


def _make_endpoint(interaction: Interaction, type: str, searched: str) -> Endpoint:
    member = "everything" if searched == ALL else searched
    is_search = interaction.conditional or interaction.code.startswith("search-")
    return Endpoint(
        codes=(interaction.code,),
        method=interaction.method,
        path="/" + interaction.pattern.replace("{type}", type).replace("{member}", searched),
        type=type,
        summary=_SUMMARIES[interaction.code + "?" * interaction.conditional].format(type=type, member=member),
        searched=searched if is_search else "",
        conditional=interaction.conditional,
    )


def _list_operation_endpoints(offer: Offer, type: str) -> Iterator[Endpoint]:
    for operation in OPERATIONS.values():
        if operation.setting and not getattr(offer.settings, operation.setting):
            continue
        for level in operation.list_levels(type or None):
            for method in operation.methods:
                yield Endpoint(
                    codes=(f"${operation.code}",),
                    method=method,
                    path=f"{_LEVELS[level].replace('{type}', type)}${operation.code}",
                    type=type,
                    summary=operation.documentation,
                    definition=operation.definition.replace("{type}", type),
                )
