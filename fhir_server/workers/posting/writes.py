"""Resources of billing as writes: amounts as `Decimal` are written as JSON numbers with their places."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.resource import parse
from fhir_server.requests.context import Context
from fhir_server.workers.message_tasks import derive_id
from fhir_server.writes.action import Action
from mappers.billing import codes
from mappers.billing.fields import Resource, find_identifier

encode = msgspec.json.Encoder(decimal_format="number").encode

_KEYS = {
    "Task": codes.TASK_KEY,
    "Invoice": codes.INVOICE_KEY,
    "ChargeItem": codes.CHARGE_OF_PROCEDURE,
    "Claim": codes.PATIENT_CONTROL_NUMBER,
    "PaymentReconciliation": codes.REMITTANCE_KEY,
}


def put(resource: Resource, decided: bool = True) -> Action:
    """The write that stores a resource under its id. `decided`: the rule of its type is not asked."""
    id: str = resource["id"]
    return Action("PUT", resource["resourceType"], id, id=id, text=parse(encode(resource)), decided=decided)


def name(resource: Resource) -> Resource:
    """The resource with an id that follows from its identifier, so that it exists once."""
    if "id" in resource:
        return resource
    type = resource["resourceType"]
    key = find_identifier(resource, _KEYS[type])
    return {"resourceType": type, "id": derive_id(type, key), **resource}


def find_zone(context: Context) -> tzinfo:
    """The practice's zone, in which days are told."""
    zone = context.settings.time_zone
    return UTC if zone == "UTC" else ZoneInfo(zone)


def read_today(context: Context) -> date:
    """The day of the clock in the practice's zone: the day of posting."""
    return datetime.fromtimestamp(context.clock() / 1_000_000, find_zone(context)).date()


def read_now(context: Context) -> str:
    """The clock as an instant, to the millisecond."""
    return format_instant(context.clock() // 1000 * 1000)


def copy(tree: Mapping[str, Any]) -> Resource:
    """A stored resource without what the store has set."""
    return {key: value for key, value in tree.items() if key != "meta"}
