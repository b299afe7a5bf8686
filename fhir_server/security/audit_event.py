"""An answered interaction as a FHIR AuditEvent, in the shape of IHE Basic Audit Log Patterns (https://profiles.ihe.net/ITI/BALP).

The query stands without its values: they may be a patient's name. BALP would keep them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from fhir_server.fhir.datetimes import format_instant
from fhir_server.security.audit import Event

_TYPES = "http://terminology.hl7.org/CodeSystem/audit-event-type"
_SUBTYPES = "http://hl7.org/fhir/restful-interaction"
_OWN_SUBTYPES = "http://hl7.org/fhir/audit-event-sub-type"
_REASONS = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
_ROLES = "http://terminology.hl7.org/CodeSystem/object-role"
_ENTITIES = "http://terminology.hl7.org/CodeSystem/audit-entity-type"

_OWN = frozenset({"break-glass", "throttled"})
"""What is recorded and is no interaction: a refused break-glass, and a request beyond the rate."""
# https://hl7.org/fhir/R4/auditevent-example-breakglass-start.html
_EMERGENCY = {
    "system": "http://dicom.nema.org/resources/ontology/DCM",
    "code": "110127",
    "display": "Emergency Override Started",
}

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

_RESOURCE, _QUERY, _PATIENT = (
    orjson.dumps({"system": _ROLES, "code": code, "display": display})
    for code, display in (("4", "Domain Resource"), ("24", "Query"), ("1", "Patient"))
)
_REQUEST = orjson.dumps({"system": _ENTITIES, "code": "4"})


def event_to_audit_event(event: Event, recorded: int) -> bytes:
    """The AuditEvent, as JSON, of an interaction that was answered at `recorded` (µs).

    What many events have in common is written once.
    """
    return b'%b"recorded":"%b%03dZ",%b,%b%b,"entity":[%b]}' % (
        _write_interaction(event.interaction, event.purpose != ""),
        _write_second(recorded // 1_000_000),
        recorded // 1000 % 1000,
        _write_outcome(event.status),
        _write_purpose(event) if event.purpose else b"",
        _write_agents(event.principal, event.user, event.client),
        _write_entities(event),
    )


def _write_members(members: Mapping[str, Any]) -> bytes:
    """The members of an object, without the braces around them."""
    return orjson.dumps(members)[1:-1]


@lru_cache(maxsize=256)
def _write_interaction(code: str, is_emergency: bool) -> bytes:
    is_own = code.startswith("$") or code in _OWN
    subtype = {"system": _OWN_SUBTYPES if is_own else _SUBTYPES, "code": code}
    members = {
        "resourceType": "AuditEvent",
        "type": {"system": _TYPES, "code": "rest"},
        "subtype": [subtype, _EMERGENCY] if is_emergency else [subtype],
        "action": _ACTIONS.get(code, "E"),
    }
    return b"{%b," % _write_members(members)


@lru_cache(maxsize=4)
def _write_second(second: int) -> bytes:
    """The beginning of an instant, up to its thousandths."""
    return format_instant(second * 1_000_000).removesuffix("000Z").encode()


@lru_cache(maxsize=64)
def _write_outcome(status: int) -> bytes:
    outcome = "0" if status < 400 else "4" if status < 500 else "8"
    return _write_members({"outcome": outcome, "outcomeDesc": f"HTTP {status}"})


def _write_purpose(event: Event) -> bytes:
    purpose = {"coding": [{"system": _REASONS, "code": event.purpose}], "text": event.reason}
    return _write_members({"purposeOfEvent": [purpose]}) + b","


@lru_cache(maxsize=1024)
def _write_agents(principal: str, user: str, client: str) -> bytes:
    agents: list[dict[str, Any]] = [{"who": {"identifier": {"value": principal}}, "requestor": True}]
    if user:
        agents[0]["who"]["reference"] = user
    if client:
        agents.append({"who": {"display": client}, "requestor": False, "name": "client"})
    return _write_members({"agent": agents, "source": {"observer": {"display": "fhir-server"}}})


def _write_entities(event: Event) -> bytes:
    parts: list[bytes] = []
    if event.type and event.id:
        parts.append(_write_reference(f"{event.type}/{event.id}", _RESOURCE))
    elif event.type or event.query:
        names = [{"type": "parameter", "valueString": name} for name in event.query]
        detail = b',"detail":%b' % orjson.dumps(names) if names else b""
        parts.append(b'{"name":%b,"role":%b%b}' % (orjson.dumps(event.type or "system"), _QUERY, detail))
    if event.patient:
        parts.append(_write_reference(f"Patient/{event.patient}", _PATIENT))
    parts.append(b'{"what":{"identifier":{"value":%b}},"type":%b}' % (orjson.dumps(event.request_id), _REQUEST))
    return b",".join(parts)


def _write_reference(reference: str, role: bytes) -> bytes:
    return b'{"what":{"reference":%b},"role":%b}' % (orjson.dumps(reference), role)
