"""An answered interaction as a FHIR AuditEvent, in the shape of IHE Basic Audit Log Patterns (https://profiles.ihe.net/ITI/BALP).

The query stands without its values: they may be a patient's name. BALP would keep them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fhir_server.fhir.datetimes import format_instant
from fhir_server.security.audit import Event

_TYPES = "http://terminology.hl7.org/CodeSystem/audit-event-type"
_SUBTYPES = "http://hl7.org/fhir/restful-interaction"
_ROLES = "http://terminology.hl7.org/CodeSystem/object-role"
_ENTITIES = "http://terminology.hl7.org/CodeSystem/audit-entity-type"

_ACTIONS: Mapping[str, str] = {
    "create": "C",
    "read": "R",
    "vread": "R",
    "history-instance": "R",
    "update": "U",
    "patch": "U",
    "delete": "D",
}
"""Interaction → `AuditEvent.action`; all others execute (`E`)."""


def event_to_audit_event(event: Event, recorded: int) -> dict[str, Any]:
    """The AuditEvent of an interaction that was answered at `recorded` (µs)."""
    subtype = (
        {"system": "http://hl7.org/fhir/audit-event-sub-type", "code": event.interaction}
        if event.interaction.startswith("$")
        else {"system": _SUBTYPES, "code": event.interaction}
    )
    outcome = "0" if event.status < 400 else "4" if event.status < 500 else "8"
    return {
        "resourceType": "AuditEvent",
        "type": {"system": _TYPES, "code": "rest"},
        "subtype": [subtype],
        "action": _ACTIONS.get(event.interaction, "E"),
        "recorded": format_instant(recorded // 1000 * 1000),
        "outcome": outcome,
        "outcomeDesc": f"HTTP {event.status}",
        "agent": list(_list_agents(event)),
        "source": {"observer": {"display": "fhir-server"}},
        "entity": list(_list_entities(event)),
    }


def _list_agents(event: Event) -> list[dict[str, Any]]:
    agents: list[dict[str, Any]] = [{"who": {"identifier": {"value": event.principal}}, "requestor": True}]
    if event.user:
        agents[0]["who"]["reference"] = event.user
    if event.client:
        agents.append({"who": {"display": event.client}, "requestor": False, "name": "client"})
    return agents


def _list_entities(event: Event) -> list[dict[str, Any]]:
    entities: list[dict[str, Any]] = []
    if event.type and event.id:
        entities.append({"what": {"reference": f"{event.type}/{event.id}"}, "role": _role("4", "Domain Resource")})
    elif event.type or event.query:
        names = [{"type": "parameter", "valueString": name} for name in event.query]
        query = {"name": event.type or "system", "role": _role("24", "Query")}
        entities.append({**query, "detail": names} if names else query)
    if event.patient:
        entities.append({"what": {"reference": f"Patient/{event.patient}"}, "role": _role("1", "Patient")})
    entities.append({"what": {"identifier": {"value": event.request_id}}, "type": {"system": _ENTITIES, "code": "4"}})
    return entities


def _role(code: str, display: str) -> dict[str, str]:
    return {"system": _ROLES, "code": code, "display": display}
