"""The URLs of what this server itself defines: extensions, code systems, search parameters (profiles/README.md)."""

from __future__ import annotations

BASE = "https://fhir-server.example"
"""One base for all of them, on every installation: a definition has one name, wherever it is used."""


def extension_url(name: str) -> str:
    """The URL of an extension of ours, such as `overbook-reason`."""
    return f"{BASE}/StructureDefinition/{name}"


def code_system_url(name: str) -> str:
    """The URL of a code system of ours, such as `claim-state`."""
    return f"{BASE}/CodeSystem/{name}"


MESSAGE_TASK = code_system_url("message-task")
"""The code system of the Tasks of the message log, which need not have what they refer to (docs/messages.md)."""


def identifier_system_url(name: str) -> str:
    """The system of identifiers that we give, such as `control-number`."""
    return f"{BASE}/identifier/{name}"


def operation_url(code: str) -> str:
    """The URL of an OperationDefinition of ours."""
    return f"{BASE}/OperationDefinition/{code}"


def search_parameter_url(name: str) -> str:
    """The URL of a SearchParameter that ships with the server."""
    return f"{BASE}/SearchParameter/{name}"
