"""Tasks for a person or a job, about what a message leaves to be done (https://hl7.org/fhir/R4/task.html)."""

from __future__ import annotations

from fhir_server.fhir.urls import code_system_url
from mappers.hl7v2.changes import Change, Resource
from mappers.hl7v2.datatypes.identifiers import derive_identifier, read_identity
from mappers.hl7v2.partner import Partner

TASKS = code_system_url("task")


def write_task(code: str, text: str, identifier: Resource) -> Resource:
    """A Task that is not done yet."""
    return {
        "resourceType": "Task",
        "identifier": [identifier],
        "status": "requested",
        "intent": "order",
        "code": {"coding": [{"system": TASKS, "code": code}]},
        "description": text,
    }


def make_task(code: str, text: str, key: tuple[str, ...], partner: Partner) -> Change:
    """A Task that is not done yet; the same code and key are the same Task, whichever message brings them."""
    key = (code, *key)
    identifier = derive_identifier("task", key, partner)
    task = write_task(code, text, identifier)
    url = f"urn:uuid:{derive_identifier('entry', key, partner)['value']}"
    return Change("Task", url, read_identity(identifier), task)
