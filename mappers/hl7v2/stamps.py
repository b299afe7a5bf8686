"""When the last message was recorded that a partner has applied to a resource: what is older changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime

from fhir_server.fhir.urls import extension_url
from mappers.hl7v2.changes import Resource

RECORDED = extension_url("hl7v2-recorded")
"""Its extension: the name of the partner, and the instant."""

ALWAYS_STAMPED = frozenset({"Patient", "Encounter", "Appointment", "DiagnosticReport", "ChargeItem"})
"""Types whose stamp moves although the message says what is there already; others keep theirs then."""

ORDERED = ALWAYS_STAMPED | {"RelatedPerson", "Coverage", "Account", "Condition", "AllergyIntolerance"}
ORDERED |= {"Observation", "Specimen", "Procedure", "ServiceRequest", "MedicationRequest", "Slot"}
"""Types to which messages are applied in the order in which they were recorded."""


def read_stamp(resource: Resource, partner: str) -> datetime | None:
    """When the last message was recorded that a partner has applied to a resource; None where that is not known."""
    for extension in resource.get("extension", []):
        parts = {each.get("url"): each for each in extension.get("extension", [])}
        recorded = parts.get("recorded", {}).get("valueInstant", "")
        if extension.get("url") == RECORDED and parts.get("partner", {}).get("valueString") == partner and recorded:
            return datetime.fromisoformat(recorded)
    return None


def write_stamp(partner: str, recorded: datetime) -> Resource:
    """The extension that `read_stamp` reads."""
    moment = recorded.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    parts = [{"url": "partner", "valueString": partner}, {"url": "recorded", "valueInstant": moment}]
    return {"url": RECORDED, "extension": parts}
