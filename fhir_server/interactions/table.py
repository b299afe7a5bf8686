"""The interactions of the RESTful API: from this table come the routes, the CapabilityStatement and the docs test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fhir_server.interactions import batch, capabilities, create, delete, history, patch, read, search, update
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response

Handler = Callable[[Context, Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Interaction:
    """One interaction: the method and path pattern it answers, its code in a CapabilityStatement and its handler.

    `code` is from http://hl7.org/fhir/R4/valueset-type-restful-interaction.html (or the system list); conditional
    variants share the code and differ by `conditional`: the request has criteria in its query.
    """

    code: str
    level: str
    method: str
    pattern: str
    handler: Handler
    conditional: bool = False


INTERACTIONS: tuple[Interaction, ...] = (
    Interaction("read", "type", "GET", "{type}/{id}", read.read),
    Interaction("vread", "type", "GET", "{type}/{id}/_history/{version}", read.vread),
    Interaction("update", "type", "PUT", "{type}/{id}", update.update),
    Interaction("update", "type", "PUT", "{type}", update.conditional_update, conditional=True),
    Interaction("patch", "type", "PATCH", "{type}/{id}", patch.patch),
    Interaction("patch", "type", "PATCH", "{type}", patch.conditional_patch, conditional=True),
    Interaction("delete", "type", "DELETE", "{type}/{id}", delete.delete),
    Interaction("delete", "type", "DELETE", "{type}", delete.conditional_delete, conditional=True),
    Interaction("create", "type", "POST", "{type}", create.create),
    Interaction("history-instance", "type", "GET", "{type}/{id}/_history", history.history),
    Interaction("history-type", "type", "GET", "{type}/_history", history.history),
    Interaction("search-type", "type", "GET", "{type}", search.search),
    Interaction("search-type", "type", "POST", "{type}/_search", search.search),
    Interaction("search-compartment", "", "GET", "{type}/{id}/{member}", search.compartment_search),
    Interaction("search-compartment", "", "POST", "{type}/{id}/{member}/_search", search.compartment_search),
    Interaction("capabilities", "", "GET", "metadata", capabilities.capabilities),
    Interaction("history-system", "system", "GET", "_history", history.history),
    Interaction("search-system", "system", "GET", "", search.search),
    Interaction("search-system", "system", "POST", "_search", search.search),
    Interaction("transaction", "system", "POST", "", batch.batch_or_transaction),
    Interaction("batch", "system", "POST", "", batch.batch_or_transaction),
)
